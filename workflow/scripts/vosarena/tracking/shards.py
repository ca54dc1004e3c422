"""Shards: the sequences that one job tracks with one loaded model."""

import heapq
from collections.abc import Iterable, Mapping
from typing import Any


def make_shards(table: Iterable[Mapping[str, Any]], sequences_per_job: int) -> dict[str, list[str]]:
    """Split a sequences table into shards of at most `sequences_per_job`, alike in work (frames x objects).

    A shard of one sequence has its name; others are numbered. Deterministic: the largest sequence goes first,
    always to the shard with the least work that has room (longest-processing-time rule, Graham 1969).
    """
    rows = sorted(table, key=lambda row: (-work_of(row), row["sequence"]))
    if sequences_per_job == 1:
        return {row["sequence"]: [row["sequence"]] for row in sorted(rows, key=lambda row: row["sequence"])}
    count = -(-len(rows) // sequences_per_job)
    shards: list[list[str]] = [[] for _ in range(count)]
    heap = [(0, index) for index in range(count)]
    for row in rows:
        work, index = heapq.heappop(heap)
        shards[index].append(row["sequence"])
        if len(shards[index]) < sequences_per_job:
            heapq.heappush(heap, (work + work_of(row), index))
    width = len(str(count))
    return {f"shard-{index + 1:0{width}}-of-{count}": sorted(names) for index, names in enumerate(shards)}


def work_of(row: Mapping[str, Any]) -> int:
    """Frames times objects of one row of the sequences table."""
    return row["n_frames"] * max(1, len(row["object_ids"]))
