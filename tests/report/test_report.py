"""The report and the figures: made by the workflow, whole, the same bytes twice, bounded in size."""

import json
import re
import shutil
import sys
import zipfile
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vosarena.base.errors import DataError
from vosarena.cli import main
from vosarena.config.paths import Paths
from vosarena.config.study import load_study
from vosarena.datasets.sequences import SequenceFiles
from vosarena.datasets.table import SequenceRecord
from vosarena.io.masks import write_mask
from vosarena.leaderboard.attributes import (
    FailureKind,
    ObjectCurve,
    derived_attributes,
    failure_kinds,
    mean_curve,
    sparkline,
)
from vosarena.leaderboard.headline import headline
from vosarena.metrics.counts import Counts
from vosarena.metrics.read import metrics_from_rows
from vosarena.metrics.records import ObjectRows, SequenceInfo
from vosarena.report import media
from vosarena.report.figures import draw_figures
from vosarena.report.local_paths import LocalPaths
from vosarena.report.page import build_report


def page_data(page: Path) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.S)[1])


def files_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".snakemake_timestamp")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_workflow_makes_the_report_and_figures_and_their_bytes_repeat(
    dataset, tmp_path, snakemake, monkeypatch, caplog, capsys
):
    setting = {"datasets": [{"path": str(dataset)}], "models": ["static", "flow"], "protocols": ["davis2017"]}
    setting["inference"] = {"sequences_per_job": 16}
    snakemake(config=setting)
    results = tmp_path / "results/studies/config"
    content = page_data(results / "report/index.html")
    (board_content,) = content["boards"]
    assert {row["model"] for row in board_content["rows"]} == {"static", "flow"}
    board = pd.read_csv(results / "leaderboard/leaderboard.csv").set_index("model")["j_and_f"]
    for row in board_content["rows"]:
        assert row["j_and_f"] == pytest.approx(board[row["model"]], abs=1e-3)
    sequences = content["splits"]["squares/all"]["sequences"]
    assert [item["name"] for item in sequences] == ["alpha", "beta", "gamma"]
    for item in sequences:
        folder = results / "report/media/squares/all" / item["name"]
        assert item["rate"] == 24 and item["clip"] == [0, item["frames"] - 1]
        assert {path.name for path in folder.iterdir()} == {
            *("frames.jpg", "truth.png", "contour.png", "data.js", "clip.mp4"),
            *(f"{model}{kind}.png" for model in (0, 1) for kind in ("", "-outline", "-error")),
        }
    assert all(row["derived"] for row in board_content["attributes"]), "the dataset gives no attributes"
    assert "late" in sequences[2]["attributes"]
    with av.open(str(results / "report/media/squares/all/beta/clip.mp4")) as clip:
        assert sum(1 for _ in clip.decode(video=0)) == 8 and clip.streams.video[0].average_rate == 24
    first = content["splits"]["squares/all"]["first"]
    assert first["models"] == ["flow"] and (results / "report/media/squares/all/clip.mp4").is_file()
    names = {path.name for path in (results / "figures").iterdir()}
    assert {"overview.pdf", "overview.svg"} <= names and sum(name.startswith("qualitative_") for name in names) == 4
    assert max(path.stat().st_size for path in (results / "figures").iterdir()) < 1_000_000
    snakemake("--report", "report.zip")
    with zipfile.ZipFile(tmp_path / "report.zip") as packed:
        files = {Path(name).name for name in packed.namelist()}
    assert {"report.html", "leaderboard.csv", "overview.svg"} <= files

    study, paths = load_study(setting), Paths("config", tmp_path / "results", tmp_path / "resources")
    (tmp_path / "leaderboard").symlink_to(results / "leaderboard")
    build_report(study, paths, tmp_path / "again")
    assert files_of(tmp_path / "again") == files_of(results / "report")
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "av", None)
        build_report(study, paths, tmp_path / "again")
    assert not list((tmp_path / "again").rglob("*.mp4")) and "the report has no clips" in caplog.text
    draw_figures(study, paths, tmp_path / "figures")
    assert files_of(tmp_path / "figures") == files_of(results / "figures")
    words = (results / "figures/overview.svg").read_text()
    assert ">Optical flow<" in words and ">squares, davis2017<" in words, "titles are for figures"
    assert "Optical flow &" in (results / "leaderboard/leaderboard.tex").read_text()

    places = [f"--{name}={tmp_path / name}" for name in ("results", "resources")]
    command = ["video", "--config", str(tmp_path / "config.yaml"), *places, "--output", str(tmp_path / "videos")]
    assert main([*command, "--sequence", "gamma", "squares/all/beta", "--models", "flow"]) == 0
    assert [path.name for path in sorted((tmp_path / "videos").iterdir())] == [
        "squares_all_beta.mp4",
        "squares_all_gamma.mp4",
    ]
    assert main([*command, "--sequence", "gamma", "--show", "errors", "--png", "5", "0"]) == 0
    pictures = [Image.open(tmp_path / f"videos/squares_all_gamma_{frame}.png") for frame in (0, 5)]
    assert pictures[0].size == pictures[1].size and pictures[0].tobytes() != pictures[1].tobytes()
    assert main([*command, "--sequence", "gamma", "--png", "6"]) == 1
    assert main([*command, "--sequence", "gama"]) == main([*command, "--sequence", "beta", "--models", "flw"]) == 1
    shutil.rmtree(tmp_path / "results/predictions/squares/all/flow/beta")
    assert main([*command, "--sequence", "beta"]) == 0, "the models that have predicted it"
    assert main([*command, "--sequence", "beta", "--models", "flow"]) == 1
    said = capsys.readouterr().err
    for words in (
        "--png 6: gamma has no such frame; choose 0 to 5",
        "did you mean 'gamma'",
        "did you mean 'flow'",
        "squares/all/beta: not tracked yet by flow; run",
    ):
        assert words in said

    named = load_study({**setting, "figures": {"sequences": ["squares/all/beta"]}})
    draw_figures(named, paths, tmp_path / "figures")
    pictures = {path.name for path in (tmp_path / "figures").glob("qualitative_*")}
    assert pictures == {"qualitative_squares_all_beta.png", "qualitative_squares_all_beta.pdf"}
    with pytest.raises(DataError, match="squares/all has no scored sequence 'betta'; did you mean 'beta'"):
        draw_figures(
            load_study({**setting, "figures": {"sequences": ["squares/all/betta"]}}), paths, tmp_path / "figures"
        )
    assert pictures == {path.name for path in (tmp_path / "figures").glob("qualitative_*")}, "nothing is lost by that"


