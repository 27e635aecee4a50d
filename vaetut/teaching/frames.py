"""From figures to the frames of `vaetut.explore`: axes in one place, one small palette, PNG."""

import io
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from numpy.typing import NDArray
from PIL import Image

DPI = 100
MAX_COLORS = 32
TOLERANCE = 8.0  # mean squared error per pixel, under 3 of 255 levels: a plot with few colours needs fewer

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


def pixels(figure: Figure, places: Places) -> tuple[bytes, tuple[int, int]]:
    """One frame as compressed 24-bit colours, and its width and height."""
    if places is not None and len(places) == len(figure.axes):
        figure.set_layout_engine("none")
        for ax, place in zip(figure.axes, places, strict=True):
            ax.set_position(place)
    dpi, figure.dpi = figure.dpi, DPI
    # Not by savefig: it draws twice, and crops where savefig.bbox is "tight".
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    figure.dpi = dpi
    rgba = np.asarray(canvas.buffer_rgba()).astype(np.uint32)
    if rgba[..., 3].min() < 255:  # on white paper
        rgba = (rgba * rgba[..., 3:] + 255 * (255 - rgba[..., 3:])) // 255
    packed = rgba[..., 0] << 16 | rgba[..., 1] << 8 | rgba[..., 2]
    height, width = packed.shape
    return zlib.compress(packed.tobytes(), 1), (width, height)


def quantize(drawn: list[tuple[bytes, tuple[int, int]]]) -> tuple[list[bytes], tuple[int, int]]:
    """All frames as PNG files with one small palette: another one per frame would make flat colours flicker."""
    size = drawn[0][1]
    for _, other in drawn:
        if other != size:
            raise ValueError(f"draw must return figures of one size, got {size} and {other} pixels")
    histogram: dict[int, int] = {}
    for packed, _ in drawn:
        for color, number in zip(*np.unique(_unpack(packed), return_counts=True), strict=True):
            histogram[int(color)] = histogram.get(int(color), 0) + int(number)
    colors = np.array(sorted(histogram), np.uint32)
    palette, nearest = _palette(colors, np.array([histogram[int(c)] for c in colors]))
    frames = []
    for packed, _ in drawn:
        indices = nearest[np.searchsorted(colors, _unpack(packed))].reshape(size[::-1])
        image = Image.fromarray(indices.astype(np.uint8))
        image.putpalette(palette.astype(np.uint8).tobytes())
        buffer = io.BytesIO()
        image.save(buffer, format="PNG", optimize=True)
        frames.append(buffer.getvalue())
    return frames, size


def _palette(
    colors: NDArray[np.uint32], numbers: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """At most `MAX_COLORS` of the colours, ``[k, 3]``, and for each colour the index of the nearest, ``[n]``.

    Greedy: the most frequent colour first, then always the one that adds most to the error so far. Flat areas keep
    their exact colours (a median cut would average them), and what is left goes to the shades at edges.
    """
    rgb = np.stack([colors >> 16, colors >> 8 & 255, colors & 255], axis=1).astype(np.int64)
    chosen = [int(numbers.argmax())]
    distance = ((rgb - rgb[chosen[0]]) ** 2).sum(axis=1)
    nearest = np.zeros(len(rgb), np.int64)
    while len(chosen) < MAX_COLORS and distance @ numbers > TOLERANCE * numbers.sum():
        chosen.append(int((distance * numbers).argmax()))
        closer = ((rgb - rgb[chosen[-1]]) ** 2).sum(axis=1)
        nearest[closer < distance] = len(chosen) - 1
        distance = np.minimum(distance, closer)
    return rgb[chosen], nearest


def _unpack(packed: bytes) -> NDArray[np.uint32]:
    return np.frombuffer(zlib.decompress(packed), np.uint32)
