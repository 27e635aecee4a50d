r"""Location-scale: a standard variable, scaled and shifted, $z = \mu + \sigma \epsilon$ or $z = \mu + A \epsilon$.

Chapter 8, *Location-scale* (AEVB, section 2.4, approach 2). A shape parameter of the standard variable, such
as the degrees of freedom of Student's t, is a constant for these maps: z has no gradient in it.
"""

# ruff: noqa: D103 -- the lines above each map say what it does
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Cauchy,
    Distribution,
    Exponential,
    Gumbel,
    HalfCauchy,
    HalfNormal,
    Laplace,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    StudentT,
    Uniform,
)
from torch.types import _size

from vaetut.distributions import Elliptical, Logistic, MultivariateStudentT, Rayleigh, Triangular
from vaetut.distributions._special import matvec
from vaetut.reparam._map import Map
from vaetut.reparam.noise import (
    JointNoise,
    StandardCauchy,
    StandardExponential,
    StandardLaplace,
    StandardNoise,
    StandardNormal,
    StandardUniform,
    check_dtype,
)
from vaetut.reparam.registry import families, register_reparameterization, reparameterize

_LOC_SCALE = {"g": "loc + scale · ε", "tex": r"\mu + \sigma \epsilon"}
_SCALE = {"g": "scale · ε", "tex": r"\sigma \epsilon"}
_MATRIX = {"g": "loc + L ε, with L Lᵀ the covariance", "tex": r"\mu + L \epsilon"}


def _location_scale(
    kind: type[Distribution], noise: str, **texts: Any
) -> Callable[..., Callable[[Any], Map]]:
    if texts.pop("listed", False):
        texts["paper"] = "location_scale"
    return register_reparameterization(kind, "location_scale", noise=noise, **texts)


@_location_scale(Normal, "ε ~ N(0, 1)", **_LOC_SCALE, listed=True, preferred=True)
def normal(q: Normal) -> Map:
    return _affine(q, StandardNormal(q.loc, q.batch_shape))


@_location_scale(Laplace, "ε ~ Laplace(0, 1)", **_LOC_SCALE, listed=True)
def laplace(q: Laplace) -> Map:
    return _affine(q, StandardLaplace(q.loc, q.batch_shape))


@_location_scale(Logistic, "ε ~ Logistic(0, 1)", **_LOC_SCALE, listed=True)
def logistic(q: Logistic) -> Map:
    return _affine(q, _standard(Logistic, q))


@_location_scale(
    StudentT, "ε ~ t with df degrees of freedom", **_LOC_SCALE, listed=True, differentiable=("loc", "scale")
)
def student_t(q: StudentT) -> Map:
    check_dtype(q.df.dtype)
    zero, one = torch.zeros_like(q.loc), torch.ones_like(q.scale)
    return _affine(q, StudentT(q.df.detach(), zero, one, validate_args=False))


@_location_scale(Uniform, "ε ~ U(0, 1)", g="low + (high − low) · ε", tex=r"a + (b - a) \epsilon", listed=True)
def uniform(q: Uniform) -> Map:
    return Map(StandardUniform(q.low, q.batch_shape), lambda eps: torch.lerp(q.low, q.high, eps))


@_location_scale(
    Triangular,
    "ε ~ U(0, 1)²",
    g="low + (peak − low) · max ε + (high − peak) · min ε",
    tex=r"a + (c - a) \max(\epsilon_1, \epsilon_2) + (b - c) \min(\epsilon_1, \epsilon_2)",
    listed=True,
    remark="linear in all three parameters, also in the peak: a coordinate of a uniform point in a triangle",
)
def triangular(q: Triangular) -> Map:
    def g(eps: Tensor) -> Tensor:
        small, large = eps.unbind(-1)
        small, large = torch.minimum(small, large), torch.maximum(small, large)
        return q.low + (q.peak - q.low) * large + (q.high - q.peak) * small

    return Map(StandardUniform(q.low, q.batch_shape, (2,)), g)


@_location_scale(
    Elliptical,
    "r ~ radial, ε ~ N(0, I)",
    g="loc + r · A ε / ‖ε‖, with A = scale_tril",
    tex=r"\mu + r A \frac{\epsilon}{\|\epsilon\|}",
    listed=True,
    remark="r = g(ε₀) by the radial distribution's own map, with its gradients",
    applies=lambda q: isinstance(q, type) or bool(families(q.radial)),
)
def elliptical(q: Elliptical) -> Map:
    radial = reparameterize(q.radial)
    noise = JointNoise(radial.noise, StandardNormal(q.loc, q.batch_shape, q.event_shape))

    def g(eps: Tensor) -> Tensor:
        first, direction = noise.split(eps)
        return q.place(radial.g(first), direction)

    def rsample(shape: torch.Size) -> Tensor:
        return q.place(radial.rsample(shape), noise.parts[1].sample(shape))

    return Map(noise, g, rsample)


