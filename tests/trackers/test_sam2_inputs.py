"""SAM 2: wrong options, configurations, weights and masks are refused in one sentence; odd inputs are defined."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support import sam2_upstream as upstream
from vosarena.base.errors import DataError, MaskError, TrackerError
from vosarena.demo.clips import make_clip
from vosarena.io.frames import Frames
from vosarena.trackers.sam2 import Sam2
from vosarena.trackers.sam2_network import config_path, instantiate_network

SIDE = 64
pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(upstream.random_weights("sam2_demo", tmp_path_factory.mktemp("weights") / "random.pth", 0, SIDE))


@pytest.fixture(scope="module")
def tracker(weights):
    return Sam2("sam2_demo", weights, SIDE)


def clip(frames=4, size=(48, 80)):
    found = make_clip(1, frames=frames, size=size, objects=2)
    return found.frames, found.masks


# --- options, configuration, weights


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_objects": 0}, "batch_objects is 0"),
        ({"encoder_batch": True}, "encoder_batch is True"),
        ({"image_size": "big"}, "image_size is 'big'; use a positive multiple of 32"),
        ({"image_size": 100}, "image_size is 100; use a positive multiple of 32"),
        ({"fill_hole_area": -1}, "fill_hole_area is -1; use a number of pixels"),
        ({"score_thresh": -11}, "score_thresh is -11; use a number of -10 or more"),
        ({"precision": "int8"}, "precision is 'int8'"),
        ({"precision": "fp16"}, "fp16 needs a CUDA device"),
        ({"config": "sam2_hiera_xl"}, "no configuration 'sam2_hiera_xl'; did you mean 'sam2_hiera_l'"),
        ({"weights": "nowhere.pth"}, "no weights file nowhere.pth"),
    ],
)
def test_wrong_options_are_named(weights, options, message):
    with pytest.raises(TrackerError, match=message):
        Sam2(**({"config": "sam2_demo", "weights": weights} | options))


def test_every_official_configuration_is_found():
    for version in ("sam2", "sam2.1"):
        for size in ("t", "s", "b+", "l"):
            name = f"{version}_hiera_{size}"
            assert config_path(name) == config_path(f"configs/{version}/{name}.yaml")


def test_a_file_that_is_no_configuration_is_named(tmp_path, weights):
    (tmp_path / "other.yaml").write_text("lr: 1\n")
    with pytest.raises(TrackerError, match=r"other\.yaml does not configure a SAM 2 network"):
        Sam2(str(tmp_path / "other.yaml"), weights)


def changed(weights, change):
    state = torch.load(weights, weights_only=True)["model"]
    change(state)
    return {"model": state}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda w: changed(w, lambda s: s.pop("no_mem_embed")), r"are missing \(first no_mem_embed\)"),
        (lambda w: changed(w, lambda s: s.update(extra=torch.zeros(1))), r"1 are unknown \(first extra\)"),
        (
            lambda w: changed(w, lambda s: s.update(no_mem_embed=torch.zeros(1, 1, 64))),
            r"another shape \(first no_mem_embed: \(1, 1, 64\) instead of \(1, 1, 128\)\)",
        ),
        (lambda w: {"model": [torch.zeros(3)]}, "not a plain state dict"),
        (lambda w: {"state_dict": {}}, "no entry 'model'"),
        (lambda w: torch.zeros(3), "no entry 'model'"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path, weights, content, message):
    path = tmp_path / "wrong.pth"
    torch.save(content(weights), path)
    with pytest.raises(TrackerError, match=message) as caught:
        Sam2("sam2_demo", str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


class Dangerous:
    def __reduce__(self):
        return print, ("this must not run",)


@pytest.mark.parametrize("data", [b"", b"<html>Not found</html>", "truncated", "pickle"])
def test_a_file_that_is_no_checkpoint_is_refused_by_name(tmp_path, weights, data, capsys):
    path = tmp_path / "broken.pth"
    if data == "pickle":
        torch.save({"model": Dangerous()}, path)
    else:
        path.write_bytes(Path(weights).read_bytes()[:100_000] if data == "truncated" else data)
    with pytest.raises(TrackerError, match="are not a PyTorch checkpoint") as caught:
        Sam2("sam2_demo", str(path))
    assert str(path) in str(caught.value)
    assert "must not run" not in capsys.readouterr().out


def test_hydra_is_left_as_it_was(weights):
    """Cutie initialises Hydra in the same process and fails where SAM 2 has left its state behind."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    Sam2("sam2_demo", weights, SIDE)
    assert not GlobalHydra.instance().is_initialized()
    with initialize_config_dir("/", version_base="1.3"):
        instantiate_network("sam2_demo")
        assert GlobalHydra.instance().is_initialized()


# --- masks


def test_no_object_at_all_is_an_error(tracker):
    frames, masks = clip()
    for prompts in ({}, {0: np.zeros_like(masks[0])}):
        with pytest.raises(MaskError, match="no prompt mask has an object"):
            list(tracker.track(frames, prompts))


def test_an_empty_first_mask_is_background_until_an_object_appears(tracker):
    frames, masks = clip()
    found = list(tracker.track(frames, {0: np.zeros_like(masks[0]), 2: masks[2]}))
    assert not np.stack(found[:2]).any()
    assert found[2].any()


