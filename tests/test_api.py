"""The public Python interface: what `import vosarena` offers, and the examples in its docstrings."""

import doctest
import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import vosarena
from vosarena.io.masks import read_mask, write_mask
from vosarena.metrics.measure import measure
from vosarena.metrics.pairs import MeasureError, pair_folders
from vosarena.metrics.scores import score, summarise


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the examples use: two folders of masks, and the results of a study named `demo`."""
    for name in "ab":
        for index in range(6):
            for side, shift in (("ground-truth", 0), ("masks", 1)):
                labels = np.zeros((48, 64), np.uint8)
                start = index + shift
                labels[8 + start : 24 + start, 8:30] = 1
                labels[30:40, 30 + start : 50 + start] = 2
                path = tmp_path / side / name / f"{index:05d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_mask(path, labels)
    results = tmp_path / "results"
    tables = []
    for model in ("flow", "static"):
        output = results / "metrics" / "demo" / "val" / f"{model}.parquet"
        pairs = pair_folders(tmp_path / "ground-truth", tmp_path / "masks")
        measure(pairs, output, dataset="demo", split="val", model=model, progress=False)
        tables.append(summarise(score(output, "davis2017")))
    (results / "studies" / "demo" / "leaderboard").mkdir(parents=True)
    pd.concat(tables, ignore_index=True).to_parquet(
        results / "studies" / "demo" / "leaderboard" / "leaderboard.parquet"
    )
    return tmp_path


@pytest.mark.parametrize(
    "name", ["vosarena.metrics.evaluate", "vosarena.inference.track", "vosarena.leaderboard.results"]
)
def test_the_examples_in_docstrings(folder: Path, name: str, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    failed, tried = doctest.testmod(importlib.import_module(name))
    assert failed == 0 and tried >= 3


def test_the_public_names() -> None:
    assert set(vosarena.__all__) <= set(dir(vosarena))
    assert all(getattr(vosarena, name) is not None for name in vosarena.__all__)
    assert issubclass(MeasureError, vosarena.errors.VosarenaError)
    assert importlib.import_module("vosarena.errors").VosarenaError is vosarena.errors.VosarenaError
    assert (Path(vosarena.__file__).parent / "py.typed").is_file()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vosarena.nothing


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, vosarena; print({'numpy', 'pandas', 'numba', 'torch'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(Path(vosarena.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "set()", done.stderr


def test_evaluate(folder: Path) -> None:
    gt, pred = folder / "ground-truth", folder / "masks"
    result = vosarena.evaluate(gt, str(pred), protocol="davis2017", counts=folder / "counts.parquet", jobs=2)
    scores = score(folder / "counts.parquet", "davis2017")
    pd.testing.assert_frame_equal(result.to_pandas(), scores, check_exact=True)
    keys = ["dataset", "split", "model", "protocol"]
    assert result.summary == summarise(scores).drop(columns=keys).iloc[0].to_dict()
    assert (result.j_and_f, result.j, result.f) == tuple(result.summary[name] for name in ("j_and_f", "j", "f"))
    one = vosarena.evaluate(gt, pred, "sa-v", sequences=["b"])
    assert one.summary["n_sequences"] == 1 and one.objects["sequence"].unique().tolist() == ["b"]


@pytest.mark.parametrize("protocol", ["davis2017-official", "vos-benchmark", "lvos", "youtube-vos", "mosev2"])
def test_scores_in_memory_equal_those_of_files(folder: Path, protocol: str) -> None:
    counts = folder / "counts.parquet"
    result = vosarena.evaluate(folder / "ground-truth", folder / "masks", protocol, counts=counts, unseen=["a", "b/2"])
    scores = score(counts, protocol)
    pd.testing.assert_frame_equal(result.objects, scores, check_exact=True)
    (means,) = summarise(scores).drop(columns=["dataset", "split", "model", "protocol"]).to_dict("records")
    assert result.summary == means


def test_evaluate_with_failures(folder: Path) -> None:
    (folder / "masks" / "b" / "00003.png").unlink()
    with pytest.raises(MeasureError, match="sequence b, frame 00003: no prediction"):
        vosarena.evaluate(folder / "ground-truth", folder / "masks", protocol="davis2017")
    result = vosarena.evaluate(folder / "ground-truth", folder / "masks", "davis2017", allow_incomplete=True)
    assert [failure.sequence for failure in result.failures] == ["b"] and result.summary["n_sequences"] == 1
    for arguments in ({"protocol": "davis"}, {"protocol": "davis2017", "jobs": 0}):
        with pytest.raises(vosarena.errors.ConfigError):
            vosarena.evaluate(folder / "ground-truth", folder / "masks", **arguments)


def test_track_folders(folder: Path) -> None:
    images = folder / "images" / "a"
    images.mkdir(parents=True)
    for index in range(6):
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(images / f"{index:05d}.png")
    result = vosarena.track(folder / "images", folder / "ground-truth", folder / "out", tracker="static")
    assert result.finished == ("a",) and result.failed == {}
    assert read_mask(folder / "out" / "a" / "00005.png").max() == 2
    with pytest.raises(vosarena.errors.DataError, match="no sequence 'z'"):
        vosarena.track(folder / "images", folder / "ground-truth", folder / "o", tracker="static", sequences=["z"])
    with pytest.raises(vosarena.errors.TrackerError, match="nothing"):
        vosarena.track(folder / "images", folder / "ground-truth", folder / "o", tracker="nothing")


def test_track_frames() -> None:
    frames, labels = [np.zeros((8, 9, 3), np.uint8)] * 3, np.eye(8, 9, dtype=np.uint8)
    masks = vosarena.track(frames, {1: labels}, tracker="static")
    assert [int(mask.sum()) for mask in masks] == [0, 8, 8]
    for wrong in (labels[1:], labels.astype(bool), {3: labels}):
        with pytest.raises(vosarena.errors.DataError, match="masks: "):
            vosarena.track(frames, wrong, tracker="static")


def test_load_results(folder: Path) -> None:
    results = vosarena.load_results(folder / "results")
    assert results.study == "demo" and len(results.counts) == 2 * 2 * 2 * 6
    (folder / "results" / "studies" / "other").mkdir()
    with pytest.raises(vosarena.errors.DataError, match="name of the study"):
        _ = vosarena.load_results(folder / "results").leaderboard
    assert len(vosarena.load_results(folder / "results", study="demo").leaderboard) == 2
    with pytest.raises(vosarena.errors.DataError, match="did you mean 'demo'"):
        vosarena.load_results(folder / "results", study="dem")
    with pytest.raises(vosarena.errors.DataError, match="no such folder"):
        vosarena.load_results(folder / "nowhere")
