r"""Tails of the gamma and the beta distribution with their derivatives in the shapes, to full precision.

The regularized incomplete gamma function P(a, x) and beta function I_z(a, b) have derivatives in a and b that are
not elementary functions, and torch does not have them. Here log P, log(1 − P) and the like have these derivatives, by
two methods:

* where the variable or the shapes are small, a power series with positive terms (the gamma, DLMF 8.7.1) or a continued
  fraction (the beta, DLMF 8.17.22), differentiated term by term;
* otherwise a Gauss–Legendre sum of the density over the tail, in the coordinate t = log x or logit z, relative to the
  density at its beginning. There log g = Σ φⱼ hⱼ(t) + const is concave and the tail falls exponentially, so that it
  can be cut at a finite length and 40 nodes are enough; and the derivative in φⱼ is the mean of the score hⱼ − E[hⱼ]
  over the tail, which keeps its sign where the tail is the one that the score points to (chapter 10,
  ``eq-imp-conditional``).
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from vaetut.distributions._stirling import digamma_difference

FALL = 39.0  # the exponent at which a tail is cut: e^−39 is 1e-17
_NODES = 40
_PAIRS = 12  # of terms of the continued fraction
_GROUP = 4  # of these pairs at a time: larger arrays go back to the system each time, which costs as much as the sum
_ROWS = 2048  # of numbers that are computed at once: with 40 nodes for each they fit into a cache

# A function's value, and its derivatives in its arguments.
Parts = Callable[..., tuple[Tensor, tuple[Tensor, ...]]]


def under_transform(*tensors: Tensor) -> bool:
    """Whether control flow must not depend on values: in `torch.func`, in forward mode, or without values."""
    return (
        torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
        or any(tensor.is_meta for tensor in tensors)
    )


def with_slopes(parts: Parts, *inputs: Tensor) -> Tensor:
    """The value of ``parts``, with the first derivatives that ``parts`` returns.

    Higher derivatives, and under a transform of `torch.func` all derivatives, come from automatic differentiation.
    """
    inputs = torch.broadcast_tensors(*inputs)
    if under_transform(*inputs):
        return parts(*inputs)[0]
    result: Tensor = _WithSlopes.apply(parts, *inputs)  # type: ignore[no-untyped-call]
    return result


class _WithSlopes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parts: Parts, *inputs: Tensor) -> Tensor:
        value, slopes = _in_chunks(parts, inputs)
        ctx.parts = parts
        ctx.save_for_backward(*inputs, *slopes)
        return value

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        count = len(ctx.saved_tensors) // 2
        inputs, slopes = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        needed = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():  # a second derivative may be needed
            aliases = [tensor.view_as(tensor) for tensor in inputs]
            wanted = [alias for alias, need in zip(aliases, needed, strict=True) if need]
            found = iter(torch.autograd.grad(ctx.parts(*aliases)[0], wanted, cotangent, create_graph=True))
            return None, *(next(found) if need else None for need in needed)
        return None, *(
            cotangent * slope if need else None for slope, need in zip(slopes, needed, strict=True)
        )


def _in_chunks(parts: Parts, inputs: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """``parts`` of some rows at a time: with all nodes of a sum, many rows would fill the memory."""
    if inputs[0].numel() <= _ROWS or under_transform(*inputs):
        return parts(*inputs)
    pieces = [parts(*some) for some in zip(*(x.reshape(-1).split(_ROWS) for x in inputs), strict=True)]
    value, *slopes = (
        torch.cat(part).reshape(inputs[0].shape)
        for part in zip(*((value, *slopes) for value, slopes in pieces), strict=True)
    )
    return value, tuple(slopes)


def by_region(mask: Tensor, one: Parts, other: Parts, safe: tuple[float, ...], *inputs: Tensor) -> Any:
    """``one`` where the mask is true and ``other`` elsewhere; ``safe`` are arguments at which both are finite."""
    if under_transform(mask):
        results = [
            parts(*(torch.where(where, x, s) for x, s in zip(inputs, safe, strict=True)))
            for where, parts in ((mask, one), (~mask, other))
        ]
        pairs = zip((results[0][0], *results[0][1]), (results[1][0], *results[1][1]), strict=True)
        value, *slopes = (torch.where(mask, first, second) for first, second in pairs)
        return value, tuple(slopes)
    count = int(mask.sum())
    if count in (0, mask.numel()):
        return (one if count else other)(*inputs)
    rows = mask.reshape(-1).nonzero().squeeze(-1), (~mask).reshape(-1).nonzero().squeeze(-1)
    flat = [x.reshape(-1) for x in inputs]
    results = [parts(*(x[row] for x in flat)) for row, parts in zip(rows, (one, other), strict=True)]
    pairs = zip((results[0][0], *results[0][1]), (results[1][0], *results[1][1]), strict=True)
    value, *slopes = (_merged(rows, pair).reshape(mask.shape) for pair in pairs)
    return value, tuple(slopes)


def _merged(rows: tuple[Tensor, Tensor], pair: tuple[Tensor, Tensor]) -> Tensor:
    made = pair[0].new_empty(len(rows[0]) + len(rows[1]))
    return made.index_copy(0, rows[0], pair[0]).index_copy(0, rows[1], pair[1])


_rule = cache(np.polynomial.legendre.leggauss)  # costs as much as a sum


def legendre(count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1], as columns ``[count, 1, …]`` above ``like``."""
    nodes, weights = _rule(count)
    shape = (-1, *[1] * like.dim())
    made = (torch.from_numpy(part).to(like).reshape(shape) for part in ((nodes + 1) / 2, weights / 2))
    return tuple(made)  # type: ignore[return-value]


