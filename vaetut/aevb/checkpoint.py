"""The state of a training run in a file, from which `vaetut.train` resumes bit-exactly.

The file is the output of ``torch.save`` for a dict of tensors and plain values, so that
``torch.load(path, weights_only=True)["model"]`` returns the parameters wherever torch is installed, followed by one
line with the SHA-256 of that output. It is read only if the hash is right, and only with ``weights_only=True``, which
runs no code from the file. The hash detects damage; it is not a signature, and anybody can write a valid file with
other numbers.
"""

import functools
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vaetut._support.files import read_signed, refused, write_signed
from vaetut.aevb.history import History
from vaetut.aevb.model_file import constructor_arguments, deserialized, serialized
from vaetut.aevb.source import form
from vaetut.aevb.untracked import Watch

_REQUIRED = ("epoch", "model", "arguments", "optimizer", "random_states", "history", "configuration")


class CheckpointWriter:
    """Writes the state of a run to the file ``path``; without a path it does nothing.

    Args:
        path: the file.
        configuration: what a resumed run must have in common with this one.
        model: the model.
        parts: the other objects with a state, by the name of their entry in the file.
        state: the user's own objects with a state, by name.
        watch: finds state that is in no entry.

    Raises:
        TypeError: if a state has a type that could not be read again.
    """

    def __init__(
        self,
        path: Path | None,
        configuration: dict[str, Any],
        model: nn.Module,
        parts: dict[str, Any],
        state: dict[str, Any],
        watch: Watch | None,
    ) -> None:
        self.path = path
        self.configuration = configuration
        self.model = model
        self.parts = parts
        self.state = state
        self.watch = watch
        self.untracked: list[str] = []
        if path is not None:
            for name, value in {"model": model, **parts}.items():
                _require_readable(name, value)
            for name, value in state.items():
                _require_readable(f"state[{name!r}]", value)

    def load(self, epochs: int) -> tuple[History, list[Any]] | None:
        """Load the file into the model and all other parts; return the history and the random states.

        If the file does not fit, nothing is changed. If there is no file, return None.
        """
        if self.path is None or not self.path.exists():
            return None
        content = read(self.path)
        require_equal(self.path, content["configuration"], self.configuration)
        if content.get("untracked"):
            raise _refused(
                self.path,
                f"cannot be resumed: during its run {'; '.join(content['untracked'])} changed, and the file does not "
                "hold that. Give the object that changes state_dict and load_state_dict, and pass it as state",
            )
        if epochs < content["epoch"]:
            raise ValueError(
                f"epochs must be at least {content['epoch']}, which the run in checkpoint {self.path} has "
                f"reached, got {epochs}: it is the number of all epochs, not of additional ones"
            )
        now = {name: form(value) for name, value in self.model.state_dict().items()}
        require_equal(self.path, {name: form(value) for name, value in content["model"].items()}, now)
        try:
            history = History(**content["history"])
            torch.Generator().set_state(content["random_states"][0][0])
            for name, value in self.parts.items():
                value.load_state_dict(content[name])
            for name, value in self.state.items():
                value.load_state_dict(content["state"][name])
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
            raise _refused(self.path, f"does not fit the run ({type(error).__name__}: {error})") from error
        self.model.load_state_dict(content["model"])
        return history, content["random_states"]

    def save(self, epoch: int, history: History, random_states: Callable[[], Any], rank: int) -> None:
        """Write the state at the end of an epoch. Only the first rank writes."""
        if self.path is None:
            return
        states = random_states()
        if rank != 0:
            return
        content = {
            "epoch": epoch,
            "model": self.model.state_dict(),
            "arguments": constructor_arguments(self.model),
            **{name: part.state_dict() for name, part in self.parts.items()},
            "random_states": states,
            "history": history.to_dict(),
            "configuration": self.configuration,
        }
        if self.state:
            content["state"] = {name: value.state_dict() for name, value in self.state.items()}
        if untracked := self._untracked():
            content["untracked"] = untracked
        write_signed(self.path, serialized(content))

    def _untracked(self) -> list[str]:
        """What has changed since the beginning and is in no entry. The warning is given once."""
        found = self.watch.changed() if self.watch is not None else []
        if set(found) - set(self.untracked):
            warnings.warn(
                f"this run cannot be resumed from its checkpoint, which does not hold {'; '.join(found)}. Give the "
                "object that changes state_dict and load_state_dict, and pass it as state",
                stacklevel=6,  # the caller of train
            )
        self.untracked = sorted({*found, *self.untracked})
        return self.untracked


