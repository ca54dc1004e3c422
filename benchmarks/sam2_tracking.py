"""SAM 2 end to end, upstream's way against vosarena's, with the same weights: JPEG files in, PNG files out.

    python benchmarks/sam2_tracking.py [--frames 60 240 960] [--objects 3] [--json FILE]
    python benchmarks/sam2_tracking.py --device cuda [--frames 60] [--networks sam2_hiera_l sam2_hiera_t]

Upstream's way is that of `tools/vos_inference.py`: all frames loaded first, all memories kept, one run per object where
objects appear late, all masks written at the end. Every run is a process of its own; building the network is not
counted. On the CPU: the demo network on procedural clips of 320x192, wall and CPU time, peak memory, whether the masks
are equal, and how far the options that are allowed to differ do differ. On CUDA: the official networks with random
weights at 1024 on a 1080p clip with 1, 3 and 10 objects, all in one process. Ratios travel between machines, seconds do
not.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tools" / "demo_weights")]

from held_out import first_appearances  # noqa: E402
from vosarena.demo.synthesize import make_clip  # noqa: E402
from vosarena.inference.usage import PeakMemory  # noqa: E402
from vosarena.io.frames import Frames  # noqa: E402
from vosarena.io.masks import davis_palette, read_mask, write_mask  # noqa: E402

DEMO_WEIGHTS = REPOSITORY / "src/vosarena/config/catalog/weights/sam2-demo.pth"
FAST = {"encoder_batch": 4, "batch_objects": 16}
DEVIATING: dict[str, dict[str, Any]] = {
    "encoder_batch=4": {"encoder_batch": 4},
    "batch_objects=16": {"batch_objects": 16},
    "precision=bf16": {"precision": "bf16"},
    "compile=true": {"compile": True},
}
GPU_WAYS: dict[str, dict[str, Any]] = {
    "upstream": {},
    "ours": {},
    "ours, cuda-graphs": {"compile": "cuda-graphs"},
    "ours, fast, cuda-graphs": FAST | {"compile": "cuda-graphs"},
}
UNWRITTEN = 16
WARM = 12  # frames that are tracked on a GPU before the measurement

Run = dict[str, Any]


def track(run: Run) -> Run:
    """One run in this process; see `measure`."""
    import torch

    torch.set_num_threads(run["threads"])
    folder, output = Path(run["video"]), Path(run["output"])
    output.mkdir()
    paths = sorted(folder.glob("*.jpg"))
    prompts = {int(path.stem): read_mask(path) for path in sorted((folder.parent / "prompts").glob("*.png"))}
    track_with = _upstream(run, folder, prompts) if run["way"] == "upstream" else _ours(run, paths, prompts)
    next(track_with)  # the network is built
    next(track_with)  # and warm
    if run["device"] == "cuda":
        torch.cuda.synchronize()
    memory, started = PeakMemory(), time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_SELF)
    for _ in track_with:
        pass
    wall, then = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu = then.ru_utime + then.ru_stime - used.ru_utime - used.ru_stime
    return {"wall": wall, "cpu": cpu, "host_mb": memory.host_mb(), "gpu_mb": memory.gpu_mb(), "frames": len(paths)}


def _ours(run: Run, paths: list[Path], prompts: dict[int, np.ndarray]) -> Iterator[None]:
    from vosarena.trackers.sam2 import Sam2

    tracker = Sam2(run["config"], run["weights"], run["image_size"], device=run["device"], **run["options"])
    yield
    if run["device"] == "cuda":
        with Frames(paths[:WARM]) as frames:
            deque(tracker.track(frames, prompts), maxlen=0)
    yield
    waiting: deque[Future[None]] = deque()
    with Frames(paths) as frames, ThreadPoolExecutor(2) as writers:
        for path, labels in zip(paths, tracker.track(frames, prompts), strict=True):
            waiting.append(writers.submit(write_mask, Path(run["output"]) / f"{path.stem}.png", labels))
            if len(waiting) > UNWRITTEN:
                waiting.popleft().result()


def _upstream(run: Run, folder: Path, prompts: dict[int, np.ndarray]) -> Iterator[None]:
    import torch
    from tests.support import sam2_upstream

    predictor = sam2_upstream.build(run["config"], run["weights"], run["image_size"], device=run["device"])
    yield
    cuda = run["device"] == "cuda"
    with torch.autocast("cuda", torch.bfloat16) if cuda else contextlib.nullcontext():
        if cuda:
            deque(sam2_upstream.track_together(predictor, folder.parent / "warm", prompts), maxlen=0)
    yield
    with torch.autocast("cuda", torch.bfloat16) if cuda else contextlib.nullcontext():
        if list(prompts) == [0]:
            masks = list(sam2_upstream.track_together(predictor, folder, prompts))
        else:
            masks = list(sam2_upstream.track_separately(predictor, folder, prompts))
    for index, labels in enumerate(masks):
        image = Image.fromarray(labels)
        image.putpalette(davis_palette())
        image.save(Path(run["output"]) / f"{index:05d}.png")


def measure(run: Run) -> Run:
    """The figures of one run in a fresh process: wall and cpu (seconds), host_mb and gpu_mb (peaks), frames."""
    command = [sys.executable, __file__, "--run", json.dumps(run)]
    environment = os.environ | {"OMP_NUM_THREADS": str(run["threads"])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{run['way']} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def make_video(folder: Path, frames: int, objects: int, late: bool, size: tuple[int, int]) -> Path:
    """A procedural video as JPEG files, and its prompts beside it."""
    clip = make_clip(frames, frames=frames, size=size, objects=objects, events=("late",) if late else ())
    video = folder / "video"
    for place in (video, folder / "prompts"):
        place.mkdir(parents=True)
    for index, frame in enumerate(clip.frames):
        Image.fromarray(frame).save(video / f"{index:05d}.jpg", quality=92)
    for index, labels in first_appearances(clip.masks).items():
        write_mask(folder / "prompts" / f"{index:05d}.png", labels)
    return video


def difference(first: Path, second: Path) -> tuple[float, float]:
    """Of two folders of masks: the share of pixels that differ, and the mean IoU over objects and frames."""
    changed, overlaps = [], []
    for path in sorted(first.glob("*.png")):
        a, b = read_mask(path), read_mask(second / path.name)
        changed.append(np.mean(a != b))
        for number in np.union1d(np.unique(a), np.unique(b)):
            if number:
                overlaps.append(np.sum((a == number) & (b == number)) / np.sum((a == number) | (b == number)))
    return float(np.mean(changed)), float(np.mean(overlaps)) if overlaps else 1.0


def on_cpu(options: argparse.Namespace, folder: Path, console: Console) -> list[Run]:
    """The comparison on the CPU; prints two tables."""
    shared: Run = {"config": "sam2_demo", "weights": str(DEMO_WEIGHTS), "image_size": None, "device": "cpu"}
    shared |= {"threads": options.threads, "options": {}}
    table = Table(title=f"CPU, {options.threads} threads, {options.objects} objects, 320x192, demo network")
    for name in ("objects", "frames", "wall up/ours (s)", "CPU up/ours (s)", "peak up/ours (MB)", "masks"):
        table.add_column(name, justify="right")
    results: list[Run] = []
    for late in (False, True) if options.objects > 1 else (False,):  # the first frame needs an object
        for frames in options.frames:
            place = folder / f"{frames}-{late}"
            video = make_video(place, frames, options.objects, late, (192, 320))
            pair = []
            for way in ("upstream", "ours"):
                run = shared | {"way": way, "video": str(video), "output": str(place / way)}
                pair.append(measure(run))
                results.append({"late": late, "way": way, **pair[-1]})
            equal = difference(place / "upstream", place / "ours")[0] == 0
            cells = [_ratio(pair, key) for key in ("wall", "cpu", "host_mb")]
            table.add_row("late" if late else "at once", str(frames), *cells, "equal" if equal else "DIFFER")
    console.print(table)
    table = Table(title="Options that may differ in the last bits")
    for name in ("option", "pixels that differ", "IoU with the default", "wall / default"):
        table.add_column(name, justify="right")
    video = make_video(folder / "options", 60, options.objects, False, (192, 320))
    base = measure(shared | {"way": "ours", "video": str(video), "output": str(folder / "default")})
    for name, chosen in DEVIATING.items():
        if "compile" in chosen and not options.compile:
            continue
        output = folder / name
        run = shared | {"way": "ours", "video": str(video), "output": str(output), "options": chosen}
        figures = measure(run)
        pixels, iou = difference(folder / "default", output)
        results.append({"option": name, "pixels": pixels, "iou": iou, **figures})
        table.add_row(name, f"{pixels:.2e}", f"{iou:.6f}", f"{figures['wall'] / base['wall']:.2f}")
    console.print(table)
    return results


def on_gpu(options: argparse.Namespace, folder: Path, console: Console) -> list[Run]:
    """Frames per second of official networks at 1024 on a 1080p clip, all in this process; prints a line per run."""
    import torch
    from tests.support import sam2_upstream

    clip = options.clip or folder / "clip"
    if not clip.exists():
        make_video(clip, options.frames[0], max(options.gpu_objects), False, (1080, 1920))
    first, results = read_mask(clip / "prompts" / "00000.png"), []
    for network in options.networks:
        weights = sam2_upstream.random_weights(network, folder / f"{network}.pth", 0, 1024)
        shared: Run = {"config": network, "weights": str(weights), "image_size": 1024, "device": "cuda"}
        for objects in options.gpu_objects:
            place = folder / network / str(objects)
            (place / "prompts").mkdir(parents=True)
            (place / "video").symlink_to((clip / "video").absolute())
            (place / "warm").mkdir()
            for path in sorted((clip / "video").iterdir())[:WARM]:
                (place / "warm" / path.name).symlink_to(path.absolute())
            write_mask(place / "prompts" / "00000.png", np.where(first <= objects, first, 0).astype(np.uint8))
            slowest = None
            for way, chosen in GPU_WAYS.items():
                run = shared | {"way": way.split(",")[0], "options": chosen, "threads": options.threads}
                figures = track(run | {"video": str(place / "video"), "output": str(place / way)})
                gc.collect()
                torch.cuda.empty_cache()
                fps, pixels = figures["frames"] / figures["wall"], difference(place / "upstream", place / way)[0]
                slowest = slowest or fps
                results.append({"network": network, "objects": objects, "way": way, "fps": fps, "pixels": pixels})
                results[-1] |= figures
                console.print(
                    f"{network}, {objects} objects, {way}: {fps:.1f} frames/s ({fps / slowest:.2f}x upstream), "
                    f"{figures['cpu']:.1f} CPU s, {figures['gpu_mb']:.0f} MB on the GPU, {pixels:.1e} of pixels differ",
                    highlight=False,
                    soft_wrap=True,
                )
    return results


def _ratio(pair: list[Run], key: str) -> str:
    return f"{pair[0][key]:.1f} / {pair[1][key]:.1f} = {pair[0][key] / pair[1][key]:.2f}x"


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="SAM 2 end to end, upstream's way against vosarena's.")
    parser.add_argument("--frames", type=int, nargs="+", help="lengths of the clips (default: 60 240 960; on CUDA 60)")
    parser.add_argument("--objects", type=int, default=3, help="objects on the CPU")
    parser.add_argument("--networks", nargs="+", default=["sam2_hiera_l", "sam2_hiera_t"], help="on CUDA")
    parser.add_argument("--gpu-objects", type=int, nargs="+", default=[1, 3, 10], help="objects on CUDA")
    parser.add_argument("--clip", type=Path, help="on CUDA: folder for the clip, which is made if it is not there")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--compile", action="store_true", help="on the CPU also with torch.compile, which takes minutes"
    )
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(track(json.loads(options.run))))
        return
    options.frames = options.frames or ([60] if options.device == "cuda" else [60, 240, 960])
    with tempfile.TemporaryDirectory() as folder:
        results = (on_gpu if options.device == "cuda" else on_cpu)(options, Path(folder), Console())
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
