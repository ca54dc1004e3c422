"""`vosarena plan`: what a study needs and would run."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from vosarena.config.paths import Paths
from vosarena.config.study import load_study
from vosarena.orchestration.plan import Plan, plan_study


def plan(config: dict, root: Path, **options) -> Plan:
    paths = Paths("s", root / "results", root / "resources")
    return plan_study(load_study(config), paths, **{"gpus": 0, "cores": 2, **options})


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "vosarena", "plan", *arguments]
    return subprocess.run(call, cwd=folder, capture_output=True, text=True)


def test_files_are_here_downloaded_or_fetched_by_hand(tmp_path):
    config = {"datasets": ["mose/val", "mose/test", "demo/val"], "models": ["static", "sam2.1-l", "cutie-demo"]}
    found = {file.name: file for file in plan(config, tmp_path).files}
    assert {name: file.how for name, file in found.items()} == {
        "mose/valid.tar.gz": "download",
        "mose/test.tar.gz": "by hand",
        "weights of sam2.1-l": "download",
        "weights of cutie-demo": "here",
    }
    assert found["mose/valid.tar.gz"].size == 3_610_000_000 and found["weights of sam2.1-l"].size == 898_000_000
    by_hand = found["mose/test.tar.gz"]
    assert by_hand.place == tmp_path / "resources/archives/mose/test.tar.gz" and "CC BY-NC-SA" in by_hand.licence
    by_hand.place.parent.mkdir(parents=True)
    by_hand.place.touch()
    assert not plan(config, tmp_path).by_hand


def test_weights_behind_a_licence_are_fetched_by_hand(tmp_path, monkeypatch):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "none"))
    (file,) = plan({"datasets": ["demo/val"], "models": ["sam3"]}, tmp_path).by_hand
    assert (file.name, file.licence) == ("weights of sam3", "SAM License")
    assert file.origin == "https://huggingface.co/facebook/sam3"
    assert file.source_file == "config.json and model.safetensors"
    (tmp_path / "s.yaml").write_text("datasets: [demo/val]\nmodels: [sam3]\n")
    run = [sys.executable, "-m", "vosarena", "run", "s.yaml", "--dry-run"]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "models: sam3: its weights (SAM License) need permission" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_command_says_what_a_person_must_do(tmp_path):
    (tmp_path / "s.yaml").write_text("datasets: [mose/test]\nmodels: [static]\n")
    done = command(tmp_path, "s.yaml")
    assert done.returncode == 1 and not done.stderr
    lines = " ".join(done.stdout.split())
    assert (
        "Fetch by hand: open https://henghuiding.github.io/MOSE/, save test.tar.gz as "
        "resources/archives/mose/test.tar.gz. Licence: CC BY-NC-SA 4.0, non-commercial research only."
    ) in lines
    assert "1 file of unknown size" in lines
    assert command(tmp_path, "none.yaml").stderr == "error: none.yaml: no such file; give the config of a study\n"
    (tmp_path / "s.yaml").write_text("datasets: [mose/tset]\nmodels: [static]\n")
    assert command(tmp_path, "s.yaml").stderr.startswith("error: s.yaml, line 1: datasets.0: ")


def test_what_earlier_runs_provide(dataset, tmp_path, snakemake):
    config = {"datasets": [{"path": str(dataset)}], "models": ["static", "flow"]}
    (before,) = {run.sequences for run in plan(config, tmp_path).runs}
    assert before is None
    snakemake("results/metrics/squares/all/static.parquet", config={**config, "models": ["static"]})
    static, flow = plan(config, tmp_path).runs
    assert (static.sequences, static.finished, static.jobs, static.hours) == (3, 3, 0, 0.0)
    assert (flow.sequences, flow.finished, flow.jobs, flow.assumed, flow.measured) == (3, 0, 1, False, False)
    (tmp_path / "results/predictions/squares/all/static/beta.json").unlink()
    static, _ = plan(config, tmp_path).runs
    assert (static.finished, static.jobs, static.measured) == (2, 1, True) and 0 < static.hours < 0.01
    done = command(tmp_path, "config.yaml")
    assert done.returncode == 0 and "\n1 tracking job, " in done.stdout and "measured" in done.stdout


def test_gpus_and_clusters(tmp_path):
    config = {"datasets": ["mose/val"], "models": ["static", "sam2.1-l"]}
    kinds = [[run.kind for run in plan(config, tmp_path, **given).runs] for given in ({}, {"gpus": 1})]
    assert kinds == [["baseline", "cpu"], ["baseline", "gpu"]]
    here = plan(config, tmp_path, gpus=2, cores=8).runs[1]
    cluster = plan(config, tmp_path, cluster=True).runs[1]
    assert (
        (here.jobs, cluster.kind) == (2, "gpu") and cluster.jobs == 4 and here.hours < cluster.hours < 1.1 * here.hours
    )


EXPERIMENTS = sorted(path.name for path in (REPOSITORY / "experiments").glob("*.yaml"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_can_be_planned(name, tmp_path):
    done = command(tmp_path, str(REPOSITORY / "experiments" / name), "--slurm")
    assert done.returncode in (0, 1) and "of disk space" in done.stdout
    warnings = done.stderr.splitlines()  # what the paper trained on may overlap the splits that it is evaluated on
    assert all(line.startswith("warning: models: ") and "may be" in line for line in warnings)
    assert bool(warnings) == (name == "lsvos2024.yaml")
    assert (done.returncode == 1) == ("Fetch by hand: " in done.stdout)
