"""`explore`: sliders that move a figure without a kernel, so that they work in the book, on a phone, everywhere.

Every frame is drawn beforehand and kept as a small PNG inside the output; a few lines of JavaScript swap them.
Where scripts do not run, as on GitHub, one picture stays and its text says what it shows. Used in every chapter.
"""

import base64
import hashlib
import html
import importlib
import itertools
import json
import math
import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vaetut.teaching.frames import Places, draw_figure, layout, pixels, quantize

MAX_FRAMES = 400  # some 3 MB of HTML, and half a minute of drawing


@dataclass(frozen=True, eq=False)
class Explorer:
    """A picture with one slider per axis, as `explore` returns it; the last expression of a cell shows it.

    Attributes:
        labels: for each slider its name and the values as they are shown.
        alts: the text for each frame, in the order of ``itertools.product`` of the axes.
        frames: the frames, PNG files, in the same order.
        size: width and height of a frame in pixels.
        start: for each slider the position at which it begins.
    """

    labels: dict[str, list[str]]
    alts: list[str]
    frames: list[bytes] = field(repr=False)
    size: tuple[int, int]
    start: dict[str, int]
    _live: Callable[[], Any] = field(repr=False)

    def __repr__(self) -> str:
        axes = ", ".join(f"{name}: {len(texts)} values" for name, texts in self.labels.items())
        return f"Explorer({axes}; {len(self.frames)} frames)"

    def live(self) -> Any:
        """The same sliders through ipywidgets, which call ``draw`` in the running kernel at each move."""
        return self._live()

    def _repr_html_(self) -> str:
        first = 0
        for name, texts in self.labels.items():
            first = first * len(texts) + self.start[name]
        pictures = [base64.b64encode(frame).decode("ascii") for frame in self.frames]
        data = json.dumps([list(self.labels.values()), self.alts, pictures], separators=(",", ":"))
        data = data.replace("<", "\\u003c")  # nothing in a string may end the script
        names = ", ".join(_title(name) for name in self.labels)
        body = (
            f'role="group" aria-label="Explorer: {html.escape(names)}" data-lm-suppress-shortcuts="true">\n'
            f'<img src="data:image/png;base64,{pictures[first]}" alt="{html.escape(self.alts[first])}" '
            f'width="{self.size[0]}" height="{self.size[1]}" decoding="sync">\n'
            + "".join(
                f'<div class="vaetut-slider"><label><span>{html.escape(_title(name))}</span> '
                f'<input type="range" min="0" max="{len(texts) - 1}" step="1" value="{self.start[name]}" '
                f'aria-valuetext="{html.escape(texts[self.start[name]])}" autocomplete="off"></label>\n'
                f"<output>{html.escape(texts[self.start[name]])}</output></div>\n"
                for name, texts in self.labels.items()
            )
            + '<p class="vaetut-static">The sliders move the picture where scripts run: '
            "in the book, or in a notebook after its cell has been run.</p>\n"
            '<div class="vaetut-said" aria-live="polite"></div>\n</div>\n'
        )
        key = hashlib.sha256((body + data).encode()).hexdigest()[:12]
        script = _SCRIPT.replace("KEY", key).replace("DATA", data)
        opening = f'<div class="vaetut-explorer" data-explorer="{key}" '
        return f"{opening}{body}<style>{_CSS}</style>\n<script>{script}</script>"


