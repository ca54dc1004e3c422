"""Tasks and manifests for tests."""

from collections.abc import Sequence
from pathlib import Path

from vosarena.inference.job import Job, ShardTask
from vosarena.predictions.manifest import Manifest, MemoryUse, ModelDefinition, ModelIdentity, Timing, Versions
from vosarena.predictions.store import Store


def task_of(dataset: Path, names: Sequence[str], job: Job, store: Store) -> ShardTask:
    """Sequences of a dataset in `JPEGImages` and `Annotations`, to be tracked into a store."""
    return ShardTask(tuple(names), dataset / "JPEGImages", dataset / "Annotations", job, store.folder)


def make_manifest(sequence: str, fingerprint: str = "f", digest: str = "", frames: Sequence[str] = ("0",)) -> Manifest:
    """A manifest of the tracker `static`."""
    return Manifest(
        sequence=sequence,
        fingerprint=fingerprint,
        masks_digest=digest,
        frames=tuple(frames),
        prompts={frames[0]: (1, 2)},
        timing=Timing(load=0.5, track=2.0),
        memory=MemoryUse(host=100.0, gpu=None),
        saving={},
        device="CPU (x86_64)",
        identity=ModelIdentity(ModelDefinition("static"), "auto", None, (), {}),
        versions=Versions("0.1.0", "3.12.0", "/usr/bin/python"),
    )
