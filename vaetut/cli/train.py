"""`vaetut train`: from options to arguments, and the run in its folder."""

import contextlib
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from vaetut._support.files import write_signed
from vaetut._support.text import is_terminal, printable
from vaetut.aevb import History, rng
from vaetut.aevb import checkpoint as checkpoints
from vaetut.aevb import train as fit
from vaetut.aevb.devices import usable_device
from vaetut.aevb.model_file import CHECKPOINT, serialized
from vaetut.bounds import doubly_reparameterized, iwae_bound, sgvb_a, sgvb_b
from vaetut.cli import run_folder
from vaetut.cli.options import DATASETS, RECIPES, Place, Settings, differences, flag
from vaetut.cli.run_folder import CONFIG, Saved, quoted
from vaetut.cli.schedule import Schedule, initialize
from vaetut.data import ImageData, load, own
from vaetut.models import VAE

BOUNDS = {"sgvb_b": sgvb_b, "sgvb_a": sgvb_a, "iwae": iwae_bound, "dreg": doubly_reparameterized}
"""The bounds that can be trained, by their names in the command."""

_MODEL_OPTIONS = ("latent_dim", "hidden_dim", "likelihood", "activation")
_MATMUL = ("highest", "high", "medium")

Options = dict[str, Any]


def train(given: Options) -> Options:
    """Fit a model and write its folder."""
    place = Place(**{name: given.pop(name) for name in list(given) if name in Place.__dataclass_fields__})
    if place.resume and place.overwrite:
        raise ValueError("--resume and --overwrite cannot both be given: continue the run, or replace it")
    if place.resume and place.recipe is not None:
        raise ValueError("--recipe cannot be given with --resume: a run continues with its own options")
    folder = place.out
    if place.resume:
        run_folder.settle(folder)
        settings = _resumed(folder, given)
    else:
        settings = _settings(given, place.recipe)
    if not is_first(settings):
        return _rank(place, settings)
    if not place.resume:
        run_folder.check_free(folder, place.overwrite)
    data, settings = _data(settings, given, place)
    arguments = _arguments(settings, data)  # refuses impossible options before anything is written
    if not settings.several_processes and settings.precision in _MATMUL:
        device(settings.device)  # otherwise Fabric accepts its own names, such as gpu

    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with run_folder.locked(folder):
            if place.resume:
                run_folder.recover(folder)
            else:
                run_folder.check_free(folder, place.overwrite)
                run_folder.recover(folder)
            return _Run(place, settings, data, arguments).go()
    finally:
        if new and not any(folder.iterdir()):
            folder.rmdir()


