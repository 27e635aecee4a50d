"""Where a density is 0 its gradients are 0, never 0 · ∞ = NaN; those of its log are infinite there."""

import math

import pytest
import torch
from torch.distributions import Categorical, Exponential, Laplace, MixtureSameFamily, Normal

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

CASES = {
    "Erlang": (lambda a, b: Erlang(3, a), (-1.0, 0.0, math.inf)),
    "Gompertz": (lambda a, b: Gompertz(a, b), (-1.0, 1e30, math.inf)),
    "Logistic": (lambda a, b: Logistic(a, b), (-math.inf, math.inf)),
    "Rayleigh": (lambda a, b: Rayleigh(a), (-1.0, 0.0, math.inf)),
    "Reciprocal": (lambda a, b: Reciprocal(a, b), (0.0, 9.0)),
    "Triangular": (lambda a, b: Triangular(a, b, a + 0.5), (0.0, 1.0, 3.0, 9.0)),
    "Triangular, peak at an end": (lambda a, b: Triangular(a, b, b), (0.0, 1.0, 9.0)),
    "Truncated": (lambda a, b: Truncated(Normal(0.0, 1.0), a, b), (0.0, 9.0)),
    "Truncated, without an end": (lambda a, b: Truncated(Normal(b, a), a), (0.0, math.inf)),
    "Truncated, with a kink": (lambda a, b: Truncated(Laplace(a, b), a, b), (0.0, 9.0)),
}
TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
EVERY = pytest.mark.parametrize("name", CASES)


def made(name: str, dtype: torch.dtype):
    a, b = (torch.tensor(v, dtype=dtype, requires_grad=True) for v in (1.0, 3.0))
    q = CASES[name][0](a, b)
    q._validate_args = False
    return q, [a, b]


@TYPES
@EVERY
def test_gradient_of_the_density(name: str, dtype: torch.dtype) -> None:
    for value in CASES[name][1]:
        q, parameters = made(name, dtype)
        x = torch.tensor(value, dtype=dtype, requires_grad=True)
        log_p = q.log_prob(x)
        assert log_p.item() == -math.inf
        found = torch.autograd.grad(log_p.exp(), [x, *parameters], allow_unused=True)
        assert all(slope is None or slope == 0 for slope in found), (value, found)


@TYPES
@EVERY
def test_no_slope_of_the_log_or_of_the_cdf_is_nan(name: str, dtype: torch.dtype) -> None:
    for value in (*CASES[name][1], 1e18, 1e30, 2e38):
        for method in ("log_prob", "cdf", "survival", "log_cdf", "log_survival"):
            q, parameters = made(name, dtype)
            x = torch.tensor(value, dtype=dtype, requires_grad=True)
            result = getattr(q, method)(x)
            assert not result.isnan()
            found = torch.autograd.grad(result, [x, *parameters], allow_unused=True)
            assert not any(slope is not None and slope.isnan() for slope in found), (method, value, found)


@TYPES
def test_slope_of_the_log_at_an_end_is_infinite(dtype: torch.dtype) -> None:
    low = torch.tensor(0.0, dtype=dtype)
    for q, end, slope in (
        (Erlang(2, torch.ones((), dtype=dtype)), 0.0, math.inf),
        (Rayleigh(torch.ones((), dtype=dtype)), 0.0, math.inf),
        (Triangular(low, 3.0, 1.0), 0.0, math.inf),
        (Triangular(low, 3.0, 1.0), 3.0, -math.inf),
    ):
        x = torch.tensor(end, dtype=dtype, requires_grad=True)
        assert torch.autograd.grad(q.log_prob(x), x)[0] == slope


def test_a_mixture_at_the_end_of_one_component() -> None:
    """log p = log(½ (x − 1)/… + …): the weight 0 of the component that vanishes meets its infinite slope."""
    for at, other in ((1.0, 0.0), (3.0, 4.0)):
        ends = torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor([3.0, 4.0], dtype=torch.float64)
        peak = torch.tensor([2.0, 2.0], dtype=torch.float64, requires_grad=True)
        x = torch.tensor(at, dtype=torch.float64, requires_grad=True)
        weights = Categorical(torch.ones(2, dtype=torch.float64))
        q = MixtureSameFamily(weights, Triangular(*ends, peak, validate_args=False), validate_args=False)
        slopes = torch.autograd.grad(q.log_prob(x), [x, peak])
        # the slope of the other component's log |x − other|
        assert float(slopes[0]) == pytest.approx(1 / (at - other), rel=1e-12)
        assert slopes[1].isfinite().all()


@TYPES
def test_slope_of_the_normal_tail_far_out(dtype: torch.dtype) -> None:
    """φ/Φ at −x is x + 1/x − 2/x³ + …, where the log of each is −x²/2."""
    for x in (50.0, 1e4, 1e8, 1e15):
        q = Truncated(Normal(torch.zeros((), dtype=torch.float64), 1.0), -math.inf, 0.0)
        z = torch.tensor(-x, dtype=torch.float64, requires_grad=True)
        slope = torch.autograd.grad(q.log_cdf(z), z)[0]
        assert float(slope) == pytest.approx(x + 1 / x - 2 / x**3, rel=1e-9)


@TYPES
def test_vectors_so_far_away_that_the_square_overflows(dtype: torch.dtype) -> None:
    most = 1e30 if dtype == torch.float32 else 1e200
    loc, scale_tril = torch.zeros(2, dtype=dtype), torch.tensor([[2.0, 0.0], [0.0, 0.5]], dtype=dtype)
    df = torch.tensor(3.0, dtype=dtype, requires_grad=True)
    radial = Exponential(torch.ones((), dtype=dtype, requires_grad=True))
    student, elliptical = MultivariateStudentT(df, loc, scale_tril), Elliptical(radial, loc, scale_tril)
    x = torch.tensor([[most, 0.0], [-most, most / 100], [0.0, most]], dtype=dtype)
    square = (x.double() / most / scale_tril.diagonal().double()).square().sum(-1)
    log_rise = square.log() - math.log(3) + 2 * math.log(float(x[0, 0]))
    right = math.lgamma(2.5) - math.lgamma(1.5) - math.log(3 * math.pi) - 2.5 * log_rise
    torch.testing.assert_close(student.log_prob(x).double(), right, rtol=1e-5, atol=1e-5)
    # −r is the larger part of log p; the rest is rounded away
    torch.testing.assert_close(elliptical.log_prob(x).double(), -square.sqrt() * most, rtol=1e-6, atol=0.0)
    x = torch.tensor([[math.inf, 0.0], [-math.inf, math.inf], [most, 0.0]], dtype=dtype, requires_grad=True)
    for q, parameter in ((student, df), (elliptical, radial.rate)):
        q._validate_args = False
        log_p = q.log_prob(x)
        assert (log_p[:2] == -math.inf).all() and log_p[2].isfinite()
        for value in (log_p, log_p.exp()):
            slopes = torch.autograd.grad(value.sum(), [x, parameter], retain_graph=True)
            assert not any(slope.isnan().any() for slope in slopes)
