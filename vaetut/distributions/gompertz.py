"""The Gompertz distribution (chapter 7, *Inverse CDF*)."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import softplus

from vaetut.distributions._base import Univariate, zero_outside
from vaetut.distributions._special import log1mexp

PART = 1 << 12  # parameters that are averaged at once: with 177 nodes, 6 MB for each tensor in float64
FAR = 1000.0  # the largest hazard: e⁻¹⁰⁰⁰ is 0 in float64


class _ByParts(torch.autograd.Function):
    """An elementwise f of many numbers, and its derivatives of any order, computed for a part of them at a time."""

    @staticmethod
    def forward(ctx: Any, f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        ctx.f = f
        ctx.save_for_backward(x)
        result = torch.empty_like(x, memory_format=torch.contiguous_format)
        for part, value in zip(x.reshape(-1).split(PART), result.view(-1).split(PART), strict=True):
            value.copy_(f(part))
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        (x,) = ctx.saved_tensors
        slope = torch.func.grad(lambda part: ctx.f(part).sum())
        return None, grad * _ByParts.apply(slope, x)  # type: ignore[no-untyped-call]


class Gompertz(Univariate):
    r"""The Gompertz distribution: a lifetime whose hazard $c b e^{bx}$ grows exponentially.

    $F(x) = 1 - \exp(-c (e^{bx} - 1))$ and $\log p(x) = \log(bc) + bx - c (e^{bx} - 1)$ for $x \ge 0$; a draw is
    $z = \log(1 - \log(1 - u)/c) / b$. No intermediate result overflows, from c = 1e-37 to 1e30 in float32.

    Source: Gompertz (1825), "On the nature of the function expressive of the law of human mortality", Philosophical
    Transactions 115; in AEVB section 2.4 under "tractable inverse CDF"; chapter 7 (``eq-icdf-gompertz``). The same
    parameters as ``scipy.stats.gompertz(c, scale=1/b)``.

    Args:
        concentration: c, positive: c < 1 gives a peak at −log(c)/b, c ≥ 1 a density that decreases everywhere.
        rate: b, positive, an inverse scale. Broadcasts against ``concentration``.
        validate_args: whether to check arguments and values; torch's default when None.

    Raises:
        TypeError: if a parameter is not a number or a float32 or float64 tensor.
        ValueError: if a parameter is not positive and finite, or if the shapes do not broadcast.

    Example:
        >>> import torch
        >>> q = Gompertz(torch.tensor(0.01), torch.tensor(0.1))
        >>> q.icdf(torch.tensor([0.1, 0.5, 0.9]))
        tensor([24.4548, 42.5298, 54.4354])
        >>> q.mean, q.mode
        (tensor(40.7851), tensor(46.0517))
    """

    concentration: Tensor
    rate: Tensor
    arg_constraints: ClassVar = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.nonnegative

    def __init__(
        self, concentration: Tensor | float, rate: Tensor | float, validate_args: bool | None = None
    ) -> None:
        super().__init__(validate_args, concentration=concentration, rate=rate)

    def _scaled_quantile(self, log_hazard: Tensor) -> Tensor:
        """The b x at which the cumulative hazard c (e^(bx) − 1) is exp(log_hazard): log(1 + e^(log_hazard − log c))."""
        # Above the threshold log(1 + e^t) is t in float64 too. torch's own threshold, 20, is meant for float32.
        return softplus(log_hazard - self.concentration.log(), threshold=40)

    def _averages(self, f: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """f(y, w) for the b x at the nodes of the cumulative hazard and their weights, y ``[nodes, *batch]``.

        s = c (e^(bx) − 1) is Exponential(1), so that E[g(bx)] = ∫ e^(−s) g ds = ∫ e^(t − eᵗ) g dt with s = eᵗ: smooth
        and double exponentially small at both ends, so that the trapezoid rule, Σ w g(y), is exact to about 1e-15
        (Trefethen and Weideman 2014). Many parameters are computed in parts, in the backward pass too, so that
        memory is bounded.
        """

        def average(log_c: Tensor) -> Tensor:
            t = (
                torch.arange(-160, 17, dtype=log_c.dtype, device=log_c.device).reshape(-1, *[1] * log_c.dim())
                / 4
            )
            return f(softplus(t - log_c, threshold=40), torch.exp(t - t.exp()) / 4)

        log_c = self.concentration.log()
        if log_c.numel() <= PART:
            return average(log_c)
        value: Tensor = _ByParts.apply(average, log_c)  # type: ignore[no-untyped-call]
        return value

    @property
    def mean(self) -> Tensor:
        """The mean e^c E₁(c) / b, E₁ being the exponential integral."""
        return self._averages(lambda y, weight: (weight * y).sum(0)) / self.rate

    @property
    def mode(self) -> Tensor:
        """The mode max(0, −log c) / b."""
        return (-self.concentration.log()).clamp(min=0) / self.rate

    @property
    def variance(self) -> Tensor:
        """The variance E[(x − mean)²], an integral without an elementary form, by quadrature to rounding error."""

        def variance(y: Tensor, weight: Tensor) -> Tensor:
            mean = (weight * y).sum(0)
            return (weight * (y / mean - 1).square()).sum(0) * mean.square()

        return self._averages(variance) / self.rate.square()

    def _quantile(self, u: Tensor) -> Tensor:
        return self._scaled_quantile((-torch.log1p(-u)).log()) / self.rate

    def _hazard(self, y: Tensor) -> Tensor:
        """The cumulative hazard c (e^y − 1), as c m (m + 2) with m = e^(y/2) − 1.

        In this form the product with a tiny c is formed before e^y overflows.
        """
        m = torch.expm1(y / 2)
        return self.concentration * m * (m + 2)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density at ``value``, in nats."""

        value = self._checked(value)
        with torch.no_grad():  # where the hazard overflows
            most = torch.full_like(self.concentration, math.log(torch.finfo(value.dtype).max) - 1)
            far = self._scaled_quantile(most) / self.rate

        def log_density(x: Tensor) -> Tensor:
            y = self.rate * x
            return y - self._hazard(y) + (self.rate.log() + self.concentration.log())

        return zero_outside(self, value, 1 / self.rate, log_density, far)

    def _seen(self, value: Tensor) -> Tensor:
        """The hazard for the CDF, clamped where the CDF is 1: at ∞ its slope would be 0 · ∞."""
        x = self._checked(value).clamp(min=0)
        with torch.no_grad():
            far = self._scaled_quantile(torch.full_like(self.concentration, math.log(FAR))) / self.rate
        return self._hazard(self.rate * torch.where(x > far, far, x))

    def cdf(self, value: Tensor) -> Tensor:
        """F(x) = 1 − exp(−c (e^(bx) − 1))."""
        return -torch.expm1(-self._seen(value))

    def survival(self, value: Tensor) -> Tensor:
        """The upper tail 1 − F(x), to full relative precision."""
        return torch.exp(-self._seen(value))

    def log_cdf(self, value: Tensor) -> Tensor:
        """The log of F(x), also where F(x) is too small for the dtype."""
        return log1mexp(self._seen(value))

    def log_survival(self, value: Tensor) -> Tensor:
        """The log of 1 − F(x): −c (e^(bx) − 1)."""
        return -self._hazard(self.rate * self._checked(value).clamp(min=0))

    def entropy(self) -> Tensor:
        """The entropy 1 − log(bc) − e^c E₁(c), in nats."""
        scaled_mean = self._averages(lambda y, weight: (weight * y).sum(0))
        return 1 - self.rate.log() - self.concentration.log() - scaled_mean
