"""Cutie as a tracker: strict weights, settings, and what surrounds the core."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vosarena.base.errors import TrackerError
from vosarena.demo.clips import make_clip
from vosarena.trackers import cutie
from vosarena.trackers.base import build_tracker
from vosarena.trackers.cutie import ARITHMETIC, Cutie, fast_max_pool
from vosarena.trackers.cutie_network import build_network, cutie_config

DEMO_WEIGHTS = Path(cutie.__file__).parents[1] / "config" / "catalog" / "weights" / "cutie-demo.pth"


@pytest.fixture(scope="module")
def state() -> dict:
    torch.manual_seed(3)
    return build_network(cutie_config("tiny")).state_dict()


@pytest.fixture
def weights(state: dict, tmp_path: Path) -> Path:
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (4, 96, 128, 3), np.uint8))


def prompt(label: int) -> np.ndarray:
    labels = np.zeros((96, 128), np.uint8)
    labels[20:60, 30:80] = label
    return labels


def refused(path: Path, *words: str, model: str = "tiny") -> None:
    with pytest.raises(TrackerError) as error:
        Cutie(str(path), model=model)
    for word in (path.name, *words):
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_other_weights_are_refused_by_name(state: dict, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({key: value for key, value in state.items() if not key.startswith("key_proj")}, path)
    refused(path, "missing", "key_proj.pix_feat_proj.weight")
    torch.save({**state, "extra.weight": torch.zeros(1)}, path)
    refused(path, "unknown", "extra.weight")
    torch.save({**state, "pix_feat_proj.weight": torch.zeros(3, 4)}, path)
    refused(path, "another shape", "pix_feat_proj.weight", "(3, 4)")
    torch.save({"network": state}, path)
    refused(path, "not a plain state dict")


def test_weights_may_lack_the_counters_of_batch_norms(weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights, weights_only=True)
    counters = {key for key in state if key.endswith("num_batches_tracked")}
    path = tmp_path / "old.pth"
    torch.save({key: value for key, value in state.items() if key not in counters}, path)
    assert counters and Cutie(str(path), model="tiny")


def test_stable_memory_is_read_where_upstream_would_divide_zero_by_zero(state: dict, frames, tmp_path: Path) -> None:
    """Far keys: exp() of all similarities is 0. The masks are those of nearer keys with the same nearest neighbours."""
    path = tmp_path / "far.pth"

    def tracked(factor: float, arithmetic: str) -> list[np.ndarray]:
        key = "key_proj.key_proj"
        torch.save({name: value * factor if name.startswith(key) else value for name, value in state.items()}, path)
        return list(Cutie(str(path), model="tiny", arithmetic=arithmetic).track(frames, {0: prompt(1)}))

    assert not tracked(1e3, "upstream")[1].any()
    assert tracked(1e3, "stable")[1].any()
    assert all(map(np.array_equal, tracked(1e3, "stable"), tracked(2e3, "stable")))


def test_weights_of_another_model_are_refused(weights: Path) -> None:
    refused(weights, "do not fit", model="small")


def test_damaged_missing_and_pickled_files_are_refused(weights: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere.pth", "no weights file")
    weights.write_bytes(weights.read_bytes()[:50_000])
    refused(weights, "not a PyTorch checkpoint")
    torch.save({"weight": os.system}, tmp_path / "code.pth")  # weights_only: a pickle must not name functions
    refused(tmp_path / "code.pth", "not a PyTorch checkpoint")


def test_half_precision_files_are_loaded_as_float32(state: dict, tmp_path: Path) -> None:
    path = tmp_path / "half.pth"
    torch.save({key: value.half() if value.is_floating_point() else value for key, value in state.items()}, path)
    network = Cutie(str(path), model="tiny").network
    assert {value.dtype for value in network.state_dict().values() if value.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("model", ["base", "small"])
def test_construction_downloads_nothing(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from cutie.model.utils import resnet

    def refuse(*arguments: object, **keywords: object) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr(resnet.model_zoo, "load_url", refuse)
    network = build_network(cutie_config(model))
    assert network.pixel_encoder.conv1.out_channels == 64
    with pytest.raises(AssertionError):  # the patch is gone once the network is built
        resnet.resnet18()


def test_settings_reach_the_core(weights: Path) -> None:
    tracker = Cutie(str(weights), model="tiny", mem_every=3, max_mem_frames=10, top_k=20)
    assert (tracker.config.mem_every, tracker.config.max_mem_frames, tracker.config.top_k) == (3, 10, 20)
    assert not tracker.config.use_long_term
    long = Cutie(str(weights), model="tiny", long_term={"num_prototypes": 64}, max_mem_frames=7)
    assert long.config.use_long_term and long.config.long_term.num_prototypes == 64
    assert (long.config.long_term.max_mem_frames, long.config.max_mem_frames) == (7, 5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "huge"}, "base, small, tiny"),
        ({"model": "tiny", "size": 0}, "size is 0"),
        ({"model": "tiny", "size": [480, 3]}, r"size is \[480, 3\]"),
        ({"model": "tiny", "long_term": {"prototypes": 3}}, "num_prototypes"),
        ({"model": "tiny", "memory": 3}, "no option 'memory'"),
        ({"model": "tiny", "arithmetic": "fast"}, "use one of upstream, rf-cutie, stable"),
    ],
)
def test_wrong_options_are_refused(weights: Path, options: dict, words: str) -> None:
    with pytest.raises(TrackerError, match=words):
        build_tracker("cutie", {"weights": str(weights), **options}, device="cpu")


@pytest.mark.parametrize("arithmetic", ARITHMETIC)
def test_arithmetic_decides_the_formula_of_residual_blocks(arithmetic: str, weights: Path) -> None:
    """Upstream: `x = x * w + self.downsample(r)`."""
    block = Cutie(str(weights), model="tiny", arithmetic=arithmetic).network.pixel_fuser.fuser.block1
    assert not any(weight.requires_grad for weight in block.parameters())
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, block.conv1.in_channels, 9, 11, generator=generator)
    with torch.inference_mode():
        inside = block.conv2(torch.relu(block.conv1(torch.relu(x))))
        weight = block.conv(block.pool(inside).view(1, 1, -1)).transpose(-1, -2).unsqueeze(-1).sigmoid()
        rounded_twice = inside * weight + block.downsample(x)
        rounded_once = torch.addcmul(block.downsample(x), inside, weight)
        assert not torch.equal(rounded_twice, rounded_once)
        assert torch.equal(block(x), rounded_once if arithmetic == "rf-cutie" else rounded_twice)


@pytest.mark.parametrize("size", [(1, 1), (7, 8), (8, 7), (30, 54)])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_thefast_max_pool_is_torchs(size: tuple[int, int], kind: torch.dtype) -> None:
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1)).to(kind)
    assert torch.equal(fast_max_pool()(x), torch.nn.MaxPool2d(3, stride=2, padding=1)(x))


def test_frames_before_the_first_object_are_background(weights: Path, frames: list[np.ndarray]) -> None:
    masks = list(Cutie(str(weights), model="tiny").track(frames, {2: prompt(7)}))
    assert len(masks) == 4 and all(mask.shape == (96, 128) and mask.dtype == np.uint8 for mask in masks)
    assert not masks[0].any() and not masks[1].any()
    assert np.array_equal(masks[2], prompt(7))
    assert set(np.unique(masks[3])) <= {0, 7}


def test_a_tracker_starts_every_sequence_anew(weights: Path, frames: list[np.ndarray]) -> None:
    tracker = Cutie(str(weights), model="tiny")
    first = np.stack(list(tracker.track(frames, {0: prompt(1)})))
    list(tracker.track(frames[::-1], {0: prompt(2)}))
    assert np.array_equal(first, np.stack(list(tracker.track(frames, {0: prompt(1)}))))
    assert not torch.is_inference_mode_enabled()


def test_several_sizes_are_merged_as_by_upstreams_script(weights: Path, frames: list[np.ndarray]) -> None:
    """merge_multi_scale.py: the bytes of the saved scores are added and the first of the largest wins."""
    tracker, saved = Cutie(str(weights), model="tiny", size=[80, 96, 72]), []
    step = tracker._step

    def recorded(core, *arguments, **options):
        probability, ids = step(core, *arguments, **options)
        saved.append((probability.numpy() * 255).astype(np.uint8))
        return probability, ids

    tracker._step = recorded
    merged = np.stack(list(tracker.track(frames, {0: prompt(5), 2: prompt(7)})))
    for index, labels in enumerate(merged):
        scores = sum(item.astype(np.float32) for item in saved[3 * index : 3 * index + 3])
        assert np.array_equal(labels, np.array([0, 5, 7], np.uint8)[np.argmax(scores, 0)])
    alone = [np.stack(list(Cutie(str(weights), model="tiny", size=size).track(frames, {0: prompt(5), 2: prompt(7)})))
             for size in (80, 96, 72)]  # fmt: skip
    assert not any(np.array_equal(merged, masks) for masks in alone)
    for size, masks in zip((80, 96, 72), alone, strict=True):
        one = Cutie(str(weights), model="tiny", size=[size])
        assert np.array_equal(masks, np.stack(list(one.track(frames, {0: prompt(5), 2: prompt(7)}))))


def test_saving_memory_tracks_objects_one_by_one() -> None:
    """With trained weights the masks are nearly the same; they are rounded differently."""
    clip = make_clip(22, frames=6, objects=2)
    tracker = Cutie(str(DEMO_WEIGHTS), model="tiny", size=128, mem_every=1, arithmetic="stable")
    together = np.stack(list(tracker.track(list(clip.frames), {0: clip.masks[0]})))
    with tracker.saving_memory() as saving:
        assert saving == {"chunk_size": 1}
        with tracker.saving_memory() as nothing_left:
            assert not nothing_left
        alone = np.stack(list(tracker.track(list(clip.frames), {0: clip.masks[0]})))
    assert tracker.config.chunk_size == -1
    assert (together != alone).mean() < 0.001 and set(np.unique(alone)) == {0, 1, 2}


def test_too_small_pictures_are_refused(weights: Path, frames: list[np.ndarray]) -> None:
    tracker = Cutie(str(weights), model="tiny", size=32)
    with pytest.raises(TrackerError, match="top_k of 30"):
        list(tracker.track(frames, {0: prompt(1)}))


def test_objects_lost_by_resizing_are_named(
    weights: Path, frames: list[np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Cutie(str(weights), model="tiny", size=80)
    dot = np.zeros((96, 128), np.uint8)
    dot[2, 2] = 2  # nearest-neighbour reduction skips this pixel
    with_dot = list(tracker.track(frames, {0: prompt(1), 2: dot}))
    assert "objects {2} are too small for size 80" in caplog.text
    without = list(tracker.track(frames, {0: prompt(1)}))
    assert all(np.array_equal(a, b) for a, b in zip(with_dot, without, strict=True))


def test_the_other_package_named_cutie_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "cutie.py").write_text("def select(options): ...\n")
    code = "from vosarena.trackers.cutie_network import package_folder; package_folder()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert str(tmp_path / "cutie.py") in done.stderr and "pip uninstall -y cutie" in done.stderr
