"""`explore`: the same HTML every time, one still picture without scripts, and sliders that work in a browser."""

import base64
import gc
import io
import json
import re
import subprocess
import sys
import weakref
from urllib.parse import unquote
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from vaetut import Explorer, explore, plots
from vaetut.teaching.axes import title
from vaetut.teaching.frames import MAX_COLORS, draw_figure, fix, layout, still


def line(slope, shift=0.0):
    figure, ax = plots.subplots(height=1.5)
    ax.plot([0, 1], [shift, slope + shift], color=plots.COLORS["q"])
    ax.set(xlim=(0, 1), ylim=(-3, 3))
    return figure


@pytest.fixture(scope="module")
def explorer():
    return explore(
        line,
        alt="Slope {slope}, shift {shift}.",
        slope=[-1.0, 0.0, 1.0],
        shift=[0.25, 0.5],
        start={"slope": -1},
    )


def data_of(page):
    """What the script is called with: the texts, and the drawings."""
    texts, drawings = re.search(r'\("[0-9a-f]{12}",\n(.*),\n(.*)\);\n</script>$', page).groups()
    return json.loads(texts), json.loads(drawings)


def outlines(frame):
    """The paths of an SVG file that are drawn with a line, as the numbers of their first points."""
    found = re.findall(rb"<path d='m(-?\d+) ?(-?\d+)l(-?\d+) ?(-?\d+)' fill='none' stroke='#00665c'", frame)
    return [[int(n) for n in numbers] for numbers in found]


def picture(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


# What the output holds


def test_frames_follow_the_product_of_the_axes(explorer):
    assert explorer.labels == {"slope": ["−1", "0", "1"], "shift": ["0.25", "0.5"]}
    assert explorer.alts[:3] == ["Slope −1, shift 0.25.", "Slope −1, shift 0.5.", "Slope 0, shift 0.25."]
    assert len(explorer.frames) == 6
    for frame in explorer.frames:
        root = ElementTree.fromstring(frame)
        assert (root.get("width"), root.get("height"), root.get("viewBox")) == ("500", "150", "0 0 5000 1500")
    # the line of each: where it begins, and how far it rises (downwards is positive)
    starts, rises = zip(
        *[(outlines(frame)[0][1], outlines(frame)[0][3]) for frame in explorer.frames], strict=True
    )
    up = rises[0]  # the slope is -1, and downwards is positive
    assert up > 100 and rises == pytest.approx([up, up, 0, 0, -up, -up], abs=1)
    assert starts[0] == pytest.approx(starts[2], abs=5)  # snapped to whole pixels
    assert starts[0] == pytest.approx(starts[4], abs=1) and starts[0] > starts[1] + 20


def test_two_calls_give_the_same_html(explorer):
    again = explore(
        line,
        alt="Slope {slope}, shift {shift}.",
        slope=[-1.0, 0.0, 1.0],
        shift=[0.25, 0.5],
        start={"slope": -1},
    )
    assert again._repr_html_() == explorer._repr_html_() == explorer._repr_html_()


def test_another_process_gives_the_same_html():
    code = (
        "from vaetut import explore, plots\n"
        "def draw(k):\n"
        "    figure, ax = plots.subplots(height=1)\n"
        "    ax.plot([0, k])\n"
        "    return figure\n"
        "print(explore(draw, alt='{k}', k=[1, 2])._repr_html_())"
    )
    pages = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in "ab"
    }
    assert len(pages) == 1


def test_the_key_depends_on_content(explorer):
    other = explore(line, alt="Another text {slope}.", slope=[-1.0, 0.0])
    keys = [re.search('data-explorer="([0-9a-f]{12})"', e._repr_html_()).group(1) for e in (explorer, other)]
    assert keys[0] != keys[1]


ELSEWHERE = re.compile(
    r"""https?:(?!//www\.w3\.org/2000/svg')|["'(]//(?! )|src="(?!data:image/svg)|href(?!='#)|"""
    r"""@import|url\((?!#)|fetch|import\("""
)


