"""Entropies, cross entropies and divergences against quadrature and enumeration."""

import itertools
import math
import subprocess
import sys

import pytest
import torch
from exact_cases import DOUBLE, d
from scipy import integrate as scipy_integrate
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Binomial,
    Categorical,
    Distribution,
    Gamma,
    Geometric,
    Independent,
    Laplace,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    Uniform,
)

import vaetut
from vaetut import (
    Estimate,
    cross_entropy,
    entropy,
    kl_divergence,
    monte_carlo,
    monte_carlo_cross_entropy,
    monte_carlo_entropy,
    monte_carlo_kl,
)


def normal(loc: float, scale: float) -> Normal:
    return Normal(d(loc), d(scale))


def by_quadrature(f, q: Distribution, low: float, high: float, points=None) -> float:
    """E_q[f] by scipy's adaptive quadrature."""

    def integrand(z: float) -> float:
        return float(q.log_prob(d(z)).exp() * f(d(z)))

    return scipy_integrate.quad(integrand, low, high, epsabs=1e-12, epsrel=1e-12, limit=400, points=points)[0]


CONTINUOUS = {
    "normal": (normal(0.3, 0.7), -10.0, 10.0),
    "wide normal": (normal(-1.0, 2.0), -30.0, 30.0),
    "laplace": (Laplace(d(0.2), d(0.5)), -30.0, 30.0),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_entropy_is_the_integral(name):
    q, low, high = CONTINUOUS[name]
    points = [0.2] if name == "laplace" else None
    expected = by_quadrature(lambda z: -q.log_prob(z), q, low, high, points)
    assert entropy(q).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("first", "second"), list(itertools.product(["normal", "wide normal"], CONTINUOUS)))
def test_kl_and_cross_entropy_are_the_integrals(first, second):
    q, low, high = CONTINUOUS[first]
    p = CONTINUOUS[second][0]
    points = [0.2] if second == "laplace" else None
    cross = by_quadrature(lambda z: -p.log_prob(z), q, low, high, points)
    kl = by_quadrature(lambda z: q.log_prob(z) - p.log_prob(z), q, low, high, points)
    assert cross_entropy(q, p).item() == pytest.approx(cross, abs=1e-9)
    assert kl_divergence(q, p).item() == pytest.approx(kl, abs=1e-9)


def test_cross_entropy_of_gammas_falls_back_on_the_split():
    q, p = Gamma(d(2.5), d(1.5)), Gamma(d(1.2), d(0.7))
    expected = by_quadrature(lambda z: -p.log_prob(z), q, 1e-300, 60.0)
    assert cross_entropy(q, p).item() == pytest.approx(expected, abs=1e-9)


def random_gaussians() -> tuple[dict[str, Distribution], dict[str, MultivariateNormal]]:
    generator = torch.Generator().manual_seed(3)
    loc = torch.randn(2, 4, 3, dtype=DOUBLE, generator=generator)
    factor = torch.randn(2, 4, 3, 3, dtype=DOUBLE, generator=generator)
    scale = 0.3 + torch.rand(2, 4, 3, dtype=DOUBLE, generator=generator)
    full = MultivariateNormal(loc[0], factor[0] @ factor[0].mT + torch.eye(3, dtype=DOUBLE))
    full_2 = MultivariateNormal(loc[1], factor[1] @ factor[1].mT + torch.eye(3, dtype=DOUBLE))
    diagonal = Independent(Normal(loc[0], scale[0]), 1)
    diagonal_2 = Independent(Normal(loc[1], scale[1]), 1)
    dense = {
        "full": full,
        "full_2": full_2,
        "diagonal": MultivariateNormal(loc[0], torch.diag_embed(scale[0] ** 2)),
        "diagonal_2": MultivariateNormal(loc[1], torch.diag_embed(scale[1] ** 2)),
    }
    return {"full": full, "full_2": full_2, "diagonal": diagonal, "diagonal_2": diagonal_2}, dense


