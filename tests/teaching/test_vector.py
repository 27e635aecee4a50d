"""Frames as SVG: every number where matplotlib has it, nothing lost by sharing, and the same picture in a browser."""

import base64
import io
import re
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.transforms import IdentityTransform
from PIL import Image

from vaetut import plots
from vaetut.teaching.frames import still
from vaetut.teaching.vector import Sheet, _joined, outline_of

SVG = "{http://www.w3.org/2000/svg}"
SAME = IdentityTransform()


def drawn(*figures):
    sheet = Sheet()
    for figure in figures:
        sheet.add(figure)
    return sheet.drawings()


@pytest.mark.parametrize(
    ("vertices", "codes", "outline"),
    [
        ([(0, 0), (10, 5), (10, -3)], None, "m0 0l10 5 0-8"),
        ([(1.4, 2.6), (1.4, 2.6), (3, 3)], None, "m1 3l0 0 2 0"),
        ([(0, 0), (10, 0), (10.2, 0.3), (20, 0)], None, "m0 0l10 0 10 0"),  # less than a unit is left out
        ([(0, 0), (4, 0), (4, 4), (9, 9), (5, 5), (6, 6)], [1, 2, 2, 79, 1, 2], "m0 0l4 0 0 4zm5 5l1 1"),
        ([(0, 0), (1, 2), (3, 4)], [1, 3, 3], "m0 0q1 2 3 4"),
        ([(0, 0), (1, 2), (3, 4), (5, -6)], [1, 4, 4, 4], "m0 0c1 2 3 4 5-6"),
        ([(0, 0), (1, 1), (7, 7)], [1, 2, 0], "m0 0l1 1"),
        ([], None, ""),
    ],
)
def test_outlines(vertices, codes, outline):
    path = Path(np.reshape(vertices, (-1, 2)), codes)
    assert outline_of(path, SAME) == outline


def test_an_outline_does_not_drift():
    """Each point is relative to the last one as it was rounded."""
    line = Path(np.stack([np.arange(1000) * 0.9, np.zeros(1000)], 1))
    numbers = list(map(int, re.findall(r"-?\d+", outline_of(line, SAME))))
    assert np.abs(np.cumsum(numbers[::2]) - np.unique(np.round(np.arange(1000) * 0.9))).max() == 0


def test_a_line_stands_where_matplotlib_has_it():
    figure = Figure(figsize=(4, 2))
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, 8), ylim=(0, 4))
    ax.plot([1, 2, 6], [1, 3, 1], color="#123456", linewidth=3.6, dashes=(2, 1))
    path = next(
        e
        for e in ElementTree.fromstring(drawn(figure).document(0)).iter(f"{SVG}path")
        if e.get("stroke") == "#123456"
    )
    assert path.get("d") == "m500 1500l500-1000 2000 1000"  # in tenths of a pixel, from the top
    assert (path.get("stroke-width"), path.get("stroke-dasharray")) == ("50", "100 50")


def test_a_figure_s_own_pixels_are_kept():
    shades = np.array([[0, 51, 102], [153, 204, 255]], dtype=np.uint8)
    figure = Figure(figsize=(3, 2))
    figure.add_axes((0, 0, 1, 1)).imshow(shades, cmap="gray", vmin=0, vmax=255, aspect="auto")
    (image,) = ElementTree.fromstring(drawn(figure).document(0)).iter(f"{SVG}image")
    content = base64.b64decode(image.get("href").partition(",")[2])
    stored = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    a, b, c, d, e, f = map(float, re.findall(r"-?[\d.]+", image.get("transform")))
    x, y = np.meshgrid([0.5, 1.5, 2.5], [0.5, 1.5])
    columns, rows = (a * x + c * y + e) // 1000, (b * x + d * y + f) // 1000  # of pixels 1000 units wide
    shown = np.zeros((2, 3))
    shown[rows.astype(int), columns.astype(int)] = stored
    assert (shown == shades).all()


def test_frames_share_what_they_have_in_common():
    def figure(k):
        figure, ax = plots.subplots(height=2)
        ax.plot([0, 1], [0, k])
        ax.set(ylim=(0, 3), title=f"k = {k}")
        return figure

    drawings = drawn(*map(figure, (1, 2, 3)))
    alone = [drawn(figure(k)) for k in (1, 2, 3)]
    assert sum(map(len, drawings.parts)) < 1.5 * sum(map(len, alone[0].parts))
    assert len(drawings.parts) <= 9
    for i, one in enumerate(alone):  # up to the names of what is shared
        names = re.compile(r"[mpc]\d+(?=['\)])")
        assert names.sub("", "".join(drawings.parts[j] for j in drawings.frames[i])) == names.sub(
            "", "".join(one.parts)
        )


@pytest.mark.parametrize(
    "frames",
    [
        [[0, 1, 2]],
        [[0, 1, 2], [0, 3, 2]],
        [[0, 1], [1, 0]],
        [[0, 0, 1]],
        [[0, 1, 0, 1]],
        [[0], [1]],
        [[0, 1], [2, 1]],
        [[0, 1], []],
    ],
)
def test_joined_parts_draw_the_same(frames):
    parts = ["a", "b", "c", "d"][: 1 + max(i for frame in frames for i in frame)]
    joined, found = _joined(parts, frames)
    assert ["".join(joined[i] for i in frame) for frame in found] == [
        "".join(parts[i] for i in frame) for frame in frames
    ]


