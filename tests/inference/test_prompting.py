"""Boxes and clicks that stand in for first masks, by SAM 2's own rule, and studies that compare them."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage

from tests.support import sam2_upstream as upstream
from tests.support.records import task_of
from vosarena.base.errors import ConfigError
from vosarena.config.catalogs import BUILT_IN
from vosarena.config.study import load_study
from vosarena.demo.clips import make_clip
from vosarena.inference.job import Job, ShardTask
from vosarena.inference.prompting import box_of, derived_prompts, next_click
from vosarena.inference.run import track_sequences
from vosarena.io.frames import read_frame
from vosarena.io.masks import read_mask
from vosarena.orchestration.checks import check_study
from vosarena.predictions.store import Store
from vosarena.trackers.prompts import Click
from vosarena.trackers.sam2 import Sam2


def blob(seed, level=0.0, size=(48, 64)):
    noise = np.random.default_rng(seed).normal(size=size)
    return ndimage.gaussian_filter(noise, 4) > level


@pytest.mark.parametrize("seed", range(12))
def test_clicks_and_boxes_are_those_of_sam2(seed):
    from sam2.modeling.sam2_utils import mask_to_box, sample_one_point_from_error_center

    mask, predicted = (
        blob(seed, 0.05),
        (np.zeros((48, 64), bool), blob(seed, -0.02), blob(seed + 100), ~blob(seed))[seed % 4],
    )
    tensors = [torch.from_numpy(item)[None, None] for item in (mask, predicted)]
    points, labels = sample_one_point_from_error_center(*tensors)
    assert next_click(mask, predicted) == Click(*points[0, 0].tolist(), bool(labels[0, 0]))
    assert list(box_of(mask)) == mask_to_box(tensors[0])[0, 0].tolist()


def test_a_mask_without_errors_gives_what_sam2_gives():
    mask = blob(1)
    assert next_click(mask, mask) == Click(0, 0, inside=False)


@pytest.mark.usefixtures("one_torch_thread")
def test_five_clicks_are_those_of_somebody_who_looks_at_upstreams_masks(tmp_path):
    from sam2.modeling.sam2_utils import sample_one_point_from_error_center

    clip = make_clip(4, frames=4, size=(96, 160), objects=2)
    weights = upstream.random_weights("sam2_demo", tmp_path / "random.pth", 5, 96)
    folder = tmp_path / "video"
    upstream.write_video(folder, clip.frames, quality=100)
    predictor = upstream.build("sam2_demo", weights, 96)
    frames = [read_frame(path) for path in sorted(folder.iterdir())]
    found = derived_prompts(Sam2("sam2_demo", str(weights), 96), frames, {2: clip.masks[2]}, "5-click")
    for number, prompts in found[2].items():
        state = upstream._load(predictor, folder)
        mask, predicted = torch.from_numpy(clip.masks[2] == number)[None, None], None
        for place, prompt in enumerate(prompts):
            points, labels = sample_one_point_from_error_center(mask, predicted)
            assert prompt.clicks == (Click(*points[0, 0].tolist(), bool(labels[0, 0])),)
            _, _, logits = predictor.add_new_points_or_box(
                state, 2, number, points=points[0], labels=labels[0], clear_old_points=place == 0
            )
            predicted = logits > 0
        assert len({prompt.clicks for prompt in prompts}) > 2
    assert set(found[2]) == {1, 2}


CORNERS = """
import numpy as np


class Corners:
    packages = ()
    prompt_kinds = ("mask", "box")

    def __init__(self, device="cpu", precision="auto"):
        pass

    def track(self, frames, prompts):
        labels = np.zeros(frames[0].shape[:2], np.uint8)
        for number, (prompt,) in prompts[0].items():
            x0, y0, x1, y1 = map(int, prompt.box)
            labels[y0 : y1 + 1, x0 : x1 + 1] = number
        for frame in frames:
            yield labels
