"""What a step of `vaetut.train` is made of: objective, ranks, modes, an epoch's mean (chapter 11)."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from vaetut.aevb.rng import random_state
from vaetut.data import binarize as black_and_white

_VALIDATION_BATCH = 1000  # without gradients a larger batch fits, and is faster


class Objective(nn.Module):
    """The bound as a module, which holds the model's parameters and, where they fit on the device, the data.

    It is then called with indices of the data and not with the data themselves, whose dtype a wrapper would change.
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
        """The parameters that take part."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]


class Communicator:
    """The processes that train together: here there is one rank. `vaetut.aevb.fabric` has more."""

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
        """The mean of the ``number`` values that all ranks have together."""
        return torch.cat(values).mean()

    def random_states(self) -> list[list[Tensor]]:
        """The state of torch's random numbers in each rank."""
        return [random_state(self.device)]

    def autocast(self) -> Any:
        """A context in which a module computes as it does in training."""
        return nullcontext()


def training_modes(model: nn.Module) -> dict[nn.Module, bool]:
    """Which parts of a model are in training mode while it is trained.

    A part in evaluation mode inside of a model in training mode is one that its owner keeps fixed, and stays so. A
    model that is in evaluation mode as a whole, such as one that was loaded, is put into training mode as a whole.
    """
    before = {module: module.training for module in model.modules()}
    if not model.training:
        model.train()
    modes = {module: module.training for module in model.modules()}
    set_modes(before)
    return modes


def set_modes(modes: dict[nn.Module, bool]) -> None:
    """Put each part of a model into its mode."""
    for module, mode in modes.items():
        module.training = mode


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model is in evaluation mode, and afterwards each of its parts in the mode that it had."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        set_modes(modes)


@torch.no_grad()
def evaluate(objective: Objective, source: Any, batch_size: int, communicator: Communicator) -> list[Tensor]:
    """The bounds of all validation data, with the parameters as they are."""
    size = max(batch_size, _VALIDATION_BATCH)
    with communicator.autocast():
        if isinstance(source, Tensor):
            return [objective.of(x) for x in torch.split(communicator.share(source), size) if len(x)]
        shares = map(communicator.share, source.chunks(size))
        return [objective.of(pixels(x, objective.binarize)) for x in shares if len(x)]


def mean_bound(
    bounds: list[Tensor], number: int, which: str, epoch: int, rate: float, communicator: Communicator
) -> float:
    """The mean of an epoch's bounds. Only here does the host wait for the device."""
    mean = communicator.mean(bounds, number).item()
    if not math.isfinite(mean):
        bad = [k for k, batch in enumerate(bounds, 1) if not torch.isfinite(batch).all()]
        where = f"step {bad[0]}" if bad else "in another process"
        raise FloatingPointError(
            f"the {which} bound is not finite, first in epoch {epoch}, {where}; the model's parameters are "
            f"no longer usable. Likely causes: a learning rate that is too large (now {rate:g}), by all of which "
            "the first step of Adagrad or Adam moves each parameter; data far from unit scale; a Gaussian "
            "likelihood on data with a constant column, whose density has no upper limit"
        )
    return mean


def pixels(x: Tensor, how: str) -> Tensor:
    """The data as the bound gets them."""
    return x if how == "none" else black_and_white(x, how)


class BestEpoch:
    """The best validation bound so far, its epoch and the parameters then; without ``patience`` it keeps nothing."""

    def __init__(self, patience: int | None) -> None:
        self.patience, self.epoch, self.bound = patience, 0, -math.inf
        self.parameters: dict[str, Tensor] = {}

    def update(self, epoch: int, bound: float, model: nn.Module) -> None:
        """Take note of an epoch."""
        if self.patience is not None and bound > self.bound:
            self.epoch, self.bound = epoch, bound
            self.parameters = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def is_enough(self, epoch: int) -> bool:
        """Whether ``patience`` epochs have passed since the best one."""
        return self.patience is not None and self.epoch > 0 and epoch - self.epoch >= self.patience

    def restore(self, model: nn.Module) -> None:
        """Give the model the best epoch's parameters."""
        if self.parameters:
            model.load_state_dict(self.parameters)

    def state_dict(self) -> dict[str, Any]:
        """All of it but ``patience``."""
        return {"epoch": self.epoch, "bound": self.bound, "model": self.parameters}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.epoch, self.bound, self.parameters = state["epoch"], state["bound"], state["model"]
