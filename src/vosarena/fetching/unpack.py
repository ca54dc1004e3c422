"""Unpack an untrusted zip or tar archive.

Only the members that are needed are unpacked, and nothing is written outside the output folder. The following are
rejected, with the name of the member: absolute paths, `..`, links that leave the folder, files below a link, and
devices. Archives that unpack to far more than their size are rejected too. The folder appears only when it is complete.
An extraction that is killed leaves only `.<name>.part`, which the next extraction removes.

The option `filter="data"` of tarfile covers links and devices. However, tarfile treats a damaged header as the end of
the archive and does not limit sizes. A small streaming reader is used instead.
"""

import bz2
import errno
import gzip
import json
import logging
import lzma
import os
import posixpath
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from vosarena.base.errors import DataError, VosarenaError
from vosarena.base.logs import progress_bar

logger = logging.getLogger(__name__)

BOMB_RATIO = 100  # images are hardly compressed further; deflate and sparse files reach 1000 and more
BOMB_FREE = 64 << 20  # bytes that can be unpacked at any ratio
LONGEST_PATH = 4096  # characters; no file system supports longer paths
# Bytes in a block of a tar file. They are added to the size of every member, so that millions of empty
# members are rejected too.
_BLOCK = 512
_LARGEST_HEADER = 1 << 20  # bytes of an extended header of a tar file, which has a long name or attributes
_MOST_HEADERS = 16  # extended headers of one member
_EXTENDED = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE,
             tarfile.SOLARIS_XHDTYPE)  # fmt: skip
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # flags of a member of a zip file
_REFUSED = "refused, get it from a source you trust"
_BY_HAND = "unpack it by hand and name the folder as `local`"
_JUNK = ("__MACOSX/", "._", ".DS_Store")
_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK00PK\x03\x04", b"PK\x07\x08PK\x03\x04")
_UNREAD = {b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!": "rar", b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x9d": "compress (.Z)"}
_COMPRESSED: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
    b"\x5d\0\0": lzma.LZMAFile,
}


class _Damaged(Exception):
    """An archive is damaged, as the message describes."""


@dataclass(frozen=True)
class _Member:
    name: str
    kind: str  # file | folder | link | hardlink | other
    size: int
    target: str
    open: Callable[[], Any]  # opens the content for reading


def extract(archive: Path, output: Path, wanted: Callable[[str], bool]) -> None:
    """Unpack the wanted members of an archive into a folder.

    A JSON or text file is not an archive and is copied into the folder unchanged.

    Args:
        archive: The archive.
        output: The folder to write. It is replaced if it exists.
        wanted: Function that takes the path of a member in the archive and returns whether the member is needed.

    Raises:
        DataError: The archive is damaged, unsafe or not supported, contains no wanted member, or cannot be written. The
            message has the name of the archive, and of the member if there is one.
    """
    part = output.with_name(f".{output.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        if archive.suffix in (".json", ".txt"):
            _check_json(archive)
            shutil.copyfile(archive, part / archive.name)
        else:
            with damage_named(archive):
                _unpack(archive, part, wanted)
        shutil.rmtree(output, ignore_errors=True)
        part.replace(output)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"{archive}: the disk is full, unpacking to {output}; make room and run again") from None
        raise DataError(f"{archive}: cannot be unpacked to {output} ({error.strerror or error})") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def damage_named(archive: str | Path) -> Iterator[None]:
    """Turn the errors that libraries raise for a damaged or malicious archive into a DataError with its name.

    The libraries raise their own errors, ValueError, RuntimeError, MemoryError and others. Errors of the disk are
    raised unchanged.

    Args:
        archive: Name of the archive in the message.

    Raises:
        DataError: The archive is damaged.
    """
    try:
        yield
    except VosarenaError:
        raise
    except Exception as error:
        known = getattr(error, "errno", None)
        if isinstance(error, OSError) and known not in (None, errno.EINVAL):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{archive}: damaged archive ({reason}); remove it and download it again") from None


def check_archive(archive: Path, name: str) -> None:
    """Check that a zip or tar archive is complete.

    Args:
        archive: The archive.
        name: Name of the archive in messages.

    Raises:
        DataError: The archive is incomplete, damaged, unsafe or not supported.
    """
    with damage_named(name):
        for _ in _members(archive, name):
            pass


def is_zip(path: Path) -> bool:
    """Return whether a file starts like a zip archive.

    The end of the file is not checked, because a tar file can end with a zip file.

    Args:
        path: The file.

    Returns:
        Whether the first bytes are those of a zip archive.
    """
    with path.open("rb") as file:
        return file.read(8).startswith(_ZIP)


