"""Memory rules with the package sam2."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from vosarena.trackers.memory.base import Limits, MemoryRule, Selection
from vosarena.trackers.prompts import ObjectPrompt
from vosarena.trackers.ruled import ABSENT, Memory, Proposals, RuledVideo, visible_above, weighted_keys

if TYPE_CHECKING:
    from sam2.sam2_video_predictor import SAM2VideoPredictor


class Sam2Video(RuledVideo):
    """A video in the package; see RuledVideo.

    Args:
        predictor: The network.
        state: Upstream's state of the video.
        rule: The rule.
        prompt: Returns upstream's memory of the mask of an object in a frame.
        holes: Holes of up to so many pixels are filled in what is shown, as upstream does.
    """

    def __init__(
        self,
        predictor: SAM2VideoPredictor,
        state: dict[str, Any],
        rule: MemoryRule,
        prompt: Callable[[int, ObjectPrompt], Memory],
        holes: int,
    ) -> None:
        pointers = min(state["num_frames"], predictor.max_obj_ptrs_in_encoder)
        size = (state["video_height"], state["video_width"])
        limits = Limits(predictor.num_maskmem - 1, pointers - 1)
        super().__init__(rule, limits, size, predictor.device, state["storage_device"])
        self._predictor, self._state, self._prompt, self._holes = predictor, state, prompt, holes

    def prompt(self, index: int, given: ObjectPrompt) -> Memory:
        """Return upstream's memory of the prompt of an object."""
        with visible_above(self._predictor.sam_mask_decoder, self.rule.presence):
            return self._prompt(index, given)

    def _features(self, index: int) -> tuple[list[torch.Tensor], list[torch.Tensor], list[tuple[int, int]]]:
        """Return features and their positions by level, float (h * w, 1, C), and height and width of the levels."""
        levels, positions, sizes = self._predictor._get_image_feature(self._state, index, 1)[2:]
        return levels, positions, sizes

    def propose(self, index: int, selection: Selection, memories: Mapping[int, Memory], frame: int) -> Proposals:
        """Attend to memories and decode; three masks if the network's configuration says so for tracking."""
        network = self._predictor
        levels, positions, sizes = self._features(index)
        attended = self._attend(levels[-1], positions[-1], selection, memories, frame)
        maps = [
            tokens.permute(1, 2, 0).view(1, -1, *size)
            for tokens, size in zip((*levels[:-1], attended), sizes, strict=True)
        ]
        point = (
            torch.zeros(1, 1, 2, device=attended.device),
            -torch.ones(1, 1, dtype=torch.int32, device=attended.device),
        )
        sparse, dense = network.sam_prompt_encoder(points=point, boxes=None, masks=None)
        logits, quality, tokens, score = network.sam_mask_decoder(
            image_embeddings=maps[-1],
            image_pe=network.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=network._use_multimask(False, None),
            repeat_image=False,
            high_res_features=maps[:-1] or None,
        )
        if network.pred_obj_scores:
            logits = torch.where((score > self.rule.presence)[:, None, None], logits, ABSENT)
        return Proposals(logits.float(), tokens, quality, score, network.image_size, self.size, self._holes)

    def remember(self, index: int, found: Proposals, candidate: int, *, sure: bool) -> Memory:
        """Return the memory of a mask, with upstream's names."""
        large = found.enlarged[:, candidate : candidate + 1]
        if sure:
            large = torch.where(large > 0, torch.inf, -torch.inf)
        levels, _, sizes = self._features(index)
        maps, positions = self._predictor._encode_new_memory(
            current_vision_feats=levels,
            feat_sizes=sizes,
            pred_masks_high_res=large,
            object_score_logits=found.score,
            is_mask_from_pts=False,
        )
        return {
            "maskmem_features": maps.to(torch.bfloat16),
            "maskmem_pos_enc": self._predictor._get_maskmem_pos_enc(self._state, {"maskmem_pos_enc": positions}),
            "obj_ptr": self._pointer(found, candidate),
        }

    def _pointer(self, found: Proposals, candidate: int) -> torch.Tensor:
        network = self._predictor
        pointer: torch.Tensor = network.obj_ptr_proj(found.token(candidate))
        if network.pred_obj_scores:
            visible = found.score.sigmoid() if network.soft_no_obj_ptr else (found.score > self.rule.presence).float()
            if network.fixed_no_obj_ptr:
                pointer = visible * pointer
            pointer = pointer + (1 - visible) * network.no_obj_ptr
        return pointer

    def _attend(
        self,
        features: torch.Tensor,
        places: torch.Tensor,
        selection: Selection,
        memories: Mapping[int, Memory],
        frame: int,
    ) -> torch.Tensor:
        """Return the features (h * w, 1, C) after attention to the selected memories: SAM 2's (Ravi et al., 2024)."""
        network = self._predictor
        tokens, codes = [], []
        for code, past in [(network.num_maskmem - 1, past) for past in selection.prompts] + list(selection.maps):
            tokens.append(_sequence(memories[past]["maskmem_features"].to(features.device)))
            position = _sequence(memories[past]["maskmem_pos_enc"][-1].to(features.device))
            codes.append(position + network.maskmem_tpos_enc[code])
        split, count = network.hidden_dim // network.mem_dim, 0  # a pointer is as long as several tokens
        if network.use_obj_ptrs_in_encoder:
            pointers = [(frame - past, past) for past in selection.prompts] + list(selection.pointers)
            stacked = torch.stack([memories[past]["obj_ptr"] for _, past in pointers])
            tokens.append(stacked.reshape(-1, 1, split, network.mem_dim).permute(0, 2, 1, 3).flatten(0, 1))
            distances = torch.tensor([distance for distance, _ in pointers], device=features.device)
            codes.append(_pointer_codes(network, distances / self.limits.pointers).repeat_interleave(split, dim=0))
            count = len(tokens[-1])
        with weighted_keys(network, selection, len(tokens[0]), split if count else 0):
            attended: torch.Tensor = network.memory_attention(
                curr=[features],
                curr_pos=[places],
                memory=torch.cat(tokens),
                memory_pos=torch.cat(codes),
                num_obj_ptr_tokens=count,
            )
        return attended


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
