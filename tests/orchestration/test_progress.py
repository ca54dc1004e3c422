"""What a run says about its tracking jobs."""

import logging
import os
import time

import pytest
from snakemake_interface_logger_plugins.common import LogEvent
from tqdm import tqdm

from tests.conftest import wait_for
from vosarena.orchestration.progress import Progress, _duration


def send(progress: Progress, event: LogEvent, **fields) -> None:
    progress.emit(logging.makeLogRecord({"event": event, **fields}))


def start(progress: Progress, number: int, log, model="flow", rule="track") -> None:
    send(progress, LogEvent.JOB_INFO, jobid=number, rule_name=rule, wildcards={"model": model}, log=[str(log)])


def write_bar(log, title: str, done: int, total: int, seconds: float) -> None:
    """A log with the bar that tqdm writes there."""
    with log.open("a") as file:
        file.write("a line before it\n" + tqdm.format_meter(done, total, seconds, prefix=title, unit="frame") + "\r")


@pytest.fixture
def progress():
    found = Progress(logging.getLogger("progress-of-a-test"), interval=0.05)
    yield found
    found.stop()


def test_model_sequence_speed_and_time_left(progress, tmp_path):
    send(progress, LogEvent.PROGRESS, done=2, total=12)
    logs = [tmp_path / f"{number}.log" for number in range(6)]
    for number, log in enumerate(logs):
        start(progress, number, log, model=f"model-{number}", rule="track" if number else "vos_track")
    assert progress.line() == "", "no job has begun"
    write_bar(logs[0], "3/16 a boat", 10, 30, 2.0)
    write_bar(logs[1], "1/1 slow", 2, 10, 8.0)
    write_bar(logs[2], "1/1 new", 0, 10, 0.0)
    assert progress.line() == (
        "tracking: model-0, 3/16 a boat at 5.0 frames per second, 00:04 left; model-1, 1/1 slow at 0.2 frames per "
        "second, 00:32 left; model-2, 1/1 new (2 of 12 jobs done)"
    )
    write_bar(logs[0], "4/16 a car", 5, 10, 1.0)
    for number in (3, 4, 5):
        write_bar(logs[number], "1/1 x", 1, 2, 1.0)
    send(progress, LogEvent.JOB_FINISHED, job_id=1)
    send(progress, LogEvent.JOB_ERROR, jobid=4)
    send(progress, LogEvent.PROGRESS, done=3, total=12)
    line = progress.line()
    assert line.startswith("tracking: model-0, 4/16 a car at 5.0") and "slow" not in line and "model-4" not in line
    assert "; and 1 more (3 of 12 jobs done, about " in line and line.endswith(" left)")


def test_logs_of_an_earlier_run_say_nothing(progress, tmp_path):
    write_bar(tmp_path / "a.log", "1/1 x", 1, 2, 1.0)
    os.utime(tmp_path / "a.log", (time.time() - 60,) * 2)
    start(progress, 1, tmp_path / "a.log")
    start(progress, 2, tmp_path / "none.log", rule="measure")
    assert progress.line() == ""


def test_lines_are_written_while_jobs_run(progress, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        start(progress, 1, tmp_path / "a.log")
        write_bar(tmp_path / "a.log", "1/1 x", 1, 2, 1.0)
        wait_for(lambda: "tracking: flow, 1/1 x at 1.0 frames per second" in caplog.text)


@pytest.mark.parametrize("seconds, text", [(0.2, "1 s"), (119, "119 s"), (121, "2 min"), (7300, "2 h")])
def test_durations_in_words(seconds, text):
    assert _duration(seconds) == text
