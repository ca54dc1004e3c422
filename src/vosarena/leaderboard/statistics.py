"""Confidence intervals and paired differences of models over the sequences of a split.

Intervals are computed with a cluster bootstrap: sequences are drawn with replacement, not objects or frames, because
objects of one sequence succeed and fail together. All models are scored on the same draws, so differences are paired.
Intervals are percentiles (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13 and 16).

p-values are computed with a paired permutation test. If two models were equally good, exchanging their scores on any
sequence would change nothing. p is the two-sided share of exchanges with a difference at least as large as the observed
one. Up to EXACT sequences all exchanges are tried, and above that DRAWS random ones (Phipson & Smyth, Permutation
P-values should never be zero, 2010).

Below MIN_SEQUENCES sequences there is neither an interval nor a p-value: with one sequence all draws are the same, and
with five sequences p cannot be below 2 / 2^5 = 0.06, whatever the scores are.

scipy.stats.permutation_test would be slower, because it draws again for every pair of models. Here all pairs share the
draws.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 5_000
SEED = 2408_10125
LEVEL = 0.95
MIN_SEQUENCES = 6  # for an interval and a p-value
EXACT = 12  # sequences up to which all exchanges are tried

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval at LEVEL. The interval is NaN below MIN_SEQUENCES sequences."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Interval):
    """A paired difference of two models. The p-value is NaN below MIN_SEQUENCES sequences."""

    p_value: float


class Bootstrap:
    """Draws of sequences, shared by all models of one split so that their scores are paired.

    A score is the mean over groups of the mean over the objects of a group.

    Args:
        groups: Number of objects of each sequence in each group, of shape (n_sequences, n_groups). The groups are the
            seen and unseen categories, or one group if the protocol does not distinguish them.
    """

    def __init__(self, groups: NDArray[np.int64]) -> None:
        rng = np.random.default_rng(SEED)
        sequences = len(groups)
        self._enough = sequences >= MIN_SEQUENCES
        self._draws = rng.multinomial(sequences, np.full(sequences, 1 / sequences), size=DRAWS).astype(np.float64)
        if sequences <= EXACT:
            self._exchanged = (np.arange(2**sequences)[:, None] >> np.arange(sequences) & 1).astype(bool)
        else:
            self._exchanged = rng.integers(0, 2, (DRAWS, sequences), dtype=bool)
        self._all = np.ones((1, sequences))
        self._groups = groups.astype(np.float64)

    def interval(self, sums: Scores) -> Interval:
        """Return the score of a model with its interval.

        Args:
            sums: Sums of the object scores of the model, of shape (n_sequences, n_groups).
        """
        value = float(self._mean(self._all, sums)[0])
        if not self._enough:
            return Interval(value, np.nan, np.nan)
        return Interval(value, *_percentiles(self._mean(self._draws, sums)))

    def difference(self, sums: Scores, other: Scores) -> Difference:
        """Return the difference of two models, `sums` minus `other`.

        Args:
            sums: Sums of the object scores of the first model, as in `interval`.
            other: Sums of the object scores of the second model.
        """
        value = float(self._mean(self._all, sums)[0] - self._mean(self._all, other)[0])
        if not self._enough:
            return Difference(value, np.nan, np.nan, np.nan)
        drawn = self._mean(self._draws, sums) - self._mean(self._draws, other)
        return Difference(value, *_percentiles(drawn), p_value=self._p_value(sums - other))

    def _p_value(self, differences: Scores) -> float:
        """Return the two-sided p-value of the paired permutation test.

        `differences` has the shape of `sums` in `interval`.
        """
        sizes = self._groups.sum(axis=0)
        parts = (differences[:, sizes > 0] / sizes[sizes > 0]).sum(axis=1)  # what each sequence adds to the score
        permuted = parts.sum() - 2 * self._exchanged @ parts
        reached = np.abs(permuted) >= abs(parts.sum()) - 1e-9 * np.abs(parts).sum()
        if len(self._exchanged) == DRAWS:
            return float((1 + reached.sum()) / (1 + DRAWS))
        return float(reached.mean())

    def _mean(self, weights: Scores, sums: Scores) -> Scores:
        counts = weights @ self._groups
        with np.errstate(invalid="ignore"):
            means: Scores = np.nanmean(np.where(counts > 0, weights @ sums, np.nan) / counts, axis=1)
        return means


def _percentiles(drawn: Scores) -> tuple[float, float]:
    low, high = np.nanpercentile(drawn, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)
