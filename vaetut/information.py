r"""Entropy, cross entropy and KL divergence of `torch.distributions` objects, exactly and by Monte Carlo.

Chapter 3, *Entropy, cross entropy, KL*. All values are in nats and have the batch shape of their arguments.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Binomial,
    Categorical,
    Distribution,
    ExponentialFamily,
    Geometric,
    Independent,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    TransformedDistribution,
    register_kl,
)
from torch.distributions import kl_divergence as torch_kl_divergence
from torch.distributions.kl import _KL_REGISTRY, _Match
from torch.distributions.utils import _sum_rightmost as sum_rightmost

from vaetut._support.validate import any_true, distribution, function, has_no_values, name_of, positive_int
from vaetut.distributions import Erlang
from vaetut.distributions.closed_forms import divergence_of, entropy_of
from vaetut.distributions.copies import tensors_of
from vaetut.distributions.outcomes import Outcomes, is_exactly, of_two, outcomes_of
from vaetut.distributions.support import support_moves


class Estimate(NamedTuple):
    r"""A Monte Carlo estimate: ``value``, and the ``standard_error`` of that value (NaN for a single sample).

    Both have the same shape and unit. The standard error is $\sqrt{\mathrm{Var}[f] / L}$ (``eq-standard-error``,
    chapter 3), with the variance estimated from the L samples.

    Example:
        >>> value, standard_error = Estimate(torch.tensor(1.2), torch.tensor(0.1))
        >>> value - 2 * standard_error, value + 2 * standard_error   # about 95 % of such intervals hold the expectation
        (tensor(1.), tensor(1.4000))
    """

    value: Tensor
    standard_error: Tensor


def entropy(q: Distribution) -> Tensor:
    r"""Entropy $H(q) = -\mathbb E_{q(z)}[\log q(z)]$ (``eq-entropy``).

    Args:
        q: a distribution with a closed-form entropy.

    Returns:
        Nats, shape ``q.batch_shape``. For a density it may be negative.

    Raises:
        TypeError: if ``q`` is not a distribution.
        NotImplementedError: if there is no closed form for ``q``, or only one that belongs to a base class whose
            ``log_prob`` the class of ``q`` replaces; `monte_carlo_entropy` needs ``sample`` and ``log_prob`` only.

    Example:
        >>> from torch.distributions import Normal
        >>> entropy(Normal(torch.tensor(0.0), torch.tensor(1.0)))
        tensor(1.4189)
    """
    distribution(q, "q")
    owner = next(c for c in type(q).__mro__ if "entropy" in vars(c))
    _check_own_density(q, owner, "entropy", "monte_carlo_entropy(q, num_samples)")
    if is_exactly(q, Independent):
        return sum_rightmost(entropy(q.base_dist), q.reinterpreted_batch_ndims)
    if is_exactly(q, Geometric):
        return _cross_entropy_of_geometrics(q, q)
    outcomes = outcomes_of(q)
    if outcomes is not None:
        return _outcomes(outcomes, outcomes)
    try:
        return entropy_of(q)
    except NotImplementedError:
        raise NotImplementedError(
            f"no closed form for the entropy of {name_of(q)}; estimate it with monte_carlo_entropy(q, num_samples)"
        ) from None


def kl_divergence(q: Distribution, p: Distribution) -> Tensor:
    r"""KL divergence $D_{\mathrm{KL}}(q \,\|\, p) = \mathbb E_{q(z)}[\log q(z) - \log p(z)]$ (``eq-kl``).

    Never negative, and zero only if q and p are equal almost everywhere. It covers torch's registered pairs, those of
    `vaetut.distributions.kl`, and ``Independent(Normal)`` against ``MultivariateNormal`` in both orders. Discrete
    pairs are computed from exact log-probabilities: ``inf`` only where p has probability exactly 0 for an outcome that
    q can draw. For a diagonal Gaussian against the standard normal this is AEVB, appendix B
    (``eq-kl-standard-normal``).

    Args:
        q: the distribution that the expectation is taken under.
        p: a distribution over the same events.

    Returns:
        Nats; the shape is the broadcast of both batch shapes.

    Raises:
        TypeError: if q or p is not a distribution.
        NotImplementedError: if there is no closed form for the pair, as for mixtures, or only one that belongs to a
            base class whose ``log_prob`` is replaced; `monte_carlo_kl` estimates it, with a standard error, from
            ``sample`` and ``log_prob``.
        ValueError: if the event shapes or the numbers of categories differ, or the batch shapes do not broadcast.

    Example:
        >>> from torch.distributions import Normal
        >>> q, p = Normal(torch.tensor(1.0), torch.tensor(0.5)), Normal(torch.tensor(0.0), torch.tensor(1.0))
        >>> kl_divergence(q, p), kl_divergence(p, q)
        (tensor(0.8181), tensor(2.8069))
    """
    _check_pair(q, p)
    direct = _kl_of_normals(q, p)
    if direct is None:
        direct = _kl_by_definition(q, p)
    if direct is not None:
        return direct
    pairs = [
        _Match(*pair)
        for pair in _KL_REGISTRY
        if issubclass(type(q), pair[0]) and issubclass(type(p), pair[1])
    ]
    if pairs:
        for side, owner in zip((q, p), min(pairs).types, strict=True):  # type: ignore[type-var]  # the pair that torch picks
            _check_own_density(side, owner, "KL divergence", "monte_carlo_kl(q, p, num_samples)")
    try:
        return divergence_of(q, p, torch_kl_divergence)
    except NotImplementedError:
        raise NotImplementedError(
            f"no closed form for the KL divergence from {name_of(q)} to {name_of(p)}; "
            "estimate it with monte_carlo_kl(q, p, num_samples), which gives its standard error too"
        ) from None


def cross_entropy(q: Distribution, p: Distribution) -> Tensor:
    r"""Cross entropy $H(q, p) = -\mathbb E_{q(z)}[\log p(z)]$ (``eq-cross-entropy``).

    Computed from the definition for pairs of Gaussians (diagonal or full), categorical, Bernoulli and geometric
    distributions; for every other pair as $H(q) + D_{\mathrm{KL}}(q \,\|\, p)$ (``eq-cross-entropy-split``).

    Args:
        q: the distribution that the expectation is taken under.
        p: a distribution over the same events, whose log-probability is averaged.

    Returns:
        Nats; the shape is the broadcast of both batch shapes; ``inf`` where q puts mass on an outcome whose
        probability under p is exactly 0 (a logit of −∞; a probability that float32 rounds to 0, as with a logit of
        −110, is not zero).

    Raises:
        TypeError, ValueError: as `kl_divergence`.
        NotImplementedError: if there is no closed form for the pair; `monte_carlo_cross_entropy` estimates it
            from ``q.sample`` and ``p.log_prob``.

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
            f"no closed form for the cross entropy of {name_of(q)} and {name_of(p)}; "
            "estimate it with monte_carlo_cross_entropy(q, p, num_samples)"
        ) from None


