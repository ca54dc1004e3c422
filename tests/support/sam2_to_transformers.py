"""Weights of the package sam2 in the format of transformers' Sam2VideoModel."""

from pathlib import Path

import torch
import transformers

from sam2_names import renamed


def convert(weights: Path, folder: Path, side: int) -> Path:
    """Write a checkpoint of sam2.1_hiera_t as a folder of transformers, and return it."""
    state = torch.load(weights, weights_only=True)["model"]
    sizes = [[side // stride] * 2 for stride in (4, 8, 16)]
    config = transformers.Sam2VideoConfig(
        vision_config={
            "model_type": "sam2_vision_model",
            "backbone_feature_sizes": sizes,
            "backbone_config": {"model_type": "sam2_hiera_det_model", "image_size": [side, side]},
        },
        prompt_encoder_config={"image_size": side},
        image_size=side,
        memory_attention_rope_feat_sizes=sizes[-1],
    )
    network = transformers.Sam2VideoModel(config)
    network.load_state_dict(renamed(state))  # strict: every tensor has its place
    network.save_pretrained(folder)
    return folder
