"""Turn the table of chapters on the first page into cards, each with a small picture from its chapter.

The table in book/index.md is the source: on GitHub it stays one. A picture is the chapter's first, as its notebook
stores it, made small.
"""

import base64
import io
import json
import re
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PAGE = Path("book/index.html")
PICTURES = Path("_static/chapters")
WIDTH = 560  # pixels: twice the width of a card's picture, for sharp screens
TABLE = re.compile(
    r'<div class="pst-scrollable-table-container">\s*<table[^>]*>(?:(?!</table>).)*?</table>\s*</div>', re.S
)
CHAPTER = re.compile(r'<a [^>]*href="((\d\d)-[\w-]+)\.html"[^>]*>(.*?)</a>', re.S)
PART = re.compile(r"<td[^>]*>\s*(?:<p>)?\s*<strong>(.*?)</strong>", re.S)


def make_cards(site: Path) -> int:
    """Replace the table on a built first page; returns how many cards there are."""
    (site / PICTURES).mkdir(parents=True, exist_ok=True)
    old = (site / PAGE).read_text(encoding="utf-8")
    table = next((match for match in TABLE.finditer(old) if len(CHAPTER.findall(match[0])) > 9), None)
    if table is None:
        raise RuntimeError("book/index.md has no table of chapters")
    cards: list[str] = []
    part = "Start"
    for row in re.findall(r"<tr[^>]*>(.*?)</tr>", table[0], re.S):
        if found := CHAPTER.search(row):
            _, _, question, minutes = re.findall(r"<td[^>]*>(.*?)</td>", row, re.S)[:4]
            cards.append(card(site, part, found[1], found[3], question, words(minutes)))
        elif heading := PART.search(row):
            part = words(heading[1])
    new = f'<ol class="vaetut-cards">\n{"".join(cards)}</ol>'
    (site / PAGE).write_text(old.replace(table[0], new), encoding="utf-8")
    return len(cards)


def card(site: Path, part: str, name: str, title: str, question: str, minutes: str) -> str:
    """One chapter: its part, number, title, question (which may hold formulas), minutes and picture, all of it a link.

    The part stands in the card, so that all cards make one grid, whose rows are full.
    """
    picture = thumbnail(first_picture(ROOT / "book" / f"{name}.ipynb"))
    path = site / PICTURES / f"{name}.webp"
    path.write_bytes(lightest(picture))
    core, _, whole = minutes.partition(" ")
    return (
        f'<li><a class="vaetut-card" href="{name}.html">'
        f'<img class="vaetut-thumbnail" loading="lazy" alt="" src="../{PICTURES.as_posix()}/{name}.webp"'
        f' width="{picture.width}" height="{picture.height}">'
        f'<span class="vaetut-part">{part}</span>'
        f'<span class="vaetut-card-title">{int(name[:2])} · {words(title)}</span>'
        f"<span>{re.sub('</?p>', '', question).strip()}</span>"
        f'<span class="vaetut-minutes">{core} minutes {whole}</span></a></li>\n'
    )


def lightest(picture: Image.Image) -> bytes:
    """As WebP, without loss or with a little, whichever is smaller: curves are the one, digits the other."""
    made = []
    for lossless, quality in ((True, 100), (False, 75)):
        file = io.BytesIO()
        picture.save(file, "WEBP", method=4, lossless=lossless, quality=quality)
        made.append(file.getvalue())
    return min(made, key=len)


def words(inside: str) -> str:
    """The text of a cell, without tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", inside)).strip()


def first_picture(path: Path) -> Image.Image:
    """The first picture that a notebook stores."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).get("image/png"):
                return Image.open(io.BytesIO(base64.b64decode("".join(picture))))
    raise RuntimeError(f"{path.name} stores no picture")


def thumbnail(picture: Image.Image) -> Image.Image:
    """The picture on white paper, without its margins, in few colors and of the width that a card needs."""
    flat = Image.new("RGB", picture.size, "white")
    flat.paste(picture, mask=picture.convert("RGBA").getchannel("A"))
    ink = flat.convert("L").point(lambda level: 255 * (level < 250)).getbbox()
    flat = flat.crop(ink) if ink else flat
    flat.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    return flat.quantize(32, dither=Image.Dither.NONE).convert("RGB")
