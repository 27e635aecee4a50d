"""What `Truncated` computes from its base and its ends: masses, quantiles and averages, in logs of the nearer tail."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaetut._support.validate import any_true
from vaetut.distributions._special import log1mexp
from vaetut.distributions._tails import Tails, log_density, tails_of
from vaetut.distributions.copies import with_tensors
from vaetut.distributions.support import support_ends

IDLE = 1e4  # a probability is 0 beside one that is larger by this in logs
NODES = 105  # of the quadrature over the quantile function
PART = 1 << 18  # numbers in each tensor of a part of the nodes: 2 MB


class Interval:
    """A base, restricted to [low, high]: both tails at the ends, and what follows from them, in float64."""

    def __init__(self, base: Distribution, low: Tensor, high: Tensor) -> None:
        self.wide: Any = with_tensors(base, Tensor.double)
        low, high = low.double(), high.double()
        self.tails: Tails = tails_of(self.wide)
        with torch.no_grad():
            self.median = self.wide.icdf(torch.full_like(low, 0.5))
        start, stop = support_ends(self.wide)  # which may move, as that of a uniform base does
        with torch.no_grad():
            # An end truncates only if it is finite and inside of the base's support.
            cuts_low, cuts_high = low > start, high < stop
            self.above = cuts_low & (low > self.median)  # the interval is in the upper tail
        self.start, self.stop = start.detach(), stop.detach()
        self.least = torch.where(cuts_low, low, start)
        self.most = torch.where(cuts_high, high, stop)
        with torch.no_grad():  # next to an end of the base a median may be rounded to it
            within_low, within_high = self._within(torch.float64, start, stop)
            harmless = torch.minimum(torch.maximum(self.median, within_low), within_high)
        self._set_masses(low, high, cuts_low, cuts_high, harmless)
        # Beyond an end so far out the probability is 0, and so is its slope, but the slope of its log may overflow.
        with torch.no_grad():
            idle_low = cuts_low & (self.to_low < self.to_high - IDLE)
            idle_high = cuts_high & (self.from_high < self.from_low - IDLE)
        if any_true(idle_low | idle_high):
            self._set_masses(low, high, cuts_low & ~idle_low, cuts_high & ~idle_high, harmless)
        self.log_mass = _log_difference(self.to_low, self.from_low, self.to_high, self.from_high)

    def _set_masses(
        self, low: Tensor, high: Tensor, cuts_low: Tensor, cuts_high: Tensor, harmless: Tensor
    ) -> None:
        """The logs of both tails at the ends that cut; elsewhere values and gradients may be infinite."""
        low, high = torch.where(cuts_low, low, harmless), torch.where(cuts_high, high, harmless)
        self.to_low = self._masked(self.tails.log_cdf(low), cuts_low, -math.inf)
        self.from_low = self._masked(self.tails.log_survival(low), cuts_low, 0.0)
        self.to_high = self._masked(self.tails.log_cdf(high), cuts_high, 0.0)
        self.from_high = self._masked(self.tails.log_survival(high), cuts_high, -math.inf)

    @staticmethod
    def _masked(value: Tensor, cut: Tensor, otherwise: float) -> Tensor:
        return torch.where(cut, value, otherwise)

    @property
    def somewhere(self) -> Tensor:
        """A point inside."""
        with torch.no_grad():
            level = torch.full_like(self.log_mass, -math.log(2))
            return self.quantile(level, level)

    def inner(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The least and the greatest number inside: an end that is the base's own does not belong to the interval.

        There the density may be 0 or infinite, and a quantile that is rounded to it or overflows is no draw.
        """
        return self._within(dtype, self.least.detach(), self.most.detach())

    def _within(self, dtype: torch.dtype, least: Tensor, most: Tensor) -> tuple[Tensor, Tensor]:
        largest, smallest = torch.finfo(dtype).max, torch.finfo(dtype).smallest_normal
        with torch.no_grad():
            low, high = (end.to(dtype).clamp(-largest, largest) for end in (least, most))
            after = torch.where(low == 0, smallest, torch.nextafter(low, high))
            before = torch.where(high == 0, -smallest, torch.nextafter(high, low))
            own_low = (least == self.start) & self.start.isfinite()
            own_high = (most == self.stop) & self.stop.isfinite()
            return (
                torch.where(own_low, torch.minimum(after, high), low),
                torch.where(own_high, torch.maximum(before, low), high),
            )

    def density(self, x: Tensor) -> Tensor:
        """log p of the base."""
        return log_density(self.wide, x)

    def log_density(self, x: Tensor) -> Tensor:
        """log p of the base, from least to most; at an end of the base where it has no value, the limit there."""
        value = self.density(x)
        end = (x.detach() == self.start) | (x.detach() == self.stop)
        missing = end & (value.detach().isnan() | (value.detach() == -math.inf))
        if not any_true(missing):
            return value
        low, high = self.inner(torch.float64)
        with torch.no_grad():
            near = torch.minimum(torch.maximum(x, low), high)
            shift = near.abs().clamp(min=1e-150) * torch.where(x == self.start, 1e-15, -1e-15)
            farther = torch.minimum(torch.maximum(near + shift, low), high)
            rise = self.density(near) - self.density(farther)
            flat = rise.abs() < 1e-6  # otherwise a power law, which is 0 or infinite at the end
            missing = missing & (flat | value.isnan())
            limit = torch.where(rise > 0, math.inf, -math.inf)
        inside = self.density(torch.where(missing, near, x))
        return torch.where(missing & ~flat, limit, inside)

    def quantile(self, log_u: Tensor, log_rest: Tensor) -> Tensor:
        """The quantile of u, from log u and log(1 − u): the inverse of the nearer tail of the base."""
        below = _log_sum(self.to_low, log_u + self.log_mass)
        above = _log_sum(self.from_high, log_rest + self.log_mass)
        near = below < above
        # Where the other is chosen, each inverse gets nearly the same quantile, which is finite if the other is.
        with torch.no_grad():
            not_below, not_above = (log1mexp(-level.clamp(-30.0, -1e-15)) for level in (above, below))
        lower = self.tails.lower(torch.where(near, below, not_below))
        upper = self.tails.upper(torch.where(near, not_above, above))
        return torch.where(near, lower, upper)

    def part(self, x: Tensor, below: bool) -> Tensor:
        """The log of the part of the probability below (above) x."""
        inside = (x > self.least) & (x < self.most) | x.isnan()
        safe = torch.where(inside, x, self.somewhere)
        to_x, from_x = self.tails.log_cdf(safe), self.tails.log_survival(safe)
        if below:
            mass = _log_difference(self.to_low, self.from_low, to_x, from_x)
        else:
            mass = _log_difference(to_x, from_x, self.to_high, self.from_high)
        full = (x >= self.most) if below else (x <= self.least)
        return torch.where(inside, (mass - self.log_mass).clamp(max=0), torch.where(full, 0.0, -math.inf))

    def average(self, f: Callable[[Tensor], Tensor], shape: torch.Size | None = None) -> Tensor:
        """E[f(z)] = ∫ f(z(u)) du, with (0, 1) split at the peak of the base, where its density may have a kink.

        On each side the trapezoid rule is used with u = sigmoid(π sinh t), whose weights are double exponentially small
        at both ends (Takahasi and Mori 1974). For a large batch the nodes are computed a few at a time.
        """
        with torch.no_grad():
            try:
                peak = self.wide.mode
            except NotImplementedError:
                peak = self.median
            peak = torch.where(peak.abs() < math.inf, peak, self.median)
            log_left, log_right = self.part(peak, below=True), self.part(peak, below=False)
        low, high = self.inner(torch.float64)
        low = torch.where(self.least.isfinite(), low, -math.inf)  # an infinite value is left out below
        high = torch.where(self.most.isfinite(), high, math.inf)
        shape = peak.shape if shape is None else shape
        nodes = torch.linspace(-4.2, 4.2, NODES, dtype=torch.float64, device=peak.device)
        total = torch.zeros(shape, dtype=torch.float64, device=peak.device)
        for some in nodes.split(max(1, PART // max(1, shape.numel()))):
            t = some.reshape(-1, *[1] * len(shape))
            log_s, log_r = (torch.nn.functional.logsigmoid(sign * math.pi * t.sinh()) for sign in (1, -1))
            weight = math.pi * t.cosh() * (log_s + log_r).exp() * (8.4 / (NODES - 1))
            for size, other, left in ((log_left, log_right, True), (log_right, log_left, False)):
                near = size + log_s  # the distance from the outer end
                rest = _log_sum(other, size + log_r)
                z = self.quantile(near, rest) if left else self.quantile(rest, near)
                z = z.clamp(low, high)
                value = f(z)
                part = weight * size.exp()
                # An infinite value next to an end, such as log p, counts as 0: its weight is negligible.
                counts = (part > 1e-8) | (part > 0) & (value.abs() < math.inf)
                total = total + torch.where(counts, part * torch.where(counts, value, 0.0), 0.0).sum(0)
        return total


def _log_sum(a: Tensor, b: Tensor) -> Tensor:
    """log(eᵃ + eᵇ), also where both are −∞, without a NaN in the gradient."""
    a, b = torch.broadcast_tensors(a, b)
    nothing = (a == -math.inf) & (b == -math.inf)
    return torch.where(nothing, -math.inf, torch.logaddexp(a, torch.where(nothing, 0.0, b)))


def _log_difference(to_a: Tensor, from_a: Tensor, to_b: Tensor, from_b: Tensor) -> Tensor:
    """log(F(b) − F(a)) from the logs of both tails at a and b, from the smaller tail."""
    to_a, from_a, to_b, from_b = torch.broadcast_tensors(to_a, from_a, to_b, from_b)
    half = -math.log(2)
    in_upper, in_lower = from_a < half, to_b < half
    outside = torch.where(in_upper | in_lower, 0.5, to_a.exp() + from_b.exp())
    value = torch.log1p(-outside)
    for far, larger, smaller in ((in_upper, from_a, from_b), (in_lower, to_b, to_a)):
        larger, smaller = torch.where(far, larger, -1.0), torch.where(far, smaller, -2.0)
        gap = torch.where(
            smaller > -math.inf, larger - torch.where(smaller > -math.inf, smaller, -2.0), math.inf
        )
        value = torch.where(far, larger + log1mexp(gap), value)
    return value
