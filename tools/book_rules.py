"""The rules that every notebook of the book keeps, as functions from a notebook to a list of problems.

    python tools/book_rules.py book/02-variational-lower-bound.ipynb

prints what is wrong with a notebook; tests/test_book.py applies the same rules to all of them. What a cell prints is
nbval's business, and what a page looks like that of tests/test_site.py.
"""

import ast
import base64
import re
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from nbformat import NotebookNode

import stored_form
from tex_macros import MACROS

SOLUTION = "hide-cell"
CELL_METADATA = {"tags", "mystnb", "cellView", "jupyter"}
REPOSITORY = "https://github.com/vaetut/vaetut"
# A phone shows a figure some 350 px wide. If it is drawn 5 in wide, letters of 11 pt are then 10 px large. A notebook's
# pictures have 144 pixels per inch and a margin of 0.2 in, explorers have 100 and none.
LEAST_LETTERS = 11
WIDEST_PICTURE = 756
WIDEST_EXPLORER = 500
CHANGELOG = Path(__file__).resolve().parent.parent / "CHANGELOG.md"


def release_of(changelog: str) -> str:
    """The tag of the newest version in a changelog, with an @ before it; nothing while that is unreleased."""
    newest = re.search(r"^## \[?(\d[\w.]*)\]?(.*)$", changelog, re.M)
    return f"@v{newest[1]}" if newest and "unreleased" not in newest[2].lower() else ""


def set_up(release: str) -> str:
    """The first code cell of every notebook, which installs the package where it is not there.

    A page must meet the code that it was written with, so a released book installs that release. The cell ends with a
    statement, not with a value and `;`, which nbval would show.
    """
    return f"""\
# @title Set-up
try:
    import vaetut
except ModuleNotFoundError:  # on Colab, for instance
    %pip install --quiet git+{REPOSITORY}{release}
    import vaetut

import torch

vaetut.plots.use_style()
torch.manual_seed(0)
torch.set_default_dtype(torch.float64)  # checks to 1e-9 need double precision"""


SET_UP = set_up(release_of(CHANGELOG.read_text(encoding="utf-8")) if CHANGELOG.exists() else "")
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class Found(NamedTuple):
    """An equation or a call of verify: its label (None for a display without one) and the number of its cell."""

    label: str | None
    cell: int


# What a notebook holds


def cells(notebook: NotebookNode, kind: str) -> list[tuple[int, NotebookNode]]:
    return [(i, cell) for i, cell in enumerate(notebook.cells) if cell.cell_type == kind]


def prose(source: str) -> str:
    """Markdown without its code: fenced blocks and code in backticks (but a role keeps its backticks)."""
    source = re.sub(r"^(```|~~~).*?^\1", "", source, flags=re.M | re.S)
    role_or_code = r"(\{[\w:-]+\}`[^`]*`)|(`+)(?!`).+?(?<!`)\2(?!`)"
    return re.sub(role_or_code, lambda m: m[1] or "", source, flags=re.S)


def displays(source: str) -> list[str | None]:
    """The label of each display in a Markdown text, None where it has none."""
    return [m[1] for m in re.finditer(r"\$\$.+?\$\$(?:[ \t]*\(([\w:-]+)\))?", prose(source), re.S)]


def equations(notebook: NotebookNode) -> list[Found]:
    return [Found(label, i) for i, cell in cells(notebook, "markdown") for label in displays(cell.source)]


