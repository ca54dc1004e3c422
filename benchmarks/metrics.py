"""How fast are J and F? vosarena's measure against vos-benchmark and against PIL's decoding alone, in one run.

    python benchmarks/metrics.py [--frames N] [--seconds N] [--json FILE]

Draws label maps with 1, 3 and 10 objects at 480p and 1080p, predictions that are shifted, eroded and dropped versions
of them, writes both as palette PNGs, and measures user CPU time per object and frame of one process, decoding
included. Both sides read the same files; the compiled loops are warm, `measure` also writes its Parquet. Exact
equality of all J and F is checked on the way. Ratios travel between machines, milliseconds do not.
"""

import argparse
import json
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from vos_benchmark.benchmark import VideoEvaluator

from vosarena.io.masks import write_mask
from vosarena.metrics.measure import measure
from vosarena.metrics.pairs import pair_folders
from vosarena.metrics.protocols import score

SIZES = {"480p": (480, 854), "1080p": (1080, 1920)}
FRAMES = 60  # a clip of DAVIS has 67 on average
OBJECTS = (1, 3, 10)
TARGETS = {"480p": (20, 35, 50), "1080p": (60, 130, 250)}


def draw(height: int, width: int, objects: int, frame: int, rng: np.random.Generator) -> np.ndarray:
    """A label map of wobbly, moving blobs, uint8 (H, W)."""
    labels = np.zeros((height, width), np.uint8)
    for label in range(1, objects + 1):
        centre = np.array([width * (0.15 + 0.7 * (label * 0.37 % 1)), height * (0.2 + 0.6 * (label * 0.61 % 1))])
        centre += np.array([3, 2]) * frame * height / 480
        angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        wobble = 1 + 0.2 * np.sin(5 * angles + label + frame / 5) + rng.normal(0, 0.01, len(angles))
        radius = height * 0.22 / np.sqrt(objects)
        points = centre + radius * wobble[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
        cv2.fillPoly(labels, [np.rint(points).astype(np.int32)], label)
    return labels


def spoil(labels: np.ndarray, frame: int) -> np.ndarray:
    """A prediction: eroded, shifted, one object lost in every seventh frame."""
    pred = cv2.erode(labels, np.ones((3, 3), np.uint8))
    pred = np.roll(pred, (frame % 5 - 2, frame % 7 - 3), (0, 1))
    if frame % 7 == 6:
        pred[pred == labels.max()] = 0
    return pred


def user_seconds(work: Callable[[], object], least: float) -> float:
    """User CPU seconds of one call, from as many calls as take `least` seconds: the clock ticks are coarse."""
    start, calls = resource.getrusage(resource.RUSAGE_SELF).ru_utime, 0
    while (spent := resource.getrusage(resource.RUSAGE_SELF).ru_utime - start) < least or not calls:
        work()
        calls += 1
    return spent / calls


def compare(root: Path, size: str, objects: int, frames: int, least: float) -> dict[str, float | int | str]:
    """Times of one setting, in milliseconds per object and frame."""
    rng = np.random.default_rng(objects)
    gt, pred = root / "gt", root / "pred"
    for folder in (gt, pred):
        (folder / "clip").mkdir(parents=True)
    for frame in range(frames):
        labels = draw(*SIZES[size], objects, frame, rng)
        write_mask(gt / "clip" / f"{frame:05d}.png", labels)
        write_mask(pred / "clip" / f"{frame:05d}.png", spoil(labels, frame))
    files = sorted(root.glob("*/clip/*.png"))
    output = root / "counts.parquet"

    def ours() -> None:
        measure(pair_folders(gt, pred), output, dataset="d", split="s", model="m", progress=False)

    def pil() -> None:
        for file in files:
            np.array(Image.open(file))

    ours()  # compiled and cached
    mine = user_seconds(ours, least) / frames / objects
    decode = user_seconds(pil, least) / frames / objects
    results = []
    evaluate = VideoEvaluator(str(gt), str(pred))
    peer = user_seconds(lambda: results.append(evaluate("clip")), least) / (frames - 2) / objects
    _, iou, boundary = results[0]
    scores = score(output, "vos-benchmark").set_index("object_id")
    assert scores["j"].to_dict() == iou and scores["f"].to_dict() == boundary, "scores differ from vos-benchmark"
    return {
        "size": size,
        "objects": objects,
        "vosarena_ms": mine * 1e3,
        "vos_benchmark_ms": peer * 1e3,
        "pil_decode_ms": decode * 1e3,
        "ratio": peer / mine,
        "target": TARGETS[size][OBJECTS.index(objects)],
        "of_pil_decode": mine / decode,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=FRAMES, help="length of the clips")
    parser.add_argument("--seconds", type=float, default=1.0, help="least CPU time per measurement")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    rows = []
    for size in SIZES:
        for objects in OBJECTS:
            with tempfile.TemporaryDirectory() as root:
                rows.append(compare(Path(root), size, objects, args.frames, args.seconds))
    table = Table("size", "objects", "vosarena", "vos-benchmark", "PIL decode", "ratio", "target", "of PIL's decode")
    for row in rows:
        times = (f"{row[name]:.3f} ms" for name in ("vosarena_ms", "vos_benchmark_ms", "pil_decode_ms"))
        last = (f"{row['ratio']:.0f}x", f"{row['target']}x", f"{row['of_pil_decode']:.2f}")
        table.add_row(str(row["size"]), str(row["objects"]), *times, *last)
    console = Console(width=110)
    console.print("User CPU per object and frame, decoding included; J and F equal to the last bit.")
    console.print(table)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