def test_the_report_without_its_packages_says_what_to_install(tmp_path, monkeypatch, capsys):
    (tmp_path / "config.yaml").write_text("datasets: [demo]\nmodels: [static]\n")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "vosarena.report.page")
    assert main(["report", "--config", str(tmp_path / "config.yaml")]) == 1
    assert "vosarena report needs jinja2; install it with pip install 'vosarena[workflow]'" in capsys.readouterr().err


HOME = str(Path.home())
SECRET = [
    ("frame /data/anna smith/set/JPEGImages/s2/00002.jpg: damaged", "frame JPEGImages/s2/00002.jpg: damaged"),
    ("/home/anna/x.py:Class", ".../x.py:Class"),
    ("see file:///home/anna/x/y.png, file:///Users/anna", "see .../y.png, ~"),
    ("in /home/anna: no", "in ~: no"),
    ("'/home/anna/My Data/x' (/a/b/c.png) [/a/d.png]", "'.../My Data/x' (.../c.png) [.../d.png]"),
    ("a=/a/b/c,//d/e/f", "a=.../c,.../f"),
    (f"{HOME}/private/z.jpg and ~/private/z.jpg", ".../z.jpg and .../z.jpg"),
    (f"--directory {Path.cwd()} --configfile {Path.cwd()}/c.yaml", "--directory . --configfile c.yaml"),
    (f"{Path.cwd()}-other/x", ".../x"),
    ("https://anna:secret@host/a/b", "https://host/a/b"),
]


@pytest.mark.parametrize(
    "text, shown", [*SECRET, *((text, text) for text in ["https://host/a/b c", "3/5, J/F, a / b"])]
)
def test_paths_of_this_machine_are_not_published(text, shown):
    paths = LocalPaths([Path(), Path("/data/anna smith/set")])
    assert paths.hide({"x": [text, 1, None]}) == {"x": [shown, 1, None]}
    assert paths.hide(shown) == shown


@pytest.mark.parametrize("sequences, models", [(1, 1), (28, 5), (450, 10), (4000, 10)])
def test_pictures_are_bounded(sequences, models):
    frames = media.frames_per_sequence(sequences, models + 2)
    assert media.MIN_FRAMES <= frames <= media.MAX_FRAMES
    assert frames * sequences * (models + 2) <= media.BUDGET or frames == media.MIN_FRAMES


def test_shown_frames_hold_the_ends_and_what_is_wanted():
    assert media.shown_frames(5, 48) == [0, 1, 2, 3, 4]
    shown = media.shown_frames(1000, 48, [77, 912])
    assert len(shown) <= 48 and {0, 77, 912, 999} <= set(shown) and shown == sorted(shown)


def test_painted_masks_have_inside_outline_and_halo():
    labels = np.zeros((20, 20), np.uint8)
    labels[5:15, 5:15] = 9  # the ninth object has the first one's colour
    paint = media.painted(labels)
    assert paint[10, 10] == 1 and paint[5, 5] == 9 and paint[4, 10] == 17 and paint[0, 0] == 0


