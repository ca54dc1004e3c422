"""Trackers that raise anything, end the process or change it: their own sequence fails, by name, and no other."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.records import make_manifest, task_of
from vosarena.base.errors import DataError, Stopped, TrackerError
from vosarena.base.notes import read_note
from vosarena.cli import main
from vosarena.inference.child import track_in_child
from vosarena.inference.job import Job
from vosarena.inference.run import Outcome, track_sequences, track_shard
from vosarena.orchestration.failures import TrackedRun, collect_failures
from vosarena.predictions.manifest import ModelDefinition
from vosarena.predictions.store import Store

NAMES = ["alpha", "beta", "gamma"]
# `fault` is what happens at the third frame of the sequence with eight frames, which is beta.
TRACKER = """
import os, signal, sys, threading, time, subprocess, multiprocessing, io
class Mine:
    packages = ()
    def __init__(self, device="cpu", precision="auto"): pass
    def track(self, frames, prompts):
        for index, frame in enumerate(frames):
            if index == 2 and len(frames) == 8:
                {fault}
            yield frame[..., 0] * 0 + 1
"""


@pytest.fixture
def job(tmp_path):
    """A job whose tracker has that fault."""

    def make(fault: str) -> Job:
        (tmp_path / "mine.py").write_text(TRACKER.format(fault=fault))
        return Job(ModelDefinition(f"{tmp_path}/mine.py:Mine"))

    return make


def track(function, dataset: Path, job: Job, store: Store) -> Outcome:
    return function(task_of(dataset, NAMES, job, store))


@pytest.mark.parametrize("fault, reason", [
    ("sys.exit(0)", "SystemExit: 0 (mine.py:9)"),
    ("sys.exit('odd')", "SystemExit: odd (mine.py:9)"),
    ("raise KeyboardInterrupt", "KeyboardInterrupt (mine.py:9)"),
    ("raise GeneratorExit", "GeneratorExit (mine.py:9)"),
    ("raise BaseException('odd')", "BaseException: odd (mine.py:9)"),
    ("raise type('Own', (BaseException,), {})('odd')", "Own: odd (mine.py:9)"),
    ("raise StopIteration", "RuntimeError: generator raised StopIteration (mine.py:9)"),
    ("return", "the tracker gave 2 masks for 8 frames"),
    ("yield from (f[..., 0] * 0 for f in frames)", "the tracker gave more masks than the 8 frames"),
    ("sys.stdout.close(); sys.stdout = None; raise OSError('odd')", "OSError: odd (mine.py:9)"),
])  # fmt: skip
def test_whatever_a_tracker_raises_fails_its_sequence(dataset, tmp_path, job, monkeypatch, fault, reason):
    monkeypatch.setattr(sys, "stdout", open(os.devnull, "w"))  # noqa: PTH123, SIM115
    store = Store(tmp_path / "store")
    outcome = track(track_sequences, dataset, job(fault), store)
    assert sorted(outcome.masks) == ["alpha", "gamma"] and outcome.failed["beta"].startswith(reason)
    assert list(store.failures()) == ["beta"] and store.failure("beta").failure_class == "tracker"


@pytest.mark.parametrize("fault", [
    "os.chdir('/')",
    "os.chdir('/'); sys.stdout = sys.stderr = io.StringIO()",
    "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_DFL)",
    "frame[:] = 0; prompts[0][:] = 0; prompts.clear()",
    "print('x' * 5_000_000)",
    "threading.Thread(target=time.sleep, args=(5,), daemon=True).start()",
])  # fmt: skip
def test_what_a_tracker_changes_of_the_process_is_put_back(dataset, tmp_path, job, monkeypatch, fault):
    monkeypatch.chdir(tmp_path)
    before = sys.stdout, sys.stderr, signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    outcome = track(track_sequences, Path(dataset.name), job(fault), Store(Path("store")))
    assert sorted(outcome.masks) == NAMES and Path.cwd() == tmp_path
    assert before == (sys.stdout, sys.stderr, signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    assert Store(tmp_path / "store").manifest("beta").prompts == {"00000": (1, 2)}


@pytest.mark.parametrize("fault, end", [
    ("os._exit(0)", "ended itself with exit code 0"),
    ("os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL"),
    ("os.abort()", "was ended by SIGABRT"),
])  # fmt: skip
def test_the_command_survives_a_tracker_that_ends_its_process(dataset, tmp_path, job, capsys, fault, end):
    out = tmp_path / "out"
    arguments = ["--images", str(dataset / "JPEGImages"), "--masks", str(dataset / "Annotations"), "--output", str(out)]
    assert main(["track", "--tracker", job(fault).definition.tracker, *arguments]) == 1
    said = capsys.readouterr()
    assert f"beta: the process of the tracker {end}" in said.err and "2 of 3 sequences are in" in said.out
    names = {".beta.failed.json", "alpha", "alpha.json", "gamma", "gamma.json"}
    assert {path.name for path in out.iterdir()} == names


def test_threads_that_a_tracker_left_do_not_keep_its_process(dataset, tmp_path, job):
    left = job("threading.Thread(target=time.sleep, args=(600,)).start()")
    assert sorted(track(track_in_child, dataset, left, Store(tmp_path / "store")).masks) == NAMES


def test_a_tracker_that_cannot_be_loaded_without_ending_the_process(dataset, tmp_path, job, capsys):
    (tmp_path / "ends.py").write_text("import os\nos._exit(0)\nclass Mine:\n    def track(self): pass\n")
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(0)\nclass Mine:\n    def track(self): pass\n")
    arguments = ["--images", str(dataset / "JPEGImages"), "--masks", str(dataset / "Annotations")]
    for file, words in (("ends.py", "exit code 0 before its first sequence"), ("exits.py", "imported: SystemExit: 0")):
        tracker = f"{tmp_path}/{file}:Mine"
        assert main(["track", "--tracker", tracker, *arguments, "--output", str(tmp_path / "out")]) == 1
        assert words in capsys.readouterr().err


def test_a_deadly_sequence_comes_last_and_the_ones_behind_it_are_listed(dataset, tmp_path, job):
    """As in a job of the workflow, which is one process: its next attempt finishes what the deadly one held up."""
    store, deadly = Store(tmp_path / "store"), job("os._exit(0)")
    code = (
        "import sys; from pathlib import Path; from tests.support.records import task_of\n"
        "from vosarena.inference.job import Job; from vosarena.inference.run import track_sequences\n"
        "from vosarena.predictions.manifest import ModelDefinition; from vosarena.predictions.store import Store\n"
        "root, store, tracker, *names = sys.argv[1:]\n"
        "track_sequences(task_of(Path(root), names, Job(ModelDefinition(tracker)), Store(Path(store))))\n"
    )
    command = [sys.executable, "-c", code, str(dataset), str(store.folder), deadly.definition.tracker, *NAMES]
    run = TrackedRun("d", "s", "m", store.folder, tmp_path, {"shard-1-of-1": NAMES})
    words = {str(store.folder / ".shards" / "shard-1-of-1.json"): "output files are missing"}
    for finished in (["alpha"], ["alpha", "gamma"]):
        assert subprocess.run(command, capture_output=True).returncode == 0
        assert [name for name in NAMES if store.manifest(name)] == finished
        rows = {row["sequence"]: row["class"] for row in collect_failures([run], words, "snakemake")}
        expected = {"beta": "unexpected", "gamma": "not reached"}
        assert rows == {name: kind for name, kind in expected.items() if name not in finished}


LOST_GPU = "raise RuntimeError('CUDA error: device-side assert triggered\\nCompile with ...')"


def test_a_lost_gpu_ends_the_process_and_leaves_the_other_sequences(dataset, tmp_path, job):
    """As in a job of the workflow: the first attempt ends in beta, the second finishes gamma before it."""
    store, lost = Store(tmp_path / "store"), job(LOST_GPU)
    status = store.status_file("shard-1-of-1")
    run = TrackedRun("d", "s", "m", store.folder, tmp_path, {"shard-1-of-1": NAMES})
    for finished in (["alpha"], ["alpha", "gamma"]):
        with pytest.raises(TrackerError, match=r"beta: .*device-side assert.*new process") as error:
            track_shard(task_of(dataset, NAMES, lost, store), status)
        assert "\n" not in str(error.value) and not status.exists()
        assert [name for name in NAMES if store.manifest(name)] == finished
        rows = {row["sequence"]: row["class"] for row in collect_failures([run], {str(status): ""}, "snakemake")}
        expected = {"beta": "GPU error", "gamma": "not reached"}
        assert rows == {name: kind for name, kind in expected.items() if name not in finished}


def test_the_command_goes_on_in_a_new_process_after_a_lost_gpu(dataset, tmp_path, job):
    store = Store(tmp_path / "store")
    outcome = track(track_in_child, dataset, job(LOST_GPU), store)
    assert sorted(outcome.masks) == ["alpha", "gamma"]
    assert outcome.failed == {"beta": "RuntimeError: CUDA error: device-side assert triggered (mine.py:9)"}
    assert store.failure("beta").failure_class == "GPU error"


def test_being_stopped_is_no_failure_of_a_tracker(dataset, tmp_path, job):
    store = Store(tmp_path / "store")
    stopping = "os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)"
    with pytest.raises(Stopped):
        track(track_sequences, dataset, job(stopping), store)
    assert store.failure("beta").failure_class == "cancelled" and store.manifest("gamma") is None


def test_names_of_sequences_are_no_names_of_notes(tmp_path):
    store = Store(tmp_path / "store")
    names = ["x", "x.failed", "x.lock", "x.part", "shards", "x.failed.lock"]
    for name in names:
        with store.writing(name) as folder:
            store.commit(folder, make_manifest(name, fingerprint=name))
        store.fail(name, DataError(name))
    assert {name: store.manifest(name).fingerprint for name in names} == {name: name for name in names}
    assert {name: found.reason for name, found in store.failures().items()} == {name: name for name in names}
    with store.writing("x.failed") as folder:
        store.record_death("x", "")
        store._delete_leftovers("x")
        assert folder.exists()
    with pytest.raises(DataError, match=r"x\.json: its name ends in \.json"), store.writing("x.json"):
        pass


def test_a_note_that_lost_a_bit_or_its_content_counts_as_one_that_is_not_there(tmp_path):
    store = Store(tmp_path / "store")
    with store.writing("a") as folder:
        store.commit(folder, make_manifest("a", frames=["0", "1"]))
    note, content = store.folder / "a.json", store.manifest("a").to_json()
    whole = note.read_bytes()
    for damaged in (b"", b"\0" * len(whole), b"[]", b"3", b"\xff\xfe", whole[:-9], b"null"):
        note.write_bytes(damaged)
        assert store.manifest("a") is None and not store.holds("a", "f", [])
        assert Store.sequences_of(note) == []
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        note.write_bytes(flipped)
        found = read_note(note)
        assert {key: found[key] for key in content} == content if found else True, f"bit {bit} is not noticed"
