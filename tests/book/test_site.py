"""The built book, as a reader meets it: its files, and every page opened in a headless Chromium.

`make test` builds the book before these tests run. Where no Chromium is installed the tests in the browser are
skipped, and say so; with VAETUT_REQUIRE_CHROMIUM set, as in .ci/run, they fail instead.
"""

import html.parser
import mimetypes
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import pytest
import yaml

import vaetut
from build_book import code_digest

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"
HOST = "http://book.test/"
CONTENTS = yaml.safe_load((ROOT / "_toc.yml").read_text())
ENTRIES = [entry for part in CONTENTS["parts"] for entry in part["chapters"]]
CHAPTERS = [CONTENTS["root"], *(e["file"] for entry in ENTRIES for e in [entry, *entry.get("sections", [])])]
PAGES = [f"{chapter}.html" for chapter in CHAPTERS]
SCREENS = {"light": 1280, "dark": 390}  # a desk in the daytime, a telephone at night


# The files


@pytest.mark.parametrize("page", ["index.html", *PAGES])
def test_page_is_built(page):
    assert (SITE / page).exists(), "build the book first: make book"


class Page(html.parser.HTMLParser):
    """The links, the things loaded and the anchors of one page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loaded, self.anchors = [], [], {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors |= {values.get("id"), values.get("name")}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in ("script", "img", "iframe", "source") and values.get("src"):
            self.loaded.append(values["src"])
        if tag == "link" and values.get("rel") in ("stylesheet", "preload", "icon"):
            self.loaded.append(values["href"])


@pytest.fixture(scope="module")
def pages():
    return {path.relative_to(SITE).as_posix(): Page(path) for path in SITE.rglob("*.html")}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_pages_and_headings_that_exist(page, pages):
    broken = []
    for link in pages[page].links:
        target = urlsplit(urljoin(HOST + page, link))
        if target.scheme not in ("http", "https") or target.netloc != urlsplit(HOST).netloc:
            continue
        name = unquote(target.path[1:])
        if not (SITE / name).exists() or (
            name in pages and unquote(target.fragment) not in pages[name].anchors
        ):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES)
def test_page_loads_nothing_from_elsewhere(page, pages):
    assert pages[page].loaded
    assert [url for url in pages[page].loaded if urlsplit(url).netloc] == []


@pytest.mark.parametrize("page", PAGES)
def test_page_names_the_code_that_it_was_built_with(page):
    code = f"Built with vaetut {vaetut.__version__}, {code_digest()[:12]}."
    assert code in (SITE / page).read_text(encoding="utf-8"), "the pages are stale: make book"


# The browser


class Visit:
    """One page in the browser, and what went wrong on it."""

    def __init__(self, browser, page, scheme):
        self.wrong = []
        size = {"width": SCREENS[scheme], "height": 900}
        self.context = browser.new_context(viewport=size, color_scheme=scheme)
        self.page = self.context.new_page()
        self.page.route("**/*", self.serve)
        self.page.on("pageerror", lambda error: self.wrong.append(f"page error: {error}"))
        self.page.on("console", lambda m: self.wrong.append(m.text) if m.type == "error" else None)
        self.page.goto(HOST + page, wait_until="load")  # formulas are there already

    def serve(self, route):
        url = route.request.url
        name = unquote(urlsplit(url).path[1:])
        path = SITE / name.removeprefix("vaetut/")  # so the page 404 names its files
        if not url.startswith(HOST):
            self.wrong.append(f"a request to elsewhere: {url}")
            route.abort()
        elif path.is_file():
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            route.fulfill(path=path, content_type=kind)
        else:
            self.wrong.append(f"a file that is not there: {url}")
            route.fulfill(status=404, body="")

    def count(self, script):
        """How many elements of the page's main part the script's condition on `e` holds for."""
        selector, condition = script
        return self.page.evaluate(
            f"[...document.querySelectorAll({selector!r})].filter(e => {condition}).map(e => e.outerHTML.slice(0, 200))"
        )


@pytest.fixture(scope="module", params=[(page, scheme) for page in PAGES for scheme in SCREENS], ids="-".join)
def visit(request, browser):
    visit = Visit(browser, *request.param)
    yield visit
    visit.context.close()


def test_formulas_are_drawn_without_error(visit):
    assert (
        visit.count(("main .math", "!e.querySelector('mjx-container') && !e.closest('mjx-container')")) == []
    )
    assert visit.count(("mjx-merror, [data-mjx-error]", "true")) == []
    assert visit.count(("mjx-mtext", "getComputedStyle(e).color === 'rgb(255, 0, 0)'")) == []
    raw = "[...e.childNodes].some(n => n.nodeType === 3 && /\\$\\$|\\\\\\(|\\\\\\[/.test(n.data))"
    assert visit.count(("main :not(code, pre, pre *, code *, script, style)", raw)) == []


def test_pictures_say_what_they_show(visit):
    assert visit.count(("article canvas[role=img]", "(e.getAttribute('aria-label') ?? '').length < 20")) == []
    assert (
        visit.count(
            (
                "article img",
                "!e.matches('.vaetut-thumbnail') && (e.alt.length < 20 || /[0-9a-f]{16}|_images/.test(e.alt))",
            )
        )
        == []
    )
    assert visit.count(("img", "!e.hasAttribute('alt')")) == []


def test_page_fits_the_screen(visit):
    width = visit.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert width <= 1


def test_page_has_the_reader_s_colors(visit, request):
    scheme = request.node.callspec.params["visit"][1]
    assert visit.page.evaluate("document.documentElement.dataset.theme") == scheme
    red, green, blue = visit.page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    )
    assert (red + green + blue > 600) if scheme == "light" else (red + green + blue < 150)


SHOWN = """root => {
    const canvas = root.querySelector("canvas.vaetut-digit");
    return canvas ? canvas.toDataURL() : root.querySelector("img").src;
}"""


def test_sliders_move_the_picture(visit):
    """Each slider, by the arrow keys and by the mouse; the frames and networks load when a reader comes near."""
    explorers = visit.page.locator("main .vaetut-explorer:visible")
    assert explorers.count() == visit.page.content().count('<div class="vaetut-explorer"')
    for i in range(explorers.count()):
        explorer = explorers.nth(i)
        explorer.scroll_into_view_if_needed()
        explorer.locator(".vaetut-static").wait_for(state="detached")  # its script has come
        sliders = explorer.locator("input[type=range]")
        for j in range(sliders.count()):
            slider = sliders.nth(j)
            slider.scroll_into_view_if_needed()
            slider.focus()
            slider.press("End")
            slider.press("Home")  # not the picture that came with the page
            seen = [explorer.evaluate(SHOWN)]
            slider.press("ArrowRight")
            seen.append(explorer.evaluate(SHOWN))
            box = slider.bounding_box()
            slider.click(position={"x": box["width"] - 4, "y": box["height"] / 2})
            seen.append(explorer.evaluate(SHOWN))
            slider.click(position={"x": 4, "y": box["height"] / 2})
            slider.press("Home")
            assert seen[0] != seen[1], "an arrow key does not move the picture"
            assert seen[2] != explorer.evaluate(SHOWN) == seen[0], "the mouse does not move the picture"
        shown = explorer.locator("img, canvas").filter(visible=True).last
        assert shown.evaluate("e => e.decode ? e.decode().then(() => e.naturalWidth) : e.width") >= 8


def test_explorers_fit_the_screen(visit):
    """All of an explorer, picture and sliders, is in view at once, and its tracks are of equal length."""
    for explorer in visit.page.locator("main .vaetut-explorer:visible").all():
        box = explorer.bounding_box()
        assert (
            box["height"] <= visit.page.viewport_size["height"]
            and box["width"] <= visit.page.viewport_size["width"]
        )
        widths = {round(s.bounding_box()["width"]) for s in explorer.locator("input[type=range]").all()}
        assert len(widths) == 1
        caption = explorer.locator("xpath=ancestor::figure//figcaption")
        if caption.count():
            text = caption.inner_text()
            assert "Try this" in text and text.startswith("Figure "), text


def test_nothing_went_wrong(visit):
    """Last, after all that the other tests did to the page."""
    assert visit.wrong == []


def test_a_page_that_is_wrong_is_refused(browser, tmp_path, monkeypatch):
    """What the tests above look for, they find."""
    monkeypatch.setitem(globals(), "SITE", tmp_path)
    (tmp_path / "page.html").write_text(
        "<html data-theme=dark><main style='width:2000px'><span class=math><mjx-merror>a</mjx-merror></span>"
        "<span class=math><mjx-mtext style='color: red'>a</mjx-mtext></span><span class=math>a</span>"
        "<p>$$a$$</p><article><img src=missing.png><img src=http://example.org/a.png alt='_images/0123.png'>"
        "</article></main></html>"
    )
    wrong = Visit(browser, "page.html", "dark")
    for test in (
        test_formulas_are_drawn_without_error,
        test_pictures_say_what_they_show,
        test_page_fits_the_screen,
    ):
        with pytest.raises(AssertionError):
            test(wrong)
    assert len(wrong.wrong) >= 2
    assert any("missing.png" in text for text in wrong.wrong)
    assert any("example.org" in text for text in wrong.wrong)
    for selector in ("mjx-merror, [data-mjx-error]", "mjx-mtext", "main p"):
        assert wrong.page.locator(selector).count()
    wrong.context.close()


def test_a_page_from_a_disk_has_nothing_to_complain_about(browser):
    """Neither errors nor warnings; the search finds pages, though it cannot show their text."""
    page, said = browser.new_page(), []
    page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    for name in ("book/index.html", "book/05-sgvb.html", "book/api/exact.html"):
        page.goto((SITE / name).as_uri())
        page.evaluate("document.fonts.ready")
    page.goto(f"{(SITE / 'search.html').as_uri()}?q=gumbel")
    page.locator("#search-results li").first.wait_for()
    page.close()
    assert said == []


def test_without_scripts_a_page_has_its_colors(browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((SITE / "book" / "index.html").as_uri())
    link, button = (
        page.locator(selector).first.evaluate(
            "e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]"
        )
        for selector in ("article p a[href*=variational-lower-bound]", ".vaetut-buttons a")
    )
    context.close()
    assert link[0] != "rgb(0, 0, 0)" and button == ["rgb(255, 255, 255)", "rgb(15, 93, 196)"]


def test_an_explorer_also_loads_from_a_disk(browser):
    """The pages are opened as files: no server, no fetch."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    for chapter in ("02-variational-lower-bound", "11-variational-autoencoder"):
        page.goto((SITE / "book" / f"{chapter}.html").as_uri())
        explorer = page.locator("main .vaetut-explorer").first
        explorer.scroll_into_view_if_needed()
        explorer.locator(".vaetut-static").wait_for(state="detached")
        before = explorer.evaluate(SHOWN)
        explorer.locator("input").first.press("ArrowRight")
        assert explorer.evaluate(SHOWN) != before
    page.close()
