"""Print the whole book into one PDF with a headless browser: contents with page numbers, an outline, links that work.

    python tools/print_book.py      # after the pages are built; `make pdf` does both

All articles are put into one page, which is printed twice: the first time tells on which page each chapter begins.
"""

import html
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import yaml
from playwright.sync_api import Route, sync_playwright
from pypdf import PdfReader, PdfWriter

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "_build" / "html"
PDF = ROOT / "_build" / "vaetut.pdf"
HOST = "http://book.test/"
PRINTED = "book/print.html"
SCALE = 0.78  # of a page as the screen shows it: lines of code of 84 letters fit on paper
BOOK = "Variational auto-encoders, verified"
FOOT = '<div style="width:100%;text-align:center;font:8px sans-serif"><span class="pageNumber"></span></div>'
STYLE = """
  @page { size: A4; margin: 18mm 16mm 20mm; }
  body { background: none; }
  .vaetut-printed > .vaetut-page { break-before: page; }
  .vaetut-contents a { display: flex; gap: 0.5rem; color: inherit; text-decoration: none; line-height: 1.5; }
  .vaetut-contents a::before { content: ""; order: 1; flex: 1; border-bottom: 1px dotted #888; margin-bottom: 0.35em; }
  .vaetut-contents a span:last-child { order: 2; min-width: 2.2rem; text-align: right; }
  .vaetut-contents .h1 { margin-top: 0.5rem; font-weight: 600; break-after: avoid; }
  .vaetut-contents .h2 { margin-left: 1.5rem; font-size: 0.9rem; }
  .vaetut-page[id="book/index"] :is(.vaetut-cards, .vaetut-part, .vaetut-buttons) { display: none; }
"""


def main() -> int:
    names = contents(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
    missing = [name for name in names if not (SITE / f"{name}.html").exists()]
    if missing:
        print(f"vaetut: {missing[0]}.html is not built; make book builds it", file=sys.stderr)
        return 1
    pages = {name: (SITE / f"{name}.html").read_text(encoding="utf-8") for name in names}
    start = time.process_time()
    print_book(pages, PDF)
    count = len(PdfReader(PDF).pages)
    print(f"The book is printed, {count} pages:\n{PDF}")
    print(f"({PDF.stat().st_size / 1e6:.1f} MB, {time.process_time() - start:.0f} s beside the browser's)")
    return 0


def contents(entry: dict[str, Any]) -> list[str]:
    """The pages that a table of contents lists, in order."""
    own = [str(entry[key]) for key in ("root", "file") if key in entry]
    below = [child for key in ("parts", "chapters", "sections") for child in entry.get(key, [])]
    return own + [name for child in below for name in contents(child)]


def print_book(pages: dict[str, str], target: Path) -> None:
    """Print the pages, by name, into one file."""
    target.parent.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(playwright.chromium.executable_path),
            args=["--no-sandbox", "--disable-gpu"],
        )
        page = browser.new_context(color_scheme="light", viewport={"width": 860, "height": 1200}).new_page()
        text = ""

        def serve(route: Route) -> None:
            path = SITE / unquote(urlsplit(route.request.url).path[1:])
            if route.request.url == HOST + PRINTED:
                route.fulfill(body=text, content_type="text/html")
            elif route.request.url.startswith(HOST) and path.is_file():
                route.fulfill(path=path)
            else:
                route.abort()

        page.route("**/*", serve)
        numbers: dict[str, int] = {}
        for _ in range(2):
            text = assembled(pages, numbers)
            page.goto(HOST + PRINTED, wait_until="load", timeout=0)
            page.evaluate("document.fonts.ready")
            page.pdf(
                path=target,
                scale=SCALE,
                prefer_css_page_size=True,
                print_background=True,
                display_header_footer=True,
                header_template="<span></span>",
                footer_template=FOOT,
            )
            numbers = page_numbers(target)
        browser.close()
    add_outline(
        target, headings({name: article(name, text, set(pages)) for name, text in pages.items()}), numbers
    )


