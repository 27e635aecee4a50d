"""Monte Carlo EM with Hamiltonian Monte Carlo, the third algorithm of AEVB's figure 3 (appendix E): chapter 12."""

from typing import Any

from torch import Tensor

from vaetut.aevb import rng
from vaetut.experiments.hmc import adapt, hmc_step
from vaetut.experiments.trainer import Loop
from vaetut.models import VAE

NUM_LEAPFROG = 10
NUM_UPDATES = 5


def complete_log_likelihood(model: VAE, x: Tensor, z: Tensor) -> Tensor:
    r"""$\log p_\theta(x, z) = \log p_\theta(x|z) + \log p(z)$ for ``x [M, D]`` and ``z [M, J]``: ``[M]`` in nats.

    Example:
        >>> import torch
        >>> from vaetut.experiments.trainer import new_model
        >>> model = new_model(64, 2, 20, seed=0)
        >>> complete_log_likelihood(model, torch.ones(5, 64), torch.zeros(5, 2)).shape
        torch.Size([5])
    """
    return model.likelihood(z).log_prob(x) + model.prior.log_prob(z)


class MonteCarloEM(Loop):
    r"""Train only the decoder, on codes drawn from its own posterior; there is no encoder.

    For each minibatch one step of HMC, 10 leapfrog steps long, moves the codes of its datapoints towards
    $p_\theta(z|x)$; then the decoder takes 5 steps of Adagrad that increase $\log p_\theta(x, z)$ at these codes
    (``eq-exp-fisher``: its mean over the posterior has the gradient of $\log p_\theta(x)$). The code of a datapoint
    is kept until its next visit, so each datapoint has its own chain, which starts at a draw from the prior.

    All chains share a step size, which is adapted to an acceptance of 90 % (the paper's appendix E) and never frozen,
    unlike that of `hmc`: the posteriors move with the decoder, and a step size that suits the first decoder does
    not suit the last. A chain that adapts need not keep its target exactly. Here it nearly does, since most of the
    acceptances that set the step size for a datapoint are those of other datapoints.

    Each update counts as M training samples evaluated, as it does for the other algorithms; the 10 passes of the
    leapfrog steps are not counted, although they take most of the time.

    Args:
        model: its decoder is trained in place.
        x: ``[N, D]``, black and white: with pixels drawn at each visit the posterior would change, and with it the
            target of the chain.
        learning_rate: Adagrad's.
        seed: fixes codes, minibatches and noise.

    Example:
        >>> from vaetut import load
        >>> from vaetut.experiments.trainer import new_model
        >>> x = load("digits").train.round()
        >>> trainer = MonteCarloEM(new_model(64, 2, 20, seed=0), x, learning_rate=0.02)
        >>> trainer.advance(1000)
        >>> trainer.visits, trainer.samples
        (2, 1000)
    """

    updates_per_visit = NUM_UPDATES

    def __init__(self, model: VAE, x: Tensor, *, learning_rate: float, seed: int = 0) -> None:
        super().__init__(model, x, learning_rate=learning_rate, seed=seed)
        if self.is_gray:
            raise ValueError(
                "x must be black and white, each pixel 0 or 1; draw it once with vaetut.binarize"
            )
        with rng.seeded(seed):
            self.z = model.prior.sample((len(x),))
        self.step_size = x.new_tensor(0.1)
        self.acceptance = x.new_tensor(1.0)

    def step(self, batch: Tensor, index: Tensor) -> Tensor:
        """Update the codes of the minibatch, then the decoder; return the last mean of log p(x, z)."""
        move = hmc_step(
            lambda z: complete_log_likelihood(self.model, batch, z),
            self.z[index],
            self.step_size,
            NUM_LEAPFROG,
        )
        self.z[index] = move.z
        self.acceptance = move.acceptance.mean()
        self.step_size = adapt(self.step_size, self.acceptance)
        for _ in range(NUM_UPDATES):
            value = complete_log_likelihood(self.model, batch, move.z).mean()
            self.raise_objective(value)
        return value.detach()

    def state_dict(self) -> dict[str, Any]:
        """The state of a `Loop`, the codes and the step size."""
        return super().state_dict() | {"z": self.z, "step_size": self.step_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        super().load_state_dict(state)
        self.z, self.step_size = state["z"].clone(), state["step_size"].clone()
