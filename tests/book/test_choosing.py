"""Every decimal on the page on choosing is printed by a chapter that its row links to."""

import re
from pathlib import Path

import nbformat
import pytest

import prose_numbers

BOOK = Path(__file__).resolve().parents[2] / "book"
DECIMAL = re.compile(r"(?<![\w.,])[-−]?\d+\.\d+(?![\w.])")


def rows(text):
    """The rows of the tables that name a chapter: their text without code and links, and the chapters."""
    for line in text.splitlines():
        chapters = re.findall(r"\]\((\d\d-[\w-]+\.ipynb)\)", line)
        if line.startswith("|") and chapters:
            yield re.sub(r"`[^`]*`|\]\([^)]*\)", "", line), chapters


def unprinted(text, read):
    return [
        f"{number} in: {row[:60]}"
        for row, chapters in rows(text)
        for number in DECIMAL.findall(row)
        if not any(
            prose_numbers.agrees(number.lstrip("-−"), value)
            for chapter in chapters
            for value in prose_numbers.outputs(read(chapter)) + prose_numbers.literals(read(chapter))
        )
    ]


def test_the_page():
    text = (BOOK / "choosing.md").read_text(encoding="utf-8")
    assert len(list(rows(text))) > 20
    assert unprinted(text, lambda name: nbformat.read(BOOK / name, as_version=4)) == []


def test_each_row_has_a_chapter():
    text = (BOOK / "choosing.md").read_text(encoding="utf-8")
    tables = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    heads = len(re.findall(r"^\| --- ", text, re.M))
    assert len(tables) - heads == len(list(rows(text)))


@pytest.mark.parametrize(("number", "wrong"), [("−2.305", 0), ("0.5140", 0), ("0.5141", 1)])
def test_a_wrong_number_is_noticed(number, wrong):
    output = nbformat.v4.new_output("stream", text="gap 0.5140, -2.3048")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1", outputs=[output])])
    assert len(unprinted(f"| a | {number} ([13](13-x.ipynb)) |", lambda name: notebook)) == wrong