# ------------------------------------------------------------------------------------------------------- the gamma


def gamma_is_above(a: Tensor, log_x: Tensor) -> Tensor:
    """Whether `gamma_log_tail` is that of the upper tail: roughly, beyond the median, and where x > 1."""
    return (log_x > torch.digamma(a)) & (log_x >= 0)


def gamma_log_density(a: Tensor, log_x: Tensor) -> Tensor:
    """The log density of log x."""
    return a * log_x - log_x.exp() - torch.lgamma(a)


def gamma_log_tail(a: Tensor, log_x: Tensor) -> Tensor:
    """log Q(a, x) where `gamma_is_above`, else log P(a, x).

    Relative error of the derivatives of P and Q below 1e-12, for a up to 1e7.
    """
    return with_slopes(_gamma_parts, a, log_x)


def gamma_slopes(a: Tensor, log_x: Tensor) -> tuple[Tensor, Tensor]:
    """The derivatives of `gamma_log_tail` in a and in log x."""
    slopes = _in_chunks(_gamma_parts, torch.broadcast_tensors(a, log_x))[1]
    return slopes[0], slopes[1]


def _gamma_parts(a: Tensor, log_x: Tensor) -> Any:
    return by_region(log_x < 0, _gamma_series, _gamma_sum, (1.0, 0.0), a, log_x)


def _gamma_series(a: Tensor, log_x: Tensor) -> Any:
    """P(a, x) = xᵃ e⁻ˣ / Γ(a + 1) · Σ xⁿ / ((a + 1) ⋯ (a + n)), for x < 1."""
    x = log_x.exp()
    term = total = torch.ones_like(x)
    harmonic = weighted = torch.zeros_like(x)
    for n in range(1, 20):
        step = (a + n).reciprocal()
        term = term * x * step
        harmonic = harmonic + step
        total, weighted = total + term, weighted + term * harmonic
    value = gamma_log_density(a, log_x) - a.log() + total.log()
    return value, (log_x - torch.digamma(a + 1) - weighted / total, a / total)


def _gamma_sum(a: Tensor, log_x: Tensor) -> Any:
    """∫ g(t) dt over the tail, g(t)/g(log x) = exp(a (t − log x) − x (e^(t − log x) − 1))."""
    x = log_x.exp()
    above = gamma_is_above(a, log_x).detach()
    sign = torch.where(above, 1.0, -1.0).to(x)
    with torch.no_grad():
        length = _gamma_length(a.detach(), x.detach(), sign)  # no_grad stops no tangents
    nodes, weights = legendre(_NODES, x)
    s = sign * length * nodes
    density = torch.exp(a * s - x * torch.expm1(s)) * weights
    mass = density.sum(0)
    moment = (density * s).sum(0) / mass
    mass = mass * length
    value = gamma_log_density(a, log_x) + mass.log()
    return value, (log_x - torch.digamma(a) + moment, -sign / mass)


