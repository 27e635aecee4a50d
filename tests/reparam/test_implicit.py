"""Implicit gradients, sample by sample: against mpmath, scipy's quantiles, closed forms, and themselves."""

import copy
import math
from typing import ClassVar

import mpmath as mp
import numpy as np
import pytest
import scipy.stats as st
import torch
from torch import distributions as td
from torch.distributions import constraints

from vaetut import distributions as vd
from vaetut.reparam import implicit_gradient, implicit_rsample
from vaetut.reparam.implicit import _charts, _pieces
from vaetut.reparam.implicit._quadrature import split


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def leaves(*values):
    return [double(value).requires_grad_() for value in values]


def gradients(make, values, z):
    """dz/dφ for each z, one row per parameter."""
    z = double(z) if not isinstance(z, torch.Tensor) else z
    each = [torch.full_like(z, value).requires_grad_() for value in values]
    return torch.stack(torch.autograd.grad(implicit_gradient(make(*each), z).sum(), each))


def relative(got, exact):
    return float(((got - exact) / exact).abs().max())


# ------------------------------------------------------------------------------------------------ against mpmath


def beta_cdf(a, b, odds):
    below = mp.betainc(a, b, 0, odds / (1 + odds), regularized=True)
    return below if below < 0.6 else -mp.betainc(b, a, 0, 1 / (1 + odds), regularized=True)


def gamma_cdf(a, x):
    below = mp.gammainc(a, 0, x, regularized=True)
    return below if below < 0.6 else -mp.gammainc(a, x, regularized=True)


def student_cdf(df, y):
    return -mp.sign(y) * mp.betainc(df / 2, 0.5, 0, df / (df + y * y), regularized=True) / 2


CDFS = {
    td.Gamma: (lambda z, a, r: gamma_cdf(a, r * z), lambda a, r: st.gamma(a, scale=1 / r)),
    td.Chi2: (lambda z, df: gamma_cdf(df / 2, z / 2), st.chi2),
    td.InverseGamma: (lambda z, a, r: -gamma_cdf(a, r / z), lambda a, r: st.invgamma(a, scale=r)),
    td.Beta: (lambda z, a, b: beta_cdf(a, b, z / (1 - z)), st.beta),
    td.StudentT: (lambda z, df, m, s: student_cdf(df, (z - m) / s), lambda df, m, s: st.t(df, m, s)),
    td.FisherSnedecor: (lambda z, a, b: beta_cdf(a / 2, b / 2, a * z / b), st.f),
    td.Kumaraswamy: (lambda z, a, b: -((1 - z**a) ** b), None),
    td.Weibull: (lambda z, s, k: -mp.exp(-((z / s) ** k)), lambda s, k: st.weibull_min(k, scale=s)),
}
U = np.array([1e-6, 1e-3, 0.05, 0.3, 0.6, 0.9, 0.999, 1 - 1e-6])
SWEEP = [
    (td.Gamma, (1e-3, 1.0)),
    (td.Gamma, (0.05, 1e-10)),
    (td.Gamma, (0.5, 2.0)),
    (td.Gamma, (2.0, 1e10)),
    (td.Gamma, (800.0, 0.5)),
    (td.Gamma, (1e5, 1.0)),
    (td.Chi2, (0.02,)),
    (td.Chi2, (7.0,)),
    (td.InverseGamma, (0.01, 1.0)),
    (td.InverseGamma, (3.0, 2.0)),
    (td.InverseGamma, (1e3, 1.0)),
    (td.Beta, (1e-3, 1e-3)),
    (td.Beta, (0.01, 5.0)),
    (td.Beta, (0.3, 2.0)),
    (td.Beta, (50.0, 0.1)),
    (td.Beta, (1e-3, 1e3)),
    (td.Beta, (700.0, 1e3)),
    (td.StudentT, (0.1, 0.5, 2.0)),
    (td.StudentT, (1.0, 0.0, 1.0)),
    (td.StudentT, (30.0, -1.0, 1e-3)),
    (td.StudentT, (1e6, 0.0, 1.0)),
    (td.FisherSnedecor, (0.05, 0.05)),
    (td.FisherSnedecor, (1.0, 4.0)),
    (td.FisherSnedecor, (300.0, 500.0)),
    (td.Kumaraswamy, (0.1, 0.1)),
    (td.Kumaraswamy, (2.0, 5.0)),
    (td.Kumaraswamy, (50.0, 0.5)),
    (td.Weibull, (1.0, 0.1)),
    (td.Weibull, (2.0, 50.0)),
]


