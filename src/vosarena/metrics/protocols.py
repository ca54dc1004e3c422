"""Protocols: from counts per frame and object to scores. Their definitions: docs/reference/protocols.md.

All scores are in percent, as published. Names that end in `-official`, `vos-benchmark` and `vost` reproduce another
evaluator exactly, bugs included. The others are the same definitions with the list of objects and the frames taken
from the ground truth alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from vosarena.base.errors import ConfigError
from vosarena.metrics.counts import Booleans, Floats, Integers, boundary_f, jaccard
from vosarena.metrics.meta import LVOS_UNSEEN
from vosarena.metrics.records import IGNORE, ObjectRows, SequenceRows, SequenceScore

ScoreSequence = Callable[[SequenceRows], Iterator[SequenceScore]]

MEANS = frozenset(  # columns that are averaged over objects
    ["j", "f", "j_recall", "j_decay", "f_recall", "f_decay", "v", "j_last", "j_last_recall", "j_last_decay"]
    + [f"{metric}_{kind}" for metric in "jf" for kind in ("plain", "disappear", "reappear", "visible", "absent")]
)


@dataclass(frozen=True)
class Protocol:
    """A definition of scores.

    Attributes:
        name: Name in configs and on the command line.
        title: Description in a few words.
        score: Scores the objects of a sequence.
        split_mean: Whether the mean is the average of the means over seen and over unseen objects.
        adaptive: Whether it needs counts with MOSEv2's tolerance.
        repeats_peer: Whether it reproduces another evaluator exactly.
        late_objects: Whether it scores objects that appear after the first frame.
        skips_ends: Whether it scores neither the first nor the last frame with ground truth.
        score_ends: Scores the objects of a sequence with both ends of their ranges, if the protocol skips those.
    """

    name: str
    title: str
    score: ScoreSequence
    split_mean: bool = False
    adaptive: bool = False
    repeats_peer: bool = False
    late_objects: bool = True
    skips_ends: bool = True
    score_ends: ScoreSequence | None = None


def find_protocol(name: str) -> Protocol:
    """The protocol with this name. Raises ConfigError, which lists the known names."""
    if name not in PROTOCOLS:
        raise ConfigError(f"protocol {name} is unknown; expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def _scored(
    sequence: SequenceRows, object_id: int, j: Floats, f: Floats, visible: Booleans, **own: float | bool | None
) -> SequenceScore:
    """Scores of one object in percent.

    Args:
        sequence: The sequence.
        object_id: Id of the object.
        j: J of each scored frame, 0 to 1.
        f: F of each scored frame, 0 to 1.
        visible: Whether the ground truth has the object, by scored frame.
        own: The protocol's own columns, 0 to 1.
    """
    percent = {name: value * 100 if name in MEANS and value is not None else value for name, value in own.items()}
    for kind, part in (("visible", visible), ("absent", ~visible)):
        for name, values in (("j", j), ("f", f)):
            percent[f"{name}_{kind}"] = float(np.mean(values[part])) * 100 if part.any() else np.nan
    return SequenceScore(sequence.name, object_id, len(j), float(np.mean(j)) * 100, float(np.mean(f)) * 100, percent)


def _decay(values: Floats, wrap: int | None = None) -> float:
    """Mean of the first quarter minus mean of the last (Perazzi et al., CVPR 2016; bins of davis2017-evaluation).

    With `wrap=256` the edges of the bins overflow as in davis2017-evaluation, where they are uint8: wrong for more
    than 256 scored frames.
    """
    edges = (np.round(np.linspace(1, len(values), 5) + 1e-10) - 1).astype(np.int64)
    if wrap:
        edges %= wrap
    first, last = values[edges[0] : edges[1] + 1], values[edges[3] : edges[4] + 1]
    return float(np.mean(first) - np.mean(last)) if len(first) and len(last) else float("nan")


def _davis(sequence: SequenceRows, official: bool = False) -> Iterator[SequenceScore]:
    """DAVIS 2017, semi-supervised: ids 1..max of the first frame, on all frames but the first and the last.

    With `official`, as in davis2017-evaluation, an id below the maximum that no frame has is an object too (absent
    everywhere, and correctly predicted), and the decay has wrong bins for more than 256 frames.
    """
    wrap = 256 if official else None
    for object_id, j, f, visible in _of_first_frame(sequence, phantoms=official):
        own = {
            "j_recall": float(np.mean(j > 0.5)),
            "j_decay": _decay(j, wrap),
            "f_recall": float(np.mean(f > 0.5)),
            "f_decay": _decay(f, wrap),
        }
        yield _scored(sequence, object_id, j, f, visible, **own)


_davis_official = partial(_davis, official=True)


def _of_first_frame(sequence: SequenceRows, phantoms: bool) -> Iterator[tuple[int, Floats, Floats, Booleans]]:
    """Id, J, F and visibility of objects 1..max of the first frame, without the first and the last frame.

    With `phantoms`, an id below the maximum that no frame has is an object too.
    """
    if not sequence.objects:
        return
    first = min(rows.numbers[0] for rows in sequence.objects.values())
    present = {i for i, rows in sequence.objects.items() if rows.numbers[0] == first and rows.in_gt[0]}
    if not sequence.info.per_object:
        every = range(1, max(present - {IGNORE}, default=0) + 1)
        present = set(every) if phantoms else set(every) & set(sequence.in_ground_truth)
    scored = slice(1, -1)
    n_frames = len(next(iter(sequence.objects.values())).numbers[scored])
    for object_id in sorted(present):
        if rows := sequence.objects.get(object_id):
            j, f, visible = rows.j[scored], rows.f[scored], rows.in_gt[scored]
        else:
            j, f, visible = np.ones(n_frames), np.ones(n_frames), np.zeros(n_frames, bool)
        if len(j):
            yield object_id, j, f, visible


def _vost(sequence: SequenceRows) -> Iterator[SequenceScore]:
    """VOST: J as DAVIS has it, and J of the last quarter of the frames, in which objects have changed most.

    Source: evaluation/source/evaluation.py of TRI-ML/VOST, which has the objects and the bins of the decay of
    davis2017-evaluation. VOST does not define F; here it is that of DAVIS.
    """
    for object_id, j, f, visible in _of_first_frame(sequence, phantoms=True):
        own: dict[str, float] = {}
        for name, values in (("j", j), ("j_last", j[len(j) * 3 // 4 :])):
            own |= {f"{name}_recall": float(np.mean(values > 0.5)), f"{name}_decay": _decay(values, 256)}
            if name == "j_last":
                own["j_last"] = float(np.mean(values))
        yield _scored(sequence, object_id, j, f, visible, **own)


def _vos_benchmark(sequence: SequenceRows) -> Iterator[SequenceScore]:
    """vos-benchmark and SA-V's evaluator: alphabetical order; from the first frame with the id in either mask."""
    scored = {}
    for object_id, rows in sequence.objects.items():
        names = [f"{frame}.png" for frame in rows.frames]  # both evaluators sort file names
        scored[object_id] = np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)[1:-1]
    for object_id in _in_set_order(sequence, scored):
        rows, order = sequence.objects[object_id], scored[object_id]
        order = order[np.argmax(rows.in_gt[order] | rows.in_pred[order]) :]
        yield _scored(sequence, object_id, rows.j[order], rows.f[order], rows.in_gt[order])


