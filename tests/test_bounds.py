"""Bounds against the exact ELBO and the exact evidence, with enough samples to reject near misses."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Independent, Normal, OneHotCategorical

from vaetut import (
    DiscreteMixture,
    LinearGaussian,
    elbo_terms,
    expectation,
    kl_divergence,
    log_evidence,
    sgvb_a,
    sgvb_b,
)
from vaetut.bounds import cubo_bound, iwae_bound, minibatch_bound
from vaetut.bounds import elbo as bounds

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


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("parameter", ["logits", "probs"])
def test_the_bernoulli_likelihood_is_that_of_torch(dtype, parameter):
    """The bounds compute it in their own way; grey pixels and decided ones included."""
    torch.manual_seed(0)
    logits = torch.cat([6 * torch.randn(5, 3, 16, dtype=dtype), torch.full((5, 3, 1), 90.0, dtype=dtype)], -1)
    logits[..., ::2] *= -1
    grey, inked = torch.rand(3, 17, dtype=dtype), (torch.rand(3, 17) < 0.5).to(dtype)
    inked[:, -1] = (logits[0, :, -1] > 0).to(dtype)
    given = (logits if parameter == "logits" else (logits / 3).sigmoid()).requires_grad_()

    class Pixels:
        prior = Independent(Normal(torch.zeros(2, dtype=dtype), torch.ones(2, dtype=dtype)), 1)

        def likelihood(self, z):
            return Independent(Bernoulli(**{parameter: given}, validate_args=False), 1)

    for x in (grey, inked):
        ours, reference = bounds._log_likelihood(Pixels(), torch.zeros(5, 3, 2), x), Pixels().likelihood(None)
        reference = reference.log_prob(x)
        tolerance = 1e-12 if dtype == DOUBLE else 2e-5
        torch.testing.assert_close(ours, reference, rtol=tolerance, atol=10 * tolerance)
        gradients = [torch.autograd.grad(value.sum(), given)[0] for value in (ours, reference)]
        torch.testing.assert_close(*gradients, rtol=tolerance, atol=tolerance)
    # a pixel decided to 25 nats: torch's own softplus would be off by 1e-11 in float64
    sure = torch.full((1, 1, 1), 25.0, dtype=DOUBLE)
    Pixels.likelihood = lambda self, z: Independent(Bernoulli(logits=sure), 1)
    sure_value = bounds._log_likelihood(Pixels(), torch.zeros(1, 1, 2), torch.zeros(1, 1, dtype=DOUBLE))
    assert sure_value.item() == -25 - math.log1p(math.exp(-25))


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
