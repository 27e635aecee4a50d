"""What the tools make of small pages: heads, cards, names, tables, formulas in pieces, and the page that is printed."""

import io
import re

import pytest
from PIL import Image, ImageDraw
from pypdf import PdfReader, PdfWriter
from pypdf.annotations import Link

import access
import first_page
import light_pages
import page_heads
import print_book
import styles
import typeset


@pytest.mark.parametrize(
    ("tex", "words"),
    [
        (r"\log p_\theta(\mathbf x)", "log p(x)"),
        (r"\phi", "φ"),
        (r"q_{\phi}(\mathbf z \mid \mathbf x)", "q(z | x)"),
    ],
)
def test_formulas_in_plain_letters(tex, words):
    assert page_heads.plain_tex(tex) == words


def test_a_head_has_title_and_description():
    page = (
        "<html><head><title>A &#8212; B</title></head><article><h1>2 · A &amp; B</h1>"
        r"<p><strong>What is <span>\(\log p_\theta(x)\)</span>?</strong></p></article></html>"
    )
    made = page_heads.with_head(page, "book/02-a.html")
    assert f"<title>2 · A &amp; B | {page_heads.BOOK}</title>" in made
    assert '<meta name="description" content="What is log p(x)?" />' in made
    assert f'<meta property="og:url" content="{page_heads.ADDRESS}book/02-a.html" />' in made
    door = page_heads.door(made)
    assert 'content="What is log p(x)?"' in door and "0; url=book/index.html" in door


def test_descriptions_are_whole_sentences():
    text = "One sentence. " * 30
    assert page_heads.first_sentences(text.strip()).endswith("sentence.")
    assert len(page_heads.first_sentences(text.strip())) <= 200
    assert page_heads.first_sentences("word " * 100).endswith("word …")


def test_folds_headings_and_references_are_named():
    formula = r'<span class="math notranslate nohighlight">\(a\)</span>'
    made = access.accessible(
        f'<summary aria-label="Toggle hidden content"><p>Check</p></summary><p>for ({formula}), {formula} and</p>'
        '<div class="citation" id="a" role="doc-biblioentry"></div>'
        '<table class="table"><tr class="row-odd"><th class="head text-right"><p></p></th></tr></table>'
    )
    assert "<summary><p>Check" in made and "biblioentry" not in made and "<th" not in made
    assert f'<span class="vaetut-together">({formula}),</span> {formula} and' in made


def table(*rows):
    cells = ["".join(f"<td><p>{cell}</p></td>" for cell in row) for row in rows[1:]]
    head = "".join(f'<th class="head"><p>{cell}</p></th>' for cell in rows[0])
    body = "".join(f'<tr class="row-odd">{row}</tr>' for row in cells)
    return f'<table class="table"><thead><tr class="row-odd">{head}</tr></thead><tbody>{body}</tbody></table>'


def test_a_wide_table_says_at_each_cell_what_it_is():
    made = access.accessible(table(("name", "what it says", "and why"), ("a", "long " * 6, "words " * 6)))
    assert re.findall(r'<span class="vaetut-heading">([^<]*)</span>', made) == [
        "name: ",
        "what it says: ",
        "and why: ",
    ]
    assert '<table class="table vaetut-rows">' in made
    narrow = table(("a", "b", "c"), ("1", "2", "3"))
    assert access.accessible(narrow) == narrow


def test_a_heading_at_a_cell_keeps_its_formula_and_its_question_mark():
    formula = r'<span class="math notranslate nohighlight">\(q_\phi\)</span>'
    head = ("figure", f"asks of {formula}", "can we?")
    made = access.accessible(table(head, ("2", "long " * 6, "words " * 6), ("4, 5", "", "yes")))
    assert made.count('<span class="vaetut-heading vaetut-title">figure </span><p>') == 2, (
        "2 is no title by itself"
    )
    assert f'<span class="vaetut-heading">asks of {formula}: </span><p>long' in made
    assert made.count("can we? </span><p>") == 2
    assert "<td><p></p></td>" in made, "an empty cell needs no heading"


