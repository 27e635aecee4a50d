"""The folder of a run: written by `vaetut train`, read by the other commands of `vaetut.cli`.

* ``model.pt``: the parameters, the arguments of the model, and the name of its data;
* ``history.json``: the bound after each epoch, from `vaetut.History.to_dict`;
* ``config.json``: the options of the run, versions and seconds;
* ``checkpoint.pt``: the state from which ``--resume`` continues.

All four belong to the same epoch, the last complete one. They are first written to the subfolder ``.new``; then the
file ``.new/commit`` marks them as complete, and each is moved to its place by an atomic rename. If a process is killed
before the commit, the folder is unchanged; if after it, the next command finishes the moves. A run that replaces
another therefore does so at the end of its first epoch, and until then the old run is complete.

While `vaetut train` writes, it holds the folder's lock (`vaetut.cli.lock`).
"""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vaetut._support.files import atomically, read_json, versions, write_json
from vaetut.aevb import checkpoint as checkpoints
from vaetut.aevb.model_file import CHECKPOINT, MODEL, read_model, write_model
from vaetut.cli.lock import LOCK, locked, quoted
from vaetut.cli.options import DATASETS, Settings, from_plain
from vaetut.data import ImageData, load, own
from vaetut.models import VAE

HISTORY, CONFIG = "history.json", "config.json"
FILES = (CHECKPOINT, MODEL, HISTORY, CONFIG)
PICTURES = ("learning-curve.png", "reconstructions.png", "latent-plane.png", "samples.png", "manifold.png")
NEW, _COMMIT = ".new", "commit"
_BEFORE_THE_MOVE = tuple(f".{name}." for name in FILES)  # the beginning of the names of their temporary files


class Saved(NamedTuple):
    """A trained model and what it was trained on.

    Attributes:
        model: the model, on the CPU.
        dataset: the name for `vaetut.load`, or the path of the user's own data.
        image_shape: ``(height, width)``, or ``(3, height, width)`` in color; None for data that are not images.
        binarize: how gray pixels were treated: ``"dynamic"``, ``"threshold"`` or ``"none"``.
        reading: how the user's own data were read: ``image_size`` and ``test_share``.
    """

    model: VAE
    dataset: str
    image_shape: tuple[int, ...] | None
    binarize: str
    reading: dict[str, Any]

    def about(self) -> dict[str, Any]:
        """What ``model.pt`` holds besides the model."""
        found = self._asdict()
        del found["model"]
        return found


# --- reading


def open_model(folder: Path) -> Saved:
    """The model in a run's folder: ``model.pt``, or if there is none that of the checkpoint.

    Raises:
        FileNotFoundError: if neither exists.
        ValueError: if a file is damaged, of another program, or of a later version, or a parameter is not finite.
    """
    settle(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{quoted(folder)} is not a folder; name the folder that `vaetut train --out` wrote"
        )
    if not any((folder / name).is_file() for name in (MODEL, CHECKPOINT)):
        raise FileNotFoundError(
            f"{quoted(folder)} has no {MODEL}; name the folder that `vaetut train --out` wrote, after its first epoch"
        )
    path = folder / (MODEL if (folder / MODEL).is_file() else CHECKPOINT)
    try:
        model, about = read_model(path)
    except ValueError as error:
        raise ValueError(" ".join(str(error).split())) from None  # torch's reasons have many lines
    if path.name == CHECKPOINT:  # a run of the first edition that was stopped
        about = _about_from_config(folder)
    missing = {"dataset", "image_shape", "binarize"} - set(about)
    if missing:
        raise ValueError(
            f"{quoted(path)} cannot be used: it lacks {', '.join(sorted(missing))}. It was left as it is"
        )
    bad = [name for name, value in model.named_parameters() if not torch.isfinite(value).all()]
    if bad:
        raise ValueError(
            f"{quoted(path)} cannot be used: its parameters {', '.join(bad[:3])} hold NaN or infinity"
        )
    shape = about["image_shape"]
    return Saved(
        model,
        str(about["dataset"]),
        None if shape is None else tuple(shape),
        str(about["binarize"]),
        dict(about.get("reading", {})),
    )


def _about_from_config(folder: Path) -> dict[str, Any]:
    settings = read_config(folder).settings
    data = open_data(settings.dataset, reading(settings))
    return {"dataset": settings.dataset, "image_shape": data.image_shape, "binarize": settings.treatment}


def reading(settings: Settings) -> dict[str, Any]:
    """How the user's own data are read."""
    return {"image_size": settings.image_size, "test_share": settings.test_share}


def open_data(dataset: str, reading: dict[str, Any]) -> ImageData:
    """The data set of this name, or of this folder or file."""
    return load(dataset) if dataset in DATASETS else own.read(Path(dataset), **reading)


