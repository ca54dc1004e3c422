"""`vosarena track --browse`: a person clicks on objects on a page of this machine."""

import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from queue import Queue

import numpy as np
import pytest

from tests.conftest import write_sequence
from vosarena.cli.browse import clicks_in_browser
from vosarena.io.frames import read_frame
from vosarena.io.masks import read_mask
from vosarena.io.video import write_video

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")

TRACKER = """
import numpy as np


class Dots:
    packages = ()
    prompt_kinds = ("mask", "click")

    def __init__(self, device="cpu", precision="auto"):
        pass

    def track(self, frames, prompts):
        labels = np.zeros(frames[0].shape[:2], np.uint8)
        for number, given in prompts[0].items():
            for click in given[0].clicks:
                labels[int(click.y), int(click.x)] = number if click.inside else 0
        for frame in frames:
            yield labels
"""


@pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed (apt-get install chromium)")
def test_objects_are_clicked_on_in_a_browser_and_tracked(tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    write_sequence(tmp_path / "data", "alpha", size=(60, 80))
    write_video(tmp_path / "clip.mp4", map(read_frame, sorted((tmp_path / "data/JPEGImages/alpha").iterdir())), 12)
    (tmp_path / "dots.py").write_text(TRACKER)
    options = ["clip.mp4", "--tracker", "dots.py:Dots", "--browse", "--output", "out"]
    call = [sys.executable, "-m", "vosarena", "track", *options]
    with subprocess.Popen(call, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().split()[-1]
        with sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page()
            complaints = []
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("request", lambda asked: asked.url.startswith((address, "data:")) or complaints.append(asked.url))
            page.goto(address)
            frame = page.locator("#frame")
            start = page.get_by_role("button", name="Start tracking")
            assert start.is_disabled()
            assert page.get_by_role("button", name="Next object").is_disabled()
            frame.click(position={"x": 12.5, "y": 13.5})
            frame.click(position={"x": 40.5, "y": 7.5}, button="right")
            page.get_by_role("button", name="Next object").click()
            frame.click(position={"x": 9.5, "y": 35.5})
            frame.click(position={"x": 79.5, "y": 59.5})
            page.get_by_role("button", name="Undo").click()
            assert page.locator("#object").inner_text() == "Object 2"
            assert page.locator(".mark").all_inner_texts() == ["1", "1", "2"]
            assert page.locator(".mark.not").count() == 1
            start.click()
            page.get_by_text("Tracking has started").wait_for()
            assert complaints == []
            browser.close()
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    manifest = json.loads((tmp_path / "out/clip.json").read_text())
    given = manifest["given"]["00000"]
    places = [click for number in ("1", "2") for click in given[number][0]["clicks"]]
    assert [inside for _, _, inside in places] == [True, False, True]
    # The picture may lie between two pixels of the screen.
    assert np.abs(np.array(places)[:, :2] - [(12, 13), (40, 7), (9, 35)]).max() <= 1
    labels = read_mask(tmp_path / "out/clip/00000.png")
    assert [labels[int(y), int(x)] for x, y, _ in places] == [1, 0, 2]
    assert (labels > 0).sum() == 2
    assert (tmp_path / "out/overlay.mp4").is_file()


@pytest.fixture
def served():
    """The address of a page, and what was clicked on it in the end."""
    addresses, answers = Queue(), Queue()
    thread = threading.Thread(target=lambda: answers.put(clicks_in_browser(b"picture", addresses.put)))
    thread.start()
    address = addresses.get(timeout=30)
    yield address, answers
    if thread.is_alive():
        post(address, [["click", "1,2"]])
    thread.join(timeout=30)
    assert not thread.is_alive()


def post(address, options):
    urllib.request.urlopen(f"{address}start", data=json.dumps(options).encode(), timeout=30)


def test_the_page_is_for_this_machine_and_whoever_knows_its_address(served):
    address, _ = served
    assert address.startswith("http://127.0.0.1:")
    assert len(address.rstrip("/").rpartition("/")[2]) > 20
    assert urllib.request.urlopen(f"{address}frame.png", timeout=30).read() == b"picture"
    root = address.rstrip("/").rpartition("/")[0]
    for path in ("/", "/frame.png", "/other/", "/other/start"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(root + path, timeout=30)
    with pytest.raises(urllib.error.HTTPError, match="400"):
        post(f"{root}/other/", [["click", "1,2"]])


@pytest.mark.parametrize(
    "options", [[], [["click", "x"]], [["click"]], {"a": 1}, [["explode", "1,2"]], [["not", "1,2"]]]
)
def test_answers_that_are_no_clicks_are_refused_and_asked_again(served, options):
    address, answers = served
    with pytest.raises(urllib.error.HTTPError, match="400"):
        post(address, options)
    post(address, [["click", "1:5,6"], ["not", "7,8"]])
    assert answers.get(timeout=30) == [("click", "1:5,6"), ("not", "7,8")]
