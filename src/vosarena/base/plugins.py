"""Classes of users: by entry point of an installed package, or in a file, as `path/to/file.py:Class`."""

import importlib.util
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from vosarena.base.errors import VosarenaError


def installed(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name."""
    return {point.name: point for point in entry_points(group=group)}


def is_in_file(name: str) -> bool:
    """Whether a name is `path/to/file.py:Class`."""
    return ".py:" in name


def file_of(name: str, kind: str, error: type[VosarenaError]) -> Path:
    """Return the file of `path/to/file.py:Class`.

    Args:
        name: The name.
        kind: What the class is, for the message.
        error: Class of the error.

    Raises:
        VosarenaError: There is no such file; the error is of the given class.
    """
    file = Path(name.rpartition(":")[0])
    if not file.is_file():
        raise error(f"{kind} {name!r}: there is no file {file}")
    return file


def load_from_file(name: str, kind: str, error: type[VosarenaError]) -> Any:
    """Run the file of `path/to/file.py:Class` and return the class. Arguments and errors as of `file_of`."""
    file, attribute = file_of(name, kind, error), name.rpartition(":")[2]
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    # Not through the loader: its cache of compiled files misses an edit within the same second.
    exec(compile(file.read_bytes(), file, "exec"), module.__dict__)
    if not hasattr(module, attribute):
        raise error(f"{kind} {name!r}: {file} defines no {attribute!r}")
    return getattr(module, attribute)
