"""A folder of color pictures from the README's commands to pictures of samples and reconstructions."""

import numpy as np
import pytest
import torch
from PIL import Image

from vaetut.cli import main


@pytest.mark.slow
def test_a_folder_of_color_pictures(tmp_path, capsys):
    photos, out = tmp_path / "photos", tmp_path / "run"
    generator = torch.Generator().manual_seed(0)
    for label in ("red", "blue"):
        (photos / label).mkdir(parents=True)
        for n in range(12):
            pixels = torch.randint(0, 80, (10, 8, 3), generator=generator)
            pixels[..., 0 if label == "red" else 2] += 150
            Image.fromarray(pixels.to(torch.uint8).numpy()).save(photos / label / f"{n}.png")

    small = ["--epochs", "2", "--hidden-dim", "8", "--latent-dim", "2", "--image-size", "6"]
    assert main(["train", "--dataset", str(photos), "--out", str(out), *small]) == 0, capsys.readouterr().err
    assert main(["evaluate", str(out), "--num-samples", "100"]) == 0, capsys.readouterr().err
    assert main(["sample", str(out), "--num", "4", "--file", str(tmp_path / "samples.png")]) == 0
    assert main(["plot", str(out)]) == 0, capsys.readouterr().err

    samples = Image.open(tmp_path / "samples.png").convert("RGB")
    colors = torch.tensor(np.array(samples)).reshape(-1, 3).float()
    assert (colors[:, 0] - colors[:, 1]).abs().max() > 20, "the picture is gray"
    assert list(out.glob("*.png"))