def test_a_figure_comes_before_its_code():
    code = '<details class="admonition hide above-input">\n<summary>Code of this figure</summary>\n<p>a</p></details>\n'
    figure = '<div class="cell_output">\n<figure><div>b</div></figure>\n<div>c</div></div>'
    made = access.figures_first(f'<div class="cell">\n{code}{figure}\n</div>\n<p>d</p>' * 2)
    assert made == f'<div class="cell">\n{figure}\n{code}</div>\n<p>d</p>' * 2
    printed = f'<div class="cell">\n{code}<div class="cell_output"><pre>b</pre></div></div>{figure}'
    assert access.figures_first(printed) == printed, "what is computed stays above what it prints"


def test_colors_do_not_wait_for_scripts():
    theme = 'document.documentElement.dataset.theme = localStorage.getItem("theme") || "auto";'
    made = access.accessible(f'<html lang="en" data-theme="auto"><script>{theme}</script>')
    assert made.startswith('<html lang="en" data-theme="light">') and "matchMedia" in made
    assert '"theme"' not in made


def test_a_title_may_be_divided_after_a_dot():
    made = access.accessible('<h1>what torch.distributions lacks<a href="a.html#b">#</a></h1><p>a.b</p>')
    assert "torch.<wbr>distributions" in made and 'href="a.html#b"' in made and "<p>a.b</p>" in made


def test_a_number_stays_with_its_word():
    made = access.accessible(
        '<p>In chapter 2, <a href="#a">chapter 3</a>, eq. <a href="#b">(2.1)</a> and chapter one</p>'
    )
    kept = "\N{NO-BREAK SPACE}"
    assert f"chapter{kept}2, " in made and f">chapter{kept}3<" in made and "chapter one" in made
    assert f'eq.{kept}<a href="#b">(2.1)' in made
    made = access.accessible('<h2>Weights (appendix F)</h2><p>86 % of 3 A</p><img alt="86 % of it"/>')
    assert f"appendix{kept}F" in made and f"<p>86{kept}% of 3 A</p>" in made and '"86 % of it"' in made


def test_a_rank_is_not_divided():
    formula = r'<span class="math notranslate nohighlight">\(j\)</span>'
    made = access.accessible(f'<p>the {formula}-th, the k-th, {formula}-dimensional</p><img alt="the k-th"/>')
    kept = '<span class="vaetut-together">{}</span>'.format
    assert f"the {kept(formula + '-th')}, the {kept('k-th')}, {kept(formula + '-')}dimensional" in made
    assert '<img alt="the k-th"/>' in made


def test_a_long_formula_is_cut_where_a_line_may_end():
    (plain, signs, lines, condition, short, group, listed), _ = typeset.run(
        [
            (r"\log p(x) = a + \frac{b + c}{d} \ge -e, \qquad x \sim q", True),
            (r"a = -b", True),
            (r"\begin{aligned} a &= b + c \\ \Pr[k \text{ has the largest } z] &= d \end{aligned}", True),
            (r"\log p(\mathbf x \mid \mathbf z)", True),
            (r"a + b = c", False),
            (r"a = \bigl[x \log\pi + (1 - x) \log(1 - \pi)\bigr] + (a + b)^2", True),
            (
                r"p = \mathcal N\bigl(\mathbf z; (W^\top W + s^2 I)^{-1} W^\top (\mathbf x - b), s^2 (I + A)\bigr)",
                True,
            ),
        ]
    )
    assert plain.count("<mjx-run>") == 6, "log p(x), = a, + fraction, >= -e, x, ~ q"
    assert signs.count("<mjx-run>") == 2, "a minus after = begins no line"
    assert lines.count("<mjx-run>") >= 5 and 'class="vaetut-flow"' in lines
    assert "<mjx-run>" not in short + condition
    assert group.count("<mjx-run>") == 4, (
        "a, = [x log, + (1 - x) log(1 - pi)], + (a + b)^2: short brackets stay whole"
    )
    assert listed.count("<mjx-run>") == 4, (
        "p, = N(z;, ... (x - b),, s^2 (I + A)): a long list may end a line after a comma"
    )


def test_pictures_have_their_size(tmp_path):
    Image.new("L", (3, 2)).save(tmp_path / "a.png")
    assert (
        light_pages.sized_pictures('<img src="a.png">', tmp_path) == '<img src="a.png" width="3" height="2">'
    )
    for other in (
        '<img src="a.png" width="9">',
        '<img src="none.png">',
        '<img src="data:image/png;base64,a">',
    ):
        assert light_pages.sized_pictures(other, tmp_path) == other


