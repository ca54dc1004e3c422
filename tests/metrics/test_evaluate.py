"""`vosarena evaluate` and the metrics table: what comes out, and what bad input says."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from tests.support.mask_makers import blobs, write_clip
from vosarena.base.errors import DataError, VosarenaError
from vosarena.cli import main
from vosarena.cli.evaluate import add_parser
from vosarena.config.paths import Paths
from vosarena.datasets.sequences import frame_order, read_sequence
from vosarena.datasets.table import SequenceCounts, SequenceRecord, read_table, write_table
from vosarena.io.masks import has_smooth_edges, masks_digest, write_mask
from vosarena.metrics.measure import measure
from vosarena.metrics.meta import read_meta, with_meta
from vosarena.metrics.pairs import Failure, MeasureError, pair_folders, pair_sequence
from vosarena.metrics.read import read_metadata
from vosarena.metrics.scores import score, summarise
from vosarena.orchestration.checks import discard_damaged

COLUMNS = {
    **dict.fromkeys(["dataset", "split", "model", "sequence"], "dictionary<values=string, indices=int32, ordered=0>"),
    "object_id": "int32",
    "frame": "string",
    "frame_index": "int32",
    **dict.fromkeys(["intersection", "gt_pixels", "pred_pixels"], "int32"),
    **dict.fromkeys(["gt_boundary", "pred_boundary", "gt_matched", "pred_matched"], "int32"),
    **dict.fromkeys(["tolerance", "j", "f"], "double"),
}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Ground truth and prediction of sequences `a` to `d`, six frames of 40x60 pixels."""
    rng = np.random.default_rng(0)
    for name in "abcd":
        gt = [blobs(rng, 40, 60, 4, 3) for _ in range(6)]
        # Objects 1 to 3 are in every first frame.
        gt[0][:3, :9] = np.repeat([1, 2, 3], 3)
        write_clip(tmp_path / "gt" / name, gt)
        write_clip(tmp_path / "pred" / name, [np.roll(labels, (1, 2), (0, 1)) for labels in gt])
    return tmp_path / "gt", tmp_path / "pred"


def run(gt: Path, pred: Path, *options: str, protocol: str = "davis2017") -> int:
    """The command in this process; raises what the command line prints."""
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    arguments = ["evaluate", "--gt", str(gt), "--pred", str(pred), "--protocol", protocol, *options]
    args = parser.parse_args(arguments)
    return args.run(args)


def measured(gt: Path, pred: Path, output: Path, **options) -> pd.DataFrame:
    measure(pair_folders(gt, pred), output, dataset="d", split="s", model="m", progress=False, **options)
    return pd.read_parquet(output)


def test_scores_are_printed_and_written(folders, tmp_path: Path, capsys) -> None:
    csv, parquet = tmp_path / "out" / "scores.csv", tmp_path / "out" / "scores.parquet"
    assert run(*folders, "--output", str(csv), "--counts", str(tmp_path / "counts.parquet")) == 0
    printed = capsys.readouterr().out
    assert run(*folders, "--output", str(parquet), "--jobs", "2") == 0
    scores = pd.read_parquet(parquet)
    pd.testing.assert_frame_equal(pd.read_csv(csv).drop(columns="split"), scores.drop(columns="split"))
    summary = summarise(scores).iloc[0]
    assert (summary["n_sequences"], summary["n_objects"]) == (4, 12)
    assert f"{summary['j_and_f']:.1f}" in printed and "davis2017" in printed
    pd.testing.assert_frame_equal(score(tmp_path / "counts.parquet", "davis2017"), scores)


def test_the_installed_command(folders) -> None:
    """One process, as a user runs it: exit code 1 and one sentence without a traceback."""
    gt, pred = folders
    (pred / "b" / "00003.png").unlink()
    command = [sys.executable, "-m", "vosarena", "evaluate", "--gt", gt, "--pred", pred, "--protocol", "lvos"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 1
    assert "sequence b, frame 00003: no prediction for this frame" in done.stderr
    assert "Traceback" not in done.stderr and "3 of 4 sequences" in done.stdout


def test_table_has_the_contract_columns(folders, tmp_path: Path) -> None:
    rows = measured(*folders, tmp_path / "counts.parquet")
    schema = pq.read_schema(tmp_path / "counts.parquet")
    assert {field.name: str(field.type) for field in schema} == COLUMNS
    order = rows.sort_values(["sequence", "object_id", "frame_index"], kind="stable")
    assert order.index.equals(rows.index) and len(rows) == 4 * 3 * 6
    assert pq.ParquetFile(tmp_path / "counts.parquet").metadata.row_group(0).column(0).compression == "ZSTD"
    metadata = read_metadata(tmp_path / "counts.parquet")
    assert metadata.policies == {"extra_ids": "error", "resize": "never"} and metadata.complete
    assert metadata.sequences["a"].objects == (1, 2, 3) and "0.008" in metadata.tolerance
    assert (rows["j"] == rows["intersection"] / (rows["gt_pixels"] + rows["pred_pixels"] - rows["intersection"])).where(
        rows["gt_pixels"] + rows["pred_pixels"] > 0, True
    ).all()  # fmt: skip


def test_bytes_do_not_depend_on_jobs_or_order(folders, tmp_path: Path) -> None:
    pairs = pair_folders(*folders)
    options = {"dataset": "d", "split": "s", "model": "m", "progress": False}
    for name, order, jobs in (("one", pairs, 1), ("four", pairs[::-1], 4)):
        measure(order, tmp_path / f"{name}.parquet", jobs=jobs, **options)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "four.parquet").read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def damage_missing(pred: Path) -> None:
    (pred / "b" / "00002.png").unlink()
    (pred / "b" / "00004.png").unlink()


