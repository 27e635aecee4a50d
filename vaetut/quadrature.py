r"""Averages and integrals by sums and quadrature, the reference values of the book's checks.

Used in every chapter, first in chapter 1, *Latent-variable models*. A true value is never a Monte Carlo average.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from vaetut._support.validate import function, positive_int, real_number
from vaetut.distributions.outcomes import outcomes_of
from vaetut.information import as_multivariate_normal

MAX_POINTS = 1000  # of a Gauss-Hermite rule in one dimension; computing its nodes takes a tenth of a second
PART = 1 << 22  # size of the input of one call of f: 32 MB in float64


def expectation(f: Callable[[Tensor], Tensor], q: Distribution, *, num_points: int = 16) -> Tensor:
    r"""$\mathbb E_{q(z)}[f(z)]$ without sampling: a sum for a discrete q, Gauss-Hermite quadrature for a Gaussian one.

    Chapter 1. The sum over the support is exact. The quadrature is exact (to rounding) if f is a polynomial in z of
    degree below ``2 * num_points``, as every log-density of a linear-Gaussian model is, and an approximation for other
    smooth f.

    For a Gaussian q, f is called with some of the points at a time, so that its input stays near 32 MB for any number
    of points. (If gradients are needed, autograd keeps what f computes for all of them.)

    Args:
        f: maps ``z [points, *q.batch_shape, *q.event_shape]`` to values ``[points, *q.batch_shape]``.
        q: a distribution with ``enumerate_support``, or ``Independent(Normal, 1)`` or ``MultivariateNormal`` (not a
            subclass with a ``log_prob`` of its own).
        num_points: points of the rule in each latent dimension, ``num_points ** latent`` in all; not used for sums.

    Returns:
        Shape ``q.batch_shape``.

    Raises:
        TypeError: if f is not a function or returns no tensor, ``num_points`` is not an int, or a Gaussian q is neither
            float32 nor float64.
        NotImplementedError: if q is neither; `monte_carlo` estimates the expectation for any q.
        ValueError: unless ``num_points`` is from 1 to 1000, if the grid would exceed a million points, or if f returns
            another shape.

    Example:
        >>> q = torch.distributions.MultivariateNormal(torch.ones(1), torch.eye(1))
        >>> round(expectation(lambda z: z[..., 0] ** 4, q).item(), 4)   # 1 + 6 + 3
        10.0
    """
    function(f, "f")
    positive_int(num_points, "num_points")
    gaussian = as_multivariate_normal(q)
    if gaussian is not None:
        if gaussian.loc.dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"the parameters of q must have dtype torch.float32 or torch.float64, got {gaussian.loc.dtype}"
            )
        return _over_gaussian(f, gaussian, num_points)
    if not getattr(q, "has_enumerate_support", False):
        raise NotImplementedError(
            f"q must be discrete with a finite support, Independent(Normal, 1) or MultivariateNormal, "
            f"got {type(q).__name__}; monte_carlo(f, q, num_samples) estimates the expectation"
        )
    z = q.enumerate_support()
    outcomes = outcomes_of(q)
    # The exact probabilities: in float32 torch's log_prob of an impossible outcome is not -inf but near -16.
    weight = q.log_prob(z).exp() if outcomes is None else outcomes.probs.movedim(-1, 0)
    return _average(weight, _values(f, z, q.batch_shape))


def _over_gaussian(f: Callable[[Tensor], Tensor], q: MultivariateNormal, num_points: int) -> Tensor:
    latent = q.event_shape[0]
    if num_points > MAX_POINTS:
        raise ValueError(f"num_points must be at most {MAX_POINTS}, got {num_points}")
    if num_points**latent > 1_000_000:
        raise ValueError(f"num_points ** latent must be at most 1e6, got {num_points} ** {latent}")
    nodes, weights = (
        torch.as_tensor(a, dtype=q.loc.dtype, device=q.loc.device) for a in gauss_hermite(num_points)
    )
    powers = num_points ** torch.arange(latent, device=q.loc.device)
    ones = (1,) * len(q.batch_shape)
    # f may hold about ten tensors of the size of its input
    part = max(1, PART // max(1, q.batch_shape.numel() * latent))
    total = torch.zeros(q.batch_shape, dtype=q.loc.dtype, device=q.loc.device)
    for index in torch.arange(num_points**latent, device=q.loc.device).split(part):
        digits = (index.unsqueeze(-1) // powers) % num_points  # which node in each dimension
        shift = torch.einsum("...ij,pj->p...i", q.scale_tril, nodes[digits])
        weight = weights[digits].prod(-1).reshape(-1, *ones)
        total = total + _average(weight, _values(f, q.loc + shift, q.batch_shape))
    return total


def _tensor(values: Any) -> Tensor:
    if not isinstance(values, Tensor):
        raise TypeError(f"f must return a torch.Tensor, got {type(values).__name__}")
    return values


def _values(f: Callable[[Tensor], Tensor], z: Tensor, batch_shape: torch.Size) -> Tensor:
    values = _tensor(f(z))
    if values.shape != (len(z), *batch_shape):
        raise ValueError(
            f"f must return one value per point, shape {(len(z), *batch_shape)}, got {tuple(values.shape)}"
        )
    return values


def _average(weight: Tensor, values: Tensor) -> Tensor:
    """The weighted sum, in which an infinite value with weight 0 counts as 0."""
    return (weight * torch.where((weight == 0) & ~values.isfinite(), 0.0, values)).sum(0)


@lru_cache(maxsize=32)
def gauss_hermite(num_points: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Nodes and weights of the rule for $\mathcal N(0, 1)$, the weights summing to 1 (Golub and Welsch 1969).

    The nodes are the eigenvalues of the Jacobi matrix of the Hermite polynomials. A weight is $1/\sum_k p_k(x)^2$ with
    the orthonormal $p_k$, here times $e^{-x^2/4}$, so that nothing overflows: the weights of
    ``numpy.polynomial.hermite_e.hermegauss`` are 0 or NaN from 371 points on.
    """
    off = np.sqrt(np.arange(1.0, num_points))
    nodes = np.linalg.eigvalsh(np.diag(off, 1) + np.diag(off, -1))
    nodes = (nodes - nodes[::-1]) / 2
    before, now = np.zeros(num_points), np.exp(-(nodes**2) / 4)
    total = now**2
    for k in range(1, num_points):
        before, now = now, (nodes * now - (off[k - 2] if k > 1 else 0.0) * before) / off[k - 1]
        total += now**2
    # Where e^(−x²/4) is 0 in float64, so is the weight.
    weights = np.divide(np.exp(-(nodes**2) / 2), total, out=np.zeros(num_points), where=total > 0)
    return nodes, weights / weights.sum()


