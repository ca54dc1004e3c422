"""SAM 2 in constant memory: frames are encoded when they are needed, memories dropped when no frame attends to them.

It calls the methods of the package's `SAM2VideoPredictor`. The masks equal those of the package's VOS script, which
loads the whole video, keeps every memory, and runs the video once per object where objects appear late.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from vosarena.trackers.base import BoolMask, Frame
from vosarena.trackers.checkpoints import cast_weights
from vosarena.trackers.resize import resize_as_pillow
from vosarena.trackers.streaming import fetch_late, frame_size, pinned_empty, prepare_ahead

if TYPE_CHECKING:
    from sam2.sam2_video_predictor import SAM2VideoPredictor

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as upstream normalises

Reduce = Callable[[Iterator[tuple[int, torch.Tensor]], tuple[int, int]], torch.Tensor]


@dataclass(frozen=True)
class Settings:
    """Settings that may vary between runs of one network. The defaults give exactly upstream's masks (on the CPU)."""

    batch_objects: int = 1  # objects that appear together and share a forward pass
    encoder_batch: int = 1  # frames per pass of the image encoder
    offload_memory: bool = False  # keep the memory bank in host memory


@dataclass
class _Group:
    """Objects that appeared in one frame and run as one batch, with their memories."""

    objects: list[int]
    outputs: dict[str, dict[int, dict[str, Any]]]
    scores: torch.Tensor  # float (objects, 1, h, w): mask logits of the current frame, a quarter of the network's size


class Sam2Stream:
    """Tracks sequences with one network.

    Args:
        predictor: The network.
        autocast: Number format of its linear layers and convolutions, None for that of the weights.
    """

    def __init__(self, predictor: SAM2VideoPredictor, autocast: torch.dtype | None = None) -> None:
        self.predictor = predictor
        self.device = predictor.device
        self._autocast = autocast
        if autocast is not None:
            cast_weights(predictor, autocast)
        # Upstream's own initial state, made once from a blank image and reused for every video.
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):  # a progress bar
            Image.new("RGB", (16, 16)).save(Path(folder) / "0.jpg")
            with self._precision():  # as when it tracks, so that `compile` compiles the encoder once
                self._state: dict[str, Any] = predictor.init_state(folder)
        self._state["images"] = None
        # Every grey level as upstream normalises it: division in double, the rest in single precision.
        levels = torch.from_numpy(np.arange(256) / 255.0).float().expand(3, 256)
        mean, deviation = torch.tensor(_MEAN)[:, None], torch.tensor(_DEVIATION)[:, None]
        self._levels = ((levels - mean) / deviation).to(self.device)

    def run(
        self, frames: Sequence[Frame], prompts: Mapping[int, Mapping[int, BoolMask]], settings: Settings, reduce: Reduce
    ) -> Iterator[np.ndarray]:
        """Yield the result of `reduce` for every frame from the first prompt on.

        On CUDA results are yielded one frame late, so that the next frame is already being computed.

        Args:
            frames: The frames.
            prompts: Frame index -> object id -> bool (H, W), not empty. Every id occurs once.
            settings: How to run.
            reduce: Gets pairs of object id and logits, float (H, W) on the device, in the order of the ids, and the
                size (H, W) of the frame; returns a tensor.
        """
        first, size = min(prompts), frame_size(frames)
        groups: list[_Group] = []
        with contextlib.closing(prepare_ahead(frames, self.prepare, first, settings.encoder_batch + 1)) as images:
            self._begin(_Encoded(self, images, settings.encoder_batch), len(frames), size, settings)
            yield from fetch_late(
                self._step(index, groups, prompts.get(index, {}), size, settings, reduce)
                for index in range(first, len(frames))
            )

    def _begin(self, encoded: _Encoded, count: int, size: tuple[int, int], settings: Settings) -> None:
        self.predictor.reset_state(self._state)
        self._state["constants"].clear()
        self._state["cached_features"] = encoded
        self._state["num_frames"] = count  # caps the object pointers of short videos
        self._state["video_height"], self._state["video_width"] = size
        self._state["offload_state_to_cpu"] = settings.offload_memory
        self._state["storage_device"] = torch.device("cpu") if settings.offload_memory else self.device

    @torch.inference_mode()
    def _step(
        self,
        index: int,
        groups: list[_Group],
        new: Mapping[int, BoolMask],
        size: tuple[int, int],
        settings: Settings,
        reduce: Reduce,
    ) -> torch.Tensor:
        with self._precision():
            for group in groups:
                output, group.scores = self.predictor._run_single_frame_inference(
                    inference_state=self._state,
                    output_dict=group.outputs,
                    frame_idx=index,
                    batch_size=len(group.objects),
                    is_init_cond_frame=False,
                    point_inputs=None,
                    mask_inputs=None,
                    reverse=False,
                    run_mem_encoder=True,
                )
                group.outputs["non_cond_frame_outputs"][index] = output
            ids = sorted(new)
            for start in range(0, len(ids), settings.batch_objects):
                batch = ids[start : start + settings.batch_objects]
                output = _join([self._prompt(index, new[number]) for number in batch])
                outputs = {"cond_frame_outputs": {index: output}, "non_cond_frame_outputs": {}}
                groups.append(_Group(batch, outputs, output["pred_masks"].to(self.device)))
            for group in groups:
                self._forget(group, index)
        rows = sorted((number, group, row) for group in groups for row, number in enumerate(group.objects))
        return reduce(((number, _enlarge(group.scores[row : row + 1], size)) for number, group, row in rows), size)

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self._autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self._autocast)

    def _prompt(self, index: int, mask: BoolMask) -> dict[str, Any]:
        """Return upstream's memory of one object after its first mask, as in a run for this object alone."""
        self.predictor.reset_state(self._state)
        self.predictor.add_new_mask(self._state, frame_idx=index, obj_id=1, mask=mask)
        self.predictor.propagate_in_video_preflight(self._state)
        output: dict[str, Any] = self._state["output_dict_per_obj"][0]["cond_frame_outputs"][index]
        return output

    def _forget(self, group: _Group, index: int) -> None:
        """Drop what no frame after `index` attends to (see SAM2Base._prepare_memory_conditioned_features)."""
        network, following = self.predictor, index + 1
        stride = network.memory_temporal_stride_for_eval
        oldest_memory = (following - 2) // stride * stride - (network.num_maskmem - 3) * stride
        oldest_pointer = following - network.max_obj_ptrs_in_encoder + 1
        for outputs in group.outputs.values():
            for output in outputs.values():
                output.pop("pred_masks", None)
        recent = group.outputs["non_cond_frame_outputs"]
        for past in [past for past in recent if past < min(oldest_memory, oldest_pointer, index)]:
            del recent[past]
        for past, output in recent.items():
            if past < min(oldest_memory, index):
                output["maskmem_features"] = None

    def prepare(self, frame: Frame) -> torch.Tensor:
        """Return a frame resized as in upstream: uint8 (3, S, S) in host memory."""
        side = self.predictor.image_size
        image = pinned_empty((3, side, side), torch.uint8, self.device)
        resize_as_pillow(frame, image.numpy())
        return image

    def encode(self, images: Sequence[torch.Tensor]) -> tuple[torch.Tensor, dict[str, Any]]:
        """Normalise prepared frames and run the image encoder on them: float (N, 3, S, S) and its features."""
        pixels = torch.stack([image.to(self.device, non_blocking=True) for image in images]).long()
        batch = torch.stack([self._levels[channel][pixels[:, channel]] for channel in range(3)], dim=1)
        return batch, self.predictor.forward_image(batch)


