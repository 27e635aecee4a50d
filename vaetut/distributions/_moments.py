"""Moments in closed form of positive random variables: E[log x], Var[log x], the entropy, and E[xᵏ] for real k."""

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

from vaetut.distributions._special import HALF_LOG_2PI
from vaetut.distributions._stirling import (
    digamma_remainder,
    log_gamma_ratio,
    log_gamma_remainder,
)
from vaetut.distributions.rayleigh import Rayleigh
from vaetut.distributions.reciprocal import Reciprocal


class LogMoments(NamedTuple):
    """The moments from which the entropies and divergences of positive variables are computed.

    They are split so that no large terms cancel: a Gamma(1e5, 1e5) is narrow, its E[log x] and log E[xᵏ] are nearly
    equal, and so their difference is stored.
    """

    mean_log: Tensor  # E[log x]
    var_log: Tensor  # Var[log x]
    entropy_log: Tensor  # the entropy of log x, that of x less E[log x]
    # k ↦ log E[xᵏ] − k E[log x] ≥ 0, ∞ where the moment does not exist
    excess: Callable[[Tensor | float], Tensor]

    def log_power(self, k: Tensor | float) -> Tensor:
        """log E[xᵏ]."""
        return k * self.mean_log + self.excess(k)


@singledispatch
def log_moments(p: Distribution) -> LogMoments:
    """The log moments of ``p``, or NotImplementedError where they have no closed form."""
    raise NotImplementedError(f"vaetut has no closed form of E[log x] for {type(p).__name__}")


def power_of_gamma(concentration: Tensor, scale: Tensor, power: Tensor | float) -> LogMoments:
    """x = scale · Gᵖᵒʷᵉʳ with G ~ Gamma(a, 1) and a = concentration, so that E[Gᵏ] = Γ(a + k)/Γ(a)."""
    digamma = digamma_remainder(concentration)  # ψ(a) − log a

    def excess(k: Tensor | float) -> Tensor:
        shift = torch.as_tensor(k * power, dtype=scale.dtype, device=scale.device)
        exists = concentration + shift > 0
        value = log_gamma_ratio(concentration, torch.where(exists, shift, 1.0)) - shift * digamma
        return torch.where(exists, value, math.inf)

    size = power.abs().log() if isinstance(power, Tensor) else math.log(abs(power))
    # The entropy of log G is a + log Γ(a) − a ψ(a).
    entropy = log_gamma_remainder(concentration) - concentration.log() / 2 - concentration * digamma
    return LogMoments(
        scale.log() + power * (concentration.log() + digamma),
        # ψ′(a) = ζ(2, a). torch's polygamma(1, a) has an error of 1e-9.
        power**2 * torch.special.zeta(2.0, concentration),
        entropy + HALF_LOG_2PI + size,
        excess,
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
    return LogMoments(
        p.loc, variance, p.scale.log() + 0.5 + HALF_LOG_2PI, lambda k: k**2 * variance / 2 + 0 * p.loc
    )


@log_moments.register
def _(p: Pareto) -> LogMoments:
    def excess(k: Tensor | float) -> Tensor:
        exists = p.alpha > k
        ratio = torch.where(exists, k / p.alpha, 0.0)
        return torch.where(exists, -torch.log1p(-ratio) - ratio, math.inf)

    return LogMoments(p.scale.log() + 1 / p.alpha, p.alpha**-2, 1 - p.alpha.log(), excess)


@log_moments.register
def _(p: Reciprocal) -> LogMoments:
    width = p.log_width

    def excess(k: Tensor | float) -> Tensor:
        # E[xᵏ] is (bᵏ − aᵏ)/(k log(b/a)); the larger of the two powers is taken out.
        exponent = torch.as_tensor(k, dtype=width.dtype, device=width.device).abs() * width
        return exponent / 2 + torch.log(-torch.expm1(-exponent) / exponent)

    return LogMoments((p.low.log() + p.high.log()) / 2, width.square() / 12, width.log(), excess)
