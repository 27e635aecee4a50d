"""`explore_decoder`: a decoder with two latent variables that runs inside the page, for any code. Chapters 0 and 11.

The weights are part of the cell's output, and a few lines of JavaScript compute the image while the reader drags
through the plane of codes. It needs no kernel and no frames; 7,000 weights take 28 kB.
"""

import base64
import html
from dataclasses import dataclass, field
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from vaetut.teaching.explore import output
from vaetut.teaching.frames import still
from vaetut.teaching.plots import COLORS, subplots
from vaetut.teaching.vector import Drawings, Sheet

_ACTIVATIONS = {nn.ReLU: "relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid"}
STEP = 0.05


@dataclass(frozen=True, eq=False)
class DecoderExplorer:
    """A plane of codes and the image at one of them, as `explore_decoder` returns it; a notebook shows it.

    Attributes:
        alt: what the picture shows, with ``{z_1}`` and ``{z_2}`` where the code is named.
        start: the code at which it begins.
        limit: the plane reaches from ``-limit`` to ``limit`` in both directions.
        layers: the network as the page reads it.
        image_shape: height and width of the image.
        tiles: the number of images in each direction that cover the plane.
        points: the dots in the plane, in hundredths.
        drawings: what is seen where no script runs.
        still: the same as a PNG file.
    """

    alt: str
    start: tuple[float, float]
    limit: float
    image_shape: tuple[int, int]
    tiles: int
    points: list[list[int]] = field(repr=False)
    layers: list[list[Any]] = field(repr=False)
    drawings: Drawings = field(repr=False)
    still: bytes = field(repr=False)

    def __repr__(self) -> str:
        return f"DecoderExplorer({self.image_shape[0]} x {self.image_shape[1]} pixels, {len(self.layers)} layers)"

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        width, height = self.drawings.size
        bundle = {"text/html": self._repr_html_(), "image/png": self.still, "text/plain": repr(self)}
        return bundle, {"image/png": {"width": width, "height": height}}

    def _repr_html_(self) -> str:
        shown = [f"{value:.2f}".replace("-", "\u2212") for value in self.start]
        text = self.alt.replace("{z_1}", shown[0]).replace("{z_2}", shown[1])
        sliders = "".join(
            f'<div class="vaetut-slider"><label><span>{name}</span> <input type="range" min="{-self.limit:g}" '
            f'max="{self.limit:g}" step="{STEP}" value="{value:g}" aria-valuetext="{label}" autocomplete="off">'
            f"</label>\n<output>{label}</output></div>\n"
            for name, value, label in zip(("z₁", "z₂"), self.start, shown, strict=True)
        )
        body = (
            'role="group" aria-label="Explorer: z₁, z₂" data-lm-suppress-shortcuts="true">\n'
            f'<img src="{self.drawings.address(0)}" alt="{html.escape(text)}" width="{self.drawings.size[0]}" '
            f'height="{self.drawings.size[1]}" decoding="sync">\n'
            f'<div class="vaetut-controls">\n{sliders}</div>\n'
            '<p class="vaetut-static">The sliders move the picture where scripts run: '
            "in the book, or in a notebook after its cell has been run.</p>\n"
            '<div class="vaetut-said" aria-live="polite"></div>\n</div>\n'
        )
        settings = [self.alt, self.limit, self.image_shape, self.tiles]
        return output(body, "decoder.js", settings, [self.points, self.layers])


