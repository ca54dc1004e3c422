"""What a memory rule reads and decides.

SAM 2 and its relatives attend to a few memories of past frames: a map, which takes the space, and a pointer, which is
one vector. A rule decides which of the proposed masks is remembered, and which memories the next frame attends to.
It sees numbers and masks only, so it works with every network of this kind, and each of its decisions can be tested
without one. Frames are counted from the prompt of the object, which is frame 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]  # first and last column and row with a pixel: x0, y0, x1, y1


@dataclass(frozen=True)
class Record:
    """The numbers that are kept of one object in one frame. A rule fills in those that it reads.

    Attributes:
        iou: Predicted IoU of the mask, 0 to 1.
        presence: Logit that the object is visible.
        pixels: Pixels of the mask in the size of the frames (DAM4SAM).
        seen: Whether the mask has pixels in the resolution of the decoder (DAM4SAM).
        motion: IoU of its box with the predicted one; None if none was predicted (SAMURAI).
        quality: Quality of the mask, 0 to 1 (RCMS).
        anchor: Whether the frame shows a distractor (DAM4SAM).
    """

    iou: float = 1.0
    presence: float = 10.0
    pixels: int = 1
    seen: bool = True
    motion: float | None = None
    quality: float = 1.0
    anchor: bool = False


Records = Mapping[int, Record]
RECORDS = 300  # frames whose records are kept, besides those of frames in memory


@dataclass(frozen=True)
class Motion:
    """A Kalman filter of a box: mean (8,), covariance (8, 8), and how many frames in a row it was right."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    stable: int


@dataclass(frozen=True)
class Path:
    """What a rule knows of one object.

    Attributes:
        records: Frame -> record, 0 being the prompt.
        motion: Its motion (SAMURAI).
        total: Sum of the logarithms of the predicted IoU (SAM2Long).
    """

    records: Records = field(default_factory=lambda: {0: Record()})
    motion: Motion | None = None
    total: float = 0.0


@dataclass(frozen=True)
class Limits:
    """How many memories the network attends to: `maps` without the prompt, and `pointers` of past frames."""

    maps: int = 6
    pointers: int = 15


@dataclass(frozen=True)
class Selection:
    """The memories that a frame attends to.

    Attributes:
        prompts: Frames whose map and pointer count as prompts, without a code for the time of their maps.
        maps: Pairs of a code for time, 0 for the latest, and a frame, from the oldest to the latest.
        pointers: Pairs of a distance in time and a frame. The pointers of the prompts come before them.
        weights: If given, factors of the keys of all maps and of all pointers, those of the prompts first.
    """

    prompts: tuple[int, ...]
    maps: tuple[tuple[int, int], ...]
    pointers: tuple[tuple[int, int], ...]
    weights: tuple[tuple[float, ...], tuple[float, ...]] | None = None


class Candidates(Protocol):
    """The masks that a network proposes for one object in one frame, three or only one."""

    @property
    def ious(self) -> NDArray[np.float32]:
        """Predicted IoU, float32 (N,)."""
        ...

    @property
    def presence(self) -> float:
        """Logit that the object is visible. If it is not, all masks are empty."""
        ...

    def boxes(self) -> list[Box | None]:
        """Return the box of every mask in the square image of the network, None for an empty one."""
        ...

    def mask(self, index: int) -> NDArray[np.bool_]:
        """Return a mask in the size of the frames, bool (H, W)."""
        ...

    def is_empty(self, index: int) -> bool:
        """Return whether a mask has no pixels in the resolution of the decoder."""
        ...

    def confidence(self, index: int) -> float:
        """Return the mean probability of the pixels of a mask, NaN for an empty one."""
        ...


@dataclass(frozen=True)
class Choice:
    """A mask that is remembered: its path and number, and what the path gets by it."""

    record: Record
    candidate: int
    path: int = 0
    motion: Motion | None = None
    total: float = 0.0


class MemoryRule(Protocol):
    """A rule. All methods are pure.

    Attributes:
        presence: Logit above which an object counts as visible.
        lag: By how many frames the output follows the input, because later frames may change the choice of a mask.
    """

    presence: ClassVar[float]
    lag: ClassVar[int]

    def choose(self, frame: int, paths: Sequence[Path], found: Sequence[Candidates]) -> list[Choice]:
        """Choose the masks that are remembered.

        Args:
            frame: The frame.
            paths: All paths of the object, the best first.
            found: For every path what the network proposes after its memories.

        Returns:
            One choice for every new path, the best first.
        """
        ...

    def select(self, records: Records, frame: int, limits: Limits) -> Selection:
        """Return the memories that a frame attends to, from the records of the frames before."""
        ...

    def keep(self, records: Records, frame: int, limits: Limits) -> set[int]:
        """Return the frames up to this one whose maps a later frame may attend to."""
        ...


def best_of(found: Candidates) -> int:
    """Return the candidate with the highest predicted IoU, as SAM 2 does."""
    return int(np.argmax(found.ious))


def pointers_before(frame: int, limits: Limits) -> list[tuple[int, int]]:
    """Return distance and number of the last frames whose pointers SAM 2 attends to, the latest first."""
    return [(distance, frame - distance) for distance in range(1, min(limits.pointers, frame - 1) + 1)]


def by_rank(frames: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return maps, given from the oldest to the latest, with codes for time by their rank instead of their distance."""
    return tuple((len(frames) - 1 - place, frame) for place, frame in enumerate(frames))