def everything():
    """A figure with all that the book's explorers draw."""
    figure, ((a, b), (c, d)) = plots.subplots(2, 2, figsize=(6.4, 4))
    line = np.linspace(-3, 3, 301)
    a.plot(line, np.exp(-(line**2)), color=plots.COLORS["q"])
    a.fill_between(line, np.exp(-(line**2)), color=plots.COLORS["q"], alpha=0.3)
    a.plot(line[::20], np.sin(line[::20]), "o", color=plots.COLORS["accent"], alpha=0.5)
    a.plot([1], [0.5], "+", color=plots.COLORS["accent"], markersize=16, markeredgewidth=3)
    a.set(xlabel="$z$", ylabel=r"$q_\phi(\mathbf{z})$", ylim=(-1, 1.2))
    b.hist(np.sin(np.arange(300)), bins=12, color=plots.COLORS["muted"])
    b.axvline(0.3, linestyle="--", color=plots.COLORS["ink"])
    b.set_title("12 × 25 draws")
    c.imshow(np.arange(64).reshape(8, 8), cmap="gray_r")
    c.axis("off")
    d.contour(line, line, np.add.outer(line**2, line**2), [1, 4], colors=plots.COLORS["q"])
    d.annotate("", (1, 1), (0, 0), arrowprops={"arrowstyle": "-|>", "color": plots.COLORS["accent"]})
    d.vlines(line[::10], -3, -2.5, alpha=0.5, linewidth=0.6)
    d.text(-2.8, 2.5, r"$\mathcal{L}_K$ = −1.5", color=plots.COLORS["bound"], rotation=20)
    d.set_xscale("symlog")
    return figure


def in_a_browser(browser, document):
    page = browser.new_page(viewport={"width": 640, "height": 400}, device_scale_factor=2)
    data = base64.b64encode(document.encode()).decode()
    page.set_content(
        f"<body style='margin:0'><img style='display:block' src='data:image/svg+xml;base64,{data}'>"
    )
    page.locator("img").evaluate("e => e.decode()")
    shown = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    page.close()
    return np.asarray(shown).astype(int)


def difference(one, other):
    """The share of pixels that differ by more than a quarter, after a little blur: edges fall otherwise."""
    small = [np.asarray(Image.fromarray(a.astype(np.uint8)).reduce(4)).astype(int) for a in (one, other)]
    return (np.abs(small[0] - small[1]).max(-1) > 64).mean()


def test_a_browser_shows_what_matplotlib_draws(browser):
    figure = everything()
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # otherwise a second drawing may have its axes elsewhere
    document = drawn(figure).document(0)
    shown = in_a_browser(browser, document)
    expected = np.asarray(Image.open(io.BytesIO(still(figure))).convert("RGB")).astype(int)
    assert shown.shape == expected.shape == (800, 1280, 3)
    least = difference(shown, expected)
    assert least < 0.01
    for spoiled in (
        document.replace("<use", "<x"),  # no letters
        re.sub(r" marker-\w+='[^']*'", "", document),  # no points
        document.replace("matrix(", "scale(0)matrix("),  # no image
        re.sub("stroke='#00665c'", "stroke='none'", document),  # no line
    ):
        assert spoiled != document
        assert difference(in_a_browser(browser, spoiled), expected) > least + 0.002


def test_single_points_and_rows_of_points_are_seen_inside_a_clip(browser):
    figure = Figure(figsize=(6.4, 4))
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, 64), ylim=(0, 40))
    ax.plot([10], [30], "o", color="red", markersize=20)
    ax.plot([30, 40, 50], [30, 30, 30], "o", color="red", markersize=20)
    shown = in_a_browser(browser, drawn(figure).document(0))
    assert [shown[200, x].tolist() for x in (200, 600, 800, 1000)] == [[255, 0, 0]] * 4


def test_a_clip_cuts(browser):
    figure = Figure(figsize=(6.4, 4))
    ax = figure.add_axes((0.25, 0.25, 0.5, 0.5), xlim=(0, 1), ylim=(0, 1))
    ax.axis("off")
    ax.fill_between([-5, 5], [-5, -5], [5, 5], color="#0000ff")
    circle = plt.Circle((0.5, 0.5), 0.25, transform=ax.transData)
    ax.imshow(np.zeros((2, 2, 3)), extent=(0, 1, 0, 1), aspect="auto", zorder=3).set_clip_path(circle)
    shown = in_a_browser(browser, drawn(figure).document(0))
    assert shown[50, 640].tolist() == [255, 255, 255]  # outside of the axes
    assert shown[400, 350].tolist() == [0, 0, 255]  # inside
    assert shown[400, 500].tolist() == [0, 0, 0]  # the image inside its circle
    assert shown[400, 640].tolist() == [0, 0, 0]


def test_another_size_is_refused_and_the_figure_stays_as_it_was():
    sheet = Sheet()
    figure, ax = plt.subplots(figsize=(2, 1), dpi=77)
    image = ax.imshow([[0, 1]], interpolation="nearest")
    sheet.add(figure)
    assert figure.dpi == 77 and image.get_interpolation() == "nearest"
    with pytest.raises(ValueError, match="one size, got 2 x 1 in and 3 x 1 in"):
        sheet.add(Figure(figsize=(3, 1)))
    plt.close(figure)
