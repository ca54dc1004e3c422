"""The store of predictions: one folder of masks and one manifest per sequence, each accepted whole or not at all.

`<store>/<sequence>/<frame>.png` and `<store>/<sequence>.json`. Masks are written into a hidden folder beside their
place, renamed, and only then vouched for by the manifest; whatever moment a process dies at, a sequence without a
manifest that fits is simply tracked again. `.<sequence>.failed.json` says why the last attempt failed. Names of
sequences do not start with a dot, so only `<sequence>.json` may be the name of another sequence: one that ends in
`.json` is refused. These notes hold a checksum; one that is damaged counts as one that is not there.

While a process writes a sequence it holds the claim `.<sequence>.lock` (see locks), so jobs that outlive their
Snakemake and the jobs of the next one never write the same sequence at once. Even a process that was frozen until its
claim was taken over cannot do harm: it may not commit, and should it be frozen in the midst of that, the masks would
not fit the digest in the manifest, which is checked before they are scored.
"""

import contextlib
import logging
import os
import re
import shutil
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vosarena.base.errors import DataError, VosarenaError
from vosarena.base.locks import Lock, LockHeld, acquire, is_dead, read_lock
from vosarena.base.notes import read_note, write_note
from vosarena.predictions.failures import SILENT, UNEXPECTED, Stopped, classify, is_final, reason_of

logger = logging.getLogger(__name__)

_FAILED, _CLAIM = ".failed.json", ".lock"


