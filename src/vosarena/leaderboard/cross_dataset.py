"""Models by split, the main table of a paper: one row for each model, three scores for each split."""

from collections.abc import Callable, Iterator
from itertools import groupby

import pandas as pd

from vosarena.leaderboard.boards import KEYS, BoardKey, board_keys, rows_of
from vosarena.leaderboard.kinds import Kind, Status

SCORES = {"J&F": "j_and_f", "J": "j", "F": "f"}
PARTIAL = "*"  # marks scores of a part of the split


def cross_dataset_tables(
    board: pd.DataFrame, name_of: Callable[[str, str], str] = "{}/{}".format
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Title and cells of every table that has at least two splits.

    Splits that are each scored under one protocol, usually their own, share a table; a study of several protocols gets
    one table for each.

    Args:
        board: The table `leaderboard`.
        name_of: Heading of a dataset and its split.
    """
    scored = board[board["j_and_f"].notna()]
    if (scored.groupby(["dataset", "split"])["protocol"].nunique() <= 1).all():
        groups = [("Models and splits", scored)]
    else:
        groups = [(f"Models and splits, protocol {name}", rows) for name, rows in scored.groupby("protocol")]
    for title, rows in groups:
        if len(rows[["dataset", "split"]].drop_duplicates()) > 1:
            yield title, _wide_table(rows, name_of)


def footnote(shown: pd.DataFrame) -> str:
    """What the marks in a cross-dataset table mean; empty if there are none."""
    marked = shown.apply(lambda column: column.str.endswith(PARTIAL)).to_numpy().any()
    return f"{PARTIAL} a part of the split" if marked else ""


def column_groups(shown: pd.DataFrame) -> list[tuple[str, int]]:
    """The first level of the columns, and how many neighbours share it."""
    return [(group, len(list(members))) for group, members in groupby(group for group, _ in shown.columns)]


def _wide_table(rows: pd.DataFrame, name_of: Callable[[str, str], str]) -> pd.DataFrame:
    """One row per model, whether it was scored here or by a server, and per published model and source.

    The best mean J&F comes first; rows that lack a split come last. Columns: ("", "model"), ("", "kind") if some are
    published, (split and protocol, score), and ("mean", "J&F") of models that are complete on every split, as text. A
    score is empty where there is none, and marked with PARTIAL where sequences are missing.
    """
    published = rows["kind"] == Kind.PUBLISHED.value
    kinds = published.map({True: Kind.PUBLISHED.value, False: ""}).rename("kind")
    sources = rows["source"].where(published, "")
    keys = board_keys(rows)
    lines = []
    for (model, kind, _), of_model in rows.groupby([rows["model"], kinds, sources], sort=True):
        line: dict[tuple[str, str], str] = {("", "model"): model, ("", "kind"): kind}
        for key in keys:
            of_split = rows_of(of_model, key)
            for title, column in SCORES.items():
                line[_group(key, name_of), title] = _score(of_split, column)
        means = of_model.groupby(KEYS)["j_and_f"].max()
        complete = len(means) == len(keys) and (of_model["status"] != Status.INCOMPLETE.value).all()
        line["mean", "J&F"] = f"{means.mean():.1f}" if complete else ""
        lines.append((-len(means), -float(means.mean()), line))
    lines.sort(key=lambda item: item[:2])
    shown = pd.DataFrame([line for _, _, line in lines])
    shown.columns = pd.MultiIndex.from_tuples(shown.columns)
    return shown.loc[:, (shown != "").any()]


def _group(key: BoardKey, name_of: Callable[[str, str], str]) -> str:
    return f"{name_of(key.dataset, key.split)}, {key.protocol}"


def _score(rows: pd.DataFrame, column: str) -> str:
    if rows.empty or pd.isna(rows.iloc[0][column]):
        return ""
    return f"{rows.iloc[0][column]:.1f}" + (PARTIAL if rows.iloc[0]["status"] == Status.INCOMPLETE else "")
