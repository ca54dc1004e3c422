"""What protocols choose differently, and how many points each choice makes on the same masks.

A protocol is described by five choices: which objects, which frames of them, whether 255 is an object, how J and F are
measured, and how they are averaged. Exchanging one choice at a time leads from one protocol to another, so the points
of the steps add up to the difference of the two scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np

from vosarena.metrics.counts import boundary_f, jaccard
from vosarena.metrics.meta import LVOS_UNSEEN
from vosarena.metrics.protocols import after_first, in_range
from vosarena.metrics.read import Metrics
from vosarena.metrics.records import IGNORE, ObjectRows, SequenceRows


@dataclass(frozen=True)
class Choices:
    """What a protocol chooses. The values are the words that `vosarena explain` shows.

    Attributes:
        objects: Which objects are scored.
        label_255: Whether label 255 is an object.
        frames: Which frames of an object are scored.
        measure: How J and F of an object follow from its frames.
        mean: How objects are averaged.
    """

    objects: Literal["of the first frame", "up to the highest id", "of scored frames", "of all frames", "meta file"]
    label_255: bool
    frames: Literal["all but first and last", "from appearance", "from either mask", "own range", "after appearance"]
    measure: Literal["DAVIS", "MOSEv2", "volume"]
    mean: Literal["objects", "seen and unseen", "seen and unseen of LVOS"]


_DAVIS = Choices("of the first frame", False, "all but first and last", "DAVIS", "objects")
_LVOS = Choices("meta file", False, "own range", "DAVIS", "seen and unseen of LVOS")
_PEER = Choices("of scored frames", True, "from either mask", "DAVIS", "objects")
#: The choices of each protocol. Those of VOST are about its J, and F of DAVIS next to it.
CHOICES = {
    "davis2017": _DAVIS,
    "davis2017-official": replace(_DAVIS, objects="up to the highest id"),
    "vos-benchmark": _PEER,
    "sa-v": Choices("of all frames", True, "from appearance", "DAVIS", "objects"),
    "sa-v-official": _PEER,
    "lvos": _LVOS,
    "lvos-official": _LVOS,
    "youtube-vos": replace(_LVOS, frames="after appearance", mean="seen and unseen"),
    "mosev2": Choices("meta file", False, "all but first and last", "MOSEv2", "objects"),
    "vost": replace(_DAVIS, objects="up to the highest id"),
    "volumetric": Choices("meta file", False, "after appearance", "volume", "objects"),
}
_NAMES = {"label_255": "label 255", "frames": "frames", "objects": "objects", "measure": "J and F", "mean": "mean"}


@dataclass(frozen=True)
class Step:
    """One choice that is exchanged on the way from one protocol to another.

    Attributes:
        choice: Which choice.
        before: What the first protocol chooses.
        after: What the other protocol chooses.
        points: By how much J&F grows; NaN if a score on the way is not defined.
    """

    choice: str
    before: str
    after: str
    points: float


def steps(metrics: Metrics, protocol: str, other: str) -> list[Step]:
    """The choices in which two protocols differ, with the points that each of them makes.

    Args:
        metrics: Counts of one model.
        protocol: Name of the protocol from which the steps start.
        other: Name of the protocol to which they lead.
    """
    here, there = CHOICES[protocol], CHOICES[other]
    found, score = [], choice_score(metrics, here)
    for name in (field.name for field in fields(Choices)):
        before, after = getattr(here, name), getattr(there, name)
        if before == after:
            continue
        here = replace(here, **{name: after})
        found.append(Step(_NAMES[name], _words(before), _words(after), choice_score(metrics, here) - score))
        score = choice_score(metrics, here)
    return found


def _words(value: str | bool) -> str:
    return {True: "an object", False: "ignored"}[value] if isinstance(value, bool) else value


def choice_score(metrics: Metrics, choices: Choices) -> float:
    """J&F in percent under these choices; NaN if nothing is scored, or MOSEv2's counts are missing."""
    if choices.measure == "MOSEv2" and not metrics.adaptive:
        return float("nan")
    scored = [item for sequence in metrics.sequences for item in _objects(sequence, choices)]
    groups = [[(j, f) for j, f, unseen in scored if unseen is part] for part in (False, True)]
    means = [np.mean(group, axis=0).mean() for group in groups if group]
    return float(100 * np.mean(means)) if means else float("nan")


def _objects(sequence: SequenceRows, choices: Choices) -> Iterator[tuple[float, float, bool]]:
    """J and F, 0 to 1, of each object, and whether it is unseen."""
    for object_id, rows in _chosen(sequence, choices).items():
        unseen = sequence.info.is_unseen(object_id)
        if unseen is None:
            unseen = choices.mean == "seen and unseen of LVOS" and sequence.name in LVOS_UNSEEN
        unseen = unseen and choices.mean != "objects"
        if rows is None:
            yield 1.0, 1.0, unseen
        elif scores := _measured(sequence, rows, choices):
            yield *scores, unseen


def _chosen(sequence: SequenceRows, choices: Choices) -> dict[int, ObjectRows | None]:
    """The objects that count; None for one that no mask has."""
    objects, per_object = sequence.objects, sequence.info.per_object
    visible = set(sequence.in_ground_truth)
    if choices.objects == "of scored frames":
        ids = {i for i in visible if objects[i].in_gt[1:-1].any()}
    elif choices.objects == "of all frames":
        ids = visible
    elif choices.objects == "meta file":
        ids = set(sequence.listed) | {i for i in visible if i == IGNORE}
    else:
        first = min((rows.numbers[0] for rows in objects.values()), default=0)
        ids = {i for i in visible if objects[i].numbers[0] == first and objects[i].in_gt[0]}
        highest = max(ids - {IGNORE}, default=0)
        if not per_object and choices.objects == "up to the highest id":
            ids |= set(range(1, highest + 1))
        elif not per_object:  # an object below the highest id may begin late
            ids |= {i for i in visible if i <= highest}
    if not per_object and not choices.label_255:
        ids -= {IGNORE}
    return {i: objects.get(i) for i in sorted(ids)}


def _measured(sequence: SequenceRows, rows: ObjectRows, choices: Choices) -> tuple[float, float] | None:
    """J and F of an object over its scored frames; None if there are none."""
    index = _frames(sequence, rows, choices)
    if not len(index) or (choices.measure == "volume" and not rows.in_gt[index].any()):
        return None
    counts = rows.counts[index]
    if choices.measure == "volume":
        total = counts.total()
        j = float(jaccard(total)[0])
        return j, float(boundary_f(total)[0]) if total.gt_boundary[0] or total.pred_boundary[0] else j
    if choices.measure == "MOSEv2":
        j_values = (counts.intersection + 1) / (counts.union + 1)
        return float(np.mean(j_values)), float(np.mean(boundary_f(counts, adaptive=True)))
    return float(np.mean(rows.j[index])), float(np.mean(rows.f[index]))


def _frames(sequence: SequenceRows, rows: ObjectRows, choices: Choices) -> np.ndarray:
    """Indices of the scored frames of an object."""
    inner = np.arange(len(rows.frames))[1:-1]
    if choices.frames == "after appearance":
        return np.flatnonzero(after_first(sequence, rows))
    if choices.frames == "own range":
        return in_range(sequence, rows)
    if choices.frames == "from appearance":
        return inner[inner >= np.argmax(rows.in_gt)]
    if choices.frames == "from either mask":
        seen = rows.in_gt | rows.in_pred
        return inner[np.argmax(seen[inner]) :] if len(inner) else inner
    return inner
