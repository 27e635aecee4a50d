r"""Hamiltonian Monte Carlo (Duane, Kennedy, Pendleton & Roweth 1987), for many chains at once: chapter 12.

AEVB samples posteriors with it, in Monte Carlo EM (appendix E) and to estimate the marginal likelihood (appendix D).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vaetut._support.validate import float_tensor, positive_int

LogDensity = Callable[[Tensor], Tensor]
"""An unnormalized log density: a function of ``z [..., latent]`` with values ``[...]``, one for each chain."""

TARGET_ACCEPTANCE = 0.9
_JITTER = 0.2  # each path's step size is drawn up to 20 % smaller or larger, so that paths do not return to their start


class HMCStep(NamedTuple):
    """The new states, ``[..., latent]``, and the probabilities with which the proposals were accepted, ``[...]``."""

    z: Tensor
    acceptance: Tensor


class HMCSamples(NamedTuple):
    """Draws ``[num_samples, ..., latent]``, the mean acceptance ``[...]`` and the step size of each chain ``[...]``."""

    z: Tensor
    acceptance: Tensor
    step_size: Tensor


def leapfrog(
    log_density: LogDensity, z: Tensor, momentum: Tensor, step_size: Tensor | float, num_steps: int
) -> tuple[Tensor, Tensor]:
    r"""Follow Hamilton's equations for $H(z, r) = -\log p(z) + \|r\|^2 / 2$ in ``num_steps`` steps of size h.

    One step (``eq-exp-leapfrog``) is half a step of the momentum, a step of the position, and half a step of the
    momentum. It is reversible by a change of sign of the momentum, preserves volume, and changes H only by O(h^2)
    over a fixed time.

    Args:
        log_density: $\log p$, up to a constant.
        z: positions, ``[..., latent]``.
        momentum: r, of the same shape.
        step_size: h, a number or ``[...]``, one for each chain.
        num_steps: the number of steps, at least 1.

    Returns:
        The positions and momenta at the end.

    Raises:
        ValueError: if ``num_steps`` is less than 1.

    Example:
        >>> z, r = leapfrog(lambda z: -0.5 * z.square().sum(-1), torch.tensor([1.0]), torch.tensor([0.0]), 0.1, 10)
        >>> z, r  # close to the cosine of 1, and minus its sine
        (tensor([0.5400]), tensor([-0.8406]))
    """
    positive_int(num_steps, "num_steps")
    h = _per_chain(step_size)
    momentum = momentum + h / 2 * _gradient(log_density, z)
    for remaining in range(num_steps - 1, -1, -1):
        z = z + h * momentum
        # two consecutive half steps of the momentum are one whole step
        momentum = momentum + (h if remaining else h / 2) * _gradient(log_density, z)
    return z, momentum


def hmc_step(
    log_density: LogDensity, z: Tensor, step_size: Tensor | float, num_leapfrog: int = 10
) -> HMCStep:
    r"""One step of every chain: a new momentum, ``num_leapfrog`` leapfrog steps, and a Metropolis decision.

    The end of the path is accepted with probability $\min(1, e^{H - H'})$ (``eq-exp-accept``), which corrects
    the error of the leapfrog steps exactly: the density is invariant for any step size.

    Each path's step size is drawn uniformly within 20 % of the given one. With a fixed one, all paths on a nearly
    Gaussian density can have the length of a whole period, and the chain does not move (Neal 2011, section 3.2).

    Args:
        log_density: the log density to draw from, up to a constant.
        z: the chains' states, ``[..., latent]``, float32 or float64.
        step_size: h, a number or ``[...]``.
        num_leapfrog: leapfrog steps.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> step = hmc_step(lambda z: -0.5 * z.square().sum(-1), torch.zeros(4, 2), 0.1)
        >>> step.z.shape, bool((step.acceptance > 0.99).all())
        (torch.Size([4, 2]), True)
    """
    z = float_tensor(z, "z").detach()
    momentum = torch.randn_like(z)
    sizes = step_size * (1 + _JITTER * (2 * torch.rand_like(z[..., 0]) - 1))
    new_z, new_momentum = leapfrog(log_density, z, momentum, sizes, num_leapfrog)
    with torch.no_grad():
        gain = log_density(new_z) - log_density(z) + _kinetic(momentum) - _kinetic(new_momentum)
        acceptance = gain.nan_to_num(nan=-torch.inf).exp().clamp(max=1)  # a path that overflowed is rejected
        accepted = torch.rand_like(acceptance) < acceptance
        return HMCStep(torch.where(accepted.unsqueeze(-1), new_z, z), acceptance)


def adapt(step_size: Tensor, acceptance: Tensor, rate: float = 0.2) -> Tensor:
    r"""The step size, increased if more than 90 % is accepted, decreased if less: $h\, e^{\kappa (a - 0.9)}$.

    Example:
        >>> adapt(torch.tensor([0.1, 0.1]), torch.tensor([1.0, 0.2]))
        tensor([0.1020, 0.0869])
    """
    return step_size * torch.exp(rate * (acceptance - TARGET_ACCEPTANCE))


def hmc(
    log_density: LogDensity,
    z: Tensor,
    num_samples: int,
    *,
    burn_in: int = 100,
    num_leapfrog: int = 10,
    step_size: float = 0.1,
) -> HMCSamples:
    """Draw from a density, many chains at once, each with its own step size.

    The step size of a chain is adapted to an acceptance of 90 % during ``burn_in`` steps, which are discarded, and
    then fixed, since a chain that continues to adapt need not have the target as its stationary distribution.

    Args:
        log_density: a function of ``z [..., latent]``, one value for each chain.
        z: the initial states of the chains, ``[..., latent]``.
        num_samples: draws of each chain.
        burn_in: the number of steps before the draws.
        num_leapfrog: leapfrog steps between two draws.
        step_size: the initial step size.

    Returns:
        `HMCSamples`.

    Raises:
        TypeError: if z is not a float32 or float64 tensor.
        ValueError: if ``num_samples`` is less than 1.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> draws = hmc(lambda z: -0.5 * z.square().sum(-1), torch.zeros(500, 2), 100)
        >>> draws.z.shape, round(float(draws.z.var()), 1)
        (torch.Size([100, 500, 2]), 1.0)
    """
    positive_int(num_samples, "num_samples")
    sizes = torch.full_like(float_tensor(z, "z")[..., 0], step_size)
    for t in range(burn_in):
        z, acceptance = hmc_step(log_density, z, sizes, num_leapfrog)
        sizes = adapt(sizes, acceptance, rate=2 / (1 + t) ** 0.5)  # with large changes first
    draws, accepted = [], torch.zeros_like(sizes)
    for _ in range(num_samples):
        z, acceptance = hmc_step(log_density, z, sizes, num_leapfrog)
        draws.append(z)
        accepted += acceptance
    return HMCSamples(torch.stack(draws), accepted / num_samples, sizes)


def _gradient(log_density: LogDensity, z: Tensor) -> Tensor:
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        # the chains are independent, so the gradient of the sum contains that of each
        return torch.autograd.grad(log_density(z).sum(), z)[0]


def _kinetic(momentum: Tensor) -> Tensor:
    return momentum.square().sum(-1) / 2


def _per_chain(step_size: Tensor | float) -> Tensor | float:
    return step_size.unsqueeze(-1) if isinstance(step_size, Tensor) and step_size.dim() else step_size
