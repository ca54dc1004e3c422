"""Write predictions as run lengths of COCO in one JSON file, in the form of the annotations of YouTube-VIS.

The layout `youtube-vis` of datasets reads such a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vosarena.base.errors import DataError
from vosarena.base.files import check_folder, write_text
from vosarena.base.text import summarise_names
from vosarena.datasets.sequences import FRAME_SUFFIXES, IMAGES, BoolMask, numbered_files, object_folders
from vosarena.datasets.table import read_table
from vosarena.io import rle
from vosarena.io.masks import masks_digest, object_ids, read_mask
from vosarena.predictions.manifest import Manifest
from vosarena.predictions.store import Store

_CATEGORY = {"id": 1, "name": "object"}  # VOS has no categories


def write_coco(table: Path, predictions: Path, output: Path) -> None:
    """Write the predictions of one model on a split.

    Args:
        table: The split's table of sequences.
        predictions: The model's store.
        output: The JSON file, with `videos`, `annotations` (one per object, with `segmentations`, null where the object
            is absent, `areas`, the label as `object` and a `score` of 1) and `categories`.

    Raises:
        DataError: A sequence is not predicted yet, or its masks were changed.
    """
    check_folder(output.parent)
    store, records = Store(predictions), read_table(table)
    manifests = store.manifests(record.sequence for record in records)
    if missing := [record.sequence for record in records if record.sequence not in manifests]:
        raise DataError(f"{predictions}: not predicted yet: {summarise_names(missing)}; run the study first")
    videos: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, record in enumerate(records, 1):
        name = record.sequence
        frames = numbered_files(table.parent / IMAGES / name, FRAME_SUFFIXES)
        size = {"height": record.height, "width": record.width}
        files = [f"{name}/{file.name}" for file in frames]
        videos.append({"id": number, **size, "length": len(files), "file_names": files})
        for label, segments in _objects(store, manifests[name]).items():
            annotations.append(
                {
                    **{"id": len(annotations) + 1, "video_id": number, "category_id": _CATEGORY["id"], "iscrowd": 0},
                    **{"object": label, "score": 1.0, "segmentations": segments},
                    "areas": [rle.area(segment["counts"]) if segment else None for segment in segments],
                }
            )
    content = {"videos": videos, "annotations": annotations, "categories": [_CATEGORY]}
    write_text(output, json.dumps(content, separators=(",", ":")) + "\n")


def _objects(store: Store, manifest: Manifest) -> dict[int, list[dict[str, Any] | None]]:
    """Return the run lengths of each object of a sequence, None for frames without it and without a mask."""
    name, stems, digest = manifest.sequence, manifest.frames, manifest.masks_digest
    folder = store.masks(name)
    folders = object_folders(folder)
    names = [f"{path.name}/{stem}" for path in folders.values() for stem in manifest.with_mask]
    names = names if folders else list(manifest.with_mask)
    try:
        intact = masks_digest((mask, folder / f"{mask}.png") for mask in names) == digest
    except FileNotFoundError:
        intact = False
    if not intact:
        raise DataError(f"masks in {folder} were changed after tracking; run the study again", sequence=name)
    found: dict[int, list[dict[str, Any] | None]] = {number: [None] * len(stems) for number in folders}
    with_mask = [(index, stem) for index, stem in enumerate(stems) if stem in set(manifest.with_mask)]
    for index, label, mask in _masks(folder, folders, with_mask):
        if mask.any():
            runs = {"size": list(mask.shape), "counts": rle.encode(mask)}
            found.setdefault(label, [None] * len(stems))[index] = runs
    return dict(sorted(found.items()))


def _masks(
    folder: Path, folders: dict[int, Path], frames: Sequence[tuple[int, str]]
) -> Iterator[tuple[int, int, BoolMask]]:
    for index, stem in frames:
        for number, place in folders.items():
            yield index, number, np.asarray(read_mask(place / f"{stem}.png") > 0)
        if not folders:
            labels = read_mask(folder / f"{stem}.png")
            yield from ((index, label, np.asarray(labels == label)) for label in object_ids(labels))
