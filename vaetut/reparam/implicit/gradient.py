r"""Implicit gradients for any univariate density (chapter 10, *Implicit*).

Where the map g has no closed form, its derivative has one: F(z; φ) = u is constant when φ changes, hence

dz/dφ = −(∂F/∂φ) / q(z), with F the CDF (``eq-imp-velocity``).

And ∂F/∂φ is an integral of q ∂ log q/∂φ (``eq-imp-score-integral``), so a sampler and a ``log_prob`` are enough; no CDF
and no inverse is needed (Figurnov, Mohamed and Mnih 2018, *Implicit reparameterization gradients*; there the CDF is
differentiated).
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import (
    Beta,
    Dirichlet,
    Distribution,
    Gamma,
    Independent,
    MixtureSameFamily,
)
from torch.types import _size

from vaetut._support.validate import any_true, float_tensor
from vaetut.distributions.copies import with_tensors
from vaetut.distributions.shape_tails import under_transform
from vaetut.distributions.support import is_transformed
from vaetut.reparam.implicit._cdf import agrees, check_no_gap, has_cdf, is_known
from vaetut.reparam.implicit._dirichlet import move_dirichlet
from vaetut.reparam.implicit._draws import draw
from vaetut.reparam.implicit._exact import attach_by_cdf
from vaetut.reparam.implicit._pieces import attach_by_quadrature, has_hidden, once
from vaetut.reparam.implicit._vectors import attach_by_conditionals, is_vector_mixture
from vaetut.reparam.noise import check_dtype, dtype_of

_NATIVE = (Gamma, Beta, Dirichlet)  # a Chi2 is a Gamma


def implicit_rsample(q: Distribution, sample_shape: _size = (), *, exact: bool | None = None) -> Tensor:
    r"""Draw z from q, with the implicit gradient in every parameter (chapter 10, ``eq-imp-estimator``).

    The exact gradient is −(∂F/∂φ)/p, by quadrature where q has no CDF (see `implicit_gradient`), in float64 for
    any dtype of q. torch has its own for the gamma (and chi-squared), the beta and the Dirichlet, an approximation by
    series, in float64 too. The largest relative errors of dz/dφ in a run of ``benchmarks/implicit.py``, over draws
    whose parameters are spread evenly on a log scale (torch's against the exact one, that against mpmath):

    =========================================  =======  =======  =======
    q                                          exact    torch's  float32
    =========================================  =======  =======  =======
    gamma, α in 0.001 … 1                      3e-14    6e-4     6e-4
    gamma, α in 1 … 100                        3e-14    7e-4     4e-4
    gamma, α in 100 … 1e5                      2e-13    9e-5     9e-5
    beta, both α in 0.001 … 1                  4e-14    1e-4     2e-4
    beta, both α in 1 … 1000                   7e-14    3e-3     3e-3
    beta, each α in 0.001 … 1000               5e-14    2e-3     3e-2
    Student's t, ν in 0.1 … 1e6                2e-14
    F, both d in 0.1 … 100                     2e-9
    F, both d in 100 … 1000                    4e-12
    inverse gamma, shape in 0.01 … 1000        3e-14
    Kumaraswamy, both shapes in 0.01 … 100     1e-13
    =========================================  =======  =======  =======

    The derivative of F in a degree of freedom changes its sign among the draws: near there the error is large relative
    to it, not relative to z. The columns of torch are those of its own kernels in float64 and in float32. The latter
    are not good to float32 anywhere: over 20,000 draws for each decade of the shape, from 0.001 to 1e5, the largest
    error of the gamma is 2e-3, 2e-3, 7e-4, 9e-4, 5e-4, 9e-5, 7e-5 and 3e-6, and the median between 1 and 100 is 1e-5.

    At concentrations beyond 1e8 (degrees of freedom, for F) the exact gradients of the beta, the Dirichlet and F lose
    digits: the largest error of the beta is 1e-4 at 1e8 and 4e-2 at 1e9. There use `reparameterize` with
    via="composition".

    The exact one costs as much as the CDF, a few µs for a draw with its own parameters: five to ten times the time of
    torch's. If q has no CDF, quadrature is used. It takes 10 to 25 times as long where the density is smooth, and more
    than 100 times where it is infinite at an end of the support other than 0.

    Draws of the beta, the Dirichlet and F are computed in logs, so that they are right for small concentrations too;
    those of other q come from ``q.sample``.

    Args:
        q: a univariate distribution with ``sample`` and ``log_prob`` (an ``Independent`` of them, too), or a Dirichlet.
        sample_shape: shape of the draws.
        exact: True or None for the exact gradient, False for ``q.rsample``, torch's own draws and gradient: faster.

    Returns:
        z, ``[*sample_shape, *batch_shape, *event_shape]``. If no parameter requires a gradient, it has none.

    Raises:
        TypeError: if q is not a distribution, or its parameters are neither float32 nor float64.
        ValueError: if q is discrete, or if ``exact=False`` and torch has no implicit gradient for q.
        NotImplementedError: if q is multivariate.
        RuntimeError: in the backward pass, as for `implicit_gradient`.

    Example:
        >>> from torch.distributions import Categorical, MixtureSameFamily, Normal
        >>> logits = torch.zeros(2, requires_grad=True)
        >>> mixture = MixtureSameFamily(Categorical(logits=logits), Normal(torch.tensor([-1.0, 1.0]), 1.0))
        >>> z = implicit_rsample(mixture, (5,))
        >>> z.sum().backward()
        >>> bool(logits.grad[1] > 0)  # more weight on the right component moves every draw to the right
        True
    """
    base = univariate(q)
    check_dtype(dtype_of(base))
    if exact is not None and not exact:
        if not isinstance(base, _NATIVE):
            raise ValueError(
                f"exact=False: torch has no implicit gradient for {type(base).__name__}, only for Gamma, Chi2, Beta "
                "and Dirichlet; leave exact out, or use q.rsample() where it exists, which is another map"
            )
        draws: Tensor = q.rsample(torch.Size(sample_shape))
        return draws
    return differentiable(base, draw(q, torch.Size(sample_shape)))


def implicit_gradient(q: Distribution, z: Tensor) -> Tensor:
    r"""Return z itself, with the implicit gradient of a draw of q: dz/dφ = −∂F(z; φ)/∂φ / q(z).

    With the CDF as an integral, and since the score has mean 0 (`vaetut.reparam.implicit._quadrature`),

    dz/dφ = F (1 − F) / q(z) · (E[∂ log q(t) / ∂φ, given t > z] − E[∂ log q(t) / ∂φ, given t < z])

    (chapter 10, ``eq-imp-velocity`` and ``eq-imp-conditional``).

    There is a gradient in everything in which ``q.log_prob`` is differentiable: in the weights of a mixture as well as
    its components, in the base of a ``TransformedDistribution`` and its transforms, in the network that computes a
    parameter, and in the ends of a support that moves. It is the derivative of the one increasing map from uniform
    noise to z, the inverse CDF, for a fixed u. For a von Mises distribution the circle is cut at ±π, for any location
    (``eq-imp-cut``). A Dirichlet has no such map; for each concentration its coordinate moves as a beta variable, and
    the others are scaled, as in torch (``eq-imp-dirichlet``).

    It is computed in float64, in the backward pass. A quadrature works in pieces of bounded memory. A CDF is evaluated
    for all draws at once, which for a mixture takes 50 to 300 bytes for each draw, component and coordinate (100,000
    draws of 50 normals: 215 MB, and 407 MB for second derivatives). The table at `implicit_rsample` shows the errors.
    For other densities that are smooth between the ends of their support, mixtures of them and the von Mises
    included, the error is about 1e-12; for one with a kink (Laplace, triangular) it is 1e-9. It is larger where
    ``log_prob`` itself has lost digits (10⁶ standard deviations from 0, or within 1e-12 of an end of the support
    other than 0), where the derivative is nearly 0, and where the density is tiny between two peaks. Draws smaller
    than 1e-150 or larger than 1e150 are supported for the gamma, beta, Student's t, F and inverse gamma only.

    If q has a CDF that can be differentiated (the families of `vaetut.reparam.implicit._cdf`, transforms and
    mixtures of them, classes with their own ``cdf`` that is the integral of their density), no quadrature is
    needed. Then the second derivatives of z are right too, to 1e-9 (torch's trigamma), since both F and z are
    differentiated again; so are ``jvp`` and ``jacfwd``, and under ``torch.func`` the derivatives up to the third. The
    quadrature has first derivatives only, in reverse mode; second ones raise an error. Under ``torch.func`` it
    makes a fixed number of refinements, enough if the scales of the two tails differ by less than a factor of 100.

    A mixture of vectors whose components are an ``Independent`` of such a family moves coordinate by coordinate
    (`vaetut.reparam.implicit._vectors`).

    If a density of your own has no ``cdf`` and jumps inside of its support at a point that moves with a parameter, the
    gradient has a term there that the quadrature lacks: write a ``cdf``, or write the density as a mixture of its
    parts.

    Args:
        q: a univariate distribution with ``log_prob`` (an ``Independent`` of them, too), or a Dirichlet.
        z: draws ``[..., *batch_shape, *event_shape]``. They are detached first.

    Returns:
        Tensor equal to z.

    Raises:
        TypeError: if q is not a distribution, or z not a float32 or float64 tensor.
        ValueError: if q is discrete, or has parameters that require a gradient but a ``log_prob`` without one;
            if z has the wrong shape, or values outside the support of q; if the weights of a mixture require a
            gradient and there is a gap between the supports of its components.
        NotImplementedError: if q is multivariate.
        RuntimeError: in the backward pass, if ``log_prob`` does not integrate to 1 over the support, to four digits:
            it is not normalized then, or its peaks are too narrow for the quadrature.

    Example:
        >>> from torch.distributions import Exponential
        >>> rate = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        >>> z = torch.tensor(0.3, dtype=torch.float64)
        >>> implicit_gradient(Exponential(rate), z).backward()
        >>> rate.grad  # the inverse CDF is −log(1 − u) / rate, so this is −z / rate
        tensor(-0.1500, dtype=torch.float64)
    """
    base = univariate(q)
    shape = base.batch_shape + base.event_shape
    if float_tensor(z, "z").shape[max(z.dim() - len(shape), 0) :] != shape:
        raise ValueError(f"z must have a shape that ends in {tuple(shape)}, got {tuple(z.shape)}")
    if any_true(~_is_inside(base, z)):
        raise ValueError(f"z must lie in the support of q, {base.support}, and not be NaN")
    return differentiable(base, z)


def _is_inside(q: Any, z: Tensor) -> Tensor:
    """Whether z lies in the support; in that of any component, for a mixture."""
    if isinstance(q, MixtureSameFamily):
        dims = len(q.event_shape)
        components: Any = q.component_distribution.support
        inside: Tensor = components.check(z.unsqueeze(-1 - dims)).any(-1)
        return inside
    support: Any = q.support
    checked: Tensor = support.check(z)
    return checked


def univariate(q: Any) -> Any:
    """q without its Independent, if it has an implicit gradient."""
    if not isinstance(q, Distribution):
        raise TypeError(f"q must be a torch.distributions.Distribution, got {type(q).__name__}")
    while isinstance(q, Independent):
        q = q.base_dist
    name = type(q).__name__
    try:
        support: Any = q.support
    except NotImplementedError:
        raise NotImplementedError(f"{name} must define support: the quadrature needs the ends") from None
    if support.is_discrete:
        raise ValueError(
            f"q must be continuous, got {name}: its draws change only in jumps and have no gradient; "
            "use vaetut.score_function"
        )
    if q.event_shape and not isinstance(q, Dirichlet) and not is_vector_mixture(q):
        if isinstance(q, MixtureSameFamily):
            hint = (
                "a mixture in several dimensions has a map where its components are an Independent of a family with a "
                "known CDF; else use vaetut.score_function"
            )
        elif hasattr(q, "loc"):
            hint = "use vaetut.reparameterize(q, via='location_scale')"
        else:
            hint = "use q.rsample() where it exists, or vaetut.score_function"
        raise NotImplementedError(
            f"implicit gradients are for univariate q and for Dirichlet, got {name}: {hint}"
        )
    part = q
    while isinstance(part, MixtureSameFamily | Independent) or is_transformed(part):
        if is_transformed(part) and not all(transform.bijective for transform in part.transforms):
            raise NotImplementedError(
                f"q has a transform that is not one-to-one, in {part.transforms}; use q.rsample()"
            )
        part = part.component_distribution if isinstance(part, MixtureSameFamily) else part.base_dist
    if part is not q:
        _check_base(part, name)
    return q


def _check_base(part: Any, name: str) -> None:
    """Raise if what a transform or a mixture is made of is discrete: torch calls the support of 2 · Poisson "real"."""
    if part.support.is_discrete:
        raise ValueError(
            f"q must be continuous, got {name} of {type(part).__name__}: its draws jump when φ moves and have no "
            "gradient; use vaetut.score_function"
        )


def differentiable(base: Distribution, z: Tensor, u: Tensor | None = None) -> Tensor:
    """z with the implicit gradient in the parameters, and, if z is the quantile of u, the derivative 1/p(z) in u."""
    tensors: list[Tensor] = []
    z, base = z.detach(), with_tensors(base, lambda tensor: tensors.append(tensor) or tensor)  # type: ignore[func-returns-value]
    u = u if u is not None and u.requires_grad and torch.is_grad_enabled() else None
    if isinstance(base, MixtureSameFamily):
        check_no_gap(base)
    if has_cdf(base):
        known = is_known(base)
        if known and u is None and not _has_gradients(tensors):
            return z
        functional = under_transform(z, *tensors)
        if known or (not functional and agrees(with_tensors(base, Tensor.double), z.double().nan_to_num())):
            hidden = not known and has_hidden(base, z)
            return attach_by_cdf(base, z, u, hidden, tensors)
    if isinstance(base, Dirichlet):
        return once(z, move_dirichlet(base, z)) if _has_gradients(tensors) else z
    if is_vector_mixture(base):
        return attach_by_conditionals(base, z, u) if u is not None or _has_gradients(tensors) else z
    return attach_by_quadrature(base, z, u)


def _has_gradients(tensors: list[Tensor]) -> bool:
    """Whether a tensor may have a gradient; one of `torch.func` does not show it."""
    return under_transform(*tensors) or (
        torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    )
