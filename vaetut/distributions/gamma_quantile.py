r"""The quantile of the gamma distribution, from which the maps of chapter 9, *Composition*, are built.

The quantile of the standard gamma variable $G$ with shape a has no closed form; it is the root of
$P(a, G) = u$. It is computed for $y = \log(G / a)$, which neither underflows for a small shape (with a = 1e-3 half of
the draws of G are below 1e-300) nor cancels for a large one.
"""

from typing import Any

import torch
from torch import Tensor

from vaetut.distributions._special import open_uniform
from vaetut.distributions.shape_tails import gamma_slopes

_LARGE = 1e5  # the shape from which the root is an expansion about the Gaussian; exact to 1e-14 there


def log_gamma_quantile(u: Tensor, shape: Tensor) -> Tensor:
    r"""Compute $y = \log(G / a)$ with $P(a, G) = u$, differentiable (twice) in u and in a.

    Args:
        u: probabilities, strictly between 0 and 1.
        shape: a, positive; broadcasts against u.

    Returns:
        y, exact to about 1e-10 (the accuracy of ``torch.special.gammainc``), and so are its derivatives. Computed
        in float64 for any dtype.

    Example:
        The median of the exponential distribution, which is the gamma with shape 1, is log 2:

        >>> log_gamma_quantile(torch.tensor(0.5), torch.tensor(1.0)).exp()
        tensor(0.6931)
    """
    u, shape = torch.broadcast_tensors(u, shape)
    wide_u, wide = u.double(), shape.double()
    return _at(wide, wide_u, _solve(wide_u.detach(), wide.detach())).to(u.dtype)


def draw_log_gamma(shape: Tensor, size: torch.Size) -> Tensor:
    r"""Draw $y = \log(G / a)$ with torch's sampler, with the gradient that `log_gamma_quantile` of uniform noise has.

    Args:
        shape: a, positive.
        size: the shape of the result, to which a is expanded.
    """
    shape = shape.expand(size)
    y = log_standard_gamma(shape.detach()).double()
    return _at(shape.double(), torch.full_like(y, 0.5), y).to(shape.dtype)


def log_standard_gamma(shape: Tensor, generator: torch.Generator | None = None) -> Tensor:
    r"""Draw $y = \log(G / a)$ with torch's sampler, and with the gradient that torch has for it.

    For a < 1 the variable G' of shape a + 1 is drawn, and $G = G' u^{1/a}$ in logs (``eq-comp-boost``): a small G does
    not underflow.
    """
    small = shape.detach() < 1
    y = torch._standard_gamma(torch.where(small, shape + 1, shape), generator=generator).log() - shape.log()
    u = open_uniform(shape.shape, dtype=shape.dtype, device=shape.device, generator=generator)
    return torch.where(small, y + u.log() / shape, y)


class _At(torch.autograd.Function):
    """The value y, with the derivatives of the quantile at y; y itself is a constant."""

    generate_vmap_rule = True

    @staticmethod
    def forward(shape: Tensor, u: Tensor, y: Tensor) -> Tensor:
        return y.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)
        ctx.save_for_forward(inputs[0], output)

    @staticmethod
    def jvp(ctx: Any, shape_tangent: Tensor | None, u_tangent: Tensor | None, _: Any) -> Tensor:
        shape, y = ctx.saved_tensors
        total = torch.zeros_like(y)
        if shape_tangent is not None:
            total = total + shape_tangent * _slope(shape, y)
        if u_tangent is not None:
            total = total + u_tangent * (-_log_density(shape, y)).exp()
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        shape, y = ctx.saved_tensors
        by_shape = grad * _slope(shape, y) if ctx.needs_input_grad[0] else None
        by_u = grad * (-_log_density(shape, y)).exp() if ctx.needs_input_grad[1] else None
        return by_shape, by_u, None


def _at(shape: Tensor, u: Tensor, y: Tensor) -> Tensor:
    result: Tensor = _At.apply(shape, u, y)  # type: ignore[no-untyped-call]
    return result


def _log_density(shape: Tensor, y: Tensor) -> Tensor:
    """The log density of y."""
    return shape * (y + shape.log()) - shape * y.exp() - torch.lgamma(shape)


def _solve(u: Tensor, shape: Tensor) -> Tensor:
    """The root y of P(a, a eʸ) = u."""
    large = shape > _LARGE
    return torch.where(large, _expand(u, shape.clamp(min=_LARGE)), _newton(u, shape.clamp(max=_LARGE)))


def _newton(u: Tensor, shape: Tensor) -> Tensor:
    """Newton's method on the log of the nearer tail, which is concave in log G, so that it always converges."""
    # P(a, G) < Gᵃ / Γ(a + 1) bounds the root from below, and is exact to rounding where G is tiny.
    floor = (u.log() + torch.lgamma(shape + 1)) / shape
    root = 1 - 1 / (9 * shape) + torch.special.ndtri(u) / (3 * shape.sqrt())  # Wilson and Hilferty (1931)
    log_x = torch.maximum(floor, torch.where(root > 0.1, 3 * root.clamp(min=0.1).log() + shape.log(), floor))
    lower = u <= 0.5
    target = torch.where(lower, u.log(), torch.log1p(-u))
    for _ in range(8):
        x = log_x.exp()
        tail = torch.where(lower, torch.special.gammainc(shape, x), torch.special.gammaincc(shape, x))
        slope = (shape * log_x - x - torch.lgamma(shape) - tail.log()).exp()
        step = torch.where(lower, 1.0, -1.0) * (tail.log() - target) / slope
        step = torch.where((tail > 0) & (slope > 0), step.clamp(-3, 3), 0)  # a tail of 0: floor is exact
        log_x = torch.maximum(log_x - step, floor)
    return log_x - shape.log()


def _expand(u: Tensor, shape: Tensor) -> Tensor:
    """Temme (1992), *Asymptotic inversion of incomplete gamma functions*: y as a series in 1/a and Φ⁻¹(u) / √a."""
    n: Tensor = torch.special.ndtri(u) / shape.sqrt()
    first = -1 / 3 + n * (1 / 36 + n * (1 / 1620 - n * 7 / 6480))
    second = -7 / 405 - n * 7 / 2592
    eta = n + first / shape + second / shape.square()
    excess = eta * (1 + eta * (1 / 3 + eta * (1 / 36 - eta * (1 / 270 - eta * (1 / 4320 + eta / 17010)))))
    return excess.log1p()  # G / a − 1 = excess, where (G / a − 1) − log(G / a) = eta² / 2


def _slope(shape: Tensor, y: Tensor) -> Tensor:
    """dy/da at fixed u: −∂ₐP(a, G) divided by the density of log G, less the 1/a of log a."""
    a = shape.clamp(max=1e7)
    by_a, by_log_x = gamma_slopes(a, y + a.log())
    # For larger shapes the difference is computed from the Gaussian limit and its first correction.
    limit = -(y + y.square() / 6 - 1 / (3 * shape)) / (2 * shape) * (1 - y / 3)
    return torch.where(shape > 1e7, limit, -by_a / by_log_x - 1 / a)
