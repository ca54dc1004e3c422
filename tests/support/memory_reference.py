"""Memory rules as plain loops over upstream's own network, one object at a time. Every memory of the video is kept.

Upstream's `_prepare_memory_conditioned_features` is served what the rule selects instead of the frames it asks for.
"""

import contextlib
import math

import cv2
import numpy as np
import torch


class Plain:
    """A video with the prompt of one object; subclasses are the rules."""

    def __init__(self, predictor, state, start, mask):
        predictor.reset_state(state)
        predictor.add_new_mask(state, start, 1, mask)
        predictor.propagate_in_video_preflight(state)
        self.network, self.state, self.start = predictor, state, start
        self.prompt = state["output_dict_per_obj"][0]["cond_frame_outputs"][start]
        self.size = (state["video_height"], state["video_width"])
        self.events = set()  # what happened, so that a test can tell that the rule had something to decide

    @torch.inference_mode()
    def masks(self):
        """Bool (T, H, W), from the prompt on."""
        first = self.prompt["pred_masks"]
        tracked = self.track(range(self.start + 1, self.state["num_frames"]))
        return torch.stack([self.enlarge(logits) > 0 for logits in [first, *tracked]]).numpy()

    def enlarge(self, logits):
        return torch.nn.functional.interpolate(logits, self.size, mode="bilinear", align_corners=False)[0, 0]

    def look(self, index, outputs):
        """All candidates of a frame after attention to `outputs`, which is upstream's dictionary."""
        network = self.network
        _, _, features, positions, sizes = network._get_image_feature(self.state, index, 1)
        attended = network._prepare_memory_conditioned_features(
            frame_idx=index,
            is_init_cond_frame=False,
            current_vision_feats=features[-1:],
            current_vision_pos_embeds=positions[-1:],
            feat_sizes=sizes[-1:],
            output_dict=outputs,
            num_frames=self.state["num_frames"],
        )
        detailed = [f.permute(1, 2, 0).view(1, f.size(2), *s) for f, s in zip(features[:-1], sizes[:-1], strict=True)]
        several = network._use_multimask(False, None)
        forward, proposed, found = network.sam_mask_decoder.forward, [], []
        network.sam_mask_decoder.forward = lambda **named: proposed.extend(forward(**named)) or proposed
        network._forward_sam_heads(attended, high_res_features=detailed, multimask_output=several)
        logits, ious, tokens, score = proposed
        for number, iou in enumerate(ious[0].tolist()):
            rigged = torch.arange(ious.shape[1])[None] == number  # upstream takes the one with the highest
            network.sam_mask_decoder.forward = lambda rigged=rigged, **named: (logits, rigged.float(), tokens, score)
            heads = network._forward_sam_heads(attended, high_res_features=detailed, multimask_output=several)
            found.append({"pred_masks": heads[3], "high": heads[4], "obj_ptr": heads[5], "iou": iou, "score": score})
        network.sam_mask_decoder.forward = forward
        return found

    def remember(self, index, candidate, certain=False):
        """The candidate with its memory. certain: of its binary mask, as upstream does after clicks."""
        self.network.binarize_mask_from_pts_for_mem_enc = certain
        features, positions = self.network._run_memory_encoder(
            self.state, index, 1, candidate["high"], candidate["score"], is_mask_from_pts=certain
        )
        self.network.binarize_mask_from_pts_for_mem_enc = False
        return candidate | {"maskmem_features": features, "maskmem_pos_enc": positions}

    def serve(self, index, prompts, maps, pointers):
        """Upstream's dictionary. maps: oldest first, for the last places; pointers: distance -> output."""
        return {"cond_frame_outputs": prompts, "non_cond_frame_outputs": _Served(self.network, index, maps, pointers)}


class _Served:
    """Upstream asks for the frames of its maps first, then for those of its pointers."""

    def __init__(self, network, index, maps, pointers):
        self.index, self.maps, self.pointers, self.left = index, maps, pointers, network.num_maskmem - 1

    def get(self, frame, default=None):
        distance = self.index - frame
        self.left -= 1
        if self.left >= 0:
            return self.maps[-distance] if distance <= len(self.maps) else None
        return self.pointers.get(distance)


def best(found):
    return max(found, key=lambda candidate: candidate["iou"])


class Rcms(Plain):
    def track(self, indices):
        outputs = {"cond_frame_outputs": {self.start: self.prompt}, "non_cond_frame_outputs": {}}
        seen = outputs["non_cond_frame_outputs"]
        before = True
        for index in indices:
            seen[index] = self.remember(index, best(self.look(index, outputs)))
            logits = seen[index]["pred_masks"]
            inside = logits.sigmoid()[logits > 0]
            sure = seen[index]["score"].sigmoid().item() * seen[index]["iou"]
            seen[index]["quality"] = sure * inside.mean().item() if len(inside) else 0
            if before and seen[index]["score"].item() <= 0:
                before = False
                good = [past for past in sorted(seen, reverse=True) if seen[past]["quality"] > 0.6]
                for past in good[:4]:
                    outputs["cond_frame_outputs"][past] = seen.pop(past)
                    self.events.add("promoted")
                if len(good) > 4:
                    self.events.add("chosen")
            yield logits


