"""The store of predictions: one folder of masks and one manifest per sequence.

Layout of a store, which holds the predictions of one model on one split:

    <sequence>/<frame>.png     masks
    <sequence>.json            manifest: makes the masks valid
    .<sequence>.failed.json    why the last attempt failed
    .<sequence>.lock           lock of the process that is writing the sequence (see base.locks)
    .<sequence>.<token>.part/  masks that are being written
    .shards/<shard>.json       status of a shard: all of its sequences were finished

Masks are written into a hidden folder, which is renamed when it is complete; the manifest is written last. If the
process dies at any point, the sequence has no valid manifest and is tracked again. Names of sequences do not start with
a dot, and one that ends in `.json` is refused, so no name clashes with another file. Manifests, failures and statuses
hold a checksum; a damaged file counts as missing.

A process holds the lock of a sequence while it writes it, so jobs that outlive their Snakemake and the jobs of the next
one never write the same sequence at the same time. A process that was suspended until another one took over its lock
cannot commit. If it was suspended in the middle of a commit, the masks do not match the digest in the manifest, which
is checked before they are scored.
"""

import contextlib
import logging
import os
import re
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from vosarena.base.errors import DataError, Stopped, VosarenaError
from vosarena.base.locks import Lock, LockHeld, acquire, is_dead, read_lock
from vosarena.base.notes import read_note, write_note
from vosarena.predictions.failures import DIED_SILENTLY, FailureClass, classify, is_deterministic, reason_of
from vosarena.predictions.manifest import FailureRecord, Manifest

logger = logging.getLogger(__name__)

_FAILED, _LOCK, _SHARDS = ".failed.json", ".lock", ".shards"

T = TypeVar("T")


class Owner(Enum):
    """The process that holds the lock of a sequence."""

    NONE = "none"
    ALIVE = "alive"
    DEAD = "dead"


