"""Wake-sleep: which parameters each phase teaches, and what it raises on average, exactly."""

import math

import pytest
import torch
from torch import Tensor

from vaetut import VAE, expectation, integrate
from vaetut.experiments import wake_sleep

NUM = 100_000


def tiny() -> VAE:
    torch.manual_seed(0)
    model = VAE(data_dim=3, latent_dim=1, hidden_dim=4).double()
    for parameter in model.parameters():
        parameter.data *= 3
    return model


IMAGES = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)  # all eight


def test_each_phase_teaches_one_network() -> None:
    model = tiny()
    wake, sleep = wake_sleep(model, IMAGES)
    for objective, taught, untaught in (
        (wake, model.decoder, model.encoder),
        (sleep, model.encoder, model.decoder),
    ):
        model.zero_grad()
        objective.mean().backward()
        assert all(parameter.grad is not None for parameter in taught.parameters())
        assert all(parameter.grad is None for parameter in untaught.parameters())


@torch.no_grad()
def test_the_wake_phase_on_average() -> None:
    model, x = tiny(), IMAGES[3:4]

    def log_joint(z: Tensor) -> Tensor:
        return model.likelihood(z).log_prob(x) + model.prior.log_prob(z)

    exact = expectation(log_joint, model.encode(x), num_points=100)
    wake = wake_sleep(model, x.expand(NUM, 3)).wake
    error = wake.std() / math.sqrt(NUM)
    assert abs(wake.mean() - exact) < 5 * error


@torch.no_grad()
def test_the_sleep_phase_on_average() -> None:
    model = tiny()

    def of_dreams(z: Tensor, images: Tensor) -> Tensor:  # sum over images of p(x, z) log q(z|x)
        z = z[:, None, None]
        joint = model.likelihood(z).log_prob(images) + model.prior.log_prob(z)
        return (joint.exp() * model.encode(images).log_prob(z)).sum(-1)

    exact = integrate(lambda z: of_dreams(z, IMAGES), -10, 10)
    sleep = wake_sleep(model, IMAGES[:1], num_dreams=NUM).sleep
    error = sleep.std() / math.sqrt(NUM)
    assert abs(sleep.mean() - exact) < 5 * error

    # the wrong variant: dreams whose pixels are shades of gray, and not black or white
    z = model.prior.sample((NUM,))
    gray = model.encode(model.likelihood(z).mean).log_prob(z)
    assert abs(gray.mean() - exact) > 7 * error


def test_a_gaussian_decoder_dreams_too() -> None:
    torch.manual_seed(0)
    model = VAE(data_dim=3, latent_dim=2, hidden_dim=4, likelihood="gaussian")
    assert wake_sleep(model, torch.randn(5, 3), num_dreams=7).sleep.shape == (7,)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="num_dreams"):
        wake_sleep(tiny(), IMAGES, num_dreams=0)
    with pytest.raises(ValueError, match="x must"):
        wake_sleep(tiny(), IMAGES[:, :2])
