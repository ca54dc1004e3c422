"""Scores on a held-out split during a training: those of the workflow, without a trace in the training."""

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import vosarena
from tests.finetuning.test_finetune import QUICK, equal, write_video
from vosarena.base.errors import ConfigError, DataError, TrackerError
from vosarena.base.files import read_json
from vosarena.config.study import load_study
from vosarena.finetuning.recipe import read_recipe
from vosarena.finetuning.task import HeldOut, TrainingTask
from vosarena.orchestration.checks import check_study, overlap_warnings

torch = pytest.importorskip("torch")
pytest.importorskip("cutie.inference.inference_core")

from vosarena.finetuning import tensorboard, validation  # noqa: E402
from vosarena.finetuning.identity import training_identity  # noqa: E402
from vosarena.finetuning.launch import finetune  # noqa: E402
from vosarena.trackers.cutie_network import build_network, cutie_config  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SETTINGS = {"split": "toy/held-out", "every": 2}
OPTIONS = {"model": "tiny", "size": 64, "top_k": 8}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training data, two held-out videos, and weights to start from."""
    root = tmp_path_factory.mktemp("data")
    for number in range(2):
        write_video(root / "train", f"video-{number}", number)
        write_video(root / "held-out", f"video-{number + 8}", number + 8)
    torch.manual_seed(5)
    torch.save(build_network(cutie_config("tiny")).state_dict(), root / "start.pth")
    return root


def task(root: Path, folder: Path, **changes: Any) -> TrainingTask:
    recipe = read_recipe({**QUICK, "iterations": 4, "validate": SETTINGS, **changes})
    held_out = HeldOut(root / "held-out") if recipe.validation else None
    data = {"toy/train": root / "train"}
    return TrainingTask(recipe, data, root / "start.pth", folder / "out.pth", folder / "work", options=OPTIONS,
                        device="cpu", held_out=held_out)  # fmt: skip


def load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def losses(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "work" / "loss.parquet").drop(columns=["seconds", "waiting"])


@pytest.fixture(scope="module")
def plain(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    recipe = read_recipe({**QUICK, "iterations": 4})
    finetune(TrainingTask(recipe, {"toy/train": root / "train"}, root / "start.pth", folder / "out.pth",
                          folder / "work", device="cpu"))  # fmt: skip
    return folder


def test_scores_are_those_of_the_workflow_and_the_training_stays_the_same(
    root: Path, plain: Path, tmp_path: Path
) -> None:
    """An interruption in the middle of a validation changes nothing either."""
    count = 0

    def interrupted(*arguments: Any) -> dict[str, float]:
        nonlocal count
        count += 1
        if count == 2:  # at iteration 2
            os.kill(os.getpid(), signal.SIGTERM)
        return score(*arguments)

    score = validation.score_weights
    with pytest.MonkeyPatch.context() as patch, pytest.raises(TrackerError, match="after iteration 2 of 4; run it"):
        patch.setattr(validation, "score_weights", interrupted)
        finetune(task(root, tmp_path))
    finetune(task(root, tmp_path))
    work = tmp_path / "work"
    assert equal(load(work / "last.pth"), load(plain / "out.pth"))
    pd.testing.assert_frame_equal(losses(tmp_path), losses(plain))
    table = pd.read_parquet(work / "validation.parquet")
    assert table["iteration"].tolist() == [0, 2, 4]
    images, masks = root / "held-out" / "JPEGImages", root / "held-out" / "Annotations"
    for iteration, weights in {0: root / "start.pth", 4: work / "last.pth"}.items():
        predicted = tmp_path / f"masks-{iteration}"
        vosarena.track(images, masks, predicted, tracker="cutie", options=OPTIONS, weights=weights, device="cpu")
        found = vosarena.evaluate(masks, predicted, protocol="davis2017")
        row = table.set_index("iteration").loc[iteration]
        assert (row["j_and_f"], row["j"], row["f"]) == (found.j_and_f, found.j, found.f)
    best = table[table["iteration"] > 0].sort_values("j_and_f", ascending=False, kind="stable").iloc[0]
    used = read_json(work / "training.json")["weights_of"]
    assert used == {"used": "best", "iteration": best["iteration"]}
    assert (tmp_path / "out.pth").read_bytes() == (work / "best.pth").read_bytes()
    assert not (work / "validation").exists()
    assert "best: " in (work / "curves.svg").read_text()
    assert "not validated" in (plain / "work" / "curves.svg").read_text()


def test_patience_ends_a_training_with_its_best_weights(
    root: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([90.0, 40.0, 50.0, 45.0, 50.0])

    def drawn(*_: object) -> dict[str, float]:
        return dict.fromkeys(("j_and_f", "j", "f"), next(scores))

    monkeypatch.setattr(validation, "score_weights", drawn)
    settings = {**SETTINGS, "every": 1, "patience": 2}
    for _ in range(2):  # the second time, everything is there
        finetune(task(root, tmp_path, iterations=9, validate=settings, lr_steps=[9]))
    assert next(scores, None) is None
    work = tmp_path / "work"
    assert losses(tmp_path)["iteration"].tolist() == [1, 2, 3, 4]
    assert read_json(work / "training.json")["weights_of"] == {"used": "best", "iteration": 2}
    assert (tmp_path / "out.pth").read_bytes() == (work / "best.pth").read_bytes()
    assert equal(load(work / "last.pth"), load(plain / "out.pth"))


def test_a_validation_that_fails_is_one_sentence(root: Path, tmp_path: Path) -> None:
    held_out = tmp_path / "held-out"
    shutil.copytree(root / "held-out", held_out)
    (held_out / "JPEGImages" / "video-8" / "00001.png").write_bytes(b"no picture")
    broken = task(tmp_path, tmp_path)
    broken = TrainingTask(**{**vars(broken), "datasets": {"toy/train": root / "train"}, "weights": root / "start.pth"})
    with pytest.raises(TrackerError, match=r"validation failed: 1 of 2 sequences failed .*\n.*video-8"):
        finetune(broken)


def test_the_held_out_split_is_held_out(root: Path, tmp_path: Path) -> None:
    leaking = task(root, tmp_path)
    leaking = TrainingTask(**{**vars(leaking), "held_out": HeldOut(root / "train")})
    with pytest.raises(DataError, match="overlap the held-out sequences: toy/train: video-0 is also in toy/held-out"):
        finetune(leaking)
    with pytest.raises(ConfigError, match="give it with --held-out"):
        finetune(TrainingTask(**{**vars(leaking), "held_out": None}))


def test_a_validation_belongs_to_the_identity(root: Path, tmp_path: Path) -> None:
    def identity(**changes: Any) -> str:
        found: str = training_identity(task(root, tmp_path, **changes))["identity"]
        return found

    first = identity()
    assert first == identity(tensorboard=True, gpus=2)
    found = {first, identity(validate={**SETTINGS, "every": 3}), identity(validate={**SETTINGS, "patience": 3})}
    mask = root / "held-out" / "JPEGImages" / "video-8" / "00002.png"
    before = mask.read_bytes()
    mask.write_bytes(before + b" ")
    assert len({*found, identity()}) == 4
    mask.write_bytes(before)
    assert identity() == first
    again = TrainingTask.from_json(task(root, tmp_path).to_json())
    assert again == task(root, tmp_path)


def study(splits: list[Any], **finetune: Any) -> Any:
    model = {"name": "mine", "extends": "cutie-base-plus-finetuned", "finetune": finetune}
    study = load_study({"datasets": splits, "models": [model]})
    check_study(study, "config")
    return study


@pytest.mark.parametrize("splits, finetune, sentence", [
    (["mose/val-local"], {"data": ["lvos-v2/train"], "validate": {"split": "mose/val-local"}},
     "validate: mose/val-local, which it is evaluated on, is in mose/val-local"),
    (["mose/val-local"], {"data": ["lvos-v2/train"], "validate": {"split": "mose/train"}},
     "validate: mose/val-local, which it is evaluated on, is in mose/train"),
    (["lvos-v2/val"], {"data": ["mose/train"], "validate": {"split": "mose/val-local"}},
     "data: mose/val-local, which it is validated on, is in mose/train"),
    (["lvos-v2/val"], {"validate": {"split": "mose/val"}}, "validate: split: mose/val has no ground truth here"),
    (["lvos-v2/val"], {"validate": {"split": "mose/vall"}}, "'mose' has no split 'vall'"),
    (["lvos-v2/val"], {"validate": {"every": 5}}, "split"),
])  # fmt: skip
def test_wrong_settings_are_one_sentence(splits: list[Any], finetune: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        study(splits, **finetune)


def test_a_split_by_which_weights_were_chosen_counts_as_seen() -> None:
    made = study(["mose/val"], data=["mose/train-local"], validate={"split": "mose/val-local"})
    assert "mose/val-local" in made.trained_on(made.models["mine"])
    assert "mose/val-local" in [str(split) for split in made.every_split()]


def test_some_videos_in_common_are_a_warning() -> None:
    assert overlap_warnings(study(["mose/val"], data=["mose/train"])) == []
    evaluated = {"name": "mine", "splits": {"all": {}}, "overlaps": [{"data": "mose", "share": 0.25, "source": "me"}]}
    (sentence,) = overlap_warnings(study([evaluated, "davis2017/val"], data=["mose/train"]))
    assert sentence == (
        "models: mine: finetune: some videos of mine/all, which it is evaluated on, may be among its training data: "
        "mose/train (25% of the videos, me); its score there is not that of unseen videos"
    )


def test_tensorboard_gets_every_row(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            assert (folder, purge_step) == (str(tmp_path / "work" / "tensorboard"), 1)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            found.append((name, value, step))

        def flush(self) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", type("Module", (), {"SummaryWriter": Writer}))
    monkeypatch.setattr(validation, "score_weights", lambda *_: {"j_and_f": 50.0, "j": 40.0, "f": 60.0})
    finetune(task(root, tmp_path, iterations=2, tensorboard=True))
    assert [step for name, value, step in found if (name, value) == ("validation/f", 60.0)] == [0, 2]
    shown = [value for name, value, _ in found if name == "training/total_loss"]
    assert np.allclose(shown, losses(tmp_path)["total_loss"])


def test_a_missing_tensorboard_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrackerError, match=r"is not installed; run `pip install 'vosarena\[tensorboard\]'`"):
        tensorboard.open_writer(tmp_path, 0)
