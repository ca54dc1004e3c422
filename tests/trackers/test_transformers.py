"""SAM 3, SAM 2 and EdgeTAM through transformers: the masks of the library's own session, in bounded memory."""

import gc
import json
import re
import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from held_out import first_appearances
from tests.support import transformers_session as library
from vosarena.base.errors import TrackerError
from vosarena.base.hashing import file_sha256
from vosarena.demo.clips import make_clip
from vosarena.inference.job import Job
from vosarena.predictions.manifest import ModelDefinition
from vosarena.trackers.transformers import Transformers
from vosarena.trackers.transformers_stream import Settings

# Random weights that change their mind about whether an object is there.
PRESENCE = {"sam3": (30.0, 33.0), "sam2": (30.0, 5.0), "edgetam": (30.0, -3.0)}
pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Random weights of each kind."""
    return {kind: library.write_weights(kind, tmp_path_factory.mktemp(kind)) for kind in library.KINDS}


def session_masks(kind, folder, frames, prompts):
    """Label maps of the library's session, one per frame from the first prompt on."""
    network = library.load(kind, folder)
    processor = library.processor_of(kind, network.config.image_size)
    if kind != "edgetam" or len(prompts) == 1:
        return [library.label_map(logits) for logits in library.track(network, processor, frames, prompts)]
    # EdgeTAM's session cannot add objects while others are tracked; its objects do not depend on each other.
    first, found = min(prompts), {}
    for index, labels in prompts.items():
        for number in np.unique(labels[labels > 0]):
            alone = {index: np.where(labels == number, labels, 0)}
            found[int(number)] = dict(enumerate(library.track(network, processor, frames, alone), start=index))
    return [
        library.label_map({number: of[index][number] for number, of in found.items() if index in of})
        for index in range(first, len(frames))
    ]


def assert_equal(masks, expected):
    assert len(masks) == len(expected)
    different = [index for index, pair in enumerate(zip(masks, expected, strict=True)) if (pair[0] != pair[1]).any()]
    assert not different, f"masks differ in frames {different}"


def clip_of(seed, frames, objects=2, size=(72, 120), late=False):
    clip = make_clip(seed, frames=frames, size=size, objects=objects, events=("late",) if late else ())
    return clip.frames, first_appearances(clip.masks)


@pytest.mark.parametrize(
    ("kind", "frames", "objects"),
    [("sam3", 121, 1), ("sam3", 121, 3), ("sam2", 32, 3), ("edgetam", 14, 3)],
)
def test_masks_equal_those_of_the_session(tmp_path, kind, frames, objects):
    """Objects that appear late, vanish and return, with gaps in their ids."""
    images, prompts = clip_of(5, frames, objects, late=objects > 1)
    numbers = np.array([0, 7, 250, 4], np.uint8)  # not in the order of appearance
    prompts = {index: numbers[labels] for index, labels in prompts.items()}
    assert len(prompts) == (2 if objects > 1 else 1)
    folder = library.write_weights(kind, tmp_path / "weights", presence=PRESENCE[kind])
    expected = session_masks(kind, folder, images, prompts)
    masks = list(Transformers(str(folder)).track(images, prompts))
    assert_equal(masks, expected)
    assert len({mask.tobytes() for mask in masks}) > frames / 3
    assert set(np.unique(masks)) - {0} == set(numbers[1 : objects + 1])


def test_frames_before_the_first_object_are_background(folders):
    images, prompts = clip_of(6, 9)
    prompts = {4: prompts[0]}
    masks = list(Transformers(str(folders["sam2"])).track(images, prompts))
    assert not np.stack(masks[:4]).any()
    assert_equal(masks[4:], session_masks("sam2", folders["sam2"], images, prompts))


def test_objects_that_vanish_and_return(tmp_path):
    folder = library.write_weights("sam3", tmp_path / "weights", presence=PRESENCE["sam3"])
    images, prompts = clip_of(8, 24)
    masks = list(Transformers(str(folder)).track(images, prompts))
    assert_equal(masks, session_masks("sam3", folder, images, prompts))
    there = np.array([(mask == 1).any() for mask in masks])
    assert 3 < there.sum() < 21
    assert (there[1:] & ~there[:-1]).any()  # it came back


