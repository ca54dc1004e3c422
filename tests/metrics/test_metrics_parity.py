"""From PNGs to scores, equal to the last bit to vos-benchmark (PyPI) and to SA-V's way of using it."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from tests.support.mask_makers import blobs, odd_pairs, sav_masklets, write_clip
from vosarena.io.masks import read_mask
from vosarena.metrics.measure import measure
from vosarena.metrics.pairs import pair_folders
from vosarena.metrics.scores import score, summarise

peer = pytest.importorskip("vos_benchmark.benchmark", reason="vos-benchmark is not installed")


def scored(gt: Path, pred: Path, protocol: str = "vos-benchmark") -> pd.DataFrame:
    output = gt.parent / "counts.parquet"
    measure(
        pair_folders(gt, pred), output, dataset="d", split="s", model="m", extra_ids="ignore", jobs=2, progress=False
    )
    return score(output, protocol)


def assert_equals_peer(gt: Path, pred: Path) -> None:
    """Every object's J and F, their order, and the global means."""
    ours = scored(gt, pred)
    evaluate = peer.VideoEvaluator(str(gt), str(pred))
    all_j, all_f = [], []
    for name in sorted(path.name for path in gt.iterdir()):
        _, j, f = evaluate(name)
        mine = ours[ours["sequence"] == name]
        assert dict(zip(mine["object_id"], mine["j"], strict=True)) == j
        assert dict(zip(mine["object_id"], mine["f"], strict=True)) == f
        all_j.extend(j.values())
        all_f.extend(f.values())
    summary = summarise(ours).iloc[0]
    assert summary["j"] == np.array(all_j).mean() and summary["f"] == np.array(all_f).mean()
    assert summary["j_and_f"] == (np.array(all_j).mean() + np.array(all_f).mean()) / 2


def test_thousands_of_odd_masks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pairs = list(odd_pairs(rng, 600))
    for clip in range(40):
        gt, pred = zip(*pairs[clip::40], strict=True)
        write_clip(tmp_path / "gt" / f"clip{clip}", list(gt))
        write_clip(tmp_path / "pred" / f"clip{clip}", list(pred))
    assert_equals_peer(tmp_path / "gt", tmp_path / "pred")


@pytest.mark.parametrize("size", [(480, 854), (1080, 1920)])
def test_full_size_masks(tmp_path: Path, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    gt = [blobs(rng, *size, 8) for _ in range(4)]
    pred = [cv2.dilate(np.roll(labels, rng.integers(-12, 13, 2), (0, 1)), np.ones((5, 5))) for labels in gt]
    write_clip(tmp_path / "gt" / "clip", gt)
    write_clip(tmp_path / "pred" / "clip", pred)
    assert_equals_peer(tmp_path / "gt", tmp_path / "pred")


@pytest.fixture(scope="module")
def masklets(shared_data: Path) -> np.ndarray:
    return sav_masklets(shared_data / "sav_000001_manual.json")[::6]


def spoiled(masks: np.ndarray) -> dict[str, np.ndarray]:
    """Predictions of one object, bool (frames, H, W): drifting, eroded, and dropped for some frames."""
    drift = np.stack([np.roll(mask, (i // 2, i), (0, 1)) for i, mask in enumerate(masks)])
    eroded = np.stack([cv2.erode(mask.astype(np.uint8), np.ones((7, 7))) for mask in masks]).astype(bool)
    dropped = masks.copy()
    dropped[5:9] = False
    return {"drift": drift, "eroded": eroded, "dropped": dropped}


def test_real_masklets_as_label_maps(tmp_path: Path, masklets: np.ndarray) -> None:
    def flatten(objects: list[np.ndarray]) -> list[np.ndarray]:
        labels = np.zeros(objects[0].shape, np.uint8)
        for number, mask in enumerate(objects, start=1):
            labels[mask] = number
        return list(labels)

    objects = [masklets[:, i] for i in range(masklets.shape[1])]
    predictions = {kind: flatten([spoiled(mask)[kind] for mask in objects]) for kind in ("drift", "eroded", "dropped")}
    predictions["swapped"] = flatten([objects[i] for i in (1, 0, 3, 2, 4)])
    for kind, maps in predictions.items():
        write_clip(tmp_path / "gt" / kind, flatten(objects))
        write_clip(tmp_path / "pred" / kind, maps)
    assert_equals_peer(tmp_path / "gt", tmp_path / "pred")


def test_real_masklets_that_overlap(tmp_path: Path, masklets: np.ndarray) -> None:
    """Per-object folders as SA-V's evaluator does them: vos-benchmark's Evaluator, one object at a time."""
    assert masklets.sum(axis=1).max() > 1, "these masklets should overlap"
    for index in range(masklets.shape[1]):
        first = int(np.argmax(masklets[:, index].any(axis=(1, 2))))
        masks = masklets[first:, index]
        if len(masks) < 3:
            continue
        for name, pred in zip("abc", spoiled(masks).values(), strict=True):
            write_clip(tmp_path / "gt" / name / f"{index:03d}", [mask.astype(np.uint8) * 255 for mask in masks])
            write_clip(tmp_path / "pred" / name / f"{index:03d}", [mask.astype(np.uint8) for mask in pred])
    scores = scored(tmp_path / "gt", tmp_path / "pred", "sa-v-official")
    assert len(scores) > 10
    for row in scores.itertuples():
        evaluator = peer.Evaluator()
        folder = tmp_path / "gt" / row.sequence / f"{row.object_id:03d}"
        for path in sorted(folder.iterdir())[1:-1]:
            other = tmp_path / "pred" / row.sequence / folder.name / path.name
            evaluator.feed_frame(read_mask(other) > 0, read_mask(path) > 0)
        (j,), (f,) = (list(part.values()) for part in evaluator.conclude())
        assert (row.j, row.f) == (j, f)
    # Ours takes the frames from the ground truth alone: other ones only where an object is gone right at the start.
    right = scored(tmp_path / "gt", tmp_path / "pred", "sa-v")
    both = right.merge(scores, on=["sequence", "object_id"])
    same = both[both["n_frames_x"] == both["n_frames_y"]]
    assert len(same) > 8 and same["j_x"].equals(same["j_y"]) and same["f_x"].equals(same["f_y"])