def _gamma_length(a: Tensor, x: Tensor, sign: Tensor) -> Tensor:
    """Where the exponent a s − x (e^s − 1) has fallen by `FALL`: Newton from beyond, on a concave function."""
    excess = a - x
    up = (excess + (excess.square() + 2 * x * FALL).sqrt()) / x
    up = torch.log1p((FALL + a * torch.log1p((FALL + a * up) / x)) / x)
    near = ((excess.square() + 4 / 3 * x * FALL).sqrt() - excess) * 1.5 / x
    far = (FALL + x) / a
    length = torch.where(sign > 0, up, torch.where(near < 1, torch.minimum(near, far), far))
    for _ in range(4):
        s = sign * length
        fall = a * s - x * torch.expm1(s) + FALL
        length = length - fall / (sign * (a - x * s.exp()))
    return length


# -------------------------------------------------------------------------------------------------------- the beta


def beta_log_density(a: Tensor, b: Tensor, logit: Tensor) -> Tensor:
    """The log density of logit z."""
    return _beta_log_density(a, b, *_logs(logit))


def _beta_log_density(a: Tensor, b: Tensor, log_z: Tensor, log_rest: Tensor) -> Tensor:
    return a * log_z + b * log_rest - (torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b))


def _logs(logit: Tensor) -> tuple[Tensor, Tensor]:
    """log z and log(1 − z)."""
    return logsigmoid(logit), logsigmoid(-logit)


def beta_is_above(a: Tensor, b: Tensor, logit: Tensor) -> Tensor:
    """Whether `beta_log_tail` is that of the upper tail."""
    return _beta_side(a, b, logit)[0]


def beta_log_tail(a: Tensor, b: Tensor, logit: Tensor) -> Tensor:
    """log(1 − I_z(a, b)) where `beta_is_above`, else log I_z(a, b)."""
    return with_slopes(beta_parts, a, b, logit)


def beta_slopes(a: Tensor, b: Tensor, logit: Tensor) -> tuple[Tensor, Tensor]:
    """The derivatives of `beta_log_tail` in a and in logit z, as constants."""
    _, (by_a, _, by_logit) = _in_chunks(beta_parts, torch.broadcast_tensors(a, b, logit))
    return by_a, by_logit


