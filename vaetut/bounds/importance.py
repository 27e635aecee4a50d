r"""Quieter gradients of the importance-weighted bound (chapter 13, *Tighter bounds*).

The bound is $\log \frac1K \sum_k w_k$ with $w_k = p_\theta(x, z_k) / q_\phi(z_k|x)$ and $z_k = g_\phi(\epsilon_k, x)$.
Its gradient is $\sum_k \bar w_k \nabla \log w_k$ with the normalised weights $\bar w_k = w_k / \sum_j w_j$, and in
$\phi$ a log-weight has two parts: through z, the *path*,
$\frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi}$, and through the parameters of q's
density, the *score*, $-\frac{\partial}{\partial \phi} \log q_\phi(z_k|x)$ at a fixed $z_k$.

Both estimators drop the score. What they return is, in value, `vaetut.iwae_bound`; they differ in what autograd makes
of it. The gradient in $\theta$ is that of `vaetut.iwae_bound` in both.
"""

import math

from torch import Tensor
from torch.distributions import Distribution

from vaetut.bounds.elbo import _check, _draw, _log_likelihood
from vaetut.exact import LatentVariableModel


def sticking_the_landing(
    model: LatentVariableModel, q: Distribution, x: Tensor, num_samples: int = 1
) -> Tensor:
    r"""The bound `vaetut.iwae_bound`, whose gradient in $\phi$ takes the path alone,
    $\sum_k \bar w_k \, \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi}$ (``eq-iw-stl``;
    Roeder, Wu and Duvenaud 2017).

    For one draw it is unbiased, since the score is zero on average, and it has no variance where q is the posterior:
    near the end of training the noise dies out. For more draws it is **biased** as a gradient of the bound, for
    under the weights $\bar w_k$ the score is not zero on average; for large K it is, in expectation, the gradient of
    $-D_{\mathrm{KL}}(p(z|x) \,\|\, q)$ (``eq-iw-stl-limit``). Use `doubly_reparameterized` there.

    Args:
        model: the latent-variable model.
        q: q(z|x) with ``rsample``, batch shape ``[batch]``, event shape ``[latent]``. Any kind of distribution: its
            parameters need not be known.
        x: ``[batch, data]``, finite; in [0, 1] for a Bernoulli likelihood.
        num_samples: K, at least 1.

    Returns:
        ``[batch]``, in nats: for K = 1 the value of `vaetut.sgvb_a`. For ``vaetut.train(bound=...)``.

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
        >>> sticking_the_landing(model, q, x).sum().backward()
        >>> bool(loc.grad.abs() < 1e-5)  # q is the posterior, and every single draw knows it
        True
    """
    _check(model, q, x, num_samples)
    z = _draw(q, num_samples)
    return _log_weights(model, q, x, z).logsumexp(0) - math.log(num_samples)


def doubly_reparameterized(
    model: LatentVariableModel, q: Distribution, x: Tensor, num_samples: int
) -> Tensor:
    r"""The bound `vaetut.iwae_bound`, whose gradient in $\phi$ is DReG,
    $\sum_k \bar w_k^2 \, \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi}$ (``eq-iw-dreg``;
    Tucker, Lawson, Gu and Maddison 2019).

    Reparameterizing the score a second time turns it into one more path, and the two add up to *squared* weights.
    Unbiased for every K; its signal-to-noise ratio grows with K where that of the plain gradient falls. For K = 1 it is
    `sticking_the_landing`.

    The squares are for the path only. The gradient in $\theta$ has the plain weights $\bar w_k$: squared ones would be
    biased there.

    Args, shapes and errors as `sticking_the_landing`.

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
    _check(model, q, x, num_samples)
    z = _draw(q, num_samples)
    # A tensor of its own: q may recognise the very tensor that it drew, and go back to the noise around the hook.
    z = z.view_as(z)
    log_w = _log_weights(model, q, x, z)
    if z.requires_grad:
        # What arrives at z carries one factor of the weight, from the logarithm of the mean; here is the other.
        # The gradient in the model's parameters does not pass here.
        weight = log_w.detach().softmax(0).reshape(*log_w.shape, *[1] * len(q.event_shape))
        z.register_hook(lambda gradient: weight * gradient)
    return log_w.logsumexp(0) - math.log(num_samples)


def _log_weights(model: LatentVariableModel, q: Distribution, x: Tensor, z: Tensor) -> Tensor:
    """log p(x, z) - log q(z|x), [num_samples, batch], with a gradient in z and in the model, none in q's parameters."""
    log_q = q.log_prob(z)
    if log_q.requires_grad:
        # Less the gradient at a z that does not move: what the parameters of q contribute, however q holds them.
        score = q.log_prob(z.detach())
        log_q = log_q - (score - score.detach())
    return _log_likelihood(model, z, x) + model.prior.log_prob(z) - log_q
