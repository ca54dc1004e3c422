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

MINE, UNDISTURBED = (f"results/finetune/{name}/weights.pth" for name in ("mine", "undisturbed"))


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    yield from start_slurm(tmp_path_factory.mktemp("slurm"))


def study(root: Path, **recipe: object) -> dict:
    """Config of a study with two equal trainings on data in `root`; `recipe` changes the first."""
    cutie = {"tracker": "cutie", "options": {"model": "tiny", "size": 64}}
    start = {"name": "start", **cutie, "weights": {"sources": [{"local": str(root / "start.pth")}]}}
    tuned = {**QUICK, "iterations": 40, "lr_steps": [30], "frames": 2, "crop": 32, "checkpoint_every": 1000}
    tuned |= {"from": "start", "data": ["toy/all"]}
    models = [start, {"name": "mine", **cutie, "finetune": tuned | recipe}]
    models.append({"name": "undisturbed", **cutie, "finetune": tuned})
    config = {"datasets": [{"path": str(root / "held-out")}], "models": models, "inference": {"device": "cpu"}}
    return {**config, "catalog": [str(root / "catalog")]}


def workflow(root: Path, *arguments: str, config: dict | None = None) -> str:
    """Run the workflow on this machine; return what it printed."""
    command = workflow_command(root, config, *arguments)
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def slurm_command(root: Path, config: dict) -> list[str]:
    """The command that trains `mine` as a job of SLURM."""
    command = workflow_command(root, config)
    del command[command.index("--cores") : command.index("--cores") + 2]
    command += ["--profile", str(REPOSITORY / "workflow/profiles/slurm"), "--slurm-status-command", "squeue"]
    command += ["--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1"]
    command += ["--default-resources", "slurm_partition=shared", "slurm_account=none", "mem_mb=1200", "runtime=5"]
    return [*command, "--set-resources", "finetune:mem_mb=6000", "finetune:runtime=20", "--retries", "0", "--", MINE]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which one of the two trainings of a study is finished, and the other could start."""
    torch = pytest.importorskip("torch")
    from vosarena.trackers.cutie_network import build_network, cutie_config

    root = tmp_path_factory.mktemp("trained")
    for number in range(2):
        write_video(root / "toy", f"video-{number}", number)
    write_video(root / "held-out", "video-9", 9)
    torch.manual_seed(5)
    torch.save(build_network(cutie_config("tiny")).state_dict(), root / "start.pth")
    (root / "catalog" / "datasets").mkdir(parents=True)
    (root / "catalog" / "datasets" / "toy.yaml").write_text(yaml.safe_dump({"splits": {"all": {"path": "../../toy"}}}))
    workflow(root, "--quiet", "--", UNDISTURBED, config=study(root))
    return root


def test_resources_follow_the_recipe_and_the_measured_speed(tmp_path: Path) -> None:
    recipe = read_recipe({"gpus": 4, "nodes": 2, "workers": 3, "iterations": 1000})
    job = TrainingJob(recipe, tmp_path, uses_gpus=True)
    assert (job.gpu, job.gres, job.nodes, job.threads, job.memory_mb) == (0, "gpu:4", 2, 20, 64000)
    one_node = TrainingJob(recipe.model_copy(update={"nodes": 1}), tmp_path, uses_gpus=True)
    assert (one_node.gpu, one_node.gres, one_node.nodes) == (4, None, None)
    on_cpus = TrainingJob(recipe, tmp_path, uses_gpus=False)
    assert (on_cpus.gpu, on_cpus.threads, job.minutes()) == (0, 4, 2880)
    assert TrainingJob(recipe, tmp_path, uses_gpus=False, threads_on_cpu=3).threads == 12
    hours, measured = job.hours("gpu")
    # 1000 iterations of 16 clips with 8 frames and 3 objects, three times 0.02 s for each, on 8 GPUs
    assert (hours, measured) == (pytest.approx(1000 * 3 * 16 * 8 * 0.02 * 4 / 8 / 3600), False)
    write_json(tmp_path / "progress.json", {"iteration": 400, "seconds_per_iteration": 6.0, "processes": 4})
    assert job.hours("gpu") == (pytest.approx(0.5), True)
    assert job.minutes() == 20 + 39  # 600 iterations, 6 s with 4 processes, twice as many now, 1.3 times that
    write_json(tmp_path / "progress.json", {"iteration": 1000, "seconds_per_iteration": 6.0, "processes": 4})
    assert job.minutes() == 20
    scored = job.recipe.merged(read_recipe({"validate": {"split": "a/b", "every": 300}}))
    job = TrainingJob(scored.model_copy(update={"iterations": 1000}), tmp_path, uses_gpus=True)
    write_json(tmp_path / "progress.json", {"iteration": 400, "seconds_per_iteration": 6.0, "processes": 8,
                                            "seconds_per_validation": 600})  # fmt: skip
    assert job.hours("gpu") == (pytest.approx(1.5), True)  # three validations are left: at 600, 900 and 1000
    assert job.disk_bytes(10) == 70


def test_a_model_that_was_trained_on_an_evaluated_split_is_refused_before_anything_runs() -> None:
    check_study(load_study({"datasets": ["demo/val"], "models": ["cutie-demo-finetuned"]}), "config")
    tuned = {"name": "mine", "extends": "cutie-demo-finetuned", "finetune": {"data": ["mose/train"]}}
    for split, reason in {"demo/train": "demo/train", "mose/train-local": "mose/train .100% of the videos"}.items():
        model = "cutie-demo-finetuned" if split == "demo/train" else tuned
        with pytest.raises(ConfigError, match=f"{split}, which it is evaluated on, is in {reason}"):
            check_study(load_study({"datasets": [split], "models": [model]}), "config")


@pytest.mark.slow
def test_changed_data_train_again_and_a_finished_training_is_not_repeated(trained: Path) -> None:
    weights, folder = trained / UNDISTURBED, (trained / UNDISTURBED).parent
    first, before = read_json(folder / "training.json"), weights.read_bytes()
    assert len(first["weights"]) == 64 and {"rf-cutie", "torch"} <= first["packages"].keys()
    checkpoint = folder / "checkpoint" / "checkpoint.pth"
    once = checkpoint.stat().st_mtime_ns
    workflow(trained, "--forcerun", "finetune", "--", UNDISTURBED)
    assert weights.read_bytes() == before and checkpoint.stat().st_mtime_ns == once
    assert "finetune" not in workflow(trained, "--dry-run", "--", UNDISTURBED)
    mask = trained / "toy" / "Annotations" / "video-0" / "00001.png"
    shutil.copy2(mask, trained / "mask.png")
    shutil.copyfile(mask.with_name("00003.png"), mask)  # overwritten in place: its folder does not change
    assert "finetune" in workflow(trained, "--dry-run", "--", UNDISTURBED)
    shutil.copy2(trained / "mask.png", mask)


@pytest.mark.slow
def test_a_training_survives_its_time_limit_scancel_and_the_death_of_its_node(slurm: Slurm, trained: Path) -> None:
    """Its weights are those of the undisturbed one, to the bit.

    Two processes get the signal before the time limit, and SLURM queues the same job again, which is then cancelled.
    The next Snakemake continues with one process, whose node dies; SLURM starts it on another one.
    """
    torch = pytest.importorskip("torch")
    folder, log = (trained / MINE).parent, trained / "logs/finetune/mine.log"

    def snakemake(**recipe: object) -> subprocess.Popen[str]:
        log.unlink(missing_ok=True)
        command = slurm_command(trained, study(trained, **recipe))
        environment = {**slurm.environment, "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(
            command, cwd=trained, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def progress() -> dict:
        return read_json(folder / "checkpoint" / "progress.json")

    def job_that_trains(running: subprocess.Popen[str]) -> str:
        wait_for(lambda: running.poll() is not None or (log.exists() and "%|" in log.read_text()), 400)
        assert running.poll() is None, running.communicate()[0]
        (job,) = slurm.jobs()
        return job

    def start_again(job: str) -> None:
        """Start a job that was queued again on the other node."""
        other = {"n3": "n4", "n4": "n3"}[node]
        slurm.hold_when_queued_again(job)
        log.unlink(missing_ok=True)
        slurm.restart(job, other)

    running = snakemake(gpus=2)
    try:
        job = job_that_trains(running)
        node = slurm.asked(job, "%N")
        slurm.run("scancel", "--signal=URG", job)
        first: dict = {}
        wait_for(lambda: first.update(progress()) or first.get("stopped"), 400)
        assert first["stopped"] == 1 and 0 < first["iteration"] < 40 and first["processes"] == 2
        start_again(job)
        assert job_that_trains(running) == job
        slurm.run("scancel", job)
        output, _ = running.communicate(timeout=400)
        assert running.returncode != 0 and not (trained / MINE).exists(), output
        assert first["iteration"] <= progress()["iteration"] < 40
        running = snakemake()
        job = job_that_trains(running)
        second = progress()
        assert second["began"] >= first["iteration"]
        node = slurm.asked(job, "%N")
        slurm.power_off(node)
        start_again(job)
        output, _ = running.communicate(timeout=400)
        slurm.power_on(node)
    finally:
        running.kill()
    assert running.returncode == 0, output
    assert progress()["began"] == second["began"] and progress()["iteration"] == 40
    assert pd.read_parquet(folder / "loss.parquet")["iteration"].tolist() == list(range(1, 41))
    mine, undisturbed = (torch.load(trained / file, weights_only=True) for file in (MINE, UNDISTURBED))
    assert mine.keys() == undisturbed.keys()
    assert all(torch.equal(mine[key], undisturbed[key]) for key in mine)


@pytest.mark.slow
def test_two_nodes_give_the_weights_of_one_process(slurm: Slurm, trained: Path) -> None:
    """One process on each of two nodes, which SLURM starts and torchrun connects."""
    torch = pytest.importorskip("torch")
    shutil.rmtree((trained / MINE).parent, ignore_errors=True)
    command = slurm_command(trained, study(trained, nodes=2))
    idle = ("sinfo", "-h", "--partition", "shared", "--states", "idle", "--format", "%D")
    wait_for(lambda: slurm.run(*idle).strip() == "2", 60)
    done = subprocess.run(command, cwd=trained, env=slurm.environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_json((trained / MINE).parent / "checkpoint" / "progress.json")["processes"] == 2
    mine, undisturbed = (torch.load(trained / file, weights_only=True) for file in (MINE, UNDISTURBED))
    assert all(torch.equal(mine[key], undisturbed[key]) for key in undisturbed)
