"""What keeps stored outputs honest: tools/notebooks.py makes them, nbval refuses any that the code does not give."""

import base64
import copy
import io
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image

import book_rules as rules
import fresh_outputs
import notebooks as tool

SANITIZE = Path(__file__).parent / "nbval_sanitize.cfg"
TOOLS = Path(tool.__file__).parent


def png(pixels):
    """The pixels, [height, width, 3], as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels.astype("uint8")).save(file, "png")
    return file.getvalue()


def line(row, thickness=2, color=0):
    """A picture of a horizontal line on white."""
    pixels = np.full((240, 320, 3), 255)
    pixels[row : row + thickness] = color
    return pixels


def encoded(pixels):
    return base64.b64encode(png(pixels)).decode()


PICTURE = encoded(line(100))
OTHER = encoded(line(104))
EXPLORER = f"""\
class Explorer:
    def _repr_html_(self):
        return '<div data-explorer="%s"><input><img src="data:image/png;base64,%s" alt="%s">' % (key, picture, alt)
    def __repr__(self):
        return "Explorer"
key, picture, alt = "0123456789ab", "{PICTURE}", "A line"
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
    command += ["-p", "fresh_outputs"]
    command += [
        "--nbval",
        "--nbval-current-env",
        "--nbval-sanitize-with",
        str(SANITIZE),
        "--rootdir",
        str(path.parent),
    ]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(TOOLS), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(command, cwd=path.parent, capture_output=True, text=True, env=env).stdout


def test_nbval_refuses_outputs_that_are_not_those_of_the_code(executed, tmp_path):
    """Other bytes of the same picture and another key of an explorer are let through, and nothing else."""
    _, _, notebook = executed
    path = tmp_path / "changed.ipynb"
    good = copy.deepcopy(notebook)
    html = good.cells[7].outputs[0].data
    html["text/html"] = html["text/html"].replace("0123456789ab", "ba9876543210")
    figure = good.cells[4].outputs[-1].data
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(figure["image/png"]))).convert("RGB")).astype(
        int
    )
    figure["image/png"] = encoded((drawn + 3).clip(0, 255))
    write(path, good)
    assert "6 passed" in nbval(path)

    bad = copy.deepcopy(good)
    bad.cells[3].outputs[0].text = "eq-one 1 2\n"  # a changed line
    bad.cells[4].outputs[-1].data["image/png"] = encoded(drawn[::-1])  # a line that falls
    bad.cells[5].outputs = bad.cells[5].outputs[:1]  # a missing value
    bad.cells[6].source = "assert False"  # an exception
    bad.cells[7].outputs[0].data["text/html"] = html["text/html"].replace(
        "A line", "A curve"
    )  # another alt text
    write(path, bad)
    assert "5 failed, 1 passed" in nbval(path)

    bad = copy.deepcopy(good)
    bad.cells[4].outputs = []  # a missing figure
    bad.cells[7].outputs[0].data["text/html"] = html["text/html"].replace(
        PICTURE, OTHER
    )  # a frame of other code
    write(path, bad)
    assert "2 failed, 4 passed" in nbval(path)


@pytest.mark.parametrize(
    "stored, why",
    [
        (line(100), ""),
        (line(100) + 60 * (np.arange(240) == 100)[:, None, None], ""),
        (line(101), "0.83% of the pixels differ"),
        (line(100, thickness=1), "0.42% of the pixels differ"),
        (line(100, color=(0, 0, 200)), "0.83% of the pixels differ"),
        (line(100)[:-1], "320 x 240 pixels, and 320 x 239 are stored"),
    ],
    ids=["same", "an edge rounded otherwise", "moved", "thinner", "another color", "smaller"],
)
def test_pictures_that_differ(stored, why):
    assert fresh_outputs.difference(png(line(100)), png(stored)) == why


DRAWING = (
    "[[640,340],\"<path d='m1 2'/>\",[\"<path d='m500 1500l500-1000 2000 1000' stroke='#123456'/>\"],[[0]]]"
)


@pytest.mark.parametrize(
    "stored, why",
    [
        (DRAWING, ""),
        (DRAWING.replace("1500l", "1502l"), ""),  # a fifth of a pixel
        (DRAWING.replace("1500l", "1520l"), "of the numbers differ"),
        (DRAWING.replace("#123456", "#123457"), "other colors"),
        (DRAWING.replace("500-1000 2000 1000", "500-1000"), "letters, and"),
    ],
    ids=["same", "rounded otherwise", "moved", "another color", "a point less"],
)
def test_drawings_that_differ(stored, why):
    def cell(drawing):
        page = f'<div></div><script>\n(() => {{}}\n)("0123456789ab",\n[["a"]],\n{drawing});\n</script>'
        return [{"data": {"text/html": page}}]

    found = fresh_outputs.stale_pictures(cell(DRAWING), cell(stored))
    assert len(found) == bool(why) and why in "".join(found)


def test_what_is_no_picture_differs():
    assert fresh_outputs.difference(png(line(100)), b"PNG") == "one of them is no picture"


def test_every_picture_of_a_cell_is_compared():
    def cell(*frames):
        page = f'<img src="data:image/png;base64,{frames[0]}"><script>{list(frames)}</script>'
        return [{"data": {"text/html": page}}, {"data": {"image/png": frames[-1] + "\n"}}, {"text": "x"}]

    stale = fresh_outputs.stale_pictures
    assert stale(cell(PICTURE, OTHER), cell(PICTURE, OTHER)) == []
    assert stale(cell(PICTURE, OTHER, OTHER), cell(PICTURE, PICTURE, OTHER)) == [
        "picture 3 of 5: 1.67% of the pixels differ"
    ]
    assert stale(cell(PICTURE, OTHER), cell(PICTURE)) == ["4 pictures, and 3 are stored"]
