"""The noise p(ε) of the maps in this folder: standard variables that do not depend on parameters.

Chapter 6, *The reparameterization trick*. Each class holds only shapes, a dtype and a device, so no gradient can pass
through it.
"""

import functools
import math
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints
from torch.types import _size

from vaetut.distributions._special import HALF_LOG_2PI, open_uniform


class _OpenUnitInterval(constraints.Constraint):
    event_dim = 0

    def check(self, value: Tensor) -> Tensor:
        return (value > 0) & (value < 1)

    def __repr__(self) -> str:
        return "OpenUnitInterval()"


class StandardNoise(Distribution):
    """Independent standard variables, ``event_shape`` of them for one draw of z.

    Args:
        like: a tensor whose dtype and device the noise takes.
        batch_shape: the batch shape of the distribution that is reparameterized.
        event_shape: how many variables one draw needs.

    Raises:
        TypeError: if ``like`` is neither float32 nor float64.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = True
    one: constraints.Constraint  # the support of a single variable

    def __init__(self, like: Tensor, batch_shape: _size, event_shape: _size = ()) -> None:
        check_dtype(like.dtype)
        self.dtype, self.device = like.dtype, like.device
        # What Distribution.__init__ does without checks, but faster: a noise is constructed for every draw.
        self._batch_shape, self._event_shape = torch.Size(batch_shape), torch.Size(event_shape)
        self._validate_args = False

    @property
    def support(self) -> constraints.Constraint:
        """Where the noise lies."""
        independent: Any = constraints.independent
        return independent(self.one, len(self.event_shape)) if self.event_shape else self.one

    def expand(self, batch_shape: _size, _instance: Any = None) -> Self:
        """Return the same noise with another batch shape."""
        new: Self = self._get_checked_instance(type(self), _instance)  # type: ignore[no-untyped-call]
        new.dtype, new.device = self.dtype, self.device
        Distribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        return new

    def rsample(self, sample_shape: _size = (), generator: torch.Generator | None = None) -> Tensor:
        """Draw ``[*sample_shape, *batch_shape, *event_shape]``, from the global generator if none is given."""
        shape = torch.Size(sample_shape) + self._batch_shape + self._event_shape
        return self.draw(shape, self.dtype, self.device, generator)

    sample = rsample  # nothing here has a gradient

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats, summed over the event."""
        density = self._log_density(value)
        return density.sum(tuple(range(-len(self.event_shape), 0))) if self.event_shape else density

    @staticmethod
    def draw(
        shape: torch.Size, dtype: torch.dtype, device: torch.device, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw independent variables into ``shape``."""
        raise NotImplementedError

    def _log_density(self, value: Tensor) -> Tensor:
        raise NotImplementedError


class StandardUniform(StandardNoise):
    """U(0, 1) on the open interval (chapter 7): neither 0 nor 1 is ever drawn, so the quantile of a draw is finite.

    Example:
        >>> StandardUniform(torch.zeros(()), (2,)).sample((3,)).shape
        torch.Size([3, 2])
    """

    one = _OpenUnitInterval()

    @staticmethod
    def draw(
        shape: torch.Size, dtype: torch.dtype, device: torch.device, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw independent variables into ``shape``."""
        return open_uniform(shape, dtype=dtype, device=device, generator=generator)

    def _log_density(self, value: Tensor) -> Tensor:
        return torch.zeros_like(value)

    def cdf(self, value: Tensor) -> Tensor:
        """F(u) = u."""
        return value


class StandardNormal(StandardNoise):
    """N(0, I) (chapter 8).

    Example:
        >>> StandardNormal(torch.zeros(()), (), (3,)).log_prob(torch.zeros(3))
        tensor(-2.7568)
    """

    one = constraints.real

    @staticmethod
    def draw(
        shape: torch.Size, dtype: torch.dtype, device: torch.device, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw independent variables into ``shape``."""
        return torch.randn(shape, dtype=dtype, device=device, generator=generator)

    def _log_density(self, value: Tensor) -> Tensor:
        return -0.5 * value.square() - HALF_LOG_2PI

    def cdf(self, value: Tensor) -> Tensor:
        """Φ(ε), of each variable of the event."""
        result: Tensor = torch.special.ndtr(value)
        return result


class StandardExponential(StandardNoise):
    """Exp(1), drawn as −log u (chapter 7).

    Example:
        >>> StandardExponential(torch.zeros(()), (), (2,)).log_prob(torch.tensor([1.0, 2.0]))
        tensor(-3.)
    """

    one = constraints.positive

    @staticmethod
    def draw(
        shape: torch.Size, dtype: torch.dtype, device: torch.device, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw independent variables into ``shape``."""
        return open_uniform(shape, dtype=dtype, device=device, generator=generator).log_().neg_()

    def _log_density(self, value: Tensor) -> Tensor:
        return -value

    def cdf(self, value: Tensor) -> Tensor:
        """1 − e^−ε, of each variable of the event."""
        return -torch.expm1(-value)


class StandardLaplace(StandardNoise):
    """Laplace(0, 1) (chapter 8).

    Example:
        >>> StandardLaplace(torch.zeros(()), ()).log_prob(torch.tensor(1.0))
        tensor(-1.6931)
    """

    one = constraints.real

    @staticmethod
    def draw(
        shape: torch.Size, dtype: torch.dtype, device: torch.device, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw independent variables into ``shape``."""
        # In place, about the center: u − ½ is exact for the values of open_uniform on a CPU, and never ½ or −½.
        side = open_uniform(shape, dtype=dtype, device=device, generator=generator).sub_(0.5)
        return side.abs().mul_(-2).log1p_().copysign_(side)

    def _log_density(self, value: Tensor) -> Tensor:
        return -value.abs() - math.log(2)

    def cdf(self, value: Tensor) -> Tensor:
        """½ e^ε below 0 and 1 − ½ e^−ε above, of each variable of the event."""
        return 0.5 - 0.5 * value.sign() * torch.expm1(-value.abs())


class StandardCauchy(StandardNoise):
    """Cauchy(0, 1) (chapter 7).

    Example:
        >>> StandardCauchy(torch.zeros(()), ()).log_prob(torch.tensor(0.0))
        tensor(-1.1447)
    """

    one = constraints.real

    @staticmethod
    def draw(
        shape: torch.Size, dtype: torch.dtype, device: torch.device, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw independent variables into ``shape``."""
        # The cotangent of a uniform angle: large draws come from small angles, where floating point is precise. The
        # angle is shifted by less than the spacing of the uniform numbers near ½, so that it is never 0.
        turn = (
            torch.rand(shape, dtype=dtype, device=device, generator=generator)
            .sub_(0.5)
            .add_(torch.finfo(dtype).eps / 16)
        )
        return turn.mul_(math.pi).tan_().reciprocal_()

    def _log_density(self, value: Tensor) -> Tensor:
        return -torch.log1p(value.square()) - math.log(math.pi)

    def cdf(self, value: Tensor) -> Tensor:
        """½ + arctan(ε) / π, of each variable of the event."""
        return 0.5 + value.atan() / math.pi


class JointNoise(Distribution):
    """Several independent noises with one batch shape, flattened and concatenated to one vector (chapter 9).

    Args:
        parts: the noises; each uses as many entries of the event as its own event has.

    Example:
        >>> like = torch.zeros(())
        >>> noise = JointNoise(StandardUniform(like, (5,)), StandardNormal(like, (5,), (3,)))
        >>> noise.batch_shape, noise.event_shape
        (torch.Size([5]), torch.Size([4]))
        >>> [part.shape for part in noise.split(noise.sample())]
        [torch.Size([5]), torch.Size([5, 3])]
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = True

    def __init__(self, *parts: Distribution) -> None:
        self.parts = parts
        dtypes = [dtype for dtype in map(dtype_of, parts) if dtype is not None]
        self.dtype = functools.reduce(torch.promote_types, dtypes) if dtypes else None
        size = sum(part.event_shape.numel() for part in parts)
        super().__init__(parts[0].batch_shape, torch.Size([size]), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Where the noise lies."""
        cat: Any = constraints.cat
        lengths = [part.event_shape.numel() for part in self.parts]
        return cat([_flat(part) for part in self.parts], dim=-1, lengths=lengths)

    def expand(self, batch_shape: _size, _instance: Any = None) -> "JointNoise":
        """Return the same noise with another batch shape."""
        return JointNoise(*(part.expand(batch_shape) for part in self.parts))

    def split(self, eps: Tensor) -> list[Tensor]:
        """The values of each part, in the part's own event shape and dtype."""
        pieces = torch.split(eps, [part.event_shape.numel() for part in self.parts], dim=-1)
        return [
            piece.reshape(eps.shape[:-1] + part.event_shape).to(dtype_of(part) or piece.dtype)
            for piece, part in zip(pieces, self.parts, strict=True)
        ]

    def rsample(self, sample_shape: _size = (), generator: torch.Generator | None = None) -> Tensor:
        """Draw ``[*sample_shape, *batch_shape, *event_shape]``, from the global generator if none is given."""
        draws = [sample_noise(part, sample_shape, generator) for part in self.parts]
        return torch.cat(
            [
                draw.reshape(*draw.shape[: draw.dim() - len(part.event_shape)], part.event_shape.numel())
                for draw, part in zip(draws, self.parts, strict=True)
            ],
            dim=-1,
        )

    sample = rsample

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats, summed over the parts."""
        pairs = zip(self.parts, self.split(value), strict=True)
        return torch.stack([part.log_prob(piece) for part, piece in pairs]).sum(0)


def sample_noise(noise: Distribution, sample_shape: _size, generator: torch.Generator | None) -> Tensor:
    """Draw noise with a generator, even if it is a torch distribution, whose sampler takes no generator.

    A torch distribution is drawn by its own map, from the noise of that map.
    """
    if generator is None:
        return noise.sample(torch.Size(sample_shape))
    while isinstance(noise, Independent):
        noise = noise.base_dist
    if isinstance(noise, StandardNoise | JointNoise):
        return noise.sample(sample_shape, generator)
    from vaetut.reparam.registry import reparameterize

    with torch.no_grad():
        return reparameterize(noise).rsample(sample_shape, generator)


def check_dtype(dtype: torch.dtype | None) -> None:
    """Refuse parameters in float16 and bfloat16, in which a density has too few digits; None passes."""
    if dtype not in (None, torch.float32, torch.float64):
        raise TypeError(f"the parameters must have dtype torch.float32 or torch.float64, got {dtype}")


def dtype_of(noise: Distribution) -> torch.dtype | None:
    """The dtype of the draws of a noise, which may be a torch distribution; None if it is unknown."""
    while isinstance(noise, Independent):
        noise = noise.base_dist
    known: torch.dtype | None = getattr(noise, "dtype", None)
    if known is None:
        for value in vars(noise).values():
            if isinstance(value, Tensor) and value.is_floating_point():
                return value.dtype
    return known


def _flat(part: Distribution) -> Any:
    """The support of one variable of a part, for any event shape."""
    support: Any = part.support
    return getattr(support, "base_constraint", support)
