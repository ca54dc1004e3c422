"""Files that are there whole or not at all, and the notes that the steps leave for one another on disk."""

import contextlib
import errno
import glob
import hashlib
import json
import logging
import os
import re
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vosarena.base.errors import DataError

logger = logging.getLogger(__name__)

_CHECKSUM = "checksum"


@contextmanager
def whole(path: Path, *, alone: bool = False) -> Iterator[Path]:
    """A place beside `path` to write to; what stands there when the block ends becomes `path` in one step.

    If the block fails, `path` is as it was, and so it is after a power cut: the content is on the disk before the name
    changes. The folder is made. alone: nobody else writes this file now, so what is
    beside it was left by processes that were killed, and is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part") if alone else ():
        left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{new_token()}.part")
    try:
        yield temporary
        to_disk(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def to_disk(path: Path) -> None:
    """Wait until the disk has the content of a file; file systems that cannot say so are believed."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise


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
    """The mapping in a JSON file; empty if the file is not there or holds anything else."""
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def write_note(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file that `read_note` can tell from a damaged one: it holds a checksum of its content."""
    plain = json.loads(json.dumps(content))  # as it will be read
    write_json(path, {**plain, _CHECKSUM: checksum(plain)})


def read_note(path: Path) -> dict[str, Any]:
    """What write_note wrote; empty if the file is not there or damaged. One without a checksum is taken as it is."""
    content = read_json(path)
    expected = content.pop(_CHECKSUM, None)
    if expected is not None and expected != checksum(content):
        logger.warning("%s is damaged, and counts as one that is not there", path)
        return {}
    return content


def checksum(content: Any) -> str:
    """16 hexadecimal digits that change with the content, which must be as JSON gives it back."""
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


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


def printable(text: str | Path) -> str:
    r"""A name or message that can be shown and stored: bytes that are not UTF-8, control characters become `\xe9`."""
    shown = os.fsencode(text).decode(errors="backslashreplace")
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda match: f"\\x{ord(match[0]):02x}", shown)


def with_home(value: Any) -> Any:
    """Text that begins with `~/` or `~user/` as the path that it means, also in lists and mappings."""
    if isinstance(value, str):
        return os.path.expanduser(value)  # noqa: PTH111 (text of an unknown user stays as it is)
    if isinstance(value, Mapping):
        return {key: with_home(item) for key, item in value.items()}
    return [with_home(item) for item in value] if isinstance(value, list) else value


def path_name(name: str) -> str:
    """The name as one part of a path that Snakemake takes as it is; an ordinary name is unchanged.

    Snakemake takes {x} for a wildcard and <x> for a path variable, its log separates files by commas and adds remarks
    in brackets, and bytes that are no text cannot be kept. Such characters are written as in web addresses (%7B), and
    so is %: no two names are written alike.
    """
    safe = (
        char if char.isprintable() and char not in "{}<>%,()\\" else quote(char, safe="", errors="surrogateescape")
        for char in name
    )
    return re.sub(r"^ | $", "%20", "".join(safe))


def note_of(place: Path) -> Path:
    """The file beside a file or folder that says what it is: `<name>.json`."""
    return place.with_name(f"{place.name}.json")


def check_folder(folder: Path) -> None:
    """Make a folder and try to write into it: before the work, not after it.

    Raises DataError naming the folder where that fails, such as on a full disk.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(4096))
    except OSError as error:
        raise DataError(
            f"{folder}: nothing can be written there ({error.strerror}); free space, change its permissions or choose "
            "another folder"
        ) from None


#: Goes into the metadata of a file that is sealed: the place of its digest.
SEAL = f"sealed with blake2b {'0' * 40}"
_SEAL = re.compile(re.escape(SEAL.rstrip("0").encode()) + rb"([0-9a-f]{40})")


def seal(path: Path) -> None:
    """Put the digest of a file into it, where its SEAL is, so that read_sealed notices every changed bit."""
    data = path.read_bytes()
    start, end = [*_SEAL.finditer(data)][-1].span(1)
    with path.open("r+b") as file:
        file.seek(start)
        file.write(_digest(data, start, end))


def read_sealed(path: Path, kind: str = "table") -> bytes:
    """The bytes of a sealed file. Raises DataError, which names its kind, if any of them is not what was written."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} is not a {kind}, it cannot be read ({error.strerror})") from None
    found = [*_SEAL.finditer(data)]
    if not found or found[-1][1] != _digest(data, *found[-1].span(1)):
        raise DataError(f"{path} is damaged or is not a {kind} of this version; remove it, the next run makes it again")
    return data


def is_damaged(path: Path) -> bool:
    """Whether a sealed file is there and not what was written."""
    try:
        return path.is_file() and not read_sealed(path)
    except DataError:
        return True


def _digest(data: bytes, start: int, end: int) -> bytes:
    """Of all bytes but those of the digest itself."""
    digest = hashlib.blake2b(data[:start], digest_size=20)
    digest.update(data[end:])
    return digest.hexdigest().encode()
