"""A file system that two machines share: one folder of a real SSH server, mounted twice, each with its own cache.

It stands for NFS, which needs a kernel with it: names and attributes are seen late on the other machine, and flock of
one says nothing to the other. Processes of the second machine live in a namespace of process ids of their own.
"""

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.base.test_locks import TRACKER, WRITER, failures, whole
from tests.conftest import wait_for, write_sequence
from vosarena.base import locks
from vosarena.predictions.store import Store

INSTALL = "apt-get install -y --no-install-recommends sshfs openssh-server openssh-client"
NAMES = [f"sequence-{number}" for number in range(6)]

# Says when it had the lock, by the one clock of the machine below.
LOCKER = """
import sys, time
from pathlib import Path
from vosarena.base import locks
locks.LEASE, locks.HEARTBEAT = 6, 1
with locks.lock(Path(sys.argv[1])):
    began = time.monotonic()
    print("locked", flush=True)
    time.sleep(float(sys.argv[2]))
print(began, time.monotonic())
"""


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    """The same folder as two machines see it."""
    missing = [name for name in ("sshfs", "sshd", "ssh-keygen", "unshare") if not shutil.which(name)]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: {INSTALL}")
    if os.getuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("mounting a file system needs root and /dev/fuse")
    root = tmp_path_factory.mktemp("shared")
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", root / key], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (root / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {root}/host\nAuthorizedKeysFile {root}/user.pub\n"
        "PermitRootLogin yes\nStrictModes no\nUsePAM no\nPidFile none\nSubsystem sftp internal-sftp\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # where Debian's sshd separates its privileges
    server = subprocess.Popen([shutil.which("sshd"), "-D", "-e", "-f", root / "sshd_config"], stderr=subprocess.PIPE)
    wait_for(lambda: _answers(port) or server.poll() is not None)
    assert server.poll() is None, server.stderr.read().decode()
    places = [root / "first", root / "second"]
    (root / "served").mkdir()
    options = f"IdentityFile={root}/user,StrictHostKeyChecking=no,UserKnownHostsFile=/dev/null"
    mounted = []
    try:
        for place in places:
            place.mkdir()
            subprocess.run(
                ["sshfs", "-p", str(port), "-o", options, f"root@127.0.0.1:{root}/served", place], check=True
            )
            mounted.append(place)
        yield places
    finally:
        for place in mounted:
            subprocess.run(["umount", "--lazy", place], check=True)
        server.terminate()
        server.wait()


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def start(machines, tmp_path):
    """`start(machine, *command)`: a process on the first (0) or second (1) machine, ended with the test."""
    started: list[subprocess.Popen] = []

    def run(machine: int, *command: object, **environment: str) -> subprocess.Popen:
        elsewhere = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"] if machine else []
        command = [*elsewhere, sys.executable, "-c", *map(str, command)]
        environment = {**os.environ, **environment}
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def writer(machines, start, tmp_path):
    """`writer(machine, lease, pause, *names)` tracks these sequences into the shared store, `pause` s for a frame."""
    project = tmp_path.name
    for name in NAMES:
        write_sequence(machines[0] / project, name, frames=4)
    notes, tracker = tmp_path / "notes", tmp_path / "mine.py"
    notes.mkdir()
    tracker.write_text(TRACKER)
    options = json.dumps({"tracker": f"{tracker}:Mine", "notes": str(notes)})

    def run(machine: int, lease: float, pause: float, *names: str) -> subprocess.Popen:
        folder = machines[machine] / project
        return start(machine, WRITER, folder, folder / "store", options, lease, *names, PAUSE=str(pause))

    return run, notes, Store(machines[0] / project / "store")


def test_machines_share_the_work(writer):
    write, notes, store = writer
    writers = [write(machine, 60, 0.05, *NAMES) for machine in (0, 1, 0, 1)]
    assert [failures(writer) for writer in writers] == [{}] * 4
    assert len(list(notes.iterdir())) == len(NAMES)  # each was tracked once
    whole(store, NAMES)


def test_a_dead_machine_is_followed_when_its_lease_is_over(writer):
    write, notes, store = writer
    first = write(1, 6, 2, NAMES[0])
    wait_for(lambda: list(notes.iterdir()))
    first.kill()
    first.wait()
    began = time.monotonic()
    assert failures(write(0, 6, 0.01, NAMES[0])) == {}
    assert time.monotonic() - began > 4  # nobody can see from here that the process is dead
    assert len(list(notes.iterdir())) == 2
    whole(store, NAMES[:1])


def test_only_one_machine_at_a_time_has_a_lock(machines, start):
    places = [machine / "archive.zip" for machine in machines]
    lockers = [start(machine, LOCKER, places[machine], 0.5) for machine in (0, 1, 0, 1)]
    spans = sorted(tuple(map(float, locker.communicate(timeout=60)[0].split()[1:])) for locker in lockers)
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))
    assert not locks.read_lock(machines[0] / ".archive.zip.lock")


def test_the_lock_of_a_dead_machine_is_taken_over(machines, start):
    places = [machine / "val" for machine in machines]
    first = start(1, LOCKER, places[1], 60)
    assert first.stdout.readline() == "locked\n"
    first.kill()
    first.wait()
    assert start(0, LOCKER, places[0], 0).communicate(timeout=60)[0].startswith("locked")
