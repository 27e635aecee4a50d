"""The maps as samplers: distribution, gradients of expectations, and whether a mistake would be seen at this n."""

import math

import numpy as np
import pytest
import scipy.stats as st
import torch
from reparam_cases import EDGES, UNIVARIATE, make, name_of
from torch import distributions as td

from vaetut import distributions as vd
from vaetut.reparam import families, reparameterize

N = 100_000
PAIRS = [(case, family) for case in UNIVARIATE for family in families(make(case))]
EDGE_PAIRS = [(case, family) for case in EDGES for family in families(make(case)) if family != "implicit"]


def ids(pair):
    return f"{name_of(pair[0])}-{pair[1]}"


def p_value(z, cdf):
    z = z.detach().double().numpy()
    assert np.isfinite(z).all()
    return st.kstest(z, cdf).pvalue


@pytest.mark.parametrize("pair", PAIRS + EDGE_PAIRS, ids=ids)
def test_draws_have_the_distribution(pair):
    case, family = pair
    r = reparameterize(make(case, torch.float64), family)
    assert p_value(r.rsample((N,)), case.scipy(*case.params.values()).cdf) > 1e-6


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair[1] == "composition"], ids=ids)
def test_g_of_the_noise_has_the_distribution_too(pair):
    """Where rsample is another sampler, the map itself is checked as well."""
    case, family = pair
    r = reparameterize(make(case, torch.float64), family)
    z = r.g(r.noise.sample((10_000,)))
    assert p_value(z, case.scipy(*case.params.values()).cdf) > 1e-6


def double(values):
    return torch.tensor(values, dtype=torch.float64)


LOC, TRIL = double([0.3, -1.0]), double([[1.2, 0.0], [0.6, 0.5]])
# For each, a function of z and the CDF of its values.
VECTORS = {
    "MultivariateNormal-location_scale": (
        td.MultivariateNormal(LOC, scale_tril=TRIL),
        lambda z: torch.linalg.solve_triangular(TRIL, (z - LOC).T, upper=False).square().sum(0),
        st.chi2(2).cdf,
    ),
    "LowRankMultivariateNormal-location_scale": (
        td.LowRankMultivariateNormal(LOC, double([[0.8], [-0.5]]), double([0.3, 0.9])),
        lambda z: (z - LOC) @ double([1.0, 2.0]),
        st.norm(scale=math.sqrt((0.8 - 1.0) ** 2 + 0.3 + 4 * 0.9)).cdf,
    ),
    "MultivariateStudentT-location_scale": (
        vd.MultivariateStudentT(3.4, LOC, TRIL),
        lambda z: torch.linalg.solve_triangular(TRIL, (z - LOC).T, upper=False).square().sum(0) / 2,
        st.f(2, 3.4).cdf,
    ),
    "MultivariateStudentT-composition": (
        vd.MultivariateStudentT(3.4, LOC, TRIL),
        lambda z: (z - LOC) @ double([0.5, -1.0]) / (TRIL.T @ double([0.5, -1.0])).norm(),
        st.t(3.4).cdf,
    ),
    "Elliptical-location_scale": (
        vd.Elliptical(td.Gamma(double(3.0), double(2.0)), LOC, TRIL),
        lambda z: torch.linalg.solve_triangular(TRIL, (z - LOC).T, upper=False).norm(dim=0),
        st.gamma(3, scale=0.5).cdf,
    ),
    "Dirichlet-composition": (
        td.Dirichlet(double([0.4, 1.7, 3.0])),
        lambda z: z[..., 1],
        st.beta(1.7, 3.4).cdf,
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_have_the_distribution(name):
    q, statistic, cdf = VECTORS[name]
    r = reparameterize(q, name.split("-")[1])
    for z in (r.rsample((N,)), r.g(r.noise.sample((10_000,)))):
        assert z.shape[1:] == q.event_shape
        assert p_value(statistic(z), cdf) > 1e-6


def test_elliptical_is_uniform_in_direction():
    q = vd.Elliptical(vd.Rayleigh(torch.ones(())), torch.zeros(2), torch.eye(2))
    z = reparameterize(q).rsample((N,))
    assert p_value(torch.atan2(z[:, 1], z[:, 0]), st.uniform(-math.pi, 2 * math.pi).cdf) > 1e-6


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (td.Cauchy, lambda q, u: q.loc + q.scale * (3 * (u - 0.5)).tan()),  # not quite π
        (td.Gumbel, lambda q, u: q.loc + q.scale * (-u.log()).log()),  # sign: the Gumbel of minima
        (vd.Rayleigh, lambda q, u: q.scale * (-u.log()).sqrt()),  # without the 2
        (td.Exponential, lambda q, u: -u.log() * q.rate),  # times the rate
        (td.Weibull, lambda q, u: q.scale * (-u.log()) ** q.concentration),  # not its reciprocal
        (vd.Gompertz, lambda q, u: (1 - u.log()).log() / q.rate),  # the concentration forgotten
        (
            vd.Triangular,
            lambda q, u: q.low + (q.high - q.low) * (u + u[torch.randperm(len(u))]) / 2,
        ),  # symmetric
        (td.StudentT, lambda q, u: q.loc + q.scale * torch.special.ndtri(u)),  # the Gaussian limit
        (
            td.LogNormal,
            lambda q, u: (q.loc + q.scale**2 * torch.special.ndtri(u)).exp(),
        ),  # variance for scale
        (td.Chi2, lambda q, u: torch.special.ndtri(u.reshape(-1, 2)).square().sum(-1)),  # one degree too few
    ],
    ids=lambda x: x.__name__,
)
def test_a_mistake_is_caught_at_this_n(kind, wrong):
    case = next(case for case in UNIVARIATE if case.kind is kind)
    z = wrong(make(case), torch.rand(N, dtype=torch.float64).clamp_(1e-16))
    assert p_value(z, case.scipy(*case.params.values()).cdf) < 1e-6


