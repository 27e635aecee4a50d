"""Truncated distributions against scipy and mpmath: both far tails, every kind of base, moments, gradients, errors."""

import copy
import math
import pickle

import mpmath
import pytest
import torch
from distribution_cases import F64, assert_close, assert_relative
from scipy import integrate, stats
from torch.distributions import (
    AffineTransform,
    Beta,
    Categorical,
    Cauchy,
    Exponential,
    Gamma,
    GeneralizedPareto,
    Gumbel,
    HalfCauchy,
    HalfNormal,
    Independent,
    Kumaraswamy,
    Laplace,
    LogNormal,
    Normal,
    Pareto,
    Poisson,
    StudentT,
    TransformedDistribution,
    Uniform,
    Weibull,
    kl_divergence,
)

from vaetut.distributions import Erlang, Gompertz, Logistic, Rayleigh, Reciprocal, Triangular, Truncated

F32 = torch.float32
INF = math.inf


def t(value):
    return torch.tensor(value, dtype=F64)


class Bare(torch.distributions.Distribution):
    """A user's logistic distribution, of which the CDF and its inverse are known, but no log tails."""

    arg_constraints = {}  # noqa: RUF012
    support = torch.distributions.constraints.real

    def __init__(self, loc):
        self.loc = loc
        super().__init__(loc.shape, validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return Bare(self.loc.expand(batch_shape))

    def log_prob(self, value):
        return Logistic(self.loc, torch.ones_like(self.loc), validate_args=False).log_prob(value)

    def cdf(self, value):
        return (value - self.loc).sigmoid()

    def icdf(self, value):
        return self.loc + value.logit()


# name: the base, scipy's, and an interval inside of its support on whose sides there is room
BASES = {
    "normal": (Normal(t(0.3), t(1.2)), stats.norm(0.3, 1.2)),
    "logistic": (Logistic(t(0.3), t(1.2)), stats.logistic(0.3, 1.2)),
    "laplace": (Laplace(t(0.6), t(1.2)), stats.laplace(0.6, 1.2)),
    "cauchy": (Cauchy(t(0.3), t(1.2)), stats.cauchy(0.3, 1.2)),
    "gumbel": (Gumbel(t(0.3), t(1.2)), stats.gumbel_r(0.3, 1.2)),
    "exponential": (Exponential(t(1.2)), stats.expon(scale=1 / 1.2)),
    "weibull": (Weibull(t(1.2), t(1.7)), stats.weibull_min(1.7, scale=1.2)),
    "rayleigh": (Rayleigh(t(1.2)), stats.rayleigh(scale=1.2)),
    "gompertz": (Gompertz(t(0.4), t(1.2)), stats.gompertz(0.4, scale=1 / 1.2)),
    "pareto": (Pareto(t(0.4), t(5.0)), stats.pareto(5.0, scale=0.4)),
    "half normal": (HalfNormal(t(1.2)), stats.halfnorm(scale=1.2)),
    "half cauchy": (HalfCauchy(t(1.2)), stats.halfcauchy(scale=1.2)),
    "uniform": (Uniform(t(0.1), t(1.9)), stats.uniform(0.1, 1.8)),
    "triangular": (Triangular(t(0.1), t(1.9), t(0.7)), stats.triang(1 / 3, 0.1, 1.8)),
    "reciprocal": (Reciprocal(t(0.1), t(1.9)), stats.loguniform(0.1, 1.9)),
    "log-normal": (LogNormal(t(0.1), t(0.8)), stats.lognorm(0.8, scale=math.exp(0.1))),
    "erlang": (Erlang(torch.tensor(3), t(1.5)), stats.gamma(3, scale=1 / 1.5)),
    "falling": (
        TransformedDistribution(Gumbel(t(0.0), t(1.0)), [AffineTransform(t(0.6), t(-0.5))]),
        stats.gumbel_l(0.6, 0.5),
    ),
    "bare": (Bare(t(0.3)), stats.logistic(0.3)),
}
every_base = pytest.mark.parametrize("name", BASES)
ENDS = [(0.5, 0.9), (-INF, 0.8), (0.7, INF), (-INF, INF)]
every_interval = pytest.mark.parametrize(("low", "high"), ENDS, ids=str)


@every_base
@every_interval
def test_density_and_cdf_are_the_ratios(name, low, high):
    base, reference = BASES[name]
    q = Truncated(base, low, high)
    mass = reference.cdf(high) - reference.cdf(low)
    u = torch.tensor([1e-6, 0.1, 0.5, 0.9, 1 - 1e-6], dtype=F64)
    z = q.icdf(u)
    assert_close(z, reference.ppf(reference.cdf(low) + u.numpy() * mass), 2e-9)
    assert_close(q.log_prob(z), reference.logpdf(z.numpy()) - math.log(mass), 1e-9)
    assert_close(q.cdf(z), (reference.cdf(z.numpy()) - reference.cdf(low)) / mass, 1e-11)
    assert_close(q.survival(z), 1 - u, 1e-9)
    assert_close(q.cdf(z), u, 1e-11)
    assert q.support.check(q.sample((1000,))).all()


@every_base
def test_moments_and_entropy(name):
    base, reference = BASES[name]
    q = Truncated(base, 0.5, 0.9)
    mass = reference.cdf(0.9) - reference.cdf(0.5)

    def average(f):
        return integrate.quad(
            lambda x: f(x) * reference.pdf(x) / mass, 0.5, 0.9, points=[0.6, 0.7], epsabs=1e-13, epsrel=1e-13
        )[0]

    mean = average(lambda x: x)
    assert_relative(q.mean, mean, 1e-8)
    assert_relative(q.variance, average(lambda x: (x - mean) ** 2), 1e-7)
    assert_close(q.entropy(), average(lambda x: math.log(mass) - reference.logpdf(x)), 1e-7)


@every_base
def test_without_ends_it_is_the_base(name):
    base, reference = BASES[name]
    q = Truncated(base)
    x = base.icdf(torch.linspace(0.05, 0.95, 7, dtype=F64))
    assert_close(q.log_prob(x), base.log_prob(x), 1e-12)
    assert_close(q.cdf(x), base.cdf(x), 1e-12)
    if math.isfinite(reference.var()):
        assert_relative(q.mean, reference.mean(), 1e-7)
        assert_relative(q.variance, reference.var(), 1e-6)
    else:
        assert_close(q.mean, reference.mean(), 0.0)
        assert not torch.isfinite(q.variance)
    assert_close(q.entropy(), reference.entropy(), 1e-7)


@every_base
def test_gradients(name):
    """Of draws, densities, CDF and moments, in the base's parameters and in both ends."""
    low, high = t(0.5).requires_grad_(), t(0.9).requires_grad_()
    names = (
        []
        if name == "falling"
        else [n for n in BASES[name][0].arg_constraints if n != "concentration" or name != "erlang"]
    )
    if name == "bare":
        names = ["loc"]
    base = BASES[name][0]
    values = [getattr(base, n).clone().requires_grad_() for n in names]

    def build(low, high, *values):
        parameters = {n: getattr(base, n) for n in base.arg_constraints}
        parameters.update(zip(names, values, strict=True))
        if name == "falling":
            return Truncated(base, low, high, validate_args=False)
        changes = {} if name == "bare" else {"validate_args": False}
        return Truncated(type(base)(**parameters, **changes), low, high, validate_args=False)

    u, x = t([0.2, 0.8]), t([0.55, 0.8])
    for f in (
        lambda q: q.icdf(u),
        lambda q: q.log_prob(x),
        lambda q: q.cdf(x),
        lambda q: q.survival(x),
        lambda q: q.mean,
    ):
        assert torch.autograd.gradcheck(lambda *v, f=f: f(build(*v)), (low, high, *values), atol=1e-5)
    if name in ("normal", "gumbel", "erlang", "bare", "weibull"):
        assert torch.autograd.gradgradcheck(lambda *v: build(*v).icdf(u), (low, high, *values), atol=1e-4)


FAR = [
    (30.0, 31.0),
    (-31.0, -30.0),
    (30.0, INF),
    (-INF, -30.0),
    (29.0, 29.001),
    (100.0, 105.0),
    (-INF, -1000.0),
]


@pytest.mark.parametrize(("low", "high"), FAR, ids=str)
@pytest.mark.parametrize("dtype", [F32, F64], ids=["float32", "float64"])
def test_normal_far_out(low, high, dtype):
    mpmath.mp.dps = 50

    def tail(x):  # of the upper tail
        return mpmath.erfc(mpmath.mpf(x) / mpmath.sqrt(2)) / 2

    sign = 1 if low > 0 else -1
    a, b = sorted((sign * low, sign * high))  # the mirror image in the upper tail
    high32 = torch.tensor(high, dtype=dtype).item()
    low32 = torch.tensor(low, dtype=dtype).item()
    a, b = sorted((sign * low32, sign * high32))
    mass = tail(a) - (tail(b) if b < INF else 0)
    q = Truncated(Normal(torch.tensor(0.0, dtype=dtype), torch.tensor(1.0, dtype=dtype)), low, high)
    u = torch.tensor([0.1, 0.5, 0.9], dtype=dtype)
    z = q.icdf(u)
    assert z.dtype == dtype
    tolerance = 1e-6 if dtype == F32 else 1e-13
    for level, x in zip(u.tolist(), z.tolist(), strict=True):
        level = level if sign > 0 else 1 - level
        target = tail(a) - level * mass
        exact = mpmath.findroot(lambda y, target=target: mpmath.log(tail(y) / target), abs(x))
        assert abs(abs(x) - float(exact)) < tolerance * abs(x)
        log_density = -(mpmath.mpf(x) ** 2) / 2 - mpmath.log(2 * mpmath.pi) / 2 - mpmath.log(mass)
        log_prob = float(q.log_prob(torch.tensor(x, dtype=dtype)))
        assert abs(log_prob - float(log_density)) < (1e-5 if dtype == F32 else 1e-8)
        part = (tail(a) - tail(abs(x))) / mass
        assert abs(float(q.cdf(torch.tensor(x, dtype=dtype))) - float(part if sign > 0 else 1 - part)) < (
            1e-5 if dtype == F32 else 1e-8
        )
    if dtype == F64:
        end = min(b, a + 60 / a)
        grid = [a, (a + end) / 2, end] if b > a + 1 else [a, b]

        def average(f):
            return mpmath.quad(lambda y: f(y) * mpmath.npdf(y) / mass, grid)

        mean = average(lambda y: y)
        assert_relative(q.mean, sign * float(mean), 1e-10)
        assert_relative(q.variance, float(average(lambda y: (y - mean) ** 2)), 1e-6)
        assert_close(
            q.entropy(),
            float(average(lambda y: y**2 / 2) + mpmath.log(2 * mpmath.pi) / 2 + mpmath.log(mass)),
            1e-8,
        )


def test_draws_far_out():
    q = Truncated(Normal(torch.tensor(0.0), torch.tensor(1.0)), 30.0, 31.0)
    z = q.sample((100_000,)).double()
    assert ((z >= 30) & (z <= 31)).all()

    def tail(x):
        return mpmath.erfc(x / mpmath.sqrt(2))

    levels = [float((tail(30) - tail(x)) / (tail(30) - tail(31))) for x in z[:1000].tolist()]
    assert stats.kstest(levels, "uniform").pvalue > 1e-6
    assert (
        stats.kstest([u**1.3 for u in levels], "uniform").pvalue < 1e-6
    )  # a mistake of this size is noticed


def test_gradient_far_out():
    low = torch.tensor(30.0, requires_grad=True)
    loc = torch.tensor(0.0, requires_grad=True)
    z = Truncated(Normal(loc, 1.0), low, INF).icdf(torch.tensor(0.5))
    slopes = torch.autograd.grad(z, (low, loc))
    # dz/da = p(a)(1 − u)/p(z), and a shift of both shifts z
    exact = 0.5 * math.exp((z.item() ** 2 - 900) / 2)
    assert abs(float(slopes[0]) - exact) < 1e-3
    assert abs(float(sum(slopes)) - 1) < 1e-5


def test_values_outside():
    q = Truncated(Normal(t(0.0), t(1.0)), -1.0, 2.0, validate_args=False)
    x = t([-INF, -2.0, 3.0, INF, math.nan]).requires_grad_()
    assert_close(q.log_prob(x), [-INF, -INF, -INF, -INF, math.nan], 0.0)
    assert_close(q.cdf(x), [0.0, 0.0, 1.0, 1.0, math.nan], 0.0)
    assert_close(q.log_survival(x), [0.0, 0.0, -INF, -INF, math.nan], 0.0)
    (slope,) = torch.autograd.grad(q.log_prob(x[:4]).sum() + q.cdf(x[:4]).sum(), x)
    assert_close(slope, 0.0, 0.0)
    assert_close(q.icdf(t([0.0, 1.0])), [-1.0, 2.0], 0.0)
    with pytest.raises(ValueError, match="within the support"):
        Truncated(Normal(0.0, 1.0), -1.0, 2.0).log_prob(torch.tensor(3.0))


def test_an_interval_that_reaches_beyond_the_support():
    q = Truncated(Exponential(t(1.5)), -3.0, 1.0)
    assert q.support.lower_bound == 0
    assert_close(q.icdf(t([0.0, 1.0])), [0.0, 1.0], 0.0)
    assert_close(q.cdf(t(0.5)), math.expm1(-0.75) / math.expm1(-1.5), 1e-14)
    uniform = Truncated(Uniform(t(0.0), t(1.0)), -3.0, 2.0)
    assert_close(uniform.mean, 0.5, 1e-12)


def test_batches_wrappers_and_copies():
    low = torch.tensor([[-1.0], [0.0]])
    q = Truncated(Normal(torch.zeros(3), 1.0), low, INF)
    assert q.batch_shape == (2, 3)
    assert q.rsample((5,)).shape == (5, 2, 3)
    assert q.mean.shape == q.variance.shape == q.entropy().shape == q.mode.shape == (2, 3)
    assert Independent(q, 1).log_prob(q.sample((5,))).shape == (5, 2)
    for other in (copy.deepcopy(q), pickle.loads(pickle.dumps(q)), q.expand((4, 2, 3))):
        assert_close(other.log_prob(torch.ones(2, 3)), q.log_prob(torch.ones(2, 3)), 1e-7)
    with torch.inference_mode():
        q.log_prob(q.sample())
    slope = torch.func.vmap(
        torch.func.grad(lambda m: Truncated(Normal(m, 1.0), 0.0, 1.0).log_prob(torch.tensor(0.3)))
    )
    assert slope(torch.randn(4)).shape == (4,)


def test_parameters_of_transforms_are_followed():
    """The copy in float64 keeps the gradient of a transform's parameters, and of its inverse."""
    scale = t(2.0).requires_grad_()
    q = Truncated(TransformedDistribution(Normal(t(0.0), t(1.0)), [AffineTransform(t(1.0), scale)]), 0.0, 4.0)
    expected = Truncated(Normal(t(1.0), scale), 0.0, 4.0)
    x = t([0.5, 3.0])
    for f in (lambda q: q.log_prob(x), lambda q: q.icdf(t([0.2, 0.7]))):
        assert_close(f(q), f(expected), 1e-12)
        a, b = (torch.autograd.grad(f(p).sum(), scale)[0] for p in (q, expected))
        assert_close(a, b, 1e-11)


def test_divergences_by_quadrature():
    p = Truncated(Normal(t(0.3), t(1.2)), -1.0, 2.0)
    for q in (
        Truncated(Normal(t(0.0), t(2.0)), -1.5, 3.0),
        Truncated(Laplace(t(0.3), t(2.0)), -INF, 2.0),
        Normal(t(0.5), t(0.7)),
        StudentT(t(3.0)),
        Gumbel(t(0.0), t(1.0)),
    ):
        expected = integrate.quad(
            lambda x, q=q: float(p.log_prob(t(x)).exp() * (p.log_prob(t(x)) - q.log_prob(t(x)))),
            -1,
            2,
            points=[0.3],
        )[0]
        assert_close(kl_divergence(p, q), expected, 1e-9)
    assert kl_divergence(p, Exponential(t(1.0))) == INF
    assert kl_divergence(p, Truncated(Normal(t(0.3), t(1.2)), -0.5, 2.0)) == INF
    assert_close(kl_divergence(p, p), 0.0, 1e-14)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((1.0, 0.0, 1.0), TypeError, "base .*float"),
        ((Normal(0.0, 1.0), 1.0, 1.0), ValueError, "low < high"),
        ((Normal(0.0, 1.0), 1.0, math.nan), ValueError, "high.*Real"),
        ((Normal(0.0, 1.0), "0", 1.0), TypeError, "low .*str"),
        ((Normal(0.0, 1.0), 0.0, torch.ones(2).half()), TypeError, "high .*float16"),
        ((Normal(0.0, 1.0), 0.0, torch.tensor(1)), TypeError, "high .*int64"),
        ((Normal(torch.zeros(3), 1.0), torch.zeros(2), INF), ValueError, r"base \[3\], low \[2\]"),
        ((Independent(Normal(torch.zeros(3), 1.0), 1), 0.0, 1.0), ValueError, r"univariate.*\[3\]"),
        ((Poisson(2.0), 0.0, 1.0), ValueError, "continuous.*Poisson"),
        ((Categorical(torch.ones(2)), 0.0, 1.0), ValueError, "continuous.*Categorical"),
        ((Beta(2.0, 2.0), 0.0, 1.0), NotImplementedError, "cdf and icdf.*Beta"),
        ((Gamma(2.0, 2.0), 0.0, 1.0), NotImplementedError, "cdf and icdf.*Gamma"),
        ((StudentT(3.0), 0.0, 1.0), NotImplementedError, "cdf and icdf.*StudentT"),
        ((Exponential(1.0), -2.0, -1.0), ValueError, "probability of .* is 0"),
        ((Uniform(0.0, 1.0), 2.0, 3.0), ValueError, "probability of .* is 0"),
        ((Bare(torch.tensor(0.0)), 30.0, 31.0), ValueError, "underflows.*log_survival"),
    ],
)
def test_bad_input(arguments, error, message):
    with pytest.raises(error, match="(?s)" + message):
        Truncated(*arguments)


