"""The loop that most repositories have, in the manner of the VAE among PyTorch's examples.

A DataLoader that shuffles and collates images one by one (from pictures, as there; or from a tensor, which is faster),
two heads, a sigmoid and binary_cross_entropy of its probabilities, the divergence in closed form, Adam as it comes, and
``loss.item()`` at each step.
"""

from typing import Any

import numpy as np
import torch
from networks import elbo
from PIL import Image
from protocol import serve
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset


class Pictures(Dataset[tuple[Tensor, int]]):
    """Bytes that become a picture, and then a tensor, whenever one is asked for, as torchvision's MNIST does."""

    def __init__(self, x: Any) -> None:
        side = int(x.shape[1] ** 0.5)
        self.data = (x * 255).astype(np.uint8).reshape(-1, side, side)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = Image.fromarray(self.data[index])
        pixels = torch.from_numpy(np.array(picture, np.uint8, copy=True))
        return pixels.view(1, *pixels.shape).contiguous().to(torch.float32).div(255), 0


class Model(nn.Module):
    """The network with a linear layer for the mean and another for the log variance."""

    def __init__(self, data_dim: int, hidden_dim: int, latent_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(data_dim, hidden_dim)
        self.mean = nn.Linear(hidden_dim, latent_dim)
        self.log_variance = nn.Linear(hidden_dim, latent_dim)
        self.decoder_hidden = nn.Linear(latent_dim, hidden_dim)
        self.output = nn.Linear(hidden_dim, data_dim)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z|x)."""
        h = torch.tanh(self.hidden(x))
        return self.mean(h), self.log_variance(h)

    def logits(self, z: Tensor) -> Tensor:
        """Of the pixels."""
        logits: Tensor = self.output(torch.tanh(self.decoder_hidden(z)))
        return logits

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The probabilities of the pixels for one draw of z, and what it was drawn with."""
        mean, log_variance = self.encode(x)
        std = torch.exp(0.5 * log_variance)
        z = mean + torch.randn_like(std) * std
        return torch.sigmoid(self.logits(z)), mean, log_variance


def make(x: Any, test: Any, settings: dict[str, Any]) -> tuple[Any, Any]:
    """Build the model and its loader."""
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    model = Model(x.shape[1], settings["hidden_dim"], settings["latent_dim"]).to(settings["device"])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    tensors = TensorDataset(torch.from_numpy(x), torch.zeros(len(x), dtype=torch.int64))
    images: Dataset[Any] = Pictures(x) if settings.get("pictures") else tensors
    loader = DataLoader(images, batch_size=settings["batch_size"], shuffle=True)

    def epoch() -> float:
        model.train()
        total = 0.0
        for pixels, _ in loader:
            batch = pixels.to(settings["device"]).view(len(pixels), -1)
            optimizer.zero_grad()
            probabilities, mean, log_variance = model(batch)
            cross_entropy = nn.functional.binary_cross_entropy(probabilities, batch, reduction="sum")
            kl = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
            # The sum over the batch, as there; Adam does not see the factor.
            loss = cross_entropy + kl
            loss.backward()
            total += loss.item()
            optimizer.step()
        if settings["device"] != "cpu":
            torch.cuda.synchronize()
        return total

    return epoch, lambda: elbo(
        lambda images: torch.cat(model.encode(images), -1),
        model.logits,
        torch.from_numpy(test).to(settings["device"]),
    )


serve(make)
