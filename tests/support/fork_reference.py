"""Run by the interpreter of a fork of SAM 2: random weights, and the masks that the fork's own predictor makes of them.

python -m tests.support.fork_reference weights CONFIG SIZE WEIGHTS
python -m tests.support.fork_reference masks CONFIG SIZE WEIGHTS IMAGES MASKS OUTPUT
python -m tests.support.fork_reference prompts CONFIG SIZE WEIGHTS IMAGES

The last one compares clicks, and EdgeTAM's boxes, in our tracker with the fork's own functions, run for each object.
"""

import contextlib
import importlib.util
import sys
from pathlib import Path

from held_out import first_appearances
from tests.support.sam2_upstream import random_weights, track_separately
from vosarena.io.frames import Frames
from vosarena.io.masks import read_mask, write_mask
from vosarena.trackers.prompts import Click, Prompt
from vosarena.trackers.sam2_forks import EdgeTam, EfficientTam, backbone_without_download
from vosarena.trackers.sam2_network import build_predictor

task, config, size, weights, *folders = sys.argv[1:]
has_timm = importlib.util.find_spec("sam2.modeling.backbones.timm") is not None
with backbone_without_download() if has_timm else contextlib.nullcontext():
    if task == "weights":
        random_weights(config, weights, seed=3, image_size=int(size))
    elif task == "prompts":
        images, box = Path(folders[0]), (4.0, 4.0, 19.0, 19.0)
        predictor = build_predictor(config, weights, image_size=int(size))
        tracker = EdgeTam(weights, config) if has_timm else EfficientTam(config, weights, int(size))
        clicks = [[20.0, 36.0], [8.0, 30.0]]
        given = {
            1: [Prompt(box=box if has_timm else None, clicks=(Click(6, 6, inside=not has_timm),))],
            2: [Prompt(clicks=(Click(x, y),)) for x, y in clicks],
        }
        with Frames(sorted(images.iterdir())) as frames:
            ours = list(tracker.track_objects(frames, {1: given}))
        for number in given:
            state = predictor.init_state(str(images))
            if number == 1 and has_timm:
                predictor.add_new_points_or_box(state, 1, 1, points=[[6.0, 6.0]], labels=[0], box=box)
            for place, click in enumerate(clicks if number == 2 else [] if has_timm else [[6.0, 6.0]]):
                predictor.add_new_points(state, 1, number, points=[click], labels=[1], clear_old_points=place == 0)
            for index, _, logits in predictor.propagate_in_video(state, start_frame_idx=1):
                assert (ours[index][number] == (logits[0, 0] > 0).numpy()).all(), f"object {number}, frame {index}"
        assert ours[1][1].any() and (ours[1][1] != ours[1][2]).any()
    else:
        images, masks, output = map(Path, folders)
        predictor = build_predictor(config, weights, image_size=int(size))
        prompts = first_appearances([read_mask(path) for path in sorted(masks.iterdir())])
        output.mkdir()
        for path, labels in zip(sorted(images.iterdir()), track_separately(predictor, images, prompts), strict=True):
            write_mask(output / f"{path.stem}.png", labels)