def explore_decoder(
    decoder: nn.Sequential,
    image_shape: tuple[int, int],
    alt: str,
    *,
    points: Tensor | None = None,
    tiles: int = 0,
    limit: float = 3.0,
    start: tuple[float, float] = (0.0, 0.0),
) -> DecoderExplorer:
    r"""Drag through the plane of codes and see the image that the decoder makes of each, without a kernel.

    The page computes $\mathrm{sigmoid}(\mathrm{decoder}(z))$ itself, in the numbers of the weights given here.

    Args:
        decoder: `torch.nn.Linear` layers with ReLU, tanh or sigmoid between them, from codes ``[2]`` to logits
            ``[height * width]``.
        image_shape: height and width of the image.
        alt: what the picture shows, for those who cannot see it, with ``{z_1}`` and ``{z_2}`` where the code is named.
        points: codes to show as dots in the plane, ``[count, 2]``.
        tiles: if not 0, this many images in each direction cover the plane.
        limit: the plane reaches from ``-limit`` to ``limit`` in both directions.
        start: the code at which it begins.

    Returns:
        A `DecoderExplorer`, which a notebook shows.

    Raises:
        TypeError: if ``decoder`` holds another kind of layer.
        ValueError: if ``decoder`` does not take codes of length 2 or does not give an image of this shape, if
            ``points`` has another shape, if ``alt`` lacks one of its two places, or if ``start`` lies outside.

    Example:
        >>> from torch import nn
        >>> decoder = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 6))
        >>> explore_decoder(decoder, (2, 3), "The image of ({z_1}, {z_2}).")
        DecoderExplorer(2 x 3 pixels, 2 layers)
    """
    layers = _layers(decoder)
    height, width = image_shape
    linear = [module for module in decoder if isinstance(module, nn.Linear)]
    if linear[0].in_features != 2:
        raise ValueError(f"decoder must take codes of length 2, got {linear[0].in_features}")
    if linear[-1].out_features != height * width:
        raise ValueError(
            f"decoder must give {height} x {width} = {height * width} pixels, got {linear[-1].out_features}"
        )
    if "{z_1}" not in alt or "{z_2}" not in alt:
        raise ValueError(f"alt must hold {{z_1}} and {{z_2}}, got {alt!r}")
    if points is not None and (points.ndim != 2 or points.shape[1] != 2):
        raise ValueError(f"points must have shape [count, 2], got {list(points.shape)}")
    if not all(-limit <= value <= limit for value in start):
        raise ValueError(f"start must lie between {-limit:g} and {limit:g}, got {start}")
    inside = [] if points is None else points[(points.abs() <= limit).all(1)].tolist()
    figure = _figure(decoder, (height, width), inside, tiles, limit, start)
    sheet = Sheet()
    sheet.add(figure)
    return DecoderExplorer(
        alt=alt,
        start=(float(start[0]), float(start[1])),
        limit=float(limit),
        image_shape=(height, width),
        tiles=tiles,
        points=[[round(100 * x), round(100 * y)] for x, y in inside],
        layers=layers,
        drawings=sheet.drawings(),
        still=still(figure),
    )


def _layers(decoder: nn.Sequential) -> list[list[Any]]:
    """For each linear layer its width, weight, bias and what follows it; the last is followed by the sigmoid."""
    found: list[list[Any]] = []
    for module in decoder:
        if isinstance(module, nn.Linear):
            bias = torch.zeros(module.out_features) if module.bias is None else module.bias
            found.append([module.out_features, *_packed(module.weight), *_packed(bias), "none"])
        elif found and found[-1][-1] == "none" and type(module) in _ACTIVATIONS:
            found[-1][-1] = _ACTIVATIONS[type(module)]
        else:
            raise TypeError(
                f"decoder must hold Linear layers with ReLU, Tanh or Sigmoid between them, got {type(module).__name__}"
            )
    if not found or found[-1][-1] != "none":
        raise TypeError("decoder must end with a Linear layer, which gives the logits")
    found[-1][-1] = "sigmoid"
    return found


def _packed(value: Tensor) -> tuple[str, float]:
    """A tensor as base64: of bytes with a scale if it holds whole multiples of one, as numbers of 32 bits otherwise."""
    value = value.detach().cpu().double()
    scale = value.abs().max().item() / 127
    numbers = value / scale if scale else value
    if scale and (numbers - numbers.round()).abs().max().item() < 1e-4:
        return base64.b64encode(numbers.round().to(torch.int8).numpy().tobytes()).decode("ascii"), scale
    return base64.b64encode(value.float().numpy().astype("<f4").tobytes()).decode("ascii"), 0


def _figure(
    decoder: nn.Sequential,
    shape: tuple[int, int],
    points: list[list[float]],
    tiles: int,
    limit: float,
    start: tuple[float, float],
) -> Figure:
    """What is seen where no script runs."""
    figure, (left, right) = subplots(columns=2, height=2.7)
    example = next(decoder.parameters())
    with torch.no_grad():
        image = decoder(torch.tensor(start).to(example)).sigmoid().reshape(shape).cpu()
        if tiles:
            middles = limit * ((2 * torch.arange(tiles) + 1) / tiles - 1)
            codes = torch.cartesian_prod(middles.flip(0), middles).flip(1).to(example)
            images = decoder(codes).sigmoid().reshape(tiles, tiles, *shape).cpu()
            mosaic = images.transpose(1, 2).reshape(tiles * shape[0], -1)
            left.imshow(mosaic.numpy(), cmap="gray_r", vmin=0, vmax=1, extent=(-limit, limit, -limit, limit))
    if points:
        left.plot(*zip(*points, strict=True), ".", color="0.6", markersize=4)
    left.plot(*start, "+", color=COLORS["accent"], markersize=16, markeredgewidth=3)
    left.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xlabel="$z_1$", ylabel="$z_2$")
    left.grid(visible=False)
    right.imshow(image.numpy(), cmap="gray_r", vmin=0, vmax=1)
    right.axis("off")
    return figure
