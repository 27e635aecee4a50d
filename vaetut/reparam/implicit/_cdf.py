r"""Tails of distributions as differentiable functions, for which no quadrature is needed (chapter 10).

dz/dφ = −(∂F/∂φ) / p(z) (``eq-imp-velocity``) needs the derivative of F in φ, which F − 1 has too. So `tail` returns C,
either F(z) or F(z) − 1, computed from the nearer end so that it does not cancel, and divided by a scale such as p(z),
so that it neither overflows nor underflows.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import Distribution
from torch.nn.functional import logsigmoid

from vaetut._support.validate import any_true
from vaetut.distributions import Erlang, Gompertz, Logistic, Rayleigh, round_tails
from vaetut.distributions import shape_tails as tails
from vaetut.distributions._special import log1mexp
from vaetut.distributions.copies import tensors_of
from vaetut.distributions.standard_cdfs import log_cauchy_cdf, log_laplace_cdf, log_normal_cdf
from vaetut.distributions.support import is_transformed, support_ends

TINY = torch.finfo(torch.float64).tiny
SMALLEST = 1e-150  # for |y|, so that its square does not underflow

# What a family returns for q, z, log s and the side: C/s, where ``lower`` says for each z whether C is F or F − 1. If
# it is None the family chooses, and may add a constant to C: only the derivatives of C are used then.
Tail = Callable[[Any, Tensor, Tensor, Tensor | None], Tensor]


def tail(q: Any, z: Tensor, log_scale: Tensor, lower: Tensor | None = None) -> Tensor:
    """C(z; φ)/s, differentiable in z and φ; float64, z ``[*sample, *batch]``.

    Args:
        q: a distribution of which `has_cdf` is true, with float64 parameters.
        z: values.
        log_scale: log s, without a gradient.
        lower: where C is F; elsewhere it is F − 1.
    """
    if isinstance(q, td.MixtureSameFamily):
        return _mixture_tail(q, z, log_scale, lower)
    found = _family(q, _TAILS)
    if found is not None:
        result: Tensor = found(q, z, log_scale, lower)
        return result
    if is_through_transforms(q):
        y, rising, _ = pull_back(q, z)
        below = lower if lower is None else lower == rising
        return torch.where(rising, 1.0, -1.0) * tail(q.base_dist, y, log_scale, below)
    return _generic_tail(q, z, log_scale, lower)


def log_density(q: Any, z: Tensor) -> Tensor:
    """log p, without the cancellation in ``log_prob``; components of a mixture only inside their supports."""
    if isinstance(q, td.MixtureSameFamily):
        return (log_weights(q) + component_log_density(q.component_distribution, z.unsqueeze(-1))).logsumexp(
            -1
        )
    found = _family(q, _DENSITIES)
    if found is not None:
        result: Tensor = found(q, z)
        return result
    if is_through_transforms(q):
        y, _, log_slope = pull_back(q, z)
        return log_density(q.base_dist, y) - log_slope
    value: Tensor = q.log_prob(z)
    return value


def has_cdf(q: Any) -> bool:
    """Whether `tail` accepts q."""
    if isinstance(q, td.MixtureSameFamily):
        return type(q).log_prob is td.MixtureSameFamily.log_prob and has_cdf(q.component_distribution)
    if q.event_shape or isinstance(q, td.Independent):
        return False
    if _family(q, _TAILS) is not None:
        return True
    if is_through_transforms(q):
        return has_cdf(q.base_dist)
    if isinstance(q, td.ContinuousBernoulli):  # whose cdf does not depend on a parameter near ½
        return False
    return type(q).cdf not in (Distribution.cdf, td.TransformedDistribution.cdf)


def is_known(q: Any) -> bool:
    """Whether the CDF of q is from this module or the package, so that it need not be compared with the density."""
    if isinstance(q, td.MixtureSameFamily):
        return is_known(q.component_distribution)
    if _family(q, _TAILS) is not None:
        return True
    if is_through_transforms(q):
        return is_known(q.base_dist)
    return type(q).__module__.startswith("vaetut.")


def agrees(q: Distribution, z: Tensor) -> bool:
    """Whether the ``cdf`` of a class is the integral of its density and is differentiable in the same tensors."""
    tensors = [tensor for tensor in tensors_of(q) if tensor.requires_grad]
    with torch.enable_grad():
        at = [z.detach().requires_grad_(), *tensors]
        try:
            density = log_density(q, at[0])
            value = tail(q, at[0], density.detach())
            found: Any = torch.autograd.grad(value.sum(), at, retain_graph=True, allow_unused=True)
        except (NotImplementedError, RuntimeError):  # a function without a derivative in a parameter
            return False
        if found[0] is None or any_true((found[0] - 1).abs() > 1e-4):
            return False
        if not density.requires_grad:
            return True
        needed: Any = torch.autograd.grad(density.sum(), at, retain_graph=True, allow_unused=True)
    pairs = zip(found[1:], needed[1:], strict=True)
    return all(one is not None or other is None for one, other in pairs)


def _family(q: Any, table: dict[Any, Any]) -> Any:
    """The entry of q's class; for a subclass only if it keeps the density and the CDF of the class."""
    for kind, entry in table.items():
        if isinstance(q, kind):
            same = (type(q).log_prob, type(q).cdf) == (kind.log_prob, kind.cdf)
            return entry if same else None
    return None


