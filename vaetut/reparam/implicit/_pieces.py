"""Implicit gradients by quadrature, in the backward pass and in pieces of bounded memory (chapter 10, *Implicit*)."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaetut.distributions.copies import tensors_of, with_tensors
from vaetut.reparam.implicit._charts import move

_BUDGET = 2**20  # values of log_prob that are held at once
_ROUNDS = 10  # of refinement under torch.func, where their number cannot depend on the data


def has_hidden(q: Distribution, z: Tensor) -> bool:
    """Whether log_prob depends on a parameter that is not among the tensors of q."""
    detached = with_tensors(q, Tensor.detach)
    return bool(detached.log_prob(z).requires_grad)


def attach_by_quadrature(base: Distribution, z: Tensor, u: Tensor | None) -> Tensor:
    if _under_functional_transform():
        z = _attach(base, z, _ROUNDS)
        return z if u is None else z + _slope_in_u(base, z, u)
    tensors = tensors_of(base)
    # log_prob is called on copies, since it may store what it computes, and base must keep its tensors.
    if u is None and not with_tensors(base).log_prob(z).requires_grad:
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            raise ValueError(
                f"{type(base).__name__} has parameters that require a gradient, but its log_prob does not pass a "
                "gradient on to them; vaetut.score_function needs that too, so write log_prob with torch's functions"
            )
        return z
    hidden = has_hidden(base, z)
    attached: Any = _attach(base, z, None) if hidden else _Deferred.apply(base, z, *tensors)  # type: ignore[no-untyped-call]
    return attached if u is None else attached + _slope_in_u(base, z, u)


def _slope_in_u(q: Distribution, z: Tensor, u: Tensor) -> Tensor:
    """0, with the derivative 1/p(z) in u; the derivative itself is a constant."""
    with torch.no_grad():
        speed = (-with_tensors(q).log_prob(z.detach())).exp()
    return once(torch.zeros_like(z), (u - u.detach()) * speed)


def _under_functional_transform() -> bool:
    return bool(torch._C._are_functorch_transforms_active())


def _attach(q: Distribution, z: Tensor, rounds: int | None) -> Tensor:
    """Attach the gradient right away, with all nodes at once in memory."""
    flat = z.double().reshape(-1, *q.batch_shape)
    return once(z, move(with_tensors(q, Tensor.double), flat, rounds).z.reshape(z.shape).to(z.dtype))


def once(z: Tensor, moved: Tensor) -> Tensor:
    """z, with the first derivatives of ``moved``, and an error for second ones."""
    result: Tensor = _Once.apply(z, moved)  # type: ignore[no-untyped-call]
    return result


class _Once(torch.autograd.Function):
    """z, with the first derivatives of ``moved``. Its second ones would be wrong, since the nodes do not move."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, moved: Tensor) -> Tensor:
        return z.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        return None, _Refuse.apply(cotangent, *ctx.saved_tensors)  # type: ignore[no-untyped-call]


class _Refuse(torch.autograd.Function):
    """The cotangent, which cannot be differentiated."""

    generate_vmap_rule = True

    @staticmethod
    def forward(cotangent: Tensor, moved: Tensor) -> Tensor:
        return cotangent.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        raise NotImplementedError("implicit gradients have no second derivative")


class _Deferred(torch.autograd.Function):
    """z, with the quadrature deferred to the backward pass and done in pieces."""

    @staticmethod
    def forward(ctx: Any, q: Distribution, z: Tensor, *tensors: Tensor) -> Tensor:
        ctx.q = q
        ctx.save_for_backward(z, *tensors)
        return z.clone()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        z, *tensors = ctx.saved_tensors
        with torch.no_grad():
            gradients = _pull_back(ctx.q, z, cotangent, tensors, ctx.needs_input_grad[2:])
        refuse: Any = _Refuse.apply if torch.is_grad_enabled() else lambda gradient, _: gradient
        return (
            None,
            None,
            *(g if g is None else refuse(g, t) for g, t in zip(gradients, tensors, strict=True)),
        )


