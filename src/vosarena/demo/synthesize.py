"""The demo dataset: procedural clips as folders, with seeds that keep its splits and the training clips apart.

demo/val has clips of both domains, demo/train only the shifted one ("low_contrast"), for fine-tuning. So do
demo/low-contrast-train and demo/low-contrast-val, which are larger, to train longer and to see smaller differences.
demo/absence has objects that are gone for half of the clip while another shape that looks alike stays, to compare
memory rules. The demo weights are trained on clips of the "weights" stream and measured on the "held-out" stream; no
two streams share a seed.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import cv2

from vosarena.base.errors import DataError
from vosarena.demo.clips import Clip, make_clip, random_clip
from vosarena.io.masks import write_mask

SIZE = (240, 432)  # height, width
JPEG_QUALITY = 95
STREAMS = {"val": 1, "train": 2, "weights": 3, "held-out": 4, "absence": 5}

Stream = Literal["val", "train", "weights", "held-out", "absence"]
DemoSplit = Literal["train", "val", "absence", "low-contrast-train", "low-contrast-val"]
Plan = tuple[tuple[str, int, int, tuple[str, ...]], ...]  # name, frames, objects, events

_VAL_PLAIN: Plan = (
    ("deform-01", 28, 1, ()),
    ("deform-02", 28, 3, ()),
    ("occlusion-01", 32, 2, ("occlusion",)),
    ("occlusion-02", 36, 3, ("occlusion", "fast")),
    ("return-01", 40, 2, ("return",)),
    ("return-02", 48, 1, ("return", "distractor")),
    ("exit-01", 28, 2, ("exit",)),
    ("late-01", 36, 3, ("late",)),
    ("late-02", 36, 4, ("late", "occlusion")),
    ("small-01", 28, 2, ("small",)),
    ("small-02", 28, 3, ("small", "distractor")),
    ("distractor-01", 28, 1, ("distractor",)),
    ("distractor-02", 32, 3, ("distractor", "occlusion")),
    ("lighting-01", 28, 2, ("lighting",)),
    ("scale-01", 36, 2, ("scale",)),
    ("fast-01", 24, 2, ("fast",)),
    ("ten-objects", 28, 10, ("occlusion",)),
    ("long", 310, 2, ("return", "occlusion")),
)
_VAL_LOW_CONTRAST: Plan = (
    ("low-contrast-deform", 28, 2, ()),
    ("low-contrast-distractor", 28, 2, ("distractor",)),
    ("low-contrast-exit", 28, 2, ("exit",)),
    ("low-contrast-fast", 24, 2, ("fast",)),
    ("low-contrast-late", 32, 3, ("late",)),
    ("low-contrast-lighting", 28, 2, ("lighting",)),
    ("low-contrast-occlusion", 32, 2, ("occlusion",)),
    ("low-contrast-return", 36, 2, ("return",)),
    ("low-contrast-scale", 28, 2, ("scale",)),
    ("low-contrast-single", 28, 1, ("occlusion",)),
)
_LOW_CONTRAST: dict[str, tuple[Stream, range]] = {  # splits of random clips: stream, and numbers in it
    "train": ("train", range(16)),
    "low-contrast-train": ("train", range(1000, 1400)),
    "low-contrast-val": ("held-out", range(100)),
}
_LOW_CONTRAST_FRAMES = 24
_ABSENCE_SEQUENCES, _ABSENCE_FRAMES = 100, 32


def clip_seed(stream: Stream, number: int) -> tuple[int, int, int]:
    """Return the seed of clip `number` (>= 0) of a stream."""
    return (0x766F73, STREAMS[stream], number)


def sequences(split: DemoSplit) -> Iterator[tuple[str, Callable[[], Clip]]]:
    """Yield the names of the split's sequences, each with the function that generates its clip.

    Args:
        split: `train`, `val`, `absence`, `low-contrast-train` or `low-contrast-val`.

    Raises:
        DataError: There is no such split.
    """
    if split == "val":
        plan = [(*entry, "plain") for entry in _VAL_PLAIN] + [(*entry, "low_contrast") for entry in _VAL_LOW_CONTRAST]
        for number, (name, frames, objects, events, domain) in enumerate(plan):
            make = partial(make_clip, clip_seed("val", number), frames=frames, size=SIZE, objects=objects)
            yield name, partial(make, events=events, domain=domain)
    elif split in _LOW_CONTRAST:
        stream, numbers = _LOW_CONTRAST[split]
        for place, number in enumerate(numbers, 1):
            seed = clip_seed(stream, number)
            make = partial(random_clip, seed, frames=_LOW_CONTRAST_FRAMES, size=SIZE, domain="low_contrast")
            yield f"{split}-{place:0{len(str(len(numbers)))}d}", make
    elif split == "absence":
        for number in range(_ABSENCE_SEQUENCES):
            make = partial(make_clip, clip_seed("absence", number), frames=_ABSENCE_FRAMES, size=SIZE, objects=1)
            yield f"absence-{number + 1:03d}", partial(make, events=("absence", "distractor"))
    else:
        raise DataError(f"the demo dataset has no split {split!r}; use {', '.join(get_args(DemoSplit))}")


def synthesize(directory: Path, split: DemoSplit) -> None:
    """Write a split of the demo dataset, with the same bytes every time.

    Everything is written to a temporary folder next to `directory` and then moved, attributes.json last: if that file
    exists, the split is complete. The result of an earlier call is replaced.

    Args:
        directory: Gets JPEGImages/, Annotations/ (masks of all frames) and attributes.json.
        split: `train`, `val`, `absence`, `low-contrast-train` or `low-contrast-val`.
    """
    directory = Path(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        attributes = {}
        for name, make in sequences(split):
            clip = make()
            attributes[name] = list(clip.attributes)
            write_clip(temporary, name, clip)
        (temporary / "attributes.json").write_text(json.dumps(attributes, indent=1) + "\n")
        directory.mkdir(exist_ok=True)
        (directory / "attributes.json").unlink(missing_ok=True)
        for part in ("JPEGImages", "Annotations"):
            if (directory / part).exists():
                shutil.rmtree(directory / part)
            (temporary / part).replace(directory / part)
        (temporary / "attributes.json").replace(directory / "attributes.json")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_clip(root: Path, name: str, clip: Clip) -> None:
    """Write a clip as `<root>/JPEGImages/<name>/` and `<root>/Annotations/<name>/`."""
    images, masks = root / "JPEGImages" / name, root / "Annotations" / name
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    for t, (frame, labels) in enumerate(zip(clip.frames, clip.masks, strict=True)):
        jpeg = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
        (images / f"{t:05d}.jpg").write_bytes(jpeg.tobytes())
        write_mask(masks / f"{t:05d}.png", labels)