def damage_numbered_from_one(pred: Path) -> None:
    for number in range(5, -1, -1):
        (pred / "b" / f"{number:05d}.png").rename(pred / "b" / f"{number + 1:05d}.png")


def damage_truncated(pred: Path) -> None:
    data = (pred / "b" / "00002.png").read_bytes()
    (pred / "b" / "00002.png").write_bytes(data[: len(data) // 2])


def damage_zero_bytes(pred: Path) -> None:
    (pred / "b" / "00002.png").write_bytes(b"")


def damage_size(pred: Path) -> None:
    write_mask(pred / "b" / "00002.png", np.zeros((40, 61), np.uint8))


def damage_rgb(pred: Path) -> None:
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(pred / "b" / "00002.png")


def damage_16_bit(pred: Path) -> None:
    Image.fromarray(np.zeros((40, 60), np.uint16)).save(pred / "b" / "00002.png")


def damage_extra_id(pred: Path) -> None:
    write_mask(pred / "b" / "00002.png", np.full((40, 60), 9, np.uint8))


def damage_folder_missing(pred: Path) -> None:
    shutil.rmtree(pred / "b")


def damage_folder_empty(pred: Path) -> None:
    shutil.rmtree(pred / "b")
    (pred / "b").mkdir()
    (pred / "b" / ".DS_Store").touch()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (damage_missing, r"sequence b, frame 00002: no prediction for this frame \(and 1 more of its frames\)"),
        (
            damage_numbered_from_one,
            r"sequence b: its masks are 00001 to 00006, but those .* 00000 to 00005; number",
        ),
        (damage_truncated, r"sequence b, frame 00002: mask .*00002\.png is damaged \(it is truncated\)"),
        (damage_zero_bytes, r"sequence b, frame 00002: mask .*00002\.png is empty \(zero bytes\)"),
        (damage_size, r"sequence b, frame 00002: the prediction is 61x40 pixels but the ground truth is 60x40"),
        (damage_rgb, r"sequence b, frame 00002: mask .*00002\.png is RGB"),
        (damage_16_bit, r"sequence b, frame 00002: mask .*00002\.png has 16 bits per pixel"),
        (damage_extra_id, r"sequence b, frame 00002, object 9: predicted, but the ground truth has no such object"),
        (damage_folder_missing, r"sequence b: not predicted, there is no folder .*pred/b"),
        (damage_folder_empty, r"sequence b: .*pred/b holds no PNG masks"),
    ],
)
def test_one_bad_sequence_is_named_and_the_others_are_measured(folders, tmp_path, damage, sentence, capsys) -> None:
    damage(folders[1])
    output = tmp_path / "scores.csv"
    with pytest.raises(MeasureError, match=sentence) as caught:
        run(*folders, "--output", str(output), "--jobs", "2")
    assert (caught.value.sequences, caught.value.stale, caught.value.measured) == (["b"], ["b"], 3)
    assert len(str(caught.value).splitlines()) == 2
    assert pd.read_csv(output)["sequence"].unique().tolist() == ["a", "c", "d"]
    assert "3 of 4 sequences" in capsys.readouterr().out


def test_a_damaged_ground_truth_does_not_blame_the_prediction(folders, tmp_path: Path) -> None:
    gt, pred = folders
    (gt / "c" / "00001.png").write_bytes(b"no")
    shutil.rmtree(gt / "d")
    with pytest.raises(
        MeasureError, match=r"c, frame 00001: mask .*not a PNG(.|\n)*d: predicted .*no ground truth"
    ) as e:
        measured(gt, pred, tmp_path / "counts.parquet")
    assert e.value.sequences == ["c", "d"] and e.value.stale == []


def test_a_name_given_twice_fails_alone(folders, tmp_path: Path) -> None:
    pairs = pair_folders(*folders)
    counts = tmp_path / "counts.parquet"
    with pytest.raises(MeasureError, match=r"1 of 4 .*\n  sequence b: given 2 times; give every sequence a name") as e:
        measure([*pairs, pairs[1]], counts, dataset="d", split="s", model="m", progress=False)
    assert (e.value.sequences, e.value.stale, e.value.measured) == (["b"], [], 3)
    assert pd.read_parquet(counts)["sequence"].unique().tolist() == ["a", "c", "d"]


def test_incomplete_tables_are_not_scored_unless_asked(folders, tmp_path: Path) -> None:
    shutil.rmtree(folders[1] / "a")
    counts = tmp_path / "counts.parquet"
    with pytest.raises(MeasureError):
        measured(*folders, counts)
    assert not read_metadata(counts).complete and len(read_metadata(counts).failures) == 1
    with pytest.raises(DataError, match="is incomplete, 1 failures: sequence a: not predicted"):
        score(counts, "davis2017")
    assert score(counts, "davis2017", allow_incomplete=True)["sequence"].nunique() == 3


