"""Quadrature against moments that are known, and its error against the order that it claims."""

import numpy as np
import pytest
import torch
from exact_cases import DOUBLE, d
from torch.distributions import Independent, Laplace, MultivariateNormal, Normal, OneHotCategorical

from vaetut import expectation, integrate


def test_integrate_is_exact_for_densities():
    q = Normal(d(0.5), d(0.8))
    assert integrate(lambda z: q.log_prob(z).exp(), -9, 10).item() == pytest.approx(1.0, abs=1e-13)
    moments = integrate(lambda z: torch.stack([z, z**2]) * q.log_prob(z).exp(), -9, 10)
    torch.testing.assert_close(moments, d([0.5, 0.25 + 0.64]), rtol=1e-12, atol=1e-12)


def test_integrate_is_second_order_where_f_is_cut_off():
    errors = [abs(integrate(lambda z: z**2, 0, 1, num_points=n + 1).item() - 1 / 3) for n in (100, 200)]
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=1e-3)


def test_expectation_is_exact_for_polynomials_up_to_the_stated_degree():
    """Moments of N(0, 1) are 0, 1, 0, 3, 0, 15, ...: three points are exact to degree five and no further."""
    q = MultivariateNormal(torch.zeros(1, dtype=DOUBLE), torch.eye(1, dtype=DOUBLE))
    moments = [expectation(lambda z, k=k: z[..., 0] ** k, q, num_points=3).item() for k in range(7)]
    assert moments[:6] == pytest.approx([1, 0, 1, 0, 3, 0], abs=1e-12)
    assert moments[6] != pytest.approx(15, rel=0.1)


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_expectation_under_correlated_gaussians(batch):
    generator = torch.Generator().manual_seed(0)
    loc = torch.randn(*batch, 2, dtype=DOUBLE, generator=generator)
    q = MultivariateNormal(loc, scale_tril=d([[0.7, 0.0], [-0.3, 0.5]]))
    expected = loc[..., 0] * loc[..., 1] + 0.7 * -0.3
    torch.testing.assert_close(
        expectation(lambda z: z[..., 0] * z[..., 1], q), expected, rtol=1e-11, atol=1e-12
    )


def test_expectation_by_enumeration():
    q = OneHotCategorical(probs=d([[0.2, 0.8, 0.0], [0.5, 0.25, 0.25]]))
    value = d([1.0, 2.0, 3.0])
    averages = expectation(lambda z: value[z.argmax(-1)], q)
    assert averages.tolist() == pytest.approx([1.8, 1.75], abs=1e-12)


def test_expectation_refuses_what_it_cannot_do():
    with pytest.raises(NotImplementedError, match=r"Laplace.*monte_carlo"):
        expectation(lambda z: z, Laplace(d(0.0), d(1.0)))
    q = MultivariateNormal(torch.zeros(8, dtype=DOUBLE), torch.eye(8, dtype=DOUBLE))
    with pytest.raises(ValueError, match=r"16 \*\* 8"):
        expectation(lambda z: z.sum(-1), q)
    with pytest.raises(ValueError, match="one value per point"):
        expectation(lambda z: z, MultivariateNormal(torch.zeros(2), torch.eye(2)))


@pytest.mark.parametrize("num_points", [1, 2, 370, 371, 400, 1000])
def test_gauss_hermite_up_to_its_limit(num_points):
    """Moments (2k - 1)!! up to the degree that the rule is exact for, and E[cos z] = e^(-1/2)."""
    q = MultivariateNormal(torch.zeros(1, dtype=DOUBLE), torch.eye(1, dtype=DOUBLE))
    moment = 1.0
    for k in range(1, min(num_points, 20)):
        moment *= 2 * k - 1
        value = expectation(lambda z, k=k: z[..., 0] ** (2 * k), q, num_points=num_points)
        assert value.item() == pytest.approx(moment, rel=1e-11)
    one = expectation(lambda z: torch.ones_like(z[..., 0]), q, num_points=num_points)
    assert one.item() == pytest.approx(1.0, abs=1e-14)
    if num_points > 100:
        value = expectation(lambda z: z[..., 0].cos(), q, num_points=num_points)
        assert value.item() == pytest.approx(2.718281828459045**-0.5, rel=1e-13)


def test_more_points_than_the_limit_are_refused():
    q = MultivariateNormal(torch.zeros(1, dtype=DOUBLE), torch.eye(1, dtype=DOUBLE))
    with pytest.raises(ValueError, match="num_points must be at most 1000, got 1001"):
        expectation(lambda z: z[..., 0], q, num_points=1001)


def test_a_large_batch_is_computed_in_parts():
    """Never more than 2^22 numbers at a time, and the same values and gradients as in one part."""
    sizes = []
    loc = torch.randn(1000, 3, dtype=DOUBLE, requires_grad=True)
    q = MultivariateNormal(loc, scale_tril=d([[1.0, 0.0, 0.0], [0.3, 0.8, 0.0], [-0.2, 0.1, 0.5]]))

    def f(z):
        sizes.append(z.numel())
        return z[..., 0] * z[..., 1] ** 2 + z[..., 2]

    value = expectation(f, q, num_points=16)
    assert len(sizes) > 2 and max(sizes) <= 2**22
    a, b, c = loc.unbind(-1)
    exact = a * b**2 + a * (0.09 + 0.64) + 2 * b * 0.3 + c
    torch.testing.assert_close(value, exact, rtol=1e-11, atol=1e-11)
    (slope,) = torch.autograd.grad(value.sum(), loc)
    torch.testing.assert_close(slope, torch.autograd.grad(exact.sum(), loc)[0], rtol=1e-11, atol=1e-11)


def test_an_impossible_outcome_counts_nothing():
    """Torch's log_prob of a probability of 0 is near -16 in float32."""
    q = OneHotCategorical(probs=torch.tensor([1.0, 0.0]))
    for value in (1e7, float("inf"), float("nan")):
        assert expectation(lambda z, v=value: torch.where(z[..., 1] == 1, v, 2.0), q) == 2.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_gaussian_of_half_precision_is_refused(dtype):
    one = torch.ones(2, dtype=dtype)
    with pytest.raises(TypeError, match=rf"float32 or torch\.float64, got {dtype}"):
        expectation(lambda z: z.sum(-1), Independent(Normal(one, one), 1))


def test_ends_are_single_numbers():
    for ends in ((torch.zeros(2), 1.0), (0.0, np.ones(3))):
        with pytest.raises(TypeError, match=r"must be a number, got (Tensor|ndarray) of shape \([23],\)"):
            integrate(lambda t: t, *ends)
    assert integrate(lambda t: t, torch.zeros(()), torch.ones(())).item() == pytest.approx(0.5, abs=1e-12)


def test_integrate_in_parts():
    """More points than f is given at a time."""
    sizes = []

    def f(t):
        sizes.append(len(t))
        return torch.stack([t.exp(), t.square()])

    value = integrate(f, -1, 2, num_points=300_001)
    torch.testing.assert_close(
        value, d([2.718281828459045**2 - 1 / 2.718281828459045, 3.0]), rtol=1e-10, atol=0
    )
    assert max(sizes) <= 2**16 + 1 and len(sizes) == 5
    whole = torch.linspace(-1, 2, 20_001, dtype=DOUBLE)
    integrate(lambda t: (sizes.append(torch.equal(t, whole)), t)[1], -1, 2)
    assert sizes[-1] is True
