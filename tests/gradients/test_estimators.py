"""All estimators alike: exact means and variances by quadrature, surrogates, bad input."""

import numpy as np
import pytest
import torch
from estimator_cases import CASES, COSTS, ESTIMATORS, N, exact, measured, z_scores
from torch.distributions import (
    Bernoulli,
    Categorical,
    Independent,
    Laplace,
    LogNormal,
    MixtureSameFamily,
    Normal,
    Pareto,
    Uniform,
)

from vaetut.gradients import measure_valued, pathwise, score_function


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


# Surrogates


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
