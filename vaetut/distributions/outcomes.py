"""The exact log-probabilities of discrete distributions (chapter 3).

From probabilities torch computes logits that are clamped near -16 in float32, so that an impossible outcome gets a
finite log-probability; from logits, probabilities that are rounded to 0 or 1. Here log p is −inf only where p is 0.
"""

from typing import NamedTuple, TypeGuard, TypeVar

import torch
from torch import Tensor
from torch.distributions import (
    Bernoulli,
    Binomial,
    Categorical,
    Distribution,
    Geometric,
    OneHotCategorical,
)
from torch.nn.functional import logsigmoid

D = TypeVar("D", bound=Distribution)


class Outcomes(NamedTuple):
    """The probabilities of a finite number of outcomes ``[..., K]``, and their logs, −inf only for exactly 0."""

    probs: Tensor
    log_probs: Tensor


def outcomes_of(q: Distribution) -> Outcomes | None:
    """The outcomes of a Bernoulli (0, then 1), Categorical or OneHotCategorical; None for the others."""
    if is_exactly(q, Bernoulli):
        return of_two(q)
    if is_exactly(q, Categorical):
        return _of_many(q)
    if is_exactly(q, OneHotCategorical):
        return _of_many(q._categorical)
    return None


def is_exactly(q: Distribution, kind: type[D]) -> TypeGuard[D]:
    """Whether q has the density of ``kind``: a subclass with a log_prob of its own is another distribution."""
    return isinstance(q, kind) and type(q).log_prob is kind.log_prob


def of_two(q: Bernoulli | Binomial | Geometric) -> Outcomes:
    """The outcomes of one trial: failure, then success."""
    probs = torch.stack([1 - q.probs, q.probs], -1)
    rest = torch.where(q.probs < 1, q.probs.neg(), 0.0).log1p()
    logs = torch.stack([torch.where(q.probs < 1, rest, -torch.inf), _log(q.probs)], -1)
    if "logits" not in q.__dict__:
        return Outcomes(probs, logs)
    logits = torch.stack([-q.logits, q.logits], -1)
    again = q.logits.sigmoid()
    given = _given(probs, torch.stack([1 - again, again], -1))
    return Outcomes(torch.where(given, probs, logits.sigmoid()), torch.where(given, logs, logsigmoid(logits)))


def _of_many(q: Categorical) -> Outcomes:
    if "logits" not in q.__dict__:
        return Outcomes(q.probs, _log(q.probs))
    given = _given(q.probs, q.logits.softmax(-1))
    return Outcomes(q.probs, torch.where(given, _log(q.probs), q.logits))


def _given(probs: Tensor, again: Tensor) -> Tensor:
    """Where the probability is what the user gave, and torch computed the logits, which it clamps near -16 in float32.

    A distribution does not record which of the two was given; ``again`` is the probability computed from the logits.
    """
    return (probs - again).abs() > 1e-3 * probs


def _log(p: Tensor) -> Tensor:
    """log p, with a gradient of 0 where p is 0."""
    return torch.where(p > 0, torch.where(p > 0, p, 1.0).log(), -torch.inf)
