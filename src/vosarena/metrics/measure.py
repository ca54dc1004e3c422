"""Count the objects of many sequences, and write the counts to one Parquet file that every protocol scores."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from vosarena.base.memory import keep_freed_memory
from vosarena.metrics.counts import FrameCounter
from vosarena.metrics.pairs import Failure, SequencePair
from vosarena.metrics.records import SequenceCounts
from vosarena.metrics.sequence import CountOptions, ExtraIds, Resize, SequenceCounter, SequenceFailed
from vosarena.metrics.write import RunLabels, write_metrics


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
    """Count the objects of all sequences and write one Parquet file, atomically.

    The file has one row per ground-truth frame and per object of the sequence (in ground truth, meta file or
    prediction), sorted by sequence, object and frame. Its bytes do not depend on `jobs` or the order of the
    sequences. Only frames with ground truth are counted.

    Args:
        sequences: Files of the sequences.
        output: The Parquet file.
        dataset: Value of the column `dataset`.
        split: Value of the column `split`.
        model: Value of the column `model`.
        jobs: Number of sequences that are counted at the same time.
        extra_ids: Whether a predicted object that the ground truth does not have is an error. If ignored, its rows
            are written, but only the protocols that reproduce another evaluator look at them.
        resize: Whether predictions of another size are resized.
        adaptive: Whether to count with MOSEv2's tolerance as well.
        binary: Whether every nonzero pixel belongs to object 1.
        progress: Whether to show a progress bar.

    Raises:
        MeasureError: Some sequences cannot be counted. The others are counted and written even then, but the
            metadata of the file say `complete: false`, and `scores.score` refuses it by default.
    """
    options = CountOptions(extra_ids, resize, adaptive, binary)
    results = count_sequences(sequences, options, jobs=jobs, title=f"measure {model}" if progress else None)
    write_metrics(results, output, RunLabels(dataset, split, model), options)


def count_sequences(
    sequences: Iterable[SequencePair], options: CountOptions, *, jobs: int = 1, title: str | None = None
) -> Iterator[SequenceCounts | Failure]:
    """Count the objects of sequences, or find out why they cannot be counted.

    Threads suffice for parallel work: reading, inflating and counting release the GIL.

    Args:
        sequences: Files of the sequences.
        options: How to treat unusual predictions, and what to count.
        jobs: Number of sequences that are counted at the same time.
        title: Title of a progress bar; None shows none.

    Yields:
        One result per sequence, sorted by name.
    """
    keep_freed_memory()
    worker, pairs = _Worker(options), _by_name(sequences)
    with _progress_bar(title, sum(len(pair.ground_truth) for pair in pairs)) as bar:
        lock = threading.Lock()

        def advance() -> None:
            if bar is not None:
                with lock:
                    bar.update()

        if jobs <= 1 or len(pairs) <= 1:
            for pair in pairs:
                yield worker(pair, advance)
            return
        pool = ThreadPoolExecutor(min(jobs, len(pairs)))
        try:
            yield from pool.map(lambda pair: worker(pair, advance), pairs)
        finally:
            pool.shutdown(cancel_futures=True)


def _progress_bar(title: str | None, total: int) -> AbstractContextManager[Any]:
    if title is None:
        return nullcontext()
    from vosarena.base.logs import progress_bar

    bar: AbstractContextManager[Any] = progress_bar(total=total, desc=title, unit="frame")
    return bar


def _by_name(sequences: Iterable[SequencePair]) -> list[SequencePair]:
    """Sort by name. A name that is given more than once becomes one pair with a problem."""
    given: dict[str, list[SequencePair]] = {}
    for pair in sequences:
        given.setdefault(pair.name, []).append(pair)
    return [pairs[0] if len(pairs) == 1 else _ambiguous(name, len(pairs)) for name, pairs in sorted(given.items())]


def _ambiguous(name: str, times: int) -> SequencePair:
    reason = f"given {times} times; give every sequence a name of its own"
    return SequencePair(name, problem=Failure(name, reason, "ground_truth"))


class _Worker:
    """Counts sequences, one at a time per thread."""

    def __init__(self, options: CountOptions) -> None:
        self.options = options
        self._local = threading.local()

    def __call__(self, pair: SequencePair, on_frame: Callable[[], None]) -> SequenceCounts | Failure:
        if pair.problem is not None:
            return pair.problem
        if not hasattr(self._local, "counter"):
            self._local.counter = FrameCounter(self.options.adaptive)
        try:
            return SequenceCounter(pair, self.options, self._local.counter, on_frame).count()
        except SequenceFailed as failed:
            return failed.failure
        except (OSError, ValueError, MemoryError) as error:
            return Failure(pair.name, f"it cannot be measured ({type(error).__name__}: {error})", "ground_truth")
