"""Build the main table of a paper, with one row for each model and three scores for each split."""

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
    """Iterate over the cross-dataset tables that have at least two splits.

    If every split is scored under one protocol, all splits are in one table. Otherwise there is one table for each
    protocol.

    Args:
        board: The table `leaderboard`.
        name_of: Function that returns the heading of a dataset and its split.

    Yields:
        Title and cells of a table.
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
    """Return the meaning of the marks in a cross-dataset table, or an empty text if there are none."""
    marked = shown.apply(lambda column: column.str.endswith(PARTIAL)).to_numpy().any()
    return f"{PARTIAL} a part of the split" if marked else ""


def column_groups(shown: pd.DataFrame) -> list[tuple[str, int]]:
    """Return the first level of the columns, each with the number of neighbouring columns that share it."""
    return [(group, len(list(members))) for group, members in groupby(group for group, _ in shown.columns)]


def _wide_table(rows: pd.DataFrame, name_of: Callable[[str, str], str]) -> pd.DataFrame:
    """Return a table of text with one row per model, scored here or by a server, and per published model and source.

    The best mean J&F comes first, and rows that lack a split come last. The columns are ("", "model"), ("", "kind") if
    some rows are published, (split and protocol, score), and ("mean", "J&F") for models that are complete on every
    split. A score is empty where there is none, and marked with PARTIAL where sequences are missing.
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
