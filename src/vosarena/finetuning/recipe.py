"""The settings of a fine-tuning run, which follow from the keys of a model's `finetune` mapping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vosarena.base.errors import ConfigError
from vosarena.config.resolve import check_recipe
from vosarena.config.schema import FinetuneEntry
from vosarena.config.validation import read_entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


def read_recipe(entry: Mapping[str, Any], where: str = "recipe") -> FinetuneEntry:
    """Return the recipe that a mapping like `finetune` of a catalog entry describes.

    Args:
        entry: The mapping. Its keys `from` and `data` are optional.
        where: Where the mapping comes from, for error messages.

    Raises:
        ConfigError: The mapping has a mistake; the error names `where` and the key.
    """
    recipe = read_entry(FinetuneEntry, entry, where)
    try:
        check_recipe(recipe)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return recipe


def samples_per_pass(recipe: FinetuneEntry, processes: int) -> int:
    """Return the number of samples in one forward pass of one process.

    Args:
        recipe: The recipe.
        processes: Number of processes.

    Raises:
        ConfigError: The batch cannot be divided evenly.
    """
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


def training_settings(recipe: FinetuneEntry, amp: bool) -> DictConfig:
    """Return the settings that rf-cutie's training wrapper, losses and parameter groups read.

    Args:
        recipe: The recipe.
        amp: Whether to use mixed precision.
    """
    from omegaconf import OmegaConf

    return OmegaConf.create(
        {
            "num_objects": recipe.objects,
            "seq_length": recipe.frames,
            "num_ref_frames": recipe.reference_frames,
            "deep_update_prob": recipe.deep_update_prob,
            "amp": amp,
            "learning_rate": recipe.learning_rate,
            "backbone_lr_ratio": recipe.backbone_lr_ratio,
            "weight_decay": recipe.weight_decay,
            "embed_weight_decay": recipe.embed_weight_decay,
            "point_supervision": True,
            "train_num_points": recipe.points,
            "oversample_ratio": recipe.oversample_ratio,
            "importance_sample_ratio": recipe.importance_sample_ratio,
        }
    )