def by_mpmath(cdf, z, values):
    """dz/dφ = −∂F/∂φ / ∂F/∂z, both by a difference of order 4 in many digits."""
    with mp.workdps(80 + int(abs(mp.log10(abs(z))))):
        at = [mp.mpf(value) for value in (z, *values)]

        def slope(index):
            step = (at[index] or 1) * mp.mpf(10) ** -22

            def f(k):
                return cdf(*(value + k * step if i == index else value for i, value in enumerate(at)))

            return (8 * (f(1) - f(-1)) - (f(2) - f(-2))) / (12 * step)

        return [float(-slope(i) / slope(0)) for i in range(1, len(at))]


def kumaraswamy_quantile(a, b):
    return (-np.expm1(np.log1p(-U) / b)) ** (1 / a)


@pytest.mark.parametrize(("kind", "values"), SWEEP)
def test_gradients_against_mpmath(kind, values):
    cdf, frozen = CDFS[kind]
    with np.errstate(divide="ignore"):
        z = frozen(*values).ppf(U) if frozen else kumaraswamy_quantile(*values)
    z = [value for value in z if 1e-250 < abs(value) < 1e250 and value != 1]
    exact = double([by_mpmath(cdf, value, values) for value in z]).T
    # The mean of the score is 0 and so, far out, can be a derivative: F's in d₁ where d₁ is large.
    assert relative(gradients(kind, values, z), exact) < 1e-11


def test_the_check_against_mpmath_would_see_a_missing_normalizing_constant():
    # −∂F/∂φ from one side only, with a score that is off by 1e-9, as an inexact digamma would make it
    a, z = 30.0, 25.0
    exact = by_mpmath(CDFS[td.Gamma][0], z, (a, 1.0))[0]
    with mp.workdps(30):
        below, density = (
            mp.gammainc(a, 0, z, regularized=True),
            mp.exp((a - 1) * mp.log(z) - z - mp.loggamma(a)),
        )
    assert abs(1e-9 * float(below / density) / exact) > 1e-10
    assert relative(gradients(td.Gamma, (a, 1.0), [z])[0], exact) < 1e-13


def test_an_inexact_normalizing_constant_does_no_harm():
    class Off(td.Gamma):
        def log_prob(self, value):
            return super().log_prob(value) + 1e-6 * self.concentration.sin()

    z = [0.1, 2.0, 9.0]
    assert relative(gradients(Off, (3.0, 2.0), z), gradients(td.Gamma, (3.0, 2.0), z)) < 1e-12


# ----------------------------------------------------------------------------- against quantiles and closed forms


@pytest.mark.parametrize(
    ("kind", "values", "tolerance"),
    [
        (td.Normal, (0.3, 2.0), 1e-12),
        (td.Normal, (1e6, 1e3), 1e-9),
        (td.Laplace, (0.3, 2.0), 1e-8),  # a kink
        (td.Cauchy, (0.3, 2.0), 1e-12),
        (td.Gumbel, (0.3, 2.0), 1e-11),
        (td.Exponential, (1e5,), 1e-12),
        (td.HalfNormal, (0.2,), 1e-11),
        (td.HalfCauchy, (0.2,), 1e-12),
        (td.LogNormal, (-300.0, 10.0), 1e-10),
        (td.Weibull, (2.0, 0.2), 1e-12),
        (td.Uniform, (-1.0, 2.0), 1e-11),  # both ends of the support move
        (td.Pareto, (2.0, 0.3), 1e-11),  # its end moves
        (vd.Reciprocal, (1e-3, 1e5), 1e-10),
        (vd.Logistic, (0.5, 2.0), 1e-12),
        (vd.Rayleigh, (2.0,), 1e-12),
        (vd.Gompertz, (1e-4, 2.0), 1e-12),
        (vd.Triangular, (-1.0, 2.0, 0.3), 1e-8),
    ],
)
def test_gradients_are_those_of_the_inverse_cdf(kind, values, tolerance):
    u = double(np.linspace(0.004, 0.996, 32))
    each = [torch.full_like(u, value).requires_grad_() for value in values]
    z = kind(*each).icdf(u)
    exact = torch.stack(torch.autograd.grad(z.sum(), each))
    assert relative(gradients(kind, values, z.detach()), exact) < tolerance


