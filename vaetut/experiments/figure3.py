"""AEVB figure 3: the marginal likelihood against training samples evaluated, for three algorithms: chapter 12.

100 hidden units and 3 latent dimensions, trained on 1,000 and on 50,000 images. The settings:

* the estimate of log p(x): a density is fitted to posterior draws by HMC (appendix D), 50 of them for each image, 4
  leapfrog steps apart, for the first 1,000 images of the training and of the test set (appendix E); here the fitted
  density is a proposal for importance sampling (see `vaetut.experiments.marginal`).
* Monte Carlo EM (appendix E): 10 leapfrog steps of HMC for each minibatch, tuned to an acceptance of 90 %, then 5
  updates of the weights with the resulting codes.
* Adagrad for all, with a rate of 0.01, 0.02 or 0.1, which the paper chose after the first few iterations. Here each
  rate is tried for the whole run by default, for all algorithms alike: on 50,000 images Monte Carlo EM is best
  with 0.1 after 500 steps, and fails later; with 0.02 it continues to improve.
"""

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from vaetut.aevb import rng
from vaetut.data import load
from vaetut.experiments import runner
from vaetut.experiments.marginal import marginal_likelihood
from vaetut.experiments.mcem import MonteCarloEM
from vaetut.experiments.runner import Experiment, Settings
from vaetut.experiments.runs import Curve
from vaetut.experiments.trainer import (
    LEARNING_RATES,
    OBJECTIVES,
    Loop,
    Trainer,
    fixed_binarization,
    new_model,
    pick_learning_rate,
)

DEFAULTS = Settings(
    samples=1_000_000,
    train_sizes=(1000, 50_000),
    latent_dims=(3,),
    hidden_dim=100,
    methods=(*OBJECTIVES, "MCEM"),
    trial_samples=None,
    evaluated=1000,  # as in the paper's appendix E
)
TRIAL_IMAGES = 200  # of the training set, on which a trial is scored
POINTS_PER_DECADE = 3  # half as many as in figure 2, since they take longer


def run(data: str = "mnist", *, latent_dim: int = 3, **settings: Any) -> dict[str, Any]:
    """Curves of the estimated log p(x) on training and test images, for each algorithm and size of the data.

    The images are made black and white once, by a draw with their gray values as probabilities, so that a small
    training set is not enlarged by new draws, and the posteriors of Monte Carlo EM stay the same.

    Args:
        data: ``"mnist"``, or ``"digits"`` for a version that takes seconds.
        latent_dim: N_z.
        **settings: fields of `vaetut.experiments.runner.Settings` that replace those of ``DEFAULTS``.

    Returns:
        The content of ``figure3.json``.

    Raises:
        TypeError: if a setting is unknown.
        ValueError: if the state folder holds a run with other settings, or the device is not the CPU.

    Example:
        >>> made = run("digits", samples=5000, train_sizes=[500], latent_dim=2, hidden_dim=20, methods=["MCEM"],
        ...     trial_samples=500, evaluated=20)
        >>> [(curve["method"], curve["points"][-1]["samples"]) for curve in made["curves"]]
        [('MCEM', 5000)]
    """
    chosen = replace(DEFAULTS, data=data, latent_dims=(latent_dim,), **settings)
    runner.require_cpu(chosen)
    return runner.run(EXPERIMENT, chosen)


def curves(settings: Settings) -> list[Curve]:
    """The curves of `run`, continued from the state folder if it has them."""
    x, seen, unseen = _images(settings)
    (latent_dim,) = settings.latent_dims

    def curve(method: str, train_size: int) -> Curve:
        kept: dict[str, Any] = {"method": method, "train_size": train_size, "latent_dim": latent_dim}
        kept |= {"hidden_dim": settings.hidden_dim, "data": settings.data, "seed": settings.seed}
        begin = partial(_begin, x[:train_size], kept, settings.trial, settings.evaluated)
        return Curve(
            kept, begin, partial(_point, seen, unseen), settings.state_file("figure3", method, train_size)
        )

    return [curve(method, train_size) for train_size in settings.train_sizes for method in settings.methods]


def shared(settings: Settings) -> dict[str, Any]:
    """The settings that all curves share, for the results file."""
    return {
        "data": settings.data,
        "latent_dim": settings.latent_dims[0],
        "hidden_dim": settings.hidden_dim,
        "seed": settings.seed,
        "trial_samples": settings.trial,
        "evaluated": settings.evaluated,
    }


EXPERIMENT = Experiment("figure3", curves, shared, POINTS_PER_DECADE)


