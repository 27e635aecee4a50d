"""The book's colors, measured; its style, which leaves other people's alone; and what its drawings refuse."""

import io
import itertools
import subprocess
import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from vaetut import plots

WHITE = np.array([255.0, 255, 255])
DARK_PAGE = np.array([0x12, 0x12, 0x12])  # the theme's background in its dark mode

# How a color-blind eye maps linear RGB (Machado, Oliveira and Fernandes 2009, severity 1).
VISION = {
    "full": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def rgb(name):
    return np.array([int(plots.COLORS[name][i : i + 2], 16) for i in (1, 3, 5)], float)


def linear(color):
    c = color / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def seen(color, vision):
    light = np.clip(VISION[vision] @ linear(color), 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def contrast(a, b):
    """WCAG 2: the ratio of relative luminances."""
    low, high = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (a, b))
    return (high + 0.05) / (low + 0.05)


def on_dark_page(color):
    """book.css: invert(1), hue-rotate(180deg), then screen over the page."""
    gray = np.tile([0.213, 0.715, 0.072], (3, 1))
    turned = np.clip((2 * gray - np.eye(3)) @ (255 - color), 0, 255)
    return 255 - (255 - turned) * (255 - DARK_PAGE) / 255


def lab(color):
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
    t = np.array(to_xyz) @ linear(color) / [0.95047, 1, 1.08883]
    f = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def difference(a, b):
    """CIE 1976; 2.3 is just noticeable side by side."""
    return float(np.linalg.norm(lab(a) - lab(b)))


def test_the_color_arithmetic_is_right():
    assert contrast(np.zeros(3), WHITE) == pytest.approx(21)
    assert contrast(np.array([119.0] * 3), WHITE) == pytest.approx(4.48, abs=0.01)  # WCAG's well-known #777
    assert lab(np.array([255.0, 0, 0])) == pytest.approx([53.24, 80.09, 67.20], abs=0.02)
    assert on_dark_page(WHITE) == pytest.approx(DARK_PAGE)
    assert on_dark_page(np.zeros(3)) == pytest.approx(WHITE)
    red, green = np.array([200.0, 60, 40]), np.array([110.0, 105, 40])
    assert difference(red, green) > 50 and difference(seen(red, "deutan"), seen(green, "deutan")) < 15


@pytest.mark.parametrize("name", plots.COLORS)
def test_every_color_is_legible_in_light_and_dark(name):
    assert contrast(rgb(name), WHITE) >= 4.5
    assert contrast(on_dark_page(rgb(name)), DARK_PAGE) >= 4.5


@pytest.mark.parametrize("pair", list(itertools.combinations(plots.COLORS, 2)), ids="-".join)
def test_every_two_colors_can_be_told_apart(pair):
    one, two = map(rgb, pair)
    for vision in VISION:
        least = 18 if vision == "full" else 10
        assert difference(seen(one, vision), seen(two, vision)) >= least
        assert difference(seen(on_dark_page(one), vision), seen(on_dark_page(two), vision)) >= least


def test_the_book_does_to_figures_what_is_computed_here():
    css = (Path(__file__).parents[2] / "book" / "_static" / "book.css").read_text(encoding="utf-8")
    rule = css.split('html[data-theme="dark"] .bd-content div.cell_output img {')[1].split("}")[0]
    assert "filter: invert(1) hue-rotate(180deg);" in rule
    assert "mix-blend-mode: screen;" in rule


def test_colors_have_the_agreed_names():
    assert list(plots.COLORS) == ["bound", "gap", "evidence", "q", "p", "ink", "muted", "accent"]


# Style


def test_import_changes_no_setting():
    code = (
        "import matplotlib; before = matplotlib.rcParams.copy(); import vaetut, sys; "
        "assert 'matplotlib.pyplot' not in sys.modules; "
        "assert all(matplotlib.rcParams[k] == before[k] for k in before if k != 'backend')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_use_style_changes_settings_and_style_puts_them_back():
    before = dict(matplotlib.rcParams)
    with plots.style():
        assert matplotlib.rcParams["figure.dpi"] == 144
        assert matplotlib.rcParams["axes.spines.top"] is False
    assert dict(matplotlib.rcParams) == before
    with matplotlib.rc_context():
        plots.use_style()
        assert matplotlib.rcParams["figure.dpi"] == 144
    assert dict(matplotlib.rcParams) == before


def test_text_is_legible_on_a_phone():
    with plots.style():
        sizes = "font.size axes.labelsize axes.titlesize xtick.labelsize ytick.labelsize legend.fontsize"
        shrunk = 350 / (matplotlib.rcParams["figure.figsize"][0] + 0.2)  # pixels per inch, margins included
        for key in sizes.split():
            assert matplotlib.rcParams[key] / 72 * shrunk >= 10


def test_subplots_are_not_shown_by_pyplot():
    figure, axes = plots.subplots(2, 3, height=5, sharex=True)
    assert axes.shape == (2, 3)
    assert figure.get_size_inches().tolist() == [5, 5]
    assert plt.get_fignums() == []
    assert plots.subplots(figsize=(3, 2))[0].get_size_inches().tolist() == [3, 2]


# Drawings

z = torch.linspace(-3, 3, 61)
curve = torch.exp(-(z**2))


def ax():
    return plots.subplots()[1]


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


DRAWINGS = {
    "graphical_model": lambda: plots.graphical_model(),
    "bound_and_gap": lambda: plots.bound_and_gap(ax(), -9.3, -10.0),
    "density": lambda: plots.density(ax(), z, curve, "q", fill=True),
    "image_grid": lambda: plots.image_grid(torch.rand(12, 64), (8, 8), rows=["a", "b"]),
    "latent_plane": lambda: plots.latent_plane(torch.randn(50, 2), torch.arange(50) % 10),
    "learning_curve": lambda: plots.learning_curve({"train": [-3.0, -2], "test": [-3.1, -2.5]}),
}


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS.keys())
def test_drawings_return_a_closed_figure_and_change_no_setting(draw):
    before = dict(matplotlib.rcParams)
    figure = draw()
    assert isinstance(figure, Figure)
    figure.savefig(io.BytesIO())
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []
    assert figure.get_facecolor() == (1, 1, 1, 1)


@pytest.mark.parametrize("draw", DRAWINGS.values(), ids=DRAWINGS.keys())
def test_no_text_is_cut_off(draw):
    figure = draw()
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 > -0.01 and box.y0 > -0.01 and box.x1 < width + 0.01 and box.y1 < height + 0.01


def test_graphical_model_names_what_the_paper_names():
    found = " ".join(texts(plots.graphical_model()))
    for part in (
        r"p_\theta(\mathbf{x}\mid\mathbf{z})",
        r"q_\phi(\mathbf{z}\mid\mathbf{x})",
        r"p_\theta(\mathbf{z})",
        "$N$",
    ):
        assert part in found


def test_bars_add_up():
    figure = plots.bound_and_gap(ax(), [-9.0, -9.5], torch.tensor([-12.0, -9.5]), low=-14.0, rows=["a", "b"])
    bars = [(bar.get_x(), bar.get_width()) for bar in figure.axes[0].patches]
    assert np.array(bars) == pytest.approx(np.array([(-14, 2), (-12, 3), (-14, 4.5), (-9.5, 0)]))
    assert texts(figure)[:3] == ["ELBO −12.00", "gap 3.00", r"$\log\,p(\mathbf{x})$ = −9.00"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b"]


def test_a_bound_below_the_axis_leaves_a_gap_only():
    figure = plots.bound_and_gap(ax(), -9.0, -50.0, low=-12.0)
    assert [(bar.get_x(), bar.get_width()) for bar in figure.axes[0].patches] == [(-12, 0), (-12, 3)]
    assert texts(figure)[:2] == ["ELBO −50.00", "gap 41.00"]


def test_labels_of_the_bars_stay_while_the_bound_moves():
    figures = [plots.bound_and_gap(ax(), -9.0, bound, low=-14.0) for bound in (-13.9, -11, -9)]
    places = [[text.get_position() for text in figure.axes[0].texts] for figure in figures]
    assert places[0] == places[1] == places[2]


def test_a_tight_float32_bound_is_no_error():
    evidence = torch.tensor(-123.45678)
    plots.bound_and_gap(ax(), evidence, evidence + 1e-5)


def test_density_carries_its_label():
    axes = ax()
    plots.density(axes, z, curve, "$q$", color="q")
    plots.density(axes, z, 3 * curve, "other", color="tab:red", at=1.0)
    one, two = axes.texts
    assert one.get_text() == "$q$" and one.xy == pytest.approx((0, 1), abs=1e-6)
    assert two.xy == pytest.approx((1, 3 * np.exp(-1)), abs=1e-5)
    assert matplotlib.colors.to_hex(one.get_color()) == plots.COLORS["q"]
    assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 3
    plots.density(axes, z, 0.1 * curve, "low")
    assert axes.get_ylim()[1] > 3  # a lower curve does not cut a higher one off


def test_image_grid_puts_every_pixel_in_its_place():
    images = torch.arange(5 * 6).reshape(5, 2, 3) / 30
    table = plots.image_grid(images, (2, 3), columns=2).axes[0].images[0].get_array().data
    assert table.shape == (3 * 3 - 1, 2 * 4 - 1)
    assert table[3:5, 4:7] == pytest.approx(images[3].numpy())
    assert table[6:, 4:] == pytest.approx(0)  # the empty place is white
    assert table[2] == pytest.approx(0)
    flat = plots.image_grid(images.reshape(5, 6), (2, 3), columns=2).axes[0].images[0].get_array().data
    assert (flat == table).all()


def test_image_grid_in_color():
    images = torch.rand(5, 3, 2, 4)
    table = plots.image_grid(images, (2, 4), columns=2).axes[0].images[0].get_array().data
    assert table.shape == (3 * 3 - 1, 2 * 5 - 1, 3)
    for channel in range(3):
        assert table[3:5, 5:9, channel] == pytest.approx(images[3, channel].numpy())
    assert table[6:, 5:] == pytest.approx(1) and table[2] == pytest.approx(1)  # white
    last = images.movedim(1, -1)
    for same, shape in (
        (images, (3, 2, 4)), (last, (2, 4)), (last, (2, 4, 3)),
        (images.flatten(1), (3, 2, 4)), (last.flatten(1), (2, 4, 3)),
    ):  # fmt: skip
        assert (plots.image_grid(same, shape, columns=2).axes[0].images[0].get_array().data == table).all()


def test_image_grid_clips_what_no_screen_can_show():
    table = plots.image_grid(torch.tensor([[-1.0, 2.0]]), (1, 2)).axes[0].images[0].get_array().data
    assert table.tolist() == [[0.0, 1.0]]


def test_latent_plane_draws_every_class():
    figure = plots.latent_plane(torch.randn(30, 2), torch.arange(30) % 3 + 7)
    drawn = [collection.get_offsets().shape[0] for collection in figure.axes[0].collections]
    assert drawn == [10, 10, 10]


def test_learning_curve_labels_do_not_lie_on_each_other():
    figure = plots.learning_curve({"a": [0.0, 1.0], "b": [0.0, 1.0], "c": [0.0, 0.99]})
    figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in figure.axes[0].texts), key=lambda box: box.y0)
    assert len(boxes) == 3
    assert all(low.y1 <= high.y0 + 2 for low, high in itertools.pairwise(boxes))


