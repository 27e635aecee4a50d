"""`vaetut sample`: images from a trained model."""

from pathlib import Path
from typing import Any

import torch

from vaetut._support.files import atomically
from vaetut.cli import run_folder
from vaetut.cli.lock import quoted
from vaetut.cli.options import Sample
from vaetut.models import grid_of_codes


def sample(options: Sample) -> dict[str, Any]:
    """Decode draws from the prior, or an even grid of its quantiles."""
    saved = run_folder.open_model(options.folder)
    file = options.file or options.folder / ("manifold.png" if options.manifold else "samples.png")
    if file.suffix not in (".png", ".pt"):
        raise ValueError(f"--file must end with .png or .pt, got {str(file)!r}")
    are_images = saved.image_shape is not None and len(saved.image_shape) > 1
    if file.suffix == ".png" and not are_images:
        raise ValueError(
            f"--file must end with .pt: {saved.dataset} has rows of numbers, not images; if they are images, train "
            "with --image-size"
        )
    number, latent_dim = options.num, saved.model.latent_dim
    if options.manifold:
        if latent_dim != 2:
            raise ValueError(f"--manifold needs two latent dimensions, this model has {latent_dim}")
        side = max(2, round(number**0.5))
        number = side * side
        # the first coordinate to the right, the second up
        z = grid_of_codes(side, torch.empty(0)).transpose(0, 1).flip(0).flatten(0, 1)
    else:
        z = torch.randn(number, latent_dim, generator=torch.Generator().manual_seed(options.seed))
    with torch.no_grad():
        images = saved.model.likelihood(z.to(saved.model.prior_loc.dtype)).mean
    if file.suffix == ".pt":
        atomically(ready(file), lambda path: torch.save(images.clone(), path))
    else:
        from vaetut.teaching import plots

        columns = side if options.manifold else min(number, max(10, round(number**0.5)))
        assert saved.image_shape is not None
        save_figure(plots.image_grid(images.clamp(0, 1), saved.image_shape, columns=columns), file)
    return {"text": f"wrote {quoted(file)}", "file": str(file), "images": number, "seed": options.seed}


def ready(file: Path) -> Path:
    """The path; its folder is made if necessary."""
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def save_figure(figure: Any, file: Path) -> None:
    """Write a picture, atomically."""

    def write(path: Path) -> None:
        figure.savefig(path, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})

    atomically(ready(file), write)
