"""Trainings as jobs of the workflow: what they ask for, when they are repeated, and how they survive on a cluster."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.conftest import REPOSITORY, wait_for, workflow_command
from tests.finetuning.test_finetune import QUICK, write_video
from tests.support.slurm import Slurm, start_slurm
from vosarena.base.errors import ConfigError
from vosarena.base.files import read_json, write_json
from vosarena.config.study import load_study
from vosarena.finetuning.recipe import read_recipe
from vosarena.orchestration.checks import check_study
from vosarena.orchestration.training import TrainingJob

WEIGHTS = "results/finetune/mine/weights.pth"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    yield from start_slurm(tmp_path_factory.mktemp("slurm"))


def study(root: Path, **recipe: object) -> dict:
    """Config of a study with a small training, on data in `root`."""
    torch = pytest.importorskip("torch")
    from vosarena.trackers.cutie_network import build_network, cutie_config

    for number in range(2):
        write_video(root / "toy", f"video-{number}", number)
    write_video(root / "held-out", "video-9", 9)
    torch.manual_seed(5)
    torch.save(build_network(cutie_config("tiny")).state_dict(), root / "start.pth")
    (root / "catalog" / "datasets").mkdir(parents=True)
    (root / "catalog" / "datasets" / "toy.yaml").write_text(yaml.safe_dump({"splits": {"all": {"path": "../../toy"}}}))
    cutie = {"tracker": "cutie", "options": {"model": "tiny", "size": 64}}
    start = {"name": "start", **cutie, "weights": {"sources": [{"local": str(root / "start.pth")}]}}
    mine = {"name": "mine", **cutie, "finetune": {**QUICK, "from": "start", "data": ["toy/all"], **recipe}}
    config = {"datasets": [{"path": str(root / "held-out")}], "models": [start, mine], "inference": {"device": "cpu"}}
    return {**config, "catalog": [str(root / "catalog")]}


def test_resources_follow_the_recipe_and_the_measured_speed(tmp_path: Path) -> None:
    recipe = read_recipe({"gpus": 4, "nodes": 2, "workers": 3, "iterations": 1000})
    job = TrainingJob(recipe, tmp_path, uses_gpus=True)
    assert (job.gpu, job.gres, job.nodes, job.threads, job.memory_mb) == (0, "gpu:4", 2, 20, 64000)
    one_node = TrainingJob(recipe.model_copy(update={"nodes": 1}), tmp_path, uses_gpus=True)
    assert (one_node.gpu, one_node.gres, one_node.nodes) == (4, None, None)
    assert (TrainingJob(recipe, tmp_path, uses_gpus=False).gpu, job.minutes()) == (0, 2880)
    hours, measured = job.hours("gpu")
    # 1000 iterations of 16 clips with 8 frames and 3 objects, three times 0.02 s for each, on 8 GPUs
    assert (hours, measured) == (pytest.approx(1000 * 3 * 16 * 8 * 0.02 * 4 / 8 / 3600), False)
    write_json(tmp_path / "progress.json", {"iteration": 400, "seconds_per_iteration": 6.0, "processes": 4})
    assert job.hours("gpu") == (pytest.approx(0.5), True)
    assert job.minutes() == 20 + 39  # 600 iterations, 6 s with 4 processes, twice as many now, 1.3 times that
    write_json(tmp_path / "progress.json", {"iteration": 1000, "seconds_per_iteration": 6.0, "processes": 4})
    assert job.minutes() == 20


def test_a_model_that_was_trained_on_an_evaluated_split_is_refused_before_anything_runs() -> None:
    check_study(load_study({"datasets": ["demo/val"], "models": ["cutie-demo-finetuned"]}), "config")
    tuned = {"name": "mine", "extends": "cutie-demo-finetuned", "finetune": {"data": ["mose/train"]}}
    for split, reason in {"demo/train": "demo/train", "mose/train-local": "mose/train .100% of the videos"}.items():
        model = "cutie-demo-finetuned" if split == "demo/train" else tuned
        with pytest.raises(ConfigError, match=f"{split}, which it is evaluated on, is in {reason}"):
            check_study(load_study({"datasets": [split], "models": [model]}), "config")


@pytest.mark.slow
def test_changed_data_train_again_and_a_finished_training_is_not_repeated(snakemake, tmp_path: Path) -> None:
    config = study(tmp_path, iterations=1, lr_steps=[1])
    snakemake("--", WEIGHTS, config=config)
    weights, folder = tmp_path / WEIGHTS, tmp_path / WEIGHTS.rpartition("/")[0]
    first, trained = read_json(folder / "training.json"), weights.read_bytes()
    assert len(first["weights"]) == 64 and {"rf-cutie", "torch"} <= first["packages"].keys()
    once = (folder / "checkpoint" / "checkpoint.pth").stat().st_mtime_ns
    snakemake("--forcerun", "finetune", "--", WEIGHTS, config=None)
    assert weights.read_bytes() == trained
    assert (folder / "checkpoint" / "checkpoint.pth").stat().st_mtime_ns == once
    mask = tmp_path / "toy" / "Annotations" / "video-0" / "00001.png"
    shutil.copyfile(mask.with_name("00003.png"), mask)  # overwritten in place: its folder does not change
    snakemake("--", WEIGHTS, config=config)
    assert read_json(folder / "training.json")["data"] != first["data"]
    assert (folder / "checkpoint" / "checkpoint.pth").stat().st_mtime_ns != once


@pytest.mark.slow
def test_a_training_stops_before_its_time_limit_and_is_queued_again(slurm: Slurm, tmp_path: Path) -> None:
    """Two processes get the signal before the limit; Snakemake waits for the same job, which goes on to the end."""
    config = study(tmp_path, gpus=2, iterations=20, lr_steps=[15], frames=2, crop=32, checkpoint_every=1000)
    inputs = [f"resources/datasets/{split}/all/sequences.parquet" for split in ("toy", "held-out")]
    local = workflow_command(tmp_path, config, "--quiet", "--", *inputs, "resources/weights/start.pth")
    subprocess.run(local, cwd=tmp_path, check=True, capture_output=True)
    command = workflow_command(tmp_path, None)
    del command[command.index("--cores") : command.index("--cores") + 2]
    command += ["--profile", str(REPOSITORY / "workflow/profiles/slurm"), "--slurm-status-command", "squeue"]
    command += ["--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1"]
    command += ["--default-resources", "slurm_partition=gpu", "slurm_account=none", "mem_mb=1200", "runtime=5"]
    command += ["--set-resources", "finetune:mem_mb=6000", "finetune:runtime=20", "--retries", "0", "--", WEIGHTS]
    environment = {**slurm.environment, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    folder = tmp_path / WEIGHTS.rpartition("/")[0]
    log = tmp_path / "logs/finetune/mine.log"

    def progress() -> dict:
        return read_json(folder / "checkpoint" / "progress.json")

    def trains() -> bool:
        return log.exists() and "%|" in log.read_text()

    running = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        wait_for(lambda: trains() or running.poll() is not None, 400)
        (job,) = slurm.jobs()
        assert slurm.asked(job, "%C") == "4"  # two CPUs for each process
        slurm.run("scancel", "--signal=URG", job)
        first: dict = {}
        wait_for(lambda: first.update(progress()) or first.get("stopped"), 400)
        slurm.hold_when_queued_again(job)
        assert first["stopped"] == 1 and 0 < first["iteration"] < 20 and first["processes"] == 2
        slurm.restart(job, "n1")
        output, _ = running.communicate(timeout=400)
    finally:
        running.kill()
    assert running.returncode == 0, output
    assert progress()["began"] == first["iteration"]
    assert pd.read_parquet(folder / "loss.parquet")["iteration"].tolist() == list(range(1, 21))
