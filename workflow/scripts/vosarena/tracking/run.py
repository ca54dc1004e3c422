"""Track sequences with one model: prefetch, track and write at the same time, keep what is valid, fail alone."""

import logging
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from vosarena import __version__
from vosarena.data.frames import Frames
from vosarena.data.masks import LabelMap, masks_digest, write_mask
from vosarena.data.sequences import SequenceFiles, read_sequence
from vosarena.errors import TrackerError, VosarenaError
from vosarena.trackers.base import Tracker, build_tracker, package_versions, resolve_device, tracker_class
from vosarena.tracking.store import Store, digest_of, file_sha256, write_json
from vosarena.tracking.usage import PeakMemory

logger = logging.getLogger(__name__)

_WRITERS = 2
_UNWRITTEN = 16  # masks that may wait for the writers: bounds the memory


@dataclass(frozen=True)
class Job:
    """A model as it is run: its definition, its weights and where it runs.

    definition: `tracker`, `options` and `revision` (see Model.definition). weights: local file or None.
    """

    definition: Mapping[str, Any]
    weights: Path | None = None
    device: str = "auto"
    precision: str = "auto"
    threads: int = 1

    def identity(self) -> dict[str, Any]:
        """Everything of the model that decides the masks; with a sequence's digest it makes a fingerprint."""
        tracker = self.definition["tracker"]
        source = Path(tracker.rpartition(":")[0]) if ".py:" in tracker else None
        return {
            **self.definition,
            "precision": self.precision,
            "weights": file_sha256(self.weights) if self.weights else None,
            "source": file_sha256(source) if source and source.is_file() else None,
            "packages": package_versions(tracker_class(tracker)),
        }

    def build(self) -> Tracker:
        """Load the model. Raises TrackerError if it cannot be built."""
        cv2.setNumThreads(self.threads)
        if "torch" in tracker_class(self.definition["tracker"]).packages:
            import torch

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
    names: Sequence[str], images: Path, annotations: Path, job: Job, store: Store, status: Path, resize: str = "never"
) -> None:
    """Track the sequences of one shard and write its status file once all of them are in the store.

    Raises TrackerError naming every failed sequence with its reason; the others are finished all the same.
    """
    outcome = track_sequences(names, images, annotations, job, store, resize)
    if outcome.failed:
        raise TrackerError(failure_report(outcome, store))
    write_json(status, {"masks": outcome.masks})


def failure_report(outcome: Outcome, store: Store) -> str:
    """One line for each failed sequence."""
    total = len(outcome.failed) + len(outcome.masks)
    lines = [f"  {name}: {reason}" for name, reason in outcome.failed.items()]
    return "\n".join([f"{len(outcome.failed)} of {total} sequences failed in {store.folder}:", *lines])


def track_sequences(
    names: Sequence[str], images: Path, annotations: Path, job: Job, store: Store, resize: str = "never"
) -> Outcome:
    """Track every sequence that the store does not hold yet. The model is loaded once, and only if it is needed.

    images, annotations: folders with one folder per sequence. A sequence that fails is recorded and passed over.
    Raises TrackerError if the model cannot be loaded.
    """
    identity = job.identity()
    outcome = Outcome()
    tracker: Tracker | None = None
    load_seconds = 0.0
    for number, name in enumerate(names, 1):
        try:
            files = read_sequence(images, annotations, name, resize)
            prompts = files.prompts()
            fingerprint = digest_of({"model": identity, "sequence": sequence_digest(files, prompts)})
            stems = [path.stem for path in files.frames]
            if store.holds(name, fingerprint, stems):
                logger.info("%s: already there", name)
                manifest = store.manifest(name)
                assert manifest is not None
            else:
                if tracker is None:
                    started = time.perf_counter()
                    tracker = job.build()
                    load_seconds = time.perf_counter() - started
                manifest = _track(tracker, files, prompts, store, f"{number}/{len(names)} {name}", {
                    "fingerprint": fingerprint, "load": load_seconds, "identity": identity, "job": job,
                })  # fmt: skip
            outcome.masks[name] = manifest["masks"]
        except Exception as error:
            if tracker is None and isinstance(error, TrackerError):
                raise  # the model itself cannot be loaded: no sequence would do better
            logger.error("%s: %s", name, error, exc_info=not isinstance(error, VosarenaError))
            store.fail(name, error)
            outcome.failed[name] = str(error) or type(error).__name__
    return outcome


def sequence_digest(files: SequenceFiles, prompts: Mapping[int, LabelMap]) -> str:
    """Digest of all that a tracker sees of a sequence: the bytes of its frames, and its prompts as pixels."""
    return digest_of(
        {
            "frames": [[path.stem, file_sha256(path)] for path in files.frames],
            "prompts": [[index, list(mask.shape), digest_of({"": mask.tobytes().hex()})]
                        for index, mask in sorted(prompts.items())],
        }
    )  # fmt: skip


def _track(
    tracker: Tracker, files: SequenceFiles, prompts: Mapping[int, LabelMap], store: Store, title: str, known: dict
) -> dict[str, Any]:
    """Track one sequence into the store and return its manifest."""
    job: Job = known["job"]
    stems = [path.stem for path in files.frames]
    with store.writing(files.name) as folder, PeakMemory() as memory, Frames(files.frames) as frames:
        started = time.perf_counter()
        _write_all(_checked(tracker.track(frames, prompts), files, title), folder, stems)
        tracked = time.perf_counter() - started
        manifest = {
            "sequence": files.name,
            "fingerprint": known["fingerprint"],
            "masks": masks_digest((stem, folder / f"{stem}.png") for stem in stems),
            "frames": stems,
            "prompts": {stems[i]: sorted({int(v) for v in np.unique(mask)} - {0}) for i, mask in prompts.items()},
            "seconds": {"load": round(known["load"], 3), "track": round(tracked, 3)},
            "fps": round(len(stems) / tracked, 3),
            "peak_memory_mb": memory.host_mb(),
            "peak_gpu_memory_mb": memory.gpu_mb(),
            "device": device_name(resolve_device(type(tracker), job.device)),
            "identity": known["identity"],
            "vosarena": __version__,
            "python": platform.python_version(),
        }
        store.commit(files.name, folder, manifest)
    return manifest


def _checked(masks: Iterator[LabelMap], files: SequenceFiles, title: str) -> Iterator[LabelMap]:
    """Pass masks on with a progress bar; raise TrackerError if they are not one label map per frame."""
    count = 0
    with tqdm(total=len(files.frames), desc=title, unit="frame", mininterval=1, dynamic_ncols=True) as bar:
        for labels in masks:
            if labels.shape != files.size or labels.dtype != np.uint8:
                raise TrackerError(
                    f"sequence {files.name}, frame {files.frames[count].stem}: the tracker gave {labels.dtype} "
                    f"{labels.shape}, expected uint8 {files.size}"
                )
            count += 1
            bar.update()
            yield labels
    if count != len(files.frames):
        raise TrackerError(f"sequence {files.name}: the tracker gave {count} masks for {len(files.frames)} frames")


def _write_all(masks: Iterable[LabelMap], folder: Path, stems: Sequence[str]) -> None:
    """Write masks in the background while the tracker computes; at most a few wait in memory."""
    pending: list[Future[None]] = []
    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="masks") as pool:
        for stem, labels in zip(stems, masks, strict=True):
            pending.append(pool.submit(write_mask, folder / f"{stem}.png", labels.copy()))
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
