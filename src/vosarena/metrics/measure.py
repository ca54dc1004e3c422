"""Sequences of masks to one Parquet table of counts per frame and object; every protocol scores from that table."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vosarena import __version__
from vosarena.base.files import atomic_path
from vosarena.base.logs import progress_bar
from vosarena.base.sealed import SEAL, seal
from vosarena.metrics import counts as c
from vosarena.metrics.pairs import Failure, MeasureError, SequencePair
from vosarena.metrics.sequence import ExtraIds, Measured, Policies, Resize, SequenceFailed, SequenceMeasurement

SCHEMA_VERSION = 1
METADATA_KEY, SEAL_KEY = b"vosarena", b"vosarena-seal"

_TEXT = pa.dictionary(pa.int32(), pa.string())
_NAMES = ("dataset", "split", "model", "sequence")


def metrics_schema(adaptive: bool) -> pa.Schema:
    """Columns of the table; with MOSEv2's three more if `adaptive`."""
    extra = [*((name, pa.int32()) for name in c.ADAPTIVE_COUNTS), ("tolerance_adaptive", pa.float64())]
    return pa.schema(
        [
            *((name, _TEXT) for name in _NAMES),
            ("object_id", pa.int32()),
            ("frame", pa.string()),
            ("frame_index", pa.int32()),
            *((name, pa.int32()) for name in c.COUNTS),
            ("tolerance", pa.float64()),
            ("j", pa.float64()),
            ("f", pa.float64()),
            *(extra if adaptive else []),
        ]
    )


def measure(
    sequences: Iterable[SequencePair],
    output: Path,
    *,
    dataset: str,
    split: str,
    model: str,
    jobs: int = 1,
    extra_ids: ExtraIds = "error",
    resize: Resize = "never",
    adaptive: bool = False,
    binary: bool = False,
    progress: bool = True,
) -> None:
    """Count all sequences and write one Parquet file, atomically.

    One row per ground-truth frame and per object of the sequence (in ground truth, meta file or prediction), sorted by
    sequence, object and frame. The bytes do not depend on `jobs` or the order of the sequences. Only frames with
    ground truth are counted. extra_ids: whether an object that only the prediction has is an error or is ignored (its
    rows are written, no protocol but those that repeat a peer looks at them). resize: whether predictions of another
    size are resized. adaptive: also count with MOSEv2's tolerance. binary: every pixel that is not zero belongs to
    object 1.

    Raises MeasureError if sequences cannot be measured. The others are measured and written even then, but the file's
    metadata say `complete: false`, and `protocols.score` refuses it unless told otherwise.
    """
    pairs = _by_name(sequences)
    worker = _Worker(Policies(extra_ids, resize, adaptive, binary))
    results = _run(worker, pairs, jobs, progress, f"measure {model}")
    labels = {"dataset": dataset, "split": split, "model": model}
    metadata = {
        "schema": SCHEMA_VERSION,
        "vosarena": __version__,
        "tolerance": "ceil(0.008 * sqrt(height^2 + width^2)) pixels, disk dx^2 + dy^2 <= tolerance^2 (DAVIS)",
        "tolerance_adaptive": "min(ceil(0.1 * sqrt(area)), 0.008 * diagonal) pixels (MOSEv2)" if adaptive else None,
        "policies": {"extra_ids": extra_ids, "resize": resize} | ({"binary": True} if binary else {}),
        **labels,
    }
    _write(results, output, labels, metadata, adaptive)


def _by_name(sequences: Iterable[SequencePair]) -> list[SequencePair]:
    """Sorted by name; of a name that is given more than once, one pair that says so: none of them can be meant."""
    given: dict[str, list[SequencePair]] = {}
    for pair in sequences:
        given.setdefault(pair.name, []).append(pair)
    return [pairs[0] if len(pairs) == 1 else _ambiguous(name, len(pairs)) for name, pairs in sorted(given.items())]


def _ambiguous(name: str, times: int) -> SequencePair:
    reason = f"given {times} times; give every sequence a name of its own"
    return SequencePair(name, problem=Failure(name, reason, "ground_truth"))


