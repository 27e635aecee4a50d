"""The parts of a step of `vaetut.train`: objective, ranks, modes, an epoch's mean (chapter 11)."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from vaetut.aevb.rng import random_state
from vaetut.data import binarize as black_and_white

_VALIDATION_BATCH = 1000  # without gradients a larger batch fits in memory, and is faster


class Objective(nn.Module):
    """The bound as a module, which holds the model's parameters and, if they fit on the device, the data.

    In that case it is called with indices of the data, not with the data, whose dtype a wrapper would change.
    """

    def __init__(
        self,
        model: nn.Module,
        bound: Callable[..., Tensor],
        num_samples: int,
        x: Tensor | None,
        binarize: str,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.bound = bound
        self.num_samples = num_samples
        self.x = x
        self.binarize = binarize

    def forward(self, minibatch: Tensor) -> Tensor:
        """The bounds, ``[M]``, of a minibatch: of the data's rows with these indices, or of these values."""
        rows = minibatch if self.x is None else self.x.index_select(0, minibatch)
        return self.of(pixels(rows, self.binarize))

    def of(self, x: Tensor) -> Tensor:
        """The bounds of ``x [M, D]``."""
        return self.bound(self.model, self.model.encode(x), x, self.num_samples)

    def trained(self) -> list[nn.Parameter]:
        """The parameters that require a gradient."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]


class Communicator:
    """The ranks that train together: here only one; `vaetut.aevb.fabric` has several."""

    rank, size = 0, 1
    kind = "one process"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def seed(self, seed: int) -> int:
        """The seed of the random numbers of this rank."""
        return seed

    def wrap(
        self, module: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[Any, Callable[[Tensor], Any], Any]:
        """The module and the optimizer of a step, and the function that starts its backward pass."""
        return module, torch.Tensor.backward, optimizer

    def order(self, number: int, on_device: bool) -> Tensor:
        """A new permutation, the same in all ranks."""
        return torch.randperm(number, device=self.device if on_device else "cpu")

    def share(self, minibatch: Tensor) -> Tensor:
        """The part of the minibatch that this rank takes."""
        return minibatch

    def loss(self, bound: Tensor, minibatch_size: int) -> Tensor:
        """The loss whose gradients, averaged over the ranks, are those of ``-bound.mean()`` over the minibatch."""
        return -bound.mean()

    def mean(self, values: list[Tensor], number: int) -> Tensor:
        """The mean of the ``number`` values of all ranks together."""
        return torch.cat(values).mean()

    def random_states(self) -> list[list[Tensor]]:
        """The state of torch's random numbers in each rank."""
        return [random_state(self.device)]

    def autocast(self) -> Any:
        """A context with the precision of training."""
        return nullcontext()


def training_modes(model: nn.Module) -> dict[nn.Module, bool]:
    """Which parts of a model are in training mode while it is trained.

    A part in evaluation mode inside of a model in training mode was frozen by the user, and stays in evaluation mode.
    If the whole model is in evaluation mode, as a loaded one is, all of it is put into training mode.
    """
    before = {module: module.training for module in model.modules()}
    if not model.training:
        model.train()
    modes = {module: module.training for module in model.modules()}
    set_modes(before)
    return modes


def set_modes(modes: dict[nn.Module, bool]) -> None:
    """Set the mode of each part of a model."""
    for module, mode in modes.items():
        module.training = mode


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode, and restore the mode of each of its parts at the end."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        set_modes(modes)


@torch.no_grad()
def evaluate(objective: Objective, source: Any, batch_size: int, communicator: Communicator) -> list[Tensor]:
    """The bounds of all validation data with the current parameters."""
    size = max(batch_size, _VALIDATION_BATCH)
    with communicator.autocast():
        if isinstance(source, Tensor):
            return [objective.of(x) for x in torch.split(communicator.share(source), size) if len(x)]
        shares = map(communicator.share, source.chunks(size))
        return [objective.of(pixels(x, objective.binarize)) for x in shares if len(x)]


def epoch_mean(
    bounds: list[Tensor], number: int, which: str, epoch: int, rate: float, communicator: Communicator
) -> float:
    """The mean of an epoch's bounds. Only here does the host wait for the device."""
    mean = communicator.mean(bounds, number).item()
    if not math.isfinite(mean):
        bad = [k for k, batch in enumerate(bounds, 1) if not torch.isfinite(batch).all()]
        where = f"step {bad[0]}" if bad else "in another process"
        raise FloatingPointError(
            f"the {which} bound is not finite, first in epoch {epoch}, {where}; the model's parameters are "
            f"no longer usable. Likely causes: a learning rate that is too large (now {rate:g}; the first step of "
            "Adagrad or Adam moves each parameter by the whole learning rate); data far from unit scale; a Gaussian "
            "likelihood on data with a constant column, whose density has no upper limit"
        )
    return mean


def pixels(x: Tensor, how: str) -> Tensor:
    """The data in the form in which the bound uses them."""
    return x if how == "none" else black_and_white(x, how)


class BestEpoch:
    """The best validation bound so far, its epoch and its parameters; without ``patience`` it stores nothing."""

    def __init__(self, patience: int | None) -> None:
        self.patience, self.epoch, self.bound = patience, 0, -math.inf
        self.parameters: dict[str, Tensor] = {}

    def update(self, epoch: int, bound: float, model: nn.Module) -> None:
        """Record an epoch."""
        if self.patience is not None and bound > self.bound:
            self.epoch, self.bound = epoch, bound
            self.parameters = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def is_enough(self, epoch: int) -> bool:
        """Whether ``patience`` epochs have passed since the best one."""
        return self.patience is not None and self.epoch > 0 and epoch - self.epoch >= self.patience

    def restore(self, model: nn.Module) -> None:
        """Load the best epoch's parameters into the model."""
        if self.parameters:
            model.load_state_dict(self.parameters)

    def state_dict(self) -> dict[str, Any]:
        """The state, without ``patience``."""
        return {"epoch": self.epoch, "bound": self.bound, "model": self.parameters}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the output of `state_dict`."""
        self.epoch, self.bound, self.parameters = state["epoch"], state["bound"], state["model"]
