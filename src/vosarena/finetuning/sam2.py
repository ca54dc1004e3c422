"""How SAM 2 is trained on video: clips, mixed prompts and losses of the official recipe, on the package's own modules.

The facts are those of facebookresearch/sam2 at 2b90b9f: `training/model/sam2.py` (prompts, order of the frames),
`training/loss_fns.py` (losses), `training/optimizer.py` (layer-wise decay) and the values of
`sam2/configs/sam2.1_training/sam2.1_hiera_b+_MOSE_finetune.yaml`. The code is our own: the package on PyPI has none.
"""

from __future__ import annotations

import contextlib
import fnmatch
import math
import random
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vosarena.base.errors import TrackerError
from vosarena.config.model_schema import FinetuneEntry, Sam2Recipe
from vosarena.finetuning.sam2_samples import ClipSamples
from vosarena.finetuning.samples import seed_everything
from vosarena.trackers.sam2_network import instantiate_network, load_weights

_FINAL_RATE = 0.1  # of the learning rate, at the end of the cosine
_FOCAL_ALPHA, _FOCAL_GAMMA = 0.25, 2.0
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of images, by which networks expect them normalised


class Sam2Method:
    """Network, losses and optimiser of SAM 2.

    Args:
        recipe: The recipe, with the defaults of SAM 2.
        options: Options of the tracker: `config` and `image_size`.
        weights: Weights to start from.
        place: Device.

    Raises:
        TrackerError: The configuration or the weights are wrong.
    """

    unused_parameters = True  # which parts of the network run depends on the prompts
    scaled = False  # bfloat16 needs no scaling of the loss

    def __init__(self, recipe: FinetuneEntry, options: Mapping[str, Any], weights: Path, place: torch.device) -> None:
        self.recipe = recipe
        seed_everything(recipe.seed)
        self.network: Any = instantiate_network(str(options.get("config", "")), image_size=options.get("image_size"))
        load_weights(self.network, weights)
        if not hasattr(self.network.image_encoder.trunk, "get_layer_id"):
            raise TrackerError("finetune: only the networks of SAM 2 itself can be trained, not those of its forks")
        _set_drop_path(self.network.image_encoder.trunk, recipe.sam2.drop_path)
        self.network.image_encoder.requires_grad_(recipe.sam2.image_encoder)
        self.network.to(place).train()
        self.model = UnrolledSam2(self.network, recipe.sam2, amp=recipe.amp and place.type == "cuda")

    def optimizer(self) -> torch.optim.Optimizer:
        """Return AdamW over groups of parameters with their learning rates and weight decays."""
        return torch.optim.AdamW(parameter_groups(self.network, self.recipe), lr=self.recipe.learning_rate)

    def scheduler(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """Return a cosine from the learning rate to a tenth of it."""
        length = self.recipe.iterations

        def share(iteration: int) -> float:
            return _FINAL_RATE + (1 - _FINAL_RATE) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, iteration / length)))

        return torch.optim.lr_scheduler.LambdaLR(optimizer, share)

    def samples(self, datasets: Mapping[str, Path]) -> ClipSamples:
        """Return the samples by number (see `ClipSamples`)."""
        return ClipSamples(datasets, self.recipe, self.network.image_size)

    def losses(self, model: nn.Module, data: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Return the losses of one pass; `total_loss` is what is minimised."""
        masks, weights = data["masks"], self.recipe.sam2
        found = clip_losses(model(data), masks, weights)
        total = sum(getattr(weights, name) * value for name, value in found.items())
        assert isinstance(total, torch.Tensor)
        return {"total_loss": total, **found}

    def weights(self) -> Any:
        """Return the content of the file of trained weights, which upstream's `build_sam2` loads."""
        return {"model": self.network.state_dict()}


class UnrolledSam2(nn.Module):
    """SAM 2 run over a clip as at inference, with gradients through its memory.

    Args:
        network: The network.
        recipe: How it is prompted.
        amp: Whether to compute in bfloat16.
    """

    def __init__(self, network: Any, recipe: Sam2Recipe, *, amp: bool = False) -> None:
        super().__init__()
        self.network, self.recipe, self.amp = network, recipe, amp

    def forward(self, data: Mapping[str, Any]) -> list[list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]]:
        """Track the objects of clips.

        Args:
            data: `images`, uint8 (clips, T, S, S, 3), RGB; `masks`, bool (T, objects, 1, S, S); `clip`, the number of
                the clip of each object.

        Returns:
            For every frame, the outputs of each step (the first prediction and one after each click): logits of the
            masks (objects, M, S, S), predicted IoU (objects, M), and the logit of presence (objects, 1).
        """
        context = torch.autocast("cuda", torch.bfloat16) if self.amp else contextlib.nullcontext()
        with context:
            return self._track(data["images"], data["masks"], data["clip"])

    def _track(self, images: torch.Tensor, masks: torch.Tensor, clip: torch.Tensor) -> list[list[Any]]:
        network, count = self.network, images.shape[1]
        _, features, positions, sizes = network._prepare_backbone_features(network.forward_image(_normalised(images)))
        plan = _PromptPlan(self.recipe, count)
        bank: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
        outputs: dict[int, list[Any]] = {}
        others = [index for index in range(count) if index not in plan.prompted]
        for index in [*plan.prompted, *others]:
            rows = clip * count + index
            current = [level[:, rows] for level in features]
            prompt = plan.prompt(masks[index]) if index in plan.prompted and plan.points else None
            output, heads, fine, fused = network._track_step(
                frame_idx=index,
                is_init_cond_frame=index in plan.prompted,
                current_vision_feats=current,
                current_vision_pos_embeds=[level[:, rows] for level in positions],
                feat_sizes=sizes,
                point_inputs=prompt,
                mask_inputs=masks[index].float() if index in plan.prompted and not plan.points else None,
                output_dict=bank,
                num_frames=count,
                track_in_reverse=False,
                prev_sam_mask_logits=None,
            )
            steps = [heads]
            if index in plan.corrected:
                for _ in range(self.recipe.clicks):
                    prompt, heads = self._click(index in plan.prompted, prompt, masks[index], fused, fine, heads)
                    steps.append(heads)
            _, _, _, low, high, pointer, presence = heads
            network._encode_memory_in_output(current, sizes, prompt, True, high, presence, output)
            output.update(pred_masks=low, obj_ptr=pointer)
            conditioning = index in plan.prompted or index in plan.corrected
            bank["cond_frame_outputs" if conditioning else "non_cond_frame_outputs"][index] = output
            outputs[index] = [(step[1], step[2], step[6]) for step in steps]
        return [outputs[index] for index in range(count)]

    def _click(
        self, first: bool, prompt: Any, truth: torch.Tensor, fused: torch.Tensor, fine: Any, heads: Any
    ) -> tuple[Any, Any]:
        """Add a click where the prediction is wrong, and predict again from the last mask and all clicks."""
        from sam2.modeling.sam2_utils import get_next_point
        from sam2.utils.misc import concat_points

        predicted = None if random.random() < self.recipe.clicks_on_truth else heads[4] > 0
        prompt = concat_points(prompt, *get_next_point(gt_masks=truth, pred_masks=predicted, method="uniform"))
        return prompt, self.network._forward_sam_heads(
            backbone_features=fused,
            point_inputs=prompt,
            mask_inputs=heads[3],
            high_res_features=fine,
            multimask_output=self.network._use_multimask(first, prompt),
        )


