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

# What schedulers and kernels write when a job ends, most specific first.
_ENGINE_WORDS = {
    FailureClass.OUT_OF_MEMORY: r"OUT_OF_ME|MemoryError|memory limit|oom[-_ ]kill|TERM_MEMLIMIT|OOMKilled",
    FailureClass.TIMEOUT: r"TIMEOUT|TIME LIMIT|DeadlineExceeded|TERM_RUNLIMIT",
    FailureClass.NODE_FAILURE: r"NODE_FAIL|NODE FAILURE|BOOT_FAIL",
    FailureClass.DISK_FULL: r"No space left on device|Disk quota exceeded",
    FailureClass.PREEMPTED: r"PREEMPTED|PREEMPTION|Preempted",
    FailureClass.CANCELLED: r"CANCELLED|TERM_OWNER|Evicted",
}


@dataclass(frozen=True)
class TrackedRun:
    """One model on one split.

    Attributes:
        dataset: Name of the dataset.
        split: Name of the split.
        model: Name of the model.
        store: Folder of the predictions.
        logs: Folder of the logs of the shards.
        shards: Names of the sequences of each shard, by shard name.
    """

    dataset: str
    split: str
    model: str
    store: Path
    logs: Path
    shards: Mapping[str, Sequence[str]]


def collect_failures(runs: Iterable[TrackedRun], engine_texts: Mapping[str, str], rerun: str) -> list[dict[str, str]]:
    """Return a row of failures.csv for every sequence whose last attempt failed or died silently.

    Args:
        runs: Every model on every split.
        engine_texts: What the executor says about each failed job (see FailedJob), by status file of the shard. It
            gives the class where the job died before it could write a reason.
        rerun: Start of the command that reruns a target (see rerun_start).
    """
    rows = []
    for run in runs:
        store = Store(run.store)
        suspects = store.suspects()
        for shard, sequences in run.shards.items():
            status, log = store.status_file(shard), run.logs / f"{shard}.log"
            engine_text = engine_texts.get(str(status))
            reasons = {name: _reason(store, name, engine_text) for name in sorted(suspects.intersection(sequences))}
            found = {name: known for name, known in reasons.items() if known}
            claimed = {name for name in found if engine_text is not None and store.owner(name) is not Owner.NONE}
            ended = [name for name in found if name in claimed or store.ended_process(name)]
            if ended or (engine_text is not None and not found):
                known = _not_reached(ended) if ended else _job_reason(engine_text or "", log)
                found |= {name: known for name in sequences if name not in found and store.manifest(name) is None}
            for sequence, known in found.items():
                place = {"dataset": run.dataset, "split": run.split, "model": run.model, "sequence": sequence}
                rows.append(place | known | {"log": str(log), "rerun": rerun_alone(rerun, status, sequence)})
    return rows


def _reason(store: Store, sequence: str, engine_text: str | None) -> dict[str, str] | None:
    """Return the class, reason and attempts of a sequence, or None if it is fine or still being written.

    `engine_text` is None if the job of the sequence has not failed, and therefore may still be running.
    """
    failure, owner = store.failure(sequence), store.owner(sequence)
    attempts = failure.attempts if failure else 0
    if owner is Owner.DEAD or (owner is Owner.ALIVE and engine_text is not None):
        if failure is None and store.manifest(sequence) is not None:
            return None  # killed after its work was done, before its lock was removed
        kind, reason, attempts = FailureClass.UNEXPECTED, DIED_SILENTLY, attempts + 1
    elif failure is not None:
        kind, reason = failure.failure_class, failure.reason
    else:
        return None
    if reason == DIED_SILENTLY or kind is FailureClass.CANCELLED:  # only the engine knows why
        for ended, pattern in _ENGINE_WORDS.items():
            if re.search(pattern, engine_text or ""):
                reason = f"the job was ended from outside: {ended}" if reason == DIED_SILENTLY else reason
                kind = ended
                break
    return {"class": kind, "reason": reason, "attempts": str(attempts)}


def _not_reached(culprits: Sequence[str]) -> dict[str, str]:
    """Return the same for a sequence that its job did not reach, because the process died in one of `culprits`."""
    reason = f"not tracked yet: the process died before it, in {summarise_names(culprits)}; run it again"
    return {"class": FailureClass.NOT_REACHED, "reason": reason, "attempts": "0"}


def _job_reason(engine_text: str, log: Path) -> dict[str, str]:
    """Return the same for a job that failed before its first sequence, for example while it loaded the model."""
    reason = last_error(log) or f"{DIED_SILENTLY} (before the first sequence)"
    kind = next(
        (kind for kind, pattern in _ENGINE_WORDS.items() if re.search(pattern, f"{engine_text}\n{reason}")),
        FailureClass.UNEXPECTED,
    )
    return {"class": kind, "reason": reason, "attempts": "1"}


def write_failures(rows: Sequence[Mapping[str, str]], file: Path) -> None:
    """Write failures.csv. If nothing failed, it has only the header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: csv_cell(value) for name, value in row.items()} for row in rows)
    write_text(file, text.getvalue().encode(errors="backslashreplace").decode())  # names may not be UTF-8


def read_failures(file: Path) -> list[dict[str, str]]:
    """Return the rows of failures.csv, or no rows if the file does not exist or is damaged."""
    try:
        rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"), newline="")))
    except (OSError, ValueError, csv.Error):
        return []
    return [{name: csv_text(row.get(name) or "") for name in COLUMNS} for row in rows]
