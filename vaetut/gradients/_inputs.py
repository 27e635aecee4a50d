"""What the gradient estimators require of q and f, and the errors if it is not given: chapter 4."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from vaetut._support.validate import distribution, function, positive_int


def check(f: Any, q: Any, num_samples: Any) -> torch.Size:
    """Check the arguments of an estimator; the shape of its surrogates, ``[num_samples, *q.batch_shape]``."""
    function(f, "f")
    return torch.Size((positive_int(num_samples, "num_samples"), *distribution(q, "q").batch_shape))


def values_of(f: Callable[[Tensor], Tensor], z: Tensor, shape: torch.Size) -> Tensor:
    """f(z), one value per draw, as a floating-point tensor."""
    values = f(z)
    if not isinstance(values, Tensor):
        raise TypeError(f"f must return a torch.Tensor, got {type(values).__name__}")
    if values.shape != shape:
        hint = ""
        if values.shape == z.shape:
            hint = (
                "; sum over the event, or use Normal instead of Independent for functions of one coordinate"
            )
        elif len(z.shape) == len(shape) > 1:
            hint = "; for a function of the whole vector make q an Independent(q, 1)"
        raise ValueError(
            f"f must return one value per draw, shape {tuple(shape)} for z of shape {tuple(z.shape)}, "
            f"got {tuple(values.shape)}{hint}"
        )
    if not values.is_floating_point():  # an indicator, for example
        values = values.to(z.dtype if z.is_floating_point() else torch.get_default_dtype())
    return values


def with_gradient(surrogate: Tensor) -> Tensor:
    """Return ``surrogate``; raise if it has no gradient."""
    if torch.is_grad_enabled() and not is_differentiated(surrogate):
        raise ValueError(
            "no parameter of q or f requires a gradient: make them with requires_grad=True, or use monte_carlo "
            "for the value alone"
        )
    return surrogate


def is_differentiated(value: Tensor) -> bool:
    """Whether ``value`` has a gradient: in reverse mode, or as a tangent in forward mode (``torch.func.jvp``)."""
    return value.requires_grad or forward_ad.unpack_dual(value).tangent is not None
