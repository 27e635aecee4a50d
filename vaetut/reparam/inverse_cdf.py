r"""Inverse CDF: the quantile function of a uniform number, $z = F_\phi^{-1}(u)$, $u \sim U(0, 1)$.

Chapter 7, *Inverse CDF* (AEVB, section 2.4, approach 1). Every map increases in u, so that u is the probability of
a smaller draw, and is computed from the nearer tail: near u = 1 from 1 − u, which is exact in floating point there,
and without a difference of two nearly equal numbers. u is never 0 or 1, whose quantiles are the ends of the support.
"""

# ruff: noqa: D103 -- the lines above each map say what it does
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Cauchy,
    Exponential,
    Gumbel,
    HalfCauchy,
    HalfNormal,
    Kumaraswamy,
    Laplace,
    LogNormal,
    Normal,
    Pareto,
    Uniform,
    Weibull,
)

from vaetut.distributions import Gompertz, Logistic, Rayleigh, Reciprocal, Triangular, Truncated
from vaetut.distributions._special import bounded_exp
from vaetut.reparam._map import Map
from vaetut.reparam.noise import StandardCauchy, StandardLaplace, StandardNoise, StandardUniform
from vaetut.reparam.registry import parameters, register_reparameterization


def _inverse_cdf(
    kind: type[Any], g: str, tex: str, *, paper: bool = False, standard: type[StandardNoise] | None = None
) -> Callable[[Callable[[Any, Tensor], Tensor]], Callable[[Any, Tensor], Tensor]]:
    """Register ``quantile(q, u)`` as the inverse CDF of ``kind``.

    For a location-scale family ``rsample`` may draw the ``standard`` variable with a faster sampler.
    """

    def register(quantile: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
        def rule(q: Any) -> Map:
            def rsample(shape: torch.Size) -> Tensor:
                assert standard is not None
                eps = standard.draw(shape + q.batch_shape, q.loc.dtype, q.loc.device)
                return torch.addcmul(q.loc, q.scale, eps)

            noise = StandardUniform(getattr(q, like), q.batch_shape)
            return Map(noise, lambda u: quantile(q, u), rsample if standard else None)

        like = parameters(kind)[0]
        listed = "inverse_cdf" if paper else ""
        register_reparameterization(kind, "inverse_cdf", noise="u ~ U(0, 1)", g=g, tex=tex, paper=listed)(
            rule
        )
        return quantile

    return register


@_inverse_cdf(Exponential, "−log(1 − u) / rate", r"-\log(1 - u) / \lambda", paper=True)
def exponential(q: Exponential, u: Tensor) -> Tensor:
    return _exponential(u) / q.rate


@_inverse_cdf(
    Cauchy,
    "loc + scale · tan(π(u − ½))",
    r"x_0 + s \tan\big(\pi(u - \tfrac12)\big)",
    paper=True,
    standard=StandardCauchy,
)
def cauchy(q: Cauchy, u: Tensor) -> Tensor:
    return torch.addcmul(q.loc, q.scale, _odd((_nearer_tail(u) * torch.pi).tan().reciprocal(), u))


@_inverse_cdf(Logistic, "loc + scale · log(u / (1 − u))", r"\mu + s \log\frac{u}{1 - u}", paper=True)
def logistic(q: Logistic, u: Tensor) -> Tensor:
    return q._quantile(u)


@_inverse_cdf(Rayleigh, "scale · √(−2 log(1 − u))", r"\sigma \sqrt{-2 \log(1 - u)}", paper=True)
def rayleigh(q: Rayleigh, u: Tensor) -> Tensor:
    return q._quantile(u)


@_inverse_cdf(Pareto, "scale · (1 − u)^(−1/alpha)", r"x_m (1 - u)^{-1/\alpha}", paper=True)
def pareto(q: Pareto, u: Tensor) -> Tensor:
    limits = torch.finfo(u.dtype)
    return (q.scale * (_exponential(u) / q.alpha).clamp(max=math.log(limits.max)).exp()).clamp(max=limits.max)


@_inverse_cdf(
    Weibull, "scale · (−log(1 − u))^(1/concentration)", r"\lambda \big({-\log(1 - u)}\big)^{1/k}", paper=True
)
def weibull(q: Weibull, u: Tensor) -> Tensor:
    # The power is kept positive and finite, so that its slopes are: 0 · ∞ would be NaN.
    limits, k = torch.finfo(u.dtype), q.concentration.detach()
    base = torch.maximum(torch.minimum(_exponential(u), (limits.max / 2) ** k), (limits.tiny * 2) ** k)
    return (q.scale * base ** q.concentration.reciprocal()).clamp(limits.tiny, limits.max)


@_inverse_cdf(Reciprocal, "low · (high / low)^u", r"a (b / a)^u", paper=True)
def reciprocal(q: Reciprocal, u: Tensor) -> Tensor:
    return q._quantile(u)


@_inverse_cdf(
    Gompertz,
    "log(1 − log(1 − u) / concentration) / rate",
    r"\frac1b \log\Big(1 - \frac{\log(1 - u)}{\eta}\Big)",
    paper=True,
)
def gompertz(q: Gompertz, u: Tensor) -> Tensor:
    return q._quantile(u)


@_inverse_cdf(Gumbel, "loc − scale · log(−log u)", r"\mu - \beta \log(-\log u)", paper=True)
def gumbel(q: Gumbel, u: Tensor) -> Tensor:
    return torch.addcmul(q.loc, q.scale, u.log().neg().log(), value=-1)


@_inverse_cdf(
    Laplace,
    "loc − scale · sign(u − ½) log(1 − 2|u − ½|)",
    r"\mu - b \operatorname{sgn}(u - \tfrac12) \log\big(1 - 2 |u - \tfrac12|\big)",
    standard=StandardLaplace,
)
def laplace(q: Laplace, u: Tensor) -> Tensor:
    return torch.addcmul(q.loc, q.scale, _odd((2 * _nearer_tail(u)).log(), u))


@_inverse_cdf(Uniform, "low + (high − low) · u", r"a + (b - a) u")
def uniform(q: Uniform, u: Tensor) -> Tensor:
    return torch.lerp(q.low, q.high, u)


@_inverse_cdf(
    Triangular,
    "low + √(u (high − low)(peak − low)), mirrored above the peak",
    r"a + \sqrt{u (b - a)(c - a)} \text{ up to } c, \ b - \sqrt{(1 - u)(b - a)(b - c)} \text{ above}",
)
def triangular(q: Triangular, u: Tensor) -> Tensor:
    return q._quantile(u)


@_inverse_cdf(Normal, "loc + scale · Φ⁻¹(u)", r"\mu + \sigma \Phi^{-1}(u)")
def normal(q: Normal, u: Tensor) -> Tensor:
    return torch.addcmul(q.loc, q.scale, torch.special.ndtri(u))


@_inverse_cdf(LogNormal, "exp(loc + scale · Φ⁻¹(u))", r"\exp\big(\mu + \sigma \Phi^{-1}(u)\big)")
def log_normal(q: LogNormal, u: Tensor) -> Tensor:
    return bounded_exp(torch.addcmul(q.loc, q.scale, torch.special.ndtri(u)))


@_inverse_cdf(HalfNormal, "scale · Φ⁻¹((1 + u) / 2)", r"\sigma \Phi^{-1}\big(\tfrac{1 + u}{2}\big)")
def half_normal(q: HalfNormal, u: Tensor) -> Tensor:
    return q.scale * torch.where(u < 0.5, 2**0.5 * u.erfinv(), -torch.special.ndtri((1 - u) / 2))


@_inverse_cdf(HalfCauchy, "scale · tan(πu / 2)", r"s \tan(\pi u / 2)")
def half_cauchy(q: HalfCauchy, u: Tensor) -> Tensor:
    tangent = (_nearer_tail(u) * (torch.pi / 2)).tan()
    return q.scale * torch.where(u < 0.5, tangent, tangent.reciprocal())


@_inverse_cdf(
    Kumaraswamy,
    "(1 − (1 − u)^(1/concentration0))^(1/concentration1)",
    r"\big(1 - (1 - u)^{1/b}\big)^{1/a}",
)
def kumaraswamy(q: Kumaraswamy, u: Tensor) -> Tensor:
    return (-(-_exponential(u) / q.concentration0).expm1()) ** q.concentration1.reciprocal()


@register_reparameterization(
    Truncated,
    "inverse_cdf",
    noise="u ~ U(0, 1)",
    g="F⁻¹(F(low) + u · (F(high) − F(low)))",
    tex=r"F^{-1}\big(F(a) + u\,(F(b) - F(a))\big)",
    remark="F is the CDF of the base, whose parameters get their gradients too",
)
def truncated(q: Truncated) -> Map:
    # rsample takes uniform numbers in float64 for a float32 q too: far out, float32 has few numbers between two levels.
    return Map(StandardUniform(q.low, q.batch_shape), q.icdf, q.rsample)


def _exponential(u: Tensor) -> Tensor:
    """−log(1 − u), the quantile of the standard exponential, which many of the maps use."""
    return (-u).log1p().neg()


def _nearer_tail(u: Tensor) -> Tensor:
    """The probability of the tail that u lies in, min(u, 1 − u)."""
    return torch.minimum(u, 1 - u)


def _odd(size: Tensor, u: Tensor) -> Tensor:
    """|size| with the sign of u − ½: a quantile function that is odd about the median."""
    return torch.copysign(size, u - 0.5)
