"""The workflow on a real SLURM (see slurm.py): the same results as on one machine, and every failure recovered."""

import csv
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from vosarena.tracking.store import Store

from .conftest import REPOSITORY, workflow_command, write_sequence
from .slurm import Slurm, start_slurm

pytestmark = pytest.mark.slow
PREDICTIONS, METRICS = Path("results/predictions/squares/all"), Path("results/metrics/squares/all")

# Behaves as its sequence's name says. Notes every time that it starts with a sequence.
TRACKER = """
import os, time
from pathlib import Path

class Mine:
    packages = ()
    def __init__(self, notes, device, precision):
        self.notes = Path(notes)
    def track(self, frames, prompts):
        name = frames.paths[0].parent.name
        attempt = len(list(self.notes.glob(f"{name}-*")))
        (self.notes / f"{name}-{attempt}").touch()
        for index, frame in enumerate(frames):
            if index == 3 and name == "hungry":
                hog = [b"x" * 2**26 for _ in range(18)]
                time.sleep(4)
            if index == 3 and name in ("endless", "cancelled") and not attempt:
                time.sleep(600)
            time.sleep(1.5 if name.startswith("slow") else 0)
            yield frame[..., 0] * 0 + 1
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[Slurm]:
    yield from start_slurm(tmp_path_factory.mktemp("slurm"))


def on_slurm(directory: Path, config: dict | None, *arguments: str) -> list[str]:
    """The command of docs/cluster.md, with what is particular about this cluster: no accounting, two cores, haste."""
    command = workflow_command(directory, config)
    at = command.index("--cores")
    del command[at : at + 2]
    return [
        *command,
        *("--profile", str(REPOSITORY / "workflow/profiles/slurm"), "--slurm-status-command", "squeue"),
        *("--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1"),
        *("--default-resources", "slurm_partition=gpu", "slurm_account=none", "mem_mb=1200", "runtime=5"),
        *("--set-resources", "track:mem_mb=1200*attempt", *arguments),
    ]


def indexed(directory: Path, config: dict) -> dict:
    """Everything before tracking is done on this machine: only what the tests are about goes through SLURM."""
    command = workflow_command(directory, config, "--until", "index", "--quiet")
    subprocess.run(command, cwd=directory, check=True, capture_output=True)
    return config


def study(root: Path, *names: str, models=None, sequences_per_job: int = 1) -> dict:
    """Config of a small study of sequences in `root`, by default with the tracker above."""
    for name in names:
        write_sequence(root / "squares", name)
    if models is None:
        (root / "mine.py").write_text(TRACKER)
        (root / "notes").mkdir()
        models = [{"name": "mine", "tracker": f"{root}/mine.py:Mine", "options": {"notes": str(root / "notes")}}]
    inference = {"sequences_per_job": sequences_per_job}
    return {"datasets": [{"path": str(root / "squares")}], "models": models, "inference": inference}


def wait_for(condition, seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.1)


@dataclass
class Recovery:
    """What a run full of failures left, and what the second one made of it."""

    first: subprocess.CompletedProcess
    failures: dict[str, dict]
    times: dict[str, int]
    second: subprocess.CompletedProcess


@pytest.fixture(scope="module")
def recovery(slurm, tmp_path_factory) -> Iterator[Future]:
    """Runs in the background, because a time limit of SLURM is at least a minute: ask for result() last."""
    root = tmp_path_factory.mktemp("failures")

    def run() -> Recovery:
        config = indexed(root, study(root, "fine", "broken", "hungry", "endless", "cancelled"))
        frame = root / "squares/JPEGImages/broken/00004.jpg"
        whole = frame.read_bytes()
        frame.write_bytes(whole[: len(whole) // 2])
        limit = ("track:runtime=1*attempt", "--config", "inference={sequences_per_job: 1}")
        targets = [
            str(PREDICTIONS / "mine/.shards" / f"{path.name}.json") for path in root.glob("squares/JPEGImages/*")
        ]
        command = on_slurm(root, config, *limit, "--retries", "0", "--", *targets)
        running = subprocess.Popen(
            command, cwd=root, env=slurm.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        part = root / PREDICTIONS / "mine"
        wait_for(lambda: list(part.glob(".cancelled.*.part/00002.png")))
        slurm.run("scancel", next(job for job, what in slurm.jobs().items() if what.endswith("mine_cancelled")))
        output, errors = running.communicate(timeout=400)
        first = subprocess.CompletedProcess(command, running.returncode, output, errors)
        with (root / "results/failures.csv").open() as file:
            failures = {row["sequence"]: row for row in csv.DictReader(file)}
        times = {path.stem: path.stat().st_mtime_ns for path in part.glob("*.json") if "failed" not in path.name}
        frame.write_bytes(whole)
        command = on_slurm(root, None, *limit, "--retries", "1", "--", *targets)
        second = subprocess.run(command, cwd=root, env=slurm.environment, capture_output=True, text=True)
        return Recovery(first, failures, times, second)

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(run)


def test_the_same_table_as_on_one_machine(slurm, recovery, tmp_path):
    """Tracking in shards and measuring through SLURM, with the profile as it is shipped."""
    here, there = tmp_path / "here", tmp_path / "there"
    for directory in (here, there):
        directory.mkdir()
    config = study(tmp_path, "alpha", "beta", "gamma", models=["static", "flow"], sequences_per_job=2)
    tables = [str(METRICS / f"{model}.parquet") for model in ("static", "flow")]
    command = workflow_command(here, config, "--", *tables)
    done = subprocess.run(command, cwd=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shutil.copytree(here / "resources", there / "resources", symlinks=True)
    command = on_slurm(there, config, "--config", "inference={sequences_per_job: 2}", "--", *tables)
    done = subprocess.run(command, cwd=there, env=slurm.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ran = [what for what in slurm.jobs("COMPLETED").values() if "track" in what or "measure" in what]
    assert sum("shard-" in what and "mine" not in what for what in ran) == 4
    for model in ("static", "flow"):
        assert (there / METRICS / f"{model}.parquet").read_bytes() == (here / METRICS / f"{model}.parquet").read_bytes()


def test_a_killed_snakemake_does_not_lead_to_two_writers(slurm, recovery, tmp_path):
    """Its jobs run on in SLURM; the next Snakemake's jobs wait for them instead of writing the same masks."""
    config = indexed(tmp_path, study(tmp_path, "slow-a", "slow-b", sequences_per_job=2))
    target = str(PREDICTIONS / "mine/.shards/shard-1-of-1.json")
    command = on_slurm(tmp_path, config, "--config", "inference={sequences_per_job: 2}")
    first = subprocess.Popen(
        [*command, "--", target],
        cwd=tmp_path,
        env=slurm.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    store = Store(tmp_path / PREDICTIONS / "mine")
    wait_for(lambda: list(store.folder.glob(".slow-a.*.part/00000.png")))
    for process in [*psutil.Process(first.pid).children(recursive=True), psutil.Process(first.pid)]:
        os.kill(process.pid, signal.SIGKILL)
    first.wait()
    jobs = [job for job, what in slurm.jobs().items() if "shard-" in what]
    assert len(jobs) == 1
    subprocess.run([*command, "--unlock"], cwd=tmp_path, env=slurm.environment, check=True, capture_output=True)
    second = subprocess.run(
        [*command, "--", target], cwd=tmp_path, env=slurm.environment, capture_output=True, text=True
    )
    assert second.returncode == 0, second.stderr
    assert sorted(path.name for path in (tmp_path / "notes").iterdir()) == ["slow-a-0", "slow-b-0"]
    names = sorted(path.name for path in store.folder.iterdir())
    assert names == [".shards", "slow-a", "slow-a.json", "slow-b", "slow-b.json"]


def test_each_failure_is_told_apart(recovery):
    found = recovery.result()
    assert found.first.returncode == 1
    kinds = {name: row["class"] for name, row in found.failures.items()}
    assert kinds == {"broken": "bad data", "hungry": "out of memory", "endless": "timeout", "cancelled": "cancelled"}
    assert "00004" in found.failures["broken"]["reason"]
    assert {row["attempts"] for row in found.failures.values()} == {"1"}
    assert all(row["rerun"].endswith(f"/{name}.json") for name, row in found.failures.items())
    assert "4 sequences failed" in re.sub(r"\s+", " ", found.first.stderr)


def test_each_failure_is_recovered(recovery, tmp_path_factory):
    """`snakemake` again: the finished sequence stays, the others are computed, the hungry one at its second attempt."""
    found = recovery.result()
    assert found.second.returncode == 0, found.second.stderr
    root = tmp_path_factory.getbasetemp() / "failures0"
    store = Store(root / PREDICTIONS / "mine")
    assert set(found.times) == {"fine"}
    assert (store.folder / "fine.json").stat().st_mtime_ns == found.times["fine"]
    assert all(store.manifest(name) for name in ("fine", "broken", "hungry", "endless", "cancelled"))
    starts = [path.name.rpartition("-")[0] for path in (root / "notes").iterdir()]
    assert {name: starts.count(name) for name in set(starts)} == {
        **{"fine": 1, "broken": 2, "endless": 2, "cancelled": 2},
        "hungry": 3,  # too little memory twice, and twice as much at the second attempt of the second run
    }
    assert not [path for path in store.folder.iterdir() if path.name.startswith(".") and path.name != ".shards"]
    assert (root / "results/failures.csv").read_text().count("\n") == 1


def test_nothing_outside_the_profile_knows_slurm(dataset, tmp_path):
    """Another executor plans the same jobs, and neither rules nor library name SLURM."""
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    indexed(tmp_path, {"datasets": [{"path": str(dataset)}], "models": ["static"]})
    command = workflow_command(tmp_path, None, "--dry-run")
    local = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    submit = ["--executor", "cluster-generic", "--cluster-generic-submit-cmd", "qsub", "--jobs", "9"]
    other = subprocess.run([*command, *submit], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "slurm" not in (other.stdout + other.stderr).lower()
    planned = [re.findall(r"^ *(\w+) +(\d+) *$", run.stdout + run.stderr, re.MULTILINE) for run in (local, other)]
    assert planned[0] == planned[1] and ("track", "3") in planned[0]
    sources = [REPOSITORY / "Snakefile", *(REPOSITORY / "workflow/rules").iterdir()]
    sources += (REPOSITORY / "workflow/scripts").rglob("*.py")
    assert [str(path) for path in sources if "slurm" in path.read_text().lower()] == []
