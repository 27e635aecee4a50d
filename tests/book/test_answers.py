"""The checkers of the exercises accept right answers of several forms, and say of tempting wrong ones what is wrong."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

import answers

pytestmark = pytest.mark.book
CHAPTERS = sorted((Path(__file__).resolve().parents[2] / "book").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_right_answers_pass_and_wrong_ones_get_their_sentence(chapter):
    if answers.read(chapter):
        problems = [tried for tried in answers.outcomes_of(chapter) if tried.problem]
        assert problems == []


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_every_checker_is_tried(chapter):
    table = answers.read(chapter)
    assert set(table) == set(answers.checkers(chapter))
    for checker, entries in table.items():
        assert entries.get("right"), f"{checker} has no right answer"
        assert entries.get("wrong"), f"{checker} has no wrong answer"


def test_what_a_checker_does_wrong_is_noticed(tmp_path, monkeypatch):
    chapter = tmp_path / "01-small.ipynb"
    source = "def check_two(answer):\n    assert answer != -2, 'the sign'\n    assert answer == 2, f'{answer} is not 2'"
    nbformat.write(new_notebook(cells=[new_code_cell(source)]), chapter)
    table = """
[check_two]
right = ["2", "answer = 1 + 1", "4 / 2", "3"]
[check_two.wrong]
"the sign" = ["-2", "the sign"]
"another message" = ["1", "the sign"]
"accepted" = ["2.0", "anything"]
"fails" = ["1 / 0", "anything"]
"""
    monkeypatch.setattr(answers, "ANSWERS", tmp_path)
    (tmp_path / "01-small.toml").write_text(table)
    import sys

    before = sys.modules["__main__"]
    try:
        tried = answers.try_all(chapter)
    finally:
        sys.modules["__main__"] = before
    found = {one.name: one.problem for one in tried}
    assert [found[f"right {n}"] for n in (1, 2, 3)] == ["", "", ""]
    assert found["right 4"] == "is right, and refused: 3 is not 2"
    assert found["the sign"] == ""
    assert found["another message"] == "gets another message: 1 is not 2"
    assert found["accepted"] == "is wrong, and accepted"
    assert found["fails"].startswith("raises ZeroDivisionError")
