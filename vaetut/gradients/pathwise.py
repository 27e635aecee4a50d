"""The pathwise estimator of a gradient, the gradient of f through the draws: chapter 4, and 6 to 10 for the maps."""

from collections.abc import Callable

from torch import Tensor
from torch.distributions import Distribution

from vaetut._support.validate import name_of
from vaetut.distributions.support import is_discrete
from vaetut.gradients._inputs import check, is_differentiated, values_of, with_gradient
from vaetut.reparam import reparameterize


def pathwise(
    f: Callable[[Tensor], Tensor], q: Distribution, num_samples: int, via: str | None = None
) -> Tensor:
    r"""Pathwise estimator, $\nabla_\phi f(g_\phi(\epsilon))$ with $\epsilon \sim p(\epsilon)$ (``eq-grad-pathwise``).

    The draw is written, by `vaetut.reparameterize`, as a function of noise whose distribution does not depend on
    $\phi$, and the gradient goes through that function. It is unbiased if f along the map is locally Lipschitz in
    $\phi$ (as a continuous, piecewise smooth f is) with slopes that an integrable function dominates. A step is not
    continuous: its estimate is 0, and wrong.

    Args:
        f: maps ``z [num_samples, *q.batch_shape, *q.event_shape]`` to one value each,
            ``[num_samples, *q.batch_shape]``.
        q: a distribution that `vaetut.catalogue` lists.
        num_samples: L, the number of draws.
        via: the family of the map, as in `vaetut.reparameterize`; None selects the first that covers all parameters.

    Returns:
        Surrogates ``[num_samples, *q.batch_shape]``: the value is f(z), the gradient the estimator.

    Raises:
        TypeError: if q is not a distribution, f is not a function or returns no tensor, or ``num_samples`` is not an
            int.
        ValueError: if f does not return one value per draw or breaks the graph between z and its value, if
            ``num_samples`` is less than 1, if ``via`` is unknown, if the map has no gradient in a parameter that
            requires one, or if no parameter does.
        NotImplementedError: if q is discrete or has no map.

    Source:
        AEVB, section 2.4; chapter 4, and chapters 6 to 10 for the maps.

    Example:
        >>> import torch
        >>> from torch.distributions import Normal
        >>> _ = torch.manual_seed(0)
        >>> mu = torch.tensor(1.5, requires_grad=True)
        >>> surrogate = pathwise(torch.square, Normal(mu, 1.0), 100_000)
        >>> (gradient,) = torch.autograd.grad(surrogate.mean(0), mu)
        >>> round(gradient.item(), 1)   # of E[z²] = μ² + 1
        3.0
    """
    shape = check(f, q, num_samples)
    if is_discrete(q):
        raise NotImplementedError(
            f"q must not be discrete, as {name_of(q)} is: a draw changes only in jumps, and has no "
            "gradient; use score_function"
        )
    try:
        z = reparameterize(q, via).rsample(shape[:1])
    except NotImplementedError as error:
        raise NotImplementedError(f"{error}; score_function needs no map") from None
    values = values_of(f, z, shape)
    if is_differentiated(z) and not is_differentiated(values):
        raise ValueError(
            "f has no gradient in z, which pathwise needs: it may be a step, or detach z; use score_function"
        )
    return with_gradient(values)
