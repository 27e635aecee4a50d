"""Make the built pages light: only the icons that are used, no script that draws them again, lazy pictures.

    python tools/light_pages.py _build/html      # print what each page weighs, gzipped, on a first visit

The theme brings every icon of Font Awesome twice, as fonts and as a script of 1.5 MB that draws them; the fonts alone
suffice, and of some 2,000 icons the book shows twenty.
"""

import functools
import gzip
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont
from PIL import Image

import explorer_files

FONTS = Path("_static/vendor/fontawesome/webfonts")
THEME = Path("_static/styles/pydata-sphinx-theme.css")
SCRIPTS = ("_static/scripts/pydata-sphinx-theme.js", "_static/scripts/sphinx-book-theme.js")
ICON_RULE = re.compile(r"((?:\.fa-[\w-]+:{1,2}before,?)+)\{content:\"\\([0-9a-f]+)\"\}")
# What a page with formulas loads of their fonts.
FORMULA_FONTS = (
    *("Main-Regular", "Main-Bold", "Math-Italic", "Calligraphic-Regular", "AMS-Regular", "Zero"),
    *("Size1-Regular", "Size2-Regular", "Size3-Regular", "Size4-Regular"),
)


def lighten(site: Path) -> None:
    """Take from a built site what no page needs, and out of its pages what they need later."""
    explorer_files.split(site)
    pages = sorted(site.rglob("*.html"))
    for page in pages:
        old = page.read_text(encoding="utf-8")
        new = sized_pictures(lighten_page(old), page.parent)
        if new != old:
            page.write_text(new, encoding="utf-8")
    smaller_pictures(site)
    keep_used_icons(site, used_icons(site, pages))
    for pattern in ("*.map", "fontawesome.js*"):
        for path in (site / "_static").rglob(pattern):
            path.unlink()


def lighten_page(html: str) -> str:
    """One page without the script of icons, its pictures but the first loaded when they come near."""
    html = re.sub(r"<script[^>]*fontawesome\.js[^>]*></script>\n?", "", html)
    head, article, rest = html.partition("<article")
    seen = False

    def lazy(match: re.Match[str]) -> str:
        nonlocal seen
        if "loading=" in match[0] or not seen:
            seen = True
            return match[0]
        return f'<img loading="lazy" decoding="async"{match[1]}'

    return head + article + re.sub(r"<img(\s)", lazy, rest)


def smaller_pictures(site: Path) -> None:
    """Show each picture as lossless WebP: the same pixels in half of the bytes, or fewer."""
    smaller: set[str] = set()
    for path in sorted((site / "_images").glob("*.png")):
        buffer = io.BytesIO()
        with Image.open(path) as picture:
            picture.save(buffer, "WEBP", lossless=True, method=2, quality=50, exact=True)
        if buffer.tell() < path.stat().st_size:
            path.with_suffix(".webp").write_bytes(buffer.getvalue())
            smaller.add(path.name)
    for page in site.rglob("*.html"):
        old = page.read_text(encoding="utf-8")
        new = re.sub(
            r'(<img\b[^>]*\bsrc="[^":?#]*_images/)([^":?#/]+\.png)"',
            lambda m: f'{m[1]}{m[2].removesuffix(".png")}.webp"' if m[2] in smaller else m[0],
            old,
        )
        if new != old:
            page.write_text(new, encoding="utf-8")


def sized_pictures(html: str, folder: Path) -> str:
    """One page whose pictures have their size, so that no text moves when one of them arrives."""

    def with_size(match: re.Match[str]) -> str:
        path = folder / match[1]
        if " width=" in match[0] or not path.is_file():
            return match[0]
        width, height = picture_size(path)
        return f'{match[0][:-1].rstrip("/ ")} width="{width}" height="{height}">'

    return re.sub(r'<img\b[^>]*\bsrc="([^":?#]+\.(?:png|webp))"[^>]*>', with_size, html)


@functools.cache
def picture_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def used_icons(site: Path, pages: list[Path]) -> set[str]:
    """The names of the icons on the pages, and in the scripts that put some there."""
    names: set[str] = set()
    for path in [*pages, *(site / name for name in SCRIPTS)]:
        if path.exists():
            names |= set(re.findall(r"\bfa-[a-z0-9-]+", path.read_text(encoding="utf-8")))
    return names


