"""The runner of AEVB's figures: settings, curves that grow together, and a pool of processes: chapter 12."""

import multiprocessing
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vaetut.experiments.runs import POINTS_PER_DECADE, Curve, checkpoints, file_name, results, write_json


@dataclass(frozen=True)
class Settings:
    """The settings of an experiment; each figure has its own defaults.

    Attributes:
        data: ``"mnist"``, or ``"digits"`` for a version that takes seconds.
        samples: training samples evaluated by each curve (the paper: 1e8 in figure 2, 6e7 in figure 3).
        methods: ``"AEVB"``, ``"wake-sleep"``, and in figure 3 ``"MCEM"``.
        latent_dims: N_z.
        train_sizes: N_train, in figure 3.
        hidden_dim: units of each hidden layer.
        trial_samples: how long each learning rate is tried before one is chosen; None for the whole run.
        evaluated: number of training and of test images on which a point is evaluated.
        seed: of initial parameters, minibatches, noise and binarization.
        minutes: a time limit, at which to stop before ``samples``.
        jobs: number of processes for the curves.
        device: the device of figure 2, if all of its curves are stepped together.
        together: step all curves of figure 2 as one batched model; always done on a device other than the CPU.
        results_dir: the folder of the results file; None to write no file.
        state_dir: the folder of the unfinished curves; None to keep none.
        command: the command line, recorded in the results.
        progress: print each point.
    """

    data: str = "mnist"
    samples: int = 1_000_000
    methods: tuple[str, ...] = ("AEVB", "wake-sleep")
    latent_dims: tuple[int, ...] = (3,)
    train_sizes: tuple[int, ...] = ()
    hidden_dim: int = 500
    trial_samples: int | None = 50_000
    evaluated: int = 10_000
    seed: int = 0
    minutes: float | None = None
    jobs: int = 1
    device: str = "cpu"
    together: bool = False
    results_dir: Path | None = None
    state_dir: Path | None = None
    command: str = ""
    progress: bool = False

    def __post_init__(self) -> None:
        for name in ("methods", "latent_dims", "train_sizes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # lists are accepted

    @property
    def trial(self) -> int:
        """The number of samples for which a learning rate is tried."""
        return self.samples if self.trial_samples is None else self.trial_samples

    def state_file(self, experiment: str, *parts: object) -> Path | None:
        """The file of a curve's state."""
        name = "-".join([file_name(experiment, self.data), *map(str, parts)])
        return self.state_dir and self.state_dir / f"{name}.pt"


class Experiment(NamedTuple):
    """A figure: its name, its curves, the settings in its results file, and the density of its points."""

    name: str
    curves: Callable[[Settings], list[Curve]]
    shared: Callable[[Settings], dict[str, Any]]
    per_decade: int = POINTS_PER_DECADE


def run(experiment: Experiment, settings: Settings) -> dict[str, Any]:
    """Train all curves to ``settings.samples``, in turns, so that they grow together; return the results.

    The results file is replaced after each point.
    """
    curves = experiment.curves(settings)
    points = checkpoints(settings.samples, experiment.per_decade)

    def report() -> dict[str, Any]:
        grown = [curve.to_dict() for curve in curves if curve.points]
        made = results(experiment.name, settings.command, experiment.shared(settings), curves=grown)
        write(experiment.name, settings, made)
        return made

    start = time.monotonic()
    for curve in grow(experiment, settings, curves, points):
        report()
        if settings.progress:
            print(curve, flush=True)
        if settings.minutes is not None and time.monotonic() - start > 60 * settings.minutes:
            break
    return report()


def require_cpu(settings: Settings) -> None:
    """Refuse settings that only figure 2 supports."""
    if settings.together or settings.device != "cpu":
        raise ValueError(
            f"device must be 'cpu', and together False, except in figure 2, got {settings.device!r} "
            f"and {settings.together}"
        )


def write(name: str, settings: Settings, made: dict[str, Any]) -> None:
    """Write the results file, if there is a folder for it."""
    if settings.results_dir is not None:
        write_json(settings.results_dir / f"{file_name(name, settings.data)}.json", made)


def grow(
    experiment: Experiment, settings: Settings, curves: Sequence[Curve], points: Sequence[int]
) -> Iterator[Curve]:
    """Train all curves to one point before any continues to the next; yield each curve that has grown."""
    if settings.jobs > 1:
        yield from _grow_in_processes(experiment, settings, curves, points)
        return
    for point in points:
        for curve in curves:
            if curve.reach(point):
                yield curve


def _grow_in_processes(
    experiment: Experiment, settings: Settings, curves: Sequence[Curve], points: Sequence[int]
) -> Iterator[Curve]:
    """Like `grow`, with a pool of processes of one thread each: two are faster than one with two threads.

    A process reads the curve's state, trains to the next point and writes the state atomically, so the pool may be
    stopped at any moment.
    """
    with tempfile.TemporaryDirectory() as folder:
        if settings.state_dir is None:
            # curves without a state folder have no state for another process
            settings = replace(settings, state_dir=Path(folder))
        with multiprocessing.get_context("spawn").Pool(settings.jobs, _begin_process) as pool:
            for point in points:
                due = [i for i, c in enumerate(curves) if not c.points or c.points[-1]["samples"] < point]
                tasks = [(experiment, settings, i, point) for i in due]
                for i, notes, reached in pool.imap_unordered(_reach, tasks):
                    curves[i].adopt(notes, reached)
                    yield curves[i]


def _begin_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends the pool
    torch.set_num_threads(1)


def _reach(task: tuple[Experiment, Settings, int, int]) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
    """Train one curve to one point, in a process of the pool."""
    experiment, settings, index, point = task
    curve = experiment.curves(settings)[index]
    curve.reach(point)
    return index, curve.notes, curve.points
