"""Real-time mode: a mask that is late is not used, and the frame keeps the one before it.

The rule is that of VOT's real-time experiments: frames come at a constant rate, whether the tracker is ready or not,
and where it has not answered in time, its last answer counts. While it is busy, it misses the frames that come. Source:
`RealtimeTrackerRuntime` of votchallenge/toolkit; what is different here is in docs/reference/protocols.md.
"""

import copy
import itertools
import time
from collections.abc import Collection, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


class RealTime:
    """Frames that come at a constant rate.

    Args:
        fps: Frames per second.

    Attributes:
        late: Number of frames so far that did not get a mask of their own.
    """

    def __init__(self, fps: float) -> None:
        self.late = 0
        self._interval = 1 / fps

    def hold(self, outputs: Iterable[T], prompted: Collection[int]) -> Iterator[T]:
        """Yield for each frame the newest output that was finished when the next frame came.

        A tracker computes all frames, and the time of those that it would have missed does not count. Frames with a
        prompt wait for the tracker, and so does what is before the first of them: starting it is not timed, as in VOT.

        Args:
            outputs: The output for each frame; the time until it comes is that of the tracker.
            prompted: Indices of the frames with a prompt.
        """
        iterator = iter(outputs)
        first = min(prompted, default=0)
        free = 0.0  # when the tracker is ready again
        shown: T | None = None
        computed: T | None = None  # not finished yet at the end of the last frame
        for index in itertools.count():
            started = time.perf_counter()
            try:
                output = next(iterator)
            except StopIteration:
                return
            seconds = time.perf_counter() - started
            arrival, end = index * self._interval, (index + 1) * self._interval
            if shown is None or index <= first or index in prompted:
                free, shown, computed = arrival, copy.deepcopy(output), None
                yield shown
                continue
            in_time = False
            if free <= arrival:
                free, computed = arrival + seconds, copy.deepcopy(output)
                in_time = free <= end
            if computed is not None and free <= end:
                shown, computed = computed, None
            self.late += not in_time
            yield shown
