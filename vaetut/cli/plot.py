"""`vaetut plot`: the learning curve, reconstructions of test images, and the latent plane if there is one."""

from typing import Any

import torch

from vaetut.aevb import History
from vaetut.cli import run_folder
from vaetut.cli.evaluate import test_images
from vaetut.cli.lock import quoted
from vaetut.cli.options import Plot
from vaetut.cli.sample import save_figure


def plot(options: Plot) -> dict[str, Any]:
    """Draw the pictures of a run."""
    from vaetut.teaching import plots

    folder = options.folder
    target = options.to or folder
    saved = run_folder.open_model(folder)
    history = History(**run_folder.read_history(folder))
    data, x = test_images(saved, options.seed)
    with torch.no_grad():
        mean = saved.model.encode(x).mean
        reconstructed = saved.model.likelihood(mean[:10]).mean.clamp(0, 1)
    figures = {"learning-curve": history.plot()}
    if saved.image_shape is not None and len(saved.image_shape) > 1:
        first = x[:10]
        figures["reconstructions"] = plots.image_grid(
            torch.cat([first, reconstructed]), saved.image_shape, columns=len(first), rows=["x", "decoded"]
        )
    if saved.model.latent_dim == 2:
        figures["latent-plane"] = plots.latent_plane(mean, data.test_labels.clamp_min(0))
    files = [target / f"{name}.png" for name in figures]
    for file, figure in zip(files, figures.values(), strict=True):
        save_figure(figure, file)
    return {
        "text": "\n".join(f"wrote {quoted(file)}" for file in files),
        "files": [str(file) for file in files],
    }
