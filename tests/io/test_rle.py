"""Run lengths of masks: those of an annotation file that pycocotools wrote, and masks there and back."""

import json

import numpy as np
import pytest

from tests.support.mask_makers import blobs
from vosarena.base.errors import MaskError
from vosarena.io import rle


def test_masks_there_and_back():
    rng = np.random.default_rng(0)
    masks = [blobs(rng, *map(int, rng.integers(1, 90, 2)), 3) == 1 for _ in range(60)]
    masks += [np.zeros((7, 5), bool), np.ones((7, 5), bool), np.eye(9, dtype=bool), rng.random((64, 300)) > 0.5]
    for mask in masks:
        text = rle.encode(mask)
        assert np.array_equal(rle.decode(text, *mask.shape), mask) and rle.area(text) == mask.sum()


def test_known_texts():
    mask = np.zeros((4, 5), bool)
    mask[1:3, 1:4] = True
    assert list(rle.runs(rle.encode(mask))) == [5, 2, 2, 2, 2, 2, 5]
    assert rle.encode(mask) == "5220003"  # after the third, the difference from the run before the last


def test_the_texts_of_pycocotools(shared_data):
    (file, *_) = sorted(shared_data.rglob("*_manual.json"))
    frames = json.loads(file.read_text())["masklet"]
    for mask in [mask for frame in frames[:5] for mask in frame]:
        assert rle.encode(rle.decode(mask["counts"], *mask["size"])) == mask["counts"]


@pytest.mark.parametrize("text", ["", "5220", "52 0003", "5220003é", "522000a", "~5220003", "o" * 40 + "0", "5220N03"])
def test_other_texts_are_refused(text):
    with pytest.raises(MaskError):
        rle.decode(text, 4, 5)
