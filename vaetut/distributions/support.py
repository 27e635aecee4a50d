r"""The ends of the support of a univariate distribution, as tensors with their gradients.

If an end depends on a parameter, the derivative of an expectation has a term at that end: by Leibniz's rule

d/dφ ∫_{a(φ)}^{b(φ)} p f dz = ∫ ∂p/∂φ f dz + p(b) f(b) db/dφ − p(a) f(a) da/dφ,

which the score-function estimator lacks. A pathwise gradient includes it, since the draws themselves move.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    ComposeTransform,
    Distribution,
    GeneralizedPareto,
    Independent,
    IndependentTransform,
    MixtureSameFamily,
    Transform,
    TransformedDistribution,
)
from torch.distributions.constraints import Constraint

from vaetut._support.validate import distribution
from vaetut.distributions.copies import tensors_of


def is_transformed(q: Any) -> bool:
    """Whether the support must be computed from q's base: for torch the support of 5 + Gamma is "real"."""
    return isinstance(q, TransformedDistribution) and type(q).support is TransformedDistribution.support


def is_discrete(q: Distribution) -> bool:
    """Whether q has atoms; torch calls the support of a shifted Poisson "real".

    Example:
        >>> from torch.distributions import Poisson
        >>> is_discrete(TransformedDistribution(Poisson(torch.tensor(2.0)), [AffineTransform(1.0, 1.0)]))
        True
    """
    while isinstance(q, TransformedDistribution | Independent | MixtureSameFamily):
        q = q.component_distribution if isinstance(q, MixtureSameFamily) else q.base_dist
    try:
        support: Any = q.support
    except NotImplementedError:
        return False
    return bool(getattr(support, "is_discrete", False))


def support_ends(q: Distribution) -> tuple[Tensor, Tensor]:
    r"""The lower and the upper end of the support of q, with their gradients in its parameters.

    For an ``Independent`` they are those of its base, for a ``TransformedDistribution`` they go through its transforms
    (a decreasing one exchanges the ends), and a ``MixtureSameFamily`` has the outermost ends of its components. Whether
    an end belongs to the support is not reported.

    Args:
        q: a continuous distribution of one coordinate, or of independent ones.

    Returns:
        Two tensors ``[*batch_shape, *event_shape]`` of q's dtype; −inf and inf, with a gradient of 0, where the support
        has no end.

    Raises:
        TypeError: if q is not a distribution.
        ValueError: if q is discrete.
        NotImplementedError: if q defines no support, or one that has no ends (a simplex), or if it has a transform
            that is not one-to-one.

    Example:
        >>> from torch.distributions import AffineTransform, Exponential
        >>> loc = torch.tensor(5.0, requires_grad=True)
        >>> q = TransformedDistribution(Exponential(torch.tensor(2.0)), [AffineTransform(loc, -1.0)])
        >>> low, high = support_ends(q)
        >>> low.item(), high.item(), high.requires_grad
        (-inf, 5.0, True)
    """
    distribution(q, "q")
    if isinstance(q, Independent):
        return support_ends(q.base_dist)
    if isinstance(q, MixtureSameFamily):
        low, high = support_ends(q.component_distribution)
        dim = -1 - len(q.event_shape)
        return low.amin(dim), high.amax(dim)
    if is_transformed(q):
        return _through(q, *support_ends(q.base_dist))  # type: ignore[attr-defined,arg-type]
    name = type(q).__name__
    try:
        support: Any = q.support
    except NotImplementedError:
        support = None
    if support is None:
        raise NotImplementedError(f"{name} must define support, from which its ends are read")
    if support.is_discrete:
        raise ValueError(f"q must be continuous, got {name}")
    support = getattr(support, "base_constraint", support)
    if isinstance(q, GeneralizedPareto) and type(q).support is GeneralizedPareto.support:
        bounded = q.concentration < 0
        reach = q.scale / torch.where(bounded, q.concentration, -1.0)  # at 0 torch's has a gradient of 0 · ∞
        return q.loc, torch.where(bounded, q.loc - reach, math.inf)
    if support.event_dim:
        raise NotImplementedError(f"the support of {name}, {support}, has no ends")
    shape = q.batch_shape + q.event_shape
    like = next(iter(tensors_of(q)), torch.empty(0))
    return tuple(  # type: ignore[return-value]
        torch.as_tensor(end, dtype=like.dtype, device=like.device).expand(shape) for end in _bounds(support)
    )


