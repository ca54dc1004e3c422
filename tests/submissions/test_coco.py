"""Predictions as run lengths of COCO: what is written is read back, by the layout `youtube-vis`."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.support.records import task_of
from vosarena.cli import main
from vosarena.config.catalogs import Split
from vosarena.datasets.prepare import fetch_split
from vosarena.datasets.sequences import read_sequence
from vosarena.fetching.policy import RetryPolicy
from vosarena.inference.job import Job
from vosarena.inference.run import track_sequences
from vosarena.io.masks import read_mask, write_mask
from vosarena.predictions.manifest import ModelDefinition
from vosarena.predictions.store import Store


@pytest.fixture
def predicted(dataset: Path, tmp_path: Path, monkeypatch) -> Path:
    """A study whose model is finished; the objects of `beta` overlap."""
    for number in (1, 2):
        folder = dataset / "Annotations" / "beta" / f"{number:03d}"
        folder.mkdir()
        write_mask(folder / "00000.png", np.eye(48, 64, k=number, dtype=np.uint8) | np.eye(48, 64, dtype=np.uint8))
    for mask in dataset.glob("Annotations/beta/*.png"):
        mask.unlink()
    monkeypatch.chdir(tmp_path)
    fetch_split(Split(dataset="squares", name="all", path=str(dataset)), Path("resources"), RetryPolicy(1, 1, 0))
    store = Store(Path("results/predictions/squares/all/static"))
    track_sequences(task_of(dataset, ["alpha", "beta", "gamma"], Job(ModelDefinition("static")), store))
    Path("config.yaml").write_text("datasets: [{path: squares}]\nmodels: [static]\n")
    return store.folder


def export() -> int:
    return main(["submission", "--dataset", "squares/all", "--model", "static", "--coco-rle"])


def test_there_and_back(predicted, tmp_path, capsys):
    assert export() == 0
    file = Path(capsys.readouterr().out.strip())
    content = json.loads(file.read_text())
    assert [video["file_names"][0] for video in content["videos"]] == [
        f"{n}/00000.jpg" for n in ("alpha", "beta", "gamma")
    ]
    late = content["annotations"][-1]
    assert late["segmentations"][:4] == [None, None, None, late["segmentations"][5]] and late["areas"][3] == 256
    split = Split(dataset="back", name="all", path="squares", layout="youtube-vis", masks=str(file.absolute()))
    root = fetch_split(split, tmp_path / "resources", RetryPolicy(1, 1, 0)).parent
    for name in ("alpha", "gamma"):
        files = read_sequence(root / "JPEGImages", root / "Annotations", name)
        assert all(np.array_equal(files.mask(i), read_mask(predicted / name / f"{i:05d}.png")) for i in range(6))
    beta = read_sequence(root / "JPEGImages", root / "Annotations", "beta")
    assert beta.object_mask(2, 7).sum() == 96 and beta.object_mask(1, 7).sum() == 96


@pytest.mark.parametrize("damage, message", [
    ("changed", "sequence beta: masks in .* were changed after tracking; track it again"),
    ("missing", "sequence beta: .*00003.png is missing; track it again"),
    ("unfinished", "not predicted yet: beta; run"),
])  # fmt: skip
def test_predictions_that_are_not_whole(damage, message, predicted, capsys):
    if damage == "unfinished":
        (predicted / "beta.json").unlink()
    elif damage == "missing":
        (predicted / "beta" / "001" / "00003.png").unlink()
    else:
        write_mask(predicted / "beta" / "001" / "00003.png", np.zeros((48, 64), np.uint8))
    assert export() == 1
    assert re.search(message, capsys.readouterr().err)
