"""The variational auto-encoder: an encoder, a prior and a decoder in one `torch.nn.Module`, chapter 11.

`AutoEncoder` lists what a model of your own must provide; `VAE` is one such model.
"""

import numbers
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaetut._support.validate import one_of, positive_int
from vaetut.distributions.gray_bernoulli import GrayBernoulli, is_bernoulli
from vaetut.exact import LatentVariableModel

__all__ = ["VAE", "AutoEncoder", "GrayBernoulli", "grid_of_codes", "is_bernoulli"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "softplus": nn.Softplus}


class AutoEncoder(LatentVariableModel, Protocol):
    """What `vaetut.train` fits: a latent-variable model with an encoder (chapter 11).

    The bounds do not need ``encode``. To be trained it must be a `torch.nn.Module` as well.

    Example:
        The smallest one: a linear encoder and decoder.

        >>> from torch.distributions import Bernoulli
        >>> class Linear(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.encoder, self.decoder = nn.Linear(6, 2), nn.Linear(2, 6)
        ...     @property  # not a method: it is used as model.prior
        ...     def prior(self):
        ...         return Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
        ...     def encode(self, x):
        ...         return Independent(Normal(self.encoder(x), torch.ones(2)), 1)
        ...     def likelihood(self, z):  # Independent makes one event of the 6 pixels
        ...         return Independent(Bernoulli(logits=self.decoder(z)), 1)
        >>> from vaetut import sgvb_b
        >>> model, x = Linear(), torch.rand(5, 6)
        >>> sgvb_b(model, model.encode(x), x).shape
        torch.Size([5])
    """

    def encode(self, x: Tensor) -> Distribution:
        """The approximate posterior q(z|x) for ``x [..., data]``: batch shape ``[...]``, event shape ``[latent]``."""


