"""The inference sessions of transformers in constant memory.

The library's session keeps every frame, and of every frame and object masks, memory and pointer. Here frames are
prepared when they are needed, and after each frame everything is dropped that no later frame reads. The masks are the
same, because the library's own methods compute them.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torchvision.transforms.v2 import functional as images

from vosarena.trackers.base import Frame
from vosarena.trackers.checkpoints import cast_weights
from vosarena.trackers.memory.base import MemoryRule
from vosarena.trackers.objects import enlarge
from vosarena.trackers.prompts import ObjectPrompt, Prompt, as_prompts
from vosarena.trackers.ruled import MAP, MASKS
from vosarena.trackers.streaming import fetch_late, frame_size, pinned_empty, prepare_ahead, upload
from vosarena.trackers.transformers_memory import SessionVideo
from vosarena.trackers.transformers_network import session_class

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel

    from vosarena.trackers.objects import Reduce

_HALF = (0.5, 0.5, 0.5)
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Settings:
    """Settings that may vary between runs of one network. The defaults give exactly the library's masks."""

    batch_objects: int = 1  # objects that appear together and share a forward pass
    offload_memory: bool = False  # keep the memory bank in host memory


class SessionStream:
    """Tracks sequences with one network.

    Args:
        network: The network.
        autocast: Number format of its linear layers and convolutions, None for that of the weights.
        rule: How memories are chosen; None for the library's way.
    """

    def __init__(
        self, network: PreTrainedModel, autocast: torch.dtype | None = None, rule: MemoryRule | None = None
    ) -> None:
        from transformers import Sam2ImageProcessor, Sam2VideoProcessor, Sam2VideoVideoProcessor

        self.network, self.rule = _repaired(network), rule
        self.device = network.device
        self._autocast = autocast
        if autocast is not None:
            cast_weights(network, autocast)
        self._session = session_class(network)
        # Only for prompts, which all these models prepare in the same way.
        self._processor = Sam2VideoProcessor(
            Sam2ImageProcessor(), Sam2VideoVideoProcessor(), target_size=network.config.image_size
        )
        # As the published processors of these models: SAM 3 has its own values, the others those of ImageNet.
        mean, deviation = (_HALF, _HALF) if network.config.model_type.startswith("sam3") else _IMAGENET
        self._mean, self._deviation = (
            torch.tensor(values)[:, None, None].mul(255).to(self.device) for values in (mean, deviation)
        )

    def run(
        self,
        frames: Sequence[Frame],
        prompts: Mapping[int, Mapping[int, ObjectPrompt]],
        settings: Settings,
        reduce: Reduce,
    ) -> Iterator[np.ndarray]:
        """Yield the result of `reduce` for every frame from the first prompt on; see objects.Stream."""
        left, size = range(min(prompts), len(frames)), frame_size(frames)
        with contextlib.closing(prepare_ahead(frames, self.prepare, left)) as prepared:
            session = self._session(
                video_height=size[0],
                video_width=size[1],
                inference_device=self.device,
                inference_state_device="cpu" if settings.offload_memory else self.device,
                dtype=torch.float32,
            )
            session.processed_frames = _Pixels(self, prepared, len(frames))
            if self.rule:
                video = SessionVideo(self.network, session, self.rule, self._add)
                results = video.run(left, prompts, self._precision, reduce)
            else:
                results = (self._step(session, index, prompts.get(index, {}), size, settings, reduce) for index in left)
            yield from fetch_late(results)

    @torch.inference_mode()
    def _step(
        self,
        session: Any,
        index: int,
        given: Mapping[int, ObjectPrompt],
        size: tuple[int, int],
        settings: Settings,
        reduce: Reduce,
    ) -> torch.Tensor:
        with self._precision():
            corrected = not given.keys().isdisjoint(session.obj_ids)
            if corrected:
                self.network(session, frame_idx=index)  # a correction starts from the mask without it
            self._add(session, index, given)
            if settings.batch_objects == 1 or corrected:
                scores = self.network(session, frame_idx=index).pred_masks
            else:
                scores = self._forward(session, index, settings.batch_objects)
            self._forget(session, index, settings)
            rows = sorted((number, row) for row, number in enumerate(session.obj_ids))
            # Autocast enlarges in single precision on CUDA.
            return reduce(((number, enlarge(scores[row : row + 1], size)) for number, row in rows), size)

    def _add(self, session: Any, index: int, given: Mapping[int, ObjectPrompt]) -> None:
        """Add the prompts of a frame to a session, those of an object one after the other."""
        for number in sorted(given):
            for place, prompt in enumerate(as_prompts(given[number])):
                # A box has to come before clicks.
                self._processor.add_inputs_to_inference_session(
                    session, index, [number], clear_old_inputs=not place or prompt.box is not None, **_inputs(prompt)
                )
        session.obj_with_new_inputs = sorted(given)  # of all objects, as if they had been added together

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self._autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self._autocast)

    def _forget(self, session: Any, index: int, settings: Settings) -> None:
        """Drop what no frame after `index` reads (see `_gather_memory_frame_outputs` and `_get_object_pointers`)."""
        config, following = self.network.config, index + 1
        oldest_memory = following - (config.num_maskmem - 1)
        oldest_pointer = following - (config.max_object_pointers_in_encoder - 1)
        session.cache.clear_all()
        for known in (session.mask_inputs_per_obj, session.point_inputs_per_obj, session.frames_tracked_per_obj):
            for inputs in known.values():
                inputs.clear()
        for outputs in session.output_dict_per_obj.values():
            recent = outputs["non_cond_frame_outputs"]
            for past in [past for past in recent if past < min(oldest_memory, oldest_pointer)]:
                del recent[past]
            for past, output in recent.items():
                if past < oldest_memory:
                    _drop(output, MAP)
            for output in (*outputs["cond_frame_outputs"].values(), *recent.values()):
                _drop(output, MASKS)
                if settings.offload_memory:
                    output.update({key: output[key].cpu() for key in MAP if key in output})

    def _forward(self, session: Any, index: int, batch: int) -> torch.Tensor:
        """Do what the network's `forward` does, with up to `batch` objects in a pass; returns all logits."""
        network: Any = self.network
        features, positions = network._prepare_vision_features(session, index, 1)
        options = {"frame_idx": index, "batch_size": 1, "reverse": False}
        if "run_mem_encoder" in inspect.signature(network._run_single_frame_inference).parameters:
            options["run_mem_encoder"] = True  # EdgeTAM encodes the memory in there
        outputs: dict[int, dict[str, Any]] = {}
        starts: dict[int, list[int]] = {}
        for row, number in enumerate(session.obj_ids):
            start = min(session.output_dict_per_obj[row]["cond_frame_outputs"], default=None)
            if start is None:
                outputs[row] = network._run_single_frame_inference(
                    session,
                    obj_idx=row,
                    is_init_cond_frame=True,
                    mask_inputs=session.mask_inputs_per_obj[row].get(index),
                    point_inputs=session.point_inputs_per_obj[row].get(index),
                    **options,
                )
                session.obj_with_new_inputs.remove(number)
            else:
                starts.setdefault(start, []).append(row)
        new = set(outputs)
        for rows in starts.values():
            for group in (rows[first : first + batch] for first in range(0, len(rows), batch)):
                together = _together(session, group, features, positions)
                output = network._run_single_frame_inference(
                    together, obj_idx=0, is_init_cond_frame=False, mask_inputs=None, point_inputs=None, **options
                )
                outputs.update({row: _row(output, place) for place, row in enumerate(group)})
        everything = sorted(outputs)
        for row in everything:
            session.store_output(row, index, output_value=outputs[row], is_conditioning_frame=row in new)
        if "maskmem_features" not in outputs[0]:
            network._batch_encode_memories(
                session,
                index,
                everything,
                [outputs[row]["high_res_masks"] for row in everything],
                [outputs[row]["object_score_logits"] for row in everything],
                [row in new for row in everything],
            )
        return torch.cat([outputs[row]["pred_masks"] for row in everything])

    def prepare(self, frame: Frame) -> torch.Tensor:
        """Return a frame as uint8 (3, H, W) in host memory; on a CPU it has the size that the network sees."""
        pixels = torch.from_numpy(frame).permute(2, 0, 1).contiguous()
        if self.device.type == "cpu":
            return self._resize(pixels)
        return pinned_empty(pixels.shape, torch.uint8, self.device).copy_(pixels)

    def normalised(self, image: torch.Tensor) -> torch.Tensor:
        """Return a prepared frame as the network sees it: float32 (3, S, S) on the device."""
        return self._resize(upload(image, self.device)).float().sub(self._mean).div(self._deviation)

    def _resize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Resize as the library's video processor, which does it on the device of the network."""
        side = self.network.config.image_size
        resized: torch.Tensor = images.resize(pixels, [side, side], images.InterpolationMode.BILINEAR, antialias=True)
        return resized


