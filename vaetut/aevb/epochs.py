"""What `vaetut.train` does around the steps of an epoch: validation, checkpoint, progress bar, errors (chapter 11)."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from tqdm import tqdm

from vaetut._support.text import is_out_of_memory
from vaetut._support.validate import checks
from vaetut.aevb import rng
from vaetut.aevb.arguments import Arguments
from vaetut.aevb.history import History
from vaetut.aevb.optimizers import is_plateau
from vaetut.aevb.run import Run
from vaetut.aevb.step import epoch_mean, evaluate, evaluating


def start(run: Run) -> History:
    """The history so far: that of the checkpoint, whose state is restored, or an empty one."""
    found = run.writer.load(run.epochs)
    if found is None:
        return History()
    history, random_states = found
    rng.set_random_state(random_states[run.communicator.rank], run.communicator.device)
    return history


def validation_bound(run: Run, epoch: int, rate: float) -> float:
    """The bound of the validation data, with the same noise in each epoch, separate from the noise of training."""
    with evaluating(run.model), rng.seeded(run.seed, run.communicator.device):
        bounds = evaluate(run.objective, run.validation, run.batch_size, run.communicator)
    return epoch_mean(bounds, run.validation_number, "validation", epoch, rate, run.communicator)


def finish_epoch(run: Run, epoch: int, history: History) -> None:
    """The work at the end of an epoch, in an order that a resumed run keeps."""
    last = history.validation[-1] if history.validation else history.train[-1]
    if run.scheduler is not None:
        run.scheduler.step(*[-last] if is_plateau(run.scheduler) else [])
    run.best.update(epoch, last, run.model)
    run.writer.save(epoch, history, run.communicator.random_states, run.communicator.rank)


def is_stopped(run: Run, history: History) -> bool:
    """Whether the user's function ends the run. A resumed run does not call it, so its random draws are undone."""
    if run.on_epoch is None:
        return False
    with rng.unchanged(run.communicator.device), checks(True):
        return bool(run.on_epoch(history))


@contextmanager
def progress_bar(run: Run, history: History) -> Iterator[Callable[[History], Any]]:
    """A progress bar on a terminal, and the function that updates it after an epoch."""
    # the standard error is None under pythonw
    visible = run.progress and run.communicator.rank == 0 and sys.stderr is not None
    with tqdm(total=run.epochs, unit="epoch", disable=None if visible else True) as bar:

        def show(history: History) -> None:
            curves = history.to_dict().items()
            bar.set_postfix({name: round(curve[-1], 2) for name, curve in curves if curve})
            bar.update()

        bar.update(len(history.train))
        yield show


@contextmanager
def explained_memory_errors(given: Arguments) -> Iterator[None]:
    """Let an out-of-memory error say which arguments to lower."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        kind = type(error) if type(error) in (RuntimeError, torch.cuda.OutOfMemoryError) else RuntimeError
        raise kind(
            f"out of memory on the device with batch_size={given.batch_size} and num_samples="
            f"{given.num_samples}: lower one of them ({str(error).splitlines()[0]})"
        ) from error
