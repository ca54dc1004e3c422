"""SAM 2 in constant memory: frames are encoded when they are needed, memories dropped when no frame attends to them.

It calls the methods of the package's `SAM2VideoPredictor`. The masks equal those of the package's VOS script, which
loads the whole video, keeps every memory, and runs the video once per object where objects appear late.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from vosarena.io.resize import resize_as_pillow
from vosarena.trackers.base import Frame
from vosarena.trackers.checkpoints import cast_weights
from vosarena.trackers.memory.base import MemoryRule
from vosarena.trackers.objects import enlarge
from vosarena.trackers.prompts import ObjectPrompt, Prompt, as_prompts
from vosarena.trackers.ruled import without_holes
from vosarena.trackers.sam2_memory import Sam2Video
from vosarena.trackers.streaming import fetch_late, frame_size, pinned_empty, prepare_ahead, upload

if TYPE_CHECKING:
    from sam2.sam2_video_predictor import SAM2VideoPredictor

    from vosarena.trackers.objects import Reduce

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as upstream normalises


@dataclass(frozen=True)
class Settings:
    """Settings that may vary between runs of one network. The defaults give exactly upstream's masks (on the CPU)."""

    batch_objects: int = 1  # objects that appear together and share a forward pass
    encoder_batch: int = 1  # frames per pass of the image encoder
    offload_memory: bool = False  # keep the memory bank in host memory


@dataclass
class _Group:
    """Objects with prompts in the same frames, which run as one batch, with their memories."""

    objects: list[int]
    first: int  # frame of the first prompt
    outputs: dict[str, dict[int, dict[str, Any]]]
    current: torch.Tensor = field(init=False)  # float (objects, 1, h, w): mask logits, a quarter of the network's size


