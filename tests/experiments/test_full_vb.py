"""Full variational Bayes: the divergence of the weights against torch, and the bound where it is known."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from vaetut import load, sgvb_b
from vaetut.experiments import new_model
from vaetut.experiments.full_vb import WeightPosterior, bound_given_weights, evaluate, fit, run
from vaetut.experiments.trainer import fixed_binarization

DIGITS = load("digits")


def test_the_divergence_of_the_weights_is_that_of_torch() -> None:
    posterior = WeightPosterior(nn.Linear(3, 4), scale=0.3)
    nn.init.normal_(posterior.log_scales[0])
    expected = sum(
        kl_divergence(Normal(mean, scale.exp()), Normal(0.0, 1.0)).sum()
        for mean, scale in zip(posterior.means, posterior.log_scales, strict=True)
    )
    torch.testing.assert_close(posterior.kl(), expected)


def test_draws_of_the_weights_have_their_means_and_deviations() -> None:
    posterior = WeightPosterior(nn.Linear(1, 1), scale=0.5)
    draws = torch.stack([posterior.rsample()["weight"].detach() for _ in range(20_000)])
    assert abs(draws.mean() - posterior.means[0]) < 5 * 0.5 / len(draws) ** 0.5
    assert abs(draws.std() - 0.5) < 5 * 0.5 / (2 * len(draws)) ** 0.5


def test_with_the_models_own_weights_the_bound_is_sgvb_b() -> None:
    model, x = new_model(64, 2, 20, seed=0), fixed_binarization(DIGITS.test[:30])
    torch.manual_seed(3)
    expected = sgvb_b(model, model.encode(x), x)
    torch.manual_seed(3)
    torch.testing.assert_close(
        bound_given_weights(model, dict(model.decoder.named_parameters()), x), expected
    )


@pytest.mark.parametrize("criterion", ["MAP", "full VB"])
def test_the_objective_rises(criterion: str) -> None:
    x = DIGITS.train[:200]
    options = {"latent_dim": 2, "hidden_dim": 10}
    seen = fixed_binarization(x)
    early, late = (fit(x, criterion, samples=samples, **options) for samples in (100, 40_000))  # type: ignore
    assert evaluate(*late, seen, 0) > evaluate(*early, seen, 0) + 2


def test_only_full_vb_learns_the_deviations() -> None:
    for criterion, moved in (("MAP", False), ("full VB", True)):
        _, posterior = fit(DIGITS.train[:100], criterion, latent_dim=2, hidden_dim=5, samples=500)
        start = WeightPosterior(new_model(64, 2, 5, seed=0).decoder)
        assert torch.equal(posterior.log_scales[0], start.log_scales[0]) != moved


def test_the_results_file(tmp_path: Path) -> None:
    made = run(samples=1000, train_sizes=[100], hidden_dim=5, draws=2, results_dir=tmp_path)
    read = json.loads((tmp_path / "full-vb.json").read_text(encoding="utf-8"))
    assert read == json.loads(json.dumps(made)) and len(read["runs"]) == 2
    assert read["runs"][1].keys() >= {"train_drawn", "test_drawn", "kl_weights", "weights_at_prior"}


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="criterion must be one of 'MAP', 'full VB'"):
        fit(DIGITS.train, "ML", latent_dim=2, hidden_dim=5, samples=100)
    with pytest.raises(ValueError, match="one minibatch"):
        fit(DIGITS.train[:50], "MAP", latent_dim=2, hidden_dim=5, samples=100)
