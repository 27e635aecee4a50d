r"""Draws with the derivatives of their CDF, of any order: dz/dφ = −(∂F/∂φ)/p and dz/du = 1/p (chapter 10).

In the backward pass they are computed as they stand, from `tail` and `log_density` at z. For a second
derivative the two are also functions of z, and z is the draw with its own derivatives in φ and u.

Under a transform of `torch.func`, or in forward mode, z is instead the result of steps of Newton's method on
F(z; φ) = u that start at the root: they do not change the value, but each step doubles the number of correct
derivatives, so that after two steps those up to the third are correct.
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaetut.distributions.copies import tensors_of, with_tensors
from vaetut.distributions.shape_tails import under_transform
from vaetut.reparam.implicit._cdf import log_density, share_log_weights, tail


def attach_by_cdf(
    q: Distribution, z: Tensor, u: Tensor | None, hidden: bool = False, tensors: list[Tensor] | None = None
) -> Tensor:
    """z with its derivatives in the ``tensors`` of q (and in ``hidden`` ones), and in u, of which z is the quantile."""
    tensors = tensors_of(q) if tensors is None else tensors
    if hidden or under_transform(z, *tensors, *([] if u is None else [u])):
        return _by_newton(q, z, u)
    attached: Tensor = _ByCdf.apply(q, z, u, *tensors)  # type: ignore[no-untyped-call]
    return attached


def _by_newton(q: Distribution, z: Tensor, u: Tensor | None) -> Tensor:
    q, start = with_tensors(q, Tensor.double), z.detach().double().nan_to_num()
    scale = log_density(q, start).detach()
    target = tail(q, start, scale).detach()
    if u is not None:
        target = target + (u - u.detach()).double() * (-scale).exp()
    moved = start
    for _ in range(2):
        miss = tail(q, moved, scale) - target
        moved = moved - miss * (scale - log_density(q, moved)).exp()
    return z.detach() + (moved - moved.detach()).to(z.dtype)


class _ByCdf(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Distribution, z: Tensor, u: Tensor | None, *tensors: Tensor) -> Tensor:
        ctx.q, draw = q, z.clone()
        ctx.save_for_backward(draw, *tensors)
        return draw

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        draw, *tensors = ctx.saved_tensors
        again = torch.is_grad_enabled()
        needed = ctx.needs_input_grad[3:]
        if again:  # aliases of the tensors, so that z is not differentiated through as well
            leaves = [tensor.view_as(tensor) for tensor in tensors]
        else:
            leaves = [t.detach().requires_grad_(need) for t, need in zip(tensors, needed, strict=True)]
        wanted = [leaf for leaf, need in zip(leaves, needed, strict=True) if need]
        supply = iter(leaves)
        with torch.enable_grad():
            q = with_tensors(ctx.q, lambda _: next(supply).double())
            share_log_weights(q)
            z = draw.double().nan_to_num()
            with torch.set_grad_enabled(again):
                density = log_density(q, z)
            scale = density.detach()
            weight = -cotangent.double()
            if again:
                weight = weight * (scale - density).exp()
            found: Any = ()
            if wanted:
                found = torch.autograd.grad(
                    tail(q, z, scale), wanted, weight, create_graph=again, allow_unused=True
                )
            by_u = (cotangent.double() * (-density).exp()).to(draw.dtype) if ctx.needs_input_grad[2] else None
        supply = iter(found)
        return None, None, by_u, *(next(supply) if need else None for need in needed)
