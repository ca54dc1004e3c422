"""Affine transformations as by Pillow, of the pixels in a rectangle alone."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image

from vosarena.base.compiled import compiled

Box = tuple[int, int, int, int]  # top, left, height, width
Colour = tuple[int, int, int]


def warp_frame(frame: np.ndarray, mirrored: bool, matrix: list[float], box: Box, fill: Colour) -> np.ndarray:
    """Return a rectangle of what `PIL.Image.transform` makes of a frame, bilinear, without computing the rest.

    Args:
        frame: uint8 (H, W, 3).
        mirrored: Whether it is mirrored first.
        matrix: Six numbers, from a pixel of the result to one of the frame.
        box: The rectangle.
        fill: Colour of the pixels from outside of the frame.

    Returns:
        uint8 (h, w, 3), the same bits as Pillow's.
    """
    return (_compute if _equals_pillow() else _pillow)(frame, mirrored, matrix, box, fill)


def warp_labels(labels: np.ndarray, matrix: list[float], box: Box) -> np.ndarray:
    """Return the rectangle for labels, uint8 (H, W), by the nearest pixel: Pillow computes whole numbers quickly."""
    turned = Image.fromarray(labels).transform(
        labels.shape[::-1], Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=0
    )
    return _cut(turned, box)


def _compute(frame: np.ndarray, mirrored: bool, matrix: list[float], box: Box, fill: Colour) -> np.ndarray:
    top, left, height, width = box
    out = np.empty((height, width, 3), np.uint8)
    warp = compiled("vosarena.io.warp_kernels", "warp")
    exact, colour = np.array(matrix, np.float64), np.array(fill, np.uint8)
    warp(np.ascontiguousarray(frame), int(mirrored), exact, colour, top, left, out)
    return out


def _pillow(frame: np.ndarray, mirrored: bool, matrix: list[float], box: Box, fill: Colour) -> np.ndarray:
    turned = Image.fromarray(frame[:, ::-1] if mirrored else frame).transform(
        frame.shape[1::-1], Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=fill
    )
    return _cut(turned, box)


def _cut(image: Image.Image, box: Box) -> np.ndarray:
    top, left, height, width = box
    return np.array(image.crop((left, top, left + width, top + height)))


@cache
def _equals_pillow() -> bool:
    """Whether the loop computes as Pillow here: a build of Pillow may round once where another rounds twice."""
    frame = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    arguments = frame, True, [0.93, -0.31, 17.3, 0.27, 0.97, -11.9], (8, 16, 80, 100), (1, 2, 3)
    return np.array_equal(_compute(*arguments), _pillow(*arguments))
