"""Write counts as a Parquet file: one row per frame and object, one row group per sequence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vosarena.base.errors import ConfigError
from vosarena.base.files import atomic_path
from vosarena.base.sealed import SEAL, seal
from vosarena.base.version import __version__
from vosarena.metrics.counts import ADAPTIVE_COUNTS, COUNTS
from vosarena.metrics.pairs import Failure, MeasureError
from vosarena.metrics.records import SequenceCounts
from vosarena.metrics.sequence import CountOptions

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
METADATA_KEY, SEAL_KEY = b"vosarena", b"vosarena-seal"
_TOLERANCE = "ceil(0.008 * sqrt(height^2 + width^2)) pixels, disk dx^2 + dy^2 <= tolerance^2 (DAVIS)"
_TOLERANCE_ADAPTIVE = "min(ceil(0.1 * sqrt(area)), 0.008 * diagonal) pixels (MOSEv2)"


@dataclass(frozen=True)
class RunLabels:
    """What was counted: the first three columns of a metrics file."""

    dataset: str
    split: str
    model: str


def check_parquet(path: Path) -> None:
    """Raise ConfigError if Parquet files cannot be read or written here, because pyarrow is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise ConfigError(f"{path}: Parquet files need pyarrow; pip install 'vosarena[data]'") from None


def metrics_schema(adaptive: bool) -> pa.Schema:
    """Columns of a metrics file, with MOSEv2's three additional ones if `adaptive`."""
    import pyarrow as pa

    text = pa.dictionary(pa.int32(), pa.string())
    fields = [
        *((name, text) for name in ("dataset", "split", "model", "sequence")),
        ("object_id", pa.int32()),
        ("frame", pa.string()),
        ("frame_index", pa.int32()),
        *((name, pa.int32()) for name in COUNTS),
        ("tolerance", pa.float64()),
        ("j", pa.float64()),
        ("f", pa.float64()),
    ]
    if adaptive:
        fields += [*((name, pa.int32()) for name in ADAPTIVE_COUNTS), ("tolerance_adaptive", pa.float64())]
    return pa.schema(fields)


def write_metrics(
    results: Iterable[SequenceCounts | Failure], output: Path, labels: RunLabels, options: CountOptions
) -> None:
    """Write the counts of sequences to a Parquet file, atomically, with a checksum of its content.

    Facts about the file and its sequences go into its key-value metadata, as JSON.

    Args:
        results: Counts of the sequences in order, or why they could not be counted.
        output: The file.
        labels: Dataset, split and model.
        options: How the sequences were counted.

    Raises:
        ConfigError: pyarrow is not installed.
        MeasureError: Some results are failures. The file is written even then, with `complete: false`.
    """
    check_parquet(output)
    import pyarrow.parquet as pq

    failures: list[Failure] = []
    sequences: dict[str, Any] = {}
    schema = metrics_schema(options.adaptive)
    with atomic_path(output, alone=True) as temporary:
        with pq.ParquetWriter(temporary, schema, compression="zstd", write_page_checksum=True) as writer:
            for result in results:
                if isinstance(result, Failure):
                    failures.append(result)
                    continue
                sequences[result.name] = result.info.to_json()
                if len(result.counts):
                    writer.write_table(_table(result, labels, schema), row_group_size=len(result.counts))
            metadata = _metadata(labels, options, failures, sequences)
            writer.add_key_value_metadata({METADATA_KEY: json.dumps(metadata, sort_keys=True), SEAL_KEY: SEAL})
        seal(temporary)
    if failures:
        raise MeasureError(failures, len(sequences))


def _metadata(
    labels: RunLabels, options: CountOptions, failures: list[Failure], sequences: Mapping[str, Any]
) -> dict[str, Any]:
    policies: dict[str, Any] = {"extra_ids": options.extra_ids, "resize": options.resize}
    if options.binary:
        policies["binary"] = True
    return {
        "schema": SCHEMA_VERSION,
        "vosarena": __version__,
        "tolerance": _TOLERANCE,
        "tolerance_adaptive": _TOLERANCE_ADAPTIVE if options.adaptive else None,
        "policies": policies,
        "dataset": labels.dataset,
        "split": labels.split,
        "model": labels.model,
        "complete": not failures,
        "failures": [str(failure) for failure in failures],
        "sequences": sequences,
    }


def _table(sequence: SequenceCounts, labels: RunLabels, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    n = len(sequence.counts)

    def constant(value: str) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([value], pa.string()))

    columns: dict[str, Any] = {
        "dataset": constant(labels.dataset),
        "split": constant(labels.split),
        "model": constant(labels.model),
        "sequence": constant(sequence.name),
        "object_id": sequence.object_ids.astype(np.int32),
        "frame": sequence.frames,
        "frame_index": sequence.frame_indices.astype(np.int32),
        **{name: values.astype(np.int32) for name, values in sequence.counts.columns().items()},
        "tolerance": sequence.tolerance,
        "j": sequence.j,
        "f": sequence.f,
        "tolerance_adaptive": sequence.tolerance_adaptive,
    }
    return pa.table({name: pa.array(columns[name]) for name in schema.names}, schema=schema)
