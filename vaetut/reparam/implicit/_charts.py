"""Coordinates for the quadrature of implicit gradients, and distributions that reduce to it (chapter 10, *Implicit*).

It serves a density of which nothing but ``log_prob`` is known, mixtures of such, and transforms of them. A `Chart` maps
the support to the real line so that both tails fall exponentially and nothing is lost near an end: x = log z on
(0, ∞), x = logit z on (0, 1), x = arsinh of the standardized z on the real line.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily
from torch.nn.functional import logsigmoid

from vaetut._support.validate import any_true
from vaetut.distributions.support import is_transformed
from vaetut.reparam.implicit._cdf import inside_components
from vaetut.reparam.implicit._quadrature import LogDensity, Split, reach, split

TINY = math.log(torch.finfo(torch.float64).tiny)
ULP = torch.finfo(torch.float64).eps
# Nearer than this (as a fraction of it) to an end of the support other than 0, rounding has lost half the digits of the
# distance from the end. There a power law is used, which is accurate to as many digits.
# Where the density is compensated, the error is the square of what is lost, so the density is followed to within a few
# units in the last place.
ROOM = math.sqrt(ULP)
NARROW = 1e3  # a density so many widths from 0 is evaluated with what rounding takes from its argument


class Chart(NamedTuple):
    """A coordinate x of z on the real line."""

    to_x: Callable[[Tensor], Tensor]
    to_z: Callable[[Tensor], Tensor]
    log_density: LogDensity  # of x
    low: float | Tensor = -math.inf  # range of x in which the log-density can be computed
    high: float | Tensor = math.inf
    # from the masses below and above x to those of z
    sides: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda *masses: masses


class Moved(NamedTuple):
    """Samples with their implicit gradients, and the logs of F(z) and 1 − F(z); each ``[samples, *batch]``."""

    z: Tensor
    log_below: Tensor
    log_above: Tensor


def move(q: Distribution, z: Tensor, rounds: int | None = None) -> Moved:
    """Attach the implicit gradient to detached samples ``z [samples, *batch]`` of a univariate q, in float64."""
    if isinstance(q, MixtureSameFamily):
        return _mixture(q, z, rounds)
    if is_transformed(q):
        return _transformed(q, z, rounds)
    return move_in(chart_of(q, z), q, z, rounds)


def move_in(chart: Chart, q: Distribution, z: Tensor, rounds: int | None) -> Moved:
    """The same in a given chart."""
    x = chart.to_x(z.nan_to_num()).detach()  # an overflow counts as the largest float64
    parts = split_in(chart, x, q, rounds)
    moved = chart.to_z(x + parts.step)
    return Moved(z + (moved - moved.detach()), *chart.sides(parts.log_below, parts.log_above))


def split_in(chart: Chart, x: Tensor, q: Distribution, rounds: int | None) -> Split:
    """`split` in a chart, with a check that the density integrates to 1."""
    low, high = (torch.as_tensor(end, dtype=x.dtype, device=x.device) for end in (chart.low, chart.high))
    parts = split(chart.log_density, x, low.expand_as(x[0]), high.expand_as(x[0]), rounds)
    mass = torch.logaddexp(parts.log_below, parts.log_above).detach()
    if any_true(~(mass.abs() < 1e-4)):
        worst = mass.flatten()[mass.abs().nan_to_num(math.inf).argmax()].exp()
        raise RuntimeError(
            f"exp({type(q).__name__}.log_prob) integrates to {float(worst):.6g} over the support, not to 1: either "
            "log_prob is not normalized, or it has features too narrow for the quadrature to find (write distant "
            "peaks as a MixtureSameFamily, whose components are treated one by one)"
        )
    return parts


def chart_of(q: Distribution, z: Tensor) -> Chart:
    """The chart for q, found from the ends of its support."""
    support: Any = q.support
    lower, upper = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    lower, upper = (_finite_end(end, z, q) for end in (lower, upper))
    if lower is not None and upper is not None:
        return _interval(q.log_prob, lower, upper)
    if lower is not None or upper is not None:
        return _half_line(q.log_prob, lower, upper, z)
    return _line(q.log_prob, z)


def _finite_end(end: Any, z: Tensor, q: Distribution) -> Tensor | None:
    """The end of a support, None where it is at infinity."""
    if end is None:
        return None
    end = torch.as_tensor(end, dtype=z.dtype, device=z.device).expand_as(z[0])
    if any_true(end.isinf()):
        if any_true(~end.isinf()):
            raise NotImplementedError(
                f"the support of {type(q).__name__} ends at infinity for only a part of the batch; split the batch"
            )
        return None
    return end


Place = Callable[[Tensor, Tensor], Tensor]  # the log-density at an origin plus a distance from it


def _exactly(log_prob: LogDensity, origin: Tensor, width: Tensor) -> tuple[Place, float]:
    """log p(origin + d), and how near to the origin: by the rounded sum, or compensated if p is narrow for its place.

    The sum is rounded to the spacing of the numbers about the origin, beside which d may be small: 1e6 + 0.1 has lost
    1e-10. What has been lost is known exactly, and log p is continued over it by its slope.
    """

    def plain(origin: Tensor, d: Tensor) -> Tensor:
        return log_prob(origin + d)

    def compensated(origin: Tensor, d: Tensor) -> Tensor:
        again = torch.is_grad_enabled()
        with torch.enable_grad():
            z = origin + d
            lost = (d - (z - origin)).detach()
            z = z if z.requires_grad else z.requires_grad_()
            value = log_prob(z)
            (slope,) = (
                torch.autograd.grad(value.sum(), z, create_graph=again, allow_unused=True)
                if value.requires_grad
                else (None,)
            )
            if slope is not None:
                value = value + torch.where(slope.detach().isfinite(), slope, 0.0) * lost
        return value if again else value.detach()

    far = any_true(origin.detach().abs() > NARROW * width.detach())
    return (compensated, 16 * ULP) if far else (plain, ROOM)


def _line(log_prob: LogDensity, z: Tensor) -> Chart:
    """z = m + s sinh x, with m and s from where the density has fallen to 1/e of its value at the likeliest sample."""
    unit = z.abs().amax(0)
    unit = torch.where(unit > 0, unit, 1.0)
    infinity = torch.full_like(unit, math.inf)

    with torch.no_grad():
        m, s = z.gather(0, log_prob(z).argmax(0, keepdim=True))[0], unit
        # The second time from the middle of that interval, in case z is far from it: the new one is hardly longer.
        for exponents in ((-56.0, 5.0, 24, 7), (-20.0, 2.0, 11, 3)):
            at_m, m_at, s_at = log_prob(m), m, s
            scaled = reach(
                lambda u, m=m_at, s=s_at: log_prob(m + s * u),  # type: ignore[misc]
                torch.zeros_like(m), at_m - 1, -infinity, infinity, exponents,
            )  # fmt: skip
            left, right = s * scaled
            middle, s = m + (right - left) / 2, (left + right) / 2
            m = torch.where(log_prob(middle) > at_m, middle, m)

    place, _ = _exactly(log_prob, m, s)

    def log_density(x: Tensor) -> Tensor:
        return place(m, s * x.sinh()) + x.cosh().log() + s.log()

    # Up to e^300, whose square is finite.
    return Chart(
        lambda z: torch.asinh((z - m) / s).clamp(-700.0, 700.0),
        lambda x: m + s * x.sinh(),
        log_density,
        -300.0,
        300.0,
    )


def _half_line(log_prob: LogDensity, lower: Tensor | None, upper: Tensor | None, z: Tensor) -> Chart:
    """z = lower + e^x or z = upper − e^x."""
    sign, end = (1.0, lower) if lower is not None else (-1.0, upper)
    assert end is not None
    place, room = _exactly(log_prob, end, (z - end).detach().abs().amin(0))

    def log_density(x: Tensor) -> Tensor:
        return place(end, sign * x.exp()) + x

    low, high = _reach_of(log_density, end)
    return Chart(
        lambda z: torch.maximum(_log_positive(sign * (z - end)), (ULP / 4 * end.detach().abs()).log()),
        lambda x: end + sign * x.exp(),
        log_density,
        torch.maximum(low, (room * end.detach().abs()).log()),
        high,
        lambda *masses: masses if sign > 0 else masses[::-1],
    )


def _interval(log_prob: LogDensity, lower: Tensor, upper: Tensor) -> Chart:
    """z = lower + (upper − lower) sigmoid(x)."""
    width = upper - lower

    def to_z(x: Tensor) -> Tensor:  # from the nearer end
        return torch.where(x < 0, lower + width * x.sigmoid(), upper - width * (-x).sigmoid())

    place, room = _exactly(log_prob, torch.maximum(lower.abs(), upper.abs()), width)

    def log_density(x: Tensor) -> Tensor:
        left = x < 0
        distance = torch.where(left, width * x.sigmoid(), -width * (-x).sigmoid())
        at = place(torch.where(left, lower, upper), distance)
        return at + width.log() + logsigmoid(x) + logsigmoid(-x)

    def nearest(relative: float) -> tuple[Tensor, Tensor]:
        low, high = ((relative * (end / width).detach().abs()).log() for end in (lower, upper))
        return low.clamp(min=TINY), -high.clamp(min=TINY)

    low, high = _reach_of(log_density, lower)
    return Chart(
        lambda z: ((z - lower) / (upper - z)).log().clamp(*nearest(ULP / 4)),
        to_z,
        log_density,
        torch.maximum(low, nearest(room)[0]),
        torch.minimum(high, nearest(room)[1]),
    )


@torch.no_grad()
def _reach_of(log_density: LogDensity, like: Tensor) -> tuple[Tensor, Tensor]:
    """The range of e^x in float64, or of its square root where the density is not finite so far out."""
    far = torch.full_like(like, 700.0)
    low, high = log_density(torch.stack([-far, far])).isfinite()
    return torch.where(low, -far, -far / 2), torch.where(high, far, far / 2)


def _log_positive(z: Tensor) -> Tensor:
    return z.clamp(min=math.exp(TINY)).log()


def _mixture(q: Any, z: Tensor, rounds: int | None) -> Moved:
    """dz/dφ = Σ πₖ pₖ/p · dzₖ/dφ − Σ ∂πₖ/∂φ · Fₖ / p, with dzₖ/dφ the gradient of a draw z of component k."""
    component = q.component_distribution
    each = z.unsqueeze(-1).expand(*z.shape, component.batch_shape[-1])
    inside, beyond, safe = inside_components(component, each)
    moved = move(component, safe, rounds)
    with torch.no_grad():
        log_weight = q.mixture_distribution.logits.log_softmax(-1)
        log_each = log_weight + torch.where(inside, component.log_prob(safe), -math.inf)
        log_p = log_each.logsumexp(-1)
        share = torch.exp(log_each - log_p.unsqueeze(-1))
        zero = torch.zeros_like(each)
        log_below = torch.where(inside, moved.log_below, torch.where(beyond, zero, -math.inf))
        log_above = torch.where(inside, moved.log_above, torch.where(beyond, -math.inf, zero))
        below, above = ((log_weight + part).logsumexp(-1) for part in (log_below, log_above))
        # Σ ∂πₖ/∂φ = 0, so Fₖ may be replaced by Fₖ − 1: the smaller of the two cancels less.
        lower = (below < above).unsqueeze(-1)
        mass = torch.where(lower, log_below.exp(), -log_above.exp())
    weights = q.mixture_distribution.logits.softmax(-1)
    step = (share * (moved.z - safe)).sum(-1) - (weights * mass).sum(-1) * torch.exp(-log_p)
    return Moved(z + (step - step.detach()), below, above)


def _transformed(q: Any, z: Tensor, rounds: int | None) -> Moved:
    """Attach the gradient to the variable of the base, and apply the transforms to it."""
    sign: Any = 1
    with torch.no_grad():
        y = z
        for transform in reversed(q.transforms):
            y = transform.inv(y)
            sign = sign * transform.sign
    moved = move(q.base_dist, y, rounds)
    image = moved.z
    for transform in q.transforms:
        image = transform(image)
    rising = torch.as_tensor(sign, device=z.device) > 0
    below = torch.where(rising, moved.log_below, moved.log_above)
    above = torch.where(rising, moved.log_above, moved.log_below)
    return Moved(z + (image - image.detach()), below, above)