class _Pixels:
    """The frames in place of the dict `processed_frames` of a session, each of which is read once, in order."""

    def __init__(self, stream: SessionStream, prepared: Iterator[torch.Tensor], count: int) -> None:
        self._stream, self._prepared, self._count = stream, prepared, count

    def __len__(self) -> int:
        return self._count  # caps the object pointers of short videos

    def __getitem__(self, index: int) -> torch.Tensor:
        return self._stream.normalised(next(self._prepared))


def _inputs(prompt: Prompt) -> dict[str, Any]:
    """Return a prompt of one object as arguments of the library's processor."""
    if prompt.mask is not None:
        return {"input_masks": [torch.from_numpy(prompt.mask)]}
    inputs: dict[str, Any] = {} if prompt.box is None else {"input_boxes": [[list(prompt.box)]]}
    if prompt.clicks:
        inputs["input_points"] = [[[[click.x, click.y] for click in prompt.clicks]]]
        inputs["input_labels"] = [[[int(click.inside) for click in prompt.clicks]]]
    return inputs


def _drop(output: dict[str, Any], keys: Sequence[str]) -> None:
    for key in keys:
        output.pop(key, None)


def _together(session: Any, rows: Sequence[int], features: Sequence[torch.Tensor], positions: Any) -> Any:
    """Return what a network reads of a session, with several objects joined into one that is a batch.

    The objects appeared in the same frame, so that they have memories of the same frames.
    """
    count = len(rows)
    known = [session.output_dict_per_obj[row] for row in rows]
    joined = {
        kind: {index: _join([outputs[kind][index] for outputs in known]) for index in known[0][kind]}
        for kind in known[0]
    }
    wide = {
        "vision_feats": [level.expand(-1, count, -1) for level in features],
        "vision_pos_embeds": [level.expand(-1, count, -1) for level in positions],
    }
    return SimpleNamespace(
        output_dict_per_obj={0: joined},
        cache=SimpleNamespace(get_vision_features=lambda index: wide),
        num_frames=session.num_frames,
        dtype=session.dtype,
    )


