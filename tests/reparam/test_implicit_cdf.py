"""Implicit gradients by the derivative of a CDF: tails, second derivatives, mixtures and supports, against mpmath."""

import math

import mpmath as mp
import pytest
import scipy.stats as st
import torch
from torch import distributions as td
from torch.distributions import constraints

import vaetut
from vaetut import distributions as vd
from vaetut.distributions import round_tails
from vaetut.distributions import shape_tails as _tails
from vaetut.reparam import families, implicit_gradient, implicit_rsample, reparameterize


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def leaves(*values):
    return [double(value).requires_grad_() for value in values]


def relative(got, exact):
    return abs(float(got) / float(exact) - 1)


# ------------------------------------------------------------------------------------------------------------ tails


def lower_gamma(a, x):
    return mp.gammainc(a, 0, x, regularized=True)


def upper_gamma(a, x):
    return mp.gammainc(a, x, regularized=True)


def slope_of(f, value):
    step = value * mp.mpf(10) ** -16
    return (f(value + step) - f(value - step)) / (2 * step)


GAMMAS = [
    (1e-3, -600.0), (1e-3, -0.1), (1e-3, 1.0), (0.05, -30.0), (0.7, -1.0),
    (0.7, 0.01), (1.0, 2.0), (3.0, -0.5), (3.0, 0.2),
    (3.0, 0.9), (3.0, 1.2), (3.0, 3.5), (80.0, 3.5), (80.0, 4.3), (80.0, 4.4), (80.0, 6.0), 
    (1e4, 9.2), (1e5, 11.51), (1e5, 11.53),
]  # fmt: skip


@pytest.mark.parametrize(("a", "log_x"), GAMMAS)
def test_gamma_tail_and_its_slopes(a, log_x):
    shape, at = leaves(a, log_x)
    value = _tails.gamma_log_tail(shape, at)
    got = torch.autograd.grad(value, [shape, at])
    tail = upper_gamma if _tails.gamma_is_above(shape, at) else lower_gamma
    with mp.workdps(60):
        x, b = mp.e ** mp.mpf(log_x), mp.mpf(a)
        exact = tail(b, x)
        assert abs(value.item() - mp.log(exact)) < 1e-10
        assert relative(got[0], slope_of(lambda b: tail(b, x), b) / exact) < 2e-12
        assert relative(got[1], slope_of(lambda y: tail(b, y), x) * x / exact) < 2e-12


def lower_beta(a, b, t):
    return mp.betainc(a, b, 0, mp.e**t / (1 + mp.e**t), regularized=True)


def upper_beta(a, b, t):
    return mp.betainc(b, a, 0, 1 / (1 + mp.e**t), regularized=True)


