"""Say during a run which models track which sequences, how fast, and how long tracking will still take."""

import logging
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from snakemake_interface_logger_plugins.common import LogEvent

from vosarena.orchestration.job_errors import tail_of

_SHOWN = 3  # running jobs in one line
_BAR = re.compile(  # of tqdm: `3/16 boat:  45%|###  | 16/36 [00:03<00:04, 5.10frame/s]`
    r"(?:^|[\r\n])(?P<title>[^\r\n|]*?): +\d+%\|[^\r\n|]*\| *\d+/\d+ "
    r"\[[\d:]+<(?P<left>[\d:?]+), +(?P<rate>[\d.]+|\?)(?P<unit>frame/s|s/frame)"
)


@dataclass(frozen=True)
class _Job:
    model: str
    log: Path


class Progress(logging.Handler):
    """Write a line about the running tracking jobs to Snakemake's log every few seconds.

    What a job is doing is read from its log, where its progress bar is, so this works for jobs on this machine and on a
    cluster. It handles the same events as JobErrors and is attached in the same way.

    Args:
        output: The logger to write to.
        interval: Seconds between two lines.
    """

    def __init__(self, output: logging.Logger, interval: float) -> None:
        super().__init__()
        self._output, self._interval = output, interval
        self._running: dict[int, _Job] = {}
        self._done, self._total, self._before, self._started = 0, 0, 0, 0.0
        self._ended = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Note that a tracking job has started or ended, or how many jobs of all stages are done."""
        event, fields = getattr(record, "event", None), record.__dict__
        if event == LogEvent.PROGRESS:
            self._done, self._total = fields["done"], fields["total"]
        elif event == LogEvent.JOB_INFO and fields["rule_name"].endswith("track"):  # a module may have a prefix
            log = re.sub(r" \(\w+\)$", "", fields["log"][0])
            self._running[fields["jobid"]] = _Job(str(fields["wildcards"]["model"]), Path(log))
            if not self._started:
                self._started, self._before = time.time(), self._done
                threading.Thread(target=self._repeat, daemon=True).start()
        elif event in (LogEvent.JOB_FINISHED, LogEvent.JOB_ERROR):
            self._running.pop(fields["job_id"] if event == LogEvent.JOB_FINISHED else fields["jobid"], None)

    def stop(self) -> None:
        """Write no more lines."""
        self._ended.set()

    def _repeat(self) -> None:
        while not self._ended.wait(self._interval):
            if text := self.line():
                self._output.info(text)

    def line(self) -> str:
        """Return what the running jobs do, or an empty string if none has begun with a sequence."""
        found = [text for job in list(self._running.values()) if (text := self._doing(job))]
        if not found:
            return ""
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        done = self._done - self._before  # since tracking began
        seconds = (time.time() - self._started) / done * (self._total - self._done) if done else 0
        left = f", about {_duration(seconds)} left" if done else ""
        return f"tracking: {'; '.join(found[:_SHOWN])}{more} ({self._done} of {self._total} jobs done{left})"

    def _doing(self, job: _Job) -> str:
        """Return model, sequence, speed and time left of one job, from the last bar in its log."""
        if not job.log.exists() or job.log.stat().st_mtime < self._started - 1:
            return ""  # of an earlier run
        bars = list(_BAR.finditer(tail_of(job.log)))
        if not bars:
            return ""
        bar = bars[-1]
        if bar["rate"] == "?":
            return f"{job.model}, {bar['title']}"
        rate = float(bar["rate"]) if bar["unit"] == "frame/s" else 1 / max(float(bar["rate"]), 1e-9)
        left = "" if "?" in bar["left"] else f", {bar['left']} left"
        return f"{job.model}, {bar['title']} at {rate:.1f} frames per second{left}"


def _duration(seconds: float) -> str:
    """Return a duration in words."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1, seconds):.0f} s"