def verifications(notebook: NotebookNode) -> list[Found]:
    """Each call of verify; its label is None where that is not a plain string."""
    found = []
    for i, cell in cells(notebook, "code"):
        for node in ast.walk(parse(cell.source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "verify":
                label = node.args[0] if node.args else None
                plain = isinstance(label, ast.Constant) and isinstance(label.value, str)
                found.append(Found(ast.literal_eval(node.args[0]) if plain else None, i))
    return found


def parse(source: str) -> ast.Module:
    return ast.parse(without_magics(source))


def without_magics(source: str) -> str:
    """A cell's text as plain Python: a line for IPython or the shell becomes `pass`."""
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.M)


def headings(notebook: NotebookNode) -> list[tuple[int, int, str]]:
    """Cell number, level and text of each heading."""
    return [
        (i, len(m[1]), m[2].strip())
        for i, cell in cells(notebook, "markdown")
        for m in re.finditer(r"^(#{1,6}) (.+)$", prose(cell.source), re.M)
    ]


def section_end(notebook: NotebookNode, cell: int) -> int:
    """The number of the cell that begins the next section (a heading of level 1 or 2) after the given one."""
    return min(
        (i for i, level, _ in headings(notebook) if i > cell and level <= 2), default=len(notebook.cells)
    )


# The rules


def every_equation_is_verified(notebook: NotebookNode) -> list[str]:
    """Each display is labeled, and its label has one verify, in a later cell of the same section."""
    found, checks = equations(notebook), verifications(notebook)
    problems = [f"cell {i}: a display without a label" for label, i in found if label is None]
    problems += [
        f"cell {i}: verify needs its label as a plain string" for label, i in checks if label is None
    ]
    where = {label: i for label, i in found if label}
    for label, n in Counter(label for label, _ in found if label).items():
        if n > 1:
            problems.append(f"{label} labels {n} equations")
        calls = [i for other, i in checks if other == label]
        if len(calls) != 1:
            problems.append(f"{label} has {len(calls)} calls of verify; it needs one")
        elif not where[label] < calls[0] < section_end(notebook, where[label]):
            problems.append(f"{label} is verified in cell {calls[0]}, which is not after it in its section")
    problems += [f'verify("{label}") has no equation' for label, _ in checks if label and label not in where]
    return problems


def displays_stand_alone(notebook: NotebookNode) -> list[str]:
    """`$$` on lines of their own: the one form that the book, Colab, JupyterLab and GitHub all render."""
    form = re.compile(r"^\$\$\n(?:(?!\$\$).)+\n\$\$(?: \([\w:-]+\))?$", re.M | re.S)
    return [
        f"cell {i}: a display must be `$$`, its TeX and `$$ (eq-label)` on lines of their own"
        for i, cell in cells(notebook, "markdown")
        if "$$" in form.sub("", prose(cell.source))
    ]


def macros_are_known(text: str) -> list[str]:
    """MathJax draws an undefined macro in red and says nothing; Colab and GitHub know no macro of ours."""
    used = set(re.findall(r"\\([A-Za-z]+)", prose(text)))
    return [f"\\{name} is not in tools/tex_macros.py" for name in sorted(used - MACROS)]


def figures_are_described(notebook: NotebookNode) -> list[str]:
    """Each figure has a caption and an alternative text of a sentence or two; so has each picture inside HTML."""
    problems = []
    for i, cell in cells(notebook, "code"):
        kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
        myst = cell.metadata.get("mystnb", {})
        if any(kind.startswith("image/") for kind in kinds):
            if not is_sentence(myst.get("image", {}).get("alt", "")):
                problems.append(
                    f"cell {i}: the figure needs mystnb.image.alt, a sentence that says what is to be seen"
                )
            if not is_sentence(myst.get("figure", {}).get("caption", "")):
                problems.append(f"cell {i}: the figure needs mystnb.figure.caption, a sentence")
        for page in html_outputs(cell):
            for image in re.findall(r"<img\b[^>]*>", page):
                alt = re.search(r'\balt="([^"]*)"', image)
                if not alt or len(alt[1]) < 20:
                    problems.append(f"cell {i}: a picture in HTML without a real alt text")
    return problems


def letters_are_large(notebook: NotebookNode) -> list[str]:
    """On a phone too: no figure is wider than the style's, and none has smaller letters."""
    problems = []
    for i, cell in cells(notebook, "code"):
        for size in re.findall(r"(?:font|label)size\"?\s*[=:]\s*([\d.]+)", cell.source):
            if float(size) < LEAST_LETTERS:
                problems.append(f"cell {i}: letters of {size} pt, smaller than {LEAST_LETTERS}")
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data and "text/html" not in data:
                start = base64.b64decode(data["image/png"][:40])
                if (width := int.from_bytes(start[16:20])) > WIDEST_PICTURE:  # as PNG files have it
                    problems.append(f"cell {i}: a picture {width} pixels wide, more than {WIDEST_PICTURE}")
        for page in html_outputs(cell):
            for found in re.findall(r'<img [^>]*\bwidth="(\d+)"', page):
                if int(found) > WIDEST_EXPLORER:
                    problems.append(f"cell {i}: an explorer {found} pixels wide, more than {WIDEST_EXPLORER}")
    return problems


def html_outputs(cell: NotebookNode) -> list[str]:
    return [output.data["text/html"] for output in cell.outputs if "text/html" in output.get("data", {})]


def is_sentence(text: str) -> bool:
    return len(text) > 20 and len(text.split()) > 3 and text.rstrip()[-1] in ".!?…)" and "_files/" not in text


def has_all_parts(notebook: NotebookNode) -> list[str]:
    """A numbered title, a picture before the first section, slips, four starred exercises with solutions, an end."""
    problems = []
    titles = headings(notebook)
    if [level for _, level, _ in titles].count(1) != 1 or titles[0][0] != 0:
        problems.append("the first cell must begin with the one title")
    elif not re.match(r"\d+ · ", titles[0][2]):
        problems.append("the title must begin with the chapter's number, '# 2 · The bound'")
    sections = {text.lower(): i for i, level, text in titles if level == 2}
    for wanted in ("common slips", "exercises", "remember this", "where to read on"):
        if wanted not in sections:
            problems.append(f"no section '## {wanted.capitalize()}'")

    start = sections.get("exercises", len(notebook.cells))
    code = cells(notebook, "code")
    if not code or code[0][1].id != "set-up" or code[0][1].source != SET_UP:
        problems.append("the first code cell must be the set-up cell of every notebook; run make notebooks")
    exercises = [i for i, _, text in titles if i >= start and re.match(r"exercise\b.*★", text, re.I)]
    solutions = [(i, cell) for i, cell in code if i > start and SOLUTION in cell.metadata.get("tags", [])]
    if len(exercises) < 4:
        problems.append(
            f"{len(exercises)} exercises ('### Exercise 1 ★: …' in the section); four is the least"
        )
    if len(solutions) < len(exercises):
        problems.append(f"{len(solutions)} solutions ({SOLUTION} code cells) for {len(exercises)} exercises")
    for i, cell in solutions:
        nodes = list(ast.walk(parse(cell.source)))
        calls = [ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)]
        tests = any(isinstance(node, ast.Assert) for node in nodes) or any(
            name == "verify" or name.startswith("check_") for name in calls
        )
        if not tests:
            problems.append(f"cell {i}: a solution without a check")

    first = min((i for i, level, _ in titles if level == 2), default=len(notebook.cells))
    outputs = [output for i, cell in code if i < first for output in cell.outputs]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    if "image/png" not in kinds and not any(
        "<input" in page for i, cell in code if i < first for page in html_outputs(cell)
    ):
        problems.append("neither a figure nor an explorer before the first section")
    return problems


