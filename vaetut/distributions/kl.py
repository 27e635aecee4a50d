"""Kullback–Leibler divergences in closed form that torch lacks, registered with `torch.distributions.register_kl`.

**Importing `vaetut` adds pairs to torch's registry:** `torch.distributions.kl_divergence` then has these pairs too.
82 of them are between two of torch's own classes (such as Weibull and Gamma), for which torch alone raises
NotImplementedError. A pair that torch has is never replaced.

Here, as in torch's registry, a pair is (p, q) and its divergence is KL(p‖q). There are three groups: pairs of positive
variables, whose divergences follow from E[log x], Var[log x] and E[xᵏ]; divergences to a Gaussian, which follow from
the mean and the variance of p; and single pairs. All are in nats, differentiable, and ∞ where q has no mass on a part
of the support of p, or where the integral diverges.

Gompertz‖Gompertz, Logistic‖Logistic and Student's t‖Student's t are missing, because they have no closed form. (The
first two have one for equal rates or equal scales, but a formula that holds only there would have the wrong gradient.)
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import (
    Beta,
    Cauchy,
    Distribution,
    Exponential,
    Gamma,
    Gumbel,
    HalfNormal,
    InverseGamma,
    Laplace,
    LogNormal,
    MultivariateNormal,
    Normal,
    Pareto,
    StudentT,
    Uniform,
    Weibull,
    register_kl,
)
from torch.distributions.kl import _KL_REGISTRY
from torch.distributions.utils import broadcast_all
from torch.nn.functional import softplus

from vaetut.distributions._base import broadcast_shapes, squared_length
from vaetut.distributions._moments import LogMoments, log_moments
from vaetut.distributions._special import HALF_LOG_2PI
from vaetut.distributions._stirling import log_gamma_remainder
from vaetut.distributions.elliptical import Elliptical
from vaetut.distributions.gompertz import Gompertz
from vaetut.distributions.logistic import Logistic
from vaetut.distributions.multivariate_student_t import MultivariateStudentT
from vaetut.distributions.rayleigh import Rayleigh
from vaetut.distributions.reciprocal import Reciprocal
from vaetut.distributions.triangular import Triangular


def _register(p: type[Distribution], q: type[Distribution], function: Callable[..., Tensor]) -> None:
    """Register ``function`` for the pair, unless torch has one."""
    if (p, q) not in _KL_REGISTRY:
        register_kl(p, q)(function)


# Positive variables: KL = −E_p[log q] − H(p). Each function gives −E_p[log q] − E_p[log x] from the moments of p: the
# cross entropy of log x, from which the entropy of log x is taken. Written so that no large terms cancel.


def _mean(log_power: Tensor, excess: Tensor) -> Tensor:
    """E[y] from E[log y] and the excess; ∞, with a gradient of 0, where the moment is infinite."""
    exists = torch.isfinite(excess)
    return torch.where(exists, (log_power + torch.where(exists, excess, 0.0)).exp(), math.inf)


def _exponential(p: LogMoments, q: Exponential) -> Tensor:
    log_mean = q.rate.log() + p.mean_log
    return _mean(log_mean, p.excess(1.0)) - log_mean


def _gamma(p: LogMoments, q: Gamma) -> Tensor:
    return _gamma_of(p.mean_log, p.excess(1.0), q)


def _inverse_gamma(p: LogMoments, q: InverseGamma) -> Tensor:
    return _gamma_of(-p.mean_log, p.excess(-1.0), q)


def _gamma_of(mean_log: Tensor, excess: Tensor, q: Gamma | InverseGamma) -> Tensor:
    """Against log G/r with shape c: log Γ(c) − c E[log rx] + r E[x], where log Γ(c) ≈ (c − ½) log c − c + log(2π)/2.

    With e = log(r E[x]/c) the three large terms are c (eᵉ − 1 − e + excess).
    """
    c = q.concentration
    e = mean_log + excess + (q.rate / c).log()
    exists = torch.isfinite(excess)
    e = torch.where(exists, e, 0.0)
    value = c * (torch.expm1(e) - e + torch.where(exists, excess, 0.0))
    return torch.where(exists, value + log_gamma_remainder(c) - c.log() / 2 + HALF_LOG_2PI, math.inf)


def _stretched(p: LogMoments, scale: Tensor, k: Tensor | float) -> Tensor:
    """Against the Weibull density (k/λ) (x/λ)^(k−1) exp(−(x/λ)ᵏ)."""
    log_k = k.log() if isinstance(k, Tensor) else math.log(k)
    power = k * (p.mean_log - scale.log())
    return _mean(power, p.excess(k)) - power - log_k


def _half_normal(p: LogMoments, q: HalfNormal) -> Tensor:
    log_mean = p.mean_log - q.scale.log()
    return _mean(2 * log_mean, p.excess(2.0)) / 2 - log_mean + math.log(math.pi / 2) / 2


def _log_normal(p: LogMoments, q: LogNormal) -> Tensor:
    square = ((p.mean_log - q.loc) / q.scale).square() + p.var_log / q.scale.square()
    return q.scale.log() + HALF_LOG_2PI + square / 2


def _kl_positive(cross_entropy: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def divergence(p: Distribution, q: Distribution) -> Tensor:
        moments = log_moments(p)
        return cross_entropy(moments, q) - moments.entropy_log

    return divergence


CROSS_ENTROPIES: dict[type[Distribution], Callable[..., Tensor]] = {
    Exponential: _exponential,
    Gamma: _gamma,
    InverseGamma: _inverse_gamma,
    Weibull: lambda p, q: _stretched(p, q.scale, q.concentration),
    Rayleigh: lambda p, q: _stretched(p, math.sqrt(2) * q.scale, 2.0),
    HalfNormal: _half_normal,
    LogNormal: _log_normal,
}
POSITIVE = (*CROSS_ENTROPIES, Pareto)

for _q, _cross_entropy in CROSS_ENTROPIES.items():
    for _p in (*POSITIVE, Reciprocal):
        if _p is _q and _p in (InverseGamma, LogNormal):
            continue  # torch has these two: their bases are compared
        _register(_p, _q, _kl_positive(_cross_entropy))


ZETA_3 = 1.2020569031595943


# Against a Gaussian: KL = log σ + log(2π)/2 + E_p[(x − μ)²]/2σ² − H(p).


def _kl_normal(p: Distribution, q: Normal) -> Tensor:
    mean, variance = _mean_and_variance(p)
    square = variance / q.scale.square() + ((mean - q.loc) / q.scale).square()
    return q.scale.log() + HALF_LOG_2PI + square / 2 - _entropy(p)


def _mean_and_variance(p: Distribution) -> tuple[Tensor, Tensor]:
    """The moments; torch's variance of a Weibull variable is the difference of two that are nearly equal, or both ∞."""
    if not isinstance(p, Weibull):
        return p.mean, p.variance
    moments = log_moments(p)
    first, second = moments.excess(1.0), moments.excess(2.0)
    mean = (moments.mean_log + first).exp()
    # For a large concentration the difference of the two has no digits left: its series in the cumulants of log G,
    # ψ′(1) = π²/6, ψ″(1) = −2ζ(3) and ψ‴(1) = π⁴/15
    s = 1 / p.concentration
    near = s < 1e-4
    t = torch.where(near, s, 0.0)
    series = t.square() * (math.pi**2 / 6 - t * (2 * ZETA_3 - t * (7 * math.pi**4 / 180)))
    return mean, mean.square() * torch.expm1(torch.where(near, series, second - 2 * first))


