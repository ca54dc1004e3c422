"""Train the demo weights of Cutie, the tiny network, on generated clips on a CPU.

    python tools/demo_weights/demo_cutie.py --output cutie-demo.pth

This writes the weights (a float16 state dict) and, next to them, a JSON file with the command, the seeds, the losses,
and the J&F of the network and of the baselines on held-out clips. The network, its training wrapper, losses and
parameter groups are those of rf-cutie. All clips are of the plain domain, because the shifted domain is the example for
fine-tuning. A short second part changes the contrast of some clips, so that the network does not fail there completely.

The network is trained from scratch: its batch norms are not frozen, and all parameters share one learning rate. Samples
grow from 3 small square frames to 6 wide ones. The result is the moving average of the weights, which is also written
every 50 iterations. With `--from` the training goes on from given weights for one more part, see GOING_ON.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from held_out import held_out_scores
from moving_average import MovingAverage, State, half_precision
from vosarena.base.files import atomic_path
from vosarena.base.logs import progress_bar
from vosarena.demo.clips import Clip, random_clip
from vosarena.demo.synthesize import clip_seed
from vosarena.trackers.cutie import Cutie
from vosarena.trackers.cutie_network import build_network, cutie_config

HEIGHT = 128  # of the training clips in pixels; the demo tracks at this shortest side
CLIP_FRAMES = 18
OBJECTS = 3
BATCH = 4
AVERAGE_DECAY = 0.997
BUFFER_CLIPS = 400
DEMO_OPTIONS: dict[str, Any] = {  # as in the catalog
    "model": "tiny",
    "size": 128,
    "mem_every": 1,
    "max_mem_frames": 8,
    "arithmetic": "stable",
}


@dataclass(frozen=True)
class Part:
    """One run of the learning rate from its peak to nearly nothing.

    stages: from which share of the iterations on how many frames per sample, and the width of the clips in pixels.
    contrast: share of the samples whose contrast is changed.
    schedule: iterations after which the learning rate would be nearly nothing, if the part ends before that.
    """

    iterations: int
    learning_rate: float
    stages: tuple[tuple[float, int, int], ...]
    contrast: float = 0.0
    schedule: int | None = None


PARTS = (
    Part(2400, 5e-4, ((0.0, 3, 128), (0.4, 5, 128), (0.8, 6, 208))),
    Part(600, 3e-4, ((0.0, 6, 208),), contrast=0.5),
)
GOING_ON = (Part(600, 3e-4, ((0.0, 4, 208), (0.5, 6, 208)), contrast=0.25, schedule=600),)  # from given weights


class ClipBuffer:
    """Fresh procedural clips and some of the last ones: samples of `length` frames, varied by flips and the like."""

    def __init__(self, seed: int, width: int, contrast: float) -> None:
        self.rng = np.random.default_rng((seed, width))
        self.size, self.contrast = (HEIGHT, width), contrast
        self.first = (seed * 1000 + width) * 1_000_000  # of the numbers in the stream of seeds
        self.made = 0
        self.clips: list[Clip] = []

    def refresh(self) -> None:
        """Make one more clip, which replaces the oldest."""
        clip = random_clip(clip_seed("weights", self.first + self.made), frames=CLIP_FRAMES, size=self.size)
        if len(self.clips) < BUFFER_CLIPS:
            self.clips.append(clip)
        else:
            self.clips[self.made % BUFFER_CLIPS] = clip
        self.made += 1

    def sample(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Frames uint8 (length, H, W, 3) and masks uint8 (length, H, W) with objects 1..n, all in the first frame."""
        rng = self.rng
        while True:
            clip = self.clips[rng.integers(len(self.clips))]
            gaps = rng.integers(1, max(2, min(4, CLIP_FRAMES // length)) + 1, length - 1)
            where = np.concatenate([[0], np.cumsum(gaps)])
            if where[-1] >= CLIP_FRAMES:
                where = np.arange(length)
            where = where + rng.integers(CLIP_FRAMES - where[-1])
            if rng.random() < 0.5:
                where = where[::-1]
            frames, masks = clip.frames[where], clip.masks[where]
            counts = np.bincount(masks[0].ravel(), minlength=OBJECTS + 2)[1:]
            present = np.flatnonzero(counts >= 16) + 1
            if len(present):
                break
        if rng.random() < 0.5:
            frames, masks = frames[:, :, ::-1], masks[:, :, ::-1]
        if rng.random() < 0.5:
            frames, masks = frames[:, ::-1], masks[:, ::-1]
        if self.size[0] == self.size[1] and rng.random() < 0.5:
            frames, masks = frames.transpose(0, 2, 1, 3), masks.transpose(0, 2, 1)
        frames = frames[..., rng.permutation(3)]
        if self.contrast and rng.random() < self.contrast:
            frames = change_contrast(rng, frames)
        number = np.zeros(256, np.uint8)
        number[rng.permutation(present)[:OBJECTS]] = np.arange(1, min(len(present), OBJECTS) + 1)
        return frames, number[masks]


def change_contrast(rng: np.random.Generator, frames: np.ndarray) -> np.ndarray:
    """Less contrast, another brightness, a colour cast and noise, the same for all frames; uint8."""
    gain = rng.uniform(0.5, 1.0)
    offset = rng.uniform(0, 255 * (1 - gain)) + rng.uniform(-20, 20, 3)
    noise = rng.standard_normal(frames.shape, dtype=np.float32) * rng.uniform(0, 5)
    return np.clip(frames * np.float32(gain) + offset.astype(np.float32) + noise, 0, 255).astype(np.uint8)


def make_batch(buffer: ClipBuffer, size: int, length: int) -> dict[str, Any]:
    """A batch in the form that CutieTrainWrapper and LossComputer take."""
    samples = [buffer.sample(length) for _ in range(size)]
    frames = torch.from_numpy(np.stack([sample[0] for sample in samples])).permute(0, 1, 4, 2, 3).float() / 255
    masks = torch.from_numpy(np.stack([sample[1] for sample in samples])).long()
    present = torch.tensor([int(sample[1].max()) for sample in samples])
    numbers = torch.arange(1, OBJECTS + 1)
    return {
        "rgb": frames.contiguous(),
        "first_frame_gt": (masks[:, :1, None] == numbers[None, None, :, None, None]).long(),
        "cls_gt": masks[:, :, None],
        "selector": (numbers[None] <= present[:, None]).float(),
        "info": {"num_objects": list(present)},
    }


def stage_config(length: int, learning_rate: float) -> DictConfig:
    """Settings of rf-cutie's main training stage, for this network and these pictures."""
    return OmegaConf.create(
        {
            "num_objects": OBJECTS,
            "seq_length": length,
            "num_ref_frames": 3,
            "deep_update_prob": 0.2,
            "amp": False,
            "learning_rate": learning_rate,
            "backbone_lr_ratio": 1.0,
            "weight_decay": 0.001,
            "embed_weight_decay": 0.0,
            "point_supervision": True,
            "train_num_points": 3072,
            "oversample_ratio": 3.0,
            "importance_sample_ratio": 0.75,
        }
    )


def set_length(network: nn.Module, length: int) -> None:
    """Let a CutieTrainWrapper take clips of another length."""
    from einops.layers.torch import Rearrange

    network.seq_length = length  # type: ignore[assignment]
    network.move_t_out_of_batch = Rearrange("(b t) c h w -> b t c h w", t=length)
    network.move_t_from_batch_to_volume = Rearrange("(b t) c h w -> b c t h w", t=length)


def thaw_batch_norms(network: nn.Module) -> None:
    """rf-cutie keeps its batch norms in evaluation mode; a network that starts from nothing must learn them."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.training = True


def train(part: Part, seed: int, output: Path, start: State | None = None) -> tuple[State, list[dict[str, float]]]:
    """Train from a state dict, or from scratch, and write the averaged weights to `output`.

    Returns:
        These weights in half precision, and the losses.
    """
    from cutie.model.losses import LossComputer
    from cutie.model.utils.parameter_groups import get_parameter_groups

    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (rf-cutie draws its deep updates from it)
    config, stage = cutie_config("tiny"), stage_config(part.stages[0][1], part.learning_rate)
    network = build_network(config, stage)
    if start:
        network.load_state_dict(start)
    network.train()
    thaw_batch_norms(network)
    average = MovingAverage(network, AVERAGE_DECAY)
    losses = LossComputer(config, stage)
    optimizer = torch.optim.AdamW(get_parameter_groups(network, stage), lr=stage.learning_rate)
    buffers = {width: ClipBuffer(seed, width, part.contrast) for _, _, width in part.stages}
    warm_up, schedule = max(1, min(100, part.iterations // 10)), part.schedule or part.iterations
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm_up, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / schedule))),
    )
    log: list[dict[str, float]] = []
    recent: list[float] = []
    bar = progress_bar(range(part.iterations), desc="cutie-demo")
    for step in bar:
        length, width = [entry[1:] for entry in part.stages if step >= entry[0] * schedule][-1]
        set_length(network, length)
        buffer = buffers[width]
        for _ in range(1 if buffer.made else 40):
            buffer.refresh()
        data = make_batch(buffer, BATCH, length)
        loss = losses.compute({**data, **network(data)}, [int(n) for n in data["info"]["num_objects"]])["total_loss"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 3.0)
        optimizer.step()
        scheduler.step()
        average.update(network)
        recent.append(float(loss.detach()) / (length - 1))
        if (step + 1) % 100 == 0 or step + 1 == part.iterations:
            log.append({"iteration": step + 1, "frames": length, "loss_per_frame": round(float(np.mean(recent)), 4)})
            bar.set_postfix(log[-1])
            recent.clear()
        if (step + 1) % 50 == 0 or step + 1 == part.iterations:
            with atomic_path(output) as temporary, temporary.open("wb") as file:
                torch.save(half_precision(average.state), file)
    return half_precision(average.state), log


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Train the demo weights of Cutie on procedural videos.")
    parser.add_argument("--output", type=Path, required=True, help="weights file to write")
    parser.add_argument("--from", type=Path, dest="start", help="weights to go on from; default: from scratch")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clips", type=int, default=120, help="held-out clips of each domain; 0: none")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    start, cpu = time.monotonic(), time.process_time()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    state, logs = None, []
    if options.start:
        state = torch.load(options.start, map_location="cpu", weights_only=True)
    for number, part in enumerate(GOING_ON if options.start else PARTS):
        state, log = train(part, options.seed + number, options.output, state)
        logs.append(log)
    seconds, cpu_seconds = time.monotonic() - start, time.process_time() - cpu
    given = sys.argv[1:] if arguments is None else arguments
    report = {
        "command": "python tools/demo_weights/demo_cutie.py " + " ".join(given),
        "seed": options.seed,
        "wall_seconds": round(seconds),
        "cpu_seconds": round(cpu_seconds),
        "torch": torch.__version__,
        "loss": logs,
    }
    if options.clips:
        tracker = Cutie(str(options.output), **DEMO_OPTIONS)
        report["held_out"] = held_out_scores("cutie-demo", tracker, options.clips)
    options.output.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
