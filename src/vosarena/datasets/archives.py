"""Archives of a dataset: which archives a split needs, where they are kept, and how they are fetched and extracted.

<resources>/archives/<dataset>/<file>         the archive, downloaded automatically or manually
<resources>/archives/<dataset>/<file>.json    written when the archive is verified
<resources>/extracted/<dataset>/<file>/       frames and masks of the archive; exists only when complete
<resources>/extracted/<dataset>/<file>.json   written when the archive is extracted
"""

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vosarena.base.errors import ConfigError, DataError
from vosarena.base.locks import lock
from vosarena.base.notes import read_note, sidecar_path, write_note
from vosarena.config.catalogs import Split
from vosarena.config.dataset_schema import ArchiveEntry
from vosarena.config.paths import Paths
from vosarena.datasets.layouts import READER, is_needed_member
from vosarena.fetching.policy import RetryPolicy
from vosarena.fetching.unpack import extract
from vosarena.fetching.verified import RemoteFile, fetch_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """An archive of a dataset.

    Attributes:
        namespace: Name of the dataset that the archive is kept under.
        file: File name of the archive.
        layout: Layout of the dataset, or `reader`.
        entry: Entry of the archive in the catalog, with its sources.
        folders: Folders of frames and masks in the archive, if they are different from those of the layout.
    """

    namespace: str
    file: str
    layout: str
    entry: ArchiveEntry
    folders: tuple[str, ...] = ()

    def place(self, resources: Path) -> Path:
        """Return the path where the archive is kept, and where the user saves a manual download."""
        return Paths(resources=resources).archive(self.namespace, self.file)

    def folder(self, resources: Path) -> Path:
        """Return the folder where the archive is extracted."""
        return Paths(resources=resources).extracted(self.namespace, self.file)

    def definition(self) -> dict[str, Any]:
        """Return the settings that determine the content of the extracted folder."""
        return {"layout": self.layout, "folders": self.folders, **self.entry.model_dump(mode="json")}

    def remote_file(self) -> RemoteFile:
        """Return the file to fetch."""
        return RemoteFile(f"{self.namespace}/{self.file}", self.entry)


def archives_of(split: Split) -> list[Archive]:
    """Return the archives of a split.

    Args:
        split: The split.

    Returns:
        The archives in the order of the catalog.

    Raises:
        ConfigError: Two archives have the same file name, or an archive has none.
    """
    archives: dict[str, Archive] = {}
    for entry in split.archives:
        names = [entry.file, *(source.file_name() for source in entry.sources)]
        file = next((name for name in names if name), None)
        if file is None:
            raise ConfigError(f"dataset {split}: an archive needs a `file` name; its sources name none")
        if file in archives:
            raise ConfigError(f"dataset {split}: two archives are called {file}; give one another `file` name")
        named = split.images, split.masks, split.full_images, split.full_masks
        folders = tuple(folder for folder in named if folder)
        layout = READER if split.reader else split.layout
        archives[file] = Archive(split.archive_namespace, file, layout, entry, folders)
    return list(archives.values())


def collect_archives(splits: Iterable[Split]) -> dict[tuple[str, str], Archive]:
    """Return all archives of several splits.

    Splits can share an archive and use different folders of it. The folders of all these splits are then combined.

    Args:
        splits: The splits.

    Returns:
        The archives by dataset and file name.

    Raises:
        ConfigError: Two different files have the same name and would overwrite each other, or an archive of a split
            has no file name.
    """
    found: dict[tuple[str, str], Archive] = {}
    for split in splits:
        for archive in archives_of(split):
            name = archive.namespace, archive.file
            other = found.setdefault(name, archive)
            if other.remote_file() != archive.remote_file():
                raise ConfigError(
                    f"dataset {split}: its archive {archive.file} is not the one of that name in another split of "
                    f"{archive.namespace}; give one of them another `file` name"
                )
            found[name] = replace(other, folders=tuple(dict.fromkeys((*other.folders, *archive.folders))))
    return found


def fetch_archive(archive: Archive, resources: Path, policy: RetryPolicy) -> Path | None:
    """Fetch and verify an archive.

    An archive that was removed after its extraction is not fetched again.

    Args:
        archive: The archive.
        resources: The resources folder.
        policy: How often and how long to try a download.

    Returns:
        Path of the verified archive, or of the folder if a local source is a folder. None if the archive is optional
        and not available.

    Raises:
        DataError: The archive is wrong or not available, and it is not optional.
    """
    place = archive.place(resources)
    was_here = read_note(sidecar_path(place)).get("path") == place.name
    if was_here and not place.exists() and _extracted(archive, resources):
        logger.info("%s/%s: already extracted", archive.namespace, archive.file)
        return place
    try:
        return fetch_file(archive.remote_file(), place, resources, policy)
    except DataError as error:
        if not archive.entry.optional:
            raise
        logger.warning("going on without %s/%s, which is optional: %s", archive.namespace, archive.file, error)
        write_note(sidecar_path(place), {"absent": str(error)})
        return None


