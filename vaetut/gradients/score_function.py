"""The score-function estimator of a gradient, which needs only the values of f: chapter 4."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaetut._support.validate import one_of
from vaetut.gradients._inputs import check, values_of, with_gradient
from vaetut.gradients._moving_support import refuse_moving_support
from vaetut.gradients._scores import optimal_control

BASELINES = ("leave_one_out", "optimal", "mean")


def score_function(
    f: Callable[[Tensor], Tensor], q: Distribution, num_samples: int, baseline: str | None = None
) -> Tensor:
    r"""Score-function estimator, $(f(z) - b)\, \nabla_\phi \log q_\phi(z)$ with $z \sim q_\phi$ (``eq-grad-score``).

    Also known as REINFORCE (Williams, 1992). It needs a density that can be differentiated in $\phi$. f need
    not be differentiable or continuous, and z may be discrete.

    The density must change smoothly with $\phi$: the score describes how the density changes inside of the support, and
    not what an end of the support adds when it moves. There the estimator is right only if the density goes to 0 at
    that end, as that of $2 (\phi - z) / \phi^2$ on $(0, \phi)$ does; otherwise an error is raised, also through
    transforms, ``Independent`` and mixtures. Even then its variance is infinite, unless the density goes to 0 faster
    than linearly, or f vanishes there too. **A jump of the density inside of the support that moves with a parameter is
    not detected**, as in a density of your own: there the estimate is wrong, without an error.

    A baseline b that does not depend on its own draw does not change the mean (``eq-grad-baseline``) and can reduce the
    variance a lot. It is computed separately for every batch element.

    - ``"leave_one_out"``: the mean of f over the *other* draws (``eq-grad-leave-one-out``).
    - ``"optimal"``: the constant of least variance, $\mathbb E[f s^2] / \mathbb E[s^2]$ with $s$ the score
      $\partial \log q_\phi / \partial \phi_k$ (``eq-grad-optimal-baseline``), one for each of q's parameters; both
      averages are over the other draws, so that this is unbiased too.
    - ``"mean"`` is another name for ``"leave_one_out"``. With the mean of f over *all* draws as b, the draw's own part
      of the mean shrinks the gradient by the factor $(L - 1) / L$ (``eq-grad-mean-bias``); corrected, it is the same.

    Args:
        f: maps ``z [num_samples, *q.batch_shape, *q.event_shape]`` to one value each,
            ``[num_samples, *q.batch_shape]``.
        q: a distribution with ``log_prob``, whose parameters require a gradient.
        num_samples: L, the number of draws; at least 2 with a baseline.
        baseline: None, "leave_one_out" (or "mean", the same) or "optimal".

    Returns:
        Surrogates ``[num_samples, *q.batch_shape]``: the value is f(z), the gradient the estimator. They may be
        differentiated more than once.

    Raises:
        TypeError: if q is not a distribution, f is not a function or returns no tensor, or ``num_samples`` is not an
            int.
        ValueError: if f does not return one value per draw, if ``num_samples`` is too small, if the baseline is
            unknown, if neither q nor f has a parameter that requires a gradient, or if the density of q jumps at an
            end of its support that moves with one that does, as that of ``Uniform`` does.
        NotImplementedError: if ``baseline="optimal"`` and q cannot be constructed from its parameters.

    Source:
        Williams (1992), doi:10.1007/BF00992696; chapter 4. The surrogate for all orders is that of Foerster et al.
        (2018), arXiv:1802.05098.

    Example:
        A step has no slope, yet its expectation under $\mathcal N(\mu, 1)$ has: the density at the step.

        >>> from torch.distributions import Normal
        >>> _ = torch.manual_seed(0)
        >>> mu = torch.tensor(1.5, requires_grad=True)
        >>> surrogate = score_function(lambda z: z > 0, Normal(mu, 1.0), 100_000, baseline="leave_one_out")
        >>> (gradient,) = torch.autograd.grad(surrogate.mean(0), mu)
        >>> round(gradient.item(), 2), round(Normal(0.0, 1.0).log_prob(mu).exp().item(), 2)
        (0.13, 0.13)
    """
    shape = check(f, q, num_samples)
    refuse_moving_support(q)
    if baseline is not None:
        one_of(baseline, "baseline", BASELINES)
        if num_samples < 2:
            raise ValueError(
                f"num_samples must be at least 2 with baseline={baseline!r}, which uses the other draws, "
                f"got {num_samples} (in gradient_statistics, set samples_per_estimate)"
            )
    z = q.sample(shape[:1]).detach()  # sample() stops reverse-mode gradients, but not forward-mode ones
    values = values_of(f, z, shape)
    log_q = q.log_prob(z).to(values.dtype)
    box = torch.exp(log_q - log_q.detach())  # its value is 1, its gradient is the score
    surrogate = values * box
    if baseline == "optimal":
        surrogate = surrogate - optimal_control(values.detach(), q, z)
    elif baseline is not None:
        detached = values.detach()
        others = (detached.sum(0) - detached) / (shape[0] - 1)
        surrogate = surrogate - others * (box - 1)
    return with_gradient(surrogate)