def _entropy(p: Distribution) -> Tensor:
    """The entropy; torch's own for the gamma family loses digits in float32 if the concentration is large."""
    if isinstance(p, InverseGamma):
        moments = log_moments(p)
        return moments.mean_log + moments.entropy_log
    return p.entropy()


def _kl_student_normal(p: StudentT, q: Normal) -> Tensor:
    exists = p.df > 2
    variance = p.scale.square() * p.df / (torch.where(exists, p.df, 3.0) - 2)
    square = variance / q.scale.square() + ((p.loc - q.loc) / q.scale).square()
    entropy: Tensor = p.entropy()
    return torch.where(exists, q.scale.log() + HALF_LOG_2PI + square / 2 - entropy, math.inf)


for _p in (
    Weibull,
    Rayleigh,
    HalfNormal,
    InverseGamma,
    LogNormal,
    Reciprocal,
    Gompertz,
    Logistic,
    Triangular,
):
    _register(_p, Normal, _kl_normal)
_register(StudentT, Normal, _kl_student_normal)


def _kl_multivariate_normal(p: Elliptical | MultivariateStudentT, q: MultivariateNormal) -> Tensor:
    if p.event_shape != q.event_shape:
        raise ValueError(f"p and q must have the same event shape, got {p.event_shape} and {q.event_shape}")
    factor = torch.where(p.covariance_factor.isnan(), math.inf, p.covariance_factor)
    q_scale, p_scale = broadcast_all(q.scale_tril, p.scale_tril)
    trace: Tensor = torch.linalg.solve_triangular(q_scale, p_scale, upper=False).square().sum((-2, -1))
    square = squared_length(q_scale, p.loc - q.loc)
    log_det = q_scale.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return log_det + q.loc.shape[-1] * HALF_LOG_2PI + (factor * trace + square) / 2 - p.entropy()


