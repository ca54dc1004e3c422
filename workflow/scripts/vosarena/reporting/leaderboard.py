"""From metrics files to the leaderboard: overall, per sequence, per object, per attribute, and paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vosarena.data.sequences import read_table
from vosarena.reporting.statistics import Bootstrap
from vosarena.scoring.protocols import find_protocol, score, summarise
from vosarena.tracking.store import Store

COLUMNS = [
    *("model", "dataset", "split", "protocol", "j_and_f", "j", "f", "ci_low", "ci_high", "n_sequences", "n_expected"),
    *("n_objects", "fps", "peak_memory_mb", "device", "kind", "source"),
]
ALL = "all"


@dataclass(frozen=True)
class Scored:
    """One model on one split: its metrics file, the split's table of sequences, and the folder of all predictions."""

    dataset: str
    split: str
    model: str
    protocols: Sequence[str]
    metrics: Path
    table: Path
    predictions: Path


def build_leaderboard(runs: Sequence[Scored], output: Path) -> None:
    """Write `leaderboard`, `sequences`, `objects`, `attributes` and `comparisons` (Parquet and CSV) and leaderboard.md.

    Scores are in percent. Intervals: 95 %, cluster bootstrap over sequences, paired between models.
    """
    tables = _tables(runs)
    output.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_parquet(output / f"{name}.parquet", index=False, compression="zstd")
        table.to_csv(output / f"{name}.csv", index=False, float_format="%.6g")
    (output / "leaderboard.md").write_text(markdown(tables))


def _tables(runs: Sequence[Scored]) -> dict[str, pd.DataFrame]:
    rows, objects, attributes, comparisons = [], [], [], []
    by_place: dict[tuple[str, str, str], list[Scored]] = {}
    for run in runs:
        for protocol in run.protocols:
            by_place.setdefault((run.dataset, run.split, protocol), []).append(run)
    for (dataset, split, protocol), members in by_place.items():
        place = {"dataset": dataset, "split": split, "protocol": protocol}
        scored = {run.model: score(run.metrics, protocol) for run in members}
        table = read_table(members[0].table)
        comparison = _Comparison(scored, {row["sequence"]: row["attributes"] for row in table})
        for run in members:
            rows.append(place | _row(run, scored[run.model], len(table)) | comparison.interval(run.model))
            objects.append(scored[run.model])
        attributes += [place | row for row in comparison.attributes()]
        comparisons += [place | row for row in comparison.differences()]
    every = pd.concat(objects, ignore_index=True)
    keys = ["dataset", "split", "protocol", "model", "sequence"]
    sequences = every.groupby(keys, observed=True, sort=True).agg(
        j_and_f=("j_and_f", "mean"), j=("j", "mean"), f=("f", "mean"), n_objects=("object_id", "size")
    )
    board = pd.DataFrame(rows)
    board = board[COLUMNS + [column for column in board if column not in COLUMNS]]
    return {
        "leaderboard": board.sort_values(["dataset", "split", "protocol", "j_and_f"], ascending=[True] * 3 + [False]),
        "sequences": sequences.reset_index(),
        "objects": every[[*keys, *(column for column in every if column not in keys)]],
        "attributes": pd.DataFrame(attributes),
        "comparisons": pd.DataFrame(comparisons),
    }


def _row(run: Scored, objects: pd.DataFrame, expected: int) -> dict[str, Any]:
    summary = summarise(objects).iloc[0].to_dict()
    return {**summary, "model": run.model, "n_expected": expected, "kind": "measured", "source": "", **_speed(run)}


def _speed(run: Scored) -> dict[str, Any]:
    """Frames per second (frames over seconds of tracking, decoding and writing included), peak memory, device."""
    store = Store(run.predictions / run.dataset / run.split / run.model)
    manifests = [manifest for row in read_table(run.table) if (manifest := store.manifest(row["sequence"]))]
    if not manifests:
        return {"fps": np.nan, "peak_memory_mb": np.nan, "device": ""}
    frames = sum(len(manifest["frames"]) for manifest in manifests)
    seconds = sum(manifest["seconds"]["track"] for manifest in manifests)
    devices = sorted({manifest["device"] for manifest in manifests})
    memory = [manifest["peak_gpu_memory_mb"] or manifest["peak_memory_mb"] for manifest in manifests]
    return {"fps": round(frames / seconds, 2), "peak_memory_mb": max(memory), "device": ", ".join(devices)}