@_location_scale(Cauchy, "ε ~ Cauchy(0, 1)", **_LOC_SCALE)
def cauchy(q: Cauchy) -> Map:
    return _affine(q, StandardCauchy(q.loc, q.batch_shape))


@_location_scale(Gumbel, "ε ~ Gumbel(0, 1)", **_LOC_SCALE)
def gumbel(q: Gumbel) -> Map:
    return _affine(q, _standard(Gumbel, q))


@_location_scale(Exponential, "ε ~ Exp(1)", g="ε / rate", tex=r"\epsilon / \lambda")
def exponential(q: Exponential) -> Map:
    return Map(StandardExponential(q.rate, q.batch_shape), lambda eps: eps / q.rate)


@_location_scale(Rayleigh, "ε ~ Rayleigh(1)", **_SCALE)
def rayleigh(q: Rayleigh) -> Map:
    one = Rayleigh(torch.ones_like(q.scale), validate_args=False)
    return Map(StandardVariable(one), lambda eps: q.scale * eps)


@_location_scale(HalfNormal, "ε ~ N(0, 1)", g="scale · |ε|", tex=r"\sigma |\epsilon|", preferred=True)
def half_normal(q: HalfNormal) -> Map:
    return Map(StandardNormal(q.scale, q.batch_shape), lambda eps: q.scale * eps.abs())


@_location_scale(HalfCauchy, "ε ~ Cauchy(0, 1)", g="scale · |ε|", tex=r"s |\epsilon|")
def half_cauchy(q: HalfCauchy) -> Map:
    return Map(StandardCauchy(q.scale, q.batch_shape), lambda eps: q.scale * eps.abs())


@_location_scale(MultivariateNormal, "ε ~ N(0, I)", **_MATRIX)
def multivariate_normal(q: MultivariateNormal) -> Map:
    factor = q._unbroadcasted_scale_tril  # torch's Cholesky factor, not yet copied over the batch
    noise = StandardNormal(q.loc, q.batch_shape, q.event_shape)
    return Map(noise, lambda eps: q.loc + matvec(factor, eps))


@_location_scale(
    LowRankMultivariateNormal,
    "ε ~ N(0, I)",
    g="loc + W ε₁ + √D ε₂, with W Wᵀ + D the covariance",
    tex=r"\mu + W \epsilon_1 + \sqrt{D} \epsilon_2",
)
def low_rank_normal(q: LowRankMultivariateNormal) -> Map:
    factor, diagonal = q._unbroadcasted_cov_factor, q._unbroadcasted_cov_diag
    sizes = [factor.shape[-1], q.event_shape[0]]

    def g(eps: Tensor) -> Tensor:
        first, second = torch.split(eps, sizes, dim=-1)
        return torch.addcmul(q.loc + matvec(factor, first), diagonal.sqrt(), second)

    return Map(StandardNormal(q.loc, q.batch_shape, (sum(sizes),)), g)


@_location_scale(
    MultivariateStudentT,
    "ε ~ t(df, 0, I)",
    g="loc + A ε, with A = scale_tril",
    tex=r"\mu + A \epsilon",
    differentiable=("loc", "scale_tril"),
)
def multivariate_student_t(q: MultivariateStudentT) -> Map:
    identity = torch.eye(q.event_shape[0], dtype=q.loc.dtype, device=q.loc.device).expand_as(q.scale_tril)
    noise = MultivariateStudentT(q.df.detach(), torch.zeros_like(q.loc), identity, validate_args=False)
    return Map(noise, lambda eps: q.loc + matvec(q._unbroadcasted_scale_tril, eps))


def _affine(q: Any, noise: Distribution) -> Map:
    return Map(noise, lambda eps: torch.addcmul(q.loc, q.scale, eps))


class StandardVariable(StandardNoise):
    """The standard member of a location-scale family, drawn by its inverse CDF."""

    def __init__(self, standard: Any) -> None:
        self.standard = standard
        self.one = standard.support
        super().__init__(standard.scale, standard.batch_shape)

    def expand(self, batch_shape: _size, _instance: Any = None) -> Any:
        """Return the same noise with another batch shape."""
        return StandardVariable(self.standard.expand(batch_shape))

    def rsample(self, sample_shape: _size = (), generator: torch.Generator | None = None) -> Tensor:
        """Draw ``[*sample_shape, *batch_shape]``, from the global generator if none is given."""
        return reparameterize(self.standard, "inverse_cdf").rsample(sample_shape, generator)

    sample = rsample

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats."""
        density: Tensor = self.standard.log_prob(value)
        return density

    def cdf(self, value: Tensor) -> Tensor:
        """The CDF."""
        probability: Tensor = self.standard.cdf(value)
        return probability

    def __repr__(self) -> str:
        return f"StandardVariable({self.standard})"


def _standard(kind: type[Any], q: Any) -> StandardVariable:
    return StandardVariable(kind(torch.zeros_like(q.scale), torch.ones_like(q.scale), validate_args=False))
