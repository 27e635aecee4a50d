"""The two quantiles that are solved for: the gamma's, and that of any univariate density (the implicit family)."""

import math

import mpmath as mp
import numpy as np
import pytest
import scipy.stats as st
import torch
from scipy.integrate import quad
from torch import distributions as td

from vaetut import distributions as vd
from vaetut.distributions.gamma_quantile import _slope, draw_log_gamma, log_gamma_quantile
from vaetut.reparam import implicit_gradient, reparameterize

SHAPES = [1e-3, 0.03, 0.4, 1.0, 2.7, 13.0, 150.0, 4e3, 9e4, 3e5]
PROBABILITIES = [2**-24, 1e-3, 0.3, 0.6, 0.99, 1 - 2**-24]


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def log_tail(shape, y, upper):
    """log P(a, G) or log Q(a, G) at G = a eʸ, to 30 digits and more."""
    with mp.workdps(60):
        a, x = mp.mpf(shape), mp.mpf(shape) * mp.e ** mp.mpf(y)
        return mp.log(
            mp.gammainc(a, x, regularized=True) if upper else mp.gammainc(a, 0, x, regularized=True)
        )


@pytest.mark.parametrize("shape", SHAPES)
def test_gamma_quantile_against_mpmath(shape):
    y = log_gamma_quantile(double(PROBABILITIES), double(shape))
    for u, root in zip(PROBABILITIES, y.tolist(), strict=True):
        upper = u > 0.5
        got = log_tail(shape, root, upper)
        # In terms of y: the error of the tail over its slope.
        with mp.workdps(60):
            a, x = mp.mpf(shape), mp.mpf(shape) * mp.e ** mp.mpf(root)
            slope = mp.e ** (a * mp.log(x) - x - mp.loggamma(a) - got)
            error = (got - mp.log(mp.mpf(1) - mp.mpf(u) if upper else mp.mpf(u))) / slope
        # y is some log u / a: rounding alone is 1e-16 of that
        assert abs(error) < 1e-10 + 4e-15 * abs(root), (u, float(error))


@pytest.mark.parametrize("shape", SHAPES[:-2])
def test_gamma_slope_in_the_shape_against_mpmath(shape):
    leaf = torch.full((len(PROBABILITIES),), shape, dtype=torch.float64, requires_grad=True)
    y = log_gamma_quantile(double(PROBABILITIES), leaf)
    (slope,) = torch.autograd.grad(y.sum(), leaf)
    for u, root, got in zip(PROBABILITIES, y.tolist(), slope.tolist(), strict=True):
        with mp.workdps(60):
            a, log_x = mp.mpf(shape), mp.log(mp.mpf(shape)) + mp.mpf(root)
            x, step = mp.e**log_x, mp.mpf(10) ** -18 * mp.mpf(shape)

            def tail(b, x=x, upper=u > 0.5):
                return (
                    -mp.gammainc(b, x, regularized=True) if upper else mp.gammainc(b, 0, x, regularized=True)
                )

            difference = (tail(a + step) - tail(a - step)) / (2 * step)
            exact = -difference / mp.e ** (a * log_x - x - mp.loggamma(a)) - 1 / a
            # Near its zero the slope is the difference of two terms of the size 1/a.
            assert abs(got - exact) < 1e-9 * abs(exact) + 1e-10 / a**1.5 + 1e-12 / a, (u, got, float(exact))


def test_gamma_slope_is_continuous_where_the_method_changes():
    for low, high in ((1e5 * (1 - 1e-9), 1e5 * (1 + 1e-9)), (1e7 * (1 - 1e-9), 1e7 * (1 + 1e-9))):
        for n in (-3.0, -0.2, 1.0, 4.0):
            below, above = (_slope(double(a), double(n / a**0.5)) for a in (low, high))
            torch.testing.assert_close(below, above, rtol=2e-6, atol=0)
    for u in (0.01, 0.7):
        below, above = (
            log_gamma_quantile(double(u), double(a)) for a in (1e5 * (1 - 1e-9), 1e5 * (1 + 1e-9))
        )
        torch.testing.assert_close(below, above, rtol=1e-8, atol=0)


