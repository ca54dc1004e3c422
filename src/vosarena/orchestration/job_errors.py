"""Collect the jobs that failed in a run of Snakemake, from its log events."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from snakemake_interface_logger_plugins.common import LogEvent

_TAIL = 200_000  # bytes of a job's log that are read


@dataclass(frozen=True)
class FailedJob:
    """A job of the workflow that failed.

    Attributes:
        rule: Name of its rule, with the prefix of the module if this workflow is one.
        outputs: Its output files.
        log: The log of the rule.
        engine_text: Messages of Snakemake and the executor about how the job ended.
    """

    rule: str
    outputs: Sequence[str]
    log: Path
    engine_text: str


class JobErrors(logging.Handler):
    """Collect the jobs that fail, and remove those that a later attempt finishes.

    It handles the events of Snakemake's logger plugin interface, but it is not a plugin: the rules attach it to
    Snakemake's logger. A plugin must be named by `--logger` or a profile, so a plain `snakemake --cores 8` and a
    workflow that uses this one as a module would run without it. Events reach every handler, whatever the values of
    `--quiet`, `--executor` and `--logger` are.
    """

    def __init__(self) -> None:
        super().__init__()
        self._failed: dict[int, FailedJob] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Record a job that failed or finished."""
        event = getattr(record, "event", None)
        if event == LogEvent.JOB_ERROR:
            self._failed[record.jobid] = _failed_job(record)  # type: ignore[attr-defined]
        elif event == LogEvent.JOB_FINISHED:
            self._failed.pop(record.job_id, None)  # type: ignore[attr-defined]

    def jobs(self) -> list[FailedJob]:
        """Return the failed jobs, in the order of their failures."""
        return list(self._failed.values())


def last_error(log: Path) -> str:
    """Return the message of the last error in a job's log on one line, or an empty string.

    A progress bar may come before it on the same line, with a carriage return.
    """
    start = r"^(?:error: |Fatal Python error: |Traceback \(most recent call last\):\n(?:[ \t].*\n)*)"
    messages = re.findall(start + r"(.*(?:\n  .*)*)", tail_of(log).replace("\r", "\n"), re.MULTILINE)
    return "; ".join(line.strip() for line in messages[-1].splitlines()).replace(":; ", ": ") if messages else ""


def _failed_job(record: logging.LogRecord) -> FailedJob:
    fields = record.__dict__
    outputs = [re.sub(r" \(\w+\)$", "", path) for path in fields["output"]]  # "masks (update)"
    rule_log, *executor_logs = fields["log"] or [""]
    texts = [fields["rule_msg"] or "", *(tail_of(Path(path)) for path in executor_logs)]
    return FailedJob(fields["rule_name"], outputs, Path(rule_log), "\n".join(texts))


def tail_of(path: Path) -> str:
    """Return the end of a log, or an empty string if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
