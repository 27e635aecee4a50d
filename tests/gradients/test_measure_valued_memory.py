"""The measure-valued estimator of a large vector: in chunks, with the same result, and of no other distribution."""

import pytest
import torch
from torch.distributions import Independent, Normal

from vaetut.gradients import measure_valued

module = __import__("sys").modules["vaetut.gradients.measure_valued"]


def gradients(f, loc, scale, draws):
    torch.manual_seed(0)
    surrogate = measure_valued(f, Independent(Normal(loc, scale), 1), draws)
    return (surrogate.detach(), *torch.autograd.grad(surrogate.sum(), (loc, scale)))


@pytest.mark.parametrize("limit", [1, 50, 1000])
def test_chunks_do_not_change_the_estimate(monkeypatch, limit):
    loc = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    scale = torch.rand(3, 7, dtype=torch.float64, requires_grad=True)
    rows = []

    def f(z):
        rows.append(len(z))
        return z.prod(-1).sin()

    whole = gradients(f, loc, scale, 4)
    assert rows == [4, 3 * 7 * 4]
    rows.clear()
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", limit)
    for a, b in zip(gradients(f, loc, scale, 4), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    per_coordinate = 3 * 4
    chunk = max(1, limit // (3 * 4 * 3 * 7))
    assert max(rows[1:]) == min(chunk, 7) * per_coordinate and sum(rows) == 4 + 7 * per_coordinate


def test_a_large_vector_is_moved_a_few_coordinates_at_a_time():
    """784 coordinates and 100 draws are 184 million numbers in one piece."""
    largest = 0

    def f(z):
        nonlocal largest
        largest = max(largest, z.numel())
        return z.square().sum(-1)

    loc = torch.zeros(784, requires_grad=True)
    scale = torch.ones(784, requires_grad=True)
    found = gradients(f, loc, scale, 100)
    assert largest <= 2**22
    assert (found[2].mean() / 100 - 2).abs() < 0.05  # of the sum of 784 variances, 2σ each


class Truncated(Normal):
    """As in DrQ-v2: a normal whose density is another's."""

    def log_prob(self, value):
        return super().log_prob(value).masked_fill(value.abs() > 1, -torch.inf)


class Tilted(Independent):
    def log_prob(self, value):
        return super().log_prob(value) + value.sum(-1)


class Named(Normal):
    """A subclass that changes nothing of the density is a normal."""


@pytest.mark.parametrize(
    "q",
    [
        Truncated(torch.zeros(3, requires_grad=True), 1.0),
        Tilted(Normal(torch.zeros(3, requires_grad=True), 1.0), 1),
        Independent(Truncated(torch.zeros(3, requires_grad=True), 1.0), 1),
    ],
)
def test_a_subclass_with_a_density_of_its_own_is_not_its_base(q):
    with pytest.raises(NotImplementedError, match="which has a density of its own; use score_function"):
        measure_valued(lambda z: z.reshape(5, -1).sum(-1), q, 5)


def test_a_subclass_without_one_is():
    q = Named(torch.zeros(3, requires_grad=True), 1.0)
    assert measure_valued(torch.square, q, 5).shape == (5, 3)
