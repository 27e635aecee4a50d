"""Chromium for the tests that open a page, the built book or a notebook server in it."""

import mimetypes
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

SITE = Path(__file__).resolve().parents[1] / "_build" / "html"
HOST = "http://book.test/"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
PATIENCE = 300_000  # milliseconds; Playwright's 30 seconds are too few for a busy machine


@contextmanager
def chromium():
    """A headless Chromium; without one the test is skipped, or fails where VAETUT_REQUIRE_CHROMIUM is set."""
    reason = "NOT TESTED IN A BROWSER: playwright is not installed"
    api = pytest.importorskip("playwright.sync_api", reason=reason)
    with api.sync_playwright() as playwright:
        names = ("chromium", "chromium-browser", "google-chrome", "chrome")
        own = playwright.chromium.executable_path
        path = next(filter(None, map(shutil.which, names)), own if Path(own).exists() else None)
        if path is None:
            message = "NOT TESTED IN A BROWSER: no Chromium is installed (apt-get install chromium)"
            pytest.fail(message) if os.environ.get("VAETUT_REQUIRE_CHROMIUM") else pytest.skip(message)
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        browser.new_page, browser.new_context = patient(browser.new_page), patient(browser.new_context)
        yield browser
        browser.close()


def patient(make):
    """Make a page or a context that waits long for what must come, before it says that it does not."""

    def made(**options):
        opened = make(**options)
        opened.set_default_timeout(PATIENCE)
        return opened

    return made


def book_page(browser, width):
    """A page of that width in which the built book stands at HOST."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.route("**/*", serve)
    return page


def serve(route):
    path = SITE / unquote(urlsplit(route.request.url).path[1:])
    if route.request.url.startswith(HOST) and path.is_file():
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        route.fulfill(path=path, content_type=kind)
    else:
        route.fulfill(status=404, body="")
