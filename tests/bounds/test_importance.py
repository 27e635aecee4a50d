"""Importance weights, the bounds made of them and the evidence, against exact values."""

import itertools
import math

import pytest
import torch
from exact_cases import DOUBLE, X2, X, d, discrete_mixture, discrete_q, gaussian_q, linear_gaussian
from torch.distributions import Independent, Normal

from vaetut import LinearGaussian, expectation, sgvb_a
from vaetut.bounds import (
    cubo_bound,
    doubly_reparameterized,
    iwae_bound,
    log_evidence,
    log_weights,
    sticking_the_landing,
)


@pytest.fixture
def model():
    return linear_gaussian()


@pytest.fixture
def mixture():
    return discrete_mixture()


def test_log_weights_are_exact_at_the_posterior(model, mixture):
    for m, x in ((model, X), (mixture, X2)):
        found = log_weights(m, m.posterior(x), x, 4)
        torch.testing.assert_close(found, m.log_evidence(x).expand(4, 2), rtol=1e-10, atol=1e-10)


def test_log_weights_by_hand(model):
    """On given draws, values and both gradients: with the score, and with the path alone."""
    loc, scale = d([[0.5, -0.3], [1.0, 0.2]]).requires_grad_(), d([[0.6, 0.5], [0.4, 0.7]]).requires_grad_()
    q = Independent(Normal(loc, scale), 1)
    for stop_q in (False, True):
        torch.manual_seed(0)
        found = log_weights(model, q, X, 3, stop_q=stop_q)
        torch.manual_seed(0)
        eps = (q.rsample((3,)) - loc).detach() / scale.detach()
        z = (loc + scale * eps).detach()
        torch.testing.assert_close(found, model.log_joint(X, z) - q.log_prob(z), rtol=1e-12, atol=1e-12)
        # d log w / dz = W'(x - Wz - b) / s² - z + (z - loc) / scale², by hand
        slope = (X - z @ model.weight.mT - model.bias) @ model.weight / 0.36 - z
        slope = (slope + (z - loc) / scale**2).detach()
        score = torch.zeros_like(slope) if stop_q else (z - loc) / scale**2
        expected = (slope - score).sum(0), (slope * eps - (0 if stop_q else (eps**2 - 1) / scale)).sum(0)
        gradients = torch.autograd.grad(found.sum(), (loc, scale))
        for a, b in zip(gradients, expected, strict=True):
            torch.testing.assert_close(a, b.detach(), rtol=1e-9, atol=1e-9)


def test_every_bound_is_a_few_lines_over_log_weights(model):
    ways = {
        sgvb_a: lambda w: w.mean(0),
        iwae_bound: lambda w: w.logsumexp(0) - math.log(20),
        sticking_the_landing: lambda w: w.logsumexp(0) - math.log(20),
        doubly_reparameterized: lambda w: w.logsumexp(0) - math.log(20),
        cubo_bound: lambda w: (w * 2).exp().mean(0).log() / 2,
        lambda *a: log_evidence(*a).value: lambda w: w.exp().mean(0).log(),
    }
    for bound, of_weights in ways.items():
        torch.manual_seed(0)
        log_w = log_weights(model, gaussian_q(), X, 20)
        torch.manual_seed(0)
        torch.testing.assert_close(
            bound(model, gaussian_q(), X, 20), of_weights(log_w), rtol=1e-12, atol=1e-12
        )


def test_log_evidence_by_importance_sampling(model, mixture):
    torch.manual_seed(0)
    wide = Independent(Normal(model.posterior(X).mean, 1.2 * model.posterior(X).stddev), 1)
    for m, q, x in ((model, wide, X), (mixture, discrete_q(), X2)):
        estimate = log_evidence(m, q, x, 100_000)
        assert (estimate.standard_error < 0.02).all()
        assert ((estimate.value - m.log_evidence(x)).abs() < 5 * estimate.standard_error).all()
        assert ((estimate.value - m.elbo(q, x)).abs() > 5 * estimate.standard_error).all()


def test_log_evidence_is_exact_at_the_posterior(model):
    estimate = log_evidence(model, model.posterior(X), X, 3)
    torch.testing.assert_close(estimate.value, model.log_evidence(X), rtol=1e-10, atol=1e-10)
    assert (estimate.standard_error < 1e-6).all()


