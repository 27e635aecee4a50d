"""The reciprocal distribution (chapter 7, *Inverse CDF*)."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from vaetut.distributions._base import Univariate, zero_outside
from vaetut.distributions._special import log_of

# x coth x = 1 + x²/3 − x⁴/45 + …: the coefficients after the 1
COTH = (1 / 3, -1 / 45, 2 / 945, -1 / 4725, 2 / 93555, -1382 / 638512875, 4 / 18243225)


def log_ratio(x: Tensor, y: Tensor) -> Tensor:
    """log(x/y) for x ≥ y > 0, to full precision when x is close to y, without forming x/y, which may overflow."""
    # with the derivatives 1/x and −1/y, which neither over- nor underflow
    return x.log() - y.log() + rounding_error(x, y)


@torch.no_grad()
def rounding_error(x: Tensor, y: Tensor) -> Tensor:
    """log(x/y) to full precision, minus what log x − log y gives."""
    root = y.sqrt()
    exact = 2 * torch.log1p((x - y) / (root * (x.sqrt() + root)))
    return exact - (x.log() - y.log())


class Reciprocal(Univariate):
    """The reciprocal (log-uniform) distribution: log x is uniform between log a and log b.

    p(x) = 1 / (x log(b/a)) and F(x) = log(x/a) / log(b/a) for a ≤ x ≤ b; a draw is z = a (b/a)^u. All of it is
    computed in log space, so bounds such as 1e-30 and 1e30 are fine in float32.

    Source: Hamming (1970), "On the distribution of numbers", Bell System Technical Journal 49;
    in AEVB section 2.4 under "tractable inverse CDF"; chapter 7 (``eq-icdf-reciprocal``).

    Args:
        low: a, positive.
        high: b, greater than ``low``. Broadcasts against it.
        validate_args: whether to check arguments and values; torch's default when None.

    Raises:
        TypeError: if a parameter is not a number or a float32 or float64 tensor.
        ValueError: unless 0 < low < high < ∞, or if the shapes do not broadcast.

    Example:
        >>> import torch
        >>> q = Reciprocal(torch.tensor(1.0), torch.tensor(1000.0))
        >>> q.icdf(torch.tensor([0.0, 1 / 3, 1.0]))
        tensor([   1.,   10., 1000.])
        >>> q.mean
        tensor(144.6201)
    """

    low: Tensor
    high: Tensor
    _rounding_error: Tensor | None = None
    arg_constraints: ClassVar = {"low": constraints.positive, "high": constraints.positive}

    def __init__(self, low: Tensor | float, high: Tensor | float, validate_args: bool | None = None) -> None:
        super().__init__(validate_args, low=low, high=high)
        self._expect(self.low < self.high, "low < high")

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The interval [low, high]."""
        return constraints.interval(self.low, self.high)

    @property
    def _log_width(self) -> Tensor:
        """log(b/a)."""
        if self._rounding_error is None:  # it is computed once: a constant, of which no gradient is taken
            self._rounding_error = rounding_error(self.high, self.low)
        return self.high.log() - self.low.log() + self._rounding_error

    @property
    def mean(self) -> Tensor:
        """The mean (b − a) / log(b/a)."""
        return (self.high - self.low) / self._log_width

    @property
    def mode(self) -> Tensor:
        """The mode a: the density falls from there."""
        return self.low

    @property
    def variance(self) -> Tensor:
        """The variance (b² − a²) / (2L) − (b − a)² / L², with L = log(b/a)."""
        # It is (b − a)² (h coth h − 1) / 4h² with h = L/2, which a series gives without cancellation for small h.
        h = self._log_width / 2
        small = h < 0.25
        safe = torch.where(small, 1.0, h)
        near = torch.where(small, h, 0.0).square()
        series = torch.zeros_like(h)
        for coefficient in reversed(COTH):
            series = series * near + coefficient
        factor = torch.where(small, series, (safe / safe.tanh() - 1) / safe.square())
        return (self.high - self.low).square() * factor / 4

    def _quantile(self, u: Tensor) -> Tensor:
        log_low = self.low.log()
        log_value = torch.addcmul(log_low, u, self.high.log() - log_low)
        return log_value.exp().clamp(self.low, self.high)  # rounding may lead just outside

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density at ``value``, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        return zero_outside(self, value, -value.log() - self._log_width.log())

    def cdf(self, value: Tensor) -> Tensor:
        """F(x) = log(x/a) / log(b/a)."""
        if self._validate_args:
            self._validate_sample(value)
        return log_ratio(value.clamp(self.low, self.high), self.low) / self._log_width

    def survival(self, value: Tensor) -> Tensor:
        """The upper tail 1 − F(x) = log(b/x) / log(b/a), to full relative precision."""
        if self._validate_args:
            self._validate_sample(value)
        return log_ratio(self.high, value.clamp(self.low, self.high)) / self._log_width

    def log_cdf(self, value: Tensor) -> Tensor:
        """The log of F(x)."""
        return log_of(self.cdf(value), self.survival(value))

    def log_survival(self, value: Tensor) -> Tensor:
        """The log of 1 − F(x)."""
        return log_of(self.survival(value), self.cdf(value))

    def entropy(self) -> Tensor:
        """The entropy (log a + log b)/2 + log log(b/a), in nats."""
        return (self.low.log() + self.high.log()) / 2 + self._log_width.log()
