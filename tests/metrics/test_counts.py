"""The seven counts against a plain implementation of their definitions, and J and F that follow from them."""

import cv2
import numpy as np
import pytest
from skimage.morphology import disk

from tests.support.mask_makers import odd_pairs
from vosarena.base.errors import MaskError
from vosarena.io.runs import Runs
from vosarena.metrics.counts import (
    Counts,
    FrameCounter,
    adaptive_tolerance,
    boundary_f,
    jaccard,
    tolerance,
    tolerance_cap,
)
from vosarena.metrics.counts import count_objects as count_named


def count_objects(gt: np.ndarray, pred: np.ndarray, adaptive: bool = False) -> np.ndarray:
    """Labels and counts side by side, int64 (objects, 1 + 7 or 9)."""
    labels, counts = count_named(gt, pred, adaptive)
    return np.column_stack((labels, *counts.columns().values()))


def plain_boundary(mask: np.ndarray) -> np.ndarray:
    """A pixel that differs from its right, lower or lower-right neighbour, where there is one (DAVIS)."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    blocks = [padded[dy : dy + mask.shape[0], dx : dx + mask.shape[1]] for dy in (0, 1) for dx in (0, 1)]
    return np.any(blocks, axis=0) & ~np.all(blocks, axis=0)


def plain_matches(boundary: np.ndarray, other: np.ndarray, radius: float) -> int:
    """Pixels of a boundary that have one of the other's within a distance."""
    a, b = np.argwhere(boundary), np.argwhere(other)
    if not len(a) or not len(b):
        return 0
    squared = ((a[:, None] - b[None]) ** 2).sum(axis=2).min(axis=1)
    return int((squared <= radius**2).sum())


def dilated_matches(boundary: np.ndarray, other: np.ndarray, radius: float) -> int:
    """The same as MOSEv2's scorer does it: dilation with skimage's disk, also of a radius that is not whole."""
    return int((boundary & cv2.dilate(other.astype(np.uint8), disk(radius)).astype(bool)).sum())


