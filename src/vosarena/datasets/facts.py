"""What a dataset says about its sequences, next to their prepared folders: `attributes.json` and `meta.json`.

The note of a prepared split has the digests of both files, so that one that was edited, damaged or removed is noticed
before it changes a score.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vosarena.base.errors import DataError
from vosarena.base.files import write_json
from vosarena.base.hashing import file_sha256
from vosarena.base.notes import read_note
from vosarena.datasets.sequences import ATTRIBUTES, META

PREPARED_NOTE = ".prepared.json"  # from which input the folder was prepared, and what it contains
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
