"""Track the sequences of a shard with one loaded model and keep what is valid; each sequence fails by itself."""

import contextlib
import hashlib
import logging
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from vosarena.base.errors import BrokenDeviceError, DataError, Stopped, TrackerError, VosarenaError
from vosarena.base.hashing import digest_of, file_sha256
from vosarena.base.locks import LockHeld
from vosarena.base.text import summarise_names
from vosarena.base.version import __version__
from vosarena.datasets.facts import required_frames
from vosarena.datasets.sequences import FULL_ANNOTATIONS, FULL_IMAGES, META, SequenceFiles, read_sequence
from vosarena.inference.job import Job, ShardTask, device_name
from vosarena.inference.outputs import (
    Prompts,
    combine_masks,
    given_json,
    output_names,
    prompted_ids,
    prompts_of,
    track_sequence,
)
from vosarena.inference.parallel import ParallelJobs
from vosarena.inference.process import restored_process, stopped_by_signals
from vosarena.inference.prompting import derived_prompts
from vosarena.inference.real_time import RealTime
from vosarena.inference.usage import PeakMemory
from vosarena.inference.writing import write_masks
from vosarena.io.frames import Frames
from vosarena.io.masks import LabelMap, masks_digest
from vosarena.predictions.failures import breaks_cuda, is_out_of_memory, reason_of
from vosarena.predictions.manifest import LateMasks, Manifest, MemoryUse, Timing, Versions
from vosarena.predictions.store import Store
from vosarena.trackers.base import Tracker, prompt_kinds_of, resolve_device, tracker_class
from vosarena.trackers.prompts import ObjectPrompt, check_kinds, kind_of_prompt

logger = logging.getLogger(__name__)

T = TypeVar("T")

_PREPARED = 2  # frames of the next sequence, with which the device starts at once
_PATIENCE = 5.0  # seconds between two attempts at sequences that another process is writing


@dataclass
class Outcome:
    """Result of tracking: digests of the masks of finished sequences, reasons of failed ones, by name."""

    masks: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def track_shard(task: ShardTask, status: Path) -> None:
    """Track the sequences of a shard, and write its status file when all of them are in the store.

    Args:
        task: The shard.
        status: Status file to write.

    Raises:
        TrackerError: Sequences failed, which are named with their reasons, or the job was asked to end. The other
            sequences are finished anyway.
    """
    status = status.absolute()  # a tracker may change the working directory
    try:
        outcome = track_sequences(task)
    except Stopped as error:
        raise TrackerError(f"{error}; finished sequences are kept in {task.store}") from None
    except BrokenDeviceError as error:
        raise TrackerError(
            f"{error.reason}; CUDA works again in a new process only, so this one ends, and the next attempt tracks "
            f"the sequences that are left",
            sequence=error.sequence,
        ) from None
    if outcome.failed:
        raise TrackerError(failure_report(outcome, task.store))
    Store.write_status(status, outcome.masks)


def failure_report(outcome: Outcome, store: Path) -> str:
    """Return a sentence about the failed sequences, and one line for each reason with its sequences."""
    total = len(outcome.failed) + len(outcome.masks)
    by_reason: dict[str, list[str]] = {}
    for name, reason in outcome.failed.items():
        by_reason.setdefault(reason, []).append(name)
    lines = [f"  {summarise_names(names)}: {reason}" for reason, names in by_reason.items()]
    return "\n".join([f"{len(outcome.failed)} of {total} sequences failed in {store}:", *lines])


def track_sequences(task: ShardTask) -> Outcome:
    """Track every sequence that the store does not hold yet.

    The model is loaded once, and only if it is needed. A sequence that fails, whatever the tracker raises, is recorded
    and skipped. One that another process is writing is left for the end, and taken from the store when it is there. One
    with which the last process ended comes after the others.

    Raises:
        TrackerError: The model cannot be loaded.
        BrokenDeviceError: The GPU cannot be used any more in this process. The sequence is recorded as failed; the
            others are left to the next process, which takes that sequence last.
        Stopped: The process was asked to end.
    """
    with stopped_by_signals(task.minutes), ParallelJobs() as jobs, _Run(task, jobs) as run:
        return _track_all(run)


