"""Locks between processes of several machines: one writer per prediction, dataset or download.

A lock is a file that only one process can create. This works on every shared file system: creation with O_EXCL is
atomic on local disks and on NFS since version 3 (open(2)), and flock is not needed. The owner touches its lock every
HEARTBEAT seconds. A lock is stale, and may be taken over, if its process is known to have ended, or if it was not
touched for LEASE seconds by the clock of the file server, so the clocks of the machines do not matter. A lock from the
future, left while that clock was ahead, is touched by whoever finds it, which starts its lease again.

No library does all of this: filelock's SoftFileLock never expires across machines, and flufl.lock relies on hard links,
which sshfs lacks, and does not notice that the owner's process has ended.
"""

import contextlib
import errno
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vosarena.base.errors import VosarenaError
from vosarena.base.files import new_token, read_json

logger = logging.getLogger(__name__)

HEARTBEAT = 10.0
LEASE = 60.0
_TEXT_FIELDS = ("token", "host", "machine", "started")  # of a lock's content, besides the pid
_POLL_SECONDS = 0.5
_STALE_TAKEOVER = 6 * LEASE  # a takeover lasts microseconds; the clocks that measure it may differ


class LockHeld(VosarenaError):
    """Another living process holds the lock."""


class Lock:
    """A lock held by this process. Created by `acquire`, ended by `release`."""

    def __init__(self, path: Path, file: int, token: str) -> None:
        self.path = path
        self.token = token
        self._file = file
        self._released = threading.Event()
        self._heartbeat_thread = threading.Thread(target=self._send_heartbeats, name="lock heartbeat", daemon=True)
        self._heartbeat_thread.start()

    def is_mine(self) -> bool:
        """Whether this process still holds the lock. Another may have taken it over after a freeze of LEASE seconds."""
        found = read_lock(self.path)
        return found is not None and found[0].get("token") == self.token

    def release(self) -> None:
        """Stop the heartbeat and remove the lock."""
        self._released.set()
        self._heartbeat_thread.join()
        os.close(self._file)
        if self.is_mine():
            self.path.unlink(missing_ok=True)

    def _send_heartbeats(self) -> None:
        while not self._released.wait(HEARTBEAT):
            with contextlib.suppress(OSError):  # the lock or its file server is gone: is_mine() notices
                os.utime(self._file)


def acquire(path: Path, on_stale: Callable[[Mapping[str, Any]], None] = lambda owner: None) -> Lock:
    """Acquire the lock at `path` without waiting.

    Args:
        path: The lock file.
        on_stale: Called with the description of the previous owner before the lock of a dead process is taken over.

    Raises:
        LockHeld: Another living process holds the lock.
    """
    lock = _create(path)
    if lock:
        return lock
    # Only one process at a time examines an old lock: two would each remove what they believe to be the stale one.
    takeover_lock = path.with_name(f"{path.name}.break")
    file = _create_exclusively(takeover_lock)
    if file is None:
        with contextlib.suppress(OSError):
            age = time.time() - takeover_lock.stat().st_mtime
            if age > _STALE_TAKEOVER:
                takeover_lock.unlink()
            elif age < -_STALE_TAKEOVER:
                os.utime(takeover_lock)
        raise LockHeld(f"{path.name} is being taken over by another process")
    try:
        now = os.fstat(file).st_mtime
        found = read_lock(path)
        if found:
            owner, touched = found
            if not is_dead(owner, now - touched):
                if touched > now:
                    with contextlib.suppress(OSError):
                        os.utime(path)
                raise LockHeld(f"process {owner.get('pid', '?')} on {owner.get('host', '?')} is writing it")
            on_stale(owner)
            path.unlink(missing_ok=True)
        lock = _create(path)
    finally:
        os.close(file)
        takeover_lock.unlink(missing_ok=True)
    if lock is None:
        raise LockHeld(f"{path.name} was just acquired by another process")
    return lock


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Let only one process at a time work on a file or folder; the others wait.

    Args:
        path: The file or folder; the lock is `.<name>.lock` next to it.

    Raises:
        VosarenaError: The folder is not writable, or, at the end, this process was suspended for so long that another
            one took over.
    """
    lock_file = path.with_name(f".{path.name}.lock")
    waiting = False
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held = acquire(lock_file)
            break
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise VosarenaError(
                f"{path.parent}: cannot be written to ({reason}); free space or choose another folder"
            ) from None
        except LockHeld as error:
            if not waiting:
                logger.info("%s: waiting, %s", path, error)
            waiting = True
            time.sleep(_POLL_SECONDS)
    try:
        yield
        if not held.is_mine():
            raise VosarenaError(f"{path}: this process was suspended and lost its lock to another one; run it again")
    finally:
        held.release()


def read_lock(path: Path) -> tuple[dict[str, Any], float] | None:
    """Read who holds a lock.

    Args:
        path: The lock file.

    Returns:
        The description of the owner and when the lock was last touched; None if there is no lock. The description is
        empty if the file is damaged, or if the owner was killed between creating and writing it.
    """
    try:
        touched = path.stat().st_mtime
    except FileNotFoundError:
        return None
    owner = read_json(path)
    known = isinstance(owner.get("pid"), int) and all(isinstance(owner.get(key), str) for key in _TEXT_FIELDS)
    return owner if known else {}, touched


def is_dead(owner: Mapping[str, Any], age: float) -> bool:
    """Whether the owner of a lock that was last touched `age` seconds ago has ended."""
    if age > LEASE:
        return True
    return bool(owner) and owner["machine"] == _machine() and _start_of_process(owner["pid"]) != owner["started"]


def _create(path: Path) -> Lock | None:
    file = _create_exclusively(path)
    if file is None:
        return None
    pid, token = os.getpid(), new_token()
    owner = {
        "token": token,
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": pid,
        "started": _start_of_process(pid),
    }
    try:
        os.write(file, json.dumps(owner).encode())
        os.fsync(file)
    except OSError:  # a full disk
        os.close(file)
        path.unlink()
        raise
    return Lock(path, file, token)


def _create_exclusively(path: Path) -> int | None:
    """Create a file and open it; return None if it exists."""
    try:
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return None
    except PermissionError as error:
        # SFTP only reports a failure, which sshfs translates to EPERM.
        if error.errno != errno.EPERM or not os.access(path.parent, os.W_OK):
            raise
        return None


def _machine() -> str:
    """Identify the boot of this machine and its namespace of process ids, within which a pid means one process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 (not a path)
    except OSError:
        return socket.gethostname()


def _start_of_process(pid: int) -> str | None:
    """Return when a process started, as text to compare; None if it has ended. Pids are reused, starts are not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]  # proc(5): starttime, counted from the state
    except FileNotFoundError:
        pass
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "running"
