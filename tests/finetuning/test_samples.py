"""Training samples: Cutie's are upstream's to the bit, splits are mixed by weight, a cache changes nothing."""

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.finetuning.test_finetune import write_video
from vosarena.base.errors import ConfigError, DataError
from vosarena.finetuning.recipe import read_recipe
from vosarena.io.masks import write_mask
from vosarena.io.warp import _compute, _equals_pillow, _pillow, warp_frame
from vosarena.orchestration.training import TrainingJob

torch = pytest.importorskip("torch")
pytest.importorskip("cutie.inference.inference_core")

from torchvision import transforms  # noqa: E402

from vosarena.finetuning.cutie_samples import CutieSamples  # noqa: E402
from vosarena.finetuning.sam2_samples import ClipSamples  # noqa: E402
from vosarena.finetuning.samples import passes, seeded  # noqa: E402
from vosarena.finetuning.videos import Mixture, Reader, training_videos  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

RECIPE = {"batch": 2, "iterations": 50, "frames": 3, "crop": 64, "max_skip": [4], "max_skip_from": [0.0], "workers": 0}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two splits: PNG frames in one, JPEG frames and small objects in the other."""
    folders = {"b/train": tmp_path_factory.mktemp("png"), "a/train": tmp_path_factory.mktemp("jpg")}
    for number in range(3):
        write_video(folders["b/train"], f"video-{number}", number)
        write_video(folders["a/train"], f"clip-{number}", 10 + number, frames=4)
    for path in folders["a/train"].glob("JPEGImages/*/*.png"):
        Image.open(path).save(path.with_suffix(".jpg"), quality=90)
        path.unlink()
    for path in folders["a/train"].glob("Annotations/clip-1/*.png"):
        mask = np.zeros((64, 96), np.uint8)
        mask[:3, :5] = 1
        write_mask(path, mask)
    return folders


def equal(first: dict, second: dict) -> bool:
    keys = first.keys() & second.keys() - {"info", "name"}
    return all(np.array_equal(np.asarray(first[key]), np.asarray(second[key])) for key in keys)


def test_samples_are_upstreams(data: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    from cutie.dataset.vos_dataset import VOSMergeTrainDataset

    recipe = read_recipe({**RECIPE, "frame_interval": {"a/train": 4}})
    shared = {"subset": None, "empty_masks": None, "multiplier": 1}
    configs = {
        name: {"im_root": folder / "JPEGImages", "gt_root": folder / "Annotations", "max_skip": skip, **shared}
        for (name, folder), skip in zip(data.items(), (4, 1), strict=True)
    }
    links = data["b/train"].parent / "links"  # upstream opens .jpg, whatever the format
    shutil.copytree(data["b/train"], links)
    for path in links.glob("JPEGImages/*/*.png"):
        path.rename(path.with_suffix(".jpg"))
    configs["b/train"] |= {"im_root": links / "JPEGImages", "gt_root": links / "Annotations"}
    upstream = VOSMergeTrainDataset(configs, seq_length=3, max_num_obj=3, size=64, merge_probability=0.5)
    ours, pasted = CutieSamples(data, recipe), 0
    assert len(ours.places) == len(upstream)
    for number in range(24):
        epoch, place = divmod(number, len(upstream))
        item = np.random.default_rng((recipe.seed, epoch)).permutation(len(upstream))[place]
        with seeded(recipe.seed, 1, number):
            theirs = upstream[int(item)]
        sample = ours[number]
        assert equal(sample, theirs) and sample.keys() == theirs.keys(), number
        assert sample["info"].items() <= theirs["info"].items()
        pasted += sample["info"]["num_objects"] == 3  # no clip has more than two of its own
    assert pasted > 1


def test_only_annotated_frames_with_objects_are_used(data: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "sparse"
    shutil.copytree(data["b/train"], root)
    (root / "Annotations" / "video-0" / "00002.png").unlink()
    write_video(root, "empty", 9)
    for path in (root / "Annotations" / "empty").iterdir():
        write_mask(path, np.zeros((64, 96), np.uint8))
    assert len(CutieSamples({"toy/train": root}, read_recipe(RECIPE)).places) == 5 + 5 + 4
    with pytest.raises(DataError, match="annotated frames"):
        CutieSamples({"toy/train": root}, read_recipe({**RECIPE, "frames": 6}))
    for path in root.glob("Annotations/*/*.png"):
        write_mask(path, np.zeros((64, 96), np.uint8))
    with pytest.raises(DataError, match="has an annotated object; check Annotations/"):
        CutieSamples({"toy/train": root}, read_recipe(RECIPE))


@pytest.mark.parametrize("kind", [CutieSamples, lambda data, recipe: ClipSamples(data, recipe, 64)])
def test_samples_depend_on_their_number_only_also_with_a_cache(data: dict[str, Path], kind) -> None:
    samples, state = kind(data, read_recipe(RECIPE)), torch.get_rng_state()
    first, other = samples[7], samples[60]
    assert torch.equal(torch.get_rng_state(), state)
    assert not equal(first, other) and equal(samples[7], first)
    for cache in (0.0002, 1):
        cached = kind(data, read_recipe({**RECIPE, "cache_gb": cache}))
        assert all(equal(cached[number], sample) for number, sample in [(60, other), (7, first), (60, other)])


def test_processes_share_a_bounded_cache(data: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = read_recipe({**RECIPE, "iterations": 15, "workers": 2, "cache_gb": 0.0003, "gpus": 2})
    samples = CutieSamples(data, recipe)
    reader = samples._reader
    assert 0 < reader.size <= 150_000  # each of two training processes has its share
    assert {path.parent.name for path in reader._places} == {"video-0"}
    for _ in passes(samples, recipe, 0, 0, 1, 2):
        pass
    kept = set(reader._places)
    monkeypatch.setattr("vosarena.finetuning.videos.read_frame", lambda path: pytest.fail(f"{path} is decoded again"))
    for path in (path for path in kept if path.parent.parent.name == "JPEGImages"):
        assert np.array_equal(reader.frame(path), np.array(Image.open(path).convert("RGB")))
    with pytest.raises(ValueError, match="read-only"):
        reader.mask(next(path for path in kept if "Annotations" in path.parts))[:] = 0


def test_a_frame_of_another_size_is_not_kept(data: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(data["b/train"], tmp_path / "toy")
    odd = tmp_path / "toy" / "JPEGImages" / "video-0" / "00001.png"
    Image.new("RGB", (50, 40), (1, 2, 3)).save(odd)
    reader = Reader(training_videos({"toy/train": tmp_path / "toy"}, read_recipe(RECIPE)), 10**8)
    assert reader.frame(odd).shape == reader.frame(odd).shape == (40, 50, 3)


def test_splits_are_mixed_by_weight() -> None:
    splits = ["a/x"] * 10 + ["b/y"] * 4
    weighed = read_recipe({"data": [{"split": "a/x", "weight": 0.5}, {"split": "b/y", "weight": 2.25}]})
    mixture = Mixture(splits, weighed)
    epochs = [[mixture.item(number) for number in range(start, start + 14)] for start in (0, 14, 28)]
    for epoch in epochs:
        counts = np.bincount(epoch, minlength=14)
        assert sorted(counts[:10]) == [0] * 5 + [1] * 5 and sorted(counts[10:]) == [2, 2, 2, 3]
    assert len({tuple(sorted(epoch)) for epoch in epochs}) == 3  # others in every epoch
    again = Mixture(splits, weighed)  # as after an interruption, and in a worker that gets some of the samples
    assert [again.item(number) for number in (40, 3, 17)] == [epochs[2][12], epochs[0][3], epochs[1][3]]
    plain = Mixture(splits, read_recipe({}))
    assert [plain.item(number) for number in range(14)] == np.random.default_rng((14159265, 0)).permutation(14).tolist()
    rare = Mixture(splits, read_recipe({"data": [{"split": "b/y", "weight": 0.01}]}))
    assert sum(rare.item(number) >= 10 for number in range(11)) == 1


def test_weights_in_a_recipe() -> None:
    recipe = read_recipe({"data": ["mose/train", {"split": "lvos-v2/train", "weight": 3}], "cache_gb": 64, "gpus": 4})
    assert recipe.splits == ("mose/train", "lvos-v2/train")
    assert recipe.weights == {"mose/train": 1.0, "lvos-v2/train": 3.0}
    assert recipe.cache_bytes == 16 * 10**9
    without = TrainingJob(recipe.model_copy(update={"cache_gb": 0.0}), Path(), uses_gpus=True).memory_mb
    assert TrainingJob(recipe, Path(), uses_gpus=True).memory_mb == without + 64_000


@pytest.mark.parametrize("entry, sentence", [
    ([{"split": "a/b", "weight": 0}], "weight: 0 is not greater than 0|greater than"),
    ([{"split": "a/b", "wait": 2}], "unknown key 'wait'; did you mean 'weight'"),
    ([{"weight": 2}], "'split' is missing"),
    ([3], "is not text or a mapping"),
])  # fmt: skip
def test_wrong_weights_are_one_sentence(entry: list, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read_recipe({"data": entry})


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_warped_rectangle_is_pillows(mirrored: bool) -> None:
    draw = random.Random(int(mirrored))
    for _ in range(10):
        frame = np.random.default_rng(draw.randrange(100)).integers(0, 256, (60, 81, 3), dtype=np.uint8)
        matrix = [draw.uniform(-1.2, 1.2) for _ in range(6)]
        matrix[2], matrix[5] = draw.uniform(-40, 80), draw.uniform(-40, 80)
        arguments = frame, mirrored, matrix, (7, 9, 41, 60), (9, 8, 7)
        assert np.array_equal(warp_frame(*arguments), _pillow(*arguments))
        assert np.array_equal(_compute(*arguments), _pillow(*arguments)) or not _equals_pillow()


def test_samples_of_sam2_are_those_of_torchvisions_transforms(data: dict[str, Path]) -> None:
    """Of one frame, as the transforms draw their numbers anew for each frame."""
    samples, size = ClipSamples(data, read_recipe({**RECIPE, "frames": 1}), 48), (48, 48)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    labels = np.zeros((64, 96), np.uint8)
    labels[20:40, 30:50], labels[35:50, 45:70] = 4, 250
    bilinear, nearest = transforms.InterpolationMode.BILINEAR, transforms.InterpolationMode.NEAREST
    place = transforms.RandomHorizontalFlip(), transforms.RandomAffine(25, shear=20, interpolation=bilinear,
                                                                       fill=(123, 116, 103))  # fmt: skip
    colours = (
        transforms.ColorJitter(0.1, 0.03, 0.03),
        transforms.RandomGrayscale(0.05),
        transforms.ColorJitter(0.1, 0.05, 0.05),
    )
    greys = 0
    for seed in range(90, 110):  # 100 and 108 make it grey
        with seeded(seed):
            found = samples._augment([image], [labels], [250, 4])
        with seeded(seed):
            expected = transforms.Compose([*place, transforms.Resize(size), *colours])(Image.fromarray(image))
        with seeded(seed):
            turn = transforms.RandomHorizontalFlip(), transforms.RandomAffine(25, shear=20)
            truth = transforms.Compose([*turn, transforms.Resize(size, nearest)])(Image.fromarray(labels))
        pixels = found["images"][0].numpy()
        assert np.array_equal(pixels, np.array(expected))
        assert np.array_equal(found["masks"][0, :, 0].numpy(), np.array(truth) == np.array([[[250]], [[4]]]))
        greys += np.array_equal(pixels[..., 0], pixels[..., 1])
    assert greys
