"""Building blocks of the procedural clips: textures, textured shapes ("sprites"), and how they are drawn.

All randomness comes from the numpy Generator that is passed in, so equal seeds give equal bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Labels = NDArray[np.uint8]

SPRITE_PIXELS = 112  # side of a sprite's own texture
SPRITE_REACH = 0.78  # the outline stays within this part of the half side, so that bending never cuts it off


def noise_field(rng: np.random.Generator, height: int, width: int, cell: float) -> NDArray[np.float32]:
    """Return smooth noise, float32 (height, width) in about [0, 1]; `cell` is the size of its blobs in pixels."""
    field = np.zeros((height, width), np.float32)
    total = 0.0
    for octave in range(3):
        size = max(2.0, cell / 2**octave)
        grid = rng.random((int(height / size) + 3, int(width / size) + 3), dtype=np.float32)
        field += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
        total += 1 / 2**octave
    return field / np.float32(total)


def texture(rng: np.random.Generator, height: int, width: int, cell: float) -> Image:
    """Return a random texture, uint8 (height, width, 3): marble, stripes, checks or spots in three random colours."""
    kind = rng.integers(4)
    field = noise_field(rng, height, width, cell)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), cell * rng.uniform(0.5, 1.2)
    along = (x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))) / np.float32(period)
    across = (y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle))) / np.float32(period)
    if kind == 0:
        phase = field * rng.uniform(2.0, 4.0)
    elif kind == 1:
        phase = along * 0.5 + field * rng.uniform(0.5, 1.5)
    elif kind == 2:
        phase = (np.floor(along) + np.floor(across)) * 0.5 + field * 0.5
    else:
        phase = np.float32(0.35) * (np.cos(along * 4) + np.cos(across * 4)) + field
    ramp = _colour_ramp(rng)
    grain = rng.integers(-14, 15, (height, width, 1), dtype=np.int16)
    index = (phase * 256).astype(np.int32) & 255
    coloured: Image = np.clip(ramp[index] + grain, 0, 255).astype(np.uint8)
    return coloured


def _colour_ramp(rng: np.random.Generator) -> NDArray[np.int16]:
    """Return a closed ramp through three colours, int16 (256, 3)."""
    base = rng.integers(25, 231, 3)
    stops = np.clip(base + rng.integers(-85, 86, (3, 3)), 5, 250).astype(np.float32)
    position = np.arange(256, dtype=np.float32) * (3 / 256)
    left = position.astype(np.int64)
    share = (position - left)[:, None]
    ramp: NDArray[np.int16] = (stops[left] * (1 - share) + stops[(left + 1) % 3] * share).astype(np.int16)
    return ramp


@dataclass(frozen=True)
class Sprite:
    """A textured shape.

    Attributes:
        rgba: uint8 (S, S, 4) over the square [-1, 1]^2.
        bend_x: Frequency of its horizontal bending.
        bend_y: Frequency of its vertical bending.
    """

    rgba: Image
    bend_x: float
    bend_y: float


def make_sprite(rng: np.random.Generator, *, angular: bool = False) -> Sprite:
    """Return a random blob with lobes or, if `angular`, a panel like a rectangle, for an occluder that is no object."""
    side = SPRITE_PIXELS
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    u, v = np.meshgrid(axis, axis)
    distance = np.hypot(u, v)
    if angular:
        outline = np.float32(0.7) - np.maximum(np.abs(u) * np.float32(rng.uniform(1.0, 2.2)), np.abs(v))
    else:
        theta = np.arctan2(v, u)
        radius = np.ones_like(theta)
        for order in range(2, 7):
            radius += np.float32(rng.uniform(0, 0.9 / order)) * np.cos(order * theta + np.float32(rng.uniform(0, 6.3)))
        radius = np.clip(radius, 0.35, None)
        outline = radius * np.float32(SPRITE_REACH / radius.max()) - distance
    alpha = np.clip(outline * (side / 4) + 0.5, 0, 1) * 255
    colour = texture(rng, side, side, cell=side * rng.uniform(0.18, 0.4))
    return Sprite(np.dstack([colour, alpha.astype(np.uint8)]), rng.uniform(0.6, 1.4), rng.uniform(0.6, 1.4))


@dataclass(frozen=True)
class Pose:
    """Pose of a sprite in one frame: centre and half side in pixels, angle and bend phase in radians."""

    x: float
    y: float
    radius: float
    angle: float
    stretch: float = 1.0  # width over height
    shear: float = 0.0
    bend: float = 0.0  # amplitude in units of the radius, at most 0.2
    phase: float = 0.0


def paste(frame: Image, labels: Labels, sprite: Sprite, pose: Pose, label: int) -> int:
    """Draw a sprite over a frame and its labels, in place.

    Args:
        frame: uint8 (H, W, 3).
        labels: uint8 (H, W), set to `label` under the shape.
        sprite: The shape.
        pose: Its pose.
        label: Id of the object, or 0 if the shape is not an object.

    Returns:
        How many pixels of the frame the shape covers.
    """
    height, width = labels.shape
    wide, high = pose.radius * np.sqrt(pose.stretch), pose.radius / np.sqrt(pose.stretch)
    reach = max(wide, high) * (1.25 + abs(pose.shear))
    x0, x1 = max(0, int(pose.x - reach)), min(width, int(pose.x + reach) + 2)
    y0, y1 = max(0, int(pose.y - reach)), min(height, int(pose.y + reach) + 2)
    if x0 >= x1 or y0 >= y1:
        return 0
    dx = np.arange(x0, x1, dtype=np.float32)[None, :] - np.float32(pose.x)
    dy = np.arange(y0, y1, dtype=np.float32)[:, None] - np.float32(pose.y)
    cos, sin = np.float32(np.cos(pose.angle)), np.float32(np.sin(pose.angle))
    u = (cos * dx + sin * dy) / np.float32(wide)
    v = (cos * dy - sin * dx) / np.float32(high)
    u = u + np.float32(pose.shear) * v
    if pose.bend:
        bend, phase = np.float32(pose.bend), np.float32(pose.phase)
        u, v = (
            u + bend * np.sin(v * np.float32(np.pi * sprite.bend_y) + phase),
            v + bend * np.sin(u * np.float32(np.pi * sprite.bend_x) + phase * np.float32(0.7)),
        )
    half = np.float32((SPRITE_PIXELS - 1) / 2)
    drawn = cv2.remap(sprite.rgba, (u + 1) * half, (v + 1) * half, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    inside = drawn[..., 3] > 127
    crop = frame[y0:y1, x0:x1]
    alpha = drawn[..., 3:].astype(np.int32)
    crop[...] = crop + (drawn[..., :3].astype(np.int32) - crop) * alpha // 255
    labels[y0:y1, x0:x1][inside] = label
    return int(np.count_nonzero(inside))
