"""Inputs as people have them: one that cannot be used fails alone and by name, one that changed is noticed."""

import json
import os
import re
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import write_sequence
from vosarena.base.errors import DataError
from vosarena.base.names import escape_unprintable, expand_home
from vosarena.cli import main
from vosarena.config.catalogs import Split, load_catalog
from vosarena.config.study import load_study
from vosarena.datasets import prepare
from vosarena.datasets.facts import frame_rate_of
from vosarena.datasets.prepare import prepare_split, source_fingerprint
from vosarena.datasets.sequences import (
    FULL_ANNOTATIONS,
    FULL_IMAGES,
    frame_number,
    in_resolution,
    read_names,
    read_sequence,
    subfolders,
)
from vosarena.datasets.table import index_split, read_table, select_sequences
from vosarena.fetching.sources import LocalSource
from vosarena.io.frames import image_size, read_frame
from vosarena.io.masks import read_mask, write_mask
from vosarena.io.video import decode_video
from vosarena.metrics.measure_split import pair_predictions
from vosarena.predictions.store import Store


def rows_of(tmp_path: Path, root: Path, **options) -> dict[str, dict]:
    """Rows of the table of sequences by name, of a folder that is prepared and indexed."""
    split = Split(dataset="mine", name="all", path=str(root), **options)
    prepared = tmp_path / "resources/datasets/mine/all"
    prepare_split(split, tmp_path / "resources")
    index_split(prepared, prepared / "sequences.parquet", split)
    return {row.sequence: row for row in read_table(prepared / "sequences.parquet")}


def write_binary(path: Path, width: int = 20) -> None:
    labels = np.zeros((48, 64), np.uint8)
    labels[:, :width] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels, "L").save(path, format="PNG")