def test_html_needs_nothing_from_elsewhere(explorer):
    page = explorer._repr_html_()
    assert not ELSEWHERE.search(re.sub("[A-Za-z0-9+/]{100,}={0,2}", "PICTURE", page))
    for change in (("data:image/svg", "https://example.org/"), ("href='#", "href='a"), ("url(#", "url(a")):
        assert change[0] in page and ELSEWHERE.search(page.replace(*change))
    assert ' id="' not in page  # two copies on a page would have the same
    assert page.count("<script>") == page.count("</script>") == 1


def test_a_still_picture_with_its_text_remains_without_scripts(explorer):
    page = re.sub(r"<script>.*?</script>|<style>.*?</style>", "", explorer._repr_html_(), flags=re.DOTALL)
    image = re.search('<img src="data:image/svg\\+xml;base64,([^"]+)" alt="([^"]+)"', page)
    assert image.group(2) == "Slope −1, shift 0.5."  # slope begins where start says, shift in the middle
    assert base64.b64decode(image.group(1)) == explorer.frames[1]
    assert "The sliders move the picture where scripts run" in page


def test_sliders_are_labeled(explorer):
    page = explorer._repr_html_()
    assert re.findall(
        r'<label><span>(\w+)</span> <input type="range" min="0" max="(\d)" step="1" value="(\d)"', page
    ) == [
        ("slope", "2", "0"),
        ("shift", "1", "1"),
    ]
    assert 'aria-valuetext="−1"' in page
    assert "<output>−1</output>" in page
    assert 'data-lm-suppress-shortcuts="true"' in page


def test_text_cannot_break_out_of_the_html():
    nasty = '</script><script>alert("1")</script>'
    page = explore(
        lambda who: line(0), alt="Who: {who} & 'co'", who=[nasty, "b"], start={"who": nasty}
    )._repr_html_()
    assert page.count("<script>") == page.count("</script>") == 1
    assert data_of(page)[0][0][0][0] == nasty
    assert "&lt;/script&gt;" in page


def test_repr_has_no_address(explorer):
    assert repr(explorer) == "Explorer(slope: 3 values, shift: 2 values; 6 frames)"


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.5, -1.0, 1e-5], ["0.5", "−1", "1e−05"]),
        ([1, 10, -100000], ["1", "10", "−100000"]),
        (np.linspace(-1, 1, 3), ["−1", "0", "1"]),
        (torch.linspace(0, 1, 4, dtype=torch.float64), ["0", "0.3333", "0.6667", "1"]),
        ([-0.3, -0.1 - 0.2 + 0.3, 0.3], ["−0.3", "0", "0.3"]),
        ([1.00001, 1.00002], ["1.00001", "1.00002"]),
        (["a-b", "c"], ["a-b", "c"]),
        (range(2), ["0", "1"]),
        ([1e300, 1e-300], ["1e+300", "1e−300"]),
    ],
)
def test_values_are_shown_short_and_different(values, labels):
    assert explore(lambda v: line(0), alt="{v}", v=values).labels["v"] == labels


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("mu", "μ"), ("sigma", "σ"), ("z_1", "z₁"), ("z2", "z₂"), ("mu_10", "μ₁₀"), ("log_sigma", "log σ"),
        ("M", "M"), ("hidden_units", "hidden units"), ("x_hat", "x hat"), ("layer_2", "layer 2"), ("row10", "row10"),
    ],
)  # fmt: skip
def test_names_of_axes_are_written_as_symbols(name, shown):
    assert title(name) == shown


def test_labels_and_units_are_shown():
    made = explore(
        lambda M, noise: line(0),
        alt="{M} {noise}",
        M=[1, 2],
        noise=[0.5, 1.0],
        labels={"M": "minibatch M"},
        units={"noise": "nats"},
    )
    page = made._repr_html_()
    assert made.titles == {"M": "minibatch M", "noise": "noise"} and made.alts[0] == "1 0.5"
    assert 'aria-label="Explorer: minibatch M, noise"' in page and "<span>minibatch M</span>" in page
    assert "<output>1 nats</output>" in page and data_of(page)[0][0] == [["1", "2"], ["0.5 nats", "1 nats"]]


