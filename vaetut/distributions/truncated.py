"""Truncation of any univariate distribution to an interval (chapter 7, *Inverse CDF*)."""

import copy
import math
from collections.abc import Callable
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
    Independent,
    LogNormal,
    Normal,
    StudentT,
    TransformedDistribution,
    Weibull,
    constraints,
    register_kl,
)
from torch.distributions.transforms import Transform
from torch.types import _size

from vaetut._support.validate import any_true
from vaetut.distributions._base import (
    FLOATS,
    ONLY_FLOATS,
    as_number,
    broadcast_shapes,
    check_probability,
    in_dtype_of,
    zero_outside,
)
from vaetut.distributions._special import log1mexp, open_uniform
from vaetut.distributions._tails import Tails, ends_of, knows_far_tails, tails_of
from vaetut.distributions.logistic import Logistic

LEAST_MASS = math.log(
    1e-8
)  # of an upper tail that is computed as 1 − F(x): about eight digits of it are left
FARTHEST = -1e11  # the log of the least mass: numbers of that size have a spacing of 1.5e-5 in float64


class Truncated(Distribution):
    r"""A univariate distribution ``base``, conditioned on a value in [low, high].

    With $F$ the CDF of the base, the density is $p(x) / (F(b) - F(a))$ on $[a, b]$, and a draw is
    $z = F^{-1}(F(a) + u (F(b) - F(a)))$. It is computed in float64, in logs of the nearer tail, so that the interval
    may lie 30 standard deviations from the mean on either side, in float32 too.

    Draws, densities and quantiles are differentiable in the base's parameters and in both ends.

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
        if not isinstance(base, Distribution):
            raise TypeError(f"base must be a torch.distributions.Distribution, got {type(base).__name__}")
        if base.event_shape:
            raise ValueError(f"base must be univariate, got one of event shape {list(base.event_shape)}")
        if _is_discrete(base):
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
        between = _Interval(self)
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
        between = _Interval(self)
        return constraints.interval(between.least.to(self.low), between.most.to(self.low))

    @property
    def mean(self) -> Tensor:
        """The mean, by quadrature over the quantile function. The base's mean if a tail without one is kept."""
        return self._moment("mean", lambda z, x: z)

    @property
    def variance(self) -> Tensor:
        """The variance, by the same quadrature about the mean."""
        return self._moment("variance", lambda z, mean: (z - mean).square())

    @property
    def mode(self) -> Tensor:
        """The mode of the base, or the end nearest to it: the base must have a single peak."""
        return self.base.mode.clamp(self.low, self.high)

    def entropy(self) -> Tensor:
        """The entropy E[−log p(z)] in nats, by quadrature over the quantile function."""
        between = _Interval(self)
        value = between.average(lambda z: -between.wide.log_prob(z))
        return (value + between.log_mass).to(self.low.dtype)

    def _moment(self, name: str, f: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        between = _Interval(self)
        mean = between.average(lambda z: z)
        value = (mean if name == "mean" else between.average(lambda z: f(z, mean))).to(self.low.dtype)
        unbounded = torch.isinf(self.low) & between.least.isinf()
        unbounded = unbounded | (torch.isinf(self.high) & between.most.isinf())
        try:
            of_base: Tensor = getattr(self.base, name).detach()
        except NotImplementedError:
            return value
        return torch.where(
            unbounded & (of_base.abs() < math.inf).logical_not(), of_base.to(value.dtype), value
        )

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
        return self._quantile(in_dtype_of(self.low, value)).to(in_dtype_of(self.low, value).dtype)

    def _quantile(self, u: Tensor) -> Tensor:
        u = u.double()
        between = _Interval(self)
        inside = (u > 0) & (u < 1) | u.isnan()
        safe = torch.where(inside, u, 0.5)
        z = between.quantile(safe.log(), torch.log1p(-safe))
        z = torch.where(inside, z, torch.where(u > 0, between.most, between.least))
        low, high = between.least.to(self.low), between.most.to(self.low)
        return z.to(self.low.dtype).clamp(low, high)  # rounding may lead just outside

    def _checked(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return in_dtype_of(self.low, value)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density at ``value``, in nats: log p(x) − log(F(b) − F(a))."""
        value = self._checked(value)
        between = _Interval(self)

        def log_density(x: Tensor) -> Tensor:
            wide = torch.minimum(torch.maximum(x.double(), between.least), between.most)
            return (between.wide.log_prob(wide) - between.log_mass).to(x.dtype)

        return zero_outside(self, value, between.somewhere.to(value.dtype), log_density, math.inf)

    def log_cdf(self, value: Tensor) -> Tensor:
        """The log of the CDF, (F(x) − F(a)) / (F(b) − F(a))."""
        value = self._checked(value)
        between = _Interval(self)
        return between.part(value.double(), below=True).to(value.dtype)

    def log_survival(self, value: Tensor) -> Tensor:
        """The log of the upper tail, (F(b) − F(x)) / (F(b) − F(a))."""
        value = self._checked(value)
        between = _Interval(self)
        return between.part(value.double(), below=False).to(value.dtype)

    def cdf(self, value: Tensor) -> Tensor:
        """The CDF, (F(x) − F(a)) / (F(b) − F(a))."""
        return self.log_cdf(value).exp()

    def survival(self, value: Tensor) -> Tensor:
        """The upper tail, to full relative precision."""
        return self.log_survival(value).exp()


class _Interval:
    """Quantities of a `Truncated` that follow from base and ends, in float64."""

    def __init__(self, q: Truncated) -> None:
        self.wide: Any = as_double(q.base)
        low, high = q.low.double(), q.high.double()
        self.tails: Tails = tails_of(self.wide)
        with torch.no_grad():
            self.median = self.wide.icdf(torch.full_like(low, 0.5))
        start, stop = ends_of(self.wide, low.device)  # which may move, as that of a uniform base does
        with torch.no_grad():
            # An end truncates only if it is finite and inside of the base's support.
            cuts_low, cuts_high = low > start, high < stop
            self.above = cuts_low & (low > self.median)  # the interval is in the upper tail
        self.cuts = cuts_low, cuts_high
        # Values and gradients at an end that does not truncate may be infinite: the median replaces it.
        self.low, self.high = (
            torch.where(cut, end, self.median) for cut, end in zip(self.cuts, (low, high), strict=True)
        )
        self.least = torch.where(cuts_low, low, start)
        self.most = torch.where(cuts_high, high, stop)
        self.to_low = self._masked(self.tails.log_cdf(self.low), cuts_low, -math.inf)
        self.from_low = self._masked(self.tails.log_survival(self.low), cuts_low, 0.0)
        self.to_high = self._masked(self.tails.log_cdf(self.high), cuts_high, 0.0)
        self.from_high = self._masked(self.tails.log_survival(self.high), cuts_high, -math.inf)
        self.log_mass = _log_difference(self.to_low, self.from_low, self.to_high, self.from_high)

    @staticmethod
    def _masked(value: Tensor, cut: Tensor, otherwise: float) -> Tensor:
        return torch.where(cut, value, otherwise)

    @property
    def somewhere(self) -> Tensor:
        """A point inside."""
        with torch.no_grad():
            level = torch.full_like(self.log_mass, -math.log(2))
            return self.quantile(level, level)

    def quantile(self, log_u: Tensor, log_rest: Tensor) -> Tensor:
        """The quantile of u, from log u and log(1 − u): the inverse of the nearer tail of the base."""
        below = _log_sum(self.to_low, log_u + self.log_mass)
        above = _log_sum(self.from_high, log_rest + self.log_mass)
        near = below < above
        # Each inverse gets a harmless value where the other is chosen.
        lower = self.tails.lower(torch.where(near, below, -1.0))
        upper = self.tails.upper(torch.where(near, -1.0, above))
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
        at both ends (Takahasi and Mori 1974). For a large batch some nodes are computed at a time.
        """
        with torch.no_grad():
            try:
                peak = self.wide.mode
            except NotImplementedError:
                peak = self.median
            peak = torch.where(peak.abs() < math.inf, peak, self.median)
            log_left, log_right = self.part(peak, below=True), self.part(peak, below=False)
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
                z = torch.minimum(torch.maximum(z, self.least), self.most)
                value = f(z)
                part = weight * size.exp()
                # An infinite value next to an end, such as log p, counts as 0: its weight is negligible.
                counts = (part > 1e-8) | (part > 0) & (value.abs() < math.inf)
                total = total + torch.where(counts, part * torch.where(counts, value, 0.0), 0.0).sum(0)
        return total


NODES = 105
PART = 1 << 18  # numbers in each tensor of a part of the nodes: 2 MB


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


def as_double(q: Any, seen: dict[int, Any] | None = None) -> Any:
    """A copy of q, its transforms included, whose tensors are float64 and which validates nothing."""
    seen = {} if seen is None else seen
    if id(q) in seen:
        return seen[id(q)]
    new = seen[id(q)] = copy.copy(q)
    for name, value in vars(q).items():
        new.__dict__[name] = _double(value, seen)
    if isinstance(q, Distribution):
        new._validate_args = False
    elif not isinstance(new._inv, Transform):
        new._inv = None  # a reference to the inverse of the transform that was copied
    return new


def _double(value: Any, seen: dict[int, Any]) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, Distribution | Transform):
        return as_double(value, seen)
    if type(value) in (list, tuple):
        return type(value)(_double(v, seen) for v in value)
    return value


def _is_discrete(q: Any) -> bool:
    if isinstance(q, Independent | TransformedDistribution):
        return _is_discrete(q.base_dist)
    try:
        return bool(q.support.is_discrete)
    except NotImplementedError:
        return False


def _median_of(base: Any) -> Tensor:
    """The median, which shows the dtype of ``base`` and that it has a quantile function."""
    try:
        median: Tensor = base.icdf(torch.tensor(0.5))
        base.cdf(median)
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
    between = _Interval(p)
    wide = as_double(q)
    low, high = ends_of(wide, p.low.device)
    within = (low <= between.least) & (between.most <= high)
    shape = torch.broadcast_shapes(p.batch_shape, q.batch_shape)

    def log_ratio(z: Tensor) -> Tensor:
        inside = torch.minimum(torch.maximum(z, low), high)
        return between.wide.log_prob(z) - torch.where(within, wide.log_prob(inside), 0.0)

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
