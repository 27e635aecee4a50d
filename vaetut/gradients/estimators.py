r"""Three unbiased estimators of $\nabla_\phi\, \mathbb E_{q_\phi(z)}[f(z)]$ that have nothing in common but that.

Chapter 4, *Gradients of expectations*. Each function returns **surrogates**, one for each draw: tensors
``[num_samples, *q.batch_shape]`` whose *value* is $f(z)$ and whose *gradient*, as automatic differentiation takes it,
is the estimator. A plain ``f(z).mean(0)`` has the right value and, in general, the wrong gradient: the draws depend on
$\phi$ through the distribution, and that is not in the graph. Adding a term whose value is zero and whose gradient
is the missing one mends the second without touching the first, so that one and the same tensor can be reported,
averaged, added to other terms of a loss and differentiated.

Parameters of f itself, or a direct dependence of f on $\phi$ as in $\log p(x, z) - \log q_\phi(z)$, get their
gradient from the surrogate as well.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vaetut._support.validate import one_of, positive_int
from vaetut.gradients._scores import name_of, optimal_control
from vaetut.reparam import reparameterize

BASELINES = ("mean", "leave_one_out", "optimal")


def score_function(
    f: Callable[[Tensor], Tensor], q: Distribution, num_samples: int, baseline: str | None = None
) -> Tensor:
    r"""Score-function estimator, $(f(z) - b)\, \nabla_\phi \log q_\phi(z)$ with $z \sim q_\phi$ (``eq-grad-score``).

    Also known as REINFORCE (Williams, 1992). It asks for a density that can be differentiated in $\phi$, and nothing of
    f: not a slope, not continuity, and z may be discrete. The support of q must stay where it is.

    A baseline b that does not look at its own draw leaves the mean alone (``eq-grad-baseline``) and may lower
    the variance much. It is formed for every batch element by itself.

    - ``"mean"``: the mean of f over the draws. The draw's own share in it would shrink the gradient by the factor
      $(L - 1) / L$ (``eq-grad-mean-bias``), so the weight $f(z) - b$ is multiplied by $L / (L - 1)$.
    - ``"leave_one_out"``: the mean of f over the *other* draws. This is the same number (``eq-grad-leave-one-out``).
    - ``"optimal"``: the constant of least variance, $\mathbb E[f s^2] / \mathbb E[s^2]$ with $s$ the score
      $\partial \log q_\phi / \partial \phi_k$ (``eq-grad-optimal-baseline``), for each of q's parameters its own; both
      averages are taken over the other draws, so that this, too, is unbiased.

    Args:
        f: maps ``z [num_samples, *q.batch_shape, *q.event_shape]`` to one value each,
            ``[num_samples, *q.batch_shape]``.
        q: a distribution with ``log_prob``, whose parameters require a gradient.
        num_samples: L, the number of draws; at least 2 with a baseline.
        baseline: None, "mean", "leave_one_out" or "optimal".

    Returns:
        Surrogates ``[num_samples, *q.batch_shape]``: the value is f(z), the gradient the estimator. They may be
        differentiated more than once.

    Raises:
        TypeError: if q is not a distribution, or f returns no tensor.
        ValueError: if f does not return one value per draw, if ``num_samples`` is too small, if there is no such
            baseline, if neither q nor f has a parameter that requires a gradient, or if the support of q moves with
            one that does, as that of ``Uniform`` does.
        NotImplementedError: if "optimal" is asked for and q cannot be made again from its parameters.

    Source:
        Williams (1992), doi:10.1007/BF00992696; chapter 4. The surrogate for all orders is that of Foerster et al.
        (2018), arXiv:1802.05098.

    Example:
        A step has no slope, yet its expectation under $\mathcal N(\mu, 1)$ has: the density at the step.

        >>> _ = torch.manual_seed(0)
        >>> mu = torch.tensor(1.5, requires_grad=True)
        >>> surrogate = score_function(lambda z: z > 0, Normal(mu, 1.0), 100_000, baseline="leave_one_out")
        >>> (gradient,) = torch.autograd.grad(surrogate.mean(0), mu)
        >>> round(gradient.item(), 2), round(Normal(0.0, 1.0).log_prob(mu).exp().item(), 2)
        (0.13, 0.13)
    """
    _check(q, num_samples)
    _check_support(q)
    if baseline is not None:
        one_of(baseline, "baseline", BASELINES)
        if num_samples < 2:
            raise ValueError(
                f"num_samples must be at least 2 with baseline={baseline!r}, which is formed from the other draws, "
                f"got {num_samples} (in gradient_statistics, set samples_per_estimate)"
            )
    z = q.sample(torch.Size((num_samples,)))
    values = _values(f, z, torch.Size((num_samples, *q.batch_shape)))
    log_q = q.log_prob(z).to(values.dtype)
    box = torch.exp(log_q - log_q.detach())  # its value is 1, its gradient the score
    surrogate = values * box
    if baseline == "optimal":
        surrogate = surrogate - optimal_control(values.detach(), q, z)
    elif baseline is not None:
        detached = values.detach()
        others = (detached.sum(0) - detached) / (num_samples - 1)  # "mean", corrected, is "leave_one_out"
        surrogate = surrogate - others * (box - 1)
    return _with_gradient(surrogate)


def pathwise(
    f: Callable[[Tensor], Tensor], q: Distribution, num_samples: int, via: str | None = None
) -> Tensor:
    r"""Pathwise estimator, $\nabla_\phi f(g_\phi(\epsilon))$ with $\epsilon \sim p(\epsilon)$ (``eq-grad-pathwise``).

    The draw is written as a function of noise that $\phi$ does not touch, by `vaetut.reparameterize`, and
    differentiated through. It asks for an f that is continuous, and differentiable almost everywhere, and for a q
    that has a map.

    Args:
        f: maps ``z [num_samples, *q.batch_shape, *q.event_shape]`` to one value each,
            ``[num_samples, *q.batch_shape]``.
        q: a distribution that `vaetut.catalogue` lists.
        num_samples: L, the number of draws.
        via: the family of the map, as in `vaetut.reparameterize`; None picks the best.

    Returns:
        Surrogates ``[num_samples, *q.batch_shape]``: the value is f(z), the gradient the estimator.

    Raises:
        TypeError: if q is not a distribution, or f returns no tensor.
        ValueError: if f does not return one value per draw or breaks the graph between z and its value, if the map
            has no gradient in a parameter that requires one, or if no parameter does.
        NotImplementedError: if q is discrete or has no map.

    Source:
        AEVB, section 2.4; chapter 4, and chapters 6 to 10 for the maps.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> mu = torch.tensor(1.5, requires_grad=True)
        >>> surrogate = pathwise(torch.square, Normal(mu, 1.0), 100_000)
        >>> (gradient,) = torch.autograd.grad(surrogate.mean(0), mu)
        >>> round(gradient.item(), 1)   # of E[z²] = μ² + 1
        3.0
    """
    _check(q, num_samples)
    if _is_discrete(q):
        raise NotImplementedError(
            f"q must not be discrete, as {name_of(q)} is: its draws jump where its parameters move, and have no "
            "gradient; use score_function"
        )
    try:
        z = reparameterize(q, via).rsample(torch.Size((num_samples,)))
    except NotImplementedError as error:
        raise NotImplementedError(f"{error}; score_function needs no map") from None
    values = _values(f, z, torch.Size((num_samples, *q.batch_shape)))
    if z.requires_grad and not values.requires_grad:
        raise ValueError(
            "f has no gradient in z, which pathwise needs: it may be a step, or detach z; use score_function"
        )
    return _with_gradient(values)


def measure_valued(
    f: Callable[[Tensor], Tensor], q: Distribution, num_samples: int, coupled: bool = True
) -> Tensor:
    r"""Measure-valued estimator: the derivative of the density is a difference of two densities (``eq-grad-measure``).

    $\partial q_\phi / \partial \phi_k = c\, (q^+ - q^-)$, so that $c\, (f(z^+) - f(z^-))$ is an unbiased estimate.
    For a Gaussian $\mathcal N(\mu, \sigma^2)$, with $w$ of a Rayleigh and $m$ of a double-sided Maxwell distribution,

    - mean: $c = 1 / (\sigma \sqrt{2 \pi})$ and $z^\pm = \mu \pm \sigma w$, $w$ with density $w\, e^{-w^2 / 2}$;
    - scale: $c = 1 / \sigma$, $z^+ = \mu + \sigma m$, $m$ with density $m^2 e^{-m^2 / 2} / \sqrt{2 \pi}$, and
      $z^- = z$, a draw of q itself.

    f may jump and need not be differentiable. But every *number* among the parameters costs evaluations of its own:
    with D coordinates f is evaluated $1 + 2D$ times per draw for the means, $1 + D$ times for the scales,
    $1 + 3D$ times for both, in two calls of f.

    Args:
        f: maps ``z [n, *q.batch_shape, *q.event_shape]`` to one value each, ``[n, *q.batch_shape]``, for any n.
        q: ``Normal`` or ``Independent(Normal, …)``, of which ``loc`` or ``scale`` requires a gradient.
        num_samples: L, the number of draws.
        coupled: whether the two draws of a pair share their noise: the same $w$ on both sides; $m$ and the
            Gaussian noise $\epsilon$ of z as $m = \operatorname{sign}(\epsilon) \sqrt{\epsilon^2 + w^2}$. Otherwise
            they are independent in the coordinate concerned; the other coordinates are always the same. For the
            mean, sharing lowers the variance of an f that is nearly even about the mean, and raises that of one that
            rises throughout (``eq-grad-coupling``).

    Returns:
        Surrogates ``[num_samples, *q.batch_shape]``: the value is f(z), the gradient the estimator.

    Raises:
        TypeError: if q is not a distribution, or f returns no tensor.
        ValueError: if f does not return one value per draw, or if no parameter requires a gradient.
        NotImplementedError: if q is not such a Gaussian.

    Source:
        Pflug (1989), doi:10.1007/BF02243227; Mohamed et al. (2020), section 6; chapter 4.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> mu = torch.tensor(1.5, requires_grad=True)
        >>> surrogate = measure_valued(lambda z: z > 0, Normal(mu, 1.0), 100_000)
        >>> (gradient,) = torch.autograd.grad(surrogate.mean(0), mu)
        >>> round(gradient.item(), 2)
        0.13
    """
    _check(q, num_samples)
    base, event = _gaussian(q), math.prod(q.event_shape)
    shape = torch.Size((num_samples, *q.batch_shape))
    # [*batch, event]: one axis holds the coordinates, also where there is only one
    loc, scale = (t.expand(base.batch_shape).reshape(*q.batch_shape, event) for t in (base.loc, base.scale))
    mu, sigma = loc.detach(), scale.detach()

    eps = torch.randn((*shape, event), dtype=mu.dtype, device=mu.device)
    z = mu + sigma * eps
    values = _values(f, z.reshape(*shape, *q.event_shape), shape)
    moved: list[Tensor] = []
    if loc.requires_grad:
        w = _rayleigh(eps)
        moved += [mu + sigma * w, mu - sigma * (w if coupled else _rayleigh(eps))]
    if scale.requires_grad:
        gauss = eps if coupled else torch.randn_like(eps)
        moved.append(mu + sigma * torch.copysign(torch.hypot(gauss, _rayleigh(eps)), gauss))
    if not moved:
        return _with_gradient(values)

    only = torch.eye(event, dtype=torch.bool, device=z.device).reshape(event, *(1 for _ in shape), event)
    stacked = torch.cat([torch.where(only, point, z) for point in moved])  # [k event, *shape, event]
    with torch.no_grad():
        many = torch.Size((len(stacked) * num_samples, *q.batch_shape))
        f_moved = _values(f, stacked.reshape(*many, *q.event_shape), many)
    parts = f_moved.reshape(len(moved), event, *shape).movedim(1, -1)  # [k, *shape, event]

    surrogate = values
    if loc.requires_grad:
        weight = (parts[0] - parts[1]) / (sigma * math.sqrt(2 * math.pi))
        surrogate = surrogate + (weight * (loc - mu)).sum(-1)
    if scale.requires_grad:
        weight = (parts[-1] - values.detach().unsqueeze(-1)) / sigma
        surrogate = surrogate + (weight * (scale - sigma)).sum(-1)
    return _with_gradient(surrogate)


def _rayleigh(like: Tensor) -> Tensor:
    """Draws with density w exp(-w² / 2): the length of two standard Gaussian noises."""
    return torch.empty_like(like).exponential_().mul_(2).sqrt_()


def _gaussian(q: Distribution) -> Normal:
    base: Any = q
    while isinstance(base, Independent):
        base = base.base_dist
    if not isinstance(base, Normal):
        raise NotImplementedError(
            "measure_valued exists for the mean and scale of Normal and Independent(Normal, …), "
            f"got {name_of(q)}; use score_function, or pathwise where q has a map"
        )
    return base


def _check(q: Any, num_samples: Any) -> None:
    if not isinstance(q, Distribution):
        raise TypeError(f"q must be a torch.distributions.Distribution, got {type(q).__name__}")
    positive_int(num_samples, "num_samples")


def _check_support(q: Distribution) -> None:
    """Raise if the set where q has mass moves with a parameter: the score does not see what comes in at its ends."""
    try:
        support: Any = q.support
    except NotImplementedError:
        return
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    for end in ("lower_bound", "upper_bound"):
        bound = getattr(support, end, None)
        if isinstance(bound, Tensor) and bound.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                f"q must not have a support that moves with a parameter that requires a gradient, as {name_of(q)} has: "
                "the score-function estimator is wrong there; use pathwise, or detach the parameter"
            )


def _values(f: Callable[[Tensor], Tensor], z: Tensor, shape: torch.Size) -> Tensor:
    """One value per draw, as a floating-point tensor."""
    values = f(z)
    if not isinstance(values, Tensor):
        raise TypeError(f"f must return a torch.Tensor, got {type(values).__name__}")
    if values.shape != shape:
        hint = ""
        if values.shape == z.shape:
            hint = (
                "; sum over the event, or use Normal instead of Independent for functions of one coordinate"
            )
        elif len(z.shape) == len(shape):
            hint = "; for a function of the whole vector make q an Independent(q, 1)"
        raise ValueError(
            f"f must return one value per draw, shape {tuple(shape)} for z of shape {tuple(z.shape)}, "
            f"got {tuple(values.shape)}{hint}"
        )
    if not values.is_floating_point():  # an indicator, say
        values = values.to(z.dtype if z.is_floating_point() else torch.get_default_dtype())
    return values


def _with_gradient(surrogate: Tensor) -> Tensor:
    if torch.is_grad_enabled() and not surrogate.requires_grad:
        raise ValueError(
            "no parameter of q or f requires a gradient: make them with requires_grad=True, or estimate the value "
            "alone with monte_carlo"
        )
    return surrogate


def _is_discrete(q: Distribution) -> bool:
    try:
        support: Any = q.support
    except NotImplementedError:
        return False
    return bool(getattr(support, "is_discrete", False))