@pytest.mark.parametrize(
    ("kind", "frozen", "values"),
    [
        (td.Gamma, lambda a, r: st.gamma(a, scale=1 / r), (2.3, 1.7)),
        (td.Beta, st.beta, (0.7, 1.6)),
        (td.StudentT, st.t, (4.2,)),
        (td.FisherSnedecor, st.f, (5.3, 6.1)),
        (td.Chi2, st.chi2, (3.4,)),
    ],
)
def test_gradients_are_differences_of_scipys_quantiles(kind, frozen, values):
    u, step = np.array([0.01, 0.2, 0.7, 0.95]), 1e-4
    got = gradients(kind, values, frozen(*values).ppf(u))
    for i, value in enumerate(values):
        up, down = (frozen(*(v + s * (j == i) for j, v in enumerate(values))).ppf(u) for s in (step, -step))
        assert relative(got[i], double((up - down) / (2 * step))) < 1e-6, value


def test_a_transformed_distribution_moves_with_its_transforms():
    def make(loc, scale, concentration):
        base = td.Gamma(concentration, torch.ones_like(concentration))
        return td.TransformedDistribution(base, [td.AffineTransform(loc, scale)])

    z, (loc, scale, shape) = double([1.3, 3.0, 12.0]), (1.0, 0.5, 2.0)
    y = (z - loc) / scale
    exact = torch.stack([torch.ones(3), y, scale * gradients(td.Gamma, (shape, 1.0), y)[0]])
    assert relative(gradients(make, (loc, scale, shape), z), exact) < 1e-12
    falling = gradients(make, (loc, -scale, shape), 2 * loc - z)
    assert relative(falling, torch.stack([torch.ones(3), y, -exact[2]])) < 1e-12
    folded = td.TransformedDistribution(td.Normal(*leaves(0.0, 1.0)), [td.AbsTransform()])
    with pytest.raises(NotImplementedError, match="not one-to-one"):
        implicit_gradient(folded, double(1.0))


# ------------------------------------------------------------------------------------- mixtures and the von Mises


LOGITS, LOCS, SCALES = [0.3, -1.0, 0.5], [-2.0, 0.5, 400.0], [1e-2, 1.0, 3.0]


def mixture_cdf(z, *values):
    weights = [mp.exp(value) for value in values[:3]]
    sign = 1 if z < 200 else -1  # minus the upper tail, which has the same derivatives
    parts = zip(weights, values[3:6], values[6:], strict=True)
    return sign * sum(w * mp.ncdf(sign * (z - m) / s) for w, m, s in parts) / sum(weights)


@pytest.mark.parametrize("z", [-2.03, -1.9, 0.0, 3.0, 390.0, 401.0, 420.0])
def test_mixture_in_its_weights_and_components(z):
    exact = double(by_mpmath(mixture_cdf, z or mp.mpf(10) ** -30, (*LOGITS, *LOCS, *SCALES)))
    values = leaves(LOGITS, LOCS, SCALES)
    q = td.MixtureSameFamily(td.Categorical(logits=values[0]), td.Normal(values[1], values[2]))
    got = torch.cat(torch.autograd.grad(implicit_gradient(q, double(z)), values))
    assert relative(got[exact.abs() > 1e-200], exact[exact.abs() > 1e-200]) < 1e-12


def test_mixture_of_gammas_against_differences():
    def draw(logits, shapes, z):
        q = td.MixtureSameFamily(td.Categorical(logits=logits), td.Gamma(shapes, torch.ones_like(shapes)))
        return implicit_gradient(q, z), q

    z = double([0.03, 1.0, 4.0, 12.0])
    values = leaves([0.2, -0.4], [0.3, 5.0])
    with torch.no_grad():
        density = draw(*values, z)[1].log_prob(z).exp()
    for i, value in enumerate(values):
        for k in range(2):
            got = [torch.autograd.grad(draw(*values, one)[0], value)[0] for one in z]
            change = []
            for step in (1e-5, -1e-5):
                moved = [
                    v.detach().numpy() + step * (np.arange(2) == k) * (j == i) for j, v in enumerate(values)
                ]
                weights = np.exp(moved[0]) / np.exp(moved[0]).sum()
                change.append((weights * st.gamma(moved[1]).cdf(z.numpy()[:, None])).sum(-1))
            exact = -double(change[0] - change[1]) / 2e-5 / density
            assert torch.allclose(torch.stack(got)[:, k], exact, rtol=1e-5, atol=1e-7)