def test_errors_are_missed_and_extra_pixels_and_ignored_ones_are_neither():
    truth = np.array([[0, 0, 1, 1, 2, 255]], np.uint8)
    labels = np.array([[0, 3, 1, 0, 1, 1]], np.uint8)
    missed, extra = media.errors(labels, truth)[0][[3, 1]]
    assert media.errors(labels, truth).tolist() == [[0, extra, 0, missed, missed, 0]] and missed != extra != 0


def test_sheets_have_the_pictures_of_their_tiles(tmp_path):
    labels = np.zeros((20, 30), np.uint8)
    labels[5:15, 5:15] = 2
    grid = media.Grid.of((20, 30), 2)
    media.write_truth([labels, None], grid, tmp_path)
    media.write_model([labels, labels], [labels, None], grid, tmp_path, "0")
    colour = tuple(bytes.fromhex(media.colour_of(2)[1:]))
    pictures = {path.stem: np.array(Image.open(path).convert("RGBA")) for path in tmp_path.glob("*.png")}
    for name in ("truth", "0", "0-outline"):
        assert tuple(pictures[name][6, 6][:3]) == colour, name
    assert pictures["truth"][:, 30:, 3].max() == 0 and pictures["0"][10, 40, 3] > 0, "the second frame has no truth"
    assert tuple(pictures["contour"][5, 5]) == (255, 255, 255, 255) and pictures["contour"][10, 10, 3] == 0
    assert pictures["0-outline"][10, 10, 3] == 0 and pictures["0-error"][..., 3].max() == 0


@pytest.mark.parametrize(
    "common, true, predicted, kind",
    [
        (0, 100, 0, FailureKind.LOST),
        (0, 100, 90, FailureKind.WRONG),
        (10, 100, 100, FailureKind.WRONG),
        (11, 100, 100, FailureKind.DRIFT),
        (100, 100, 5000, FailureKind.DRIFT),
        (0, 0, 1, FailureKind.ABSENT),
        (0, 0, 0, None),
        (90, 100, 100, None),
    ],
)
def test_kinds_of_failures(common, true, predicted, kind):
    def counted(*values: int) -> np.ndarray:
        return np.array(values, np.int64)

    zeros = counted(0, 0)
    counts = Counts(counted(100, common), counted(100, true), counted(100, predicted), *[zeros] * 4)
    j = counts.intersection / np.maximum(counts.union, 1) + (counts.union == 0)
    rows = ObjectRows(1, ("0", "1"), counted(0, 1), counts, j, j, np.ones(2))
    assert failure_kinds(rows) == [None, kind]


def test_disagreement_is_the_mean_over_objects_and_other_models():
    def tile(*labels: int) -> np.ndarray:
        return np.array([labels], np.uint8)

    masks = {
        "a": [tile(1, 1, 2, 0), tile(0, 0, 0, 0), None],
        "b": [tile(1, 1, 0, 0), tile(0, 0, 0, 0), tile(1, 0, 0, 0)],
        "c": [tile(1, 1, 1, 1), tile(0, 0, 0, 0), tile(1, 0, 0, 0)],
    }
    found = media.disagreement(masks)
    ab, ac, bc = 1 / 2, (1 / 2 + 1) / 2, 1 / 2  # object 1 and, where one of both has it, object 2
    assert found["a"].tolist() == pytest.approx([(ab + ac) / 2, 0, 1])
    assert found["b"].tolist() == pytest.approx([(ab + bc) / 2, 0, 0.5])
    assert found["c"].tolist() == pytest.approx([(ac + bc) / 2, 0, 0.5])
    assert media.disagreement({"a": masks["a"]}) == {}


def test_large_tiles_only_in_small_reports():
    assert media.tile_width(28, 7) == media.LARGE_TILE_WIDTH and media.tile_width(450, 12) == media.TILE_WIDTH


def test_overlapping_objects_are_shown_over_each_other(tmp_path):
    """SA-V: a folder of binary masks per object, the first one named 000."""
    for number, columns in (("000", slice(0, 6)), ("001", slice(4, 8))):
        labels = np.zeros((4, 8), np.uint8)
        labels[:, columns] = 1
        (tmp_path / number).mkdir()
        write_mask(tmp_path / number / "00000.png", labels)
    files = SequenceFiles("a", (tmp_path / "00000.jpg", tmp_path / "00001.jpg"))
    files.__dict__["size"] = (4, 8)
    read = media.prediction_reader(files, tmp_path)
    colours = [media.OBJECT_COLOURS[label - 1] for label in read(0)[0]]
    assert colours == [media.colour_of(0)] * 4 + [media.colour_of(1)] * 4
    assert read(1) is None