def monte_carlo(f: Callable[[Tensor], Tensor], q: Distribution, num_samples: int) -> Estimate:
    r"""Monte Carlo estimate of $\mathbb E_{q(z)}[f(z)] \approx \frac1L \sum_l f(z^{(l)})$, $z^{(l)} \sim q$
    (``eq-monte-carlo``), with its standard error $\sqrt{\mathrm{Var}[f]/L}$ (``eq-standard-error``).

    Uses ``q.rsample`` where q has it, so that the value can be differentiated in q's parameters. Where q has only
    ``sample``, as a mixture or a discrete q, the gradient in its parameters has the score-function term
    (``eq-grad-score``) with a leave-one-out baseline (``eq-grad-leave-one-out``): unbiased, but with a far larger
    variance, as each value is multiplied by the score of the whole batch. (With one sample there is no baseline.) If
    the support of such a q depends on a parameter, as that of a mixture of uniform variables does, the backward pass
    raises ValueError.

    Args:
        f: maps samples ``[num_samples, *q.batch_shape, *q.event_shape]`` to one value (of any shape) per sample.
        q: the distribution to sample.
        num_samples: L, at least 1; with 1 the standard error is NaN.

    Returns:
        `Estimate` with the shape and the unit of f's value for one sample.

    Raises:
        TypeError: if q is not a distribution, f is not a function or returns no tensor, or ``num_samples`` is not an
            int.
        ValueError: if ``num_samples < 1`` or f does not return one value per sample.

    Example:
        >>> from torch.distributions import Normal
        >>> _ = torch.manual_seed(0)
        >>> estimate = monte_carlo(torch.square, Normal(torch.tensor(0.0), torch.tensor(2.0)), 100_000)
        >>> bool((estimate.value - 4).abs() < 5 * estimate.standard_error)
        True
    """
    return _monte_carlo(f, q, num_samples)


