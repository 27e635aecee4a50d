r"""Importance weights and what is computed from them: tighter bounds, gradients with less noise, the evidence.

Chapter 13, *Tighter bounds*. With $w_k = p_\theta(x, z_k) / q_\phi(z_k|x)$ and $z_k = g_\phi(\epsilon_k, x) \sim q$ the
importance-weighted bound is $\log \frac1K \sum_k w_k$, and each function here is computed from `log_weights`.

The bound's gradient is $\sum_k \bar w_k \nabla \log w_k$ with the normalized weights
$\bar w_k = w_k / \sum_j w_j$, and in $\phi$ a log-weight has two parts: through z, the *path*,
$\frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi}$, and through the parameters of q's
density, the *score*, $-\frac{\partial}{\partial \phi} \log q_\phi(z_k|x)$ at a fixed $z_k$. `sticking_the_landing` and
`doubly_reparameterized` drop the score. Their value is that of `iwae_bound`, and so is their gradient in $\theta$; in
$\phi$ they differ.

If all K weights of a datapoint are 0 (the likelihood or the prior has no mass at any of the draws), its bound is
−∞ and its gradient 0: the draws say nothing about where the mass is, and the other datapoints keep their gradients.

Shapes are those of `vaetut.bounds.elbo`: ``x`` is ``[batch, data]``, and a bound ``[batch]``, in nats.
"""

import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaetut._support.validate import positive_int, real_number
from vaetut.bounds._inputs import Inputs, check, draw, log_likelihood
from vaetut.exact import LatentVariableModel
from vaetut.information import Estimate

# How many numbers one chunk of log_evidence may hold at once, 32 MB in float64. One draw is counted as the number of
# dimensions of x or the width of a hidden layer below, whichever is larger.
_CHUNK_ELEMENTS = 2**22
_CHUNK_WIDTH = 512


def log_weights(
    model: LatentVariableModel, q: Distribution, x: Tensor, num_samples: int, stop_q: bool = False
) -> Tensor:
    r"""The logarithms of the importance weights, $\log w_k = \log p(x, z_k) - \log q(z_k|x)$ with $z_k \sim q$.

    Every importance-weighted bound is a function of them: `iwae_bound` is ``logsumexp(0) - log(K)`` (``eq-iw-bound``),
    `vaetut.sgvb_a` is ``mean(0)`` (``eq-sgvb-a``), `cubo_bound` and `log_evidence` use their powers. Their spread
    shows how far q is from the posterior: if q is the posterior, each of them equals log p(x).

    Args:
        model: the latent-variable model, anything with ``prior`` and ``likelihood(z)``.
        q: q(z|x), batch shape ``[batch]``, event shape ``[latent]``. For gradients in its parameters it must have
            ``rsample``.
        x: ``[batch, data]``, finite; in [0, 1] for a Bernoulli likelihood.
        num_samples: K, at least 1.
        stop_q: True to leave the score out of the gradient in q's parameters, so that only the path through z
            remains (``eq-iw-stl``). The values are the same.

    Returns:
        ``[num_samples, batch]``, in nats.

    Raises:
        ValueError, TypeError, NotImplementedError: as `vaetut.elbo_terms`.

    Source:
        Burda, Grosse and Salakhutdinov (2016), eq. 8; chapter 13.

    Example:
        >>> from vaetut import LinearGaussian
        >>> model = LinearGaussian(torch.tensor([[1.0], [2.0]]), torch.zeros(2), 0.5)
        >>> x = torch.tensor([[0.3, 1.0]])
        >>> log_weights(model, model.posterior(x), x, num_samples=3), model.log_evidence(x)
        (tensor([[-2.1386],
                [-2.1386],
                [-2.1386]]), tensor([-2.1386]))
    """
    inputs = check(model, q, x, num_samples)
    return _weigh(inputs, draw(inputs), stop_q)