def _in_set_order(sequence: SequenceRows, scored: dict[int, Any]) -> list[int]:
    """Objects that the ground truth has in scored frames, in the order in which both evaluators sum their scores.

    They iterate over a set of integers that grows frame by frame; the order decides the last bits of the mean.
    """
    present = {i: sequence.objects[i].in_gt[order] for i, order in scored.items()}
    if sequence.info.per_object:
        return [i for i in sorted(present) if present[i].any()]
    seen: set[int] = set()
    for index in range(max((len(values) for values in present.values()), default=0)):
        seen.update({i for i in sorted(present) if present[i][index]})
    return list(seen)


def _sa_v(sequence: SequenceRows) -> Iterator[SequenceScore]:
    """SA-V with the frames of an object taken from the ground truth: from its first appearance on."""
    for object_id, rows in sequence.objects.items():
        if not rows.in_gt.any():
            continue
        start = max(1, int(np.argmax(rows.in_gt)))
        scored = slice(start, -1)
        if len(rows.j[scored]):
            yield _scored(sequence, object_id, rows.j[scored], rows.f[scored], rows.in_gt[scored])


def _lvos(sequence: SequenceRows, official: bool = False, ends: bool = False) -> Iterator[SequenceScore]:
    """LVOS v1 and v2: every object on its own range, without the range's first and last frame unless `ends`.

    V is the standard deviation of J&F. With `official`, as in lvos-evaluation, the mean is over the number of frames
    that the meta file states, with 0 for those that are not there, and the variance is rounded to four digits.
    """
    for object_id, rows in sequence.listed.items():
        inside, expected = in_range(sequence, rows, official, ends), sequence.info.range_frames.get(object_id)
        if not len(inside):
            continue
        j, f = rows.j[inside], rows.f[inside]
        unseen = sequence.info.is_unseen(object_id)
        unseen = sequence.name in LVOS_UNSEEN if unseen is None else unseen
        score = _scored(sequence, object_id, j, f, rows.in_gt[inside], unseen=unseen)
        if official and expected is not None:
            absent = np.zeros(expected - (0 if ends else 2) - len(inside))
            j, f = np.append(j, absent), np.append(f, absent)
            score = replace(score, n_frames=len(j), j=float(np.mean(j)) * 100, f=float(np.mean(f)) * 100)
        both = (j + f) / 2
        variance = float(np.sum((np.mean(both) - both) ** 2) / len(both))
        v = float(np.sqrt(round(variance, 4) if official else variance))
        yield replace(score, own={"v": v * 100, **score.own})


