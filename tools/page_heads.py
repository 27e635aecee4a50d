"""Write into the head of each built page what a search engine, a browser's tab and a social network show of it.

A page's description is the question that a chapter begins with, or the first sentence of another page. The picture for
social networks is drawn here, so that no binary file has to be kept.
"""

import html
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
BOOK = str(CONFIG["title"])
ADDRESS = str(CONFIG["html"]["baseurl"])
CARD = Path("_static/card.png")
GREEK = {
    "alpha": "α",
    "beta": "β",
    "epsilon": "ε",
    "theta": "θ",
    "lambda": "λ",
    "mu": "μ",
    "sigma": "σ",
    "phi": "φ",
}


def write_heads(site: Path, count: str) -> None:
    """Describe every page of a built site, before its formulas are typeset; ``count`` stands on the picture."""
    for page in sorted(site.rglob("*.html")):
        old = page.read_text(encoding="utf-8")
        if "<article" in old:
            page.write_text(with_head(old, page.relative_to(site).as_posix()), encoding="utf-8")
    first = (site / CONTENTS_PAGE).read_text(encoding="utf-8")
    (site / "index.html").write_text(door(first), encoding="utf-8")
    draw_card(site / CARD, count)


CONTENTS_PAGE = "book/index.html"


def with_head(text: str, address: str) -> str:
    """A page with its description, and with a title that says nothing twice."""
    article = text[text.index("<article") :]
    heading = re.search(r"<h1>(.*?)</h1>", article, re.S)
    title = plain(heading[1]) if heading else BOOK
    text = re.sub(
        r"<title>.*?</title>",
        f"<title>{html.escape(title if title == BOOK else f'{title} | {BOOK}')}</title>",
        text,
        count=1,
        flags=re.S,
    )
    paragraph = re.search(r"<p>(.*?)</p>", article, re.S)
    description = first_sentences(plain(paragraph[1])) if paragraph else ""
    if address.startswith("book/api/"):  # several of them begin with the same sentence
        description = f"{title}. {description}"
    tags = meta(title, description, address)
    return text.replace("</title>", f"</title>\n    {tags}", 1)


def meta(title: str, description: str, address: str) -> str:
    """The tags for search engines and social networks."""
    named = {"description": description, "twitter:card": "summary_large_image"}
    properties = {
        "og:type": "article" if re.match(r"book/\d", address) else "website",
        "og:site_name": BOOK,
        "og:title": title,
        "og:description": description,
        "og:url": ADDRESS + address,
        "og:image": ADDRESS + CARD.as_posix(),
        "og:image:width": "1200",
        "og:image:height": "630",
        "og:image:alt": "Two bell curves that overlap, a check mark, and the title of the book.",
    }
    lines = [f'<meta name="{name}" content="{html.escape(value)}" />' for name, value in named.items()]
    lines += [
        f'<meta property="{name}" content="{html.escape(value)}" />' for name, value in properties.items()
    ]
    return "\n    ".join(lines)


def door(first: str) -> str:
    """The page at the root, which leads to the first page and says what that one says."""
    tags = "\n    ".join(
        re.findall(r"<title>.*?</title>|<meta (?:name=\"(?:desc|twitter)|property=)[^>]*>", first)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8" />
    <meta http-equiv="refresh" content="0; url={CONTENTS_PAGE}" />
    <link rel="canonical" href="{ADDRESS}{CONTENTS_PAGE}" />
    {tags}
  </head>
  <body><main><h1><a href="{CONTENTS_PAGE}">{BOOK}</a></h1></main></body>
</html>
"""


def plain(inside: str) -> str:
    """The words of some HTML, its formulas written as one would in a line of text."""
    inside = re.sub(r'<a class="headerlink".*?</a>', "", inside, flags=re.S)
    text = html.unescape(re.sub(r"<[^>]+>", "", inside))
    text = re.sub(r"\\\((.*?)\\\)", lambda match: plain_tex(match[1]), text, flags=re.S)
    return re.sub(r"\s+", " ", text).strip()


def plain_tex(tex: str) -> str:
    """A short formula in plain letters: ``\\log p_\\theta(\\mathbf x)`` is log p(x)."""
    tex = re.sub(r"_(\{[^{}]*\}|\\[a-zA-Z]+|.)", "", tex)
    tex = re.sub(r"\\(mathbf|mathrm|mathcal|mathbb|text|operatorname|boldsymbol)\b\s*", "", tex)
    tex = tex.replace(r"\mid", "|").replace(r"\,", "")
    tex = re.sub(r"\\([a-zA-Z]+)", lambda match: GREEK.get(match[1], match[1]), tex)
    return re.sub(r"[{}]", "", tex).strip()


def first_sentences(text: str, most: int = 200) -> str:
    """As many whole sentences as fit, and at least one, if need be cut between two words."""
    whole = ""
    for sentence in re.split(r"(?<=[.?!])\s+(?=[A-Z])", text):
        if whole and len(whole) + len(sentence) >= most:
            break
        whole = f"{whole} {sentence}".strip()
    return whole if len(whole) <= most + 100 else whole[:most].rsplit(" ", 1)[0] + " …"


def draw_card(path: Path, count: str) -> None:
    """A picture of 1200 by 630 pixels: title, what the book is, and its counts."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6.3), dpi=100, facecolor="white")
    curves = figure.add_axes((0.58, 0.14, 0.38, 0.62))
    z = np.linspace(-3.4, 4.2, 400)
    for center, scale, color in ((-0.5, 1.0, "#2f72d2"), (0.9, 0.8, "#c04d00")):
        density = np.exp(-0.5 * ((z - center) / scale) ** 2) / scale
        curves.plot(z, density, color=color, linewidth=7)
        curves.fill_between(z, density, color=color, alpha=0.18, linewidth=0)
    curves.plot([-0.7, 0.1, 1.5], [0.62, 0.34, 1.0], color="#1a8a5a", linewidth=16, solid_capstyle="round")
    curves.set_axis_off()
    slogan = "Learn the VAE step by step.\nEvery numbered equation is checked\nby code that you can run."
    for height, text, size, color in (
        (0.88, BOOK.replace(", ", ",\n"), 44, "#1b2230"),
        (0.56, slogan, 24, "#1b2230"),
        (0.18, "✓ " + count.replace(", ", "\n✓ ", 1), 20, "#136b45"),
    ):
        figure.text(0.06, height, text, fontsize=size, color=color, linespacing=1.4, verticalalignment="top")
    figure.savefig(path, metadata={"Software": None})
