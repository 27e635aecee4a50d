"""`vaetut evaluate`: the bounds and log p(x) of the test images under a trained model, in one pass."""

import csv
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from vaetut._support.files import atomically, versions
from vaetut._support.text import is_terminal
from vaetut._support.validate import checks
from vaetut.aevb import rng
from vaetut.bounds import elbo_terms, iwae_bound
from vaetut.cli import run_folder
from vaetut.cli.arguments import device
from vaetut.cli.lock import quoted
from vaetut.cli.options import Evaluate
from vaetut.cli.run_folder import Saved, open_data
from vaetut.data import ImageData, binarize

ACTIVE = 0.01
"""A latent dimension u is active if the variance over x of E_q[z_u] is larger (Burda et al. 2016, section 5.2)."""

_CHUNK_ELEMENTS = {"cpu": 2**22}  # numbers of the size of the data that are held at once
_CHUNK_ELEMENTS_ELSEWHERE = 2**27

# the rows of the table of `measure`, each followed by its standard error
_NAMES = ("bound", "iwae_bound", "log_evidence", "reconstruction", "kl")


def evaluate(options: Evaluate) -> dict[str, Any]:
    """Estimate the bounds and log p(x) on the test images."""
    num_samples, iwae_samples, folder = options.num_samples, options.iwae_samples, options.folder
    if num_samples % iwae_samples or num_samples < 2 * iwae_samples:
        raise ValueError(
            f"--num-samples must be a multiple of --iwae-samples, at least twice it, got {num_samples} "
            f"and {iwae_samples}"
        )
    if options.per_image is not None and options.per_image.suffix != ".csv":
        raise ValueError(f"--per-image must end with .csv, got {str(options.per_image)!r}")
    saved = run_folder.open_model(folder)
    where = device(options.device)
    data, x = test_images(saved, options.seed)
    x = x[: options.images]
    start = time.perf_counter()
    table, means = measure(
        saved.model.to(where),
        x.to(where),
        num_samples=num_samples,
        iwae_samples=iwae_samples,
        seed=options.seed,
        progress=True,
    )
    result = summarize(table, num_samples=num_samples, iwae_samples=iwae_samples)
    bad = [name for name in _NAMES if not math.isfinite(result[name]["value"])]
    if bad:
        raise FloatingPointError(
            f"{', '.join(bad)} of {quoted(folder)} is NaN or infinite on the test images: the model is no longer usable"
        )
    active = active_units(means)
    if options.per_image is not None:
        write_per_image(options.per_image, table, data.test_labels[: len(x)])
    text = report(options, saved, result, len(x), active, means.shape[1])
    return {
        "text": text,
        "folder": str(folder),
        "dataset": saved.dataset,
        "images": len(x),
        "binarize": saved.binarize,
        "seed": options.seed,
        **result,
        "active_units": active,
        "latent_dim": means.shape[1],
        "seconds": time.perf_counter() - start,
        "versions": versions(),
    }


def report(
    options: Evaluate, saved: Saved, result: dict[str, Any], images: int, active: int | None, latent_dim: int
) -> str:
    """The lines that the command prints: a table of the five quantities, and what was written."""
    how = "" if saved.binarize == "none" else f", {saved.binarize} binarization"
    lines = [
        f"{quoted(options.folder)}: {saved.dataset}, {images} test image{'s' * (images > 1)}{how}, seed {options.seed}",
        f"{'nats per image':<26}{'':>12}{'± draws':>10}{'± images':>10}",
    ]
    rows = (
        "bound (ELBO)",
        f"IWAE bound, K = {options.iwae_samples}",
        f"log p(x), {options.num_samples} draws",
        "reconstruction",
        "KL divergence",
    )
    for title, name in zip(rows, _NAMES, strict=True):
        row = result[name]
        errors = "".join(
            f"{'' if row[key] is None else format(row[key], '.3f'):>10}"
            for key in ("standard_error", "standard_error_images")
        )
        lines.append(f"{title:<26}{row['value']:>12.3f}{errors}")
    if active is not None:
        lines.append(f"active units: {active} of {latent_dim}, with a variance of E[z|x] above {ACTIVE}")
    if options.per_image is not None:
        lines.append(f"wrote {quoted(options.per_image)}")
    return "\n".join(lines)


def test_images(saved: Saved, seed: int) -> tuple[ImageData, Tensor]:
    """The data, and the test images binarized as in training, with their own random numbers."""
    data = open_data(saved.dataset, saved.reading)
    if data.test.shape[1] != saved.model.data_dim:
        raise ValueError(
            f"{saved.dataset} has changed: its rows have {data.test.shape[1]} numbers, the model was trained on "
            f"{saved.model.data_dim}"
        )
    if saved.binarize == "none":
        return data, data.test
    return data, binarize(data.test, saved.binarize, generator=torch.Generator().manual_seed(seed))


