"""Number equations and figures by chapter in the built pages, (2.1) and Figure 2.1, and link labels to equations.

Sphinx counts through the whole book. The pages show the chapter's number instead: beside an equation, where it is
referred to, in the line that `verify` prints, and in the reference, whose docstrings name the equations that they
implement.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

EQUATION = re.compile(r'<span class="eqno">\(\d+\)(<a class="headerlink" href="#equation-(eq-[\w-]+)")')
REFERENCE = re.compile(r'(<a class="reference internal" href="[^"]*#equation-(eq-[\w-]+)">)\(\d+\)(</a>)')
FIGURE = re.compile(r'<span class="caption-number">Fig\. \d+ </span>')
CHECKED = re.compile(r"✓ (?:\(\d+\.\d+\) )?(eq-[\w-]+)")
NAMED = re.compile(
    r'<code class="docutils literal notranslate"><span class="pre(?: vaetut-together)?">(eq-[\w-]+)</span></code>'
)


class Place(NamedTuple):
    """Where an equation stands, and its number."""

    page: Path
    number: str


def number(site: Path) -> int:
    """Renumber all pages of a built site; returns how many equations there are."""
    pages = {path: path.read_text(encoding="utf-8") for path in sorted(site.rglob("*.html"))}
    places = places_of(pages)
    for path, old in pages.items():
        new = renumbered(path, old, places)
        if new != old:
            path.write_text(new, encoding="utf-8")
    return len(places)


def places_of(pages: dict[Path, str]) -> dict[str, Place]:
    """Page and number of each label, from the order on the chapters' pages."""
    return {
        match[2]: Place(path, f"{chapter}.{n}")
        for path, text in pages.items()
        if (chapter := chapter_of(path)) is not None
        for n, match in enumerate(EQUATION.finditer(text), 1)
    }


def chapter_of(path: Path) -> int | None:
    """The number of a chapter's page; None for any other page."""
    found = re.fullmatch(r"(\d\d)-.*\.html", path.name)
    return int(found[1]) if found else None


def renumbered(path: Path, text: str, places: dict[str, Place]) -> str:
    """A page with the numbers by chapter, and with links from labels to equations."""

    def link(label: str, inside: str) -> str:
        page = places[label].page
        address = "" if page == path else Path(os.path.relpath(page, path.parent)).as_posix()
        return f'<a class="reference internal" href="{address}#equation-{label}">{inside}</a>'

    def checked(match: re.Match[str]) -> str:
        label = match[1]
        return f"✓ {link(label, f'({places[label].number})')} {label}" if label in places else match[0]

    text = EQUATION.sub(
        lambda m: f'<span class="eqno">({places[m[2]].number}){m[1]}' if m[2] in places else m[0], text
    )
    text = REFERENCE.sub(lambda m: f"{m[1]}({places[m[2]].number}){m[3]}" if m[2] in places else m[0], text)
    text = NAMED.sub(lambda m: link(m[1], m[0]) if m[1] in places else m[0], text)
    text = CHECKED.sub(checked, text)
    chapter = chapter_of(path)
    if chapter is not None:
        for n in range(1, len(FIGURE.findall(text)) + 1):
            text = FIGURE.sub(f'<span class="caption-number">Figure {chapter}.{n} </span>', text, count=1)
    return text