def _monte_carlo(
    f: Callable[[Tensor], Tensor], q: Distribution, num_samples: int, *, per_datapoint: bool = False
) -> Estimate:
    """`monte_carlo`; with ``per_datapoint`` each value depends only on the draw at its own place in q's batch."""
    distribution(q, "q")
    function(f, "f")
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
    if not values.is_floating_point():  # an indicator, for example
        values = values.to(z.dtype if z.is_floating_point() else torch.get_default_dtype())
    mean = values.mean(0)
    if not q.has_rsample:
        mean = mean + _score_term(values.detach(), q, z, per_datapoint)
    if num_samples == 1:
        return Estimate(mean, torch.full_like(mean, float("nan")))
    return Estimate(mean, values.detach().std(0) / num_samples**0.5)


def _score_term(values: Tensor, q: Distribution, z: Tensor, per_datapoint: bool) -> Tensor:
    """0, with the gradient 1/L Σ (f_l − mean of the others) ∇ log q(z_l), the term that is missing without rsample."""
    if not torch.is_grad_enabled():
        return torch.zeros_like(values[0])
    if _support_moves(q):
        refused: Tensor = _NoGradient.apply(torch.zeros_like(values[0]), *tensors_of(q))  # type: ignore[no-untyped-call]
        return refused
    log_prob = q.log_prob(z)
    if not log_prob.requires_grad:
        return torch.zeros_like(values[0])
    score = log_prob - log_prob.detach()
    if not per_datapoint:
        score = score.flatten(1).sum(1).reshape(-1, *[1] * (values.dim() - 1))
    if len(values) > 1:  # f_l − the mean of the others
        values = (values - values.mean(0)) * (len(values) / (len(values) - 1))
    return (values * score).mean(0)


def _support_moves(q: Distribution) -> bool:
    """Whether the score has no mean of 0, because an end of the support moves; False where no values can be read."""
    if torch.compiler.is_compiling():
        return False
    try:
        return support_moves(q)
    except (NotImplementedError, ValueError):  # such as a discrete q
        return False
    except RuntimeError as error:
        if has_no_values(error):
            return False
        raise


class _NoGradient(torch.autograd.Function):
    """A value that may be used, but not differentiated in the tensors of q."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *tensors: Tensor) -> Tensor:
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise ValueError(
            "q must not have a support that moves with a parameter that requires a gradient: the estimate has the "
            "right value, but a gradient through the density lacks a term at the end that moves; use vaetut.pathwise, "
            "or detach the parameter"
        )


def monte_carlo_entropy(q: Distribution, num_samples: int) -> Estimate:
    r"""Monte Carlo estimate of the entropy, $-\frac1L \sum_l \log q(z^{(l)})$ with $z^{(l)} \sim q$
    (``eq-monte-carlo``).

    ``[*q.batch_shape]``, in nats; arguments and errors as `monte_carlo`; any q with ``sample`` and ``log_prob`` is
    accepted. The standard error has a meaning only if $\mathrm{Var}[\log q]$ is finite.

    Example:
        >>> from torch.distributions import Normal
        >>> _ = torch.manual_seed(0)
        >>> value, error = monte_carlo_entropy(Normal(torch.tensor(0.0), torch.tensor(1.0)), 100_000)
        >>> bool((value - 1.4189).abs() < 5 * error)
        True
    """
    return _monte_carlo(lambda z: -q.log_prob(z), q, num_samples, per_datapoint=True)


def monte_carlo_cross_entropy(q: Distribution, p: Distribution, num_samples: int) -> Estimate:
    r"""Monte Carlo estimate of the cross entropy, $-\frac1L \sum_l \log p(z^{(l)})$, $z^{(l)} \sim q$
    (``eq-monte-carlo``).

    The shape is that of the broadcast batch shapes, in nats; arguments and errors as `monte_carlo`. p must give a
    density to every draw of q.

    Example:
        >>> from torch.distributions import Laplace, Normal
        >>> _ = torch.manual_seed(0)
        >>> q, p = Normal(torch.tensor(0.0), torch.tensor(1.0)), Laplace(torch.tensor(0.0), torch.tensor(1.0))
        >>> value, error = monte_carlo_cross_entropy(q, p, 100_000)
        >>> bool((value - 1.4910).abs() < 5 * error)   # log 2 + E|z|
        True
    """
    _check_pair(q, p)
    return _monte_carlo(lambda z: -p.log_prob(z), q, num_samples, per_datapoint=True)


def monte_carlo_kl(q: Distribution, p: Distribution, num_samples: int) -> Estimate:
    r"""Monte Carlo estimate of $D_{\mathrm{KL}}(q \,\|\, p)$: $\frac1L \sum_l [\log q(z^{(l)}) - \log p(z^{(l)})]$
    with $z^{(l)} \sim q$ (``eq-kl-monte-carlo``).

    A single estimate can be negative, although the divergence cannot. Works for any pair with ``log_prob``,
    also for mixtures, which have no closed form. The shape is that of the broadcast batch shapes, in nats.
    Arguments, errors and the gradient are as in `monte_carlo`.

    Example:
        >>> from torch.distributions import Normal
        >>> _ = torch.manual_seed(0)
        >>> q, p = Normal(torch.tensor(1.0), torch.tensor(0.5)), Normal(torch.tensor(0.0), torch.tensor(1.0))
        >>> value, error = monte_carlo_kl(q, p, 100_000)
        >>> bool((value - 0.8181).abs() < 5 * error)
        True
    """
    _check_pair(q, p)
    return _monte_carlo(lambda z: q.log_prob(z) - p.log_prob(z), q, num_samples, per_datapoint=True)


def _kl_of_normals(q: Distribution, p: Distribution) -> Tensor | None:
    """The divergence of two diagonal Gaussians, None for other pairs.

    Torch has it as well, but `torch.compile` cannot trace torch's search for the pair, and this divergence is a part of
    every training step.
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


