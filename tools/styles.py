"""One style sheet for all built pages, without the rules that no page needs, and no script that holds up a page.

The theme and the extensions bring a dozen style sheets of 600 kB, most of it for components that this book does not
have. A browser asks for all of them, and reads them, before it draws a word. The same holds for their scripts, in
whose order nothing changes if they run when the page has been read.
"""

import hashlib
import posixpath
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

ONE = Path("_static/pages.css")
LINK = re.compile(r'<link\b[^>]*rel="stylesheet"[^>]*>\n?')
SCRIPT = re.compile(r"<script(?![^>]*\b(?:defer|async)\b)(?=[^>]*\bsrc=)")
SEARCH = re.compile(r'\s*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js"></script>')
PRELOAD = re.compile(r'<link rel="preload" as="script"[^>]*>\n?')
IMPORT = re.compile(r'@import\s+(?:url\()?["\']?([^"\')]+)["\']?\)?\s*;')
ADDRESS = re.compile(r'url\(\s*(["\']?)(?![a-z]+:|#)([^"\')]+)\1\s*\)')
# Classes whose names a script puts together.
MADE = ("bs-tooltip", "bs-popover", "tooltip", "popover")


def bundle(site: Path) -> int:
    """Give all pages of a built site one style sheet, and let their scripts wait; returns the sheet's size."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(site.rglob("*.html"))}
    pages = {path: text for path, text in texts.items() if site / "_static" not in path.parents}
    sheets = dict.fromkeys(
        sheet for path, text in pages.items() for sheet in sheets_of(text, path.relative_to(site).parent)
    )
    known = names(pages.values()) | words(site, pages.values())
    text = "".join(needed(whole(site, sheet), known) for sheet in sheets)
    (site / ONE).write_text(text, encoding="utf-8")
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    for path, old in pages.items():
        root = "../" * len(path.relative_to(site).parents[:-1])
        root = "/vaetut/" if path.name == "404.html" else root
        new = old if path.name == "search.html" else SEARCH.sub("", old)  # other pages send there
        new = late(new, f'<link rel="stylesheet" href="{root}{ONE.as_posix()}?v={digest}" />\n')
        if new != old:
            path.write_text(new, encoding="utf-8")
    return len(text)


def sheets_of(text: str, folder: Path) -> Iterator[str]:
    """The style sheets of a page, as paths from the site's root."""
    for link in LINK.findall(text):
        address = re.search(r'href="([^"?]+)', link)
        if address:
            path = address[1].removeprefix("/vaetut/")
            yield path if path != address[1] else posixpath.normpath(posixpath.join(folder.as_posix(), path))


def late(text: str, link: str) -> str:
    """A page with the one sheet in place of its first, and with scripts that run when the page has been read."""
    before, found, rest = (
        re.split(f"({LINK.pattern})", text, maxsplit=1) if LINK.search(text) else (text, "", "")
    )
    text = before + (link if found else "") + LINK.sub("", rest)
    return SCRIPT.sub("<script defer", PRELOAD.sub("", text))


def whole(site: Path, sheet: str) -> str:
    """A style sheet with those that it imports, its addresses as seen from the one sheet's folder."""
    text = (site / sheet).read_text(encoding="utf-8")
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    folder = posixpath.dirname(sheet)

    def moved(match: re.Match[str]) -> str:
        address = posixpath.join(folder, match[2])
        return f'url("{posixpath.relpath(address, ONE.parent.as_posix())}")'

    imported = [
        whole(site, posixpath.normpath(posixpath.join(folder, name))) for name in IMPORT.findall(text)
    ]
    return "".join(imported) + ADDRESS.sub(moved, IMPORT.sub("", text)) + "\n"


def names(pages: Iterable[str]) -> set[str]:
    """The classes and ids of the pages' elements."""
    return {
        name
        for text in pages
        for value in re.findall(r'\b(?:class|id)=["\']([^"\']*)["\']', text)
        for name in value.split()
    }


def words(site: Path, pages: Iterable[str]) -> set[str]:
    """All that might be a class in a script."""
    scripts = [path.read_text(encoding="utf-8") for path in (site / "_static").rglob("*.js")]
    scripts += [
        inline
        for text in pages
        for inline in re.findall(r"<script(?![^>]*\bsrc=)[^>]*>(.*?)</script>", text, re.S)
    ]
    return {word for text in scripts for word in re.findall(r"[A-Za-z_][\w-]*", text)}


def needed(css: str, known: set[str]) -> str:
    """A style sheet without the rules for elements that no page has."""
    kept = []
    for head, body in rules(css):
        if body is None:
            kept.append(head)  # a statement, as @charset is
        elif re.match(r"@(?:media|supports|layer|container)\b", head):
            if inside := needed(body, known):
                kept.append(f"{head}{{{inside}}}")
        elif head.startswith("@"):
            kept.append(f"{head}{{{body}}}")
        elif chosen := [selector for selector in parts(head) if wanted(selector, known)]:
            kept.append(f"{','.join(chosen)}{{{body}}}")
    return "\n".join(kept)


def wanted(selector: str, known: set[str]) -> bool:
    """Whether an element may match: its classes and ids are known."""
    if re.search(r":(?:is|where|has)\(", selector):
        return True
    plain = re.sub(r":not\([^()]*(?:\([^()]*\)[^()]*)*\)|\[[^\]]*\]", "", selector)
    found = [re.sub(r"\\(.)", r"\1", name) for name in re.findall(r"[.#]((?:[\w-]|\\.)+)", plain)]
    return all(name in known or name.startswith(MADE) for name in found)


def rules(css: str) -> Iterator[tuple[str, str | None]]:
    """Head and body of each rule at the top level; the body is None for a statement that ends with a semicolon."""
    start = at = depth = opened = 0
    for token in re.finditer(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|url\([^)"\']*\)|[{};]', css, re.S):
        kind, at = token[0], token.start()
        if kind == "{":
            opened = at if not depth else opened
            depth += 1
        elif kind == "}":
            depth -= 1
            if not depth:
                yield css[start:opened].strip(), css[opened + 1 : at].strip()
                start = at + 1
        elif kind == ";" and not depth:
            yield css[start : at + 1].strip(), None
            start = at + 1


def parts(selectors: str) -> list[str]:
    """The selectors of a list, divided at the commas that stand in no parentheses."""
    return [part.strip() for part in re.split(r",(?![^()]*(?:\([^()]*\)[^()]*)*\))(?![^\[]*\])", selectors)]