def _run(
    worker: _Worker, pairs: list[SequencePair], jobs: int, progress: bool, title: str
) -> Iterator[Measured | Failure]:
    """Results in the order of the pairs. Threads suffice: reading, inflating and counting all release the GIL."""
    total = sum(len(pair.ground_truth) for pair in pairs)
    with progress_bar(total=total, desc=title, unit="frame", disable=not progress) as bar:
        lock = threading.Lock()

        def tick() -> None:
            with lock:
                bar.update()

        if jobs <= 1 or len(pairs) <= 1:
            for pair in pairs:
                yield worker(pair, tick)
            return
        pool = ThreadPoolExecutor(min(jobs, len(pairs)))
        try:
            yield from pool.map(lambda pair: worker(pair, tick), pairs)
        finally:
            pool.shutdown(cancel_futures=True)


class _Worker:
    """Measures sequences, one at a time per thread."""

    def __init__(self, policies: Policies) -> None:
        self.policies = policies
        self._local = threading.local()

    def __call__(self, pair: SequencePair, tick: Callable[[], None]) -> Measured | Failure:
        if pair.problem is not None:
            return pair.problem
        if not hasattr(self._local, "counter"):
            self._local.counter = c.FrameCounter(self.policies.adaptive)
        try:
            return SequenceMeasurement(pair, self.policies, self._local.counter, tick).measured()
        except SequenceFailed as broken:
            return broken.failure
        except (OSError, ValueError, MemoryError) as error:
            return Failure(pair.name, f"it cannot be measured ({type(error).__name__}: {error})", "ground_truth")


def _table(measured: Measured, labels: dict[str, str], schema: pa.Schema, adaptive: bool) -> pa.Table:
    n = len(measured.counts)
    columns: dict[str, Any] = {
        name: pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([value], pa.string()))
        for name, value in (labels | {"sequence": measured.name}).items()
    }
    columns["object_id"] = measured.object_ids.astype(np.int32)
    columns["frame"] = measured.frames
    indices = measured.frame_indices
    if indices.max(initial=0) > np.iinfo(np.int32).max:  # frames named by a time in milliseconds: their order must do
        indices = np.unique(indices, return_inverse=True)[1]
    columns["frame_index"] = indices.astype(np.int32)
    for index, name in enumerate(c.count_names(adaptive)):
        columns[name] = measured.counts[:, index].astype(np.int32)
    columns["tolerance"] = measured.tolerance
    columns["j"] = c.jaccard(measured.counts)
    columns["f"] = c.boundary_f(measured.counts)
    if adaptive:
        columns["tolerance_adaptive"] = c.adaptive_tolerance(measured.counts[:, 1], measured.cap)
    return pa.table({name: pa.array(columns[name]) for name in schema.names}, schema=schema)


def _write(
    results: Iterator[Measured | Failure],
    output: Path,
    labels: dict[str, str],
    metadata: dict[str, Any],
    adaptive: bool,
) -> None:
    """One row group per sequence; what protocols must know of the file goes into its key-value metadata."""
    failures: list[Failure] = []
    sequences: dict[str, Any] = {}
    schema = metrics_schema(adaptive)
    with atomic_path(output, alone=True) as temporary:
        with pq.ParquetWriter(temporary, schema, compression="zstd", write_page_checksum=True) as writer:
            for result in results:
                if isinstance(result, Failure):
                    failures.append(result)
                    continue
                sequences[result.name] = result.info
                if len(result.counts):
                    writer.write_table(_table(result, labels, schema, adaptive), row_group_size=len(result.counts))
            metadata |= {
                "complete": not failures,
                "failures": [str(failure) for failure in failures],
                "sequences": sequences,
            }
            writer.add_key_value_metadata({METADATA_KEY: json.dumps(metadata, sort_keys=True), SEAL_KEY: SEAL})
        seal(temporary)
    if failures:
        raise MeasureError(failures, len(sequences))