BETAS = [
    (1e-3, 1e-3, -400.0), (1e-3, 1e-3, 300.0), (1e-3, 1e3, -8.0), (1e3, 1e-3, 8.0), (0.05, 4.0, -3.0), (0.05, 4.0, 1.0),
    (0.3, 0.8, 0.0),
    (0.5, 50.0, -3.0), (0.5, 50.0, -5.0), (1.0, 1.0, 0.1), (1.0, 1e4, -9.0),
    (2.0, 3.0, -3.0), (2.0, 3.0, -0.4), (2.0, 3.0, 4.0),
    (7.9, 7.9, -0.1), (8.0, 1.0, 0.3), (8.0, 1.0, 1.9), (1.2, 1.4, 0.39), (1.2, 1.4, 0.41), (8.1, 8.1, 0.2),
    (0.5, 1e4, -8.2), (0.9, 30.0, -2.2), (700.0, 900.0, -0.3), (700.0, 900.0, -0.2), (2e4, 5.0, 8.0),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b", "logit"), BETAS)
def test_beta_tail_and_its_slopes(a, b, logit):
    values = leaves(a, b, logit)
    value = _tails.beta_log_tail(*values)
    got = torch.autograd.grad(value, values)
    tail = upper_beta if _tails.beta_is_above(*values) else lower_beta
    with mp.workdps(60):
        at = [mp.mpf(v) for v in (a, b, logit)]
        exact = tail(*at)
        assert abs(value.item() - mp.log(exact)) < 1e-9
        for i in range(3):

            def moved(v, i=i):
                return tail(*(v if j == i else w for j, w in enumerate(at)))

            step = mp.mpf(10) ** -16
            slope = (moved(at[i] + step) - moved(at[i] - step)) / (2 * step)
            if a < 1e-2 or b < 1e-2:
                step = mp.mpf(10) ** -20
                slope = (moved(at[i] + step) - moved(at[i] - step)) / (2 * step)
            assert relative(got[i], slope / exact) < 2e-11, i


@pytest.mark.parametrize(
    ("df", "y"),
    [(0.1, 3.0), (4.0, 0.3), (39.9, 2.0), (40.1, 2.0), (40.1, 0.4), (1e3, 5.0), (1e6, 1.4), (1e6, 1.6)],
)
def test_student_tail_and_its_slopes(df, y):
    values = leaves(df, y)
    value = round_tails.student_log_tail(*values)
    got = torch.autograd.grad(value, values)
    above = bool(round_tails.student_is_above(*values))

    def tail(n, y):
        if above:
            return mp.betainc(n / 2, mp.mpf(1) / 2, 0, n / (n + y * y), regularized=True)
        return mp.betainc(mp.mpf(1) / 2, n / 2, 0, y * y / (n + y * y), regularized=True)

    with mp.workdps(60):
        n, at = mp.mpf(df), mp.mpf(y)
        exact = tail(n, at)
        assert relative(got[0], slope_of(lambda n: tail(n, at), n) / exact) < 2e-12
        assert relative(got[1], slope_of(lambda v: tail(n, v), at) / exact) < 2e-12


@pytest.mark.parametrize("k", [1e-8, 1e-3, 0.7, 2.99, 3.01, 5.0, 59.0, 61.0, 1e4, 1e8])
@pytest.mark.parametrize("width", [0.2, 0.9, 1.5, 3.0])
def test_von_mises_tail_and_its_slope_in_the_concentration(k, width):
    t = width / math.sqrt(k + 1)
    values = leaves(k, t)
    value = round_tails.von_mises_log_tail(*values)
    got = torch.autograd.grad(value, values)
    above = bool(round_tails.von_mises_is_above(*values))
    with mp.workdps(40):
        k, t = mp.mpf(k), mp.mpf(t)
        marks = sorted(
            {min(t + j / mp.sqrt(k + 1), mp.pi) for j in (0, 1, 2, 4, 8, 12)}
            | ({mp.pi} if k < 100 else set())
        )
        points = marks if above else [0, t / 2, t]

        def weigh(f):
            return mp.quad(lambda s: f(s) * mp.exp(-2 * k * mp.sin(s / 2) ** 2), points)

        lack = (
            1 - mp.besseli(1, k) / mp.besseli(0, k)
            if k < 1e3
            else sum(
                mp.mpf(p) / q / k**n
                for n, (p, q) in enumerate([(1, 2), (1, 8), (1, 8), (25, 128), (13, 32), (1073, 1024)], 1)
            )
        )
        mean = weigh(lambda s: lack - 2 * mp.sin(s / 2) ** 2) / weigh(lambda s: 1)
        assert relative(got[0], mean) < 1e-12
    assert value.isfinite() and got[1].isfinite()


def test_rows_are_computed_in_chunks_without_a_difference(monkeypatch):
    torch.manual_seed(0)
    a, b, x = 3 * torch.rand(3, 5, 7, dtype=torch.float64) + 0.1
    cases = [
        (_tails.gamma_log_tail, (a, x.log())),
        (_tails.beta_log_tail, (a, b, x - 1)),
        (round_tails.student_log_tail, (20 * a, x)),
        (round_tails.von_mises_log_tail, (3 * a, x)),
    ]

    def gradients_of(function, values):
        values = [value.clone().requires_grad_() for value in values]
        return torch.stack(torch.autograd.grad((function(*values) * b).sum(), values))

    whole = [gradients_of(*case) for case in cases]
    monkeypatch.setattr(_tails, "_ROWS", 4)
    for case, expected in zip(cases, whole, strict=True):
        assert torch.allclose(gradients_of(*case), expected, rtol=1e-13, atol=0)


# The log density and the CDF of the standard variable, for mpmath.
SYMMETRIC = {
    td.Normal: (lambda y: mp.npdf(y), lambda y: mp.erfc(-y / mp.sqrt(2)) / 2),
    vd.Logistic: (lambda y: mp.e ** (-y) / (1 + mp.e ** (-y)) ** 2, lambda y: 1 / (1 + mp.e ** (-y))),
    td.Laplace: (
        lambda y: mp.e ** (-abs(y)) / 2,
        lambda y: mp.e**y / 2 if y < 0 else 1 - mp.e ** (-y) / 2,
    ),
    td.Cauchy: (lambda y: 1 / (mp.pi * (1 + y * y)), lambda y: mp.mpf(1) / 2 + mp.atan(y) / mp.pi),
    td.LogNormal: (lambda y: mp.npdf(y), lambda y: mp.erfc(-y / mp.sqrt(2)) / 2),
}


@pytest.mark.parametrize("z", [-30.0, -2.0, 0.5, 1.2, 40.0])
@pytest.mark.parametrize("kind", SYMMETRIC, ids=lambda kind: kind.__name__)
def test_mixtures_of_symmetric_families_far_out_and_between(kind, z):
    """dz/dlogit, dz/dloc and dz/dscale, with components on both sides of z and very different weights."""
    logits, loc, scale = [0.0, 1.0, -12.0], [-1.5, 1.0, 3.0], [0.7, 1.3, 0.4]
    values = leaves(logits, loc, scale)
    mixture = td.MixtureSameFamily(td.Categorical(logits=values[0]), kind(*values[1:]))
    at = math.exp(z / 10) if kind is td.LogNormal else z
    got = torch.autograd.grad(implicit_gradient(mixture, double(at)), values)
    density, cdf = SYMMETRIC[kind]
    with mp.workdps(400):
        x = mp.log(mp.mpf(at)) if kind is td.LogNormal else mp.mpf(at)
        slope = 1 / mp.mpf(at) if kind is td.LogNormal else 1
        ys = [(x - mp.mpf(m)) / mp.mpf(s) for m, s in zip(loc, scale, strict=True)]
        total = sum(mp.e ** mp.mpf(v) for v in logits)
        weights = [mp.e ** mp.mpf(v) / total for v in logits]
        masses = [w * cdf(y) for w, y in zip(weights, ys, strict=True)]
        parts = [w * density(y) / mp.mpf(s) * slope for w, y, s in zip(weights, ys, scale, strict=True)]
        p, f = sum(parts), sum(masses)
        for i, (w, y) in enumerate(zip(weights, ys, strict=True)):
            share = parts[i] / p / slope
            assert relative(got[0][i], (w * f - masses[i]) / p) < 1e-10
            for found, exact in ((got[1][i], share), (got[2][i], share * y)):
                assert abs(float(found) - float(exact)) <= 1e-10 * abs(float(exact)) + 1e-290


# --------------------------------------------------------------------------------------------- second derivatives


def test_second_derivative_in_the_noise():
    """z = F⁻¹(u) of Gamma(2, 1) at u = 0.3: F = 1 − (1 + z) e^−z, d²(z²)/du² by hand."""
    with mp.workdps(30):
        z = mp.findroot(lambda z: 1 - (1 + z) * mp.exp(-z) - mp.mpf("0.3"), 1.1)
        p, slope = z * mp.exp(-z), (1 - z) * mp.exp(-z)
        exact = 2 / p**2 - 2 * z * slope / p**3
    u = double(0.3).requires_grad_()
    g = reparameterize(td.Gamma(double(2.0), double(1.0)), "implicit").g
    (first,) = torch.autograd.grad(g(u) ** 2, u, create_graph=True)
    (second,) = torch.autograd.grad(first, u)
    assert relative(second, exact) < 1e-9 and abs(second.item() - 16.36) < 0.01
    assert relative(torch.func.grad(torch.func.grad(lambda u: g(u) ** 2))(double(0.3)), exact) < 1e-9


# A family, its parameters, and its CDF with mpmath's functions.
SECOND = {
    "gamma, below 1": (td.Gamma, (0.7, 2.0), 0.2, lambda z, a, r: lower_gamma(a, r * z)),
    "gamma": (td.Gamma, (3.0, 2.0), 1.9, lambda z, a, r: lower_gamma(a, r * z)),
    "inverse gamma": (td.InverseGamma, (3.0, 2.0), 1.1, lambda z, a, r: upper_gamma(a, r / z)),
    "beta": (td.Beta, (2.0, 3.0), 0.3, lambda z, a, b: mp.betainc(a, b, 0, z, regularized=True)),
    "beta, below 1": (td.Beta, (0.4, 0.7), 0.8, lambda z, a, b: mp.betainc(a, b, 0, z, regularized=True)),
    "F": (td.FisherSnedecor, (3.0, 5.0), 1.7, lambda z, a, b: (
        mp.betainc(a / 2, b / 2, 0, a * z / (a * z + b), regularized=True))),
    "student": (td.StudentT, (3.0, 0.2, 1.5), 1.3, lambda z, n, m, s: (
        1 - mp.betainc(n / 2, 0.5, 0, n / (n + ((z - m) / s) ** 2), regularized=True) / 2)),
    "student, many": (td.StudentT, (90.0, 0.2, 1.5), 0.9, lambda z, n, m, s: (
        1 - mp.betainc(n / 2, 0.5, 0, n / (n + ((z - m) / s) ** 2), regularized=True) / 2)),
    "normal": (td.Normal, (0.3, 1.5), 1.0, lambda z, m, s: mp.ncdf((z - m) / s)),
    "gumbel": (td.Gumbel, (0.3, 1.5), 1.0, lambda z, m, s: mp.exp(-mp.exp(-(z - m) / s))),
    "kumaraswamy": (td.Kumaraswamy, (2.0, 0.7), 0.6, lambda z, a, b: 1 - (1 - z**a) ** b),
    "mixture": (
        lambda w, m, s: td.MixtureSameFamily(
            td.Categorical(logits=torch.stack([w, torch.zeros_like(w)]), validate_args=False),
            td.Normal(torch.stack([m, m + 2]), s, validate_args=False), validate_args=False),
        (0.4, 0.1, 1.2), 1.0,
        lambda z, w, m, s: (mp.exp(w) * mp.ncdf((z - m) / s) + mp.ncdf((z - m - 2) / s)) / (1 + mp.exp(w)),
    ),
    "von mises": (
        td.VonMises, (0.3, 1.7), 1.0,
        lambda z, m, k: mp.quad(lambda t: mp.exp(k * mp.cos(t - m)), [-mp.pi, 0, z]) / (2 * mp.pi * mp.besseli(0, k)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SECOND)
def test_second_derivatives_in_the_parameters(name, unchecked):
    """d²z/dφᵢdφⱼ of the solution of F(z; φ) = const, by implicit differentiation with mpmath's derivatives of F."""
    make, values, z, cdf = SECOND[name]
    count = len(values)
    with mp.workdps(32):
        at = [mp.mpf(v) for v in (z, *values)]

        def partial(*orders):
            return mp.diff(cdf, tuple(at), orders, h=mp.mpf(10) ** -8)

        def unit(*index):
            return tuple(sum(i == j for j in index) for i in range(count + 1))

        first = [-partial(*unit(i + 1)) / partial(*unit(0)) for i in range(count)]
        exact = [
            [-(partial(*unit(i + 1, j + 1)) + partial(*unit(0, i + 1)) * first[j] + partial(*unit(0, j + 1)) * first[i]
               + partial(*unit(0, 0)) * first[i] * first[j]) / partial(*unit(0)) for j in range(count)]
            for i in range(count)
        ]  # fmt: skip
    point = tuple(map(double, values))

    def f(*params):
        return implicit_gradient(make(*params), double(z))

    eager = torch.autograd.functional.hessian(f, point)
    argnums = tuple(range(count))
    forward = torch.func.jacfwd(torch.func.jacrev(f, argnums), argnums)(*point)
    scale = 10 * max(1.0, *(abs(float(e)) for row in exact for e in row))  # torch's trigamma is good to 1e-9
    for i in range(count):
        for j in range(count):
            assert abs(eager[i][j].item() - float(exact[i][j])) < 1e-9 * scale, (i, j)
            assert abs(forward[i][j].item() - float(exact[i][j])) < 1e-9 * scale, (i, j)
    slopes = torch.func.jacfwd(f, argnums)(*point)
    assert all(relative(got, e) < 1e-10 for got, e in zip(slopes, first, strict=True) if e != 0)


# -------------------------------------------------------------------------------------------------------- supports


def shifted(weights, loc):
    component = td.TransformedDistribution(
        td.Exponential(torch.ones_like(loc)), [td.AffineTransform(loc, 1.0)]
    )
    return td.MixtureSameFamily(td.Categorical(logits=weights), component)


def test_a_mixture_of_shifted_exponentials_is_exact():
    """The supports differ: dE[z]/dφ is the mean of dz/dφ over u, here a sum over 20 000 quantiles."""
    weights, loc = leaves([0.0, 0.0], [0.0, 2.0])
    q = shifted(weights, loc)
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    z = reparameterize(q, "implicit").g(u)
    by_weights, by_loc = torch.autograd.grad(z.mean(), [weights, loc])
    assert (by_weights - double([-0.5, 0.5])).abs().max() < 1e-3  # E z = Σ πₖ (1 + mₖ): (3 − 1)/4 = ½
    assert (by_loc - double([0.5, 0.5])).abs().max() < 1e-3


@pytest.mark.parametrize("z", [0.3, 1.7, 2.4, 9.0])
def test_a_mixture_of_shifted_exponentials_draw_by_draw(z):
    weights, loc = leaves([0.3, -0.2], [0.0, 2.0])
    got = torch.autograd.grad(implicit_gradient(shifted(weights, loc), double(z)), [weights, loc])

    def cdf(z, *v):
        share = mp.exp(v[0]) / (mp.exp(v[0]) + mp.exp(v[1]))
        one, two = (1 - mp.exp(-(z - m)) if z > m else mp.mpf(0) for m in v[2:])
        return share * one + (1 - share) * two

    with mp.workdps(40):
        at = [mp.mpf(v) for v in (z, 0.3, -0.2, 0, 2)]
        slopes = [mp.diff(cdf, tuple(at), tuple(int(i == j) for j in range(5))) for i in range(5)]
        exact = double([float(-s / slopes[0]) for s in slopes[1:]])
    assert torch.allclose(torch.cat(got), exact, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    "component",
    [
        lambda: td.Uniform(double([0.0, 0.5]), double([1.0, 3.0])),
        lambda: td.Pareto(double([1.0, 2.0]), double([3.0, 2.0])),
        lambda: vd.Reciprocal(double([1.0, 2.0]), double([3.0, 4.0])),
        lambda: vd.Triangular(double([0.0, 1.0]), double([2.0, 4.0]), double([0.0, 4.0])),
        lambda: td.HalfNormal(double([1.0, 2.0])),
    ],
)
def test_mixtures_of_other_supports_take_their_own_draws(component):
    weights = double([0.2, 0.4]).requires_grad_()
    q = td.MixtureSameFamily(td.Categorical(logits=weights), component())
    z = q.sample((50,))
    (got,) = torch.autograd.grad(implicit_gradient(q, z).sum(), weights)
    share = weights.detach().softmax(-1)
    parts = component()
    parts._validate_args = False
    low, high = parts.support.lower_bound, getattr(parts.support, "upper_bound", torch.inf)
    each = z.unsqueeze(-1).clamp(min=low)
    inside = (z.unsqueeze(-1) >= low) & (z.unsqueeze(-1) <= high)
    below = torch.where(
        z.unsqueeze(-1) > high,
        1.0,
        torch.where(inside, parts.cdf(torch.minimum(each, torch.as_tensor(high))), 0.0),
    )
    density = (share * torch.where(inside, parts.log_prob(each).exp(), 0.0)).sum(-1)
    whole = (share * below).sum(-1, keepdim=True)
    expected = (-share * (below - whole) / density.unsqueeze(-1)).sum(0)
    assert torch.allclose(got, expected, rtol=1e-9)


def test_weights_that_move_mass_across_a_gap_are_an_error():
    weights = double([0.0, 0.0]).requires_grad_()
    parts = td.Uniform(double([0.0, 2.0]), double([1.0, 3.0]))
    q = td.MixtureSameFamily(td.Categorical(logits=weights), parts)
    with pytest.raises(ValueError, match=r"supports.*gap"):
        implicit_rsample(q, (3,))
    low = double([0.0, 2.0]).requires_grad_()  # with the weights fixed every draw only moves within its part
    q = td.MixtureSameFamily(td.Categorical(logits=weights.detach()), td.Uniform(low, double([1.0, 3.0])))
    assert implicit_rsample(q, (3,)).requires_grad


def test_infinite_ends_of_a_support():
    scale, shape = leaves(1.3, 0.1)
    u = double([0.01, 0.4, 0.97])
    q = td.GeneralizedPareto(double(0.2), scale, shape)
    z = 0.2 + 1.3 / 0.1 * ((1 - u) ** -0.1 - 1)
    got = torch.autograd.grad(implicit_gradient(q, z).sum(), [scale, shape])
    assert relative(got[0], ((z - 0.2) / 1.3).sum()) < 1e-12
    rest = (1 - u) ** -0.1
    exact = (1.3 * (-(rest - 1) / 0.01 - rest * (1 - u).log() / 0.1)).sum()
    assert relative(got[1], exact) < 1e-10
    for dtype in (torch.float32, torch.float64):
        q = td.GeneralizedPareto(*(torch.tensor(v, dtype=dtype, requires_grad=True) for v in (0.0, 1.0, 0.1)))
        implicit_rsample(q, (4,)).sum().backward()

    class Ray(td.Distribution):
        """An exponential density on interval(0, inf), with log_prob alone."""

        arg_constraints = {}  # noqa: RUF012
        support = constraints.interval(0.0, math.inf)

        def __init__(self, rate):
            self.rate = rate
            super().__init__(rate.shape, validate_args=False)

        def log_prob(self, value):
            return self.rate.log() - self.rate * value

    (rate,) = leaves(2.0)
    (got,) = torch.autograd.grad(implicit_gradient(Ray(rate), double(0.3)), rate)
    assert relative(got, -0.15) < 1e-11


# --------------------------------------------------------------------------------------------------- other kinds


class Truncated(td.Normal):
    """A normal cut to (−1, 2), derived from Normal with a density of its own."""

    @property
    def support(self):
        return constraints.interval(-1.0, 2.0)

    def log_prob(self, value):
        mass = torch.special.ndtr((2 - self.loc) / self.scale) - torch.special.ndtr(
            (-1 - self.loc) / self.scale
        )
        return super().log_prob(value) - mass.log()


def test_a_subclass_with_its_own_density_is_not_taken_for_its_base():
    loc, scale = leaves(0.9, 1.1)
    q = Truncated(loc, scale, validate_args=False)

    def cdf(z, m, s):
        return (mp.ncdf((z - m) / s) - mp.ncdf((-1 - m) / s)) / (mp.ncdf((2 - m) / s) - mp.ncdf((-1 - m) / s))

    with mp.workdps(40):
        slopes = [mp.diff(cdf, (0.3, 0.9, 1.1), tuple(int(i == j) for j in range(3))) for i in range(3)]
    got = torch.autograd.grad(implicit_gradient(q, double(0.3)), [loc, scale])
    assert (
        relative(got[0], -slopes[1] / slopes[0]) < 1e-11 and relative(got[1], -slopes[2] / slopes[0]) < 1e-11
    )
    z = reparameterize(q, "implicit").g(double([0.1, 0.8]))
    for u, x in zip((0.1, 0.8), z.tolist(), strict=True):
        assert float(cdf(x, 0.9, 1.1)) == pytest.approx(u, rel=1e-10)


def test_a_cdf_of_ones_own_is_used_only_where_it_is_that_of_the_density():
    class Right(td.Distribution):
        arg_constraints = {}  # noqa: RUF012
        support = constraints.positive
        factor = 1.0

        def __init__(self, rate):
            self.rate = rate
            super().__init__(rate.shape, validate_args=False)

        def log_prob(self, value):
            return self.rate.log() - self.rate * value

        def cdf(self, value):
            return -torch.expm1(-self.factor * self.rate * value)

    class Wrong(Right):
        factor = 1.1

    class Deaf(Right):
        def cdf(self, value):
            return -torch.expm1(-self.rate.detach() * value)

    for kind in (Right, Wrong, Deaf):
        (rate,) = leaves(2.0)
        (got,) = torch.autograd.grad(implicit_gradient(kind(rate), double(0.3)), rate)
        assert relative(got, -0.15) < 1e-11, kind


def test_float32_maps_solve_in_float64():
    z = reparameterize(td.Beta(torch.tensor(500.0), torch.tensor(500.0)), "implicit").g(torch.tensor(0.3))
    assert z.dtype == torch.float32 and abs(z.item() - st.beta(500, 500).ppf(0.3)) < 1e-7
    z = reparameterize(td.VonMises(torch.tensor(0.0), torch.tensor(1e4)), "implicit").g(torch.tensor(0.3))
    assert abs(z.item() / (-0.5244005 / 100) - 1) < 1e-4
    weights = torch.zeros(2, requires_grad=True)
    mixture = td.MixtureSameFamily(td.Categorical(logits=weights), td.Normal(torch.tensor([-1.0, 1.0]), 1.0))
    z = reparameterize(mixture).g(torch.tensor([0.5, 0.9]))
    assert z.dtype == torch.float32 and abs(z[0].item()) < 1e-6
    z.sum().backward()
    assert weights.grad.dtype == torch.float32


def test_von_mises_of_every_concentration():
    for k in (1e-8, 1e-3, 1.0, 1e4, 1e8, 1e12):
        loc, concentration = leaves(0.4, k)
        z = double(0.4) + double([-1.5, 0.3, 1.1]) / math.sqrt(k + 1)
        got = torch.autograd.grad(
            implicit_gradient(td.VonMises(loc, concentration), z).sum(), [loc, concentration]
        )
        assert all(g.isfinite() for g in got), k
        if k >= 1e8:  # a Gaussian of variance 1/κ: dz/dκ = −(z − μ)/2κ
            assert relative(got[0], 3) < 1e-7
            assert relative(got[1], -(z - 0.4).sum() / (2 * k)) < 1e-6


def test_a_stored_result_is_no_parameter():
    for dtype in (torch.float32, torch.float64):
        low, high = (torch.tensor(v, dtype=dtype, requires_grad=True) for v in (1000.0, 1000.01))
        q = vd.Reciprocal(low, high)
        z = torch.tensor(1000.004, dtype=dtype)
        before = torch.autograd.grad(implicit_gradient(q, z), [low, high])
        q.log_prob(z)
        after = torch.autograd.grad(implicit_gradient(q, z), [low, high])
        assert before == after
        share = (float(z) - low.item()) / (high.item() - low.item())  # log is straight over so short a way
        assert abs(before[1].item() - share) < 1e-4


def test_inference_mode_and_parameters_changed_in_place():
    a = double(2.0).requires_grad_()
    q = td.Gamma(a, double(1.0))
    with torch.inference_mode():
        assert implicit_rsample(q, (3,)).shape == (3,)
    with torch.no_grad():
        a.add_(1.0)
    z = double(2.5)
    got = torch.autograd.grad(implicit_gradient(q, z), a)[0]
    fresh = double(3.0).requires_grad_()
    assert got == torch.autograd.grad(implicit_gradient(td.Gamma(fresh, double(1.0)), z), fresh)[0]


# ------------------------------------------------------------------------------------------------ mixtures of vectors


def vectors(weights, loc, scale):
    return td.MixtureSameFamily(td.Categorical(logits=weights), td.Independent(td.Normal(loc, scale), 1))


VECTOR = ([0.3, -0.5], [[0.0, 1.0], [2.0, -1.0]], [[1.0, 0.5], [0.7, 2.0]])


def test_a_mixture_of_vectors_draw_by_draw():
    """dz₁ and dz₂ from the two equations F₁(z₁) = u₁ and F₂(z₂ | z₁) = u₂, with mpmath's derivatives."""
    point = (0.7, 0.4)

    def parts(z, *v):
        shares = [mp.exp(w) / (mp.exp(v[0]) + mp.exp(v[1])) for w in v[:2]]
        loc, scale = v[2:6], v[6:]
        one = sum(p * mp.ncdf((z[0] - loc[2 * k]) / scale[2 * k]) for k, p in enumerate(shares))
        joint = [p * mp.npdf(z[0], loc[2 * k], scale[2 * k]) for k, p in enumerate(shares)]
        two = sum(p * mp.ncdf((z[1] - loc[2 * k + 1]) / scale[2 * k + 1]) for k, p in enumerate(joint))
        return one, two / sum(joint)

    flat = [float(x) for group in VECTOR for x in torch.tensor(group).flatten()]
    with mp.workdps(40):
        at = (*map(mp.mpf, point), *map(mp.mpf, map(str, [0.3, -0.5, 0, 1, 2, -1, 1, 0.5, 0.7, 2])))

        def slope(which, index):
            return mp.diff(
                lambda *v: parts(v[:2], *v[2:])[which], at, tuple(int(i == index) for i in range(12))
            )

        exact = []
        for index in range(2, 12):
            first = -slope(0, index) / slope(0, 0)
            exact.append((float(first), float(-(slope(1, index) + slope(1, 0) * first) / slope(1, 1))))
    assert len(flat) == 10
    values = leaves(*VECTOR)
    z = implicit_gradient(vectors(*values), double(point))
    for d in range(2):
        got = torch.cat([g.flatten() for g in torch.autograd.grad(z[d], values, retain_graph=True)])
        assert torch.allclose(got, double([row[d] for row in exact]), rtol=1e-10, atol=1e-13)


def test_a_mixture_of_vectors_in_expectation():
    """d E[f]/dφ = ∫ p Σ_d ∂f/∂z_d dz_d/dφ dz for f = z₁z₂ by the trapezoid rule, against that of Σ πₖ mₖ₁ mₖ₂."""
    values = leaves(*VECTOR)
    q = vectors(*values)
    assert reparameterize(q).family == "implicit" and families(q) == ("implicit",)
    line = torch.arange(-13.0, 13.0, 0.125, dtype=torch.float64)
    z = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1)
    weight = q.log_prob(z).detach().exp().unsqueeze(-1) * 0.125**2
    got = torch.autograd.grad(implicit_gradient(q, z), values, weight * z.flip(-1))
    again = leaves(*VECTOR)
    exact = torch.autograd.grad((again[0].softmax(-1) * again[1].prod(-1)).sum(), again[:2])
    for one, two in zip(got, (*exact, torch.zeros(2, 2).double()), strict=True):  # none in the scales
        assert (one - two).abs().max() < 1e-8  # what lies beyond the grid


def test_draws_and_noise_of_a_mixture_of_vectors():
    values = [torch.tensor(v, requires_grad=True) for v in VECTOR]
    q = vectors(*values)
    r = reparameterize(q)
    assert r.noise.event_shape == (2,)
    z = r.rsample((7, 3))
    assert z.shape == (7, 3, 2) and z.dtype == torch.float32
    z.square().sum().backward()
    assert all(v.grad is not None and v.grad.isfinite().all() for v in values)
    u = torch.rand(5, 2, dtype=torch.float64)
    leaf = leaves(*VECTOR)
    z = reparameterize(vectors(*leaf)).g(u).detach()
    parts = td.Normal(leaf[1], leaf[2])
    first = (leaf[0].softmax(-1) * parts.cdf(z[:, None])[..., 0]).sum(-1)
    joint = leaf[0].softmax(-1) * parts.log_prob(z[:, None])[..., 0].exp()
    second = (joint * parts.cdf(z[:, None])[..., 1]).sum(-1) / joint.sum(-1)
    torch.testing.assert_close(torch.stack([first, second], -1), u, rtol=1e-10, atol=1e-12)
    with pytest.raises(NotImplementedError, match="several dimensions"):
        implicit_rsample(
            td.MixtureSameFamily(
                td.Categorical(torch.ones(2)), td.MultivariateNormal(torch.zeros(2, 2), torch.eye(2))
            )
        )


def test_second_derivatives_of_a_mixture_of_vectors(unchecked):
    """The backward pass, twice, against forward over reverse mode through the steps of Newton's method."""
    point = tuple(map(double, VECTOR))
    z = double([[0.7, 0.4], [-1.0, 2.0]])

    def f(*params):
        moved = implicit_gradient(vectors(*params), z)
        return moved.prod(-1).sum() + moved.square().sum()

    eager = torch.autograd.functional.hessian(f, point)
    other = torch.func.hessian(f, (0, 1, 2))(*point)
    for row, column in zip(eager, other, strict=True):
        for one, two in zip(row, column, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "kind", [td.Normal, td.Laplace, td.Cauchy, vd.Logistic, td.Gumbel], ids=lambda k: k.__name__
)
@pytest.mark.parametrize("route", ["pathwise", "rsample", "g"])
def test_a_mixture_of_vectors_through_the_public_functions(kind, route):
    """The gradient of Σ f(z) over the draws, by solving ∂u/∂z dz = −∂u/∂φ with torch's own cdf and log_prob."""
    torch.manual_seed(0)
    values = [torch.randn(4, 3).double(), torch.randn(4, 3, 2).double(), torch.rand(4, 3, 2).double() + 0.5]

    def make(logits, loc, scale):  # a batch of four, three components, two coordinates
        parts = td.Independent(kind(loc, scale), 1)
        return td.MixtureSameFamily(td.Categorical(logits=logits), parts)

    def f(z):
        return z[..., 0].tanh() * z[..., 1].cos() + z.tanh().square().sum(-1)

    leaf = [value.clone().requires_grad_() for value in values]
    torch.manual_seed(1)
    if route == "pathwise":
        total = vaetut.pathwise(f, make(*leaf), 6)
        torch.manual_seed(1)
        z = make(*values).sample((6,))
    else:
        r = reparameterize(make(*leaf))
        z = r.rsample((6,)) if route == "rsample" else r.g(r.noise.sample((6,)))
        total = f(z)
        z = z.detach()
    torch.testing.assert_close(total.detach(), f(z))
    got = torch.autograd.grad(total.sum(), leaf)

    def u(z, logits, loc, scale):  # of one draw
        parts = kind(loc, scale, validate_args=False)
        joint, found = logits.log_softmax(-1), []
        for d in range(2):
            found.append((joint.softmax(-1) * parts.cdf(z)[:, d]).sum(-1))
            joint = joint + parts.log_prob(z)[:, d]
        return torch.stack(found)

    exact = [torch.zeros_like(value) for value in values]
    for draw in z:
        for k, point in enumerate(draw):
            at = (point, *(value[k] for value in values))
            by_z, *by_parameters = torch.func.jacrev(u, (0, 1, 2, 3))(*at)
            pull = torch.linalg.solve(by_z.T, torch.func.grad(f)(point))
            for total_of, jacobian in zip(exact, by_parameters, strict=True):
                total_of[k] -= torch.tensordot(pull, jacobian, 1)
    for one, other in zip(got, exact, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
