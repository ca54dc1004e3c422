"""The ground of the procedural clips and the camera above it: its way, depth of field, light, haze and sensor noise."""

from __future__ import annotations

import cv2
import numpy as np

from vosarena.demo.sprites import SPRITE_PIXELS, Light, Pose, draw, make_sprite, outline
from vosarena.demo.surfaces import BODY_COLOURS, GROUNDS, Field, Image, pick_colour, surface


def fold(value: float, size: int, margin: float) -> float:
    """Reflect a coordinate at both margins."""
    span = max(size - 2 * margin, 1.0)
    position = (value - margin) % (2 * span)
    return margin + min(position, 2 * span - position)


def make_ground(rng: np.random.Generator, height: int, width: int, colour: Field, light: Light) -> Image:
    """Return lit ground, larger than the frame, with a few flat things on it that are no objects; uint8 (H, W, 3)."""
    high, wide = int(height * 1.7), int(width * 1.7)
    material = surface(rng, high, wide, height * rng.uniform(0.15, 0.35), str(rng.choice(GROUNDS)), colour)
    turn = cv2.getRotationMatrix2D((wide / 2, high / 2), rng.uniform(0, 360), 1.05)
    painted, relief = (
        cv2.warpAffine(part, turn, (wide, high), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        for part in (material.colour, material.relief * np.float32(height / 120))
    )
    slope = np.float32(light.x) * (relief - np.roll(relief, 1, 1)) + np.float32(light.y) * (
        relief - np.roll(relief, 1, 0)
    )
    lit = 1 - np.clip(slope, -0.6, 0.6) * np.float32(0.7)
    ground: Image = cv2.multiply(painted, cv2.merge([lit] * 3), dtype=cv2.CV_8U)
    for _ in range(int(rng.integers(1, 5))):
        tint = colour * np.float32(0.55) + pick_colour(rng, BODY_COLOURS, []) * np.float32(0.45)
        piece = surface(rng, SPRITE_PIXELS, SPRITE_PIXELS, 40.0, "plaster", tint)
        sprite = make_sprite(rng, outline(rng, angular=bool(rng.random() < 0.4)), piece, height=0.08, lift=0.03)
        radius = height * rng.uniform(0.08, 0.22)
        draw(ground, sprite, Pose(rng.uniform(0, wide), rng.uniform(0, high), radius, rng.uniform(0, 6.3)), light)
    blurred = cv2.GaussianBlur(ground, (0, 0), height / 90)  # the far side is out of focus
    far = np.clip(np.linspace(1.2, -0.6, high, dtype=np.float32), 0, 1)[:, None, None]
    mixed: Image = (ground + (blurred - ground.astype(np.float32)) * far).astype(np.uint8)
    return mixed


class Camera:
    """A camera that drifts, sways, turns and zooms a little above the ground."""

    def __init__(self, rng: np.random.Generator, ground: Image, size: tuple[int, int]) -> None:
        self.ground, self.size = ground, size
        self.drift, self.wave = rng.uniform(-1, 1, 2) * size[0] * 0.006, rng.uniform(0.05, 0.2, 3)
        self.swing, self.phase = rng.uniform(0.02, 0.12) * size[0], rng.uniform(0, 2 * np.pi, 3)

    def __call__(self, t: int) -> Image:
        """Return the ground in frame t."""
        height, width = self.size
        turn = 0.06 * np.sin(self.wave[0] * t + self.phase[0])
        zoom = 1 + 0.08 * np.sin(self.wave[1] * t + self.phase[1])
        cos, sin = zoom * np.cos(turn), zoom * np.sin(turn)
        sway = self.wave[2] * t + self.phase[2]
        x = self.ground.shape[1] / 2 + fold(self.drift[0] * t, width // 2, 0) - width / 4 + self.swing * np.sin(sway)
        y = self.ground.shape[0] / 2 + fold(self.drift[1] * t, height // 2, 0) - height / 4 + self.swing * np.cos(sway)
        view = np.array(
            [[cos, -sin, x - cos * width / 2 + sin * height / 2], [sin, cos, y - sin * width / 2 - cos * height / 2]]
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        seen: Image = cv2.warpAffine(self.ground, view, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        return seen


class Lens:
    """What light and camera do to the whole frame: fall-off, changing light, blur, tone, haze and sensor noise."""

    def __init__(
        self, rng: np.random.Generator, size: tuple[int, int], light: Light, *, lighting: bool, domain: str
    ) -> None:
        height, width = size
        self.rng, self.size = rng, size
        self.lighting = rng.uniform(0.25, 0.4) if lighting else 0.0
        self.rate, self.phase = rng.uniform(0.15, 0.4), rng.uniform(0, 2 * np.pi)
        x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        self.side = x * np.float32(light.x) + y * np.float32(light.y)
        self.field = np.float32(1.05) + np.float32(0.28) * self.side - np.float32(0.12) * (x * x + y * y)
        hazy = domain == "low_contrast"
        self.blur = height / 240 * (rng.uniform(0.9, 1.6) if hazy else 0.6)
        gain = rng.uniform(0.42, 0.56) if hazy else 1.0
        veil = rng.uniform(65, 105) + rng.uniform(-14, 14, 3) if hazy else rng.uniform(-6, 6, 3)
        level = np.arange(256) / 255
        curve = 0.75 * level + 0.25 * level * level * (3 - 2 * level)  # a little more contrast in the middle
        tones = curve[:, None] * 255 * gain + veil
        self.tones = np.clip(np.rint(tones), 0, 255).astype(np.uint8).reshape(1, 256, 3)
        grain = rng.standard_normal((128, 128, 1), dtype=np.float32) + rng.standard_normal(
            (128, 128, 3), dtype=np.float32
        )
        grain = np.rint(grain * np.float32(3.6 if hazy else 2.2)).astype(np.int16)
        self.grain = np.tile(grain, (height // 128 + 2, width // 128 + 2, 1))

    def __call__(self, frame: Image, t: int) -> Image:
        """Return frame t as the camera records it."""
        field = self.field
        if self.lighting:
            beat = np.sin(self.rate * t + self.phase), np.sin(0.7 * self.rate * t)
            field = field * (
                1 + np.float32(self.lighting * beat[0]) + self.side * np.float32(0.5 * self.lighting * beat[1])
            )
        lit = cv2.multiply(frame, cv2.merge([field] * 3), dtype=cv2.CV_8U)
        toned = cv2.LUT(cv2.GaussianBlur(lit, (0, 0), self.blur), self.tones)
        y, x = self.rng.integers(0, 128, 2)
        noise = self.grain[y : y + self.size[0], x : x + self.size[1]]
        recorded: Image = cv2.add(toned, noise, dtype=cv2.CV_8U)
        return recorded