def test_counts_follow_their_definitions() -> None:
    rng = np.random.default_rng(0)
    for gt, pred in odd_pairs(rng, 120):
        rows = count_objects(gt, pred)
        labels = sorted((set(np.unique(gt)) | set(np.unique(pred))) - {0})
        assert rows[:, 0].tolist() == labels
        for label, *counts in rows[:: max(1, len(rows) // 5)].tolist():
            a, b = gt == label, pred == label
            edge_a, edge_b = plain_boundary(a), plain_boundary(b)
            r = np.ceil(0.008 * np.sqrt(gt.shape[0] ** 2 + gt.shape[1] ** 2))
            expected = [(a & b).sum(), a.sum(), b.sum(), edge_a.sum(), edge_b.sum()]
            expected += [plain_matches(edge_a, edge_b, r), plain_matches(edge_b, edge_a, r)]
            assert counts == expected


@pytest.mark.parametrize("size", [(480, 854), (300, 1000), (2000, 3000), (61, 4000), (30, 8300), (8300, 30)])
def test_large_tolerances_equal_the_disk(size: tuple[int, int]) -> None:
    """Radii of 8 to 67 pixels, words and rows at the edges included: boundaries scattered over the image."""
    rng = np.random.default_rng(1)
    gt, pred = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    for labels in (gt, pred):
        ys, xs = rng.integers(0, size[0], 150), rng.integers(0, size[1], 150)
        labels[ys, xs] = 1
        labels[0, 0] = labels[-1, -1] = 1
    ((_, *counts),) = count_objects(gt, pred).tolist()
    edges = [plain_boundary(labels == 1) for labels in (gt, pred)]
    r = tolerance(*size)
    assert counts[5:] == [plain_matches(edges[0], edges[1], r), plain_matches(edges[1], edges[0], r)]


@pytest.mark.parametrize("size", [(64, 1), (65, 63), (129, 64), (140, 65), (200, 128), (277, 400)])
def test_rows_that_are_counted_at_once(size: tuple[int, int]) -> None:
    """Objects in pieces that end near multiples of 64 rows or begin a few rows later; buffers of other objects."""
    rng = np.random.default_rng(size)
    counter, radius, cap = FrameCounter(adaptive=True), tolerance(*size), tolerance_cap(*size)
    for _ in range(25):
        gt, pred = np.zeros((2, *size), np.uint8)
        for labels in (gt, pred):
            for _ in range(rng.integers(1, 8)):
                y, x = 64 * rng.integers(5) + rng.integers(-12, 13), rng.integers(-3, size[1])
                labels[max(0, y) : y + rng.integers(1, 90), max(0, x) : x + rng.integers(4, 80)] = rng.integers(1, 4)
        runs = [Runs.of_rows(np.pad(labels, ((0, 0), (1, 0)))) for labels in (gt, pred)]
        for label, counts in zip(*(array.tolist() for array in counter.count(*runs)), strict=True):
            a, b = gt == label, pred == label
            edges = plain_boundary(a), plain_boundary(b)
            assert counts[:5] == [(a & b).sum(), a.sum(), b.sum(), edges[0].sum(), edges[1].sum()]
            near = min(np.ceil(0.1 * np.sqrt(counts[1])), cap) if counts[1] else cap
            assert counts[5:] == [dilated_matches(*pair, r) for r in (radius, near) for pair in (edges, edges[::-1])]


@pytest.mark.parametrize("size", [(97, 131), (480, 854), (600, 701)])
def test_adaptive_matches_equal_the_disks_of_mosev2(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    cap = tolerance_cap(*size)
    for area in (3, 20, 60, 200, 400):
        gt, pred = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
        side = min(area, *size) // 2
        gt[5 : 5 + side, 7 : 7 + side + 3] = 4
        pred = np.roll(gt, rng.integers(-12, 13, 2), (0, 1))
        ((label, *counts),) = count_objects(gt, pred, adaptive=True).tolist()
        edges = [plain_boundary(labels == 4) for labels in (gt, pred)]
        r = min(np.ceil(0.1 * np.sqrt((gt == 4).sum())), cap) if side else cap
        assert label == 4 and adaptive_tolerance(np.array([counts[1]]), cap)[0] == r
        assert counts[7:] == [dilated_matches(edges[0], edges[1], r), dilated_matches(edges[1], edges[0], r)]


def test_255_objects_and_4k() -> None:
    rng = np.random.default_rng(3)
    gt = cv2.resize(rng.integers(0, 256, (54, 96), dtype=np.uint8), (3840, 2160), interpolation=cv2.INTER_NEAREST)
    pred = np.roll(gt, (10, -7), (0, 1))
    rows = count_objects(gt, pred)
    assert len(rows) == len(np.unique(gt[gt > 0])) >= 254
    label = int(rows[17, 0])
    edges = [plain_boundary(labels == label) for labels in (gt, pred)]
    r = tolerance(2160, 3840)
    assert r == 36
    assert rows[17, 1:].tolist() == [
        ((gt == label) & (pred == label)).sum(),
        (gt == label).sum(),
        (pred == label).sum(),
        *(edge.sum() for edge in edges),
        dilated_matches(edges[0], edges[1], r),
        dilated_matches(edges[1], edges[0], r),
    ]


def test_counter_keeps_nothing_from_one_frame_to_the_next() -> None:
    rng = np.random.default_rng(4)
    counter = FrameCounter()
    for gt, pred in odd_pairs(rng, 60):
        maps = [Runs.of_rows(np.pad(labels, ((0, 0), (1, 0)), constant_values=9)) for labels in (gt, pred)]
        np.testing.assert_array_equal(np.column_stack(counter.count(*maps)), count_objects(gt, pred))


def test_one_column_and_one_row() -> None:
    gt, pred = np.array([[1], [1], [0]], np.uint8), np.array([[1], [0], [0]], np.uint8)
    assert count_objects(gt, pred).tolist() == [[1, 1, 2, 1, 1, 1, 1, 1]]
    assert count_objects(gt.T.copy(), pred.T.copy()).tolist() == [[1, 1, 2, 1, 1, 1, 1, 1]]


def test_shapes_must_agree() -> None:
    with pytest.raises(MaskError, match="prediction is 5x4 pixels but the ground truth is 4x4"):
        count_objects(np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8))


def test_scores_of_empty_masks() -> None:
    #                 I, gt, pred, gtb, predb, gtm, predm
    table = np.array([[0, 0, 0, 0, 0, 0, 0], [0, 9, 0, 6, 0, 0, 0], [0, 0, 9, 0, 6, 0, 0], [9, 9, 9, 0, 0, 0, 0]])
    counts = Counts.from_table(table)
    assert jaccard(counts).tolist() == [1, 0, 0, 1]
    assert boundary_f(counts).tolist() == [1, 0, 0, 1]
    assert boundary_f(Counts.from_table(np.array([[1, 2, 2, 3, 4, 0, 0]]))).tolist() == [0]


def test_tolerance_of_known_sizes() -> None:
    assert [tolerance(480, 854), tolerance(1080, 1920), tolerance(2160, 3840), tolerance(2, 2)] == [8, 18, 36, 1]
    assert tolerance(75, 100) == int(np.ceil(0.008 * np.linalg.norm((75, 100))))