def von_mises_cdf(z, loc, concentration, low=-mp.pi):
    density = lambda t: mp.exp(concentration * (mp.cos(t - loc) - 1))  # noqa: E731
    width = 5 / mp.sqrt(concentration + 1)
    edges = [loc + turn + side for turn in (-2 * mp.pi, 0, 2 * mp.pi) for side in (-width, 0, width)]
    points = sorted({low, z, *(edge for edge in edges if low < edge < z)})
    return mp.quad(density, points) / mp.quad(
        density, [-mp.pi, *sorted(e for e in edges if abs(e) < mp.pi), mp.pi]
    )


@pytest.mark.parametrize(
    ("loc", "concentration", "zs"),
    [
        (0.5, 2.0, [-3.0, 0.6]),
        (3.1, 1e3, [3.12, -3.13]),
        (-3.0, 30.0, [2.9]),
        (0.0, 1e-3, [2.0]),
        (1.0, 1e3, [1.05]),
    ],
)
def test_von_mises_on_the_circle_cut_at_pi(loc, concentration, zs):
    for z in zs:
        with mp.workdps(40):
            at, step = [mp.mpf(value) for value in (z, loc, concentration)], mp.mpf(10) ** -8
            slopes = [
                (
                    von_mises_cdf(*(v + step * (j == i) for j, v in enumerate(at)))
                    - von_mises_cdf(*(v - step * (j == i) for j, v in enumerate(at)))
                )
                for i in range(3)
            ]
            exact = double([float(-slope / slopes[0]) for slope in slopes[1:]])
        # torch's log_prob has a normalizing constant that is good to 2e-7 only
        assert relative(gradients(td.VonMises, (loc, concentration), [z])[:, 0], exact) < 1e-11


# ------------------------------------------------------------------------------------------------------- Dirichlet


def test_dirichlet_of_two_is_a_beta():
    z = double([1e-8, 0.2, 0.7])
    concentration = double([[0.4, 1.7]]).expand(3, 2).clone().requires_grad_()
    pair = implicit_gradient(td.Dirichlet(concentration), torch.stack([z, 1 - z], -1))
    (got,) = torch.autograd.grad(pair[:, 0].sum(), concentration, retain_graph=True)
    assert relative(got.T, gradients(td.Beta, (0.4, 1.7), z)) < 1e-11
    (rest,) = torch.autograd.grad(pair.sum(), concentration)
    assert rest.abs().max() < 1e-14  # it stays on the simplex


def test_dirichlet_agrees_with_torch_as_far_as_torch_is_right():
    concentration = double([0.3, 2.0, 5.0]).requires_grad_()
    z = td.Dirichlet(concentration.detach()).sample((40,))
    weight = torch.randn(3, dtype=torch.float64)
    for one in z:
        (got,) = torch.autograd.grad(
            implicit_gradient(td.Dirichlet(concentration), one) @ weight, concentration
        )
        native = torch._dirichlet_grad(one, concentration.detach(), concentration.detach().sum().expand(3))
        assert torch.allclose(got, native * (weight - one @ weight), rtol=2e-2, atol=1e-8)


# ------------------------------------------------------------------------------------------- in expectation


GROUPS, DRAWS = 200, 500  # of parameters, each with its own draws: 1e5 draws


def z_score(each, exact):
    """How far the mean over groups is from the exact derivative, in standard errors."""
    each = each / DRAWS
    return float((each.mean() - exact) / (each.std() / math.sqrt(GROUPS)))


@pytest.mark.parametrize(
    ("make", "value", "f", "exact"),
    [
        (lambda a: td.Gamma(a, torch.ones_like(a)), 0.4, torch.log, float(mp.polygamma(1, 0.4))),
        (lambda a: td.Beta(a, torch.full_like(a, 1.3)), 0.6, lambda z: z, 1.3 / 1.9**2),
        (lambda df: td.StudentT(df), 7.0, torch.square, -2 / 25),
    ],
)
def test_gradients_of_expectations(make, value, f, exact):
    parameter = torch.full((GROUPS,), value, dtype=torch.float64, requires_grad=True)
    (each,) = torch.autograd.grad(f(implicit_rsample(make(parameter), (DRAWS,))).sum(), parameter)
    assert abs(z_score(each, exact)) < 5
    assert abs(z_score(-each, exact)) > 5  # a wrong sign is seen at this number of draws


def test_gradient_of_an_expectation_in_the_weights_of_a_mixture():
    logits = torch.zeros(GROUPS, 2, dtype=torch.float64, requires_grad=True)
    component = td.Normal(double([-1.0, 2.0]).expand(GROUPS, 2), double(0.7))
    z = implicit_rsample(td.MixtureSameFamily(td.Categorical(logits=logits), component), (DRAWS,))
    (each,) = torch.autograd.grad(z.square().sum(), logits)
    exact = (4 - 1) / 4  # E z² = Σ πₖ (mₖ² + s²), and ∂π₂/∂l₂ = 1/4
    assert abs(z_score(each[:, 1], exact)) < 5
    assert abs(z_score(each[:, 0], exact)) > 5


