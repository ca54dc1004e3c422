"""Memory rules as plain loops over the network's own code, one object at a time. Every memory of the video is kept.

The code that collects the memories is served what the rule selects instead of the frames it asks for. A video is that
of the package sam2 (`PackageVideo`) or of transformers (`SessionVideo`).
"""

import contextlib
import math

import cv2
import numpy as np
import torch


class PackageVideo:
    """A video in the package sam2. state: upstream's."""

    def __init__(self, network, state):
        self.network, self.state = network, state
        self.count, self.size = state["num_frames"], (state["video_height"], state["video_width"])
        self.cells = (network.image_size // network.backbone_stride) ** 2

    def prompt(self, start, mask, presence=0.0):
        self.network.reset_state(self.state)
        with _shifted(self.network.sam_mask_decoder, presence):
            self.network.add_new_mask(self.state, start, 1, mask)
        self.network.propagate_in_video_preflight(self.state)
        return self.state["output_dict_per_obj"][0]["cond_frame_outputs"][start]

    def look(self, index, outputs, presence=0.0):
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
            num_frames=self.count,
        )
        detailed = [f.permute(1, 2, 0).view(1, f.size(2), *s) for f, s in zip(features[:-1], sizes[:-1], strict=True)]
        several = network._use_multimask(False, None)

        def heads():
            return network._forward_sam_heads(attended, high_res_features=detailed, multimask_output=several)[3:6]

        return _each(network.sam_mask_decoder, heads, presence)

    def remember(self, index, candidate, certain=False):
        """The candidate with its memory. certain: of its binary mask, as upstream does after clicks."""
        binarize = self.network.binarize_mask_from_pts_for_mem_enc
        self.network.binarize_mask_from_pts_for_mem_enc = certain
        features, positions = self.network._run_memory_encoder(
            self.state, index, 1, candidate["high"], candidate["score"], is_mask_from_pts=certain
        )
        self.network.binarize_mask_from_pts_for_mem_enc = binarize
        names = {"maskmem_features": features, "maskmem_pos_enc": positions, "obj_ptr": candidate["pointer"]}
        return candidate | names


class SessionVideo:
    """A video in transformers. session: one with all frames and no objects; processor: the library's."""

    def __init__(self, network, processor, session):
        self.network, self.processor, self.session = network, processor, session
        network.config.max_cond_frame_num = -1  # as in SAM 2; SAM 3 attends to 4 prompts
        self.count, self.size = session.num_frames, (session.video_height, session.video_width)
        self.cells = math.prod(network.backbone_feature_sizes[-1])
        if hasattr(network, "spatial_perceiver"):
            config = network.config
            self.cells = config.perceiver_resampler_num_latents + config.perceiver_resampler_num_latents_2d

    def prompt(self, start, mask, presence=0.0):
        self.session.reset_tracking_data()
        self.processor.add_inputs_to_inference_session(
            self.session, start, [1], input_masks=[torch.from_numpy(mask)], original_size=self.size
        )
        with _shifted(self.network.mask_decoder, presence):
            self.network(self.session, frame_idx=start)
        return self.session.output_dict_per_obj[0]["cond_frame_outputs"][start]

    def look(self, index, outputs, presence=0.0):
        network = self.network
        features, positions = network._prepare_vision_features(self.session, index, 1)
        self.session.output_dict_per_obj[0] = outputs
        attended = network._prepare_memory_conditioned_features(
            inference_session=self.session,
            frame_idx=index,
            obj_idx=0,
            is_initial_conditioning_frame=False,
            current_vision_features=features[-1],
            current_vision_positional_embeddings=positions[-1],
            num_total_frames=self.count,
        )
        sizes = network.backbone_feature_sizes[:-1]
        detailed = [f.permute(1, 2, 0).view(1, f.size(2), *s) for f, s in zip(features[:-1], sizes, strict=True)]
        several = network._use_multimask(False, None)

        def heads():
            found = network._single_frame_forward(image_embeddings=[*detailed, attended], multimask_output=several)
            return found.pred_masks, found.high_res_masks, found.object_pointer

        return _each(network.mask_decoder, heads, presence)

    def remember(self, index, candidate, certain=False):
        features, _ = self.network._prepare_vision_features(self.session, index, 1)
        maps, positions = self.network._encode_new_memory(
            current_vision_feats=features[-1],
            pred_masks_high_res=candidate["high"],
            object_score_logits=candidate["score"],
            is_mask_from_pts=certain,
        )
        names = {"maskmem_features": maps, "maskmem_pos_enc": positions, "object_pointer": candidate["pointer"]}
        return candidate | names


