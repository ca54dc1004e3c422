"""The workflow as a module of another one: everything lands under the prefix, and nothing next to it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.conftest import REPOSITORY

# The workflow that docs/how-to/module.md shows.
FROM_REPOSITORY = 'github("owner/vosarena", path="Snakefile", tag="v0.1.0")'
PARENT = (REPOSITORY / "docs/how-to/module.md").read_text().split("```python\n")[1].split("```")[0]
assert FROM_REPOSITORY in PARENT

# A model with a checkpoint, so that the rule `weights` takes part.
TRACKER = """
import numpy as np


class Shifted:
    packages = ()

    def __init__(self, weights, device="cpu", precision="auto"):
        with open(weights) as file:
            self.shift = int(file.read())

    def track(self, frames, prompts):
        labels = np.zeros(frames[0].shape[:2], np.uint8)
        for index, frame in enumerate(frames):
            labels = np.roll(labels, self.shift, axis=1)
            if index in prompts:
                labels = np.where(prompts[index] > 0, prompts[index], labels)
            yield labels
"""


@pytest.fixture
def parent(dataset, tmp_path):
    """Run another workflow, in a directory of its own, that uses this one; its paths are relative to the directory."""
    home = tmp_path / "parent"
    home.mkdir()
    (home / "tracker.py").write_text(TRACKER)
    (home / "shift.txt").write_text("1")
    shutil.copytree(dataset, home / "data/squares")
    study = {
        "study": "mine",
        "datasets": [
            {"path": "data/squares", "exclude": ["gamma"]},
            {"path": "data/squares", "name": "hidden", "ground_truth": "first_frame", "select": ["alpha"]},
        ],
        "models": [
            {"name": "mine", "tracker": "tracker.py:Shifted", "weights": {"sources": [{"local": "shift.txt"}]}},
        ],
        "protocols": ["davis2017"],
        "inference": {"sequences_per_job": 16},
    }
    (home / "config.yaml").write_text(yaml.safe_dump({"vosarena": study}))
    scores = home / "vos/scores/hidden/all/mine.json"
    scores.parent.mkdir(parents=True)
    scores.write_text(json.dumps({"J&F": 61.5, "J": 61, "F": 62}))

    def run(*arguments: str, snakefile: str = repr(str(REPOSITORY / "Snakefile")), **environment: str):
        (home / "Snakefile").write_text(PARENT.replace(FROM_REPOSITORY, snakefile))
        command = [str(Path(sys.executable).with_name("snakemake")), "--cores", "2", *arguments]
        return subprocess.run(command, cwd=home, env={**os.environ, **environment}, capture_output=True, text=True)

    run.home = home
    return run


def test_everything_lands_under_the_prefix(parent):
    """Also what the library writes by itself (store, partial leaderboard, failures); scores are found there."""
    home = parent.home
    damaged, before = home / "data/squares/JPEGImages/beta/00004.jpg", names(home)
    whole = damaged.read_bytes()

    damaged.write_bytes(whole[:100])
    failed = parent("--keep-going")
    assert failed.returncode != 0 and "beta" in failed.stderr
    failures = pd.read_csv(home / "vos/results/studies/mine/failures.csv")
    assert failures[["dataset", "sequence"]].values.tolist() == [["squares", "beta"]]
    assert all(log.startswith("vos/logs/") and (home / log).is_file() for log in failures["log"])
    assert all("-- vos/results/" in command for command in failures["rerun"])
    assert "Leaderboard of the finished sequences (incomplete): vos/results/" in failed.stderr
    partial = home / "vos/results/studies/mine/partial/leaderboard/leaderboard.csv"
    (partial.parent / "again.csv").write_bytes(partial.read_bytes())
    done = parent("vosarena_partial")
    assert done.returncode == 0, done.stderr
    assert partial.read_bytes() == (partial.parent / "again.csv").read_bytes()
    table = pd.read_csv(home / "vos/results/studies/mine/partial/leaderboard/leaderboard.csv")
    assert table[table["dataset"] == "squares"]["n_sequences"].tolist() == [1]

    damaged.write_bytes(whole)
    done = parent()
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(home / "summary.csv")
    assert table[table["dataset"] == "squares"]["n_sequences"].tolist() == [2]
    assert table[table["kind"] == "server"]["j_and_f"].dropna().tolist() == [61.5]
    assert (home / "vos/resources/weights/mine.pth").read_text() == "1"
    assert names(home) == before | {"Snakefile", "summary.csv"}
    assert names(home / "vos") == {"results", "resources", "logs", "scores"}
    assert names(home / "vos/results") == {"predictions", "metrics", "benchmarks", "studies"}
    assert names(home / "vos/results/studies/mine") == {
        *("leaderboard", "report", "figures", "submissions", "partial", "failures.csv", "references.bib"),
    }
    again = parent("--dry-run")
    assert "Nothing to be done" in again.stdout + again.stderr


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".snakemake", "__pycache__"}


def test_from_a_repository(parent, tmp_path):
    """`github(...)`: the rules come from a commit, the library is the installed one. Git is sent to a local clone."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("this is no clone")
    hub = tmp_path / "hub/owner/vosarena"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(REPOSITORY), str(hub)], check=True)
    subprocess.run(["git", "-C", str(hub), "tag", "v0.1.0"], check=True)
    target = "vos/results/metrics/squares/all/mine.parquet"
    done = parent(
        target,
        snakefile=FROM_REPOSITORY,
        XDG_CACHE_HOME=str(tmp_path / "cache"),
        GIT_CONFIG_COUNT="1",
        GIT_CONFIG_KEY_0=f"url.file://{tmp_path}/hub/.insteadOf",
        GIT_CONFIG_VALUE_0="https://github.com/",
    )
    assert done.returncode == 0, done.stderr
    assert (parent.home / target).is_file()