NAN = float("nan")
BAD = {
    "subplots rows": (lambda: plots.subplots(0), ValueError, "rows"),
    "bound above evidence": (
        lambda: plots.bound_and_gap(ax(), -9.0, -8.0),
        ValueError,
        "bound must not lie above",
    ),
    "bound NaN": (lambda: plots.bound_and_gap(ax(), -9.0, NAN), ValueError, "bound must be finite"),
    "evidence text": (lambda: plots.bound_and_gap(ax(), "x", -9.0), TypeError, "evidence must be numbers"),
    "low too high": (
        lambda: plots.bound_and_gap(ax(), -9.0, -10.0, low=-8.0),
        ValueError,
        "low must lie below",
    ),
    "rows": (
        lambda: plots.bound_and_gap(ax(), -9.0, -10.0, rows=["a", "b"]),
        ValueError,
        "rows must name each of the 1",
    ),
    "density shapes": (
        lambda: plots.density(ax(), z, z[1:], "q"),
        ValueError,
        "values must have the shape of z",
    ),
    "density matrix": (
        lambda: plots.density(ax(), z[None], z[None], "q"),
        ValueError,
        "z must have 1 dimensions",
    ),
    "images shape": (
        lambda: plots.image_grid(torch.rand(3, 63), (8, 8)),
        ValueError,
        r"images must be \[n, 64\]",
    ),
    "two channels": (
        lambda: plots.image_grid(torch.rand(3, 2, 8, 8), (2, 8, 8)),
        ValueError,
        r"image_shape must be \(height, width\), .* got \(2, 8, 8\)",
    ),
    "color of another size": (
        lambda: plots.image_grid(torch.rand(3, 3, 8, 9), (8, 8)),
        ValueError,
        "images must be",
    ),
    "no images": (lambda: plots.image_grid(torch.rand(0, 64), (8, 8)), ValueError, "images must be"),
    "image rows": (
        lambda: plots.image_grid(torch.rand(3, 64), (8, 8), rows=[]),
        ValueError,
        "rows must name each of the 1",
    ),
    "columns": (lambda: plots.image_grid(torch.rand(3, 64), (8, 8), columns=0), ValueError, "columns"),
    "plane of three": (
        lambda: plots.latent_plane(torch.rand(4, 3), z[:4]),
        ValueError,
        r"means must be \[n, 2\]",
    ),
    "plane labels": (lambda: plots.latent_plane(torch.rand(4, 2), z[:3]), ValueError, r"labels \[n\]"),
    "no curves": (lambda: plots.learning_curve({}), ValueError, "curves must hold"),
    "empty curve": (lambda: plots.learning_curve({"a": []}), ValueError, "curves must hold"),
    "infinite curve": (
        lambda: plots.learning_curve({"a": [0, -np.inf]}),
        ValueError,
        r"curves\['a'\] must be finite",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
