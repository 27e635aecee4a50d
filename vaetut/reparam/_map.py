r"""What a reparameterization is: a noise and a map (chapter 6, *The reparameterization trick*)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.types import _size

from vaetut._support.validate import any_true, float_tensor
from vaetut.reparam.noise import dtype_of, sample_noise


class Map(NamedTuple):
    """The return value of a registered function: the map of one distribution (chapter 6, ``eq-reparameterization``).

    ``noise`` and ``g`` are None if draws have a gradient but do not come from one map (the implicit Dirichlet).
    ``rsample``, if given, is a faster way to draw ``g(noise.sample(shape))``, with the same gradients.

    Example:
        >>> from vaetut.reparam.noise import StandardNormal
        >>> mu = torch.tensor([1.0, 2.0])
        >>> Map(StandardNormal(mu, (2,)), lambda eps: mu + 3 * eps).g(torch.tensor([1.0, -1.0]))
        tensor([ 4., -1.])
    """

    noise: Distribution | None
    g: Callable[[Tensor], Tensor] | None
    rsample: Callable[[torch.Size], Tensor] | None = None


@dataclass(repr=False, eq=False, slots=True)
class Reparameterization:
    r"""A draw of q as a deterministic function of noise, $z = g_\phi(\epsilon)$ with $\epsilon \sim p(\epsilon)$.

    Made by `reparameterize`. It keeps q and reads its parameters at each draw, so that it follows an optimizer that
    changes them in place. A copy, or an unpickled object, is constructed again from the copy of q.

    Attributes:
        distribution: q itself.
        family: the family of the map, one of "inverse_cdf", "location_scale", "composition" and "implicit".
        differentiable: the names of the constructor's parameters that z has a gradient in.

    Example:
        >>> from torch.distributions import Exponential
        >>> from vaetut.reparam import reparameterize
        >>> r = reparameterize(Exponential(torch.tensor(2.0)))
        >>> r.family, r.differentiable, r.g(torch.tensor(0.5))  # the median, log(2) / 2
        ('inverse_cdf', ('rate',), tensor(0.3466))
    """

    distribution: Distribution
    family: str
    differentiable: tuple[str, ...]
    _map: Map

    @property
    def noise(self) -> Distribution:
        """p(ε), a distribution with ``q.batch_shape`` whose event is the noise of one draw.

        It does not depend on the parameters of q, except those that are not in ``differentiable``: they are constants
        for this map.

        Raises:
            NotImplementedError: for an implicit Dirichlet, which has no map.
        """
        if self._map.noise is None:
            raise self._no_map()
        return self._map.noise

    def g(self, eps: Tensor) -> Tensor:
        r"""Map noise to a draw, $z = g_\phi(\epsilon)$ (``eq-reparameterization``).

        Args:
            eps: ``[..., *batch_shape, *noise.event_shape]``, or a shape that broadcasts with it.

        Returns:
            z, ``[..., *batch_shape, *event_shape]``, differentiable in ``eps`` and in the parameters.

        Raises:
            TypeError: if ``eps`` does not have the dtype of the noise.
            ValueError: if its shape does not fit, or a value lies outside the support of the noise (the latter is
                not checked if q was made with ``validate_args=False``).
            NotImplementedError: for an implicit Dirichlet, which has no map.
        """
        self._check_noise(eps)
        if self._map.g is None:
            raise self._no_map()
        if self.family == "implicit" and not eps.numel():  # no roots to solve for
            batch = torch.broadcast_shapes(eps.shape, self.noise.batch_shape + self.noise.event_shape)
            return eps.new_empty(batch)
        return self._map.g(eps)

    def rsample(self, sample_shape: _size = (), generator: torch.Generator | None = None) -> Tensor:
        """Draw z, ``[*sample_shape, *batch_shape, *event_shape]``, with gradients in ``differentiable``.

        Args:
            sample_shape: shape of the draws.
            generator: the random generator of the noise, which g maps, so that its state determines the draws. By
                default the global generator of the device; then z may come from a sampler that is faster than g.

        Example:
            >>> from torch.distributions import Gamma
            >>> from vaetut.reparam import reparameterize
            >>> r = reparameterize(Gamma(torch.tensor(2.0), torch.tensor(1.0)))
            >>> first, again = (r.rsample((3,), torch.Generator().manual_seed(1)) for _ in range(2))
            >>> torch.equal(first, again)
            True
        """
        shape = torch.Size(sample_shape)
        noise, g, rsample = self._map
        if generator is not None:
            if noise is None or g is None:
                return self._rsample_of_composition(shape, generator)
            return g(sample_noise(noise, shape, generator))
        if rsample is not None:
            return rsample(shape)
        if noise is None or g is None:
            raise self._no_map()
        return g(noise.sample(shape))

    def _rsample_of_composition(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """Draws from another family's map, with the implicit gradient, if the implicit family has no map."""
        from vaetut.reparam.implicit import implicit_gradient
        from vaetut.reparam.registry import families, reparameterize

        if self.family != "implicit" or "composition" not in families(self.distribution):
            raise self._no_map()
        with torch.no_grad():
            z = reparameterize(self.distribution, "composition").rsample(shape, generator)
        return implicit_gradient(self.distribution, z)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle q and the name of the family, and construct the map again from q."""
        from vaetut.reparam.registry import reparameterize

        return reparameterize, (self.distribution, self.family)

    def _no_map(self) -> NotImplementedError:
        return NotImplementedError(
            f"{type(self.distribution).__name__} via={self.family!r} has draws with a gradient (rsample), but "
            "they do not come from one noise and map; via='composition' has both"
        )

    def _check_noise(self, eps: Tensor) -> None:
        float_tensor(eps, "eps")
        dtype = dtype_of(self.noise)
        if dtype is not None and eps.dtype != dtype:
            raise TypeError(f"eps must have the dtype of the noise, {dtype}, got {eps.dtype}")
        batch, event = self.noise.batch_shape, self.noise.event_shape
        cut = max(eps.dim() - len(event), 0)
        try:
            torch.broadcast_shapes(eps.shape[:cut], batch)
            fits = eps.shape[cut:] == event
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"eps must have a shape that ends in {tuple(batch + event)}, got {tuple(eps.shape)}"
            )
        if self.distribution._validate_args and eps.numel():
            support: Any = self.noise.support
            if any_true(~support.check(eps)):
                raise ValueError(f"eps must lie in the support of the noise, {support}, and not be NaN")

    def __repr__(self) -> str:
        return (
            f"Reparameterization({type(self.distribution).__name__}, family={self.family!r}, "
            f"noise={type(self._map.noise).__name__}, differentiable={self.differentiable})"
        )
