"""Procedural clips with exact ground truth.

Textured shapes move, turn, bend and change size over a moving textured background. They pass behind one another and
behind shapes that are not objects, leave, return, or appear late. Equal seeds give equal bytes. Such clips say nothing
about real videos: they exercise every stage of the workflow, without a network, where the correct result is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from vosarena.demo.procedural import Image, Labels, Pose, Sprite, make_sprite, noise_field, paste, texture

EVENTS = ("occlusion", "return", "exit", "late", "small", "distractor", "lighting", "scale", "fast", "absence")
DOMAINS = ("plain", "low_contrast")
SMALL_AREA = 1 / 250  # an object is small if its median visible share of the frame is below this
MANY_OBJECTS = 6
LONG_FRAMES = 300

Seed = int | Sequence[int] | np.random.Generator


@dataclass(frozen=True)
class Clip:
    """A generated sequence.

    Attributes:
        frames: RGB images, uint8 (T, H, W, 3).
        masks: Labels, uint8 (T, H, W); 0 is the background.
        attributes: What happens in the clip, sorted.
    """

    frames: Image
    masks: Labels
    attributes: tuple[str, ...]


@dataclass
class _MovingShape:
    """A moving shape: an object (label > 0), or a distractor or occluder without annotation (label 0)."""

    sprite: Sprite
    label: int
    radius: float
    start: tuple[float, float]
    velocity: tuple[float, float]
    sway: tuple[float, float]
    rates: tuple[float, float, float]  # sway, shape, turn: radians per frame
    phases: tuple[float, float]
    angle: float
    growth: float  # amplitude of the size change, in octaves
    bend: float
    first: int = 0
    target: _MovingShape | None = None  # an occluder crosses this shape around frame `meet`
    meet: float = 0.0
    away: tuple[float, float] | None = None  # frames between which it is outside the frame
    exit_offset: tuple[float, float] = (0.0, 0.0)
    covered: list[int] = field(default_factory=list)

    def centre(self, t: float, width: int, height: int, ramp: float) -> tuple[float, float]:
        """Return the position in pixels at frame t."""
        if self.target is not None:
            x, y = self.target.centre(self.meet, width, height, ramp)
            return x + self.velocity[0] * (t - self.meet), y + self.velocity[1] * (t - self.meet)
        swing = np.sin(self.rates[0] * t + self.phases[0]) - np.sin(self.phases[0])
        x = _fold(self.start[0] + self.velocity[0] * t + self.sway[0] * swing, width, self.radius * 0.7)
        y = _fold(self.start[1] + self.velocity[1] * t + self.sway[1] * swing, height, self.radius * 0.7)
        if self.away is not None:
            gone = np.clip((t - self.away[0]) / ramp + 1, 0, 1) * np.clip((self.away[1] - t) / ramp + 1, 0, 1)
            x, y = x + self.exit_offset[0] * gone, y + self.exit_offset[1] * gone
        return x, y

    def pose(self, t: int, width: int, height: int, ramp: float) -> Pose:
        """Return the pose at frame t."""
        x, y = self.centre(t, width, height, ramp)
        beat = np.sin(self.rates[1] * t + self.phases[1])
        return Pose(
            x=x,
            y=y,
            radius=self.radius * 2 ** (self.growth * np.sin(0.6 * self.rates[1] * t + self.phases[0])),
            angle=self.angle + self.rates[2] * t,
            stretch=1 + 0.3 * beat * (self.bend > 0),
            shear=1.2 * self.bend * np.sin(0.7 * self.rates[1] * t + self.phases[0]),
            bend=self.bend,
            phase=self.rates[1] * t,
        )


def _fold(value: float, size: int, margin: float) -> float:
    """Reflect a coordinate at both margins."""
    span = max(size - 2 * margin, 1.0)
    position = (value - margin) % (2 * span)
    return margin + min(position, 2 * span - position)


def make_clip(
    seed: Seed,
    *,
    frames: int,
    size: tuple[int, int] = (192, 320),
    objects: int = 2,
    events: Sequence[str] = (),
    domain: str = "plain",
) -> Clip:
    """Generate a clip.

    Args:
        seed: As for `numpy.random.default_rng`.
        frames: Number of frames.
        size: Height and width in pixels.
        objects: Number of annotated objects.
        events: Names from EVENTS; each of them happens. "late" needs two objects, because one is visible from the
            start; "return" and "exit" need about ten frames; "absence" is a return after half of the clip.
        domain: "plain", or "low_contrast" (little contrast, noise, blur and a colour cast).

    Returns:
        The clip.

    Raises:
        ValueError: The request cannot be met.
    """
    if unknown := set(events) - set(EVENTS):
        raise ValueError(f"unknown events {sorted(unknown)}; known: {', '.join(EVENTS)}")
    if domain not in DOMAINS:
        raise ValueError(f"unknown domain {domain!r}; known: {', '.join(DOMAINS)}")
    if "late" in events and objects < 2:
        raise ValueError("a clip with a late object needs at least two objects")
    rng = np.random.default_rng(seed)
    for _ in range(200):
        clip = _attempt(rng, frames, size, objects, tuple(events), domain)
        if clip is not None:
            return clip
    raise ValueError(f"no clip of {frames} frames and {objects} objects shows the events {sorted(events)}")


def random_clip(
    seed: Seed, *, frames: int = 16, size: tuple[int, int] = (128, 128), domain: str = "plain", max_objects: int = 3
) -> Clip:
    """Generate a training clip with a random choice of events.

    Args:
        seed: As for `make_clip`.
        frames: Number of frames.
        size: Height and width in pixels.
        domain: As for `make_clip`.
        max_objects: The clip has one to this many objects.
    """
    rng = np.random.default_rng(seed)
    chance = {"occlusion": 0.3, "return": 0.15, "exit": 0.06, "late": 0.12, "small": 0.15}
    chance |= {"distractor": 0.25, "lighting": 0.2, "scale": 0.15, "fast": 0.15}
    objects = int(rng.integers(1, max_objects + 1))
    drawn = {name for name, share in chance.items() if rng.random() < share}
    if objects < 2:
        drawn.discard("late")
    if "return" in drawn:
        drawn.discard("exit")
    if frames < 6:
        drawn -= {"return", "exit", "occlusion"}
    events = [name for name in EVENTS if name in drawn]
    return make_clip(rng, frames=frames, size=size, objects=objects, events=events, domain=domain)


def _attempt(
    rng: np.random.Generator, frames: int, size: tuple[int, int], objects: int, events: tuple[str, ...], domain: str
) -> Clip | None:
    """Draw one clip; return None if an object is hidden when it should appear or an event did not happen."""
    shapes = _make_shapes(rng, frames, size, objects, events)
    if shapes is None:
        return None
    video, masks = _render(rng, shapes, frames, size, events, domain)
    annotated = [shape for shape in shapes if shape.label]
    visible = np.stack([np.count_nonzero(masks == shape.label, axis=(1, 2)) for shape in annotated])
    covered = np.array([shape.covered for shape in annotated])
    for shape, seen, area in zip(annotated, visible, covered, strict=True):
        least = max(0.5 * area[shape.first], size[0] * size[1] / 3000)
        if seen[: shape.first].any() or seen[shape.first] < least:
            return None
    attributes = _attributes(visible, covered, frames, size) | ({"low-contrast"} if domain == "low_contrast" else set())
    required = ({"return"} if "absence" in events else set()) | set(events) & {
        "occlusion",
        "return",
        "exit",
        "late",
        "small",
    }
    if not required <= attributes:
        return None
    return Clip(video, masks, tuple(sorted(attributes | (set(events) - {"exit"}))))


def _attributes(visible: np.ndarray, covered: np.ndarray, frames: int, size: tuple[int, int]) -> set[str]:
    """Return the attributes that the masks show.

    Args:
        visible: Visible pixels (objects, T).
        covered: Pixels inside the shape, whether visible or not (objects, T).
        frames: Number of frames.
        size: Height and width in pixels.
    """
    found = {"long"} if frames >= LONG_FRAMES else set()
    if len(visible) >= MANY_OBJECTS:
        found.add("many-objects")
    for seen, shape in zip(visible, covered, strict=True):
        present = seen > 0
        first, last = np.flatnonzero(present)[[0, -1]]
        if first > 0:
            found.add("late")
        gone = ~present[first:]
        if gone.any():
            found.add("disappearance")
        if (~present[first:last]).sum() >= 2:
            found.add("return")
        if not present[-1] and not shape[-1]:
            found.add("exit")
        if np.any((shape > 0) & (seen < 0.4 * shape)):
            found.add("occlusion")
        if np.median(seen[present]) < SMALL_AREA * size[0] * size[1]:
            found.add("small")
    return found


def _make_shapes(
    rng: np.random.Generator, frames: int, size: tuple[int, int], objects: int, events: tuple[str, ...]
) -> list[_MovingShape] | None:
    """Return all shapes from back to front; None if the objects do not fit into the first frame."""
    height, width = size
    crowding = min(1.0, 2.2 / np.sqrt(objects + 1))
    speed = 1.8 if "fast" in events else 1.0
    shapes: list[_MovingShape] = []
    for label in range(1, objects + 1):
        radius = height * rng.uniform(0.14, 0.27) * crowding
        if "small" in events and label % 2 == 1:
            radius = height * rng.uniform(0.05, 0.065)
        for _ in range(60):
            start = (rng.uniform(0.1, 0.9) * width, rng.uniform(0.12, 0.88) * height)
            gaps = [np.hypot(start[0] - a.start[0], start[1] - a.start[1]) - 0.75 * (radius + a.radius) for a in shapes]
            if min(gaps, default=1.0) > 0:
                break
        else:
            return None
        shapes.append(_make_shape(rng, make_sprite(rng), label, radius, start, size, speed))
    if "scale" in events:
        for shape in shapes:
            shape.growth = rng.uniform(0.5, 0.8)
    _schedule_exits(rng, shapes, frames, size, events)
    order = list(rng.permutation(len(shapes)))
    layers = [shapes[i] for i in order]
    if "distractor" in events:
        for shape in shapes[: 1 + len(shapes) // 3]:
            start = (rng.uniform(0.1, 0.9) * width, rng.uniform(0.12, 0.88) * height)
            distractor = _make_shape(rng, shape.sprite, 0, shape.radius * rng.uniform(0.85, 1.15), start, size, speed)
            layers.insert(int(rng.integers(len(layers) + 1)), distractor)
    if "occlusion" in events:
        for shape in shapes[: 1 + len(shapes) // 4]:
            angle, pace = rng.uniform(0, 2 * np.pi), height * rng.uniform(0.03, 0.06)
            panel = make_sprite(rng, angular=bool(rng.random() < 0.7))
            occluder = _make_shape(rng, panel, 0, shape.radius * rng.uniform(1.0, 1.7), (0.0, 0.0), size, 1.0)
            occluder.velocity = (pace * np.cos(angle), pace * np.sin(angle))
            occluder.target, occluder.bend, occluder.growth = shape, 0.0, 0.0
            occluder.meet = frames * rng.uniform(0.35, 0.75)
            layers.append(occluder)
    return layers


def _make_shape(
    rng: np.random.Generator,
    sprite: Sprite,
    label: int,
    radius: float,
    start: tuple[float, float],
    size: tuple[int, int],
    speed: float,
) -> _MovingShape:
    height, width = size
    heading, pace = rng.uniform(0, 2 * np.pi), speed * height * rng.uniform(0.004, 0.02)
    return _MovingShape(
        sprite=sprite,
        label=label,
        radius=radius,
        start=start,
        velocity=(pace * np.cos(heading), pace * np.sin(heading)),
        sway=(width * rng.uniform(-0.08, 0.08), height * rng.uniform(-0.1, 0.1)),
        rates=(rng.uniform(0.12, 0.35), rng.uniform(0.15, 0.45), rng.uniform(-0.09, 0.09) * speed),
        phases=(rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi)),
        angle=rng.uniform(0, 2 * np.pi),
        growth=rng.uniform(0.05, 0.3),
        bend=rng.uniform(0.06, 0.2),
    )


def _schedule_exits(
    rng: np.random.Generator, shapes: list[_MovingShape], frames: int, size: tuple[int, int], events: tuple[str, ...]
) -> None:
    """Decide when shapes appear, leave and return."""
    height, width = size
    if "late" in events:
        for shape in shapes[-max(1, len(shapes) // 3) :]:
            shape.first = int(rng.integers(max(1, frames // 5), max(2, frames // 2) + 1))
    for event in ("return", "exit", "absence"):
        if event not in events:
            continue
        shape = shapes[0] if event != "exit" or len(shapes) == 1 else shapes[min(1, len(shapes) - 1)]
        side = rng.integers(4)
        reach = 2.5 * shape.radius
        shape.exit_offset = [
            (width + reach, 0.0),
            (-width - reach, 0.0),
            (0.0, height + reach),
            (0.0, -height - reach),
        ][side]
        earliest, latest = (0.2, 0.3) if event == "absence" else (0.35, 0.5)
        leave = shape.first + (frames - shape.first) * rng.uniform(earliest, latest)
        back = leave + max(2.0, min(frames * rng.uniform(0.1, 0.25), 60.0))
        if event == "absence":
            back = leave + 0.45 * frames
        shape.away = (leave, back if event != "exit" else 10.0 * frames)


def _render(
    rng: np.random.Generator,
    shapes: list[_MovingShape],
    frames: int,
    size: tuple[int, int],
    events: tuple[str, ...],
    domain: str,
) -> tuple[Image, Labels]:
    """Draw all frames and fill the `covered` of every shape."""
    height, width = size
    scenery = _scenery(rng, height, width)
    video, masks = np.empty((frames, height, width, 3), np.uint8), np.zeros((frames, height, width), np.uint8)
    drift, wave = rng.uniform(-1, 1, 2) * height * 0.006, rng.uniform(0.05, 0.2, 3)
    swing, phase = rng.uniform(0.02, 0.12) * height, rng.uniform(0, 2 * np.pi, 3)
    ramp = max(1.0, min(6.0, frames / 10))
    effects = _CameraEffects(rng, size, lighting="lighting" in events, domain=domain)
    for t in range(frames):
        turn, zoom = 0.06 * np.sin(wave[0] * t + phase[0]), 1 + 0.08 * np.sin(wave[1] * t + phase[1])
        cos, sin = zoom * np.cos(turn), zoom * np.sin(turn)
        x = (
            scenery.shape[1] / 2
            + _fold(drift[0] * t, width // 2, 0)
            - width / 4
            + swing * np.sin(wave[2] * t + phase[2])
        )
        y = (
            scenery.shape[0] / 2
            + _fold(drift[1] * t, height // 2, 0)
            - height / 4
            + swing * np.cos(wave[2] * t + phase[2])
        )
        camera = np.array(
            [[cos, -sin, x - cos * width / 2 + sin * height / 2], [sin, cos, y - sin * width / 2 - cos * height / 2]]
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        frame = cv2.warpAffine(scenery, camera, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
        for shape in shapes:
            pose = shape.pose(t, width, height, ramp)
            shown = t >= shape.first
            shape.covered.append(paste(frame, masks[t], shape.sprite, pose, shape.label) if shown else 0)
        video[t] = effects(frame, t)
    return video, masks


def _scenery(rng: np.random.Generator, height: int, width: int) -> Image:
    """Return a background, larger than the frame, with some shapes without annotation."""
    high, wide = int(height * 1.7), int(width * 1.7)
    scenery = texture(rng, high, wide, cell=height * rng.uniform(0.15, 0.5))
    unused_labels = np.zeros((high, wide), np.uint8)
    for _ in range(int(rng.integers(2, 9))):
        pose = Pose(rng.uniform(0, wide), rng.uniform(0, high), height * rng.uniform(0.08, 0.25), rng.uniform(0, 6.3))
        paste(scenery, unused_labels, make_sprite(rng, angular=bool(rng.random() < 0.5)), pose, 0)
    return scenery


class _CameraEffects:
    """Effects of light and camera: lighting, contrast, colour cast, blur and sensor noise."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int], *, lighting: bool, domain: str) -> None:
        height, width = size
        self.rng = rng
        self.size = size
        self.light = rng.uniform(0.25, 0.45) if lighting else 0.0
        self.rate, self.phase = rng.uniform(0.15, 0.4), rng.uniform(0, 2 * np.pi)
        self.shade = (noise_field(rng, height, width, cell=height * 0.8) - np.float32(0.5))[..., None] * 2
        poor = domain == "low_contrast"
        self.gain = np.float32(rng.uniform(0.28, 0.42) if poor else 1.0)
        self.offset = (
            (rng.uniform(70, 120) + rng.uniform(-35, 35, 3)).astype(np.float32) if poor else np.zeros(3, np.float32)
        )
        self.blur = height / 192 * rng.uniform(0.8, 1.5) if poor else 0.0
        sigma = rng.uniform(6, 10) if poor else 3.0
        bank = rng.standard_normal((height + 61, width + 61, 3), dtype=np.float32) * np.float32(sigma)
        self.noise = np.rint(bank).astype(np.int16)

    def __call__(self, frame: Image, t: int) -> Image:
        """Return frame t with the effects."""
        if self.light:
            beat = np.sin(self.rate * t + self.phase), np.sin(0.7 * self.rate * t)
            lit = 1 + np.float32(self.light * beat[0]) + self.shade * np.float32(self.light * beat[1])
            frame = np.clip(frame * lit, 0, 255).astype(np.uint8)
        if self.blur:
            frame = cv2.GaussianBlur(frame, (0, 0), self.blur)
            frame = np.clip(frame * self.gain + self.offset, 0, 255).astype(np.uint8)
        y, x = self.rng.integers(0, 62, 2)
        noise = self.noise[y : y + self.size[0], x : x + self.size[1]]
        noisy: Image = np.clip(frame + noise, 0, 255).astype(np.uint8)
        return noisy
