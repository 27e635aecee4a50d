r"""Two latent-variable models whose evidence and posterior are known exactly.

Chapter 1, *Latent-variable models*. The book checks its equations on these models: an equation that holds for every
model must hold for them, and every term of it can be computed there.
"""

from typing import Protocol, Self

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
)

from vaetut._support.validate import any_true, finite, float_tensor, positive_int
from vaetut.distributions.outcomes import is_exactly, outcomes_of
from vaetut.information import as_multivariate_normal, kl_divergence


class LatentVariableModel(Protocol):
    """Anything with a prior p(z) and a likelihood p(x|z); the bounds in `vaetut.bounds` need no more (chapter 1).

    Example:
        >>> class Scalar:
        ...     prior = Independent(Normal(torch.zeros(1), torch.ones(1)), 1)
        ...     def likelihood(self, z):
        ...         return Independent(Normal(2 * z, 0.5), 1)
        >>> from vaetut import sgvb_b
        >>> model, x = Scalar(), torch.ones(4, 1)
        >>> sgvb_b(model, model.prior.expand([4]), x).shape
        torch.Size([4])
    """

    @property
    def prior(self) -> Distribution:
        """The prior p(z), with an event shape ``[latent]``."""

    def likelihood(self, z: Tensor) -> Distribution:
        """The likelihood p(x|z) for ``z [..., latent]``: batch shape ``[...]``, event shape ``[data]``."""


