"""Read a metrics file: its sequences and objects as arrays, for protocols to score."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from vosarena.base.errors import DataError
from vosarena.base.sealed import read_sealed
from vosarena.metrics.counts import ADAPTIVE_COUNTS, COUNTS, Counts, Integers
from vosarena.metrics.records import SequenceCounts, SequenceInfo, SequenceRows, split_by_object
from vosarena.metrics.write import METADATA_KEY, SCHEMA_VERSION, check_parquet

if TYPE_CHECKING:
    import pandas as pd

    Source: TypeAlias = str | Path | pd.DataFrame | Iterable[str | Path]

_FLOATS = ("j", "f", "tolerance", "tolerance_adaptive")


@dataclass(frozen=True)
class Metrics:
    """Counts of one model on one split.

    Attributes:
        dataset: Name of the dataset.
        split: Name of the split.
        model: Name of the model.
        sequences: The counted sequences that have objects, by name.
        infos: Facts about all counted sequences, by name.
        adaptive: Whether matches with MOSEv2's tolerance were counted.
    """

    dataset: str
    split: str
    model: str
    sequences: tuple[SequenceRows, ...]
    infos: Mapping[str, SequenceInfo] = field(default_factory=dict)
    adaptive: bool = False


@dataclass(frozen=True)
class MetricsMetadata:
    """What `write_metrics` wrote about a metrics file.

    Attributes:
        dataset: Name of the dataset.
        split: Name of the split.
        model: Name of the model.
        complete: Whether all sequences could be counted.
        failures: Why the others could not, one sentence each.
        policies: How unusual predictions were treated.
        tolerance: The rule of the boundary tolerance.
        sequences: Facts about the counted sequences, by name.
    """

    dataset: str
    split: str
    model: str
    complete: bool
    failures: tuple[str, ...]
    policies: Mapping[str, Any]
    tolerance: str
    sequences: Mapping[str, SequenceInfo]


def read_metrics(source: Source, *, allow_incomplete: bool = False) -> list[Metrics]:
    """Read metrics files.

    Args:
        source: One or more Parquet files of `measure`, or a DataFrame of their rows. A DataFrame has no metadata:
            objects and ranges then come from the ground truth's counts.
        allow_incomplete: Accept files without the sequences that could not be counted.

    Returns:
        One record per file, or per dataset, split and model of the DataFrame.

    Raises:
        DataError: A file is damaged, not a metrics file, or incomplete.
    """
    if isinstance(source, str | Path):
        return [_read(Path(source), allow_incomplete)]
    import pandas as pd

    if isinstance(source, pd.DataFrame):
        keys = ["dataset", "split", "model"]
        groups = source.groupby(keys, observed=True, sort=True)
        return [metrics_from_rows(str(key[0]), str(key[1]), str(key[2]), rows, {}) for key, rows in groups]
    return [_read(Path(path), allow_incomplete) for path in source]


def read_metadata(path: Path) -> MetricsMetadata:
    """Read the metadata of a metrics file. Raises DataError if it is damaged or not a metrics file."""
    return _metadata(path, read_sealed(path, "metrics table"))


def read_rows(path: Path, *, allow_incomplete: bool = True) -> pd.DataFrame:
    """Read the rows of a metrics file. Raises DataError as `read_metrics` does."""
    data = read_sealed(path, "metrics table")
    _refuse_incomplete(path, _metadata(path, data), allow_incomplete)
    return _rows(data)


def _metadata(path: Path, data: bytes) -> MetricsMetadata:
    check_parquet(path)
    import pyarrow.parquet as pq

    try:
        content = json.loads((pq.read_metadata(io.BytesIO(data)).metadata or {})[METADATA_KEY])
    except (OSError, ValueError, KeyError):
        raise DataError(f"{path} is not a metrics table; expected a Parquet file written by measure") from None
    if content.get("schema") != SCHEMA_VERSION:
        raise DataError(f"{path} has schema {content.get('schema')}, expected {SCHEMA_VERSION}; measure again")
    return MetricsMetadata(
        dataset=content["dataset"],
        split=content["split"],
        model=content["model"],
        complete=content["complete"],
        failures=tuple(content["failures"]),
        policies=content["policies"],
        tolerance=content["tolerance"],
        sequences={name: SequenceInfo.from_json(info) for name, info in content["sequences"].items()},
    )


def _refuse_incomplete(path: Path, metadata: MetricsMetadata, allow_incomplete: bool) -> None:
    if not metadata.complete and not allow_incomplete:
        raise DataError(f"{path} is incomplete, {len(metadata.failures)} failures: {metadata.failures[0]}")


def _rows(data: bytes) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(io.BytesIO(data))


def _read(path: Path, allow_incomplete: bool) -> Metrics:
    data = read_sealed(path, "metrics table")
    metadata = _metadata(path, data)
    _refuse_incomplete(path, metadata, allow_incomplete)
    return metrics_from_rows(metadata.dataset, metadata.split, metadata.model, _rows(data), metadata.sequences)


def metrics_from_rows(
    dataset: str, split: str, model: str, rows: pd.DataFrame, infos: Mapping[str, SequenceInfo]
) -> Metrics:
    """The counts in the rows of a metrics file, and facts about its sequences."""
    sequences = tuple(_sequences(rows, infos))
    return Metrics(dataset, split, model, sequences, infos, "tolerance_adaptive" in rows.columns)


def _sequences(rows: pd.DataFrame, infos: Mapping[str, SequenceInfo]) -> Iterator[SequenceRows]:
    """Yield the sequences in the order of their names, or of the categories if the column has any."""
    names = COUNTS + ADAPTIVE_COUNTS if set(ADAPTIVE_COUNTS) <= set(rows.columns) else COUNTS
    codes, labels = _codes(rows["sequence"])
    order = np.lexsort((rows["frame_index"].to_numpy(), rows["object_id"].to_numpy(), codes))
    integers = {name: rows[name].to_numpy(np.int64)[order] for name in ("object_id", "frame_index", *names)}
    floats = {name: rows[name].to_numpy(np.float64)[order] for name in _FLOATS if name in rows.columns}
    frames, codes = rows["frame"].to_numpy(object)[order], codes[order]
    bounds = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
    for start, end in pairwise(bounds if len(codes) else []):
        name, part = str(labels[codes[start]]), slice(start, end)
        adaptive = floats.get("tolerance_adaptive")
        sequence = SequenceCounts(
            name,
            object_ids=integers["object_id"][part],
            frames=frames[part].tolist(),
            frame_indices=integers["frame_index"][part],
            counts=Counts(**{column: integers[column][part] for column in names}),
            j=floats["j"][part],
            f=floats["f"][part],
            tolerance=floats["tolerance"][part],
            tolerance_adaptive=None if adaptive is None else adaptive[part],
            info=infos.get(name, SequenceInfo()),
        )
        yield split_by_object(sequence)


def _codes(column: pd.Series[str]) -> tuple[Integers, Any]:
    """Return a number for each value of a column and the values by number, in the order of `groupby`."""
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.to_numpy(np.int64), column.cat.categories
    codes, labels = pd.factorize(column, sort=True)
    return codes, labels
