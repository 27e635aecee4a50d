"""The arguments of `vaetut.train`: checked, and resolved into one `Run`, before training starts."""

import copy
import inspect
import math
import numbers
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal

from vaetut._support.validate import one_of, positive_int, real_number
from vaetut.aevb import checkpoint as checkpoints
from vaetut.aevb import rng
from vaetut.aevb.source import Loader, Resident, Source, open_source, warn_of_constant_columns
from vaetut.aevb.step import BestEpoch, Communicator, Objective, evaluating, pixels, training_modes
from vaetut.aevb.untracked import Watch, hooks, samplers
from vaetut.data import ImageData

# The class, its default learning rate, and the devices on which its step can be one kernel, which on two cores makes
# training almost twice as fast.
OPTIMIZERS: dict[str, tuple[Any, float, tuple[str, ...]]] = {
    "adam": (torch.optim.Adam, 1e-3, ("cpu", "cuda")),
    "adagrad": (torch.optim.Adagrad, 1e-2, ("cpu",)),
    "sgd": (torch.optim.SGD, 1e-3, ("cpu", "cuda")),
}
_DEFAULT_BATCH = 100


@dataclass(frozen=True)
class Arguments:
    """The arguments of `vaetut.train` as given, except the model and the data."""

    epochs: int
    batch_size: int
    num_samples: int
    bound: Any
    optimizer: Any
    learning_rate: Any
    scheduler: Any
    binarize: str
    drop_last: bool
    patience: int | None
    seed: int
    device: Any
    progress: Any
    on_epoch: Any
    checkpoint: Any
    resume: bool
    state: Any
    compile: bool
    precision: str
    fabric: Any

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "num_samples"):
            object.__setattr__(self, name, positive_int(getattr(self, name), name))
        if self.patience is not None:
            object.__setattr__(self, "patience", positive_int(self.patience, "patience"))
        one_of(self.binarize, "binarize", ("auto", "dynamic", "threshold", "none"))
        one_of(self.precision, "precision", ("highest", "high", "medium"))
        for name in ("resume", "compile", "drop_last"):
            _check_flag(getattr(self, name), name)
        object.__setattr__(self, "seed", _check_seed(self.seed))
        if not callable(self.bound):
            raise TypeError(
                f"bound must be a function such as vaetut.sgvb_b, got {type(self.bound).__name__}"
            )
        if self.scheduler is not None and not callable(self.scheduler):
            raise TypeError(
                "scheduler must be a function of the optimizer, such as "
                "lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 10), "
                f"got {type(self.scheduler).__name__}"
            )
        if self.on_epoch is not None and not callable(self.on_epoch):
            raise TypeError(f"on_epoch must be a function of the History, got {type(self.on_epoch).__name__}")
        if self.resume and self.checkpoint is None:
            raise ValueError("resume=True requires checkpoint, the path of the file to continue from")


@dataclass(frozen=True)
class Run:
    """Everything that a run of `vaetut.train` consists of."""

    epochs: int
    batch_size: int
    drop_last: bool
    seed: int
    compile: bool
    precision: str
    progress: bool
    on_epoch: Any
    model: Any
    modes: dict[nn.Module, bool]
    objective: Objective
    data: Source
    number: int  # of datapoints in an epoch, 0 if a DataLoader does not know it
    validation: Any
    validation_number: int
    optimizer: torch.optim.Optimizer
    scheduler: Any
    best: BestEpoch
    communicator: Communicator
    writer: checkpoints.CheckpointWriter


@contextmanager
def resolved(model: Any, data: Any, validation: Any, given: Arguments) -> Iterator[Run]:
    """The run that the arguments describe. Inside, the model is on the run's device; at the end it is moved back.

    Raises:
        TypeError, ValueError: as `vaetut.train`.
    """
    path = None if given.checkpoint is None else checkpoints.resolve_path(given.checkpoint, given.resume)
    check_model(model)
    home = next(model.parameters()).device
    communicator = _communicator(given, model)
    if isinstance(data, ImageData):
        validation = data.test if validation is None else validation
        data = data.train
    if given.patience is not None and validation is None:
        raise ValueError("patience requires validation data, whose bound determines the best epoch")
    modes = {module: module.training for module in model.modules()}
    model.to(communicator.device)
    try:
        yield _resolve(model, data, validation, given, path, communicator)
    finally:
        for module, mode in modes.items():
            module.training = mode
        model.to(home)


