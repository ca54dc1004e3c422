"""Procedural clips with exact ground truth.

Soft bodies of stone, wood, cloth or clay move, turn, bend and change size over a ground that a camera sees from above,
in light from one side. They pass below one another and below things near the camera that are not objects, leave,
return, or appear late. Equal seeds give equal bytes. Such clips say nothing about real videos: they exercise every
stage of the workflow, without a network, where the correct result is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vosarena.demo.camera import Camera, Lens, fold, make_ground
from vosarena.demo.sprites import (
    SPRITE_PIXELS,
    Labels,
    Pose,
    Sprite,
    draw,
    draw_labels,
    make_sprite,
    outline,
    random_light,
)
from vosarena.demo.surfaces import BODIES, BODY_COLOURS, GROUND_COLOURS, Field, Image, muted, pick_colour, surface

EVENTS = ("occlusion", "return", "exit", "late", "small", "distractor", "lighting", "scale", "fast", "absence")
DOMAINS = ("plain", "low_contrast")
SMALL_AREA = 1 / 250  # an object is small if its median visible share of the frame is below this
MANY_OBJECTS = 6
LONG_FRAMES = 300
PACE = 1.8  # of all motion, as in a video of few frames per second

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
        x = fold(self.start[0] + self.velocity[0] * t + self.sway[0] * swing, width, self.radius * 0.7)
        y = fold(self.start[1] + self.velocity[1] * t + self.sway[1] * swing, height, self.radius * 0.7)
        if self.away is not None:
            gone = np.clip((t - self.away[0]) / ramp + 1, 0, 1) * np.clip((self.away[1] - t) / ramp + 1, 0, 1)
            x, y = x + self.exit_offset[0] * gone, y + self.exit_offset[1] * gone
        return x, y

    def pose(self, t: int, size: tuple[int, int], frames: int) -> Pose:
        """Return the pose in frame t of so many."""
        x, y = self.centre(t, size[1], size[0], ramp=max(1.0, min(6.0, frames / 10)))
        beat = np.sin(self.rates[1] * t + self.phases[1])
        return Pose(
            x=x,
            y=y,
            radius=self.radius * 2 ** (self.growth * np.sin(0.6 * self.rates[1] * t + self.phases[0])),
            angle=self.angle + self.rates[2] * t,
            stretch=1 + 0.45 * beat * (self.bend > 0),
            shear=1.2 * self.bend * np.sin(0.7 * self.rates[1] * t + self.phases[0]),
            bend=self.bend,
            phase=self.rates[1] * t,
        )


def make_clip(
    seed: Seed,
    *,
    frames: int,
    size: tuple[int, int] = (240, 432),
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
        domain: "plain", or "low_contrast" (haze: little contrast, noise, blur and a colour cast).

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
    ground_colour = pick_colour(rng, GROUND_COLOURS, [])
    shapes = _make_shapes(rng, frames, size, objects, events, ground_colour)
    if shapes is None:
        return None
    masks = _draw_masks(shapes, frames, size)
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
    video = _render(rng, shapes, frames, size, ground_colour, "lighting" in events, domain)
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
    rng: np.random.Generator, frames: int, size: tuple[int, int], objects: int, events: tuple[str, ...], ground: Field
) -> list[_MovingShape] | None:
    """Return all shapes from bottom to top; None if the objects do not fit into the first frame.

    No object has the colour of another one or of the ground, a float32 (3,).
    """
    height, width = size
    crowding = min(1.0, 2.2 / np.sqrt(objects + 1))
    speed = PACE * (1.6 if "fast" in events else 1.0)
    shapes: list[_MovingShape] = []
    colours = [ground]
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
        colours.append(muted(rng, pick_colour(rng, BODY_COLOURS, colours), ground))
        shapes.append(_make_shape(rng, _body(rng, colours[-1]), label, radius, start, size, speed))
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
        for shape in shapes[: 1 + len(shapes) // 2]:
            angle, pace = rng.uniform(0, 2 * np.pi), PACE * height * rng.uniform(0.03, 0.06)
            occluder = _make_shape(
                rng, _foreground(rng), 0, shape.radius * rng.uniform(1.2, 1.8), (0.0, 0.0), size, 1.0
            )
            occluder.velocity = (pace * np.cos(angle), pace * np.sin(angle))
            occluder.target, occluder.bend, occluder.growth = shape, 0.0, 0.0
            occluder.meet = frames * rng.uniform(0.35, 0.75)
            layers.append(occluder)
    return layers


def _body(rng: np.random.Generator, colour: Field) -> Sprite:
    """Return an object of a random material."""
    cell = SPRITE_PIXELS * rng.uniform(0.18, 0.4)
    material = surface(rng, SPRITE_PIXELS, SPRITE_PIXELS, cell, str(rng.choice(BODIES)), colour)
    height, lift = rng.uniform(0.3, 0.55), rng.uniform(0.15, 0.3)
    return make_sprite(rng, outline(rng, angular=False), material, height=height, lift=lift)


def _foreground(rng: np.random.Generator) -> Sprite:
    """Return something between the ground and the camera, out of focus: a card, or a shape like a leaf."""
    colour = pick_colour(rng, BODY_COLOURS, [])
    material = surface(rng, SPRITE_PIXELS, SPRITE_PIXELS, SPRITE_PIXELS * 0.3, str(rng.choice(BODIES)), colour)
    shape = outline(rng, angular=bool(rng.random() < 0.7))
    return make_sprite(rng, shape, material, height=0.12, lift=0.5, defocus=0.07)


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
        rates=(PACE * rng.uniform(0.12, 0.35), rng.uniform(0.18, 0.54), rng.uniform(-0.09, 0.09) * speed),
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


def _draw_masks(shapes: list[_MovingShape], frames: int, size: tuple[int, int]) -> Labels:
    """Draw the labels of all frames and fill the `covered` of every shape."""
    masks = np.zeros((frames, *size), np.uint8)
    for t in range(frames):
        for shape in shapes:
            shown = t >= shape.first
            covered = draw_labels(masks[t], shape.sprite, shape.pose(t, size, frames), shape.label) if shown else 0
            shape.covered.append(covered)
    return masks


def _render(
    rng: np.random.Generator,
    shapes: list[_MovingShape],
    frames: int,
    size: tuple[int, int],
    ground_colour: Field,
    lighting: bool,
    domain: str,
) -> Image:
    """Draw the pictures of all frames."""
    light = random_light(rng)
    camera = Camera(rng, make_ground(rng, *size, ground_colour, light), size)
    lens = Lens(rng, size, light, lighting=lighting, domain=domain)
    video = np.empty((frames, *size, 3), np.uint8)
    for t in range(frames):
        frame = camera(t)
        for shape in shapes:
            if t >= shape.first:
                draw(frame, shape.sprite, shape.pose(t, size, frames), light)
        video[t] = lens(frame, t)
    return video
