"""Check that the training data do not overlap the evaluated splits."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from vosarena.base.errors import DataError
from vosarena.base.text import summarise_names
from vosarena.datasets.sequences import FRAME_SUFFIXES
from vosarena.datasets.table import selected_names


def check_leakage(training: Mapping[str, Path], evaluated: Mapping[str, Path], use: str = "evaluated") -> None:
    """Check that no sequence is in both the training data and other splits.

    Two sequences are the same if they have the same name in the same dataset, or if they share a frame (the same
    bytes), in any dataset.

    Args:
        training: Folders of the training data in canonical layout, by "<dataset>/<split>".
        evaluated: Folders of the other splits, in the same form.
        use: What the other splits are, for the error.

    Raises:
        DataError: Sequences are in both; the error names them.
    """
    leaks = sorted({*_by_name(training, evaluated), *_by_frame(training, evaluated)})
    if leaks:
        raise DataError(
            f"fine-tuning data overlap the {use} sequences: {summarise_names(leaks, 10)}; leave these splits or "
            "sequences out of one of the two"
        )


def _by_name(training: Mapping[str, Path], evaluated: Mapping[str, Path]) -> set[str]:
    def names(splits: Mapping[str, Path]) -> dict[tuple[str, str], str]:
        return {(split.split("/")[0], name): split for split, folder in splits.items()
                for name in selected_names(folder)}  # fmt: skip

    theirs = names(evaluated)
    return {f"{split}: {key[1]} is also in {theirs[key]}" for key, split in names(training).items() if key in theirs}


def _by_frame(training: Mapping[str, Path], evaluated: Mapping[str, Path]) -> set[str]:
    """Find shared frames. Only files whose size occurs on both sides are read, because equal bytes have equal sizes."""

    def sizes(splits: Mapping[str, Path]) -> dict[int, list[tuple[str, Path]]]:
        found: dict[int, list[tuple[str, Path]]] = defaultdict(list)
        for split, folder in splits.items():
            for name in selected_names(folder):
                for path in (folder / "JPEGImages" / name).iterdir():  # the order does not matter
                    if path.suffix.lower() in FRAME_SUFFIXES and path.is_file():
                        found[path.stat().st_size].append((f"{split}: {name}", path))
        return found

    ours, theirs = sizes(training), sizes(evaluated)
    leaks = set()
    for size in ours.keys() & theirs.keys():
        digests = {_digest(path): who for who, path in theirs[size]}
        for who, path in ours[size]:
            if other := digests.get(_digest(path)):
                leaks.add(f"{who} shares a frame with {other}")
    return leaks


def _digest(path: Path) -> bytes:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
