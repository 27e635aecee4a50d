"""Datapoints whose importance weights are all 0: the bound is −∞, the gradient 0, and other datapoints keep theirs."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Exponential, Independent, Normal, TransformedDistribution
from torch.distributions.transforms import AffineTransform

from vaetut import cubo_bound, iwae_bound, log_evidence
from vaetut.bounds import doubly_reparameterized, log_weights, sticking_the_landing

D = torch.float64
X = torch.tensor([[50.0], [-50.0], [0.0]], dtype=D)  # all draws of z are below, all above, some below


class Late:
    """x = z + an exponential variable, so that p(x|z) is 0 for x < z."""

    prior = Independent(Normal(torch.zeros(1, dtype=D), 1.0), 1)

    def __init__(self, rate: Tensor) -> None:
        self.rate = rate

    def likelihood(self, z: Tensor) -> Distribution:
        delay = Exponential(self.rate.expand(z.shape), validate_args=False)
        return Independent(Shifted(delay, AffineTransform(z, 1.0), validate_args=False), 1)


class Shifted(TransformedDistribution):
    def log_prob(self, value: Tensor) -> Tensor:
        delay = value - self.transforms[0].loc
        inside = delay >= 0
        return torch.where(inside, self.base_dist.log_prob(torch.where(inside, delay, 0.0)), -math.inf)


def make() -> tuple[Late, Independent, tuple[Tensor, ...]]:
    rate = torch.tensor(0.7, dtype=D, requires_grad=True)
    loc = torch.full((3, 1), 0.2, dtype=D, requires_grad=True)
    scale = torch.full((3, 1), 0.9, dtype=D, requires_grad=True)
    return Late(rate), Independent(Normal(loc, scale), 1), (rate, loc, scale)


def by_weights(log_w: Tensor, of: Tensor, power: float) -> Tensor:
    """Σ w̄ ∇ log w, with the weights to a power as numbers, of the datapoints that have weights."""
    weight = torch.where(torch.isinf(log_w.detach()), 0.0, (power * log_w.detach()).exp())
    weight = weight / weight.sum(0).clamp(min=1e-300)
    total = (weight * torch.where(torch.isinf(log_w), 0.0, log_w)).sum()
    return torch.autograd.grad(total, of, retain_graph=True)[0]


@pytest.mark.parametrize(
    ("bound", "power", "stop"),
    [(iwae_bound, 1.0, False), (cubo_bound, 2.0, False), (sticking_the_landing, 1.0, True)],
)
def test_gradients_are_those_of_the_other_datapoints(bound, power, stop):
    model, q, params = make()
    torch.manual_seed(0)
    log_w = log_weights(model, q, X, 20, stop_q=stop)
    some = torch.isinf(log_w).sum(0)
    assert some[0] == 0 and some[1] == 20 and 0 < some[2] < 20
    torch.manual_seed(0)
    value = bound(model, q, X, 20)
    assert value[1] == -math.inf and torch.isfinite(value[[0, 2]]).all()
    for param, found in zip(params, torch.autograd.grad(value.sum(), params), strict=True):
        torch.testing.assert_close(found, by_weights(log_w, param, power), rtol=1e-12, atol=1e-13)
        if param.dim():
            assert found[1] == 0


def test_doubly_reparameterized_gradients():
    model, q, params = make()
    torch.manual_seed(0)
    value = doubly_reparameterized(model, q, X, 20)
    assert value[1] == -math.inf and torch.isfinite(value[[0, 2]]).all()
    rate, loc, scale = torch.autograd.grad(value.sum(), params)
    assert torch.isfinite(rate)
    assert loc[1] == 0 and scale[1] == 0
    assert (loc[[0, 2]] != 0).all() and torch.isfinite(torch.cat([loc, scale])).all()
    # the rate's gradient has plain weights
    torch.manual_seed(0)
    plain = torch.autograd.grad(iwae_bound(model, q, X, 20).sum(), params[0])[0]
    torch.testing.assert_close(rate, plain, rtol=1e-12, atol=0)


def test_second_derivatives_are_defined():
    model, q, (rate, loc, scale) = make()
    torch.manual_seed(0)
    value = iwae_bound(model, q, X, 20).sum()
    first = torch.autograd.grad(value, (rate, loc, scale), create_graph=True)
    for second in torch.autograd.grad(sum(f.sum() for f in first), (rate, loc, scale)):
        assert torch.isfinite(second).all()


@pytest.mark.parametrize("chunk_size", [None, 1, 7])
def test_log_evidence(chunk_size):
    model, q, _ = make()
    torch.manual_seed(0)
    log_w = log_weights(model, q, X, 20).detach()
    torch.manual_seed(0)
    found = log_evidence(model, q, X, 20, chunk_size=chunk_size)
    if chunk_size is None:  # the same draws
        torch.testing.assert_close(found.value, log_w.exp().mean(0).log(), rtol=1e-12, atol=0)
    assert found.value[1] == -math.inf
    assert found.standard_error.isnan().tolist() == [False, True, False]
