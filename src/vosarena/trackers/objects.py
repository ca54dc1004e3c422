"""What the trackers of the SAM family share: checked prompts, label maps, separate masks, running out of memory.

Each of them has a stream, which turns frames and prompts into logits of every object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from vosarena.base.errors import MaskError, TrackerError
from vosarena.predictions.failures import is_out_of_memory
from vosarena.trackers.base import BoolMask, Frame, LabelMap
from vosarena.trackers.prompts import ObjectPrompt, as_prompts, by_object
from vosarena.trackers.streaming import frame_size, release_memory

if TYPE_CHECKING:
    import torch

    Reduce = Callable[[Iterator[tuple[int, torch.Tensor]], tuple[int, int]], torch.Tensor]

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


class Stream(Protocol):
    """Turns frames and prompts into logits."""

    def prepare(self, frame: Frame) -> Any:
        """Return what the network needs of a frame; see Tracker."""
        ...

    def run(
        self, frames: Sequence[Frame], prompts: Mapping[int, Mapping[int, ObjectPrompt]], settings: Any, reduce: Reduce
    ) -> Iterator[np.ndarray]:
        """Yield the result of `reduce` for every frame from the first prompt on.

        Args:
            frames: The frames.
            prompts: Frame index -> object id -> bool (H, W), not empty, or prompts. An id that occurs again is
                corrected.
            settings: How to run.
            reduce: Gets pairs of object id and logits, float (H, W) on the device, in the order of the ids, and the
                size (H, W) of the frame; returns a tensor.
        """
        ...


class ObjectTracker:
    """A tracker around a stream. The constructor sets `_stream` and `_settings`, a dataclass.

    If memory runs out, tracking raises the built-in MemoryError after releasing its tensors; the caller can try again
    in the context `saving_memory`.
    """

    name: ClassVar[str]
    """What messages call the tracker."""

    saving: ClassVar[Mapping[str, Any]]
    """The settings that need the least memory."""

    corrects: bool = True
    """Whether prompts of an object that is being tracked correct it."""

    _stream: Stream
    _settings: Any
    _use_all_masks: bool | None = None  # whether an object may have several prompts, None if there is no such option
    _threshold = 0.0  # a pixel belongs to an object if its logit is higher

    def track(
        self, frames: Sequence[Frame], prompts: Mapping[int, LabelMap | Mapping[int, ObjectPrompt]]
    ) -> Iterator[LabelMap]:
        """Yield one label map per frame; see Tracker.track. Overlaps go to the object with the highest logit.

        Raises:
            MaskError: A prompt does not fit its frame, or no prompt has an object.
        """
        checked = self._checked(frames, _split(prompts))
        for _ in range(min(checked)):
            yield np.zeros(frame_size(frames), np.uint8)
        yield from self._run(frames, checked, partial(label_map, threshold=self._threshold))

    @property
    def prepare(self) -> Callable[[Frame], Any]:
        """What is done with a frame before its turn; see Tracker."""
        return self._stream.prepare

    def logits(
        self, frames: Sequence[Frame], prompts: Mapping[int, LabelMap]
    ) -> Iterator[dict[int, np.ndarray[Any, np.dtype[np.float32]]]]:
        """Yield for every frame the logits of the objects that have appeared: float32 (H, W) by id.

        A pixel belongs to an object if its logit is above 0. Errors are those of `track`.
        """
        checked = self._checked(frames, _split(prompts))
        for _ in range(min(checked)):
            yield {}
        present: list[int] = []
        reduce = partial(separate_logits, threshold=self._threshold)
        for index, scores in enumerate(self._run(frames, checked, reduce), start=min(checked)):
            present = sorted({*present, *checked.get(index, {})})
            yield dict(zip(present, scores, strict=True))

    def track_objects(
        self, frames: Sequence[Frame], prompts: Mapping[int, Mapping[int, ObjectPrompt]]
    ) -> Iterator[dict[int, BoolMask]]:
        """Track objects whose masks may overlap (SA-V), any number of them.

        Yields:
            For every frame the masks of all objects by id. The mask of an object is empty before it appears.

        Raises:
            MaskError: A prompt does not fit its frame, or no prompt has an object.
        """
        checked = self._checked(frames, prompts)
        every_object = sorted({number for masks in checked.values() for number in masks})
        empty = np.zeros(frame_size(frames), np.bool_)
        for _ in range(min(checked)):
            yield dict.fromkeys(every_object, empty)
        present: list[int] = []
        reduce = partial(separate_masks, threshold=self._threshold)
        for index, masks in enumerate(self._run(frames, checked, reduce), start=min(checked)):
            present = sorted({*present, *checked.get(index, {})})
            yield dict.fromkeys(every_object, empty) | dict(zip(present, masks, strict=True))

    def _checked(
        self, frames: Sequence[Frame], prompts: Mapping[int, Mapping[int, ObjectPrompt]]
    ) -> dict[int, dict[int, ObjectPrompt]]:
        """Return the prompts without empty masks, in order of frames.

        Raises:
            MaskError: They do not fit the frames or each other.
        """
        size = frame_size(frames)
        checked: dict[int, dict[int, ObjectPrompt]] = {}
        seen: dict[int, int] = {}
        for index in sorted(prompts):
            if not 0 <= index < len(frames):
                raise MaskError(f"there is a prompt mask for frame {index}, but the sequence has {len(frames)} frames")
            for number, given in prompts[index].items():
                is_mask = isinstance(given, np.ndarray)
                for prompt in as_prompts(given):
                    if wrong := prompt.problem(size):
                        kind = "prompt mask" if prompt.mask is not None else "prompt"
                        raise MaskError(f"the {kind} of frame {index}, object {number}, {wrong}")
                if number in seen and is_mask and not self._use_all_masks:
                    also = "" if self._use_all_masks is None else ", or the option `use_all_masks`"
                    raise MaskError(
                        f"object {number} has prompt masks in frames {seen[number]} and {index}; "
                        f"use only the mask of the first frame where it appears{also}"
                    )
                if number in seen and not is_mask and not self.corrects:
                    raise MaskError(
                        f"object {number} has prompts in frames {seen[number]} and {index}, but this model does not "
                        "correct masks; give the prompts of its first frame only"
                    )
                if self._use_all_masks and not is_mask:
                    raise MaskError("the option `use_all_masks` takes masks only; leave it out for boxes and clicks")
                if any(prompt.mask is None or prompt.mask.any() for prompt in as_prompts(given)):
                    checked.setdefault(index, {})[number] = given
                    seen[number] = index
        if not checked:
            raise MaskError("no prompt mask has an object; there is nothing to track")
        return checked

    def _run(
        self, frames: Sequence[Frame], prompts: Mapping[int, Mapping[int, ObjectPrompt]], reduce: Reduce
    ) -> Iterator[np.ndarray]:
        failure = ""
        try:
            yield from self._stream.run(frames, prompts, self._settings, reduce)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            failure = str(error).splitlines()[0]
        if failure:  # outside of the handler, where the traceback, and with it the tensors, have been released
            release_memory()
            raise MemoryError(f"{self.name}: out of memory: {failure}")

    @contextmanager
    def saving_memory(self) -> Iterator[dict[str, Any]]:
        """Use the least device memory until the context ends, to try a sequence again that ran out of memory.

        Yields:
            The options that were changed; empty if nothing is left to save.
        """
        before = self._settings
        self._settings = replace(before, **self.saving)
        try:
            yield {name: value for name, value in self.saving.items() if getattr(before, name) != value}
        finally:
            self._settings = before


def autocast_of(tracker: str, precision: str, device: str) -> torch.dtype | None:
    """Return the type of autocast for a precision, None for that of the weights.

    Args:
        tracker: Name of the tracker, for messages.
        precision: One of `PRECISIONS`; `auto` is bf16 on CUDA and fp32 on other devices.
        device: `cpu`, `cuda` or `mps`.

    Raises:
        TrackerError: There is no such precision, or not on this device.
    """
    import torch

    if precision not in PRECISIONS:
        raise TrackerError(f"{tracker}: precision is {precision!r}; use one of {', '.join(PRECISIONS)}")
    if device.startswith("cpu") and precision == "fp16":
        raise TrackerError(f"{tracker}: precision fp16 needs a CUDA device; use fp32 or bf16 on the CPU")
    if precision == "auto":
        precision = "bf16" if device.startswith("cuda") else "fp32"
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def check_count(tracker: str, option: str, value: object) -> None:
    """Raise TrackerError if the value of an option is not a number of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise TrackerError(f"{tracker}: {option} is {value!r}; use a number of 1 or more")


