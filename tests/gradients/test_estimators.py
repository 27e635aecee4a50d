"""The estimators against exact means and variances: by quadrature, and for discrete families by enumeration."""

import math

import numpy as np
import pytest
import scipy.special as sp
import torch
from torch.distributions import (
    Bernoulli,
    Categorical,
    Gamma,
    Independent,
    Laplace,
    LogNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    Pareto,
    Poisson,
    Uniform,
)

from vaetut.gradients import gradient_statistics, measure_valued, pathwise, score_function

N = 100_000
ROOT = math.sqrt(2 * math.pi)

# Quadrature: nodes and probabilities of each noise that an estimator draws


def rule(density, low, high, points=200):
    nodes, weights = np.polynomial.legendre.leggauss(points)
    nodes = (nodes + 1) / 2 * (high - low) + low
    return nodes, weights * (high - low) / 2 * density(nodes)


GAUSS = rule(lambda e: np.exp(-(e**2) / 2) / ROOT, -13, 13)
RAYLEIGH = rule(lambda w: w * np.exp(-(w**2) / 2), 0, 13)
MAXWELL = rule(lambda m: m**2 * np.exp(-(m**2) / 2) / ROOT, -13, 13)
UNIFORM = rule(np.ones_like, 0, 1, 80)


def product(first, second):
    a, b = (g[..., None] for g in np.meshgrid(first[0], second[0], indexing="ij"))
    return a.reshape(-1, 1), b.reshape(-1, 1), np.outer(first[1], second[1]).reshape(-1, 1)


def moments(value, probability):
    """Mean, variance and fourth central moment over the nodes (the first axis)."""
    mean = (probability * value).sum(0)
    variance, fourth = ((probability * (value - mean) ** k).sum(0) for k in (2, 4))
    return mean, variance, fourth


# The grid: every cost at every mean, scale and k. Each cost has its derivative beside it.

MU, SIGMA, K = (a.reshape(-1) for a in np.meshgrid([-0.5, 1.0], [0.5, 1.5], [0.25, 1.0, 4.0], indexing="ij"))
COSTS = {
    "square": (lambda z, k, m: (z - k) ** 2, lambda z, k, m: 2 * (z - k)),
    "cubic": (lambda z, k, m: z**3 - k * z, lambda z, k, m: 3 * z**2 - k),
    # the exponent is tamed, so that the fourth moment of an estimator is no rare event's
    "exponential": (lambda z, k, m: m.exp(-0.1 * k * z), lambda z, k, m: -0.1 * k * m.exp(-0.1 * k * z)),
    "cosine": (lambda z, k, m: m.cos(k * z), lambda z, k, m: -k * m.sin(k * z)),
}


def exact(name, cost):
    """Moments of the gradients in loc and in scale of one draw, from the formulas and not from the package."""
    f, slope = (lambda z, g=g: g(z, K, np) for g in COSTS[cost])
    e, p = (a[:, None] for a in GAUSS)
    z = MU + SIGMA * e
    if name == "score":
        return moments(f(z) * e / SIGMA, p), moments(f(z) * (e**2 - 1) / SIGMA, p)
    if name == "pathwise":
        return moments(slope(z), p), moments(slope(z) * e, p)
    if name == "measure, coupled":
        w, pw = (a[:, None] for a in RAYLEIGH)
        loc = moments((f(MU + SIGMA * w) - f(MU - SIGMA * w)) / (SIGMA * ROOT), pw)
        # another coupling of the same law: a Maxwell number times a uniform one is Gaussian
        m, u, pm = product(MAXWELL, UNIFORM)
        return loc, moments((f(MU + SIGMA * m) - f(MU + SIGMA * m * u)) / SIGMA, pm)
    plus, minus, pw = product(RAYLEIGH, RAYLEIGH)
    loc = moments((f(MU + SIGMA * plus) - f(MU - SIGMA * minus)) / (SIGMA * ROOT), pw)
    m, e, pm = product(MAXWELL, GAUSS)
    return loc, moments((f(MU + SIGMA * m) - f(MU + SIGMA * e)) / SIGMA, pm)


ESTIMATORS = {
    "score": (score_function, {}),
    "pathwise": (pathwise, {}),
    "measure, coupled": (measure_valued, {}),
    "measure, uncoupled": (measure_valued, {"coupled": False}),
}


def measured(estimator, cost, n=N, **options):
    f, k = COSTS[cost][0], torch.from_numpy(K)
    params = {"loc": torch.from_numpy(MU), "scale": torch.from_numpy(SIGMA)}
    found = gradient_statistics(estimator, lambda z: f(z, k, torch), Normal, params, n, **options)
    return found["loc"], found["scale"]


