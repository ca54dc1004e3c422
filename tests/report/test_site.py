"""The site of five bundles in a real browser: boards, filters, model pages, and the provenance of every number."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, write_sequence
from vosarena.base.errors import ConfigError
from vosarena.cli import main
from vosarena.report.site import build_site

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")

# Runs the studies in a process of its own: playwright's event loop and the tracker's threads do not meet.
BUILD = """
import sys
from pathlib import Path
from tests.support.small_study import study_in
root = Path(sys.argv[1])
facts = {"paper": "https://arxiv.org/abs/1", "license": "MIT", "parameters": "3 M", "trained_on": ["clips"],
         "citation": ["cheng2023cutie"], "title": "</script><b>Late"}
late = {"name": "late-flow", "extends": "flow", "revision": 2, **facts}
both = ["davis2017", "sa-v"]
for lab, models in {"a": ["static"], "b": ["flow"], "c": ["flow", "empty"], "d": [late], "e": ["static"]}.items():
    study_in(root / lab, models, protocols=both).rename(root / f"{lab}.zip")
    (root / lab / "small.zip.timings.json").rename(root / f"{lab}.zip.timings.json")
"""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("labs")
    write_sequence(root / "clips", "alpha")
    write_sequence(root / "clips", "beta", frames=7, late=3)
    subprocess.run([sys.executable, "-c", BUILD, str(root)], cwd=REPOSITORY, check=True)
    for lab in "abcde":
        timings = root / f"{lab}.zip.timings.json"
        seconds = 60.0 if lab == "e" else 0.01  # far from real time, and well within it
        timings.write_text(re.sub(r'"track": [\d.e-]+', f'"track": {seconds}', timings.read_text()))
    (root / "e.zip").rename(root / "slow & odd #1.zip")
    timings.rename(root / "slow & odd #1.zip.timings.json")
    return sorted(root.glob("*.zip"))


@pytest.fixture(scope="module")
def site(bundles, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("site")
    assert main(["site", *map(str, bundles), "--output", str(output), "--address", "https://example.org/results/"]) == 0
    return output


@pytest.fixture(params=[(390, "light"), (900, "dark"), (1400, "light")], ids=["phone", "tablet", "desktop"])
def page(open_page, site, request) -> sync_api.Page:
    """The opened site."""
    width, scheme = request.param
    page = open_page(site / "index.html", width, scheme=scheme)
    page.locator("#board tbody tr").first.wait_for()
    return page


DESKTOP = pytest.mark.parametrize("page", [(1400, "light")], indirect=True, ids=["desktop"])


def models(page: sync_api.Page) -> list[str]:
    return page.locator("#board td.model").all_inner_texts()


def fits(page: sync_api.Page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_boards_model_pages_bundles_and_provenance(page):
    assert page.locator("#summary").inner_text() == "4 models on 1 split from 5 bundles."
    assert sorted(models(page)) == ["empty", "flow", "late-flow", "static"], "the same model of two labs is one row"
    assert fits(page)
    row = page.locator("#board tr", has_text="flow").filter(has_not_text="late-flow")
    score = row.locator("button.score").inner_text()
    row.locator("button.score").click()
    content = page.locator("#provenance-content")
    content.locator("section").nth(1).wait_for()
    exact = float(content.locator("dd").first.inner_text())
    assert abs(exact - float(score)) <= 0.05 and "2 bundles have the same counts." in content.inner_text()
    links = content.get_by_role("link").evaluate_all("nodes => nodes.map(node => node.href)")
    assert links == ["https://example.org/results/b.zip", "https://example.org/results/c.zip"]
    assert "vosarena merge --check b.zip" in content.inner_text() and '"tracker":"flow"' in content.inner_text()
    assert page.evaluate("document.querySelector('#provenance').scrollWidth <= innerWidth")
    page.keyboard.press("Escape")
    page.get_by_role("link", name="late-flow").click()
    title = page.locator("#model-title")
    sync_api.expect(title).to_have_text("late-flow: </script><b>Late")
    sync_api.expect(page.locator("#model-table tbody tr")).to_have_count(2)
    assert "3 M" in page.inner_text("#model-facts") and "@" in page.inner_text("#model-citation") and fits(page)
    page.locator("#model-table button.score").first.click()
    content.locator("section").wait_for()
    page.get_by_role("button", name="Close").click()
    page.get_by_role("link", name="clips/all, sa-v").click()
    sync_api.expect(page.locator("#protocol")).to_have_value("sa-v")
    page.get_by_role("navigation").get_by_role("link", name="Bundles").click()
    sync_api.expect(page.locator("#bundles-table tbody tr")).to_have_count(5)
    assert fits(page)
    page.get_by_role("navigation").get_by_role("link", name="Models").click()
    sync_api.expect(page.locator("#models-table tbody tr")).to_have_count(4)
    assert fits(page)


@DESKTOP
def test_filters(page):
    def shown(label: str) -> list[str]:
        page.get_by_label(label).check()
        found = sorted(models(page))
        page.get_by_label(label).uncheck()
        return found

    assert shown("zero-shot") == ["empty", "flow", "static"], "late-flow was trained on the dataset"
    fast = shown("real time")
    assert "flow" in fast and "static" in fast, "one of its two labs was fast"
    assert shown("open weights") == ["empty", "flow", "late-flow", "static"]
    page.select_option("#license", "MIT")
    assert models(page) == ["late-flow"] and page.inner_text("#count") == "1 of 4 rows"
    page.select_option("#license", "")
    page.fill("#filter", "stat")
    assert models(page) == ["static"]
    page.fill("#filter", "nothing")
    assert "No row matches the filters." in page.inner_text("#board")


@DESKTOP
def test_addresses_and_what_is_not_there(page, site):
    for address, text in (("model/nobody", "There is no such model."), ("board/x/y/z", "clips/all"), ("%E0", "Boards")):
        page.goto(f"{(site / 'index.html').as_uri()}#{address}")
        page.reload()
        sync_api.expect(page.locator("main")).to_contain_text(text)


def test_the_same_bundles_give_the_same_bytes_and_other_folders_are_safe(bundles, site, tmp_path):
    build_site(bundles, tmp_path / "again", "https://example.org/results/")
    one, two = (
        {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}
        for root in (site, tmp_path / "again")
    )
    assert one == two and len(one) == 3 + 2 + 5
    assert json.loads(one["data.js"].decode().removeprefix("window.siteData = ").removesuffix(";\n"))["boards"]
    build_site(bundles[:1], tmp_path / "again")  # over the one before
    assert not (tmp_path / "again/provenance/1.js").exists()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/a.tex").touch()
    with pytest.raises(ConfigError, match="thesis has other files in it; give an empty folder, or one with a site"):
        build_site(bundles[:1], tmp_path / "thesis")
