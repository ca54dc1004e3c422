"""Checks of archives for evaluation servers, made here or elsewhere: every fault that shows without ground truth.

The catalog says what a server expects (`submission:` of a split): the folder that contains the sequences, every frame
or only those that meta.json names, and whether team.json is required. DAVIS test-dev and MOSE expect sequence folders
at the root with every frame; YouTube-VOS `Annotations/` with the required frames; LVOS `Annotations/`; LSVOS 2025 also
team.json (pages of the challenges).
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vosarena.base.errors import DataError, MaskError
from vosarena.base.text import summarise_names
from vosarena.config.catalogs import Split
from vosarena.config.dataset_schema import SubmissionEntry
from vosarena.datasets.facts import check_facts, required_frames
from vosarena.datasets.sequences import IMAGES, META, read_sequence
from vosarena.datasets.table import read_table
from vosarena.io import png
from vosarena.io.masks import decode_mask

TEAM = "team.json"
_ENCRYPTED = 1  # flag of a member
_MAX_OVERHEAD = 2**20  # bytes of a PNG besides its pixels, or of team.json

ReadMember = Callable[[str, int], bytes]  # name and largest allowed size


@dataclass(frozen=True)
class ExpectedSequence:
    """What a server expects of one sequence: frame stems, (height, width), and the ids of the prompts."""

    frames: tuple[str, ...]
    size: tuple[int, int]
    objects: frozenset[int]


@dataclass(frozen=True)
class SubmissionFormat:
    """The layout that a server expects.

    Attributes:
        folder: Folder of the sequences inside the archive; empty for the root.
        team: Content of team.json; None if there is none.
        sequences: What is expected of each sequence.
    """

    folder: str
    team: Mapping[str, Any] | None
    sequences: Mapping[str, ExpectedSequence]

    @property
    def prefix(self) -> str:
        """What names of masks in the archive begin with."""
        return f"{self.folder}/" if self.folder else ""

    def member(self, sequence: str, stem: str) -> str:
        """Name of a frame's mask in the archive."""
        return f"{self.prefix}{sequence}/{stem}.png"


def submission_format(split: Split, table: Path) -> SubmissionFormat:
    """What the server of a prepared split expects.

    Args:
        split: The split.
        table: Its table of sequences, next to its frames.

    Raises:
        DataError: The server requires certain frames, and the split's meta file does not name them.
    """
    root, options = table.parent, split.submission or SubmissionEntry()
    check_facts(root)
    meta, required = root / META, None
    if options.frames == "required":
        if not meta.is_file():
            raise DataError(f"{meta} is missing; the server of {split} expects only the frames that it names")
        required = required_frames(meta)
    sequences = {}
    for record in read_table(table):
        name = record.sequence
        stems = [path.stem for path in read_sequence(root / IMAGES, None, name).frames]
        if required is not None:
            if name not in required:
                raise DataError(f"{meta} does not have sequence {name}; the server of {split} expects what it names")
            stems = [stem for stem in stems if stem in required[name]]
        sequences[name] = ExpectedSequence(tuple(stems), (record.height, record.width), frozenset(record.object_ids))
    return SubmissionFormat(options.folder, options.team, sequences)


def check_submission(file: Path, expected: SubmissionFormat) -> list[str]:
    """Find every fault of an archive.

    Args:
        file: The archive.
        expected: What the server expects.

    Returns:
        The faults as sentences; empty if a server would accept the archive.

    Raises:
        DataError: There is no such file.
    """
    try:
        with _opened(file) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            counts = Counter(info.filename for info in infos)
            faults = [f"{name}: more than once in the archive" for name in sorted(counts) if counts[name] > 1]
            if encrypted := sorted({info.filename for info in infos if info.flag_bits & _ENCRYPTED}):
                shown = summarise_names(encrypted, 5)
                return [*faults, f"{len(encrypted)} files are encrypted: {shown}; zip them without a password"]

            def read(name: str, limit: int) -> bytes:
                return _read_member(archive, name, limit)

            return faults + find_faults(expected, list(counts), read, team=expected.team is not None)
    except _DamagedArchiveError as error:
        return [str(error)]


def sequences_in(file: Path) -> set[str]:
    """Names of all folders with PNG files in an archive. Raises DataError if the file is not an archive."""
    with _opened(file) as archive:
        return {name.split("/")[-2] for name in archive.namelist() if name.endswith(".png") and "/" in name}


class _DamagedArchiveError(DataError):
    """A file is not a complete ZIP archive."""


@contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    """An archive to read. Raises DataError if there is no such file, and its subclass if the archive is damaged."""
    if not file.exists():
        raise DataError(f"{file}: no such file")
    try:
        archive = zipfile.ZipFile(file)
    except Exception as error:  # of many classes, depending on which bytes are damaged
        raise _DamagedArchiveError(f"{file} is not a complete ZIP archive ({error}); create it again") from None
    with archive:
        yield archive


