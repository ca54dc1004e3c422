"""Real time: which mask a frame gets from a tracker with known delays, on a clock that only the tracker moves."""

import types

import numpy as np
import pytest

from tests.support.records import task_of
from vosarena.inference import real_time
from vosarena.inference.job import Job
from vosarena.inference.run import track_sequences
from vosarena.io.masks import read_mask
from vosarena.predictions.manifest import LateMasks, ModelDefinition
from vosarena.predictions.store import Store

INTERVAL = 0.125  # seconds, exact in binary
SLOW = """
import numpy as np
from vosarena.inference import real_time

class Slow:
    packages = ()

    def __init__(self, delay, device, precision):
        self.delay = delay

    def track(self, frames, prompts):
        labels = np.zeros(frames[0].shape[:2], np.uint8)
        for index in range(len(frames)):
            real_time.time.seconds += self.delay
            labels[:] = 0
            labels[index, index] = 1  # which frame this mask was made for
            yield labels

    def track_objects(self, frames, prompts):
        for labels in self.track(frames, prompts):
            yield {1: labels == 1, 2: labels == 1}
"""


@pytest.fixture
def clock(monkeypatch):
    stub = types.SimpleNamespace(seconds=0.0)
    stub.perf_counter = lambda: stub.seconds
    monkeypatch.setattr(real_time, "time", stub)
    return stub


def shown(clock, delays, prompted=(0,)):
    """Frame whose mask each frame gets, for delays in frames."""
    mode = real_time.RealTime(1 / INTERVAL)

    def outputs():
        for index, delay in enumerate(delays):
            clock.seconds += delay * INTERVAL
            yield index

    return list(mode.hold(outputs(), prompted)), mode.late


@pytest.mark.parametrize(
    "delays, prompted, expected, late",
    [
        ([0.5] * 6, [0], [0, 1, 2, 3, 4, 5], 0),
        ([9] + [1] * 5, [0], [0, 1, 2, 3, 4, 5], 0),  # the first frame waits for the tracker; just in time
        ([0] + [1.5] * 7, [0], [0, 0, 1, 1, 3, 3, 5, 5], 7),  # frames 2, 4 and 6 are missed
        ([0] + [2.5] * 7, [0], [0, 0, 0, 1, 1, 1, 4, 4], 7),
        ([0, 0.5, 3.5, 9, 9, 9, 0.5, 0.5], [0], [0, 1, 1, 1, 1, 2, 6, 7], 4),  # it catches up; missed ones cost nothing
        ([0, 9, 9, 9, 9, 0.5, 0.5], [0, 4], [0, 0, 0, 0, 4, 5, 6], 3),  # a new object: the frame waits
        ([7, 7, 7, 2.5, 0.5, 0.5, 0.5], [2], [0, 1, 2, 2, 2, 3, 6], 3),  # nothing is timed before the first prompt
        ([], [0], [], 0),
    ],
)
def test_a_frame_gets_the_newest_mask_that_is_finished(clock, delays, prompted, expected, late):
    assert shown(clock, delays, prompted) == (expected, late)


def test_the_rule_by_its_definition(clock):
    """Each frame gets the newest answer before its end; the tracker takes the next frame that comes when it is free."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        delays = [0.0, *rng.uniform(0, 3, 30)]
        answers, free = [(0.0, 0)], 0.0
        for index, delay in enumerate(delays[1:], 1):
            if free <= index:
                free = index + delay
                answers.append((free, index))
        expected = [max(i for when, i in answers if when <= index + 1 and i <= index) for index in range(1, 31)]
        found, late = shown(clock, delays)
        assert found == [0, *expected] and late == sum(a != b for a, b in zip(expected, range(1, 31), strict=True))


@pytest.mark.parametrize("overlap", [False, True])
def test_a_slow_tracker(overlap, clock, dataset, tmp_path):
    if overlap:
        for number in (1, 2):
            (dataset / f"Annotations/alpha/{number}").mkdir()
            for mask in dataset.glob("Annotations/alpha/*.png"):
                (dataset / f"Annotations/alpha/{number}" / mask.name).write_bytes(mask.read_bytes())
        for mask in dataset.glob("Annotations/alpha/*.png"):
            mask.unlink()
    (tmp_path / "slow.py").write_text(SLOW)
    store = Store(tmp_path / "store")
    definition = ModelDefinition(f"{tmp_path}/slow.py:Slow", {"delay": 1.5 * INTERVAL})

    def track(fps):
        outcome = track_sequences(task_of(dataset, ["alpha"], Job(definition, real_time=fps), store))
        assert not outcome.failed
        folder = store.masks("alpha") / ("002" if overlap else "")
        folder = folder if folder.is_dir() else store.masks("alpha") / "2"
        masks = [read_mask(folder / f"{index:05d}.png") for index in range(6)]
        return [int(np.flatnonzero(mask.any(axis=1))[0]) for mask in masks], store.manifest("alpha")

    assert track(None)[0] == [0, 1, 2, 3, 4, 5]
    found, manifest = track(1 / INTERVAL)
    assert found == [0, 0, 1, 1, 3, 3] and manifest.real_time == LateMasks(8.0, 5)
    assert track(4 / INTERVAL)[1].real_time == LateMasks(32.0, 5)  # another rate is tracked again
    found, manifest = track(None)
    assert found == [0, 1, 2, 3, 4, 5] and manifest.real_time is None


def test_objects_one_by_one_have_no_common_time(dataset, tmp_path):
    (dataset / "Annotations/alpha/1").mkdir()
    for mask in dataset.glob("Annotations/alpha/*.png"):
        mask.rename(mask.parent / "1" / mask.name)
    task = task_of(dataset, ["alpha"], Job(ModelDefinition("static"), real_time=20), Store(tmp_path / "store"))
    assert "needs a tracker with `track_objects`" in track_sequences(task).failed["alpha"]
