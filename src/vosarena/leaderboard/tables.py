"""The leaderboard as text: its cells, and Markdown for people. LaTeX for papers: see latex."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import pandas as pd

from vosarena.base.escaping import markdown_text
from vosarena.leaderboard.comparison import ALL
from vosarena.leaderboard.cross_dataset import footnote, matrices
from vosarena.leaderboard.statistics import FEWEST
from vosarena.metrics.protocols import PROTOCOLS, find_protocol

Cell = Callable[[pd.Series], str]
Column = tuple[str, Cell, bool]
Place = tuple[str, str, str]  # dataset, split, protocol


def _number(column: str, form: str = "{:.1f}") -> Cell:
    return lambda row: "" if column not in row or pd.isna(row[column]) else form.format(row[column])


def _text(column: str) -> Cell:
    return lambda row: "" if column not in row or pd.isna(row[column]) else str(row[column])


def _interval(row: pd.Series) -> str:
    return "" if pd.isna(row["ci_low"]) else f"{row['ci_low']:.1f} to {row['ci_high']:.1f}"


def _coverage(row: pd.Series) -> str:
    if pd.isna(row["n_expected"]):
        return ""
    covered = 0 if pd.isna(row["n_sequences"]) else row["n_sequences"]
    return f"{covered}/{row['n_expected']}" + (" incomplete" if row["status"] == "incomplete" else "")


def _objects(row: pd.Series) -> str:
    if "n_objects" not in row or pd.isna(row["n_objects"]):
        return ""
    every = row.get("n_objects_all", row["n_objects"])
    return str(row["n_objects"]) + (f"/{every}" if pd.notna(every) and every > row["n_objects"] else "")


def _p_value(row: pd.Series) -> str:
    value = row["p_vs_best"]
    return "" if pd.isna(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def _kind(row: pd.Series) -> str:
    return row["status"] if row["status"] not in ("complete", "published", "incomplete") else row["kind"]


# Title, cell and whether LaTeX tables have it; a column that is empty in every row is left out.
COLUMNS: tuple[Column, ...] = (
    ("rank", _number("rank", "{}"), False),
    ("model", _text("model"), True),
    ("kind", _kind, True),
    ("J&F", _number("j_and_f"), True),
    ("95% interval", _interval, True),
    ("J", _number("j"), True),
    ("F", _number("f"), True),
    ("J recall", _number("j_recall"), False),
    ("J decay", _number("j_decay"), False),
    ("F recall", _number("f_recall"), False),
    ("F decay", _number("f_decay"), False),
    ("J seen", _number("j_seen"), True),
    ("F seen", _number("f_seen"), True),
    ("J unseen", _number("j_unseen"), True),
    ("F unseen", _number("f_unseen"), True),
    ("behind best", _number("behind_best"), False),
    ("p", _p_value, True),
    ("sequences", _coverage, True),
    ("objects", _objects, False),
    ("fps", _number("fps"), True),
    ("peak MB", _number("peak_memory_mb", "{:.0f}"), False),
    ("device", _text("device"), False),
    ("source", _text("source"), False),
    ("note", _text("note"), False),
)
REPRODUCED: tuple[Column, ...] = (
    ("published as", _text("published"), True),
    ("published J&F", _number("published_j_and_f", "{:.2f}"), True),
    ("model", _text("model"), True),
    ("J&F", _number("j_and_f", "{:.2f}"), True),
    ("difference", _number("difference", "{:+.2f}"), True),
    ("state", _kind, True),
    ("source", _text("source"), False),
)
_EXPLAINED = (
    f"Intervals: 95 %, bootstrap over sequences; none and no p below {FEWEST} sequences (of five, p cannot fall below "
    "0.06). `behind best` and `p` (permutation test): paired with the best complete measured row. "
    "Published and incomplete rows are not ranked."
)


def markdown(tables: Mapping[str, pd.DataFrame]) -> str:
    """The leaderboard for people: models beside splits, each split and protocol, what was published beside what came
    out."""
    parts = ["# Leaderboard\n"]
    for title, shown in matrices(tables["leaderboard"]):
        flat = shown.set_axis([" ".join(filter(None, names)) for names in shown.columns], axis=1)
        note = footnote(shown)
        parts.append(_section(title, flat, note and f"\\{note}"))  # else a star begins a list
    for place, board in at_places(tables["leaderboard"]):
        parts.append(_section(_heading(place), shown_cells(board, COLUMNS), unscored(board)))
    for place, shown, note in attribute_tables(tables["attributes"]):
        parts.append(_section(f"J&F by attribute: {_heading(place)}", shown, note and f"{note}."))
    for place, board in at_places(tables["reproduction"]):
        parts.append(_section(f"Published and here: {_heading(place)}", shown_cells(board, REPRODUCED)))
    return "\n".join([*parts, f"{_EXPLAINED}\n"])


def unscored(board: pd.DataFrame) -> str:
    """Footnote on the objects that the protocol of a board does not score; empty if it scores all. One place's rows."""
    own = board[board["kind"] == "measured"]
    missing = own["n_objects_all"] - own["n_objects"]
    if not missing.sum():
        return ""
    count, every = int(missing.max()), int(own["n_objects_all"].max())
    protocol = find_protocol(str(own["protocol"].iloc[0]))
    others = ", ".join(item.name for item in PROTOCOLS.values() if item.late_objects and not item.repeats_peer)
    why = f"no frame that {protocol.name} scores has {'it' if count == 1 else 'them'}"
    if not protocol.late_objects:
        why = f"{protocol.name} scores none that appears after the first frame; {others} do"
    return f"{count} of {every} objects {'is' if count == 1 else 'are'} not scored: {why}."


