"""Checks of arguments, shared by the public functions: each raises at the call and names the argument."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_skip = False


@contextmanager
def skip_checks() -> Iterator[None]:
    """Skip the checks of tensor *values* inside the block.

    For a loop that has checked its data once, before it started: a check per step reads every value again,
    and on a GPU it makes the host wait for the device.
    """
    global _skip
    before, _skip = _skip, True
    try:
        yield
    finally:
        _skip = before


def values_are_checked() -> bool:
    """Whether tensor values are to be looked at: not inside `skip_checks`, nor in a compiled graph."""
    return not (_skip or torch.compiler.is_compiling())


def any_true(mask: Tensor) -> bool:
    """Whether any value of ``mask`` is true; False where values are not checked, or cannot be read.

    The latter are tensors on the ``meta`` device, fake ones, and those under ``torch.func.vmap``.
    """
    if not values_are_checked():
        return False
    try:
        return bool(mask.any())
    except RuntimeError:
        return False


def positive_int(value: Any, name: str) -> int:
    """Return ``value``, an int of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int of at least 1, got {value!r} of type {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def float_tensor(value: Any, name: str) -> Tensor:
    """Return ``value``, a tensor of dtype float32 or float64."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name} must have dtype torch.float32 or torch.float64, got {value.dtype}")
    return value


def finite(value: Tensor, name: str) -> Tensor:
    """Return ``value``, a tensor without NaN and infinity."""
    # A sum is finite only if every term is, and takes one pass; it may overflow where they are finite all the same.
    if values_are_checked() and any_true(~torch.isfinite(value.detach().sum())):
        bad = ~torch.isfinite(value.detach())
        if any_true(bad):
            raise ValueError(
                f"{name} must be finite, got {int(bad.sum())} NaN or infinite values of {value.numel()}"
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
