"""Figures: no name, score or shape ends a run."""

import logging
import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from vosarena.base.errors import DataError
from vosarena.base.escaping import one_line
from vosarena.config.catalogs import Split
from vosarena.config.titles import BY_NAME, Titles
from vosarena.datasets.sequences import SequenceFiles
from vosarena.leaderboard.attributes import ObjectCurve
from vosarena.leaderboard.columns import TABLES
from vosarena.report import figures, media

PLACE = {"dataset": "d$x_1^", "split": "s$", "protocol": "davis2017"}
NAMES = ["$x", "a$b$c", "$\\frac{$", "_hidden", "a^b_c", "\\", "a\nb", "世é", "1", "</text>", "%s {x:g}", "=1"]


@pytest.fixture(autouse=True)
def _style():
    with style.context(figures.STYLE):
        yield


def overview(rows, titles=BY_NAME, attributes=("small", "$late$", "_x")) -> dict[str, pd.DataFrame]:
    shared = {**PLACE, "kind": "measured", "status": "complete", "fps": 10.0, "device": "CPU $5 and $6", "rank": 1}
    shared["parallel_jobs"] = 2
    board = pd.DataFrame([shared | row for row in rows]).reindex(columns=[*TABLES["leaderboard"], "parallel_jobs"])
    found = [{**PLACE, "attribute": name, "derived": True} | row for name in attributes for row in rows]
    return {"leaderboard": board, "attributes": pd.DataFrame(found, columns=[*TABLES["attributes"], "j"])}


def words_of(svg: str) -> list[str]:
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    return [text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") for text in texts]


def test_names_are_drawn_as_they_are(tmp_path):
    rows = [{"model": name, "j_and_f": 50.0, "ci_low": 40.0, "ci_high": 60.0} for name in NAMES]
    figures._overview(overview(rows), NAMES, Titles({"1": "The $1 model"}), tmp_path)
    words = words_of((tmp_path / "overview.svg").read_text())
    for name in NAMES:
        shown = "The $1 model" if name == "1" else one_line(name)
        assert words.count(shown) == 2, f"{name!r} is not a bar and an entry of the legend"
    assert {"d$x_1^ s$, davis2017", "$late$", "_x"} <= set(words)
    speeds = words_of((tmp_path / "speed.svg").read_text())
    assert {"The $1 model", "frames per second, CPU $5 and $6, 2 jobs at once"} <= set(speeds) and len(
        set(words) & set(speeds)
    ) > 5


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=10) | st.text(st.sampled_from("$_^\\{}%a "), max_size=10))
def test_any_text_can_be_drawn(text):
    figure = Figure(figsize=(1, 1), dpi=20)
    figure.text(0, 0, one_line(text), parse_math=False)
    FigureCanvasAgg(figure).draw()


NAN = np.nan


@pytest.mark.parametrize(
    "rows",
    [
        [{"j_and_f": 70.0, "ci_low": 70.00000000000001, "ci_high": 69.99999999999999}],
        [{"j_and_f": NAN, "ci_low": NAN, "ci_high": NAN}],
        [{"j_and_f": 70.0, "ci_low": NAN, "ci_high": NAN, "fps": NAN}],
        [{"j_and_f": 70.0, "ci_low": 60.0, "ci_high": 80.0, "fps": 0.0}, {"j_and_f": 70.0, "fps": np.inf}],
        [{"j_and_f": 0.0, "ci_low": 0.0, "ci_high": 0.0}, {"j_and_f": 100.0, "ci_low": 100.0, "ci_high": 100.0}],
    ],
)
def test_any_scores_can_be_drawn(rows, tmp_path):
    rows = [{"model": f"m{number}", **row} for number, row in enumerate(rows)]
    tables = overview(rows, attributes=("small",) if len(rows) > 1 else ())
    figures._overview(tables, [row["model"] for row in rows], BY_NAME, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"overview.pdf", "overview.svg", "speed.pdf", "speed.svg"}


