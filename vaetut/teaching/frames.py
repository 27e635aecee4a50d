"""From figures to the frames of `vaetut.explore`: axes in one place, and a picture of the first frame.

Used, through `explore`, in every chapter.
"""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from numpy.typing import NDArray
from PIL import Image

from vaetut.teaching.vector import DPI

# Pixels of a picture for each of the page's, so that it is sharp on a screen of twice the resolution.
SCALE = 2
MAX_COLORS = 32
TOLERANCE = 8.0  # mean squared error per pixel, under 3 of 255 levels: a plot with few colors needs fewer

Places = list[Bbox] | None


def draw_figure(draw: Callable[..., Any], point: dict[str, Any]) -> Figure:
    """The figure for one point, closed: pyplot must neither show it again nor keep it."""
    import matplotlib.pyplot as plt  # choosing a backend is a side effect: not at import

    before = set(plt.get_fignums())
    try:
        figure = draw(**point)
        if not isinstance(figure, Figure):
            raise TypeError(f"draw must return a matplotlib Figure, got {type(figure).__name__}")
        plt.close(figure)
    finally:
        for number in set(plt.get_fignums()) - before:
            plt.close(number)
    return figure


def layout(figures: list[Figure]) -> Places:
    """Where the axes lie if all the figures are to fit; None if they have no layout engine or different axes.

    A layout engine moves the axes with their labels. Frames must not: they get the inner edges of a few of them,
    which is also what makes drawing fast.
    """
    if any(f.get_layout_engine() is None or len(f.axes) != len(figures[0].axes) for f in figures):
        return None
    for figure in figures:
        figure.draw_without_rendering()
    edges = np.array([[ax.get_position(original=True).extents for ax in figure.axes] for figure in figures])
    return [
        Bbox.from_extents(*low, *high)
        for low, high in zip(edges[..., :2].max(0), edges[..., 2:].min(0), strict=True)
    ]


def fix(figure: Figure, places: Places) -> Figure:
    """The figure with its axes at these places, if there are any."""
    if places is not None and len(places) == len(figure.axes):
        figure.set_layout_engine("none")
        for ax, place in zip(figure.axes, places, strict=True):
            ax.set_position(place)
    return figure


def still(figure: Figure) -> bytes:
    """A PNG file of the figure, with few colors, for viewers that show nothing else."""
    dpi, figure.dpi = figure.dpi, DPI * SCALE
    # Not by savefig: it draws twice, and crops where savefig.bbox is "tight".
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    figure.dpi = dpi
    rgba = np.asarray(canvas.buffer_rgba()).astype(np.uint32)
    if rgba[..., 3].min() < 255:  # on white paper
        rgba = (rgba * rgba[..., 3:] + 255 * (255 - rgba[..., 3:])) // 255
    packed = rgba[..., 0] << 16 | rgba[..., 1] << 8 | rgba[..., 2]
    colors, where, numbers = np.unique(packed, return_inverse=True, return_counts=True)
    palette, nearest = _palette(colors, numbers)
    image = Image.fromarray(nearest[where].reshape(packed.shape).astype(np.uint8))
    image.putpalette(palette.astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _palette(
    colors: NDArray[np.uint32], numbers: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """At most `MAX_COLORS` of the colors, ``[k, 3]``, and for each color the index of the nearest, ``[n]``.

    Greedy: the most frequent color first, then always the one that adds most to the error so far. Flat areas keep
    their exact colors (a median cut would average them), and what is left goes to the shades at edges. A gray goes
    to a gray only: the nearest color may be a pale blue, and a picture of a digit would be tinted.
    """
    rgb = np.stack([colors >> 16, colors >> 8 & 255, colors & 255], axis=1).astype(np.int64)
    gray = (rgb == rgb[:, :1]).all(axis=1)

    def distance_to(index: int) -> NDArray[np.int64]:
        squared = ((rgb - rgb[index]) ** 2).sum(axis=1)
        return squared if gray[index] else np.where(gray, 4 * 255**2, squared)

    chosen = [int(numbers.argmax())]
    distance = distance_to(chosen[0])
    nearest = np.zeros(len(rgb), np.int64)
    while len(chosen) < MAX_COLORS and distance @ numbers > TOLERANCE * numbers.sum():
        chosen.append(int((distance * numbers).argmax()))
        closer = distance_to(chosen[-1])
        nearest[closer < distance] = len(chosen) - 1
        distance = np.minimum(distance, closer)
    return rgb[chosen], nearest