def test_mistakes_in_the_arguments(folders, tmp_path: Path, capsys) -> None:
    gt, pred = folders
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").touch()
    for bad, message in (
        (tmp_path / "nowhere", "nowhere: no such folder"),
        (tmp_path / "empty", "empty: no sequence folders"),
    ):
        with pytest.raises(DataError, match=message):
            run(gt, bad)
        with pytest.raises(DataError, match=message):
            run(bad, pred)
    for options, message in (
        (["--output", str(pred / "scores.csv")], "lies in the input folder"),
        (["--counts", str(gt / "a" / "counts.parquet")], "lies in the input folder"),
        (["--output", str(tmp_path / "scores.txt")], r"ends in \.parquet or \.csv"),
        (["--jobs", "0"], "expected 1 or more"),
        (["--meta", str(gt / "meta.json")], "is not a meta file"),
        (["--unseen", str(gt / "unseen.txt")], "cannot be read"),
        (["--sequences", str(gt / "val.txt")], "cannot be read"),
        (["--output", "/proc/scores.csv"], "/proc: cannot be written to"),
        (["--counts", "/proc/counts.parquet"], "cannot be written to"),
        (["--output", str(tmp_path / "file" / "scores.csv")], "cannot be written to"),
        (["--output", str(tmp_path / "folder.csv")], "is a folder"),
    ):
        with pytest.raises(VosarenaError, match=message):
            run(gt, pred, *options)
    with pytest.raises(DataError, match=r"no sequence 'z' in .*gt; known: a, b, c, d$"):
        run(gt, pred, "--sequence", "z")
    assert main(["evaluate", "--gt", str(gt), "--pred", str(pred)]) == 1
    assert "error: --protocol is missing; known: davis2017, " in capsys.readouterr().err


def test_no_table_of_nothing(folders, tmp_path: Path) -> None:
    for path in folders[1].glob("*/00003.png"):
        path.unlink()
    with pytest.raises(MeasureError, match="4 of 4"):
        run(*folders, "--output", str(tmp_path / "scores.csv"))
    assert not (tmp_path / "scores.csv").exists()


def test_nothing_is_written_into_the_inputs_and_nothing_is_reused(folders, tmp_path: Path) -> None:
    gt, pred = folders

    def listing() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in tmp_path.glob("*/*/*") if path.parts[-3] in ("gt", "pred")}

    before = listing()
    for folder in (gt, pred):
        for path in [*folder.rglob("*"), folder]:
            path.chmod(0o555 if path.is_dir() else 0o444)
    assert run(gt, pred, "--output", str(tmp_path / "one.csv")) == 0
    for folder in (gt, pred):
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert listing() == before and sorted(path.name for path in pred.iterdir()) == list("abcd")
    write_clip(pred / "a", [np.zeros((40, 60), np.uint8)] * 6)  # same names, other masks
    assert run(gt, pred, "--output", str(tmp_path / "two.csv")) == 0
    assert (tmp_path / "one.csv").read_bytes() != (tmp_path / "two.csv").read_bytes()


def test_stray_files_are_ignored(folders, tmp_path: Path) -> None:
    clean = measured(*folders, tmp_path / "clean.parquet")
    for folder in folders:
        (folder / "results.csv").touch()
        (folder / ".hidden").mkdir()
        for name in (".DS_Store", "Thumbs.db", "notes.txt", "._00001.png", "overlay.png", "00001.jpg"):
            (folder / "a" / name).write_bytes(b"stray")
    pd.testing.assert_frame_equal(measured(*folders, tmp_path / "stray.parquet"), clean)


def test_frame_order() -> None:
    assert list(frame_order(["10", "9", "007"])) == ["007", "9", "10"]
    assert frame_order(["b", "a"]) == {"a": 0, "b": 1}
    assert frame_order(["3", "overlay"]) == {"3": 3}
    with pytest.raises(DataError, match=r"7\.png and 007\.png are the same frame"):
        frame_order(["7", "007", "8"])


def test_predictions_may_be_padded_differently(folders, tmp_path: Path) -> None:
    clean = measured(*folders, tmp_path / "clean.parquet")
    for path in (folders[1] / "a").iterdir():
        path.rename(path.with_name(f"{int(path.stem)}.png"))
    pd.testing.assert_frame_equal(measured(*folders, tmp_path / "other.parquet"), clean)


