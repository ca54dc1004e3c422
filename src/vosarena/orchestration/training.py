"""What a training asks for: GPUs, nodes, CPUs, memory and time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vosarena.base.files import read_json
from vosarena.config.model_schema import FinetuneEntry
from vosarena.orchestration.shards import Workload

_UNKNOWN_MINUTES = 2880
_BACKWARD = 3  # time of a training pass relative to tracking: the backward pass takes about twice the forward pass
# Copies of the weights on disk: the result, and in the checkpoint weights, two moments, and a file being replaced. A
# validation keeps the best ones and the last ones too.
_COPIES, _MORE_COPIES = 5, 2
_START_MINUTES = 20  # to read all data for the checksums, and to build the network
_SLACK = 1.3
_MEMORY_MB = 16000  # of a process with its data loaders


@dataclass(frozen=True)
class TrainingJob:
    """The resources of a training.

    Attributes:
        recipe: The recipe.
        work: Folder of its checkpoint.
        uses_gpus: Whether it runs on GPUs.
        here: Whether it runs on this machine, and no scheduler starts it.
        threads_on_cpu: Threads of each process that computes without a GPU; another number can change the last bits.
    """

    recipe: FinetuneEntry
    work: Path
    uses_gpus: bool
    here: bool = False
    threads_on_cpu: int = 1

    @property
    def threads(self) -> int:
        """CPUs of a node: two for each GPU; on a cluster, also one for each process that loads data."""
        loaders = 0 if self.here else self.recipe.workers
        return self.recipe.gpus * (2 + loaders if self.uses_gpus else self.threads_on_cpu)

    @property
    def gpu(self) -> int:
        """GPUs, if they are all on one node."""
        return self.recipe.gpus if self.uses_gpus and self.recipe.nodes == 1 else 0

    @property
    def gres(self) -> str | None:
        """GPUs of each of several nodes, as schedulers write it."""
        return f"gpu:{self.recipe.gpus}" if self.uses_gpus and self.recipe.nodes > 1 else None

    @property
    def nodes(self) -> int | None:
        """Number of nodes, if there are several."""
        return self.recipe.nodes if self.recipe.nodes > 1 else None

    @property
    def memory_mb(self) -> int:
        """Memory of a node in MB."""
        return _MEMORY_MB * self.recipe.gpus + round(1000 * self.recipe.cache_gb)

    @property
    def progress(self) -> Mapping[str, Any]:
        """What earlier jobs of the training have noted."""
        return read_json(self.work / "progress.json")

    def hours(self, kind: str, held_out: Workload | None = None) -> tuple[float, bool]:
        """Return an estimate of the hours that are left, and whether it follows from a measured speed.

        Args:
            kind: How the model runs: `gpu` or `cpu`.
            held_out: The split on which the training is validated.
        """
        progress, recipe = self.progress, self.recipe
        processes = recipe.gpus * recipe.nodes
        done = progress.get("iteration", 0)
        left = recipe.iterations - done
        validations = recipe.validations_after(done)
        if "seconds_per_iteration" in progress:
            seconds = left * progress["seconds_per_iteration"] * progress["processes"] / processes
            return (seconds + validations * progress.get("seconds_per_validation", 0)) / 3600, True
        frames = recipe.batch * recipe.frames
        work = Workload(frames, frames * recipe.objects, 0, recipe.objects)
        seconds = left * _BACKWARD * work.usual_seconds(kind) / processes
        if held_out:  # one of the processes tracks, also before the first iteration
            seconds += (validations + 1) * held_out.usual_seconds(kind)
        return seconds / 3600, False

    def disk_bytes(self, weights: int | None) -> int:
        """Return an estimate of the disk space of the training.

        Args:
            weights: Size of the initial weights in bytes, if it is known.
        """
        return (_COPIES + (_MORE_COPIES if self.recipe.validation else 0)) * (weights or 0)

    def minutes(self) -> int:
        """Time for the iterations that are left, at the speed that an earlier job of the training has measured."""
        progress = self.progress
        if "seconds_per_iteration" not in progress:
            return _UNKNOWN_MINUTES
        left = max(0, self.recipe.iterations - progress["iteration"])
        faster = self.recipe.gpus * self.recipe.nodes / progress["processes"]
        seconds: float = left * progress["seconds_per_iteration"] / faster
        seconds += self.recipe.validations_after(progress["iteration"]) * progress.get("seconds_per_validation", 0)
        return _START_MINUTES + math.ceil(_SLACK * seconds / 60)
