"""From metrics files to the leaderboard: overall, per sequence, per object, per attribute, and paired differences.

Measured rows stand beside what servers answered and what was published, told apart by `kind`. Only rows that cover the
whole split get a rank, and published ones never do: nobody here can check how they were made.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vosarena.base.errors import DataError
from vosarena.base.escaping import csv_table
from vosarena.base.files import check_folder
from vosarena.datasets.table import read_counts, read_table
from vosarena.leaderboard.attributes import derived_attributes
from vosarena.leaderboard.comparison import ALL, Comparison
from vosarena.leaderboard.imported import published_rows, read_scores
from vosarena.leaderboard.latex import latex
from vosarena.leaderboard.tables import markdown
from vosarena.leaderboard.titles import BY_NAME, Titles
from vosarena.metrics.protocols import score, summarise
from vosarena.metrics.read import IGNORE, read_metadata, read_metrics
from vosarena.predictions.store import Store

COLUMNS = [
    *("model", "dataset", "split", "protocol", "j_and_f", "j", "f", "ci_low", "ci_high", "n_sequences", "n_expected"),
    *("n_objects", "fps", "peak_memory_mb", "device", "kind", "source", "rank", "status", "behind_best", "p_vs_best"),
    *("note", "n_objects_all"),
]
PLACE = ["dataset", "split", "protocol"]
SERVER = "server"  # the protocol of splits whose ground truth nobody has
TABLES: dict[str, list[str]] = {
    "leaderboard": COLUMNS,
    "sequences": [*PLACE, "model", "sequence", "j_and_f", "j", "f", "n_objects"],
    "objects": [*PLACE, "model", "sequence", "object_id", "n_frames", "j_and_f", "j", "f"],
    "attributes": [*PLACE, "attribute", "model", "n_sequences", "j_and_f", "ci_low", "ci_high", "derived"],
    "comparisons": [
        *(*PLACE, "attribute", "model", "other", "n_sequences", "difference", "ci_low", "ci_high", "p_value"),
    ],
    "reproduction": [
        *(*PLACE, "published", "published_j_and_f", "published_j", "published_f", "source", "model", "kind"),
        *("status", "j_and_f", "j", "f", "difference"),
    ],
}


@dataclass(frozen=True)
class Scored:
    """One model on one split: its metrics file, the split's table of sequences, and the store of its predictions."""

    dataset: str
    split: str
    model: str
    protocols: Sequence[str]
    metrics: Path
    table: Path
    store: Path


@dataclass(frozen=True)
class Hidden:
    """One model on a split that only a server can score: its submission, and the server's answer if there is one."""

    dataset: str
    split: str
    model: str
    table: Path
    store: Path
    submission: Path
    scores: Path | None = None


def build_leaderboard(
    runs: Sequence[Scored], output: Path, hidden: Sequence[Hidden] = (), titles: Titles = BY_NAME
) -> dict[str, pd.DataFrame]:
    """Write the tables of TABLES (Parquet and CSV), leaderboard.md and leaderboard.tex; returns the tables.

    titles: for leaderboard.tex; everything else has the names.

    Scores are in percent. Intervals: 95 %, cluster bootstrap over sequences, paired between models. A metrics file
    that covers a part of the split gives a row with status `incomplete` and no rank. The same inputs give the same
    bytes. Raises DataError for a scores file or a published row that cannot be right.
    """
    check_folder(output)
    tables = _tables(runs, hidden)
    for name, table in tables.items():
        table.to_parquet(output / f"{name}.parquet", index=False, compression="zstd")
        csv_table(table).to_csv(output / f"{name}.csv", index=False, float_format="%.6g")
    (output / "leaderboard.md").write_text(markdown(tables), encoding="utf-8")
    (output / "leaderboard.tex").write_text(latex(tables, titles), encoding="utf-8")
    return tables


