"""The multivariate Student's t distribution (chapter 8, *Location-scale*)."""

import math
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size

from vaetut._support.validate import finite
from vaetut.distributions._base import (
    as_location_and_scale,
    as_number,
    as_parameters,
    broadcast_shapes,
    in_dtype_of,
    length_in_parts,
)
from vaetut.distributions._special import matvec
from vaetut.distributions._stirling import digamma_difference, log_gamma_ratio
from vaetut.distributions.gamma_quantile import log_standard_gamma


class MultivariateStudentT(Distribution):
    r"""Student's t distribution of a vector: $z = \mu + A \epsilon / \sqrt{g/\nu}$, $\epsilon \sim \mathcal N(0, I)$,
    $g \sim \chi^2(\nu)$.

    $\log p(x) = \log \Gamma(\frac{\nu + d}2) - \log \Gamma(\frac\nu2) - \frac d2 \log(\nu \pi) - \log \det A
    - \frac{\nu + d}2 \log(1 + \lVert A^{-1} (x - \mu) \rVert^2 / \nu)$.
    The tails are heavy for small $\nu$; for large $\nu$ it approaches $\mathcal N(\mu, A A^\top)$, in float32 too.

    Source: Kotz and Nadarajah (2004), *Multivariate t Distributions and Their Applications*; Student's t is in AEVB
    section 2.4 under "location-scale"; chapter 8 (``eq-ls-student``, ``eq-ls-f-radius``).

    Args:
        df: ν, positive: the degrees of freedom. Shape ``[*batch]``.
        loc: μ, shape ``[*batch, d]``.
        scale_tril: A, lower triangular with a positive diagonal, shape ``[*batch, d, d]``. Batch shapes broadcast.
        validate_args: whether to check arguments and values; torch's default when None.

    Raises:
        TypeError: if a parameter is not a float32 or float64 tensor (``df`` may be a number), or the dtypes differ.
        ValueError: if a parameter is outside its constraint or not finite, or if the shapes do not fit.

    Example:
        >>> import torch
        >>> q = MultivariateStudentT(4.0, torch.zeros(2), torch.tensor([[1.0, 0.0], [0.5, 2.0]]))
        >>> q.covariance_matrix
        tensor([[2.0000, 1.0000],
                [1.0000, 8.5000]])
        >>> q.log_prob(torch.zeros(2))
        tensor(-2.5310)
    """

    df: Tensor
    loc: Tensor
    scale_tril: Tensor
    arg_constraints: ClassVar = {
        "df": constraints.positive,
        "loc": constraints.real_vector,
        "scale_tril": constraints.lower_cholesky,
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, df: Tensor | float, loc: Tensor, scale_tril: Tensor, validate_args: bool | None = None
    ) -> None:
        shape = as_location_and_scale(loc, scale_tril)
        (checked,) = as_parameters(df=df)
        df = checked if isinstance(df, Tensor) else loc.new_tensor(as_number(df))
        if df.dtype != loc.dtype:
            raise TypeError(f"df and loc must have the same dtype, got {df.dtype} and {loc.dtype}")
        shape = broadcast_shapes(**{"df": df.shape, "loc and scale_tril": shape})
        self._set(df, loc, scale_tril, shape)
        super().__init__(shape, loc.shape[-1:], validate_args=validate_args)
        if self._validate_args:
            for name in self.arg_constraints:
                finite(getattr(self, name), name)

    def _set(self, df: Tensor, loc: Tensor, scale_tril: Tensor, batch_shape: _size) -> None:
        self.df = df.expand(batch_shape)
        self.loc = loc.expand(*batch_shape, -1)
        self.scale_tril = scale_tril.expand(*batch_shape, -1, -1)
        # One matrix, or one ν, for the whole batch is much faster than copies of it.
        self._unbroadcasted_df, self._unbroadcasted_scale_tril = df, scale_tril

    def expand(self, batch_shape: _size, _instance: Any = None) -> Self:
        """Return the same distribution with its parameters expanded to ``batch_shape``."""
        new = self._get_checked_instance(MultivariateStudentT, _instance)  # type: ignore[no-untyped-call]
        new._set(self._unbroadcasted_df, self.loc, self._unbroadcasted_scale_tril, batch_shape)
        Distribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """The mean μ; NaN for ν ≤ 1, where it does not exist."""
        return torch.where(self.df.unsqueeze(-1) > 1, self.loc, math.nan)

    @property
    def mode(self) -> Tensor:
        """The mode μ."""
        return self.loc

    def _scaled(self, square: Tensor, dims: int) -> Tensor:
        """``square`` · ν/(ν − 2) for ν > 2; ∞ for 1 < ν ≤ 2 and NaN for ν ≤ 1, with a gradient of 0 there."""
        df = self.df.reshape(self.df.shape + (1,) * dims)
        exists = df > 2
        missing = torch.full_like(df, math.nan).masked_fill(df > 1, math.inf)
        return torch.where(exists, square * (df / (torch.where(exists, df, 3.0) - 2)), missing)

    @property
    def covariance_factor(self) -> Tensor:
        """ν/(ν − 2), the factor of A Aᵀ in the covariance; ∞ for 1 < ν ≤ 2 and NaN for ν ≤ 1."""
        return self._scaled(torch.ones_like(self.df), 0)

    @property
    def variance(self) -> Tensor:
        """The variances, the diagonal of the covariance matrix; ∞ for 1 < ν ≤ 2 and NaN for ν ≤ 1."""
        return self._scaled(self.scale_tril.square().sum(-1), 1)

    @property
    def covariance_matrix(self) -> Tensor:
        """The covariance A Aᵀ ν/(ν − 2); NaN unless ν > 2."""
        covariance = self._scaled(self.scale_tril @ self.scale_tril.mT, 2)
        return torch.where(torch.isinf(covariance), math.nan, covariance)

    @property
    def _log_peak(self) -> Tensor:
        """log p(μ) = log Γ((ν + d)/2) − log Γ(ν/2) − (d/2) log(νπ) − log det A."""
        a = self.loc.shape[-1] / 2
        log_det = self._unbroadcasted_scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return log_gamma_ratio(self._unbroadcasted_df / 2, a) - a * math.log(2 * math.pi) - log_det

    def rsample(self, sample_shape: _size = (), generator: torch.Generator | None = None) -> Tensor:
        """Draw from the distribution, with gradients in all three parameters. Shape sample + batch + [d].

        With a small ν some draws exceed the range of the dtype: these become its largest finite number.
        """
        shape = self._extended_shape(sample_shape)
        dtype, device = self.loc.dtype, self.loc.device
        noise = torch.randn(shape, dtype=dtype, device=device, generator=generator)
        y = log_standard_gamma(self.df.expand(shape[:-1]) / 2, generator)  # log(χ²(ν)/ν)
        length = (-0.5 * y.clamp(min=-2 * math.log(torch.finfo(dtype).max) + 10)).exp()
        return torch.addcmul(self.loc, length.unsqueeze(-1), matvec(self._unbroadcasted_scale_tril, noise))

    def sample(self, sample_shape: _size = (), generator: torch.Generator | None = None) -> Tensor:
        """Draw from the distribution, without gradients. Shape sample + batch + [d]."""
        with torch.no_grad():
            return self.rsample(sample_shape, generator=generator)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density at ``value`` [..., d], in nats."""
        if self._validate_args:
            self._validate_sample(value)
        value = in_dtype_of(self.loc, value)
        square, size, infinite = length_in_parts(self._unbroadcasted_scale_tril, value - self.loc)
        df = self._unbroadcasted_df
        far = size > 1
        ratio = square / df
        log_far = torch.where(far, ratio, 1.0).log() + 2 * size.log()  # 1 is negligible there
        log_rise = torch.where(far, log_far, torch.where(far, 0.0, ratio).log1p())
        log_p = -0.5 * (df + self.loc.shape[-1]) * log_rise + self._log_peak
        return torch.where(infinite, -math.inf, log_p)

    def entropy(self) -> Tensor:
        """The entropy (ν + d)/2 · (ψ((ν + d)/2) − ψ(ν/2)) − log p(μ), in nats."""
        half, a = self._unbroadcasted_df / 2, self.loc.shape[-1] / 2
        return ((half + a) * digamma_difference(half, a) - self._log_peak).expand(self.batch_shape)