class Sam2Stream:
    """Tracks sequences with one network.

    Args:
        predictor: The network.
        autocast: Number format of its linear layers and convolutions, None for that of the weights.
        fill_hole_area: Holes of up to so many pixels are filled; 0 for the predictor's own number.
        rule: How memories are chosen; None for upstream's way.
    """

    def __init__(
        self,
        predictor: SAM2VideoPredictor,
        autocast: torch.dtype | None = None,
        fill_hole_area: int = 0,
        rule: MemoryRule | None = None,
    ) -> None:
        self.predictor = predictor
        self.rule = rule
        self._holes = fill_hole_area or predictor.fill_hole_area
        _fill_holes(predictor, self._holes)
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
        self,
        frames: Sequence[Frame],
        prompts: Mapping[int, Mapping[int, ObjectPrompt]],
        settings: Settings,
        reduce: Reduce,
    ) -> Iterator[np.ndarray]:
        """Yield the result of `reduce` for every frame from the first prompt on.

        On CUDA results are yielded one frame late, so that the next frame is already being computed. If an object has
        several masks, all of them are in its memory from the start, as upstream's `--use_all_masks` has it. Prompts of
        an object that is being tracked correct its mask of that frame, and the frames after it.

        Args:
            frames: The frames.
            prompts: Frame index -> object id -> bool (H, W), not empty, or prompts.
            settings: How to run.
            reduce: Gets pairs of object id and logits, float (H, W) on the device, in the order of the ids, and the
                size (H, W) of the frame; returns a tensor.
        """
        first, size = min(prompts), frame_size(frames)
        self._begin(len(frames), size, settings)
        groups: list[_Group] = []
        numbers = [number for masks in prompts.values() for number in masks]
        if len(numbers) > len(set(numbers)):
            if all(isinstance(given, np.ndarray) for masks in prompts.values() for given in masks.values()):
                groups, prompts = list(self._groups(self._memories(frames, prompts), settings)), {}
            else:
                settings = replace(settings, batch_objects=1)  # upstream corrects one object at a time
        left = range(first, len(frames))
        with contextlib.closing(prepare_ahead(frames, self.prepare, left, settings.encoder_batch + 1)) as images:
            self._state["cached_features"] = _Encoded(self, images, first, settings.encoder_batch)
            if self.rule:
                video = Sam2Video(self.predictor, self._state, self.rule, self._prompt, self._holes)
                results = video.run(left, prompts, self._precision, reduce)
            else:
                results = (self._step(index, groups, prompts.get(index, {}), size, settings, reduce) for index in left)
            yield from fetch_late(results)

    def _begin(self, count: int, size: tuple[int, int], settings: Settings) -> None:
        self.predictor.reset_state(self._state)
        self._state["constants"].clear()
        self._state["num_frames"] = count  # caps the object pointers of short videos
        self._state["video_height"], self._state["video_width"] = size
        self._state["offload_state_to_cpu"] = settings.offload_memory
        self._state["storage_device"] = torch.device("cpu") if settings.offload_memory else self.device

    @torch.inference_mode()
    def _step(
        self,
        index: int,
        groups: list[_Group],
        given: Mapping[int, ObjectPrompt],
        size: tuple[int, int],
        settings: Settings,
        reduce: Reduce,
    ) -> torch.Tensor:
        known = {number for group in groups for number in group.objects}
        with self._precision():
            new = [number for number in given if number not in known]
            groups += self._groups({number: {index: self._prompt(index, given[number])} for number in new}, settings)
            present = [group for group in groups if group.first <= index]
            for group in present:
                self._track(index, group)
                if (number := group.objects[0]) in known and number in given:
                    corrected = self._prompt(index, given[number], group.outputs)
                    group.current = corrected["pred_masks"].to(self.device)
                self._forget(group, index)
        rows = sorted((number, row, group.current) for group in present for row, number in enumerate(group.objects))
        return reduce(((number, enlarge(scores[row : row + 1], size)) for number, row, scores in rows), size)

    def _track(self, index: int, group: _Group) -> None:
        if prompted := group.outputs["cond_frame_outputs"].get(index):
            group.current = prompted["pred_masks"].to(self.device)
            return
        output, group.current = self.predictor._run_single_frame_inference(
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

    def _groups(self, memories: Mapping[int, Mapping[int, dict[str, Any]]], settings: Settings) -> Iterator[_Group]:
        """Yield groups of objects with prompts in the same frames. `memories`: by object and frame."""
        together: dict[tuple[int, ...], list[int]] = {}
        for number in sorted(memories):
            together.setdefault(tuple(memories[number]), []).append(number)
        for frames, ids in together.items():
            for start in range(0, len(ids), settings.batch_objects):
                batch = ids[start : start + settings.batch_objects]
                prompted = {index: _join([memories[number][index] for number in batch]) for index in frames}
                yield _Group(batch, min(frames), {"cond_frame_outputs": prompted, "non_cond_frame_outputs": {}})

    @torch.inference_mode()
    def _memories(
        self, frames: Sequence[Frame], prompts: Mapping[int, Mapping[int, ObjectPrompt]]
    ) -> dict[int, dict[int, dict[str, Any]]]:
        """Return the memories of all prompts by object and frame."""
        found: dict[int, dict[int, dict[str, Any]]] = {}
        indices = sorted(prompts)
        with self._precision(), contextlib.closing(prepare_ahead(frames, self.prepare, indices)) as images:
            for index, image in zip(indices, images, strict=True):
                self._state["cached_features"] = {index: self.encode([image])}
                for number, mask in prompts[index].items():
                    found.setdefault(number, {})[index] = self._prompt(index, mask)
        return found

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self._autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self._autocast)

    def _prompt(
        self, index: int, given: ObjectPrompt, tracked: dict[str, dict[int, dict[str, Any]]] | None = None
    ) -> dict[str, Any]:
        """Return upstream's memory of one object after prompts in a frame, as in a run for this object alone.

        Args:
            index: The frame.
            given: The prompts.
            tracked: The memories of an object that has been tracked up to this frame; the new memory is put among them.
        """
        predictor, state = self.predictor, self._state
        predictor.reset_state(state)
        row = predictor._obj_id_to_idx(state, 1)
        if tracked is not None:
            state["output_dict_per_obj"][row] = tracked
            state["frames_tracked_per_obj"][row][index] = {"reverse": False}
        for place, prompt in enumerate(as_prompts(given)):
            self._add(index, prompt, first=place == 0)
        predictor.propagate_in_video_preflight(state)
        outputs = state["output_dict_per_obj"].pop(row)  # resetting the state would empty it
        output: dict[str, Any] = outputs["cond_frame_outputs"].get(index) or outputs["non_cond_frame_outputs"][index]
        return output

    def _add(self, index: int, prompt: Prompt, *, first: bool) -> None:
        """Add a prompt to upstream's state, to those that the frame has already unless it is the `first`."""
        state, predictor = self._state, self.predictor
        if prompt.mask is not None:
            # As booleans on the device: upstream would make floats of them here, with four times as much to copy.
            mask = torch.tensor(prompt.mask, dtype=torch.bool).to(self.device)
            predictor.add_new_mask(state, frame_idx=index, obj_id=1, mask=mask)
            return
        points = np.array([click[:2] for click in prompt.clicks], np.float32)
        labels = np.array([click.inside for click in prompt.clicks], np.int32)
        if prompt.box is None:  # the name that packages older than SAM 2.1's have too
            predictor.add_new_points(state, index, 1, points, labels, clear_old_points=first)
            return
        predictor.add_new_points_or_box(state, index, 1, points.reshape(-1, 2), labels, box=prompt.box)

    def _forget(self, group: _Group, index: int) -> None:
        """Drop what no frame after `index` attends to (see SAM2Base._prepare_memory_conditioned_features)."""
        network, following = self.predictor, index + 1
        stride = network.memory_temporal_stride_for_eval
        oldest_memory = (following - 2) // stride * stride - (network.num_maskmem - 3) * stride
        oldest_pointer = following - network.max_obj_ptrs_in_encoder + 1
        for outputs in group.outputs.values():
            if index in outputs:
                outputs[index].pop("pred_masks", None)
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
        pixels = torch.stack([upload(image, self.device) for image in images]).long()
        batch = torch.stack([self._levels[channel][pixels[:, channel]] for channel in range(3)], dim=1)
        return batch, self.predictor.forward_image(batch)


