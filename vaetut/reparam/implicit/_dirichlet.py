"""The implicit gradient of the Dirichlet distribution (chapter 10, *Implicit*)."""

import torch
from torch import Tensor
from torch.distributions import Dirichlet

from vaetut.distributions.shape_tails import beta_slopes

TINY = torch.finfo(torch.float64).tiny


def move_dirichlet(q: Dirichlet, z: Tensor) -> Tensor:
    """Attach the gradient to draws ``[*sample, *batch, K]`` of a Dirichlet; computed in float64, in z's dtype.

    z_k is beta with concentrations αₖ and Σⱼ αⱼ − αₖ, and the proportions of the others do not depend on αₖ: when αₖ
    changes, z_k moves as that beta variable and the others are scaled by one factor.
    """
    given, z, concentration = z, z.double(), q.concentration.double()
    others = 1 - torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
    a, b = concentration.detach(), (concentration @ others).detach()
    x = (z.clamp(min=TINY).log() - (z @ others).clamp(min=TINY).log()).detach()
    by_a, by_x = beta_slopes(a, b, x)
    step = z * (-by_a / by_x) * (concentration - a)  # dx/dα = −(∂F/∂α)/(∂F/∂x), with F or its complement
    return given + (step - z * step.sum(-1, keepdim=True)).to(given.dtype)
