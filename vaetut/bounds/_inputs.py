"""The common steps of all bounds: check the model, q and x, draw z, and compute log p(x|z)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent

from vaetut._support.model_parts import likelihood_at, likelihood_of, prior_of
from vaetut._support.validate import (
    any_true,
    distribution,
    finite,
    float_tensor,
    positive_int,
    values_are_checked,
)
from vaetut.distributions.gray_bernoulli import GrayBernoulli, is_bernoulli


class Inputs(NamedTuple):
    """What a bound is computed from; each attribute of the model is read once."""

    prior: Distribution
    likelihood: Callable[[Tensor], Distribution]
    q: Distribution
    x: Tensor
    num_samples: int


def check(model: Any, q: Distribution, x: Tensor, num_samples: int) -> Inputs:
    """Check that model, q and x fit each other, and return what a bound is computed from."""
    num_samples = positive_int(num_samples, "num_samples")
    prior, likelihood = prior_of(model), likelihood_of(model)
    distribution(q, "q")
    if float_tensor(x, "x").dim() == 0:
        raise ValueError("x must have shape [batch, data], got a tensor without dimensions")
    finite(x, "x")
    if q.event_shape != prior.event_shape:
        if prior.event_shape == () and prior.batch_shape == q.event_shape:
            raise ValueError(
                f"model.prior must have q's event_shape {tuple(q.event_shape)}, got () with batch_shape "
                f"{tuple(prior.batch_shape)}; wrap it as Independent(..., 1)"
            )
        raise ValueError(
            f"q must have the prior's event_shape {tuple(prior.event_shape)}, got {tuple(q.event_shape)}; "
            "wrap a Normal over [batch, latent] as Independent(Normal(...), 1)"
        )
    if q.batch_shape != x.shape[:-1]:
        hint = ""
        if q.event_shape == () and q.batch_shape[:-1] == x.shape[:-1]:
            hint = "; wrap q and model.prior as Independent(..., 1)"
        elif q.batch_shape.numel() == 1:
            hint = "; q.expand(...) repeats one for all"
        raise ValueError(
            f"q must have one distribution per datapoint, batch_shape {tuple(x.shape[:-1])}, got "
            f"{tuple(q.batch_shape)} for x of shape {tuple(x.shape)}{hint}"
        )
    return Inputs(prior, likelihood, q, x, num_samples)


def draw(inputs: Inputs, num_samples: int | None = None) -> Tensor:
    """``num_samples`` draws of z from q, ``[num_samples, batch, latent]``, with their gradient in q's parameters."""
    q, shape = inputs.q, torch.Size((num_samples or inputs.num_samples,))
    if q.has_rsample:
        z = q.rsample(shape)
    else:
        z = q.sample(shape)
        if torch.is_grad_enabled() and q.log_prob(z).requires_grad:
            raise NotImplementedError(
                f"q = {type(q).__name__} has no rsample, so a term of the gradient in its parameters would be missing; "
                "call under torch.no_grad(), or detach the parameters, to get the value alone"
            )
    if z.is_floating_point():
        _enough_digits(z, "q", "draw z")
    return z


def log_likelihood(inputs: Inputs, z: Tensor) -> Tensor:
    """log p(x|z), ``[num_samples, batch]``."""
    x, likelihood = inputs.x, likelihood_at(inputs.likelihood, z)
    if likelihood.event_shape != x.shape[-1:]:
        if len(likelihood.event_shape) == 1:
            raise ValueError(
                f"x must have shape [batch, {likelihood.event_shape[0]}] for this model, got {tuple(x.shape)}"
            )
        hint = "wrap it as Independent(..., 1), so that log_prob sums over the dimensions of x"
        raise ValueError(
            f"model.likelihood(z) must have an event_shape {tuple(x.shape[-1:])} for x of shape {tuple(x.shape)}, got "
            f"{tuple(likelihood.event_shape)} with batch_shape {tuple(likelihood.batch_shape)}; "
            f"{hint if likelihood.event_shape == () else 'flatten it'}"
        )
    shape = z.shape[: z.dim() - len(inputs.q.event_shape)]
    if likelihood.batch_shape != shape and not _broadcasts(likelihood.batch_shape, shape):
        raise ValueError(
            f"model.likelihood(z) must have batch_shape {tuple(shape)} for z of shape {tuple(z.shape)}, "
            f"got {tuple(likelihood.batch_shape)}; it must use the last dimension of z only, and keep all others"
        )
    if is_bernoulli(likelihood):
        if values_are_checked() and any_true((x < 0) | (x > 1)):
            raise ValueError(
                "x must lie in [0, 1] for a Bernoulli likelihood, got values from "
                f"{float(x.min()):g} to {float(x.max()):g}; divide 8-bit pixels by 255"
            )
        likelihood = _of_gray_pixels(likelihood)
    return _enough_digits(likelihood.log_prob(x), "model.likelihood(z)", "compute").expand(shape)


def _of_gray_pixels(likelihood: Distribution) -> Distribution:
    """The same likelihood as a GrayBernoulli, whose log_prob accepts values between 0 and 1."""
    base: Any = likelihood
    while isinstance(base, Independent):
        base = base.base_dist
    if type(base).log_prob is not Bernoulli.log_prob:  # a GrayBernoulli, or a subclass with its own density
        return likelihood
    return Independent(GrayBernoulli(logits=base.logits, validate_args=False), 1, validate_args=False)


def _broadcasts(shape: torch.Size, to: torch.Size) -> bool:
    """Whether a tensor of ``shape`` can be expanded ``to`` a shape, as that of a likelihood that ignores z."""
    return len(shape) <= len(to) and all(
        a in (1, b) for a, b in zip(reversed(shape), reversed(to), strict=False)
    )


def _enough_digits(value: Tensor, name: str, what: str) -> Tensor:
    """Return ``value`` if it is float32 or float64: a sum over pixels in half precision has two or three digits."""
    if value.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"{name} must {what} in torch.float32 or torch.float64, got {value.dtype}: a density needs more digits; "
            "keep the parameters in float32, and let torch.autocast run the networks in a lower precision, with "
            ".float() after them"
        )
    return value
