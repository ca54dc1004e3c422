"""Keep a GPU busy: frames are prepared ahead in threads, and results are fetched one frame late.

A tracker that reads, resizes and converts each frame before it calls its network leaves the GPU idle in the meantime.
With these functions, which trackers outside of this package can use too, all of that happens while the GPU computes:

    def prepare(frame):
        return pinned_empty(frame.shape, torch.uint8, device).copy_(torch.from_numpy(frame))

    images = prepare_ahead(frames, prepare)
    yield from fetch_late(network(upload(image, device)) for image in images)
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from vosarena.base.errors import DataError
from vosarena.io.frames import Frames
from vosarena.trackers.base import Frame

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def prepare_ahead(
    frames: Sequence[Frame], prepare: Callable[[Frame], T], indices: Sequence[int] | None = None, ahead: int = 2
) -> Generator[T, None, None]:
    """Yield `prepare(frame)` for frame after frame, computed ahead in threads.

    Reading and preparing a frame is one task. Frames from files are read by as many threads as their `workers`, other
    sequences by one thread, because they need not be safe for several.

    Args:
        frames: The frames.
        prepare: Called in a thread. It should spend its time in code that releases the GIL (NumPy, OpenCV, torch).
        indices: Which frames to yield, in this order; None for all.
        ahead: How many frames may be ready before they are needed, besides those that threads are working on.

    Raises:
        DataError: A frame cannot be read, or its size differs from that of the first.
    """
    files = frames if isinstance(frames, Frames) else None
    workers = files.workers if files else 1
    size = frame_size(frames)

    def task(index: int) -> T:
        if files:
            return files.prepared(index, prepare)
        frame = frames[index]
        if frame.shape[:2] != size:
            raise DataError(
                f"frame {index} is {frame.shape[1]}x{frame.shape[0]} but the first is {size[1]}x{size[0]}; "
                "all frames of a sequence must have the same size"
            )
        return prepare(np.ascontiguousarray(frame))

    pending: deque[Future[T]] = deque()
    left = iter(range(len(frames)) if indices is None else indices)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="prepare")
    try:
        while True:
            pending.extend(pool.submit(task, index) for index in islice(left, workers + ahead - len(pending)))
            if not pending:
                return
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def frame_size(frames: Sequence[Frame]) -> tuple[int, int]:
    """Return (height, width) of the frames, without decoding one if they are files."""
    return frames.size if isinstance(frames, Frames) else frames[0].shape[:2]


def pinned_empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device | str) -> torch.Tensor:
    """Return a tensor on the host; what is in it can be copied to a CUDA device while the host goes on.

    Args:
        shape: Its shape.
        dtype: Its type.
        device: Where it is going to be copied, by `upload`. For other devices than CUDA it is an ordinary tensor.
    """
    import torch

    return torch.empty(tuple(shape), dtype=dtype, pin_memory=str(device).startswith("cuda"))


def upload(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """Return a tensor of the host on a device, to which a CUDA device copies it while the host goes on.

    Other devices, such as Apple's GPU, would read the host's memory when it may have another content already.
    """
    return tensor.to(device, non_blocking=str(device).startswith("cuda"))


def release_memory() -> None:
    """Give the memory that torch holds back for later tensors to the device again, after it ran out."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def fetch_late(results: Iterable[torch.Tensor]) -> Iterator[np.ndarray[Any, Any]]:
    """Yield results as arrays on the host, those of a GPU one late.

    When the caller gets a result, the work for the next one has been handed to the GPU already.
    """
    waiting: deque[Callable[[], np.ndarray[Any, Any]]] = deque()
    for result in results:
        waiting.append(fetch(result))
        if result.device.type == "cpu" or len(waiting) > 1:
            yield waiting.popleft()()
    while waiting:
        yield waiting.popleft()()


def fetch(result: torch.Tensor) -> Callable[[], np.ndarray[Any, Any]]:
    """Start to copy a result to the host; return a function that waits for it, without keeping a core busy."""
    import torch

    if result.device.type != "cuda":
        return lambda: result.cpu().numpy()
    host = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
    host.copy_(result, non_blocking=True)
    copied = torch.cuda.Event(blocking=True)
    copied.record()

    def wait() -> np.ndarray[Any, Any]:
        copied.synchronize()
        return host.numpy()

    return wait
