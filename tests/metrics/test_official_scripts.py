"""Where official scripts differ from their definitions, or ours from them: one test for each difference.

The references are plain implementations of what the scripts do. Their numbers were compared with the scripts' own.
"""

import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import linear_sum_assignment
from skimage.morphology import disk

from tests.metrics.test_protocols import EMPTY, plain_scores, square
from tests.support.mask_makers import blobs, write_clip
from vosarena.base.errors import ConfigError, DataError
from vosarena.cli import main
from vosarena.config.catalogs import load_catalog
from vosarena.io.masks import read_mask, write_mask
from vosarena.leaderboard.published import published_scores
from vosarena.metrics.counts import count_objects
from vosarena.metrics.evaluate import evaluate


def lvos_mean(gt: list[np.ndarray], pred: list[np.ndarray], label: int, entry: dict[str, int]) -> tuple[float, float]:
    """J and F of one object as lvos-evaluation has them: an array of `frame_nums - 2` zeros is filled and averaged."""
    filled = np.zeros((2, entry["frame_nums"] - 2))
    for index, number in enumerate(range(entry["start"], entry["end"], 5)):
        if index not in (0, entry["frame_nums"] - 1):
            frame = (number - 1) // 5
            filled[:, index - 1] = plain_scores(gt[frame] == label, pred[frame] == label)
    return 100 * filled[0].mean(), 100 * filled[1].mean()