class Config(NamedTuple):
    """What ``config.json`` holds."""

    settings: Settings
    seconds: float


def read_config(folder: Path) -> Config:
    """The options of the run in a folder, with the defaults for options that are newer than the file."""
    path = folder / CONFIG
    content = read_json(path)
    try:
        seconds = float(content["seconds"])
        settings = from_plain(content["options"])
    except KeyError as error:
        raise ValueError(f"{quoted(path)} cannot be used: it lacks {error}. It was left as it is") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{quoted(path)} cannot be used: {error}. It was left as it is") from None
    return Config(settings, seconds)


def write_config(folder: Path, settings: Settings, seconds: float) -> None:
    """Write ``config.json``."""
    content = {"options": settings.plain(), "versions": versions(), "seconds": seconds}
    write_json(folder / CONFIG, content)


def read_history(folder: Path) -> dict[str, list[float]]:
    """The curves of the run in a folder.

    Raises:
        FileNotFoundError: if there is no ``history.json``.
        ValueError: if it holds something else.
    """
    path = folder / HISTORY
    if not path.is_file() and (folder / CHECKPOINT).is_file():
        return dict(checkpoints.read(folder / CHECKPOINT)["history"])
    content = read_json(path)
    for name in ("train", "validation"):
        curve = content.get(name)
        if not isinstance(curve, list) or not all(isinstance(value, int | float) for value in curve):
            raise ValueError(
                f"{quoted(path)} cannot be used: it must hold a list of numbers as {name!r}. It was left as it is"
            )
    return {name: content[name] for name in ("train", "validation")}


# --- what may be written where


def check_free(folder: Path, overwrite: bool) -> None:
    """Check that a new run may be written there.

    Raises:
        FileExistsError: if the folder has other files, or a run and ``overwrite`` is False.
    """
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{quoted(folder)} is a file; choose another --out")
    names = {path.name for path in folder.iterdir() if not _is_left_over(path)} if folder.exists() else set()
    if not names:
        return
    # files of a run without config.json still count as a run, if there is nothing else
    if CONFIG not in names and not names <= {*FILES, *PICTURES, NEW}:
        raise FileExistsError(f"{quoted(folder)} holds other files; choose another --out")
    if not overwrite:
        raise FileExistsError(
            f"{quoted(folder)} holds a run; --resume continues it, --overwrite replaces it, or choose another --out"
        )


def _is_left_over(path: Path) -> bool:
    """Whether this is a useless leftover of a killed process."""
    if path.name == NEW:
        return not (path / _COMMIT).exists()
    return path.name == LOCK or (path.name.startswith(_BEFORE_THE_MOVE) and path.name.endswith(".part"))


# --- writing


def settle(folder: Path) -> None:
    """Finish what a killed process had committed, unless a process is working in the folder."""
    if (folder / NEW / _COMMIT).exists():
        with suppress(OSError), locked(folder):
            recover(folder)


def recover(folder: Path) -> None:
    """Finish what was committed, and remove what was not. The caller holds the lock, or no process writes."""
    new = folder / NEW
    if (new / _COMMIT).exists():
        _move(folder)
    if new.exists():
        shutil.rmtree(new)
    for path in folder.iterdir():
        if path.name != LOCK and _is_left_over(path):
            path.unlink(missing_ok=True)


def staging(folder: Path, goes_on: bool) -> Path:
    """An empty folder for the next version of the run's files, with its checkpoint if the run continues from it."""
    new = folder / NEW
    new.mkdir()
    if goes_on:
        try:
            os.link(folder / CHECKPOINT, new / CHECKPOINT)
        except OSError:  # a file system without links
            shutil.copyfile(folder / CHECKPOINT, new / CHECKPOINT)
    return new


def publish(folder: Path, settings: Settings, seconds: float, saved: Callable[[VAE], Saved]) -> None:
    """Replace the files of the folder by those of the checkpoint in the staging folder."""
    new = folder / NEW
    content = checkpoints.read(new / CHECKPOINT)
    model, _ = read_model(new / CHECKPOINT)
    write_model(model, new / MODEL, saved(model).about())
    write_json(new / HISTORY, content["history"])
    write_config(new, settings, seconds)
    atomically(new / _COMMIT, lambda path: path.write_text(""))
    _move(folder)


def _move(folder: Path) -> None:
    for name in PICTURES:  # of the previous model
        (folder / name).unlink(missing_ok=True)
    for name in FILES:
        if (folder / NEW / name).exists():
            os.replace(folder / NEW / name, folder / name)
    (folder / NEW / _COMMIT).unlink()
