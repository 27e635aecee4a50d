"""The training loop of AEVB's experiments, for curves over *training samples evaluated*: chapter 12.

`vaetut.train` counts epochs and keeps the bound of each. A curve against samples on a logarithmic axis, by several
algorithms, needs a loop that trains to any number of samples and can be saved there.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vaetut._support.validate import checks, one_of
from vaetut.aevb import rng
from vaetut.aevb.optimizers import OPTIMIZERS
from vaetut.bounds import sgvb_b
from vaetut.data import binarize
from vaetut.experiments.wake_sleep import wake_sleep
from vaetut.models import VAE

BATCH_SIZE = 100  # M of the paper
LEARNING_RATES = (0.01, 0.02, 0.1)  # of Adagrad, in the paper
INITIAL_SCALE = 0.1  # the paper draws every parameter from N(0, 0.01): a variance of 0.01

Objective = Callable[[VAE, Tensor], Tensor]
"""A function of the model and a minibatch ``[M, D]``, to be maximized: one number."""


def aevb_objective(model: VAE, x: Tensor) -> Tensor:
    """The mean bound of a minibatch, by `vaetut.sgvb_b` with one sample per datapoint."""
    return sgvb_b(model, model.encode(x), x).mean()


def wake_sleep_objective(model: VAE, x: Tensor) -> Tensor:
    """The mean of both objectives of `wake_sleep` over a minibatch and an equal number of dreams."""
    wake, sleep = wake_sleep(model, x)
    return wake.mean() + sleep.mean()


OBJECTIVES: dict[str, Objective] = {"AEVB": aevb_objective, "wake-sleep": wake_sleep_objective}


class Loop(ABC):
    r"""The common part of all algorithms: minibatches, Adagrad, random numbers, and the count of samples.

    The criterion of the paper is MAP: a prior $\mathcal N(0, I)$ on all parameters subtracts
    $\|\theta\|^2 / 2N$ from the objective per datapoint, which is a weight decay of 1/N. The optimizer is Adagrad,
    minibatches are slices of a new permutation for each epoch, and their gray pixels are drawn again each time.

    Args:
        model: trained in place.
        x: ``[N, D]``, the training data; black and white already, or gray.
        learning_rate: the optimizer's.
        seed: fixes the minibatches and the noise.
        optimizer: ``"adagrad"``, or another name that `vaetut.train` accepts; Adam is younger than the paper.
    """

    updates_per_visit = 1

    def __init__(
        self,
        model: VAE,
        x: Tensor,
        *,
        learning_rate: float,
        seed: int = 0,
        optimizer: str = "adagrad",
    ) -> None:
        if len(x) < BATCH_SIZE:
            raise ValueError(f"x must have at least {BATCH_SIZE} rows, one minibatch, got {len(x)}")
        self.model, self.x, self.seed = model, x, seed
        self.is_gray = bool(((x > 0) & (x < 1)).any())
        kind: Any = OPTIMIZERS[one_of(optimizer, "optimizer", OPTIMIZERS)][0]
        self.optimizer: torch.optim.Optimizer = kind(
            model.parameters(), lr=learning_rate, weight_decay=1 / len(x), fused=True
        )
        self.visits = 0  # minibatches drawn
        self.seconds = self.cpu_seconds = 0.0
        self._random_state = torch.Generator().manual_seed(seed).get_state()
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    @property
    def samples(self) -> int:
        """Training samples evaluated: datapoints times updates of the parameters."""
        return self.visits * BATCH_SIZE * self.updates_per_visit

    def advance(self, samples: int) -> None:
        """Train until at least this many training samples have been evaluated in total.

        Raises:
            FloatingPointError: if the objective is no longer finite.
        """
        start, cpu_start = time.perf_counter(), time.process_time()
        last = torch.zeros(())
        with rng.unchanged(), checks(False):
            torch.set_rng_state(self._random_state)
            while self.samples < samples:
                index = self._next_index()
                batch = self.x[index]
                last = self.step(binarize(batch) if self.is_gray else batch, index)
                self.visits += 1
            self._random_state = torch.get_rng_state()
        self.seconds += time.perf_counter() - start
        self.cpu_seconds += time.process_time() - cpu_start
        if not math.isfinite(float(last)):
            raise FloatingPointError(
                f"the objective is not finite after {self.samples} samples; the learning rate, "
                f"{self.optimizer.param_groups[0]['lr']:g}, may be too large"
            )

    @abstractmethod
    def step(self, batch: Tensor, index: Tensor) -> Tensor:
        """Train on one minibatch, the rows ``index`` of the data; return the objective before the update."""

    def raise_objective(self, value: Tensor) -> None:
        """Take one step of the optimizer that increases ``value``."""
        loss: Any = -value
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs for a bit-exact continuation: plain tensors, numbers and dicts."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random_state": self._random_state,
            "visits": self.visits,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._random_state = state["random_state"]
        self.visits = state["visits"]
        self.seconds, self.cpu_seconds = state["seconds"], state["cpu_seconds"]

    def _next_index(self) -> Tensor:
        """The rows of the next minibatch. The order depends only on seed and epoch, so it is not saved."""
        epoch, position = divmod(self.visits, len(self.x) // BATCH_SIZE)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(1_000_003 * self.seed + epoch)
            self._order, self._epoch = torch.randperm(len(self.x), generator=generator), epoch
        return self._order[position * BATCH_SIZE :][:BATCH_SIZE]


class Trainer(Loop):
    """The training of one learning curve, by an algorithm that maximizes an objective of model and minibatch.

    Args:
        model: trained in place.
        x: ``[N, D]``, the training data; black and white already, or gray.
        objective: the function to maximize.
        learning_rate: the optimizer's.
        seed: fixes the minibatches and the noise.
        optimizer: as for `Loop`.

    Example:
        >>> from vaetut import load
        >>> x = load("digits").train
        >>> trainer = Trainer(new_model(64, 2, 20, seed=0), x, aevb_objective, learning_rate=0.02)
        >>> trainer.advance(1000)
        >>> trainer.samples
        1000
    """

    def __init__(
        self,
        model: VAE,
        x: Tensor,
        objective: Objective,
        *,
        learning_rate: float,
        seed: int = 0,
        optimizer: str = "adagrad",
    ) -> None:
        super().__init__(model, x, learning_rate=learning_rate, seed=seed, optimizer=optimizer)
        self.objective = objective

    def step(self, batch: Tensor, index: Tensor) -> Tensor:
        """Take a step on the objective of one minibatch; return its value before the step."""
        value = self.objective(self.model, batch)
        self.raise_objective(value)
        return value.detach()


def new_model(data_dim: int, latent_dim: int, hidden_dim: int, *, seed: int) -> VAE:
    """A float32 `vaetut.VAE` with all parameters drawn from N(0, 0.01), the paper's initialization.

    Example:
        >>> model = new_model(64, 2, 20, seed=0)
        >>> round(model.encoder[0].weight.std().item(), 2)
        0.1
    """
    with rng.seeded(seed):
        model = VAE(data_dim, latent_dim, hidden_dim).float()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=INITIAL_SCALE)
    return model


def pick_learning_rate(
    make: Callable[[float], Loop], score: Callable[[Any], float], samples: int = 10_000
) -> tuple[float, dict[str, float]]:
    """The rate among ``LEARNING_RATES`` with the best score after a trial.

    The paper chose by "performance on the training set in the first few iterations". That favors large rates: one
    that is best after 500 steps can fail later, so figure 3 tries each rate for the whole run.

    Args:
        make: a new trainer with that learning rate.
        score: the performance on the training set; larger is better.
        samples: training samples evaluated in each trial.

    Returns:
        The rate, and the scores of all rates, NaN for one that diverged.
    """
    scores: dict[str, float] = {}
    for rate in LEARNING_RATES:
        trainer = make(rate)
        try:
            trainer.advance(samples)
            scores[f"{rate:g}"] = score(trainer)
        except FloatingPointError:
            scores[f"{rate:g}"] = math.nan
    usable = {rate: value for rate, value in scores.items() if math.isfinite(value)}
    if not usable:
        raise FloatingPointError(f"training diverged with every learning rate of {LEARNING_RATES}")
    return float(max(usable, key=lambda rate: usable[rate])), scores


@torch.no_grad()
def mean_bound(model: VAE, x: Tensor, seed: int = 0) -> float:
    """The mean bound in nats over black-and-white ``x [N, D]``, one sample each, with the same noise at each call.

    Example:
        >>> from vaetut import load
        >>> model = new_model(64, 2, 20, seed=0)
        >>> mean_bound(model, load("digits").test.round()) < -40  # 64 fair coins have -44.4
        True
    """
    with rng.seeded(seed), checks(False):
        return float(
            torch.cat([sgvb_b(model, model.encode(part), part) for part in x.split(1000)]).double().mean()
        )


def fixed_binarization(x: Tensor, seed: int = 0) -> Tensor:
    """Black-and-white images drawn once with the gray values as probabilities, the same for every curve."""
    return binarize(x, generator=torch.Generator().manual_seed(seed))
