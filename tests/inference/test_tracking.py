import json
import os
import re
import threading

import numpy as np
import pytest
from PIL import Image

from tests.support.records import task_of
from vosarena.base.errors import TrackerError
from vosarena.cli import main
from vosarena.inference import run as run_module
from vosarena.inference.job import Job
from vosarena.inference.run import track_sequences, track_shard
from vosarena.io.masks import read_mask, write_mask
from vosarena.metrics.measure import measure
from vosarena.metrics.pairs import pair_sequence
from vosarena.metrics.scores import score, summarise
from vosarena.predictions.manifest import ModelDefinition
from vosarena.predictions.store import Store

STATIC = Job(ModelDefinition("static"))


def run(dataset, store, job=STATIC, names=("alpha", "beta", "gamma")):
    return track_sequences(task_of(dataset, names, job, store))


def test_static_repeats_each_objects_first_mask(dataset, tmp_path):
    store = Store(tmp_path / "out")
    run(dataset, store, names=["gamma"])
    first, third = (read_mask(dataset / "Annotations" / "gamma" / f"{i:05d}.png") for i in (0, 3))
    expected = np.where(third == 2, 2, first)
    assert (read_mask(store.masks("gamma") / "00002.png") == first).all()
    assert (read_mask(store.masks("gamma") / "00005.png") == expected).all()
    assert store.manifest("gamma").prompts == {"00000": (1,), "00003": (2,)}


EVERY = """
class Every:
    packages = ()

    def __init__(self, use_all_masks=False, device="cpu", precision="auto"):
        pass

    def track(self, frames, prompts):
        for index, frame in enumerate(frames):
            yield prompts.get(index, frame[..., 0] * 0)
"""


@pytest.mark.parametrize("overlap", [False, True])
def test_a_tracker_with_the_option_gets_all_masks(dataset, tmp_path, overlap):
    (tmp_path / "every.py").write_text(EVERY)
    folder = dataset / "Annotations" / "gamma"
    if overlap:  # with a folder per object; the first two masks of object 2 are empty
        masks = {path: read_mask(path) for path in folder.glob("*.png")}
        for path, labels in masks.items():
            path.unlink()
            for number in (1, 2):
                (folder / f"{number:03d}").mkdir(exist_ok=True)
                write_mask(folder / f"{number:03d}" / path.name, (labels == number).astype(np.uint8))
    store = Store(tmp_path / "out")
    tracker = f"{tmp_path / 'every.py'}:Every"
    assert not run(dataset, store, Job(ModelDefinition(tracker, {"use_all_masks": True})), ["gamma"]).failed
    files = [path.relative_to(folder) for path in folder.rglob("*.png")]
    assert len(files) == (12 if overlap else 6)
    assert all((read_mask(folder / file) == read_mask(store.masks("gamma") / file)).all() for file in files)
    assert store.manifest("gamma").prompts["00004"] == (1, 2)
    run(dataset, Store(tmp_path / "first"), Job(ModelDefinition(tracker)), ["gamma"])
    assert list(Store(tmp_path / "first").manifest("gamma").prompts) == ["00000", "00003"]


def test_flow_follows_a_moving_object(dataset, tmp_path):
    store = Store(tmp_path / "out")
    run(dataset, store, Job(ModelDefinition("flow")), ["alpha"])
    labels = read_mask(store.masks("alpha") / "00005.png")
    truth = read_mask(dataset / "Annotations" / "alpha" / "00005.png")
    overlap = [((labels == i) & (truth == i)).sum() / ((labels == i) | (truth == i)).sum() for i in (1, 2)]
    assert overlap[0] > 0.75 and overlap[1] > 0.45  # the first mask repeated would have 0.52 and 0.23


def test_a_second_run_keeps_what_is_there_and_a_new_definition_does_not(dataset, tmp_path):
    store = Store(tmp_path / "out")
    first = run(dataset, store)
    times = {path: path.stat().st_mtime_ns for path in store.folder.glob("*.json")}
    assert run(dataset, store) == first
    assert {path: path.stat().st_mtime_ns for path in store.folder.glob("*.json")} == times
    run(dataset, store, Job(ModelDefinition("static", revision=2)))
    assert all(path.stat().st_mtime_ns > times[path] for path in times)


