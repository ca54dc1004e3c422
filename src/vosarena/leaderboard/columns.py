"""The columns of the tables: their names in CSV and Parquet files, and how they are shown to readers.

To add a column to the leaderboard, add a `Column` to LEADERBOARD here, and its value to a row in `build`. Markdown,
LaTeX and the report page follow.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Flag, auto

import pandas as pd

from vosarena.leaderboard.boards import KEYS
from vosarena.leaderboard.kinds import Kind, Status

Format = Callable[[pd.Series], str]  # from a row of the table to the text of a cell


class Shown(Flag):
    """Where a column is shown to readers, in addition to the CSV file."""

    NOWHERE = 0
    MARKDOWN = auto()
    LATEX = auto()
    PAGE = auto()


_ALL = Shown.MARKDOWN | Shown.LATEX | Shown.PAGE


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: Name in the CSV and Parquet files. The tables for readers sort by the values of this column.
        title: Heading for readers; columns that are not shown need none.
        format: Function that returns the text of a cell for readers; empty where there is nothing to show.
        shown: Where the column is shown to readers.
        order: Position from the left for readers. The CSV file has the columns in the order of the list.
        words: Whether the cells are words, which are aligned to the left and searched by the filter of the page.
        description: Explanation of the heading, which the page shows as a tooltip.
        optional: Whether the CSV file has the column only if a row has a value.
        on_page: Function that returns the text of a cell on the page, if it differs.
    """

    name: str
    title: str = ""
    format: Format = lambda row: ""
    shown: Shown = Shown.NOWHERE
    order: int = 0
    words: bool = False
    description: str = ""
    optional: bool = False
    on_page: Format | None = None

    def page_text(self, row: pd.Series) -> str:
        """Return the text of the cell of a row on the page."""
        return (self.on_page or self.format)(row)


def _number(column: str, pattern: str = "{:.1f}") -> Format:
    return lambda row: "" if column not in row or pd.isna(row[column]) else pattern.format(row[column])


def _text(column: str) -> Format:
    return lambda row: "" if column not in row or pd.isna(row[column]) else str(row[column])


def _interval(row: pd.Series) -> str:
    return "" if pd.isna(row["ci_low"]) else f"{row['ci_low']:.1f} to {row['ci_high']:.1f}"


def _score_with_interval(row: pd.Series) -> str:
    score = _number("j_and_f")(row)
    return f"{score} [{row['ci_low']:.1f}, {row['ci_high']:.1f}]" if score and pd.notna(row["ci_low"]) else score


def _covered(row: pd.Series) -> str:
    if pd.isna(row["n_expected"]):
        return ""
    return f"{0 if pd.isna(row['n_sequences']) else row['n_sequences']}/{row['n_expected']}"


def _coverage(row: pd.Series) -> str:
    covered = _covered(row)
    return f"{covered} incomplete" if covered and row["status"] == Status.INCOMPLETE else covered


def _objects(row: pd.Series) -> str:
    if "n_objects" not in row or pd.isna(row["n_objects"]):
        return ""
    every = row.get("n_objects_all", row["n_objects"])
    return str(row["n_objects"]) + (f"/{every}" if pd.notna(every) and every > row["n_objects"] else "")


