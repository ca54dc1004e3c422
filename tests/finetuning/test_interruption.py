"""When a training stops: signals, the end of a job, and a file."""

import os
import signal
import time
from pathlib import Path

import pytest

from vosarena.base.errors import TrackerError
from vosarena.finetuning.interruption import Stop, Watch, end_of_job, noted_signals, queue_again, seconds_of


@pytest.mark.parametrize("left, seconds", [
    ("0:59\n", 59), ("04:05", 245), ("3:04:05", 11045), ("2-03:04:05", 183845), ("UNLIMITED", None), ("", None),
])  # fmt: skip
def test_times_as_slurm_writes_them(left: str, seconds: float | None) -> None:
    assert seconds_of(left) == seconds


def test_reasons_to_stop(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "stop", time.monotonic() + 100)
    assert watch.reason(needed=10) is Stop.NO
    assert watch.reason(needed=90) is Stop.LIMIT  # with the reserve, the next iteration would not be finished
    with noted_signals(watch.note):
        os.kill(os.getpid(), signal.SIGURG)
        assert watch.reason() is Stop.LIMIT
        os.kill(os.getpid(), signal.SIGTERM)
        assert watch.reason() is Stop.ASKED
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    other = Watch(tmp_path / "stop")
    assert other.reason() is Stop.NO
    (tmp_path / "stop").write_text("1")
    assert other.reason() is Stop.LIMIT


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for the commands of SLURM: 90 seconds are left, and jobs may not be queued again."""
    for name, line in {"squeue": "echo 1:30", "scontrol": "echo Requested operation is disabled >&2; exit 1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    return tmp_path


def test_a_job_knows_its_end(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end = end_of_job()
    assert end is not None and 80 < end - time.monotonic() <= 90
    (cluster / "squeue").write_text("#!/bin/sh\nexit 1\n")
    assert end_of_job() is None
    monkeypatch.delenv("SLURM_JOB_ID")
    assert end_of_job() is None


def test_a_job_that_may_not_be_queued_again_says_so(cluster: Path) -> None:
    with pytest.raises(TrackerError, match=r"cannot be queued again .*operation is disabled"):
        queue_again()
