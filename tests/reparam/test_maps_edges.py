"""Where torch's own samplers or a careless map would be wrong: against scipy and closed forms."""

import math
from typing import ClassVar

import mpmath
import numpy as np
import pytest
import scipy.integrate
import scipy.special as sp
import scipy.stats as st
import torch
from reparam_cases import UNIVARIATE, make
from torch import distributions as td
from torch.distributions import constraints

from vaetut import distributions as vd
from vaetut import pathwise
from vaetut.reparam import StandardUniform, families, implicit_rsample, reparameterize

N = 100_000
ONE = torch.ones(())


def shares(z, edges, cdf):
    """The largest deviation of the share of draws below each edge, in standard errors."""
    edges = np.asarray(edges)
    found = (z.detach().double().numpy()[:, None] < edges).mean(0)
    expected = cdf(edges)
    return np.abs((found - expected) / np.sqrt(expected * (1 - expected) / len(z) + 1e-12)).max()


# Far from the ends, where a draw can be told from the end in float32 too.
EDGES = [1e-30, 1e-10, 1e-3, 0.1, 0.4, 0.6, 0.9, 0.999]


@pytest.mark.parametrize("via", [None, "implicit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("a", [1e-4, 1e-3, 1e-2, 0.1, 1.0])
@pytest.mark.parametrize("b", [1e-4, 1e-2, 2.0])
def test_beta_with_small_concentrations(a, b, dtype, via):
    """Of Beta(1e-3, 1e-3), torch puts a quarter of the draws into (0.4, 0.6); exact is 0.0004."""
    q = td.Beta(torch.tensor(a, dtype=dtype), torch.tensor(b, dtype=dtype))
    z = reparameterize(q, via).rsample((N,))
    rounded = [float(torch.tensor(a, dtype=dtype)), float(torch.tensor(b, dtype=dtype))]
    assert shares(z, EDGES, st.beta(*rounded).cdf) < 5.5


def test_the_check_of_small_concentrations_rejects_torchs_sampler():
    z = td.Beta(torch.tensor(1e-3), torch.tensor(1e-3)).sample((N,))
    assert shares(z, EDGES, st.beta(1e-3, 1e-3).cdf) > 20


@pytest.mark.parametrize("via", [None, "implicit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_dirichlet_with_small_concentrations(dtype, via):
    q = td.Dirichlet(torch.tensor([1e-3, 2e-3, 1e-2], dtype=dtype))
    z = reparameterize(q, via).rsample((N,))
    assert shares(z[:, 1], EDGES, st.beta(2e-3, 1.1e-2).cdf) < 5.5
    assert torch.isfinite(z).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_implicit_draws_of_what_is_made_of_betas_with_small_concentrations(dtype):
    first, second = st.beta(1e-3, 1e-3).cdf, st.beta(2e-3, 1e-2).cdf
    parts = td.Beta(torch.tensor([1e-3, 2e-3], dtype=dtype), torch.tensor([1e-3, 1e-2], dtype=dtype))
    weights = td.Categorical(torch.tensor([0.3, 0.7], dtype=dtype))
    z = implicit_rsample(td.MixtureSameFamily(weights, parts), (N,))
    assert shares(z, EDGES, lambda x: 0.3 * first(x) + 0.7 * second(x)) < 5.5
    log_odds = td.TransformedDistribution(parts, [td.SigmoidTransform().inv])
    z = implicit_rsample(td.Independent(log_odds, 1), (N,)).sigmoid()
    assert z.shape == (N, 2)
    assert shares(z[:, 0], EDGES, first) < 5.5 and shares(z[:, 1], EDGES, second) < 5.5
    rows = torch.tensor([[1e-3, 5.0], [2.0, 1e-3]], dtype=dtype)
    components = td.Independent(td.Beta(rows, torch.ones_like(rows)), 1)
    z = implicit_rsample(td.MixtureSameFamily(weights, components), (N,))
    assert z.shape == (N, 2)
    assert shares(z[:, 0], EDGES, lambda x: 0.3 * x**1e-3 + 0.7 * x**2) < 5.5
    from_first = z[:, 0] < 1e-9  # but for one in 10¹⁸
    assert shares(z[from_first, 1], EDGES[2:], lambda x: x**5) < 5.5


@pytest.mark.parametrize("via", [None, "implicit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("a", "b"), [(1e-3, 1e-3), (0.02, 3.0), (2.0, 300.0), (5e3, 5e3), (1e6, 2e6)])
def test_gradient_of_beta_at_every_size(a, b, dtype, via):
    """d E[z] / da = b / (a + b)²."""
    leaf = torch.full((N,), a, dtype=dtype, requires_grad=True)
    z = reparameterize(td.Beta(leaf, torch.full_like(leaf, b).detach()), via).rsample()
    (slopes,) = torch.autograd.grad(z.sum(), leaf)
    slopes = slopes.double()
    assert slopes.isfinite().all()
    assert abs(slopes.mean() - b / (a + b) ** 2) < 5 * slopes.std() / math.sqrt(N)


def cdf_of_f(df1, df2):
    """SciPy 1.16's own is 1 where df1 x > 1e16 df2: it rounds df1 x / (df1 x + df2). Here the smaller part is exact."""

    def cdf(x):
        below = sp.betainc(df1 / 2, df2 / 2, df1 * x / (df1 * x + df2))
        above = sp.betainc(df2 / 2, df1 / 2, df2 / (df1 * x + df2))
        return np.where(df1 * x < df2, below, 1 - above)

    return cdf


@pytest.mark.parametrize("via", [None, "implicit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("df1", "df2"), [(0.02, 0.02), (0.3, 5.0), (3.0, 0.1), (4.0, 6.0)])
def test_f_with_few_degrees_of_freedom(df1, df2, dtype, via):
    leaf = torch.full((N,), df1, dtype=dtype, requires_grad=True)
    z = reparameterize(td.FisherSnedecor(leaf, torch.full_like(leaf, df2).detach()), via).rsample()
    assert z.isfinite().all()
    assert shares(z, np.logspace(-30, 30, 13), cdf_of_f(df1, df2)) < 5.5
    (slopes,) = torch.autograd.grad(z.log().sum(), leaf)
    # E[log z] = ψ(d₁/2) − ψ(d₂/2) + log d₂ − log d₁, unless draws stand at the ends of the dtype
    too_large = (z > 1e-4 * torch.finfo(dtype).max) & (via == "implicit")  # dz/dφ itself, before it meets 1/z
    assert (slopes.isfinite() | too_large).all()
    if min(df1, df2) > 0.2 or dtype == torch.float64:
        exact = sp.polygamma(1, df1 / 2) / 2 - 1 / df1
        if min(df1, df2) > 0.05:
            assert abs(slopes.double().mean() - exact) < 5 * slopes.double().std() / math.sqrt(N)


@pytest.mark.parametrize("via", [None, "implicit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("df", [0.02, 0.3, 3.0, 1e6])
def test_students_t_with_few_and_with_many_degrees_of_freedom(df, dtype, via):
    leaf = torch.full((N,), df, dtype=dtype, requires_grad=True)
    z = reparameterize(td.StudentT(leaf), via).rsample()
    far = [-(10.0**k) for k in (15, 8, 3, 1, 0, -1)] + [0.0] + [10.0**k for k in (-1, 0, 1, 3, 8, 15)]
    assert z.isfinite().all() and shares(z, far, st.t(df).cdf) < 5.5
    (slopes,) = torch.autograd.grad(z.sum(), leaf)
    assert slopes.isfinite().all()
    vector = vd.MultivariateStudentT(leaf, torch.zeros(N, 2, dtype=dtype), torch.eye(2, dtype=dtype))
    assert reparameterize(vector).rsample().isfinite().all()


# Relaxed categories: the density of Maddison, Mnih and Teh (2017), eq. 10, from the map by the change of variables.
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_relaxed_bernoulli_has_its_density(temperature):
    temperature, logits = (torch.tensor(x, dtype=torch.float64) for x in (temperature, 0.8))
    q = td.RelaxedBernoulli(temperature, logits=logits)
    r = reparameterize(q)
    u = torch.linspace(0.01, 0.99, 50, dtype=torch.float64, requires_grad=True)
    z = r.g(u)
    (slope,) = torch.autograd.grad(z.sum(), u)
    t, a, x = float(temperature), math.exp(0.8), z.detach()
    density = t * a * (x * (1 - x)) ** (-t - 1) / (a * x**-t + (1 - x) ** -t) ** 2
    torch.testing.assert_close(-slope.log(), density.log(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(q.log_prob(z).detach(), density.log(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("temperature", [0.4, 1.3])
def test_gumbel_softmax_has_its_density(temperature):
    """K noises and K − 1 coordinates: log p(z) = log ∫ p(ε) |∂ε/∂(z, c)| dc, c being what softmax takes off."""
    logits = np.array([0.4, -1.0, 0.1])
    tensors = (torch.tensor(temperature, dtype=torch.float64), torch.tensor(logits))
    r = reparameterize(td.RelaxedOneHotCategorical(tensors[0], logits=tensors[1]))
    z = np.array([0.2, 0.5, 0.3])
    normalized = logits - sp.logsumexp(logits)

    def gumbels(c):
        return temperature * (np.log(z) + c) - normalized

    # g maps the whole line c back to z, which is what makes it the fiber of z
    for c in (-2.0, 0.5, 3.0):
        u = torch.exp(-torch.exp(-torch.tensor(gumbels(c))))
        np.testing.assert_allclose(r.g(u).numpy(), z, rtol=1e-9)
    # ε_k = T (log z_k + c) − l_k for k < K, and ε_K with log(1 − Σ z): the determinant is T^K / ∏ z_k
    volume = temperature**3 / z.prod()
    density = scipy.integrate.quad(
        lambda c: np.exp(np.sum(-gumbels(c) - np.exp(-gumbels(c)))) * volume, -40, 60, epsabs=0, epsrel=1e-11
    )[0]
    alpha = np.exp(normalized)
    exact = (
        2 * temperature**2 * np.prod(alpha * z ** (-temperature - 1)) / np.sum(alpha * z**-temperature) ** 3
    )
    np.testing.assert_allclose(density, exact, rtol=1e-8)
    found = r.distribution.log_prob(torch.tensor(z))
    np.testing.assert_allclose(found.exp(), exact, rtol=1e-8)


def test_gumbel_softmax_is_differentiable_in_its_temperature_and_logits():
    """dz/dT = −(z / T) (s − Σ z s), s the scores (logits + G) / T; and the same with probabilities."""
    temperature = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    probs = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64, requires_grad=True)
    r = reparameterize(td.RelaxedOneHotCategorical(temperature, probs=probs))
    assert r.family == "composition" and r.differentiable == ("temperature", "probs", "logits")
    u = torch.tensor([0.3, 0.6, 0.2], dtype=torch.float64)
    z = r.g(u)
    slopes = [torch.autograd.grad(x, temperature, retain_graph=True)[0] for x in z]
    s = (probs.log() - (-u.log()).log()).detach() / 0.6
    exact = -(z / 0.6 * (s - (z * s).sum())).detach()
    torch.testing.assert_close(torch.stack(slopes), exact, rtol=1e-12, atol=1e-14)
    assert torch.autograd.grad(z[0], probs)[0].abs().min() > 0


@pytest.mark.parametrize("temperature", [1e-3, 0.1, 50.0])
def test_relaxed_categories_at_extremes_of_float32(temperature):
    leaf = torch.tensor([-60.0, 0.0, 60.0], requires_grad=True)
    for q in (
        td.RelaxedBernoulli(temperature, logits=leaf),
        td.RelaxedOneHotCategorical(ONE * temperature, logits=leaf),
    ):
        z = reparameterize(q).rsample((1000,))
        (slope,) = torch.autograd.grad(z.square().sum(), leaf)
        assert ((z > 0) & (z < 1)).all() and slope.isfinite().all()


def test_relaxed_bernoulli_takes_a_number_for_its_temperature():
    probs = torch.tensor([0.2, 0.7], requires_grad=True)
    (slope,) = torch.autograd.grad(reparameterize(td.RelaxedBernoulli(0.5, probs)).rsample((3,)).sum(), probs)
    assert (slope > 0).all()


def test_the_draws_of_gumbel_softmax_prefer_the_right_category():
    """The largest coordinate is k with probability π_k, at every temperature (Maddison, Mnih and Teh 2017)."""
    probs = torch.tensor([0.2, 0.5, 0.3])
    z = reparameterize(td.RelaxedOneHotCategorical(torch.tensor(0.5), probs=probs)).rsample((N,))
    found = torch.bincount(z.argmax(-1), minlength=3) / N
    assert ((found - probs).abs() / (probs * (1 - probs) / N).sqrt()).max() < 5


class Truncated(td.Normal):
    """A Gaussian variable on (low, high): a class derived from Normal, with a density and a sampler of its own."""

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}
    low, high = 0.0, 1.0

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self):
        return constraints.interval(self.low, self.high)

    def _ends(self):
        return [torch.special.ndtr((end - self.loc) / self.scale) for end in (self.low, self.high)]

    def log_prob(self, value):
        low, high = self._ends()
        return super().log_prob(value) - (high - low).log()

    def sample(self, sample_shape=()):
        low, high = self._ends()
        u = torch.rand(self._extended_shape(sample_shape), dtype=self.loc.dtype)
        return (
            (self.loc + self.scale * torch.special.ndtri(low + (high - low) * u))
            .detach()
            .clamp(1e-9, 1 - 1e-9)
        )

    rsample = None


class Clipped(td.Normal):
    """As in DrQ-v2: another sampler on the density of the Gaussian."""

    def rsample(self, sample_shape=()):
        return super().rsample(sample_shape).clamp(-1, 1)


class Plain(td.Normal):
    """A constructor of its own, and a method that torch does not know: what Pyro's classes are."""

    def __init__(self, loc, log_scale, validate_args=None):
        super().__init__(loc, log_scale.exp(), validate_args)

    def mask(self):
        return self


class Stable(td.TransformedDistribution):
    """A density computed in another way: the draws are those of its base and transforms all the same."""

    def log_prob(self, value):
        return super().log_prob(value)


def test_a_subclass_with_its_own_density_is_not_taken_for_its_base():
    loc = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    q = Truncated(loc, torch.tensor(0.5, dtype=torch.float64), validate_args=False)
    assert families(q) == families(Truncated) == ("implicit",)
    torch.manual_seed(0)
    value = pathwise(lambda z: z, q, 20_000)
    exact = st.truncnorm(-1.8, 0.2, loc=0.9, scale=0.5)
    assert abs(value.mean().item() - exact.mean()) < 5 * exact.std() / math.sqrt(20_000)
    with pytest.raises(NotImplementedError, match=r"Truncated has no map via='location_scale'.*'implicit'"):
        reparameterize(q, "location_scale")


def test_a_sampler_without_its_density_is_refused():
    with pytest.raises(NotImplementedError, match=r"Clipped is known: it defines one of .*its base Normal"):
        reparameterize(Clipped(ONE, ONE))
    assert families(Clipped) == ()


def test_plain_subclasses_keep_their_maps():
    q = Plain(ONE, ONE)
    assert families(q) == families(td.Normal)
    torch.testing.assert_close(reparameterize(q).g(ONE), 1 + ONE.exp())
    stable = Stable(td.Independent(td.Normal(torch.zeros(3), 1.0), 1), [td.TanhTransform()])
    assert families(stable) == ("composition",) and reparameterize(stable).rsample((2,)).shape == (2, 3)


def test_families_answers_what_rsample_does():
    assert families(td.Gamma(2.7, 1.0)) == ("implicit",) and families(td.Gamma(3.0, 1.0)) == (
        "implicit",
        "composition",
    )
    assert families(td.Chi2(2.5)) == ("implicit",)
    assert "composition" in families(td.Gamma)
    counts = td.TransformedDistribution(td.Poisson(ONE), [td.AffineTransform(0.0, 2.0)])
    assert "composition" not in families(counts) and "composition" in families(td.TransformedDistribution)
    with pytest.raises(NotImplementedError, match="of Poisson exists: its draws change only in jumps"):
        reparameterize(counts, "composition")


def test_elliptical_over_a_radial_of_any_kind():
    loc, tril = torch.zeros(2), torch.eye(2)
    weights = td.Categorical(torch.tensor([0.3, 0.7]))
    radials = {
        "mixture": td.MixtureSameFamily(weights, td.Exponential(torch.tensor([1.0, 2.0]))),
        "transformed": td.TransformedDistribution(td.Normal(0.0, 1.0), [td.ExpTransform()]),
        "relaxed": td.RelaxedBernoulli(torch.tensor(0.5), torch.tensor(0.4)),
        "beta": td.Beta(2.0, 3.0),
    }
    for radial in radials.values():
        q = vd.Elliptical(radial, loc, tril, validate_args=False)
        assert families(q) == ("location_scale",)
        assert reparameterize(q).rsample((5,)).shape == (5, 2)
    assert families(vd.Elliptical(Clipped(ONE, ONE), loc, tril, validate_args=False)) == ()


@pytest.mark.parametrize(("low", "high"), [(3.0, 3.0000002), (1000.0, 1000.01), (1e-30, 1e30)])
@pytest.mark.parametrize("family", ["inverse_cdf"])
def test_reciprocal_stays_in_its_support(low, high, family):
    q = vd.Reciprocal(torch.tensor(low), torch.tensor(high))
    r = reparameterize(q, family)
    u = torch.cat([torch.linspace(2**-24, 1 - 2**-24, 2001), torch.rand(1000).clamp(2**-24)])
    z = r.g(u)
    assert ((z >= q.low) & (z <= q.high)).all()


@pytest.mark.parametrize("family", ["inverse_cdf", "location_scale"])
@pytest.mark.parametrize("peak", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_triangular_with_its_peak_at_an_end(family, peak, dtype):
    """E[z] = (a + b + m) / 3: its derivative is 1/3 in each parameter, wherever the peak is."""
    leaves = [torch.full((N,), x, dtype=dtype, requires_grad=True) for x in (0.0, 1.0, peak)]
    z = reparameterize(vd.Triangular(*leaves), family).rsample()
    assert shares(z, np.linspace(0.05, 0.95, 10), st.triang(peak).cdf) < 5.5
    for slopes in torch.autograd.grad(z.sum(), leaves):
        slopes = slopes.double()
        assert slopes.isfinite().all()
        assert abs(slopes.mean() - 1 / 3) < 5 * slopes.std() / math.sqrt(N)


def test_noise_of_several_parts_has_a_dtype():
    q = td.StudentT(torch.tensor(3.0))
    for family in ("composition", "location_scale"):
        r = reparameterize(q, family)
        with pytest.raises(TypeError, match=r"eps must have the dtype of the noise, torch\.float32"):
            r.g(r.noise.sample().double().clamp(0.1, 0.9))
    mixed = vd.Elliptical(
        td.Gamma(torch.tensor(2.0).double(), torch.tensor(1.0).double()),
        torch.zeros(2),
        torch.eye(2),
        validate_args=False,
    )
    r = reparameterize(mixed)
    assert r.g(r.noise.sample((4,))).shape == (4, 2)


def test_a_map_in_the_middle_of_the_range_of_float32():
    """The gamma quantiles are solved for in float64 and rounded at the end: Beta(500, 500) in float32."""
    r = reparameterize(td.Beta(torch.tensor(500.0), torch.tensor(500.0)))
    u = torch.rand(50, 2).clamp(1e-3, 1 - 1e-3)
    wide = reparameterize(td.Beta(torch.tensor(500.0).double(), torch.tensor(500.0).double())).g(u.double())
    torch.testing.assert_close(r.g(u).double(), wide, rtol=3e-7, atol=0)
    g1, g2 = (st.gamma(500).ppf(u[:, k].double().numpy()) for k in (0, 1))
    np.testing.assert_allclose(wide.numpy(), g1 / (g1 + g2), rtol=1e-9)


def test_noise_takes_a_generator():
    noise = StandardUniform(ONE, (3,))
    first, again = (noise.sample((2,), generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again) and first.shape == (2, 3)


def truncated_normal(low, high, loc, scale, u):
    """The quantile of a truncated normal and its slopes in (low, high, loc, scale), with 60 digits."""
    with mpmath.workdps(60):
        a, b, m, s, u = (mpmath.mpf(float(x)) for x in (low, high, loc, scale, u))
        sign = -1 if (a + b) / 2 > m else 1  # about the tail that the interval lies in
        below, above = (mpmath.ncdf(sign * (x - m) / s) for x in (a, b))
        level = below + u * (above - below)
        left, right = a, b
        for _ in range(190):  # bisection
            z = (left + right) / 2
            left, right = (left, z) if mpmath.ncdf(sign * (z - m) / s) * sign > sign * level else (z, right)
        at_a, at_b = (mpmath.exp(((z - m) ** 2 - (x - m) ** 2) / (2 * s**2)) for x in (a, b))
        slopes = (
            (1 - u) * at_a,
            u * at_b,
            1 - (1 - u) * at_a - u * at_b,
            ((z - m) - (1 - u) * at_a * (a - m) - u * at_b * (b - m)) / s,
        )
        return float(z), [float(slope) for slope in slopes]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("low", "high"), [(-0.5, 1.25), (30.0, 31.0), (-31.0, -30.0), (30.0, 1e3), (-1e3, 30.0)], ids=str
)
def test_truncated_map_and_its_slopes(low, high, dtype):
    """In the ends and in the parameters of the base, 30 standard deviations out on either side too."""
    leaves = [torch.tensor(x, dtype=dtype, requires_grad=True) for x in (low, high, 0.0, 1.0)]
    q = vd.Truncated(td.Normal(*leaves[2:]), *leaves[:2])
    r = reparameterize(q)
    assert (r.family, r.differentiable) == ("inverse_cdf", ("base", "low", "high"))
    rtol = 3e-6 if dtype == torch.float32 else 1e-10
    for level in (2.0**-20, 0.125, 0.5, 0.9375, 1 - 2.0**-20):
        u = torch.tensor(level, dtype=dtype)
        z = r.g(u)
        right, slopes = truncated_normal(low, high, 0.0, 1.0, level)
        assert z.dtype == dtype
        assert z.item() == pytest.approx(right, rel=3e-7 if dtype == torch.float32 else 1e-13)
        draws = [z] if dtype == torch.float32 else [z, reparameterize(q, "implicit").g(u)]
        for draw in draws:
            found = torch.autograd.grad(draw, leaves)
            # The slope in the location is the small rest of 1.
            atol = [1e-18, 1e-18, rtol, rtol * max(abs(right), 1e-9)]
            for one, other, near in zip(found, slopes, atol, strict=True):
                assert float(one) == pytest.approx(other, rel=rtol, abs=near)


def test_every_base_of_a_truncated_has_its_slopes():
    """dz/dφ = −∂G/∂φ / p, G the CDF between the ends, by differences of scipy's CDF."""
    for case in UNIVARIATE:
        try:
            q = vd.Truncated(make(case, torch.float64), 0.45, 0.95)
        except NotImplementedError:
            continue  # no icdf
        names = [name for name in case.params if case.kind is not vd.Erlang or name == "rate"]
        values = [
            torch.tensor(float(case.params[name]), dtype=torch.float64, requires_grad=True) for name in names
        ]
        q = vd.Truncated(case.kind(**case.params | dict(zip(names, values, strict=True))), 0.45, 0.95)
        z = reparameterize(q).g(torch.tensor(0.3, dtype=torch.float64))
        at = z.item()

        def level(values, case=case, names=names, at=at):
            cdf = case.scipy(*(case.params | dict(zip(names, values, strict=True))).values()).cdf
            return (cdf(at) - cdf(0.45)) / (cdf(0.95) - cdf(0.45))

        start = [value.item() for value in values]
        assert level(start) == pytest.approx(0.3, rel=1e-9)
        density = q.log_prob(z).exp().item()
        for k, slope in enumerate(torch.autograd.grad(z, values)):
            h = 1e-4
            moved = [[x + step * h * (i == k) for i, x in enumerate(start)] for step in (-2, -1, 1, 2)]
            far, near, above, farther = (level(values) for values in moved)
            rise = (8 * (above - near) - (farther - far)) / (12 * h)
            assert float(slope) == pytest.approx(-rise / density, rel=1e-7, abs=1e-9), (case.kind, names[k])


HEAVY_TAILS = {
    "InverseGamma": (lambda c: td.InverseGamma(c, torch.ones_like(c)), ("composition",), 1e-3),
    "Weibull": (lambda c: td.Weibull(torch.full_like(c, 0.3), c), ("inverse_cdf",), 1e-3),
    "Pareto": (lambda c: td.Pareto(torch.full_like(c, 3.0), c), ("inverse_cdf",), 1e-3),
    "LogNormal": (lambda c: td.LogNormal(torch.zeros_like(c), c), ("composition", "inverse_cdf"), 1e3),
    "FisherSnedecor": (lambda c: td.FisherSnedecor(c, c), ("composition",), 1e-3),
    "StudentT": (lambda c: td.StudentT(c), ("composition",), 1e-3),
    "a scaled Pareto": (
        lambda c: td.TransformedDistribution(td.Pareto(torch.ones_like(c), c), td.AffineTransform(0.0, 1e-3)),
        ("composition",),
        1e-3,
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", HEAVY_TAILS)
def test_draws_beyond_the_largest_number(name, dtype):
    """They are the largest or the smallest number, with a gradient of 0 and not NaN, also if f takes them back."""
    make, families, value = HEAVY_TAILS[name]
    for family in families:
        torch.manual_seed(1)
        parameter = torch.full((500,), value, dtype=dtype, requires_grad=True)
        q = make(parameter)
        z = reparameterize(q, family).rsample()
        assert z.isfinite().all() and q.support.check(z).all()
        for f in (lambda z: z.clamp(-1.0, 1.0), lambda z: 1 / (1 + z.abs())):
            assert torch.autograd.grad(f(z).sum(), parameter, retain_graph=True)[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_inverse_gamma_is_the_quantile(dtype):
    tolerance = 2e-6 if dtype == torch.float32 else 1e-9
    u = torch.tensor([0.1, 0.4, 0.9], dtype=dtype)
    for a in (0.1, 0.7, 5.0, 300.0):
        for rate in (0.2, 3.0):
            shape, scale = (torch.tensor(v, dtype=dtype, requires_grad=True) for v in (a, rate))
            z = reparameterize(td.InverseGamma(shape, scale), "composition").g(u)

            def exact(a, rate):
                return rate / sp.gammaincinv(a, u.double().numpy())

            held = shape.item(), scale.item()
            np.testing.assert_allclose(z.detach().numpy(), exact(*held), rtol=10 * tolerance)
            h = 1e-5 * held[0]
            slope = (exact(held[0] + h, held[1]) - exact(held[0] - h, held[1])) / (2 * h)
            weights = 1 / z.detach()
            by_shape, by_rate = torch.autograd.grad((weights * z).sum(), [shape, scale])
            assert by_shape.item() == pytest.approx((weights.double().numpy() * slope).sum(), rel=1e-4)
            assert by_rate.item() == pytest.approx(3 / held[1], rel=tolerance)