def _resolve(
    model: Any, data: Any, validation: Any, given: Arguments, path: Path | None, communicator: Communicator
) -> Run:
    device, dtype = communicator.device, next(model.parameters()).dtype
    optimizer = make_optimizer(given, model, device)
    settings = checkpoints.settings(optimizer)  # before a scheduler changes them
    optimizer_hooks = hooks(optimizer)
    scheduler = make_scheduler(given.scheduler, optimizer)
    modes = training_modes(model)
    with rng.seeded(given.seed, device), evaluating(model):
        likelihood = try_model(model)
        is_bernoulli = _base(likelihood, Bernoulli) is not None
        how = ("dynamic" if is_bernoulli else "none") if given.binarize == "auto" else given.binarize
        source = open_source(data, "data", dtype, is_bernoulli, device)
        x = source.x if isinstance(source, Resident) else None
        objective = Objective(model, given.bound, given.num_samples, x, how)
        first = source.first()
        check_width(likelihood, first)
        try_bound(objective, first, "data")
        held_out, number_held_out, mark = _validation(validation, dtype, is_bernoulli, device, objective)
    if x is not None and _has_free_variances(likelihood):
        warn_of_constant_columns(x)
    batch_size = _batch_size(given, source, data)
    number = len(source) - (len(source) % batch_size if given.drop_last else 0)
    if number == 0 and given.drop_last:
        raise ValueError(
            f"batch_size must be at most the {len(source)} datapoints with drop_last, got {batch_size}"
        )
    if number % batch_size == 1:
        _check_single(objective, source, modes, given, device)
    best, state = BestEpoch(given.patience), _states(given.state)
    configuration = {
        "model": checkpoints.function_name(type(model)),
        "architecture": repr(model),
        "bound": checkpoints.function_name(given.bound),
        "num_samples": given.num_samples,
        "batch_size": batch_size,
        "optimizer": settings,
        "binarize": how,
        "seed": given.seed,
        "compile": given.compile,
        "precision": given.precision,
        "processes": communicator.kind,
        "data": None if path is None else source.fingerprint(),
        "validation": None if path is None or mark is None else mark(),
        # None for the defaults of new options, so that files of the first edition still match
        "scheduler": checkpoints.scheduler_settings(scheduler),
        "patience": given.patience,
        "drop_last": given.drop_last or None,
        "state": ", ".join(f"{name}: {type(value).__name__}" for name, value in state.items()) or None,
    }
    parts: dict[str, Any] = {"optimizer": optimizer}
    parts |= {"scheduler": scheduler} if scheduler is not None else {}
    parts |= {"best": best} if given.patience is not None else {}
    parts |= {"loader": source} if isinstance(source, Loader) else {}
    watch = None
    if path is not None:
        watched = {"the bound": given.bound, **optimizer_hooks}
        watched |= samplers(source.loader) if isinstance(source, Loader) else {}
        held = [
            optimizer,
            scheduler,
            data,
            source,
            objective,
            *model.modules(),
            *model.parameters(),
            *state.values(),
        ]
        watch = Watch(watched, held)
    return Run(
        epochs=given.epochs,
        batch_size=batch_size,
        drop_last=given.drop_last,
        seed=communicator.seed(given.seed),
        compile=given.compile,
        precision=given.precision,
        progress=bool(given.progress),
        on_epoch=given.on_epoch,
        model=model,
        modes=modes,
        objective=objective,
        data=source,
        number=number,
        validation=held_out,
        validation_number=number_held_out,
        optimizer=optimizer,
        scheduler=scheduler,
        best=best,
        communicator=communicator,
        writer=checkpoints.CheckpointWriter(path, configuration, model, parts, state, watch),
    )


