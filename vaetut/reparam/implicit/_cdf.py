r"""Tails of distributions as differentiable functions, for which no quadrature is needed (chapter 10).

dz/dφ = −(∂F/∂φ) / p(z) (``eq-imp-velocity``) needs the derivative of F in φ, which F − 1 has too. So `tail` returns C,
either F(z) or F(z) − 1, computed from the nearer end so that it does not cancel, and divided by a scale such as p(z),
so that it neither overflows nor underflows.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution

from vaetut._support.validate import any_true
from vaetut.distributions.copies import tensors_of
from vaetut.distributions.support import is_transformed, support_ends
from vaetut.reparam.implicit._families import DENSITIES, MEDIANS, TAILS

_SHARED = "_vaetut_log_weights"  # an attribute of a copy


def tail(q: Any, z: Tensor, log_scale: Tensor, lower: Tensor | None = None) -> Tensor:
    """C(z; φ)/s, differentiable in z and φ; float64, z ``[*sample, *batch]``.

    Args:
        q: a distribution of which `has_cdf` is true, with float64 parameters.
        z: values.
        log_scale: log s, without a gradient.
        lower: where C is F; elsewhere it is F − 1.
    """
    if isinstance(q, td.MixtureSameFamily):
        return _mixture_tail(q, z, log_scale, lower)
    found = _family(q, TAILS)
    if found is not None:
        result: Tensor = found(q, z, log_scale, lower)
        return result
    if is_through_transforms(q):
        y, rising, _ = pull_back(q, z)
        below = lower if lower is None else lower == rising
        return torch.where(rising, 1.0, -1.0) * tail(q.base_dist, y, log_scale, below)
    return _generic_tail(q, z, log_scale, lower)


def log_density(q: Any, z: Tensor) -> Tensor:
    """log p, without the cancellation in ``log_prob``; components of a mixture only inside their supports."""
    if isinstance(q, td.MixtureSameFamily):
        return (log_weights(q) + component_log_density(q.component_distribution, z.unsqueeze(-1))).logsumexp(
            -1
        )
    found = _family(q, DENSITIES)
    if found is not None:
        result: Tensor = found(q, z)
        return result
    if is_through_transforms(q):
        y, _, log_slope = pull_back(q, z)
        return log_density(q.base_dist, y) - log_slope
    value: Tensor = q.log_prob(z)
    return value


def has_cdf(q: Any) -> bool:
    """Whether `tail` accepts q."""
    if isinstance(q, td.MixtureSameFamily):
        return type(q).log_prob is td.MixtureSameFamily.log_prob and has_cdf(q.component_distribution)
    if q.event_shape or isinstance(q, td.Independent):
        return False
    if _family(q, TAILS) is not None:
        return True
    if is_through_transforms(q):
        return has_cdf(q.base_dist)
    if isinstance(q, td.ContinuousBernoulli):  # whose cdf does not depend on a parameter near ½
        return False
    return type(q).cdf not in (Distribution.cdf, td.TransformedDistribution.cdf)


def is_known(q: Any) -> bool:
    """Whether the CDF of q is from this module or the package, so that it need not be compared with the density."""
    if isinstance(q, td.MixtureSameFamily):
        return is_known(q.component_distribution)
    if _family(q, TAILS) is not None:
        return True
    if is_through_transforms(q):
        return is_known(q.base_dist)
    return type(q).__module__.startswith("vaetut.")


def agrees(q: Distribution, z: Tensor) -> bool:
    """Whether the ``cdf`` of a class is the integral of its density and is differentiable in the same tensors."""
    tensors = [tensor for tensor in tensors_of(q) if tensor.requires_grad]
    with torch.enable_grad():
        at = [z.detach().requires_grad_(), *tensors]
        try:
            density = log_density(q, at[0])
            value = tail(q, at[0], density.detach())
            found: Any = torch.autograd.grad(value.sum(), at, retain_graph=True, allow_unused=True)
        except (NotImplementedError, RuntimeError):  # a function without a derivative in a parameter
            return False
        if found[0] is None or any_true((found[0] - 1).abs() > 1e-4):
            return False
        if not density.requires_grad:
            return True
        needed: Any = torch.autograd.grad(density.sum(), at, retain_graph=True, allow_unused=True)
    pairs = zip(found[1:], needed[1:], strict=True)
    return all(one is not None or other is None for one, other in pairs)


def _family(q: Any, table: dict[Any, Any]) -> Any:
    """The entry of q's class; for a subclass only if it keeps the density and the CDF of the class."""
    for kind, entry in table.items():
        if isinstance(q, kind):
            same = (type(q).log_prob, type(q).cdf) == (kind.log_prob, kind.cdf)
            return entry if same else None
    return None


# -------------------------------------------------------------------------------------- mixtures and transforms


def log_weights(q: Any) -> Tensor:
    shared: Tensor | None = vars(q).get(_SHARED)
    if shared is not None:
        return shared
    logits: Tensor = q.mixture_distribution.logits
    return logits - logits.logsumexp(-1, keepdim=True)  # log_softmax is slower along a short dimension


def share_log_weights(q: Any) -> None:
    """Let the density and the tail of a mixture, a copy that nobody else has, compute the log weights once."""
    if isinstance(q, td.MixtureSameFamily):
        vars(q)[_SHARED] = log_weights(q)


