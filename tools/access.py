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

REPLACED = (
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
    # No full stop goes to the next line without its formula.
    (re.compile(rf"(\(?{FORMULA}[.,;:?!)’”]+)", re.S), r'<span class="vaetut-together">\1</span>'),
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
    return re.sub(r'<table class="table">.*?</table>', lambda match: labeled(match[0]), text, flags=re.S)


def labeled(table: str) -> str:
    """A wide table with its column's heading at each cell; a narrow one as it is."""
    headings = [words(cell) for cell in re.findall(r"<t[hd] class=\"head[^>]*>(.*?)</t[hd]>", table, re.S)]
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
        names = iter(headings)
        return re.sub(
            r"<td(?=[ >])", lambda _: f'<td data-heading="{html.escape(next(names, ""))}"', match[0]
        )

    body = re.search(r"<tbody>.*</tbody>", table, re.S)
    if body is None:
        return table
    new = re.sub(r"<tr class.*?</tr>", row_with_labels, body[0], flags=re.S)
    return table.replace(body[0], new).replace('class="table"', 'class="table vaetut-rows"', 1)


def words(inside: str) -> str:
    """The text of a cell; a formula counts with its letters, without the commands."""
    text = html.unescape(re.sub(r"<[^>]+>", "", inside)).strip()
    return re.sub(r"\\[a-zA-Z]+\s?|[\\{}_^$]", lambda m: m[0][1:2] if len(m[0]) > 2 else "", text)
