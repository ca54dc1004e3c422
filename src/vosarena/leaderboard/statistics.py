"""Confidence intervals and paired differences of models over the sequences of a split.

Intervals: cluster bootstrap. Sequences, not objects or frames, are drawn with replacement (objects of one video succeed
and fail together); every model is scored on the same draws, so differences are paired; percentiles (Efron & Tibshirani,
An Introduction to the Bootstrap, 1993, ch. 13 and 16). p: the paired permutation test. If two models were alike, each
sequence could as well have had their scores exchanged; p is the two-sided share of the exchanges with a difference as
large as the one found. Up to EXACT sequences all are tried, above that DRAWS random ones (Phipson & Smyth, Permutation
P-values should never be zero, 2010).

Below FEWEST sequences there is neither interval nor p: draws of so few tell nothing (of one sequence all are the same),
and p cannot fall below 2 / 2^5 = 0.06 with five sequences, whatever the scores.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 5_000
SEED = 2408_10125
LEVEL = 0.95
FEWEST = 6  # sequences that an interval and a p-value need
EXACT = 12  # up to so many sequences, all exchanges of two models' scores are tried

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval at LEVEL; NaN below FEWEST sequences."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Interval):
    """A paired difference of two models; p_value is NaN below FEWEST sequences."""

    p_value: float


class Bootstrap:
    """Draws of sequences, shared by all models of one split so that their scores are paired.

    groups: (n_sequences, n_groups) number of objects of each sequence in each group (seen and unseen categories;
    one group where a protocol has none). A score is the mean over groups of the mean over a group's objects.
    """

    def __init__(self, groups: NDArray[np.int64]) -> None:
        rng = np.random.default_rng(SEED)
        sequences = len(groups)
        self._enough = sequences >= FEWEST
        self._draws = rng.multinomial(sequences, np.full(sequences, 1 / sequences), size=DRAWS).astype(np.float64)
        if sequences <= EXACT:
            self._exchanged = (np.arange(2**sequences)[:, None] >> np.arange(sequences) & 1).astype(bool)
        else:
            self._exchanged = rng.integers(0, 2, (DRAWS, sequences), dtype=bool)
        self._all = np.ones((1, sequences))
        self._groups = groups.astype(np.float64)

    def interval(self, sums: Scores) -> Interval:
        """sums: (n_sequences, n_groups) sum of a model's object scores."""
        value = float(self._mean(self._all, sums)[0])
        if not self._enough:
            return Interval(value, np.nan, np.nan)
        return Interval(value, *_percentiles(self._mean(self._draws, sums)))

    def difference(self, sums: Scores, other: Scores) -> Difference:
        """`sums` minus `other`, both as in interval()."""
        value = float(self._mean(self._all, sums)[0] - self._mean(self._all, other)[0])
        if not self._enough:
            return Difference(value, np.nan, np.nan, np.nan)
        drawn = self._mean(self._draws, sums) - self._mean(self._draws, other)
        return Difference(value, *_percentiles(drawn), p_value=self._p_value(sums - other))

    def _p_value(self, differences: Scores) -> float:
        """Two-sided p of the paired permutation test; differences as `sums` in interval()."""
        sizes = self._groups.sum(axis=0)
        parts = (differences[:, sizes > 0] / sizes[sizes > 0]).sum(axis=1)  # what each sequence adds to the score
        found = parts.sum() - 2 * self._exchanged @ parts
        reached = np.abs(found) >= abs(parts.sum()) - 1e-9 * np.abs(parts).sum()
        if len(self._exchanged) == DRAWS:
            return float((1 + reached.sum()) / (1 + DRAWS))
        return float(reached.mean())

    def _mean(self, weights: Scores, sums: Scores) -> Scores:
        counts = weights @ self._groups
        with np.errstate(invalid="ignore"):
            return np.nanmean(np.where(counts > 0, weights @ sums, np.nan) / counts, axis=1)


def _percentiles(drawn: Scores) -> tuple[float, float]:
    low, high = np.nanpercentile(drawn, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)
