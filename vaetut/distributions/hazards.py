"""The cumulative hazards −log(1 − F) and log-densities of torch's classes that compute them with a loss of digits.

torch's Kumaraswamy forms 1 − xᵃ, which has few digits for x near 0 and near 1; its generalized Pareto distribution
compares a float64 shape with a float32 zero, which is an error, and subtracts nearly equal numbers for a small shape.
Its Weibull distribution stores 1/k in the dtype of k, which far out costs digits also after a conversion to float64.
"""

from typing import Any

import torch
from torch import Tensor

from vaetut.distributions._base import log_to_zero
from vaetut.distributions._special import log1mexp


def kumaraswamy_hazard(q: Any, log_x: Tensor) -> Tensor:
    """−b log(1 − xᵃ), from log x."""
    return -q.concentration0 * log1mexp(-q.concentration1 * log_x)


def kumaraswamy_log_density(q: Any, log_x: Tensor) -> Tensor:
    """log ab + (a − 1) log x + (b − 1) log(1 − xᵃ), from log x; at an end 0 · ∞ is 0."""
    a, b = q.concentration1, q.concentration0
    log_rest = log1mexp(-a * log_x.clamp(min=-1e30))  # at −∞ its slope in a would be 0 · ∞
    return a.log() + b.log() + _times(a - 1, log_x) + _times(b - 1, log_rest)


def _times(factor: Tensor, log: Tensor) -> Tensor:
    return factor * torch.where((factor == 0) & log.isinf(), 0.0, log)


def weibull_log_density(q: Any, x: Tensor) -> Tensor:
    """log(k/λ) + (k − 1) log(x/λ) − (x/λ)ᵏ."""
    k = q.concentration
    log_y = log_to_zero(x) - q.scale.log()
    return k.log() - q.scale.log() + _times(k - 1, log_y) - torch.exp(k * log_y.clamp(min=-1e30))


def general_pareto_hazard(q: Any, x: Tensor) -> Tensor:
    """log(1 + ξy)/ξ, which is y for ξ = 0."""
    y = (x - q.loc) / q.scale
    v = q.concentration * y
    small = v.detach().abs() < 1e-2
    near = torch.where(small, v, 0.0)
    series: Any = 0.0
    for k in range(9, 0, -1):
        series = 1 / k - near * series
    shape = torch.where(small, 1.0, q.concentration)
    return torch.where(small, y * series, torch.log1p(torch.where(small, 0.0, v)) / shape)


def general_pareto_log_density(q: Any, x: Tensor) -> Tensor:
    """−log σ − (1 + ξ) H(x)."""
    return -q.scale.log() - (1 + q.concentration) * general_pareto_hazard(q, x)


def general_pareto_quantile(q: Any, hazard: Tensor) -> Tensor:
    """The x with that hazard e: μ + σ (e^(ξe) − 1)/ξ, which is μ + σ e for ξ = 0."""
    v = q.concentration * hazard
    small = v.detach().abs() < 1e-8
    shape = torch.where(small, 1.0, q.concentration)
    far = torch.expm1(torch.where(small, 1.0, v)) / shape
    return q.loc + q.scale * torch.where(small, hazard * (1 + v / 2), far)
