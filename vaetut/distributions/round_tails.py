r"""Tails of Student's t and of the von Mises distribution, in the same way as those in `shape_tails`.

Both densities are even, so the tails follow from those of |y|. For Student's t with few degrees of freedom they are
computed from the beta distribution of y²/(ν + y²); with many, the derivative in ν would be the small difference of two
large terms there, and the score is integrated instead.
"""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vaetut.distributions.shape_tails import (
    FALL,
    beta_is_above,
    beta_parts,
    by_region,
    legendre,
    with_slopes,
)

MANY = 40.0  # degrees of freedom


def student_log_density(df: Tensor, y: Tensor) -> Tensor:
    """The log density of the standard variable at y."""
    norm = torch.lgamma((df + 1) / 2) - torch.lgamma(df / 2) - (math.pi * df).log() / 2
    return norm - (df + 1) / 2 * torch.log1p(y.square() / df)


def student_is_above(df: Tensor, y: Tensor) -> Tensor:
    """Whether `student_log_tail` is the probability to be farther out than y."""
    few = beta_is_above(torch.full_like(df, 0.5), df / 2, 2 * y.log() - df.log())
    return torch.where(df > MANY, y > 1.5, few)


def student_log_tail(df: Tensor, y: Tensor) -> Tensor:
    """log P(|Y| > y) where `student_is_above`, else log P(|Y| < y), for y > 0."""

    def parts(df: Tensor, y: Tensor) -> Any:
        return by_region(df > MANY, _student_parts, _student_by_beta, (1.0, 1.0), df, y)

    return with_slopes(parts, df, y)


def _student_by_beta(df: Tensor, y: Tensor) -> Any:
    value, (_, by_b, by_t) = beta_parts(torch.full_like(df, 0.5), df / 2, 2 * y.log() - df.log())
    return value, (by_b / 2 - by_t / df, 2 * by_t / y)


def _student_parts(df: Tensor, y: Tensor) -> Any:
    """∫ p over (y, ∞) in log t, or over (0, y) in t; the mean of the score over it is the derivative in ν."""
    above = (y > 1.5).detach()
    sign = torch.where(above, -1.0, 1.0).to(y)
    half = (df + 1) / 2
    r = y.square() / df
    w = r / (1 + r)
    with torch.no_grad():
        length = (FALL - half * w.log()) / df
        for _ in range(5):
            length = 0.5 * torch.log1p(torch.expm1((FALL + length) / half) / w)
        length = length.detach()
    nodes, weights = legendre(40, y)
    s = torch.where(above, length * nodes, 0.0)
    square = torch.where(above, (2 * s).exp(), nodes.square())  # t²/y²
    density = weights * torch.exp(s - half * torch.log1p(w * (square - 1)))
    mass = density.sum(0)
    by_df = (density * _student_score(df, r * square)).sum(0) / mass
    mass = mass * torch.where(above, y * length, y)
    return math.log(2) + student_log_density(df, y) + mass.log(), (by_df, sign / mass)


def _student_score(df: Tensor, r: Tensor) -> Tensor:
    """∂ log p/∂ν = ½ (ψ((ν + 1)/2) − ψ(ν/2) − 1/ν − (log(1 + r) − r/(1 + r)) + r/(ν(1 + r))), with r = t²/ν."""
    h = (df / 2).square().reciprocal()
    constant = h * (1 / 8 + h * (-1 / 64 + h * (1 / 128 + h * (-17 / 2048 + h * 31 / 2048))))
    small = r < 0.05
    near = torch.where(small, r, 0.0)
    series: Any = 0.0  # r²/2 − 2r³/3 + 3r⁴/4 − …
    for k in range(14, 1, -1):
        series = (k - 1) / k - near * series
    far = torch.where(small, 1.0, r)
    deficit = torch.where(small, near.square() * series, far.log1p() - far / (1 + far))
    return 0.5 * (constant - deficit + r / (df * (1 + r)))


# ---------------------------------------------------------------------------------------------------- the von Mises


def von_mises_log_density(concentration: Tensor, t: Tensor) -> Tensor:
    """The log density at the angle t from the mean direction."""
    norm = torch.log(2 * math.pi * torch.special.i0e(concentration))
    return -2 * concentration * (t / 2).sin().square() - norm


def von_mises_is_above(concentration: Tensor, t: Tensor) -> Tensor:
    """Whether `von_mises_log_tail` is that of the angles beyond |t|: about where the score in κ changes its sign."""
    return 2 * (t / 2).sin().square() > 1 / (1 + 2 * concentration)


def von_mises_log_tail(concentration: Tensor, t: Tensor) -> Tensor:
    """log P(T > t) where `von_mises_is_above`, else log P(0 < T < t), for an angle t in (0, π)."""
    return with_slopes(_von_mises_parts, concentration, t)


# of 1 − I₁(κ)/I₀(κ) in powers of 1/κ
_ASYMPTOTIC = (1 / 2, 1 / 8, 1 / 8, 25 / 128, 13 / 32, 1073 / 1024, 103 / 32, 375733 / 32768, 23797 / 512)


def _one_less_mean(k: Tensor, terms: int) -> Tensor:
    """1 − I₁(κ)/I₀(κ), from Gauss's continued fraction, or its asymptotic series where that would cancel."""
    large = k > 60
    half = torch.where(large, 0.5, k / 2)
    ratio = torch.zeros_like(k)  # I₍ₙ₊₁₎/I₍ₙ₎
    for n in range(terms, 0, -1):
        ratio = half / (n + half * ratio)
    if terms == _FEW[1]:
        return 1 - ratio
    v = torch.where(large, k, 60.0).reciprocal()
    series = torch.zeros_like(v)
    for coefficient in reversed(_ASYMPTOTIC):
        series = v * (coefficient + series)
    return torch.where(large, series, 1 - ratio)


# Nodes, and terms of the continued fraction, that leave 1e-14 for κ ≤ 3 and for any κ.
_FEW, _ENOUGH = (16, 14), (32, 60)


def _von_mises_parts(k: Tensor, t: Tensor) -> Any:
    return by_region(
        k <= 3, partial(_von_mises_sum, _FEW), partial(_von_mises_sum, _ENOUGH), (1.0, 1.0), k, t
    )


def _von_mises_sum(sizes: tuple[int, int], k: Tensor, t: Tensor) -> Any:
    """∫ p over (t, π), as far as it matters, or over (0, t); the score in κ is cos s − I₁(κ)/I₀(κ)."""
    lack = _one_less_mean(k, sizes[1])
    square = (t / 2).sin().square()
    above = von_mises_is_above(k, t)
    sign = torch.where(above, -1.0, 1.0).to(t)
    with torch.no_grad():
        end = 2 * (square + FALL / (2 * k)).detach().clamp(max=1.0).sqrt().asin()
    nodes, weights = legendre(sizes[0], t)
    start, length = torch.where(above, t, 0.0), torch.where(above, end - t, t)
    turn = (start / 2 + length / 2 * nodes).sin().square()
    density = weights * torch.exp(2 * k * (square - turn))
    mass = density.sum(0)
    by_k = (density * (lack - 2 * turn)).sum(0) / mass
    mass = mass * length
    return von_mises_log_density(k, t) + mass.log(), (by_k, sign / mass)
