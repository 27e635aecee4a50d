"""The two forms of a notebook's equations: what authors write, and what stands in the file.

    python tools/stored_form.py    # number the equations anew, and write what follows from it

An author writes MyST, which knows an equation by its label::

    $$                                          By eq. {eq}`eq-bound` …
    a = b
    $$ (eq-bound)

JupyterLab, Colab and GitHub would show the label and the role as they stand. So the file has the chapter's number of
the equation, with the label in a comment of TeX, and a plain reference, which all of them and the book show alike::

    $$                                          By eq. (2.1) …
    a = b
    \\tag{2.1} % eq-bound
    $$

The same holds for captions, which stand in a figure's metadata: the file has a cell after the figure that says
*Figure 2.1.* and the caption, which only the book leaves out. `read` gives the first form, `writes` the second.
Either may be edited: numbers follow from the order of the displays, and vaetut/teaching/equations.json, from which
`verify` takes them too, says which number is which label.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from vaetut._support import files

ROOT = Path(__file__).resolve().parent.parent
NUMBERS = ROOT / "vaetut" / "teaching" / "equations.json"
CAPTION = "caption-of-"  # how the id of a cell begins that repeats a caption

WRITTEN = re.compile(r"^\$\$ \((eq-[\w-]+)\)$", re.M)
STORED = re.compile(r"^\\tag\{[\d.]+\} % (eq-[\w-]+)\n\$\$$", re.M)
ROLE = re.compile(r"\{eq\}`(eq-[\w-]+)`")
PLAIN = re.compile(r"\beqs?\. \(\d+\.\d+\)(?:(?:,? and | to |, )\(\d+\.\d+\))*")
CHECKED = re.compile(r"✓ (?:\(\d+\.\d+\) )?(eq-[\w-]+)")


def numbers() -> dict[str, str]:
    """The number of each label, as it was when the notebooks were last written."""
    return json.loads(NUMBERS.read_text(encoding="utf-8")) if NUMBERS.exists() else {}


def authored(text: str, numbers: dict[str, str]) -> str:
    """Markdown as an author writes it: labels after displays, roles for references."""
    labels = {number: label for label, number in numbers.items()}

    def role(match: re.Match[str]) -> str:
        number = match[0][1:-1]
        return f"{{eq}}`{labels[number]}`" if number in labels else match[0]

    text = STORED.sub(r"$$ (\1)", text)
    return PLAIN.sub(lambda m: re.sub(r"\(\d+\.\d+\)", role, m[0]), text)


def stored(text: str, numbers: dict[str, str]) -> str:
    """Markdown as every viewer shows it: tags in displays, plain references."""
    text = WRITTEN.sub(lambda m: f"\\tag{{{numbers[m[1]]}}} % {m[1]}\n$$" if m[1] in numbers else m[0], text)
    return ROLE.sub(lambda m: f"({numbers[m[1]]})" if m[1] in numbers else m[0], text)


def read(path: Path) -> NotebookNode:
    return reads(path.read_text(encoding="utf-8"))


def reads(text: str) -> NotebookNode:
    """A notebook as its author wrote it, from the text of a file."""
    notebook = nbformat.reads(text, as_version=4)
    notebook.cells = authored_cells(notebook.cells, numbers())
    return notebook


def authored_cells(cells: list[Any], numbers: dict[str, str]) -> list[Any]:
    """Cells without repeated captions, Markdown with labels; changes them in place."""
    kept = [cell for cell in cells if not cell.get("id", "").startswith(CAPTION)]
    for cell in kept:
        if cell["cell_type"] == "markdown":
            cell["source"] = authored("".join(cell["source"]), numbers)
    return kept


def writes(notebook: NotebookNode, chapter: str, numbers: dict[str, str]) -> str:
    """The text of a notebook's file, from the notebook as its author wrote it."""
    made, figures = [], 0
    for cell in notebook.cells:
        cell = nbformat.from_dict(cell)
        made.append(cell)
        if cell.cell_type == "markdown":
            cell.source = stored(cell.source, numbers)
            continue
        for output in cell.get("outputs", []):
            if "text" in output:
                output.text = CHECKED.sub(lambda m: f"✓ {mark(m[1], numbers)}", output.text)
        caption = cell.metadata.get("mystnb", {}).get("figure", {}).get("caption")
        if caption and chapter:
            figures += 1
            repeated = nbformat.v4.new_markdown_cell(f"*Figure {chapter}.{figures}.* {caption.strip()}")
            repeated.id = f"{CAPTION}{cell.id}"
            made.append(repeated)
    whole = nbformat.from_dict({**notebook, "cells": made})
    return nbformat.writes(whole).rstrip("\n") + "\n"


def renumbered(text: str) -> str:
    """A text with the present numbers in the lines of `verify` that it shows."""
    known = numbers()
    return CHECKED.sub(lambda m: f"✓ {mark(m[1], known)}", text)


def mark(label: str, numbers: dict[str, str]) -> str:
    """What `verify` prints for a label: its number, if it has one, and itself."""
    return f"({numbers[label]}) {label}" if label in numbers else label


def chapter_of(path: Path) -> str:
    """The number of a chapter's notebook as it is printed; nothing for another notebook."""
    found = re.match(r"(\d\d)-", path.name)
    return str(int(found[1])) if found else ""


def write(path: Path, notebook: NotebookNode) -> bool:
    """Write a notebook's file if its text changes; says whether it did."""
    new = writes(notebook, chapter_of(path), numbers())
    if path.exists() and path.read_text(encoding="utf-8") == new:
        return False
    files.atomically(path, lambda part: part.write_text(new, encoding="utf-8"))
    return True


def number_all() -> None:
    """Number the equations of all chapters in their order, and write what follows from it."""
    paths = sorted((ROOT / "book").glob("[0-9]*.ipynb"))
    notebooks = {
        path: read(path) for path in paths
    }  # all of them by the old numbers, before there are new ones
    new = {
        label: f"{chapter_of(path)}.{n}"
        for path, notebook in notebooks.items()
        for n, label in enumerate(labels_of(notebook), 1)
    }
    text = json.dumps(new, indent=1) + "\n"
    if not NUMBERS.exists() or NUMBERS.read_text(encoding="utf-8") != text:
        files.atomically(NUMBERS, lambda part: part.write_text(text, encoding="utf-8"))
    for path, notebook in notebooks.items():
        if write(path, notebook):
            print(f"{path}: numbers and captions written")


def labels_of(notebook: NotebookNode) -> list[str]:
    """The labels of a notebook's displays, in order."""
    return [
        label
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for label in WRITTEN.findall(cell.source)
    ]


if __name__ == "__main__":
    number_all()
    sys.exit(0)
