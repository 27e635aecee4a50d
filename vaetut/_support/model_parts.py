"""The parts of a user's model, checked: ``prior`` and ``likelihood`` for the bounds, ``encode`` too for training."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution


def part_of(model: Any, name: str, needed: str = ".prior and .likelihood(z)") -> Any:
    """The attribute ``name`` of a model, which must have all that is ``needed``.

    A property is called directly, without ``getattr``: torch.nn.Module would turn an AttributeError inside of it into
    "no attribute 'prior'", which hides the mistake.
    """
    if not torch.compiler.is_compiling():
        for kind in type(model).__mro__:
            found = kind.__dict__.get(name)
            if isinstance(found, property | cached_property):
                return found.__get__(model, type(model))
            if found is not None:
                break
    try:
        return getattr(model, name)
    except AttributeError as error:
        raise TypeError(f"model must have {needed}; {type(model).__name__} has no .{name}") from error


def prior_of(model: Any) -> Distribution:
    """The prior p(z) of a model."""
    prior = part_of(model, "prior")
    if not isinstance(prior, Distribution):
        hint = "; write @property above its def" if callable(prior) else ""
        raise TypeError(
            f"model.prior must be a torch.distributions.Distribution, p(z); that of {type(model).__name__} is of type "
            f"{type(prior).__name__}{hint}"
        )
    return prior


def likelihood_of(model: Any) -> Callable[[Tensor], Distribution]:
    """The likelihood of a model, a function of z."""
    likelihood: Callable[[Tensor], Distribution] = part_of(model, "likelihood")
    if not callable(likelihood):
        raise TypeError(
            f"model.likelihood must be a function of z that returns the distribution p(x|z); that of "
            f"{type(model).__name__} is of type {type(likelihood).__name__}"
        )
    return likelihood


def likelihood_at(likelihood: Callable[[Tensor], Distribution], z: Tensor) -> Distribution:
    """The distribution p(x|z) at given z."""
    found = likelihood(z)
    if not isinstance(found, Distribution):
        raise TypeError(
            "model.likelihood(z) must return the distribution p(x|z), a torch.distributions.Distribution, such as "
            f"Independent(Bernoulli(logits=...), 1); got {type(found).__name__}"
        )
    return found
