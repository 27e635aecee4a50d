"""Training on several devices for `vaetut.train`, with Lightning Fabric and torch.distributed: chapter 11."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vaetut.aevb.rng import random_state
from vaetut.aevb.step import Communicator

_STRATEGIES = ("SingleDeviceStrategy", "DDPStrategy")  # those in which each process holds all parameters
_PRECISIONS = {"32-true": torch.float32, "bf16-mixed": torch.float32, "64-true": torch.float64}


class FabricCommunicator(Communicator):
    """One replica of the model in each rank of a `lightning_fabric.Fabric`.

    All ranks use the same permutation. Each takes its share of every minibatch, with its own random numbers; the
    gradients are averaged, so that all take the same step. With fewer datapoints than ranks, idle ranks still process
    one datapoint to join the all-reduce; its loss is dropped.
    """

    def __init__(self, fabric: Any, dtype: torch.dtype) -> None:
        missing = [name for name in ("setup_module", "all_reduce", "world_size") if not hasattr(fabric, name)]
        if missing:
            raise TypeError(f"fabric must be a lightning_fabric.Fabric, got {type(fabric).__name__}")
        strategy, precision = type(fabric.strategy).__name__, str(fabric.strategy.precision.precision)
        if strategy not in _STRATEGIES:
            raise ValueError(
                f"fabric must have strategy 'ddp' or 'auto', so that each process holds all parameters, got {strategy}"
            )
        if _PRECISIONS.get(precision) != dtype:
            raise ValueError(
                f"fabric must have precision {' or '.join(n for n, t in _PRECISIONS.items() if t == dtype)} for "
                f"a model of {dtype}, got {precision}"
            )
        super().__init__(fabric.device)
        self.fabric = fabric
        self.rank, self.size = fabric.global_rank, fabric.world_size
        self.kind = f"{self.size} of Fabric, {precision}"

    def seed(self, seed: int) -> int:
        """Each rank has its own random numbers; those of rank 0 are those of a single process."""
        return (seed + self.rank * 0x9E3779B97F4A7C15) % 2**64 if self.rank else seed

    def wrap(
        self, module: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[Any, Callable[[Tensor], Any], Any]:
        """DistributedDataParallel averages the gradients while the backward pass still runs."""
        return self.fabric.setup_module(module), self.fabric.backward, self.fabric.setup_optimizers(optimizer)

    def order(self, number: int, on_device: bool) -> Tensor:
        """The permutation of rank 0."""
        order = super().order(number, on_device)
        return order if self.size == 1 else self.fabric.broadcast(order).to(order.device)

    def share(self, minibatch: Tensor) -> Tensor:
        """Every ``size``-th datapoint: the sizes of the shares differ by at most one, and may be 0."""
        return minibatch[self.rank :: self.size]

    def loss(self, bound: Tensor, minibatch_size: int) -> Tensor:
        """Shares are weighted by their length, so that the mean over ranks is that of the minibatch."""
        if self.size == 1:
            return super().loss(bound, minibatch_size)
        return -bound.sum() * (self.size / minibatch_size)

    def mean(self, values: list[Tensor], number: int) -> Tensor:
        """The sum over all ranks, divided by ``number``."""
        if self.size == 1:
            return super().mean(values, number)
        mine = (
            torch.stack([value.sum() for value in values]).sum()
            if values
            else torch.zeros((), device=self.device)
        )
        return self.fabric.all_reduce(mine, reduce_op="sum") / number

    def random_states(self) -> list[list[Tensor]]:
        """The states of all ranks, gathered in each rank."""
        mine = random_state(self.device)
        if self.size == 1:
            return [mine]
        kinds = [self.fabric.all_gather(state.to(self.device)).cpu() for state in mine]
        return [[kind[rank].clone() for kind in kinds] for rank in range(self.size)]

    def autocast(self) -> Any:
        """Fabric's precision, for code outside of the module that it wraps."""
        return self.fabric.autocast()
