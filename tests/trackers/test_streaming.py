"""Frames are prepared ahead in order, a bounded number of them; results come one frame late from a GPU only."""

import threading
import time
from contextlib import closing

import numpy as np
import pytest
import torch
from PIL import Image

from vosarena.base.errors import DataError
from vosarena.io.frames import Frames
from vosarena.trackers import streaming
from vosarena.trackers.streaming import fetch_late, frame_size, pinned_empty, prepare_ahead


@pytest.fixture
def paths(tmp_path):
    """Twenty images of one grey level each: 0, 1, ..."""
    found = [tmp_path / f"{index:05d}.png" for index in range(20)]
    for index, path in enumerate(found):
        Image.new("RGB", (30, 20), (index,) * 3).save(path)
    return found


def level(frame):
    time.sleep(0.002 * (frame[0, 0, 0] % 3))  # frames are ready in another order
    return int(frame[0, 0, 0])


@pytest.mark.parametrize("start", [0, 7, 19])
@pytest.mark.parametrize("files", [True, False])
def test_frames_come_in_order_from_other_threads(paths, start, files):
    names = set()

    def prepare(frame):
        names.add(threading.current_thread().name)
        return level(frame)

    with Frames(paths, workers=3) as opened:
        frames = opened if files else [opened[index] for index in range(20)]
        assert list(prepare_ahead(frames, prepare, range(start, 20))) == list(range(start, 20))
    assert len(names) == (min(3, 20 - start) if files else 1)
    assert threading.current_thread().name not in names


def test_the_number_of_prepared_frames_is_bounded(paths):
    done = []
    with (
        Frames(paths, workers=2) as frames,
        closing(prepare_ahead(frames, lambda f: done.append(level(f)), ahead=3)) as p,
    ):
        for used in range(1, 6):
            next(p)
            time.sleep(0.05)
            assert len(done) <= used + 5


def test_errors_come_when_their_frame_is_reached_and_threads_end(paths):
    paths[4].write_bytes(b"")
    before = threading.active_count()
    with Frames(paths, workers=2) as frames:
        prepared = prepare_ahead(frames, level)
        assert [next(prepared) for _ in range(4)] == [0, 1, 2, 3]
        with pytest.raises(DataError, match="00004 is an empty file"):
            next(prepared)
    assert threading.active_count() == before


def test_closing_early_ends_the_threads(paths):
    before = threading.active_count()
    with Frames(paths) as frames, closing(prepare_ahead(frames, level)) as prepared:
        next(prepared)
        assert threading.active_count() > before
    assert threading.active_count() == before


def test_frames_in_memory_must_have_one_size():
    frames = [np.zeros((4, 6, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)]
    with pytest.raises(DataError, match="frame 1 is 5x4 but the first is 6x4"):
        list(prepare_ahead(frames, np.sum))


def test_nothing_is_read_where_nothing_is_asked_for(paths):
    frames = [np.zeros((4, 6, 3), np.uint8)] * 3
    assert list(prepare_ahead(frames, np.sum, [])) == []
    assert list(prepare_ahead(Frames(paths), level, range(20, 20))) == []


def test_the_size_of_files_is_known_without_decoding(paths, monkeypatch):
    monkeypatch.setattr(Frames, "read", None)
    assert frame_size(Frames(paths)) == (20, 30)
    assert frame_size([np.zeros((4, 6, 3), np.uint8)]) == (4, 6)


class OnGpu:
    """Stands for a tensor on a GPU."""

    device = torch.device("meta")

    def __init__(self, number):
        self.number = number


@pytest.mark.parametrize(("late", "expected"), [(False, "m0 y0 m1 y1 m2 y2"), (True, "m0 m1 y0 m2 y1 y2")])
def test_results_of_a_gpu_are_fetched_one_late(monkeypatch, late, expected):
    events = []
    monkeypatch.setattr(streaming, "fetch", lambda result: lambda: np.array(int(result.number if late else result)))

    def results():
        for number in range(3):
            events.append(f"m{number}")
            yield OnGpu(number) if late else torch.tensor(number)

    for result in fetch_late(results()):
        events.append(f"y{result}")
    assert " ".join(events) == expected


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_memory_for_the_cpu_is_ordinary(device):
    tensor = pinned_empty((2, 3), torch.uint8, device)
    assert tensor.shape == (2, 3) and tensor.dtype == torch.uint8 and not tensor.is_pinned()
