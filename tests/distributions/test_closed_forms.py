"""Entropies and divergences of torch's classes, where its own terms cancel or overflow, against mpmath and SciPy."""

import itertools
import math

import mpmath
import pytest
import torch
from scipy.integrate import quad
from torch import distributions as td

from vaetut import cross_entropy, entropy, kl_divergence

mpmath.mp.dps = 60
TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
LARGE = [1e-3, 0.3, 1.0, 40.0, 1e5, 1e7]


def m(value: float) -> mpmath.mpf:
    return mpmath.mpf(value)


def gamma_entropy(a, rate):
    return a - mpmath.log(rate) + mpmath.loggamma(a) + (1 - a) * mpmath.digamma(a)


def dirichlet_entropy(*a):
    total = sum(a)
    log_beta = sum(map(mpmath.loggamma, a)) - mpmath.loggamma(total)
    return log_beta + (total - len(a)) * mpmath.digamma(total) - sum((x - 1) * mpmath.digamma(x) for x in a)


def student_entropy(df, scale):
    half = (df + 1) / 2
    difference = mpmath.digamma(half) - mpmath.digamma(df / 2)
    return half * difference + mpmath.log(mpmath.sqrt(df) * mpmath.beta(df / 2, m(0.5))) + mpmath.log(scale)


def of(dtype, *values):
    return [torch.tensor(value, dtype=dtype) for value in values]


def held(dtype, value: float) -> mpmath.mpf:
    """A number as a tensor of this dtype holds it."""
    return m(torch.tensor(value, dtype=dtype).item())


ENTROPIES = {
    "Gamma": (td.Gamma, gamma_entropy),
    "InverseGamma": (
        td.InverseGamma,
        lambda a, rate: a + mpmath.log(rate) + mpmath.loggamma(a) - (1 + a) * mpmath.digamma(a),
    ),
    "Chi2": (lambda a, _: td.Chi2(a), lambda a, _: gamma_entropy(a / 2, m(0.5))),
    "Beta": (td.Beta, dirichlet_entropy),
    "Dirichlet": (
        lambda a, b: td.Dirichlet(torch.stack([a, b, torch.ones_like(a)])),
        lambda a, b: dirichlet_entropy(a, b, m(1)),
    ),
    "StudentT": (
        lambda a, b: td.StudentT(a, torch.zeros_like(a), b),
        student_entropy,
    ),
}


@TYPES
@pytest.mark.parametrize("name", ENTROPIES)
def test_entropy_loses_no_digits(name, dtype):
    make, exact = ENTROPIES[name]
    for a, b in itertools.product(LARGE, LARGE):
        right = float(exact(held(dtype, a), held(dtype, b)))
        found = float(entropy(make(*of(dtype, a, b))))
        # float64 where the dtype is float32: what is left is the rounding of the result
        assert found == pytest.approx(right, rel=2e-7 if dtype == torch.float32 else 2e-9, abs=2e-8), (a, b)


@TYPES
def test_entropy_of_independent_variables(dtype):
    a = torch.tensor([1.0, 1e6], dtype=dtype)
    right = float(gamma_entropy(m(1), m(1)) + gamma_entropy(m(1e6), m(1)))
    assert float(entropy(td.Independent(td.Gamma(a, 1.0), 1))) == pytest.approx(right, rel=1e-6)


def gamma_kl(a, b, c, d):
    """KL of Gamma(a, rate b) from Gamma(c, rate d)."""
    return (
        (a - c) * mpmath.digamma(a)
        - mpmath.loggamma(a)
        + mpmath.loggamma(c)
        + c * (mpmath.log(b) - mpmath.log(d))
        + a * (d - b) / b
    )


def dirichlet_kl(a, b):
    def log_beta(x):
        return sum(map(mpmath.loggamma, x)) - mpmath.loggamma(sum(x))

    total = mpmath.digamma(sum(a))
    return (
        log_beta(b)
        - log_beta(a)
        + sum((x - y) * (mpmath.digamma(x) - total) for x, y in zip(a, b, strict=True))
    )


