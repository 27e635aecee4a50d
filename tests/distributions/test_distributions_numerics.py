"""float32 against float64 over extreme parameters, the ends of the supports, and draws that are never infinite."""

import math

import pytest
import torch
from distribution_cases import F64, assert_close, assert_relative, one_of_each
from torch.distributions import MultivariateNormal

from vaetut.distributions import (
    Elliptical,
    Erlang,
    Gompertz,
    Logistic,
    MultivariateStudentT,
    Rayleigh,
    Reciprocal,
    Triangular,
)
from vaetut.distributions._special import open_uniform

F32 = torch.float32
CPU = torch.device("cpu")
SWEEP = [
    *[(Logistic, {"loc": m, "scale": s}) for m, s in [(0.0, 1e-30), (0.0, 1e30), (3.0, 0.1), (-1e4, 1.0)]],
    *[(Rayleigh, {"scale": s}) for s in (1e-30, 1e-3, 1.0, 1e30)],
    *[
        (Reciprocal, {"low": a, "high": b})
        for a, b in [(1e-30, 1e30), (1.0, 1.00001), (1e30, 3e30), (1e-30, 1.0)]
    ],
    *[(Gompertz, {"concentration": c, "rate": b}) for c in (1e-37, 1e-8, 1.0, 1e8) for b in (1.0, 1e10)],
    (Gompertz, {"concentration": 1e-20, "rate": 1e-10}),
    (Gompertz, {"concentration": 1e30, "rate": 1.0}),
    *[(Erlang, {"concentration": k, "rate": r}) for k in (1.0, 2.0, 15.0, 50.0) for r in (1e-10, 1.0, 1e10)],
    *[
        (Triangular, {"low": a, "high": b, "peak": m})
        for a, b, m in [
            (0.0, 1.0, 0.0),
            (0.0, 1.0, 1.0),
            (0.0, 1.0, 1e-3),
            (-1e30, 1e30, 0.0),
            (0.0, 1e-30, 1e-31),
            (100.0, 101.0, 100.5),
        ]
    ],
]
sweep = pytest.mark.parametrize(
    ("kind", "parameters"),
    SWEEP,
    ids=[f"{kind.__name__}-{'-'.join(f'{v:g}' for v in p.values())}" for kind, p in SWEEP],
)
U = [2.0**-24, 1e-4, 0.03, 0.3, 0.5, 0.7, 0.97, 0.9999, 1 - 2.0**-24]


def both(kind, parameters):
    """The same distribution in float32 and in float64; its parameters are float32 numbers."""
    single = {name: torch.tensor(v, dtype=F32) for name, v in parameters.items()}
    return kind(**single), kind(**{name: v.double() for name, v in single.items()})


@sweep
def test_quantile_in_float32(kind, parameters):
    q32, q64 = both(kind, parameters)
    u = torch.tensor(U, dtype=F32)
    z, exact = q32.icdf(u), q64.icdf(u.double())
    assert torch.isfinite(z).all()
    # relative to the width of the distribution where its location dominates
    size = exact.abs() + (q64.icdf(torch.tensor(0.9, dtype=F64)) - q64.icdf(torch.tensor(0.1, dtype=F64)))
    assert ((z.double() - exact).abs() / size).max() < 2e-5


@sweep
def test_density_and_cdf_in_float32(kind, parameters):
    q32, q64 = both(kind, parameters)
    z = q32.icdf(torch.tensor(U, dtype=F32))
    assert_close(q32.log_prob(z).double(), q64.log_prob(z.double()), 4e-5)
    assert_relative(q32.cdf(z).double(), q64.cdf(z.double()), 1e-4)
    assert_relative(q32.survival(z).double(), q64.survival(z.double()), 1e-4)


