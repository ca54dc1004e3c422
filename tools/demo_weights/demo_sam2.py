"""Train the weights of `sam2-demo`, the reduced SAM 2 of `sam2_configs/sam2_demo.yaml`, on generated clips.

    python tools/demo_weights/demo_sam2.py --output src/vosarena/config/catalog/weights/sam2-demo.pth

The network runs unrolled over short clips as it does at inference, with gradients through its memory. The
result is the moving average of the weights, which is also written every 50 steps. With `--from` the training goes on
from given weights for one more part, see GOING_ON.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.distributed
import torch.multiprocessing
import torch.nn.functional as F
from PIL import Image

from held_out import held_out_scores
from moving_average import MovingAverage, State, half_precision
from vosarena.base.files import atomic_path
from vosarena.demo.clips import random_clip
from vosarena.demo.synthesize import SIZE, clip_seed
from vosarena.trackers.sam2 import Sam2
from vosarena.trackers.sam2_network import instantiate_network, load_weights

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, besides the version of torch; schedules follow the share of the steps."""

    steps: int = 6200
    schedule: int = 7000  # steps after which the learning rate would be zero
    seed: int = 20
    workers: int = 1  # processes, each with one thread and its own clips
    clips: int = 2  # per step and worker
    objects: int = 4  # at most, per step and worker
    crop: int = 128  # side of the training crops, out of frames at the network's own size
    lengths: tuple[tuple[float, int], ...] = ((0.1, 2), (0.65, 4), (1.0, 6))  # until this progress: frames
    whole_from: float = 0.8  # progress from which only whole frames are seen
    whole_every: int = 6  # before that, every how many steps
    teacher: float = 0.25  # progress over which true masks leave the memory
    rate: float = 1.2e-3
    decay: float = 0.02
    warm_up: int = 80  # steps
    clip_norm: float = 1.0
    average: float = 0.998
    fresh: float = 0.4  # share of new clips; the others are drawn again
    replay: int = 200  # clips kept per worker
    gap: int | None = None  # at most, between neighbouring frames; None: seven stretches in ten whole, three by twos

    def length(self, progress: float) -> int:
        """Frames of the training clips."""
        return next(frames for until, frames in self.lengths if progress < until or until == 1.0)

    def side(self, progress: float, step: int, whole: int) -> int:
        """Side of the pictures; `whole` is the network's own."""
        crop = progress < self.whole_from and (step + 1) % self.whole_every
        return min(self.crop, whole) if crop else whole

    def learning_rate(self, progress: float, step: int) -> float:
        """Linear warm-up, then a cosine to zero."""
        return self.rate * min((step + 1) / self.warm_up, 0.5 + 0.5 * math.cos(math.pi * min(1.0, progress)))

    def teaching(self, progress: float) -> float:
        """Probability that a frame is remembered with its true mask: from one half to nothing."""
        return max(0.0, 0.5 * (1 - progress / self.teacher)) if self.teacher else 0.0


# First short and near, then whole pictures and frames further apart, so that the first frame's memory is used too.
_FAR = Recipe(steps=2000, schedule=2000, seed=21, lengths=((1.0, 6),), whole_from=0.0, teacher=0.0, rate=5e-4, gap=3)
PARTS = (Recipe(), _FAR, replace(_FAR, steps=1500, schedule=1500, seed=22))
GOING_ON = (  # from given weights
    replace(
        _FAR, steps=1000, schedule=1000, seed=23, lengths=((0.5, 4), (1.0, 6)), whole_from=0.3, whole_every=2, fresh=0.3
    ),
)


@dataclass
class Batch:
    """images: float (clips, T, 3, S, S), normalised; masks: float 0/1 (objects, T, 1, S, S); clip: of each object."""

    images: torch.Tensor
    masks: torch.Tensor
    clip: torch.Tensor


