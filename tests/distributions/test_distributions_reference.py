"""Density, CDF, quantile, moments and entropy against scipy, and against mpmath where scipy loses digits."""

import math

import mpmath
import numpy as np
import pytest
import torch
from distribution_cases import CASES, F64, assert_close, assert_relative, every_case
from scipy import stats
from torch.distributions import Chi2, Gamma, MultivariateNormal, PowerTransform, TransformedDistribution

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

PROBABILITIES = [1e-12, 1e-6, 1e-3, 0.05, 0.3, 0.5, 0.7, 0.95, 0.999, 1 - 1e-6, 1 - 1e-12]


@every_case
def test_density_and_both_tails(case):
    reference, q = case.reference(), case.make()
    x = torch.tensor(reference.ppf(PROBABILITIES), dtype=F64)
    assert_close(q.log_prob(x), reference.logpdf(x.numpy()), 1e-11)
    # scipy's own tails of a bounded interval are right to rounding error in 1, not relative to themselves
    relative = assert_close if case.kind in (Reciprocal, Triangular) else assert_relative
    relative(q.cdf(x), reference.cdf(x.numpy()), 1e-10)
    relative(q.survival(x), reference.sf(x.numpy()), 1e-10)


@every_case
def test_tails_sum_to_one(case):
    q = case.make()
    x = q.icdf(torch.tensor(PROBABILITIES, dtype=F64))
    assert_close(q.cdf(x) + q.survival(x), 1.0, 1e-14)
    if case.kind is not Erlang:
        assert_relative(q.log_cdf(x).exp(), q.cdf(x), 1e-13)
        assert_relative(q.log_survival(x).exp(), q.survival(x), 1e-13)


@every_case
def test_quantile(case):
    q = case.make()
    u = torch.tensor(PROBABILITIES, dtype=F64)
    assert_close(q.icdf(u), case.reference().ppf(u.numpy()), 1e-11)
    back = q.cdf(q.icdf(u))
    if case.kind in (
        Reciprocal,
        Triangular,
    ):  # z itself is rounded, which limits F(z) near an end that is not 0
        assert_close(back, u, 1e-14)
    else:
        assert_relative(back, u, 1e-11)
    ends = q.icdf(torch.tensor([0.0, 1.0], dtype=F64))
    assert_close(ends, [*case.reference().support()], 1e-15)


@every_case
def test_moments_and_entropy(case):
    q, reference = case.make(), case.reference()
    assert_relative(q.mean, reference.mean(), 1e-10) if reference.mean() else assert_close(q.mean, 0.0, 1e-12)
    assert_relative(q.variance, reference.var(), 1e-9)
    assert_relative(q.stddev, reference.std(), 1e-9)
    assert_close(q.entropy(), reference.entropy(), 1e-8)


@every_case
def test_mode_maximizes_the_density(case):
    q = case.make()
    step = 1e-3 * q.stddev
    for x in (q.mode - step, q.mode + step):
        if bool(q.support.check(x)):
            assert q.log_prob(x) <= q.log_prob(q.mode)


@every_case
def test_zero_outside_the_support(case):
    q = case.make(validate_args=False)
    low, high = case.reference().support()
    outside = torch.tensor([x for x in (low - 1, high + 1) if math.isfinite(x)], dtype=F64)
    assert torch.equal(q.log_prob(outside), torch.full_like(outside, -math.inf))
    if case.kind is not Erlang:
        assert torch.equal(q.cdf(outside), (outside > high).to(F64))


@pytest.mark.parametrize("c", [1e-30, 1e-8, 1e-3, 0.5, 1.0, 20.0, 1e4, 1e20])
def test_gompertz_moments_against_exponential_integral(c):
    mpmath.mp.dps = 40
    q = Gompertz(torch.tensor(c, dtype=F64), 2.0)
    scaled = mpmath.exp(mpmath.mpf(c)) * mpmath.e1(mpmath.mpf(c)) if c < 1e4 else None
    if scaled is None:  # its asymptotic series
        scaled = mpmath.nsum(
            lambda n: (-1) ** int(n) * mpmath.factorial(n) / mpmath.mpf(c) ** (n + 1), [0, 8]
        )
    assert_relative(q.mean, float(scaled) / 2, 1e-13)
    assert_close(q.entropy(), float(1 - mpmath.log(2) - mpmath.log(c) - scaled), 1e-13)
    second = mpmath.quad(  # in units of the mean: its tolerance is absolute
        lambda s: mpmath.exp(-s) * (mpmath.log1p(s / mpmath.mpf(c)) / scaled) ** 2,
        [0, min(c, 1) / 1e3, min(c, 1), 1, 5, 10, 20, 40, 70, 100],
    )
    assert_relative(q.variance, float((second - 1) * scaled**2) / 4, 1e-11)