def test_axes_may_be_called_labels_and_units():
    made = explore(lambda labels, units: line(0), alt="{units}", labels=["a", "b"], units=[10, 20])
    assert list(made.labels) == ["labels", "units"]


def test_two_or_three_names_are_radio_buttons():
    made = explore(
        lambda family, k: line(k), alt="{family} {k}", family=["a", "b"], k=[0, 1], start={"family": "a"}
    )
    page = made._repr_html_()
    assert page.count('type="radio"') == 2 and page.count('type="range"') == 1
    assert 'role="radiogroup" aria-label="family"' in page
    assert page.count(" checked>") == 1 and re.search('value="0"[^>]* checked> a</label>', page)
    many = explore(lambda family: line(0), alt="x", family=["a", "b", "c", "d"])._repr_html_()
    assert 'type="radio"' not in many


def test_the_bundle_holds_a_picture_for_viewers_without_scripts(explorer):
    bundle, metadata = explorer._repr_mimebundle_()
    assert bundle["text/html"] == explorer._repr_html_() and bundle["text/plain"] == repr(explorer)
    shown = Image.open(io.BytesIO(bundle["image/png"]))
    assert (shown.format, shown.size) == ("PNG", (1000, 300))
    begin = picture(still(fix(line(-1.0, 0.5), None)))
    assert abs(picture(bundle["image/png"]) - begin).mean() < 3  # where the sliders begin
    assert metadata == {"image/png": {"width": 500, "height": 150}}


def test_draw_gets_python_values():
    seen = set()
    explore(
        lambda v, w: seen.add((type(v), type(w))) or line(0), alt="x", v=torch.arange(2), w=np.float32([1, 2])
    )
    assert seen == {(int, float)}


def test_alt_takes_formats_and_functions():
    def alts(alt):
        return explore(line, alt=alt, slope=[-0.5, 2.0], shift=[0, 1]).alts

    assert alts("{slope:.2f} {shift}")[0] == "−0.50 0"
    assert alts(lambda slope, shift: f"{slope + shift}")[:2] == ["-0.5", "0.5"]


@pytest.mark.parametrize("start", [{"v": 0.3}, {"v": 0.1 + 0.2}])
def test_start_forgives_rounding(start):
    assert explore(line_of_v, alt="x", start=start, v=[0.1, 0.2, 0.3]).start == {"v": 2}


def line_of_v(v):
    return line(0)


# Frames


def test_no_figure_stays_open_and_none_is_shown_twice():
    def draw(k):
        plt.figure()  # a stray one
        figure, ax = plt.subplots()
        ax.plot([0, k])
        return figure

    kept = plt.figure()
    explore(draw, alt="{k}", k=[1, 2])
    assert plt.get_fignums() == [kept.number]
    plt.close(kept)


def test_one_figure_may_serve_for_all_frames():
    figure, ax = plt.subplots(figsize=(3, 2))
    (curve,) = ax.plot([0, 1], [0, 1])

    def draw(k):
        curve.set_ydata([0, k])
        return figure

    explorer = explore(draw, alt="{k}", k=[0.1, 0.5, 0.9])
    assert len(set(explorer.frames)) == 3
    assert plt.get_fignums() == []  # the explorer shows it: pyplot must not show it as well


def test_no_figure_stays_open_when_draw_fails():
    def draw(k):
        plt.figure()
        raise RuntimeError("inside draw")

    with pytest.raises(RuntimeError, match="inside draw"):
        explore(draw, alt="{k}", k=[1, 2])
    assert plt.get_fignums() == []


def test_the_readers_settings_stay_as_they_are():
    before = dict(plt.rcParams)
    explore(line, alt="x", slope=[0, 1])
    assert dict(plt.rcParams) == before


def test_all_frames_have_one_size_whatever_is_in_them():
    def draw(power):
        figure, ax = plt.subplots(figsize=(4, 2))
        ax.plot([0, 10**power])  # tick labels of different widths
        ax.set_title("a\nb" * power)
        return figure

    with plt.rc_context({"savefig.bbox": "tight", "figure.dpi": 77}):
        explorer = explore(draw, alt="{power}", power=[0, 1, 6])
    assert explorer.size == (400, 200)
    assert all(b"width='400' height='200' viewBox='0 0 4000 2000'" in frame for frame in explorer.frames)


