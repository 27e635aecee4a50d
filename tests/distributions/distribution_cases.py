"""The distributions with parameters to try them at, and the scalar ones from scipy too."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Distribution, Normal

import vaetut.distributions
from vaetut.distributions import (
    Elliptical,
    Erlang,
    Gompertz,
    Logistic,
    MultivariateStudentT,
    Rayleigh,
    Reciprocal,
    Triangular,
    Truncated,
)

F64 = torch.float64


@dataclass(frozen=True)
class Case:
    kind: type[Distribution]
    parameters: dict[str, float]
    scipy: Callable[..., object]

    def make(self, dtype: torch.dtype = F64, **changes: object) -> Distribution:
        return self.kind(
            **{name: torch.tensor(v, dtype=dtype) for name, v in self.parameters.items()}, **changes
        )

    def reference(self) -> object:
        return self.scipy(**self.parameters)

    @property
    def differentiable(self) -> list[str]:
        return [name for name in self.parameters if not (self.kind is Erlang and name == "concentration")]

    def __str__(self) -> str:
        return f"{self.kind.__name__}({', '.join(f'{v:g}' for v in self.parameters.values())})"


def _cases(kind, names, scipy, *rows):
    return [Case(kind, dict(zip(names, row, strict=True)), scipy) for row in rows]


CASES = [
    *_cases(
        Logistic,
        ("loc", "scale"),
        lambda loc, scale: stats.logistic(loc, scale),
        *[(0.0, 1.0), (-3.0, 0.05), (2.0, 40.0)],
    ),
    *_cases(Rayleigh, ("scale",), lambda scale: stats.rayleigh(scale=scale), (1.0,), (0.01,), (300.0,)),
    *_cases(
        Reciprocal,
        ("low", "high"),
        lambda low, high: stats.loguniform(low, high),
        *[(1.0, 2.0), (0.01, 30.0), (5.0, 5.5)],
    ),
    *_cases(
        Gompertz,
        ("concentration", "rate"),
        lambda concentration, rate: stats.gompertz(concentration, scale=1 / rate),
        *[(0.8, 1.0), (0.01, 0.2), (30.0, 4.0)],
    ),
    *_cases(
        Erlang,
        ("concentration", "rate"),
        lambda concentration, rate: stats.gamma(concentration, scale=1 / rate),
        *[(1.0, 1.0), (3.0, 0.1), (15.0, 20.0)],
    ),
    *_cases(
        Triangular,
        ("low", "high", "peak"),
        lambda low, high, peak: stats.triang((peak - low) / (high - low), low, high - low),
        *[(0.0, 1.0, 0.5), (-2.0, 5.0, -1.0), (0.0, 3.0, 0.0), (-3.0, 0.0, 0.0)],
    ),
]

every_case = pytest.mark.parametrize("case", CASES, ids=str)
ONE_OF_EACH = list({case.kind: case for case in CASES}.values())
one_of_each = pytest.mark.parametrize("case", ONE_OF_EACH, ids=str)


def assert_close(actual: Tensor, expected: object, tolerance: float) -> None:
    """|actual − expected| ≤ tolerance (1 + |expected|) in every entry, infinities and NaNs in the same places."""
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(
        actual, expected.expand(actual.shape), rtol=tolerance, atol=tolerance, equal_nan=True
    )


def assert_relative(actual: Tensor, expected: object, tolerance: float) -> None:
    """|actual/expected − 1| ≤ tolerance in every entry."""
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(actual, expected.expand(actual.shape), rtol=tolerance, atol=0.0)


# For each class: scalar parameters, and how many dimensions an event adds to each of them.
ARGUMENTS = {
    Logistic: {"loc": 0.5, "scale": 2.0},
    Rayleigh: {"scale": 2.0},
    Reciprocal: {"low": 0.5, "high": 2.0},
    Gompertz: {"concentration": 0.5, "rate": 2.0},
    Erlang: {"concentration": 3.0, "rate": 2.0},
    Triangular: {"low": -0.5, "high": 2.0, "peak": 0.1},
}
BATCH = (3, 2)


def make(kind, batch=BATCH, dtype=torch.float32, device="cpu", validate_args=None):
    """A distribution of that class with the given batch shape; events are vectors of length 4."""
    if kind in ARGUMENTS:
        values = {n: torch.full(batch, v, dtype=dtype, device=device) for n, v in ARGUMENTS[kind].items()}
        return kind(**values, validate_args=validate_args)
    loc = torch.zeros(*batch, 4, dtype=dtype, device=device)
    scale = torch.eye(4, dtype=dtype, device=device).expand(*batch, 4, 4)
    if kind is Truncated:
        zero, one, two = (torch.full(batch, v, dtype=dtype, device=device) for v in (0.0, 1.0, 2.0))
        return kind(Normal(zero, one, validate_args=validate_args), -one, two, validate_args=validate_args)
    three = torch.full(batch, 3.0, dtype=dtype, device=device)
    if kind is MultivariateStudentT:
        return kind(three, loc, scale, validate_args=validate_args)
    return kind(Rayleigh(three, validate_args=validate_args), loc, scale, validate_args=validate_args)


KINDS = [getattr(vaetut.distributions, name) for name in vaetut.distributions.__all__ if name != "kl"]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
scalar_kind = pytest.mark.parametrize("kind", ARGUMENTS, ids=lambda kind: kind.__name__)


def methods(q):
    """Every result that q has, by name, with the batch shape or batch + event shape that it must have."""
    z = q.sample((5,))
    shape = q.batch_shape + q.event_shape
    yield "rsample", q.rsample((5,)), (5, *shape)
    yield "log_prob", q.log_prob(z), (5, *q.batch_shape)
    yield "entropy", q.entropy(), q.batch_shape
    for name in ("mean", "variance", "stddev"):
        yield name, getattr(q, name), shape
    if not isinstance(q, Elliptical):
        yield "mode", q.mode, shape
    if not q.event_shape:
        for name in ("cdf", "survival"):
            yield name, getattr(q, name)(z), (5, *q.batch_shape)
        yield "icdf", q.icdf(torch.rand_like(z)), (5, *q.batch_shape)
        if not isinstance(q, Erlang):
            yield "log_cdf", q.log_cdf(z), (5, *q.batch_shape)
            yield "log_survival", q.log_survival(z), (5, *q.batch_shape)
    else:
        yield "covariance_matrix", q.covariance_matrix, shape + q.event_shape