class LinearGaussian:
    r"""The model $z \sim \mathcal N(0, I)$, $x \mid z \sim \mathcal N(W z + b, s^2 I)$ (``eq-linear-gaussian``).

    Its evidence $\mathcal N(x;\, b,\, W W^\top + s^2 I)$ and its posterior are Gaussian. Fitted to data by maximum
    likelihood it is probabilistic PCA (Tipping & Bishop 1999).

    Args:
        weight: $W$, ``[data, latent]``.
        bias: $b$, ``[data]``.
        noise_scale: $s$, a positive number or a tensor without dimensions; converted to the dtype of ``weight``.

    Raises:
        TypeError: if a tensor is not float32 or float64, ``weight`` and ``bias`` have different dtypes, or
            ``noise_scale`` is not a number.
        ValueError: if a shape does not fit, a value is not finite or ``noise_scale`` is not positive.

    Example:
        >>> model = LinearGaussian(torch.tensor([[1.0], [2.0]]), torch.zeros(2), 0.5)
        >>> x = torch.tensor([[0.3, 1.0]])
        >>> model.log_evidence(x)
        tensor([-2.1386])
        >>> model.posterior(x).mean
        tensor([[0.4381]])
    """

    def __init__(self, weight: Tensor, bias: Tensor, noise_scale: Tensor | float) -> None:
        if float_tensor(weight, "weight").dim() != 2 or 0 in weight.shape:
            raise ValueError(f"weight must have shape [data, latent], got {tuple(weight.shape)}")
        self.weight = finite(weight, "weight")
        self.bias = _like(bias, "bias", weight, weight.shape[:1])
        if isinstance(noise_scale, Tensor) and noise_scale.dtype in (torch.float16, torch.bfloat16):
            float_tensor(noise_scale, "noise_scale")
        try:
            scale = torch.as_tensor(noise_scale, dtype=weight.dtype, device=weight.device)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(
                "noise_scale must be a number or a tensor without dimensions, "
                f"got {noise_scale!r} of type {type(noise_scale).__name__}"
            ) from None
        self.noise_scale = finite(scale, "noise_scale")
        if scale.dim() != 0 or any_true(scale <= 0):
            raise ValueError(f"noise_scale must be one positive number, got {noise_scale}")

    @property
    def prior(self) -> Distribution:
        """The prior p(z), a standard normal with event shape ``[latent]``."""
        zero = self.weight.new_zeros(self.weight.shape[1])
        return Independent(Normal(zero, torch.ones_like(zero), validate_args=False), 1)

    def likelihood(self, z: Tensor) -> Distribution:
        """The likelihood p(x|z) for ``z [..., latent]``: batch shape ``[...]``, event shape ``[data]``."""
        z = _codes(z, self.weight.shape[1], self.weight.dtype)
        return Independent(Normal(z @ self.weight.mT + self.bias, self.noise_scale), 1)

    @property
    def evidence(self) -> LowRankMultivariateNormal:
        """The evidence p(x) (``eq-linear-gaussian-evidence``), event shape ``[data]``."""
        noise = self.noise_scale.square().expand(self.bias.shape)
        return LowRankMultivariateNormal(self.bias, self.weight, noise)

    def log_evidence(self, x: Tensor) -> Tensor:
        """The log evidence, log p(x), in nats for ``x [..., data]``: shape ``[...]``."""
        return self.evidence.log_prob(_data(x, self.bias))

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """The log joint density, log p(x, z) = log p(x|z) + log p(z), ``[...]`` in nats for ``z [..., latent]``."""
        return _log_joint(self, _data(x, self.bias), z)

    def posterior(self, x: Tensor) -> MultivariateNormal:
        r"""The posterior p(z|x) (``eq-linear-gaussian-posterior``), batch shape ``[...]``, event shape ``[latent]``.

        With $P = W^\top W + s^2 I$ it is $\mathcal N(P^{-1} W^\top (x - b),\; s^2 P^{-1})$.
        """
        identity = torch.eye(self.weight.shape[1], dtype=self.weight.dtype, device=self.weight.device)
        factor = torch.linalg.cholesky(self.weight.mT @ self.weight + self.noise_scale.square() * identity)
        projected = (_data(x, self.bias) - self.bias) @ self.weight
        mean = torch.cholesky_solve(projected.unsqueeze(-1), factor).squeeze(-1)
        return MultivariateNormal(mean, self.noise_scale.square() * torch.cholesky_inverse(factor))

    def expected_log_likelihood(self, q: Distribution, x: Tensor) -> Tensor:
        r"""$\mathbb E_{q(z)}[\log p(x|z)]$ in nats for a Gaussian q (``eq-expected-log-likelihood``).

        With mean $m$ and covariance $S$ of q it is
        $\log \mathcal N(x;\, W m + b,\, s^2 I) - \mathrm{tr}(W S W^\top) / 2 s^2$.

        Args:
            q: ``Independent(Normal, 1)`` or ``MultivariateNormal``, event shape ``[latent]``.
            x: ``[..., data]``.

        Raises:
            NotImplementedError: if q is of another type.
            ValueError: if q has another event shape.
        """
        gaussian = as_multivariate_normal(q)
        if gaussian is None:
            raise NotImplementedError(
                f"q must be Independent(Normal, 1) or MultivariateNormal, got {type(q).__name__}; "
                "for any other q estimate it with bounds.elbo_terms"
            )
        if gaussian.event_shape != self.weight.shape[1:]:
            raise ValueError(
                f"q must have event_shape {tuple(self.weight.shape[1:])}, got {tuple(gaussian.event_shape)}"
            )
        spread = (self.weight @ gaussian.scale_tril).square().sum((-2, -1))
        at_mean = self.likelihood(gaussian.mean).log_prob(_data(x, self.bias))
        return at_mean - spread / (2 * self.noise_scale.square())

    def elbo(self, q: Distribution, x: Tensor) -> Tensor:
        r"""The exact lower bound $\mathbb E_q[\log p(x|z)] - D_{\mathrm{KL}}(q \,\|\, p(z))$ in nats (``eq-elbo``)."""
        return self.expected_log_likelihood(q, x) - kl_divergence(q, self.prior)

    @classmethod
    def fit(cls, x: Tensor, latent_dim: int) -> Self:
        r"""Maximum likelihood in closed form: probabilistic PCA (Tipping & Bishop 1999, eqs. 7 and 8).

        With the eigenvalues $\lambda_1 \ge \lambda_2 \ge \dots$ of the data's covariance (divided by N) and the
        eigenvectors $U_J$ of the J largest: $b$ is the mean, $s^2$ the mean of the eigenvalues left out, and
        $W = U_J (\Lambda_J - s^2 I)^{1/2}$. The likelihood is the same for every rotation of W's columns;
        the entry of each column that is largest in magnitude is made positive.

        Args:
            x: data, ``[N, data]``.
            latent_dim: J, with ``1 <= J < data``.

        Raises:
            TypeError: if ``x`` is not a float32 or float64 tensor, or ``latent_dim`` is not an int.
            ValueError: if ``x`` is not finite or has fewer than two rows, if ``latent_dim`` is out of range, or if the
                data lie in an affine subspace of at most J dimensions, so that $s^2 = 0$ and the likelihood has
                no maximum.

        Example:
            >>> x = torch.tensor([[0.0, 0.1], [1.0, 0.9], [2.0, 2.1], [3.0, 2.9]])
            >>> model = LinearGaussian.fit(x, 1)
            >>> model.weight, model.noise_scale
            (tensor([[1.1162],
                    [1.0751]]), tensor(0.0645))
        """
        if finite(float_tensor(x, "x"), "x").dim() != 2 or len(x) < 2:
            raise ValueError(f"x must have shape [N, data] with N of at least 2, got {tuple(x.shape)}")
        dim = x.shape[1]
        if positive_int(latent_dim, "latent_dim") >= dim:
            raise ValueError(f"latent_dim must be less than the data's {dim} dimensions, got {latent_dim}")
        mean = x.mean(0)
        _, singular, directions = torch.linalg.svd(x - mean, full_matrices=False)
        eigenvalues = singular.square() / len(x)
        # when N < dim, svd returns fewer than dim eigenvalues; the missing ones are zero, and count in the mean
        noise = eigenvalues[latent_dim:].sum() / (dim - latent_dim)
        if not noise > eigenvalues[0] * torch.finfo(x.dtype).eps ** 2 * dim:
            raise ValueError(
                f"x must spread over more than latent_dim = {latent_dim} dimensions: "
                "without any variance in the remaining directions the likelihood has no maximum"
            )
        weight = directions[:latent_dim].mT * (eigenvalues[:latent_dim] - noise).clamp_min(0).sqrt()
        largest = weight.gather(0, weight.abs().argmax(0, keepdim=True))
        return cls(weight * torch.where(largest < 0, -1.0, 1.0).to(weight), mean, noise.sqrt())