def _p_value(row: pd.Series) -> str:
    value = row["p_vs_best"]
    return "" if pd.isna(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def _kind(row: pd.Series) -> str:
    """Return the kind, or the status where it is more informative."""
    plain = (Status.COMPLETE, Status.PUBLISHED, Status.INCOMPLETE)
    return str(row["kind"] if row["status"] in plain else row["status"])


_SPEED: tuple[Column, ...] = (
    Column(
        "fps",
        "fps",
        _number("fps"),
        Shown.PAGE,
        order=20,
        description="Frames per second, reading and writing included",
    ),
    Column(
        "peak_memory_mb",
        "peak MB",
        _number("peak_memory_mb", "{:.0f}"),
        Shown.PAGE,
        order=21,
        description="Peak GPU memory, or memory of the process without a GPU, in MiB",
    ),
    Column("device", "device", _text("device"), Shown.PAGE, order=22, words=True),
)
_PARALLEL_JOBS = Column(
    "parallel_jobs",
    "jobs at once",
    _number("parallel_jobs", "{:.0f}"),
    Shown.PAGE,
    order=22,
    description="Tracking jobs that ran on the machine at once, at most, while fps was measured",
)
LEADERBOARD: tuple[Column, ...] = (
    Column("model", "model", _text("model"), _ALL, order=2, words=True),
    Column("dataset"),
    Column("split"),
    Column("protocol"),
    Column(
        "j_and_f",
        "J&F",
        _number("j_and_f"),
        _ALL,
        order=4,
        description="Mean of J and F, in percent, with its 95% interval",
        on_page=_score_with_interval,
    ),
    Column("j", "J", _number("j"), _ALL, order=6, description="Region similarity: mean Jaccard index, in percent"),
    Column("f", "F", _number("f"), _ALL, order=7, description="Contour accuracy: mean boundary F-measure, in percent"),
    Column(
        "ci_low",
        "95% interval",
        _interval,
        _ALL,
        order=5,
        description="Interval of J&F by a bootstrap over sequences",
    ),
    Column("ci_high"),
    Column(
        "n_sequences",
        "sequences",
        _coverage,
        _ALL,
        order=18,
        description="Measured sequences of those in the split",
        on_page=_covered,
    ),
    Column("n_expected"),
    Column(
        "n_objects",
        "objects",
        _objects,
        Shown.MARKDOWN | Shown.PAGE,
        order=19,
        description="Measured objects, of all objects if the protocol ignores some",
    ),
    *_SPEED,
    replace(_PARALLEL_JOBS, optional=True),
    Column("kind", "kind", _kind, _ALL, order=3, words=True, description="Who computed the scores"),
    Column(
        "source",
        "source",
        _text("source"),
        Shown.MARKDOWN | Shown.PAGE,
        order=23,
        words=True,
        description="Where the scores were published",
    ),
    Column(
        "rank",
        "rank",
        _number("rank", "{}"),
        Shown.MARKDOWN | Shown.PAGE,
        order=1,
        words=True,
        description="Among complete rows that were not published",
    ),
    Column("status"),
    Column(
        "behind_best",
        "behind best",
        _number("behind_best"),
        Shown.MARKDOWN | Shown.PAGE,
        order=16,
        description="J&F of the best complete measured row minus this one's, on the sequences that both have",
    ),
    Column(
        "p_vs_best",
        "p",
        _p_value,
        _ALL,
        order=17,
        description="Paired permutation test against the best complete measured row",
    ),
    Column("note", "note", _text("note"), Shown.MARKDOWN, order=24, words=True),
    Column("n_objects_all"),
    Column(
        "seen",
        "training",
        _text("seen"),
        _ALL,
        order=16,
        words=True,
        description="Whether the model was trained on this split (seen), on other videos of the dataset or data with "
        "videos in common (related), or on neither (zero-shot); empty if that is not known",
    ),
    Column("seen_data"),
    Column("j_recall", "J recall", _number("j_recall"), Shown.MARKDOWN, order=8, optional=True),
    Column("j_decay", "J decay", _number("j_decay"), Shown.MARKDOWN, order=9, optional=True),
    Column("f_recall", "F recall", _number("f_recall"), Shown.MARKDOWN, order=10, optional=True),
    Column("f_decay", "F decay", _number("f_decay"), Shown.MARKDOWN, order=11, optional=True),
    Column("j_seen", "J seen", _number("j_seen"), _ALL, order=12, optional=True),
    Column("f_seen", "F seen", _number("f_seen"), _ALL, order=13, optional=True),
    Column("j_unseen", "J unseen", _number("j_unseen"), _ALL, order=14, optional=True),
    Column("f_unseen", "F unseen", _number("f_unseen"), _ALL, order=15, optional=True),
    Column(
        "j_and_f_visible",
        "J&F visible",
        _number("j_and_f_visible"),
        Shown.MARKDOWN | Shown.PAGE,
        order=15,
        description="J&F of the frames in which the object is visible",
        optional=True,
    ),
    Column(
        "j_and_f_absent",
        "J&F absent",
        _number("j_and_f_absent"),
        Shown.MARKDOWN | Shown.PAGE,
        order=15,
        description="J&F of the frames in which the object is absent: the share in which nothing is predicted",
        optional=True,
    ),
    Column("j_and_f_empty", optional=True),
)
SPEED: tuple[Column, ...] = (
    Column("dataset"),
    Column("split"),
    Column("model", "model", _text("model"), words=True),
    *_SPEED,
    _PARALLEL_JOBS,
)
_TEXTS = Shown.MARKDOWN | Shown.LATEX
REPRODUCTION: tuple[Column, ...] = (
    Column("dataset"),
    Column("split"),
    Column("protocol"),
    Column("published", "published as", _text("published"), _TEXTS, order=1, words=True),
    Column("published_j_and_f", "published J&F", _number("published_j_and_f", "{:.2f}"), _TEXTS, order=2),
    Column("published_j"),
    Column("published_f"),
    Column("source", "source", _text("source"), Shown.MARKDOWN, order=7, words=True),
    Column("model", "model", _text("model"), _TEXTS, order=3, words=True),
    Column("kind", "state", _kind, _TEXTS, order=6, words=True),
    Column("status"),
    Column("j_and_f", "J&F", _number("j_and_f", "{:.2f}"), _TEXTS, order=4),
    Column("j"),
    Column("f"),
    Column("difference", "difference", _number("difference", "{:+.2f}"), _TEXTS, order=5),
)


def names(columns: Iterable[Column]) -> list[str]:
    """Return the names of the columns in the CSV file, without the optional ones."""
    return [column.name for column in columns if not column.optional]


def columns_for(columns: Iterable[Column], where: Shown) -> list[Column]:
    """Return the columns that are shown in one place, from left to right.

    Args:
        columns: All columns.
        where: The place.
    """
    return sorted((column for column in columns if where in column.shown), key=lambda column: column.order)


def shown_cells(rows: pd.DataFrame, columns: Iterable[Column]) -> pd.DataFrame:
    """Return the cells of the columns as text, with the titles as headings.

    Columns that are empty in every row are left out, and so is the kind if all rows were measured.

    Args:
        rows: Rows of the table.
        columns: The columns to show.
    """
    cells = {column.title: [column.format(row) for _, row in rows.iterrows()] for column in columns}
    if set(cells.get("kind", ())) == {Kind.MEASURED}:
        del cells["kind"]
    return pd.DataFrame({title: column for title, column in cells.items() if any(column)})


# All tables with their columns in the CSV and Parquet files.
TABLES: dict[str, list[str]] = {
    "leaderboard": names(LEADERBOARD),
    "speed": names(SPEED),
    "speed_by_objects": ["dataset", "split", "model", "n_objects", "n_sequences", "fps", "parallel_jobs"],
    "sequences": [*KEYS, "model", "sequence", "j_and_f", "j", "f", "n_objects"],
    "objects": [*KEYS, "model", "sequence", "object_id", "n_frames", "j_and_f", "j", "f", "survived", "failure"],
    "survival": [*KEYS, "model", "part", "share"],
    "attributes": [
        *KEYS,
        "attribute",
        "model",
        "n_sequences",
        "j_and_f",
        "ci_low",
        "ci_high",
        "derived",
        "compared_with",
        "compared_as",
        "difference",
        "difference_low",
        "difference_high",
        "rest",
        "rest_low",
        "rest_high",
    ],
    "comparisons": [
        *KEYS,
        "attribute",
        "model",
        "other",
        "n_sequences",
        "difference",
        "ci_low",
        "ci_high",
        "p_value",
    ],
    "reproduction": names(REPRODUCTION),
}