def _normalised(images: torch.Tensor) -> torch.Tensor:
    """Return images, uint8 (clips, T, S, S, 3), as the network takes them: float (clips * T, 3, S, S)."""
    mean, deviation = (torch.tensor(values, device=images.device).mul(255) for values in (_MEAN, _DEVIATION))
    pixels = images.flatten(0, 1).permute(0, 3, 1, 2).contiguous().float()
    return pixels.sub_(mean[:, None, None]).div_(deviation[:, None, None])


class _PromptPlan:
    """Which frames of a clip get a prompt, which get corrections, and of which kind; drawn with `random`.

    Args:
        recipe: Probabilities.
        count: Number of frames.
    """

    def __init__(self, recipe: Sam2Recipe, count: int) -> None:
        self._boxes = recipe.boxes
        self.points = count == 1 or random.random() < recipe.points
        prompted = random.randint(1, min(recipe.prompted_frames, count))
        self.prompted = [0, *random.sample(range(1, count), prompted - 1)]
        self.corrected: list[int] = []
        if self.points:
            corrected = random.randint(prompted, max(prompted, min(recipe.corrected_frames, count)))
            others = [index for index in range(count) if index not in self.prompted]
            self.corrected = [*self.prompted, *random.sample(others, corrected - prompted)]

    def prompt(self, truth: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return a box or a first click for each object."""
        from sam2.modeling.sam2_utils import get_next_point, sample_box_points

        if random.random() < self._boxes:
            points, labels = sample_box_points(truth)
        else:
            points, labels = get_next_point(gt_masks=truth, pred_masks=None, method="uniform")
        return {"point_coords": points, "point_labels": labels}


def clip_losses(
    outputs: list[list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]], masks: torch.Tensor, weights: Sam2Recipe
) -> dict[str, torch.Tensor]:
    """Return the unweighted losses of a clip: sums over frames and steps, means over objects.

    Of several masks for a prompt, only the best one gets mask losses, and all get the loss of their predicted IoU.
    Absent objects have the loss of presence alone.

    Args:
        outputs: What `UnrolledSam2` returned.
        masks: True masks, (T, objects, 1, S, S).
        weights: Weights of the losses, by which the best mask is chosen.
    """
    losses: dict[str, torch.Tensor] = defaultdict(lambda: masks.new_zeros((), dtype=torch.float32))
    for steps, truth in zip(outputs, masks.float(), strict=True):
        there = truth.flatten(1).any(1).float()
        for logits, iou, presence in steps:
            focal, dice, error = mask_losses(logits.float(), truth.expand_as(logits), iou.float())
            best = (weights.loss_mask * focal + weights.loss_dice * dice).argmin(1, keepdim=True)
            losses["loss_mask"] += (focal.gather(1, best)[:, 0] * there).mean()
            losses["loss_dice"] += (dice.gather(1, best)[:, 0] * there).mean()
            losses["loss_iou"] += (error.mean(1) * there).mean()
            losses["loss_class"] += F.binary_cross_entropy_with_logits(presence[:, 0].float(), there)
    return dict(losses)


def mask_losses(
    logits: torch.Tensor, truth: torch.Tensor, iou: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the focal loss, the dice loss and the error of the predicted IoU of each mask, all (objects, M).

    Args:
        logits: Logits of masks, (objects, M, H, W).
        truth: True masks, 0 or 1, of the same shape.
        iou: Predicted IoU, (objects, M).
    """
    logits, truth = logits.flatten(2), truth.flatten(2)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    found = logits.sigmoid()
    right = found * truth + (1 - found) * (1 - truth)
    balance = _FOCAL_ALPHA * truth + (1 - _FOCAL_ALPHA) * (1 - truth)
    focal = (balance * (1 - right) ** _FOCAL_GAMMA * entropy).mean(2)
    dice = 1 - (2 * (found * truth).sum(2) + 1) / (found.sum(2) + truth.sum(2) + 1)
    inside, mask = logits > 0, truth > 0
    actual = (inside & mask).sum(2).float() / (inside | mask).sum(2).clamp(min=1)
    return focal, dice, (iou - actual).abs()


def parameter_groups(network: Any, recipe: FinetuneEntry) -> list[dict[str, Any]]:
    """Return the groups of parameters that share a learning rate and a weight decay.

    The image encoder has a learning rate of its own, which shrinks layer by layer towards the image, except for the
    position embeddings. Biases and the parameters of LayerNorm have no weight decay.

    Args:
        network: The network.
        recipe: The recipe.
    """
    trunk = network.image_encoder.trunk
    layers = trunk.get_num_layers() + 1
    normal = {
        f"{name}.{parameter}"
        for name, module in network.named_modules()
        if type(module) is nn.LayerNorm
        for parameter, _ in module.named_parameters(recurse=False)
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in network.named_parameters():
        rate = recipe.learning_rate
        if name.startswith("image_encoder."):
            rate *= recipe.backbone_lr_ratio
        if name.startswith("image_encoder.trunk.") and not fnmatch.fnmatchcase(name, "*pos_embed*"):
            rate *= recipe.sam2.layer_decay ** (layers - trunk.get_layer_id(name))
        decay = 0.0 if name in normal or "bias" in name else recipe.weight_decay
        if parameter.requires_grad:
            groups[rate, decay].append(parameter)
    return [{"params": found, "lr": rate, "weight_decay": decay} for (rate, decay), found in groups.items()]


def _set_drop_path(trunk: Any, rate: float) -> None:
    """Set the stochastic depth of the blocks, which grows linearly as in the package's constructor."""
    from sam2.modeling.sam2_utils import DropPath

    last = max(1, len(trunk.blocks) - 1)
    for index, block in enumerate(trunk.blocks):
        share = rate * index / last
        block.drop_path = DropPath(share) if share > 0 else nn.Identity()