def keep_used_icons(site: Path, names: set[str]) -> None:
    """Leave in fonts and style sheets the icons with these names, or that a style sheet names by their code."""
    style = (site / THEME).read_text(encoding="utf-8")
    codes = {
        code for classes, code in ICON_RULE.findall(style) if names & set(re.findall(r"fa-[\w-]+", classes))
    }
    style = ICON_RULE.sub(lambda m: m[0] if m[2] in codes else "", style)
    style = re.sub(r",\s*url\([^)]*\.ttf\)\s*format\(\"truetype\"\)", "", style)
    (site / THEME).write_text(style, encoding="utf-8")
    rest = [
        style,
        *(p.read_text(encoding="utf-8") for p in (site / "_static").rglob("*.css") if p != site / THEME),
    ]
    codes |= {
        code.lower() for text in rest for code in re.findall(r"content:\s*[\"']\\([0-9a-fA-F]{4})[\"']", text)
    }
    wanted = [int(code, 16) for code in codes]
    for path in sorted((site / FONTS).glob("*")):
        if path.suffix == ".ttf":
            path.unlink()
        elif path.suffix == ".woff2":
            options = subset.Options(flavor="woff2", notdef_outline=True)
            with TTFont(path) as font:
                chosen = subset.Subsetter(options)
                chosen.populate(unicodes=wanted)
                chosen.subset(font)
                font.flavor = "woff2"
                font.save(path)


# What a page weighs


def weight(site: Path, page: Path) -> dict[str, int]:
    """The bytes of a first visit by kind, each file gzipped: the page, styles, scripts, fonts and the first picture."""
    html = page.read_text(encoding="utf-8")
    found = {"page": gzipped(page), "styles": 0, "scripts": 0, "fonts": 0, "pictures": 0}
    for path in loaded(site, page, html):
        kind = {".css": "styles", ".js": "scripts"}.get(path.suffix, "pictures")
        found[kind] += gzipped(path)
        if path.suffix == ".css":
            found["fonts"] += sum(
                (path.parent / name).stat().st_size
                for name in set(re.findall(r'url\("?([^")?#]+\.woff2)', path.read_text(encoding="utf-8")))
                if "formulas/" not in name and (path.parent / name).exists()
            )
    if "<mjx-container" in html:
        fonts = [site / "_static" / "formulas" / f"MathJax_{name}.woff2" for name in FORMULA_FONTS]
        found["fonts"] += sum(path.stat().st_size for path in fonts)
    return found


def later(site: Path, page: Path) -> int:
    """The bytes of a page's explorers, gzipped, all of which it loads when a reader comes near."""
    addresses = re.findall(r'data-load="([^"]+)"', page.read_text(encoding="utf-8"))
    return sum(gzipped((page.parent / address).resolve()) for address in set(addresses))


def loaded(site: Path, page: Path, html: str) -> Iterator[Path]:
    """The files that a page asks for as it is opened; lazy pictures are left out."""
    tags = re.findall(r"<(?:script|link|img)\b[^>]*>", html)
    for tag in tags:
        if 'loading="lazy"' in tag or re.search(r'rel="(?!stylesheet|preload)', tag):
            continue
        address = re.search(r'\b(?:src|href)="([^"#?]+)', tag)
        if address and not re.match(r"[a-z]+:", address[1]):
            path = (page.parent / address[1]).resolve()
            if path.is_file() and path.is_relative_to(site.resolve()):
                yield path


@functools.cache
def gzipped(path: Path) -> int:
    """The size of a file as a server sends it."""
    content = path.read_bytes()
    if path.suffix in (".png", ".webp", ".woff", ".woff2"):
        return len(content)
    return len(gzip.compress(content, compresslevel=6, mtime=0))


def table(site: Path) -> str:
    """What each page of the book weighs on a first visit, and what its explorers add later, in kilobytes."""
    kinds = ("page", "styles", "scripts", "fonts", "pictures", "together", "explorers")
    lines = [f"{'kB, gzipped':40}" + "".join(f"{kind:>10}" for kind in kinds)]
    for page in [site / "index.html", *sorted((site / "book").rglob("*.html"))]:
        found = weight(site, page)
        numbers = [*found.values(), sum(found.values()), later(site, page)]
        lines.append(f"{page.stem[:40]:40}" + "".join(f"{n / 1000:10.0f}" for n in numbers))
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
