"""The device that an argument or an option names (chapter 11)."""

from typing import Any

import torch


def usable_device(name: Any, wanted: str) -> torch.device:
    """The device of this name, if this machine has it; otherwise a ValueError that begins with ``wanted``.

    Example:
        >>> usable_device("meta", "device must be one of this machine")
        Traceback (most recent call last):
        ValueError: device must be one of this machine, got 'meta', which stores no values
    """
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise ValueError(f"{wanted}, got {name!r}, which is not a name such as 'cpu' or 'cuda:0'") from None
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f"{wanted}, got {name!r} ({_reason(str(name), error)})") from None
    if device.type == "meta":
        raise ValueError(f"{wanted}, got {name!r}, which stores no values")
    return device


def _reason(name: str, error: Exception) -> str:
    """The first sentence of torch's message."""
    if name.startswith("mps"):
        return "MPS is not available"
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return first.partition(". ")[0]
