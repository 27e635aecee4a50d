"""The loop behind the curves."""

import math

import pytest
import torch
from torch import Tensor

from vaetut import VAE, load, sgvb_b
from vaetut.experiments import Trainer, mean_bound, new_model
from vaetut.experiments.trainer import (
    LEARNING_RATES,
    OBJECTIVES,
    aevb_objective,
    fixed_binarization,
    pick_learning_rate,
)

DIGITS = load("digits")


def start(method: str = "AEVB", rate: float = 0.05, seed: int = 0) -> Trainer:
    model = new_model(64, 2, 20, seed=seed)
    return Trainer(model, DIGITS.train, OBJECTIVES[method], learning_rate=rate, seed=seed)


@pytest.mark.parametrize("method", OBJECTIVES)
def test_it_goes_on_to_the_bit_and_leaves_global_randomness_alone(method: str) -> None:
    whole, first, second = start(method), start(method), start(method)
    whole.advance(4000)
    first.advance(1700)  # in the middle of the second epoch
    torch.manual_seed(5)
    before = torch.get_rng_state()
    second.load_state_dict(first.state_dict())
    second.advance(4000)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(torch.equal, whole.model.parameters(), second.model.parameters()))
    assert second.samples == 4000


@pytest.mark.parametrize("method", OBJECTIVES)
def test_the_bound_rises(method: str) -> None:
    x = fixed_binarization(DIGITS.test)
    trainer = start(method)
    trainer.advance(1000)
    early = mean_bound(trainer.model, x)
    trainer.advance(30_000)
    assert mean_bound(trainer.model, x) > early + 2


def test_an_epoch_visits_each_image_at_most_once() -> None:
    seen: list[Tensor] = []
    trainer = start()
    trainer.step = lambda batch, index: (seen.append(index), torch.zeros(()))[1]  # type: ignore[method-assign]
    trainer.advance(2 * 1400)
    first, second = torch.cat(seen[:14]), torch.cat(seen[14:])
    assert len(first.unique()) == len(second.unique()) == 1400
    assert not torch.equal(first, second)


def test_the_first_step_has_the_size_of_the_learning_rate() -> None:
    trainer = start(rate=0.02)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    trainer.advance(100)
    moved = torch.cat(
        [(p - b).abs().flatten() for p, b in zip(trainer.model.parameters(), before, strict=True)]
    )
    torch.testing.assert_close(moved, torch.full_like(moved, 0.02), rtol=1e-2, atol=0)


def test_the_prior_on_the_parameters_is_a_weight_decay_of_one_over_n() -> None:
    trainer = start()
    assert trainer.optimizer.param_groups[0]["weight_decay"] == 1 / len(DIGITS.train)


def test_the_initial_parameters_have_a_variance_of_a_hundredth() -> None:
    values = torch.cat(
        [parameter.detach().flatten() for parameter in new_model(64, 2, 200, seed=1).parameters()]
    )
    assert abs(values.var() - 0.01) < 5 * 0.01 * math.sqrt(2 / len(values))
    assert abs(values.mean()) < 5 * 0.1 / math.sqrt(len(values))


def test_the_aevb_objective_is_the_mean_bound() -> None:
    model, x = new_model(64, 2, 20, seed=0), fixed_binarization(DIGITS.test[:30])
    torch.manual_seed(3)
    bound = sgvb_b(model, model.encode(x), x).mean()
    torch.manual_seed(3)
    assert torch.equal(aevb_objective(model, x), bound)


def test_a_rate_that_diverges_is_not_picked() -> None:
    class Fake:
        def __init__(self, rate: float) -> None:
            self.rate = rate

        def advance(self, samples: int) -> None:
            if self.rate == 0.1:
                raise FloatingPointError

    rate, scores = pick_learning_rate(lambda rate: Fake(rate), lambda fake: fake.rate, 100)  # type: ignore
    assert rate == 0.02 and math.isnan(scores["0.1"]) and len(scores) == len(LEARNING_RATES)


def test_a_diverged_run_says_so() -> None:
    trainer = start()

    def broken(model: VAE, x: Tensor) -> Tensor:
        return model.encode(x).rsample().mean() * math.nan

    trainer.objective = broken
    with pytest.raises(FloatingPointError, match="learning rate"):
        trainer.advance(100)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="one minibatch"):
        Trainer(new_model(64, 2, 20, seed=0), DIGITS.train[:50], aevb_objective, learning_rate=0.1)
