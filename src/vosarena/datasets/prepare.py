"""Prepare a split: convert every dataset to the one form that all later stages use.

`<root>/JPEGImages/<sequence>/` and `<root>/Annotations/<sequence>/` are links into the user's folder or the extracted
archives; frames of videos and converted masks are files. Next to them are `attributes.json` (sequence -> attributes)
and `meta.json` (the dataset's own, with the split's sequences only), if the dataset has them.
"""

import itertools
import json
import logging
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from vosarena import demo
from vosarena.base.errors import DataError
from vosarena.base.files import write_text
from vosarena.base.hashing import file_sha256
from vosarena.base.locks import lock
from vosarena.base.names import escape_unprintable
from vosarena.base.notes import read_note, sidecar_path, write_note
from vosarena.config.catalogs import Split
from vosarena.config.paths import Paths
from vosarena.datasets.archives import archives_of, extract_archive, fetch_archive, roots_of
from vosarena.datasets.facts import PREPARED, PREPARED_NOTE, facts_digests, write_facts, write_frame_rates
from vosarena.datasets.layouts import DatasetContents, SequenceSource, discover
from vosarena.datasets.readers import is_read_by_class, reader_state, write_sequence
from vosarena.datasets.recognise import recognise
from vosarena.datasets.sequences import (
    ANNOTATIONS,
    FULL_ANNOTATIONS,
    FULL_IMAGES,
    IMAGES,
    MASK_SUFFIX,
    PROBLEM,
    numbered_files,
)
from vosarena.datasets.table import index_split
from vosarena.fetching.policy import RetryPolicy
from vosarena.io.masks import read_mask, write_mask
from vosarena.io.video import decode_video, frame_rate

logger = logging.getLogger(__name__)

_THREADS = 16  # for the folders of sequences: each takes a file server some time
# Options that select or describe prepared sequences, but change no prepared file.
_CHOICE = {
    *("protocol", "ground_truth", "resize", "sequences", "select", "exclude", "attributes", "sample"),
    *("submission", "overlaps", "prompts", "frame_rate"),
}


def fetch_split(split: Split, resources: Path, policy: RetryPolicy, keep: bool = True) -> Path:
    """Download, verify, extract, prepare and index a split.

    Args:
        split: The split.
        resources: Folder of all datasets.
        policy: How often and how patiently to download.
        keep: Whether to keep archives after extraction.

    Returns:
        The table of its sequences.

    Raises:
        DataError: An archive is missing or wrong, or the split has no usable sequence.
    """
    for archive in archives_of(split):
        fetch_archive(archive, resources, policy)
        extract_archive(archive, resources, policy, keep)
    table = Paths(resources=resources).sequences(split)
    prepare_split(split, resources)
    index_split(table.parent, table, split)
    return table


def prepare_split(split: Split, resources: Path) -> None:
    """Prepare a split in `<resources>/datasets/<dataset>/<split>`; its archives must be extracted.

    A folder that was prepared from the same input stays unchanged, so that two runs can share it.

    Args:
        split: The split.
        resources: Folder of all datasets.

    Raises:
        DataError: Something is missing, or no sequence can be used.
    """
    root = Paths(resources=resources).dataset(split)
    with lock(root):
        root.mkdir(parents=True, exist_ok=True)
        digest = _input_digest(split, resources)
        if _is_prepared(root, digest):
            logger.info("%s: already prepared", split)
            return
        (root / PREPARED_NOTE).unlink(missing_ok=True)
        if split.synthetic:
            from vosarena.demo.synthesize import synthesize  # OpenCV, which the planning of a run does not need

            synthesize(root, split.synthetic)
        else:
            contents = _discover(split, _roots(split, resources))
            logger.info("%s: %d sequences", split, len(contents.sequences))
            for warning in contents.warnings:
                logger.warning("%s", warning)
            _build(contents, split, root, resources)
        write_note(root / PREPARED_NOTE, {"input": digest, "links": _links(root), "facts": facts_digests(root)})
        came_from = ", ".join(archive.file for archive in archives_of(split)) or split.path or "procedural clips"
        (root / PREPARED).write_text(f"{split} from {came_from}\n", encoding="utf-8")


