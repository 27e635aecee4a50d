"""The measure-valued estimator of a gradient, a weighted difference of two distributions: chapter 4."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vaetut._support.validate import name_of
from vaetut.gradients._inputs import check, is_differentiated, values_of, with_gradient

# How many numbers the moved copies of the draws may hold at once, 4 MB in float32.
_CHUNK_ELEMENTS = 2**20


def measure_valued(
    f: Callable[[Tensor], Tensor], q: Distribution, num_samples: int, coupled: bool = True
) -> Tensor:
    r"""Measure-valued estimator: the derivative of the density is a difference of two densities (``eq-grad-measure``).

    $\partial q_\phi / \partial \phi_k = c\, (q^+ - q^-)$, so that $c\, (f(z^+) - f(z^-))$ is an unbiased estimate.
    For a Gaussian $\mathcal N(\mu, \sigma^2)$, with $w$ of a Rayleigh and $m$ of a double-sided Maxwell distribution,

    - mean: $c = 1 / (\sigma \sqrt{2 \pi})$ and $z^\pm = \mu \pm \sigma w$, $w$ with density $w\, e^{-w^2 / 2}$;
    - scale: $c = 1 / \sigma$, $z^+ = \mu + \sigma m$, $m$ with density $m^2 e^{-m^2 / 2} / \sqrt{2 \pi}$, and
      $z^- = z$, a draw of q itself.

    f may jump and need not be differentiable. But every *number* among the parameters needs its own evaluations of f:
    with D coordinates f is evaluated $1 + 2D$ times per draw for the means, $1 + D$ times for the scales,
    $1 + 3D$ times for both. Memory is bounded: f is called with moved copies of the draws that hold some million
    numbers together, or with those of one coordinate if they are more.

    Args:
        f: maps ``z [n, *q.batch_shape, *q.event_shape]`` to one value each, ``[n, *q.batch_shape]``, for any n.
        q: ``Normal`` or ``Independent(Normal, …)``, of which ``loc`` or ``scale`` requires a gradient. A subclass with
            its own density is refused.
        num_samples: L, the number of draws.
        coupled: whether the two draws of a pair share their noise: the same $w$ on both sides; $m$ and the
            Gaussian noise $\epsilon$ of z as $m = \operatorname{sign}(\epsilon) \sqrt{\epsilon^2 + w^2}$. Otherwise
            they are independent in the coordinate concerned; the other coordinates are always the same. For the
            mean, sharing lowers the variance if f is nearly even about the mean, and raises it if f is monotone
            (``eq-grad-coupling``).

    Returns:
        Surrogates ``[num_samples, *q.batch_shape]``: the value is f(z), the gradient the estimator.

    Raises:
        TypeError: if q is not a distribution, f is not a function or returns no tensor, or ``num_samples`` is not an
            int.
        ValueError: if f does not return one value per draw, if ``num_samples`` is less than 1, or if no parameter
            requires a gradient.
        NotImplementedError: if q is not such a Gaussian.

    Source:
        Pflug (1989), doi:10.1007/BF02243227; Mohamed et al. (2020), section 6; chapter 4.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> mu = torch.tensor(1.5, requires_grad=True)
        >>> surrogate = measure_valued(lambda z: z > 0, Normal(mu, 1.0), 100_000)
        >>> (gradient,) = torch.autograd.grad(surrogate.mean(0), mu)
        >>> round(gradient.item(), 2)
        0.13
    """
    shape = check(f, q, num_samples)
    base, event = _gaussian(q), math.prod(q.event_shape)
    # [*batch, event]: the last axis holds the coordinates, even if there is only one
    loc, scale = (t.expand(base.batch_shape).reshape(*q.batch_shape, event) for t in (base.loc, base.scale))
    mu, sigma = loc.detach(), scale.detach()

    eps = torch.randn((*shape, event), dtype=mu.dtype, device=mu.device)
    z = mu + sigma * eps
    values = values_of(f, z.reshape(*shape, *q.event_shape), shape)
    moved: list[Tensor] = []
    if is_differentiated(loc):
        w = _rayleigh(eps)
        moved += [mu + sigma * w, mu - sigma * (w if coupled else _rayleigh(eps))]
    if is_differentiated(scale):
        gauss = eps if coupled else torch.randn_like(eps)
        moved.append(mu + sigma * torch.copysign(torch.hypot(gauss, _rayleigh(eps)), gauss))
    if not moved:
        return with_gradient(values)

    with torch.no_grad():
        # Allocated once: between large tensors, small ones that stay would keep the allocator from using their memory.
        parts = values.new_empty(len(moved), *shape, event)
        done = 0
        for part in _moved_one_by_one(z, moved):  # [k, coordinates, *shape, event]
            many = torch.Size((part.shape[0] * part.shape[1] * shape[0], *q.batch_shape))
            f_moved = values_of(f, part.reshape(*many, *q.event_shape), many)
            parts[..., done : done + part.shape[1]] = f_moved.reshape(*part.shape[:2], *shape).movedim(1, -1)
            done += part.shape[1]

    surrogate = values
    if is_differentiated(loc):
        weight = (parts[0] - parts[1]) / (sigma * math.sqrt(2 * math.pi))
        surrogate = surrogate + (weight * (loc - mu)).sum(-1)
    if is_differentiated(scale):
        weight = (parts[-1] - values.detach().unsqueeze(-1)) / sigma
        surrogate = surrogate + (weight * (scale - sigma)).sum(-1)
    return with_gradient(surrogate)


def _moved_one_by_one(z: Tensor, moved: list[Tensor]) -> Iterator[Tensor]:
    """Copies of z with one coordinate each moved to each point of ``moved``, a chunk of coordinates at a time."""
    event = z.shape[-1]
    chunk = max(1, _CHUNK_ELEMENTS // max(1, len(moved) * z.numel()))
    for coordinates in torch.arange(event, device=z.device).split(chunk):
        only = coordinates.reshape(-1, *(1 for _ in z.shape)) == torch.arange(event, device=z.device)
        yield torch.stack([torch.where(only, point, z) for point in moved])


def _rayleigh(like: Tensor) -> Tensor:
    """Draws with density w exp(-w² / 2): the length of two standard Gaussian noises."""
    return torch.empty_like(like).exponential_().mul_(2).sqrt_()


def _gaussian(q: Distribution) -> Normal:
    base: Any = q
    while isinstance(base, Independent) and type(base).log_prob is Independent.log_prob:
        base = base.base_dist
    if not isinstance(base, Normal) or type(base).log_prob is not Normal.log_prob:
        own = ", which has a density of its own" if isinstance(base, Normal | Independent) else ""
        raise NotImplementedError(
            "measure_valued exists for the mean and scale of Normal and Independent(Normal, …), "
            f"got {name_of(q)}{own}; use score_function, or pathwise where q has a map"
        )
    return base
