"""AEVB figures 4 and 5: the images of a decoder for a plane of codes, and for draws from the prior: chapter 12.

The encoder's codes of test images on that plane are kept too.
"""

import base64
import io
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaetut._support.validate import positive_int
from vaetut.aevb import rng
from vaetut.data import ImageData, binarize, load
from vaetut.exact import LatentVariableModel
from vaetut.experiments import figure2, runner
from vaetut.experiments.runner import Settings
from vaetut.experiments.runs import Curve, checkpoints, results
from vaetut.experiments.trainer import (
    Loop,
    Trainer,
    aevb_objective,
    fixed_binarization,
    new_model,
)
from vaetut.models import VAE, grid_of_codes

DEFAULTS = replace(figure2.DEFAULTS, samples=1_000_000)
LEARNING_RATE = 0.001
GRID = 20  # rows and columns of the manifold
SAMPLES_PER_ROW = 20
PROJECTED = 2000  # test images whose codes are stored
_LEVELS = 16  # shades of gray in the file


def run(data: str = "mnist", **settings: Any) -> dict[str, Any]:
    """Train a model with two latent dimensions, and draw its manifold and samples.

    The optimizer is Adam, which reaches a larger bound in the same time than the paper's Adagrad: this figure is about
    what is learned, not about how fast.

    For each of ``latent_dims`` samples are also drawn from the decoder of figure 2 in the state folder, if there is
    one, in its present state of training.

    Args:
        data: ``"mnist"`` or ``"digits"``.
        **settings: fields of `vaetut.experiments.runner.Settings` that replace those of ``DEFAULTS``.

    Returns:
        The content of ``figure4.json``; pictures are PNG files in base64, see `decode_picture`.

    Example:
        >>> made = run("digits", samples=10_000, latent_dims=[], hidden_dim=20)
        >>> decode_picture(made["manifold"]).shape  # 20 x 20 images of 8 x 8 pixels
        (160, 160)
    """
    chosen = replace(DEFAULTS, data=data, **settings)
    runner.require_cpu(chosen)
    plane = curves(chosen)[0]
    start = time.monotonic()
    for point in checkpoints(chosen.samples):
        if plane.reach(point) and chosen.progress:
            print(plane, flush=True)
        if chosen.minutes is not None and time.monotonic() - start > 60 * chosen.minutes:
            break
    others = [curve for curve in figure2.curves(replace(chosen, methods=("AEVB",))) if curve.points]
    shape, rows = load(data).image_shape, []
    for curve in [plane, *others]:
        with torch.no_grad(), rng.seeded(chosen.seed):
            model = curve.trainer.model
            drawn = model.likelihood(model.prior.sample((SAMPLES_PER_ROW,))).mean
        done = {"latent_dim": curve.settings["latent_dim"], "samples": curve.points[-1]["samples"]}
        rows.append(done | {"picture": encode_picture(drawn, shape, SAMPLES_PER_ROW // 2)})
    made = results(
        "figure4",
        chosen.command,
        {"data": data, "hidden_dim": chosen.hidden_dim, "seed": chosen.seed},
        curves=[plane.to_dict()],
        manifold=encode_picture(manifold(plane.trainer.model, GRID), shape, GRID),
        projection=projection(plane.trainer.model, load(data)),
        random_samples=rows,
    )
    runner.write("figure4", chosen, made)
    return made


def curves(settings: Settings) -> list[Curve]:
    """The one curve of this figure, that of the model with two latent dimensions."""
    images = load(settings.data)
    seen = fixed_binarization(images.train[: settings.evaluated], settings.seed)
    unseen = fixed_binarization(images.test[: settings.evaluated], settings.seed + 1)
    hidden_dim, seed = settings.hidden_dim, settings.seed
    kept: dict[str, Any] = {"method": "AEVB", "latent_dim": 2, "hidden_dim": hidden_dim}
    kept |= {"optimizer": "adam", "learning_rate": LEARNING_RATE, "data": settings.data, "seed": seed}

    def begin(notes: dict[str, Any] | None) -> tuple[Loop, dict[str, Any]]:
        model = new_model(images.train.shape[1], 2, hidden_dim, seed=seed)
        options: dict[str, Any] = {"learning_rate": LEARNING_RATE, "seed": seed, "optimizer": "adam"}
        return Trainer(model, images.train, aevb_objective, **options), {}

    def evaluate(trainer: Loop) -> dict[str, Any]:
        return figure2.point(seen, unseen, trainer.model)

    return [Curve(kept, begin, evaluate, settings.state_file("figure4"))]


@torch.no_grad()
def manifold(model: LatentVariableModel, steps: int = GRID) -> Tensor:
    r"""The images that a decoder makes from a square of codes, ``[steps * steps, data]``, row by row.

    The codes are those of `vaetut.models.grid_of_codes` (``eq-exp-manifold``).

    Args:
        model: a model with a standard normal prior in two dimensions.
        steps: codes along each side.

    Raises:
        ValueError: if the latent space has another number of dimensions.

    Example:
        >>> from vaetut import VAE
        >>> manifold(VAE(data_dim=64, latent_dim=2, hidden_dim=10), 3).shape
        torch.Size([9, 64])
    """
    if model.prior.event_shape != (2,):
        raise ValueError(f"model must have 2 latent dimensions, got {tuple(model.prior.event_shape)}")
    return model.likelihood(grid_of_codes(steps, model.prior.mean).flatten(0, 1)).mean


@torch.no_grad()
def projection(model: VAE, images: ImageData, count: int = PROJECTED) -> dict[str, Any]:
    """Where the encoder puts the first test images: the means of their codes, to two decimals, and their labels.

    Args:
        model: an encoder's model.
        images: the test images, which are made black and white by a threshold of one half.
        count: so many images, or all if there are fewer.

    Returns:
        ``{"z_1": [...], "z_2": [...], "labels": [...]}``, lists of numbers for a results file.

    Example:
        >>> from vaetut import VAE, load
        >>> made = projection(VAE(data_dim=64, latent_dim=2, hidden_dim=10), load("digits"), 3)
        >>> len(made["z_1"]), made["labels"]  # a zero, a six and a two
        (3, [0, 6, 2])
    """
    seen = binarize(images.test[: positive_int(count, "count")], "threshold")
    like = next(model.parameters())
    first, second = ([round(z, 2) for z in column] for column in model.encode(seen.to(like)).mean.mT.tolist())
    return {"z_1": first, "z_2": second, "labels": images.test_labels[: len(first)].tolist()}


def encode_picture(images: Tensor, image_shape: tuple[int, ...], columns: int) -> str:
    """Images ``[n, height * width]`` in [0, 1], side by side, as a PNG in base64 of 16 shades, dark ink on white."""
    from PIL import Image  # matplotlib needs it too

    height, width = image_shape
    page = images.reshape(-1, columns, height, width).permute(0, 2, 1, 3).reshape(-1, columns * width)
    shades = ((1 - page) * (_LEVELS - 1)).round() * (255 // (_LEVELS - 1))
    file = io.BytesIO()
    Image.fromarray(shades.to(torch.uint8).cpu().numpy()).quantize(_LEVELS).save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")


def decode_picture(text: str) -> NDArray[np.float64]:
    """The picture in a results file, ``[height, width]``: 0 for ink, 1 for white.

    Example:
        >>> from vaetut.experiments import stored
        >>> decode_picture(stored("figure4")["manifold"]).shape  # 20 x 20 images of 28 x 28 pixels
        (560, 560)
    """
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
        return np.asarray(picture.convert("L"), dtype=np.float64) / 255
