"""`verify`: the cell after an equation that shows, in numbers, that the equation holds.

Used in every chapter; *How this book is tested* explains it.
"""

import sys
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from vaetut._support.files import packaged_json
from vaetut._support.text import printable
from vaetut._support.validate import one_of, real_number

Relation = Literal["=", "<=", ">="]


class VerificationError(AssertionError):
    """The two sides of an equation do not agree (*How this book is tested*); the message names the label.

    Example:
        >>> verify("eq-two", 1 + 1, 3)
        Traceback (most recent call last):
        vaetut.teaching.verify.VerificationError: eq-two: left 2.0000 and right 3.0000 differ by 1, allowed is 3e-09
    """


def verify(
    label: str,
    left: Any,
    right: Any,
    *,
    tolerance: float = 1e-9,
    standard_error: Any = None,
    relation: Relation = "=",
) -> None:
    r"""Check that both sides of the equation ``label`` agree, and print one line with the result.

    Sides are numbers or tensors (arrays, lists) of any shape that broadcast against each other; every element is
    checked. Used in every chapter.

    * Exact sides: $|\mathrm{left} - \mathrm{right}| \le \mathrm{tolerance} \cdot \max(1, |\mathrm{right}|)$,
      so ``tolerance`` is absolute for numbers below one and relative above.
    * A Monte Carlo side: give its ``standard_error``; then $|\mathrm{left} - \mathrm{right}|$ must stay below
      five standard errors, which a right equation exceeds in about one of two million comparisons.
    * An inequality: ``relation="<="`` or ``">="``, with the same slack.

    For an equation of this book, the line begins with the number that stands beside it on its page, as in (2.1).
    The line shows rounded numbers (the first one of a tensor), so that every machine prints the same.

    Args:
        label: the equation's label, ``"eq-…"``.
        left: the equation's left side.
        right: its right side.
        tolerance: the allowed difference of exact sides; finite, not negative.
        standard_error: standard error of ``left - right`` if a side is a Monte Carlo estimate; positive.
        relation: ``"="``, ``"<="`` or ``">="``.

    Raises:
        VerificationError: if the sides disagree; it shows the worst element.
        ValueError: if a side is empty, not finite, or does not broadcast against the other; if ``tolerance`` is
            negative or infinite, ``standard_error`` not positive, or ``relation`` unknown.
        TypeError: if a side is neither a number nor a tensor, or one of float16 or bfloat16, or ``label`` not a string.

    Example:
        >>> import math, torch
        >>> verify("eq-basel", sum(1 / k**2 for k in range(1, 10**6)), math.pi**2 / 6, tolerance=1e-5)
        ✓ eq-basel    left 1.6449    right 1.6449    equal to 1e-5
        >>> z = torch.linspace(-1, 1, 5, dtype=torch.float64)
        >>> verify("eq-log", torch.log1p(z**2), z**2, relation="<=")
        ✓ eq-log    left 0.6931, …    right 1.0000, …    all 5 left <= right
        >>> verify("eq-wrong", 1, 2)
        Traceback (most recent call last):
        vaetut.teaching.verify.VerificationError: eq-wrong: left 1.0000 and right 2.0000 differ by 1, allowed is 2e-09
    """
    if not isinstance(label, str) or not label:
        raise TypeError(f"label must be a non-empty string such as 'eq-elbo', got {label!r}")
    one_of(relation, "relation", ("=", "<=", ">="))
    if not 0 <= real_number(tolerance, "tolerance") < float("inf"):
        raise ValueError(f"tolerance must be finite and not negative, got {tolerance}")
    a, b = _side(left, "left"), _side(right, "right")
    slack = tolerance * b.abs().clamp_min(1.0)
    if standard_error is not None:
        error = _side(standard_error, "standard_error")
        if not (error > 0).all():
            raise ValueError(
                f"standard_error must be positive, got {float(error.min()):g}; omit it if both sides are exact"
            )
        slack = 5.0 * error
    try:
        a, b, slack = torch.broadcast_tensors(a, b, slack)
    except RuntimeError:
        more = "" if standard_error is None else f", standard_error {tuple(slack.shape)}"
        raise ValueError(
            f"both sides must broadcast: left has shape {tuple(a.shape)}, right {tuple(b.shape)}{more}"
        ) from None

    excess = {"=": (a - b).abs(), "<=": a - b, ">=": b - a}[relation] - slack
    if (excess > 0).any():
        worst = int(excess.argmax())
        x, y, allowed = (float(t.flatten()[worst]) for t in (a, b, slack))
        where = "" if a.numel() == 1 else f" (element {worst} of {a.numel()})"
        demand = "differ by" if relation == "=" else f"must satisfy left {relation} right, they differ by"
        raise VerificationError(
            f"{label}: left {_number(x)} and right {_number(y)} {demand} {abs(x - y):.1g}, "
            f"allowed is {allowed:.2g}{where}"
        )

    if relation != "=":
        found = f"left {relation} right"
    elif standard_error is not None:
        found = "within 5 standard errors"
    else:
        found = f"equal to {tolerance:.0e}".replace("e-0", "e-") if tolerance else "equal"
    count = "" if a.numel() == 1 else f"all {a.numel()} "
    line = f"✓ {_numbered(label)}    left {_show(a)}    right {_show(b)}    {count}{found}"
    print(printable(line, sys.stdout))  # a console without a check mark must not make an error of it


@lru_cache
def _numbers() -> dict[str, str]:
    """The number of each equation of the book, written when the chapters are."""
    numbers: dict[str, str] = packaged_json("vaetut.teaching", "equations.json")
    return numbers


def _numbered(label: str) -> str:
    return f"({_numbers()[label]}) {label}" if label in _numbers() else label


def _side(value: Any, name: str) -> Tensor:
    if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
        # two numbers that differ by a thousandth may be rounded to the same one, and the check could not fail
        raise TypeError(f"{name} must not be rounded to half precision, got {value.dtype}")
    try:
        if isinstance(value, Tensor):  # to the CPU first: not every device has float64
            side = value.detach().cpu().to(torch.float64)
        else:
            side = torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"{name} must be a number or a tensor of numbers, got {type(value).__name__}"
        ) from None
    if side.numel() == 0:
        raise ValueError(f"{name} must not be empty, got shape {tuple(side.shape)}")
    if not torch.isfinite(side).all():
        raise ValueError(f"{name} must be finite, got {value}")
    return side


def _show(side: Tensor) -> str:
    first = _number(float(side.flatten()[0]))
    return first if side.numel() == 1 else f"{first}, …"


def _number(value: float) -> str:
    """Four decimals where that is readable, but never ``-0.0000``, so that the text does not depend on the machine."""
    if abs(value) >= 1e6 or 1e-8 < abs(value) < 1e-3:
        return f"{value:.3e}"
    return f"{round(value, 4) + 0.0:.4f}"