def support_moves(q: Distribution) -> bool:
    """Whether an end of the support moves with a parameter of q that requires a gradient.

    For a mixture the ends of all components count, since the density jumps there too.

    An end whose derivative is 0 does not move: an exponential variable times a scale starts at 0 for every scale. The
    values of the parameters are read.

    Raises:
        As `support_ends`.

    Example:
        >>> from torch.distributions import Uniform
        >>> support_moves(Uniform(torch.tensor(0.0), torch.tensor(1.0, requires_grad=True)))
        True
    """
    while isinstance(q, Independent | MixtureSameFamily):
        q = q.base_dist if isinstance(q, Independent) else q.component_distribution
    with torch.enable_grad():
        return any(end_moves(end, q) for end in support_ends(q))


def end_moves(end: Tensor, q: Distribution) -> bool:
    """Whether an end of the support of q has a derivative in one of its parameters that is not 0."""
    tensors = [tensor for tensor in tensors_of(q) if tensor.requires_grad]
    end = torch.where(end.isfinite(), end, 0.0)
    if not tensors or not end.requires_grad:
        return False
    # Different weights for all entries, so that the derivatives in a common parameter do not cancel in their sum.
    weights = torch.arange(1.0, end.numel() + 1, dtype=end.dtype, device=end.device).sqrt()
    slopes = torch.autograd.grad(
        end, tensors, weights.reshape(end.shape), retain_graph=True, allow_unused=True
    )
    return any(slope is not None and bool((slope != 0).any()) for slope in slopes)


def by_coordinate(transform: Transform) -> Transform:
    """The transform of one coordinate, where it treats each of a vector by itself."""
    if isinstance(transform, ComposeTransform):
        parts = [by_coordinate(part) for part in transform.parts]
        flat = [p.parts if isinstance(p, ComposeTransform) else [p] for p in parts]
        return ComposeTransform([part for some in flat for part in some])
    if isinstance(transform, IndependentTransform):
        return by_coordinate(transform.base_transform)
    if isinstance(transform, AffineTransform) and transform.event_dim:
        return AffineTransform(transform.loc, transform.scale)
    return transform


def _bounds(constraint: Constraint) -> tuple[Any, Any]:
    return getattr(constraint, "lower_bound", -math.inf), getattr(constraint, "upper_bound", math.inf)


def _through(q: TransformedDistribution, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The ends after the transforms of q."""
    transforms: list[Transform] = []
    for transform in q.transforms:
        transform = by_coordinate(transform)
        transforms += transform.parts if isinstance(transform, ComposeTransform) else [transform]
    for transform in transforms:
        if not transform.bijective:
            raise NotImplementedError(
                f"q has a transform that is not one-to-one, in {q.transforms}; use q.rsample()"
            )
        if transform.domain.event_dim:
            raise NotImplementedError(f"q has a transform that mixes coordinates, in {q.transforms}")
        rising = torch.as_tensor(transform.sign, device=low.device) > 0
        first, last = _bounds(transform.codomain)
        limits = (torch.as_tensor(end, dtype=low.dtype, device=low.device) for end in (first, last))
        first, last = limits
        at_low = image_of_end(transform, low, torch.where(rising, first, last))
        at_high = image_of_end(transform, high, torch.where(rising, last, first))
        low, high = torch.where(rising, at_low, at_high), torch.where(rising, at_high, at_low)
    return low, high


def image_of_end(transform: Any, end: Tensor, limit: Tensor) -> Tensor:
    """The image of an end of a support; the ``limit``, without a gradient, if the end or its image is infinite."""
    with torch.no_grad():
        finite = end.isfinite()
        finite = finite & transform(torch.where(finite, end, 0.5)).isfinite()
    # ½ lies inside of the domain of every transform of torch: an infinite value or slope there would give 0 · ∞ = NaN.
    image: Tensor = transform(torch.where(finite, end, 0.5))
    return torch.where(finite, image, limit.detach())
