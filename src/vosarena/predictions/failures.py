"""Why a sequence failed: a class for the table, a sentence for users, and whether trying again can help."""

import errno
import re
import traceback
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path

from vosarena.base.errors import DataError, Stopped, TrackerError, VosarenaError


class FailureClass(StrEnum):
    """Kinds of failure, as they are written in the column `class` of failures.csv (docs/cluster.md)."""

    BAD_DATA = "bad data"
    TRACKER = "tracker"
    UNEXPECTED = "unexpected"
    OUT_OF_MEMORY = "out of memory"
    GPU_ERROR = "GPU error"
    DISK_FULL = "disk full"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    PREEMPTED = "preempted"
    NODE_FAILURE = "node failure"
    NOT_REACHED = "not reached"


# What is in the messages of errors, without regard to case. Sources: the strings of torch 2.14 (libc10, libc10_cuda,
# libtorch_cuda), CUDA 13 (libcudart), cuDNN 9 and OpenCV, and PyTorch's issues.
OUT_OF_MEMORY_MESSAGES = (
    "out of memory",  # torch's allocators; CUDA, also for contexts, graphs and pinned host memory
    "ERROR_OUT_OF_MEMORY",  # CUDA's driver
    "memory allocation failed with OOM",  # torch, expandable segments
    "DefaultCPUAllocator",  # torch, on the host
    "Not enough memory for workspace",  # torch, cuDNN's workspace
    "cudaErrorMemoryAllocation",
    "_ALLOC_FAILED",  # cuBLAS, cuDNN, cuSOLVER, cuFFT
    "_ALLOCATION_FAILED",  # cuDNN 9, of the host and of the device
    "CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate",  # no memory for the handle
    "CUDNN_STATUS_NOT_INITIALIZED",
    "Unable to find a valid cuDNN algorithm",  # torch, where no algorithm's workspace fits
    "unable to find an engine to execute this computation",  # the same since cuDNN 8
    "Insufficient memory",  # OpenCV
)
# After these, every call of CUDA fails until the process ends ("To continue using CUDA, the process must be terminated
# and relaunched": CUDA Runtime API, cudaError).
BROKEN_CUDA_MESSAGES = (
    "device-side assert triggered",  # not the advice that torch adds to every error of CUDA
    "illegal memory access",
    "unspecified launch failure",
    "uncorrectable ECC error",
    "uncorrectable NVLink error",
    "Invalid access of peer GPU memory",
    "launch timed out and was terminated",
    "hardware stack error",
    "illegal instruction",
    "misaligned address",
    "operation not supported on global/shared address space",
    "invalid program counter",
    "tensor memory not completely freed",
    "context is destroyed",
    "MPS client has been terminated",
    "MPS server and the MPS client failed",
    "CUDA error: unknown error",
    "GPU is lost",
    "_EXECUTION_FAILED",  # cuBLAS, cuDNN: what they say of the errors above
)

DIED_SILENTLY = "the process died without an error message (out of memory, killed, or node failure)"


def classify(error: BaseException, tracker: str = "") -> FailureClass:
    """Return the class of an error, which may follow from an error that it was raised from.

    Args:
        error: The error that ended the attempt.
        tracker: Name of the tracker. For `file.py:Class`, errors raised in that file are the tracker's.
    """
    if breaks_cuda(error):
        return FailureClass.GPU_ERROR
    for item in _chain(error):
        if isinstance(item, Stopped):
            return FailureClass.TIMEOUT if item.timed_out else FailureClass.CANCELLED
        if isinstance(item, OSError) and item.errno in (errno.ENOSPC, errno.EDQUOT):
            return FailureClass.DISK_FULL
        if is_out_of_memory(item):
            return FailureClass.OUT_OF_MEMORY
    if isinstance(error, DataError):
        return FailureClass.BAD_DATA
    if isinstance(error, TrackerError) or _line_in(tracker, error):
        return FailureClass.TRACKER
    return FailureClass.UNEXPECTED


def reason_of(error: BaseException, tracker: str = "") -> str:
    """Return the sentence about an error, without the name of its sequence.

    An error that is not one of this library's is shown with its class, and with its line where that is in the file of
    the tracker `file.py:Class`.
    """
    if isinstance(error, VosarenaError):
        return error.reason
    if isinstance(error, Stopped):
        return str(error)
    line = _line_in(tracker, error)
    kind, message = type(error).__name__, str(error)
    if "CUDA" in message:
        message = message.partition("\n")[0]  # the rest is advice on debugging
    sentence = f"{kind}: {message}" if message else kind
    return f"{sentence} ({line})" if line else sentence


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, of the host or of a GPU."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # torch's error is recognised by name, because torch is not imported for trackers that do not use it.
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or _says(error, OUT_OF_MEMORY_MESSAGES)


def breaks_cuda(error: BaseException) -> bool:
    """Return whether CUDA cannot be used any more in this process after an error, or one that it was raised from."""
    return any(
        re.search("cuda|cudnn|cublas|gpu", str(item), re.I) and _says(item, BROKEN_CUDA_MESSAGES)
        for item in _chain(error)
    )


def _says(error: BaseException, messages: Iterable[str]) -> bool:
    text = str(error).casefold()
    return any(message.casefold() in text for message in messages)


def is_deterministic(error: BaseException) -> bool:
    """Return whether the same input gives the same failure again. Errors of a disk or file server may go away."""
    io_errors = [item for item in _chain(error) if isinstance(item, OSError) and item.errno is not None]
    return classify(error) == FailureClass.BAD_DATA and not io_errors


def _line_in(tracker: str, error: BaseException) -> str:
    """Return the line of the file of `file.py:Class` that raised an error, as `file.py:7`, or an empty text."""
    file = Path(tracker.rpartition(":")[0]).absolute()
    for item in _chain(error):
        frames = traceback.extract_tb(item.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename).absolute() == file]
        if lines:
            return f"{file.name}:{lines[-1]}"
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the errors that it was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
