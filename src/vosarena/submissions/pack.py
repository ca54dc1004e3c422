"""Archives for evaluation servers: packed only when nothing is wrong, the same bytes for the same masks.

What a server wants stands in the catalog (`submission:` of a split): the folder that holds the sequences, every frame
or only those that meta.json names, and whether team.json has to be there. DAVIS test-dev and MOSE take sequence folders
at the root with every frame; YouTube-VOS `Annotations/` with the required frames; LVOS `Annotations/`; LSVOS 2025 also
team.json (pages of the challenges).
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vosarena.base.errors import ConfigError, DataError, MaskError
from vosarena.base.files import atomic_path, check_folder
from vosarena.config.study import Split
from vosarena.datasets.sequences import IMAGES, META, read_sequence
from vosarena.datasets.table import read_table
from vosarena.io import png
from vosarena.io.masks import decode_mask, masks_digest
from vosarena.predictions.store import Store

TEAM = "team.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_SHOWN = 5  # names in one sentence
_ENCRYPTED = 1  # flag of a member
_MOST_OVERHEAD = 2**20  # bytes of a PNG besides its pixels, or of team.json

ReadMember = Callable[[str, int], bytes]  # name and the most bytes that it may have


@dataclass(frozen=True)
class Wanted:
    """What a server expects of one sequence: frame stems, (height, width) and the ids of its prompts."""

    frames: tuple[str, ...]
    size: tuple[int, int]
    objects: frozenset[int]


@dataclass(frozen=True)
class Format:
    """A server's layout: folder of the sequences inside the archive (empty: root), and team.json's content if any."""

    folder: str
    team: Mapping[str, Any] | None
    sequences: Mapping[str, Wanted]

    def name(self, sequence: str, stem: str) -> str:
        """Name of a frame's mask in the archive."""
        return "/".join([*filter(None, [self.folder]), sequence, f"{stem}.png"])


def expected(split: Split, table: Path) -> Format:
    """What the server of a prepared split wants. Raises DataError where frames that it requires are unknown."""
    root, options = table.parent, dict(split.submission or {})
    meta, videos = root / META, None
    if options.get("frames") == "required":
        if not meta.is_file():
            raise DataError(f"{meta} is missing; the server of {split} wants only the frames that it names")
        videos = _required_frames(meta)
    sequences = {}
    for record in read_table(table):
        name = record.sequence
        stems = [path.stem for path in read_sequence(root / IMAGES, None, name).frames]
        if videos is not None:
            if name not in videos:
                raise DataError(f"{meta} does not have sequence {name}; the server of {split} wants what it names")
            stems = [stem for stem in stems if stem in videos[name]]
        sequences[name] = Wanted(tuple(stems), (record.height, record.width), frozenset(record.object_ids))
    return Format(options.get("folder", ""), options.get("team"), sequences)


def _required_frames(meta: Path) -> dict[str, set[str]]:
    """The frames of each sequence that a meta file of YouTube-VOS names. Raises DataError if it is none."""
    try:
        videos = json.loads(meta.read_text())["videos"]
        return {
            name: {str(frame) for item in video["objects"].values() for frame in item["frames"]}
            for name, video in videos.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{meta}: not a meta file that names frames ({type(error).__name__}: {error}); get it again"
        ) from None


