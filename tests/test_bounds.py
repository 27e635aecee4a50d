"""Bounds against the exact ELBO and the exact evidence, with enough samples to reject near misses."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Independent, Normal, OneHotCategorical

from vaetut import (
    DiscreteMixture,
    LinearGaussian,
    bounds,
    elbo_terms,
    kl_divergence,
    log_evidence,
    sgvb_a,
    sgvb_b,
)

DOUBLE = torch.float64


def d(value: object) -> Tensor:
    return torch.as_tensor(value, dtype=DOUBLE)


@pytest.fixture
def model() -> LinearGaussian:
    return LinearGaussian(d([[1.0, 0.2], [-0.5, 0.8], [0.3, 0.3]]), d([0.1, -0.2, 0.5]), 0.6)


@pytest.fixture
def mixture() -> DiscreteMixture:
    return DiscreteMixture(d([0.2, -0.5]), d([[-2.0, 0.0], [0.5, 1.0]]), d([[0.5, 1.0], [0.7, 0.7]]))


X = d([[0.4, -1.0, 0.3], [2.0, 0.1, -0.7]])
X2 = d([[0.4, -1.0], [-1.0, 0.1]])


def gaussian_q() -> Independent:
    return Independent(Normal(d([[0.5, -0.3], [1.0, 0.2]]), d([[0.6, 0.5], [0.4, 0.7]])), 1)


def discrete_q() -> OneHotCategorical:
    return OneHotCategorical(probs=d([[0.3, 0.7], [0.2, 0.8]]))


@pytest.mark.parametrize("bound", [sgvb_a, sgvb_b])
@pytest.mark.parametrize("world", ["gaussian", "discrete"])
def test_the_estimators_are_unbiased_for_the_exact_bound(bound, world, model, mixture):
    torch.manual_seed(0)
    m, q, x = (model, gaussian_q(), X) if world == "gaussian" else (mixture, discrete_q(), X2)
    n = 100_000
    # n independent estimates from one draw each, as a batch: [n * 2]
    many = q.expand([n, 2])
    values = bound(m, many, x.expand(n, *x.shape))
    error = values.std(0) / math.sqrt(n)
    exact = m.elbo(q, x)
    assert ((values.mean(0) - exact).abs() < 5 * error).all()
    # power: a bound without its KL, or the evidence itself, lies outside
    for wrong in (m.expected_log_likelihood(q, x), m.log_evidence(x)):
        assert ((values.mean(0) - wrong).abs() > 5 * error).all()


def test_elbo_terms_are_reconstruction_and_exact_kl(model):
    torch.manual_seed(0)
    q = gaussian_q()
    terms = elbo_terms(model, q, X, num_samples=200_000)
    torch.testing.assert_close(terms.kl, kl_divergence(q, model.prior))
    torch.testing.assert_close(terms.reconstruction, model.expected_log_likelihood(q, X), atol=0.05, rtol=0)
    torch.manual_seed(0)
    torch.testing.assert_close(sgvb_b(model, q, X, 200_000), terms.reconstruction - terms.kl)


def test_sgvb_a_has_no_variance_at_the_posterior(model, mixture):
    for m, x in ((model, X), (mixture, X2)):
        torch.testing.assert_close(sgvb_a(m, m.posterior(x), x), m.log_evidence(x), rtol=1e-10, atol=1e-10)


def test_gradients_reach_the_parameters_of_q_and_of_the_model():
    """The mean gradient of 50,000 estimates against that of the closed form."""
    torch.manual_seed(0)
    n = 50_000
    loc, scale = d([[0.5, -0.3]]).requires_grad_(), d([[0.6, 0.5]]).requires_grad_()
    weight = d([[1.0, 0.2], [-0.5, 0.8], [0.3, 0.3]]).requires_grad_()
    inputs = (loc, scale, weight)
    model = LinearGaussian(weight, d([0.1, -0.2, 0.5]), 0.6)
    q = Independent(Normal(loc, scale), 1)
    exact = torch.autograd.grad(model.elbo(q, X[:1]).sum(), inputs)
    for bound in (sgvb_a, sgvb_b):
        estimate = torch.autograd.grad(bound(model, q, X[:1], n).sum(), inputs)
        for a, b in zip(estimate, exact, strict=True):
            torch.testing.assert_close(a, b, atol=0.12, rtol=0)


def test_a_q_without_rsample_refuses_a_wrong_gradient(mixture):
    logits = d([[0.3, 0.7]]).requires_grad_()
    q = OneHotCategorical(logits=logits)
    with pytest.raises(NotImplementedError, match="OneHotCategorical has no rsample"):
        sgvb_b(mixture, q, X2[:1])
    with torch.no_grad():
        assert sgvb_b(mixture, q, X2[:1]).isfinite().all()


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


@pytest.mark.parametrize("chunk_size", [1, 7, 1000, None])
def test_chunks_do_not_change_the_estimate(model, monkeypatch, chunk_size):
    """The same weights in chunks of any size: replace the draws by a fixed list."""
    torch.manual_seed(0)
    weights = torch.randn(1000, 2, dtype=DOUBLE) * 3
    taken = iter([])

    def fake(model, q, x, num_samples):
        return torch.stack([next(taken) for _ in range(num_samples)])

    monkeypatch.setattr(bounds, "_log_weights", fake)
    taken = iter(weights)
    value, error = log_evidence(model, gaussian_q(), X, 1000, chunk_size=chunk_size)
    ratio = (weights - weights.max(0).values).exp()
    torch.testing.assert_close(value, weights.logsumexp(0) - math.log(1000), rtol=1e-12, atol=1e-12)
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


def test_a_bernoulli_likelihood_takes_grey_pixels():
    class Pixels:
        prior = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)

        def likelihood(self, z):
            return Independent(Bernoulli(logits=z.repeat_interleave(2, -1), validate_args=False), 1)

    q = Independent(Normal(torch.zeros(3, 2), torch.ones(3, 2)), 1)
    assert sgvb_b(Pixels(), q, torch.full((3, 4), 0.5)).shape == (3,)
    with pytest.raises(ValueError, match=r"x must lie in \[0, 1\].*0 to 255.*divide"):
        sgvb_b(Pixels(), q, torch.tensor([[0.0, 255.0, 3.0, 4.0]]).expand(3, 4))
