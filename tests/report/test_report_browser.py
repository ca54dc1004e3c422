"""The report in a real browser: nothing from outside, no errors; sorting, filters, drill-down, keyboard, phone."""

import json
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.conftest import write_sequence
from vosarena.io.masks import read_mask
from vosarena.leaderboard.columns import TABLES
from vosarena.report import media

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")

VENDOR = Path(__file__).parents[2] / "src/vosarena/report/page/vendor"
MODELS = ("static", "flow", "late-flow")

# Builds the report in a process of its own: playwright's event loop and the tracker's threads do not meet.
BUILD = """
import sys
from pathlib import Path
from vosarena.config.catalogs import Split
from vosarena.config.study import load_study
from vosarena.datasets.table import index_split
from vosarena.leaderboard.build import build_leaderboard
from vosarena.report.page import build_report
from vosarena.config.paths import Paths
from vosarena.leaderboard.inputs import local_runs
from vosarena.metrics.measure_split import measure_predictions
from vosarena.inference.job import Job, ShardTask
from vosarena.inference.run import track_shard
root = Path(sys.argv[1])
source = {"name": "squares", "splits": {"all": {"path": str(root)}}}
facts = {"paper": "https://arxiv.org/abs/1", "parameters": "3 M", "trained_on": ["squares"]}
models = ["static", "flow", {"name": "late-flow", "extends": "flow", "revision": 2, **facts}]
own = {"name": "own", "splits": {"all": {"path": str(root), "ground_truth": "none"}}}
study = load_study({"datasets": [source, own], "models": models, "protocols": ["davis2017", "vos-benchmark"]})
paths = Paths("study", root.parent / "results", root.parent / "resources")
for split in study.splits.values():
    table = paths.sequences(split)
    table.parent.mkdir(parents=True)
    for name in ("JPEGImages", "Annotations"):
        (table.parent / name).symlink_to(root / name)
    index_split(table.parent, table, split)
split = study.splits["squares/all"]
table = paths.sequences(split)
for name, model in study.models.items():
    status = paths.predictions(split, name) / ".shards" / "all.json"
    status.parent.mkdir(parents=True)
    names = sorted(path.name for path in (root / "JPEGImages").iterdir())
    job = Job(model.definition(), None, "cpu")
    folder, metrics = paths.predictions(split, name), paths.metrics(split, name)
    track_shard(ShardTask(tuple(names), root / "JPEGImages", root / "Annotations", job, folder), status)
    measure_predictions(table, folder, [status], metrics, dataset="squares", split="all", model=name,
                        protocols=["davis2017"], resize="never", jobs=1)
unscored = paths.predictions("own/all", "static").parent
unscored.parent.mkdir(parents=True)
unscored.symlink_to(paths.predictions(split, "static").parent)
build_leaderboard(local_runs(study, paths), paths.leaderboard)
build_report(study, paths, paths.report)
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """The page of three models on three tiny sequences."""
    root = tmp_path_factory.mktemp("browser") / "squares"
    write_sequence(root, "alpha")
    write_sequence(root, "beta", frames=60)
    write_sequence(root, "gamma", frames=12, late=3)
    subprocess.run([sys.executable, "-c", BUILD, str(root)], check=True, capture_output=True)
    return root.parent / "results/studies/study/report/index.html"


@pytest.fixture(params=["desktop", "phone"])
def page(open_page, report, request) -> sync_api.Page:
    """The opened page."""
    return open_page(report, *{"desktop": (1280, 900), "phone": (390, 844)}[request.param])


ONCE = pytest.mark.parametrize("page", ["desktop"], indirect=True)  # what does not depend on the width


def column(page: sync_api.Page, number: int) -> sync_api.Locator:
    return page.locator(f"#board tbody tr td:nth-child({number})")


def test_the_first_sentence_and_the_width(page):
    assert "leads squares/all with J&F" in page.locator("h1").inner_text()
    leader = page.locator("h1 b").filter(has=page.locator(".chip"))
    row = page.locator("#board td.model").filter(has_text=re.compile(f"^{leader.inner_text()}$")).locator(".chip")
    mine = leader.locator(".chip").get_attribute("style")
    assert mine == row.get_attribute("style"), "the leader has the colour of its row"
    names = page.locator("#worst .card .head b, #disagree .card .head b").all_inner_texts()
    assert sorted(names) == ["alpha", "beta", "gamma"], "each sequence once"
    assert "kind" not in page.locator("#board thead").inner_text(), "where all rows are measured it tells nothing"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"


@ONCE
def test_the_libraries_were_built_from_what_is_pinned(page):
    pinned = json.loads((VENDOR / "package.json").read_text())["dependencies"]
    assert page.evaluate("libraries") == pinned, "run `npm ci && npm run build` in page/vendor"
    lock = json.loads((VENDOR / "package-lock.json").read_text())["packages"]
    assert {name: lock[f"node_modules/{name}"]["version"] for name in pinned} == pinned


@ONCE
def test_sorting_and_filtering_the_leaderboard(page):
    scores = column(page, 3).all_inner_texts()
    assert scores == sorted(scores, key=float, reverse=True) and len(scores) == 3
    heading = page.locator("#board th")
    heading.filter(has_text="J&F").click()
    sync_api.expect(column(page, 3)).to_have_text(scores[::-1])
    assert page.locator("#board th[aria-sort=ascending]").inner_text().startswith("J&F")
    heading.filter(has_text="model").get_by_role("button").press("Enter")
    sync_api.expect(column(page, 2)).to_have_text(sorted(MODELS))
    page.fill("#board-filter", "late")
    sync_api.expect(column(page, 2)).to_have_text(["late-flow"])


@ONCE
def test_only_rows_of_models_that_have_seen_nothing(page):
    sync_api.expect(column(page, 2)).to_have_count(3)
    page.get_by_label("zero-shot only").check()
    sync_api.expect(column(page, 2)).to_have_count(2)
    assert "late-flow" not in column(page, 2).all_inner_texts()
    page.get_by_label("zero-shot only").uncheck()
    sync_api.expect(column(page, 2)).to_have_count(3)
    assert "Training data of late-flow that are related to this split: squares." in page.inner_text("#board-note")


def test_the_layout_of_the_leaderboard(page):
    rows = page.evaluate("vosarena.board().rows.map(({model, rank}) => [model, rank])")
    assert dict(rows) == {"flow": 1, "late-flow": 1, "static": 3}, "equal scores share a rank"
    assert page.locator("#pairs tbody td.cell").count() == 6
    page.locator("#pairs tbody tr", has_text="static").first.get_by_role("button").nth(1).click()
    assert page.locator("#duel-y").input_value() == "static"
    for region in ("#board-table", "#pairs-region .scroll"):
        page.locator(region).evaluate("node => node.scrollLeft = 1e4")
        name = page.locator(f"{region} tbody tr").first.locator("td.model, th").first
        assert name.bounding_box()["x"] >= 0, "the name of the model stays in view"
    late = page.locator("#board tr", has_text="late-flow")
    assert late.get_by_role("link", name="paper").get_attribute("href") == "https://arxiv.org/abs/1"
    assert "3 M" in late.inner_text() and page.locator("#board").get_by_role("link").count() == 1
    hint = page.locator("#board-table").evaluate("node => [node.scrollWidth > node.clientWidth, node.matches('.wide')]")
    assert hint[0] == hint[1]


def test_a_report_that_was_passed_on_alone_has_its_tables_and_prints_its_pictures(browser, report, tmp_path):
    copy = shutil.copytree(report.parent, tmp_path / "report")
    page = browser.new_page(viewport={"width": 1024, "height": 900}, color_scheme="dark")
    page.goto((copy / "index.html").as_uri())
    downloads = page.locator("#provenance a[download]")
    links = downloads.evaluate_all("nodes => nodes.map(node => node.getAttribute('href'))")
    assert len(links) == len(TABLES) + 2 and all((copy / link).is_file() for link in links)
    tiles = page.locator("#fails .tile")
    page.wait_for_function("[...document.querySelectorAll('#fails .tile')].every(node => node.style.backgroundImage)")
    page.emulate_media(media="print")
    assert tiles.first.evaluate("node => getComputedStyle(node).printColorAdjust") == "exact"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)", "paper is white"
    assert not page.locator("nav").is_visible() and not page.get_by_text("Click a dot to open").is_visible()
    assert page.locator("#provenance dl").first.is_visible(), "paper cannot be opened"
    page.close()


def test_a_clip_plays_on_the_first_screen_and_in_the_viewer(page):
    clip = page.locator("#first-clip")
    page.wait_for_function("document.querySelector('#first-clip').currentTime > 0")
    assert clip.evaluate("node => !node.paused && node.muted && node.videoWidth > 0")
    box = clip.bounding_box()
    assert box["y"] + box["height"] < page.viewport_size["height"] and "its lowest" in page.inner_text("#first-text")
    page.get_by_role("link", name="Compare all models").click()
    page.locator("#curves .curve").first.wait_for()
    assert page.locator("#viewer-title").inner_text() in page.inner_text("#first-text")
    page.locator("#models label", has_text="static").get_by_role("checkbox").uncheck()
    page.select_option("#view", "clip")
    page.wait_for_function("document.querySelector('#clip').currentTime > 0")
    assert not page.locator("#panels").is_visible() and "24 frames per second" in page.inner_text("#clip-facts")
    assert page.locator("#save-clip").get_attribute("href").endswith("/clip.mp4")
    command = page.inner_text("#clip-command")
    assert command.startswith("vosarena video --study study --sequence squares/all/") and "static" not in command
    assert command.endswith("--models flow late-flow")
    page.select_option("#view", "mask")
    assert page.locator("#panels").is_visible() and page.locator("#clip").evaluate("node => node.paused")
    page.select_option("#view", "error")
    page.locator("#slider").press("End")
    page.click("#save-picture")  # browsers do not let local pages read pictures
    assert page.inner_text("#picture-command").endswith("--models flow late-flow --show errors --png 59")
    page.emulate_media(media="print")
    assert page.locator("#panels").is_visible() and not page.locator("#picture-help").is_visible()
    page.emulate_media(media="screen")
    page.locator("#slider").press("Home")
    assert not page.locator("#picture-help").is_visible(), "it was about another frame"
    page.keyboard.press("Escape")
    page.emulate_media(reduced_motion="reduce")
    page.reload()
    page.wait_for_function("document.querySelector('#first-clip').readyState > 1")
    assert clip.evaluate("node => node.paused")


def test_the_view_is_saved_as_a_picture(browser, report, tmp_path):
    handler = partial(SimpleHTTPRequestHandler, directory=report.parent)
    handler.log_message = lambda *_: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"http://127.0.0.1:{server.server_port}/#squares%2Fall%2Fbeta")
        page.locator("#curves .curve").first.wait_for()
        page.locator("#models label", has_text="static").get_by_role("checkbox").uncheck()
        page.locator("#slider").press("End")
        with page.expect_download() as download:
            page.click("#save-picture")
        download.value.save_as(tmp_path / "view.png")
        assert download.value.suggested_filename == "squares_all_beta_frame_59_59.png"
        page.close()
        server.shutdown()
    picture = np.array(Image.open(tmp_path / "view.png").convert("RGB")).astype(int)
    assert picture.shape == (48 + 26, 4 * (64 + 8) - 8, 3), "four panels: frame, ground truth, two models"
    truth = read_mask(report.parents[4] / "squares/Annotations/beta/00059.png")
    panels = [picture[26:, 72 * number : 72 * number + 64] for number in range(4)]
    pink = np.array(list(bytes.fromhex(media.colour_of(1)[1:])))
    inside = cv2.erode((truth == 1).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    far = [np.abs(panel[inside] - pink).mean() for panel in panels[:2]]
    assert far[1] < far[0], "the mask is painted over the frame"


def test_drill_down_with_frames_in_step_and_the_keyboard(page):
    card = page.locator("#worst .card").first
    card.hover()  # plays
    page.wait_for_function(
        """([tile, start]) => tile.style.backgroundPosition !== start""",
        arg=[
            card.locator(".tile").first.element_handle(),
            card.locator(".tile").first.evaluate("node => node.style.backgroundPosition"),
        ],
    )
    page.locator(".seq[data-name=beta]").click()
    page.locator("#curves .curve").first.wait_for()
    assert page.locator("#viewer-title").inner_text() == "beta"
    assert "60 frames (4" in page.locator("#viewer-facts").inner_text()
    assert page.locator("#panels figure").count() == 2 + len(MODELS)
    assert page.locator("#curves .curve").count() == len(MODELS)
    assert page.locator("#curves .failure path").count() >= 1
    before = page.locator("#panels .tile").nth(2).evaluate("node => node.style.backgroundPosition")
    frame = page.locator("#frame").inner_text()
    page.locator("#slider").press("End")
    assert page.locator("#frame").inner_text() == "frame 59 / 59" != frame
    assert page.locator("#panels .tile").nth(2).evaluate("node => node.style.backgroundPosition") != before
    assert "J " in page.locator("#panels figure").nth(2).inner_text()
    loaded = page.evaluate(
        """() => Promise.all([...document.querySelectorAll('#panels .tile')].flatMap(
            node => [...node.style.backgroundImage.matchAll(/url\\("(.*?)"\\)/g)].map(([, url]) => new Promise(done => {
              const image = new Image();
              Object.assign(image, {onload: () => done(image.width), onerror: () => done(0), src: url});
            }))))"""
    )
    assert len(loaded) == 1 + 3 * (1 + len(MODELS)) and all(loaded), "frame; contour, mask and frame"
    page.keyboard.press("n")
    assert page.locator("#viewer-title").inner_text() != "beta"
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()


@ONCE
def test_errors_outlines_and_the_choice_of_models(page):
    page.locator(".seq[data-name=beta]").click()
    page.locator("#curves .curve").first.wait_for()
    flow = page.locator("#panels figure[data-layer=flow]")

    def sheets() -> list[str]:
        names = flow.locator(".tile").evaluate("node => node.style.backgroundImage")
        return re.findall(r"/([^/]*)\.\w+\"", names)

    number = page.evaluate("vosarena.sequences()[0].layers.flow")
    assert sheets() == ["contour", f"{number}", "frames"], "the ground truth's contour is on every prediction"
    page.keyboard.press("e")
    assert sheets() == ["contour", f"{number}-error", "frames"]
    assert "missed" in page.locator("#legend").inner_text() and "extra" in page.locator("#legend").inner_text()
    page.select_option("#view", "outline")
    assert sheets() == [f"{number}-outline", "contour", "frames"]
    page.select_option("#view", "frame")
    assert sheets() == ["frames"]
    before = flow.bounding_box()["width"]
    flow.get_by_role("button", name="Enlarge flow").click()
    assert flow.bounding_box()["width"] > 1.5 * before
    page.select_option("#zoom", "4")
    assert flow.locator(".tile").evaluate("node => getComputedStyle(node).transform") == "matrix(4, 0, 0, 4, 0, 0)"
    page.locator("#models label", has_text="static").get_by_role("checkbox").uncheck()
    assert page.locator("#curves .curve").count() == page.locator("#panels figure:visible").count() - 2 == 2
    page.locator("#slider").press("End")
    assert re.fullmatch(r"J \d+(, (lost|drift|wrong object))?", flow.locator(".now").inner_text())
    page.select_option("#metric", "both")
    assert flow.locator(".now").inner_text().startswith("J&F")
    assert page.locator("#curves svg").get_attribute("aria-label") == "J&F of every model over time"


def test_a_split_without_ground_truth_is_ordered_by_disagreement(page):
    page.select_option("#board-choice", label="own/all, not scored")
    assert "own/all is not scored. The models disagree most on" in page.locator("h1").inner_text()
    for section in ("#hard", "#duel", "#speed", "#board-table", "#board-controls"):
        assert not page.locator(section).is_visible(), section
    links = page.locator("nav a:visible").all_inner_texts()
    assert links == ["Predictions", "Disagreement", "Sequences", "Failures", "Provenance"]
    assert "3 of 3" in page.locator("#state-table tbody tr").first.inner_text()
    entries = page.evaluate("vosarena.sequences()")
    order = [item["name"] for item in sorted(entries, key=lambda item: -item["disagreement"])]
    assert [node.get_attribute("data-name") for node in page.locator(".seq").all()] == order
    page.locator(".seq").first.click()
    page.locator("#curves .curve").first.wait_for()
    assert page.locator("#panels figcaption").nth(1).inner_text().startswith("prompt")
    assert page.locator("#curves .curve").count() == len(MODELS)
    assert "% apart" in page.locator("#panels figure").nth(2).inner_text()
    assert not page.locator("#curve-controls").is_visible() and not page.locator("#curve-help").is_visible()
    page.keyboard.press("e")
    assert page.locator("#view").input_value() == "mask", "there are no errors to show"


@ONCE
def test_objects_and_models_have_no_colour_in_common(page):
    models = page.evaluate("Object.keys(vosarena.data.models).map(vosarena.colour)")
    assert len(set(models)) == len(MODELS)
    assert not {*media.MODEL_COLOURS, *models} & set(media.OBJECT_COLOURS)
    assert page.evaluate("[1, 2, 3, 4].map(vosarena.kindColour)")[1:] not in (models, list(media.OBJECT_COLOURS))


def shaded(page: sync_api.Page) -> list[int]:
    """Frames whose place on the chart, a little to the right of the curve's point, is shaded at half height."""
    return page.evaluate(
        """() => {
            const [shade, curve] = ['.absent', '.curve'].map(name => document.querySelector(`#curves ${name} path`));
            const points = [...curve.getAttribute('d').matchAll(/[ML]([\\d.]+),/g)].map(([, x]) => Number(x));
            return points.flatMap((x, i) => (shade.isPointInFill(new DOMPoint(x + 1, 120)) ? [i] : []));
        }"""
    )


