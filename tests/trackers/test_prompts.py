"""Boxes and clicks: masks equal to those of the packages' own functions for them, in one pass."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support import sam2_upstream as upstream
from tests.support import transformers_session as library
from vosarena.base.errors import MaskError
from vosarena.demo.clips import make_clip
from vosarena.io.frames import Frames
from vosarena.trackers.prompts import Click, Prompt
from vosarena.trackers.sam2 import Sam2
from vosarena.trackers.sam2_network import config_path
from vosarena.trackers.transformers import Transformers

pytestmark = pytest.mark.usefixtures("one_torch_thread")
SIZE, FRAMES = (96, 160), 10

BOX = Prompt(box=(20, 10, 70, 60))
CLICK = Prompt(clicks=(Click(100, 40),))
BOX_AND_CLICKS = Prompt(box=(80, 20, 130, 80), clicks=(Click(100, 40), Click(85, 22, inside=False)))
MORE = Prompt(clicks=(Click(90, 70), Click(10, 10, inside=False)))


def disc(x, y, radius):
    rows, columns = np.indices(SIZE)
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


GIVEN = {
    "objects": {0: {1: [BOX], 2: [CLICK, MORE, Prompt(clicks=(Click(5, 90),))], 7: [BOX_AND_CLICKS]}},
    "late": {2: {4: [Prompt(mask=disc(60, 40, 20)), MORE]}, 6: {1: [BOX, MORE], 9: disc(120, 60, 15)}},
    "correction": {
        0: {1: [BOX], 2: disc(60, 40, 20)},
        3: {1: [MORE]},
        5: {2: [Prompt(mask=disc(90, 50, 25))]},
        6: {2: [BOX_AND_CLICKS, CLICK]},
        8: {5: [BOX]},
    },
}


def as_records(given):
    return [Prompt(mask=given)] if isinstance(given, np.ndarray) else given


def is_correction(given, index):
    return any(set(given[index]) & set(earlier) for frame, earlier in given.items() if frame < index)


def points_of(prompt):
    clicks = [[click.x, click.y] for click in prompt.clicks]
    return clicks, [int(click.inside) for click in prompt.clicks]


@torch.inference_mode()
def sam2_masks(predictor, folder, given):
    """Label maps from the first prompt on, as somebody who watches the masks would get them from upstream's predictor.

    A correction shows at once; tracking goes on with the next frame.
    """
    state = upstream._load(predictor, folder)
    shown, position = {}, min(given)

    def keep(index, numbers, logits):
        shown[index] = {number: (logits[row] > 0).numpy()[0] for row, number in enumerate(numbers)}

    def propagate(last):
        nonlocal position
        if last >= position and state["obj_ids"]:
            for found in predictor.propagate_in_video(state, position, last - position):
                keep(*found)
            position = last + 1

    for index, objects in given.items():
        propagate(index if is_correction(given, index) else index - 1)
        for number, prompts in objects.items():
            for place, prompt in enumerate(as_records(prompts)):
                if prompt.mask is not None:
                    found = predictor.add_new_mask(state, index, number, prompt.mask)
                    continue
                points, labels = points_of(prompt)
                found = predictor.add_new_points_or_box(
                    state,
                    index,
                    number,
                    points=points or None,
                    labels=labels or None,
                    clear_old_points=place == 0 or prompt.box is not None,
                    box=prompt.box,
                )
        if is_correction(given, index):
            keep(*found)
    propagate(state["num_frames"] - 1)
    return [upstream._combine(shown[index]) for index in sorted(shown)]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """The folder and the paths of JPEG frames."""
    folder = tmp_path_factory.mktemp("clip") / "video"
    return folder, upstream.write_video(folder, make_clip(3, frames=FRAMES, size=SIZE, objects=2).frames)


def several_masks(folder):
    """A configuration that proposes three masks for a click, as the official ones do."""
    several = "multimask_output_in_sam: true\n  multimask_output_for_tracking: true\n  multimask_min_pt_num: 0\n  "
    text = config_path("sam2_demo").read_text()
    assert "multimask_output_in_sam: false" in text
    config = folder / "several.yaml"
    config.write_text(text.replace("multimask_output_in_sam: false", several + "multimask_max_pt_num: 1"))
    return config


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Upstream's predictor and our tracker with the same random weights."""
    folder = tmp_path_factory.mktemp("weights")
    config = several_masks(folder)
    weights = upstream.random_weights(str(config), folder / "random.pth", 1, 96)
    return upstream.build(config, weights, 96), Sam2(str(config), str(weights), 96)


