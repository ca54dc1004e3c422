"""SAM 2 with a memory rule: the network's steps for one object, whose memories are chosen by the rule."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from vosarena.trackers.memory.base import RECORDS, Box, Choice, Limits, MemoryRule, Path, Selection
from vosarena.trackers.objects import enlarge

if TYPE_CHECKING:
    from sam2.sam2_video_predictor import SAM2VideoPredictor

Memory = dict[str, Any]  # what upstream keeps of a frame: maskmem_features, maskmem_pos_enc, obj_ptr

_ABSENT = -1024.0  # logit of the pixels of an absent object, as in upstream


@dataclass(frozen=True, eq=False)
class _Branch:
    """A path with its memories, and its masks of the last frames: logits (1, 1, h, w), the latest last."""

    path: Path
    memories: dict[int, Memory]
    scores: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class _Features:
    """Features of a frame by level, float (h * w, 1, C), with their positions and their height and width."""

    levels: list[torch.Tensor]
    positions: list[torch.Tensor]
    sizes: list[tuple[int, int]]

    def map(self, level: int) -> torch.Tensor:
        """Return a level as float (1, C, h, w)."""
        return _as_map(self.levels[level], self.sizes[level])


class RuledObject:
    """One object that is tracked by a memory rule. Its memories do not grow with the video.

    Args:
        predictor: The network.
        state: Upstream's state of the video.
        rule: The rule.
        number: Id of the object.
        first: Frame of its prompt.
        memory: Upstream's output for the prompt.
    """

    def __init__(
        self,
        predictor: SAM2VideoPredictor,
        state: dict[str, Any],
        rule: MemoryRule,
        number: int,
        first: int,
        memory: Memory,
    ) -> None:
        self.objects, self.first = [number], first
        self._predictor, self._state, self._rule = predictor, state, rule
        self._limits = Limits(
            predictor.num_maskmem - 1, min(state["num_frames"], predictor.max_obj_ptrs_in_encoder) - 1
        )
        scores = memory.pop("pred_masks")
        self._branches = [_Branch(Path(), {0: memory}, (scores,))]

    def scores(self, back: int) -> torch.Tensor:
        """Return the logits (1, 1, h, w) of the frame so many frames ago, as the best path has them."""
        return self._branches[0].scores[-1 - back].to(self._predictor.device)

    def track(self, index: int) -> None:
        """Track the object in a frame of the video; in that of its prompt nothing is to be done."""
        frame = index - self.first
        if frame == 0:
            return
        features = _Features(*self._predictor._get_image_feature(self._state, index, 1)[2:])
        found = {id(branch): self._propose(branch, frame, features) for branch in set(self._branches)}
        choices = self._rule.choose(
            frame, [branch.path for branch in self._branches], [found[id(branch)] for branch in self._branches]
        )
        grown: dict[tuple[int, int], _Branch] = {}  # equal branches stay one
        branches = []
        for choice in choices:
            branch = self._branches[choice.path]
            key = (id(branch), choice.candidate)
            if key not in grown:
                grown[key] = self._grow(branch, frame, choice, found[id(branch)], features)
            branches.append(grown[key])
        self._branches = branches

    def _propose(self, branch: _Branch, frame: int, features: _Features) -> Proposals:
        selection = self._rule.select(branch.path.records, frame, self._limits)
        tokens = features.levels[-1], features.positions[-1]
        attended = attend(self._predictor, selection, branch.memories, frame, *tokens, self._limits.pointers)
        pixels = _as_map(attended, features.sizes[-1])
        detailed = [features.map(level) for level in range(len(features.levels) - 1)]
        video = (self._state["video_height"], self._state["video_width"])
        return propose(self._predictor, pixels, detailed or None, self._rule.presence, video)

    def _grow(self, branch: _Branch, frame: int, choice: Choice, found: Proposals, features: _Features) -> _Branch:
        records = {**branch.path.records, frame: choice.record}
        kept = self._rule.keep(records, frame, self._limits)
        records = {past: record for past, record in records.items() if past in kept or past > frame - RECORDS}
        memories = {
            past: memory if past in kept else {**memory, "maskmem_features": None}
            for past, memory in branch.memories.items()
            if past in kept or past > frame - self._limits.pointers
        }
        memories[frame] = self._remember(choice, found, features)
        scores = found.logits[:, choice.candidate : choice.candidate + 1].clone().to(self._state["storage_device"])
        path = Path(records, choice.motion, choice.total)
        return _Branch(path, memories, (*branch.scores, scores)[-1 - self._rule.lag :])

    def _remember(self, choice: Choice, found: Proposals, features: _Features) -> Memory:
        large = found.enlarged[:, choice.candidate : choice.candidate + 1]
        if choice.record.anchor:  # as certain as a prompt
            large = torch.where(large > 0, torch.inf, -torch.inf)
        maps, positions = self._predictor._encode_new_memory(
            current_vision_feats=features.levels,
            feat_sizes=features.sizes,
            pred_masks_high_res=large,
            object_score_logits=found.score,
            is_mask_from_pts=False,
        )
        return {
            "maskmem_features": maps.to(torch.bfloat16).to(self._state["storage_device"]),
            "maskmem_pos_enc": self._predictor._get_maskmem_pos_enc(self._state, {"maskmem_pos_enc": positions}),
            "obj_ptr": found.pointer(choice.candidate),
        }


@dataclass(frozen=True)
class Proposals:
    """The masks that the decoder proposes; see Candidates, which it implements.

    Attributes:
        predictor: The network.
        logits: float (1, N, h, w).
        tokens: Output tokens, float (1, N or 1, C).
        quality: Predicted IoU, float (1, N).
        score: Logit that the object is visible, float (1, 1).
        limit: Value of `score` above which it counts as visible.
        size: Height and width of the video.
    """

    predictor: SAM2VideoPredictor
    logits: torch.Tensor
    tokens: torch.Tensor
    quality: torch.Tensor
    score: torch.Tensor
    limit: float
    size: tuple[int, int]

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
        """Logits in the square image of the network, float (1, N, S, S)."""
        side = self.predictor.image_size
        return torch.nn.functional.interpolate(self.logits, (side, side), mode="bilinear", align_corners=False)

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

    def pointer(self, index: int) -> torch.Tensor:
        """Return the pointer that represents a mask in memory, float (1, C)."""
        network = self.predictor
        token = self.tokens[:, index if self.tokens.shape[1] > 1 else 0]
        pointer: torch.Tensor = network.obj_ptr_proj(token)
        if network.pred_obj_scores:
            visible = self.score.sigmoid() if network.soft_no_obj_ptr else (self.score > self.limit).float()
            if network.fixed_no_obj_ptr:
                pointer = visible * pointer
            pointer = pointer + (1 - visible) * network.no_obj_ptr
        return pointer


def _box(columns: NDArray[np.bool_], rows: NDArray[np.bool_]) -> Box | None:
    x, y = np.flatnonzero(columns), np.flatnonzero(rows)
    return (int(x[0]), int(y[0]), int(x[-1]), int(y[-1])) if len(x) else None


def propose(
    network: SAM2VideoPredictor,
    pixels: torch.Tensor,
    detailed: list[torch.Tensor] | None,
    limit: float,
    size: tuple[int, int],
) -> Proposals:
    """Decode the masks of one object without a prompt; three if the network's configuration says so for tracking.

    Args:
        network: The network.
        pixels: Features of the frame after attention, float (1, C, h, w).
        detailed: Features of higher resolution, if the network has them.
        limit: Logit above which the object counts as visible; below, all masks are empty.
        size: Height and width of the video.
    """
    nothing = torch.zeros(1, 1, 2, device=pixels.device), -torch.ones(1, 1, dtype=torch.int32, device=pixels.device)
    sparse, dense = network.sam_prompt_encoder(points=nothing, boxes=None, masks=None)
    logits, quality, tokens, score = network.sam_mask_decoder(
        image_embeddings=pixels,
        image_pe=network.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=network._use_multimask(False, None),
        repeat_image=False,
        high_res_features=detailed,
    )
    if network.pred_obj_scores:
        logits = torch.where((score > limit)[:, None, None], logits, _ABSENT)
    return Proposals(network, logits.float(), tokens, quality, score, limit, size)


def attend(
    network: SAM2VideoPredictor,
    selection: Selection,
    memories: dict[int, Memory],
    frame: int,
    features: torch.Tensor,
    positions: torch.Tensor,
    most_pointers: int,
) -> torch.Tensor:
    """Return the features of a frame after attention to the selected memories: SAM 2's (Ravi et al., 2024).

    Args:
        network: The network.
        selection: What the frame attends to.
        memories: Frame -> memory.
        frame: The frame, counted like those of the memories.
        features: Features of the frame, float (h * w, 1, C).
        positions: Their positions.
        most_pointers: Distance of a pointer that counts as 1.
    """
    coded = [(network.num_maskmem - 1, past) for past in selection.prompts] + list(selection.maps)
    tokens, codes = [], []
    for code, past in coded:
        memory = memories[past]
        tokens.append(_sequence(memory["maskmem_features"].to(features.device)))
        position = _sequence(memory["maskmem_pos_enc"][-1].to(features.device))
        codes.append(position + network.maskmem_tpos_enc[code])
    count = 0
    if network.use_obj_ptrs_in_encoder:
        pointers = [(frame - past, past) for past in selection.prompts] + list(selection.pointers)
        stacked = torch.stack([memories[past]["obj_ptr"] for _, past in pointers])
        distances = torch.tensor([distance for distance, _ in pointers], device=features.device)
        code = _pointer_codes(network, distances / most_pointers)
        split = stacked.shape[-1] // network.mem_dim  # a pointer is as long as several tokens
        tokens.append(stacked.reshape(-1, 1, split, network.mem_dim).permute(0, 2, 1, 3).flatten(0, 1))
        codes.append(code.repeat_interleave(split, dim=0))
        count = len(pointers) * split
    with _weighted_keys(network, selection, tokens):
        attended: torch.Tensor = network.memory_attention(
            curr=[features],
            curr_pos=[positions],
            memory=torch.cat(tokens),
            memory_pos=torch.cat(codes),
            num_obj_ptr_tokens=count,
        )
    return attended


def _as_map(tokens: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return tokens (h * w, 1, C) as a map (1, C, h, w)."""
    return tokens.permute(1, 2, 0).view(1, -1, *size)


