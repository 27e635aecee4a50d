"""Every class at infinities, at the ends of its support and beyond, for integers and NaN, and under vmap."""

import math

import mpmath
import numpy as np
import pytest
import torch
from distribution_cases import (
    ARGUMENTS,
    CASES,
    F64,
    assert_close,
    assert_relative,
    every_case,
    every_kind,
    make,
)
from torch.distributions import Gamma, HalfNormal, InverseGamma, LogNormal, Pareto, Weibull, kl_divergence

from vaetut.distributions import (
    Elliptical,
    Erlang,
    Gompertz,
    Logistic,
    MultivariateStudentT,
    Rayleigh,
    Reciprocal,
    Triangular,
)
from vaetut.distributions._stirling import digamma_remainder, log_gamma_ratio, log_gamma_remainder

F32 = torch.float32
INF, NAN = math.inf, math.nan
dtypes = pytest.mark.parametrize("dtype", [F32, F64], ids=["float32", "float64"])


@every_case
@dtypes
def test_infinities(case, dtype):
    """The density is 0 at ±∞ and beyond ±2e38, the CDF 0 or 1, and no gradient is NaN there."""
    names = case.differentiable
    live = {n: torch.tensor(v, dtype=dtype, requires_grad=n in names) for n, v in case.parameters.items()}
    q = case.kind(**live, validate_args=False)
    low, high = case.reference().support()
    for value in (-INF, -2e38, 2e38, INF, low, high):
        x = torch.tensor(value, dtype=dtype, requires_grad=True)
        for method in ("log_prob", "cdf", "survival", "log_cdf", "log_survival"):
            result = getattr(q, method)(x)
            end = value in (low, high) and math.isfinite(value)
            if not end:
                expected = {
                    "cdf": float(value > 0),
                    "survival": float(value < 0),
                    "log_cdf": 0.0 if value > 0 else -INF,
                    "log_survival": 0.0 if value < 0 else -INF,
                }.get(method, -INF)
                if "log" not in method or math.isinf(value):
                    assert result.item() == expected, (method, value)
                else:
                    assert result.item() in (0.0, -INF) or result.item() < -1e35, (method, value)
            assert not torch.isnan(result), (method, value)
            slopes = torch.autograd.grad(result, [x, *(live[n] for n in names)], allow_unused=True)
            assert not any(s is not None and s.isnan() for s in slopes), (method, value, slopes)


@every_case
def test_nan_stays_nan(case):
    q = case.make(F32, validate_args=False)
    for method in ("log_prob", "cdf", "survival", "log_cdf", "log_survival", "icdf"):
        assert getattr(q, method)(torch.tensor([NAN, 0.5])).isnan().tolist()[0], method


@every_case
@dtypes
def test_quantiles_at_zero_and_one_move_with_the_parameters(case, dtype):
    names = case.differentiable
    live = {n: torch.tensor(v, dtype=dtype, requires_grad=n in names) for n, v in case.parameters.items()}
    q = case.kind(**live)
    for level, expected in enumerate(case.reference().support()):
        end = q.icdf(torch.tensor(float(level), dtype=dtype))
        assert_close(end, expected, 1e-6)
        for slope in torch.autograd.grad(end, [live[n] for n in names]):
            assert not slope.isnan()


@every_case
def test_integers_and_narrow_values(case):
    """Of any dtype, a value is computed with in the dtype of the parameters."""
    q = case.make(F64, validate_args=False)
    whole = torch.tensor([0, 1])
    assert_close(q.icdf(whole), q.icdf(whole.double()), 0.0)
    for method in ("log_prob", "cdf", "survival", "log_cdf", "log_survival"):
        for value in (torch.tensor([1, 2, 5]), torch.tensor([1.1, 2.3, 5.2])):
            result = getattr(q, method)(value)
            assert result.dtype == F64
            assert_close(result, getattr(q, method)(value.double()), 0.0)