@sweep
def test_moments_and_entropy_in_float32(kind, parameters):
    q32, q64 = both(kind, parameters)
    for exact, value in ((q64.mean, q32.mean), (q64.entropy(), q32.entropy())):
        assert_close(value.double(), exact, 1e-4)
    with_room = 1e-37 < q64.variance < 1e38  # elsewhere float32 has no number for it
    if with_room:
        assert_relative(q32.variance.double(), q64.variance, 1e-4)


@sweep
def test_gradients_in_float32(kind, parameters):
    """d z/d parameter at fixed noise, and d log p/d parameter, as in float64 wherever float32 can hold them."""
    u = torch.tensor(U, dtype=F32)
    x = both(kind, parameters)[0].icdf(u)

    def jacobians(dtype):
        names = [name for name in parameters if (kind, name) != (Erlang, "concentration")]
        fixed = {name: torch.tensor(v, dtype=dtype) for name, v in parameters.items() if name not in names}
        live = tuple(torch.tensor(parameters[name], dtype=F32).to(dtype) for name in names)

        def outputs(*values):
            q = kind(**fixed, **dict(zip(names, values, strict=True)))
            log_prob = q.log_prob(x.to(dtype))
            return q.icdf(u.to(dtype)), log_prob[torch.isfinite(log_prob)]

        return [torch.stack(j).double() for j in torch.autograd.functional.jacobian(outputs, live)]

    for single, exact in zip(jacobians(F32), jacobians(F64), strict=True):
        assert torch.isfinite(exact).all()
        room = exact.abs() < 1e37
        assert torch.isfinite(single[room]).all()
        error = (single - exact).abs()[room]
        # Entries that nearly cancel are measured by the largest derivative of the same number.
        size = torch.maximum(exact.abs(), 0.01 * exact.abs().amax(0, keepdim=True).clamp(max=1e37))[room]
        assert (error <= 1e-3 * size + 1e-37).all()


@pytest.mark.parametrize("peak", [0.0, 1.0])
def test_triangle_with_its_peak_at_an_end(peak):
    """No NaN in a value or a gradient anywhere, at that end either; at the other end the density is 0."""
    parameters = [torch.tensor(v, dtype=F64, requires_grad=True) for v in (0.0, 1.0, peak)]
    q = Triangular(*parameters)
    assert_close(q.log_prob(q.low + q.high - q.peak), -math.inf, 0.0)
    x = torch.tensor([peak, 0.25, 0.75], dtype=F64, requires_grad=True)
    assert_close(q.log_prob(x).exp(), 2 * (1 - (x - peak).abs()), 1e-15)
    ends = torch.tensor([0.0, 0.5, 1.0], dtype=F64)
    for values in (
        q.log_prob(x),
        q.cdf(x),
        q.survival(x),
        q.log_cdf(x[1:]),
        q.icdf(ends),
        q.mean,
        q.entropy(),
    ):
        for value in values.reshape(-1):
            for gradient in torch.autograd.grad(
                value, [*parameters, x], retain_graph=True, allow_unused=True
            ):
                assert gradient is None or torch.isfinite(gradient).all()
    # The one-sided slope of log p at the peak, from the side where the density is.
    (slope,) = torch.autograd.grad(q.log_prob(x)[0], x)
    assert slope[0] == (1.0 if peak else -1.0)


