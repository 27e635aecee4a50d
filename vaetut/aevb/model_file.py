"""Write a trained `vaetut.VAE` to a file, and read it: chapter 11.

The file is the output of ``torch.save`` for a dict of tensors and plain values, followed by one line with the SHA-256
of that output. It is read only if the hash is right, and only with ``weights_only=True``, which runs no code from the
file. The hash detects damage; it does not show who wrote the file.
"""

import io
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vaetut._support import files
from vaetut.models import VAE

_FORMAT = "vaetut model"
_VERSION = 2  # 1, of the first edition, had no hash
MODEL, CHECKPOINT = "model.pt", "checkpoint.pt"  # in the folder of a run of the command


def save_model(model: VAE, path: str | os.PathLike[str]) -> None:
    """Write a trained model to a file, for `load_model` (chapter 11).

    The file holds the parameters, on the CPU, and the arguments of `vaetut.VAE`: no code, and no state of
    the training (for a run that is to be resumed use ``train(..., checkpoint=...)``). ``path`` is replaced atomically:
    at any moment it is the old file or the new one.

    Args:
        model: a `vaetut.VAE`. For a class of your own, which only your program can construct, save its
            ``state_dict()`` with ``torch.save``.
        path: the file, in a folder that exists.

    Raises:
        TypeError: if the model is of another class, or ``path`` is not a path.
        FileNotFoundError: if the folder does not exist.
        IsADirectoryError: if ``path`` is a folder.

    Example:
        >>> import tempfile
        >>> from vaetut import VAE
        >>> model = VAE(data_dim=4, latent_dim=2, hidden_dim=3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_model(model, f"{folder}/digits.pt")
        ...     again = load_model(f"{folder}/digits.pt")
        >>> bool((again.decoder[0].weight == model.decoder[0].weight).all())
        True
    """
    write_model(model, path, {})


def load_model(path: str | os.PathLike[str]) -> VAE:
    """Read the trained model in a file of `save_model`, a checkpoint of `vaetut.train`, or a run's folder (chapter 11).

    In a folder of the command ``vaetut train`` it reads ``model.pt``, or, if there is none, the checkpoint. A
    checkpoint holds the model at the end of the last complete epoch, or, if the run has ``patience``, of the best one
    so far. Files of the first edition are read too.

    Args:
        path: the file or the folder.

    Returns:
        The model on the CPU, in evaluation mode. No random numbers are drawn.

    Raises:
        TypeError: if ``path`` is not a path.
        FileNotFoundError: if the file does not exist, or the folder has neither.
        ValueError: if the file is of another kind, is damaged, or holds a model of another class. It is not changed.

    Example:
        >>> load_model("nowhere.pt")
        Traceback (most recent call last):
        FileNotFoundError: nowhere.pt does not exist; name a file of save_model or the folder of a run
    """
    return read_model(path)[0]


def write_model(model: VAE, path: str | os.PathLike[str], about: dict[str, Any]) -> None:
    """`save_model`, with additional plain values ``about``, such as the name of the data."""
    if type(model) is not VAE:
        raise TypeError(
            f"model must be a vaetut.VAE, got {type(model).__name__}; torch.save keeps its state_dict()"
        )
    file = files.path_of(path, "path")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"path must be in a folder that exists, got {str(path)!r}")
    if file.is_dir():
        raise IsADirectoryError(f"path must be that of a file, got the folder {str(path)!r}")
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        "arguments": constructor_arguments(model),
        "parameters": {name: value.detach().cpu() for name, value in model.state_dict().items()},
    }
    files.write_signed(file, serialized(about | content))


def read_model(path: str | os.PathLike[str]) -> tuple[VAE, dict[str, Any]]:
    """The model, as `load_model` returns it, and the additional values of `write_model`."""
    file = files.path_of(path, "path")
    if file.is_dir():
        found = [file / name for name in (MODEL, CHECKPOINT) if (file / name).is_file()]
        if not found:
            raise FileNotFoundError(
                f"{path} holds neither {MODEL} nor {CHECKPOINT}: it is not a folder of `vaetut train`"
            )
        file = found[0]
    if not file.is_file():
        raise FileNotFoundError(f"{path} does not exist; name a file of save_model or the folder of a run")
    signed = files.is_signed(file)
    payload = files.read_signed(file) if signed else file.read_bytes()
    content = deserialized(payload, file, "file")
    if content.get("format") == _FORMAT:
        version, readable = content.get("version"), (_VERSION,) if signed else (1,)
        if version == _VERSION and not signed:
            raise files.refused(file, "is cut short: it must end with its SHA-256", "file")
        if version not in readable:
            raise files.refused(file, f"has version {version}, this vaetut reads up to {_VERSION}", "file")
        about = {
            name: content[name]
            for name in content
            if name not in ("format", "version", "arguments", "parameters")
        }
        return _vae(file, content.get("arguments"), content.get("parameters")), about
    if not signed or not {"arguments", "model", "epoch"} <= set(content):
        raise files.refused(file, "does not hold a model of vaetut", "file")
    best = content.get("best") or {}
    return _vae(file, content["arguments"], best.get("model", content["model"])), {}


def constructor_arguments(model: nn.Module) -> dict[str, Any]:
    """The arguments of `vaetut.VAE` that construct a model like this one; empty for other classes."""
    if type(model) is not VAE:
        return {}
    names = ("data_dim", "latent_dim", "hidden_dim", "activation")
    return {name: getattr(model, name) for name in names} | {"likelihood": model.likelihood_name}


def serialized(content: dict[str, Any]) -> bytes:
    """The bytes that ``torch.save`` writes for ``content``."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def deserialized(payload: bytes, path: Any, kind: str) -> dict[str, Any]:
    """The dict of tensors and plain values that `serialized` turned into ``payload``."""
    try:
        content = torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
    except Exception as error:  # torch.load raises many kinds for a foreign file
        # without torch's message, which advises to set weights_only=False
        problem = f"cannot be read as tensors and plain values ({type(error).__name__})"
        raise files.refused(path, problem, kind) from None
    if not isinstance(content, dict):
        raise files.refused(path, f"must hold a dict, got {type(content).__name__}", kind)
    return content


def _vae(path: Path, arguments: Any, parameters: Any) -> VAE:
    if not arguments:
        raise files.refused(path, "holds a model of another class than VAE", "file")
    try:
        with torch.device("meta"):  # no random numbers are drawn
            model = VAE(**arguments)
        model.load_state_dict(parameters, assign=True)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise files.refused(
            path, f"holds a VAE whose parameters do not fit its arguments ({error})", "file"
        ) from error
    return model.eval()
