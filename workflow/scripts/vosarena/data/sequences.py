"""Sequences of a split: which frames, masks and objects they have, and the table of them.

A prepared split is one folder with `JPEGImages/<sequence>/<frame>.jpg` and, where there are masks,
`Annotations/<sequence>/<frame>.png`; every later stage knows only this form. Where objects may overlap (SA-V), masks
are `Annotations/<sequence>/<object>/<frame>.png`, and what is not zero belongs to the object.
"""

import fnmatch
import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vosarena.data.catalog import Split
from vosarena.data.frames import image_size
from vosarena.data.masks import LabelMap, read_mask
from vosarena.errors import DataError, MaskError
from vosarena.files import whole

logger = logging.getLogger(__name__)

BoolMask = np.ndarray[Any, np.dtype[np.bool_]]

IMAGES, ANNOTATIONS = "JPEGImages", "Annotations"  # the two folders of a prepared split
ATTRIBUTES, META = "attributes.json", "meta.json"  # facts beside them, where the dataset has any
FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")
MASK_SUFFIX = ".png"

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


@dataclass(frozen=True)
class SequenceFiles:
    """Frames and masks of one sequence on disk.

    frames: image files in numeric order. masks: frame index -> mask file. resize: `never` or `nearest`, what
    happens to a mask whose size differs from its frame's. objects: object id -> frame index -> mask file, instead of
    `masks` where objects may overlap; an id is the number that the object's folder is named by, and may be 0.
    masks_folder: where the masks lie, or should.
    """

    name: str
    frames: tuple[Path, ...]
    masks: Mapping[int, Path] = field(default_factory=dict)
    resize: str = "never"
    objects: Mapping[int, Mapping[int, Path]] = field(default_factory=dict)
    masks_folder: Path | None = None

    @cached_property
    def size(self) -> tuple[int, int]:
        """(height, width) from the first frame's header."""
        return image_size(self.frames[0])

    def mask(self, index: int) -> LabelMap:
        """The mask of a frame, uint8 (H, W). Raises MaskError if its size differs and may not be changed."""
        return self._fitting(self.masks[index])

    def object_mask(self, number: int, index: int) -> BoolMask:
        """The mask of one object of a sequence whose objects may overlap, bool (H, W). Raises MaskError."""
        return self._fitting(self.objects[number][index]) > 0

    def _fitting(self, path: Path) -> LabelMap:
        labels = read_mask(path)
        if labels.shape != self.size:
            if self.resize == "nearest":
                return cv2.resize(labels, self.size[::-1], interpolation=cv2.INTER_NEAREST)
            raise MaskError(
                f"{path}: mask is {labels.shape[1]}x{labels.shape[0]} but the frames of sequence "
                f"{self.name} are {self.size[1]}x{self.size[0]}; mend the mask or set `resize: nearest` for the dataset"
            )
        return labels

    def prompts(self) -> dict[int, LabelMap]:
        """Frame index -> label map of the objects whose first mask is there (semi-supervised VOS).

        Label 255 is `ignore` in the field and never an object. Raises MaskError, or DataError if there is no object or
        if objects may overlap, which no label map can hold: see object_prompts.
        """
        if self.objects:
            raise DataError(f"sequence {self.name}: its objects may overlap; use a tracker that takes them one by one")
        seen: set[int] = {0, 255}
        prompts: dict[int, LabelMap] = {}
        ignored = False
        for index in self.masks:
            labels = self.mask(index)
            found = _labels_in(labels)
            new = found - seen
            if new:
                prompts[index] = np.where(np.isin(labels, sorted(new)), labels, 0).astype(np.uint8)
                seen |= new
            ignored = ignored or 255 in found
        if not prompts:
            raise DataError(f"sequence {self.name}: {self._nothing(ignored)}")
        return prompts

    def _nothing(self, ignored: bool) -> str:
        """Why there is nothing to track. ignored: whether the masks hold label 255."""
        if ignored:
            return (
                "all pixels of its masks are 0 or 255, and 255 means ignore: set `binary: true` for this dataset, or "
                "write 1 for the object"
            )
        if self.masks:
            return f"no object in any of its {len(self.masks)} masks; nothing to track"
        # Links are followed: people know their own folder, not that of the prepared split.
        if self.masks_folder is None or not self.masks_folder.is_dir():
            return (
                f"no masks for the frames in {self.frames[0].parent.resolve()}; expected PNGs, for the first at least"
            )
        others = Counter(path.suffix for path in self.masks_folder.iterdir() if path.is_file() and path.suffix)
        found = ", ".join(f"{number} {suffix}" for suffix, number in others.most_common(2))
        return f"no PNG in {self.masks_folder.resolve()}{found and f', but {found}'}; masks must be PNG"

    def object_prompts(self) -> dict[int, dict[int, BoolMask]]:
        """Frame index -> object id -> first mask of the object that is not empty, bool (H, W), in order of frames.

        Works for label maps too, so that every sequence can be tracked object by object. Raises MaskError, DataError.
        """
        if not self.objects:
            return {
                index: {number: labels == number for number in sorted(_labels_in(labels) - {0})}
                for index, labels in self.prompts().items()
            }
        prompts: dict[int, dict[int, BoolMask]] = {}
        for number, masks in self.objects.items():
            for index in masks:
                mask = self.object_mask(number, index)
                if mask.any():
                    prompts.setdefault(index, {})[number] = mask
                    break
        if not prompts:
            raise DataError(f"sequence {self.name}: all masks of its {len(self.objects)} objects are empty")
        return dict(sorted(prompts.items()))

    def object_folder(self, number: int) -> str:
        """Name of an object's folder, such as `000`; predictions are written under the same name."""
        return next(iter(self.objects[number].values())).parent.name


