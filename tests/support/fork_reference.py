"""Run by the interpreter of a fork of SAM 2: random weights, and the masks that the fork's own predictor makes of them.

python -m tests.support.fork_reference weights CONFIG SIZE WEIGHTS
python -m tests.support.fork_reference masks CONFIG SIZE WEIGHTS IMAGES MASKS OUTPUT
"""

import contextlib
import importlib.util
import sys
from pathlib import Path

from held_out import first_appearances
from tests.support.sam2_upstream import random_weights, track_separately
from vosarena.io.masks import read_mask, write_mask
from vosarena.trackers.sam2_forks import backbone_without_download
from vosarena.trackers.sam2_network import build_predictor

task, config, size, weights, *folders = sys.argv[1:]
has_timm = importlib.util.find_spec("sam2.modeling.backbones.timm") is not None
with backbone_without_download() if has_timm else contextlib.nullcontext():
    if task == "weights":
        random_weights(config, weights, seed=3, image_size=int(size))
    else:
        images, masks, output = map(Path, folders)
        predictor = build_predictor(config, weights, image_size=int(size))
        prompts = first_appearances([read_mask(path) for path in sorted(masks.iterdir())])
        output.mkdir()
        for path, labels in zip(sorted(images.iterdir()), track_separately(predictor, images, prompts), strict=True):
            write_mask(output / f"{path.stem}.png", labels)
