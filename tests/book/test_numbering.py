"""Numbers by chapter, and formulas and pages made light: what the tools make of small pages."""

from pathlib import Path

import pytest
from fontTools.ttLib import TTFont

import light_pages
import numbering
import typeset

SITE = Path(__file__).resolve().parents[2] / "_build" / "html"
HEAD = '<div class="math"><span class="eqno">({})<a class="headerlink" href="#equation-{}">#</a></span>\\[a\\]</div>'


@pytest.fixture
def site(tmp_path):
    (tmp_path / "book").mkdir()
    chapter = (
        HEAD.format(17, "eq-a")
        + HEAD.format(18, "eq-b")
        + '<a class="reference internal" href="#equation-eq-b">(18)</a><pre>✓ eq-b    left 1</pre>'
        + '<span class="caption-number">Fig. 9 </span><span class="caption-number">Fig. 10 </span>'
    )
    (tmp_path / "book" / "02-bound.html").write_text(chapter)
    reference = (
        '<code class="docutils literal notranslate"><span class="pre vaetut-together">eq-a</span></code>'
        '<code class="docutils literal notranslate"><span class="pre">eq-none</span></code>'
    )
    (tmp_path / "book" / "api.html").write_text(reference)
    return tmp_path


def test_numbers_by_chapter(site):
    assert numbering.number(site) == 2
    chapter = (site / "book" / "02-bound.html").read_text()
    assert '<span class="eqno">(2.1)' in chapter and '<span class="eqno">(2.2)' in chapter
    assert '<a class="reference internal" href="#equation-eq-b">(2.2)</a><pre>' in chapter
    assert '✓ <a class="reference internal" href="#equation-eq-b">(2.2)</a> eq-b    left 1' in chapter
    assert "Figure 2.1 " in chapter and "Figure 2.2 " in chapter and "Fig. " not in chapter
    reference = (site / "book" / "api.html").read_text()
    assert 'href="02-bound.html#equation-eq-a"><code' in reference
    assert reference.count("<a ") == 1


def test_formulas_are_typeset_and_a_wrong_one_ends_the_build():
    made, css = typeset.run([(r"\log p_\theta(\mathbf x)", True), ("a < b", False)])
    assert all(html.startswith("<mjx-container") and "<math" in html for html in made)
    assert 'display="true"' in made[0] and "@font-face" in css
    with pytest.raises(RuntimeError, match="undefined"):
        typeset.run([(r"\undefined a", True)])


def test_tex_is_found_in_what_sphinx_makes():
    assert typeset.parts("\\(a &lt; b\\)") == ("a < b", False)
    assert typeset.parts('<span class="eqno">(1)</span>\\[a\n= b\\]') == ("a\n= b", True)
    assert typeset.parts("no formula") is None
    page = '<head></head><span class="math notranslate nohighlight">\\(a\\)</span>'
    made = typeset.page_with(page, {("a", False): "<mjx-container/>"}, "../")
    assert '<span class="math notranslate nohighlight"><mjx-container/></span>' in made
    assert 'href="../_static/formulas.css"' in made


def test_pictures_but_the_first_are_lazy_and_the_script_of_icons_goes():
    script = '<script defer src="_static/scripts/fontawesome.js?digest=1"></script>\n'
    page = script + "<img src=a><article><img src=b><img src=c>"
    light = light_pages.lighten_page(page)
    assert "fontawesome" not in light
    assert light.endswith('<img src=a><article><img src=b><img loading="lazy" decoding="async" src=c>')


LIMITS = {"index": 500, "chapter": 700}  # kilobytes, gzipped, on a first visit
EXPLORERS = 150  # what all those of a page add when a reader comes near


@pytest.mark.browser
def test_the_fonts_of_formulas_have_every_character():
    css = (SITE / typeset.STYLE).read_text(encoding="utf-8")
    fonts = [TTFont(path) for path in (SITE / typeset.FONTS).glob("*.woff2")]
    kept = {code for font in fonts for code in font.getBestCmap() or ()}
    assert len(typeset.characters(css)) > 100
    assert typeset.characters(css) <= kept


@pytest.mark.browser
def test_pages_are_light():
    pages = [path for path in (SITE / "book").glob("*.html") if path.name != "404.html"]
    assert pages, "build the book first: make book"
    for page in pages:
        weight = sum(light_pages.weight(SITE, page).values())
        assert weight <= 1000 * LIMITS.get(page.stem, LIMITS["chapter"]), page.name
        assert light_pages.later(SITE, page) <= 1000 * EXPLORERS, page.name
        assert "data:image" not in page.read_text(encoding="utf-8"), f"{page.name} holds a picture"
