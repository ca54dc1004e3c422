"""All models of one split under one protocol: intervals, attributes and paired differences."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from vosarena.leaderboard.statistics import Bootstrap
from vosarena.metrics.protocols import find_protocol

ALL = "all"  # the attribute of every sequence

Names = tuple[str, ...]


class Comparison:
    """Models on the same split. A model is scored on its own sequences, two models on those that both have.

    scored: objects of each model (see protocols.score). attributes: of every sequence.
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

    def interval(self, model: str) -> dict[str, float]:
        """ci_low and ci_high of a model's J&F; NaN on fewer than FEWEST sequences."""
        names = self._names(ALL, model)
        if not names:
            return {"ci_low": np.nan, "ci_high": np.nan}
        found = self._bootstrap(names, model).interval(self._values(names, model))
        return {"ci_low": found.low, "ci_high": found.high}

    def attributes(self) -> list[dict[str, Any]]:
        """J&F of every model on the sequences with an attribute, and on all."""
        return [
            {"attribute": subset, "model": model, "n_sequences": len(names), "j_and_f": found.value,
             "ci_low": found.low, "ci_high": found.high}
            for subset in self._subsets
            for model in self._sums
            if (names := self._names(subset, model))
            for found in [self._bootstrap(names, model).interval(self._values(names, model))]
        ]  # fmt: skip

    def differences(self) -> list[dict[str, Any]]:
        """J&F of `model` minus that of `other` on the sequences that both have, for every pair and attribute."""
        return [
            {"attribute": subset, "model": first, "other": second, "n_sequences": len(names),
             "difference": found.value, "ci_low": found.low, "ci_high": found.high, "p_value": found.p_value}
            for subset in self._subsets
            for first, second in combinations(self._sums, 2)
            if (names := self._names(subset, first, second))
            for found in [
                self._bootstrap(names, first).difference(self._values(names, first), self._values(names, second))
            ]
        ]  # fmt: skip

    def _names(self, subset: str, *models: str) -> Names:
        common = self._subsets[subset].intersection(*(self._sums[model].index for model in models))
        return tuple(sorted(common))

    def _values(self, names: Names, model: str) -> np.ndarray:
        return self._sums[model].loc[list(names)].to_numpy(float)

    def _bootstrap(self, names: Names, model: str) -> Bootstrap:
        """The same draws for every model on the same sequences: the objects are the ground truth's."""
        if names not in self._bootstraps:
            self._bootstraps[names] = Bootstrap(self._sizes[model].loc[list(names)].to_numpy(int))
        return self._bootstraps[names]


def _by_sequence(objects: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sum of J&F and number of objects by sequence; columns are seen and unseen categories where there are such."""
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