# --- model


def check_model(model: Any) -> None:
    """A module with an encoder, a prior, a likelihood and parameters."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module such as vaetut.VAE, got {type(model).__name__}")
    for name in ("encode", "prior", "likelihood"):
        found = inspect.getattr_static(model, name, None)
        if isinstance(found, property) and found.fget is not None:
            found.fget(
                model
            )  # called directly: nn.Module would replace an AttributeError inside of it by another one
        elif not hasattr(model, name):
            raise TypeError(
                f"model must have .encode(x), .prior and .likelihood(z); {type(model).__name__} has no .{name}"
            )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"model must have parameters to train; {type(model).__name__} has none")


def try_model(model: Any) -> Distribution:
    """Check the prior and the likelihood of a draw from it; return the likelihood."""
    prior = model.prior
    if not isinstance(prior, Distribution):
        hint = "; with @property in front of it, model.prior is what it returns" if callable(prior) else ""
        raise TypeError(
            f"model.prior must be a torch.distributions.Distribution, got a {type(prior).__name__}{hint}"
        )
    with torch.no_grad():
        likelihood = model.likelihood(prior.sample((1,)))
    if not isinstance(likelihood, Distribution):
        raise TypeError(
            "model.likelihood(z) must return a torch.distributions.Distribution, such as "
            f"Independent(Bernoulli(logits=decoder(z)), 1), got a {type(likelihood).__name__}"
        )
    return likelihood


def check_width(likelihood: Distribution, x: Tensor) -> None:
    """Check that the likelihood is one density of the whole datapoint, not one of each pixel."""
    if not likelihood.event_shape:
        raise ValueError(
            f"model.likelihood(z) must have event_shape [{x.shape[-1]}], one density for all of x, got (): wrap it as "
            f"Independent({type(likelihood).__name__}(...), 1)"
        )


def _base(likelihood: Distribution, kind: type[Distribution]) -> Any:
    base = likelihood.base_dist if isinstance(likelihood, Independent) else None
    return base if isinstance(base, kind) else None


def _has_free_variances(likelihood: Distribution) -> bool:
    """Whether a Gaussian likelihood has a separate variance for each column."""
    normal = _base(likelihood, Normal)
    return normal is not None and bool(normal.scale.amin() < normal.scale.amax())


def try_bound(objective: Objective, x: Tensor, name: str) -> None:
    """Evaluate the bound of two datapoints, with all checks on, so that a misfit raises before training."""
    try:
        with torch.no_grad():
            values = objective.of(pixels(x, objective.binarize))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be data that the model and the bound accept: {error}") from error
    if not isinstance(values, Tensor):
        raise TypeError(f"bound must return a tensor, one value per datapoint, got a {type(values).__name__}")
    if values.shape != x.shape[:1]:
        raise ValueError(
            f"bound must return one value per datapoint, shape {tuple(x.shape[:1])} for {len(x)} of them, "
            f"got {tuple(values.shape)}"
        )


# --- data


def _validation(
    validation: Any, dtype: torch.dtype, bernoulli: bool, device: torch.device, objective: Objective
) -> tuple[Any, int, Callable[[], str] | None]:
    """What to evaluate, how many datapoints that is, and its fingerprint."""
    if validation is None:
        return None, 0, None
    source = open_source(validation, "validation", dtype, bernoulli, device)
    if isinstance(source, Resident):
        x = pixels(source.x, objective.binarize)  # drawn once: the same pixels in every epoch
        try_bound(_as_it_is(objective), x[:2], "validation")
        return x, len(x), source.fingerprint
    try_bound(objective, source.first(), "validation")
    return source, len(source), source.fingerprint


def _as_it_is(objective: Objective) -> Objective:
    return Objective(objective.model, objective.bound, objective.num_samples, None, "none")


def _batch_size(given: Arguments, source: Source, data: Any) -> int:
    """M; a DataLoader has its own batch size."""
    if not isinstance(source, Loader):
        return given.batch_size
    if given.fabric is not None:
        raise ValueError(
            "data must be a tensor, an array or a Dataset with fabric, which distributes the minibatches"
        )
    if given.drop_last:
        raise ValueError("drop_last must be left out with a DataLoader: give it to the DataLoader")
    size = getattr(source.loader, "batch_size", None) or _DEFAULT_BATCH
    if given.batch_size not in (_DEFAULT_BATCH, size):
        raise ValueError(
            f"batch_size must be left out with a DataLoader, which has its own, {size}; got {given.batch_size}"
        )
    return size


def _check_single(
    objective: Objective, source: Source, modes: dict[nn.Module, bool], given: Arguments, device: torch.device
) -> None:
    """Refuse a last minibatch of one datapoint if the model cannot take it; tried with a copy of the model."""
    normal = torch.nn.modules.batchnorm._BatchNorm
    if not any(mode and isinstance(module, normal) for module, mode in modes.items()):
        return
    if isinstance(source, Loader) and source.loader.drop_last:
        return
    positions = [mode for _, mode in zip(objective.model.modules(), modes.values(), strict=True)]
    trial = copy.deepcopy(objective.model)
    for module, mode in zip(trial.modules(), positions, strict=True):
        module.training = mode
    with rng.seeded(given.seed, device), torch.no_grad():
        try:
            Objective(trial, given.bound, given.num_samples, None, objective.binarize).of(
                pixels(source.first()[:1], objective.binarize)
            )
        except ValueError as error:
            raise ValueError(
                f"batch_size leaves a last minibatch of one datapoint of {len(source)}, which the model cannot process "
                f"in training mode ({error}): use drop_last=True or another batch_size"
            ) from error


# --- optimizer, scheduler, state


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


def _states(state: Any) -> dict[str, Any]:
    """The user's objects by name."""
    if state is None:
        return {}
    states = dict(state) if isinstance(state, Mapping) else {"state": state}
    for name, value in states.items():
        if not isinstance(name, str):
            raise TypeError(f"state must have names of type str, got {name!r}")
        _check_state(value, f"state[{name!r}] must have")
    return states