@pytest.mark.parametrize("kind", ["sam3", "edgetam"])
def test_masks_that_may_overlap(folders, kind):
    images, prompts = clip_of(3, 6, objects=3)
    split = {0: {int(number): prompts[0] == number for number in np.unique(prompts[0]) if number}}
    split[0][1] = split[0][1] | split[0][2]
    network = library.load(kind, folders[kind])
    processor = library.processor_of(kind, network.config.image_size)
    session = processor.init_video_session(video=np.stack(images))
    processor.add_inputs_to_inference_session(session, 0, [1, 2, 3], input_masks=list(split[0].values()))
    tracked = list(Transformers(str(folders[kind])).track_objects(images, split))
    for index, masks in enumerate(tracked):
        logits = network(session, frame_idx=index).pred_masks
        expected = processor.post_process_masks([logits], [images[0].shape[:2]])[0][:, 0].numpy()
        np.testing.assert_array_equal(np.stack([masks[number] for number in (1, 2, 3)]), expected)
    assert (tracked[0][1] & tracked[0][2]).any()


@pytest.mark.parametrize("kind", library.KINDS)
def test_several_objects_in_a_pass_change_the_last_bits_only(folders, kind):
    images, prompts = clip_of(5, 12, objects=3, late=True)
    split = {i: {int(n): labels == n for n in np.unique(labels) if n} for i, labels in prompts.items()}
    stream = Transformers(str(folders[kind]))._stream
    raw = lambda scores, size: torch.stack([score for _, score in scores])  # noqa: E731
    late = max(prompts)
    alone, together = (list(stream.run(images, split, Settings(batch), raw)) for batch in (1, 2))
    for first in (0, late):  # random weights amplify the last bits from frame to frame
        for index in range(first, min(first + 2, len(images))):
            if index < late:
                np.testing.assert_allclose(together[index], alone[index], atol=2e-3)
    np.testing.assert_array_equal(together[late][2], alone[late][2])  # the late object is a group of its own
    agreeing = np.mean([((a > 0) == (b > 0)).mean() for a, b in zip(alone, together, strict=True)])
    assert agreeing > 0.97


def test_bf16_gives_the_masks_of_the_session_under_autocast(folders):
    images, prompts = clip_of(17, 12, late=True)
    with torch.autocast("cpu", torch.bfloat16):
        expected = session_masks("sam3", folders["sam3"], images, prompts)
    tracker = Transformers(str(folders["sam3"]), precision="bf16")
    assert {p.dtype for p in tracker._stream.network.parameters()} == {torch.bfloat16, torch.float32}
    masks = list(tracker.track(images, prompts))
    assert_equal(masks, expected)
    full = list(Transformers(str(folders["sam3"])).track(images, prompts))
    assert any((a != b).any() for a, b in zip(full, masks, strict=True))  # the precision does matter here


@pytest.mark.parametrize(("kind", "side"), [("sam3", 168), ("sam2", 160)])
def test_another_image_size(folders, tmp_path, kind, side):
    """As a network that was configured for this size from the start."""
    config = library.KINDS[kind][0](side)
    network = library.KINDS[kind][1](config)
    network.load_state_dict(library.load(kind, folders[kind]).state_dict())
    network.save_pretrained(tmp_path)
    images, prompts = clip_of(2, 5)
    expected = session_masks(kind, tmp_path, images, prompts)
    assert_equal(list(Transformers(str(folders[kind]), image_size=side).track(images, prompts)), expected)


@pytest.mark.parametrize(("kind", "rule"), [("sam3", "fifo"), ("sam2", "fifo"), ("edgetam", "fifo"), ("sam3", "rcms")])
def test_memory_does_not_grow_with_the_video(folders, kind, rule):
    images, prompts = clip_of(15, 30, objects=1, size=(48, 64))
    tracker = Transformers(str(folders[kind]), memory=rule)

    def held():
        gc.collect()
        tensors = [item for item in gc.get_objects() if issubclass(type(item), torch.Tensor)]
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())

    sizes = [held() for index, _ in enumerate(tracker.track(images, prompts)) if index in (20, 29)]
    a_frame = 3 * tracker._stream.network.config.image_size**2  # one may be in preparation
    assert abs(sizes[1] - sizes[0]) <= 4 * a_frame


def test_saving_memory_changes_nothing(folders):
    images, prompts = clip_of(14, 20, late=True)
    tracker = Transformers(str(folders["sam3"]))
    expected = list(tracker.track(images, prompts))
    with tracker.saving_memory() as options:
        assert options == {"offload_memory": True}
        assert_equal(list(tracker.track(images, prompts)), expected)


