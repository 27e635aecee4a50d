"""A trained `vaetut.VAE` in a file, and the way back: chapter 11.

The file is what ``torch.save`` makes of a dict of tensors and plain values, followed by one line with the SHA-256 of
all before it. It is read only if that hash is right, and then only with ``weights_only=True``, which runs no code
from the file. The hash finds damage; it does not say who wrote the file.
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
    """Write a trained model to a file, for `load_model`.

    The file holds the parameters, on the CPU, and what `vaetut.VAE` was called with: no code, and nothing of the
    training (``train(..., checkpoint=...)`` keeps a run that is to go on). What was at ``path`` is replaced
    atomically: whatever happens meanwhile, there is the old file or the new one.

    Args:
        model: a `vaetut.VAE`. Of a class of your own, only your program knows how to make one; keep its
            ``state_dict()`` with ``torch.save``.
        path: of the file, in a folder that exists.

    Raises:
        TypeError: if the model is of another class.
        FileNotFoundError: if there is no such folder.

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
    """Read the trained model in a file of `save_model`, in a checkpoint of `vaetut.train`, or in a run's folder.

    Of a folder of the command ``vaetut train`` that is ``model.pt``, and before the run has ended its checkpoint; of a
    checkpoint it is the model at the end of the last complete epoch, or, where the run has ``patience``, of the best
    one so far. Files of the first edition are read as well.

    Args:
        path: of the file or the folder.

    Returns:
        The model on the CPU, in evaluation mode. No random numbers are drawn.

    Raises:
        FileNotFoundError: if there is no such file, or the folder has neither.
        ValueError: if the file is something else, is damaged, or holds a model of another class. It is left as it is.

    Example:
        >>> load_model("nowhere.pt")
        Traceback (most recent call last):
        FileNotFoundError: nowhere.pt is not there; ...
    """
    return read_model(path)[0]


def write_model(model: VAE, path: str | os.PathLike[str], about: dict[str, Any]) -> None:
    """`save_model`, with more plain values to be kept: ``about`` may hold the name of the data, for instance."""
    if type(model) is not VAE:
        raise TypeError(
            f"model must be a vaetut.VAE, got {type(model).__name__}; torch.save keeps its state_dict()"
        )
    file = Path(path).expanduser()
    if not file.parent.is_dir():
        raise FileNotFoundError(f"path must be in a folder that exists, got {str(path)!r}")
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        "arguments": constructor_arguments(model),
        "parameters": {name: value.detach().cpu() for name, value in model.state_dict().items()},
    }
    files.write_signed(file, serialized(about | content))


def read_model(path: str | os.PathLike[str]) -> tuple[VAE, dict[str, Any]]:
    """The model that `load_model` gives, and the other values that `write_model` kept with it."""
    file = Path(path).expanduser()
    if file.is_dir():
        found = [file / name for name in (MODEL, CHECKPOINT) if (file / name).is_file()]
        if not found:
            raise FileNotFoundError(
                f"{path} holds neither {MODEL} nor {CHECKPOINT}: it is no folder of `vaetut train`"
            )
        file = found[0]
    if not file.is_file():
        raise FileNotFoundError(f"{path} is not there; name a file of save_model or the folder of a run")
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
        raise files.refused(file, "holds no model of vaetut", "file")
    best = content.get("best") or {}
    return _vae(file, content["arguments"], best.get("model", content["model"])), {}


def constructor_arguments(model: nn.Module) -> dict[str, Any]:
    """What `vaetut.VAE` is to be called with to make a model like this one; nothing for other models."""
    if type(model) is not VAE:
        return {}
    names = ("data_dim", "latent_dim", "hidden_dim", "activation")
    return {name: getattr(model, name) for name in names} | {"likelihood": model.likelihood_name}


def serialized(content: dict[str, Any]) -> bytes:
    """What ``torch.save`` makes of ``content``."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def deserialized(payload: bytes, path: Any, kind: str) -> dict[str, Any]:
    """The dict of tensors and plain values that `serialized` made ``payload`` of."""
    try:
        content = torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
    except Exception as error:  # whatever a file that is not ours makes of torch.load
        # without torch's own words, which advise to switch weights_only off
        raise files.refused(path, f"cannot be read ({type(error).__name__})", kind) from None
    if not isinstance(content, dict):
        raise files.refused(path, f"must hold a dict, got {type(content).__name__}", kind)
    return content


def _vae(path: Path, arguments: Any, parameters: Any) -> VAE:
    if not arguments:
        raise files.refused(path, "holds a model of a class of its own, and no VAE", "file")
    try:
        with torch.device("meta"):  # no random numbers are drawn
            model = VAE(**arguments)
        model.load_state_dict(parameters, assign=True)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise files.refused(
            path, f"holds a VAE that is not what its arguments make ({error})", "file"
        ) from error
    return model.eval()