# ------------------------------------------------------------------------------------- precision, memory, errors


def test_float32_takes_the_exact_gradient_and_torchs_if_asked():
    for kind, count in ((td.Gamma, 2), (td.Chi2, 1), (td.Beta, 2)):
        values = [torch.tensor(1.3, requires_grad=True) for _ in range(count)]
        torch.manual_seed(1)
        fast = torch.autograd.grad(implicit_rsample(kind(*values), (50,), exact=False).sum(), values)
        torch.manual_seed(1)
        native = torch.autograd.grad(kind(*values).rsample((50,)).sum(), values)
        assert all(torch.equal(a, b) for a, b in zip(fast, native, strict=True))
        torch.manual_seed(1)
        z = implicit_rsample(kind(*values), (50,))
        assert z.dtype == torch.float32
        exact = torch.autograd.grad(z.sum(), values)
        doubles = [value.detach().double().requires_grad_() for value in values]
        reference = torch.autograd.grad(implicit_gradient(kind(*doubles), z.detach().double()).sum(), doubles)
        for got, expected, approximate in zip(exact, reference, native, strict=True):
            assert got.dtype == torch.float32
            assert abs(got / expected - 1) < 1e-6
            assert abs(approximate / expected - 1) < 1e-2


def test_float32_is_computed_in_float64():
    z, a = torch.tensor([1e-30, 0.1, 2.0]), torch.tensor(0.3, requires_grad=True)
    (got,) = torch.autograd.grad(implicit_gradient(td.StudentT(a), z).sum(), a)
    assert relative(got.double(), gradients(td.StudentT, (a.item(),), z.double()).sum()) < 1e-6


class Seen(td.Normal):
    """Counts the values of which log_prob is asked at a time."""

    most = 0

    def log_prob(self, value):
        Seen.most = max(Seen.most, value.expand(torch.broadcast_shapes(value.shape, self.loc.shape)).numel())
        mean, scale = self.loc, self.scale
        return -(((value - mean) / scale) ** 2) / 2 - scale.log() - math.log(2 * math.pi) / 2


@pytest.mark.parametrize(("batch", "samples"), [((), 30_000), ((3000,), 1), ((30, 20), 40)])
def test_memory_is_bounded(batch, samples):
    loc, scale = (torch.rand(batch, dtype=torch.float64).add(0.5).requires_grad_() for _ in range(2))
    Seen.most = 0
    z = implicit_rsample(Seen(loc, scale), (samples,))
    (got,) = torch.autograd.grad(z.sum(), scale)
    assert Seen.most <= max(_pieces._BUDGET, z.numel())  # which is asked once, for the draws themselves
    assert torch.allclose(got, ((z.detach() - loc) / scale).sum(0), rtol=1e-9)


def test_pieces_change_nothing(monkeypatch):
    values = [torch.randn(40, 3, dtype=torch.float64).requires_grad_() for _ in range(2)]

    def make():
        component = td.Independent(td.Normal(values[1], double(1.0).expand(40, 3)), 0)
        return td.MixtureSameFamily(td.Categorical(logits=values[0]), component)

    z = make().sample((5,))
    whole = torch.autograd.grad(implicit_gradient(make(), z).sum(), values)
    monkeypatch.setattr(_pieces, "_BUDGET", 8000)
    pieces = torch.autograd.grad(implicit_gradient(make(), z).sum(), values)
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-13) for a, b in zip(whole, pieces, strict=True))


def test_a_tensor_that_has_the_batch_shape_by_chance_is_not_cut(monkeypatch):
    class Table(td.Normal):
        def __init__(self, loc, knots):
            self.knots = knots  # as many as the batch is long, and for all of it
            super().__init__(loc, torch.ones_like(loc), validate_args=False)

        def log_prob(self, value):
            return td.Normal(self.loc + self.knots.sum(), self.scale).log_prob(value)

    monkeypatch.setattr(_pieces, "_BUDGET", 4000)
    loc, knots = leaves([0.1] * 30, [0.02] * 30)
    z = torch.randn(30, dtype=torch.float64)
    got = torch.autograd.grad(implicit_gradient(Table(loc, knots), z).sum(), [loc, knots])
    assert relative(got[0], torch.ones(30)) < 1e-9 and relative(got[1], torch.full((30,), 30.0)) < 1e-9