def test_axes_stay_in_place_while_labels_change():
    def draw(power):
        figure, ax = plots.subplots(height=2)
        ax.plot([0, 10**power])
        return figure

    figures = [draw(power) for power in (0, 3, 6)]
    places = layout([figures[0], figures[2]])
    for figure in figures:
        fix(figure, places)
    assert len({tuple(figure.axes[0].get_position().bounds) for figure in figures}) == 1
    room = figures[2].axes[0].yaxis.get_tightbbox(FigureCanvasAgg(figures[2]).get_renderer())
    assert room.x0 >= 0  # the widest label fits


def test_a_transparent_figure_is_shown_on_white():
    figure = Figure(figsize=(2, 1), facecolor="none")
    figure.text(0.5, 0.5, "a")
    assert picture(still(figure))[0, 0].tolist() == [255, 255, 255]


def test_the_picture_of_a_frame_has_few_colors_and_flat_ones_are_exact():
    colors = [plots.COLORS[name] for name in ("bound", "gap", "evidence")]
    figure = Figure(figsize=(3, 1))
    for i, color in enumerate(colors):
        figure.add_artist(plt.Rectangle((i / 3, 0), 1 / 3, 0.4, color=color))
    figure.text(0.1, 0.8, "abc")
    found = picture(still(figure))
    assert ["#" + bytes(found[-5, x].tolist()).hex() for x in (100, 300, 500)] == colors
    assert len(np.unique(found.reshape(-1, 3), axis=0)) <= MAX_COLORS


def test_grays_stay_gray():
    """Among pale blues, a gray pixel's nearest color may be one of them."""
    shades = np.linspace(0, 1, 256)[None].repeat(100, axis=0)
    blues = np.stack([shades, shades, np.ones_like(shades)], axis=-1)
    figure = Figure(figsize=(2.56, 1))
    figure.figimage(shades, 0, 0, cmap="gray", vmin=0, vmax=1)
    figure.figimage(blues, 256, 0)
    gray = picture(still(draw_figure(lambda: figure, {})))[110:190, :256]  # the lower left quarter
    assert (gray == gray[..., :1]).all()
    assert len(np.unique(gray)) > 8 and abs(gray[0, :, 0] - np.arange(256)).max() < 24


def test_a_line_plot_is_small():
    z = np.linspace(-4, 4, 200)

    def draw(mean):
        figure, ax = plots.subplots(height=3.2)
        plots.density(ax, z, np.exp(-((z - mean) ** 2)), "$q(z)$")
        ax.set(ylim=(0, 1.3), yticks=[])
        return figure

    explorer = explore(draw, alt="{mean}", mean=[-1.0, 0.0, 1.0])
    assert len(json.dumps(explorer.drawings)) < 15_000  # all three
    assert len(explorer.drawings.parts) < 10


def test_figures_are_let_go():
    figures = []

    def draw(slope):
        figure = line(slope)
        figures.append(weakref.ref(figure))
        return figure

    kept = explore(draw, alt="{slope}", slope=[0, 1])
    gc.collect()
    assert [figure() for figure in figures] == [None] * len(figures)
    assert len(kept.frames) == 2


# Bad input


def good(**changed):
    arguments = {"draw": line, "alt": "Slope {slope}.", "slope": [0.0, 1.0]}
    arguments.update(changed)
    return arguments


def two_sizes(slope):
    return plt.figure(figsize=(2 + slope, 2))


