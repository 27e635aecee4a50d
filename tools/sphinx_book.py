"""A Sphinx extension for the book: docstrings in the book's Markdown, pages without a script that they don't use.

Docstrings may write `code` and $formulas$ as the chapters do. At the foot of each page stands the code that it was
built with.
"""

import json
import re
from typing import Any

from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.domains.python import ObjectEntry

import reference
import search
import stored_form
import vaetut.cli
from book_rules import CHANGELOG, release_of
from build_book import code_digest

# The notebook whose set-up cell installs the same release of the package, or main before the first release.
RELEASE = release_of(CHANGELOG.read_text(encoding="utf-8")).removeprefix("@") or "main"
COLAB_OF = f"github/{vaetut.cli.REPOSITORY.removeprefix('https://github.com/')}/blob/{RELEASE}/{{page}}.ipynb"


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
    if len(lines) < 3 and lines[0].startswith(
        "Alias for field number"
    ):  # what Python writes for a named tuple
        lines.clear()
        return
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
    code = f"Built with vaetut {vaetut.__version__}, {code_digest()[:12]}."
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


def finish_reference(
    app: Sphinx, page: str, _template: str, context: dict[str, Any], _doctree: object
) -> None:
    """Put the index of names and the tables of maps into the reference, and make the signatures' HTML valid."""
    body = reference.valid_signatures(context.get("body", ""))
    body = reference.MAPS.sub(lambda found: reference.maps(found[1]), body)
    if page == "book/api":
        objects = app.env.domaindata["py"]["objects"]
        names = [
            reference.Name(full, entry.objtype, entry.docname, entry.node_id, said(app, entry))
            for full, entry in objects.items()
            if not entry.aliased
        ]
        body = body.replace(reference.PLACE, reference.index(names, "book/"))
    context["body"] = body


def said(app: Sphinx, entry: ObjectEntry) -> str:
    """What the reference's page says of a constant, in the book's Markdown: a constant has no docstring to look up."""
    if entry.objtype != "data":
        return ""
    document = app.env.get_doctree(entry.docname)
    signature = next(
        found for found in document.findall(addnodes.desc_signature) if entry.node_id in found["ids"]
    )
    paragraph = next((part for part in signature.parent[-1] if part.tagname == "paragraph"), ())
    marks = {"literal": "`", "math": "$"}
    parts = [(marks.get(part.tagname, ""), part.astext()) for part in paragraph]
    return "".join(f"{mark}{text}{mark}" for mark, text in parts)


def set_scorer(_app: Sphinx, config: Config) -> None:
    """Let search order its results by a scorer of ours."""
    config.html_search_scorer = str(search.SCORER)


def open_in_colab(_app: Sphinx, page: str, source: list[str]) -> None:
    """Below the title of each chapter, and of its exercises, a link that opens the notebook in Colab."""
    if not re.fullmatch(r"book/\d\d-[\w-]+", page):
        return
    notebook = json.loads(source[0])
    address = f"https://colab.research.google.com/{COLAB_OF.format(page=page)}"
    link = f'<a class="vaetut-colab" href="{address}">Open in Colab</a>'
    titles = {
        r"# .+": f"{link} <span>All cells together run in less than a minute on a CPU. No GPU is needed.</span>",
        r"## Exercises": f"{link} <span>Write your answers there, and let the checks try them.</span>",
    }
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            for title, line in titles.items():
                added = rf'\g<0>\n\n<p class="vaetut-run">{line}</p>'
                text = re.sub(rf"\A{title}$", added, text, count=1, flags=re.M)
            cell["source"] = text
    source[0] = json.dumps(notebook)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_search_language(search.BookSearch)
    app.connect("config-inited", name_the_code)
    app.connect("config-inited", set_scorer)
    app.connect("autodoc-process-docstring", process_docstring, priority=100)  # before napoleon
    app.connect("source-read", read_notebook)
    app.connect("source-read", open_in_colab)
    app.connect("html-page-context", drop_thebe)
    app.connect("html-page-context", finish_reference)
    return {"parallel_read_safe": True}
