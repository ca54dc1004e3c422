"""The demo network of SAM 3: it starts from that of SAM 2, it can be trained, and its committed weights track."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import demo_sam3
from demo_sam2 import Clips, Recipe
from held_out import clip_score, first_appearances
from vosarena.config.catalogs import load_catalog
from vosarena.demo.clips import make_clip, random_clip
from vosarena.demo.synthesize import SIZE, clip_seed
from vosarena.trackers.baselines import Flow
from vosarena.trackers.transformers import Transformers

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def weights():
    (source,) = load_catalog().model("sam3-demo").weights.sources
    return Path(source.local)


@pytest.fixture(scope="module")
def batch():
    return Clips(Recipe(seed=1, fresh=1.0), demo_sam3.SIDE, worker=0).batch(frames=3, side=demo_sam3.SIDE)


@pytest.fixture(scope="module")
def start(batch, tmp_path_factory):
    """The folder with which the training starts."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("sam3")
    demo_sam3.save(demo_sam3.start_from_sam2([batch]).state_dict(), folder)
    return folder


def test_memories_of_half_the_channels_have_the_keys_and_values_of_sam2_demo(start):
    ours, theirs = demo_sam3.load(start), demo_sam3.sam2_demo()
    pixels, masks = torch.randn(2, 128, 12, 12), torch.rand(2, 1, 192, 192).round() * 20 - 10
    with torch.no_grad():
        memory, _ = ours.memory_encoder(pixels, masks)
        expected = theirs.memory_encoder(pixels, masks, skip_mask_sigmoid=True)["vision_features"]
        for layer, original in zip(ours.memory_attention.layers, theirs.memory_attention.layers, strict=True):
            for name in ("k_proj", "v_proj"):
                found = getattr(layer.cross_attn_image, name)(memory.flatten(2).mT)
                wanted = getattr(original.cross_attn_image, name)(expected.flatten(2).mT)
                assert (found - wanted).std() < 0.1 * wanted.std()


def test_training_gives_the_maps_of_the_library_and_lowers_the_loss(batch, start):
    network, teacher = demo_sam3.load(start), demo_sam3.sam2_demo()
    images = batch.images.flatten(0, 1)
    with torch.no_grad():
        pixels = demo_sam3.sam3_pixels(images)
        maps = network.get_image_features(pixels, return_dict=True).fpn_hidden_states
        torch.testing.assert_close(demo_sam3.image_maps(network, pixels), maps, rtol=1e-3, atol=1e-3)
    optimizer = torch.optim.AdamW(network.vision_encoder.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = demo_sam3.maps_loss(network, teacher, images)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    untouched = {name for name, value in network.vision_encoder.named_parameters() if value.grad is None}
    assert all(name.startswith("neck.fpn_layers.3.") for name in untouched)  # a map that the library drops


def test_the_committed_weights_track_and_are_documented():
    """On a few held-out clips ahead of flow, and also on the many of the log next to them."""
    tracker = Transformers(str(weights()))
    clips = [random_clip(clip_seed("held-out", number), frames=12, size=SIZE) for number in range(4)]
    ours, theirs = (np.mean([clip_score(t, clip.frames, clip.masks) for clip in clips]) for t in (tracker, Flow()))
    assert ours > theirs + 5
    scores = json.loads(weights().with_suffix(".json").read_text())["held_out"]
    assert scores["clips"] >= 100
    assert scores["plain"]["sam3-demo minus flow"]["interval_95"][0] > 0
    assert (weights() / "model.safetensors").stat().st_size < 10_000_000


@pytest.mark.parametrize("options", [{"batch_objects": 4}, {"precision": "bf16"}])
def test_options_that_change_the_last_bits_hardly_change_masks_of_trained_weights(options):
    clip = make_clip(3, frames=8, size=SIZE, objects=3, events=("late",))
    prompts = first_appearances(clip.masks)
    expected, found = (
        np.stack(list(Transformers(str(weights()), **given).track(list(clip.frames), prompts)))
        for given in ({}, options)
    )
    assert len(np.unique(expected)) == 4
    assert (found != expected).sum() < 0.01 * (expected > 0).sum()
