"""Write archives for evaluation servers: only if every check passes, and the same bytes for the same masks."""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vosarena.base.errors import ConfigError, DataError
from vosarena.base.files import atomic_path, check_folder
from vosarena.config.catalogs import Split
from vosarena.predictions.store import Store
from vosarena.submissions.check import TEAM, ExpectedSequence, find_faults, submission_format
from vosarena.submissions.stored_masks import intact_masks

logger = logging.getLogger(__name__)

_EPOCH = (1980, 1, 1, 0, 0, 0)


def pack_submission(split: Split, table: Path, predictions: Path, output: Path, statuses: Sequence[Path] = ()) -> None:
    """Write the archive of one model's predictions, atomically, if it has no fault.

    Args:
        split: The split.
        table: Its table of sequences.
        predictions: The model's store.
        output: The archive.
        statuses: Status files of the model's shards. If given, a prediction that differs from its manifest is deleted
            with its shard's status, so that the next run tracks it again.

    Raises:
        ConfigError: No server scores the split.
        DataError: Lists every fault; nothing is written.
    """
    if split.ground_truth == "none":
        raise ConfigError(f"{split} has `ground_truth: none`, so no server scores it; write first_frame if one does")
    if split.submission and split.submission.notice:
        logger.warning("%s: %s", split, split.submission.notice)
    check_folder(output.parent)
    expected, store = submission_format(split, table), Store(predictions)
    members: dict[str, Path] = {}
    faults, stale, intact = [], [], dict[str, ExpectedSequence]()
    for sequence, item in expected.sequences.items():
        try:
            intact_masks(store, sequence)
        except DataError as error:
            faults.append(f"sequence {sequence}: {error}")
            stale += [sequence] if store.manifest(sequence) else []
            continue
        intact[sequence] = item
        for stem in item.frames:
            if (path := store.masks(sequence) / f"{stem}.png").is_file():
                members[expected.member(sequence, stem)] = path
    if statuses:
        store.delete_stale(stale, statuses)
    checked = replace(expected, sequences=intact)
    faults += find_faults(checked, list(members), lambda name, _: members[name].read_bytes(), team=False)
    if faults:
        raise DataError(
            "\n".join([f"{output}: not written, {len(faults)} faults:", *(f"  {fault}" for fault in faults)])
        )
    # Stored, not deflated: PNGs are compressed already, and the bytes do not depend on the version of zlib.
    with atomic_path(output, alone=True) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        if expected.team is not None:
            archive.writestr(_member(TEAM), json.dumps(expected.team, indent=1, sort_keys=True) + "\n")
        for name, path in members.items():
            archive.writestr(_member(name), path.read_bytes())


def _member(name: str) -> zipfile.ZipInfo:
    """Header of a member that is the same on every system."""
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system, info.external_attr = 3, 0o644 << 16  # Linux
    return info
