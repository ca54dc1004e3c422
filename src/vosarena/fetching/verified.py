"""Fetch one file from several sources and verify it.

Archives and weights are fetched in the same way. A file is accepted if its hash is equal to the published hash. If no
hash is published, it must be equal to the hash of the first use of the file, which is kept in
`<resources>/hashes.lock.yaml`. A note, `<file>.json`, is written next to every accepted file, so that the file is not
hashed again. A file that the user saved there manually is verified like any other file.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vosarena.base.errors import DataError
from vosarena.base.files import flush_to_disk, write_text
from vosarena.base.hashing import file_hashes
from vosarena.base.locks import lock
from vosarena.base.logs import progress_bar
from vosarena.base.notes import checksum, read_note, sidecar_path, write_note
from vosarena.fetching.policy import RetryPolicy
from vosarena.fetching.sources import (
    OFFLINE,
    FileEntry,
    LocalSource,
    PageSource,
    RemoteSource,
    Repository,
    Source,
    SourceUnavailable,
)
from vosarena.fetching.unpack import check_archive, is_zip

logger = logging.getLogger(__name__)

LOCK_FILE = "hashes.lock.yaml"
_BY_HAND = "put there by hand"
_LOCK_END = "# end\n"
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz")


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch.

    Attributes:
        name: Name of the file in messages and in the lock file.
        entry: Sources and hashes of the file.
        repository: Whether the file belongs to a dataset or to a model.
    """

    name: str
    entry: FileEntry
    repository: Repository = "dataset"

    @property
    def published(self) -> bool:
        """Whether a hash of the file is published."""
        return bool(self.entry.sha256 or self.entry.md5)

    def local(self) -> set[Path]:
        """Return the files and folders on this machine that are sources."""
        return {source.path.resolve() for source in self.entry.sources if isinstance(source, LocalSource)}


def fetch_file(wanted: RemoteFile, place: Path, resources: Path, policy: RetryPolicy) -> Path:
    """Fetch a file and verify it.

    The sources are tried in order.

    Args:
        wanted: The file to fetch.
        place: Path where the file is saved.
        resources: The resources folder, which contains the lock file.
        policy: How often and how long to try a download.

    Returns:
        Path of the verified file. It is `place`, or the path of a local source, which can also be an extracted folder.

    Raises:
        DataError: The file is wrong, or no source provides it. In the first case, the message says what is wrong with
            the file. In the second case, it says why each source failed, which page has the file and where to save it.
    """
    with lock(place):
        try:
            return _fetch(wanted, place, resources, policy)
        except OSError as error:
            where = error.filename or place
            raise DataError(
                f"{wanted.name}: {where}: {error.strerror or error}; make it usable and run again"
            ) from None


def _fetch(wanted: RemoteFile, place: Path, resources: Path, policy: RetryPolicy) -> Path:
    known = _verified_before(place, wanted)
    if known:
        logger.info("%s: already verified", wanted.name)
        return known
    if place.exists():
        logger.info("%s: found in %s", wanted.name, place)
        return _verify(place, place, None, wanted, resources)
    problems = []
    for source in wanted.entry.sources:
        try:
            path = _from_source(source, wanted, place, policy)
            if path.is_dir():
                return _note(path, place, {"folder": True})
            return _verify(path, place, source, wanted, resources)
        except SourceUnavailable as error:
            logger.info("%s from %s: %s", wanted.name, source.describe(), error)
            if not isinstance(source, PageSource):
                problems.append(f"{source.describe()} ({error})")
    raise DataError(_not_found_message(wanted, place, problems))


def _from_source(source: Source, wanted: RemoteFile, place: Path, policy: RetryPolicy) -> Path:
    """Return the path of the unverified file, which is the local file itself or a download that ends in `.part`."""
    if isinstance(source, LocalSource):
        path = source.path.resolve()
        if not path.exists():
            raise SourceUnavailable("there is no such file or folder")
        return path
    if not isinstance(source, RemoteSource):
        raise SourceUnavailable("manual download (sign-up required)")
    from vosarena.fetching.http import download, find_address, new_session  # slow to import, and often not needed

    part = place.with_name(f"{place.name}.part")
    with new_session() as session:
        address = find_address(source, wanted.repository, policy, session)
        logger.info("%s: downloading from %s", wanted.name, source.describe())
        pieced = download(address, part, policy, session, hashed=wanted.published)
        if pieced and wanted.published and _difference(wanted, _hashes(part, wanted)):
            logger.warning("%s: resumed download is corrupt; restarting", wanted.name)
            part.unlink()
            download(address, part, policy, session)
    return part