class DiscreteMixture:
    r"""A mixture of diagonal Gaussians, seen as a latent-variable model (``eq-discrete-mixture``).

    $z$ is one of C one-hot vectors with $p(z = e_c) = \mathrm{softmax}(\mathrm{logits})_c$, and
    $x \mid z = e_c \sim \mathcal N(\mathrm{loc}_c, \mathrm{diag}(\mathrm{scale}_c^2))$. Every expectation over z is
    a sum of C terms.

    Args:
        logits: unnormalized log weights, ``[C]``.
        loc: means, ``[C, data]``.
        scale: standard deviations, ``[C, data]``, positive.

    Raises:
        TypeError: if a tensor is not float32 or float64, or their dtypes differ.
        ValueError: if a shape does not fit, a value is not finite or a scale is not positive.

    Example:
        >>> model = DiscreteMixture(torch.zeros(2), torch.tensor([[-1.0], [1.0]]), torch.ones(2, 1))
        >>> x = torch.tensor([[0.0], [2.0]])
        >>> model.log_evidence(x)
        tensor([-1.4189, -2.0939])
        >>> model.posterior(x).probs[1]
        tensor([0.0180, 0.9820])
    """

    def __init__(self, logits: Tensor, loc: Tensor, scale: Tensor) -> None:
        if float_tensor(logits, "logits").dim() != 1 or len(logits) == 0:
            raise ValueError(f"logits must have shape [C] with C of at least 1, got {tuple(logits.shape)}")
        if float_tensor(loc, "loc").dim() != 2 or loc.shape[0] != len(logits) or loc.shape[1] == 0:
            raise ValueError(f"loc must have shape [C, data] with C = {len(logits)}, got {tuple(loc.shape)}")
        self.logits = finite(logits, "logits")
        self.loc = _like(loc, "loc", logits, loc.shape)
        self.scale = _like(scale, "scale", logits, loc.shape)
        if any_true(scale <= 0):
            raise ValueError(f"scale must be positive, got values down to {float(scale.min()):g}")

    @property
    def prior(self) -> OneHotCategorical:
        """The prior p(z) over one-hot vectors, event shape ``[C]``."""
        return OneHotCategorical(logits=self.logits)

    @property
    def states(self) -> Tensor:
        """The C values of z as rows, the identity matrix ``[C, C]``."""
        return torch.eye(len(self.logits), dtype=self.logits.dtype, device=self.logits.device)

    def likelihood(self, z: Tensor) -> Distribution:
        """The likelihood p(x|z) for one-hot ``z [..., C]``: batch shape ``[...]``, event shape ``[data]``."""
        z = _codes(z, len(self.logits), self.loc.dtype)
        return Independent(Normal(z @ self.loc, z @ self.scale), 1)

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """The log joint density, log p(x, z) = log p(x|z) + log p(z), in nats for ``x [..., data]`` and one-hot z."""
        return _log_joint(self, _data(x, self.loc[0]), z)

    def log_evidence(self, x: Tensor) -> Tensor:
        r"""$\log p(x) = \log \sum_c p(x, z = e_c)$ in nats for ``x [..., data]``: shape ``[...]``."""
        return self._log_joint_of_states(x).logsumexp(-1)

    def posterior(self, x: Tensor) -> OneHotCategorical:
        """The posterior p(z|x) by Bayes' rule, batch shape ``[...]``, event shape ``[C]``."""
        return OneHotCategorical(logits=self._log_joint_of_states(x))

    def expected_log_likelihood(self, q: Distribution, x: Tensor) -> Tensor:
        r"""$\mathbb E_{q(z)}[\log p(x|z)]$ in nats, a sum over the C states.

        Args:
            q: a ``OneHotCategorical`` with event shape ``[C]``.
            x: ``[..., data]``.

        Raises:
            NotImplementedError: if q is of another type, or has another event shape.
        """
        outcomes = outcomes_of(q) if is_exactly(q, OneHotCategorical) else None
        if outcomes is None or q.event_shape != self.logits.shape:
            raise NotImplementedError(
                f"q must be a OneHotCategorical over {len(self.logits)} states, got {type(q).__name__}"
                + (f" with event_shape {tuple(q.event_shape)}" if outcomes is not None else "")
            )
        x = _data(x, self.loc[0])
        return (outcomes.probs * self.likelihood(self.states).log_prob(x.unsqueeze(-2))).sum(-1)

    def elbo(self, q: Distribution, x: Tensor) -> Tensor:
        r"""The exact lower bound $\mathbb E_q[\log p(x|z)] - D_{\mathrm{KL}}(q \,\|\, p(z))$ in nats (``eq-elbo``)."""
        return self.expected_log_likelihood(q, x) - kl_divergence(q, self.prior)

    def _log_joint_of_states(self, x: Tensor) -> Tensor:
        return self.log_joint(_data(x, self.loc[0]).unsqueeze(-2), self.states)


