"""AEVB figure 2: the bound against training samples evaluated, AEVB and wake-sleep, for several N_z: chapter 12."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaetut.data import load
from vaetut.experiments.runs import Curve, file_name, grow, reporter
from vaetut.experiments.trainer import (
    OBJECTIVES,
    Trainer,
    fixed_binarization,
    mean_bound,
    new_model,
    pick_learning_rate,
)
from vaetut.information import kl_divergence

LATENT_DIMS = (3, 5, 10, 20, 200)
HIDDEN_DIM = 500
TRIAL_SAMPLES = 50_000  # "the first few iterations" in which a learning rate is picked: 500 steps
EVALUATED = 10_000  # images of each part, on which the bound is evaluated


def run(
    data: str = "mnist",
    *,
    samples: int = 5_000_000,
    latent_dims: Sequence[int] = LATENT_DIMS,
    hidden_dim: int = HIDDEN_DIM,
    methods: Sequence[str] = tuple(OBJECTIVES),
    trial_samples: int = TRIAL_SAMPLES,
    seed: int = 0,
    minutes: float | None = None,
    share: tuple[int, int] = (1, 1),
    results_dir: Path | None = None,
    state_dir: Path | None = None,
    command: str = "",
    progress: bool = False,
) -> dict[str, Any]:
    """Learning curves of the bound on training and test images, for each algorithm and latent dimension.

    Args:
        data: ``"mnist"``, or ``"digits"`` for a version that takes seconds.
        samples: training samples evaluated by each curve (the paper: 1e8).
        latent_dims: N_z.
        hidden_dim: units of each hidden layer.
        methods: ``"AEVB"``, ``"wake-sleep"``.
        trial_samples: how long each learning rate is tried before one is picked.
        seed: of initial parameters, minibatches, noise and binarization.
        minutes: stop earlier than ``samples``.
        share: (k, n) for every n-th curve only, from the k-th on: n processes with one ``state_dir`` share the work.
        results_dir: where ``figure2.json`` goes; None for nowhere.
        state_dir: where the curves are kept, to go on from; None for nowhere.
        command: for the record.
        progress: print each point.

    Returns:
        What is written to ``figure2.json``.

    Example:
        >>> made = run("digits", samples=10_000, latent_dims=[2], hidden_dim=20, trial_samples=1000)
        >>> [(curve["method"], curve["points"][-1]["samples"]) for curve in made["curves"]]
        [('AEVB', 10000), ('wake-sleep', 10000)]
    """
    curves = make_curves(data, latent_dims, hidden_dim, methods, trial_samples, seed, state_dir)
    curves = curves[share[0] - 1 :: share[1]]
    shared = {"data": data, "hidden_dim": hidden_dim, "seed": seed, "trial_samples": trial_samples}
    report = reporter("figure2", command, shared, curves, results_dir, progress)
    grow(curves, samples, report, minutes)
    return report(None)


def make_curves(
    data: str,
    latent_dims: Sequence[int],
    hidden_dim: int,
    methods: Sequence[str],
    trial_samples: int,
    seed: int,
    state_dir: Path | None,
) -> list[Curve]:
    """The curves of `run`, continued from ``state_dir`` where they are there."""
    images = load(data)
    seen = fixed_binarization(images.train[:EVALUATED], seed)
    unseen = fixed_binarization(images.test[:EVALUATED], seed + 1)

    def curve(method: str, latent_dim: int) -> Curve:
        settings: dict[str, Any] = {"method": method, "latent_dim": latent_dim}
        settings |= {"hidden_dim": hidden_dim, "data": data, "seed": seed}
        begin = partial(_begin, images.train, seen, settings, trial_samples)
        name = file_name("figure2", data) + f"-{method}-{latent_dim}.pt"
        return Curve(settings, begin, partial(point, seen, unseen), state_dir and state_dir / name)

    return [curve(method, latent_dim) for latent_dim in latent_dims for method in methods]


def _begin(
    x: Tensor, seen: Tensor, settings: dict[str, Any], trial_samples: int, notes: dict[str, Any] | None
) -> tuple[Trainer, dict[str, Any]]:
    """A new trainer, with the learning rate in ``notes``, or one that is picked now."""
    seed = settings["seed"]

    def make(rate: float) -> Trainer:
        model = new_model(x.shape[1], settings["latent_dim"], settings["hidden_dim"], seed=seed)
        return Trainer(model, x, OBJECTIVES[settings["method"]], learning_rate=rate, seed=seed)

    if notes is None:
        rate, trials = pick_learning_rate(
            make, lambda trainer: mean_bound(trainer.model, seen[:1000]), trial_samples
        )
        rounded = {rate: round(value, 2) if value == value else None for rate, value in trials.items()}
        notes = {"learning_rate": rate, "trials": rounded}
    return make(notes["learning_rate"]), notes


def point(seen: Tensor, unseen: Tensor, trainer: Trainer) -> dict[str, Any]:
    """The mean bound on images seen in training and on others, and the divergence from the prior on the latter."""
    model = trainer.model
    with torch.no_grad():
        per_dimension = kl_per_dimension(model.encode(unseen))
    return {
        "train": round(mean_bound(model, seen), 3),
        "test": round(mean_bound(model, unseen), 3),
        "kl": round(float(per_dimension.sum()), 3),
    }


def kl_per_dimension(q: torch.distributions.Distribution) -> Tensor:
    r"""The divergence to the standard normal of each latent dimension, averaged over the batch, ``[latent]``.

    For a diagonal Gaussian q the divergence is a sum over dimensions (``eq-exp-kl-per-dimension``); a dimension
    that q leaves at the prior contributes 0 and is not used.

    Example:
        >>> from torch.distributions import Independent, Normal
        >>> q = Independent(Normal(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.5]])), 1)
        >>> kl_per_dimension(q)
        tensor([0.0000, 0.8181])
    """
    assert isinstance(q, torch.distributions.Independent)
    base = q.base_dist
    standard = torch.distributions.Normal(torch.zeros_like(base.mean), torch.ones_like(base.mean))
    return kl_divergence(base, standard).mean(0)
