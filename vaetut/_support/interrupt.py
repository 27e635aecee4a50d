"""Ctrl-C while the command `vaetut` imports torch, which takes seconds: one line and status 130 instead of a traceback.

`vaetut` imports this module first and calls `restore` last. The handler is installed only in the command itself,
so importing the package in any other program changes nothing.
"""

import os
import signal
import sys
import threading
from types import FrameType


def is_command() -> bool:
    """Whether this process was started as ``vaetut ...`` or ``python -m vaetut ...``."""
    started = list(getattr(sys, "orig_argv", []))
    if "-m" in started:
        return started[started.index("-m") + 1 : started.index("-m") + 2] == ["vaetut"]
    return os.path.basename(getattr(sys, "argv", [""])[0]) in ("vaetut", "vaetut.exe")


def _stop(number: int, frame: FrameType | None) -> None:
    # Without an exception, which an extension module could turn into an ImportError. Nothing has been begun yet.
    os.write(2, b"vaetut: stopped\n")
    os._exit(130)


def restore() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again."""
    if _installed:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_installed = (
    is_command()
    and threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not if the user ignores it
)
if _installed:
    signal.signal(signal.SIGINT, _stop)
