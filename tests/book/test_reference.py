"""The reference: every public name on one page, found in the index, in valid HTML that a phone can show."""

import importlib
import inspect
import re
from collections import defaultdict
from pathlib import Path
from pydoc import locate

import pytest
import yaml
from in_browser import book_page, chromium
from sphinx.util.inventory import InventoryFile

import reference

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"
PAGES = sorted(path.stem for path in (ROOT / "book" / "api").glob("*.md"))
# What a user may import from: the package, its rooms, and the modules that are a room of their own.
ROOMS = [
    "vaetut",
    *(
        f"vaetut.{name}"
        for name in (
            "aevb",
            "bounds",
            "cli",
            "data",
            "distributions",
            "exact",
            "experiments",
            "gradients",
            "information",
            "models",
            "quadrature",
            "reparam",
            "reparam.implicit",
            "teaching.explore",
            "teaching.plots",
            "teaching.verify",
        )
    ),
]


def public_names(room):
    """The names that a module offers: its ``__all__``, or else what it defines."""
    module = importlib.import_module(room)
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == room and callable(value)
    ]
    return getattr(module, "__all__", own)


@pytest.fixture(scope="module")
def pages_of():
    """The pages on which each object is documented, by the object's identity, and constants by their name."""
    with (SITE / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    found = defaultdict(set)
    for kind, names in inventory.items():
        if kind in ("py:class", "py:exception", "py:function", "py:data", "py:module"):
            for name, (_, _, address, _) in names.items():
                page = address.partition("#")[0]
                found[name].add(page)
                if kind != "py:data":
                    found[id(locate(name))].add(page)
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_on_one_page(room, pages_of):
    module = importlib.import_module(room)
    for name in public_names(room):
        value = getattr(module, name)
        lasting = inspect.ismodule(value) or callable(value)
        constants = [f"{room}.{name}", f"{getattr(value, '__module__', '')}.{name}"]
        pages = pages_of[id(value)] if lasting else set()
        for constant in constants:
            pages = pages | pages_of.get(constant, set())
        if (
            inspect.ismodule(value) and not pages
        ):  # a room with pages for its modules, such as plots in teaching
            pages = {
                p for other in pages_of if str(other).startswith(value.__name__) for p in pages_of[other]
            }
        assert len(pages) == 1, f"{room}.{name} is on {sorted(pages) or 'no page'} of the reference"


def test_every_page_is_in_the_contents_and_leads_to_its_chapter():
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    entries = [entry for part in contents["parts"] for entry in part["chapters"]]
    listed = next(entry["sections"] for entry in entries if entry["file"] == "book/api")
    assert sorted(Path(entry["file"]).name for entry in listed) == PAGES
    first = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    for page in PAGES:
        text = (ROOT / "book" / "api" / f"{page}.md").read_text(encoding="utf-8")
        before = text.partition("```")[0]
        chapters = re.findall(r"\]\(\.\./(\d\d-[\w-]+\.ipynb)\)", before)
        assert chapters, f"{page} names no chapter before its first module"
        assert all((ROOT / "book" / chapter).exists() for chapter in chapters)
        assert f"](api/{page}.md)" in first


@pytest.fixture(scope="module")
def index():
    text = (SITE / "book" / "api.html").read_text(encoding="utf-8")
    return re.search(r'<dl class="vaetut-names">.*?</dl>', text, re.S)[0]


def test_the_index_names_everything_once(index, pages_of):
    rows = re.findall(
        r'<a class="reference internal" href="([^"]+)"><code>(\w+)</code></a> <span>([\w.]+)<', index
    )
    names = [f"{module}.{name}" for _, name, module in rows]
    assert len(names) == len(set(names)) > 120
    for address, name, module in rows:
        page, _, anchor = address.partition("#")
        assert f'id="{anchor}"' in (SITE / "book" / (page or "api.html")).read_text(encoding="utf-8")
        assert f"{module}.{name}" in pages_of
    assert [name.lower() for _, name, _ in rows] == sorted(name.lower() for _, name, _ in rows)
    assert "<dd></dd>" not in index, "a name without a sentence"
    assert re.search(r"<code>DATA_DIR_VARIABLE</code>.*\n<dd>.*>VAETUT_DATA_DIR</span></code>", index)


@pytest.mark.parametrize(
    "anchor",
    [
        "vaetut.bounds.elbo.sgvb_b",
        "vaetut.exact.LinearGaussian.fit",
        "vaetut.distributions.Erlang.cdf",
        "vaetut.checks",
        "bounds",
        "training",
        "the-command",
        "verify",
    ],
)
def test_links_to_the_reference_as_one_page_still_lead_somewhere(anchor):
    text = (SITE / "book" / "api.html").read_text(encoding="utf-8")
    assert len(re.findall(f"""id=["']{re.escape(anchor)}["']""", text)) == 1


@pytest.mark.parametrize("page", PAGES)
def test_formulas_are_typeset_equations_linked_and_signatures_valid(page):
    text = (SITE / "book" / "api" / f"{page}.html").read_text(encoding="utf-8")
    assert "\\(" not in text.partition("<article")[2].partition("</article>")[0]
    unlinked = (
        r'(?<!">)<code class="docutils literal notranslate"><span class="pre[^"]*">eq-[\w-]+</span></code>'
    )
    assert re.findall(unlinked, text) == []
    assert not any("<dl" in found or "<dd" in found for found in reference.SIGNATURE.findall(text))
    assert "Alias for field number" not in text


def test_a_signature_becomes_lines():
    made = reference.valid_signatures('<dl><dt class="sig a">f(<dl><dd>a,</dd></dl>)</dt><dd>text</dd></dl>')
    lines = '<span class="sig-parameters"><span class="sig-line">a,</span></span>'
    assert made == f'<dl><dt class="sig a">f({lines})</dt><dd>text</dd></dl>'


def test_an_index_of_two_names():
    name = reference.Name(
        "vaetut.bounds.elbo.sgvb_b", "function", "book/api/bounds-elbo", "vaetut.bounds.elbo.sgvb_b"
    )
    owner = reference.Name(
        "vaetut.exact.LinearGaussian", "class", "book/api/exact", "vaetut.exact.LinearGaussian"
    )
    member = reference.Name("vaetut.exact.LinearGaussian.fit", "method", "book/api/exact", "fit")
    made = reference.index([name, member, owner], "book/")
    assert made.index("LinearGaussian</code>") < made.index("sgvb_b</code>")
    assert 'href="api/bounds-elbo.html#vaetut.bounds.elbo.sgvb_b"' in made
    assert made.count("<dt>") == 2 and "id='fit'" in made
    constant = reference.Name("vaetut.cli.BOOK", "data", "book/api/cli", "vaetut.cli.BOOK", "The `book`.")
    assert "<dd>The <code" in reference.index([constant], "book/")
    train = reference.Name("vaetut.aevb.train.train", "function", "book/api/aevb", "vaetut.aevb.train.train")
    assert "<dd></dd>" not in reference.index([train], "book/"), "the function, not the module of its name"
    assert "\\(" in made, "the formula of the first sentence is left to the typesetter"


@pytest.fixture(scope="module")
def small_phone():
    with chromium() as browser:
        yield book_page(browser, 320)


@pytest.mark.browser
@pytest.mark.parametrize("page", ["api", *(f"api/{page}" for page in PAGES)])
def test_nothing_is_wider_than_a_small_phone(page, small_phone):
    small_phone.goto(f"http://book.test/book/{page}.html", wait_until="load")
    assert small_phone.evaluate("document.documentElement.scrollWidth - innerWidth") <= 1
