"""Records of the store: what a model is, what made a prediction, why a sequence failed.

Each record is written to JSON by `to_json` and read back by `from_json`, which raises KeyError, TypeError or ValueError
for JSON that is something else.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from vosarena.predictions.failures import FailureClass


@dataclass(frozen=True)
class ModelDefinition:
    """What decides the masks of a model in a config, without its name and description.

    Attributes:
        tracker: Name of the tracker: built in, `file.py:Class` or a plug-in.
        options: Keyword arguments of the tracker, as YAML gives them.
        revision: Number that a user changes to have everything tracked again.
        prompts: What it gets of each object: `mask`, `box`, `1-click`, `3-click` or `5-click`.
    """

    tracker: str
    options: Mapping[str, Any] = field(default_factory=dict)
    revision: int = 1
    prompts: str = "mask"

    def to_json(self) -> dict[str, Any]:
        """Return the definition as a plain mapping."""
        content = {"tracker": self.tracker, "options": dict(self.options), "revision": self.revision}
        return content if self.prompts == "mask" else {**content, "prompts": self.prompts}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` returned."""
        prompts = content.get("prompts", "mask")
        return cls(content["tracker"], dict(content["options"]), content["revision"], prompts)

    def without_paths(self) -> Self:
        """Return the definition in which a path of this machine is shortened to the name of the file."""
        return replace(self, tracker=_without_paths(self.tracker), options=_without_paths(self.options))


