"""The same weights of SAM 2 in its own package and in transformers: where masks differ, by how much, and why.

Random weights, whose logits are small: the means of the absolute logits here are around 1.
"""

import numpy as np
import pytest
import torch

from tests.support import sam2_upstream as upstream
from tests.support.sam2_to_transformers import convert
from vosarena.demo.clips import make_clip
from vosarena.trackers.sam2 import Sam2
from vosarena.trackers.transformers import Transformers

SIDE = 128
pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def trackers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sam2")
    weights = upstream.random_weights("sam2.1_hiera_t", folder / "random.pth", 0, SIDE)
    converted = convert(weights, folder / "converted", SIDE)
    return Sam2("sam2.1_hiera_t", str(weights), SIDE), Transformers(str(converted))


def differences(trackers, frames, prompts):
    """Largest difference of logits per frame, and the share of pixels whose sign differs."""

    def logits(tracker):
        raw = lambda scores, size: torch.stack([score for _, score in scores])  # noqa: E731
        return list(tracker._stream.run(frames, prompts, tracker._settings, raw))

    pairs = list(zip(*map(logits, trackers), strict=True))
    pixels = np.mean([((a > 0) != (b > 0)).mean() for a, b in pairs])
    return [float(np.abs(a - b).max()) for a, b in pairs], float(pixels)


def split(labels):
    return {int(number): labels == number for number in np.unique(labels) if number}


def test_frames_of_the_networks_size_differ_by_rounding(trackers):
    clip = make_clip(5, frames=5, size=(SIDE, SIDE), objects=2)
    largest, pixels = differences(trackers, clip.frames, {0: split(clip.masks[0])})
    assert largest[0] == 0  # the prompt itself
    assert 0 < max(largest) < 2e-3 and pixels < 1e-3


def test_other_frames_are_resized_differently(trackers, monkeypatch):
    """Pillow's bicubic filter in the package, bilinear with antialiasing in transformers."""
    clip = make_clip(5, frames=4, size=(96, 160), objects=2)
    prompts = {0: split(clip.masks[0])}
    largest, pixels = differences(trackers, clip.frames, prompts)
    assert max(largest) > 5e-3 and 1e-4 < pixels < 2e-2
    monkeypatch.setattr(trackers[1]._stream, "prepare", trackers[0]._stream.prepare)
    largest, pixels = differences(trackers, clip.frames, prompts)
    assert max(largest) < 2e-3 and pixels < 1e-3


def test_a_late_object_hardens_the_memory_of_the_others(trackers):
    """transformers stores the mask of every object as it stores prompts, as 0 and 1, if one object is prompted.

    The memory of that frame is read in the next six.
    """
    clip = make_clip(5, frames=10, size=(SIDE, SIDE), objects=2)
    prompts = {0: {1: clip.masks[0] == 1}, 2: {2: clip.masks[2] == 2}}
    largest, _ = differences(trackers, clip.frames, prompts)
    assert min(largest[3:9]) > 3 * largest[9]
    assert max(largest[1], largest[9]) < 2e-3
