"""Every number with four decimals on the errata page, computed again (mostly by quadrature)."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, special, stats
from scipy.integrate import quad

PAGE = Path(__file__).parents[2] / "book" / "errata.md"
NUMBER = re.compile(r"(?<![\d.])-?\d+\.\d{4}(?!\d)")
Function = Callable[[float], float]


def expectation(f: Function, q: stats.rv_continuous) -> float:
    """E_q[f(z)] by adaptive quadrature over all but 1e-14 of q's mass in each tail."""
    value, error = quad(lambda z: q.pdf(z) * f(z), q.ppf(1e-14), q.isf(1e-14), limit=500, epsabs=1e-11)
    assert error < 1e-7 * max(1.0, abs(value))
    return value


def derivative(f: Function, at: float, step: float = 1e-4) -> float:
    return (f(at + step) - f(at - step)) / (2 * step)


# The page's running example: z ~ N(0, 1), x | z ~ N(z, 1), and the datapoint x = 1.
X = 1.0
PRIOR = stats.norm(0, 1)
POSTERIOR = stats.norm(0.5, math.sqrt(0.5))
LOG_EVIDENCE = math.log(expectation(lambda z: stats.norm.pdf(X, z, 1), PRIOR))


def kl(q: stats.rv_continuous, p: stats.rv_continuous) -> float:
    return expectation(lambda z: q.logpdf(z) - p.logpdf(z), q)


def bound(q: stats.rv_continuous, weight: float = 1.0) -> float:
    """The lower bound for x | z ~ N(weight z, 1)."""
    return expectation(lambda z: stats.norm.logpdf(X, weight * z, 1), q) - kl(q, PRIOR)


def sum_over_data() -> list[float]:
    x = np.array([0.5, -1.0, 2.0])
    joint = math.log(np.prod(stats.norm.pdf(x)))
    return [joint, 3 * stats.norm.logpdf(x[0])]


def evidence_is_constant_in_z() -> list[float]:
    posterior = [stats.norm.pdf(X, z, 1) * PRIOR.pdf(z) / math.exp(LOG_EVIDENCE) for z in (-1.0, 0.5, 2.0)]
    np.testing.assert_allclose(posterior, POSTERIOR.pdf([-1.0, 0.5, 2.0]), rtol=1e-9)
    under_posterior = expectation(lambda z: LOG_EVIDENCE, POSTERIOR)
    under_prior = expectation(lambda z: stats.norm.logpdf(X, z, 1), PRIOR)
    return [under_posterior, LOG_EVIDENCE, under_prior, stats.norm.logpdf(X, PRIOR.mean(), 1)]


def dropped_logarithm() -> list[float]:
    entropy = expectation(lambda z: -PRIOR.logpdf(z), PRIOR)
    without_log = expectation(lambda z: -PRIOR.pdf(z), PRIOR)
    not_a_bound = expectation(lambda z: stats.norm.pdf(X, z, 1), POSTERIOR) - kl(POSTERIOR, PRIOR)
    assert not_a_bound > LOG_EVIDENCE
    at_one = stats.norm(1, 1)
    return [entropy, without_log, not_a_bound, LOG_EVIDENCE, at_one.logpdf(X), at_one.pdf(X)]


def log_likelihood_is_no_error() -> list[float]:
    values = [stats.norm.logpdf(X, z, 1) for z in (1.0, 0.0)]
    errors = [0.5 * (X - z) ** 2 for z in (1.0, 0.0)]
    np.testing.assert_allclose([-e - 0.5 * math.log(2 * math.pi) for e in errors], values, rtol=1e-12)
    return [*values, *errors]


def kl_can_be_zero() -> list[float]:
    assert kl(POSTERIOR, POSTERIOR) == 0
    return [bound(POSTERIOR), LOG_EVIDENCE]


