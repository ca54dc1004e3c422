"""Run by the interpreter of a fork of SAM 2: python -m tests.support.fork_reference TRACKER CONFIG SIZE DATASET

Our tracker, with random weights, gives the masks of the fork's own predictor, which is run for each object: from first
masks, and from clicks and EdgeTAM's boxes. Prints the packages in the model's identity, as JSON.
"""

import contextlib
import json
import sys
from pathlib import Path

import torch

from held_out import first_appearances
from tests.support.sam2_upstream import random_weights, track_separately
from vosarena.inference.job import Job
from vosarena.io.frames import Frames
from vosarena.io.masks import read_mask
from vosarena.predictions.manifest import ModelDefinition
from vosarena.trackers.prompts import Click, Prompt
from vosarena.trackers.sam2_forks import backbone_without_download
from vosarena.trackers.sam2_network import build_predictor

BOX = (4.0, 4.0, 19.0, 19.0)
CLICKS = [[20.0, 36.0], [8.0, 30.0]]


def compare_masks(tracker, predictor, images: Path, masks: Path) -> None:
    prompts = first_appearances([read_mask(path) for path in sorted(masks.iterdir())])
    with Frames(sorted(images.iterdir())) as frames:
        ours = list(tracker.track(frames, prompts))
    for index, labels in enumerate(track_separately(predictor, images, prompts)):
        assert (ours[index] == labels).all(), f"frame {index}"
    sizes = [[int((labels == number).sum()) for number in (1, 2)] for labels in ours]
    assert sizes[0][1] == 0 and sizes[2][1] > 0 and sum(map(sum, sizes[3:])) > 0


def compare_prompts(tracker, predictor, images: Path) -> None:
    boxes = "box" in tracker.prompt_kinds
    given = {
        1: [Prompt(box=BOX if boxes else None, clicks=(Click(6, 6, inside=not boxes),))],
        2: [Prompt(clicks=(Click(x, y),)) for x, y in CLICKS],
    }
    with Frames(sorted(images.iterdir())) as frames:
        ours = list(tracker.track_objects(frames, {1: given}))
    for number in given:
        state = predictor.init_state(str(images))
        if number == 1 and boxes:
            predictor.add_new_points_or_box(state, 1, 1, points=[[6.0, 6.0]], labels=[0], box=BOX)
        for place, click in enumerate(CLICKS if number == 2 else [] if boxes else [[6.0, 6.0]]):
            predictor.add_new_points(state, 1, number, points=[click], labels=[1], clear_old_points=place == 0)
        for index, _, logits in predictor.propagate_in_video(state, start_frame_idx=1):
            assert (ours[index][number] == (logits[0, 0] > 0).numpy()).all(), f"object {number}, frame {index}"
    assert ours[1][1].any() and (ours[1][1] != ours[1][2]).any()


name, config, size, root = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
torch.set_num_threads(1)
images, masks, weights = root / "JPEGImages/gamma", root / "Annotations/gamma", root / "weights.pt"
with backbone_without_download() if name == "edgetam" else contextlib.nullcontext():
    random_weights(config, weights, seed=3, image_size=size)
    predictor = build_predictor(config, weights, image_size=size)
options = {"config": config} | ({} if name == "edgetam" else {"image_size": size})
job = Job(ModelDefinition(name, options), weights, "cpu")
tracker = job.build()
compare_masks(tracker, predictor, images, masks)
compare_prompts(tracker, predictor, images)
print(json.dumps(job.identity().packages))
