"""Monte Carlo EM: it raises the likelihood with the decoder alone, and goes on to the bit."""

import pytest
import torch

from vaetut import load
from vaetut.experiments import MonteCarloEM, marginal_likelihood, new_model
from vaetut.experiments.trainer import fixed_binarization


def start(rate: float = 0.05) -> MonteCarloEM:
    x = fixed_binarization(load("digits").train[:300])
    return MonteCarloEM(new_model(64, 2, 30, seed=0), x, learning_rate=rate)


def test_the_likelihood_rises_and_the_acceptance_is_tuned() -> None:
    trainer = start()
    encoder = [parameter.clone() for parameter in trainer.model.encoder.parameters()]
    torch.manual_seed(0)
    before = marginal_likelihood(trainer.model, trainer.x[:50]).value.mean()
    trainer.advance(60_000)
    after = marginal_likelihood(trainer.model, trainer.x[:50]).value.mean()
    assert after > before + 10
    assert 0.7 < trainer.acceptance <= 1
    assert trainer.samples == 60_000 and trainer.visits == 120  # five updates for each
    assert all(map(torch.equal, encoder, trainer.model.encoder.parameters()))


def test_it_goes_on_to_the_bit() -> None:
    whole, first, second = start(), start(), start()
    whole.advance(6000)
    first.advance(2000)
    second.load_state_dict(first.state_dict())
    second.advance(6000)
    assert torch.equal(whole.z, second.z) and torch.equal(whole.step_size, second.step_size)
    assert all(map(torch.equal, whole.model.parameters(), second.model.parameters()))


def test_gray_images_are_refused() -> None:
    with pytest.raises(ValueError, match="black and white"):
        MonteCarloEM(new_model(64, 2, 30, seed=0), load("digits").train, learning_rate=0.1)