@pytest.mark.parametrize("k", [1, 2, 7, 20])
def test_erlang_tails(k):
    """Down to probabilities of 1e-300, where only the tail that is small can be inverted."""
    q = Erlang(k, torch.tensor(2.0, dtype=F64))
    u = torch.logspace(-300, -1, 24, dtype=F64)
    x = q.icdf(u)
    assert_relative(x, stats.gamma.ppf(u.numpy(), k, scale=0.5), 1e-12)
    assert_relative(q.cdf(x), u, 1e-12)


@pytest.mark.parametrize("k", [21, 100, 3000])
def test_erlang_with_many_phases(k):
    """torch's incomplete gamma function has a relative error of 1e-9 here."""
    q = Erlang(k, torch.tensor(1.0, dtype=F64))
    u = torch.tensor(PROBABILITIES, dtype=F64)
    x = torch.tensor(stats.gamma.ppf(u.numpy(), k), dtype=F64)
    assert_relative(q.icdf(u), x, 1e-9)
    assert_relative(q.cdf(x), u, 3e-9)


def test_reciprocal_over_sixty_decades():
    for dtype, tolerance in ((F64, 1e-12), (torch.float32, 2e-5)):
        q = Reciprocal(torch.tensor(1e-30, dtype=dtype), torch.tensor(1e30, dtype=dtype))
        u = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=dtype)
        assert_relative(q.icdf(u), [1e-30, 1e-15, 1.0, 1e15, 1e30], tolerance)
        assert_close(q.cdf(q.icdf(u)), u, tolerance)
        assert_close(q.log_prob(torch.tensor(1.0, dtype=dtype)), -math.log(60 * math.log(10)), tolerance)
        assert_relative(q.mean, 1e30 / (60 * math.log(10)), tolerance)


@pytest.mark.parametrize("width", [1e-8, 1e-3, 0.4, 0.65, 1.0, 30.0])
def test_reciprocal_variance_of_a_narrow_interval(width):
    mpmath.mp.dps = 60
    q = Reciprocal(torch.tensor(1.0, dtype=F64), torch.tensor(1.0 + width, dtype=F64))
    a, b = mpmath.mpf(1), mpmath.mpf(float(q.high))
    log_width = mpmath.log(b / a)
    variance = (b**2 - a**2) / (2 * log_width) - ((b - a) / log_width) ** 2
    assert_relative(q.variance, float(variance), 1e-13)
    assert_relative(q.log_width, float(log_width), 1e-15)


A = torch.tensor([[1.0, 0.0, 0.0], [0.5, 2.0, 0.0], [-0.3, 0.2, 0.7]], dtype=F64)
MU = torch.tensor([1.0, -2.0, 0.5], dtype=F64)


@pytest.mark.parametrize("df", [0.3, 1.0, 2.5, 30.0, 1e4])
def test_student_t_against_scipy(df):
    q = MultivariateStudentT(torch.tensor(df, dtype=F64), MU, A)
    reference = stats.multivariate_t(MU.numpy(), (A @ A.mT).numpy(), df=df)
    x = MU + torch.randn(50, 3, dtype=F64) * torch.logspace(-3, 4, 50, dtype=F64)[:, None]
    assert_close(q.log_prob(x), reference.logpdf(x.numpy()), 1e-10)
    assert_close(q.entropy(), reference.entropy(), 1e-9)


def test_student_t_moments():
    q = MultivariateStudentT(torch.tensor([0.5, 1.0, 1.5, 2.0, 5.0], dtype=F64), MU, A)
    covariance = A @ A.mT
    assert torch.isnan(q.mean[:2]).all()
    assert torch.equal(q.mean[2:], MU.expand(3, 3))
    assert torch.isnan(q.variance[:2]).all()
    assert torch.isinf(q.variance[2:4]).all()
    assert_close(q.variance[4], covariance.diagonal() * 5 / 3, 1e-14)
    assert torch.isnan(q.covariance_matrix[:4]).all()
    assert_close(q.covariance_matrix[4], covariance * 5 / 3, 1e-14)
    assert torch.equal(q.mode, MU.expand(5, 3))


