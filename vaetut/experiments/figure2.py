"""AEVB figure 2: the bound against training samples evaluated, AEVB and wake-sleep, for several N_z: chapter 12."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vaetut.data import load
from vaetut.experiments import runner
from vaetut.experiments.runner import Experiment, Settings
from vaetut.experiments.runs import Curve
from vaetut.experiments.together import run_together
from vaetut.experiments.trainer import (
    OBJECTIVES,
    Loop,
    Trainer,
    fixed_binarization,
    mean_bound,
    new_model,
    pick_learning_rate,
)
from vaetut.information import kl_divergence
from vaetut.models import VAE

DEFAULTS = Settings(
    samples=5_000_000,
    latent_dims=(3, 5, 10, 20, 200),
    hidden_dim=500,
    methods=tuple(OBJECTIVES),
    trial_samples=50_000,  # "the first few iterations" in which a learning rate is chosen: 500 steps
)
TRIAL_IMAGES = 1000  # of the training set, on which a trial is scored


def run(data: str = "mnist", **settings: Any) -> dict[str, Any]:
    """Learning curves of the bound on training and test images, for each algorithm and latent dimension.

    Args:
        data: ``"mnist"``, or ``"digits"`` for a version that takes seconds.
        **settings: fields of `vaetut.experiments.runner.Settings` that replace those of ``DEFAULTS``.

    Returns:
        The content of ``figure2.json``.

    Raises:
        TypeError: if a setting is unknown.
        ValueError: if the state folder holds a run with other settings.

    Example:
        >>> made = run("digits", samples=10_000, latent_dims=[2], hidden_dim=20, trial_samples=1000)
        >>> [(curve["method"], curve["points"][-1]["samples"]) for curve in made["curves"]]
        [('AEVB', 10000), ('wake-sleep', 10000)]
    """
    chosen = replace(DEFAULTS, data=data, **settings)
    if chosen.together or chosen.device != "cpu":
        seen, unseen = _evaluated(chosen)
        return run_together(
            EXPERIMENT,
            chosen,
            load(data).train,
            lambda model: mean_bound(model, seen[:TRIAL_IMAGES]),
            partial(point, seen, unseen),
        )
    return runner.run(EXPERIMENT, chosen)


def curves(settings: Settings) -> list[Curve]:
    """The curves of `run`, continued from the state folder if it has them."""
    x = load(settings.data).train
    seen, unseen = _evaluated(settings)

    def curve(method: str, latent_dim: int) -> Curve:
        kept: dict[str, Any] = {"method": method, "latent_dim": latent_dim}
        kept |= {"hidden_dim": settings.hidden_dim, "data": settings.data, "seed": settings.seed}
        begin = partial(_begin, x, seen, kept, settings.trial)
        return Curve(
            kept, begin, partial(_point, seen, unseen), settings.state_file("figure2", method, latent_dim)
        )

    return [curve(method, latent_dim) for latent_dim in settings.latent_dims for method in settings.methods]


def shared(settings: Settings) -> dict[str, Any]:
    """The settings that all curves share, for the results file."""
    return {
        "data": settings.data,
        "hidden_dim": settings.hidden_dim,
        "seed": settings.seed,
        "trial_samples": settings.trial,
    }


EXPERIMENT = Experiment("figure2", curves, shared)


def _evaluated(settings: Settings) -> tuple[Tensor, Tensor]:
    """Training images and test images, black and white, the same for every curve."""
    images = load(settings.data)
    seen = fixed_binarization(images.train[: settings.evaluated], settings.seed)
    return seen, fixed_binarization(images.test[: settings.evaluated], settings.seed + 1)


def _begin(
    x: Tensor, seen: Tensor, kept: dict[str, Any], trial_samples: int, notes: dict[str, Any] | None
) -> tuple[Loop, dict[str, Any]]:
    """A new trainer, with the learning rate in ``notes``, or one that is chosen now."""
    seed = kept["seed"]

    def make(rate: float) -> Trainer:
        model = new_model(x.shape[1], kept["latent_dim"], kept["hidden_dim"], seed=seed)
        return Trainer(model, x, OBJECTIVES[kept["method"]], learning_rate=rate, seed=seed)

    if notes is None:
        rate, trials = pick_learning_rate(
            make, lambda trainer: mean_bound(trainer.model, seen[:TRIAL_IMAGES]), trial_samples
        )
        rounded = {rate: round(value, 2) if value == value else None for rate, value in trials.items()}
        notes = {"learning_rate": rate, "trials": rounded}
    return make(notes["learning_rate"]), notes


def _point(seen: Tensor, unseen: Tensor, trainer: Loop) -> dict[str, Any]:
    return point(seen, unseen, trainer.model)


def point(seen: Tensor, unseen: Tensor, model: VAE) -> dict[str, Any]:
    """The mean bound on images seen in training and on others, and the divergence from the prior on the latter."""
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
