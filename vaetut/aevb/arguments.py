"""The checks of `vaetut.train`'s arguments: what does not fit fails before anything is trained."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent

from vaetut._support.validate import any_true, finite, float_tensor, one_of

# The class, its default learning rate, and where one kernel can do all of its step: on two cores that makes
# training almost twice as fast.
OPTIMIZERS: dict[str, tuple[Any, float, tuple[str, ...]]] = {
    "adam": (torch.optim.Adam, 1e-3, ("cpu", "cuda")),
    "adagrad": (torch.optim.Adagrad, 1e-2, ("cpu",)),
    "sgd": (torch.optim.SGD, 1e-3, ("cpu", "cuda")),
}


def check_model(model: Any) -> None:
    """A module with an encoder, a prior, a likelihood and parameters."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module such as vaetut.VAE, got {type(model).__name__}")
    for name in ("encode", "prior", "likelihood"):
        if not hasattr(model, name):
            raise TypeError(
                f"model must have .encode(x), .prior and .likelihood(z); {type(model).__name__} has no .{name}"
            )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"model must have parameters to train; {type(model).__name__} has none")


def check_flag(value: Any, name: str) -> bool:
    """Return ``value``, True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r} of type {type(value).__name__}")
    return value


def target_device(device: str | torch.device, home: torch.device) -> torch.device:
    """The device to train on."""
    if device == "auto":
        return torch.device("cuda") if home.type == "cpu" and torch.cuda.is_available() else home
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(
            f"device must be 'auto' or a device of this machine, got {device!r} ({error})"
        ) from None
    return target


def make_optimizer(optimizer: Any, learning_rate: Any, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a model's parameters that the two arguments ask for."""
    if callable(optimizer):
        if learning_rate is not None:
            raise ValueError(
                "learning_rate must be None when optimizer is a function: set it in that function"
            )
        made = optimizer(model.parameters())
        if not isinstance(made, torch.optim.Optimizer):
            raise TypeError(f"optimizer must return a torch.optim.Optimizer, got {type(made).__name__}")
        return made
    kind, rate, fused_on = OPTIMIZERS[one_of(optimizer, "optimizer", OPTIMIZERS)]
    if learning_rate is not None:
        rate = learning_rate
        if isinstance(rate, bool) or not isinstance(rate, int | float):
            raise TypeError(f"learning_rate must be a number, got {type(rate).__name__}")
        if not 0 < rate < math.inf:
            raise ValueError(f"learning_rate must be positive and finite, got {rate}")
    fused = next(model.parameters()).device.type in fused_on
    made = kind(model.parameters(), lr=rate, fused=fused)
    return made


def is_bernoulli(model: Any) -> bool:
    """Whether a model's likelihood is one of black and white pixels. Draws from the prior."""
    with torch.no_grad():
        likelihood = model.likelihood(model.prior.sample((1,)))
    return isinstance(likelihood, Independent) and isinstance(likelihood.base_dist, Bernoulli)


def check_data(data: Any, name: str, model: Any, bernoulli: bool) -> Tensor:
    """The data, ``[N, D]``, once it is clear that the model can be trained on it."""
    x = float_tensor(data, name)
    if x.dim() != 2 or 0 in x.shape:
        raise ValueError(f"{name} must have shape [N, D] with N and D at least 1, got {tuple(x.shape)}")
    parameter = next(model.parameters())
    if x.dtype != parameter.dtype:
        raise TypeError(
            f"{name} must have the dtype of the model's parameters, {parameter.dtype}, got {x.dtype}; "
            "model.float() or model.double() converts the model"
        )
    finite(x, name)
    smallest, largest = x.aminmax()  # one pass over data that may be large
    if bernoulli and any_true((smallest < 0) | (largest > 1)):
        raise ValueError(
            f"{name} must lie in [0, 1] for a Bernoulli likelihood, got values from {float(smallest):g} to "
            f"{float(largest):g}; divide 8-bit pixels by 255"
        )
    return x


def try_bound(bound: Any, model: Any, x: Tensor, num_samples: int, name: str) -> None:
    """Take the bound of two datapoints, with all checks on, so that what does not fit fails before training."""
    try:
        with torch.no_grad():
            values = bound(model, model.encode(x), x, num_samples)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be what the model and the bound take: {error}") from error
    if values.shape != x.shape[:1]:
        raise ValueError(
            f"bound must return one value per datapoint, shape {tuple(x.shape[:1])} for {len(x)} of them, "
            f"got {tuple(values.shape)}"
        )
