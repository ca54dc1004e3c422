"""Ensembles by the mean of logits equal a plain mean, also through a study."""

import numpy as np
import pytest

from tests.conftest import write_sequence
from tests.support.arrays import ARRAYS, arrays_of
from tests.support.records import task_of
from vosarena.base.errors import TrackerError
from vosarena.config.catalogs import load_catalog
from vosarena.inference.job import Job
from vosarena.inference.run import track_sequences
from vosarena.io.frames import read_frame
from vosarena.io.masks import read_mask
from vosarena.predictions.manifest import ModelDefinition
from vosarena.predictions.store import Store
from vosarena.trackers.mean import mean_labels

NOISE = """
import numpy as np
from pathlib import Path

class Noise:
    packages = ()

    def __init__(self, weights, device, precision):
        self.seed = int(Path(weights).read_text())

    def logits(self, frames, prompts):
        rng, known = np.random.default_rng(self.seed), set()
        for index, frame in enumerate(frames):
            known |= set(np.unique(prompts.get(index, 0)).tolist()) - {0}
            yield {number: rng.normal(0, 20, frame.shape[:2]).astype(np.float32) for number in sorted(known)}

    def track(self, frames, prompts):
        raise AssertionError("only its logits are needed")
"""


def plain(outputs: list[dict[int, np.ndarray]], size: tuple[int, int]) -> np.ndarray:
    """The highest mean above 0."""
    ids = sorted({number for output in outputs for number in output})
    absent = np.full(size, -10, np.float32)
    means = [np.mean([np.maximum(output.get(n, absent), -10) for output in outputs], axis=0) for n in ids]
    stack = np.stack([np.zeros(size, np.float32), *means])
    return np.array([0, *ids], np.uint8)[stack.argmax(0)]


def test_through_a_study(dataset, tmp_path, snakemake):
    """Whose dataset is read by a class."""
    arrays_of(dataset, tmp_path / "arrays")
    (tmp_path / "mine.py").write_text(ARRAYS)
    (tmp_path / "noise.py").write_text(NOISE)
    models = []
    for seed in (1, 2, 3):
        (tmp_path / f"{seed}.txt").write_text(f"{seed}")
        weights = {"sources": [{"local": f"{tmp_path}/{seed}.txt"}]}
        models.append({"name": f"m{seed}", "tracker": "noise.py:Noise", "weights": weights})
    models.append({"name": "all", "ensemble": ["m1", "m2", "m3"], "by": "mean"})
    target = "results/metrics/squares/all/all.parquet"
    data = {"path": "arrays", "name": "squares", "reader": "mine.py:Mine"}
    config = {"datasets": [data], "models": models, "inference": {"write_masks": "required"}}
    snakemake(target, config=config)
    store = Store(tmp_path / "results/predictions/squares/all/all")
    assert [path.name for path in store.folder.parent.iterdir()] == ["all"]  # the models track in the ensemble's job
    members = store.manifest("gamma").identity.members
    assert len({member.weights for member in members}) == 3
    scope: dict = {}
    exec(NOISE, scope)
    for name in ("alpha", "gamma"):
        frames = [read_frame(path) for path in sorted((dataset / "JPEGImages" / name).iterdir())]
        first = {0: read_mask(dataset / "Annotations" / name / "00000.png")}
        if name == "gamma":
            late = read_mask(dataset / "Annotations" / name / "00003.png")
            first[3] = np.where(late == 2, late, 0)
        runs = [list(scope["Noise"](tmp_path / f"{s}.txt", "cpu", "").logits(frames, first)) for s in (1, 2, 3)]
        for index, outputs in enumerate(zip(*runs, strict=True)):
            found = read_mask(store.masks(name) / f"{index:05d}.png")
            assert np.array_equal(found, plain(list(outputs), (48, 64))) and set(np.unique(found)) <= {0, 1, 2}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    root = tmp_path_factory.mktemp("clip")
    write_sequence(root, "late", frames=5, size=(96, 128), late=2)
    return root


def demo(name: str) -> Job:
    model = load_catalog().models[name]
    (source,) = [source.path for source in model.weights.sources if hasattr(source, "path")]
    return Job(model.definition(), source, "cpu", threads=1)


def test_the_logits_of_a_model_are_those_of_its_masks(clip, one_torch_thread):
    """And the mean of two networks is that of their logits."""
    frames = [read_frame(path) for path in sorted((clip / "JPEGImages/late").iterdir())]
    masks = [read_mask(path) for path in sorted((clip / "Annotations/late").iterdir())]
    prompts = {1: np.where(masks[1] == 1, masks[1], 0), 2: np.where(masks[2] == 2, masks[2], 0)}
    logits = {}
    for name in ("cutie-demo", "sam2-demo"):
        tracker = demo(name).build()
        logits[name] = list(tracker.logits(frames, prompts))
        assert [sorted(output) for output in logits[name]] == [[], [1], [1, 2], [1, 2], [1, 2]]
        for output, labels in zip(logits[name], tracker.track(frames, prompts), strict=True):
            assert all(part.dtype == np.float32 for part in output.values())
            assert np.array_equal(mean_labels([output], labels.shape), labels)
    members = {name: demo(name) for name in logits}
    both = Job(ModelDefinition("ensemble", {"of": list(members), "by": "mean"}), members=members).build()
    for labels, *outputs in zip(both.track(frames, prompts), *logits.values(), strict=True):
        assert np.array_equal(labels, plain(outputs, (96, 128)))


def test_a_model_without_logits(clip, tmp_path):
    members = {"static": Job(ModelDefinition("static")), "flow": Job(ModelDefinition("flow"))}
    job = Job(ModelDefinition("ensemble", {"of": list(members), "by": "mean"}), members=members)
    with pytest.raises(TrackerError, match="'static' gives no logits, of which `by: mean` is made; combine the masks"):
        track_sequences(task_of(clip, ["late"], job, Store(tmp_path / "store")))


def test_an_absent_object_does_not_overrule_the_other_models():
    one, absent = {1: np.full((2, 2), 12, np.float32)}, {1: np.full((2, 2), -1024, np.float32)}
    assert (mean_labels([one, absent], (2, 2)) == 1).all() and (mean_labels([one, {}], (2, 2)) == 1).all()
    assert not mean_labels([one, absent, absent], (2, 2)).any()
