"""Curves stepped together: each padded model's objective, gradient and step are those of the model alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vaetut import VAE, load
from vaetut.experiments import figure2, new_model
from vaetut.experiments.__main__ import main
from vaetut.experiments.batched import Batched
from vaetut.experiments.trainer import fixed_binarization

DIGITS = load("digits")
X = fixed_binarization(DIGITS.train)
KINDS = [("wake-sleep", 4, 0.01), ("AEVB", 2, 0.02), ("AEVB", 3, 0.1), ("wake-sleep", 2, 0.02)]


def batched(x: Tensor = X) -> Batched:
    return Batched(KINDS, x, hidden_dim=20, seed=3)


def by_hand(model: VAE, batch: Tensor, noise: Tensor) -> Tensor:
    """The bound of AEVB at this noise, of a model alone."""
    q = model.encode(batch)
    z = q.base_dist.loc + q.base_dist.scale * noise  # type: ignore[attr-defined]
    kl = torch.distributions.kl_divergence(q, model.prior)
    return (model.likelihood(z).log_prob(batch) - kl).mean()


def test_the_models_begin_as_those_alone() -> None:
    models = batched()
    for k, (_, latent, _) in enumerate(KINDS):
        alone, one = new_model(64, latent, 20, seed=3), models.model(k)
        assert all(map(torch.equal, alone.parameters(), one.parameters()))


def test_the_bound_and_its_gradient_and_step_are_those_of_a_model_alone() -> None:
    models, batch = batched(), X[:100]
    torch.manual_seed(1)
    noise = torch.randn(len(KINDS), 100, models.width)
    rows = {1: 0, 2: 1}  # the two of AEVB come first
    values = models.objectives(batch, noise)
    models.objectives = lambda batch, given=None: type(models).objectives(models, batch, noise)  # type: ignore
    for _ in range(3):
        models.step(batch)
    for k, row in rows.items():
        _, latent, rate = KINDS[k]
        alone = new_model(64, latent, 20, seed=3)
        torch.testing.assert_close(by_hand(alone, batch, noise[row, :, :latent]), values[row])
        optimizer = torch.optim.Adagrad(alone.parameters(), lr=rate, weight_decay=1 / len(X))
        for _ in range(3):
            optimizer.zero_grad()
            (-by_hand(alone, batch, noise[row, :, :latent])).backward()
            optimizer.step()
        for one, other in zip(alone.parameters(), models.model(k).parameters(), strict=True):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_wake_sleep_on_average_is_that_of_a_model_alone() -> None:
    """Both phases, over many draws: against the tested `wake_sleep`, within five standard errors."""
    from vaetut.experiments import wake_sleep

    models = batched()
    batch = X[:1].expand(20_000, 64)
    with torch.no_grad():
        found = models.objectives(batch)[2:]
        for value, k in zip(found, (0, 3), strict=True):
            torch.manual_seed(2)
            wake, sleep = wake_sleep(models.model(k), batch)
            error = ((wake.var() + sleep.var()) * 2 / len(batch)).sqrt()
            assert abs(value - wake.mean() - sleep.mean()) < 5 * error


def test_the_padding_stays_zero_and_each_method_teaches_its_networks() -> None:
    models = batched()
    models.advance(2000)
    for k, row in zip(models.order, range(4), strict=True):
        latent = KINDS[k][1]
        for half in models.parameters["encoder.2.weight"][row].chunk(2):
            assert (half[latent:] == 0).all() and (half[:latent] != 0).all()
        weight = models.parameters["decoder.0.weight"][row]
        assert (weight[:, latent:] == 0).all() and (weight[:, :latent] != 0).all()


def test_it_goes_on_to_the_bit() -> None:
    whole, first, second = batched(DIGITS.train), batched(DIGITS.train), batched(DIGITS.train)
    whole.advance(3000)
    first.advance(1700)  # in the second epoch
    second.load_state_dict(first.state_dict())
    second.advance(3000)
    for name, value in whole.parameters.items():
        assert torch.equal(value, second.parameters[name])


def test_figure_2_together_learns_and_can_be_continued(tmp_path: Path) -> None:
    small: dict[str, Any] = {"latent_dims": [2, 3], "hidden_dim": 20, "trial_samples": 5000, "together": True}
    whole = figure2.run("digits", samples=30_000, **small)
    figure2.run("digits", samples=14_700, state_dir=tmp_path, **small)
    pieces = figure2.run("digits", samples=30_000, state_dir=tmp_path, **small)
    assert whole["together"] == 4 and whole["device"] == "cpu"
    for one, other in zip(whole["curves"], pieces["curves"], strict=True):
        assert one["trials"] == other["trials"] and one["points"][0]["test"] == other["points"][0]["test"]
        assert other["points"][-1]["samples"] == 30_000
        assert other["points"][-1]["test"] > other["points"][0]["test"] > -60
    with pytest.raises(ValueError, match="hidden_dim"):
        figure2.run("digits", samples=30_000, state_dir=tmp_path, **small | {"hidden_dim": 21})


def test_the_command_line_steps_them_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["figure2", "--data", "digits", "--samples", "1e4", "--trial-samples", "500", "--together"]
    assert main([*command, "--results", str(tmp_path)]) == 0
    assert "figure2-digits.json" in capsys.readouterr().out
    assert (tmp_path / "state" / "figure2-digits-together.pt").exists()
    assert "--together" in (tmp_path / "figure2-digits.json").read_text(encoding="utf-8")


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="one minibatch"):
        batched(X[:50])


def test_a_device_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ["gpu"] if torch.cuda.is_available() else ["gpu", "cuda"]
    for device in wrong:
        assert main(["figure2", "--data", "digits", "--samples", "1e4", "--device", device]) == 1
        assert "device must be one" in capsys.readouterr().err
