"""Unpack a zip or tar archive that comes from somewhere else: only what is needed, nothing outside its folder.

Refused by name: absolute paths, `..`, links that leave the folder, files under a link, devices, and archives that
unpack to far more than they weigh. The folder appears when it is whole; a killed extraction leaves only `.<name>.part`,
which the next one removes.
"""

import errno
import json
import logging
import os
import posixpath
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from gzip import BadGzipFile
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from tarfile import EOFHeaderError, HeaderError, ReadError  # type: ignore[attr-defined]
from typing import IO

from vosarena.errors import DataError
from vosarena.logs import progress_bar

logger = logging.getLogger(__name__)

BOMB_RATIO = 100  # images hardly shrink; deflate and holes reach 1000 and more
BOMB_FREE = 64 << 20  # bytes that may be unpacked whatever the ratio
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, BadGzipFile, LZMAError, NotImplementedError,
           RuntimeError)  # fmt: skip
_REFUSED = "refused, get it from a source you trust"
_JUNK = ("__MACOSX/", "._", ".DS_Store")


@dataclass(frozen=True)
class _Member:
    name: str
    kind: str  # file | folder | link | hardlink | other
    size: int
    target: str
    read: Callable[[], IO[bytes] | None]


def extract(archive: Path, output: Path, wanted: Callable[[str], bool]) -> None:
    """Unpack the members that are wanted into `output`, which is replaced.

    wanted: says of a member's path in the archive whether it is needed. A JSON or text file that is no archive is
    taken over as it is. Raises DataError naming archive and member.
    """
    part = output.with_name(f".{output.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        if archive.suffix in (".json", ".txt"):
            _check_json(archive)
            shutil.copyfile(archive, part / archive.name)
        else:
            _unpack(archive, part, wanted)
        shutil.rmtree(output, ignore_errors=True)
        part.replace(output)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"{archive}: the disk is full, unpacking to {output}; make room and run again") from None
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _unpack(archive: Path, folder: Path, wanted: Callable[[str], bool]) -> None:
    compressed = archive.stat().st_size
    free = shutil.disk_usage(folder).free
    total = files = 0
    links: set[str] = set()
    try:
        with progress_bar(desc=f"unpack {archive.name}", unit="file") as bar:
            for member in _members(archive):
                name = _checked(member, archive, links)
                total += member.size
                _check_size(total, compressed, free, archive)
                if not name or _is_junk(name) or not wanted(name):
                    continue
                place = folder / name
                if member.kind == "folder":
                    place.mkdir(parents=True, exist_ok=True)
                    continue
                place.parent.mkdir(parents=True, exist_ok=True)
                if member.kind == "link":
                    links.add(name)
                    place.symlink_to(member.target)
                elif member.kind == "hardlink":
                    os.link(folder / _joined("", member.target), place, follow_symlinks=False)
                else:
                    _write(member, place, archive)
                files += 1
                bar.update()
        for name in links:  # once all are there: one may lead through another
            if not (folder / name).resolve().is_relative_to(folder.resolve()):
                raise DataError(f"{archive}: member {name!r} is a link that leaves the folder; {_REFUSED}")
    except DAMAGED as error:
        raise DataError(f"{archive}: damaged archive ({error}); remove it and fetch it again") from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError, FileNotFoundError) as error:
        raise DataError(f"{archive}: members contradict each other at {error.filename}; fetch it again") from None
    except ValueError as error:
        raise DataError(f"{archive}: a member cannot be unpacked ({error}); fetch it again") from None
    if not files:
        raise DataError(f"{archive}: nothing that is needed is in it; check that it is the right archive")


