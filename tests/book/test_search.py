"""Search in the built book: what comes first, in either spelling, and what is shown of it."""

import re

import pytest
from in_browser import HOST, book_page, chromium

from search import BookSearch, american

PAIRS = [
    ("reparameterisation", "reparameterization"),
    ("reparametrization", "reparameterization"),
    ("reparametrisation", "reparameterization"),
    ("normalise", "normalize"),
    ("normalising", "normalizing"),
    ("maximise", "maximize"),
    ("optimisation", "optimization"),
    ("analyse", "analyze"),
    ("colour", "color"),
    ("behaviour", "behavior"),
    ("neighbours", "neighbors"),
    ("grey", "gray"),
    ("centre", "center"),
    ("centred", "centered"),
    ("labelled", "labeled"),
    ("modelling", "modeling"),
    ("catalogue", "catalog"),
    ("practise", "practice"),
    ("licence", "license"),
]


@pytest.mark.parametrize(("british", "us"), PAIRS)
def test_two_spellings_have_one_stem(british, us):
    assert BookSearch({}).stem(british) == BookSearch({}).stem(us)


@pytest.mark.parametrize(
    "word", ["gamma", "four", "hour", "noise", "bias", "pathwise", "exercises", "precise"]
)
def test_other_words_stay(word):
    assert american(word) == word


class Searcher:
    """The search page in the browser."""

    def __init__(self, page):
        self.page, self.wrong = page, []
        page.on("pageerror", lambda error: self.wrong.append(str(error)))

    def results(self, query):
        """Address and text of each result, best first, once all have come."""
        self.page.goto(f"{HOST}search.html?q={query.replace(' ', '+')}", wait_until="load")
        summary = "document.querySelector('.search-summary')?.textContent ?? ''"
        self.page.wait_for_function(f"/finished|did not match/.test({summary})")
        self.page.wait_for_load_state("networkidle")
        return self.page.evaluate(
            "[...document.querySelectorAll('#search-results li')].map(li =>"
            " [li.querySelector('a').getAttribute('href'), li.textContent])"
        )


@pytest.fixture(scope="module")
def searcher():
    with chromium() as browser:
        yield Searcher(book_page(browser, 1200))


def places(results, start):
    return [i for i, (address, _) in enumerate(results) if re.match(start, address)]


RAW = re.compile(r"\\[a-zA-Z]{2,}|\$\$|\\\(|\{eq\}|\b(?:mathbf|mathcal|theta_)\b")  # TeX or MyST, not typeset
CHAPTER, REFERENCE = r"book/\d\d-", r"book/api"


@pytest.mark.browser
@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("reparameterisation", "book/06-reparameterization-trick.html"),
        ("reparametrization trick", "book/06-reparameterization-trick.html"),
        ("kl divergence", "book/03-entropy-cross-entropy-kl.html"),
        ("inverse cdf", "book/07-inverse-cdf.html"),
        ("sgvb", "book/05-sgvb.html"),
    ],
)
def test_the_chapter_about_it_comes_first(searcher, query, first):
    results = searcher.results(query)
    assert results[0][0].startswith(first)
    assert places(results, REFERENCE) and max(places(results, CHAPTER)) < min(places(results, REFERENCE))


@pytest.mark.browser
@pytest.mark.parametrize(
    ("british", "us"), [("normalise", "normalize"), ("colour", "color"), ("maximise", "maximize")]
)
def test_both_spellings_find_the_same_chapters(searcher, british, us):
    found = [
        {address.partition("?")[0].partition("#")[0] for address, _ in searcher.results(word)}
        for word in (british, us)
    ]
    chapters = [{page for page in pages if re.match(CHAPTER, page)} for pages in found]
    assert chapters[0] == chapters[1] != set()


@pytest.mark.browser
def test_a_name_leads_to_its_entry(searcher):
    assert "book/api/bounds-elbo.html#vaetut.bounds.elbo.sgvb_b" in searcher.results("sgvb_b")[0][0]


@pytest.mark.browser
@pytest.mark.parametrize("query", ["divergence", "evidence", "jensen", "pathwise"])
def test_what_is_shown_has_no_tex(searcher, query):
    results = searcher.results(query)
    assert len(results) > 3
    assert any(len(text) > 100 for _, text in results), "there are no snippets"
    for address, text in results:
        assert not re.search(r"\\[a-zA-Z]{2,}|\$\$|\\\(|\{eq\}|\\tag|\b(?:mathbf|mathcal|theta_)\b", text), (
            address,
            text,
        )
    assert searcher.wrong == []
