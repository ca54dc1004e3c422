"""Two writers of one prediction: several real processes, killed, frozen and racing."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import wait_for, write_sequence
from tests.support.records import make_manifest, task_of
from vosarena.base import locks
from vosarena.base.errors import VosarenaError
from vosarena.base.locks import LockHeld, acquire
from vosarena.inference.job import Job
from vosarena.inference.run import track_sequences
from vosarena.io.masks import masks_digest
from vosarena.predictions.manifest import ModelDefinition
from vosarena.predictions.store import Store

NAMES = ["alpha", "beta", "gamma"]

# A tracker that notes who tracked what, is slow enough to be met at work, and tells processes apart by its masks.
TRACKER = """
import os, time
from pathlib import Path

class Mine:
    packages = ()
    def __init__(self, notes, device, precision):
        self.notes, self.pause = Path(notes), float(os.environ["PAUSE"])
    def track(self, frames, prompts):
        (self.notes / f"{os.getpid()}-{time.monotonic_ns()}").touch()
        for frame in frames:
            time.sleep(self.pause)
            labels = frame[..., 0] * 0
            labels.flat[: os.getpid() % labels.size] = 1
            yield labels
"""

WRITER = """
import json, sys
from pathlib import Path
from vosarena.base import locks
from vosarena.inference import run
from vosarena.inference.job import Job, ShardTask
from vosarena.predictions.manifest import ModelDefinition
root, store, options, locks.LEASE, names = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), float(sys.argv[4]), sys.argv[5:]
locks.HEARTBEAT, run._PATIENCE = locks.LEASE / 6, 0.1
job = Job(ModelDefinition(options.pop("tracker"), options))
task = ShardTask(tuple(names), Path(root) / "JPEGImages", Path(root) / "Annotations", job, Path(store))
print("ready", flush=True)
outcome = run.track_sequences(task)
print(json.dumps(outcome.failed))
"""  # noqa: E501


@pytest.fixture
def setting(dataset, tmp_path):
    """Start a writer of `names` with a tracker that needs `pause` seconds for a frame."""
    tracker, notes = tmp_path / "mine.py", tmp_path / "notes"
    tracker.write_text(TRACKER)
    notes.mkdir()
    options = {"tracker": f"{tracker}:Mine", "notes": str(notes)}
    started: list[subprocess.Popen] = []

    def start(*names: str, pause: float = 0.02, lease: float = 60) -> subprocess.Popen:
        folders = [str(dataset), str(tmp_path / "store")]
        command = [sys.executable, "-c", WRITER, *folders, json.dumps(options), str(lease), *names]
        environment = {**os.environ, "PAUSE": str(pause)}  # not an option: the same fingerprint for all
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
        return started[-1]

    yield start, notes, Store(tmp_path / "store")
    for process in started:
        process.kill()
        process.communicate()


def failures(process: subprocess.Popen) -> dict:
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return json.loads(output.splitlines()[-1])


def whole(store: Store, names=NAMES) -> None:
    """Every sequence is there once, fits its manifest, and nothing is left over."""
    for name in names:
        manifest = store.manifest(name)
        stems = manifest.frames
        assert masks_digest((stem, store.masks(name) / f"{stem}.png") for stem in stems) == manifest.masks_digest
    assert sorted(path.name for path in store.folder.iterdir()) == sorted([*names, *(f"{n}.json" for n in names)])


def test_writers_of_the_same_sequences_share_the_work(setting):
    start, notes, store = setting
    writers = [start(*NAMES) for _ in range(3)]
    assert [failures(writer) for writer in writers] == [{}, {}, {}]
    assert len(list(notes.iterdir())) == 3  # each sequence was tracked once
    whole(store)


def test_a_killed_writer_is_followed_at_once_and_leaves_nothing(setting):
    start, notes, store = setting
    first = start("alpha", pause=0.5)
    wait_for(lambda: list(store.folder.glob(".alpha.*.part/*.png")))
    first.kill()
    first.wait()
    assert list(store.folder.glob(".alpha.lock"))
    assert failures(start("alpha", pause=0.01)) == {}
    assert len(list(notes.iterdir())) == 2
    whole(store, ["alpha"])


def test_the_attempt_of_a_killed_writer_counts(setting):
    start, _, store = setting
    first = start("alpha", pause=0.5)
    wait_for(lambda: list(store.folder.glob(".alpha.*.part/*.png")))
    first.kill()
    first.wait()
    second = start("alpha", pause=0.5)
    wait_for(lambda: store.failure("alpha"))
    second.kill()
    second.wait()
    failure = store.failure("alpha")
    assert failure.attempts == 1 and failure.died_silently and "without an error message" in failure.reason


def test_a_frozen_writer_that_lost_its_claim_gives_way(setting):
    """As on a node that hangs for minutes and comes back."""
    start, notes, store = setting
    frozen = start("alpha", pause=0.2, lease=0.6)
    wait_for(lambda: list(store.folder.glob(".alpha.*.part/*.png")))
    os.kill(frozen.pid, signal.SIGSTOP)
    other = start("alpha", pause=0.05, lease=0.6)
    assert failures(other) == {}
    committed = store.manifest("alpha")
    os.kill(frozen.pid, signal.SIGCONT)
    assert failures(frozen) == {}
    assert len(list(notes.iterdir())) == 2
    assert store.manifest("alpha") == committed
    whole(store, ["alpha"])


def test_only_one_process_takes_over_a_dead_claim(tmp_path):
    """Many processes find the same dead claim at the same moment."""
    racer = (
        "import sys, time; from pathlib import Path; from vosarena.base.locks import LockHeld, acquire\n"
        "time.sleep(max(0, float(sys.argv[2]) - time.time()))\n"
        "try: acquire(Path(sys.argv[1])); print('mine'); time.sleep(2)\n"
        "except LockHeld: print('claimed')"
    )
    path = tmp_path / ".a.lock"
    path.write_text("{}")
    long_ago = time.time() - 2 * locks.LEASE
    os.utime(path, (long_ago, long_ago))
    at = str(time.time() + 3)
    processes = [
        subprocess.Popen([sys.executable, "-c", racer, str(path), at], stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    words = [process.communicate()[0].strip() for process in processes]
    assert words.count("mine") == 1 and words.count("claimed") == 5
    assert not path.with_name(".a.lock.break").exists()


def test_a_claim_of_another_machine_is_respected_until_its_lease_ends(tmp_path):
    path = tmp_path / ".a.lock"
    owner = {"token": "t", "host": "elsewhere", "machine": "elsewhere", "pid": 1, "started": "1"}
    path.write_text(json.dumps(owner))
    with pytest.raises(LockHeld, match="process 1 on elsewhere"):
        acquire(path)
    ahead = time.time() + 10_000  # its clock is wrong: what counts is the file server's
    os.utime(path, (ahead, ahead))
    with pytest.raises(LockHeld):
        acquire(path)
    past = time.time() - locks.LEASE - 1
    os.utime(path, (past, past))
    seen = []
    acquire(path, on_stale=seen.append).release()
    assert seen == [owner] and not path.exists()


def test_a_claim_is_kept_alive_by_its_owner(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT", 0.02)
    claim = acquire(tmp_path / ".a.lock")
    past = time.time() - 1000
    os.utime(claim.path, (past, past))
    wait_for(lambda: claim.path.stat().st_mtime > past + 900)
    claim.release()
    assert not claim.path.exists()


def test_a_lost_claim_may_not_commit(tmp_path):
    store = Store(tmp_path / "store")
    with pytest.raises(LockHeld, match="taken over"), store.writing("a") as folder:
        (folder / "0.png").write_bytes(b"0")
        claim = tmp_path / "store" / ".a.lock"
        claim.write_text(claim.read_text().replace(json.loads(claim.read_text())["token"], "another"))
        store.commit(folder, make_manifest("a"))
    assert store.manifest("a") is None and not store.masks("a").exists()
    assert claim.exists()  # it belongs to the other


def test_few_metadata_operations_per_frame(dataset, tmp_path):
    """Opening, creating, renaming, listing and removing of files, as the interpreter's audit events tell."""
    counted = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir", "os.utime"}
    frames = {"alpha": 6, "long": 46}
    write_sequence(dataset, "long", frames=46)
    for name in frames:  # only the first mask: the prompt
        for mask in sorted((dataset / "Annotations" / name).iterdir())[1:]:
            mask.unlink()
    events: list[str] = []
    active = True

    def hook(event: str, arguments: tuple) -> None:
        if active and event in counted and str(dataset.parent) in str(arguments[0] if arguments else ""):
            events.append(event)

    counts = {}
    job = Job(ModelDefinition("static"))
    sys.addaudithook(hook)
    for name in frames:
        events.clear()
        assert not track_sequences(task_of(dataset, [name], job, Store(tmp_path / "store"))).failed
        counts[name] = len(events)
    active = False
    per_frame = (counts["long"] - counts["alpha"]) / (frames["long"] - frames["alpha"])
    assert 0 < per_frame <= 5  # frame: digest and picture; mask: written and digested


