"""`explore`: sliders that change a figure without a kernel, so they work in the book, on a phone and in a notebook.

Every frame is drawn beforehand and kept as a drawing inside the output; a few lines of JavaScript swap them.
Where scripts do not run, as on GitHub, one picture stays and its text says what it shows. Used in every chapter.
"""

import hashlib
import html
import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from vaetut.teaching.axes import alt_text, read_start, read_texts, read_values, title, write_values
from vaetut.teaching.frames import draw_figure, fix, layout, still
from vaetut.teaching.live import is_choice
from vaetut.teaching.live import live as live_widgets
from vaetut.teaching.vector import Drawings, Sheet

MAX_FRAMES = 400  # a minute of drawing


@dataclass(frozen=True, eq=False)
class Explorer:
    """A picture with one slider per axis, as `explore` returns it in every chapter; a cell shows it.

    Attributes:
        labels: for each slider its name and the values as they are shown.
        alts: the text for each frame, in the order of ``itertools.product`` of the axes.
        drawings: the frames, in the same order.
        start: for each slider the position at which it begins.
        still: the frame at which it begins, as a PNG file.
        titles: for each slider the name that is shown.
        units: for some sliders what is shown after their values.

    Example:
        >>> from vaetut import plots
        >>> explorer = explore(lambda k: plots.subplots(height=1)[0], alt="An empty figure, {k}.", k=[1, 2])
        >>> explorer.alts, explorer.start
        (['An empty figure, 1.', 'An empty figure, 2.'], {'k': 1})
    """

    labels: dict[str, list[str]]
    alts: list[str]
    drawings: Drawings = field(repr=False)
    start: dict[str, int]
    still: bytes = field(repr=False)
    titles: dict[str, str]
    units: dict[str, str]
    _choices: frozenset[str] = field(repr=False)
    _live: Callable[[], Any] = field(repr=False)

    def __repr__(self) -> str:
        axes = ", ".join(f"{name}: {len(texts)} values" for name, texts in self.labels.items())
        return f"Explorer({axes}; {len(self.alts)} frames)"

    @property
    def frames(self) -> list[bytes]:
        """The frames as SVG files, in the order of ``alts``."""
        return [self.drawings.document(i).encode() for i in range(len(self.alts))]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a frame on the page, in CSS pixels."""
        return self.drawings.size

    def live(self) -> Any:
        """The same sliders through ipywidgets, which call ``draw`` in the running kernel while they move.

        A slider over evenly spaced floats moves in tenths of their distance, if ``draw`` takes such values.
        """
        return self._live()

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        width, height = self.size
        bundle = {"text/html": self._repr_html_(), "image/png": self.still, "text/plain": repr(self)}
        return bundle, {"image/png": {"width": width, "height": height}}

    def _repr_html_(self) -> str:
        first = 0
        shown: list[list[str]] = []
        for name, texts in self.labels.items():
            first = first * len(texts) + self.start[name]
            unit = self.units.get(name, "")
            shown.append([f"{text} {unit}" if unit else text for text in texts])
        rows = [
            (_radio_buttons if name in self._choices else _slider)(self.titles[name], texts, self.start[name])
            for name, texts in zip(self.labels, shown, strict=True)
        ]
        body = (
            f'role="group" aria-label="Explorer: {html.escape(", ".join(self.titles.values()))}" '
            'data-lm-suppress-shortcuts="true">\n'
            f'<img src="{self.drawings.address(first)}" alt="{html.escape(self.alts[first])}" '
            f'width="{self.size[0]}" height="{self.size[1]}" decoding="sync">\n'
            f'<div class="vaetut-controls">\n{"".join(rows)}</div>\n'
            '<p class="vaetut-static">The sliders move the picture where scripts run: '
            "in the book, or in a notebook after its cell has been run.</p>\n"
            '<div class="vaetut-said" aria-live="polite"></div>\n</div>\n'
        )
        return output(body, "explorer.js", [shown, self.alts], self.drawings)


def output(body: str, script: str, *data: Any) -> str:
    """The HTML of an explorer: what is seen, its style, and a call of the function in ``script`` with the data.

    The book's pages (``tools/explorer_files.py``) take it apart again.
    """
    lines = [
        json.dumps(part, separators=(",", ":"), ensure_ascii=False)
        .replace("</", "<\\/")  # nothing in a string may end the script
        .replace("<s", "\\u003cs")
        .replace("<!", "\\u003c!")
        for part in data
    ]
    key = hashlib.sha256("\n".join([body, *lines]).encode()).hexdigest()[:12]
    call = ",\n".join([f'("{key}"', *lines])
    return (
        f'<div class="vaetut-explorer" data-explorer="{key}" {body}<style>\n{file_text("explorer.css")}</style>\n'
        f"<script>\n({file_text(script)}){call});\n</script>"
    )


def explore(
    draw: Callable[..., Any],
    alt: str | Callable[..., str],
    *,
    start: Mapping[str, Any] | None = None,
    **axes: Iterable[Any],
) -> Explorer:
    """Draw a figure for every combination of the axes' values and put sliders below it that need no kernel.

    Chapters 1 to 10 use it, among others.

    Args:
        draw: called as ``draw(name=value, …)``, returns a matplotlib `Figure`, always of one size. Fix the
            limits of its axes, so that only what depends on the sliders moves. A frame takes about 0.1 s.
        alt: a description for those who cannot see the picture: a format string over the axes' values, such as
            ``"q with mean {mean}"``, or a function of them like ``draw``.
        start: values at which sliders begin; the middle one by default.
        **axes: for each slider its values, in order: numbers (a sequence, an array, a tensor) or strings. Two or
            three strings are shown as radio buttons. An axis named ``mu`` is shown as μ, ``z_1`` as z₁. Two
            keywords are not axes if they are given a mapping from axes to texts: ``labels``, to show other names,
            such as ``labels={"M": "minibatch M"}``, and ``units``, shown after the values.

    Returns:
        An `Explorer`, which a notebook shows.

    Raises:
        ValueError: if there is no axis; if one has fewer than two values, repeats one or holds NaN; if there are
            more than 400 frames; if ``alt`` is empty or has an unknown name; if ``start`` is not on its
            axis, or ``labels`` or ``units`` have an unknown name.
        TypeError: if ``draw`` is not a function or does not return a `Figure`, if a value is neither a number nor a
            string, or if a label or unit is not a string.

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
    texts: dict[str, Any] = {
        key: axes.pop(key) if isinstance(axes.get(key), Mapping) else {} for key in ("labels", "units")
    }
    if not axes:
        raise ValueError("axes must hold at least one slider, such as mean=[-1, 0, 1], got none")
    values = {name: read_values(axis, name) for name, axis in axes.items()}
    count = math.prod(map(len, values.values()))
    if count > MAX_FRAMES:
        sizes = " x ".join(str(len(axis)) for axis in values.values()) + " = " if len(values) > 1 else ""
        raise ValueError(f"axes must give at most {MAX_FRAMES} frames, got {sizes}{count}; take fewer values")
    names, units = (read_texts(texts[key], key, values) for key in ("labels", "units"))
    titles = {name: names.get(name, title(name)) for name in values}
    labels = {name: write_values(axis) for name, axis in values.items()}
    begin = read_start(values, start or {})
    points = [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]
    alts = [alt_text(alt, point, values) for point in points]
    corners = itertools.product(*((axis[0], axis[-1]) for axis in values.values()))
    places = layout([draw_figure(draw, dict(zip(values, corner, strict=True))) for corner in corners])
    sheet = Sheet()
    for point in points:
        sheet.add(fix(draw_figure(draw, point), places))
    start_point = {name: axis[begin[name]] for name, axis in values.items()}

    def live() -> Any:
        return live_widgets(draw, alt, values, titles, begin, places)

    return Explorer(
        labels=labels,
        alts=alts,
        drawings=sheet.drawings(),
        start=begin,
        still=still(fix(draw_figure(draw, start_point), places)),
        titles=titles,
        units=units,
        _choices=frozenset(name for name, axis in values.items() if is_choice(axis)),
        _live=live,
    )


def _slider(name: str, texts: list[str], start: int) -> str:
    return (
        f'<div class="vaetut-slider"><label><span>{html.escape(name)}</span> '
        f'<input type="range" min="0" max="{len(texts) - 1}" step="1" value="{start}" '
        f'aria-valuetext="{html.escape(texts[start])}" autocomplete="off"></label>\n'
        f"<output>{html.escape(texts[start])}</output></div>\n"
    )


def _radio_buttons(name: str, texts: list[str], start: int) -> str:
    buttons = "".join(
        f'<label><input type="radio" value="{i}" autocomplete="off"{" checked" if i == start else ""}> '
        f"{html.escape(text)}</label>\n"
        for i, text in enumerate(texts)
    )
    shown = html.escape(name)
    return (
        f'<div class="vaetut-choice"><span aria-hidden="true">{shown}</span>\n'
        f'<div class="vaetut-options" role="radiogroup" aria-label="{shown}">\n{buttons}</div></div>\n'
    )


@cache
def file_text(name: str) -> str:
    """A file of the package that belongs to this module."""
    return files("vaetut.teaching").joinpath(name).read_text(encoding="utf-8")
