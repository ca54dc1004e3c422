"""Shards: the sequences that one job tracks with one loaded model.

`Work` says how much there is to do for each sequence of a split, by name.
"""

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vosarena.base.names import safe_path_name
from vosarena.config.schema import Inference
from vosarena.datasets.table import SequenceRecord

# These are upper bounds: a scheduler ends a job that asks for too little, and a job that ends early costs nothing.
# The values are seconds for a frame and for each object in it. On a GPU, five times what the largest SAM 2 needs on an
# A100.
_SECONDS = {"baseline": (0.3, 0.05), "gpu": (0.1, 0.1), "cpu": (3.0, 3.0)}
_MARGIN = 5  # of the upper bounds over the usual times
# Seconds until a job tracks its first frame: Python, packages, weights, CUDA. A job on a cluster starts Snakemake too.
START_SECONDS = {"baseline": 1, "gpu": 10, "cpu": 5}
_CLUSTER_SECONDS = 10
_START_MINUTES = 10  # start-up, weights and frames from a slow file server
_MEMORY_MB = {"baseline": 2000, "gpu": 8000, "cpu": 8000}  # Python, packages, model


@dataclass(frozen=True)
class Workload:
    """The work of a sequence or of a job, from which time and memory limits follow.

    Attributes:
        frames: Number of frames.
        object_frames: Number of frames times objects.
        pixels: Pixels of the largest frame.
        objects: Largest number of objects in a sequence.
    """

    frames: int
    object_frames: int
    pixels: int
    objects: int

    @classmethod
    def of(cls, record: SequenceRecord) -> "Workload":
        """Return the work of one sequence."""
        objects = len(record.object_ids)
        return cls(record.n_frames, record.n_frames * max(1, objects), record.height * record.width, objects)

    @classmethod
    def sum(cls, works: Iterable["Workload"]) -> "Workload":
        """Return the work of a job that tracks several sequences."""
        works = list(works)
        return cls(
            frames=sum(work.frames for work in works),
            object_frames=sum(work.object_frames for work in works),
            pixels=max(work.pixels for work in works),
            objects=max(work.objects for work in works),
        )

    def minutes(self, kind: str) -> int:
        """Return the time limit of the first attempt.

        Args:
            kind: How the model runs: `baseline`, `gpu` or `cpu`.
        """
        return math.ceil(_START_MINUTES + self.seconds(kind) / 60)

    def seconds(self, kind: str) -> float:
        """Return an upper bound of the time without the start.

        Args:
            kind: How the model runs: `baseline`, `gpu` or `cpu`.
        """
        frame, one_object = _SECONDS[kind]
        return frame * self.frames + one_object * self.object_frames

    def usual_seconds(self, kind: str) -> float:
        """Return an estimate of the time without the start, with a GPU as fast as an A100.

        Args:
            kind: How the model runs: `baseline`, `gpu` or `cpu`.
        """
        return self.seconds(kind) / _MARGIN

    def memory_mb(self, kind: str) -> int:
        """Return the host memory of the first attempt.

        Frames are streamed, so their number does not matter.

        Args:
            kind: How the model runs: `baseline`, `gpu` or `cpu`.
        """
        in_flight = 3 * 10 + 20  # bytes per pixel: decoded frames ahead, masks that wait for the writers
        per_object = 8  # a mask as float32, twice
        return math.ceil(_MEMORY_MB[kind] + self.pixels * (in_flight + per_object * self.objects) / 2**20)


Work = Mapping[str, Workload]


def split_into_shards(work: Work, inference: Inference, kind: str, at_once: int | None) -> dict[str, list[str]]:
    """Split sequences into shards as the config asks for.

    Args:
        work: The work of each sequence.
        inference: How jobs run; it gives the number of sequences or the minutes of a job, or neither.
        kind: How the model runs: `baseline`, `gpu` or `cpu`.
        at_once: Number of jobs that can run at the same time; None on a cluster, where it is not known.

    Returns:
        The names of the sequences of each shard, by shard name.
    """
    if inference.minutes_per_job:
        return make_shards_by_time(work, inference.minutes_per_job, kind)
    if inference.sequences_per_job != "auto":
        return make_shards(work, inference.sequences_per_job or 1)
    return choose_shards(work, kind, at_once)


