"""What a person gives for an object in a frame: a mask, or a box and clicks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from vosarena.base.errors import MaskError, TrackerError
from vosarena.io.masks import LabelMap, object_ids

Box = tuple[float, float, float, float]  # x0, y0, x1, y1: the first and the last column and row
MASK_ONLY = ("mask",)


class Click(NamedTuple):
    """A click: column and row of a pixel, counted from 0, and whether it is on the object or on something else."""

    x: float
    y: float
    inside: bool = True


@dataclass(frozen=True, eq=False)
class Prompt:
    """Where an object is in a frame.

    Attributes:
        mask: Its mask, bool (H, W).
        box: Its box in pixels, x0, y0, x1, y1.
        clicks: Clicks in pixels, which may come together with a box.

    Raises:
        MaskError: There is nothing, or a mask together with something else.
    """

    mask: NDArray[np.bool_] | None = None
    box: Box | None = None
    clicks: tuple[Click, ...] = ()

    def __post_init__(self) -> None:
        if (self.mask is None) == (self.box is None and not self.clicks):
            raise MaskError("a prompt is either a mask, or a box, or clicks, or a box and clicks")

    @property
    def kinds(self) -> tuple[str, ...]:
        """What it consists of: `mask`, `box`, `click`."""
        given = {"mask": self.mask is not None, "box": self.box is not None, "click": bool(self.clicks)}
        return tuple(kind for kind, there in given.items() if there)

    def problem(self, size: tuple[int, int]) -> str:
        """Return what is wrong for a frame of a size (H, W), as the end of a sentence; empty if nothing is."""
        height, width = size
        if self.mask is not None:
            shown = " x ".join(map(str, self.mask.shape[::-1]))
            fits = self.mask.shape == size
            return (
                "" if fits else f"is {shown} but the frames are {width} x {height}; use masks of the size of the frames"
            )
        corners = [] if self.box is None else [self.box[:2], self.box[2:]]
        for x, y in (*corners, *(click[:2] for click in self.clicks)):
            if not (0 <= x < width and 0 <= y < height):
                return f"has the point {x:g},{y:g} but the frames are {width} x {height}; use pixels, from 0 on"
        if self.box is not None and not (self.box[0] <= self.box[2] and self.box[1] <= self.box[3]):
            return f"has the box {','.join(f'{value:g}' for value in self.box)}; give its upper left corner first"
        return ""

    def to_json(self) -> dict[str, Any]:
        """Return a box and clicks as a plain mapping; a mask is left out."""
        box = {} if self.box is None else {"box": list(self.box)}
        clicks = {"clicks": [list(click) for click in self.clicks]} if self.clicks else {}
        return {**box, **clicks}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` returned."""
        box = tuple(content["box"]) if "box" in content else None
        return cls(box=box, clicks=tuple(Click(*click) for click in content.get("clicks", ())))


ObjectPrompt = NDArray[np.bool_] | Sequence[Prompt]
"""The prompt of an object in a frame: its mask, bool (H, W), or prompts that are given one after the other."""


def by_object(given: LabelMap | Mapping[int, ObjectPrompt]) -> Mapping[int, ObjectPrompt]:
    """Return the masks of a label map by object id; a mapping is returned as it is."""
    return {number: given == number for number in object_ids(given)} if isinstance(given, np.ndarray) else given


def as_prompts(given: ObjectPrompt) -> tuple[Prompt, ...]:
    """Return the prompts of an object in a frame as records."""
    return (Prompt(mask=given),) if isinstance(given, np.ndarray) else tuple(given)


def kind_of_prompt(kind: str) -> str:
    """Return `mask`, `box` or `click` for a value of the key `prompts`, such as `3-click`."""
    return kind.rpartition("-")[2]


def check_kinds(tracker: str, accepted: Sequence[str], needed: Iterable[str]) -> None:
    """Check that a tracker takes the prompts that it would get.

    Args:
        tracker: Its name.
        accepted: Kinds of prompts that it takes.
        needed: Kinds of prompts that it would get.

    Raises:
        TrackerError: It does not take one of them.
    """
    missing = [kind for kind in needed if kind not in accepted]
    if missing:
        raise TrackerError(
            f"tracker {tracker!r} takes {' and '.join(accepted)} prompts only, and no {missing[0]}; give it masks, or "
            "use a model of the tracker sam2 or transformers"
        )
