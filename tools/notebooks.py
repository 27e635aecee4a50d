"""Execute the book's notebooks in place, so that running it twice changes no byte.

    python tools/notebooks.py                                           # all of them
    python tools/notebooks.py book/02-variational-lower-bound.ipynb     # or these
    python tools/notebooks.py --counts                                  # none, only counts and numbers

Outputs and execution counts are replaced, and the file is brought into a standard form: readable cell ids, no metadata
except what the book needs, no times, no paths. A notebook that fails is left as it was. At the end the counts of
equations and of their wrong versions in README.md and book/index.md are brought up to date.
"""

import os
import re
import sys
import time
from pathlib import Path

# The same environment for every kernel, whether or not make set it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
os.environ.pop("MPLBACKEND", None)

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

import book_rules as rules
import stored_form
from vaetut._support import files
from wrong_versions import count_versions

ROOT = Path(__file__).resolve().parent.parent
COUNT = re.compile(r"\b\d+ equations, \d+ verified(, \d+ wrong versions rejected)?")


def main() -> int:
    if sys.argv[1:] == ["--counts"]:
        stored_form.number_all()
        write_counts()
        return 0
    stored_form.number_all()
    paths = [Path(name) for name in sys.argv[1:]] or sorted((ROOT / "book").glob("*.ipynb"))
    failed = 0
    for path in paths:
        old = path.read_text(encoding="utf-8")
        notebook = normalize(stored_form.reads(old))
        start = time.monotonic()
        try:
            execute(notebook, path.parent)
        except CellExecutionError as error:
            failed += 1
            print(f"{path}: FAILED, left as it was\n{error}")
            continue
        new = stored_form.writes(notebook, stored_form.chapter_of(path), stored_form.numbers())
        write(path, new, old)
        print(
            f"{path}: {time.monotonic() - start:.1f} s, {'unchanged' if new == old else 'written'}",
            flush=True,
        )
    write_counts()
    return 1 if failed else 0


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Run all cells in a fresh kernel; outputs and execution counts go into the notebook."""
    client = NotebookClient(
        notebook,
        timeout=1200,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    notebook.metadata = nbformat.from_dict(rules.KERNEL)  # the kernel has added its version


def normalize(notebook: NotebookNode) -> NotebookNode:
    """The notebook without outputs, in the book's one form."""
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = nbformat.from_dict(rules.KERNEL)
    readable = {cell.id for cell in notebook.cells if rules.is_readable(cell.get("id", ""))}
    seen: set[str] = set()
    first_code = next((cell for _, cell in rules.cells(notebook, "code")), None)
    for i, cell in enumerate(notebook.cells):
        if first_code is not None and cell is first_code:
            cell.id = "set-up"
            if "import vaetut" in cell.source:
                cell.source = rules.SET_UP
        elif cell.get("id") not in readable or cell.id in seen:
            cell.id = unique(readable_id(notebook, i), readable | seen)
        seen.add(cell.id)
        cell.metadata = nbformat.from_dict(
            {k: v for k, v in cell.metadata.items() if k in rules.CELL_METADATA}
        )
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if first_code is not None and cell is first_code:
                cell.metadata["tags"] = ["hide-input"]
            if {"hide-input", rules.SOLUTION} & set(cell.metadata.get("tags", [])):
                # Colab and JupyterLab fold the cell too, each by a key of its own.
                cell.metadata["cellView"] = "form"
                cell.metadata["jupyter"] = {"source_hidden": True}
    return notebook


def readable_id(notebook: NotebookNode, i: int) -> str:
    """An id that says what the cell is: its heading, equation, check or figure, or else its number."""
    cell = notebook.cells[i]
    code = [j for j, _ in rules.cells(notebook, "code")]
    if cell.cell_type == "code":
        labels = [found.label for found in rules.verifications(notebook) if found.cell == i and found.label]
        name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
        return slug(
            f"verify {labels[0].removeprefix('eq-')}" if labels else name or f"code {code.index(i) + 1}"
        )
    titles = [text for j, _, text in rules.headings(notebook) if j == i]
    labels = [label for label in rules.displays(cell.source) if label]
    return slug((titles + labels + [f"text {i + 1}"])[0])


def slug(text: str) -> str:
    """Lower-case words with hyphens between them, at most 50 characters."""
    words = re.findall(r"[a-z0-9]+", re.sub(r"\$.*?\$", "", text).lower())
    while words and (not words[0][0].isalpha() or len("-".join(words)) > 50):
        words = words[1:] if not words[0][0].isalpha() else words[:-1]
    return "-".join(words) or "cell"


def unique(name: str, taken: set[str]) -> str:
    n, candidate = 1, name
    while candidate in taken:
        n += 1
        candidate = f"{name}-{n}"
    return candidate


def write(path: Path, new: str, old: str) -> None:
    """Replace the file in one step, and only if it changes."""
    if new != old:
        files.atomically(path, lambda part: part.write_text(new, encoding="utf-8"))


def write_counts() -> None:
    """Bring the counts and the numbers of equations in the README and on the first page up to date."""
    for path in (ROOT / "README.md", ROOT / "book" / "index.md"):
        if path.exists():
            old = path.read_text(encoding="utf-8")
            write(path, stored_form.renumbered(COUNT.sub(counts(), old)), old)


def counts() -> str:
    """What the book claims, counted."""
    labels, checked = count_equations()
    return f"{labels} equations, {checked} verified, {count_versions()} wrong versions rejected"


def count_equations() -> tuple[int, int]:
    """How many labeled equations the book has, and how many of them have their verify."""
    notebooks = [stored_form.read(path) for path in sorted((ROOT / "book").glob("*.ipynb"))]
    labels = [found.label for notebook in notebooks for found in rules.equations(notebook) if found.label]
    checks = {found.label for notebook in notebooks for found in rules.verifications(notebook)}
    return len(labels), sum(label in checks for label in labels)


if __name__ == "__main__":
    sys.exit(main())
