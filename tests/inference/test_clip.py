"""`vosarena track CLIP`: a video or folder of frames becomes masks and a video that shows them."""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.conftest import write_sequence
from vosarena import Click, Prompt
from vosarena.base.errors import ConfigError
from vosarena.cli.prompts import add_prompt_options, read_prompts
from vosarena.config.catalogs import BUILT_IN
from vosarena.inference.track import track
from vosarena.io.frames import read_frame
from vosarena.io.masks import read_mask
from vosarena.io.video import decode_video, frame_rate, write_video


def command(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "vosarena", "track", *map(str, arguments)]
    return subprocess.run(call, cwd=folder, capture_output=True, text=True)


@pytest.fixture
def clip(tmp_path) -> Path:
    """A video of 12 frames a second with odd sides, and the mask of its first frame."""
    write_sequence(tmp_path / "data", "alpha", size=(61, 81))
    frames = map(read_frame, sorted((tmp_path / "data/JPEGImages/alpha").iterdir()))
    write_video(tmp_path / "my clip.mp4", frames, 12)
    mask = read_mask(tmp_path / "data/Annotations/alpha/00000.png")[:60, :80]
    cv2.imwrite(str(tmp_path / "first.png"), mask)
    return tmp_path / "my clip.mp4"


def test_a_video_is_written_as_it_was_and_browsers_play_it(tmp_path):
    rng = np.random.default_rng(0)
    frames = [cv2.resize(rng.integers(90, 160, (6, 8, 3), np.uint8), (80, 60)) for _ in range(7)]
    write_video(tmp_path / "a.mp4", frames, 29.97)
    with av.open(str(tmp_path / "a.mp4")) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert frame_rate(tmp_path / "a.mp4") == pytest.approx(29.97, abs=0.01)
    decode_video(tmp_path / "a.mp4", tmp_path / "frames")
    read = [read_frame(path) for path in sorted((tmp_path / "frames").iterdir())]
    assert len(read) == 7
    assert all(np.abs(one.astype(int) - other).mean() < 4 for one, other in zip(frames, read, strict=True))