def test_far_tails():
    """Log tails where the tail itself is 0, even in float64."""
    far = torch.tensor([-5000.0, 5000.0], dtype=F64)
    q = Logistic(torch.tensor(0.0, dtype=F64), 1.0)
    assert_close(q.log_cdf(far), [-5000.0, 0.0], 1e-15)
    assert_close(q.log_survival(far), [0.0, -5000.0], 1e-15)
    assert_close(q.log_prob(far), [-5000.0, -5000.0], 1e-15)
    x = torch.tensor(100.0, dtype=F64)
    assert_close(Rayleigh(1.0).log_survival(x), -5000.0, 1e-15)
    tiny = torch.tensor(1e-120, dtype=F64)
    assert_relative(Rayleigh(1.0).log_cdf(tiny), 2 * math.log(1e-120) - math.log(2), 1e-14)
    gompertz = Gompertz(torch.tensor(1e-300, dtype=F64), 1.0)
    assert_relative(gompertz.log_cdf(torch.tensor(1.0, dtype=F64)), math.log(1e-300 * math.expm1(1)), 1e-14)
    assert_relative(gompertz.log_survival(torch.tensor(700.0, dtype=F64)), -1e-300 * math.exp(700), 1e-11)
    assert_relative(Erlang(2, 1.0).survival(torch.tensor(500.0, dtype=F64)), 501 * math.exp(-500), 1e-12)
    triangular = Triangular(torch.tensor(0.0, dtype=F64), 1.0, 0.5)
    assert_relative(triangular.cdf(torch.tensor(1e-100, dtype=F64)), 2e-200, 1e-14)


@pytest.mark.parametrize("df", [1e4, 1e6, 1e10, 1e20])
def test_student_t_with_huge_df_is_gaussian_in_float32(df):
    loc, scale = torch.tensor([1.0, -2.0]), torch.tensor([[1.0, 0.0], [0.5, 2.0]])
    df = torch.tensor(df, requires_grad=True)
    q, gaussian = MultivariateStudentT(df, loc, scale), MultivariateNormal(loc, scale_tril=scale)
    exact = MultivariateStudentT(df.detach().double(), loc.double(), scale.double())
    x = loc + 2 * torch.randn(50, 2)
    assert_close(q.log_prob(x).double(), exact.log_prob(x.double()), 2e-6)
    assert_close(q.entropy().double(), exact.entropy(), 2e-6)
    if df > 1e9:
        assert_close(q.log_prob(x), gaussian.log_prob(x), 2e-6)
        assert_close(q.entropy(), gaussian.entropy(), 2e-6)
    (gradient,) = torch.autograd.grad((q.log_prob(x) + q.entropy() + q.rsample((50,)).sum(-1)).sum(), df)
    assert torch.isfinite(gradient)


def test_gompertz_whose_exponential_alone_would_overflow():
    """e⁹⁰ is infinite in float32; c e⁹⁰ is 14."""
    q = Gompertz(torch.tensor(1.2e-38), 1.0)
    x = torch.tensor(90.0)
    exact = float(torch.tensor(1.2e-38).double()) * math.expm1(90)
    assert_relative(q.log_survival(x), -exact, 1e-5)
    assert_relative(q.log_prob(x), 90 + math.log(1.2e-38) - exact, 1e-4)


def test_student_t_with_tiny_df_is_finite_in_float32():
    """χ²(ν) is often below every float32 number when ν is tiny; torch's sampler then gives the smallest, never 0."""
    df = torch.tensor(0.05, requires_grad=True)
    z = MultivariateStudentT(df, torch.zeros(2), torch.eye(2)).rsample((10_000,))
    assert torch.isfinite(z).all()


def test_elliptical_at_its_center():
    """The limit of the density for r → 0, with a gradient that is 0 by symmetry."""
    for dtype in (F32, F64):
        loc = torch.zeros(2, dtype=dtype, requires_grad=True)
        q = Elliptical(Rayleigh(torch.tensor(1.0, dtype=dtype)), loc, torch.eye(2, dtype=dtype))
        value = q.log_prob(torch.zeros(2, dtype=dtype))
        assert_close(value, -math.log(2 * math.pi), 1e-6)
        (gradient,) = torch.autograd.grad(value, loc)
        assert torch.equal(gradient, torch.zeros_like(loc))


@pytest.mark.parametrize("dtype", [F32, F64])
def test_noise_is_open_and_symmetric(dtype):
    spacing = 2.0**-24 if dtype == F32 else 2.0**-53
    u = open_uniform((200_000,), dtype=dtype, device=CPU)
    assert u.dtype == dtype
    assert 0 < u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    steps = u / spacing  # every value is a multiple of the spacing, so that 1 − u is exact
    assert torch.equal(steps, steps.round())
    assert torch.equal(1 - (1 - u), u)


