"""Differences of log-gamma functions, without the loss of digits by cancellation for large arguments."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vaetut.distributions._special import HALF_LOG_2PI

# Stirling's series log Γ(x) ~ (x − 1/2) log x − x + log(2π)/2 + Σ cₙ x^(1−2n), below 1e-17 relative from x = 12 on
STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
POWERS = range(-1, -14, -2)
# Γ(x + 12) = x (x + 1) … (x + 11) Γ(x) moves every argument into the range where the series is exact.
SHIFT = 12


def _column(values: Sequence[float], x: Tensor) -> Tensor:
    """``values`` along a new first dimension of x."""
    return torch.tensor(values, dtype=x.dtype, device=x.device).reshape(-1, *[1] * x.dim())


def _series(x: Tensor) -> Tensor:
    """Σ cₙ x^(1−2n)."""
    return (_column(STIRLING, x) * x ** _column(POWERS, x)).sum(0)


def _series_slope(x: Tensor) -> Tensor:
    """The derivative of `_series`."""
    k = _column(POWERS, x)
    return (_column(STIRLING, x) * k * x ** (k - 1)).sum(0)


def log_gamma_ratio(x: Tensor, a: Tensor | float) -> Tensor:
    """log Γ(x + a) − log Γ(x) − a log x for x > 0 and x + a > 0."""
    x, a = torch.broadcast_tensors(x, torch.as_tensor(a, dtype=x.dtype, device=x.device))
    y = x + SHIFT
    total = (y + a - 0.5) * torch.log1p(a / y) - a + _series(y + a) - _series(y)
    return total + a * torch.log1p(SHIFT / x) - torch.log1p(a / (x + _column(range(SHIFT), x))).sum(0)


def digamma_difference(x: Tensor, d: Tensor | float) -> Tensor:
    """ψ(x + d) − ψ(x) for x, d > 0, exact for a small d too; by its recurrence and its asymptotic series."""
    y, lower = x + 10.0, x + torch.arange(10.0, dtype=x.dtype, device=x.device).reshape(-1, *[1] * x.dim())
    total = (d / (lower * (lower + d))).sum(0)
    first, second = y.square().reciprocal(), (y + d).square().reciprocal()
    gap = d * (2 * y + d) * first * second  # first − second
    # ψ(y) = log y − 1/2y − Σ B₂ₙ/(2n y²ⁿ); a difference of powers is `gap` times a sum of products.
    powers, sums = first, torch.ones_like(x)
    series = sums / 12
    for coefficient in (-1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12):
        sums = sums * second + powers
        powers = powers * first
        series = series + coefficient * sums
    return total + torch.log1p(d / y) + d / (2 * y * (y + d)) + gap * series


def log_gamma_remainder(x: Tensor) -> Tensor:
    """log Γ(x) − ((x − 1/2) log x − x + log(2π)/2) for x > 0: about 1/12x for a large x."""
    # Below 12 no large terms cancel; above, the series is exact.
    near = torch.where(x < SHIFT, x, 1.0)
    far = torch.where(x < SHIFT, float(SHIFT), x)
    exact = torch.lgamma(near) - (near - 0.5) * near.log() + near - HALF_LOG_2PI
    return torch.where(x < SHIFT, exact, _series(far))


def digamma_remainder(x: Tensor) -> Tensor:
    """ψ(x) − log x for x > 0: about −1/2x for a large x."""
    near = torch.where(x < SHIFT, x, 1.0)
    far = torch.where(x < SHIFT, float(SHIFT), x)
    return torch.where(x < SHIFT, torch.digamma(near) - near.log(), _series_slope(far) - 0.5 / far)