def _track_all(run: "_Run") -> Outcome:
    outcome, store, names = Outcome(), run.store, run.task.sequences
    pending = sorted(names, key=store.ended_process)
    while pending:
        busy: list[str] = []
        for name, following in zip(pending, [*pending[1:], None], strict=True):
            try:
                manifest = run.manifest_of(name, f"{names.index(name) + 1}/{len(names)} {name}", following)
                outcome.masks[name] = manifest.masks_digest
            except LockHeld as error:
                logger.info("%s: left for later: %s", name, error.reason)
                busy.append(name)
            except Stopped as error:
                store.fail(name, error)
                raise
            except BaseException as error:  # a tracker may call sys.exit
                if run.tracker is None and isinstance(error, TrackerError):
                    raise  # the model cannot be loaded, so every sequence would fail
                outcome.failed[name] = run.fail(name, error)
                if breaks_cuda(error):
                    raise BrokenDeviceError(outcome.failed[name], sequence=name) from None
        if len(busy) == len(pending):
            time.sleep(_PATIENCE)
        pending = busy
    return outcome


@dataclass(frozen=True)
class _Plan:
    """What the masks of a sequence are made from, and which frames get one.

    Attributes:
        files: The sequence.
        frames: The frames that the tracker gets. The first ones may be prepared already.
        prompts: Its prompts.
        fingerprint: Digest of everything that decides the masks.
        outputs: Names of the masks that are written.
        written: Names of their frames.
        sources: Folders of stored masks, if the sequence is not tracked.
    """

    files: SequenceFiles
    frames: Frames
    prompts: Prompts
    fingerprint: str
    outputs: list[str]
    written: list[str]
    sources: list[Path]


