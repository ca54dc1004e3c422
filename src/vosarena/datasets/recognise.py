"""Recognise what is in a folder: its layout, and what its masks are."""

import sys
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from vosarena.base.errors import DataError
from vosarena.config.catalogs import Split
from vosarena.config.dataset_schema import GroundTruth, Layout
from vosarena.datasets.layouts import SequenceSource, discover
from vosarena.datasets.readers import CheckedReader
from vosarena.datasets.rle_layouts import annotations_in
from vosarena.datasets.sequences import FRAME_SUFFIXES
from vosarena.io.masks import object_ids, read_mask

_ORDER: tuple[Layout, ...] = ("sa-v", "lvos", "youtube-vos", "davis", "video", "folder")  # special ones first
_WITH_RUN_LENGTHS: tuple[Layout, ...] = ("youtube-vis", "burst")
assert {*_ORDER, *_WITH_RUN_LENGTHS} == set(get_args(Layout))
_SAMPLE = 20  # sequences whose masks are looked at


@dataclass(frozen=True)
class Recognised:
    """What is in a folder.

    Attributes:
        layout: The layout of its frames and masks.
        sequences: Number of sequences.
        ground_truth: `full` if sequences have masks for several frames, else `none`.
        has_masks: Whether there are any masks.
        binary: Whether 255 is the only object in the first mask.
        masks: The file of masks, relative to the folder, if the masks are run lengths.
    """

    layout: Layout
    sequences: int
    ground_truth: GroundTruth
    has_masks: bool
    binary: bool
    masks: str = ""

    @property
    def keys(self) -> str:
        """The keys of a config that name the layout."""
        return f"`layout: {self.layout}`" + (f" and `masks: {self.masks}`" if self.masks else "")


def recognise(folder: Path) -> Recognised:
    """Recognise the layout of a dataset.

    Args:
        folder: The folder that `path` of a dataset would name.

    Raises:
        DataError: The folder does not exist, or has no frames and no videos.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the folder that contains the frames and masks")
    for layout in _WITH_RUN_LENGTHS:
        if annotations := annotations_in(folder, layout):
            return _of_run_lengths(folder, layout, annotations[0])
    for layout in _ORDER:
        split = Split(dataset=folder.resolve().name, name="all", path=str(folder), layout=layout, ground_truth="none")
        with suppress(DataError, OSError):
            contents = discover(split, [folder])
            sources = [source for source in contents.sequences.values() if not source.problem]
            if sources and _fits(layout, sources[0], contents.meta):
                files = [_mask_files(source.masks) for source in sources[:_SAMPLE]]
                first = next((found[0] for found in files if found), None)
                full = any(len(found) > 1 for found in files)
                return Recognised(
                    layout, len(contents.sequences), "full" if full else "none", first is not None, _is_binary(first)
                )
    raise DataError(
        f"{folder}: no frames in JPEGImages/<sequence>/, no folders of frames and no videos; give "
        "the folder of a dataset"
    )


def _of_run_lengths(folder: Path, layout: Layout, file: Path) -> Recognised:
    masks = str(file.relative_to(folder))
    split = Split(dataset="folder", name="all", path=str(folder), layout=layout, masks=masks)
    reader = CheckedReader(split, [folder])
    names = reader.sequences()
    counts = [len(list(islice(reader.masks(name, sys.maxsize), 2))) for name in names[:_SAMPLE]]
    return Recognised(layout, len(names), "full" if max(counts) > 1 else "none", any(counts), False, masks)


def _fits(layout: Layout, source: SequenceSource, meta: dict[str, dict[str, Any]]) -> bool:
    objects = [found for video in meta.values() for found in video.get("objects", {}).values()]
    if layout in ("lvos", "youtube-vos"):
        key = "frame_range" if layout == "lvos" else "frames"
        return any(isinstance(found, dict) and key in found for found in objects)
    if layout == "video":
        return source.images.is_file()
    return any(file.suffix.lower() in FRAME_SUFFIXES for file in source.images.iterdir())


def _mask_files(folder: Path | None) -> list[Path]:
    """Return up to two masks of a sequence, of one object if each object has its own."""
    if folder is None:
        return []
    objects = sorted(path for path in folder.iterdir() if path.is_dir())
    return sorted(islice((objects[0] if objects else folder).glob("*.[pP][nN][gG]"), 2))


def _is_binary(mask: Path | None) -> bool:
    if mask is None:
        return False
    try:
        return object_ids(read_mask(mask)) == [255]
    except DataError:
        return False
