"""Memory rules with transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from vosarena.trackers.memory.base import Limits, MemoryRule, Selection
from vosarena.trackers.prompts import ObjectPrompt
from vosarena.trackers.ruled import ABSENT, Memory, Proposals, RuledVideo, visible_above, weighted_keys


class SessionVideo(RuledVideo):
    """A video in transformers; see RuledVideo.

    Args:
        network: The network.
        session: A session of the video, in which prompts are computed one by one.
        rule: The rule.
        add: Gives the session the masks of objects in a frame.
    """

    def __init__(
        self, network: Any, session: Any, rule: MemoryRule, add: Callable[[Any, int, Mapping[int, ObjectPrompt]], None]
    ) -> None:
        pointers = min(session.num_frames, network.config.max_object_pointers_in_encoder)
        size = (session.video_height, session.video_width)
        limits = Limits(network.num_maskmem - 1, pointers - 1)
        super().__init__(rule, limits, size, network.device, session.inference_state_device)
        self._network, self._session, self._add = network, session, add

    def prompt(self, index: int, given: ObjectPrompt) -> Memory:
        """Return the library's output for the prompt of an object, as if there were no others."""
        self._session.reset_tracking_data()
        self._add(self._session, index, {1: given})
        with visible_above(self._network.mask_decoder, self.rule.presence):
            self._network(self._session, frame_idx=index)
        memory: Memory = self._session.output_dict_per_obj[0]["cond_frame_outputs"][index]
        return memory

    def propose(self, index: int, selection: Selection, memories: Mapping[int, Memory], frame: int) -> Proposals:
        """Attend to memories and decode all masks, as `_single_frame_forward` does."""
        network = self._network
        levels, positions = network._prepare_vision_features(self._session, index, 1)  # float (h * w, 1, C)
        attended = self._attend(levels[-1], positions[-1], selection, memories, frame)
        maps = [
            tokens.permute(1, 2, 0).view(1, -1, *size)
            for tokens, size in zip((*levels[:-1], attended), network.backbone_feature_sizes, strict=True)
        ]
        point = torch.zeros(1, 1, 1, 2, dtype=attended.dtype, device=attended.device)
        nothing = -torch.ones(1, 1, 1, dtype=torch.int32, device=attended.device)
        sparse, dense = network.prompt_encoder(
            input_points=point, input_labels=nothing, input_boxes=None, input_masks=None
        )
        logits, quality, tokens, score = network.mask_decoder(
            image_embeddings=maps[-1],
            image_positional_embeddings=network.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=network._use_multimask(False, None),
            high_resolution_features=maps[:-1],
        )
        logits = torch.where((score > self.rule.presence)[:, None, None], logits, ABSENT)
        return Proposals(logits[:, 0], tokens[:, 0], quality[:, 0], score[:, 0], network.image_size, self.size)

    def remember(self, index: int, found: Proposals, candidate: int, *, sure: bool) -> Memory:
        """Return the memory of a mask, with the library's names."""
        network = self._network
        levels, _ = network._prepare_vision_features(self._session, index, 1)
        features, positions = network._encode_new_memory(
            current_vision_feats=levels[-1],
            pred_masks_high_res=found.enlarged[:, candidate : candidate + 1],
            object_score_logits=found.score[:, None],
            is_mask_from_pts=sure,
        )
        pointer = network.object_pointer_proj(found.token(candidate)[:, None])
        visible = (found.score > self.rule.presence)[..., None].to(pointer.dtype)
        pointer = visible * pointer + (1 - visible) * network.no_object_pointer
        return {"maskmem_features": features, "maskmem_pos_enc": positions, "object_pointer": pointer}

    def _attend(
        self,
        features: torch.Tensor,
        places: torch.Tensor,
        selection: Selection,
        memories: Mapping[int, Memory],
        frame: int,
    ) -> torch.Tensor:
        """Return the features (h * w, 1, C) after attention, as `_prepare_memory_conditioned_features` does."""
        network = self._network
        maps = [(0, memories[past]) for past in selection.prompts]  # 0 stands for a prompt
        maps += [(code + 1, memories[past]) for code, past in selection.maps]
        tokens, codes = network._build_memory_attention_inputs(maps, features.device)
        pointers = [(frame - past, past) for past in selection.prompts] + list(selection.pointers)
        pointer_tokens, pointer_codes = network._process_object_pointers(
            [distance for distance, _ in pointers],
            [memories[past]["object_pointer"] for _, past in pointers],
            self.limits.pointers + 1,
            1,
            network.hidden_dim,
            features.device,
        )
        options = {"num_spatial_memory_tokens": len(tokens)} if hasattr(network, "spatial_perceiver") else {}
        with weighted_keys(network, selection, len(tokens[0]), len(pointer_tokens) // len(pointers)):
            attended: torch.Tensor = network.memory_attention(
                current_vision_features=features,
                current_vision_position_embeddings=places,
                memory=torch.cat([*tokens, pointer_tokens]).to(self._session.dtype),
                memory_posision_embeddings=torch.cat([*codes, pointer_codes]),
                num_object_pointer_tokens=len(pointer_tokens),
                **options,
            )
        return attended[0].transpose(0, 1)  # from (1, 1, h * w, C)