def outputs_are_clean(notebook: NotebookNode) -> list[str]:
    """Every cell was run, in order, without error; nothing printed belongs to one machine or one moment."""
    problems = []
    code = cells(notebook, "code")
    counts = [cell.execution_count for _, cell in code]
    if counts != list(range(1, len(code) + 1)):
        problems.append(f"execution counts must be 1 to {len(code)}, and are {counts}")
    for i, cell in code:
        for output in cell.outputs:
            if output.output_type == "error":
                problems.append(f"cell {i}: an error, {output.ename}")
            elif output.output_type == "stream" and output.name == "stderr":
                problems.append(f"cell {i}: writes to stderr")
            data = output.get("data", {"text/plain": output.get("text", "")})
            if any("widget-view" in kind for kind in data):
                problems.append(f"cell {i}: a live widget, whose id is different in every run")
            text = "".join(v for k, v in data.items() if k.startswith("text/") and isinstance(v, str))
            text = re.sub(
                r"base64,[\w+/=]+|\b(?:iVBOR|UklGR)[\w+/=]+", "", text
            )  # pictures, alone or in an explorer's list
            if address := re.search(r"\b0x[0-9a-fA-F]{5,}", text):
                problems.append(f"cell {i}: a memory address, {address[0]}")
            if path := re.search(
                r"(?<![\w.:/])(/(?:home|Users|root|tmp|var|opt|usr|mnt|work)/\S+|[A-Z]:\\\S+)", text
            ):
                problems.append(f"cell {i}: a path of one machine, {path[0]}")
    return problems


