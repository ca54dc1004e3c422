"""`vosarena init`: what is in a folder, and a config for it that runs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import write_sequence
from vosarena.base.errors import DataError
from vosarena.config.catalogs import Split
from vosarena.config.study import read_study
from vosarena.datasets.prepare import prepare_split
from vosarena.datasets.recognise import recognise
from vosarena.io.masks import read_mask, write_mask


def init(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vosarena", "init", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def davis(root: Path) -> None:
    write_sequence(root, "a")
    write_sequence(root, "b")


def first_frames(root: Path) -> None:
    davis(root)
    for mask in root.glob("Annotations/*/*.png"):
        if mask.stem != "00000":
            mask.unlink()


def no_masks(root: Path) -> None:
    davis(root)
    shutil.rmtree(root / "Annotations")


def binary(root: Path) -> None:
    davis(root)
    for mask in root.glob("Annotations/*/*.png"):
        write_mask(mask, (read_mask(mask) > 0).astype("uint8") * 255)


def resolution(root: Path) -> None:
    davis(root)
    for kind in ("JPEGImages", "Annotations"):
        (root / kind).rename(root / "480p")
        (root / kind).mkdir()
        (root / "480p").rename(root / kind / "480p")


def folders(root: Path) -> None:
    davis(root)
    for name in ("a", "b"):
        (root / "JPEGImages" / name).rename(root / name)
    (root / "JPEGImages").rmdir()
    (root / "Annotations").rename(root / "masks")


def lvos(root: Path) -> None:
    davis(root)
    objects = {"1": {"frame_range": {"start": "00000", "end": "00005"}}}
    (root / "val_meta.json").write_text(json.dumps({"videos": {"a": {"objects": objects}, "b": {"objects": objects}}}))


def youtube(root: Path) -> None:
    davis(root)
    objects = {"1": {"category": "cat", "frames": ["00000", "00005"]}}
    (root / "meta.json").write_text(json.dumps({"videos": {"a": {"objects": objects}, "b": {"objects": objects}}}))


def sa_v(root: Path) -> None:
    davis(root)
    (root / "JPEGImages").rename(root / "JPEGImages_24fps")
    for name in ("a", "b"):
        for mask in sorted((root / "Annotations" / name).iterdir()):
            target = root / "Annotations_6fps" / name / "000" / mask.name
            target.parent.mkdir(parents=True, exist_ok=True)
            write_mask(target, (read_mask(mask) == 1).astype("uint8"))
    shutil.rmtree(root / "Annotations")


@pytest.mark.parametrize("make, layout, truth, is_binary", [
    (davis, "davis", "full", False),
    (resolution, "davis", "full", False),
    (first_frames, "davis", "none", False),
    (no_masks, "davis", "none", False),
    (binary, "davis", "full", True),
    (folders, "folder", "full", False),
    (lvos, "lvos", "full", False),
    (youtube, "youtube-vos", "full", False),
    (sa_v, "sa-v", "full", False),
])  # fmt: skip
def test_folders_are_recognised(tmp_path, make, layout, truth, is_binary):
    make(tmp_path / "clips")
    found = recognise(tmp_path / "clips")
    assert (found.layout, found.ground_truth, found.binary, found.sequences) == (layout, truth, is_binary, 2)
    assert found.has_masks == (make is not no_masks)
    done = init(tmp_path, "clips")
    assert done.returncode == 0 and "Next: vosarena plan clips.yaml" in done.stdout, done.stderr
    (entry,) = yaml.safe_load((tmp_path / "clips.yaml").read_text())["datasets"]
    assert (entry.get("layout", "davis"), entry.get("binary", False)) == (layout, is_binary)
    assert ("Add the first mask" in done.stdout) == (make is no_masks)


@pytest.mark.parametrize("make, given", [(folders, "davis"), (sa_v, "davis"), (davis, "sa-v"), (davis, "video")])
def test_an_error_names_the_layout_to_set(tmp_path, make, given):
    make(tmp_path / "clips")
    layout = {folders: "folder", sa_v: "sa-v", davis: "davis"}[make]
    split = Split(dataset="clips", name="all", path=str(tmp_path / "clips"), layout=given)
    with pytest.raises(DataError, match=f"; it looks like another layout: set `layout: {layout}`$"):
        prepare_split(split, tmp_path)


@pytest.mark.parametrize("folder", ["we ird ü", "a{1}", "007", "-x", "ü"])
def test_odd_names_of_folders(tmp_path, folder):
    davis(tmp_path / folder)
    done = init(tmp_path, f"./{folder}")
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("*.yaml")
    study = read_study(file)
    assert study.name == file.stem and len(study.local_splits()) == 1
    done = init(tmp_path, f"./{folder}", "--output", "o d d.yaml")
    assert done.returncode == 0 and read_study(tmp_path / "o d d.yaml").name == file.stem
    assert "vosarena run 'o d d.yaml'" in done.stdout


def test_mistakes_are_sentences(tmp_path):
    davis(tmp_path / "good")
    assert init(tmp_path, "good", "--output", "/proc/x.yaml").stderr.startswith("error: /proc: ")
    assert init(tmp_path, "nowhere").stderr.startswith("error: nowhere: no such folder; ")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no frames in JPEGImages/"):
        recognise(tmp_path / "empty")
    davis(tmp_path / "clips")
    (tmp_path / "clips.yaml").write_text("mine")
    assert "clips.yaml: is there already; " in init(tmp_path, "clips").stderr
    assert (tmp_path / "clips.yaml").read_text() == "mine"
