"""Training clips for SAM 2, drawn so that sample N is always the same.

Frames, objects and augmentations are those of the official recipe (see `sam2.py`): consecutive annotated frames, up to
three of the objects in the first one, the whole image squeezed to the network's square.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from vosarena.base.errors import DataError
from vosarena.config.model_schema import FinetuneEntry
from vosarena.finetuning.samples import seeded
from vosarena.finetuning.videos import Mixture, Reader, Video, training_videos
from vosarena.io.masks import object_ids

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_FILL = (123, 116, 103)  # where a rotated image has no pixels
_TRIES = 1000  # to find a clip with an object in its first frame


class ClipSamples(Dataset[dict[str, Any]]):
    """All samples of a training by number. A sample is a clip with the masks of some of its objects.

    Args:
        folders: Folders of the training data in canonical layout, by "<dataset>/<split>".
        recipe: The recipe.
        side: Side of the network's square in pixels.

    Raises:
        DataError: No video has enough annotated frames.
    """

    def __init__(self, folders: Mapping[str, Path], recipe: FinetuneEntry, side: int) -> None:
        self.recipe, self.side = recipe, side
        self.videos = training_videos(folders, recipe)
        self._mixture = Mixture([video.split for video in self.videos], recipe)
        self._reader = Reader(self.videos, recipe.cache_bytes)
        self._once = v2.Compose(
            [v2.Resize((side, side), antialias=True), v2.ColorJitter(0.1, 0.03, 0.03), v2.RandomGrayscale(0.05)]
        )
        self._each = v2.ColorJitter(0.1, 0.05, 0.05)

    def __len__(self) -> int:
        return self.recipe.batch * self.recipe.iterations

    def __getitem__(self, number: int) -> dict[str, Any]:
        video = self.videos[self._mixture.item(number)]
        with seeded(self.recipe.seed, 1, number):
            start, objects = self._choose(video)
            clip = slice(start, start + self.recipe.frames)
            images = np.stack([self._reader.frame(path) for path in video.frames[clip]])
            labels = np.stack([self._reader.mask(path) for path in video.masks[clip]])
            return {"name": video.name, **self._augment(images, labels, objects)}

    def _choose(self, video: Video) -> tuple[int, list[int]]:
        """Return the first frame of a clip, and some of the objects in it."""
        for _ in range(_TRIES):
            start = random.randrange(len(video.masks) - self.recipe.frames + 1)
            if found := object_ids(self._reader.mask(video.masks[start])):
                return start, random.sample(found, min(len(found), self.recipe.objects))
        raise DataError(f"finetune: no object in the first frame of any clip of video {video.name}; leave it out")

    def _augment(
        self, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], objects: list[int]
    ) -> dict[str, torch.Tensor]:
        """Return `images`, float (T, 3, S, S), normalised, and `masks`, bool (T, objects, 1, S, S)."""
        video = tv_tensors.Video(torch.from_numpy(images).permute(0, 3, 1, 2))
        truth = tv_tensors.Mask(torch.from_numpy(labels)[:, None])
        flip = v2.RandomHorizontalFlip()
        turn = v2.RandomAffine(25, shear=20, interpolation=v2.InterpolationMode.BILINEAR,
                               fill={tv_tensors.Video: _FILL, "others": 0})  # fmt: skip
        video, truth = flip(video, truth)
        turned, turned_truth = turn(video, truth)
        if set(objects) <= set(turned_truth[0].unique().tolist()):  # no object left the first frame
            video, truth = turned, turned_truth
        video, truth = self._once(video, truth)
        frames = v2.functional.to_dtype(torch.stack([self._each(frame) for frame in video]), torch.float32, scale=True)
        masks = torch.stack([truth == found for found in objects], 1)
        return {"images": v2.functional.normalize(frames, list(_MEAN), list(_DEVIATION)), "masks": masks}

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return clips as one batch, in which each object knows its clip."""
        counts = torch.tensor([sample["masks"].shape[1] for sample in samples])
        return {
            "images": torch.stack([torch.as_tensor(sample["images"]) for sample in samples]),
            "masks": torch.cat([torch.as_tensor(sample["masks"]) for sample in samples], 1),
            "clip": torch.repeat_interleave(torch.arange(len(samples)), counts),
            "info": {"name": [sample["name"] for sample in samples]},
        }