def test_absence_is_shaded_and_an_address_opens_a_sequence(page, report):
    page.goto(f"{report.as_uri()}#squares%2Fall%2Fgamma")
    page.reload()
    page.locator("#curves .curve").first.wait_for()
    assert page.locator("#object").input_value() == "1", "davis2017 does not score the late one"
    page.select_option("#object", "2")  # appears in the fourth frame
    assert shaded(page) == [0, 1, 2]
    page.select_option("#object", "1")
    assert shaded(page) == []


@ONCE
def test_what_fine_tuning_gained_stands_above_the_attributes(page):
    found = {"compared_with": "flow", "difference": -2.04, "difference_low": -4, "difference_high": -0.01}
    page.evaluate(
        "row => Object.assign(vosarena.board().attributes.find(({model}) => model === 'late-flow'), row)", found
    )
    page.evaluate("vosarena.board().gains = ['On late it is better.', 'On small it is worse.']")
    page.evaluate("document.getElementById('board-choice').dispatchEvent(new Event('change'))")
    assert page.locator("#gains").inner_text() == "On late it is better. On small it is worse."
    cell = page.locator("#heat tr", has_text="late-flow").get_by_role("button").first
    assert cell.get_attribute("title").endswith("; compared with flow: -2.0 [-4.0, 0.0]")