class VAE(nn.Module):
    r"""The model of AEVB's experiments: two networks, by default with one hidden layer each (AEVB, appendix C).

    * encoder: $q_\phi(z|x) = \mathcal N(\mu, \mathrm{diag}\,\sigma^2)$, where $\mu$ and $\log \sigma^2$ are
      the halves of one linear layer on top of $h = \tanh(W x + b)$ (``eq-vae-encoder``, AEVB eqs. 9 and 12);
    * prior: $p(z) = \mathcal N(0, I)$ (``eq-vae-prior``);
    * decoder: $p_\theta(x|z)$, with ``likelihood="bernoulli"`` a Bernoulli for each pixel
      (``eq-vae-decoder``, AEVB eq. 11), with ``"gaussian"`` a normal for each, whose mean and log variance
      are computed as the encoder's are (AEVB eq. 12), with ``"isotropic"`` $\mathcal N(\mu(z), s^2 I)$, where the
      one noise scale s, for all pixels and all z, is learned as ``log_noise_scale`` and starts at 1.

    Log-densities are in nats. Without hidden layers, ``hidden_dim=()``, both networks are linear. With the isotropic
    likelihood that is the model of probabilistic PCA, and the largest mean bound equals the mean log evidence of
    `vaetut.LinearGaussian.fit`: training it tests all the parts together against an exact answer.

    It is a `vaetut.LatentVariableModel`, so every bound of the package takes it; `vaetut.train` fits it. Its
    parameters start as `torch.nn.Linear` makes them, in torch's default dtype; ``.float()``, ``.double()``
    and ``.to(device)`` change dtype and device, the prior's too.

    A density has no upper limit: where a column of the data is constant, the likelihood ``"gaussian"`` grows
    without limit as that column's variance goes to zero. Add noise to such data, or leave the column out.

    Args:
        data_dim: D, the length of x.
        latent_dim: the length of z.
        hidden_dim: the width of the hidden layer of each network; AEVB used 500 for MNIST and 200 for Frey
            Face. A tuple gives the widths of several layers, in the encoder's order from x to z; the decoder has
            them in the reverse order. ``()`` is a linear VAE.
        likelihood: ``"bernoulli"`` for x in [0, 1], ``"gaussian"`` or ``"isotropic"`` for any real x.
        activation: of the hidden layers: ``"tanh"`` (as in AEVB), ``"relu"`` or ``"softplus"``.

    Raises:
        TypeError: if a dimension is not an int, or ``hidden_dim`` neither an int nor a sequence of them.
        ValueError: if a dimension is less than 1, or a name is unknown.

    Example:
        >>> model = VAE(data_dim=64, latent_dim=2)
        >>> x = torch.rand(5, 64)
        >>> q = model.encode(x)
        >>> q.batch_shape, q.event_shape
        (torch.Size([5]), torch.Size([2]))
        >>> model.likelihood(q.rsample((7,))).mean.shape
        torch.Size([7, 5, 64])
        >>> VAE(data_dim=64, latent_dim=2, hidden_dim=()).encoder
        Sequential(
          (0): Linear(in_features=64, out_features=4, bias=True)
        )
    """

    prior_loc: Tensor
    prior_scale: Tensor
    log_noise_scale: nn.Parameter | None

    def __init__(
        self,
        data_dim: int,
        latent_dim: int,
        hidden_dim: int | Sequence[int] = 500,
        likelihood: str = "bernoulli",
        *,
        activation: str = "tanh",
    ) -> None:
        super().__init__()
        self.data_dim = positive_int(data_dim, "data_dim")
        self.latent_dim = positive_int(latent_dim, "latent_dim")
        self.hidden_dim, widths = _widths(hidden_dim)
        self.likelihood_name = one_of(likelihood, "likelihood", ("bernoulli", "gaussian", "isotropic"))
        self.activation = one_of(activation, "activation", _ACTIVATIONS)

        def network(width_in: int, hidden: Sequence[int], width_out: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for width in hidden:
                layers += [nn.Linear(width_in, width), _ACTIVATIONS[activation]()]
                width_in = width
            return nn.Sequential(*layers, nn.Linear(width_in, width_out))

        self.encoder = network(data_dim, widths, 2 * latent_dim)
        self.decoder = network(
            latent_dim, widths[::-1], 2 * data_dim if likelihood == "gaussian" else data_dim
        )
        self.log_noise_scale = nn.Parameter(torch.zeros(())) if likelihood == "isotropic" else None
        self.register_buffer("prior_loc", torch.zeros(latent_dim))
        self.register_buffer("prior_scale", torch.ones(latent_dim))

    @property
    def prior(self) -> Distribution:
        """p(z), the standard normal, event shape ``[latent_dim]``."""
        return _gaussian(self.prior_loc, self.prior_scale)

    def encode(self, x: Tensor) -> Distribution:
        """q(z|x) for ``x [..., data_dim]``: batch shape ``[...]``, event shape ``[latent_dim]``.

        Raises:
            TypeError: if x is not a tensor of the parameters' dtype.
            ValueError: if the last dimension of x is not ``data_dim``.
        """
        return _normal(self.encoder(self._checked(x, "x", self.data_dim)).to(x.dtype))

    def likelihood(self, z: Tensor) -> Distribution:
        r"""p(x|z) for ``z [..., latent_dim]``: batch shape ``[...]``, event shape ``[data_dim]``.

        Any number of leading dimensions, such as ``[num_samples, batch]``, goes through the network at once.

        The Bernoulli is a `GrayBernoulli`, whose ``log_prob`` takes gray pixels, too.

        Raises:
            TypeError: if z is not a tensor of the parameters' dtype.
            ValueError: if the last dimension of z is not ``latent_dim``.
        """
        # Under torch.autocast the networks compute in bfloat16, which has too few bits for densities.
        output = self.decoder(self._checked(z, "z", self.latent_dim)).to(z.dtype)
        if self.likelihood_name == "gaussian":
            return _normal(output)
        if self.log_noise_scale is not None:
            return _gaussian(output, self.log_noise_scale.exp().expand_as(output))
        return Independent(GrayBernoulli(logits=output, validate_args=False), 1, validate_args=False)

    def extra_repr(self) -> str:
        """The constructor's arguments, for ``repr``."""
        return (
            f"data_dim={self.data_dim}, latent_dim={self.latent_dim}, hidden_dim={self.hidden_dim}, "
            f"likelihood={self.likelihood_name!r}, activation={self.activation!r}"
        )

    def _checked(self, value: Tensor, name: str, width: int) -> Tensor:
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
        if value.dtype != self.prior_loc.dtype:
            raise TypeError(
                f"{name} must have the dtype of the model's parameters, {self.prior_loc.dtype}, "
                f"got {value.dtype}; {name}.to(...) or model.to(...) converts one of them"
            )
        if value.dim() == 0 or value.shape[-1] != width:
            raise ValueError(
                f"{name} must have shape [..., {width}] for this model, got {tuple(value.shape)}"
            )
        return value


def grid_of_codes(steps: int, like: Tensor) -> Tensor:
    r"""A square of codes, ``[steps, steps, 2]``, each of which stands for the same probability under N(0, I).

    The codes are $z = \Phi^{-1}(u)$ for u on a regular grid inside the unit square (``eq-exp-manifold``), the
    inverse CDF of each latent variable's prior: the middle of the plane, where most codes lie, fills most of the grid.

    Args:
        steps: codes along each side; the first coordinate grows with the row, the second with the column.
        like: a tensor whose dtype and device the codes take.

    Example:
        >>> grid_of_codes(2, torch.zeros(()))[:, 0]
        tensor([[-0.6745, -0.6745],
                [ 0.6745, -0.6745]])
    """
    u = (torch.arange(positive_int(steps, "steps"), dtype=like.dtype, device=like.device) + 0.5) / steps
    return torch.cartesian_prod(*[torch.special.ndtri(u)] * 2).reshape(steps, steps, 2)


def _widths(hidden_dim: int | Sequence[int]) -> tuple[int | tuple[int, ...], tuple[int, ...]]:
    """``hidden_dim`` as the attribute stores it, and the width of each hidden layer."""
    if isinstance(hidden_dim, Sequence) and not isinstance(hidden_dim, str | bytes):
        widths = tuple(positive_int(width, f"hidden_dim[{i}]") for i, width in enumerate(hidden_dim))
        return widths, widths
    if isinstance(hidden_dim, bool) or not isinstance(hidden_dim, int | numbers.Integral):
        raise TypeError(
            f"hidden_dim must be an int or a tuple of ints, one for each hidden layer, got {hidden_dim!r} "
            f"of type {type(hidden_dim).__name__}"
        )
    width = positive_int(hidden_dim, "hidden_dim")
    return width, (width,)


def _normal(output: Tensor) -> Distribution:
    """The diagonal Gaussian whose mean and log variance are the halves of ``output``."""
    mean, log_variance = output.chunk(2, dim=-1)
    return _gaussian(mean, (0.5 * log_variance).exp())


def _gaussian(loc: Tensor, scale: Tensor) -> Distribution:
    """``Independent(Normal(loc, scale), 1)`` for two tensors of the same shape that a network has computed.

    Normal's constructor would broadcast them, which costs more than the arithmetic with a few latent dimensions.
    """
    normal = Normal.__new__(Normal)
    normal.loc, normal.scale = loc, scale
    Distribution.__init__(normal, loc.shape, validate_args=False)
    return Independent(normal, 1, validate_args=False)
