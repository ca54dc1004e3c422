"""A browser for pages that must work from a folder, without a network."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, of playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    if not CHROMIUM:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser) -> Iterator[Callable[..., Any]]:
    """Open a page of a folder; afterwards: no console message, no error, nothing asked from anywhere but the folder."""
    complaints: list[str] = []
    pages = []

    def opened(file: Path, width: int, height: int = 900, scheme: str = "light") -> Any:
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        pages.append(page)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda asked: asked.url.startswith(("file://", "data:")) or complaints.append(asked.url))
        # What is no longer wanted, because a slider moved on, is aborted by the browser: no fault of the page.
        page.on(
            "requestfailed",
            lambda asked: "ERR_ABORTED" in (asked.failure or "") or complaints.append(f"failed: {asked.url}"),
        )
        page.set_default_timeout(30_000)
        page.goto(file.as_uri(), timeout=120_000)
        return page

    yield opened
    assert complaints == []
    for page in pages:
        page.close()
