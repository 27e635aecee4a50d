"""`Explorer.live`: the sliders of an explorer through ipywidgets, for values between its frames. Any chapter."""

import html
import importlib
import math
from collections.abc import Callable, Mapping
from typing import Any

from vaetut.teaching.axes import alt_text, write_values
from vaetut.teaching.frames import Places, draw_figure, fix
from vaetut.teaching.style import WIDTH
from vaetut.teaching.vector import DPI, Sheet

_FINER = 10  # steps of a slider between two of the explorer's values


def live(
    draw: Callable[..., Any],
    alt: Any,
    values: dict[str, list[Any]],
    titles: Mapping[str, str],
    begin: dict[str, int],
    places: Places,
) -> Any:
    """A box of widgets, of ipywidgets 7 or 8: the picture, and a control for each axis."""
    widgets = importlib.import_module("ipywidgets")  # slow to import, and needed only here
    point = {name: axis[begin[name]] for name, axis in values.items()}
    controls = {
        name: _control(widgets, draw, name, axis, point, titles[name]) for name, axis in values.items()
    }
    picture = widgets.HTML()

    def show(_: Any = None) -> None:
        now = {name: control.value for name, control in controls.items()}
        sheet = Sheet()
        sheet.add(fix(draw_figure(draw, now), places))
        drawings = sheet.drawings()
        text = html.escape(alt_text(alt, now, values))
        picture.value = (
            f'<img src="{drawings.address(0)}" alt="{text}" width="{drawings.size[0]}" '
            'style="display:block;max-width:100%;height:auto">'
        )

    for control in controls.values():
        control.observe(show, names="value")
    show()
    return widgets.VBox([picture, *controls.values()], layout={"max_width": f"{WIDTH * DPI:.0f}px"})


def _control(
    widgets: Any, draw: Callable[..., Any], name: str, axis: list[Any], point: dict[str, Any], title: str
) -> Any:
    """Radio buttons for a few names; a fine slider for even numbers, where draw takes what lies between them."""
    common: dict[str, Any] = {
        "description": title,
        "style": {"description_width": "160px"},
        "layout": {"width": "100%"},
    }
    step = _even_step(axis)
    if step is not None and _takes(draw, point | {name: axis[0] + step / 2}):
        fine = step / _FINER
        places = max(0, math.ceil(-math.log10(fine) - 1e-9))
        return widgets.FloatSlider(
            value=point[name],
            min=axis[0],
            max=axis[-1],
            step=fine,
            readout_format=f".{places}f",
            continuous_update=True,
            **common,
        )
    options = list(zip(write_values(axis), axis, strict=True))
    if is_choice(axis):
        return widgets.ToggleButtons(options=options, index=axis.index(point[name]), **common)
    return widgets.SelectionSlider(
        options=options, index=axis.index(point[name]), continuous_update=True, **common
    )


def is_choice(axis: list[Any]) -> bool:
    """Whether an axis is a choice between two or three names, for which radio buttons are better than a slider."""
    return len(axis) <= 3 and all(isinstance(value, str) for value in axis)


def _even_step(axis: list[Any]) -> float | None:
    """The distance between the values of an axis of floats, rising and evenly spaced; None for another axis."""
    if not all(isinstance(value, float) for value in axis):
        return None
    step = (axis[-1] - axis[0]) / (len(axis) - 1)
    even = all(math.isclose(v, axis[0] + i * step, abs_tol=1e-9 * abs(step)) for i, v in enumerate(axis))
    return float(step) if even and step > 0 else None


def _takes(draw: Callable[..., Any], point: dict[str, Any]) -> bool:
    """Whether ``draw`` takes a value between the explorer's; one that looks its numbers up in a table does not."""
    try:
        draw_figure(draw, point)
    except Exception:
        return False
    return True
