r"""Bounds on the evidence, and the evidence itself by importance sampling.

Chapter 2, *The variational lower bound*, derives what is estimated here; chapter 5, *SGVB*, the estimators; chapter
13, *Tighter bounds*, the importance-weighted bound and the upper bound.

Throughout, ``x`` is ``[batch, data]``, ``q`` is q(z|x) with batch shape ``[batch]`` and event shape ``[latent]``, and
``model`` is anything with a ``.prior`` and a ``.likelihood(z)``. Every bound is per datapoint, ``[batch]``, in nats.
Of the lower bounds, all but `cubo_bound`, larger is better: a training loss is ``-bound.mean()``.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent
from torch.nn.functional import softplus

from vaetut._support.validate import any_true, finite, float_tensor, positive_int, values_are_checked
from vaetut.exact import LatentVariableModel
from vaetut.information import Estimate, kl_divergence

# How many numbers one chunk of log_evidence may hold at once, 32 MB in float64; a draw counts as many as x has
# dimensions, or as a hidden layer of this width, whichever is more.
_CHUNK_ELEMENTS = 2**22
_CHUNK_WIDTH = 512


class ElboTerms(NamedTuple):
    """The two terms of the lower bound, each ``[batch]`` in nats: the bound is ``reconstruction - kl``."""

    reconstruction: Tensor
    kl: Tensor


def elbo_terms(model: LatentVariableModel, q: Distribution, x: Tensor, num_samples: int = 1) -> ElboTerms:
    r"""The terms of $\mathbb E_{q(z|x)}[\log p(x|z)] - D_{\mathrm{KL}}(q(z|x) \,\|\, p(z))$ (``eq-elbo``, AEVB eq. 3).

    The reconstruction is estimated with ``num_samples`` draws of z, the divergence is exact.

    Args:
        model: the latent-variable model.
        q: q(z|x), batch shape ``[batch]``, event shape ``[latent]``. For gradients in its parameters it must have
            ``rsample``.
        x: ``[batch, data]``, finite; in [0, 1] for a Bernoulli likelihood.
        num_samples: L, the number of draws, at least 1.

    Raises:
        ValueError: if a shape does not fit or x has a value that is not allowed.
        TypeError: if x is not a floating-point tensor.
        NotImplementedError: if the divergence has no closed form (use `sgvb_a`), or if the gradient of a q without
            ``rsample`` is asked for.

    Example:
        >>> from vaetut import LinearGaussian
        >>> model = LinearGaussian(torch.tensor([[1.0], [2.0]]), torch.zeros(2), 0.5)
        >>> x = torch.tensor([[0.3, 1.0]])
        >>> elbo_terms(model, model.posterior(x), x, num_samples=1000).kl
        tensor([1.1420])
    """
    _check(model, q, x, num_samples)
    z = _draw(q, num_samples)
    return ElboTerms(_log_likelihood(model, z, x).mean(0), kl_divergence(q, model.prior))


def sgvb_b(model: LatentVariableModel, q: Distribution, x: Tensor, num_samples: int = 1) -> Tensor:
    r"""The estimator $\tilde{\mathcal L}^B = -D_{\mathrm{KL}}(q(z|x) \,\|\, p(z)) + \frac1L \sum_l \log p(x|z^{(l)})$
    of the lower bound (``eq-sgvb-b``, AEVB eq. 7): the divergence exact, the reconstruction sampled.

    Arguments, shapes and errors as `elbo_terms`.

    Example:
        >>> from vaetut import LinearGaussian
        >>> model = LinearGaussian(torch.tensor([[1.0], [2.0]]), torch.zeros(2), 0.5)
        >>> x = torch.tensor([[0.3, 1.0]])
        >>> _ = torch.manual_seed(0)
        >>> bool(sgvb_b(model, model.prior.expand([1]), x, 1000) < model.log_evidence(x))
        True
    """
    terms = elbo_terms(model, q, x, num_samples)
    return terms.reconstruction - terms.kl


def sgvb_a(model: LatentVariableModel, q: Distribution, x: Tensor, num_samples: int = 1) -> Tensor:
    r"""The estimator $\tilde{\mathcal L}^A = \frac1L \sum_l \log p(x, z^{(l)}) - \log q(z^{(l)}|x)$ of the lower
    bound (``eq-sgvb-a``, AEVB eq. 6): all of it sampled, so that no closed-form divergence is needed.

    Where q is the posterior, every term of the sum is log p(x), and the estimator has no variance.
    Arguments, shapes and errors as `elbo_terms`.

    Example:
        >>> from vaetut import LinearGaussian
        >>> model = LinearGaussian(torch.tensor([[1.0], [2.0]]), torch.zeros(2), 0.5)
        >>> x = torch.tensor([[0.3, 1.0]])
        >>> sgvb_a(model, model.posterior(x), x), model.log_evidence(x)
        (tensor([-2.1386]), tensor([-2.1386]))
    """
    _check(model, q, x, num_samples)
    return _log_weights(model, q, x, num_samples).mean(0)


def minibatch_bound(values: Tensor, dataset_size: int) -> Tensor:
    r"""The minibatch estimator $\frac NM \sum_{i=1}^M \tilde{\mathcal L}(\theta, \phi; x^{(i)})$ of the bound on the
    whole data set's log-likelihood (``eq-sgvb-minibatch``, AEVB eq. 8).

    It is unbiased if the M datapoints are a uniform random choice from the N. `vaetut.train` ascends this divided by
    N, the mean over the minibatch.

    Args:
        values: any bound, per datapoint: ``[..., M]``.
        dataset_size: N, at least M.

    Returns:
        Shape ``[...]``, in nats.

    Raises:
        ValueError: if ``values`` holds no datapoint, or ``dataset_size`` is less than M.
        TypeError: if ``values`` is not a floating-point tensor, or ``dataset_size`` is no int.

    Example:
        >>> minibatch_bound(torch.tensor([-2.0, -4.0]), dataset_size=100)
        tensor(-300.)
    """
    if float_tensor(values, "values").dim() == 0 or values.shape[-1] == 0:
        raise ValueError(f"values must have shape [..., M] with M of at least 1, got {tuple(values.shape)}")
    if positive_int(dataset_size, "dataset_size") < values.shape[-1]:
        raise ValueError(
            f"dataset_size must be at least the {values.shape[-1]} values of the minibatch, got {dataset_size}"
        )
    return dataset_size * values.mean(-1)


def iwae_bound(model: LatentVariableModel, q: Distribution, x: Tensor, num_samples: int) -> Tensor:
    r"""The importance-weighted bound $\log \frac1K \sum_{k=1}^K w_k$ with $w_k = p(x, z_k) / q(z_k|x)$ and
    $z_k \sim q$ (``eq-iw-bound``; Burda, Grosse and Salakhutdinov 2016).

    Its expectation is a lower bound on log p(x) that never falls when K grows and reaches log p(x) in the limit. With
    one draw it is `sgvb_a`. The gradient is the pathwise one in all parameters; for a large K that in q drowns in its
    own noise, and `vaetut.doubly_reparameterized` does better.

    Args:
        model, q, x: as for `elbo_terms`.
        num_samples: K, at least 1. The bound itself depends on it, not only the noise.

    Raises:
        ValueError, TypeError, NotImplementedError: as `elbo_terms`.

    Example:
        >>> from vaetut import LinearGaussian
        >>> model = LinearGaussian(torch.tensor([[1.0], [2.0]]), torch.zeros(2), 0.5)
        >>> x = torch.tensor([[0.3, 1.0]])
        >>> iwae_bound(model, model.posterior(x), x, num_samples=5), model.log_evidence(x)
        (tensor([-2.1386]), tensor([-2.1386]))
    """
    _check(model, q, x, num_samples)
    return _log_weights(model, q, x, num_samples).logsumexp(0) - math.log(num_samples)


def cubo_bound(
    model: LatentVariableModel, q: Distribution, x: Tensor, num_samples: int, order: float = 2.0
) -> Tensor:
    r"""The estimate $\frac1n \log \frac1K \sum_{k=1}^K w_k^n$ of the $\chi$ upper bound
    $\frac1n \log \mathbb E_q\big[w^n\big] \ge \log p(x)$, with $w = p(x, z) / q(z|x)$ (``eq-iw-cubo``; Dieng, Tran,
    Ranganath, Paisley and Blei 2017).

    Smaller is better. The *bound* lies above log p(x); the *estimate* lies below that bound on average, by Jensen's
    inequality, so that with few draws it may lie below log p(x) too: with one it is `sgvb_a`, a lower bound. From the
    same draws it is never below `iwae_bound`. The bound is infinite where q is too narrow, and no estimate shows it:
    for a Gaussian q, a posterior of the same form and n = 2 that is from a variance of half the posterior's downwards.

    Args:
        model, q, x: as for `elbo_terms`.
        num_samples: K, at least 1, better thousands. All draws are held in memory.
        order: n, at least 1; with 1 the bound is log p(x) itself.

    Returns:
        ``[batch]``, in nats.

    Raises:
        ValueError, TypeError, NotImplementedError: as `elbo_terms`; and if ``order`` is no number of at least 1.

    Example:
        >>> from vaetut import LinearGaussian
        >>> model = LinearGaussian(torch.tensor([[1.0], [2.0]]), torch.zeros(2), 0.5)
        >>> x = torch.tensor([[0.3, 1.0]])
        >>> _ = torch.manual_seed(0)
        >>> bool(cubo_bound(model, model.prior.expand([1]), x, 1000) > model.log_evidence(x))
        True
    """
    _check(model, q, x, num_samples)
    if isinstance(order, bool) or not isinstance(order, int | float):
        raise TypeError(f"order must be a number of at least 1, got {order!r} of type {type(order).__name__}")
    if not 1 <= order < math.inf:
        raise ValueError(f"order must be finite and at least 1, got {order}")
    log_w = _log_weights(model, q, x, num_samples)
    return ((order * log_w).logsumexp(0) - math.log(num_samples)) / order


@torch.no_grad()
def log_evidence(
    model: LatentVariableModel, q: Distribution, x: Tensor, num_samples: int, chunk_size: int | None = None
) -> Estimate:
    r"""Importance-sampling estimate of the evidence,
    $\log p(x) \approx \log \frac1L \sum_l p(x, z^{(l)}) / q(z^{(l)}|x)$ with $z^{(l)} \sim q$
    (``eq-importance-sampling``).

    The mean of the weights is unbiased for p(x); by Jensen's inequality its logarithm is too low on average, by about
    half the squared standard error. The standard error is that of the logarithm, by the delta method; it can be
    trusted only while it is small, for a poor q misses the weights that matter and does not know it.

    No gradient is kept, and memory is bounded: the draws are made and summed ``chunk_size`` at a time.

    Args:
        model: the latent-variable model.
        q: the proposal q(z|x), batch shape ``[batch]``, event shape ``[latent]``; the prior works too, badly.
        x: ``[batch, data]``, finite; in [0, 1] for a Bernoulli likelihood.
        num_samples: L, at least 1; with 1 the standard error is NaN.
        chunk_size: how many draws are held at once; by default as many as fit in some 4 million numbers, whatever
            ``num_samples`` is.

    Returns:
        `Estimate` with shape ``[batch]``, in nats.

    Raises:
        ValueError, TypeError: as `elbo_terms`.

    Example:
        >>> from vaetut import LinearGaussian
        >>> model = LinearGaussian(torch.tensor([[1.0], [2.0]]), torch.zeros(2), 0.5)
        >>> x = torch.tensor([[0.3, 1.0]])
        >>> log_evidence(model, model.posterior(x), x, num_samples=10).value, model.log_evidence(x)
        (tensor([-2.1386]), tensor([-2.1386]))
    """
    _check(model, q, x, num_samples)
    if chunk_size is None:
        width = max(x.shape[-1], _CHUNK_WIDTH)
        chunk_size = max(1, _CHUNK_ELEMENTS // max(q.batch_shape.numel() * width, 1))
    positive_int(chunk_size, "chunk_size")

    log_sum: Tensor | None = None  # log of the sum of the weights, and of their squares
    log_sum_squares: Tensor | None = None
    for start in range(0, num_samples, chunk_size):
        log_w = _log_weights(model, q, x, min(chunk_size, num_samples - start))
        first, second = log_w.logsumexp(0), (2 * log_w).logsumexp(0)
        log_sum = first if log_sum is None else torch.logaddexp(log_sum, first)
        log_sum_squares = second if log_sum_squares is None else torch.logaddexp(log_sum_squares, second)
    assert log_sum is not None and log_sum_squares is not None

    value = log_sum - torch.log(torch.full_like(log_sum, num_samples))
    if num_samples == 1:
        return Estimate(value, torch.full_like(value, float("nan")))
    # Var(w) / (L mean(w)^2), with the L - 1 of an unbiased variance
    relative_variance = (num_samples * (log_sum_squares - 2 * log_sum).exp() - 1).clamp_min(0) / (
        num_samples - 1
    )
    return Estimate(value, relative_variance.sqrt())


def _log_weights(model: LatentVariableModel, q: Distribution, x: Tensor, num_samples: int) -> Tensor:
    """log p(x, z) - log q(z|x) for num_samples draws of z from q: [num_samples, batch]."""
    z = _draw(q, num_samples)
    return _log_likelihood(model, z, x) + model.prior.log_prob(z) - q.log_prob(z)


def _draw(q: Distribution, num_samples: int) -> Tensor:
    if q.has_rsample:
        return q.rsample((num_samples,))
    z = q.sample((num_samples,))
    if torch.is_grad_enabled() and q.log_prob(z).requires_grad:
        raise NotImplementedError(
            f"q = {type(q).__name__} has no rsample, so the gradient in its parameters would lack a term; "
            "call under torch.no_grad(), or detach the parameters, to get the value alone"
        )
    return z


def _log_likelihood(model: LatentVariableModel, z: Tensor, x: Tensor) -> Tensor:
    likelihood = model.likelihood(z)
    base: Any = likelihood.base_dist if isinstance(likelihood, Independent) else None
    is_bernoulli = isinstance(base, Bernoulli)
    if is_bernoulli and values_are_checked() and any_true((x < 0) | (x > 1)):
        raise ValueError(
            "x must lie in [0, 1] for a Bernoulli likelihood, got values from "
            f"{float(x.min()):g} to {float(x.max()):g}; divide 8-bit pixels by 255"
        )
    if likelihood.event_shape != x.shape[-1:]:
        raise ValueError(
            f"x must have shape [batch, {likelihood.event_shape[0]}] for this model, got {tuple(x.shape)}"
        )
    if is_bernoulli and base.logits.dtype == x.dtype:
        # Bernoulli.log_prob in fewer passes over memory: with ten draws of z a tenth of a training step is saved.
        # softplus is cut off where float64 no longer sees it, and not at torch's 20, where it does. (einsum in place
        # of the product and its sum would fail in torch.compile, in the backward pass.)
        return (base.logits * x).sum(-1) - softplus(base.logits, threshold=80).sum(-1)
    return likelihood.log_prob(x)


def _check(model: LatentVariableModel, q: Distribution, x: Tensor, num_samples: int) -> None:
    positive_int(num_samples, "num_samples")
    for name in ("prior", "likelihood"):
        if not hasattr(model, name):
            raise TypeError(
                f"model must have .prior and .likelihood(z); {type(model).__name__} has no .{name}"
            )
    if not isinstance(q, Distribution):
        raise TypeError(f"q must be a torch.distributions.Distribution, got {type(q).__name__}")
    if float_tensor(x, "x").dim() == 0:
        raise ValueError("x must have shape [batch, data], got a tensor without dimensions")
    finite(x, "x")
    if q.event_shape != model.prior.event_shape:
        raise ValueError(
            f"q must have the prior's event_shape {tuple(model.prior.event_shape)}, got {tuple(q.event_shape)}; "
            "wrap a Normal over [batch, latent] as Independent(Normal(...), 1)"
        )
    if q.batch_shape != x.shape[:-1]:
        raise ValueError(
            f"q must have one distribution per datapoint, batch_shape {tuple(x.shape[:-1])}, "
            f"got {tuple(q.batch_shape)}; q.expand(...) repeats one for all"
        )
