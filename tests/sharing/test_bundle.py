"""Bundles: halves of a study merge to the whole, and nothing that was changed is accepted."""

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import write_sequence
from tests.support.small_study import study_in, study_of
from vosarena.base.errors import DataError
from vosarena.base.hashing import digest_of
from vosarena.base.sealed import SEAL, seal
from vosarena.cli import main
from vosarena.io import rle
from vosarena.io.masks import read_mask, write_mask
from vosarena.sharing.bundle import collect, read_bundle
from vosarena.sharing.merge import merge


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("labs")
    write_sequence(root / "clips", "alpha")
    write_sequence(root / "clips", "beta", frames=8, late=3)
    return root


@pytest.fixture(scope="module")
def whole(clips) -> Path:
    return study_in(clips / "whole", ["static", "flow", "empty"], jobs=2, with_masks=True)


@pytest.fixture(scope="module")
def halves(clips) -> list[Path]:
    return [
        study_in(clips / "a", ["static"], with_masks=True),
        study_in(clips / "b", ["flow", "empty"], with_masks=True),
    ]


def test_halves_merge_to_the_bytes_of_the_whole(whole, halves, tmp_path):
    assert merge(halves, tmp_path / "merged") == []
    assert (tmp_path / "merged/bundle.zip").read_bytes() == whole.read_bytes()
    merge(list(reversed(halves)), tmp_path / "reversed")
    assert (tmp_path / "reversed/bundle.zip").read_bytes() == whole.read_bytes()
    merge([whole], tmp_path / "alone")
    merged, alone = (
        {file.name: file.read_bytes() for file in (tmp_path / name / "leaderboard").iterdir()}
        for name in ("merged", "alone")
    )
    speeds = {name for name in merged if name.startswith("speed")}
    assert {name for name in merged if merged[name] != alone[name]} <= speeds and len(speeds) == 6 < len(merged) == 22
    assert list(pd.read_csv(tmp_path / "merged/leaderboard/leaderboard.csv")["model"]) == ["flow", "static", "empty"]
    speed = pd.read_csv(tmp_path / "merged/leaderboard/speed.csv")
    assert list(speed["model"]) == ["empty", "flow", "static"] and speed["fps"].notna().all()


def test_a_bundle_has_no_paths_of_the_machine_and_no_pixels(whole):
    text = whole.read_bytes() + whole.with_name("small.zip.timings.json").read_bytes()
    assert str(whole.parent).encode() not in text and b"/tmp/" not in text and b"IHDR" not in text


def test_one_model_of_two_labs_has_two_rows_if_it_differs(whole, clips, tmp_path):
    tracker = tmp_path / "t.py"
    source = "from vosarena.trackers.baselines import Flow as Base\n\n\nclass Mine(Base):\n    pass\n"
    tracker.write_text(source)
    mine = {"name": "mine", "tracker": f"{tracker}:Mine"}
    one = study_in(clips / "one", ["static", mine])
    tracker.write_text(source.replace("Flow as", "Static as"))
    two = study_in(clips / "two", ["static", mine])
    notes = merge([one, two], tmp_path / "out")
    assert notes == ["mine differs between bundles and has 2 rows: mine-one-small, mine-two-small",
                     "static is the same in several bundles and has one row"]  # fmt: skip
    board = pd.read_csv(tmp_path / "out/leaderboard/leaderboard.csv").set_index("model")["j_and_f"]
    assert set(board.index) == {"static", "mine-one-small", "mine-two-small"}
    assert board["mine-two-small"] == board["static"] < board["mine-one-small"]
    pairs = pd.read_csv(tmp_path / "out/leaderboard/comparisons.csv")
    assert {("mine-one-small", "mine-two-small")} & set(zip(pairs["model"], pairs["other"], strict=True))
    assert merge([tmp_path / "out/bundle.zip", whole], tmp_path / "again")  # what was merged can be merged again


@pytest.mark.parametrize("change, words", [
    (lambda root: shutil.copy(root / "JPEGImages/alpha/00000.jpg", root / "JPEGImages/alpha/00004.jpg"),
     "different frames or prompts of clips/all, sequence alpha"),
    (lambda root: write_sequence(root, "gamma"), "different sequences of clips/all"),
    (lambda root: shutil.copy(root / "Annotations/alpha/00000.png", root / "Annotations/alpha/00004.png"),
     "different ground truth of clips/all, sequence alpha"),
])  # fmt: skip
def test_other_data_are_refused(whole, tmp_path, change, words):
    shutil.copytree(whole.parents[1] / "clips", tmp_path / "clips")
    change(tmp_path / "clips")
    other = study_in(tmp_path / "other", ["static"])
    with pytest.raises(DataError, match=f"small and other-small have {words}|have {words}"):
        merge([whole, other], tmp_path / "out")
    assert not (tmp_path / "out").exists()


