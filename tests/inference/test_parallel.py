"""How many tracking jobs ran at once."""

import os
import subprocess
import sys
import time

import pytest

from vosarena.inference.parallel import ParallelJobs
from vosarena.inference.track import track
from vosarena.predictions.store import Store

_JOB = "from vosarena.inference.parallel import ParallelJobs\nwith ParallelJobs(): print(flush=True); input()"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def start(folder):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    job = subprocess.Popen([sys.executable, "-c", _JOB], env={**os.environ, "TMPDIR": str(folder)}, **pipes)
    job.stdout.readline()
    return job


def test_living_jobs_are_counted_and_those_that_ended_meanwhile(folder):
    with ParallelJobs() as jobs:
        assert jobs.numbers() == {"0"}
        began = time.time() - 0.01  # the kernel's clock of files is coarser
        first, second = start(folder), start(folder)
        assert jobs.numbers() == {"0", "1", "2"}
        first.communicate(b"\n")
        assert jobs.numbers() == {"0", "2"} and jobs.numbers(since=began) == {"0", "1", "2"}
        second.kill()
        second.communicate()
        assert jobs.numbers() == {"0"} and jobs.numbers(since=time.time() + 1) == {"0"}
        with ParallelJobs() as other:
            assert other.numbers() == {"0", "1"}, "the lowest number that is free"


def test_a_manifest_says_how_many_jobs_ran(dataset, tmp_path):
    folders = dataset / "JPEGImages", dataset / "Annotations"
    track(*folders, tmp_path / "alone", tracker="static")
    with ParallelJobs():
        track(*folders, tmp_path / "two", tracker="static")
    found = {name: Store(tmp_path / name).manifests(["alpha", "beta"]) for name in ("alone", "two")}
    numbers = {name: {it.timing.parallel_jobs for it in manifests.values()} for name, manifests in found.items()}
    assert numbers == {"alone": {1}, "two": {2}}


def test_a_folder_that_cannot_be_used_does_not_stop_tracking(dataset, tmp_path):
    (tmp_path / f"vosarena-jobs-{os.getuid()}").write_text("a file of somebody else")
    track(dataset / "JPEGImages", dataset / "Annotations", tmp_path / "masks", tracker="static")
    manifests = Store(tmp_path / "masks").manifests(["alpha", "beta"])
    assert [found.timing.parallel_jobs for found in manifests.values()] == [0, 0], "not known"
