"""The curves of trainings, as the page draws them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from vosarena.config.paths import Paths
from vosarena.config.study import Study
from vosarena.finetuning.files import LOSSES, SCORES

_POINTS = 200  # of a curve; more would not be visible

Curve = list[tuple[int, float]]  # iteration and value


def training_curves(study: Study, paths: Paths) -> dict[str, dict[str, Curve]]:
    """Return loss, validation J&F and learning rate of the trainings of a study, by model."""
    found: dict[str, dict[str, Curve]] = {}
    for name, folder in _trained(study, paths):
        log = _thinned(pd.read_parquet(folder / LOSSES))
        scores = pd.read_parquet(folder / SCORES) if (folder / SCORES).is_file() else None
        found[name] = {
            "training loss": _curve(log["iteration"], log["total_loss"]),
            "validation J&F": [] if scores is None else _curve(scores["iteration"], scores["j_and_f"]),
            "learning rate": _curve(log["iteration"], log["learning_rate"]),
        }
    return found


def waiting_shares(study: Study, paths: Paths) -> dict[str, Curve]:
    """Return the percentage of the time that trainings waited for data, by model. It differs between two runs."""
    found: dict[str, Curve] = {}
    for name, folder in _trained(study, paths):
        log = _thinned(pd.read_parquet(folder / LOSSES))
        found[name] = _curve(log["iteration"], 100 * log["waiting"] / log["seconds"])
    return found


def _trained(study: Study, paths: Paths) -> Iterator[tuple[str, Path]]:
    """Yield the models that were fine-tuned here, and the folders of their trainings."""
    for name, model in study.models.items():
        folder = paths.finetuned(name)
        if model.finetune and (folder / LOSSES).is_file():
            yield name, folder


def _thinned(log: pd.DataFrame) -> pd.DataFrame:
    """Return the means of as many neighbouring iterations as there are too many."""
    size = -(-len(log) // _POINTS)
    means: pd.DataFrame = log.groupby(log.index // size).mean()
    means["iteration"] = log["iteration"].groupby(log.index // size).max()
    return means


def _curve(iterations: Any, values: Any) -> Curve:
    return [(int(at), float(f"{value:.4g}")) for at, value in zip(iterations, values, strict=True)]
