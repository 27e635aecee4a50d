"""One run of `vaetut.train`: all that its arguments ask for, made and tried before anything is trained (chapter 11)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vaetut.aevb import checkpoint as checkpoints
from vaetut.aevb import rng
from vaetut.aevb.arguments import Arguments
from vaetut.aevb.devices import usable_device
from vaetut.aevb.model_checks import (
    check_model,
    check_single,
    check_width,
    has_free_variances,
    try_bound,
    try_model,
)
from vaetut.aevb.optimizers import make_optimizer, make_scheduler, named_states
from vaetut.aevb.source import Loader, Resident, Source, open_source, warn_of_constant_columns
from vaetut.aevb.step import BestEpoch, Communicator, Objective, evaluating, pixels, set_modes, training_modes
from vaetut.aevb.untracked import Watch, hooks, samplers
from vaetut.data import ImageData
from vaetut.models import is_bernoulli

_DEFAULT_BATCH = 100


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
        set_modes(modes)
        model.to(home)


def _resolve(
    model: Any, data: Any, validation: Any, given: Arguments, path: Path | None, communicator: Communicator
) -> Run:
    device, dtype = communicator.device, next(model.parameters()).dtype
    optimizer = make_optimizer(given, model, device)
    settings = checkpoints.settings(optimizer)  # before a scheduler changes them
    watched = {"the bound": given.bound, **hooks(optimizer)}
    scheduler = make_scheduler(given.scheduler, optimizer)
    modes = training_modes(model)
    with rng.seeded(given.seed, device), evaluating(model):
        likelihood = try_model(model)
        bernoulli = is_bernoulli(likelihood)
        how = ("dynamic" if bernoulli else "none") if given.binarize == "auto" else given.binarize
        source = open_source(data, "data", dtype, bernoulli, device)
        x = source.x if isinstance(source, Resident) else None
        objective = Objective(model, given.bound, given.num_samples, x, how)
        first = source.first()
        check_width(likelihood, first)
        try_bound(objective, first, "data")
        held_out, number_held_out, mark = _validation(validation, dtype, bernoulli, device, objective)
    if x is not None and has_free_variances(likelihood):
        warn_of_constant_columns(x)
    batch_size = _batch_size(given, source)
    number = _datapoints(source, batch_size, given.drop_last)
    if number % batch_size == 1:
        check_single(objective, source, modes, given, device)
    best, states = BestEpoch(given.patience), named_states(given.state)
    parts: dict[str, Any] = {"optimizer": optimizer}
    parts |= {"scheduler": scheduler} if scheduler is not None else {}
    parts |= {"best": best} if given.patience is not None else {}
    parts |= {"loader": source} if isinstance(source, Loader) else {}
    configuration, watch = {}, None
    if path is not None:
        configuration = _configuration(given, model, how, batch_size, settings, scheduler, states)
        configuration["processes"] = communicator.kind
        configuration["data"] = source.fingerprint()
        configuration["validation"] = None if mark is None else mark()
        watched |= samplers(source.loader) if isinstance(source, Loader) else {}
        held = [optimizer, scheduler, data, source, objective, *states.values()]
        watch = Watch(watched, [*held, *model.modules(), *model.parameters()])
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
        writer=checkpoints.CheckpointWriter(path, configuration, model, parts, states, watch),
    )


def _configuration(
    given: Arguments,
    model: nn.Module,
    binarize: str,
    batch_size: int,
    optimizer: Any,
    scheduler: Any,
    states: dict[str, Any],
) -> dict[str, Any]:
    """What a run must have in common with the checkpoint that it continues, except the data and the ranks."""
    return {
        "model": checkpoints.function_name(type(model)),
        "architecture": repr(model),
        "bound": checkpoints.function_name(given.bound),
        "num_samples": given.num_samples,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "binarize": binarize,
        "seed": given.seed,
        "compile": given.compile,
        "precision": given.precision,
        # None for the defaults of new options, so that files of the first edition still match
        "scheduler": checkpoints.scheduler_settings(scheduler),
        "patience": given.patience,
        "drop_last": given.drop_last or None,
        "state": ", ".join(f"{name}: {type(value).__name__}" for name, value in states.items()) or None,
    }


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


def _batch_size(given: Arguments, source: Source) -> int:
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


def _datapoints(source: Source, batch_size: int, drop_last: bool) -> int:
    """How many datapoints an epoch takes; 0 where a DataLoader does not know."""
    number = len(source) - (len(source) % batch_size if drop_last else 0)
    if number == 0 and drop_last:
        raise ValueError(
            f"batch_size must be at most the {len(source)} datapoints with drop_last, got {batch_size}"
        )
    return number


def _communicator(given: Arguments, model: nn.Module) -> Communicator:
    """One device of this process, or those of ``fabric``."""
    if given.fabric is None:
        home = next(model.parameters()).device
        if given.device == "auto":
            gpu = home.type == "cpu" and torch.cuda.is_available()
            return Communicator(torch.device("cuda") if gpu else home)
        return Communicator(usable_device(given.device, "device must be 'auto' or a device of this machine"))
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
