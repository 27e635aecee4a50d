"""Measure-valued gradients of vectors, by hand, and what they cost."""

import math

import pytest
import torch
from estimator_cases import (
    N,
)
from torch.distributions import (
    Independent,
    Normal,
)

from vaetut.gradients import gradient_statistics, measure_valued


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
