"""What the steps leave for one another on disk: notes that are there whole or not at all, and locks."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """Only one process at a time works on `place`; the others wait."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_name(f".{place.name}.lock")):
        yield


def note_of(place: Path) -> Path:
    """The file beside a file or folder that says what it is: `<name>.json`."""
    return place.with_name(f"{place.name}.json")


def read_json(path: Path) -> dict[str, Any]:
    """What write_json wrote; empty if the file is not there or damaged."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)