def _labels_in(labels: LabelMap) -> set[int]:
    return set(np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist())


def numbered_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files of a folder in the numeric order of their names; other files and hidden ones are ignored.

    `2.jpg` comes before `10.jpg` and `00010.jpg`; names that are no numbers are in alphabetical order. Raises DataError
    where that leaves the order open: two files with one name or number, numbers beside other names, `f10` before `f2`.
    """
    files = [
        path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")
    ]  # fmt: skip
    files.sort(key=lambda path: (path.stem.isdigit(), _key(path)))
    for first, second in pairwise(files):
        if _key(first) == _key(second):
            raise DataError(f"{folder}: {first.name} and {second.name} are the same frame; keep one of them")
        if first.stem.isdigit() != second.stem.isdigit():
            raise DataError(f"{folder}: {first.name} has no number, but {second.name} has; give it one or remove it")
        if not first.stem.isdigit() and _with_numbers(first.stem) > _with_numbers(second.stem):
            raise DataError(f"{folder}: {first.name} comes before {second.name}; number the frames with leading zeros")
    return files


def _with_numbers(stem: str) -> list[str | int]:
    """As people sort names: `f2`, `f10`."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", stem)]


def sequence_names(images: Path) -> list[str]:
    """Names of the sequences under a folder of frames, sorted. Raises DataError if there are none."""
    if not images.is_dir():
        raise DataError(f"{images}: no such folder; expected one folder of frames per sequence in it")
    names = sorted(path.name for path in images.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise DataError(f"{images}: no sequence folders; expected one folder of frames per sequence")
    if IMAGES in names:
        raise DataError(f"{images}: the folders of frames are in {images / IMAGES}; give that one")
    return names


def read_sequence(images: Path, masks: Path | None, name: str, resize: str = "never") -> SequenceFiles:
    """The files of sequence `name` under a folder of frames and one of masks. Raises DataError if it has none."""
    folder = images / name
    if not folder.is_dir():
        raise DataError(f"sequence {name}: there is no folder {folder}")
    frames = numbered_files(folder, FRAME_SUFFIXES)
    if not frames:
        raise DataError(f"sequence {name}: no {', '.join(FRAME_SUFFIXES)} frames in {folder}")
    index_of = {_key(path): index for index, path in enumerate(frames)}

    def by_frame(folder: Path, masks_of: str) -> dict[int, Path]:
        found = {}
        for path in numbered_files(folder, (MASK_SUFFIX,)):
            if _key(path) not in index_of:
                raise DataError(f"{path}: mask without a frame; {images / name} has no frame {path.stem}{masks_of}")
            found[index_of[_key(path)]] = path
        return dict(sorted(found.items()))

    flat: dict[int, Path] = {}
    objects: dict[int, dict[int, Path]] = {}
    if masks is not None and (masks / name).is_dir():
        flat = by_frame(masks / name, "")
        if not flat:
            every = {int(path.name): by_frame(path, f" (object {path.name})") for path in _object_folders(masks / name)}
            objects = {number: found for number, found in every.items() if found}
    return SequenceFiles(name, tuple(frames), flat, resize, objects, masks / name if masks else None)


def _object_folders(folder: Path) -> list[Path]:
    folders = [path for path in folder.iterdir() if path.is_dir() and path.name.isdigit()]
    return sorted(folders, key=lambda path: int(path.name))


def _key(path: Path) -> int | str:
    return int(path.stem) if path.stem.isdigit() else path.stem


def table_of(split: Split, resources: Path) -> Path:
    """Where the table of a split's sequences is; frames and masks lie beside it."""
    return resources / "datasets" / split.dataset / split.name / "sequences.parquet"


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
    attributes: dict[str, list[str]] = json.loads(file.read_text()) if file.exists() else {}
    names = select_sequences(names, split, attributes)
    if not names:
        raise DataError(f"{split}: `select`, `exclude`, `attributes` and `sample` leave no sequence of {images}")
    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(lambda name: _row(images, masks, name, split, attributes.get(name, [])), names))
    for row in rows:
        if row["problem"]:
            logger.warning("sequence %s: %s", row["sequence"], row["problem"])
    _warn_of_prompts_alone(rows, split)
    table = pa.Table.from_pylist(rows, schema=TABLE).replace_schema_metadata({"counts": json.dumps(counts)})
    with whole(output) as temporary:
        pq.write_table(table, temporary, compression="zstd")


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
    except DataError as error:
        row["problem"] = str(error)
    return row


