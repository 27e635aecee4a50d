"""Every built page on a desk, a tablet and two telephones: nothing is cut, and everyone can read it."""

import re
from functools import partial

import pytest
from axe_playwright_python import sync_playwright as axe
from test_site import PAGES, SITE, Visit

WIDTHS = (1440, 1024, 390, 320)
CHAPTERS = [page for page in PAGES if re.search(r"/\d\d-", page)]
SCRIPT = axe.Axe().axe_script
NAMED = {"rules": {"label-content-name-mismatch": {"enabled": True}}, "resultTypes": ["violations"]}
STILL = "*, ::before, ::after { transition: none !important; }"
COLORS = {"runOnly": ["color-contrast", "link-in-text-block"], "resultTypes": ["violations"]}


@pytest.fixture(scope="module", params=[*PAGES, "404.html"])
def visit(request, browser):
    visit = Visit(browser, request.param, "light")
    visit.name = request.param
    visit.page.add_style_tag(content=STILL)  # a sidebar that is on its way moves the page beside it
    yield visit
    visit.context.close()


def at(visit, width):
    visit.page.set_viewport_size({"width": width, "height": 900})
    return visit


def seen(visit, selector, condition):
    """The elements on the page that have a size and for which the script's condition on `e` holds."""
    return visit.count((selector, f"e.checkVisibility() && e.getClientRects().length && ({condition})"))


def wider_than_the_screen(visit):
    return visit.page.evaluate("document.documentElement.scrollWidth - innerWidth") > 1


def cut_formulas(visit):
    wide = "e.getBoundingClientRect().width > e.parentElement.parentElement.clientWidth + 1"
    return [
        *seen(visit, "mjx-container[display=true]", "e.scrollWidth > e.clientWidth + 1"),
        *seen(visit, "span.math > mjx-container > mjx-math", wide),  # the text for screen readers is wider
    ]


def first_screen(visit):
    """Where the first picture or explorer begins, and where the first section's heading does."""
    return visit.page.evaluate(
        """() => {
          const top = (e) => e.getBoundingClientRect().top + scrollY;
          const pictures = [...document.querySelectorAll("article :is(img, svg, canvas, .vaetut-explorer)")];
          const wide = pictures.filter((e) => e.getBoundingClientRect().width > 60);
          return [wide.map(top)[0], top(document.querySelector("article h2"))];
        }"""
    )


def violations(visit, options, scheme="light"):
    """What axe-core finds wrong, rule by rule, with the first element of each. Formulas have a text of their own."""
    visit.page.emulate_media(color_scheme=scheme)
    # The page follows in a moment, and a color that is on its way is neither the one nor the other.
    visit.page.add_style_tag(content=STILL)
    followed = "scheme => [scheme, undefined].includes(document.documentElement.dataset.theme)"
    visit.page.wait_for_function(followed, arg=scheme)
    if not visit.page.evaluate("'axe' in window"):
        visit.page.evaluate(SCRIPT)
    found = visit.page.evaluate(
        "options => axe.run({exclude: ['mjx-math']}, options).then(r => r.violations)", options
    )
    return [f"{one['id']}, {len(one['nodes'])} times: {one['nodes'][0]['html'][:300]}" for one in found]


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_nothing_is_wider_than_the_screen_and_no_formula_is_cut(visit, scheme):
    visit.page.emulate_media(color_scheme=scheme)
    for width in WIDTHS:
        assert not wider_than_the_screen(at(visit, width)), width
        outside = "e.getBoundingClientRect().right > innerWidth || e.getBoundingClientRect().left < 0"
        assert seen(visit, ".prev-next-area :is(a, p)", outside) == [], width
        if width >= 390:
            assert cut_formulas(visit) == [], width


def test_no_title_of_the_contents_touches_the_border(visit):
    """Neither on a desk nor on a tablet, where the contents stand beside the page."""
    for width in (1440, 1024):
        border = "e.closest('.bd-sidebar-primary').getBoundingClientRect().right"
        text = "(r => (r.selectNodeContents(e), r.getBoundingClientRect().right))(document.createRange())"
        assert seen(at(visit, width), ".bd-links :is(.caption, a)", f"{text} > {border} - 6") == []


def test_pictures_follow_the_scheme(visit):
    """In the dark no picture lies on white paper: figures, and the cards on the first page."""
    at(visit, 1440).page.emulate_media(color_scheme="dark")
    visit.page.wait_for_function("[undefined, 'dark'].includes(document.documentElement.dataset.theme)")
    white = "getComputedStyle(e).backgroundColor === 'rgb(255, 255, 255)'"
    assert seen(visit, "article img", white) == []
    paper = "getComputedStyle(e).filter === 'none'"  # what a script draws is dark on white, too
    assert seen(visit, "article canvas", paper) == []
    visit.page.emulate_media(color_scheme="light")


