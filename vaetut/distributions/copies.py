"""The tensors inside of a distribution, and copies of it with other tensors.

torch's distributions keep their parameters as attributes, some of them inside of other distributions, transforms,
constraints or modules. `tensors_of` lists them; `with_tensors` makes a copy in which they are changed: converted to
float64, detached, or replaced.
"""

import copy
import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Transform
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import _InverseTransform
from torch.distributions.utils import lazy_property
from torch.nn import Module


def with_tensors(
    value: Any,
    tensor: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    batch: Callable[[torch.Size], torch.Size] = lambda shape: shape,
) -> Any:
    """A copy of a distribution with its float tensors and batch shapes changed; it does not check its arguments.

    Values that a distribution computed from its parameters and stored are not copied: the copy computes them again.

    Example:
        >>> from torch.distributions import Normal
        >>> with_tensors(Normal(torch.tensor(0.0), torch.tensor(1.0)), Tensor.double).scale.dtype
        torch.float64
    """
    if isinstance(value, Tensor):
        return tensor(value) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: with_tensors(item, tensor, batch) for key, item in value.items()}
    if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        items = [with_tensors(item, tensor, batch) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, _InverseTransform):
        return with_tensors(value.inv, tensor, batch).inv
    if isinstance(value, Distribution | Transform | Module | Constraint):
        value = copy.copy(value)
        changed: dict[int, Any] = {}
        kept = {name: item for name, item in vars(value).items() if not _is_stored(value, name)}
        if isinstance(value, Transform):
            # Its inverse, once made, points back at it. What it cached is not a parameter, and may be without a graph.
            kept.pop("_cached_x_y", None)
            kept.update(_inv=None, _cache_size=0)
        for item in kept.values():
            if id(item) not in changed:  # one tensor under two names, as in Categorical, stays one
                changed[id(item)] = with_tensors(item, tensor, batch)
        value.__dict__.clear()
        value.__dict__.update((name, changed[id(item)]) for name, item in kept.items())
        if isinstance(value, Distribution):
            value.__dict__.update(_validate_args=False, _batch_shape=batch(value.batch_shape))
    return value


def tensors_of(q: Distribution) -> list[Tensor]:
    """The float tensors in q, in the order in which `with_tensors` visits them.

    Example:
        >>> from torch.distributions import Normal
        >>> tensors_of(Normal(torch.tensor(0.0), torch.tensor(1.0)))
        [tensor(0.), tensor(1.)]
    """
    found: list[Tensor] = []
    with_tensors(q, lambda tensor: found.append(tensor) or tensor)  # type: ignore[func-returns-value]
    return found


def _is_stored(value: Any, name: str) -> bool:
    """Whether the attribute is not a parameter, but a value that was computed from the parameters and stored."""
    if not isinstance(vars(value)[name], Tensor) or not isinstance(value, Distribution):
        return False
    default = _default(type(value), name)  # type: ignore[arg-type]
    if default is lazy_property:  # such as logits, if probs (`_param`) was given
        return vars(value)[name] is not vars(value).get("_param", vars(value)[name])
    return default is None


@lru_cache(1024)
def _default(kind: type, name: str) -> Any:
    """What the class has under this name: ``lazy_property`` for a lazy property, None for None, else ``...``."""
    default = inspect.getattr_static(kind, name, ...)
    return lazy_property if isinstance(default, lazy_property) else None if default is None else ...