def curve(j, visible) -> ObjectCurve:
    stems = tuple(f"{i:05d}" for i in range(len(j)))
    return ObjectCurve(1, stems, np.array(j, float), np.array(visible, bool))


def test_the_first_failure_comes_after_the_prompt():
    assert curve([1, 0.9, 0.4, 0.9], [1, 1, 1, 1]).failure == 2
    assert curve([1, 1, 1, 0.9], [0, 0, 1, 1]).failure is None
    assert curve([0, 1, 0.5, 0.2], [0, 1, 1, 1]).failure == 2  # nothing is expected before the object appears
    assert sparkline([curve(np.ones(100), np.ones(100))]) == [100] * 32
    assert sparkline([]) == []


def test_the_mean_of_objects_that_have_frames_of_their_own():
    late = ObjectCurve(2, ("00002", "00010"), np.array([0.2, 0.4]), np.array([False, True]))
    mean = mean_curve([late, curve([1, 1, 0.6], [1, 1, 0])])  # nothing of the late one before it appears
    assert mean.j.tolist() == pytest.approx([1, 1, 0.6, 0.4]) and mean.visible.tolist() == [True, True, False, True]
    assert mean.stems == ("00000", "00001", "00002", "00010") and mean.failure == 3
    assert mean_curve([late]).stems == ("00010",)
    assert mean_curve([curve([1, 1], [0, 0])]) is None and sparkline([curve([1, 1], [0, 0])]) == []


def test_attributes_from_the_ground_truth():
    rows = []
    for object_id, areas in ((1, [30, 0, 30]), (2, [0, 500, 500]), (3, [0, 0, 0])):
        for index, area in enumerate(areas):
            counts = dict.fromkeys(["intersection", "pred_pixels", "gt_boundary", "pred_boundary"], 0)
            counts |= dict.fromkeys(["gt_matched", "pred_matched"], 0)
            rows.append({"sequence": "a", "object_id": object_id, "frame": f"{index}", "frame_index": index,
                         **counts, "gt_pixels": area, "tolerance": 1.0, "j": 0.0, "f": 0.0})  # fmt: skip
    # The third object is in the meta file but never visible, so it has no attribute.
    records = [SequenceRecord("a", n_frames=3, height=100, width=100)]
    found = {}
    for listed in ([1, 2, 3], [1, 3], [3]):
        info = SequenceInfo(ranges=dict.fromkeys(listed, (0, 2)))
        metrics = metrics_from_rows("d", "s", "m", pd.DataFrame(rows), {"a": info})
        found |= {str(listed): derived_attributes(metrics, records)["a"]}
    assert found == {
        "[1, 2, 3]": ["disappearance", "late", "return", "small"],
        "[1, 3]": ["disappearance", "return", "small"],
        "[3]": [],
    }


def test_the_headline_says_what_the_numbers_say():
    place = {"dataset": "demo", "split": "val"}
    rows = [
        {
            "model": "a",
            "rank": 1,
            "kind": "measured",
            "n_sequences": 9,
            "j_and_f": 78.7,
            "ci_low": 75.3,
            "ci_high": 82.0,
        },
        {"model": "b", "rank": 2, "kind": "measured", "j_and_f": 77.0, "p_vs_best": 0.3},
    ]
    board = pd.DataFrame([place | row for row in rows])
    attributes = pd.DataFrame([
        {"attribute": "all", "model": "a", "n_sequences": 9, "j_and_f": 78.7},
        {"attribute": "small", "model": "a", "n_sequences": 3, "j_and_f": 40.0},
        {"attribute": "long", "model": "a", "n_sequences": 1, "j_and_f": 10.0},
    ])  # fmt: skip
    sentence = "".join(text for text, _ in headline(board, attributes))
    assert sentence == (
        "a leads demo/val with J&F 78.7 [75.3, 82.0], 1.7 ahead of b, which may be chance (p = 0.30); "
        "it is weakest on small (40.0 on 3 sequences)."
    )
    few = board.assign(n_sequences=3, ci_low=np.nan, ci_high=np.nan, p_vs_best=np.nan)
    sentence = "".join(text for text, _ in headline(few, attributes.query("attribute == 'all'")))
    assert sentence == "a leads demo/val with J&F 78.7, 1.7 ahead of b on 3 sequences, too few to rule out chance."
    tied = headline(few.assign(rank=1, j_and_f=78.7), attributes.query("attribute == 'all'"))
    assert "".join(text for text, _ in tied) == "a leads demo/val with J&F 78.7, as does b."
    nobody = headline(board.assign(rank=np.nan), attributes)
    assert nobody[0][0].startswith("No complete score on demo/val yet: 2 runs")
