"""The score of every draw in every parameter of q, and the optimal baseline computed from it: chapter 4."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent
from torch.distributions.utils import _sum_rightmost as sum_rightmost

from vaetut._support.validate import name_of
from vaetut.gradients._inputs import is_differentiated


def optimal_control(values: Tensor, q: Distribution, z: Tensor) -> Tensor:
    """The control variates b·score, with value zero; b is the optimal constant, computed from the other draws."""
    parameters, make = _free_parameters(q)
    parameters = {name: p for name, p in parameters.items() if is_differentiated(p)}
    copies = {name: p.detach().expand(len(z), *p.shape) for name, p in parameters.items()}
    scores = torch.func.grad(lambda new: make(new).log_prob(z).sum())(copies)  # one score for each draw
    control = torch.zeros_like(values)
    for name, p in parameters.items():
        score = scores[name]
        event = score.dim() - values.dim()
        if event < 0 or score.shape[: values.dim()] != values.shape:
            raise _no_scores(q)
        weight = score.square()
        weighted = weight * values.reshape(*values.shape, *(1 for _ in range(event)))
        b = _sum_of_others(weighted) / _sum_of_others(weight).clamp_min(torch.finfo(weight.dtype).tiny)
        control = control + sum_rightmost(b * score * (p - p.detach()), event)
    return control


_Make = Callable[[dict[str, Tensor]], Distribution]


def _free_parameters(q: Any) -> tuple[dict[str, Tensor], _Make]:
    """Independent parameters from which q can be constructed, and the function that constructs it.

    Logits are used in place of probabilities, and a Cholesky factor in place of a covariance matrix.
    """
    if isinstance(q, Independent):
        found, make = _free_parameters(q.base_dist)
        return found, lambda new: Independent(make(new), q.reinterpreted_batch_ndims, validate_args=False)
    kind: Any = type(q)
    names = set(inspect.signature(kind).parameters) - {"validate_args"}
    if "logits" in names:
        names -= {"probs"}
    if "scale_tril" in names:
        names -= {"covariance_matrix", "precision_matrix"}
    if not all(hasattr(q, name) for name in names):
        raise _no_scores(q)
    every = {name: getattr(q, name) for name in names}
    found = {name: v for name, v in every.items() if isinstance(v, Tensor) and v.is_floating_point()}
    if not found:
        raise _no_scores(q)
    return found, lambda new: kind(**{**every, **new}, validate_args=False)


def _no_scores(q: Distribution) -> NotImplementedError:
    return NotImplementedError(
        f"baseline='optimal' needs the score of every draw in every parameter, which {name_of(q)} does not give; "
        "use baseline='leave_one_out'"
    )


def _sum_of_others(x: Tensor) -> Tensor:
    """For each row the sum of the other rows. The total minus the row would lose digits beside a large row."""
    zero = torch.zeros_like(x[:1])
    before = torch.cat([zero, x[:-1].cumsum(0)])
    after = torch.cat([x[1:].flip(0).cumsum(0).flip(0), zero])
    return before + after