class _Encoded:
    """The features of the frames, in place of the dict `cached_features` in upstream's state.

    `batch` frames are encoded in one pass. Only the current batch is kept.
    """

    def __init__(self, stream: Sam2Stream, images: Iterator[torch.Tensor], batch: int) -> None:
        self._stream, self._images, self._batch = stream, images, batch
        self._current: dict[int, tuple[torch.Tensor, dict[str, Any]]] = {}

    def get(self, index: int, default: object = None) -> tuple[torch.Tensor, dict[str, Any]]:
        """Return the image (1, 3, S, S) of a frame and its features; upstream calls this. `index` never decreases."""
        if index not in self._current:
            self._current.clear()
            images = list(islice(self._images, self._batch))
            pixels, features = self._stream.encode(images)
            for row in range(len(images)):
                one = slice(row, row + 1)
                lists = {key: [level[one] for level in features[key]] for key in ("backbone_fpn", "vision_pos_enc")}
                self._current[index + row] = (pixels[one], lists)
        return self._current[index]


def label_map(scores: Iterator[tuple[int, torch.Tensor]], size: tuple[int, int]) -> torch.Tensor:
    """Return uint8 (H, W): the object with the highest positive logit, of equals the lowest id, as in upstream."""
    best = labels = None
    for number, score in scores:
        if best is None or labels is None:
            best = torch.zeros_like(score)
            labels = torch.zeros(size, dtype=torch.uint8, device=score.device)
        labels.masked_fill_(score > best, number)
        best = torch.maximum(best, score)
    assert labels is not None
    return labels


def separate_masks(scores: Iterator[tuple[int, torch.Tensor]], size: tuple[int, int]) -> torch.Tensor:
    """Return bool (N, H, W) in the order of the ids; masks may overlap (upstream's --per_obj_png_file)."""
    return torch.stack([score > 0 for _, score in scores])


def _enlarge(scores: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return logits (1, 1, h, w) in the size of the video, (H, W), resized as in upstream."""
    if scores.shape[-2:] != size:
        scores = torch.nn.functional.interpolate(scores, size=size, mode="bilinear", align_corners=False)
    return scores[0, 0]


def _join(outputs: list[dict[str, Any]]) -> dict[str, Any]:
    """Join the outputs of single objects into one batch."""
    if len(outputs) == 1:
        return outputs[0]
    joined = {key: torch.cat([output[key] for output in outputs]) for key in outputs[0] if key != "maskmem_pos_enc"}
    levels = outputs[0]["maskmem_pos_enc"]
    return joined | {"maskmem_pos_enc": [level.expand(len(outputs), -1, -1, -1) for level in levels]}
