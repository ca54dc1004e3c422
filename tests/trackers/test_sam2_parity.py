"""SAM 2: masks equal to those of the official predictor run in the official way, in bounded memory."""

import gc

import numpy as np
import pytest
import torch
from scipy import ndimage

from held_out import first_appearances
from tests.support import sam2_upstream as upstream
from tests.support.records import task_of
from vosarena.datasets.sequences import read_sequence
from vosarena.demo.clips import make_clip
from vosarena.inference.job import Job
from vosarena.inference.run import track_sequences
from vosarena.io.frames import Frames, read_frame
from vosarena.io.masks import read_mask, write_mask
from vosarena.predictions.manifest import ModelDefinition
from vosarena.predictions.store import Store
from vosarena.trackers.ruled import without_holes
from vosarena.trackers.sam2 import Sam2
from vosarena.trackers.sam2_network import config_path

DEMO_WEIGHTS = config_path("sam2_demo").parents[2] / "config" / "catalog" / "weights" / "sam2-demo.pth"
pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture
def run(tmp_path):
    """Track a folder of JPEGs with `ours` and `upstream`, of the same weights; two lists of label maps."""

    def track_both(config, weights, frames, prompts, image_size=None, **options):
        folder = tmp_path / "video"
        paths = upstream.write_video(folder, frames)
        postprocessing = options.get("apply_postprocessing", False)
        reference = upstream.build(config, weights, image_size, postprocessing=postprocessing)
        if "fill_hole_area" in options:
            reference.fill_hole_area = options["fill_hole_area"]
        late = 0 not in prompts or np.setdiff1d(list(prompts.values()), prompts[0]).any()
        way = upstream.track_separately if late else upstream.track_together
        expected = list(way(reference, folder, prompts, threshold=options.get("score_thresh", 0.0)))
        with Frames(paths) as video:
            masks = list(Sam2(str(config), str(weights), image_size, **options).track(video, prompts))
        return masks, expected

    return track_both


def assert_equal(masks, expected):
    assert len(masks) == len(expected)
    different = [index for index, pair in enumerate(zip(masks, expected, strict=True)) if (pair[0] != pair[1]).any()]
    assert not different, f"masks differ in frames {different}"


def weights_for(tmp_path, config, image_size=None):
    return upstream.random_weights(config, tmp_path / "random.pth", 0, image_size)


@pytest.mark.parametrize("objects", [1, 3])
def test_all_objects_in_the_first_frame(tmp_path, run, objects):
    """More frames than the network remembers pointers of."""
    clip = make_clip(objects, frames=40, objects=objects)
    prompts = {0: clip.masks[0]}
    masks, expected = run("sam2_demo", weights_for(tmp_path, "sam2_demo"), clip.frames, prompts, 96)
    assert_equal(masks, expected)
    assert len({mask.tobytes() for mask in masks}) > 33  # the masks change all the time
    assert set(np.unique(masks[20])) > {0}


def test_120_frames_with_objects_that_appear_late(tmp_path, run):
    clip = make_clip(5, frames=120, objects=3, events=("late",))
    numbers = {1: 7, 2: 250, 3: 4}  # gaps, and not in the order of appearance
    labels = np.zeros_like(clip.masks)
    for old, new in numbers.items():
        labels[clip.masks == old] = new
    prompts = first_appearances(labels)
    assert len(prompts) > 1
    masks, expected = run("sam2_demo", weights_for(tmp_path, "sam2_demo"), clip.frames, prompts, 96)
    assert_equal(masks, expected)
    assert set(np.unique(masks)) - {0} == {4, 7, 250}


def test_frames_before_the_first_object_are_background(tmp_path, run):
    clip = make_clip(6, frames=20, objects=2)
    prompts = {7: clip.masks[7]}
    masks, expected = run("sam2_demo", weights_for(tmp_path, "sam2_demo"), clip.frames, prompts, 96)
    assert_equal(masks, expected)
    assert not np.stack(masks[:7]).any()
    assert masks[7].any()


def test_objects_that_vanish_and_return(tmp_path, run):
    """Weights that change their mind about presence: what upstream remembers of absent objects counts."""
    clip = make_clip(12, frames=40, objects=2)
    weights = upstream.random_weights("sam2_demo", tmp_path / "random.pth", 0, 96, presence=(30.0, 1.0))
    masks, expected = run("sam2_demo", weights, clip.frames, {0: clip.masks[0]}, 96)
    assert_equal(masks, expected)
    there = np.array([(mask == 1).any() for mask in masks])
    assert 3 < there.sum() < 37
    assert (there[1:] & ~there[:-1]).any()  # it came back


