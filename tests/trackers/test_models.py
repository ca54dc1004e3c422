"""Models with an environment of their own: a plug-in and the forks of SAM 2, next to built-in ones."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY, wait_for, write_sequence
from tests.support.environments import environment, install
from vosarena.base.locks import read_lock
from vosarena.config.catalogs import load_catalog
from vosarena.inference.interpreter import NEEDED
from vosarena.trackers.base import tracker_class

LIBRARY = REPOSITORY / "workflow" / "scripts"


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.partition("[")[0]).lower()


def pins(env: str) -> dict[str, str]:
    """Package -> version of the pip section of envs/ENV.yaml."""
    content = yaml.safe_load((REPOSITORY / "envs" / f"{env}.yaml").read_text())
    return {
        canonical(name): version
        for name, _, version in (item.partition("==") for item in content["dependencies"][-1]["pip"])
    }


@pytest.fixture(scope="module")
def plugin(tmp_path_factory) -> Path:
    """Python of an environment with the package of tests/support/plugin, whose module `sam2` shadows the real one."""
    source = tmp_path_factory.mktemp("plugin") / "source"
    shutil.copytree(REPOSITORY / "tests" / "support" / "plugin", source)
    return environment(source.parent / "environment", str(source))


def scores(root: Path) -> dict[str, float]:
    rows = csv.DictReader((root / "results/studies/config/leaderboard/leaderboard.csv").read_text().splitlines())
    return {row["model"]: float(row["j_and_f"]) for row in rows}


def manifest(root: Path, model: str, sequence: str) -> dict:
    return json.loads((root / "results/predictions/squares/all" / model / f"{sequence}.json").read_text())


def test_a_plugin_that_shadows_sam2_stands_in_one_leaderboard_with_it(plugin, dataset, tmp_path, snakemake):
    """Its versions are those of its own environment; an upgrade there has its sequences tracked again."""
    template = {"name": "template", "tracker": "template", "python": os.path.relpath(plugin, tmp_path)}
    config = {
        "datasets": [{"path": str(dataset), "select": ["gamma"]}],
        "models": ["static", "sam2-demo", template],
        "protocols": ["davis2017"],
    }
    snakemake("leaderboard", config=config)
    found = scores(tmp_path)
    assert found.keys() == {"static", "sam2-demo", "template"}
    assert found["template"] > 90 > found["static"]

    before = {model: manifest(tmp_path, model, "gamma") for model in found}
    assert before["template"]["interpreter"] == str(plugin)
    assert before["template"]["identity"]["packages"]["vosarena-template"] == "0.3.0"
    assert Path(before["sam2-demo"]["interpreter"]).parent == Path(sys.executable).parent
    assert "Nothing to be done" in snakemake("-n", "leaderboard").stderr

    source = tmp_path / "newer"
    shutil.copytree(REPOSITORY / "tests" / "support" / "plugin", source)
    project = source / "pyproject.toml"
    project.write_text(project.read_text().replace("0.3.0", "0.4.0"))
    install(plugin, str(source))
    snakemake("results/predictions/squares/all/template/.shards/shard-1-of-1.json", "--forcerun", "track")
    after = manifest(tmp_path, "template", "gamma")
    assert after["identity"]["packages"]["vosarena-template"] == "0.4.0"
    assert after["fingerprint"] != before["template"]["fingerprint"]


def test_an_environment_that_does_not_fit_is_one_sentence(plugin, dataset, tmp_path, snakemake):
    (tmp_path / "weights.pt").write_text("no checkpoint, but nobody comes to that")
    weights = {"sources": [{"local": str(tmp_path / "weights.pt")}]}
    models = [
        {"name": "nowhere", "tracker": "template", "python": "no/such/python"},
        {"name": "bare", "tracker": "template", "python": str(environment(tmp_path / "bare", shared=False))},
        {"name": "other", "tracker": "edgetam", "weights": weights, "python": str(plugin)},
    ]
    config = {"datasets": [{"path": str(dataset)}], "models": models, "inference": {"sequences_per_job": 3}}
    failed = snakemake(config=config, check=False)
    assert failed.returncode != 0
    assert "Traceback" not in failed.stderr
    rows = list(csv.DictReader((tmp_path / "results/studies/config/failures.csv").read_text().splitlines()))
    reasons = {row["model"]: row["reason"] for row in rows}
    assert len(rows) == 9
    assert f"{tmp_path / 'no/such/python'} cannot be run (No such file or directory)" in reasons["nowhere"]
    assert f"{tmp_path / 'bare/bin/python'} lacks packages of vosarena (No module named " in reasons["bare"]
    assert f"package 'edgetam-dimos' is not installed for {plugin}" in reasons["other"]


BECOME = """
import sys
from pathlib import Path
from vosarena.inference.interpreter import exec_in_python
from vosarena.inference.job import Job, ShardTask
from vosarena.predictions.manifest import ModelDefinition
root, work = Path(sys.argv[2]), Path(sys.argv[3])
job = Job(ModelDefinition(f"{work}/slow.py:Slow"))
task = ShardTask(("alpha",), root / "JPEGImages", root / "Annotations", job, work / "store")
exec_in_python(sys.argv[1], work / "log", task, work / "store/.shards/alpha.json")
"""
SLOW = """
import time
import numpy as np
class Slow:
    packages = ()
    def __init__(self, device="cpu", precision="auto"): pass
    def track(self, frames, prompts):
        while True:
            time.sleep(0.1)
            yield np.zeros(frames[0].shape[:2], np.uint8)
            time.sleep(60)