def _kl_by_definition(q: Distribution, p: Distribution) -> Tensor | None:
    """The divergence of discrete pairs from their exact log-probabilities; None for the others.

    Torch decides from the rounded probability whether an outcome is impossible: in float32 a Bernoulli with a logit of
    20 has probability 1, and its divergence from every other q is infinite there.
    """
    if type(q) is Independent and type(p) is Independent:
        dims = q.reinterpreted_batch_ndims
        if dims != p.reinterpreted_batch_ndims:
            return None
        return sum_rightmost(kl_divergence(q.base_dist, p.base_dist), dims)
    if is_exactly(q, Geometric) and is_exactly(p, Geometric):
        return _cross_entropy_of_geometrics(q, p) - _cross_entropy_of_geometrics(q, q)
    if is_exactly(q, Binomial) and is_exactly(p, Binomial):
        counts, others = q.total_count, p.total_count
        if any_true(counts != others):
            return None  # torch knows when it is infinite
        return counts * _outcomes(of_two(q), of_two(p), relative=True)
    pair = _both(q, p)
    return None if pair is None else _outcomes(*pair, relative=True)


def _cross_entropy_by_definition(q: Distribution, p: Distribution) -> Tensor | None:
    """-E_q[log p] for the pairs that are computed without the KL divergence; None for the others."""
    if is_exactly(q, Normal) and is_exactly(p, Normal):
        # E_q[(z - m_p)^2] = (m_q - m_p)^2 + s_q^2
        return -p.log_prob(q.loc) + 0.5 * (q.scale / p.scale).square()
    if is_exactly(q, Geometric) and is_exactly(p, Geometric):
        return _cross_entropy_of_geometrics(q, p)
    pair = _both(q, p)
    if pair is not None:
        return _outcomes(*pair)
    if isinstance(q, Independent) and isinstance(p, Independent):
        dims = q.reinterpreted_batch_ndims
        if dims == p.reinterpreted_batch_ndims:
            inner = _cross_entropy_by_definition(q.base_dist, p.base_dist)
            if inner is not None:
                # a base whose event broadcasts against the other's still counts once per event element
                inner = inner.expand(torch.broadcast_shapes(q.base_dist.batch_shape, p.base_dist.batch_shape))
                return sum_rightmost(inner, dims)
        return None
    full_q, full_p = as_multivariate_normal(q), as_multivariate_normal(p)
    if full_q is not None and full_p is not None:
        # E_q[(z - m_p)' P (z - m_p)] = (m_q - m_p)' P (m_q - m_p) + tr(P S_q);  P = (A A')^-1, S_q = B B'
        a, b = torch.broadcast_tensors(full_p.scale_tril, full_q.scale_tril)
        trace = torch.linalg.solve_triangular(a, b, upper=False).square().sum((-2, -1))
        return -full_p.log_prob(full_q.loc) + 0.5 * trace
    return None


