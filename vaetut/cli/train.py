"""`vaetut train`: a run in its folder."""

import os
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vaetut._support.files import write_signed
from vaetut._support.text import is_terminal, log
from vaetut.aevb import History
from vaetut.aevb import checkpoint as checkpoints
from vaetut.aevb import train as fit
from vaetut.aevb.model_file import CHECKPOINT, serialized
from vaetut.cli import run_folder
from vaetut.cli.arguments import (
    MATMUL,
    arguments_of,
    data_of,
    device,
    machine_of,
    new_model,
    new_settings,
    resumed_settings,
)
from vaetut.cli.lock import locked, quoted
from vaetut.cli.options import DATASETS, Place, Settings
from vaetut.cli.run_folder import CONFIG, Saved
from vaetut.cli.schedule import Schedule
from vaetut.data import ImageData
from vaetut.models import VAE

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
        settings = resumed_settings(folder, given)
    else:
        settings = new_settings(given, place.recipe)
    if not is_first(settings):
        return _rank(place, settings)
    if not place.resume:
        run_folder.check_free(folder, place.overwrite)
    data, settings = data_of(settings, given, place)
    arguments = arguments_of(settings, data)  # refuses impossible options before anything is written
    if not settings.several_processes and settings.precision in MATMUL:
        device(settings.device)  # otherwise Fabric accepts its own names, such as gpu

    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder):
            if place.resume:
                run_folder.recover(folder)
            else:
                run_folder.check_free(folder, place.overwrite)
                run_folder.recover(folder)
            return _Run(place, settings, data, arguments).go()
    finally:
        if new and not any(folder.iterdir()):
            folder.rmdir()


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
            model = new_model(self.settings, self.data, None if self.goes_on else self.settings.init)
            machine = machine_of(self.settings)
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
            log(f"epoch {epoch}  bound {bound:.3f}  test {test:.3f}  {seconds:.1f} s")

    def _saved(self, model: VAE) -> Saved:
        return Saved(
            model,
            self.settings.dataset,
            self.data.image_shape,
            self.settings.treatment,
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
    data, settings = data_of(settings, {}, place, quiet=True)
    arguments = arguments_of(settings, data)
    goes_on = place.resume and (place.out / CHECKPOINT).exists()
    model = new_model(settings, data, None if goes_on else settings.init)
    fit(
        model,
        data.train,
        validation=data.test,
        checkpoint=place.out / run_folder.NEW / CHECKPOINT,
        resume=place.resume,
        progress=False,
        **arguments,
        **machine_of(settings),
    )
    return {"text": ""}


def _upgrade(path: Path, schedule: Schedule) -> None:
    """Add the schedule's state to a checkpoint of the first edition, which has the steps only in the optimizer."""
    content = checkpoints.read(path)
    if content["configuration"].get("state") is None:
        steps = content["optimizer"]["param_groups"][0]["steps"]
        content["configuration"]["state"] = f"state: {type(schedule).__name__}"
        content["state"] = {"state": {"steps": steps}}
        write_signed(path, serialized(content))