# An expectation with a known gradient for each distribution: f, and E[f] as a function of the distribution.
def mean(q):
    return q.mean


def second_moment(q):
    return q.variance + q.mean.square()


IDENTITY, SQUARE, LOG = (lambda z: z, mean), (lambda z: z.square(), second_moment), torch.log
EXPECTATIONS = {
    td.Exponential: [IDENTITY, SQUARE, (LOG, lambda q: -q.rate.log() - 0.5772156649015329)],
    # the characteristic function: no moment exists
    td.Cauchy: [(torch.cos, lambda q: (-q.scale).exp() * q.loc.cos())],
    vd.Logistic: [IDENTITY, SQUARE],
    vd.Rayleigh: [IDENTITY, SQUARE],
    td.Pareto: [
        (LOG, lambda q: q.scale.log() + 1 / q.alpha),
        (torch.reciprocal, lambda q: q.alpha / (q.alpha + 1) / q.scale),
    ],
    td.Weibull: [IDENTITY, SQUARE, (LOG, lambda q: q.scale.log() - 0.5772156649015329 / q.concentration)],
    vd.Reciprocal: [IDENTITY, SQUARE, (LOG, lambda q: (q.low.log() + q.high.log()) / 2)],
    vd.Gompertz: [IDENTITY, SQUARE],
    td.Gumbel: [IDENTITY, SQUARE],
    td.Laplace: [IDENTITY, SQUARE],
    td.StudentT: [(torch.cos, None)],
    td.Uniform: [IDENTITY, SQUARE],
    vd.Triangular: [IDENTITY, SQUARE],
    td.Normal: [IDENTITY, SQUARE],
    td.LogNormal: [IDENTITY, SQUARE, (LOG, lambda q: q.loc)],
    td.Gamma: [IDENTITY, SQUARE, (LOG, lambda q: torch.digamma(q.concentration) - q.rate.log())],
    vd.Erlang: [IDENTITY, SQUARE],
    td.Chi2: [IDENTITY, SQUARE, (LOG, lambda q: torch.digamma(q.df / 2) + math.log(2))],
    td.Beta: [IDENTITY, SQUARE, (LOG, lambda q: torch.digamma(q.concentration1)
                                 - torch.digamma(q.concentration1 + q.concentration0))],
    td.FisherSnedecor: [(LOG, lambda q: torch.digamma(q.df1 / 2) - torch.digamma(q.df2 / 2) + (q.df2 / q.df1).log())],
    td.HalfNormal: [IDENTITY, SQUARE],
    td.HalfCauchy: [(LOG, lambda q: q.scale.log())],
    td.Kumaraswamy: [IDENTITY],
}  # fmt: skip


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair[1] != "implicit"], ids=ids)
def test_gradient_of_an_expectation(pair):
    """The mean of df(z)/dφ against the derivative of the closed form, in standard errors."""
    case, family = pair
    given = reparameterize(make(case), family).differentiable
    names = tuple(
        name for name in case.params if name in given or given == ("base_distribution", "transforms")
    )
    for f, expectation in EXPECTATIONS[case.kind]:
        if expectation is None:
            continue
        exact = dict(zip(names, exact_gradient(case, names, expectation), strict=True))
        for name in names:
            # One parameter per sample, so that each has its own derivative.
            leaf = torch.full((N,), float(case.params[name]), dtype=torch.float64, requires_grad=True)
            values = {key: torch.tensor(value, dtype=torch.float64) for key, value in case.params.items()}
            z = reparameterize(case.kind(**values | {name: leaf}), family).rsample()
            (slopes,) = torch.autograd.grad(f(z).sum(), leaf)
            score = (slopes.mean() - exact[name]) / (slopes.std() / math.sqrt(N)).clamp(min=1e-12)
            assert abs(score) < 5, (name, float(slopes.mean()), float(exact[name]))


