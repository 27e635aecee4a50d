"""Every number in the prose that is a result is printed by its chapter, or has an expression or a source."""

from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import prose_numbers
import stored_form

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "book").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_numbers_in_the_prose_have_a_source(path):
    table = prose_numbers.load_table().get(path.stem, {})
    assert prose_numbers.unaccounted(stored_form.read(path), table) == []


def test_the_table_names_chapters_that_exist():
    assert set(prose_numbers.load_table()) <= {path.stem for path in NOTEBOOKS}


def chapter(text, printed="", code="x = 0.8"):
    output = new_output("stream", name="stdout", text=printed)
    return new_notebook(cells=[new_markdown_cell(text), new_code_cell(code, outputs=[output])])


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("The gap is 0.35 nats.", "gap 0.3541"),
        ("A scale of 0.8.", ""),
        ("It falls by 35 %.", "share 0.352"),
        ("Of $-2.14$ nats", "left −2.1386"),
        ("1,797 digits", "1797 images"),
        ("section 2.4 of arXiv 1312.6114, eqs. 3.1 and 3.2", ""),
        ("`0.37` and $$0.37$$ (eq-a)", ""),
    ],
)
def test_numbers_that_are_accounted_for(text, printed):
    assert prose_numbers.unaccounted(chapter(text, printed), {}) == []


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("The gap is 0.36 nats.", "gap 0.3541"),
        ("It falls by 36 %.", "share 0.352"),
        ("1,798 digits", "1797 images"),
        ("Of $-2.15$ nats", "left −2.1386"),
    ],
)
def test_numbers_that_are_not(text, printed):
    assert len(prose_numbers.unaccounted(chapter(text, printed), {})) == 1


@pytest.mark.parametrize(
    ("place", "problems"),
    [("opening", 0), ("far before", 2), ("before", 1), ("section", 0), ("after", 1), ("far", 2)],
)
def test_a_number_is_printed_at_its_place(place, problems):
    def code(name):
        output = new_output("stream", name="stdout", text="gap 0.3541" if name == place else "0.1234")
        return new_code_cell("x = 1", outputs=[output])

    cells = [
        code("opening"),
        new_markdown_cell("## One"),
        code("far before"),
        code("before"),
        new_markdown_cell("## Two\n\nThe gap is 0.354 nats."),
        code("next"),
        new_markdown_cell("### A part of it"),
        code("section"),
        new_markdown_cell("The gap was 0.35 nats."),
        new_markdown_cell("## Three"),
        code("after"),
        code("far"),
    ]
    # There are two numbers: "before" is nearest to the first of them, "after" to the second.
    assert len(prose_numbers.unaccounted(new_notebook(cells=cells), {})) == problems


def test_entries_of_the_table():
    text = chapter("About 0.98 of it, and 86.8 nats.")
    good = {"0.98": "math.exp(-0.02)", "86.8": {"source": "Burda et al. 2016, table 1"}}
    assert prose_numbers.unaccounted(text, good) == []
    assert len(prose_numbers.unaccounted(text, good | {"0.98": "math.exp(-0.1)"})) == 1
    assert len(prose_numbers.unaccounted(text, good | {"86.8": {"source": " "}})) == 1
    assert len(prose_numbers.unaccounted(text, good | {"1.5": "1.5"})) == 1
