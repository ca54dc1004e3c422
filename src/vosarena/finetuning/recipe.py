"""What a fine-tuning run is: the numbers of a model's `finetune` mapping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vosarena.base.errors import ConfigError
from vosarena.config.schema import properties, validate

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Recipe:
    """A fine-tuning run of Cutie. Meanings and defaults of the fields are those of `schemas/model.schema.yaml`.

    The defaults are what the LSVOS 2024 paper states and, where it is silent, the `main_training` stage of Cutie's own
    train_config.yaml (Cheng et al., CVPR 2024).
    """

    iterations: int
    batch: int
    learning_rate: float
    weight_decay: float
    lr_steps: tuple[int, ...]
    lr_gamma: float
    model: str
    crop: int
    frames: int
    objects: int
    reference_frames: int
    merge_probability: float
    deep_update_prob: float
    max_skip: tuple[int, ...]
    max_skip_from: tuple[float, ...]
    frame_interval: Mapping[str, int] | int
    backbone_lr_ratio: float
    embed_weight_decay: float
    clip_grad_norm: float
    points: int
    oversample_ratio: float
    importance_sample_ratio: float
    amp: bool
    seed: int
    workers: int
    checkpoint_every: int
    micro_batch: int | None = None

    def samples_per_pass(self, processes: int) -> int:
        """Samples per forward pass of one process. Raises ConfigError if the batch cannot be divided so."""
        micro = self.micro_batch or self.batch // processes
        if micro < 1 or self.batch % (micro * processes):
            raise ConfigError(
                f"finetune: a batch of {self.batch} cannot be made of {processes} processes with micro_batch {micro}: "
                "choose a micro_batch whose product with the number of processes divides the batch"
            )
        return micro

    def skip_at(self, iteration: int) -> int:
        """Largest distance of neighbouring frames at an iteration, before `frame_interval`."""
        return [skip for skip, share in zip(self.max_skip, self.max_skip_from, strict=True)
                if iteration >= round(share * self.iterations)][-1]  # fmt: skip

    def interval_of(self, dataset: str) -> int:
        """frame_interval of a dataset."""
        return self.frame_interval if isinstance(self.frame_interval, int) else self.frame_interval.get(dataset, 1)

    def stage(self, amp: bool) -> DictConfig:
        """The settings that rf-cutie's training wrapper, losses and parameter groups read."""
        from omegaconf import OmegaConf

        return OmegaConf.create(
            {
                "num_objects": self.objects,
                "seq_length": self.frames,
                "num_ref_frames": self.reference_frames,
                "deep_update_prob": self.deep_update_prob,
                "amp": amp,
                "learning_rate": self.learning_rate,
                "backbone_lr_ratio": self.backbone_lr_ratio,
                "weight_decay": self.weight_decay,
                "embed_weight_decay": self.embed_weight_decay,
                "point_supervision": True,
                "train_num_points": self.points,
                "oversample_ratio": self.oversample_ratio,
                "importance_sample_ratio": self.importance_sample_ratio,
            }
        )


def read_recipe(entry: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """The recipe of a model's `finetune` mapping; `from` and `data` belong to the workflow and are ignored.

    Raises ConfigError naming `where`, the key and what is wrong with it.
    """
    validate({"finetune": dict(entry)}, "model", where)
    known = properties("model", "finetune")
    values = {key: value["default"] for key, value in known.items() if "default" in value} | dict(entry)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    recipe = Recipe(**{key: value for key, value in values.items() if key not in ("from", "data")})
    if len(recipe.max_skip) != len(recipe.max_skip_from) or recipe.max_skip_from[0] != 0:
        raise ConfigError(f"{where}: finetune: max_skip and max_skip_from need one entry each, the latter from 0.0 on")
    return recipe
