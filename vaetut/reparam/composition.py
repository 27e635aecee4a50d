r"""Composition: a function of several simpler variables, $z = f(\epsilon_1, \epsilon_2, \ldots)$.

Chapter 9, *Composition* (AEVB, section 2.4, approach 3). A log-normal variable is the exponential of a Gaussian one
(``eq-comp-log-normal``). A gamma variable of whole shape k is the sum of k exponential ones
(``eq-comp-convolution``); since k counts them, z has a gradient in the rate and none in the shape. A chi-squared one
is a sum of squares (``eq-comp-chi-squared``). Beta, Dirichlet, F (``eq-comp-beta``, ``eq-comp-dirichlet``,
``eq-comp-f``) and Student's t are made of gamma variables of any shape. For a fixed noise these must be a smooth
function of the shape, and that is the gamma's quantile, $G = P^{-1}(a, u)$ with $u \sim U(0, 1)$: it has no closed
form, but g solves for it and its derivatives are exact (``eq-comp-beta-motion``, see `_gamma`). Whatever the
composition, the implicit gradient never has more variance (``eq-comp-never-lower``).

``rsample`` draws the same G with the same gradient by a sampler; for Student's t and F in float32 that is torch's,
whose gamma gradient is good to 5e-4 and 30 times as fast.
"""

# ruff: noqa: D103 -- the lines above each map say what it does
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Beta,
    Chi2,
    Dirichlet,
    Distribution,
    FisherSnedecor,
    Gamma,
    Independent,
    LogNormal,
    StudentT,
    TransformedDistribution,
)

from vaetut._support.validate import any_true
from vaetut.distributions import Erlang, MultivariateStudentT
from vaetut.distributions._special import draw_log_gamma, log_gamma_quantile
from vaetut.reparam._map import Map
from vaetut.reparam.location_scale import matvec
from vaetut.reparam.noise import JointNoise, StandardExponential, StandardNormal, StandardUniform
from vaetut.reparam.registry import parameters, register_reparameterization, reparameterize

_QUANTILE = "G(a, u): the quantile of Gamma(a, 1), solved numerically"


def _composition(kind: type[Distribution], noise: str, **texts: Any) -> Callable[..., Callable[[Any], Map]]:
    if texts.pop("listed", False):
        texts["paper"] = "composition"
    return register_reparameterization(kind, "composition", noise=noise, **texts)


@_composition(
    LogNormal,
    "ε ~ N(0, 1)",
    g="exp(loc + scale · ε)",
    tex=r"e^{\mu + \sigma \epsilon}",
    listed=True,
    preferred=True,
)
def log_normal(q: LogNormal) -> Map:
    noise = StandardNormal(q.loc, q.batch_shape)
    return Map(noise, lambda eps: torch.addcmul(q.loc, q.scale, eps).exp())


@_composition(
    Gamma,
    "ε ~ Exp(1)ᵏ, k = concentration",
    g="(ε₁ + … + εₖ) / rate",
    tex=r"\frac1\beta \sum_{i=1}^{k} \epsilon_i",
    differentiable=("rate",),
    listed=True,
    remark="for a whole concentration only, and with no gradient in it",
)
def gamma(q: Gamma) -> Map:
    count, used = _whole(q.concentration, "concentration", q)
    noise = StandardExponential(q.rate, q.batch_shape, (count,))
    return Map(noise, lambda eps: torch.where(used, eps, 0).sum(-1) / q.rate)


@_composition(
    Erlang,
    "ε ~ Exp(1)ᵏ, k = concentration",
    g="(ε₁ + … + εₖ) / rate",
    tex=r"\frac1\lambda \sum_{i=1}^{k} \epsilon_i",
    differentiable=("rate",),
    paper="inverse_cdf",
    remark="AEVB has it under inverse CDF, but for k ≥ 2 that has no closed form",
)
def erlang(q: Erlang) -> Map:
    return gamma(q)


@_composition(
    Chi2,
    "ε ~ N(0, 1)ᵏ, k = df",
    g="ε₁² + … + εₖ²",
    tex=r"\sum_{i=1}^{k} \epsilon_i^2",
    differentiable=(),
    listed=True,
    remark="for a whole df only, and with no gradient in it",
)
def chi2(q: Chi2) -> Map:
    count, used = _whole(q.df, "df", q)
    noise = StandardNormal(q.df, q.batch_shape, (count,))
    return Map(noise, lambda eps: torch.where(used, eps, 0).square().sum(-1))


@_composition(
    Beta,
    "u ~ U(0, 1)²",
    g="G₁ / (G₁ + G₂), Gᵢ = G(concentrationᵢ, uᵢ)",
    tex=r"\frac{G(\alpha, u_1)}{G(\alpha, u_1) + G(\beta, u_2)}",
    listed=True,
    remark=_QUANTILE,
)
def beta(q: Beta) -> Map:
    def combine(shapes: Tensor, y: Tensor) -> Tensor:
        return _inside(_log_ratio(shapes.log() + y).sigmoid(), 1 - torch.finfo(y.dtype).eps / 2)

    return _of_gammas(q, lambda: torch.stack([q.concentration1, q.concentration0], dim=-1), combine)


@_composition(
    Dirichlet,
    "u ~ U(0, 1)ᴷ",
    g="Gᵢ / (G₁ + … + G_K), Gᵢ = G(concentrationᵢ, uᵢ)",
    tex=r"\frac{G(\alpha_i, u_i)}{\sum_j G(\alpha_j, u_j)}",
    listed=True,
    remark=_QUANTILE,
)
def dirichlet(q: Dirichlet) -> Map:
    def combine(shapes: Tensor, y: Tensor) -> Tensor:
        return _inside((shapes.log() + y).softmax(-1), 1 - torch.finfo(y.dtype).eps / 2)

    return _of_gammas(q, lambda: q.concentration, combine)


