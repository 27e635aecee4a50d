"""What `vaetut.train` asks of a model and of a bound, tried before anything is trained (chapter 11)."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaetut._support.model_parts import likelihood_at, likelihood_of, part_of, prior_of
from vaetut._support.text import is_out_of_memory
from vaetut.aevb import rng
from vaetut.aevb.arguments import Arguments
from vaetut.aevb.source import Loader, Source
from vaetut.aevb.step import Objective, pixels


def check_model(model: Any) -> None:
    """A module with an encoder, a prior, a likelihood and parameters."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module such as vaetut.VAE, got {type(model).__name__}")
    for name in ("encode", "prior", "likelihood"):
        part_of(model, name, ".encode(x), .prior and .likelihood(z)")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"model must have parameters to train; {type(model).__name__} has none")


def try_model(model: Any) -> Distribution:
    """Check the prior and the likelihood of a draw from it; return the likelihood."""
    prior, likelihood = prior_of(model), likelihood_of(model)
    with torch.no_grad():
        return likelihood_at(likelihood, prior.sample(torch.Size((1,))))


def check_width(likelihood: Distribution, x: Tensor) -> None:
    """Check that the likelihood is one density of the whole datapoint, not one of each pixel."""
    if not likelihood.event_shape:
        raise ValueError(
            f"model.likelihood(z) must have event_shape [{x.shape[-1]}], one density for all of x, got (): wrap it as "
            f"Independent({type(likelihood).__name__}(...), 1)"
        )


def has_free_variances(likelihood: Distribution) -> bool:
    """Whether a Gaussian likelihood has a separate variance for each column."""
    normal = likelihood.base_dist if isinstance(likelihood, Independent) else None
    return isinstance(normal, Normal) and bool(normal.scale.amin() < normal.scale.amax())


def try_bound(objective: Objective, x: Tensor, name: str) -> None:
    """Evaluate the bound of two datapoints, with all checks on, so that a misfit raises before training."""
    try:
        with torch.no_grad():
            values = objective.of(pixels(x, objective.binarize))
    except (ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(f"{name} must fit the model and the bound: {error}") from error
    if not isinstance(values, Tensor):
        raise TypeError(f"bound must return a tensor, one value per datapoint, got {type(values).__name__}")
    if values.shape != x.shape[:1]:
        raise ValueError(
            f"bound must return one value per datapoint, shape {tuple(x.shape[:1])} for {len(x)} of them, "
            f"got {tuple(values.shape)}"
        )


def check_single(
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
