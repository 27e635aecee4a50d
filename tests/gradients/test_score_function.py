"""The score-function estimator: its baselines, and discrete families by enumeration."""

import numpy as np
import pytest
import scipy.special as sp
import torch
from estimator_cases import (
    COSTS,
    GAUSS,
    MU,
    SIGMA,
    K,
    N,
    check,
    exact,
    measured,
    moments,
)
from torch.distributions import (
    Bernoulli,
    Categorical,
    Independent,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    Poisson,
)

from vaetut.gradients import gradient_statistics, score_function

# Baselines


def exact_leave_one_out(cost, draws):
    """The estimate is the sample covariance of f and the score, whose variance is known: mean, and variance by draw."""
    f = COSTS[cost][0]
    e, p = (a[:, None] for a in GAUSS)
    value = f(MU + SIGMA * e, K, np)
    value = value - (p * value).sum(0)
    for score in (e / SIGMA, (e**2 - 1) / SIGMA):
        both, own, of_score = ((p * a).sum(0) for a in ((value * score) ** 2, value**2, score**2))
        mean = (p * value * score).sum(0)
        yield mean, both - (draws - 2) / (draws - 1) * mean**2 + own * of_score / (draws - 1)


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
@pytest.mark.parametrize("draws", [2, 10])
@pytest.mark.parametrize("cost", ["square", "cosine"])
def test_leave_one_out_is_exact(baseline, draws, cost):
    found = measured(score_function, cost, 2 * N, samples_per_estimate=draws, baseline=baseline)
    for part, (mean, variance) in zip(found, exact_leave_one_out(cost, draws), strict=True):
        assert ((part.mean - torch.from_numpy(mean)) / part.standard_error).abs().max() < 5
        off = (part.variance - torch.from_numpy(variance)) / part.variance_standard_error
        assert off.abs().max() < 5


def plain_mean(f, q, num_samples):
    z = q.sample((num_samples,))
    log_q = q.log_prob(z)
    return f(z) + (f(z) - f(z).mean(0)).detach() * (log_q - log_q.detach())


def test_the_plain_mean_as_a_baseline_is_biased():
    """By (L - 1) / L, which is why the package corrects it: and the bias is caught at this n."""
    draws = 10
    found = measured(plain_mean, "square", 2 * N, samples_per_estimate=draws)
    for part, (mean, _) in zip(found, exact_leave_one_out("square", draws), strict=True):
        mean = torch.from_numpy(mean)
        assert ((part.mean - mean) / part.standard_error).abs().max() > 5
        assert ((part.mean - (draws - 1) / draws * mean) / part.standard_error).abs().max() < 5


@pytest.mark.parametrize("draws", [2, 5])
def test_optimal_baseline_is_unbiased(draws):
    found = measured(score_function, "cosine", 2 * N, samples_per_estimate=draws, baseline="optimal")
    for part, (truth, _, _) in zip(found, exact("score", "cosine"), strict=True):
        assert ((part.mean - torch.from_numpy(truth)) / part.standard_error).abs().max() < 5


def test_optimal_baseline_is_optimal():
    """With many draws the variance is that of the best constant, which differs between loc and scale."""
    f = COSTS["square"][0]
    e, p = (a[:, None] for a in GAUSS)
    value = f(MU + SIGMA * e, K, np)
    found = measured(score_function, "square", 500_000, samples_per_estimate=1000, baseline="optimal")
    plain = measured(score_function, "square", 500_000, samples_per_estimate=1000, baseline="leave_one_out")
    for part, other, score in zip(found, plain, (e / SIGMA, (e**2 - 1) / SIGMA), strict=True):
        best = (p * value * score**2).sum(0) / (p * score**2).sum(0)
        _, variance, _ = moments((value - best) * score, p)
        off = (part.variance - torch.from_numpy(variance)) / part.variance_standard_error
        assert off.abs().max() < 5
        assert part.variance.sum() < 0.95 * other.variance.sum()