def test_the_next_sequence_is_hashed_while_one_is_tracked(dataset, tmp_path, monkeypatch):
    digest, threads = run_module.sequence_digest, {}

    def noted(files, prompts):
        threads[files.name] = [*threads.get(files.name, ()), threading.current_thread().name]
        return digest(files, prompts)

    monkeypatch.setattr(run_module, "sequence_digest", noted)
    (dataset / "Annotations" / "beta" / "00000.png").write_bytes(b"")  # its error is not that of alpha
    outcome = run(dataset, Store(tmp_path / "out"))
    assert list(outcome.masks) == ["alpha", "gamma"] and "is empty" in outcome.failed["beta"]
    assert [len(names) for names in threads.values()] == [1, 1]
    assert threads["alpha"] == [threading.current_thread().name]
    names = ["alpha", "gamma"]
    expected = run(dataset, Store(tmp_path / "again"), names=names)
    assert threads["gamma"][1].startswith("next-sequence")
    assert expected.masks == outcome.masks
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("next-sequence")]


PREPARING = """
import contextlib, threading
from vosarena.trackers.streaming import prepare_ahead


class Preparing:
    packages = ()

    def __init__(self, notes, device="cpu", precision="auto"):
        self.notes = notes

    def prepare(self, frame):
        with open(self.notes, "a") as file:
            print(frame[0, 0, 0], threading.current_thread().name.rpartition("_")[0], file=file)
        if frame[0, 0, 0] == 200:
            raise ValueError("not this one")
        return frame

    def track(self, frames, prompts):
        with contextlib.closing(prepare_ahead(frames, self.prepare)) as prepared:
            for index, frame in enumerate(prepared):
                assert (frame == frames[index]).all()
                yield prompts.get(index, frame[..., 0] * 0)
"""


def test_the_first_frames_of_the_next_sequence_are_prepared_while_one_is_tracked(tmp_path):
    """None is prepared twice, and one that cannot be prepared fails its own sequence."""
    names = ("first", "second", "bad", "last")
    for number, name in enumerate(names):
        for folder in ("JPEGImages", "Annotations"):
            (tmp_path / folder / name).mkdir(parents=True)
        for index in range(5):
            level = 200 if name == "bad" else 10 * number + index
            Image.new("RGB", (9, 8), (level, 0, 0)).save(tmp_path / "JPEGImages" / name / f"{index}.png")
        write_mask(tmp_path / "Annotations" / name / "0.png", np.ones((8, 9), np.uint8))
    (tmp_path / "mine.py").write_text(PREPARING)
    definition = ModelDefinition(f"{tmp_path / 'mine.py'}:Preparing", {"notes": str(tmp_path / "notes")})
    outcome = run(tmp_path, Store(tmp_path / "out"), Job(definition), names)
    assert list(outcome.masks) == ["first", "second", "last"]
    assert "not this one" in outcome.failed["bad"]
    threads = [line.split() for line in (tmp_path / "notes").read_text().splitlines() if not line.startswith("200")]
    assert sorted(level for level, _ in threads) == sorted(str(10 * n + index) for n in (0, 1, 3) for index in range(5))
    assert sorted(level for level, thread in threads if thread == "next-sequence") == ["10", "11"]


@pytest.mark.parametrize("workers", [None, 1, 5])
def test_the_number_of_workers_of_a_job(dataset, tmp_path, monkeypatch, workers):
    seen, real = [], run_module.Frames

    def frames(*arguments, **options):
        seen.append(real(*arguments, **options).workers)
        return real(*arguments, **options)

    monkeypatch.setattr(run_module, "Frames", frames)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(2))
    run(dataset, Store(tmp_path / "out"), Job(ModelDefinition("static"), workers=workers), ["alpha"])
    assert seen == [workers or 2]


def test_a_damaged_frame_fails_its_sequence_alone_and_is_mended(dataset, tmp_path):
    store = Store(tmp_path / "out")
    frame = dataset / "JPEGImages" / "beta" / "00004.jpg"
    whole = frame.read_bytes()
    frame.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrackerError, match=r"1 of 3 sequences failed(.|\n)*beta(.|\n)*00004"):
        track_shard(task_of(dataset, ["alpha", "beta", "gamma"], STATIC, store), tmp_path / "status.json")
    assert not (tmp_path / "status.json").exists()
    assert store.manifest("alpha") and store.manifest("gamma") and not store.manifest("beta")
    assert "00004" in json.loads((store.folder / ".beta.failed.json").read_text())["reason"]
    untouched = (store.folder / "alpha.json").stat().st_mtime_ns
    frame.write_bytes(whole)
    outcome = run(dataset, store)
    assert sorted(outcome.masks) == ["alpha", "beta", "gamma"] and not outcome.failed
    assert (store.folder / "alpha.json").stat().st_mtime_ns == untouched
    assert not (store.folder / ".beta.failed.json").exists()