def test_noise_raises_an_exact_zero(monkeypatch):
    """The one draw in 2²⁴ that torch.rand gives, made to happen."""
    monkeypatch.setattr(
        torch, "rand", lambda shape, *, generator=None, **options: torch.zeros(shape, **options)
    )
    for dtype in (F32, F64):
        u = open_uniform((3,), dtype=dtype, device=CPU)
        assert (u > 0).all()
        assert torch.isfinite(torch.logit(u)).all()
        assert torch.isfinite(Logistic(torch.zeros(3, dtype=dtype), 1.0).rsample()).all()


def test_direction_of_an_exact_zero(monkeypatch):
    monkeypatch.setattr(
        torch, "randn", lambda shape, *, generator=None, **options: torch.zeros(shape, **options)
    )
    z = Elliptical(Rayleigh(torch.ones(4)), torch.zeros(3), torch.eye(3)).rsample()
    assert torch.isfinite(z).all()
    assert (z != 0).all()


@one_of_each
def test_quantile_stays_in_the_support(case):
    for dtype in (F32, F64):
        q = case.make(dtype)
        u = torch.cat(
            [open_uniform((100_000,), dtype=dtype, device=CPU), torch.tensor([0.0, 1.0], dtype=dtype)]
        )
        assert q.support.check(q.icdf(u)).all()


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.7), (1e-9, 1.0), (100.0, 100.001), (3.0, 3.0000002)])
def test_rounding_does_not_leave_a_bounded_support(low, high):
    low, high = torch.tensor(low), torch.tensor(high)
    u = open_uniform((200_000,), dtype=F32, device=CPU)
    for q in (Reciprocal(low, high), *(Triangular(low, high, m) for m in (low, high, (low + high) / 2))):
        z = q.icdf(u)
        assert ((z >= low) & (z <= high)).all()


TEN_MILLION = [
    Logistic(torch.tensor(0.5), torch.tensor(2.0)),
    Rayleigh(torch.tensor(2.0)),
    Reciprocal(torch.tensor(0.1), torch.tensor(20.0)),
    Gompertz(torch.tensor(0.1), torch.tensor(2.0)),
    Erlang(2, torch.tensor(2.0)),
    Triangular(torch.tensor(0.0), torch.tensor(1.0), torch.tensor(0.0)),
    MultivariateStudentT(torch.tensor(3.0), torch.zeros(2), torch.eye(2)),
    Elliptical(Rayleigh(torch.tensor(1.0)), torch.zeros(2), torch.eye(2)),
]


@pytest.mark.slow
@pytest.mark.parametrize("q", TEN_MILLION, ids=lambda q: type(q).__name__)
def test_ten_million_draws(q):
    """No NaN and no infinity in 1e7 float32 numbers, nor in the gradient of any of them."""
    names = [n for n in q.arg_constraints if not (isinstance(q, Erlang) and n == "concentration")]
    parameters = {n: getattr(q, n).clone().requires_grad_() for n in names}
    others = {"concentration": 2} if isinstance(q, Erlang) else {}
    if isinstance(q, Elliptical):
        others = {"radial": q.radial}
    live = type(q)(**others, **parameters)
    for _ in range(10):
        z = live.rsample((10**6 // max(1, q.event_shape.numel()),))
        assert torch.isfinite(z).all()
        weight = torch.empty_like(z).bernoulli_().mul_(2).sub_(1)
        for gradient in torch.autograd.grad((z * weight).sum(), list(parameters.values())):
            assert torch.isfinite(gradient).all()
        value = z.detach().requires_grad_()
        log_prob = q.log_prob(value)
        assert torch.isfinite(log_prob).all()
        (score,) = torch.autograd.grad(log_prob.sum(), value)
        assert torch.isfinite(score).all()
