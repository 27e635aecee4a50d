"""The log CDFs of the standard normal, Laplace and Cauchy variables, and their inverses, also in the far tails."""

import math
from typing import Any

import torch
from torch import Tensor

from vaetut.distributions._special import HALF_LOG_2PI, log1mexp

LOG_2 = math.log(2)


class _NormalQuantile(torch.autograd.Function):
    """The x with log Φ(x) = t, for any t ≤ log ½; dx/dt = Φ(x)/φ(x), differentiable to any order."""

    generate_vmap_rule = True

    @staticmethod
    def forward(t: Tensor) -> Tensor:
        far = t < -50
        safe = torch.where(far, t, -50.0)
        # φ(x)/|x| bounds the tail: x² ≈ −2t − log(−2t) − log 2π
        start = -(-2 * safe - (-2 * safe).log() - math.log(2 * math.pi)).sqrt()
        x = torch.where(far, start, torch.special.ndtri(torch.where(far, 0.5, t).exp()))
        # log Φ is concave and nearly a parabola there: Newton's method converges in a few steps
        for _ in range(4):
            log_cdf = log_normal_cdf(x)
            step = (log_cdf - t) * _mills_ratio(x, log_cdf)
            x = torch.where(t > -math.inf, x - step, x)
        return torch.where(t == -math.inf, -math.inf, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)
        ctx.save_for_forward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        t, x = ctx.saved_tensors
        return grad * _mills_ratio(x, t)

    jvp = backward  # the derivative of one number in one number


def log_normal_cdf(x: Tensor) -> Tensor:
    """log Φ(x): `torch.special.log_ndtr`, for which torch.func.vmap has only a loop; its derivatives cancel far out."""
    y = x * math.sqrt(0.5)
    left = y < -0.7
    near = torch.where(left, y, -0.7)
    return torch.where(
        left,
        (torch.special.erfcx(-near) / 2).log() - near.square(),
        torch.log1p(-torch.special.erfc(torch.where(left, 0.0, y)) / 2),
    )


def _mills_ratio(x: Tensor, log_cdf: Tensor) -> Tensor:
    """Φ(x)/φ(x); in the lower tail from erfcx, since both logs are large there and their difference is small."""
    left = x < 0
    below = math.sqrt(math.pi / 2) * torch.special.erfcx(-torch.where(left, x, 0.0) * math.sqrt(0.5))
    above = torch.exp(torch.where(left, 0.0, log_cdf - _log_normal_density(torch.where(left, 0.0, x))))
    return torch.where(left, below, above)


def _log_normal_density(x: Tensor) -> Tensor:
    return -0.5 * x.square() - HALF_LOG_2PI


def normal_quantile(t: Tensor) -> Tensor:
    """The x with log Φ(x) = t, from the nearer tail."""
    below = t < -LOG_2
    near = torch.where(below, t, log1mexp(-torch.where(below, -1.0, t)))
    x: Tensor = _NormalQuantile.apply(near)  # type: ignore[no-untyped-call]
    return torch.where(below, x, -x)


class _LogNdtr(torch.autograd.Function):
    """log Φ(x), with the derivative φ/Φ, which in torch's own is 0/0 in the far tail."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return log_normal_cdf(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)
        ctx.save_for_forward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, value = ctx.saved_tensors
        return grad / _mills_ratio(x, value)

    jvp = backward


def log_ndtr(x: Tensor) -> Tensor:
    """log Φ(x), with derivatives that hold in the far tail."""
    value: Tensor = _LogNdtr.apply(x)  # type: ignore[no-untyped-call]
    return value


def log_laplace_cdf(y: Tensor) -> Tensor:
    """log F of the standard Laplace variable."""
    below = y < 0
    return torch.where(
        below, torch.where(below, y, 0.0) - LOG_2, torch.log1p(-0.5 * torch.exp(-torch.where(below, 0.0, y)))
    )


def laplace_quantile(t: Tensor) -> Tensor:
    """The y with log F(y) = t, from the nearer tail."""
    below = t < -LOG_2
    return torch.where(below, t + LOG_2, -LOG_2 - log1mexp(-torch.where(below, -1.0, t)))


def log_cauchy_cdf(y: Tensor) -> Tensor:
    """log F of the standard Cauchy variable."""
    return (torch.atan2(torch.ones_like(y), -y) / math.pi).log()


def cauchy_quantile(t: Tensor) -> Tensor:
    """The y with log F(y) = t, from the nearer tail."""
    below = t < -LOG_2
    tail = torch.where(below, t.exp(), -torch.expm1(torch.where(below, -1.0, t)))
    return torch.where(below, -1.0, 1.0) / torch.tan(math.pi * tail)