_register(MultivariateStudentT, MultivariateNormal, _kl_multivariate_normal)
_register(Elliptical, MultivariateNormal, _kl_multivariate_normal)


# Single pairs on the line.


def _kl_logistic_laplace(p: Logistic, q: Laplace) -> Tensor:
    # E|y + d| = d + 2 log(1 + e^(−d)) for a standard logistic y
    distance = ((p.loc - q.loc) / p.scale).abs()
    absolute = p.scale * (distance + 2 * softplus(-distance))
    return (2 * q.scale).log() + absolute / q.scale - p.entropy()


def _kl_logistic_gumbel(p: Logistic, q: Gumbel) -> Tensor:
    # E[e^(−ry)] = πr / sin(πr) for a standard logistic y and r < 1
    ratio = p.scale / q.scale
    exists = ratio < 1
    shift = (p.loc - q.loc) / q.scale
    power = torch.exp(-shift) / torch.sinc(torch.where(exists, ratio, 0.5))
    return torch.where(exists, q.scale.log() + shift + power, math.inf) - p.entropy()


def _kl_exponential(p: Gompertz | Triangular, q: Exponential) -> Tensor:
    value = q.rate * p.mean - q.rate.log() - p.entropy()
    return torch.where(p.low >= 0, value, math.inf) if isinstance(p, Triangular) else value


_register(Logistic, Laplace, _kl_logistic_laplace)
_register(Logistic, Gumbel, _kl_logistic_gumbel)
_register(Gompertz, Exponential, _kl_exponential)
_register(Triangular, Exponential, _kl_exponential)


# Bounded variables: finite where the interval of p lies in that of q.


def _within(p: Distribution, q: Distribution, value: Tensor) -> Tensor:
    return torch.where((p.low >= q.low) & (p.high <= q.high), value, math.inf)  # type: ignore[attr-defined]


def _kl_uniform(p: Reciprocal | Triangular, q: Uniform) -> Tensor:
    return _within(p, q, (q.high - q.low).log() - p.entropy())


def _kl_reciprocal_reciprocal(p: Reciprocal, q: Reciprocal) -> Tensor:
    return _within(p, q, q.log_width.log() - p.log_width.log())


