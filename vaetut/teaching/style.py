"""The style of the book's figures: eight colors, matplotlib settings, and figures that are shown once.

All of it is public as part of `vaetut.plots`, and used in every chapter.
"""

from contextlib import AbstractContextManager
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure

from vaetut._support.validate import positive_int

COLORS = {
    "bound": "#2f72d2",
    "gap": "#c04d00",
    "evidence": "#5c0a85",
    "q": "#00665c",
    "p": "#b03a9c",
    "ink": "#1f2328",
    "muted": "#737584",
    "accent": "#9d1200",
}
"""Colors by their meaning. Each has a contrast of at least 4.5 : 1 on white, so it can be used for text too. Any
two can be told apart with every common color blindness, on white and on the book's dark pages, which invert figures."""

PALE = "#e4e5ea"  # grid lines and fills that must stay behind everything else

# A phone shows a figure some 350 px wide: letters of 12 pt are then 11 px large, and no letter may be under 11 pt. A
# desk shows it at 100 px per inch, where they are as large as the text beside them.
WIDTH = 5.0  # inches

_STYLE: Any = {
    # DejaVu Sans comes with matplotlib, so every machine draws the same letters; "cm" matches the formulas of the page.
    "figure.figsize": (WIDTH, 3.4),
    "figure.dpi": 144,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "svg.hashsalt": "vaetut",
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 12,
    "mathtext.fontset": "cm",
    "text.color": COLORS["ink"],
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.labelsize": 12,
    "axes.labelcolor": COLORS["ink"],
    "axes.facecolor": "white",
    "axes.edgecolor": COLORS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "axes.prop_cycle": cycler(color=[COLORS[k] for k in ("bound", "gap", "q", "p", "evidence", "accent")]),
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "lines.linewidth": 2.2,
    "lines.solid_capstyle": "round",
    "xtick.color": COLORS["muted"],
    "ytick.color": COLORS["muted"],
    "xtick.labelcolor": COLORS["ink"],
    "ytick.labelcolor": COLORS["ink"],
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.frameon": False,
    "legend.fontsize": 11,
    "image.cmap": "gray_r",  # ink on paper: 1 is dark
}


def use_style() -> None:
    """Set the book's style in `matplotlib.rcParams`, for all figures that are drawn later.

    Example:
        >>> import matplotlib
        >>> with matplotlib.rc_context():  # only for this example: leave the reader's settings alone
        ...     use_style()
        ...     matplotlib.rcParams["axes.spines.top"]
        False
    """
    matplotlib.rcParams.update(_STYLE)


def style() -> AbstractContextManager[None]:
    """The book's style inside a ``with`` block; the previous `matplotlib.rcParams` are restored at its end.

    Example:
        >>> with style():
        ...     figure, ax = subplots()
        >>> figure.get_facecolor()
        (1.0, 1.0, 1.0, 1.0)
    """
    return matplotlib.rc_context(_STYLE)


def subplots(rows: int = 1, columns: int = 1, *, height: float = 3.4, **options: Any) -> tuple[Figure, Any]:
    """Like `matplotlib.pyplot.subplots`, 5 in wide and in the book's style, but not shown automatically.

    pyplot shows every figure at the end of a notebook cell, so one that is also the cell's last expression
    appears twice. A figure from here appears once, as the last expression or as a frame of `vaetut.explore`.

    Args:
        rows: number of rows of axes.
        columns: number of columns of axes.
        height: the figure's height in inches.
        **options: passed on to `matplotlib.pyplot.subplots`.

    Returns:
        The figure and its `Axes` (an array of them when there are several).

    Example:
        >>> figure, (left, right) = subplots(columns=2, height=2.5)
        >>> figure.get_size_inches().tolist()
        [5.0, 2.5]
    """
    import matplotlib.pyplot as plt  # choosing a backend is a side effect: not at import

    positive_int(rows, "rows")
    positive_int(columns, "columns")
    with style():
        figure, axes = plt.subplots(rows, columns, **{"figsize": (WIDTH, height), **options})
    plt.close(figure)
    return figure, axes