SHAPES = [(1.0, 1.0), (1.1, 0.9), (100.0, 3.0), (1e5, 1e5), (1.001e5, 1e5), (1e-2, 50.0), (3e6, 2.0)]
DIVERGENCES = {
    "Gamma": (td.Gamma, lambda q, p: gamma_kl(*q, *p)),
    "InverseGamma": (td.InverseGamma, lambda q, p: gamma_kl(*q, *p)),
    "Beta": (td.Beta, dirichlet_kl),
    "Dirichlet": (
        lambda a, b: td.Dirichlet(torch.stack([a, b, torch.ones_like(a)])),
        lambda q, p: dirichlet_kl((*q, m(1)), (*p, m(1))),
    ),
    "Poisson": (
        lambda a, _: td.Poisson(a),
        lambda q, p: q[0] * (mpmath.log(q[0]) - mpmath.log(p[0])) - q[0] + p[0],
    ),
}


@TYPES
@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergence_loses_no_digits(name, dtype):
    make, exact = DIVERGENCES[name]
    for q, p in itertools.product(SHAPES, SHAPES):
        right = float(exact([held(dtype, x) for x in q], [held(dtype, x) for x in p]))
        found = float(kl_divergence(make(*of(dtype, *q)), make(*of(dtype, *p))))
        assert found == pytest.approx(right, rel=3e-7 if dtype == torch.float32 else 1e-8, abs=1e-8), (q, p)


def d(*values):
    return of(torch.float64, *values)


# Every continuous univariate class of torch's in its registry, at ordinary parameters.
UNIVARIATE = {
    td.Beta: (td.Beta(*d(2.0, 3.0)), 0, 1),
    td.Cauchy: (td.Cauchy(*d(0.3, 1.2)), -math.inf, math.inf),
    td.ContinuousBernoulli: (td.ContinuousBernoulli(*d(0.3)), 0, 1),
    td.Exponential: (td.Exponential(*d(1.7)), 0, math.inf),
    td.Gamma: (td.Gamma(*d(2.3, 1.4)), 0, math.inf),
    td.Gumbel: (td.Gumbel(*d(0.4, 1.3)), -8, 60),
    td.HalfNormal: (td.HalfNormal(*d(1.3)), 0, math.inf),
    td.Laplace: (td.Laplace(*d(0.2, 0.8)), -40, 40),
    td.LogNormal: (td.LogNormal(*d(0.2, 0.4)), 0, math.inf),
    td.Normal: (td.Normal(*d(0.3, 0.8)), -12, 12),
    td.Pareto: (td.Pareto(*d(1.1, 6.0)), 1.1, math.inf),
    td.StudentT: (td.StudentT(*d(5.0, 0.1, 1.2)), -math.inf, math.inf),
    td.Uniform: (td.Uniform(*d(0.2, 0.9)), 0.2, 0.9),
    td.Weibull: (td.Weibull(*d(1.2, 1.7)), 0, math.inf),
}


@pytest.mark.parametrize("first", UNIVARIATE, ids=lambda kind: kind.__name__)
def test_every_pair_of_torchs_classes_is_its_integral(first):
    q, low, high = UNIVARIATE[first]
    for p, _, _ in UNIVARIATE.values():
        try:
            found = kl_divergence(q, p)
        except NotImplementedError:
            continue
        nearly_all = torch.tensor([max(low, -11.0) + 1e-3, min(high, 11.0) - 1e-3])
        if not p.support.check(nearly_all).all():
            assert found == math.inf
            continue

        def ratio(x, p=p):
            z = torch.tensor(x, dtype=torch.float64)
            log_q = q.log_prob(z)
            return float(log_q.exp() * (log_q - p.log_prob(z))) if log_q > -700 else 0.0

        points = [0.2] if first is td.Laplace else None
        right = quad(ratio, low, high, epsabs=1e-11, epsrel=1e-11, limit=300, points=points)[0]
        assert float(found) == pytest.approx(right, rel=1e-7, abs=1e-9), type(p).__name__


def tilted(logits):
    """log of the factor and mean of the density proportional to e^(lx) on [0, 1]."""
    mass = mpmath.expm1(logits) / logits
    return -mpmath.log(mass), 1 / (1 - mpmath.exp(-logits)) - 1 / logits