def test_one_line_gives_masks_and_an_overlay(clip, tmp_path):
    done = command(tmp_path, clip, "--model", "flow", "--masks", "first.png", "--output", "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "masks: out/my clip\nvideo: out/overlay.mp4\n"
    decode_video(clip, tmp_path / "decoded")
    frames = [read_frame(path) for path in sorted((tmp_path / "decoded").iterdir())]
    expected = track(frames, read_mask(tmp_path / "first.png"), tracker="flow")
    masks = [read_mask(path) for path in sorted((tmp_path / "out/my clip").glob("*.png"))]
    assert len(masks) == 6 and all(map(np.array_equal, masks, expected))
    assert frame_rate(tmp_path / "out/overlay.mp4") == 12
    decode_video(tmp_path / "out/overlay.mp4", tmp_path / "overlay")
    shown = [read_frame(path) for path in sorted((tmp_path / "overlay").iterdir())]
    for frame, mask, picture in zip(frames, masks, shown, strict=True):
        inside = cv2.erode((mask > 0).astype(np.uint8), np.ones((5, 5))) > 0
        assert np.abs(picture[inside].astype(int) - frame[inside]).mean() > 20  # colour is painted over objects
    assert not list((tmp_path / "out").glob(".clip*"))


def test_folders_of_frames_and_masks_with_late_objects(tmp_path):
    write_sequence(tmp_path / "data", "gamma", late=3)
    images, masks = tmp_path / "data/JPEGImages/gamma", tmp_path / "data/Annotations/gamma"
    done = command(tmp_path, images, "--tracker", "static", "--masks", masks, "--output", "out")
    assert done.returncode == 0, done.stderr
    found = [set(np.unique(read_mask(path))) for path in sorted((tmp_path / "out/gamma").glob("*.png"))]
    assert found == [{0, 1}] * 3 + [{0, 1, 2}] * 3


def test_clicks_and_boxes_of_several_objects_with_a_correction(clip, tmp_path):
    weights = BUILT_IN / "weights/sam2-demo.pth"
    model = ["--tracker", "sam2", "--option", "config=sam2_demo", "--option", f"weights={weights}", "--threads", 1]
    first = ["--click", "12,12", "--not", "40,40", "--box", "4,28,19,43", "--click", "2:10,30"]
    done = command(tmp_path, clip, *model, *first, "--frame", 3, "--click", "1:14,12", "--output", "out")
    assert done.returncode == 0, done.stderr
    decode_video(clip, tmp_path / "decoded")
    frames = [read_frame(path) for path in sorted((tmp_path / "decoded").iterdir())]
    one = Prompt(clicks=(Click(12, 12), Click(40, 40, inside=False)))
    two = Prompt(box=(4, 28, 19, 43), clicks=(Click(10, 30),))
    prompts = {0: {1: [one], 2: [two]}, 3: {1: [Prompt(clicks=(Click(14, 12),))]}}
    options = {"config": "sam2_demo"}
    expected = track(frames, prompts, tracker="sam2", options=options, weights=weights, threads=1)
    masks = [read_mask(path) for path in sorted((tmp_path / "out/my clip").glob("*.png"))]
    assert len(masks) == 6 and all(map(np.array_equal, masks, expected))
    manifest = json.loads((tmp_path / "out/my clip.json").read_text())
    assert manifest["given"]["00003"] == {"1": [{"clicks": [[14, 12, True]]}]}
    assert manifest["prompts"] == {"00000": [1, 2], "00003": [1]}
    assert frame_rate(tmp_path / "out/overlay.mp4") == 12


def given(*words):
    """What the options in `words` mean."""
    parser = argparse.ArgumentParser()
    add_prompt_options(parser)
    found = read_prompts(parser.parse_args(list(words)).given)
    return {
        frame: {number: (prompt.box, prompt.clicks) for number, prompt in of.items()} for frame, of in found.items()
    }


def test_options_are_read_in_order():
    words = "--click 1,2 --click 3,4 --not 5,6 --click 1:7,8 --frame 9 --box 0,1,2,3 --click 2:1,1 --not 1:0,0"
    assert given(*words.split()) == {
        0: {1: (None, ((1, 2, True), (7, 8, True))), 2: (None, ((3, 4, True), (5, 6, False)))},
        9: {3: ((0, 1, 2, 3), ()), 2: (None, ((1, 1, True),)), 1: (None, ((0, 0, False),))},
    }


@pytest.mark.parametrize("words, sentence", [
    ("--click 5", "--click 5: expected X,Y in pixels, or ID:X,Y"),
    ("--box 1,2,3", "--box 1,2,3: expected X0,Y0,X1,Y1 in pixels"),
    ("--click 0:1,2", "expected X,Y in pixels"),
    ("--click 1..2,3", "expected X,Y in pixels"),
    ("--not 1,2", "give a --click or --box before it"),
    ("--frame x", "--frame x: expected the number of a frame"),
    ("--box 0,0,5,5 --box 1:1,1,3,3", "object 1 has two boxes in frame 0"),
])  # fmt: skip
def test_mistakes_in_clicks_are_sentences(words, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        given(*words.split())


@pytest.mark.parametrize("arguments, words", [
    (["none.mp4", "--model", "flow", "--masks", "first.png"], "none.mp4: no such file or folder; give a video"),
    (["my clip.mp4", "--model", "flwo", "--masks", "first.png"], "unknown model 'flwo'; did you mean 'flow'?"),
    (["my clip.mp4", "--model", "flow", "--masks", "second.png"], "second.png: no such file or folder; give the mask"),
    (["--model", "flow", "--masks", "first.png"], "give either a video or folder of frames, or --images"),
    (["text.mp4", "--model", "flow", "--masks", "first.png"], "text.mp4: not a video that can be decoded"),
    (["my clip.mp4", "--model", "flow", "--masks", "my clip.mp4"], "not a PNG"),
    (["my clip.mp4", "--model", "flow", "--click", "3,4"], "'flow' takes mask prompts only, and no click;"),
    (["my clip.mp4", "--model", "flow", "--browse"], "'flow' takes mask prompts only, and no click;"),
    (["my clip.mp4", "--model", "flow"], "which objects? give --click X,Y, --box X0,Y0,X1,Y1, --masks or --browse"),
    (["my clip.mp4", "--model", "flow", "--masks", "first.png", "--click", "9,4"], "with --masks, name the object"),
    (["--images", "data/JPEGImages", "--model", "flow", "--click", "9,4"], "clicks and boxes are for one CLIP"),
    (["my clip.mp4", "--model", "cutie-demo-finetuned", "--masks", "first.png"], "is trained by the workflow"),
])  # fmt: skip
def test_mistakes_are_sentences(clip, tmp_path, arguments, words):
    (tmp_path / "text.mp4").write_text("text")
    done = command(tmp_path, *arguments, "--output", "out")
    assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