def z_scores(found, moments, n=N):
    """Mean and variance in exact standard errors, which no outlier of this run can blow up."""
    mean, variance, fourth = (torch.from_numpy(np.asarray(a, dtype=float)) for a in moments)
    error = (variance / n).sqrt().clamp_min(1e-12)
    error_of_variance = ((fourth - variance**2) / n).sqrt().clamp_min(1e-12)
    return (found.mean - mean) / error, (found.variance - variance) / error_of_variance


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_mean_and_variance_are_exact(name, cost):
    estimator, options = ESTIMATORS[name]
    for found, truth in zip(measured(estimator, cost, **options), exact(name, cost), strict=True):
        for z in z_scores(found, truth):
            assert z.abs().max() < 5, z


@pytest.mark.parametrize("cost", COSTS)
def test_the_exact_means_agree(cost):
    """Whatever the estimator, the mean is the gradient: the quadrature itself is right to the last digits."""
    first, *others = (exact(name, cost) for name in ESTIMATORS)
    for other in others:
        for (mean, _, _), (truth, _, _) in zip(other, first, strict=True):
            np.testing.assert_allclose(mean, truth, rtol=1e-9, atol=1e-9)


def shrunken_score(f, q, num_samples):
    """Biased by one part in twenty."""
    z = q.sample((num_samples,))
    log_q = q.log_prob(z)
    return f(z) + 0.95 * f(z) * (log_q - log_q.detach())


def noisier_pathwise(f, q, num_samples):
    """Unbiased, with a twentieth more standard deviation from another source of noise."""
    z = q.rsample((num_samples,))
    slope = torch.autograd.grad(f(z).sum(), z, create_graph=True)[0].detach()
    return f(z) + (0.32 * slope * torch.randn_like(z)).detach() * (q.loc - q.loc.detach())


def test_mistakes_are_caught_at_the_same_n():
    """A bias of 5 %, and a variance that is 10 % too large with the right mean."""
    found, _ = measured(shrunken_score, "square")
    mean, _ = z_scores(found, exact("score", "square")[0])
    assert mean.abs().max() > 5
    found, _ = measured(noisier_pathwise, "square")
    mean, variance = z_scores(found, exact("pathwise", "square")[0])
    assert mean.abs().max() < 5 and variance.abs().max() > 5


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


# Other families


def check(found, mean, variance):
    mean, variance = (torch.as_tensor(np.asarray(a)) for a in (mean, variance))
    assert ((found.mean - mean) / found.standard_error).abs().max() < 5
    assert ((found.variance - variance) / found.variance_standard_error).abs().max() < 5


def test_gamma_pathwise():
    """The implicit gradient in the shape, with f = log² z: its moments by quadrature over z."""
    a = np.array([0.7, 2.5])
    s = np.linspace(-60, 5, 4_001)[:, None]  # z = e^s
    z = np.exp(s)
    density = np.exp(a * s - z - sp.gammaln(a)) * (s[1] - s[0])
    h = 1e-5
    dF = (sp.gammainc(a + h, z) - sp.gammainc(a - h, z)) / (2 * h)
    upper = -(sp.gammaincc(a + h, z) - sp.gammaincc(a - h, z)) / (2 * h)
    dF = np.where(z > a, upper, dF)  # differences of small numbers, not of numbers near one
    with np.errstate(all="ignore"):
        dz = -dF / np.exp((a - 1) * s - z - sp.gammaln(a))
        value = np.nan_to_num(2 * s / z * dz)
    value[density < 1e-200] = 0
    keep = (s > -25)[:, 0]  # further out, dz/z is 1/a² to the last digit, and the density has no weight
    mean, variance, _ = moments(value[keep], density[keep])
    truth = sp.polygamma(2, a) + 2 * sp.digamma(a) * sp.polygamma(1, a)  # of ψ'(a) + ψ(a)²
    np.testing.assert_allclose(mean, truth, rtol=1e-4)
    # in float32 the package takes torch's own gradient, which is fast; in float64 an exact quadrature
    params = {"concentration": torch.from_numpy(a).float(), "rate": torch.ones(2)}
    found = gradient_statistics(pathwise, lambda z: z.log() ** 2, Gamma, params, N)
    check(found["concentration"], truth, variance)
    check(found["rate"], -2 * sp.digamma(a), 4 * sp.polygamma(1, a))  # f' z = 2 log z


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


# Measure-valued gradients of vectors


