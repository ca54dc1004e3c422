"""Memory rules: each decision alone, and the masks next to plain loops and next to the package of SAMURAI."""

import gc
import json
import os
import subprocess

import numpy as np
import pytest
import torch

from held_out import first_appearances
from tests.conftest import REPOSITORY
from tests.support import memory_reference as plain
from tests.support import sam2_upstream as upstream
from tests.support.environments import environment
from tests.support.records import task_of
from vosarena.base.errors import TrackerError
from vosarena.demo.clips import make_clip
from vosarena.inference.job import Job
from vosarena.inference.run import track_sequences
from vosarena.io.frames import Frames
from vosarena.io.masks import write_mask
from vosarena.predictions.manifest import ModelDefinition
from vosarena.predictions.store import Store
from vosarena.trackers.memory import RULES
from vosarena.trackers.memory.base import RECORDS, Limits, Motion, Path, Record
from vosarena.trackers.memory.dam import Dam, may_be_anchor, shows_distractor
from vosarena.trackers.memory.long import Long, best_branches, key_weights
from vosarena.trackers.memory.rcms import Rcms, promoted, quality
from vosarena.trackers.memory.samurai import Samurai, box_iou, choose_by_motion, predict, start_motion, update
from vosarena.trackers.ruled import Proposals, without_holes
from vosarena.trackers.sam2 import Sam2
from vosarena.trackers.sam2_network import config_path

pytestmark = pytest.mark.usefixtures("one_torch_thread")
NAMES = [name for name in RULES if name != "fifo"]
LIMITS = Limits(maps=6, pointers=15)
SIDE = 96


def history(seed, frames):
    """Random records of a video in which the object is absent for long and anchors are rare."""
    rng = np.random.default_rng(seed)
    records = {0: Record()}
    for frame in range(1, frames):
        there = (frame // 60) % 3 != 1 and rng.random() > 0.1
        records[frame] = Record(
            iou=float(rng.random()),
            presence=float(rng.uniform(0, 5) if there else -rng.uniform(0, 5)),
            pixels=int(rng.integers(1, 900)) if there else 0,
            seen=there,
            motion=None if rng.random() < 0.3 else float(rng.choice([0, 0.5])),
            quality=float(rng.random()) if there else 0.0,
            anchor=bool(there and rng.random() < 0.1),
        )
    return records


@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept_is_enough_and_does_not_grow(name):
    """The rule selects the same from what the tracker keeps as from everything."""
    rule, every, kept, sizes = RULES[name](), history(1, 700), {0: Record()}, []
    maps = {0}
    for frame in range(1, 700):
        selection = rule.select({past: record for past, record in every.items() if past < frame}, frame, LIMITS)
        assert rule.select(kept, frame, LIMITS) == selection
        assert {*selection.prompts, *(past for _, past in selection.maps)} <= maps
        assert {past for _, past in selection.pointers} <= maps | set(range(frame - LIMITS.pointers, frame))
        kept[frame] = every[frame]
        needed = rule.keep(kept, frame, LIMITS)
        maps = {past for past in maps | {frame} if past in needed}
        kept = {past: record for past, record in kept.items() if past in needed or past > frame - RECORDS}
        sizes.append(len(maps))
    assert max(sizes) <= 20
    assert len(kept) <= RECORDS + 20


def test_samurai_attends_to_good_frames_and_the_last_one():
    good = Record(iou=0.6, presence=0.1, motion=0.2)
    bad = [Record(iou=0.5, presence=1), Record(iou=0.9, presence=0), Record(iou=0.9, presence=1, motion=0.0)]
    records = dict(enumerate([Record(), good, good, bad[0], good, *[good] * 6, bad[1], bad[2]]))
    maps = Samurai().select(records, 13, LIMITS).maps
    assert maps == ((5, 6), (4, 7), (3, 8), (2, 9), (1, 10), (0, 12))
    assert Samurai().select(records, 2, LIMITS).maps == ((0, 1),)  # the first frame serves the next one only
    assert 1 not in [past for _, past in Samurai().select(records, 6, LIMITS).maps]


def test_samurai_follows_a_box_and_prefers_masks_near_its_prediction():
    motion = start_motion((0, 0, 20, 10))
    assert motion.mean.tolist() == [10, 5, 2, 10, 0, 0, 0, 0]
    for step in range(1, 20):
        motion = update(predict(motion), (4 * step, 0, 20 + 4 * step, 10), 15)
    assert predict(motion).mean[0] == pytest.approx(10 + 4 * 20, abs=1)
    assert np.all(np.linalg.eigvalsh(motion.covariance) > 0)
    near, far = (80, 0, 100, 10), (0, 0, 20, 10)
    ious = np.array([0.60, 0.65], np.float32)
    index, moved, overlap = choose_by_motion(motion, ious, [near, far])
    assert (index, moved.stable) == (0, 15) and overlap > 0.8
    index, moved, overlap = choose_by_motion(Motion(motion.mean, motion.covariance, 14), ious, [near, far])
    assert (index, moved.stable, overlap) == (1, 15, None)  # too early
    index, moved, _ = choose_by_motion(motion, np.array([0.1, 0.2], np.float32), [None, far])
    assert (index, moved.stable) == (1, 0)
    assert choose_by_motion(moved, ious, [near, None])[1].mean[3] == 1  # starts anew, here with an empty mask
    assert box_iou(np.array([10, 5, 2, 10.0]), None) == 0
    assert box_iou(np.array([10, 5, 2, 10.0]), (0, 0, 20, 10)) == 1


def block(rows, columns, size=(20, 20)):
    mask = np.zeros(size, np.bool_)
    mask[slice(*rows), slice(*columns)] = True
    return mask


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([block((0, 4), (0, 4))], False),  # the same mask
        ([block((0, 4), (0, 5))], False),  # 16 of 20 pixels
        ([block((0, 4), (0, 6))], True),  # 16 of 24
        ([block((2, 4), (2, 4)), block((15, 16), (15, 16))], True),  # a part elsewhere
        ([block((15, 16), (15, 16)) | block((4, 5), (0, 4))], False),  # the larger part counts
        ([np.zeros((20, 20), np.bool_)], False),
        ([], False),
    ],
)
def test_a_distractor_makes_the_box_larger(others, expected):
    assert shows_distractor(block((0, 4), (0, 4)), others) is expected


