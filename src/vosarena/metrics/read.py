"""Reading a metrics table back: sequences and objects as arrays, for protocols to score."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from vosarena.base.errors import DataError
from vosarena.base.sealed import read_sealed
from vosarena.metrics.counts import ADAPTIVE_COUNTS, COUNTS, Floats
from vosarena.metrics.measure import METADATA_KEY, SCHEMA_VERSION

IGNORE = 255  # the label that most datasets use for "do not care"
Source: TypeAlias = "str | Path | pd.DataFrame | Iterable[str | Path]"


@dataclass(frozen=True)
class ObjectRows:
    """One object on the frames with ground truth, in numeric order; arrays over frames."""

    object_id: int
    frames: tuple[str, ...]
    numbers: np.ndarray[Any, np.dtype[np.int64]]
    counts: np.ndarray[Any, np.dtype[np.int64]]  # (frames, COUNTS)
    j: Floats
    f: Floats
    tolerance: Floats
    adaptive: np.ndarray[Any, np.dtype[np.int64]] | None = None  # (frames, ADAPTIVE_COUNTS)
    tolerance_adaptive: Floats | None = None

    @property
    def in_gt(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Per frame: whether the ground truth has the object."""
        return self.counts[:, 1] > 0

    @property
    def in_pred(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Per frame: whether the prediction has the object."""
        return self.counts[:, 2] > 0


@dataclass(frozen=True)
class SequenceRows:
    """One sequence: its objects by id, those that only the prediction has included, and what its meta file says."""

    name: str
    objects: Mapping[int, ObjectRows]
    info: Mapping[str, Any]

    @property
    def in_ground_truth(self) -> list[int]:
        """Ids of the objects that the ground truth has in any frame."""
        return [i for i, rows in self.objects.items() if rows.in_gt.any()]

    @property
    def listed(self) -> dict[int, ObjectRows]:
        """The objects that count: those of the meta file or, without one, of the ground truth; never IGNORE."""
        if self.info.get("ranges"):
            wanted = {int(i) for i in self.info["ranges"]}
        else:
            wanted = {i for i in self.in_ground_truth if i != IGNORE or self.per_object}
        return {i: self.objects[i] for i in sorted(wanted) if i in self.objects}

    @property
    def per_object(self) -> bool:
        """Whether every object came from a folder of its own (SA-V)."""
        return bool(self.info.get("per_object"))

    def range(self, object_id: int) -> tuple[int, int] | None:
        """First and last frame number of an object by the meta file, both inclusive."""
        ranges = self.info.get("ranges") or {}
        return tuple(ranges[str(object_id)]) if str(object_id) in ranges else None

    def unseen(self, object_id: int) -> bool | None:
        """Whether an object belongs to the unseen part of its dataset; None: not known."""
        of_object = (self.info.get("unseen_objects") or {}).get(str(object_id))
        return self.info.get("unseen") if of_object is None else of_object


@dataclass(frozen=True)
class Metrics:
    """The measurements of one model on one split."""

    dataset: str
    split: str
    model: str
    rows: pd.DataFrame
    metadata: Mapping[str, Any]

    def sequences(self) -> Iterator[SequenceRows]:
        """Sequences by name."""
        infos = self.metadata.get("sequences", {})
        adaptive = set(ADAPTIVE_COUNTS) <= set(self.rows.columns)
        for name, group in self.rows.groupby("sequence", observed=True, sort=True):
            group = group.sort_values(["object_id", "frame_index"], kind="stable")
            ids = group["object_id"].to_numpy()
            starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
            columns = {
                "numbers": group["frame_index"].to_numpy(np.int64),
                "counts": group[list(COUNTS)].to_numpy(np.int64),
                "j": group["j"].to_numpy(np.float64),
                "f": group["f"].to_numpy(np.float64),
                "tolerance": group["tolerance"].to_numpy(np.float64),
            }
            if adaptive:
                columns["adaptive"] = group[list(ADAPTIVE_COUNTS)].to_numpy(np.int64)
                columns["tolerance_adaptive"] = group["tolerance_adaptive"].to_numpy(np.float64)
            frames = group["frame"].tolist()
            objects = {
                int(ids[start]): ObjectRows(
                    int(ids[start]),
                    tuple(frames[start:end]),
                    **{key: np.ascontiguousarray(values[start:end]) for key, values in columns.items()},
                )
                for start, end in zip(starts, [*starts[1:], len(ids)], strict=True)
            }
            yield SequenceRows(str(name), objects, infos.get(str(name), {}))


def read_metrics(source: Source, *, allow_incomplete: bool = False) -> list[Metrics]:
    """Metrics of one or more Parquet files of `measure`, or of a table of their rows.

    A DataFrame has no metadata: objects and ranges then come from the ground truth's counts. Raises DataError for a
    file that is none, or from which sequences are missing because they could not be measured.
    """
    if isinstance(source, pd.DataFrame):
        keys = ["dataset", "split", "model"]
        groups = source.groupby(keys, observed=True, sort=True)
        return [Metrics(str(key[0]), str(key[1]), str(key[2]), rows, {}) for key, rows in groups]
    paths = [source] if isinstance(source, str | Path) else list(source)
    return [_read(Path(path), allow_incomplete) for path in paths]


def read_metadata(path: Path) -> dict[str, Any]:
    """What `measure` wrote about a file: versions, tolerance rule, policies, failures, sequences.

    Raises DataError if the file is damaged or not one of measure's.
    """
    return _metadata(path, read_sealed(path, "metrics table"))


def _metadata(path: Path, data: bytes) -> dict[str, Any]:
    try:
        found = json.loads((pq.read_metadata(io.BytesIO(data)).metadata or {})[METADATA_KEY])
    except (OSError, ValueError, KeyError):
        raise DataError(f"{path} is not a metrics table; expected a Parquet file written by measure") from None
    if found.get("schema") != SCHEMA_VERSION:
        raise DataError(f"{path} has schema {found.get('schema')}, expected {SCHEMA_VERSION}; measure again")
    return found


def _read(path: Path, allow_incomplete: bool) -> Metrics:
    data = read_sealed(path, "metrics table")
    metadata = _metadata(path, data)
    if not metadata["complete"] and not allow_incomplete:
        raise DataError(f"{path} is incomplete, {len(metadata['failures'])} failures: {metadata['failures'][0]}")
    rows = pd.read_parquet(io.BytesIO(data))
    return Metrics(metadata["dataset"], metadata["split"], metadata["model"], rows, metadata)