def test_policies(folders, tmp_path: Path, capsys) -> None:
    gt, pred = folders
    damage_extra_id(pred)
    write_mask(pred / "c" / "00001.png", np.kron(np.ones((2, 2), np.uint8), np.full((40, 60), 1, np.uint8)))
    with pytest.raises(MeasureError, match=r"9: predicted.* --extra-ids ignore\n.*c, frame 00001: .* --resize nearest"):
        run(gt, pred)
    assert run(gt, pred, "--extra-ids", "ignore", "--resize", "nearest", "--counts", str(tmp_path / "c.parquet")) == 0
    notes = capsys.readouterr().err
    assert "sequence b, frame 00002, object 9: predicted but not in the ground truth, ignored" in notes
    assert "sequence c: 1 predicted masks were resized" in notes
    assert read_metadata(tmp_path / "c.parquet").policies == {"extra_ids": "ignore", "resize": "nearest"}
    write_mask(pred / "c" / "00001.png", np.full((40, 60), 1, np.uint8))
    same = measured(gt, pred, tmp_path / "d.parquet", extra_ids="ignore")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "c.parquet").drop(columns=["dataset", "split", "model"]),
                                  same.drop(columns=["dataset", "split", "model"]))  # fmt: skip
    # The protocols that repeat a peer ignore extra ids as the peer does, and say so.
    assert run(gt, pred, protocol="vos-benchmark") == 0
    assert "object 9" in capsys.readouterr().err


def test_unscored_objects_are_mentioned(folders, capsys) -> None:
    gt, pred = folders
    late = np.full((40, 60), 7, np.uint8)
    write_mask(gt / "a" / "00004.png", late)
    write_mask(pred / "a" / "00004.png", late)
    assert run(gt, pred) == 0
    assert "sequence a: object 7 of the ground truth is not scored by this protocol" in capsys.readouterr().err


def test_digest_of_the_predictions(folders, tmp_path: Path) -> None:
    """Checked while reading: every file counts, also those without ground truth."""
    gt, pred = folders[0] / "a", folders[1] / "a"
    (gt / "00003.png").unlink()
    digest = masks_digest((path.stem, path) for path in sorted(pred.iterdir()))

    def outcome() -> list[Failure]:
        pair = pair_sequence("a", gt, pred, masks_digest=digest)
        try:
            measure([pair], tmp_path / "o.parquet", dataset="d", split="s", model="m", progress=False)
        except MeasureError as error:
            assert error.stale == ["a"]
            return error.failures
        return []

    assert outcome() == []
    original = (pred / "00003.png").read_bytes()
    write_mask(pred / "00003.png", np.zeros((40, 60), np.uint8))
    assert "are not those that were written" in outcome()[0].reason
    (pred / "00003.png").unlink()
    assert "are not those that were written" in outcome()[0].reason
    (pred / "00003.png").write_bytes(original)
    assert outcome() == []
    (pred / "00006.png").write_bytes(original)
    assert "are not those that were written" in outcome()[0].reason


