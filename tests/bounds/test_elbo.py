"""Bounds against the exact ELBO and the exact evidence, with enough samples to reject near misses."""

import itertools
import math

import pytest
import torch
from exact_cases import X2, X, d, discrete_mixture, discrete_q, gaussian_q, linear_gaussian
from torch.distributions import Independent, Normal, OneHotCategorical

from vaetut import (
    LinearGaussian,
    elbo_terms,
    expectation,
    kl_divergence,
    sgvb_a,
    sgvb_b,
)
from vaetut.bounds import minibatch_bound


@pytest.fixture
def model():
    return linear_gaussian()


@pytest.fixture
def mixture():
    return discrete_mixture()


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


def test_sgvb_b_is_quieter_for_a_narrow_q_and_noisier_at_the_posterior(model):
    """Both variances against their exact values, which for a linear-Gaussian model are Gauss-Hermite sums."""
    n = 100_000
    at = model.posterior(X)
    away = Independent(Normal(at.mean + 0.2, 0.25 * at.stddev), 1)

    def exact(q):
        def f_a(z):
            return model.log_joint(X, z) - q.log_prob(z)

        def f_b(z):
            return model.likelihood(z).log_prob(X)

        moments = [(expectation(f, q), expectation(lambda z, f=f: f(z) ** 2, q)) for f in (f_a, f_b)]
        return [square - mean**2 for mean, square in moments]

    for q, b_is_quieter in ((away, True), (at, False)):
        variances = exact(q)
        assert ((variances[1] < variances[0]) == b_is_quieter).all()
        for bound, variance in zip((sgvb_a, sgvb_b), variances, strict=True):
            torch.manual_seed(0)
            values = bound(model, q.expand([n, 2]), X.expand(n, 2, 3))
            squares = (values - values.mean(0)) ** 2
            error = squares.std(0) / math.sqrt(n) + 1e-12
            assert ((squares.mean(0) - variance).abs() < 5 * error).all()
    assert (exact(at)[0].abs() < 1e-10).all() and (exact(at)[1] > 0.3).all()


def test_minibatches_are_unbiased():
    """The mean over all choices of 3 datapoints from 6 is the sum over the data."""
    values = d([-3.0, -1.0, -7.5, 0.5, -2.0, -4.0])
    chosen = torch.stack([values[list(b)] for b in itertools.combinations(range(6), 3)])
    torch.testing.assert_close(minibatch_bound(chosen, 6).mean(), values.sum())
    assert minibatch_bound(chosen, 6).shape == (20,)
    for wrong, error, message in [
        ((values, 5), ValueError, "at least the 6 values"),
        ((values, 6.0), TypeError, "dataset_size must be an int"),
        ((values[:0], 6), ValueError, r"values must have shape"),
        (([1.0], 6), TypeError, "values must be a torch.Tensor"),
    ]:
        with pytest.raises(error, match=message):
            minibatch_bound(*wrong)
