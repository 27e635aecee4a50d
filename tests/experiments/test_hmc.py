"""Hamiltonian Monte Carlo: what holds exactly for a path, and that the draws are from the density."""

import math

import pytest
import torch
from torch import Tensor

from vaetut import LinearGaussian
from vaetut.experiments import adapt, hmc, hmc_step, leapfrog

DOUBLE = torch.float64


def standard(z: Tensor) -> Tensor:
    return -0.5 * z.square().sum(-1)


def banana(z: Tensor) -> Tensor:
    return -0.5 * z[..., 0] ** 2 - 2 * (z[..., 1] - 0.5 * z[..., 0] ** 2) ** 2


def states(seed: int, *shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(*shape, generator=generator, dtype=DOUBLE),
        torch.randn(*shape, generator=generator, dtype=DOUBLE),
    )


def test_a_path_runs_backwards_to_where_it_began() -> None:
    z, r = states(0, 6, 2)
    end, momentum = leapfrog(banana, z, r, 0.2, 7)
    back, back_momentum = leapfrog(banana, end, -momentum, 0.2, 7)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-11)
    torch.testing.assert_close(back_momentum, -r, rtol=0, atol=1e-11)


def euler(z: Tensor, r: Tensor, h: float) -> tuple[Tensor, Tensor]:
    """The wrong variant: both at once, from the same place."""
    slope = torch.func.vmap(torch.func.grad(banana))(z)
    return z + h * r, r + h * slope


@pytest.mark.parametrize("which", ["leapfrog", "euler"])
def test_a_path_preserves_volume(which: str) -> None:
    z, r = states(1, 1, 2)
    start, eps = torch.cat([z, r], dim=-1)[0], 1e-6

    def path(s: Tensor) -> Tensor:
        end = leapfrog(banana, s[..., :2], s[..., 2:], 0.3, 1)
        return torch.cat(end if which == "leapfrog" else euler(s[..., :2], s[..., 2:], 0.3), dim=-1)

    shifts = eps * torch.eye(4, dtype=DOUBLE)
    jacobian = (path(start + shifts) - path(start - shifts)) / (2 * eps)
    determinant = float(torch.linalg.det(jacobian))
    assert (abs(determinant - 1) < 1e-7) == (which == "leapfrog"), determinant


@pytest.mark.parametrize("steps", [1, 10, 57])
def test_the_energy_error_on_a_standard_normal_is_known(steps: int) -> None:
    z, r = states(2, 5, 3)
    h = 0.6
    end, momentum = leapfrog(standard, z, r, h, steps)
    error = standard(z) - standard(end) + 0.5 * (momentum.square() - r.square()).sum(-1)
    expected = h**2 / 8 * (end.square() - z.square()).sum(-1)
    torch.testing.assert_close(error, expected, rtol=0, atol=1e-12)


def test_each_chain_has_its_own_step_size() -> None:
    z, r = states(3, 4, 2)
    sizes = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=DOUBLE)
    together, _ = leapfrog(banana, z, r, sizes, 5)
    for i, size in enumerate(sizes.tolist()):
        torch.testing.assert_close(together[i], leapfrog(banana, z[i], r[i], size, 5)[0], rtol=0, atol=1e-12)


def test_draws_have_the_moments_of_a_known_posterior() -> None:
    torch.manual_seed(0)
    model = LinearGaussian(torch.randn(4, 2, dtype=DOUBLE), torch.zeros(4, dtype=DOUBLE), 0.5)
    x = torch.tensor([0.3, -1.0, 0.4, 0.8], dtype=DOUBLE)
    posterior = model.posterior(x)
    draws = hmc(lambda z: model.log_joint(x, z), torch.zeros(400, 2, dtype=DOUBLE), 100, burn_in=60)
    assert abs(draws.acceptance.mean() - 0.9) < 0.02
    # the chains are independent, their draws are not: one number per chain
    centered = draws.z - posterior.mean
    for values, exact in (
        (centered, torch.zeros(2, dtype=DOUBLE)),
        (centered.square(), posterior.variance),
        (centered.prod(-1, keepdim=True), posterior.covariance_matrix[0, 1:]),
    ):
        of_chains = values.mean(0)
        error = of_chains.std(0) / math.sqrt(len(of_chains))
        assert ((of_chains.mean(0) - exact).abs() < 5 * error).all()
        assert (error < 0.02).all()  # so that the test can fail


def test_without_the_metropolis_decision_the_variance_would_be_off() -> None:
    torch.manual_seed(0)
    h, z = 1.0, torch.randn(50_000, 1, dtype=DOUBLE)
    accepted = z
    for _ in range(20):
        z, _ = leapfrog(standard, z, torch.randn_like(z), h, 1)
        accepted = hmc_step(standard, accepted, h, 1).z
    error = math.sqrt(2 / 50_000)
    assert abs(accepted.var() - 1) < 5 * error
    assert abs(z.var() - 1) > 20 * error
    assert abs(z.var() - 1 / (1 - h**2 / 4)) < 5 * error * 4 / 3


def test_paths_as_long_as_a_period_do_not_trap_the_chain() -> None:
    torch.manual_seed(0)
    z = torch.full((2000, 1), 3.0, dtype=DOUBLE)
    fixed, _ = leapfrog(standard, z, torch.randn_like(z), 2 * math.pi / 10, 10)
    assert fixed.mean() > 2.9
    for _ in range(20):
        z = hmc_step(standard, z, 2 * math.pi / 10, 10).z
    assert abs(z.mean()) < 0.2


def test_a_path_that_leaves_the_floats_is_rejected() -> None:
    z = torch.ones(3, 2)
    step = hmc_step(lambda z: -(z**4).sum(-1), z, 1e3, 10)
    assert torch.equal(step.z, z) and (step.acceptance == 0).all()


def test_adapt_moves_towards_ninety_percent() -> None:
    sizes = adapt(torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1.0, 0.9, 0.5]))
    assert sizes[0] > 1 and sizes[1] == 1 and sizes[2] < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_kept(dtype: torch.dtype) -> None:
    draws = hmc(standard, torch.zeros(3, 2, dtype=dtype), 4, burn_in=2)
    assert draws.z.dtype == draws.step_size.dtype == draws.acceptance.dtype == dtype


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="num_steps"):
        leapfrog(standard, torch.zeros(2), torch.zeros(2), 0.1, 0)
    with pytest.raises(TypeError, match="z must"):
        hmc(standard, torch.zeros(2, dtype=torch.long), 3)
    with pytest.raises(ValueError, match="num_samples"):
        hmc(standard, torch.zeros(2), 0)
