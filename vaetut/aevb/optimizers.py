"""The optimizer and the scheduler that the arguments of `vaetut.train` ask for (chapter 11)."""

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from vaetut._support.validate import one_of, real_number
from vaetut.aevb.arguments import Arguments

# The class, its default learning rate, and the devices on which its whole step can be one kernel (``fused``). On two
# cores that makes training almost twice as fast.
OPTIMIZERS: dict[str, tuple[Any, float, tuple[str, ...]]] = {
    "adam": (torch.optim.Adam, 1e-3, ("cpu", "cuda")),
    "adagrad": (torch.optim.Adagrad, 1e-2, ("cpu",)),
    "sgd": (torch.optim.SGD, 1e-3, ("cpu", "cuda")),
}


def make_optimizer(given: Arguments, model: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    """The optimizer of the model's parameters according to the arguments."""
    if callable(given.optimizer):
        if given.learning_rate is not None:
            raise ValueError(
                "learning_rate must be None when optimizer is a function: set it in that function"
            )
        made = given.optimizer(model.parameters())
        if not isinstance(made, torch.optim.Optimizer):
            raise TypeError(f"optimizer must return a torch.optim.Optimizer, got {type(made).__name__}")
        return made
    if not isinstance(given.optimizer, str):
        raise ValueError(
            f"optimizer must be one of {', '.join(map(repr, OPTIMIZERS))}, or a function of the parameters, "
            f"got {given.optimizer!r}"
        )
    name = one_of(given.optimizer, "optimizer", OPTIMIZERS)
    kind, rate, fused_on = OPTIMIZERS[name]
    if given.learning_rate is not None:
        rate = real_number(given.learning_rate, "learning_rate")
        if not 0 < rate < math.inf:
            raise ValueError(f"learning_rate must be positive and finite, got {rate}")
    options: dict[str, Any] = {"lr": rate, "fused": device.type in fused_on}
    if name == "adam" and given.compile and device.type == "cuda":  # it becomes a part of a CUDA graph
        options["capturable"] = True
        if given.scheduler is not None:  # a Python number would be a constant of the graph
            options["lr"] = torch.tensor(rate, device=device)
    optimizer: torch.optim.Optimizer = kind(model.parameters(), **options)
    return optimizer


def make_scheduler(scheduler: Any, optimizer: torch.optim.Optimizer) -> Any:
    """The scheduler that a function of the optimizer returns."""
    if scheduler is None:
        return None
    made = scheduler(optimizer)
    _check_state(made, "scheduler must return an object with .step() and", ("step",))
    if getattr(made, "mode", None) == "max" and is_plateau(made):
        raise ValueError("scheduler must have mode='min': it receives the loss, which is minus the bound")
    return made


def is_plateau(scheduler: Any) -> bool:
    """Whether a scheduler's step takes the monitored value."""
    return "metrics" in inspect.signature(scheduler.step).parameters


def named_states(state: Any) -> dict[str, Any]:
    """The user's objects by name."""
    if state is None:
        return {}
    if not isinstance(state, Mapping):
        _check_state(state, "state must have")
        return {"state": state}
    for name, value in state.items():
        if not isinstance(name, str):
            raise TypeError(f"state must have names of type str, got {name!r}")
        _check_state(value, f"state[{name!r}] must have")
    return dict(state)


def _check_state(value: Any, wanted: str, more: tuple[str, ...] = ()) -> None:
    methods = (*more, "state_dict", "load_state_dict")
    missing = [method for method in methods if not callable(getattr(value, method, None))]
    if missing:
        raise TypeError(
            f"{wanted} .state_dict() and .load_state_dict(state); {type(value).__name__} has no .{missing[0]}"
        )
