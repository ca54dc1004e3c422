"""Track sequences with one model: prefetch, track and write at the same time, keep what is valid, fail alone."""

import hashlib
import logging
import platform
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vosarena import __version__
from vosarena.base.errors import DataError, TrackerError, VosarenaError
from vosarena.base.hashing import digest_of, file_sha256
from vosarena.base.locks import LockHeld
from vosarena.base.notes import write_note
from vosarena.datasets.sequences import SequenceFiles, read_sequence
from vosarena.inference.devices import take_device
from vosarena.inference.outputs import Prompts, output_names, prompted_ids, prompts_of, track_sequence
from vosarena.inference.usage import PeakMemory
from vosarena.io.frames import Frames
from vosarena.io.masks import LabelMap, masks_digest, write_mask
from vosarena.predictions.failures import Stopped, few_of, is_out_of_memory, reason_of, stopped_by_signals, undisturbed
from vosarena.predictions.store import Store
from vosarena.trackers.base import (
    Tracker,
    build_tracker,
    package_versions,
    packages_of,
    resolve_device,
    tracker_class,
)

logger = logging.getLogger(__name__)

_WRITERS = 2
_UNWRITTEN = 16  # masks that may wait for the writers: bounds the memory
_PATIENCE = 5.0  # seconds between two looks at sequences that another process is writing


@dataclass(frozen=True)
class Job:
    """A model as it is run: its definition, its weights and where it runs.

    definition: `tracker`, `options` and `revision` (see Model.definition). weights: local file or None. threads: of the
    CPU, which decide the last bits of some masks; None leaves them to the libraries.
    """

    definition: Mapping[str, Any]
    weights: Path | None = None
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None

    def identity(self) -> dict[str, Any]:
        """Everything of the model that decides the masks; with a sequence's digest it makes a fingerprint.

        Raises TrackerError if the tracker, one of its packages or the weights are missing.
        """
        if self.weights and not self.weights.is_file():
            raise TrackerError(f"there is no weights file {self.weights}")
        tracker = self.definition["tracker"]
        named = [tracker.rpartition(":")[0], *self.definition["options"].values()]
        files = [Path(value) for value in named if isinstance(value, str) and value and Path(value).is_file()]
        return {
            **self.definition,
            "precision": self.precision,
            "weights": file_sha256(self.weights) if self.weights else None,
            "files": [file_sha256(path) for path in files],
            "packages": package_versions(packages_of(tracker_class(tracker))),
        }

    def build(self) -> Tracker:
        """Load the model. Raises TrackerError if it cannot be built."""
        if self.threads:
            cv2.setNumThreads(self.threads)
        if "torch" in packages_of(tracker_class(self.definition["tracker"])):
            if self.device != "cpu":
                take_device()
            import torch

            if self.threads:
                torch.set_num_threads(self.threads)
        options = dict(self.definition["options"])
        if self.weights:
            options["weights"] = str(self.weights)
        return build_tracker(self.definition["tracker"], options, self.device, self.precision)


@dataclass
class Outcome:
    """What became of the sequences: digests of the masks of finished ones, reasons of failed ones."""

    masks: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def track_shard(
    names: Sequence[str],
    images: Path,
    annotations: Path,
    job: Job,
    store: Store,
    status: Path,
    resize: str = "never",
    minutes: float | None = None,
) -> None:
    """Track the sequences of one shard and write its status file once all of them are in the store.

    minutes: the job's time limit. Raises TrackerError naming every failed sequence with its reason, or the one in
    flight when the job was stopped; the others are finished all the same.
    """
    status = status.absolute()  # wherever the tracker moves
    try:
        outcome = track_sequences(names, images, annotations, job, store, resize, minutes)
    except Stopped as error:
        raise TrackerError(f"{error}; what is finished is kept in {store.folder}") from None
    if outcome.failed:
        raise TrackerError(failure_report(outcome, store))
    write_note(status, {"masks": outcome.masks})


