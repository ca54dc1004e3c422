"""HOTA equals TrackEval's to the last digit, on masks as its reader for DAVIS gives them to it."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.mask_makers import blobs, write_clip
from vosarena.cli import main
from vosarena.metrics.evaluate import evaluate
from vosarena.metrics.pairs import MeasureError

# Of the clips below, by TrackEval 12c8791 (metrics/hota.py): the means over its 19 thresholds, times 100
EXPECTED = {
    "hota": 41.45761649739499,
    "det_a": 32.801349373213554,
    "det_re": 46.32414369256475,
    "det_pr": 45.246838025295794,
    "ass_a": 55.65967570661117,
    "ass_re": 62.35396236072434,
    "ass_pr": 65.9400071960367,
    "loc_a": 74.94752901281686,
}
FIELDS = {
    "hota": "HOTA", "det_a": "DetA", "det_re": "DetRe", "det_pr": "DetPr",
    "ass_a": "AssA", "ass_re": "AssRe", "ass_pr": "AssPr", "loc_a": "LocA",
}  # fmt: skip


def clips() -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Objects under other ids, exchanged in the middle, lost, invented; 255; frames and clips without any."""
    rng = np.random.default_rng(5)
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for name in "abc":
        gt = blobs(rng, 60, 80, 9, 5)
        found[name] = []
        for frame in range(12):
            gt = np.roll(gt, rng.integers(-2, 3, 2), (0, 1))
            truth = np.where(gt == 5, 255, gt).astype(np.uint8) if name == "b" else gt.copy()
            ids = np.array([0, 7, 3, 3 if name == "c" else 9, 200, 11], np.uint8)
            if frame > 6:
                ids[[1, 2]] = ids[[2, 1]]
            pred = np.roll(ids[gt], rng.integers(-3, 4, 2), (0, 1))
            if frame % 5 == 4:
                pred[pred == 7] = 0
            truth[:] = 0 if name == "c" and frame == 3 else truth
            pred[:] = 0 if name == "a" and frame == 8 else pred
            found[name].append((truth, pred))
    empty = np.zeros((60, 80), np.uint8)
    return {**found, "d": [(empty, blobs(rng, 60, 80, 4))] * 3, "e": [(blobs(rng, 60, 80, 4), empty)] * 3}


def write(folder: Path) -> tuple[Path, Path]:
    for name, frames in clips().items():
        for index, side in enumerate(("gt", "pred")):
            write_clip(folder / side / name, [pair[index] for pair in frames])
    return folder / "gt", folder / "pred"


def test_equals_numbers_of_trackeval(tmp_path: Path) -> None:
    result = evaluate(*write(tmp_path), "davis2017", extra_ids="ignore", hota=True)
    assert {name: result.summary[name] for name in FIELDS} == pytest.approx(EXPECTED, rel=1e-13)


def test_equals_trackeval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "float", float, raising=False)  # which numpy no longer has
    trackeval = pytest.importorskip("trackeval", reason="TrackEval is not installed")
    metric = trackeval.metrics.HOTA()
    results = {name: metric.eval_sequence(as_read(frames)) for name, frames in clips().items()}
    combined = metric.combine_sequences(results)
    result = evaluate(*write(tmp_path), "davis2017", extra_ids="ignore", hota=True)
    assert {name: result.summary[name] for name in FIELDS} == {
        name: 100 * np.mean(combined[field]) for name, field in FIELDS.items()
    }


def as_read(frames: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, object]:
    """What TrackEval's reader for DAVIS makes of a clip; IoUs as pycocotools computes them."""
    ids: dict[int, list[np.ndarray]] = {0: [], 1: []}
    similarities = []
    for gt, pred in frames:
        labels = [np.unique(gt[(gt != 0) & (gt != 255)]), np.unique(pred[pred != 0])]
        similarity = np.zeros((len(labels[0]), len(labels[1])))
        for i, a in enumerate(labels[0]):
            for k, b in enumerate(labels[1]):
                similarity[i, k] = ((gt == a) & (pred == b)).sum() / ((gt == a) | (pred == b)).sum()
        similarities.append(similarity)
        for side in (0, 1):
            ids[side].append(labels[side])
    data: dict[str, object] = {"similarity_scores": similarities}
    for side, name in enumerate(("gt", "tracker")):
        every = np.unique(np.concatenate(ids[side]))
        data[f"{name}_ids"] = [np.searchsorted(every, part) for part in ids[side]]
        data[f"num_{name}_ids"] = len(every)
        data[f"num_{name}_dets"] = sum(map(len, ids[side]))
    return data


@pytest.mark.parametrize(("prediction", "expected"), [("same", 100), ("other ids", 100), ("empty", 0)])
def test_closed_forms(tmp_path: Path, prediction: str, expected: float) -> None:
    rng = np.random.default_rng(1)
    gt = [blobs(rng, 40, 50, 5) for _ in range(4)]
    table = {"same": np.arange(256), "other ids": 255 - np.arange(256), "empty": np.zeros(256)}[prediction]
    table[0] = 0
    write_clip(tmp_path / "gt" / "a", gt)
    write_clip(tmp_path / "pred" / "a", [table[labels].astype(np.uint8) for labels in gt])
    summary = evaluate(tmp_path / "gt", tmp_path / "pred", "davis2017", extra_ids="ignore", hota=True).summary
    assert summary["hota"] == summary["det_a"] == summary["ass_a"] == pytest.approx(expected)


def test_on_the_command_line_with_matched_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gt, pred = write(tmp_path)
    only = ["--sequence", "a", "--protocol", "davis2017", "--match-objects", "--keep-first-and-last", "--hota"]
    args = ["evaluate", "--gt", str(gt), "--pred", str(pred), *only, "--summary", str(tmp_path / "s.json")]
    assert main([*args, "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "HOTA" in shown and "DetA" in shown
    summary = json.loads((tmp_path / "s.json").read_text())
    assert (
        0 < summary["ass_a"] < 100
        and summary["hota"]
        == evaluate(gt, pred, "davis2017", sequences=["a"], extra_ids="ignore", hota=True).summary["hota"]
    )


def test_folders_of_objects_have_no_hota(tmp_path: Path) -> None:
    for side in ("gt", "pred"):
        write_clip(tmp_path / side / "a" / "1", [np.ones((9, 9), np.uint8)] * 4)
    with pytest.raises(MeasureError, match="label maps only"):
        evaluate(tmp_path / "gt", tmp_path / "pred", "sa-v", hota=True)