def _check_state(value: Any, wanted: str, more: tuple[str, ...] = ()) -> None:
    methods = (*more, "state_dict", "load_state_dict")
    missing = [method for method in methods if not callable(getattr(value, method, None))]
    if missing:
        raise TypeError(
            f"{wanted} .state_dict() and .load_state_dict(state); {type(value).__name__} has no .{missing[0]}"
        )


# --- where


def _communicator(given: Arguments, model: nn.Module) -> Communicator:
    """One device of this process, or those of ``fabric``."""
    if given.fabric is None:
        return Communicator(target_device(given.device, next(model.parameters()).device))
    if given.device != "auto":
        raise ValueError(
            f"device must be 'auto' with fabric, which has its own devices, got {given.device!r}"
        )
    if given.compile:
        raise ValueError(
            "compile must be False with fabric: the compiled step does not exchange gradients between processes"
        )
    from vaetut.aevb.fabric import FabricCommunicator

    return FabricCommunicator(given.fabric, next(model.parameters()).dtype)


def target_device(device: str | torch.device, home: torch.device) -> torch.device:
    """The device to train on."""
    if device == "auto":
        return torch.device("cuda") if home.type == "cpu" and torch.cuda.is_available() else home
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(
            f"device must be 'auto' or a device of this machine, got {device!r} ({_first_line(error)})"
        ) from None
    if target.type == "meta":
        raise ValueError(
            "device must be 'auto' or a device of this machine, got 'meta', which stores no values"
        )
    return target


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _check_seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise TypeError(f"seed must be an int, got {type(seed).__name__}")
    if not -(2**63) <= int(seed) < 2**64:
        raise ValueError(f"seed must be at least -2**63 and less than 2**64, got {seed}")
    return int(seed)


def _check_flag(value: Any, name: str) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r} of type {type(value).__name__}")
