"""Protocols: from counts per frame and object to scores. The table of their choices is docs/reference/protocols.md.

All scores are in percent, as published. Names that end in `-official`, and `vos-benchmark`, repeat a peer with its
quirks; the others are the same definitions with the object list and the frames taken from the ground truth alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from vosarena.base.errors import ConfigError, DataError
from vosarena.metrics import counts as c
from vosarena.metrics.counts import Floats
from vosarena.metrics.meta import LVOS_UNSEEN
from vosarena.metrics.read import IGNORE, Metrics, SequenceRows, Source, read_metrics

Scores = dict[str, Any]
ScoreSequence = Callable[[SequenceRows], Iterator[Scores]]


@dataclass(frozen=True)
class Protocol:
    """One way to score. score: the objects of a sequence as fractions; split_mean: average seen and unseen parts.

    late_objects: whether objects that appear after the first frame are scored.
    """

    name: str
    title: str
    score: ScoreSequence
    split_mean: bool = False
    adaptive: bool = False
    repeats_peer: bool = False
    late_objects: bool = True


def score(source: Source, protocol: str, *, allow_incomplete: bool = False) -> pd.DataFrame:
    """Scores of every object: one row per (dataset, split, model, sequence, object_id), in percent.

    source: Parquet files of `measure`, or their rows. Columns: dataset, split, model, protocol, sequence, object_id,
    n_frames (scored), j_and_f, j, f, and what else the protocol defines: j_recall, j_decay, f_recall, f_decay
    (davis2017), v and unseen (lvos), unseen (youtube-vos), f_plain, j_and_f_plain, j_disappear, ... (mosev2;
    its f is F-dot).
    Raises DataError for incomplete files unless allowed, and ConfigError for unknown protocols.
    """
    found, every = find_protocol(protocol), read_metrics(source, allow_incomplete=allow_incomplete)
    return pd.concat([_score(metrics, found) for metrics in every], ignore_index=True)


def summarise(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per (dataset, split, model, protocol) of the rows of `score`: means over objects, in percent.

    Columns: n_sequences and n_objects that were scored, j_and_f, j, f, and the means of the protocol's own columns.
    With unseen objects j, f and v are the means of the two parts, which stand in j_seen, j_unseen and so on.
    """
    keys = ["dataset", "split", "model", "protocol"]
    rows = []
    for key, group in scores.groupby(keys, sort=True):
        protocol = find_protocol(str(key[3]))
        row: Scores = dict(zip(keys, key, strict=True))
        row |= {"n_sequences": group["sequence"].nunique(), "n_objects": len(group)}
        means = {name: _mean(group[name]) for name in group.columns if name in _MEANS and group[name].notna().any()}
        if protocol.split_mean:
            means = _split_means(group, means)
        j, f = means.pop("j"), means.pop("f")
        row |= {"j_and_f": (j + f) / 2, "j": j, "f": f}
        for kind in ("plain", "disappear", "reappear"):
            if f"f_{kind}" in means:
                means[f"j_and_f_{kind}"] = (means.get(f"j_{kind}", j) + means[f"f_{kind}"]) / 2
        rows.append(row | means)
    return pd.DataFrame(rows, columns=None if rows else [*keys, "n_sequences", "n_objects", "j_and_f", "j", "f"])


