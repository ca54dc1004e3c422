"""Compare all models on one split under one protocol: intervals, attributes and paired differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations

import numpy as np
import pandas as pd

from vosarena.leaderboard.statistics import Bootstrap, Difference, Interval, Scores
from vosarena.metrics.protocols import find_protocol

ALL = "all"  # the attribute of every sequence

Names = tuple[str, ...]


class Reference(StrEnum):
    """Why a model is compared with another one by attribute."""

    ORIGIN = "origin"  # it was fine-tuned from the other one
    BEST = "best"  # the other one has the highest J&F


@dataclass(frozen=True)
class AttributeScore:
    """J&F of a model on the sequences with an attribute. The fields are columns in attributes.csv.

    The differences are J&F of the model minus J&F of the model `compared_with`, on the sequences with the attribute and
    on the `rest`, the sequences without it.
    """

    attribute: str
    model: str
    n_sequences: int
    j_and_f: float
    ci_low: float
    ci_high: float
    compared_with: str = ""
    compared_as: str = ""
    difference: float = np.nan
    difference_low: float = np.nan
    difference_high: float = np.nan
    rest: float = np.nan
    rest_low: float = np.nan
    rest_high: float = np.nan


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

    def attributes(self, others: Mapping[str, tuple[str, Reference]]) -> list[AttributeScore]:
        """Return J&F of every model on the sequences with each attribute, and on all sequences.

        Args:
            others: By model, the one that it is compared with, and why.
        """
        scores = []
        for subset in self._subsets:
            for model in self._sums:
                if names := self._names(subset, model):
                    found = self._bootstrap(names, model).interval(self._values(names, model))
                    score = AttributeScore(subset, model, len(names), found.value, found.low, found.high)
                    if model in others:
                        score = self._compared(score, *others[model])
                    scores.append(score)
        return scores

    def _compared(self, score: AttributeScore, other: str, reference: Reference) -> AttributeScore:
        """Return a score with the differences to another model."""
        common = self._names(score.attribute, score.model, other)
        rest = tuple(name for name in self._names(ALL, score.model, other) if name not in common)
        near, far = self._difference(common, score.model, other), self._difference(rest, score.model, other)
        return replace(
            score,
            compared_with=other,
            compared_as=reference.value,
            difference=near.value,
            difference_low=near.low,
            difference_high=near.high,
            rest=far.value,
            rest_low=far.low,
            rest_high=far.high,
        )

    def differences(self) -> list[PairDifference]:
        """Return the difference of every pair of models on the sequences with each attribute, and on all sequences."""
        differences = []
        for subset in self._subsets:
            for first, second in combinations(self._sums, 2):
                if names := self._names(subset, first, second):
                    found = self._difference(names, first, second)
                    scores = (found.value, found.low, found.high, found.p_value)
                    differences.append(PairDifference(subset, first, second, len(names), *scores))
        return differences

    def _difference(self, names: Names, model: str, other: str) -> Difference:
        if not names:
            return Difference(np.nan, np.nan, np.nan, np.nan)
        return self._bootstrap(names, model).difference(self._values(names, model), self._values(names, other))

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
