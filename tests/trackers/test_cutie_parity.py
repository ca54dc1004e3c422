"""Our Cutie tracker gives the masks of upstream's own evaluation, eval_vos.py, and as an option those of rf-cutie's."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from held_out import first_appearances
from tests.support.cutie_upstream import checkout, upstream, upstream_in
from tests.support.records import task_of
from vosarena.base.errors import TrackerError
from vosarena.datasets.sequences import FULL_ANNOTATIONS, FULL_IMAGES, read_sequence
from vosarena.demo.clips import make_clip
from vosarena.inference.job import Job
from vosarena.inference.outputs import prompts_of
from vosarena.inference.run import track_sequences
from vosarena.io.frames import Frames
from vosarena.io.masks import read_mask, write_mask
from vosarena.predictions.manifest import ModelDefinition
from vosarena.predictions.store import Store
from vosarena.trackers.cutie import Cutie
from vosarena.trackers.cutie_network import build_network, cutie_config

pytestmark = pytest.mark.usefixtures("one_torch_thread")
LONG_TERM = {"max_mem_frames": 4, "min_mem_frames": 2, "num_prototypes": 16, "max_num_tokens": 96, "buffer_tokens": 32}


SETTINGS = {
    "native": {"size": -1},
    "resized": {"size": 80, "mem_every": 3},
    "few frames in memory": {"size": 80, "mem_every": 2, "max_mem_frames": 3},
    "long-term memory": {"size": 80, "mem_every": 1, "long_term": LONG_TERM},
    "flipped too": {"size": 80, "flip_aug": True, "top_k": 20, "chunk_size": 1},
}
REAL = {
    "tiny": {"model": "tiny", "size": 112, "flip_aug": True},
    "base, plus": {"model": "base", "size": 112, "mem_every": 3, "max_mem_frames": 10},
    "base, long-term memory, flipped": {"model": "base", "size": 80, "mem_every": 1, "flip_aug": True}
    | {"long_term": LONG_TERM, "top_k": 20},
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Seeded random weights, whose similarities are not so small that upstream loses all objects."""
    folder, paths = tmp_path_factory.mktemp("weights"), {}
    for model, seed in (("tiny", 11), ("base", 3)):
        torch.manual_seed(seed)
        paths[model] = folder / f"{model}.pth"
        torch.save(build_network(cutie_config(model)).state_dict(), paths[model])
    return paths


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