def explore(
    draw: Callable[..., Any],
    alt: str | Callable[..., str],
    *,
    start: Mapping[str, Any] | None = None,
    **axes: Iterable[Any],
) -> Explorer:
    """Draw a figure for every combination of the axes' values and put sliders below it that need no kernel.

    Args:
        draw: called as ``draw(name=value, …)``, returns a matplotlib `Figure`, always of one size. Fix the
            limits of its axes, so that only what depends on the sliders moves. A frame takes about 0.1 s.
        alt: what is to be seen, for those who cannot see it: a format string over the axes' values, such as
            ``"q with mean {mean}"``, or a function of them like ``draw``.
        start: values at which sliders begin; the middle one by default.
        **axes: for each slider its values, in order: numbers (a sequence, an array, a tensor) or strings.

    Returns:
        An `Explorer`, which a notebook shows.

    Raises:
        ValueError: if there is no axis; if one has fewer than two values, repeats one or holds NaN; if there are
            more than 400 frames; if ``alt`` is empty or names no axis; if ``start`` is not on its axis.
        TypeError: if ``draw`` is no function or returns no `Figure`, or a value is no number and no string.

    Example:
        >>> from vaetut import plots
        >>> def draw(slope):
        ...     figure, ax = plots.subplots(height=2)
        ...     ax.plot([0, 1], [0, slope])
        ...     ax.set_ylim(-1, 1)
        ...     return figure
        >>> explore(draw, alt="A line of slope {slope} through the origin.", slope=[-1, 0, 1])
        Explorer(slope: 3 values; 3 frames)
    """
    if not callable(draw):
        raise TypeError(
            f"draw must be a function that returns a matplotlib Figure, got {type(draw).__name__}"
        )
    if not axes:
        raise ValueError("axes must hold at least one slider, such as mean=[-1, 0, 1], got none")
    values = {name: _values(axis, name) for name, axis in axes.items()}
    count = math.prod(map(len, values.values()))
    if count > MAX_FRAMES:
        sizes = " x ".join(str(len(axis)) for axis in values.values())
        raise ValueError(
            f"axes must give at most {MAX_FRAMES} frames, got {sizes} = {count}; take fewer values"
        )
    labels = {name: _labels(axis) for name, axis in values.items()}
    begin = _start(values, start or {})
    points = [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]
    alts = [_alt_text(alt, point, values, labels) for point in points]
    corners = itertools.product(*((axis[0], axis[-1]) for axis in values.values()))
    places = layout([draw_figure(draw, dict(zip(values, corner, strict=True))) for corner in corners])
    frames, size = quantize([pixels(draw_figure(draw, point), places) for point in points])

    def live() -> Any:
        return _live(draw, alt, values, labels, begin, places)

    return Explorer(labels, alts, frames, size, begin, live)


def _values(axis: Any, name: str) -> list[Any]:
    if isinstance(axis, str) or not isinstance(axis, Iterable):
        raise TypeError(f"{name} must be a sequence of numbers or strings, got {type(axis).__name__}")
    if getattr(axis, "ndim", 1) != 1:
        raise TypeError(f"{name} must have one dimension, got shape {tuple(getattr(axis, 'shape', ()))}")
    values = [value.item() if hasattr(value, "item") else value for value in axis]
    for value in values:
        if not isinstance(value, int | float | str):
            raise TypeError(f"{name} must hold numbers or strings, got {type(value).__name__}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} must hold finite values, got {value}")
    if len(values) < 2:
        raise ValueError(f"{name} must have at least two values, got {len(values)}")
    if len(set(values)) < len(values):
        raise ValueError(f"{name} must not repeat a value, got {values}")
    return values


def _labels(values: list[Any]) -> list[str]:
    """The values as short texts, all different."""
    numbers = [value for value in values if isinstance(value, float)]
    scale = max(map(abs, numbers)) if min(numbers, default=0.0) < 0 else 0.0
    labels: list[str] = []
    for digits in range(4, 18):
        labels = [_text(v, digits, scale) for v in values]
        if len(set(labels)) == len(labels):
            break
    return labels


def _text(value: Any, digits: int, scale: float) -> str:
    if isinstance(value, float):
        value = 0.0 if abs(value) < 1e-12 * scale else value  # what arange leaves where it crosses zero
        value = f"{value:.0f}" if value == round(value) and abs(value) < 1e6 else f"{value:.{digits}g}"
        return str(value).replace("-", "\u2212")
    return str(value).replace("-", "\u2212") if isinstance(value, int) else str(value)


def _title(name: str) -> str:
    return name.replace("_", " ")