# -------------------------------------------------------------------------------------- mixtures and transforms


def log_weights(q: Any) -> Tensor:
    result: Tensor = q.mixture_distribution.logits.log_softmax(-1)
    return result


def inside_components(component: Any, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Masks of z ``[…, 1]`` inside of and above the support of each component, and z clamped to it."""
    low, high = (end.detach() for end in support_ends(component))
    above = z > high
    inside = (z >= low) & ~above
    middle = torch.where(
        low.isfinite(),
        torch.where(high.isfinite(), low + (high - low) / 2, low + 1),
        torch.where(high.isfinite(), high - 1, 0.0),
    )
    return inside, above, torch.where(inside, z, middle)


def _share_support(component: Any) -> bool:
    """Whether the support of the components depends on no parameter, so that a value lies in all of them or in none."""
    support: Any = None if is_transformed(component) else component.support
    bounds = (getattr(support, name, 0.0) for name in ("lower_bound", "upper_bound"))
    return support is not None and not any(isinstance(bound, Tensor) for bound in bounds)


def component_log_density(component: Any, z: Tensor) -> Tensor:
    """log pₖ(z) of each component, −∞ outside of its support, where it is not evaluated."""
    if _share_support(component):
        return log_density(component, z)
    inside, _, safe = inside_components(component, z)
    return torch.where(inside, log_density(component, safe), -math.inf)


def component_tails(component: Any, z: Tensor, log_scale: Tensor, lower: Tensor) -> Tensor:
    """C/s of each component: 0 or ±1/s outside of its support."""
    if _share_support(component):
        shape = torch.broadcast_shapes(z.shape, component.batch_shape)
        return tail(component, z, log_scale, lower.expand(shape))
    inside, above, safe = inside_components(component, z)
    log_scale = log_scale.expand(inside.shape)
    value = tail(component, safe, log_scale, lower.expand(inside.shape))
    outside = torch.where(above, 1.0, 0.0) - torch.where(lower, 0.0, 1.0)
    return torch.where(inside, value, torch.where(outside == 0, 0.0, outside * (-log_scale).exp()))


def _mixture_tail(q: Any, z: Tensor, log_scale: Tensor, lower: Tensor | None) -> Tensor:
    """Σ πₖ Cₖ. A weight's derivative is that of πₖ times Cₖ, so that the smaller of F and 1 − F cancels less."""
    if lower is None:
        lower = is_lower(q, z)
    each = component_tails(
        q.component_distribution, z.unsqueeze(-1), log_scale.unsqueeze(-1), lower.unsqueeze(-1)
    )
    return (log_weights(q).exp() * each).sum(-1)


def check_no_gap(q: Any) -> None:
    """Raise if the weights of a mixture move mass from one component to another across a gap in the support.

    The quantile jumps there, at a u that moves with the weights: this adds a term to the gradient of an expectation
    that is in no derivative of a draw. An end of a component that moves is allowed, since F stays continuous.
    """
    weights = q.mixture_distribution.logits
    if not weights.requires_grad or not torch.is_grad_enabled() or _share_support(q.component_distribution):
        return
    try:
        low, high = (end.detach() for end in support_ends(q.component_distribution))
    except NotImplementedError:
        return
    low, order = low.sort(-1)
    reached = high.gather(-1, order).cummax(-1).values
    if any_true(low[..., 1:] > reached[..., :-1]):
        raise ValueError(
            "there is a gap between the supports of the mixture's components, and its weights require a gradient: mass "
            "moves across the gap, so the implicit gradient is wrong; use vaetut.score_function, or detach the weights"
        )


@torch.no_grad()
def is_lower(q: Distribution, z: Tensor) -> Tensor:
    """Whether F(z) < ½."""
    return tail(q, z, torch.zeros_like(z), torch.ones_like(z, dtype=torch.bool)) < 0.5


def overrides_cdf(q: Any) -> bool:
    """Whether the class of q is a subclass of a known family with its own density or CDF."""
    return any(isinstance(q, kind) for kind in _TAILS) and _family(q, _TAILS) is None


def is_through_transforms(q: Any) -> bool:
    """Whether q is its base followed by monotone transforms, and nothing else."""
    return (
        isinstance(q, td.TransformedDistribution)
        and type(q).log_prob is td.TransformedDistribution.log_prob
        and type(q).cdf is td.TransformedDistribution.cdf
        and all(t.bijective and t.domain.event_dim == 0 and t.codomain.event_dim == 0 for t in q.transforms)
    )


def pull_back(q: Any, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The variable of the base, whether z rises with it, and the log of |dz/dy|."""
    rising, log_slope = torch.ones((), dtype=torch.bool, device=z.device), torch.zeros_like(z)
    for transform in reversed(q.transforms):
        y = transform.inv(z)
        log_slope = log_slope + transform.log_abs_det_jacobian(y, z)
        rising = rising == (torch.as_tensor(transform.sign, device=z.device) > 0)
        z = y
    return z, rising, log_slope


def _generic_tail(q: Any, z: Tensor, log_scale: Tensor, lower: Tensor | None) -> Tensor:
    """From the methods ``cdf`` and, if there is one, ``survival``."""
    below = q.cdf(z)
    above = q.survival(z) if hasattr(q, "survival") else 1 - below
    lower = below < 0.5 if lower is None else lower
    return torch.where(lower, below, -above) * (-log_scale).exp()


# ------------------------------------------------------------------------------------------------------- families


def _from_natural(value: Tensor, offset: Tensor, log_scale: Tensor, lower: Tensor | None) -> Tensor:
    """C/s from a value that differs from F/s by a constant: F = s · value + offset."""
    if lower is None:
        return value
    shift = offset - torch.where(lower, 0.0, 1.0)
    return value + torch.where(shift == 0, 0.0, shift * (-log_scale).exp())


def symmetric(log_cdf: Callable[[Tensor], Tensor]) -> Tail:
    """A symmetric location-scale family, from log F of the standard variable."""

    def family(q: Any, z: Tensor, log_scale: Tensor, lower: Tensor | None) -> Tensor:
        y = (z - q.loc) / q.scale
        sign = torch.where(y.detach() < 0 if lower is None else lower, 1.0, -1.0).to(y)
        return sign * torch.exp(log_cdf(sign * y) - log_scale)

    return family


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


def _student_arguments(q: Any, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y = (z - q.loc) / q.scale
    y = y + torch.where(y.detach().abs() < SMALLEST, SMALLEST, 0.0)
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

    t, cut = torch.broadcast_tensors(turned(z), turned(z.new_full((), math.pi)))
    both = torch.stack([t, cut])
    both = both + torch.where(both.detach().abs() < SMALLEST, SMALLEST, 0.0)
    sign = both.detach().sign()
    k, size = torch.broadcast_tensors(q.concentration, sign * both)
    size = size - torch.where(size.detach() > math.pi - 1e-14, 1e-14, 0.0)  # a tail of length 0 has no log
    above = round_tails.von_mises_is_above(k, size)
    value = torch.exp(round_tails.von_mises_log_tail(k, size) - log_scale)
    # F₀, minus 1 for t > 0. Between 0 and t it lacks ±½, which only the sum of the masses needs.
    half = torch.where(above, 0.0, 0.5 * (-log_scale).exp())
    first, last = (sign * torch.where(above, -value, value - half)).unbind()
    value = first - last
    offset = (t < cut).to(z) + (t >= 0).to(z) - (cut >= 0).to(z)
    return _from_natural(value, offset, log_scale, lower)


def _von_mises_density(q: Any, z: Tensor) -> Tensor:
    t = z - q.loc
    return round_tails.von_mises_log_density(q.concentration, t)


def _kumaraswamy_hazard(q: Any, z: Tensor) -> Tensor:
    return -q.concentration0 * log1mexp(-q.concentration1 * _log(z))


def _kumaraswamy_density(q: Any, z: Tensor) -> Tensor:
    a, b = q.concentration1, q.concentration0
    return a.log() + b.log() + (a - 1) * _log(z) + (b - 1) * log1mexp(-a * _log(z))


def _pareto_hazard(q: Any, z: Tensor) -> Tensor:
    return q.alpha * torch.log1p((z - q.scale) / q.scale)


def _general_pareto_hazard(q: Any, z: Tensor) -> Tensor:
    """log(1 + ξy)/ξ, which is y for ξ = 0."""
    y = (z - q.loc) / q.scale
    v = q.concentration * y
    small = v.detach().abs() < 1e-2
    near = torch.where(small, v, 0.0)
    series: Any = 0.0
    for k in range(9, 0, -1):
        series = 1 / k - near * series
    shape = torch.where(small, 1.0, q.concentration)
    return torch.where(small, y * series, torch.log1p(torch.where(small, 0.0, v)) / shape)


def _general_pareto_density(q: Any, z: Tensor) -> Tensor:
    return -q.scale.log() - (1 + q.concentration) * _general_pareto_hazard(q, z)


def _log_normal(q: Any, z: Tensor, log_scale: Tensor, lower: Tensor | None) -> Tensor:
    return tail(q.base_dist, _log(z), log_scale, lower)


_TAILS: dict[Any, Tail] = {
    td.Normal: symmetric(log_normal_cdf),
    Logistic: symmetric(logsigmoid),
    td.Laplace: symmetric(log_laplace_cdf),
    td.Cauchy: symmetric(log_cauchy_cdf),
    td.LogNormal: _log_normal,
    td.Exponential: hazard(lambda q, z: q.rate * z),
    td.Weibull: hazard(lambda q, z: torch.exp((_log(z) - q.scale.log()) * q.concentration)),
    td.Gumbel: hazard(lambda q, z: torch.exp((q.loc - z) / q.scale), falling=True),
    td.Pareto: hazard(_pareto_hazard),
    td.Kumaraswamy: hazard(_kumaraswamy_hazard),
    td.GeneralizedPareto: hazard(_general_pareto_hazard),
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
_DENSITIES: dict[Any, Callable[[Any, Tensor], Tensor]] = {
    Erlang: _gamma_density,
    td.Gamma: _gamma_density,
    td.Beta: _beta_density,
    td.FisherSnedecor: _f_density,
    td.StudentT: _student_density,
    td.VonMises: _von_mises_density,
    td.Kumaraswamy: _kumaraswamy_density,
    td.GeneralizedPareto: _general_pareto_density,
}