@pytest.mark.parametrize("baseline", ["leave_one_out", "optimal"])
def test_baselines_by_hand(baseline):
    """On given draws the surrogate's gradient is what a loop over the other draws makes it."""
    drawn = []

    def f(z):
        drawn.append(z.detach())
        return (z**3).sum(-1)

    loc = torch.tensor([[0.3, -1.0], [0.5, 0.0]], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([0.8, 1.3], dtype=torch.float64, requires_grad=True)
    surrogate = score_function(f, Independent(Normal(loc, scale), 1), 5, baseline)
    gradient = torch.autograd.grad(surrogate.sum(), (loc, scale))

    (z,) = drawn
    value = (z**3).sum(-1)
    torch.testing.assert_close(surrogate.detach(), value, rtol=0, atol=0)
    e = (z - loc.detach()) / scale.detach()
    scores = (e / scale.detach(), (e**2 - 1) / scale.detach())
    by_hand = []
    for score in scores:
        total = torch.zeros(2, 2, dtype=torch.float64)
        for i in range(5):
            rest = [j for j in range(5) if j != i]
            weight = score[rest] ** 2 if baseline == "optimal" else torch.ones_like(score[rest])
            b = (value[rest].unsqueeze(-1) * weight).sum(0) / weight.sum(0)
            total += (value[i].unsqueeze(-1) - b) * score[i]
        by_hand.append(total)
    torch.testing.assert_close(gradient[0], by_hand[0])
    torch.testing.assert_close(gradient[1], by_hand[1].sum(0))


def test_optimal_baseline_survives_draws_without_a_score():
    """Where the other draw stands on the mean, its score is 0; and a total less a large row has no digits left."""
    loc = torch.zeros((), requires_grad=True)

    class Fixed(Normal):
        def sample(self, sample_shape=()):
            return draws

    for draws in (torch.tensor([0.0, 2.0]), torch.tensor([1e-5, 2.0]), torch.tensor([1e-30, 1e10])):
        surrogate = score_function(lambda z: z + 3, Fixed(loc, 1.0), 2, "optimal")
        (gradient,) = torch.autograd.grad(surrogate.sum(), loc)
        by_hand = draws[1] ** 2 - draws[0] * draws[1]  # (f - f') s of each, where b is f of the other
        by_hand = by_hand if draws[0] ** 2 > 0 else draws[1] * (draws[1] + 3)
        torch.testing.assert_close(gradient, by_hand, rtol=1e-4, atol=0)


def test_optimal_baseline_of_a_full_gaussian():
    """Cholesky factor and all: E[z₁ z₂] = μ₁ μ₂ + Σ₁₂, with Σ = A Aᵀ."""
    loc = torch.tensor([0.5, -1.0], dtype=torch.float64)
    tril = torch.tensor([[1.2, 0.0], [0.6, 0.5]], dtype=torch.float64)
    params = {"loc": loc, "scale_tril": tril}
    options = {"samples_per_estimate": 10, "baseline": "optimal"}
    found = gradient_statistics(
        score_function, lambda z: z.prod(-1), MultivariateNormal, params, N, **options
    )
    for part, truth in (
        (found["loc"], [-1.0, 0.5]),
        (found["scale_tril"], [[0.6, 0.0], [1.2, 0.0]]),
    ):
        off = (part.mean - torch.tensor(truth, dtype=torch.float64)) / part.standard_error.clamp_min(1e-12)
        assert off.abs().max() < 5


# Discrete families


TABLE = torch.tensor([1.0, -2.0, 0.5, 4.0], dtype=torch.float64)
LOGITS = torch.tensor([0.2, -0.4, 1.0, 0.0], dtype=torch.float64)


def enumerate_score(q, params, f):
    """Mean and variance of f times the score, over all values of a discrete z."""
    z = q.enumerate_support()
    p, rows = q.log_prob(z).exp().detach(), []
    for value in z:
        rows.append(torch.stack(torch.autograd.grad(q.log_prob(value), params, retain_graph=True)) * f(value))
    rows, p = torch.stack(rows), p.reshape(-1, 1, 1)
    mean = (p * rows).sum(0)
    return mean[0], (p * (rows - mean) ** 2).sum(0)[0]


@pytest.mark.parametrize("parameter", ["logits", "probs"])
@pytest.mark.parametrize("family", [Categorical, OneHotCategorical])
def test_categorical_by_enumeration(family, parameter):
    value = LOGITS if parameter == "logits" else LOGITS.softmax(-1)
    f = (lambda z: TABLE[z]) if family is Categorical else (lambda z: z @ TABLE)
    leaf = value.clone().requires_grad_()
    mean, variance = enumerate_score(family(**{parameter: leaf}), [leaf], f)
    check(gradient_statistics(score_function, f, family, {parameter: value}, N)[parameter], mean, variance)
    for baseline in ("leave_one_out", "optimal"):
        for draws in (2, 100):
            options = {"samples_per_estimate": draws, "baseline": baseline}
            found = gradient_statistics(score_function, f, family, {parameter: value}, N, **options)[
                parameter
            ]
            assert ((found.mean - mean) / found.standard_error).abs().max() < 5
        assert found.variance.sum() < variance.sum() or parameter == "probs"


@pytest.mark.parametrize("parameter", ["logits", "probs"])
def test_bernoulli_by_enumeration(parameter):
    value = torch.tensor([0.3], dtype=torch.float64)
    leaf = value.clone().requires_grad_()
    f = lambda z: (z - 0.2) ** 2  # noqa: E731
    q = Bernoulli(**{parameter: leaf})
    mean, variance = enumerate_score(q, [leaf], f)
    check(gradient_statistics(score_function, f, Bernoulli, {parameter: value}, N)[parameter], mean, variance)
    q.logits, q.probs  # torch keeps both from now on; the optimal baseline must not count them twice  # noqa: B018
    drawn = score_function(f, q, N, "optimal")
    (gradient,) = torch.autograd.grad(drawn.mean(0).sum(), leaf)
    assert (gradient - mean).abs() < 5 * (variance / N).sqrt()


def test_poisson_and_a_vector_of_bernoullis():
    rate = torch.tensor(2.0, dtype=torch.float64)
    found = gradient_statistics(score_function, torch.square, Poisson, {"rate": rate}, N)["rate"]
    k = np.arange(60)
    p = np.exp(k * np.log(2) - 2 - sp.gammaln(k + 1))
    mean, variance, _ = moments(k**2 * (k / 2 - 1), p)
    assert abs(mean - 5) < 1e-9
    check(found, mean, variance)

    def family(probs):
        return Independent(Bernoulli(probs), 1)

    probs = torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64)
    found = gradient_statistics(score_function, lambda z: z.prod(-1), family, {"probs": probs}, N)["probs"]
    assert ((found.mean - probs.prod() / probs) / found.standard_error).abs().max() < 5


# Twice


@pytest.mark.parametrize("options", [{}, {"baseline": "leave_one_out"}, {"baseline": "optimal"}])
def test_score_function_may_be_differentiated_twice(options):
    """E[z³] = μ³ + 3 μ has the second derivative 6 μ."""
    mu = torch.tensor(0.5, dtype=torch.float64).requires_grad_()
    copies = mu.expand(20_000)
    surrogate = score_function(lambda z: z**3, Normal(copies, 1.0), 10, **options).mean(0)
    (first,) = torch.autograd.grad(surrogate.sum(), copies, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), copies)
    assert abs(second.mean() - 3) < 5 * second.std() / len(second) ** 0.5
