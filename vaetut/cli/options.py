"""The options of the command, each defined once: parser and configuration are made from name, default, help and type.

A dataclass holds the options of a command, and the metadata of its fields all that the parser needs; `add_arguments`
adds them to a parser.
"""

# ruff: noqa: RUF009 (option() makes a field, as dataclasses.field does)

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T", int, float)

DATASETS = ("digits", "mnist", "fashion-mnist")
FILES = (".npy", ".npz", ".pt", ".csv")


def _number(kind: type[T], text: str, allowed: Callable[[T], bool], what: str) -> T:
    try:
        value = kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be {what}, got {text!r}") from None
    if not allowed(value):
        raise argparse.ArgumentTypeError(f"must be {what}, got {text}")
    return value


def _positive(text: str) -> int:
    return _number(int, text, lambda value: 1 <= value < 2**63, "an integer of at least 1, below 2**63")


def _rate(text: str) -> float:
    return _number(float, text, lambda value: 0 < value < float("inf"), "a positive number")


def _share(text: str) -> float:
    return _number(float, text, lambda value: 0 <= value <= 1, "a number from 0 to 1")


def _part(text: str) -> float:
    return _number(float, text, lambda value: 0 < value < 1, "a number between 0 and 1")


def _seed(text: str) -> int:
    return _number(int, text, lambda value: -(2**63) <= value < 2**64, "an integer from -2**63 to 2**64 - 1")


def _widths(text: str) -> tuple[int, ...]:
    return () if text == "none" else tuple(_positive(part) for part in text.split(","))