def _roots(split: Split, resources: Path) -> list[Path]:
    if split.archives:
        return roots_of(split, resources)
    if not split.path:
        raise DataError(f"dataset {split}: its entry has neither `archives` nor `path`; set `path` to its folder")
    if not Path(split.path).is_dir():
        raise DataError(f"dataset {split}: there is no folder {split.path}; fix its `path`")
    return [Path(split.path)]


def _build(contents: DatasetContents, split: Split, root: Path, resources: Path) -> None:
    """Write links, decoded videos and converted masks to temporary folders, then rename these."""
    folders = (IMAGES, ANNOTATIONS, FULL_IMAGES, FULL_ANNOTATIONS) if split.full_images else (IMAGES, ANNOTATIONS)
    temporary = {name: root / f".{name}.part" for name in folders}
    for folder in temporary.values():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    problems: list[str] = []
    for name, source in contents.sequences.items():
        try:
            if source.problem:
                raise DataError(source.problem)
            _build_sequence(name, source, split, temporary, root, resources)
        except DataError as error:  # only this sequence fails, when it is indexed or tracked
            problems.append(f"sequence {name}: {error.reason}")
            for folder in temporary.values():
                _remove(folder / name)
            (temporary[IMAGES] / name).mkdir()
            write_text(temporary[IMAGES] / name / PROBLEM, f"{escape_unprintable(error.reason)}\n")
    if len(problems) == len(contents.sequences):
        more = f" (and {len(problems) - 1} more sequences that cannot be used)" if problems[1:] else ""
        raise DataError(f"{problems[0]}{more}")
    for name, folder in temporary.items():
        _remove(root / name)
        folder.replace(root / name)
    write_facts(root, contents.attributes, contents.meta)
    videos = {name: source.images for name, source in contents.sequences.items() if source.images.is_file()}
    decoded = {name: video for name, video in videos.items() if not (root / IMAGES / name / PROBLEM).exists()}
    write_frame_rates(root, {name: frame_rate(video) for name, video in decoded.items()})


def _build_sequence(
    name: str, source: SequenceSource, split: Split, temporary: Mapping[str, Path], root: Path, resources: Path
) -> None:
    if source.reader:
        final = root / IMAGES / name
        folders = temporary[IMAGES] / name, temporary[ANNOTATIONS] / name
        write_sequence(source.reader, source.name, *folders, lambda link, target: _link(link, target, final, resources))
        return
    if not source.images.exists():
        raise DataError(f"{source.images}: broken link; put the frames there")
    if source.images.is_dir():
        _link(temporary[IMAGES] / name, source.images, root / IMAGES, resources)
    else:
        decode_video(source.images, temporary[IMAGES] / name)
    for folder, full in ((FULL_IMAGES, source.full_images), (FULL_ANNOTATIONS, source.full_masks)):
        if full is not None:
            _link(temporary[folder] / name, full, root / folder, resources)
    if source.masks is None:
        return
    files = numbered_files(source.masks, (MASK_SUFFIX,)) if split.binary else []
    if not files:
        _link(temporary[ANNOTATIONS] / name, source.masks, root / ANNOTATIONS, resources)
        return
    (temporary[ANNOTATIONS] / name).mkdir()
    for path in files:  # label 1 where the mask is not zero
        write_mask(temporary[ANNOTATIONS] / name / f"{path.stem}{MASK_SUFFIX}", (read_mask(path) > 0).astype(np.uint8))