class Store:
    """Predictions of one model on one split.

    Args:
        folder: The folder of the store; it is made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._locks: dict[str, Lock] = {}

    # Finished sequences.

    def masks(self, sequence: str) -> Path:
        """Return the folder of a sequence's masks."""
        return self.folder / sequence

    def manifest(self, sequence: str) -> Manifest | None:
        """Return the manifest of a sequence, None if it is not finished."""
        return _read(self._manifest_file(sequence), Manifest.from_json)

    def manifests(self, sequences: Iterable[str]) -> dict[str, Manifest]:
        """Return the manifests of those sequences that are finished, by name and in the order given."""
        found = ((sequence, self.manifest(sequence)) for sequence in sequences)
        return {sequence: manifest for sequence, manifest in found if manifest is not None}

    def holds(self, sequence: str, fingerprint: str, names: Sequence[str]) -> bool:
        """Return whether a sequence is finished, up to date and complete.

        Args:
            sequence: Name of the sequence.
            fingerprint: Digest of everything that decides its masks now.
            names: Names of all of its masks, without `.png`.
        """
        manifest = self.manifest(sequence)
        if manifest is None or manifest.fingerprint != fingerprint:
            return False
        files = [self.masks(sequence) / f"{name}.png" for name in names]
        try:
            present = {path for folder in {file.parent for file in files} for path in folder.iterdir()}
        except FileNotFoundError:
            return False
        return present.issuperset(files)

    @contextmanager
    def writing(self, sequence: str) -> Iterator[Path]:
        """Lock a sequence and make a hidden folder for its masks, which is removed unless it was committed.

        Yields:
            The folder.

        Raises:
            LockHeld: Another process is writing the sequence, or took it over in the meantime.
            DataError: The name of the sequence would clash with that of a manifest.
        """
        if sequence.endswith(".json"):
            raise DataError("its name ends in .json, as the names of manifests do; rename it", sequence=sequence)
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = acquire(self._claim_file(sequence), on_stale=lambda owner: self._record_death(sequence, DIED_SILENTLY))
        self._locks[sequence] = lock
        folder = self.folder / f".{sequence}.{lock.token}.part"
        try:
            folder.mkdir()
            yield folder
        except Exception as error:
            if lock.is_mine():
                raise
            raise LockHeld("it was taken over by another process", sequence=sequence) from error
        finally:
            for left in (folder, folder.with_suffix(".old")):
                shutil.rmtree(left, ignore_errors=True)
            del self._locks[sequence]
            lock.release()

    def commit(self, written: Path, manifest: Manifest) -> None:
        """Make the masks in a folder from `writing` the prediction of their sequence.

        Raises:
            LockHeld: The lock was taken over by another process.
        """
        sequence = manifest.sequence
        if not self._locks[sequence].is_mine():
            raise LockHeld("it was taken over by another process", sequence=sequence)
        self._manifest_file(sequence).unlink(missing_ok=True)
        replaced = written.with_suffix(".old")
        with contextlib.suppress(FileNotFoundError):
            self.masks(sequence).rename(replaced)
        written.rename(self.masks(sequence))
        write_note(self._manifest_file(sequence), manifest.to_json())
        self._failure_file(sequence).unlink(missing_ok=True)

    def delete(self, sequence: str) -> None:
        """Delete the prediction of a sequence, so that it is tracked again."""
        self._manifest_file(sequence).unlink(missing_ok=True)  # first, so that no moment shows half of a prediction
        shutil.rmtree(self.masks(sequence), ignore_errors=True)

    def clean_up(self, sequence: str) -> None:
        """Delete what is left of earlier attempts at a finished sequence: its failure, the lock of a dead process."""
        self._failure_file(sequence).unlink(missing_ok=True)
        if self._claim_file(sequence).exists():
            with contextlib.suppress(LockHeld):
                acquire(self._claim_file(sequence), on_stale=lambda owner: self._delete_leftovers(sequence)).release()

    # Shards.

    def status_file(self, shard: str) -> Path:
        """Return the status file of a shard."""
        return self.folder / _SHARDS / f"{shard}.json"

    @staticmethod
    def write_status(status: Path, digests: Mapping[str, str]) -> None:
        """Write the status file of a finished shard: the digest of the masks of each sequence."""
        write_note(status, {"masks": dict(digests)})

    @staticmethod
    def sequences_of(status: Path) -> list[str]:
        """Return the sequences of a shard's status file; none if it is damaged."""
        return list(read_note(status).get("masks", ()))

    def finished_shards(self, sequences: Iterable[str]) -> dict[str, list[str]]:
        """Return the shards of earlier runs, with their sequences, if each of the sequences is in one of them.

        Returns:
            The sequences of each shard, by shard name; empty if some are missing or in several shards.
        """
        found = {status.stem: sorted(self.sequences_of(status)) for status in (self.folder / _SHARDS).glob("*.json")}
        names = [name for shard in found.values() for name in shard]
        return found if sorted(names) == sorted(sequences) else {}

    def drop_stale_status(self, shards: Mapping[str, Sequence[str]]) -> None:
        """Delete the status files of shards with a sequence whose masks or manifest were removed.

        Whoever removed them wants the sequence tracked again. It costs two listings of folders.

        Args:
            shards: Names of shards -> names of their sequences.
        """
        try:
            statuses = set(os.listdir(self.folder / _SHARDS))  # noqa: PTH208 (thousands of names)
            present = set(os.listdir(self.folder))  # noqa: PTH208
        except FileNotFoundError:
            return
        for shard, names in shards.items():
            lost = {name for name in names if name not in present or f"{name}.json" not in present}
            status = self.status_file(shard)
            if lost and status.name in statuses:
                finished = self.sequences_of(status)
                if not finished or lost.intersection(finished):
                    status.unlink(missing_ok=True)

    def delete_stale(self, sequences: Iterable[str], statuses: Iterable[Path]) -> None:
        """Delete predictions, and the status files of shards with a missing prediction: the next run tracks them."""
        for sequence in sequences:
            self.delete(sequence)
        for status in statuses:
            if any(self.manifest(sequence) is None for sequence in self.sequences_of(status)):
                status.unlink()

    # Failures.

    def fail(self, sequence: str, error: BaseException, fingerprint: str = "", tracker: str = "") -> None:
        """Record why an attempt failed, and count the attempts.

        Args:
            sequence: Name of the sequence.
            error: What ended the attempt.
            fingerprint: Digest of what was computed.
            tracker: Name of the tracker.
        """
        known = isinstance(error, VosarenaError | Stopped)
        self._record(
            FailureRecord(
                sequence,
                classify(error, tracker),
                reason_of(error, tracker),
                error=type(error).__name__,
                traceback="" if known else "".join(traceback.format_exception(error)),
                fingerprint=fingerprint if is_deterministic(error) else "",
                **self._attempt(sequence),
            )
        )

    def failure(self, sequence: str) -> FailureRecord | None:
        """Return why the last attempt at a sequence failed, None if it did not fail."""
        return _read(self._failure_file(sequence), FailureRecord.from_json)

    def failures(self) -> dict[str, FailureRecord]:
        """Return the failures of all sequences, by name."""
        found = ((sequence, self.failure(sequence)) for sequence in self._named(_FAILED))
        return {sequence: failure for sequence, failure in found if failure is not None}

    def suspects(self) -> set[str]:
        """Return the sequences with a failure or a lock. It costs one listing of the folder."""
        return {*self._named(_FAILED), *self._named(_LOCK)}

    def owner(self, sequence: str) -> Owner:
        """Return whether a process holds the lock of a sequence, and whether it is still alive."""
        found = read_lock(self._claim_file(sequence))
        if found is None:
            return Owner.NONE
        return Owner.DEAD if is_dead(found[0], time.time() - found[1]) else Owner.ALIVE

    def ended_process(self, sequence: str) -> bool:
        """Return whether the last process that tracked a sequence died without a message or lost its GPU there."""
        failure = self.failure(sequence)
        if failure is not None and (failure.died_silently or failure.failure_class is FailureClass.GPU_ERROR):
            return True
        return self.owner(sequence) is Owner.DEAD

    def record_death(self, sequence: str, reason: str) -> bool:
        """Record that the process that tracked a sequence died; return whether there was such a process.

        Args:
            sequence: Name of the sequence.
            reason: The sentence about its end.
        """
        if self.owner(sequence) is not Owner.DEAD:
            return False
        with contextlib.suppress(LockHeld):
            acquire(self._claim_file(sequence), on_stale=lambda owner: self._record_death(sequence, reason)).release()
        return True

    def _record_death(self, sequence: str, reason: str) -> None:
        """Count the attempt of a process that died, and delete what it left."""
        self._delete_leftovers(sequence)
        attempt = self._attempt(sequence)
        self._record(FailureRecord(sequence, FailureClass.UNEXPECTED, reason, died_silently=True, **attempt))

    def _attempt(self, sequence: str) -> dict[str, Any]:
        """Return the number and time of the attempt that failed now."""
        failure = self.failure(sequence)
        return {"attempts": failure.attempts + 1 if failure else 1, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}

    def _record(self, failure: FailureRecord) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            write_note(self._failure_file(failure.sequence), failure.to_json())
        except OSError as error:  # the disk may be full; the log still has the failure
            logger.error("%s: the failure cannot be recorded: %s", failure.sequence, error)

    def _delete_leftovers(self, sequence: str) -> None:
        """Delete what a dead process left of a sequence."""
        notes = (self._manifest_file(sequence).name, self._failure_file(sequence).name)
        names = "|".join(re.escape(name) for name in (sequence, *notes))
        leftover = re.compile(rf"\.({names})\.[0-9a-f]{{16}}\.(part|old)")
        for path in self.folder.iterdir():
            if leftover.fullmatch(path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _named(self, suffix: str) -> list[str]:
        """Return the sequences that have a hidden file with this suffix."""
        try:
            names = os.listdir(self.folder)  # noqa: PTH208 (thousands of names)
        except FileNotFoundError:
            return []
        return sorted(name[1:].removesuffix(suffix) for name in names if name[0] == "." and name.endswith(suffix))

    def _manifest_file(self, sequence: str) -> Path:
        return self.folder / f"{sequence}.json"

    def _failure_file(self, sequence: str) -> Path:
        return self.folder / f".{sequence}{_FAILED}"

    def _claim_file(self, sequence: str) -> Path:
        return self.folder / f".{sequence}{_LOCK}"


def _read(path: Path, from_json: Callable[[dict[str, Any]], T]) -> T | None:
    """Return the record in a file, None if the file is missing, damaged or of another version."""
    content = read_note(path)
    try:
        return from_json(content) if content else None
    except (KeyError, TypeError, ValueError, AttributeError):
        logger.warning("%s was not written by this version of vosarena; it counts as missing", path)
        return None
