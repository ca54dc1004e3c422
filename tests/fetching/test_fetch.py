"""From a catalog's name to a scored or tracked split: the command, the rules, and two workflows at once."""

import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
import yaml

from tests.conftest import workflow_command
from tests.support import miniature
from tests.support.loopback import Server
from tests.support.miniature import tar_of, zip_of
from vosarena.base.errors import DataError
from vosarena.base.notes import read_note
from vosarena.cli import main
from vosarena.config.catalogs import BUILT_IN, load_catalog
from vosarena.config.dataset_schema import ArchiveEntry
from vosarena.datasets.archives import roots_of
from vosarena.datasets.table import read_table
from vosarena.fetching.policy import RetryPolicy
from vosarena.fetching.sources import WeightsEntry
from vosarena.fetching.weights import fetch_weights

LVOS, LVOS_META, LVOS_ATTRIBUTES = miniature.lvos({"aaaa": 6, "bbbb": 5})
ARCHIVES = {
    "davis2017": {"DAVIS-2017-trainval-480p.zip": zip_of(miniature.davis({"bear": 4, "dog": 5}, "2017/val.txt"))},
    "mose": {"valid.tar.gz": tar_of(miniature.mose({"0a1b": 3, "ff00": 4}))},
    "lvos-v2": {"val.zip": zip_of(LVOS), "valid_meta.json": LVOS_META, "val_meta_attribute.json": LVOS_ATTRIBUTES},
    "youtube-vos-2019": {"valid.zip": zip_of(miniature.youtube_vos({"003234408d": 4}))},
    "sa-v": {"sav_val.tar": tar_of(miniature.sa_v({"sav_000001": 9}), "w")},
}
SPLITS = ["davis2017/val", "lvos-v2/val", "mose/val", "youtube-vos-2019/valid", "sa-v/val"]


@pytest.fixture
def server():
    with Server({f"{home}/{file}": body for home, files in ARCHIVES.items() for file, body in files.items()}) as server:
        yield server


@pytest.fixture
def catalog(server, tmp_path) -> Path:
    """The built-in entries with other addresses and hashes: layouts, roots, lists and protocols are the real ones."""
    folder = tmp_path / "catalog"
    (folder / "datasets").mkdir(parents=True)
    for home, files in ARCHIVES.items():
        entry = yaml.safe_load((BUILT_IN / "datasets" / f"{home}.yaml").read_text())
        for split in entry["splits"].values():
            for archive in split["archives"]:
                declared = ArchiveEntry.model_validate(archive)
                file = next(filter(None, [declared.file, *(source.file_name() for source in declared.sources)]))
                archive.pop("sha256", None)
                if file in files:
                    archive |= {"sources": [{"url": server.url(f"{home}/{file}")}], "file": file}
                    if home == "mose":
                        archive["sha256"] = sha256(files[file]).hexdigest()
        (folder / "datasets" / f"{home}.yaml").write_text(yaml.safe_dump(entry))
    return folder


def command(catalog: Path, resources: Path, *names: str) -> int:
    return main(["fetch", *names, "--catalog", str(catalog), "--resources", str(resources), "--timeout", "2"])


def test_the_command(catalog, server, tmp_path, capsys):
    """Every dataset from its address to its table; a second call downloads nothing; the lists say so."""
    resources = tmp_path / "resources"
    assert command(catalog, resources, *SPLITS) == 0
    printed = capsys.readouterr().out
    assert "davis2017/val: 2 sequences (expected 30) in" in printed
    requests = len(server.requests)
    assert requests == 7
    assert command(catalog, resources, *SPLITS) == 0
    assert len(server.requests) == requests
    places = ["--catalog", str(catalog), "--resources", str(resources)]
    main(["datasets", *places])
    main(["models", *places])
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("mose/val "))
    assert "indexed" in line and "2 of 311" in line and "kB" in line
    assert "absent" in next(line for line in printed.splitlines() if line.startswith("lvos-v2/train"))
    assert " part of 1507 " in next(line for line in printed.splitlines() if line.startswith("mose/val-local"))
    assert "none needed" in next(line for line in printed.splitlines() if line.startswith("static"))
    (resources / "archives/mose/valid.tar.gz").unlink()
    for folder in ("extracted/mose/valid.tar.gz", "datasets/mose"):
        shutil.rmtree(resources / folder)
    main(["datasets", *places])
    assert "absent" in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("mose/val "))


def test_a_part_of_a_split_is_complete(dataset, tmp_path, capsys):
    """The catalog's number is that of all sequences on disk."""
    entry = {"splits": {"part": {"path": str(dataset), "sequences": 3, "select": ["alpha"]}}}
    (tmp_path / "catalog/datasets").mkdir(parents=True)
    (tmp_path / "catalog/datasets/squares.yaml").write_text(yaml.safe_dump(entry))
    assert command(tmp_path / "catalog", tmp_path / "resources", "squares/part") == 0
    assert "squares/part: 1 sequences in" in capsys.readouterr().out


def test_the_command_gets_over_faults(catalog, server, tmp_path):
    server.faults = ["truncate", "500", "html"]
    assert command(catalog, tmp_path / "resources", "mose/val") == 0
    assert len(read_table(tmp_path / "resources/datasets/mose/val/sequences.parquet")) == 2


def test_the_command_says_in_one_sentence_what_is_wrong(catalog, server, tmp_path, capsys):
    server.files["mose/valid.tar.gz"] = tar_of(miniature.mose({"evil": 2}))
    assert command(catalog, tmp_path / "resources", "mose/val") == 1
    error = capsys.readouterr().err
    assert "error: mose/valid.tar.gz: could not be downloaded\n" in error and "sha256" in error and "expected" in error
    assert command(catalog, tmp_path / "resources", "sa-v/test") == 1
    error = capsys.readouterr().err
    assert "https://ai.meta.com/datasets/segment-anything-video-downloads/" in error
    assert str(tmp_path / "resources/archives/sa-v/sav_test.tar") in error
    assert not (tmp_path / "resources/datasets").exists()