@pytest.mark.parametrize("name", GIVEN)
def test_sam2_equals_add_new_points_or_box(networks, video, name):
    given, (folder, paths), (predictor, tracker) = GIVEN[name], video, networks
    expected = sam2_masks(predictor, folder, given)
    with Frames(paths) as frames:
        masks = list(tracker.track(frames, given))
    assert not np.stack(masks[: min(given)] or [np.zeros(1)]).any()
    different = [int((ours != theirs).sum()) for ours, theirs in zip(masks[min(given) :], expected, strict=True)]
    assert not any(different), different
    assert len({mask.tobytes() for mask in masks}) > len(frames) / 2


@torch.inference_mode()
def session_masks(kind, folder, frames, given):
    """Label maps of the library's session from the first prompt on.

    The first prompts of objects are added together, then the session runs: it encodes the memories of the objects in
    one batch, and alone they would have other last bits. A correction is shown before the next one.
    """
    network = library.load(kind, folder)
    processor = library.processor_of(kind, network.config.image_size)
    session = processor.init_video_session(video=np.stack(frames), inference_device=network.device)
    found = []
    for index in range(min(given), len(frames)):
        if index not in given or is_correction(given, index):
            output = network(session, frame_idx=index)
        for number, place in (
            (n, p) for n in sorted(given.get(index, {})) for p in range(len(as_records(given[index][n])))
        ):
            prompt = as_records(given[index][number])[place]
            points, labels = points_of(prompt)
            processor.add_inputs_to_inference_session(
                session,
                index,
                number,
                input_masks=None if prompt.mask is None else prompt.mask,
                input_points=[[points]] if points else None,
                input_labels=[[labels]] if labels else None,
                input_boxes=None if prompt.box is None else [[list(prompt.box)]],
                clear_old_inputs=place == 0 or prompt.box is not None,
            )
            if is_correction(given, index):
                output = network(session, frame_idx=index)
        if index in given and not is_correction(given, index):
            session.obj_with_new_inputs = sorted(given[index])  # the session forgets all but the last one
            output = network(session, frame_idx=index)
        logits = processor.post_process_masks([output.pred_masks], [frames[0].shape[:2]], binarize=False)[0]
        found.append(library.label_map({n: logits[row, 0].float().numpy() for row, n in enumerate(output.object_ids)}))
    return found


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("sam2", "objects"),
        ("sam2", "correction"),
        ("sam3", "late"),
        ("edgetam", "objects"),
    ],
)
def test_transformers_equals_the_session(tmp_path, kind, name):
    frames = make_clip(3, frames=4 if kind == "edgetam" else FRAMES, size=SIZE, objects=2).frames
    given = GIVEN[name]
    folder = library.write_weights(kind, tmp_path / "weights")
    expected = session_masks(kind, folder, frames, given)
    masks = list(Transformers(str(folder)).track(frames, given))
    different = [int((ours != theirs).sum()) for ours, theirs in zip(masks[min(given) :], expected, strict=True)]
    assert not any(different), different
    assert len({mask.tobytes() for mask in masks}) > len(frames) / 2


def test_several_objects_in_a_pass_take_clicks_too(networks, video):
    """Shared passes may change the last bits; objects that are corrected have passes of their own."""
    _, tracker = networks
    before = tracker._settings
    for name in ("objects", "correction"):
        with Frames(video[1][:9]) as frames:
            alone = list(tracker.track(frames, GIVEN[name]))
            tracker._settings = replace(before, batch_objects=2)
            together = list(tracker.track(frames, GIVEN[name]))
            tracker._settings = before
        differing = np.mean(np.stack(alone) != np.stack(together))
        assert differing < 0.01 if name == "objects" else differing == 0


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {0: {1: [Prompt(clicks=(Click(160, 5),))]}},
            "prompt of frame 0, object 1, has the point 160,5 but the frames",
        ),
        ({0: {1: [Prompt(box=(9, 0, 3, 8))]}}, "has the box 9,0,3,8; give its upper left corner first"),
        ({99: {1: [CLICK]}}, "frame 99, but the sequence has 10 frames"),
    ],
)
def test_prompts_that_do_not_fit_are_named(networks, video, given, sentence):
    with Frames(video[1]) as frames, pytest.raises(MaskError, match=sentence):
        list(networks[1].track(frames, given))


def test_what_cannot_be_corrected_says_so(networks, video, monkeypatch):
    monkeypatch.setattr(networks[1], "corrects", False)
    with Frames(video[1]) as frames, pytest.raises(MaskError, match="object 1 has prompts in frames 0 and 3, but this"):
        list(networks[1].track(frames, GIVEN["correction"]))


@pytest.mark.parametrize("parts", [{}, {"mask": disc(5, 5, 3), "box": (0, 0, 1, 1)}])
def test_a_prompt_is_a_mask_or_a_box_and_clicks(parts):
    with pytest.raises(MaskError, match="either a mask, or a box"):
        Prompt(**parts)
