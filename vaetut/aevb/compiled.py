"""The compiled step of `vaetut.train`, chapter 11: one graph up to the gradients; on CUDA, one launch for the step."""

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaetut.aevb.rng import unchanged
from vaetut.aevb.step import Communicator, Objective
from vaetut.aevb.untracked import hooks

_WARM_UPS = 3
_CAPTURABLE = (torch.optim.Adam, torch.optim.AdamW)  # whose state is all zeros before the first step

Step = Callable[[Tensor], Tensor]


def compiled_step(objective: Objective, optimizer: torch.optim.Optimizer, communicator: Communicator) -> Step:
    """The function that takes one step for a minibatch, and returns its bounds."""
    device, parameters = communicator.device, objective.trained()
    differentiate = _compiled_gradients(objective, device)

    def gradients(minibatch: Tensor) -> Tensor:
        bound, found = differentiate(minibatch)
        for parameter, gradient in zip(parameters, found, strict=True):
            parameter.grad = gradient
        return bound

    def step(minibatch: Tensor) -> Tensor:
        bound = gradients(minibatch)
        optimizer.step()  # its own kernel, which is as fast as a compiled one
        return bound

    if device.type != "cuda":
        return step
    graphs = CudaGraphs(device)
    if can_be_captured(optimizer):
        return captured(step, objective, optimizer, graphs)
    launch = captured(gradients, objective, optimizer, graphs)

    def step_of_two_parts(minibatch: Tensor) -> Tensor:
        bound = launch(minibatch)
        optimizer.step()
        return bound

    return step_of_two_parts


def _compiled_gradients(objective: Objective, device: torch.device) -> Callable[[Tensor], tuple[Tensor, Any]]:
    """The bounds of a minibatch and the gradients of minus their mean, in one graph for each size of minibatch.

    Code for variable sizes would round differently, and a resumed run would not be bit-exact.
    """
    parameters = objective.trained()
    # torch's random numbers, the same as those of the eager step, and faster than the compiler's
    options: dict[str, Any] = {"fallback_random": True}
    in_one_graph = hasattr(torch._dynamo.config, "trace_autograd_ops")
    if in_one_graph and device.type == "cpu":
        # Kernels called from C++, and tanh by an exponential, which has an error of 1e-7 instead of one ulp. Together
        # they save 4 % of a step.
        options |= {"cpp_wrapper": True, "cpp.use_decompose_tanh": True}
    arguments: dict[str, Any] = {"dynamic": False, "fullgraph": True, "options": options}
    if "isolate_recompiles" in inspect.signature(torch.compile).parameters:
        arguments["isolate_recompiles"] = True  # separate from what other runs of this process compiled
    else:
        torch.compiler.reset()

    def bound_of(minibatch: Tensor) -> Tensor:
        return objective(minibatch)

    if not in_one_graph:  # an older torch: the backward pass is a separate graph
        bound_of = torch.compile(bound_of, **arguments)

    def differentiate(minibatch: Tensor) -> tuple[Tensor, Any]:
        bound = bound_of(minibatch)
        return bound.detach(), torch.autograd.grad(-bound.mean(), parameters, allow_unused=True)

    if in_one_graph:
        differentiate = torch.compile(differentiate, **arguments)

    def call(minibatch: Tensor) -> tuple[Tensor, Any]:
        try:
            return differentiate(minibatch)
        except torch._dynamo.exc.TorchDynamoException as error:
            raise ValueError(_reason(error, device)) from error

    return call


def _reason(error: BaseException, device: torch.device) -> str:
    """Why `torch.compile` failed: no compiler, or the model."""
    chain: list[BaseException] = []
    waiting: list[Any] = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseException) and one not in chain:
            chain.append(one)
            waiting += [one.__cause__, one.__context__, getattr(one, "inner_exception", None)]
    names = {type(one).__name__ for one in chain}
    if names & {"InvalidCxxCompiler", "CppCompileError", "TritonMissing", "CxxCompilerNotFound"} or any(
        isinstance(one, FileNotFoundError) for one in chain
    ):
        needed = "Triton and a C compiler" if device.type == "cuda" else "a C++ compiler such as g++"
        return f"compile=True needs {needed}, which does not work here: install it, or omit compile ({error})"
    return f"compile must be False for this model and bound: torch.compile fails ({error})"


