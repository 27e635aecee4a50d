r"""Entropy, cross entropy and KL divergence of `torch.distributions` objects, exactly and by Monte Carlo.

Chapter 3, *Entropy, cross entropy, KL*. All values are in nats and have the batch shape of their arguments.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Independent,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    register_kl,
)
from torch.distributions import kl_divergence as torch_kl_divergence
from torch.distributions.utils import _sum_rightmost as sum_rightmost

from vaetut._support.validate import positive_int


class Estimate(NamedTuple):
    """A Monte Carlo estimate: ``value``, and the ``standard_error`` of that value (NaN for a single sample)."""

    value: Tensor
    standard_error: Tensor


def entropy(q: Distribution) -> Tensor:
    r"""Entropy $H(q) = -\mathbb E_{q(z)}[\log q(z)]$ (``eq-entropy``).

    Args:
        q: a distribution with a closed-form entropy.

    Returns:
        Nats, shape ``q.batch_shape``. For a density it may be negative.

    Raises:
        NotImplementedError: if torch knows no closed form for ``q``; `monte_carlo_entropy` always works.

    Example:
        >>> from torch.distributions import Normal
        >>> entropy(Normal(torch.tensor(0.0), torch.tensor(1.0)))
        tensor(1.4189)
    """
    _check_distribution(q, "q")
    try:
        return q.entropy()
    except NotImplementedError:
        raise NotImplementedError(
            f"no closed form for the entropy of {_name(q)}; estimate it with monte_carlo_entropy(q, num_samples)"
        ) from None


def kl_divergence(q: Distribution, p: Distribution) -> Tensor:
    r"""KL divergence $D_{\mathrm{KL}}(q \,\|\, p) = \mathbb E_{q(z)}[\log q(z) - \log p(z)]$ (``eq-kl``).

    Never negative, and zero only where the two agree almost everywhere. Torch's registered pairs, and also
    ``Independent(Normal)`` against ``MultivariateNormal`` in both orders. For a diagonal Gaussian against the
    standard normal this is AEVB, appendix B (``eq-kl-standard-normal``).

    Args:
        q: the distribution that the expectation is taken under.
        p: a distribution over the same events.

    Returns:
        Nats; the shape is the broadcast of both batch shapes.

    Raises:
        NotImplementedError: if there is no closed form for the pair; `monte_carlo_kl` always works.
        ValueError: if the event shapes differ or the batch shapes do not broadcast.

    Example:
        >>> from torch.distributions import Normal
        >>> q, p = Normal(torch.tensor(1.0), torch.tensor(0.5)), Normal(torch.tensor(0.0), torch.tensor(1.0))
        >>> kl_divergence(q, p), kl_divergence(p, q)
        (tensor(0.8181), tensor(2.8069))
    """
    _check_pair(q, p)
    direct = _kl_of_normals(q, p)
    if direct is not None:
        return direct
    try:
        return torch_kl_divergence(q, p)
    except NotImplementedError:
        raise NotImplementedError(
            f"no closed form for the KL divergence of {_name(q)} from {_name(p)}; "
            "estimate it with monte_carlo_kl(q, p, num_samples)"
        ) from None


def cross_entropy(q: Distribution, p: Distribution) -> Tensor:
    r"""Cross entropy $H(q, p) = -\mathbb E_{q(z)}[\log p(z)]$ (``eq-cross-entropy``).

    Straight from its definition for pairs of Gaussians (diagonal or full), categorical and Bernoulli
    distributions; for every other pair as $H(q) + D_{\mathrm{KL}}(q \,\|\, p)$ (``eq-cross-entropy-split``).

    Args:
        q: the distribution that the expectation is taken under.
        p: a distribution over the same events, whose log-probability is averaged.

    Returns:
        Nats; the shape is the broadcast of both batch shapes; ``inf`` where q puts mass on what p calls impossible.

    Raises:
        NotImplementedError: if there is no closed form for the pair; `monte_carlo_cross_entropy` always works.
        ValueError: if the event shapes differ or the batch shapes do not broadcast.

    Example:
        >>> from torch.distributions import Normal
        >>> q, p = Normal(torch.tensor(1.0), torch.tensor(0.5)), Normal(torch.tensor(0.0), torch.tensor(1.0))
        >>> cross_entropy(q, p), entropy(q) + kl_divergence(q, p)
        (tensor(1.5439), tensor(1.5439))
    """
    _check_pair(q, p)
    direct = _cross_entropy_by_definition(q, p)
    if direct is not None:
        return direct
    try:
        return entropy(q) + kl_divergence(q, p)
    except NotImplementedError:
        raise NotImplementedError(
            f"no closed form for the cross entropy of {_name(q)} and {_name(p)}; "
            "estimate it with monte_carlo_cross_entropy(q, p, num_samples)"
        ) from None


def monte_carlo(f: Callable[[Tensor], Tensor], q: Distribution, num_samples: int) -> Estimate:
    r"""Monte Carlo estimate of $\mathbb E_{q(z)}[f(z)] \approx \frac1L \sum_l f(z^{(l)})$, $z^{(l)} \sim q$
    (``eq-monte-carlo``), with its standard error $\sqrt{\mathrm{Var}[f]/L}$ (``eq-standard-error``).

    Uses ``q.rsample`` where q has it, so that the value can be differentiated in q's parameters; where q has only
    ``sample``, a gradient in q's parameters would lack a term.

    Args:
        f: maps samples ``[num_samples, *q.batch_shape, *q.event_shape]`` to one value (of any shape) per sample.
        q: the distribution to sample.
        num_samples: L, at least 1; with 1 the standard error is NaN.

    Returns:
        `Estimate` of the shape that f gives to one sample.

    Raises:
        ValueError: if ``num_samples < 1`` or f does not return one value per sample.

    Example:
        >>> from torch.distributions import Normal
        >>> _ = torch.manual_seed(0)
        >>> estimate = monte_carlo(torch.square, Normal(torch.tensor(0.0), torch.tensor(2.0)), 100_000)
        >>> bool((estimate.value - 4).abs() < 5 * estimate.standard_error)
        True
    """
    _check_distribution(q, "q")
    positive_int(num_samples, "num_samples")
    z = q.rsample((num_samples,)) if q.has_rsample else q.sample((num_samples,))
    values = f(z)
    if not isinstance(values, Tensor):
        raise TypeError(f"f must return a torch.Tensor, got {type(values).__name__}")
    if values.shape[:1] != (num_samples,):
        raise ValueError(
            f"f must return one value per sample, a shape that begins with num_samples = {num_samples}; "
            f"got {tuple(values.shape)} for samples of shape {tuple(z.shape)}"
        )
    if not values.is_floating_point():  # an indicator, say
        values = values.to(z.dtype if z.is_floating_point() else torch.get_default_dtype())
    mean = values.mean(0)
    if num_samples == 1:
        return Estimate(mean, torch.full_like(mean, float("nan")))
    return Estimate(mean, values.detach().std(0) / num_samples**0.5)


def monte_carlo_entropy(q: Distribution, num_samples: int) -> Estimate:
    r"""Monte Carlo estimate of the entropy, $-\frac1L \sum_l \log q(z^{(l)})$ with $z^{(l)} \sim q$.

    Shapes, units and errors as `monte_carlo`; any q with ``sample`` and ``log_prob`` will do.

    Example:
        >>> from torch.distributions import Normal
        >>> _ = torch.manual_seed(0)
        >>> value, error = monte_carlo_entropy(Normal(torch.tensor(0.0), torch.tensor(1.0)), 100_000)
        >>> bool((value - 1.4189).abs() < 5 * error)
        True
    """
    return monte_carlo(lambda z: -q.log_prob(z), q, num_samples)


def monte_carlo_cross_entropy(q: Distribution, p: Distribution, num_samples: int) -> Estimate:
    r"""Monte Carlo estimate of the cross entropy, $-\frac1L \sum_l \log p(z^{(l)})$ with $z^{(l)} \sim q$.

    Shapes, units and errors as `monte_carlo`; p must be defined wherever q puts mass.

    Example:
        >>> from torch.distributions import Laplace, Normal
        >>> _ = torch.manual_seed(0)
        >>> q, p = Normal(torch.tensor(0.0), torch.tensor(1.0)), Laplace(torch.tensor(0.0), torch.tensor(1.0))
        >>> value, error = monte_carlo_cross_entropy(q, p, 100_000)
        >>> bool((value - 1.4910).abs() < 5 * error)   # log 2 + E|z|
        True
    """
    _check_pair(q, p)
    return monte_carlo(lambda z: -p.log_prob(z), q, num_samples)


def monte_carlo_kl(q: Distribution, p: Distribution, num_samples: int) -> Estimate:
    r"""Monte Carlo estimate of $D_{\mathrm{KL}}(q \,\|\, p)$: $\frac1L \sum_l \log q(z^{(l)}) - \log p(z^{(l)})$
    with $z^{(l)} \sim q$ (``eq-kl-monte-carlo``).

    A single estimate can be negative, although the divergence cannot. Shapes, units and errors as `monte_carlo`.

    Example:
        >>> from torch.distributions import Normal
        >>> _ = torch.manual_seed(0)
        >>> q, p = Normal(torch.tensor(1.0), torch.tensor(0.5)), Normal(torch.tensor(0.0), torch.tensor(1.0))
        >>> value, error = monte_carlo_kl(q, p, 100_000)
        >>> bool((value - 0.8181).abs() < 5 * error)
        True
    """
    _check_pair(q, p)
    return monte_carlo(lambda z: q.log_prob(z) - p.log_prob(z), q, num_samples)


def _kl_of_normals(q: Distribution, p: Distribution) -> Tensor | None:
    """The divergence of two diagonal Gaussians, None for other pairs. Torch has it as well.

    But each step of training takes it: here it costs half of torch's, which looks the pair up twice, and
    torch.compile can trace it.
    """
    if type(q) is Independent and type(p) is Independent:
        dims = q.reinterpreted_batch_ndims
        inner = _kl_of_normals(q.base_dist, p.base_dist) if dims == p.reinterpreted_batch_ndims else None
        return None if inner is None else sum_rightmost(inner, dims)
    if type(q) is not Normal or type(p) is not Normal:
        return None
    ratio = q.scale / p.scale
    distance = (q.loc - p.loc) / p.scale
    return 0.5 * (ratio * ratio + distance * distance - 1) - ratio.log()


def _cross_entropy_by_definition(q: Distribution, p: Distribution) -> Tensor | None:
    """-E_q[log p] for the pairs that need no detour over KL; None for the others."""
    if isinstance(q, Normal) and isinstance(p, Normal):
        # E_q[(z - m_p)^2] = (m_q - m_p)^2 + s_q^2
        return -p.log_prob(q.loc) + 0.5 * (q.scale / p.scale).square()
    if isinstance(q, Bernoulli) and isinstance(p, Bernoulli):
        return -(
            _expected(q.probs, p.log_prob(torch.ones_like(p.probs)), p.probs)
            + _expected(1 - q.probs, p.log_prob(torch.zeros_like(p.probs)), 1 - p.probs)
        )
    if isinstance(q, Categorical) and isinstance(p, Categorical):
        return -_expected(q.probs, p.logits, p.probs).sum(-1)
    if isinstance(q, OneHotCategorical) and isinstance(p, OneHotCategorical):
        return -_expected(q.probs, p.logits, p.probs).sum(-1)
    if isinstance(q, Independent) and isinstance(p, Independent):
        dims = q.reinterpreted_batch_ndims
        if dims == p.reinterpreted_batch_ndims:
            inner = _cross_entropy_by_definition(q.base_dist, p.base_dist)
            if inner is not None:
                # a base whose event broadcasts against the other's still counts once per event element
                inner = inner.expand(torch.broadcast_shapes(q.base_dist.batch_shape, p.base_dist.batch_shape))
                return sum_rightmost(inner, dims)
        return None
    full_q, full_p = _as_multivariate_normal(q), _as_multivariate_normal(p)
    if full_q is not None and full_p is not None:
        # E_q[(z - m_p)' P (z - m_p)] = (m_q - m_p)' P (m_q - m_p) + tr(P S_q);  P = (A A')^-1, S_q = B B'
        a, b = torch.broadcast_tensors(full_p.scale_tril, full_q.scale_tril)
        trace = torch.linalg.solve_triangular(a, b, upper=False).square().sum((-2, -1))
        return -full_p.log_prob(full_q.loc) + 0.5 * trace
    return None


def _expected(weight: Tensor, log_p: Tensor, p: Tensor) -> Tensor:
    """weight * log p, with 0 log 0 = 0 and -inf where p is 0 (torch clamps the logits of a zero probability)."""
    weight, log_p, p = torch.broadcast_tensors(weight, log_p, p)
    exact = torch.where(p == 0, torch.full_like(log_p, -torch.inf), log_p)
    return torch.where(weight == 0, torch.zeros_like(weight), weight * torch.where(weight == 0, 0.0, exact))


def _as_multivariate_normal(q: Distribution) -> MultivariateNormal | None:
    """``q`` with a full covariance: itself, or an Independent(Normal) over one dimension; None for the others."""
    if isinstance(q, MultivariateNormal):
        return q
    if isinstance(q, Independent) and isinstance(q.base_dist, Normal) and q.reinterpreted_batch_ndims == 1:
        return MultivariateNormal(q.base_dist.loc, scale_tril=torch.diag_embed(q.base_dist.scale))
    return None


@register_kl(Independent, MultivariateNormal)
@register_kl(MultivariateNormal, Independent)
def _kl_diagonal_and_full_gaussian(q: Distribution, p: Distribution) -> Tensor:
    full_q, full_p = _as_multivariate_normal(q), _as_multivariate_normal(p)
    if full_q is None or full_p is None:
        raise NotImplementedError
    return torch_kl_divergence(full_q, full_p)


def _check_distribution(q: object, name: str) -> None:
    if not isinstance(q, Distribution):
        raise TypeError(f"{name} must be a torch.distributions.Distribution, got {type(q).__name__}")


def _check_pair(q: Distribution, p: Distribution) -> None:
    _check_distribution(q, "q")
    _check_distribution(p, "p")
    if q.event_shape != p.event_shape:
        raise ValueError(
            f"q and p must have the same event_shape, got {tuple(q.event_shape)} and {tuple(p.event_shape)}"
        )
    if not q.batch_shape or not p.batch_shape or q.batch_shape == p.batch_shape:
        return  # as each step of training has it; torch.broadcast_shapes takes longer than the divergence
    try:
        torch.broadcast_shapes(q.batch_shape, p.batch_shape)
    except RuntimeError:
        raise ValueError(
            f"the batch shapes of q and p must broadcast, got {tuple(q.batch_shape)} and {tuple(p.batch_shape)}"
        ) from None


def _name(q: Distribution) -> str:
    """``Normal``, or ``Independent(Normal)``: enough to say which closed form is missing."""
    base = getattr(q, "base_dist", None)
    return type(q).__name__ if base is None else f"{type(q).__name__}({_name(base)})"
