"""Sealed files: tables that contain a digest of their own bytes, so that every changed bit is noticed."""

import hashlib
import re
from pathlib import Path

from vosarena.base.errors import DataError

#: Write this text into the metadata of a file; `seal` replaces its zeros by the digest.
SEAL = f"sealed with blake2b {'0' * 40}"
_SEAL = re.compile(re.escape(SEAL.rstrip("0").encode()) + rb"([0-9a-f]{40})")


def seal(path: Path) -> None:
    """Write the digest of a file into it, in place of its SEAL."""
    data = path.read_bytes()
    start, end = [*_SEAL.finditer(data)][-1].span(1)
    with path.open("r+b") as file:
        file.seek(start)
        file.write(_digest(data, start, end))


def read_sealed(path: Path, kind: str = "table") -> bytes:
    """Return the bytes of a sealed file.

    Args:
        path: The file.
        kind: What the file is, for messages.

    Raises:
        DataError: The file cannot be read or was changed.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: there is no {kind} yet; run the workflow again to create it") from None
    except OSError as error:
        raise DataError(f"{path}: the {kind} cannot be read ({error.strerror}); make it readable") from None
    found = [*_SEAL.finditer(data)]
    if not found or found[-1][1] != _digest(data, *found[-1].span(1)):
        raise DataError(
            f"{path}: damaged, or not a {kind} of this version; remove it and run again, the next run recreates it"
        )
    return data


def is_damaged(path: Path) -> bool:
    """Whether a sealed file exists but was changed."""
    try:
        return path.is_file() and not read_sealed(path)
    except DataError:
        return True


def _digest(data: bytes, start: int, end: int) -> bytes:
    """Return the digest of all bytes except those of the digest itself."""
    digest = hashlib.blake2b(data[:start], digest_size=20)
    digest.update(data[end:])
    return digest.hexdigest().encode()