def _each(decoder, heads, presence):
    """Candidate after candidate: `heads`, which takes that of the highest predicted IoU, is given rigged ones."""
    forward, proposed, found = decoder.forward, [], []
    decoder.forward = lambda **named: proposed.extend(forward(**named)) or proposed
    heads()
    logits, ious, tokens, score = proposed
    for number, iou in enumerate(ious.flatten().tolist()):
        rigged = (torch.arange(ious.numel()) == number).float().view(ious.shape)
        decoder.forward = lambda rigged=rigged, **named: (logits, rigged, tokens, score - presence)
        masks, high, pointer = heads()
        found.append({"pred_masks": masks, "high": high, "pointer": pointer, "iou": iou, "score": score})
    decoder.forward = forward
    return found


@contextlib.contextmanager
def _shifted(decoder, presence):
    """The decoder with another zero of the logit that an object is visible."""
    forward = decoder.forward
    decoder.forward = lambda **named: (*(found := forward(**named))[:-1], found[-1] - presence)
    yield
    decoder.forward = forward


class Plain:
    """The prompt of one object in a video; subclasses are the rules."""

    presence = 0.0

    def __init__(self, video, start, mask):
        self.video, self.network, self.start = video, video.network, start
        self.prompt = video.prompt(start, mask, self.presence)
        self.events = set()  # what happened, so that a test can tell that the rule had something to decide

    @torch.inference_mode()
    def masks(self, shown=lambda logits: logits):
        """Bool (T, H, W), from the prompt on. shown: what is done with the logits of a mask before it is shown."""
        first = self.prompt["pred_masks"]
        tracked = self.track(range(self.start + 1, self.video.count))
        return torch.stack([self.enlarge(shown(logits)) > 0 for logits in [first, *tracked]]).numpy()

    def enlarge(self, logits):
        return torch.nn.functional.interpolate(logits, self.video.size, mode="bilinear", align_corners=False)[0, 0]

    def look(self, index, outputs):
        return self.video.look(index, outputs, self.presence)

    def remember(self, index, candidate, certain=False):
        return self.video.remember(index, candidate, certain)

    def serve(self, index, prompts, maps, pointers):
        """The dictionary of outputs. maps: oldest first, for the last places; pointers: distance -> output."""
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


