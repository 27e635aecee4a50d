"""Make the built pages readable for everyone: by keyboard, by screen reader, and on a phone.

What Sphinx and the theme write is corrected here, in one place, before formulas are typeset: folds and buttons that are
named by what they show, landmarks, lists that are lists, headings of tables that say something, and wide tables marked,
so that the style sheet can make lists of them on a small screen.
"""

import html
import re
from pathlib import Path

WIDE = 34  # letters of the longest cells of a row, together: more do not fit beside each other on a phone
FORMULA = r'<span class="math notranslate nohighlight">\\\((?:(?!</span>).)*?\\\)</span>'
NUMBERED = r"[Cc]hapter|[Ff]igure|[Ss]ection|[Ee]xercise|[Ee]qs?\."
LONG_CODE = re.compile(r'(?<=<span class="pre">)[^<\s]{23,}(?=</span>)')  # the others stay whole
CODE_OF_OUTPUT = re.compile(
    r'(<details class="[^"]*\bhide\b[^>]*>(?:(?!</details>).)*</details>\s*)(?=<div class="cell_output)', re.S
)
VERDICT = re.compile(r"(?<![^\n>])(✓ [^\n<]*eq-[^\n<]*)\n")  # a line that `verify` prints

REPLACED = (
    # Colors hold without scripts, and are there before the theme's scripts come.
    (re.compile(r'(<html[^>]*) data-theme="auto"'), r'\1 data-theme="light"'),
    (
        re.compile(r'dataset\.theme = localStorage\.getItem\("theme"\) \|\| "auto"'),
        'dataset.theme = (mode => mode !== "auto" ? mode : matchMedia("(prefers-color-scheme: dark)").matches'
        ' ? "dark" : "light")(document.documentElement.dataset.mode)',
    ),
    # A slider says its value by itself.
    (re.compile(r"<output>"), '<output aria-live="off">'),
    # A fold is named by its summary, which shows what is inside: Check, Solution, Code of this figure.
    (re.compile(r'<summary aria-label="Toggle hidden content">'), "<summary>"),
    # The arrow beside a title of the contents shows the pages below it.
    (
        re.compile(r'<summary>(?=<span class="toctree-toggle")'),
        '<summary><span class="visually-hidden">Pages below this one</span>',
    ),
    # The name of the search button has the words that stand on it.
    (re.compile(r'(<button class="btn search-button-field[^>]*?) aria-label="Search"'), r"\1"),
    # The sidebar with logo, search and contents is a landmark.
    (
        re.compile(r'<div id="pst-primary-sidebar" class="bd-sidebar-primary'),
        '<div id="pst-primary-sidebar" role="complementary" aria-label="Book" class="bd-sidebar-primary',
    ),
    (re.compile(r'<th class="head([^"]*)"><p></p></th>'), r'<td class="head\1"></td>'),
    # No full stop goes to the next line without its formula, unless the formula may be divided.
    (
        re.compile(rf"(\(?(?=<span[^>]*>.{{1,80}}</span>){FORMULA}[.,;:?!)’”]+)", re.S),
        r'<span class="vaetut-together">\1</span>',
    ),
    # "j-th" stays in one piece, be j a formula or a letter.
    (
        re.compile(rf"({FORMULA}-(?:th\b)?|\b\w-th\b)(?=[^<>]*<)", re.S),
        r'<span class="vaetut-together">\1</span>',
    ),
    # A short piece of code is not divided at its hyphen.
    (re.compile(r'<span class="pre">(?=[^<\s]{1,22}</span>)'), '<span class="pre vaetut-together">'),
    # Nor does the mark after it go to the next line alone.
    (
        re.compile(
            r'((?:<a\b[^>]*>)?<code class="docutils literal notranslate"><span class="pre vaetut-together">[^<]*'
            r"</span></code>(?:</a>)?[.,;:?!)]+)"
        ),
        r'<span class="vaetut-together">\1</span>',
    ),
    # "chapter 2" and "eq. (2.1)" stay on one line.
    (
        re.compile(rf"\b({NUMBERED}) (?=\d|(?:<[^>]*>)*\(?\d)(?=[^<>]*<)"),
        "\\1\N{NO-BREAK SPACE}",
    ),
    # So do "86 %" and "appendix F".
    (re.compile(r"(\d|\b[Aa]ppendix) (?=%|(?<=x )[A-F]\b)(?=[^<>]*<)"), "\\1\N{NO-BREAK SPACE}"),
    # What stands in a list of references is an item of a list.
    (re.compile(r'(<div class="citation"[^>]*) role="doc-biblioentry"'), r'\1 role="listitem"'),
)


def make_accessible(site: Path) -> None:
    """Correct all pages of a built site."""
    for page in sorted(site.rglob("*.html")):
        old = page.read_text(encoding="utf-8")
        new = accessible(old)
        if new != old:
            page.write_text(new, encoding="utf-8")


