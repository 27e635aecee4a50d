"""How long a chapter takes to read: 200 words a minute, and half a minute for each cell of code that stands open.

    python tools/reading_time.py                                           # a table of all chapters
    python tools/reading_time.py book/02-variational-lower-bound.ipynb     # the same for these

Both numbers are written where a page promises them: ``core N min, all N min`` in the box at the head of a chapter.
The core leaves out the sections headed "Deeper" and the exercises; all of it leaves out nothing but folded code.
"""

import math
import re
import sys
from pathlib import Path
from typing import NamedTuple

from nbformat import NotebookNode

import stored_form

ROOT = Path(__file__).resolve().parent.parent
WORDS_A_MINUTE = 200
MINUTES_A_CELL = 0.5
FOLDED = {"hide-input", "hide-cell", "remove-cell", "remove-input"}
PROMISE = re.compile(r"\bcore \d+ min, all \d+ min")


class Minutes(NamedTuple):
    """Minutes for the core of a chapter, and for all of it."""

    core: int
    all: int

    def __str__(self) -> str:
        return f"core {self.core} min, all {self.all} min"


def words(markdown: str) -> int:
    """How many words a text has; a formula in a line counts as one, a displayed one as one."""
    text = re.sub(r"\$\$.*?\$\$(\s*\([\w:-]+\))?", " formula ", markdown, flags=re.S)
    text = re.sub(r"\$[^$]+\$", "formula", text)
    text = re.sub(r"<[^>]+>|\]\([^)]*\)|[|#*>`_-]", " ", text)
    return len(re.findall(r"\w[\w'’.,/]*", text))


def minutes(notebook: NotebookNode) -> Minutes:
    """The time that a chapter takes, rounded up to whole minutes."""
    core = whole = 0.0
    deeper_level: int | None = None  # the level of the heading under which we skip
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts = re.split(r"^(?=#{1,6} )", cell.source, flags=re.M)
            for part in parts:
                if heading := re.match(r"(#{1,6}) (.*)", part):
                    level = len(heading[1])
                    if deeper_level is not None and level <= deeper_level:
                        deeper_level = None
                    if deeper_level is None and re.match(r"Deeper\b|Exercises\b", heading[2]):
                        deeper_level = level
                time = words(part) / WORDS_A_MINUTE
                whole += time
                core += time if deeper_level is None else 0
        elif not FOLDED & set(cell.metadata.get("tags", [])) and cell.get("id") != "set-up":
            whole += MINUTES_A_CELL
            core += MINUTES_A_CELL if deeper_level is None else 0
    return Minutes(math.ceil(core), math.ceil(whole))


def chapters() -> list[Path]:
    return sorted((ROOT / "book").glob("[0-9]*.ipynb"))


def keep_promises(path: Path) -> Minutes:
    """Measure a notebook, and write its minutes into the box at its head."""
    notebook = stored_form.read(path)
    found = minutes(notebook)
    for cell in notebook.cells[:8]:
        if cell.cell_type == "markdown":
            cell.source = PROMISE.sub(str(found), cell.source)
    stored_form.write(path, notebook)
    return found


def write_map(found: dict[str, Minutes]) -> None:
    """Write the minutes into the reading map of the first page: the last column, core and (all)."""
    page = ROOT / "book" / "index.md"
    lines = page.read_text(encoding="utf-8").split("\n")
    for i, line in enumerate(lines):
        row = re.match(r"(\| \d+ \| \[[^\]]+\]\((\d\d-[\w-]+)\.ipynb\) \| [^|]+ \|)[^|]*\|?$", line)
        if row and row[2] in found:
            lines[i] = f"{row[1]} {found[row[2]].core} ({found[row[2]].all}) |"
    total = Minutes(*(sum(numbers) for numbers in zip(*found.values(), strict=True)))
    text = re.sub(
        r"\*\*[\d.]+ hours\*\* for the core of all chapters, [\d.]+ for all of it",
        f"**{total.core / 60:.1f} hours** for the core of all chapters, {total.all / 60:.1f} for all of it",
        "\n".join(lines),
    )
    page.write_text(text, encoding="utf-8")


def main() -> int:
    found = {path.stem: keep_promises(path) for path in map(Path, sys.argv[1:] or map(str, chapters()))}
    for name, time in found.items():
        print(f"{name:38} {time}")
    total = Minutes(*(sum(numbers) for numbers in zip(*found.values(), strict=True)))
    print(f"{'together':38} {total}")
    if not sys.argv[1:]:
        write_map(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
