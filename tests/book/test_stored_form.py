"""Notebooks hold numbers where authors write labels: one form gives the other, and both agree with the pages."""

import json
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import numbering
import stored_form

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((ROOT / "book").glob("[0-9]*.ipynb"))
NUMBERS = {"eq-a": "2.1", "eq-b": "2.2", "eq-far": "7.12"}

PAIRS = {
    "display": ("$$\na\n$$ (eq-a)", "$$\na\n\\tag{2.1} % eq-a\n$$"),
    "two displays": (
        "$$\na\n$$ (eq-a)\n\nand\n\n$$\nb\n$$ (eq-b)",
        "$$\na\n\\tag{2.1} % eq-a\n$$\n\nand\n\n$$\nb\n\\tag{2.2} % eq-b\n$$",
    ),
    "reference": ("By eq. {eq}`eq-far`, so", "By eq. (7.12), so"),
    "references": (
        "eqs. {eq}`eq-a`, {eq}`eq-b` and {eq}`eq-far`",
        "eqs. (2.1), (2.2) and (7.12)",
    ),
    "range": ("eqs. {eq}`eq-a` to {eq}`eq-far`.", "eqs. (2.1) to (7.12)."),
    "another's equation": ("eq. (10) of AEVB, and (2.1) alone", "eq. (10) of AEVB, and (2.1) alone"),
    "unknown": ("$$\na\n$$ (eq-new) and {eq}`eq-new`", "$$\na\n$$ (eq-new) and {eq}`eq-new`"),
}


@pytest.mark.parametrize("case", PAIRS)
def test_each_form_gives_the_other(case):
    written, kept = PAIRS[case]
    assert stored_form.stored(written, NUMBERS) == kept
    assert stored_form.authored(kept, NUMBERS) == written
    assert stored_form.stored(kept, NUMBERS) == kept


@pytest.fixture
def notebook():
    figure = new_code_cell("plot()", id="fig-line", metadata={"mystnb": {"figure": {"caption": "A line."}}})
    check = new_code_cell(
        "verify(...)", id="check", outputs=[new_output("stream", name="stdout", text="✓ eq-a    left 1\n")]
    )
    return new_notebook(cells=[new_markdown_cell("$$\na\n$$ (eq-a)", id="text"), check, figure])


def test_a_file_shows_numbers_and_captions_in_every_viewer(notebook):
    file = nbformat.reads(stored_form.writes(notebook, "2", NUMBERS), as_version=4)
    assert file.cells[0].source == "$$\na\n\\tag{2.1} % eq-a\n$$"
    assert file.cells[1].outputs[0].text == "✓ (2.1) eq-a    left 1\n"
    assert (file.cells[3].id, file.cells[3].source) == ("caption-of-fig-line", "*Figure 2.1.* A line.")
    assert notebook.cells[0].source == "$$\na\n$$ (eq-a)"  # what was given is left alone


def test_captions_are_repeated_once_and_go_with_their_figure(notebook, monkeypatch):
    monkeypatch.setattr(stored_form, "numbers", lambda: NUMBERS)
    text = stored_form.writes(notebook, "2", NUMBERS)
    again = stored_form.reads(text)
    assert [cell.id for cell in again.cells] == ["text", "check", "fig-line"]
    assert stored_form.writes(again, "2", NUMBERS) == text
    del again.cells[2]
    assert "Figure 2.1" not in stored_form.writes(again, "2", NUMBERS)


def test_numbers_follow_the_order_of_the_displays_and_references_follow_them(tmp_path, monkeypatch, capsys):
    (tmp_path / "book").mkdir()
    monkeypatch.setattr(stored_form, "ROOT", tmp_path)
    monkeypatch.setattr(stored_form, "NUMBERS", tmp_path / "equations.json")
    one, two = tmp_path / "book" / "01-one.ipynb", tmp_path / "book" / "02-two.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell("$$\na\n$$ (eq-a)", id="a")]), one)
    nbformat.write(new_notebook(cells=[new_markdown_cell("By eq. {eq}`eq-a`, x.", id="b")]), two)
    stored_form.number_all()
    assert "By eq. (1.1), x." in two.read_text()
    assert json.loads((tmp_path / "equations.json").read_text()) == {"eq-a": "1.1"}
    # A new display before it, written as an author does, into the stored file.
    changed = nbformat.read(one, as_version=4)
    changed.cells.insert(0, new_markdown_cell("$$\nb\n$$ (eq-b)", id="c"))
    nbformat.write(changed, one)
    stored_form.number_all()
    assert "By eq. (1.2), x." in two.read_text()
    capsys.readouterr()
    stored_form.number_all()
    assert capsys.readouterr().out == ""  # a second time changes nothing


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem[:2])
def test_the_books_notebooks_are_stored(path):
    text = path.read_text(encoding="utf-8")
    again = stored_form.writes(stored_form.reads(text), stored_form.chapter_of(path), stored_form.numbers())
    assert again == text, "write them anew: python tools/stored_form.py"
    shown = "\n".join(
        cell.source for cell in nbformat.reads(text, as_version=4).cells if cell.cell_type == "markdown"
    )
    assert not re.search(r"\(eq-[\w-]+\)|\{eq\}", shown)


def test_numbers_are_those_of_the_displays():
    expected = {
        label: f"{stored_form.chapter_of(path)}.{n}"
        for path in CHAPTERS
        for n, label in enumerate(stored_form.labels_of(stored_form.read(path)), 1)
    }
    assert stored_form.numbers() == expected
    assert len(expected) >= 280


def test_numbers_are_those_of_the_built_pages():
    pages = {path: path.read_text(encoding="utf-8") for path in (ROOT / "_build/html/book").glob("*.html")}
    assert pages, "build the book first: make book"
    found = {
        match[2]: match[1]
        for path, text in pages.items()
        if numbering.chapter_of(path) is not None
        for match in re.finditer(
            r'<span class="eqno">\(([\d.]+)\)<a class="headerlink" href="#equation-(eq-[\w-]+)"', text
        )
    }
    assert found == stored_form.numbers()
    for path, text in pages.items():
        assert "{eq}" not in text and "caption-of-" not in text, path
        assert not re.search(r"eqs?\. \(\d+\.\d+\)", text), f"{path}: a reference without its link"