def _beta_side(a: Tensor, b: Tensor, logit: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the tail is the upper one, and whether it is the nearer one, with a shape below 1.

    The latter is so unless z is far beyond the mode.
    """
    left = logit <= 0
    p, total = torch.where(left, a, b), a + b
    series = (torch.minimum(a, b) < 1) & (torch.sigmoid(-logit.abs()) * total - p <= 3)
    return torch.where(series, ~left, logit > torch.digamma(a) - torch.digamma(b)), series


def beta_parts(a: Tensor, b: Tensor, logit: Tensor) -> Any:
    """`beta_log_tail` and its derivatives.

    Both methods compute the lower tail in z or, by symmetry, in 1 − z: p is the shape at that end, q the other one.
    """
    above, series = _beta_side(a, b, logit)
    p, q, t = torch.where(above, b, a), torch.where(above, a, b), torch.where(above, -logit, logit)
    moderate = (torch.maximum(a, b) <= 8) & (t < 0.4)  # t < 0.4 is w < 0.6
    value, (by_p, by_q, by_t) = by_region(
        moderate | series, _beta_fraction, _beta_sum, (1.0, 1.0, 0.0), p, q, t
    )
    return value, (
        torch.where(above, by_q, by_p),
        torch.where(above, by_p, by_q),
        torch.where(above, -by_t, by_t),
    )


def _beta_fraction(p: Tensor, q: Tensor, t: Tensor) -> Any:
    """I_w(p, q) = w^p (1 − w)^q / (p B(p, q)) / (1 + c₁/(1 + c₂/(1 + …))), with derivatives, for w ≤ 0.6.

    In each region it is used in, 12 pairs of terms leave 1e-12. The denominators follow from the last one backward:
    1 + cₙ/(1 + …) = Qₙ/Qₙ₊₁ with Qₙ = Qₙ₊₁ + cₙ Qₙ₊₂.
    """
    w, (log_w, log_rest) = t.sigmoid(), _logs(t)
    now = before = torch.ones_like(w)
    slopes = slopes_before = torch.zeros_like(t.expand(2, *t.shape))
    pairs = torch.arange(float(_PAIRS), dtype=t.dtype, device=t.device).reshape(-1, *[1] * t.dim())
    for some in reversed(pairs.split(_GROUP)):
        for odd, odd_slopes, even, even_slopes in reversed(_fraction_terms(p, q, w, some)):
            for c, by in ((even, even_slopes), (odd, odd_slopes)):
                moved = torch.addcmul(slopes, c, slopes_before)
                slopes, slopes_before = torch.addcmul(moved, by, before), slopes
                now, before = torch.addcmul(now, c, before), now
    by_p, by_q = slopes_before / before - slopes / now
    total = before / now
    value = _beta_log_density(p, q, log_w, log_rest) - p.log() + total.log()
    return value, (
        log_w + digamma_difference(p, q) - p.reciprocal() + by_p,
        log_rest + digamma_difference(q, p) + by_q,
        p / total,
    )


def _fraction_terms(p: Tensor, q: Tensor, w: Tensor, m: Tensor) -> list[tuple[Tensor, ...]]:
    """c₂ₘ₊₁ and c₂ₘ₊₂, each with its derivatives in p and q."""
    below, middle, last = ((p + (2 * m + k)).reciprocal() for k in range(3))
    common, first, second = w * middle, p + m, (p + q) + m
    root = -common * below
    odd_by_q = root * first
    odd = odd_by_q * second
    odd_by_p = torch.addcmul(root * (first + second), odd, below + middle, value=-1)
    even_by_q = common * last * (m + 1)
    even = even_by_q * (q - (m + 1))
    even_by_p = -even * (middle + last)
    odd_slopes, even_slopes = torch.stack([odd_by_p, odd_by_q], 1), torch.stack([even_by_p, even_by_q], 1)
    return list(zip(odd, odd_slopes, even, even_slopes, strict=True))


def _beta_sum(p: Tensor, q: Tensor, t: Tensor) -> Any:
    """∫ g over (−∞, t): with r = log(w(t − s)/w(t)) it is g(t − s)/g(t) = exp(p r + q (r + s))."""
    with torch.no_grad():
        length = _beta_length(p.detach(), q.detach(), t.detach())
    nodes, weights = legendre(_NODES, t)
    s = length * nodes
    # w(t)/w(t − s) = 1 + (1 − w)(e^s − 1) = e^s (1 + w (e^−s − 1)), of which the latter does not overflow.
    r = -s - torch.log1p(t.sigmoid() * torch.expm1(-s))
    density = torch.exp(p * r + q * (r + s)) * weights
    mass = density.sum(0)
    by_p, by_q = (density * r).sum(0) / mass, (density * (r + s)).sum(0) / mass
    mass = mass * length
    log_w, log_rest = _logs(t)
    value = _beta_log_density(p, q, log_w, log_rest) + mass.log()
    return value, (
        log_w + digamma_difference(p, q) + by_p,
        log_rest + digamma_difference(q, p) + by_q,
        mass.reciprocal(),
    )


def _beta_length(p: Tensor, q: Tensor, t: Tensor) -> Tensor:
    """Where that exponent has fallen by `FALL`: Newton from beyond, on a concave function."""
    w = t.sigmoid()
    length = (FALL - (p + q) * logsigmoid(-t)) / p
    for _ in range(7):
        shrunk = w * torch.expm1(-length)
        fall = -p * length - (p + q) * torch.log1p(shrunk) + FALL
        slope = -p + (p + q) * (shrunk + w) / (1 + shrunk)
        length = length - fall / slope
    return length
