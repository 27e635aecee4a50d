"""Shared by the distributions of this folder: arguments, checks of values, and the base class for scalars."""

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.multivariate_normal import _batch_mahalanobis
from torch.distributions.utils import broadcast_all
from torch.types import _size

from vaetut._support.validate import any_true, finite, float_tensor
from vaetut.distributions._special import open_uniform

FLOATS = (torch.float32, torch.float64)
ONLY_FLOATS = "must be a number or a torch.Tensor of dtype torch.float32 or torch.float64"


def as_number(value: Any) -> Any:
    """A tensor unchanged; a number of NumPy or of any other kind as a Python number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def as_parameters(**values: Tensor | float) -> list[Tensor]:
    """Broadcast numbers and tensors against one another, as torch.distributions does, into tensors of one dtype."""
    values = {name: as_number(value) for name, value in values.items()}
    for name, value in values.items():
        if isinstance(value, Tensor):
            if value.dtype not in FLOATS:
                raise TypeError(f"{name} {ONLY_FLOATS}, got dtype {value.dtype}")
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name} {ONLY_FLOATS}, got {type(value).__name__}")
    default = torch.get_default_dtype()
    if default not in FLOATS and not any(isinstance(value, Tensor) for value in values.values()):
        raise TypeError(f"{next(iter(values))} {ONLY_FLOATS}, got a number and the default dtype {default}")
    try:
        tensors = broadcast_all(*values.values())
    except RuntimeError as error:
        shapes = ", ".join(f"{name} {tuple(v.shape)}" for name, v in values.items() if isinstance(v, Tensor))
        raise ValueError(f"the parameters must broadcast against one another, got shapes {shapes}") from error
    if len({t.dtype for t in tensors}) == 1:
        return list(tensors)
    return [t.double() for t in tensors]


def as_location_and_scale(loc: Tensor, scale_tril: Tensor) -> torch.Size:
    """The batch shape that a vector ``loc`` [*batch, d] and a matrix ``scale_tril`` [*batch, d, d] have together."""
    float_tensor(loc, "loc")
    float_tensor(scale_tril, "scale_tril")
    if loc.dtype != scale_tril.dtype:
        raise TypeError(
            f"loc and scale_tril must have the same dtype, got {loc.dtype} and {scale_tril.dtype}"
        )
    if loc.dim() < 1 or scale_tril.dim() < 2 or scale_tril.shape[-2:] != loc.shape[-1:] * 2:
        raise ValueError(
            "loc must have shape [*batch, d] and scale_tril [*batch, d, d], "
            f"got {list(loc.shape)} and {list(scale_tril.shape)}"
        )
    return broadcast_shapes(loc=loc.shape[:-1], scale_tril=scale_tril.shape[:-2])


def broadcast_shapes(**shapes: torch.Size) -> torch.Size:
    """The shape that the batch ``shapes`` of the named parameters broadcast to."""
    try:
        return torch.Size(torch.broadcast_shapes(*shapes.values()))
    except RuntimeError as error:
        listed = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ValueError(f"the batch shapes must broadcast against one another, got {listed}") from error


def squared_length(scale_tril: Tensor, difference: Tensor) -> Tensor:
    """|A⁻¹ x|² for a lower triangular A [*batch, d, d] and x [*sample, *batch, d], without copies of A."""
    result: Tensor = _batch_mahalanobis(scale_tril, difference)
    return result


def length_in_parts(scale_tril: Tensor, difference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q, s and a mask with |A⁻¹ x|² = q s², where s is 1 unless the square may overflow, and x is infinite in the mask.

    Where it is, q is 0.
    """
    largest = difference.detach().abs().amax(-1)
    infinite = largest.isinf()
    far = (largest > torch.finfo(largest.dtype).max ** 0.4) & largest.isfinite()
    size = torch.where(far, largest, 1.0)
    near = torch.where(infinite.unsqueeze(-1), 0.0, difference) / size.unsqueeze(-1)
    return squared_length(scale_tril, near), size, infinite


def pick(side: Tensor, zero: Tensor, one: Tensor) -> Tensor:
    """``zero`` where ``side`` is 0, ``one`` where it is 1: exactly, and faster on a CPU than `torch.where`."""
    return torch.addcmul((1 - side) * zero, side, one)