def extract_archive(archive: Archive, resources: Path, policy: RetryPolicy, keep: bool = True) -> Path | None:
    """Extract an archive, and fetch it first if needed.

    The folder is either complete or does not exist. An extraction that is killed starts from the beginning the next
    time. If two processes extract the same archive, one waits for the other.

    Args:
        archive: The archive.
        resources: The resources folder.
        policy: How often and how long to try a download.
        keep: Whether to keep an archive in `<resources>/archives/` after the extraction.

    Returns:
        The folder of the extracted archive. None if the archive is optional and not available.

    Raises:
        DataError: The archive cannot be fetched, verified or extracted.
    """
    place, folder = archive.place(resources), archive.folder(resources)
    with lock(folder):
        path = fetch_archive(archive, resources, policy)
        state = read_note(sidecar_path(place))
        if path is None:
            write_note(sidecar_path(folder), state)
            return None
        if path.is_dir():
            write_note(sidecar_path(folder), {"folder": os.path.abspath(path), "sha256": None})  # noqa: PTH100
            return path
        done = _extracted(archive, resources)
        if done:
            return done
        folders = sorted({*archive.folders, *read_note(sidecar_path(folder)).get("folders", ())})  # of other splits too
        extract(path, folder, lambda name: is_needed_member(name, archive.layout, folders))
        os.sync()  # after a power failure, there must be no note about a folder with empty frames
        note = {"folder": os.path.relpath(folder, resources), "sha256": state.get("sha256")}
        write_note(sidecar_path(folder), {**note, "layout": archive.layout, "folders": folders})
        if not keep and path == place:
            path.unlink()
            logger.info("removed %s", path)
        return folder


def _extracted(archive: Archive, resources: Path) -> Path | None:
    """Return the folder extracted from the last verified archive, or None if it does not contain all that is needed."""
    state, done = read_note(sidecar_path(archive.place(resources))), read_note(sidecar_path(archive.folder(resources)))
    folder = _folder_of(done, resources)
    if not state or folder is None or done.get("sha256") != state.get("sha256"):
        return None
    if any(getattr(archive.entry, kind) not in (None, state.get(kind)) for kind in ("sha256", "md5")):
        return None
    same = archive.layout == done.get("layout") and set(archive.folders) <= set(done.get("folders", ()))
    if not same and not state.get("folder"):  # other files were extracted; a folder of the user has all files
        return None
    return folder


def _folder_of(note: Mapping[str, Any], resources: Path) -> Path | None:
    """Return the folder in the note of an extraction, or None if it does not exist."""
    folder = note.get("folder")
    return Path(resources, folder) if isinstance(folder, str) and Path(resources, folder).is_dir() else None


def roots_of(split: Split, resources: Path) -> list[Path]:
    """Return the folders with the frames and masks of an extracted split.

    Args:
        split: The split.
        resources: The resources folder.

    Returns:
        One folder for each archive, without the optional archives that are not available.

    Raises:
        DataError: An archive is not extracted, or the `root` of its catalog entry does not exist in it.
    """
    roots = []
    for archive in archives_of(split):
        done = read_note(sidecar_path(archive.folder(resources)))
        if "absent" in done:
            continue
        folder = _folder_of(done, resources)
        if folder is None:
            note = sidecar_path(archive.folder(resources))
            damaged = f", or its note is damaged; remove {note} and" if note.exists() else ";"
            raise DataError(
                f"{archive.folder(resources)}: not extracted yet{damaged} run the extraction of {split} again"
            )
        if archive.entry.root and not (folder / archive.entry.root).is_dir():
            found = ", ".join(sorted(path.name + "/" for path in folder.iterdir() if path.is_dir())) or "no folder"
            raise DataError(
                f"{archive.file}: no folder {archive.entry.root}/ in it, but {found}; fix `root` in the catalog"
            )
        roots.append(folder / archive.entry.root if archive.entry.root else folder)
    return roots


def size_on_disk(archive: Archive, resources: Path) -> int:
    """Return the size of an archive on disk.

    Args:
        archive: The archive.
        resources: The resources folder.

    Returns:
        Size in bytes, or 0 if the archive does not exist.
    """
    place = archive.place(resources)
    return place.stat().st_size if place.is_file() else 0


def archive_state(archive: Archive, resources: Path) -> str:
    """Return how far an archive is processed.

    Args:
        archive: The archive.
        resources: The resources folder.

    Returns:
        `absent`, `partial`, `downloaded` (not verified yet), `verified` or `extracted`.
    """
    place = archive.place(resources)
    if _extracted(archive, resources):
        return "extracted"
    verified = read_note(sidecar_path(place)).get("path")
    if isinstance(verified, str) and Path(place.parent, verified).exists():
        return "verified"
    if place.exists():
        return "downloaded"
    return "partial" if place.with_name(f"{place.name}.part").exists() else "absent"
