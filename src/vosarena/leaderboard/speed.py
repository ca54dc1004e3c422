"""Speed and memory: the only numbers of a study that differ between two runs, so they are in a table of their own."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from vosarena.datasets.table import read_table
from vosarena.leaderboard.kinds import Kind
from vosarena.predictions.manifest import Manifest
from vosarena.predictions.store import Store

SPEED_KEYS = ["dataset", "split", "model"]
SPEED_VALUES = ["fps", "peak_memory_mb", "device"]  # also columns of leaderboard.csv, which only published rows fill


@dataclass(frozen=True)
class Speed:
    """Speed and memory of one model on one split, from the manifests.

    Attributes:
        fps: Frames per second of tracking, including decoding and writing; NaN if not known.
        peak_memory_mb: Peak GPU memory, or peak memory of the process without a GPU.
        device: All devices, separated by commas.
    """

    fps: float = math.nan
    peak_memory_mb: float = math.nan
    device: str = ""

    @classmethod
    def of(cls, sequences: Iterable[tuple[int, float, float, str]]) -> "Speed":
        """Return the speed of finished sequences, each given by its frames, seconds, peak memory and device."""
        found = list(sequences)
        if not found:
            return cls()
        frames, seconds, memory, devices = zip(*found, strict=True)
        fps = round(sum(frames) / sum(seconds), 2) if sum(seconds) > 0 else math.nan
        return cls(fps, max(memory), ", ".join(sorted(set(devices))))


def measured_speed(store: Path, table: Path) -> Speed:
    """Return the speed of the predictions in a store.

    Args:
        store: Folder of the predictions.
        table: The table of sequences of the split.
    """
    manifests = Store(store).manifests(record.sequence for record in read_table(table)).values()
    return Speed.of((len(it.frames), it.timing.track, it.peak_memory_mb, it.device) for it in manifests)


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
        frames = sum(len(manifest.frames) for manifest in group)
        seconds = sum(manifest.timing.track for manifest in group)
        fps = round(frames / seconds, 2) if seconds > 0 else math.nan
        yield {
            **dict(zip(SPEED_KEYS, (dataset, split, model), strict=True)),
            **{"n_objects": number, "n_sequences": len(group), "fps": fps},
        }


def split_speed(board: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the table `leaderboard` without the speed of models that ran here, and the table `speed`."""
    ran = board["kind"] != Kind.PUBLISHED.value
    speed = board.loc[ran, [*SPEED_KEYS, *SPEED_VALUES]].drop_duplicates(SPEED_KEYS)
    known = speed["fps"].notna() | speed["peak_memory_mb"].notna()
    without = board.assign(
        **{name: board[name].where(~ran, "" if name == "device" else math.nan) for name in SPEED_VALUES}
    )
    return without, speed[known].sort_values(SPEED_KEYS, ignore_index=True)


def with_speed(board: pd.DataFrame, speed: pd.DataFrame) -> pd.DataFrame:
    """Return the table `leaderboard` with the speed of models that ran here."""
    found = board[SPEED_KEYS].merge(speed, on=SPEED_KEYS, how="left").set_index(board.index)
    ran = board["kind"] != Kind.PUBLISHED.value
    filled = {name: found[name].fillna("") if name == "device" else found[name] for name in SPEED_VALUES}
    return board.assign(**{name: board[name].where(~ran, filled[name]) for name in SPEED_VALUES})