def _pull_back(
    q: Distribution, z: Tensor, cotangent: Tensor, tensors: list[Tensor], needed: tuple[bool, ...]
) -> list[Tensor | None]:
    """The gradients in the tensors of q, computed for parts of the batch and of the draws that fit in memory."""
    batch, dim = q.batch_shape.numel(), len(q.batch_shape)
    z, cotangent = (part.reshape(-1, *q.batch_shape, *q.event_shape) for part in (z, cotangent))
    shapes: list[torch.Size] = []
    with_tensors(q, batch=lambda shape: shapes.append(shape) or shape)  # type: ignore[func-returns-value]
    # The components of a mixture, or the coordinates of a Dirichlet.
    parts = max(shape.numel() for shape in shapes) * q.event_shape.numel() // max(batch, 1)
    columns = max(1, _BUDGET // (512 * parts))
    pieces: list[slice | None] = [None]
    if batch > columns and _is_sliceable(q, z[:1], slice(columns)):
        pieces = [slice(start, start + columns) for start in range(0, batch, columns)]
        z, cotangent = (part.reshape(-1, batch, *q.event_shape) for part in (z, cotangent))
    rows = max(1, (_BUDGET // (parts * max(1, min(batch, columns))) - 256) // 32)

    sums = [t.new_zeros(t.shape) if need else None for t, need in zip(tensors, needed, strict=True)]
    if not z.numel():
        return sums
    used = [False] * sum(needed)
    for piece in pieces:
        leaves = [
            _cut(t, dim, piece).detach().requires_grad_(n) for t, n in zip(tensors, needed, strict=True)
        ]
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        views = [_cut(total, dim, piece) for total in sums if total is not None]
        part = _piece_of(q, iter(leaves), dim, piece)
        for some, cotangents in zip(z.split(rows), cotangent.split(rows), strict=True):
            if piece is not None:
                some, cotangents = some[:, piece], cotangents[:, piece]
            with torch.enable_grad():
                attached = _attach(part, some, None)
            found = torch.autograd.grad(attached, wanted, cotangents, allow_unused=True)
            for i, (view, gradient) in enumerate(zip(views, found, strict=True)):
                if gradient is not None:
                    view += gradient
                    used[i] = True
    seen = iter(used)  # a zero gradient without a path could be multiplied by an infinite slope
    return [total if total is not None and next(seen) else None for total in sums]


def _cut(tensor: Tensor, dim: int, piece: slice | None) -> Tensor:
    """A piece of a tensor whose first ``dim`` axes are those of the batch; they become one."""
    return tensor if piece is None or tensor.dim() == 0 else tensor.reshape(-1, *tensor.shape[dim:])[piece]


def _piece_of(q: Distribution, tensors: Iterator[Tensor], dim: int, piece: slice | None) -> Any:
    """q with those tensors, and the batch shape of the piece."""

    def cut(shape: torch.Size) -> torch.Size:
        if piece is None or not shape:
            return shape
        return torch.Size([len(range(shape[:dim].numel())[piece]), *shape[dim:]])

    return with_tensors(q, lambda _: next(tensors), cut)


def _is_sliceable(q: Distribution, z: Tensor, piece: slice) -> bool:
    """Whether every tensor in q has the axes of the batch first, so that q can be evaluated in pieces."""
    dim = len(q.batch_shape)
    if not all(tensor.dim() == 0 or tensor.shape[:dim] == q.batch_shape for tensor in tensors_of(q)):
        return False
    part = _piece_of(q, (_cut(tensor, dim, piece) for tensor in tensors_of(q)), dim, piece)
    try:  # a tensor may have such a shape by chance
        value = part.log_prob(z.reshape(1, -1, *q.event_shape)[:, piece])
    except (RuntimeError, ValueError, IndexError):
        return False
    return torch.equal(value.nan_to_num(), with_tensors(q).log_prob(z).reshape(1, -1)[:, piece].nan_to_num())