@pytest.mark.parametrize(
    ("first", "second"), list(itertools.permutations(["full", "full_2", "diagonal", "diagonal_2"], 2))
)
def test_multivariate_gaussians_diagonal_and_full(first, second):
    """Against the textbook formula with explicit inverses and determinants."""
    given, dense = random_gaussians()
    q, p = dense[first], dense[second]
    inverse = torch.linalg.inv(p.covariance_matrix)
    delta = q.mean - p.mean
    mahalanobis = torch.einsum("bi,bij,bj->b", delta, inverse, delta)
    trace = torch.einsum("bij,bji->b", inverse, q.covariance_matrix)
    log_det_q, log_det_p = torch.logdet(q.covariance_matrix), torch.logdet(p.covariance_matrix)
    kl = 0.5 * (trace + mahalanobis - 3 + log_det_p - log_det_q)
    cross = 0.5 * (trace + mahalanobis + log_det_p + 3 * math.log(2 * math.pi))
    torch.testing.assert_close(kl_divergence(given[first], given[second]), kl, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(cross_entropy(given[first], given[second]), cross, rtol=1e-10, atol=1e-10)


def test_diagonal_gaussian_against_the_standard_normal_is_appendix_b():
    mu, sigma = d([[0.5, -1.0], [2.0, 0.1]]), d([[0.2, 1.5], [1.0, 3.0]])
    q = Independent(Normal(mu, sigma), 1)
    p = Independent(Normal(torch.zeros(2, dtype=DOUBLE), torch.ones(2, dtype=DOUBLE)), 1)
    appendix_b = -0.5 * (1 + (sigma**2).log() - mu**2 - sigma**2).sum(-1)
    torch.testing.assert_close(kl_divergence(q, p), appendix_b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [Categorical, OneHotCategorical])
def test_categoricals_by_enumeration(kind):
    a, b = d([[0.1, 0.2, 0.7], [0.5, 0.5, 0.0]]), d([[0.3, 0.3, 0.4], [0.25, 0.5, 0.25]])
    expected = -(a * b.log()).sum(-1)
    torch.testing.assert_close(cross_entropy(kind(probs=a), kind(probs=b)), expected)
    # the other way round q puts mass 1/4 on what p calls impossible
    assert cross_entropy(kind(probs=b), kind(probs=a)).tolist()[1] == math.inf


def test_bernoullis_by_enumeration():
    a, b = d([0.0, 0.2, 1.0]), d([0.4, 0.9, 0.5])
    expected = -(a * b.log() + (1 - a) * (1 - b).log())
    torch.testing.assert_close(cross_entropy(Bernoulli(probs=a), Bernoulli(probs=b)), expected)


@pytest.mark.parametrize("q_shape, p_shape", [((5, 3), (3,)), ((3,), (5, 3)), ((5, 3), (1, 3))])
def test_batches_broadcast(q_shape, p_shape):
    q = Independent(Normal(torch.randn(q_shape, dtype=DOUBLE), d(0.5)), 1)
    p = Independent(Normal(torch.randn(p_shape, dtype=DOUBLE), d(1.5)), 1)
    assert cross_entropy(q, p).shape == kl_divergence(q, p).shape == (5,)
    torch.testing.assert_close(cross_entropy(q, p), (entropy(q) + kl_divergence(q, p)).expand(5))


def test_gradients_are_those_of_the_formula():
    def f(mu, log_sigma):
        q = Independent(Normal(mu, log_sigma.exp()), 1)
        p = MultivariateNormal(torch.zeros(2, dtype=DOUBLE), d([[1.0, 0.3], [0.3, 2.0]]))
        return cross_entropy(q, p), kl_divergence(q, p)

    assert torch.autograd.gradcheck(f, (d([0.3, -0.2]).requires_grad_(), d([0.1, -0.4]).requires_grad_()))


def test_what_has_no_closed_form_says_what_to_use():
    mixture = MixtureSameFamily(Categorical(logits=torch.zeros(2)), Normal(torch.tensor([-1.0, 1.0]), 1.0))
    with pytest.raises(NotImplementedError, match=r"MixtureSameFamily.*monte_carlo_entropy"):
        entropy(mixture)
    with pytest.raises(NotImplementedError, match=r"MixtureSameFamily.*Normal.*monte_carlo_kl"):
        kl_divergence(mixture, Normal(0.0, 1.0))
    with pytest.raises(NotImplementedError, match="monte_carlo_cross_entropy"):
        cross_entropy(mixture, Normal(0.0, 1.0))
    with pytest.raises(NotImplementedError, match=r"Independent\(Laplace\)"):
        kl_divergence(
            Independent(Laplace(torch.zeros(2), 1.0), 1), MultivariateNormal(torch.zeros(2), torch.eye(2))
        )


def test_importing_replaced_none_of_torchs_closed_forms():
    """In a process of its own: Pyro, which another test imports, replaces some too."""
    code = (
        "import torch, vaetut\n"
        "registry = torch.distributions.kl._KL_REGISTRY\n"
        "ours = [pair for pair, f in registry.items() if f.__module__.startswith('vaetut.information')]\n"
        "print(sorted((q.__name__, p.__name__) for q, p in ours))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    pair = ("Independent", "MultivariateNormal")
    assert done.stdout.strip() == str([pair, pair[::-1]])


# Monte Carlo: 1e5 draws, within five standard errors of the exact value.


def close(estimate: Estimate, exact: Tensor) -> bool:
    return bool(((estimate.value - exact).abs() < 5 * estimate.standard_error).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_monte_carlo_estimates_agree_with_the_exact_values(dtype):
    torch.manual_seed(0)
    q = Normal(torch.tensor([0.0, 1.0], dtype=dtype), torch.tensor([1.0, 0.3], dtype=dtype))
    p = Normal(torch.tensor(0.5, dtype=dtype), torch.tensor(2.0, dtype=dtype))
    n = 100_000
    for estimate, exact, wrong in [
        (monte_carlo_entropy(q, n), entropy(q), cross_entropy(q, p)),
        (monte_carlo_cross_entropy(q, p, n), cross_entropy(q, p), cross_entropy(p, q)),
        (monte_carlo_kl(q, p, n), kl_divergence(q, p), kl_divergence(p, q)),
        (monte_carlo(torch.square, q, n), q.mean**2 + q.variance, q.variance + q.mean**2 + 0.05),
    ]:
        assert estimate.value.dtype == dtype and estimate.value.shape == (2,)
        assert close(estimate, exact)
        assert not close(estimate, wrong), "n is too small to reject a wrong value"


def test_the_standard_error_is_the_standard_deviation_of_the_estimate():
    """4000 estimates of 50 samples: their spread, known to 1.1 %, against 2 / sqrt(50), the exact one."""
    torch.manual_seed(1)
    q = Normal(d(0.0).expand(4000), d(2.0))
    estimate = monte_carlo(lambda z: z, q, 50)
    exact = 2.0 / math.sqrt(50)
    assert estimate.value.std().item() == pytest.approx(exact, rel=5 * 0.0112)
    assert estimate.standard_error.mean().item() == pytest.approx(exact, rel=0.01)


def test_an_indicator_may_be_boolean():
    torch.manual_seed(0)
    disc = Independent(Uniform(d([-1.0, -1.0]), d([1.0, 1.0])), 1)
    estimate = monte_carlo(lambda z: z.square().sum(-1) < 1, disc, 100_000)
    assert close(estimate, d(math.pi / 4)) and estimate.value.dtype == DOUBLE


def test_one_sample_has_no_standard_error():
    estimate = monte_carlo(torch.square, normal(0.0, 1.0), 1)
    assert estimate.value.isfinite() and estimate.standard_error.isnan()


def test_the_estimate_is_differentiable_where_q_has_rsample():
    torch.manual_seed(0)
    scale = d(1.5).requires_grad_()
    monte_carlo(torch.square, Normal(d(0.0), scale), 100_000).value.backward()
    # d E[z^2] / d sigma = 2 sigma, with standard deviation 2 sigma sqrt(2) per sample
    assert abs(scale.grad.item() - 3.0) < 5 * 3.0 * math.sqrt(2 / 100_000)


def test_everything_is_importable_from_the_package():
    for name in ("entropy", "cross_entropy", "kl_divergence", "monte_carlo", "Estimate"):
        assert hasattr(vaetut, name)


# What is impossible has a probability of exactly 0; what is rounded to 0 is only unlikely.

LOGITS = [20.0, -20.0, 60.0, -110.0]


@pytest.mark.parametrize("logit", LOGITS)
@pytest.mark.parametrize("looked_at", [False, True], ids=["fresh", "probs computed"])
def test_bernoulli_whose_probability_rounds_to_one(logit, looked_at):
    """-(log p(0) + log p(1)) / 2 = |l|/2 + log(1 + e^-|l|), and its slope sigmoid(l) - 1/2."""
    logits = torch.tensor(logit, requires_grad=True)
    p, q = Bernoulli(logits=logits), Bernoulli(torch.tensor(0.5))
    if looked_at:
        _ = p.probs
    exact = abs(logit) / 2 + math.log1p(math.exp(-abs(logit)))
    for value, expected in ((cross_entropy(q, p), exact), (kl_divergence(q, p), exact - math.log(2))):
        assert value.item() == pytest.approx(expected, rel=1e-6)
        (slope,) = torch.autograd.grad(value, logits, retain_graph=True)
        assert slope.item() == pytest.approx(1 / (1 + math.exp(-logit)) - 0.5, abs=1e-6)
    assert kl_divergence(p.expand((2,)), q).isfinite().all()


@pytest.mark.parametrize("kind", [Categorical, OneHotCategorical])
@pytest.mark.parametrize("looked_at", [False, True], ids=["fresh", "probs computed"])
def test_categorical_with_a_tiny_probability(kind, looked_at):
    logits = torch.tensor([0.0, -110.0], requires_grad=True)
    p, q = kind(logits=logits), kind(torch.ones(2))
    if looked_at:
        _ = p.probs, p.expand((3,))
    value = cross_entropy(q, p)
    assert value.item() == pytest.approx(55.0)
    assert torch.autograd.grad(value, logits)[0].tolist() == pytest.approx([0.5, -0.5])
    assert kl_divergence(q, p).item() == pytest.approx(55.0 - math.log(2))
    impossible = kind(logits=torch.tensor([0.0, -math.inf]))
    assert cross_entropy(q, impossible) == kl_divergence(q, impossible) == math.inf
    assert kl_divergence(impossible, q).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("looked_at", [False, True], ids=["fresh", "logits computed"])
def test_a_probability_of_zero_that_was_given(looked_at):
    """Torch computes logits of -16 from it."""
    for p, q in [
        (Bernoulli(torch.tensor([0.0, 1.0])), Bernoulli(torch.tensor([0.5, 0.5]))),
        (Categorical(torch.tensor([1.0, 0.0])), Categorical(torch.ones(2))),
        (OneHotCategorical(torch.tensor([1.0, 0.0])), OneHotCategorical(torch.ones(2))),
        (Binomial(3, torch.tensor(0.0)), Binomial(3, torch.tensor(0.5))),
    ]:
        if looked_at:
            _ = p.logits
            p = p.expand((2, *p.batch_shape))
        assert (kl_divergence(q, p) == math.inf).all()
        assert (cross_entropy(q, p) == math.inf).all()
        assert kl_divergence(p, p).abs().max() == 0
        assert kl_divergence(p, q).isfinite().all()


def test_a_tiny_probability_that_was_given():
    """Torch's logits stop at 1.2e-7."""
    tiny = torch.tensor(1e-30)
    exact = -0.5 * math.log(1e-30)
    for p, q in [
        (Bernoulli(tiny), Bernoulli(torch.tensor(0.5))),
        (Categorical(torch.stack([1 - tiny, tiny])), Categorical(torch.ones(2))),
    ]:
        assert cross_entropy(q, p).item() == pytest.approx(exact)
        _ = p.logits
        assert cross_entropy(q, p.expand((1,))).item() == pytest.approx(exact)


def test_gradient_at_a_probability_of_zero():
    """0 log 0 = 0, and d/dq of -q log p is -log p where q is 0 too."""
    probs = d([0.0, 1.0]).requires_grad_()
    q = Bernoulli(probs)
    (slope,) = torch.autograd.grad(cross_entropy(q, Bernoulli(d(0.25))).sum(), probs)
    torch.testing.assert_close(slope, d([math.log(3.0)] * 2))
    for value in (kl_divergence(q, Bernoulli(d(0.25))), kl_divergence(Bernoulli(d(0.25)), q)):
        assert not torch.autograd.grad(value.sum(), probs, retain_graph=True)[0].isnan().any()


@pytest.mark.parametrize("logit", [-3.0, 0.4, 20.0])
def test_binomials_and_geometrics(logit):
    q, p = d(0.3), torch.sigmoid(d(logit))
    n = 5
    kl_coin = q * (q / p).log() + (1 - q) * ((1 - q).log() + torch.nn.functional.softplus(d(logit)))
    single = torch.tensor(logit)  # in float32 the probability of 20 rounds to 1
    given = Binomial(n, torch.tensor(0.3)), Binomial(n, logits=single)
    assert kl_divergence(*given).item() == pytest.approx(n * kl_coin.item(), rel=1e-5)
    entropy_of_q = Binomial(n, q).entropy().item()
    assert cross_entropy(*given).item() == pytest.approx(entropy_of_q + n * kl_coin.item(), rel=1e-5)
    geometric = Geometric(torch.tensor(0.3)), Geometric(logits=single)
    expected = kl_coin / q  # one coin a trial, 1/q trials
    assert kl_divergence(*geometric).item() == pytest.approx(expected.item(), rel=1e-5)
    assert cross_entropy(*geometric).item() == pytest.approx(
        (expected + Geometric(q).entropy()).item(), rel=1e-5
    )
    with pytest.raises(NotImplementedError):
        kl_divergence(Binomial(2, d(0.3)), Binomial(5, d(0.3)))


class Folded(Normal):
    """A subclass with a density of its own, |x|."""

    def log_prob(self, value):
        return torch.logaddexp(super().log_prob(value), super().log_prob(-value))


class Same(Normal):
    """A subclass with the density of its base."""


def test_a_subclass_with_its_own_density_is_not_its_base():
    zero, one = d(0.0), d(1.0)
    mine, base = Folded(zero, one), Normal(zero, one)
    with pytest.raises(NotImplementedError, match=r"log_prob of Folded.*Normal.*monte_carlo_entropy"):
        entropy(mine)
    for pair in ((mine, base), (base, mine), (mine, mine)):
        with pytest.raises(NotImplementedError, match=r"log_prob of Folded.*monte_carlo_kl"):
            kl_divergence(*pair)
        with pytest.raises(NotImplementedError, match=r"monte_carlo_cross_entropy"):
            cross_entropy(*pair)
        with pytest.raises(NotImplementedError):
            kl_divergence(*(Independent(side.expand((2,)), 1) for side in pair))
    with pytest.raises(NotImplementedError, match="monte_carlo"):
        vaetut.expectation(lambda z: z[..., 0], Independent(mine.expand((1,)), 1))
    assert entropy(Same(zero, one)) == entropy(base)
    assert cross_entropy(Same(zero, one), base) == cross_entropy(base, base)
    assert kl_divergence(Same(zero, one), base) == 0


def test_classes_of_torch_and_ours_keep_their_closed_forms():
    """The rule above refuses none of them."""
    positive = [
        Gamma(d(2.0), d(1.0)),
        torch.distributions.Chi2(d(3.0)),
        vaetut.distributions.Erlang(3, d(1.0)),
    ]
    for q in [
        *positive,
        torch.distributions.Weibull(d(1.0), d(2.0)),
        torch.distributions.HalfNormal(d(1.0)),
        torch.distributions.LogNormal(d(1.0), d(2.0)),
        torch.distributions.Gumbel(d(1.0), d(2.0)),
        torch.distributions.Beta(d(1.0), d(2.0)),
        torch.distributions.Dirichlet(d([1.0, 2.0])),
        torch.distributions.LowRankMultivariateNormal(d([0.0, 0.0]), d([[1.0], [1.0]]), d([1.0, 1.0])),
        torch.distributions.Exponential(d(1.0)),
        Laplace(d(0.0), d(1.0)),
        Uniform(d(0.0), d(1.0)),
    ]:
        assert entropy(q).isfinite()
        assert kl_divergence(q, q).abs() < 1e-9
    assert kl_divergence(positive[2], torch.distributions.Exponential(d(1.0))).isfinite()
    assert kl_divergence(torch.distributions.Poisson(d(2.0)), torch.distributions.Poisson(d(3.0))).isfinite()


def test_divergence_of_mixtures_and_its_gradient():
    """By quadrature; the gradient, of which a mixture's draws have none, by the scores."""
    logits, loc = d([0.3, -0.2]).requires_grad_(), d([-1.0, 1.5]).requires_grad_()

    def mixture(logits, loc):
        return MixtureSameFamily(Categorical(logits=logits), Normal(loc, d(0.7)))

    p = MixtureSameFamily(Categorical(logits=d([0.0, 0.0, 0.0])), Normal(d([-2.0, 0.0, 2.0]), d(1.0)))
    grid = torch.linspace(-12, 12, 6001, dtype=DOUBLE)
    log_q = mixture(logits, loc).log_prob(grid)
    exact = torch.trapezoid(log_q.exp() * (log_q - p.log_prob(grid)), grid)
    wanted = torch.autograd.grad(exact, (logits, loc))
    torch.manual_seed(0)
    repeats = 40
    slopes, estimates = [], []
    for _ in range(repeats):
        estimate = monte_carlo_kl(mixture(logits, loc), p, 2000)
        estimates.append(estimate)
        slopes.append(torch.cat(torch.autograd.grad(estimate.value, (logits, loc))))
    assert close(estimates[0], exact.detach())
    slopes = torch.stack(slopes)
    error = slopes.std(0) / math.sqrt(repeats)
    assert ((slopes.mean(0) - torch.cat(wanted)).abs() < 5 * error).all()
    assert (torch.cat(wanted).abs() > 10 * error).any(), "n is too small to see a missing gradient"


def test_gradient_under_a_discrete_q_for_any_shape_of_f():
    """E[f] of two coins together: f depends on both, so that the score of the whole batch counts."""
    logits = d([0.2, -0.5]).requires_grad_()
    p = torch.sigmoid(logits)
    wanted = torch.autograd.grad(p.prod(), logits)[0]
    torch.manual_seed(0)
    slopes = torch.stack(
        [
            torch.autograd.grad(
                monte_carlo(lambda z: z.prod(-1), Bernoulli(logits=logits), 500).value, logits
            )[0]
            for _ in range(100)
        ]
    )
    assert ((slopes.mean(0) - wanted).abs() < 5 * slopes.std(0) / 10).all()
    with torch.no_grad():
        assert not monte_carlo(lambda z: z.prod(-1), Bernoulli(logits=logits), 5).value.requires_grad


def test_a_support_that_moves_has_a_value_but_no_gradient():
    """The score lacks the term at the end; for fixed ends, or through the map, all is right."""
    ends = torch.tensor([0.0, 1.0], requires_grad=True)
    weights = Categorical(torch.ones(2))
    for q in (
        MixtureSameFamily(weights, Uniform(ends, 3.0)),
        Independent(MixtureSameFamily(Categorical(torch.ones(3, 2)), Uniform(ends, 3.0).expand([3, 2])), 1),
    ):
        value, _ = monte_carlo(lambda z: z.reshape(1000, -1).sum(-1), q, 1000)
        assert value.isfinite()
        with pytest.raises(ValueError, match=r"the end that moves; use vaetut\.pathwise"):
            value.backward()