@pytest.mark.parametrize("coupled", [True, False])
def test_measure_valued_for_a_vector(coupled):
    """With f = z₁ z₂ by hand; the third coordinate enters nowhere, and has the gradient 0 in every draw if coupled."""
    mu = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    sigma = torch.tensor([0.8, 1.5, 0.3], dtype=torch.float64)

    def family(loc, scale):
        return Independent(Normal(loc, scale), 1)

    def f(z):
        return z[..., 0] * z[..., 1]

    params = {"loc": mu, "scale": sigma}
    found = gradient_statistics(measure_valued, f, family, params, N, coupled=coupled)
    truth = torch.tensor([-1.0, 0.5, 0.0], dtype=torch.float64)
    assert ((found["loc"].mean - truth) / found["loc"].standard_error.clamp_min(1e-12)).abs().max() < 5
    assert ((found["scale"].mean) / found["scale"].standard_error.clamp_min(1e-12)).abs().max() < 5
    assert (found["loc"].mean[2], found["loc"].variance[2], found["scale"].variance[2]) == (0, 0, 0)
    if coupled:
        # 2 w z₂ / √(2π) with E[w²] = 2; and (m - ε) z₂ with E[(m - ε)²] = 3 + 1 - 2 E[m² u] = 1
        second = (mu**2 + sigma**2)[[1, 0]]
        off = found["loc"].variance[:2] - (4 / math.pi * second - truth[:2] ** 2)
        assert (off / found["loc"].variance_standard_error[:2]).abs().max() < 5
        off = found["scale"].variance[:2] - second
        assert (off / found["scale"].variance_standard_error[:2]).abs().max() < 5


def test_measure_valued_counts_its_evaluations():
    calls = []

    def f(z):
        calls.append(len(z))
        return z.square().sum((-2, -1))

    loc = torch.zeros(4, 2, 3, requires_grad=True)
    scale = torch.ones(2, 3, requires_grad=True)
    for q, factor in (
        (Normal(loc, 1.0), 12),
        (Normal(0.0, scale), 6),
        (Normal(loc, scale), 18),
    ):
        calls.clear()
        assert measure_valued(f, Independent(q, 2), 7).shape == (7, *q.batch_shape[:-2])
        assert calls == [7, factor * 7]


# Surrogates


CASES = [(score_function, {}), (pathwise, {}), (measure_valued, {})]
CASES += [(score_function, {"baseline": b}) for b in ("mean", "leave_one_out", "optimal")]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("estimator", "options"), CASES)
def test_value_is_f_and_dtype_is_kept(estimator, options, dtype):
    drawn = []

    def f(z):
        drawn.append(z)
        return z.sin().sum(-1)

    loc = torch.zeros(3, 2, dtype=dtype, requires_grad=True)
    surrogate = estimator(f, Independent(Normal(loc, torch.ones(2, dtype=dtype)), 1), 5, **options)
    assert surrogate.dtype == dtype and surrogate.shape == (5, 3)
    torch.testing.assert_close(surrogate.detach(), drawn[0].detach().sin().sum(-1), rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(surrogate.mean(0).sum(), loc)
    assert gradient.dtype == dtype and torch.isfinite(gradient).all()


@pytest.mark.parametrize(("estimator", "options"), CASES)
def test_parameters_of_f_get_their_gradient(estimator, options):
    """f = θ z + log q(z): in θ the gradient is z, and of log q it is that of minus the entropy, -1/σ in the scale."""
    drawn = []
    theta = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    q = Normal(torch.tensor(0.4, dtype=torch.float64), scale)

    def f(z):
        drawn.append(z)
        return theta * z + q.log_prob(z)

    surrogate = estimator(f, q, N, **options)
    in_theta, in_scale = torch.autograd.grad(surrogate.mean(0), (theta, scale))
    torch.testing.assert_close(in_theta, drawn[0].detach().mean())
    assert abs(in_scale + 1 / 0.7) < 0.1


@pytest.mark.parametrize("options", [{}, {"baseline": "leave_one_out"}, {"baseline": "optimal"}])
def test_score_function_may_be_differentiated_twice(options):
    """E[z³] = μ³ + 3 μ has the second derivative 6 μ."""
    mu = torch.tensor(0.5, dtype=torch.float64).requires_grad_()
    copies = mu.expand(20_000)
    surrogate = score_function(lambda z: z**3, Normal(copies, 1.0), 10, **options).mean(0)
    (first,) = torch.autograd.grad(surrogate.sum(), copies, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), copies)
    assert abs(second.mean() - 3) < 5 * second.std() / len(second) ** 0.5


def test_indicators_may_be_boolean():
    mu = torch.zeros(3, requires_grad=True)
    assert score_function(lambda z: z > 0, Normal(mu, 1.0), 4).dtype == torch.float32
    assert measure_valued(lambda z: z > 0, Normal(mu, 1.0), 4).dtype == torch.float32


@pytest.mark.parametrize(("estimator", "options"), CASES)
def test_under_torch_func(estimator, options):
    def bound(mu):
        return estimator(torch.square, Normal(mu, 1.0, validate_args=False), 2000, **options).mean()

    gradients = torch.func.vmap(torch.func.grad(bound), randomness="different")(torch.tensor([0.5, 1.0]))
    assert (gradients - torch.tensor([1.0, 2.0])).abs().max() < 0.6


