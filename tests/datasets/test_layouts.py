"""Every dataset's true layout, in miniature: from an archive to the table of sequences."""

import json
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support import miniature
from tests.support.miniature import SIZE, frame, mask, tar_of, zip_of
from vosarena.base.errors import DataError
from vosarena.config.catalogs import Split, load_catalog
from vosarena.datasets.archives import archives_of
from vosarena.datasets.prepare import fetch_split, prepare_split, source_fingerprint
from vosarena.datasets.sequences import numbered_files, read_sequence
from vosarena.datasets.table import SequenceRecord, index_split, read_counts, read_table, select_sequences
from vosarena.fetching.policy import RetryPolicy
from vosarena.fetching.sources import LocalSource
from vosarena.io.masks import read_mask, write_mask

CATALOG = load_catalog()


def from_catalog(name: str, contents: dict[str, bytes], tmp_path: Path, **changes) -> Split:
    """A split of the built-in catalog whose archives come from this machine: everything else is the real entry."""
    split = CATALOG.split(name)
    archives = []
    for entry, file in zip(split.archives, (archive.file for archive in archives_of(split)), strict=True):
        if file not in contents and entry.optional:
            continue
        place = tmp_path / "served" / file
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(contents[file])
        sources = (LocalSource(local=str(place)),)
        archives.append(entry.model_copy(update={"file": file, "sources": sources, "sha256": None}))
    return split.model_copy(update={"archives": tuple(archives), **changes})


def fetch(split: Split, tmp_path: Path) -> tuple[Path, list[SequenceRecord]]:
    table = fetch_split(split, tmp_path / "resources", RetryPolicy(1, 1, 0))
    return table.parent, read_table(table)


def test_vost(tmp_path):
    """Frames between the annotated ones, names that are words with numbers, and lists of sequences at the top."""
    files = {f"VOST/JPEGImages/cut/frame{index:05d}.jpg": frame(index) for index in range(5)}
    files |= {f"VOST/Annotations/cut/frame{index:05d}.png": mask(index) for index in range(0, 5, 2)}
    files |= {"VOST/ImageSets/val.txt": b"cut\n", "VOST/ImageSets/train.txt": b"torn\n"}
    _, (row,) = fetch(from_catalog("vost/val", {"VOST.zip": zip_of(files)}, tmp_path), tmp_path)
    assert (row.sequence, row.n_frames, row.annotated_frames) == ("cut", 5, 3) and row.has_ground_truth


def test_favos(tmp_path):
    """Frames, masks and the list of sequences are files of their own."""
    images = {f"JPEGImages/{name}/{index:05d}.jpg": frame(index) for name in "ab" for index in range(3)}
    masks = {f"Annotations/{name}/{index:05d}.png": mask(index) for name in "ab" for index in range(3)}
    contents = {"JPEGImages.zip": zip_of(images), "Annotations.zip": zip_of(masks), "favos-20.txt": b"b\n"}
    _, rows = fetch(from_catalog("favos/favos-20", contents, tmp_path), tmp_path)
    assert [(row.sequence, row.annotated_frames) for row in rows] == [("b", 3)]


def test_davis_2017(tmp_path, caplog):
    files = miniature.davis({"bear": 3, "dog": 4}, "2017/val.txt")
    split = from_catalog("davis2017/val", {"DAVIS-2017-trainval-480p.zip": zip_of(files)}, tmp_path)
    root, rows = fetch(split, tmp_path)
    assert [row.sequence for row in rows] == ["bear", "dog"]  # not `unlisted`
    assert not rows[1].attributes and not rows[1].problem
    assert (rows[1].n_frames, rows[1].height, rows[1].width, rows[1].annotated_frames) == (4, *SIZE, 4)
    assert rows[1].object_ids == (1, 2) and rows[1].first_appearance == (0, 0) and rows[1].has_ground_truth
    assert (root / "JPEGImages/bear/00001.jpg").read_bytes() == files["DAVIS/JPEGImages/480p/bear/00001.jpg"]
    assert "found 2 sequences, but the catalog expects 30" in caplog.text
    shutil.rmtree(tmp_path / "resources/extracted/davis2017/DAVIS-2017-trainval-480p.zip/DAVIS/JPEGImages/480p/dog")
    with pytest.raises(DataError, match=r"no frames of 1 listed sequences in .*: dog; add the frames"):
        prepare_split(split, tmp_path / "resources")
    assert read_counts(root / "sequences.parquet") == (2, 30)
    assert not (tmp_path / "resources/extracted/davis2017/DAVIS-2017-trainval-480p.zip/DAVIS/README.md").exists()