@TYPES
@pytest.mark.parametrize("logits", [-900.0, -30.0, -0.02, 0.7, 20.0, 100.0, 1e4])
def test_continuous_bernoulli_beyond_the_logits_that_torch_clamps(logits, dtype):
    factor, mean = tilted(held(dtype, logits))
    q = td.ContinuousBernoulli(logits=torch.tensor(logits, dtype=dtype), validate_args=False)
    assert float(entropy(q)) == pytest.approx(float(-factor - held(dtype, logits) * mean), rel=2e-6, abs=1e-7)
    other, _ = tilted(m(3))
    p = td.ContinuousBernoulli(logits=torch.tensor(3.0, dtype=dtype))
    right = float(factor - other + (held(dtype, logits) - 3) * mean)
    assert float(kl_divergence(q, p)) == pytest.approx(right, rel=2e-6)
    size = abs(held(dtype, logits))

    def square(t):  # the density falls from the end that the sign of l chooses
        return mpmath.exp(-size * t) * (t if logits < 0 else 1 - t) ** 2

    second = mpmath.quad(square, [0, min(1, 20 / size), 1]) * size / (1 - mpmath.exp(-size))
    normal = td.Normal(*of(dtype, 0.0, 1.0))
    right = float(mpmath.log(2 * mpmath.pi) / 2 + second / 2 + factor + held(dtype, logits) * mean)
    assert float(kl_divergence(q, normal)) == pytest.approx(right, rel=2e-6)


@TYPES
def test_powers_that_overflow(dtype):
    def tensors(*values):
        return of(dtype, *values)

    # log σ + E[y] + E[e⁻ʸ] − H, the power far beyond float64
    found = kl_divergence(td.Gamma(*tensors(1e6, 1.0)), td.Gumbel(*tensors(1e5, 100.0)))
    a, mu, s = m(1e6), m(1e5), m(100)
    power = mpmath.exp(mu / s - a * mpmath.log1p(1 / s))
    right = mpmath.log(s) + (a - mu) / s + power - gamma_entropy(a, m(1))
    assert float(found) == pytest.approx(float(right), rel=1e-6)
    assert kl_divergence(td.Chi2(*tensors(1e5)), td.Gumbel(*tensors(3e6, 2.0))) == math.inf
    # α log(E[x]/s) with sᵅ beyond float64
    low, high, scale, alpha = m(1e5), m(2e5), m(1e5), m(1e5)
    mean_log = (high * mpmath.log(high) - low * mpmath.log(low)) / (high - low) - 1
    right = (alpha + 1) * mean_log - mpmath.log(alpha) - alpha * mpmath.log(scale) - mpmath.log(high - low)
    found = kl_divergence(td.Uniform(*tensors(1e5, 2e5)), td.Pareto(*tensors(1e5, 1e5)))
    assert float(found) == pytest.approx(float(right), rel=1e-6)
    # the variance of a Weibull variable: ∞ − ∞, and a difference of nearly equal numbers
    assert kl_divergence(td.Weibull(*tensors(1e-2, 1e-2)), td.Normal(*tensors(0.0, 1.0))) == math.inf
    k = held(dtype, 1e6)
    variance = mpmath.gamma(1 + 2 / k) - mpmath.gamma(1 + 1 / k) ** 2
    mean = mpmath.gamma(1 + 1 / k)
    entropy_of_q = mpmath.euler * (1 - 1 / k) - mpmath.log(k) + 1
    width = held(dtype, 1e-6)
    right = mpmath.log(width) + mpmath.log(2 * mpmath.pi) / 2 - entropy_of_q
    right += (variance + (mean - 1) ** 2) / width**2 / 2
    found = kl_divergence(td.Weibull(*tensors(1.0, 1e6)), td.Normal(*tensors(1.0, 1e-6)))
    assert float(found) == pytest.approx(float(right), rel=1e-6)