def make_shards(work: Work, sequences_per_job: int) -> dict[str, list[str]]:
    """Split sequences into shards of at most `sequences_per_job`, with similar work (frames x objects).

    A shard of one sequence is named after it (see safe_path_name); the others are numbered. The largest sequence goes
    first, always to the shard with the least work that has room (longest-processing-time rule, Graham 1969).

    Args:
        work: The work of each sequence.
        sequences_per_job: Largest number of sequences in a shard.

    Returns:
        The names of the sequences of each shard, by shard name.
    """
    if sequences_per_job == 1:
        return {safe_path_name(name): [name] for name in sorted(work)}
    amounts = {name: found.object_frames for name, found in work.items()}
    return _named(_spread(amounts, -(-len(work) // sequences_per_job), sequences_per_job))


def make_shards_by_time(work: Work, minutes: int, kind: str) -> dict[str, list[str]]:
    """Split sequences into as few shards as possible whose time limits are at most `minutes`.

    A sequence that needs more time is alone in its shard, which has a longer limit. The shards need similar times.

    Args:
        work: The work of each sequence.
        minutes: Largest time limit of a job, as `Workload.minutes` estimates it.
        kind: How the model runs: `baseline`, `gpu` or `cpu`.

    Returns:
        The names of the sequences of each shard, by shard name.
    """
    room = max(0, 60 * (minutes - _START_MINUTES))
    seconds = {name: found.seconds(kind) for name, found in work.items()}
    count = max(1, math.ceil(sum(min(each, room) for each in seconds.values()) / room)) if room else len(work)
    while count < len(work):
        shards = _spread(seconds, count, len(work))
        if all(len(names) == 1 or sum(seconds[name] for name in names) <= room for names in shards):
            return _named(shards)
        count += 1 + count // 100
    return _named(_spread(seconds, len(work), 1))


def choose_shards(work: Work, kind: str, at_once: int | None) -> dict[str, list[str]]:
    """Split sequences into shards that keep a machine busy and spend little time on starting.

    On a machine, there are as many shards as jobs can run at the same time, but none that would take less time than its
    start. On a cluster, there are as many as possible whose start takes at most 5 % of their time.

    Args:
        work: The work of each sequence.
        kind: How the model runs: `baseline`, `gpu` or `cpu`.
        at_once: Number of jobs that can run at the same time; None on a cluster, where it is not known.

    Returns:
        The names of the sequences of each shard, by shard name.
    """
    seconds = {name: found.usual_seconds(kind) for name, found in work.items()}
    start, total = START_SECONDS[kind], sum(seconds.values())
    count = total / (19 * (start + _CLUSTER_SECONDS)) if at_once is None else min(at_once, total / start)
    return _named(_spread(seconds, min(max(1, int(count)), len(work)), len(work)))


def _spread(amounts: Mapping[str, float], count: int, most: int) -> list[list[str]]:
    """Return `count` lists of at most `most` names, with similar amounts of work."""
    shards: list[list[str]] = [[] for _ in range(count)]
    heap = [(0.0, index) for index in range(count)]
    for name in sorted(amounts, key=lambda name: (-amounts[name], name)):
        load, index = heapq.heappop(heap)
        shards[index].append(name)
        if len(shards[index]) < most:
            heapq.heappush(heap, (load + amounts[name], index))
    return shards


def _named(shards: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    width = len(str(len(shards)))
    return {f"shard-{index + 1:0{width}}-of-{len(shards)}": sorted(names) for index, names in enumerate(shards)}
