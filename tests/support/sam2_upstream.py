"""SAM 2 run as upstream's `tools/vos_inference.py` runs it: the reference of the parity tests and the benchmark.

Every frame is loaded first, every memory is kept, and the video runs once per object where objects appear late.
"""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from hydra import initialize_config_dir, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

from vosarena.trackers.sam2_network import config_path, instantiate_network


def build(config, weights, image_size=None, non_overlap=True, device="cpu", postprocessing=False):
    """The predictor from upstream's builder. config: upstream's name, or one of ours."""
    import sam2
    from sam2.build_sam import build_sam2_video_predictor

    overrides = [f"++model.non_overlap_masks={str(non_overlap).lower()}"]
    if image_size is not None:
        overrides.append(f"++model.image_size={image_size}")
    path = config_path(config)
    package = Path(sam2.__path__[0])
    ours = package not in path.parents
    GlobalHydra.instance().clear()
    context = initialize_config_dir(str(path.parent), version_base="1.2") if ours else None
    if context is None:
        initialize_config_module("sam2", version_base="1.2")
    try:
        name = path.name if ours else str(path.relative_to(package))
        return build_sam2_video_predictor(
            name, str(weights), device=device, apply_postprocessing=postprocessing, hydra_overrides_extra=overrides
        )
    finally:
        GlobalHydra.instance().clear()


def random_weights(config, path, seed, image_size=None, presence=(1.0, 9.0)):
    """Write a seeded random checkpoint. presence: scale and bias of the score that says whether an object is there;
    by default every object is."""
    torch.manual_seed(seed)
    network = instantiate_network(config, image_size=image_size)
    score = network.sam_mask_decoder.pred_obj_score_head.layers[-1]
    with torch.no_grad():
        score.weight.mul_(presence[0])
        score.bias.fill_(presence[1])
    torch.save({"model": network.state_dict()}, path)
    return path


def write_video(folder, frames, quality=95):
    """Frames as numbered JPEG files; returns their paths."""
    folder.mkdir(parents=True)
    paths = [folder / f"{index:05d}.jpg" for index in range(len(frames))]
    for path, frame in zip(paths, frames, strict=True):
        Image.fromarray(frame).save(path, quality=quality)
    return paths


@torch.inference_mode()
def track_together(predictor, folder: Path, prompts: Mapping[int, np.ndarray], threshold=0.0) -> Iterator[np.ndarray]:
    """All objects are in the first frame: one run. Label maps, one per frame, after the whole video."""
    state = _load(predictor, folder)
    for index, prompt in prompts.items():
        for number in _ids(prompt):
            predictor.add_new_mask(state, index, number, prompt == number)
    kept: dict[int, dict[int, np.ndarray]] = {}
    for index, numbers, logits in predictor.propagate_in_video(state):
        kept[index] = {number: (logits[row] > threshold).cpu().numpy()[0] for row, number in enumerate(numbers)}
    for index in sorted(kept):
        yield _combine(kept[index])


@torch.inference_mode()
def track_separately(
    predictor, folder: Path, prompts: Mapping[int, np.ndarray], overlap=False, threshold=0.0
) -> Iterator:
    """One run per object from its first frame, then overlaps are resolved. overlap: dicts of boolean masks instead."""
    state = _load(predictor, folder)
    kept: dict[int, dict[int, np.ndarray]] = {n: {} for n in sorted({n for p in prompts.values() for n in _ids(p)})}
    for number, outputs in kept.items():
        predictor.reset_state(state)
        own = {index: labels == number for index, labels in prompts.items() if (labels == number).any()}
        for index, mask in own.items():
            predictor.add_new_mask(state, index, number, mask)
        for index, _, logits in predictor.propagate_in_video(state, start_frame_idx=min(own)):
            outputs[index] = logits.cpu().numpy()
    for index in range(state["num_frames"]):
        scores = torch.full((len(kept), 1, state["video_height"], state["video_width"]), -1024.0)
        for row, scored in enumerate(kept.values()):
            if index in scored:
                scores[row] = torch.from_numpy(scored[index])[0]
        if not overlap:
            scores = predictor._apply_non_overlapping_constraints(scores)
        masks = {number: (scores[row, 0] > threshold).numpy() for row, number in enumerate(kept)}
        yield masks if overlap else _combine(masks)


def _load(predictor, folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return predictor.init_state(str(folder), async_loading_frames=False)


def _ids(labels):
    return [int(number) for number in np.unique(labels) if number]


def _combine(masks):
    labels = np.zeros(next(iter(masks.values())).shape, np.uint8)
    for number in sorted(masks, reverse=True):
        labels[masks[number]] = number
    return labels


def three_masks(weights, path, seed, noise=0.3, certainty=1.0, presence=0.0, quality=0.0):
    """Write a copy of the demo's weights that proposes three different masks of varying predicted quality.

    certainty, presence: factor of the logit that the object is visible, and what is added to it. quality: what is added
    to the logit of the predicted IoU. The network attends to seven maps.
    """
    torch.manual_seed(seed)
    content = {key: value.float() for key, value in torch.load(weights, weights_only=True)["model"].items()}

    def varied(values, scale):
        return values + noise * scale * torch.randn_like(values)

    tokens = content["sam_mask_decoder.mask_tokens.weight"]
    tokens[1:] = varied(tokens[:1].expand(3, -1), tokens[0].std())
    for key, value in content.items():
        if ".output_hypernetworks_mlps.0." in key and value.ndim > 1:
            for number in (1, 2, 3):
                content[key.replace("mlps.0", f"mlps.{number}")].copy_(varied(value, value.std()))
    for part in ("weight", "bias"):
        score = content[f"sam_mask_decoder.iou_prediction_head.layers.2.{part}"]
        score[1:] = varied(score[:1].expand(3, *score.shape[1:]), score[0].abs().mean())
        content[f"sam_mask_decoder.pred_obj_score_head.layers.2.{part}"] *= certainty
    content["sam_mask_decoder.pred_obj_score_head.layers.2.bias"] += presence
    content["sam_mask_decoder.iou_prediction_head.layers.2.bias"] += quality
    codes = content["maskmem_tpos_enc"]
    content["maskmem_tpos_enc"] = torch.cat([codes[:-1], *[codes[-2:-1]] * 3, codes[-1:]])
    torch.save({"model": content}, path)
    return path
