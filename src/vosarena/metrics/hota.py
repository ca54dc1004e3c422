"""HOTA for masks: how well objects are found and kept apart, whatever ids a prediction gives them.

Source: Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking" (IJCV 2021). Results equal
those of TrackEval (JonathonLuiten/TrackEval, metrics/hota.py with datasets/davis.py) to the last digit, so sums are
made in its order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vosarena.base.errors import ConfigError
from vosarena.io.runs import Runs
from vosarena.metrics.counts import IGNORE, Floats, Integers

#: Names of the scores, and their names in the paper.
TITLES = {
    "hota": "HOTA",
    **{f"{part.lower()}_{end.lower()}": f"{part}{end}" for part in ("Det", "Ass") for end in ("A", "Re", "Pr")},
    "loc_a": "LocA",
}
_ALPHAS = np.arange(0.05, 0.99, 0.05)  # least IoU of a match
_EPSILON = np.finfo(np.float64).eps
_LABELS = 256


@dataclass(frozen=True)
class Hota:
    """What HOTA of a sequence follows from, by least IoU of a match: 0.05, 0.1, ..., 0.95; float64 (19,).

    Attributes:
        tp: Number of matches of a true and a predicted mask.
        fn: Number of true masks without a match.
        fp: Number of predicted masks without a match.
        ass_a: Mean over the matches of the IoU of their objects' matches in time.
        ass_re: Mean over the matches of the share of the true object's masks that the predicted object matches.
        ass_pr: The same of the predicted object's masks.
        loc_a: Mean IoU of the matches; 1 without a mask on one side.
    """

    tp: Floats = field(default_factory=lambda: np.zeros(len(_ALPHAS)))
    fn: Floats = field(default_factory=lambda: np.zeros(len(_ALPHAS)))
    fp: Floats = field(default_factory=lambda: np.zeros(len(_ALPHAS)))
    ass_a: Floats = field(default_factory=lambda: np.zeros(len(_ALPHAS)))
    ass_re: Floats = field(default_factory=lambda: np.zeros(len(_ALPHAS)))
    ass_pr: Floats = field(default_factory=lambda: np.zeros(len(_ALPHAS)))
    loc_a: Floats = field(default_factory=lambda: np.ones(len(_ALPHAS)))


class HotaCounter:
    """Collects the overlaps of all true with all predicted masks of a sequence, frame by frame."""

    def __init__(self) -> None:
        self._frames: list[tuple[Integers, Integers, Floats]] = []  # labels of both sides, and IoU of their masks

    def add(self, gt: Runs, pred: Runs) -> None:
        """Add a frame. Label 255 of the ground truth is no object."""
        common = overlaps(gt, pred)
        gt_pixels, pred_pixels = common.sum(axis=1), common.sum(axis=0)
        gt_pixels[[0, IGNORE]] = pred_pixels[0] = 0
        true, predicted = np.flatnonzero(gt_pixels), np.flatnonzero(pred_pixels)
        both = common[np.ix_(true, predicted)]
        union = gt_pixels[true][:, None] + pred_pixels[predicted] - both
        self._frames.append((true, predicted, both / union))

    def score(self) -> Hota:
        """Match the masks of each frame, preferring objects that overlap in many frames."""
        try:
            from scipy.optimize import linear_sum_assignment
        except ImportError:
            raise ConfigError("HOTA needs SciPy; pip install scipy") from None
        every = [np.concatenate([frame[side] for frame in self._frames]) for side in (0, 1)]
        if not all(len(labels) for labels in every):
            fn, fp = (np.full(len(_ALPHAS), float(len(labels))) for labels in every)
            return Hota(fn=fn, fp=fp)
        true, predicted = (np.unique(labels) for labels in every)
        n_true = np.bincount(every[0], minlength=_LABELS)[true][:, None].astype(np.float64)
        n_predicted = np.bincount(every[1], minlength=_LABELS)[predicted][None].astype(np.float64)
        frames = [
            (np.searchsorted(true, rows), np.searchsorted(predicted, columns), iou)
            for rows, columns, iou in self._frames
        ]
        shared = np.zeros((len(true), len(predicted)))
        for rows, columns, iou in frames:
            whole = iou.sum(0)[None] + iou.sum(1)[:, None] - iou
            shared[np.ix_(rows, columns)] += np.divide(iou, whole, out=np.zeros_like(iou), where=whole > _EPSILON)
        alike = shared / (n_true + n_predicted - shared)
        tp, located = np.zeros(len(_ALPHAS)), np.zeros(len(_ALPHAS))
        matches = np.zeros((len(_ALPHAS), len(true), len(predicted)))
        for rows, columns, iou in frames:
            first, second = linear_sum_assignment(-alike[np.ix_(rows, columns)] * iou)
            matched = iou[first, second] >= _ALPHAS[:, None] - _EPSILON  # (alphas, pairs)
            tp += matched.sum(axis=1)
            located += sum((iou[first, second] * matched).T, start=np.zeros(len(_ALPHAS)))
            matches[:, rows[first], columns[second]] += matched
        return Hota(
            tp=tp,
            fn=len(every[0]) - tp,
            fp=len(every[1]) - tp,
            ass_a=_weighted(matches, n_true + n_predicted - matches, tp),
            ass_re=_weighted(matches, n_true, tp),
            ass_pr=_weighted(matches, n_predicted, tp),
            loc_a=np.maximum(1e-10, located) / np.maximum(1e-10, tp),
        )


def overlaps(gt: Runs, pred: Runs) -> Integers:
    """Pixels that have a label in one map and a label in the other, int64 (256, 256). Label 0 has a few too many."""
    edges = np.union1d(gt.starts, pred.starts)
    both = np.zeros(len(edges) - 1, np.int64)
    for runs in (gt, pred):
        both = both * _LABELS + runs.labels[np.searchsorted(runs.starts, edges[:-1], side="right") - 1]
    counts = np.bincount(both, weights=np.diff(edges), minlength=_LABELS**2)  # exact: far below 2^53
    return counts.astype(np.int64).reshape(_LABELS, _LABELS)


def _weighted(matches: Floats, whole: Floats, tp: Floats) -> Floats:
    """Mean over the matches of the share that their objects' matches are of `whole`."""
    products = matches * (matches / np.maximum(1, whole))
    return np.array([np.sum(product) for product in products]) / np.maximum(1, tp)


