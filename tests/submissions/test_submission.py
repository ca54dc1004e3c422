"""Archives for servers: every format, the same bytes, and a checker that lists every fault."""

import contextlib
import io
import json
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support.records import make_manifest
from vosarena.base.errors import DataError
from vosarena.base.files import write_json
from vosarena.cli import main
from vosarena.config.catalogs import Split, load_catalog
from vosarena.datasets.table import index_split
from vosarena.io.masks import masks_digest, write_mask
from vosarena.submissions.check import (
    ExpectedSequence,
    SubmissionFormat,
    check_submission,
    sequences_in,
    submission_format,
)
from vosarena.submissions.pack import pack_submission

FORMATS = {
    "davis2017/test-dev": ("alpha/00000.png", True),
    "mose/val": ("alpha/00000.png", True),
    "mosev2/val": ("alpha/00000.png", True),
    "lvos-v2/test": ("Annotations/alpha/00000.png", True),
    "youtube-vos-2019/valid": ("Annotations/alpha/00000.png", False),
    "lsvos2024/test": ("alpha/00000.png", True),
}


@pytest.fixture
def packed(dataset: Path, tmp_path: Path):
    """`packed(split)`: the tiny dataset as that split with predictions in a store, and the archive of them."""

    def pack(split: Split) -> tuple[Path, Path, Path]:
        root = tmp_path / "resources" / "datasets" / split.dataset / split.name
        if not root.exists():
            shutil.copytree(dataset, root)
            # meta.json of YouTube-VOS: every second frame of the objects is wanted
            frames = {name: [f"{i:05d}" for i in range(0, 6, 2)] for name in ("alpha", "beta", "gamma")}
            videos = {name: {"objects": {"1": {"category": "x", "frames": frames[name]}}} for name in frames}
            write_json(root / "meta.json", {"videos": videos})
        table = root / "sequences.parquet"
        index_split(root, table, Split(dataset=split.dataset, name=split.name))
        store = tmp_path / "results" / "predictions" / split.dataset / split.name / "static"
        for folder in sorted((dataset / "Annotations").iterdir()):
            if not (store / folder.name).exists():
                shutil.copytree(folder, store / folder.name)
            stems = sorted(path.stem for path in (dataset / "JPEGImages" / folder.name).iterdir())
            digest = masks_digest((stem, store / folder.name / f"{stem}.png") for stem in stems)
            manifest = make_manifest(folder.name, digest=digest, frames=stems)
            write_json(store / f"{folder.name}.json", manifest.to_json())
        archive = tmp_path / "results" / "submissions" / split.dataset / split.name / "static.zip"
        pack_submission(split, table, store, archive)
        return archive, table, store

    return pack


@pytest.mark.parametrize("name", FORMATS)
def test_formats_of_the_servers(packed, name):
    split = load_catalog().split(name)
    archive, table, _ = packed(split)
    first, every_frame = FORMATS[name]
    names = zipfile.ZipFile(archive).namelist()
    assert names[0] == first and len(names) == (6 + 8 + 6 if every_frame else 9)
    assert check_submission(archive, submission_format(split, table)) == []
    before = archive.read_bytes()
    archive.unlink()
    assert packed(split)[0].read_bytes() == before


def test_team_file_of_lsvos_2025(packed):
    split = Split(
        dataset="lsvos2025",
        name="test",
        ground_truth="first_frame",
        submission={"team": {"name": "A", "members": ["B"]}},
    )
    archive, table, _ = packed(split)
    assert json.loads(zipfile.ZipFile(archive).read("team.json")) == {"name": "A", "members": ["B"]}
    expected = submission_format(split, table)
    assert check_submission(archive, expected) == []
    repack(archive, lambda name, data: None if name == "team.json" else (name, data))
    assert check_submission(archive, expected) == ["team.json is missing at the root of the archive"]


def repack(archive: Path, change) -> None:
    """Write the archive again; change(name, data) gives the new pair, or None to leave the member out."""
    with zipfile.ZipFile(archive) as old:
        members = [change(name, old.read(name)) for name in old.namelist()]
    with zipfile.ZipFile(archive, "w") as new:
        for member in filter(None, members):
            new.writestr(*member)


def png(labels: np.ndarray, folder: Path) -> bytes:
    path = folder / "mask.png"
    write_mask(path, labels.astype(np.uint8))
    return path.read_bytes()


def test_a_sequence_that_the_meta_file_lacks_is_not_packed_with_every_frame(packed):
    split = load_catalog().split("youtube-vos-2019/valid")
    _, table, _ = packed(split)
    meta = table.with_name("meta.json")
    videos = json.loads(meta.read_text())["videos"]
    del videos["beta"]
    write_json(meta, {"videos": videos})
    with pytest.raises(DataError, match=r"meta\.json does not have sequence beta"):
        submission_format(split, table)