@contextmanager
def compiling() -> Iterator[None]:
    """The context in which a compiled step is made and used.

    Torch's compiler switches off the argument checks of all distributions permanently; this restores them at the end.
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


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Set the precision of float32 matrix products to ``precision``; restore it at the end."""
    before = torch.get_float32_matmul_precision()
    try:
        if precision != before:
            torch.set_float32_matmul_precision(precision)
        yield
    finally:
        if precision != before:
            torch.set_float32_matmul_precision(before)


# --- CUDA graphs


class Graphs(Protocol):
    """Records the launches of a function once, and returns a function that replays them."""

    device: torch.device

    def warm_up(self, function: Callable[[], Any]) -> None:
        """Call a function so that it does not disturb a later recording."""

    def record(self, function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """The function that replays all launches of ``function``, and the tensor that then holds its result."""


class CudaGraphs:
    """`Graphs` of a GPU. torch registers its random generator with each, so a replay draws new numbers."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool: Any = None

    def warm_up(self, function: Callable[[], Any]) -> None:
        """On a separate stream, as `torch.cuda.graph` requires."""
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            function()
        torch.cuda.current_stream(self.device).wait_stream(stream)

    def record(self, function: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """All graphs of a run share their memory, since they are never replayed at the same time."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.device), torch.cuda.graph(graph, pool=self.pool):
            result = function()
        self.pool = self.pool or graph.pool()
        return graph.replay, result


def can_be_captured(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer's step consists of launches only, and reads everything that changes from the device."""
    return (
        type(optimizer) in _CAPTURABLE
        and not hooks(optimizer)
        and all(
            group["capturable"] and ("initial_lr" not in group or isinstance(group["lr"], Tensor))
            for group in optimizer.param_groups
        )
    )


def captured(step: Step, objective: Objective, optimizer: torch.optim.Optimizer, graphs: Graphs) -> Step:
    """A step that is recorded for the first minibatch of each size, and replayed for later ones."""
    recorded: dict[tuple[int, ...], tuple[Tensor, Callable[[], None], Tensor, list[Tensor | None]]] = {}
    parameters = objective.trained()

    def launch(minibatch: Tensor) -> Tensor:
        size = tuple(minibatch.shape)
        if size not in recorded:
            static = minibatch.clone()
            with undone(objective, optimizer, graphs.device):
                for _ in range(_WARM_UPS):  # compiles, and lets the optimizer create its state
                    graphs.warm_up(lambda: step(static))
            with unchanged(graphs.device):
                replay, bound = graphs.record(lambda: step(static))
            recorded[size] = static, replay, bound, [parameter.grad for parameter in parameters]
        static, replay, bound, gradients = recorded[size]
        static.copy_(minibatch)
        replay()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient  # each size has its own, for an optimizer that is not in the graph
        return bound.clone()

    return launch


@contextmanager
def undone(objective: Objective, optimizer: torch.optim.Optimizer, device: torch.device) -> Iterator[None]:
    """Undo all changes inside of the block to the model, the optimizer's state and the random numbers.

    Tensors keep their addresses. State that the optimizer creates inside is set to zeros, the initial state of Adam.
    """
    tensors = [*objective.parameters(), *objective.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    state = {
        id(value): value.detach().clone()
        for values in optimizer.state.values()
        for value in values.values()
        if isinstance(value, Tensor)
    }
    try:
        with unchanged(device):
            yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
            for values in optimizer.state.values():
                for value in values.values():
                    if isinstance(value, Tensor) and id(value) in state:
                        value.copy_(state[id(value)])
                    elif isinstance(value, Tensor):
                        value.zero_()
