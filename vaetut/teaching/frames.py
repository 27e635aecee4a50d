"""From figures to the frames of `vaetut.explore`: axes in one place, one small palette, lossless WebP.

Used, through `explore`, in every chapter.
"""

import io
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from numpy.typing import NDArray
from PIL import Image

DPI = 100  # of the page: a figure 6.4 in wide takes 640 CSS pixels
SCALE = 2  # pixels of a frame for each of these, so that it is sharp on a screen of twice the resolution
MAX_COLORS = 32
TOLERANCE = 8.0  # mean squared error per pixel, under 3 of 255 levels: a plot with few colors needs fewer

Places = list[Bbox] | None


class Drawn(NamedTuple):
    """A frame as runs of equal colors, row by row, both arrays compressed: a plot has few runs."""

    colors: bytes
    lengths: bytes
    size: tuple[int, int]

    def runs(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """The 24-bit color of each run, and its number of pixels."""
        colors, lengths = (np.frombuffer(zlib.decompress(part), np.uint32) for part in self[:2])
        return colors, lengths


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


def pixels(figure: Figure, places: Places) -> Drawn:
    """One frame, `SCALE` pixels for each of the page's."""
    if places is not None and len(places) == len(figure.axes):
        figure.set_layout_engine("none")
        for ax, place in zip(figure.axes, places, strict=True):
            ax.set_position(place)
    dpi, figure.dpi = figure.dpi, DPI * SCALE
    # Not by savefig: it draws twice, and crops where savefig.bbox is "tight".
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    figure.dpi = dpi
    rgba = np.asarray(canvas.buffer_rgba()).astype(np.uint32)
    if rgba[..., 3].min() < 255:  # on white paper
        rgba = (rgba * rgba[..., 3:] + 255 * (255 - rgba[..., 3:])) // 255
    height, width = rgba.shape[:2]
    packed = (rgba[..., 0] << 16 | rgba[..., 1] << 8 | rgba[..., 2]).ravel()
    starts = np.concatenate([[0], np.flatnonzero(packed[1:] != packed[:-1]) + 1])
    lengths = np.diff(starts, append=packed.size).astype(np.uint32)
    colors = zlib.compress(packed[starts].tobytes(), 1)
    return Drawn(colors, zlib.compress(lengths.tobytes(), 1), (width, height))


def quantize(drawn: list[Drawn]) -> list[Image.Image]:
    """All frames with one small palette: a palette of its own for each would make flat colors flicker."""
    size = drawn[0].size
    for frame in drawn:
        if frame.size != size:
            raise ValueError(
                f"draw must return figures of one size, got {_inches(size)} and {_inches(frame.size)}"
            )
    histogram: dict[int, int] = {}
    for frame in drawn:
        found, lengths = frame.runs()
        kinds, where = np.unique(found, return_inverse=True)
        for color, number in zip(kinds.tolist(), np.bincount(where, lengths).tolist(), strict=True):
            histogram[color] = histogram.get(color, 0) + int(number)
    colors = np.array(sorted(histogram), np.uint32)
    palette, nearest = _palette(colors, np.array([histogram[int(c)] for c in colors]))
    images = []
    for frame in drawn:
        found, lengths = frame.runs()
        indices = np.repeat(nearest[np.searchsorted(colors, found)], lengths).reshape(size[::-1])
        image = Image.fromarray(indices.astype(np.uint8))
        image.putpalette(palette.astype(np.uint8).tobytes())
        images.append(image)
    return images


def webp(image: Image.Image) -> bytes:
    """A lossless WebP file: three quarters of the PNG for a plot, half of it for images."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="WEBP", lossless=True, quality=75, method=4)
    return buffer.getvalue()


def png(image: Image.Image) -> bytes:
    """A PNG file, for viewers that show nothing else."""
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


def _inches(size: tuple[int, int]) -> str:
    return " x ".join(f"{pixels / (DPI * SCALE):g}" for pixels in size) + " in"