def test_davis_2016_has_one_object(tmp_path):
    """Masks of 0 and 255, and a list of files instead of names."""
    files = {}
    for index in range(3):
        files[f"DAVIS/JPEGImages/480p/cow/{index:05d}.jpg"] = frame(index)
        files[f"DAVIS/Annotations/480p/cow/{index:05d}.png"] = mask(index, value=255)
    lines = [f"/JPEGImages/480p/cow/{i:05d}.jpg /Annotations/480p/cow/{i:05d}.png" for i in range(3)]
    files["DAVIS/ImageSets/480p/val.txt"] = "\n".join(lines).encode()
    root, rows = fetch(from_catalog("davis2016/val", {"DAVIS-data.zip": zip_of(files)}, tmp_path), tmp_path)
    assert rows[0].object_ids == (1,) and rows[0].annotated_frames == 3
    assert set(np.unique(read_mask(root / "Annotations/cow/00002.png"))) == {0, 1}


def test_mose(tmp_path):
    split = from_catalog("mose/val", {"valid.tar.gz": tar_of(miniature.mose({"0a1b": 3, "ff00": 5}))}, tmp_path)
    _, rows = fetch(split, tmp_path)
    assert [(row.sequence, row.annotated_frames, row.has_ground_truth) for row in rows] == [
        ("0a1b", 1, False),
        ("ff00", 1, False),
    ]


def test_mose_train_is_split_into_two_parts(tmp_path):
    """The held-out tenth and the rest are disjoint, complete, and the same on every machine."""
    content = tar_of(miniature.mose({f"v{index:02d}": 1 for index in range(20)}, "train", dense=True))
    parts = []
    for name in ("mose/val-local", "mose/train-local"):
        split = from_catalog(name, {"train.tar.gz": content}, tmp_path)
        parts.append([row.sequence for row in fetch(split, tmp_path)[1]])
    assert parts[0] == ["v06", "v13"]
    assert sorted(parts[0] + parts[1]) == [f"v{index:02d}" for index in range(20)]
    assert len(list((tmp_path / "resources/extracted/mose").glob("*.json"))) == 1  # extracted once


def test_mosev2_with_its_meta_file(tmp_path):
    meta = json.dumps({"videos": {"aa": {"objects": ["1", "2"], "length": 2}}}).encode()
    contents = {"valid.tar.gz": tar_of(miniature.mose({"aa": 2})), "meta_valid.json": meta}
    root, rows = fetch(from_catalog("mosev2/val", contents, tmp_path), tmp_path)
    assert len(rows) == 1 and json.loads((root / "meta.json").read_text()) == json.loads(meta)


def test_lvos(tmp_path):
    files, meta, attributes = miniature.lvos({"aaaa": 6, "bbbb": 4})
    contents = {"val.zip": zip_of(files), "valid_meta.json": meta, "val_meta_attribute.json": attributes}
    root, rows = fetch(from_catalog("lvos-v2/val", contents, tmp_path), tmp_path)
    assert rows[0].first_frame == "00000001" and rows[0].n_frames == 6
    assert rows[0].object_ids == (1, 2) and rows[0].first_appearance == (0, 2)
    assert rows[0].attributes == ("LRA", "OCC") and rows[1].attributes == ("FM",)
    assert json.loads((root / "meta.json").read_text()) == json.loads(meta)