BAD = {
    "draw is a figure": (good(draw=Figure()), TypeError, "draw must be a function"),
    "draw returns nothing": (
        good(draw=lambda slope: None),
        TypeError,
        "draw must return a matplotlib Figure, got None",
    ),
    "draw returns axes": (
        good(draw=lambda slope: line(0).axes[0]),
        TypeError,
        "draw must return .* got Axes",
    ),
    "draw changes size": (good(draw=two_sizes), ValueError, "draw must return figures of one size"),
    "no axes": ({"draw": line, "alt": "x"}, ValueError, "axes must hold at least one slider"),
    "empty axis": (good(slope=[]), ValueError, "slope must have at least two values, got 0"),
    "single value": (good(slope=[1]), ValueError, "slope must have at least two values, got 1"),
    "number as axis": (good(slope=3), TypeError, "slope must be a sequence"),
    "string as axis": (good(slope="abc"), TypeError, "slope must be a sequence"),
    "NaN": (good(slope=[0.0, float("nan")]), ValueError, "slope must hold finite values, got nan"),
    "infinity": (
        good(slope=torch.tensor([0.0, float("inf")])),
        ValueError,
        "slope must hold finite values, got inf",
    ),
    "None in axis": (good(slope=[0, None]), TypeError, "slope must hold numbers or strings, got NoneType"),
    "complex in axis": (good(slope=[0, 1j]), TypeError, "slope must hold numbers or strings, got complex"),
    "matrix as axis": (good(slope=torch.zeros(2, 2)), TypeError, "slope must have one dimension"),
    "value twice": (good(slope=[0, 1, 0]), ValueError, "slope must not repeat a value"),
    "too many": (good(slope=range(21), shift=range(20)), ValueError, "at most 400 frames, got 21 x 20 = 420"),
    "alt empty": (good(alt="  "), ValueError, "alt must describe the picture"),
    "alt missing": ({"draw": line, "slope": [0, 1]}, TypeError, "alt"),
    "alt None": (good(alt=None), TypeError, "alt must be a format string or a function"),
    "alt of no axis": (
        good(alt="{mean}"),
        ValueError,
        r"alt has a field that cannot be formatted: \{mean\} is not one of the axes \(slope\)",
    ),
    "alt by position": (good(alt="{}"), ValueError, "alt has a field that cannot be formatted"),
    "alt unbalanced": (good(alt="{slope"), ValueError, "alt has a field that cannot be formatted"),
    "alt wrong format": (
        good(slope=["a", "b"], alt="{slope:.2f}"),
        ValueError,
        "alt has a field that cannot be formatted",
    ),
    "alt returns None": (good(alt=lambda slope: None), TypeError, "alt must return a string, got NoneType"),
    "labels of no axis": (
        good(labels={"mean": "m"}),
        ValueError,
        r"labels must name axes \(slope\), got 'mean'",
    ),
    "units are numbers": (good(units={"slope": 3}), TypeError, "units must hold strings, got int for slope"),
    "start off axis": (good(start={"slope": 0.5}), ValueError, "slope has no value 0.5"),
    "start text": (good(start={"slope": "0"}), ValueError, "slope has no value '0'"),
    "start of no axis": (good(start={"mean": 0}), ValueError, r"start must name axes \(slope\), got 'mean'"),
}


