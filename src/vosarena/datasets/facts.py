"""What a dataset says about its sequences, next to their prepared folders: `attributes.json` and `meta.json`.

The note of a prepared split has the digests of both files, so that one that was edited, damaged or removed is noticed
before it changes a score. `frame_rates.json` has the frame rates of videos; no score depends on it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vosarena.base.errors import DataError
from vosarena.base.files import write_json
from vosarena.base.hashing import file_sha256
from vosarena.base.notes import read_note
from vosarena.datasets.sequences import ATTRIBUTES, META

if TYPE_CHECKING:
    from vosarena.config.catalogs import Split  # pydantic, which environments of trackers do not need

PREPARED_NOTE = ".prepared.json"  # from which input the folder was prepared, and what it contains
FRAME_RATES = "frame_rates.json"
FRAME_RATE = 24.0  # frames per second where nobody says it
PREPARED = "prepared.txt"  # the same for people; the output of the rule


def write_facts(root: Path, attributes: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Write the files of a split; a dataset without attributes or meta data has no such file.

    Args:
        root: Folder of the prepared split.
        attributes: Attributes of each sequence, by name.
        meta: Objects and their frames of each sequence, by name.
    """
    for name, facts in ((ATTRIBUTES, attributes), (META, {"videos": meta} if meta else {})):
        if facts:
            write_json(root / name, facts)
        else:
            (root / name).unlink(missing_ok=True)


def facts_digests(root: Path) -> dict[str, str]:
    """Return the SHA-256 of the files that a prepared split has, by name."""
    return {name: file_sha256(root / name) for name in (ATTRIBUTES, META) if (root / name).is_file()}


def check_facts(root: Path) -> None:
    """Check that both files are those that were written when the split was prepared.

    Args:
        root: Folder of the prepared split. One without a note was not made by `prepare_split` and is accepted.

    Raises:
        DataError: A file was changed, removed or added.
    """
    expected, found = read_note(root / PREPARED_NOTE).get("facts"), facts_digests(root)
    for name in (ATTRIBUTES, META):
        if expected is not None and expected.get(name) != found.get(name):
            raise DataError(
                f"{root / name}: changed since the split was prepared; remove {root / PREPARED} and run again to "
                "recreate it"
            )


def read_attributes(root: Path) -> dict[str, list[str]]:
    """Return the attributes of each sequence of a prepared split, by name.

    Raises:
        DataError: The file was changed or cannot be read.
    """
    check_facts(root)
    file = root / ATTRIBUTES
    try:
        attributes: dict[str, list[str]] = json.loads(file.read_bytes()) if file.exists() else {}
    except ValueError:
        raise DataError(f"{file}: damaged; remove {root / PREPARED} and run again to recreate it") from None
    return attributes


def write_frame_rates(root: Path, rates: Mapping[str, float]) -> None:
    """Write the frames per second of the sequences that were videos, by name; no file without any."""
    (root / FRAME_RATES).unlink(missing_ok=True)
    if rates:
        write_json(root / FRAME_RATES, rates)


def frame_rate_of(split: Split, root: Path, sequence: str) -> float:
    """Return the frames per second of a sequence: those of the config or catalog, of its video, or FRAME_RATE.

    Args:
        split: The split.
        root: Its prepared folder.
        sequence: Name of the sequence.
    """
    try:
        rates = json.loads((root / FRAME_RATES).read_bytes())
    except (OSError, ValueError):
        rates = {}
    return float(split.frame_rate or rates.get(sequence) or FRAME_RATE)


def required_frames(meta: Path) -> dict[str, set[str]]:
    """Return the frames of each sequence that the server expects, from a meta file of YouTube-VOS.

    Raises:
        DataError: The file is not such a meta file.
    """
    try:
        videos = json.loads(meta.read_text(encoding="utf-8"))["videos"]
        return {
            name: {str(frame) for item in video["objects"].values() for frame in item["frames"]}
            for name, video in videos.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{meta}: not a meta file that names frames ({type(error).__name__}: {error}); get it again"
        ) from None
