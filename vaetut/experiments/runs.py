"""What every experiment shares: curves that can be stopped and continued, and results files: chapter 12.

A curve's state is written after each of its points, and the results file with it; both are written beside their
place and then moved there, so that they are whole at any moment. An experiment that is stopped goes on from there.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from vaetut._support import files
from vaetut.experiments.trainer import Trainer

POINTS_PER_DECADE = 6
FIRST_POINT = 10_000


class Curve:
    """One curve of a figure: which algorithm, with what settings, and the points that it has so far.

    Args:
        settings: what identifies the curve: numbers and strings, written to the results.
        begin: starts it; returns a trainer, and notes such as the learning rate picked.
        evaluate: the numbers of a point, from the trainer as it is.
        state: the file to save the state in; None to keep it in memory.

    Raises:
        ValueError: if the file holds the state of other settings.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        begin: Callable[[dict[str, Any] | None], tuple[Trainer, dict[str, Any]]],
        evaluate: Callable[[Trainer], dict[str, Any]],
        state: Path | None = None,
    ) -> None:
        self.settings, self._begin, self._evaluate, self._path = settings, begin, evaluate, state
        self.notes: dict[str, Any] = {}
        self.points: list[dict[str, Any]] = []
        self._trainer: Trainer | None = None
        self._saved: dict[str, Any] | None = None
        if state is not None and state.exists():
            saved = torch.load(state, weights_only=True)
            missing = {"settings", "notes", "points", "trainer"} - set(saved)
            if missing:
                raise ValueError(
                    f"{state} lacks {', '.join(sorted(missing))}; it is of another program or version"
                )
            if saved["settings"] != settings:
                raise ValueError(
                    f"{state} holds a run with {saved['settings']}, not {settings}; "
                    "name another --state folder, or remove that file"
                )
            self.notes, self.points, self._saved = saved["notes"], saved["points"], saved["trainer"]

    @property
    def trainer(self) -> Trainer:
        """The trainer, begun, or continued from its saved state, when it is first asked for."""
        if self._trainer is None:
            self._trainer, self.notes = self._begin(self.notes if self._saved else None)
            if self._saved is not None:
                self._trainer.load_state_dict(self._saved)
                self._saved = None
        return self._trainer

    def reach(self, samples: int) -> bool:
        """Train on to that many samples, add a point and save; False if the curve has been there already."""
        if self.points and self.points[-1]["samples"] >= samples:
            return False
        trainer = self.trainer
        trainer.advance(samples)
        point = {"samples": trainer.samples, **self._evaluate(trainer)}
        point |= {"seconds": round(trainer.seconds, 1), "cpu_seconds": round(trainer.cpu_seconds, 1)}
        self.points.append(point)
        if self._path is not None:
            state = {"settings": self.settings, "notes": self.notes, "points": self.points}
            write_state(self._path, {**state, "trainer": trainer.state_dict()})
        return True

    def __str__(self) -> str:
        of = ", ".join(str(value) for value in self.settings.values())
        last = self.points[-1] if self.points else {}
        return of + ": " + ", ".join(f"{name} {value:,}" for name, value in last.items())

    def to_dict(self) -> dict[str, Any]:
        """The curve as it stands in a results file."""
        return {**self.settings, **self.notes, "points": self.points}


def grow(
    curves: Sequence[Curve],
    samples: int,
    report: Callable[[Curve], object],
    minutes: float | None = None,
    per_decade: int = POINTS_PER_DECADE,
) -> None:
    """Take all curves to ``samples``, in turns, so that they grow together, on points even on a log axis.

    Args:
        curves: the curves; those with a saved state go on from there.
        samples: how far.
        report: called with the curve after each new point.
        minutes: stop after the first point that is finished later than this.
        per_decade: points for each factor of ten.
    """
    start = time.monotonic()
    for point in checkpoints(samples, per_decade):
        for curve in curves:
            if not curve.reach(point):
                continue
            report(curve)
            if minutes is not None and time.monotonic() - start > 60 * minutes:
                return


def checkpoints(samples: int, per_decade: int = POINTS_PER_DECADE) -> list[int]:
    """So many points for each factor of ten, from 10,000 on, in whole minibatches, and ``samples`` as the last.

    Example:
        >>> checkpoints(100_000)
        [10000, 14700, 21500, 31600, 46400, 68100, 100000]
    """
    points, k = [], 0
    while (point := round(FIRST_POINT * 10 ** (k / per_decade) / 100) * 100) < samples:
        points.append(point)
        k += 1
    return [*points, samples]


def reporter(
    experiment: str,
    command: str,
    settings: dict[str, Any],
    curves: Sequence[Curve],
    results_dir: Path | None,
    progress: bool,
) -> Callable[[Curve | None], dict[str, Any]]:
    """The function that `grow` calls with each new point: it writes the results file anew, and prints the point.

    It returns what it has written; with None in place of a curve it prints nothing.
    """

    def report(newest: Curve | None) -> dict[str, Any]:
        made = results(
            experiment, command, settings, curves=[curve.to_dict() for curve in curves if curve.points]
        )
        if results_dir is not None:
            write_json(results_dir / (file_name(experiment, settings["data"]) + ".json"), made)
        if progress and newest is not None:
            print(newest, flush=True)
        return made

    return report


def file_name(experiment: str, data: str) -> str:
    """What the files of an experiment are called; those on other data than the paper's do not take their place.

    Example:
        >>> file_name("figure2", "mnist"), file_name("figure2", "digits")
        ('figure2', 'figure2-digits')
    """
    return experiment if data == "mnist" else f"{experiment}-{data}"


def results(experiment: str, command: str, settings: dict[str, Any], **content: Any) -> dict[str, Any]:
    """What a results file holds: the experiment, how it was run and on what, and its numbers."""
    versions = {name: files.versions()[name] for name in ("python", "torch", "vaetut")}
    return {
        "experiment": experiment,
        "command": command,
        **settings,
        "versions": versions,
        "machine": f"{os.cpu_count()} CPU cores",
        "threads": torch.get_num_threads(),
        **content,
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a results file in one move, each curve point on a line of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, content, indent=1, compact=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """The content of a results file, or None where there is no such file.

    Example:
        >>> read_json(Path("no-such-file.json")) is None
        True
    """
    return files.read_json(path) if path.exists() else None


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers and dicts in one move, for `torch.load` with ``weights_only=True``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.atomically(path, lambda temporary: torch.save(state, temporary))
