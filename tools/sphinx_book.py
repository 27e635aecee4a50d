"""A Sphinx extension for the book: docstrings in the book's Markdown, pages without a script that they don't use.

Docstrings may write `code` and $formulas$ as the chapters do. At the foot of each page stands the code that it was
built with.
"""

import json
import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

import stored_form
import vaetut
from build_book import code_digest


def to_restructured_text(line: str) -> str:
    """Put Sphinx's markup in the place of Markdown's, outside of what is Sphinx's already."""
    parts = re.split(r"(``.*?``|:[\w:]+:`.*?`)", line)
    for i in range(0, len(parts), 2):
        formulas = re.split(r"(?<!\$)\$(?!\s)([^$]+?)(?<!\s)\$(?!\w)", parts[i])
        for j in range(0, len(formulas), 2):
            formulas[j] = re.sub(r"(?<![`\w])`([^`]+)`(?![`_\w])", r"``\1``", formulas[j])
        formulas[1::2] = [f":math:`{formula}`" for formula in formulas[1::2]]
        parts[i] = "".join(formulas)
    return "".join(parts)


def process_docstring(
    _app: Sphinx, what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    """Translate a docstring in place, except for its examples."""
    for i, line in enumerate(lines):
        if not line.lstrip().startswith((">>>", "...")):
            lines[i] = to_restructured_text(line)
    if what in ("attribute", "data", "property"):
        # Nothing, in a line of its own: napoleon takes what stands before a colon in the first line for a type.
        lines.insert(0, "\\")


def drop_thebe(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _doctree: object) -> None:
    """Jupyter Book puts the scripts of thebe, which would load code from elsewhere, on every page, and twice."""
    scripts = context.get("script_files", [])
    context["script_files"] = [script for script in scripts if "thebe" not in str(script).lower()]


def name_the_code(_app: Sphinx, config: Config) -> None:
    """Say below each page which version of the package it belongs to, and a hash of its files."""
    options = config.html_theme_options
    code = f"Code: vaetut {vaetut.__version__}, {code_digest()[:12]}."
    options["extra_footer"] = f"{options.get('extra_footer', '')} {code}".strip()


def read_notebook(_app: Sphinx, page: str, source: list[str]) -> None:
    """Give equations their labels, and each folded cell the name that its first line has, ``# @title Solution``.

    That line goes: Colab shows it as the title of a form; the page would show it as code, under a fold with no name.
    """
    try:
        notebook = json.loads(source[0])
    except ValueError:
        return
    if not isinstance(notebook, dict):
        return
    notebook["cells"] = stored_form.authored_cells(notebook.get("cells", []), stored_form.numbers())
    for cell in notebook["cells"]:
        text = "".join(cell.get("source", ""))
        title = re.match(r"# @title ([^\n{@]+)\n", text)
        if cell.get("cell_type") == "code" and title:
            cell["source"] = text[title.end() :]
            myst = cell["metadata"].setdefault("mystnb", {})
            myst["code_prompt_show"] = myst["code_prompt_hide"] = title[1].strip()
    source[0] = json.dumps(notebook)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", name_the_code)
    app.connect("autodoc-process-docstring", process_docstring, priority=100)  # before napoleon
    app.connect("source-read", read_notebook)
    app.connect("html-page-context", drop_thebe)
    return {"parallel_read_safe": True}