class _Encoded:
    """The features of the frames, in place of the dict `cached_features` in upstream's state.

    `images` are the prepared frames from `first` on. `batch` of them are encoded in one pass, and only the current
    batch is kept. A frame whose features nobody asks for may not be encoded.
    """

    def __init__(self, stream: Sam2Stream, images: Iterator[torch.Tensor], first: int, batch: int) -> None:
        self._stream, self._images, self._following, self._batch = stream, images, first, batch
        self._current: dict[int, tuple[torch.Tensor, dict[str, Any]]] = {}

    def get(self, index: int, default: object = None) -> tuple[torch.Tensor, dict[str, Any]]:
        """Return the image (1, 3, S, S) of a frame and its features; upstream calls this. `index` never decreases."""
        if index not in self._current:
            self._current.clear()
            skipped = index - self._following
            images = list(islice(self._images, skipped, skipped + self._batch))
            self._following = index + len(images)
            pixels, features = self._stream.encode(images)
            for row in range(len(images)):
                one = slice(row, row + 1)
                lists = {key: [level[one] for level in features[key]] for key in ("backbone_fpn", "vision_pos_enc")}
                self._current[index + row] = (pixels[one], lists)
        return self._current[index]


def _fill_holes(predictor: SAM2VideoPredictor, area: int) -> None:
    """Let a predictor fill holes without sam2's CUDA extension, without which upstream only warns and fills none."""
    if not area:
        return
    predictor.fill_hole_area = 0
    track = predictor._run_single_frame_inference

    def track_and_fill(inference_state: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        output, scores = track(inference_state, *arguments, **options)
        scores = without_holes(scores, area)
        return output | {"pred_masks": scores.to(inference_state["storage_device"], non_blocking=True)}, scores

    predictor._run_single_frame_inference = track_and_fill


def _join(outputs: list[dict[str, Any]]) -> dict[str, Any]:
    """Join the outputs of single objects into one batch."""
    if len(outputs) == 1:
        return outputs[0]
    joined = {key: torch.cat([output[key] for output in outputs]) for key in outputs[0] if key != "maskmem_pos_enc"}
    levels = outputs[0]["maskmem_pos_enc"]
    return joined | {"maskmem_pos_enc": [level.expand(len(outputs), -1, -1, -1) for level in levels]}
