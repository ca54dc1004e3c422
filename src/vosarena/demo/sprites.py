"""Solid bodies ("sprites") of the procedural clips: how they are made, placed, lit and drawn.

All randomness comes from the numpy Generator that is passed in, so equal seeds give equal bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vosarena.demo.surfaces import Field, Image, Surface

Labels = NDArray[np.uint8]

SPRITE_PIXELS = 128  # side of a sprite's own picture
SPRITE_REACH = 0.78  # the outline stays within this part of the half side, so that bending never cuts it off
SHADOW_COLOUR = np.array([1.0, 0.97, 0.9], np.float32)  # what is in the shadow sees the blue sky


@dataclass(frozen=True)
class Light:
    """Light from one side: a unit vector towards it (x to the right, y down, z to the camera) and what shadows keep."""

    x: float
    y: float
    z: float
    ambient: float


def random_light(rng: np.random.Generator) -> Light:
    """Return soft light from a random side, at 40 to 60 degrees."""
    side, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.7, 1.05)
    flat = np.cos(height)
    return Light(float(flat * np.cos(side)), float(flat * np.sin(side)), float(np.sin(height)), rng.uniform(0.3, 0.45))


@dataclass(frozen=True)
class Sprite:
    """A body.

    Attributes:
        levels: The same picture over the square [-1, 1]^2 at falling sizes: colour, uint8 (S, S, 3), opacity,
            uint8 (S, S), and height in units of the radius, float32 (S, S).
        bend_x: Frequency of its horizontal bending.
        bend_y: Frequency of its vertical bending.
        lift: How far its shadow lies from it, in units of the radius.
        gloss: Strength of its highlight, 0 to 1.
    """

    levels: tuple[tuple[Image, Image, Field], ...]
    bend_x: float
    bend_y: float
    lift: float
    gloss: float

    def level(self, radius: float) -> tuple[Image, Image, Field]:
        """Return the smallest picture that is not blurred at this radius in pixels."""
        return next((level for level in reversed(self.levels) if len(level[0]) >= 1.8 * radius), self.levels[0])


def outline(rng: np.random.Generator, *, angular: bool) -> Field:
    """Return a signed distance to a random outline, float32 (S, S), positive inside: lobes, or a rounded rectangle."""
    axis = np.linspace(-1, 1, SPRITE_PIXELS, dtype=np.float32)
    u, v = np.meshgrid(axis, axis)
    if angular:
        u, v = np.abs(u) * np.float32(rng.uniform(1.0, 2.0)) - np.float32(0.5), np.abs(v) - np.float32(0.5)
        return np.float32(0.16) - np.hypot(np.maximum(u, 0), np.maximum(v, 0)) - np.minimum(np.maximum(u, v), 0)
    theta = np.arctan2(v, u)
    radius = np.ones_like(theta)
    for order in range(2, 7):
        radius += np.float32(rng.uniform(0, 0.85 / order)) * np.cos(order * theta + np.float32(rng.uniform(0, 6.3)))
    radius = np.clip(radius, 0.35, None)
    return radius * np.float32(SPRITE_REACH / radius.max()) - np.hypot(u, v)


def make_sprite(
    rng: np.random.Generator, distance: Field, material: Surface, *, height: float, lift: float, defocus: float = 0.0
) -> Sprite:
    """Return a body with a rounded edge.

    Args:
        rng: Source of randomness.
        distance: Signed distance to its outline, see `outline`.
        material: Its surface, SPRITE_PIXELS in both directions.
        height: Of its top, in units of the radius.
        lift: See `Sprite`.
        defocus: Radius of the blur of a body that is out of focus, in units of the body's radius.
    """
    inside = (distance > 0).astype(np.uint8)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 5) / np.float32(SPRITE_PIXELS / 2)
    edge = np.float32(rng.uniform(0.22, 0.4))
    round_edge = np.sqrt(1 - (1 - np.minimum(depth / edge, 1)) ** 2)
    body = cv2.GaussianBlur(round_edge, (0, 0), 2.0) * np.float32(height) + material.relief * np.float32(0.025)
    alpha = np.clip(distance * np.float32(SPRITE_PIXELS / 4) + np.float32(0.5), 0, 1) * 255
    parts = [material.colour, alpha.astype(np.uint8), body]
    if defocus:
        parts = [cv2.GaussianBlur(part, (0, 0), defocus * SPRITE_PIXELS / 2) for part in parts]
    levels = [tuple(parts)]
    for side in (64, 32, 16):
        levels.append(tuple(cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA) for part in levels[-1]))
    return Sprite(tuple(levels), rng.uniform(0.6, 1.4), rng.uniform(0.6, 1.4), lift, rng.uniform(0, 0.35))


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


@dataclass(frozen=True)
class _Patch:
    """The rectangle of a frame that a posed sprite can reach, with where its pixels lie in the sprite."""

    rows: slice
    columns: slice
    u: Field
    v: Field

    def sample(self, *pictures: NDArray[Any]) -> list[NDArray[Any]]:
        """Return pictures of the sprite, all of one size, as the frame sees them; zero outside."""
        half = np.float32(len(pictures[0]) / 2)
        u, v = (self.u + 1) * half - np.float32(0.5), (self.v + 1) * half - np.float32(0.5)
        places = cv2.convertMaps(u, v, cv2.CV_16SC2)
        return [cv2.remap(picture, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT) for picture in pictures]


def _patch(sprite: Sprite, pose: Pose, size: tuple[int, int], margin: float = 0.0, step: int = 1) -> _Patch | None:
    """Return the patch of a pose, with one value for each square of `step` pixels; None outside the frame.

    The bending is smooth: it is computed at every fourth point and interpolated.
    """
    height, width = size
    wide, high = pose.radius * np.sqrt(pose.stretch), pose.radius / np.sqrt(pose.stretch)
    reach = max(wide, high) * (0.98 + 1.4 * pose.bend + abs(pose.shear)) + margin
    x0, x1 = max(0, int(pose.x - reach)), min(width, int(pose.x + reach) + 2)
    y0, y1 = max(0, int(pose.y - reach)), min(height, int(pose.y + reach) + 2)
    if x0 >= x1 or y0 >= y1:
        return None
    coarse = 4 if step == 1 and pose.radius > 16 else step
    columns, rows = -(-(x1 - x0) // coarse), -(-(y1 - y0) // coarse)
    middle = (coarse - 1) / 2
    dx: Field = (np.arange(columns, dtype=np.float32) * coarse + np.float32(x0 + middle - pose.x))[None, :]
    dy: Field = (np.arange(rows, dtype=np.float32) * coarse + np.float32(y0 + middle - pose.y))[:, None]
    cos, sin = np.float32(np.cos(pose.angle)), np.float32(np.sin(pose.angle))
    v: Field = ((cos * dy - sin * dx) / np.float32(high)).astype(np.float32, copy=False)
    u: Field = (cos * dx + sin * dy) / np.float32(wide) + np.float32(pose.shear) * v
    if pose.bend:
        bend, phase = np.float32(pose.bend), np.float32(pose.phase)
        across = np.sin(v * np.float32(np.pi * sprite.bend_y) + phase)
        v = v + bend * np.sin(u * np.float32(np.pi * sprite.bend_x) + phase * np.float32(0.7))
        u = u + bend * across
    if coarse > step:
        full = (columns * coarse, rows * coarse)
        u, v = (cv2.resize(field, full, interpolation=cv2.INTER_LINEAR)[: y1 - y0, : x1 - x0] for field in (u, v))
    return _Patch(slice(y0, y1), slice(x0, x1), u, v)


def draw_labels(labels: Labels, sprite: Sprite, pose: Pose, label: int) -> int:
    """Draw a sprite into labels, in place.

    Args:
        labels: uint8 (H, W), set to `label` under the shape.
        sprite: The shape.
        pose: Its pose.
        label: Id of the object, or 0 if the shape is not an object.

    Returns:
        How many pixels of the frame the shape covers.
    """
    patch = _patch(sprite, pose, labels.shape)
    if patch is None:
        return 0
    inside = patch.sample(sprite.level(pose.radius)[1])[0] > 127
    labels[patch.rows, patch.columns][inside] = label
    return int(np.count_nonzero(inside))


def draw(frame: Image, sprite: Sprite, pose: Pose, light: Light) -> None:
    """Draw a lit sprite and its shadow over a frame, uint8 (H, W, 3), in place."""
    _draw_shadow(frame, sprite, pose, light)
    patch = _patch(sprite, pose, frame.shape[:2])
    if patch is None:
        return
    colour, opacity, relief = patch.sample(*sprite.level(pose.radius))
    across, down = (cv2.Sobel(relief, cv2.CV_32F, *order, ksize=1, scale=pose.radius / 2) for order in ((1, 0), (0, 1)))
    normal = 1 / np.sqrt(1 + across * across + down * down)
    facing = np.maximum(np.float32(light.z) - across * np.float32(light.x) - down * np.float32(light.y), 0) * normal
    shade = np.float32(light.ambient) + facing * np.float32((1 - light.ambient) / light.z)
    half = np.array([light.x, light.y, light.z + 1], np.float32) / np.float32(np.sqrt(2 + 2 * light.z))
    shine = np.maximum((half[2] - across * half[0] - down * half[1]) * normal, 0)
    for _ in range(4):
        shine *= shine
    shine *= np.float32(90 * sprite.gloss)
    alpha = opacity * np.float32(1 / 255)
    crop = frame[patch.rows, patch.columns]
    for channel, paint in enumerate(cv2.split(colour)):  # one after the other, because that is much faster
        below = crop[..., channel]
        crop[..., channel] = below + (np.minimum(paint * shade + shine, 255) - below) * alpha


def _draw_shadow(frame: Image, sprite: Sprite, pose: Pose, light: Light) -> None:
    """Darken a frame by a wide cast shadow away from the light, and a narrow one where the body stands."""
    away = sprite.lift * pose.radius / light.z
    soft = max(1.0, pose.radius * (0.06 + 0.3 * sprite.lift))
    step = int(np.clip(pose.radius / 8, 1, 4))
    thrown = replace(pose, x=pose.x - light.x * away, y=pose.y - light.y * away)
    patch = _patch(sprite, thrown, frame.shape[:2], margin=2 * soft, step=step)
    if patch is None:
        return
    (opacity,) = patch.sample(sprite.level(pose.radius / step)[1])
    dark = cv2.GaussianBlur(opacity, (0, 0), soft / step) * np.float32((1 - light.ambient) * 0.75 / 255)
    crop = frame[patch.rows, patch.columns]
    keep = 1 - dark[..., None] * SHADOW_COLOUR
    full = (keep.shape[1] * step, keep.shape[0] * step)
    keep = cv2.resize(keep, full, interpolation=cv2.INTER_LINEAR)[: crop.shape[0], : crop.shape[1]]
    cv2.multiply(crop, keep, dst=crop, dtype=cv2.CV_8U)
