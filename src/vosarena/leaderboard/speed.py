"""Speed and memory: the only numbers of a study that differ between two runs, so they are in a table of their own."""

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vosarena.datasets.table import read_table
from vosarena.leaderboard.kinds import Kind
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


def measured_speed(store: Path, table: Path) -> Speed:
    """Return the speed of the predictions in a store.

    Args:
        store: Folder of the predictions.
        table: The table of sequences of the split.
    """
    manifests = Store(store).manifests(record.sequence for record in read_table(table)).values()
    if not manifests:
        return Speed()
    frames = sum(len(manifest.frames) for manifest in manifests)
    seconds = sum(manifest.timing.track for manifest in manifests)
    devices = sorted({manifest.device for manifest in manifests})
    memory = max(manifest.peak_memory_mb for manifest in manifests)
    return Speed(round(frames / seconds, 2) if seconds > 0 else math.nan, memory, ", ".join(devices))


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
