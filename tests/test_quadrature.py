"""Quadrature against moments that are known, and its error against the order that it claims."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Laplace, MultivariateNormal, Normal, OneHotCategorical

from vaetut import expectation, integrate

DOUBLE = torch.float64


def d(value: object) -> Tensor:
    return torch.as_tensor(value, dtype=DOUBLE)


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
