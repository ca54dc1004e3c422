"""Match predicted objects to those of the ground truth, as the unsupervised tasks of DAVIS and LVOS do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vosarena.base.errors import ConfigError
from vosarena.io.masks import LabelMap
from vosarena.metrics.counts import Counts, FrameCounter, boundary_f, jaccard

_LABELS = 256


class ObjectMatcher:
    """Collects J and F of every pair of a true and a predicted object, frame by frame.

    Source: `_evaluate_unsupervised` of davis2017-evaluation (Caelles et al., The 2019 DAVIS Challenge on VOS).

    Args:
        counter: Counter of frames.
    """

    def __init__(self, counter: FrameCounter) -> None:
        self._counter = counter
        self._sums = np.zeros((_LABELS, _LABELS))  # of J + F, by prediction and object
        self._frames = 0
        self._highest = 0

    def add(self, gt_rows: LabelMap, pred_rows: LabelMap) -> None:
        """Add a frame; uint8 (H, 1 + W) as from `vosarena.io.masks.decode_rows`. The first column is ignored."""
        truth = np.bincount(gt_rows[:, 1:].ravel(), minlength=_LABELS) > 0
        predicted = np.bincount(pred_rows[:, 1:].ravel(), minlength=_LABELS) > 0
        self._sums[np.ix_(~predicted, ~truth)] += 2  # both absent: J and F are 1
        for label in np.flatnonzero(predicted[1:]) + 1:
            mask = (pred_rows == label).astype(np.uint8)
            for number in np.flatnonzero(truth[1:]) + 1:
                _, table = self._counter.count((gt_rows == number).astype(np.uint8), mask)
                counts = Counts.from_table(table)
                self._sums[label, number] += jaccard(counts)[0] + boundary_f(counts)[0]
        self._frames += 1
        self._highest = max(self._highest, int(np.flatnonzero(predicted)[-1]))

    def labels(self, objects: Sequence[int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The object that each predicted label becomes, uint8 (256,); 0 for those that are matched to none.

        The sum of the J&F of the pairs is as large as possible. Where there are fewer predictions than objects, empty
        predictions are added, as in the official script.

        Args:
            objects: Ids of the objects.

        Raises:
            ConfigError: SciPy is not installed.
        """
        try:
            from scipy.optimize import linear_sum_assignment
        except ImportError:
            raise ConfigError("matching objects needs SciPy; pip install scipy") from None
        found = np.zeros(_LABELS, np.uint8)
        count = max(self._highest, len(objects))
        # Labels above the highest predicted one are empty predictions.
        rows, columns = linear_sum_assignment(-self._sums[1 : count + 1][:, list(objects)])
        found[rows + 1] = np.asarray(objects, np.uint8)[columns]
        return found
