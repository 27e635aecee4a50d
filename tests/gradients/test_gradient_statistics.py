"""gradient_statistics: the numbers of a plain loop, in bounded memory, for parameters of any shape."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Dirichlet, Independent, MultivariateNormal, Normal, Uniform

from vaetut.gradients import GradientStatistics, gradient_statistics, pathwise, score_function, statistics

N = 100_000
ONE = {"loc": torch.tensor(1.0, dtype=torch.float64), "scale": torch.tensor(0.5, dtype=torch.float64)}


def recorded(gradients):
    """An estimator of the derivative of E[z²] that also writes its gradients down."""

    def estimator(f, q, num_samples):
        z = q.sample((num_samples,))
        noise = (z - q.loc.detach()) / q.scale.detach()
        in_loc, in_scale = 2 * z, 2 * z * noise
        gradients["loc"].append(in_loc.mean(0))
        gradients["scale"].append(in_scale.mean(0))
        moved = in_loc * (q.loc - q.loc.detach()) + in_scale * (q.scale - q.scale.detach())
        return f(z) + moved

    return estimator


@pytest.mark.parametrize("chunk_elements", [64, 500, 10**6])
@pytest.mark.parametrize("samples_per_estimate", [1, 5])
def test_moments_are_those_of_all_gradients_together(monkeypatch, chunk_elements, samples_per_estimate):
    monkeypatch.setattr(statistics, "_CHUNK_ELEMENTS", chunk_elements)
    gradients = {"loc": [], "scale": []}
    found = gradient_statistics(
        recorded(gradients), torch.square, Normal, ONE, 1000, samples_per_estimate=samples_per_estimate
    )
    for name, parts in gradients.items():
        x, s = torch.cat(parts).numpy(), samples_per_estimate
        n = len(x)
        assert n == 1000 // s
        variance = x.var(ddof=1)
        fourth = ((x - x.mean()) ** 4).mean()
        of_variance = (fourth - (n - 3) / (n - 1) * variance**2) / n
        expected = (x.mean(), s * variance, math.sqrt(variance / n), s * math.sqrt(of_variance))
        np.testing.assert_allclose([part.item() for part in found[name]], expected, rtol=1e-12)


def test_merging_is_stable_far_from_zero(monkeypatch):
    """A mean that is a billion times the standard deviation, in a thousand pieces."""
    monkeypatch.setattr(statistics, "_CHUNK_ELEMENTS", 200)
    written = []

    def estimator(f, q, num_samples):
        x = 1e9 + torch.randn(num_samples, *q.batch_shape, dtype=torch.float64)
        written.append(x[0])
        return f(q.sample((num_samples,))) + x * (q.loc - q.loc.detach())

    found = gradient_statistics(estimator, torch.square, Normal, ONE, N)["loc"]
    x = torch.cat(written).numpy() - 1e9
    assert abs(found.variance - x.var(ddof=1)) < 1e-6
    assert abs(found.variance_standard_error - math.sqrt(2 / N)) < 1e-4
    assert found.standard_error.item() == pytest.approx(N**-0.5, rel=0.02)


def test_against_a_loop_over_the_draws():
    """The same draws one by one, each with a backward pass of its own."""
    n, f = 200, torch.sin
    torch.manual_seed(1)
    found = gradient_statistics(pathwise, f, Normal, ONE, n)
    torch.manual_seed(1)
    rows = []
    for eps in torch.empty(n, dtype=torch.float64).normal_():
        loc, scale = (value.clone().requires_grad_() for value in ONE.values())
        rows.append(torch.stack(torch.autograd.grad(f(loc + scale * eps), (loc, scale))))
    rows = torch.stack(rows)
    for k, name in enumerate(ONE):
        torch.testing.assert_close(found[name].mean, rows[:, k].mean(0))
        torch.testing.assert_close(found[name].variance, rows[:, k].var(0))


def test_variance_standard_error_is_calibrated():
    """Over 400 runs the variances scatter as their standard errors say, and so do the means."""
    runs = [gradient_statistics(score_function, torch.square, Normal, ONE, 2000)["loc"] for _ in range(400)]
    for value, error in (("mean", "standard_error"), ("variance", "variance_standard_error")):
        values, errors = (torch.stack([getattr(run, name) for run in runs]) for name in (value, error))
        ratio = values.std() / errors.square().mean().sqrt()
        assert 0.8 < ratio < 1.2, (value, ratio)  # 400 runs know it to 4 %, and heavy tails add to that


def test_ten_million_draws_in_bounded_memory():
    """f never sees more than a quarter of a million numbers at once, and every draw is seen."""
    seen = []

    def f(z):
        seen.append(z.numel())
        return z.square()

    found = gradient_statistics(pathwise, f, Normal, {"loc": torch.tensor(1.0), "scale": 1.0}, 10**7)["loc"]
    assert max(seen) <= 2**18 and sum(seen) == 10**7
    assert abs(found.mean - 2) < 5 * found.standard_error < 0.01
    assert abs(found.variance - 4) < 5 * found.variance_standard_error < 0.02
    assert found.variance_standard_error.item() == pytest.approx(4 * math.sqrt(2 / 10**7), rel=0.01)


# Parameters of any shape


def gaussian(loc, scale):
    return Independent(Normal(loc, scale), 1)


TRIL = torch.tensor([[1.2, 0.0], [0.6, 0.5]])
LOC = torch.tensor([0.3, -1.0])
SHAPES = {
    "a shared scale": (Normal, {"loc": torch.zeros(5), "scale": torch.tensor(1.0)}, lambda z: z**2),
    "rows and columns": (Normal, {"loc": torch.zeros(4, 1), "scale": torch.ones(3)}, lambda z: z**2),
    "a vector": (gaussian, {"loc": torch.zeros(2, 3), "scale": torch.ones(3)}, lambda z: z.prod(-1)),
    "a vector, one scale": (gaussian, {"loc": torch.zeros(3), "scale": torch.ones(1)}, lambda z: z.sum(-1)),
    "a scale without shape": (
        lambda loc, scale: Independent(Normal(loc, scale), 1),
        {"loc": torch.zeros(3), "scale": torch.tensor(1.0)},
        lambda z: z.sum(-1),
    ),
    "a covariance": (MultivariateNormal, {"loc": LOC, "scale_tril": TRIL}, lambda z: z.prod(-1)),
    "one coordinate": (gaussian, {"loc": torch.zeros(1), "scale": torch.tensor(1.0)}, lambda z: z[..., 0]),
    "a simplex": (Dirichlet, {"concentration": torch.ones(3)}, lambda z: z[..., 0]),
    "constants": (Normal, {"loc": torch.zeros(2), "scale": 1.0, "validate_args": True}, lambda z: z),
}


@pytest.mark.parametrize("what", SHAPES)
def test_parameters_of_any_shape(what):
    family, params, f = SHAPES[what]
    found = gradient_statistics(score_function, f, family, params, 1000)
    assert list(found) == [name for name, value in params.items() if isinstance(value, torch.Tensor)]
    for name, part in found.items():
        assert isinstance(part, GradientStatistics)
        for field in part:
            assert field.shape == params[name].shape and field.dtype == params[name].dtype
            assert torch.isfinite(field).all() and not field.requires_grad


def test_a_shared_parameter_has_the_gradient_of_the_sum():
    """Five times the derivative of σ² for the shared scale, and the variance of a sum of five."""
    params = {"loc": torch.zeros(5, dtype=torch.float64), "scale": torch.tensor(2.0, dtype=torch.float64)}
    found = gradient_statistics(pathwise, torch.square, Normal, params, N)["scale"]
    assert abs(found.mean - 5 * 4) < 5 * found.standard_error
    assert abs(found.variance - 5 * 4 * 4 * 2) < 5 * found.variance_standard_error


def test_a_covariance_matrix_is_right():
    found = gradient_statistics(
        pathwise, lambda z: z.prod(-1), MultivariateNormal, {"loc": LOC, "scale_tril": TRIL}, N
    )
    truth = {"loc": torch.tensor([-1.0, 0.3]), "scale_tril": torch.tensor([[0.6, 0.0], [1.2, 0.0]])}
    for name, part in found.items():
        off = (part.mean - truth[name]) / part.standard_error
        off = off.tril() if off.dim() == 2 else off  # what stands above the diagonal is not a parameter
        assert off.abs().max() < 5


def test_leaves_the_parameters_alone():
    params = {"loc": torch.zeros(2, requires_grad=True), "scale": torch.ones(2)}
    gradient_statistics(pathwise, torch.square, Normal, params, 100)
    assert params["loc"].grad is None and list(params) == ["loc", "scale"]


def test_a_parameter_without_influence_has_the_gradient_zero():
    def estimator(f, q, num_samples):
        return f(q.sample((num_samples,))) + 0 * q.loc

    found = gradient_statistics(estimator, torch.square, Normal, ONE, 100)["scale"]
    assert found.mean == 0 and found.variance == 0


# Bad input


# fmt: off
BAD = {
    "one draw": (dict(num_samples=1), ValueError, "at least twice as many, got 1 and 1"),
    "an odd number": (dict(num_samples=15, samples_per_estimate=2), ValueError, "a multiple of samples_per_estimate"),
    "params is a list": (dict(params=[1.0]), TypeError, "params must be a mapping .* got list"),
    "params are numbers": (dict(params={"loc": 0.0, "scale": 1.0}), ValueError, "must hold a floating-point tensor"),
    "params are whole": (dict(params={"loc": torch.tensor(0), "scale": 1.0}), ValueError, "floating-point tensor"),
    "a family of tensors": (dict(family=lambda loc, scale: loc), TypeError, "family must return a Dist.*, got Tensor"),
    "a value outside": (dict(params={"loc": torch.tensor(0.0), "scale": torch.tensor(-1.0)}), ValueError, "scale"),
    "a baseline of one": (dict(baseline="mean"), ValueError, "set samples_per_estimate"),
    "an unknown option": (dict(via="implicit"), TypeError, "via"),
    "f sums up": (dict(f=lambda z: z.sum()), ValueError, "one value per draw"),
    "a moving support": (dict(family=Uniform, params={"low": 0.0, "high": torch.tensor(1.0)}), ValueError, "pathwise"),
}
# fmt: on


@pytest.mark.parametrize("what", BAD)
def test_bad_input(what):
    changes, kind, message = BAD[what]
    arguments = {"f": torch.square, "family": Normal, "params": ONE, "num_samples": 100} | changes
    with pytest.raises(kind, match=message):
        gradient_statistics(score_function, **arguments)


def test_discrete_and_pathwise():
    with pytest.raises(NotImplementedError, match="discrete"):
        gradient_statistics(pathwise, lambda z: z, Categorical, {"logits": torch.zeros(3)}, 100)


def test_an_estimator_that_averages():
    with pytest.raises(
        ValueError, match=r"estimator must return surrogates of shape \(1, 100\), got \(100,\)"
    ):
        gradient_statistics(lambda f, q, n: f(q.rsample((n,))).mean(0), torch.square, Normal, ONE, 100)


def test_a_family_that_reads_the_first_dimension():
    def family(loc):
        return Independent(Normal(loc[0] - loc[1], 1.0), loc.dim() - 1)

    with pytest.raises(ValueError, match="one more dimension in front"):
        gradient_statistics(pathwise, torch.square, family, {"loc": torch.zeros(2)}, 100)
