"""Training and scoring of the demo's Cutie."""

import json
from pathlib import Path

import numpy as np
import pytest

from held_out import clip_score, first_appearances
from vosarena.demo.clips import make_clip
from vosarena.trackers.baselines import Static

torch = pytest.importorskip("torch")
pytest.importorskip("cutie.inference.inference_core")

import demo_cutie  # noqa: E402
from demo_cutie import (  # noqa: E402
    DEMO_OPTIONS,
    ClipBuffer,
    Part,
    change_contrast,
    main,
    make_batch,
)
from vosarena.trackers.cutie import Cutie  # noqa: E402

WEIGHTS = Path(__file__).parents[2] / "src/vosarena/config/catalog/weights" / "cutie-demo.pth"


class Oracle:
    packages = ()

    def __init__(self, masks: np.ndarray) -> None:
        self.masks = masks

    def track(self, frames, prompts):
        yield from self.masks


def test_training_writes_weights_that_the_tracker_takes(tmp_path: Path, monkeypatch) -> None:
    first = Part(2, 5e-4, ((0.0, 2, 128), (0.5, 3, 128)))
    monkeypatch.setattr(demo_cutie, "PARTS", (first, Part(1, 3e-4, ((0.0, 2, 160),), contrast=1.0)))
    monkeypatch.setattr(demo_cutie, "BATCH", 2)
    output = tmp_path / "new" / "demo.pth"
    main(["--output", str(output), "--clips", "0"])
    assert output.stat().st_size < 10e6
    report = json.loads(output.with_suffix(".json").read_text())
    assert str(output) in report["command"]
    assert [[line["iteration"] for line in log] for log in report["loss"]] == [[2], [1]]
    assert all(np.isfinite(log[-1]["loss_per_frame"]) for log in report["loss"])
    Cutie(str(output), model="tiny")


def test_training_goes_on_from_given_weights(tmp_path: Path, monkeypatch) -> None:
    part = Part(1, 0.0, ((0.0, 2, 128),), schedule=5)
    monkeypatch.setattr(demo_cutie, "GOING_ON", (part,))
    output = tmp_path / "demo.pth"
    main(["--from", str(WEIGHTS), "--output", str(output), "--clips", "0"])
    before, after = (torch.load(path, weights_only=True) for path in (WEIGHTS, output))
    names = [name for name in before if "running" not in name and "num_batches" not in name]
    assert all(torch.equal(before[name], after[name]) for name in names)  # at a learning rate of nothing


def test_contrast_changes_keep_the_form() -> None:
    frames = make_clip(1, frames=2, size=(64, 64)).frames
    changed = change_contrast(np.random.default_rng(0), frames)
    assert changed.shape == frames.shape and changed.dtype == np.uint8
    assert changed.std(axis=(0, 1, 2)).max() < frames.std(axis=(0, 1, 2)).max()


def test_batches_are_what_the_wrapper_takes() -> None:
    buffer = ClipBuffer(9, width=160, contrast=0.5)
    for _ in range(4):
        buffer.refresh()
    data = make_batch(buffer, 3, 5)
    assert data["rgb"].shape == (3, 5, 3, 128, 160) and data["rgb"].min() >= 0 and data["rgb"].max() <= 1
    assert data["first_frame_gt"].shape == (3, 1, 3, 128, 160) and data["cls_gt"].shape == (3, 5, 1, 128, 160)
    for index in range(3):
        count = int(data["info"]["num_objects"][index])
        assert data["selector"][index].tolist() == [1.0] * count + [0.0] * (3 - count)
        assert set(data["cls_gt"][index, 0].unique().tolist()) == set(range(count + 1))
        for number in range(count):
            first = data["first_frame_gt"][index, 0, number].bool()
            assert torch.equal(first, data["cls_gt"][index, 0, 0] == number + 1)


def test_scores_of_a_clip() -> None:
    clip = make_clip(4, frames=10, size=(96, 160), objects=3, events=("late",))
    assert clip_score(Oracle(clip.masks), clip.frames, clip.masks) == 100.0
    assert clip_score(Oracle(np.zeros_like(clip.masks)), clip.frames, clip.masks) == 0.0
    assert 0 < clip_score(Static(), clip.frames, clip.masks) < 100
    prompts = first_appearances(clip.masks)
    assert sorted(set(np.concatenate([np.unique(mask) for mask in prompts.values()]))) == [0, 1, 2, 3]
    assert len(prompts) == 2 and 0 in prompts


def test_committed_weights_load_and_are_documented() -> None:
    assert WEIGHTS.stat().st_size < 10e6
    tracker = Cutie(str(WEIGHTS), **DEMO_OPTIONS)
    scores = json.loads(WEIGHTS.with_suffix(".json").read_text())["held_out"]
    assert scores["clips"] >= 100
    assert scores["plain"]["cutie-demo minus flow"]["interval_95"][0] > 0
    clip = make_clip(2, frames=6, objects=1)
    measured = clip_score(tracker, clip.frames, clip.masks)
    assert measured > clip_score(Static(), clip.frames, clip.masks)
