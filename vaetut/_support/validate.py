"""Checks of arguments, shared by the public functions: each raises at the call and names the argument."""

import difflib
import numbers
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MixtureSameFamily, TransformedDistribution

# A context variable, not a global one: a thread that trains must not switch off the checks of another thread.
_enabled: ContextVar[bool] = ContextVar("vaetut_checks", default=True)


@contextmanager
def checks(enabled: bool) -> Iterator[None]:
    """Switch the checks of tensor *values* off, or on again, inside a ``with`` block.

    By default every function checks the numbers in its arguments: NaN, infinity, pixels outside of [0, 1]. That reads
    each tensor once, about 10 microseconds for a small one, and on a GPU the host waits for the device. If the data
    were checked before a loop, ``checks(False)`` around the loop saves that time. Types, shapes, dtypes and
    names are always checked. `vaetut.train` does this by itself.

    The setting holds only for the current thread or asyncio task (`contextvars`), and blocks may be nested. The checks
    of `torch.distributions` are separate: ``Distribution.set_default_validate_args``. (Chapter 11.)

    Args:
        enabled: True or False.

    Raises:
        TypeError: if ``enabled`` is not a bool.

    Example:
        >>> from vaetut import VAE, sgvb_b
        >>> model, x = VAE(data_dim=2, latent_dim=1), torch.full((1, 2), 255.0)
        >>> sgvb_b(model, model.encode(x), x)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: x must lie in [0, 1] for a Bernoulli likelihood, ...; divide 8-bit pixels by 255
        >>> with checks(False):  # wrong input gives a wrong bound, without an error
        ...     sgvb_b(model, model.encode(x), x).shape
        torch.Size([1])
    """
    if not isinstance(enabled, bool):
        raise TypeError(f"enabled must be True or False, got {enabled!r} of type {type(enabled).__name__}")
    token = _enabled.set(enabled)
    try:
        yield
    finally:
        _enabled.reset(token)


def values_are_checked() -> bool:
    """Whether tensor values are to be looked at: not inside ``checks(False)``, nor in a compiled graph."""
    return not torch.compiler.is_compiling() and _enabled.get()


def any_true(mask: Tensor) -> bool:
    """Whether any value of ``mask`` is true; False if values are not checked, or cannot be read.

    Values cannot be read of tensors on the ``meta`` device, of fake tensors, and under ``torch.func.vmap`` or a tracer.
    Any other error, such as that of a CUDA kernel that failed earlier, is passed on.
    """
    if not values_are_checked() or mask.is_meta:
        return False
    try:
        return bool(mask.any() if mask.dim() else mask)
    except RuntimeError as error:
        if has_no_values(error):
            return False
        raise


def has_no_values(error: RuntimeError) -> bool:
    """Whether ``error`` is what torch raises when it is asked for the value of a tensor that has none.

    Fake tensors have their own exceptions; vmap and make_fx raise a plain RuntimeError, which only its text identifies.
    """
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return (
        not kinds.isdisjoint({"DataDependentOutputException", "GuardOnDataDependentSymNode"})
        or str(error).startswith("vmap:")
        or "value out of a tracing tensor" in str(error)
    )


def distribution(value: Any, name: str) -> Distribution:
    """Return ``value``, a distribution."""
    if not isinstance(value, Distribution):
        raise TypeError(f"{name} must be a torch.distributions.Distribution, got {type(value).__name__}")
    return value


def function(value: Any, name: str) -> None:
    """Check that ``value`` can be called."""
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {value!r} of type {type(value).__name__}")


def name_of(q: Distribution) -> str:
    """The class of a distribution and of what it is made of, for messages: ``Normal``, ``Independent(Normal)``."""
    if isinstance(q, MixtureSameFamily):
        return f"MixtureSameFamily({name_of(q.component_distribution)})"
    if isinstance(q, Independent) or type(q) is TransformedDistribution:
        return f"{type(q).__name__}({name_of(q.base_dist)})"
    return type(q).__name__


def positive_int(value: Any, name: str) -> int:
    """Return ``value``, an integer of at least 1 (Python's or NumPy's), as an int."""
    if isinstance(value, bool) or not isinstance(value, int | numbers.Integral):
        raise TypeError(f"{name} must be an int of at least 1, got {value!r} of type {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return int(value)


def real_number(value: Any, name: str, allowed: str = "a number") -> float:
    """Return ``value``, a real number (Python's or NumPy's), as a float; ``allowed`` describes it in the message."""
    if isinstance(value, bool) or not isinstance(value, int | float | numbers.Real):
        raise TypeError(f"{name} must be {allowed}, got {value!r} of type {type(value).__name__}")
    return float(value)


def float_tensor(value: Any, name: str) -> Tensor:
    """Return ``value``, a dense tensor of dtype float32 or float64."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.layout != torch.strided:
        raise TypeError(
            f"{name} must be a dense tensor, got one of layout {value.layout}; {name}.to_dense() converts it"
        )
    if value.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"{name} must have dtype torch.float32 or torch.float64, got {value.dtype}; {name}.float() converts it"
        )
    return value


def finite(value: Tensor, name: str) -> Tensor:
    """Return ``value``, a tensor without NaN and infinity."""
    # If the sum is finite, so is every term, and a sum takes one pass; it may overflow although all terms are finite.
    # 0 times NaN or infinity is NaN, and takes fewer kernels than torch.isfinite.
    if values_are_checked() and any_true(value.detach().sum() * 0 != 0):
        bad = ~torch.isfinite(value.detach())
        if any_true(bad):
            raise ValueError(
                f"{name} must be finite, got NaN or infinity in {int(bad.sum())} of {value.numel()} values"
            )
    return value


def one_of(value: Any, name: str, allowed: Iterable[str]) -> str:
    """Return ``value``, one of the strings ``allowed``."""
    options = list(allowed)
    if value not in options:
        close = difflib.get_close_matches(str(value), options, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, got {value!r}{hint}")
    return str(value)