@pytest.mark.parametrize("root", ["val", "valid", "LVOS/v2/val"])
def test_lvos_with_the_meta_file_in_its_archive_or_without(tmp_path, root):
    files, meta, _ = miniature.lvos({"aaaa": 3}, root)
    folder, rows = fetch(from_catalog("lvos-v2/val", {"val.zip": zip_of(files)}, tmp_path), tmp_path)
    assert len(rows) == 1 and not (folder / "meta.json").exists()
    shutil.rmtree(tmp_path / "resources")
    files[f"{root}/val_meta.json"] = meta
    folder, _ = fetch(from_catalog("lvos-v2/val", {"val.zip": zip_of(files)}, tmp_path), tmp_path)
    assert json.loads((folder / "meta.json").read_text()) == json.loads(meta)


def test_youtube_vos(tmp_path):
    files = miniature.youtube_vos({"003234408d": 4, "0062f687f1": 5})
    root, rows = fetch(from_catalog("youtube-vos-2019/valid", {"valid.zip": zip_of(files)}, tmp_path), tmp_path)
    assert rows[0].first_appearance == (0, 2) and rows[0].annotated_frames == 2
    videos = json.loads((root / "meta.json").read_text())["videos"]
    assert videos["0062f687f1"]["objects"]["2"]["frames"] == ["00010", "00015", "00020"]


