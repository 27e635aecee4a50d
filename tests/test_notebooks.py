"""What keeps stored outputs honest: tools/notebooks.py makes them, nbval refuses any that the code does not give."""

import copy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import book_rules as rules
import notebooks as tool

SANITIZE = Path(__file__).parent / "nbval_sanitize.cfg"
EXPLORER = """\
class Explorer:
    def _repr_html_(self):
        return '<div data-explorer="%s"><input><img src="data:image/png;base64,%s" alt="%s">' % (key, picture, alt)
    def __repr__(self):
        return "Explorer"
key, picture, alt = "0123456789ab", "iVBOR" + 60 * "AbC1+/", "A line"
Explorer()"""


def write(path, notebook):
    nbformat.write(notebook, path)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A notebook fresh from Jupyter, executed twice; the bytes of both results, and the second notebook."""
    path = tmp_path_factory.mktemp("book") / "sample.ipynb"
    cells = [
        new_markdown_cell("# One $x$: a *title*"),
        new_code_cell("import matplotlib.pyplot as plt\nimport torch"),
        new_markdown_cell("## One\n\n$$\na\n$$ (eq-one)"),
        new_code_cell('def verify(label, a, b):\n    print(label, a, b)\n\n\nverify("eq-one", 1, 1)'),
        new_code_cell(
            "plt.plot([0, 1]); plt.gcf()",
            metadata={"mystnb": {"figure": {"name": "fig-x"}}, "collapsed": True},
        ),
        new_code_cell("print('one')\nprint('two')\ntorch.ones(2)"),
        new_code_cell("assert True", metadata={"tags": ["hide-cell"]}),
        new_code_cell(EXPLORER),
        new_markdown_cell("No heading."),
    ]
    write(
        path,
        new_notebook(
            cells=cells, metadata={"title": "x", "kernelspec": {"name": "mine", "display_name": "M"}}
        ),
    )
    results = []
    for _ in range(2):
        notebook = tool.normalize(nbformat.read(path, as_version=4))
        tool.execute(notebook, path.parent)
        write(path, notebook)
        results.append(path.read_bytes())
    return path, results, notebook


def test_executing_twice_changes_no_byte(executed):
    _, (first, second), _ = executed
    assert b"image/png" in first
    assert first == second


def test_the_form_of_an_executed_notebook(executed):
    _, _, notebook = executed
    assert rules.metadata_is_clean(notebook) == rules.outputs_are_clean(notebook) == []
    ids = " ".join(cell.id for cell in notebook.cells)
    assert ids == "one-a-title set-up one verify-one fig-x code-4 code-5 code-6 text-9"
    assert notebook.cells[6].metadata == {
        "tags": ["hide-cell"],
        "cellView": "form",
        "jupyter": {"source_hidden": True},
    }
    assert notebook.cells[5].outputs[0].text == "one\ntwo\n"


def test_readable_ids_are_kept_and_others_made_unique():
    notebook = new_notebook(cells=[new_markdown_cell("# A") for _ in range(4)])
    for cell, cell_id in zip(notebook.cells, ("mine", "a", "3f2a9c1e", "a"), strict=True):
        cell.id = cell_id
    assert [cell.id for cell in tool.normalize(notebook).cells] == ["mine", "a", "a-2", "a-3"]


def test_a_notebook_that_fails_is_left_as_it_was(tmp_path, monkeypatch, capsys):
    path = tmp_path / "fails.ipynb"
    write(path, new_notebook(cells=[new_code_cell("1 / 0")]))
    before = path.read_bytes()
    monkeypatch.setattr(sys, "argv", ["notebooks.py", str(path)])
    monkeypatch.setattr(tool, "write_counts", lambda: None)
    assert tool.main() == 1
    assert "ZeroDivisionError" in capsys.readouterr().out
    assert path.read_bytes() == before


def nbval(path):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(path)]
    command += [
        "--nbval",
        "--nbval-current-env",
        "--nbval-sanitize-with",
        str(SANITIZE),
        "--rootdir",
        str(path.parent),
    ]
    return subprocess.run(command, cwd=path.parent, capture_output=True, text=True).stdout


def test_nbval_refuses_outputs_that_are_not_those_of_the_code(executed, tmp_path):
    """Other bytes of a picture and another key of an explorer are let through, and nothing else."""
    _, _, notebook = executed
    path = tmp_path / "changed.ipynb"
    good = copy.deepcopy(notebook)
    html = good.cells[7].outputs[0].data
    html["text/html"] = html["text/html"].replace("0123456789ab", "ba9876543210").replace("AbC1", "1CbA")
    good.cells[4].outputs[-1].data["image/png"] = "iVBORw0KGgo=\n"
    write(path, good)
    assert "6 passed" in nbval(path)

    bad = copy.deepcopy(good)
    bad.cells[3].outputs[0].text = "eq-one 1 2\n"  # a changed line
    bad.cells[4].outputs = []  # a missing figure
    bad.cells[5].outputs = bad.cells[5].outputs[:1]  # a missing value
    bad.cells[6].source = "assert False"  # an exception
    bad.cells[7].outputs[0].data["text/html"] = html["text/html"].replace(
        "A line", "A curve"
    )  # another alt text
    write(path, bad)
    assert "5 failed, 1 passed" in nbval(path)
