"""A decoder of MNIST with two latent variables, small enough to be part of the package: the pictures of chapter 0.

    python -m vaetut.experiments.plane mnist-plane.json      train it again: a quarter of an hour on one core

The decoder has two hidden layers of 100 units, 90,000 weights in all. They are stored as one byte each with a scale
for each tensor, which changes a pixel's probability by less than is visible.
"""

import argparse
import base64
import itertools
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from vaetut._support.files import packaged_json
from vaetut.aevb import rng
from vaetut.data import ImageData, load

WIDTHS = (2, 100, 100, 784)
IMAGE_SHAPE = (28, 28)
FILE = "mnist-plane.json"


def mnist_decoder() -> tuple[nn.Sequential, tuple[int, int]]:
    """The trained decoder, from codes ``[..., 2]`` to the logits of pixels ``[..., 784]``, and the shape of an image.

    Its weights have torch's default dtype and require no gradient. The prior of the codes is a standard normal.

    Example:
        >>> decoder, shape = mnist_decoder()
        >>> decoder(torch.zeros(5, 2)).shape, shape
        (torch.Size([5, 784]), (28, 28))
    """
    decoder = network(WIDTHS)
    decoder.load_state_dict(unpack(packaged_json("vaetut.experiments", FILE)))
    return decoder.requires_grad_(False), IMAGE_SHAPE


def network(widths: tuple[int, ...]) -> nn.Sequential:
    """Linear layers of these widths, with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def pack(decoder: nn.Sequential) -> dict[str, Any]:
    """The parameters as bytes: each tensor as integers from -127 to 127, times a scale."""
    packed = {}
    for name, value in decoder.state_dict().items():
        scale = value.abs().max().item() / 127
        numbers = (value / scale).round().to(torch.int8)
        packed[name] = {
            "shape": list(value.shape),
            "scale": scale,
            "int8": base64.b64encode(numbers.numpy().tobytes()).decode("ascii"),
        }
    return packed


def unpack(packed: dict[str, Any]) -> dict[str, Tensor]:
    """The parameters from `pack`, in torch's default dtype."""
    dtype = torch.get_default_dtype()
    return {
        name: torch.frombuffer(bytearray(base64.b64decode(part["int8"])), dtype=torch.int8)
        .reshape(part["shape"])
        .to(dtype)
        * part["scale"]
        for name, part in packed["parameters"].items()
    }


def bound(encoder: nn.Module, decoder: nn.Module, x: Tensor) -> Tensor:
    """The lower bound of each image with one draw of its code, in nats: ``[batch]``."""
    mean, log_variance = encoder(x).chunk(2, -1)
    z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
    log_p = -binary_cross_entropy_with_logits(decoder(z), x, reduction="none").sum(-1)
    return log_p - 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(-1)


def fit(data: ImageData, epochs: int = 150, batch_size: int = 200, seed: int = 0) -> dict[str, Any]:
    """Train encoder and decoder on images drawn again from the gray values in each epoch; return the file's content."""
    with rng.seeded(seed):
        encoder, decoder = network((784, 300, 100, 4)), network(WIDTHS)
        optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-3)
        steps = epochs * -(-len(data.train) // batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(epochs):
            for index in torch.randperm(len(data.train)).split(batch_size):
                loss = -bound(encoder, decoder, torch.bernoulli(data.train[index])).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        with torch.no_grad():
            test = bound(encoder, decoder, torch.bernoulli(data.test)).mean().item()
    return {"widths": WIDTHS, "epochs": epochs, "test_bound": round(test, 2), "parameters": pack(decoder)}


def main() -> None:
    """Train the decoder, and write its file."""
    parser = argparse.ArgumentParser(
        prog="python -m vaetut.experiments.plane", description=__doc__.partition("\n")[0] if __doc__ else None
    )
    parser.add_argument("file", type=Path, help="where to write the weights, as JSON")
    parser.add_argument("--epochs", type=int, default=150, help="default: %(default)s")
    options = parser.parse_args()
    options.file.write_text(json.dumps(fit(load("mnist"), options.epochs)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
