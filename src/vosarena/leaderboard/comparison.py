"""Compare all models on one split under one protocol: intervals, attributes and paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from vosarena.leaderboard.statistics import Bootstrap, Interval, Scores
from vosarena.metrics.protocols import find_protocol

ALL = "all"  # the attribute of every sequence

Names = tuple[str, ...]


@dataclass(frozen=True)
class AttributeScore:
    """J&F of a model on the sequences with an attribute. The fields are columns in attributes.csv."""

    attribute: str
    model: str
    n_sequences: int
    j_and_f: float
    ci_low: float
    ci_high: float


@dataclass(frozen=True)
class PairDifference:
    """J&F of a model minus J&F of another on the sequences that both have.

    The fields are columns in comparisons.csv.
    """

    attribute: str
    model: str
    other: str
    n_sequences: int
    difference: float
    ci_low: float
    ci_high: float
    p_value: float


class Comparison:
    """A comparison of models on the same split.

    A model is scored on the sequences that it has, and two models are compared on the sequences that both have.

    Args:
        scored: Scores of the objects, by model (see scores.score).
        attributes: Attributes by sequence.
    """

    def __init__(self, scored: Mapping[str, pd.DataFrame], attributes: Mapping[str, Sequence[str]]) -> None:
        self._sums, self._sizes = {}, {}
        for model, objects in scored.items():
            self._sums[model], self._sizes[model] = _by_sequence(objects)
        names = sorted({name for sums in self._sums.values() for name in sums.index})
        self._subsets: dict[str, set[str]] = {ALL: set(names)}
        for attribute in sorted({item for name in names for item in attributes.get(name, ())}):
            self._subsets[attribute] = {name for name in names if attribute in attributes[name]}
        self._bootstraps: dict[Names, Bootstrap] = {}

    def interval(self, model: str) -> Interval:
        """Return J&F of a model with its interval, which is NaN on fewer than MIN_SEQUENCES sequences."""
        names = self._names(ALL, model)
        if not names:
            return Interval(np.nan, np.nan, np.nan)
        return self._bootstrap(names, model).interval(self._values(names, model))

    def attributes(self) -> list[AttributeScore]:
        """Return J&F of every model on the sequences with each attribute, and on all sequences."""
        scores = []
        for subset in self._subsets:
            for model in self._sums:
                if names := self._names(subset, model):
                    found = self._bootstrap(names, model).interval(self._values(names, model))
                    scores.append(AttributeScore(subset, model, len(names), found.value, found.low, found.high))
        return scores

    def differences(self) -> list[PairDifference]:
        """Return the difference of every pair of models on the sequences with each attribute, and on all sequences."""
        differences = []
        for subset in self._subsets:
            for first, second in combinations(self._sums, 2):
                if names := self._names(subset, first, second):
                    bootstrap = self._bootstrap(names, first)
                    found = bootstrap.difference(self._values(names, first), self._values(names, second))
                    scores = (found.value, found.low, found.high, found.p_value)
                    differences.append(PairDifference(subset, first, second, len(names), *scores))
        return differences

    def _names(self, subset: str, *models: str) -> Names:
        common = self._subsets[subset].intersection(*(self._sums[model].index for model in models))
        return tuple(sorted(common))

    def _values(self, names: Names, model: str) -> Scores:
        values: Scores = self._sums[model].loc[list(names)].to_numpy(float)
        return values

    def _bootstrap(self, names: Names, model: str) -> Bootstrap:
        """Return the draws for these sequences, which all models share because the ground truth gives the objects."""
        if names not in self._bootstraps:
            self._bootstraps[names] = Bootstrap(self._sizes[model].loc[list(names)].to_numpy(int))
        return self._bootstraps[names]


def _by_sequence(objects: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the sum of J&F and the number of objects by sequence.

    The columns are the seen and unseen categories if the protocol has them.
    """
    if objects.empty:
        empty = pd.DataFrame(columns=[False], index=pd.Index([], name="sequence"), dtype=float)
        return empty, empty.astype(int)
    split_mean = find_protocol(str(objects["protocol"].iloc[0])).split_mean and "unseen" in objects
    groups = objects["unseen"].eq(True) if split_mean else pd.Series(False, index=objects.index)
    tables = objects.groupby(["sequence", groups.rename("group")], observed=True)["j_and_f"].agg(["sum", "size"])
    columns = [False, True] if split_mean else [False]
    sums = tables["sum"].unstack("group").reindex(columns=columns).fillna(0.0)
    sizes = tables["size"].unstack("group").reindex(columns=columns).fillna(0).astype(int)
    return sums, sizes