def test_letters_of_figures_are_large_on_a_phone(visit):
    """The least that a figure may have, letters of 11 pt, are shown 10 pixels large."""
    at(visit, 390)
    drawn = "11 / 72 * (e.closest('.vaetut-explorer') ? 100 : 144)"  # pixels, in a picture as wide as it says
    small = f"{drawn} * e.getBoundingClientRect().width / e.getAttribute('width') < 10"
    assert seen(visit, "article :is(.cell_output, .vaetut-explorer) img", small) == []


def test_a_diff_colors_both_kinds_of_lines(visit):
    """What is taken out and what takes its place, in both schemes; axe-core looks at their contrast."""
    for scheme in ("dark", "light"):
        at(visit, 1440).page.emulate_media(color_scheme=scheme)
        plain = "getComputedStyle(e).color === getComputedStyle(e.closest('pre')).color"
        assert seen(visit, ".highlight-diff :is(.gd, .gi)", plain) == []


def test_what_scrolls_shows_it(visit):
    """On a phone, an edge fades where there is more: code, tables and formulas."""
    at(visit, 390)
    scrolls = "e.scrollWidth > e.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(e).overflowX)"
    assert seen(visit, "article *", f"{scrolls} && getComputedStyle(e).backgroundImage === 'none'") == []


def test_only_the_page_scrolls_down(visit):
    """A box that is a pixel too low would take the finger that scrolls the page."""
    for width in (1440, 390):
        scrolls = "e.scrollHeight > e.clientHeight && /auto|scroll/.test(getComputedStyle(e).overflowY)"
        assert seen(at(visit, width), "article *", scrolls) == [], width


def test_no_word_of_a_table_is_torn_apart(visit):
    """On a phone, a column is as wide as its longest word; only code is divided anywhere."""
    lines = """(text => [...text.matchAll(/[\\p{L}\\d]+/gu)].some(word => {
        const range = document.createRange();
        const node = e.firstChild;
        range.setStart(node, word.index);
        range.setEnd(node, word.index + word[0].length);
        return new Set([...range.getClientRects()].map(r => Math.round(r.top))).size > 1;
    }))(e.firstChild.data)"""
    words = "article td :is(a, p, span, em, strong):not(code *, mjx-container *, .math *)"
    assert seen(at(visit, 390), words, f"e.firstChild?.nodeType === 3 && {lines}") == []


def test_a_table_with_long_cells_is_a_list_on_a_phone(visit):
    at(visit, 390)
    assert seen(visit, "table.vaetut-rows td", "getComputedStyle(e).display !== 'block'") == []


def test_everyone_can_read_it(visit):
    at(visit, 1440)
    assert violations(visit, NAMED) == []
    assert violations(visit, COLORS, "dark") == []
    assert violations(at(visit, 390), COLORS, "dark") == []
    visit.page.emulate_media(color_scheme="light")


def test_folds_have_names_and_formulas_are_no_tab_stops(visit):
    at(visit, 1440)  # where the contents are seen, too
    assert visit.count(("summary", "e.hasAttribute('aria-label') || !e.innerText.trim()")) == []
    assert visit.count(("mjx-container, mjx-container *", "e.tabIndex >= 0")) == []


def test_what_is_seen_first_comes_first(visit):
    """No fold or figure stands above one that comes before it for a keyboard and a screen reader."""
    at(visit, 1440)
    below = "e.getBoundingClientRect().bottom <= e.previousElementSibling?.getBoundingClientRect().top + 1"
    assert seen(visit, "article div.cell > *", below) == []


def test_no_mark_stands_alone_after_code(visit):
    at(visit, 390)
    below = "r.getBoundingClientRect().top >= e.querySelector('code').getBoundingClientRect().bottom - 4"
    alone = f"(r => (r.selectNodeContents(e.lastChild), {below}))(document.createRange())"
    assert seen(visit, "article span.vaetut-together:has(code)", alone) == []


def test_a_chapter_begins_with_its_picture(visit):
    if visit.name not in CHAPTERS:
        pytest.skip("not a chapter")
    picture, heading = first_screen(at(visit, 1440))
    assert picture < 900
    assert heading <= 1300


def test_print_opens_what_is_folded_and_cuts_nothing(visit):
    at(visit, 690)  # the width of A4 between its margins
    visit.page.emulate_media(media="print")
    try:
        assert seen(visit, "article details > :not(summary)", "e.getBoundingClientRect().height === 0") == []
        assert cut_formulas(visit) == []
        assert seen(visit, "article pre", "e.scrollWidth > e.clientWidth + 1") == []
        assert seen(visit, ".vaetut-controls, .bd-sidebar, .copybtn", "true") == []
    finally:
        visit.page.emulate_media(media="screen")


