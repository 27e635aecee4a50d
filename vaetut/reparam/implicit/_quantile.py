r"""The implicit family in the registry: $z = F_\phi^{-1}(u)$ for F without a closed-form inverse.

Chapter 10, *Implicit*. Uniform noise u and the root of $F_\phi(z) = u$ are a noise and a map, and this map is what
`implicit_gradient` differentiates. Draws do not need the root: ``rsample`` takes z from a sampler and attaches
the same gradient.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Beta,
    Chi2,
    Dirichlet,
    Distribution,
    FisherSnedecor,
    Gamma,
    MixtureSameFamily,
    StudentT,
    TransformedDistribution,
    VonMises,
)
from torch.nn.functional import logsigmoid

from vaetut.distributions import Erlang
from vaetut.distributions.copies import with_tensors
from vaetut.distributions.gamma_quantile import log_gamma_quantile
from vaetut.distributions.shape_tails import under_transform
from vaetut.distributions.support import support_ends
from vaetut.reparam._map import Map
from vaetut.reparam.implicit._cdf import (
    component_log_density,
    component_tails,
    has_cdf,
    is_known,
    is_through_transforms,
    log_density,
    overrides_cdf,
    tail,
)
from vaetut.reparam.implicit._charts import move
from vaetut.reparam.implicit._vectors import conditionals, for_each_component, is_vector_mixture
from vaetut.reparam.implicit.gradient import differentiable, implicit_rsample, univariate
from vaetut.reparam.noise import StandardUniform
from vaetut.reparam.registry import families, register_reparameterization, reparameterize

_WIDENINGS, _STEPS = 20, 64  # by 8 each, and of Newton or of halving


def _is_univariate(q: Any) -> bool:
    """Whether q, a distribution or a class, is continuous and has one coordinate."""
    try:
        support = q.support
        if isinstance(q, Distribution):
            if q.event_shape:
                return is_vector_mixture(q)
            univariate(q)
        return bool(not support.is_discrete and support.event_dim == 0)
    except (AttributeError, NotImplementedError, ValueError):
        return False


def _is_movable(q: Any) -> bool:
    """Whether a mixture has the map (not all of its class do)."""
    return isinstance(q, type) or _is_univariate(q)


def implicit(q: Distribution) -> Map:
    """The map of a univariate density, or of a mixture of vectors with independent coordinates."""

    def g(u: Tensor) -> Tensor:
        u = u.expand(torch.broadcast_shapes(u.shape, q.batch_shape + q.event_shape))
        return differentiable(univariate(q), quantile(q, u.detach()), u)

    like = _like(q)
    noise = StandardUniform(like, q.batch_shape, q.event_shape)
    return Map(noise, g, lambda shape: implicit_rsample(q, shape))


# Classes without a closed-form inverse CDF are registered by name, so that the map precedes that of a base class.
for _kind in (Gamma, Chi2, Erlang, Beta, StudentT, FisherSnedecor, VonMises, MixtureSameFamily, Distribution):
    register_reparameterization(
        _kind,
        "implicit",
        noise="u ~ U(0, 1)",
        g="F⁻¹(u), with dz/dφ = −∂F/∂φ / q(z)",
        tex=r"F_\phi^{-1}(u), \quad \frac{\partial z}{\partial \phi} = -\frac{\partial_\phi F_\phi(z)}{q_\phi(z)}",
        remark="any univariate density, in all its parameters; g solves for the root, rsample does not need it"
        if _kind is Distribution
        else "",
        applies={Distribution: _is_univariate, MixtureSameFamily: _is_movable}.get(_kind),
    )(implicit)


@register_reparameterization(
    Dirichlet,
    "implicit",
    noise="none",
    g="none: each concentration moves its own coordinate as a beta variable, and scales the others",
    tex=r"\frac{\partial z}{\partial \alpha_k} = \frac{z - e_k}{1 - z_k} \frac{\partial_{\alpha_k} F(z_k)}{p(z_k)}",
    remark="an unbiased gradient of the draws, which does not come from one map g; via='composition' has one",
)
def dirichlet(q: Dirichlet) -> Map:
    """The draws of a Dirichlet; it has no map."""
    return Map(None, None, lambda shape: implicit_rsample(q, shape))


@torch.no_grad()
def quantile(q: Distribution, u: Tensor) -> Tensor:
    """Solve F(z) = u for z, in the shape of u, which ends in the batch and event shape of q.

    If the package has a closed form or the gamma's quantile, that is used; otherwise the root of the log odds of F is
    found by Newton's method inside a bracket, with F from `_cdf` or by quadrature (`_charts`). Computed in float64.
    """
    z = _quantile(with_tensors(q, Tensor.double), u.double()).to(u.dtype)
    z = torch.where((u > 0) & (u < 1), _within(q, z), z)
    return torch.where(u.isnan(), math.nan, z)


def _within(q: Distribution, z: Tensor) -> Tensor:
    """The number next to an end of the support, or the largest, where z is rounded to the end or overflows."""
    limits = torch.finfo(z.dtype)
    z = z.clamp(-limits.max, limits.max)
    try:
        low, high = (end.to(z) for end in support_ends(q))
    except NotImplementedError:
        return z
    after = torch.where(low == 0, limits.smallest_normal, torch.nextafter(low, high))
    before = torch.where(high == 0, -limits.smallest_normal, torch.nextafter(high, low))
    return torch.minimum(torch.maximum(z, after), before)


def _quantile(q: Any, u: Tensor) -> Tensor:
    if is_vector_mixture(q):
        return _coordinates(q, u)
    if not overrides_cdf(q):
        if "inverse_cdf" in families(type(q)):
            return reparameterize(q, "inverse_cdf").g(u)
        if isinstance(q, Gamma):
            return log_gamma_quantile(u, q.concentration).exp() * (q.concentration / q.rate)
    if isinstance(q, TransformedDistribution) and is_through_transforms(q):
        sign: Any = math.prod(transform.sign for transform in q.transforms)
        z = _quantile(q.base_dist, torch.where(torch.as_tensor(sign, device=u.device) > 0, u, 1 - u))
        for transform in q.transforms:
            z = transform(z)
        return z
    if isinstance(q, MixtureSameFamily):
        parts: Any = q.component_distribution
        each = _quantile(parts, u.unsqueeze(-1).expand(*u.shape, parts.batch_shape[-1]))
        return _solve(u, _real, _log_odds(q, u), each.amin(-1), each.amax(-1))
    if isinstance(q, StudentT) and not overrides_cdf(q):  # whose tails are so long that they need logs
        return _solve(u, _hyperbolic(q.loc, q.scale), _log_odds(q, u))
    if isinstance(q, VonMises):
        low, high = torch.full_like(u, -math.pi), torch.full_like(u, math.pi)
    else:
        low, high = (end.expand(u.shape).to(u) for end in support_ends(q))
    return _solve(u, _line_to(low, high), _log_odds(q, u))


ToZ = Callable[[Tensor], tuple[Tensor, Tensor]]  # z, and the log of its slope
Odds = Callable[[Tensor], tuple[Tensor, Tensor]]  # log F(z) − log(1 − F(z)), and the log of its slope


def _real(y: Tensor) -> tuple[Tensor, Tensor]:
    return y, torch.zeros_like(y)


def _hyperbolic(loc: Tensor, scale: Tensor) -> ToZ:
    def to_z(y: Tensor) -> tuple[Tensor, Tensor]:
        y = y.clamp(-700.0, 700.0)
        return loc + scale * y.sinh(), scale.log() + y.cosh().log()

    return to_z


def _line_to(low: Tensor, high: Tensor) -> ToZ:
    """An increasing map from the real line onto the support, chosen by the ends of the support."""
    width = torch.where(low.isfinite() & high.isfinite(), high - low, 1.0)
    from_low, from_high = torch.where(low.isfinite(), low, 0.0), torch.where(high.isfinite(), high, 0.0)

    def to_z(y: Tensor) -> tuple[Tensor, Tensor]:
        inside = torch.where(y < 0, from_low + width * y.sigmoid(), from_high - width * (-y).sigmoid())
        one_sided = torch.where(low.isfinite(), from_low + y.exp(), from_high - (-y).exp())
        both, one = low.isfinite() & high.isfinite(), low.isfinite() | high.isfinite()
        z = torch.where(both, inside, torch.where(one, one_sided, y))
        slope = torch.where(both, width.log() + logsigmoid(y) + logsigmoid(-y), 0.0)
        return z, torch.where(one & ~both, torch.where(low.isfinite(), y, -y), slope)

    return to_z


def _log_odds(q: Distribution, u: Tensor) -> Odds:
    exact, lower = has_cdf(q) and is_known(q), u < 0.5

    def look(z: Tensor) -> tuple[Tensor, Tensor]:
        if exact:
            below, above = _both_logs(tail(q, z, torch.zeros_like(z), lower), lower)
            return below - above, log_density(q, z) - below - above
        flat = z.reshape(-1, *q.batch_shape)
        _, below, above = move(q, flat)
        slope = q.log_prob(flat) - below - above
        return (below - above).reshape(z.shape), slope.reshape(z.shape)

    return look


def _both_logs(nearer: Tensor, lower: Tensor) -> tuple[Tensor, Tensor]:
    """log F and log(1 − F) from C, which is the smaller of the two at the root. Far from it the other may be 0."""
    near = torch.where(lower, nearer, -nearer).clamp(min=0.0)  # which may be rounded to less than 0
    far = (1 - near).clamp(min=0.0)
    return torch.where(lower, near, far).log(), torch.where(lower, far, near).log()


def _solve(u: Tensor, to_z: ToZ, odds: Odds, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Newton's method, kept inside a bracket, on the log odds of F in a coordinate y on the real line."""
    target = u.logit()

    def look(y: Tensor) -> tuple[Tensor, Tensor]:
        z, log_slope = to_z(y)
        value, slope = odds(z)
        return value - target, (slope + log_slope).exp()

    if low is None or high is None:
        low, high = torch.full_like(u, -1), torch.full_like(u, 1)
        for _ in range(_WIDENINGS):
            outside = look(low)[0] > 0
            if not _is_any(outside):
                break
            low = torch.where(outside, 8 * low, low)
        for _ in range(_WIDENINGS):
            outside = look(high)[0] < 0
            if not _is_any(outside):
                break
            high = torch.where(outside, 8 * high, high)
    y = (low + high) / 2
    for _ in range(_STEPS):
        miss, slope = look(y)
        low, high = torch.where(miss < 0, y, low), torch.where(miss < 0, high, y)
        step = y - miss / slope
        step = torch.where((step > low) & (step < high), step, (low + high) / 2)
        wrong = (step - y).abs() > 1e-15 * y.abs().clamp(min=1e-3)
        y = step
        if not _is_any(wrong):
            break
    return to_z(y)[0]