FORMS = {  # of an object on frames 1, 6, ..., 46 of a clip with twelve frames: where it ends, and its number of frames
    "the last frame as end, and counted": (46, 10),
    "an end between frames": (47, 10),
    "the frame after the last as end": (51, 10),
    "more frames than there are": (46, 13),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("protocol", ["lvos", "lvos-official"])
def test_the_end_of_a_range_of_lvos_is_exclusive(tmp_path: Path, form: str, protocol: str) -> None:
    rng = np.random.default_rng(7)
    gt = [blobs(rng, 40, 60, 5, 2) for _ in range(12)]
    pred = [np.roll(labels, rng.integers(-4, 5, 2), (0, 1)) for labels in gt]
    for side, clip in (("gt", gt), ("pred", pred)):
        (tmp_path / side / "a").mkdir(parents=True)
        for index, labels in enumerate(clip):
            write_mask(tmp_path / side / "a" / f"{1 + 5 * index:08d}.png", labels)
    end, number = FORMS[form]
    entry = {"start": 1, "end": end, "frame_nums": number}
    meta = {"videos": {"a": {"objects": {str(label): {"frame_range": entry} for label in (1, 2)}}}}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    result = evaluate(tmp_path / "gt", tmp_path / "pred", protocol, meta=tmp_path / "meta.json")
    warned = any("`frame_nums: 13`" in note for note in result.notes)
    assert warned == (form == "more frames than there are")
    for scored in result.scores:
        official = lvos_mean(gt, pred, scored.object_id, entry)
        if warned and protocol == "lvos":
            official = tuple(11 / 8 * value for value in official)  # over the 8 frames that there are
            assert (scored.j, scored.f) == pytest.approx(official, rel=1e-12) and scored.n_frames == 8
        else:
            assert (scored.j, scored.f) == official and scored.n_frames == number - 2


def test_more_frames_of_lvos_than_the_meta_file_states(tmp_path: Path) -> None:
    """The official script stops with an IndexError."""
    for side in ("gt", "pred"):
        write_clip(tmp_path / side / "a", [square(1)] * 9)
    objects = {"1": {"frame_range": {"start": 0, "end": 9, "frame_nums": 5}}}
    (tmp_path / "meta.json").write_text(json.dumps({"videos": {"a": {"objects": objects}}}))
    result = evaluate(tmp_path / "gt", tmp_path / "pred", "lvos", meta=tmp_path / "meta.json")
    assert result.scores[0].n_frames == 7
    assert any("stops there without a result" in note for note in result.notes)


def test_without_unseen_objects_the_official_mean_of_lvos_is_nan(tmp_path: Path) -> None:
    for side in ("gt", "pred"):
        write_clip(tmp_path / side / "a", [square(1)] * 5)
    assert evaluate(tmp_path / "gt", tmp_path / "pred", "lvos").j_and_f == 100
    official = evaluate(tmp_path / "gt", tmp_path / "pred", "lvos-official")
    assert np.isnan(official.j_and_f) and official.summary["j_seen"] == 100


@pytest.mark.parametrize("size", [(20, 30), (45, 50), (40, 60)])  # 0.008 of the diagonal is below 0.6 pixels
def test_mosev2_on_tiny_images(size: tuple[int, int]) -> None:
    """The disk of so small a radius is empty, and OpenCV then dilates by the first element of the kernel."""
    cap = 0.008 * np.linalg.norm(size)
    assert not disk(cap).any()
    rng = np.random.default_rng(3)
    for _ in range(20):
        gt = blobs(rng, *size, 4, 1)
        pred = np.roll(gt, rng.integers(-1, 2, 2), (0, 1))
        _, counts = count_objects(gt, pred, adaptive=True)
        if not len(counts):
            continue
        assert counts.gt_matched_adaptive is not None and counts.pred_matched_adaptive is not None
        recall = counts.gt_matched_adaptive[0] / max(counts.gt_boundary[0], 1)
        precision = counts.pred_matched_adaptive[0] / max(counts.pred_boundary[0], 1)
        if counts.gt_boundary[0] and counts.pred_boundary[0]:
            f = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
            assert f == plain_scores(gt == 1, pred == 1, cap)[1]


def test_opencv_and_an_empty_kernel() -> None:
    point = np.zeros((5, 5), np.uint8)
    point[2, 2] = 1
    assert np.argwhere(cv2.dilate(point, np.zeros((2, 2), np.uint8))).tolist() == [[3, 3]]


def test_sequences_of_mosev2_without_a_prediction(tmp_path: Path) -> None:
    """The official script counts their objects as 0; here they are an error, and the official number is in a note."""
    labels = square(1, base=np.zeros((90, 120), np.uint8))
    for name in "ab":
        write_clip(tmp_path / "gt" / name, [labels] * 5)
    write_clip(tmp_path / "pred" / "a", [labels] * 5)
    meta = {"videos": {"a": {"objects": ["1"]}, "b": {"objects": ["1", "2"]}}}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    result = evaluate(tmp_path / "gt", tmp_path / "pred", "mosev2", meta=tmp_path / "meta.json", allow_incomplete=True)
    assert result.j_and_f == 100 and len(result.failures) == 1
    assert result.notes[-1] == (
        "note: the official script counts the 2 objects of 1 sequences without a prediction as 0; its J&F (J&F_new) "
        "is 33.33"
    )


def test_a_decay_that_is_nan_makes_the_official_mean_nan(tmp_path: Path) -> None:
    """uint8 bins: of 301 scored frames the last quarter is from 225 to 44, which is empty."""
    write_clip(tmp_path / "gt" / "long", [square(1)] * 303)
    write_clip(tmp_path / "gt" / "short", [square(1)] * 9)
    for name, frames in (("long", 303), ("short", 9)):
        write_clip(tmp_path / "pred" / name, [square(1)] * frames)
    official = evaluate(tmp_path / "gt", tmp_path / "pred", "davis2017-official").summary
    assert np.isnan(official["j_decay"]) and official["j_recall"] == official["j"] == 100
    assert evaluate(tmp_path / "gt", tmp_path / "pred", "davis2017").summary["j_decay"] == 0


SKIP_ENDS = ["davis2017", "davis2017-official", "vos-benchmark", "sa-v", "sa-v-official", "mosev2", "vost"]


@pytest.mark.parametrize("protocol", [*SKIP_ENDS, "lvos", "youtube-vos", "volumetric"])
@pytest.mark.parametrize("missing", [(0,), (0, 5), (0, 1)])
def test_first_and_last_frames_need_no_prediction(tmp_path: Path, protocol: str, missing: tuple[int, ...]) -> None:
    """The scripts that skip them never open them."""
    gt = [square(1)] * 6
    pred = [square(1, x=11)] * 6
    write_clip(tmp_path / "gt" / "a", gt)
    write_clip(tmp_path / "pred" / "a", pred)
    whole = evaluate(tmp_path / "gt", tmp_path / "pred", protocol)
    for index in missing:
        (tmp_path / "pred" / "a" / f"{index:05d}.png").unlink()
    if protocol not in SKIP_ENDS or 1 in missing:
        with pytest.raises(DataError, match="no prediction for this frame"):
            evaluate(tmp_path / "gt", tmp_path / "pred", protocol)
        return
    part = evaluate(tmp_path / "gt", tmp_path / "pred", protocol)
    assert part.summary == whole.summary and part.objects.equals(whole.objects)
    assert any("which this protocol does not score" in note for note in part.notes)
    with pytest.raises(DataError, match="no prediction for this frame"):  # stored counts serve every protocol
        evaluate(tmp_path / "gt", tmp_path / "pred", protocol, counts=tmp_path / "counts.parquet")


def test_first_and_last_frames_of_overlapping_objects(tmp_path: Path) -> None:
    for name in ("001", "002"):
        write_clip(tmp_path / "gt" / "a" / name, [square(1)] * 5)
        write_clip(tmp_path / "pred" / "a" / name, [square(1)] * 5)
        (tmp_path / "pred" / "a" / name / "00000.png").unlink()
    assert evaluate(tmp_path / "gt", tmp_path / "pred", "sa-v-official").j_and_f == 100


def test_ids_above_those_of_the_first_frame_stop_the_official_script_of_davis(tmp_path: Path) -> None:
    write_clip(tmp_path / "gt" / "a", [square(1)] * 5)
    write_clip(tmp_path / "pred" / "a", [square(1), *[square(3, x=40, base=square(1))] * 3, EMPTY])
    result = evaluate(tmp_path / "gt", tmp_path / "pred", "davis2017-official")
    assert result.j == 100
    assert any("object 3 is predicted, above the highest id" in note for note in result.notes)
    result = evaluate(tmp_path / "gt", tmp_path / "pred", "vost")  # its script ignores them
    assert result.j == 100 and not any("stops" in note for note in result.notes)


def test_published_scores_of_sa_v_were_made_by_its_evaluator() -> None:
    rows = published_scores({("sa-v", "val"), ("sa-v", "test")})
    assert len(rows) > 50 and {row.protocol for row in rows} == {"sa-v-official"}
    assert {split.protocol for split in load_catalog().splits("sa-v").values()} == {"sa-v-official"}


@pytest.fixture
def clips(tmp_path: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(11)
    for name, frames in (("a", 7), ("b", 12)):
        gt = [blobs(rng, 60, 90, 5, 3) for _ in range(frames)]
        gt[0][:3, :9] = np.repeat([1, 2, 3], 3)
        write_clip(tmp_path / "gt" / name, gt)
        write_clip(tmp_path / "pred" / name, [np.roll(labels, rng.integers(-5, 6, 2), (0, 1)) for labels in gt])
    return tmp_path / "gt", tmp_path / "pred"


def test_keeping_the_first_and_the_last_frame_equals_vos_benchmark(clips: tuple[Path, Path]) -> None:
    peer = pytest.importorskip("vos_benchmark.benchmark", reason="vos-benchmark is not installed")
    found = evaluate(*clips, "vos-benchmark", keep_first_and_last=True)
    evaluator = peer.VideoEvaluator(str(clips[0]), str(clips[1]), skip_first_and_last=False)
    for name in "ab":
        _, j, f = evaluator(name)
        mine = {item.object_id: item for item in found.scores if item.sequence == name}
        assert {i: item.j for i, item in mine.items()} == j and {i: item.f for i, item in mine.items()} == f


@pytest.mark.parametrize("protocol", SKIP_ENDS)
def test_keeping_the_first_and_the_last_frame(clips: tuple[Path, Path], protocol: str) -> None:
    skipped = evaluate(*clips, protocol)
    kept = evaluate(*clips, protocol, keep_first_and_last=True)
    more = {(item.sequence, item.object_id): item.n_frames for item in kept.scores}
    for item in skipped.scores:
        assert item.n_frames < more[item.sequence, item.object_id] <= {"a": 7, "b": 12}[item.sequence]
    if protocol == "davis2017":
        rows = kept.metrics.sequences[0].objects
        for item in kept.scores[:3]:
            assert (item.j, item.n_frames) == (100 * np.mean(rows[item.object_id].j), 7)
    (clips[1] / "a" / "00000.png").unlink()
    with pytest.raises(DataError, match="no prediction for this frame"):
        evaluate(*clips, protocol, keep_first_and_last=True)


def test_protocols_that_keep_these_frames_refuse_the_option(clips: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="youtube-vos does not skip the first and the last frame"):
        evaluate(*clips, "youtube-vos", keep_first_and_last=True)


@pytest.mark.parametrize("protocol", ["davis2017-official", "vost", "lvos-official"])
def test_files_of_the_official_scripts(clips: tuple[Path, Path], tmp_path: Path, protocol: str) -> None:
    files = ["--official-csv", str(tmp_path / "csv"), "--summary", str(tmp_path / "summary.json")]
    folders = ["--gt", str(clips[0]), "--pred", str(clips[1])]
    assert main(["evaluate", *folders, "--protocol", protocol, "--quiet", *files]) == 0
    found = evaluate(*clips, protocol)
    whole = pd.read_csv(tmp_path / "csv" / "global_results-val.csv").iloc[0]
    headings = {  # of the scripts, in their order
        "davis2017-official": "J&F-Mean J-Mean J-Recall J-Decay F-Mean F-Recall F-Decay",
        "vost": "J-Mean J-Recall J-Decay J_last-Mean J_last-Recall J_last-Decay",
        "lvos-official": "J&F-Mean J-Mean J-seen-Mean J-unseen-Mean F-Mean F-seen-Mean F-unseen-Mean "
        "V-Mean V-seen-Mean V-unseen-Mean",
    }
    assert list(whole.index) == headings[protocol].split()
    if protocol != "lvos-official":
        assert whole["J-Mean"] == round(found.j / 100, 3)
    else:
        assert np.isnan(whole["J-Mean"]) and whole["J-seen-Mean"] == round(found.summary["j_seen"] / 100, 3)
    each = pd.read_csv(tmp_path / "csv" / "per-sequence_results-val.csv")
    assert each["Sequence"].tolist() == [f"{item.sequence}_{item.object_id}" for item in found.scores]
    assert each["J-Mean"].tolist() == [round(item.j / 100, 3) for item in found.scores]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["f_seen" if protocol == "lvos-official" else "f"] == found.summary.get("f_seen", found.summary["f"])


def test_other_protocols_have_no_official_files(clips: tuple[Path, Path], tmp_path: Path, capsys) -> None:
    folders = ["--gt", str(clips[0]), "--pred", str(clips[1])]
    assert main(["evaluate", *folders, "--protocol", "mosev2", "--official-csv", str(tmp_path / "csv")]) == 1
    assert "protocol mosev2 has no official CSV files; use one of davis2017" in capsys.readouterr().err


def unsupervised(gt: list[np.ndarray], pred: list[np.ndarray]) -> list[tuple[float, float]]:
    """J and F of the matched pairs, as the script for the unsupervised task of DAVIS has them; 255 is void."""
    pred = [np.where(g == 255, 0, p) for g, p in zip(gt, pred, strict=True)]
    gt = [np.where(labels == 255, 0, labels) for labels in gt]
    n_objects = int(gt[0].max())
    n_predicted = max(n_objects, *(int(labels.max()) for labels in pred))
    table = np.zeros((2, n_predicted, n_objects))
    for p, o in np.ndindex(n_predicted, n_objects):
        pairs = [plain_scores(g == o + 1, q == p + 1) for g, q in zip(gt, pred, strict=True)]
        table[:, p, o] = np.mean(pairs, axis=0)
    rows, columns = linear_sum_assignment(-table.mean(axis=0))
    return [tuple(100 * table[:, p, o]) for p, o in zip(rows, columns, strict=True)]


@pytest.mark.parametrize("n_predicted", [2, 5])
def test_the_unsupervised_task_of_davis(tmp_path: Path, n_predicted: int) -> None:
    """All frames, and the objects of the first one, whatever ids the prediction has."""
    rng = np.random.default_rng(n_predicted)
    expected = []
    for name in "abc":
        gt = [blobs(rng, 50, 70, 6, 3) for _ in range(6)]
        gt[0][:3, :9] = np.repeat([1, 2, 3], 3)
        gt[3][gt[3] == 2] = 0
        gt[4][:9, :9] = 255
        gt[5][-9:, -9:] = 7  # appears late: no object of this task
        ids = rng.permutation(n_predicted) + 1
        lookup = np.array([0, *ids[:3], *[0] * 9] if n_predicted > 3 else [0, ids[0], ids[1], *[0] * 10], np.uint8)
        pred = [np.roll(lookup[np.minimum(labels, 12)], rng.integers(-3, 4, 2), (0, 1)) for labels in gt]
        if n_predicted > 3:
            pred[2][20:24, 20:24] = ids[3]
        write_clip(tmp_path / "gt" / name, gt)
        write_clip(tmp_path / "pred" / name, pred)
        expected += unsupervised(gt, pred)
    options = {"match_objects": True, "keep_first_and_last": True}
    found = evaluate(tmp_path / "gt", tmp_path / "pred", "davis2017", **options)
    scores = np.array(sorted((item.j, item.f) for item in found.scores))
    assert scores == pytest.approx(np.array(sorted(expected)), rel=1e-12)
    assert found.j == pytest.approx(np.mean([j for j, _ in expected]), rel=1e-12)


def unsupervised_in_ranges(gt: list[np.ndarray], pred: list[np.ndarray], ranges: dict[int, dict[str, int]]) -> list:
    """J and F of the matched pairs as lvos-evaluation has them: over arrays of `frame_nums` per object."""
    table = np.zeros((2, 20, len(ranges)))
    for column, (label, entry) in enumerate(ranges.items()):
        filled = np.zeros((20, entry["frame_nums"], 2))
        for index, frame in enumerate(range(entry["start"], entry["end"], 5)):
            for proposal in range(20):
                filled[proposal, index] = plain_scores(gt[frame // 5] == label, pred[frame // 5] == proposal + 1)
        table[:, :, column] = filled.mean(axis=1).T
    rows, columns = linear_sum_assignment(-table.mean(axis=0))
    return [tuple(100 * table[:, p, o]) for p, o in zip(rows, columns, strict=True)]


def test_the_unsupervised_task_of_lvos(tmp_path: Path) -> None:
    """Objects are matched and scored on their ranges, first and last frame included."""
    rng = np.random.default_rng(3)
    expected, meta = [], {"videos": {}}
    ranges = {1: (0, 40, 8), 2: (10, 40, 6), 3: (0, 15, 3)}
    for name in "abc":
        gt = [blobs(rng, 40, 50, 6, 3) for _ in range(8)]
        lookup = np.array([0, *(rng.permutation(5) + 1)[:3]], np.uint8)
        pred = [np.roll(lookup[labels], rng.integers(-3, 4, 2), (0, 1)) for labels in gt]
        for folder, maps in (("gt", gt), ("pred", pred)):
            (tmp_path / folder / name).mkdir(parents=True)
            for index, labels in enumerate(maps):
                write_mask(tmp_path / folder / name / f"{5 * index:08d}.png", labels)
        entries = {i: dict(zip(("start", "end", "frame_nums"), entry, strict=True)) for i, entry in ranges.items()}
        meta["videos"][name] = {"objects": {str(i): {"frame_range": entry} for i, entry in entries.items()}}
        expected += unsupervised_in_ranges(gt, pred, entries)
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    options = {"match_objects": True, "keep_first_and_last": True, "meta": tmp_path / "meta.json"}
    found = evaluate(tmp_path / "gt", tmp_path / "pred", "lvos", extra_ids="ignore", **options)
    scores = np.array(sorted((item.j, item.f) for item in found.scores))
    assert scores == pytest.approx(np.array(sorted(expected)), rel=1e-12)


def test_matching_finds_the_ids(clips: tuple[Path, Path]) -> None:
    wanted = evaluate(*clips, "davis2017")
    for path in clips[1].glob("*/*.png"):
        write_mask(path, np.array([0, 9, 4, 200], np.uint8)[read_mask(path)])
    found = evaluate(*clips, "davis2017", match_objects=True)
    assert found.j_and_f > 0 and len(found.scores) == len(wanted.scores)
    shifted = evaluate(clips[0], clips[0], "sa-v", match_objects=True)
    assert shifted.j_and_f == 100
