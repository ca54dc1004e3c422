"""Write predictions as run lengths of COCO in one JSON file, in the form of the annotations of YouTube-VIS.

The layout `youtube-vis` of datasets reads such a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vosarena.base.errors import DataError
from vosarena.base.files import check_folder, write_text
from vosarena.base.text import summarise_names
from vosarena.datasets.sequences import FRAME_SUFFIXES, IMAGES, numbered_files
from vosarena.datasets.table import read_table
from vosarena.io import rle
from vosarena.io.masks import object_ids, read_mask
from vosarena.predictions.store import Store
from vosarena.submissions.stored_masks import intact_masks

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
        try:
            masks = intact_masks(store, name)
        except DataError as error:
            raise DataError(f"sequence {name}: {error}") from None
        for label, segments in _objects(store.masks(name), manifests[name].frames, masks).items():
            annotations.append(
                {
                    **{"id": len(annotations) + 1, "video_id": number, "category_id": _CATEGORY["id"], "iscrowd": 0},
                    **{"object": label, "score": 1.0, "segmentations": segments},
                    "areas": [rle.area(segment["counts"]) if segment else None for segment in segments],
                }
            )
    content = {"videos": videos, "annotations": annotations, "categories": [_CATEGORY]}
    write_text(output, json.dumps(content, separators=(",", ":")) + "\n")


def _objects(folder: Path, stems: Sequence[str], masks: Iterable[str]) -> dict[int, list[dict[str, Any] | None]]:
    """Return the run lengths of each object of a sequence, None for frames without it and without a mask."""
    found: dict[int, list[dict[str, Any] | None]] = {}
    at = {stem: index for index, stem in enumerate(stems)}
    for name in masks:
        number, _, stem = name.rpartition("/")
        labels = read_mask(folder / f"{name}.png")
        if number:
            found.setdefault(int(number), [None] * len(stems))
        for label in object_ids(labels):
            runs = {"size": list(labels.shape), "counts": rle.encode(labels == label)}
            found.setdefault(int(number or label), [None] * len(stems))[at[stem]] = runs
    return dict(sorted(found.items()))