def _is_any(mask: Tensor) -> bool:
    """Whether any value is true; where there are none to be read, as under vmap, all steps are made."""
    return under_transform(mask) or bool(mask.any())


def _coordinates(q: Any, u: Tensor) -> Tensor:
    """One coordinate after another, each from its univariate conditional mixture given the earlier ones."""
    dims, parts = len(q.event_shape), q.component_distribution
    base = parts.base_dist
    dim = -1 - dims
    spread = u.unsqueeze(dim).expand(*u.shape[: u.dim() - dims], parts.batch_shape[-1], *q.event_shape)
    each = _quantile(base, spread).flatten(-dims)
    z, flat_u = each.mean(-2), u.flatten(-dims)

    def full(values: Tensor) -> Tensor:
        return for_each_component(q, values.reshape(u.shape))

    for d in range(z.shape[-1]):
        weight = conditionals(q, full(z)).log_weights[..., d].exp()
        side = flat_u[..., d] < 0.5

        def look(
            value: Tensor, d: int = d, weight: Tensor = weight, z: Tensor = z, side: Tensor = side
        ) -> tuple[Tensor, Tensor]:
            at = full(torch.cat([z[..., :d], value.unsqueeze(-1), z[..., d + 1 :]], -1))
            lower = side.reshape(*side.shape, *[1] * (dims + 1)).expand(at.shape)
            tails = component_tails(base, at, torch.zeros_like(at), lower).flatten(-dims)[..., d]
            below, above = _both_logs((weight * tails).sum(-1), side)
            density = (weight * component_log_density(base, at).flatten(-dims)[..., d].exp()).sum(-1).log()
            return below - above, density - below - above

        bracket = each[..., d]
        root = _solve(flat_u[..., d], _real, look, bracket.amin(-1), bracket.amax(-1))
        z = torch.cat([z[..., :d], root.unsqueeze(-1), z[..., d + 1 :]], -1)
    return z.reshape(u.shape)


def _like(q: Distribution) -> Tensor:
    """A tensor of q's own dtype and device."""
    for value in vars(q).values():
        if isinstance(value, Tensor) and value.is_floating_point():
            return value
    for value in vars(q).values():
        if isinstance(value, Distribution):
            return _like(value)
    return torch.empty(0)
