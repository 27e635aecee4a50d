"""Print the whole book into one PDF with a headless browser: contents with page numbers, an outline, links that work.

    python tools/print_book.py      # after the pages are built; `make pdf` does both

Each page of the book is printed by itself, since a browser that lays out all of them at once needs gigabytes. Links
lead to an address that no server has, HOST#page--anchor; where the pages are put together, they become links inside the
PDF.
"""

import html
import io
import itertools
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
from pypdf.generic import ArrayObject, NameObject

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "_build" / "html"
PDF = ROOT / "_build" / "vaetut.pdf"
HOST = "http://book.test/"
PRINTED = "book/print.html"
SCALE = 0.8  # of a page as the screen shows it: lines of code of 84 letters fit on paper
BOOK = "Variational auto-encoders, verified"
FOOT = '<div style="width:100%;text-align:center;font:8px sans-serif"><span class="pageNumber"></span></div>'
STYLE = """
  @page { size: A4; margin: 18mm 20mm 20mm; }
  body { background: none; line-height: 1.5; }
  .bd-content { margin: 0 !important; }
  .bd-content .bd-article-container { max-width: none !important; padding: 0 !important; }
  .bd-article-container .bd-article { padding: 0 !important; }
  /* What is open fades in on a screen: the browser would print it half-way, and pale. */
  *, ::before, ::after { animation: none !important; transition: none !important; }
  .vaetut-page[id^="book/api/"] { margin-top: 2rem; zoom: 0.88; }
  .bd-content h1 { display: block !important; margin-top: 0; }
  .vaetut-contents a { display: flex; gap: 0.5rem; color: inherit !important; text-decoration: none !important; }
  .vaetut-contents a::before { content: ""; order: 1; flex: 1; border-bottom: 1px dotted #888; margin-bottom: 0.35em; }
  .vaetut-contents a span:last-child { order: 2; min-width: 2.2rem; text-align: right; }
  .vaetut-contents .level-1 { margin-top: 0.5rem; font-weight: 600; break-after: avoid; }
  .vaetut-contents .level-2 { margin-left: 1.5rem; font-size: 0.9rem; }
  .vaetut-page[id="book/index"] :is(section:has(> .vaetut-cards), .vaetut-buttons) { display: none; }
  .vaetut-unseen { font-size: 1px; line-height: 1px; color: transparent; margin: 0; }
  .vaetut-unseen a { color: transparent !important; text-decoration: none !important; }
"""
# Of no use on paper: what is the same in every chapter, what draws a picture, and what tests an answer.
FOLD = r'<details[^>]*>\s*<summary>\s*<p class="collapsed admonition-title">(?:{})</p>.*?</details>'
SET_UP = re.compile(
    rf'<div class="cell tag_hide-input docutils container">\s*{FOLD.format("Set-up|Imports")}\s*</div>', re.S
)
FOR_A_KERNEL = re.compile(FOLD.format(r"Code of this (?:figure|explorer)|Check of exercise\s\d+"), re.S)


class Heading(NamedTuple):
    """A title of a chapter or of a section, as HTML, and the anchor that it stands at."""

    level: int
    anchor: str
    title: str


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
    articles = {name: article(name, text, set(pages)) for name, text in pages.items()}
    wanted = set(re.findall(rf'href="{re.escape(HOST)}#([^"]+)"', "".join(articles.values())))
    found = headings(articles)
    wanted |= {heading.anchor for heading in found}
    head = head_of(next(iter(pages.values())))
    target.parent.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(playwright.chromium.executable_path),
            args=["--no-sandbox", "--disable-gpu"],
        )
        page = browser.new_context(color_scheme="light", viewport={"width": 860, "height": 1200}).new_page()

        def printed(body: str, **options: Any) -> PdfReader:
            page.unroute_all()
            page.route("**/*", lambda route: serve(route, head + body))
            page.goto(HOST + PRINTED, wait_until="load", timeout=0)
            page.evaluate("document.fonts.ready")
            done = page.pdf(scale=SCALE, prefer_css_page_size=True, print_background=True, **options)
            return PdfReader(io.BytesIO(done))

        parts, numbers, total = [], dict[str, int](), 0
        for names in runs(list(articles)):
            part = printed("".join(printed_page(name, articles[name], wanted) for name in names))
            numbers |= {anchor: total + number for anchor, number in anchors(part).items()}
            parts.append(part)
            total += len(part.pages)
        contents = printed(list_of_contents(found, numbers))
        blank = '<div style="break-after: page">&nbsp;</div>' * total
        feet = printed(
            blank, display_header_footer=True, header_template="<span></span>", footer_template=FOOT
        )
        browser.close()
    put_together(contents, parts, feet, found, numbers).write(target)


def runs(names: list[str]) -> list[list[str]]:
    """The pages in order; each begins on a sheet of its own, but for the short ones of the reference."""
    groups = itertools.groupby(names, lambda name: "book/api/" if name.startswith("book/api/") else name)
    return [list(group) for _, group in groups]


