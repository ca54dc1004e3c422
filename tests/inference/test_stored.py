"""Models that are not trackers: somebody's masks, ensembles, and grids of options."""

import shutil
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from vosarena.base.errors import ConfigError
from vosarena.config.study import load_study
from vosarena.io.masks import read_mask, write_mask
from vosarena.orchestration.checks import check_study
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


def test_masks_and_ensembles_in_one_study_with_trackers(dataset, tmp_path, snakemake):
    config = {
        "datasets": [{"path": str(dataset)}],
        "models": ["static", "flow", {"name": "theirs", "masks": "theirs"},
                   {"name": "all", "ensemble": ["static", "flow", "theirs"], "by": "vote"},
                   {"name": "pair", "ensemble": ["all", "static"]}],
        "inference": {"sequences_per_job": 1},
    }  # fmt: skip
    shutil.copytree(dataset / "Annotations", tmp_path / "theirs")
    (tmp_path / "theirs/beta/00003.png").unlink()
    failed = snakemake("--keep-going", "leaderboard", config=config, check=False)
    assert failed.returncode == 1
    failures = pd.read_csv(tmp_path / "results/studies/config/failures.csv")
    (reason,) = failures["reason"]
    assert "there is no mask" in reason and "theirs/beta/00003.png" in reason and "Traceback" not in reason
    shutil.copy(dataset / "Annotations/beta/00003.png", tmp_path / "theirs/beta")
    snakemake("leaderboard", config=config)
    board = pd.read_csv(tmp_path / BOARD).set_index("model")
    scores = board[board["protocol"] == "davis2017"]["j_and_f"]
    assert scores["theirs"] == 100 and scores["static"] < scores["all"] < 100
    assert scores["pair"] == scores["all"]  # ties go to the first
    for frame in sorted((dataset / "JPEGImages/gamma").iterdir()):
        labels = [read_mask(tmp_path / f"results/predictions/squares/all/{name}/gamma/{frame.stem}.png")
                  for name in ("static", "flow", "theirs", "all")]  # fmt: skip
        assert np.array_equal(labels[3], Ensemble(["a", "b", "c"]).combine(labels[:3]))
    # An edited mask is noticed, and what is made from it is made again; nothing else is.
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "results/predictions").rglob("*.json")}
    write_mask(tmp_path / "theirs/alpha/00002.png", np.zeros((48, 64), np.uint8))
    snakemake("leaderboard", config=config)
    changed = {path.parent.name + "/" + path.stem for path, time in times.items()
               if path.parent.name != ".shards" and path.stat().st_mtime_ns != time}  # fmt: skip
    assert changed == {"theirs/alpha", "all/alpha", "pair/alpha"}
    board = pd.read_csv(tmp_path / BOARD).set_index("model")
    assert board[board["protocol"] == "davis2017"]["j_and_f"]["theirs"] < 100


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