def inside_components(component: Any, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Masks of z ``[…, 1]`` inside of and above the support of each component, and z clamped to it."""
    low, high = (end.detach() for end in support_ends(component))
    above = z > high
    inside = (z >= low) & ~above
    middle = torch.where(
        low.isfinite(),
        torch.where(high.isfinite(), low + (high - low) / 2, low + 1),
        torch.where(high.isfinite(), high - 1, 0.0),
    )
    return inside, above, torch.where(inside, z, middle)


def _share_support(component: Any) -> bool:
    """Whether the support of the components depends on no parameter, so that a value lies in all of them or in none."""
    support: Any = None if is_transformed(component) else component.support
    bounds = (getattr(support, name, 0.0) for name in ("lower_bound", "upper_bound"))
    return support is not None and not any(isinstance(bound, Tensor) for bound in bounds)


def component_log_density(component: Any, z: Tensor) -> Tensor:
    """log pₖ(z) of each component, −∞ outside of its support, where it is not evaluated."""
    if _share_support(component):
        return log_density(component, z)
    inside, _, safe = inside_components(component, z)
    return torch.where(inside, log_density(component, safe), -math.inf)


def component_tails(component: Any, z: Tensor, log_scale: Tensor, lower: Tensor) -> Tensor:
    """C/s of each component: 0 or ±1/s outside of its support."""
    if _share_support(component):
        shape = torch.broadcast_shapes(z.shape, component.batch_shape)
        return tail(component, z, log_scale, lower.expand(shape))
    inside, above, safe = inside_components(component, z)
    log_scale = log_scale.expand(inside.shape)
    value = tail(component, safe, log_scale, lower.expand(inside.shape))
    outside = torch.where(above, 1.0, 0.0) - torch.where(lower, 0.0, 1.0)
    return torch.where(inside, value, torch.where(outside == 0, 0.0, outside * (-log_scale).exp()))


def _mixture_tail(q: Any, z: Tensor, log_scale: Tensor, lower: Tensor | None) -> Tensor:
    """Σ πₖ Cₖ. A weight's derivative is that of πₖ times Cₖ, so that the smaller of F and 1 − F cancels less."""
    weights, component, z = log_weights(q).exp(), q.component_distribution, z.unsqueeze(-1)
    if lower is None:
        lower = _is_mostly_lower(component, weights.detach(), z.detach())
    each = component_tails(component, z, log_scale.unsqueeze(-1), lower.unsqueeze(-1))
    return (weights * each).sum(-1)


@torch.no_grad()
def _is_mostly_lower(component: Any, weights: Tensor, z: Tensor) -> Tensor:
    """Whether z lies below the medians of components with half of the weight; else, or if unknown, F(z) < ½.

    If it does, 1 − F is at least ¼, and F at least ¼ if not: C is at most ¾, however small the other one is.
    """
    median = _family(component, MEDIANS)
    if median is not None:
        return (weights * (z < median(component))).sum(-1) > 0.5
    shape = torch.broadcast_shapes(z.shape, component.batch_shape)
    every = torch.ones(shape, dtype=torch.bool, device=z.device)
    return (weights * component_tails(component, z, torch.zeros_like(z), every)).sum(-1) < 0.5


def check_no_gap(q: Any) -> None:
    """Raise if the weights of a mixture move mass from one component to another across a gap in the support.

    The quantile jumps there, at a u that moves with the weights: this adds a term to the gradient of an expectation
    that is in no derivative of a draw. An end of a component that moves is allowed, since F stays continuous.
    """
    weights = q.mixture_distribution.logits
    if not weights.requires_grad or not torch.is_grad_enabled() or _share_support(q.component_distribution):
        return
    try:
        low, high = (end.detach() for end in support_ends(q.component_distribution))
    except NotImplementedError:
        return
    low, order = low.sort(-1)
    reached = high.gather(-1, order).cummax(-1).values
    if any_true(low[..., 1:] > reached[..., :-1]):
        raise ValueError(
            "there is a gap between the supports of the mixture's components, and its weights require a gradient: mass "
            "moves across the gap, so the implicit gradient is wrong; use vaetut.score_function, or detach the weights"
        )


def overrides_cdf(q: Any) -> bool:
    """Whether the class of q is a subclass of a known family with its own density or CDF."""
    return any(isinstance(q, kind) for kind in TAILS) and _family(q, TAILS) is None


def is_through_transforms(q: Any) -> bool:
    """Whether q is its base followed by monotone transforms, and nothing else."""
    return (
        isinstance(q, td.TransformedDistribution)
        and type(q).log_prob is td.TransformedDistribution.log_prob
        and type(q).cdf is td.TransformedDistribution.cdf
        and all(t.bijective and t.domain.event_dim == 0 and t.codomain.event_dim == 0 for t in q.transforms)
    )


def pull_back(q: Any, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The variable of the base, whether z rises with it, and the log of |dz/dy|."""
    rising, log_slope = torch.ones((), dtype=torch.bool, device=z.device), torch.zeros_like(z)
    for transform in reversed(q.transforms):
        y = transform.inv(z)
        log_slope = log_slope + transform.log_abs_det_jacobian(y, z)
        rising = rising == (torch.as_tensor(transform.sign, device=z.device) > 0)
        z = y
    return z, rising, log_slope


def _generic_tail(q: Any, z: Tensor, log_scale: Tensor, lower: Tensor | None) -> Tensor:
    """From the methods ``cdf`` and, if there is one, ``survival``."""
    below = q.cdf(z)
    above = q.survival(z) if hasattr(q, "survival") else 1 - below
    lower = below < 0.5 if lower is None else lower
    return torch.where(lower, below, -above) * (-log_scale).exp()
