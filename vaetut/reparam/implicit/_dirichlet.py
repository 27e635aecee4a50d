"""The implicit gradient of the Dirichlet distribution (chapter 10, *Implicit*)."""

import torch
from torch import Tensor
from torch.distributions import Dirichlet

from vaetut.distributions.shape_tails import beta_is_above, beta_log_density, beta_log_tail

TINY = torch.finfo(torch.float64).tiny


def move_dirichlet(q: Dirichlet, z: Tensor) -> Tensor:
    """Attach the gradient to draws ``[*sample, *batch, K]`` of a Dirichlet; computed in float64, in z's dtype.

    z_k is beta with concentrations αₖ and Σⱼ αⱼ − αₖ, and the proportions of the others do not depend on αₖ: when αₖ
    changes, z_k moves as that beta variable and the others are scaled by one factor.
    """
    given, z, concentration = z, z.double(), q.concentration.double()
    others = 1 - torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
    a, b = concentration, (concentration @ others).detach()
    x = (z.clamp(min=TINY).log() - (z @ others).clamp(min=TINY).log()).detach()
    log_tail = beta_log_tail(a, b, x)
    # dx/dα = −∂F/∂α / g(x), with F or F − 1
    slope = (
        torch.where(beta_is_above(a, b, x), 1.0, -1.0) * (log_tail - beta_log_density(a, b, x)).detach().exp()
    )
    step = z * slope * (log_tail - log_tail.detach())
    return given + (step - z * step.sum(-1, keepdim=True)).to(given.dtype)