class Store:
    """Predictions of one model on one split, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._claims: dict[str, Lock] = {}

    def masks(self, sequence: str) -> Path:
        """Folder of a sequence's masks."""
        return self.folder / sequence

    def manifest(self, sequence: str) -> dict[str, Any] | None:
        """What is known of a finished sequence, or None."""
        return read_note(self._manifest_file(sequence)) or None

    def holds(self, sequence: str, fingerprint: str, names: Sequence[str]) -> bool:
        """Whether the sequence is there, with all masks `<name>.png`, and made by what `fingerprint` stands for."""
        manifest = self.manifest(sequence)
        if manifest is None or manifest.get("fingerprint") != fingerprint:
            return False
        files = [self.masks(sequence) / f"{name}.png" for name in names]
        try:
            present = {path for folder in {file.parent for file in files} for path in folder.iterdir()}
        except FileNotFoundError:
            return False
        return present.issuperset(files)

    @staticmethod
    def sequences_of(status: Path) -> list[str]:
        """Sequences that a shard's status file vouches for; none if it is damaged."""
        return list(read_note(status).get("masks", ()))

    def withdraw(self, shards: Mapping[str, Sequence[str]]) -> None:
        """Remove the status files of shards that vouch for a sequence that is no longer there.

        Whoever removed its masks or manifest wants it tracked again. shards: names of their sequences. Costs two looks,
        at the folder and at that of the status files.
        """
        try:
            statuses, there = set(os.listdir(self.folder / ".shards")), set(os.listdir(self.folder))  # noqa: PTH208
        except FileNotFoundError:
            return
        for shard, names in shards.items():
            lost = {name for name in names if name not in there or f"{name}.json" not in there}
            status = self.folder / ".shards" / f"{shard}.json"
            if lost and status.name in statuses:
                vouched = self.sequences_of(status)
                if not vouched or lost.intersection(vouched):
                    status.unlink(missing_ok=True)

    @contextmanager
    def writing(self, sequence: str) -> Iterator[Path]:
        """A fresh hidden folder for the sequence's masks, removed unless it was committed.

        Raises LockHeld if another process writes the sequence, or took it over meanwhile, and DataError for a name that
        cannot be told from that of a note.
        """
        if sequence.endswith(".json"):
            raise DataError(
                f"sequence {sequence}: its name ends in .json, as those of the notes about predictions do; rename it"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        claim = acquire(self._claim_file(sequence), on_stale=lambda owner: self._after_death(sequence))
        self._claims[sequence] = claim
        folder = self.folder / f".{sequence}.{claim.token}.part"
        try:
            folder.mkdir()
            yield folder
        except Exception as error:
            if claim.is_mine():
                raise
            raise LockHeld(f"sequence {sequence} was taken over by another process") from error
        finally:
            for left in (folder, folder.with_suffix(".old")):
                shutil.rmtree(left, ignore_errors=True)
            del self._claims[sequence]
            claim.release()

    def commit(self, sequence: str, written: Path, manifest: Mapping[str, Any]) -> None:
        """Put a folder from `writing` in its place; the manifest comes last and makes it valid.

        Raises LockHeld if the sequence is another process's by now.
        """
        if not self._claims[sequence].is_mine():
            raise LockHeld(f"sequence {sequence} was taken over by another process")
        self._manifest_file(sequence).unlink(missing_ok=True)
        replaced = written.with_suffix(".old")
        with contextlib.suppress(FileNotFoundError):
            self.masks(sequence).rename(replaced)
        written.rename(self.masks(sequence))
        write_note(self._manifest_file(sequence), manifest)
        self._failure_file(sequence).unlink(missing_ok=True)

    def tidy(self, sequence: str) -> None:
        """Remove what is left beside a sequence that is held: a failure that is mended, a claim of a killed process."""
        self._failure_file(sequence).unlink(missing_ok=True)
        if self._claim_file(sequence).exists():
            with contextlib.suppress(LockHeld):
                acquire(self._claim_file(sequence), on_stale=lambda owner: self._sweep(sequence)).release()

    def abandoned(self, sequence: str) -> bool | None:
        """Whether the process that claimed the sequence has ended; None if nobody claims it."""
        found = read_lock(self._claim_file(sequence))
        return is_dead(found[0], time.time() - found[1]) if found else None

    def discard(self, sequence: str) -> None:
        """Forget a sequence, so that it is tracked again. The manifest goes first: no moment shows half of it."""
        self._manifest_file(sequence).unlink(missing_ok=True)
        shutil.rmtree(self.masks(sequence), ignore_errors=True)

    def fail(self, sequence: str, error: BaseException, fingerprint: str = "", tracker: str = "") -> None:
        """Record why an attempt failed and count the attempts. fingerprint: what was being computed; tracker: by it."""
        known = isinstance(error, VosarenaError | Stopped)
        self._record(
            sequence,
            {
                "class": classify(error, tracker),
                "error": type(error).__name__,
                "reason": reason_of(error, tracker, sequence),
                "traceback": "" if known else "".join(traceback.format_exception(error)),
                "fingerprint": fingerprint if is_final(error) else "",
            },
        )

    def failure(self, sequence: str) -> dict[str, Any] | None:
        """What the last attempt failed of, and the number of attempts; None if the sequence did not fail."""
        return read_note(self._failure_file(sequence)) or None

    def failures(self) -> dict[str, dict[str, Any]]:
        """`failure` of every sequence that has one, by name."""
        found = {sequence: self.failure(sequence) for sequence in self._named(_FAILED)}
        return {sequence: failure for sequence, failure in found.items() if failure}

    def suspects(self) -> set[str]:
        """Sequences with a record of failure or a claim: found with one look at the folder."""
        return {*self._named(_FAILED), *self._named(_CLAIM)}

    def _named(self, suffix: str) -> list[str]:
        try:
            names = os.listdir(self.folder)  # noqa: PTH208 (thousands of names, and nothing else of them)
        except FileNotFoundError:
            return []
        return sorted(name[1:].removesuffix(suffix) for name in names if name[0] == "." and name.endswith(suffix))

    def is_deadly(self, sequence: str) -> bool:
        """Whether the last process that tracked the sequence ended without a word."""
        return bool(self.abandoned(sequence)) or (self.failure(sequence) or {}).get("deadly", False)

    def bury(self, sequence: str, how: str) -> bool:
        """Record that the process that tracked the sequence has ended without a word; False if there is none such.

        how: the sentence about its end.
        """
        if not self.abandoned(sequence):
            return False
        with contextlib.suppress(LockHeld):
            acquire(self._claim_file(sequence), on_stale=lambda owner: self._after_death(sequence, how)).release()
        return True

    def _record(self, sequence: str, entry: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        attempts = (self.failure(sequence) or {"attempts": 0})["attempts"] + 1
        now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        record = {"sequence": sequence, **entry, "attempts": attempts, "time": now}
        try:
            write_note(self._failure_file(sequence), record)
        except OSError as error:  # the disk may be full: the log must do
            logger.error("%s: the failure cannot be recorded: %s", sequence, error)

    def _after_death(self, sequence: str, how: str = SILENT) -> None:
        """Count the attempt of a process that was killed, and remove what it left."""
        self._sweep(sequence)
        empty = {"error": "", "traceback": "", "fingerprint": ""}
        self._record(sequence, {"class": UNEXPECTED, "reason": how, "deadly": True, **empty})

    def _manifest_file(self, sequence: str) -> Path:
        return self.folder / f"{sequence}.json"

    def _failure_file(self, sequence: str) -> Path:
        return self.folder / f".{sequence}{_FAILED}"

    def _claim_file(self, sequence: str) -> Path:
        return self.folder / f".{sequence}{_CLAIM}"

    def _sweep(self, sequence: str) -> None:
        """Remove what a killed process left of a sequence."""
        notes = (self._manifest_file(sequence).name, self._failure_file(sequence).name)
        names = "|".join(re.escape(name) for name in (sequence, *notes))
        left = re.compile(rf"\.({names})\.[0-9a-f]{{16}}\.(part|old)")
        for path in self.folder.iterdir():
            if left.fullmatch(path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def discard(store: Store, sequences: Iterable[str], statuses: Iterable[Path]) -> None:
    """Forget predictions, and statuses of shards that vouch for one that is not there: the next run tracks it again."""
    for name in sequences:
        store.discard(name)
    for status in statuses:
        if any(store.manifest(name) is None for name in store.sequences_of(status)):
            status.unlink()
