"""The elliptical distributions (chapter 8, *Location-scale*)."""

import copy
import inspect
import math
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from vaetut._support.validate import any_true, distribution, finite
from vaetut.distributions._base import (
    as_location_and_scale,
    broadcast_shapes,
    in_dtype_of,
    length_in_parts,
)
from vaetut.distributions._moments import log_moments
from vaetut.distributions._special import matvec


def log_sphere_area(d: int) -> float:
    """The log of the area 2 π^(d/2) / Γ(d/2) of the unit sphere in d dimensions (2 for d = 1: two points)."""
    return math.log(2) + d / 2 * math.log(math.pi) - math.lgamma(d / 2)


def unit_vector(noise: Tensor) -> Tensor:
    """Gaussian vectors divided by their lengths: uniform on the unit sphere."""
    square = noise.square().sum(-1, keepdim=True)
    # randn can return an exact 0, in one dimension a vector without a direction: it is replaced by (1, …, 1).
    lost = (square == 0).to(noise.dtype)
    return (noise + lost) * (square + lost * noise.shape[-1]).rsqrt()


class Elliptical(Distribution):
    r"""An elliptical distribution: $z = \mu + r A u$, with $u$ uniform on the unit sphere and $r \sim$ ``radial``.

    $\log p(x) = \log p_r(r) - (d - 1) \log r - \log \frac{2 \pi^{d/2}}{\Gamma(d/2)} - \log \det A$, where
    $r = \lVert A^{-1} (x - \mu) \rVert$. After $A^{-1}$ the distribution is the same in all directions; ``radial`` is
    the distribution of the distance from the center. In two dimensions ``Rayleigh(1)`` gives
    $\mathcal N(\mu, A A^\top)$. At $x = \mu$ the density is its limit for $r \to 0$.

    Source: Fang, Kotz and Ng (1990), *Symmetric Multivariate and Related Distributions*, chapter 2;
    in AEVB section 2.4 under "location-scale"; chapter 8 (``eq-ls-elliptical``,
    ``eq-ls-elliptical-density``).

    Args:
        radial: the distribution of r: univariate, on positive numbers, batch shape ``[*batch]``. Draws have a
            gradient in its parameters if it has ``rsample``.
        loc: μ, shape ``[*batch, d]``.
        scale_tril: A, lower triangular with a positive diagonal, shape ``[*batch, d, d]``. Batch shapes broadcast.
        validate_args: whether to check arguments and values; torch's default when None.

    Raises:
        TypeError: if ``radial`` is not a torch Distribution, if ``loc`` or ``scale_tril`` is not a float32 or float64
            tensor, or if their dtypes differ.
        ValueError: if ``radial`` is not univariate or not positive, if a parameter is outside its constraint or not
            finite, or if the shapes do not fit.

    Example:
        >>> import torch
        >>> from torch.distributions import Gamma
        >>> q = Elliptical(Gamma(3.0, 1.0), torch.zeros(2), torch.tensor([[1.0, 0.0], [0.5, 2.0]]))
        >>> q.log_prob(torch.ones(2))
        tensor(-4.2246)
        >>> q.variance
        tensor([ 6.0000, 25.5000])
    """

    radial: Distribution
    loc: Tensor
    scale_tril: Tensor
    arg_constraints: ClassVar = {"loc": constraints.real_vector, "scale_tril": constraints.lower_cholesky}
    support = constraints.real_vector

    def __init__(
        self, radial: Distribution, loc: Tensor, scale_tril: Tensor, validate_args: bool | None = None
    ) -> None:
        if distribution(radial, "radial").event_shape:
            raise ValueError(f"radial must be univariate, got one of event shape {list(radial.event_shape)}")
        shape = as_location_and_scale(loc, scale_tril)
        shape = broadcast_shapes(**{"radial": radial.batch_shape, "loc and scale_tril": shape})
        self._set(radial, loc, scale_tril, shape)
        super().__init__(shape, loc.shape[-1:], validate_args=validate_args)
        if self._validate_args:
            for name in self.arg_constraints:
                finite(getattr(self, name), name)
            lower: Any = getattr(radial.support, "lower_bound", -math.inf)
            negative = any_true(lower < 0) if isinstance(lower, Tensor) else lower < 0
            if negative or radial.support.is_discrete:  # type: ignore[union-attr]
                raise ValueError(
                    f"radial must be a continuous distribution on positive numbers, got {type(radial).__name__} "
                    f"with support {radial.support}"
                )

    def _set(self, radial: Distribution, loc: Tensor, scale_tril: Tensor, batch_shape: _size) -> None:
        self.radial = radial.expand(batch_shape)
        self.loc = loc.expand(*batch_shape, -1)
        self.scale_tril = scale_tril.expand(*batch_shape, -1, -1)
        # One matrix for the whole batch is much faster than copies of it.
        self._unbroadcasted_scale_tril = scale_tril

    def expand(self, batch_shape: _size, _instance: Any = None) -> Self:
        """Return the same distribution with its parameters expanded to ``batch_shape``."""
        new = self._get_checked_instance(Elliptical, _instance)  # type: ignore[no-untyped-call]
        new._set(self.radial, self.loc, self._unbroadcasted_scale_tril, batch_shape)
        Distribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether ``radial`` can be drawn with gradients."""
        return self.radial.has_rsample

    @property
    def mean(self) -> Tensor:
        """The mean μ; NaN where ``radial`` has no finite mean."""
        return torch.where(torch.isfinite(self.radial.mean).unsqueeze(-1), self.loc, math.nan)

    @property
    def covariance_factor(self) -> Tensor:
        """E[r²]/d, the factor of A Aᵀ in the covariance."""
        return (self.radial.variance + self.radial.mean.square()) / self.loc.shape[-1]

    @property
    def variance(self) -> Tensor:
        """The variances, the diagonal of the covariance matrix."""
        return self.scale_tril.square().sum(-1) * self.covariance_factor.unsqueeze(-1)

    @property
    def covariance_matrix(self) -> Tensor:
        """The covariance A Aᵀ E[r²]/d."""
        return self.scale_tril @ self.scale_tril.mT * self.covariance_factor.unsqueeze(-1).unsqueeze(-1)

    @property
    def _log_det(self) -> Tensor:
        return self._unbroadcasted_scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def place(self, radius: Tensor, noise: Tensor) -> Tensor:
        """The point μ + r A u, r ``[*sample, *batch]`` a radius and u the direction of Gaussian noise ``[..., d]``."""
        moved = matvec(self._unbroadcasted_scale_tril, unit_vector(noise))
        return torch.addcmul(self.loc, radius.unsqueeze(-1), moved)

    def _place(self, radius: Tensor, generator: torch.Generator | None) -> Tensor:
        shape, loc = radius.shape + self.event_shape, self.loc
        return self.place(radius, torch.randn(shape, dtype=loc.dtype, device=loc.device, generator=generator))

    def _with(self, generator: torch.Generator | None) -> dict[str, torch.Generator]:
        """The keyword argument for the radial's sampler; torch's samplers have no such argument."""
        if generator is None:
            return {}
        if "generator" not in inspect.signature(self.radial.rsample).parameters:
            raise NotImplementedError(
                f"generator must be None with radial {type(self.radial).__name__}, whose sampler has no such argument; "
                "use a radial from vaetut.distributions, or torch.manual_seed"
            )
        return {"generator": generator}

    def sample(self, sample_shape: _size = (), generator: torch.Generator | None = None) -> Tensor:
        """Draw from the distribution, without gradients. Shape sample + batch + [d]."""
        with torch.no_grad():
            return self._place(self.radial.sample(sample_shape, **self._with(generator)), generator)

    def rsample(self, sample_shape: _size = (), generator: torch.Generator | None = None) -> Tensor:
        """Draw with gradients in ``loc``, ``scale_tril`` and the radial's parameters. Shape sample + batch + [d]."""
        return self._place(self.radial.rsample(sample_shape, **self._with(generator)), generator)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density at ``value`` [..., d], in nats; −∞ where r is outside the radial's support."""
        if self._validate_args:
            self._validate_sample(value)
        d = self.loc.shape[-1]
        value = in_dtype_of(self.loc, value)
        square, size, infinite = length_in_parts(self._unbroadcasted_scale_tril, value - self.loc)
        # The smallest r instead of 0: the limit of the density there, and a gradient of 0 instead of NaN.
        radius = square.clamp(min=torch.finfo(square.dtype).tiny).sqrt() * size
        # r is computed with rounding errors, and may lie just outside of the support of a bounded radial.
        radial = copy.copy(self.radial)
        radial._validate_args = False
        support: Any = radial.support
        inside = support.check(radius) | radius.isnan()
        log_radial = torch.where(inside, radial.log_prob(radius), -math.inf)
        log_p = log_radial - (d - 1) * radius.log() - log_sphere_area(d) - self._log_det
        return torch.where(infinite, -math.inf, log_p)

    def __repr__(self) -> str:
        return (
            f"Elliptical(radial: {self.radial}, loc: {self.loc.shape}, scale_tril: {self.scale_tril.shape})"
        )

    def entropy(self) -> Tensor:
        """The entropy H[r] + (d − 1) E[log r] + log(2π^(d/2)/Γ(d/2)) + log det A, in nats.

        Raises:
            NotImplementedError: if vaetut has no closed form of E[log r].
        """
        d = self.loc.shape[-1]
        area = log_sphere_area(d)
        return self.radial.entropy() + (d - 1) * log_moments(self.radial).mean_log + area + self._log_det