class _Run:
    """One model over several sequences; the model is loaded when the first of them needs it.

    While a sequence is tracked, from its first mask on, a thread reads the prompts of the next one, hashes its frames
    and prepares the first of them for the tracker.
    """

    def __init__(self, task: ShardTask, jobs: ParallelJobs) -> None:
        self._jobs = jobs
        self.task = replace(  # a tracker may change the working directory
            task, images=task.images.absolute(), annotations=task.annotations.absolute(), store=task.store.absolute()
        )
        self.store = self.task.open_store()
        self.tracker: Tracker | None = None
        definition = self.task.job.definition
        needed = {kind_of_prompt(definition.prompts)}
        needed |= {kind for prompts in task.given.values() for prompt in prompts.values() for kind in prompt.kinds}
        with restored_process():
            check_kinds(definition.tracker, prompt_kinds_of(tracker_class(definition.tracker)), sorted(needed))
            self._identity = task.job.identity()
        self._load_seconds = 0.0
        self._meta: dict[str, set[str]] | None = None
        self._plans: dict[str, _Plan] = {}
        self._ahead: tuple[str, Future[_Plan]] | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="next-sequence")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def manifest_of(self, name: str, title: str, following: str | None = None) -> Manifest:
        """Return the manifest of a sequence, which is tracked now if the store does not hold it.

        Args:
            name: Name of the sequence.
            title: Title of the progress bar.
            following: The sequence after it.

        Raises:
            LockHeld: Another process is writing the sequence.
            VosarenaError: The sequence or the tracker is at fault.
        """
        plan = self._plan_of(name)
        finished = self._finished(plan)
        if finished:
            return finished
        failure = self.store.failure(name)
        if failure and failure.fingerprint and failure.fingerprint == self._fingerprint_of(name):
            raise DataError(failure.reason)  # the same input fails again: a retry would only cost time
        with self.store.writing(name) as folder:
            finished = self._finished(plan)  # by the process that had the lock until now
            if finished:
                return finished
            with restored_process():
                return self._track(plan, folder, title, following)

    def fail(self, name: str, error: BaseException) -> str:
        """Record and log why a sequence failed; return the reason."""
        tracker = self.task.job.definition.tracker
        reason = reason_of(error, tracker)
        self.store.fail(name, error, self._fingerprint_of(name), tracker)
        logger.error("%s: %s", name, reason, exc_info=not isinstance(error, VosarenaError))
        return reason

    def _plan_of(self, name: str) -> _Plan:
        if name not in self._plans:
            self._plans.clear()  # one at a time, because prompts are full label maps
            ahead, self._ahead = self._ahead, None
            self._plans[name] = ahead[1].result() if ahead and ahead[0] == name else self._make_plan(name)
        return self._plans[name]

    def _look_ahead(self, name: str) -> None:
        if self._ahead is None or self._ahead[0] != name:
            self._ahead = name, self._pool.submit(self._make_plan_ahead, name)

    def _make_plan_ahead(self, name: str) -> _Plan:
        plan = self._make_plan(name)
        prepare = getattr(self.tracker, "prepare", None)
        if prepare and not self.task.job.real_time and not self._holds(plan):
            first = min(plan.prompts)
            for index in range(first, min(first + _PREPARED, len(plan.frames))):
                with contextlib.suppress(Exception):  # the tracker finds the same fault, when it is its turn
                    plan.frames.prepare(index, prepare)
        return plan

    def _make_plan(self, name: str) -> _Plan:
        options = self.task.job.definition.options
        files = read_sequence(self.task.images, self.task.annotations, name, self.task.resize)
        full = self._full_resolution(files) if options.get("full_resolution") else None
        prompts = prompts_of(full or files, options, self.task.given)
        written = self._written(files)
        outputs = output_names(files, prompts, written)
        sources = [folder / name for folder in self._source_folders()]
        seen: dict[str, Any] = {"model": self._identity.to_json(), "sequence": sequence_digest(full or files, prompts)}
        if full:
            seen["size"] = files.size
        if self.task.job.real_time and not sources:
            seen["real_time"] = self.task.job.real_time
        if sources:
            seen["masks"] = [stored_digest(folder, outputs) for folder in sources]
        frames = Frames((full or files).frames, workers=self.task.job.workers, mask_size=files.size)
        return _Plan(files, frames, prompts, digest_of(seen), outputs, written, sources)

    def _written(self, files: SequenceFiles) -> list[str]:
        """Return the names of the frames whose masks are written."""
        stems, write = [path.stem for path in files.frames], self.task.write
        if write == "annotated":
            annotated = {*files.masks, *(index for masks in files.objects.values() for index in masks)}
            return [stem for index, stem in enumerate(stems) if index in annotated]
        if write == "meta":
            if self._meta is None:
                self._meta = required_frames(self.task.annotations.parent / META)
            required = self._meta.get(files.name, set(stems))
            return [stem for stem in stems if stem in required]
        return stems

    def _full_resolution(self, files: SequenceFiles) -> SequenceFiles:
        """Return a sequence in the larger size, whose folders are next to those of the ordinary size."""
        images, masks = (self.task.images.with_name(name) for name in (FULL_IMAGES, FULL_ANNOTATIONS))
        full = read_sequence(images, masks, files.name, self.task.resize)
        if [path.stem for path in full.frames] != [path.stem for path in files.frames]:
            raise DataError(
                f"{full.frames[0].parent} has other frames than {files.frames[0].parent}; both need the same names",
                sequence=files.name,
            )
        return full

    def _source_folders(self) -> list[Path]:
        """Return the folders whose masks a model combines; none for a tracker."""
        definition = self.task.job.definition
        found = getattr(tracker_class(definition.tracker), "folders", None)
        return [folder.absolute() for folder in found(definition.options, self.store.folder)] if found else []

    def _fingerprint_of(self, name: str) -> str:
        """Return what the last attempt computed, and by which version; empty if it did not come to that."""
        return f"{__version__} {self._plans[name].fingerprint}" if name in self._plans else ""

    def _finished(self, plan: _Plan) -> Manifest | None:
        """Return the manifest of a sequence if the store holds it."""
        name = plan.files.name
        if not self._holds(plan):
            return None
        logger.info("%s: already finished", name)
        self.store.clean_up(name)
        return self.store.manifest(name)

    def _holds(self, plan: _Plan) -> bool:
        return self.store.holds(plan.files.name, plan.fingerprint, plan.outputs)

    def _track(self, plan: _Plan, folder: Path, title: str, following: str | None) -> Manifest:
        """Track one sequence into the store and return its manifest."""
        if self.tracker is None:
            started = time.perf_counter()
            self.tracker = self.task.job.build()
            self._load_seconds = time.perf_counter() - started
        stems = tuple(path.stem for path in plan.files.frames)
        begun = partial(self._look_ahead, following) if following else None
        jobs, began = self._jobs.numbers(), time.time()
        memory, started = PeakMemory(), time.perf_counter()
        saving, (digest, prompts, real_time) = _track_and_write(self.tracker, plan, folder, title, self.task.job, begun)
        seconds = time.perf_counter() - started
        manifest = Manifest(
            sequence=plan.files.name,
            fingerprint=plan.fingerprint,
            masks_digest=digest,
            frames=stems,
            written=None if len(plan.written) == len(stems) else tuple(plan.written),
            prompts={stems[index]: tuple(prompted_ids(prompt)) for index, prompt in prompts.items()},
            given={stems[index]: found for index, prompt in prompts.items() if (found := given_json(prompt))},
            timing=Timing(round(self._load_seconds, 3), round(seconds, 3), len(jobs | self._jobs.numbers(since=began))),
            memory=MemoryUse(memory.host_mb(), memory.gpu_mb()),
            saving=saving,
            device=device_name(resolve_device(self.tracker, self.task.job.device)),
            identity=self._identity,
            versions=Versions(__version__, platform.python_version(), sys.executable),
            real_time=real_time,
        )
        self.store.commit(folder, manifest)
        return manifest