def test_anchors_are_sure_usual_and_apart():
    records = {0: Record(), **{frame: Record(pixels=100) for frame in range(1, 30)}}
    sure = Record(iou=0.9, pixels=100)
    assert may_be_anchor(records, 30, sure)
    assert not may_be_anchor({0: Record()}, 1, sure)
    assert not may_be_anchor(records, 30, Record(iou=0.8, pixels=100))
    usual = [size for size in (0, 79, 80, 120, 121) if may_be_anchor(records, 30, Record(iou=0.9, pixels=size))]
    assert usual == [80, 120]
    assert not may_be_anchor({**records, 25: Record(anchor=True)}, 30, sure)
    assert may_be_anchor({**records, 24: Record(anchor=True)}, 30, sure)


def test_dam_attends_to_the_prompt_three_anchors_and_multiples_of_five_with_the_object():
    records = {frame: Record(anchor=frame in (3, 9, 15, 21, 35), seen=frame not in (30, 34)) for frame in range(36)}
    selection = Dam().select(records, 35, LIMITS)
    assert selection.prompts == (21, 0, 15, 9)
    assert selection.maps == ((2, 20), (1, 25), (0, 33))
    assert [past for _, past in selection.pointers] == [33, 32, 31, 29, 28, 27, 26, 25, 24, 23, 22, 20]
    assert Dam().select(records, 36, LIMITS).maps[-1] == (0, 35)  # the last frame, although it is an anchor
    assert Dam().select({0: Record(), 1: Record(seen=False)}, 2, LIMITS).maps == ()


