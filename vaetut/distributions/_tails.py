r"""The logs of both tails of univariate distributions, and the quantiles in terms of them, for `Truncated`.

A tail probability of e⁻⁴⁵⁰, 30 standard deviations out, has an exact log, but 1 minus it rounds to 1. So each
family gives log F(x), log(1 − F(x)), and x as a function of either. The families are of two kinds: those that are
symmetric about their location, where each tail is the mirror image of the other, and those whose cumulative hazard
H(x) = −log(1 − F(x)) is elementary, F being 1 − e^(−H).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import (
    Cauchy,
    Distribution,
    Exponential,
    GeneralizedPareto,
    Gumbel,
    HalfCauchy,
    HalfNormal,
    Kumaraswamy,
    Laplace,
    Normal,
    Pareto,
    TransformedDistribution,
    Uniform,
    Weibull,
)
from torch.nn.functional import logsigmoid

from vaetut._support.validate import any_true
from vaetut.distributions._base import Univariate, log_to_zero
from vaetut.distributions._special import log1mexp, log_of
from vaetut.distributions.gompertz import Gompertz
from vaetut.distributions.hazards import (
    general_pareto_hazard,
    general_pareto_log_density,
    general_pareto_quantile,
    kumaraswamy_hazard,
    kumaraswamy_log_density,
    weibull_log_density,
)
from vaetut.distributions.logistic import Logistic
from vaetut.distributions.rayleigh import Rayleigh
from vaetut.distributions.reciprocal import Reciprocal
from vaetut.distributions.standard_cdfs import (
    LOG_2,
    cauchy_quantile,
    laplace_quantile,
    log_cauchy_cdf,
    log_laplace_cdf,
    log_ndtr,
    normal_quantile,
)
from vaetut.distributions.triangular import Triangular

Function = Callable[[Tensor], Tensor]


class Tails(NamedTuple):
    """Both tails of a distribution, in float64."""

    log_cdf: Function
    log_survival: Function
    lower: Function  # the x with log F(x) = t
    upper: Function  # the x with log(1 − F(x)) = t


def tails_of(q: Distribution) -> Tails:
    """The tails of a univariate q with float64 parameters and without validation."""
    for kind, make in FAMILIES.items():
        # A subclass that replaces log_prob is another distribution.
        if isinstance(q, kind) and type(q).log_prob is kind.log_prob:
            return make(q)
    if isinstance(q, TransformedDistribution) and type(q).cdf is TransformedDistribution.cdf:
        return _transformed(q)
    return _any(q)


def _symmetric(log_cdf: Function, quantile: Function) -> Callable[[Any], Tails]:
    """A location-scale family that is symmetric about ``loc``, from log F of the standard member and its inverse."""

    def tails(q: Any) -> Tails:
        return Tails(
            lambda x: log_cdf((x - q.loc) / q.scale),
            lambda x: log_cdf((q.loc - x) / q.scale),
            lambda t: q.loc + q.scale * quantile(t),
            lambda t: q.loc - q.scale * quantile(t),
        )

    return tails


def _by_hazard(hazard: Callable[[Any, Tensor], Tensor], inverse: Callable[[Any, Tensor], Tensor]) -> Any:
    """A family with F = 1 − e^(−H), from the cumulative hazard H(x) and its inverse."""

    def tails(q: Any) -> Tails:
        def rise(x: Tensor) -> Tensor:
            return hazard(q, x).clamp(min=0)

        return Tails(
            lambda x: log1mexp(rise(x)),
            lambda x: -rise(x),
            lambda t: inverse(q, -log1mexp(-t)),
            lambda t: inverse(q, -t),
        )

    return tails


def _gumbel(q: Gumbel) -> Tails:
    """−x has an elementary hazard: F(x) = exp(−e^(−y))."""

    def rise(x: Tensor) -> Tensor:
        return torch.exp((q.loc - x) / q.scale)

    def inverse(e: Tensor) -> Tensor:
        return q.loc - q.scale * e.log()

    def upper(t: Tensor) -> Tensor:  # in the far tail −log(1 − eᵗ) is eᵗ, whose log is t
        far = t < -40
        return torch.where(far, q.loc - q.scale * t, inverse(-log1mexp(-torch.where(far, -1.0, t))))

    return Tails(lambda x: -rise(x), lambda x: log1mexp(rise(x)), lambda t: inverse(-t), upper)


def _half_normal(q: HalfNormal) -> Tails:
    """Near 0, F = erf(y/√2) is small and no difference; Φ⁻¹ is that of the nearer tail."""

    def lower(t: Tensor) -> Tensor:
        near = t < -1
        small = math.sqrt(2) * torch.special.erfinv(torch.where(near, t, -1.0).exp())
        return q.scale * torch.where(
            near, small, -normal_quantile(log1mexp(-torch.where(near, -1.0, t)) - LOG_2)
        )

    return Tails(
        lambda x: _where_small(
            (x / q.scale).clamp(min=0), lambda y: torch.erf(y / math.sqrt(2)), lambda y: LOG_2 + log_ndtr(-y)
        ),
        lambda x: LOG_2 + log_ndtr(-(x / q.scale).clamp(min=0)),
        lower,
        lambda t: -q.scale * normal_quantile(t - LOG_2),
    )


def _half_cauchy(q: HalfCauchy) -> Tails:
    def log_survival(y: Tensor) -> Tensor:
        return LOG_2 + log_cauchy_cdf(-y)

    return Tails(
        lambda x: _where_small(
            (x / q.scale).clamp(min=0), lambda y: 2 / math.pi * torch.atan(y), log_survival
        ),
        lambda x: log_survival((x / q.scale).clamp(min=0)),
        lambda t: q.scale * torch.tan(t.exp() * (math.pi / 2)),
        lambda t: q.scale / torch.tan(t.exp() * (math.pi / 2)),
    )


def _where_small(y: Tensor, cdf: Function, log_survival: Function) -> Tensor:
    """log F(y) from F for y < 1, from the log of 1 − F elsewhere."""
    small, nothing = y < 1, y == 0
    value = cdf(torch.where(small & ~nothing, y, 0.5)).log()
    value = torch.where(small, value, log1mexp(-log_survival(torch.where(small, 1.0, y))))
    return torch.where(nothing, -math.inf, value)


def _uniform(q: Any) -> Tails:
    width = q.high - q.low
    return Tails(
        lambda x: ((x - q.low) / width).log(),
        lambda x: ((q.high - x) / width).log(),
        lambda t: q.low + width * t.exp(),
        lambda t: q.high - width * t.exp(),
    )


def _triangular(q: Triangular) -> Tails:
    mirrored = Triangular(-q.high, -q.low, -q.peak, validate_args=False)
    return Tails(
        q.log_cdf, q.log_survival, lambda t: q._quantile(t.exp()), lambda t: -mirrored._quantile(t.exp())
    )


def _reciprocal(q: Reciprocal) -> Tails:
    return Tails(
        q.log_cdf,
        q.log_survival,
        lambda t: q.low * (q.log_width * t.exp()).exp(),
        lambda t: q.high * (-q.log_width * t.exp()).exp(),
    )


FAMILIES: dict[type[Distribution], Callable[[Any], Tails]] = {
    Normal: _symmetric(log_ndtr, normal_quantile),
    Logistic: _symmetric(logsigmoid, lambda t: t - log1mexp(-t)),
    Laplace: _symmetric(log_laplace_cdf, laplace_quantile),
    Cauchy: _symmetric(log_cauchy_cdf, cauchy_quantile),
    Gumbel: _gumbel,
    Exponential: _by_hazard(lambda q, x: q.rate * x, lambda q, e: e / q.rate),
    Weibull: _by_hazard(
        lambda q, x: (x.clamp(min=0) / q.scale) ** q.concentration,
        lambda q, e: q.scale * e ** q.concentration.reciprocal(),
    ),
    Rayleigh: _by_hazard(
        lambda q, x: 0.5 * (x.clamp(min=0) / q.scale).square(), lambda q, e: q.scale * (2 * e).sqrt()
    ),
    Gompertz: _by_hazard(
        lambda q, x: q._hazard(q.rate * x.clamp(min=0)), lambda q, e: q._scaled_quantile(e.log()) / q.rate
    ),
    Pareto: _by_hazard(
        lambda q, x: q.alpha * (x.clamp(min=0) / q.scale).log(), lambda q, e: q.scale * (e / q.alpha).exp()
    ),
    Kumaraswamy: _by_hazard(
        lambda q, x: kumaraswamy_hazard(q, log_to_zero(x.clamp(0, 1))),
        lambda q, e: (-torch.expm1(-e / q.concentration0)) ** q.concentration1.reciprocal(),
    ),
    GeneralizedPareto: _by_hazard(general_pareto_hazard, general_pareto_quantile),
    HalfNormal: _half_normal,
    HalfCauchy: _half_cauchy,
    Uniform: _uniform,
    Triangular: _triangular,
    Reciprocal: _reciprocal,
}


def log_density(q: Any, x: Tensor) -> Tensor:
    """log p of q, with float64 parameters and without validation."""
    if isinstance(q, Kumaraswamy) and type(q).log_prob is Kumaraswamy.log_prob:
        return kumaraswamy_log_density(q, log_to_zero(x))
    if isinstance(q, GeneralizedPareto) and type(q).log_prob is GeneralizedPareto.log_prob:
        return general_pareto_log_density(q, x)
    if isinstance(q, Weibull) and type(q).log_prob is Weibull.log_prob:
        return weibull_log_density(q, x)
    value: Tensor = q.log_prob(x)
    return value


def _transformed(q: TransformedDistribution) -> Tails:
    """Through the inverses of the transforms, which are monotone; a decreasing one swaps the tails."""
    base = tails_of(q.base_dist)

    def back(x: Tensor) -> tuple[Tensor, Tensor]:
        sign = torch.ones_like(x)
        for transform in reversed(q.transforms):
            x = transform.inv(x)
            sign = sign * transform.sign
        return x, sign > 0

    def forth(x: Tensor) -> Tensor:
        for transform in q.transforms:
            x = transform(x)
        return x

    def rises(t: Tensor) -> Tensor:
        sign = torch.ones_like(t)
        for transform in q.transforms:
            sign = sign * transform.sign
        return sign > 0

    def tail(same: Function, other: Function) -> Function:
        def function(x: Tensor) -> Tensor:
            x, up = back(x)
            return torch.where(up, same(x), other(x))

        return function

    def quantile(same: Function, other: Function) -> Function:
        return lambda t: forth(torch.where(rises(t), same(t), other(t)))

    return Tails(
        tail(base.log_cdf, base.log_survival),
        tail(base.log_survival, base.log_cdf),
        quantile(base.lower, base.upper),
        quantile(base.upper, base.lower),
    )


def _any(q: Any) -> Tails:
    """A distribution with ``cdf`` and ``icdf`` only, and its log tails if it has them."""

    def log_cdf(x: Tensor) -> Tensor:
        if hasattr(q, "log_cdf"):
            return q.log_cdf(x)
        cdf = q.cdf(x)
        return log_of(cdf, 1 - cdf)

    def log_survival(x: Tensor) -> Tensor:
        if hasattr(q, "log_survival"):
            return q.log_survival(x)
        survival = q.survival(x) if hasattr(q, "survival") else 1 - q.cdf(x)
        return log_of(survival, q.cdf(x))

    def lower(t: Tensor) -> Tensor:
        return q.icdf(t.exp())

    def upper(t: Tensor) -> Tensor:
        # 1 − eᵗ has lost the digits of a small eᵗ: Newton's method on the log of the tail itself restores them. Two
        # steps with their gradients make the second derivative right too.
        with torch.no_grad():
            x = root(q.icdf(-torch.expm1(t).clamp(2.0**-53 - 1, -(2.0**-52))), t)
        return newton(newton(x, t), t)

    def root(x: Tensor, t: Tensor) -> Tensor:
        """By Newton's method within the bracket that is known so far; its middle, or twice as far, where that fails."""
        low, high = torch.full_like(x, -math.inf), torch.full_like(x, math.inf)
        for count in range(100):
            value = log_survival(x)
            left = value > t
            low, high = torch.where(left, x, low), torch.where(left, high, x)
            outward = torch.where(left, 1.0, -1.0) * (x.abs() + 1)
            middle = torch.where(low.isfinite() & high.isfinite(), low + (high - low) / 2, x + outward)
            after = x + step(value, x, t)
            inside = after.isfinite() & (after >= low) & (after <= high)
            before, x = x, torch.where(inside, after, middle)
            if count >= 29 and not any_true((x - before).abs() > 1e-12 * x.abs()):
                break  # at once where no values can be read
        return x

    def step(value: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return (value - t) * torch.exp(value - q.log_prob(x))

    def newton(x: Tensor, t: Tensor) -> Tensor:
        change = step(log_survival(x), x, t)
        return torch.where(change.isfinite(), x + change, x)

    return Tails(log_cdf, log_survival, lower, upper if _has_tail(q) else lambda t: q.icdf(-torch.expm1(t)))


def _has_tail(q: Any) -> bool:
    return isinstance(q, Univariate) or hasattr(q, "survival") or hasattr(q, "log_survival")


def knows_far_tails(q: Any) -> bool:
    """Whether the upper tail of q is computed without forming 1 − F(x)."""
    if any(isinstance(q, kind) and type(q).log_prob is kind.log_prob for kind in FAMILIES):
        return True
    if isinstance(q, TransformedDistribution) and type(q).cdf is TransformedDistribution.cdf:
        return knows_far_tails(q.base_dist)
    return _has_tail(q)