def _verify(path: Path, place: Path, source: Source | None, wanted: RemoteFile, resources: Path) -> Path:
    """Verify a file, or raise DataError, and move it to its final path if it was downloaded."""
    # The source is None if the user saved the file at `place` manually. A file from a local source belongs to the user
    # and may change if no hash is published. A wrong hash is reported with the expected one. For a wrong download, the
    # error is SourceUnavailable, so that the next source is tried.
    downloaded = path != place and path.name == f"{place.name}.part"
    own = isinstance(source, LocalSource)
    hashes = _hashes(path, wanted)
    try:
        difference = _difference(wanted, hashes)
        if difference and downloaded:
            raise DataError(f"{difference}; the file there is not the published one")
        if difference:
            raise DataError(f"{wanted.name} from {path}: {difference}; replace that file with the right one")
        if not wanted.published:
            check_whole(path, wanted.name if downloaded else str(path))
            if not own:
                _check_lock_file(wanted, hashes, path, source.describe() if source else _BY_HAND, resources)
    except DataError as error:
        if not downloaded:
            raise
        path.unlink()
        sidecar_path(path).unlink(missing_ok=True)
        raise SourceUnavailable(str(error)) from None
    if downloaded:
        flush_to_disk(path)
        path.replace(place)
        sidecar_path(path).unlink(missing_ok=True)
        path = place
    verified = "published hash" if wanted.published else "local file" if own else "hash of first use"
    logger.info("%s: verified by the %s, sha256 %s", wanted.name, verified, hashes["sha256"])
    origin = {"source": source.describe(), "source_id": source.identity} if source else {"source": _BY_HAND}
    return _note(path, place, {**hashes, **origin, "verified": verified})


def _check_lock_file(wanted: RemoteFile, hashes: Mapping[str, str], path: Path, origin: str, resources: Path) -> None:
    """Compare the hash with that of the first use, or record it if this is the first use."""
    file = resources / LOCK_FILE
    with lock(file):
        entries = _locked_hashes(file)
        entry = entries.get(wanted.name)
        if entry is None:
            entry = {
                **{"sha256": hashes["sha256"], "bytes": path.stat().st_size},
                **{"source": origin, "date": time.strftime("%Y-%m-%d")},
            }
            entries[wanted.name] = {**entry, "checksum": checksum([wanted.name, entry])}
            write_text(file, yaml.safe_dump(entries, sort_keys=True) + _LOCK_END)
        elif entry["sha256"] != hashes["sha256"]:
            raise DataError(
                f"{wanted.name}: sha256 is {hashes['sha256']}, but {entry['sha256']} at its first use on "
                f"{entry['date']}; fetch that file again, or remove the entry from {file} if the new one is right"
            )


