"""The book as a whole: every notebook keeps the rules of tools/book_rules.py, and the pages fit together.

The second half shows each rule a notebook that breaks it, since a check that cannot fail is worse than none.
"""

import base64
import copy
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import book_rules as rules
import stored_form
from notebooks import COUNT, count_equations, counts
from vaetut.teaching.style import WIDTH
from vaetut.teaching.vector import DPI
from wrong_versions import count_versions

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
NOTEBOOKS = sorted(BOOK.glob("*.ipynb"))
PAGES = sorted([*NOTEBOOKS, *BOOK.glob("*.md")])


def read(path):
    return stored_form.read(path)


def name(path):
    return path.name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_notebook_keeps_the_rules(path):
    assert rules.problems_of(read(path)) == []


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_between_pages_resolve(path):
    assert rules.broken_links(path, rules.page_text(path)) == []


@pytest.mark.parametrize("path", sorted(BOOK.glob("*.md")), ids=name)
def test_equations_with_a_number_stand_in_notebooks_only(path):
    """Nothing would verify them on a page without code; the first page's example has a test of its own."""
    text = rules.page_text(path)
    assert [label for label in rules.displays(text) if label] == []
    assert rules.macros_are_known(text) == []


def test_no_label_and_no_figure_name_stands_twice():
    labels = Counter(found.label for path in NOTEBOOKS for found in rules.equations(read(path)))
    figures = Counter(
        cell.metadata["mystnb"]["figure"]["name"]
        for path in NOTEBOOKS
        for cell in read(path).cells
        if "name" in cell.metadata.get("mystnb", {}).get("figure", {})
    )
    assert [label for label, n in (labels + figures).items() if n > 1] == []


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_references_name_equations_that_exist(path):
    labels = {found.label for notebook in NOTEBOOKS for found in rules.equations(read(notebook))}
    named = set(re.findall(r"\{eq\}`([^`]+)`", rules.page_text(path)))
    assert named - labels == set()


def test_the_contents_list_every_page():
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = [contents["root"], *(entry["file"] for part in contents["parts"] for entry in part["chapters"])]
    assert sorted(listed) == sorted(str(path.relative_to(ROOT).with_suffix("")) for path in PAGES)


@pytest.mark.parametrize("page", ["README.md", "book/index.md"])
def test_the_count_of_equations_is_stated_and_right(page):
    labels, verified = count_equations()
    assert labels == verified
    found = [match[0] for match in COUNT.finditer((ROOT / page).read_text(encoding="utf-8"))]
    assert found == [counts()]
    assert found[0].endswith(f"{count_versions()} wrong versions rejected")


# Each rule refuses what it is there for