def _both(q: Distribution, p: Distribution) -> tuple[Outcomes, Outcomes] | None:
    for kind in (Bernoulli, Categorical, OneHotCategorical):
        if is_exactly(q, kind) and is_exactly(p, kind):
            first, second = outcomes_of(q), outcomes_of(p)
            assert first is not None and second is not None
            counts = first.probs.shape[-1], second.probs.shape[-1]
            if counts[0] != counts[1]:
                raise ValueError(
                    f"q and p must have the same number of categories, got {counts[0]} and {counts[1]}"
                )
            return first, second
    return None


def _outcomes(q: Outcomes, p: Outcomes, relative: bool = False) -> Tensor:
    """-sum q log p, or sum q (log q - log p), with 0 log 0 = 0; inf where q is positive and p is 0."""
    weight, log_q, log_p = torch.broadcast_tensors(q.probs, q.log_probs, p.log_probs)
    impossible = log_p == -torch.inf
    value = torch.where(impossible, 0.0, log_p)
    if relative:
        value = value - torch.where(log_q == -torch.inf, 0.0, log_q)
    infinite = impossible & (log_q > -torch.inf)
    return torch.where(infinite, torch.inf, -weight * value).sum(-1)


def _cross_entropy_of_geometrics(q: Geometric, p: Geometric) -> Tensor:
    """-log p(success) - E[failures] log p(failure); the product in logs, since the mean may overflow."""
    failures, wins = of_two(q).log_probs.unbind(-1)
    fail, win = of_two(p).log_probs.unbind(-1)
    never = failures == -torch.inf  # the first trial of q always succeeds
    # log(-log p(failure)), which is log p(success) where that is tiny
    tiny = win < math.log(torch.finfo(win.dtype).eps)
    safe = torch.where(tiny | (fail == -torch.inf) | (fail == 0), -1.0, fail)
    log_cost = torch.where(tiny, win, safe.neg().log())
    log_mean = torch.where(never, 0.0, failures) - torch.where(never, 0.0, wins)
    cost = torch.where(never, 0.0, (log_mean + log_cost).exp())
    return torch.where(~never & (fail == -torch.inf), torch.inf, cost - win)


def as_multivariate_normal(q: Distribution) -> MultivariateNormal | None:
    """``q`` with a full covariance: itself, or an Independent(Normal) over one dimension; None for the others."""
    if is_exactly(q, MultivariateNormal):
        return q
    if is_exactly(q, Independent) and is_exactly(q.base_dist, Normal) and q.reinterpreted_batch_ndims == 1:
        return MultivariateNormal(q.base_dist.loc, scale_tril=torch.diag_embed(q.base_dist.scale))
    return None


@register_kl(Independent, MultivariateNormal)
@register_kl(MultivariateNormal, Independent)
def _kl_diagonal_and_full_gaussian(q: Distribution, p: Distribution) -> Tensor:
    full_q, full_p = as_multivariate_normal(q), as_multivariate_normal(p)
    if full_q is None or full_p is None:
        raise NotImplementedError
    return torch_kl_divergence(full_q, full_p)


# Classes that compute the same density as their base in another way, and classes whose formulas hold for any density.
SAME_DENSITY = (Erlang,)
GENERAL = (Distribution, ExponentialFamily, Independent, TransformedDistribution)


def _check_own_density(q: Distribution, owner: type[Distribution], what: str, instead: str) -> None:
    """Refuse a formula of the class ``owner`` for a subclass that has a density of its own."""
    density = next(c for c in type(q).__mro__ if "log_prob" in vars(c))
    if owner in GENERAL or density in SAME_DENSITY or issubclass(owner, density):
        return
    raise NotImplementedError(
        f"{type(q).__name__} has the log_prob of {density.__name__}, but the closed form for the {what} is that of "
        f"{owner.__name__}; estimate it with {instead}"
    )


def _check_pair(q: Distribution, p: Distribution) -> None:
    distribution(q, "q")
    distribution(p, "p")
    if q.event_shape != p.event_shape:
        raise ValueError(
            f"q and p must have the same event_shape, got {tuple(q.event_shape)} and {tuple(p.event_shape)}"
        )
    if not q.batch_shape or not p.batch_shape or q.batch_shape == p.batch_shape:
        return  # the common case in training; torch.broadcast_shapes takes longer than the divergence
    try:
        torch.broadcast_shapes(q.batch_shape, p.batch_shape)
    except RuntimeError:
        raise ValueError(
            f"the batch shapes of q and p must broadcast, got {tuple(q.batch_shape)} and {tuple(p.batch_shape)}"
        ) from None