def pack_submission(split: Split, table: Path, predictions: Path, output: Path, statuses: Sequence[Path] = ()) -> None:
    """Write the archive of one model's predictions, atomically, after every check of `check_submission`.

    predictions: the model's store. statuses: status files of its shards; where they are given, a prediction that is not
    what its manifest vouches for is discarded with its shard's status, so that the next run tracks it again. Raises
    DataError listing every fault; nothing is written then.
    """
    if split.ground_truth == "none":
        raise ConfigError(f"{split} has `ground_truth: none`, so no server scores it; write first_frame if one does")
    check_folder(output.parent)
    wanted, store = expected(split, table), Store(predictions)
    members: dict[str, Path] = {}
    faults, stale, sound = [], [], dict[str, Wanted]()
    for sequence, item in wanted.sequences.items():
        manifest, folder = store.manifest(sequence), store.masks(sequence)
        if manifest is None:
            faults.append(f"sequence {sequence}: not predicted yet")
            continue
        try:
            digest = masks_digest((stem, folder / f"{stem}.png") for stem in manifest.frames)
            fault = "" if digest == manifest.masks_digest else f"masks in {folder} are not those that were written"
        except FileNotFoundError as error:
            fault = f"{error.filename} is missing"
        if fault:
            stale.append(sequence)
            faults.append(f"sequence {sequence}: {fault}; track it again")
            continue
        sound[sequence] = item
        members |= {
            wanted.name(sequence, stem): path for stem in item.frames if (path := folder / f"{stem}.png").is_file()
        }
    if statuses:
        store.delete_stale(stale, statuses)
    checked = replace(wanted, sequences=sound)
    faults += _faults(checked, list(members), lambda name, _: members[name].read_bytes(), team=False)
    if faults:
        raise DataError("\n".join([f"{output}: not packed, {len(faults)} faults:", *(f"  {line}" for line in faults)]))
    # Stored, not deflated: PNGs are compressed already, and the bytes then depend on no library's version.
    with atomic_path(output, alone=True) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        if wanted.team is not None:
            archive.writestr(_member(TEAM), json.dumps(wanted.team, indent=1, sort_keys=True) + "\n")
        for name, path in members.items():
            archive.writestr(_member(name), path.read_bytes())


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system, info.external_attr = 3, 0o644 << 16  # as on Linux, wherever it is made
    return info


def check_submission(file: Path, wanted: Format) -> list[str]:
    """Every fault of an archive, made here or elsewhere, as sentences; an empty list if a server would take it."""
    try:
        with _opened(file) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            times = Counter(info.filename for info in infos)
            faults = [f"{name}: stands in the archive more than once" for name in sorted(times) if times[name] > 1]
            if secret := sorted({info.filename for info in infos if info.flag_bits & _ENCRYPTED}):
                faults.append(f"{len(secret)} files are encrypted: {_some(secret)}; pack them without a password")
                return faults

            def read(name: str, most: int) -> bytes:
                return _member_bytes(archive, name, most)

            return faults + _faults(wanted, list(times), read, team=wanted.team is not None)
    except _DamagedArchiveError as error:
        return [str(error)]


def sequences_in(file: Path) -> set[str]:
    """Names of all folders that hold PNGs in an archive. Raises DataError if it is none."""
    with _opened(file) as archive:
        return {name.split("/")[-2] for name in archive.namelist() if name.endswith(".png") and "/" in name}


class _DamagedArchiveError(DataError):
    """A file is no whole ZIP archive."""


@contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    """An archive to read. Raises DataError if there is no such file, and its subclass if that is no whole archive."""
    if not file.exists():
        raise DataError(f"{file}: no such file")
    try:
        archive = zipfile.ZipFile(file)
    except Exception as error:  # of many classes, depending on which bytes are damaged
        raise _DamagedArchiveError(f"{file} is not a whole ZIP archive ({error}); pack it again") from None
    with archive:
        yield archive


