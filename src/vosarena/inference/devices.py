"""GPUs for a process alone: lock files for each device of this machine.

Snakemake counts GPUs but does not say which one a job gets. A job therefore takes the device that the fewest other jobs
use, and waits if none has room. Assignments of a scheduler or user are respected: only devices in CUDA_VISIBLE_DEVICES
are considered, and a single one is used without a lock.
"""

import itertools
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from vosarena.base.errors import TrackerError

logger = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"
ORDER = "CUDA_DEVICE_ORDER"
_POLL_SECONDS = 1.0  # between two searches for a free device
_held: list[FileLock] = []  # until the process ends; the kernel releases them if it is killed


def take_device(jobs_per_gpu: int = 1) -> None:
    """Reserve one GPU for this process and make it the only one that CUDA sees. Call it before CUDA is used.

    It does nothing if there is no GPU, or if CUDA_VISIBLE_DEVICES names a single one.

    Args:
        jobs_per_gpu: Processes that may share a GPU.
    """
    _take(1, jobs_per_gpu)


def take_devices(count: int) -> None:
    """Reserve several GPUs for this process and those that it starts, each for it alone.

    It waits until so many are free at the same time, and does nothing if the machine has no GPU.

    Raises:
        TrackerError: CUDA would show fewer GPUs.
    """
    found = visible_devices(os.environ, all_devices())
    if found and len(found) < count:
        raise TrackerError(
            f"{count} GPUs are wanted, but this process may use {len(found)} ({', '.join(found)}); ask for fewer with "
            "`gpus`, or set CUDA_VISIBLE_DEVICES"
        )
    _take(count, 1)


def _take(count: int, jobs_per_gpu: int) -> None:
    torch = sys.modules.get("torch")
    if _held or (torch and torch.cuda.is_initialized()):  # what this process sees is decided
        return
    os.environ.setdefault(ORDER, "PCI_BUS_ID")  # indices as nvidia-smi counts; CUDA's own order is fastest first
    devices = visible_devices(os.environ, all_devices())
    if not devices or (len(devices) == count == 1 and VISIBLE in os.environ):
        return
    folder = Path(tempfile.gettempdir()) / f"vosarena-gpus-{os.getuid()}"  # on a local disk
    folder.mkdir(exist_ok=True)
    waiting = False
    while True:
        taken: dict[str, FileLock] = {}
        for place, device in itertools.product(range(jobs_per_gpu), devices):
            lock = FileLock(folder / f"{device.replace('/', '_')}.{place}.lock")
            if device in taken:
                continue
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            taken[device] = lock
            if len(taken) == count:
                _held.extend(taken.values())
                os.environ[VISIBLE] = ",".join(taken)
                logger.info("using GPU %s", os.environ[VISIBLE])
                return
        for lock in taken.values():  # all or none: two jobs that hold a part each would wait for ever
            lock.release()
        if not waiting:
            logger.info("other jobs use all GPUs (%d); waiting for %d", len(devices), count)
            waiting = True
        time.sleep(_POLL_SECONDS)


def visible_devices(environment: Mapping[str, str], everything: Sequence[str]) -> list[str]:
    """Return the identifiers of the GPUs that CUDA would show this process.

    As in CUDA, an entry of the variable is an index or the start of an identifier, and the list ends before the first
    entry that does not exist (CUDA C++ Programming Guide, environment variables).

    Args:
        environment: Environment variables.
        everything: Identifiers of all GPUs in CUDA's order.
    """
    wanted = environment.get(VISIBLE)
    if wanted is None:
        return list(everything)
    devices: list[str] = []
    for entry in filter(None, (part.strip() for part in wanted.split(","))):
        if entry.isdigit():
            found = [everything[int(entry)]] if int(entry) < len(everything) else []
        else:
            found = [device for device in everything if device.startswith(entry)]
            if not found and entry.startswith("MIG-"):
                found = [entry]  # named in an older way: MIG-GPU-<UUID>/<instance>/<instance>
        if not found:
            break
        devices.append(found[0])
    return devices


def all_devices() -> list[str]:
    """Return the identifiers (UUIDs) of all GPUs in the order of the PCI bus; empty without a driver.

    A GPU that is divided into MIG slices is not usable itself: its slices take its place. nvidia-smi is asked, because
    CUDA itself would fix what this process sees before a device is chosen.
    """
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    devices: list[str] = []
    gpu = ""
    for device in re.findall(r"\b(?:GPU|MIG)-[\w/-]+", listed.stdout):
        if device.startswith("GPU-"):
            gpu = device
        elif gpu in devices:
            devices.remove(gpu)
        devices.append(device)
    return devices