@pytest.mark.parametrize(("arguments", "error", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        explore(**arguments)
    assert plt.get_fignums() == []


def test_bad_input_costs_no_drawing():
    drawn = []
    for change in ({"alt": "{mean}"}, {"start": {"slope": 9}}, {"shift": range(300)}):
        with pytest.raises(ValueError):
            explore(**good(draw=lambda **values: drawn.append(values), **change))
    assert drawn == []


# With a kernel


def test_live_shows_the_same_sliders_finer(explorer):
    widgets = pytest.importorskip("ipywidgets")
    picture_widget, slope, shift = explorer.live().children
    assert isinstance(slope, widgets.FloatSlider) and slope.continuous_update
    assert (slope.description, slope.value, slope.min, slope.max, shift.value) == ("slope", -1, -1, 1, 0.5)
    assert slope.step == pytest.approx(0.1)
    before = picture_widget.value
    assert 'alt="Slope −1, shift 0.5."' in before
    slope.value = 0.3
    assert 'alt="Slope 0.3, shift 0.5."' in picture_widget.value
    assert before != picture_widget.value
    assert plt.get_fignums() == []


def test_live_stops_only_where_draw_can():
    """A draw that looks its numbers up, whole numbers, and names keep to the values of the explorer."""
    widgets = pytest.importorskip("ipywidgets")
    table = {0.0: 1.0, 0.5: -1.0, 1.0: 0.0}
    made = explore(
        lambda slope, steps, kind: line(table[slope]),
        alt="{slope} {steps} {kind}",
        slope=list(table),
        steps=[1, 10, 100],
        kind=["Laplace", "normal"],
    )
    picture_widget, slope, steps, kind = made.live().children
    assert isinstance(slope, widgets.SelectionSlider) and isinstance(steps, widgets.SelectionSlider)
    assert isinstance(kind, widgets.ToggleButtons) and kind.value == "normal"
    assert [label for label, _ in slope.options] == ["0", "0.5", "1"]
    slope.value, steps.value, kind.value = 1.0, 100, "Laplace"
    assert 'alt="1 100 Laplace"' in picture_widget.value


def test_ipywidgets_is_imported_only_for_live():
    code = "import sys, vaetut; assert 'ipywidgets' not in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# In a browser

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>t</title><body>
<div id="one">{one}</div><div id="two">{two}</div><div id="copy">{one}</div></body></html>"""


@pytest.fixture
def page(browser, explorer):
    two = explore(line, alt="Only slope {slope}.", slope=[0, 1, 2, 3, 4])
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on(
        "console", lambda message: page.problems.append(message.text) if message.type == "error" else None
    )
    page.on(
        "request",
        lambda request: None if request.url.startswith("data:") else page.problems.append(request.url),
    )
    page.set_content(PAGE.format(one=explorer._repr_html_(), two=two._repr_html_()))
    yield page
    page.close()
    assert page.problems == []


def state(page, where):
    root = page.locator(where)
    image = root.locator("img")
    return (
        image.get_attribute("src"),
        image.get_attribute("alt"),
        root.locator("output").all_inner_texts(),
        [slider.get_attribute("aria-valuetext") for slider in root.locator("input").all()],
        root.locator("[aria-live]").inner_text(),
    )


def test_arrow_keys_move_picture_text_and_value(page, explorer):
    before = state(page, "#one")
    assert before[1:] == ("Slope −1, shift 0.5.", ["−1", "0.5"], ["−1", "0.5"], "")
    page.locator("#one").get_by_role("slider", name="slope", exact=True).focus()
    page.keyboard.press("ArrowRight")
    after = state(page, "#one")
    assert after[1:] == ("Slope 0, shift 0.5.", ["0", "0.5"], ["0", "0.5"], "Slope 0, shift 0.5.")
    assert after[0] != before[0]
    address, text = after[0].split(",", 1)
    assert address == "data:image/svg+xml" and unquote(text).encode() == explorer.frames[3]
    page.keyboard.press("End")
    assert state(page, "#one")[1] == "Slope 1, shift 0.5."


def test_the_mouse_moves_the_picture(page):
    slider = page.locator("#two input")
    before = state(page, "#two")
    assert before[1] == "Only slope 2."
    box = slider.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2, steps=4)
    moving = state(page, "#two")
    assert moving[1] == "Only slope 4." and moving[0] != before[0]
    assert moving[4] == ""  # while it moves, a screen reader is not flooded
    page.mouse.up()
    assert state(page, "#two")[4] == "Only slope 4."


def test_explorers_on_one_page_are_independent(page):
    before = [state(page, where) for where in ("#two", "#copy")]
    page.locator("#one input").first.focus()
    page.keyboard.press("ArrowRight")
    assert [state(page, where) for where in ("#two", "#copy")] == before


def test_the_same_output_twice_on_one_page_works_twice(page):
    before = state(page, "#one")
    page.locator("#copy input").nth(1).focus()
    page.keyboard.press("ArrowLeft")
    assert state(page, "#copy")[1] == "Slope −1, shift 0.25."
    assert state(page, "#one") == before


def test_a_page_saved_by_a_browser_still_works(page, browser):
    copy = browser.new_page()
    copy.set_content(page.content())
    copy.locator("#two input").focus()
    copy.keyboard.press("ArrowRight")
    assert state(copy, "#two")[1] == "Only slope 3."
    copy.close()


def test_keys_stay_with_the_slider(page):
    page.evaluate("window.heard = []; document.addEventListener('keydown', e => heard.push(e.key))")
    page.locator("#one input").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("heard") == []


def test_no_globals_are_left(page):
    bare = page.context.browser.new_page()
    names = "Object.keys(window).filter(name => !/^[0-9]+$/.test(name)).length"
    assert page.evaluate(names) == bare.evaluate(names)
    bare.close()


def test_it_fits_a_phone_and_a_thumb(page):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert all(slider.bounding_box()["height"] >= 44 for slider in page.locator("input").all())
    image = page.locator("#one img").bounding_box()
    assert image["height"] == pytest.approx(image["width"] * 150 / 500, abs=1)
    assert page.locator(".vaetut-static").count() == 0  # the notice for pages without scripts is gone


def family_line(family, slope, a_long_name):
    return line(slope + 2 * (family == "b"))


@pytest.fixture
def choices(browser):
    made = explore(
        family_line,
        alt="{family} {slope}",
        start={"family": "a"},
        family=["a", "b"],
        slope=[0, 1],
        a_long_name=[1, 2],
    )
    page = browser.new_page(viewport={"width": 720, "height": 450})  # 1440 x 900 at a zoom of 200 %
    html = made._repr_html_()
    page.set_content(PAGE.format(one=html, two=""))  # twice on the page
    yield page
    page.close()


def alts_on(page):
    return [page.locator(where).locator("img").get_attribute("alt") for where in ("#one", "#copy")]


def test_radio_buttons_of_two_copies_are_independent(choices):
    assert alts_on(choices) == ["a 1", "a 1"]
    choices.locator("#copy").get_by_role("radio", name="b").check()
    assert alts_on(choices) == ["a 1", "b 1"]
    choices.locator("#one").get_by_role("radio", name="a").focus()
    choices.keyboard.press("ArrowRight")
    assert alts_on(choices) == ["b 1", "b 1"]
    choices.locator("#copy").get_by_role("radio", name="a").check()
    assert alts_on(choices) == ["b 1", "a 1"]
    for button in choices.get_by_role("radio").all():
        assert button.locator("..").bounding_box()["height"] >= 44


def test_tracks_are_of_equal_length_and_in_view_with_the_picture(choices):
    tracks = [slider.bounding_box() for slider in choices.locator("#one input[type=range]").all()]
    assert len(tracks) == 2 and tracks[0]["width"] == tracks[1]["width"] > 200
    assert tracks[0]["x"] == tracks[1]["x"]
    box = choices.locator("#one .vaetut-explorer").bounding_box()
    assert box["height"] <= 450
    tall = explore(lambda k: plots.subplots(height=5)[0], alt="x", k=[1, 2])
    choices.set_content(PAGE.format(one=tall._repr_html_(), two=""))
    box = choices.locator("#one .vaetut-explorer").bounding_box()
    assert 300 < box["height"] <= 450


def test_a_finger_that_scrolls_leaves_the_slider_as_it_was(page):
    slider = page.locator("#two input")
    before = state(page, "#two")
    touched = """input => {
        input.dispatchEvent(new PointerEvent("pointerdown", {pointerType: "touch", bubbles: true}));
        input.value = 4;
        input.dispatchEvent(new Event("input", {bubbles: true}));
    }"""
    slider.evaluate(touched)
    assert state(page, "#two")[1] == "Only slope 4."
    slider.evaluate("input => input.dispatchEvent(new PointerEvent('pointercancel', {bubbles: true}))")
    assert state(page, "#two")[1:] == before[1:]
    assert (
        unquote(state(page, "#two")[0].partition(",")[2])
        == base64.b64decode(before[0].partition(",")[2]).decode()
    )


def test_without_scripts_the_notice_and_the_picture_stay(browser, explorer):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.set_content(PAGE.format(one=explorer._repr_html_(), two=""))
    assert page.locator(".vaetut-static").first.is_visible()
    assert page.locator("#one img").get_attribute("alt") == "Slope −1, shift 0.5."
    context.close()


def test_public_class():
    assert Explorer.__module__ == "vaetut.teaching.explore"