def read_leaderboard(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables that build_leaderboard wrote. Raises DataError naming one that is missing or damaged."""
    tables = {}
    for name in TABLES:
        file = folder / f"{name}.parquet"
        try:
            tables[name] = pd.read_parquet(file)
        except (OSError, ValueError) as error:  # pyarrow's own errors are both
            raise DataError(f"{file} is missing or damaged; remove {folder} and run again") from error
    return tables


def places_of(board: pd.DataFrame) -> list[tuple[str, ...]]:
    """(dataset, split, protocol) of the rows, each once, in their order."""
    return [tuple(map(str, place)) for place in board[PLACE].drop_duplicates().itertuples(index=False)]


def at_place(table: pd.DataFrame, place: Iterable[str]) -> pd.DataFrame:
    """The rows of one dataset, split and protocol."""
    return table[(table[PLACE] == list(place)).all(axis=1)]


def _tables(runs: Sequence[Scored], hidden: Sequence[Hidden]) -> dict[str, pd.DataFrame]:
    found: dict[str, list[Any]] = {name: [] for name in TABLES}
    objects = []
    by_place: dict[tuple[str, str, str], list[Scored]] = {}
    for run in runs:
        for protocol in run.protocols:
            by_place.setdefault((run.dataset, run.split, protocol), []).append(run)
    for place, members in by_place.items():
        labels = dict(zip(PLACE, place, strict=True))
        scored = {run.model: score(run.metrics, place[2], allow_incomplete=True) for run in members}
        attributes, derived = attributes_of(members)
        comparison = Comparison(scored, attributes)
        differences = comparison.differences()
        rows = [_measured(run, scored[run.model], comparison) for run in members]
        _against_best(rows, differences)
        found["leaderboard"] += [labels | row for row in rows]
        found["attributes"] += [labels | row | {"derived": derived} for row in comparison.attributes()]
        found["comparisons"] += [labels | row for row in differences]
        objects += [table for table in scored.values() if len(table)]
    found["leaderboard"] += [_hidden(run) for run in hidden]
    places = {(row["dataset"], row["split"], row["protocol"]) for row in found["leaderboard"]}
    known = published_rows({place[:2] for place in places})
    found["leaderboard"] += [row for row in known if (row["dataset"], row["split"], row["protocol"]) in places]
    board = _ranked(found["leaderboard"])
    found["reproduction"] = list(_reproduction(board))
    tables = {name: _frame(rows, TABLES[name]) for name, rows in found.items() if name != "leaderboard"}
    if objects:
        every = pd.concat(objects, ignore_index=True)
        keys = [*PLACE, "model", "sequence"]
        tables["objects"] = every[[*keys, *(column for column in every if column not in keys)]]
        tables["sequences"] = (
            every.groupby(keys, observed=True, sort=True)
            .agg(j_and_f=("j_and_f", "mean"), j=("j", "mean"), f=("f", "mean"), n_objects=("object_id", "size"))
            .reset_index()
        )
    return {"leaderboard": board.drop(columns=["same_as"])} | tables


def attributes_of(runs: Sequence[Scored]) -> tuple[dict[str, list[str]], bool]:
    """Attributes of the sequences of one split, and whether they were derived from the ground truth.

    They are derived where the dataset gives none to any sequence (see curves.derived_attributes).
    """
    table = read_table(runs[0].table)
    given = {record.sequence: list(record.attributes) for record in table}
    if any(given.values()):
        return given, False
    derived: dict[str, list[str]] = {}
    for metrics in read_metrics([run.metrics for run in runs], allow_incomplete=True):
        derived |= derived_attributes(metrics, table)
    return derived, True


def _frame(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    return table.reindex(columns=[*columns, *(column for column in table if column not in columns)])


def _measured(run: Scored, objects: pd.DataFrame, comparison: Comparison) -> dict[str, Any]:
    found, in_catalog = read_counts(run.table)
    missing = max((in_catalog or found) - found, 0)  # sequences that the split should have on disk, but has not
    measured = read_metadata(run.metrics)["sequences"]
    covered, expected = len(measured), len(read_table(run.table)) + missing
    row: dict[str, Any] = {"model": run.model, "j_and_f": math.nan, "j": math.nan, "f": math.nan, "n_objects": 0}
    if len(objects):
        row |= summarise(objects).iloc[0].to_dict()
    known = {(name, number) for name, info in measured.items() for number in _objects_of(info)}
    unscored = known - set(zip(objects["sequence"], objects["object_id"], strict=True))
    row["n_objects_all"] = row["n_objects"] + len(unscored)
    return {
        **row,
        **comparison.interval(run.model),
        **{"n_sequences": covered, "n_expected": expected, "kind": "measured", "source": ""},
        **{"status": "complete" if covered == expected else "incomplete", "note": ""},
        **_speed(run),
    }


def _objects_of(info: Mapping[str, Any]) -> list[int]:
    """Ids of the objects of a sequence that count, as SequenceRows.listed has them, from what `measure` wrote of it."""
    if info["ranges"]:
        return [int(number) for number in info["ranges"]]
    return [number for number in info["objects"] if number != IGNORE or info["per_object"]]


def _against_best(rows: list[dict[str, Any]], differences: Sequence[Mapping[str, Any]]) -> None:
    """How far each row is behind the best complete one, and the paired p-value; NaN for the best itself."""
    complete = [row for row in rows if row["status"] == "complete" and not math.isnan(row["j_and_f"])]
    best = max(complete, key=lambda row: row["j_and_f"], default={}).get("model")
    overall = {(row["model"], row["other"]): row for row in differences if row["attribute"] == ALL}
    for row in rows:
        row |= {"behind_best": math.nan, "p_vs_best": math.nan}
        for pair, sign in (((best, row["model"]), 1), ((row["model"], best), -1)):
            if pair in overall:
                row["behind_best"] = sign * overall[pair]["difference"]
                row["p_vs_best"] = overall[pair]["p_value"]


def _hidden(run: Hidden) -> dict[str, Any]:
    expected = len(read_table(run.table))
    row: dict[str, Any] = {
        **{"model": run.model, "dataset": run.dataset, "split": run.split, "protocol": SERVER, "kind": SERVER},
        **{"j_and_f": math.nan, "n_expected": expected, "source": "", "note": ""},
        "status": "packed, awaiting server score" if run.submission.is_file() else "not packed yet",
        **_speed(run),
    }
    if run.scores:
        answer = read_scores(run.scores)
        date = answer.pop("date", "")
        row |= {"status": "complete", "n_sequences": expected} | answer
        row["source"] = ", ".join(filter(None, [answer.get("source") or run.scores.name, date]))
    return row


def _speed(run: Scored | Hidden) -> dict[str, Any]:
    """Frames per second (frames over seconds of tracking, decoding and writing included), peak memory, device."""
    manifests = Store(run.store).manifests(record.sequence for record in read_table(run.table)).values()
    if not manifests:
        return {"fps": np.nan, "peak_memory_mb": np.nan, "device": ""}
    frames = sum(len(manifest.frames) for manifest in manifests)
    seconds = sum(manifest.timing.track for manifest in manifests)
    devices = sorted({manifest.device for manifest in manifests})
    memory = [manifest.peak_memory_mb for manifest in manifests]
    fps = round(frames / seconds, 2) if seconds > 0 else np.nan
    return {"fps": fps, "peak_memory_mb": max(memory), "device": ", ".join(devices)}


def _ranked(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Rows by place and J&F; ranks among the complete rows that were not published."""
    board = _frame(list(rows), [*(name for name in COLUMNS if name != "rank"), "same_as"])
    for column, default in (("source", ""), ("note", ""), ("same_as", ""), ("device", "")):
        board[column] = board[column].astype(object).fillna(default)
    board = board.sort_values([*PLACE, "j_and_f", "model"], ascending=[True] * 3 + [False, True], ignore_index=True)
    own = board[(board["status"] == "complete") & board["j_and_f"].notna()]
    board["rank"] = own.groupby(PLACE).cumcount() + 1
    for column in ("rank", "n_sequences", "n_expected", "n_objects", "n_objects_all"):
        board[column] = board[column].astype("Int64")
    return board[[*COLUMNS, *(column for column in board if column not in COLUMNS)]]


def _reproduction(board: pd.DataFrame) -> Iterable[dict[str, Any]]:
    """Published rows that one of the study's models repeats, and the difference as soon as there is a score of it."""
    for _, theirs in board[board["same_as"] != ""].iterrows():
        here = at_place(board, theirs[PLACE])
        for _, ours in here[(here["model"] == theirs["same_as"]) & (here["kind"] != "published")].iterrows():
            sound = theirs["status"] == "published" and ours["status"] == "complete"
            yield {
                **{name: theirs[name] for name in (*PLACE, "source")},
                **{"published": theirs["model"], "published_j_and_f": theirs["j_and_f"]},
                **{"published_j": theirs["j"], "published_f": theirs["f"]},
                **{name: ours[name] for name in ("model", "kind", "status", "j_and_f", "j", "f")},
                "difference": ours["j_and_f"] - theirs["j_and_f"] if sound else math.nan,
            }