@ONCE
def test_the_axis_of_speeds_has_a_number_however_alike_they_are(page):
    for fps in (0.18, 6, 12, 200, 1700):  # far from the numbers of the other axis
        page.evaluate("fps => { vosarena.board().rows.forEach((row) => { row.fps = fps; }); }", fps)
        page.evaluate("window.dispatchEvent(new Event('resize'))")
        labels = page.locator("#speed-plot text").all_text_contents()
        assert "" not in labels, "every tick has its number"
        assert any(label.replace(".", "").isdigit() and fps / 1.5 <= float(label) <= fps * 1.5 for label in labels), fps


@ONCE
def test_the_mean_of_objects_that_have_frames_of_their_own(page):
    first = {"id": 1, "at": [0, 4, 8], "visible": [1, 0, 1], "j": {"static": [100, 50, 0]}, "kinds": {"static": "042"}}
    second = {
        "id": 2,
        "at": [4, 8, 11],
        "visible": [0, 1, 1],
        "j": {"static": [50, 100, 10]},
        "kinds": {"static": "001"},
    }
    unscored = {"id": 3, "at": [0, 4, 8], "visible": [0, 1, 1], "j": {"static": [100, 100, 100]}, "scored": []}
    unscored["kinds"] = {"static": "000"}
    objects = [
        {"scored": ["davis2017"], "colour": "#000000", "fail": {}, "f": item["j"]} | item
        for item in (first, second, unscored)
    ]
    detail = {"frames": 12, "shown": list(range(12)), "objects": objects}
    page.evaluate("detail => vosarena.arrived('squares/all/gamma', detail)", detail)
    page.locator(".seq[data-name=gamma]").click()
    assert shaded(page) == [1], "of the four frames that one of them has, both are gone in the second"
    now = page.locator("#panels figure").filter(has_text="static").locator(".now")
    for frame, mean in ((4, "J 50, false positive while absent"), (8, "J 50, wrong object"), (11, "J 10, lost")):
        page.evaluate("at => { slider.value = at; slider.dispatchEvent(new Event('input')); }", frame)
        assert now.inner_text() == mean
    assert "first failure at frame 4" in page.locator("#curves .failure").text_content(), "where the mean is 50"
    assert page.locator("#object option").all_inner_texts()[::3] == ["scored objects (mean)", "object 3 (not scored)"]


