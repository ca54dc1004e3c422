"""Clips: every frame, side by side, at the frame rate of the sequence; bounded on the page."""

import av
import numpy as np
import pytest

from tests.conftest import write_sequence
from vosarena.datasets.sequences import read_sequence
from vosarena.io.video import write_video
from vosarena.report import media
from vosarena.report.clips import Clip, Panel, part_of


@pytest.mark.parametrize(
    "frames, longest, around, part",
    [(10, 20, 3, (0, 10)), (100, 20, 50, (40, 60)), (100, 20, 3, (0, 20)), (100, 20, 99, (80, 100)), (1, 5, 0, (0, 1))],
)
def test_a_part_of_a_long_sequence_holds_the_frame_that_matters(frames, longest, around, part):
    found = part_of(range(frames), longest, around)
    assert (found.start, found.stop) == part and around in found


@pytest.mark.parametrize("splits, models, clips", [(1, 5, 8), (1, 10, 8), (3, 60, 8), (12, 10, 2), (40, 30, 1)])
def test_clips_are_bounded(splits, models, clips):
    most, longest = media.clip_limits(splits, models + 1)
    assert most == clips and media.MIN_CLIP <= longest <= media.MAX_CLIP
    assert splits * most * longest * (models + 1) <= media.BUDGET or longest == media.MIN_CLIP


@pytest.fixture
def files(tmp_path):
    write_sequence(tmp_path, "alpha", frames=7, size=(64, 96))
    return read_sequence(tmp_path / "JPEGImages", tmp_path / "Annotations", "alpha", "never")


def clip_of(files, models=2, **options) -> Clip:
    truth, nothing = media.truth_reader(files), np.zeros((64, 96), np.uint8)
    scores = {index: 1 - index / 10 for index in (0, 3, 6)}
    shown = [Panel(f"model-{number}", lambda frame: nothing, number, scores) for number in range(models)]
    return Clip(files, [Panel("ground truth", truth), *shown], range(7), 12.5, truth=truth, **options)


def test_panels_have_masks_contours_and_a_score(files):
    pictures = list(clip_of(files).pictures())
    assert len(pictures) == 7 and len({picture.shape for picture in pictures}) == 1
    height, width = pictures[0].shape[:2]
    assert height % 2 == width % 2 == 0
    labels = files.mask(3)
    centre = tuple(np.argwhere(labels == 1).mean(0).astype(int))
    pink = np.array(list(bytes.fromhex(media.colour_of(1)[1:])))
    with_mask, without = (pictures[3][22:86, left : left + 96] for left in (0, 102))
    far = [np.abs(panel[centre].astype(int) - pink).sum() for panel in (with_mask, without)]
    assert far[0] < far[1], "the model has no mask there"
    lines = media.contour(labels)
    assert (without[lines == lines.max()] == 255).all(), "but the contour of the ground truth"
    titles = [picture[:20, 150:198] for picture in pictures]
    assert not (titles[0] == titles[3]).all() and (titles[1] == titles[2]).all(), "a score where there is ground truth"
    assert not (pictures[1][-70:] == pictures[2][-70:]).all(), "the position moves in every frame"


def test_errors_and_outlines_in_place_of_masks(files):
    labels = files.mask(3)
    inside = np.argwhere(labels == 2).mean(0).astype(int)
    colours = {}
    for show in ("masks", "outlines", "errors"):
        picture = np.asarray(clip_of(files, show=show).picture(3)).astype(int)
        colours[show] = picture[22 + inside[0], 102 + inside[1]]
    missed = np.array(list(bytes.fromhex("FF4A1C")))
    far = {show: np.abs(colour - missed).sum() for show, colour in colours.items()}
    assert far["errors"] < min(far["masks"], far["outlines"]), "the model has no mask there"


@pytest.mark.parametrize("models", [0, 1, 4, 9, 40])
def test_any_number_of_models_fits(files, models):
    picture = next(clip_of(files, models, width=640).pictures())
    assert picture.shape[1] <= 646 and (not models or len(np.unique(picture[-60:].reshape(-1, 3), axis=0)) > 3)


def test_a_video_repeats_its_bytes_whatever_is_in_memory(tmp_path):
    """The encoder must not decide by memory that it never wrote, as some versions do on some CPUs."""
    rng, seen = np.random.default_rng(0), set()
    blocks = rng.integers(0, 255, (8, 44, 88, 3), dtype=np.uint8)
    for _ in range(5):
        write_video(tmp_path / "clip.mp4", blocks.repeat(8, 1).repeat(10, 2), 10, 26)
        seen.add((tmp_path / "clip.mp4").read_bytes())
    assert len(seen) == 1


def test_a_clip_is_a_video_with_every_frame_and_repeats_its_bytes(files, tmp_path):
    for name in "ab":
        clip_of(files).write(tmp_path / f"{name}.mp4", 23)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    with av.open(str(tmp_path / "a.mp4")) as clip:
        stream = clip.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.average_rate == 12.5 and stream.pix_fmt == "yuv420p"
        shapes = [picture.to_ndarray(format="rgb24").shape for picture in clip.decode(video=0)]
    assert shapes == [next(clip_of(files).pictures()).shape] * 7
