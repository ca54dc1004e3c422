"""Run by an interpreter with the package `absolutely-not-samurai`: its masks, one object at a time.

python -m tests.support.samurai_reference CONFIG SIZE WEIGHTS VIDEO PROMPTS OUTPUT

The package finds no memory of frames before the prompt, and never forgets the motion of the last video, so every object
gets a new network and a video that starts with its prompt. PROMPTS and OUTPUT are .npz files: object id -> labels of
its first frame, with the frame in `<id>_start`; object id -> bool (T, H, W) from there on.
"""

import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import torch

sys.modules["loguru"] = types.ModuleType("loguru")  # imported and not used
sys.modules["loguru"].logger = None

from sam2.modeling.sam import transformer  # noqa: E402

from vosarena.trackers.sam2_network import build_predictor  # noqa: E402

transformer.ALLOW_ALL_KERNELS = True  # without a GPU the package takes another attention kernel, with other last bits
config, size, weights, video, prompts, output = sys.argv[1:]
frames = sorted(Path(video).iterdir())
masks = {}
with np.load(prompts) as content:
    for key in (name for name in content.files if name.isdecimal()):
        predictor = build_predictor(config, weights, image_size=int(size))
        start = int(content[f"{key}_start"])
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            for path in frames[start:]:
                (Path(folder) / path.name).symlink_to(path)
            state = predictor.init_state(folder)
            predictor.add_new_mask(state, 0, 1, content[key])
            tracked = [logits[0, 0] > 0 for _, _, logits in predictor.propagate_in_video(state)]
        masks[key] = torch.stack(tracked).numpy()
np.savez(output, **masks)
