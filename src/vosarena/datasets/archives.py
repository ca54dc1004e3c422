"""Archives of a dataset: which files a split needs, where they are kept, and their way to an extracted folder.

<resources>/archives/<dataset>/<file>     the archive, downloaded automatically or manually
<resources>/archives/<dataset>/<file>.json    written once it is verified
<resources>/extracted/<dataset>/<file>/   its frames and masks, there only when whole
<resources>/extracted/<dataset>/<file>.json   written once it is extracted
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
from vosarena.config.paths import Paths
from vosarena.config.schema import ArchiveEntry, Layout
from vosarena.config.study import Split
from vosarena.datasets.layouts import is_needed_member
from vosarena.fetching.sources import RetryPolicy
from vosarena.fetching.unpack import extract
from vosarena.fetching.verified import RemoteFile, fetch_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """An archive of a dataset.

    Attributes:
        namespace: The dataset under whose name it is kept.
        file: Its file name.
        layout: Layout of the dataset.
        entry: Where it comes from, as the catalog says.
        folders: Folders of frames and masks in it, if they are not those of the layout.
    """

    namespace: str
    file: str
    layout: Layout
    entry: ArchiveEntry
    folders: tuple[str, ...] = ()

    def place(self, resources: Path) -> Path:
        """Where the archive is kept, and where a person puts it."""
        return Paths(resources=resources).archive(self.namespace, self.file)

    def folder(self, resources: Path) -> Path:
        """Where it is extracted."""
        return Paths(resources=resources).extracted(self.namespace, self.file)

    def definition(self) -> dict[str, Any]:
        """Return what decides the extracted folder."""
        return {"layout": self.layout, "folders": self.folders, **self.entry.model_dump(mode="json")}

    def remote_file(self) -> RemoteFile:
        """What to fetch."""
        return RemoteFile(f"{self.namespace}/{self.file}", self.entry)


def archives_of(split: Split) -> list[Archive]:
    """The archives of a split, in the catalog's order. Raises ConfigError if two have the same file name."""
    archives: dict[str, Archive] = {}
    for entry in split.archives:
        names = [entry.file, *(source.file_name() for source in entry.sources)]
        file = next((name for name in names if name), None)
        if file is None:
            raise ConfigError(f"dataset {split}: an archive needs a `file` name; its sources name none")
        if file in archives:
            raise ConfigError(f"dataset {split}: two archives are called {file}; give one another `file` name")
        folders = tuple(folder for folder in (split.images, split.masks) if folder)
        archives[file] = Archive(split.archive_namespace, file, split.layout, entry, folders)
    return list(archives.values())


def collect_archives(splits: Iterable[Split]) -> dict[tuple[str, str], Archive]:
    """All archives of some splits by dataset and file name; splits may share one, and each its folders of it.

    Raises ConfigError if one name stands for two different files, which would overwrite each other.
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
    """The verified archive (or the folder that a local source names), downloaded if need be.

    An archive that was removed after its extraction is not fetched again. None for an optional archive that cannot be
    had. Raises DataError in one sentence otherwise.
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
    """The folder of the extracted archive, made whole or not at all; the archive is fetched if it is not there.

    keep: whether an archive in `<resources>/archives/` stays there. A killed extraction is begun again; of two
    processes that extract the same archive, one waits for the other. None for an absent optional archive.
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
        os.sync()  # a power cut must not leave empty frames that the note vouches for
        note = {"folder": os.path.relpath(folder, resources), "sha256": state.get("sha256")}
        write_note(sidecar_path(folder), {**note, "layout": archive.layout, "folders": folders})
        if not keep and path == place:
            path.unlink()
            logger.info("removed %s", path)
        return folder


def _extracted(archive: Archive, resources: Path) -> Path | None:
    """The folder that was extracted from the archive that was last verified, if all that is wanted now is in it."""
    state, done = read_note(sidecar_path(archive.place(resources))), read_note(sidecar_path(archive.folder(resources)))
    folder = _folder_of(done, resources)
    if not state or folder is None or done.get("sha256") != state.get("sha256"):
        return None
    if any(getattr(archive.entry, kind) not in (None, state.get(kind)) for kind in ("sha256", "md5")):
        return None
    same = archive.layout == done.get("layout") and set(archive.folders) <= set(done.get("folders", ()))
    if not same and not state.get("folder"):  # what was taken out of it; of a user's folder that is everything
        return None
    return folder


def _folder_of(note: Mapping[str, Any], resources: Path) -> Path | None:
    """The folder that the note of an extraction names, if it is there."""
    folder = note.get("folder")
    return Path(resources, folder) if isinstance(folder, str) and Path(resources, folder).is_dir() else None


def roots_of(split: Split, resources: Path) -> list[Path]:
    """Folders that hold the frames and masks of an extracted split. Raises DataError if one is not there."""
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
    """Bytes of the archive if it is there."""
    place = archive.place(resources)
    return place.stat().st_size if place.is_file() else 0


def archive_state(archive: Archive, resources: Path) -> str:
    """`absent`, `partial`, `downloaded` (not verified yet), `verified` or `extracted`."""
    place = archive.place(resources)
    if _extracted(archive, resources):
        return "extracted"
    verified = read_note(sidecar_path(place)).get("path")
    if isinstance(verified, str) and Path(place.parent, verified).exists():
        return "verified"
    if place.exists():
        return "downloaded"
    return "partial" if place.with_name(f"{place.name}.part").exists() else "absent"
