"""Each check of the book is made to fail: the files, and the tool that tries them, tools/wrong_versions.py.

All versions of all chapters are tried in test_wrong_versions_1.py to _4.py, which can run side by side.
"""

import ast
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import stored_form
import wrong_versions as tool

CHAPTERS = tool.chapters()


def name(path):
    return path.stem


def test_every_file_belongs_to_a_chapter():
    assert {path.stem for path in tool.WRONG.glob("*.toml")} <= set(map(name, CHAPTERS))


@pytest.mark.parametrize("chapter", CHAPTERS, ids=name)
def test_every_label_has_two_wrong_versions(chapter):
    versions = tool.read_versions(tool.versions_file(chapter))
    assert tool.labels_with_fewer_than_two(stored_form.read(chapter), versions) == []


def test_each_chapter_is_tried_in_one_of_the_files():
    found = sorted(Path(__file__).parent.glob("test_wrong_versions_*.py"))
    tried = [chapter for path in found for chapter in import_module(path.stem).CHAPTERS]
    assert sorted(tried) == [chapter for chapter in CHAPTERS if tool.versions_file(chapter).exists()]


# The tool notices what it is there for

CHAPTER = """
from vaetut import verify
import torch
torch.manual_seed(0)
a, seen = 2.0, []
---
# a plain one, which also changes what later cells see; a**2 twice
seen.append(a)
%matplotlib inline
verify("eq-square", a * a, a**2)
---
draw = torch.randn(()).item()
verify("eq-draw", draw, 1.5409960746765137, tolerance=1e-6)
verify("eq-after", len(seen), 1)
---
# @title Code of this figure
raise RuntimeError("a cell that no check needs is not run")
---
# @title Code of this table
unit = 1
---
display(a)
print(verify("eq-unit", 1 * 1, unit))
---
raise RuntimeError("a cell after the last check of interest is not run")
"""
WRONG = r"""
[eq-square]
"twice" = ["a * a", "3 * a"]
"the same at two" = ["a * a", "a + a"]
"only a comment" = ["a plain one", "a simple one"]
"nothing at all" = ["a * a", "a * a"]
"not there" = ["a / a", "a"]
"there twice" = ["a**2", "a**2"]
"no name" = ["a * a", "b * a"]
"no Python" = ["a * a", "a *"]
"changes the state" = ["seen.append(a)", "seen.clear(); torch.randn(9); a = 5; seen += [1, 2, 3]"]
"leaves at once" = ["seen.append(a)", "import os; os._exit(3)"]
"never ends" = ["seen.append(a)", "while True: pass"]
[eq-draw]
"half" = ["draw = torch.randn(())", "draw = 0.5 * torch.randn(())"]
[eq-after]
"the other check in the cell" = ["draw = torch.randn(())", "draw = 0.5 * torch.randn(())"]
"one too many" = ["len(seen)", "1 + len(seen)"]
[eq-unit]
"two" = ["1 * 1", "1 + 1"]
[eq-nowhere]
"x" = ["a", "b"]
"""
EXPECTED = {
    "twice": "rejected",
    "the same at two": "survived",
    "only a comment": "changes nothing",
    "nothing at all": "changes nothing",
    "not there": "old text is not in the cell",
    "there twice": "old text stands 2 times in the cell",
    "no name": "raises something else",
    "no Python": "not Python",
    "changes the state": "survived",
    "leaves at once": "no answer",
    "never ends": "no answer",
    "half": "rejected",
    "the other check in the cell": "another label's check raised",
    "one too many": "rejected",
    "two": "rejected",
    "x": "no cell verifies this label",
}


@pytest.fixture
def sample(tmp_path):
    cells = [new_code_cell(source.strip()) for source in CHAPTER.split("---")]
    nbformat.write(new_notebook(cells=[new_markdown_cell("# A title"), *cells]), tmp_path / "sample.ipynb")
    (tmp_path / "sample.toml").write_text(WRONG)
    return tmp_path / "sample.ipynb", tmp_path / "sample.toml"


def test_what_came_of_each_version(sample, monkeypatch):
    monkeypatch.setenv("VAETUT_VERSION_SECONDS", "2")
    found = {outcome.name: outcome.status for outcome in tool.outcomes_of(*sample)}
    assert found == EXPECTED


@pytest.mark.parametrize(
    "changed, start", [("a = 1\nb = 3", 1), ("b = 2", 0), ("a = 1\nb = 2\nc = 3", 2), ("a = 1", 1)]
)
def test_a_version_begins_where_it_first_differs(changed, start):
    assert tool.first_change(ast.parse("a = 1  # a comment\nb = 2").body, ast.parse(changed).body) == start


def test_a_cell_that_a_function_needs_is_run():
    cells = [
        "# @title Code of this figure\nsize, color = 1, 'blue'",
        "# @title Code of this table\ncolor = 'red'",
        "def scaled(x):\n    return size * x",
        "color = 'green'\nprint(color)\nverify('eq-a', scaled(1), 1)",
    ]
    assert tool.cells_needed(new_notebook(cells=[new_code_cell(cell) for cell in cells]), {3}) == [0, 2, 3]


def test_a_chapter_that_fails_as_it_stands_is_reported(sample, monkeypatch):
    monkeypatch.setenv("VAETUT_VERSION_SECONDS", "2")  # one of the versions does not end
    chapter, versions = sample
    chapter.write_text(chapter.read_text().replace("a**2", "a**3"))
    with pytest.raises(RuntimeError, match="as it stands, raises VerificationError"):
        tool.outcomes_of(chapter, versions)


def test_labels_without_enough_versions(sample):
    chapter, versions = sample
    notebook = stored_form.read(chapter)
    notebook.cells.append(
        new_markdown_cell("$$\na\n$$ (eq-after)\n\n$$\nb\n$$ (eq-unit)\n\n$$\nc\n$$ (eq-new)")
    )
    assert tool.labels_with_fewer_than_two(notebook, tool.read_versions(versions)) == ["eq-unit", "eq-new"]


@pytest.mark.parametrize(
    "text", ['a = ["x", "y"]', '[eq-a]\nx = "y"', '[eq-a]\nx = ["y"]', '[eq-a]\nx = ["", "y"]']
)
def test_an_entry_of_another_form_is_refused(tmp_path, text):
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(ValueError, match="must be"):
        tool.read_versions(tmp_path / "a.toml")