def test_what_is_wrong_is_found(browser, tmp_path, monkeypatch):
    """What the tests above look for, they find."""
    monkeypatch.setattr("test_site.SITE", tmp_path)
    (tmp_path / "page.html").write_text(
        "<html><div class=bd-sidebar-primary style='width: 40px'><p class=bd-links><a>Reparameterization</a></p></div>"
        "<main><article><img style='width: 2000px; margin-top: 950px; background: white' src=data:,>"
        "<div class=cell_output><img width=938 height=400 style='width: 350px' src=data:,></div>"
        "<div class=highlight-diff><pre><span class=gi>+ a</span></pre></div>"
        "<mjx-container display=true style='display: block; width: 100px; overflow: auto'>"
        "<p tabindex=0 style='width: 900px'>a</p></mjx-container><table class='vaetut-rows'><td>a</table>"
        "<table><td style='width: 20px'><p style='width: 20px; overflow-wrap: anywhere'>Reparameterization</p></table>"
        "<div style='overflow: auto; height: 9px'><p style='height: 20px'>a</p></div>"
        "<span class=vaetut-together><code style='display: block'>a</code>)</span>"
        "<div class=cell style='display: flex; flex-direction: column-reverse'><p>a</p><p>b</p></div>"
        "<details><summary aria-label='Toggle'>Check</summary><p>a</p></details><h2 style='margin-top: 900px'>a</h2>"
        "</article></main></html>"
    )
    wrong = Visit(browser, "page.html", "light")
    wrong.name = CHAPTERS[0]
    for test in (
        partial(test_nothing_is_wider_than_the_screen_and_no_formula_is_cut, scheme="dark"),
        test_no_title_of_the_contents_touches_the_border,
        test_pictures_follow_the_scheme,
        test_letters_of_figures_are_large_on_a_phone,
        test_a_diff_colors_both_kinds_of_lines,
        test_what_scrolls_shows_it,
        test_only_the_page_scrolls_down,
        test_no_word_of_a_table_is_torn_apart,
        test_a_table_with_long_cells_is_a_list_on_a_phone,
        test_everyone_can_read_it,
        test_folds_have_names_and_formulas_are_no_tab_stops,
        test_what_is_seen_first_comes_first,
        test_no_mark_stands_alone_after_code,
        test_a_chapter_begins_with_its_picture,
        test_print_opens_what_is_folded_and_cuts_nothing,
    ):
        with pytest.raises(AssertionError):
            test(wrong)
    wrong.context.close()


def test_what_is_wrong_on_a_page_whose_pictures_are_right_is_found(browser, tmp_path, monkeypatch):
    """The second thing that a test above looks for, where the first is in order."""
    monkeypatch.setattr("test_site.SITE", tmp_path)
    (tmp_path / "page.html").write_text(
        "<html><main><article><canvas></canvas></article></main><div class=prev-next-area>"
        "<a href=a style='position: fixed; left: -9px'>Reparameterization</a></div></html>"
    )
    wrong = Visit(browser, "page.html", "light")
    assert not wider_than_the_screen(at(wrong, min(WIDTHS)))
    with pytest.raises(AssertionError, match="Reparameterization"):
        test_nothing_is_wider_than_the_screen_and_no_formula_is_cut(wrong, scheme="light")
    with pytest.raises(AssertionError, match="canvas"):
        test_pictures_follow_the_scheme(wrong)
    wrong.context.close()


# What stands in the head of each page


def head(page):
    return (SITE / page).read_text(encoding="utf-8").partition("</head>")[0]


@pytest.mark.parametrize("page", ["index.html", *PAGES, "404.html"])
def test_page_says_what_it_is_about(page):
    text = head(page)
    (description,) = re.findall(r'<meta name="description" content="([^"]*)"', text)
    assert 20 < len(description) < 320
    assert not re.search(r"\\|\$|&lt;", description)
    for name in ("og:title", "og:description", "og:image", "og:url"):
        assert len(re.findall(f'<meta property="{name}" content="[^"]+"', text)) == 1, name
    (title,) = re.findall(r"<title>(.*?)</title>", text)
    assert len(set(title.split(" | "))) == len(title.split(" | ")), "says something twice"


def test_descriptions_differ():
    found = [re.search(r'name="description" content="([^"]*)"', head(page))[1] for page in PAGES]
    assert len(set(found)) == len(found)


def test_a_chapters_description_is_its_question():
    assert (
        'content="If log p(x) cannot be computed, what can we maximize in its place, and what do we lose?"'
        in head("book/02-variational-lower-bound.html")
    )


def test_the_picture_for_social_networks_has_the_size_that_they_want():
    card = (SITE / "_static" / "card.png").read_bytes()
    assert (int.from_bytes(card[16:20], "big"), int.from_bytes(card[20:24], "big")) == (1200, 630)


def test_the_first_page_has_a_card_for_each_chapter():
    text = (SITE / "book" / "index.html").read_text(encoding="utf-8")
    cards = re.findall(r'<a class="vaetut-card" href="([^"]+)"><img [^>]*src="\.\./([^"]+)"', text)
    assert [f"book/{address}" for address, _ in cards] == CHAPTERS
    assert all((SITE / picture).stat().st_size < 60_000 for _, picture in cards)


def test_the_page_that_is_not_there_leads_home():
    assert 'href="/vaetut/book/index.html"' in (SITE / "404.html").read_text(encoding="utf-8")
