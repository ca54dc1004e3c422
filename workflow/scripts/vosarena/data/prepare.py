"""Bring a split, wherever it comes from, into the one form that every later stage knows."""

import shutil
from pathlib import Path

from vosarena.data.catalog import Split
from vosarena.data.sequences import ANNOTATIONS, IMAGES
from vosarena.data.synthetic import synthesize
from vosarena.errors import DataError

_RESOLUTIONS = ("480p", "Full-Resolution", "1080p")  # DAVIS keeps its frames under one of these


def prepare_split(split: Split, root: Path) -> None:
    """Make `root/JPEGImages/<sequence>/` and `root/Annotations/<sequence>/` of a split.

    A folder that the user has is linked, not copied; the demo is drawn. Raises DataError naming what is missing.
    """
    root.mkdir(parents=True, exist_ok=True)
    if split.synthetic:
        synthesize(root, "train" if split.synthetic == "train" else "val")
    elif split.path:
        images, annotations = find_folders(Path(split.path))
        _link(root / IMAGES, images)
        _link(root / ANNOTATIONS, annotations)
    else:
        raise DataError(f"dataset {split}: its catalog entry names no `path`; give the folder that holds {IMAGES}/")


def find_folders(path: Path) -> tuple[Path, Path]:
    """Folders of frames and masks of an extracted dataset in DAVIS layout. Raises DataError if they are not there."""
    found = []
    for name in (IMAGES, ANNOTATIONS):
        folder = path / name
        if not folder.is_dir():
            raise DataError(f"{path}: no folder {name}/; expected {IMAGES}/<sequence>/ and {ANNOTATIONS}/<sequence>/")
        nested = [folder / resolution for resolution in _RESOLUTIONS if (folder / resolution).is_dir()]
        found.append(nested[0] if nested else folder)
    return found[0], found[1]


def state_of(split: Split) -> str:
    """Changes when sequences or frames of a user's folder are added, removed or replaced: the signal to index again.

    Only folders are looked at (one look per sequence), so this stays quick for thousands of sequences.
    """
    if not split.path or not Path(split.path).is_dir():
        return ""
    times = []
    for folder in (Path(split.path) / IMAGES, Path(split.path) / ANNOTATIONS):
        for path in [folder, *sorted(folder.glob("*")), *sorted(folder.glob("*p/*"))]:
            if path.is_dir():
                times.append(path.stat().st_mtime_ns)
    return f"{len(times)} folders, last changed {max(times, default=0)}"


def _link(link: Path, target: Path) -> None:
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        shutil.rmtree(link)
    link.symlink_to(target.resolve(), target_is_directory=True)
