"""All curves of figure 2 grown together, as one batched model (`vaetut.experiments.batched`): chapter 12."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vaetut.aevb.devices import usable_device
from vaetut.experiments.batched import Batched
from vaetut.experiments.runner import Experiment, Settings, write
from vaetut.experiments.runs import checkpoints, results, write_state
from vaetut.experiments.trainer import LEARNING_RATES
from vaetut.models import VAE


def run_together(
    experiment: Experiment,
    settings: Settings,
    x: Tensor,
    score: Callable[[VAE], float],
    evaluate: Callable[[VAE], dict[str, Any]],
) -> dict[str, Any]:
    """Grow all curves of figure 2 together, as `vaetut.experiments.runner.run` grows them one by one.

    The state of all curves is one file in the state folder, written after each point.

    Args:
        experiment: figure 2.
        settings: its settings.
        x: ``[N, D]``, the training images.
        score: the performance on the training set by which a learning rate is chosen; larger is better.
        evaluate: the numbers of a point.

    Raises:
        ValueError: if the state folder holds a run with other settings, or the device does not exist.
        FloatingPointError: if a model diverges with every rate, or with its own.
    """
    kinds = [(method, latent) for latent in settings.latent_dims for method in settings.methods]
    images = x.to(usable_device(settings.device, "device must be one of this machine"))
    identity = {**experiment.shared(settings), "kinds": [list(kind) for kind in kinds]}
    path = settings.state_file("figure2", "together")
    notes: list[dict[str, Any]]
    points: list[list[dict[str, Any]]] = [[] for _ in kinds]
    saved = torch.load(path, weights_only=True) if path is not None and path.exists() else None
    if saved is not None and saved["settings"] != identity:
        raise ValueError(
            f"{path} holds a run with {saved['settings']}, not {identity}; "
            "name another --state folder, or remove that file"
        )
    notes = saved["notes"] if saved else _pick(kinds, images, settings, score)
    models = Batched(
        [(*kind, note["learning_rate"]) for kind, note in zip(kinds, notes, strict=True)],
        images,
        settings.hidden_dim,
        settings.seed,
    )
    if saved is not None:
        points = saved["points"]
        models.load_state_dict(saved["models"])

    def report() -> dict[str, Any]:
        own = {"hidden_dim": settings.hidden_dim, "data": settings.data, "seed": settings.seed}
        curves = [
            {"method": method, "latent_dim": latent, **own, **note, "points": reached}
            for (method, latent), note, reached in zip(kinds, notes, points, strict=True)
            if reached
        ]
        shared = experiment.shared(settings) | {"together": len(kinds), "device": _name(images.device)}
        made = results(experiment.name, settings.command, shared, curves=curves)
        write(experiment.name, settings, made)
        return made

    start = time.monotonic()
    for point in checkpoints(settings.samples, experiment.per_decade):
        if models.samples >= point:
            continue
        models.advance(point)
        for reached, numbers in zip(points, _point(models, kinds, notes, evaluate), strict=True):
            reached.append(numbers)
        if path is not None:
            state = {"settings": identity, "notes": notes, "points": points}
            write_state(path, {**state, "models": models.state_dict()})
        report()
        if settings.progress:
            for kind, reached in zip(kinds, points, strict=True):
                print(f"{kind[0]}, {kind[1]}: {reached[-1]}", flush=True)
        if settings.minutes is not None and time.monotonic() - start > 60 * settings.minutes:
            break
    return report()


def _point(
    models: Batched,
    kinds: list[tuple[str, int]],
    notes: list[dict[str, Any]],
    evaluate: Callable[[VAE], dict[str, Any]],
) -> list[dict[str, Any]]:
    """The numbers of a point of each curve, once it is clear that all are finite."""
    # of all models together
    times = {"seconds": round(models.seconds, 1), "cpu_seconds": round(models.cpu_seconds, 1)}
    point = []
    for k, kind in enumerate(kinds):
        numbers = {"samples": models.samples, **evaluate(models.model(k))}
        if not all(map(math.isfinite, numbers.values())):
            raise FloatingPointError(
                f"{_described(kind)}: the objective is not finite after {models.samples} samples; "
                f"the learning rate, {notes[k]['learning_rate']:g}, may be too large"
            )
        point.append(numbers | times)
    return point


def _pick(
    kinds: Sequence[tuple[str, int]], x: Tensor, settings: Settings, score: Callable[[VAE], float]
) -> list[dict[str, Any]]:
    """The learning rate of each model, from a trial of all rates together."""
    tried = [(*kind, rate) for kind in kinds for rate in LEARNING_RATES]
    models = Batched(tried, x, settings.hidden_dim, settings.seed)
    models.advance(settings.trial)
    notes = []
    for k, kind in enumerate(kinds):
        found = {
            rate: score(models.model(k * len(LEARNING_RATES) + i)) for i, rate in enumerate(LEARNING_RATES)
        }
        usable = {rate: value for rate, value in found.items() if math.isfinite(value)}
        if not usable:
            rates = ", ".join(map(str, LEARNING_RATES))
            raise FloatingPointError(
                f"{_described(kind)}: training diverged with every learning rate, {rates}"
            )
        trials = {f"{rate:g}": round(value, 2) if rate in usable else None for rate, value in found.items()}
        notes.append({"learning_rate": max(usable, key=lambda rate: usable[rate]), "trials": trials})
    return notes


def _described(kind: tuple[str, int]) -> str:
    return f"{kind[0]} with {kind[1]} latent variables"


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