def test_erlang_at_zero():
    """The slopes of log p(0) = log λ − λx for k = 1; for more phases p(0) = 0."""
    rate, x = torch.tensor(2.0, requires_grad=True), torch.tensor(0.0, requires_grad=True)
    assert_close(torch.stack(torch.autograd.grad(Erlang(1, rate).log_prob(x), (rate, x))), [0.5, -2.0], 1e-7)
    slopes = torch.autograd.grad(Erlang(3, rate).log_prob(x), (rate, x))
    assert math.isfinite(slopes[0]) and slopes[1] == INF


def test_logistic_far_out():
    q = Logistic(torch.tensor(0.0), 1.0)
    assert q.log_prob(torch.tensor(-2e38)) == -2e38
    x = torch.tensor([-INF, -1e30, 0.0, 1e30, INF], requires_grad=True)
    assert_close(torch.autograd.grad(q.log_prob(x).sum(), x)[0], [1.0, 1.0, 0.0, -1.0, -1.0], 0.0)


@every_kind
def test_vmap_with_the_checks_on(kind):
    """Over the parameters, as torch's Normal does, and a wrong value outside of vmap is still refused."""
    q = make(kind, (4,), F64, validate_args=False)
    names = [n for n in q.arg_constraints if not (kind is Erlang and n == "concentration")]
    parameters = tuple(getattr(q, n) for n in names)
    fixed = {}
    if kind is Elliptical:
        fixed = {"radial": Rayleigh(torch.tensor(3.0, dtype=F64))}
    elif kind is Erlang:
        fixed = {"concentration": torch.tensor(3.0, dtype=F64)}
    elif kind.__name__ == "Truncated":
        fixed = {"base": torch.distributions.Normal(torch.tensor(0.0, dtype=F64), 1.0)}
    x = q.sample()

    def density(x, *values):
        return kind(**fixed, **dict(zip(names, values, strict=True))).log_prob(x)

    assert_close(
        torch.func.vmap(density)(x, *parameters),
        torch.stack([density(a, *b) for a, *b in zip(x, *parameters, strict=True)]),
        1e-12,
    )
    if kind in ARGUMENTS:
        u = torch.full((4,), 0.3, dtype=F64)
        moved = torch.func.vmap(lambda u, *v: kind(**fixed, **dict(zip(names, v, strict=True))).icdf(u))(
            u, *parameters
        )
        assert_close(moved, q.icdf(u), 1e-12)


@every_kind
def test_generator(kind):
    q = make(kind)
    first, second, other = (
        draw((3,), generator=torch.Generator().manual_seed(seed))
        for draw, seed in ((q.rsample, 1), (q.sample, 1), (q.sample, 2))
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    state = torch.get_rng_state()
    q.rsample(generator=torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), state)


def test_generator_needs_a_radial_that_takes_one():
    q = Elliptical(Gamma(torch.tensor(2.0), 1.0), torch.zeros(2), torch.eye(2))
    with pytest.raises(NotImplementedError, match=r"generator must be None with radial Gamma"):
        q.sample(generator=torch.Generator())


@pytest.mark.parametrize("kind", ARGUMENTS, ids=lambda kind: kind.__name__)
def test_numbers_of_numpy(kind):
    values = {
        n: (np.int64(v) if kind is Erlang and n == "concentration" else np.float32(v))
        for n, v in ARGUMENTS[kind].items()
    }
    q = kind(**values)
    assert q.sample().dtype == F32
    assert isinstance(Erlang(np.int64(3), 1.0)._phases, int)
    with pytest.raises(TypeError, match="bool"):
        Logistic(np.bool_(True), 1.0)
    assert MultivariateStudentT(np.float64(3.0), torch.zeros(2), torch.eye(2)).df.dtype == F32


def test_half_precision_is_refused_as_a_default_too():
    torch.set_default_dtype(torch.float16)
    with pytest.raises(TypeError, match=r"loc must be .*float16"):
        Logistic(0.0, 1.0)


