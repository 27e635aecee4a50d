"""Moments in closed form of positive random variables: E[log x], Var[log x] and log E[xᵏ] for real k."""

import math
from collections.abc import Callable
from functools import singledispatch
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Exponential,
    Gamma,
    HalfNormal,
    InverseGamma,
    LogNormal,
    Pareto,
    Weibull,
)

from vaetut.distributions.rayleigh import Rayleigh
from vaetut.distributions.reciprocal import Reciprocal, log_ratio


class LogMoments(NamedTuple):
    """What the entropies and divergences of positive variables are made of."""

    mean_log: Tensor  # E[log x]
    var_log: Tensor  # Var[log x]
    log_power: Callable[[Tensor | float], Tensor]  # k ↦ log E[xᵏ], ∞ where the moment does not exist


@singledispatch
def log_moments(p: Distribution) -> LogMoments:
    """The log moments of ``p``, or NotImplementedError where they have no closed form."""
    raise NotImplementedError(f"E[log x] has no closed form that vaetut knows for {type(p).__name__}")


def power_of_gamma(concentration: Tensor, scale: Tensor, power: Tensor | float) -> LogMoments:
    """x = scale · Gᵖᵒʷᵉʳ with G ~ Gamma(concentration, 1), so that E[Gᵏ] = Γ(concentration + k)/Γ(concentration)."""

    def log_power(k: Tensor | float) -> Tensor:
        shifted = concentration + k * power
        exists = shifted > 0
        value = k * scale.log() + torch.where(exists, shifted, 1.0).lgamma() - concentration.lgamma()
        return torch.where(exists, value, math.inf)

    return LogMoments(
        scale.log() + power * concentration.digamma(),
        # ψ′(a) = ζ(2, a). torch's polygamma(1, a) has an error of 1e-9.
        power**2 * torch.special.zeta(2.0, concentration),
        log_power,
    )


@log_moments.register
def _(p: Gamma) -> LogMoments:
    return power_of_gamma(p.concentration, 1 / p.rate, 1.0)


@log_moments.register
def _(p: Exponential) -> LogMoments:
    return power_of_gamma(torch.ones_like(p.rate), 1 / p.rate, 1.0)


@log_moments.register
def _(p: InverseGamma) -> LogMoments:
    return power_of_gamma(p.concentration, p.rate, -1.0)


@log_moments.register
def _(p: Weibull) -> LogMoments:
    return power_of_gamma(torch.ones_like(p.scale), p.scale, 1 / p.concentration)


@log_moments.register
def _(p: Rayleigh) -> LogMoments:
    return power_of_gamma(torch.ones_like(p.scale), math.sqrt(2) * p.scale, 0.5)


@log_moments.register
def _(p: HalfNormal) -> LogMoments:
    return power_of_gamma(torch.full_like(p.scale, 0.5), math.sqrt(2) * p.scale, 0.5)


@log_moments.register
def _(p: LogNormal) -> LogMoments:
    variance = p.scale.square()
    return LogMoments(p.loc, variance, lambda k: k * p.loc + k**2 * variance / 2)


@log_moments.register
def _(p: Pareto) -> LogMoments:
    def log_power(k: Tensor | float) -> Tensor:
        exists = p.alpha > k
        value = k * p.scale.log() - torch.log1p(torch.where(exists, -k / p.alpha, 0.0))
        return torch.where(exists, value, math.inf)

    return LogMoments(p.scale.log() + 1 / p.alpha, p.alpha**-2, log_power)


@log_moments.register
def _(p: Reciprocal) -> LogMoments:
    log_low, log_high, width = p.low.log(), p.high.log(), log_ratio(p.high, p.low)

    def log_power(k: Tensor | float) -> Tensor:
        # The moment is (bᵏ − aᵏ)/(k log(b/a)); the larger of the two powers is taken out.
        k = torch.as_tensor(k, dtype=width.dtype, device=width.device)
        exponent = k.abs() * width
        return k * torch.where(k > 0, log_high, log_low) + torch.log(-torch.expm1(-exponent) / exponent)

    return LogMoments((log_low + log_high) / 2, width.square() / 12, log_power)
