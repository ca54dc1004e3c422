"""Cutie, upstream's evaluation loop against vosarena's, with the same weights; and how fast it is fine-tuned.

    python benchmarks/cutie_tracking.py [--frames 60] [--objects 3] [--size 128] [--model tiny] [--device cpu]
    python benchmarks/cutie_tracking.py --device cuda --model base --size 480 --clip 1080 1920

Both sides read JPEG files and write PNG files of one procedural clip, each run in a process of its own, in turn;
building the network is not counted. Upstream's side is eval_vos.py of rf-cutie (tests/support/cutie_upstream.py).
Fine-tuning runs a few iterations with no and with one process that reads samples. Ratios travel between machines,
seconds do not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tools" / "demo_weights")]

from tests.support.cutie_upstream import upstream  # noqa: E402

from held_out import first_appearances  # noqa: E402
from vosarena.datasets.sequences import read_sequence  # noqa: E402
from vosarena.demo.synthesize import make_clip  # noqa: E402
from vosarena.finetuning.recipe import read_recipe  # noqa: E402
from vosarena.finetuning.task import TrainingTask  # noqa: E402
from vosarena.finetuning.train import train as train_model  # noqa: E402
from vosarena.inference.usage import PeakMemory  # noqa: E402
from vosarena.io.frames import Frames  # noqa: E402
from vosarena.io.masks import read_mask, write_mask  # noqa: E402
from vosarena.trackers.cutie import Cutie  # noqa: E402
from vosarena.trackers.cutie_network import build_network, cutie_config  # noqa: E402


def prepare(root: Path, frames: int, objects: int, model: str, size: tuple[int, int]) -> None:
    """One clip with its prompts, and random weights."""
    clip = make_clip(1, frames=frames, objects=objects, size=size)
    for kind in ("JPEGImages", "Annotations", "dense"):
        (root / kind / "clip").mkdir(parents=True)
    for index, frame in enumerate(clip.frames):
        cv2.imwrite(str(root / "JPEGImages" / "clip" / f"{index:05d}.jpg"), frame[..., ::-1])
        write_mask(root / "dense" / "clip" / f"{index:05d}.png", clip.masks[index])
    for index, prompt in first_appearances(clip.masks).items():
        write_mask(root / "Annotations" / "clip" / f"{index:05d}.png", prompt)
    torch.manual_seed(0)
    torch.save(build_network(cutie_config(model)).state_dict(), root / "weights.pth")


def track(side: str, root: Path, model: str, size: int, device: str) -> dict[str, float]:
    """One run in this process: seconds, without the building of the network, and peak memory, with it."""
    files = read_sequence(root / "JPEGImages", root / "Annotations", "clip")
    output, memory = root / side / "clip", PeakMemory()
    if side == "upstream":
        started = time.perf_counter()
        upstream(root, output.parent, root / "weights.pth", model, device, size=size)
        seconds = time.perf_counter() - started
        (output.parent / "Annotations" / "clip").rename(output)
        started = time.perf_counter()
        build_network(cutie_config(model))
        seconds -= time.perf_counter() - started
    else:
        tracker = Cutie(str(root / "weights.pth"), model=model, size=size, device=device, arithmetic="rf-cutie")
        output.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        with Frames(files.frames) as frames, ThreadPoolExecutor(1) as writer:
            for path, labels in zip(files.frames, tracker.track(frames, files.prompts()), strict=True):
                writer.submit(write_mask, output / f"{path.stem}.png", labels)
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "memory": memory.host_mb(), "gpu": memory.gpu_mb() or 0}


def train(root: Path, workers: int, device: str) -> dict[str, float]:
    """Iterations per second of a short fine-tuning, and the share of the time spent waiting for samples."""
    data = root / "train"
    if not data.exists():
        data.mkdir()
        (data / "JPEGImages").symlink_to(root / "JPEGImages")
        (data / "Annotations").symlink_to(root / "dense")
    entry: dict[str, Any] = {"model": "tiny", "iterations": 12, "batch": 4, "frames": 4, "crop": 128, "points": 3072}
    recipe = read_recipe(entry | {"workers": workers, "amp": device == "cuda"})
    work = root / f"work-{workers}"
    weights, output = root / "tiny.pth", work / "out.pth"
    train_model(TrainingTask(recipe, {"benchmark/train": data}, weights, output, work, device=device))
    log = pd.read_parquet(work / "loss.parquet").iloc[2:]  # the first ones warm up
    return {"rate": len(log) / log["seconds"].sum(), "waiting": log["waiting"].sum() / log["seconds"].sum()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Benchmark of Cutie against its own evaluation loop.")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--objects", type=int, default=3)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--clip", type=int, nargs=2, default=(192, 320), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.run:
        what, folder = options.run
        if what in ("ours", "upstream"):
            print(json.dumps(track(what, Path(folder), options.model, options.size, options.device)))
        else:
            print(json.dumps(train(Path(folder), int(what), options.device)))
        return
    with tempfile.TemporaryDirectory() as folder:
        report(options, Path(folder))


def report(options: argparse.Namespace, root: Path) -> None:
    """All runs, in turn, and their table."""
    prepare(root, options.frames, options.objects, options.model, tuple(options.clip))
    torch.manual_seed(0)
    torch.save(build_network(cutie_config("tiny")).state_dict(), root / "tiny.pth")

    def run(what: str) -> dict[str, float]:
        command = [sys.executable, __file__, "--run", what, str(root), "--model", options.model]
        command += ["--size", str(options.size), "--device", options.device, "--threads", str(options.threads)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    runs: dict[str, list[dict[str, float]]] = {"upstream": [], "ours": []}
    for _ in range(options.repeats):
        for side, results in runs.items():
            results.append(run(side))
    best = {side: min(results, key=lambda result: result["seconds"]) for side, results in runs.items()}
    names = sorted(path.name for path in (root / "ours" / "clip").iterdir())
    same = sum(
        np.array_equal(read_mask(root / "ours" / "clip" / name), read_mask(root / "upstream" / "clip" / name))
        for name in names
    )
    training = {workers: run(str(workers)) for workers in (0, 1)}
    table = Table("", "frames/s", "peak memory MB", "GPU MB")
    for side, result in best.items():
        rate = options.frames / result["seconds"]
        table.add_row(side, f"{rate:.1f}", f"{result['memory']:.0f}", f"{result['gpu']:.0f}")
    console = Console()
    console.print(table)
    ratio = best["upstream"]["seconds"] / best["ours"]["seconds"]
    console.print(f"ours is {ratio:.2f} times as fast; {same} of {len(names)} masks are equal")
    for workers, result in training.items():
        share = f"{result['waiting']:.0%} of it waiting for samples"
        console.print(f"fine-tuning, {workers} readers: {result['rate']:.2f} iterations/s, {share}")
    if options.json:
        options.json.write_text(json.dumps({"best": best, "equal": same, "training": training}, indent=1) + "\n")


if __name__ == "__main__":
    main()