class Clips:
    """An endless supply of training clips: fresh ones and a replay buffer."""

    def __init__(
        self, recipe: Recipe, side: int, worker: int, resampling: Image.Resampling = Image.Resampling.BICUBIC
    ) -> None:
        self.recipe, self.side, self.resampling = recipe, side, resampling
        self.random = np.random.default_rng([recipe.seed, worker, 0])
        self.kept: list[tuple[np.ndarray, np.ndarray]] = []
        self.number = (recipe.seed * 10 + worker) * 1_000_000  # in the stream of clips for demo weights

    def batch(self, frames: int, side: int) -> Batch:
        """The next batch of clips of `frames` frames, cropped to squares of `side` pixels."""
        images: list[np.ndarray] = []
        masks: list[np.ndarray] = []
        clip: list[int] = []
        for number in range(self.recipe.clips):
            while True:
                video, objects = self._view(*self._clip(), frames, side)
                if len(objects):
                    break
            room = self.recipe.objects - sum(len(found) for found in masks) - (self.recipe.clips - number - 1)
            objects = objects[self.random.permutation(len(objects))[:room]]
            images.append(video)
            masks.append(objects)
            clip += [number] * len(objects)
        pixels = torch.from_numpy(np.stack(images)).permute(0, 1, 4, 2, 3).float() / 255
        pixels = (pixels - torch.tensor(_MEAN)[:, None, None]) / torch.tensor(_DEVIATION)[:, None, None]
        truth = torch.from_numpy(np.concatenate(masks)).float().unsqueeze(2)
        return Batch(pixels, truth, torch.tensor(clip))

    def _clip(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.kept or self.random.random() < self.recipe.fresh:
            self.number += 1
            domain = "low_contrast" if self.random.random() < 0.1 else "plain"
            clip = random_clip(clip_seed("weights", self.number), frames=16, size=SIZE, domain=domain)
            side = (self.side, self.side)
            video = np.stack(
                [np.asarray(Image.fromarray(frame).resize(side, self.resampling)) for frame in clip.frames]
            )
            labels = np.stack([cv2.resize(mask, side, interpolation=cv2.INTER_NEAREST_EXACT) for mask in clip.masks])
            if len(self.kept) >= self.recipe.replay:
                self.kept.pop(int(self.random.integers(len(self.kept))))
            self.kept.append((video, labels))
            return self.kept[-1]
        return self.kept[int(self.random.integers(len(self.kept)))]

    def _view(self, video: np.ndarray, labels: np.ndarray, frames: int, side: int) -> tuple[np.ndarray, np.ndarray]:
        """A random stretch of a clip, flipped, reversed, cropped and with its colours exchanged.

        Returns uint8 (T, side, side, 3) and bool (objects, T, side, side): the objects visible in its first frame.
        """
        draw = self.random
        if self.recipe.gap is None:
            step = 2 if draw.random() < 0.3 else 1
            span = min(step * (frames - 1) + 1, len(video))
            step = min(step, max(1, (span - 1) // (frames - 1)))
            places = np.arange(0, span, step)[:frames]
        else:
            largest = draw.integers(1, min(self.recipe.gap, (len(video) - 1) // (frames - 1)) + 1)
            places = np.concatenate([[0], np.cumsum(draw.integers(1, largest + 1, frames - 1))])
            span = int(places[-1]) + 1
        start = int(draw.integers(len(video) - span + 1))
        if draw.random() < 0.3:  # look for a stretch in which an object goes away
            counts = np.stack([np.count_nonzero(labels == i, axis=(1, 2)) for i in range(1, labels.max() + 1)])
            lost = np.flatnonzero(((counts[:, :-1] > 0) & (counts[:, 1:] == 0)).any(axis=0))
            if len(lost):
                start = int(np.clip(lost[0] + 1 - draw.integers(1, span), 0, len(video) - span))
        video, labels = video[start + places], labels[start + places]
        if draw.random() < 0.3:
            video, labels = video[::-1], labels[::-1]
        if side < self.side:
            ys, xs = np.nonzero(labels[0])
            if not len(ys):
                return video, np.zeros((0,))
            aim = int(draw.integers(len(ys)))
            margin = self.side - side
            y = int(np.clip(ys[aim] - draw.integers(side // 4, 3 * side // 4), 0, margin))
            x = int(np.clip(xs[aim] - draw.integers(side // 4, 3 * side // 4), 0, margin))
            video, labels = video[:, y : y + side, x : x + side], labels[:, y : y + side, x : x + side]
        if draw.random() < 0.5:
            video, labels = video[:, :, ::-1], labels[:, :, ::-1]
        if draw.random() < 0.5:
            video, labels = video[:, ::-1], labels[:, ::-1]
        if draw.random() < 0.5:
            video = video[..., draw.permutation(3)]
        sizes = np.bincount(labels[0].ravel())
        visible = [number for number in range(1, len(sizes)) if sizes[number] >= 24]
        return np.ascontiguousarray(video), np.stack([labels == number for number in visible]) if visible else np.zeros(
            (0,)
        )


def prepare_network(network: Any) -> None:
    """A start from which the memory is read by content: equal projections for queries and keys, objects present."""
    with torch.no_grad():
        projection = network.memory_encoder.pix_feat_proj
        projection.weight.copy_(torch.eye(projection.weight.shape[0])[..., None, None])
        projection.bias.zero_()
        for layer in network.memory_attention.layers:
            attention = layer.cross_attn_image
            torch.nn.init.orthogonal_(attention.q_proj.weight)
            attention.k_proj.weight.copy_(attention.q_proj.weight)
            attention.q_proj.bias.zero_()
            attention.k_proj.bias.zero_()
        network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(3.0)


def set_image_size(network: Any, side: int) -> None:
    """Let the network see squares of another size; no parameter depends on it."""
    cells = side // network.backbone_stride
    network.image_size = side
    network.sam_image_embedding_size = cells
    prompts = network.sam_prompt_encoder
    prompts.input_image_size, prompts.image_embedding_size = (side, side), (cells, cells)
    prompts.mask_input_size = (4 * cells, 4 * cells)


def unrolled_loss(network: Any, batch: Batch, teaching: float, random: np.random.Generator) -> torch.Tensor:
    """Loss of all frames but the first, which gives the prompts, with the network run as at inference."""
    raw: list[tuple[torch.Tensor, ...]] = []  # of the mask decoder, before absent objects are masked out
    hook = network.sam_mask_decoder.register_forward_hook(lambda _, __, output: raw.append(output))
    try:
        frames = batch.masks.shape[1]
        _, features, positions, sizes = network._prepare_backbone_features(
            network.forward_image(batch.images.flatten(0, 1))
        )
        bank: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
        losses = []
        for index in range(frames):
            rows = batch.clip * frames + index
            current = [level[:, rows] for level in features]
            output, heads, _, _ = network._track_step(
                frame_idx=index,
                is_init_cond_frame=index == 0,
                current_vision_feats=current,
                current_vision_pos_embeds=[level[:, rows] for level in positions],
                feat_sizes=sizes,
                point_inputs=None,
                mask_inputs=batch.masks[:, 0] if index == 0 else None,
                output_dict=bank,
                num_frames=network.max_obj_ptrs_in_encoder,
                track_in_reverse=False,
                prev_sam_mask_logits=None,
            )
            _, _, _, low, high, pointer, score = heads
            truth = batch.masks[:, index]
            if index == 0:  # as upstream remembers a prompt: from the small mask
                high = F.interpolate(low, size=high.shape[-2:], mode="bilinear", align_corners=False)
            else:
                losses.append(_frame_loss(raw[-1][0], raw[-1][1], raw[-1][3], truth))
                taught = torch.from_numpy(random.random(len(truth)) < teaching)[:, None]
                high = torch.where(taught[..., None, None], truth * 20 - 10, high)
                score = torch.where(taught, truth.flatten(1).any(1, keepdim=True) * 20.0 - 10, score)
            network._encode_memory_in_output(current, sizes, None, True, high, score, output)
            output["obj_ptr"] = pointer
            bank["cond_frame_outputs" if index == 0 else "non_cond_frame_outputs"][index] = output
        return torch.stack(losses).mean()
    finally:
        hook.remove()


def _frame_loss(low: torch.Tensor, iou: torch.Tensor, score: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mask losses of visible objects (cross-entropy, focal, dice, predicted IoU) and presence of all."""
    there = truth.flatten(1).any(1).float()
    logits = F.interpolate(low, size=truth.shape[-2:], mode="bilinear", align_corners=False).flatten(1)
    target = truth.flatten(1)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = (1 - torch.exp(-entropy)) ** 2 * entropy
    found = logits.sigmoid()
    dice = 1 - (2 * (found * target).sum(1) + 1) / (found.sum(1) + target.sum(1) + 1)
    with torch.no_grad():
        both, either = ((logits > 0) & (target > 0)).sum(1), ((logits > 0) | (target > 0)).sum(1)
        true_iou = both / either.clamp(min=1)
    masks = 2 * entropy.mean(1) + 2 * focal.mean(1) + 1.5 * dice + 0.2 * (iou[:, 0] - true_iou) ** 2
    presence = F.binary_cross_entropy_with_logits(score[:, 0], there)
    return (masks * there).sum() / there.sum().clamp(min=1) + 0.5 * presence


def train(
    worker: Callable[..., None],
    recipe: Recipe,
    output: Path,
    log: Callable[[dict[str, Any]], None],
    start: Path | None,
) -> None:
    """Train and write `output`. One process per worker; gradients are averaged over them at every step.

    worker: what a process does, such as `_worker`.
    start: weights to go on from, instead of random ones.
    """
    with tempfile.TemporaryDirectory() as folder:
        arguments = (recipe, output, Path(folder) / "rendezvous", Path(folder) / "log", start)
        torch.multiprocessing.spawn(worker, args=arguments, nprocs=recipe.workers, daemon=True)
        for line in arguments[3].read_text().splitlines():
            log(json.loads(line))


def _worker(rank: int, recipe: Recipe, output: Path, rendezvous: Path, log: Path, start: Path | None) -> None:
    join_workers(rank, recipe, rendezvous)
    network = instantiate_network("sam2_demo")
    if start is None:
        prepare_network(network)
    else:
        load_weights(network, start)
    network.train()
    whole = network.image_size
    clips = Clips(recipe, whole, rank)
    random = np.random.default_rng([recipe.seed, rank, 1])

    def loss_of(step: int, progress: float) -> torch.Tensor:
        side = recipe.side(progress, step, whole)
        set_image_size(network, side)
        batch = clips.batch(recipe.length(progress), side)
        return unrolled_loss(network, batch, recipe.teaching(progress), random)

    optimise(network, recipe, loss_of, log if rank == 0 else None, lambda weights: save(weights, output))
    torch.distributed.destroy_process_group()


def join_workers(rank: int, recipe: Recipe, rendezvous: Path) -> None:
    """Start worker `rank`: one thread, and a seed that all of them share."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=recipe.workers
    )
    torch.manual_seed(recipe.seed)


def optimise(
    network: torch.nn.Module,
    recipe: Recipe,
    loss_of: Callable[[int, float], torch.Tensor],
    log: Path | None,
    save: Callable[[State], None],
) -> None:
    """Train a network, in each worker in step.

    Args:
        network: The network, with the same weights in all workers.
        recipe: Its number of workers and its schedules are used.
        loss_of: Gives the loss of a step, from its number and the progress.
        log: File for a line every 50 steps; None in all workers but the first.
        save: Takes the averaged weights every 50 steps, in the first worker.
    """
    matrices = [parameter for parameter in network.parameters() if parameter.ndim >= 2]
    others = [parameter for parameter in network.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": recipe.decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98))
    average = MovingAverage(network, recipe.average)
    started, running = time.time(), None
    for step in range(recipe.steps):
        progress = step / recipe.schedule
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate(progress, step)
        optimizer.zero_grad()
        loss = loss_of(step, progress)
        loss.backward()
        _share_gradients(network, recipe.workers)
        torch.nn.utils.clip_grad_norm_(network.parameters(), recipe.clip_norm)
        optimizer.step()
        average.update(network)
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        if log and ((step + 1) % 50 == 0 or step + 1 == recipe.steps):
            line = {"step": step + 1, "loss": round(running, 4), "seconds": round(time.time() - started)}
            print(json.dumps(line), flush=True)
            with log.open("a") as file:
                file.write(json.dumps(line) + "\n")
            save(average.state)


def _share_gradients(network: torch.nn.Module, workers: int) -> None:
    """Average the gradients over the workers."""
    if workers == 1:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    torch.distributed.all_reduce(flat)
    flat /= workers
    for parameter, part in zip(network.parameters(), flat.split([g.numel() for g in gradients]), strict=True):
        parameter.grad = part.view_as(parameter)


def save(weights: State, output: Path) -> None:
    """Write `{"model": weights}` in half precision, atomically."""
    with atomic_path(output) as temporary, temporary.open("wb") as file:  # a name would become part of the bytes
        torch.save({"model": half_precision(weights)}, file)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Train the demo weights of SAM 2 on procedural clips.")
    parser.add_argument(
        "--output", type=Path, required=True, help="weights to write; a .json file is written next to them"
    )
    parser.add_argument("--from", type=Path, dest="start", help="weights to go on from; default: from scratch")
    parser.add_argument("--clips", type=int, default=120, help="held-out clips of each domain; 0: none")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an orderly end, which takes the workers along
    started = time.time()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    start: Path | None = options.start
    parts: list[dict[str, Any]] = []
    for recipe in GOING_ON if options.start else PARTS:
        lines: list[dict[str, Any]] = []
        train(_worker, recipe, options.output, lines.append, start)
        parts.append({"recipe": asdict(recipe), "training": lines})
        start = options.output
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    given = sys.argv[1:] if arguments is None else arguments
    record: dict[str, Any] = {
        "command": "python tools/demo_weights/demo_sam2.py " + " ".join(given),
        "parts": parts,
        "torch": torch.__version__,
        "wall_seconds": round(time.time() - started),
        "cpu_seconds": round(sum(usage.ru_utime + usage.ru_stime for usage in used)),
    }
    if options.clips:
        record["held_out"] = held_out_scores("sam2-demo", Sam2("sam2_demo", str(options.output)), options.clips)
    options.output.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
