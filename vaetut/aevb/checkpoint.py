"""A training run in a file, from which `vaetut.train` goes on to the bit.

The file is what ``torch.save`` makes of a dict of tensors and plain values, so that ``torch.load(path,
weights_only=True)["model"]`` gets the parameters wherever torch is, followed by one line with the SHA-256 of all
before it. It is read only if that hash is right, and then only with ``weights_only=True``, which runs no code from
the file. The hash finds damage; it is no signature, and whoever wants to can write a valid file with other numbers.
"""

import functools
import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vaetut._support.files import read_signed, refused, write_signed
from vaetut.aevb.model_file import constructor_arguments, serialized

_PARTS: dict[str, type] = {
    "epoch": int,
    "model": dict,
    "arguments": dict,
    "optimizer": dict,
    "random_states": list,
    "history": dict,
    "configuration": dict,
}


class Keeper:
    """Keeps the state of a run in the file ``path``; without a path it does nothing.

    Raises:
        TypeError: if the state is of a kind that could not be read again.
    """

    def __init__(
        self,
        path: Path | None,
        configuration: dict[str, Any],
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.path = path
        self.configuration = configuration
        self.model = model
        self.optimizer = optimizer
        for name, part in (("model", model), ("optimizer", optimizer)) if path is not None else ():
            try:
                torch.load(io.BytesIO(serialized(part.state_dict())), weights_only=True)
            except Exception as error:  # pickle has many
                raise TypeError(
                    f"{name} must have a state_dict of tensors and plain values, to be kept in a checkpoint: "
                    f"{type(error).__name__} for that of {type(part).__name__}"
                ) from error

    def load(self, epochs: int) -> dict[str, Any] | None:
        """Give the model and the optimizer the state in the file, and return all that is in it.

        Nothing is changed if the file does not fit. Without a file there is nothing to load: None.
        """
        if self.path is None or not self.path.exists():
            return None
        content = read(self.path)
        _same(self.path, content["configuration"], self.configuration)
        if epochs < content["epoch"]:
            raise ValueError(
                f"epochs must be at least {content['epoch']}, which the run in checkpoint {self.path} has "
                f"reached, got {epochs}: it is the number of all epochs, not of those to come"
            )
        _fill(self.path, content, self.model, self.optimizer)
        return content

    def save(
        self, epoch: int, history: dict[str, list[float]], random_states: Callable[[], Any], rank: int
    ) -> None:
        """Write the state at the end of an epoch. Only the first of several processes writes."""
        if self.path is None:
            return
        states = random_states()
        if rank == 0:
            content = {
                "epoch": epoch,
                "model": self.model.state_dict(),
                "arguments": constructor_arguments(self.model),
                "optimizer": self.optimizer.state_dict(),
                "random_states": states,
                "history": history,
                "configuration": self.configuration,
            }
            write_signed(self.path, serialized(content))


def place(path: Any, resume: bool) -> Path:
    """The file that ``checkpoint`` names, once it is clear that it can be written, and may be."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"checkpoint must be a path, got {type(path).__name__}")
    file = Path(
        os.path.realpath(Path(path).expanduser())
    )  # behind a link, the file is replaced and not the link
    if file.is_dir():
        raise ValueError(f"checkpoint must be the path of a file, got the folder {file}")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"checkpoint must be in a folder that exists, got {file}")
    if not os.access(file.parent, os.W_OK):
        raise PermissionError(f"checkpoint must be in a folder that can be written to, got {file}")
    if file.exists() and not resume:
        raise FileExistsError(
            f"checkpoint {file} exists, and is left as it is: give resume=True to go on from it, another path, "
            "or delete it"
        )
    return file


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a checkpoint: ``epoch``, ``model``, ``optimizer``, ``history``, ``configuration`` and so on.

    Raises:
        ValueError: if the file is not one that `vaetut.train` wrote, is cut short, or was changed since. It is left as
            it is.
    """
    payload = read_signed(path, "checkpoint")
    try:
        found = torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
    except Exception as error:  # whatever a file that is not ours makes of torch.load
        raise _refused(path, f"cannot be read ({type(error).__name__})") from error
    problem = _problem(found)
    if problem:
        raise _refused(path, problem)
    return found


def function_name(function: Any) -> str:
    """A name by which a function is known again in another process."""
    if isinstance(function, functools.partial):
        inner = [function_name(function.func), *map(repr, function.args)]
        return f"partial({', '.join(inner + [f'{k}={v!r}' for k, v in sorted(function.keywords.items())])})"
    named = function if hasattr(function, "__qualname__") else type(function)
    # Files may move inside of a package: those of the first edition say vaetut.bounds, whatever the module is now.
    module = (
        ".".join(named.__module__.split(".")[:2])
        if named.__module__.startswith("vaetut.")
        else named.__module__
    )
    return f"{module}.{named.__qualname__}"


def fingerprint(x: Tensor | None) -> str | None:
    """Dtype, shape and the first half of the SHA-256 of a tensor's values."""
    if x is None:
        return None
    values = x.detach().cpu().contiguous()
    return f"{_form(x)} {hashlib.sha256(values.numpy().data).hexdigest()[:32]}"


def settings(optimizer: torch.optim.Optimizer) -> str:
    """The class of a new optimizer, and how each group of parameters is set."""
    groups = []
    for group in optimizer.param_groups:
        options = ", ".join(f"{name}={value!r}" for name, value in group.items() if name != "params")
        groups.append(f"{len(group['params'])} parameters: {options}")
    return f"{type(optimizer).__name__}({'; '.join(groups)})"


def _fill(path: Path, content: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give a model and a new optimizer the state in a checkpoint."""
    now, saved = model.state_dict(), content["model"]
    _same(path, {name: _form(value) for name, value in saved.items()}, {k: _form(v) for k, v in now.items()})
    state, parameters = content["optimizer"].get("state"), _parameters(optimizer)
    fits = isinstance(state, dict) and all(
        isinstance(index, int)
        and index in range(len(parameters))
        and isinstance(values, dict)
        and all(_fits(value, parameters[index], optimizer) for value in values.values())
        for index, values in state.items()
    )
    try:
        if not fits:
            raise ValueError("its state is not of the parameters' shapes")
        optimizer.load_state_dict(content["optimizer"])
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise _refused(path, f"holds an optimizer that does not fit the model ({error})") from error
    model.load_state_dict(saved)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _fits(value: Any, parameter: Tensor, optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer may keep ``value`` for ``parameter``; of what others than ours keep, nothing is known."""
    if type(optimizer) not in (torch.optim.Adam, torch.optim.Adagrad, torch.optim.SGD):
        return True
    if isinstance(value, Tensor):
        return value.dim() == 0 or (value.shape == parameter.shape and value.dtype == parameter.dtype)
    return value is None


def _form(value: Any) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _problem(found: Any) -> str:
    """What is wrong with the content of a file whose hash is right; empty if nothing is."""
    if not isinstance(found, dict) or set(found) != set(_PARTS):
        return f"must hold {', '.join(_PARTS)}"
    for name, kind in _PARTS.items():
        if type(found[name]) is not kind and not (kind is dict and isinstance(found[name], dict)):
            return f"must hold a {kind.__name__} as {name}, got {type(found[name]).__name__}"
    epoch, history = found["epoch"], found["history"]
    if epoch < 1:
        return f"must hold an epoch of at least 1, got {epoch}"
    if not all(isinstance(value, Tensor) for value in found["model"].values()):
        return "must hold tensors alone as model"
    lengths = {"train": (epoch,), "validation": (0, epoch)}
    if set(history) != set(lengths) or not all(
        isinstance(history[name], list)
        and len(history[name]) in allowed
        and all(isinstance(value, float) for value in history[name])
        for name, allowed in lengths.items()
    ):
        return f"must hold a history of {epoch} epochs"
    if not found["random_states"] or not all(map(_is_random_state, found["random_states"])):
        return "must hold states of torch's random numbers"
    return ""


def _is_random_state(states: Any) -> bool:
    if not isinstance(states, list) or not all(
        isinstance(state, Tensor) and state.dtype == torch.uint8 and state.dim() == 1 for state in states
    ):
        return False
    try:
        torch.Generator().set_state(states[0])
    except (RuntimeError, IndexError):
        return False
    return len(states) in (1, 2)


def _same(path: Path, saved: dict[str, Any], now: dict[str, Any]) -> None:
    different = [name for name in {**now, **saved} if saved.get(name) != now.get(name)]
    if different:
        told = "; ".join(_told(name, saved.get(name), now.get(name)) for name in different[:5])
        more = f"; and {len(different) - 5} more" if len(different) > 5 else ""
        raise _refused(
            path,
            f"is of another run: {told}{more}. Go on with the same arguments, or give another path",
        )


def _told(name: str, saved: Any, now: Any) -> str:
    """How one entry differs; of texts with many lines, the first that is not the same."""
    if isinstance(saved, str) and isinstance(now, str) and "\n" in saved + now:
        pairs = zip([*saved.split("\n"), ""], [*now.split("\n"), ""], strict=False)
        saved, now = next(((a.strip(), b.strip()) for a, b in pairs if a != b), (saved, now))
    return f"{name} was {saved}, is now {now}"


def _refused(path: Any, problem: str) -> ValueError:
    return refused(path, problem, "checkpoint")