def _log_joint(model: LatentVariableModel, x: Tensor, z: Tensor) -> Tensor:
    return model.likelihood(z).log_prob(x) + model.prior.log_prob(z)


def _like(value: Tensor, name: str, reference: Tensor, shape: torch.Size) -> Tensor:
    """``value`` with the dtype of ``reference``, the given shape, and finite."""
    if float_tensor(value, name).dtype != reference.dtype:
        raise TypeError(
            f"{name} must have the dtype of the other arguments, {reference.dtype}, got {value.dtype}"
        )
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(value.shape)}")
    return finite(value, name)


def _codes(z: Tensor, latent: int, dtype: torch.dtype) -> Tensor:
    """``z [..., latent]``, checked."""
    if not isinstance(z, Tensor):
        raise TypeError(f"z must be a torch.Tensor, got {type(z).__name__}")
    if z.dtype != dtype:
        raise TypeError(f"z must have the model's dtype, {dtype}, got {z.dtype}")
    if z.dim() == 0 or z.shape[-1] != latent:
        raise ValueError(f"z must have shape [..., {latent}], got {tuple(z.shape)}")
    return z


def _data(x: Tensor, one: Tensor) -> Tensor:
    """``x [..., data]``, checked against ``one``, a parameter of the model of shape ``[data]``."""
    if float_tensor(x, "x").dtype != one.dtype:
        raise TypeError(f"x must have the model's dtype, {one.dtype}, got {x.dtype}")
    if x.dim() == 0 or x.shape[-1] != one.shape[-1]:
        raise ValueError(f"x must have shape [..., {one.shape[-1]}], got {tuple(x.shape)}")
    return finite(x, "x")
