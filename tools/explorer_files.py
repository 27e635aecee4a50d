"""Take the explorers' pictures out of the built pages, into files that load when the reader comes near.

In a notebook an explorer is complete: its output holds its style, its script and all of its frames. On the book's pages
that would be hundreds of kilobytes before the first word. Here each explorer's data becomes a script of its own, which
the page asks for by a tag, so that it also loads from a disk; its first picture becomes a file; and style and functions
stand once for all pages. A page may show a chapter's explorer again by the name of its figure:

    <div class="vaetut-again" data-figure="fig-vae-mnist-plane"></div>
"""

import base64
import os
import re
from pathlib import Path

from vaetut.teaching.explore import file_text

FOLDER = Path("_static/explorers")
FUNCTIONS = ("explorer.js", "decoder.js")
EXPLORER = re.compile(
    r'<div class="vaetut-explorer" data-explorer="([0-9a-f]{12})" (.*?)'
    r"<style>\n.*?</style>\n<script>\n\((.*?)\)(\(\"\1\",\n.*?\);)\n</script>",
    re.DOTALL,
)
STILL = re.compile(r'src="data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)"')
FIGURE = re.compile(
    r'<figure[^>]* id="([\w-]+)">\s*<div class="output text_html">((?:(?!</figure>).)*?)</div><figcaption>',
    re.DOTALL,
)
AGAIN = re.compile(r'<div class="vaetut-again" data-figure="([\w-]+)"></div>')
LOADER = """\
const vaetutExplorers = {
%s};
addEventListener("DOMContentLoaded", () => {
  const near = new IntersectionObserver(seen => {
    for (const {isIntersecting, target} of seen) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      document.head.append(Object.assign(document.createElement("script"), {src: target.dataset.load}));
    }
  }, {rootMargin: "1000px"});
  for (const root of document.querySelectorAll("[data-load]")) near.observe(root);
});
"""


def split(site: Path) -> int:
    """Do so for a built site; returns how many explorers it has."""
    folder = site / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    functions = {file_text(name): name for name in FUNCTIONS}
    bodies = "".join(f'"{name}": {text},\n' for text, name in functions.items())
    (folder / "explorers.js").write_text(LOADER % bodies, encoding="utf-8")
    (folder / "explorers.css").write_text(file_text("explorer.css"), encoding="utf-8")

    def take_out(match: re.Match[str]) -> str:
        key, body, function, call = match.groups()
        if function not in functions:
            raise ValueError(f"explorer {key} was made by other code: run its notebook again")
        (folder / f"{key}.js").write_text(
            f'vaetutExplorers["{functions[function]}"]{call}\n', encoding="utf-8"
        )

        def store(still: re.Match[str]) -> str:
            (folder / f"{key}.svg").write_bytes(base64.b64decode(still[1]))
            return f'src="FOLDER/{key}.svg"'

        opening = f'<div class="vaetut-explorer" data-explorer="{key}" data-load="FOLDER/{key}.js" '
        return opening + STILL.sub(store, body)

    pages = {path: path.read_text(encoding="utf-8") for path in sorted(site.rglob("*.html"))}
    new = {path: EXPLORER.sub(take_out, text) for path, text in pages.items()}
    figures = {
        name: shown for text in new.values() for name, shown in FIGURE.findall(text) if "data-load" in shown
    }

    def again(match: re.Match[str]) -> str:
        if match[1] not in figures:
            raise ValueError(f"no chapter has an explorer named {match[1]} of the present code")
        return figures[match[1]]

    count = 0
    for path, text in new.items():
        text = AGAIN.sub(again, text)
        count += text.count(' data-load="')
        if text != pages[path]:
            where = Path(os.path.relpath(folder, path.parent)).as_posix()
            style = f'<link rel="stylesheet" href="{where}/explorers.css">'
            script = f'<script defer src="{where}/explorers.js"></script>'
            text = text.replace("</head>", f"{style}{script}\n</head>", 1).replace('"FOLDER/', f'"{where}/')
            path.write_text(text, encoding="utf-8")
    return count
