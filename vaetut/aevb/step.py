"""The loop of `vaetut.train`, chapter 11: one epoch of steps, one evaluation, and what surrounds them."""

import importlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaetut.data import binarize as black_and_white

_VALIDATION_BATCH = 1000  # without gradients a larger batch fits, and is faster


class BoundModule(nn.Module):
    """The bound as a module, which holds the model's parameters and the data ``[N, D]``.

    It is called with indices of the data and not with the data themselves, whose dtype a wrapper would change.
    """

    def __init__(
        self, model: nn.Module, bound: Callable[..., Tensor], num_samples: int, x: Tensor, binarize: str
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.bound = bound
        self.num_samples = num_samples
        self.x = x
        self.binarize = binarize

    def forward(self, index: Tensor) -> Tensor:
        """The bounds, ``[M]``, of the minibatch with these indices."""
        return self.of(pixels(self.x.index_select(0, index), self.binarize))

    def of(self, batch: Tensor) -> Tensor:
        """The bounds of ``batch [M, D]``."""
        return self.bound(self.model, self.model.encode(batch), batch, self.num_samples)


class Processes:
    """The processes that train together: here there is one. `vaetut.aevb.fabric` has more."""

    rank, size = 0, 1
    kind = "one process"

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def seed(self, seed: int) -> int:
        """The seed of the random numbers of this process."""
        return seed

    def wrap(
        self, module: nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[Any, Callable[[Tensor], Any], Any]:
        """The module and the optimizer of a step, and the function that starts its backward pass."""
        return module, torch.Tensor.backward, optimizer

    def order(self, number: int) -> Tensor:
        """A new permutation, the same in all processes."""
        return torch.randperm(number, device=self.device)

    def share(self, index: Tensor) -> Tensor:
        """The part of the data that this process takes."""
        return index

    def loss(self, values: Tensor, batch_size: int) -> Tensor:
        """The loss whose gradients, averaged over the processes, are those of the minibatch's mean."""
        return -values.mean()

    def mean(self, values: list[Tensor], number: int) -> Tensor:
        """The mean of ``number`` values, which all processes have together."""
        return torch.cat(values).mean()

    def random_states(self) -> list[list[Tensor]]:
        """The state of torch's random numbers in each process."""
        return [random_state(self.device)]

    def autocast(self) -> Any:
        """A context in which a module computes as it does in training."""
        return nullcontext()


def make_step(
    module: BoundModule, optimizer: torch.optim.Optimizer, processes: Processes, compile: bool
) -> Callable[[Tensor], Tensor]:
    """The function that takes one step, given the indices of a minibatch; it returns its bounds."""
    if compile:
        return _make_compiled_step(module, optimizer)
    forward, backward, ascend = processes.wrap(module, optimizer)
    parameters = _trained(module)

    def step(index: Tensor) -> Tensor:
        mine = processes.share(index)
        # A process without a share computes on what is another's, for it has to take part; it counts as none.
        values = forward(mine) if len(mine) else forward(index[:1])[:0]
        loss = processes.loss(values, len(index))
        for parameter in parameters:  # what zero_grad does, without its bookkeeping
            parameter.grad = None
        backward(loss)
        ascend.step()
        return values.detach()

    return step


def _make_compiled_step(module: BoundModule, optimizer: torch.optim.Optimizer) -> Callable[[Tensor], Tensor]:
    """The step of one process, with all up to the gradients in one graph of `torch.compile`.

    The optimizer's own kernel follows, which is as fast as a compiled one.
    """
    parameters = _trained(module)

    def bounds(index: Tensor) -> Tensor:
        return module(index)

    def differentiate(index: Tensor) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        values = bounds(index)
        return values.detach(), torch.autograd.grad(-values.mean(), parameters, allow_unused=True)

    if hasattr(torch._dynamo.config, "trace_autograd_ops"):
        # On a CPU: kernels that are called from C++, and tanh as an exponential, which is right to 1e-7 and not to an
        # ulp. Both together save a twenty-fifth of a step.
        on_cpu = {"cpp_wrapper": True, "cpp.use_decompose_tanh": True}
        differentiate = _compiled(differentiate, on_cpu if module.x.device.type == "cpu" else {})
    else:  # an older torch: the backward pass has a graph of its own
        bounds = _compiled(bounds, {})

    def step(index: Tensor) -> Tensor:
        values, gradients = differentiate(index)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        return values

    return step


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _compiled(function: Any, options: dict[str, Any]) -> Any:
    """``function`` of the indices of a minibatch, compiled for each size of it by itself.

    Code for any size would round in another way, and a resumed run would not be the same to the bit.
    """
    by_size: dict[int, Any] = {}

    def call(index: Tensor) -> Any:
        size = len(index)
        if size not in by_size:
            # Dynamo keeps what it compiled with the code: this is new code, for this run and size alone.
            code = function.__code__.replace(co_name=f"{function.__name__}_{size}_{id(by_size)}")
            new = FunctionType(code, function.__globals__, closure=function.__closure__)
            # torch's own random numbers: those of a step that is not compiled, and made faster than the compiler's
            by_size[size] = torch.compile(
                new, dynamic=False, fullgraph=True, options={"fallback_random": True, **options}
            )
        try:
            return by_size[size](index)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise ValueError(
                f"compile must be False for this model and bound: torch.compile fails ({error})"
            ) from error

    return call


def run_epoch(
    step: Callable[[Tensor], Tensor], number: int, batch_size: int, processes: Processes
) -> list[Tensor]:
    """A step for each minibatch of a new permutation of ``number`` datapoints. Returns the bounds of each."""
    return [step(index) for index in torch.split(processes.order(number), batch_size)]


@torch.no_grad()
def evaluate(module: BoundModule, x: Tensor, batch_size: int, processes: Processes) -> list[Tensor]:
    """The bounds of all of ``x``, with the parameters as they are."""
    mine = processes.share(x)
    with processes.autocast():
        return [
            module.of(batch) for batch in torch.split(mine, max(batch_size, _VALIDATION_BATCH)) if len(batch)
        ]


def mean_bound(
    bounds: list[Tensor], number: int, which: str, epoch: int, rate: float, processes: Processes
) -> float:
    """The mean of an epoch's bounds. Only here does the host wait for the device."""
    mean = processes.mean(bounds, number).item()
    if not math.isfinite(mean):
        bad = [k for k, batch in enumerate(bounds, 1) if not torch.isfinite(batch).all()]
        where = f"step {bad[0]}" if bad else "in another process"
        raise FloatingPointError(
            f"the {which} bound is not finite, first in epoch {epoch}, {where}; the model's parameters are "
            f"of no more use. Likely causes: a learning rate that is too large (now {rate:g}), by all of which "
            "the first step of Adagrad or Adam moves each parameter; data far from unit scale; a Gaussian "
            "likelihood on data with a constant column, whose density has no upper limit"
        )
    return mean


def pixels(x: Tensor, how: str) -> Tensor:
    """The data as the bound gets them."""
    return x if how == "none" else black_and_white(x, how)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's random numbers on the CPU and on ``device`` start from ``seed``; afterwards they go on as before."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(seed)
        for cuda_device in devices:
            with torch.cuda.device(cuda_device):
                torch.cuda.manual_seed(seed)
        yield


def random_state(device: torch.device) -> list[Tensor]:
    """The states of torch's random numbers on the CPU and, where there is one, on the GPU ``device``."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def set_random_state(states: list[Tensor], device: torch.device) -> None:
    """Go on from what `random_state` gave."""
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Products of float32 matrices are as precise as ``precision`` says; afterwards as before."""
    before = torch.get_float32_matmul_precision()
    try:
        if precision != before:
            torch.set_float32_matmul_precision(precision)
        yield
    finally:
        if precision != before:
            torch.set_float32_matmul_precision(before)


@contextmanager
def compiling() -> Iterator[None]:
    """A compiled step is made and used inside of this.

    Torch's compiler switches the argument checks of all distributions off, for good: here they are on again afterwards.
    """
    checks = Distribution._validate_args
    try:
        dynamo: Any = importlib.import_module("torch._dynamo.config")  # importing it takes seconds
        with (
            dynamo.patch("trace_autograd_ops", True)
            if hasattr(dynamo, "trace_autograd_ops")
            else nullcontext()
        ):
            yield
    finally:
        Distribution.set_default_validate_args(checks)