@pytest.mark.parametrize("frames", [1, 2, 9])
def test_short_videos(tmp_path, run, frames):
    clip = make_clip(9, frames=frames, objects=2)
    masks, expected = run("sam2_demo", weights_for(tmp_path, "sam2_demo"), clip.frames, {0: clip.masks[0]})
    assert_equal(masks, expected)
    assert masks[0].any()


def test_a_memory_with_a_stride(tmp_path, run):
    """Memories that lie apart in time must not be forgotten too early."""
    config = tmp_path / "own.yaml"
    text = config_path("sam2_demo").read_text()
    config.write_text(text.replace("num_maskmem: 4", "num_maskmem: 6\n  memory_temporal_stride_for_eval: 4"))
    clip = make_clip(10, frames=50, objects=2, events=("late",))
    prompts = first_appearances(clip.masks)
    masks, expected = run(config, weights_for(tmp_path, str(config)), clip.frames, prompts, 96)
    assert_equal(masks, expected)


@pytest.mark.parametrize("config", ["configs/sam2/sam2_hiera_t.yaml", "sam2.1_hiera_t"])
def test_official_networks_at_reduced_image_size(tmp_path, run, config):
    clip = make_clip(11, frames=10, objects=2)
    masks, expected = run(config, weights_for(tmp_path, config, 128), clip.frames, {0: clip.masks[0]}, 128)
    assert_equal(masks, expected)
    assert len({mask.tobytes() for mask in masks}) == 10


def test_real_video(shared_data, run):
    judo = shared_data / "judo"
    files = read_sequence(judo / "JPEGImages", judo / "Annotations", "judo", resize="nearest")
    frames, prompts = [read_frame(path) for path in files.frames], files.prompts()
    assert len(prompts) > 1
    masks, expected = run("sam2_demo", DEMO_WEIGHTS, frames, prompts)
    assert_equal(masks, expected)
    assert set(np.unique(masks[-1])) > {0}


def test_the_files_that_the_workflow_writes(tmp_path):
    """From JPEG files and prompt PNGs to masks on disk, through the runner."""
    clip = make_clip(16, frames=24, objects=3, events=("late",))
    prompts = first_appearances(clip.masks)
    upstream.write_video(tmp_path / "JPEGImages" / "clip", clip.frames)
    (tmp_path / "Annotations" / "clip").mkdir(parents=True)
    for index, labels in prompts.items():
        write_mask(tmp_path / "Annotations" / "clip" / f"{index:05d}.png", labels)
    weights = weights_for(tmp_path, "sam2_demo", 96)
    job = Job(ModelDefinition("sam2", {"config": "sam2_demo", "image_size": 96}), weights, "cpu")
    store = Store(tmp_path / "masks")
    outcome = track_sequences(task_of(tmp_path, ["clip"], job, store))
    assert not outcome.failed
    reference = upstream.build("sam2_demo", weights, 96)
    expected = list(upstream.track_separately(reference, tmp_path / "JPEGImages" / "clip", prompts))
    assert_equal([read_mask(path) for path in sorted(store.masks("clip").glob("*.png"))], expected)


def test_overlapping_objects_keep_their_own_masks(tmp_path):
    clip = make_clip(12, frames=24, objects=3, events=("late",))
    prompts = first_appearances(clip.masks)
    weights = weights_for(tmp_path, "sam2_demo", 96)
    paths = upstream.write_video(tmp_path / "video", clip.frames)
    reference = upstream.build("sam2_demo", weights, 96, non_overlap=False)
    expected = list(upstream.track_separately(reference, tmp_path / "video", prompts, overlap=True))
    split = {index: {n: labels == n for n in np.unique(labels) if n} for index, labels in prompts.items()}
    with Frames(paths) as video:
        masks = list(Sam2("sam2_demo", str(weights), 96).track_objects(video, split))
    assert len(masks) == len(expected)
    for ours, theirs in zip(masks, expected, strict=True):
        assert list(ours) == list(theirs) == [1, 2, 3]
        for number, mask in ours.items():
            assert mask.dtype == np.bool_
            np.testing.assert_array_equal(mask, theirs[number])
    assert any(sum(m.astype(int) for m in ours.values()).max() > 1 for ours in masks)  # they do overlap


