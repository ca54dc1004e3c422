"""Models beside datasets: what a paper's main table shows, one row for each model and three scores for each split."""

from collections.abc import Callable, Iterator
from itertools import groupby

import pandas as pd

SCORES = {"J&F": "j_and_f", "J": "j", "F": "f"}
PARTIAL = "*"  # marks scores of a part of the split


def matrices(
    board: pd.DataFrame, name_of: Callable[[str, str], str] = "{}/{}".format
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Title and rows of every table that has at least two splits. board: the table `leaderboard`.

    name_of: from a dataset and its split to what stands above their columns.

    Splits that are each scored under one protocol, mostly their own, stand in one table; a study of several protocols
    has one table for each.
    """
    scored = board[board["j_and_f"].notna()]
    if (scored.groupby(["dataset", "split"])["protocol"].nunique() <= 1).all():
        groups = [("Models and splits", scored)]
    else:
        groups = [(f"Models and splits, protocol {name}", rows) for name, rows in scored.groupby("protocol")]
    for title, rows in groups:
        if len(rows[["dataset", "split"]].drop_duplicates()) > 1:
            yield title, _beside(rows, name_of)


def footnote(shown: pd.DataFrame) -> str:
    """What the marks in a table of `matrices` mean; empty if there are none."""
    marked = shown.apply(lambda column: column.str.endswith(PARTIAL)).to_numpy().any()
    return f"{PARTIAL} a part of the split" if marked else ""


def spans(shown: pd.DataFrame) -> list[tuple[str, int]]:
    """The first level of the columns and how many neighbours have it in common."""
    return [(group, len(list(members))) for group, members in groupby(group for group, _ in shown.columns)]


def _beside(rows: pd.DataFrame, name_of: Callable[[str, str], str]) -> pd.DataFrame:
    """One row per model, whether it was scored here or by a server, and per published model and source.

    The best mean J&F comes first; rows that lack a split come last. Columns: ("", "model"), ("", "kind") if some are
    published, (split and protocol, score), and ("mean", "J&F") of models that are whole on every split, as text; a
    score is empty where there is none, and marked with PARTIAL where sequences are missing.
    """
    published = rows["kind"] == "published"
    kinds = published.map({True: "published", False: ""}).rename("kind")
    sources = rows["source"].where(published, "")
    places = sorted({(row.dataset, row.split, row.protocol) for row in rows.itertuples()})
    lines = []
    for (model, kind, _), own in rows.groupby([rows["model"], kinds, sources], sort=True):
        line: dict[tuple[str, str], object] = {("", "model"): model, ("", "kind"): kind}
        for dataset, split, protocol in places:
            here = own[(own["dataset"] == dataset) & (own["split"] == split)]
            for title, column in SCORES.items():
                line[f"{name_of(dataset, split)}, {protocol}", title] = _score(here, column)
        means = own.groupby(["dataset", "split"])["j_and_f"].max()
        whole = len(means) == len(places) and (own["status"] != "incomplete").all()
        line["mean", "J&F"] = f"{means.mean():.1f}" if whole else ""
        lines.append((-len(means), -float(means.mean()), line))
    lines.sort(key=lambda item: item[:2])
    shown = pd.DataFrame([line for _, _, line in lines])
    shown.columns = pd.MultiIndex.from_tuples(shown.columns)
    return shown.loc[:, (shown != "").any()]


def _score(here: pd.DataFrame, column: str) -> str:
    if here.empty or pd.isna(here.iloc[0][column]):
        return ""
    return f"{here.iloc[0][column]:.1f}" + (PARTIAL if here.iloc[0]["status"] == "incomplete" else "")