def test_objects_in_folders_of_their_own(tmp_path: Path) -> None:
    square = np.zeros((40, 60), np.uint8)
    square[5:20, 5:25] = 255
    for number in range(3):
        write_clip(tmp_path / "gt" / "v" / f"{number:03d}", [square] * 5)
        write_clip(tmp_path / "pred" / "v" / f"{number:03d}", [square // 255 if number else 0 * square] * 5)
    rows = measured(tmp_path / "gt", tmp_path / "pred", tmp_path / "counts.parquet")
    scores = score(tmp_path / "counts.parquet", "sa-v").set_index("object_id")
    assert scores["j"].to_dict() == {0: 0, 1: 100, 2: 100} and len(rows) == 15
    for change, message in (
        (lambda folder: (folder / "001" / "00002.png").unlink(), "frame 00002, object 1: no prediction"),
        (lambda folder: shutil.rmtree(folder / "002"), r"frame 00000, object 2: no prediction .*4 more"),
        (lambda folder: shutil.copytree(folder / "001", folder / "7"), "object folder 7 is predicted, but not in"),
        (lambda folder: write_mask(folder / "001" / "00003.png", square // 255 + (square > 0) * (np.arange(60) > 9)),
         "frame 00003, object 1: .*holds more than one object"),
    ):  # fmt: skip
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        shutil.copytree(tmp_path / "pred", tmp_path / "bad")
        change(tmp_path / "bad" / "v")
        with pytest.raises(MeasureError, match=message):
            measured(tmp_path / "gt", tmp_path / "bad", tmp_path / "bad.parquet")
    write_clip(tmp_path / "flat" / "v", [square] * 5)
    with pytest.raises(MeasureError, match="holds label maps, but the ground truth has a folder of binary masks"):
        measured(tmp_path / "gt", tmp_path / "flat", tmp_path / "flat.parquet")


def test_whole_dataset_folders(folders, tmp_path: Path) -> None:
    """`Annotations` and `Annotations/480p` are found inside a dataset's folder."""
    clean = measured(*folders, tmp_path / "clean.parquet")
    (tmp_path / "davis" / "Annotations").mkdir(parents=True)
    shutil.copytree(folders[0], tmp_path / "davis" / "Annotations" / "480p")
    pd.testing.assert_frame_equal(measured(tmp_path / "davis", folders[1], tmp_path / "davis.parquet"), clean)


def test_meta_file_and_unseen_list(folders, tmp_path: Path, capsys) -> None:
    objects = {str(i): {"category": "cat", "frame_range": {"start": 0, "end": 5, "frame_nums": 6}} for i in (1, 2, 3)}
    (tmp_path / "meta.json").write_text(json.dumps({"videos": {name: {"objects": objects} for name in "abcd"}}))
    (tmp_path / "unseen.txt").write_text("b\nd\n")
    options = ["--meta", str(tmp_path / "meta.json"), "--unseen", str(tmp_path / "unseen.txt")]
    assert run(*folders, *options, "--output", str(tmp_path / "scores.parquet"), protocol="lvos") == 0
    assert "J unseen" in capsys.readouterr().out
    unseen = pd.read_parquet(tmp_path / "scores.parquet").groupby("sequence")["unseen"].all()
    assert unseen.to_dict() == {"a": False, "b": True, "c": False, "d": True}
    (tmp_path / "meta.json").write_text(json.dumps({"videos": {"a": {"objects": objects}}}))
    with pytest.raises(MeasureError, match=r"3 of 4 .*\n  sequence b: it is not in the meta file"):
        run(*folders, "--meta", str(tmp_path / "meta.json"))


def test_the_evaluator_needs_no_torch_and_no_snakemake() -> None:
    code = "import sys, vosarena.metrics.evaluate; print({'torch', 'snakemake', 'cutie', 'sam2'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


# What `pip install vosarena` does not install, nor needs.
BLOCKED = ("pyarrow", "cv2", "pydantic", "requests", "yaml", "scipy", "torch", "snakemake")
BLOCKING = f"""
import sys
from importlib.abc import MetaPathFinder

class Blocked(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocked())
"""


def run_blocked(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Python code in which the packages of the extras cannot be imported."""
    command = [sys.executable, "-c", BLOCKING + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_base_dependencies_are_enough(folders, tmp_path: Path, capsys) -> None:
    command = "from vosarena.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["evaluate", "--gt", folders[0], "--pred", folders[1], "--protocol", "davis2017"]
    done = run_blocked(command, *arguments, "--output", tmp_path / "scores.csv")
    assert done.returncode == 0, done.stderr
    assert run(*folders, "--output", str(tmp_path / "same.csv")) == 0
    assert done.stdout == capsys.readouterr().out
    assert (tmp_path / "scores.csv").read_bytes() == (tmp_path / "same.csv").read_bytes()
    for option in ("--counts", "--output"):
        done = run_blocked(command, *arguments, option, tmp_path / "new.parquet")
        assert (done.returncode, done.stdout) == (1, "")
        message = f"error: {tmp_path}/new.parquet: Parquet files need pyarrow; pip install 'vosarena[data]'\n"
        assert done.stderr == message


def test_evaluate_imports_nothing_heavy(folders) -> None:
    """Each of them takes longer to import than a few sequences to score."""
    assert run(*folders) == 0  # the loops are compiled now
    heavy = "{'cv2', 'numba', 'pandas', 'pyarrow', 'pydantic', 'scipy', 'torch'}"
    code = f"from vosarena.cli import main; main(sys.argv[1:]); print({heavy}.intersection(sys.modules))"
    done = run_blocked(code, "evaluate", "--gt", folders[0], "--pred", folders[1], "--protocol", "davis2017")
    assert done.stdout.endswith("\nset()\n"), done.stdout + done.stderr


def test_kernels_are_cached_where_the_user_may_write(tmp_path: Path) -> None:
    """A read-only package and several processes at once: everything still counts, and one cache is filled."""
    code = (
        "import numpy as np; from vosarena.metrics.counts import count_objects;"
        "_, counts = count_objects(np.eye(4, dtype=np.uint8), np.eye(4, dtype=np.uint8));"
        "print([array.tolist() for array in counts.columns().values()])"
    )
    places = {"HOME": str(tmp_path / "home"), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": os.environ.get("PYTHONPATH", ""), **places}
    command = [sys.executable, "-B", "-c", code]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    results = {process.communicate()[0].strip() for process in running}
    assert results == {"[[4], [4], [4], [9], [9], [9], [9]]"}
    assert len(list((tmp_path / "cache").rglob("*kernels.count-*.bin"))) == 1


def names_in(output: Path) -> list[str]:
    return pd.read_csv(output)["sequence"].unique().tolist()


@pytest.mark.parametrize(
    "content",
    [
        b"b\nd\n",
        "b\r\n\r\nd".encode("utf-8-sig"),
        "# val\r\nd\r\nb\r\n".encode("utf-16"),
        b"/JPEGImages/480p/b/00000.jpg /Annotations/480p/b/00000.png\n/JPEGImages/480p/d/00000.jpg x\nd\n",
    ],
)
def test_a_list_of_sequences(folders, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "val.txt").write_bytes(content)
    output = tmp_path / "scores.csv"
    assert run(*folders, "--sequences", str(tmp_path / "val.txt"), "--output", str(output)) == 0
    assert names_in(output) == ["b", "d"]


@pytest.mark.parametrize(("content", "message"), [("bb\n", "did you mean 'b'"), ("# b\n", "names no sequence")])
def test_a_list_that_matches_nothing(folders, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "val.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        run(*folders, "--sequences", str(tmp_path / "val.txt"))


def to_values(folder: Path, *values: int) -> None:
    """Replace the objects 1, 2, ... of all masks by other values; objects without a value vanish."""
    table = np.zeros(256, np.uint8)
    table[1 : len(values) + 1] = values
    for path in folder.rglob("*.png"):
        Image.fromarray(table[np.asarray(Image.open(path))]).save(path)


def test_binary_masks(folders, tmp_path: Path, capsys) -> None:
    gt, pred = folders
    to_values(gt, 1), to_values(pred, 1)
    measured(gt, pred, tmp_path / "clean.parquet")
    clean = score(tmp_path / "clean.parquet", "davis2017")["j_and_f"].tolist()
    to_values(pred, 255)
    # The message must not lead to a score of 0.
    with pytest.raises(MeasureError, match=r"object 255: predicted, but .*--binary") as error:
        run(gt, pred)
    assert "--extra-ids" not in str(error.value)
    assert run(gt, pred, "--extra-ids", "ignore") == 0
    assert "warning: sequence a: no predicted object is in the ground truth" in capsys.readouterr().err
    assert run(gt, pred, protocol="davis2017-official") == 0
    assert "warning: sequence a: no predicted object is in the ground truth" in capsys.readouterr().err
    to_values(gt, 255)
    with pytest.raises(DataError, match=r"0 or 255, and 255 means ignore.*--binary"):
        run(gt, pred)
    assert run(gt, pred, "--binary", "--output", str(tmp_path / "s.parquet")) == 0
    assert pd.read_parquet(tmp_path / "s.parquet")["j_and_f"].tolist() == clean
    # One such sequence among others is named.
    shutil.copytree(gt / "a", tmp_path / "gt2" / "a")
    write_clip(tmp_path / "gt2" / "b", [np.full((40, 60), 1, np.uint8)] * 4)
    shutil.copytree(tmp_path / "gt2", tmp_path / "pred2")
    assert run(tmp_path / "gt2", tmp_path / "pred2") == 0
    assert "warning: sequence a is not scored: all pixels of its ground truth are 0 or 255" in capsys.readouterr().err


@pytest.mark.parametrize("blur", [0.8, 1.2, 3.0])
@pytest.mark.parametrize("side", ["gt", "pred"])
def test_smoothed_masks_fail_alone(folders, tmp_path: Path, blur: float, side: str) -> None:
    square = np.zeros((40, 60), np.uint8)
    square[8:30, 10:40] = 255
    smooth = np.asarray(Image.fromarray(square).filter(ImageFilter.GaussianBlur(blur)))
    for folder in folders:
        write_clip(folder / "b", [smooth if folder.name == side else square] * 6)
    with pytest.raises(MeasureError, match=r"sequence b, frame 00000: mask .* has smoothed edges.*--binary") as error:
        run(*folders, protocol="vos-benchmark")
    assert error.value.sequences == ["b"]
    assert run(*folders, "--binary", "--sequence", "b", protocol="vos-benchmark") == 0


def test_smoothed_masks_are_no_prompts(tmp_path: Path) -> None:
    square = np.zeros((40, 60), np.uint8)
    square[8:30, 10:40] = 255
    write_clip(tmp_path / "Annotations" / "clip", [np.asarray(Image.fromarray(square).filter(ImageFilter.BoxBlur(3)))])
    write_clip(tmp_path / "JPEGImages" / "clip", [square])
    with pytest.raises(DataError, match=r"00000\.png has smoothed edges.*`binary: true`"):
        read_sequence(tmp_path / "JPEGImages", tmp_path / "Annotations", "clip").prompts()


def test_many_small_objects_are_not_smoothed_edges() -> None:
    rng = np.random.default_rng(0)
    for size in (4, 8, 20):
        labels = np.zeros((120, 160), np.uint8)
        for number in rng.permutation(np.arange(1, 255))[:40]:
            y, x = rng.integers(0, 120 - size), rng.integers(0, 160 - size)
            labels[y : y + size, x : x + size] = number
        labels[:30] = 255
        assert not has_smooth_edges(labels)


def test_objects_in_folders_against_label_maps(folders, tmp_path: Path, capsys) -> None:
    gt, pred = folders
    clean = measured(gt, pred, tmp_path / "clean.parquet")
    for path in sorted(pred.rglob("*.png")):
        labels = np.asarray(Image.open(path))
        for number in range(1, 4):
            target = tmp_path / "objects" / path.parent.name / f"{number:03d}" / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((labels == number).astype(np.uint8) * 255).save(target)
    folder = tmp_path / "objects"
    pd.testing.assert_frame_equal(measured(gt, folder, tmp_path / "other.parquet"), clean)
    (folder / "a" / "002" / "00000.png").unlink()  # an object may begin late
    write_mask(folder / "b" / "003" / "00001.png", np.full((40, 60), 1, np.uint8))
    assert run(gt, folder) == 0
    assert "sequence b: predicted objects overlap in 1 frames; there the lowest id counts" in capsys.readouterr().err
    (folder / "a" / "002" / "00003.png").unlink()
    shutil.copytree(folder / "b" / "001", folder / "b" / "300")
    shutil.copytree(folder / "c" / "001", folder / "c" / "1")
    shutil.copytree(folder / "d" / "001", folder / "d" / "000")
    with pytest.raises(MeasureError) as error:
        run(gt, folder)
    for message in (
        "sequence a, frame 00003, object 2: no prediction for this frame, but for earlier ones",
        "sequence b: object folder 300 is predicted, but objects of label maps are 1 to 255",
        "001 and 1 are the same object",
        "sequence d: object folder 000",
    ):
        assert message in str(error.value)


def foreign_same_stem(folder: Path) -> None:
    shutil.copy(folder / "00001.png", folder / "00001.PNG")


def foreign_same_number(folder: Path) -> None:
    shutil.copy(folder / "00001.png", folder / "1.png")


def foreign_dangling_link(folder: Path) -> None:
    (folder / "00006.png").symlink_to("nowhere")


def foreign_folder(folder: Path) -> None:
    (folder / "00006.png").mkdir()


def foreign_name(folder: Path) -> None:
    (Path(os.fsdecode(os.fsencode(folder) + b"/000\xff6.png"))).touch()


def foreign_unpadded(folder: Path) -> None:
    for path in list(folder.iterdir()):
        path.rename(path.with_name(f"frame_{int(path.stem) + 7}.png"))


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    "change",
    [foreign_same_stem, foreign_same_number, foreign_dangling_link, foreign_folder, foreign_name, foreign_unpadded],
)
def test_a_foreign_file_fails_its_sequence_alone(folders, tmp_path: Path, change, side: int) -> None:
    change(folders[side] / "c")
    with pytest.raises(MeasureError, match="\n  sequence c") as error:
        measured(*folders, tmp_path / "counts.parquet")
    assert error.value.sequences == ["c"] and error.value.measured == 3
    str(error.value).encode()


def test_a_name_of_a_sequence_that_is_not_utf8(folders, tmp_path: Path) -> None:
    for folder in folders:
        shutil.copytree(folder / "a", Path(os.fsdecode(os.fsencode(folder) + b"/x\xff")))
    with pytest.raises(MeasureError, match=r"sequence x\\xff: its name is not UTF-8") as error:
        measured(*folders, tmp_path / "counts.parquet")
    assert error.value.measured == 4


def test_capital_suffixes_and_superscripts(folders, tmp_path: Path) -> None:
    clean = measured(*folders, tmp_path / "clean.parquet")
    for path in (folders[0] / "a").iterdir():
        path.rename(path.with_suffix(".PNG"))
    write_mask(folders[1] / "b" / "0000².png", np.zeros((2, 2), np.uint8))  # no number: a stray file
    pd.testing.assert_frame_equal(measured(*folders, tmp_path / "other.parquet"), clean)


@pytest.mark.parametrize("inside", ["Annotations", "Annotations/480p", "Annotations/Full-Resolution", "masks", "1080p"])
def test_the_folder_of_masks_is_found_inside_a_dataset(folders, tmp_path: Path, inside: str) -> None:
    (tmp_path / "data" / inside).parent.mkdir(parents=True, exist_ok=True)
    folders[0].rename(tmp_path / "data" / inside)
    assert len(measured(tmp_path / "data", folders[1], tmp_path / "counts.parquet")) == 4 * 3 * 6


def test_wrong_folders_are_named(folders, tmp_path: Path, capsys) -> None:
    gt, pred = folders
    with pytest.raises(DataError, match="this one contains masks itself, give its parent folder"):
        run(gt / "a", pred)
    shutil.move(pred, tmp_path / "run" / "model")
    with pytest.raises(DataError, match=r"no sequence in common \(a, b, ...; model\)"):
        run(gt, tmp_path / "run")
    assert run(gt, gt) == 0
    assert "warning: --gt and --pred are the same folder" in capsys.readouterr().err


def test_gaps_in_the_ids_are_a_warning(folders, capsys) -> None:
    for folder in folders:
        to_values(folder, 1, 2, 200)
    assert run(*folders) == 0
    assert "warning: sequence a: 197 ids below its highest object id 200, such as 3" in capsys.readouterr().err
    assert run(*folders, protocol="davis2017-official") == 0
    assert "warning: sequence a: 197 scored objects, such as 3, are in no" in capsys.readouterr().err


def test_every_flipped_bit_of_a_table_is_noticed(folders, tmp_path: Path) -> None:
    counts, table = tmp_path / "counts.parquet", tmp_path / "sequences.parquet"
    measured(*folders, counts)
    record = SequenceRecord("a", n_frames=3, object_ids=(1,), first_appearance=(0,), has_ground_truth=True)
    write_table([record], table, SequenceCounts(1, None))
    rng = np.random.default_rng(0)
    for path, read in ((counts, lambda: score(counts, "davis2017")), (table, lambda: read_table(table))):
        whole = path.read_bytes()
        read()
        for position in rng.permutation(8 * len(whole))[:500]:
            data = bytearray(whole)
            data[position // 8] ^= 1 << position % 8
            path.write_bytes(data)
            with pytest.raises(DataError, match=f"{path.name}: damaged.*remove it"):
                read()
        for length in (0, 1, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            with pytest.raises(DataError, match="remove it"):
                read()
        path.unlink()
        with pytest.raises(DataError, match=r"there is no .*table"):
            read()


def test_damaged_tables_are_removed_before_a_run(folders, tmp_path: Path, capsys) -> None:
    split = "d/s"
    study = Namespace(every_split=lambda: [split], models={"good": None, "bad": None, "absent": None})
    files = {name: tmp_path / "metrics" / "d" / "s" / f"{name}.parquet" for name in study.models}
    measured(*folders, files["good"])
    files["bad"].write_bytes(files["good"].read_bytes()[:-1])
    paths = Paths("study", tmp_path, tmp_path)
    table = paths.sequences(split)
    table.parent.mkdir(parents=True)
    table.touch()
    discard_damaged(study, paths)
    assert files["good"].exists() and not files["bad"].exists() and not table.exists()
    assert capsys.readouterr().err.count("it is made again") == 2


# Any JSON, and what looks more like a meta file.
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NUMBER = st.integers(-3, 300) | st.sampled_from(["00003", "²", "-1", "9" * 30, 10**30, 1e400, 1.5, 2.0]) | ANY_JSON
OBJECT = ANY_JSON | st.fixed_dictionaries(
    {},
    optional={
        "frame_range": st.fixed_dictionaries({}, optional={"start": NUMBER, "end": NUMBER}) | ANY_JSON,
        "frames": st.lists(NUMBER, max_size=3) | ANY_JSON,
        "category": ANY_JSON,
    },
)
OBJECTS = st.dictionaries(NUMBER.map(str), OBJECT, max_size=3) | st.lists(NUMBER, max_size=3) | ANY_JSON
VIDEOS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d", "e"]), st.fixed_dictionaries({"objects": OBJECTS}) | ANY_JSON
)


@pytest.mark.timeout(120)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(content=VIDEOS.map(lambda videos: {"videos": videos}) | ANY_JSON)
def test_any_meta_file_is_read_or_refused(tmp_path_factory, content) -> None:
    folder = tmp_path_factory.mktemp("meta")
    (folder / "meta.json").write_text(json.dumps(content))
    names = "ab"
    for name in names:
        write_clip(folder / "gt" / name, [np.eye(12, dtype=np.uint8)] * 3)
    try:
        pairs = with_meta(pair_folders(folder / "gt", folder / "gt"), read_meta(folder / "meta.json"))
        measure(pairs, folder / "c.parquet", dataset="d", split="s", model="m", progress=False)
    except MeasureError as error:
        assert set(error.sequences) <= set(names)
    except DataError as error:
        assert "is not a meta file" in str(error)
        return
    for protocol in ("youtube-vos", "lvos"):
        scored = score(folder / "c.parquet", protocol, allow_incomplete=True)
        assert scored["object_id"].between(1, 255).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"videos": {"a": {"objects": {"%s": {}}}}}' % ("9" * 30), "sequence a.*object 999.*no whole number"),
        ('{"videos": {"a": {"objects": {"1": {"frame_range": {"start": 0, "end": 1e400}}}}}}', "object 1: 'inf' is no"),
        ('{"videos": {"a": {"objects": {"1": {"frame_range": {"start": 5, "end": 1}}}}}}', "ends at 1, before"),
        ('{"videos": {"a": {"objects": {"1": {"frame_range": {"start": 5}}}}}}', "'end' is missing"),
        ('{"videos": {"a": {"objects": {"1": {}, "01": {}}}}}', "the id is there twice"),
        ('{"videos": {"a": {"objects": {"0": {}}}}}', "object 0, but label maps hold 1 to 255"),
        ('{"videos": {"a": {"objects": {"300": {}}}}}', "object 300, but label maps"),
        ('{"videos": {"a": 7}}', "sequence a has no `objects`"),
    ],
)
def test_a_wrong_entry_of_a_meta_file_fails_its_sequence_alone(folders, tmp_path: Path, content, message) -> None:
    videos = json.loads(content)["videos"] | {name: {"objects": {"1": {}}} for name in "bcd"}
    (tmp_path / "meta.json").write_text(json.dumps({"videos": videos}).replace("Infinity", "1e400"))
    with pytest.raises(MeasureError, match=message) as error:
        run(*folders, "--meta", str(tmp_path / "meta.json"), protocol="youtube-vos")
    assert error.value.sequences == ["a"]


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[]", b"{", b'{"videos": []}', b"\xff\xfe", b"1" * 5000])
def test_no_meta_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "meta.json").write_bytes(content)
    with pytest.raises(DataError, match="is not a meta file"):
        read_meta(tmp_path / "meta.json")


def test_a_meta_file_with_a_byte_order_mark_and_objects_that_are_not_there(folders, tmp_path: Path, capsys) -> None:
    objects = {"objects": {"1": {}, "9": {}}}
    text = json.dumps({"videos": dict.fromkeys("abcd", objects)})
    (tmp_path / "meta.json").write_bytes(text.encode("utf-8-sig"))
    options = ["--meta", str(tmp_path / "meta.json"), "--extra-ids", "ignore"]
    assert run(*folders, *options, protocol="youtube-vos") == 0
    assert "warning: sequence a: 1 scored objects, such as 9, are in no ground-truth frame" in capsys.readouterr().err


def test_names_that_are_markup_are_printed_whole(folders, capsys) -> None:
    names = ["My video [dQw4w9WgXcQ]", "a:smile:b", "[red]x", "x" * 200 + "1", "x" * 200 + "2"]
    for folder in folders:
        for name in names:
            shutil.copytree(folder / "a", folder / name)
    assert run(*folders) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)