Change = Callable[[dict[str, bytes], dict[str, Any]], None]


def tampered(source: Path, target: Path, change: Change, *, hide: bool) -> Path:
    """Write a bundle with a change; `hide` makes all hashes right again, as somebody who cheats would."""
    with zipfile.ZipFile(source) as zipped:
        members = {name: zipped.read(name) for name in zipped.namelist()}
    index = json.loads(members.pop("bundle.json"))
    change(members, index)
    if hide:
        index["members"] = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
        index["digest"] = digest_of({key: value for key, value in index.items() if key != "digest"})
    with zipfile.ZipFile(target, "w") as zipped:
        for name, data in [("bundle.json", json.dumps(index)), *members.items()]:
            zipped.writestr(name, data)
    return target


RUN = "clips/all/flow"


def score(members: dict[str, bytes], index: dict[str, Any]) -> None:
    rows = json.loads(members["scores.json"])
    rows[0]["j_and_f"] += 1
    members["scores.json"] = json.dumps(rows).encode()


def counts(column: str) -> Change:
    def change(members: dict[str, bytes], index: dict[str, Any]) -> None:
        name = f"metrics/{RUN}.parquet"
        table = pq.read_table(io.BytesIO(members[name]))
        values = table[column].to_pylist()
        values[5] = values[5] + (1 if column.startswith(("gt", "pred", "inter")) else 0.25)
        field = table.schema.field(column)
        table = table.set_column(table.schema.get_field_index(column), field, pa.array(values, field.type))
        metadata = {**pq.read_metadata(io.BytesIO(members[name])).metadata, b"vosarena-seal": SEAL.encode()}
        metadata = {key: value for key, value in metadata.items() if key != b"ARROW:schema"}
        file = Path(index["scratch"])
        pq.write_table(table.replace_schema_metadata(metadata), file)
        seal(file)
        members[name] = file.read_bytes()

    return change


def member(name: str, edit: Callable[[Any], None]) -> Change:
    def change(members: dict[str, bytes], index: dict[str, Any]) -> None:
        content = json.loads(members[name])
        edit(content)
        members[name] = json.dumps(content).encode()

    return change


def masks(edit: Callable[[list[dict[str, Any]]], None]) -> Change:
    def change(members: dict[str, bytes], index: dict[str, Any]) -> None:
        name = f"masks/{RUN}.parquet"
        table = pq.read_table(io.BytesIO(members[name]))
        rows = table.to_pylist()
        edit(rows)
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, table.schema), buffer)
        members[name] = buffer.getvalue()

    return change


def moved(rows: list[dict[str, Any]]) -> None:
    """Move an object down by one pixel."""
    mask = rle.decode(rows[3]["counts"][0], 48, 64)
    rows[3]["counts"][0] = rle.encode(np.roll(mask, 1, axis=0))


HIDDEN: dict[str, Change] = {
    "larger mask": masks(lambda rows: rows[3]["counts"].__setitem__(0, rle.encode(np.ones((48, 64), bool)))),
    "no run lengths": masks(lambda rows: rows[3]["counts"].__setitem__(0, "?!")),
    "other object": masks(lambda rows: rows[3]["object_ids"].__setitem__(0, 7)),
    "no mask": masks(lambda rows: rows.pop()),
    "mask elsewhere": masks(lambda rows: rows[3].update(mask="../../evil")),
    "score": score,
    **{column: counts(column) for column in ("intersection", "gt_pixels", "pred_pixels", "gt_matched", "j", "f")},
    "model of the manifest": member(
        f"manifests/{RUN}.json", lambda it: it["beta"]["definition"].update(tracker="cutie")
    ),
    "sequence of the manifest": member(f"manifests/{RUN}.json", lambda it: it.pop("beta")),
    "fingerprint": member("fingerprints/clips/all.json", lambda it: it.pop("beta")),
    "other model's counts": lambda members, index: members.update(
        {f"metrics/{RUN}.parquet": members["metrics/clips/all/static.parquet"]}
    ),
    "protocol": lambda members, index: index["splits"]["clips/all"]["protocols"].append("vos-benchmark"),
    "no model": lambda members, index: index["models"].pop("flow"),
    "no table": lambda members, index: members.pop("sequences/clips/all.parquet"),
    "no scores": lambda members, index: members.pop("scores.json"),
    "another member": lambda members, index: members.update({"metrics/../../evil.parquet": b""}),
    "format": lambda members, index: index.update(format=2),
    "no weights in a manifest": member(f"manifests/{RUN}.json", lambda it: it["beta"].pop("weights")),
    "facts of a model": lambda members, index: index["models"]["flow"]["facts"].update(license={"name": "MIT"}),
    "facts of a split": lambda members, index: index["splits"]["clips/all"].pop("facts"),
    "no splits": lambda members, index: index.update(splits=[]),
}


