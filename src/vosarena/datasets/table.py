"""The table of a split's sequences: which of them belong to it, how large they are, and what is wrong with them."""

import fnmatch
import hashlib
import io
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vosarena.base.errors import DataError
from vosarena.base.files import atomic_path
from vosarena.base.names import escape_unprintable
from vosarena.base.sealed import SEAL, read_sealed, seal
from vosarena.base.text import nearest
from vosarena.config.study import Split
from vosarena.datasets.sequences import ANNOTATIONS, ATTRIBUTES, IMAGES, read_sequence, sequence_names

logger = logging.getLogger(__name__)

TABLE = pa.schema(
    [
        ("sequence", pa.string()),
        ("n_frames", pa.int32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("first_frame", pa.string()),  # stem of the first image
        ("object_ids", pa.list_(pa.int32())),
        ("first_appearance", pa.list_(pa.int32())),  # frame index of each object's first mask
        ("annotated_frames", pa.int32()),
        ("has_ground_truth", pa.bool_()),
        ("attributes", pa.list_(pa.string())),
        ("problem", pa.string()),  # why the sequence cannot be tracked as it lies there, or empty
    ]
)


def index_split(root: Path, output: Path, split: Split) -> None:
    """Write the table of a prepared split's sequences (Parquet, schema TABLE).

    A sequence that cannot be tracked stays in the table with its problem, so that it fails alone and by name;
    problems and a number of sequences other than the catalog's are logged as warnings, and the numbers are kept in the
    table (see read_counts). Raises DataError if there is no sequence at all.
    """
    images, masks = root / IMAGES, root / ANNOTATIONS
    names = sequence_names(images)
    counts = {"found": len(names), "expected": split.sequences}
    if split.sequences is not None and len(names) != split.sequences:
        logger.warning("%s: found %d sequences, but the catalog expects %d", split, len(names), split.sequences)
    file = root / ATTRIBUTES
    try:
        attributes: dict[str, list[str]] = json.loads(file.read_bytes()) if file.exists() else {}
    except ValueError:
        note = root / "prepared.txt"
        raise DataError(f"{file}: damaged; remove {note}, and the next run makes the file again") from None
    names = select_sequences(names, split, attributes)
    if not names:
        raise DataError(f"{split}: `select`, `exclude`, `attributes` and `sample` leave no sequence of {images}")
    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(lambda name: _row(images, masks, name, split, attributes.get(name, [])), names))
    for row in rows:
        if row["problem"]:
            logger.warning("sequence %s: %s", row["sequence"], row["problem"])
    _warn_of_prompts_alone(rows, split)
    write_table(rows, output, counts)


def write_table(rows: list[dict[str, Any]], output: Path, counts: Mapping[str, int | None]) -> None:
    """Write the rows of a sequences table with the numbers of read_counts."""
    with atomic_path(output) as temporary:
        with pq.ParquetWriter(temporary, TABLE, compression="zstd") as writer:
            writer.write_table(pa.Table.from_pylist(rows, schema=TABLE))
            writer.add_key_value_metadata({"counts": json.dumps(counts), "seal": SEAL})
        seal(temporary)


def _warn_of_prompts_alone(rows: list[dict[str, Any]], split: Split) -> None:
    """Prompts without further masks are no ground truth: what would be an empty row of the leaderboard is said here."""
    alone = sum(row["annotated_frames"] == 1 < row["n_frames"] for row in rows)
    if alone and split.ground_truth == "full":
        logger.warning(
            "%s: %d of %d sequences have a mask for one frame only, so there is nothing to score; set "
            "`ground_truth: first_frame` (a server scores) or `none`",
            *(split, alone, len(rows)),
        )


def _row(images: Path, masks: Path, name: str, split: Split, attributes: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        **{"sequence": name, "n_frames": 0, "height": 0, "width": 0, "first_frame": ""},
        **{"object_ids": [], "first_appearance": [], "annotated_frames": 0},
        **{"has_ground_truth": split.ground_truth == "full", "attributes": sorted(attributes), "problem": ""},
    }
    try:
        files = read_sequence(images, masks, name, split.resize)
        row |= {
            "n_frames": len(files.frames),
            "first_frame": files.frames[0].stem,
            "annotated_frames": len(files.masks) or len({i for found in files.objects.values() for i in found}),
        }
        row["height"], row["width"] = files.size
        first = {number: index for index, prompts in files.object_prompts().items() for number in prompts}
        row |= {"object_ids": sorted(first), "first_appearance": [first[i] for i in sorted(first)]}
    except (DataError, OSError) as error:
        row["problem"] = escape_unprintable(error.reason if isinstance(error, DataError) else str(error))
    return row


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
        seed = split.sample.get("seed", 0)
        ranked = sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
        drawn = set(ranked[: max(1, round(split.sample["fraction"] * len(names)))])
        kept = [name for name in kept if (name in drawn) == (split.sample.get("part", "drawn") == "drawn")]
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


def read_counts(path: Path) -> tuple[int, int | None]:
    """How many sequences a split has on disk, before any selection, and how many the catalog expects (or None)."""
    with _opened(path) as file:
        counts = json.loads((file.metadata.metadata or {}).get(b"counts", b"{}"))
        return counts.get("found", file.metadata.num_rows), counts.get("expected")


def read_table(path: Path) -> list[dict]:
    """Rows of a sequences table, as written by index_split. Raises DataError if the file is damaged."""
    with _opened(path) as file:
        return file.read().to_pylist()


def _opened(path: Path) -> pq.ParquetFile:
    return pq.ParquetFile(
        io.BytesIO(read_sealed(Path(path), "table of sequences"))
    )  # pq.read_table would import pandas
