"""Objects whose memories are chosen by a rule, whatever the implementation of the network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from vosarena.trackers.memory.base import RECORDS, Box, Choice, Limits, MemoryRule, Path, Selection
from vosarena.trackers.objects import enlarge
from vosarena.trackers.prompts import ObjectPrompt

if TYPE_CHECKING:
    from vosarena.trackers.objects import Reduce

Memory = dict[str, Any]  # what sam2 or transformers keep of a frame: a pointer, and as MAP and MASKS
MAP = ("maskmem_features", "maskmem_pos_enc")
MASKS = ("pred_masks", "high_res_masks")  # no later frame reads them
ABSENT = -1024.0  # logit of the pixels of an absent object


@dataclass(frozen=True)
class Proposals:
    """The masks that the decoder proposes; see Candidates, which it implements.

    Attributes:
        logits: float (1, N, h, w).
        tokens: Output tokens, float (1, N or 1, C).
        quality: Predicted IoU, float (1, N).
        score: Logit that the object is visible, float (1, 1).
        side: Side in pixels of the square image of the network.
        size: Height and width of the video.
        holes: Holes of up to so many pixels are filled in what is shown.
    """

    logits: torch.Tensor
    tokens: torch.Tensor
    quality: torch.Tensor
    score: torch.Tensor
    side: int
    size: tuple[int, int]
    holes: int = 0

    @cached_property
    def ious(self) -> NDArray[np.float32]:
        """Predicted IoU, float32 (N,)."""
        return self.quality[0].float().cpu().numpy()

    @cached_property
    def presence(self) -> float:
        """Logit that the object is visible."""
        return self.score.item()

    @cached_property
    def enlarged(self) -> torch.Tensor:
        """Logits in the square image of the network, (1, N, S, S)."""
        size = (self.side, self.side)
        large = torch.nn.functional.interpolate(self.logits.float(), size, mode="bilinear", align_corners=False)
        return large.to(self.logits.dtype)

    def boxes(self) -> list[Box | None]:
        """Return the boxes in the square image of the network."""
        inside = self.enlarged[0] > 0
        columns, rows = inside.any(dim=1).cpu().numpy(), inside.any(dim=2).cpu().numpy()
        return [_box(across, down) for across, down in zip(columns, rows, strict=True)]

    def mask(self, index: int) -> NDArray[np.bool_]:
        """Return a mask in the size of the video."""
        return (enlarge(self.logits[:, index : index + 1], self.size) > 0).cpu().numpy()

    def is_empty(self, index: int) -> bool:
        """Return whether a mask has no pixels in the resolution of the decoder."""
        return not bool((self.logits[0, index] > 0).any())

    def confidence(self, index: int) -> float:
        """Return the mean probability of the pixels of a mask, NaN for an empty one."""
        logits = self.logits[0, index]
        return logits[logits > 0].sigmoid().mean().item()

    def token(self, index: int) -> torch.Tensor:
        """Return the output token of a mask, float (1, C)."""
        return self.tokens[:, index if self.tokens.shape[1] > 1 else 0]

    def shown(self, index: int) -> torch.Tensor:
        """Return the logits of a mask as they are shown, (1, 1, h, w)."""
        logits = self.logits[:, index : index + 1].clone()
        return without_holes(logits, self.holes) if self.holes else logits


class RuledVideo(ABC):
    """A video whose objects are tracked by a memory rule, each by itself, by the code of an implementation.

    Args:
        rule: The rule.
        limits: How many memories the network attends to.
        size: Height and width of the video.
        device: Where the network is.
        storage: Where maps and masks are kept.
    """

    def __init__(
        self, rule: MemoryRule, limits: Limits, size: tuple[int, int], device: torch.device, storage: torch.device
    ) -> None:
        self.rule, self.limits, self.size, self.device, self.storage = rule, limits, size, device, storage

    @abstractmethod
    def prompt(self, index: int, given: ObjectPrompt) -> Memory:
        """Return the memory of the prompt of an object, with its logits as `pred_masks`."""

    @abstractmethod
    def propose(self, index: int, selection: Selection, memories: Mapping[int, Memory], frame: int) -> Proposals:
        """Attend to memories and decode the masks of an object in a frame, without a prompt.

        Args:
            index: The frame.
            selection: What to attend to.
            memories: Frame, counted from the prompt -> memory.
            frame: The frame, counted in the same way.
        """

    @abstractmethod
    def remember(self, index: int, found: Proposals, candidate: int, *, sure: bool) -> Memory:
        """Return the memory of a mask in a frame. `sure`: it is as certain as a prompt."""

    def run(
        self,
        indices: range,
        prompts: Mapping[int, Mapping[int, ObjectPrompt]],
        precision: Callable[[], AbstractContextManager[Any]],
        reduce: Reduce,
    ) -> Iterator[torch.Tensor]:
        """Yield the result of `reduce` for every frame, as many frames late as the rule wants; see objects.Stream.

        Args:
            indices: The frames, from the first prompt on.
            prompts: Frame -> object id -> its prompt.
            precision: Makes the context in which the network runs.
            reduce: See objects.Stream.
        """
        objects: list[_Object] = []
        for index in range(indices.start, indices.stop + self.rule.lag):
            with torch.inference_mode(), precision():
                if index in indices:
                    self._track(objects, index, prompts.get(index, {}))
                shown, last = index - self.rule.lag, min(index, indices[-1])
                result = reduce(self._scores(objects, shown, last), self.size) if shown in indices else None
            if result is not None:
                yield result

    def _track(self, objects: list[_Object], index: int, new: Mapping[int, ObjectPrompt]) -> None:
        for one in objects:
            one.track(index)
        objects += [_Object(self, number, index, self.prompt(index, given)) for number, given in new.items()]
        objects.sort(key=lambda one: one.number)

    def _scores(self, objects: Sequence[_Object], shown: int, last: int) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield the logits of the objects in frame `shown` when `last` is the last one that was tracked."""
        for one in objects:
            if one.first <= shown:
                yield one.number, enlarge(one.scores(last - shown).to(self.device), self.size)