"""


def test_there_is_one_process_and_it_says_that_it_was_stopped(plugin, dataset, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    store = tmp_path / "store"
    command = [sys.executable, "-c", BECOME, str(plugin), str(dataset), str(tmp_path)]
    job = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: job.poll() is not None or list(store.glob(".alpha.*.part/00000.png")))
    owner, _ = read_lock(store / ".alpha.lock")
    assert owner["pid"] == job.pid  # nothing that could outlive the job
    job.send_signal(signal.SIGTERM)
    assert "the job was cancelled" in job.communicate(timeout=30)[1]
    assert job.returncode == 1
    assert "the job was cancelled" in (tmp_path / "log").read_text()
    assert json.loads((store / ".alpha.failed.json").read_text())["class"] == "cancelled"
    assert {path.name for path in store.iterdir()} == {".alpha.failed.json"}


def test_an_interpreter_in_a_catalog_lies_relative_to_it_and_links_are_not_followed(tmp_path):
    """A virtual environment's interpreter is a link to the one it was made by, which does not see its packages."""
    python, models = tmp_path / "env" / "bin" / "python", tmp_path / "mine" / "models"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    models.mkdir(parents=True)
    (models / "mine.yaml").write_text("mine: {tracker: static, python: ../../env/bin/python}")
    assert load_catalog([tmp_path / "mine"]).model("mine").python == str(python)


def test_environments_hold_what_their_models_need_at_tested_versions():
    """Conda itself is not run here: its channels are not PyPI."""
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    tested = {canonical(name): version for name, _, version in (line.partition("==") for line in lines)}
    catalog = load_catalog()
    models = [catalog.model(name) for name in catalog.models]
    assert {path.stem for path in (REPOSITORY / "envs").glob("*.yaml")} == {model.env for model in models}
    for env in {model.env for model in models}:
        held = pins(env)
        assert all(tested.get(name, version) == version for name, version in held.items())
        used = {package for model in models if model.env == env for package in tracker_class(model.tracker).packages}
        later = re.findall(r"(\S+)==", (REPOSITORY / "envs" / "default.post-deploy.sh").read_text())
        missing = {canonical(name) for name in {*used, *NEEDED.split()}} - held.keys()
        assert missing <= (set(later) if env == "default" else set())
    assert NEEDED in (REPOSITORY / "docs" / "how-to" / "models.md").read_text()


FORKS = {"edgetam": "edgetam-dimos", "efficienttam": "efficient-track-anything"}
SIDE = 256


def small_edgetam(python: Path, output: Path) -> Path:
    """The package's configuration with maps of 16 x 16 instead of 64 x 64."""
    package = next(python.parents[1].glob("lib/python3*/site-packages/sam2"))
    content = yaml.safe_load((package / "configs" / "edgetam.yaml").read_text())
    content["model"]["image_size"] = SIDE
    content["model"]["memory_attention"]["layer"]["cross_attention"]["q_sizes"] = [16, 16]
    output.write_text(yaml.safe_dump(content))
    return output


@pytest.mark.slow
@pytest.mark.parametrize("name", FORKS)
def test_forks_of_sam2_track_as_their_own_predictors_do(name, tmp_path):
    """Each in an environment with its own module `sam2`: what envs/ adds to the present one."""
    present = {canonical(item.metadata["Name"]) for item in distributions()}
    pinned = pins(name)
    try:
        python = environment(tmp_path / "env", *(f"{k}=={v}" for k, v in pinned.items() if k not in present))
    except OSError as error:
        pytest.skip(f"the packages cannot be fetched: {str(error).splitlines()[-1]}")
    root = tmp_path / "squares"
    write_sequence(root, "gamma", frames=5, late=2)
    config = small_edgetam(python, tmp_path / "edgetam.yaml") if name == "edgetam" else "efficienttam_ti"
    done = subprocess.run(
        [python, "-m", "tests.support.fork_reference", name, str(config), str(SIDE), str(root)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(LIBRARY), str(REPOSITORY / "tools/demo_weights")])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    packages = json.loads(done.stdout.splitlines()[-1])
    assert packages[FORKS[name]] == pinned[FORKS[name]]
