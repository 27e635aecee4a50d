"""Copies of distributions with other tensors, against the closed form of what they are copies of."""

import pytest
import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import transforms as tt

from vaetut.distributions.copies import tensors_of, with_tensors
from vaetut.reparam import implicit_gradient

LOC, SCALE = torch.tensor(0.25), torch.tensor(2.0)
TRANSFORMS = {
    "affine": lambda: tt.AffineTransform(LOC, SCALE),
    "inverse": lambda: tt.AffineTransform(-LOC / SCALE, 1 / SCALE).inv,
    "composed": lambda: tt.ComposeTransform([tt.AffineTransform(0.0, SCALE), tt.AffineTransform(LOC, 1.0)]),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_that_made_its_inverse(name: str) -> None:
    """It is copied once, not back and forth without end, and the copy's inverse has the new tensors."""
    transform = TRANSFORMS[name]()
    assert transform.inv.inv is transform
    q = td.TransformedDistribution(td.Normal(torch.tensor(0.0), torch.tensor(1.0)), [transform])
    copy = with_tensors(q, lambda tensor: tensor.double() + 0)
    (copied,) = copy.transforms
    y = torch.tensor(3.25, dtype=torch.float64)
    assert copied is not transform
    assert copied.inv.inv is copied
    assert copied.inv(y).dtype == torch.float64
    torch.testing.assert_close(copied.inv(y), (y - 0.25) / 2)
    assert transform.inv.inv is transform  # the original is left alone


def test_an_inverse_in_a_copy_follows_the_new_tensors() -> None:
    transform = tt.AffineTransform(LOC, SCALE)
    inverse = transform.inv
    q = td.TransformedDistribution(td.Normal(torch.tensor(0.0), torch.tensor(1.0)), [transform])
    copy = with_tensors(q, lambda tensor: 3 * tensor)
    torch.testing.assert_close(copy.transforms[0].inv(torch.tensor(6.75)), torch.tensor(1.0))
    torch.testing.assert_close(inverse(torch.tensor(2.25)), torch.tensor(1.0))


@pytest.mark.parametrize("cache_size", [0, 1])
def test_what_a_transform_cached_is_no_parameter(cache_size: int) -> None:
    """A transform with a cache keeps its last argument and value: they are not among the distribution's tensors."""
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    base = td.Normal(torch.zeros_like(scale), torch.ones_like(scale))
    q = td.TransformedDistribution(base, [tt.AffineTransform(0.0, scale, cache_size=cache_size)])
    before = len(tensors_of(q))
    z: Tensor = q.rsample()
    assert len(tensors_of(q)) == before
    z = z.detach()
    (slope,) = torch.autograd.grad(implicit_gradient(q, z), scale)
    torch.testing.assert_close(slope, z / 2, rtol=1e-10, atol=0)  # z = σε