class Univariate(Distribution):
    """A continuous distribution on the line, drawn as the quantile of uniform noise: z = F⁻¹(u).

    A subclass names its parameters in ``arg_constraints``, in the order of its constructor, and defines `_quantile`,
    ``log_prob``, ``cdf``, ``log_cdf`` and ``log_survival``.
    """

    has_rsample = True

    def __init__(self, validate_args: bool | None, **values: Tensor | float) -> None:
        for name, tensor in zip(values, as_parameters(**values), strict=True):
            setattr(self, name, tensor)
        super().__init__(tensor.shape, validate_args=validate_args)
        if self._validate_args:
            for name in values:
                finite(getattr(self, name), name)

    def _expect(self, holds: Tensor, constraint: str) -> None:
        """Raise ValueError unless a relation between two parameters ``holds``."""
        if self._validate_args and any_true(~holds):
            values = ", ".join(f"{name}={getattr(self, name).detach()}" for name in self.arg_constraints)
            raise ValueError(
                f"Expected the parameters of {type(self).__name__} to satisfy {constraint}, got {values}"
            )

    def expand(self, batch_shape: _size, _instance: Any = None) -> Self:
        """Return the same distribution with its parameters expanded to ``batch_shape``."""
        # The class that defines the constructor: a subclass with its own constructor must define expand.
        owner = next(c for c in type(self).__mro__ if "arg_constraints" in vars(c))
        new = self._get_checked_instance(owner, _instance)  # type: ignore[no-untyped-call]
        for name in self.arg_constraints:
            setattr(new, name, getattr(self, name).expand(batch_shape))
        Distribution.__init__(new, torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def _parameter(self) -> Tensor:
        """One of the parameters, for its dtype and device."""
        first: Tensor = getattr(self, next(iter(self.arg_constraints)))
        return first

    def _quantile(self, u: Tensor) -> Tensor:
        raise NotImplementedError

    def rsample(self, sample_shape: _size = (), generator: torch.Generator | None = None) -> Tensor:
        """Draw z = F⁻¹(u), u uniform on (0, 1): differentiable in every parameter. Shape sample + batch."""
        like = self._parameter
        shape = self._extended_shape(sample_shape)
        return self._quantile(open_uniform(shape, dtype=like.dtype, device=like.device, generator=generator))

    def sample(self, sample_shape: _size = (), generator: torch.Generator | None = None) -> Tensor:
        """Draw from the distribution, without gradients. Shape sample + batch."""
        with torch.no_grad():
            return self.rsample(sample_shape, generator=generator)

    def _checked(self, value: Tensor) -> Tensor:
        """``value``, validated, in the wider of its own dtype and the parameters'."""
        if self._validate_args:
            self._validate_sample(value)
        return in_dtype_of(self._parameter, value)

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile function F⁻¹ at probabilities in [0, 1]."""
        if self._validate_args:
            check_probability(value)
        return self._quantile(in_dtype_of(self._parameter, value))

    def survival(self, value: Tensor) -> Tensor:
        """The upper tail 1 − F(x), to full relative precision where it is tiny."""
        return self.log_survival(value).exp()

    def log_survival(self, value: Tensor) -> Tensor:
        """The log of the upper tail, log(1 − F(x))."""
        raise NotImplementedError


def in_dtype_of(parameter: Tensor, value: Tensor) -> Tensor:
    """``value`` in the wider of both dtypes, so that also the log of an integer or a float32 is computed in it."""
    dtype = torch.promote_types(value.dtype, parameter.dtype)
    return value if value.dtype == dtype else value.to(dtype)


def log_to_zero(x: Tensor) -> Tensor:
    """log x for x ≥ 0, −∞ with an infinite slope at 0; but 0 times that slope is 0, so that the slope of p is no NaN.

    At 0 the smallest positive number takes the place of x: 0 divided by it is 0, and 1 divided by it is ∞.
    """
    zero = x == 0
    least = torch.finfo(x.dtype).smallest_normal * torch.finfo(x.dtype).eps
    return torch.where(zero, x + least, x).log() + torch.zeros_like(x).masked_fill(zero, -math.inf)


def zero_outside(
    q: Distribution,
    value: Tensor,
    harmless: Tensor,
    log_density: Callable[[Tensor], Tensor],
    far: Tensor | float | None = None,
) -> Tensor:
    """log p where ``value`` lies in the support of q and below ``far``, −∞ elsewhere, and NaN for NaN.

    From ``far`` on log p is −∞ by overflow, and so is its slope; the product with p = 0, which is the slope of p,
    would be NaN. A value that was validated lies inside of the support. A ``harmless`` point of the support replaces
    each value outside, where the density may be infinite or NaN, which would make all gradients NaN.
    """
    inside = None if far is None else (value < far) | value.isnan()
    if not q._validate_args:
        support: constraints.Constraint = q.support  # type: ignore[assignment]
        within = support.check(value) | value.isnan()
        inside = within if inside is None else inside & within
    if inside is None:
        return log_density(value)
    return torch.where(inside, log_density(torch.where(inside, value, harmless.detach())), -math.inf)


def check_probability(value: Tensor) -> None:
    """Raise ValueError unless every entry of ``value`` lies in [0, 1]."""
    if not isinstance(value, Tensor):
        raise TypeError(f"value must be a torch.Tensor of probabilities, got {type(value).__name__}")
    if any_true(~((value >= 0) & (value <= 1))):
        raise ValueError(f"Expected value to be a probability in [0, 1], got {value}")
