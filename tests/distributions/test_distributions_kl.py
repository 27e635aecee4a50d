"""Every registered divergence against quadrature, its gradient, its infinities, and torch's own left alone."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from distribution_cases import F64, assert_close
from torch.distributions import (
    Beta,
    Cauchy,
    Chi2,
    Exponential,
    Gamma,
    Gumbel,
    HalfNormal,
    InverseGamma,
    Laplace,
    LogNormal,
    MultivariateNormal,
    Normal,
    Pareto,
    StudentT,
    Uniform,
    Weibull,
    kl_divergence,
)
from torch.distributions.kl import _KL_REGISTRY

from vaetut.distributions import (
    Elliptical,
    Erlang,
    Gompertz,
    Logistic,
    MultivariateStudentT,
    Rayleigh,
    Reciprocal,
    Triangular,
    kl,
)

# Two members of each family; as p, moments up to E[x³] exist, as q, bounded supports are wide.
MEMBERS = {
    Exponential: [{"rate": 0.7}, {"rate": 3.0}],
    Gamma: [{"concentration": 2.5, "rate": 0.8}, {"concentration": 3.7, "rate": 4.0}],
    InverseGamma: [{"concentration": 4.5, "rate": 2.0}, {"concentration": 6.0, "rate": 9.0}],
    Weibull: [{"scale": 1.3, "concentration": 1.8}, {"scale": 0.6, "concentration": 2.7}],
    Rayleigh: [{"scale": 0.9}, {"scale": 2.0}],
    HalfNormal: [{"scale": 0.9}, {"scale": 2.0}],
    LogNormal: [{"loc": 0.3, "scale": 0.5}, {"loc": -1.0, "scale": 0.9}],
    Pareto: [{"scale": 0.8, "alpha": 5.0}, {"scale": 2.0, "alpha": 7.5}],
    Gompertz: [{"concentration": 0.3, "rate": 0.8}, {"concentration": 4.0, "rate": 0.5}],
    Logistic: [{"loc": 0.5, "scale": 0.4}, {"loc": -1.0, "scale": 0.9}],
    StudentT: [{"df": 4.5, "loc": 0.5, "scale": 0.4}, {"df": 12.0, "loc": -1.0, "scale": 2.0}],
    Normal: [{"loc": 0.7, "scale": 1.5}, {"loc": -2.0, "scale": 0.8}],
    Laplace: [{"loc": 0.7, "scale": 1.5}, {"loc": -2.0, "scale": 0.8}],
    Gumbel: [{"loc": 0.7, "scale": 1.5}, {"loc": -2.0, "scale": 2.0}],
    Reciprocal: [{"low": 1.0, "high": 2.5}, {"low": 1.5, "high": 1.9}],
    Triangular: [{"low": 1.0, "high": 2.5, "peak": 1.6}, {"low": 1.2, "high": 2.2, "peak": 1.25}],
    Uniform: [{"low": 1.0, "high": 2.5}, {"low": 1.4, "high": 1.7}],
}
WIDER = {
    Reciprocal: [{"low": 1.0, "high": 2.5}, {"low": 0.2, "high": 40.0}],
    Triangular: [{"low": 1.0, "high": 2.5, "peak": 2.0}, {"low": -3.0, "high": 9.0, "peak": 1.3}],
    Uniform: [{"low": 1.0, "high": 2.5}, {"low": -3.0, "high": 9.0}],
}
BOUNDED = (Reciprocal, Triangular, Uniform)
POSITIVE = (Exponential, Gamma, InverseGamma, Weibull, Rayleigh, HalfNormal, LogNormal, Gompertz)

NEW = {pair: f for pair, f in _KL_REGISTRY.items() if f.__module__ == kl.__name__}
DIVERGENT = {(Exponential, InverseGamma), (HalfNormal, InverseGamma)}  # E[1/x] = ∞ whatever the parameters
SCALAR = [
    pair
    for pair, f in NEW.items()
    if f is not kl._kl_infinite and pair[1] is not MultivariateNormal and pair not in DIVERGENT
]


def make(kind, parameters, **changes):
    return kind(**{name: torch.tensor(value, dtype=F64) for name, value in parameters.items()}, **changes)


def gauss_legendre(edges, panels=40, order=20):
    """Nodes and weights of the composite rule between sorted edges."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    cuts = np.concatenate([np.linspace(a, b, panels + 1)[:-1] for a, b in itertools.pairwise(edges)])
    ends = np.append(cuts[1:], edges[-1])
    half = (ends - cuts) / 2
    x = (cuts + half)[:, None] + half[:, None] * nodes
    return torch.tensor(x.ravel(), dtype=F64), torch.tensor((half[:, None] * weights).ravel(), dtype=F64)


