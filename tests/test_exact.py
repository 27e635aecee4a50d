"""The exact models against scipy, quadrature and explicit linear algebra."""

import math

import numpy as np
import pytest
import torch
from exact_cases import DOUBLE, X, d, linear_gaussian
from scipy import integrate as scipy_integrate
from scipy import stats
from sklearn.decomposition import PCA
from torch.distributions import Independent, MultivariateNormal, Normal, OneHotCategorical

from vaetut import DiscreteMixture, LinearGaussian


@pytest.fixture
def model() -> LinearGaussian:
    return linear_gaussian()


@pytest.fixture
def mixture() -> DiscreteMixture:
    return DiscreteMixture(
        d([0.2, -0.5, 0.4]),
        d([[-2.0, 0.0], [0.5, 1.0], [2.0, -1.0]]),
        d([[0.5, 1.0], [0.7, 0.7], [1.0, 0.4]]),
    )


X2 = d([[0.4, -1.0], [2.0, 0.1], [-3.0, 0.0]])


def test_evidence_of_the_linear_gaussian_is_scipys(model):
    w = model.weight.numpy()
    reference = stats.multivariate_normal(model.bias.numpy(), w @ w.T + 0.36 * np.eye(3)).logpdf(X.numpy())
    np.testing.assert_allclose(model.log_evidence(X).numpy(), reference, rtol=1e-12)


def test_evidence_of_the_linear_gaussian_is_the_integral_over_z():
    model = LinearGaussian(d([[1.0], [2.0]]), d([0.0, 1.0]), 0.5)
    x = d([0.3, 1.0])

    def joint(z: float) -> float:
        return math.exp(float(model.log_joint(x, d([z]))))

    reference = math.log(scipy_integrate.quad(joint, -12, 12, epsabs=1e-14, epsrel=1e-12)[0])
    assert model.log_evidence(x).item() == pytest.approx(reference, abs=1e-10)


def test_bayes_rule_holds_at_any_z(model):
    z = torch.randn(5, 2, 2, dtype=DOUBLE)
    posterior = model.posterior(X).log_prob(z)
    torch.testing.assert_close(
        posterior, model.log_joint(X, z) - model.log_evidence(X), rtol=1e-10, atol=1e-10
    )


def test_bayes_rule_holds_in_every_state(mixture):
    z = mixture.states.unsqueeze(1)
    torch.testing.assert_close(
        mixture.posterior(X2).log_prob(z), mixture.log_joint(X2, z) - mixture.log_evidence(X2)
    )


def test_evidence_of_the_mixture_is_scipys_sum(mixture):
    weights = torch.softmax(mixture.logits, 0).numpy()
    density = sum(
        w * stats.multivariate_normal(m, np.diag(s**2)).pdf(X2.numpy())
        for w, m, s in zip(weights, mixture.loc.numpy(), mixture.scale.numpy(), strict=True)
    )
    np.testing.assert_allclose(mixture.log_evidence(X2).numpy(), np.log(density), rtol=1e-12)


@pytest.mark.parametrize("diagonal", [True, False])
def test_expected_log_likelihood_of_the_linear_gaussian_by_gauss_hermite(model, diagonal):
    """log p(x|z) is quadratic in z, so that three Gauss-Hermite points per dimension are exact."""
    mean, factor = d([0.3, -0.4]), d([[0.7, 0.0], [0.0 if diagonal else -0.3, 0.5]])
    q = (
        Independent(Normal(mean, factor.diagonal()), 1)
        if diagonal
        else MultivariateNormal(mean, scale_tril=factor)
    )
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    expected = torch.zeros(2, dtype=DOUBLE)
    for a, wa in zip(nodes, weights, strict=True):
        for b, wb in zip(nodes, weights, strict=True):
            z = mean + factor @ d([a, b])
            expected += wa * wb / (2 * math.pi) * model.likelihood(z).log_prob(X)
    torch.testing.assert_close(model.expected_log_likelihood(q, X), expected, rtol=1e-11, atol=1e-11)


def test_expected_log_likelihood_of_the_mixture_is_a_sum(mixture):
    probs = d([0.2, 0.5, 0.3])
    expected = sum(probs[k] * mixture.likelihood(mixture.states[k]).log_prob(X2) for k in range(3))
    torch.testing.assert_close(mixture.expected_log_likelihood(OneHotCategorical(probs=probs), X2), expected)


def test_the_bound_is_tight_at_the_posterior_and_only_there(model, mixture):
    for m, x in ((model, X), (mixture, X2)):
        torch.testing.assert_close(m.elbo(m.posterior(x), x), m.log_evidence(x), rtol=1e-10, atol=1e-10)
        assert (m.elbo(m.prior.expand(x.shape[:1]), x) < m.log_evidence(x) - 1e-2).all()


def test_fit_is_probabilistic_pca():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 5, dtype=DOUBLE, generator=generator) @ torch.randn(
        5, 5, dtype=DOUBLE, generator=generator
    )
    model = LinearGaussian.fit(x, 2)
    # scikit-learn divides the covariance by N - 1, maximum likelihood by N
    reference = PCA(2, svd_solver="full").fit(x.numpy())
    covariance = (199 / 200) * reference.get_covariance()
    np.testing.assert_allclose(model.evidence.covariance_matrix.numpy(), covariance, rtol=1e-10)
    assert (model.weight.gather(0, model.weight.abs().argmax(0, keepdim=True)) > 0).all()


def test_fit_is_a_stationary_point_of_the_likelihood():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(100, 4, dtype=DOUBLE, generator=generator) * d([3.0, 2.0, 1.0, 0.5])
    fitted = LinearGaussian.fit(x, 2)
    weight, bias, scale = (
        t.clone().requires_grad_() for t in (fitted.weight, fitted.bias, fitted.noise_scale)
    )
    LinearGaussian(weight, bias, scale).log_evidence(x).mean().backward()
    for parameter in (weight, bias, scale):
        assert parameter.grad.abs().max() < 1e-9
    worse = LinearGaussian(fitted.weight * 1.05, fitted.bias, fitted.noise_scale)
    assert worse.log_evidence(x).mean() < fitted.log_evidence(x).mean() - 1e-4


def test_fit_needs_variance_left_over():
    line = torch.arange(10, dtype=DOUBLE).unsqueeze(1) * d([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="spread over more than latent_dim = 1"):
        LinearGaussian.fit(line, 1)


def test_fewer_points_than_dimensions():
    x = torch.randn(4, 10, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))
    model = LinearGaussian.fit(x, 2)
    eigenvalues = np.linalg.eigvalsh(np.cov(x.numpy().T, bias=True))[::-1]
    assert model.noise_scale.item() ** 2 == pytest.approx(eigenvalues[2:].mean(), rel=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_keeps_the_dtype(dtype):
    gaussian = LinearGaussian(torch.ones(2, 1, dtype=dtype), torch.zeros(2, dtype=dtype), 0.5)
    discrete = DiscreteMixture(
        torch.zeros(2, dtype=dtype), torch.ones(2, 2, dtype=dtype), torch.ones(2, 2, dtype=dtype)
    )
    x = torch.ones(3, 2, dtype=dtype)
    for model in (gaussian, discrete):
        assert model.prior.sample().dtype == dtype
        assert model.log_evidence(x).dtype == model.elbo(model.posterior(x), x).dtype == dtype
        assert model.posterior(x).sample().dtype == dtype


def test_meta_device():
    model = LinearGaussian(torch.ones(2, 1, device="meta"), torch.zeros(2, device="meta"), 0.5)
    assert model.noise_scale.device.type == model.prior.base_dist.loc.device.type == "meta"