class Bimodal(td.Distribution):
    """A user's own density, with nothing but log_prob."""

    arg_constraints = {}  # noqa: RUF012
    support = constraints.real

    def __init__(self, loc, gap, excess=0.0):
        self.loc, self.gap, self.excess = loc, gap, excess
        super().__init__(validate_args=False)

    def log_prob(self, value):
        y = value - self.loc
        both = torch.logaddexp(-(y**2) / 2, -((y - self.gap) ** 2) / 2)
        return both - math.log(2 * math.sqrt(2 * math.pi)) + self.excess


def test_a_users_own_density():
    (loc,) = leaves(0.5)
    for gap in (0.0, 5.0, 15.0):
        for z in (-1.0, 0.7, 1.1 + gap):
            (got,) = torch.autograd.grad(implicit_gradient(Bimodal(loc, gap), double(z)), loc)
            assert abs(got - 1) < 1e-11  # a location moves every draw by as much


def test_what_the_quadrature_cannot_see_is_an_error():
    (loc,) = leaves(0.5)
    with pytest.raises(RuntimeError, match=r"integrates to 0\.5 .*MixtureSameFamily"):
        implicit_gradient(Bimodal(loc, 1e4), double(0.7)).backward()
    with pytest.raises(RuntimeError, match=r"integrates to 1\.10517.*not normalized"):
        implicit_gradient(Bimodal(loc, 1.0, 0.1), double(0.7)).backward()


def test_parameters_that_are_no_attributes_are_found():
    (loc,) = leaves(0.5)

    class Hidden(Bimodal):
        def __init__(self, network):
            self.network = network
            super().__init__(0.0, 0.0)

        def log_prob(self, value):
            return td.Normal(self.network(), double(1.0)).log_prob(value)

    z = implicit_gradient(Hidden(lambda: 2 * loc), double([0.1, 0.2]))
    (got,) = torch.autograd.grad(z.sum(), loc, create_graph=True)
    assert abs(got - 4) < 1e-12
    with pytest.raises(NotImplementedError, match="no second derivative"):
        torch.autograd.grad(got, loc)


def test_parameters_of_a_network_inside_of_q_are_found():
    class Flow(td.Distribution):
        arg_constraints = {}  # noqa: RUF012
        support = constraints.real

        def __init__(self):
            self.network = torch.nn.Linear(1, 1, dtype=torch.float64)
            super().__init__(validate_args=False)

        def log_prob(self, value):  # y = w z + b is normal
            y = self.network(value.unsqueeze(-1)).squeeze(-1)
            return -(y**2) / 2 + self.network.weight[0, 0].abs().log() - math.log(2 * math.pi) / 2

    q, z = Flow(), double([-0.4, 1.3])
    weight, bias = q.network.weight, q.network.bias
    got = torch.autograd.grad(implicit_gradient(q, z).sum(), [weight, bias])
    assert abs(got[0] + z.sum() / weight) < 1e-11 and abs(got[1] + 2 / weight) < 1e-11


def test_second_derivatives_of_a_quadrature_are_refused_and_first_ones_of_the_rest_are_not():
    loc = double(0.5).requires_grad_()
    z = implicit_gradient(Bimodal(loc, 2.0), double(0.7))
    (first,) = torch.autograd.grad(z + loc**3, loc, create_graph=True)
    assert abs(first - 1.75) < 1e-11
    with pytest.raises(NotImplementedError, match="no second derivative"):
        torch.autograd.grad(first, loc)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (td.Normal, (0.0, 1.0)),
        (td.Gamma, (0.3, 1.0)),
        (td.Beta, (0.5, 0.6)),
        (td.StudentT, (3.0,)),
        (td.VonMises, (0.0, 1.0)),
        (td.Uniform, (0.0, 1.0)),
    ],
)
def test_under_functional_transforms(kind, values):
    def f(*params):
        return implicit_gradient(kind(*params, validate_args=False), double(0.2))

    exact = gradients(kind, values, [0.2])[:, 0]
    argnums = tuple(range(len(values)))
    one = torch.func.grad(f, argnums)(*map(double, values))
    many = torch.func.vmap(torch.func.grad(f, argnums))(*(double([value] * 2) for value in values))
    for got, batched, expected in zip(one, many, exact, strict=True):
        assert abs(got - expected) < 1e-11 and (batched - expected).abs().max() < 1e-11
    forward = torch.func.jacfwd(f, argnums)(*map(double, values))
    assert all(abs(got - expected) < 1e-11 for got, expected in zip(forward, exact, strict=True))