def _sequence(maps: torch.Tensor) -> torch.Tensor:
    """Return maps (1, C, h, w) as tokens (h * w, 1, C)."""
    return maps.flatten(2).permute(2, 0, 1)


def _pointer_codes(network: SAM2VideoPredictor, distances: torch.Tensor) -> torch.Tensor:
    """Return codes for the distances of pointers in time, float (N, 1, C)."""
    from sam2.modeling.sam2_utils import get_1d_sine_pe

    if not network.add_tpos_enc_to_obj_ptrs:
        return distances.new_zeros(len(distances), 1, network.mem_dim)
    size = network.hidden_dim if network.proj_tpos_enc_in_obj_ptrs else network.mem_dim
    codes: torch.Tensor = network.obj_ptr_tpos_proj(get_1d_sine_pe(distances, dim=size))
    return codes.unsqueeze(1)


@contextmanager
def _weighted_keys(network: SAM2VideoPredictor, selection: Selection, tokens: list[torch.Tensor]) -> Iterator[None]:
    """Multiply the keys of memories in cross-attention by the weights of a selection."""
    if selection.weights is None:
        yield
        return
    maps, pointers = (torch.tensor(weights, device=tokens[0].device) for weights in selection.weights)
    factors = maps.repeat_interleave(len(tokens[0]))
    if len(tokens) > len(maps):
        factors = torch.cat([factors, pointers.repeat_interleave(len(tokens[-1]) // len(pointers))])

    def multiply(module: torch.nn.Module, arguments: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return arguments, {**named, "k": named["k"] * factors[:, None]}

    with ExitStack() as hooks:
        for layer in network.memory_attention.layers:
            handle = layer.cross_attn_image.register_forward_pre_hook(multiply, with_kwargs=True)
            hooks.callback(handle.remove)
        yield


@contextmanager
def visible_above(network: SAM2VideoPredictor, limit: float) -> Iterator[None]:
    """Let upstream's code, which compares the logit of presence with 0, compare it with another limit."""
    if not network.pred_obj_scores or limit == 0:
        yield
        return
    head = network.sam_mask_decoder.pred_obj_score_head
    handle = head.register_forward_hook(lambda module, arguments, score: score - limit)
    try:
        yield
    finally:
        handle.remove()
