"""Fine-tuning of SAM 2: prompts, losses and learning rates of the official recipe; the result loads in upstream."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.finetuning.test_finetune import write_video
from vosarena.base.errors import ConfigError
from vosarena.config.model_schema import Sam2Recipe
from vosarena.config.study import load_catalog
from vosarena.finetuning.recipe import read_recipe

torch = pytest.importorskip("torch")
transforms = pytest.importorskip("torchvision.transforms")
pytest.importorskip("sam2.modeling.sam2_base")

from vosarena.finetuning import sam2 as method  # noqa: E402
from vosarena.finetuning.sam2_samples import ClipSamples  # noqa: E402
from vosarena.trackers.sam2_network import instantiate_network, load_weights  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")
QUICK = {"iterations": 3, "batch": 2, "frames": 3, "workers": 0, "checkpoint_every": 1, "learning_rate": 1e-4,
         "sam2": {"clicks": 2}}  # fmt: skip


@pytest.fixture(scope="module")
def start() -> Path:
    (source,) = load_catalog().model("sam2-demo").weights.sources
    return Path(source.local)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    for number in range(2):
        write_video(root, f"video-{number}", number)
    return root


def train(folder: Path, data: Path, start: Path, **changes: object) -> dict:
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**QUICK, **changes}))
    arguments = ["--tracker", "sam2", "--option", "config=sam2_demo", "--option", "image_size=64", "--device", "cpu"]
    arguments += ["--recipe", folder / "recipe.yaml", "--data", f"toy/train={data}", "--weights", start]
    arguments += ["--output", folder / "out.pth", "--work", folder / "work", "--held-out", folder / "held-out"]
    write_video(folder / "held-out", "video-9", 9)
    call = [sys.executable, "-m", "vosarena", "finetune", *map(str, arguments)]
    done = subprocess.run(call, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "out.pth", weights_only=True)


def test_a_training_changes_all_parts_and_loads_in_upstream(data: Path, start: Path, tmp_path: Path) -> None:
    whole = train(tmp_path, data, start, validate={"split": "toy/held-out", "every": 3})
    scores = pd.read_parquet(tmp_path / "work" / "validation.parquet")
    assert scores["iteration"].tolist() == [0, 3] and (scores["j_and_f"] > 0).all()
    losses = pd.read_parquet(tmp_path / "work" / "loss.parquet")
    weighed = 20 * losses["loss_mask"] + losses["loss_dice"] + losses["loss_iou"] + losses["loss_class"]
    assert np.allclose(weighed, losses["total_loss"], rtol=1e-5)
    assert list(whole) == ["model"]
    before = torch.load(start, weights_only=True)["model"]
    changed = {key.partition(".")[0] for key, value in whole["model"].items() if not torch.equal(value, before[key])}
    parts = {"image_encoder", "memory_attention", "memory_encoder", "sam_mask_decoder", "obj_ptr_proj", "no_obj_ptr"}
    assert parts <= changed
    network = instantiate_network("sam2_demo")
    load_weights(network, tmp_path / "out.pth")


def test_images_are_normalised_as_in_the_package() -> None:
    images = torch.randint(0, 256, (2, 3, 8, 8, 3), dtype=torch.uint8)
    wanted = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))(
        images.movedim(-1, 2).flatten(0, 1) / 255
    )
    torch.testing.assert_close(method._normalised(images), wanted)


def test_losses_equal_the_definitions() -> None:
    """By hand: p = 1/2 everywhere, and a mask that covers half of the image."""
    logits, truth = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    truth[..., :2] = 1
    logits[:, 1] = torch.where(truth[:, 1] > 0, 20.0, -20.0)
    focal, dice, error = method.mask_losses(logits, truth, torch.tensor([[0.5, 0.25]]))
    half = np.log(2) / 4  # (1 - p)^2 times the cross-entropy, times 1/4 or 3/4
    assert focal[0, 0].item() == pytest.approx(half * (0.25 + 0.75) / 2)
    assert dice[0, 0].item() == pytest.approx(1 - (8 + 1) / (8 + 8 + 1))
    assert error[0].tolist() == pytest.approx([0.5, 0.75])  # nothing is above zero, and all of it is right
    assert focal[0, 1].item() == pytest.approx(0, abs=1e-6) and dice[0, 1].item() == pytest.approx(0, abs=1e-6)
    outputs = [[(logits, torch.tensor([[0.5, 0.25]]), torch.tensor([[3.0]]))]]
    found = method.clip_losses(outputs, truth[:, :1].bool().unsqueeze(0), Sam2Recipe())
    assert found["loss_mask"].item() == pytest.approx(0, abs=1e-6)  # of the better mask
    assert found["loss_iou"].item() == pytest.approx(0.625)  # of both
    assert found["loss_class"].item() == pytest.approx(np.log1p(np.exp(-3)))
    absent = method.clip_losses(outputs, torch.zeros(1, 1, 1, 4, 4, dtype=torch.bool), Sam2Recipe())
    assert absent["loss_mask"] == absent["loss_dice"] == absent["loss_iou"] == 0
    assert absent["loss_class"].item() == pytest.approx(3 + np.log1p(np.exp(-3)))


def test_learning_rates_fall_towards_the_image() -> None:
    network, recipe = instantiate_network("sam2_demo"), read_recipe({}, tracker="sam2")
    groups = method.parameter_groups(network, recipe)
    of = {id(value): (group["lr"], group["weight_decay"]) for group in groups for value in group["params"]}
    assert len(of) == len(list(network.parameters()))

    def found(name: str) -> tuple[float, float]:
        return of[id(network.get_parameter(name))]

    vision = 5e-6 * 0.6  # 3e-6 in the official recipe
    trunk = "image_encoder.trunk"
    assert found("memory_encoder.out_proj.weight" if hasattr(network.memory_encoder.out_proj, "weight") else
                 "memory_encoder.pix_feat_proj.weight") == (5e-6, 0.1)  # fmt: skip
    assert found("image_encoder.neck.convs.0.conv.weight") == pytest.approx((vision, 0.1))
    assert found(f"{trunk}.blocks.5.attn.qkv.weight") == pytest.approx((vision * 0.9, 0.1))
    assert found(f"{trunk}.blocks.0.attn.qkv.weight") == pytest.approx((vision * 0.9**6, 0.1))
    assert found(f"{trunk}.patch_embed.proj.weight") == pytest.approx((vision * 0.9**7, 0.1))
    assert found(f"{trunk}.patch_embed.proj.bias") == pytest.approx((vision * 0.9**7, 0.0))
    assert found(f"{trunk}.blocks.0.norm1.weight") == pytest.approx((vision * 0.9**6, 0.0))
    assert found(f"{trunk}.pos_embed") == pytest.approx((vision, 0.1))


def test_prompts_are_mixed_as_in_the_recipe(data: Path) -> None:
    import random

    random.seed(1)
    plans = [method._PromptPlan(Sam2Recipe(), 8) for _ in range(2000)]
    assert all(plan.prompted[0] == 0 and len(set(plan.prompted)) == len(plan.prompted) <= 2 for plan in plans)
    share = np.mean([plan.points for plan in plans])
    assert abs(share - 0.5) < 0.05
    assert abs(np.mean([len(plan.prompted) == 2 for plan in plans]) - 0.5) < 0.05
    assert all(not plan.corrected for plan in plans if not plan.points)
    assert all(set(plan.prompted) <= set(plan.corrected) and len(plan.corrected) <= 2 for plan in plans if plan.points)
    assert {len(plan.corrected) for plan in plans} == {0, 1, 2}
    masks = torch.zeros(2, 1, 64, 64, dtype=torch.bool)
    masks[:, :, 10:40, 20:50] = True
    prompts = [plans[0].prompt(masks) for _ in range(100)]
    boxes = [prompt for prompt in prompts if prompt["point_labels"][0].tolist() == [2, 3]]
    clicks = [prompt for prompt in prompts if prompt["point_labels"].shape == (2, 1)]
    assert len(boxes) + len(clicks) == 100 and 30 < len(boxes) < 70
    for prompt in clicks:
        x, y = prompt["point_coords"][0, 0].long().tolist()
        assert masks[0, 0, y, x]


def test_samples_depend_on_their_number_only(data: Path) -> None:
    recipe = read_recipe(QUICK, tracker="sam2")
    samples = ClipSamples({"toy/train": data}, recipe, 64)
    first, other = samples[3], samples[4]
    again = samples[3]
    assert torch.equal(first["images"], again["images"]) and torch.equal(first["masks"], again["masks"])
    assert first["images"].shape == (3, 64, 64, 3) and first["masks"].dtype == torch.bool
    assert first["masks"][0].flatten(1).any(1).all()  # every object is in the first frame
    assert {samples[number]["name"] for number in range(2)} == {"video-0", "video-1"}  # an epoch has every video once
    batch = samples.collate([first, other])
    assert batch["images"].shape == (2, 3, 64, 64, 3)
    assert batch["clip"].tolist() == [0] * first["masks"].shape[1] + [1] * other["masks"].shape[1]


@pytest.mark.parametrize("recipe, tracker, sentence", [
    ({"crop": 128}, "sam2", "'crop' is for the tracker cutie, not for sam2"),
    ({"sam2": {"clicks": 3}}, "cutie", "'sam2' is for the tracker sam2, not for cutie"),
    ({}, "transformers", "'transformers' cannot be trained"),
    ({"sam2": {"click": 3}}, "sam2", "unknown key 'click'"),
])  # fmt: skip
def test_keys_of_another_tracker_are_refused(recipe: dict, tracker: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read_recipe(recipe, tracker=tracker)