def test_masks_are_counted_again_where_the_ground_truth_is(whole, tmp_path):
    resources = whole.parent / "resources"
    notes = merge([whole], tmp_path, check_only=True, resources=resources)
    assert (
        len(notes) == 3 and notes[1] == "small: the counts of clips/all/flow follow from its masks and the ground truth"
    )
    assert merge([whole], tmp_path, check_only=True, resources=tmp_path) == []
    file = tampered(whole, tmp_path / "moved.zip", masks(moved), hide=True)
    assert merge([file], tmp_path, check_only=True) == []  # the pixels of each object are as many as before
    with pytest.raises(DataError, match="moved: counts of clips/all/flow do not follow from its masks"):
        merge([file], tmp_path, check_only=True, resources=resources)
    other = shutil.copytree(resources, tmp_path / "resources", symlinks=False)
    (truth, *_) = other.rglob("Annotations/alpha/00002.png")
    shutil.copy(truth.with_name("00004.png"), truth)
    with pytest.raises(DataError, match="small has other frames or ground truth of clips/all than"):
        merge([whole], tmp_path, check_only=True, resources=other)


def test_masks_of_objects_that_may_overlap(tmp_path):
    write_sequence(tmp_path / "clips", "alpha")
    folder = tmp_path / "clips/Annotations/alpha"
    for file in list(folder.iterdir()):
        for number in (1, 2):
            (folder / f"{number:03d}").mkdir(exist_ok=True)
            write_mask(folder / f"{number:03d}" / file.name, (read_mask(file) == number).astype(np.uint8))
        file.unlink()
    file = study_in(tmp_path / "lab", ["flow"], with_masks=True)
    with zipfile.ZipFile(file) as zipped:
        rows = pq.read_table(io.BytesIO(zipped.read("masks/clips/all/flow.parquet"))).to_pylist()
    assert [row["mask"] for row in rows] == [f"{number:03d}/{index:05d}" for number in (1, 2) for index in range(6)]
    assert len(merge([file], tmp_path, check_only=True, resources=tmp_path / "lab/resources")) == 1
    mask = tmp_path / "lab/results/predictions/clips/all/flow/alpha/001/00003.png"
    write_mask(mask, 1 - read_mask(mask))
    with pytest.raises(DataError, match=r"sequence alpha: masks in .*flow/alpha were changed after tracking"):
        collect(*study_of(tmp_path / "lab", ["flow"]), tmp_path / "members", with_masks=True)


@pytest.mark.parametrize("name", HIDDEN)
def test_what_does_not_fit_together_is_refused_with_one_sentence(whole, tmp_path, name):
    def change(members: dict[str, bytes], index: dict[str, Any]) -> None:
        index["scratch"] = str(tmp_path / "scratch.parquet")
        HIDDEN[name](members, index)
        del index["scratch"]

    for hide in (True, False):
        file = tampered(whole, tmp_path / f"{hide}.zip", change, hide=hide)
        (tmp_path / str(hide)).mkdir()
        with pytest.raises(DataError) as caught:
            read_bundle(file, tmp_path / str(hide))
        assert str(caught.value).startswith(f"{file}: ") and "\n" not in str(caught.value), caught.value
    assert not (tmp_path.parent / "evil.parquet").exists()


def test_every_changed_byte_of_a_member_is_noticed(whole, tmp_path):
    data = whole.read_bytes()
    with zipfile.ZipFile(whole) as zipped:
        infos = zipped.infolist()
    for number, info in enumerate(infos):
        place = data.index(b"PK", info.header_offset) + 30 + len(info.filename) + info.file_size // 2
        broken = bytearray(data)
        broken[place] ^= 1
        file = tmp_path / "b.zip"
        file.write_bytes(broken)
        with pytest.raises(DataError):
            read_bundle(file, tmp_path / str(number))
    for content in (b"", b"PK", data[: len(data) // 2]):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"not a bundle|damaged"):
            read_bundle(file, tmp_path / f"x{len(content)}")


def test_the_commands(halves, tmp_path, capsys):
    assert main(["merge", "--check", *map(str, halves)]) == 0
    assert capsys.readouterr().out == "2 bundles are intact and fit together\n"
    assert main(["merge", "--check", str(halves[0])]) == 0
    assert capsys.readouterr().out == "the bundle is intact\n"
    assert main(["merge", *map(str, halves), "--output", str(tmp_path / "out")]) == 0
    assert "| flow " in capsys.readouterr().out
    assert main(["merge", "--check", str(tmp_path / "none.zip")]) == 1
    assert "none.zip: no such file; give bundles" in capsys.readouterr().err
