"""The demo network of SAM 2: it can be trained, and its committed weights track."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import demo_sam2
from held_out import clip_score
from vosarena.config.catalogs import load_catalog
from vosarena.demo.clips import random_clip
from vosarena.demo.synthesize import SIZE, clip_seed
from vosarena.trackers.baselines import Static
from vosarena.trackers.sam2 import Sam2

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def weights():
    (source,) = load_catalog().model("sam2-demo").weights.sources
    return source.local


def test_a_training_step_reaches_every_part_and_lowers_the_loss(tmp_path):
    recipe = demo_sam2.Recipe(clips=2, objects=4)
    torch.manual_seed(0)
    network = demo_sam2.instantiate_network("sam2_demo")
    demo_sam2.prepare_network(network)
    demo_sam2.set_image_size(network, 64)
    batch = demo_sam2.Clips(recipe, 96, worker=0).batch(frames=3, side=64)
    assert batch.images.shape == (2, 3, 3, 64, 64)
    assert batch.masks.shape[1:] == (3, 1, 64, 64)
    assert batch.masks[:, 0].flatten(1).any(1).all()  # every object is there in the first frame
    far = demo_sam2.Clips(replace(recipe, gap=3), 96, worker=0).batch(frames=6, side=96)
    assert far.images.shape == (2, 6, 3, 96, 96)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = demo_sam2.unrolled_loss(network, batch, 0.0, np.random.default_rng(0))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    untouched = {name for name, value in network.named_parameters() if value.grad is None}
    assert untouched == {"no_mem_embed", "no_mem_pos_enc"}  # replaced by the prompt's memory
    demo_sam2.save(network.state_dict(), tmp_path / "weights.pth")
    Sam2("sam2_demo", str(tmp_path / "weights.pth"))


def test_schedules_follow_the_progress():
    recipe = demo_sam2.Recipe()
    assert [recipe.length(progress) for progress in (0, 0.09, 0.1, 0.64, 0.65, 0.99)] == [2, 2, 4, 4, 6, 6]
    assert [recipe.side(*when, 192) for when in ((0, 0), (0, 5), (0.79, 6), (0.8, 6), (1, 6))] == [
        128,
        192,
        128,
        192,
        192,
    ]
    assert recipe.teaching(0) == 0.5
    assert recipe.teaching(0.25) == recipe.teaching(1) == 0
    assert recipe.learning_rate(0.5, 10_000) == pytest.approx(recipe.rate / 2)
    assert recipe.learning_rate(1.2, 10_000) == 0


def test_the_committed_weights_track_and_are_documented():
    """On a few held-out clips clearly ahead of repeating the first mask; ahead of flow in the log next to them."""
    tracker, static = Sam2("sam2_demo", weights()), Static()
    clips = [random_clip(clip_seed("held-out", number), frames=16, size=SIZE) for number in range(5)]
    ours, theirs = (np.array([clip_score(t, clip.frames, clip.masks) for clip in clips]) for t in (tracker, static))
    assert ours.mean() > theirs.mean() + 15
    scores = json.loads(Path(weights()).with_suffix(".json").read_text())["held_out"]
    assert scores["clips"] >= 100
    assert scores["plain"]["sam2-demo minus flow"]["interval_95"][0] > 0
