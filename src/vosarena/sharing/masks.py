"""Masks in a bundle: one Parquet file for each run, with the run lengths of every object in every mask.

Each row is one mask: `sequence`, `mask` (the frame, or `<object>/<frame>` where objects may overlap), `height`,
`width`, `object_ids`, and `counts`, which are run lengths as COCO has them; see io.rle.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vosarena.base.errors import DataError
from vosarena.datasets.sequences import frame_number
from vosarena.io import rle
from vosarena.io.masks import LabelMap, object_ids, read_mask, write_mask
from vosarena.metrics.measure import measure
from vosarena.metrics.measure_split import pair_predictions
from vosarena.metrics.read import Metrics, read_metadata, read_metrics, read_rows
from vosarena.predictions.store import Store
from vosarena.submissions.stored_masks import intact_masks

_SCHEMA = pa.schema(
    [
        ("sequence", pa.string()),
        ("mask", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("object_ids", pa.list_(pa.int32())),
        ("counts", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True)
class PackedMask:
    """A label map as run lengths.

    Attributes:
        sequence: Name of the sequence.
        mask: The frame, or `<object>/<frame>`.
        height: Height in pixels.
        width: Width in pixels.
        objects: Run lengths by object id.
    """

    sequence: str
    mask: str
    height: int
    width: int
    objects: Mapping[int, str]

    def labels(self) -> LabelMap:
        """Return the labels, uint8 (H, W)."""
        labels = np.zeros((self.height, self.width), np.uint8)
        for number, counts in self.objects.items():
            labels[rle.decode(counts, self.height, self.width)] = number
        return labels


def pack_masks(store: Store, sequences: Iterable[str], output: Path) -> None:
    """Write the masks of a run.

    Args:
        store: The predictions.
        sequences: Names of the sequences.
        output: The Parquet file.

    Raises:
        DataError: A mask is missing or was changed since it was made.
    """
    rows: list[tuple[str, str, int, int, list[int], list[str]]] = []
    output.parent.mkdir(parents=True, exist_ok=True)
    for name in sequences:
        try:
            masks = intact_masks(store, name)
        except DataError as error:
            raise DataError(f"sequence {name}: {error}") from None
        for mask in masks:
            labels = read_mask(store.masks(name) / f"{mask}.png")
            ids = object_ids(labels)
            rows.append((name, mask, *labels.shape, ids, [rle.encode(labels == number) for number in ids]))
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in _SCHEMA]
    pq.write_table(pa.table(columns, schema=_SCHEMA), output, compression="zstd")


def read_masks(file: Path) -> Iterator[PackedMask]:
    """Yield the masks of a run, in the order of their digests."""
    for row in pq.read_table(file, schema=_SCHEMA).to_pylist():
        objects = dict(zip(row["object_ids"], row["counts"], strict=True))
        yield PackedMask(row["sequence"], row["mask"], row["height"], row["width"], objects)


def check_masks(file: Path, metrics: Metrics, manifests: Iterable[str]) -> None:
    """Raise DataError if masks and counts contradict each other, as far as that is known without ground truth.

    Args:
        file: The masks.
        metrics: The counts.
        manifests: Names of the sequences.
    """
    areas: dict[str, dict[tuple[int | None, int | str], dict[int, int]]] = {name: {} for name in manifests}
    for packed in read_masks(file):
        folder, _, frame = packed.mask.rpartition("/")
        known = {number: rle.area(counts) for number, counts in packed.objects.items()}
        areas[packed.sequence][int(folder) if folder else None, _frame(frame)] = known
    for sequence in metrics.sequences:
        if sequence.info.resized_frames:
            continue  # pixels were counted in another size
        for number, rows in sequence.objects.items():
            group, label = (number, 1) if sequence.info.per_object else (None, number)
            for frame, pixels in zip(rows.frames, rows.counts.pred_pixels.tolist(), strict=True):
                if areas[sequence.name].get((group, _frame(frame)), {}).get(label, 0) != pixels:
                    raise DataError(f"the mask of {sequence.name}, frame {frame}, has other pixels than its counts")


def _frame(stem: str) -> int | str:
    number = frame_number(stem)
    return stem if number is None else number


def recount(file: Path, counts: Path, table: Path) -> None:
    """Count the masks of a run again.

    Args:
        file: The masks.
        counts: The metrics file of the run.
        table: Table of sequences of the split. The ground truth is next to it.

    Raises:
        DataError: The counts are others.
    """
    found = read_metadata(counts)
    (metrics,) = read_metrics(counts, allow_incomplete=True)
    with tempfile.TemporaryDirectory() as folder:
        for packed in read_masks(file):
            mask = Path(folder, packed.sequence, f"{packed.mask}.png")
            mask.parent.mkdir(parents=True, exist_ok=True)
            write_mask(mask, packed.labels())
        pairs = pair_predictions(table, Store(Path(folder)), dict.fromkeys(found.sequences))
        again = Path(folder, ".counts.parquet")
        measure(
            pairs,
            again,
            dataset=found.dataset,
            split=found.split,
            model=found.model,
            resize=found.policies["resize"],
            adaptive=metrics.adaptive,
            progress=False,
        )
        if not read_rows(again).equals(read_rows(counts)):
            run = f"{found.dataset}/{found.split}/{found.model}"
            raise DataError(f"counts of {run} do not follow from its masks and the ground truth")