def _members(archive: Path) -> Iterator[_Member]:
    """What is in a zip or tar archive, whatever its name ends in."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                mode = info.external_attr >> 16
                link = stat.S_ISLNK(mode) and info.create_system == 3
                special = stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
                kind = "link" if link else "folder" if info.is_dir() else "other" if special else "file"
                target = opened.read(info).decode(errors="replace") if link and info.file_size < 4096 else ""
                yield _Member(info.filename, kind, info.file_size, target, lambda info=info: opened.open(info))  # type: ignore[misc]
        return
    with archive.open("rb") as file:
        start = file.read(8)
    if start.startswith(b"7z\xbc\xaf\x27\x1c") or start.startswith(b"Rar!"):
        raise DataError(f"{archive}: 7z and rar archives are not read here; unpack it and name the folder as `local`")
    with open_tar(archive) as tar:
        for entry in tar:
            kind = ("file" if entry.isreg() else "folder" if entry.isdir() else "link" if entry.issym()
                    else "hardlink" if entry.islnk() else "other")  # fmt: skip
            size = entry.size if kind == "file" else 0
            yield _Member(entry.name, kind, size, entry.linkname, lambda entry=entry: tar.extractfile(entry))  # type: ignore[misc]


class _StrictTarInfo(tarfile.TarInfo):
    """Python's tarfile takes a damaged or missing header in the middle of an archive for its end; this does not."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> "_StrictTarInfo":
        try:
            return super().fromtarfile(tarfile)
        except EOFHeaderError:
            raise
        except HeaderError as error:
            raise ReadError(f"{error}, the archive ends in the middle") from None


@contextmanager
def open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """A tar file, compressed or not, to be read in order.

    At the end the rest is read too, so that a compressed archive's checksum is verified. Raises tarfile.TarError,
    EOFError or OSError if it is damaged or no tar file.
    """
    try:
        opened = tarfile.open(path, "r:*", tarinfo=_StrictTarInfo)  # noqa: SIM115 (closed below)
    except ReadError:
        raise ReadError("no zip or tar archive, or cut off") from None
    with opened:
        yield opened
        rest = 0
        while block := opened.fileobj.read(1 << 20):  # type: ignore[union-attr]
            rest += len(block)
            if rest > BOMB_FREE:
                raise ReadError("too much behind its end mark")


def _checked(member: _Member, archive: Path, links: set[str]) -> str:
    """The member's path inside the folder, or "" for the folder itself. Raises DataError if it is hostile."""

    def under_link(path: str) -> bool:
        return any(str(parent) in links for parent in PurePosixPath(path).parents)

    def refuse(why: str) -> DataError:
        return DataError(f"{archive}: member {member.name!r} {why}; {_REFUSED}")

    name = member.name
    if name.startswith("/") or "\\" in name or name[1:2] == ":":
        raise refuse("has an absolute path")
    if ".." in name.split("/"):
        raise refuse("climbs out of the folder with '..'")
    if any(ord(letter) < 32 for letter in name):
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


def _check_size(total: int, compressed: int, free: int, archive: Path) -> None:
    if total > BOMB_FREE and total > BOMB_RATIO * compressed:
        raise DataError(
            f"{archive}: unpacks to more than {BOMB_RATIO} times its {compressed} bytes, like no archive of images "
            f"does; {_REFUSED}"
        )
    if total > free:
        raise DataError(f"{archive}: unpacks to more than the {free >> 20} MiB that are free; make room and run again")


def _write(member: _Member, place: Path, archive: Path) -> None:
    source = member.read()
    if source is None:
        raise DataError(f"{archive}: member {member.name!r} cannot be read; fetch it again")
    written = 0
    with source, place.open("xb") as file:
        while block := source.read(1 << 20):
            written += len(block)
            if written > member.size:
                break
            file.write(block)
    if written != member.size:
        raise DataError(f"{archive}: member {member.name!r} is not as long as it says; remove it and fetch it again")


def _is_junk(name: str) -> bool:
    return name.startswith(_JUNK[0]) or PurePosixPath(name).name.startswith(_JUNK[1:])


def _check_json(path: Path) -> None:
    if path.suffix == ".json":
        try:
            json.loads(path.read_text())
        except ValueError as error:
            raise DataError(f"{path}: not a JSON file ({error}); fetch it again") from None
