"""What a run says of the sequences that failed: classes, attempts, logs and the command that repeats one alone."""

import csv
import errno
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console

from tests.conftest import wait_for, workflow_command
from tests.predictions.test_store import put
from tests.support.records import task_of
from vosarena.base.errors import DataError, Stopped, TrackerError
from vosarena.inference.job import Job
from vosarena.inference.run import failure_report, track_sequences
from vosarena.orchestration.failures import COLUMNS, TrackedRun, collect_failures, write_failures
from vosarena.orchestration.summary import show_boards, show_failures
from vosarena.predictions.failures import classify, is_deterministic
from vosarena.predictions.manifest import ModelDefinition
from vosarena.predictions.store import Store


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("error, kind, final", [
    (DataError("frame 3 is truncated"), "bad data", True),
    (raised_from(DataError("cannot be read"), OSError(errno.EIO, "Input/output error")), "bad data", False),
    (MemoryError("sam2: out of memory"), "out of memory", False),
    (type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"), "out of memory", False),
    (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "out of memory",
     False),
    (OSError(errno.ENOSPC, "No space left on device"), "disk full", False),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk full", False),
    (raised_from(TrackerError("failed"), OSError(errno.ENOSPC, "No space left")), "disk full", False),
    (Stopped(timed_out=True), "timeout", False),
    (Stopped(), "cancelled", False),
    (TrackerError("the tracker gave 3 masks for 4 frames"), "tracker", False),
    (ValueError("odd"), "unexpected", False),
])  # fmt: skip
def test_classes_of_errors(error, kind, final):
    assert classify(error) == kind and is_deterministic(error) is final


def row_of(store: Store, words: dict | None = None) -> dict:
    shards = {"shard-1-of-1": ["a", "b"]}
    run = TrackedRun("d", "s", "m", store.folder, store.folder / "logs", shards)
    rows = collect_failures([run], words or {}, "snakemake")
    assert len(rows) == 1
    return rows[0]


DEAD = {"token": "t", "host": "h", "machine": "elsewhere", "pid": 1, "started": "1"}


@pytest.mark.parametrize("words, kind", [
    ("SLURM status is: 'OUT_OF_MEMORY'", "out of memory"),
    ("error: Exceeded job memory limit\nSTEP 3.0 ON node CANCELLED AT 2026", "out of memory"),
    ("*** JOB 7 ON node CANCELLED AT 2026 DUE TO TIME LIMIT ***", "timeout"),
    ("status is: 'NODE_FAIL'", "node failure"),
    ("CANCELLED AT 2026 DUE TO NODE FAILURE, SEE SLURMCTLD LOG", "node failure"),
    ("*** STEP 3.0 ON node CANCELLED AT 2026 ***", "cancelled"),
    ("JOB 1 ON n CANCELLED AT 2026 DUE TO PREEMPTION", "preempted"),
    ("status is: 'FAILED'", "unexpected"),
])  # fmt: skip
def test_a_job_that_ended_without_a_word_is_explained_by_its_engine(tmp_path, words, kind):
    store = Store(tmp_path / "m")
    put(store, "b", "f", ["0"])
    (store.folder / ".a.lock").write_text(json.dumps(DEAD))
    row = row_of(store, {str(store.folder / ".shards" / "shard-1-of-1.json"): words})
    assert (row["sequence"], row["class"], row["attempts"]) == ("a", kind, "1")


def test_faults_of_a_tracker_are_its_own_and_names_are_not_said_twice(dataset, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "class Mine:\n    packages = ()\n    def __init__(self, device='cpu', precision='auto'): pass\n"
        "    def track(self, frames, prompts):\n        raise KeyError('memory')\n"
    )
    store = Store(tmp_path / "m")
    outcome = track_sequences(task_of(dataset, ["alpha", "beta"], Job(ModelDefinition(f"{file}:Mine")), store))
    assert failure_report(outcome, store.folder).endswith(":\n  alpha, beta: KeyError: 'memory' (mine.py:5)")
    assert store.failure("alpha").failure_class == "tracker"
    (dataset / "JPEGImages/beta/00004.jpg").write_bytes(b"")
    for mask in (dataset / "Annotations/gamma").iterdir():
        mask.unlink()
    outcome = track_sequences(task_of(dataset, ["beta", "gamma"], Job(ModelDefinition("static")), store))
    assert outcome.failed["gamma"].startswith("no PNG in ")
    assert "sequence beta" not in outcome.failed["beta"] and store.failure("gamma").reason == outcome.failed["gamma"]


def test_a_sequence_that_another_job_still_writes_has_not_failed(tmp_path):
    store = Store(tmp_path / "m")
    store.folder.mkdir()
    (store.folder / ".a.lock").write_text(json.dumps(DEAD))
    run = TrackedRun("d", "s", "m", store.folder, store.folder, {"a": ["a"]})
    assert collect_failures([run], {}, "snakemake") == []
    past = time.time() - 1000
    os.utime(store.folder / ".a.lock", (past, past))
    assert [row["class"] for row in collect_failures([run], {}, "snakemake")] == ["unexpected"]


def test_a_time_limit_known_to_the_engine_only_corrects_a_cancellation(tmp_path):
    store = Store(tmp_path / "m")
    store.fail("a", Stopped())
    status = str(store.folder / ".shards" / "shard-1-of-1.json")
    assert row_of(store, {status: "CANCELLED AT 2026 DUE TO TIME LIMIT"})["class"] == "timeout"
    store.fail("a", DataError("frame 3 is damaged"))
    row = row_of(store, {status: "CANCELLED"})
    assert (row["class"], row["reason"], row["attempts"]) == ("bad data", "frame 3 is damaged", "2")


def test_the_csv_and_the_table(tmp_path):
    store = Store(tmp_path / "m")
    store.fail("a", DataError('frame 3, "the last", is damaged'))
    rows = [row_of(store)]
    console = Console(record=True, width=120, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    write_failures(rows, tmp_path / "failures.csv")
    show_failures(rows * 5, tmp_path / "failures.csv", console)
    with (tmp_path / "failures.csv").open() as file:
        assert list(csv.DictReader(file)) == rows
    text = console.export_text()
    assert "m on d/s" in text and "bad data" in text and rows[0]["rerun"] in text
    assert "5 sequences failed" in text and text.count(rows[0]["rerun"]) == 3
    for number in range(30):
        store.fail(f"b{number}", DataError("another reason" if number < 7 else f"reason {number}"))
    run = TrackedRun("d", "s", "m", store.folder, tmp_path, {"1": [f"b{number}" for number in range(30)]})
    rows = collect_failures([run], {}, "x")
    show_failures(rows, tmp_path / "failures.csv", console)
    text = re.sub(r"\s+", " ", re.sub("[│┃]", "", console.export_text()))
    assert "30 sequences failed" in text and "b0, b1, b2 and 4 more" in text and "4 more lines in" in text
    write_failures([], tmp_path / "failures.csv")
    assert (tmp_path / "failures.csv").read_text() == ",".join(COLUMNS) + "\n"


def test_ctrl_c_is_a_cancellation(dataset, tmp_path):
    tracker = tmp_path / "interrupted.py"
    tracker.write_text(
        "class Interrupted:\n    packages = ()\n    def __init__(self, device, precision): pass\n"
        "    def track(self, frames, prompts):\n        import os, signal, time\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n        time.sleep(5)\n"
    )
    store, job = Store(tmp_path / "out"), Job(ModelDefinition(f"{tracker}:Interrupted"))
    with pytest.raises(Stopped):
        track_sequences(task_of(dataset, ["alpha", "beta"], job, store))
    failure = store.failure("alpha")
    assert (failure.failure_class, failure.reason) == ("cancelled", "the job was cancelled or preempted")


def test_memory_that_runs_out_is_tried_once_more_with_less(dataset, tmp_path):
    tracker = tmp_path / "hungry.py"
    tracker.write_text(
        "from contextlib import contextmanager\n"
        "class Hungry:\n    packages = ()\n    saving = False\n"
        "    def __init__(self, enough, device, precision): self.enough = enough\n"
        "    def track(self, frames, prompts):\n"
        "        yield frames[0][..., 0] * 0 + 1\n"
        "        if not (self.saving and self.enough): raise MemoryError('no memory left')\n"
        "        for index in range(1, len(frames)): yield frames[index][..., 0] * 0 + 2\n"
        "    @contextmanager\n    def saving_memory(self):\n"
        "        self.saving = True\n        yield {'offload': True}\n        self.saving = False\n"
    )
    for enough, sequence in ((True, "alpha"), (False, "beta")):
        store = Store(tmp_path / "out")
        job = Job(ModelDefinition(f"{tracker}:Hungry", {"enough": enough}))
        outcome = track_sequences(task_of(dataset, [sequence], job, store))
        if enough:
            assert store.manifest(sequence).saving == {"offload": True}
        else:
            assert outcome.failed == {"beta": "MemoryError: no memory left (hungry.py:8)"}
            assert store.failure(sequence).failure_class == "out of memory"


def test_bad_data_is_not_computed_again_until_it_changes(dataset, tmp_path):
    """A retry of a job, which may help against other failures, must not cost GPU time for this one."""
    frame, count = dataset / "JPEGImages" / "beta" / "00004.jpg", tmp_path / "count"
    tracker = tmp_path / "counting.py"
    tracker.write_text(
        "from pathlib import Path\nclass Counting:\n    packages = ()\n"
        "    def __init__(self, device, precision): pass\n"
        "    def track(self, frames, prompts):\n"
        f"        with Path({str(count)!r}).open('a') as file: file.write('x')\n"
        "        for frame in frames: yield frame[..., 0] * 0 + 1\n"
    )
    whole = frame.read_bytes()
    frame.write_bytes(whole[:200])
    store, job = Store(tmp_path / "out"), Job(ModelDefinition(f"{tracker}:Counting"))
    for attempt in (1, 2):
        outcome = track_sequences(task_of(dataset, ["beta"], job, store))
        assert "00004" in outcome.failed["beta"] and store.failure("beta").attempts == attempt
    assert count.read_text() == "x"
    frame.write_bytes(whole)
    assert not track_sequences(task_of(dataset, ["beta"], job, store)).failed


def test_a_job_that_is_asked_to_end_says_what_it_was_doing(dataset, tmp_path):
    tracker = tmp_path / "slow.py"
    tracker.write_text(
        "import time\nclass Slow:\n    packages = ()\n    def __init__(self, device, precision): pass\n"
        "    def track(self, frames, prompts):\n"
        "        for frame in frames: time.sleep(30 if len(frames) == 8 else 0); yield frame[..., 0] * 0 + 1\n"
    )
    code = (
        "import sys; from pathlib import Path; from vosarena.inference.job import Job, ShardTask\n"
        "from vosarena.inference.run import track_shard; from vosarena.base.logs import logged\n"
        "from vosarena.predictions.manifest import ModelDefinition\n"
        "root, out, tracker, minutes = sys.argv[1:]\n"
        "task = ShardTask(('alpha', 'beta', 'gamma'), Path(root) / 'JPEGImages', Path(root) / 'Annotations', "
        "Job(ModelDefinition(tracker)), Path(out), minutes=float(minutes))\n"
        "with logged(Path(out) / 'log'): track_shard(task, Path(out) / 'status.json')"
    )
    for minutes, kind in (("60", "cancelled"), ("0", "timeout")):
        store = Store(tmp_path / kind)
        store.folder.mkdir()
        command = [sys.executable, "-c", code, str(dataset), str(store.folder), f"{tracker}:Slow", minutes]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        wait_for(lambda folder=store.folder, job=process: job.poll() is not None or list(folder.glob(".beta.*.part")))
        process.send_signal(signal.SIGTERM)
        error = process.communicate(timeout=20)[1]
        assert process.returncode == 1 and "Traceback" not in error and "are kept in" in error
        assert store.failure("beta").failure_class == kind
        assert sorted(path.name for path in store.folder.iterdir()) == [
            ".beta.failed.json",
            "alpha",
            "alpha.json",
            "log",
        ]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_named_and_leaves_nothing_half_written(dataset, tmp_path, small_disk):
    store, job = Store(small_disk / "out"), Job(ModelDefinition("static"))
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"0" * 40_000)  # some masks fit next to it, but not all of a sequence
    outcome = track_sequences(task_of(dataset, ["alpha"], job, store))
    assert "No space left on device" in outcome.failed["alpha"]
    assert [path.name for path in store.folder.iterdir()] == [".alpha.failed.json"]
    assert store.failure("alpha").failure_class == "disk full"
    ballast.unlink()
    assert not track_sequences(task_of(dataset, ["alpha"], job, store)).failed


@pytest.mark.parametrize("reason, kind", [
    ("weights.pth does not fit", "unexpected"),
    ("tracker 'sam2' cannot be built: OutOfMemoryError: CUDA out of memory", "out of memory"),
])  # fmt: skip
def test_a_job_that_failed_before_its_first_sequence_is_told_with_all_of_them(tmp_path, reason, kind):
    store, log = Store(tmp_path / "m"), tmp_path / "shard-1-of-1.log"
    store.folder.mkdir()
    log.write_text(f"loading\nerror: {reason}\n")
    run = TrackedRun("d", "s", "m", store.folder, tmp_path, {"shard-1-of-1": ["a", "b"], "other": ["c"]})
    rows = collect_failures([run], {str(store.folder / ".shards" / "shard-1-of-1.json"): "status 'FAILED'"}, "x")
    assert [(row["sequence"], row["class"], row["reason"]) for row in rows] == [
        (name, kind, reason) for name in ("a", "b")
    ]


def test_a_run_ends_with_its_failures_and_the_command_repeats_one(dataset, tmp_path):
    """Through the real Snakemake, with shards of several sequences."""
    frame = dataset / "JPEGImages" / "beta" / "00004.jpg"
    whole = frame.read_bytes()
    frame.write_bytes(whole[:200])
    nowhere = {"name": "nowhere", "extends": "cutie-demo", "weights": {"sources": [{"local": "nothing.pth"}]}}
    config = {"datasets": [{"path": str(dataset)}], "models": ["static", nowhere]}
    board = tmp_path / "results/studies/config/leaderboard/leaderboard.md"
    board.parent.mkdir(parents=True)
    board.touch()
    command = workflow_command(tmp_path, config, "--config", "inference={sequences_per_job: 3}")
    failed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert failed.returncode == 1 and "1 sequence failed; " in failed.stderr
    assert "\nweights failed: weights/nowhere.pth: could not be downloaded; tried: nothing.pth (" in failed.stderr
    assert "\nUnchanged since an earlier run: results/studies/config/leaderboard/leaderboard.md" in failed.stderr
    with (tmp_path / "results/studies/config/failures.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["model"], row["sequence"], row["class"], row["attempts"]) == ("static", "beta", "bad data", "1")
    assert str(frame) in row["reason"] and "00004" in (tmp_path / row["log"]).read_text()
    frame.write_bytes(whole)
    store = Store(tmp_path / "results/predictions/squares/all/static")
    times = {name: (store.folder / f"{name}.json").stat().st_mtime_ns for name in ("alpha", "gamma")}
    command = shlex.split(row["rerun"])
    snakemake = workflow_command(tmp_path, None)[0]
    subprocess.run([snakemake, *command[1:]], cwd=tmp_path, check=True, capture_output=True)
    assert store.manifest("beta")
    assert {name: (store.folder / f"{name}.json").stat().st_mtime_ns for name in times} == times
    assert (tmp_path / "results/studies/config/failures.csv").read_text() == ",".join(COLUMNS) + "\n"


def test_the_scores_are_shown_in_80_columns(tmp_path):
    columns = "model,dataset,split,protocol,j_and_f,j,f,ci_low,ci_high,kind,status,fps,rank"
    scores = "62.91,61,64.2,57.88,68.4"
    rows = [f"m{i},d,s,p,{scores},measured,complete,,{i}" for i in range(1, 26)]
    rows += [f"[red]x,d,s,q,{scores},measured,incomplete,,", f"{'long-name' * 20},d,s,q,{scores},measured,complete,3,1"]
    rows += [f"paper,d,s,q,{scores},published,published,,", "none,d,s,q,,,,,,server,awaiting server,,"]
    file = tmp_path / "leaderboard.csv"
    file.write_text("\n".join([columns, *rows]))
    speeds = [f"d,s,m{number},{number}.25,{1 + number % 2}" for number in range(1, 20)]  # not known of the others
    file.with_name("speed.csv").write_text("\n".join(["dataset,split,model,fps,parallel_jobs", *speeds]))
    out = io.StringIO()
    show_boards(file, Console(file=out, width=80))
    text = out.getvalue()
    assert re.search(r"^ +1 +m1 +62.9 \[57.9, 68.4\] +61.0 +64.2 +1.2$", text, re.M)
    assert "d/s, p" in text and "5 more in" in text and "[red]x (incomplete)" in text
    assert re.findall("^fps: .*$", text, re.M) == ["fps: 1 to 2 jobs at once"]
    assert "paper" not in text and "none" not in text and max(map(len, text.splitlines())) <= 80
    show_boards(tmp_path / "nothing.csv", Console(file=out))
    assert out.getvalue() == text
