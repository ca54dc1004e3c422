"""Bring a split, wherever it comes from, into the one form that every later stage knows.

`<root>/JPEGImages/<sequence>/` and `<root>/Annotations/<sequence>/` are links into the user's folder or the extracted
archives; frames of videos and masks that had to be changed are files. Beside them lie `attributes.json` (sequence ->
attributes) and `meta.json` (the dataset's own, with the split's sequences only), where there is such a thing.
"""

import itertools
import json
import logging
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from vosarena.base.errors import DataError
from vosarena.base.files import write_json, write_text
from vosarena.base.locks import lock
from vosarena.base.names import escape_unprintable
from vosarena.base.notes import read_note, sidecar_path, write_note
from vosarena.config.paths import Paths
from vosarena.config.study import Split
from vosarena.datasets.archives import archives_of, extract_archive, fetch_archive, roots_of
from vosarena.datasets.layouts import Found, Source, find
from vosarena.datasets.sequences import ANNOTATIONS, ATTRIBUTES, IMAGES, MASK_SUFFIX, META, PROBLEM, numbered_files
from vosarena.datasets.table import index_split
from vosarena.demo import clips, procedural
from vosarena.demo import synthesize as synthetic
from vosarena.fetching.sources import RetryPolicy
from vosarena.io.masks import read_mask, write_mask
from vosarena.io.video import decode_video

logger = logging.getLogger(__name__)

_LOOKS = 16  # at the same time: a file server needs a while for each
_MARK = ".prepared.json"  # what the folder was made from
_NOTE = "prepared.txt"  # the same for people, and the sign for the workflow
# What chooses among the prepared sequences or says what becomes of them, but changes no prepared file.
_CHOICE = {"protocol", "ground_truth", "resize", "sequences", "select", "exclude", "attributes", "sample", "submission"}


def fetch_split(split: Split, resources: Path, policy: RetryPolicy, keep: bool = True) -> Path:
    """From a split's name to its table of sequences: download, verify, extract, prepare and index.

    Returns the table. keep: whether archives stay after extraction. Raises DataError in one sentence.
    """
    for archive in archives_of(split):
        fetch_archive(archive, resources, policy)
        extract_archive(archive, resources, policy, keep)
    table = Paths(resources=resources).sequences(split)
    prepare_split(split, resources)
    index_split(table.parent, table, split)
    return table


def prepare_split(split: Split, resources: Path) -> None:
    """Make the prepared form of a split in `<resources>/datasets/<dataset>/<split>`.

    What is there already and made from the same is left alone, so that two runs can share it. Archives must be
    extracted. Raises DataError naming what is missing.
    """
    root = Paths(resources=resources).dataset(split)
    with lock(root):
        root.mkdir(parents=True, exist_ok=True)
        origin = _origin(split, resources)
        if _is_made(root, origin):
            logger.info("%s: already prepared", split)
            return
        (root / _MARK).unlink(missing_ok=True)
        if split.synthetic:
            synthetic.synthesize(root, split.synthetic)
        else:
            found = _found(split, _roots(split, resources))
            logger.info("%s: %d sequences", split, len(found.sequences))
            for warning in found.warnings:
                logger.warning("%s", warning)
            _build(found, split, root, resources)
        write_note(root / _MARK, {"origin": origin, "links": _links(root)})
        came_from = ", ".join(archive.file for archive in archives_of(split)) or split.path or "procedural videos"
        (root / _NOTE).write_text(f"{split} from {came_from}\n")


def _roots(split: Split, resources: Path) -> list[Path]:
    if split.archives:
        return roots_of(split, resources)
    if not split.path:
        raise DataError(f"dataset {split}: its entry names no `archives` and no `path`; give the folder that it is in")
    if not Path(split.path).is_dir():
        raise DataError(f"dataset {split}: there is no folder {split.path}; fix its `path`")
    return [Path(split.path)]


def _build(found: Found, split: Split, root: Path, resources: Path) -> None:
    """Links, decoded videos and changed masks in folders beside their place, which they then take."""
    made = {name: root / f".{name}.part" for name in (IMAGES, ANNOTATIONS)}
    for folder in made.values():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    problems: list[str] = []
    for name, source in found.sequences.items():
        try:
            if source.problem:
                raise DataError(source.problem)
            _build_sequence(name, source, split, made, root, resources)
        except DataError as error:  # only this sequence fails, by name, when it is indexed or tracked
            problems.append(f"sequence {name}: {error.reason}")
            for folder in made.values():
                _discard(folder / name)
            (made[IMAGES] / name).mkdir()
            write_text(made[IMAGES] / name / PROBLEM, f"{escape_unprintable(error.reason)}\n")
    if len(problems) == len(found.sequences):
        more = f" (and {len(problems) - 1} more sequences that cannot be used)" if problems[1:] else ""
        raise DataError(f"{problems[0]}{more}")
    for name, folder in made.items():
        _discard(root / name)
        folder.replace(root / name)
    for file, content in ((ATTRIBUTES, found.attributes), (META, {"videos": found.meta} if found.meta else {})):
        if content:
            write_json(root / file, content)
        else:
            (root / file).unlink(missing_ok=True)


