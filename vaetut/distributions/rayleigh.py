"""The Rayleigh distribution (chapter 7, *Inverse CDF*)."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import euler_constant

from vaetut.distributions._base import Univariate, log_to_zero, zero_outside
from vaetut.distributions._special import log1mexp

FAR = 50.0  # distance from 0 in scales: beyond it 1 − F and its slopes are 0 in float64


class Rayleigh(Univariate):
    r"""The Rayleigh distribution: the length of a Gaussian vector $\mathcal N(0, \sigma^2 I)$ in the plane.

    $F(x) = 1 - e^{-x^2/2\sigma^2}$ and $\log p(x) = \log x - 2 \log \sigma - x^2/2\sigma^2$ for $x \ge 0$; a draw is
    $z = \sigma \sqrt{-2 \log(1 - u)}$.

    Source: Johnson, Kotz and Balakrishnan (1994), *Continuous Univariate Distributions* 1, chapter 18;
    in AEVB section 2.4 under "tractable inverse CDF"; chapter 7 (``eq-icdf-rayleigh``).

    Args:
        scale: σ, positive.
        validate_args: whether to check arguments and values; torch's default when None.

    Raises:
        TypeError: if ``scale`` is not a number or a float32 or float64 tensor.
        ValueError: if ``scale`` is not positive and finite.

    Example:
        >>> import torch
        >>> q = Rayleigh(torch.tensor(2.0))
        >>> q.mean, q.variance
        (tensor(2.5066), tensor(1.7168))
        >>> q.log_survival(torch.tensor(100.0))  # where 1 − F(x) is 0 in any dtype
        tensor(-1250.)
    """

    scale: Tensor
    arg_constraints: ClassVar = {"scale": constraints.positive}
    support = constraints.nonnegative

    def __init__(self, scale: Tensor | float, validate_args: bool | None = None) -> None:
        super().__init__(validate_args, scale=scale)

    @property
    def mean(self) -> Tensor:
        """The mean σ √(π/2)."""
        return self.scale * math.sqrt(math.pi / 2)

    @property
    def mode(self) -> Tensor:
        """The mode σ."""
        return self.scale

    @property
    def variance(self) -> Tensor:
        """The variance (2 − π/2) σ²."""
        return (2 - math.pi / 2) * self.scale.square()

    def _quantile(self, u: Tensor) -> Tensor:
        return self.scale * (-2 * torch.log1p(-u)).sqrt()

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density at ``value``, in nats."""

        value = self._checked(value)
        far = self.scale.detach() * math.sqrt(torch.finfo(value.dtype).max)

        def log_density(x: Tensor) -> Tensor:
            y = x / self.scale
            return torch.addcmul(torch.sub(log_to_zero(x), self.scale.log(), alpha=2), y, y, value=-0.5)

        return zero_outside(self, value, self.scale, log_density, far)

    def _hazard(self, value: Tensor, far: float = math.inf) -> Tensor:
        """The cumulative hazard x²/2σ² = −log(1 − F(x)), for x not beyond ``far`` scales."""
        value = self._checked(value).clamp(min=0)
        if far < math.inf:
            value = torch.minimum(value, far * self.scale.detach())
        return 0.5 * (value / self.scale).square()

    def cdf(self, value: Tensor) -> Tensor:
        """F(x) = 1 − exp(−x²/2σ²)."""
        return -torch.expm1(-self._hazard(value, FAR))

    def survival(self, value: Tensor) -> Tensor:
        """The upper tail 1 − F(x) = exp(−x²/2σ²), to full relative precision."""
        return torch.exp(-self._hazard(value, FAR))

    def log_cdf(self, value: Tensor) -> Tensor:
        """The log of F(x), also where F(x) is too small for the dtype."""
        return log1mexp(self._hazard(value, FAR))

    def log_survival(self, value: Tensor) -> Tensor:
        """The log of 1 − F(x): −x²/2σ²."""
        return -self._hazard(value)

    def entropy(self) -> Tensor:
        """The entropy 1 + log(σ/√2) + γ/2, in nats (γ = 0.5772…, Euler's constant)."""
        return self.scale.log() + (1 + euler_constant / 2 - math.log(2) / 2)
