"""The axes of an explorer: their values, and the text of values and names. Used in every chapter."""

import math
import string
from collections.abc import Iterable, Mapping
from typing import Any

_LETTERS = {
    "alpha": "α",
    "beta": "β",
    "gamma": "γ",
    "delta": "δ",
    "epsilon": "ε",
    "zeta": "ζ",
    "eta": "η",
    "theta": "θ",
    "iota": "ι",
    "kappa": "κ",
    "lambda": "λ",
    "mu": "μ",
    "nu": "ν",
    "xi": "ξ",
    "omicron": "ο",
    "pi": "π",
    "rho": "ρ",
    "sigma": "σ",
    "tau": "τ",
    "upsilon": "υ",
    "phi": "φ",
    "chi": "χ",
    "psi": "ψ",
    "omega": "ω",
}
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def title(name: str) -> str:
    """The displayed name of an axis, with Greek letters and subscripts, and spaces for underscores.

    Example:
        >>> title("mu"), title("z_1"), title("log_sigma_0"), title("hidden_units")
        ('μ', 'z₁', 'log σ₀', 'hidden units')
    """
    words: list[str] = []
    for part in name.split("_"):
        letters = part.rstrip("0123456789")
        index = part[len(letters) :]
        symbol = _LETTERS.get(letters, letters)
        if not letters and words and len(words[-1]) == 1:
            words[-1] += index.translate(_SUBSCRIPTS)
        elif len(symbol) == 1:
            words.append(symbol + index.translate(_SUBSCRIPTS))
        else:
            words.append(symbol + index)
    return " ".join(words)


def read_values(axis: Any, name: str) -> list[Any]:
    """The values of an axis as Python numbers or strings; errors name the axis."""
    if isinstance(axis, str) or not isinstance(axis, Iterable):
        raise TypeError(f"{name} must be a sequence of numbers or strings, got {type(axis).__name__}")
    if getattr(axis, "ndim", 1) != 1:
        raise TypeError(f"{name} must have one dimension, got shape {tuple(getattr(axis, 'shape', ()))}")
    values = [value.item() if hasattr(value, "item") else value for value in axis]
    for value in values:
        if not isinstance(value, int | float | str):
            raise TypeError(f"{name} must hold numbers or strings, got {type(value).__name__}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} must hold finite values, got {value}")
    if len(values) < 2:
        raise ValueError(f"{name} must have at least two values, got {len(values)}")
    if len(set(values)) < len(values):
        raise ValueError(f"{name} must not repeat a value, got {values}")
    return values


def write_values(values: list[Any]) -> list[str]:
    """The values as short texts, all different."""
    scale = scale_of(values)
    labels: list[str] = []
    for digits in range(4, 18):
        labels = [write_value(v, digits, scale) for v in values]
        if len(set(labels)) == len(labels):
            break
    return labels


def scale_of(values: list[Any]) -> float:
    """The largest magnitude of an axis that crosses zero, else 0; rounding errors relative to it are shown as 0."""
    numbers = [value for value in values if isinstance(value, float)]
    return max(map(abs, numbers)) if min(numbers, default=0.0) < 0 else 0.0


def write_value(value: Any, digits: int = 4, scale: float = 0.0) -> str:
    """One value as text, with a true minus sign."""
    if isinstance(value, float):
        value = 0.0 if abs(value) < 1e-12 * scale else value  # arange leaves a rounding error at zero
        value = f"{value:.0f}" if value == round(value) and abs(value) < 1e6 else f"{value:.{digits}g}"
        return str(value).replace("-", "\u2212")
    return str(value).replace("-", "\u2212") if isinstance(value, int) else str(value)


def read_start(values: dict[str, list[Any]], start: Mapping[str, Any]) -> dict[str, int]:
    """The initial position of each slider: that of ``start``, otherwise the middle."""
    begin = {name: len(axis) // 2 for name, axis in values.items()}
    for name, value in start.items():
        if name not in values:
            raise ValueError(f"start must name axes ({', '.join(values)}), got {name!r}")
        found = [i for i, v in enumerate(values[name]) if v == value or _close(v, value)]
        if not found:
            raise ValueError(f"start must be on its axis: {name} has no value {value!r}, only {values[name]}")
        begin[name] = found[0]
    return begin


def read_texts(given: Any, argument: str, values: Mapping[str, Any]) -> dict[str, str]:
    """The texts for some of the axes, from ``labels`` or ``units``."""
    for name, text in given.items():
        if name not in values:
            raise ValueError(f"{argument} must name axes ({', '.join(values)}), got {name!r}")
        if not isinstance(text, str):
            raise TypeError(f"{argument} must hold strings, got {type(text).__name__} for {name}")
    return dict(given)


def alt_text(alt: Any, point: dict[str, Any], values: dict[str, list[Any]]) -> str:
    """The text of ``alt`` for one point: a format string over the displayed values, or a function."""
    if isinstance(alt, str):
        try:
            text: Any = _ShortFormatter(values).vformat(alt, (), point)
        except ValueError as error:
            raise ValueError(f"alt has a field that cannot be formatted: {error}") from None
    elif callable(alt):
        text = alt(**point)
    else:
        raise TypeError(f"alt must be a format string or a function of the axes, got {type(alt).__name__}")
    if not isinstance(text, str):
        raise TypeError(f"alt must return a string, got {type(text).__name__}")
    if not text.strip():
        raise ValueError("alt must describe the picture, got an empty text")
    return text


class _ShortFormatter(string.Formatter):
    """`str.format` that writes a plain ``{name}`` as the slider shows it."""

    def __init__(self, values: dict[str, list[Any]]) -> None:
        self.values = values

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        if field_name not in kwargs:
            raise ValueError(f"{{{field_name}}} is not one of the axes ({', '.join(kwargs)})")
        value, axis = kwargs[field_name], self.values[field_name]
        on_axis = value in axis  # a live slider also has values in between
        label = write_values(axis)[axis.index(value)] if on_axis else write_value(value, 4, scale_of(axis))
        return (label, value), field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        label, raw = value
        return format(raw, format_spec).replace("-", "\u2212") if format_spec else label


def _close(a: Any, b: Any) -> bool:
    """Whether two numbers are equal up to the rounding of linspace."""
    return not isinstance(a, str) and not isinstance(b, str) and math.isclose(a, b, abs_tol=1e-12)
