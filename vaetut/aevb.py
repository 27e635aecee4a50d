"""Auto-encoding variational Bayes: the training loop of chapter 11 (AEVB algorithm 1)."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent
from tqdm import tqdm

from vaetut import data as datasets
from vaetut._validate import any_true, finite, float_tensor, one_of, positive_int, skip_checks
from vaetut.bounds import sgvb_b

Bound = Callable[[Any, Any, Tensor, int], Tensor]
"""A lower bound such as `vaetut.sgvb_b`: a function of model, q, x and the number of samples."""

# The class, its default learning rate, and where one kernel can do all of its step: on two cores that makes
# training almost twice as fast.
_OPTIMIZERS: dict[str, tuple[Any, float, tuple[str, ...]]] = {
    "adam": (torch.optim.Adam, 1e-3, ("cpu", "cuda")),
    "adagrad": (torch.optim.Adagrad, 1e-2, ("cpu",)),
    "sgd": (torch.optim.SGD, 1e-3, ("cpu", "cuda")),
}
_VALIDATION_BATCH = 1000  # without gradients a larger batch fits, and is faster


@dataclass
class History:
    """What `train` returns: the bound, in nats per datapoint, after each epoch.

    Attributes:
        train: the mean over the epoch's batches, each taken just before the step that it causes; the early
            ones are from parameters that are almost an epoch old.
        validation: the mean over the validation data, with the parameters at the end of the epoch; empty
            without such data.

    Example:
        >>> History(train=[-30.0, -25.0])
        History(train=[-30.0, -25.0], validation=[])
    """

    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, list[float]]:
        """The curves as plain lists, ready for ``json.dump``.

        Example:
            >>> History(train=[-30.0, -25.0]).to_dict()
            {'train': [-30.0, -25.0], 'validation': []}
        """
        return {"train": list(self.train), "validation": list(self.validation)}

    def plot(self) -> Any:
        """The curves over the epochs, a matplotlib figure; higher is better."""
        from vaetut.plots import learning_curve

        return learning_curve({name: values for name, values in self.to_dict().items() if values})


def train(
    model: nn.Module,
    data: Tensor | datasets.ImageData,
    *,
    epochs: int,
    batch_size: int = 100,
    num_samples: int = 1,
    bound: Bound = sgvb_b,
    optimizer: str | Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = "adam",
    learning_rate: float | None = None,
    binarize: str = "auto",
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: bool = True,
    validation: Tensor | None = None,
) -> History:
    r"""Fit encoder and decoder together by stochastic gradient ascent on the bound (AEVB algorithm 1).

    Each step ascends the gradient of $\frac1M \sum_i \tilde{\mathcal L}(\theta, \phi; x^{(i)})$ over a minibatch
    of M datapoints: an unbiased estimate of the gradient of the bound per datapoint, which is AEVB eq. 8
    divided by N (``eq-vae-minibatch``).

    The result depends on the arguments and on the model's initial parameters alone. ``seed`` fixes the order of
    the data, the noise and the binarization, with or without validation data, and torch's global random state
    is afterwards what it was before. On one machine and version of torch, runs on the CPU agree bit for bit.

    Args:
        model: a `vaetut.VAE`, or any module with ``.encode(x)`` returning q(z|x), ``.prior`` and
            ``.likelihood(z)``. It is trained in place.
        data: ``[N, D]``, of the dtype of the model's parameters, or the `vaetut.ImageData` that `vaetut.load`
            returns. All of it is held on ``device``.
        epochs: passes over the data.
        batch_size: M; the last batch of an epoch may be smaller.
        num_samples: L, draws of z per datapoint. With M = 100, one is enough (AEVB section 2.3).
        bound: what to maximise, for instance `vaetut.sgvb_a` or `vaetut.sgvb_b`.
        optimizer: ``"adam"``, ``"adagrad"`` (AEVB's), ``"sgd"``, or a function of the parameters that returns
            a `torch.optim.Optimizer`.
        learning_rate: of a named optimizer; by default 0.001 for Adam and SGD, 0.01 for Adagrad.
        binarize: what to do with grey pixels. ``"dynamic"`` and ``"threshold"`` as `vaetut.binarize`, the
            former drawn anew for each batch, and once for the validation data; ``"none"``: use them as they
            are; ``"auto"``: dynamic for a Bernoulli likelihood, else none.
        seed: fixes the run; initialise the model after ``torch.manual_seed`` to fix that as well.
        device: where to train. ``"auto"`` is where the model is, unless that is the CPU and there is a CUDA
            device. The model is moved there, and back to where it was at the end.
        progress: show a progress bar, if the output is a terminal.
        validation: ``[N_val, D]``, on which the bound is evaluated after each epoch; with an `ImageData` its
            test images, unless others are given.

    Returns:
        The bound after each epoch, for the data and for the validation data.

    Raises:
        TypeError, ValueError: if an argument is not what it should be, before anything is trained.
        FloatingPointError: if the bound becomes NaN or infinite. The message names the epoch, the step and the
            likely causes; the model's parameters are then of no more use.

    Example:
        >>> from vaetut import VAE, load
        >>> _ = torch.manual_seed(0)
        >>> model = VAE(data_dim=64, latent_dim=2, hidden_dim=50)
        >>> history = train(model, load("digits"), epochs=3)
        >>> history.validation[0] < history.validation[2]
        True
    """
    positive_int(epochs, "epochs")
    positive_int(batch_size, "batch_size")
    positive_int(num_samples, "num_samples")
    one_of(binarize, "binarize", ("auto", "dynamic", "threshold", "none"))
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be an int, got {type(seed).__name__}")
    if not callable(bound):
        raise TypeError(f"bound must be a function such as vaetut.sgvb_b, got {type(bound).__name__}")
    _check_model(model)
    home = next(model.parameters()).device
    target = _target(device, home)
    if isinstance(data, datasets.ImageData):
        validation = data.test if validation is None else validation
        data = data.train

    history = History()
    was_training = model.training
    model.to(target)
    try:
        ascend = _optimizer(optimizer, learning_rate, model)
        with _seeded(seed, target):
            is_bernoulli = _is_bernoulli(model)
            if binarize == "auto":
                binarize = "dynamic" if is_bernoulli else "none"
            x = _checked(data, "data", model, is_bernoulli).to(target)
            _try(bound, model, _pixels(x[:2], binarize), num_samples, "data")
            if validation is not None:
                validation = _checked(validation, "validation", model, is_bernoulli).to(target)
                validation = _pixels(validation, binarize)
                _try(bound, model, validation[:2], num_samples, "validation")

        bar = tqdm(total=epochs, unit="epoch", disable=None if progress else True)
        with _seeded(seed, target), skip_checks(), bar:
            for epoch in range(1, epochs + 1):
                bounds = _ascend(model, x, bound, num_samples, batch_size, binarize, ascend)
                history.train.append(_mean(bounds, "training", epoch, batch_size, ascend))
                if validation is not None:
                    with _seeded(seed, target):  # the same noise for each epoch, and none of the training's
                        bounds = _evaluate(model, validation, bound, num_samples, batch_size)
                    history.validation.append(_mean(bounds, "validation", epoch, len(bounds), ascend))
                bar.set_postfix(
                    {name: round(curve[-1], 2) for name, curve in history.to_dict().items() if curve}
                )
                bar.update()
    finally:
        model.train(was_training)
        model.to(home)
    return history


def _ascend(
    model: Any,
    x: Tensor,
    bound: Bound,
    num_samples: int,
    batch_size: int,
    binarize: str,
    optimizer: torch.optim.Optimizer,
) -> Tensor:
    """One epoch: a step for each minibatch of a new permutation. Returns the bounds, ``[N]``, in that order."""
    model.train()
    bounds = []
    order = torch.randperm(len(x), device=x.device)
    for index in torch.split(order, batch_size):
        batch = _pixels(x[index], binarize)
        values = bound(model, model.encode(batch), batch, num_samples)
        loss: Any = -values.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bounds.append(values.detach())
    return torch.cat(bounds)


@torch.no_grad()
def _evaluate(model: Any, x: Tensor, bound: Bound, num_samples: int, batch_size: int) -> Tensor:
    """The bounds, ``[N]``, with the parameters as they are."""
    model.eval()
    batches = torch.split(x, max(batch_size, _VALIDATION_BATCH))
    return torch.cat([bound(model, model.encode(batch), batch, num_samples) for batch in batches])


def _check_model(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module such as vaetut.VAE, got {type(model).__name__}")
    for name in ("encode", "prior", "likelihood"):
        if not hasattr(model, name):
            raise TypeError(
                f"model must have .encode(x), .prior and .likelihood(z); {type(model).__name__} has no .{name}"
            )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"model must have parameters to train; {type(model).__name__} has none")


def _target(device: str | torch.device, home: torch.device) -> torch.device:
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


def _optimizer(optimizer: Any, learning_rate: Any, model: nn.Module) -> torch.optim.Optimizer:
    if callable(optimizer):
        if learning_rate is not None:
            raise ValueError(
                "learning_rate must be None when optimizer is a function: set it in that function"
            )
        made = optimizer(model.parameters())
        if not isinstance(made, torch.optim.Optimizer):
            raise TypeError(f"optimizer must return a torch.optim.Optimizer, got {type(made).__name__}")
        return made
    kind, rate, fused_on = _OPTIMIZERS[one_of(optimizer, "optimizer", _OPTIMIZERS)]
    if learning_rate is not None:
        rate = learning_rate
        if isinstance(rate, bool) or not isinstance(rate, int | float):
            raise TypeError(f"learning_rate must be a number, got {type(rate).__name__}")
        if not 0 < rate < math.inf:
            raise ValueError(f"learning_rate must be positive and finite, got {rate}")
    fused = next(model.parameters()).device.type in fused_on
    made = kind(model.parameters(), lr=rate, fused=fused)
    return made


def _is_bernoulli(model: Any) -> bool:
    with torch.no_grad():
        likelihood = model.likelihood(model.prior.sample((1,)))
    return isinstance(likelihood, Independent) and isinstance(likelihood.base_dist, Bernoulli)


def _checked(data: Any, name: str, model: Any, is_bernoulli: bool) -> Tensor:
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
    if is_bernoulli and any_true((x < 0) | (x > 1)):
        raise ValueError(
            f"{name} must lie in [0, 1] for a Bernoulli likelihood, got values from {float(x.min()):g} to "
            f"{float(x.max()):g}; divide 8-bit pixels by 255"
        )
    return x


def _try(bound: Bound, model: Any, x: Tensor, num_samples: int, name: str) -> None:
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


def _pixels(x: Tensor, how: str) -> Tensor:
    return x if how == "none" else datasets.binarize(x, how)


def _mean(values: Tensor, which: str, epoch: int, batch_size: int, optimizer: torch.optim.Optimizer) -> float:
    """The mean of an epoch's bounds. Only here does the host wait for the device."""
    mean = values.mean().item()
    if not math.isfinite(mean):
        step = 1 + int((~torch.isfinite(values)).nonzero()[0]) // batch_size
        raise FloatingPointError(
            f"the {which} bound is not finite, first in epoch {epoch}, step {step}; the model's parameters are "
            f"of no more use. Likely causes: a learning rate that is too large (now "
            f"{optimizer.param_groups[0]['lr']:g}); data far from unit scale; a Gaussian likelihood on data "
            "with a constant column, whose density has no upper limit"
        )
    return mean


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's random numbers on the CPU and on ``device`` start from ``seed``; afterwards they go on as before."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(seed)
        for cuda_device in devices:
            with torch.cuda.device(cuda_device):
                torch.cuda.manual_seed(seed)
        yield