"""


def test_a_study_compares_mask_box_and_clicks(dataset, tmp_path, snakemake):
    """As rows of one board. The demo's network never saw a click."""
    (tmp_path / "corners.py").write_text(CORNERS)
    models = [
        "sam2-demo",
        {"name": "clicks", "extends": "sam2-demo", "prompts": "3-click"},
        {"name": "box", "tracker": "corners.py:Corners", "prompts": "box"},
    ]
    datasets = [{"path": "squares", "select": ["alpha"]}]
    config = {"study": "prompts", "datasets": datasets, "models": models, "protocols": ["vos-benchmark"]}
    snakemake("leaderboard", config=config)
    board = pd.read_csv(tmp_path / "results/studies/prompts/leaderboard/leaderboard.csv").set_index("model")
    assert set(board.index) == {"sam2-demo", "clicks", "box"}
    assert (board.status == "complete").all()
    assert board.j_and_f["sam2-demo"] > board.j_and_f["clicks"]
    store = tmp_path / "results/predictions/squares/all"
    first = read_mask(dataset / "Annotations/alpha/00000.png")  # squares, which are their boxes
    np.testing.assert_array_equal(read_mask(store / "box/alpha/00000.png"), first)
    assert json.loads((store / "box/alpha.json").read_text())["identity"]["prompts"] == "box"


@pytest.mark.usefixtures("one_torch_thread")
def test_manifests_say_what_a_model_got(dataset, tmp_path):
    """A key of the dataset and one of the model give the same masks; the prompts are part of the fingerprint."""
    model = {"name": "own", "extends": "sam2-demo", "prompts": "3-click"}
    datasets = [{"path": str(dataset)}, {"name": "clicks", "path": str(dataset), "prompts": "3-click"}]
    study = load_study({"datasets": datasets, "models": ["sam2-demo", model]})

    def manifest(split, model):
        definition = study.models[model].definition(study.splits[split])
        store = Store(tmp_path / split / model)
        weights = BUILT_IN / "weights" / "sam2-demo.pth"
        task = task_of(dataset, ["gamma"], Job(definition, weights), store)
        assert not track_sequences(ShardTask.from_json(json.loads(json.dumps(task.to_json())))).failed
        return store.manifest("gamma")

    masks, own = manifest("squares/all", "sam2-demo"), manifest("squares/all", "own")
    of_dataset = manifest("clicks/all", "sam2-demo")
    assert masks.given == {}
    assert "prompts" not in masks.to_json()["identity"]
    assert own.identity == of_dataset.identity
    assert own.fingerprint == of_dataset.fingerprint != masks.fingerprint
    assert own.masks_digest == of_dataset.masks_digest != masks.masks_digest
    assert {frame: list(objects) for frame, objects in own.given.items()} == {"00000": ["1"], "00003": ["2"]}
    assert [len(click["clicks"]) for click in own.given["00003"]["2"]] == [1, 1, 1]
    assert own.identity.definition.prompts == "3-click"


@pytest.mark.parametrize(
    ("dataset_key", "model"),
    [({"prompts": "box"}, "cutie-demo"), ({}, {"name": "still", "extends": "static", "prompts": "3-click"})],
)
def test_models_that_take_masks_only_are_refused_before_a_run(tmp_path, dataset_key, model):
    (tmp_path / "data").mkdir()
    study = load_study({"datasets": [{"path": str(tmp_path / "data"), **dataset_key}], "models": ["sam2-demo", model]})
    with pytest.raises(
        ConfigError, match=r"models: (cutie-demo|still): tracker .* takes mask prompts only, and no (box|click);"
    ):
        check_study(study, "config")


def test_a_model_keeps_its_masks_where_a_dataset_has_boxes(tmp_path):
    model = {"name": "cutie", "extends": "cutie-demo", "prompts": "mask"}
    study = load_study({"datasets": [{"path": str(tmp_path), "prompts": "box"}], "models": ["sam2-demo", model]})
    check_study(study, "config")
    (split,) = study.splits.values()
    assert study.models["cutie"].definition(split) == study.models["cutie"].definition()
    assert study.models["sam2-demo"].definition(split).prompts == "box"
