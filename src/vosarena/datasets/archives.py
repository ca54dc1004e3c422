"""Archives of a dataset: which files a split needs, where they are kept, and their way to an extracted folder.

<resources>/archives/<dataset>/<file>     the archive, downloaded or put there by hand
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
from vosarena.config.study import Split
from vosarena.datasets.layouts import needed
from vosarena.fetching.sources import Policy, source_name
from vosarena.fetching.unpack import extract
from vosarena.fetching.verified import Wanted, fetch_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """One archive of a dataset; the fields are those of `archives` in `schemas/dataset.schema.yaml`."""

    home: str
    file: str
    layout: str
    sources: tuple[Mapping[str, Any], ...]
    sha256: str | None = None
    md5: str | None = None
    root: str | None = None
    optional: bool = False
    folders: tuple[str, ...] = ()  # of frames and masks, where they are not the layout's

    def place(self, resources: Path) -> Path:
        """Where the archive is kept, and where a person puts it."""
        return Paths(resources=resources).archive(self.home, self.file)

    def folder(self, resources: Path) -> Path:
        """Where it is extracted."""
        return Paths(resources=resources).extracted(self.home, self.file)

    def wanted(self) -> Wanted:
        """What to fetch."""
        return Wanted(f"{self.home}/{self.file}", self.sources, self.sha256, self.md5)


def archives_of(split: Split) -> list[Archive]:
    """The archives of a split, in the catalog's order. Raises ConfigError if two have the same file name."""
    archives: dict[str, Archive] = {}
    for entry in split.archives:
        names = [entry.get("file"), *map(source_name, entry["sources"])]
        file = next((name for name in names if name), None)
        if file is None:
            raise ConfigError(f"dataset {split}: an archive needs a `file` name; its sources name none")
        if file in archives:
            raise ConfigError(f"dataset {split}: two archives are called {file}; give one another `file` name")
        known = {key: value for key, value in entry.items() if key not in ("file", "sources")}
        folders = tuple(folder for folder in (split.images, split.masks) if folder)
        archives[file] = Archive(split.home, file, split.layout, tuple(entry["sources"]), folders=folders, **known)
    return list(archives.values())


def collect_archives(splits: Iterable[Split]) -> dict[tuple[str, str], Archive]:
    """All archives of some splits by dataset and file name; splits may share one, and each its folders of it.

    Raises ConfigError if one name stands for two different files, which would overwrite each other.
    """
    found: dict[tuple[str, str], Archive] = {}
    for split in splits:
        for archive in archives_of(split):
            name = archive.home, archive.file
            other = found.setdefault(name, archive)
            if other.wanted() != archive.wanted():
                raise ConfigError(
                    f"dataset {split}: its archive {archive.file} is not the one of that name in another split of "
                    f"{archive.home}; give one of them another `file` name"
                )
            found[name] = replace(other, folders=tuple(dict.fromkeys((*other.folders, *archive.folders))))
    return found


def fetch_archive(archive: Archive, resources: Path, policy: Policy) -> Path | None:
    """The verified archive (or the folder that a local source names), downloaded if need be.

    An archive that was removed after its extraction is not fetched again. None for an optional archive that cannot be
    had. Raises DataError in one sentence otherwise.
    """
    place = archive.place(resources)
    was_here = read_note(sidecar_path(place)).get("path") == place.name
    if was_here and not place.exists() and _extracted(archive, resources):
        logger.info("%s/%s: already extracted", archive.home, archive.file)
        return place
    try:
        return fetch_file(archive.wanted(), place, resources, policy)
    except DataError as error:
        if not archive.optional:
            raise
        logger.warning("going on without %s/%s, which is optional: %s", archive.home, archive.file, error)
        write_note(sidecar_path(place), {"absent": str(error)})
        return None


def extract_archive(archive: Archive, resources: Path, policy: Policy, keep: bool = True) -> Path | None:
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
        extract(path, folder, lambda name: needed(name, archive.layout, folders))
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
    if any(getattr(archive, kind) not in (None, state.get(kind)) for kind in ("sha256", "md5")):
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
        if archive.root and not (folder / archive.root).is_dir():
            found = ", ".join(sorted(path.name + "/" for path in folder.iterdir() if path.is_dir())) or "no folder"
            raise DataError(f"{archive.file}: no folder {archive.root}/ in it, but {found}; mend `root` in the catalog")
        roots.append(folder / archive.root if archive.root else folder)
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
