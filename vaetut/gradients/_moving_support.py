r"""Where the score-function estimator is wrong: a support that depends on a parameter, chapter 4.

By Leibniz's rule, for a density q on $(a(\phi), b(\phi))$,

$$\nabla_\phi \mathbb E_q[f] = \mathbb E_q[f \nabla_\phi \log q] + q(b) f(b) \nabla_\phi b - q(a) f(a) \nabla_\phi a .$$

The estimator is the first term. It is complete if the density vanishes at each end that moves: with
$q \propto (b - z)^k$ near b the derivative of q in $\phi$ is of order $(b - z)^{k - 1}$, which can be integrated for
every $k > 0$, and q is continuous in $\phi$, so the integral may be differentiated under its sign. (The variance of the
estimator is that of $(b - z)^{-1}$ under q, finite for $k > 1$ only.) For $k = 0$, a jump, the term at the end is
missing; for $k < 0$ it is infinite, and so is the mean of the score.
"""

import functools
import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    MixtureSameFamily,
    TransformedDistribution,
)

from vaetut._support.validate import has_no_values, name_of, values_are_checked
from vaetut.distributions import Elliptical
from vaetut.distributions.copies import tensors_of, with_tensors
from vaetut.distributions.support import (
    by_coordinate,
    end_moves,
    is_discrete,
    is_transformed,
    support_ends,
)

_LEAST_POWER = 0.02  # a density whose power law at an end has a smaller exponent is taken to jump there


def refuse_moving_support(q: Distribution) -> None:
    """Raise where the density of q does not vanish at an end of its support that moves with a parameter."""
    if not torch.is_grad_enabled():
        return
    part: Any = q  # for a mixture, its components
    while isinstance(part, Independent | MixtureSameFamily):
        part = part.base_dist if isinstance(part, Independent) else part.component_distribution
    if is_transformed(part):
        if values_are_checked() and _transform_moves(_by_coordinate(part)):
            raise _moves(q)
    elif isinstance(part, Elliptical):
        if values_are_checked() and _boundary_moves(part):
            raise _moves(q)
    elif _has_moving_bounds(part) and (is_discrete(part) or not _vanishes_where_it_moves(part)):
        raise _moves(q)


def _moves(q: Distribution) -> ValueError:
    return ValueError(
        f"q must not have a support that moves with a parameter that requires a gradient, as {name_of(q)} has: the "
        "score-function estimator is wrong there, unless the density vanishes at the end that moves; use pathwise, or "
        "detach the parameter"
    )


def _has_moving_bounds(q: Distribution) -> bool:
    """Whether a bound of the support is a tensor that requires a gradient; values are not read."""
    try:
        support: Any = q.support
    except NotImplementedError:
        return False
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    ends = (getattr(support, name, None) for name in ("lower_bound", "upper_bound"))
    return any(isinstance(end, Tensor) and end.requires_grad for end in ends)


def _by_coordinate(q: TransformedDistribution) -> TransformedDistribution:
    """The same with a density for each coordinate, where the transforms treat each by itself, and each component.

    A density of several coordinates goes to 0 where that of one of them does, and hides a jump of another; that of a
    mixture goes to 0 at its outermost ends, and hides the jumps of components inside of them.
    """
    base: Any = q.base_dist
    transforms = [by_coordinate(transform) for transform in q.transforms]
    while True:
        if isinstance(base, Independent):
            base = base.base_dist
        elif isinstance(base, MixtureSameFamily):
            axis = -1 - len(base.event_shape)
            transforms = [with_tensors(t, functools.partial(_for_each, axis=axis)) for t in transforms]
            base = base.component_distribution
        elif is_transformed(base):
            transforms = [by_coordinate(transform) for transform in base.transforms] + transforms
            base = base.base_dist
        else:
            return TransformedDistribution(base, transforms, validate_args=False)


def _for_each(value: Tensor, axis: int) -> Tensor:
    """A parameter of a batch, for each component of a mixture."""
    return value.unsqueeze(axis) if value.dim() >= -axis else value


def _boundary_moves(q: Elliptical) -> bool:
    """Whether the density of an elliptical q jumps at the boundary of its support, an ellipsoid, which moves."""
    try:
        ends = support_ends(q.radial)
        moving = any(tensor.requires_grad for tensor in (q.loc, q.scale_tril))
        bounds = [
            (end, inward)
            for end, inward in zip(ends, (1, -1), strict=True)
            if bool((end.isfinite() & (end != 0)).any()) and (moving or end_moves(end, q.radial))
        ]
        return not all(_vanishes(q.radial, end, inward) for end, inward in bounds)
    except (NotImplementedError, ValueError):
        return False
    except RuntimeError as error:
        if has_no_values(error):
            return False
        raise


def _transform_moves(q: TransformedDistribution) -> bool:
    """Whether a transformed support moves; torch gives no bounds for it."""
    if is_discrete(q):  # its atoms move
        own = {id(tensor) for tensor in tensors_of(q.base_dist)}
        return any(t.requires_grad and id(t) not in own for t in tensors_of(q))
    return not _vanishes_where_it_moves(q)


def _vanishes_where_it_moves(q: Distribution) -> bool:
    """Whether the density of q goes to 0 at every end of its support that depends on a parameter.

    Under vmap and in a tracer no value can be read. Then bounds that are themselves parameters count as a jump (False),
    and bounds of a transformed distribution, most of which do not move, as fixed (True).
    """
    try:
        ends = support_ends(q)
    except (NotImplementedError, ValueError):  # such as a simplex, which no parameter moves
        return True
    if torch.compiler.is_compiling():
        return is_transformed(q)
    try:
        moving = [(end, sign) for end, sign in zip(ends, (1, -1), strict=True) if end_moves(end, q)]
        return all(_vanishes(q, end, inward) for end, inward in moving)
    except RuntimeError as error:
        if has_no_values(error):
            return is_transformed(q)
        raise


@torch.no_grad()
def _vanishes(q: Distribution, end: Tensor, inward: int) -> bool:
    """Whether the density goes to 0 at a finite ``end``: from its power law close to the end, in float64."""
    exact = with_tensors(q, lambda t: t.detach() if t.device.type == "mps" else t.detach().double())
    draws = exact.sample(torch.Size((16,)))
    finite, end = end.isfinite(), torch.where(end.isfinite(), end, 0.0).to(draws.dtype)
    eps = torch.finfo(draws.dtype).eps
    # Close enough for the law to hold, and so far from the end that rounding does not change the distance.
    near = torch.maximum((draws - end).abs().amin(0) * eps**0.4, end.abs() * eps**0.8)
    ratio = eps**-0.2
    at_near, at_far = (exact.log_prob(end + inward * step) for step in (near, ratio * near))
    power = (at_far - at_near) / math.log(ratio)
    some = finite.reshape(*power.shape, -1).any(-1)  # any coordinate of a vector with one joint density
    return bool(((at_near == -math.inf) | (power > _LEAST_POWER) | ~some).all())
