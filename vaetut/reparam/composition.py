r"""Composition: a function of several simpler variables, $z = f(\epsilon_1, \epsilon_2, \ldots)$.

Chapter 9, *Composition* (AEVB, section 2.4, approach 3). A log-normal variable is the exponential of a Gaussian one
(``eq-comp-log-normal``). A gamma variable with an integer shape k is the sum of k exponential ones
(``eq-comp-convolution``); since k is a count, z has a gradient in the rate and none in the shape. A chi-squared one is
a sum of squares (``eq-comp-chi-squared``). Both maps hold k numbers for each draw, and refuse more than a million.
Beta, Dirichlet, F (``eq-comp-beta``, ``eq-comp-dirichlet``, ``eq-comp-f``) and Student's t are functions of gamma
variables of any shape. For a fixed noise these must depend smoothly on the shape, and so they are drawn by the gamma's
quantile, $G = P^{-1}(a, u)$ with $u \sim U(0, 1)$: it has no closed form, but g solves for it and its derivatives are
exact (``eq-comp-beta-motion``, see `vaetut.distributions.gamma_quantile`). For a univariate z the implicit gradient
never has more variance than that of a composition (``eq-comp-never-lower``).

``rsample`` draws G, with the same distribution and gradient, by a sampler, in logs, so that a G of a small shape does
not underflow. For Student's t and F in float32 the gradient is torch's for a gamma variable of shape 1 or more, which
has a relative error of up to 1e-3 in the shape and is several times as fast.

Relaxed categories (Gumbel-softmax: Jang, Gu and Poole 2017; Concrete: Maddison, Mnih and Teh 2017) are compositions
too: logits plus Gumbel noise, divided by a temperature, through a softmax. z is differentiable in logits and
temperature; this is the gradient for the *relaxed* variable; for the expectation of a categorical variable it is
biased.
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
    InverseGamma,
    LogNormal,
    RelaxedBernoulli,
    RelaxedOneHotCategorical,
    StudentT,
    TransformedDistribution,
)

from vaetut._support.validate import any_true
from vaetut.distributions import Erlang, MultivariateStudentT
from vaetut.distributions._special import bounded_exp, log_max, matvec
from vaetut.distributions.gamma_quantile import draw_log_gamma, log_gamma_quantile, log_standard_gamma
from vaetut.reparam._map import Map
from vaetut.reparam.noise import JointNoise, StandardExponential, StandardNormal, StandardUniform
from vaetut.reparam.registry import families, parameters, register_reparameterization, reparameterize

_QUANTILE = "G(a, u): the quantile of Gamma(a, 1), solved numerically"
_MOST = 10**6  # variables that are added up for one draw; they are all in memory at once


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
    return Map(noise, lambda eps: bounded_exp(torch.addcmul(q.loc, q.scale, eps)))


@_composition(
    Gamma,
    "ε ~ Exp(1)ᵏ, k = concentration",
    g="(ε₁ + … + εₖ) / rate",
    tex=r"\frac1\beta \sum_{i=1}^{k} \epsilon_i",
    differentiable=("rate",),
    listed=True,
    remark="for an integer concentration only, without a gradient in it",
    applies=lambda q: isinstance(q, type) or _is_count(q.concentration),
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
    remark="AEVB lists it under inverse CDF, which has no closed form for k ≥ 2",
    applies=lambda q: isinstance(q, type) or _is_count(q.concentration),
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
    remark="for an integer df only, without a gradient in it",
    applies=lambda q: isinstance(q, type) or _is_count(q.df),
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
    preferred=True,
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
    preferred=True,
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
        return bounded_exp(_log_ratio(y))

    return _of_gammas(q, lambda: torch.stack([q.df1, q.df2], dim=-1) / 2, combine, _draw(q.df1))


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
        return torch.addcmul(q.loc, q.scale, eps.squeeze(-1) * _root(y))

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
        scaled = eps * _root(y).unsqueeze(-1)
        return q.loc + matvec(q._unbroadcasted_scale_tril, scaled)

    return _scale_mixture(q, q.event_shape, place)


@_composition(
    TransformedDistribution,
    "the noise of the base",
    g="the transforms of g(ε) of the base",
    tex=r"(t_n \circ \cdots \circ t_1)\big(g_{\text{base}}(\epsilon)\big)",
    applies=lambda q: isinstance(q, type) or bool(families(q.base_dist)),
)
def transformed(q: TransformedDistribution) -> Map:
    if type(q) is InverseGamma:
        return _inverse_gamma(q)
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
    # a transform may join batch dimensions to the event
    surplus = len(noise.batch_shape) - len(q.batch_shape)
    return Map(
        Independent(noise, surplus, validate_args=False) if surplus else noise, lambda eps: push(g(eps)), draw
    )


@_composition(
    RelaxedOneHotCategorical,
    "u ~ U(0, 1)ᴷ",
    g="softmax((logits − log(−log u)) / temperature)",
    tex=r"\operatorname{softmax}\Big(\frac{\log \pi - \log(-\log u)}{T}\Big)",
    remark="Gumbel-softmax: −log(−log u) is Gumbel noise, and as T goes to 0 z is one-hot with probabilities π",
)
def relaxed_one_hot_categorical(q: RelaxedOneHotCategorical) -> Map:
    def g(u: Tensor) -> Tensor:
        scores = (q.logits - u.log().neg().log()) / q.temperature
        return _inside(scores.softmax(-1), 1 - torch.finfo(u.dtype).eps / 2)

    return Map(StandardUniform(q.logits, q.batch_shape, q.event_shape), g)


@_composition(
    RelaxedBernoulli,
    "u ~ U(0, 1)",
    g="sigmoid((logits + log(u / (1 − u))) / temperature)",
    tex=r"\sigma\Big(\frac{1}{T} \Big(\log\frac{\pi}{1 - \pi} + \log\frac{u}{1 - u}\Big)\Big)",
    remark="binary Concrete: log(u / (1 − u)) is logistic noise, and as T goes to 0 z is 1 with probability π",
)
def relaxed_bernoulli(q: RelaxedBernoulli) -> Map:
    def g(u: Tensor) -> Tensor:
        return _inside(((q.logits + u.logit()) / q.temperature).sigmoid(), 1 - torch.finfo(u.dtype).eps / 2)

    return Map(StandardUniform(q.logits, q.batch_shape), g)


def _inverse_gamma(q: Any) -> Map:
    """rate / G in logs: in float32 the slope of 1/G is infinite for the small G that a concentration of 0.1 has."""

    def invert(y: Tensor) -> Tensor:
        return bounded_exp((q.rate / q.concentration).log() - y)

    def g(u: Tensor) -> Tensor:
        return invert(_quantile(u, q.concentration))

    def rsample(shape: torch.Size) -> Tensor:
        return invert(_draw(q.rate)(q.concentration, shape + q.batch_shape))

    return Map(StandardUniform(q.rate, q.batch_shape), g, rsample)


def _whole(count: Tensor, name: str, q: Distribution) -> tuple[int, Tensor]:
    """The largest count, and a mask of the variables that each entry uses."""
    count = count.detach()
    if not _is_whole(count):
        raise ValueError(
            f"{name} of {type(q).__name__} must be whole numbers via='composition', which adds up that many variables, "
            f"got {count}: use via='implicit'"
        )
    largest = int(count.max()) if count.numel() else 1
    if largest > _MOST:
        raise ValueError(
            f"{name} of {type(q).__name__} must be at most {_MOST:,} via='composition', which adds up that many "
            f"variables for each draw, got {largest:,}: use via='implicit'"
        )
    return largest, torch.arange(largest, device=count.device) < count.unsqueeze(-1)


def _is_whole(count: Tensor) -> bool:
    return not any_true(count != count.round())


def _is_count(count: Tensor) -> bool:
    """Whether as many variables can be added up."""
    return not any_true((count != count.round()) | (count > _MOST))


def _log_ratio(logs: Tensor) -> Tensor:
    """The first of two logs minus the second."""
    first, second = logs.unbind(-1)
    return first - second


def _inside(z: Tensor, top: float) -> Tensor:
    """Clamped to the open interval, as torch does: a density may be infinite at the ends."""
    return z.clamp(torch.finfo(z.dtype).tiny, top)


def _root(y: Tensor) -> Tensor:
    """√(df / X) for y = log(X / df), at most the square root of the largest number of the dtype."""
    return (-y / 2).clamp(max=log_max(y.dtype) / 2).exp()


def _draw(like: Tensor) -> Callable[[Tensor, torch.Size], Tensor]:
    """The sampler of y = log(G / a) for the dtype of ``like``."""
    return _draw_fast if like.dtype == torch.float32 else draw_log_gamma


def _draw_fast(shape: Tensor, size: torch.Size) -> Tensor:
    """Draw y = log(G / a) with the gradient that torch has for its gamma variables."""
    return log_standard_gamma(shape.expand(size))


def _of_gammas(
    q: Any,
    shapes: Callable[[], Tensor],
    combine: Callable[[Tensor, Tensor], Tensor],
    draw: Callable[[Tensor, torch.Size], Tensor] = draw_log_gamma,
) -> Map:
    """A function of y = log(G / a) of independent gamma variables, one for each entry of the last axis of a."""

    def g(u: Tensor) -> Tensor:
        a = shapes()
        return combine(a, _quantile(u, a))

    def rsample(sample_shape: torch.Size) -> Tensor:
        a = shapes()
        return combine(a, draw(a, sample_shape + a.shape))

    like = getattr(q, parameters(type(q))[0])
    count = q.event_shape or (2,)  # a vector, or a function of two
    return Map(StandardUniform(like, q.batch_shape, count), g, rsample)


def _scale_mixture(q: Any, event_shape: tuple[int, ...], place: Callable[[Tensor, Tensor], Tensor]) -> Map:
    """A function of y = log(X / df), with X chi-squared, and of a Gaussian vector."""
    normal = StandardNormal(q.loc, q.batch_shape, event_shape)
    noise = JointNoise(StandardUniform(q.df, q.batch_shape), normal)
    draw = _draw(q.df)

    def g(eps: Tensor) -> Tensor:
        u, normals = noise.split(eps)
        return place(_quantile(u, q.df / 2), normals)

    def rsample(sample_shape: torch.Size) -> Tensor:
        return place(draw(q.df / 2, sample_shape + q.batch_shape), normal.sample(sample_shape))

    return Map(noise, g, rsample)


def _quantile(u: Tensor, shape: Tensor) -> Tensor:
    """`log_gamma_quantile`, but NaN for NaN, for which the solver would return a root."""
    y = log_gamma_quantile(u, shape)
    return torch.where(u.isnan(), u, y)
