"""The videos of the training data: which one a sample comes from, and their decoded frames in memory."""

from __future__ import annotations

import math
import mmap
import multiprocessing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vosarena.base.errors import DataError
from vosarena.config.model_schema import FinetuneEntry
from vosarena.datasets.sequences import ANNOTATIONS, IMAGES, read_sequence
from vosarena.datasets.table import selected_names
from vosarena.io.frames import image_size, read_frame
from vosarena.io.masks import read_mask


@dataclass(frozen=True)
class Video:
    """The annotated frames of a sequence, in order.

    Attributes:
        split: Its split, as "<dataset>/<split>".
        name: Name of the sequence.
        frames: Image files.
        masks: Mask files.
    """

    split: str
    name: str
    frames: tuple[Path, ...]
    masks: tuple[Path, ...]


def training_videos(folders: Mapping[str, Path], recipe: FinetuneEntry) -> list[Video]:
    """Return the videos that have enough annotated frames for a sample.

    Args:
        folders: Folders of the training data in canonical layout, by "<dataset>/<split>".
        recipe: The recipe.

    Raises:
        DataError: There are none.
    """
    videos = []
    for split, folder in folders.items():
        for name in selected_names(folder):
            files = read_sequence(folder / IMAGES, folder / ANNOTATIONS, name)
            if len(files.masks) >= recipe.frames:
                frames = tuple(files.frames[index] for index in files.masks)
                videos.append(Video(split, name, frames, tuple(files.masks.values())))
    if not videos:
        raise DataError(
            f"finetune: no video of {', '.join(folders)} has {recipe.frames} annotated frames; use fewer `frames`"
        )
    return videos


class Mixture:
    """Which item a sample is about. Every epoch is a permutation of all items, each as often as its split weighs.

    Of a weight such as 2.5, every item gets two places, and half of the items, others in every epoch, get a third one.

    Args:
        splits: The split of each item.
        recipe: The recipe, with the weights of the splits.
    """

    def __init__(self, splits: Sequence[str], recipe: FinetuneEntry) -> None:
        self._seed = recipe.seed
        self._parts: list[tuple[np.ndarray, int]] = []  # items, and the number of them that get one place more
        whole = [np.arange(0)]
        for split in dict.fromkeys(splits):
            items, weight = np.flatnonzero(np.array(splits) == split), recipe.weights.get(split, 1.0)
            copies = math.floor(weight)
            more = round((weight - copies) * len(items))
            whole.append(np.tile(items, copies))
            self._parts.append((items, more if copies or more else 1))
        self._whole = np.concatenate(whole)
        self._size = len(self._whole) + sum(more for _, more in self._parts)
        self._epoch = -1
        self._order = self.pool = self._whole

    def item(self, number: int) -> int:
        """Return the item of a sample. Afterwards, `pool` has all items of the epoch, each as often as it occurs."""
        epoch, place = divmod(number, self._size)
        if epoch != self._epoch:
            self._epoch = epoch
            chosen = [
                np.random.default_rng((self._seed, epoch, part)).permutation(items)[:more]
                for part, (items, more) in enumerate(self._parts)
            ]
            self.pool = np.concatenate([self._whole, *chosen])
            self._order = np.random.default_rng((self._seed, epoch)).permutation(self._size)
        return int(self.pool[self._order[place]])


class Reader:
    """Reads frames and masks, and keeps what it decoded in memory up to a limit.

    What is kept is decided by the limit alone: the first videos. With samples in random order, nothing else would be
    found in memory more often, and no process needs to know what another one has evicted. Processes that are forked
    later share the memory; whichever needs a file first decodes it for all.

    Args:
        videos: The videos.
        limit: Size of the memory in bytes.
    """

    def __init__(self, videos: Iterable[Video], limit: int) -> None:
        self._places: dict[Path, tuple[int, tuple[int, ...]]] = {}
        used = 0
        for video in videos if limit else ():
            height, width = image_size(video.frames[0])
            kinds = ((video.frames, (height, width, 3)), (video.masks, (height, width)))
            files = [(path, shape) for paths, shape in kinds for path in paths]
            if used + sum(1 + math.prod(shape) for _, shape in files) > limit:
                break
            for path, shape in files:
                self._places[path] = used, shape
                used += 1 + math.prod(shape)
        self.size = used
        self._memory = mmap.mmap(-1, used) if used else None
        self._lock = multiprocessing.get_context("fork").Lock()

    def frame(self, path: Path) -> np.ndarray:
        """Return the pixels of a frame, uint8 (H, W, 3), read-only if they are kept."""
        return self._read(path, read_frame)

    def mask(self, path: Path) -> np.ndarray:
        """Return the labels of a mask, uint8 (H, W), read-only if they are kept."""
        return self._read(path, read_mask)

    def _read(self, path: Path, decode: Callable[[Path], np.ndarray]) -> np.ndarray:
        if self._memory is None or path not in self._places:
            return decode(path)
        place, shape = self._places[path]
        kept = np.frombuffer(self._memory, np.uint8, math.prod(shape), place + 1).reshape(shape)
        with self._lock:  # so that the mark below is not seen before the pixels
            ready = self._memory[place]
        if not ready:
            pixels = decode(path)
            if pixels.shape != shape:
                return pixels
            kept[:] = pixels
            with self._lock:
                self._memory[place] = 1
        kept.flags.writeable = False
        return kept