def _member_bytes(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """A member of at most `most` bytes. Raises DataError if it cannot be read."""
    try:
        with archive.open(name) as member:
            data = member.read(most + 1)
    except Exception as error:  # as above, and those of the decompressors
        raise DataError(f"cannot be read ({error or type(error).__name__}); pack it again") from None
    if len(data) > most:
        raise DataError(f"is larger than {most} bytes when it is unpacked")
    return data


def _faults(wanted: Format, names: Sequence[str], read: ReadMember, team: bool) -> list[str]:
    """All that is wrong with the members of an archive."""
    prefix = f"{wanted.folder}/" if wanted.folder else ""
    strangers, present = [], dict[str, dict[str, str]]()
    for name in names:
        parts = name.removeprefix(prefix).split("/")
        if wanted.team is not None and name == TEAM:
            continue
        if name.startswith(prefix) and len(parts) == 2 and parts[1].endswith(".png") and parts[0] in wanted.sequences:
            present.setdefault(parts[0], {})[parts[1].removesuffix(".png")] = name
        else:
            strangers.append(name)
    faults = list(_strangers(strangers, wanted, prefix))
    if team:
        faults += _team_faults(names, read)
    for sequence, item in wanted.sequences.items():
        found = present.get(sequence, {})
        if not found:
            faults.append(f"sequence {sequence}: missing; expected {len(item.frames)} masks in {prefix}{sequence}/")
            continue
        if missing := [stem for stem in item.frames if stem not in found]:
            faults.append(f"sequence {sequence}: {len(missing)} frames missing: {_some(missing)}")
        known = set(item.frames)
        if extra := [stem for stem in found if stem not in known]:
            faults.append(f"sequence {sequence}: {len(extra)} frames that the server does not expect: {_some(extra)}")
        for stem in item.frames:
            if stem in found and (fault := _mask_fault(item, found[stem], read)):
                faults.append(f"sequence {sequence}, frame {stem}: {fault}")
    return faults


def _strangers(names: Sequence[str], wanted: Format, prefix: str) -> Iterator[str]:
    """Files that have no place in the archive, by folder; and the folder that all lies in by mistake, once."""
    by_folder: dict[str, list[str]] = {}
    for name in names:
        by_folder.setdefault(name.rpartition("/")[0], []).append(name.rpartition("/")[2])
    misplaced: dict[str, int] = {}
    for folder, files in by_folder.items():
        above, _, last = folder.rpartition("/")
        if last in wanted.sequences and above != prefix.rstrip("/"):
            misplaced[above] = misplaced.get(above, 0) + 1
        else:
            yield f"{folder or 'root'}: {len(files)} files that do not belong there: {_some(files)}"
    for above, count in misplaced.items():
        where = f"{prefix.rstrip('/')}/" if prefix else "the root of the archive"
        yield f"{count} sequences lie in {above or 'the root'}; expected them in {where}"


def _team_faults(names: Sequence[str], read: ReadMember) -> list[str]:
    if TEAM not in names:
        return [f"{TEAM} is missing at the root of the archive"]
    try:
        content = json.loads(read(TEAM, _MOST_OVERHEAD))
    except DataError as error:
        return [f"{TEAM}: {error}"]
    except (ValueError, RecursionError) as error:
        return [f"{TEAM}: not valid JSON: {error}"]
    if not isinstance(content, dict) or not content:
        return [f"{TEAM}: expected a JSON object that describes the team"]
    return [f"{TEAM}: {key} is empty" for key, value in content.items() if value in ("", [], None)]


def _mask_fault(wanted: Wanted, name: str, read: ReadMember) -> str:
    try:
        data = read(name, 2 * wanted.size[0] * wanted.size[1] + _MOST_OVERHEAD)
    except DataError as error:
        return str(error)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if data[:8] != png.SIGNATURE or len(data) < 33:
        return "is not a PNG file"
    width, height, _, colour = struct.unpack(">IIBB", data[16:26])
    if colour != png.PALETTE:
        return f"is a PNG of colour type {colour}; expected a palette PNG (colour type 3)"
    if (height, width) != wanted.size:
        return f"is {width}x{height}; expected the frame's {wanted.size[1]}x{wanted.size[0]}"
    try:
        labels = np.flatnonzero(np.bincount(decode_mask(data, name).ravel(), minlength=256))
    except MaskError as error:
        return str(error)
    strange = sorted({int(label) for label in labels} - {0} - wanted.objects)
    if strange:
        return f"has ids {_some(strange)}; expected only those of the prompts, {_some(sorted(wanted.objects))}"
    return ""


def _some(items: Sequence[Any]) -> str:
    text = ", ".join(map(str, items[:_SHOWN]))
    return text if len(items) <= _SHOWN else f"{text} and {len(items) - _SHOWN} more"
