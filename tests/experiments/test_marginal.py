"""The estimate of the marginal likelihood against exact values: a closed form, and quadrature in three dimensions."""

import torch
from torch import Tensor

from vaetut import LinearGaussian, load, log_evidence
from vaetut.experiments import Trainer, marginal_likelihood, new_model
from vaetut.experiments.trainer import aevb_objective, fixed_binarization
from vaetut.models import VAE


def test_in_a_linear_gaussian_model() -> None:
    torch.manual_seed(0)
    model = LinearGaussian(torch.randn(5, 3).double(), torch.randn(5).double(), 0.4)
    x = model.evidence.sample((100,))
    value, error = marginal_likelihood(model, x)
    off = value - model.log_evidence(x)
    assert (off / error).abs().max() < 5 and error.max() < 0.5
    # low by about half the variance on average, which is far less than this
    assert off.mean().abs() < 5 * error.square().mean().sqrt() / 10
    assert 0.5 < (off / error).std() < 2  # the standard error is one


@torch.no_grad()
def quadrature(model: VAE, x: Tensor, points: int = 90, end: float = 5.0) -> Tensor:
    side = torch.linspace(-end, end, points)
    parts = []
    for z in torch.cartesian_prod(side, side, side).split(30_000):
        logits = model.decoder(z)
        log_likelihood = logits @ x.T - torch.nn.functional.softplus(logits).sum(-1, keepdim=True)
        parts.append((log_likelihood + model.prior.log_prob(z).unsqueeze(1)).double().logsumexp(0))
    return torch.stack(parts).logsumexp(0) + 3 * (side[1] - side[0]).double().log()


def test_of_a_trained_decoder_in_three_dimensions() -> None:
    digits = load("digits")
    trainer = Trainer(new_model(64, 3, 50, seed=0), digits.train, aevb_objective, learning_rate=0.1)
    trainer.advance(40_000)
    x = fixed_binarization(digits.test[:50])
    exact = quadrature(trainer.model, x)
    torch.manual_seed(0)
    off = marginal_likelihood(trainer.model, x).value - exact
    assert off.abs().max() < 0.3 and off.mean().abs() < 0.03

    # the wrong variant, as many draws from the prior: far too low
    poor = log_evidence(trainer.model, trainer.model.prior.expand([50]), x, 200).value - exact
    assert poor.abs().max() > 0.5
