"""`vaetut evaluate`, `sample` and `plot`: what is done with a trained model."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal

from vaetut._support import files
from vaetut.aevb import History
from vaetut.cli import evaluation, run_folder
from vaetut.cli.run_folder import HISTORY, Saved, versions
from vaetut.data import binarize, load
from vaetut.teaching import plots

Options = dict[str, Any]


def evaluate(options: Options) -> Options:
    """Estimate the bounds and log p(x) on the test images."""
    num_samples, iwae_samples = options["num_samples"], options["iwae_samples"]
    if num_samples % iwae_samples or num_samples < 2 * iwae_samples:
        raise ValueError(
            f"--num-samples must be a multiple of --iwae-samples, at least twice it, got {num_samples} "
            f"and {iwae_samples}"
        )
    saved = run_folder.load_model(options["folder"])
    x = _test_images(saved, options["seed"])[: options["images"]]
    device = _device(options["device"])
    start = time.perf_counter()
    result = evaluation.evaluate(
        saved.model.to(device),
        x.to(device),
        num_samples=num_samples,
        iwae_samples=iwae_samples,
        seed=options["seed"],
        progress=True,
    )
    how = "" if saved.binarize == "none" else f", {saved.binarize} binarization"
    lines = [
        f"{options['folder']}: {saved.dataset}, {len(x)} test images{how}, seed {options['seed']}",
        f"{'nats per image':<26}{'':>12}{'± draws':>10}{'± images':>10}",
    ]
    rows = ("bound (ELBO)", f"IWAE bound, K = {iwae_samples}", f"log p(x), {num_samples} draws")
    for name, row in zip(rows, result.values(), strict=True):
        errors = "".join(
            f"{'' if row[key] is None else format(row[key], '.3f'):>10}"
            for key in ("standard_error", "standard_error_images")
        )
        lines.append(f"{name:<26}{row['value']:>12.3f}{errors}")
    return {
        "text": "\n".join(lines),
        "folder": str(options["folder"]),
        "dataset": saved.dataset,
        "images": len(x),
        "binarize": saved.binarize,
        "seed": options["seed"],
        **result,
        "seconds": time.perf_counter() - start,
        "versions": versions(),
    }


def sample(options: Options) -> Options:
    """Decode draws from the prior, or an even grid of its quantiles."""
    saved = run_folder.load_model(options["folder"])
    file = options["file"] or options["folder"] / ("manifold.png" if options["manifold"] else "samples.png")
    if file.suffix not in (".png", ".pt"):
        raise ValueError(f"--file must end with .png or .pt, got {str(file)!r}")
    number = options["num"]
    if options["manifold"]:
        if saved.model.latent_dim != 2:
            raise ValueError(
                f"--manifold needs two latent dimensions, this model has {saved.model.latent_dim}"
            )
        side = max(2, round(number**0.5))
        number = side * side
        quantiles = (torch.arange(side) + 0.5) / side
        ticks = Normal(0.0, 1.0).icdf(quantiles)
        z = torch.cartesian_prod(ticks.flip(0), ticks).flip(
            1
        )  # the first coordinate to the right, the second up
    else:
        z = torch.randn(
            number, saved.model.latent_dim, generator=torch.Generator().manual_seed(options["seed"])
        )
    with torch.no_grad():
        images = saved.model.likelihood(z).mean
    if file.suffix == ".pt":
        files.atomically(_ready(file), lambda path: torch.save(images.clone(), path))
    else:
        columns = side if options["manifold"] else min(number, max(10, round(number**0.5)))
        _save(plots.image_grid(images.clamp(0, 1), saved.image_shape, columns=columns), file)
    return {"text": f"wrote {file}", "file": str(file), "images": number, "seed": options["seed"]}


def plot(options: Options) -> Options:
    """Draw the learning curve, reconstructions of test images, and the latent plane if there is one."""
    folder = options["folder"]
    target = options["to"] or folder
    saved = run_folder.load_model(folder)
    curves = run_folder.read_json(folder / HISTORY)
    history = History(train=curves["train"], validation=curves["validation"])
    x = _test_images(saved, options["seed"])
    with torch.no_grad():
        mean = saved.model.encode(x).mean
        reconstructed = saved.model.likelihood(mean[:10]).mean.clamp(0, 1)
    figures = {
        "learning-curve": history.plot(),
        "reconstructions": plots.image_grid(
            torch.cat([x[:10], reconstructed]), saved.image_shape, columns=10, rows=["x", "decoded"]
        ),
    }
    if saved.model.latent_dim == 2:
        figures["latent-plane"] = plots.latent_plane(mean, load(saved.dataset).test_labels)
    files = [target / f"{name}.png" for name in figures]
    for file, figure in zip(files, figures.values(), strict=True):
        _save(figure, file)
    return {"text": "\n".join(f"wrote {file}" for file in files), "files": [str(file) for file in files]}


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"--device must be auto or a device of this machine, got {name!r} ({reason})"
        ) from None
    return device


def _test_images(saved: Saved, seed: int) -> Tensor:
    """The test images, treated as in training, with random numbers of their own."""
    x = load(saved.dataset).test
    if saved.binarize == "none":
        return x
    return binarize(x, saved.binarize, generator=torch.Generator().manual_seed(seed))


def _ready(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def _save(figure: Any, file: Path) -> None:
    def write(path: Path) -> None:
        figure.savefig(path, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})

    files.atomically(_ready(file), write)
