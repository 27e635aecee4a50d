r"""The implicit family in the registry: $z = F_\phi^{-1}(u)$ where F has no inverse that can be written down.

Chapter 10, *Implicit*. Uniform noise u and the root of $F_\phi(z) = u$ make an honest pair of noise and map, and it is
what `implicit_gradient` differentiates. No draw needs the root: ``rsample`` takes z from the sampler of q and gives it
the same gradient.
"""

import math
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
    biject_to,
    constraints,
)

from vaetut.distributions import Erlang
from vaetut.distributions._special import log_gamma_quantile
from vaetut.reparam._map import Map
from vaetut.reparam.implicit import implicit_gradient, implicit_rsample
from vaetut.reparam.implicit._charts import move
from vaetut.reparam.noise import StandardUniform
from vaetut.reparam.registry import families, register_reparameterization, reparameterize

_DOUBLINGS, _STEPS = 60, 100


def _is_univariate(q: Any) -> bool:
    """Whether q, a distribution or a class, is continuous and has one coordinate."""
    try:
        support = q.support
        return (
            not support.is_discrete
            and support.event_dim == 0
            and not (isinstance(q, Distribution) and q.event_shape)
        )
    except (AttributeError, NotImplementedError):
        return False


def implicit(q: Distribution) -> Map:
    """Give the map of a univariate density."""

    def g(u: Tensor) -> Tensor:
        u = u.expand(torch.broadcast_shapes(u.shape, q.batch_shape))
        z = implicit_gradient(q, quantile(q, u.detach()))
        if u.requires_grad:
            z = z + (u - u.detach()) * (-q.log_prob(z.detach()).detach()).exp()
        return z

    like = _like(q)
    fast = isinstance(q, Gamma | Beta) and like.dtype == torch.float32  # what implicit_rsample would come to
    return Map(
        StandardUniform(like, q.batch_shape),
        g,
        q.rsample if fast else lambda shape: implicit_rsample(q, shape),
    )


# The classes that have no inverse CDF to write down are named, so that the map comes before that of a base class.
for _kind in (Gamma, Chi2, Erlang, Beta, StudentT, FisherSnedecor, VonMises, MixtureSameFamily, Distribution):
    register_reparameterization(
        _kind,
        "implicit",
        noise="u ~ U(0, 1)",
        g="F⁻¹(u), with dz/dφ = −∂F/∂φ / q(z)",
        tex=r"F_\phi^{-1}(u), \quad \frac{\partial z}{\partial \phi} = -\frac{\partial_\phi F_\phi(z)}{q_\phi(z)}",
        remark="any univariate density, in all its parameters: g solves for the root, rsample has no need to"
        if _kind is Distribution
        else "",
        applies=_is_univariate if _kind is Distribution else None,
    )(implicit)


@register_reparameterization(
    Dirichlet,
    "implicit",
    noise="none",
    g="none: each concentration moves its own coordinate as a beta variable, and the others in proportion",
    tex=r"\frac{\partial z}{\partial \alpha_k} = \frac{z - e_k}{1 - z_k} \frac{\partial_{\alpha_k} F(z_k)}{p(z_k)}",
    remark="an unbiased gradient for draws, but of no single g; via='composition' has one",
)
def dirichlet(q: Dirichlet) -> Map:
    """Give the draws of a Dirichlet."""
    fast = q.concentration.dtype == torch.float32
    return Map(None, None, q.rsample if fast else lambda shape: implicit_rsample(q, shape))


@torch.no_grad()
def quantile(q: Distribution, u: Tensor) -> Tensor:
    """Solve F(z) = u for z, in the shape of u, which ends in the batch shape of q.

    Where the package has a closed form or the gamma's quantile it is that; else F is integrated (see `_charts`), and
    the root of its log odds is found by Newton's method inside a bracket.
    """
    if "inverse_cdf" in families(type(q)):
        return reparameterize(q, "inverse_cdf").g(u)
    if isinstance(q, Gamma):
        return log_gamma_quantile(u, q.concentration).exp() * (q.concentration / q.rate)
    if isinstance(q, TransformedDistribution):
        sign: Any = math.prod(transform.sign for transform in q.transforms)
        z = quantile(q.base_dist, torch.where(torch.as_tensor(sign, device=u.device) > 0, u, 1 - u))
        for transform in q.transforms:
            z = transform(z)
        return z
    return _solve(q, u.double()).to(u.dtype)


def _solve(q: Distribution, u: Tensor) -> Tensor:
    """Newton's method, kept inside a bracket, on the log odds of F in a coordinate y on the real line."""
    target = u.logit()
    if isinstance(q, MixtureSameFamily):
        parts: Any = q.component_distribution
        each = quantile(parts, u.unsqueeze(-1).expand(*u.shape, parts.batch_shape[-1]))
        to_z, low, high = biject_to(constraints.real), each.amin(-1), each.amax(-1)
    else:
        circle = constraints.interval(-math.pi, math.pi)
        to_z = biject_to(circle if isinstance(q, VonMises) else q.support)
        low, high = torch.full_like(u, -1), torch.full_like(u, 1)

    def look(y: Tensor) -> tuple[Tensor, Tensor]:
        """The log odds of F less those of u, and their derivative."""
        z = to_z(y)
        flat = z.reshape(-1, *q.batch_shape)
        _, below, above = move(q, flat)
        log_slope = q.log_prob(flat) - below - above
        odds = (below - above).reshape(y.shape) - target
        return odds, (log_slope.reshape(y.shape) + to_z.log_abs_det_jacobian(y, z)).exp()

    for _ in range(_DOUBLINGS):
        outside = look(low)[0] > 0
        if isinstance(q, MixtureSameFamily) or not outside.any():
            break
        low = torch.where(outside, 2 * low, low)
    for _ in range(_DOUBLINGS):
        outside = look(high)[0] < 0
        if isinstance(q, MixtureSameFamily) or not outside.any():
            break
        high = torch.where(outside, 2 * high, high)
    y = (low + high) / 2
    for _ in range(_STEPS):
        odds, slope = look(y)
        low, high = torch.where(odds < 0, y, low), torch.where(odds < 0, high, y)
        step = y - odds / slope
        step = torch.where((step > low) & (step < high), step, (low + high) / 2)
        done = (step - y).abs() <= 1e-14 * y.abs().clamp(min=1)
        y = step
        if done.all():
            break
    return to_z(y)


def _like(q: Distribution) -> Tensor:
    """A tensor of q's own dtype and device."""
    for value in vars(q).values():
        if isinstance(value, Tensor) and value.is_floating_point():
            return value
    for value in vars(q).values():
        if isinstance(value, Distribution):
            return _like(value)
    return torch.empty(0)
