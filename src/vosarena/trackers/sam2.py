"""SAM 2 (Ravi et al., "SAM 2: Segment Anything in Images and Videos", 2024), through the official `sam2` package."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from vosarena.base.errors import MaskError, TrackerError
from vosarena.io.masks import object_ids
from vosarena.predictions.failures import is_out_of_memory
from vosarena.trackers.base import BoolMask, Frame, LabelMap
from vosarena.trackers.streaming import frame_size

if TYPE_CHECKING:
    from vosarena.trackers.sam2_stream import Reduce

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


class Sam2:
    """SAM 2 as a tracker: the masks of upstream's `tools/vos_inference.py`, in constant memory.

    If memory runs out, tracking raises the built-in MemoryError after releasing its tensors; the caller can try again
    in the context `saving_memory`.

    Args:
        config: The network: an upstream name (`configs/sam2/sam2_hiera_l.yaml` or `sam2_hiera_l`), `sam2_demo`, or the
            path of a YAML file.
        weights: File `{"model": state_dict}` that fits `config` in every key and shape.
        image_size: Side of the square that the network sees. The default is the configuration's, 1024 for the official
            ones.
        batch_objects: How many objects that appear in the same frame share one forward pass. More than 1 is faster, and
            may change the last bits.
        encoder_batch: How many frames are encoded in one pass. More than 1 is faster, and may change the last bits.
        compile: Whether to use the package's variant with torch.compile, which may change the last bits. The first
            sequence is slow.
        offload_memory: Whether to keep the memory bank in host memory: slower, less device memory, same masks.
        use_all_masks: Whether to take all masks of an object as prompts, not its first only, as with upstream's
            `--use_all_masks`. The masks of later frames help earlier ones too. Memory grows with their number.
        score_thresh: As upstream: a pixel belongs to an object if its logit is higher. From -10 on, because upstream
            sets the logits of all other objects to that value.
        fill_hole_area: As upstream: fill holes of up to so many pixels in the masks that the network gives, whose sides
            are a quarter of `image_size`; 0 fills none. It is computed on the CPU, for which a GPU has to wait.
        apply_postprocessing: Whether to do what upstream's `--apply_postprocessing` does: `fill_hole_area` is 8 if it
            is not given, unstable masks are exchanged for the best of three, and the memory gets hard prompt masks.
        device: `cpu` or `cuda`.
        precision: `fp32`, `bf16`, `fp16`, or `auto` for upstream's: bfloat16 autocast on CUDA, fp32 on the CPU.

    Raises:
        TrackerError: An option, the configuration or the weights are wrong.
    """

    packages: ClassVar[tuple[str, ...]] = ("sam2", "torch", "pillow")

    def __init__(
        self,
        config: str,
        weights: str,
        image_size: int | None = None,
        batch_objects: int = 1,
        encoder_batch: int = 1,
        compile: bool = False,
        offload_memory: bool = False,
        use_all_masks: bool = False,
        score_thresh: float = 0.0,
        fill_hole_area: int = 0,
        apply_postprocessing: bool = False,
        device: str = "cpu",
        precision: str = "auto",
    ) -> None:
        for name, value in (("batch_objects", batch_objects), ("encoder_batch", encoder_batch)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise TrackerError(f"sam2: {name} is {value!r}; use a number of 1 or more")
        if isinstance(fill_hole_area, bool) or not isinstance(fill_hole_area, int) or fill_hole_area < 0:
            raise TrackerError(f"sam2: fill_hole_area is {fill_hole_area!r}; use a number of pixels, or 0 for none")
        if isinstance(score_thresh, bool) or not isinstance(score_thresh, int | float) or not score_thresh >= -10:
            raise TrackerError(f"sam2: score_thresh is {score_thresh!r}; use a number of -10 or more")
        if precision not in PRECISIONS:
            raise TrackerError(f"sam2: precision is {precision!r}; use one of {', '.join(PRECISIONS)}")
        if device.startswith("cpu") and precision == "fp16":
            raise TrackerError("sam2: precision fp16 needs a CUDA device; use fp32 or bf16 on the CPU")

        import torch

        from vosarena.trackers.sam2_network import build_predictor
        from vosarena.trackers.sam2_stream import Sam2Stream, Settings

        if precision == "auto":
            precision = "bf16" if device.startswith("cuda") else "fp32"
        autocast = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        predictor = build_predictor(
            config,
            weights,
            image_size=image_size,
            compile=compile,
            postprocessing=apply_postprocessing,
            device=device,
        )
        self._stream = Sam2Stream(predictor, autocast, fill_hole_area)
        self._use_all_masks, self._threshold = use_all_masks, float(score_thresh)
        self._settings = Settings(batch_objects, encoder_batch, offload_memory)

    def track(self, frames: Sequence[Frame], prompts: Mapping[int, LabelMap]) -> Iterator[LabelMap]:
        """Yield one label map per frame; see Tracker.track. Overlaps go to the object with the highest logit.

        Raises:
            MaskError: A prompt does not fit its frame, or no prompt has an object.
        """
        from vosarena.trackers.sam2_stream import label_map

        for index, labels in prompts.items():
            if labels.dtype != np.uint8:
                raise MaskError(
                    f"the prompt mask of frame {index} has type {labels.dtype}; "
                    "expected uint8 labels, 255 objects at most"
                )
        split = {
            index: {number: labels == number for number in object_ids(labels)} for index, labels in prompts.items()
        }
        checked = _checked(frames, split, several=self._use_all_masks)
        for _ in range(min(checked)):
            yield np.zeros(frame_size(frames), np.uint8)
        yield from self._run(frames, checked, partial(label_map, threshold=self._threshold))

    def track_objects(
        self, frames: Sequence[Frame], prompts: Mapping[int, Mapping[int, BoolMask]]
    ) -> Iterator[dict[int, BoolMask]]:
        """Track objects whose masks may overlap (SA-V), any number of them.

        Yields:
            For every frame the masks of all objects by id. The mask of an object is empty before it appears.

        Raises:
            MaskError: A prompt does not fit its frame, or no prompt has an object.
        """
        from vosarena.trackers.sam2_stream import separate_masks

        checked = _checked(frames, prompts, several=self._use_all_masks)
        every_object = sorted({number for masks in checked.values() for number in masks})
        empty = np.zeros(frame_size(frames), np.bool_)
        for _ in range(min(checked)):
            yield dict.fromkeys(every_object, empty)
        present: list[int] = []
        reduce = partial(separate_masks, threshold=self._threshold)
        for index, masks in enumerate(self._run(frames, checked, reduce), start=min(checked)):
            present = sorted({*present, *checked.get(index, {})})
            yield dict.fromkeys(every_object, empty) | dict(zip(present, masks, strict=True))

    def _run(
        self, frames: Sequence[Frame], prompts: Mapping[int, Mapping[int, BoolMask]], reduce: Reduce
    ) -> Iterator[np.ndarray]:
        import torch

        failure = ""
        try:
            yield from self._stream.run(frames, prompts, self._settings, reduce)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            failure = str(error).splitlines()[0]
        if failure:  # outside of the handler, where the traceback, and with it the tensors, have been released
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            raise MemoryError(f"sam2: out of memory: {failure}")

    @contextmanager
    def saving_memory(self) -> Iterator[dict[str, Any]]:
        """Use the least device memory until the context ends, to try a sequence again that ran out of memory.

        Yields:
            The options that were changed; empty if nothing is left to save.
        """
        before = self._settings
        saving: dict[str, Any] = {"batch_objects": 1, "encoder_batch": 1, "offload_memory": True}
        self._settings = replace(before, **saving)
        try:
            yield {name: value for name, value in saving.items() if getattr(before, name) != value}
        finally:
            self._settings = before


def _checked(
    frames: Sequence[Frame], prompts: Mapping[int, Mapping[int, BoolMask]], *, several: bool
) -> dict[int, dict[int, BoolMask]]:
    """Return the prompts without empty masks, in order of frames. `several`: an object may have more than one.

    Raises:
        MaskError: They do not fit the frames or each other.
    """
    height, width = frame_size(frames)
    checked: dict[int, dict[int, BoolMask]] = {}
    seen: dict[int, int] = {}
    for index in sorted(prompts):
        if not 0 <= index < len(frames):
            raise MaskError(f"there is a prompt mask for frame {index}, but the sequence has {len(frames)} frames")
        for number, mask in prompts[index].items():
            if mask.shape != (height, width):
                raise MaskError(
                    f"the prompt mask of frame {index}, object {number}, is {' x '.join(map(str, mask.shape[::-1]))} "
                    f"but the frames are {width} x {height}; use masks of the size of the frames"
                )
            if number in seen and not several:
                raise MaskError(
                    f"object {number} has prompt masks in frames {seen[number]} and {index}; "
                    "use only the mask of the first frame where it appears, or the option `use_all_masks`"
                )
            if mask.any():
                checked.setdefault(index, {})[number] = mask
                seen[number] = index
    if not checked:
        raise MaskError("no prompt mask has an object; there is nothing to track")
    return checked
