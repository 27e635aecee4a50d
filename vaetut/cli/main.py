"""The command `vaetut`: train a variational auto-encoder, evaluate it, sample from it and plot it."""

import argparse
import importlib
import json
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import vaetut
from vaetut._support.text import is_out_of_memory, printable
from vaetut.cli import options

BOOK = "https://vaetut.github.io/vaetut/"
REPOSITORY = "https://github.com/vaetut/vaetut"

# Errors that a user can correct. Any other, unless `main` handles it, is a defect and shows a traceback.
_MISTAKES = (
    ValueError,
    TypeError,
    NotImplementedError,
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
)

_EPILOG = """\
examples:
  vaetut train --out runs/digits                       8 x 8 digits, a few seconds, no download
  vaetut evaluate runs/digits                          bound, IWAE bound and log p(x) of the test images
  vaetut sample runs/digits --file samples.png
  vaetut plot runs/digits                              learning curve and reconstructions
  vaetut train --dataset photos --image-size 32 --out runs/photos      a folder of PNG or JPEG images of your own
  vaetut train --recipe paper --out runs/paper         MNIST as in AEVB, two minutes on a CPU
  vaetut train --recipe best --out runs/best           log p(x) = -87.4, about 37 minutes on a CPU with --compile
  vaetut train --out runs/digits --resume              continue a stopped run

exit status: 0 done, 1 failed, 2 wrong usage, 130 stopped with Ctrl-C
"""

_TRAIN_EPILOG = """\
At the end of each epoch four files are written to the folder: model.pt (the parameters and the arguments of the
model), history.json (the bound after each epoch), config.json (all options) and checkpoint.pt (for --resume). So
evaluate, sample and plot can be used after the first epoch. Pictures that they made of an older model are removed. A
folder that holds a run is not changed without --resume or --overwrite. If the output is not a terminal, each epoch is
a line in the log (the standard error).

recipes:
  paper   MNIST, 784-500-20, tanh, batches of 100, one sample, Adam at 0.001, 20 epochs
  best    MNIST, 784-200-200-50, relu, Glorot's initialization, warm-up, Adam at a rate that falls, 400 epochs.
          For the importance-weighted bound continue from that model:
            vaetut train --recipe best --out runs/vae
            vaetut train --recipe best --init runs/vae --bound iwae --num-samples 5 --lr 0.0005 --out runs/iwae
Other options change the recipe.
"""

# Each command: its options and its help. Its module is imported when the command is called.
_COMMANDS: dict[str, tuple[tuple[type, ...], str]] = {
    "train": ((options.Place, options.Settings), "fit a VAE to images, and keep the run in a folder"),
    "evaluate": ((options.Evaluate,), "the bound, the IWAE bound and log p(x) of test images"),
    "sample": ((options.Sample,), "images from the model, as a picture or a tensor"),
    "plot": ((options.Plot,), "learning curve, reconstructions, and the latent plane if there is one"),
}


class _Terminated(BaseException):
    """SIGTERM or SIGHUP: incomplete files are removed, as with Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, the process's own if None; returns the exit status.

    Example:
        >>> main([])  # doctest: +ELLIPSIS
        vaetut ...
        book    ...
        source  ...
        0
    """
    _open_standard_streams()
    try:
        return _run(arguments)
    except BrokenPipeError:  # the reader of the output, such as `head`, has closed it
        _give_up_output()
        return 1


def _run(arguments: Sequence[str] | None) -> int:
    given = vars(_parser().parse_args(arguments))
    name = given.pop("command", None)
    if name is None:
        return _say(f"vaetut {vaetut.__version__}\nbook    {BOOK}\nsource  {REPOSITORY}")
    as_json = given.pop("json", False)
    try:
        with _signals(), warnings.catch_warnings():
            warnings.showwarning = _warn
            run = getattr(importlib.import_module(f"vaetut.cli.{name}"), name)
            kinds = _COMMANDS[name][0]
            result = run(given if name == "train" else kinds[0](**given))
    except KeyboardInterrupt as stop:
        return _complain(str(stop) or "stopped", 130)
    except _Terminated as stop:
        return _complain("stopped by a signal", 128 + stop.args[0])
    except BrokenPipeError:
        raise
    except _MISTAKES as error:
        return _complain(_text(error), 2)
    except (FloatingPointError, OSError, MemoryError) as error:
        return _complain(_text(error) or "out of memory", 1)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        first = str(error).strip().splitlines()[0]
        return _complain(
            f"out of memory; try a smaller --batch-size, --num-samples or --hidden-dim ({first})", 1
        )
    text = result.pop("text")
    if not text:  # only the first of several processes has a result
        return 0
    return _say(_json(result) if as_json else text)


def _text(error: Exception) -> str:
    """The message of an error; for one of the operating system the file and the reason, without a number."""
    if isinstance(error, OSError) and error.strerror:
        where = "" if error.filename is None else f"{error.filename}: "
        return f"{where}{error.strerror}"
    return str(error)


def _json(result: dict[str, Any]) -> str:
    """One JSON object, in ASCII if the output cannot encode it."""
    text = json.dumps(result, ensure_ascii=False, allow_nan=False)
    return text if printable(text, sys.stdout) == text else json.dumps(result, allow_nan=False)


def _say(text: str) -> int:
    """Print the result; report a full disk as an error."""
    if sys.stdout is None and sys.stderr is not None:  # closed; under pythonw both are None
        return _unwritable("it is closed")
    try:
        print(printable(text, sys.stdout), flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _unwritable(error.strerror)
    return 0


def _unwritable(reason: str | None) -> int:
    """Say that the standard output cannot be written."""
    _give_up_output()
    return _complain(f"the result cannot be written to the standard output: {reason}", 1)


def _open_standard_streams() -> None:
    """Open the null device in place of a closed standard stream.

    Otherwise the next file that is opened gets its number, and what a library prints there is written into the file.
    """
    with suppress(OSError):
        while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(handle)


def _give_up_output() -> None:
    """Discard the buffered output, so that the interpreter does not fail again at exit."""
    with suppress(OSError, AttributeError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())


def _complain(message: str, status: int) -> int:
    if sys.stderr is not None:
        text = f"vaetut: {'' if status >= 128 else 'error: '}{message}"
        with suppress(OSError):
            print(printable(text, sys.stderr), file=sys.stderr, flush=True)
    return status


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning in one line, without file and line number."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(printable(f"vaetut: warning: {message}", sys.stderr), file=sys.stderr, flush=True)


@contextmanager
def _signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise, so that incomplete files are removed."""
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        names = []

    def stop(number: int, _: Any) -> None:
        raise _Terminated(number)

    before = {}
    for name in names:
        number = getattr(signal, name)
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP: keep that
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Parser(argparse.ArgumentParser):
    """A parser whose help and errors can be printed on any console."""

    def _print_message(self, message: str, file: Any = None) -> None:
        file = sys.stderr if file is None else file
        if not message or file is None:
            return
        try:
            file.write(printable(message, file))
            file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            if file is sys.stdout:
                self.exit(_unwritable(error.strerror))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="vaetut",
        description="Train a variational auto-encoder, evaluate it, sample from it and plot it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"vaetut {vaetut.__version__}")
    commands = parser.add_subparsers(
        title="commands", metavar="train | evaluate | sample | plot", dest="command"
    )
    for name, (kinds, text) in _COMMANDS.items():
        is_train = name == "train"
        command = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=_TRAIN_EPILOG if is_train else None,
        )
        command.add_argument("--json", action="store_true", help="print the result as one JSON object")
        options.add_arguments(command, *kinds, suppress=is_train)
    return parser
