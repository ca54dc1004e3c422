"""Typed records that travel between the modules of this package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vosarena.metrics.counts import IGNORE, Booleans, Counts, Floats, Integers, boundary_f, jaccard

if TYPE_CHECKING:
    from vosarena.metrics.hota import Hota


@dataclass(frozen=True)
class SequenceInfo:
    """Facts about a sequence that protocols need in addition to its counts.

    Attributes:
        n_frames: Number of frames with ground truth.
        height: Height of the first frame in pixels.
        width: Width of the first frame in pixels.
        per_object: Whether every object has its own folder of binary masks (SA-V).
        objects: Ids of the objects that the ground truth has in any frame.
        ranges: First and last frame number of each object, both inclusive, from a meta file; None without one.
        range_frames: Number of frames in the range of an object, where the meta file says it (LVOS).
        unseen: Whether the whole sequence is in the unseen part of its dataset; None if that is not known.
        unseen_objects: The same by object; None without a meta file.
        extra_ids: Predicted objects that the ground truth does not have, with the first frame of each, or "".
        resized_frames: Number of predicted masks that were resized.
        overlapping_frames: Number of frames in which merged objects overlap; None if no objects were merged.
        unpredicted_ends: Number of first and last frames without a prediction. Such counts are never stored.
    """

    n_frames: int = 0
    height: int = 0
    width: int = 0
    per_object: bool = False
    objects: tuple[int, ...] = ()
    ranges: Mapping[int, tuple[int, int]] | None = None
    range_frames: Mapping[int, int] = field(default_factory=dict)
    unseen: bool | None = None
    unseen_objects: Mapping[int, bool | None] | None = None
    extra_ids: Mapping[str, str] = field(default_factory=dict)
    resized_frames: int = 0
    overlapping_frames: int | None = None
    unpredicted_ends: int = 0

    @property
    def listed(self) -> list[int]:
        """Ids of the objects that count: those of the meta file or, without one, of the ground truth; not IGNORE."""
        if self.ranges:
            return list(self.ranges)
        return [number for number in self.objects if number != IGNORE or self.per_object]

    def is_unseen(self, object_id: int) -> bool | None:
        """Whether an object is in the unseen part of its dataset; None if that is not known."""
        of_object = (self.unseen_objects or {}).get(object_id)
        return self.unseen if of_object is None else of_object

    def to_json(self) -> dict[str, Any]:
        """A mapping for `json.dumps`, as stored in the metadata of a metrics file."""
        content = {
            "frames": self.n_frames,
            "height": self.height,
            "width": self.width,
            "per_object": self.per_object,
            "objects": list(self.objects),
            "ranges": None if self.ranges is None else {str(i): list(ends) for i, ends in self.ranges.items()},
            "unseen": self.unseen,
            "unseen_objects": None if self.unseen_objects is None else _text_keys(self.unseen_objects),
            "extra_ids": dict(self.extra_ids),
            "resized_frames": self.resized_frames,
        }
        if self.range_frames:
            content["range_frames"] = _text_keys(self.range_frames)
        if self.overlapping_frames is not None:
            content["overlapping_frames"] = self.overlapping_frames
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> SequenceInfo:
        """The record that `to_json` made."""
        ranges, unseen_objects = content["ranges"], content["unseen_objects"]
        return cls(
            n_frames=content["frames"],
            height=content["height"],
            width=content["width"],
            per_object=content["per_object"],
            objects=tuple(content["objects"]),
            ranges=None if ranges is None else {int(i): (start, end) for i, (start, end) in ranges.items()},
            range_frames={int(i): number for i, number in content.get("range_frames", {}).items()},
            unseen=content["unseen"],
            unseen_objects=None if unseen_objects is None else {int(i): part for i, part in unseen_objects.items()},
            extra_ids=content["extra_ids"],
            resized_frames=content["resized_frames"],
            overlapping_frames=content.get("overlapping_frames"),
        )


def _text_keys(mapping: Mapping[int, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in mapping.items()}


@dataclass(frozen=True)
class SequenceCounts:
    """Counts of one sequence: one row per object and frame, sorted by object, then by frame.

    Attributes:
        name: Name of the sequence.
        object_ids: Object of each row, int64 (n,).
        frames: Frame stem of each row.
        frame_indices: Frame number of each row, int64 (n,).
        counts: Counts of each row.
        j: J of each row, 0 to 1, float64 (n,).
        f: F of each row, 0 to 1, float64 (n,).
        tolerance: Boundary tolerance of each row in pixels, float64 (n,).
        tolerance_adaptive: MOSEv2's tolerance of each row in pixels; None if it was not counted with.
        info: Facts about the sequence.
        hota: What HOTA follows from; None if it was not counted. It is not stored.
    """

    name: str
    object_ids: Integers
    frames: list[str]
    frame_indices: Integers
    counts: Counts
    j: Floats
    f: Floats
    tolerance: Floats
    tolerance_adaptive: Floats | None
    info: SequenceInfo
    hota: Hota | None = None


@dataclass(frozen=True)
class ObjectRows:
    """One object on the frames with ground truth, in numeric order. All arrays have one entry per frame.

    Attributes:
        object_id: Id of the object.
        frames: Frame stems.
        numbers: Frame numbers.
        counts: Counts.
        j: J, 0 to 1.
        f: F, 0 to 1.
        tolerance: Boundary tolerance in pixels.
        tolerance_adaptive: MOSEv2's tolerance in pixels; None if it was not counted with.
    """

    object_id: int
    frames: tuple[str, ...]
    numbers: Integers
    counts: Counts
    j: Floats
    f: Floats
    tolerance: Floats
    tolerance_adaptive: Floats | None = None

    @property
    def in_gt(self) -> Booleans:
        """Whether the ground truth has the object, by frame."""
        return self.counts.gt_pixels > 0

    @property
    def in_pred(self) -> Booleans:
        """Whether the prediction has the object, by frame."""
        return self.counts.pred_pixels > 0

    def without_prediction(self) -> ObjectRows:
        """The same object and a prediction without any object."""
        counts = self.counts.without_prediction()
        return replace(self, counts=counts, j=jaccard(counts), f=boundary_f(counts))


def _repeat_ends(rows: ObjectRows) -> ObjectRows:
    """The rows of an object with the first and the last frame twice."""
    last = len(rows.frames) - 1
    index = np.array([0, *range(last + 1), last])
    adaptive = rows.tolerance_adaptive
    return replace(
        rows,
        frames=("", *rows.frames, chr(0x10FFFF)),  # the first and the last by name too
        numbers=np.array([rows.numbers[0] - 1, *rows.numbers, rows.numbers[-1] + 1]),
        counts=rows.counts[index],
        j=rows.j[index],
        f=rows.f[index],
        tolerance=rows.tolerance[index],
        tolerance_adaptive=None if adaptive is None else adaptive[index],
    )


@dataclass(frozen=True)
class SequenceRows:
    """One sequence: its objects by id, including those that only the prediction has, and facts about it."""

    name: str
    objects: Mapping[int, ObjectRows]
    info: SequenceInfo

    @property
    def in_ground_truth(self) -> list[int]:
        """Ids of the objects that the ground truth has in any frame."""
        return [i for i, rows in self.objects.items() if rows.in_gt.any()]

    @property
    def listed(self) -> dict[int, ObjectRows]:
        """The objects that count: those of the meta file or, without one, of the ground truth; not IGNORE."""
        if self.info.ranges:
            listed = set(self.info.ranges)
        else:
            listed = {i for i in self.in_ground_truth if i != IGNORE or self.info.per_object}
        return {i: self.objects[i] for i in sorted(listed) if i in self.objects}

    def with_ends_twice(self) -> SequenceRows:
        """The same sequence with the first and the last frame twice: a protocol that skips one of each scores all."""
        return replace(self, objects={i: _repeat_ends(rows) for i, rows in self.objects.items()})

    def range(self, object_id: int) -> tuple[int, int] | None:
        """First and last frame number of an object from the meta file, both inclusive; None without one."""
        return (self.info.ranges or {}).get(object_id)


def split_by_object(sequence: SequenceCounts) -> SequenceRows:
    """The counts of a sequence by object."""
    ids, adaptive = sequence.object_ids, sequence.tolerance_adaptive
    starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
    objects = {}
    for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        part = slice(int(start), int(end))
        objects[int(ids[start])] = ObjectRows(
            int(ids[start]),
            tuple(sequence.frames[part]),
            sequence.frame_indices[part],
            sequence.counts[part],
            sequence.j[part],
            sequence.f[part],
            sequence.tolerance[part],
            None if adaptive is None else adaptive[part],
        )
    return SequenceRows(sequence.name, objects, sequence.info)


@dataclass(frozen=True)
class SequenceScore:
    """Scores of one object of a sequence under one protocol, in percent.

    Attributes:
        sequence: Name of the sequence.
        object_id: Id of the object.
        n_frames: Number of scored frames.
        j: Mean J.
        f: Mean F.
        own: Further columns of the protocol, such as `j_recall` or `unseen`.
    """

    sequence: str
    object_id: int
    n_frames: int
    j: float
    f: float
    own: Mapping[str, float | bool | None] = field(default_factory=dict)

    @property
    def j_and_f(self) -> float:
        """Mean of J and F."""
        return (self.j + self.f) / 2

    def columns(self) -> dict[str, Any]:
        """All columns by name, in the order of the score tables."""
        return {
            "sequence": self.sequence,
            "object_id": self.object_id,
            "n_frames": self.n_frames,
            "j_and_f": self.j_and_f,
            "j": self.j,
            "f": self.f,
            **self.own,
        }
