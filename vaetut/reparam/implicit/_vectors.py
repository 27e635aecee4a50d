r"""Mixtures of vectors with independent coordinates: the distributional transform (chapter 10, *Implicit*).

Given the coordinates before it, coordinate d of such a mixture is a univariate mixture, whose weights are the
responsibilities given those coordinates: w_kd ∝ πₖ Π_{j<d} p_kj(z_j). So u_d = F_d(z_d | z_<d) turns z into
independent uniform numbers, one after another, and its inverse, for fixed u, is the map that is differentiated:

p_d dz_d + Σ_{j<d} ∂F_d/∂z_j dz_j + ∂F_d/∂φ = 0, with ∂F_d/∂z_j = Σₖ w_kd (F_kd − F_d) ∂ log p_kj/∂z_j.

Source: Rosenblatt (1952), *Remarks on a multivariate transformation*; Graves (2016), *Stochastic backpropagation
through mixture density distributions*; Figurnov, Mohamed and Mnih (2018), section 4.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MixtureSameFamily

from vaetut.distributions.copies import tensors_of, with_tensors
from vaetut.distributions.shape_tails import under_transform
from vaetut.reparam.implicit._cdf import (
    component_log_density,
    component_tails,
    has_cdf,
    is_known,
    log_weights,
)


def is_vector_mixture(q: Any) -> bool:
    """Whether q, a distribution, is a mixture of vectors with independent coordinates, each with a known CDF."""
    if not isinstance(q, MixtureSameFamily) or type(q).log_prob is not MixtureSameFamily.log_prob:
        return False
    component: Any = q.component_distribution
    if not isinstance(component, Independent) or isinstance(component.base_dist, Independent):
        return False
    base = component.base_dist
    return (
        component.reinterpreted_batch_ndims > 0 and not base.event_shape and has_cdf(base) and is_known(base)
    )


class Conditionals(NamedTuple):
    """The conditional quantities of each coordinate given those before it; ``[…, K, D]`` or ``[…, D]``."""

    log_each: Tensor  # log p_kd
    log_weights: Tensor  # log w_kd
    log_density: Tensor  # log p_d


def conditionals(q: Any, each: Tensor) -> Conditionals:
    """The conditionals at z, which is repeated for each component: ``each [*sample, *batch, K, *event]``."""
    dims = len(q.event_shape)
    log_each = component_log_density(q.component_distribution.base_dist, each).flatten(-dims)
    before = torch.cat([torch.zeros_like(log_each[..., :1]), log_each[..., :-1].cumsum(-1)], -1)
    joint = log_weights(q).unsqueeze(-1) + before
    log_weight = joint.log_softmax(-2)
    return Conditionals(log_each, log_weight, (log_weight + log_each).logsumexp(-2))


def conditional_tails(q: Any, each: Tensor, at: Conditionals, scale: Tensor) -> tuple[Tensor, Tensor]:
    """C_kd and C_d of the conditionals, over a scale; F or F − 1, whichever is smaller at C_d."""
    dims, base = len(q.event_shape), q.component_distribution.base_dist

    def of_components(log_scale: Tensor, lower: Tensor) -> Tensor:
        shape = (*each.shape[: each.dim() - dims - 1], 1, *q.event_shape)
        return component_tails(base, each, log_scale.reshape(shape).expand(each.shape),
                               lower.reshape(shape).expand(each.shape)).flatten(-dims)  # fmt: skip

    with torch.no_grad():
        every = torch.ones_like(scale, dtype=torch.bool)
        lower = (at.log_weights.exp() * of_components(torch.zeros_like(scale), every)).sum(-2) < 0.5
    tails = of_components(scale, lower)
    return tails, (at.log_weights.exp() * tails).sum(-2)


def for_each_component(q: Any, z: Tensor) -> Tensor:
    """``z`` in float64, repeated for each component."""
    dim = -1 - len(q.event_shape)
    count = q.component_distribution.batch_shape[-1]
    return z.double().nan_to_num().unsqueeze(dim).expand(*z.shape[: z.dim() + dim + 1], count, *q.event_shape)


def attach_by_conditionals(q: Distribution, z: Tensor, u: Tensor | None = None) -> Tensor:
    """z with its derivatives in the tensors of q, and in u, which the map takes to z."""
    tensors = tensors_of(q)
    z = z.detach()
    if under_transform(z, *tensors, *([] if u is None else [u])):
        return _by_newton(q, z, u)
    attached: Tensor = _ByConditionals.apply(q, z, u, *tensors)  # type: ignore[no-untyped-call]
    return attached


class _ByConditionals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Distribution, z: Tensor, u: Tensor | None, *tensors: Tensor) -> Tensor:
        ctx.q, draw = q, z.clone()
        ctx.save_for_backward(draw, *tensors)
        return draw

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        draw, *tensors = ctx.saved_tensors
        again, needed = torch.is_grad_enabled(), ctx.needs_input_grad[3:]
        if again:
            leaves = [tensor.view_as(tensor) for tensor in tensors]
        else:
            leaves = [t.detach().requires_grad_(need) for t, need in zip(tensors, needed, strict=True)]
        wanted = [leaf for leaf, need in zip(leaves, needed, strict=True) if need]
        supply = iter(leaves)
        with torch.enable_grad():
            q: Any = with_tensors(with_tensors(ctx.q, lambda _: next(supply)), Tensor.double)
            each = for_each_component(q, draw if again else draw.detach())
            each = each if again and each.requires_grad else each.detach().requires_grad_()
            at = conditionals(q, each)
            scale = at.log_density.detach()
            tails, total = conditional_tails(q, each, at, scale)
            (score,) = torch.autograd.grad(at.log_each.sum(), each, create_graph=again, retain_graph=True)
            with torch.set_grad_enabled(again):
                score = score.flatten(-len(q.event_shape))
                ratio = (scale - at.log_density).exp()
                pull = at.log_weights.exp() * (tails - total.unsqueeze(-2)) * ratio.unsqueeze(-2)
                weight = _back_substitute(cotangent.double().flatten(-len(q.event_shape)), pull, score)
                by_u = None
                if ctx.needs_input_grad[2]:
                    by_u = (weight * (-at.log_density).exp()).reshape(draw.shape).to(draw.dtype)
                weight = -weight * ratio
            found: Any = ()
            if wanted:
                found = torch.autograd.grad(total, wanted, weight, create_graph=again, allow_unused=True)
        supply = iter(found)
        return None, None, by_u, *(next(supply) if need else None for need in needed)


def _back_substitute(cotangent: Tensor, pull: Tensor, score: Tensor) -> Tensor:
    """The cotangent of each coordinate after back substitution through the later ones."""
    held = torch.zeros_like(pull[..., 0])
    weights: list[Tensor] = []
    for d in range(cotangent.shape[-1] - 1, -1, -1):
        weights.append(cotangent[..., d] - (held * score[..., d]).sum(-1))
        held = held + pull[..., d] * weights[-1].unsqueeze(-1)
    return torch.stack(weights[::-1], -1)


def _by_newton(q: Any, z: Tensor, u: Tensor | None) -> Tensor:
    """As in `_exact`, with the triangular system solved from the first coordinate on."""
    q, dims = with_tensors(q, Tensor.double), len(q.event_shape)
    start = z.double().nan_to_num()
    base = q.component_distribution.base_dist
    each = for_each_component(q, start)
    at = conditionals(q, each)
    scale = at.log_density.detach()
    target = conditional_tails(q, each, at, scale)[1].detach()
    if u is not None:
        target = target + (u - u.detach()).double().flatten(-dims) * (-scale).exp()
    moved = start
    for _ in range(2):
        each = for_each_component(q, moved)
        at = conditionals(q, each)
        tails, total = conditional_tails(q, each, at, scale)
        score = torch.func.grad(lambda x: component_log_density(base, x).sum())(each).flatten(-dims)
        ratio = (scale - at.log_density).exp()
        pull = at.log_weights.exp() * (tails - total.unsqueeze(-2))
        held, steps = torch.zeros_like(pull[..., 0]), []
        for d in range(total.shape[-1]):
            miss = total[..., d] - target[..., d] + (pull[..., d] * held).sum(-1)
            steps.append(-miss * ratio[..., d])
            held = held + score[..., d] * steps[-1].unsqueeze(-1)
        moved = moved + torch.stack(steps, -1).reshape(moved.shape)
    return z + (moved - moved.detach()).to(z.dtype)