def integrate(
    f: Callable[[Tensor], Tensor],
    low: float,
    high: float,
    *,
    num_points: int = 20_001,
    device: str | torch.device = "cpu",
) -> Tensor:
    r"""$\int_{\mathrm{low}}^{\mathrm{high}} f(t)\, dt$ by the trapezoid rule on equal steps, in float64 (chapter 1).

    If f is smooth, and it and all of its derivatives are negligible at both ends, the error falls faster than any power
    of the step (Euler-Maclaurin), so that expectations under a normal density are exact to the last digits. If f does
    not vanish at an end, or has a kink, the error falls only with the square of the step.

    Args:
        f: maps ``t [points]`` (float64) to values ``[..., points]``; the last dimension is integrated. It is called
            once with all points if there are at most 65,537, otherwise with that many at a time.
        low: lower end, finite.
        high: upper end, finite, above ``low``.
        num_points: points of the grid, at least 2.
        device: the device of the grid.

    Raises:
        TypeError: if f is not a function or returns no tensor, if an end is not a number, or ``num_points`` not an int.
        ValueError: if the ends are not finite and ordered, if ``num_points`` is less than 2, or if f returns another
            number of points.

    Example:
        >>> from torch.distributions import Normal
        >>> q = Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)
        >>> round(integrate(lambda z: q.log_prob(z).exp() * z**4, -12, 12).item(), 12)
        3.0
    """
    function(f, "f")
    ends: dict[str, Any] = {"low": low, "high": high}
    for name, end in ends.items():
        if not isinstance(end, Tensor | np.ndarray):
            real_number(end, name)
        elif math.prod(end.shape) != 1:
            raise TypeError(f"{name} must be a number, got {type(end).__name__} of shape {tuple(end.shape)}")
    if not (abs(low) < float("inf") and abs(high) < float("inf") and low < high):
        raise ValueError(f"low and high must be finite with low < high, got {low} and {high}")
    if positive_int(num_points, "num_points") < 2:
        raise ValueError(f"num_points must be at least 2, got {num_points}")
    if num_points <= PART // 64 + 1:
        return _trapezoid(f, torch.linspace(low, high, num_points, dtype=torch.float64, device=device))
    total = None
    for start in range(0, num_points - 1, PART // 64):  # neighboring parts share a point
        stop = min(start + PART // 64, num_points - 1)
        # computed from both ends, as torch.linspace does
        index = torch.arange(start, stop + 1, dtype=torch.float64, device=device)
        step = (high - low) / (num_points - 1)
        grid = torch.where(index < num_points / 2, low + step * index, high - step * (num_points - 1 - index))
        part = _trapezoid(f, grid)
        total = part if total is None else total + part
    assert total is not None
    return total


def _trapezoid(f: Callable[[Tensor], Tensor], grid: Tensor) -> Tensor:
    values = _tensor(f(grid))
    if values.shape[-1:] != grid.shape:
        raise ValueError(
            f"f must return [..., {len(grid)}] for its {len(grid)} points, got {tuple(values.shape)}"
        )
    return torch.trapezoid(values, grid, dim=-1)
