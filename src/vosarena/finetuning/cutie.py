"""How Cutie is trained: rf-cutie's own training wrapper, losses and parameter groups."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vosarena.config.model_schema import FinetuneEntry
from vosarena.finetuning.cutie_samples import CutieSamples
from vosarena.finetuning.samples import seed_everything
from vosarena.trackers.cutie_network import build_network, cutie_config, load_weights

if TYPE_CHECKING:
    from omegaconf import DictConfig


class CutieMethod:
    """Network, losses and optimiser of Cutie.

    Args:
        recipe: The recipe.
        weights: Weights to start from.
        place: Device.

    Raises:
        TrackerError: The weights are wrong.
    """

    unused_parameters = True  # those of the deep update, if no frame of a pass gets one

    def __init__(self, recipe: FinetuneEntry, weights: Path, place: torch.device) -> None:
        from cutie.model.losses import LossComputer

        self.recipe = recipe
        self.scaled = recipe.amp and place.type == "cuda"
        config, self._stage = cutie_config(recipe.model), training_settings(recipe, self.scaled)
        seed_everything(recipe.seed)
        self.network = build_network(config, self._stage)
        load_weights(self.network, weights)
        self.model = self.network.to(place).train()  # rf-cutie keeps the batch norms of its encoders frozen
        self._losses = LossComputer(config, self._stage)

    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimiser of the network's parameters."""
        from cutie.model.utils.parameter_groups import get_parameter_groups

        return torch.optim.AdamW(
            get_parameter_groups(self.network, self._stage),
            lr=self.recipe.learning_rate,
            weight_decay=self.recipe.weight_decay,
            eps=1e-6 if self.scaled else 1e-8,
        )

    def scheduler(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """Return the schedule of the learning rate."""
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, list(self.recipe.lr_steps), self.recipe.lr_gamma)

    def samples(self, datasets: Mapping[str, Path]) -> CutieSamples:
        """Return the samples by number (see `CutieSamples`)."""
        return CutieSamples(datasets, self.recipe)

    def losses(self, model: nn.Module, data: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Return the losses of one pass; `total_loss` is what is minimised."""
        result = model(data)
        found: dict[str, torch.Tensor] = self._losses.compute({**data, **result}, result["num_filled_objects"])
        return found

    def weights(self) -> Any:
        """Return the content of the file of trained weights."""
        return self.network.state_dict()


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
