"""Our Cutie tracker gives the masks of rf-cutie's own evaluation path: reader, resizing, core, saver."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from held_out import first_appearances
from tests.support.cutie_upstream import upstream
from vosarena.datasets.sequences import read_sequence
from vosarena.demo.clips import make_clip
from vosarena.io.frames import Frames
from vosarena.io.masks import read_mask, write_mask
from vosarena.trackers.cutie import Cutie
from vosarena.trackers.cutie_network import build_network, cutie_config

pytestmark = pytest.mark.usefixtures("one_torch_thread")
LONG_TERM = {"max_mem_frames": 4, "min_mem_frames": 2, "num_prototypes": 16, "max_num_tokens": 96, "buffer_tokens": 32}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeded random weights."""
    torch.manual_seed(11)
    network = build_network(cutie_config("tiny"))
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in canonical layout whose masks are prompts only: `late` has an object that comes later."""
    root = tmp_path_factory.mktemp("videos")
    clips = {
        "late": make_clip(21, frames=10, size=(100, 150), objects=3, events=("late",)),
        "plain": make_clip(22, frames=9, size=(100, 150), objects=2),
    }
    for name, clip in clips.items():
        (root / "JPEGImages" / name).mkdir(parents=True)
        (root / "Annotations" / name).mkdir(parents=True)
        for index, frame in enumerate(clip.frames):
            cv2.imwrite(str(root / "JPEGImages" / name / f"{index:05d}.jpg"), frame[..., ::-1])
        for index, prompt in first_appearances(clip.masks).items():
            write_mask(root / "Annotations" / name / f"{index:05d}.png", prompt)
    return root


def assert_same(root: Path, output: Path, tracker: Cutie) -> None:
    for name in sorted(path.name for path in (root / "JPEGImages").iterdir()):
        files = read_sequence(root / "JPEGImages", root / "Annotations", name)
        seen = set()
        with Frames(files.frames) as frames:
            for path, labels in zip(files.frames, tracker.track(frames, files.prompts()), strict=True):
                theirs = np.array(Image.open(output / name / f"{path.stem}.png"))
                assert np.array_equal(labels, theirs), f"{name} {path.stem}"
                seen |= {tuple(np.unique(labels))}
        assert len(seen) > 1 or len(next(iter(seen))) > 1, "masks of one label only prove nothing"


CASES = {
    "native": ({"size": -1}, {}),
    "resized": ({"size": 80, "mem_every": 3}, {}),
    "few frames in memory": ({"size": 80, "mem_every": 2}, {"max_mem_frames": 3}),
    "long-term memory": ({"size": 80, "mem_every": 1}, {"long_term": LONG_TERM}),
    "flipped too": ({"size": 80}, {"flip_aug": True, "top_k": 20, "chunk_size": 1}),
}


@pytest.mark.parametrize("case", CASES)
def test_masks_are_those_of_upstreams_evaluation(case: str, videos: Path, weights: Path, tmp_path: Path) -> None:
    data, model = CASES[case]
    upstream(videos, tmp_path, weights, **data, **model)
    assert_same(videos, tmp_path, Cutie(str(weights), model="tiny", **data, **model))


def test_long_term_memory_is_really_used(videos: Path, weights: Path) -> None:
    """The settings above fill the working memory, so that frames are consolidated into prototypes."""
    files = read_sequence(videos / "JPEGImages", videos / "Annotations", "plain")
    results = []
    for long_term in (False, LONG_TERM):
        tracker = Cutie(str(weights), model="tiny", size=80, mem_every=1, long_term=long_term)
        with Frames(files.frames) as frames:
            results.append(np.stack(list(tracker.track(frames, files.prompts()))))
    assert not np.array_equal(*results)


def test_real_clip_with_late_objects(shared_data: Path, weights: Path, tmp_path: Path) -> None:
    """Four objects that enter on frames 0, 5, 8 and 13; the mask that is too narrow is widened for both sides."""
    shutil.copytree(shared_data / "judo" / "JPEGImages", tmp_path / "in" / "JPEGImages")
    source = read_sequence(
        shared_data / "judo" / "JPEGImages", shared_data / "judo" / "Annotations", "judo", resize="nearest"
    )
    (tmp_path / "in" / "Annotations" / "judo").mkdir(parents=True)
    for index, prompt in source.prompts().items():
        write_mask(tmp_path / "in" / "Annotations" / "judo" / f"{source.frames[index].stem}.png", prompt)
    upstream(tmp_path / "in", tmp_path / "out", weights, size=112)
    assert_same(tmp_path / "in", tmp_path / "out", Cutie(str(weights), model="tiny", size=112))
    assert read_mask(tmp_path / "out" / "judo" / "00015.png").shape == source.size