def test_a_duplicate_mask_is_reported(packed):
    split = load_catalog().split(MOSE)
    archive, table, _ = packed(split)
    with zipfile.ZipFile(archive, "a") as members, pytest.warns(UserWarning, match="Duplicate name"):
        members.writestr("beta/00003.png", members.read("beta/00003.png"))
    assert check_submission(archive, submission_format(split, table)) == [
        "beta/00003.png: more than once in the archive"
    ]


MOSE = "mose/val"
CHANGES = {
    "missing frame": (
        lambda name, data, tmp: None if name == "beta/00003.png" else (name, data),
        "sequence beta: 1 frames missing: 00003",
    ),
    "missing sequence": (
        lambda name, data, tmp: None if name.startswith("beta/") else (name, data),
        "sequence beta: missing; expected 8 masks in beta/",
    ),
    "unpadded name": (
        lambda name, data, tmp: (name.replace("beta/00003", "beta/3"), data),
        "sequence beta: 1 frames that the server does not expect: 3",
    ),
    "one folder too deep": (
        lambda name, data, tmp: (f"out/{name}", data),
        "3 sequences are in out; expected them in the root of the archive",
    ),
    "junk": (
        lambda name, data, tmp: (name.replace("alpha/00000.png", "alpha/.DS_Store"), data),
        "alpha: 1 files that do not belong there: .DS_Store",
    ),
    "not a png": (lambda name, data, tmp: (name, b"GIF89a" * 20), "sequence alpha, frame 00000: is not a PNG file"),
    "rgb": (
        lambda name, data, tmp: (name, cv2.imencode(".png", np.zeros((48, 64, 3), np.uint8))[1].tobytes()),
        "sequence alpha, frame 00000: is a PNG of colour type 2; expected a palette PNG (colour type 3)",
    ),
    "size": (
        lambda name, data, tmp: (name, png(np.zeros((24, 32)), tmp)),
        "sequence alpha, frame 00000: is 32x24; expected the frame's 64x48",
    ),
    "ids": (
        lambda name, data, tmp: (name, png(np.full((48, 64), 7), tmp)),
        "sequence alpha, frame 00000: has ids 7; expected only those of the prompts, 1, 2",
    ),
    "truncated": (
        lambda name, data, tmp: (name, data[: len(data) // 2]),
        "sequence alpha, frame 00000: mask alpha/00000.png is damaged",
    ),
}


@pytest.mark.parametrize("fault", CHANGES)
def test_faults_are_listed(packed, tmp_path, fault):
    split = load_catalog().split(MOSE)
    archive, table, _ = packed(split)
    change, sentence = CHANGES[fault]
    repack(archive, lambda name, data: change(name, data, tmp_path))
    faults = check_submission(archive, submission_format(split, table))
    assert any(line.startswith(sentence) for line in faults), faults


def test_the_command_checks_archives_from_elsewhere(packed, tmp_path, monkeypatch, capsys):
    split = load_catalog().split(MOSE)
    archive, _, _ = packed(split)
    monkeypatch.chdir(tmp_path)
    elsewhere = archive.rename(tmp_path / "upload.zip")
    assert main(["submission", "--check", str(elsewhere)]) == 0
    assert "OK: valid submission for mose/val" in capsys.readouterr().out
    repack(elsewhere, lambda name, data: None if name.endswith("3.png") else (name, data))
    assert main(["submission", "--check", str(elsewhere), "--dataset", MOSE]) == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith("upload.zip: 3 faults")
    elsewhere.write_bytes(elsewhere.read_bytes()[:100])
    assert main(["submission", "--check", str(elsewhere), "--dataset", MOSE]) == 1
    assert "not a complete ZIP archive" in capsys.readouterr().out
    assert main(["submission", "--check", "none.zip", "--dataset", MOSE]) == 1
    assert "no such file" in capsys.readouterr().err


def test_an_edited_or_missing_prediction_is_not_packed(packed):
    split = load_catalog().split(MOSE)
    archive, table, store = packed(split)
    archive.unlink()
    write_mask(store / "alpha" / "00001.png", np.zeros((48, 64), np.uint8))
    (store / "gamma.json").unlink()
    with pytest.raises(DataError) as error:
        pack_submission(split, table, store, archive)
    assert "not written, 2 faults" in str(error.value), "each fault once"
    assert "sequence alpha: masks in" in str(error.value) and "sequence gamma: not predicted yet" in str(error.value)
    assert not list(archive.parent.iterdir())
    status = store / ".shards" / "all.json"
    status.parent.mkdir()
    write_json(status, {"masks": {"alpha": "", "beta": "", "gamma": ""}})
    with pytest.raises(DataError, match="not written, 2 faults"):
        pack_submission(split, table, store, archive, [status])
    left = {path.name for path in store.iterdir()}
    assert left == {".shards", "beta", "beta.json", "gamma"} and not status.exists(), "the next run tracks the others"


def test_workflow_packs_hidden_splits_and_takes_the_servers_answer(dataset, tmp_path, snakemake):
    for mask in (dataset / "Annotations").glob("*/*.png"):
        if mask.stem != "00000" and mask.parent.name != "gamma":
            mask.unlink()
    closed = {"status": "closed", "checked": "2026-01-20", "instead": "squares/local"}
    item = {"path": str(dataset), "ground_truth": "first_frame", "submission": {"folder": "Annotations", **closed}}
    notice = "he server takes no submissions (2026-01-20); score squares/local instead"
    packed = snakemake(config={"datasets": [item], "models": ["static"], "inference": {"sequences_per_job": 16}})
    board = (tmp_path / "results/studies/config/leaderboard/leaderboard.md").read_text()
    assert "packed, awaiting server score" in board and f"T{notice}." in board
    assert f"squares/all: t{notice}" in packed.stderr
    archive = tmp_path / "results/studies/config/submissions/squares/all/static.zip"
    assert zipfile.ZipFile(archive).namelist()[0] == "Annotations/alpha/00000.png"
    scores = tmp_path / "scores/squares/all/static.yaml"
    scores.parent.mkdir(parents=True)
    scores.write_text("J&F: 50.5\nJ: 50\nF: 51\n")
    snakemake("leaderboard")
    board = (tmp_path / "results/studies/config/leaderboard/leaderboard.md").read_text()
    assert "| server" in board and notice not in board
    assert "Nothing to be done" in snakemake("leaderboard").stderr
    snakemake("--", "partial")
    assert "50.5" in (tmp_path / "results/studies/config/partial/leaderboard/leaderboard.csv").read_text()


@pytest.fixture
def tiny(tmp_path) -> tuple[bytes, SubmissionFormat]:
    """A sound archive of two frames, and what its server expects."""
    mask, file = png(np.eye(16, 24), tmp_path), io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for stem in ("00000", "00001"):
            archive.writestr(f"a/{stem}.png", mask)
    return file.getvalue(), SubmissionFormat(
        "", None, {"a": ExpectedSequence(("00000", "00001"), (16, 24), frozenset([1]))}
    )


@pytest.mark.timeout(60)
def test_damaged_archives_are_lists_of_faults(tiny, tmp_path):
    data, expected = tiny
    file, random = tmp_path / "f.zip", np.random.default_rng(0)
    file.write_bytes(data)
    assert check_submission(file, expected) == []
    truncated = [data[:end] for end in range(0, len(data), 7)]
    flipped = []
    for position, bit in zip(random.integers(len(data), size=600), random.integers(8, size=600), strict=True):
        damaged = bytearray(data)
        damaged[position] ^= 1 << bit
        flipped.append(bytes(damaged))
    for damaged in truncated + flipped:
        file.write_bytes(damaged)
        faults = check_submission(file, expected)
        assert all(isinstance(fault, str) and fault for fault in faults)
        assert faults or damaged in flipped, "a truncated archive has a fault"
        with contextlib.suppress(DataError):
            sequences_in(file)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_that_are_not_what_the_archive_says(tiny, tmp_path, method):
    data, expected = tiny
    file = tmp_path / "f.zip"
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert check_submission(file, expected) == []
    whole = file.read_bytes()
    for other in {0, 1, 8, 9, 12, 14, 99} - {method}:  # the method, in the local headers and in the directory
        changed = bytearray(whole)
        for signature, offset in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
            start = -1
            while (start := whole.find(signature, start + 1)) >= 0:
                changed[start + offset : start + offset + 2] = other.to_bytes(2, "little")
        file.write_bytes(changed)
        assert check_submission(file, expected), f"{method} read as {other}"


def test_encrypted_nested_and_huge_members(tiny, tmp_path, monkeypatch):
    data, expected = tiny
    file = tmp_path / "f.zip"
    encrypted = bytearray(data)
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = -1
        while (start := data.find(signature, start + 1)) >= 0:
            encrypted[start + offset] |= 1
    file.write_bytes(encrypted)
    assert check_submission(file, expected) == [
        "2 files are encrypted: a/00000.png, a/00001.png; zip them without a password"
    ]
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("inner.zip", data)
    assert check_submission(file, expected) == [
        "root: 1 files that do not belong there: inner.zip",
        "sequence a: missing; expected 2 masks in a/",
    ]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/00000.png", bytes(50_000_000))
    faults = check_submission(file, expected)
    assert "sequence a, frame 00000: is larger than 1049344 bytes when unpacked" in faults


@pytest.mark.parametrize("text", ["", "[]", '{"videos": []}', '{"videos": {"a": {"objects": {"1": {}}}}}', "[" * 5000])
def test_a_meta_file_that_names_no_frames_is_named(packed, text):
    split = load_catalog().split("youtube-vos-2019/valid")
    _, table, _ = packed(split)
    (table.parent / "meta.json").write_text(text)
    with pytest.raises(DataError, match="not a meta file that names frames"):
        submission_format(split, table)
