"""Materials of the procedural clips: stone, wood, cloth, plaster, tiles, stripes and dots in muted colours.

All randomness comes from the numpy Generator that is passed in, so equal seeds give equal bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Field = NDArray[np.float32]

GROUNDS = ("stone", "wood", "cloth", "plaster", "tiles", "gravel")
BODIES = ("stone", "wood", "plaster", "stripes", "dots", "cloth")
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def _palette(colours: str) -> Field:
    return np.frombuffer(bytes.fromhex(colours), np.uint8).reshape(-1, 3).astype(np.float32)


# Sand, linen, slate, walnut, oak, moss, dusk, clay, charcoal and concrete.
GROUND_COLOURS = _palette("beac90 cac2b4 686e74 705440 a88460 686e50 606e7c 9c705a 4a494b 94928d")
# Terracotta, ochre, cream, plum, teal, olive, brick, ink, rose, sage, charcoal, mustard, rust, lavender and chestnut.
BODY_COLOURS = _palette(
    "b26246 c6984e e2d8c2 6c4256 3c6c6e 72763c 924238 384a6ac48e88 90a686 383639 d2ae4a ac5a30 9690aa 603e2e"
)


@dataclass(frozen=True)
class Surface:
    """A piece of a material: its colour without any light, uint8 (H, W, 3), and its relief, float32 (H, W)."""

    colour: Image
    relief: Field


def noise_field(
    rng: np.random.Generator, height: int, width: int, cell: float, *, octaves: int = 3, stretch: float = 1.0
) -> Field:
    """Return smooth noise, float32 (height, width), mostly in [0, 1].

    Args:
        rng: Source of randomness.
        height: In pixels.
        width: In pixels.
        cell: Height of the largest blobs in pixels.
        octaves: How many sizes of blobs, each half of the one before and half as strong.
        stretch: Width of the blobs over their height.
    """
    field = np.zeros((height, width), np.float32)
    total = 0.0
    for octave in range(octaves):
        high = max(2.0, cell / 2**octave)
        wide = max(2.0, cell * stretch / 2**octave)
        grid = rng.random((int(height / high) + 3, int(width / wide) + 3), dtype=np.float32)
        field += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * np.float32(0.5**octave)
        total += 0.5**octave
    return field / np.float32(total)


def pick_colour(rng: np.random.Generator, palette: Field, others: list[Field]) -> Field:
    """Return a colour of the palette, varied a little, whose hue differs well from all others, float32 (3,)."""
    candidates = palette[rng.permutation(len(palette))[:6]] + rng.uniform(-12, 12, (6, 3)).astype(np.float32)
    best = 0
    if others:
        gaps = np.linalg.norm(_hue(candidates)[:, None] - _hue(np.stack(others)), axis=2).min(axis=1)
        best = int(np.argmax(gaps))
    colour: Field = np.clip(candidates[best], 20, 240)
    return colour


def _hue(colours: Field) -> Field:
    """Return what is left of colours, float32 (N, 3), without their brightness."""
    hues: Field = colours / (colours @ LUMA)[:, None]
    return hues


def muted(rng: np.random.Generator, colour: Field, other: Field) -> Field:
    """Return a colour, float32 (3,), with less saturation and about as bright as another: they differ in hue."""
    grey = colour @ LUMA
    dull = grey + (colour - grey) * np.float32(0.7)
    result: Field = np.clip(dull * np.float32(rng.uniform(0.75, 1.35)) * (other @ LUMA) / grey, 20, 235)
    return result


def surface(rng: np.random.Generator, height: int, width: int, cell: float, kind: str, colour: Field) -> Surface:
    """Return a random piece of a material.

    Args:
        rng: Source of randomness.
        height: In pixels.
        width: In pixels.
        cell: Size of its coarse features in pixels.
        kind: Name from GROUNDS or BODIES.
        colour: Its main colour, float32 (3,).
    """
    tone, mix, relief = _PATTERNS[kind](rng, height, width, cell)
    second = colour * np.float32(rng.choice([rng.uniform(0.62, 0.78), rng.uniform(1.2, 1.4)]))
    second = second * np.float32(0.8) + np.float32(0.2) * pick_colour(rng, BODY_COLOURS, [])
    bright = 1 + tone
    channels = [
        np.clip((a + (b - a) * mix) * bright, 0, 255).astype(np.uint8) for a, b in zip(colour, second, strict=True)
    ]
    return Surface(cv2.merge(channels), relief.astype(np.float32))


Pattern = tuple[Field, Field, Field]  # brightness around 0, share of the second colour, relief


def _stone(rng: np.random.Generator, height: int, width: int, cell: float) -> Pattern:
    cloud = noise_field(rng, height, width, cell, octaves=5)
    flecks = noise_field(rng, height, width, cell / 14, octaves=2) - np.float32(0.5)
    dots = np.clip(np.abs(flecks) - np.float32(0.2), 0, 0.2) * np.sign(flecks)
    return (cloud - np.float32(0.5)) * np.float32(0.5) + dots, cloud, noise_field(rng, height, width, cell / 3)


def _wood(rng: np.random.Generator, height: int, width: int, cell: float) -> Pattern:
    grain = noise_field(rng, height, width, cell * 0.8, stretch=7)
    fibre = noise_field(rng, height, width, cell / 16, octaves=2, stretch=24) - np.float32(0.5)
    rows = np.arange(height, dtype=np.float32)[:, None] / np.float32(cell)
    board = np.floor(rows * np.float32(0.9)) * np.float32(2.7)
    rings = np.sin((grain * 5 + rows * np.float32(1.5) + board) * np.float32(2 * np.pi))
    joint = np.abs(rows * np.float32(0.9) % 1 - np.float32(0.5)) > 0.5 - 0.9 / cell
    shades = rng.uniform(-0.09, 0.09, int(height / cell) + 2).astype(np.float32)
    tone = shades[(rows * np.float32(0.9)).astype(int)] + fibre * np.float32(0.35) - joint * np.float32(0.4)
    return tone + rings * np.float32(0.05), (rings + 1) * np.float32(0.25), fibre * np.float32(0.5) - joint


def _cloth(rng: np.random.Generator, height: int, width: int, cell: float) -> Pattern:
    thread = np.float32(2 * np.pi / max(3.0, cell / 14))
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None, :]
    weave = np.sin(x * thread) * np.sin(y * thread)
    band = np.float32(np.pi / (cell * rng.uniform(0.4, 0.9)))
    checks = np.clip(np.sin(x * band) * 6, 0, 1) * np.float32(0.5) + np.clip(np.sin(y * band) * 6, 0, 1) * np.float32(
        0.5
    )
    checks = checks * np.float32(rng.choice([0.0, 0.5, 1.0]))
    folds = noise_field(rng, height, width, cell * 1.6, octaves=2)
    uneven = noise_field(rng, height, width, cell / 8, octaves=2) - np.float32(0.5)
    return weave * np.float32(0.06) + uneven * np.float32(0.2), checks, folds * 4 + weave * np.float32(0.15)


def _plaster(rng: np.random.Generator, height: int, width: int, cell: float) -> Pattern:
    cloud = noise_field(rng, height, width, cell * 1.5, octaves=5)
    rough = noise_field(rng, height, width, cell / 6)
    return (rough - np.float32(0.5)) * np.float32(0.16), cloud * np.float32(0.5), rough


def _tiles(rng: np.random.Generator, height: int, width: int, cell: float) -> Pattern:
    high, wide = cell * 0.5, cell * rng.choice([0.5, 1.1])
    rows = (np.arange(height, dtype=np.float32) / np.float32(high))[:, None]
    row = rows.astype(int)
    columns = np.arange(width, dtype=np.float32)[None, :] / np.float32(wide) + (row % 2) * np.float32(0.5)
    gap = np.maximum(
        np.abs(rows % 1 - np.float32(0.5)) - np.float32(0.5 - 1.2 / high),
        np.abs(columns % 1 - np.float32(0.5)) - np.float32(0.5 - 1.2 / wide),
    )
    joint = np.clip(gap * np.float32(high), 0, 1)
    shades = rng.uniform(-0.12, 0.12, (row.max() + 1, int(columns.max()) + 1)).astype(np.float32)
    rough = noise_field(rng, height, width, cell / 3, octaves=4)
    tone = shades[row, columns.astype(int)] + (rough - np.float32(0.5)) * np.float32(0.3) - joint * np.float32(0.3)
    return tone, rough * np.float32(0.6), rough - joint * np.float32(0.8)


def _gravel(rng: np.random.Generator, height: int, width: int, cell: float) -> Pattern:
    grains = noise_field(rng, height, width, cell / 5, octaves=2)
    cloud = noise_field(rng, height, width, cell * 1.5)
    return (grains - np.float32(0.5)) * np.float32(0.5), cloud * np.float32(0.7), grains * np.float32(2.5)


def _stripes(rng: np.random.Generator, height: int, width: int, cell: float) -> Pattern:
    rough = noise_field(rng, height, width, cell / 3)
    rows = np.arange(height, dtype=np.float32)[:, None] / np.float32(cell * rng.uniform(0.5, 1.0)) + rough * np.float32(
        0.25
    )
    bands = np.clip(np.sin(rows * np.float32(2 * np.pi)) * 4 + np.float32(0.5), 0, 1)
    return (rough - np.float32(0.5)) * np.float32(0.2), bands, rough * np.float32(0.5)


def _dots(rng: np.random.Generator, height: int, width: int, cell: float) -> Pattern:
    rough = noise_field(rng, height, width, cell / 3)
    pitch = np.float32(np.pi / (cell * rng.uniform(0.45, 0.7)))
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)[None, :]
    spots = np.clip(np.cos(x * pitch) * np.cos(y * pitch) * 8 - np.float32(4.5), 0, 1)
    return (rough - np.float32(0.5)) * np.float32(0.2), spots, rough * np.float32(0.5)


_PATTERNS = {
    "stone": _stone,
    "wood": _wood,
    "cloth": _cloth,
    "plaster": _plaster,
    "tiles": _tiles,
    "gravel": _gravel,
    "stripes": _stripes,
    "dots": _dots,
}