@ONCE
def test_filters_of_the_sequences_and_another_protocol(page):
    page.fill("#board-filter", "no such name")
    assert page.locator("#board tbody").inner_text() == "No row matches the filter."
    page.fill("#board-filter", "")
    page.fill("#sequence-filter", "no such name")
    page.get_by_role("button", name="Clear the filters").click()
    assert page.locator(".seq").count() == 3
    page.fill("#sequence-filter", "no such name")
    page.locator("#worst .card").first.click()
    page.keyboard.press("n")  # there is no next one
    page.keyboard.press("Escape")
    page.fill("#sequence-filter", "AL")
    assert page.locator(".seq").count() == 1
    page.fill("#sequence-filter", "")
    page.select_option("#sequence-attribute", "late")
    assert [node.get_attribute("data-name") for node in page.locator(".seq").all()] == ["gamma"]
    note = "davis2017 ignores the 1 of 6 objects that appears after the first frame. To score it use sa-v"
    assert note in page.locator("#board-note").inner_text()
    assert "derived from the ground truth" in page.locator("#hard-note").inner_text()
    assert "The same in every row: sequences 3/3, objects 5/6" in page.locator("#board-note").inner_text()
    assert "objects" not in page.locator("#board thead").inner_text()
    page.select_option("#board-choice", label="squares/all, vos-benchmark")
    assert "ignores" not in page.locator("#board-note").inner_text()
    assert page.locator("#sequence-attribute").input_value() == "late"  # the choice stays
    assert column(page, 2).count() == 3


@ONCE
def test_every_dot_opens_its_sequence(page):
    page.select_option("#duel-x", "static")
    page.select_option("#duel-y", "flow")
    text = page.locator("#duel-text").inner_text()
    assert "better on" in text and "(too few sequences for an interval and p). Click a dot" in text
    assert page.locator("#duel-plot a").count() == 3
    page.locator("#duel-plot a").first.focus()
    page.keyboard.press("Enter")
    page.locator("#viewer").wait_for()
    assert page.locator("#viewer-title").inner_text() in page.locator("#duel-plot a circle").first.get_attribute(
        "aria-label"
    )