def test_youtube_vos_with_all_frames(tmp_path):
    """Masks and meta.json are those of `valid`, frames those of the other archive, in which an object starts later."""
    every = {f"valid_all_frames/JPEGImages/aa/{index:05d}.jpg": frame(index // 5) for index in range(20)}
    contents = {"valid.zip": zip_of(miniature.youtube_vos({"aa": 4})), "valid_all_frames.zip": zip_of(every)}
    _, rows = fetch(from_catalog("youtube-vos-2019/valid-all-frames", contents, tmp_path), tmp_path)
    assert rows[0].n_frames == 20 and rows[0].first_appearance == (0, 10)


def test_sa_v(tmp_path):
    """One folder per object, overlapping masks, object 000, and an object whose first mask is empty."""
    files = miniature.sa_v({"sav_000001": 10, "sav_000002": 9})
    root, rows = fetch(from_catalog("sa-v/val", {"sav_val.tar": tar_of(files, "w")}, tmp_path), tmp_path)
    assert rows[0].object_ids == (0, 1) and rows[0].first_appearance == (4, 0)
    assert rows[0].n_frames == 10 and rows[0].annotated_frames == 3 and not rows[0].problem
    sequence = read_sequence(root / "JPEGImages", root / "Annotations", "sav_000001")
    prompts = sequence.object_prompts()
    assert {index: list(masks) for index, masks in prompts.items()} == {0: [1], 4: [0]}
    assert prompts[4][0].dtype == bool and prompts[4][0].sum() == 16 * 12
    assert (sequence.object_mask(0, 8) & sequence.object_mask(1, 8)).any()
    assert sequence.object_folder(1) == "001"
    with pytest.raises(DataError, match="overlap"):
        sequence.prompts()


def test_label_255_is_no_object(tmp_path):
    """It says `ignore`: never a prompt."""
    for folder, name, content in (("JPEGImages", "0.jpg", frame(0)), ("Annotations", "0.png", mask(0))):
        (tmp_path / folder / "a").mkdir(parents=True)
        (tmp_path / folder / "a" / name).write_bytes(content)
    labels = read_mask(tmp_path / "Annotations/a/0.png").copy()
    labels[labels == 2] = 255
    write_mask(tmp_path / "Annotations/a/0.png", labels)
    sequence = read_sequence(tmp_path / "JPEGImages", tmp_path / "Annotations", "a")
    assert set(np.unique(sequence.prompts()[0])) == {0, 1} and list(sequence.object_prompts()[0]) == [1]


@pytest.mark.parametrize(("name", "content", "words"), [
    ("0.png", None, "0 or 255, and 255 means ignore: set `binary: true` for this dataset, or write 1"),
    ("0.jpg", frame(0), r"no PNG in .*/mine/Annotations/a, but 1 \.jpg; masks must be PNG$"),
    ("notes", b"", r"no PNG in .*/mine/Annotations/a; masks must be PNG$"),
    (None, b"", r"no masks for the frames in .*/mine/JPEGImages/a; expected PNGs, for the first at least$"),
])  # fmt: skip
def test_masks_without_an_object_say_what_to_do(tmp_path, name, content, words):
    """In the folder that the user knows, not in the prepared one."""
    mine = tmp_path / "mine"
    (mine / "JPEGImages/a").mkdir(parents=True)
    (mine / "JPEGImages/a/0.jpg").write_bytes(frame(0))
    (mine / "Annotations/b").mkdir(parents=True)
    if name:
        (mine / "Annotations/a").mkdir()
        (mine / "Annotations/a" / name).write_bytes(content or b"")
    if content is None:
        write_mask(mine / "Annotations/a/0.png", np.eye(*SIZE, dtype=np.uint8) * 255)
    _, rows = fetch(Split(dataset="mine", name="all", path=str(mine)), tmp_path)
    assert re.search(words, rows[0].problem)
    _, rows = fetch(Split(dataset="mine", name="all", path=str(mine), binary=True), tmp_path)
    assert rows[0].object_ids == (1,) if content is None else re.search(words, rows[0].problem)


def test_prompts_alone_are_no_ground_truth(dataset, tmp_path, caplog):
    split = Split(dataset="squares", name="all", path=str(dataset))
    fetch(split, tmp_path)
    assert not caplog.text
    for path in (dataset / "Annotations").glob("*/*.png"):
        if int(path.stem):
            path.unlink()
    fetch(Split(dataset="squares", name="all", path=str(dataset), ground_truth="none"), tmp_path)
    assert not caplog.text
    fetch(split, tmp_path)
    assert "squares/all: 3 of 3 sequences have a mask for one frame only" in caplog.text
    assert "set `ground_truth: first_frame` (a server scores) or `none`" in caplog.text


def test_a_video_without_its_layout(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/boxes.mp4").touch()
    with pytest.raises(DataError, match=r"no folder JPEGImages/; .*; found boxes\.mp4: set `layout: video`$"):
        fetch(Split(dataset="mine", name="all", path=str(tmp_path / "mine")), tmp_path)


def test_object_prompts_of_label_maps(tmp_path):
    """Every sequence can be tracked object by object: the same masks as in the label maps."""
    root, _ = fetch(from_catalog("youtube-vos-2019/valid", {"valid.zip": zip_of(miniature.youtube_vos({"aa": 4}))},
                                 tmp_path), tmp_path)  # fmt: skip
    sequence = read_sequence(root / "JPEGImages", root / "Annotations", "aa")
    flat, single = sequence.prompts(), sequence.object_prompts()
    assert {index: list(masks) for index, masks in single.items()} == {0: [1], 2: [2]}
    for index, masks in single.items():
        assert all((masks[number] == (flat[index] == number)).all() for number in masks)


@pytest.mark.parametrize("names", [("JPEGImages", "Annotations"), ("images", "masks"), ("rgb", "labels"), (".", "m")])
def test_a_plain_folder(tmp_path, names):
    images, masks = names
    for name in ("one", "two"):
        for folder, suffix, make in ((images, "png", frame), (masks, "png", mask)):
            (tmp_path / "mine" / folder / name).mkdir(parents=True)
            for index in (9, 10):
                place = tmp_path / "mine" / folder / name / f"{index}.{'jpg' if make is frame else suffix}"
                place.write_bytes(make(index))
    given = {} if images in ("JPEGImages", "images") else {"images": images, "masks": masks}
    split = Split(dataset="mine", name="all", path=str(tmp_path / "mine"), layout="folder", **given)
    _, rows = fetch(split, tmp_path)
    assert [(row.sequence, row.n_frames, row.first_frame) for row in rows] == [
        ("one", 2, "9"),
        ("two", 2, "9"),
    ]


def test_an_archive_with_folders_of_other_names(tmp_path):
    files = {f"top/rgb/a/{index}.jpg": frame(index) for index in range(3)}
    files |= {"top/labels/a/0.png": mask(0), "top/flow/a/0.png": mask(0), "top/Annotations/a/0.jpg": frame(0)}
    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_of(files))
    item = {"sources": [{"local": str(archive)}]}
    split = Split(dataset="mine", name="all", archive_namespace="mine", archives=(item,), images="rgb", masks="labels")
    _, rows = fetch(split, tmp_path)
    assert (rows[0].n_frames, rows[0].object_ids) == (3, (1, 2))
    extracted = tmp_path / "resources/extracted/mine/a.zip/top"
    assert sorted(path.name for path in extracted.iterdir()) == ["Annotations", "labels", "rgb"]


def test_the_frames_of_one_sequence(tmp_path):
    """They and their masks need no folder of the sequence's name."""
    for folder, make in (("frames", frame), ("masks", mask)):
        (tmp_path / "one" / folder).mkdir(parents=True)
        for index in range(3):
            (tmp_path / "one" / folder / f"{index}.{'jpg' if make is frame else 'png'}").write_bytes(make(index))
    _, rows = fetch(Split(dataset="one", name="all", path=str(tmp_path / "one"), layout="folder"), tmp_path)
    assert [(row.sequence, row.n_frames, row.annotated_frames) for row in rows] == [("one", 3, 3)]


def test_an_entry_that_is_mended_has_its_archive_extracted_again(tmp_path):
    """What is needed of an archive depends on layout and folders; other splits keep what they need."""
    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_of({"top/JPEGImages/a/0.jpg": frame(0), "top/labels/a/0.png": mask(0)}))
    split = Split(
        dataset="mine", name="all", archive_namespace="mine", archives=({"sources": [{"local": str(archive)}]},)
    )
    with pytest.raises(DataError, match="no folder Annotations/"):
        fetch(split, tmp_path)
    for masks in ("labels", "JPEGImages"):
        fetch_split(split.model_copy(update={"masks": masks}), tmp_path / "resources", RetryPolicy(1, 1, 0))
        assert (tmp_path / "resources/extracted/mine/a.zip/top/labels/a/0.png").is_file()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("f.jpg", "f.png"), "same frame"),
        (("1.jpg", "00001.jpg"), "same frame"),
        (("00000.jpg", "cover.jpg"), "cover.jpg has no number"),
        (("f2.jpg", "f10.jpg"), "leading zeros"),
    ],
)
def test_frames_whose_order_is_not_certain(tmp_path, names, words):
    """They fail by name; other files next to the frames do not matter."""
    (tmp_path / "good").mkdir()
    for name in ("f02.jpg", "f10.jpg", "f03.jpg", "notes.txt", ".hidden.jpg"):
        (tmp_path / "good" / name).touch()
    assert [path.name for path in numbered_files(tmp_path / "good", (".jpg",))] == ["f02.jpg", "f03.jpg", "f10.jpg"]
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=words):
        numbered_files(tmp_path, (".jpg", ".png"))