class Samurai(Plain):
    """The filter is written with inverses and one matrix for each step, as in a textbook."""

    presence = -1.0

    def track(self, indices):
        every, stable, mean, covariance = {0: self.prompt}, 0, None, None
        step = np.eye(8)
        step[range(4), range(4, 8)] = 1
        for index in indices:
            frame = index - self.start
            good = [f for f in range(2, frame) if self.good(every[f])][-(self.network.num_maskmem - 1) :]
            if frame > 1 and frame - 1 not in good:
                good = [*good, frame - 1][-(self.network.num_maskmem - 1) :]
                self.events.add("bad")
            pointers = {distance: every[frame - distance] for distance in range(1, frame)}
            found = self.look(index, self.serve(index, {self.start: self.prompt}, [every[f] for f in good], pointers))
            chosen, motion = best(found), None
            if stable == 0:
                mean = np.array([*_measured(chosen["high"]), 0, 0, 0, 0])
                height = mean[3]
                covariance = np.diag([height / 10, height / 10, 1e-2, height / 10] + [height / 16] * 4) ** 2
                covariance[6, 6] = 1e-10
                stable = 1
            else:
                height = mean[3]
                noise = np.diag([height / 20, height / 20, 1e-2, height / 20] + [height / 160] * 4) ** 2
                noise[6, 6] = 1e-10
                mean, covariance = step @ mean, step @ covariance @ step.T + noise
                if stable >= 15:
                    overlaps = [_box_iou(mean[:4], _measured(candidate["high"])) for candidate in found]
                    scores = [0.15 * o + 0.85 * c["iou"] for o, c in zip(overlaps, found, strict=True)]
                    number = int(np.argmax(scores))
                    if found[number] is not chosen:
                        self.events.add("moved")
                    chosen, motion = found[number], overlaps[number]
                sure = chosen["iou"] >= 0.3 if stable >= 15 else chosen["iou"] > 0.3
                if sure:
                    height = mean[3]
                    seen = np.diag([height / 20, height / 20, 1e-1, height / 20]) ** 2 + covariance[:4, :4]
                    gain = covariance[:, :4] @ np.linalg.inv(seen)
                    mean = mean + gain @ (_measured(chosen["high"]) - mean[:4])
                    covariance = covariance - gain @ seen @ gain.T
                    stable = min(stable + 1, 15)
                else:
                    stable = 0
                    self.events.add("lost")
            every[frame] = self.remember(index, chosen) | {"motion": motion}
            yield chosen["pred_masks"]

    def good(self, output):
        moves = output["motion"] is None or output["motion"] > 0
        return output["iou"] > 0.5 and output["score"].item() > 0 and moves


def _measured(logits):
    """Centre, width / height and height of the box of a mask; zeros, with a height of one, for an empty one."""
    rows, columns = np.nonzero((logits[0, 0] > 0).numpy())
    if len(rows) == 0:
        return np.array([0, 0, 0, 1.0])
    width, height = np.ptp(columns), np.ptp(rows)
    return np.array([columns.min() + width / 2, rows.min() + height / 2, width / max(height, 1), max(height, 1)])


def _box_iou(predicted, seen):
    """IoU of two boxes given by centre, width / height and height; 0 if the second one has no area."""
    spans = []
    for x, y, ratio, height in (predicted, seen):
        spans.append((x - ratio * height / 2, x + ratio * height / 2, y - height / 2, y + height / 2))
    (a, b, c, d), (e, f, g, h) = spans
    shared = max(0, min(b, f) - max(a, e)) * max(0, min(d, h) - max(c, g))
    return shared / ((b - a) * (d - c) + (f - e) * (h - g) - shared) if seen[2] else 0


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
        for path in range(3):
            if len(chosen) < 3 and path not in {number for _, number, _ in chosen}:
                chosen.append(next(branch for branch in branches if branch[1] == path))
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
        for scores, tokens in (
            ([10.0, *maps], self.video.cells),
            ([10.0, *pointers], self.network.hidden_dim // self.network.mem_dim),
        ):
            ordered = sorted(range(len(scores)), key=lambda place: scores[place])
            steps = [0.95 + 0.1 * ordered.index(place) / max(1, len(scores) - 1) for place in range(len(scores))]
            for step in steps if maps else [1.0]:
                factors += [step] * tokens
        factor = torch.tensor(factors)[:, None]
        originals = []
        for layer in self.network.memory_attention.layers:
            attention = layer.cross_attn_image
            originals.append(attention.forward)
            name = "k" if isinstance(self.video, PackageVideo) else "key"
            attention.forward = lambda original=attention.forward, name=name, **named: original(
                **named | {name: named[name] * factor}
            )
        yield
        for layer, original in zip(self.network.memory_attention.layers, originals, strict=True):
            layer.cross_attn_image.forward = original
