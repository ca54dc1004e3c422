"""What only a GPU can show: masks equal upstream's there too, CUDA graphs change no bit, and real errors of CUDA."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from held_out import first_appearances
from tests.conftest import write_sequence
from tests.support import cutie_upstream, sam2_upstream
from tests.support import transformers_session as library
from vosarena.datasets.sequences import read_sequence
from vosarena.demo.clips import make_clip
from vosarena.io.frames import Frames
from vosarena.io.masks import read_mask, write_mask
from vosarena.trackers.cutie import Cutie
from vosarena.trackers.cutie_network import build_network, cutie_config
from vosarena.trackers.sam2 import Sam2
from vosarena.trackers.transformers import Transformers

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEMO_WEIGHTS = sam2_upstream.config_path("sam2_demo").parents[2] / "config" / "catalog" / "weights" / "sam2-demo.pth"
OBJECTS = {"at once": (), "one late": ("late",)}
KINDS = ["sam3", "sam2", "edgetam"]

FAILING = """
import numpy as np
import torch

class Failing:
    packages = ("torch",)

    def __init__(self, device="cpu", precision="auto"):
        pass

    def track(self, frames, prompts):
        first = prompts[0]
        if first.shape[1] == 80:
            FAULT
        torch.zeros(1, device="cuda").cpu()
        for _ in frames:
            yield first
"""
FAULTS = {
    "out of memory": ("torch.empty(1 << 50, dtype=torch.uint8, device='cuda')", "out of memory"),
    "broken": ("torch.ones(2, device='cuda')[torch.ones(1, device='cuda').long() + 4].cpu()", "assert triggered"),
}


def clip_of(seed, frames=8, size=(96, 160), objects=2, events=()):
    clip = make_clip(seed, frames=frames, size=size, objects=objects, events=events)
    return clip.frames, first_appearances(clip.masks)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Random weights of each kind."""
    return {kind: library.write_weights(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.mark.parametrize("compile", [False, "cuda-graphs"])
@pytest.mark.parametrize("events", OBJECTS.values(), ids=OBJECTS)
def test_sam2_is_upstream(tmp_path, events, compile):
    frames, prompts = clip_of(3, events=events)
    paths = sam2_upstream.write_video(tmp_path / "video", frames)
    reference = sam2_upstream.build("sam2_demo", DEMO_WEIGHTS, device="cuda")
    way = sam2_upstream.track_separately if events else sam2_upstream.track_together
    with torch.autocast("cuda", torch.bfloat16):
        expected = list(way(reference, tmp_path / "video", prompts))
    tracker = Sam2("sam2_demo", str(DEMO_WEIGHTS), device="cuda", compile=compile)
    with Frames(paths) as video:
        np.testing.assert_array_equal(list(tracker.track(video, prompts)), expected)


@pytest.mark.parametrize("compile", [False, "cuda-graphs"])
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_is_the_session_of_the_library(folders, kind, compile):
    frames, prompts = clip_of(4)
    network = library.load(kind, folders[kind], "cuda")
    processor = library.processor_of(kind, network.config.image_size)
    with torch.autocast("cuda", torch.bfloat16):
        expected = [library.label_map(logits) for logits in library.track(network, processor, frames, prompts)]
    tracker = Transformers(str(folders[kind]), device="cuda", compile=compile)
    np.testing.assert_array_equal(list(tracker.track(frames, prompts)), expected)


@pytest.mark.parametrize(
    "options", [{}, {"size": 80, "mem_every": 3}, {"flip_aug": True}], ids=["native", "resized", "flipped too"]
)
def test_cutie_is_rf_cutie(tmp_path, options):
    frames, prompts = clip_of(21, objects=3, events=("late",))
    sam2_upstream.write_video(tmp_path / "JPEGImages" / "clip", frames)
    (tmp_path / "Annotations" / "clip").mkdir(parents=True)
    for index, prompt in prompts.items():
        write_mask(tmp_path / "Annotations" / "clip" / f"{index:05d}.png", prompt)
    torch.manual_seed(11)
    weights = tmp_path / "weights.pth"
    torch.save(build_network(cutie_config("tiny")).state_dict(), weights)
    options = {"size": -1} | options
    cutie_upstream.upstream(tmp_path, tmp_path / "upstream", weights, device="cuda", **options)
    files = read_sequence(tmp_path / "JPEGImages", tmp_path / "Annotations", "clip")
    tracker = Cutie(str(weights), model="tiny", device="cuda", arithmetic="rf-cutie", **options)
    with Frames(files.frames) as video:
        masks = list(tracker.track(video, files.prompts()))
    folder = tmp_path / "upstream" / "Annotations" / "clip"
    np.testing.assert_array_equal(masks, [read_mask(folder / f"{path.stem}.png") for path in files.frames])


@pytest.mark.parametrize("fault", FAULTS)
def test_errors_of_cuda(tmp_path, fault):
    """A lack of memory and a broken context fail one sequence; a broken context also ends the process."""
    code, message = FAULTS[fault]
    tracker = tmp_path / "failing.py"
    tracker.write_text(FAILING.replace("FAULT", code))
    write_sequence(tmp_path, "a", size=(48, 80))
    write_sequence(tmp_path, "b", size=(48, 64))
    command = [sys.executable, "-m", "vosarena", "track", "--tracker", f"{tracker}:Failing", "--device", "cuda"]
    command += ["--images", tmp_path / "JPEGImages", "--masks", tmp_path / "Annotations", "--output", tmp_path / "out"]
    for _ in range(2):  # the second process begins with the other sequence
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode
        assert message in done.stderr + done.stdout
    assert "NVIDIA" in json.loads((tmp_path / "out" / "b.json").read_text())["device"]
    assert not (tmp_path / "out" / "a.json").exists()