def _unpack(archive: Path, folder: Path, wanted: Callable[[str], bool]) -> None:
    free = shutil.disk_usage(folder).free
    total = files = 0
    links: set[str] = set()
    with progress_bar(desc=f"unpack {archive.name}", unit="file") as bar:
        for member in _members(archive, archive):
            name = _checked(member, archive, links)
            total += member.size
            if total > free:
                raise DataError(
                    f"{archive}: unpacks to more than the {free >> 20} MiB that are free; make room and run again"
                )
            if not name or _is_junk(name) or not wanted(name):
                continue
            try:
                _place(member, folder, name, links)
            except (FileExistsError, NotADirectoryError, IsADirectoryError, FileNotFoundError):
                raise DataError(
                    f"{archive}: members contradict each other at {_shown(name)}; download it again"
                ) from None
            except OSError as error:
                if error.errno not in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
                    raise
                raise DataError(
                    f"{archive}: member {_shown(name)} cannot be written ({error.strerror}); {_BY_HAND}"
                ) from None
            files += member.kind != "folder"
            bar.update(member.kind != "folder")
    for name in links:  # checked after all members, because one link may lead through another
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise DataError(f"{archive}: member {_shown(name)} is a link that leaves the folder; {_REFUSED}")
    if not files:
        raise DataError(f"{archive}: nothing that is needed is in it; check that it is the right archive")


def _place(member: _Member, folder: Path, name: str, links: set[str]) -> None:
    """Write one member into the folder."""
    place = folder / name
    if member.kind == "folder":
        place.mkdir(parents=True, exist_ok=True)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if member.kind == "link":
        links.add(name)
        place.symlink_to(member.target)
    elif member.kind == "hardlink":
        os.link(folder / _joined("", member.target), place, follow_symlinks=False)
    else:
        _write(member, place)


def _members(archive: Path, name: str | Path) -> Iterator[_Member]:
    """Yield the members of a zip or tar archive, whose kind is detected from its first bytes and not from its name."""
    # DataError is raised if the archive unpacks to far more than its size, is encrypted or is of another kind. The
    # message uses `name` for the archive.
    with archive.open("rb") as file:
        start = file.read(_BLOCK)
    for mark, kind in _UNREAD.items():
        if start.startswith(mark):
            raise DataError(f"{name}: {kind} archives are not read here; {_BY_HAND}")
    compressed, total = archive.stat().st_size, 0
    for member in _zip_members(archive, name) if start.startswith(_ZIP) else _tar_members(archive, start):
        total += member.size + _BLOCK
        if total > BOMB_FREE and total > BOMB_RATIO * compressed:
            raise DataError(
                f"{name}: unpacks to more than {BOMB_RATIO} times its {compressed} bytes, like no archive of images "
                f"does; {_REFUSED}"
            )
        yield member


def _zip_members(archive: Path, name: str | Path) -> Iterator[_Member]:
    if not zipfile.is_zipfile(archive):
        raise _Damaged("not a whole zip file, its end is missing")
    with zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
        if infos and min(info.header_offset for info in infos) > 4:
            # Zip files are read from the end. If an archive was cut off after a zip file inside it, it looks like that
            # zip file.
            raise _Damaged("its list of files does not begin where it begins: it was cut off, or two were joined")
        for info in infos:
            if info.flag_bits & _ENCRYPTED:
                raise DataError(f"{name}: member {_shown(info.filename)} is encrypted; {_BY_HAND}")
            path = info.filename.replace("\\", "/")  # old Windows tools write backslashes
            mode = info.external_attr >> 16
            link = stat.S_ISLNK(mode) and info.create_system == 3
            special = stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
            kind = "link" if link else "folder" if path.endswith("/") else "other" if special else "file"
            target = opened.read(info).decode(errors="replace") if link and info.file_size < LONGEST_PATH else ""

            def content(info: zipfile.ZipInfo = info) -> IO[bytes]:
                try:
                    return opened.open(info)
                except NotImplementedError as error:  # Windows compresses large files with deflate64
                    member = f"member {_shown(info.filename)}"
                    raise DataError(f"{name}: {member} cannot be read here ({error}); {_BY_HAND}") from None

            yield _Member(path, kind, info.file_size, target, content)


def _tar_members(archive: Path, start: bytes) -> Iterator[_Member]:
    """Yield the members of a tar file, compressed or not, and read it to the end to verify its checksum."""
    # The members are in order. Only the function of tarfile that reads a single header is used, because tarfile treats
    # a damaged header as the end of the archive, reads headers of any size into memory, and never returns for some
    # headers (negative sizes, maps of sparse files).
    decoder = next((decoder for mark, decoder in _COMPRESSED.items() if start.startswith(mark)), None)
    with archive.open("rb") as raw, decoder(raw) if decoder else raw as file:
        extended: dict[str, str] = {}  # fields from the extended headers before a member
        headers = 0
        while header := _tar_header(file):
            headers += 1
            if header.type in _EXTENDED:
                if headers > _MOST_HEADERS:
                    raise _Damaged("too many headers in front of a member")
                extended = {**_extension(header, file), **extended}
                continue
            name, size = extended.get("path", header.name), _number(extended.get("size", str(header.size)))
            if header.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in extended):
                raise _Damaged(f"member {_shown(name)} is stored as a sparse file; pack it again without --sparse")
            if not header.isreg() and header.type in tarfile.SUPPORTED_TYPES:
                size = 0  # folders, links and devices have no content
            kind = ("file" if header.isreg() else "folder" if header.isdir() else "link" if header.issym()
                    else "hardlink" if header.islnk() else "other")  # fmt: skip
            begin, target = file.tell(), extended.get("linkpath", header.linkname)
            blocks = _Blocks(file, size)
            yield _Member(name.replace("\\", "/"), kind, size, target, lambda blocks=blocks: blocks)  # type: ignore[misc]
            file.seek(begin + size + -size % _BLOCK)
            extended, headers = {}, 0
        rest = 0
        while block := file.read(1 << 20):
            rest += len(block)
            if rest > BOMB_FREE or block.strip(b"\0"):
                raise _Damaged("something follows its end mark")


