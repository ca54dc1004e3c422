"""The workflow on a real SLURM (see slurm.py): the same results as on one machine, and every failure recovered."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests import conftest
from tests.conftest import REPOSITORY, workflow_command, write_sequence
from tests.support.slurm import Slurm, start_slurm
from tests.support.small_study import track_and_measure
from vosarena.base.compiled import _cache_folder
from vosarena.config.paths import Paths
from vosarena.config.study import load_study
from vosarena.datasets.prepare import fetch_split
from vosarena.fetching.policy import RetryPolicy
from vosarena.predictions.store import Store

pytestmark = pytest.mark.slow
CANCELLING = REPOSITORY / "workflow/profiles/slurm/bin"
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
            if index == 3 and attempt < {"endless": 1, "cancelled": 1, "preempted": 1, "moved": 2}.get(name, 0):
                time.sleep(600)
            time.sleep(1.5 if name.startswith("slow") else 0)
            yield frame[..., 0] * 0 + 1
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[Slurm]:
    yield from start_slurm(tmp_path_factory.mktemp("slurm"))


def on_slurm(directory: Path, config: dict | None, *arguments: str) -> list[str]:
    """The command of docs/how-to/cluster.md, adapted to this cluster: no accounting, two cores, short intervals."""
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
    """Everything before tracking is done here, as by `vosarena fetch`: only what the tests are about is left."""
    (split,) = load_study(config).splits.values()
    fetch_split(split, directory / "resources", RetryPolicy())
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


wait_for = partial(conftest.wait_for, seconds=240)


@dataclass
class Recovery:
    """What a run full of failures left, and what the second one made of it."""

    first: subprocess.CompletedProcess
    failures: dict[str, dict]
    times: dict[str, int]
    second: subprocess.CompletedProcess


def finished(store: Store) -> dict[str, int]:
    """When each sequence was finished."""
    return {path.stem: path.stat().st_mtime_ns for path in store.folder.glob("*.json") if "failed" not in path.name}


def left_over(store: Store) -> list[str]:
    """What no finished run leaves in a store: claims, and parts of predictions."""
    return [path.name for path in store.folder.iterdir() if path.name.startswith(".") and path.name != ".shards"]


def failed_and_repeated(slurm: Slurm, root: Path, command: list[str], meanwhile, mend=lambda: None) -> Recovery:
    """Run a command, do things to its jobs, and run it again. mend: what a person does in between."""
    running = subprocess.Popen(
        command, cwd=root, env=slurm.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        meanwhile()
        output, errors = running.communicate(timeout=400)
    finally:
        running.kill()
    first = subprocess.CompletedProcess(command, running.returncode, output, errors)
    with (root / "results/studies/config/failures.csv").open() as file:
        failures = {row["sequence"]: row for row in csv.DictReader(file)}
    times = finished(Store(root / PREDICTIONS / "mine"))
    mend()
    retries = command.index("--retries") + 1
    again = [*command[:retries], "1", *command[retries + 1 :]]
    second = subprocess.run(again, cwd=root, env=slurm.environment, capture_output=True, text=True, timeout=400)
    return Recovery(first, failures, times, second)


def job_of(slurm: Slurm, directory: Path) -> str:
    """The job, the newest, that runs for a study."""
    lines = slurm.run("squeue", "--noheader", "--states=RUNNING", "--format", "%i %Z").splitlines()
    return max((line.split()[0] for line in lines if line.endswith(f" {directory}")), key=int)


@pytest.fixture(scope="module")
def background() -> Iterator[ThreadPoolExecutor]:
    """Ask for results last: a time limit of SLURM is at least a minute, and meanwhile other things are tested."""
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture(scope="module")
def idle() -> threading.Event:
    """Set while nothing but that minute is waited for: then others may have the cores."""
    event = threading.Event()
    event.set()
    return event


@pytest.fixture(scope="module")
def recovery(slurm, background, idle, tmp_path_factory) -> Future:
    """Every failure of a job at once, and all mended in a second run."""
    root = tmp_path_factory.mktemp("failures")

    def run() -> Recovery:
        config = indexed(root, study(root, "fine", "broken", "hungry", "endless", "cancelled"))
        frame = root / "squares/JPEGImages/broken/00004.jpg"
        whole = frame.read_bytes()
        frame.write_bytes(whole[: len(whole) // 2])
        targets = [
            str(PREDICTIONS / "mine/.shards" / f"{path.name}.json") for path in root.glob("squares/JPEGImages/*")
        ]
        alone = ("--config", "inference={sequences_per_job: 1}", "--retries", "0")

        def provoke() -> None:
            for name, command in {
                "cancelled": ["scancel", "{}"],
                "endless": ["scontrol", "update", "JobId={}", "TimeLimit=1"],
            }.items():
                wait_for(lambda name=name: list((root / PREDICTIONS / "mine").glob(f".{name}.*.part/00002.png")))
                job = next(job for job, what in slurm.jobs().items() if what.endswith(f"mine_{name}"))
                slurm.run(*(word.format(job) for word in command))
            idle.set()

        command = on_slurm(root, config, *alone, "--", *targets)
        return failed_and_repeated(slurm, root, command, provoke, lambda: frame.write_bytes(whole))

    idle.clear()
    return background.submit(run)


@pytest.fixture(scope="module")
def preemption(slurm, background, idle, tmp_path_factory) -> Future:
    """On a partition where a more urgent job cancels others: without retries, and with them."""
    root = tmp_path_factory.mktemp("preempted")

    def run() -> Recovery:
        idle.wait(240)
        config = indexed(root, study(root, "fine", "preempted", sequences_per_job=2))
        path = {"PATH": f"{CANCELLING}{os.pathsep}{slurm.environment['PATH']}"}
        where = ("--set-resources", "track:slurm_partition=scrap", "--config", "inference={sequences_per_job: 2}")
        command = on_slurm(root, config, *where, "--retries", "0", "--")

        def preempt() -> None:
            wait_for(lambda: list((root / PREDICTIONS / "mine").glob(".preempted.*.part/00002.png")))
            slurm.preempt(job_of(slurm, root))

        command += [str(PREDICTIONS / "mine/.shards/shard-1-of-1.json")]
        cluster = Slurm(slurm.root)
        cluster.environment = slurm.environment | path
        return failed_and_repeated(cluster, root, command, preempt)

    return background.submit(run)


@pytest.fixture(scope="module")
def disk_recovery(slurm, background, idle, tmp_path_factory) -> Iterator[Future | None]:
    """Predictions on a full disk, for which room is made."""
    root = tmp_path_factory.mktemp("full")
    config = study(root, "fine", "large")
    store = root / PREDICTIONS / "mine"
    store.mkdir(parents=True)
    small = ["-t", "tmpfs", "-o", "size=16k", "tmpfs", str(store)]  # four pages: a claim and three masks
    if subprocess.run(["mount", *small], capture_output=True).returncode:
        yield None
        return

    def run() -> Recovery:
        idle.wait(240)
        command = on_slurm(root, indexed(root, config), "--config", "inference={sequences_per_job: 1}", "--retries")
        command += ["0", "--", str(PREDICTIONS / "mine/.shards/large.json")]
        room = ["mount", "-o", "remount,size=10m", str(store)]
        return failed_and_repeated(slurm, root, command, lambda: None, lambda: subprocess.run(room, check=True))

    future = background.submit(run)
    yield future
    future.exception()
    subprocess.run(["umount", str(store)], check=True)


@pytest.fixture(scope="module")
def moving(slurm, background, idle, tmp_path_factory) -> Future:
    """A job is preempted and queued again, Snakemake is killed, started again, and the node of its new job dies.

    The two jobs of one shard run at the same time. SLURM starts both again; Snakemake has no retries.
    """
    root = tmp_path_factory.mktemp("moving")
    store = Store(root / PREDICTIONS / "mine")

    def in_flight(attempt: int) -> bool:
        noted = (root / "notes" / f"moved-{attempt}").exists()
        return noted and bool(list(store.folder.glob(".moved.*.part/00002.png")))

    def run() -> tuple[subprocess.CompletedProcess, dict[str, int]]:
        idle.wait(240)
        config = indexed(root, study(root, "fine", "moved", sequences_per_job=2))
        where = ("--set-resources", "track:slurm_partition=shared", "--config", "inference={sequences_per_job: 2}")
        command = on_slurm(root, config, *where, "--retries", "0", "--")
        command += [str(PREDICTIONS / "mine/.shards/shard-1-of-1.json")]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        killed = subprocess.Popen(command, cwd=root, env=slurm.environment, **quiet)
        wait_for(lambda: in_flight(0))
        old, times = job_of(slurm, root), finished(store)
        slurm.preempt(old)
        slurm.hold_when_queued_again(old)
        for process in [*psutil.Process(killed.pid).children(recursive=True), killed]:
            os.kill(process.pid, signal.SIGKILL)
        killed.wait()
        running = subprocess.Popen(
            command, cwd=root, env=slurm.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait_for(lambda: in_flight(1))
        new = job_of(slurm, root)
        assert new != old
        dying = slurm.asked(new, "%N")
        other = {"n3": "n4", "n4": "n3"}[dying]
        slurm.restart(old, other)
        log = root / "logs/track/squares/all/mine/shard-1-of-1.log"
        wait_for(lambda: log.exists() and "left for later" in log.read_text())
        slurm.power_off(dying)
        slurm.hold_when_queued_again(new)
        slurm.restart(new, other)
        output, errors = running.communicate(timeout=200)
        wait_for(lambda: slurm.asked(old, "%T") == "COMPLETED")
        return subprocess.CompletedProcess(command, running.returncode, output, errors), times

    return background.submit(run)


def test_a_killed_snakemake_does_not_lead_to_two_writers(slurm, recovery, preemption, disk_recovery, moving, tmp_path):
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
    second = subprocess.run(
        [*command, "--", target], cwd=tmp_path, env=slurm.environment, capture_output=True, text=True
    )
    assert second.returncode == 0, second.stderr
    assert sorted(path.name for path in (tmp_path / "notes").iterdir()) == ["slow-a-0", "slow-b-0"]
    names = sorted(path.name for path in store.folder.iterdir())
    assert names == [".shards", "slow-a", "slow-a.json", "slow-b", "slow-b.json"]


def test_the_same_table_as_on_one_machine(slurm, tmp_path):
    """Tracking in shards and measuring through SLURM, with the profile as it is shipped."""
    here, there = tmp_path / "here", tmp_path / "there"
    there.mkdir()
    names = ("alpha", "beta", "gamma")[: 3 if os.geteuid() == 0 else 1]
    config = study(tmp_path, *names, models=["flow"], sequences_per_job=2)
    table = METRICS / "flow.parquet"
    track_and_measure(load_study(config), Paths("config", here / "results", here / "resources"))
    command = on_slurm(there, indexed(there, config), "--config", "inference={sequences_per_job: 2}", "--", str(table))
    done = subprocess.run(command, cwd=there, env=slurm.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ran = slurm.run("squeue", "--noheader", "--states=COMPLETED", "--format", "%Z").splitlines()
    assert ran.count(str(there)) == (len(names) + 1) // 2 + 1  # the shards, and their measuring
    assert (there / table).read_bytes() == (here / table).read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="it is a normal user who runs all of these tests")
def test_a_normal_user_can_do_so_too():
    """The test above once more, with one sequence and a cluster of a user without any rights but to read."""
    reading = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")  # Python may be root's alone
    user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *reading, sys.executable]
    accessible = "import os, sys; sys.exit(not os.access(sys.argv[1], os.X_OK))"
    if subprocess.run([*user, "-c", accessible, Path(sys.executable).with_name("snakemake")]).returncode:
        pytest.skip("the checkout lies where other users cannot look")
    with tempfile.TemporaryDirectory() as home:  # not below pytest's own folder, which only its user may enter
        if compiled := _cache_folder():  # compiling takes longer than the test
            shutil.copytree(compiled, Path(home, "numba/numba", compiled.name))
        for path in (Path(home), *Path(home).rglob("*")):
            shutil.chown(path, "nobody", "nogroup")
        test = ["-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={home}/tests", "-k", "same_table", __file__]
        settings = {**os.environ, "HOME": home, "TMPDIR": home, "NUMBA_CACHE_DIR": f"{home}/numba"}
        done = subprocess.run([*user, *test], cwd=home, env=settings, capture_output=True, text=True)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


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
    assert left_over(store) == []
    assert (root / "results/studies/config/failures.csv").read_text().count("\n") == 1


def test_a_job_that_preemption_cancelled_is_named_and_repeated(preemption, tmp_path_factory):
    found = preemption.result()
    assert found.first.returncode == 1 and set(found.times) == {"fine"}
    assert {name: (row["class"], row["attempts"]) for name, row in found.failures.items()} == {
        "preempted": ("preempted", "1")
    }
    assert found.second.returncode == 0, found.second.stderr
    root = tmp_path_factory.getbasetemp() / "preempted0"
    store = Store(root / PREDICTIONS / "mine")
    assert sorted(path.name for path in (root / "notes").iterdir()) == ["fine-0", "preempted-0", "preempted-1"]
    assert finished(store)["fine"] == found.times["fine"] and left_over(store) == []


def test_a_full_disk_is_named_and_the_sequence_repeated(disk_recovery, tmp_path_factory):
    if disk_recovery is None:
        pytest.skip("mounting a small file system needs root")
    found = disk_recovery.result()
    assert found.first.returncode == 1 and found.times == {}
    assert {name: row["class"] for name, row in found.failures.items()} == {"large": "disk full"}
    assert found.second.returncode == 0, found.second.stderr
    store = Store(tmp_path_factory.getbasetemp() / "full0" / PREDICTIONS / "mine")
    assert store.manifest("large") and left_over(store) == []


def test_jobs_that_slurm_starts_again_never_write_together(moving, tmp_path_factory):
    """After a preemption and the death of a node: one attempt after the other, by whichever job is there."""
    second, times = moving.result()
    assert second.returncode == 0, second.stderr
    root = tmp_path_factory.getbasetemp() / "moving0"
    store = Store(root / PREDICTIONS / "mine")
    assert sorted(path.name for path in (root / "notes").iterdir()) == ["fine-0", "moved-0", "moved-1", "moved-2"]
    assert set(times) == {"fine"} and finished(store)["fine"] == times["fine"]
    assert store.manifest("moved") and left_over(store) == []
    assert (root / "results/studies/config/failures.csv").read_text().count("\n") == 1


def test_nothing_outside_the_profile_knows_slurm(dataset, tmp_path):
    """Another executor plans the same jobs, and neither rules nor library name SLURM."""
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    one_by_one = {"sequences_per_job": 1}
    config = indexed(tmp_path, {"datasets": [{"path": str(dataset)}], "models": ["static"], "inference": one_by_one})
    command = workflow_command(tmp_path, config, "--dry-run")
    local = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    submit = ["--executor", "cluster-generic", "--cluster-generic-submit-cmd", "qsub", "--jobs", "9"]
    other = subprocess.run([*command, *submit], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "slurm" not in (other.stdout + other.stderr).lower()
    planned = [re.findall(r"^ *(\w+) +(\d+) *$", run.stdout + run.stderr, re.MULTILINE) for run in (local, other)]
    assert planned[0] == planned[1] and ("track", "3") in planned[0]
    sources = [REPOSITORY / "Snakefile", *(REPOSITORY / "workflow/rules").iterdir()]
    sources += (REPOSITORY / "workflow/scripts").rglob("*.py")
    assert [str(path) for path in sources if "slurm" in path.read_text().lower()] == []
