"""Shared by the experiments: curves that can be stopped and continued, and results files: chapter 12.

A curve's state is written after each of its points, and then the results file, both atomically. A stopped experiment
continues from there.
"""

import importlib.resources
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from vaetut._support import files
from vaetut._support.validate import one_of
from vaetut.experiments.trainer import Loop

POINTS_PER_DECADE = 6
FIRST_POINT = 10_000


class Curve:
    """One curve of a figure: its algorithm, its settings, and its points so far.

    Args:
        settings: numbers and strings that identify the curve, written to the results.
        begin: starts the curve; returns a trainer, and notes such as the chosen learning rate.
        evaluate: a function of the trainer that returns the numbers of a point.
        state: the file to save the state in; None to keep it in memory.

    Raises:
        ValueError: if the file has the state of other settings.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        begin: Callable[[dict[str, Any] | None], tuple[Loop, dict[str, Any]]],
        evaluate: Callable[[Any], dict[str, Any]],
        state: Path | None = None,
    ) -> None:
        self.settings, self._begin, self._evaluate, self._path = settings, begin, evaluate, state
        self.notes: dict[str, Any] = {}
        self.points: list[dict[str, Any]] = []
        self._trainer: Loop | None = None
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
    def trainer(self) -> Loop:
        """The trainer, which is started, or continued from its saved state, on first access."""
        if self._trainer is None:
            self._trainer, self.notes = self._begin(self.notes if self._saved else None)
            if self._saved is not None:
                self._trainer.load_state_dict(self._saved)
                self._saved = None
        return self._trainer

    def reach(self, samples: int) -> bool:
        """Train to that many samples, add a point and save; False if the curve already has that point."""
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

    def adopt(self, notes: dict[str, Any], points: list[dict[str, Any]]) -> None:
        """Take over the result of another process; this process's trainer is loaded again from the saved state."""
        self.notes, self.points, self._trainer = notes, points, None
        if self._path is not None and self._path.exists():
            self._saved = torch.load(self._path, weights_only=True)["trainer"]

    def __str__(self) -> str:
        of = ", ".join(str(value) for value in self.settings.values())
        last = self.points[-1] if self.points else {}
        return of + ": " + ", ".join(f"{name} {value:,}" for name, value in last.items())

    def to_dict(self) -> dict[str, Any]:
        """The curve in the form of the results file."""
        return {**self.settings, **self.notes, "points": self.points}


def checkpoints(samples: int, per_decade: int = POINTS_PER_DECADE) -> list[int]:
    """``per_decade`` points for each factor of ten, from 10,000 on, in whole minibatches; the last is ``samples``.

    Example:
        >>> checkpoints(100_000)
        [10000, 14700, 21500, 31600, 46400, 68100, 100000]
    """
    points, k = [], 0
    while (point := round(FIRST_POINT * 10 ** (k / per_decade) / 100) * 100) < samples:
        points.append(point)
        k += 1
    return [*points, samples]


def file_name(experiment: str, data: str) -> str:
    """The file name of an experiment; results on other data than the paper's have another name.

    Example:
        >>> file_name("figure2", "mnist"), file_name("figure2", "digits")
        ('figure2', 'figure2-digits')
    """
    return experiment if data == "mnist" else f"{experiment}-{data}"


def results(experiment: str, command: str, settings: dict[str, Any], **content: Any) -> dict[str, Any]:
    """The content of a results file: the experiment, its command, versions and machine, and its numbers."""
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
    """Write a results file atomically, each point of a curve on its own line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, content, indent=1, compact=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """The content of a results file, or None if it does not exist.

    Example:
        >>> read_json(Path("no-such-file.json")) is None
        True
    """
    return files.read_json(path) if path.exists() else None


def stored(name: str) -> dict[str, Any]:
    """The results that come with the package: the paper's experiments as they were run on MNIST for chapter 12.

    Args:
        name: which experiment: ``"figure2"``, ``"figure3"``, ``"figure3-rates"``, ``"figure4"``, ``"full-vb"``,
            ``"mnist-paper"`` or ``"mnist-best"``.

    Raises:
        ValueError: if there are no results of that name.

    Example:
        >>> results = stored("figure2")
        >>> results["command"], len(results["curves"])
        ('python -m vaetut.experiments figure2', 10)
    """
    folder = importlib.resources.files("vaetut.experiments") / "results"
    names = sorted(
        file.name.removesuffix(".json") for file in folder.iterdir() if file.name.endswith(".json")
    )
    content: dict[str, Any] = files.packaged_json(
        "vaetut.experiments", f"results/{one_of(name, 'name', names)}.json"
    )
    return content


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write tensors, numbers and dicts atomically, for `torch.load` with ``weights_only=True``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.atomically(path, lambda temporary: torch.save(state, temporary))
