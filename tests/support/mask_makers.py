"""Masks for the metric tests: odd random ones, and the real masklets of one SA-V video."""

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from vosarena.io.masks import write_mask


def blobs(rng: np.random.Generator, height: int, width: int, count: int, highest: int = 6) -> np.ndarray:
    """Overlapping ellipses with labels 0..highest, uint8 (H, W); some leave the image."""
    labels = np.zeros((height, width), np.uint8)
    for _ in range(count):
        centre = (int(rng.integers(-5, width + 5)), int(rng.integers(-5, height + 5)))
        axes = (int(rng.integers(0, width // 2 + 2)), int(rng.integers(0, height // 2 + 2)))
        cv2.ellipse(labels, centre, axes, int(rng.integers(180)), 0, 360, int(rng.integers(highest + 1)), -1)
    return labels


def odd_pairs(rng: np.random.Generator, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (ground truth, prediction) of small label maps of every awkward kind."""
    for index in range(count):
        height, width = (int(n) for n in rng.integers(2, 90, 2))
        empty = np.zeros((height, width), np.uint8)
        gt, pred = blobs(rng, height, width, 4), blobs(rng, height, width, 4)
        match index % 10:
            case 0:  # noise of all labels, 255 too
                highest = int(rng.integers(1, 256))
                gt, pred = rng.integers(0, highest + 1, (2, height, width), dtype=np.uint8)
            case 1:  # drifted
                pred = np.roll(gt, rng.integers(-9, 10, 2), (0, 1))
            case 2:  # eroded
                pred = cv2.erode(gt, np.ones((3, 3), np.uint8))
            case 3:  # swapped
                pred = np.where(gt == 1, 2, np.where(gt == 2, 1, gt)).astype(np.uint8)
            case 4:  # one object dropped
                pred = np.where(gt == 1, 0, gt).astype(np.uint8)
            case 5:  # one pixel each
                gt, pred = empty.copy(), empty.copy()
                gt[rng.integers(height), rng.integers(width)] = 1
                pred[rng.integers(height), rng.integers(width)] = 1
            case 6:  # full frames and border strips
                gt, pred = np.full_like(empty, rng.integers(3)), np.full_like(empty, rng.integers(3))
                gt[-1], pred[:, -1] = 7, 7
            case 7:  # empty on one side or both
                gt, pred = (gt, empty) if rng.integers(2) else (empty, pred if rng.integers(2) else empty)
            case 8:  # checkerboard against blobs: boundaries everywhere
                gt = (np.indices(empty.shape).sum(axis=0) % 2).astype(np.uint8)
            case 9:  # label 255
                gt = np.where(gt == 3, 255, gt).astype(np.uint8)
        yield gt, pred


def write_clip(folder: Path, maps: list[np.ndarray]) -> None:
    """Writes label maps as 00000.png, 00001.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, labels in enumerate(maps):
        write_mask(folder / f"{index:05d}.png", labels)


def sav_masklets(file: Path) -> np.ndarray:
    """The masklets of an SA-V annotation file: bool (frames, objects, H, W)."""
    frames = json.loads(file.read_text())["masklet"]
    return np.array([[_run_lengths(mask["counts"], *mask["size"]) for mask in frame] for frame in frames])


def _run_lengths(text: str, height: int, width: int) -> np.ndarray:
    """A mask of COCO's compressed run lengths: 5 bits a character, every run but three relative to the last but one."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(width, height).T
