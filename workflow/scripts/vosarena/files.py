"""Files that are there whole or not at all, and the notes that the steps leave for one another on disk."""

import glob
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vosarena.errors import DataError


@contextmanager
def whole(path: Path, *, alone: bool = False) -> Iterator[Path]:
    """A place beside `path` to write to; what stands there when the block ends becomes `path` in one step.

    If the block fails, `path` is as it was. The folder is made. alone: nobody else writes this file now, so what is
    beside it was left by processes that were killed, and is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part") if alone else ():
        left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{new_token()}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def new_token() -> str:
    """16 hexadecimal digits that no other process will draw."""
    return uuid.uuid4().hex[:16]


def write_text(path: Path, content: str) -> None:
    """Write a text file whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """What write_json wrote; empty if the file is not there, or damaged by hand."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}


def read_text(path: Path) -> str:
    """Text of a file that a person wrote: UTF-8 with or without a byte order mark, or UTF-16 as Windows writes it.

    Raises DataError if the file cannot be read or is no text.
    """
    try:
        data = path.read_bytes()
        return data.decode(json.detect_encoding(data))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected a text file") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a text file in UTF-8; save it as one") from None


def printable(name: str | Path) -> str:
    r"""A name as it can be shown and stored: bytes that are no UTF-8 become `\xe9`."""
    return os.fsencode(name).decode(errors="backslashreplace")


def note_of(place: Path) -> Path:
    """The file beside a file or folder that says what it is: `<name>.json`."""
    return place.with_name(f"{place.name}.json")
