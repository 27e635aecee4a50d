"""The ends of a support and their gradients, through transforms and mixtures."""

import math

import pytest
import torch
from torch import distributions as td

from vaetut import distributions as vd
from vaetut.distributions.support import support_ends, support_moves


def leaf(value):
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


INF = math.inf
# The distribution, made of one parameter; the ends; and their derivatives in the parameter at its value.
CASES = {
    "uniform": (lambda t: td.Uniform(t, t + 2), 1.5, (1.5, 3.5), (1, 1)),
    "exponential": (lambda t: td.Exponential(t), 1.5, (0, INF), (0, 0)),
    "pareto": (lambda t: td.Pareto(t, 2 * t), 1.5, (1.5, INF), (1, 0)),
    "normal": (lambda t: td.Normal(t, t), 1.5, (-INF, INF), (0, 0)),
    "reciprocal": (lambda t: vd.Reciprocal(1 / t, t), 2.0, (0.5, 2.0), (-0.25, 1)),
    "triangular": (lambda t: vd.Triangular(-t, t, 0 * t), 2.0, (-2.0, 2.0), (-1, 1)),
    "pareto, bounded": (lambda t: td.GeneralizedPareto(t, t, t * 0 - 0.5), 2.0, (2.0, 6.0), (1, 3)),
    "pareto, unbounded": (lambda t: td.GeneralizedPareto(t, t, t * 0 + 0.5), 2.0, (2.0, INF), (1, 0)),
    "pareto, exponential": (lambda t: td.GeneralizedPareto(t, t, t * 0), 2.0, (2.0, INF), (1, 0)),
    "shifted": (
        lambda t: td.TransformedDistribution(td.Exponential(t), [td.AffineTransform(t, t)]),
        2.0,
        (2.0, INF),
        (1, 0),
    ),
    "scaled": (
        lambda t: td.TransformedDistribution(td.Exponential(t), [td.AffineTransform(0.0, t)]),
        2.0,
        (0.0, INF),
        (0, 0),
    ),
    "turned": (
        lambda t: td.TransformedDistribution(td.Gamma(t, t), [td.AffineTransform(t**2, -t)]),
        3.0,
        (-INF, 9.0),
        (0, 6),
    ),
    "turned, then exp": (
        lambda t: td.TransformedDistribution(td.Gamma(t, t), [td.AffineTransform(t, -t), td.ExpTransform()]),
        1.0,
        (0.0, math.e),
        (0, math.e),
    ),
    "stretched uniform": (
        lambda t: td.TransformedDistribution(td.Uniform(0 * t, 0 * t + 1), [td.AffineTransform(0.0, t)]),
        2.0,
        (0.0, 2.0),
        (0, 1),
    ),
    "sigmoid": (
        lambda t: td.TransformedDistribution(td.Normal(t, t), [td.SigmoidTransform(), td.AffineTransform(-t, 2 * t)]),
        2.0,
        (-2.0, 2.0),
        (-1, 1),
    ),
    "inverse power": (
        lambda t: td.TransformedDistribution(td.Pareto(t, t), [td.PowerTransform(torch.tensor(-1.0).double())]),
        2.0,
        (0.0, 0.5),
        (0, -0.25),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_ends_and_their_derivatives(name):
    make, value, ends, slopes = CASES[name]
    t = leaf(value)
    q = make(t)
    found = support_ends(q)
    for end, expected, slope in zip(found, ends, slopes, strict=True):
        assert end.dtype == torch.float64 and end.item() == pytest.approx(expected, abs=1e-15)
        if end.requires_grad:
            assert torch.autograd.grad(end, t, retain_graph=True)[0].item() == pytest.approx(slope, abs=1e-15)
        else:
            assert slope == 0
    assert support_moves(q) == any(slopes)
    assert not support_moves(make(t.detach()))


def test_ends_of_mixtures_and_of_independent_coordinates():
    loc = leaf([1.0, 5.0])
    shifted = td.TransformedDistribution(td.Exponential(leaf([1.0, 2.0])), [td.AffineTransform(loc, 1.0)])
    q = td.MixtureSameFamily(td.Categorical(torch.ones(2).double()), shifted)
    low, high = support_ends(q)
    assert low.item() == 1.0 and high.item() == INF
    assert support_moves(q)
    inner = td.TransformedDistribution(
        td.Exponential(torch.ones(2).double()),
        [td.AffineTransform(torch.stack([torch.zeros(()).double(), leaf(3.0)]), 1.0)],
    )
    assert support_moves(td.MixtureSameFamily(td.Categorical(torch.ones(2).double()), inner))  # a jump within
    box = td.Independent(td.Uniform(torch.zeros(3, 2), torch.ones(3, 2)), 1)
    assert support_ends(box)[1].shape == (3, 2) and not support_moves(box)


def test_what_has_no_ends():
    with pytest.raises(TypeError, match="got int"):
        support_ends(3)
    with pytest.raises(ValueError, match="continuous, got Poisson"):
        support_ends(td.Poisson(torch.tensor(2.0)))
    with pytest.raises(NotImplementedError, match=r"Simplex.*no ends"):
        support_ends(td.Dirichlet(torch.ones(3)))
    with pytest.raises(NotImplementedError, match="not one-to-one"):
        support_ends(td.TransformedDistribution(td.Normal(0.0, 1.0), [td.AbsTransform()]))


def test_an_end_with_an_infinite_image_does_not_move() -> None:
    """The log of a scaled exponential variable: 0 goes to −∞, where the slope of the log is infinite."""
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    base = td.Exponential(torch.ones((), dtype=torch.float64))
    q = td.TransformedDistribution(base, [td.AffineTransform(0.0, scale), td.ExpTransform().inv])
    low, high = support_ends(q)
    assert (low.item(), high.item()) == (-math.inf, math.inf)
    assert not support_moves(q)
