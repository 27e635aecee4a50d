"""The book's figures: one style, eight colors, and the few drawings that several chapters share.

Used in every chapter; the graphical model belongs to chapter 1, the bound and its gap to chapter 2, images and
the latent plane to chapter 11. Every drawing returns its `Figure`, so that it can be the last expression of a
notebook cell or what the ``draw`` of `vaetut.explore` returns.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from vaetut._support.validate import positive_int
from vaetut.teaching.style import COLORS, PALE, WIDTH, style, subplots, use_style

__all__ = [
    "COLORS",
    "bound_and_gap",
    "density",
    "graphical_model",
    "image_grid",
    "latent_plane",
    "learning_curve",
    "style",
    "subplots",
    "use_style",
]


def graphical_model(ax: Axes | None = None) -> Figure:
    """AEVB's figure 1: the generative model (solid) and the approximate posterior q(z|x) (dashed).

    Args:
        ax: where to draw; a new figure by default.

    Example:
        >>> len(graphical_model().axes)
        1
    """
    with style():
        ax = _axes(ax, height=3.3)
        ax.set(xlim=(-0.2, 8.2), ylim=(-0.1, 4.2), aspect="equal")
        ax.set_axis_off()
        plate = FancyBboxPatch((2.2, 0.15), 3.6, 3.8, boxstyle="round,pad=0,rounding_size=0.25", fill=False)
        plate.set(edgecolor=COLORS["muted"], linewidth=1.5)
        ax.add_patch(plate)
        ax.text(5.6, 0.3, "$N$", ha="right", va="bottom", fontsize=15, color=COLORS["muted"])

        place = {"z": (4.0, 3.25), "x": (4.0, 1.0), "phi": (0.75, 2.1), "theta": (7.25, 2.1)}
        nodes = {}
        for name, text in (("z", r"$\mathbf{z}$"), ("x", r"$\mathbf{x}$")):
            face = PALE if name == "x" else "white"  # shaded: observed
            nodes[name] = Circle(
                place[name], 0.42, facecolor=face, edgecolor=COLORS["ink"], linewidth=1.8, zorder=3
            )
            ax.add_patch(nodes[name])
            ax.text(*place[name], text, ha="center", va="center", fontsize=19, zorder=4)
        for name, text in (("phi", r"$\phi$"), ("theta", r"$\theta$")):
            nodes[name] = Circle(place[name], 0.3, fill=False, edgecolor="none")
            ax.add_patch(nodes[name])
            ax.text(*place[name], text, ha="center", va="center", fontsize=21)

        def arrow(start: str, end: str, color: str, bend: float = 0.0, **options: Any) -> None:
            patch = FancyArrowPatch(
                place[start],
                place[end],
                patchA=nodes[start],
                patchB=nodes[end],
                connectionstyle=f"arc3,rad={bend}",
                arrowstyle="-|>",
                mutation_scale=17,
                shrinkA=2,
                shrinkB=1,
                color=COLORS[color],
                linewidth=1.9,
                **options,
            )
            ax.add_patch(patch)

        arrow("z", "x", "p")
        arrow("theta", "z", "p")
        arrow("theta", "x", "p")
        arrow("phi", "z", "q", linestyle=(0, (4, 2.5)))
        arrow("x", "z", "q", bend=-0.55, linestyle=(0, (4, 2.5)))
        for where, text, color in (
            ((4.15, 2.1), r"$p_\theta(\mathbf{x}\mid\mathbf{z})$", "p"),
            ((6.0, 3.35), r"$p_\theta(\mathbf{z})$", "p"),
            ((0.55, 3.35), r"$q_\phi(\mathbf{z}\mid\mathbf{x})$", "q"),
        ):
            ax.text(*where, text, va="center", fontsize=15, color=COLORS[color])
    return _figure(ax)


def bound_and_gap(
    ax: Axes,
    evidence: float | Sequence[float],
    bound: float | Sequence[float],
    *,
    rows: Sequence[str] | None = None,
    low: float | None = None,
) -> Figure:
    r"""Horizontal bars of $\log p(x) = \mathrm{ELBO} + D_{\mathrm{KL}}(q \,\|\, p(z|x))$, in nats, one per row.

    Args:
        ax: where to draw.
        evidence: $\log p(x)$, a number or one per row.
        bound: the evidence lower bound, a number or one per row.
        rows: names of the rows.
        low: the left end of the axis; set it where several frames must be comparable. A bar starts there.

    Raises:
        TypeError: if ``evidence`` or ``bound`` is not numeric.
        ValueError: if a value is not finite, a bound lies above its evidence, ``rows`` has another length, or ``low``
            does not lie below the evidence.

    Example:
        >>> figure, ax = subplots(height=2)
        >>> bound_and_gap(ax, evidence=-9.3, bound=-10.1) is figure
        True
    """
    tops, bounds = np.broadcast_arrays(_array(evidence, "evidence", (0, 1)), _array(bound, "bound", (0, 1)))
    tops, bounds = np.atleast_1d(tops), np.atleast_1d(bounds)
    if (bounds > tops + 1e-5 * (1 + abs(tops))).any():  # float32 may round a tight bound upwards
        raise ValueError(f"bound must not lie above evidence, got bound {bound} and evidence {evidence}")
    if rows is not None and len(rows) != len(tops):
        raise ValueError(f"rows must name each of the {len(tops)} bars, got {len(rows)} names")
    left = float(bounds.min() - max(0.3, (tops - bounds).max())) if low is None else low
    if not left < tops.min():
        raise ValueError(f"low must lie below evidence, got {low}")
    with style():
        for y, (top, value) in enumerate(zip(tops, bounds, strict=True)):
            start = max(value, left)
            ax.barh(y, start - left, left=left, height=0.36, color=COLORS["bound"])
            ax.barh(y, top - start, left=start, height=0.36, color=COLORS["gap"])
            ax.plot([top, top], [y - 0.27, y + 0.18], color=COLORS["evidence"], linewidth=3)
            # Labels are at the two ends of the bar, which do not move with the bound, so they never overlap.
            for x, height, side, text, color in (
                (left, y + 0.24, "left", f"ELBO {_number(value)}", "bound"),
                (top, y + 0.24, "right", f"gap {_number(top - value)}", "gap"),
                (top, y - 0.29, "right", rf"$\log\,p(\mathbf{{x}})$ = {_number(top)}", "evidence"),
            ):
                ax.text(x, height, text, ha=side, va="top" if height > y else "bottom", color=COLORS[color])
        ax.set(
            xlim=(left, tops.max() + 0.03 * (tops.max() - left)),
            ylim=(len(tops) - 0.35, -0.65),
            xlabel="nats",
        )
        ax.set_yticks(range(len(tops)) if rows else [], list(rows or []))
        ax.tick_params(axis="y", length=0)
        ax.grid(visible=False, axis="y")
        ax.spines["left"].set_visible(False)
    return _figure(ax)


def density(
    ax: Axes,
    z: Any,
    values: Any,
    label: str,
    *,
    color: str = "q",
    at: float | None = None,
    fill: bool = False,
) -> Figure:
    """A curve with its label beside it, over an axis that starts at 0.

    Args:
        ax: where to draw.
        z: abscissae, ``[n]``, a tensor or an array.
        values: ordinates, ``[n]``.
        label: the curve's name, written beside it; ``$…$`` is set as a formula.
        color: a key of `COLORS` or any matplotlib color.
        at: the abscissa of the label; over the peak by default.
        fill: tint the area below the curve.

    Raises:
        TypeError: if ``z`` or ``values`` is not numeric.
        ValueError: if they differ in shape, are not of one dimension, or hold NaN or infinity.

    Example:
        >>> import torch
        >>> figure, ax = subplots()
        >>> z = torch.linspace(-3, 3, 61)
        >>> density(ax, z, torch.exp(-z**2 / 2), "$q(z)$") is figure
        True
    """
    xs, ys = _array(z, "z", (1,)), _array(values, "values", (1,))
    if xs.shape != ys.shape:
        raise ValueError(f"values must have the shape of z, {xs.shape}, got {ys.shape}")
    color = COLORS.get(color, color)
    top = ax.get_ylim()[1] if ax.lines else 0.0
    with style():
        ax.plot(xs, ys, color=color)
        if fill:
            ax.fill_between(xs, ys, color=color, alpha=0.15, linewidth=0)
        peak = int(ys.argmax()) if at is None else int(abs(xs - at).argmin())
        slope = np.gradient(ys, xs)[peak] * np.ptp(xs) / max(float(ys.max()), 1e-300)
        side, gap = ("center", 0) if abs(slope) < 0.5 else ("left", 7) if slope < 0 else ("right", -7)
        text = ax.annotate(
            label,
            (xs[peak], ys[peak]),
            (gap, 6 if gap == 0 else 2),
            textcoords="offset points",
            ha=side,
            va="bottom",
            color=color,
            fontsize=14,
        )
        text.set_path_effects([withStroke(linewidth=3, foreground="white")])  # legible across another curve
        ax.set(xlim=(xs.min(), xs.max()), ylim=(0, max(top, 1.22 * float(ys.max()))))
    return _figure(ax)


def image_grid(
    images: Any,
    image_shape: Sequence[int],
    *,
    columns: int = 10,
    rows: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Images side by side in one picture: gray ones as dark ink on white, color ones unchanged.

    Args:
        images: gray, 0 for white to 1 for ink: ``[n, height, width]``; or in color, red, green and blue in [0, 1]:
            ``[n, 3, height, width]``, as torch has them, or ``[n, height, width, 3]``, as image files have them. Any
            of them may also be flattened, ``[n, -1]``. Values outside are clipped.
        image_shape: of one image: ``(height, width)``, or ``(3, height, width)`` or ``(height, width, 3)``, which
            flattened images in color need.
        columns: images per row.
        rows: a name for each row.
        ax: where to draw; a new figure by default.

    Raises:
        TypeError: if ``images`` is not numeric, or ``columns`` or a side is not an int.
        ValueError: if ``images`` and ``image_shape`` do not fit, if a value is not finite, or if ``rows`` has another
            length.

    Example:
        >>> import torch
        >>> image_grid(torch.rand(20, 64), (8, 8)).axes[0].images[0].get_array().shape
        (17, 89)
        >>> image_grid(torch.rand(20, 3, 8, 8), (8, 8)).axes[0].images[0].get_array().shape
        (17, 89, 3)
    """
    pictures = _pictures(images, image_shape)
    height, width, channels = pictures.shape[1:]
    columns = min(positive_int(columns, "columns"), len(pictures))
    count = -(-len(pictures) // columns)
    if rows is not None and len(rows) != count:
        raise ValueError(f"rows must name each of the {count} rows, got {len(rows)} names")
    paper = 0.0 if channels == 1 else 1.0  # white, in either scale
    cells = np.full((count * columns, height + 1, width + 1, channels), paper)  # one pixel between neighbors
    cells[: len(pictures), :height, :width] = pictures
    table = cells.reshape(count, columns, height + 1, width + 1, channels).swapaxes(1, 2)
    table = table.reshape(count * (height + 1), -1, channels)[:-1, :-1]
    tile = min(WIDTH / columns, 1.1)
    with style():
        ax = _axes(ax, height=max(0.5, tile * count * height / width))
        ax.imshow(table[..., 0] if channels == 1 else table, cmap="gray_r", vmin=0, vmax=1)
        ax.set_xticks([])
        ax.set_yticks(
            [(height + 1) * r + (height - 1) / 2 for r in range(count)] if rows else [], list(rows or [])
        )
        ax.tick_params(length=0)
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
    return _figure(ax)


def _pictures(images: Any, image_shape: Sequence[int]) -> NDArray[np.float64]:
    """The images as ``[n, height, width, channels]``, with one channel for gray and three for color."""
    shape = tuple(positive_int(side, "image_shape") for side in image_shape)
    array = _array(images, "images", (2, 3, 4)).clip(0, 1)
    if len(shape) == 2 and array.ndim == 4:  # in color, and the images themselves say where the channels are
        shape = (3, *shape) if array.shape[1:] == (3, *shape) else (*shape, 3)
    if len(shape) not in (2, 3) or (len(shape) == 3 and 3 not in (shape[0], shape[2])):
        raise ValueError(
            f"image_shape must be (height, width), (3, height, width) or (height, width, 3), got {shape}"
        )
    fits = array.shape[1:] in (shape, (int(np.prod(shape)),))
    if len(array) == 0 or not fits:
        raise ValueError(
            f"images must be [n, {np.prod(shape)}] or [n, {', '.join(map(str, shape))}] for image_shape {shape}, "
            f"got {array.shape}"
        )
    pictures = array.reshape(-1, *shape)
    if len(shape) == 2:
        return pictures[..., None]
    return np.moveaxis(pictures, 1, -1) if shape[0] == 3 else pictures


def latent_plane(means: Any, labels: Any, ax: Axes | None = None) -> Figure:
    """Posterior means in a two-dimensional latent space, each drawn as its own label.

    Args:
        means: ``[n, 2]``.
        labels: ``[n]``, the class of each point, such as its digit.
        ax: where to draw; a new figure by default.

    Raises:
        TypeError: if an argument is not numeric.
        ValueError: if a shape does not fit, or a value is not finite.

    Example:
        >>> len(latent_plane([[0.0, 1.0], [1.0, 0.0]], [3, 8]).axes[0].collections)
        2
    """
    points, classes = _array(means, "means", (2,)), _array(labels, "labels", (1,))
    if points.shape[1] != 2 or len(points) != len(classes):
        raise ValueError(f"means must be [n, 2] and labels [n], got {points.shape} and {classes.shape}")
    hues = [COLORS[k] for k in ("bound", "gap", "q", "p", "evidence", "accent", "ink", "muted")]
    with style():
        ax = _axes(ax, height=5.2)
        for i, kind in enumerate(np.unique(classes)):
            x, y = points[classes == kind].T
            glyph = rf"$\mathsf{{{kind:g}}}$"
            ax.scatter(x, y, marker=glyph, s=40, color=hues[i % len(hues)], linewidths=0.2)
        ax.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
    return _figure(ax)


def learning_curve(
    curves: Mapping[str, Any], ax: Axes | None = None, *, ylabel: str = "bound, nats per datapoint"
) -> Figure:
    """Curves over epochs 1, 2, …, each labeled at its right end.

    Args:
        curves: ``{name: values}``, one value per epoch; larger is better.
        ax: where to draw; a new figure by default.
        ylabel: the plotted quantity, and its unit.

    Raises:
        TypeError: if a curve is not numeric.
        ValueError: if there is no curve, or a curve has no value or one that is not finite.

    Example:
        >>> figure = learning_curve({"train": [-40.0, -30.0, -25.0], "test": [-41.0, -32.0, -28.0]})
        >>> figure.axes[0].get_xlabel()
        'epoch'
    """
    series = {name: _array(values, f"curves[{name!r}]", (1,)) for name, values in curves.items()}
    if not series or not all(map(len, series.values())):
        raise ValueError(f"curves must hold at least one value each, got {dict(curves)}")
    with style():
        ax = _axes(ax, height=3.4)
        lines = {name: ax.plot(range(1, len(ys) + 1), ys)[0] for name, ys in series.items()}
        apart = 0.085 * np.ptp(ax.get_ylim())  # the least legible distance between labels
        previous = np.inf
        for name, ys in sorted(series.items(), key=lambda item: -item[1][-1]):
            color = lines[name].get_color()
            ax.plot(len(ys), ys[-1], "o", color=color, markersize=6, clip_on=False)
            previous = min(float(ys[-1]), previous - apart)
            beside: Any = {"xytext": (10, 0), "textcoords": "offset points", "va": "center", "color": color}
            ax.annotate(name, (len(ys), previous), annotation_clip=False, **beside)
        ax.set(xlabel="epoch", ylabel=ylabel)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _figure(ax)


def _axes(ax: Axes | None, height: float) -> Axes:
    return subplots(height=height)[1] if ax is None else ax


def _figure(ax: Axes) -> Figure:
    figure = ax.figure
    return figure if isinstance(figure, Figure) else figure.figure  # a SubFigure knows its figure


def _array(value: Any, name: str, dimensions: tuple[int, ...]) -> NDArray[np.float64]:
    """A finite float array from a tensor, an array or numbers."""
    try:
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be numbers, an array or a tensor, got {type(value).__name__}") from None
    if array.ndim not in dimensions:
        wanted = " or ".join(str(d) for d in dimensions)
        raise ValueError(f"{name} must have {wanted} dimensions, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return array


def _number(value: float) -> str:
    return f"{round(float(value), 2) + 0.0:.2f}".replace("-", "\u2212")
