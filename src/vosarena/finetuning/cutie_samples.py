"""Training samples for Cutie: those of rf-cutie's VOSMergeTrainDataset to the bit, in less time.

Upstream decodes and transforms whole frames before it crops them. Here the crop is chosen first, with the masks alone,
and frames are transformed inside it. Random numbers are drawn in upstream's order; those of a sample come from the seed
and its number, where upstream's belong to the workers and are not saved in a checkpoint.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import transforms

from vosarena.base.errors import DataError
from vosarena.config.model_schema import FinetuneEntry
from vosarena.finetuning.recipe import interval_of, skip_at
from vosarena.finetuning.samples import draw_turn, seeded
from vosarena.finetuning.videos import Mixture, Reader, Video, training_videos
from vosarena.io.masks import read_mask
from vosarena.io.warp import Box, warp_frame, warp_labels

_FILL = (124, 116, 104)  # where a rotated frame has no pixels
_AREA, _RATIO = [0.36, 1.0], [3 / 4, 4 / 3]
_FIRST_FRAMES, _CROPS = 5, 5  # tries to find a crop with an object in its first frame
_LABELS = 255


class CutieSamples(Dataset[dict[str, Any]]):
    """All samples of a training by number. A sample is the dictionary that rf-cutie's training wrapper takes.

    Args:
        folders: Folders of the training data in canonical layout, by "<dataset>/<split>".
        recipe: The recipe.

    Raises:
        DataError: No video is long enough, or a split has no annotated object.
    """

    def __init__(self, folders: Mapping[str, Path], recipe: FinetuneEntry) -> None:
        self.recipe = recipe
        # A video without any object would be searched for a first frame forever.
        videos = [
            video for video in training_videos(folders, recipe) if any(read_mask(path).any() for path in video.masks)
        ]
        for split in folders:
            if not any(video.split == split for video in videos):
                raise DataError(f"finetune: no video of {folders[split]} has an annotated object; check Annotations/")
        videos.sort(key=lambda video: (list(folders).index(video.split), video.name))
        self.places = [(video, index) for video in videos for index in range(len(video.frames))]
        self._mixture = Mixture([video.split for video, _ in self.places], recipe)
        self._reader = Reader(videos, recipe.cache_bytes)
        self._clip_colours = transforms.Compose(
            [transforms.ColorJitter(0.1, 0.03, 0.03, 0), transforms.RandomGrayscale(0.05)]
        )
        self._frame_colours = transforms.ColorJitter(0.1, 0.05, 0.05, 0)

    def __len__(self) -> int:
        return self.recipe.batch * self.recipe.iterations

    def __getitem__(self, number: int) -> dict[str, Any]:
        recipe, item = self.recipe, self._mixture.item(number)
        with seeded(recipe.seed, 1, number):
            skip = skip_at(recipe, number // recipe.batch)
            video, frames, masks = self._clip(item, skip)
            labels = _labels_in(masks[0])
            if len(labels) < recipe.objects and np.random.rand() < recipe.merge_probability:  # noqa: NPY002
                _, others, other_masks = self._clip(self._any_place(), skip)
                _paste(frames, masks, labels, others, other_masks)
            labels = _labels_in(masks[0])  # some may be hidden now
            if len(labels) > recipe.objects:
                labels = np.random.choice(labels, size=recipe.objects, replace=False)  # noqa: NPY002
        truth, first = np.zeros(masks.shape, np.int64), np.zeros((1, recipe.objects, *masks.shape[1:]), np.int64)
        for index, label in enumerate(labels):
            truth[masks == label] = index + 1
            first[0, index] = masks[0] == label
        return {
            "rgb": frames,
            "first_frame_gt": first,
            "cls_gt": truth[:, None],
            "selector": torch.tensor([float(index < len(labels)) for index in range(recipe.objects)]),
            "info": {"name": video.name, "num_objects": len(labels)},
        }

    def _any_place(self) -> int:
        return int(self._mixture.pool[np.random.randint(len(self._mixture.pool))])  # noqa: NPY002

    def _clip(self, item: int, skip: int) -> tuple[Video, torch.Tensor, np.ndarray]:
        """Return a clip around a frame, or around another one if no crop of it begins with an object.

        Returns:
            The video, its frames, float (T, 3, S, S) between 0 and 1, and their labels, uint8 (T, S, S).
        """
        while True:
            video, first = self.places[item]
            skip_here = max(1, skip // interval_of(self.recipe, video.split))
            chosen = [first]
            for attempt in range(_FIRST_FRAMES):
                if attempt:
                    chosen = [np.random.randint(len(video.frames))]  # noqa: NPY002
                chosen = self._choose(chosen[0], len(video.frames), skip_here)
                labels = self._reader.mask(video.masks[chosen[0]])
                for _ in range(_CROPS):
                    seed = np.random.randint(2**31 - 1)  # noqa: NPY002
                    if self._crop_labels(labels, seed).any():
                        masks = [self._crop_labels(self._reader.mask(video.masks[index]), seed) for index in chosen]
                        frames = np.stack([self._crop_frame(video.frames[index], seed) for index in chosen])
                        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()
                        return video, pixels.float().div_(255), np.stack(masks)
            item = self._any_place()

    def _choose(self, first: int, count: int, skip: int) -> list[int]:
        """Return frames in order, forwards or backwards, of which every one has a neighbour that is near enough."""

        def near(index: int) -> set[int]:
            return set(range(max(0, index - reach), min(count, index + reach + 1)))

        reach, chosen = min(count, skip), [first]
        free = near(first).difference(set(chosen))
        while len(chosen) < self.recipe.frames:
            chosen.append(np.random.choice(list(free)))  # noqa: NPY002
            free = free.union(near(chosen[-1])).difference(set(chosen))
        return sorted(chosen, reverse=np.random.rand() < 0.5)  # noqa: NPY002

    def _crop_labels(self, labels: np.ndarray, seed: int) -> np.ndarray:
        flipped, matrix, box = _draw_crop(labels.shape[:2], seed)
        crop = warp_labels(np.ascontiguousarray(labels[:, ::-1] if flipped else labels), matrix, box)
        return np.array(Image.fromarray(crop).resize((self.recipe.crop,) * 2, Image.Resampling.NEAREST))

    def _crop_frame(self, path: Path, seed: int) -> np.ndarray:
        frame = self._reader.frame(path)
        flipped, matrix, box = _draw_crop(frame.shape[:2], seed)
        crop = Image.fromarray(warp_frame(frame, flipped, matrix, box, _FILL))
        crop = crop.resize((self.recipe.crop,) * 2, Image.Resampling.BILINEAR)
        return np.array(self._frame_colours(self._clip_colours(crop)))  # go on with the random numbers of the crop


def _draw_crop(size: tuple[int, int], seed: int) -> tuple[bool, list[float], Box]:
    """Return whether a frame is mirrored, its affine transformation and what is cut out of the result."""
    height, width = size
    torch.default_generator.manual_seed(seed)  # not that of every GPU, which takes longer than the crop
    random.seed(seed)
    flipped = bool(torch.rand(1) < 0.5)
    matrix = draw_turn(height, width)
    box = transforms.RandomResizedCrop.get_params(torch.empty(1, height, width), _AREA, _RATIO)
    return flipped, matrix, box


def _labels_in(mask: np.ndarray) -> Any:
    labels = np.unique(mask)
    return labels[labels != 0].tolist()


def _paste(
    frames: torch.Tensor, masks: np.ndarray, labels: list[int], others: torch.Tensor, other_masks: np.ndarray
) -> None:
    """Paste the objects of another clip over a clip, with soft edges; `labels` get theirs too."""
    for label in _labels_in(other_masks[0]):
        there = other_masks == label
        blurred = cv2.GaussianBlur(there.astype(np.float32).transpose(1, 2, 0), (5, 5), 1.0)
        blurred = blurred.reshape(*there.shape[1:], -1)  # OpenCV drops the last axis of a single frame
        rows, columns = (slice(*np.flatnonzero(blurred.any((1 - axis, 2)))[[0, -1]] + (0, 1)) for axis in (0, 1))
        part = (..., rows, columns)  # elsewhere the share is 0
        share = torch.from_numpy(blurred.transpose(2, 0, 1)[:, None])[part]
        frames[part] = frames[part] * (1 - share) + others[part] * share
        new = (label + 10) % _LABELS
        while new in labels:
            new = (new + 1) % _LABELS
        masks[there] = new
        labels.append(new)