@pytest.fixture(scope="module")
def prompted_again(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video with masks of objects that are known already, one of them together with a new object."""
    root, clip = (
        tmp_path_factory.mktemp("prompted-again"),
        make_clip(21, frames=10, size=(100, 150), objects=3, events=("late",)),
    )
    late = next(index for index in first_appearances(clip.masks) if index)
    known = clip.masks[0].max()
    (root / "JPEGImages" / "clip").mkdir(parents=True)
    (root / "Annotations" / "clip").mkdir(parents=True)
    for index, frame in enumerate(clip.frames):
        cv2.imwrite(str(root / "JPEGImages" / "clip" / f"{index:05d}.jpg"), frame[..., ::-1])
        if index in (0, late, 8):
            labels = np.where(clip.masks[index] == known, 0, clip.masks[index]) if index == late else clip.masks[index]
            write_mask(root / "Annotations" / "clip" / f"{index:05d}.png", labels)
    return root


@pytest.fixture(scope="module")
def real_video(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three objects that enter on frames 0, 5 and 8 of 10; the mask that is too narrow is widened for both sides."""
    root, judo = tmp_path_factory.mktemp("real"), shared_data / "judo"
    source = read_sequence(judo / "JPEGImages", judo / "Annotations", "judo", resize="nearest")
    images, masks = root / "JPEGImages" / "judo", root / "Annotations" / "judo"
    images.mkdir(parents=True)
    masks.mkdir(parents=True)
    for index, frame in enumerate(source.frames[:10]):
        shutil.copy(frame, images)
        if index in source.prompts():
            write_mask(masks / f"{frame.stem}.png", source.prompts()[index])
    return root


@pytest.fixture(scope="module")
def of_checkout(tmp_path_factory: pytest.TempPathFactory):
    """Masks of upstream's repository: settings of several runs -> folder of masks of each."""
    repository = checkout()
    if repository is None:
        pytest.skip("no checkout of hkchengrex/Cutie in ../shared/upstream/Cutie or VOSARENA_CUTIE")

    def outputs(root: Path, weights: dict[str, Path], runs: dict[str, dict]) -> dict[str, Path]:
        folders = {name: tmp_path_factory.mktemp("masks") for name in runs}
        upstream_in(
            repository,
            [
                {"root": root, "output": folders[name], "weights": weights[settings["model"]], **settings}
                for name, settings in runs.items()
            ],
        )
        return {name: folder / "Annotations" for name, folder in folders.items()}

    return outputs


def assert_same(root: Path, masks: Path, weights: dict[str, Path], settings: dict, arithmetic: str) -> None:
    tracker = Cutie(str(weights[settings["model"]]), **settings, arithmetic=arithmetic)
    for name in sorted(path.name for path in (root / "JPEGImages").iterdir()):
        files = read_sequence(root / "JPEGImages", root / "Annotations", name)
        with Frames(files.frames) as frames:
            ours = np.stack(list(tracker.track(frames, prompts_of(files, settings))))
        theirs = np.stack([read_mask(masks / name / f"{path.stem}.png") for path in files.frames])
        differing = (ours != theirs).sum((1, 2))
        assert not differing.any(), f"{name}: pixels that differ, by frame: {differing}"
        assert len(np.unique(ours[-1])) > 1, "masks of one label only prove nothing"


@pytest.mark.parametrize("case", SETTINGS)
def test_masks_are_those_of_rf_cutie(case: str, videos: Path, weights: dict[str, Path], tmp_path: Path) -> None:
    settings = {"model": "tiny", **SETTINGS[case]}
    upstream(videos, tmp_path, weights["tiny"], **settings)
    assert_same(videos, tmp_path / "Annotations", weights, settings, "rf-cutie")


def test_weights_kept_in_bf16_give_the_masks_of_upstreams_amp(
    videos: Path, weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on CUDA, where some blocks turn autocast off; a CPU would ignore them."""
    autocast = torch.autocast
    monkeypatch.setattr(torch.cuda.amp, "autocast", lambda enabled: autocast("cpu", torch.bfloat16, enabled))
    root, settings = tmp_path / "data", {"model": "tiny", "size": 80, "mem_every": 2}
    shutil.copytree(videos / "Annotations" / "plain", root / "Annotations" / "plain")
    (root / "JPEGImages" / "plain").mkdir(parents=True)
    for frame in range(4):  # a CPU is slow in this precision
        shutil.copy(videos / "JPEGImages" / "plain" / f"{frame:05d}.jpg", root / "JPEGImages" / "plain")
    upstream(root, tmp_path, weights["tiny"], **settings, amp=True)
    assert_same(root, tmp_path / "Annotations", weights, settings | {"precision": "bf16"}, "rf-cutie")
    with pytest.raises(AssertionError, match="pixels that differ"):  # the precision does matter here
        assert_same(root, tmp_path / "Annotations", weights, settings, "rf-cutie")
    network = Cutie(str(weights["tiny"]), "tiny", precision="bf16").network
    assert {value.dtype for value in network.parameters()} == {torch.bfloat16, torch.float32}


def test_all_masks_as_prompts(prompted_again: Path, weights: dict[str, Path], tmp_path: Path) -> None:
    settings = {"model": "tiny", "size": 80, "use_all_masks": True}
    upstream(prompted_again, tmp_path, weights["tiny"], **settings)
    assert_same(prompted_again, tmp_path / "Annotations", weights, settings, "rf-cutie")
    with pytest.raises(AssertionError, match="pixels that differ"):
        assert_same(prompted_again, tmp_path / "Annotations", weights, settings | {"use_all_masks": False}, "rf-cutie")
    last = prompted_again / "Annotations" / "clip" / "00008.png"
    write_mask(last, np.minimum(read_mask(last), 1))
    with pytest.raises(TrackerError, match=r"a mask has object \[1\] only, but \[1, 2, 3\] are known"):
        assert_same(prompted_again, tmp_path / "Annotations", weights, settings, "rf-cutie")


def test_masks_of_another_size_than_the_frames(videos: Path, weights: dict[str, Path], tmp_path: Path) -> None:
    """As upstream's "plus" settings for DAVIS: `size_directory` gives the size of the masks."""
    root = tmp_path / "data"
    for kind, full in (("JPEGImages", FULL_IMAGES), ("Annotations", FULL_ANNOTATIONS)):
        shutil.copytree(videos / kind, root / full)
        for path in sorted(root.glob(f"{full}/*/*")):
            small = root / kind / path.relative_to(root / full)
            small.parent.mkdir(parents=True, exist_ok=True)
            Image.open(path).resize((87, 58), Image.Resampling.NEAREST).save(small)
    settings = {"model": "tiny", "size": 80, "mem_every": 3}
    larger = tmp_path / "larger"
    larger.mkdir()
    (larger / "JPEGImages").symlink_to(root / FULL_IMAGES)
    (larger / "Annotations").symlink_to(root / FULL_ANNOTATIONS)
    upstream(larger, tmp_path / "theirs", weights["tiny"], **settings, size_directory=str(root / "JPEGImages"))
    definition = ModelDefinition("cutie", {**settings, "arithmetic": "rf-cutie", "full_resolution": True})
    store = Store(tmp_path / "ours")
    task = task_of(root, ["late", "plain"], Job(definition, weights["tiny"], "cpu"), store)
    assert not track_sequences(task).failed
    for path in sorted((tmp_path / "theirs" / "Annotations").glob("*/*.png")):
        ours, theirs = read_mask(store.masks(path.parent.name) / path.name), read_mask(path)
        assert ours.shape == (58, 87)
        assert (ours == theirs).all(), path
    assert len(np.unique(ours)) > 1
    next(root.glob(f"{FULL_IMAGES}/late/*5.jpg")).unlink()
    assert "other frames" in track_sequences(task).failed["late"]


def test_masks_of_a_real_video_are_those_of_rf_cutie(
    real_video: Path, weights: dict[str, Path], tmp_path: Path
) -> None:
    upstream(real_video, tmp_path, weights["tiny"], **REAL["tiny"])
    assert_same(real_video, tmp_path / "Annotations", weights, REAL["tiny"], "rf-cutie")


def test_masks_are_those_of_upstreams_repository(of_checkout, videos: Path, weights: dict[str, Path]) -> None:
    runs = {case: {"model": "tiny", **SETTINGS[case]} for case in ("resized", "long-term memory", "flipped too")}
    for case, masks in of_checkout(videos, weights, runs).items():
        assert_same(videos, masks, weights, runs[case], "upstream")


def test_masks_of_a_real_video_are_those_of_upstreams_repository(
    of_checkout, real_video: Path, weights: dict[str, Path]
) -> None:
    for case, masks in of_checkout(real_video, weights, REAL).items():
        assert_same(real_video, masks, weights, REAL[case], "upstream")


def test_long_term_memory_is_really_used(videos: Path, weights: dict[str, Path]) -> None:
    """The settings above fill the working memory, so that frames are consolidated into prototypes."""
    files = read_sequence(videos / "JPEGImages", videos / "Annotations", "plain")
    results = []
    for long_term in (False, LONG_TERM):
        tracker = Cutie(str(weights["tiny"]), model="tiny", size=80, mem_every=1, long_term=long_term)
        with Frames(files.frames) as frames:
            results.append(np.stack(list(tracker.track(frames, files.prompts()))))
    assert not np.array_equal(*results)