def quadrature(p, q):
    """∫ p log(p/q) dx by a rule that knows where p ends and where log p or log q has a kink."""
    kinks = [float(getattr(d, "peak", torch.tensor(math.nan))) for d in (p, q)]
    if isinstance(p, BOUNDED):
        edges = sorted({float(p.low), float(p.high), *[k for k in kinks if p.low < k < p.high]})
        # t ↦ x crowds the nodes at both ends of every piece, where log q may be infinite
        total = 0.0
        for a, b in itertools.pairwise(edges):
            t, weight = gauss_legendre([-36.0, 0.0, 36.0])
            s = torch.sigmoid(t)
            near = torch.where(t < 0, a + (b - a) * s, b - (b - a) * torch.sigmoid(-t))
            total = total + integrand(p, q, near, weight * (b - a) * s * (1 - s))
        return total
    if isinstance(p, (*POSITIVE, Pareto)):
        low = math.log(p.scale) if isinstance(p, Pareto) else -60.0
        t, weight = gauss_legendre([low, low + 30.0, low + 60.0, 60.0])
        return integrand(p, q, t.exp(), weight * t.exp())
    kink = math.asinh(float((q.loc - p.loc) / p.scale))
    t, weight = gauss_legendre([-20.0, kink, 20.0], panels=120)
    return integrand(p, q, p.loc + p.scale * t.sinh(), weight * p.scale * t.cosh())


def integrand(p, q, x, weight):
    log_p = p.log_prob(x)
    density = log_p.exp() * weight
    return torch.where(density > 0, density * (log_p - q.log_prob(x)), 0.0).sum()


@pytest.mark.parametrize("pair", SCALAR, ids=lambda pair: f"{pair[0].__name__}-{pair[1].__name__}")
def test_against_quadrature(pair):
    for p, q in itertools.product(
        MEMBERS[pair[0]], (WIDER if pair[0] in BOUNDED else MEMBERS).get(pair[1], MEMBERS[pair[1]])
    ):
        p, q = make(pair[0], p, validate_args=False), make(pair[1], q, validate_args=False)
        expected = quadrature(p, q)
        if torch.isfinite(kl_divergence(p, q)):
            assert_close(kl_divergence(p, q), expected, 1e-10)
        else:
            assert isinstance(q, (Reciprocal, Triangular, Uniform))
            assert p.low < q.low or p.high > q.high


@pytest.mark.parametrize("pair", SCALAR, ids=lambda pair: f"{pair[0].__name__}-{pair[1].__name__}")
def test_gradient(pair):
    p, q = MEMBERS[pair[0]][1], (WIDER if pair[0] in BOUNDED else MEMBERS).get(pair[1], MEMBERS[pair[1]])[1]
    values = [torch.tensor(v, dtype=F64, requires_grad=True) for v in (*p.values(), *q.values())]

    def divergence(*values):
        left = pair[0](**dict(zip(p, values[: len(p)], strict=True)), validate_args=False)
        right = pair[1](**dict(zip(q, values[len(p) :], strict=True)), validate_args=False)
        return kl_divergence(left, right)

    assert torch.isfinite(divergence(*values))
    assert torch.autograd.gradcheck(divergence, values, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", sorted({p for p, q in SCALAR if p is q}, key=lambda kind: kind.__name__))
def test_zero_between_equals(kind):
    for parameters in MEMBERS[kind]:
        assert_close(kl_divergence(make(kind, parameters), make(kind, parameters)), 0.0, 1e-14)


def test_torch_keeps_its_own():
    listing = (
        "from torch.distributions.kl import _KL_REGISTRY as registry;"
        "print(*[f'{p.__name__}-{q.__name__}' for p, q in registry])"
    )
    output = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    ).stdout
    assert not {f"{p.__name__}-{q.__name__}" for p, q in NEW} & set(output.split())