def write_video(path: Path, frames: int = 5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for index in range(frames):
        writer.write(np.full((48, 64, 3), 8 * index, np.uint8))
    writer.release()


def _empty_mask(root: Path) -> None:
    (root / "Annotations/bad/00002.png").write_bytes(b"")


def _cut_mask(root: Path) -> None:
    path = root / "Annotations/bad/00000.png"
    path.write_bytes(path.read_bytes()[:-20])


def _colour_mask(root: Path) -> None:
    Image.new("RGB", (64, 48)).save(root / "Annotations/bad/00000.png")


def _same_frame_twice(root: Path) -> None:
    shutil.copy(root / "JPEGImages/bad/00000.jpg", root / "JPEGImages/bad/00000.png")


def _same_mask_twice(root: Path) -> None:
    shutil.copy(root / "Annotations/bad/00000.png", root / "Annotations/bad/0.PNG")


def _damaged_frame(root: Path) -> None:
    (root / "JPEGImages/bad/00000.jpg").write_bytes(b"junk")


def _superscript(root: Path) -> None:
    shutil.copy(root / "JPEGImages/bad/00000.jpg", root / "JPEGImages/bad/0000².jpg")


def _not_utf8(root: Path) -> None:
    shutil.copy(root / "JPEGImages/bad/00000.jpg", os.fsencode(root / "JPEGImages/bad") + b"/caf\xe9.jpg")


def _broken_link(root: Path) -> None:
    (root / "JPEGImages/bad/00009.jpg").symlink_to("nowhere.jpg")


def _folder_of_broken_link(root: Path) -> None:
    shutil.rmtree(root / "JPEGImages/bad")
    (root / "JPEGImages/bad").symlink_to("nowhere")


def _folder_as_frame(root: Path) -> None:
    (root / "JPEGImages/bad/00009.jpg").mkdir()


def _pipe(root: Path) -> None:
    os.mkfifo(root / "JPEGImages/bad/00009.jpg")


def _video_of_the_same_name(root: Path) -> None:
    write_video(root / "JPEGImages/bad.mp4")


def _objects_with_odd_names(root: Path) -> None:
    (root / "Annotations/bad/²").mkdir()
    for path in (root / "Annotations/bad").glob("*.png"):
        path.rename(root / "Annotations/bad/²" / path.name)


BAD = [
    (_empty_mask, "zero bytes"),
    (_cut_mask, "damaged"),
    (_colour_mask, "is RGB"),
    (_same_frame_twice, "00000.jpg and 00000.png are the same frame"),
    (_same_mask_twice, "0.PNG and 00000.png are the same frame"),
    (_damaged_frame, "00000"),
    (_superscript, "0000².jpg has no number"),
    (_not_utf8, r"caf\xe9.jpg: its name is not UTF-8"),
    (_broken_link, "00009.jpg: a folder or a broken link"),
    (_folder_of_broken_link, "broken link"),
    (_folder_as_frame, "00009.jpg: a folder or a broken link"),
    (_pipe, "00009.jpg: a folder or a broken link"),
    (_video_of_the_same_name, "JPEGImages/bad.mp4 are both sequence bad"),
    (_objects_with_odd_names, "²: object folders must be numbers"),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize(("spoil", "words"), BAD, ids=[spoil.__name__ for spoil, _ in BAD])
def test_a_bad_file_fails_its_own_sequence(tmp_path, spoil, words, binary):
    """In the table, and with the same words where it is tracked."""
    for name in ("bad", "good"):
        write_sequence(tmp_path / "mine", name, frames=3)
    spoil(tmp_path / "mine")
    rows = rows_of(tmp_path, tmp_path / "mine", binary=binary)
    assert not rows["good"].problem and rows["good"].object_ids == ((1,) if binary else (1, 2))
    if spoil is _empty_mask and not binary:
        return  # found where the mask is first read: objects were all prompted before it
    assert words in rows["bad"].problem and "resources" not in rows["bad"].problem
    prepared = tmp_path / "resources/datasets/mine/all"
    with pytest.raises(DataError) as caught:
        sequence = read_sequence(prepared / "JPEGImages", prepared / "Annotations", "bad")
        sequence.prompts()
        sequence.size  # noqa: B018
    assert words in escape_unprintable(str(caught.value))


@pytest.mark.parametrize("name", [b"caf\xe9", b"a\nb", "é".encode() * 120])
def test_a_sequence_whose_name_cannot_be_used(tmp_path, name):
    write_sequence(tmp_path / "mine", "good", frames=2)
    for kind in ("JPEGImages", "Annotations"):
        source = os.fsencode(tmp_path / "mine" / kind)
        shutil.copytree(source + b"/good", source + b"/" + name)
    rows = rows_of(tmp_path, tmp_path / "mine")
    bad = next(row for row in rows.values() if row.problem)
    assert len(rows) == 2 and not rows["good"].problem
    assert bad.problem.endswith("rename it") and len(bad.sequence.encode()) <= 200
    assert bad.sequence.isprintable() and bad.sequence[:1] in "caé"


@pytest.mark.parametrize("name", ["[a]", "a*", "?", "{x}", "<b>", "a b", "-n", "~", "²", "x.mp4", "x.gif", "50%", "$X"])
def test_odd_names_are_names(tmp_path, name):
    """Never a pattern, an option or another language; all of it is found and selected by its name."""
    for each in (name, "other", "a"):
        write_sequence(tmp_path / "mine", each, frames=2)
    for binary in (False, True):
        rows = rows_of(tmp_path, tmp_path / "mine", binary=binary)
        assert set(rows) == {name, "other", "a"} and not any(row.problem for row in rows.values())
    assert list(rows_of(tmp_path, tmp_path / "mine", select=(name,))) == [name]
    assert set(rows_of(tmp_path, tmp_path / "mine", exclude=(name,))) == {"other", "a"}


def test_files_of_the_system_are_no_input(tmp_path):
    write_sequence(tmp_path / "mine", "good", frames=2)
    for folder in ("", "JPEGImages", "Annotations", "JPEGImages/good", "Annotations/good"):
        for name in (".DS_Store", "._00000.jpg", "._00000.png", "Thumbs.db", "desktop.ini", ".attributes.json"):
            (tmp_path / "mine" / folder / name).write_bytes(b"\0\1")
        for name in ("__MACOSX", ".ipynb_checkpoints", "@eaDir"):
            (tmp_path / "mine" / folder / name).mkdir()
    for options in ({}, {"binary": True}, {"layout": "folder"}):
        rows = rows_of(tmp_path, tmp_path / "mine", **options)
        assert list(rows) == ["good"] and rows["good"].n_frames == 2 and not rows["good"].problem


def test_two_videos_of_one_name_and_videos_that_cannot_be_read(tmp_path):
    """Each fails alone, with the files that the user knows; if none is left, the split does."""
    videos = tmp_path / "mine/videos"
    for name in ("good.mp4", "twice.mp4", "twice.MOV", "both.avi"):
        write_video(videos / name)
    (videos / "both").mkdir()
    for name in ("junk.mp4", "old.mpg", "moving.GIF"):
        (videos / name).write_bytes(b"junk")
    (videos / "notes.txt").touch()
    for name in ("good", "twice", "both", "junk", "old", "moving"):
        write_binary(tmp_path / f"mine/masks/{name}/00000.png")
    rows = rows_of(tmp_path, tmp_path / "mine", layout="video", ground_truth="none", binary=True)
    assert set(rows) == {"good", "twice", "both", "junk", "old", "moving"}
    assert rows["good"].n_frames == 5 and not rows["good"].problem
    rates = tmp_path / "resources/datasets/mine/all/frame_rates.json"
    assert list(json.loads(rates.read_text())) == ["good"]
    split = Split(dataset="mine", name="all")
    assert frame_rate_of(split, rates.parent, "good") == json.loads(rates.read_text())["good"] > 0
    assert frame_rate_of(split, rates.parent, "other") == 24
    assert frame_rate_of(split.model_copy(update={"frame_rate": 6}), rates.parent, "good") == 6
    assert "twice.MOV and " in rows["twice"].problem and "twice.mp4 are both" in rows["twice"].problem
    assert "both.avi and " in rows["both"].problem
    assert "videos/junk.mp4: not a video" in rows["junk"].problem
    assert "videos/old.mpg: a video must be .mp4" in rows["old"].problem
    assert "videos/moving.GIF: a video must be .mp4" in rows["moving"].problem
    for path in videos.glob("*.*"):
        if path.name not in ("junk.mp4", "old.mpg"):
            path.unlink()
    with pytest.raises(DataError, match=r"videos/junk\.mp4: not a video .* \(and 1 more sequences"):
        rows_of(tmp_path, tmp_path / "mine", layout="video", ground_truth="none")


@pytest.mark.parametrize(("files", "layout", "words"), [
    ({"videos/clip.foo": b""}, "video", r"mine/videos: no video in it; expected .*; found clip\.foo$"),
    ({"JPEGImages/clip.mp4": b""}, "davis", r"JPEGImages: no folders in it.*found clip\.mp4: set `layout: video`$"),
    ({"JPEGImages/00000.jpg": b""}, "davis",
     r"JPEGImages: no folders in it; .* per sequence; found 00000\.jpg; .*`layout: folder`$"),
])  # fmt: skip
def test_a_folder_without_sequences_says_what_is_there(tmp_path, files, layout, words):
    for name, content in files.items():
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / name).write_bytes(content)
    (tmp_path / "mine/Annotations").mkdir()
    with pytest.raises(DataError, match=words):
        rows_of(tmp_path, tmp_path / "mine", layout=layout, ground_truth="none")


@pytest.mark.parametrize("options", [{"binary": True}, {}], ids=["binary", "labels"])
@pytest.mark.parametrize("ending", [".png", ".PNG"])
def test_binary_masks_in_capitals(tmp_path, options, ending):
    write_sequence(tmp_path / "mine", "a", frames=2)
    shutil.rmtree(tmp_path / "mine/Annotations/a")
    for index in range(2):
        write_binary(tmp_path / f"mine/Annotations/a/{index:05d}{ending}")
    row = rows_of(tmp_path, tmp_path / "mine", **options)["a"]
    assert row.annotated_frames == 2 and bool(row.problem) is not bool(options)


def _edit_in_place(root: Path) -> None:
    before = (root / "Annotations/a/00001.png").stat()
    write_binary(root / "Annotations/a/00001.png", width=30)
    os.utime(root / "Annotations/a/00001.png", ns=(before.st_atime_ns, before.st_mtime_ns))


def _edit_by_replacing(root: Path) -> None:
    write_binary(root / "new.png", width=30)
    os.utime(root / "new.png", (0, 0))
    (root / "new.png").replace(root / "Annotations/a/00001.png")


def _replace_folder(root: Path) -> None:
    """By one that is older and has files of the same names, as `mv` and `tar` do."""
    shutil.move(root / "Annotations/a", root / "old")
    shutil.copytree(root / "old", root / "Annotations/a", copy_function=shutil.copy2)
    write_binary(root / "Annotations/a/00001.png", width=30)
    os.utime(root / "Annotations/a", ns=((root / "old").stat().st_atime_ns, (root / "old").stat().st_mtime_ns))


@pytest.mark.parametrize("change", [_edit_in_place, _edit_by_replacing, _replace_folder])
def test_changed_binary_masks_are_read_again(tmp_path, change):
    write_sequence(tmp_path / "mine", "a", frames=3)
    for index in range(3):
        write_binary(tmp_path / f"mine/Annotations/a/{index:05d}.png")
    mask = tmp_path / "resources/datasets/mine/all/Annotations/a/00001.png"
    rows_of(tmp_path, tmp_path / "mine", binary=True)
    assert read_mask(mask).sum() == 48 * 20
    change(tmp_path / "mine")
    rows_of(tmp_path, tmp_path / "mine", binary=True)
    assert read_mask(mask).sum() == 48 * 30


def test_what_changes_the_state_of_a_folder(tmp_path):
    """Folders with old times too; and nothing is read, so that planning stays quick."""
    root = tmp_path / "mine"
    write_sequence(root, "a", frames=2)
    write_sequence(tmp_path / "other", "a", frames=3)
    for folder in (root, tmp_path / "other"):
        for kind in ("JPEGImages", "Annotations"):
            os.utime(folder / kind / "a", (0, 0))
    split = Split(dataset="mine", name="all", path=str(root))
    states = [source_fingerprint(split)]
    assert source_fingerprint(split) == states[0]

    def changed() -> bool:
        states.append(source_fingerprint(split))
        return states[-1] not in states[:-1]

    for kind in ("JPEGImages", "Annotations"):
        shutil.move(root / kind / "a", tmp_path / kind)
        shutil.move(tmp_path / "other" / kind / "a", root / kind / "a")
        assert changed()
    (root / "attributes.json").write_text('{"a": ["fast"]}')
    assert changed()
    time.sleep(0.01)
    (root / "JPEGImages/a/00001.jpg").unlink()
    os.utime(root / "JPEGImages/a", (0, 0))
    assert changed()
    shutil.rmtree(root / "Annotations/a")
    assert changed()
    for number in (0, 1):  # a folder for each object
        write_binary(root / f"Annotations/a/{number}/00000.png")
        assert changed()
    (root / "Annotations/a/1/00000.png").rename(root / "Annotations/a/1/00001.png")
    assert changed()


def test_a_video_that_was_replaced_by_an_older_one(tmp_path):
    write_video(tmp_path / "mine/videos/clip.mp4", 3)
    write_video(tmp_path / "clip.mp4", 4)
    for path in (tmp_path / "mine/videos/clip.mp4", tmp_path / "clip.mp4"):
        os.utime(path, (0, 0))
    write_binary(tmp_path / "mine/masks/clip/00000.png")
    options = {"layout": "video", "ground_truth": "none", "binary": True}
    assert rows_of(tmp_path, tmp_path / "mine", **options)["clip"].n_frames == 3
    shutil.move(tmp_path / "clip.mp4", tmp_path / "mine/videos/clip.mp4")
    assert rows_of(tmp_path, tmp_path / "mine", **options)["clip"].n_frames == 4


def test_names_that_match_nothing_are_reported(caplog):
    split = Split(dataset="mine", name="all", select=("cat-*", "dog-l"), exclude=("bird",), attributes=("smal",))
    assert select_sequences(["cat-1", "dog-1"], split, {"cat-1": ["small"]}) == []
    assert "`select` has 'dog-l', which fits no sequence; did you mean 'dog-1'?" in caplog.text
    assert "`exclude` has 'bird'" in caplog.text and "`attributes` has 'smal'" in caplog.text
    assert "cat-*" not in caplog.text


def test_masks_without_frames_are_reported(tmp_path, caplog):
    write_sequence(tmp_path / "mine", "a", frames=2)
    shutil.copytree(tmp_path / "mine/Annotations/a", tmp_path / "mine/Annotations/b")
    rows_of(tmp_path, tmp_path / "mine")
    assert "1 folders of masks have no frames: b" in caplog.text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_lists_of_names(tmp_path, encoding, newline):
    lines = ["b é", "", "a/", "/JPEGImages/480p/cow/00000.jpg /Annotations/480p/cow/00000.png", "b é"]
    (tmp_path / "list.txt").write_bytes(newline.join(lines).encode(encoding))
    assert read_names(tmp_path / "list.txt") == ["b é", "a", "cow"]
    write_sequence(tmp_path / "mine", "a", frames=2)
    write_sequence(tmp_path / "mine", "b", frames=2)
    (tmp_path / "mine/val.txt").write_bytes("a\n".encode(encoding))
    assert list(rows_of(tmp_path, tmp_path / "mine", imageset="val.txt")) == ["a"]


def test_a_list_that_is_no_text(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match=r"list\.txt: not a text file in UTF-8"):
        read_names(tmp_path / "list.txt")


def test_frames_in_two_sizes(tmp_path):
    """The larger ones are linked next to the ordinary ones, which the table describes."""
    for size, resolution in (((48, 64), "480p"), ((96, 128), "Full-Resolution")):
        write_sequence(tmp_path, "clip", size=size)
        for kind in ("JPEGImages", "Annotations"):
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
            (tmp_path / kind).rename(tmp_path / "data" / kind / resolution)
    folders = {"full_images": "JPEGImages/Full-Resolution", "full_masks": "Annotations/Full-Resolution"}
    rows = rows_of(tmp_path, tmp_path / "data", **folders)
    assert (rows["clip"].height, rows["clip"].width) == (48, 64)
    prepared = tmp_path / "resources/datasets/mine/all"
    full = read_sequence(prepared / FULL_IMAGES, prepared / FULL_ANNOTATIONS, "clip")
    assert full.size == full.mask(0).shape == (96, 128)
    with pytest.raises(DataError, match="no folders of sequences in Annotations/Full/; fix `full_masks` of mine/all"):
        rows_of(tmp_path, tmp_path / "data", **folders | {"full_masks": "Annotations/Full"})


@pytest.mark.parametrize("resolution", ["480p", "Full-Resolution", "1080p"])
def test_folders_of_a_resolution(tmp_path, resolution):
    write_sequence(tmp_path / "plain", "a", frames=2)
    for kind in ("JPEGImages", "Annotations"):
        shutil.copytree(tmp_path / "plain" / kind, tmp_path / "mine" / kind / resolution)
        assert subfolders(in_resolution(tmp_path / "mine" / kind)) == ["a"]
    assert rows_of(tmp_path, tmp_path / "mine")["a"].n_frames == 2


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        ("nowhere", "nowhere: no such folder"),
        ("mine/Annotations/480p/a", "this one contains masks itself, give its parent folder"),
        ("others", "others: no masks of any sequence in "),
    ],
)
def test_track_with_a_wrong_folder_of_masks(tmp_path, monkeypatch, capsys, masks, words):
    """The right one may also be the dataset's own folder; `~` may follow an equals sign."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write_sequence(tmp_path / "plain", "a", frames=2)
    for kind in ("JPEGImages", "Annotations"):
        shutil.copytree(tmp_path / "plain" / kind, tmp_path / "mine" / kind / "480p")
    shutil.copytree(tmp_path / "plain/Annotations/a", tmp_path / "others/b")
    arguments = ["track", "--tracker", "static", "--images=~/mine/JPEGImages", "--output=~/out"]
    assert main([*arguments, f"--masks=~/{masks}"]) == 1
    assert words in capsys.readouterr().err
    assert main([*arguments, "--masks=~/mine"]) == 0 and (tmp_path / "out/a/00001.png").is_file()


@pytest.mark.parametrize("name", ["attributes.json", "meta.json"])
@pytest.mark.parametrize("change", [lambda data: b"", lambda data: data.replace(b"1", b"2"), None])
def test_what_a_dataset_says_of_its_sequences_cannot_change_unnoticed(tmp_path, name, change):
    write_sequence(tmp_path / "mine", "a", frames=2)
    (tmp_path / "mine/attributes.json").write_text('{"a": ["fast1"]}')
    (tmp_path / "mine/meta.json").write_text('{"videos": {"a": {"objects": {"1": {"frames": ["00000"]}}}}}')
    assert rows_of(tmp_path, tmp_path / "mine")["a"].attributes == ("fast1",)
    prepared, split = tmp_path / "resources/datasets/mine/all", Split(dataset="mine", name="all")
    whole = (prepared / name).read_bytes()
    (prepared / name).unlink()
    if change:
        (prepared / name).write_bytes(change(whole))
    again = r": changed since the split was prepared; remove .*prepared\.txt and run again"
    with pytest.raises(DataError, match=re.escape(name) + again):
        index_split(prepared, prepared / "sequences.parquet", split)
    with pytest.raises(DataError, match=again):
        pair_predictions(prepared / "sequences.parquet", Store(tmp_path), {})
    assert rows_of(tmp_path, tmp_path / "mine")["a"].attributes == ("fast1",)  # prepared again
    assert (prepared / name).read_bytes() == whole
    (tmp_path / "mine" / name).unlink()
    rows_of(tmp_path, tmp_path / "mine")
    assert not (prepared / name).exists()


@pytest.mark.parametrize(
    ("stem", "number"),
    [("00010", 10), ("²", None), ("0000²", None), ("٣", None), ("-1", None), ("", None), ("1 ", None)],
)
def test_numbers_of_frames(stem, number):
    assert frame_number(stem) == number


def test_home_folder(tmp_path, monkeypatch):
    """In every path of a config and of a catalog file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "catalog/datasets").mkdir(parents=True)
    (tmp_path / "catalog/datasets/theirs.yaml").write_text("splits: {all: {path: ~/theirs}}\n")
    home = str(tmp_path)
    config = {
        "catalog": ["~/catalog"],
        "datasets": [
            {"path": "~/mine"},
            {"name": "archived", "splits": {"all": {"archives": [{"sources": [{"local": "~/a.zip"}]}]}}},
            "theirs/all",
        ],
        "models": [
            {
                **{"name": "m", "tracker": "~/t.py:Tracker", "python": "~/env/bin/python"},
                **{"options": {"file": "~/o.txt"}, "weights": {"sources": [{"local": "~/w.pth"}]}},
            }
        ],
    }
    study = load_study(config)
    assert study.split("mine/all").path == f"{home}/mine" and study.split("theirs/all").path == f"{home}/theirs"
    assert study.split("archived/all").archives[0].sources == (LocalSource(local=f"{home}/a.zip"),)
    model = study.model("m")
    assert (model.tracker, model.python) == (f"{home}/t.py:Tracker", f"{home}/env/bin/python")
    assert model.options == {"file": f"{home}/o.txt"} and model.weights.sources == (LocalSource(local=f"{home}/w.pth"),)
    assert load_catalog(["~/catalog"]).split("theirs/all").path == f"{home}/theirs"
    assert expand_home("~nobody-of-this-name/x") == "~nobody-of-this-name/x"