def _join(outputs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join the outputs of single objects into one batch. The batch is the dimension of size 1."""
    joined = {}
    for key in ("object_pointer", *MAP):
        if key in outputs[0]:
            dimension = 1 if key in MAP and outputs[0][key].shape[1] == 1 else 0
            joined[key] = torch.cat([output[key] for output in outputs], dimension)
    return joined


def _row(output: dict[str, Any], row: int) -> dict[str, Any]:
    """Return the output of one object of a batch."""
    return {key: value[row : row + 1] for key, value in output.items()}


def _repaired(network: Any) -> Any:
    """Return a network that can compute several objects in a batch and, of EdgeTAM, accept objects at any time.

    In transformers 5.24 the memory attention mixes up two dimensions of a batch, the best mask of each object is paired
    with every object, and EdgeTAM's memory cannot be a batch. The score of a mask prompt in EdgeTAM lacks a dimension,
    so that the session fails if other objects are being tracked. For a single object nothing changes.
    """
    attend, decode, use_mask = (
        network.memory_attention.forward,
        network._single_frame_forward,
        network._use_mask_as_output,
    )

    def memory_attention(*arguments: Any, **options: Any) -> torch.Tensor:
        output: torch.Tensor = attend(*arguments, **options)  # (1, objects, positions, channels)
        return output.transpose(0, 1)

    def single_frame_forward(*arguments: Any, **options: Any) -> Any:
        output = decode(*arguments, **options)
        for key in ("pred_masks", "high_res_masks", "object_pointer"):
            value = output[key]
            if value.shape[1] > 1:
                each = torch.arange(len(value))
                output[key] = value[each, each][:, None]
        return output

    def use_mask_as_output(*arguments: Any, **options: Any) -> Any:
        output = use_mask(*arguments, **options)
        output.object_score_logits = output.object_score_logits.reshape(-1, 1, 1)
        return output

    network.memory_attention.forward = memory_attention
    network._single_frame_forward = single_frame_forward
    network._use_mask_as_output = use_mask_as_output
    if hasattr(network, "spatial_perceiver"):
        perceive = network.spatial_perceiver.forward

        def spatial_perceiver(*arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
            rows = [perceive(*row) for row in zip(*(argument.split(1) for argument in arguments), strict=True)]
            return tuple(torch.cat(parts) for parts in zip(*rows, strict=True))

        network.spatial_perceiver.forward = spatial_perceiver
    return network
