"""Small networks of transformers, and masks of the library's own session: the reference of the parity tests.

The session keeps every frame and every memory, as `init_video_session` makes it.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
import transformers

HALF, IMAGENET = ([0.5] * 3, [0.5] * 3), ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
_SHARED = {
    "prompt_encoder_config": {"hidden_size": 128},
    "mask_decoder_config": {"hidden_size": 128, "mlp_dim": 128, "iou_head_hidden_dim": 128},
    "memory_attention_hidden_size": 128,
    "memory_attention_num_layers": 2,
    "memory_encoder_hidden_size": 128,
    "memory_encoder_output_channels": 64,
    "mask_downsampler_embed_dim": 128,
    "memory_fuser_embed_dim": 128,
    "memory_fuser_intermediate_dim": 128,
    "memory_fuser_layer_scale_init_value": 0.1,
}


def _sam3(side):
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "patch_size": 14,
        "image_size": 112,
        "pretrain_image_size": 56,
        "window_size": 4,
        "global_attn_indexes": [1],
    }
    vision = {"model_type": "sam3_vision_model", "fpn_hidden_size": 128, "backbone_config": backbone}
    return transformers.Sam3TrackerVideoConfig(
        vision_config=vision, memory_attention_feed_forward_hidden_size=128, image_size=side, **_SHARED
    )


def _sam2(side):
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "image_size": [side, side],
        "hidden_size": 16,
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [16, 32, 64, 128],
        "window_size_per_stage": [8, 4, 8, 4],
        "global_attention_blocks": [3],
    }
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_channel_list": [128, 64, 32, 16],
        "backbone_config": backbone,
    }
    return transformers.Sam2VideoConfig(
        vision_config=vision | _sizes(side),
        memory_attention_feed_forward_hidden_size=128,
        memory_attention_rope_feat_sizes=[side // 16] * 2,
        image_size=side,
        **_with_side(side),
    )


def _edgetam(side):
    backbone = transformers.TimmWrapperConfig(
        architecture="repvit_m0_9.dist_450e_in1k",
        model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
    )
    vision = {"model_type": "edgetam_vision_model", "backbone_config": backbone}
    return transformers.EdgeTamVideoConfig(
        vision_config=vision | _sizes(side) | {"backbone_channel_list": [384, 192, 96, 48]},
        memory_attention_mlp_hidden_size=128,
        memory_attention_rope_feat_sizes=[side // 16] * 2,
        memory_attention_rope_k_sizes=[4, 4],
        perceiver_resampler_num_latents=16,
        perceiver_resampler_num_latents_2d=16,
        image_size=side,
        **_with_side(side),
    )


def _sizes(side):
    return {"fpn_hidden_size": 128, "backbone_feature_sizes": [[side // stride] * 2 for stride in (4, 8, 16)]}


def _with_side(side):
    return _SHARED | {"prompt_encoder_config": {"hidden_size": 128, "image_size": side}}


KINDS = {
    "sam3": (_sam3, transformers.Sam3TrackerVideoModel, 112, HALF),
    "sam2": (_sam2, transformers.Sam2VideoModel, 96, IMAGENET),
    "edgetam": (_edgetam, transformers.EdgeTamVideoModel, 128, IMAGENET),
}


def write_weights(kind, folder: Path, seed=0, presence=(1.0, 9.0), quality=(1.0, 0.0), config=None):
    """Write a folder of seeded random weights, and return it.

    presence: scale and bias of the score that says whether an object is there; by default every object is.
    quality: scale of the predicted IoU, and what is added to its logit.
    """
    make_config, network_class, side, _ = KINDS[kind]
    torch.manual_seed(seed)
    network = network_class(config or make_config(side)).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if (
                parameter.dim() > 1 and "embed" not in name and "timm" not in name
            ):  # the library starts from almost nothing
                parameter.normal_(std=1.4 / math.sqrt(parameter[0].numel()))
        score = network.mask_decoder.pred_obj_score_head.proj_out
        score.weight.mul_(presence[0])
        score.bias.fill_(presence[1])
        iou = network.mask_decoder.iou_prediction_head.proj_out
        iou.weight.mul_(quality[0])
        iou.bias.add_(quality[1])
    network.save_pretrained(folder)
    return folder


def processor_of(kind, side):
    """The library's processor, with the values of the published ones."""
    mean, deviation = KINDS[kind][3]
    size = {"height": side, "width": side}
    values = {"size": size, "image_mean": mean, "image_std": deviation}
    return transformers.Sam2VideoProcessor(
        transformers.Sam2ImageProcessor(**values), transformers.Sam2VideoVideoProcessor(**values), target_size=side
    )


def load(kind, folder, device="cpu"):
    return KINDS[kind][1].from_pretrained(folder, dtype=torch.float32).to(device).eval()


@torch.inference_mode()
def track(network, processor, frames, prompts: Mapping[int, np.ndarray]) -> Iterator[dict[int, np.ndarray]]:
    """All logits by object in the size of the video, from the first prompt on, for label maps as prompts."""
    session = processor.init_video_session(video=np.stack(frames), inference_device=network.device)
    size = frames[0].shape[:2]
    for index in range(min(prompts), len(frames)):
        if index in prompts:
            labels = prompts[index]
            ids = [int(number) for number in np.unique(labels) if number]
            masks = [labels == number for number in ids]
            processor.add_inputs_to_inference_session(session, index, list(ids), input_masks=masks)
        output = network(session, frame_idx=index)
        logits = processor.post_process_masks([output.pred_masks], [size], binarize=False)[0]
        yield {number: logits[row, 0].float().cpu().numpy() for row, number in enumerate(output.object_ids)}


def label_map(logits: Mapping[int, np.ndarray]) -> np.ndarray:
    """The object with the highest positive logit, of equals the lowest id."""
    ids = sorted(logits)
    scores = np.stack([np.zeros_like(logits[ids[0]]), *(logits[number] for number in ids)])
    return np.array([0, *ids], np.uint8)[scores.argmax(0)]
