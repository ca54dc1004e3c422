"""Models that are not trackers: somebody's masks, ensembles, and grids of options."""

import shutil
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from tests.support.records import task_of
from vosarena.base.errors import ConfigError
from vosarena.config.study import load_study
from vosarena.inference.job import Job
from vosarena.inference.run import track_sequences
from vosarena.io.masks import read_mask, write_mask
from vosarena.orchestration.checks import check_study
from vosarena.predictions.manifest import ModelDefinition
from vosarena.predictions.store import Store
from vosarena.trackers.stored import Ensemble

BOARD = "results/studies/config/leaderboard/leaderboard.csv"


@pytest.mark.parametrize("models", [2, 3, 5])
def test_an_ensemble_votes_and_ties_go_to_the_first(models):
    rng = np.random.default_rng(models)
    labels = [rng.integers(0, 4, (20, 30), np.uint8) for _ in range(models)]
    found = Ensemble([str(index) for index in range(models)]).combine(labels)
    assert found.dtype == np.uint8
    for place in np.ndindex(20, 30):
        votes = Counter(int(each[place]) for each in labels)
        most = max(votes.values())
        assert found[place] == next(int(each[place]) for each in labels if votes[int(each[place])] == most)


def test_a_lost_mask_fails_its_sequence_alone_until_it_is_back(dataset, tmp_path):
    theirs = shutil.copytree(dataset / "Annotations", tmp_path / "theirs")
    (theirs / "beta/00003.png").unlink()
    job, store = Job(ModelDefinition("masks", {"folder": str(theirs)})), Store(tmp_path / "store")
    found = track_sequences(task_of(dataset, ["alpha", "beta"], job, store))
    assert list(found.masks) == ["alpha"]
    assert "there is no mask" in found.failed["beta"] and "theirs/beta/00003.png" in found.failed["beta"]
    shutil.copy(dataset / "Annotations/beta/00003.png", theirs / "beta")
    assert not track_sequences(task_of(dataset, ["alpha", "beta"], job, store)).failed


def test_masks_and_ensembles_in_one_study_with_trackers(dataset, tmp_path, snakemake):
    config = {
        "datasets": [{"path": str(dataset), "select": ["alpha", "beta"]}],
        "models": ["static", "flow", {"name": "theirs", "masks": "theirs"},
                   {"name": "all", "ensemble": ["static", "flow", "theirs"], "by": "vote"},
                   {"name": "pair", "ensemble": ["all", "static"]}],
        "protocols": ["davis2017"],
        "inference": {"sequences_per_job": 2},
    }  # fmt: skip
    shutil.copytree(dataset / "Annotations", tmp_path / "theirs")
    snakemake("leaderboard", config=config)
    scores = pd.read_csv(tmp_path / BOARD).set_index("model")["j_and_f"]
    assert scores["theirs"] == 100 and scores["static"] < scores["all"] < 100
    assert scores["pair"] == scores["all"]  # ties go to the first
    store = tmp_path / "results/predictions/squares/all"
    for frame in sorted((dataset / "JPEGImages/alpha").iterdir()):
        labels = [read_mask(store / f"{name}/alpha/{frame.stem}.png") for name in ("static", "flow", "theirs", "all")]
        assert np.array_equal(labels[3], Ensemble(["a", "b", "c"]).combine(labels[:3]))
    # An edited mask is noticed, and what is made from it is made again; nothing else is.
    times = {path: path.stat().st_mtime_ns for path in store.glob("*/*.json")}
    write_mask(tmp_path / "theirs/alpha/00002.png", np.zeros((48, 64), np.uint8))
    snakemake("leaderboard")
    changed = {f"{path.parent.name}/{path.stem}" for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert changed == {"theirs/alpha", "all/alpha", "pair/alpha"}
    assert pd.read_csv(tmp_path / BOARD).set_index("model")["j_and_f"]["theirs"] < 100


def models_of(*models: object) -> dict:
    return dict(load_study({"datasets": ["demo/val"], "models": list(models)}).models)


def test_a_grid_makes_one_model_for_each_combination():
    found = models_of("flow", {"name": "c", "title": "Cutie", "extends": "cutie-demo", "options": {"flip": True},
                               "grid": {"size": [96, 128], "mem_every": [3, 5]}})  # fmt: skip
    assert list(found)[1:] == ["c-size-96-mem_every-3", "c-size-96-mem_every-5", "c-size-128-mem_every-3",
                               "c-size-128-mem_every-5"]  # fmt: skip
    one = found["c-size-96-mem_every-5"]
    assert one.options["size"] == 96 and one.options["mem_every"] == 5 and one.options["flip"]
    assert one.title == "Cutie, size 96, mem_every 5" and one.weights == found["c-size-128-mem_every-3"].weights
    assert len({str(model.definition()) for model in found.values()}) == 5


@pytest.mark.parametrize("models, message", [
    ([{"name": "e", "ensemble": ["static", "flow"]}, "static", "flow"], "models.0: ensemble: 'static' is no model"),
    (["static", "flow", {"name": "e", "ensemble": ["static", "flwo"]}], "did you mean 'flow'"),
    (["static", {"name": "e", "ensemble": ["static"]}], "ensemble: 'static' is alone"),
    (["static", {"name": "e", "ensemble": ["static", "e"]}], "'e' is no model before"),
    ([{"name": "e", "masks": "nowhere"}], "config: models: e: masks: no such folder: nowhere"),
    ([{"name": "e", "masks": ".", "tracker": "flow"}], "either `masks` or `tracker`, not both"),
    (["cutie-demo", "flow", {"name": "e", "ensemble": ["cutie-demo", "flow"], "by": "mean"}], "'flow' gives no logits"),
    (["cutie-demo", {"name": "d", "extends": "cutie-demo", "options": {"full_resolution": True}},
      {"name": "e", "ensemble": ["cutie-demo", "d"], "by": "mean"}], "full_resolution"),
    ([{"name": "e", "extends": "cutie-demo", "grid": {"size": []}}], "grid"),
])  # fmt: skip
def test_mistakes_are_sentences(models, message):
    with pytest.raises(ConfigError, match=message):
        check_study(load_study({"datasets": ["demo/val"], "models": list(models)}), "config")