def test_the_draw_itself_is_untouched():
    q = td.Independent(td.Gamma(*leaves([0.3, 2.0], [1.0, 1.0])), 1)
    before = copy.copy(vars(q.base_dist))
    torch.manual_seed(3)
    z = implicit_rsample(q, (4,))
    torch.manual_seed(3)
    assert torch.equal(z, q.sample((4,))) and z.requires_grad
    assert vars(q.base_dist) == before
    assert torch.equal(implicit_gradient(q, z.detach()), z)
    with torch.no_grad():
        assert not implicit_rsample(q, (4,)).requires_grad
    assert not implicit_rsample(td.Gamma(double(0.3), double(1.0)), (4,)).requires_grad


def test_gradients_stay_finite_at_the_ends_of_float64():
    for kind, values in [
        (td.Gamma, (1e-3, 1.0)),
        (td.Beta, (1e-3, 1e-3)),
        (td.Beta, (1e-3, 1e3)),
        (td.VonMises, (3.14159, 1e3)),
        (td.Gamma, (1e8, 1e-3)),
        (td.LogNormal, (0.0, 50.0)),
    ]:
        each = [torch.full((300,), value, dtype=torch.float64, requires_grad=True) for value in values]
        got = torch.autograd.grad(implicit_rsample(kind(*each)).sum(), each)
        assert all(g.isfinite().all() for g in got), (kind, values)
    each = gradients(td.Gamma, (0.5, 1.0), [0.0, 5e-324])
    assert each.abs().max() < 1e-300


def test_no_draws_and_draws_that_overflow():
    (scale,) = leaves(2.0)
    z = implicit_rsample(td.Normal(double(0.0), scale), (0,))
    assert z.shape == (0,) and torch.autograd.grad(z.sum(), scale)[0] == 0
    z = implicit_gradient(td.LogNormal(double(0.0), scale), double([1.0, math.inf]))
    (got,) = torch.autograd.grad(z[0], scale)
    assert torch.equal(z.detach(), double([1.0, math.inf])) and got.abs() < 1e-12


def test_far_out_in_the_tail():
    # no draw comes here, but the sums must not overflow
    got = gradients(td.Normal, (0.0, 2.0), [-80.0, 1e3])
    assert relative(got, torch.stack([torch.ones(2), double([-40.0, 500.0])])) < 1e-9


def test_masses_below_and_above():
    for kind, values, frozen in [
        (td.Normal, (0.0, 1.0), st.norm()),
        (td.Gamma, (3.0, 2.0), st.gamma(3, scale=1 / 2)),
        (td.InverseGamma, (3.0, 2.0), st.invgamma(3, scale=2)),
        (td.Beta, (1.2, 3.0), st.beta(1.2, 3)),
    ]:
        z = frozen.ppf(U)
        _, below, above = _charts.move(
            kind(*map(double, values), validate_args=False), double(z)[:, None].squeeze()
        )
        # the masses, not their logs: of a mass near 1 the log has only the digits that are left of 1 − mass
        assert relative(below.exp(), double(frozen.cdf(z))) < 1e-13
        assert relative(above.exp(), double(frozen.sf(z))) < 1e-13


def test_quadrature_with_a_wrong_sign_or_one_tail_is_told_apart():
    # x ~ exp(θ x − e^x): dx/dθ at θ = 2 is that of log Gamma(2)
    theta, x = double([2.0]).requires_grad_(), double([[0.3]])
    infinity = double([math.inf])
    parts = split(lambda t: theta * t - t.exp() - theta.lgamma(), x, -infinity, infinity)
    (got,) = torch.autograd.grad(parts.step.sum(), theta)
    exact = by_mpmath(CDFS[td.Gamma][0], math.exp(0.3), (2.0, 1.0))[0] / math.exp(0.3)
    assert abs(got / exact - 1) < 1e-12 and abs(-got / exact - 1) > 1


