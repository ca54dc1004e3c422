"""What failed: one row for each sequence that a run could not track, with its reason and the way to repeat it."""

import csv
import io
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vosarena.base.escaping import csv_cell, csv_text
from vosarena.base.files import write_text
from vosarena.base.names import safe_path_name
from vosarena.base.text import summarise_names
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
# Arguments of Snakemake that say what runs where and how, and how many values they take at most.
_ONE = ("--profile", "--workflow-profile", "--snakefile", "--directory", "--cores", "--executor", "--jobs")
_MANY = ("--configfile", "--configfiles", "--config", "--default-resources", "--set-resources")
_KEPT = dict.fromkeys(_ONE, 1) | dict.fromkeys((*_MANY, "--software-deployment-method", "--sdm"), sys.maxsize)
_SHORT = {f"-{name[2]}": name for name in ("--snakefile", "--directory", "--cores", "--executor", "--jobs")}
_SHORT["-C"] = "--config"
_SHOWN = 3  # commands
_ROWS = 20  # of the table on the terminal
_TAIL = 20_000  # bytes of a job's own log that are looked at


@dataclass(frozen=True)
class TrackedRun:
    """One model on one split: its store, and shard name -> sequences. logs: folder of the shards' logs."""

    dataset: str
    split: str
    model: str
    store: Path
    logs: Path
    shards: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class FailedJob:
    """A job of the workflow that failed. log: the rule's own. words: what the engine says of its end."""

    rule: str
    outputs: Sequence[str]
    log: Path
    words: str


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
    reason = _last_error(log) or f"{DIED_SILENTLY} (before the first sequence)"
    kind = next(
        (kind for kind, pattern in _WORDS.items() if re.search(pattern, f"{words}\n{reason}")), FailureClass.UNEXPECTED
    )
    return {"class": kind, "reason": reason, "attempts": "1"}


def failed_jobs(log: Path) -> list[FailedJob]:
    """What a Snakemake log, and the engine's logs of the jobs, say of the jobs that failed and were not mended by a
    later attempt."""
    found: dict[str, FailedJob] = {}
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return []
    ends = r"^Error in rule (\w+):\n((?:[ \t]+.*\n?)+)|^Finished jobid: (\d+)"
    for rule, block, finished in re.findall(ends, text, re.MULTILINE):
        said = dict(re.findall(r"^ {4}(\w+): (.*)", block, re.MULTILINE))
        logs = re.sub(r" \(check log file.*", "", said.get("log", "")).split(", ")
        outputs = re.sub(r" \(\w+\)", "", said.get("output", "")).split(", ")
        words = "\n".join([said.get("message", ""), *(_tail(Path(path)) for path in logs[1:])])
        if finished:
            found.pop(finished, None)
        else:
            # The first log is the rule's own; a message of several lines hides what comes after it.
            found[said.get("jobid", block)] = FailedJob(rule, outputs, Path(logs[0]), words)
    return list(found.values())


def _last_error(log: Path) -> str:
    """The sentence of the last error in a job's own log, with its class if it is not one of this library's."""
    ends = r"^(?:error: |Fatal Python error: |Traceback \(most recent call last\):\n(?:[ \t].*\n)*)(.*)"
    return next(reversed(re.findall(ends, _tail(log), re.MULTILINE)), "")


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def rerun_alone(start: str, status: Path, sequence: str) -> str:
    """The command that tracks one sequence by itself, whatever shard it belongs to. start: of `rerun_start`."""
    if status.stem != safe_path_name(sequence):
        flag = "" if " --config " in start else "--config "
        start += f" {flag}'inference={{sequences_per_job: 1, minutes_per_job: 0}}'"
    return f"{start} -- {shlex.quote(str(status.with_name(f'{safe_path_name(sequence)}.json')))}"


def rerun_start(arguments: Sequence[str]) -> str:
    """`snakemake` with those of its arguments that say what runs where and how, but not which part of it.

    The values of `--config` come last, where rerun_alone adds its own: Snakemake obeys only one such flag.
    """
    kept: dict[str, list[str]] = {}
    name = ""
    for argument in arguments:
        if argument.startswith("-"):
            name, _, value = argument.partition("=")
            if argument[:2] in _SHORT:
                name, value = _SHORT[argument[:2]], argument[2:]
            if name in _KEPT:
                kept[name] = [value] if value else []
        elif len(kept.get(name, ())) < _KEPT.get(name, 0):
            kept[name].append(argument)
    if "--config" in kept:
        kept["--config"] = kept.pop("--config")
    return shlex.join(["snakemake", *(word for name, values in kept.items() for word in (name, *values))])


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


def show_failures(rows: Sequence[Mapping[str, str]], file: Path, console: Console | None = None) -> None:
    """Show failures as a table on the terminal, with the commands that repeat the first of them. file: has them all."""
    if not rows:
        return
    console = console or Console(stderr=True)
    count = f"{len(rows)} sequence{'s' * (len(rows) > 1)} failed"
    table = Table(title=Text(f"{count}; details and logs in {file}"), title_justify="left")
    for column in ("run", "sequence", "class", "attempts", "reason"):
        table.add_column(column, overflow="fold")
    alike: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        run = f"{row['model']} on {row['dataset']}/{row['split']}"
        alike.setdefault((run, row["class"], row["attempts"], row["reason"]), []).append(row["sequence"])
    for (run, kind, attempts, reason), names in list(alike.items())[:_ROWS]:
        table.add_row(*(Text(cell) for cell in (run, summarise_names(names), kind, attempts, reason)))
    if len(alike) > _ROWS:
        table.add_row("...", "", "", "", Text(f"{len(alike) - _ROWS} more lines in {file}"))
    console.print(table)
    commands = [row["rerun"] for row in rows[:_SHOWN]] + [f"... (more in {file})"] * (len(rows) > _SHOWN)
    print_plain(console, "\n  ".join(["To repeat one alone:", *commands]))


def show_stages(jobs: Iterable[FailedJob], console: Console | None = None) -> None:
    """Show the jobs of other stages than tracking that failed, each with its reason and log."""
    console = console or Console(stderr=True)
    for job in jobs:
        if not job.rule.endswith("track"):  # with a prefix where this workflow is a module
            reason = _last_error(job.log) or "it ended without a word"
            print_plain(console, f"{job.rule} failed: {reason} ({job.log})")


def print_plain(console: Console, text: str) -> None:
    """Print text as it is: names and paths of users are not markup."""
    console.print(text, soft_wrap=True, highlight=False, markup=False, emoji=False)