def test_faster_options_change_few_pixels(run):
    """Shared forward passes and encoder batches are allowed to differ in the last bits only."""
    clip = make_clip(13, frames=20, objects=3)
    prompts = {0: clip.masks[0]}
    masks, expected = run("sam2_demo", DEMO_WEIGHTS, clip.frames, prompts, batch_objects=2, encoder_batch=3)
    assert len(masks) == len(expected)
    assert np.mean(np.stack(masks) != np.stack(expected)) < 1e-3


def test_bf16_gives_the_masks_of_upstream_under_autocast(tmp_path):
    """Weights are converted once, upstream's in every frame."""
    clip = make_clip(17, frames=20, objects=2, events=("late",))
    prompts = first_appearances(clip.masks)
    weights = weights_for(tmp_path, "sam2_demo", 96)
    paths = upstream.write_video(tmp_path / "video", clip.frames)
    with torch.autocast("cpu", torch.bfloat16):
        expected = list(
            upstream.track_separately(upstream.build("sam2_demo", weights, 96), tmp_path / "video", prompts)
        )
    tracker = Sam2("sam2_demo", str(weights), 96, precision="bf16")
    assert {p.dtype for p in tracker._stream.predictor.parameters()} == {torch.bfloat16, torch.float32}
    with Frames(paths) as video:
        assert_equal(list(tracker.track(video, prompts)), expected)
    with Frames(paths) as video:
        full = list(Sam2("sam2_demo", str(weights), 96).track(video, prompts))
    assert any((a != b).any() for a, b in zip(full, expected, strict=True))  # the precision does matter here


@pytest.mark.parametrize("frames_in_attention", [-1, 2])
@pytest.mark.parametrize("late", [False, True])
def test_all_masks_as_prompts(tmp_path, run, late, frames_in_attention):
    config = tmp_path / "own.yaml"
    text, limit = config_path("sam2_demo").read_text(), f"max_cond_frames_in_attn: {frames_in_attention}"
    config.write_text(text.replace("num_maskmem: 4", f"num_maskmem: 4\n  {limit}"))
    clip = make_clip(18, frames=20, size=(96, 160), objects=3, events=("late",) if late else ())
    given = {index: clip.masks[index] for index in (0, 5, 12, 13, 17)}
    given[5] = np.where(given[5] == 2, 0, given[5])
    prompts = dict(sorted((first_appearances(clip.masks) | given).items()))
    weights = weights_for(tmp_path, str(config), 96)
    masks, expected = run(config, weights, clip.frames, prompts, 96, use_all_masks=True)
    assert_equal(masks, expected)
    first = run_ours(clip, weights, config, first_appearances(clip.masks))
    assert (first[4] != masks[4]).any()  # later masks help earlier frames too


def run_ours(clip, weights, config, prompts, **options):
    return list(Sam2(str(config), str(weights), 96, **options).track(clip.frames, prompts))


def test_all_masks_of_overlapping_objects(tmp_path):
    clip = make_clip(12, frames=14, size=(96, 160), objects=3, events=("late",))
    prompts = dict(sorted((first_appearances(clip.masks) | {11: clip.masks[11]}).items()))
    weights = weights_for(tmp_path, "sam2_demo", 96)
    paths = upstream.write_video(tmp_path / "video", clip.frames)
    reference = upstream.build("sam2_demo", weights, 96, non_overlap=False)
    expected = upstream.track_separately(reference, tmp_path / "video", prompts, overlap=True, threshold=-0.5)
    split = {index: {n: labels == n for n in np.unique(labels) if n} for index, labels in prompts.items()}
    tracker = Sam2("sam2_demo", str(weights), 96, use_all_masks=True, score_thresh=-0.5)
    with Frames(paths) as video:
        for ours, theirs in zip(tracker.track_objects(video, split), expected, strict=True):
            assert list(ours) == list(theirs) == [1, 2, 3]
            assert all((ours[number] == theirs[number]).all() for number in ours)


