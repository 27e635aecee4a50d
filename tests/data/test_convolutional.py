"""A convolutional VAE of one's own, with batch normalization, as the documentation shows it."""

import torch
from torch import nn
from torch.distributions import Bernoulli, Independent, Normal

from vaetut import load, sgvb_b, train
from vaetut.data import binarize


class ConvolutionalVAE(nn.Module):
    """8 x 8 pixels to ``latent_dim`` numbers and back; all that `vaetut.train` asks for is the last three methods."""

    def __init__(self, latent_dim=2, channels=8):
        super().__init__()
        self.latent_dim = latent_dim
        self.encoder = nn.Sequential(
            nn.Unflatten(-1, (1, 8, 8)),
            nn.Conv2d(1, channels, 3, stride=2, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(channels * 16, 2 * latent_dim),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, channels * 16),
            nn.Unflatten(-1, (channels, 4, 4)),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.ConvTranspose2d(channels, 1, 4, stride=2, padding=1),
            nn.Flatten(),
        )

    @property
    def prior(self):
        zeros = self.encoder[-1].weight.new_zeros(self.latent_dim)
        return Independent(Normal(zeros, zeros + 1), 1)

    def encode(self, x):
        mean, log_variance = self.encoder(x).chunk(2, -1)
        return Independent(Normal(mean, (0.5 * log_variance).exp()), 1)

    def likelihood(self, z):  # z [num_samples, batch, latent]: convolutions take one batch dimension
        logits = self.decoder(z.flatten(0, -2)).view(*z.shape[:-1], 64)
        return Independent(Bernoulli(logits=logits), 1, validate_args=False)


def parameters(model):
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def test_it_trains_and_resumes_to_the_bit(tmp_path):
    data = load("digits")

    def new():
        torch.manual_seed(0)
        return ConvolutionalVAE()

    whole, parts = new(), new()
    options = {"learning_rate": 0.01, "batch_size": 499, "checkpoint": tmp_path / "run.pt"}  # 1497 = 3 x 499
    history = train(whole, data, epochs=3, **options | {"checkpoint": None})
    assert history.validation[-1] > history.validation[0] + 0.5
    train(parts, data, epochs=1, **options)
    train(parts, data, epochs=3, resume=True, **options)
    assert torch.equal(parameters(whole), parameters(parts))  # the running statistics, too
    whole.eval()
    x = binarize(data.test)
    with torch.no_grad():
        assert sgvb_b(whole, whole.encode(x), x).shape == (300,)


def test_a_last_batch_of_one_is_left_out():
    """Batch normalization needs more than one image."""
    torch.manual_seed(0)
    x = torch.rand(21, 64)
    history = train(ConvolutionalVAE(), x, epochs=1, batch_size=10, drop_last=True)
    assert len(history.train) == 1
