"""What the peers on torch share: the two networks, and the bound of test images."""

from typing import Any

import torch
from torch import Tensor, nn


def networks(data_dim: int, settings: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    """Encoder, to mean and log variance, and decoder, to logits, with one hidden layer of tanh each."""
    hidden, latent = settings["hidden_dim"], settings["latent_dim"]
    encoder = nn.Sequential(nn.Linear(data_dim, hidden), nn.Tanh(), nn.Linear(hidden, 2 * latent))
    decoder = nn.Sequential(nn.Linear(latent, hidden), nn.Tanh(), nn.Linear(hidden, data_dim))
    return encoder, decoder


@torch.no_grad()
def elbo(encoder: Any, decoder: Any, x: Tensor) -> float:
    """The bound in nats per image, from ten draws, as `vaetut.sgvb_b` has it."""
    mean, log_variance = encoder(x).chunk(2, -1)
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(-1)
    logits = decoder(mean + (0.5 * log_variance).exp() * torch.randn(10, *mean.shape))
    reconstruction = (x * logits - nn.functional.softplus(logits)).sum(-1).mean(0)
    return (reconstruction - kl).mean().item()
