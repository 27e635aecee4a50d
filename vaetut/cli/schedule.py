"""What changes during a run of `vaetut train`: the learning rate, and the weight of the divergence."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaetut.aevb.optimizers import OPTIMIZERS
from vaetut.bounds import elbo_terms
from vaetut.exact import LatentVariableModel

_LAST = 0.005  # the last learning rate, as a fraction of the first


class Schedule:
    """An optimizer and a bound for `vaetut.train` that change with the number of steps.

    Rate and weight depend only on the number of steps taken, which a checkpoint holds, since the schedule is passed to
    `vaetut.train` as ``state``.

    Args:
        name: the optimizer's name.
        rate: the first learning rate; None for the optimizer's default.
        decay: over the last ``decay * steps`` steps the rate falls to 0.5 % of its first value, along half a cosine.
        warm_up: over the first ``warm_up * steps`` steps the weight of the divergence grows from 0 to 1.
        steps: the number of steps of the run.
    """

    weight: Tensor

    def __init__(self, name: str, rate: float | None, decay: float, warm_up: float, steps: int) -> None:
        self.kind, default, self.fused_on = OPTIMIZERS[name]
        self.rate = default if rate is None else rate
        self.falls_from, self.warm_until, self.steps = (1 - decay) * steps, warm_up * steps, steps
        self._made: torch.optim.Optimizer | None = None

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The argument ``optimizer`` of `vaetut.train`."""
        parameters = list(parameters)
        device = parameters[0].device
        made: torch.optim.Optimizer = self.kind(parameters, lr=self.rate, fused=device.type in self.fused_on)
        for group in made.param_groups:
            group["steps"] = 0
        # A tensor, since a compiled step would treat a number as a constant.
        self.weight = torch.zeros((), device=device)
        self._made, self._weight_is = made, 0.0
        self._follow(made)
        made.register_step_post_hook(self._after_step)
        made.register_load_state_dict_post_hook(self._follow)
        return made

    def bound(self, model: LatentVariableModel, q: Distribution, x: Tensor, num_samples: int) -> Tensor:
        """The value of `vaetut.sgvb_b`; during the warm-up the divergence has a smaller weight in the gradient.

        Without the warm-up, q equals the prior in most latent dimensions before the decoder has learned to use them.
        """
        reconstruction, kl = elbo_terms(model, q, x, num_samples)
        return reconstruction - kl.detach() - self.weight * (kl - kl.detach())

    def state_dict(self) -> dict[str, Any]:
        """The number of steps taken."""
        return {"steps": 0 if self._made is None else self._made.param_groups[0]["steps"]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from that number of steps."""
        if self._made is None:
            raise RuntimeError("the schedule has no optimizer yet")
        for group in self._made.param_groups:
            group["steps"] = state["steps"]
        self._follow(self._made)

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            group["steps"] += 1
        self._follow(optimizer)

    def _follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Set the rate and the weight from the number of steps taken."""
        for group in optimizer.param_groups:
            part = min(1.0, max(0.0, group["steps"] - self.falls_from) / max(self.steps - self.falls_from, 1))
            group["lr"] = self.rate * (_LAST + (1 - _LAST) * (1 + math.cos(math.pi * part)) / 2)
        weight = min(1.0, (optimizer.param_groups[0]["steps"] + 1) / max(self.warm_until, 1))
        if weight != self._weight_is:  # launch a kernel only if it changes
            self.weight.fill_(weight)
            self._weight_is = weight


# A checkpoint identifies a bound by the name of its function; this is the name in those of the first edition.
Schedule.bound.__module__ = "vaetut._cli_recipes"


def initialize(model: nn.Module, how: str) -> None:
    """Initialize the parameters: ``"glorot"`` is Glorot and Bengio's (2010) uniform initialization, with zero biases.

    Its outputs vary more than those of torch's, so that draws of z are informative for the decoder from the start.
    """
    if how == "glorot":
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