def test_pairs_that_were_asked_for():
    for pair in [
        *[(kind, kind) for kind in (Weibull, Rayleigh, Reciprocal, Triangular)],
        *[
            (Weibull, Gamma),
            (Weibull, Exponential),
            (Gamma, Weibull),
            (Exponential, Weibull),
            (Logistic, Normal),
        ],
    ]:
        assert pair in NEW
    p, q = Erlang(3, torch.tensor(2.0)), Erlang(5, torch.tensor(1.0))
    assert kl_divergence(p, q) == kl_divergence(Gamma(3.0, 2.0), Gamma(5.0, 1.0))
    assert kl_divergence(p, Weibull(1.0, 2.0)) == kl_divergence(Gamma(3.0, 2.0), Weibull(1.0, 2.0))
    assert torch.isfinite(kl_divergence(Chi2(3.0), Rayleigh(1.0)))
    assert torch.isfinite(kl_divergence(Gumbel(0.0, 1.0), Gumbel(1.0, 2.0)))  # torch's own


INFINITE = [
    (Logistic(0.0, 1.0), Gamma(1.0, 1.0)),
    (Normal(0.0, 1.0), Rayleigh(1.0)),
    (Normal(0.0, 1.0), Triangular(-1.0, 1.0, 0.0)),
    (StudentT(3.0), Beta(1.0, 1.0)),
    (Cauchy(0.0, 1.0), Gompertz(1.0, 1.0)),
    (Weibull(1.0, 1.0), Uniform(0.0, 9.0)),
    (Rayleigh(1.0), Pareto(1.0, 1.0)),
    (Erlang(2, 1.0), Reciprocal(1e-9, 1e9)),
    (Reciprocal(1.0, 3.0), Reciprocal(2.0, 3.0)),
    (Reciprocal(1.0, 3.0), Uniform(1.0, 2.0)),
    (Triangular(-1.0, 1.0, 0.0), Exponential(1.0)),
    (Triangular(0.0, 1.0, 0.0), Triangular(1.0, 2.0, 1.0)),
    (Uniform(0.0, 1.0), Triangular(0.5, 2.0, 1.0)),
    (Uniform(-1.0, 0.0), Reciprocal(0.5, 2.0)),
    (Triangular(-1.0, 0.0, 0.0), Reciprocal(0.5, 2.0)),
    (StudentT(2.0), Normal(0.0, 1.0)),
    (StudentT(0.5), Normal(0.0, 1.0)),
    (InverseGamma(0.9, 1.0), Exponential(1.0)),
    (Pareto(1.0, 1.5), Rayleigh(1.0)),
    (Exponential(1.0), InverseGamma(1.0, 1.0)),
    (HalfNormal(1.0), InverseGamma(1.0, 1.0)),
    (Logistic(0.0, 2.0), Gumbel(0.0, 2.0)),
    (
        MultivariateStudentT(1.5, torch.zeros(2), torch.eye(2)),
        MultivariateNormal(torch.zeros(2), torch.eye(2)),
    ),
]


@pytest.mark.parametrize(("p", "q"), INFINITE, ids=lambda d: type(d).__name__)
def test_infinite(p, q):
    assert kl_divergence(p, q) == math.inf