def test_student_t_in_one_dimension_is_student_t():
    df = torch.tensor([0.7, 3.0, 50.0], dtype=F64)
    q = MultivariateStudentT(df, torch.zeros(1, dtype=F64), torch.full((1, 1), 2.0, dtype=F64))
    x = torch.linspace(-9, 9, 7, dtype=F64)[:, None].expand(7, 3)
    assert_close(q.log_prob(x.unsqueeze(-1)), stats.t.logpdf(x.numpy(), df.numpy(), scale=2.0), 1e-12)
    assert_close(q.entropy(), stats.t.entropy(df.numpy(), scale=2.0), 1e-10)


def test_elliptical_with_a_chi_radius_is_gaussian():
    chi = TransformedDistribution(Chi2(torch.tensor(3.0, dtype=F64)), PowerTransform(0.5))
    x = MU + 2 * torch.randn(20, 3, dtype=F64)
    gaussian = MultivariateNormal(MU, scale_tril=A)
    assert_close(Elliptical(chi, MU, A).log_prob(x), gaussian.log_prob(x), 1e-12)
    with pytest.raises(NotImplementedError):  # a TransformedDistribution has no mean and no entropy
        _ = Elliptical(chi, MU, A).variance


def test_elliptical_with_a_rayleigh_radius_is_gaussian_in_the_plane():
    q = Elliptical(Rayleigh(torch.tensor(1.0, dtype=F64)), MU[:2], A[:2, :2])
    gaussian = MultivariateNormal(MU[:2], scale_tril=A[:2, :2])
    x = torch.cat([MU[None, :2], MU[:2] + torch.randn(20, 2, dtype=F64)])  # the first point is the center
    assert_close(q.log_prob(x), gaussian.log_prob(x), 1e-12)
    assert_close(q.mean, gaussian.mean, 1e-14)
    assert_close(q.variance, gaussian.variance, 1e-13)
    assert_close(q.covariance_matrix, gaussian.covariance_matrix, 1e-13)
    assert_close(q.entropy(), gaussian.entropy(), 1e-13)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_elliptical_with_an_f_radius_is_student_t(d):
    """r² / d ~ F(d, ν), so p_r(r) = 2 r p_F(r²/d) / d."""
    df, loc, scale = 4.0, torch.zeros(d, dtype=F64), torch.eye(d, dtype=F64)
    base = torch.distributions.FisherSnedecor(torch.tensor(float(d), dtype=F64), torch.tensor(df, dtype=F64))
    radial = TransformedDistribution(
        base, [torch.distributions.AffineTransform(0.0, float(d)), PowerTransform(0.5)]
    )
    x = 3 * torch.randn(20, d, dtype=F64)
    expected = MultivariateStudentT(df, loc, scale).log_prob(x)
    assert_close(Elliptical(radial, loc, scale).log_prob(x), expected, 1e-11)


def test_elliptical_entropy_by_quadrature():
    """In the plane: H = −∫ p_r(r) log p(r) dr, with p(r) the density at radius r."""
    q = Elliptical(Gamma(torch.tensor(3.0, dtype=F64), torch.tensor(2.0, dtype=F64)), MU, A)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    r = torch.tensor(15 * (nodes + 1), dtype=F64)
    log_density = q.log_prob(MU + r[:, None] * A[:, 0])  # A⁻¹ A e₁ = e₁
    entropy = -(torch.tensor(15 * weights, dtype=F64) * q.radial.log_prob(r).exp() * log_density).sum()
    assert_close(q.entropy(), entropy, 1e-9)


def test_elliptical_without_moments():
    cauchy = torch.distributions.HalfCauchy(torch.tensor(1.0, dtype=F64))
    q = Elliptical(cauchy, MU, A)
    assert torch.isnan(q.mean).all()
    assert torch.isinf(q.variance).all()
    with pytest.raises(NotImplementedError, match="HalfCauchy"):
        q.entropy()


def test_elliptical_on_a_shell():
    q = Elliptical(Reciprocal(1.0, 2.0), torch.zeros(2), torch.eye(2))
    x = torch.tensor([[0.5, 0.0], [1.5, 0.0], [0.0, 2.5]])
    assert torch.isfinite(q.log_prob(x)).tolist() == [False, True, False]
    assert torch.isfinite(q.log_prob(q.sample((1000,)))).float().mean() > 0.99


def test_every_scalar_class_is_tried():
    assert {case.kind for case in CASES} == {Erlang, Gompertz, Logistic, Rayleigh, Reciprocal, Triangular}