def accessible(text: str) -> str:
    """One page, corrected."""
    for pattern, replacement in REPLACED:
        text = pattern.sub(replacement, text)
    text = figures_first(text)
    text = re.sub(r"<h[1-3]>.*?</h[1-3]>", lambda match: divisible(match[0]), text, flags=re.S)
    text = LONG_CODE.sub(lambda match: re.sub(r"(?<=\w)([._(,=/]+)(?=\w)", r"\1<wbr>", match[0]), text)
    text = re.sub(r"<pre>(.*?)</pre>", lambda match: printed(match[1]), text, flags=re.S)
    return re.sub(r'<table class="table">.*?</table>', lambda match: labeled(match[0]), text, flags=re.S)


def figures_first(text: str) -> str:
    """A page on which the code of a figure comes after it for a keyboard and a screen reader, as it is seen."""
    parts, done = [], 0
    for code in CODE_OF_OUTPUT.finditer(text):
        end = end_of_division(text, code.end())
        if "<figure" in text[code.end() : end]:
            parts += [text[done : code.start()], text[code.end() : end], "\n", code[1].rstrip()]
            done = end
    return "".join([*parts, text[done:]])


def end_of_division(text: str, start: int) -> int:
    """Where the `<div>` that begins at `start` ends."""
    depth = 0
    for tag in re.finditer(r"<(/?)div\b", text[start:]):
        depth += -1 if tag[1] else 1
        if not depth:
            return text.index(">", start + tag.start()) + 1
    return len(text)


def divisible(title: str) -> str:
    """A title in which a dotted name, such as torch.distributions, ends a line after its dot."""
    return re.sub(r"(?<=[a-z]\.)(?=[a-z]\w*)(?=[^<>]*<)", "<wbr>", title)


def printed(text: str) -> str:
    """What a cell prints: the line of a check ends, if it must, between its parts; columns of numbers are marked."""

    def verdict(match: re.Match[str]) -> str:
        parts = re.split(r"( {2,})", match[1])
        kept = [part if part.isspace() else f'<span class="vaetut-together">{part}</span>' for part in parts]
        return f'<span class="vaetut-verdict">{"".join(kept)}\n</span>'

    other = re.sub(r"<[^>]+>", "", VERDICT.sub("", text))
    columns = ' class="vaetut-columns"' if re.search(r"\S {2,}\S", other) else ""
    return f"<pre{columns}>{VERDICT.sub(verdict, text)}</pre>"


def labeled(table: str) -> str:
    """A wide table with its column's heading at each cell; a narrow one as it is."""
    headings = [inner(cell) for cell in re.findall(r"<t[hd] class=\"head[^>]*>(.*?)</t[hd]>", table, re.S)]
    rows = [
        re.findall(r"<td[^>]*>(.*?)</td>", row, re.S) for row in re.findall(r"<tr class.*?</tr>", table, re.S)
    ]
    bodies = [row for row in rows if len(row) == len(headings)]
    longest = (
        [max(len(words(row[column])) for row in bodies) for column in range(len(headings))] if bodies else []
    )
    if len(headings) < 3 or sum(longest) <= WIDE:
        return table

    def row_with_labels(match: re.Match[str]) -> str:
        names = iter(enumerate(headings))
        return re.sub(
            r"(<td[^>]*>)(.*?)(?=</td>)", lambda m: m[1] + label(*next(names), m[2]), match[0], flags=re.S
        )

    body = re.search(r"<tbody>.*</tbody>", table, re.S)
    if body is None:
        return table
    new = re.sub(r"<tr class.*?</tr>", row_with_labels, body[0], flags=re.S)
    return table.replace(body[0], new).replace('class="table"', 'class="table vaetut-rows"', 1)


def label(column: int, heading: str, cell: str) -> str:
    """A cell with its column's heading before it; the first one of a row is a title, unless it is a mere number."""
    if not words(heading) or not words(cell):
        return cell
    title = column == 0 and words(cell)[0].isdigit()
    end = " " if title or words(heading)[-1] in "?:" else ": "
    kind = "vaetut-heading vaetut-title" if title else "vaetut-heading"
    return f'<span class="{kind}">{heading}{end}</span>{cell}'


def inner(cell: str) -> str:
    """What stands in a cell, without the paragraph that it stands in."""
    return re.sub(r"\A\s*<p>(.*)</p>\s*\Z", r"\1", cell, flags=re.S)


def words(inside: str) -> str:
    """The text of a cell; a formula counts with its letters, without the commands."""
    text = html.unescape(re.sub(r"<[^>]+>", "", inside)).strip()
    return re.sub(r"\\[a-zA-Z]+\s?|[\\{}_^$]", lambda m: m[0][1:2] if len(m[0]) > 2 else "", text)
