"""What is drawn has the distribution that it should have, and a wrong one would be noticed."""

import math

import pytest
import torch
from distribution_cases import F64, assert_close, every_case
from scipy import stats
from torch.distributions import Gamma, Uniform

from vaetut.distributions import Elliptical, Erlang, Gompertz, MultivariateStudentT, Rayleigh, Triangular

N = 100_000


def p_value(draws, cdf):
    """Of the Kolmogorov–Smirnov test."""
    return stats.kstest(draws.numpy(), cdf).pvalue


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=["float32", "float64"])
def test_draws_follow_the_cdf(case, dtype):
    draws = case.make(dtype).sample((N,))
    assert draws.dtype == dtype
    assert p_value(draws.double(), case.reference().cdf) > 1e-6


@pytest.mark.parametrize("k", [1, 3, 8, 9, 40])
def test_erlang_by_exponentials_and_by_the_gamma_sampler(k):
    """An int k up to 8 is summed from exponentials; a tensor, or a larger int, uses torch's sampler."""
    reference = stats.gamma(k, scale=0.5).cdf
    assert p_value(Erlang(k, torch.tensor(2.0, dtype=F64)).sample((N,)), reference) > 1e-6
    assert p_value(Erlang(torch.tensor(k), torch.tensor(2.0, dtype=F64)).sample((N,)), reference) > 1e-6


def test_small_mistakes_are_noticed():
    """The power of the tests above at this n: each of these differs a little from what it is compared with."""
    one = torch.tensor(1.0, dtype=F64)
    assert p_value(Rayleigh(1.02 * one).sample((N,)), stats.rayleigh.cdf) < 1e-6
    assert p_value(Triangular(0 * one, one, 0.52 * one).sample((N,)), stats.triang(0.5).cdf) < 1e-6
    assert p_value(Gompertz(1.03 * one, one).sample((N,)), stats.gompertz(1.0).cdf) < 1e-6
    assert p_value(Erlang(3, 1.02 * one).sample((N,)), stats.gamma(3).cdf) < 1e-6


A = torch.tensor([[1.0, 0.0, 0.0], [0.5, 2.0, 0.0], [-0.3, 0.2, 0.7]], dtype=F64)
MU = torch.tensor([1.0, -2.0, 0.5], dtype=F64)


@pytest.mark.parametrize("df", [0.8, 3.0, 40.0])
def test_student_t_draws(df):
    """Every projection of a multivariate t is a univariate t; |A⁻¹(z − μ)|²/d follows the F distribution."""
    z = MultivariateStudentT(torch.tensor(df, dtype=F64), MU, A).sample((N,))
    direction = torch.tensor([0.3, -1.0, 0.7], dtype=F64)
    scale = torch.linalg.vector_norm(A.mT @ direction)
    assert p_value((z - MU) @ direction / scale, stats.t(df).cdf) > 1e-6
    y = torch.linalg.solve_triangular(A, (z - MU).mT, upper=False)
    assert p_value(y.square().sum(0) / 3, stats.f(3, df).cdf) > 1e-6


@pytest.mark.parametrize("d", [1, 2, 3, 7])
def test_elliptical_draws(d):
    """The radius follows the radial distribution, and the first coordinate of the direction is as it must be."""
    loc, scale = (
        torch.arange(d, dtype=F64),
        torch.eye(d, dtype=F64) + 0.3 * torch.ones(d, d, dtype=F64).tril(-1),
    )
    z = Elliptical(Gamma(torch.tensor(3.0, dtype=F64), 2.0), loc, scale).sample((N,))
    y = torch.linalg.solve_triangular(scale, (z - loc).mT, upper=False)
    radius = torch.linalg.vector_norm(y, dim=0)
    assert p_value(radius, stats.gamma(3, scale=0.5).cdf) > 1e-6
    first = y[0] / radius
    if d == 1:
        assert abs(float(first.mean())) < 5 / math.sqrt(N)
    else:  # (1 + u₁)/2 ~ Beta((d − 1)/2, (d − 1)/2)
        assert p_value((1 + first) / 2, stats.beta((d - 1) / 2, (d - 1) / 2).cdf) > 1e-6
        assert abs(float((first * radius).mean())) < 5 * float(radius.std() + radius.mean()) / math.sqrt(N)


def test_covariance_of_the_draws():
    for q in (
        MultivariateStudentT(torch.tensor(9.0, dtype=F64), MU, A),
        Elliptical(Uniform(torch.tensor(0.0, dtype=F64), 2.0), MU, A),
        Elliptical(Rayleigh(torch.tensor(1.0, dtype=F64)), MU[:2], A[:2, :2]),
    ):
        z = q.sample((N,)) - q.mean
        products = z.unsqueeze(-1) * z.unsqueeze(-2)
        error = products.std(0) / math.sqrt(N)
        assert ((products.mean(0) - q.covariance_matrix).abs() < 5 * error).all()
        assert_close(q.covariance_matrix.diagonal(), q.variance, 1e-14)


def test_uniform_in_an_ellipse():
    """r = √u makes the mass uniform in the disc: a bounded radial, whose end rounding must not step over."""
    radial = torch.distributions.Kumaraswamy(torch.tensor(2.0), torch.tensor(1.0))
    q = Elliptical(radial, torch.zeros(2), torch.eye(2))
    log_prob = q.log_prob(q.sample((N,)))
    inside = torch.isfinite(log_prob)
    assert inside.float().mean() > 0.999
    assert_close(log_prob[inside], -math.log(math.pi), 1e-3)


def test_draws_of_a_batch_are_independent():
    """No noise is shared between the members of a batch."""
    for q in (
        Rayleigh(torch.ones(2, dtype=F64)),
        Erlang(2, torch.ones(2, dtype=F64)),
        Erlang(torch.tensor([2, 3]), torch.ones(2, dtype=F64)),
    ):
        z = q.sample((N,))
        assert abs(float(torch.corrcoef(z.mT)[0, 1])) < 5 / math.sqrt(N)
    radial = Rayleigh(torch.tensor(1.0, dtype=F64))  # one radius for each member, not one for all
    z = Elliptical(radial, torch.zeros(2, 2, dtype=F64), torch.eye(2, dtype=F64)).sample((N,))
    length = torch.linalg.vector_norm(z, dim=-1)
    assert abs(float(torch.corrcoef(length.mT)[0, 1])) < 5 / math.sqrt(N)


def test_the_global_generator_decides():
    for case in (Rayleigh(1.0), Erlang(2, 1.0), Elliptical(Rayleigh(1.0), torch.zeros(2), torch.eye(2))):
        torch.manual_seed(3)
        first = case.sample((4,))
        torch.manual_seed(3)
        assert torch.equal(case.rsample((4,)), first)
        assert not torch.equal(case.sample((4,)), first)