@pytest.mark.parametrize(("late", "score_thresh"), [(False, -0.7), (False, 1.5), (True, -0.7), (True, 1.5)])
def test_another_threshold(tmp_path, run, late, score_thresh):
    clip = make_clip(5, frames=8, size=(96, 160), objects=3, events=("late",) if late else ())
    prompts = first_appearances(clip.masks)
    weights = weights_for(tmp_path, "sam2_demo", 96)
    masks, expected = run("sam2_demo", weights, clip.frames, prompts, 96, score_thresh=score_thresh)
    assert_equal(masks, expected)
    assert any((a != b).any() for a, b in zip(masks, run_ours(clip, weights, "sam2_demo", prompts), strict=True))


@pytest.fixture
def connected_components(monkeypatch):
    """In place of sam2's CUDA extension, by its docstring: labels and areas of components with 8 neighbours."""

    def components(mask):
        found = [ndimage.label(one[0], np.ones((3, 3)))[0] for one in mask.numpy()]
        areas = [np.bincount(labels.ravel())[labels] * (labels > 0) for labels in found]
        return torch.from_numpy(np.stack(found)[:, None]), torch.from_numpy(np.stack(areas)[:, None])

    monkeypatch.setattr("sam2.utils.misc.get_connected_components", components)


@pytest.mark.parametrize("options", [{"fill_hole_area": 25}, {"apply_postprocessing": True}], ids=str)
def test_holes_are_filled_as_with_upstreams_extension(tmp_path, run, connected_components, options):
    clip = make_clip(19, frames=12, size=(96, 160), objects=3, events=("late",))
    prompts = first_appearances(clip.masks)
    prompts[0][clip.masks[0] == 1] *= np.arange((clip.masks[0] == 1).sum(), dtype=np.uint8) % 40 != 0  # with holes
    weights = weights_for(tmp_path, "sam2_demo", 96)
    masks, expected = run("sam2_demo", weights, clip.frames, prompts, 96, **options)
    assert_equal(masks, expected)
    plain = run_ours(clip, weights, "sam2_demo", prompts)
    assert sum((a != b).any() for a, b in zip(masks, plain, strict=True)) > 6


@pytest.mark.parametrize("area", [1, 8, 60])
def test_holes(connected_components, area):
    from sam2.utils.misc import fill_holes_in_mask_scores

    scores = torch.from_numpy(np.random.default_rng(area).normal(0.3, 1, (3, 1, 64, 48)).astype(np.float32))
    scores[2] = -1
    scores[1, 0, 5:9] = 0  # exactly 0 is background
    filled = without_holes(scores.clone(), area)
    assert torch.equal(filled, fill_holes_in_mask_scores(scores, area))
    assert (filled != scores).any()


def test_offloading_the_memory_changes_nothing(tmp_path, run):
    clip = make_clip(14, frames=20, objects=2)
    weights = weights_for(tmp_path, "sam2_demo", 96)
    assert_equal(*run("sam2_demo", weights, clip.frames, {0: clip.masks[0]}, 96, offload_memory=True))


def test_one_tracker_runs_many_videos(tmp_path):
    weights = weights_for(tmp_path, "sam2_demo", 96)
    clips = [make_clip(seed, frames=12, size=size, objects=2) for seed, size in ((1, (96, 160)), (2, (120, 90)))]
    tracker = Sam2("sam2_demo", str(weights), 96)
    fresh = [list(Sam2("sam2_demo", str(weights), 96).track(c.frames, {0: c.masks[0]})) for c in clips]
    unfinished = tracker.track(clips[1].frames, {0: clips[1].masks[0]})
    next(unfinished)
    unfinished.close()
    for clip, expected in zip([clips[0], clips[1], clips[0]], [fresh[0], fresh[1], fresh[0]], strict=True):
        assert_equal(list(tracker.track(clip.frames, {0: clip.masks[0]})), expected)


def test_memory_does_not_grow_with_the_video(tmp_path):
    clip = make_clip(15, frames=100, size=(64, 64), objects=2)
    tracker = Sam2("sam2_demo", str(weights_for(tmp_path, "sam2_demo", 64)), 64)

    def held():
        gc.collect()
        kinds = (torch.Tensor, torch.nn.Parameter)  # and not those of torch.compile, which have no data
        tensors = [item for item in gc.get_objects() if type(item) in kinds]
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())

    prompts = {0: clip.masks[0]}
    sizes = [held() for index, _ in enumerate(tracker.track(clip.frames, prompts)) if index in (30, 90)]
    a_frame = 64 * 64 * 3  # the thread that resizes ahead may be in the middle of one
    assert abs(sizes[1] - sizes[0]) <= 4 * a_frame