def test_generator():
    q = Truncated(Normal(0.0, 1.0), 1.0, 2.0)
    draws = [q.rsample((3,), generator=torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*draws)


def test_kumaraswamy_is_exact_beside_uniform():
    q = Truncated(Kumaraswamy(t(1.0), t(1.0)), 0.2, 0.6)
    assert_close(q.icdf(t([0.25, 0.75])), [0.3, 0.5], 1e-14)
    assert_close(q.entropy(), math.log(0.4), 1e-12)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_as_far_as_float64_holds_the_log_of_the_mass(side):
    """E[z] is φ/Q, which is x + 1/x − 2/x³ + … at x; beyond 450,000 standard deviations an error says why."""
    one = torch.ones((), dtype=torch.float64)
    for x in (100.0, 1e4, 4e5):
        low, high = (x, math.inf) if side > 0 else (-math.inf, -x)
        q = Truncated(Normal(0 * one, one), low, high)
        beyond = (side * float(q.mean) - x) * x
        assert beyond == pytest.approx(1 - 2 / x**2, rel=3e-5 if x < 1e5 else 3e-4)
        assert float(q.stddev) * x == pytest.approx(1 - 3 / x**2, rel=3e-5)
    for x in (1e6, 1e8, 1e100):
        low, high = (x, math.inf) if side > 0 else (-math.inf, -x)
        with pytest.raises(ValueError, match="so far in a tail of Normal"):
            Truncated(Normal(0 * one, one), low, high)


LEVELS = (0.05, 0.3, 0.9)
# base, ends that keep nearly all of its mass, and the quantile's derivatives in its parameters
FAR_ENDS = {
    "normal": (Normal, (0.3, 1.2), -1e200, 1e200, lambda u: (1.0, stats.norm.ppf(u))),
    "gumbel": (Gumbel, (0.3, 1.2), -1e3, 1e4, lambda u: (1.0, -math.log(-math.log(u)))),
    "weibull": (
        Weibull,
        (1.0, 1e4),
        -1.0,
        2.0,
        lambda u: ((e := (-math.log1p(-u))) ** 1e-4, -math.log(e) * 1e-8 * e**1e-4),
    ),
    "gompertz": (
        Gompertz,
        (1.0, 1.5),
        -1.0,
        1e6,
        lambda u: (
            (e := -math.log1p(-u)) * -1 / (1 + e) / 1.5,
            -math.log1p(e) / 1.5**2,
        ),
    ),
    "exponential": (Exponential, (2.0,), 0.0, 1e300, lambda u: (math.log1p(-u) / 4,)),
    "rayleigh": (Rayleigh, (2.0,), -3.0, 1e180, lambda u: (math.sqrt(-2 * math.log1p(-u)),)),
    "pareto": (
        Pareto,
        (1.0, 1e-3),
        0.0,
        INF,
        lambda u: ((z := 10.0 ** min(300, -1e3 * math.log10(1 - u))), z * math.log1p(-u) * 1e6),
    ),
    "log-normal": (
        LogNormal,
        (0.1, 0.8),
        -1.0,
        1e300,
        lambda u: (
            (z := math.exp(0.1 + 0.8 * stats.norm.ppf(u))),
            z * stats.norm.ppf(u),
        ),
    ),
}


@pytest.mark.parametrize("name", FAR_ENDS)
@pytest.mark.parametrize("level", LEVELS)
def test_ends_far_beyond_the_mass_leave_the_gradients_alone(name, level):
    """The slope of a log tail overflows there, and times the tail, 0, it would be NaN in every parameter."""
    kind, values, low, high, exact = FAR_ENDS[name]
    parameters = [t(value).requires_grad_() for value in values]
    q = Truncated(kind(*parameters), low, high)
    z = q.icdf(t(level))
    expected = exact(level)
    if max(abs(x) for x in expected) < 1e300:
        for slope, right in zip(torch.autograd.grad(z, parameters), expected, strict=True):
            assert_relative(slope, right, 1e-9)
    x = z.detach()
    base = kind(*[t(value).requires_grad_() for value in values])
    assert_close(q.log_prob(x), base.log_prob(x), 1e-12)
    for slope in torch.autograd.grad(q.log_prob(x), parameters):
        assert torch.isfinite(slope)


@pytest.mark.parametrize(
    ("base", "low", "high", "x", "expected"),
    [
        (Weibull(t(1.5), t(1.0)), -1.0, 2.0, 0.0, -math.log(1.5) - math.log(-math.expm1(-2 / 1.5))),
        (Weibull(t(1.5), t(0.5)), -1.0, 2.0, 0.0, INF),
        (Weibull(t(1.5), t(1.7)), -1.0, 2.0, 0.0, -INF),
        (LogNormal(t(0.0), t(1.0)), -1.0, 2.0, 0.0, -INF),
        (Kumaraswamy(t(2.0), t(1.0)), 0.5, 2.0, 1.0, math.log(2 / 0.75)),
        (Kumaraswamy(t(2.0), t(0.5)), 0.5, 2.0, 1.0, INF),
        (Kumaraswamy(t(2.0), t(3.0)), 0.5, 2.0, 1.0, -INF),
        (Uniform(t(0.0), t(2.0)), 0.5, 3.0, 2.0, -math.log(1.5)),
        (Erlang(torch.tensor(1), t(1.5)), -1.0, 2.0, 0.0, math.log(1.5) - math.log(-math.expm1(-3.0))),
    ],
)
def test_density_at_an_end_of_the_base(base, low, high, x, expected):
    """torch's densities are NaN or −∞ at an end that is not in their support, as 0 log 0."""
    q = Truncated(base, low, high)
    assert_close(q.log_prob(t(x)), expected, 1e-9)
    assert_close(q.log_prob(t([x, 1.0 if x < 1 else 0.8]))[0], expected, 1e-9)


HEAVY = [
    lambda one: Truncated(Weibull(one, 0.001 * one), -1.0, 2.0),
    lambda one: Truncated(Kumaraswamy(0.05 * one, 0.7 * one)),
    lambda one: Truncated(Kumaraswamy(0.7 * one, 0.001 * one), -1.0, 2.0),
    lambda one: Truncated(Pareto(one, 0.001 * one), 0.0),
    lambda one: Truncated(LogNormal(0 * one, 100 * one), 1.0),
    lambda one: Truncated(LogNormal(0 * one, 1e4 * one), -1.0, 2.0),
]


@pytest.mark.parametrize("make", HEAVY)
@pytest.mark.parametrize("dtype", [F32, F64], ids=["float32", "float64"])
def test_draws_beyond_the_range_of_the_dtype(make, dtype):
    """They become the number next to the end, with a gradient of 0, and have a density."""
    one = torch.ones((), dtype=dtype, requires_grad=True)
    q = make(one)
    u = torch.linspace(0.001, 0.999, 101, dtype=dtype)
    z = q.icdf(u)
    assert torch.isfinite(z).all()
    low, high = q.support.lower_bound, q.support.upper_bound
    if low == 0:
        assert (z > low).all()
    if high == 1:
        assert (z < high).all()
    for each in z:
        (slope,) = torch.autograd.grad(each, one, retain_graph=True)
        assert not torch.isnan(slope)
    assert not torch.isnan(q.log_prob(z)).any()
    assert_close(q.icdf(torch.tensor([0.0, 1.0], dtype=dtype)), torch.stack([low, high]).detach(), 0.0)


@pytest.mark.parametrize("kind", [HalfNormal, HalfCauchy])
@pytest.mark.parametrize("high", [1e-6, 1e-10, 1e-17, 1e-200])
def test_folded_bases_next_to_zero(kind, high):
    """Their density is flat there to the square of the distance, so that the interval is uniform."""
    scale = t(1.2).requires_grad_()
    q = Truncated(kind(scale), -1.0, high)
    u = t([1e-12, 1e-3, 0.3, 0.999])
    assert_relative(q.icdf(u), high * u, 1e-11)
    assert_relative(q.cdf(high * u), u, 1e-11)
    assert_relative(q.log_prob(high * u), -math.log(high), 1e-11)
    assert_relative(q.mean, high / 2, 1e-9)
    assert_relative(q.variance, high**2 / 12, 1e-9) if high > 1e-100 else None
    (slope,) = torch.autograd.grad(q.icdf(u).sum(), scale)
    assert abs(slope) < high * 1e-9


def test_kumaraswamy_next_to_one():
    """Next to 1 the upper tail is (1 − xᵃ)ᵇ, where 1 − xᵃ has lost its digits."""
    a, b, gap = 1.7, 2.3, 2.0**-40
    q = Truncated(Kumaraswamy(t(a), t(b)), 1 - gap, 5.0)
    x = 1 - gap * t([0.75, 0.5, 2.0**-10])
    with mpmath.workdps(40):

        def log_tail(x):
            return b * mpmath.log(1 - mpmath.mpf(float(x)) ** a)

        tail = [float(mpmath.exp(log_tail(y) - log_tail(1 - gap))) for y in x]
        density = [
            float(
                mpmath.log(a * b)
                + (a - 1) * mpmath.log(float(y))
                + (b - 1) / mpmath.mpf(b) * log_tail(y)
                - log_tail(1 - gap)
            )
            for y in x
        ]
    assert_relative(q.survival(x), tail, 1e-11)
    assert_relative(q.log_prob(x), density, 1e-11)
    base = Truncated(Kumaraswamy(t(1.0), t(2.0)), 0.0, 1e-30)
    assert_relative(base.log_prob(t([0.0, 5e-31])), math.log(1e30), 1e-12)


@pytest.mark.parametrize("shape", [0.3, 1e-9, 0.0, -0.3])
@pytest.mark.parametrize("dtype", [F32, F64], ids=["float32", "float64"])
def test_general_pareto(shape, dtype):
    """torch's own CDF and density raise in float64, and lose digits for a small shape."""
    parameters = [torch.tensor(v, dtype=dtype, requires_grad=True) for v in (0.2, 1.1, shape)]
    exact = [p.item() for p in parameters]
    reference = stats.genpareto(exact[2], exact[0], exact[1])
    low, high = (float(torch.tensor(v, dtype=dtype)) for v in (0.5, 2.5))
    q = Truncated(GeneralizedPareto(*parameters), low, high)
    mass = reference.cdf(high) - reference.cdf(low)
    u = torch.tensor([1e-3, 0.4, 0.9], dtype=dtype)
    tolerance = 1e-9 if dtype == F64 else 3e-6
    z = q.icdf(u)
    assert_close(z, reference.ppf(reference.cdf(low) + u.double().numpy() * mass), tolerance)
    assert_close(q.log_prob(z), reference.logpdf(z.detach().numpy()) - math.log(mass), tolerance)
    assert_close(q.cdf(z), u, tolerance)
    mean = integrate.quad(lambda x: x * reference.pdf(x) / mass, low, high, epsabs=1e-12)[0]
    assert_close(q.mean, mean, max(1e-9, tolerance))
    if dtype == F64:
        for f in (lambda q: q.icdf(u), lambda q: q.log_prob(z.detach())):
            assert torch.autograd.gradcheck(
                lambda *v, f=f: f(Truncated(GeneralizedPareto(*v), low, high)), parameters, atol=1e-6
            )


@pytest.mark.parametrize("dtype", [F32, F64], ids=["float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "low", "high"),
    [(3, 30.8, 31.8), (3, 30.8, INF), (3, 400.0, 401.0), (1000, 1700.0, INF), (1, 300.0, INF)],
)
def test_erlang_far_out(shape, low, high, dtype):
    """The quantile is the root of the log of its upper tail, which 1 − F does not hold beyond e⁻³⁷."""
    rate = torch.tensor(1.5, dtype=dtype)
    low, high = (torch.tensor(v, dtype=dtype) for v in (low, high))
    q = Truncated(Erlang(torch.tensor(shape), rate), low, high)
    levels = torch.tensor([1e-6, 0.1, 0.5, 0.9, 0.999], dtype=dtype)
    with mpmath.workdps(40):

        def tail(x):
            return mpmath.gammainc(shape, mpmath.mpf(x) * 1.5, regularized=True) if x < INF else mpmath.mpf(0)

        mass = tail(low.item()) - tail(high.item())
        tolerance = 1e-10 if dtype == F64 else 1e-4
        for level, z in zip(levels.tolist(), q.icdf(levels).tolist(), strict=True):
            density = (
                1.5
                * (z * 1.5) ** (mpmath.mpf(shape) - 1)
                * mpmath.exp(-1.5 * mpmath.mpf(z))
                / mpmath.gamma(shape)
            )
            miss = ((tail(low.item()) - tail(z)) / mass - level) * mass / density  # in z
            assert abs(float(miss)) < (2e-15 if dtype == F64 else 1.5e-7) * z + tolerance * min(
                level, 1 - level
            )
            log_density = float(mpmath.log(density / mass))
            assert abs(float(q.log_prob(torch.tensor(z, dtype=dtype))) - log_density) < 1e-8 + tolerance
    assert low < q.mean < min(float(high), float(low) + 2.5)
    assert q.variance > 0


def test_weibull_far_out_in_float32():
    """Its hazard is 250 there, and torch's class holds the reciprocal of its concentration in float32."""
    scale, shape = (torch.tensor(v, requires_grad=True) for v in (1.2, 1.7))
    q = Truncated(Weibull(scale, shape), 30.75, 31.75)
    x = torch.tensor([30.8125, 31.0, 31.5])
    k, s = shape.item(), scale.item()
    mass = math.exp(-((30.75 / s) ** k)) - math.exp(-((31.75 / s) ** k))
    exact = [math.log(k / s) + (k - 1) * math.log(y / s) - (y / s) ** k - math.log(mass) for y in x.tolist()]
    assert_close(q.log_prob(x), exact, 1e-6)
    by_scale = [(y, q.log_prob(torch.tensor(y))) for y in (30.8125, 31.5)]
    slopes = [torch.autograd.grad(value, scale)[0].item() for _, value in by_scale]
    powers = [k / s * (y / s) ** k for y, _ in by_scale]
    assert slopes[1] - slopes[0] == pytest.approx(powers[1] - powers[0], rel=1e-5)
