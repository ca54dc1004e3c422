"""Peak memory of one sequence, on the host and on the GPU."""

import contextlib
import math
import resource
import sys
from pathlib import Path
from typing import Any


class PeakMemory:
    """Peak memory since the object was created.

    On Linux the kernel's high-water mark of this process is reset first (proc(5), clear_refs), so that each sequence
    has its own. On other systems the host's value is the peak of the process so far.
    """

    def __init__(self) -> None:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        if cuda := _cuda():
            cuda.reset_peak_memory_stats()

    def host_mb(self) -> float:
        """Return the peak resident memory in MiB."""
        try:
            status = Path("/proc/self/status").read_text()
            return round(int(status.split("VmHWM:")[1].split()[0]) / 1024, 1)
        except (OSError, IndexError):
            return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)

    def gpu_mb(self) -> float | None:
        """Return the peak allocated GPU memory in MiB, None without a GPU."""
        cuda = _cuda()
        return round(cuda.max_memory_allocated() / 2**20, 1) if cuda else None


def memory_in_use() -> float:
    """Return the memory that this process uses now in MiB, on the host and on the GPU together; NaN if not known."""
    try:
        status = Path("/proc/self/status").read_text()
        host = int(status.split("VmRSS:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        return math.nan
    cuda = _cuda()
    return host + (cuda.memory_allocated() / 2**20 if cuda else 0)


def _cuda() -> Any:
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None