def write_video(path: Path, frames: int) -> list[np.ndarray]:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 24, (64, 48))
    images = [np.full((48, 64, 3), 20 + 9 * index, np.uint8) for index in range(frames)]
    for image in images:
        writer.write(image)
    writer.release()
    return images


def test_videos(tmp_path):
    """Every frame once and in order: the brightness counts them."""
    images = write_video(tmp_path / "clips/videos/walk.mp4", 25)
    folder = tmp_path / "clips/Annotations/walk"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "00000.png"), np.pad(np.ones((8, 8), np.uint8), ((4, 36), (4, 52))))
    split = Split(dataset="clips", name="all", path=str(tmp_path / "clips"), layout="video", ground_truth="first_frame")
    root, rows = fetch(split, tmp_path)
    assert (rows[0].n_frames, rows[0].height, rows[0].width) == (25, 48, 64)
    for index, image in enumerate(images):
        decoded = cv2.imread(str(root / f"JPEGImages/walk/{index:05d}.png"))
        assert abs(int(decoded.mean()) - int(image.mean())) <= 4
    whole = (tmp_path / "clips/videos/walk.mp4").read_bytes()
    (tmp_path / "clips/videos/walk.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="walk"):
        fetch(split, tmp_path)


def test_selection():
    names = [f"{kind}-{index}" for kind in ("cat", "dog") for index in range(10)]
    attributes = {name: ["small"] for name in names[::2]}

    def chosen(**options) -> list[str]:
        return select_sequences(names, Split(dataset="d", name="s", **options), attributes)

    assert chosen(select=("cat-*", "dog-3")) == [*names[:10], "dog-3"]
    assert chosen(exclude=("*-[0-8]",)) == ["cat-9", "dog-9"]
    assert chosen(attributes=("small", "other"), select=("cat-?",)) == names[:10:2]
    drawn = chosen(sample={"fraction": 0.25, "seed": 1})
    assert len(drawn) == 5 and drawn != chosen(sample={"fraction": 0.25, "seed": 2})
    assert chosen(sample={"fraction": 0.25, "seed": 1, "part": "rest"}) == [name for name in names if name not in drawn]


def test_what_is_prepared_is_left_alone_until_it_changes(dataset, tmp_path):
    """Two runs may share it; a new sequence in the user's folder is noticed."""
    split = Split(dataset="squares", name="all", path=str(dataset))
    root = tmp_path / "resources/datasets/squares/all"
    prepare_split(split, tmp_path / "resources")
    inode, state = (root / "JPEGImages").stat().st_ino, source_fingerprint(split)
    prepare_split(split, tmp_path / "resources")
    assert (root / "JPEGImages").stat().st_ino == inode
    for kind in ("JPEGImages", "Annotations"):
        shutil.copytree(dataset / kind / "alpha", dataset / kind / "delta")
    assert source_fingerprint(split) != state
    prepare_split(split, tmp_path / "resources")
    index_split(root, root / "sequences.parquet", split)
    assert len(read_table(root / "sequences.parquet")) == 4
    shutil.rmtree(root / "Annotations")  # what is taken away is made again
    prepare_split(split, tmp_path / "resources")
    assert (root / "Annotations/alpha/00000.png").is_file()


def test_resources_can_be_moved(tmp_path):
    split = from_catalog("mose/val", {"valid.tar.gz": tar_of(miniature.mose({"aa": 2}))}, tmp_path)
    fetch(split, tmp_path)
    (tmp_path / "resources").rename(tmp_path / "moved")
    assert (tmp_path / "moved/datasets/mose/val/JPEGImages/aa/00001.jpg").is_file()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"valid/x.txt": b""}, "no folder JPEGImages/"),
        ({"other/JPEGImages/a/00000.jpg": frame(0)}, "no folder valid/"),
        ({"valid/JPEGImages/a/00000.jpg": frame(0)}, "no folder Annotations/"),
    ],
)
def test_an_archive_without_what_it_should_have(tmp_path, files, words):
    with pytest.raises(DataError, match=words) as caught:
        fetch(from_catalog("mose/val", {"valid.tar.gz": tar_of(files)}, tmp_path), tmp_path)
    assert "\n" not in str(caught.value)
    assert not os.path.lexists(tmp_path / "resources/datasets/mose/val/JPEGImages")
