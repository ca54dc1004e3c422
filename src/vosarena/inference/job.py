"""What a tracking job gets: a model and a shard of sequences."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, cast

import cv2

from vosarena.base.errors import TrackerError
from vosarena.base.hashing import file_sha256
from vosarena.base.names import WEIGHTS_FOLDER
from vosarena.inference.devices import take_device
from vosarena.predictions.manifest import ModelDefinition, ModelIdentity
from vosarena.predictions.store import Store
from vosarena.trackers.base import Tracker, build_tracker, package_versions, packages_of, tracker_class
from vosarena.trackers.prompts import Prompt

Given = Mapping[int, Mapping[int, Prompt]]
"""Index of a frame -> object id -> box and clicks."""


@dataclass(frozen=True)
class Job:
    """A model as it is run.

    Attributes:
        definition: Tracker, options and revision.
        weights: Local file or folder of weights, None for a tracker without.
        device: `auto`, `cpu`, `cuda` or `mps`.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
        threads: Threads of the CPU, which decide the last bits of some masks. None leaves them to the libraries.
        jobs_per_gpu: Jobs that may share a GPU.
        workers: Threads that read and prepare frames for the model, in which no mask depends on their number. None
            for one per available CPU, up to 3.
        real_time: Frames per second that the model must keep up with (see inference.real_time); None if it has all the
            time.
        members: The models that track together in an ensemble by the mean, by name; empty for other models.
    """

    definition: ModelDefinition
    weights: Path | None = None
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    jobs_per_gpu: int = 1
    workers: int | None = None
    real_time: float | None = None
    members: Mapping[str, Job] = field(default_factory=dict)

    def identity(self) -> ModelIdentity:
        """Return everything of the model that decides the masks.

        Raises:
            TrackerError: The tracker, one of its packages or the weights are missing.
        """
        weights = _weights_files(self.weights)
        for path in weights:
            if not path.is_file():
                raise TrackerError(f"there is no weights file {path}")
        tracker = self.definition.tracker
        named = [tracker.rpartition(":")[0], *self.definition.options.values()]
        files = [Path(value) for value in named if isinstance(value, str) and value and Path(value).is_file()]
        return ModelIdentity(
            definition=self.definition,
            precision=self.precision,
            weights=file_sha256(weights[0]) if weights else None,
            files=tuple(file_sha256(path) for path in (*weights[1:], *files)),
            packages=package_versions(packages_of(tracker_class(tracker))),
            members=tuple(member.identity() for member in self.members.values()),
        )

    def build(self) -> Tracker:
        """Load the model.

        Raises:
            TrackerError: It cannot be built.
        """
        if self.members:
            from vosarena.trackers.mean import MeanOfLogits

            return cast(Tracker, MeanOfLogits({name: member.build() for name, member in self.members.items()}))
        if self.device == "mps":  # read when torch is imported
            os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
        if self.threads:
            cv2.setNumThreads(self.threads)
        if "torch" in packages_of(tracker_class(self.definition.tracker)):
            if self.device in ("auto", "cuda"):
                take_device(self.jobs_per_gpu)
            import torch

            if self.threads:
                torch.set_num_threads(self.threads)
        options = dict(self.definition.options)
        if self.weights:
            options["weights"] = str(self.weights)
        return build_tracker(self.definition.tracker, options, self.device, self.precision)


@dataclass(frozen=True)
class ShardTask:
    """Sequences to be tracked by one process with one loaded model.

    Attributes:
        sequences: Names of the sequences.
        images: Folder with one folder of frames per sequence.
        annotations: Folder with one folder of prompt masks per sequence.
        job: The model.
        store: Folder of the store for the predictions.
        resize: What to do with prompt masks of another size than the frames: `never` (an error) or `nearest`.
        minutes: Time limit of the process, None if there is none.
        given: Boxes and clicks in addition to the masks, by index of the frame and object id.
        write: Frames whose masks are written: `all`, `annotated` (those with a mask in `annotations`), or those in the
            `meta` file next to it.
    """

    sequences: tuple[str, ...]
    images: Path
    annotations: Path
    job: Job
    store: Path
    resize: str = "never"
    minutes: float | None = None
    given: Given = field(default_factory=dict)
    write: str = "all"

    def open_store(self) -> Store:
        """Return the store for the predictions."""
        return Store(self.store)

    def to_json(self) -> dict[str, Any]:
        """Return the task as a plain mapping, for another process."""
        return {
            "sequences": list(self.sequences),
            "images": str(self.images),
            "annotations": str(self.annotations),
            "job": {
                **asdict(self.job),
                "definition": self.job.definition.to_json(),
                "weights": str(self.job.weights) if self.job.weights else None,
            },
            "store": str(self.store),
            "resize": self.resize,
            "minutes": self.minutes,
            "write": self.write,
            "given": {
                index: {number: prompt.to_json() for number, prompt in prompts.items()}
                for index, prompts in self.given.items()
            },
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` returned."""
        job = dict(content["job"])
        definition, weights = ModelDefinition.from_json(job.pop("definition")), job.pop("weights")
        return cls(
            sequences=tuple(content["sequences"]),
            images=Path(content["images"]),
            annotations=Path(content["annotations"]),
            job=Job(definition, Path(weights) if weights else None, **job),
            store=Path(content["store"]),
            resize=content["resize"],
            minutes=content["minutes"],
            write=content["write"],
            given={
                int(index): {int(number): Prompt.from_json(prompt) for number, prompt in prompts.items()}
                for index, prompts in content["given"].items()
            },
        )


def _weights_files(weights: Path | None) -> list[Path]:
    """Return the files of weights, of a folder the largest first."""
    if weights is None:
        return []
    return [weights / name for name in reversed(WEIGHTS_FOLDER)] if weights.is_dir() else [weights]


def device_name(device: str) -> str:
    """Return the name of a device for people: that of a CUDA device, or kind and architecture of the processor."""
    if device != "cuda":
        return f"{device.upper()} ({platform.machine()})"
    import torch

    return torch.cuda.get_device_name()