def summarise_hota(sequences: Sequence[Hota]) -> dict[str, float]:
    """HOTA of all sequences in percent, each number averaged over the least IoUs of a match.

    Returns:
        hota; det_a, det_re, det_pr (detection: IoU, recall and precision of the sets of masks); ass_a, ass_re, ass_pr
        (the same of the objects over time); loc_a (mean IoU of the matches).
    """
    tp, fn, fp = (
        sum((getattr(item, name) for item in sequences), np.zeros(len(_ALPHAS))) for name in ("tp", "fn", "fp")
    )

    def mean(name: str, least: float) -> Floats:
        total: Any = sum(getattr(item, name) * item.tp for item in sequences)
        found: Floats = np.maximum(total, 1e-10 if least < 1 else 0) / np.maximum(least, tp)
        return found

    det_a = tp / np.maximum(1, tp + fn + fp)
    ass_a = mean("ass_a", 1)
    found = {
        "hota": np.sqrt(det_a * ass_a),
        "det_a": det_a,
        "det_re": tp / np.maximum(1, tp + fn),
        "det_pr": tp / np.maximum(1, tp + fp),
        "ass_a": ass_a,
        "ass_re": mean("ass_re", 1),
        "ass_pr": mean("ass_pr", 1),
        "loc_a": mean("loc_a", 1e-10),
    }
    return {name: float(100 * np.mean(values)) for name, values in found.items()}