def _read_member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """A member of at most `limit` bytes. Raises DataError if it cannot be read."""
    try:
        with archive.open(name) as member:
            data = member.read(limit + 1)
    except Exception as error:  # as above, and those of the decompressors
        raise DataError(f"cannot be read ({error or type(error).__name__}); create the archive again") from None
    if len(data) > limit:
        raise DataError(f"is larger than {limit} bytes when unpacked")
    return data


def find_faults(expected: SubmissionFormat, names: Sequence[str], read: ReadMember, team: bool) -> list[str]:
    """Every fault of the members of an archive, as sentences.

    Args:
        expected: What the server expects.
        names: Names of the members.
        read: Reads a member; raises DataError or OSError.
        team: Whether team.json is checked too.
    """
    prefix = expected.prefix
    unexpected, present = [], dict[str, dict[str, str]]()
    for name in names:
        parts = name.removeprefix(prefix).split("/")
        if expected.team is not None and name == TEAM:
            continue
        if name.startswith(prefix) and len(parts) == 2 and parts[1].endswith(".png") and parts[0] in expected.sequences:
            present.setdefault(parts[0], {})[parts[1].removesuffix(".png")] = name
        else:
            unexpected.append(name)
    faults = list(unexpected_files(unexpected, expected))
    if team:
        faults += _team_faults(names, read)
    for sequence, item in expected.sequences.items():
        found = present.get(sequence, {})
        if not found:
            faults.append(f"sequence {sequence}: missing; expected {len(item.frames)} masks in {prefix}{sequence}/")
            continue
        if missing := [stem for stem in item.frames if stem not in found]:
            faults.append(f"sequence {sequence}: {len(missing)} frames missing: {summarise_names(missing, 5)}")
        known = set(item.frames)
        if extra := [stem for stem in found if stem not in known]:
            faults.append(
                f"sequence {sequence}: {len(extra)} frames that the server does not expect: {summarise_names(extra, 5)}"
            )
        for stem in item.frames:
            if stem in found and (fault := _mask_fault(item, found[stem], read)):
                faults.append(f"sequence {sequence}, frame {stem}: {fault}")
    return faults


def unexpected_files(names: Iterable[str], expected: SubmissionFormat) -> Iterator[str]:
    """Faults of files that the server does not expect: one for each folder, and one for all misplaced sequences."""
    by_folder: dict[str, list[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        by_folder.setdefault(folder, []).append(file)
    misplaced: Counter[str] = Counter()
    for folder, files in by_folder.items():
        above, _, last = folder.rpartition("/")
        if last in expected.sequences and above != expected.folder:
            misplaced[above] += 1
        else:
            yield f"{folder or 'root'}: {len(files)} files that do not belong there: {summarise_names(files, 5)}"
    for above, count in misplaced.items():
        where = expected.prefix or "the root of the archive"
        yield f"{count} sequences are in {above or 'the root'}; expected them in {where}"


def _team_faults(names: Sequence[str], read: ReadMember) -> list[str]:
    if TEAM not in names:
        return [f"{TEAM} is missing at the root of the archive"]
    try:
        content = json.loads(read(TEAM, _MAX_OVERHEAD))
    except DataError as error:
        return [f"{TEAM}: {error}"]
    except (ValueError, RecursionError) as error:
        return [f"{TEAM}: not valid JSON: {error}"]
    if not isinstance(content, dict) or not content:
        return [f"{TEAM}: expected a JSON object that describes the team"]
    return [f"{TEAM}: {key} is empty" for key, value in content.items() if value in ("", [], None)]


def _mask_fault(expected: ExpectedSequence, name: str, read: ReadMember) -> str:
    """The fault of one mask; empty if there is none."""
    height, width = expected.size
    try:
        data = read(name, 2 * height * width + _MAX_OVERHEAD)
    except DataError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if data[:8] != png.SIGNATURE or len(data) < 33:
        return "is not a PNG file"
    found_width, found_height, _, colour = struct.unpack(">IIBB", data[16:26])
    if colour != png.PALETTE:
        return f"is a PNG of colour type {colour}; expected a palette PNG (colour type 3)"
    if (found_height, found_width) != expected.size:
        return f"is {found_width}x{found_height}; expected the frame's {width}x{height}"
    try:
        labels = np.flatnonzero(np.bincount(decode_mask(data, name).ravel(), minlength=256))
    except MaskError as error:
        return str(error)
    if unknown := sorted({int(label) for label in labels} - {0} - expected.objects):
        prompts = summarise_names(sorted(expected.objects), 5)
        return f"has ids {summarise_names(unknown, 5)}; expected only those of the prompts, {prompts}"
    return ""
