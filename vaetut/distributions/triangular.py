"""The triangular distribution (chapter 8, *Location-scale*)."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from vaetut.distributions._base import Univariate, log_to_zero, pick, zero_outside
from vaetut.distributions._special import log_of


class Triangular(Univariate):
    r"""The triangular distribution: its density rises linearly from a to the peak m and falls linearly to b.

    $p(x) = \frac2{b - a} \min\big(\frac{x - a}{m - a}, \frac{b - x}{b - m}\big)$ on $[a, b]$. With the fraction
    $f = (m - a)/(b - a)$, a draw is $z = a + (b - a) \sqrt{f u}$ for $u < f$ and
    $z = b - (b - a) \sqrt{(1 - f)(1 - u)}$ otherwise. The peak may be at an end; values and gradients are finite
    there too.

    Source: Johnson, Kotz and Balakrishnan (1995), *Continuous Univariate Distributions* 2, section 26.9;
    in AEVB section 2.4 under "location-scale"; chapter 8 (``eq-ls-triangular``).

    Args:
        low: a, real.
        high: b, greater than ``low``.
        peak: m, with low ≤ peak ≤ high. All three broadcast.
        validate_args: whether to check arguments and values; torch's default when None.

    Raises:
        TypeError: if a parameter is not a number or a float32 or float64 tensor.
        ValueError: unless low ≤ peak ≤ high and low < high, all finite, or if the shapes do not broadcast.

    Example:
        >>> import torch
        >>> q = Triangular(torch.tensor(0.0), torch.tensor(4.0), torch.tensor(1.0))
        >>> q.icdf(torch.tensor([0.0, 0.25, 1.0]))
        tensor([0., 1., 4.])
        >>> q.log_prob(torch.tensor(1.0)).exp()  # the height of the triangle
        tensor(0.5000)
    """

    low: Tensor
    high: Tensor
    peak: Tensor
    arg_constraints: ClassVar = {"low": constraints.real, "high": constraints.real, "peak": constraints.real}

    def __init__(
        self,
        low: Tensor | float,
        high: Tensor | float,
        peak: Tensor | float,
        validate_args: bool | None = None,
    ) -> None:
        super().__init__(validate_args, low=low, high=high, peak=peak)
        self._expect(self.low < self.high, "low < high")
        self._expect((self.low <= self.peak) & (self.peak <= self.high), "low <= peak <= high")

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The interval [low, high]."""
        return constraints.interval(self.low, self.high)

    @property
    def _fractions(self) -> tuple[Tensor, Tensor]:
        """The parts of the width to the left and to the right of the peak, which are also their probabilities."""
        width = self.high - self.low
        return (self.peak - self.low) / width, (self.high - self.peak) / width

    @property
    def mean(self) -> Tensor:
        """The mean (a + b + m) / 3."""
        return (self.low + self.high + self.peak) / 3

    @property
    def mode(self) -> Tensor:
        """The mode m."""
        return self.peak

    @property
    def variance(self) -> Tensor:
        """The variance (b − a)² (1 − f (1 − f)) / 18."""
        left, right = self._fractions
        return (self.high - self.low).square() * (1 - left * right) / 18

    def _quantile(self, u: Tensor) -> Tensor:
        left, right = self._fractions
        side = torch.copysign(torch.full_like(u, 0.5), u - left) + 0.5  # 0 where z < peak, else 1
        square = pick(side, u * left, (1 - u) * right)
        # √square, with a finite slope at 0, where sqrt's infinite slope times 0 would be NaN
        root = square * square.clamp(min=torch.finfo(square.dtype).tiny).rsqrt()
        value = pick(side, self.low, self.high) + (1 - 2 * side) * root * (self.high - self.low)
        return value.clamp(self.low, self.high)  # rounding may lead just outside

    def _lines(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Numerators and denominators of the lines (x − a)/(m − a) and (b − x)/(b − m), whose minimum is used.

        If the peak is at an end, the line over a length of 0 is kept above the other.
        """
        width = self.high - self.low
        left = torch.where(self.peak > self.low, 0.0, width)
        right = torch.where(self.peak < self.high, 0.0, width)
        return (
            value - self.low + 2 * left,
            self.peak - self.low + left,
            self.high - value + 2 * right,
            self.high - self.peak + right,
        )

    def density(self, value: Tensor) -> Tensor:
        """The density at a ``value`` in the support: 0, with a finite slope, at an end that is not the peak."""
        rise, left, fall, right = self._lines(value)
        return 2 * torch.minimum(rise / left, fall / right) / (self.high - self.low)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density at ``value``, in nats; −∞ at an end that is not the peak."""

        def log_density(x: Tensor) -> Tensor:
            rise, left, fall, right = self._lines(x)
            tent = torch.minimum(log_to_zero(rise) - left.log(), log_to_zero(fall) - right.log())
            return tent - (self.high - self.low).log() + math.log(2)

        return zero_outside(self, self._checked(value), self.peak, log_density)

    def _tails(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """F(x) and 1 − F(x), each a sum of terms ≥ 0, so that neither loses digits."""
        value = self._checked(value).clamp(self.low, self.high)
        left, right = self._fractions
        rise, left_width, fall, right_width = self._lines(value)
        before = ((self.peak - value) / left_width).clamp(min=0)
        after = ((value - self.peak) / right_width).clamp(min=0)
        t = (rise / left_width).clamp(max=1)  # 1 − before
        s = (fall / right_width).clamp(max=1)  # 1 − after
        return left * t.square() + right * after * (1 + s), right * s.square() + left * before * (1 + t)

    def cdf(self, value: Tensor) -> Tensor:
        """F(x): (x − a)² / ((b − a)(m − a)) up to the peak, 1 − (b − x)² / ((b − a)(b − m)) from there."""
        return self._tails(value)[0]

    def survival(self, value: Tensor) -> Tensor:
        """The upper tail 1 − F(x), to full relative precision."""
        return self._tails(value)[1]

    def log_cdf(self, value: Tensor) -> Tensor:
        """The log of F(x)."""
        return log_of(*self._tails(value))

    def log_survival(self, value: Tensor) -> Tensor:
        """The log of 1 − F(x)."""
        lower, upper = self._tails(value)
        return log_of(upper, lower)

    def entropy(self) -> Tensor:
        """The entropy 1/2 + log((b − a)/2), in nats, wherever the peak is."""
        return 0.5 + ((self.high - self.low) / 2).log()