def test_gamma_quantile_is_twice_differentiable():
    shape = double([1e-3, 0.02, 0.3, 2.0, 8.0]).requires_grad_()
    u = double([0.9, 0.6, 0.2, 0.4, 0.8]).requires_grad_()
    assert torch.autograd.gradcheck(log_gamma_quantile, (u, shape))
    assert torch.autograd.gradgradcheck(log_gamma_quantile, (u, shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [1e-3, 0.3, 1.0, 40.0, 1e8])
def test_draws_of_the_gamma_are_its_quantiles(shape, dtype):
    """The sampler against the CDF, and its gradient against that of the quantile at the same y."""
    leaf = torch.tensor(shape, dtype=dtype, requires_grad=True)
    y = draw_log_gamma(leaf, torch.Size([20_000]))
    assert y.dtype == dtype and torch.isfinite(y).all()
    log_x = y.detach().double().numpy() + np.log(shape)
    if shape >= 1e8:
        assert st.kstest(log_x - np.log(shape), st.norm(scale=shape**-0.5).cdf).pvalue > 1e-6
    else:
        assert (
            st.kstest(
                log_x, st.loggamma(shape).cdf if shape > 0.1 else lambda t: small_gamma_cdf(t, shape)
            ).pvalue
            > 1e-6
        )
    (slope,) = torch.autograd.grad(y[0], leaf)
    torch.testing.assert_close(
        slope, _slope(leaf.detach().double(), y[0].detach().double()).to(dtype), rtol=1e-4, atol=0
    )


def small_gamma_cdf(log_x, shape):
    from scipy.special import gammainc, gammaln

    return np.where(log_x < -30, np.exp(shape * log_x - gammaln(shape + 1)), gammainc(shape, np.exp(log_x)))


U = double([1e-7, 1e-3, 0.2, 0.5, 0.9, 1 - 1e-6])
SCIPY = {
    td.Gamma: ({"concentration": 1.6, "rate": 0.7}, lambda a, r: st.gamma(a, scale=1 / r)),
    td.Beta: ({"concentration1": 1.6, "concentration0": 0.7}, st.beta),
    td.Chi2: ({"df": 2.5}, st.chi2),
    td.StudentT: ({"df": 3.4, "loc": 0.4, "scale": 1.3}, st.t),
    td.FisherSnedecor: ({"df1": 3.4, "df2": 6.2}, st.f),
    td.InverseGamma: ({"concentration": 1.6, "rate": 0.7}, lambda a, r: st.invgamma(a, scale=r)),
    td.Gumbel: ({"loc": 0.4, "scale": 1.3}, st.gumbel_r),
    vd.Erlang: ({"concentration": 3, "rate": 1.7}, lambda a, r: st.gamma(a, scale=1 / r)),
}


def exactly(scipy, values, u):
    reference = scipy(*values)
    return np.where(u < 0.5, reference.ppf(u), reference.isf(1 - u))


@pytest.mark.parametrize("kind", SCIPY, ids=lambda kind: kind.__name__)
def test_implicit_map_is_the_quantile_and_has_its_derivatives(kind):
    values, scipy = SCIPY[kind]
    leaves = {
        name: torch.tensor(float(value), dtype=torch.float64, requires_grad=True)
        for name, value in values.items()
    }
    r = reparameterize(kind(**leaves), "implicit")
    u = U.clone().requires_grad_()
    z = r.g(u)
    expected = torch.from_numpy(exactly(scipy, values.values(), U.numpy()))
    torch.testing.assert_close(z, expected, rtol=2e-10, atol=1e-12)
    (by_u,) = torch.autograd.grad(z.sum(), u, retain_graph=True)
    torch.testing.assert_close(by_u, (-kind(**leaves).log_prob(z)).exp().detach(), rtol=1e-8, atol=0)
    for name in r.differentiable:
        slopes = torch.stack([torch.autograd.grad(x, leaves[name], retain_graph=True)[0] for x in z])
        step = 1e-5 * values[name]
        up, down = (
            exactly(scipy, (values | {name: values[name] + s}).values(), U.numpy()) for s in (step, -step)
        )
        difference = torch.from_numpy((up - down) / (2 * step))
        torch.testing.assert_close(slopes, difference, rtol=1e-5, atol=1e-6 * difference.abs().max().item())


def test_implicit_map_of_a_von_mises():
    q = td.VonMises(double(0.7), double(1.7))
    z = reparameterize(q, "implicit").g(U[1:-1])
    total = quad(lambda t: np.exp(1.7 * np.cos(t - 0.7)), -np.pi, np.pi, epsabs=0, epsrel=1e-12)[0]
    for u, x in zip(U[1:-1].tolist(), z.tolist(), strict=True):
        below = quad(lambda t: np.exp(1.7 * np.cos(t - 0.7)), -np.pi, x, epsabs=0, epsrel=1e-12)[0] / total
        assert below == pytest.approx(u, rel=1e-9)


def test_implicit_map_of_a_mixture():
    """Between the components, where the density is small, too; and in the weights."""
    weights = double([0.3, 0.7]).log().requires_grad_()
    parts = td.Normal(double([-4.0, 3.0]), double([0.5, 1.0]))
    q = td.MixtureSameFamily(td.Categorical(logits=weights), parts)
    r = reparameterize(q)
    assert r.family == "implicit" and r.differentiable == ("mixture_distribution", "component_distribution")
    u = double([1e-3, 0.1, 0.2999, 0.3, 0.3001, 0.9])
    z = r.g(u)
    torch.testing.assert_close(q.cdf(z), u, rtol=1e-10, atol=1e-12)
    (slope,) = torch.autograd.grad(z[1], weights)
    share = double([0.3, 0.7])
    cdf = parts.cdf(z[1].detach())
    expected = -share * (cdf - (share * cdf).sum()) / q.log_prob(z[1].detach()).exp()
    torch.testing.assert_close(slope, expected.detach())


def test_implicit_map_of_a_users_own_density():
    """Only log_prob and sample: an exponential distribution that does not say so."""

    class Unnamed(td.Distribution):
        support = td.constraints.positive
        has_rsample = False

        def __init__(self, k):
            self.k = k
            super().__init__(k.shape, validate_args=False)

        @property
        def arg_constraints(self):
            return {}

        def log_prob(self, z):
            return self.k.log() - self.k * z

        def sample(self, shape=()):
            return torch.empty(self._extended_shape(shape), dtype=self.k.dtype).exponential_() / self.k

    k = double(2.0).requires_grad_()
    r = reparameterize(Unnamed(k))
    assert r.family == "implicit"
    z = r.g(U)
    torch.testing.assert_close(z, -torch.log1p(-U) / 2, rtol=1e-9, atol=1e-12)
    (slope,) = torch.autograd.grad(z.sum(), k)
    torch.testing.assert_close(slope, -z.sum().detach() / 2)
    (slope,) = torch.autograd.grad(r.rsample((5,)).sum(), k)
    assert torch.isfinite(slope)


@pytest.mark.parametrize("concentration", [1e-3, 1.0, 2.7, 50.0, 1e3])
@pytest.mark.parametrize("loc", [0.0, 0.3, 1.0, 3.14])
def test_von_mises(loc, concentration):
    """At the location, which is the first point that the solver looks at for 0, and next to the cut at ±π."""
    q = td.VonMises(*(torch.tensor(v, dtype=torch.float64) for v in (loc, concentration)))
    levels = torch.tensor([1e-7, 1e-3, 0.3, 0.5, 0.9, 0.9999, 1 - 1e-7], dtype=torch.float64)
    z = reparameterize(q, "implicit").g(levels)
    with mp.workdps(25):
        k, center = mp.mpf(concentration), mp.mpf(loc)
        norm = 2 * mp.pi * mp.besseli(0, k) * mp.exp(-k)

        def mass(a, b):
            inner = [
                x for x in (center - 1 / mp.sqrt(k + 1), center, center + 1 / mp.sqrt(k + 1)) if a < x < b
            ]
            return mp.quad(lambda t: mp.exp(k * (mp.cos(t - center) - 1)), [a, *inner, b]) / norm

        for level, x in zip(levels.tolist(), z.tolist(), strict=True):
            below = level < 0.5
            found = mass(-mp.pi, mp.mpf(x)) if below else mass(mp.mpf(x), mp.pi)
            assert abs(float(found) - (level if below else 1 - level)) < 1e-13 + 1e-9 * min(level, 1 - level)


@pytest.mark.parametrize(
    ("df", "level"), [(0.3, 1e-6), (0.01, 1e-3), (0.001, 0.3), (0.02, 0.999), (5.0, 1e-12)]
)
def test_student_t_with_long_tails(df, level):
    """The root may be as large as 1e268."""
    q = td.StudentT(torch.tensor(df, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64), 2.0)
    z = reparameterize(q, "implicit").g(torch.tensor(level, dtype=torch.float64)).item()
    with mp.workdps(30):
        y = (mp.mpf(z) - mp.mpf("0.7")) / 2
        tail = mp.betainc(mp.mpf(df) / 2, 0.5, 0, df / (df + y * y), regularized=True) / 2
    near = level if level < 0.5 else 1 - level
    assert (z < 0.7) == (level < 0.5)
    assert abs(float(tail) / near - 1) < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_gradient_at_the_location(dtype):
    """There dz/dloc is 1 by symmetry, and the others are 0."""
    df, loc, scale = (torch.tensor(v, dtype=dtype, requires_grad=True) for v in (3.0, 0.5, 2.0))
    z = implicit_gradient(td.StudentT(df, loc, scale), torch.tensor(0.5, dtype=dtype))
    slopes = torch.autograd.grad(z, (df, loc, scale))
    assert [s.item() for s in slopes] == pytest.approx([0.0, 1.0, 0.0], abs=1e-12)
    loc, k = (torch.tensor(v, dtype=dtype, requires_grad=True) for v in (0.5, 3.0))
    z = implicit_gradient(td.VonMises(loc, k), torch.tensor(0.5, dtype=dtype))
    by_loc, by_k = torch.autograd.grad(z, (loc, k))
    # the cut stays where it is: what crosses it is p(π), and κ moves the mass on one side of it
    assert by_loc.item() == pytest.approx(1 - math.exp(3 * (math.cos(math.pi - 0.5) - 1)), abs=1e-6)
    assert math.isfinite(by_k.item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (td.Gamma, (1e-3, 1.0)),
        (td.Beta, (1e-3, 0.3)),
        (td.Beta, (0.3, 1e-3)),
        (td.FisherSnedecor, (0.01, 1e-3)),
        (td.InverseGamma, (1e-3, 1.0)),
        (td.StudentT, (1e-3, 0.0, 1.0)),
    ],
)
def test_quantiles_stay_inside_the_support(kind, values, dtype):
    """One that is rounded to an end, or overflows, is the number next to it, as for the draws of torch."""
    q = kind(*(torch.tensor(v, dtype=dtype) for v in values))
    z = reparameterize(q, "implicit").g(torch.tensor([1e-7, 1e-3, 0.3, 0.7, 0.999], dtype=dtype))
    assert torch.isfinite(z).all()
    assert (z[1:] >= z[:-1]).all()
    if kind is not td.StudentT:
        assert (z > 0).all()
    if kind is td.Beta:
        assert (z < 1).all()


def test_quantile_of_far_modes_starts_where_one_tail_is_zero():
    """Half of the weight at −30, half at 40: where the search begins, 1 − F of a component rounds to 0."""
    u = double([1e-300, 1e-20, 1e-7, 0.3, 0.7, 1 - 1e-7])
    parts = td.Normal(double([-30.0, 40.0]), double([1.0, 1.0]))
    q = td.MixtureSameFamily(td.Categorical(logits=double([0.0, 0.0])), parts)
    z = reparameterize(q, "implicit").g(u)
    values = u.numpy()
    exact = np.where(values < 0.5, st.norm.ppf(2 * values) - 30, 40 + st.norm.isf(2 * (1 - values)))
    np.testing.assert_allclose(z.numpy(), exact, rtol=1e-13)
