"""How fast are J and F? `vosarena.evaluate` next to vos-benchmark, and next to two limits, in one run.

    python benchmarks/metrics.py [--real FOLDER] [--frames N] [--seconds N] [--json FILE]

Measures CPU time, user and system, per pair of masks of one process: reading, decoding, counting and scoring. Both
programs read the same files and are warm, so their start is not counted. Equality of all J and F is checked on the way.

`--real` is a folder with `gt/` and `pred/`, masks of DAVIS 2016 with one object. From these, label maps with 3 and 20
objects are pasted together. The other label maps are drawn: moving blobs, and predictions that are shifted, eroded and
dropped versions of them.

The limits are what a program does that works on pixels: it decompresses the files (with libdeflate, into memory that
is kept), and looks at each pixel once. vosarena does neither for most files, so it can take less time. Ratios travel
between machines, times do not.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from deflate import zlib_decompress
from rich.console import Console
from rich.table import Table
from vos_benchmark.benchmark import VideoEvaluator

import vosarena
from vosarena.io.masks import read_mask, write_mask
from vosarena.io.png import _read_chunks

SIZES = {"480p": (480, 854), "1080p": (1080, 1920)}
FRAMES = 60  # a clip of DAVIS has 67 on average
OBJECTS = (1, 3, 20)
TARGETS = {("real", "480p"): (30, 45, 70), ("drawn", "480p"): (40, 55, 95), ("drawn", "1080p"): (None, 200, None)}
GRID = (4, 5)  # rows and columns of small copies, for label maps with 20 objects

Pairs = Iterator[tuple[str, np.ndarray, np.ndarray]]


def drawn(size: str, objects: int, frames: int) -> Pairs:
    """Frames of wobbly, moving blobs, and predictions: eroded, shifted, one object lost in every seventh frame."""
    height, width = SIZES[size]
    rng = np.random.default_rng(objects)
    for frame in range(frames):
        labels = np.zeros((height, width), np.uint8)
        for label in range(1, objects + 1):
            centre = np.array([width * (0.15 + 0.7 * (label * 0.37 % 1)), height * (0.2 + 0.6 * (label * 0.61 % 1))])
            centre += np.array([3, 2]) * frame * height / 480
            angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
            wobble = 1 + 0.2 * np.sin(5 * angles + label + frame / 5) + rng.normal(0, 0.01, len(angles))
            radius = height * 0.22 / np.sqrt(objects)
            points = centre + radius * wobble[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
            cv2.fillPoly(labels, [np.rint(points).astype(np.int32)], label)
        pred = np.roll(cv2.erode(labels, np.ones((3, 3), np.uint8)), (frame % 5 - 2, frame % 7 - 3), (0, 1))
        if frame % 7 == 6:
            pred[pred == labels.max()] = 0
        yield f"drawn/{frame:05d}", labels, pred


def real(root: Path, objects: int, frames: int) -> Pairs:
    """Masks of DAVIS 2016: as they are, three of them in one map, or twenty small copies in a grid."""
    sequences = sorted((root / "gt").iterdir())
    stems = [[file.stem for file in sorted(sequence.glob("*.png"))][:frames] for sequence in sequences]
    if objects == 1:
        for sequence, own in zip(sequences, stems, strict=True):
            for stem in own:
                pair = [root / side / sequence.name / f"{stem}.png" for side in ("gt", "pred")]
                yield f"{sequence.name}/{stem}", *(np.minimum(read_mask(file), 1) for file in pair)
        return
    for frame in range(min(map(len, stems))):
        maps = []
        for side in ("gt", "pred"):
            masks = [
                read_mask(root / side / s.name / f"{own[frame]}.png") > 0
                for s, own in zip(sequences, stems, strict=True)
            ]
            labels = np.zeros_like(masks[0], np.uint8)
            for label in range(1, objects + 1):
                mask, place = masks[label % len(masks)], labels
                if objects > 3:
                    row, column = divmod(label - 1, GRID[1])
                    mask = mask[::3, ::3]
                    top = row * labels.shape[0] // GRID[0]
                    left = column * labels.shape[1] // GRID[1]
                    place = labels[top:, left:][: mask.shape[0], : mask.shape[1]]
                    mask = mask[: place.shape[0], : place.shape[1]]
                place[mask] = label
            maps.append(labels)
        yield f"real/{frame:05d}", *maps


def cpu_seconds(work: Callable[[], object], least: float) -> float:
    """Seconds of CPU time, user and system, of the quickest of all calls in `least` seconds.

    Other programs on the machine slow down some calls; the quickest one is what the work takes.
    """
    begin, best = time.process_time(), float("inf")
    while time.process_time() - begin < least or best == float("inf"):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def compare(root: Path, kind: str, size: str, objects: int, pairs: Pairs, least: float) -> dict[str, object]:
    """Times of one setting, in milliseconds per pair of masks."""
    gt, pred = root / "gt", root / "pred"
    for name, labels, prediction in pairs:
        for folder, content in ((gt, labels), (pred, prediction)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_mask(folder / f"{name}.png", content)
    files = sorted(root.glob("*/*/*.png"))
    sequences = sorted(folder.name for folder in gt.iterdir())
    results: list[tuple[str, dict[int, float], dict[int, float]]] = []
    evaluator = VideoEvaluator(str(gt), str(pred))
    streams = [bytes(_read_chunks(file.read_bytes())[1]) for file in files]
    height, width = SIZES[size]
    maps = np.stack([read_mask(file) for file in files[:20]])

    def ours() -> None:
        nonlocal scores
        scores = vosarena.evaluate(gt, pred, "vos-benchmark").scores

    def peer() -> None:
        results[:] = [evaluator(name) for name in sequences]

    def decompress() -> None:
        for stream in streams:
            zlib_decompress(stream, height * (1 + width))

    def look() -> None:
        for labels in maps:
            labels.max()

    scores: tuple[vosarena.metrics.records.SequenceScore, ...] = ()
    ours()  # compiled and cached
    n_pairs = len(files) / 2
    n_scored = n_pairs - 2 * len(sequences)  # vos-benchmark does not open the first and the last frame
    row = {
        "masks": kind,
        "size": size,
        "objects": objects,
        "vosarena_ms": 1e3 * cpu_seconds(ours, least) / n_pairs,
        "vos_benchmark_ms": 1e3 * cpu_seconds(peer, least) / n_scored,
        "decompress_ms": 1e3 * cpu_seconds(decompress, least / 4) / n_pairs,
        "look_ms": 1e3 * cpu_seconds(look, least / 4) / len(maps) * 2,
    }
    theirs = {(name, i): (j[i], f[i]) for name, j, f in results for i in j}
    assert theirs == {(item.sequence, item.object_id): (item.j, item.f) for item in scores}, "scores differ"
    target = TARGETS[kind, size][OBJECTS.index(objects)]
    return {**row, "ratio": float(row["vos_benchmark_ms"]) / float(row["vosarena_ms"]), "target": target}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, help="folder with gt/ and pred/ of DAVIS 2016")
    parser.add_argument("--frames", type=int, default=FRAMES, help="length of the clips")
    parser.add_argument("--seconds", type=float, default=1.0, help="least CPU time per measurement")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    settings = [("real", "480p")] * bool(args.real) + [("drawn", size) for size in SIZES]
    rows = []
    for kind, size in settings:
        for objects in OBJECTS:
            pairs = real(args.real, objects, args.frames) if kind == "real" else drawn(size, objects, args.frames)
            with tempfile.TemporaryDirectory() as root:
                rows.append(compare(Path(root), kind, size, objects, pairs, args.seconds))
    table = Table("masks", "size", "objects", "vosarena", "vos-benchmark", "decompress", "look", "ratio", "target")
    for row in rows:
        times = (f"{row[name]:.3f}" for name in ("vosarena_ms", "vos_benchmark_ms", "decompress_ms", "look_ms"))
        last = (f"{row['ratio']:.0f}x", f"{row['target']}x" if row["target"] else "")
        table.add_row(*(str(row[name]) for name in ("masks", "size", "objects")), *times, *last)
    console = Console(width=120)
    console.print("Milliseconds of CPU, user and system, per pair of masks; J and F equal to the last bit.")
    console.print(table)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
