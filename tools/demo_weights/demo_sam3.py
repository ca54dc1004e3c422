"""Train the weights of `sam3-demo`, a reduced tracker of SAM 3 in the format of transformers, on generated clips.

    python tools/demo_weights/demo_sam3.py --output src/vosarena/config/catalog/weights/sam3-demo

Behind the image encoder, SAM 3 tracks with the parts of SAM 2, which keep the weights of `sam2-demo`. The image encoder
learns to give the maps of that network (distillation), for which nothing is tracked.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
import torch.nn.functional as F
import transformers
from PIL import Image

from demo_sam2 import Batch, Clips, Recipe, join_workers, optimise, train, unrolled_loss
from held_out import held_out_scores
from moving_average import State, half_precision
from sam2_names import renamed
from vosarena.trackers.sam2_network import instantiate_network, load_weights
from vosarena.trackers.transformers import Transformers

SIDE, PATCH = 192, 16
SAM2 = Path(__file__).parents[2] / "src/vosarena/config/catalog/weights/sam2-demo.pth"
_MEAN, _DEVIATION = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

RECIPE = Recipe(
    steps=1300,
    schedule=1300,
    seed=30,
    workers=2,
    clips=4,
    objects=8,
    lengths=((1.0, 3),),
    rate=1.2e-3,
    fresh=0.2,
    gap=3,
)


def configuration() -> transformers.Sam3TrackerVideoConfig:
    """The reduced SAM 3: behind the image encoder the sizes of `sam2_demo.yaml`, but memories of 64 channels."""
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 192,
        "intermediate_size": 320,
        "num_hidden_layers": 5,
        "num_attention_heads": 6,
        "patch_size": PATCH,
        "image_size": SIDE,
        "pretrain_image_size": SIDE,
        "window_size": 4,
        "global_attn_indexes": [1, 3, 4],
    }
    return transformers.Sam3TrackerVideoConfig(
        vision_config={"model_type": "sam3_vision_model", "fpn_hidden_size": 128, "backbone_config": backbone},
        prompt_encoder_config={"hidden_size": 128, "patch_size": PATCH},
        mask_decoder_config={"hidden_size": 128, "dynamic_multimask_via_stability": False},
        num_maskmem=4,
        multimask_output_in_sam=False,
        multimask_output_for_tracking=False,
        memory_attention_hidden_size=128,
        memory_attention_num_layers=2,
        memory_attention_num_attention_heads=4,
        memory_attention_feed_forward_hidden_size=256,
        memory_attention_dropout=0.0,
        memory_attention_rope_dropout=0.0,
        memory_encoder_hidden_size=128,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=512,
        memory_fuser_layer_scale_init_value=0.1,
        image_size=SIDE,
    )


def start_from_sam2(batches: Sequence[Batch]) -> Any:
    """Return the network with the weights of `sam2-demo` and an image encoder that has learned nothing.

    The library fixes memories and object pointers at 64 channels, `sam2-demo` has 128. Of these are kept, by reduced
    rank regression, the combinations that decide the keys and values of the memory attention on the given clips.
    """
    teacher = sam2_demo()
    memories: list[torch.Tensor] = []
    pointers: list[torch.Tensor] = []
    hooks = (
        teacher.memory_encoder.register_forward_hook(
            lambda _, __, output: memories.append(output["vision_features"].permute(0, 2, 3, 1).reshape(-1, 128))
        ),
        teacher.obj_ptr_proj.register_forward_hook(lambda _, __, output: pointers.append(output)),
    )
    with torch.no_grad():
        for batch in batches:
            unrolled_loss(teacher, batch, 0.0, np.random.default_rng(0))
    for hook in hooks:
        hook.remove()
    network = transformers.Sam3TrackerVideoModel(configuration())
    state = {key: value for key, value in teacher.state_dict().items() if not key.startswith("image_encoder.")}
    pointer = torch.cat(pointers)
    memory = torch.cat(memories)
    seen = torch.cat([memory, pointer.repeat(len(memory) // len(pointer) // 8 + 1, 1)])
    network.load_state_dict(_compressed(renamed(state), seen), strict=False)
    with torch.no_grad():
        for module in network.vision_encoder.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.ConvTranspose2d):
                module.reset_parameters()  # the library starts from almost nothing
        _start_patches(network, torch.cat([sam3_pixels(batch.images.flatten(0, 1)) for batch in batches]))
    return network


def _compressed(state: State, seen: torch.Tensor) -> State:
    """Reduce memories and pointers from 128 to 64 channels. `seen` are some of them."""
    layers = [f"memory_attention.layers.{index}.cross_attn_image." for index in range(2)]
    names = [f"{layer}{kind}_proj.weight" for kind in "kv" for layer in layers]
    weights = [state[name] for name in names]
    weights = [weight / (seen @ weight.T).std() for weight in weights]
    together = torch.cat(weights).double()
    moments = seen.T.double() @ seen.double() / len(seen)
    values, vectors = torch.linalg.eigh(moments)
    values = values.clamp(min=1e-8 * values.max())
    root, inverse = (vectors @ torch.diag(values**power) @ vectors.T for power in (0.5, -0.5))
    _, strengths, directions = torch.linalg.svd(together @ root, full_matrices=False)
    sizes = strengths[:64].sqrt()
    sizes *= 12 / sizes.square().mean().sqrt()  # large against the positions, which cannot be translated
    down = (sizes[:, None] * (directions[:64] @ inverse)).float()
    up = (root @ directions[:64].T / sizes).float()
    found = dict(state)
    for name in names:
        found[name] = state[name] @ up
    keys = torch.cat([state[name] for name in names[:2]])
    position = torch.linalg.pinv(keys @ up) @ keys  # positions are only added to keys
    twice = torch.cat([down, down])  # a pointer is read as two tokens
    found["memory_encoder.projection.weight"] = down[..., None, None]
    found["memory_encoder.projection.bias"] = torch.zeros(64)
    temporal = "memory_temporal_positional_encoding"
    found[temporal] = state[temporal] @ position.T
    found["occlusion_spatial_embedding_parameter"] = state["occlusion_spatial_embedding_parameter"] @ down.T
    found["no_object_pointer"] = state["no_object_pointer"] @ twice.T
    for part in ("weight", "bias"):
        name = f"object_pointer_proj.proj_out.{part}"
        found[name] = twice @ state[name]
        name = f"temporal_positional_encoding_projection_layer.{part}"
        found[name] = position @ state[name]
        head = f"mask_decoder.iou_prediction_head.proj_out.{part}"
        found[head] = state[head][:1].repeat_interleave(4, 0)
    # The library takes the pointer of a prompt from one of the three other masks, which were never trained.
    tokens = "mask_decoder.mask_tokens.weight"
    found[tokens] = state[tokens][:1].repeat(4, 1)
    first = "mask_decoder.output_hypernetworks_mlps.0."
    for name in [name for name in state if name.startswith(first)]:
        found.update({name.replace(first, first.replace("0", other)): state[name].clone() for other in "123"})
    return found


def _start_patches(network: Any, pixels: torch.Tensor) -> None:
    """Let the first layer see the principal components of the patches, the strong ones damped."""
    embeddings = network.vision_encoder.backbone.embeddings
    weight = embeddings.patch_embeddings.projection.weight
    patches = F.unfold(pixels, PATCH, stride=PATCH).transpose(1, 2).reshape(-1, weight[0].numel())
    middle = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - middle).T @ (patches - middle) / len(patches))
    kept = (vectors / values.clamp(min=1e-6) ** 0.35)[:, -len(weight) :].T
    weight.copy_(kept.view_as(weight))
    embeddings.position_embeddings.sub_(kept @ middle)


def sam3_pixels(images: torch.Tensor) -> torch.Tensor:
    """Change the normalisation of SAM 2 to that of SAM 3."""
    return (images * _DEVIATION + _MEAN) * 2 - 1


def image_maps(network: Any, pixels: torch.Tensor) -> list[torch.Tensor]:
    """Return the maps of `get_image_features`, (H * W, images, channels) from fine to coarse, in less time."""
    vision, decoder = network.vision_encoder, network.mask_decoder
    cells = pixels.shape[-1] // PATCH
    hidden = vision.backbone(pixels).last_hidden_state.view(len(pixels), cells, cells, -1).permute(0, 3, 1, 2)
    afterwards = (decoder.conv_s0, decoder.conv_s1, None)  # the library drops the fourth map
    maps = [_map(layer, after, hidden) for layer, after in zip(vision.neck.fpn_layers, afterwards, strict=False)]
    return [found.flatten(2).permute(2, 0, 1) for found in maps]


def _map(layer: Any, after: Any, inputs: torch.Tensor) -> torch.Tensor:
    """Apply a layer of the neck and the convolution after it; all convolutions with stride 1 are applied as one."""
    for scale in layer.scale_layers:
        inputs = scale(inputs)
    first = torch.cat([layer.proj1.weight[..., 0, 0], layer.proj1.bias[:, None]], 1)  # the bias belongs to ones
    middle, bias = layer.proj2.weight, layer.proj2.bias
    if after is not None:
        last = after.weight[..., 0, 0]
        middle, bias = torch.einsum("ab,bchw->achw", last, middle), last @ bias + after.bias
    weight = torch.einsum("abhw,bc->achw", middle, first)
    return F.conv2d(torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1), weight, bias, padding=1)


def maps_loss(network: Any, teacher: Any, images: torch.Tensor) -> torch.Tensor:
    """Sum over the maps of the squared differences to those of SAM 2, in units of their variance.

    images: as SAM 2 sees them.
    """
    with torch.no_grad():
        wanted = teacher._prepare_backbone_features(teacher.forward_image(images))[1]
    pairs = zip(image_maps(network, sam3_pixels(images)), wanted, strict=True)
    return torch.stack([(found - truth).square().mean() / truth.var((0, 1)).mean() for found, truth in pairs]).sum()


def _worker(rank: int, recipe: Recipe, output: Path, rendezvous: Path, log: Path, start: Path) -> None:
    join_workers(rank, recipe, rendezvous)
    network, teacher = load(start), sam2_demo()
    clips = Clips(recipe, SIDE, rank, Image.Resampling.BILINEAR)

    def loss_of(_: int, progress: float) -> torch.Tensor:
        return maps_loss(network, teacher, clips.batch(recipe.length(progress), SIDE).images.flatten(0, 1))

    def save_all(encoder: State) -> None:
        save({**network.state_dict(), **{f"vision_encoder.{name}": value for name, value in encoder.items()}}, output)

    optimise(network.vision_encoder, recipe, loss_of, log if rank == 0 else None, save_all)
    torch.distributed.destroy_process_group()


def sam2_demo() -> Any:
    """Return the network of `sam2-demo`."""
    network = instantiate_network("sam2_demo")
    load_weights(network, SAM2)
    return network


def load(folder: Path) -> Any:
    """Return a network of a folder, in single precision."""
    return transformers.Sam3TrackerVideoModel.from_pretrained(folder, dtype=torch.float32)


def save(weights: State, folder: Path) -> None:
    """Write a folder of transformers in half precision."""
    network = transformers.Sam3TrackerVideoModel(configuration()).half()
    network.load_state_dict(half_precision(weights))
    network.save_pretrained(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Train the demo weights of SAM 3 on procedural clips.")
    parser.add_argument("--output", type=Path, required=True, help="folder to write; and a .json file next to it")
    parser.add_argument("--clips", type=int, default=120, help="held-out clips of each domain; 0: none")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an orderly end, which takes the workers along
    started = time.time()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(RECIPE.seed)
    clips = Clips(Recipe(seed=32, fresh=1.0), SIDE, 0, Image.Resampling.BILINEAR)
    save(start_from_sam2([clips.batch(5, SIDE) for _ in range(30)]).state_dict(), options.output)
    lines: list[dict[str, Any]] = []
    train(_worker, RECIPE, options.output, lines.append, options.output)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    given = sys.argv[1:] if arguments is None else arguments
    record: dict[str, Any] = {
        "command": "python tools/demo_weights/demo_sam3.py " + " ".join(given),
        "recipe": asdict(RECIPE),
        "training": lines,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "wall_seconds": round(time.time() - started),
        "cpu_seconds": round(sum(usage.ru_utime + usage.ru_stime for usage in used)),
    }
    if options.clips:
        record["held_out"] = held_out_scores("sam3-demo", Transformers(str(options.output)), options.clips)
    options.output.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