def metadata_is_clean(notebook: NotebookNode) -> list[str]:
    """The kernel and the language, readable unique ids, and in a cell only what the book needs."""
    problems = []
    if notebook.metadata != KERNEL:
        problems.append(f"notebook metadata must be {KERNEL}; run make notebooks")
    ids = Counter(cell.id for cell in notebook.cells)
    problems += [f"id {name} stands {n} times" for name, n in ids.items() if n > 1]
    problems += [f"id {name} is not readable; run make notebooks" for name in ids if not is_readable(name)]
    for i, cell in enumerate(notebook.cells):
        if extra := set(cell.metadata) - CELL_METADATA:
            problems.append(f"cell {i}: metadata {', '.join(sorted(extra))}; run make notebooks")
        if cell.cell_type == "code" and not cell.source.strip():
            problems.append(f"cell {i}: empty")
        if cell.cell_type == "code" and cell.source.rstrip().endswith(";"):
            problems.append(f"cell {i}: ends with ';', which nbval does not heed; assign the value to _")
    return problems


def is_readable(cell_id: str) -> bool:
    """Words with hyphens between them, unlike the eight hexadecimal digits that Jupyter gives."""
    return bool(re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", cell_id)) and not re.fullmatch(
        r"[0-9a-f]{8}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", cell_id
    )


def reads_well_everywhere(notebook: NotebookNode) -> list[str]:
    """No MyST beyond {eq} (Colab, JupyterLab and GitHub show it raw), and that only where the sentence survives."""
    problems = []
    for i, cell in cells(notebook, "markdown"):
        text = prose(cell.source)
        if re.search(r"^\s*(```|~~~|:::)\{|^\([\w-]+\)=$", cell.source, re.M):
            problems.append(f"cell {i}: a MyST directive or target")
        roles = set(re.findall(r"\{([\w:-]+)\}`", text))
        problems += [f"cell {i}: the MyST role {{{role}}}" for role in sorted(roles - {"eq"})]
        if re.search(r"(?<!\beq\. )(?<!\beqs\. )(?<! and )(?<! to )(?<!, )\{eq\}`", text):
            problems.append(
                f"cell {i}: write 'eq. {{eq}}`eq-…`', so that the sentence survives where it shows raw"
            )
        for reference in stored_form.PLAIN.findall(text):
            problems.append(f"cell {i}: no equation of the book has the number in '{reference}'")
        if re.search(r"\[\]\(", text):
            problems.append(f"cell {i}: a link without a text")
    return problems


NOTEBOOK_RULES = [
    every_equation_is_verified,
    displays_stand_alone,
    figures_are_described,
    letters_are_large,
    has_all_parts,
    outputs_are_clean,
    metadata_is_clean,
    reads_well_everywhere,
]


def problems_of(notebook: NotebookNode) -> list[str]:
    """What every rule says about a notebook."""
    text = "\n\n".join(cell.source for _, cell in cells(notebook, "markdown"))
    return [problem for rule in NOTEBOOK_RULES for problem in rule(notebook)] + macros_are_known(text)


def broken_links(path: Path, text: str) -> list[str]:
    """Links from a page to files, or to headings of pages, that are not there."""
    problems = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        page = path.parent / name if name else path
        if not page.exists():
            problems.append(f"{target}: no such file")
        elif anchor and anchor not in anchors(page):
            problems.append(f"{target}: no such heading in {page.name}")
    return problems


def page_text(path: Path) -> str:
    """The Markdown of a page, be it a notebook or a Markdown file."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    return "\n\n".join(cell.source for _, cell in cells(stored_form.read(path), "markdown"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MyST make them, and its named targets."""
    text = page_text(page)
    titles = re.findall(r"^#{1,3} (.+)$", text, re.M)
    slugs = {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}
    return slugs | set(re.findall(r"^\(([\w-]+)\)=$", text, re.M))


def main() -> int:
    found = 0
    for path in map(Path, sys.argv[1:]):
        problems = problems_of(stored_form.read(path)) + broken_links(path, page_text(path))
        for problem in problems:
            print(f"{path}: {problem}")
        found += len(problems)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