def find_protocol(name: str) -> Protocol:
    """The protocol of that name. Raises ConfigError with the known names."""
    if name not in PROTOCOLS:
        raise ConfigError(f"protocol {name} is unknown; expected one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


_MEANS = frozenset(
    ["j", "f", "j_recall", "j_decay", "f_recall", "f_decay", "v"]
    + [f"{metric}_{kind}" for metric in "jf" for kind in ("plain", "disappear", "reappear")]
)


def _score(metrics: Metrics, protocol: Protocol) -> pd.DataFrame:
    labels = {"dataset": metrics.dataset, "split": metrics.split, "model": metrics.model, "protocol": protocol.name}
    if protocol.adaptive and "tolerance_adaptive" not in metrics.rows.columns:
        raise DataError(
            f"{metrics.model}: protocol {protocol.name} needs counts with adaptive tolerance; measure again"
        )
    rows = []
    for sequence in metrics.sequences():
        for scores in protocol.score(sequence):
            percent = {key: value * 100 if key in _MEANS else value for key, value in scores.items()}
            percent["j_and_f"] = (percent["j"] + percent["f"]) / 2
            rows.append(labels | {"sequence": sequence.name} | percent)
    first = [*labels, "sequence", "object_id", "n_frames", "j_and_f", "j", "f"]
    table = pd.DataFrame(rows, columns=None if rows else first)
    return table[[*first, *(name for name in table.columns if name not in first)]]


def _mean(values: pd.Series) -> float:
    """Mean of the objects that have the value, added up as numpy does."""
    return float(np.mean(values.dropna().to_numpy(np.float64)))


def _split_means(group: pd.DataFrame, means: Scores) -> Scores:
    """Means of the seen and of the unseen part, and their average in place of the mean over all objects."""
    if group["unseen"].isna().all():
        return means
    unseen = group["unseen"].fillna(False).to_numpy(bool)
    result = dict(means)
    for name in means:
        parts = {"seen": group[name][~unseen], "unseen": group[name][unseen]}
        parts = {part: _mean(values) for part, values in parts.items() if values.notna().any()}
        result |= {f"{name}_{part}": value for part, value in parts.items()}
        result[name] = float(sum(parts.values()) / len(parts))
    return result


def _row(object_id: int, j: Floats, f: Floats, **more: Any) -> Scores:
    return {"object_id": object_id, "n_frames": len(j), "j": np.mean(j), "f": np.mean(f), **more}


def _decay(values: Floats, wrap: int | None = None) -> float:
    """Mean of the first quarter minus mean of the last (Perazzi et al., CVPR 2016; bins of davis2017-evaluation).

    wrap: 256 repeats davis2017-evaluation, whose bin edges are uint8: wrong for more than 256 scored frames.
    """
    edges = (np.round(np.linspace(1, len(values), 5) + 1e-10) - 1).astype(np.int64)
    if wrap:
        edges %= wrap
    first, last = values[edges[0] : edges[1] + 1], values[edges[3] : edges[4] + 1]
    return float(np.mean(first) - np.mean(last)) if len(first) and len(last) else float("nan")


def _davis(sequence: SequenceRows, official: bool = False) -> Iterator[Scores]:
    """DAVIS 2017, semi-supervised: ids 1..max of the first frame, on all frames but the first and the last.

    official: repeats davis2017-evaluation, for which an id below the maximum that no frame has is an object too, absent
    everywhere and rightly predicted so, and whose decay has wrong bins for more than 256 frames.
    """
    if not sequence.objects:
        return
    first = min(rows.numbers[0] for rows in sequence.objects.values())
    present = {i for i, rows in sequence.objects.items() if rows.numbers[0] == first and rows.in_gt[0]}
    if not sequence.per_object:
        every = range(1, max(present - {IGNORE}, default=0) + 1)
        present = set(every) if official else set(every) & set(sequence.in_ground_truth)
    some = next(iter(sequence.objects.values()))
    wrap = 256 if official else None
    for object_id in sorted(present):
        rows = sequence.objects.get(object_id)
        j, f = (rows.j[1:-1], rows.f[1:-1]) if rows else (np.ones(len(some.numbers[1:-1])),) * 2
        if len(j):
            yield _row(
                object_id,
                j,
                f,
                j_recall=np.mean(j > 0.5),
                j_decay=_decay(j, wrap),
                f_recall=np.mean(f > 0.5),
                f_decay=_decay(f, wrap),
            )


_davis_official = partial(_davis, official=True)


def _vos_benchmark(sequence: SequenceRows) -> Iterator[Scores]:
    """vos-benchmark and SA-V's evaluator: alphabetical order; from the first frame with the id on either side."""
    scored = {}
    for object_id, rows in sequence.objects.items():
        names = [f"{frame}.png" for frame in rows.frames]  # file names are what the peers sort
        scored[object_id] = np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)[1:-1]
    for object_id in _in_set_order(sequence, scored):
        rows, order = sequence.objects[object_id], scored[object_id]
        order = order[np.argmax(rows.in_gt[order] | rows.in_pred[order]) :]
        yield _row(object_id, rows.j[order], rows.f[order])


def _in_set_order(sequence: SequenceRows, scored: dict[int, Any]) -> list[int]:
    """Objects that the ground truth has in scored frames, in the order in which the peers add their scores up.

    They iterate a set of ints that grows by frames; the order decides the last bits of the mean.
    """
    present = {i: sequence.objects[i].in_gt[order] for i, order in scored.items()}
    if sequence.per_object:
        return [i for i in sorted(present) if present[i].any()]
    seen: set[int] = set()
    for index in range(max((len(values) for values in present.values()), default=0)):
        seen.update({i for i in sorted(present) if present[i][index]})
    return list(seen)


