"""The procedural videos: equal bytes from equal seeds, and events that really happen."""

import hashlib
import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from vosarena.demo import synthesize as demo
from vosarena.demo.clips import EVENTS, make_clip, random_clip
from vosarena.demo.sprites import SPRITE_PIXELS, Light, Pose, draw, draw_labels, make_sprite, outline
from vosarena.demo.surfaces import BODIES, GROUNDS, Surface, surface
from vosarena.demo.synthesize import SIZE, STREAMS, clip_seed, sequences, synthesize
from vosarena.io.masks import read_mask


def areas(masks: np.ndarray, label: int) -> np.ndarray:
    return np.count_nonzero(masks == label, axis=(1, 2))


def digest(root: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        total.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return total.hexdigest()


@pytest.fixture(scope="module")
def val(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "val"
    synthesize(root, "val")
    return root


def test_equal_seeds_give_equal_bytes_whatever_the_threads() -> None:
    threads = cv2.getNumThreads()
    clips = []
    try:
        for number in (1, 4):
            cv2.setNumThreads(number)
            clips.append(make_clip(5, frames=6, objects=3, events=("late", "lighting"), domain="low_contrast"))
    finally:
        cv2.setNumThreads(threads)
    assert clips[0].frames.tobytes() == clips[1].frames.tobytes()
    assert clips[0].masks.tobytes() == clips[1].masks.tobytes()
    assert make_clip(6, frames=6).frames.tobytes() != make_clip(5, frames=6).frames.tobytes()


def test_shapes_and_labels() -> None:
    clip = make_clip(1, frames=5, size=(96, 128), objects=3)
    assert clip.frames.shape == (5, 96, 128, 3) and clip.frames.dtype == np.uint8
    assert clip.masks.shape == (5, 96, 128) and clip.masks.dtype == np.uint8
    assert set(np.unique(clip.masks)) <= {0, 1, 2, 3}
    assert set(np.unique(clip.masks[0])) == {0, 1, 2, 3}


@pytest.mark.parametrize("seed", range(4))
def test_late_objects_are_late_and_enter_visibly(seed: int) -> None:
    clip = make_clip(seed, frames=20, objects=3, events=("late",))
    late = areas(clip.masks, 3)
    first = np.flatnonzero(late)[0]
    assert first >= 4 and not late[:first].any()
    assert late[first] > SIZE[0] * SIZE[1] / 3000
    assert areas(clip.masks, 1)[0] > 0
    assert "late" in clip.attributes


def test_absence_has_100_objects_that_are_gone_for_half_of_their_clip() -> None:
    clips = list(sequences("absence"))
    assert len(clips) == 100
    for _, make in clips[::25]:
        clip = make()
        present = np.flatnonzero(areas(clip.masks, 1))
        assert np.diff(present).max() > 0.45 * len(clip.frames)
        assert present[-1] == len(clip.frames) - 1
        assert {"absence", "return", "distractor"} <= set(clip.attributes)


@pytest.mark.parametrize("seed", range(4))
def test_return_vanishes_and_comes_back(seed: int) -> None:
    clip = make_clip(seed, frames=30, objects=2, events=("return",))
    present = np.flatnonzero(areas(clip.masks, 1))
    gaps = np.diff(present)
    assert present[0] == 0 and gaps.max() > 2
    assert {"return", "disappearance"} <= set(clip.attributes)


@pytest.mark.parametrize("seed", range(4))
def test_exit_leaves_for_good(seed: int) -> None:
    clip = make_clip(seed, frames=30, objects=1, events=("exit",))
    present = areas(clip.masks, 1) > 0
    assert present[0] and not present[-1]
    assert {"exit", "disappearance"} <= set(clip.attributes)


@pytest.mark.parametrize("seed", range(4))
def test_small_objects_are_small(seed: int) -> None:
    clip = make_clip(seed, frames=12, objects=2, events=("small",))
    assert 0 < np.median(areas(clip.masks, 1)) < SIZE[0] * SIZE[1] / 250
    assert "small" in clip.attributes


@pytest.mark.parametrize("seed", range(4))
def test_occlusion_hides_most_of_an_object(seed: int) -> None:
    clip = make_clip(seed, frames=24, objects=1, events=("occlusion",))
    area = areas(clip.masks, 1)
    assert area.min() < 0.5 * np.median(area)
    assert "occlusion" in clip.attributes


def test_ten_objects_are_there_at_once() -> None:
    clip = make_clip(3, frames=6, objects=10)
    assert set(np.unique(clip.masks[0])) == set(range(11))
    assert "many-objects" in clip.attributes


def test_lighting_changes_the_brightness() -> None:
    steady, lit = (make_clip(2, frames=24, objects=1, events=events) for events in ((), ("lighting",)))
    swing = [np.ptp(clip.frames.mean(axis=(1, 2, 3))) for clip in (steady, lit)]
    assert swing[1] > 3 * swing[0] and swing[1] > 20


def test_low_contrast_changes_the_picture_only() -> None:
    plain, poor = (make_clip(7, frames=4, objects=2, domain=domain) for domain in ("plain", "low_contrast"))
    assert np.array_equal(plain.masks, poor.masks)
    assert poor.frames.std(axis=(1, 2)).mean() < 0.6 * plain.frames.std(axis=(1, 2)).mean()
    assert "low-contrast" in poor.attributes and "low-contrast" not in plain.attributes


def test_objects_move_so_that_the_first_mask_soon_misses_them() -> None:
    overlaps = []
    for number in range(12):
        masks = random_clip(clip_seed("held-out", number), frames=16).masks
        first, last = masks[0] > 0, masks[-2] > 0
        overlaps.append((first & last).sum() / max((first | last).sum(), 1))
    assert np.mean(overlaps) < 0.3


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown events"):
        make_clip(0, frames=4, events=("explosion",))
    with pytest.raises(ValueError, match="unknown domain"):
        make_clip(0, frames=4, domain="night")
    with pytest.raises(ValueError, match="at least two objects"):
        make_clip(0, frames=4, objects=1, events=("late",))


@pytest.mark.parametrize("kind", sorted({*BODIES, *GROUNDS}))
def test_materials_keep_near_their_colour_and_have_a_texture(kind: str) -> None:
    colour = np.array([150, 120, 90], np.float32)
    material = surface(np.random.default_rng(1), 96, 160, 30.0, kind, colour)
    assert material.colour.shape == (96, 160, 3) and material.relief.shape == (96, 160)
    assert np.abs(material.colour.mean(axis=(0, 1)) - colour).max() < 45
    assert material.colour.std(axis=(0, 1)).min() > 2


@pytest.mark.parametrize(("x", "y"), [(0.7, 0.0), (-0.7, 0.0), (0.0, 0.7), (0.0, -0.7)])
def test_bodies_are_bright_towards_the_light_and_throw_their_shadow_away_from_it(x: float, y: float) -> None:
    rng = np.random.default_rng(3)
    grey = np.full((SPRITE_PIXELS, SPRITE_PIXELS, 3), 120, np.uint8)
    material = Surface(grey, np.zeros(grey.shape[:2], np.float32))
    sprite = make_sprite(rng, outline(rng, angular=True), material, height=0.5, lift=0.3)
    pose = Pose(100.0, 90.0, 40.0, 0.4)
    labels, frame = np.zeros((180, 200), np.uint8), np.full((180, 200, 3), 120, np.uint8)
    covered = draw_labels(labels, sprite, pose, 1)
    draw(frame, sprite, pose, Light(x, y, np.sqrt(1 - x * x - y * y), 0.4))
    rows, columns = np.indices(labels.shape)
    towards = (columns - pose.x) * x + (rows - pose.y) * y > 0
    body = labels == 1
    assert covered == body.sum() > 0
    assert frame[body & towards].mean() > frame[body & ~towards].mean() + 20
    assert frame[~body & ~towards].mean() < 118 and frame[~body & towards].mean() > 119


def test_streams_share_no_seed() -> None:
    seeds = {clip_seed(stream, number) for stream in STREAMS for number in range(50)}  # type: ignore[arg-type]
    assert len(seeds) == 50 * len(STREAMS)


def test_val_covers_every_event_and_stays_small(val: Path) -> None:
    attributes = json.loads((val / "attributes.json").read_text())
    shown = set().union(*attributes.values())
    assert shown >= set(EVENTS) - {"absence"} | {"disappearance", "long", "many-objects", "low-contrast"}
    assert list(attributes) == [name for name, _ in sequences("val")]
    frames = {name: len(list((val / "JPEGImages" / name).glob("*.jpg"))) for name in attributes}
    assert frames["long"] >= 300 and sum(frames.values()) <= 1300
    assert sum("low-contrast" in values for values in attributes.values()) >= 10


def test_attributes_are_true_of_the_written_masks(val: Path) -> None:
    attributes = json.loads((val / "attributes.json").read_text())
    for name, found in attributes.items():
        masks = np.stack([read_mask(path) for path in sorted((val / "Annotations" / name).iterdir())])
        objects = [areas(masks, label) for label in range(1, int(masks.max()) + 1)]
        assert ("late" in found) == any(area[0] == 0 for area in objects), name
        gone = any((area[np.flatnonzero(area)[0] :] == 0).any() for area in objects)
        assert ("disappearance" in found) == gone, name
        limit = masks[0].size / 250
        assert ("small" in found) == any(np.median(area[area > 0]) < limit for area in objects), name


def test_a_person_can_see_every_object_where_it_first_appears(val: Path) -> None:
    for name, found in json.loads((val / "attributes.json").read_text()).items():
        least = 6 if "low-contrast" in found else 15  # of 255
        seen: set[int] = set()
        for path in sorted((val / "Annotations" / name).iterdir()):
            mask = read_mask(path)
            for label in set(np.unique(mask).tolist()) - seen - {0}:
                frame = cv2.imread(str(val / "JPEGImages" / name / f"{path.stem}.jpg")).astype(np.float32)
                body = (mask == label).astype(np.uint8)
                around = cv2.dilate(body, np.ones((15, 15), np.uint8)) * (mask == 0) > 0
                gap = np.abs(frame[body > 0].mean(axis=0) - frame[around].mean(axis=0)).max()
                assert gap > least, (name, label, gap)
                seen.add(label)


def test_files_are_the_clips_and_the_same_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "sequences", lambda split: itertools.islice(sequences(split), 3))
    root = tmp_path / "one" / "train"
    synthesize(root, "train")
    before = digest(root)
    (root / "Annotations" / "left-over").mkdir()
    (root / "JPEGImages" / "train-01" / "00000.jpg").unlink()
    synthesize(root, "train")  # replaces what is there
    assert digest(root) == before and not (root / "Annotations" / "left-over").exists()
    assert [path.name for path in root.parent.iterdir()] == ["train"]

    name, make = next(sequences("train"))
    clip = make()
    assert np.array_equal(read_mask(root / "Annotations" / name / "00003.png"), clip.masks[3])
    decoded = cv2.imread(str(root / "JPEGImages" / name / "00003.jpg"))[..., ::-1]
    assert np.abs(decoded.astype(int) - clip.frames[3]).mean() < 8  # chroma is stored at half size, the noise is not