@_composition(
    FisherSnedecor,
    "u ~ U(0, 1)²",
    g="(X₁ / df1) / (X₂ / df2), Xᵢ = 2 G(dfᵢ / 2, uᵢ)",
    tex=r"\frac{G(d_1 / 2, u_1) / d_1}{G(d_2 / 2, u_2) / d_2}",
    listed=True,
    preferred=True,
    remark=_QUANTILE,
)
def f(q: FisherSnedecor) -> Map:
    def combine(shapes: Tensor, y: Tensor) -> Tensor:
        return _inside(_log_ratio(y).exp(), torch.finfo(y.dtype).max)

    made = _of_gammas(q, lambda: torch.stack([q.df1, q.df2], dim=-1) / 2, combine)
    return made._replace(rsample=q.rsample) if q.df1.dtype == torch.float32 else made


@_composition(
    StudentT,
    "u ~ U(0, 1), ε ~ N(0, 1)",
    g="loc + scale · ε / √(X / df), X = 2 G(df / 2, u)",
    tex=r"\mu + \sigma \epsilon \Big/ \sqrt{\tfrac2\nu G(\tfrac\nu2, u)}",
    preferred=True,
    remark=_QUANTILE,
)
def student_t(q: StudentT) -> Map:
    def place(y: Tensor, eps: Tensor) -> Tensor:
        return torch.addcmul(q.loc, q.scale, eps.squeeze(-1) * (-y / 2).exp())

    return _scale_mixture(q, (1,), place)


@_composition(
    MultivariateStudentT,
    "u ~ U(0, 1), ε ~ N(0, I)",
    g="loc + A ε / √(X / df), X = 2 G(df / 2, u), with A = scale_tril",
    tex=r"\mu + A \epsilon \Big/ \sqrt{\tfrac2\nu G(\tfrac\nu2, u)}",
    remark=_QUANTILE,
)
def multivariate_student_t(q: MultivariateStudentT) -> Map:
    def place(y: Tensor, eps: Tensor) -> Tensor:
        scaled = eps * (-y / 2).exp().unsqueeze(-1)
        return q.loc + matvec(q._unbroadcasted_scale_tril, scaled)

    return _scale_mixture(q, q.event_shape, place)


@_composition(
    TransformedDistribution,
    "the noise of the base",
    g="the transforms of g(ε) of the base",
    tex=r"(t_n \circ \cdots \circ t_1)\big(g_{\text{base}}(\epsilon)\big)",
)
def transformed(q: TransformedDistribution) -> Map:
    base = reparameterize(q.base_dist)
    noise, g, _ = base._map

    def push(x: Tensor) -> Tensor:
        for transform in q.transforms:
            x = transform(x)
        return x

    def draw(shape: torch.Size) -> Tensor:
        return push(base.rsample(shape))

    if noise is None or g is None:
        return Map(None, None, draw)
    surplus = len(noise.batch_shape) - len(
        q.batch_shape
    )  # a transform may join batch dimensions to the event
    return Map(
        Independent(noise, surplus, validate_args=False) if surplus else noise, lambda eps: push(g(eps)), draw
    )


def _whole(count: Tensor, name: str, q: Distribution) -> tuple[int, Tensor]:
    """The largest of the counts, and which of that many variables each entry uses."""
    count = count.detach()
    if any_true(count != count.round()):
        raise ValueError(
            f"{name} of {type(q).__name__} must be whole numbers via='composition', which adds up {name} variables, "
            f"got {count}: use via='implicit'"
        )
    largest = int(count.max()) if count.numel() else 1
    return largest, torch.arange(largest, device=count.device) < count.unsqueeze(-1)


def _log_ratio(logs: Tensor) -> Tensor:
    """The first of two logs less the second."""
    first, second = logs.unbind(-1)
    return first - second


def _inside(z: Tensor, top: float) -> Tensor:
    """Kept off the ends of the support, as torch does: a density may be infinite there."""
    return z.clamp(torch.finfo(z.dtype).tiny, top)


def _of_gammas(q: Any, shapes: Callable[[], Tensor], combine: Callable[[Tensor, Tensor], Tensor]) -> Map:
    """A function of y = log(G / a) of independent gamma variables, one for each entry of the last axis of a."""

    def g(u: Tensor) -> Tensor:
        a = shapes()
        return combine(a, log_gamma_quantile(u, a))

    def rsample(sample_shape: torch.Size) -> Tensor:
        a = shapes()
        return combine(a, draw_log_gamma(a, sample_shape + a.shape))

    like = getattr(q, parameters(type(q))[0])
    count = q.event_shape or (2,)  # a vector, or a function of two
    return Map(StandardUniform(like, q.batch_shape, count), g, rsample)


def _scale_mixture(q: Any, event_shape: tuple[int, ...], place: Callable[[Tensor, Tensor], Tensor]) -> Map:
    """A function of y = log(X / df), with X chi-squared, and of a Gaussian vector."""
    normal = StandardNormal(q.loc, q.batch_shape, event_shape)
    noise = JointNoise(StandardUniform(q.df, q.batch_shape), normal)

    def g(eps: Tensor) -> Tensor:
        u, normals = noise.split(eps)
        return place(log_gamma_quantile(u, q.df / 2), normals)

    def rsample(sample_shape: torch.Size) -> Tensor:
        return place(draw_log_gamma(q.df / 2, sample_shape + q.batch_shape), normal.sample(sample_shape))

    return Map(noise, g, q.rsample if q.df.dtype == torch.float32 else rsample)