def test_infinite_entries_leave_the_gradient_of_the_others_alone():
    df = torch.tensor([1.5, 5.0], requires_grad=True)
    high = torch.tensor([2.0, 5.0], requires_grad=True)
    alpha = torch.tensor([0.5, 5.0], requires_grad=True)
    for parameter, divergence in [
        (df, kl_divergence(StudentT(df), Normal(0.0, 1.0))),
        (high, kl_divergence(Triangular(1.0, high, 1.5), Triangular(0.0, 3.0 + high[1] * 0 + 3, 1.0))),
        (high, kl_divergence(Uniform(1.0, high), Reciprocal(0.5, 3.0))),
        (alpha, kl_divergence(Pareto(1.0, alpha), Weibull(1.0, 2.0))),
        (alpha, kl_divergence(InverseGamma(alpha, torch.ones(2)), HalfNormal(1.0))),
    ]:
        (gradient,) = torch.autograd.grad(divergence[torch.isfinite(divergence)].sum(), parameter)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("peak", [1.0, 1.4, 2.0])
def test_triangular_with_shared_ends(peak):
    """q starts where p does: log q is infinite there, and d KL/d low is still what it is just beside."""
    p = make(Triangular, {"low": 1.0, "high": 2.0, "peak": 1.3})

    def divergence(low):
        return kl_divergence(
            p, Triangular(low, torch.tensor(2.0, dtype=F64), torch.tensor(peak, dtype=F64), False)
        )

    low = torch.tensor(1.0, dtype=F64, requires_grad=True)
    if peak == 1.0:
        low = (low - 1e-9).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(divergence(low), low)
    step = 1e-6
    slope = (divergence(low.detach()) - divergence(low.detach() - step)) / step
    assert_close(gradient, slope, 1e-3)


def test_float32_matches_float64():
    for p, q in SCALAR:
        values = [kl_divergence(p(**MEMBERS[p][1]), q(**{**MEMBERS, **WIDER}[q][1])) for _ in range(1)]
        exact = kl_divergence(make(p, MEMBERS[p][1]), make(q, {**MEMBERS, **WIDER}[q][1]))
        assert_close(values[0].double(), exact, 1e-4)


ANGLE = torch.arange(64, dtype=F64) * (2 * math.pi / 64)


@pytest.mark.parametrize(
    "p",
    [
        MultivariateStudentT(
            5.0, torch.tensor([0.5, -1.0], dtype=F64), torch.tensor([[0.8, 0.0], [0.3, 1.2]], dtype=F64)
        ),
        Elliptical(
            Gamma(torch.tensor(3.0, dtype=F64), torch.tensor(2.0, dtype=F64)),
            torch.tensor([0.5, -1.0], dtype=F64),
            torch.tensor([[0.8, 0.0], [0.3, 1.2]], dtype=F64),
        ),
    ],
    ids=["student", "elliptical"],
)
def test_in_the_plane_against_quadrature(p):
    """∫∫ p log(p/q) det A r dr dθ at x = μ + A r (cos θ, sin θ)."""
    q = MultivariateNormal(torch.zeros(2, dtype=F64), torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=F64))
    t, weight = gauss_legendre([-30.0, 25.0], panels=100)
    r = t.exp()
    unit = torch.stack([ANGLE.cos(), ANGLE.sin()], -1)
    x = p.loc + (r[:, None, None] * unit) @ p.scale_tril.mT
    area = p.scale_tril.diagonal().prod() * r.square() * weight * (2 * math.pi / 64)
    expected = integrand(p, q, x, area[:, None])
    assert_close(kl_divergence(p, q), expected, 1e-10)


def test_batches_broadcast():
    p = MultivariateStudentT(torch.tensor([3.0, 5.0, 9.0]), torch.zeros(2), torch.eye(2))
    q = MultivariateNormal(torch.zeros(4, 1, 2), torch.eye(2))
    assert kl_divergence(p, q).shape == (4, 3)
    one = MultivariateStudentT(5.0, torch.zeros(2), torch.eye(2))
    assert_close(
        kl_divergence(p, q)[2, 1], kl_divergence(one, MultivariateNormal(torch.zeros(2), torch.eye(2))), 1e-6
    )
    assert kl_divergence(Normal(torch.zeros(3), 1.0), Rayleigh(torch.ones(2, 1))).shape == (2, 3)
    with pytest.raises(ValueError, match="event shape"):
        kl_divergence(p, MultivariateNormal(torch.zeros(3), torch.eye(3)))
