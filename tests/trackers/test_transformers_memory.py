"""Memory rules of the tracker `transformers`: the masks of plain loops over the library's own code."""

import numpy as np
import pytest
import torch

from held_out import first_appearances
from tests.support import memory_reference as plain
from tests.support import transformers_session as library
from vosarena.base.errors import TrackerError
from vosarena.demo.clips import make_clip
from vosarena.trackers.transformers import Transformers

pytestmark = pytest.mark.usefixtures("one_torch_thread")
SEEN, SURE = (30.0, 33.0), (1.0, 1.0)  # random weights that see objects; high predicted IoU
UNSURE = (30.0, 25.0)  # random weights whose objects come and go, if the frames are noisy


@pytest.mark.parametrize(
    ("kind", "rule", "clip", "presence", "quality", "expected"),
    [
        ("sam3", "samurai", (5, 28), SEEN, (1.0, 0.0), {"bad", "moved"}),
        ("sam3", "dam", (5, 22), UNSURE, SURE, {"absent"}),
        ("sam3", "rcms", (5, 22), UNSURE, (1.0, 0.0), {"promoted"}),
        ("sam2", "long", (5, 14), (1.0, 0.3), (1.0, 0.0), {"apart"}),
        ("edgetam", "long", (5, 8), (30.0, -3.0), (1.0, 0.0), {"bad"}),
    ],
)
def test_masks_equal_those_of_a_plain_implementation(tmp_path, kind, rule, clip, presence, quality, expected):
    """Three objects in one pass, one of them late, next to one object at a time with all memories."""
    seed, frames = clip
    clip = make_clip(
        seed, frames=frames, size=(72, 120), objects=3, events=("late", "return", "occlusion", "distractor")
    )
    if presence == UNSURE:
        noise = np.random.default_rng(seed).integers(0, 128, clip.frames.shape)
        clip.frames[:] = (clip.frames // 2 + noise).astype(np.uint8)
    prompts = {
        index: {int(number): labels == number for number in np.unique(labels) if number}
        for index, labels in first_appearances(clip.masks).items()
    }
    assert len(prompts) == 2
    folder = library.write_weights(kind, tmp_path / "weights", presence=presence, quality=quality)
    masks = list(Transformers(str(folder), memory=rule).track_objects(clip.frames, prompts))
    network = library.load(kind, folder)
    processor = library.processor_of(kind, network.config.image_size)
    video = plain.SessionVideo(network, processor, processor.init_video_session(video=np.stack(clip.frames)))
    happened = set()
    for index, new in prompts.items():
        for number, mask in new.items():
            reference = getattr(plain, rule.capitalize())(video, index, mask)
            np.testing.assert_array_equal(np.stack([of[number] for of in masks[index:]]), reference.masks())
            happened |= reference.events
    assert expected <= happened


def test_saving_memory_changes_nothing(tmp_path):
    folder = library.write_weights("sam2", tmp_path / "weights", presence=(1.0, 0.3))
    clip = make_clip(4, frames=6, size=(48, 64), objects=1)
    tracker = Transformers(str(folder), memory="long")
    expected = list(tracker.track(clip.frames, {0: clip.masks[0]}))
    with tracker.saving_memory():
        np.testing.assert_array_equal(list(tracker.track(clip.frames, {0: clip.masks[0]})), expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert len(list(tracker.track(clip.frames, {0: clip.masks[0]}))) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": "samuray"}, "transformers: memory is 'samuray'; did you mean 'samurai'?"),
        ({"memory": "dam", "compile": True}, "transformers: compile does not work with memory dam; leave out one of"),
    ],
)
def test_options_that_do_not_fit_are_one_sentence(options, message):
    with pytest.raises(TrackerError, match=message):
        Transformers("no", **options)
