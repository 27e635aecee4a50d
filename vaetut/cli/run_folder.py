"""The folder of a trained model: written by `vaetut train`, read by the other commands of `vaetut.cli`.

* ``model.pt``: the parameters, the arguments that make the model, and the name of its data;
* ``history.json``: the bound after each epoch, as `vaetut.History.to_dict` gives it;
* ``config.json``: the options of the run, versions and seconds;
* ``checkpoint.pt``: what ``--resume`` goes on from.

Files are written beside their place and then moved there, so that none is ever half there, and ``model.pt`` is
read with ``weights_only=True``: nothing in it can run code.
"""

import json
import os
import pickle
import platform
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy
import torch

import vaetut
from vaetut._support.files import atomically
from vaetut.models import VAE

MODEL, HISTORY, CONFIG, CHECKPOINT = "model.pt", "history.json", "config.json", "checkpoint.pt"
_FORMAT, _VERSION = "vaetut model", 1


class Saved(NamedTuple):
    """A trained model and what it was trained on.

    Attributes:
        model: the model, on the CPU.
        arguments: what it was made with.
        dataset: the name that `vaetut.load` takes.
        image_shape: ``(height, width)``.
        binarize: how grey pixels were treated: ``"dynamic"``, ``"threshold"`` or ``"none"``.
    """

    model: VAE
    arguments: dict[str, Any]
    dataset: str
    image_shape: tuple[int, int]
    binarize: str


def save_model(folder: Path, saved: Saved) -> None:
    """Write ``model.pt`` into the folder."""
    parameters = {name: value.detach().cpu() for name, value in saved.model.state_dict().items()}
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        "arguments": saved.arguments,
        "dataset": saved.dataset,
        "image_shape": saved.image_shape,
        "binarize": saved.binarize,
        "parameters": parameters,
    }
    atomically(folder / MODEL, lambda path: torch.save(content, path))


def load_model(folder: Path) -> Saved:
    """Read ``model.pt``.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged, of another program, or of a later version.
    """
    path = folder / MODEL
    if not path.is_file():
        what = "is not a folder" if not folder.is_dir() else f"holds no {MODEL}"
        raise FileNotFoundError(f"{folder} {what}; name the folder that `vaetut train --out` wrote")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        _refuse(path, "it is damaged or of another program", error)
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        _refuse(path, "it is of another program")
    if content.get("version") != _VERSION:
        _refuse(path, f"its version is {content.get('version')}, this vaetut reads {_VERSION}")
    try:
        model = VAE(**content["arguments"])
        model.load_state_dict(content["parameters"])
        height, width = content["image_shape"]
        dataset, binarize = str(content["dataset"]), str(content["binarize"])
    except (TypeError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        _refuse(path, "its parts do not fit together", error)
    return Saved(model.eval(), content["arguments"], dataset, (height, width), binarize)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; name the folder that `vaetut train --out` wrote")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        _refuse(path, "it is damaged", error)
    if not isinstance(content, dict):
        _refuse(path, "it does not hold an object")
    return content


def is_first_process() -> bool:
    """Whether this is the one of several processes that writes and prints; one alone is."""
    return os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("NODE_RANK", "0") == "0"


def versions() -> dict[str, str]:
    """The versions that a result depends on, and the kind of machine."""
    return {
        "vaetut": vaetut.__version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def _refuse(path: Path, reason: str, error: Exception | None = None) -> NoReturn:
    detail = (
        f" ({type(error).__name__}: {str(error).strip().splitlines()[0]})" if error and str(error) else ""
    )
    raise ValueError(f"{path} cannot be used: {reason}{detail}. It was left as it is") from error
