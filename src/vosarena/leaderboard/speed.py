"""Speed and memory: the only numbers of a study that differ between two runs, so they are in a table of their own."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from vosarena.datasets.table import read_table
from vosarena.leaderboard.kinds import Kind
from vosarena.predictions.manifest import Manifest
from vosarena.predictions.store import Store

SPEED_KEYS = ["dataset", "split", "model"]
SPEED_VALUES = ["fps", "peak_memory_mb", "device"]  # also columns of leaderboard.csv, which only published rows fill
_COLUMNS = [*SPEED_KEYS, *SPEED_VALUES, "parallel_jobs"]


class Measured(NamedTuple):
    """What a finished sequence says about speed and memory: `seconds` of tracking, and tracking jobs at once."""

    frames: int
    seconds: float
    memory_mb: float
    device: str
    parallel_jobs: int

    @classmethod
    def of(cls, manifest: Manifest) -> "Measured":
        """Return what a manifest says."""
        timing = manifest.timing
        return cls(len(manifest.frames), timing.track, manifest.peak_memory_mb, manifest.device, timing.parallel_jobs)


@dataclass(frozen=True)
class Speed:
    """Speed and memory of one model on one split, from the manifests.

    Attributes:
        fps: Frames per second of tracking, including decoding and writing, of the sequences that no other tracking
            job ran next to, if there are any, else of all; NaN if not known.
        peak_memory_mb: Peak GPU memory, or peak memory of the process without a GPU.
        device: All devices, separated by commas.
        parallel_jobs: Tracking jobs that ran at once, at most, while `fps` was measured; NaN if not known.
    """

    fps: float = math.nan
    peak_memory_mb: float = math.nan
    device: str = ""
    parallel_jobs: float = math.nan

    @classmethod
    def of(cls, sequences: Iterable[Measured]) -> "Speed":
        """Return the speed of finished sequences."""
        found = list(sequences)
        if not found:
            return cls()
        used = [it for it in found if it.parallel_jobs == 1] or found
        frames, seconds = sum(it.frames for it in used), sum(it.seconds for it in used)
        fps = round(frames / seconds, 2) if seconds > 0 else math.nan
        devices = ", ".join(sorted({it.device for it in found}))
        return cls(fps, max(it.memory_mb for it in found), devices, max(it.parallel_jobs for it in used) or math.nan)


def measured_speed(store: Path, table: Path) -> Speed:
    """Return the speed of the predictions in a store.

    Args:
        store: Folder of the predictions.
        table: The table of sequences of the split.
    """
    manifests = Store(store).manifests(record.sequence for record in read_table(table)).values()
    return Speed.of(map(Measured.of, manifests))


def speed_by_objects(dataset: str, split: str, model: str, store: Path, table: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of the table `speed_by_objects` of one model on one split.

    Args:
        dataset: Name of the dataset.
        split: Name of the split.
        model: Name of the model.
        store: Folder of the predictions.
        table: The table of sequences of the split.
    """
    manifests = Store(store).manifests(record.sequence for record in read_table(table)).values()
    groups: dict[int, list[Manifest]] = {}
    for manifest in manifests:
        groups.setdefault(len({number for ids in manifest.prompts.values() for number in ids}), []).append(manifest)
    for number, group in sorted(groups.items()):
        speed = Speed.of(map(Measured.of, group))
        yield {
            **dict(zip(SPEED_KEYS, (dataset, split, model), strict=True)),
            "n_objects": number,
            "n_sequences": len(group),
            "fps": speed.fps,
            "parallel_jobs": speed.parallel_jobs,
        }


def split_speed(board: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the table `leaderboard` without the speed of models that ran here, and the table `speed`."""
    ran = board["kind"] != Kind.PUBLISHED.value
    speed = board[ran].reindex(columns=_COLUMNS).drop_duplicates(SPEED_KEYS)
    known = speed["fps"].notna() | speed["peak_memory_mb"].notna()
    without = board.drop(columns="parallel_jobs", errors="ignore").assign(
        **{name: board[name].where(~ran, "" if name == "device" else math.nan) for name in SPEED_VALUES}
    )
    return without, speed[known].sort_values(SPEED_KEYS, ignore_index=True)


def with_speed(board: pd.DataFrame, speed: pd.DataFrame) -> pd.DataFrame:
    """Return the table `leaderboard` with the speed of models that ran here."""
    known = speed.reindex(columns=_COLUMNS)
    found = board[SPEED_KEYS].merge(known, on=SPEED_KEYS, how="left").set_index(board.index)
    ran = board["kind"] != Kind.PUBLISHED.value
    filled = {name: found[name].fillna("") if name == "device" else found[name] for name in SPEED_VALUES}
    with_values = {name: board[name].where(~ran, filled[name]) for name in SPEED_VALUES}
    return board.assign(**with_values, parallel_jobs=found["parallel_jobs"].where(ran))