_lvos_official = partial(_lvos, official=True)


def in_range(sequence: SequenceRows, rows: ObjectRows, official: bool = False, ends: bool = False) -> Integers:
    """Indices of the frames of an object that LVOS scores: those of its range, with its `ends` or without.

    The range comes from the meta file or else goes from its first to its last visible frame.
    """
    bounds, expected = sequence.range(rows.object_id), sequence.info.range_frames.get(rows.object_id)
    if bounds is None:
        visible = rows.numbers[rows.in_gt]
        bounds = int(visible[0]), int(visible[-1])
    inside = np.flatnonzero((rows.numbers >= bounds[0]) & (rows.numbers <= bounds[1]))
    if ends:
        return inside[:expected] if official else inside
    # The script skips the frame of number `frame_nums`, which is not there if the range ends one frame earlier.
    if expected is None or (len(inside) > expected and not official):
        return inside[1:-1]
    return inside[1 : expected - 1]


def _youtube_vos(sequence: SequenceRows) -> Iterator[SequenceScore]:
    """YouTube-VOS style: every object on the frames after its first appearance; seen and unseen separately."""
    for object_id, rows in sequence.listed.items():
        after = after_first(sequence, rows)
        if after.any():
            unseen = sequence.info.is_unseen(object_id)
            yield _scored(sequence, object_id, rows.j[after], rows.f[after], rows.in_gt[after], unseen=unseen)


def after_first(sequence: SequenceRows, rows: ObjectRows) -> Booleans:
    """Whether each frame comes after the one in which the object appears, by the meta file or the ground truth."""
    bounds = sequence.range(rows.object_id)
    after: Booleans = rows.numbers > (rows.numbers[np.argmax(rows.in_gt)] if bounds is None else bounds[0])
    return after