def serve(route: Route, text: str) -> None:
    """Answer the browser: the page that is printed, and the files of the built site."""
    path = SITE / unquote(urlsplit(route.request.url).path[1:])
    if route.request.url == HOST + PRINTED:
        route.fulfill(body=text, content_type="text/html; charset=utf-8")
    elif route.request.url.startswith(HOST) and path.is_file():
        route.fulfill(path=path)
    else:
        route.abort()


def put_together(
    contents: PdfReader,
    parts: list[PdfReader],
    feet: PdfReader,
    found: list[Heading],
    numbers: dict[str, int],
) -> PdfWriter:
    """Contents and parts with the numbers of their pages, links between them, and an outline."""
    writer = PdfWriter()
    for part in [contents, *parts]:
        for sheet in part.pages:
            writer.add_page(sheet)
    first = len(contents.pages)
    for number, foot in enumerate(feet.pages[: len(writer.pages) - first]):
        writer.pages[first + number].merge_page(foot)
        writer.pages[first + number].compress_content_streams()
    for sheet in writer.pages:
        kept = ArrayObject()
        for reference in sheet.get("/Annots", ArrayObject()):
            note = reference.get_object()
            address = str(note.get("/A", {}).get("/URI", ""))
            if address.startswith(HOST):
                place = unquote(address.partition("#")[2])
                if place not in numbers:
                    continue
                del note["/A"]
                goal = writer.pages[first + numbers[place] - 1].indirect_reference
                note[NameObject("/Dest")] = ArrayObject([goal, NameObject("/Fit")])
            elif not address:
                continue
            kept.append(reference)
        sheet[NameObject("/Annots")] = kept
    chapter = None
    for level, anchor, title in found:
        if anchor in numbers:
            item = writer.add_outline_item(
                title=html.unescape(re.sub(r"<[^>]+>", "", title)),
                page_number=first + numbers[anchor] - 1,
                parent=chapter if level > 1 else None,
            )
            chapter = chapter if level > 1 else item
    writer.add_metadata({"/Title": BOOK})
    writer.compress_identical_objects()  # fonts of one chapter and the next
    return writer


def find_chromium(own: str) -> str:
    """The browser that is installed, or the one that Playwright brought."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next(filter(None, map(shutil.which, names)), own)


def anchors(part: PdfReader) -> dict[str, int]:
    """On which of its pages each place stands that a link inside of a printed page leads to."""
    found = {}
    for name, place in part.named_destinations.items():
        number = part.get_destination_page_number(place)
        if number is not None:
            found[unquote(str(name).lstrip("/"))] = number + 1
    return found


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


def head_of(text: str) -> str:
    """The head of a page without scripts, for printing, with the style of formulas."""
    head = re.sub(r"<script\b.*?</script>", "", text[: text.index("</head>")], flags=re.S)
    head = re.sub(r'<html lang="en"[^>]*>', '<html lang="en" data-theme="light" data-mode="light">', head)
    return f'{head}<link rel="stylesheet" href="../_static/formulas.css"><style>{STYLE}</style></head>'


def printed_page(name: str, inside: str, wanted: set[str]) -> str:
    """The body of one page. Chromium notes the places that its links lead to, so unseen ones stand at its end."""
    own = sorted(anchor for anchor in wanted if anchor == name or anchor.startswith(f"{name}--"))
    unseen = "".join(f'<a href="#{anchor}">.</a>' for anchor in own)
    return (
        f'<body><main class="bd-main"><div class="bd-content"><div class="bd-article-container">'
        f'<div class="vaetut-page" id="{name}"><article class="bd-article">{inside}</article></div>'
        f'<p class="vaetut-unseen">{unseen}</p></div></div></main></body></html>'
    )


def article(name: str, text: str, known: set[str]) -> str:
    """The article of a page: folds open, nothing lazy, no scripts, every anchor with the page's name before it."""
    inside = text[text.index("<article") :]
    inside = inside[inside.index(">") + 1 : inside.index("</article>")]
    inside = re.sub(r"<(script|mjx-assistive-mml)\b.*?</\1>", "", inside, flags=re.S)
    inside = FOR_A_KERNEL.sub("", SET_UP.sub("", inside))
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
        return f'href="{HOST}#{page}--{address.fragment}"' if address.fragment else f'href="{HOST}#{page}"'

    return re.sub(r'\bhref="([^"]*)"', link, inside)


def list_of_contents(found: list[Heading], numbers: dict[str, int]) -> str:
    """The body of the first pages: each title with its page and a link to it."""
    lines = "".join(
        f'<a class="level-{level}" href="{HOST}#{anchor}">'
        f"<span>{title}</span><span>{numbers.get(anchor, '')}</span></a>"
        for level, anchor, title in found
    )
    return (
        f'<body><main class="bd-main"><div class="bd-content"><div class="bd-article-container">'
        f'<nav class="vaetut-contents"><h1>{BOOK}</h1>'
        f"<p>Each chapter is a notebook. Left out here are its set-up and imports, the code of its figures, and the "
        f"functions that check an answer to an exercise; the notebooks and the pages of the book have them.</p>"
        f"<h2>Contents</h2>{lines}</nav></div></div></main></body></html>"
    )


if __name__ == "__main__":
    sys.exit(main())