def _log(line: str) -> None:
    """Print a line to the log; one that cannot be written does not stop the training."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(printable(line, sys.stderr), file=sys.stderr, flush=True)


def is_first(settings: Settings) -> bool:
    """Whether this process writes and prints: a single process does, whatever environment a launcher has set."""
    if not settings.several_processes:
        return True
    return os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("NODE_RANK", "0") == "0"


class _Run:
    """One call of `vaetut train` in its locked folder."""

    def __init__(self, place: Place, settings: Settings, data: ImageData, arguments: Options) -> None:
        self.place, self.settings, self.data, self.arguments = place, settings, data, arguments
        self.folder = place.out
        self.goes_on = place.resume and (self.folder / CHECKPOINT).exists()
        self.begun_afresh = not (self.folder / CONFIG).exists()
        self.before = run_folder.read_config(self.folder).seconds if place.resume else 0.0
        self.start = time.perf_counter()
        self.epochs_done = 0
        self.bar = tqdm(
            total=settings.epochs,
            unit="epoch",
            disable=not is_terminal(sys.stderr),
        )

    def go(self) -> Options:
        """Train, and return the result to print."""
        done = len(run_folder.read_history(self.folder)["train"]) if self.goes_on else 0
        if self.begun_afresh and not self.place.resume:
            run_folder.write_config(self.folder, self.settings, 0.0)
        new = run_folder.staging(self.folder, self.goes_on)
        if self.goes_on and "state" in self.arguments:
            _upgrade(new / CHECKPOINT, self.arguments["state"])
        self.epochs_done = done
        try:
            model = _model(self.settings, self.data, None if self.goes_on else self.settings.init)
            machine = _machine(self.settings)
            self.start = time.perf_counter()
            history = fit(
                model,
                self.data.train,
                validation=self.data.test,
                checkpoint=new / CHECKPOINT,
                resume=self.place.resume,
                progress=False,
                on_epoch=self.after_epoch,
                **self.arguments,
                **machine,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(self._stopped()) from None
        except Exception as error:
            if self.begun_afresh and not self.epochs_done:  # nothing to resume: leave everything as it was
                (self.folder / CONFIG).unlink(missing_ok=True)
            if isinstance(error, OSError) and error.filename is not None:
                error.filename = str(error.filename).replace(str(new.resolve()), str(self.folder))
                raise
            text = str(error).replace(str(new.resolve() / CHECKPOINT), str(self.folder / CHECKPOINT))
            if text != str(error):
                raise type(error)(text) from None
            raise
        finally:
            self.bar.close()
            run_folder.recover(self.folder)
        return self._result(history)

    def after_epoch(self, history: History) -> None:
        """Put the epoch's files in place, and print its line."""
        seconds = self.before + time.perf_counter() - self.start
        run_folder.publish(self.folder, self.settings, seconds, self._saved)
        self.epochs_done = len(history.train)
        bound, test = history.train[-1], history.validation[-1]
        if not self.bar.disable:
            self.bar.set_postfix(bound=round(bound, 2), test=round(test, 2))
            self.bar.update(self.epochs_done - self.bar.n)
        else:
            epoch = f"{self.epochs_done}/{self.settings.epochs}"
            _log(f"epoch {epoch}  bound {bound:.3f}  test {test:.3f}  {seconds:.1f} s")

    def _saved(self, model: VAE) -> Saved:
        return Saved(
            model,
            self.settings.dataset,
            self.data.image_shape,
            treatment(self.settings),
            run_folder.reading(self.settings) if self.settings.dataset not in DATASETS else {},
        )

    def _stopped(self) -> str:
        if not self.epochs_done and not self.begun_afresh:
            return f"stopped in the first epoch; the run in {quoted(self.folder)} is unchanged"
        return f"stopped; to continue: vaetut train --out {quoted(self.folder)} --resume"

    def _result(self, history: History) -> Options:
        config = run_folder.read_config(self.folder)
        if config.settings != self.settings:  # no new epoch, but a new number of epochs or device
            run_folder.write_config(self.folder, self.settings, config.seconds)
        curves = {"train": history.train, "validation": history.validation}
        last = {name: curve[-1] for name, curve in curves.items()}
        epochs, best = len(history.train), ""
        if self.settings.patience is not None:
            top = max(range(epochs), key=history.validation.__getitem__)
            best = f"model.pt is the model of the best epoch, {top + 1}: test {history.validation[top]:.2f}\n"
        text = (
            f"{quoted(self.folder)}: {self.data.name}, {epochs} epoch{'s' * (epochs > 1)}, {config.seconds:.1f} s\n"
            f"bound, nats per image: training {last['train']:.2f}"
            f", test {last['validation']:.2f}\n"
            f"{best}next: vaetut evaluate {quoted(self.folder)}"
        )
        return {
            "text": text,
            "out": str(self.folder),
            "seconds": config.seconds,
            **last,
            "options": self.settings.plain(),
        }


def _rank(place: Place, settings: Settings) -> Options:
    """The work of a process that is not the first: it computes, but writes and prints nothing."""
    data, settings = _data(settings, {}, place, quiet=True)
    arguments = _arguments(settings, data)
    goes_on = place.resume and (place.out / CHECKPOINT).exists()
    model = _model(settings, data, None if goes_on else settings.init)
    fit(
        model,
        data.train,
        validation=data.test,
        checkpoint=place.out / run_folder.NEW / CHECKPOINT,
        resume=place.resume,
        progress=False,
        **arguments,
        **_machine(settings),
    )
    return {"text": ""}


# --- from options to arguments


def _settings(given: Options, recipe_name: str | None) -> Settings:
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