def _split(prompts: Mapping[int, Any]) -> dict[int, Mapping[int, ObjectPrompt]]:
    """Return the prompts of each object. Raises MaskError if labels are not uint8."""
    for index, labels in prompts.items():
        if isinstance(labels, np.ndarray) and labels.dtype != np.uint8:
            raise MaskError(
                f"the prompt mask of frame {index} has type {labels.dtype}; expected uint8 labels, 255 objects at most"
            )
    return {index: by_object(given) for index, given in prompts.items()}


def label_map(
    scores: Iterator[tuple[int, torch.Tensor]], size: tuple[int, int], threshold: float = 0.0
) -> torch.Tensor:
    """Return uint8 (H, W): the object with the highest logit above the threshold, of equals the lowest id."""
    import torch

    best = labels = None
    for number, score in scores:
        if best is None or labels is None:
            best = torch.full_like(score, threshold)
            labels = torch.zeros(size, dtype=torch.uint8, device=score.device)
        labels.masked_fill_(score > best, number)
        best = torch.maximum(best, score)
    assert labels is not None
    return labels


def separate_masks(
    scores: Iterator[tuple[int, torch.Tensor]], size: tuple[int, int], threshold: float = 0.0
) -> torch.Tensor:
    """Return bool (N, H, W) in the order of the ids; masks may overlap (upstream's --per_obj_png_file)."""
    import torch

    return torch.stack([score > threshold for _, score in scores])


def separate_logits(
    scores: Iterator[tuple[int, torch.Tensor]], size: tuple[int, int], threshold: float = 0.0
) -> torch.Tensor:
    """Return float32 (N, H, W) in the order of the ids: how far the logits are above the threshold."""
    import torch

    return torch.stack([score.float() - threshold for _, score in scores])


def enlarge(scores: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return logits (1, 1, h, w) in the size of the video, (H, W), resized as in upstream."""
    import torch

    if scores.shape[-2:] != size:
        scores = torch.nn.functional.interpolate(scores, size=size, mode="bilinear", align_corners=False)
    return scores[0, 0]
