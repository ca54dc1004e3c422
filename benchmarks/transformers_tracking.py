"""SAM 3 end to end, the session of transformers against vosarena's, same weights: JPEG files in, PNG files out.

    python benchmarks/transformers_tracking.py [--frames 60 240 960] [--objects 2] [--json FILE]
    python benchmarks/transformers_tracking.py --official --frames 4

The library's way is that of its documentation: all frames loaded first, one call per frame, masks written as they come.
Every run is a process of its own; building the network is not counted. The network is a small one with random weights
at 112 pixels, or with `--official` one of SAM 3's size at 1008 pixels, on procedural clips of 320x192 with one late
object. Ratios travel between machines, seconds do not.
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

Run = dict[str, Any]


def track(run: Run) -> Run:
    """One run in this process; see `measure`."""
    import torch

    torch.set_num_threads(1)
    paths = sorted(Path(run["video"]).glob("*.jpg"))
    prompts = {int(path.stem): read_mask(path) for path in sorted(Path(run["prompts"]).glob("*.png"))}
    masks = (_library if run["way"] == "library" else _ours)(Path(run["weights"]), paths, prompts)
    next(masks)  # the network is built
    output = Path(run["output"])
    output.mkdir()
    memory, started = PeakMemory(), time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_SELF)
    for path, labels in zip(paths, masks, strict=True):
        write_mask(output / f"{path.stem}.png", labels)
    wall, then = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    cpu = then.ru_utime + then.ru_stime - used.ru_utime - used.ru_stime
    return {"wall": wall, "cpu": cpu, "host_mb": memory.host_mb()}


def _ours(weights: Path, paths: list[Path], prompts: dict[int, np.ndarray]) -> Iterator[Any]:
    from vosarena.trackers.transformers import Transformers

    tracker = Transformers(str(weights))
    yield
    with Frames(paths) as frames:
        yield from tracker.track(frames, prompts)


def _library(weights: Path, paths: list[Path], prompts: dict[int, np.ndarray]) -> Iterator[Any]:
    from tests.support import transformers_session as library

    network = library.load("sam3", weights)
    yield
    frames = [read_frame(path) for path in paths]
    processor = library.processor_of("sam3", network.config.image_size)
    yield from map(library.label_map, library.track(network, processor, frames, prompts))


def measure(run: Run) -> Run:
    """The figures of one run in a fresh process: wall and cpu (seconds), host_mb (peak)."""
    done = subprocess.run([sys.executable, __file__, "--run", json.dumps(run)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{run['way']} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(frames: int, objects: int, folder: Path, weights: Path) -> tuple[Run, Run, bool]:
    """Both ways on one clip; the figures of the library, ours, and whether the masks are equal."""
    clip = make_clip(frames, frames=frames, size=(192, 320), objects=objects, events=("late",))
    for name in ("video", "prompts"):
        (folder / name).mkdir(parents=True)
    for index, frame in enumerate(clip.frames):
        Image.fromarray(frame).save(folder / "video" / f"{index:05d}.jpg", quality=92)
    for index, labels in first_appearances(clip.masks).items():
        write_mask(folder / "prompts" / f"{index:05d}.png", labels)
    shared = {"weights": str(weights), "video": str(folder / "video"), "prompts": str(folder / "prompts")}
    pair = [measure(shared | {"way": way, "output": str(folder / way)}) for way in ("library", "ours")]
    names = [path.name for path in sorted((folder / "ours").iterdir())]
    equal = all((read_mask(folder / "library" / n) == read_mask(folder / "ours" / n)).all() for n in names)
    return pair[0], pair[1], equal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[60, 240, 960])
    parser.add_argument("--objects", type=int, default=2)
    parser.add_argument("--official", action="store_true", help="the network of SAM 3's size, which is slow on a CPU")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(track(json.loads(options.run))))
        return
    from tests.support.transformers_session import write_weights
    from transformers import Sam3TrackerVideoConfig

    size = "SAM 3's size" if options.official else "small SAM 3"
    table = Table(title=f"CPU, 1 thread, {options.objects} objects, one of them late, 320x192, {size}")
    for name in ("frames", "wall lib/ours (s)", "CPU lib/ours (s)", "peak lib/ours (MB)", "masks"):
        table.add_column(name, justify="right")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        config = Sam3TrackerVideoConfig() if options.official else None
        weights = write_weights("sam3", Path(folder) / "weights", config=config)
        for frames in options.frames:
            library, ours, equal = compare(frames, options.objects, Path(folder) / str(frames), weights)
            cells = [f"{library[key]:.1f} / {ours[key]:.1f}" for key in ("wall", "cpu", "host_mb")]
            table.add_row(str(frames), *cells, "equal" if equal else "DIFFER")
            results.append({"frames": frames, "library": library, "ours": ours, "equal": equal})
    Console(width=110).print(table)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