def test_rcms_promotes_good_frames_at_the_first_absence_only():
    good, bad, absent = Record(quality=0.7), Record(quality=0.6), Record(quality=0, presence=0)
    records = dict(enumerate([Record(), good, good, bad, good, good, good, absent, good, absent]))
    assert promoted(records) == (6, 5, 4, 2)
    selection = Rcms().select(records, 10, LIMITS)
    assert selection.prompts == (0, 6, 5, 4, 2)
    assert selection.maps == ((2, 7), (1, 8), (0, 9))  # by distance: promoted frames leave gaps
    assert selection.pointers == ((1, 9), (2, 8), (3, 7), (7, 3), (9, 1))
    assert promoted(dict(enumerate([Record(), good, good]))) == ()
    assert quality(0.5, 0.0, 0.8) == pytest.approx(0.2)
    assert quality(0.5, 0.0, float("nan")) == 0


def test_long_keeps_the_best_branches_or_different_ones():
    totals = [[-1.0, -1.1, -3.0], [-2.0, -2.1, -2.2], [-5.0, -5.1, -5.2]]
    ious = [[0.9, 0.9, 0.2], [0.9, 0.8, 0.901], [0.9, 0.2, 0.8]]
    assert best_branches(totals, ious, [2.1, 0, 0]) == [(0, 0), (0, 1), (1, 0)]
    assert best_branches(totals, ious, [1, 1, -2]) == [(0, 0), (1, 1), (0, 2)]
    assert best_branches(totals, ious, [1, -1, 1]) == [(0, 0), (1, 0), (1, 1)]  # the sign of the presence counts
    same = [[0.5] * 3] * 3
    assert best_branches(totals, same, [0.5, 0.5, 0.5]) == [(0, 0), (1, 0), (2, 0)]
    assert best_branches([[-1.0]] * 3, [[0.5]] * 3, [3] * 3) == [(0, 0), (1, 0), (2, 0)]
    totals = [[-1.0] * 3, [-3.0] * 3, [-2.0] * 3]
    assert best_branches(totals, same, [0.5] * 3) == [(0, 0), (1, 0), (2, 0)]  # in the order of the paths


def test_long_orders_keys_by_presence():
    assert key_weights([3.0, -1.0, 12.0]) == pytest.approx((0.95 + 0.2 / 3, 0.95 + 0.1 / 3, 0.95, 1.05))
    assert key_weights([]) == pytest.approx((0.95,))
    assert Long().select({0: Record()}, 1, LIMITS).weights is None
    records = {0: Record(), **{frame: Record(iou=0.1 if frame == 3 else 0.5, presence=frame) for frame in range(1, 6)}}
    selection = Long().select(records, 6, LIMITS)
    assert selection.maps == ((3, 1), (2, 2), (1, 4), (0, 5))
    assert selection.pointers == ((1, 5), (2, 4), (3, 2))  # by rank, without the oldest
    assert selection.weights == (key_weights([1, 2, 4, 5]), key_weights([5, 4, 2]))


def test_long_starts_with_equal_paths():
    class Found:
        ious, presence = np.array([0.2, 0.9, 0.5], np.float32), 3.0

    choices = Long().choose(1, [Path()], [Found()])
    assert [(choice.path, choice.candidate, choice.total) for choice in choices] == [(0, 1, 0.0)] * 3


@pytest.fixture
def three(tmp_path):
    """A configuration of the demo's network that proposes three masks and attends to seven maps."""
    several = "multimask_output_in_sam: true\n  multimask_output_for_tracking: true\n  multimask_min_pt_num: 0"
    text = config_path("sam2_demo").read_text().replace("num_maskmem: 4", "num_maskmem: 7")
    text = text.replace("multimask_output_in_sam: false", f"{several}\n  use_multimask_token_for_obj_ptr: true")
    (tmp_path / "three.yaml").write_text(text)
    return tmp_path / "three.yaml"


def video(tmp_path, seed, frames):
    """Three objects, one of them late: paths of the frames, and prompts as boolean masks."""
    events = ("late", "return", "occlusion", "distractor")
    clip = make_clip(seed, frames=frames, size=(96, 160), objects=3, events=events)
    split = {
        index: {int(number): labels == number for number in np.unique(labels) if number}
        for index, labels in first_appearances(clip.masks).items()
    }
    assert len(split) == 2
    return upstream.write_video(tmp_path / "video", clip.frames), split


