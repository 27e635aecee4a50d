r"""The mean and variance of a gradient estimator, estimated from draws.

Chapter 4, *Gradients of expectations*. An estimator returns surrogates, and automatic differentiation gives the
gradient of their *sum*. To get the gradient of every single draw without a loop, every draw gets its own copy
of the parameters. One backward pass then returns a batch of gradients.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaetut._support.validate import function, positive_int

# How many numbers the draws or the parameters of one chunk may hold: 2 MB in float64, which fits in a
# processor's cache. The memory that f needs for its own computation is not counted.
_CHUNK_ELEMENTS = 2**18


class GradientStatistics(NamedTuple):
    """Moments of a gradient estimator in one parameter; each field has the shape of the parameter (chapter 4).

    ``mean`` with its ``standard_error``; ``variance`` per single draw with ``variance_standard_error``. The units are
    those of f per unit of the parameter, and their square for the variances.

    Example:
        >>> from torch.distributions import Normal
        >>> from vaetut.gradients import pathwise
        >>> params = {"loc": torch.tensor(1.0), "scale": torch.tensor(1.0)}
        >>> gradient_statistics(pathwise, lambda z: 3 * z, Normal, params, 100)["loc"].variance
        tensor(0.)
    """

    mean: Tensor
    variance: Tensor
    standard_error: Tensor
    variance_standard_error: Tensor


def gradient_statistics(
    estimator: Callable[..., Tensor],
    f: Callable[[Tensor], Tensor],
    family: Callable[..., Distribution],
    params: Mapping[str, Any],
    num_samples: int,
    *,
    samples_per_estimate: int = 1,
    **options: Any,
) -> dict[str, GradientStatistics]:
    r"""Measure the mean and the variance of a gradient estimator, with the standard errors of both.

    The draws are made in chunks, and only their moments are kept, so memory does not grow with their number. The
    variance is the unbiased one, and its standard error is $\sqrt{(\hat\mu_4 - \frac{n - 3}{n - 1} \hat\sigma^4) / n}$,
    with $\hat\mu_4$ the fourth central moment of $n$ estimates (``eq-grad-variance-error``). If the estimator has no
    finite fourth moment, that standard error is meaningless.

    Args:
        estimator: `score_function`, `pathwise`, `measure_valued`, or any function ``(f, q, num_samples, **options)``
            that returns surrogates ``[num_samples, *q.batch_shape]``.
        f: maps ``z [..., *batch, *event]`` to one value each, ``[..., *batch]``, with *two* dimensions in front of the
            batch: draws of one estimate, and estimates.
        family: a class of distributions, or any function of the parameters that returns a distribution, such as
            ``lambda loc, scale: Independent(Normal(loc, scale), 1)``.
        params: ``{keyword: value}`` for ``family``. The gradient is taken in each floating-point tensor; all other
            values are constants.
        num_samples: the total number of draws, a multiple of ``samples_per_estimate``.
        samples_per_estimate: how many draws are averaged in one estimate. Use more than 1 for an estimator whose
            draws depend on each other, such as `score_function` with a baseline.
        **options: passed on to the estimator.

    Returns:
        A `GradientStatistics` for each floating-point tensor in ``params``. If q has a batch shape, the gradient is
        that of the sum over the batch. The variance is that of an estimate times ``samples_per_estimate``, so that
        it can be compared with that of single draws.

    Raises:
        TypeError: if ``estimator``, ``f`` or ``family`` is not a function, if ``params`` is not a mapping, if
            ``family`` returns no distribution or the estimator no tensor, or if a number of draws is not an int.
        ValueError: if ``params`` has no floating-point tensor, if ``num_samples`` is not a multiple of
            ``samples_per_estimate`` or gives fewer than two estimates, if the surrogates have the wrong shape, or
            if the parameters cannot be batched; and the errors of the estimator.

    Source:
        Chan, Golub & LeVeque (1983), doi:10.1080/00031305.1983.10483115, and Pébay (2008), doi:10.2172/1028931, for
        merging moments; chapter 4.

    Example:
        >>> from torch.distributions import Normal
        >>> from vaetut.gradients import pathwise, score_function
        >>> _ = torch.manual_seed(0)
        >>> params = {"loc": torch.tensor(1.0), "scale": torch.tensor(1.0)}
        >>> for estimator in (score_function, pathwise):   # of the gradient of E[z²], 2 and 2
        ...     loc = gradient_statistics(estimator, torch.square, Normal, params, 100_000)["loc"]
        ...     print(f"mean {loc.mean:.1f}, variance {loc.variance:.0f}")
        mean 2.0, variance 30
        mean 2.0, variance 4
    """
    for name, given in (("estimator", estimator), ("f", f), ("family", family)):
        function(given, name)
    positive_int(num_samples, "num_samples")
    positive_int(samples_per_estimate, "samples_per_estimate")
    estimates, rest = divmod(num_samples, samples_per_estimate)
    if rest or estimates < 2:
        raise ValueError(
            f"num_samples must be a multiple of samples_per_estimate, and at least twice as many, "
            f"got {num_samples} and {samples_per_estimate}"
        )
    batch = _Batch(family, params)
    chunk = max(1, min(estimates, _CHUNK_ELEMENTS // (samples_per_estimate * batch.elements)))
    moments: dict[str, _Moments | None] = dict.fromkeys(batch.tensors)
    for start in range(0, estimates, chunk):
        count = min(chunk, estimates - start)
        leaves, q = batch.copies(count)
        surrogate = estimator(f, q, samples_per_estimate, **options)
        if not isinstance(surrogate, Tensor):
            raise TypeError(f"estimator must return a torch.Tensor, got {type(surrogate).__name__}")
        if surrogate.shape != (samples_per_estimate, *q.batch_shape):
            raise ValueError(
                f"estimator must return surrogates of shape {(samples_per_estimate, *q.batch_shape)}, "
                f"got {tuple(surrogate.shape)}"
            )
        total = surrogate.mean(0).sum()
        gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True):
            new = _moments(torch.zeros_like(leaf) if gradient is None else gradient)
            moments[name] = _merge(moments[name], new)
    return {
        name: _statistics(found, samples_per_estimate, batch.tensors[name].dtype)
        for name, found in moments.items()
        if found is not None
    }


class _Batch:
    """A distribution, with any number of copies of its parameters."""

    def __init__(self, family: Callable[..., Distribution], params: Mapping[str, Any]) -> None:
        if not isinstance(params, Mapping):
            raise TypeError(f"params must be a mapping from keywords to values, got {type(params).__name__}")
        self.family, self.constants = family, dict(params)
        self.tensors = {
            name: self.constants.pop(name).detach()
            for name, value in params.items()
            if isinstance(value, Tensor) and value.is_floating_point()
        }
        if not self.tensors:
            raise ValueError(
                "params must hold a floating-point tensor to take the gradient in, such as "
                f"{{'loc': torch.tensor(0.0)}}, got {dict(params)}"
            )
        one = family(**self.tensors, **self.constants)  # checks the values
        if not isinstance(one, Distribution):
            raise TypeError(f"family must return a Distribution, got {type(one).__name__}")
        if isinstance(family, type) and "validate_args" in inspect.signature(family).parameters:
            self.constants.setdefault("validate_args", False)  # once is enough
        draw, parameters = one.batch_shape.numel() * one.event_shape.numel(), self.tensors.values()
        self.elements = max(1, draw, sum(t.numel() for t in parameters))
        self.depth = self._align(one)

    def copies(self, count: int) -> tuple[dict[str, Tensor], Distribution]:
        """Leaves ``[count, …]`` to differentiate in, and the distribution of batch shape ``[count, *batch]``."""
        leaves = {
            name: t.expand(count, *t.shape).clone().requires_grad_() for name, t in self.tensors.items()
        }
        padded = {
            name: leaf.reshape(count, *(1 for _ in range(self.depth - leaf.dim() + 1)), *leaf.shape[1:])
            for name, leaf in leaves.items()
        }
        return leaves, self.family(**padded, **self.constants)

    def _align(self, one: Distribution) -> int:
        """The number of dimensions to which parameters are padded, so that the copies come in front of the batch.

        Without padding, a scalar scale beside a vector of means would have its copies where the vector is. If
        parameters have event dimensions, as a covariance matrix has, padding would be wrong. Try both, with a number
        of copies that differs from all sizes.
        """
        count = 2 + max(size for t in self.tensors.values() for size in (*t.shape, 1))
        for depth in (0, max(t.dim() for t in self.tensors.values())):
            self.depth = depth
            try:
                _, q = self.copies(count)
            except (ValueError, RuntimeError):
                continue
            if q.batch_shape == (count, *one.batch_shape) and q.event_shape == one.event_shape:
                return depth
        shapes = {name: tuple(t.shape) for name, t in self.tensors.items()}
        raise ValueError(
            f"params must allow one more dimension in front, got shapes {shapes}: expand all of them to the batch "
            "shape, and let family use the last dimensions only"
        )


class _Moments(NamedTuple):
    """Count, mean, and the sums of the second, third and fourth powers of the deviations from it."""

    n: int
    mean: Tensor
    m2: Tensor
    m3: Tensor
    m4: Tensor


def _moments(x: Tensor) -> _Moments:
    """Moments over the first dimension."""
    x = x if x.device.type == "mps" else x.double()  # sums of fourth powers need float64; mps has none
    mean = x.mean(0)
    d = x - mean
    d2 = d.square()
    return _Moments(len(x), mean, d2.sum(0), (d2 * d).sum(0), d2.square().sum(0))


def _merge(a: _Moments | None, b: _Moments) -> _Moments:
    """The moments of two sets of numbers together, from those of each, without cancellation."""
    if a is None:
        return b
    n, d = a.n + b.n, b.mean - a.mean
    s, t = a.n / n, b.n / n
    m4 = a.m4 + b.m4 + 6 * d**2 * (s**2 * b.m2 + t**2 * a.m2) + 4 * d * (s * b.m3 - t * a.m3)
    return _Moments(
        n,
        a.mean + t * d,
        a.m2 + b.m2 + n * s * t * d**2,
        a.m3 + b.m3 + n * s * t * (s - t) * d**3 + 3 * d * (s * b.m2 - t * a.m2),
        m4 + n * s * t * (s**2 - s * t + t**2) * d**4,
    )


def _statistics(moments: _Moments, scale: int, dtype: torch.dtype) -> GradientStatistics:
    """Unbiased variance and both standard errors, for estimates that are means of ``scale`` draws."""
    n, mean, m2, _, m4 = moments
    variance = m2 / (n - 1)
    of_variance = (m4 / n - (n - 3) / (n - 1) * variance**2).clamp_min(0) / n
    parts = (mean, scale * variance, (variance / n).sqrt(), scale * of_variance.sqrt())
    return GradientStatistics(*(part.to(dtype) for part in parts))
