"""The logistic distribution (chapter 7, *Inverse CDF*)."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from vaetut.distributions._base import Univariate

FAR = 800.0  # distance from the mean in scales: e⁻⁸⁰⁰ is 0 in float64


class Logistic(Univariate):
    r"""The logistic distribution: bell-shaped like the Gaussian, with tails that fall like $e^{-|x|/s}$.

    $F(x) = 1 / (1 + e^{-y})$ and $\log p(x) = -y - 2 \log(1 + e^{-y}) - \log s$, with $y = (x - \mu)/s$; a draw is
    $z = \mu + s \log(u / (1 - u))$.

    Source: Johnson, Kotz and Balakrishnan (1995), *Continuous Univariate Distributions* 2, chapter 23;
    in AEVB section 2.4 under "tractable inverse CDF" and under "location-scale"; chapters 7 and 8
    (``eq-icdf-logistic``, ``eq-ls-logistic``).

    Args:
        loc: μ, real.
        scale: s, positive. Broadcasts against ``loc``.
        validate_args: whether to check arguments and values; torch's default when None.

    Raises:
        TypeError: if a parameter is not a number or a float32 or float64 tensor.
        ValueError: if a parameter is outside its constraint or not finite, or if the shapes do not broadcast.

    Example:
        >>> import torch
        >>> q = Logistic(torch.tensor(0.0), torch.tensor(2.0))
        >>> q.icdf(torch.tensor([0.1, 0.5, 0.9]))
        tensor([-4.3944,  0.0000,  4.3944])
        >>> q.entropy()  # in nats
        tensor(2.6931)
    """

    loc: Tensor
    scale: Tensor
    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real

    def __init__(self, loc: Tensor | float, scale: Tensor | float, validate_args: bool | None = None) -> None:
        super().__init__(validate_args, loc=loc, scale=scale)

    @property
    def mean(self) -> Tensor:
        """The mean μ."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """The mode μ."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The variance s²π²/3."""
        return (self.scale * (math.pi / math.sqrt(3))).square()

    def _quantile(self, u: Tensor) -> Tensor:
        return torch.addcmul(self.loc, self.scale, torch.logit(u))

    def _standardize(self, value: Tensor) -> Tensor:
        distance = self._checked(value) - self.loc
        # At ±∞ the slope in the scale is infinite, and 0 · ∞ that of the density.
        infinite = distance.isinf()
        far, near = distance / self.scale.detach(), torch.where(infinite, 0.0, distance) / self.scale
        return torch.where(infinite, far, near)

    def _bounded(self, value: Tensor, below: bool = True, above: bool = True) -> Tensor:
        """The same for the CDF, clamped where the CDF is 0 or 1: at ∞ its slope would be 0 · ∞."""
        with torch.no_grad():
            low, high = self.loc - FAR * self.scale, self.loc + FAR * self.scale
        value = self._checked(value).clamp(low if below else None, high if above else None)
        return (value - self.loc) / self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density at ``value``, in nats; −∞ at ±∞."""
        y = self._standardize(value)
        return logsigmoid(y) + logsigmoid(-y) - self.scale.log()

    def cdf(self, value: Tensor) -> Tensor:
        """F(x) = sigmoid((x − μ)/s)."""
        return self._bounded(value).sigmoid()

    def survival(self, value: Tensor) -> Tensor:
        """The upper tail 1 − F(x) = sigmoid(−(x − μ)/s), to full relative precision."""
        return (-self._bounded(value)).sigmoid()

    def log_cdf(self, value: Tensor) -> Tensor:
        """The log of F(x), also where F(x) is too small for the dtype."""
        return logsigmoid(self._bounded(value, below=False))

    def log_survival(self, value: Tensor) -> Tensor:
        """The log of 1 − F(x), also where 1 − F(x) is too small for the dtype."""
        return logsigmoid(-self._bounded(value, above=False))

    def entropy(self) -> Tensor:
        """The entropy log s + 2, in nats."""
        return self.scale.log() + 2