def iwae_bound(model: LatentVariableModel, q: Distribution, x: Tensor, num_samples: int) -> Tensor:
    r"""The importance-weighted bound $\log \frac1K \sum_{k=1}^K w_k$ with $w_k = p(x, z_k) / q(z_k|x)$ and
    $z_k \sim q$ (``eq-iw-bound``; Burda, Grosse and Salakhutdinov 2016).

    Its expectation is a lower bound on log p(x) that never falls as K grows; if q > 0 wherever p(x, z) > 0, and the
    bound for K = 1 is finite, it tends to log p(x). With one draw it is `sgvb_a`. The gradient in all parameters
    is pathwise. In q's parameters its signal-to-noise ratio vanishes as K grows, like $1 / \sqrt K$ (Rainforth et al.
    2018); that of `doubly_reparameterized` does not.

    Args:
        model, q, x: as for `elbo_terms`.
        num_samples: K, at least 1. It changes the bound itself, not only its noise.

    Returns:
        ``[batch]``, in nats.

    Raises:
        ValueError, TypeError, NotImplementedError: as `elbo_terms`.

    Example:
        >>> from vaetut import LinearGaussian
        >>> model = LinearGaussian(torch.tensor([[1.0], [2.0]]), torch.zeros(2), 0.5)
        >>> x = torch.tensor([[0.3, 1.0]])
        >>> iwae_bound(model, model.posterior(x), x, num_samples=5), model.log_evidence(x)
        (tensor([-2.1386]), tensor([-2.1386]))
    """
    return _log_mean(log_weights(model, q, x, num_samples))


def cubo_bound(
    model: LatentVariableModel, q: Distribution, x: Tensor, num_samples: int, order: float = 2.0
) -> Tensor:
    r"""The estimate $\frac1n \log \frac1K \sum_{k=1}^K w_k^n$ of the $\chi$ upper bound
    $\frac1n \log \mathbb E_q\big[w^n\big] \ge \log p(x)$, with $w = p(x, z) / q(z|x)$ (``eq-iw-cubo``; Dieng, Tran,
    Ranganath, Paisley and Blei 2017).

    Smaller is better. The *bound* is never below log p(x). The *estimate* is on average not above that bound, by
    Jensen's inequality, so with few draws it may be below log p(x): with one it is `sgvb_a`, a lower bound. From the
    same draws it is never below `iwae_bound`. The bound is infinite if q is too narrow, and every estimate is still
    finite: for a Gaussian q, a Gaussian posterior and n = 2 that is so once q's variance is at most half the
    posterior's.

    Args:
        model, q, x: as for `elbo_terms`.
        num_samples: K, at least 1; thousands are better. All draws are held in memory.
        order: n, at least 1; with 1 the bound is log p(x) itself.

    Returns:
        ``[batch]``, in nats.

    Raises:
        ValueError, TypeError, NotImplementedError: as `elbo_terms`; and if ``order`` is not a number of at least 1.

    Example:
        >>> from vaetut import LinearGaussian
        >>> model = LinearGaussian(torch.tensor([[1.0], [2.0]]), torch.zeros(2), 0.5)
        >>> x = torch.tensor([[0.3, 1.0]])
        >>> _ = torch.manual_seed(0)
        >>> bool(cubo_bound(model, model.prior.expand([1]), x, 1000) > model.log_evidence(x))
        True
    """
    order = real_number(order, "order", "a number of at least 1")
    if not 1 <= order < math.inf:
        raise ValueError(f"order must be finite and at least 1, got {order:g}")
    return _log_mean(order * log_weights(model, q, x, num_samples)) / order


