"""Uniform noise that an inverse CDF can take at both ends (chapter 7, *Inverse CDF*)."""

import torch
from torch import Tensor
from torch.types import _size


def open_uniform(shape: _size, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Draw from the uniform distribution on the open interval (0, 1): never 0, never 1.

    `torch.rand` returns 0 now and then (once in 2²⁴ float32 draws), and the quantile of 0 or 1 is an infinite sample
    for half of the distributions. Here the smallest value is δ and the largest 1 − δ, with δ = 2⁻²⁴ in float32 and
    2⁻⁵³ in float64, and on the CPU the values are all the multiples of δ between them: u can be drawn exactly if
    1 − u can, so neither tail is cut shorter than the other. The draws of `torch.rand` keep every bit; only those
    below δ are raised to δ.

    Args:
        shape: shape of the result.
        dtype: ``torch.float32`` or ``torch.float64``.
        device: where to draw; the global generator of that device is used.

    Returns:
        Tensor of ``shape`` with values in [δ, 1 − δ].

    Example:
        >>> u = open_uniform((1000,), dtype=torch.float32, device=torch.device("cpu"))
        >>> bool(((u > 0) & (u < 1)).all())
        True
    """
    # rand() < 1 holds already. The spacing of the numbers just below 1 is eps / 2, hence the δ that mirrors it.
    return torch.rand(shape, dtype=dtype, device=device).clamp(min=torch.finfo(dtype).eps / 2)
