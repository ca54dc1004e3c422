"""Weights of the package sam2 under the names of transformers' classes of SAM 2 and SAM 3."""

import re

import torch

from moving_average import State

_NAMES = [  # what it is called in sam2, and in transformers
    (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
    (r"^no_obj_ptr$", "no_object_pointer"),
    (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
    (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
    (r"^obj_ptr_proj\.", "object_pointer_proj."),
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"^sam_prompt_encoder\.", "prompt_encoder."),
    (r"^sam_mask_decoder\.", "mask_decoder."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"\.mlp\.layers\.0\.", ".mlp.proj_in."),
    (r"\.mlp\.layers\.1\.", ".mlp.proj_out."),
    # perceptrons of three layers
    (r"(object_pointer_proj|_mlps\.\d|_head)\.layers\.0\.", r"\1.proj_in."),
    (r"(object_pointer_proj|_mlps\.\d|_head)\.layers\.1\.", r"\1.layers.0."),
    (r"(object_pointer_proj|_mlps\.\d|_head)\.layers\.2\.", r"\1.proj_out."),
    (r"attn(\w*)\.out_proj\.", r"attn\1.o_proj."),
    (r"norm_final_attn\.", "layer_norm_final_attn."),
    (r"(?<!layer_)norm(\d)\.", r"layer_norm\1."),
    (r"^memory_attention\.norm\.", "memory_attention.layer_norm."),
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"mask_downsampler\.encoder\.12\.", "mask_downsampler.final_conv."),
    (r"pix_feat_proj\.", "feature_projection."),
    (r"memory_encoder\.out_proj\.", "memory_encoder.projection."),
    (r"fuser\.layers\.(\d)\.gamma", r"memory_fuser.layers.\1.scale"),
    (r"fuser\.layers\.(\d)\.dwconv\.", r"memory_fuser.layers.\1.depthwise_conv."),
    (r"fuser\.layers\.(\d)\.norm\.", r"memory_fuser.layers.\1.layer_norm."),
    (r"fuser\.layers\.(\d)\.pwconv(\d)\.", r"memory_fuser.layers.\1.pointwise_conv\2."),
]


def renamed(state: State) -> State:
    """Return a state dict of sam2 under the names of transformers."""
    found = {
        _renamed(key): value for key, value in state.items() if "point_embeddings" not in key and "gauss" not in key
    }
    points = [state[f"sam_prompt_encoder.point_embeddings.{index}.weight"] for index in range(4)]
    found["prompt_encoder.point_embed.weight"] = torch.cat(points)
    position = state["sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    found["prompt_encoder.shared_embedding.positional_embedding"] = position
    found["shared_image_embedding.positional_embedding"] = position
    return found


def _renamed(key: str) -> str:
    downsampler = re.match(r"memory_encoder\.mask_downsampler\.encoder\.(\d+)\.(\w+)$", key)
    if downsampler and int(downsampler[1]) < 12:
        layer, part = divmod(int(downsampler[1]), 3)
        return f"memory_encoder.mask_downsampler.layers.{layer}.{('conv', 'layer_norm')[part]}.{downsampler[2]}"
    for pattern, name in _NAMES:
        key = re.sub(pattern, name, key)
    return key