def _resumed(folder: Path, given: Options) -> Settings:
    """All options of a resumed run."""
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{quoted(folder)} holds no run to resume")
    settings = run_folder.read_config(folder).settings
    free = {"device"} if settings.lr_decay or settings.warm_up else {"device", "epochs"}
    fixed = [name for name in Settings.__dataclass_fields__ if name not in free]
    _agree(given, settings, fixed, f"the run in {quoted(folder)} has")
    return replace(settings, **given)


def _agree(given: Options, theirs: Settings, names: Any, whose: str) -> None:
    for name, value, before in differences({k: v for k, v in given.items() if k in names}, theirs):
        raise ValueError(f"{name} cannot be {value}: {whose} {before}")


def _tuple(widths: int | tuple[int, ...]) -> tuple[int, ...]:
    return (widths,) if isinstance(widths, int) else tuple(widths)


def _data(
    settings: Settings, given: Options, place: Place, quiet: bool = False
) -> tuple[ImageData, Settings]:
    """The data, and the options with the likelihood that fits them if none is given."""
    for name in ("image_size", "test_share"):
        if settings.dataset in DATASETS and name in given and not place.resume:
            raise ValueError(
                f"{flag(name)} is for your own data (--dataset PATH), not for {settings.dataset}"
            )
    data = open_data(settings.dataset, run_folder.reading(settings))
    if settings.dataset in DATASETS:
        return data, settings
    assert isinstance(data, own.OwnData)
    chosen = "likelihood" in given or place.resume or settings.init is not None
    why = "as given"
    if not chosen:
        likelihood, why = own.likelihood_for(data)
        settings = replace(settings, likelihood=likelihood)
    if not quiet:
        _log(f"{data.summary}; likelihood {settings.likelihood}, {why}")
    return data, settings


def open_data(dataset: str, reading: Options) -> ImageData:
    """The data set of this name, or of this folder or file."""
    return load(dataset) if dataset in DATASETS else own.read(Path(dataset), **reading)


def _model(settings: Settings, data: ImageData, init: Path | None) -> VAE:
    """The model with its initial parameters."""
    arguments = {name: getattr(settings, name) for name in _MODEL_OPTIONS}
    with rng.seeded(settings.seed):
        model = VAE(data.train.shape[1], **arguments)
        initialize(model, settings.initialization)
    if init is not None:
        model.load_state_dict(run_folder.open_model(init).model.state_dict())
    return model


def _arguments(settings: Settings, data: ImageData) -> Options:
    """The arguments of `vaetut.train` for bound, optimizer and steps."""
    found: Options = {
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "num_samples": settings.num_samples,
        "seed": settings.seed,
        "compile": settings.compile,
        "binarize": treatment(settings),
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


def treatment(settings: Settings) -> str:
    """How gray pixels are treated."""
    if settings.binarize != "auto":
        return settings.binarize
    return "dynamic" if settings.likelihood == "bernoulli" else "none"


def device(name: str) -> torch.device:
    """The device of this name.

    Raises:
        ValueError: if this machine has no such device, or its tensors have no values.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return usable_device(name, "--device must be auto or a device of this machine")


def _machine(settings: Settings) -> Options:
    """The arguments of `vaetut.train` for device and precision."""
    precision = settings.precision
    if precision in _MATMUL and not settings.several_processes:
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
            precision=None if precision in _MATMUL else precision,  # type: ignore[arg-type]
        )
        fabric.launch()
    except (ValueError, RuntimeError) as error:
        # such as Fabric's own for a missing device
        raise ValueError(
            f"--device {settings.device}, --devices {settings.devices}, --strategy {settings.strategy} and "
            f"--precision {precision} cannot be combined on this machine: {str(error).strip().splitlines()[0]}"
        ) from None
    fabric.barrier()
    return {"fabric": fabric, "precision": precision if precision in _MATMUL else "highest"}


def _upgrade(path: Path, schedule: Schedule) -> None:
    """Add the schedule's state to a checkpoint of the first edition, which has the steps only in the optimizer."""
    content = checkpoints.read(path)
    if content["configuration"].get("state") is None:
        steps = content["optimizer"]["param_groups"][0]["steps"]
        content["configuration"]["state"] = f"state: {type(schedule).__name__}"
        content["state"] = {"state": {"steps": steps}}
        write_signed(path, serialized(content))