def _tar_header(file: IO[bytes]) -> tarfile.TarInfo | None:
    """Return the next header, or None at the end mark."""
    begin = file.tell()
    try:
        return tarfile.TarInfo.frombuf(file.read(_BLOCK), "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        if begin == 0:
            raise _Damaged("no zip or tar archive, or cut off") from None
        if isinstance(error, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
            return None
        raise _Damaged(f"{error}, it ends in the middle") from None


def _extension(header: tarfile.TarInfo, file: IO[bytes]) -> dict[str, str]:
    """Return the fields of an extended header: `path`, `linkpath`, `size` and others, which are not used."""
    if not 0 <= header.size <= _LARGEST_HEADER:
        raise _Damaged(f"a header of {header.size} bytes")
    data = file.read(header.size + -header.size % _BLOCK)[: header.size]
    if len(data) < header.size:
        raise _Damaged("it ends in the middle")
    if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
        key = "path" if header.type == tarfile.GNUTYPE_LONGNAME else "linkpath"
        return {key: data.partition(b"\0")[0].decode(errors="surrogateescape")}
    fields: dict[str, str] = {}
    place, end = 0, len(data.rstrip(b"\0"))
    while place < end:  # records have the form `<length> <key>=<value>\n`
        length = _number(data[place : place + 20].partition(b" ")[0].decode(errors="replace"))
        record = data[place : place + length].decode(errors="surrogateescape")
        key, equals, value = record.partition(" ")[2].partition("=")
        place += length
        if not equals or place > end or not value.endswith("\n"):
            raise _Damaged("a damaged header")
        fields[key] = value[:-1]
    return {} if header.type == tarfile.XGLTYPE else fields  # a global header says where the archive comes from


def _number(text: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", text):
        raise _Damaged(f"a size of {text[:20]!r}")
    return int(text)


class _Blocks:
    """The next bytes of a file, readable like a file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    def read(self, most: int) -> bytes:
        block = self._file.read(min(most, self._left))
        self._left -= len(block)
        return block

    def __enter__(self) -> "_Blocks":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _shown(name: str) -> str:
    """Return the name of a member as it is shown in messages."""
    return repr(name) if len(name) <= 200 else f"{name[:80]!r}... of {len(name)} letters"


def _checked(member: _Member, archive: Path, links: set[str]) -> str:
    """Return the path of a member in the folder ("" for the folder itself), or raise DataError if it is unsafe."""

    def under_link(path: str) -> bool:
        return bool(links) and any(str(parent) in links for parent in PurePosixPath(path).parents)

    def refuse(why: str) -> DataError:
        return DataError(f"{archive}: member {_shown(name)} {why}; {_REFUSED}")

    name = member.name
    if max(len(name), len(member.target)) > LONGEST_PATH:
        raise refuse("has a path that is too long")
    if name.startswith("/") or name[1:2] == ":":
        raise refuse("has an absolute path")
    if ".." in name.split("/"):
        raise refuse("climbs out of the folder with '..'")
    if any(ord(letter) < 32 for letter in name + member.target):
        raise refuse("has control characters in its name")
    if member.kind == "other":
        raise refuse("is a device, pipe or socket")
    path = posixpath.normpath(name)
    if under_link(path):
        raise refuse("lies under a link")
    if path in links:
        raise refuse("comes twice, once as a link")
    if member.kind in ("link", "hardlink"):
        target = _joined(posixpath.dirname(path) if member.kind == "link" else "", member.target)
        if member.target.startswith("/") or not member.target or target.split("/")[0] == "..":
            raise refuse(f"is a link to {member.target!r}, outside the folder")
        if member.kind == "hardlink" and (target in links or under_link(target)):
            raise refuse(f"is a link to {member.target!r}, which leads through another link")
    return "" if path == "." else path


def _joined(base: str, target: str) -> str:
    return posixpath.normpath(posixpath.join(base, target))


def _write(member: _Member, place: Path) -> None:
    written = 0
    with member.open() as source, place.open("xb") as file:
        while block := source.read(1 << 20):
            written += len(block)
            if written > member.size:
                break
            file.write(block)
    if written != member.size:
        raise _Damaged(f"member {_shown(member.name)} is not as long as it says")


def _is_junk(name: str) -> bool:
    return name.startswith(_JUNK[0]) or PurePosixPath(name).name.startswith(_JUNK[1:])


def _check_json(path: Path) -> None:
    if path.suffix == ".json":
        try:
            json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not a JSON file ({error}); download it again") from None
