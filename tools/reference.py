"""What Sphinx has no directive for in the reference: the index of all names, the tables of maps, valid signatures.

The index on the page `book/api` is made from what Sphinx has documented, so it cannot name what is not there. Each
name keeps the anchor that it had while the reference was one page: an old link leads to the name in the index.
"""

import html
import inspect
import re
from collections import defaultdict
from importlib import import_module
from typing import NamedTuple

from vaetut import catalogue

KINDS = ("class", "exception", "function", "data")
PLACE = '<div class="vaetut-names"></div>'
MAPS = re.compile(r'<div class="vaetut-maps" data-family="(\w+)"></div>')
SIGNATURE = re.compile(r'<dt class="sig .*?</dt>', re.S)


class Name(NamedTuple):
    """A documented name: in full, its kind, the page that has it, its anchor there, and what a constant is."""

    full: str
    kind: str
    page: str
    anchor: str
    text: str = ""


def index(names: list[Name], root: str) -> str:
    """The list of all classes, functions and data, by name, with what each is in a sentence.

    Args:
        names: all that is documented, methods and attributes too.
        root: the folder of the index's own page, as in ``book/``.
    """
    inside = defaultdict(list)
    for name in names:
        inside[name.full.rpartition(".")[0]].append(name)
    rows = []
    for name in sorted(
        (name for name in names if name.kind in KINDS), key=lambda name: (short(name).lower(), name.full)
    ):
        here = f"{root}{PAGE}" == name.page
        anchors = [] if here else [name.anchor, *(member.anchor for member in inside[name.full])]
        address = f"{'' if here else name.page.removeprefix(root) + '.html'}#{name.anchor}"
        rows.append(
            f"<dt>{''.join(f'<span id={anchor!r}></span>' for anchor in anchors)}"
            f'<a class="reference internal" href="{address}"><code>{html.escape(short(name))}</code></a> '
            f"<span>{html.escape(name.full.rpartition('.')[0])}</span></dt>\n<dd>{summary(name)}</dd>"
        )
    return '<dl class="vaetut-names">\n' + "\n".join(rows) + "\n</dl>"


PAGE = "api"


def short(name: Name) -> str:
    return name.full.rpartition(".")[2]


def summary(name: Name) -> str:
    """The first sentences of what the name's docstring says, with its code and formulas as HTML."""
    module, _, own = name.full.rpartition(".")
    # Not by pydoc.locate, which takes the function `train` for the module `train` that it stands in.
    text = name.text if name.kind == "data" else inspect.getdoc(getattr(import_module(module), own))
    if not text:
        return ""
    first = " ".join(text.split("\n\n")[0].split())
    parts = re.split(r"(``?[^`]+``?|(?<!\$)\$(?!\s)[^$]+(?<!\s)\$(?!\w))", first)
    return "".join(marked(part) for part in parts)


def marked(part: str) -> str:
    """A piece of a docstring as HTML: code, a formula as Sphinx writes one, or words."""
    if len(part) > 2 and part[0] == part[-1] == "`":
        spans = " ".join(
            f'<span class="pre">{word}</span>' for word in html.escape(part.strip("`")).split(" ")
        )
        return f'<code class="docutils literal notranslate">{spans}</code>'
    if len(part) > 2 and part[0] == part[-1] == "$":
        return f'<span class="math notranslate nohighlight">\\({html.escape(part[1:-1])}\\)</span>'
    return re.sub(r"\*(\w+)\*", r"<em>\1</em>", html.escape(part))


def maps(family: str) -> str:
    """The distributions that a family has a map for: noise, map, and the parameters that it has a gradient in."""
    rows = []
    for row in catalogue():
        if row.family == family:
            name = f"{row.distribution.__module__.partition('.')[0]}: {row.distribution.__name__}"
            said = [f"noise {html.escape(row.noise)}"]
            said.append(f"gradient in {', '.join(row.differentiable) or 'all parameters'}")
            if row.remark:
                said.append(html.escape(row.remark))
            rows.append(
                f"<dt><code>{html.escape(name)}</code></dt>\n<dd><p>{marked(f'$z = {row.tex}$')}</p>"
                f"<p>{'; '.join(said)}.</p></dd>"
            )
    return '<dl class="vaetut-names">\n' + "\n".join(rows) + "\n</dl>"


def valid_signatures(body: str) -> str:
    """A page's body with the parameters of signatures as lines, not as a list of definitions without their terms."""

    def lines(match: re.Match[str]) -> str:
        text = match[0].replace("<dl>", '<span class="sig-parameters">').replace("</dl>", "</span>")
        return text.replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")

    return SIGNATURE.sub(lines, body)