def find_chromium(own: str) -> str:
    """The browser that is installed, or the one that Playwright brought."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next(filter(None, map(shutil.which, names)), own)


def page_numbers(path: Path) -> dict[str, int]:
    """On which page of a PDF each place stands that a link leads to."""
    reader = PdfReader(path)
    found = {}
    for name, place in reader.named_destinations.items():
        number = reader.get_destination_page_number(place)
        if number is not None:
            found[unquote(str(name).lstrip("/"))] = number + 1
    return found


class Heading(NamedTuple):
    """A title of a chapter or of a section, as HTML, and the anchor that it stands at."""

    level: int
    anchor: str
    title: str


def headings(articles: dict[str, str]) -> list[Heading]:
    """The titles of all pages, and of the chapters' sections."""
    found = []
    for name, inside in articles.items():
        for section in re.finditer(
            r'<section [^>]*id="([^"]+)">\s*(?:<span[^>]*></span>\s*)*<h([12])>(.*?)</h\2>', inside, re.S
        ):
            if section[2] == "1" or re.search(r"/\d\d-", name):
                title = re.sub(r'<a class="headerlink".*?</a>', "", section[3], flags=re.S)
                found.append(Heading(int(section[2]), section[1], title))
    return found


def add_outline(path: Path, found: list[Heading], numbers: dict[str, int]) -> None:
    """Give a PDF its outline. The browser could do it, but would need a gigabyte for the tags that it comes with."""
    writer = PdfWriter(clone_from=path)
    chapter = None
    for heading in found:
        if heading.anchor in numbers:
            title = html.unescape(re.sub(r"<[^>]+>", "", heading.title))
            parent = chapter if heading.level > 1 else None
            item = writer.add_outline_item(
                title=title, page_number=numbers[heading.anchor] - 1, parent=parent
            )
            chapter = chapter if heading.level > 1 else item
    writer.add_metadata({"/Title": BOOK})
    writer.write(path)


def assembled(pages: dict[str, str], numbers: dict[str, int]) -> str:
    """All articles on one page, contents first."""
    first = next(iter(pages.values()))
    head = re.sub(r"<script\b.*?</script>", "", first[: first.index("</head>")], flags=re.S)
    head = re.sub(r'<html lang="en"[^>]*>', '<html lang="en" data-theme="light" data-mode="light">', head)
    if "formulas.css" not in head:
        head += '<link rel="stylesheet" href="../_static/formulas.css">'
    articles = {name: article(name, text, set(pages)) for name, text in pages.items()}
    body = "\n".join(
        f'<div class="vaetut-page" id="{name}"><article class="bd-article">{inside}</article></div>'
        for name, inside in articles.items()
    )
    return (
        f'{head}<style>{STYLE}</style></head><body><main class="bd-main"><div class="bd-content">'
        f'<div class="bd-article-container vaetut-printed" style="max-width: none; padding: 0">'
        f"{list_of_contents(articles, numbers)}{body}</div></div></main></body></html>"
    )


def article(name: str, text: str, known: set[str]) -> str:
    """The article of a page: folds open, nothing lazy, no scripts, every anchor with the page's name before it."""
    inside = text[text.index("<article") :]
    inside = inside[inside.index(">") + 1 : inside.index("</article>")]
    inside = re.sub(r"<(script|mjx-assistive-mml)\b.*?</\1>", "", inside, flags=re.S)
    inside = re.sub(r"<details\b(?![^>]* open)", "<details open", inside).replace(' loading="lazy"', "")
    inside = re.sub(r'\b(id|for|aria-labelledby|aria-describedby)="([^"]+)"', rf'\1="{name}--\2"', inside)

    def link(match: re.Match[str]) -> str:
        address = urlsplit(match[1])
        if address.scheme or address.netloc:
            return match[0]
        page = name
        if address.path:
            page = re.sub(r"[^/]+/\.\./", "", f"{Path(name).parent.as_posix()}/{address.path}").removesuffix(
                ".html"
            )
        if page not in known:
            return ""
        return f'href="#{page}--{address.fragment}"' if address.fragment else f'href="#{page}"'

    return re.sub(r'\bhref="([^"]*)"', link, inside)


def list_of_contents(articles: dict[str, str], numbers: dict[str, int]) -> str:
    """The headings of the articles, each with its page and a link to it."""
    lines = [
        f'<a class="h{level}" href="#{anchor}"><span>{title}</span><span>{numbers.get(anchor, "000")}</span></a>'
        for level, anchor, title in headings(articles)
    ]
    return f'<nav class="vaetut-contents"><h1>Contents</h1>{"".join(lines)}</nav>'


if __name__ == "__main__":
    sys.exit(main())