def test_a_parameter_that_is_changed_in_place():
    """No method remembers what it computed from the parameters, and none leaves a tensor of theirs behind."""
    for case in CASES:
        q, other = case.make(), case.make()
        x = q.icdf(torch.tensor(0.4, dtype=F64))
        keys = set(vars(q))
        with torch.inference_mode():
            q.log_prob(x), q.cdf(x), q.entropy(), q.mean
        assert set(vars(q)) == keys
        for name in case.differentiable:
            if name not in ("peak", "low"):
                getattr(q, name).mul_(1.001)
                setattr(other, name, getattr(other, name) * 1.001)
        assert torch.equal(q.log_prob(x), other.log_prob(x))


def test_reciprocal_of_a_narrow_interval_in_float32():
    """The quantile keeps the digits of u, and no draw leaves the support."""
    low, high = torch.tensor(1000.0), torch.tensor(1000.01)
    q, exact = Reciprocal(low, high), Reciprocal(low.double(), high.double())
    u = torch.tensor([0.1, 0.5, 0.9])
    assert (
        (q.icdf(u).double() - exact.icdf(u.double())).abs() < 1.3e-4
    ).all()  # the spacing of float32 there
    z = Reciprocal(torch.tensor(3.0), torch.tensor(3.0000002)).sample((1000,))
    assert ((z >= 3.0) & (z <= 3.0000002384185791)).all()


@pytest.mark.parametrize("df", [0.02, 0.1, 0.3, 1.0])
@dtypes
def test_student_t_of_few_degrees(df, dtype):
    """No NaN in a draw nor in its gradient; where the dtype has room, the draws are those of the distribution."""
    degrees = torch.tensor(df, dtype=dtype, requires_grad=True)
    q = MultivariateStudentT(degrees, torch.zeros(1, dtype=dtype), torch.eye(1, dtype=dtype))
    z = q.rsample((20_000,))
    assert torch.isfinite(z).all()
    (slope,) = torch.autograd.grad(z.abs().log().sum(), degrees)
    assert torch.isfinite(slope)
    from scipy import stats

    size = z.detach().double().abs().flatten()
    for level in (1e3, 1e8, 1e15):
        exact, n = 2 * stats.t.sf(level, df), len(size)
        assert (
            abs(float((size > level).double().mean()) - exact) < 5 * math.sqrt(exact * (1 - exact) / n) + 1e-9
        )


LARGE = [(1e5, 1e5, 1.0), (1e4, 3e3, 4.0), (3e5, 1.0, 2e5)]


@pytest.mark.parametrize(("a", "b", "scale"), LARGE)
def test_divergences_of_large_concentrations_in_float32(a, b, scale):
    mpmath.mp.dps = 40
    a, b, s = (torch.tensor(v) for v in (a, b, scale))
    A, B, S = (mpmath.mpf(float(v)) for v in (a, b, s))
    entropy = A - mpmath.log(B) + mpmath.loggamma(A) + (1 - A) * mpmath.digamma(A)
    mean_log = mpmath.digamma(A) - mpmath.log(B)
    square = A * (A + 1) / B**2
    half_normal = mpmath.log(S) + mpmath.log(mpmath.pi / 2) / 2 + square / (2 * S**2) - entropy
    assert_relative(kl_divergence(Gamma(a, b), HalfNormal(s)).double(), float(half_normal), 2e-5)
    rayleigh = 2 * mpmath.log(S) - mean_log + square / (2 * S**2) - entropy
    assert_relative(kl_divergence(Gamma(a, b), Rayleigh(s)).double(), float(rayleigh), 2e-5)
    log_normal = mean_log + mpmath.log(2 * mpmath.pi) / 2 + (mean_log**2 + mpmath.psi(1, A)) / 2 - entropy
    assert_relative(
        kl_divergence(Gamma(a, b), LogNormal(torch.tensor(0.0), 1.0)).double(), float(log_normal), 2e-5
    )


