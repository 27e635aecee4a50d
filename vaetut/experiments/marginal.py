r"""The marginal likelihood $\log p(x)$ of a model without an encoder, in few latent dimensions: chapter 12.

AEVB's appendix D samples the posterior by HMC, fits a density to the draws, and takes the mean of
$q(z) / p(x, z)$ over posterior draws, which is $1 / p(x)$ (``eq-exp-reciprocal``). Here the same fitted density is a
proposal for importance sampling instead: this needs no exact draws from the posterior, is unbiased for p(x), and
allows a proposal with heavy tails, where the paper's estimator needs a density with light ones.
"""

import torch
from torch import Tensor

from vaetut._support.validate import positive_int
from vaetut.bounds import log_evidence
from vaetut.distributions import MultivariateStudentT
from vaetut.exact import LatentVariableModel
from vaetut.experiments.hmc import hmc
from vaetut.information import Estimate

_PRIOR_DRAWS = 200  # from which each chain's start is chosen
_DEGREES_OF_FREEDOM = 5.0  # of the proposal, whose tails must not be lighter than the posterior's


def marginal_likelihood(
    model: LatentVariableModel,
    x: Tensor,
    num_samples: int = 200,
    *,
    num_chain: int = 50,
    burn_in: int = 25,
    chunk: int = 250,
) -> Estimate:
    r"""Estimate $\log p(x)$ of each datapoint by HMC and importance sampling (AEVB, appendix D).

    1. HMC with 4 leapfrog steps draws ``num_chain`` values from p(z|x), after ``burn_in`` steps from one of 200
       draws from the prior, chosen with probability proportional to its likelihood.
    2. The proposal q is a Student t with their mean and covariance and 5 degrees of freedom.
    3. `vaetut.log_evidence` averages ``num_samples`` weights p(x, z) / q(z).

    As in the paper it is reliable only for few latent dimensions, fewer than five.

    Args:
        model: anything with ``.prior``, a normal of event shape ``[latent]``, and ``.likelihood(z)``.
        x: ``[batch, data]``.
        num_samples: draws of importance sampling.
        num_chain: draws of HMC to which the proposal is fitted.
        burn_in: steps of HMC that are discarded.
        chunk: datapoints that are processed at once.

    Returns:
        `Estimate` with shape ``[batch]``, in nats.

    Example:
        >>> from vaetut import LinearGaussian
        >>> model = LinearGaussian(torch.tensor([[1.0], [2.0]]), torch.zeros(2), 0.5)
        >>> x = torch.tensor([[0.3, 1.0], [0.0, -2.0]])
        >>> _ = torch.manual_seed(0)
        >>> error = marginal_likelihood(model, x, 1000).value - model.log_evidence(x)
        >>> bool(error.abs().max() < 0.1)
        True
    """
    positive_int(num_samples, "num_samples")
    parts = [_estimate(model, part, num_samples, num_chain, burn_in) for part in x.split(chunk)]
    return Estimate(
        torch.cat([part.value for part in parts]), torch.cat([part.standard_error for part in parts])
    )


def _estimate(
    model: LatentVariableModel, x: Tensor, num_samples: int, num_chain: int, burn_in: int
) -> Estimate:
    with torch.no_grad():
        candidates = model.prior.sample((_PRIOR_DRAWS,))
        # [batch, 200], one row at a time to save memory
        log_likelihood = torch.stack([model.likelihood(z).log_prob(x) for z in candidates], dim=-1)
        picked = torch.distributions.Categorical(logits=log_likelihood).sample()
    draws = hmc(
        lambda z: model.likelihood(z).log_prob(x) + model.prior.log_prob(z),
        candidates[picked],
        num_chain,
        burn_in=burn_in,
        num_leapfrog=4,
    ).z
    return log_evidence(model, _fitted(draws), x, num_samples)


def _fitted(draws: Tensor) -> MultivariateStudentT:
    """A Student t for each chain of ``draws [num_chain, batch, latent]``, with its mean and covariance."""
    mean = draws.mean(0)
    centered = (draws - mean).movedim(0, -1)  # [batch, latent, num_chain]
    covariance = centered @ centered.mT / draws.shape[0]
    # a chain that hardly moved has almost no variance: a thousandth of the prior's keeps the matrix invertible
    floor = 1e-3 * torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
    return MultivariateStudentT(
        mean.new_tensor(_DEGREES_OF_FREEDOM), mean, torch.linalg.cholesky(covariance + floor)
    )