def _link(link: Path, target: Path, final: Path, resources: Path) -> None:
    """Link to a target: relatively inside the resources, which can then be moved, and absolutely outside them.

    The link is moved to the folder `final` later.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100 (resolve() would follow the user's own links)
    inside = target.is_relative_to(os.path.abspath(resources))  # noqa: PTH100
    link.symlink_to(os.path.relpath(target, final) if inside else target)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _is_prepared(root: Path, digest: str) -> bool:
    """Whether a folder was prepared from this input and is complete."""
    links = _links(root)
    expected = {"input": digest, "links": links, "facts": facts_digests(root)}
    if read_note(root / PREPARED_NOTE) != expected or not (root / PREPARED).is_file():
        return False
    return all((root / link).exists() for link in links)


def _links(root: Path) -> list[str]:
    """Return `JPEGImages/<sequence>`, `Annotations/<sequence>` and so on of all sequences."""
    folders = (IMAGES, ANNOTATIONS, FULL_IMAGES, FULL_ANNOTATIONS)
    return sorted(f"{folder}/{path.name}" for folder in folders for path in root.glob(f"{folder}/*"))


def _input_digest(split: Split, resources: Path) -> str:
    """Return a digest of all input: the split's definition, and its archives or the user's folder."""
    known = split.model_dump(mode="json", exclude=_CHOICE)
    known["state"] = source_fingerprint(split)
    for archive in archives_of(split):
        known[archive.file] = read_note(sidecar_path(archive.folder(resources)))
    return sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()


def source_fingerprint(split: Split, *, every_file: bool = False) -> str:
    """Return text that changes when sequences or frames of a user's folder are added, removed or replaced.

    It tells the workflow to index the split again. Only folders are examined, one per sequence, so this is fast for
    thousands of sequences; and files if they are copied (videos, and masks with `binary: true`), because no later stage
    reads these again. The fingerprint includes the time of the last inode change, because `mv`, `rsync -a` and `tar`
    preserve the modification time.

    Args:
        split: The split.
        every_file: Examine all frames and masks, so that it also changes when one is overwritten.

    Returns:
        The number of sequences and a digest; of a split that a class reads, the class and a digest; of a synthetic one,
        a digest of its generator; empty for others without `path`.
    """
    if split.synthetic:
        return _generator_digest()
    if is_read_by_class(split):
        return reader_state(split, Path(split.path) if split.path else None)
    if not split.path or not Path(split.path).is_dir():
        return ""
    try:
        contents = _discover(split, [Path(split.path)])
    except DataError:
        return "incomplete"
    sources = sorted(contents.sequences.items())
    with ThreadPoolExecutor(_THREADS) as pool:
        parts = pool.map(
            lambda part: [_inspect(*item, binary=split.binary, every_file=every_file) for item in part], _parts(sources)
        )
        seen = sorted(itertools.chain.from_iterable(parts))
    known = json.dumps([seen, contents.attributes, contents.meta], sort_keys=True)
    return f"{len(sources)} sequences, {sha256(known.encode()).hexdigest()[:16]}"


@cache
def _generator_digest() -> str:
    """Return a digest of the code that draws the clips: another version may draw others."""
    modules = sorted(Path(demo.__path__[0]).glob("*.py"))
    return sha256("".join(map(file_sha256, modules)).encode()).hexdigest()[:16]


def _discover(split: Split, roots: Sequence[Path]) -> DatasetContents:
    try:
        return discover(split, roots)
    except DataError as error:
        named = split.imageset or split.images or split.masks or split.reader
        if not split.path or named or "`layout: " in str(error):
            raise
        with suppress(DataError, OSError):
            found = recognise(Path(split.path))
            if found.layout != split.layout:
                error = DataError(f"{error}; it looks like another layout: set {found.keys}")
        raise error from None
    except OSError as error:
        raise DataError(f"{split}: {error.filename} cannot be read ({error.strerror}); make it readable") from error


def _parts(items: list[Any]) -> Iterator[list[Any]]:
    return (items[start::_THREADS] for start in range(_THREADS))


def _inspect(name: str, source: SequenceSource, *, binary: bool, every_file: bool) -> list[str]:
    """Return the state of the folders of a sequence, of its mask files if `binary`, and of all files if asked."""
    seen = [name, source.problem]
    binary = binary or every_file
    try:
        seen.append(_timestamps(source.images.stat()))
        if every_file and source.images.is_dir():
            seen += sorted(f"{escape_unprintable(path.name)} {_timestamps(path.stat())}"
                           for path in source.images.iterdir())  # fmt: skip
        if source.masks is None:
            return seen
        masks = source.masks.stat()
        seen.append(_timestamps(masks))
        # A folder without subfolders has two links, on most file systems; with subfolders, they may be objects.
        if binary or masks.st_nlink != 2:
            with os.scandir(source.masks) as entries:
                inside = [entry.name for entry in entries if binary or entry.is_dir()]
            seen += sorted(f"{escape_unprintable(name)} {_timestamps((source.masks / name).stat())}" for name in inside)
    except OSError as error:  # a broken link, or an unreadable folder
        seen.append(str(error))
    return seen


def _timestamps(status: os.stat_result) -> str:
    """Return text that changes when a file is edited or replaced, or when an entry of a folder is."""
    size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    return f"{status.st_mtime_ns} {status.st_ctime_ns} {size}"