def test_one_tracker_runs_many_videos(folders):
    clips = [clip_of(1, 8), clip_of(2, 8, size=(96, 70))]
    fresh = [list(Transformers(str(folders["sam2"])).track(*clip)) for clip in clips]
    tracker = Transformers(str(folders["sam2"]))
    unfinished = tracker.track(*clips[1])
    next(unfinished)
    unfinished.close()
    for clip, expected in zip([clips[0], clips[1], clips[0]], [fresh[0], fresh[1], fresh[0]], strict=True):
        assert_equal(list(tracker.track(*clip)), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch.compile takes minutes on a CPU")
@pytest.mark.parametrize("way", [True, "cuda-graphs"])
def test_compiled(folders, way):
    images, prompts = clip_of(4, 4, objects=1)
    expected = list(Transformers(str(folders["sam3"]), device="cuda").track(images, prompts))
    masks = list(Transformers(str(folders["sam3"]), compile=way, device="cuda").track(images, prompts))
    assert np.mean(np.stack(masks) == np.stack(expected)) > 0.99


# --- weights and options


def test_the_published_folder_of_sam3_has_a_detector_too(folders, tmp_path):
    """facebook/sam3 is one model of two parts, whose image encoder is stored with the detector."""
    tensors = {}
    for key, value in library.load("sam3", folders["sam3"]).state_dict().items():
        if key.startswith("vision_encoder.backbone."):
            key = f"detector_model.{key}"
        elif key.startswith("vision_encoder.neck."):
            key = key.replace("vision_encoder.neck.", "tracker_neck.")
        else:
            key = f"tracker_model.{key}"
        tensors[key] = value
    tensors["detector_model.text_projection.bias"] = torch.zeros(2)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    config = json.loads((folders["sam3"] / "config.json").read_text())
    published = {"model_type": "sam3_video", "architectures": ["Sam3VideoModel"], "tracker_config": config}
    (tmp_path / "config.json").write_text(json.dumps(published))
    images, prompts = clip_of(2, 5)
    # Not the session of the other folder: the last bits depend on where tensors lie in a file.
    expected = session_masks("sam3", tmp_path, images, prompts)
    assert_equal(list(Transformers(str(tmp_path)).track(images, prompts)), expected)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("sam3", {"batch_objects": 0}, "transformers: batch_objects is 0"),
        ("sam3", {"precision": "int8"}, "transformers: precision is 'int8'"),
        ("sam3", {"precision": "fp16"}, "fp16 needs a CUDA device"),
        ("sam3", {"image_size": 100}, "image_size is 100; use a positive multiple of 14"),
        ("sam2", {"image_size": "big"}, "image_size is 'big'; use a positive multiple of 32"),
        ("edgetam", {"image_size": 512}, "type edgetam_video has a fixed image size"),
        ("sam3", {"weights": "nowhere"}, "there is no file nowhere/config.json; give `weights` a folder"),
    ],
)
def test_wrong_options_are_named(folders, kind, options, message):
    with pytest.raises(TrackerError, match=message):
        Transformers(**({"weights": str(folders[kind])} | options))


def _truncate(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def _without(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["no_memory_embedding"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _extra(folder):
    tensors = load_file(folder / "model.safetensors") | {"extra": torch.zeros(1)}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def _reshaped(folder):
    tensors = load_file(folder / "model.safetensors") | {"no_memory_embedding": torch.zeros(1, 1, 5)}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "model.safetensors cannot be loaded"),
        (_without, r"do not fit: of the tensors 1 are missing \(first no_memory_embedding\)"),
        (_extra, r"do not fit: of the tensors 1 are unknown \(first extra\)"),
        (_reshaped, "no_memory_embedding|cannot be loaded"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json does not describe a model"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "new"}'), "does not describe a model"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'),
            "does not track masks in a video",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path, damage, message):
    folder = library.write_weights("sam2", tmp_path / "weights")
    damage(folder)
    with pytest.raises(TrackerError, match=message) as caught:
        Transformers(str(folder))
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(TrackerError, match=r"pip install 'vosarena\[transformers\]'"):
        Transformers(str(folders["sam3"]))


@pytest.mark.slow
def test_a_study_with_a_folder_of_weights(dataset, tmp_path, snakemake, folders):
    """Both files are linked, and both hashes are in the manifest; another configuration tracks again."""
    own = shutil.copytree(folders["sam2"], tmp_path / "own")
    model = {"name": "mine", "tracker": "transformers", "weights": {"sources": [{"local": str(own)}]}}
    config = {"datasets": [{"path": str(dataset), "select": ["alpha"]}], "models": [model]}
    target = "results/predictions/squares/all/mine/.shards/shard-1-of-1.json"
    snakemake(target, config=config)
    manifest = tmp_path / "results/predictions/squares/all/mine/alpha.json"
    found = json.loads(manifest.read_text())["identity"]
    assert found["weights"] == file_sha256(own / "model.safetensors")
    assert found["files"] == [file_sha256(own / "config.json")]
    assert "Nothing to be done" in snakemake("-n", target).stderr
    with (own / "config.json").open("a") as file:
        file.write("\n")
    assert re.search(r"\btrack\b", snakemake("-n", target).stderr)  # in the table of jobs
    identity = Job(ModelDefinition("transformers"), own).identity()
    assert identity.files == (file_sha256(own / "config.json"),) != tuple(found["files"])