def test_divergences_from_a_narrow_gamma_in_float32():
    """Against Gamma(c, c) with a large c: c (E[x] − 1 − E[log x]) and small terms, of large ones that cancel."""
    mpmath.mp.dps = 40
    c = torch.tensor(1e5)
    C = mpmath.mpf(1e5)
    k, scale = torch.tensor(900.0), torch.tensor(1.001)
    K, S = mpmath.mpf(900), mpmath.mpf(float(scale))
    mean, mean_log = S * mpmath.gamma(1 + 1 / K), mpmath.log(S) - mpmath.euler / K
    entropy = mpmath.euler * (1 - 1 / K) + mpmath.log(S / K) + 1
    exact = mpmath.loggamma(C) - C * mpmath.log(C) - (C - 1) * mean_log + C * mean - entropy
    assert_relative(kl_divergence(Weibull(scale, k), Gamma(c, c)).double(), float(exact), 2e-3)
    assert_relative(
        kl_divergence(Weibull(scale.double(), k.double()), Gamma(c.double(), c.double())), float(exact), 1e-11
    )
    p = Pareto(torch.tensor(1.0), torch.tensor(3000.0))
    P = mpmath.mpf(3000)
    exact = (
        mpmath.loggamma(C) - C * mpmath.log(C) + (C + 1) / P + C * P / (P + 1) - (1 + 1 / P - mpmath.log(P))
    )
    assert_relative(kl_divergence(p, InverseGamma(c, c)).double(), float(exact), 2e-3)


@pytest.mark.parametrize("x", [1e-6, 0.3, 4.0, 11.9, 12.1, 1e3, 1e7, 1e12])
def test_stirling(x):
    mpmath.mp.dps = 60
    X = mpmath.mpf(x)
    value = torch.tensor(x, dtype=F64)
    exact = mpmath.loggamma(X) - (X - 0.5) * mpmath.log(X) + X - mpmath.log(2 * mpmath.pi) / 2
    assert_relative(log_gamma_remainder(value), float(exact), 1e-12)
    assert_relative(digamma_remainder(value), float(mpmath.digamma(X) - mpmath.log(X)), 1e-12)
    for a in (-0.9 * x, -0.3 * min(x, 1), 0.5, 2.5, 30.0):
        exact = mpmath.loggamma(X + a) - mpmath.loggamma(X) - a * mpmath.log(X)
        assert_close(log_gamma_ratio(value, torch.tensor(a, dtype=F64)), float(exact), 1e-13)


def test_gompertz_moments_of_many_parameters():
    """A part of the parameters at a time: the same values and gradients, and second ones, as one by one."""
    c = torch.logspace(-8, 8, 40_000, dtype=F64).requires_grad_()
    few = c.detach()[::8000].requires_grad_()
    weight = torch.linspace(0.5, 2.0, len(c), dtype=F64)
    for moment in (lambda q: q.mean, lambda q: q.variance, lambda q: q.entropy()):
        many, some = moment(Gompertz(c, 1.3)), moment(Gompertz(few, 1.3))
        assert_relative(many[::8000], some.detach(), 1e-14)
        (slope,) = torch.autograd.grad((many * weight).sum(), c, create_graph=True)
        (expected,) = torch.autograd.grad((some * weight[::8000]).sum(), few, create_graph=True)
        assert_relative(slope[::8000], expected.detach(), 1e-9)
        second, exact = torch.autograd.grad(slope.sum(), c)[0], torch.autograd.grad(expected.sum(), few)[0]
        assert_relative(second[::8000], exact, 1e-9)


def test_triangular_outside_has_no_gradient():
    low = torch.tensor(0.0, requires_grad=True)
    q = Triangular(low, 1.0, 0.5, validate_args=False)
    (slope,) = torch.autograd.grad(q.log_prob(torch.tensor([-1.0, 0.25, 7.0])).sum(), low)
    (alone,) = torch.autograd.grad(q.log_prob(torch.tensor([0.25])).sum(), low)
    assert slope == alone
