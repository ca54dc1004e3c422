"""Reading and writing files. A file that is written here is complete or does not exist."""

import contextlib
import errno
import glob
import json
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vosarena.base.errors import DataError


@contextmanager
def atomic_path(path: Path, *, alone: bool = False) -> Iterator[Path]:
    """Write a file completely or not at all.

    The block writes to a temporary path next to `path`, which is renamed to `path` at the end. If the block raises,
    `path` keeps its old content, and so it does after a power cut: the content is on the disk before the name changes.

    Args:
        path: The file to write. Its folder is created.
        alone: No other process writes this file now, so temporary files of killed processes can be removed.

    Yields:
        The temporary path.

    Examples:
        >>> with atomic_path(Path("table.csv")) as temporary:
        ...     temporary.write_text("a,b")
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if alone:
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            leftover.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{new_token()}.part")
    try:
        yield temporary
        flush_to_disk(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Wait until the content of a file is on the disk, where the file system can say so."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise


def new_token() -> str:
    """Return 16 random hexadecimal digits."""
    return uuid.uuid4().hex[:16]


def write_text(path: Path, content: str) -> None:
    """Write a text file completely or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file completely or not at all."""
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file, or an empty one if the file is missing or holds anything else."""
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def read_text(path: Path) -> str:
    """Read a text file that a person wrote.

    Args:
        path: A file in UTF-8, with or without a byte order mark, or in UTF-16 as Windows writes it.

    Raises:
        DataError: The file cannot be read or is not text.
    """
    try:
        data = path.read_bytes()
        return data.decode(json.detect_encoding(data))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected a text file") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a text file in UTF-8; save it as UTF-8") from None


def check_folder(folder: Path) -> None:
    """Create a folder and check that it is writable, so that work does not fail at its end.

    Raises:
        DataError: Nothing can be written to the folder, for example because the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(4096))
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be written to ({error.strerror}); free space, change its permissions or choose another "
            "folder"
        ) from None
