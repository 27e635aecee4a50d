"""AEVB figure 3: the marginal likelihood against training samples evaluated, for three algorithms: chapter 12.

100 hidden units and 3 latent dimensions, trained on 1,000 and on 50,000 images.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from vaetut.data import load
from vaetut.experiments.marginal import marginal_likelihood
from vaetut.experiments.mcem import MonteCarloEM
from vaetut.experiments.runs import Curve, file_name, grow, reporter
from vaetut.experiments.trainer import (
    OBJECTIVES,
    Trainer,
    fixed_binarization,
    new_model,
    pick_learning_rate,
    random_state,
    seeded,
)

METHODS = (*OBJECTIVES, "MCEM")
TRAIN_SIZES = (1000, 50_000)
LATENT_DIM = 3
HIDDEN_DIM = 100
TRIAL_SAMPLES = 50_000
EVALUATED = 1000  # images of each part, as in the paper's appendix E
POINTS_PER_DECADE = 3  # half as many as in figure 2, for they take longer


def run(
    data: str = "mnist",
    *,
    samples: int = 1_000_000,
    train_sizes: Sequence[int] = TRAIN_SIZES,
    latent_dim: int = LATENT_DIM,
    hidden_dim: int = HIDDEN_DIM,
    methods: Sequence[str] = METHODS,
    trial_samples: int = TRIAL_SAMPLES,
    evaluated: int = EVALUATED,
    seed: int = 0,
    minutes: float | None = None,
    share: tuple[int, int] = (1, 1),
    results_dir: Path | None = None,
    state_dir: Path | None = None,
    command: str = "",
    progress: bool = False,
) -> dict[str, Any]:
    """Curves of the estimated log p(x) on training and test images, for each algorithm and size of the data.

    The images are made black and white once, by a draw with their grey values as probabilities, so that a small
    training set is small indeed and MCEM's posteriors stay where they are.

    Args:
        data: ``"mnist"``, or ``"digits"`` for a version that takes seconds.
        samples: training samples evaluated by each curve.
        train_sizes: N_train.
        latent_dim: N_z.
        hidden_dim: units of each hidden layer.
        methods: ``"AEVB"``, ``"wake-sleep"``, ``"MCEM"``.
        trial_samples: how long each learning rate is tried before one is picked.
        evaluated: images of each part on which log p(x) is estimated.
        seed: of initial parameters, minibatches, noise and binarization.
        minutes: stop earlier than ``samples``.
        share: (k, n) for every n-th curve only, from the k-th on: n processes with one ``state_dir`` share the work.
        results_dir: where ``figure3.json`` goes; None for nowhere.
        state_dir: where the curves are kept, to go on from; None for nowhere.
        command: for the record.
        progress: print each point.

    Returns:
        What is written to ``figure3.json``.

    Example:
        >>> made = run("digits", samples=5000, train_sizes=[500], latent_dim=2, hidden_dim=20, methods=["MCEM"],
        ...     trial_samples=500, evaluated=20)
        >>> [(curve["method"], curve["points"][-1]["samples"]) for curve in made["curves"]]
        [('MCEM', 5000)]
    """
    images = load(data)
    x = fixed_binarization(images.train[: max(train_sizes)], seed)
    seen, unseen = x[:evaluated], fixed_binarization(images.test[:evaluated], seed + 1)

    def curve(method: str, train_size: int) -> Curve:
        settings: dict[str, Any] = {"method": method, "train_size": train_size, "latent_dim": latent_dim}
        settings |= {"hidden_dim": hidden_dim, "data": data, "seed": seed}
        begin = partial(_begin, x[:train_size], settings, trial_samples, evaluated)
        name = file_name("figure3", data) + f"-{method}-{train_size}.pt"
        return Curve(settings, begin, partial(_point, seen, unseen), state_dir and state_dir / name)

    curves = [curve(method, train_size) for train_size in train_sizes for method in methods]
    curves = curves[share[0] - 1 :: share[1]]
    shared = {"data": data, "latent_dim": latent_dim, "hidden_dim": hidden_dim, "seed": seed}
    shared |= {"trial_samples": trial_samples, "evaluated": evaluated}
    report = reporter("figure3", command, shared, curves, results_dir, progress)
    grow(curves, samples, report, minutes, POINTS_PER_DECADE)
    return report(None)


def _begin(
    x: Tensor, settings: dict[str, Any], trial_samples: int, evaluated: int, notes: dict[str, Any] | None
) -> tuple[Trainer, dict[str, Any]]:
    """A new trainer, with the learning rate in ``notes``, or one that is picked now."""
    seed, method = settings["seed"], settings["method"]

    def make(rate: float) -> Trainer:
        model = new_model(x.shape[1], settings["latent_dim"], settings["hidden_dim"], seed=seed)
        if method == "MCEM":
            return MonteCarloEM(model, x, learning_rate=rate, seed=seed)
        return Trainer(model, x, OBJECTIVES[method], learning_rate=rate, seed=seed)

    if notes is None:
        rate, trials = pick_learning_rate(
            make, lambda trainer: _mean(trainer, x[: min(200, evaluated)]), trial_samples
        )
        rounded = {rate: round(value, 2) if value == value else None for rate, value in trials.items()}
        notes = {"learning_rate": rate, "trials": rounded}
    return make(notes["learning_rate"]), notes


def _point(seen: Tensor, unseen: Tensor, trainer: Trainer) -> dict[str, Any]:
    point: dict[str, Any] = {
        "train": round(_mean(trainer, seen), 3),
        "test": round(_mean(trainer, unseen), 3),
    }
    if isinstance(trainer, MonteCarloEM):
        point["acceptance"] = round(float(trainer.acceptance), 2)
    return point


def _mean(trainer: Trainer, x: Tensor) -> float:
    with random_state(seeded(0)):
        return float(marginal_likelihood(trainer.model, x).value.double().mean())