def unnormalized_second_argument() -> list[float]:
    x, scale = 0.0, 0.1  # z ~ N(0, 1), x | z ~ N(z / 10, 1 / 100)
    evidence = expectation(lambda z: stats.norm.pdf(x, 0.1 * z, scale), PRIOR)
    q = stats.norm(0, math.sqrt(0.5))
    by_bayes = stats.norm.pdf(x, 0.07, scale) * PRIOR.pdf(0.7) / evidence
    np.testing.assert_allclose(q.pdf(0.7), by_bayes, rtol=1e-9)
    cross = expectation(lambda z: -stats.norm.logpdf(x, 0.1 * z, scale) - PRIOR.logpdf(z), q)
    entropy = expectation(lambda z: -q.logpdf(z), q)
    assert cross < entropy
    np.testing.assert_allclose(cross, entropy - math.log(evidence), rtol=1e-9)
    return [evidence, entropy, cross]


def bound_up_likelihood_down() -> list[float]:
    q = stats.norm(0.4, math.sqrt(0.2))  # the posterior for weight 2: precision 1 + 2², mean 2/5
    evidence = math.log(expectation(lambda z: stats.norm.pdf(X, 2 * z, 1), PRIOR))
    before, after = bound(PRIOR), bound(q, weight=2.0)
    assert before < after == pytest.approx(evidence) and evidence < LOG_EVIDENCE
    return [before, LOG_EVIDENCE, after, evidence]


def expectation_is_smooth() -> list[float]:
    mean = 1.5

    def moved_by(m: float) -> float:
        return expectation(lambda z: z**2, stats.norm(m, 1))

    def score_function(f: Function) -> float:
        return expectation(lambda e: f(mean + e) * e, PRIOR)

    np.testing.assert_allclose(derivative(moved_by, mean), score_function(lambda z: z**2), rtol=1e-6)
    step = quad(lambda e: PRIOR.pdf(e) * e, -mean, 12)[0]  # f is 1 for z > 0 and 0 elsewhere
    np.testing.assert_allclose(derivative(lambda m: stats.norm.cdf(m), mean), step, rtol=1e-6)
    return [derivative(moved_by, mean), score_function(lambda z: z**2), step]


def pathwise_need_not_win() -> list[float]:
    mean, numbers = 1.0, []
    for k in (0.5, 10.0):
        estimators: list[Function] = [
            lambda e, k=k: -k * math.sin(k * (mean + e)),
            lambda e, k=k: math.cos(k * (mean + e)) * e,
        ]
        means = [expectation(g, PRIOR) for g in estimators]
        np.testing.assert_allclose(means[0], means[1], atol=1e-9)
        numbers += [expectation(lambda e, g=g: g(e) ** 2, PRIOR) - means[0] ** 2 for g in estimators]
    return numbers


def minibatch_and_draws() -> list[float]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)  # exact for polynomials up to degree 39
    weights = weights / weights.sum()
    x = math.sqrt(2) * nodes[:, None]
    z = 0.5 * x + math.sqrt(0.5) * nodes  # [x, z] from the posterior of each x
    kl_to_prior = 0.5 * (0.25 * x[:, 0] ** 2 + 0.5 - 1 - math.log(0.5))
    estimate = stats.norm.logpdf(x, z, 1) - kl_to_prior[:, None]
    means = estimate @ weights
    np.testing.assert_allclose(means, stats.norm.logpdf(x[:, 0], 0, math.sqrt(2)), rtol=1e-9)
    data = weights @ means**2 - (weights @ means) ** 2
    noise = weights @ ((estimate - means[:, None]) ** 2 @ weights)
    everything = weights @ (estimate**2 @ weights) - (weights @ means) ** 2
    np.testing.assert_allclose(everything, data + noise, rtol=1e-9)
    share = noise / (data + noise)
    return [data, noise, share, (data + noise / 10) / 100, (data + noise) / 1000]


def jacobian_is_missing() -> list[float]:
    falling = stats.norm.pdf(0) / -2, stats.norm(0, 2).pdf(0)  # z = -2 ε
    factor = np.array([[2.0, 0.0], [1.0, 3.0]])  # z = factor ε
    plane = [stats.multivariate_normal(cov=c).pdf([0.0, 0.0]) for c in (np.eye(2), factor @ factor.T)]
    # z = ε₁ + ε₂, both exponential, at z = 3
    many = quad(lambda e: math.exp(-e) * math.exp(-(3 - e)), 0, 3)[0]
    np.testing.assert_allclose(many, stats.gamma(2).pdf(3.0), rtol=1e-9)
    return [*falling, *plane, math.exp(-3), many]