def run_rates(data: str = "mnist", *, latent_dim: int = 3, **settings: Any) -> dict[str, Any]:
    """Monte Carlo EM on 50,000 images with each learning rate: it shows why a short trial chooses the wrong one.

    Args:
        data: ``"mnist"``, or ``"digits"``, for which ``train_sizes`` must be given.
        latent_dim: N_z.
        **settings: as for `run`.

    Returns:
        The content of ``figure3-rates.json``: a curve for each rate.

    Example:
        >>> made = run_rates("digits", samples=1000, train_sizes=[200], latent_dim=2, hidden_dim=10, evaluated=20)
        >>> [curve["learning_rate"] for curve in made["curves"]]
        [0.01, 0.02, 0.1]
    """
    chosen = replace(RATES_DEFAULTS, data=data, latent_dims=(latent_dim,), **settings)
    runner.require_cpu(chosen)
    return runner.run(RATES, chosen)


def curves_of_rates(settings: Settings) -> list[Curve]:
    """The curves of `run_rates`, continued from the state folder if it has them."""
    x, seen, unseen = _images(settings)
    (latent_dim,) = settings.latent_dims

    def curve(train_size: int, rate: float) -> Curve:
        kept: dict[str, Any] = {"method": "MCEM", "train_size": train_size, "latent_dim": latent_dim}
        kept |= {"hidden_dim": settings.hidden_dim, "data": settings.data, "seed": settings.seed}
        kept["learning_rate"] = rate

        def begin(notes: dict[str, Any] | None) -> tuple[Loop, dict[str, Any]]:
            model = new_model(x.shape[1], latent_dim, settings.hidden_dim, seed=settings.seed)
            return MonteCarloEM(model, x[:train_size], learning_rate=rate, seed=settings.seed), {}

        state = settings.state_file("figure3-rates", train_size, rate)
        return Curve(kept, begin, partial(_point, seen, unseen), state)

    return [curve(size, rate) for size in settings.train_sizes for rate in LEARNING_RATES]


def shared_of_rates(settings: Settings) -> dict[str, Any]:
    """The settings that all curves of `run_rates` share; there are no trials."""
    return {name: value for name, value in shared(settings).items() if name != "trial_samples"}


RATES = Experiment("figure3-rates", curves_of_rates, shared_of_rates, POINTS_PER_DECADE)
RATES_DEFAULTS = replace(DEFAULTS, train_sizes=(50_000,), methods=("MCEM",))


def _images(settings: Settings) -> tuple[Tensor, Tensor, Tensor]:
    """Black-and-white images: of the largest training set, and those on which a point is evaluated, seen and not."""
    images = load(settings.data)
    x = fixed_binarization(images.train[: max(settings.train_sizes)], settings.seed)
    unseen = fixed_binarization(images.test[: settings.evaluated], settings.seed + 1)
    return x, x[: settings.evaluated], unseen


def _begin(
    x: Tensor, kept: dict[str, Any], trial_samples: int, evaluated: int, notes: dict[str, Any] | None
) -> tuple[Loop, dict[str, Any]]:
    """A new trainer, with the learning rate in ``notes``, or one that is chosen now."""
    seed, method = kept["seed"], kept["method"]

    def make(rate: float) -> Loop:
        model = new_model(x.shape[1], kept["latent_dim"], kept["hidden_dim"], seed=seed)
        if method == "MCEM":
            return MonteCarloEM(model, x, learning_rate=rate, seed=seed)
        return Trainer(model, x, OBJECTIVES[method], learning_rate=rate, seed=seed)

    if notes is None:
        rate, trials = pick_learning_rate(
            make, lambda trainer: _mean(trainer, x[: min(TRIAL_IMAGES, evaluated)]), trial_samples
        )
        rounded = {rate: round(value, 2) if value == value else None for rate, value in trials.items()}
        notes = {"learning_rate": rate, "trials": rounded}
    return make(notes["learning_rate"]), notes


def _point(seen: Tensor, unseen: Tensor, trainer: Loop) -> dict[str, Any]:
    point: dict[str, Any] = {
        "train": round(_mean(trainer, seen), 3),
        "test": round(_mean(trainer, unseen), 3),
    }
    if isinstance(trainer, MonteCarloEM):
        point["acceptance"] = round(float(trainer.acceptance), 2)
    return point


def _mean(trainer: Loop, x: Tensor) -> float:
    with rng.seeded(0):
        return float(marginal_likelihood(trainer.model, x).value.double().mean())
