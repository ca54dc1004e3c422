"""Failed jobs, as Snakemake's log events report them."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("snakemake")

from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

from vosarena.orchestration.job_errors import FailedJob, JobErrors, last_error

SNAKEFILE = """
from snakemake.logging import logger

from vosarena.orchestration.job_errors import JobErrors

errors = JobErrors()
if workflow.is_main_process:
    logger.addHandler(errors)


rule all:
    input: "good.txt", "bad.txt", "retried.txt"

rule good:
    output: "good.txt"
    shell: "touch {output}"

rule bad:
    output: update("bad.txt")
    log: "bad.log"
    shell: "echo 'error: bad weights' > {log}; exit 1"

rule retried:
    output: "retried.txt"
    retries: 1
    shell: "test -e once || (touch once; exit 1); touch {output}"


onerror:
    with open("failed.txt", "w") as file:
        for job in errors.jobs():
            print(job.rule, ",".join(job.outputs), job.log, file=file)
"""


@pytest.fixture
def errors():
    handler = JobErrors()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def report_error(jobid: int, message: str | None, logs: list[str]) -> None:
    fields = {"event": LogEvent.JOB_ERROR, "rule_name": "track", "rule_msg": message, "jobid": jobid}
    logger.error("Error in rule track", extra={**fields, "output": ["p/.shards/a.json (update)"], "log": logs})


def test_what_the_executor_says_is_read(errors, tmp_path):
    executor_log = tmp_path / "3.log"
    executor_log.write_text("slurmstepd: error: Exceeded job memory limit\n")
    report_error(13, "job '3' failed", ["logs/a.log", str(executor_log), str(tmp_path / "nowhere.log")])
    text = f"job '3' failed\n{executor_log.read_text()}\n"
    assert errors.jobs() == [FailedJob("track", ["p/.shards/a.json"], Path("logs/a.log"), text)]


def test_a_job_that_a_later_attempt_finishes_has_not_failed(errors):
    logger.setLevel("INFO")
    report_error(13, None, ["logs/a.log"])
    report_error(14, "two\nlines", [])
    logger.info("Finished jobid: 13", extra={"event": LogEvent.JOB_FINISHED, "job_id": 13})
    assert [job.engine_text for job in errors.jobs()] == ["two\nlines"]


@pytest.mark.parametrize("options", [[], ["--logger", "rich"], ["--quiet", "all"]], ids=["plain", "rich", "quiet"])
def test_events_arrive_with_every_command_line(options, tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    command = [str(Path(sys.executable).with_name("snakemake")), "--cores", "1", "--keep-going", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert (tmp_path / "failed.txt").read_text() == "bad bad.txt bad.log\n"


def test_the_last_error_of_a_log(tmp_path):
    log = tmp_path / "job.log"
    log.write_text("error: first\nTraceback (most recent call last):\n  File x\n    y\nKeyError: 'memory'\nthe end\n")
    assert last_error(log) == "KeyError: 'memory'"
    log.write_text("error: no weights\n  tried: a\n  tried: b\nExiting\n")
    assert last_error(log) == "no weights; tried: a; tried: b"
    log.write_text(" 50%|#####     |\r 60%|######    |\rerror: 2 of 3 sequences failed:\n  a: damaged\n")
    assert last_error(log) == "2 of 3 sequences failed: a: damaged"
    log.write_text("error: damaged masks:\n" + "  a: damaged\n" * 5_000)
    assert last_error(log).startswith("damaged masks: a: damaged")
    assert last_error(tmp_path / "nowhere.log") == ""
