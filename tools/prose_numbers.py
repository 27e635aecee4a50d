"""Numbers in the prose: each result must be printed by the chapter, or have an expression or a source.

    python tools/prose_numbers.py 02        # numbers of chapter 2 that nothing accounts for

A number counts as a result if it has a decimal point, a percent sign or a thousands separator. It is accounted for by

- an output of code at its place that rounds to it (or its hundredth, for a percentage);
- a literal in code at its place: a definition such as σ = 0.8;
- an entry in tests/book/numbers.toml, in the table of the chapter: ``"0.98" = "math.exp(-0.02)"`` is an expression
  that is evaluated (with math, torch and vaetut) and must round to the number, and
  ``"86.8" = { source = "Burda et al. 2016, table 1" }`` names where it can be read.

Its place is the section (from one heading ## to the next), the chapter's opening before the first of them, and the code
cell nearest before and after.
"""

import ast
import io
import math
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

import stored_form

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "tests" / "book" / "numbers.toml"
NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.\d+|\d+(?=\s?\\?%))"
# What looks like a result and is the name of a place: sections, equations, arXiv numbers, versions.
PLACE = re.compile(
    r"(?:sections?|appendix|chapters?|eqs?\.|equations?|figures?|fig\.|tables?|arxiv|version|python|torch|pages?|vol\.?)"
    r"[:\s(]*[A-Z]?\.?\d[\d.]*(?:\s*(?:,|and|to|or|–|-)\s*[A-Z]?\.?\d[\d.]*)*",
    re.I,
)
PRINTED = re.compile(r"(?<![\w.])[-−+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?", re.I)


def prose(notebook: NotebookNode) -> list[str]:
    """The text of each markdown cell without displays, code, links' addresses and the names of places."""
    texts = []
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        text = re.sub(r"^```.*?^```|\$\$.*?\$\$(?:\s*\([\w:-]+\))?", "", cell.source, flags=re.M | re.S)
        text = re.sub(r"`[^`]*`|\]\([^)]*\)|https?://\S+|core \d+ min, all \d+ min", "", text)
        texts.append(PLACE.sub("", text.replace("{,}", ",").replace(r"\,", "")))
    for cell in notebook.cells:
        myst = cell.metadata.get("mystnb", {})
        texts += [str(myst.get("figure", {}).get("caption", "")), str(myst.get("image", {}).get("alt", ""))]
    return texts


def places(notebook: NotebookNode) -> Iterator[tuple[NotebookNode, NotebookNode]]:
    """Each cell, and the code cells at its place, both as a notebook."""
    cells, section, sections = notebook.cells, 0, []
    for cell in cells:
        section += cell.cell_type == "markdown" and bool(re.search(r"^## ", cell.source, re.M))
        sections.append(section)
    for here, cell in enumerate(cells):
        code = [i for i, other in enumerate(cells) if other.cell_type == "code"]
        near = {*[i for i in code if i < here][-1:], *[i for i in code if i > here][:1]}
        at = [cells[i] for i in code if i in near or sections[i] in (0, sections[here])]
        yield NotebookNode(cells=[cell]), NotebookNode(cells=at)


def results(notebook: NotebookNode) -> list[str]:
    """The numbers in the prose that are results, in order, each once."""
    found = [m for text in prose(notebook) for m in re.findall(rf"(?<![\w.,]){NUMBER}\s?\\?%?", text)]
    return list(dict.fromkeys(re.sub(r"[\s\\]", "", number) for number in found))


def outputs(notebook: NotebookNode) -> list[float]:
    """Every number that the chapter's code prints."""
    texts = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            texts += [output.get("text", ""), data.get("text/plain", "")]
            html = data.get("text/html", "")
            if "base64" not in html:
                texts.append(re.sub(r"<[^>]+>", " ", html))
    return [value for text in texts for value in map(as_number, PRINTED.findall(text)) if value is not None]


def literals(notebook: NotebookNode) -> list[float]:
    """Every numeric literal in the chapter's code."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            source = re.sub(r"^\s*[%!].*$", "pass", cell.source, flags=re.M)
            try:
                tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
            except (tokenize.TokenError, IndentationError):
                continue
            found += [
                abs(float(ast.literal_eval(t.string)))
                for t in tokens
                if t.type == tokenize.NUMBER and "j" not in t.string.lower()
            ]
    return found


def as_number(text: str) -> float | None:
    try:
        return abs(float(text.replace(",", "").replace("−", "-")))
    except ValueError:
        return None


def agrees(number: str, value: float) -> bool:
    """Whether ``value`` rounds to the number as it is written; a percentage may be given as a share."""
    plain = number.rstrip("%").replace(",", "")
    digits = len(plain.partition(".")[2])
    scales = (1.0, 100.0) if number.endswith("%") else (1.0,)
    # A half in the last digit may be rounded either way.
    return any(abs(abs(value) * scale - float(plain)) <= 0.5000001 * 10**-digits for scale in scales)


def evaluate(expression: str) -> float:
    import torch

    import vaetut.experiments

    return float(eval(expression, {"math": math, "torch": torch, "vaetut": vaetut}))


def unaccounted(notebook: NotebookNode, table: dict[str, Any]) -> list[str]:
    """What is wrong with the numbers of a chapter, a line each."""
    problems = []
    for number, entry in table.items():
        if isinstance(entry, str):
            value = evaluate(entry)
            if not agrees(number, value):
                problems.append(f"{number}: its expression {entry!r} gives {value!r}")
        elif not str(entry.get("source", "")).strip():
            problems.append(f"{number}: its entry in numbers.toml must be an expression or have a source")
    for cell, code in places(notebook):
        # An integer literal is no source for a decimal: 0.5 written as 1 / 2 is, and that stands in the table.
        known = outputs(code) + literals(code)
        problems += [
            f"{number} in {cell.cells[0].id}: no output or literal at its place, and numbers.toml has no entry"
            for number in results(cell)
            if number not in table and not any(agrees(number, value) for value in known)
        ]
    problems += [
        f"{number}: in numbers.toml, but not in the chapter"
        for number in table
        if number not in results(notebook)
    ]
    return problems


def load_table() -> dict[str, dict[str, Any]]:
    return tomllib.loads(TABLE.read_text(encoding="utf-8")) if TABLE.exists() else {}


def main() -> int:
    table, found = load_table(), 0
    for path in sorted((ROOT / "book").glob(f"{sys.argv[1] if sys.argv[1:] else ''}*.ipynb")):
        for problem in unaccounted(stored_form.read(path), table.get(path.stem, {})):
            print(f"{path.stem}: {problem}")
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