def test_a_thumbnail_has_no_margins():
    picture = Image.new("RGBA", (2000, 1000))
    ImageDraw.Draw(picture).rectangle((500, 400, 1499, 599), fill="black")
    small = first_page.thumbnail(picture)
    assert small.size == (first_page.WIDTH, first_page.WIDTH // 5)
    assert small.getpixel((5, 5)) == (0, 0, 0)


def test_the_printed_page_has_all_articles_and_links_inside():
    contents = {
        "root": "book/index",
        "parts": [{"chapters": [{"file": "book/02-a", "sections": [{"file": "book/b/c"}]}]}],
    }
    names = print_book.contents(contents)
    assert names == ["book/index", "book/02-a", "book/b/c"]
    text = (
        '<html lang="en" data-theme="auto"><head></head><article class="x"><section id="top">\n<h1>A</h1>'
        '<p id="p"><a href="02-a.html#top">a</a><a href="#p">b</a><a href="b/c.html">c</a><a href="none.html">d</a>'
        '<a href="https://example.org/">e</a></p><details class="hide"><script>x</script></details>'
        "</section></article></html>"
    )
    made = {name: print_book.article(name, text, set(names)) for name in names}
    links = re.findall(r'href="([^"]+)"', made["book/index"])
    inside = [f"{print_book.HOST}#{place}" for place in ("book/02-a--top", "book/index--p", "book/b/c")]
    assert links == [*inside, "https://example.org/"]
    assert "<details open" in made["book/02-a"] and "<script" not in made["book/02-a"]
    page = print_book.printed_page("book/02-a", made["book/02-a"], {"book/02-a--top", "book/b/c"})
    assert 'id="book/02-a--top"' in page and page.count('<a href="#') == 1
    found = print_book.headings(made)
    assert [heading.anchor for heading in found] == [f"{name}--top" for name in names]
    listed = print_book.list_of_contents(found, {"book/02-a--top": 17})
    assert "<span>A</span><span>17</span></a>" in listed


def test_the_printed_book_leaves_out_what_needs_a_kernel():
    def fold(name, code):
        summary = f'<summary>\n<p class="collapsed admonition-title">{name}</p>\n</summary>'
        inside = f'<details class="hide">\n{summary}{code}</details>\n'
        return f'<div class="cell tag_hide-input docutils container">\n{inside}</div>'

    names = (
        "Set-up",
        "Imports",
        "Code of this figure",
        "Check of exercise\N{NO-BREAK SPACE}12",
        "Check",
        "Solution",
    )
    text = "".join(fold(name, f"<pre>code {i}</pre>") for i, name in enumerate(names))
    made = print_book.article("a", f"<article>{text}</article>", {"a"})
    assert re.findall(r"code \d", made) == ["code 4", "code 5"]


def test_short_pages_of_the_reference_share_sheets():
    names = ["book/a", "book/api", "book/api/b", "book/api/c", "book/d"]
    assert print_book.runs(names) == [["book/a"], ["book/api"], ["book/api/b", "book/api/c"], ["book/d"]]


def sheets(number):
    writer = PdfWriter()
    for _ in range(number):
        writer.add_blank_page(100, 100)
    return writer


def read(writer):
    file = io.BytesIO()
    writer.write(file)
    return PdfReader(file)


def test_printed_pages_are_put_together_with_links_and_outline():
    chapter = sheets(2)
    note = Link(rect=(0, 0, 10, 10), url=f"{print_book.HOST}#b")
    chapter.add_annotation(0, note)
    found = [print_book.Heading(1, "a", "<em>A</em> &amp; B"), print_book.Heading(2, "b", "below")]
    made = read(
        print_book.put_together(
            read(sheets(1)), [read(chapter), read(sheets(1))], read(sheets(3)), found, {"a": 1, "b": 3}
        )
    )
    assert len(made.pages) == 4
    (annotation,) = made.pages[1]["/Annots"]
    assert annotation.get_object()["/Dest"][0] == made.pages[3].indirect_reference
    chapter_item, below = made.outline
    assert chapter_item.title == "A & B" and [item.title for item in below] == ["below"]


def test_a_font_keeps_each_character_that_the_style_sheet_has():
    """Also where the next one begins like a digit of the first's code."""
    css = 'a::before {content: "\\2212"} b::before {content: "c"} d::before {content: "\\3C8 d\\""} e {content: ""}'
    assert typeset.characters(css) == {0x2212, ord("c"), 0x3C8, ord("d"), ord('"')}


# One style sheet


def test_a_rule_is_kept_if_an_element_may_match():
    css = (
        '@charset "utf-8"; .a, .b > p {color: red} .b:not(.c, .d) {top: 0} #e.a::after {content: "}"}'
        "@media print {.b {top: 0} .a {top: 1px}} @media print {.b {top: 0}}"
        "@font-face {src: url(data:a;b)} .a:is(.x, .y) {top: 0} .a[data-b='.c'] {top: 0}"
        ".a:not(.b) {left: 0} .sm\\:b {top: 0} p {top: 2px}"
    )
    kept = styles.needed(css, {"a", "sm:b"})
    assert kept.split("\n") == [
        '@charset "utf-8";',
        ".a{color: red}",
        "@media print{.a{top: 1px}}",
        "@font-face{src: url(data:a;b)}",
        ".a:is(.x, .y){top: 0}",
        ".a[data-b='.c']{top: 0}",
        ".a:not(.b){left: 0}",
        ".sm\\:b{top: 0}",
        "p{top: 2px}",
    ]


def test_pages_share_a_sheet_and_wait_for_no_script(tmp_path):
    for folder in ("_static/styles", "book"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "_static/base.css").write_text("/* .a{} */ .a{background: url('a.png')}")
    (tmp_path / "_static/styles/theme.css").write_text('@import "../base.css"; .b{} .c{src: url(../f.woff2)}')
    (tmp_path / "_static/late.js").write_text('e.classList.add("c")')
    page = (
        '<link rel="preload" as="script" href="_static/late.js"><link href="_static/styles/theme.css" rel="stylesheet">'
        '<link rel="stylesheet" href="_static/base.css?v=1"><link rel="icon" href="a.svg">'
        '<script>let a;</script><script src="_static/late.js"></script><script src="searchindex.js"></script>'
        '<p class="a">'
    )
    for name in ("search.html", "404.html"):
        (tmp_path / name).write_text(page)
    (tmp_path / "book/a.html").write_text(page.replace("_static", "../_static"))
    styles.bundle(tmp_path)
    sheet = (tmp_path / styles.ONE).read_text()
    assert (
        '.a{background: url("a.png")}' in sheet and '.c{src: url("f.woff2")}' in sheet and ".b" not in sheet
    )
    made = {path.name: path.read_text() for path in tmp_path.rglob("*.html")}
    assert 'href="../_static/pages.css?v=' in made["a.html"] and 'href="/vaetut/_static/' in made["404.html"]
    for name, text in made.items():
        assert text.count("stylesheet") == 1 and "preload" not in text and 'rel="icon"' in text
        assert '<script>let a;</script><script defer src="' in text
        assert ("searchindex" in text) == (name == "search.html")


def test_what_a_check_prints_ends_between_its_parts():
    made = access.accessible(
        "<pre><span></span>✓ (2.1) eq-a    left 1, …    right 1, …\n✓ eq-b    all 2 equal to 1e-9\nthe end\n</pre>"
        "<pre>name   bound\n</pre><pre>plain text\n</pre>"
    )
    together = '<span class="vaetut-together">'
    line = f"{together}✓ eq-b</span>    {together}all 2 equal to 1e-9</span>"
    assert f'<span class="vaetut-verdict">{line}\n</span>the end\n</pre>' in made
    assert made.count("vaetut-verdict") == 2
    assert '<pre class="vaetut-columns">name   bound' in made and "<pre>plain" in made


def test_short_code_is_not_divided():
    short, long = "-bound.mean()", "torch.cross_entropy(input,target)"
    made = access.accessible(f'<span class="pre">{short}</span><span class="pre">{long}</span>')
    assert f'<span class="pre vaetut-together">{short}<' in made
    divided = "torch.<wbr>cross_<wbr>entropy(<wbr>input,<wbr>target)"
    assert f'<span class="pre">{divided}</span>' in made, "a long one ends a line between its words"


def test_no_mark_stands_alone_after_code():
    code = '<code class="docutils literal notranslate"><span class="pre">eq-a</span></code>'
    for inside in (code, f'<a href="#b">{code}</a>'):
        kept = access.accessible(f"<p>({inside}), and</p>")
        assert re.search(r'<p>\(<span class="vaetut-together">.*</code>(</a>)?\),</span> and</p>', kept)