@dataclass(frozen=True)
class ModelIdentity:
    """Everything of a model that decides its masks. With the digest of a sequence it makes a fingerprint.

    Attributes:
        definition: Tracker, options and revision.
        precision: Number format that was asked for, such as `auto` or `bf16`.
        weights: SHA-256 of the weights, of a folder that of `model.safetensors`; None for a model without.
        files: SHA-256 of other files: `config.json` of a folder of weights, and those that the definition names, a
            tracker's code and files given as options.
        packages: Versions of the packages that the tracker names.
        members: The models that track together in an ensemble by the mean, else empty.
    """

    definition: ModelDefinition
    precision: str
    weights: str | None
    files: tuple[str, ...]
    packages: Mapping[str, str]
    members: tuple["ModelIdentity", ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the identity as one flat mapping, as fingerprints are computed from it."""
        return {
            **self.definition.to_json(),
            "precision": self.precision,
            "weights": self.weights,
            "files": list(self.files),
            "packages": dict(self.packages),
            **({"members": [member.to_json() for member in self.members]} if self.members else {}),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` returned."""
        return cls(
            definition=ModelDefinition.from_json(content),
            precision=content["precision"],
            weights=content["weights"],
            files=tuple(content["files"]),
            packages=dict(content["packages"]),
            members=tuple(cls.from_json(member) for member in content.get("members", ())),
        )


@dataclass(frozen=True)
class Timing:
    """How long a sequence took.

    Attributes:
        load: Seconds for loading the model.
        track: Seconds for tracking, including decoding of frames and writing of masks.
        parallel_jobs: Tracking jobs that ran on the machine at once, this one included; 0 if not known.
    """

    load: float
    track: float
    parallel_jobs: int = 0


@dataclass(frozen=True)
class MemoryUse:
    """Peak memory of a sequence in MiB. `gpu` is None where no GPU was used."""

    host: float
    gpu: float | None


@dataclass(frozen=True)
class Versions:
    """The software that made a prediction. `interpreter` is the path of its Python."""

    vosarena: str
    python: str
    interpreter: str


@dataclass(frozen=True)
class LateMasks:
    """What real time did to a sequence: `late` frames kept an earlier mask, at `fps` frames per second."""

    fps: float
    late: int


@dataclass(frozen=True)
class Manifest:
    """What is known of a finished sequence: `<sequence>.json` next to the folder of its masks.

    Attributes:
        sequence: Name of the sequence.
        fingerprint: Digest of everything that decides the masks. A prediction with another one is out of date.
        masks_digest: Digest of the labels in the masks. It is checked whenever they are read.
        frames: Names of the frames in order, without suffix.
        prompts: Frame name -> ids of the objects whose prompt is there.
        given: Frame name -> object id -> boxes and clicks, in order, where the prompts are not masks.
        timing: Seconds for loading and tracking, and how many jobs ran at once.
        memory: Peak memory.
        saving: Options that the tracker changed because memory ran out; usually empty.
        device: Name of the GPU, or the processor's architecture.
        identity: The model.
        versions: The software.
        real_time: Which masks were late, None if the tracker had all the time.
        written: Names of the frames that have a mask, None for all.
    """

    sequence: str
    fingerprint: str
    masks_digest: str
    frames: tuple[str, ...]
    prompts: Mapping[str, tuple[int, ...]]
    timing: Timing
    memory: MemoryUse
    saving: Mapping[str, Any]
    device: str
    identity: ModelIdentity
    versions: Versions
    real_time: LateMasks | None = None
    written: tuple[str, ...] | None = None
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def with_mask(self) -> tuple[str, ...]:
        """Names of the frames that have a mask, in order."""
        return self.frames if self.written is None else self.written

    @property
    def fps(self) -> float:
        """Frames per second of tracking; 0 where the time was too short to be measured."""
        return round(len(self.frames) / self.timing.track, 3) if self.timing.track > 0 else 0.0

    @property
    def peak_memory_mb(self) -> float:
        """Peak memory in MiB: of the GPU if one was used, else of the host."""
        return self.memory.gpu or self.memory.host

    def to_json(self) -> dict[str, Any]:
        """Return the content of `<sequence>.json`."""
        return {
            "sequence": self.sequence,
            "fingerprint": self.fingerprint,
            "masks": self.masks_digest,
            "frames": list(self.frames),
            "prompts": {frame: list(ids) for frame, ids in self.prompts.items()},
            **({"given": dict(self.given)} if self.given else {}),
            "seconds": {"load": self.timing.load, "track": self.timing.track},
            "parallel_jobs": self.timing.parallel_jobs,
            "fps": self.fps,
            "peak_memory_mb": self.memory.host,
            "peak_gpu_memory_mb": self.memory.gpu,
            "saving_memory": dict(self.saving),
            "device": self.device,
            "identity": self.identity.to_json(),
            "vosarena": self.versions.vosarena,
            "python": self.versions.python,
            "interpreter": self.versions.interpreter,
            **({"real_time": asdict(self.real_time)} if self.real_time else {}),
            **({"written": list(self.written)} if self.written is not None else {}),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read the content of `<sequence>.json`."""
        return cls(
            sequence=content["sequence"],
            fingerprint=content["fingerprint"],
            masks_digest=content["masks"],
            frames=tuple(content["frames"]),
            prompts={frame: tuple(ids) for frame, ids in content["prompts"].items()},
            timing=Timing(**content["seconds"], parallel_jobs=content.get("parallel_jobs", 0)),
            memory=MemoryUse(content["peak_memory_mb"], content["peak_gpu_memory_mb"]),
            saving=content["saving_memory"],
            device=content["device"],
            identity=ModelIdentity.from_json(content["identity"]),
            versions=Versions(content["vosarena"], content["python"], content["interpreter"]),
            real_time=_late_masks(content),
            written=tuple(content["written"]) if "written" in content else None,
            given=content.get("given", {}),
        )

    def shared(self) -> dict[str, Any]:
        """Return what two runs of the same model on the same frames have in common, without paths of this machine."""
        identity = self.identity.to_json()
        return {
            "definition": self.identity.definition.without_paths().to_json(),
            **{key: identity[key] for key in ("precision", "weights", "files", "packages")},
            "masks": self.masks_digest,
            "frames": list(self.frames),
            "saving_memory": dict(self.saving),
            "vosarena": self.versions.vosarena,
            **{key: identity[key] for key in ("members",) if key in identity},
            **({"real_time": asdict(self.real_time)} if self.real_time else {}),
            **({"written": list(self.written)} if self.written is not None else {}),
        }

    def run_facts(self) -> dict[str, Any]:
        """Return what differs between two runs: times, memory and where it ran."""
        return {
            "load": self.timing.load,
            "track": self.timing.track,
            "parallel_jobs": self.timing.parallel_jobs,
            "host_mb": self.memory.host,
            "gpu_mb": self.memory.gpu,
            "device": self.device,
            "python": self.versions.python,
        }


@dataclass(frozen=True)
class FailureRecord:
    """Why the last attempt at a sequence failed.

    Attributes:
        sequence: Name of the sequence.
        failure_class: Kind of failure, for the table.
        reason: The sentence for users.
        attempts: Number of attempts that failed so far.
        time: When the last one failed, in local time with its offset.
        error: Class of the exception, empty where the process died.
        traceback: Of an unexpected exception, else empty.
        fingerprint: What was computed, where trying again cannot help; else empty.
        died_silently: Whether the process died without an error message.
    """

    sequence: str
    failure_class: FailureClass
    reason: str
    attempts: int
    time: str
    error: str = ""
    traceback: str = ""
    fingerprint: str = ""
    died_silently: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the record as a plain mapping; the key of `failure_class` is `class`."""
        content = asdict(self)
        content["class"] = str(content.pop("failure_class"))
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` returned."""
        fields = dict(content)
        return cls(failure_class=FailureClass(fields.pop("class")), **fields)


def _late_masks(content: Mapping[str, Any]) -> LateMasks | None:
    return LateMasks(**content["real_time"]) if "real_time" in content else None


def _without_paths(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_paths(item) for item in value]
    return value.rpartition("/")[2] if isinstance(value, str) and value.startswith(("/", "~")) else value
