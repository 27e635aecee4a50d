"""Explorers on the built pages: data in files of their own, once; a page may show another page's explorer again."""

import pytest

import explorer_files
from vaetut import explore, plots


def draw(k):
    figure, ax = plots.subplots(height=1)
    ax.plot([0, k])
    return figure


@pytest.fixture
def site(tmp_path):
    made = explore(draw, alt="Slope {k}", k=[1, 2])
    html = made._repr_html_()
    (tmp_path / "book").mkdir()
    output = f'<div class="output text_html">{html}</div>'
    figure = f'<figure class="a" id="fig-a">\n{output}<figcaption>A</figcaption></figure>'
    (tmp_path / "book" / "01-a.html").write_text(f"<html><head></head><body>{figure}{figure}</body></html>")
    again = '<div class="vaetut-again" data-figure="fig-a"></div>'
    (tmp_path / "index.html").write_text(f"<html><head></head><body>{again}</body></html>")
    (tmp_path / "plain.html").write_text("<html><head></head><body></body></html>")
    return tmp_path, made


def test_the_data_leave_the_page(site):
    folder, made = site
    assert explorer_files.split(folder) == 3
    page, index, plain = (
        (folder / name).read_text() for name in ("book/01-a.html", "index.html", "plain.html")
    )
    files = {path.name: path.read_text() for path in (folder / "_static/explorers").iterdir()}
    (key,) = {name[:12] for name in files} - {"explorers.js", "explorers.cs"}
    assert set(files) == {"explorers.js", "explorers.css", f"{key}.js", f"{key}.svg"}
    assert files[f"{key}.svg"].encode() == made.frames[1]
    assert files[f"{key}.js"].startswith(f'vaetutExplorers["explorer.js"]("{key}",\\n'.replace("\\n", "\n"))
    for text, where in ((page, "../_static/explorers/"), (index, "_static/explorers/")):
        assert "data:image" not in text and "<style>" not in text and "FOLDER" not in text
        assert text.count(f'src="{where}explorers.js"') == text.count(f'href="{where}explorers.css"') == 1
        assert f'data-load="{where}{key}.js"' in text and f'src="{where}{key}.svg"' in text
        assert 'alt="Slope 2"' in text and '<input type="range"' in text
    assert plain == "<html><head></head><body></body></html>"


def test_an_output_of_other_code_is_named(site):
    folder, _ = site
    path = folder / "book" / "01-a.html"
    path.write_text(path.read_text().replace("There are no globals", "There are some"))
    with pytest.raises(ValueError, match="was made by other code: run its notebook again"):
        explorer_files.split(folder)


def test_a_figure_that_is_not_there_is_named(site):
    folder, _ = site
    (folder / "index.html").write_text('<div class="vaetut-again" data-figure="fig-b"></div>')
    with pytest.raises(ValueError, match="no chapter has an explorer named fig-b"):
        explorer_files.split(folder)