def map_is_missing() -> list[float]:
    q = stats.norm(1, 2)
    right = expectation(lambda e: (1 + 2 * e) ** 2, PRIOR)
    np.testing.assert_allclose(right, expectation(lambda z: z**2, q), rtol=1e-9)
    return [right, expectation(lambda e: e**2, PRIOR)]


def inverse_cdf_of_a_uniform() -> list[float]:
    uniform, exponential = stats.uniform(), stats.expon()
    into_cdf = expectation(lambda u: exponential.cdf(u), uniform)
    into_inverse = expectation(lambda u: exponential.ppf(u), uniform)
    return [uniform.mean(), uniform.var(), into_cdf, exponential.cdf(1.0), into_inverse]


def erlang_has_no_closed_inverse() -> list[float]:
    erlang, same_u = stats.erlang(2), 2 * stats.expon.ppf(0.5)
    median = optimize.brentq(lambda z: 1 - math.exp(-z) * (1 + z) - 0.5, 0.1, 10)
    np.testing.assert_allclose(median, erlang.ppf(0.5), rtol=1e-9)
    np.testing.assert_allclose(median, -1 - special.lambertw(-0.5 / math.e, k=-1).real, rtol=1e-9)
    return [median, same_u, erlang.cdf(same_u)]


def gamma_stops_at_integers() -> list[float]:
    def mean_log(shape: float) -> float:
        return expectation(math.log, stats.gamma(shape))

    slope = derivative(mean_log, 2.5, step=1e-3)
    np.testing.assert_allclose(slope, special.polygamma(1, 2.5), rtol=1e-5)
    return [mean_log(2.0), mean_log(2.5), slope]


def dirichlet_is_not_a_sum() -> list[float]:
    # (ε₁ + ε₂) / 2 > 1 for two gamma variates of shape 1, whose sum is a gamma variate of shape 2
    above = quad(lambda a: math.exp(-a) * stats.expon.sf(max(2 - a, 0.0)), 0, 40, points=[2.0])[0]
    np.testing.assert_allclose(above, stats.gamma(2).sf(2.0), rtol=1e-9)
    return [above]


ENTRIES: dict[str, Callable[[], list[float]]] = {
    "The sum over the data": sum_over_data,
    "Why log p(x) may stand under an integral over z": evidence_is_constant_in_z,
    "A logarithm goes missing": dropped_logarithm,
    "A log-likelihood is not an error": log_likelihood_is_no_error,
    "KL is never negative, and it can be zero": kl_can_be_zero,
    "A cross entropy against something that is no distribution": unnormalized_second_argument,
    "A higher bound is not a higher likelihood": bound_up_likelihood_down,
    "What is and what is not differentiable": expectation_is_smooth,
    "Why reparameterization lowers the variance, and when it does not": pathwise_need_not_win,
    "One draw, and the size of the minibatch": minibatch_and_draws,
    "A change of variables needs its Jacobian": jacobian_is_missing,
    "The map inside the expectation": map_is_missing,
    "Uniform noise goes through the inverse CDF": inverse_cdf_of_a_uniform,
    "Erlang has no closed inverse CDF": erlang_has_no_closed_inverse,
    "A sum of exponentials reaches few gammas": gamma_stops_at_integers,
    "A Dirichlet vector is no weighted sum": dirichlet_is_not_a_sum,
}


def sections() -> dict[str, str]:
    parts = re.split(r"^### (.*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_entry_is_computed() -> None:
    assert list(sections()) == list(ENTRIES)


@pytest.mark.parametrize("title", ENTRIES)
def test_numbers_on_the_page(title: str) -> None:
    quoted = NUMBER.findall(sections()[title])
    assert quoted, "an entry without a number shows nothing wrong"
    assert quoted == [f"{value:.4f}" for value in ENTRIES[title]()]
