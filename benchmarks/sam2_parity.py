"""The same random weights of SAM 2.1 Hiera-T in the package sam2 and in transformers: how far the masks are apart.

    python benchmarks/sam2_parity.py [--frames 120]

Procedural clips with two objects: frames of the network's size, frames of another size, and a late object. The weights
are random, so the logits are small; their mean is printed next to the differences.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from tests.support import sam2_upstream as upstream  # noqa: E402
from tests.support.sam2_to_transformers import convert  # noqa: E402

from vosarena.demo.clips import make_clip  # noqa: E402
from vosarena.trackers.sam2 import Sam2  # noqa: E402
from vosarena.trackers.transformers import Transformers  # noqa: E402

SIDE = 128
CASES = {"network's size": ((SIDE, SIDE), None), "160x96": ((96, 160), None), "late object": ((SIDE, SIDE), 20)}


def logits(tracker, frames, prompts):
    """Yield the logits of all objects in every frame."""
    raw = lambda scores, size: torch.stack([score for _, score in scores])  # noqa: E731
    return tracker._stream.run(frames, prompts, tracker._settings, raw)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=120)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = Table(title=f"{options.frames} frames, 2 objects, CPU, 1 thread")
    for name in ("frames", "mean logit", "largest difference", "in the last 20 frames", "pixels", "in the last 20"):
        table.add_column(name, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        weights = upstream.random_weights("sam2.1_hiera_t", Path(folder) / "random.pth", 0, SIDE)
        converted = convert(weights, Path(folder) / "converted", SIDE)
        trackers = Sam2("sam2.1_hiera_t", str(weights), SIDE), Transformers(str(converted))
        for name, (size, late) in CASES.items():
            clip = make_clip(5, frames=options.frames, size=size, objects=2)
            prompts = {0: {1: clip.masks[0] == 1}}
            prompts.setdefault(late or 0, {})[2] = clip.masks[late or 0] == 2
            largest, pixels, sizes = [], [], []
            for a, b in zip(*(logits(tracker, clip.frames, prompts) for tracker in trackers), strict=True):
                largest.append(np.abs(a - b).max())
                pixels.append(100 * ((a > 0) != (b > 0)).mean())
                sizes.append(np.abs(a).mean())
            cells = np.mean(sizes[1:]), max(largest), max(largest[-20:])
            shares = (f"{np.mean(part):.3f} %" for part in (pixels, pixels[-20:]))
            table.add_row(name, *(f"{cell:.4f}" for cell in cells), *shares)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