def _sa_v(sequence: SequenceRows) -> Iterator[Scores]:
    """SA-V with the frames of an object taken from the ground truth: from its first appearance on."""
    for object_id, rows in sequence.objects.items():
        if not rows.in_gt.any():
            continue
        start = max(1, int(np.argmax(rows.in_gt)))
        j, f = rows.j[start:-1], rows.f[start:-1]
        if len(j):
            yield _row(object_id, j, f)


def _lvos(sequence: SequenceRows, digits: int | None = None) -> Iterator[Scores]:
    """LVOS v1 and v2: every object on its own range, without the range's first and last frame; V: deviation of J&F.

    digits: 4 repeats lvos-evaluation, which rounds the variance before the root.
    """
    for object_id, rows in sequence.listed.items():
        bounds = sequence.range(object_id)
        if bounds is None:
            visible = rows.numbers[rows.in_gt]
            bounds = int(visible[0]), int(visible[-1])
        inside = np.flatnonzero((rows.numbers >= bounds[0]) & (rows.numbers <= bounds[1]))[1:-1]
        if not len(inside):
            continue
        j, f = rows.j[inside], rows.f[inside]
        both = (j + f) / 2
        variance = float(np.sum((np.mean(both) - both) ** 2) / len(both))
        v = np.sqrt(variance if digits is None else round(variance, digits))
        unseen = sequence.unseen(object_id)
        yield _row(object_id, j, f, v=v, unseen=sequence.name in LVOS_UNSEEN if unseen is None else unseen)


_lvos_official = partial(_lvos, digits=4)


def _youtube_vos(sequence: SequenceRows) -> Iterator[Scores]:
    """YouTube-VOS style: every object on the frames after its first appearance; seen and unseen apart."""
    for object_id, rows in sequence.listed.items():
        bounds = sequence.range(object_id)
        after = rows.numbers > (rows.numbers[np.argmax(rows.in_gt)] if bounds is None else bounds[0])
        if after.any():
            yield _row(object_id, rows.j[after], rows.f[after], unseen=sequence.unseen(object_id))


def _mosev2(sequence: SequenceRows) -> Iterator[Scores]:
    """MOSEv2: J with one pixel added to both sides, F-dot with adaptive tolerance, and both while away and back."""
    for object_id, rows in sequence.listed.items():
        counts = rows.counts[1:-1]
        if not len(counts):
            continue
        assert rows.adaptive is not None and rows.tolerance_adaptive is not None  # checked by _score
        adaptive = rows.adaptive[1:-1]
        union = counts[:, 1] + counts[:, 2] - counts[:, 0]
        j = (counts[:, 0] + 1) / (union + 1)
        f_dot = c.boundary_f(counts, adaptive)
        # Where the cap decides, the official script takes the disk of the cap, not rounded up, for plain F too.
        capped = rows.tolerance_adaptive[1:-1] > rows.tolerance[1:-1] - 1
        f_plain = np.where(capped, f_dot, rows.f[1:-1])
        more: Scores = {"f_plain": np.mean(f_plain), "j_and_f_plain": 50 * (np.mean(j) + np.mean(f_plain))}
        for kind, part in _away_and_back(~rows.in_gt[1:-1]).items():
            for name, values in (("j", j), ("f", f_dot)):
                more[f"{name}_{kind}"] = np.mean([values[run].mean() for run in part]) if part else np.nan
        yield _row(object_id, j, f_dot, **more)


def _away_and_back(absent: np.ndarray[Any, Any]) -> dict[str, list[slice]]:
    """Runs of frames in which the object is absent, and in which it is back; neither counts the first run."""
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
            *("davis2017-official", "davis2017-evaluation with its decay bins", _davis_official),
            repeats_peer=True,
            late_objects=False,
        ),
        Protocol("vos-benchmark", "vos-benchmark, as it is", _vos_benchmark, repeats_peer=True),
        Protocol("sa-v", "SA-V, objects and frames from the ground truth", _sa_v),
        Protocol("sa-v-official", "SA-V's evaluator, as it is", _vos_benchmark, repeats_peer=True),
        Protocol("lvos", "LVOS v1 and v2", _lvos, split_mean=True),
        Protocol(
            "lvos-official", "lvos-evaluation with its rounded V", _lvos_official, split_mean=True, repeats_peer=True
        ),
        Protocol("youtube-vos", "YouTube-VOS style, seen and unseen", _youtube_vos, split_mean=True),
        Protocol("mosev2", "MOSEv2", _mosev2, adaptive=True),
    )
}
