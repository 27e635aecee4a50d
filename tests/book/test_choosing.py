"""Every decimal on the page on choosing is printed at the place in a chapter that its row names."""

import re
from pathlib import Path

import nbformat
import pytest

import prose_numbers

BOOK = Path(__file__).resolve().parents[2] / "book"
DECIMAL = re.compile(r"(?<![\w.,])[-−]?\d+\.\d+(?![\w.])")
# ([5](05-sgvb.ipynb), `eq-sgvb-a`, common slips): a chapter and the places in it
SOURCE = re.compile(r"\(\[\d+\]\((\d\d-[\w-]+\.ipynb)\)([^)]*)\)")


def rows(text):
    """The rows of the tables that name a chapter: their text without code and links, and (chapter, places)."""
    for line in text.splitlines():
        sources = [(chapter, places(after)) for chapter, after in SOURCE.findall(line)]
        if line.startswith("|") and sources:
            yield re.sub(r"`[^`]*`|\]\([^)]*\)", "", line), sources


def places(text):
    return [place.strip(" `") for place in text.split(",") if place.strip()]


def cells_at(notebook, place):
    """The code cells at a place: one with this id, label or figure's name, or those under a heading."""
    found, level = [], None
    for cell in notebook.cells:
        text = cell.source if cell.cell_type == "markdown" else ""
        for marks, heading in re.findall(r"^(#+) (.+)$", text, re.M):
            if level is not None and len(marks) <= level:
                level = None
            if heading.lower().removeprefix("deeper: ").startswith(place.lower()):
                level = len(marks)
        figure = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
        here = level is not None or place in (cell.get("id"), figure) or f'"{place}"' in cell.source
        if cell.cell_type == "code" and here:
            found.append(cell)
    return found


def unprinted(text, read):
    problems = []
    for row, sources in rows(text):
        known = []
        for chapter, names in sources:
            for place in names:
                cells = cells_at(read(chapter), place)
                if not cells:
                    problems.append(f"{chapter} has no {place}: {row[:60]}")
                at = nbformat.v4.new_notebook(cells=cells)
                known += prose_numbers.outputs(at) + prose_numbers.literals(at)
        problems += [
            f"{number} in: {row[:60]}"
            for number in DECIMAL.findall(row)
            if not any(prose_numbers.agrees(number.lstrip("-−"), value) for value in known)
        ]
    return problems


def test_the_page():
    text = (BOOK / "choosing.md").read_text(encoding="utf-8")
    assert len(list(rows(text))) > 20
    assert unprinted(text, lambda name: nbformat.read(BOOK / name, as_version=4)) == []


def test_each_row_has_a_chapter():
    text = (BOOK / "choosing.md").read_text(encoding="utf-8")
    tables = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    heads = len(re.findall(r"^\| --- ", text, re.M))
    assert len(tables) - heads == len(list(rows(text)))


@pytest.mark.parametrize(
    ("number", "place", "wrong"),
    [
        ("−2.305", "`eq-a`", 0),
        ("0.5140", "the gap", 0),
        ("0.5141", "`eq-a`", 1),
        ("0.5140", "`fig-b`", 1),  # printed by another cell
        ("0.5140", "the end", 1),
        ("0.5140", "`eq-c`", 2),  # no such place
    ],
)
def test_a_wrong_number_or_place_is_noticed(number, place, wrong):
    def code(source, text, **metadata):
        output = nbformat.v4.new_output("stream", text=text)
        return nbformat.v4.new_code_cell(source, outputs=[output], metadata=metadata)

    cells = [
        nbformat.v4.new_markdown_cell("## The gap"),
        code('verify("eq-a", 1, 1)', "gap 0.5140, -2.3048"),
        nbformat.v4.new_markdown_cell("## The end"),
        code("x = 1", "0.1234", mystnb={"figure": {"name": "fig-b"}}),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    assert len(unprinted(f"| a | {number} ([13](13-x.ipynb), {place}) |", lambda name: notebook)) == wrong