def test_gaps_in_the_object_ids_change_nothing(tracker):
    frames, masks = clip(8)
    plain = np.stack(list(tracker.track(frames, {0: masks[0]})))
    table = np.zeros(256, np.uint8)
    table[[1, 2]] = 17, 255
    gaps = np.stack(list(tracker.track(frames, {0: table[masks[0]]})))
    np.testing.assert_array_equal(gaps, table[plain])


def test_a_mask_of_another_size_is_named(tracker):
    frames, masks = clip()
    with pytest.raises(MaskError, match=r"frame 2, object 1, is 79 x 48 but the frames are 80 x 48"):
        list(tracker.track(frames, {0: masks[0] * 0, 2: masks[2][:, :-1]}))


def test_more_than_255_objects(tracker):
    frames, masks = clip()
    with pytest.raises(MaskError, match="255 objects at most"):
        list(tracker.track(frames, {0: masks[0].astype(np.int32) * 300}))
    # as separate masks there is no such limit
    height, width = masks[0].shape
    many = {number: np.zeros((height, width), bool) for number in range(1, 261)}
    for number, mask in many.items():
        mask[number % height, number % width] = True
        mask[10:20, 10:20] = True
    (found,) = tracker.track_objects(frames[:1], {0: many})
    assert sorted(found) == sorted(many)


def test_an_object_that_appears_twice_and_a_prompt_beyond_the_video_are_refused(tracker):
    frames, masks = clip()
    with pytest.raises(MaskError, match="object 1 has prompt masks in frames 0 and 2"):
        list(tracker.track(frames, {0: masks[0], 2: masks[2]}))
    with pytest.raises(MaskError, match="prompt mask for frame 4, but the sequence has 4 frames"):
        list(tracker.track(frames, {0: masks[0], 4: masks[2]}))


# --- frames


def test_a_video_of_one_frame(tracker):
    frames, masks = clip(1)
    (found,) = tracker.track(frames, {0: masks[0]})
    assert found.shape == masks[0].shape
    assert set(np.unique(found)) == {0, 1, 2}


def test_an_object_too_small_for_the_network_is_followed_without_an_error(tracker):
    frames, masks = clip()
    dot = np.zeros_like(masks[0])
    dot[5, 5] = 9
    assert len(list(tracker.track(frames, {0: dot}))) == len(frames)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_greyscale_and_cmyk_frames_are_what_upstream_makes_of_them(tmp_path, weights, mode):
    frames, masks = clip(6)
    folder = tmp_path / "video"
    folder.mkdir()
    paths = [folder / f"{index:05d}.jpg" for index in range(len(frames))]
    for path, frame in zip(paths, frames, strict=True):
        Image.fromarray(frame).convert(mode).save(path, quality=95)
    expected = list(upstream.track_together(upstream.build("sam2_demo", weights, SIDE), folder, {0: masks[0]}))
    with Frames(paths) as video:
        found = list(Sam2("sam2_demo", weights, SIDE).track(video, {0: masks[0]}))
    np.testing.assert_array_equal(np.stack(found), np.stack(expected))


def test_frames_of_mixed_size_are_named(tmp_path, tracker):
    frames, masks = clip(6)
    paths = upstream.write_video(tmp_path / "video", frames)
    Image.fromarray(frames[3][:, :-1]).save(paths[3])
    given = []
    with Frames(paths) as video, pytest.raises(DataError, match=r"00003 is 79x48 but .* 80x48: .*00003\.jpg"):
        given.extend(tracker.track(video, {0: masks[0]}))
    with pytest.raises(DataError, match="frame 3 is 79x48 but the first is 80x48"):
        list(tracker.track([frame if i != 3 else frame[:, :-1] for i, frame in enumerate(frames)], {0: masks[0]}))


def test_a_damaged_frame_fails_alone_and_the_tracker_goes_on(tmp_path, tracker):
    frames, masks = clip(6)
    expected = np.stack(list(tracker.track(frames, {0: masks[0]})))
    paths = upstream.write_video(tmp_path / "video", frames)
    paths[4].write_bytes(paths[4].read_bytes()[:-100])
    with Frames(paths) as video, pytest.raises(DataError, match="00004 is truncated"):
        list(tracker.track(video, {0: masks[0]}))
    np.testing.assert_array_equal(np.stack(list(tracker.track(frames, {0: masks[0]}))), expected)


# --- out of memory


def test_out_of_memory_is_reported_and_another_try_saves_memory(weights):
    """The real allocator refuses as soon as two frames share a pass; the memory-saving options encode one."""
    frames, masks = clip(6)
    expected = np.stack(list(Sam2("sam2_demo", weights, SIDE).track(frames, {0: masks[0]})))
    tracker = Sam2("sam2_demo", weights, SIDE, encoder_batch=3, batch_objects=2)
    predictor = tracker._stream.predictor
    forward = predictor.forward_image

    def greedy(images):
        if len(images) > 1:
            torch.empty(2**60, dtype=torch.uint8)
        return forward(images)

    predictor.forward_image = greedy
    with pytest.raises(MemoryError, match="sam2: out of memory"):
        list(tracker.track(frames, {0: masks[0]}))
    with tracker.saving_memory() as options:
        assert options == {"batch_objects": 1, "encoder_batch": 1, "offload_memory": True}
        np.testing.assert_array_equal(np.stack(list(tracker.track(frames, {0: masks[0]}))), expected)
        with tracker.saving_memory() as nothing_left:
            assert nothing_left == {}
    with pytest.raises(MemoryError):  # the next video starts with the chosen options again
        list(tracker.track(frames, {0: masks[0]}))