@pytest.mark.parametrize(("estimator", "options"), CASES)
def test_value_alone(estimator, options):
    """Without gradients there is nothing to refuse: the surrogate is the value."""
    with torch.no_grad():
        surrogate = estimator(torch.square, Normal(torch.zeros(2), 1.0), 5, **options)
    assert surrogate.shape == (5, 2) and not surrogate.requires_grad


@pytest.mark.parametrize(("estimator", "options"), CASES)
def test_any_device(estimator, options):
    loc = torch.zeros(3, 2, device="meta", requires_grad=True)
    q = Independent(Normal(loc, torch.ones(2, device="meta"), validate_args=False), 1, validate_args=False)
    assert estimator(lambda z: z.sum(-1), q, 5, **options).device.type == "meta"


# Bad input

MU_ = torch.zeros(3, requires_grad=True)
Q = Normal(MU_, 1.0)
VECTOR = Independent(Normal(torch.zeros(3, 2, requires_grad=True), 1.0), 1)
MIXTURE = MixtureSameFamily(Categorical(torch.ones(2)), Normal(torch.zeros(2, requires_grad=True), 1.0))
COIN = Bernoulli(logits=torch.zeros(3, requires_grad=True))


# fmt: off
BAD = {
    "q is a tensor": (lambda e: e(torch.square, MU_, 5), TypeError, "q must be a .*Distribution, got Tensor"),
    "no draws": (lambda e: e(torch.square, Q, 0), ValueError, "num_samples must be at least 1"),
    "half a draw": (lambda e: e(torch.square, Q, 2.5), TypeError, "num_samples must be an int"),
    "f is summed up": (lambda e: e(lambda z: z.sum(), Q, 5), ValueError, r"per draw, shape \(5, 3\).*got \(\)"),
    "f forgets the event": (lambda e: e(torch.square, VECTOR, 5), ValueError, r"got \(5, 3, 2\); sum over the event"),
    "f sums over the batch": (lambda e: e(lambda z: z.sum(-1), Q, 5), ValueError, r"got \(5,\); .*Independent"),
    "f gives a number": (lambda e: e(lambda z: 1.0, Q, 5), TypeError, "f must return a torch.Tensor, got float"),
    "no gradient": (lambda e: e(torch.square, Normal(torch.zeros(3), 1.0), 5), ValueError, "requires_grad=True"),
}
# fmt: on


@pytest.mark.parametrize("estimator", [score_function, pathwise, measure_valued])
@pytest.mark.parametrize("what", BAD)
def test_bad_input(what, estimator):
    call, kind, message = BAD[what]
    with pytest.raises(kind, match=message):
        call(estimator)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: pathwise(torch.square, COIN, 5),
            NotImplementedError,
            "discrete, as Bernoulli is.*score_function",
        ),
        (lambda: pathwise(lambda z: z > 0, Q, 5), ValueError, "f has no gradient in z.*score_function"),
        (lambda: pathwise(torch.square, Q, 5, via="composed"), ValueError, "via must be one of"),
        (
            lambda: pathwise(torch.square, Q, 5, via="composition"),
            NotImplementedError,
            "score_function needs no map",
        ),
        (lambda: score_function(torch.square, Q, 1, "mean"), ValueError, "at least 2 with baseline='mean'"),
        (
            lambda: score_function(torch.square, Q, 5, "loo"),
            ValueError,
            "baseline must be one of 'leave_one_out', 'optimal', 'mean'",
        ),
        (
            lambda: measure_valued(torch.square, COIN, 5),
            NotImplementedError,
            r"exists for .* Normal .*got Bernoulli",
        ),
        (
            lambda: measure_valued(torch.square, LogNormal(MU_, 1.0), 5),
            NotImplementedError,
            "got LogNormal.*score_function, or pathwise",
        ),
        (
            lambda: measure_valued(lambda z: z.sum(-1), Independent(Laplace(MU_, 1.0), 1), 5),
            NotImplementedError,
            r"Independent\(Laplace\)",
        ),
        (
            lambda: score_function(torch.square, MIXTURE, 5, "optimal"),
            NotImplementedError,
            r"MixtureSameFamily\(Normal\) does not give; use baseline='leave_one_out'",
        ),
        (
            lambda: score_function(torch.square, Uniform(0.0, MU_ + 1), 5),
            ValueError,
            "support that moves .* as Uniform has",
        ),
        (
            lambda: score_function(lambda z: z.sum(-1), Independent(Pareto(MU_ + 1, 2.0), 1), 5),
            ValueError,
            r"as Independent\(Pareto\) has.*use pathwise",
        ),
    ],
)
def test_bad_input_of_one(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
