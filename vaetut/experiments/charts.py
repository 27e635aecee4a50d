"""The curves of the experiments (chapter 12) as a figure: a panel for each size, a color for each method."""

from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from vaetut._support.validate import one_of
from vaetut.teaching.plots import COLORS, style, subplots

_COLORS = {"AEVB": COLORS["bound"], "wake-sleep": COLORS["accent"], "MCEM": COLORS["evidence"]}
_TITLES = {"latent_dim": "$J = {}$", "train_size": "$N = {:,}$"}


def curves(made: dict[str, Any], panel: str, ylabel: str, *, low: float | None = None) -> Figure:
    """Plot what `figure2.run` or `figure3.run` returned: test values solid, training values dashed.

    Args:
        made: the results, such as those of `read_json`.
        panel: the setting that differs between panels: ``"latent_dim"`` or ``"train_size"``.
        ylabel: the label of the vertical axis.
        low: lower end of the vertical axis; by default that of the data.

    Raises:
        ValueError: if ``panel`` is neither of the two.

    Example:
        >>> point = {"samples": 10_000, "train": -30.0, "test": -31.0}
        >>> made = {"curves": [{"method": "AEVB", "latent_dim": 2, "points": [point]}]}
        >>> curves(made, "latent_dim", "bound").axes[0].get_title(loc="left")
        '$J = 2$'
    """
    one_of(panel, "panel", _TITLES)
    values = sorted({curve[panel] for curve in made["curves"]})
    columns = min(len(values), 3)
    rows = -(-len(values) // columns)
    points = [point for curve in made["curves"] for point in curve["points"]]
    reached = [point["samples"] for point in points]
    wide = bool(reached) and max(reached) > 30 * min(reached)  # ticks at powers of ten are enough
    with style():
        figure, grid = subplots(
            rows, columns, height=1.4 + 1.8 * rows, sharex=True, sharey=True, squeeze=False
        )
        axes = list(grid.flat)
        for ax, value in zip(axes, values, strict=False):
            for curve in made["curves"]:
                if curve[panel] != value or not curve["points"]:
                    continue
                samples = [point["samples"] for point in curve["points"]]
                color = _COLORS[curve["method"]]
                for part, line in (("train", "--"), ("test", "-")):
                    ys = [point[part] for point in curve["points"]]
                    ax.plot(samples, ys, line, color=color, linewidth=2.2 if line == "-" else 1.4)
            ax.set(xscale="log", title=_TITLES[panel].format(value))
            ax.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 3.0)))
            ax.xaxis.set_major_formatter(FuncFormatter(_thousands))
            ax.xaxis.set_minor_formatter(NullFormatter())
        for ax in axes[len(values) :]:
            ax.set_axis_off()
        for ax in axes[max(0, len(values) - columns) : len(values)]:
            ax.tick_params(labelbottom=True)  # the lowest panel of each column
        if low is not None:
            high = max((max(point["train"], point["test"]) for point in points), default=0.0)
            axes[0].set_ylim(low, high + 0.05 * (high - low))
        methods = list(dict.fromkeys(curve["method"] for curve in made["curves"]))
        handles = [axes[0].plot([], [], color=_COLORS[method], label=method)[0] for method in methods]
        for part, line in (("test", "-"), ("train", "--")):
            handles += axes[0].plot([], [], line, color=COLORS["muted"], label=part)
        in_a_row = 4 if len(handles) == 4 else 3  # as many as there is room for
        figure.legend(handles=handles, loc="outside upper left", ncols=in_a_row, columnspacing=1.2)
        figure.supxlabel("training samples evaluated", fontsize=12)
        figure.supylabel(ylabel, fontsize=12)
    return figure


def _thousands(value: float, position: int | None = None) -> str:
    """10,000 as 10k, a million as 1M: as short as a power of ten, and easier to read."""
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k"