def _volumetric(sequence: SequenceRows) -> Iterator[SequenceScore]:
    """J and F of the object's volume: the counts of all frames after its first appearance are summed before dividing.

    So a frame without the object gives no points for an empty prediction, and a prediction without objects scores 0.
    Objects that are in none of these frames are not scored.
    """
    for object_id, rows in sequence.listed.items():
        after = after_first(sequence, rows)
        if not rows.in_gt[after].any():
            continue
        volume = rows.counts[np.flatnonzero(after)].total()
        j = float(jaccard(volume)[0])
        # An object that fills all frames has no boundary; F would be 1 for an empty prediction.
        f = float(boundary_f(volume)[0]) if volume.gt_boundary[0] or volume.pred_boundary[0] else j
        by_frame = _scored(sequence, object_id, rows.j[after], rows.f[after], rows.in_gt[after])
        yield replace(by_frame, j=100 * j, f=100 * f)


def _mosev2(sequence: SequenceRows) -> Iterator[SequenceScore]:
    """MOSEv2: J with one pixel added to both sides, F-dot, and both over the runs of absence and of reappearance."""
    for object_id, rows in sequence.listed.items():
        if len(rows.frames) > 2:
            yield _mosev2_object(sequence, object_id, rows)


def _mosev2_object(sequence: SequenceRows, object_id: int, rows: ObjectRows) -> SequenceScore:
    assert rows.tolerance_adaptive is not None  # checked by score_metrics
    scored = slice(1, -1)
    counts = rows.counts[scored]
    j = (counts.intersection + 1) / (counts.union + 1)
    f_dot = boundary_f(counts, adaptive=True)
    # Where the cap decides, the official script uses the disk of the cap, not rounded up, for plain F too.
    capped = rows.tolerance_adaptive[scored] > rows.tolerance[scored] - 1
    f_plain = np.where(capped, f_dot, rows.f[scored])
    own = {"f_plain": float(np.mean(f_plain)), "j_and_f_plain": float(50 * (np.mean(j) + np.mean(f_plain)))}
    for kind, runs in _absent_and_back(~rows.in_gt[scored]).items():
        for name, values in (("j", j), ("f", f_dot)):
            own[f"{name}_{kind}"] = float(np.mean([values[run].mean() for run in runs])) if runs else np.nan
    return _scored(sequence, object_id, j, f_dot, rows.in_gt[scored], **own)


def _absent_and_back(absent: np.ndarray[Any, Any]) -> dict[str, list[slice]]:
    """Runs of frames in which the object is absent, and in which it is back; the first run of all is neither."""
    starts = np.flatnonzero(absent[1:] != absent[:-1]) + 1
    runs = [slice(int(start), int(end)) for start, end in pairwise([*starts, len(absent)])]
    return {
        "disappear": [run for run in runs if absent[run.start]],
        "reappear": [run for run in runs if not absent[run.start]],
    }


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("davis2017", "DAVIS 2017, semi-supervised", _davis, late_objects=False),
        Protocol(
            "davis2017-official",
            "davis2017-evaluation with its decay bins",
            _davis_official,
            repeats_peer=True,
            late_objects=False,
        ),
        Protocol("vos-benchmark", "vos-benchmark, as it is", _vos_benchmark, repeats_peer=True),
        Protocol("sa-v", "SA-V, objects and frames from the ground truth", _sa_v),
        Protocol("sa-v-official", "SA-V's evaluator, as it is", _vos_benchmark, repeats_peer=True),
        Protocol(
            "lvos",
            "LVOS v1 and v2",
            _lvos,
            split_mean=True,
            skips_ends=False,
            score_ends=partial(_lvos, ends=True),
        ),
        Protocol(
            "lvos-official",
            "lvos-evaluation with its rounded V",
            _lvos_official,
            split_mean=True,
            repeats_peer=True,
            skips_ends=False,
            score_ends=partial(_lvos, official=True, ends=True),
        ),
        Protocol("youtube-vos", "YouTube-VOS style, seen and unseen", _youtube_vos, split_mean=True, skips_ends=False),
        Protocol("mosev2", "MOSEv2", _mosev2, adaptive=True),
        Protocol("vost", "VOST's evaluator, as it is", _vost, repeats_peer=True, late_objects=False),
        Protocol("volumetric", "sums over all frames; an empty prediction scores 0", _volumetric, skips_ends=False),
    )
}