@pytest.mark.parametrize(
    ("make", "z", "error", "message"),
    [
        (lambda: "q", 1.0, TypeError, "q must be a torch.distributions.Distribution, got str"),
        (lambda: td.Poisson(torch.tensor(2.0)), 1.0, ValueError, "continuous, got Poisson.*score_function"),
        (
            lambda: td.MultivariateNormal(torch.zeros(2), torch.eye(2)),
            [0.0, 0.0],
            NotImplementedError,
            "location_scale",
        ),
        (
            lambda: td.MixtureSameFamily(
                td.Categorical(torch.ones(2)), td.MultivariateNormal(torch.zeros(2, 2), torch.eye(2))
            ),
            [0.0, 0.0],
            NotImplementedError,
            "mixture in several dimensions",
        ),
        (
            lambda: td.Wishart(torch.tensor(3.0), torch.eye(2)),
            [[1.0, 0.0], [0.0, 1.0]],
            NotImplementedError,
            "Wishart",
        ),
        (lambda: td.Gamma(torch.ones(2), 1.0), [1.0, 1.0, 1.0], ValueError, r"ends in \(2,\), got \(3,\)"),
        (lambda: td.Gamma(torch.ones(2), 1.0), 1.0, ValueError, r"ends in \(2,\), got \(\)"),
        (lambda: td.Gamma(torch.ones(()), 1.0), -1.0, ValueError, "support"),
        (lambda: td.Normal(torch.ones(()), 1.0), math.nan, ValueError, "NaN"),
        (lambda: td.Normal(torch.ones(()), 1.0), 1, TypeError, "float32 or torch.float64"),
    ],
)
def test_bad_input(make, z, error, message):
    with pytest.raises(error, match=message):
        implicit_gradient(make(), torch.tensor(z))


def test_more_bad_input():
    with pytest.raises(ValueError, match=r"exact=False: torch has no implicit gradient for StudentT"):
        implicit_rsample(td.StudentT(torch.tensor(3.0)), exact=False)

    class Deaf(Bimodal):
        def log_prob(self, value):
            return super().log_prob(value).detach()

    with pytest.raises(ValueError, match="its log_prob does not pass a gradient on"):
        implicit_gradient(Deaf(*leaves(0.5, 1.0)), double(0.1))

    class Endless(td.Distribution):
        arg_constraints = {}  # noqa: RUF012

    with pytest.raises(NotImplementedError, match="Endless must define support"):
        implicit_gradient(Endless(validate_args=False), double(0.1))


class Power(td.Distribution):
    """k yᵏ⁻¹ on [a, a + 1], y = z − a, or its mirror image; known by its density alone."""

    arg_constraints: ClassVar = {}

    def __init__(self, k, a, turned):
        self.k, self.a, self.turned = k, a, turned
        super().__init__(k.shape, validate_args=False)

    @property
    def support(self):
        return constraints.interval(self.a, self.a + 1)

    def log_prob(self, z):
        y = z - self.a
        return self.k.log() + (self.k - 1) * (1 - y if self.turned else y).log()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("place", [0.0, 1e4, -1e6, 1e6, 1e9])
def test_a_narrow_support_far_from_0(place, turned):
    """F = yᵏ: dy/dk = −y log y / k, wherever the interval lies; z itself is a number of float64."""
    (k,) = leaves(3.0)
    z = double(place + 0.8)
    y = float(z) - place
    (got,) = torch.autograd.grad(implicit_gradient(Power(k, place, turned), z), k)
    exact = (1 - y) * math.log(1 - y) / 3 if turned else -y * math.log(y) / 3
    assert relative(got, exact) < (1e-8 if place == 1e9 else 1e-9)


@pytest.mark.parametrize("place", [1e3, 1e6, 1e9])
def test_a_narrow_density_far_from_0(place):
    """A normal on the line and a gamma on the half-line that are known by their densities alone."""

    class Plain(td.Distribution):
        arg_constraints: ClassVar = {}
        support = constraints.real

        def __init__(self, loc, scale):
            self.loc, self.scale = loc, scale
            super().__init__(loc.shape, validate_args=False)

        def log_prob(self, z):
            return -(((z - self.loc) / self.scale) ** 2) / 2 - self.scale.log() - math.log(2 * math.pi) / 2

    class Shifted(Plain):
        support = property(lambda self: constraints.greater_than(self.loc))

        def log_prob(self, z):
            y = z - self.loc
            return y.log() - y / self.scale - 2 * self.scale.log()

    z = double(place + 0.7)
    y = float(z) - place
    loc, scale = leaves(place, 1.0)
    got = torch.autograd.grad(implicit_gradient(Plain(loc, scale), z), [loc, scale])
    assert relative(got[0], 1.0) < 1e-11 and relative(got[1], y) < 1e-11
    got = torch.autograd.grad(implicit_gradient(Shifted(loc.detach(), scale), z), scale)
    assert relative(got[0], y) < 1e-7 * max(1.0, place / 1e9) + 1e-9
