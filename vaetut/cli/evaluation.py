"""How good a trained model is: its bound, its importance-weighted bound and its log p(x), from the same draws."""

import math
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from vaetut._support.validate import checks
from vaetut.bounds import iwae_bound, sgvb_b
from vaetut.models import VAE

_CHUNK_ELEMENTS = {"cpu": 2**22}  # numbers of the data's shape held at once
_CHUNK_ELEMENTS_ELSEWHERE = 2**27


def evaluate(
    model: VAE, x: Tensor, *, num_samples: int, iwae_samples: int, seed: int, progress: bool
) -> dict[str, dict[str, Any]]:
    r"""The mean over the images x of three quantities, in nats per image.

    With R = ``num_samples // iwae_samples`` independent values of the bound of K = ``iwae_samples`` draws for each
    image, two at least, their mean is the IWAE bound, and the logarithm of the mean of their exponentials is log p(x)
    from R K draws: one pass for both. The lower bound (ELBO) is the mean of R values of `vaetut.sgvb_b`.

    Returns:
        For each of ``"bound"``, ``"iwae_bound"`` and ``"log_evidence"``: ``value``; ``standard_error``, which the draws
        leave in it; ``standard_error_images``, which the choice of the images does (None for one image);
        ``num_samples``.
    """
    repeats = num_samples // iwae_samples
    elements = _CHUNK_ELEMENTS.get(x.device.type, _CHUNK_ELEMENTS_ELSEWHERE)
    batches = x.split(max(1, elements // (iwae_samples * x.shape[1])))
    bar = tqdm(total=len(x), unit="image", disable=None if progress else True)
    parts = []
    with (
        torch.random.fork_rng([x.device] if x.device.type == "cuda" else []),
        bar,
        torch.no_grad(),
        checks(False),
    ):
        torch.manual_seed(seed)
        for batch in batches:
            q = model.encode(batch)
            bound = torch.stack([sgvb_b(model, q, batch) for _ in range(repeats)])
            block = torch.stack([iwae_bound(model, q, batch, iwae_samples) for _ in range(repeats)])
            parts.append(torch.stack([*_mean(bound), *_mean(block), *_log_mean(block)]).double().cpu())
            bar.update(len(batch))
    table = torch.cat(parts, -1)  # [6, images]
    names, draws = ("bound", "iwae_bound", "log_evidence"), (1, iwae_samples, repeats * iwae_samples)
    return {
        name: _over_images(table[2 * i], table[2 * i + 1]) | {"num_samples": draws[i]}
        for i, name in enumerate(names)
    }


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