def test_a_damaged_frame_of_a_tracked_sequence_that_is_put_back_is_no_failure_any_more(dataset, tmp_path):
    store, frame = Store(tmp_path / "store"), dataset / "JPEGImages" / "beta" / "00003.jpg"
    assert not run(dataset, store).failed
    whole = frame.read_bytes()
    frame.write_bytes(whole[: len(whole) // 2])
    assert run(dataset, store).failed and store.failure("beta")
    frame.write_bytes(whole)
    assert not run(dataset, store).failed and store.failure("beta") is None


def test_numeric_order_of_unpadded_names_and_sparse_masks(dataset, tmp_path):
    images, masks = dataset / "JPEGImages" / "alpha", dataset / "Annotations" / "alpha"
    for folder in (images, masks):
        for path in list(folder.iterdir()):
            path.rename(folder / f"{int(path.stem) * 2 + 7}{path.suffix}")  # 7, 9, 11, ... 17
    for stem in (9, 13, 17):
        (masks / f"{stem}.png").unlink()
    store = Store(tmp_path / "out")
    assert not run(dataset, store, names=["alpha"]).failed
    manifest = store.manifest("alpha")
    assert manifest.frames == ("7", "9", "11", "13", "15", "17")
    assert manifest.prompts == {"7": (1, 2)}


@pytest.mark.parametrize("body, reason", [
    ("yield frames[0][..., 0] * 0", "gave 1 masks for 6 frames"),
    ("yield from (frame[::2, ::2, 0] for frame in frames)",
     r"^frame 00000: the tracker gave uint8, 24 x 32, expected uint8, 48 x 64 \(height x width\), one"),
    ("yield prompts[0]; yield from [prompts[0] * 0 + 7] * 5",
     "^frame 00001: the tracker gave object 7, but the prompts of this sequence have only object 1, 2$"),
    ("return None", "^the tracker gave None, expected .* `yield` each"),
    ("yield prompts[0], 0.5", "frame 00000: the tracker gave a tuple, expected uint8, 48 x 64"),
    ("yield prompts[0] > 0", "gave bool, 48 x 64, expected uint8, .*; write the object's id where it is True$"),
    ("yield prompts[0].astype(int)", r"gave int64, .* expected uint8, .*; convert it with \.astype\(np\.uint8\)$"),
    ("raise ValueError('odd')", r"^ValueError: odd \(mine\.py:5\)$"),
    ("return {}['memory']", r"^KeyError: 'memory' \(mine\.py:5\)$"),
    ("import json; json.loads('x')", r"^JSONDecodeError: .*\(mine\.py:5\)$"),
])  # fmt: skip
def test_a_tracker_of_ones_own_is_checked(dataset, tmp_path, body, reason):
    file = tmp_path / "mine.py"
    file.write_text(
        "class Mine:\n    packages = ()\n    def __init__(self, device, precision): pass\n"
        f"    def track(self, frames, prompts):\n        {body}\n"
    )
    outcome = run(dataset, Store(tmp_path / "out"), Job(ModelDefinition(f"{file}:Mine")))
    assert len(outcome.failed) == 3
    assert re.search(reason, outcome.failed["alpha"])


def test_editing_a_tracker_of_ones_own_tracks_again(dataset, tmp_path):
    file, store = tmp_path / "mine.py", Store(tmp_path / "out")
    job = Job(ModelDefinition(f"{file}:Mine"))
    for value in (0, 1):
        file.write_text(
            "class Mine:\n    def __init__(self, device, precision): pass\n"
            "    def track(self, frames, prompts):\n"
            f"        yield from (frame[..., 0] * 0 + {value} for frame in frames)\n"
        )
        assert not run(dataset, store, job).failed
        assert read_mask(store.masks("beta") / "00007.png").max() == value


@pytest.mark.parametrize("arguments, reason", [
    (["--tracker", "statik"], "did you mean 'static'"),
    (["--tracker", "static", "--option", "size=3"], "has no option 'size'"),
    (["--tracker", "static", "--option", "size"], "expected KEY=VALUE"),
    (["--tracker", "nowhere.py:Mine"], "there is no file nowhere.py"),
    (["--tracker", "static", "--sequence", "alfa"], "did you mean 'alpha'?"),
    (["--tracker", "static", "--images", "{}"], "JPEGImages; give that one"),
    (["--tracker", "cutie-demo"], "catalog: give --model cutie-demo, or --tracker cutie --option model=tiny "),
    (["--tracker", "cutie-demo"], " --option arithmetic=stable --option weights=resources/weights/cutie-demo.pth; "),
    (["--tracker", "cutie", "--option", "weights=nowhere.pth"], "there is no weights file nowhere.pth"),
])  # fmt: skip
def test_command_line_mistakes_are_one_sentence(dataset, tmp_path, capsys, arguments, reason):
    folders = ["--images", str(dataset / "JPEGImages"), "--masks", str(dataset / "Annotations")]
    arguments = [argument.format(dataset) for argument in arguments]
    assert main(["track", *folders, *arguments, "--output", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert reason in error and "Traceback" not in error


def test_command_line_tracks(dataset, tmp_path, capsys):
    out = tmp_path / "out"
    folders = ["--images", str(dataset / "JPEGImages"), "--masks", str(dataset / "Annotations")]
    assert main(["track", "--tracker", "static", *folders, "--output", str(out), "--sequence", "beta"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["beta", "beta.json"]
    assert len(list((out / "beta").iterdir())) == 8
    assert main(["track", "--tracker", "static", *folders, "--output", str(out), "--sequence", "delta"]) == 1
    assert "no sequence 'delta' in" in capsys.readouterr().err


def test_overlapping_objects_have_folders_of_their_own(dataset, tmp_path):
    """SA-V: `<sequence>/<object>/<frame>.png` in, the same out; a tracker without overlap takes them one by one."""
    masks = dataset / "Annotations" / "alpha"
    square = np.zeros((48, 64), np.uint8)
    square[10:30, 10:30] = 1
    for path in list(masks.iterdir()):
        path.unlink()
    for number, first in (("000", 0), ("007", 2)):  # the same pixels twice: no label map can hold both
        (masks / number).mkdir()
        for index in range(6):
            write_mask(masks / number / f"{index:05d}.png", square if index >= first else square * 0)
    store = Store(tmp_path / "out")
    assert not run(dataset, store, names=["alpha"]).failed
    manifest = store.manifest("alpha")
    assert manifest.prompts == {"00000": (0,), "00002": (7,)}
    assert len(list(store.masks("alpha").glob("*/*.png"))) == 12
    assert not read_mask(store.masks("alpha") / "007" / "00001.png").any()
    assert (read_mask(store.masks("alpha") / "007" / "00005.png") == square).all()
    before = (store.folder / "alpha.json").stat().st_mtime_ns
    assert run(dataset, store, names=["alpha"]).masks == {"alpha": manifest.masks_digest}
    assert (store.folder / "alpha.json").stat().st_mtime_ns == before
    pair = pair_sequence("alpha", masks, store.masks("alpha"), masks_digest=manifest.masks_digest)
    measure([pair], tmp_path / "metrics.parquet", dataset="sa-v", split="val", model="static", progress=False)
    assert summarise(score(tmp_path / "metrics.parquet", "sa-v"))["j_and_f"].item() == 100


@pytest.mark.parametrize("body, reason", [
    ("yield prompts[0][0]", "frame 00000: the tracker gave bool, 48 x 64, expected one mapping per frame"),
    ("yield {0: prompts[0][0], 3: prompts[0][0]}", "gave masks of object 0, 3, but .* have object 0$"),
    ("yield {0: prompts[0][0].tolist()}", "gave a list for object 0, expected bool, 48 x 64"),
])  # fmt: skip
def test_a_tracker_of_overlapping_objects_is_checked(dataset, tmp_path, body, reason):
    masks = dataset / "Annotations" / "alpha"
    for path in list(masks.iterdir()):
        path.unlink()
    (masks / "000").mkdir()
    write_mask(masks / "000" / "00000.png", np.ones((48, 64), np.uint8))
    file = tmp_path / "mine.py"
    file.write_text(
        "class Mine:\n    def __init__(self, device, precision): pass\n"
        f"    def track_objects(self, frames, prompts):\n        {body}\n"
    )
    job = Job(ModelDefinition(f"{file}:Mine"))
    outcome = run(dataset, Store(tmp_path / "out"), job, ["alpha"])
    assert re.search(reason, outcome.failed["alpha"])