class Dam(Plain):
    def track(self, indices):
        every, sizes, anchors, latest = {0: self.prompt}, [], [], None
        for index in indices:
            frame = index - self.start
            usable = [a for a in anchors if a < frame - 1]
            prompts = ([usable[-1]] if usable else []) + [0]
            prompts += sorted((a for a in usable if a not in prompts), reverse=True)[: 4 - len(prompts)]
            visible = [f for f in range(1, frame) if (every[f]["pred_masks"] > 0).any()]
            maps = []
            for f in reversed(visible):
                if f not in anchors or f == frame - 1:
                    maps.append(f)
                    break
            for f in range(frame // 5 * 5, 0, -5):
                if f in visible and f not in anchors and f < maps[0]:
                    maps.append(f)
            maps = maps[: self.network.num_maskmem - len(prompts)]
            pointers = {
                d: every[frame - d] for d in range(1, frame) if frame - d in visible and frame - d not in prompts
            }
            found = self.look(
                index,
                self.serve(
                    index, {self.start + f: every[f] for f in prompts}, [every[f] for f in reversed(maps)], pointers
                ),
            )
            chosen = best(found)
            mask = (self.enlarge(chosen["pred_masks"]) > 0).numpy()
            sizes.append(int(mask.sum()))
            usual = np.median([size for size in sizes[-300:] if size][-10:] or [1])
            anchor = frame > 1 and chosen["iou"] > 0.8 and sizes[-1] > 0 and 0.8 <= sizes[-1] / usual <= 1.2
            anchor = anchor and (latest is None or frame - latest > 5)
            others = [(self.enlarge(c["pred_masks"]) > 0).numpy() for c in found if c is not chosen]
            anchor = bool(anchor and min((_overlap(mask, other) for other in others), default=1) <= 0.7)
            if anchor:
                latest = frame
                anchors.append(frame)
            if frame - 1 not in visible and frame > 1:
                self.events.add("absent")
            every[frame] = self.remember(index, chosen, certain=anchor)
            self.events |= {f"{len(anchors)} anchors"}
            yield chosen["pred_masks"]


def _overlap(mask, other):
    """IoU of the boxes of a mask, and of it together with the largest part that only the other one has."""
    count, parts = cv2.connectedComponents((other & ~mask).astype(np.uint8), connectivity=8)
    if count == 1:
        return 1
    largest = max(range(1, count), key=lambda part: (parts == part).sum())
    rows, columns = np.nonzero(mask)
    all_rows, all_columns = np.nonzero(mask | (parts == largest))
    return (np.ptp(rows) + 1) * (np.ptp(columns) + 1) / ((np.ptp(all_rows) + 1) * (np.ptp(all_columns) + 1))


class Long(Plain):
    """The result is the best path's after the last frame."""

    def track(self, indices):
        paths = [(0.0, {0: self.prompt})] * 3
        for index in indices:
            frame = index - self.start
            looked = {}
            for _, every in paths:
                if id(every) not in looked:
                    looked[id(every)] = self.look_weighted(index, frame, every)
            if frame == 1:
                chosen = [(0.0, 0, best(looked[id(paths[0][1])]))] * 3
            else:
                branches = [
                    (total + math.log(candidate["iou"] + 1e-5), number, candidate)
                    for number, (total, every) in enumerate(paths)
                    for candidate in looked[id(every)]
                ]
                branches.sort(key=lambda branch: branch[0], reverse=True)
                chosen = branches[:3]
                if all(abs(candidate["score"].item()) <= 2 for _, _, candidate in branches):
                    chosen = self.diverse(branches)
            remembered = {}
            grown = []
            for total, number, candidate in chosen:
                every = paths[number][1]
                key = (id(every), id(candidate))
                if key not in remembered:
                    remembered[key] = {**every, frame: self.remember(index, candidate)}
                grown.append((total, remembered[key]))
            if len({id(every) for _, every in grown}) > 1:
                self.events.add("apart")
            paths = grown
        last = paths[0][1]
        return [last[frame]["pred_masks"] for frame in range(1, len(last))]

    def diverse(self, branches):
        chosen, seen = [], set()
        for branch in branches:
            look = round(branch[2]["iou"], 2) * math.copysign(1, branch[2]["score"].item())
            if look not in seen and len(chosen) < 3:
                seen.add(look)
                chosen.append(branch)
        for branch in branches:
            if len(chosen) < 3 and branch[1] not in {number for _, number, _ in chosen}:
                chosen.append(branch)
                self.events.add("filled")
        return chosen

    def look_weighted(self, index, frame, every):
        good = [f for f in range(1, frame) if every[f]["iou"] > 0.1 and every[f]["score"].item() > 0][-15:]
        if frame > 1 and frame - 1 not in good:
            self.events.add("bad")
            good.append(frame - 1)
        maps = good[-(self.network.num_maskmem - 1) :]
        pointers = {rank: good[-rank] for rank in range(1, len(good)) if rank <= 15}
        served = self.serve(
            index, {self.start: self.prompt}, [every[f] for f in maps], {d: every[f] for d, f in pointers.items()}
        )
        with self.weights(
            [every[f]["score"].item() for f in maps], [every[f]["score"].item() for f in pointers.values()]
        ):
            return self.look(index, served)

    @contextlib.contextmanager
    def weights(self, maps, pointers):
        factors = []
        side = self.network.image_size // self.network.backbone_stride
        for scores, tokens in (
            ([10.0, *maps], side * side),
            ([10.0, *pointers], self.network.hidden_dim // self.network.mem_dim),
        ):
            ordered = sorted(range(len(scores)), key=lambda place: scores[place])
            steps = [0.95 + 0.1 * ordered.index(place) / max(1, len(scores) - 1) for place in range(len(scores))]
            for step in steps if len(steps) > 1 else [1.0]:
                factors += [step] * tokens
        factor = torch.tensor(factors)[:, None]
        originals = []
        for layer in self.network.memory_attention.layers:
            attention = layer.cross_attn_image
            originals.append(attention.forward)
            attention.forward = lambda q, k, v, original=attention.forward, **named: original(q, k * factor, v, **named)
        yield
        for layer, original in zip(self.network.memory_attention.layers, originals, strict=True):
            layer.cross_attn_image.forward = original
