"""One headless Chromium for the tests of this folder."""

import os
import shutil

import pytest


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip(
        "playwright.sync_api", reason="NOT TESTED IN A BROWSER: playwright is not installed"
    )
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        message = "NOT TESTED IN A BROWSER: no Chromium is installed (apt-get install chromium)"
        pytest.fail(message) if os.environ.get("VAETUT_REQUIRE_CHROMIUM") else pytest.skip(message)
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=flags)
        yield chromium
        chromium.close()