@pytest.mark.parametrize(
    "j, name", [([0.5], "one frame"), ([NAN, NAN], "nan"), ([0.1, 0.9], "x" * 250), ([1, 0], "é" * 120)]
)
def test_any_curve_can_be_drawn(j, name, tmp_path):
    curve = ObjectCurve(0, tuple(map(str, range(len(j)))), np.array(j, float), np.ones(len(j), bool))
    figures._curves(["static"], Split(dataset="d", name="s"), "davis2017", name, {"static": curve}, BY_NAME, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    figures._curves(
        ["static"], Split(dataset="d", name="s"), "davis2017", f"{name[:-1]}z", {"static": curve}, BY_NAME, tmp_path
    )
    assert len(list(tmp_path.iterdir())) == 4, "two long names share a file"


def test_a_figure_that_cannot_be_drawn_is_left_out(caplog):
    with caplog.at_level(logging.WARNING):
        with figures._attempt("overview"):
            raise ValueError("negative values")
        with figures._attempt("overview"):
            raise DataError("frame 1 is damaged")
    assert (
        "overview cannot be drawn: ValueError: negative values" in caplog.text and "frame 1 is damaged" in caplog.text
    )
    with pytest.raises(OSError, match="full"), figures._attempt("overview"):
        raise OSError("the disk is full")


def test_figures_do_not_fill_the_log_with_fonts(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    figure = Figure()
    figure.suptitle("a title")
    figures._save(figure, tmp_path / "any", ["pdf"])
    assert not [record for record in caplog.records if record.name.startswith("fontTools")]


@pytest.mark.parametrize(
    "fps", [(3.9, 9.8, 12.3, 149.3, 719.4), (9.0, 9.5, 31.0), (700.0,), (2.0, 160.0), (3.93, 3.97)]
)
def test_the_panels_of_the_overview_are_legible(fps):
    figure = Figure(figsize=(5, 2.6))
    left, right = figure.subplots(1, 2)
    models = [f"a-model-{number}" for number in range(len(fps))]
    board = pd.DataFrame({"model": models, "fps": fps, "j_and_f": 99.0, "device": "CPU", "parallel_jobs": 2})
    figures._attributes(left, board.assign(attribute="late"), models, BY_NAME, "davis2017 ignores 3 of 68 objects")
    figures._speed(right, board, models, BY_NAME)
    FigureCanvasAgg(figure).draw()
    low, high = right.get_xlim()
    ticks = [tick.label1.get_window_extent() for tick in right.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
    assert ticks and all(first.x1 < second.x0 for first, second in pairwise(ticks))
    assert [label.get_text() for label in left.get_yticklabels()] == models
    assert [text.get_text() for text in left.texts] == ["99"] * len(models)


def test_strips_show_the_first_failures_and_the_largest_difference():
    curves = {frame: [1.0, 0.9] for frame in range(40)}
    curves |= {frame: [1.0, 0.4] for frame in range(9, 20)} | {23: [0.5, 0.9], 31: [0.95, 0.1]}
    assert figures.shown_frames(range(40), curves) == [0, 9, 23, 31, 39], "39 is far from the others"
    assert figures.shown_frames([3, 8], {}) == [3, 8]


def test_pictures_have_few_colours_and_keep_those_of_small_objects(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "0.png")
    labels = np.zeros((90, 160), np.uint8)
    labels[40:50, 40:50], labels[10:13, 10:13] = 1, 2
    files = SequenceFiles("a", (tmp_path / "0.png",))
    picture = figures._picture(files, 0, lambda frame: labels, 160)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) <= 256
    for number, place in ((1, (40, 40)), (2, (10, 10))):
        assert tuple(picture[place]) == tuple(bytes.fromhex(media.colour_of(number)[1:]))


def test_drawing_changes_no_setting_of_matplotlib():
    code = "import matplotlib; old = dict(matplotlib.rcParams)\n"
    code += "import vosarena.report.figures, vosarena.finetuning.curves; assert dict(matplotlib.rcParams) == old"
    subprocess.run([sys.executable, "-c", code], check=True)
