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
from PIL import Image
from torch.utils.data import Dataset
from torchvision import transforms
from torchvision.transforms import functional

from vosarena.base.errors import DataError
from vosarena.config.model_schema import FinetuneEntry
from vosarena.finetuning.samples import draw_turn, seeded
from vosarena.finetuning.videos import Mixture, Reader, Video, training_videos
from vosarena.io.masks import object_ids
from vosarena.io.warp import warp_frame, warp_labels
from vosarena.trackers.base import Frame, LabelMap

_FILL = (123, 116, 103)  # where a rotated image has no pixels
_GREY = 0.05  # share of the clips
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

    def __len__(self) -> int:
        return self.recipe.batch * self.recipe.iterations

    def __getitem__(self, number: int) -> dict[str, Any]:
        video = self.videos[self._mixture.item(number)]
        with seeded(self.recipe.seed, 1, number):
            start, objects = self._choose(video)
            clip = slice(start, start + self.recipe.frames)
            images = [self._reader.frame(path) for path in video.frames[clip]]
            labels = [self._reader.mask(path) for path in video.masks[clip]]
            return {"name": video.name, **self._augment(images, labels, objects)}

    def _choose(self, video: Video) -> tuple[int, list[int]]:
        """Return the first frame of a clip, and some of the objects in it."""
        for _ in range(_TRIES):
            start = random.randrange(len(video.masks) - self.recipe.frames + 1)
            if found := object_ids(self._reader.mask(video.masks[start])):
                return start, random.sample(found, min(len(found), self.recipe.objects))
        raise DataError(f"finetune: no object in the first frame of any clip of video {video.name}; leave it out")

    def _augment(self, images: Sequence[Frame], labels: Sequence[LabelMap], objects: list[int]) -> dict[str, Any]:
        """Return `images`, uint8 (T, S, S, 3), RGB, and `masks`, bool (T, objects, 1, S, S)."""
        height, width = labels[0].shape
        mirrored = bool(torch.rand(1) < 0.5)
        matrix = draw_turn(height, width)
        whole = (0, 0, height, width)
        labels = [np.ascontiguousarray(each[:, ::-1] if mirrored else each) for each in labels]
        turned = [warp_labels(each, matrix, whole) for each in labels]
        if set(objects) <= set(object_ids(turned[0])):  # no object left the first frame
            labels, images = turned, [warp_frame(image, mirrored, matrix, whole, _FILL) for image in images]
        elif mirrored:
            images = [image[:, ::-1] for image in images]
        colours, grey = _Colours(0.1, 0.03), bool(torch.rand(1) < _GREY)
        frames = np.empty((len(images), self.side, self.side, 3), np.uint8)
        for index, image in enumerate(images):
            resized = Image.fromarray(image).resize((self.side, self.side), Image.Resampling.BILINEAR)
            changed = colours(resized)
            frames[index] = np.array(_Colours(0.1, 0.05)(functional.to_grayscale(changed, 3) if grey else changed))
        small = [Image.fromarray(each).resize((self.side, self.side), Image.Resampling.NEAREST) for each in labels]
        truth = torch.from_numpy(np.stack([np.array(each) for each in small]))[:, None]
        return {
            "images": torch.from_numpy(frames),
            "masks": torch.stack([truth == found for found in objects], 1),
        }

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return clips as one batch, in which each object knows its clip."""
        counts = torch.tensor([sample["masks"].shape[1] for sample in samples])
        return {
            "images": torch.stack([torch.as_tensor(sample["images"]) for sample in samples]),
            "masks": torch.cat([torch.as_tensor(sample["masks"]) for sample in samples], 1),
            "clip": torch.repeat_interleave(torch.arange(len(samples)), counts),
            "info": {"name": [sample["name"] for sample in samples]},
        }


class _Colours:
    """A random change of brightness by up to `brightness`, and of contrast and saturation by up to `others`."""

    def __init__(self, brightness: float, others: float) -> None:
        limits = [[1 - change, 1 + change] for change in (brightness, others, others)]
        self._order, *self._factors = transforms.ColorJitter.get_params(*limits, None)

    def __call__(self, image: Image.Image) -> Image.Image:
        changes = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
        for number in self._order.tolist():
            if number < len(changes):  # the last one would be the hue
                image = changes[number](image, self._factors[number])
        return image
