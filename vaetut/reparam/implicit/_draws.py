"""Draws for implicit gradients, also of distributions for which torch divides gamma variables that underflow."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Beta,
    Dirichlet,
    FisherSnedecor,
    Independent,
    MixtureSameFamily,
    TransformedDistribution,
)

# Quotients of gamma variables, which torch does not draw in logs: if both concentrations are 0.001, a quarter of
# torch's beta draws are exactly 1/2, because both gamma variables underflow to 0.
_QUOTIENTS = (Beta, Dirichlet, FisherSnedecor)


def draw(q: Any, shape: torch.Size) -> Tensor:
    """Draw z from q, without a gradient: by its own sampler, or by its composition where torch's sampler underflows."""
    leaf = q
    while type(leaf) in (Independent, MixtureSameFamily, TransformedDistribution):
        leaf = leaf.component_distribution if type(leaf) is MixtureSameFamily else leaf.base_dist
    if type(leaf) not in _QUOTIENTS:
        z: Tensor = q.sample(shape)
        return z
    with torch.no_grad():
        return _draw(q, shape)


def _draw(q: Any, shape: torch.Size) -> Tensor:
    from vaetut.reparam.registry import reparameterize

    if type(q) is Independent:
        return _draw(q.base_dist, shape)
    if type(q) is TransformedDistribution:
        z = _draw(q.base_dist, shape)
        for transform in q.transforms:
            z = transform(z)
        return z
    if type(q) is MixtureSameFamily:
        dims = len(q.event_shape)
        index = q.mixture_distribution.sample(shape)
        components = _draw(q.component_distribution, shape)
        axis = components.dim() - dims - 1
        index = index[(..., *(None,) * (dims + 1))].expand(*index.shape, 1, *q.event_shape)
        return components.gather(axis, index).squeeze(axis)
    return reparameterize(q, "composition").rsample(shape)
