"""SAM 3 end to end, the session of transformers against vosarena's, same weights: JPEG files in, PNG files out.

    python benchmarks/transformers_tracking.py [--frames 60 240 960] [--objects 2] [--json FILE]
    python benchmarks/transformers_tracking.py --official --frames 4 [--kind sam2|edgetam] [--device cuda]
    python benchmarks/transformers_tracking.py --memory samurai dam long rcms --frames 120 960

The library's way is that of its documentation: all frames loaded first, one call per frame, masks written as they come.
Every run is a process of its own; building the network is not counted. The network is a small one with random weights
at 112 pixels, or with `--official` one of the size of SAM 3, SAM 2.1-T or EdgeTAM at 1008 or 1024 pixels, on procedural
clips of 320x192 with one late object. On CUDA, both sides use bfloat16 autocast. Memory rules, which the library does
not have, are measured alone. Ratios travel between machines, seconds do not.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tools" / "demo_weights")]

from held_out import first_appearances  # noqa: E402
from vosarena.demo.clips import make_clip  # noqa: E402
from vosarena.inference.usage import PeakMemory  # noqa: E402
from vosarena.io.frames import Frames, read_frame  # noqa: E402
from vosarena.io.masks import read_mask, write_mask  # noqa: E402
from vosarena.trackers.memory import RULES  # noqa: E402

Run = dict[str, Any]


def track(run: Run) -> Run:
    """One run in this process; see `measure`."""
    import torch

    torch.set_num_threads(1)
    paths = sorted(Path(run["video"]).glob("*.jpg"))
    prompts = {int(path.stem): read_mask(path) for path in sorted(Path(run["prompts"]).glob("*.png"))}
    masks = _library(run, paths, prompts) if run["way"] == "library" else _ours(run, paths, prompts)
    next(masks)  # the network is built
    output = Path(run["output"])
    output.mkdir()
    autocast = torch.autocast("cuda", torch.bfloat16, enabled=run["device"] == "cuda" and run["way"] == "library")
    memory, started = PeakMemory(), time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_SELF)
    with autocast:
        for path, labels in zip(paths, masks, strict=True):
            write_mask(output / f"{path.stem}.png", labels)
    wall, then = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu = then.ru_utime + then.ru_stime - used.ru_utime - used.ru_stime
    return {"wall": wall, "cpu": cpu, "host_mb": memory.host_mb(), "gpu_mb": memory.gpu_mb() or 0}


def _ours(run: Run, paths: list[Path], prompts: dict[int, np.ndarray]) -> Iterator[Any]:
    from vosarena.trackers.transformers import Transformers

    graphs = "cuda-graphs" if run["way"] == "graphs" else False
    tracker = Transformers(run["weights"], memory=run.get("memory", "fifo"), compile=graphs, device=run["device"])
    yield
    with Frames(paths) as frames:
        yield from tracker.track(frames, prompts)


def _library(run: Run, paths: list[Path], prompts: dict[int, np.ndarray]) -> Iterator[Any]:
    from tests.support import transformers_session as library

    network = library.load(run["kind"], run["weights"], run["device"])
    yield
    frames = [read_frame(path) for path in paths]
    processor = library.processor_of(run["kind"], network.config.image_size)
    yield from map(library.label_map, library.track(network, processor, frames, prompts))


def measure(run: Run) -> Run:
    """The figures of one run in a fresh process: wall and cpu (seconds), host_mb (peak)."""
    done = subprocess.run([sys.executable, __file__, "--run", json.dumps(run)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{run['way']} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(ways: list[str], frames: int, objects: int, folder: Path, weights: dict[str, str]) -> dict[str, Run]:
    """The figures of every way (`library`, `ours`, `graphs`, or a memory rule) on one clip, and the equal masks."""
    clip = make_clip(frames, frames=frames, size=(192, 320), objects=objects, events=("late",))
    for name in ("video", "prompts"):
        (folder / name).mkdir(parents=True)
    for index, frame in enumerate(clip.frames):
        Image.fromarray(frame).save(folder / "video" / f"{index:05d}.jpg", quality=92)
    for index, labels in first_appearances(clip.masks).items():
        write_mask(folder / "prompts" / f"{index:05d}.png", labels)
    shared = weights | {"video": str(folder / "video"), "prompts": str(folder / "prompts")}
    figures = {}
    for way in ways:
        rule = {"memory": way} if way in RULES else {}
        figures[way] = measure(shared | rule | {"way": way, "output": str(folder / way)})
    names = [path.name for path in sorted((folder / ways[0]).iterdir())]
    for way in ways:
        differ = ((read_mask(folder / ways[0] / name) != read_mask(folder / way / name)).mean() for name in names)
        figures[way]["differ"] = float(np.mean(list(differ)))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[60, 240, 960])
    parser.add_argument("--objects", type=int, default=2)
    parser.add_argument("--official", action="store_true", help="the network of the official size, slow on a CPU")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--kind", default="sam3", choices=["sam3", "sam2", "edgetam"])
    parser.add_argument("--memory", nargs="+", metavar="RULE", help="memory rules, without the library")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(track(json.loads(options.run))))
        return
    from tests.support.transformers_session import KINDS, write_weights

    size = "official size" if options.official else "small"
    title = f"{options.device}, {options.objects} objects, one of them late, 320x192, {options.kind}, {size}"
    table = Table(title=title)
    for name in ("frames", "way", "wall (s)", "CPU (s)", "peak (MB)", "GPU (MB)", "pixels that differ from the first"):
        table.add_column(name, justify="right")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        config = KINDS[options.kind][1].config_class() if options.official else None
        written = write_weights(options.kind, Path(folder) / "weights", config=config)
        weights = {"weights": str(written), "kind": options.kind, "device": options.device}
        graphs = ["graphs"] if options.device == "cuda" else []
        for frames in options.frames:
            ways = options.memory or ["library", "ours", *graphs]
            figures = compare(ways, frames, options.objects, Path(folder) / str(frames), weights)
            for way, found in figures.items():
                cells = [f"{found[key]:.1f}" for key in ("wall", "cpu", "host_mb", "gpu_mb")]
                table.add_row(str(frames), way, *cells, f"{found['differ']:.2e}" if found["differ"] else "none")
            results.append({"frames": frames, **figures})
    Console(width=110).print(table)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
