r"""Averages and integrals that are not estimates: what the book's checks stand on.

Used in every chapter, first in chapter 1, *Latent-variable models*. A true value is never a Monte Carlo average.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from vaetut._support.validate import positive_int
from vaetut.information import _as_multivariate_normal


def expectation(f: Callable[[Tensor], Tensor], q: Distribution, *, num_points: int = 16) -> Tensor:
    r"""$\mathbb E_{q(z)}[f(z)]$ without sampling: a sum for a discrete q, Gauss-Hermite quadrature for a Gaussian one.

    The sum over the support is exact. The quadrature is exact (to rounding) if f is a polynomial in z of degree below
    ``2 * num_points``, as every log-density of a linear-Gaussian model is, and close for other smooth f.

    Args:
        f: maps ``z [points, *q.batch_shape, *q.event_shape]`` to values ``[points, *q.batch_shape]``.
        q: a distribution with ``enumerate_support``, or ``Independent(Normal, 1)`` or ``MultivariateNormal``.
        num_points: points of the rule in each latent dimension, ``num_points ** latent`` in all; not used for sums.

    Returns:
        Shape ``q.batch_shape``.

    Raises:
        NotImplementedError: if q is neither; `monte_carlo` estimates the expectation for any q.
        ValueError: if ``num_points < 1``, the grid would exceed a million points, or f returns another shape.

    Example:
        >>> q = torch.distributions.MultivariateNormal(torch.ones(1), torch.eye(1))
        >>> round(expectation(lambda z: z[..., 0] ** 4, q).item(), 4)   # 1 + 6 + 3
        10.0
    """
    positive_int(num_points, "num_points")
    gaussian = _as_multivariate_normal(q)
    if gaussian is not None:
        latent = gaussian.event_shape[0]
        if num_points**latent > 1_000_000:
            raise ValueError(f"num_points ** latent must be at most 1e6, got {num_points} ** {latent}")
        nodes, weights = (
            torch.as_tensor(a, dtype=gaussian.loc.dtype, device=gaussian.loc.device)
            for a in np.polynomial.hermite_e.hermegauss(num_points)
        )
        standard = torch.cartesian_prod(*[nodes] * latent).reshape(-1, latent)
        product = torch.cartesian_prod(*[weights / weights.sum()] * latent).reshape(-1, latent).prod(-1)
        ones = (1,) * len(gaussian.batch_shape)
        standard = standard.reshape(-1, *ones, latent)
        z = gaussian.loc + (gaussian.scale_tril @ standard.unsqueeze(-1)).squeeze(-1)
        weight = product.reshape(-1, *ones)
    elif getattr(q, "has_enumerate_support", False):
        z = q.enumerate_support()
        weight = q.log_prob(z).exp()
    else:
        raise NotImplementedError(
            f"q must be discrete with a finite support, Independent(Normal, 1) or MultivariateNormal, "
            f"got {type(q).__name__}; monte_carlo(f, q, num_samples) estimates the expectation"
        )
    values = f(z)
    if values.shape != (len(z), *q.batch_shape):
        raise ValueError(
            f"f must return one value per point, shape {(len(z), *q.batch_shape)}, got {tuple(values.shape)}"
        )
    return (weight * values).sum(0)


def integrate(
    f: Callable[[Tensor], Tensor], low: float, high: float, *, num_points: int = 20_001, device: str = "cpu"
) -> Tensor:
    r"""$\int_{\mathrm{low}}^{\mathrm{high}} f(t)\, dt$ by the trapezoid rule on equal steps, in float64.

    For a smooth f that has died out at both ends the error falls faster than any power of the step (Euler-Maclaurin),
    so that densities and their expectations come out to the last digits. For an f that is cut off at an end, or has a
    kink, it falls only with the square of the step.

    Args:
        f: maps ``t [num_points]`` (float64) to values ``[..., num_points]``; the last dimension is integrated.
        low: lower end, finite.
        high: upper end, finite, above ``low``.
        num_points: points of the grid, at least 2.
        device: where the grid is made.

    Raises:
        ValueError: if the ends are not finite and ordered, or f returns another number of points.

    Example:
        >>> from torch.distributions import Normal
        >>> q = Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)
        >>> round(integrate(lambda z: q.log_prob(z).exp() * z**4, -12, 12).item(), 12)
        3.0
    """
    if not (abs(low) < float("inf") and abs(high) < float("inf") and low < high):
        raise ValueError(f"low and high must be finite with low < high, got {low} and {high}")
    if positive_int(num_points, "num_points") < 2:
        raise ValueError(f"num_points must be at least 2, got {num_points}")
    grid = torch.linspace(low, high, num_points, dtype=torch.float64, device=device)
    values = f(grid)
    if values.shape[-1:] != (num_points,):
        raise ValueError(
            f"f must return [..., {num_points}] for its {num_points} points, got {tuple(values.shape)}"
        )
    return torch.trapezoid(values, grid, dim=-1)
