r"""The tails of families, for which `_cdf` needs no quadrature (chapter 10).

A family is a function of a distribution q, values z, log s and the side ``lower``, and returns C/s: for each z, C is F
where ``lower`` is true, and F − 1 elsewhere. If ``lower`` is None the family chooses, and may add a constant to C: only
the derivatives of C are used then.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch import distributions as td
from torch.nn.functional import logsigmoid

from vaetut.distributions import Erlang, Gompertz, Logistic, Rayleigh, hazards, round_tails
from vaetut.distributions import shape_tails as tails
from vaetut.distributions._special import HALF_LOG_2PI
from vaetut.distributions.standard_cdfs import log_cauchy_cdf, log_normal_cdf

TINY = torch.finfo(torch.float64).tiny
LARGEST = 709.0  # whose exponential is finite
SMALLEST = 1e-150  # for |y|, so that its square does not underflow

Tail = Callable[[Any, Tensor, Tensor, Tensor | None], Tensor]
Density = Callable[[Any, Tensor], Tensor]


def _from_natural(value: Tensor, offset: Tensor, log_scale: Tensor, lower: Tensor | None) -> Tensor:
    """C/s from a value that differs from F/s by a constant: F = s · value + offset."""
    if lower is None:
        return value
    shift = offset - torch.where(lower, 0.0, 1.0)
    return value + torch.where(shift == 0, 0.0, shift * (-log_scale).exp())


class Symmetric(NamedTuple):
    """The standard member of a location-scale family that is symmetric about 0, with density f."""

    log_density: Callable[[Tensor], Tensor]  # log f(y)
    mills: Callable[[Tensor], Tensor]  # (1 − F(y))/f(y) for y ≥ 0

    def tail(self, q: Any, z: Tensor, log_scale: Tensor, lower: Tensor | None) -> Tensor:
        """C/s, a `Tail`."""
        y = (z - q.loc) / q.scale
        slope = self.slope(y.detach(), log_scale)
        result: Tensor = _SymmetricTail.apply(self, y, slope, log_scale, lower)  # type: ignore[no-untyped-call]
        return result

    def slope(self, y: Tensor, log_scale: Tensor) -> Tensor:
        """f(y)/s; finite, since the cotangent of a draw that has overflowed may be 0."""
        return (self.log_density(y) - log_scale).clamp(max=LARGEST).exp()

    def density(self, q: Any, z: Tensor) -> Tensor:
        """The log density of q at z."""
        return self.log_density((z - q.loc) / q.scale) - q.scale.log()


class _SymmetricTail(torch.autograd.Function):
    """C(y)/s, with its derivative f(y)/s, the slope, which needs no special function and loses no digits far out."""

    generate_vmap_rule = True

    @staticmethod
    def forward(kind: Symmetric, y: Tensor, slope: Tensor, log_scale: Tensor, lower: Tensor | None) -> Tensor:
        left = y < 0
        near = slope * kind.mills(y.abs())  # the smaller of F and 1 − F
        if lower is None:
            return torch.where(left, near, -near)
        # The side may be the farther one in a mixture, for a component whose median lies on the other side.
        value = torch.where(left == lower, near, (-log_scale).exp() - near)
        return torch.where(lower, value, -value)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.kind, y, slope, log_scale, _ = inputs
        ctx.save_for_backward(y, slope, log_scale)
        ctx.save_for_forward(y, log_scale)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        y, slope, log_scale = ctx.saved_tensors
        if torch.is_grad_enabled():  # for a second derivative, as a function of y
            slope = ctx.kind.slope(y, log_scale)
        return None, cotangent * slope, None, None, None

    @staticmethod
    def jvp(ctx: Any, _: Any, tangent: Tensor, *rest: Any) -> Any:
        y, log_scale = ctx.saved_tensors
        return tangent * ctx.kind.slope(y, log_scale)


NORMAL = Symmetric(
    lambda y: -HALF_LOG_2PI - 0.5 * y.square(),
    lambda y: math.sqrt(math.pi / 2) * torch.special.erfcx(y * math.sqrt(0.5)),
)
LOGISTIC = Symmetric(lambda y: logsigmoid(y) + logsigmoid(-y), lambda y: 1 + torch.exp(-y))
LAPLACE = Symmetric(lambda y: -y.abs() - math.log(2), torch.ones_like)
CAUCHY = Symmetric(  # y² must not overflow
    lambda y: -torch.log1p(y.clamp(-1e150, 1e150).square()) - math.log(math.pi),
    lambda y: (1 + y.clamp(max=1e150).square()) * torch.atan2(torch.ones_like(y), y),
)


def hazard(hazard_of: Callable[[Any, Tensor], Tensor], falling: bool = False) -> Tail:
    """A family with F = 1 − e^−E, from the cumulative hazard E; with F = e^−E if ``falling``."""

    def family(q: Any, z: Tensor, log_scale: Tensor, lower: Tensor | None) -> Tensor:
        e = hazard_of(q, z)
        small = e.detach() < math.log(2) if lower is None else lower != falling
        near = -torch.expm1(-torch.where(small, e, 1.0)) * torch.exp(torch.where(small, -log_scale, 0.0))
        value = torch.where(small, near, -torch.exp(torch.where(small, 0.0, -e - log_scale)))
        return -value if falling else value

    return family


def folded(lower_cdf: Callable[[Tensor], Tensor], log_survival: Callable[[Tensor], Tensor]) -> Tail:
    """The absolute value of a symmetric variable."""

    def family(q: Any, z: Tensor, log_scale: Tensor, lower: Tensor | None) -> Tensor:
        y = z / q.scale
        value = -torch.exp(log_survival(y) - log_scale)
        if lower is None:
            return value
        return torch.where(lower, lower_cdf(y) * torch.exp(torch.where(lower, -log_scale, 0.0)), value)

    return family


def _uniform(q: Any, z: Tensor, log_scale: Tensor, lower: Tensor | None) -> Tensor:
    left, right = z - q.low, q.high - z
    lower = left < right if lower is None else lower
    return torch.where(lower, left, -right) / (q.high - q.low) * (-log_scale).exp()


def _log(z: Tensor) -> Tensor:
    return z.clamp(min=TINY).log()


def _gamma_arguments(q: Any, z: Tensor) -> tuple[Tensor, Tensor]:
    return torch.broadcast_tensors(q.concentration, _log(z) + q.rate.log())


def _gamma(q: Any, z: Tensor, log_scale: Tensor, lower: Tensor | None) -> Tensor:
    a, log_x = _gamma_arguments(q, z)
    above = tails.gamma_is_above(a, log_x)
    value = torch.where(above, -1.0, 1.0) * torch.exp(tails.gamma_log_tail(a, log_x) - log_scale)
    return _from_natural(value, above.to(z), log_scale, lower)


def _gamma_density(q: Any, z: Tensor) -> Tensor:
    return tails.gamma_log_density(*_gamma_arguments(q, z)) - _log(z)


def _beta_arguments(q: Any, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    top = -math.log(torch.finfo(torch.float64).eps / 2)
    logit = (z.log() - torch.log1p(-z)).clamp(math.log(TINY), top)
    return torch.broadcast_tensors(q.concentration1, q.concentration0, logit)


def _of_beta(value: tuple[Tensor, Tensor, Tensor], log_scale: Tensor, lower: Tensor | None) -> Tensor:
    above = tails.beta_is_above(*value)
    result = torch.where(above, -1.0, 1.0) * torch.exp(tails.beta_log_tail(*value) - log_scale)
    return _from_natural(result, above.to(result), log_scale, lower)


def _beta(q: Any, z: Tensor, log_scale: Tensor, lower: Tensor | None) -> Tensor:
    return _of_beta(_beta_arguments(q, z), log_scale, lower)


def _beta_density(q: Any, z: Tensor) -> Tensor:
    a, b, logit = _beta_arguments(q, z)
    return tails.beta_log_density(a, b, logit) - logsigmoid(logit) - logsigmoid(-logit)


def _f_arguments(q: Any, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """d₁z/d₂ has the odds of a beta variable with concentrations d₁/2, d₂/2."""
    logit = _log(z) + q.df1.log() - q.df2.log()
    return torch.broadcast_tensors(q.df1 / 2, q.df2 / 2, logit)


def _f(q: Any, z: Tensor, log_scale: Tensor, lower: Tensor | None) -> Tensor:
    return _of_beta(_f_arguments(q, z), log_scale, lower)


def _f_density(q: Any, z: Tensor) -> Tensor:
    return tails.beta_log_density(*_f_arguments(q, z)) - _log(z)


def _off_zero(y: Tensor) -> Tensor:
    """y, but a positive number in place of 0, which has no sign and no log."""
    # not torch.where of two numbers: its result is float32, in which this one is 0
    return y + SMALLEST * (y.detach().abs() < SMALLEST).to(y)


def _student_arguments(q: Any, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y = (z - q.loc) / q.scale
    y = _off_zero(y)
    sign = y.detach().sign()
    return q.df, sign * y, sign


def _student(q: Any, z: Tensor, log_scale: Tensor, lower: Tensor | None) -> Tensor:
    df, y, sign = _student_arguments(q, z)
    above = round_tails.student_is_above(df, y)
    half = 0.5 * torch.exp(round_tails.student_log_tail(df, y) - log_scale)
    offset = torch.where(above, (sign > 0).to(y), 0.5)
    return _from_natural(sign * torch.where(above, -half, half), offset, log_scale, lower)


def _student_density(q: Any, z: Tensor) -> Tensor:
    df, y, _ = _student_arguments(q, z)
    return round_tails.student_log_density(df, y) - q.scale.log()


def _von_mises(q: Any, z: Tensor, log_scale: Tensor, lower: Tensor | None) -> Tensor:
    """The circle is cut at ±π, wherever μ is: F(z) = F₀(z − μ) − F₀(π − μ), with F₀ for a cut at μ ± π."""

    def turned(t: Tensor) -> Tensor:
        t = t - q.loc
        return t - 2 * math.pi * torch.round(t.detach() / (2 * math.pi))

    z = z - (z - z.clamp(-math.pi, math.pi)).detach()  # π in float32 lies beyond the cut
    t, cut = torch.broadcast_tensors(turned(z), turned(z.new_full((), math.pi)))
    both = torch.stack([t, cut])
    both = _off_zero(both)
    sign = both.detach().sign()
    k, size = torch.broadcast_tensors(q.concentration, sign * both)
    size = size - torch.where(size.detach() > math.pi - 1e-14, 1e-14, 0.0)  # a tail of length 0 has no log
    above = round_tails.von_mises_is_above(k, size)
    value = torch.exp(round_tails.von_mises_log_tail(k, size) - log_scale)
    # F₀, minus 1 for t > 0. Between 0 and t it lacks ±½, which only the sum of the masses needs.
    half = torch.where(above, 0.0, 0.5 * (-log_scale).exp())
    first, last = (sign * torch.where(above, -value, value - half)).unbind()
    value = first - last
    before = torch.where(
        (t - cut).detach().abs() < 1, z > 0, t < cut
    )  # next to the cut t may be rounded to it
    offset = before.to(z) + (t >= 0).to(z) - (cut >= 0).to(z)
    return _from_natural(value, offset, log_scale, lower)


def _von_mises_density(q: Any, z: Tensor) -> Tensor:
    t = z - q.loc
    return round_tails.von_mises_log_density(q.concentration, t)


def _pareto_hazard(q: Any, z: Tensor) -> Tensor:
    return q.alpha * torch.log1p((z - q.scale) / q.scale)


def _log_normal(q: Any, z: Tensor, log_scale: Tensor, lower: Tensor | None) -> Tensor:
    return NORMAL.tail(q, _log(z), log_scale, lower)


def _log_normal_density(q: Any, z: Tensor) -> Tensor:
    return NORMAL.density(q, _log(z)) - _log(z)


TAILS: dict[Any, Tail] = {
    td.Normal: NORMAL.tail,
    Logistic: LOGISTIC.tail,
    td.Laplace: LAPLACE.tail,
    td.Cauchy: CAUCHY.tail,
    td.LogNormal: _log_normal,
    td.Exponential: hazard(lambda q, z: q.rate * z),
    td.Weibull: hazard(lambda q, z: torch.exp((_log(z) - q.scale.log()) * q.concentration)),
    td.Gumbel: hazard(lambda q, z: torch.exp((q.loc - z) / q.scale), falling=True),
    td.Pareto: hazard(_pareto_hazard),
    td.Kumaraswamy: hazard(lambda q, z: hazards.kumaraswamy_hazard(q, _log(z))),
    td.GeneralizedPareto: hazard(hazards.general_pareto_hazard),
    Rayleigh: hazard(lambda q, z: -q.log_survival(z)),
    Gompertz: hazard(lambda q, z: -q.log_survival(z)),
    td.HalfNormal: folded(lambda y: torch.erf(y / math.sqrt(2)), lambda y: math.log(2) + log_normal_cdf(-y)),
    td.HalfCauchy: folded(lambda y: 2 / math.pi * torch.atan(y), lambda y: math.log(2) + log_cauchy_cdf(-y)),
    td.Uniform: _uniform,
    Erlang: _gamma,
    td.Gamma: _gamma,
    td.Beta: _beta,
    td.FisherSnedecor: _f,
    td.StudentT: _student,
    td.VonMises: _von_mises,
}
DENSITIES: dict[Any, Density] = {
    td.Normal: NORMAL.density,
    Logistic: LOGISTIC.density,
    td.Laplace: LAPLACE.density,
    td.Cauchy: CAUCHY.density,
    td.LogNormal: _log_normal_density,
    Erlang: _gamma_density,
    td.Gamma: _gamma_density,
    td.Beta: _beta_density,
    td.FisherSnedecor: _f_density,
    td.StudentT: _student_density,
    td.VonMises: _von_mises_density,
    td.Kumaraswamy: lambda q, z: hazards.kumaraswamy_log_density(q, _log(z)),
    td.GeneralizedPareto: hazards.general_pareto_log_density,
}
# For mixtures: where the median is known, no CDF is needed to choose a side.
MEDIANS: dict[Any, Callable[[Any], Tensor]] = {
    td.Normal: lambda q: q.loc,
    Logistic: lambda q: q.loc,
    td.Laplace: lambda q: q.loc,
    td.Cauchy: lambda q: q.loc,
    td.LogNormal: lambda q: q.loc.exp(),
}
