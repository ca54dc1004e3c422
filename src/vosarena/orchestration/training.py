"""What a training asks for: GPUs, nodes, CPUs, memory and time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from vosarena.base.files import read_json
from vosarena.config.schema import FinetuneEntry

_UNKNOWN_MINUTES = 2880
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
    """

    recipe: FinetuneEntry
    work: Path
    uses_gpus: bool
    here: bool = False

    @property
    def threads(self) -> int:
        """CPUs of a node: two for each process; on a cluster, also one for each process that loads data."""
        loaders = 0 if self.here else self.recipe.workers
        return self.recipe.gpus * (2 + loaders if self.uses_gpus else 2)

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
        return _MEMORY_MB * self.recipe.gpus

    def minutes(self) -> int:
        """Time for the iterations that are left, at the speed that an earlier job of the training has measured."""
        progress = read_json(self.work / "progress.json")
        if "seconds_per_iteration" not in progress:
            return _UNKNOWN_MINUTES
        left = max(0, self.recipe.iterations - progress["iteration"])
        faster = self.recipe.gpus * self.recipe.nodes / progress["processes"]
        seconds: float = _SLACK * left * progress["seconds_per_iteration"] / faster
        return _START_MINUTES + math.ceil(seconds / 60)