def _path(text: str) -> Path:
    """The only place where ``~`` is expanded: a shell does not expand it in ``--out=~/runs/x``."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"must be a path, got {text!r} ({error})") from None


def _dataset(text: str) -> str:
    if text in DATASETS:
        return text
    path = _path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(
            f"must be {', '.join(DATASETS)}, or the path of a folder of images or of a file {', '.join(FILES)} "
            f"that exists, got {text!r}"
        )
    return str(path.resolve())


def _image_size(text: str) -> tuple[int, int]:
    sides = tuple(_positive(part) for part in text.lower().split("x"))
    if len(sides) not in (1, 2):
        raise argparse.ArgumentTypeError(f"must be SIDE or HEIGHTxWIDTH, got {text!r}")
    return sides[0], sides[-1]


def option(default: Any, help: str, parse: Callable[[str], Any] | None = None, **settings: Any) -> Any:
    """A field of a dataclass of options.

    Args:
        default: the default; ``dataclasses.MISSING`` if the option is required.
        help: one line, without the default, which is added.
        parse: converts the text to the value.
        **settings: ``group``, a heading of the help; ``choices`` and ``metavar``, as in argparse; ``shown``, the
            default as the help shows it; ``positional``; ``may_change``, if a resumed run may have another value.
    """
    return dataclasses.field(default=default, metadata={"help": help, "parse": parse, **settings})


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where `vaetut train` writes, and what happens to an existing run."""

    out: Path = option(dataclasses.MISSING, "the run's folder", _path, metavar="FOLDER")
    resume: bool = option(False, "continue the run in FOLDER, with its options")
    overwrite: bool = option(False, "replace the run in FOLDER once the first epoch of the new one is done")
    recipe: str | None = option(None, "a set of options, see below", choices=("paper", "best"))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of a run: stored in its ``config.json``, and the same when it is resumed."""

    dataset: str = option(
        "digits",
        "what to train on: digits, mnist, fashion-mnist, or a path: a folder of PNG or JPEG images (its subfolders are "
        "labels), or a .npy, .npz, .pt or .csv file with one datapoint a row",
        _dataset,
        metavar="NAME|PATH",
    )
    image_size: tuple[int, int] | None = option(
        None,
        "for your own images: those of a folder are resized, flat rows of a file are images of this size",
        _image_size,
        metavar="SIDE|HxW",
    )
    test_share: float = option(
        1 / 6, "share of your own data that is kept for testing", _part, metavar="SHARE", shown="1/6"
    )
    init: Path | None = option(
        None, "start from this trained model's parameters, with its sizes", _path, metavar="FOLDER"
    )

    latent_dim: int = option(20, "length of z", _positive, metavar="N", group="model")
    hidden_dim: tuple[int, ...] = option(
        (500,),
        "widths of the hidden layers, such as 200,200; none: linear",
        _widths,
        metavar="N,...",
        group="model",
    )
    likelihood: str = option(
        "bernoulli",
        "likelihood of the pixels; for your own data the default depends on their values",
        choices=("bernoulli", "gaussian", "isotropic"),
        group="model",
    )
    activation: str = option(
        "tanh", "activation of the hidden layers", choices=("tanh", "relu", "softplus"), group="model"
    )
    initialization: str = option(
        "torch", "initialization of the parameters", choices=("torch", "glorot"), group="model"
    )

    bound: str = option(
        "sgvb_b",
        "the bound to maximize; iwae and dreg are for several samples (--num-samples)",
        choices=("sgvb_b", "sgvb_a", "iwae", "dreg"),
        group="training",
    )
    num_samples: int = option(1, "draws of z for each image", _positive, metavar="L", group="training")
    optimizer: str = option("adam", "the optimizer", choices=("adam", "adagrad", "sgd"), group="training")
    lr: float | None = option(
        None, "learning rate", _rate, metavar="RATE", shown="0.001; adagrad 0.01", group="training"
    )
    lr_decay: float = option(
        0.0,
        "share of the epochs, at the end, over which the rate falls to 0.5 %",
        _share,
        metavar="SHARE",
        group="training",
    )
    warm_up: float = option(
        0.0,
        "share of the epochs, at the start, over which the weight of the divergence grows from 0 to 1",
        _share,
        metavar="SHARE",
        group="training",
    )
    epochs: int = option(
        20, "passes over the data", _positive, metavar="N", group="training", may_change=True
    )
    patience: int | None = option(
        None,
        "stop after this many epochs without a better bound of the test images, and keep the best model",
        _positive,
        metavar="N",
        group="training",
    )
    batch_size: int = option(100, "images in a step", _positive, metavar="M", group="training")
    drop_last: bool = option(False, "leave out the last batch of an epoch if it is smaller", group="training")
    binarize: str = option(
        "auto",
        "what to do with gray pixels",
        choices=("auto", "dynamic", "threshold", "none"),
        group="training",
    )
    seed: int = option(
        0, "seed of the initial parameters, the order and the noise", _seed, metavar="SEED", group="training"
    )

    device: str = option(
        "auto", "where to train, such as cpu or cuda", metavar="NAME", group="machine", may_change=True
    )
    precision: str = option(
        "highest",
        "precision of float32 products: highest, high or medium; with the extra `scale` a mixed one too, such as "
        "bf16-mixed",
        metavar="NAME",
        group="machine",
    )
    compile: bool = option(
        False, "compile the step: faster, after up to a minute for the first", group="machine"
    )
    devices: int | None = option(
        None, "number of devices, with the extra `scale`", _positive, metavar="N", group="machine"
    )
    strategy: str | None = option(
        None,
        "how devices share the work, such as ddp, with the extra `scale`",
        metavar="NAME",
        group="machine",
    )

    @property
    def several_processes(self) -> bool:
        """Whether Lightning Fabric starts, or is started in, more than one process."""
        return self.devices is not None or self.strategy is not None

    @property
    def treatment(self) -> str:
        """How gray pixels are treated: the value of ``binarize``, or that which fits the likelihood."""
        if self.binarize != "auto":
            return self.binarize
        return "dynamic" if self.likelihood == "bernoulli" else "none"

    def plain(self) -> dict[str, Any]:
        """The options as stored in ``config.json``."""
        found = dataclasses.asdict(self)
        return {name: str(value) if isinstance(value, Path) else value for name, value in found.items()}


def from_plain(options: dict[str, Any]) -> Settings:
    """The inverse of `Settings.plain`. An option that is newer than the file has its default.

    Raises:
        ValueError: if an option is unknown, or a value has another type.
    """
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    unknown = set(options) - set(fields)
    if unknown:
        raise ValueError(f"it has options of a later version: {', '.join(sorted(unknown))}")
    values = {}
    for name, value in options.items():
        if isinstance(value, list):
            value = tuple(value)
        if name == "init" and value is not None:
            value = Path(value)
        values[name] = value
    return Settings(**values)


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """The options of `vaetut evaluate`."""

    folder: Path = option(dataclasses.MISSING, "the folder of a trained model", _path, positional=True)
    num_samples: int = option(1000, "draws for log p(x)", _positive, metavar="L", shown="1000; papers: 5000")
    iwae_samples: int = option(50, "draws for the IWAE bound", _positive, metavar="K")
    images: int | None = option(None, "only the first N test images", _positive, metavar="N", shown="all")
    per_image: Path | None = option(
        None, "write the bounds and log p(x) of each image to this .csv file", _path, metavar="FILE"
    )
    seed: int = option(0, "seed of the draws, and of the black and white test pixels", _seed, metavar="SEED")
    device: str = option("auto", "where to compute, such as cpu or cuda", metavar="NAME")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The options of `vaetut sample`."""

    folder: Path = option(dataclasses.MISSING, "the folder of a trained model", _path, positional=True)
    num: int = option(100, "number of images", _positive, metavar="N")
    manifold: bool = option(
        False, "decode an even grid of the prior's quantiles (AEVB figure 4); needs two latent dimensions"
    )
    file: Path | None = option(
        None,
        "output file: name.png for a picture, name.pt for a tensor [N, D]",
        _path,
        metavar="FILE",
        shown="FOLDER/samples.png",
    )
    seed: int = option(0, "seed of the draws", _seed, metavar="SEED")