def _locked_hashes(file: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of the lock file, if it exists, or raise DataError if it is damaged or empty."""
    # Every entry has a checksum, and the file ends with a marker. The user can therefore remove entries, but a damaged
    # or incomplete file is detected.
    try:
        text = file.read_bytes().decode()
        entries = yaml.safe_load(text)
        whole = text.endswith(_LOCK_END) and all(
            entry.pop("checksum") == checksum([name, entry]) for name, entry in (entries or {}).items()
        )
    except FileNotFoundError:
        return {}
    except (ValueError, yaml.YAMLError, RecursionError, AttributeError, TypeError, KeyError):
        whole = False
    if not whole:
        raise DataError(
            f"{file}: damaged, so that nothing says whether files are still those of their first use; restore it from "
            "a backup, or remove it to trust the files as they are now"
        )
    return {name: {**entry, "checksum": checksum([name, entry])} for name, entry in (entries or {}).items()}


def check_whole(path: Path, name: str) -> None:
    """Check that a file is complete and not a message of a server.

    Zip and tar archives are read to their end. Other files are only checked for being empty or a web page or message of
    a server, because weights can consist of any bytes.

    Args:
        path: The file to check.
        name: Name of the file in messages.

    Raises:
        DataError: The file is empty, an incomplete or damaged archive, or a web page or message of a server.
    """
    from vosarena.fetching.http import server_message

    with path.open("rb") as file:
        start = file.read(4096)
    if not start:
        raise DataError(f"{name}: the file is empty; download it again")
    final = path.name.removesuffix(".part")
    if message := server_message(start, final):
        raise DataError(f"{name}: the file is {message}; download it again")
    if is_zip(path) or final.lower().endswith(_ARCHIVES):  # files of weights can be zip files too
        check_archive(path, name)


def _difference(wanted: RemoteFile, hashes: Mapping[str, str]) -> str:
    for kind in ("sha256", "md5"):
        expected = getattr(wanted.entry, kind)
        if expected and hashes.get(kind) != expected:
            return f"{kind} is {hashes.get(kind)}, expected {expected}"
    return ""


def _hashes(path: Path, wanted: RemoteFile) -> dict[str, str]:
    algorithms = ["sha256", "md5"] if wanted.entry.md5 else ["sha256"]
    size = path.stat().st_size
    with progress_bar(total=size, desc=f"verify {wanted.name}", unit="B", unit_scale=True, delay=2) as bar:
        return file_hashes(path, algorithms, bar.update)


def _note(path: Path, place: Path, content: Mapping[str, Any]) -> Path:
    """Write the note of a verified file, with only the name of a file at `place` because resources may be moved."""
    status = path.stat()
    where = place.name if path == place else str(path)
    write_note(sidecar_path(place), {"path": where, **content, "bytes": status.st_size, "mtime_ns": status.st_mtime_ns})
    return path


def is_another(place: Path, wanted: RemoteFile) -> bool:
    """Return whether the file that was accepted at `place` is a different file from the wanted one.

    Args:
        place: Path of the accepted file.
        wanted: The file that is wanted.

    Returns:
        Whether the hash is different from the published hash or, if no hash is published, whether the file came from a
        source that is not one of the sources of the wanted file. False if nothing is known about the file at `place`.
    """
    note = read_note(sidecar_path(place))
    if "source" not in note or not place.exists():
        return False
    if wanted.published:
        return bool(_difference(wanted, note))
    return "source_id" in note and note["source_id"] not in {source.identity for source in wanted.entry.sources}


def _verified_before(place: Path, wanted: RemoteFile) -> Path | None:
    """Return the path of the file that was accepted before, or None if the file or its definition changed."""
    # DataError is raised if only the name of the file is the same and it came from another source.
    note = read_note(sidecar_path(place))
    try:
        path = Path(place.parent, note["path"])
        status = path.stat()
    except (OSError, KeyError, TypeError, ValueError):
        return None
    own = path in wanted.local()
    if path != place and not own:
        return None
    if note.get("folder"):
        return path
    if (note.get("bytes"), note.get("mtime_ns")) != (status.st_size, status.st_mtime_ns) or _difference(wanted, note):
        return None
    if not own and is_another(place, wanted):
        raise DataError(
            f"{path}: came from {note['source']}, which is no source of {wanted.name} here; remove it to have the "
            f"right one fetched, or only {sidecar_path(place)} if it is the right one"
        )
    return path


def _not_found_message(wanted: RemoteFile, place: Path, problems: list[str]) -> str:
    manual = [source for source in wanted.entry.sources if isinstance(source, PageSource)]
    names = [name for source in manual if (name := source.file_name())]
    pages = [page for source in (*manual, *wanted.entry.sources) if (page := source.web_page(wanted.repository))]
    page = pages[0] if pages else None
    offline = OFFLINE.removeprefix("; ") + " " if problems and all(OFFLINE in problem for problem in problems) else ""
    reasons = "; ".join(problem.replace(OFFLINE, "") for problem in problems)
    tried = f"\n  tried: {reasons}" if problems else ""
    opened = f"open {page}, " if page else ""
    by_hand = f"\n  by hand: {opened}save {names[0] if names else 'the file'} as {place}, run again"
    return f"{offline}{wanted.name}: could not be downloaded{tried}{by_hand}"