def test_archives_can_be_removed(catalog, server, tmp_path):
    resources = tmp_path / "resources"
    arguments = ["fetch", "mose/val", "--catalog", str(catalog), "--resources", str(resources)]
    assert main([*arguments, "--remove-archives"]) == 0
    assert not (resources / "archives/mose/valid.tar.gz").exists()
    assert main(arguments) == 0 and len(server.requests) == 1
    resources.rename(tmp_path / "moved")
    assert main([*arguments[:-1], str(tmp_path / "moved")]) == 0 and len(server.requests) == 1


@pytest.mark.parametrize("note", [b"", bytes(40), b"[]", b'{"folder": 3}', b'{"folder": null, "checksum": "x"}'])
def test_a_damaged_note_of_an_extraction(catalog, server, tmp_path, note):
    """Fetching makes it again; whatever needs the folder says in one sentence what to do."""
    resources = tmp_path / "resources"
    assert command(catalog, resources, "mose/val") == 0
    damaged = resources / "extracted/mose/valid.tar.gz.json"
    damaged.write_bytes(note)
    with pytest.raises(DataError, match=r"note is damaged; remove .*valid.tar.gz.json"):
        roots_of(load_catalog([catalog]).split("mose/val"), resources)
    assert command(catalog, resources, "mose/val") == 0 and len(server.requests) == 1
    assert "sha256" in read_note(damaged)


def test_weights(server, tmp_path):
    """Downloaded once for all models that share them, locked, and seen to change where they are the user's own."""
    server.files["best.pth"] = b"\x80\x02weights"
    weights = {"sources": [{"url": server.url("best.pth")}]}
    outputs = [tmp_path / "weights" / f"{name}.pth" for name in ("one", "two")]
    for output in outputs:
        output.parent.mkdir(exist_ok=True)
        fetch_weights(WeightsEntry(**weights), output, RetryPolicy(2, 1, 0.01))
        assert output.read_bytes() == b"\x80\x02weights"
    assert len(server.requests) == 1
    server.files["other/best.pth"] = b"another model's"
    other = {"sources": [{"url": server.url("other/best.pth")}]}
    for known in ({}, {"sha256": sha256(b"another model's").hexdigest()}):
        fetch_weights(
            WeightsEntry.model_validate({**other, **known}), tmp_path / "weights/three.pth", RetryPolicy(2, 1, 0.01)
        )
        assert (tmp_path / "weights/three.pth").read_bytes() == b"another model's"
        assert outputs[0].read_bytes() == outputs[1].read_bytes() == b"\x80\x02weights"
    assert len(server.requests) == 2
    with pytest.raises(DataError, match="expected 0000"):
        fetch_weights(WeightsEntry.model_validate({**weights, "sha256": "0" * 64}), outputs[0], RetryPolicy(2, 1, 0.01))
    own = tmp_path / "own.pth"
    for content in (b"first", b"second"):
        own.write_bytes(content)
        fetch_weights(
            WeightsEntry.model_validate({"sources": [{"local": str(own)}]}), tmp_path / "weights/own.pth", RetryPolicy()
        )
        assert (tmp_path / "weights/own.pth").read_bytes() == content


def workflow_config(catalog: Path, resources: Path, *splits: str) -> dict:
    return {
        "datasets": list(splits),
        "models": ["static"],
        "catalog": [str(catalog)],
        "inference": {"sequences_per_job": 16},
        "download": {"timeout": 5},
        "pathvars": {"resources": str(resources)},
    }


def test_two_workflows_share_resources(catalog, server, tmp_path):
    """Both begin at once with nothing: the archive is downloaded once, both reach the leaderboard."""
    config = workflow_config(catalog, tmp_path / "shared", "davis2017/val")
    running = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        call = workflow_command(tmp_path / name, config, "leaderboard")
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        running.append(subprocess.Popen(call, cwd=tmp_path / name, **pipe))
    for process in running:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    assert [path for path, _ in server.requests] == ["davis2017/DAVIS-2017-trainval-480p.zip"]
    for name in ("first", "second"):
        assert "davis2017" in (tmp_path / name / "results/studies/config/leaderboard/leaderboard.csv").read_text()
    again = subprocess.run(
        workflow_command(tmp_path / "first", config, "leaderboard", "--dry-run"),
        **{"capture_output": True, "text": True, "cwd": tmp_path},
    )
    assert "Nothing to be done" in again.stdout + again.stderr


def test_from_the_command_to_the_leaderboard(catalog, tmp_path, snakemake):
    """What the command fetched is what the workflow goes on from: it tracks and scores, and fetches nothing again."""
    splits = ["lvos-v2/val", "youtube-vos-2019/valid", "sa-v/val"]
    assert command(catalog, tmp_path / "resources", *splits) == 0
    done = snakemake("leaderboard", config=workflow_config(catalog, tmp_path / "resources", *splits))
    assert not any(f"rule {name}" in done.stdout + done.stderr for name in ("download", "extract", "prepare"))
    board = (tmp_path / "results/studies/config/leaderboard/leaderboard.csv").read_text()
    assert "lvos-v2" in board and "sa-v" in board
    predictions = tmp_path / "results/predictions"
    assert len(list((predictions / "youtube-vos-2019/valid/static/003234408d").glob("*.png"))) == 4
    assert len(list((predictions / "sa-v/val/static/sav_000001").glob("00?/*.png"))) == 18