def attribute_tables(attributes: pd.DataFrame) -> Iterator[tuple[Place, pd.DataFrame, str]]:
    """Place, cells and footnote of every table with a row for each attribute and a column for each model.

    attributes: the table of that name. Attributes that no sequence has, and places without any, are left out.
    """
    for place, rows in at_places(attributes[attributes["attribute"] != ALL]):
        scores = rows.pivot(index="attribute", columns="model", values="j_and_f")[list(rows["model"].unique())]
        numbers = rows.groupby("attribute")["n_sequences"].max()
        shown = scores.map(lambda value: "" if pd.isna(value) else f"{value:.1f}")
        shown.insert(0, "sequences", numbers.astype(str))
        note = "Attributes are derived from the ground truth" if rows["derived"].any() else ""
        yield place, shown.rename_axis(columns=None).reset_index(), note


def at_places(table: pd.DataFrame) -> Iterator[tuple[Place, pd.DataFrame]]:
    """(dataset, split, protocol) with their rows."""
    for (dataset, split, protocol), rows in table.groupby(["dataset", "split", "protocol"], sort=True):
        yield (str(dataset), str(split), str(protocol)), rows


def shown_cells(rows: pd.DataFrame, columns: Iterable[Column]) -> pd.DataFrame:
    """The cells of columns that are not empty in every row, as text."""
    cells = {title: [cell(row) for _, row in rows.iterrows()] for title, cell, _ in columns}
    if set(cells.get("kind", ())) == {"measured"}:
        del cells["kind"]  # it tells nothing
    return pd.DataFrame({title: column for title, column in cells.items() if any(column)})


def _heading(place: Place) -> str:
    return f"{place[0]}/{place[1]}, protocol {place[2]}"


def _section(title: str, shown: pd.DataFrame, note: str = "") -> str:
    escaped = shown.map(markdown_text).rename(columns=markdown_text)
    cells = escaped.to_markdown(index=False, disable_numparse=True)
    parts = [f"## {markdown_text(title)}", cells, *filter(None, [note])]
    return "\n\n".join(parts) + "\n"
