"""From the options of `vaetut train` to the data, the model and the arguments of `vaetut.train`."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from vaetut._support.text import log
from vaetut.aevb import rng
from vaetut.aevb.devices import usable_device
from vaetut.bounds import doubly_reparameterized, iwae_bound, sgvb_a, sgvb_b
from vaetut.cli import run_folder
from vaetut.cli.lock import quoted
from vaetut.cli.options import DATASETS, RECIPES, Place, Settings, differences, flag
from vaetut.cli.run_folder import CONFIG
from vaetut.cli.schedule import Schedule, initialize
from vaetut.data import ImageData, own
from vaetut.models import VAE

BOUNDS = {"sgvb_b": sgvb_b, "sgvb_a": sgvb_a, "iwae": iwae_bound, "dreg": doubly_reparameterized}
"""The bounds that can be trained, by their names in the command."""

_MODEL_OPTIONS = ("latent_dim", "hidden_dim", "likelihood", "activation")
MATMUL = ("highest", "high", "medium")

Options = dict[str, Any]


def new_settings(given: Options, recipe_name: str | None) -> Settings:
    """All options of a new run: given ones override the recipe, which overrides the defaults."""
    recipe = dict(RECIPES[recipe_name]) if recipe_name is not None else {}
    if given.get("init") is not None or given.get("bound", "sgvb_b") != "sgvb_b":
        recipe.pop("warm_up", None)  # it is for the start of a run, and for the bound with a divergence
    settings = Settings(**(recipe | given))
    if settings.init is not None:
        saved = run_folder.open_model(settings.init)
        model = saved.model
        theirs = {
            "latent_dim": model.latent_dim,
            "hidden_dim": _tuple(model.hidden_dim),
            "likelihood": model.likelihood_name,
            "activation": model.activation,
            "dataset": saved.dataset,
            **saved.reading,
        }
        _agree(given, replace(settings, **theirs), theirs, f"the model in {quoted(settings.init)} has")
        settings = replace(settings, **theirs)
    return settings


def resumed_settings(folder: Path, given: Options) -> Settings:
    """All options of a resumed run."""
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{quoted(folder)} holds no run to resume")
    settings = run_folder.read_config(folder).settings
    free = {field.name for field in fields(Settings) if field.metadata.get("may_change")}
    if settings.lr_decay or settings.warm_up:
        free.remove("epochs")  # both are shares of the epochs
    fixed = [field.name for field in fields(Settings) if field.name not in free]
    _agree(given, settings, fixed, f"the run in {quoted(folder)} has")
    return replace(settings, **given)


def _agree(given: Options, theirs: Settings, names: Any, whose: str) -> None:
    for name, value, before in differences({k: v for k, v in given.items() if k in names}, theirs):
        raise ValueError(f"{name} cannot be {value}: {whose} {before}")


def _tuple(widths: int | tuple[int, ...]) -> tuple[int, ...]:
    return (widths,) if isinstance(widths, int) else tuple(widths)


def data_of(
    settings: Settings, given: Options, place: Place, quiet: bool = False
) -> tuple[ImageData, Settings]:
    """The data, and the options with the likelihood that fits them if none is given."""
    for name in ("image_size", "test_share"):
        if settings.dataset in DATASETS and name in given and not place.resume:
            raise ValueError(
                f"{flag(name)} is for your own data (--dataset PATH), not for {settings.dataset}"
            )
    data = run_folder.open_data(settings.dataset, run_folder.reading(settings))
    if settings.dataset in DATASETS:
        return data, settings
    assert isinstance(data, own.OwnData)
    chosen = "likelihood" in given or place.resume or settings.init is not None
    why = "as given"
    if not chosen:
        likelihood, why = own.likelihood_for(data)
        settings = replace(settings, likelihood=likelihood)
    if not quiet:
        log(f"{data.summary}; likelihood {settings.likelihood}, {why}")
    return data, settings


def new_model(settings: Settings, data: ImageData, init: Path | None) -> VAE:
    """The model with its initial parameters."""
    arguments = {name: getattr(settings, name) for name in _MODEL_OPTIONS}
    with rng.seeded(settings.seed):
        model = VAE(data.train.shape[1], **arguments)
        initialize(model, settings.initialization)
    if init is not None:
        model.load_state_dict(run_folder.open_model(init).model.state_dict())
    return model


def arguments_of(settings: Settings, data: ImageData) -> Options:
    """The arguments of `vaetut.train` for bound, optimizer and steps."""
    found: Options = {
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "num_samples": settings.num_samples,
        "seed": settings.seed,
        "compile": settings.compile,
        "binarize": settings.treatment,
    }
    if settings.patience is not None:
        found["patience"] = settings.patience
    if settings.drop_last:
        found["drop_last"] = True
        if len(data.train) < settings.batch_size:
            raise ValueError(
                f"--drop-last leaves no step: there are {len(data.train)} images, fewer than --batch-size "
                f"{settings.batch_size}"
            )
    decay, warm_up = settings.lr_decay, settings.warm_up
    if decay == warm_up == 0:
        return found | {
            "bound": BOUNDS[settings.bound],
            "optimizer": settings.optimizer,
            "learning_rate": settings.lr,
        }
    if warm_up and settings.bound != "sgvb_b":
        raise ValueError(
            f"--warm-up must be 0 for --bound {settings.bound}: only sgvb_b has a separate term for the divergence"
        )
    number, batch_size = len(data.train), settings.batch_size
    steps = settings.epochs * (number // batch_size if settings.drop_last else -(-number // batch_size))
    schedule = Schedule(settings.optimizer, settings.lr, decay, warm_up, steps)
    return found | {
        "bound": schedule.bound if warm_up else BOUNDS[settings.bound],
        "optimizer": schedule.optimizer,
        "state": schedule,
    }


def device(name: str) -> torch.device:
    """The device of this name.

    Raises:
        ValueError: if this machine has no such device, or its tensors have no values.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return usable_device(name, "--device must be auto or a device of this machine")


def machine_of(settings: Settings) -> Options:
    """The arguments of `vaetut.train` for device and precision."""
    precision = settings.precision
    if precision in MATMUL and not settings.several_processes:
        return {"device": settings.device, "precision": precision}
    try:
        from lightning_fabric import Fabric
    except ModuleNotFoundError:
        raise ValueError(
            "--devices, --strategy and mixed --precision need Lightning Fabric: pip install 'vaetut[scale]'"
        ) from None
    try:
        fabric = Fabric(
            accelerator=settings.device,
            devices=settings.devices or 1,
            strategy=settings.strategy or "auto",
            precision=None if precision in MATMUL else precision,  # type: ignore[arg-type]
        )
        fabric.launch()
    except (ValueError, RuntimeError) as error:
        # such as Fabric's own for a missing device
        raise ValueError(
            f"--device {settings.device}, --devices {settings.devices}, --strategy {settings.strategy} and "
            f"--precision {precision} cannot be combined on this machine: {str(error).strip().splitlines()[0]}"
        ) from None
    fabric.barrier()
    return {"fabric": fabric, "precision": precision if precision in MATMUL else "highest"}