@torch.no_grad()
def log_evidence(
    model: LatentVariableModel, q: Distribution, x: Tensor, num_samples: int, chunk_size: int | None = None
) -> Estimate:
    r"""Importance-sampling estimate of the evidence,
    $\log p(x) \approx \log \frac1L \sum_l p(x, z^{(l)}) / q(z^{(l)}|x)$ with $z^{(l)} \sim q$
    (``eq-importance-sampling``).

    The mean of the weights is unbiased for p(x); by Jensen's inequality its logarithm is too low on average, by about
    half the squared standard error. The standard error is that of the logarithm, by the delta method; it can be
    trusted only while it is small: a poor q seldom draws the z with large weights, and without them the standard error
    is too small as well.

    No gradient is kept, and memory is bounded: the draws are made and summed ``chunk_size`` at a time.

    Args:
        model: the latent-variable model.
        q: the proposal q(z|x), batch shape ``[batch]``, event shape ``[latent]``; the prior is allowed, but usually
            poor.
        x: ``[batch, data]``, finite; in [0, 1] for a Bernoulli likelihood.
        num_samples: L, at least 1; with 1 the standard error is NaN.
        chunk_size: how many draws are held at once; by default as many as fit in some 4 million numbers, for any
            ``num_samples``.

    Returns:
        `Estimate` with shape ``[batch]``, in nats. Where all weights are 0 it is −∞, with a standard error of NaN.

    Raises:
        ValueError, TypeError: as `elbo_terms`.

    Example:
        >>> from vaetut import LinearGaussian
        >>> model = LinearGaussian(torch.tensor([[1.0], [2.0]]), torch.zeros(2), 0.5)
        >>> x = torch.tensor([[0.3, 1.0]])
        >>> log_evidence(model, model.posterior(x), x, num_samples=10).value, model.log_evidence(x)
        (tensor([-2.1386]), tensor([-2.1386]))
    """
    inputs = check(model, q, x, num_samples)
    if chunk_size is None:
        width = max(x.shape[-1], _CHUNK_WIDTH)
        chunk_size = max(1, _CHUNK_ELEMENTS // max(q.batch_shape.numel() * width, 1))
    chunk_size, num_samples = positive_int(chunk_size, "chunk_size"), inputs.num_samples

    log_sum: Tensor | None = None  # log of the sum of the weights, and of their squares
    log_sum_squares: Tensor | None = None
    for start in range(0, num_samples, chunk_size):
        log_w = _weigh(inputs, draw(inputs, min(chunk_size, num_samples - start)))
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


def sticking_the_landing(model: LatentVariableModel, q: Distribution, x: Tensor, num_samples: int) -> Tensor:
    r"""The bound `vaetut.iwae_bound`, whose gradient in $\phi$ keeps only the path,
    $\sum_k \bar w_k \, \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi}$ (``eq-iw-stl``;
    Roeder, Wu and Duvenaud 2017).

    For one draw it is unbiased, since the score is zero on average, and it has no variance if q is the posterior:
    the closer q comes to it, the smaller the noise. (Far from the posterior its variance may be larger than that of the
    plain gradient.) For more draws it is **biased** as a gradient of the bound, since under the weights $\bar w_k$ the
    score is not zero on average; for large K it is, in expectation, the gradient of $-D_{\mathrm{KL}}(p(z|x) \,\|\, q)$
    (``eq-iw-stl-limit``). Use `doubly_reparameterized` there.

    Args:
        model: the latent-variable model.
        q: q(z|x) with ``rsample``, batch shape ``[batch]``, event shape ``[latent]``. Any class of distribution; the
            function does not need to know its parameters.
        x: ``[batch, data]``, finite; in [0, 1] for a Bernoulli likelihood.
        num_samples: K, at least 1.

    Returns:
        ``[batch]``, in nats: for K = 1 the value of `vaetut.sgvb_a`. Use it as ``vaetut.train(bound=...)``.

    Raises:
        ValueError, TypeError, NotImplementedError: as `vaetut.elbo_terms`.

    Example:
        >>> import torch
        >>> from torch.distributions import Independent, Normal
        >>> from vaetut import LinearGaussian
        >>> model = LinearGaussian(torch.tensor([[1.0], [2.0]]), torch.zeros(2), 0.5)
        >>> x = torch.tensor([[0.3, 1.0]])
        >>> posterior = model.posterior(x)
        >>> loc = posterior.mean.clone().requires_grad_()
        >>> q = Independent(Normal(loc, posterior.stddev), 1)
        >>> sticking_the_landing(model, q, x, num_samples=1).sum().backward()
        >>> bool(loc.grad.abs() < 1e-5)  # q is the posterior: each single draw gives 0
        True
    """
    return _log_mean(log_weights(model, q, x, num_samples, stop_q=True))


def doubly_reparameterized(
    model: LatentVariableModel, q: Distribution, x: Tensor, num_samples: int
) -> Tensor:
    r"""The bound `vaetut.iwae_bound`, whose gradient in $\phi$ is DReG,
    $\sum_k \bar w_k^2 \, \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi}$ (``eq-iw-dreg``;
    Tucker, Lawson, Gu and Maddison 2019).

    Reparameterizing the score a second time turns it into a second path term; together they have *squared* weights.
    Unbiased for every K. For K = 1 it is `sticking_the_landing`. For large K its signal-to-noise ratio grows like
    $\sqrt K$, where that of the plain gradient falls; for small K > 1 it may be below that of K = 1, as in the
    example of chapter 13.

    Only the path has squared weights. The gradient in $\theta$ has the plain weights $\bar w_k$; squared ones would
    make it biased.

    Arguments, shapes and errors as `sticking_the_landing`; in nats.

    Example:
        >>> import torch
        >>> from vaetut import VAE
        >>> _ = torch.manual_seed(0)
        >>> model = VAE(data_dim=4, latent_dim=2, hidden_dim=5)
        >>> x = torch.tensor([[0.0, 1.0, 1.0, 0.0]])
        >>> bound = doubly_reparameterized(model, model.encode(x), x, num_samples=10)
        >>> (-bound.mean()).backward()  # a training step like any other
        >>> bound.shape
        torch.Size([1])
    """
    inputs = check(model, q, x, num_samples)
    z = draw(inputs)
    # A new tensor: q may recognize its own draw, and use a cached value that bypasses the hook.
    z = z.view_as(z)
    log_w = _weigh(inputs, z, stop_q=True)
    if z.requires_grad:
        # The gradient that arrives at z has one factor of the weight, from the logarithm of the mean; this is the
        # second. The gradient in the model's parameters does not pass through this hook.
        finite = torch.where(_all_zero(log_w), 0.0, log_w.detach())
        weight = finite.softmax(0).reshape(*log_w.shape, *[1] * len(q.event_shape))
        z.register_hook(lambda gradient: weight * gradient)
    return _log_mean(log_w)


def _weigh(inputs: Inputs, z: Tensor, stop_q: bool = False) -> Tensor:
    """log p(x, z) - log q(z|x) of given draws, ``[num_samples, batch]``."""
    log_q = inputs.q.log_prob(z)
    if stop_q and log_q.requires_grad:
        # Subtract the gradient at a fixed z, which is what the parameters of q contribute, whatever form q has.
        score = inputs.q.log_prob(z.detach())
        log_q = log_q - (score - score.detach())
    return log_likelihood(inputs, z) + inputs.prior.log_prob(z) - log_q


def _log_mean(log_w: Tensor) -> Tensor:
    """The logarithm of the mean of exp(log_w) over the draws; −∞ with gradients of 0 where all weights are 0.

    There the normalized weights are 0/0, and the gradients of ``logsumexp`` NaN.
    """
    zero = _all_zero(log_w)
    log_mean = torch.where(zero, 0.0, log_w).logsumexp(0) - math.log(len(log_w))
    return torch.where(zero, -math.inf, log_mean)


def _all_zero(log_w: Tensor) -> Tensor:
    """Whether all weights of a datapoint are 0."""
    return log_w.detach().amax(0) == -math.inf
