r"""The wake-sleep algorithm (Hinton, Dayan, Frey & Neal 1995), beside AEVB in figures 2 and 3: chapter 12.

It trains the same two networks as AEVB with two objectives, one for each network, in place of a single one.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from vaetut._support.validate import positive_int
from vaetut.models import VAE, is_bernoulli


class WakeSleep(NamedTuple):
    """The two objectives, each in nats, to be maximized: a loss is ``-wake.mean() - sleep.mean()``."""

    wake: Tensor
    sleep: Tensor


def wake_sleep(model: VAE, x: Tensor, num_dreams: int | None = None) -> WakeSleep:
    r"""One draw of both objectives of the wake-sleep algorithm.

    * **wake** (``eq-exp-wake``): $\log p_\theta(x|z) + \log p(z)$ at a detached $z \sim q_\phi(z|x)$. It trains the
      decoder: in $\theta$ its expectation has the gradient of the bound, since the missing term
      $-\mathbb E_q[\log q]$ does not depend on $\theta$.
    * **sleep** (``eq-exp-sleep``): $\log q_\phi(z|x)$ at a detached dream, $z \sim p(z)$ and $x \sim p_\theta(x|z)$.
      It trains the encoder: maximizing its expectation minimizes
      $D_{\mathrm{KL}}(p_\theta(z|x) \,\|\, q_\phi(z|x))$, the other direction of the divergence, averaged over dreams
      instead of data.

    The first has no gradient in the encoder, the second none in the decoder, so their sum can be maximized in one
    step. The sum is not a bound.

    Args:
        model: a `vaetut.VAE`, or any module with ``.encode(x)``, ``.prior`` and ``.likelihood(z)``.
        x: ``[batch, data]``.
        num_dreams: the number of dreams; by default the number of rows of x.

    Returns:
        ``wake [batch]`` and ``sleep [num_dreams]``.

    Raises:
        TypeError, ValueError: if x is not what the model takes, or ``num_dreams`` is not at least 1.

    Example:
        >>> from vaetut import VAE
        >>> _ = torch.manual_seed(0)
        >>> objectives = wake_sleep(VAE(data_dim=64, latent_dim=2, hidden_dim=10), torch.rand(5, 64).round())
        >>> objectives.wake.shape, objectives.sleep.shape
        (torch.Size([5]), torch.Size([5]))
    """
    dreams = len(x) if num_dreams is None else positive_int(num_dreams, "num_dreams")
    with torch.no_grad():
        z = model.encode(x).rsample()  # unlike sample() it passes NaN on, which the loop reports
    wake = model.likelihood(z).log_prob(x) + model.prior.log_prob(z)
    with torch.no_grad():
        z_dreamed = model.prior.sample((dreams,))
        x_dreamed = _sample(model, z_dreamed)
    sleep = model.encode(x_dreamed).log_prob(z_dreamed)
    return WakeSleep(wake, sleep)


def _sample(model: VAE, z: Tensor) -> Tensor:
    likelihood = model.likelihood(z)
    if is_bernoulli(likelihood):
        probability = likelihood.mean
        return (torch.rand_like(probability) < probability).to(z.dtype)
    return likelihood.sample()