@pytest.mark.timeout(60)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), ending=st.sampled_from(["jpg", "png"]))
def test_damaged_frames_are_refused_or_read(tmp_path, data, ending):
    """Whatever is changed in a file, it is a frame of some size or a DataError, never another exception."""
    picture = np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8)
    content = bytearray(cv2.imencode(f".{ending}", picture)[1].tobytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"00000.{ending}"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    for read in (read_frame, image_size):
        try:
            read(path)
        except DataError as error:
            assert str(path) in str(error) and "\n" not in str(error)


def with_zeros(content: bytes) -> bytes:
    """A download that was interrupted in a file that was made in its full size: the index is there, frames are not."""
    start, end = content.index(b"mdat") + 304, content.index(b"moov") - 4
    return content[:start] + bytes(end - start) + content[end:]


def hiding(content: bytes, frames: int) -> bytes:
    """An mp4 with an edit list that hides its first frames, as a cut without encoding again makes it."""

    def box(kind: bytes, *numbers: int) -> bytes:
        body = b"".join(number.to_bytes(4, "big") for number in numbers)
        return (8 + len(body)).to_bytes(4, "big") + kind + body

    def number(at: int) -> int:
        return int.from_bytes(content[at : at + 4], "big")

    content = content.replace(b"edts", b"free")
    movie, media = content.index(b"mvhd") + 16, content.index(b"mdhd") + 16  # units a second, then the duration
    begin = frames * number(media) // 10
    shown = (number(media + 4) - begin) * number(movie) // number(media)
    elst = box(b"elst", 0, 1, shown, begin, 0x10000)
    edts = (8 + len(elst)).to_bytes(4, "big") + b"edts" + elst
    for kind in (b"moov", b"trak"):
        at = content.index(kind) - 4
        content = content[:at] + (number(at) + len(edts)).to_bytes(4, "big") + content[at + 4 :]
    at = content.index(b"tkhd") - 4
    at += number(at)
    return content[:at] + edts + content[at:]


def test_videos_that_have_fewer_frames_than_they_announce(tmp_path):
    """They are whole if an edit list hides some, and damaged otherwise, with an edit list or without."""
    write_video(tmp_path / "clip.mp4", 30)
    content = (tmp_path / "clip.mp4").read_bytes()
    for name, changed, count in (("whole", content, 30), ("cut", hiding(content, 10), 20)):
        (tmp_path / f"{name}.mp4").write_bytes(changed)
        decode_video(tmp_path / f"{name}.mp4", tmp_path / name)
        assert len(list((tmp_path / name).iterdir())) == count
        (tmp_path / f"{name}-zeros.mp4").write_bytes(with_zeros(changed))
        with pytest.raises(DataError, match=rf"{name}-zeros\.mp4: only \d+ of 30 frames"):
            decode_video(tmp_path / f"{name}-zeros.mp4", tmp_path / f"{name}-zeros")
    assert "OPENCV_FFMPEG_CAPTURE_OPTIONS" not in os.environ


def test_the_mask_writer_is_the_same_as_before(tmp_path):
    """Binary masks of a prepared split are palette PNGs with label 1."""
    write_sequence(tmp_path / "mine", "a", frames=2)
    rows_of(tmp_path, tmp_path / "mine", binary=True)
    expected = (read_mask(tmp_path / "mine/Annotations/a/00000.png") > 0).astype(np.uint8)
    write_mask(tmp_path / "expected.png", expected)
    made = tmp_path / "resources/datasets/mine/all/Annotations/a/00000.png"
    assert made.read_bytes() == (tmp_path / "expected.png").read_bytes()


def test_another_generator_draws_the_clips_of_the_demo_again(monkeypatch):
    split = load_catalog().split("demo/val")
    before = source_fingerprint(split)
    assert before == source_fingerprint(split)
    prepare._generator_digest.cache_clear()
    monkeypatch.setattr(prepare, "file_sha256", lambda path: "another version")
    assert source_fingerprint(split) != before
    prepare._generator_digest.cache_clear()
