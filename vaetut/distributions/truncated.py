"""Truncation of any univariate distribution to an interval (chapter 7, *Inverse CDF*)."""

import math
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.distributions import (
    Cauchy,
    Distribution,
    Exponential,
    Gamma,
    Gumbel,
    HalfNormal,
    LogNormal,
    Normal,
    StudentT,
    Weibull,
    constraints,
    register_kl,
)
from torch.types import _size

from vaetut._support.validate import any_true, distribution
from vaetut.distributions._base import (
    FLOATS,
    ONLY_FLOATS,
    as_number,
    broadcast_shapes,
    check_probability,
    in_dtype_of,
    zero_outside,
)
from vaetut.distributions._interval import Interval
from vaetut.distributions._special import open_uniform
from vaetut.distributions._tails import knows_far_tails, tails_of
from vaetut.distributions.copies import tensors_of, with_tensors
from vaetut.distributions.logistic import Logistic
from vaetut.distributions.support import is_discrete, support_ends

# The log of the least upper tail that may be computed as 1 − F(x): about eight digits of it are left.
LEAST_MASS = math.log(1e-8)
FARTHEST = -1e11  # the log of the least mass: numbers of that size have a spacing of 1.5e-5 in float64


class Truncated(Distribution):
    r"""A univariate distribution ``base``, conditioned on a value in [low, high].

    With $F$ the CDF of the base, the density is $p(x) / (F(b) - F(a))$ on $[a, b]$, and a draw is
    $z = F^{-1}(F(a) + u (F(b) - F(a)))$. It is computed in float64, in logs of the nearer tail, so that the interval
    may lie 30 standard deviations from the mean on either side, in float32 too.

    Draws, densities and quantiles are differentiable in the base's parameters and in both ends. A draw that overflows,
    or is rounded to an end of the base's support, is the number next to it, with a gradient of 0.

    Source: Devroye (1986), *Non-Uniform Random Variate Generation*, section II.2.1; chapter 7 (``eq-icdf-inverse``,
    ``eq-icdf-nearer-tail``).

    Args:
        base: a continuous univariate distribution with ``cdf`` and ``icdf``, of torch or of vaetut; batch shape
            ``[*batch]``.
        low: a, the lower end; −∞ for none. Ends and base broadcast.
        high: b, the upper end, greater than ``low``; ∞ for none.
        validate_args: whether to check arguments and values; torch's default when None.

    Raises:
        TypeError: if ``base`` is not a distribution, or an end is not a number or a float32 or float64 tensor.
        ValueError: if ``base`` is discrete or not univariate, unless low < high, if the shapes do not broadcast, if
            the log of the probability of the interval is below −1e11 (450,000 standard deviations out), or if the
            interval is so far in the upper tail that a base with nothing but ``cdf`` cannot resolve it.
        NotImplementedError: if ``base`` lacks ``cdf`` or ``icdf``.

    Example:
        >>> import torch
        >>> from torch.distributions import Normal
        >>> q = Truncated(Normal(torch.tensor(0.0), torch.tensor(1.0)), 30.0, 31.0)
        >>> q.icdf(torch.tensor([0.0, 0.5, 1.0]))
        tensor([30.0000, 30.0231, 31.0000])
        >>> q.mean, q.stddev
        (tensor(30.0333), tensor(0.0332))
    """

    base: Distribution
    low: Tensor
    high: Tensor
    has_rsample = True
    arg_constraints: ClassVar = {"low": constraints.real, "high": constraints.real}

    def __init__(
        self,
        base: Distribution,
        low: Tensor | float = -math.inf,
        high: Tensor | float = math.inf,
        validate_args: bool | None = None,
    ) -> None:
        if distribution(base, "base").event_shape:
            raise ValueError(f"base must be univariate, got one of event shape {list(base.event_shape)}")
        if is_discrete(base):
            raise ValueError(f"base must be continuous, got {type(base).__name__}, which is discrete")
        median = _median_of(base)
        ends = []
        for name, value in (("low", as_number(low)), ("high", as_number(high))):
            if isinstance(value, bool) or not isinstance(value, Tensor | int | float):
                raise TypeError(f"{name} {ONLY_FLOATS}, got {type(value).__name__}")
            if isinstance(value, Tensor) and value.dtype not in FLOATS:
                raise TypeError(f"{name} {ONLY_FLOATS}, got dtype {value.dtype}")
            ends.append(value if isinstance(value, Tensor) else median.new_tensor(value))
        dtype = torch.promote_types(median.dtype, torch.promote_types(ends[0].dtype, ends[1].dtype))
        shape = broadcast_shapes(base=base.batch_shape, low=ends[0].shape, high=ends[1].shape)
        self._set(base, ends[0].to(dtype), ends[1].to(dtype), shape)
        super().__init__(shape, validate_args=validate_args)
        if self._validate_args:
            self._check()

    def _check(self) -> None:
        if any_true(~(self.low < self.high)):
            raise ValueError(
                f"Expected the parameters of Truncated to satisfy low < high, got low={self.low.detach()}, "
                f"high={self.high.detach()}"
            )
        between = self._interval
        mass = between.log_mass.detach()
        if any_true(~(mass > -math.inf)):
            raise ValueError(
                f"the probability of [low, high] under {type(self.base).__name__} is 0 in float64, even in logs: "
                f"got low={self.low.detach()}, high={self.high.detach()}"
            )
        if any_true(mass < FARTHEST):
            raise ValueError(
                f"[low, high] lies so far in a tail of {type(self.base).__name__} that float64 does not hold the log "
                f"of its probability to four decimal places: got low={self.low.detach()}, high={self.high.detach()}"
            )
        if not knows_far_tails(self.base) and any_true(between.above & (mass < LEAST_MASS)):
            raise ValueError(
                f"the probability of [low, high] lies so far in the upper tail of {type(self.base).__name__} that it "
                "underflows in 1 - cdf(x); give that class a method log_survival or survival"
            )

    @property
    def _interval(self) -> Interval:
        """Masses and quantiles; computed again at each access, since the parameters may have changed."""
        return Interval(self.base, self.low, self.high)

    def _set(self, base: Distribution, low: Tensor, high: Tensor, batch_shape: _size) -> None:
        self.base = base.expand(batch_shape)
        self.low = low.expand(batch_shape)
        self.high = high.expand(batch_shape)

    def expand(self, batch_shape: _size, _instance: Any = None) -> Self:
        """Return the same distribution with its parameters expanded to ``batch_shape``."""
        new = self._get_checked_instance(Truncated, _instance)  # type: ignore[no-untyped-call]
        new._set(self.base, self.low, self.high, batch_shape)
        Distribution.__init__(new, torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def __repr__(self) -> str:
        return f"Truncated(base: {self.base}, low: {self.low}, high: {self.high})"

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The intersection of [low, high] and the base's support; infinite ends are infinite tensors."""
        between = self._interval
        return constraints.interval(between.least.to(self.low), between.most.to(self.low))

    @property
    def mean(self) -> Tensor:
        """The mean, by quadrature over the quantile function. The base's mean if a tail without one is kept."""
        between = self._interval
        return self._unless_infinite("mean", between.average(lambda z: z), between)

    @property
    def variance(self) -> Tensor:
        """The variance, by the same quadrature about the mean."""
        between = self._interval
        mean = between.average(lambda z: z)
        return self._unless_infinite("variance", between.average(lambda z: (z - mean).square()), between)

    @property
    def mode(self) -> Tensor:
        """The mode of the base, or the end nearest to it: the base must have a single peak."""
        return self.base.mode.clamp(self.low, self.high)

    def entropy(self) -> Tensor:
        """The entropy E[−log p(z)] in nats, by quadrature over the quantile function."""
        between = self._interval
        value = between.average(lambda z: -between.density(z))
        return (value + between.log_mass).to(self.low.dtype)

    def _unless_infinite(self, name: str, value: Tensor, between: Interval) -> Tensor:
        """``value``, or that of the base where it is not finite and the base's tail is kept."""
        value = value.to(self.low.dtype)
        try:
            of_base: Tensor = getattr(self.base, name).detach()
        except NotImplementedError:
            return value
        unbounded = (
            torch.isinf(self.low) & between.least.isinf() | torch.isinf(self.high) & between.most.isinf()
        )
        # logical_not, since ~ of a fake tensor on CUDA needs a build with CUDA
        infinite = (of_base.abs() < math.inf).logical_not()
        return torch.where(unbounded & infinite, of_base.to(value.dtype), value)

    def rsample(self, sample_shape: _size = (), generator: torch.Generator | None = None) -> Tensor:
        """Draw z = F⁻¹(F(a) + u (F(b) − F(a))): differentiable in all parameters. Shape sample + batch."""
        shape = self._extended_shape(sample_shape)
        u = open_uniform(shape, dtype=torch.float64, device=self.low.device, generator=generator)
        return self._quantile(u)

    def sample(self, sample_shape: _size = (), generator: torch.Generator | None = None) -> Tensor:
        """Draw from the distribution, without gradients. Shape sample + batch."""
        with torch.no_grad():
            return self.rsample(sample_shape, generator=generator)

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile function at probabilities in [0, 1]."""
        if self._validate_args:
            check_probability(value)
        value = in_dtype_of(self.low, value)
        return self._quantile(value).to(value.dtype)

    def _quantile(self, u: Tensor) -> Tensor:
        u = u.double()
        between = self._interval
        inside = (u > 0) & (u < 1) | u.isnan()
        safe = torch.where(inside, u, 0.5)
        z = between.quantile(safe.log(), torch.log1p(-safe))
        least, most = between.inner(self.low.dtype)
        infinite = z.detach().isinf()
        if any_true(infinite):  # a slope of ∞ times 0 would be NaN in the parameters
            low_level = torch.where(z > 0, torch.full_like(u, 1e-300), 1 - 2.0**-53)
            safe = torch.where(infinite, low_level, safe)
            z = torch.where(infinite, z.detach(), between.quantile(safe.log(), torch.log1p(-safe)))
        # Rounding may lead just outside, where the end has the gradient; what overflows is the largest number.
        low, high = between.least.to(self.low), between.most.to(self.low)
        z = z.to(self.low.dtype).clamp(low, high).clamp(least, most)
        ends = torch.where(u > 0, between.most, between.least).to(z.dtype)
        return torch.where(inside, z, ends)

    def _checked(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return in_dtype_of(self.low, value)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density at ``value``, in nats: log p(x) − log(F(b) − F(a))."""
        value = self._checked(value)
        between = self._interval

        def log_density(x: Tensor) -> Tensor:
            wide = torch.minimum(torch.maximum(x.double(), between.least), between.most)
            return (between.log_density(wide) - between.log_mass).to(x.dtype)

        return zero_outside(self, value, between.somewhere.to(value.dtype), log_density, math.inf)

    def log_cdf(self, value: Tensor) -> Tensor:
        """The log of the CDF, (F(x) − F(a)) / (F(b) − F(a))."""
        value = self._checked(value)
        between = self._interval
        return between.part(value.double(), below=True).to(value.dtype)

    def log_survival(self, value: Tensor) -> Tensor:
        """The log of the upper tail, (F(b) − F(x)) / (F(b) − F(a))."""
        value = self._checked(value)
        between = self._interval
        return between.part(value.double(), below=False).to(value.dtype)

    def cdf(self, value: Tensor) -> Tensor:
        """The CDF, (F(x) − F(a)) / (F(b) − F(a))."""
        return self.log_cdf(value).exp()

    def survival(self, value: Tensor) -> Tensor:
        """The upper tail; next to the upper end, or in a narrow interval, a difference with an error near 1e-16."""
        return self.log_survival(value).exp()


def _median_of(base: Any) -> Tensor:
    """The median, which shows the dtype of ``base`` and that it has a quantile function."""
    try:
        half = next(iter(tensors_of(base)), torch.empty(())).new_full((), 0.5)  # on the base's device
        median: Tensor = base.icdf(half)
        tails_of(with_tensors(base, Tensor.double)).log_cdf(median.double())
    except NotImplementedError:
        raise NotImplementedError(
            f"base must have cdf and icdf, which {type(base).__name__} lacks; for such a density draw from the base "
            "and keep the draws inside, or write a distribution of your own for vaetut.reparameterize"
        ) from None
    if median.dtype not in FLOATS:
        raise TypeError(f"base must have parameters of dtype float32 or float64, got {median.dtype}")
    return median


def _kl_truncated(p: Truncated, q: Distribution) -> Tensor:
    """∫ p log(p/q), by quadrature over the quantile function of p; ∞ where q has no mass on a part of its interval."""
    between = p._interval
    wide = with_tensors(q, Tensor.double)
    low, high = support_ends(wide)
    within = (low <= between.least) & (between.most <= high)
    shape = torch.broadcast_shapes(p.batch_shape, q.batch_shape)

    def log_ratio(z: Tensor) -> Tensor:
        inside = torch.minimum(torch.maximum(z, low), high)
        return between.density(z) - torch.where(within, wide.log_prob(inside), 0.0)

    value = between.average(log_ratio, shape) - between.log_mass
    return torch.where(within, value, math.inf).to(p.low.dtype)


for _q in (
    Truncated,
    Cauchy,
    Exponential,
    Gamma,
    Gumbel,
    HalfNormal,
    Logistic,
    LogNormal,
    Normal,
    StudentT,
    Weibull,
):
    register_kl(Truncated, _q)(_kl_truncated)