def _track_and_write(
    tracker: Tracker, plan: _Plan, folder: Path, title: str, job: Job, begun: Callable[[], None] | None
) -> tuple[dict[str, Any], tuple[str, Prompts, LateMasks | None]]:
    """Track and write; if memory runs out, try again with the tracker's options that need less of it.

    A tracker offers them as `saving_memory()`, a context manager that yields the options it changed. `begun` is called
    when the first mask is there.

    Returns:
        The options that were changed, empty after a normal run; the digest of the masks; the prompts; and which masks
        were late, in real time only.
    """
    for parent in {(folder / name).parent for name in plan.outputs}:
        parent.mkdir(exist_ok=True)

    def attempt() -> tuple[str, Prompts, LateMasks | None]:
        if plan.sources:
            written = set(plan.written)
            kept = replace(plan.files, frames=tuple(path for path in plan.files.frames if path.stem in written))
            combined = combine_masks(tracker, kept, plan.prompts, plan.sources, title)
            return write_masks(_announced(combined, begun), plan.outputs, folder), plan.prompts, None
        real_time = RealTime(job.real_time) if job.real_time else None
        with plan.frames as frames:
            prompts = derived_prompts(tracker, frames, plan.prompts, job.definition.prompts)
            tracked = track_sequence(tracker, frames, plan.files, prompts, title, real_time)
            masks = _announced(tracked, begun)
            wanted = set(plan.outputs)
            digest = write_masks(((name, labels) for name, labels in masks if name in wanted), plan.outputs, folder)
        late = LateMasks(job.real_time, real_time.late) if job.real_time and real_time else None
        return digest, prompts, late

    try:
        return {}, attempt()
    except Exception as error:
        if not is_out_of_memory(error) or not hasattr(tracker, "saving_memory"):
            raise
        reason = str(error) or type(error).__name__
    # Outside of the handler, because the traceback would keep the tensors alive.
    with tracker.saving_memory() as saving:
        if not saving:
            raise MemoryError(reason)
        logger.warning("%s: %s; trying again with %s", plan.files.name, reason, saving)
        found = attempt()
        return dict(saving), found


def _announced(masks: Iterable[T], begun: Callable[[], None] | None) -> Iterator[T]:
    """Yield all masks; call a function when the first one is there."""
    for mask in masks:
        if begun:
            begun()
            begun = None
        yield mask


def sequence_digest(files: SequenceFiles, prompts: Prompts) -> str:
    """Return the digest of all that a tracker sees of a sequence: bytes of the frames, pixels of the prompts."""
    return digest_of(
        {
            "frames": [[path.stem, file_sha256(path)] for path in files.frames],
            "prompts": [[index, _prompt_digest(prompt)] for index, prompt in sorted(prompts.items())],
        }
    )


def stored_digest(folder: Path, names: Iterable[str]) -> str:
    """Return the digest of stored masks.

    Raises:
        DataError: A mask is missing or damaged.
    """
    files = [(name, folder / f"{name}.png") for name in names]
    for _, path in files:
        if not path.is_file():
            raise DataError(f"there is no mask {path}; a model made of masks needs one for every frame")
    return masks_digest(files)


def _prompt_digest(prompt: LabelMap | Mapping[int, ObjectPrompt]) -> list[Any] | dict[int, list[Any]]:
    """Return size and hash of a label map, or of each object's mask; boxes and clicks as they are."""
    if isinstance(prompt, np.ndarray):
        return _pixels_digest(prompt)
    return {
        number: _pixels_digest(given)
        if isinstance(given, np.ndarray)
        else [item.to_json() if item.mask is None else _pixels_digest(item.mask) for item in given]
        for number, given in prompt.items()
    }


def _pixels_digest(mask: np.ndarray[Any, Any]) -> list[Any]:
    return [list(mask.shape), hashlib.sha256(mask.tobytes()).hexdigest()]