def select_sequences(names: list[str], split: Split, attributes: Mapping[str, list[str]]) -> list[str]:
    """The names that `select`, `exclude`, `attributes` and `sample` of a split keep, in order.

    A sample is drawn from all names by their hash with the seed, so it is the same on every machine and whatever else
    is selected; `part: rest` is exactly what `part: drawn` leaves out.
    """

    def matches(name: str, patterns: tuple[str, ...]) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    kept = [name for name in names if not split.select or matches(name, split.select)]
    kept = [name for name in kept if not matches(name, split.exclude)]
    if split.attributes:
        kept = [name for name in kept if set(split.attributes) & set(attributes.get(name, ()))]
    if split.sample:
        seed = split.sample.get("seed", 0)
        ranked = sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
        drawn = set(ranked[: max(1, round(split.sample["fraction"] * len(names)))])
        kept = [name for name in kept if (name in drawn) == (split.sample.get("part", "drawn") == "drawn")]
    return kept


def read_counts(path: Path) -> tuple[int, int | None]:
    """How many sequences a split has on disk, before any selection, and how many the catalog expects (or None)."""
    with pq.ParquetFile(path) as file:
        counts = json.loads((file.schema_arrow.metadata or {}).get(b"counts", b"{}"))
        return counts.get("found", file.metadata.num_rows), counts.get("expected")


def read_table(path: Path) -> list[dict]:
    """Rows of a sequences table, as written by index_split."""
    with pq.ParquetFile(path) as file:  # pq.read_table would import pandas
        return file.read().to_pylist()
