"""Fine-tuning of Cutie: resumable to the bit, the same however the batch is divided, and never on evaluated data."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import psutil
import pytest
import yaml

from tests.conftest import wait_for
from vosarena.base.errors import ConfigError, DataError, TrackerError
from vosarena.base.files import read_json
from vosarena.cli import main
from vosarena.config.catalogs import Split
from vosarena.datasets.table import index_split
from vosarena.demo.clips import make_clip
from vosarena.finetuning.curves import write_curves
from vosarena.finetuning.leakage import check_leakage
from vosarena.finetuning.recipe import read_recipe, samples_per_pass, skip_at
from vosarena.finetuning.task import TrainingTask
from vosarena.io.masks import write_mask

torch = pytest.importorskip("torch")
pytest.importorskip("cutie.inference.inference_core")

from vosarena.finetuning.cutie import training_settings  # noqa: E402
from vosarena.finetuning.cutie_samples import CutieSamples  # noqa: E402
from vosarena.finetuning.identity import training_identity  # noqa: E402
from vosarena.finetuning.launch import _run_processes, finetune  # noqa: E402
from vosarena.finetuning.train import _Run  # noqa: E402
from vosarena.trackers.cutie import Cutie  # noqa: E402
from vosarena.trackers.cutie_network import build_network, cutie_config, package_folder  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

QUICK = {
    "model": "tiny",
    "iterations": 6,
    "batch": 2,
    "micro_batch": 1,
    "frames": 3,
    "crop": 64,
    "points": 256,
    "max_skip": [2],
    "max_skip_from": [0.0],
    "lr_steps": [4],
    "checkpoint_every": 2,
    "workers": 0,
    "amp": False,
}


def write_video(root: Path, name: str, seed: int, frames: int = 5) -> None:
    clip = make_clip(seed, frames=frames, size=(64, 96), objects=2)
    for kind in ("JPEGImages", "Annotations"):
        (root / kind / name).mkdir(parents=True)
    for index in range(frames):
        cv2.imwrite(str(root / "JPEGImages" / name / f"{index:05d}.png"), clip.frames[index][..., ::-1])
        write_mask(root / "Annotations" / name / f"{index:05d}.png", clip.masks[index])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("train")
    for number in range(3):
        write_video(root, f"video-{number}", number)
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "start.pth"
    torch.save(build_network(cutie_config("tiny")).state_dict(), path)
    return path


def command(folder: Path, data: Path, weights: Path, recipe: dict, extra: Sequence[object] = ()) -> list[str]:
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    arguments = ["--recipe", folder / "recipe.yaml", "--data", f"toy/train={data}", "--weights", weights]
    arguments += ["--output", folder / "out.pth", "--work", folder / "work", "--device", "cpu"]
    return [sys.executable, "-m", "vosarena", "finetune", *map(str, [*arguments, *extra])]


def run(folder: Path, data: Path, weights: Path, extra: Sequence[object] = (), **changes: object) -> dict:
    """Fine-tune in a process of its own, as a job does: other tests leave torch in other states."""
    call = command(folder, data, weights, {**QUICK, **changes}, extra)
    done = subprocess.run(call, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "out.pth", weights_only=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, data: Path, weights: Path) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, run(folder, data, weights)


def task(folder: Path, data: Path, weights: Path, **more: object) -> TrainingTask:
    return TrainingTask(
        read_recipe(QUICK), {"toy/train": data}, weights, folder / "out.pth", folder / "work", device="cpu", **more
    )


def equal(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_weights_change_and_fit_the_tracker(undisturbed: tuple[Path, dict], weights: Path) -> None:
    folder, state = undisturbed
    assert not equal(state, torch.load(weights, weights_only=True))
    Cutie(str(folder / "out.pth"), model="tiny")


def test_loss_log_and_figure(undisturbed: tuple[Path, dict]) -> None:
    log = pd.read_parquet(undisturbed[0] / "work" / "loss.parquet")
    assert log["iteration"].tolist() == [1, 2, 3, 4, 5, 6]
    assert np.allclose(log["learning_rate"], [1e-4] * 4 + [1e-5] * 2)
    assert np.isfinite(log["total_loss"]).all() and (log["waiting"] < log["seconds"]).all()
    parts = [name for name in log if name.startswith(("loss_", "aux_"))]
    assert np.allclose(log[parts].sum(axis=1), log["total_loss"], rtol=1e-5)
    figure = undisturbed[0] / "work" / "curves.svg"
    assert "mean over 1 steps" in figure.read_text()
    write_curves(undisturbed[0] / "work", figure.with_name("again.svg"))
    assert figure.with_name("again.svg").read_bytes() == figure.read_bytes()


def test_a_killed_run_goes_on_to_the_same_bits_also_with_readers_and_cache(
    undisturbed: tuple[Path, dict], data: Path, weights: Path, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        command(tmp_path, data, weights, QUICK),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    checkpoint = tmp_path / "work" / "checkpoint.pth"
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (tmp_path / "out.pth").exists()
    done = torch.load(checkpoint, weights_only=True)["iteration"]
    assert 0 < done < QUICK["iterations"]
    state = run(tmp_path, data, weights, workers=2, cache_gb=0.0002)
    assert equal(state, undisturbed[1])
    assert len(pd.read_parquet(tmp_path / "work" / "loss.parquet")) == QUICK["iterations"]


@pytest.mark.slow
def test_a_killed_process_ends_all_and_one_process_goes_on(
    undisturbed: tuple[Path, dict], data: Path, weights: Path, tmp_path: Path
) -> None:
    """Two processes train as one does, and one process finishes what they began: to the same bits.

    Nor does it matter that the first of the two scores the weights while the other waits.
    """
    write_video(tmp_path / "held-out", "video-9", 9)
    scored = {"validate": {"split": "toy/held-out", "every": 1}, "checkpoint_every": 1}
    extra = ["--held-out", tmp_path / "held-out", "--option", "size=64", "--option", "top_k=8"]
    call, log = command(tmp_path / "two", data, weights, {**QUICK, "gpus": 2, **scored}, extra), tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            call, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=file, stderr=subprocess.STDOUT
        )
    work = tmp_path / "two" / "work"
    wait_for(lambda: process.poll() is not None or len(read_json(work / "validation.json").get("scores", ())) > 1, 200)
    assert process.poll() is None, log.read_text()
    ranks = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "vosarena.finetuning.launch" in child.cmdline() and "torch.distributed.run" not in child.cmdline()
    ]
    assert len(ranks) == 2
    ranks[1].kill()
    assert process.wait(120) == 1 and not (tmp_path / "two" / "out.pth").exists()
    assert "a training process was killed or failed" in log.read_text()
    assert not any(rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE for rank in ranks)
    assert 0 < torch.load(work / "checkpoint.pth", weights_only=True)["iteration"] < QUICK["iterations"]
    run(tmp_path / "two", data, weights, extra, **scored)
    assert equal(torch.load(work / "last.pth", weights_only=True), undisturbed[1])
    assert pd.read_parquet(work / "loss.parquet")["iteration"].tolist() == [1, 2, 3, 4, 5, 6]
    assert pd.read_parquet(work / "validation.parquet")["iteration"].tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_divergence_stops_and_keeps_the_last_checkpoint(
    undisturbed: tuple[Path, dict], data: Path, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    shutil.copyfile(undisturbed[0] / "work" / "checkpoint.pth", tmp_path / "work" / "checkpoint.pth")
    before = (tmp_path / "work" / "checkpoint.pth").read_bytes()
    state = torch.load(weights, weights_only=True)
    state["pix_feat_proj.weight"][0] = float("nan")
    torch.save(state, tmp_path / "broken.pth")
    with pytest.raises(TrackerError, match=r"nan.* at iteration 1; .* is kept"):
        finetune(task(tmp_path, data, tmp_path / "broken.pth"))
    assert (tmp_path / "work" / "checkpoint.pth").read_bytes() == before


def test_recipe_defaults_are_the_papers_and_cuties() -> None:
    recipe = read_recipe({})
    paper = (recipe.iterations, recipe.batch, recipe.learning_rate, recipe.weight_decay, recipe.lr_steps)
    assert paper == (20_000, 16, 1e-4, 1e-3, (15_000,))
    upstream = yaml.safe_load((package_folder() / "config" / "train_config.yaml").read_text())["main_training"]
    stage = training_settings(recipe, upstream["amp"])
    for key in stage:
        assert stage[key] == (float(upstream[key]) if key == "learning_rate" else upstream[key]), key
    assert (recipe.amp, recipe.crop, recipe.lr_gamma) == (True, upstream["crop_size"][0], upstream["lr_schedule_gamma"])
    assert list(recipe.max_skip) == upstream["max_skip_schedule"]
    assert list(recipe.max_skip_from) == upstream["max_skip_schedule_fraction"]
    assert (recipe.merge_probability, recipe.clip_grad_norm) == (
        upstream["merge_probability"],
        upstream["clip_grad_norm"],
    )
    assert [skip_at(recipe, iteration) for iteration in (0, 1999, 2000, 6000, 16000)] == [5, 5, 10, 15, 5]


def test_passes_stay_those_with_which_a_training_began() -> None:
    recipe = read_recipe({"batch": 8})
    assert samples_per_pass(recipe, 4) == 2
    assert [samples_per_pass(recipe, processes, earlier=2) for processes in (1, 2, 4)] == [2, 2, 2]
    assert samples_per_pass(recipe, 8, earlier=2) == 1  # does not fit any more
    assert samples_per_pass(read_recipe({"batch": 8, "micro_batch": 1}), 2, earlier=2) == 1


def test_wrong_recipes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(ConfigError, match="unknown key 'iteration'"):
        read_recipe({"iteration": 5})
    with pytest.raises(ConfigError, match="one entry each"):
        read_recipe({"max_skip": [3]})
    with pytest.raises(ConfigError, match="batch of 16"):
        samples_per_pass(read_recipe({"micro_batch": 5}), 2)
    assert samples_per_pass(read_recipe({"micro_batch": 4}), 2) == 4
    with pytest.raises(TrackerError, match="2 nodes need a job of SLURM"):
        _run_processes(TrainingTask(read_recipe({"nodes": 2}), {}, tmp_path, tmp_path, tmp_path))
    assert samples_per_pass(read_recipe({}), 4) == 4


def test_leakage_by_name_within_a_dataset_and_by_frame_across_datasets(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_video(other, "video-1", 77)
    check_leakage({"a/train": data}, {"b/val": other})  # one name in two datasets is no leak
    with pytest.raises(DataError, match="a/train: video-1 is also in a/val"):
        check_leakage({"a/train": data}, {"a/val": other})
    source = data / "JPEGImages" / "video-2" / "00003.png"
    shutil.copyfile(source, other / "JPEGImages" / "video-1" / "00017.png")
    with pytest.raises(DataError, match="a/train: video-2 shares a frame with b/val: video-1"):
        check_leakage({"a/train": data}, {"b/val": other})
    renamed = tmp_path / "renamed" / "JPEGImages" / "surfer"
    renamed.mkdir(parents=True)
    for number, path in enumerate(sorted((data / "JPEGImages" / "video-0").iterdir())):
        shutil.copyfile(path, renamed / f"{100 + number}.png")
    with pytest.raises(DataError, match="evaluated sequences: a/train: video-0 shares a frame with c/val: surfer;"):
        check_leakage({"a/train": data}, {"c/val": tmp_path / "renamed"})


def test_only_selected_sequences_are_trained_on_and_compared(data: Path, weights: Path, tmp_path: Path) -> None:
    root = tmp_path / "some"
    shutil.copytree(data, root)
    whole = len(CutieSamples({"toy/train": root}, read_recipe(QUICK)).places)
    first = training_identity(task(tmp_path, root, weights))["identity"]
    index_split(root, root / "sequences.parquet", Split(dataset="toy", name="train", exclude=("video-1",)))
    assert len(CutieSamples({"toy/train": root}, read_recipe(QUICK)).places) == whole * 2 // 3
    assert training_identity(task(tmp_path, root, weights))["identity"] != first
    other = tmp_path / "other"
    shutil.copytree(data / "JPEGImages" / "video-1", other / "JPEGImages" / "video-1")
    check_leakage({"toy/train": root}, {"toy/val": other})


def test_a_leaking_run_does_not_start(data: Path, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="overlap the evaluated sequences"):
        finetune(task(tmp_path, data, weights, evaluated={"toy/val": data}))
    assert not (tmp_path / "work").exists()


def test_other_data_start_or_recipe_are_another_training(data: Path, weights: Path, tmp_path: Path) -> None:
    def identity(folder: Path, start: Path = weights, **changes: object) -> str:
        recipe = read_recipe({**QUICK, **changes})
        return training_identity(TrainingTask(recipe, {"toy/train": folder}, start, tmp_path, tmp_path))["identity"]

    first, copy = identity(data), tmp_path / "copy"
    shutil.copytree(data, copy)
    assert identity(copy) == first
    assert identity(data, gpus=2, nodes=3, micro_batch=1, workers=9, cache_gb=1, checkpoint_every=1) == first
    assert identity(data, data=["toy/train"]) == first
    others = {first, identity(data, learning_rate=1.0)}
    others.add(identity(data, data=[{"split": "toy/train", "weight": 2}]))
    for kind in ("JPEGImages", "Annotations"):
        shutil.copyfile(copy / kind / "video-1" / "00002.png", copy / kind / "video-1" / "00001.png")
        others.add(identity(copy))
    (tmp_path / "start.pth").write_bytes(weights.read_bytes() + b" ")
    others.add(identity(data, tmp_path / "start.pth"))
    assert len(others) == 6


@pytest.mark.parametrize("damage", [b"", b"hello", b"PK\x03\x04", b"\0" * 5000, "cut", "flip", "list"])
def test_a_damaged_checkpoint_is_named_and_training_starts_anew(
    undisturbed: tuple[Path, dict], tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes | str
) -> None:
    whole = (undisturbed[0] / "work" / "checkpoint.pth").read_bytes()
    run = object.__new__(_Run)
    run.checkpoint, run.identity = tmp_path / "checkpoint.pth", {"identity": "mine"}
    if damage == "list":
        torch.save([1, 2], run.checkpoint)
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        run.checkpoint.write_bytes(
            damage if isinstance(damage, bytes) else {"cut": whole[:-999], "flip": flipped}[damage]
        )
    assert run._resume() == 0
    assert str(run.checkpoint) in caplog.text and "starting anew" in caplog.text
    assert ("is damaged" in caplog.text) == (damage != "list")


@pytest.mark.parametrize("change, sentence", [
    ({"--recipe": "nowhere.yaml"}, "nowhere.yaml: cannot be read"),
    ({"--weights": "nowhere.pth"}, "no such file: nowhere.pth"),
    ({"--data": "a/b=nowhere"}, "no such folder: nowhere"),
])  # fmt: skip
def test_files_that_are_not_there_are_one_sentence(data, weights, tmp_path, capsys, change, sentence) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(QUICK))
    arguments = {"--recipe": tmp_path / "recipe.yaml", "--data": f"toy/train={data}", "--weights": weights}
    arguments |= {"--output": tmp_path / "o.pth", "--work": tmp_path / "work"} | change
    assert main(["finetune", *(str(word) for pair in arguments.items() for word in pair)]) == 1
    assert sentence in capsys.readouterr().err