def track(config, weights, paths, prompts, memory, **options):
    """Masks bool (T, H, W) of every object from its prompt on."""
    with Frames(paths) as frames:
        masks = list(Sam2(str(config), str(weights), SIDE, memory=memory, **options).track_objects(frames, prompts))
    assert len(masks) == len(paths)
    return {
        number: np.stack([mask[number] for mask in masks[index:]]) for index in prompts for number in prompts[index]
    }


@pytest.mark.parametrize(
    ("name", "seed", "frames", "weights", "expected"),
    [
        ("dam", 7, 40, {"seed": 1, "noise": 1, "presence": 1, "quality": 2}, {"1 anchors"}),
        ("long", 5, 40, {"seed": 0, "certainty": 0.6, "presence": -0.5}, {"apart", "filled", "bad"}),
        ("rcms", 5, 44, {"seed": 0, "presence": -0.5}, {"promoted"}),
    ],
)
def test_masks_equal_those_of_a_plain_implementation(tmp_path, three, name, seed, frames, weights, expected):
    """Three objects in one pass, next to one object at a time with all memories."""
    demo = config_path("sam2_demo").parents[2] / "config" / "catalog" / "weights" / "sam2-demo.pth"
    weights = upstream.three_masks(demo, tmp_path / "weights.pth", **weights)
    paths, prompts = video(tmp_path, seed, frames)
    ours, fifo = (track(three, weights, paths, prompts, memory) for memory in (name, "fifo"))
    predictor = upstream.build(str(three), weights, SIDE)
    reference_video = plain.PackageVideo(predictor, upstream._load(predictor, tmp_path / "video"))
    happened = set()
    for index, masks in prompts.items():
        for number, mask in masks.items():
            reference = getattr(plain, name.capitalize())(reference_video, index, mask)
            np.testing.assert_array_equal(ours[number], reference.masks())
            happened |= reference.events
    assert expected <= happened
    assert any((ours[number] != fifo[number]).any() for number in ours)


def test_postprocessing_is_of_what_is_shown_and_of_the_proposed_masks(tmp_path, three):
    """apply_postprocessing: prompts are stored as 0 and 1, unstable masks exchanged, and holes of 8 pixels filled."""
    single = three.read_text().replace("multimask_output_for_tracking: true", "multimask_output_for_tracking: false")
    three.write_text(single)
    demo = config_path("sam2_demo").parents[2] / "config" / "catalog" / "weights" / "sam2-demo.pth"
    weights = upstream.three_masks(demo, tmp_path / "weights.pth", seed=0, presence=-0.5)
    paths, prompts = video(tmp_path, 5, 14)
    ours = track(three, weights, paths, prompts, "rcms", apply_postprocessing=True)
    predictor = upstream.build(str(three), weights, SIDE, postprocessing=True)
    predictor.fill_hole_area = 0  # needs sam2's extension
    reference_video = plain.PackageVideo(predictor, upstream._load(predictor, tmp_path / "video"))
    (start, (number, mask)) = next((index, item) for index, masks in prompts.items() for item in masks.items())
    reference = plain.Rcms(reference_video, start, mask)
    np.testing.assert_array_equal(ours[number], reference.masks(lambda logits: without_holes(logits, 8)))


def test_holes_are_filled_in_what_is_shown_only():
    logits = torch.ones(1, 2, 6, 6)
    logits[0, 1, 2, 3] = -1
    found = Proposals(logits, torch.zeros(1, 2, 4), torch.zeros(1, 2), torch.ones(1, 1), 24, (6, 6), holes=1)
    assert found.shown(1).min() == pytest.approx(0.1)
    assert not found.mask(1).all()


@pytest.fixture(scope="module")
def samurai(tmp_path_factory):
    """The interpreter of an environment with the package, whose module is called sam2."""
    try:
        return environment(tmp_path_factory.mktemp("samurai") / "env", "absolutely-not-samurai==1.0.0")
    except OSError as error:
        pytest.skip(f"the package cannot be fetched: {str(error).splitlines()[-1]}")