def failure_report(outcome: Outcome, store: Store) -> str:
    """One line for each reason, with the sequences that failed for it."""
    total = len(outcome.failed) + len(outcome.masks)
    by_reason: dict[str, list[str]] = {}
    for name, reason in outcome.failed.items():
        by_reason.setdefault(reason, []).append(name)
    lines = [f"  {few_of(names)}: {reason}" for reason, names in by_reason.items()]
    return "\n".join([f"{len(outcome.failed)} of {total} sequences failed in {store.folder}:", *lines])


def track_sequences(
    names: Sequence[str],
    images: Path,
    annotations: Path,
    job: Job,
    store: Store,
    resize: str = "never",
    minutes: float | None = None,
) -> Outcome:
    """Track every sequence that the store does not hold yet. The model is loaded once, and only if it is needed.

    images, annotations: folders with one folder per sequence. A sequence that fails, whatever the tracker raised, is
    recorded and passed over; one that another process is writing is left for the end, and taken from the store when it
    is there. One that the last process did not survive comes after the others. minutes: the job's time limit.
    Raises TrackerError if the model cannot be loaded, and Stopped if the process is asked to end.
    """
    with stopped_by_signals(minutes):
        places = images.absolute(), annotations.absolute()  # wherever the tracker moves
        return _track_all(names, _Run(*places, job, Store(store.folder.absolute()), resize))


def _track_all(names: Sequence[str], run: "_Run") -> Outcome:
    outcome, store, tracker = Outcome(), run.store, run.job.definition["tracker"]
    pending = sorted(names, key=store.is_deadly)
    while pending:
        busy: list[str] = []
        for name in pending:
            try:
                outcome.masks[name] = run.manifest_of(name, f"{names.index(name) + 1}/{len(names)} {name}")["masks"]
            except LockHeld as error:
                logger.info("%s: left for later: %s", name, error)
                busy.append(name)
            except Stopped as error:
                store.fail(name, error)
                raise
            except BaseException as error:  # a tracker may call sys.exit
                if run.tracker is None and isinstance(error, TrackerError):
                    raise  # the model itself cannot be loaded: no sequence would do better
                outcome.failed[name] = reason_of(error, tracker, name)
                store.fail(name, error, run.fingerprint_of(name), tracker)
                logger.error("%s: %s", name, outcome.failed[name], exc_info=not isinstance(error, VosarenaError))
        if len(busy) == len(pending):
            time.sleep(_PATIENCE)
        pending = busy
    return outcome


@dataclass(frozen=True)
class _Plan:
    """What a sequence's masks are made from."""

    files: SequenceFiles
    prompts: Prompts
    fingerprint: str
    outputs: list[str]