def test_claims_from_the_future_end_too(tmp_path, monkeypatch):
    """They were left while the clock of the file server was ahead."""
    monkeypatch.setattr(locks, "LEASE", 0.5)
    monkeypatch.setattr(locks, "_STALE_TAKEOVER", 0.5)
    ahead = time.time() + 30 * 86400
    path = tmp_path / ".a.lock"
    owner = {"token": "t", "host": "elsewhere", "machine": "elsewhere", "pid": 1, "started": "1"}
    path.write_text(json.dumps(owner))
    examiner = tmp_path / ".a.lock.break"
    for future in (path, examiner):
        future.touch()
        os.utime(future, (ahead, ahead))

    def taken() -> bool:
        try:
            acquire(path).release()
        except LockHeld:
            return False
        return True

    assert not taken()
    wait_for(taken)
    assert not path.exists() and not examiner.exists()


def test_a_living_owner_keeps_a_claim_from_the_future(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "LEASE", 0.6)
    monkeypatch.setattr(locks, "HEARTBEAT", 0.05)
    claim = acquire(tmp_path / ".a.lock")
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        with pytest.raises(LockHeld):
            acquire(claim.path)
        time.sleep(0.05)
    claim.release()


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x80", b"3", b"[]", b"null", b'{"machine": MACHINE, "pid": 1}', b'{"pid": "x"}', b"[" * 99999],
)
def test_a_damaged_claim_is_one_of_an_unknown_owner(tmp_path, content):
    path = tmp_path / ".a.lock"
    path.write_bytes(content.replace(b"MACHINE", json.dumps(locks._machine()).encode()))
    with pytest.raises(LockHeld, match=r"process \? on"):
        acquire(path)
    past = time.time() - locks.LEASE - 1
    os.utime(path, (past, past))
    acquire(path).release()
    assert not path.exists()


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(VosarenaError, match="cannot be written to"), locks.lock(tmp_path / "file" / "a"):
        pass