def resolve_path(path: Any, resume: bool) -> Path:
    """The path of ``checkpoint``; raise if it cannot or must not be written."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"checkpoint must be a path, got {type(path).__name__}")
    # if it is a link, the file that it points to is replaced
    file = Path(os.path.realpath(Path(path).expanduser()))
    if file.is_dir():
        raise ValueError(f"checkpoint must be the path of a file, got the folder {file}")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"checkpoint must be in a folder that exists, got {file}")
    if not os.access(file.parent, os.W_OK):
        raise PermissionError(f"checkpoint must be in a folder that can be written to, got {file}")
    if file.exists() and not resume:
        raise FileExistsError(
            f"checkpoint {file} exists, and is not overwritten: use resume=True to continue it, or another path, "
            "or delete it"
        )
    return file


def function_name(function: Any) -> str:
    """A name that identifies a function in another process."""
    if isinstance(function, functools.partial):
        inner = [function_name(function.func), *map(repr, function.args)]
        return f"partial({', '.join(inner + [f'{k}={v!r}' for k, v in sorted(function.keywords.items())])})"
    named = function if hasattr(function, "__qualname__") else type(function)
    # Functions may move inside of a package: files of the first edition name vaetut.bounds, whatever the module is now.
    module = (
        ".".join(named.__module__.split(".")[:2])
        if named.__module__.startswith("vaetut.")
        else named.__module__
    )
    return f"{module}.{named.__qualname__}"


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a checkpoint: ``epoch``, ``model``, ``optimizer``, ``history``, ``configuration`` and so on.

    Raises:
        ValueError: if the file was not written by `vaetut.train`, is incomplete, or was changed. The file is kept.
    """
    content = deserialized(read_signed(path, "checkpoint"), path, "checkpoint")
    if not set(_REQUIRED) <= set(content):
        raise _refused(
            path, f"must hold {', '.join(_REQUIRED)}: it was not written by vaetut.train(..., checkpoint=)"
        )
    return content


def require_equal(path: Path, saved: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse a file of another run."""
    different = [name for name in {**now, **saved} if saved.get(name) != now.get(name)]
    if different:
        parts = "; ".join(format_difference(name, saved.get(name), now.get(name)) for name in different[:5])
        more = f"; and {len(different) - 5} more" if len(different) > 5 else ""
        raise _refused(
            path,
            f"is of another run: {parts}{more}. Resume with the same arguments, or use another path",
        )


def format_difference(name: str, saved: Any, now: Any) -> str:
    """How one entry differs; for a text of many lines, the first line that differs."""
    if isinstance(saved, str) and isinstance(now, str) and "\n" in saved + now:
        pairs = zip([*saved.split("\n"), ""], [*now.split("\n"), ""], strict=False)
        saved, now = next(((a.strip(), b.strip()) for a, b in pairs if a != b), (saved, now))
    return f"{name} was {saved}, is now {now}"


def settings(optimizer: torch.optim.Optimizer) -> str:
    """The class of a new optimizer, and the settings of each group of parameters."""
    groups = []
    for group in optimizer.param_groups:
        options = ", ".join(f"{name}={_plain(value)!r}" for name, value in group.items() if name != "params")
        groups.append(f"{len(group['params'])} parameters: {options}")
    return f"{type(optimizer).__name__}({'; '.join(groups)})"


def scheduler_settings(scheduler: Any) -> str | None:
    """The class of a new scheduler, and its settings."""
    if scheduler is None:
        return None
    options = (f"{name}={_plain(value)!r}" for name, value in sorted(scheduler.state_dict().items()))
    return f"{type(scheduler).__name__}({', '.join(options)})"


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value


def _require_readable(name: str, value: Any) -> None:
    try:
        deserialized(serialized({name: value.state_dict()}), name, "state of")
    except Exception as error:  # pickle raises many kinds
        raise TypeError(
            f"{name} must have a state_dict of tensors and plain values, so that a checkpoint can hold it: "
            f"{type(error).__name__} for that of {type(value).__name__}"
        ) from error


def _refused(path: Any, problem: str) -> ValueError:
    return refused(path, problem, "checkpoint")
