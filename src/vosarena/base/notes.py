"""Notes: small JSON files with a checksum, in which a step records what it made."""

import json
import logging
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from vosarena.base.files import read_json, write_json

logger = logging.getLogger(__name__)

_CHECKSUM = "checksum"


def sidecar_path(path: Path) -> Path:
    """Return the path of the note on a file or folder: `<name>.json` next to it."""
    return path.with_name(f"{path.name}.json")


def write_note(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file with a checksum, by which `read_note` recognises damage."""
    as_read = json.loads(json.dumps(content))
    write_json(path, {**as_read, _CHECKSUM: checksum(as_read)})


def read_note(path: Path) -> dict[str, Any]:
    """Return what `write_note` wrote, or an empty mapping if the file is missing or damaged.

    A file without a checksum is accepted.
    """
    content = read_json(path)
    expected = content.pop(_CHECKSUM, None)
    if expected is not None and expected != checksum(content):
        logger.warning("%s is damaged and is ignored", path)
        return {}
    return content


def checksum(content: Any) -> str:
    """Return 16 hexadecimal digits that change with the content, which must be as `json.loads` returns it."""
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