class _Run:
    """One model over several sequences; the model is loaded when the first of them needs it."""

    def __init__(self, images: Path, annotations: Path, job: Job, store: Store, resize: str) -> None:
        self.tracker: Tracker | None = None
        self.job, self.store = job, store
        self._images, self._annotations, self._resize = images, annotations, resize
        with undisturbed():
            self._identity = job.identity()
        self._load_seconds = 0.0
        self._plans: dict[str, _Plan] = {}

    def fingerprint_of(self, name: str) -> str:
        """What the last attempt at a sequence was to compute, by this version; empty if it did not come to that."""
        return f"{__version__} {self._plans[name].fingerprint}" if name in self._plans else ""

    def manifest_of(self, name: str, title: str) -> dict[str, Any]:
        """The manifest of a sequence, tracked now if the store does not hold it. Raises LockHeld, VosarenaError."""
        if name not in self._plans:
            self._plans.clear()  # one at a time: prompts are full label maps
            files = read_sequence(self._images, self._annotations, name, self._resize)
            prompts = prompts_of(files)
            fingerprint = digest_of({"model": self._identity, "sequence": sequence_digest(files, prompts)})
            self._plans[name] = _Plan(files, prompts, fingerprint, output_names(files, prompts))
        plan = self._plans[name]
        known = self._known(plan)
        if known:
            return known
        failure = self.store.failure(name)
        if failure and failure.get("fingerprint") == self.fingerprint_of(name):
            raise DataError(failure["reason"])  # the same bytes again: a retry would only waste the GPU
        with self.store.writing(name) as folder:
            # Whoever had the claim until now may have finished it.
            known = self._known(plan)
            if known:
                return known
            with undisturbed():
                return self._track(plan, folder, title)

    def _known(self, plan: _Plan) -> dict[str, Any] | None:
        name = plan.files.name
        if not self.store.holds(name, plan.fingerprint, plan.outputs):
            return None
        logger.info("%s: already there", name)
        self.store.tidy(name)
        return self.store.manifest(name)

    def _track(self, plan: _Plan, folder: Path, title: str) -> dict[str, Any]:
        """Track one sequence into the store and return its manifest."""
        if self.tracker is None:
            started = time.perf_counter()
            self.tracker = self.job.build()
            self._load_seconds = time.perf_counter() - started
        files, stems = plan.files, [path.stem for path in plan.files.frames]
        memory, started = PeakMemory(), time.perf_counter()
        saving = self._write_masks(self.tracker, plan, folder, title)
        tracked = time.perf_counter() - started
        manifest = {
            "sequence": files.name,
            "fingerprint": plan.fingerprint,
            "masks": masks_digest((name, folder / f"{name}.png") for name in plan.outputs),
            "frames": stems,
            "prompts": {stems[index]: prompted_ids(prompt) for index, prompt in plan.prompts.items()},
            "seconds": {"load": round(self._load_seconds, 3), "track": round(tracked, 3)},
            "fps": round(len(stems) / tracked, 3),
            "peak_memory_mb": memory.host_mb(),
            "peak_gpu_memory_mb": memory.gpu_mb(),
            "saving_memory": saving,
            "device": device_name(resolve_device(type(self.tracker), self.job.device)),
            "identity": self._identity,
            "vosarena": __version__,
            "python": platform.python_version(),
            "interpreter": sys.executable,
        }
        self.store.commit(files.name, folder, manifest)
        return manifest

    def _write_masks(self, tracker: Tracker, plan: _Plan, folder: Path, title: str) -> dict[str, Any]:
        """Track and write; if memory runs out, once more with the tracker's options for less of it, which it returns.

        A tracker offers that as `saving_memory()`, a context manager that gives the options it changed.
        """
        for parent in {(folder / name).parent for name in plan.outputs}:
            parent.mkdir(exist_ok=True)

        def attempt() -> None:
            with Frames(plan.files.frames) as frames:
                _write_all(track_sequence(tracker, frames, plan.files, plan.prompts, title), folder)

        try:
            attempt()
            return {}
        except Exception as error:
            if not is_out_of_memory(error) or not hasattr(tracker, "saving_memory"):
                raise
            reason = str(error) or type(error).__name__
        with tracker.saving_memory() as saving:  # after the handler: the traceback would keep the tensors alive
            if not saving:
                raise MemoryError(reason)
            logger.warning("%s: %s; once more with %s", plan.files.name, reason, saving)
            attempt()
            return dict(saving)


def sequence_digest(files: SequenceFiles, prompts: Prompts) -> str:
    """Digest of all that a tracker sees of a sequence: the bytes of its frames, and its prompts as pixels."""

    def pixels(mask: np.ndarray) -> list[Any]:
        return [list(mask.shape), hashlib.sha256(mask.tobytes()).hexdigest()]

    return digest_of(
        {
            "frames": [[path.stem, file_sha256(path)] for path in files.frames],
            "prompts": [
                [index, {number: pixels(mask) for number, mask in prompt.items()} if files.objects else pixels(prompt)]
                for index, prompt in sorted(prompts.items())
            ],
        }
    )


def _write_all(masks: Iterable[tuple[str, LabelMap]], folder: Path) -> None:
    """Write named masks in the background while the tracker computes; at most a few wait in memory."""
    pending: list[Future[None]] = []
    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="masks") as pool:
        for name, labels in masks:
            # A copy: the tracker may go on in the same array.
            pending.append(pool.submit(write_mask, folder / f"{name}.png", labels.copy()))
            if len(pending) >= _UNWRITTEN:
                pending.pop(0).result()
        for future in pending:
            future.result()


def device_name(device: str) -> str:
    """Name of a device ("cpu" or "cuda") for people: the GPU's, or the processor's architecture."""
    if device == "cpu":
        return f"CPU ({platform.machine()})"
    import torch

    return torch.cuda.get_device_name()