def _build_sequence(
    name: str, source: Source, split: Split, made: Mapping[str, Path], root: Path, resources: Path
) -> None:
    if not source.images.exists():
        raise DataError(f"{source.images}: a link that leads nowhere; put the frames there")
    if source.images.is_dir():
        _link(made[IMAGES] / name, source.images, root / IMAGES, resources)
    else:
        decode_video(source.images, made[IMAGES] / name)
    if source.masks is None:
        return
    files = numbered_files(source.masks, (MASK_SUFFIX,)) if split.binary else []
    if not files:
        _link(made[ANNOTATIONS] / name, source.masks, root / ANNOTATIONS, resources)
        return
    (made[ANNOTATIONS] / name).mkdir()
    for path in files:  # label 1 for all that is not zero
        write_mask(made[ANNOTATIONS] / name / f"{path.stem}{MASK_SUFFIX}", (read_mask(path) > 0).astype(np.uint8))


def _link(link: Path, target: Path, final: Path, resources: Path) -> None:
    """A relative link for the folder `final`, so that the resources can be moved as a whole; absolute ones lead out."""
    target = Path(os.path.abspath(target))  # noqa: PTH100 (resolve() would follow the user's own links)
    inside = target.is_relative_to(os.path.abspath(resources))  # noqa: PTH100
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
    known = split.model_dump(mode="json", exclude=_CHOICE)
    if split.synthetic:
        files = (synthetic.__file__, clips.__file__, procedural.__file__)
        known["generator"] = [sha256(Path(file).read_bytes()).hexdigest() for file in files]
    known["state"] = state_of(split)
    for archive in archives_of(split):
        known[archive.file] = read_note(sidecar_path(archive.folder(resources)))
    return sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()


def state_of(split: Split) -> str:
    """Changes when sequences or frames of a user's folder are added, removed or replaced: the signal to index again.

    Only folders are looked at (one look per sequence), so this stays quick for thousands of sequences; and files where
    they are copied, videos and masks of `binary: true`, because no later stage reads them again. The time of the last
    change of the inode is part of it: what `mv`, `rsync -a` and `tar` bring keeps its old time of modification.
    """
    if not split.path or not Path(split.path).is_dir():
        return ""
    try:
        found = _found(split, [Path(split.path)])
    except DataError:
        return "incomplete"
    sources = sorted(found.sequences.items())
    with ThreadPoolExecutor(_LOOKS) as pool:
        looks = pool.map(lambda part: [_look(*item, binary=split.binary) for item in part], _parts(sources))
        seen = sorted(itertools.chain.from_iterable(looks))
    known = json.dumps([seen, found.attributes, found.meta], sort_keys=True)
    return f"{len(sources)} sequences, {sha256(known.encode()).hexdigest()[:16]}"


def _found(split: Split, roots: Sequence[Path]) -> Found:
    try:
        return find(split, roots)
    except OSError as error:
        raise DataError(f"{split}: {error.filename} cannot be read ({error.strerror}); make it readable") from error


def _parts(items: list[Any]) -> Iterator[list[Any]]:
    return (items[start::_LOOKS] for start in range(_LOOKS))


def _look(name: str, source: Source, *, binary: bool) -> list[str]:
    """What a look at the folders of a sequence shows. binary: whether at its mask files too."""
    seen = [name, source.problem]
    try:
        seen.append(_stamp(source.images.stat()))
        if source.masks is None:
            return seen
        masks = source.masks.stat()
        seen.append(_stamp(masks))
        # Unless it has no folder in it (as link counts say, where a file system keeps them) it may be one per object.
        if binary or masks.st_nlink != 2:
            with os.scandir(source.masks) as entries:
                inside = [entry.name for entry in entries if binary or entry.is_dir()]
            seen += sorted(f"{escape_unprintable(name)} {_stamp((source.masks / name).stat())}" for name in inside)
    except OSError as error:  # a link that leads nowhere, or a folder that cannot be read
        seen.append(str(error))
    return seen


def _stamp(found: os.stat_result) -> str:
    """Changes when a file is edited or replaced, or when an entry of a folder is."""
    return f"{found.st_mtime_ns} {found.st_ctime_ns} {0 if stat.S_ISDIR(found.st_mode) else found.st_size}"
