"""Clips: every frame of a sequence with the masks of several models side by side, and their scores over time below.

Clips are H.264 in mp4, which browsers play from a local folder, at the frame rate of the sequence. The same input gives
the same bytes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vosarena.datasets.sequences import SequenceFiles
from vosarena.io.frames import read_frame
from vosarena.io.video import write_video
from vosarena.report.media import (
    MODEL_COLOURS,
    Picture,
    ReadLabels,
    contour,
    desaturated,
    paint_contour,
    paint_errors,
    paint_outlines,
    paint_over,
)

_PAPER, _INK, _LINE, _QUIET = "#14171B", "#E9ECF0", "#39414B", "#A3ADB9"  # as the dark page
_TITLE, _GAP, _CURVE, _AXIS, _TEXT = 22, 6, 84, 34, 13  # pixels
_DASHES = ((1, 0), (6, 3), (2, 3))  # pixels drawn and left out, as on the page; for models of the same colour


@dataclass(frozen=True)
class Panel:
    """One picture of a clip.

    Attributes:
        title: Text above it.
        read: Returns the labels of a frame by its index, or None without a mask.
        number: Number of the model in the study, which decides its colour; None if it is no model.
        scores: Score of frames by index, from 0 to 1.
    """

    title: str
    read: ReadLabels
    number: int | None = None
    scores: Mapping[int, float] = field(default_factory=dict)

    @property
    def colour(self) -> str:
        """Colour of the model as #RRGGBB."""
        return _INK if self.number is None else MODEL_COLOURS[self.number % len(MODEL_COLOURS)]

    @property
    def dash(self) -> tuple[int, int]:
        """Pixels of the model's curve that are drawn and left out."""
        return _DASHES[(self.number or 0) // len(MODEL_COLOURS) % len(_DASHES)]


@dataclass(frozen=True)
class Clip:
    """What a clip shows.

    Attributes:
        files: Files of the sequence.
        panels: The pictures, from left to right and from top to bottom.
        frames: Indices of the frames.
        rate: Frames per second.
        score: How to write a score, for str.format with a percentage.
        truth: Returns the ground truth of a frame, whose contour is on all panels; None without ground truth.
        width: Largest width of the video in pixels.
        widest: Largest width of one panel in pixels.
        show: What is painted of the models: `masks`, `outlines` or `errors`, which need the ground truth.
    """

    files: SequenceFiles
    panels: Sequence[Panel]
    frames: range
    rate: float
    score: str = "J {:.0f}"
    truth: ReadLabels | None = None
    width: int = 1280
    widest: int = 480
    show: str = "masks"

    def write(self, path: Path, quality: int) -> None:
        """Write the clip.

        Args:
            path: The file.
            quality: See `write_video`.

        Raises:
            ConfigError: The package av is not installed.
            DataError: A frame or mask is damaged.
        """
        write_video(path, self.pictures(), self.rate, quality)

    def pictures(self) -> Iterator[Picture]:
        """Yield the pictures of the clip, uint8 RGB, all of the same size."""
        for index in self.frames:
            yield np.asarray(self.picture(index))

    def picture(self, index: int) -> Image.Image:
        """Return the picture of one frame.

        Args:
            index: Index of the frame.
        """
        size = self._panel_size
        frame = cv2.resize(read_frame(self.files.frames[index]), size, interpolation=cv2.INTER_AREA)
        muted = desaturated(frame)
        truth = _resized(self.truth(index) if self.truth else None, size)
        lines = None if truth is None else contour(truth)
        whole = self._still.copy()
        for number, panel in enumerate(self.panels):
            x, y = self._corner(number)
            labels = _resized(panel.read(index), size)
            show = "masks" if panel.number is None else self.show
            if labels is None:
                picture = frame
            elif show == "errors":
                picture = frame if truth is None else paint_errors(muted, labels, truth)
            else:
                picture = (paint_outlines if show == "outlines" else paint_over)(muted, labels)
            whole[y : y + size[1], x : x + size[0]] = picture if lines is None else paint_contour(picture, lines)
        image = Image.fromarray(whole)
        draw = ImageDraw.Draw(image)
        for number, panel in enumerate(self.panels):
            if index in panel.scores:
                x, y = self._corner(number)
                text = self.score.format(100 * panel.scores[index])
                draw.text((x + size[0] - 6, y - 4), text, fill=_INK, font=_font(), anchor="rs")
        if self._scored:
            self._draw_position(draw, index)
        return image

    @property
    def _scored(self) -> bool:
        return any(panel.scores for panel in self.panels)

    @cached_property
    def _columns(self) -> int:
        count = len(self.panels)
        rows = 1 if count <= 4 else round(math.sqrt(count / 1.7))  # about 16:9, and no gaps in most rows
        return math.ceil(count / rows)

    @cached_property
    def _panel_size(self) -> tuple[int, int]:
        """Width and height of a panel."""
        height, width = self.files.size
        fitting = min(width, self.widest, (self.width + _GAP) // self._columns - _GAP)
        return max(16, fitting), max(1, round(height * max(16, fitting) / width))

    def _corner(self, number: int) -> tuple[int, int]:
        """Left and top of a panel's picture, below its title."""
        row, column = divmod(number, self._columns)
        width, height = self._panel_size
        return column * (width + _GAP), row * (height + _TITLE + _GAP) + _TITLE

    @cached_property
    def _size(self) -> tuple[int, int]:
        """Width and height of the video, both even."""
        width, height = self._panel_size
        rows = math.ceil(len(self.panels) / self._columns)
        whole = self._columns * (width + _GAP) - _GAP, rows * (height + _TITLE + _GAP) + (_CURVE if self._scored else 0)
        return whole[0] + whole[0] % 2, whole[1] + whole[1] % 2

    @cached_property
    def _still(self) -> Picture:
        """Everything that does not move."""
        image = Image.new("RGB", self._size, _PAPER)
        draw = ImageDraw.Draw(image)
        for number, panel in enumerate(self.panels):
            (x, y), width = self._corner(number), self._panel_size[0]
            left = x + 6
            if panel.number is not None:
                on, off = panel.dash
                for column in range(0, 11, on + off):
                    draw.rectangle((left + column, y - 15, left + min(10, column + on - 1), y - 5), panel.colour)
                left += 17
            room = width - 6 - (left - x) - (_font().getlength(self.score.format(100)) + 8 if panel.scores else 0)
            draw.text((left, y - 4), _shortened(panel.title, room), fill=_INK, font=_font(), anchor="ls")
        picture = np.array(image)
        return self._with_curves(picture) if self._scored else picture

    def _with_curves(self, picture: Picture) -> Picture:
        image = Image.fromarray(picture)
        draw = ImageDraw.Draw(image)
        for percent in (0, 50, 100):
            y = self._y(percent / 100)
            draw.line((_AXIS, y, self._size[0] - 1, y), _LINE)
            draw.text((_AXIS - 4, y), str(percent), fill=_QUIET, font=_font(10), anchor="rm")
        picture = np.array(image)
        for panel in self.panels:
            known = sorted(frame for frame in panel.scores if frame in self.frames)
            if not known:
                continue
            across = np.arange(self._x(known[0]), self._x(known[-1]) + 1)
            down = np.interp(
                across, [self._x(frame) for frame in known], [self._y(panel.scores[frame]) for frame in known]
            )
            points = np.rint(np.stack([across, down], 1) * 16).astype(np.int32)
            on, off = panel.dash
            colour = tuple(bytes.fromhex(panel.colour[1:]))
            step = on + off if off else len(points)
            for start in range(0, len(points), step):
                part = points[start : start + (on + 1 if off else step)]
                cv2.polylines(picture, [part], False, colour, 2, cv2.LINE_AA, shift=4)
        return picture

    def _draw_position(self, draw: ImageDraw.ImageDraw, index: int) -> None:
        x = self._x(index)
        draw.line((x, self._y(1), x, self._y(0)), _INK, 2)
        near_end = x > self._size[0] - 90
        draw.text((x - 5 if near_end else x + 5, self._y(0.1)), f"frame {index}", fill=_INK, font=_font(11),
                  anchor="rs" if near_end else "ls", stroke_width=2, stroke_fill=_PAPER)  # fmt: skip

    def _x(self, index: int) -> int:
        room = self._size[0] - _AXIS - 4
        return _AXIS + round(room * (index - self.frames.start) / max(1, len(self.frames) - 1))

    def _y(self, score: float) -> int:
        return round(self._size[1] - 8 - (_CURVE - 22) * score)


def part_of(frames: range, longest: int, around: int) -> range:
    """Return at most `longest` frames in a row, among them the frame `around`."""
    start = max(frames.start, min(around - longest // 2, frames.stop - longest))
    return range(start, min(frames.stop, start + longest))


def _resized(labels: Picture | None, size: tuple[int, int]) -> Picture | None:
    if labels is None or labels.shape == size[::-1]:
        return labels
    resized: Picture = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST).astype(np.uint8)
    return resized


@cache
def _font(size: int = _TEXT) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _shortened(text: str, room: float) -> str:
    """Return a text that fits into a number of pixels, with `...` where its end is missing."""
    if _font().getlength(text) <= room:
        return text
    while text and _font().getlength(f"{text}...") > room:
        text = text[:-1]
    return f"{text}..."
