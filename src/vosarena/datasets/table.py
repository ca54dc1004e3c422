"""The table of a split's sequences: which of them belong to it, how large they are, and what is wrong with them."""

import fnmatch
import hashlib
import io
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from vosarena.base.errors import DataError
from vosarena.base.files import atomic_path
from vosarena.base.names import SEQUENCE_TABLE, escape_unprintable
from vosarena.base.sealed import SEAL, read_sealed, seal
from vosarena.base.text import nearest
from vosarena.config.catalogs import Split
from vosarena.datasets.facts import read_attributes
from vosarena.datasets.sequences import ANNOTATIONS, IMAGES, read_sequence, sequence_names

logger = logging.getLogger(__name__)

TABLE = pa.schema(
    [
        ("sequence", pa.string()),
        ("n_frames", pa.int32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("first_frame", pa.string()),
        ("object_ids", pa.list_(pa.int32())),
        ("first_appearance", pa.list_(pa.int32())),
        ("annotated_frames", pa.int32()),
        ("has_ground_truth", pa.bool_()),
        ("attributes", pa.list_(pa.string())),
        ("problem", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class SequenceRecord:
    """A row of the table of sequences; the fields are its columns.

    Attributes:
        sequence: Name of the sequence.
        n_frames: Number of frames.
        height: Height of the first frame in pixels.
        width: Width of the first frame in pixels.
        first_frame: Stem of the first frame's file.
        object_ids: Ids of the objects, sorted.
        first_appearance: Frame index of each object's first mask, in the order of `object_ids`.
        annotated_frames: Number of frames with a mask.
        has_ground_truth: Whether all objects have ground truth, so that predictions can be scored here.
        attributes: Attributes that the dataset gives to the sequence, sorted.
        problem: Why the sequence cannot be tracked, or empty.
    """

    sequence: str
    n_frames: int = 0
    height: int = 0
    width: int = 0
    first_frame: str = ""
    object_ids: tuple[int, ...] = ()
    first_appearance: tuple[int, ...] = ()
    annotated_frames: int = 0
    has_ground_truth: bool = False
    attributes: tuple[str, ...] = ()
    problem: str = ""


class SequenceCounts(NamedTuple):
    """Number of sequences that a split has on disk, before any selection, and that the catalog expects, if it says."""

    found: int
    expected: int | None


def index_split(root: Path, output: Path, split: Split) -> None:
    """Write the table of a prepared split's sequences (Parquet, schema TABLE).

    A sequence that cannot be tracked stays in the table with its problem, so that it fails alone and by name. Problems
    are logged as warnings, and so is a number of sequences that differs from the catalog's.

    Args:
        root: Folder of the prepared split.
        output: The table to write.
        split: The split.

    Raises:
        DataError: There are no sequences, or none is left after the selection.
    """
    images, masks = root / IMAGES, root / ANNOTATIONS
    names = sequence_names(images)
    counts = SequenceCounts(found=len(names), expected=split.sequences)
    if counts.expected not in (None, counts.found):
        logger.warning("%s: found %d sequences, but the catalog expects %d", split, counts.found, counts.expected)
    attributes = read_attributes(root)
    names = select_sequences(names, split, attributes)
    if not names:
        raise DataError(f"{split}: `select`, `exclude`, `attributes` and `sample` leave no sequence of {images}")
    with ThreadPoolExecutor() as pool:
        records = list(pool.map(lambda name: _record(images, masks, name, split, attributes.get(name, [])), names))
    for record in records:
        if record.problem:
            logger.warning("sequence %s: %s", record.sequence, record.problem)
    alone = sum(record.annotated_frames == 1 < record.n_frames for record in records)
    if alone and split.ground_truth == "full":  # these sequences would be empty rows of the leaderboard
        logger.warning(
            "%s: %d of %d sequences have a mask for one frame only, so there is nothing to score; set "
            "`ground_truth: first_frame` (a server scores) or `none`",
            split,
            alone,
            len(records),
        )
    write_table(records, output, counts)


def _record(images: Path, masks: Path, name: str, split: Split, attributes: Sequence[str]) -> SequenceRecord:
    record = SequenceRecord(
        sequence=name, has_ground_truth=split.ground_truth == "full", attributes=tuple(sorted(attributes))
    )
    try:
        files = read_sequence(images, masks, name, split.resize)
        record = replace(
            record,
            n_frames=len(files.frames),
            first_frame=files.frames[0].stem,
            annotated_frames=len(files.masks) or len({i for found in files.objects.values() for i in found}),
        )
        height, width = files.size
        record = replace(record, height=height, width=width)
        first = {number: index for index, prompts in files.object_prompts().items() for number in prompts}
        ids = tuple(sorted(first))
        return replace(record, object_ids=ids, first_appearance=tuple(first[number] for number in ids))
    except (DataError, OSError) as error:
        reason = error.reason if isinstance(error, DataError) else str(error)
        return replace(record, problem=escape_unprintable(reason))


def select_sequences(names: list[str], split: Split, attributes: Mapping[str, list[str]]) -> list[str]:
    """The names that `select`, `exclude`, `attributes` and `sample` of a split keep, in order.

    A sample is drawn from all names by their hash with the seed, so it is the same on every machine and whatever else
    is selected; `part: rest` is exactly what `part: drawn` leaves out. A pattern or attribute that fits no sequence is
    logged as a warning.
    """
    selected = _fitting("select", split.select, names, split) if split.select else set(names)
    selected -= _fitting("exclude", split.exclude, names, split)
    kept = [name for name in names if name in selected]
    if split.attributes:
        given = {attribute for name in names for attribute in attributes.get(name, ())}
        for attribute in sorted(set(split.attributes) - given):
            hint = nearest(attribute, given)
            logger.warning("%s: `attributes` has %r, which no sequence has; %s", split, attribute, hint)
        kept = [name for name in kept if set(split.attributes) & set(attributes.get(name, ()))]
    if split.sample:
        seed = split.sample.seed
        ranked = sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
        drawn = set(ranked[: max(1, round(split.sample.fraction * len(names)))])
        kept = [name for name in kept if (name in drawn) == (split.sample.part == "drawn")]
    return kept


def _fitting(key: str, patterns: Sequence[str], names: list[str], split: Split) -> set[str]:
    """The names that fit any of the patterns; a pattern that is a name, such as `clip[a]`, means that sequence only."""
    found: set[str] = set()
    for pattern in patterns:
        fitting = {pattern} if pattern in names else set(fnmatch.filter(names, pattern))
        if not fitting:
            logger.warning("%s: `%s` has %r, which fits no sequence; %s", split, key, pattern, nearest(pattern, names))
        found |= fitting
    return found


def write_table(records: Iterable[SequenceRecord], output: Path, counts: SequenceCounts) -> None:
    """Write the table of a split's sequences.

    Args:
        records: Its rows.
        output: The table.
        counts: Kept in the metadata of the table; see `read_counts`.
    """
    rows = list(records)
    columns = {column: [getattr(row, column) for row in rows] for column in TABLE.names}
    with atomic_path(output) as temporary:
        with pq.ParquetWriter(temporary, TABLE, compression="zstd") as writer:
            writer.write_table(pa.Table.from_pydict(columns, schema=TABLE))
            writer.add_key_value_metadata({"counts": json.dumps(counts._asdict()), "seal": SEAL})
        seal(temporary)


def read_counts(path: Path) -> SequenceCounts:
    """Read how many sequences a split has on disk and how many the catalog expects.

    Raises:
        DataError: The table is missing or damaged.
    """
    with _open_table(path) as file:
        counts = json.loads((file.metadata.metadata or {}).get(b"counts", b"{}"))
        return SequenceCounts(counts.get("found", file.metadata.num_rows), counts.get("expected"))


def read_table(path: Path) -> list[SequenceRecord]:
    """Read the table of a split's sequences, as `index_split` wrote it.

    Raises:
        DataError: The table is missing or damaged.
    """
    with _open_table(path) as file:
        columns = file.read().select(TABLE.names).to_pydict()
    for name in ("object_ids", "first_appearance", "attributes"):
        columns[name] = [tuple(values) for values in columns[name]]
    return [SequenceRecord(*row) for row in zip(*columns.values(), strict=True)]


def selected_names(folder: Path) -> list[str]:
    """Return the sequences of a prepared split that its selection keeps and that have no problem, in order.

    Args:
        folder: Folder of the split. All sequences count if it has no table.

    Raises:
        DataError: The table is damaged.
    """
    table = folder / SEQUENCE_TABLE
    if not table.is_file():
        return sequence_names(folder / IMAGES)
    return [record.sequence for record in read_table(table) if not record.problem]


def _open_table(path: Path) -> pq.ParquetFile:
    # pq.read_table would import pandas
    return pq.ParquetFile(io.BytesIO(read_sealed(Path(path), "table of sequences")))
