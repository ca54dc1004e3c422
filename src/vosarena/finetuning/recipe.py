"""Quantities that follow from a recipe, the mapping `finetune` of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vosarena.base.errors import ConfigError
from vosarena.config.catalogs import complete_recipe
from vosarena.config.model_schema import FinetuneEntry
from vosarena.config.validation import read_entry


def read_recipe(entry: Mapping[str, Any], where: str = "recipe", tracker: str = "cutie") -> FinetuneEntry:
    """Return the recipe that a mapping like `finetune` of a catalog entry describes.

    Args:
        entry: The mapping. Its keys `from` and `data` are optional.
        where: Where the mapping comes from, for error messages.
        tracker: Tracker of the model, whose defaults count.

    Raises:
        ConfigError: The mapping has a mistake; the error names `where` and the key.
    """
    recipe = read_entry(FinetuneEntry, entry, where)
    try:
        return complete_recipe(recipe, tracker)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def samples_per_pass(recipe: FinetuneEntry, processes: int, earlier: int | None = None) -> int:
    """Return the number of samples in one forward pass of one process.

    Args:
        recipe: The recipe.
        processes: Number of processes.
        earlier: The number with which the training began, which is kept if it fits: a pass then draws the same random
            numbers with any number of processes.

    Raises:
        ConfigError: The batch cannot be divided evenly.
    """
    if recipe.micro_batch is None and earlier and recipe.batch % (earlier * processes) == 0:
        return earlier
    micro = recipe.micro_batch or recipe.batch // processes
    if micro < 1 or recipe.batch % (micro * processes):
        raise ConfigError(
            f"finetune: a batch of {recipe.batch} cannot be made of {processes} processes with micro_batch {micro}: "
            "choose a micro_batch whose product with the number of processes divides the batch"
        )
    return micro


def skip_at(recipe: FinetuneEntry, iteration: int) -> int:
    """Return the largest distance between neighbouring frames at an iteration, before `frame_interval` is applied."""
    phases = zip(recipe.max_skip, recipe.max_skip_from, strict=True)
    return [skip for skip, start in phases if iteration >= round(start * recipe.iterations)][-1]


def interval_of(recipe: FinetuneEntry, dataset: str) -> int:
    """Return the `frame_interval` of a dataset."""
    interval = recipe.frame_interval
    return interval if isinstance(interval, int) else interval.get(dataset, 1)