@TYPES
def test_rates_of_zero(dtype):
    zero, one = (td.Poisson(torch.tensor(rate, dtype=dtype)) for rate in (0.0, 1.0))
    assert kl_divergence(zero, one) == 1 and kl_divergence(one, zero) == math.inf
    assert kl_divergence(zero, zero) == 0
    never = td.Bernoulli(torch.tensor(0.0, dtype=dtype))
    assert kl_divergence(never, zero) == 0 and kl_divergence(never, one) == 1


@TYPES
def test_waiting_times_of_any_length(dtype):
    """The mean number of failures, e¹⁰⁰ and e¹⁰⁰⁰, is beyond float32 and float64."""
    for logit in (-20.0, -100.0, -1000.0):
        q = td.Geometric(logits=torch.tensor(logit, dtype=dtype))
        p = td.Geometric(logits=torch.tensor(logit + 1, dtype=dtype))
        # H(q) is 1 − logit and KL is e − 2 up to terms of the order of the probability
        assert float(entropy(q)) == pytest.approx(1 - logit, rel=1e-6)
        assert float(kl_divergence(q, q)) == 0
        assert float(kl_divergence(q, p)) == pytest.approx(
            math.e - 2, rel=1e-3 if dtype == torch.float32 else 1e-7
        )
        assert float(cross_entropy(q, p)) == pytest.approx(math.e - 1 - logit, rel=1e-6)
    for p in (1e-7, 1e-3, 0.4):
        p = float(held(dtype, p))
        right = (-p * math.log(p) - (1 - p) * math.log1p(-p)) / p
        assert float(entropy(td.Geometric(torch.tensor(p, dtype=dtype)))) == pytest.approx(right, rel=1e-6)
    assert entropy(td.Geometric(torch.tensor(1.0, dtype=dtype))) == 0


@TYPES
def test_entropy_of_rare_outcomes(dtype):
    """Relative to its own size, where float32 rounds the other probability to 1."""
    for logit in (-90.0, -20.0, 20.0, 90.0):
        e = mpmath.exp(-abs(m(logit)))
        right = float((mpmath.log1p(e) * (1 + e) + abs(m(logit)) * e) / (1 + e))
        assert float(entropy(td.Bernoulli(logits=torch.tensor(logit, dtype=dtype)))) == pytest.approx(
            right, rel=1e-5
        )
    assert entropy(td.Bernoulli(torch.tensor(0.0, dtype=dtype))) == 0
    assert entropy(td.Categorical(torch.tensor([0.0, 1.0], dtype=dtype))) == 0
    p = torch.tensor([1.0, 0.0], dtype=dtype, requires_grad=True)
    assert torch.autograd.grad(entropy(td.Categorical(p)), p)[0].isfinite().all()


@pytest.mark.parametrize("kind", [td.Categorical])
@pytest.mark.parametrize("function", [kl_divergence, cross_entropy])
def test_different_numbers_of_categories(function, kind):
    for first, second in ((1, 3), (3, 1), (2, 3)):
        with pytest.raises(ValueError, match=f"same number of categories, got {first} and {second}"):
            function(kind(torch.ones(first)), kind(torch.ones(second)))


def test_gradients_and_vmap():
    a = torch.tensor([0.7, 40.0, 1e5], dtype=torch.float64)
    for make in (
        lambda a: td.Gamma(a, 2.0, validate_args=False),
        lambda a: td.Beta(a, a + 1, validate_args=False),
    ):
        p = make(torch.tensor(3.0, dtype=torch.float64))
        for f in (lambda a, make=make: entropy(make(a)), lambda a, make=make, p=p: kl_divergence(make(a), p)):
            assert torch.autograd.gradcheck(f, a[:2].clone().requires_grad_(), eps=1e-6, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(torch.func.vmap(f)(a), f(a))
            narrow = torch.autograd.functional.jacobian(f, a.float())
            wide = torch.autograd.functional.jacobian(f, a)
            torch.testing.assert_close(narrow.double(), wide, rtol=1e-5, atol=1e-7)
    low = torch.rand(3)
    found = torch.func.vmap(lambda a: kl_divergence(td.Uniform(a, 2.0), td.Uniform(a - 0.1, 3.0)))(low)
    torch.testing.assert_close(found, ((3.1 - low) / (2 - low)).log())