def measure(
    model: Any, x: Tensor, *, num_samples: int, iwae_samples: int, seed: int, progress: bool
) -> tuple[Tensor, Tensor]:
    r"""Five quantities of each of the images x, in nats, with their standard errors over the draws.

    Each image has R = ``num_samples // iwae_samples``, at least two, independent values of the bound of
    K = ``iwae_samples`` draws. Their mean is the IWAE bound, and the logarithm of the mean of their exponentials is the
    estimate of log p(x) from R K draws: one pass for both. The lower bound (ELBO), its reconstruction and its
    divergence are the means of R values of `vaetut.elbo_terms`.

    Returns:
        float64 ``[10, N]``, the values and errors in the order of ``_NAMES``; and the posterior means, ``[N, latent]``.
    """
    repeats = num_samples // iwae_samples
    elements = _CHUNK_ELEMENTS.get(x.device.type, _CHUNK_ELEMENTS_ELSEWHERE)
    batches = x.split(max(1, elements // (iwae_samples * x.shape[1])))
    shown = progress and is_terminal(sys.stderr)
    parts, means = [], []
    with (
        rng.unchanged(x.device),
        tqdm(total=len(x), unit="image", disable=not shown) as bar,
        torch.no_grad(),
        checks(False),
    ):
        torch.manual_seed(seed)
        for batch in batches:
            q = model.encode(batch)
            terms = [elbo_terms(model, q, batch) for _ in range(repeats)]
            reconstruction = torch.stack([term.reconstruction for term in terms])
            kl = torch.stack([term.kl for term in terms])
            block = torch.stack([iwae_bound(model, q, batch, iwae_samples) for _ in range(repeats)])
            rows = [
                *_mean(reconstruction - kl),
                *_mean(block),
                *_log_mean(block),
                *_mean(reconstruction),
                *_mean(kl),
            ]
            parts.append(torch.stack(rows).double().cpu())
            means.append(q.mean.double().cpu())
            bar.update(len(batch))
    return torch.cat(parts, -1), torch.cat(means)


def summarize(table: Tensor, *, num_samples: int, iwae_samples: int) -> dict[str, dict[str, Any]]:
    """The means over the images, with two standard errors.

    Returns:
        For each of ``"bound"``, ``"iwae_bound"``, ``"log_evidence"``, ``"reconstruction"`` and ``"kl"``: ``value``;
        ``standard_error``, over the draws; ``standard_error_images``, over the choice of the images (None for one
        image); ``num_samples``.
    """
    draws = (1, iwae_samples, num_samples // iwae_samples * iwae_samples, 1, 1)
    return {
        name: _over_images(table[2 * i], table[2 * i + 1]) | {"num_samples": draws[i]}
        for i, name in enumerate(_NAMES)
    }


def active_units(means: Tensor) -> int | None:
    """The number of latent dimensions that vary with x, by Burda et al.'s criterion; None for one image.

    Args:
        means: E_q[z] for each x, ``[N, latent]``.

    Example:
        >>> active_units(torch.tensor([[0.0, 1.0, 0.5], [0.0, 3.0, 0.6]]))
        1
    """
    return int((means.var(0) > ACTIVE).sum()) if len(means) > 1 else None


def write_per_image(file: Path, table: Tensor, labels: Tensor) -> None:
    """Write a line for each image: its number, its label, and the five values in nats with their standard errors."""
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = ["image", "label", *(part for name in _NAMES for part in (name, f"{name}_standard_error"))]

    def write(path: Path) -> None:
        with open(path, "w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(columns)
            for i, (label, values) in enumerate(zip(labels.tolist(), table.T.tolist(), strict=True)):
                writer.writerow([i, label if label >= 0 else "", *values])

    atomically(file, write)


def _mean(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard error over the first dimension."""
    return values.mean(0), values.std(0) / math.sqrt(len(values))


def _log_mean(values: Tensor) -> tuple[Tensor, Tensor]:
    """log mean exp over the first dimension, and its standard error by the delta method."""
    log_mean = values.logsumexp(0) - math.log(len(values))
    return log_mean, (values - log_mean).exp().std(0) / math.sqrt(len(values))


def _over_images(values: Tensor, errors: Tensor) -> dict[str, Any]:
    images = len(values)
    return {
        "value": values.mean().item(),
        "standard_error": errors.square().sum().sqrt().item() / images,
        "standard_error_images": values.std().item() / math.sqrt(images) if images > 1 else None,
    }