def _log_integral(near: Tensor, far: Tensor, pole: Tensor, p_near: Tensor, p_far: Tensor) -> Tensor:
    """∫ p(x) log|x − pole| dx between ``near`` and ``far``, the ends nearer to and farther from the pole; p is linear.

    With |x − pole| = |far − pole| (1 − ρt), t from 0 at ``far`` to 1 at ``near``, the integral is a combination of
    ∫ t log(1 − ρt) dt and ∫ (1 − t) log(1 − ρt) dt. For small ρ their series are used, which have no cancellation.
    """
    length, reach = (far - near).abs(), (far - pole).abs()
    empty = (length == 0) | (reach == 0)
    reach = torch.where(empty, 1.0, reach)
    rho = torch.where(empty, 0.0, length / reach).clamp(max=1)
    small = rho < 0.3
    r = torch.where(small, 1.0, rho)
    rest = 1 - r
    log_rest = rest.clamp(min=torch.finfo(r.dtype).tiny).log()  # its factor is 0 where rest is
    to_near = -rest * (1 + r) * log_rest / (2 * r.square()) - 0.25 - 0.5 / r
    to_far = rest.square() * log_rest / (2 * r.square()) - 0.75 + 0.5 / r
    r = torch.where(small, rho, 0.0)
    near_series, far_series = torch.zeros_like(r), torch.zeros_like(r)
    for n in range(30, 0, -1):
        near_series = r * (near_series - 1 / (n * (n + 2)))
        far_series = r * (far_series - 1 / (n * (n + 1) * (n + 2)))
    to_near, to_far = torch.where(small, near_series, to_near), torch.where(small, far_series, to_far)
    return length * ((p_near + p_far) / 2 * reach.log() + p_near * to_near + p_far * to_far)


def _mean_log_distance(p: Uniform | Triangular, start: Tensor, stop: Tensor, pole: Tensor) -> Tensor:
    """∫ p(x) log|x − pole| dx from ``start`` to ``stop``, where ``stop`` is the end farther from the pole."""
    if isinstance(p, Uniform):
        density = 1 / (p.high - p.low)
        return _log_integral(start, stop, pole, density, density)
    knot = torch.maximum(torch.minimum(p.peak, torch.maximum(start, stop)), torch.minimum(start, stop))
    p_start, p_knot, p_stop = (p.density(x) for x in (start, knot, stop))
    return _log_integral(start, knot, pole, p_start, p_knot) + _log_integral(knot, stop, pole, p_knot, p_stop)


def _kl_triangular(p: Uniform | Triangular, q: Triangular) -> Tensor:
    # where log q has its kink, on the interval of p
    peak = torch.maximum(torch.minimum(q.peak, p.high), p.low)
    left, right = p.cdf(peak), 1 - p.cdf(peak)
    # the slopes of the two lines of q; a line of length 0 has no part of p, so that any slope will do
    rise = torch.where(q.peak > q.low, q.peak - q.low, q.high - q.low)
    fall = torch.where(q.peak < q.high, q.high - q.peak, q.high - q.low)
    mean_log = (
        _mean_log_distance(p, p.low, peak, q.low)
        + _mean_log_distance(p, p.high, peak, q.high)
        - left * rise.log()
        - right * fall.log()
    )
    return _within(p, q, (q.high - q.low).log() - math.log(2) - mean_log - p.entropy())


def _kl_bounded_reciprocal(p: Uniform | Triangular, q: Reciprocal) -> Tensor:
    mean_log = _mean_log_distance(p, p.low, p.high, torch.zeros_like(p.low))
    return _within(p, q, mean_log + q.log_width.log() - p.entropy())


for _p in (Reciprocal, Triangular):
    _register(_p, Uniform, _kl_uniform)
for _p in (Uniform, Triangular):
    _register(_p, Triangular, _kl_triangular)
    _register(_p, Reciprocal, _kl_bounded_reciprocal)
_register(Reciprocal, Reciprocal, _kl_reciprocal_reciprocal)


# Infinite, since q has no mass on a part of the support of p.


def _kl_infinite(p: Distribution, q: Distribution) -> Tensor:
    parameter: Tensor = getattr(p, next(iter(p.arg_constraints)))
    return parameter.new_full(broadcast_shapes(p=p.batch_shape, q=q.batch_shape), math.inf)


REAL = (Normal, Laplace, Cauchy, Gumbel, StudentT, Logistic)
BOUNDED = (Beta, Uniform, Reciprocal, Triangular)

for _p in REAL:
    for _q in (*POSITIVE, Gompertz, *BOUNDED):
        _register(_p, _q, _kl_infinite)
for _p in (*POSITIVE, Gompertz):
    for _q in BOUNDED:
        _register(_p, _q, _kl_infinite)
    if _p is not Pareto:
        _register(_p, Pareto, _kl_infinite)
