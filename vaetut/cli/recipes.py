"""What `vaetut train` does by default, its two recipes, and what changes in the course of a run."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaetut.aevb.arguments import OPTIMIZERS
from vaetut.bounds import doubly_reparameterized, elbo_terms, iwae_bound, sgvb_a, sgvb_b
from vaetut.exact import LatentVariableModel

BOUNDS = {"sgvb_b": sgvb_b, "sgvb_a": sgvb_a, "iwae": iwae_bound, "dreg": doubly_reparameterized}
"""The bounds that can be trained, by the names that the command knows."""

DEFAULTS: dict[str, Any] = {
    "dataset": "digits",
    "latent_dim": 20,
    "hidden_dim": (500,),
    "likelihood": "bernoulli",
    "activation": "tanh",
    "initialization": "torch",
    "bound": "sgvb_b",
    "num_samples": 1,
    "optimizer": "adam",
    "lr": None,
    "lr_decay": 0.0,
    "warm_up": 0.0,
    "epochs": 20,
    "batch_size": 100,
    "binarize": "auto",
    "seed": 0,
    "device": "auto",
    "precision": "highest",
    "compile": False,
    "devices": None,
    "strategy": None,
    "init": None,
}

RECIPES: dict[str, dict[str, Any]] = {
    # AEVB's network for MNIST, trained with Adam
    "paper": {"dataset": "mnist"},
    # the network of Burda, Grosse and Salakhutdinov (2016), with one stochastic layer
    "best": {
        "dataset": "mnist",
        "latent_dim": 50,
        "hidden_dim": (200, 200),
        "activation": "relu",
        "initialization": "glorot",
        "lr_decay": 0.67,
        "warm_up": 0.125,
        "epochs": 400,
    },
}
"""Options that a recipe sets in place of the defaults."""

_LAST = 0.005  # of the first learning rate, at the last step


class Schedule:
    """An optimizer and a bound for `vaetut.train` that change with the number of steps.

    The number of steps taken is kept with the rate in the optimizer's state, so a run that is resumed goes on where it
    was.

    Args:
        name: of the optimizer.
        rate: the first learning rate; None for the optimizer's default.
        decay: over the last ``decay * steps`` the rate falls to almost nothing, along half a cosine.
        warm_up: over the first ``warm_up * steps`` the weight of the divergence grows from 0 to 1.
        steps: how many there will be.
    """

    weight: Tensor

    def __init__(self, name: str, rate: float | None, decay: float, warm_up: float, steps: int) -> None:
        self.kind, default, self.fused_on = OPTIMIZERS[name]
        self.rate = default if rate is None else rate
        self.falls_from, self.warm_until, self.steps = (1 - decay) * steps, warm_up * steps, steps

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The argument ``optimizer`` of `vaetut.train`."""
        parameters = list(parameters)
        device = parameters[0].device
        made: torch.optim.Optimizer = self.kind(parameters, lr=self.rate, fused=device.type in self.fused_on)
        for group in made.param_groups:
            group["steps"] = 0
        # A tensor and not a number, which a compiled step would take for a constant.
        self.weight = torch.zeros((), device=device)
        self._follow(made)
        made.register_step_post_hook(self._after_step)
        made.register_load_state_dict_post_hook(self._follow)
        return made

    def bound(self, model: LatentVariableModel, q: Distribution, x: Tensor, num_samples: int) -> Tensor:
        """`vaetut.sgvb_b` in value; while it warms up, its gradient has less of the divergence.

        Without the weight, most latent dimensions are given up before the decoder has learned what to do with them.
        """
        reconstruction, kl = elbo_terms(model, q, x, num_samples)
        return reconstruction - kl.detach() - self.weight * (kl - kl.detach())

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            group["steps"] += 1
        self._follow(optimizer)

    def _follow(self, optimizer: torch.optim.Optimizer) -> None:
        """The rate and the weight that belong to the number of steps taken."""
        for group in optimizer.param_groups:
            part = min(1.0, max(0.0, group["steps"] - self.falls_from) / max(self.steps - self.falls_from, 1))
            group["lr"] = self.rate * (_LAST + (1 - _LAST) * (1 + math.cos(math.pi * part)) / 2)
        taken = optimizer.param_groups[0]["steps"]
        if taken <= self.warm_until + 1:
            self.weight.fill_(min(1.0, (taken + 1) / max(self.warm_until, 1)))


def initialize(model: nn.Module, how: str) -> None:
    """Start the parameters anew: ``"glorot"`` is Glorot and Bengio's (2010) uniform one, biases zero.

    Its outputs vary more than those of torch's own, so that a draw of z tells the decoder something from the start.
    """
    if how == "glorot":
        for layer in model.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