def good_notebook():
    """The smallest notebook that keeps every rule."""
    picture = {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure size 640x480 with 1 Axes>"}
    figure = {"name": "fig-line", "caption": "A line that rises from left to right."}
    alt = "A straight line that rises from the lower left to the upper right."
    notebook = new_notebook(metadata=copy.deepcopy(rules.KERNEL))
    notebook.cells = [
        new_markdown_cell("# 2 · A title\n\nA question.", id="a-title"),
        new_code_cell(rules.SET_UP, id="set-up"),
        new_code_cell(
            "line()",
            id="fig-line",
            outputs=[new_output("execute_result", data=picture, execution_count=2)],
            metadata={"mystnb": {"image": {"alt": alt}, "figure": figure}},
        ),
        new_markdown_cell("## A step\n\nIn words:\n\n$$\n\\log a \\le a\n$$ (eq-log)", id="a-step"),
        new_code_cell(
            'verify("eq-log", 0.0, 1.0, relation="<=")',
            id="verify-log",
            outputs=[new_output("stream", name="stdout", text="✓ eq-log    0x10 of /1\n")],
        ),
        new_markdown_cell("By eq. {eq}`eq-log`, `{role}` and `$$` in code are no matter.", id="text-6"),
        new_markdown_cell("## Common slips\n\n> **Common slip.** None.", id="common-slips"),
        new_markdown_cell("## Exercises\n\nThree of them.", id="exercises"),
        new_markdown_cell("## Remember this\n\n- A line.", id="remember-this"),
        new_markdown_cell("## Where to read on\n\nIn a book.", id="where-to-read-on"),
    ]
    for n in (1, 2, 3, 4):
        exercise = new_markdown_cell(f"### Exercise {n} ★: a number\n\nFind ${n}$.", id=f"exercise-{n}")
        solution = new_code_cell(
            f"answer = {n}\nassert answer == {n}", id=f"solution-{n}", metadata={"tags": ["hide-cell"]}
        )
        notebook.cells[-2:-2] = [exercise, solution]
    for n, (_, cell) in enumerate(rules.cells(notebook, "code"), 1):
        cell.execution_count = n
    return notebook


@pytest.mark.parametrize(
    "heading, release",
    [
        ("## 0.2.0 - unreleased", ""),
        ("## 0.2.0 - 2026-12-01", "@v0.2.0"),
        ("## [0.2.0] (2026-12-01)", "@v0.2.0"),
    ],
)
def test_a_released_book_installs_its_release(heading, release):
    changelog = f"# Changelog\n\n{heading}\n\nText.\n\n## 0.1.0 - 2026-10-01\n"
    assert rules.release_of(changelog) == release
    assert f"pip install --quiet git+{rules.REPOSITORY}{release}\n" in rules.set_up(release)


def test_letters_are_ten_pixels_large_on_a_phone():
    """As wide as a phone shows a picture: the least letters of the widest ones."""
    assert rules.LEAST_LETTERS / 72 * 144 * 350 / rules.WIDEST_PICTURE >= 10
    assert rules.LEAST_LETTERS / 72 * DPI * 350 / rules.WIDEST_EXPLORER >= 10
    assert rules.WIDEST_EXPLORER == DPI * WIDTH


def test_the_good_notebook_is_good():
    assert rules.problems_of(good_notebook()) == []


def cell(notebook, cell_id):
    return next(c for c in notebook.cells if c.id == cell_id)


def edit(cell_id, old, new):
    """A change of a cell's text."""

    def change(notebook):
        assert old in cell(notebook, cell_id).source
        cell(notebook, cell_id).source = cell(notebook, cell_id).source.replace(old, new)

    return change


def put(cell_id, path, value):
    """A change of a cell's field, given by its dotted path."""

    def change(notebook):
        *parents, last = path.split(".")
        node = cell(notebook, cell_id)
        for key in parents:
            node = node[int(key)] if key.isdigit() else node[key]
        assert last in node
        node[last] = value

    return change


def png(width):
    """The first bytes of a PNG file of this width."""
    header = b"\x89PNG\r\n\x1a\n" + bytes([0, 0, 0, 13]) + b"IHDR" + width.to_bytes(4) + bytes(4)
    return base64.b64encode(header + bytes(9)).decode("ascii")


def move_up(cell_id):
    """Put a cell before the one that stands before it."""

    def change(notebook):
        i = notebook.cells.index(cell(notebook, cell_id))
        notebook.cells[i - 1], notebook.cells[i] = notebook.cells[i], notebook.cells[i - 1]

    return change


def move_down(cell_id):
    """Put a cell behind the one that stands after it."""

    def change(notebook):
        i = notebook.cells.index(cell(notebook, cell_id))
        notebook.cells[i], notebook.cells[i + 1] = notebook.cells[i + 1], notebook.cells[i]

    return change


BROKEN = {
    "no verify": (edit("verify-log", "verify", "print"), "eq-log has 0 calls of verify"),
    "another label": (edit("verify-log", "eq-log", "eq-lot"), 'verify("eq-lot") has no equation'),
    "verified twice": (edit("fig-line", "line()", 'verify("eq-log", 1, 1)'), "eq-log has 2 calls"),
    "verified before": (move_up("verify-log"), "which is not after it in its section"),
    "verified in another section": (
        lambda notebook: notebook.cells.insert(4, new_markdown_cell("## Next", id="next")),
        "which is not after it in its section",
    ),
    "label in a variable": (
        edit("verify-log", '"eq-log"', "label"),
        "verify needs its label as a plain string",
    ),
    "label twice": (edit("a-step", "In words:", "$$\na\n$$ (eq-log)"), "eq-log labels 2 equations"),
    "display without label": (edit("a-step", " (eq-log)", ""), "a display without a label"),
    "display in a line": (edit("a-step", "$$\n\\log", "$$ \\log"), "on lines of their own"),
    "undefined macro": (edit("a-step", "\\log", "\\bm"), "\\bm is not in"),
    "macro of one's own": (edit("exercise-1", "$1$", "$\\newcommand{\\E}{E} \\E$"), "\\newcommand is not in"),
    "no alt text": (put("fig-line", "metadata.mystnb.image.alt", ""), "needs mystnb.image.alt"),
    "file name as alt text": (
        put("fig-line", "metadata.mystnb.image.alt", "../_images/3f2a.png"),
        "image.alt",
    ),
    "no caption": (put("fig-line", "metadata.mystnb.figure.caption", "Line"), "needs mystnb.figure.caption"),
    "HTML picture without alt": (
        put("fig-line", "outputs.0.data", {"text/html": '<img src="x"><input>', "text/plain": "x"}),
        "a picture in HTML without a real alt text",
    ),
    "small letters": (edit("fig-line", "line()", "line(fontsize=9)"), "letters of 9 pt"),
    "small letters in a style": (
        edit("fig-line", "line()", 'line({"fontsize": 10.5})'),
        "letters of 10.5 pt",
    ),
    "a wide picture": (
        put("fig-line", "outputs.0.data", {"image/png": png(938), "text/plain": "x"}),
        "a picture 938 pixels wide, more than",
    ),
    "a wide explorer": (
        put("fig-line", "outputs.0.data", {"text/html": f'<img alt="{"a" * 30}" width="640">'}),
        "an explorer 640 pixels wide, more than 500",
    ),
    "nothing to look at": (put("fig-line", "outputs", []), "neither a figure nor an explorer"),
    "two titles": (edit("a-step", "## A step", "# 3 · A step"), "the one title"),
    "no slips": (edit("common-slips", "Common slips", "Notes"), "no section '## Common slips'"),
    "nowhere to read on": (
        edit("where-to-read-on", "Where to", "What to"),
        "no section '## Where to read on'",
    ),
    "no set-up": (put("set-up", "id", "imports"), "must be the set-up cell of every notebook"),
    "another set-up": (edit("set-up", "manual_seed(0)", "manual_seed(1)"), "must be the set-up cell"),
    "a value hushed": (edit("solution-1", "assert answer == 1", "assert answer == 1;"), "ends with ';'"),
    "three exercises": (edit("exercise-3", "### Exercise 3", "More"), "3 exercises"),
    "an exercise without a star": (edit("exercise-3", " ★", ""), "3 exercises"),
    "no number": (edit("a-title", "2 · ", ""), "must begin with the chapter's number"),
    "nothing to remember": (edit("remember-this", "Remember", "Forget"), "no section '## Remember this'"),
    "a picture that comes late": (move_down("fig-line"), "neither a figure nor an explorer before"),
    "no solution": (
        put("solution-2", "metadata.tags", []),
        "3 solutions (hide-cell code cells) for 4 exercises",
    ),
    "solution without check": (edit("solution-2", "assert ", ""), "a solution without a check"),
    "not run in order": (put("fig-line", "execution_count", 7), "execution counts must be 1 to 7"),
    "an error": (
        put("fig-line", "outputs", [new_output("error", ename="NameError", evalue="", traceback=[])]),
        "an error, NameError",
    ),
    "stderr": (put("verify-log", "outputs.0.name", "stderr"), "writes to stderr"),
    "an address": (put("verify-log", "outputs.0.text", "<f at 0x7f3a5c0>"), "a memory address, 0x7f3a5c0"),
    "a machine's path": (put("verify-log", "outputs.0.text", "in /home/me/x.py"), "a path of one machine"),
    "a live widget": (
        put("fig-line", "outputs.0.data", {"application/vnd.jupyter.widget-view+json": {}}),
        "a live widget",
    ),
    "times in metadata": (
        put("fig-line", "metadata", {"execution": {"iopub.status.idle": "x"}}),
        "metadata execution",
    ),
    "kernel of one machine": (
        lambda notebook: notebook.metadata.update(title="x"),
        "notebook metadata must be",
    ),
    "an id that says nothing": (put("text-6", "id", "3f2a9c1e"), "id 3f2a9c1e is not readable"),
    "an id twice": (put("text-6", "id", "a-step"), "id a-step stands 2 times"),
    "an empty cell": (put("solution-1", "source", " "), "empty"),
    "a directive": (edit("common-slips", "> **", "```{note}\nx\n```\n> **"), "a MyST directive"),
    "a role": (edit("text-6", "{eq}", "{cite}"), "the MyST role {cite}"),
    "a bare reference": (edit("text-6", "By eq. ", "By "), "so that the sentence survives"),
    "a number of no equation": (edit("text-6", "{eq}`eq-log`", "(99.1)"), "no equation of the book has"),
    "an empty link": (edit("text-6", "By", "By [](#a-step)"), "a link without a text"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_notebook_is_refused(case):
    break_it, message = BROKEN[case]
    notebook = good_notebook()
    break_it(notebook)
    assert any(message in problem for problem in rules.problems_of(notebook)), rules.problems_of(notebook)


@pytest.mark.parametrize("target", ["nowhere.md", "page.md#no-such-heading", "#nor-here"])
def test_a_broken_link_is_refused(tmp_path, target):
    page = tmp_path / "page.md"
    page.write_text("# A title\n\n## The *second* part\n")
    good = (
        "[a](page.md), [b](page.md#a-title), [c](#the-second-part), [d](https://example.org), `[e](code.md)`"
    )
    assert rules.broken_links(page, good) == []
    assert len(rules.broken_links(page, f"{good} and [f]({target})")) == 1
