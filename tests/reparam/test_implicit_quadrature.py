"""Implicit gradients of densities with nothing but ``log_prob``: by quadrature, one draw each or many of one."""

import math

import pytest
import torch
from torch import distributions as td

from vaetut.reparam import implicit_gradient


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def two_modes(distance, width):
    """Two normals of the same weight, at 0 and at the distance; the second has this width."""
    parts = td.Normal(double([0.0, distance]), double([1.0, width]))
    return td.MixtureSameFamily(td.Categorical(logits=torch.zeros(2, dtype=torch.float64)), parts)


class Placed(td.Distribution):
    """m + s y, for y with a standard density: ``dz/dm = 1`` and ``dz/ds = (z - m)/s``, whatever the density."""

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, base, loc, scale):
        self.base, self.loc, self.scale = base, loc, scale
        super().__init__(loc.shape, validate_args=False)

    @property
    def support(self):
        return td.constraints.real if self.base.support.check(-ONE).all() else td.constraints.positive

    def log_prob(self, value):
        return self.base.log_prob((value - self.loc) / self.scale) - self.scale.log()


ZERO, ONE = double(0.0), double(1.0)
OUT = [-30.0, -3.0, -0.4, 1e-9, 0.7, 2.5, 30.0]
REAL = {  # with places, and the largest error relative to the scale
    "normal": (td.Normal(ZERO, ONE), OUT, 1e-10),
    "Laplace, a kink": (td.Laplace(ZERO, ONE), OUT, 2e-10),
    "Cauchy, a heavy tail": (td.Cauchy(ZERO, ONE), [-1e4, *OUT, 1e4], 1e-10),
    "Gumbel": (td.Gumbel(ZERO, ONE), [-3.0, -0.4, 0.7, 2.5, 30.0], 1e-10),
    "modes at 6": (two_modes(6.0, 1.0), [-8.0, -1.0, 2.9, 3.0, 5.0, 12.0], 1e-10),
    "modes at 20": (two_modes(20.0, 1.0), [-3.0, 0.5, 4.0, 16.0, 19.7, 23.0], 1e-10),
    "a narrow mode": (two_modes(1.5, 0.1), [-3.0, 0.0, 1.3, 1.5, 1.7, 4.0], 1e-10),
}


def errors(q, loc, scale, z):
    """Errors of both derivatives at each draw, relative to 1 and to 1 + |z - m|/s."""
    moved = implicit_gradient(q, z)
    if z.dim() == 1:  # each draw has its own parameters
        by_loc, by_scale = torch.autograd.grad(moved.sum(), (loc, scale))
    else:
        rows = [torch.autograd.grad(moved[i].sum(), (loc, scale), retain_graph=True) for i in range(len(z))]
        by_loc, by_scale = (torch.stack(column).flatten() for column in zip(*rows, strict=True))
    y = ((z - loc) / scale).detach().flatten()
    return (by_loc - 1).abs(), (by_scale - y).abs() / (1 + y.abs())


@pytest.mark.parametrize("many", [False, True], ids=["one draw each", "many of one"])
@pytest.mark.parametrize("place", [(0.3, 1.2), (1e6, 0.1), (-4e-5, 1e-7)])
@pytest.mark.parametrize("name", REAL)
def test_location_and_scale_move_a_draw_as_they_must(name, place, many):
    base, y, tolerance = REAL[name]
    y = double(y)
    loc, scale = (
        torch.full((1 if many else len(y),), v, dtype=torch.float64).requires_grad_() for v in place
    )
    z = (loc + scale * y).detach()
    found = errors(Placed(base, loc, scale), loc, scale, z.unsqueeze(-1) if many else z)
    # (z - m)/s itself has lost digits far from 0
    rounding = 4 * 2.3e-16 * (1 + abs(place[0]) / place[1])
    for error in found:
        assert error.max() < tolerance + rounding, error


@pytest.mark.parametrize("many", [False, True], ids=["one draw each", "many of one"])
@pytest.mark.parametrize(
    "base", [td.Exponential(ONE), td.Gamma(double(0.05), ONE), td.Gamma(double(1e4), ONE), td.HalfCauchy(ONE)]
)
def test_a_scale_moves_a_draw_on_the_half_line_as_it_must(base, many):
    y = base.mean * double([0.97, 1.0, 1.03]) if isinstance(base, td.Gamma) else double([1e-9, 0.3, 1.0, 7.0])
    if base.batch_shape == () and isinstance(base, td.Gamma) and float(base.concentration) < 1:
        y = double([1e-140, 1e-9, 0.02, 1.0, 9.0])
    scale = torch.full((1 if many else len(y),), 2.5, dtype=torch.float64, requires_grad=True)
    q = Placed(base, torch.zeros_like(scale), scale)
    z = (scale * y).detach()
    moved = implicit_gradient(q, z.unsqueeze(-1) if many else z).flatten()
    for i in range(len(y)):
        (slope,) = torch.autograd.grad(moved[i], scale, retain_graph=True)
        assert abs(float(slope.sum()) / float(y[i]) - 1) < 1e-10, (float(y[i]), slope)


def test_a_draw_at_the_end_of_the_range_has_the_power_law_there():
    """For p = k zᵏ⁻¹ on (0, 1), z = u^(1/k) and dz/dk = −z log z/k; at tiny z the mesh has no panel below z."""
    z = double([1e-307, 1e-300, 1e-200, 0.5, 1 - 1e-9])
    k = torch.full_like(z, 1.5).requires_grad_()

    class Power(td.Distribution):
        arg_constraints = {}  # noqa: RUF012
        support = td.constraints.unit_interval

        def log_prob(self, value):
            return k.log() + (k - 1) * value.log()

    q = Power(k.shape, validate_args=False)
    q.k = k
    (slope,) = torch.autograd.grad(implicit_gradient(q, z).sum(), k)
    exact = -z * z.log() / 1.5
    assert ((slope / exact - 1).abs() < 1e-7).all(), slope / exact - 1
    assert math.isclose(float(slope[3]), float(exact[3]), rel_tol=1e-10)
