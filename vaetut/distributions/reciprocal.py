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
    with torch.no_grad():
        root = y.sqrt()
        exact = 2 * torch.log1p((x - y) / torch.addcmul(y, x.sqrt(), root))
    if not torch.is_grad_enabled():
        return exact
    difference = x.log() - y.log()  # its derivatives 1/x and −1/y neither overflow nor underflow
    return difference + (exact - difference).detach()


class Reciprocal(Univariate):
    r"""The reciprocal (log-uniform) distribution: $\log x$ is uniform between $\log a$ and $\log b$.

    $p(x) = 1 / (x \log(b/a))$ and $F(x) = \log(x/a) / \log(b/a)$ for $a \le x \le b$; a draw is $z = a (b/a)^u$. The
    computations are in log space, so bounds such as 1e-30 and 1e30 are possible in float32.

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
    arg_constraints: ClassVar = {"low": constraints.positive, "high": constraints.positive}

    def __init__(self, low: Tensor | float, high: Tensor | float, validate_args: bool | None = None) -> None:
        super().__init__(validate_args, low=low, high=high)
        self._expect(self.low < self.high, "low < high")

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The interval [low, high]."""
        return constraints.interval(self.low, self.high)

    @property
    def log_width(self) -> Tensor:
        """log(b/a), the width of the interval of log x."""
        return log_ratio(self.high, self.low)

    @property
    def mean(self) -> Tensor:
        """The mean (b − a) / log(b/a)."""
        return (self.high - self.low) / self.log_width

    @property
    def mode(self) -> Tensor:
        """The mode a: the density decreases on [a, b]."""
        return self.low

    @property
    def variance(self) -> Tensor:
        """The variance (b² − a²) / (2L) − (b − a)² / L², with L = log(b/a)."""
        # It is (b − a)² (h coth h − 1) / 4h² with h = L/2, which a series gives without cancellation for small h.
        h = self.log_width / 2
        small = h < 0.25
        safe = torch.where(small, 1.0, h)
        near = torch.where(small, h, 0.0).square()
        series = torch.zeros_like(h)
        for coefficient in reversed(COTH):
            series = series * near + coefficient
        factor = torch.where(small, series, (safe / safe.tanh() - 1) / safe.square())
        return (self.high - self.low).square() * factor / 4

    def _quantile(self, u: Tensor) -> Tensor:
        # From the nearer end, so that both ends are exact and log a + u log(b/a) loses no digits of u.
        below = u < 0.5
        part = torch.where(below, u, u - 1) * self.log_width
        value = torch.where(below, self.low, self.high) * part.exp()
        return value.clamp(self.low, self.high)  # rounding may lead just outside

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density at ``value``, in nats."""
        return zero_outside(self, self._checked(value), self.low, lambda x: -x.log() - self.log_width.log())

    def cdf(self, value: Tensor) -> Tensor:
        """F(x) = log(x/a) / log(b/a)."""
        return log_ratio(self._checked(value).clamp(self.low, self.high), self.low) / self.log_width

    def survival(self, value: Tensor) -> Tensor:
        """The upper tail 1 − F(x) = log(b/x) / log(b/a), to full relative precision."""
        return log_ratio(self.high, self._checked(value).clamp(self.low, self.high)) / self.log_width

    def log_cdf(self, value: Tensor) -> Tensor:
        """The log of F(x)."""
        return log_of(self.cdf(value), self.survival(value))

    def log_survival(self, value: Tensor) -> Tensor:
        """The log of 1 − F(x)."""
        return log_of(self.survival(value), self.cdf(value))

    def entropy(self) -> Tensor:
        """The entropy (log a + log b)/2 + log log(b/a), in nats."""
        return (self.low.log() + self.high.log()) / 2 + self.log_width.log()