@dataclass(frozen=True, kw_only=True)
class Plot:
    """The options of `vaetut plot`."""

    folder: Path = option(dataclasses.MISSING, "the folder of a trained model", _path, positional=True)
    to: Path | None = option(
        None, "where to write the pictures", _path, metavar="FOLDER", shown="the model's folder"
    )
    seed: int = option(0, "seed of the black and white test pixels", _seed, metavar="SEED")


RECIPES: dict[str, dict[str, Any]] = {
    # AEVB's network for MNIST, trained with Adam
    "paper": {"dataset": "mnist"},
    # the network of Burda, Grosse and Salakhutdinov (2016), with one stochastic layer
    "best": {
        "dataset": "mnist",
        "latent_dim": 50,
        "hidden_dim": (200, 200),
        "activation": "relu",
        "initialization": "glorot",
        "lr_decay": 0.67,
        "warm_up": 0.125,
        "epochs": 400,
    },
}
"""Options that a recipe sets in place of the defaults."""


def add_arguments(parser: argparse.ArgumentParser, *kinds: type, suppress: bool = False) -> None:
    """Give a parser the options of dataclasses.

    Args:
        parser: gets the options.
        *kinds: the dataclasses.
        suppress: an option that is not given has no entry, so that a recipe or an earlier run can supply it.
    """
    groups: dict[str, Any] = {}
    for field in (field for kind in kinds for field in dataclasses.fields(kind)):
        settings = field.metadata
        name = field.name if settings.get("positional") else "--" + field.name.replace("_", "-")
        heading = settings.get("group")
        if heading and heading not in groups:
            groups[heading] = parser.add_argument_group(heading)
        given: dict[str, Any] = {"help": (settings["help"] + _shown(field)).replace("%", "%%")}
        if field.type in (bool, "bool"):
            given["action"] = "store_true"
        else:
            given |= {key: settings[key] for key in ("choices", "metavar") if key in settings}
            if settings["parse"] is not None:
                given["type"] = settings["parse"]
        if field.default is not dataclasses.MISSING:
            given["default"] = argparse.SUPPRESS if suppress else field.default
        elif not settings.get("positional"):
            given["required"] = True
        (groups[heading] if heading else parser).add_argument(name, **given)


def _shown(field: Any) -> str:
    """The default, as the help shows it."""
    default = field.metadata.get("shown", field.default)
    if default is dataclasses.MISSING or default is None or default is False:
        return ""
    return f" (default: {','.join(map(str, default)) if isinstance(default, tuple) else default})"


def differences(given: dict[str, Any], theirs: Settings) -> Iterator[tuple[str, Any, Any]]:
    """The given options that differ from ``theirs``: flag, given value, their value."""
    for name, value in given.items():
        before = getattr(theirs, name)
        if value != before:
            yield flag(name), value, "the default" if before is None else before


def flag(name: str) -> str:
    """The option as typed on the command line."""
    return "--" + name.replace("_", "-")
