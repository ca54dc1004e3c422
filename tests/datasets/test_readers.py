"""Datasets that a class reads: what users write, YouTube-VIS and BURST give the same as PNG files of the same data."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import write_sequence
from tests.support.arrays import ARRAYS, arrays_of
from vosarena.base.errors import DataError
from vosarena.config.catalogs import Split
from vosarena.datasets.prepare import fetch_split, prepare_split, source_fingerprint
from vosarena.datasets.recognise import recognise
from vosarena.datasets.rle_layouts import Burst
from vosarena.datasets.sequences import read_sequence
from vosarena.datasets.table import index_split, read_table
from vosarena.fetching.policy import RetryPolicy
from vosarena.io import rle
from vosarena.io.frames import read_frame
from vosarena.io.masks import object_ids, read_mask

LINKS = """
from pathlib import Path
from vosarena.io.masks import read_mask

class Mine:
    def __init__(self, folder):
        self.folder = folder

    def sequences(self):
        return ["alpha"]

    def frames(self, name):
        return sorted(self.folder.glob(f"JPEGImages/{name}/*.jpg"))

    def masks(self, name):
        return {0: read_mask(self.folder / f"Annotations/{name}/00000.png")}
"""


def split_of(path: Path, **keys) -> Split:
    return Split(dataset=path.name, name="all", path=str(path), **keys)


def prepared(split: Split, resources: Path) -> Path:
    return fetch_split(split, resources, RetryPolicy(1, 1, 0)).parent


def runs(mask: np.ndarray) -> dict:
    return {"size": list(mask.shape), "counts": rle.encode(mask)}


def youtube_vis(dataset: Path) -> Path:
    """The same data in the form of YouTube-VIS; the second object of `alpha` has uncompressed run lengths."""
    videos, annotations = [], []
    for number, folder in enumerate(sorted((dataset / "JPEGImages").iterdir()), 5):
        masks = [read_mask(path) for path in sorted((dataset / "Annotations" / folder.name).iterdir())]
        names = [f"{folder.name}/{path.name}" for path in sorted(folder.iterdir())]
        height, width = masks[0].shape
        videos.append({"id": number, "height": height, "width": width, "length": len(names), "file_names": names})
        for label in (2, 1):  # objects are numbered by their ids
            segments = [runs(labels == label) if (labels == label).any() else None for labels in masks]
            if label == 2 and folder.name == "alpha":
                segments = [{**part, "counts": rle.runs(part["counts"]).tolist()} for part in segments]
            annotations.append({"id": 10 * number + label, "video_id": number, "segmentations": segments})
    shutil.rmtree(dataset / "Annotations")
    (dataset / "instances.json").write_text(json.dumps({"videos": videos, "annotations": annotations}))
    return dataset


def burst(dataset: Path) -> Path:
    """The same data in the form of BURST, with masks for every other frame, and files with a part of the objects."""
    sequences = []
    for folder in sorted((dataset / "JPEGImages").iterdir()):
        names = [path.name for path in sorted(folder.iterdir())]
        maps = [read_mask(path) for path in sorted((dataset / "Annotations" / folder.name).iterdir())][::2]
        objects = [{str(i): {"rle": rle.encode(labels == i)} for i in object_ids(labels)} for labels in maps]
        sequences.append(
            {"width": 64, "height": 48, "seq_name": folder.name, "dataset": "Sq", "all_image_paths": names}
            | {"annotated_image_paths": names[::2], "segmentations": objects}
        )
    shutil.rmtree(dataset / "Annotations")
    (dataset / "frames" / "val").mkdir(parents=True)
    (dataset / "JPEGImages").rename(dataset / "frames" / "val" / "Sq")
    for part in ("all_classes", "common_classes"):
        file = dataset / "annotations" / "val" / f"{part}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"sequences": sequences, "split": "val"}))
    return dataset


@pytest.mark.parametrize("form", ["arrays", "youtube-vis", "burst"])
def test_the_same_data_in_another_form(form, dataset, tmp_path):
    plain = shutil.copytree(dataset, tmp_path / "plain")
    expected = prepared(split_of(plain), tmp_path / "resources")
    if form == "arrays":
        arrays_of(dataset, tmp_path / "arrays")
        (tmp_path / "mine.py").write_text(ARRAYS)
        split = split_of(tmp_path / "arrays", reader=f"{tmp_path}/mine.py:Mine")
    else:
        split = split_of({"youtube-vis": youtube_vis, "burst": burst}[form](dataset), layout=form)
    found = prepared(split, tmp_path / "resources")
    rows = {row.sequence.removeprefix("Sq-"): row for row in read_table(found / "sequences.parquet")}
    for row in read_table(expected / "sequences.parquet"):
        other = rows[row.sequence]
        assert not other.problem and (other.n_frames, other.object_ids) == (row.n_frames, row.object_ids)
        assert (other.height, other.width, other.first_frame) == (row.height, row.width, row.first_frame)
        folders = found / "JPEGImages", found / "Annotations"
        one = read_sequence(expected / "JPEGImages", expected / "Annotations", row.sequence)
        two = read_sequence(*folders, other.sequence)
        assert list(two.masks) == list(one.masks)[:: 2 if form == "burst" else 1]
        assert all(np.array_equal(one.mask(index), two.mask(index)) for index in two.masks)
        assert all(np.array_equal(read_frame(a), read_frame(b)) for a, b in zip(one.frames, two.frames, strict=True))
    assert rows["gamma"].attributes == (("late",) if form == "arrays" else ())


def test_objects_that_overlap_have_a_folder_each(tmp_path):
    write_sequence(tmp_path / "overlap", "alpha", frames=3)
    data = youtube_vis(tmp_path / "overlap")
    content = json.loads((data / "instances.json").read_text())
    content["annotations"][0]["segmentations"][1] = runs(np.ones((48, 64), bool))
    content["annotations"][0]["segmentations"][2] = None
    (data / "instances.json").write_text(json.dumps(content))
    root = prepared(split_of(data, layout="youtube-vis"), tmp_path / "resources")
    files = read_sequence(root / "JPEGImages", root / "Annotations", "alpha")
    assert not files.masks and {number: list(masks) for number, masks in files.objects.items()} == {
        1: [0, 1, 2],
        2: [0, 1, 2],
    }
    assert files.object_mask(2, 1).all() and not files.object_mask(2, 2).any() and files.object_mask(1, 2).any()


def test_a_change_is_noticed(dataset, tmp_path):
    """Frames in JPEG are links, so that tracking reads them itself; all else is copied when it changes."""
    code = tmp_path / "mine.py"
    code.write_text(LINKS)
    split = split_of(dataset, reader=f"{code}:Mine")
    root = prepared(split, tmp_path / "resources")
    assert (root / "JPEGImages/alpha/00000.jpg").is_symlink() and len(read_table(root / "sequences.parquet")) == 1
    before, first = source_fingerprint(split), (root / "prepared.txt").stat().st_mtime_ns
    prepare_split(split, tmp_path / "resources")
    assert source_fingerprint(split) == before and (root / "prepared.txt").stat().st_mtime_ns == first
    mask = dataset / "Annotations/alpha/00000.png"
    Image.fromarray(np.full((48, 64), 9, np.uint8)).save(mask)
    assert source_fingerprint(split) != before
    prepare_split(split, tmp_path / "resources")
    assert (read_mask(root / "Annotations/alpha/00000.png") == 9).all()
    changed = source_fingerprint(split)
    code.write_text(LINKS.replace('["alpha"]', '["alpha", "beta"]'))
    assert source_fingerprint(split) != changed
    assert len(read_table(prepared(split, tmp_path / "resources") / "sequences.parquet")) == 2


def test_a_reader_in_an_archive_gets_all_files(dataset, tmp_path):
    arrays_of(dataset, tmp_path / "arrays")
    (tmp_path / "mine.py").write_text(ARRAYS)
    archive = shutil.make_archive(str(tmp_path / "data"), "zip", tmp_path / "arrays")
    keys = {"archives": ({"sources": ({"local": archive},)},), "reader": f"{tmp_path}/mine.py:Mine"}
    split = Split.model_validate({"dataset": "mine", "name": "val", "archive_namespace": "mine", **keys})
    root = prepared(split, tmp_path / "resources")
    assert [row.sequence for row in read_table(root / "sequences.parquet")] == ["alpha", "beta", "gamma"]


def test_a_reader_of_a_package(dataset, tmp_path, monkeypatch):
    (tmp_path / "site" / "packaged-1.0.dist-info").mkdir(parents=True)
    (tmp_path / "site" / "packaged.py").write_text(LINKS)
    (tmp_path / "site" / "packaged-1.0.dist-info" / "METADATA").write_text("Name: packaged\nVersion: 1.0\n")
    points = "[vosarena.layouts]\npackaged = packaged:Mine\n"
    (tmp_path / "site" / "packaged-1.0.dist-info" / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path / "site")
    root = prepared(split_of(dataset, reader="packaged"), tmp_path / "resources")
    assert [row.sequence for row in read_table(root / "sequences.parquet")] == ["alpha"]
    with pytest.raises(DataError, match=r"reader 'packagd': no entry point .*; did you mean 'packaged'"):
        prepare_split(split_of(dataset, reader="packagd"), tmp_path / "resources")


WRONG = [
    ("return sorted(self.folder.glob", "return list(self.missing", r"frames\('alpha'\): AttributeError: .*missing"),
    ("*.jpg", "*.gif", r"frames\('alpha'\) gave no frame; leave"),
    ("JPEGImages/{name}/*.jpg", "JPEGImages/{name}", r"gave .*JPEGImages/alpha; frames are \.jpg"),
    ("return {0:", "return {9:", r"mask for frame 9; expected an index from 0 to 5"),
    ('00000.png")}', '00000.png") > 0}', r"gave bool \(48, 64\) for frame 0; expected labels, uint8"),
    ('return {0: read_mask(self.folder / f"Annotations/{name}/00000.png")}', "return 5", "TypeError"),
]


@pytest.mark.parametrize("old, new, message", WRONG)
def test_a_mistake_fails_the_sequence_alone(old, new, message, dataset, tmp_path):
    assert old in LINKS
    code = LINKS.replace('["alpha"]', '["alpha", "beta"]').replace(old, f"{new}")
    good = LINKS.replace("class Mine:", "class Good:")
    both = "\n\nclass Both(Mine):\n    def frames(self, name):\n        return (Good if name == 'beta' else Mine)"
    both += ".frames(self, name)\n    def masks(self, name):\n        return (Good if name == 'beta' else Mine)"
    (tmp_path / "mine.py").write_text(f"{code}\n{good}{both}.masks(self, name)\n")
    root = prepared(split_of(dataset, reader=f"{tmp_path}/mine.py:Both"), tmp_path / "resources")
    alpha, beta = read_table(root / "sequences.parquet")
    assert not beta.problem and alpha.problem.startswith("reader ")
    with pytest.raises(DataError, match=message):
        read_sequence(root / "JPEGImages", None, "alpha")


@pytest.mark.parametrize(
    "code, message",
    [
        ("x = 1", r"mine\.py defines no 'Mine'"),
        ("import nothing_of_this_name", "cannot be imported: ModuleNotFoundError"),
        ("class Mine: pass", r"cannot be built: TypeError: Mine\(\) takes no arguments"),
        (LINKS.replace('["alpha"]', '["../alpha"]'), r"sequences\(\) gave '../alpha'; a name is text without /"),
        (LINKS.replace('["alpha"]', '["alpha", "alpha"]'), "gave 'alpha' twice"),
        (LINKS.replace('["alpha"]', "[]"), "gave none; look whether the folder"),
    ],
)
def test_a_reader_that_cannot_be_used(code, message, dataset, tmp_path):
    (tmp_path / "mine.py").write_text(code)
    split = split_of(dataset, reader=f"{tmp_path}/mine.py:Mine")
    with pytest.raises(DataError, match=message):
        prepare_split(split, tmp_path / "resources")


def test_a_known_format_is_recognised(dataset, tmp_path):
    other = shutil.copytree(dataset, tmp_path / "other")
    with pytest.raises(DataError, match=r"set `layout: youtube-vis` and `masks: instances\.json`"):
        prepare_split(split_of(youtube_vis(dataset)), tmp_path / "resources")
    found = recognise(burst(other))
    assert (found.layout, found.masks) == ("burst", "annotations/val/all_classes.json")
    assert (found.sequences, found.ground_truth, found.has_masks) == (3, "full", True)
    shutil.copytree(other / "annotations" / "val", other / "annotations" / "test")
    with pytest.raises(DataError, match=r"several files of annotations, .*test/all_classes.json.*; name the file of"):
        prepare_split(split_of(other, layout="burst"), tmp_path / "resources")
    Burst([other], Split(dataset="other", name="test", layout="burst"))  # the file in the folder of its split
    split = split_of(other, layout="burst", masks=found.masks)
    prepare_split(split, tmp_path / "resources")
    index_split(tmp_path / "resources/datasets/other/all", tmp_path / "table.parquet", split)
    assert len(read_table(tmp_path / "table.parquet")) == 3


def test_damaged_run_lengths_fail_their_sequence(dataset, tmp_path):
    data = youtube_vis(dataset)
    content = json.loads((data / "instances.json").read_text())
    content["annotations"][0]["segmentations"][2]["counts"] = [1, 2, 3]  # alpha, the second object
    (data / "instances.json").write_text(json.dumps(content))
    rows = read_table(prepared(split_of(data, layout="youtube-vis"), tmp_path / "resources") / "sequences.parquet")
    assert [row.sequence for row in rows if row.problem] == ["alpha"] and "48 x 64 pixels" in rows[0].problem
