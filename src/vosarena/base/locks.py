"""One writer per prediction, dataset or download: a claim is a file that only one process can create.

It works on any file system that several machines share: creation with O_EXCL is atomic on local disks and on NFS since
version 3 (open(2)), and no flock is needed. The owner touches its claim every BEAT seconds. A claim is dead, and may be
taken over, if its process is known to have ended, or if it was not touched for LEASE seconds by the clock of the file
server, so the clocks of the machines do not matter. A claim from the future, left while that clock was ahead, is
touched by whoever finds it, and so its lease begins again.
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

BEAT = 10.0
LEASE = 60.0
_TEXTS = ("token", "host", "machine", "started")  # of a claim, besides the pid
_PATIENCE = 0.5  # seconds between two looks at another's claim
_ABANDONED = 6 * LEASE  # for the few microseconds of a takeover, by clocks that may differ


class Claimed(VosarenaError):
    """Another living process has the claim."""


class Claim:
    """A claim held by this process. Made by `take`; `release` ends it."""

    def __init__(self, path: Path, file: int, token: str) -> None:
        self.path = path
        self.token = token
        self._file = file
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="claim", daemon=True)
        self._heart.start()

    def mine(self) -> bool:
        """Whether nobody took the claim over, as may happen to a process that was frozen for longer than LEASE."""
        owner = read_claim(self.path)
        return owner is not None and owner[0].get("token") == self.token

    def release(self) -> None:
        """Give the claim back."""
        self._ended.set()
        self._heart.join()
        os.close(self._file)
        if self.mine():
            self.path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with contextlib.suppress(OSError):  # gone, or the file server is: mine() will tell
                os.utime(self._file)


def take(path: Path, on_dead: Callable[[Mapping[str, Any]], None] = lambda owner: None) -> Claim:
    """Claim `path`. Raises Claimed if a living process has it.

    on_dead: called with the owner's description before the claim of a dead process is taken over.
    """
    claim = _create(path)
    if claim:
        return claim
    # Only one process at a time looks at an old claim: two would each remove what they think is the dead one.
    examiner = path.with_name(f"{path.name}.break")
    file = _exclusive(examiner)
    if file is None:
        with contextlib.suppress(OSError):
            age = time.time() - examiner.stat().st_mtime
            if age > _ABANDONED:
                examiner.unlink()
            elif age < -_ABANDONED:
                os.utime(examiner)
        raise Claimed(f"{path.name} is being taken over by another process")
    try:
        now = os.fstat(file).st_mtime
        found = read_claim(path)
        if found:
            owner, touched = found
            if not is_dead(owner, now - touched):
                if touched > now:
                    with contextlib.suppress(OSError):
                        os.utime(path)
                raise Claimed(f"process {owner.get('pid', '?')} on {owner.get('host', '?')} is writing it")
            on_dead(owner)
            path.unlink(missing_ok=True)
        claim = _create(path)
    finally:
        os.close(file)
        examiner.unlink(missing_ok=True)
    if claim is None:
        raise Claimed(f"{path.name} was just taken by another process")
    return claim


@contextlib.contextmanager
def locked(place: Path) -> Iterator[None]:
    """Only one process at a time works on `place`; the others wait.

    Raises VosarenaError if the folder cannot be written to, and at the end if this process stood still for so long that
    another took over.
    """
    path = place.with_name(f".{place.name}.claim")
    waiting = False
    while True:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            claim = take(path)
            break
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise VosarenaError(
                f"{place.parent}: cannot be written to ({reason}); make room or choose another"
            ) from None
        except Claimed as error:
            if not waiting:
                logger.info("%s: %s; waiting", place, error)
            waiting = True
            time.sleep(_PATIENCE)
    try:
        yield
        if not claim.mine():
            raise VosarenaError(f"{place}: this process stood still, and another took over; run it again")
    finally:
        claim.release()


def read_claim(path: Path) -> tuple[dict[str, Any], float] | None:
    """What a claim says of its owner, and when it was last touched; None if there is no claim.

    Nothing is known (an empty description) of an owner that was stopped between the file's creation and its content, or
    if the file is damaged.
    """
    try:
        touched = path.stat().st_mtime
    except FileNotFoundError:
        return None
    owner = read_json(path)
    known = isinstance(owner.get("pid"), int) and all(isinstance(owner.get(key), str) for key in _TEXTS)
    return owner if known else {}, touched


def is_dead(owner: Mapping[str, Any], age: float) -> bool:
    """Whether an owner that last touched its claim `age` seconds ago has ended."""
    if age > LEASE:
        return True
    return bool(owner) and owner["machine"] == _machine() and _started(owner["pid"]) != owner["started"]


def _create(path: Path) -> Claim | None:
    file = _exclusive(path)
    if file is None:
        return None
    pid, token = os.getpid(), new_token()
    owner = {"token": token, "host": socket.gethostname(), "machine": _machine(), "pid": pid, "started": _started(pid)}
    try:
        os.write(file, json.dumps(owner).encode())
        os.fsync(file)
    except OSError:  # a full disk
        os.close(file)
        path.unlink()
        raise
    return Claim(path, file, token)


def _exclusive(path: Path) -> int | None:
    """Create a file and open it; None if another process was first."""
    try:
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return None
    except PermissionError as error:
        # SFTP only knows that it failed, and sshfs calls that EPERM.
        if error.errno != errno.EPERM or not os.access(path.parent, os.W_OK):
            raise
        return None


def _machine() -> str:
    """Names the boot of this machine and this process's view of process ids: within it a pid means one process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 (not a path)
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str | None:
    """When a process started, as text to compare with; None if it has ended. Pids are used again, starts are not."""
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
