"""Entropies and divergences of torch's own classes where torch's closed form loses digits or overflows.

`vaetut.entropy` and `vaetut.kl_divergence` use these (chapter 3); torch's registry keeps its own. In float32 the terms
of the entropy of a gamma variable with a concentration of 1e6 are of the order of 1e7 and their sum is 8.3, of which
float32 keeps no digit. Such forms are computed in float64. For concentrations above a million that loses digits too:
there the forms of positive variables are computed from moments without such terms (`vaetut.distributions._moments`),
and those of the beta and the Dirichlet distribution from Stirling's remainders. Both take several times as long.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Beta,
    ContinuousBernoulli,
    Dirichlet,
    Distribution,
    Exponential,
    Gamma,
    Gumbel,
    InverseGamma,
    Normal,
    Pareto,
    Poisson,
    StudentT,
    Uniform,
    Weibull,
    Wishart,
)

from vaetut._support.validate import any_true
from vaetut.distributions._moments import log_moments
from vaetut.distributions._special import HALF_LOG_2PI
from vaetut.distributions._stirling import digamma_remainder, log_gamma_ratio, log_gamma_remainder
from vaetut.distributions.copies import with_tensors
from vaetut.distributions.kl import CROSS_ENTROPIES

# The classes whose closed forms are, for some parameters, small differences of large terms.
LOSES_DIGITS = (
    Beta,
    ContinuousBernoulli,
    Dirichlet,
    Gamma,
    Gumbel,
    InverseGamma,
    Pareto,
    Poisson,
    StudentT,
    Uniform,
    Weibull,
    Wishart,
)
# The concentration from which torch's forms keep fewer than eight decimal places in float64.
LARGE = 1e6


def entropy_of(q: Distribution) -> Tensor:
    """The entropy of q in nats, without loss of digits; NotImplementedError where torch has none.

    Example:
        >>> q = Gamma(torch.tensor(1e6), torch.tensor(1.0))
        >>> entropy_of(q), q.entropy()
        (tensor(8.3267), tensor(9.))
    """
    return _in_float64(_entropy, q)


def divergence_of(q: Distribution, p: Distribution, otherwise: Callable[..., Tensor]) -> Tensor:
    """The divergence from q to p in nats, without loss of digits; by ``otherwise``, in float64, if no form is here.

    Example:
        >>> q, p = Gamma(torch.tensor(1e6), torch.tensor(1e6)), Gamma(torch.tensor(1.001e6), torch.tensor(1e6))
        >>> divergence_of(q, p, torch.distributions.kl_divergence)
        tensor(0.4998)
    """
    return _in_float64(lambda q, p: _divergence(q, p, otherwise), q, p)


def _in_float64(f: Callable[..., Tensor], *given: Distribution) -> Tensor:
    """f of the distributions, computed in float64 where one of them is float32 and f would lose digits in it."""
    if torch.compiler.is_compiling() or not any(isinstance(q, LOSES_DIGITS) for q in given):
        return f(*given)
    narrow = [_is_narrow(q) for q in given]
    if not any(narrow):
        return f(*given)
    value = f(*(with_tensors(q, Tensor.double) for q in given))
    return value.float() if all(narrow) else value


def _is_narrow(q: Distribution) -> bool:
    """Whether the parameters are float32, on a device that has float64 (Apple's has not)."""
    first = getattr(q, next(iter(q.arg_constraints), ""), None)
    return isinstance(first, Tensor) and first.dtype == torch.float32 and first.device.type != "mps"


def _is_large(*concentrations: Tensor) -> bool:
    """Whether torch's form would lose digits in float64 too; False where no values can be read."""
    return any(any_true(a.detach() > LARGE) for a in concentrations)


def _entropy(q: Distribution) -> Tensor:
    if isinstance(q, Gamma | InverseGamma) and _is_large(q.concentration):
        moments = log_moments(q)
        return moments.mean_log + moments.entropy_log
    if isinstance(q, Beta | Dirichlet):
        a = q._dirichlet.concentration if isinstance(q, Beta) else q.concentration
        if _is_large(a):
            return _entropy_of_dirichlet(a)
    if isinstance(q, ContinuousBernoulli):
        return _tilted(q.logits, _tilted_mean(q.logits))
    return q.entropy()


def _divergence(q: Any, p: Any, otherwise: Callable[..., Tensor]) -> Tensor:
    for kinds, form in _FORMS.items():
        if isinstance(q, kinds[0]) and isinstance(p, kinds[1]):
            return form(q, p)
    if isinstance(q, Beta) and isinstance(p, Beta):
        q, p = q._dirichlet, p._dirichlet
    if isinstance(q, Dirichlet) and isinstance(p, Dirichlet):
        large = _is_large(q.concentration, p.concentration)
        return _between(q.concentration, p.concentration) if large else otherwise(q, p)
    shapes = [x.concentration for x in (q, p) if isinstance(x, Gamma | InverseGamma)]
    cross = next((f for kind, f in CROSS_ENTROPIES.items() if isinstance(p, kind)), None)
    if cross is None or not _is_large(*shapes):
        return otherwise(q, p)
    try:
        moments = log_moments(q)
    except NotImplementedError:
        return otherwise(q, p)
    value: Tensor = cross(moments, p)
    return value - moments.entropy_log


# Beta and Dirichlet. With log Γ(a) = (a − ½) log a − a + log(2π)/2 + r(a) and ψ(a) = log a + d(a) all terms of the
# order of a log a cancel by themselves.


def _entropy_of_dirichlet(a: Tensor) -> Tensor:
    total = a.sum(-1)
    count = a.shape[-1]
    each = log_gamma_remainder(a) - (a - 1) * (digamma_remainder(a) - digamma_remainder(total).unsqueeze(-1))
    logs = a.log().sum(-1) / 2 - (count - 0.5) * total.log()
    return each.sum(-1) - log_gamma_remainder(total) + logs + (count - 1) * HALF_LOG_2PI


def _between(a: Tensor, b: Tensor) -> Tensor:
    """Σ D(bᵢ, aᵢ) − D(Σb, Σa), with D the Bregman divergence of log Γ."""
    return _bregman(b, a).sum(-1) - _bregman(b.sum(-1), a.sum(-1))


def _bregman(b: Tensor, a: Tensor) -> Tensor:
    """log Γ(b) − log Γ(a) − (b − a) ψ(a)."""
    shift = b - a
    near = shift.abs() < a / 2
    close = log_gamma_ratio(a, torch.where(near, shift, 0.0)) - shift * digamma_remainder(a)
    # b log(b/a) − (b − a) is the larger part; the rest are remainders
    ratio = (b / a).log()
    far = b * ratio - shift - ratio / 2 + log_gamma_remainder(b) - log_gamma_remainder(a)
    return torch.where(near, close, far - shift * digamma_remainder(a))


# The continuous Bernoulli distribution, with density e^(lx) l / (eˡ − 1) on [0, 1]. torch clamps l to ±16 in float32
# for the factor, and not in the exponent.


def _log_mass(logits: Tensor) -> Tensor:
    """log((eˡ − 1)/l) = l/2 + log(sinh(l/2) / (l/2))."""
    half = logits.abs() / 2
    small = half < 0.05
    s = torch.where(small, half, 0.0).square()
    series = s / 6 - s.square() / 180 + s**3 / 2835
    big = torch.where(small, 1.0, half)
    exact = big + torch.log(-torch.expm1(-2 * big)) - (2 * big).log()
    return logits / 2 + torch.where(small, series, exact)


def _tilted_mean(logits: Tensor) -> Tensor:
    """E[x] = 1/(1 − e⁻ˡ) − 1/l."""
    small = logits.abs() < 0.05
    t = torch.where(small, logits, 0.0)
    big = torch.where(small, 1.0, logits)
    series = 0.5 + t / 12 - t**3 / 720 + t**5 / 30240
    return torch.where(small, series, -1 / torch.expm1(-big) - 1 / big)


def _tilted(logits: Tensor, mean: Tensor) -> Tensor:
    """−E[log p] for a variable on [0, 1] with that mean."""
    return _log_mass(logits) - logits * mean


def _kl_tilted(q: ContinuousBernoulli, p: ContinuousBernoulli) -> Tensor:
    # In this form (a Bregman divergence) no term is much larger than the result for logits that are far apart.
    return _log_mass(p.logits) - _log_mass(q.logits) + (q.logits - p.logits) * _tilted_mean(q.logits)


def _kl_beta_tilted(q: Beta, p: ContinuousBernoulli) -> Tensor:
    return _tilted(p.logits, q.mean) - _entropy(q)


def _kl_uniform_tilted(q: Uniform, p: ContinuousBernoulli) -> Tensor:
    value = _tilted(p.logits, q.mean) - q.entropy()
    return torch.where((q.low >= 0) & (q.high <= 1), value, math.inf)


def _kl_tilted_uniform(q: ContinuousBernoulli, p: Uniform) -> Tensor:
    value = (p.high - p.low).log() - _entropy(q)
    return torch.where((p.low <= 0) & (p.high >= 1), value, math.inf)


def _kl_tilted_exponential(q: ContinuousBernoulli, p: Exponential) -> Tensor:
    return p.rate * _tilted_mean(q.logits) - p.rate.log() - _entropy(q)


def _kl_tilted_normal(q: ContinuousBernoulli, p: Normal) -> Tensor:
    logits = q.logits
    small = logits.abs() < 0.5
    t = torch.where(small, logits, 0.0).square()
    big = torch.where(small, 1.0, logits).abs()
    series = 1 / 12 - t / 240 + t**2 / 6048 - t**3 / 172800 + t**4 / 5322240 - 691 * t**5 / 118879488000
    variance = torch.where(small, series, big**-2 - (-big).exp() / torch.expm1(-big).square())
    square = (variance + (_tilted_mean(logits) - p.loc).square()) / p.scale.square()
    return p.scale.log() + HALF_LOG_2PI + square / 2 - _entropy(q)


# Pairs of torch's in which a power overflows, or 0 log 0 is NaN.


def _kl_poisson(q: Poisson, p: Poisson) -> Tensor:
    both = (q.rate > 0) & (p.rate > 0)
    first, second = torch.where(both, q.rate, 1.0), torch.where(both, p.rate, 1.0)
    rest = torch.where(q.rate > 0, math.inf, p.rate)  # where one of the two rates is 0
    return torch.where(both, first * (first / second).log() - (first - second), rest)


def _kl_bernoulli_poisson(q: Bernoulli, p: Poisson) -> Tensor:
    value = -q.entropy() - torch.special.xlogy(q.probs, p.rate) + p.rate
    return torch.where((p.rate == 0) & (q.probs > 0), math.inf, value)


def _kl_uniform(q: Uniform, p: Uniform) -> Tensor:
    return torch.where(
        (p.low <= q.low) & (q.high <= p.high), ((p.high - p.low) / (q.high - q.low)).log(), math.inf
    )


def _kl_uniform_pareto(q: Uniform, p: Pareto) -> Tensor:
    inside = q.low >= p.scale
    low = torch.where(inside, q.low, 1.0)
    width = torch.where(inside, q.high - q.low, 1.0)
    # E[log(x/low)], x = low (1 + tu)
    t = width / low
    mean_log = (1 + t) * torch.log1p(t) / t - 1
    small = t < 1e-3
    s = torch.where(small, t, 0.0)
    mean_log = torch.where(small, s / 2 - s.square() / 6 + s**3 / 12 - s**4 / 20, mean_log)
    gap = (low / torch.where(inside, p.scale, 1.0)).log()
    value = p.alpha * (gap + mean_log) + mean_log - (p.alpha * t).log()
    return torch.where(inside, value, math.inf)


def _gumbel(mean: Tensor, log_mean_power: Tensor, entropy: Tensor, p: Gumbel) -> Tensor:
    """log σ + E[y] + E[e⁻ʸ] − H(q) with y = (x − μ)/σ; the power is taken in logs."""
    return p.scale.log() + (mean - p.loc) / p.scale + log_mean_power.exp() - entropy


def _kl_gamma_gumbel(q: Gamma | Exponential, p: Gumbel) -> Tensor:
    a = q.concentration if isinstance(q, Gamma) else torch.ones_like(q.rate)
    power = p.loc / p.scale - a * torch.log1p(1 / (q.rate * p.scale))
    return _gumbel(a / q.rate, power, _entropy(q), p)


def _kl_uniform_gumbel(q: Uniform, p: Gumbel) -> Tensor:
    t = (q.high - q.low) / p.scale
    power = (p.loc - q.low) / p.scale + torch.log(-torch.expm1(-t) / t)
    return _gumbel(q.mean, power, q.entropy(), p)


_FORMS: dict[tuple[type[Distribution], type[Distribution]], Callable[..., Tensor]] = {
    (ContinuousBernoulli, ContinuousBernoulli): _kl_tilted,
    (Beta, ContinuousBernoulli): _kl_beta_tilted,
    (Uniform, ContinuousBernoulli): _kl_uniform_tilted,
    (ContinuousBernoulli, Uniform): _kl_tilted_uniform,
    (ContinuousBernoulli, Exponential): _kl_tilted_exponential,
    (ContinuousBernoulli, Normal): _kl_tilted_normal,
    (Poisson, Poisson): _kl_poisson,
    (Bernoulli, Poisson): _kl_bernoulli_poisson,
    (Uniform, Uniform): _kl_uniform,
    (Uniform, Pareto): _kl_uniform_pareto,
    (Gamma, Gumbel): _kl_gamma_gumbel,
    (Exponential, Gumbel): _kl_gamma_gumbel,
    (Uniform, Gumbel): _kl_uniform_gumbel,
}
