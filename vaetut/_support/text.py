"""Text for any console: characters that a stream cannot encode are replaced by ASCII, and a stream may be missing."""

import contextlib
import sys
from typing import Any

_REPLACEMENTS = str.maketrans(
    {
        "✓": "ok",
        "±": "+-",
        "−": "-",
        "–": "-",
        "—": "-",
        "…": "...",
        "×": "x",
        "·": ".",
        "≤": "<=",
        "≥": ">=",
        "≈": "~",
        "→": "->",
        "∞": "inf",
        "‘": "'",
        "’": "'",
        "“": '"',
        "”": '"',
    }
)


def printable(text: str, stream: Any) -> str:
    r"""``text`` as ``stream`` can print it: unchanged if its encoding allows that, otherwise with ASCII replacements.

    Windows consoles (cp1252), containers without a locale (ASCII) and some log files cannot encode every character; one
    that they lack would end the program with a UnicodeEncodeError. A stream that names no encoding, such as
    `io.StringIO` or a notebook's, takes any text.

    Args:
        text: what is to be printed.
        stream: where it is printed, such as ``sys.stdout``; None (as under ``pythonw``) takes any text.

    Example:
        >>> import io
        >>> printable("✓ −87.4 ± 0.1", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
        'ok -87.4 +- 0.1'
        >>> printable("✓ −87.4 ± 0.1", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
        '✓ −87.4 ± 0.1'
    """
    encoding = getattr(stream, "encoding", None)
    if not isinstance(encoding, str):
        return text
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_REPLACEMENTS).encode(encoding, "backslashreplace").decode(encoding)
    except LookupError:
        return text
    return text


def log(line: str) -> None:
    """Print a line to the standard error; one that cannot be written does not stop the program."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(printable(line, sys.stderr), file=sys.stderr, flush=True)


def is_terminal(stream: Any) -> bool:
    """Whether ``stream`` is a terminal; False if it is None, closed, or has no ``isatty``.

    Example:
        >>> is_terminal(None)
        False
    """
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError, OSError):
        return False


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch failed for lack of memory; it has an exception of its own for that on a GPU only.

    Example:
        >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
        True
        >>> is_out_of_memory(RuntimeError("a defect"))
        False
    """
    parts = ("out of memory", "can't allocate memory", "Storage size calculation overflowed")
    return any(part in str(error) for part in parts)