@dataclass(frozen=True, eq=False)
class _Branch:
    """A path with its memories, and its masks of the last frames: logits (1, 1, h, w), the latest last."""

    path: Path
    memories: dict[int, Memory]
    scores: tuple[torch.Tensor, ...]


class _Object:
    """One object of a video, and the frame of its prompt. Its memories do not grow with the video."""

    def __init__(self, video: RuledVideo, number: int, first: int, memory: Memory) -> None:
        self.number, self.first = number, first
        self._video, self._rule, self._limits = video, video.rule, video.limits
        self._branches = [_Branch(Path(), {0: self._stored(memory)}, (memory["pred_masks"].to(video.storage),))]

    def scores(self, back: int) -> torch.Tensor:
        """Return the logits (1, 1, h, w) of the frame so many frames ago, as the best path has them."""
        return self._branches[0].scores[-1 - back]

    def track(self, index: int) -> None:
        """Track the object in a frame of the video after its prompt."""
        frame = index - self.first
        found = {id(branch): self._propose(branch, index) for branch in set(self._branches)}
        choices = self._rule.choose(
            frame, [branch.path for branch in self._branches], [found[id(branch)] for branch in self._branches]
        )
        grown: dict[tuple[int, int], _Branch] = {}  # equal branches stay one
        branches = []
        for choice in choices:
            branch = self._branches[choice.path]
            key = (id(branch), choice.candidate)
            if key not in grown:
                grown[key] = self._grow(branch, index, choice, found[id(branch)])
            branches.append(grown[key])
        self._branches = branches

    def _propose(self, branch: _Branch, index: int) -> Proposals:
        frame = index - self.first
        selection = self._rule.select(branch.path.records, frame, self._limits)
        return self._video.propose(index, selection, branch.memories, frame)

    def _grow(self, branch: _Branch, index: int, choice: Choice, found: Proposals) -> _Branch:
        frame = index - self.first
        records = {**branch.path.records, frame: choice.record}
        kept = self._rule.keep(records, frame, self._limits)
        records = {past: record for past, record in records.items() if past in kept or past > frame - RECORDS}
        memories = {
            past: memory if past in kept else {key: memory[key] for key in memory.keys() - MAP}
            for past, memory in branch.memories.items()
            if past in kept or past > frame - self._limits.pointers
        }
        memory = self._video.remember(index, found, choice.candidate, sure=choice.record.anchor)
        memories[frame] = self._stored(memory)
        scores = found.shown(choice.candidate).to(self._video.storage)
        path = Path(records, choice.motion, choice.total)
        return _Branch(path, memories, (*branch.scores, scores)[-1 - self._rule.lag :])

    def _stored(self, memory: Memory) -> Memory:
        """Return a memory without its masks, and with its map where maps are kept."""
        return {
            key: value.to(self._video.storage) if key in MAP and isinstance(value, torch.Tensor) else value
            for key, value in memory.items()
            if key not in MASKS
        }


@contextmanager
def weighted_keys(network: Any, selection: Selection, a_map: int, a_pointer: int) -> Iterator[None]:
    """Multiply the keys of memories in cross-attention by the weights of a selection, if it has some.

    Args:
        network: The network.
        selection: The selection.
        a_map: How many tokens a map has.
        a_pointer: How many tokens a pointer has.
    """
    if selection.weights is None:
        yield
        return
    maps, pointers = (torch.tensor(weights) for weights in selection.weights)
    factors = torch.cat([maps.repeat_interleave(a_map), pointers.repeat_interleave(a_pointer)])[:, None]

    def multiply(module: torch.nn.Module, arguments: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        name = "k" if "k" in named else "key"
        return arguments, {**named, name: named[name] * factors.to(named[name].device)}

    with ExitStack() as hooks:
        for layer in network.memory_attention.layers:
            hooks.callback(layer.cross_attn_image.register_forward_pre_hook(multiply, with_kwargs=True).remove)
        yield


@contextmanager
def visible_above(decoder: torch.nn.Module, limit: float) -> Iterator[None]:
    """Let code that compares the logit of presence, which a decoder gives, with 0 compare it with another limit."""
    head = getattr(decoder, "pred_obj_score_head", None)
    if head is None or limit == 0:
        yield
        return
    handle = head.register_forward_hook(lambda module, arguments, score: score - limit)
    try:
        yield
    finally:
        handle.remove()


def without_holes(scores: torch.Tensor, area: int) -> torch.Tensor:
    """Return logits (N, 1, h, w) with 0.1 in holes, as sam2/utils/misc.py (fill_holes_in_mask_scores).

    A hole is up to `area` pixels of background, connected by sides or corners, whose logits are not above 0.
    """
    holes = np.zeros(scores.shape, np.bool_)
    for background, hole in zip((scores <= 0).cpu().numpy(), holes, strict=True):
        _, labels, statistics, _ = cv2.connectedComponentsWithStats(background[0].astype(np.uint8), connectivity=8)
        small = statistics[:, cv2.CC_STAT_AREA] <= area
        small[0] = False  # label 0 is the foreground
        hole[0] = small[labels]
    return scores.masked_fill(torch.from_numpy(holes).to(scores.device), 0.1)


def _box(columns: NDArray[np.bool_], rows: NDArray[np.bool_]) -> Box | None:
    x, y = np.flatnonzero(columns), np.flatnonzero(rows)
    return (int(x[0]), int(y[0]), int(x[-1]), int(y[-1])) if len(x) else None