@pytest.mark.slow
def test_samurai_gives_the_masks_of_its_package(tmp_path, three, samurai):
    demo = config_path("sam2_demo").parents[2] / "config" / "catalog" / "weights" / "sam2-demo.pth"
    weights = upstream.three_masks(demo, tmp_path / "weights.pth", 0, certainty=0.3, presence=-0.8)
    paths, prompts = video(tmp_path, 5, 44)
    ours, fifo = (track(three, weights, paths, prompts, memory) for memory in ("samurai", "fifo"))
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text(three.read_text() + "  samurai_mode: true\n")
    given = {}
    for index, masks in prompts.items():
        for number, mask in masks.items():
            given |= {str(number): mask, f"{number}_start": index}
    np.savez(tmp_path / "prompts.npz", **given)
    files = [theirs, SIDE, weights, tmp_path / "video", tmp_path / "prompts.npz", tmp_path / "output.npz"]
    modules = os.pathsep.join(str(REPOSITORY / folder) for folder in ("src", "tools/demo_weights"))
    subprocess.run(
        [samurai, "-m", "tests.support.samurai_reference", *map(str, files)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": modules, "OMP_NUM_THREADS": "1"},  # as many threads as here
        check=True,
    )
    with np.load(tmp_path / "output.npz") as expected:
        for number, masks in ours.items():
            np.testing.assert_array_equal(masks, expected[str(number)])
            assert (masks != fifo[number]).any()


@pytest.mark.parametrize("name", NAMES)
def test_memory_does_not_grow_with_the_video(tmp_path, three, name, monkeypatch):
    monkeypatch.setattr(Long, "lag", 10)
    weights = upstream.random_weights(str(three), tmp_path / "random.pth", 0, 64, presence=(30.0, 1.27))
    clip = make_clip(15, frames=85, size=(64, 64), objects=1)
    tracker = Sam2(str(three), str(weights), 64, memory=name)

    def held():
        gc.collect()
        kinds = (torch.Tensor, torch.nn.Parameter)  # and not those of torch.compile, which have no data
        tensors = [item for item in gc.get_objects() if type(item) in kinds]
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())

    sizes = [held() for index, _ in enumerate(tracker.track(clip.frames, {0: clip.masks[0]})) if index in (40, 70)]
    a_memory = 128 * 4 * 4 * 2
    assert abs(sizes[1] - sizes[0]) <= 4 * 64 * 64 * 3 + 20 * a_memory


def test_the_rule_is_recorded_with_the_prediction(tmp_path):
    clip = make_clip(3, frames=3, size=(64, 64), objects=1)
    upstream.write_video(tmp_path / "JPEGImages" / "clip", clip.frames)
    (tmp_path / "Annotations" / "clip").mkdir(parents=True)
    write_mask(tmp_path / "Annotations" / "clip" / "00000.png", clip.masks[0])
    weights = upstream.random_weights("sam2_demo", tmp_path / "random.pth", 0, 64)
    fingerprints = set()
    for name in ("samurai", "rcms"):
        job = Job(ModelDefinition("sam2", {"config": "sam2_demo", "image_size": 64, "memory": name}), weights, "cpu")
        store = Store(tmp_path / name)
        assert not track_sequences(task_of(tmp_path, ["clip"], job, store)).failed
        manifest = (tmp_path / name / "clip.json").read_text()
        assert f'"memory": "{name}"' in manifest
        fingerprints.add(json.loads(manifest)["fingerprint"])
    assert len(fingerprints) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": "samuray"}, "sam2: memory is 'samuray'; did you mean 'samurai'?"),
        ({"memory": ["dam"]}, r"sam2: memory is \['dam'\]; did you mean 'dam'"),
        ({"memory": "dam", "compile": True}, "sam2: compile does not work with memory dam; leave out one of the two"),
        ({"memory": "long", "use_all_masks": True}, "sam2: use_all_masks does not work with memory long"),
    ],
)
def test_options_that_do_not_fit_are_one_sentence(options, message):
    with pytest.raises(TrackerError, match=message):
        Sam2("sam2_demo", "no.pth", **options)
