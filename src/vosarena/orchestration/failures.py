"""failures.csv: one row per sequence that a run could not track, with the reason and the command that reruns it."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vosarena.base.escaping import csv_cell, csv_text
from vosarena.base.files import write_text
from vosarena.base.text import summarise_names
from vosarena.orchestration.job_errors import last_error
from vosarena.orchestration.rerun import rerun_alone
from vosarena.predictions.failures import DIED_SILENTLY, FailureClass
from vosarena.predictions.store import Owner, Store

COLUMNS = ("dataset", "split", "model", "sequence", "class", "reason", "attempts", "log", "rerun")

# What schedulers and kernels call the ends of jobs, in the order of who knows best.
_WORDS = {
    FailureClass.OUT_OF_MEMORY: r"OUT_OF_ME|MemoryError|memory limit|oom[-_ ]kill|TERM_MEMLIMIT|OOMKilled",
    FailureClass.TIMEOUT: r"TIMEOUT|TIME LIMIT|DeadlineExceeded|TERM_RUNLIMIT",
    FailureClass.NODE_FAILURE: r"NODE_FAIL|NODE FAILURE|BOOT_FAIL",
    FailureClass.DISK_FULL: r"No space left on device|Disk quota exceeded",
    FailureClass.PREEMPTED: r"PREEMPTED|PREEMPTION|Preempted",
    FailureClass.CANCELLED: r"CANCELLED|TERM_OWNER|Evicted",
}


@dataclass(frozen=True)
class TrackedRun:
    """One model on one split: its store, and shard name -> sequences. logs: folder of the shards' logs."""

    dataset: str
    split: str
    model: str
    store: Path
    logs: Path
    shards: Mapping[str, Sequence[str]]


def collect_failures(runs: Iterable[TrackedRun], words: Mapping[str, str], rerun: str) -> list[dict[str, str]]:
    """Rows with COLUMNS for every sequence whose last attempt failed or ended without a word.

    words: shard's status file -> what the workflow engine said of the job (see failed_jobs), which decides where
    the job itself could not say anything. rerun: start of the command that repeats a target.
    """
    rows = []
    for run in runs:
        store = Store(run.store)
        suspects = store.suspects()
        for shard, sequences in run.shards.items():
            status, log = store.status_file(shard), run.logs / f"{shard}.log"
            said = words.get(str(status))
            reasons = {name: _reason(store, name, said) for name in sorted(suspects.intersection(sequences))}
            found = {name: known for name, known in reasons.items() if known}
            claimed = {name for name in found if said is not None and store.owner(name) is not Owner.NONE}
            ended = [name for name in found if name in claimed or store.died_silently(name)]
            if ended or (said is not None and not found):
                known = _not_reached(ended) if ended else _of_the_job(said or "", log)
                found |= {name: known for name in sequences if name not in found and store.manifest(name) is None}
            for sequence, known in found.items():
                rows.append({
                    **{"dataset": run.dataset, "split": run.split, "model": run.model, "sequence": sequence},
                    **known, "log": str(log), "rerun": rerun_alone(rerun, status, sequence),
                })  # fmt: skip
    return rows


def _reason(store: Store, sequence: str, words: str | None) -> dict[str, str] | None:
    """Class, reason and attempts of a sequence, or None if it is fine or still being written.

    words: None if the engine said nothing of the job, so that it may still run.
    """
    failure, owner = store.failure(sequence), store.owner(sequence)
    attempts = failure.attempts if failure else 0
    if owner is Owner.DEAD or (owner is Owner.ALIVE and words is not None):
        if failure is None and store.manifest(sequence) is not None:
            return None  # killed between the end of its work and the removal of its claim
        kind, reason, attempts = FailureClass.UNEXPECTED, DIED_SILENTLY, attempts + 1
    elif failure is not None:
        kind, reason = failure.failure_class, failure.reason
    else:
        return None
    if reason == DIED_SILENTLY or kind is FailureClass.CANCELLED:  # a job does not know why; its engine does
        for told, pattern in _WORDS.items():
            if re.search(pattern, words or ""):
                reason = f"the job was ended from outside: {told}" if reason == DIED_SILENTLY else reason
                kind = told
                break
    return {"class": kind, "reason": reason, "attempts": str(attempts)}


def _not_reached(culprits: Sequence[str]) -> dict[str, str]:
    """The same for a sequence that its job did not come to. culprits: those that its process did not survive."""
    reason = f"not tracked yet: the process ended without a word before, in {summarise_names(culprits)}; run it again"
    return {"class": FailureClass.NOT_REACHED, "reason": reason, "attempts": "0"}


def _of_the_job(words: str, log: Path) -> dict[str, str]:
    """The same where a job ended before any of its sequences: the model could not be loaded, or nothing be written."""
    reason = last_error(log) or f"{DIED_SILENTLY} (before the first sequence)"
    kind = next(
        (kind for kind, pattern in _WORDS.items() if re.search(pattern, f"{words}\n{reason}")), FailureClass.UNEXPECTED
    )
    return {"class": kind, "reason": reason, "attempts": "1"}


def write_failures(rows: Sequence[Mapping[str, str]], file: Path) -> None:
    """Write failures.csv: only its header if nothing failed."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)
    write_text(file, text.getvalue().encode(errors="backslashreplace").decode())  # names may not be UTF-8


def read_failures(file: Path) -> list[dict[str, str]]:
    """The rows that write_failures wrote; none if the file is not there or damaged."""
    try:
        rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"), newline="")))
    except (OSError, ValueError, csv.Error):
        return []
    return [{name: csv_text(row.get(name) or "") for name in COLUMNS} for row in rows]
