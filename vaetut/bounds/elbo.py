r"""The variational lower bound and its two estimators.

Chapter 2, *The variational lower bound*, derives the bound; chapter 5, *SGVB*, the estimators.

Throughout, ``x`` is ``[batch, data]``, ``q`` is q(z|x) with batch shape ``[batch]`` and event shape ``[latent]``, and
``model`` is anything with a ``.prior`` and a ``.likelihood(z)`` (`vaetut.LatentVariableModel`). Every bound is per
datapoint, ``[batch]``, in nats; larger is better, and a training loss is ``-bound.mean()``.
"""

from typing import NamedTuple

from torch import Tensor
from torch.distributions import Distribution

from vaetut._support.validate import float_tensor, positive_int
from vaetut.bounds._inputs import check, draw, log_likelihood
from vaetut.bounds.importance import log_weights
from vaetut.exact import LatentVariableModel
from vaetut.information import kl_divergence


class ElboTerms(NamedTuple):
    r"""The two terms of the lower bound (``eq-elbo``), each ``[batch]`` in nats: the bound is ``reconstruction - kl``.

    ``reconstruction`` is the estimate of $\mathbb E_q[\log p(x|z)]$, ``kl`` is $D_{\mathrm{KL}}(q(z|x) \,\|\, p(z))$.

    Example:
        >>> import torch
        >>> terms = ElboTerms(reconstruction=torch.tensor([-80.0]), kl=torch.tensor([12.0]))
        >>> terms.reconstruction - terms.kl
        tensor([-92.])
    """

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

    Returns:
        `ElboTerms`, each ``[batch]``, in nats.

    Raises:
        ValueError: if a shape does not fit, x has a value that is not allowed, or ``num_samples`` is less than 1.
        TypeError: if x is not a float32 or float64 tensor, q is not a distribution, the model lacks a part, or
            ``num_samples`` is not an int.
        NotImplementedError: if the divergence has no closed form (use `sgvb_a`), or if q has no ``rsample`` and a
            parameter that requires a gradient.

    Example:
        >>> import torch
        >>> from vaetut import LinearGaussian
        >>> model = LinearGaussian(torch.tensor([[1.0], [2.0]]), torch.zeros(2), 0.5)
        >>> x = torch.tensor([[0.3, 1.0]])
        >>> elbo_terms(model, model.posterior(x), x, num_samples=1000).kl
        tensor([1.1420])
    """
    inputs = check(model, q, x, num_samples)
    return ElboTerms(log_likelihood(inputs, draw(inputs)).mean(0), kl_divergence(q, inputs.prior))


def sgvb_b(model: LatentVariableModel, q: Distribution, x: Tensor, num_samples: int = 1) -> Tensor:
    r"""The estimator $\tilde{\mathcal L}^B = -D_{\mathrm{KL}}(q(z|x) \,\|\, p(z)) + \frac1L \sum_l \log p(x|z^{(l)})$
    of the lower bound (``eq-sgvb-b``, AEVB eq. 7): the divergence exact, the reconstruction sampled.

    Arguments, shapes and errors as `elbo_terms`; in nats.

    Example:
        >>> import torch
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
    bound (``eq-sgvb-a``, AEVB eq. 6): both terms are sampled, so no closed form of the divergence is needed.

    Where q is the posterior, every term of the sum is log p(x), and the estimator has no variance.
    Arguments, shapes and errors as `elbo_terms`; in nats.

    Example:
        >>> import torch
        >>> from vaetut import LinearGaussian
        >>> model = LinearGaussian(torch.tensor([[1.0], [2.0]]), torch.zeros(2), 0.5)
        >>> x = torch.tensor([[0.3, 1.0]])
        >>> sgvb_a(model, model.posterior(x), x), model.log_evidence(x)
        (tensor([-2.1386]), tensor([-2.1386]))
    """
    return log_weights(model, q, x, num_samples).mean(0)


def minibatch_bound(values: Tensor, dataset_size: int) -> Tensor:
    r"""The minibatch estimator $\frac NM \sum_{i=1}^M \tilde{\mathcal L}(\theta, \phi; x^{(i)})$ of the bound on the
    whole data set's log-likelihood (``eq-sgvb-minibatch``, AEVB eq. 8).

    It is unbiased if the M datapoints are drawn uniformly from the N. `vaetut.train` maximizes this divided by N, which
    is the mean over the minibatch.

    Args:
        values: any bound, per datapoint: ``[..., M]``.
        dataset_size: N, at least M.

    Returns:
        Shape ``[...]``, in nats.

    Raises:
        ValueError: if ``values`` holds no datapoint, or ``dataset_size`` is less than M.
        TypeError: if ``values`` is not a float32 or float64 tensor, or ``dataset_size`` is not an int.

    Example:
        >>> import torch
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