def test_the_standard_error_of_log_evidence_is_the_spread_of_its_estimates(model):
    torch.manual_seed(0)
    repeats = 2000
    wide = Independent(Normal(model.posterior(X).mean, 1.2 * model.posterior(X).stddev), 1)
    many = log_evidence(model, wide.expand([repeats, 2]), X.expand(repeats, 2, 3), 400)
    # the spread of 2000 estimates is itself known to 1.6 %
    spread = many.value.std(0)
    assert ((many.standard_error.mean(0) / spread - 1).abs() < 5 * 0.016 + 0.02).all()


class Listed(Independent):
    """A standard normal whose draws are given, one after the other."""

    def __init__(self, draws):
        super().__init__(Normal(torch.zeros_like(draws[0]), 1.0), 1)
        self.left = draws

    def rsample(self, sample_shape=()):
        z, self.left = self.left[: sample_shape[0]], self.left[sample_shape[0] :]
        return z


@pytest.mark.parametrize("chunk_size", [1, 7, 1000, None])
def test_chunks_do_not_change_the_estimate(chunk_size):
    """The same weights in chunks of any size: the draws are a fixed list."""
    torch.manual_seed(0)
    model = LinearGaussian(d([[1.0], [-0.5]]), d([0.2, 0.0]), 0.3)
    z = 2 * torch.randn(1000, 2, 1, dtype=DOUBLE)
    q, x = Listed(z), d([[0.9, -0.8], [-1.0, 2.0]])
    value, error = log_evidence(model, q, x, 1000, chunk_size=chunk_size)
    assert len(q.left) == 0
    log_w = model.log_joint(x, z) - Independent(Normal(d([[0.0], [0.0]]), 1.0), 1).log_prob(z)
    assert log_w.std() > 5
    ratio = (log_w - log_w.max(0).values).exp()
    torch.testing.assert_close(value, log_w.logsumexp(0) - math.log(1000), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(error, ratio.std(0) / ratio.mean(0) / math.sqrt(1000), rtol=1e-10, atol=1e-12)


def test_log_evidence_holds_only_a_chunk(model):
    """No likelihood is evaluated on more draws than a chunk has."""
    seen = []

    class Watched:
        prior = model.prior

        def likelihood(self, z):
            seen.append(z.shape[0])
            return model.likelihood(z)

    log_evidence(Watched(), gaussian_q(), X, 1050, chunk_size=100)
    assert max(seen) == 100 and sum(seen) == 1050


def test_log_evidence_keeps_no_gradient():
    weight = d([[1.0], [2.0]]).requires_grad_()
    model = LinearGaussian(weight, torch.zeros(2, dtype=DOUBLE), 0.5)
    estimate = log_evidence(model, model.posterior(X2), X2, 5)
    assert not estimate.value.requires_grad and not estimate.standard_error.requires_grad


def test_log_evidence_holds_little_for_narrow_data_too():
    """The default chunk allows for a hidden layer that is wider than the data."""
    seen = []
    model = LinearGaussian(d([[1.0], [2.0]]), torch.zeros(2, dtype=DOUBLE), 0.5)

    class Watched:
        prior = model.prior

        def likelihood(self, z):
            seen.append(z.shape[0])
            return model.likelihood(z)

    x = torch.zeros(1, 2, dtype=DOUBLE)
    log_evidence(Watched(), model.posterior(x), x, 100_000)
    assert max(seen) <= 2**13 and sum(seen) == 100_000


# The importance-weighted bound. With one latent dimension its exact value is known for every K, from
# log s = ∫ (e^-t - e^-ts) dt/t: the K draws become a power of E[e^-tw].

EPS = torch.linspace(-11, 11, 2201, dtype=DOUBLE)
LOG_T = torch.linspace(-30, 330, 3601, dtype=DOUBLE)


def narrow_model() -> LinearGaussian:
    return LinearGaussian(d([[1.0], [-0.5]]), d([0.2, 0.0]), 0.8)


def exact_iwae(model, q, x, num_samples):
    z = q.mean + q.stddev * EPS.unsqueeze(-1)
    log_w = model.log_joint(x, z) - q.log_prob(z) - model.log_evidence(x)
    weights = (-(EPS**2) / 2).exp() / math.sqrt(2 * math.pi) * (EPS[1] - EPS[0])
    t = LOG_T.exp()
    laplace = torch.exp(-t.unsqueeze(-1) * log_w.exp()) @ weights
    value = torch.trapezoid(torch.exp(-t) - laplace**num_samples, LOG_T)
    return value - math.log(num_samples) + model.log_evidence(x).squeeze()


def one_q(loc=0.9, scale=0.75):
    return Independent(Normal(d([[loc]]), d([[scale]])), 1)


ONE = d([[0.9, -0.8]])


@pytest.mark.parametrize("q", [one_q(), one_q(0.2, 0.45), one_q(-1.0, 1.5)], ids=["near", "narrow", "far"])
def test_iwae_against_its_exact_value(q):
    torch.manual_seed(0)
    model = narrow_model()
    for k in (1, 2, 5, 50):
        n = 100_000 if k < 50 else 20_000
        values = iwae_bound(model, q.expand([n]), ONE.expand(n, 2), k)
        error = values.std() / math.sqrt(n)
        truth = exact_iwae(model, q, ONE, k)
        assert (values.mean() - truth).abs() < 5 * error
        # power: a forgotten log K, the evidence, and for K > 1 the plain bound
        for wrong in [model.log_evidence(ONE), truth + math.log(k)][: 1 + (k > 1)]:
            assert (values.mean() - wrong).abs() > 5 * error
        if k > 1:
            assert (values.mean() - model.elbo(q, ONE)).abs() > 5 * error


def test_iwae_is_monotone_and_reaches_the_evidence():
    model = narrow_model()
    evidence = model.log_evidence(ONE).squeeze()
    for q in (one_q(), one_q(-1.0, 1.5)):
        curve = torch.stack([exact_iwae(model, q, ONE, k) for k in (1, 2, 3, 10, 100, 1000, 100_000)])
        torch.testing.assert_close(curve[:1], model.elbo(q, ONE), rtol=1e-10, atol=1e-10)
        assert (curve.diff() > 0).all() and (curve < evidence).all()
        assert evidence - curve[-1] < 1e-4
        # measured: each of these steps is many standard errors
        torch.manual_seed(0)
        n = 40_000
        measured = [iwae_bound(model, q.expand([n]), ONE.expand(n, 2), k) for k in (1, 4, 32)]
        for less, more in itertools.pairwise(measured):
            rise = more.mean() - less.mean()
            assert rise > 5 * (less.var() / n + more.var() / n).sqrt()


def test_iwae_with_one_draw_is_sgvb_a(model):
    values = []
    for bound in (lambda *a: iwae_bound(*a, 1), sgvb_a):
        torch.manual_seed(0)
        values.append(bound(model, gaussian_q(), X))
    torch.testing.assert_close(*values, rtol=1e-14, atol=1e-14)


def test_iwae_does_not_overflow():
    """Weights of e^-2000 and less: only their ratios matter."""
    model = LinearGaussian(torch.ones(50, 1), torch.zeros(50), 0.1)
    x = 5 * torch.ones(2, 50)
    for bound in (iwae_bound, cubo_bound):
        value = bound(model, model.prior.expand([2]), x, 10)
        assert value.isfinite().all() and (value < -1000).all()


def test_cubo_against_its_exact_value():
    """By Gauss-Hermite; at the posterior it is the evidence; its estimate is too low on average."""
    model, q = narrow_model(), one_q(0.9, 0.9)
    evidence = model.log_evidence(ONE)

    def log_w(z):
        return model.log_joint(ONE, z) - q.log_prob(z)

    for order in (1.5, 2.0, 3):
        exact = expectation(lambda z, n=order: (n * log_w(z)).exp(), q, num_points=200).log() / order
        assert exact > evidence + 0.01
        torch.manual_seed(0)
        n = 200_000
        z = q.rsample((n,))
        power = (order * log_w(z)).exp()
        error = power.std() / power.mean() / math.sqrt(n) / order
        value = cubo_bound(model, q, ONE, n, order=order)
        assert ((value - exact).abs() < 5 * error).all()
        assert ((value - evidence).abs() > 5 * error).all()
        few = cubo_bound(model, q.expand([20_000]), ONE.expand(20_000, 2), 5, order=order)
        assert few.mean() < exact - 5 * few.std() / math.sqrt(20_000)
    torch.testing.assert_close(cubo_bound(model, model.posterior(ONE), ONE, 3), evidence)


def test_cubo_lies_above_iwae_on_the_same_draws(model):
    values = []
    for bound in (iwae_bound, cubo_bound, lambda *a: cubo_bound(*a, order=1)):
        torch.manual_seed(0)
        values.append(bound(model, gaussian_q(), X, 20))
    assert (values[1] > values[0]).all()
    torch.testing.assert_close(values[2], values[0])


@pytest.mark.parametrize(
    ("order", "error", "message"),
    [(0.5, ValueError, "at least 1, got 0.5"), (math.inf, ValueError, "finite"), (True, TypeError, "order")],
)
def test_cubo_orders(model, order, error, message):
    with pytest.raises(error, match=message):
        cubo_bound(model, gaussian_q(), X, 3, order=order)
