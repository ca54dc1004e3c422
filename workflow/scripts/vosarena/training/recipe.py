"""What a fine-tuning run is: the numbers of a catalog entry's `finetune` mapping, with Cutie's own as defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from vosarena.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Recipe:
    """A fine-tuning run of Cutie.

    The first block is what the LSVOS 2024 paper states; everything below is what it leaves out, filled with the
    `main_training` stage of Cutie's own train_config.yaml (Cheng et al., CVPR 2024).
    """

    iterations: int = 20_000
    batch: int = 16  # samples per step of the optimiser, over all processes
    learning_rate: float = 1e-4
    weight_decay: float = 1e-3
    lr_steps: tuple[int, ...] = (15_000,)  # after these iterations the learning rate is multiplied by lr_gamma
    lr_gamma: float = 0.1

    model: str = "base"
    crop: int = 480  # side of the square training pictures in pixels
    frames: int = 8  # per sample
    objects: int = 3  # at most, per sample
    reference_frames: int = 3
    merge_probability: float = 0.5  # of pasting the objects of a second video into a sample
    deep_update_prob: float = 0.2
    max_skip: tuple[int, ...] = (5, 10, 15, 5)  # largest distance of neighbouring frames, in turn
    max_skip_from: tuple[float, ...] = (0.0, 0.1, 0.3, 0.8)  # from these shares of the iterations on
    frame_interval: Mapping[str, int] | int = 1  # divides max_skip, per "<dataset>/<split>"; MOSE has 5 upstream
    backbone_lr_ratio: float = 0.1
    embed_weight_decay: float = 0.0
    clip_grad_norm: float = 3.0
    points: int = 12_544  # at which the loss is taken
    oversample_ratio: float = 3.0
    importance_sample_ratio: float = 0.75
    amp: bool = True  # mixed precision, on CUDA only
    seed: int = 14_159_265

    micro_batch: int | None = None  # samples per forward pass and process; None: no gradient accumulation
    workers: int = 8  # processes per process that read samples; 0: none
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        if len(self.max_skip) != len(self.max_skip_from) or self.max_skip_from[0] != 0:
            raise ConfigError("finetune: max_skip and max_skip_from must have one entry each, starting from 0.0")
        if self.objects < 2:
            raise ConfigError(f"finetune: objects is {self.objects}: use at least 2, one object needs another network")
        for name in ("iterations", "batch", "frames", "crop", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"finetune: {name} is {getattr(self, name)}: use a positive number")

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


def read_recipe(entry: Mapping[str, Any]) -> Recipe:
    """The recipe of a catalog entry's `finetune` mapping; `from` and `data` belong to the workflow and are ignored.

    Raises ConfigError for an unknown key.
    """
    known = {item.name for item in fields(Recipe)}
    values: dict[str, Any] = {key: value for key, value in entry.items() if key not in ("from", "data")}
    for key in values:
        if key not in known:
            raise ConfigError(f"finetune: unknown key {key!r}; known: from, data, {', '.join(sorted(known))}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return Recipe(**values)