def exact_gradient(case, names, expectation):
    leaves = [
        torch.tensor(float(case.params[name]), dtype=torch.float64, requires_grad=True) for name in names
    ]
    values = {key: torch.tensor(value, dtype=torch.float64) for key, value in case.params.items()}
    if not names:
        return ()
    return torch.autograd.grad(
        expectation(case.kind(**values | dict(zip(names, leaves, strict=True)), validate_args=False)),
        leaves,
        allow_unused=True,
        materialize_grads=True,
    )


@pytest.mark.parametrize("name", ["df", "loc", "scale"])
def test_gradient_for_students_t_by_composition(name):
    """E[log(1 + y²/ν)] = ψ((ν + 1)/2) − ψ(ν/2) for the standardized y, and E log|z − μ|'s derivative in the scale."""
    values = {"df": 3.4, "loc": 0.4, "scale": 1.3}
    leaf = torch.full((N,), values[name], dtype=torch.float64, requires_grad=True)
    fixed = {key: torch.tensor(value, dtype=torch.float64) for key, value in values.items()}
    z = reparameterize(td.StudentT(**fixed | {name: leaf}), "composition").rsample()
    y2 = ((z - 0.4) / 1.3).square()
    (slopes,) = torch.autograd.grad((y2 / 3.4).log1p().sum(), leaf)
    # ∂/∂φ E_φ[log(1 + y²/ν₀)] at φ₀, by differentiating under the integral with scipy's density
    exact = derivative_of_expectation(values, name)
    assert abs((slopes.mean() - exact) / (slopes.std() / math.sqrt(N))) < 5


def derivative_of_expectation(values, name, step=1e-4):
    def expectation(**params):
        x = np.linspace(-14, 14, 40_001)  # z = sinh x: heavy tails
        z = np.sinh(x)
        density = st.t(params["df"], params["loc"], params["scale"]).pdf(z) * np.cosh(x)
        return np.trapezoid(density * np.log1p(((z - 0.4) / 1.3) ** 2 / 3.4), x)

    up, down = (expectation(**values | {name: values[name] + s}) for s in (step, -step))
    return (up - down) / (2 * step)


def test_gradients_of_vectors():
    """E[zᵢ log zⱼ] of a Dirichlet, and E‖z‖² of an elliptical distribution in its radial's parameters."""
    alpha = double([0.4, 1.7, 3.0]).expand(N, 3).clone().requires_grad_()
    z = reparameterize(td.Dirichlet(alpha), "composition").rsample()
    (slopes,) = torch.autograd.grad((z[:, 0].square() + z[:, 1]).sum(), alpha)
    a = double([0.4, 1.7, 3.0]).requires_grad_()
    total = a.sum()
    (exact,) = torch.autograd.grad(a[0] * (a[0] + 1) / (total * (total + 1)) + a[1] / total, a)
    assert ((slopes.mean(0) - exact) / (slopes.std(0) / math.sqrt(N))).abs().max() < 5

    scale = torch.full((N,), 1.3, dtype=torch.float64, requires_grad=True)
    q = vd.Elliptical(vd.Rayleigh(scale), torch.zeros(N, 2).double(), torch.eye(2).double())
    r = reparameterize(q)
    assert r.differentiable == ("radial", "loc", "scale_tril")
    (slopes,) = torch.autograd.grad(r.rsample().square().sum(), scale)
    assert abs((slopes.mean() - 4 * 1.3) / (slopes.std() / math.sqrt(N))) < 5


def test_beta_by_composition_has_more_variance_than_by_its_quantile():
    """What chapter 9 measures: two gammas carry noise that the beta variable does not need."""
    a = torch.full((N,), 1.6, dtype=torch.float64, requires_grad=True)
    q = td.Beta(a, torch.full_like(a, 0.7).detach())
    (composed,) = torch.autograd.grad(reparameterize(q, "composition").rsample().sum(), a)
    (native,) = torch.autograd.grad(q.rsample().sum(), a)  # torch's, along the quantile
    assert composed.var() > 1.3 * native.var()
    assert abs(composed.mean() - native.mean()) < 5 * (composed.std() + native.std()) / math.sqrt(N)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tiny_shapes_stay_finite(dtype):
    """A gamma with shape 1e-3 is below 1e-300 half of the time; what is made of two such gammas is not."""
    tiny = torch.full((10_000,), 1e-3, dtype=dtype, requires_grad=True)
    for q in (td.Beta(tiny, tiny), td.Dirichlet(torch.stack([tiny, tiny, tiny], -1))):
        z = reparameterize(q, "composition").rsample()
        (slope,) = torch.autograd.grad(z.square().sum(), tiny)
        assert torch.isfinite(z).all() and torch.isfinite(slope).all()


def test_students_t_with_huge_df_in_float32_is_gaussian():
    df = torch.full((N,), 1e10, requires_grad=True)
    z = reparameterize(td.StudentT(df), "composition").rsample()
    assert p_value(z, st.norm.cdf) > 1e-6
    (slope,) = torch.autograd.grad(z.sum(), df)
    assert torch.isfinite(slope).all()
