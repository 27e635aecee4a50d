"""Functions that several distributions share: open uniform draws, bounded exponentials, logs without cancellation."""

import math

import torch
from torch import Tensor
from torch.distributions.multivariate_normal import _batch_mv
from torch.types import _size

HALF_LOG_2PI = math.log(2 * math.pi) / 2


def open_uniform(
    shape: _size, *, dtype: torch.dtype, device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """Draw from the uniform distribution on the open interval (0, 1): never 0, never 1.

    `torch.rand` sometimes returns 0 (once in 2²⁴ float32 draws on average), and for many distributions the quantile of
    0 or 1 is infinite. Here the smallest value is δ and the largest 1 − δ, with δ = 2⁻²⁴ in float32 and
    2⁻⁵³ in float64, and on the CPU the values are all the multiples of δ between them: u and
    1 − u have the same set of values, so both tails are treated alike. The draws of `torch.rand` are unchanged, except
    that those below δ become δ.

    Args:
        shape: shape of the result.
        dtype: ``torch.float32`` or ``torch.float64``.
        device: where to draw.
        generator: the random generator; by default the global generator of that device.

    Returns:
        Tensor of ``shape`` with values in [δ, 1 − δ].

    Example:
        >>> u = open_uniform((1000,), dtype=torch.float32, device=torch.device("cpu"))
        >>> bool(((u > 0) & (u < 1)).all())
        True
    """
    # rand() < 1 always holds. The spacing of the numbers just below 1 is eps / 2, which gives δ at the other end.
    u = torch.rand(shape, dtype=dtype, device=device, generator=generator)
    return u.clamp(min=torch.finfo(dtype).eps / 2)


def bounded_exp(y: Tensor) -> Tensor:
    """exp(y), positive and finite: the bounds are taken in logs, so that the gradient is 0 there and not NaN."""
    return y.clamp(math.log(torch.finfo(y.dtype).tiny), log_max(y.dtype)).exp()


def log_max(dtype: torch.dtype) -> float:
    """The log of the largest number, rounded down."""
    limits = torch.finfo(dtype)
    return math.log(limits.max) * (1 - limits.eps)


def log1mexp(x: Tensor) -> Tensor:
    """log(1 − e⁻ˣ) for x ≥ 0, to full precision for small x and for large; −∞, with a gradient of 0, at x = 0."""
    small, nothing = x < math.log(2), x == 0
    # Each branch gets a harmless value where the other is chosen; otherwise its infinite slope times 0 would be NaN.
    value = torch.where(
        small,
        torch.log(-torch.expm1(-torch.where(small & (x > 0), x, 1.0))),
        torch.log1p(-torch.exp(-torch.where(small, 1.0, x))),
    )
    return torch.where(nothing, -math.inf, value)


def log_of(p: Tensor, complement: Tensor) -> Tensor:
    """log p of a probability p whose ``complement`` 1 − p is given too; at p = 0 it is −∞, with a gradient of 0."""
    small, nothing = p < 0.5, p == 0
    value = torch.where(
        small,
        torch.log(torch.where(small & (p > 0), p, 0.5)),
        torch.log1p(-torch.where(small, 0.5, complement)),
    )
    return torch.where(nothing, -math.inf, value)


def matvec(scale_tril: Tensor, noise: Tensor) -> Tensor:
    """A ε for A [*batch, d, d] and ε [*sample, *batch, d]."""
    result: Tensor = _batch_mv(scale_tril, noise)
    return result