def _start(values: dict[str, list[Any]], start: Mapping[str, Any]) -> dict[str, int]:
    begin = {name: len(axis) // 2 for name, axis in values.items()}
    for name, value in start.items():
        if name not in values:
            raise ValueError(f"start must name axes ({', '.join(values)}), got {name!r}")
        found = [i for i, v in enumerate(values[name]) if v == value or _close(v, value)]
        if not found:
            raise ValueError(f"start must be on its axis: {name} has no value {value!r}, only {values[name]}")
        begin[name] = found[0]
    return begin


def _close(a: Any, b: Any) -> bool:
    """Whether two numbers are the same up to what linspace rounds."""
    return not isinstance(a, str) and not isinstance(b, str) and math.isclose(a, b, abs_tol=1e-12)


class _ShortFormatter(string.Formatter):
    """`str.format` that writes a plain ``{name}`` as the slider shows it."""

    def __init__(self, labels: dict[str, str]) -> None:
        self.labels = labels

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        if field_name not in kwargs:
            raise ValueError(f"{{{field_name}}} is none of the axes ({', '.join(kwargs)})")
        return (self.labels[field_name], kwargs[field_name]), field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        label, raw = value
        return format(raw, format_spec).replace("-", "\u2212") if format_spec else label


def _alt_text(
    alt: Any, point: dict[str, Any], values: dict[str, list[Any]], labels: dict[str, list[str]]
) -> str:
    if isinstance(alt, str):
        shown = {name: labels[name][values[name].index(value)] for name, value in point.items()}
        try:
            text: Any = _ShortFormatter(shown).vformat(alt, (), point)
        except ValueError as error:
            raise ValueError(f"alt cannot be filled in: {error}") from None
    elif callable(alt):
        text = alt(**point)
    else:
        raise TypeError(f"alt must be a format string or a function of the axes, got {type(alt).__name__}")
    if not isinstance(text, str):
        raise TypeError(f"alt must return a string, got {type(text).__name__}")
    if not text.strip():
        raise ValueError("alt must say what is to be seen, got an empty text")
    return text


def _live(
    draw: Callable[..., Any],
    alt: Any,
    values: dict[str, list[Any]],
    labels: dict[str, list[str]],
    begin: dict[str, int],
    places: Places,
) -> Any:
    widgets = importlib.import_module("ipywidgets")  # slow to import, and needed only here
    sliders = {
        name: widgets.SelectionSlider(
            options=list(zip(labels[name], axis, strict=True)),
            index=begin[name],
            description=_title(name),
            continuous_update=False,
            style={"description_width": "initial"},
        )
        for name, axis in values.items()
    }
    picture = widgets.HTML()

    def show(_: Any = None) -> None:
        point = {name: slider.value for name, slider in sliders.items()}
        (frame,), (width, _) = quantize([pixels(draw_figure(draw, point), places)])
        data = base64.b64encode(frame).decode("ascii")
        text = html.escape(_alt_text(alt, point, values, labels))
        picture.value = f'<img src="data:image/png;base64,{data}" alt="{text}" width="{width}">'

    for slider in sliders.values():
        slider.observe(show, names="value")
    show()
    return widgets.VBox([picture, *sliders.values()])


_CSS = """
.vaetut-explorer{position:relative;max-width:40rem;margin:1rem 0;font:inherit;color:inherit}
.vaetut-explorer img{display:block;width:100%;height:auto;margin:0;padding:0}
.vaetut-slider{display:flex;align-items:center;gap:.75rem;min-height:44px}
.vaetut-slider label{display:flex;flex:1;align-items:center;gap:.75rem;margin:0;min-width:0}
.vaetut-slider span{min-width:5rem}
.vaetut-slider input{flex:1;min-width:0;height:44px;margin:0;cursor:pointer;accent-color:#2f72d2}
.vaetut-slider input:focus-visible{outline:2px solid currentColor;outline-offset:-6px;border-radius:8px}
.vaetut-slider output{min-width:4.5rem;text-align:right;font-variant-numeric:tabular-nums}
.vaetut-said{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
body[data-jp-theme-light="false"] .vaetut-explorer{color-scheme:dark}
"""

# No globals. When one output stands on a page twice, each script sets up both copies: what it does bears repeating.
_SCRIPT = """
(() => {
  const [labels, alts, frames] = DATA;
  for (const root of document.querySelectorAll('[data-explorer="KEY"]')) {
    root.querySelector(".vaetut-static")?.remove();
    const image = root.querySelector("img");
    const said = root.querySelector(".vaetut-said");
    const rows = [...root.querySelectorAll(".vaetut-slider")].map(row => ({
      slider: row.querySelector("input"), output: row.querySelector("output")}));
    const show = () => {
      let frame = 0;
      rows.forEach(({slider, output}, axis) => {
        frame = frame * labels[axis].length + Number(slider.value);
        const text = labels[axis][slider.value];
        slider.setAttribute("aria-valuetext", text);
        output.value = text;
      });
      image.src = "data:image/png;base64," + frames[frame];
      image.alt = alts[frame];
    };
    for (const {slider} of rows) {
      slider.addEventListener("input", show);
      slider.addEventListener("change", () => { said.textContent = image.alt; });
      slider.addEventListener("keydown", event => event.stopPropagation());
    }
  }
})();
"""
