"""Bring a split, wherever it comes from, into the one form that every later stage knows.

`<root>/JPEGImages/<sequence>/` and `<root>/Annotations/<sequence>/` are links into the user's folder or the extracted
archives; frames of videos and masks that had to be changed are files. Beside them lie `attributes.json` (sequence ->
attributes) and `meta.json` (the dataset's own, with the split's sequences only), where there is such a thing.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from vosarena.claims import locked
from vosarena.data import clips, procedural, synthetic
from vosarena.data.archives import archives_of, extract_archive, fetch_archive, roots_of
from vosarena.data.catalog import Split
from vosarena.data.index import index_split, table_of
from vosarena.data.layouts import Found, Source, find
from vosarena.data.masks import read_mask, write_mask
from vosarena.data.sequences import ANNOTATIONS, ATTRIBUTES, IMAGES, META
from vosarena.data.sources import Policy
from vosarena.data.video import decode_video
from vosarena.errors import DataError
from vosarena.files import note_of, read_note, write_json, write_note

logger = logging.getLogger(__name__)

_LOOKS = 16  # at the same time: a file server needs a while for each
_MARK = ".prepared.json"  # what the folder was made from
_NOTE = "prepared.txt"  # the same for people, and the sign for the workflow
# What chooses among the prepared sequences or says what becomes of them, but changes no prepared file.
_CHOICE = ("protocol", "ground_truth", "resize", "sequences", "select", "exclude", "attributes", "sample", "submission")


def fetch_split(split: Split, resources: Path, policy: Policy, keep: bool = True) -> Path:
    """From a split's name to its table of sequences: download, verify, extract, prepare and index.

    Returns the table. keep: whether archives stay after extraction. Raises DataError in one sentence.
    """
    for archive in archives_of(split):
        fetch_archive(archive, resources, policy)
        extract_archive(archive, resources, policy, keep)
    table = table_of(split, resources)
    prepare_split(split, table.parent)
    index_split(table.parent, table, split)
    return table


def prepare_split(split: Split, root: Path) -> None:
    """Make the prepared form of a split in `root`, which is `<resources>/datasets/<dataset>/<split>`.

    What is there already and made from the same is left alone, so that two runs can share it. Archives must be
    extracted. Raises DataError naming what is missing.
    """
    with locked(root):
        root.mkdir(parents=True, exist_ok=True)
        origin = _origin(split, root.parents[2])
        if _is_made(root, origin):
            logger.info("%s: already prepared", split)
            return
        (root / _MARK).unlink(missing_ok=True)
        if split.synthetic:
            synthetic.synthesize(root, "train" if split.synthetic == "train" else "val")
        else:
            found = find(split, _roots(split, root.parents[2]))
            logger.info("%s: %d sequences", split, len(found.sequences))
            _build(found, split, root)
        write_note(root / _MARK, {"origin": origin, "links": _links(root)})
        came_from = ", ".join(archive.file for archive in archives_of(split)) or split.path or "procedural videos"
        (root / _NOTE).write_text(f"{split} from {came_from}\n")


def _roots(split: Split, resources: Path) -> list[Path]:
    if split.archives:
        return roots_of(split, resources)
    if not split.path:
        raise DataError(f"dataset {split}: its entry names no `archives` and no `path`; give the folder that it is in")
    if not Path(split.path).is_dir():
        raise DataError(f"dataset {split}: there is no folder {split.path}; mend its `path`")
    return [Path(split.path)]


def _build(found: Found, split: Split, root: Path) -> None:
    """Links, decoded videos and changed masks in folders beside their place, which they then take."""
    made = {name: root / f".{name}.part" for name in (IMAGES, ANNOTATIONS)}
    for folder in made.values():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for name, source in found.sequences.items():
        if source.images.is_file():
            decode_video(source.images, made[IMAGES] / name)
        else:
            _link(made[IMAGES] / name, source.images, root / IMAGES)
        if source.masks is None:
            continue
        if split.binary and any(source.masks.glob("*.png")):
            _write_binary(source.masks, made[ANNOTATIONS] / name)
        else:
            _link(made[ANNOTATIONS] / name, source.masks, root / ANNOTATIONS)
    for name, folder in made.items():
        _discard(root / name)
        folder.replace(root / name)
    for file, content in ((ATTRIBUTES, found.attributes), (META, {"videos": found.meta} if found.meta else {})):
        if content:
            write_json(root / file, content)
        else:
            (root / file).unlink(missing_ok=True)


def _write_binary(masks: Path, folder: Path) -> None:
    """The masks with label 1 for all that is not zero."""
    folder.mkdir()
    for path in sorted(masks.glob("*.png")):
        write_mask(folder / path.name, (read_mask(path) > 0).astype(np.uint8))


def _link(link: Path, target: Path, final: Path) -> None:
    """A relative link for the folder `final`, so that the resources can be moved as a whole; absolute ones lead out."""
    target = Path(os.path.abspath(target))  # noqa: PTH100 (resolve() would follow the user's own links)
    resources = Path(os.path.abspath(final)).parents[3]  # noqa: PTH100
    inside = target.is_relative_to(resources)
    link.symlink_to(os.path.relpath(target, final) if inside else target)


def _discard(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _is_made(root: Path, origin: str) -> bool:
    mark = read_note(root / _MARK)
    there = _links(root)
    same = mark.get("origin") == origin and mark.get("links") == there and (root / _NOTE).is_file()
    return same and all((root / link).exists() for link in there)


def _links(root: Path) -> list[str]:
    """`JPEGImages/<sequence>` and `Annotations/<sequence>` of all sequences."""
    return sorted(f"{folder}/{path.name}" for folder in (IMAGES, ANNOTATIONS) for path in root.glob(f"{folder}/*"))


def _origin(split: Split, resources: Path) -> str:
    """Digest of all that a prepared folder is made from: the definition, and the archives or the user's folder."""
    known: dict[str, Any] = {key: value for key, value in asdict(split).items() if key not in _CHOICE}
    if split.synthetic:
        files = (synthetic.__file__, clips.__file__, procedural.__file__)
        known["generator"] = [sha256(Path(file).read_bytes()).hexdigest() for file in files]
    known["state"] = state_of(split)
    for archive in archives_of(split):
        known[archive.file] = read_note(note_of(archive.folder(resources)))
    return sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()


def state_of(split: Split) -> str:
    """Changes when sequences or frames of a user's folder are added, removed or replaced: the signal to index again.

    Only folders are looked at (one look per sequence), so this stays quick for thousands of sequences.
    """
    if not split.path or not Path(split.path).is_dir():
        return ""
    try:
        found = find(split, [Path(split.path)])
    except DataError:
        return "incomplete"
    folders = list(_folders_of(found.sequences.values(), split.layout))
    with ThreadPoolExecutor(_LOOKS) as pool:
        times = pool.map(_last_change, (folders[start::_LOOKS] for start in range(_LOOKS)))
        return f"{len(folders)} folders, last changed {max(times)}"


def _last_change(folders: Iterable[Path]) -> int:
    return max((folder.stat().st_mtime_ns for folder in folders), default=0)


def _folders_of(sources: Iterable[Source], layout: str) -> Iterable[Path]:
    for source in sources:
        yield source.images
        if source.masks:
            yield source.masks
            if layout == "sa-v":  # a folder for each object
                yield from (path for path in source.masks.iterdir() if path.is_dir())
