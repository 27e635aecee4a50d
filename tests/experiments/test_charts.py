"""The figure of the experiments' curves."""

from typing import Any

import pytest
from matplotlib.colors import to_hex

from vaetut.experiments import charts, stored
from vaetut.teaching.plots import COLORS


def made(panel: str, values: list[int], samples: list[int]) -> dict[str, Any]:
    return {
        "curves": [
            {
                "method": method,
                panel: value,
                "points": [{"samples": n, "train": -20.0 - i, "test": -21.0 - i} for n in samples],
            }
            for value in values
            for i, method in enumerate(("AEVB", "wake-sleep"))
        ]
    }


def test_each_panel_has_its_curves_in_the_algorithms_color() -> None:
    figure = charts.curves(
        made("latent_dim", [3, 5, 10, 20], [10_000, 1_000_000]), "latent_dim", "bound", low=-30
    )
    panels = [ax for ax in figure.axes if ax.axison]
    assert len(panels) == 4 and all(ax.get_xscale() == "log" for ax in panels)
    test_of_aevb = [
        line
        for line in panels[1].lines
        if line.get_linestyle() == "-" and to_hex(line.get_color()) == COLORS["bound"]
    ]
    assert list(test_of_aevb[0].get_ydata()) == [-21.0, -21.0]
    assert panels[0].get_ylim()[0] == -30


@pytest.mark.parametrize("samples", [[10_000, 30_000], [10_000, 3_000_000]])
def test_the_ticks_are_few_and_readable(samples: list[int]) -> None:
    figure = charts.curves(made("train_size", [1000, 50_000], samples), "train_size", "log p(x)")
    figure.canvas.draw()
    low, high = figure.axes[0].get_xlim()
    ticks = [
        tick for tick in figure.axes[0].get_xticklabels(which="both") if low <= tick.get_position()[0] <= high
    ]
    labels = [tick.get_text() for tick in ticks if tick.get_text()]
    shown = [label for label in labels if label[-1] in "kM"]
    assert "10k" in shown and len(shown) == len(labels) <= 6


def test_an_unknown_panel_is_named() -> None:
    with pytest.raises(ValueError, match="latent_dim"):
        charts.curves(made("latent_dim", [3], [10_000]), "latent", "bound")


@pytest.mark.parametrize(("figure", "panel"), [("figure2", "latent_dim"), ("figure3", "train_size")])
def test_the_books_results_can_be_drawn(figure: str, panel: str) -> None:
    kept = stored(figure)
    drawn = charts.curves(kept, panel, "nats")
    lines = [line for ax in drawn.axes if ax.axison for line in ax.lines if len(line.get_xdata()) > 1]
    assert len(lines) == 2 * len(kept["curves"])  # training and test
