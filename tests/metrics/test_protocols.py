"""Every protocol's choices, one by one (docs/reference/protocols.md), and plain implementations of the definitions."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from skimage.morphology import disk

from tests.support.mask_makers import blobs, write_clip
from vosarena.base.errors import ConfigError, DataError
from vosarena.metrics.measure import measure
from vosarena.metrics.meta import LVOS_UNSEEN, read_meta, with_meta
from vosarena.metrics.pairs import ObjectInfo, pair_folders
from vosarena.metrics.protocols import PROTOCOLS, find_protocol
from vosarena.metrics.read import Metrics, read_metrics
from vosarena.metrics.scores import empty_score, score, summarise

EMPTY = np.zeros((40, 60), np.uint8)


def square(label: int, x: int = 10, y: int = 10, size: int = 12, base: np.ndarray = EMPTY) -> np.ndarray:
    labels = base.copy()
    labels[y : y + size, x : x + size] = label
    return labels


class Bench:
    """Clips on disk, measured and scored."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def clip(self, name: str, gt: list[np.ndarray], pred: list[np.ndarray]) -> None:
        write_clip(self.root / "gt" / name, gt)
        write_clip(self.root / "pred" / name, pred)

    def score(self, protocol: str, meta: dict | None = None, unseen: list[str] | None = None) -> pd.DataFrame:
        pairs = with_meta(pair_folders(self.root / "gt", self.root / "pred"), meta, unseen)
        self.counts = self.root / "counts.parquet"
        measure(
            pairs, self.counts, dataset="d", split="s", model="m", extra_ids="ignore", adaptive=True, progress=False
        )
        return score(self.counts, protocol)

    def ids(self, protocol: str, **options) -> list[int]:
        return self.score(protocol, **options)["object_id"].tolist()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def plain_scores(gt: np.ndarray, pred: np.ndarray, radius: float | None = None) -> tuple[float, float]:
    """J and F of one object in one frame by the DAVIS definitions, bool (H, W)."""

    def boundary(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
        blocks = [padded[dy : dy + mask.shape[0], dx : dx + mask.shape[1]] for dy in (0, 1) for dx in (0, 1)]
        return np.any(blocks, axis=0) & ~np.all(blocks, axis=0)

    union = (gt | pred).sum()
    j = (gt & pred).sum() / union if union else 1.0
    a, b = boundary(gt), boundary(pred)
    if not a.any() or not b.any():
        return j, float(not a.any() and not b.any())
    footprint = disk(np.ceil(0.008 * np.linalg.norm(gt.shape)) if radius is None else radius)
    # A disk whose radius is not whole lies off its centre: OpenCV's dilation is the one that peers use.
    recall = (a & cv2.dilate(b.astype(np.uint8), footprint).astype(bool)).sum() / float(a.sum())
    precision = (b & cv2.dilate(a.astype(np.uint8), footprint).astype(bool)).sum() / float(b.sum())
    return j, 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def plain_decay(values: np.ndarray, dtype: type) -> float:
    """First quarter minus last; dtype of the bin edges: uint8 as davis2017-evaluation has it, or one that is right."""
    edges = (np.round(np.linspace(1, len(values), 5) + 1e-10) - 1).astype(np.int64).astype(dtype).astype(int)
    return np.mean(values[edges[0] : edges[1] + 1]) - np.mean(values[edges[3] : edges[4] + 1])


def random_clip(seed: int, frames: int, highest: int = 3) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    gt = [blobs(rng, 40, 60, 5, highest) for _ in range(frames)]
    pred = [np.roll(labels, rng.integers(-4, 5, 2), (0, 1)) for labels in gt]
    return gt, pred


def test_davis_equals_its_definitions(bench: Bench) -> None:
    clips = {f"clip{seed}": random_clip(seed, 9 + seed) for seed in range(6)}
    for name, (gt, pred) in clips.items():
        bench.clip(name, gt, pred)
    scores = bench.score("davis2017")
    expected = []
    for name in sorted(clips):
        gt, pred = clips[name]
        for label in range(1, gt[0].max() + 1):
            both = [plain_scores(g == label, p == label) for g, p in zip(gt[1:-1], pred[1:-1], strict=True)]
            j, f = np.array(both).T.copy()
            row = [name, label, len(j), 100 * j.mean(), 100 * f.mean(), 100 * (j > 0.5).mean(), 100 * (f > 0.5).mean()]
            expected.append([*row, 100 * plain_decay(j, np.int64), 100 * plain_decay(f, np.int64)])
    columns = ["sequence", "object_id", "n_frames", "j", "f", "j_recall", "f_recall", "j_decay", "f_decay"]
    assert scores[columns].to_numpy().tolist() == expected
    summary = summarise(scores).iloc[0]
    assert summary["j"] == np.mean([row[3] for row in expected]) and summary["n_sequences"] == 6
    assert summary["j_and_f"] == (summary["j"] + summary["f"]) / 2


def test_davis_official_repeats_the_uint8_bins(bench: Bench) -> None:
    frames = 420
    gt = [square(1)] * frames
    pred = [square(1, x=10 + i // 50) for i in range(frames)]
    bench.clip("long", gt, pred)
    j = np.array([plain_scores(g == 1, p == 1)[0] for g, p in zip(gt, pred, strict=True)])[1:-1]
    right, official = bench.score("davis2017"), score(bench.counts, "davis2017-official")
    assert right["j_decay"][0] == 100 * plain_decay(j, np.int64) > 30
    wrapped = 100 * plain_decay(j, np.uint8)
    assert official["j_decay"][0] == pytest.approx(wrapped, nan_ok=True) and wrapped != right["j_decay"][0]
    same = ["j", "f", "j_recall", "f_recall", "n_frames"]
    assert right[same].equals(official[same])


@pytest.mark.parametrize("protocol", ["davis2017", "vos-benchmark", "sa-v", "lvos", "mosev2"])
def test_first_and_last_frames_are_skipped(bench: Bench, protocol: str) -> None:
    empty = np.zeros((90, 120), np.uint8)  # mosev2 differs on tiny images (test_official_scripts.py)
    full = square(1, base=empty)
    bench.clip("clip", [full] * 5, [empty, *[full] * 3, empty])
    scores = bench.score(protocol)
    assert scores[["n_frames", "j", "f"]].to_numpy().tolist() == [[3, 100, 100]]


def test_youtube_vos_skips_only_the_first_appearance(bench: Bench) -> None:
    bench.clip("clip", [EMPTY, *[square(1)] * 4], [square(1), EMPTY, square(1), square(1), EMPTY])
    scores = bench.score("youtube-vos")
    assert scores["n_frames"][0] == 3 and scores["j"][0] == pytest.approx(200 / 3)


def test_davis_counts_only_objects_that_exist(bench: Bench) -> None:
    """The official script counts every id below the maximum of the first frame."""
    gt = square(3, x=30, base=square(1))
    late = square(4, y=25, base=gt)
    bench.clip("clip", [gt, late, late, late], [gt, late, square(2, y=0, x=0, size=3, base=late), late])
    assert bench.score("davis2017").set_index("object_id")["j"].to_dict() == {1: 100, 3: 100}
    # 2 is in no ground truth but below the maximum: right where it is absent, wrong where it is predicted.
    assert bench.score("davis2017-official").set_index("object_id")["j"].to_dict() == {1: 100, 2: 50, 3: 100}


@pytest.mark.parametrize("ids", [(1, 200), (1, 254), (7, 9), (2, 3)])
def test_an_empty_prediction_scores_nothing_whatever_the_ids(bench: Bench, ids: tuple[int, int]) -> None:
    gt = square(ids[1], x=30, base=square(ids[0]))
    bench.clip("clip", [gt] * 5, [EMPTY] * 5)
    for name, protocol in PROTOCOLS.items():
        scores = bench.score(name)
        phantoms = name in ("davis2017-official", "vost")
        assert sorted(scores["object_id"]) == (list(range(1, ids[1] + 1)) if phantoms else list(ids)), name
        if not phantoms:
            assert scores["j"].max() < 1 and scores["f"].max() == 0, name
        assert protocol.name == name


def test_late_objects(bench: Bench) -> None:
    early, both = square(1), square(2, x=30, base=square(1))
    gt = [early, early, early, both, both, both, both]
    bench.clip("clip", gt, [*gt[:5], early, both])
    frames = {name: bench.score(name).set_index("object_id")["n_frames"].to_dict() for name in PROTOCOLS}
    assert frames["davis2017"] == {1: 5}  # not in the first frame: no object
    assert frames["vos-benchmark"] == frames["sa-v"] == {1: 5, 2: 3}  # from its first frame on
    assert frames["lvos"] == {1: 5, 2: 2}  # its own range without the first and the last frame
    assert frames["mosev2"] == {1: 5, 2: 5}  # all scored frames
    assert frames["youtube-vos"] == {1: 6, 2: 3}  # after its first frame
    assert score(bench.counts, "sa-v").set_index("object_id")["j"][2] == pytest.approx(200 / 3)


def test_prediction_before_the_first_appearance(bench: Bench) -> None:
    """The peers count from the first frame with the id on either side; ours from the ground truth alone."""
    early, both = square(1), square(2, x=30, base=square(1))
    gt = [early, early, early, both, both, both]
    bench.clip("clip", gt, [early, early, both, both, both, both])
    peer, right = bench.score("vos-benchmark").set_index("object_id"), score(bench.counts, "sa-v")
    assert peer["n_frames"][2] == 3 and peer["j"][2] == pytest.approx(200 / 3)
    assert right.set_index("object_id")["n_frames"][2] == 2 and right.set_index("object_id")["j"][2] == 100


def test_object_only_in_the_first_frame(bench: Bench) -> None:
    """It vanishes from vos-benchmark's result; by the ground truth it is an object that must not be predicted."""
    both, one = square(2, x=30, base=square(1)), square(1)
    bench.clip("clip", [both, one, one, one], [both, one, both, one])
    assert bench.ids("vos-benchmark") == [1]
    for protocol in ("davis2017", "sa-v", "mosev2"):
        scores = bench.score(protocol).set_index("object_id")
        assert scores.index.tolist() == [1, 2] and scores["j"][2] < 60
    assert bench.ids("lvos") == [1]  # a range of one frame has none between its first and last


def test_absent_objects_count_as_right_where_nothing_is_predicted(bench: Bench) -> None:
    gt = [square(1), EMPTY, EMPTY, square(1), square(1)]
    bench.clip("clip", gt, [square(1), EMPTY, square(1), EMPTY, square(1)])
    for protocol in ("davis2017", "sa-v", "lvos"):
        scores = bench.score(protocol)
        assert scores["j"].tolist() == scores["f"].tolist() == [pytest.approx(100 / 3)], protocol
    assert bench.score("vos-benchmark")["j"].tolist() == [0]  # begins where one side has the object: frame 2


def test_label_255(bench: Bench) -> None:
    gt = square(255, x=30, base=square(1))
    bench.clip("clip", [gt] * 4, [square(1)] * 4)
    assert [bench.ids(name) for name in ("davis2017", "lvos", "mosev2", "youtube-vos")] == [[1]] * 4  # not an object
    scores = bench.score("vos-benchmark").set_index("object_id")  # an object like any other
    assert scores["j"].to_dict() == {1: 100, 255: 0}
    assert score(bench.counts, "sa-v").set_index("object_id")["j"].to_dict() == {1: 100, 255: 0}


def test_extra_ids_are_never_objects(bench: Bench) -> None:
    bench.clip("clip", [square(1)] * 4, [square(7, x=30, base=square(1))] * 4)
    assert all(bench.ids(name) == [1] for name in PROTOCOLS)


def test_clips_without_a_frame_to_score(bench: Bench) -> None:
    """Of two frames none is left between the first and the last: the clip is in no mean, and no error."""
    bench.clip("short", [square(1)] * 2, [EMPTY] * 2)
    bench.clip("long", [square(1)] * 4, [square(1)] * 4)
    for protocol in PROTOCOLS:
        names = bench.score(protocol)["sequence"].tolist()
        assert names == (["long", "short"] if protocol in ("youtube-vos", "volumetric") else ["long"])
    only = Bench(bench.root / "only")
    only.clip("short", [square(1)] * 2, [EMPTY] * 2)
    assert only.score("davis2017").empty and summarise(only.score("davis2017")).empty


def test_sparse_ground_truth(bench: Bench, tmp_path: Path) -> None:
    """Only frames with ground truth are scored; predictions of the others are not looked at."""
    bench.clip("clip", [square(1)] * 21, [square(1)] * 21)
    for index in range(21):
        if index % 5:
            (tmp_path / "gt" / "clip" / f"{index:05d}.png").unlink()
            (tmp_path / "pred" / "clip" / f"{index:05d}.png").write_bytes(b"never read")
    scores = bench.score("davis2017")
    assert scores[["n_frames", "j"]].to_numpy().tolist() == [[3, 100]]


def test_numeric_order_of_unpadded_names(bench: Bench, tmp_path: Path) -> None:
    """2 comes before 10; vos-benchmark sorts names, and skips other frames."""
    bench.clip("clip", [square(1)] * 12, [square(1)] * 12)
    for side in ("gt", "pred"):
        for path in (tmp_path / side / "clip").iterdir():
            path.rename(path.with_name(f"{int(path.stem)}.png"))
    write_clip(tmp_path / "empty", [EMPTY])
    for last in ("11", "9"):  # last by number, last by name
        (tmp_path / "pred" / "clip" / f"{last}.png").write_bytes((tmp_path / "empty" / "00000.png").read_bytes())
    assert bench.score("davis2017")["j"][0] == pytest.approx(90)
    assert bench.score("vos-benchmark")["j"][0] == pytest.approx(90)
    (tmp_path / "pred" / "clip" / "11.png").write_bytes((tmp_path / "gt" / "clip" / "1.png").read_bytes())
    assert score(bench.counts, "davis2017")["j"][0] == pytest.approx(90)
    assert bench.score("davis2017")["j"][0] == pytest.approx(90) and bench.score("vos-benchmark")["j"][0] == 100


@pytest.mark.parametrize("first", [2**31 - 2, 1_700_000_000_000, 10**19])
def test_frames_named_by_times_keep_their_order(bench: Bench, tmp_path: Path, first: int) -> None:
    """Numbers of more than 31 bits: first and last are still those by number."""
    bench.clip("clip", [square(1)] * 5, [EMPTY, *[square(1)] * 3, EMPTY])
    for path in [*tmp_path.glob("*/clip/*.png")]:
        path.rename(path.with_name(f"{first + int(path.stem)}.png"))
    assert bench.score("davis2017")[["n_frames", "j"]].to_numpy().tolist() == [[3, 100]]


def test_lvos_ranges_from_meta_seen_unseen_and_v(bench: Bench) -> None:
    gt, pred = random_clip(5, 12, highest=2)
    seen, unseen = "seen", sorted(LVOS_UNSEEN)[0]
    for name in (seen, unseen):
        bench.clip(name, gt, pred if name == seen else gt)
    meta = {name: {1: ObjectInfo(2, 9), 2: ObjectInfo(0, 11)} for name in (seen, unseen)}
    scores = bench.score("lvos", meta=meta).set_index(["sequence", "object_id"])
    for label, (start, end) in {1: (2, 9), 2: (0, 11)}.items():
        inside = range(start + 1, end)
        j, f = np.array([plain_scores(gt[i] == label, pred[i] == label) for i in inside]).T.copy()
        row = scores.loc[seen, label]
        assert (row["n_frames"], row["j"], row["f"]) == (len(inside), 100 * j.mean(), 100 * f.mean())
        assert row["v"] == pytest.approx(100 * np.std((j + f) / 2), rel=1e-12)
        official = score(bench.counts, "lvos-official").set_index(["sequence", "object_id"]).loc[seen, label]
        assert official["v"] == 100 * np.sqrt(round(np.sum((((j + f) / 2).mean() - (j + f) / 2) ** 2) / len(j), 4))
    assert scores["unseen"].to_dict() == {(n, i): n == unseen for n in (seen, unseen) for i in (1, 2)}
    summary = summarise(scores.reset_index()).iloc[0]
    assert summary["j_unseen"] == summary["f_unseen"] == 100 and summary["v_unseen"] == 0
    assert summary["j"] == (summary["j_seen"] + 100) / 2 and summary["v"] == summary["v_seen"] / 2
    assert summary["j_and_f"] == (summary["j"] + summary["f"]) / 2
    assert len(LVOS_UNSEEN) == 51


def test_objects_of_the_meta_file_are_scored_even_if_never_there(bench: Bench) -> None:
    bench.clip("clip", [square(1)] * 5, [square(1)] * 5)
    meta = {"clip": {1: ObjectInfo(0, 4), 2: ObjectInfo(0, 4)}}
    for protocol in ("lvos", "mosev2"):
        assert bench.ids(protocol, meta=meta) == [1, 2]


def test_seen_and_unseen_of_youtube_vos(bench: Bench, tmp_path: Path) -> None:
    both = square(2, x=30, base=square(1))
    bench.clip("a", [both] * 4, [square(1)] * 4)
    bench.clip("b", [square(1)] * 4, [square(1)] * 4)
    file = tmp_path / "meta.json"
    file.write_text(
        '{"videos": {"a": {"objects": {"1": {"category": "ape", "frames": ["00000", "00001", "00002", "00003"]},'
        '"2": {"category": "owl", "frames": ["00000", "00003"]}}}, "b": {"objects": {"1": {"category": "ape", '
        '"frames": ["00000"]}}}}}'
    )
    meta = read_meta(file)
    summary = summarise(bench.score("youtube-vos", meta=meta, unseen=["owl"])).iloc[0]
    assert (summary["j_seen"], summary["j_unseen"], summary["j"], summary["f"]) == (100, 0, 50, 50)
    assert summarise(bench.score("youtube-vos", meta=meta, unseen=["b"])).iloc[0]["j_unseen"] == 100
    assert summarise(bench.score("youtube-vos", meta=meta, unseen=["a/2"])).iloc[0]["j_unseen"] == 0
    assert summarise(bench.score("youtube-vos", meta=meta)).iloc[0]["j"] == pytest.approx(200 / 3)


def test_mosev2_equals_its_definitions(bench: Bench) -> None:
    rng = np.random.default_rng(8)
    size = (230, 310)  # 0.008 of the diagonal is 3.09 pixels
    gt = [blobs(rng, *size, 3, 2) for _ in range(14)]
    for index in (3, 4, 8, 12):
        gt[index] = np.where(gt[index] == 1, 0, gt[index]).astype(np.uint8)
    gt[6] = square(1, size=3, base=np.zeros(size, np.uint8))
    pred = [np.roll(labels, rng.integers(-3, 4, 2), (0, 1)) for labels in gt]
    pred[4] = gt[5]
    bench.clip("clip", gt, pred)
    cap = 0.008 * np.linalg.norm(size)
    scores = bench.score("mosev2").set_index("object_id")
    for label in (1, 2):
        j, f_dot, f_plain, absent = [], [], [], []
        for g, p in ((a == label, b == label) for a, b in zip(gt[1:-1], pred[1:-1], strict=True)):
            radius = min(np.ceil(0.1 * np.sqrt(g.sum())), cap) if g.any() else cap
            j.append(((g & p).sum() + 1) / ((g | p).sum() + 1))
            f_dot.append(plain_scores(g, p, radius)[1])
            f_plain.append(plain_scores(g, p, np.ceil(cap) if radius < cap else cap)[1])
            absent.append(not g.any())
        row = scores.loc[label]
        assert (row["j"], row["f"]) == (100 * np.mean(j), 100 * np.mean(f_dot))
        assert row["f_plain"] == 100 * np.mean(f_plain)
        away, back = [], []
        start = 0
        for index in range(1, len(absent) + 1):
            if index == len(absent) or absent[index] != absent[start]:
                if start:
                    (away if absent[start] else back).append(np.mean(j[start:index]))
                start = index
        for name, runs in (("j_disappear", away), ("j_reappear", back)):
            assert row[name] == pytest.approx(100 * np.mean(runs) if runs else np.nan, nan_ok=True, rel=1e-12)
    assert not np.isnan(scores.loc[1, ["j_disappear", "j_reappear", "f_disappear"]].astype(float)).any()
    summary = summarise(scores.reset_index()).iloc[0]
    assert summary["j_and_f_disappear"] == (summary["j_disappear"] + summary["f_disappear"]) / 2
    assert summary["j_and_f_plain"] == (summary["j"] + summary["f_plain"]) / 2


def counted(bench: Bench) -> Metrics:
    return read_metrics(bench.counts)[0]


def test_volumetric_sums_before_it_divides(bench: Bench) -> None:
    """Closed forms: an empty prediction 0, a perfect one 100, and half of the volume one half."""
    gt = [square(1), square(1), EMPTY, EMPTY, square(1), square(2, size=4, base=square(1, x=30))]
    nothing, half = [EMPTY] * 6, [*gt[:2], *[EMPTY] * 4]
    for name, pred in (("empty", nothing), ("half", half), ("perfect", gt)):
        bench.clip(name, gt, pred)
    scores = bench.score("volumetric").set_index(["sequence", "object_id"])
    assert scores.index.tolist() == [("empty", 1), ("half", 1), ("perfect", 1)]  # 2 appears in the last frame only
    assert scores["j_and_f"].tolist() == pytest.approx([0, 100 * (1 / 3 + 1 / 2) / 2, 100])
    assert scores["n_frames"].tolist() == [5, 5, 5]
    assert bench.score("davis2017").set_index("sequence").loc["empty", "j_and_f"] == 50  # the points of absence


@pytest.mark.parametrize("seed", range(4))
def test_volumetric_equals_its_definition(bench: Bench, seed: int) -> None:
    gt, pred = random_clip(seed, 7)
    bench.clip("clip", gt, pred)
    scores = bench.score("volumetric").set_index("object_id")
    rows = pd.read_parquet(bench.counts)
    for label, row in scores.iterrows():
        first = next(i for i, labels in enumerate(gt) if (labels == label).any())
        masks = np.array(gt[first + 1 :]) == label, np.array(pred[first + 1 :]) == label
        assert row["j"] == 100 * ((masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum())
        of_object = rows[(rows["object_id"] == label) & (rows["frame_index"] > first)]
        precision = of_object["pred_matched"].sum() / of_object["pred_boundary"].sum()
        recall = of_object["gt_matched"].sum() / of_object["gt_boundary"].sum()
        assert row["f"] == pytest.approx(200 * precision * recall / (precision + recall), rel=1e-12)


def test_volumetric_gives_nothing_for_an_object_that_fills_the_image(bench: Bench) -> None:
    full = np.ones((40, 60), np.uint8)
    bench.clip("empty", [full] * 4, [EMPTY] * 4)
    bench.clip("perfect", [full] * 4, [full] * 4)
    assert bench.score("volumetric")["j_and_f"].tolist() == [0, 100]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_visible_and_absent_frames_apart(bench: Bench, protocol: str) -> None:
    """Half of the visible frames and two thirds of the absent ones are right."""
    empty = np.zeros((90, 120), np.uint8)
    full = square(1, base=empty)
    gt = [*[full] * 5, *[empty] * 3, full, full]
    pred = [*[full] * 3, *[empty] * 4, full, empty, empty]
    bench.clip("clip", gt, pred)
    scores = bench.score(protocol)
    names = ["j_visible", "f_visible", "j_absent", "f_absent"]
    seen = {"youtube-vos": 100 / 3, "volumetric": 100 / 3}.get(protocol, 40)  # of 6 or 5 visible frames
    summary = summarise(scores).iloc[0]
    if protocol == "mosev2":  # one pixel is added to both sides of J
        assert summary[["f_visible", "f_absent"]].tolist() == pytest.approx([seen, 200 / 3])
    else:
        assert scores[names].to_numpy().tolist() == [pytest.approx([seen, seen, 200 / 3, 200 / 3])]
        assert summary[["j_and_f_visible", "j_and_f_absent"]].tolist() == pytest.approx([seen, 200 / 3])
    always = Bench(bench.root / "always")
    always.clip("clip", [square(1)] * 5, [square(1)] * 5)
    scores = always.score(protocol)
    assert scores["j_visible"].tolist() == [100] and "j_visible" not in summarise(scores)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_score_of_an_empty_prediction_follows_from_any_other(bench: Bench, protocol: str) -> None:
    for seed in range(3):
        gt, pred = random_clip(seed, 9)
        gt[4:6] = EMPTY, EMPTY
        bench.clip(f"clip{seed}", gt, pred)
    bench.score(protocol)
    found = empty_score(counted(bench), find_protocol(protocol))
    nothing = Bench(bench.root / "nothing")
    for seed in range(3):
        gt, _ = random_clip(seed, 9)
        gt[4:6] = EMPTY, EMPTY
        nothing.clip(f"clip{seed}", gt, [EMPTY] * 9)
    assert found == pytest.approx(summarise(nothing.score(protocol)).iloc[0]["j_and_f"], rel=0, abs=0, nan_ok=True)
    assert (found == 0) == (protocol == "volumetric")


def test_vost_equals_its_definitions(bench: Bench) -> None:
    """J on all frames but the first and the last, and on the last quarter of these (floor of 0.75 n)."""
    expected = []
    for frames in range(3, 14):
        gt, pred = random_clip(frames, frames)
        if frames == 9:
            gt = [np.where(labels == 1, 0, labels) for labels in gt]  # 1 is no object, but below the maximum
        gt[0][0, 0] = 2
        bench.clip(f"clip{frames:02d}", gt, pred)
        for label in range(1, gt[0].max() + 1):
            j = [plain_scores(g == label, p == label)[0] for g, p in zip(gt[1:-1], pred[1:-1], strict=True)]
            last = j[int(np.floor(0.75 * len(j))) :]
            row = [100 * np.mean(j), 100 * np.mean(last), 100 * np.mean(np.array(last) > 0.5)]
            expected.append([*row, 100 * plain_decay(np.array(j), np.uint8)])
    scores = bench.score("vost")
    columns = ["j", "j_last", "j_last_recall", "j_decay"]
    assert scores[columns].to_numpy().tolist() == expected
    assert summarise(scores).iloc[0]["j_last"] == np.mean([row[1] for row in expected])


def test_several_protocols_and_models_from_the_same_files(bench: Bench) -> None:
    bench.clip("clip", *random_clip(1, 8))
    scores = pd.concat([bench.score(name) for name in PROTOCOLS])
    assert summarise(scores)["protocol"].tolist() == sorted(PROTOCOLS)
    twice = pd.concat([pd.read_parquet(bench.counts), pd.read_parquet(bench.counts).assign(model="n")])
    assert summarise(score(twice, "davis2017"))["model"].tolist() == ["m", "n"]
    both = score([bench.counts, bench.counts], "davis2017")
    assert len(both) == 2 * len(score(bench.counts, "davis2017"))


def test_mistakes(bench: Bench, tmp_path: Path) -> None:
    bench.clip("clip", *random_clip(1, 5))
    with pytest.raises(ConfigError, match="protocol davis is unknown; expected one of davis2017"):
        bench.score("davis")
    rows = pd.read_parquet(bench.counts).drop(columns="tolerance_adaptive")
    with pytest.raises(DataError, match="needs counts with adaptive tolerance"):
        score(rows, "mosev2")
    rows.to_parquet(tmp_path / "other.parquet")
    for path in (tmp_path / "other.parquet", tmp_path / "nowhere.parquet"):
        with pytest.raises(DataError, match=r"(not a|there is no) metrics table"):
            score(path, "davis2017")
    (tmp_path / "meta.json").write_text("[]")
    with pytest.raises(DataError, match=r"meta\.json is not a meta file"):
        read_meta(tmp_path / "meta.json")