class _Comparison:
    """All models on the same sequences: intervals, attributes and paired differences."""

    def __init__(self, scored: Mapping[str, pd.DataFrame], attributes: Mapping[str, Sequence[str]]) -> None:
        common = set.intersection(*(set(objects["sequence"]) for objects in scored.values()))
        self._names = np.array(sorted(common))
        self._sums, self._counts = {}, {}
        for model, objects in scored.items():
            self._sums[model], self._counts[model] = _by_sequence(objects, list(self._names))
        self._subsets = {ALL: np.ones(len(self._names), bool)}
        for attribute in sorted({a for name in self._names for a in attributes[name]}):
            self._subsets[attribute] = np.array([attribute in attributes[name] for name in self._names])
        counts = next(iter(self._counts.values()))
        self._bootstraps = {name: Bootstrap(counts[members]) for name, members in self._subsets.items()}

    def interval(self, model: str) -> dict[str, float]:
        found = self._bootstraps[ALL].interval(self._sums[model])
        return {"ci_low": found.low, "ci_high": found.high}

    def attributes(self) -> list[dict[str, Any]]:
        return [
            {"attribute": subset, "model": model, "n_sequences": int(members.sum()), "j_and_f": found.value,
             "ci_low": found.low, "ci_high": found.high}
            for subset, members in self._subsets.items()
            for model, sums in self._sums.items()
            for found in [self._bootstraps[subset].interval(sums[members])]
        ]  # fmt: skip

    def differences(self) -> list[dict[str, Any]]:
        return [
            {"attribute": subset, "model": first, "other": second, "n_sequences": int(members.sum()),
             "difference": found.value, "ci_low": found.low, "ci_high": found.high, "p_value": found.p_value}
            for subset, members in self._subsets.items()
            for first, second in combinations(self._sums, 2)
            for found in [self._bootstraps[subset].difference(self._sums[first][members], self._sums[second][members])]
        ]  # fmt: skip


def _by_sequence(objects: pd.DataFrame, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sum of J&F and number of objects, each (n_sequences, n_groups): groups are seen and unseen categories, if any."""
    split_mean = find_protocol(str(objects["protocol"].iloc[0])).split_mean and "unseen" in objects
    groups = objects["unseen"].fillna(False).astype(bool) if split_mean else pd.Series(False, index=objects.index)
    tables = objects.groupby(["sequence", groups.rename("group")], observed=True)["j_and_f"].agg(["sum", "size"])
    sums = tables["sum"].unstack("group", fill_value=0.0).reindex(names)
    sizes = tables["size"].unstack("group", fill_value=0).reindex(names)
    return sums.to_numpy(float), sizes.to_numpy(int)


def markdown(tables: Mapping[str, pd.DataFrame]) -> str:
    """The leaderboard for people: one table per split and protocol, and how far each model is from the best."""
    parts = ["# Leaderboard\n"]
    for (dataset, split, protocol), board in tables["leaderboard"].groupby(["dataset", "split", "protocol"], sort=True):
        intervals = zip(board["ci_low"], board["ci_high"], strict=True)
        shown = pd.DataFrame({
            "model": board["model"],
            "J&F": board["j_and_f"].map("{:.1f}".format),
            "95% interval": [f"{low:.1f} to {high:.1f}" for low, high in intervals],
            "J": board["j"].map("{:.1f}".format),
            "F": board["f"].map("{:.1f}".format),
            "sequences": [f"{n}/{m}" for n, m in zip(board["n_sequences"], board["n_expected"], strict=True)],
            "objects": board["n_objects"],
            "fps": board["fps"].map("{:.1f}".format),
            "peak MB": board["peak_memory_mb"].map("{:.0f}".format),
            "device": board["device"],
        })  # fmt: skip
        parts.append(f"## {dataset}/{split}, protocol {protocol}\n\n{shown.to_markdown(index=False)}\n")
    return "\n".join(parts)
