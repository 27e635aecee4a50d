"""Derivatives of densities, CDFs and draws: gradcheck, and finite differences of scipy's quantile function."""

import numpy as np
import pytest
import torch
from distribution_cases import CASES, F64, assert_close, assert_relative, every_case
from torch.autograd import gradcheck, gradgradcheck
from torch.distributions import Gamma, InverseGamma

from vaetut.distributions import Elliptical, Erlang, MultivariateStudentT, Rayleigh

# Where the peak of a triangle is at an end, its derivatives are one-sided, and finite differences do not see them.
SMOOTH = [case for case in CASES if "peak" not in case.parameters or 0 < case.make()._fractions[0] < 1]
smooth_case = pytest.mark.parametrize("case", SMOOTH, ids=str)
one_smooth_of_each = pytest.mark.parametrize("case", {case.kind: case for case in SMOOTH}.values(), ids=str)
U = torch.tensor([0.02, 0.2, 0.45, 0.63, 0.97], dtype=F64)


def leaves(case):
    names = case.differentiable
    return names, [torch.tensor(case.parameters[name], dtype=F64, requires_grad=True) for name in names]


def rebuild(case, names, values):
    fixed = {n: torch.tensor(v, dtype=F64) for n, v in case.parameters.items() if n not in names}
    return case.kind(**fixed, **dict(zip(names, values, strict=True)), validate_args=False)


@smooth_case
@pytest.mark.parametrize("method", ["log_prob", "cdf", "survival"])
def test_functions_of_the_value(case, method):
    names, values = leaves(case)
    x = case.make().icdf(U).requires_grad_()
    assert gradcheck(
        lambda x, *values: getattr(rebuild(case, names, values), method)(x), (x, *values), atol=1e-6
    )


@smooth_case
def test_functions_of_the_parameters(case):
    names, values = leaves(case)
    for name in ("mean", "variance", "mode", "entropy"):

        def function(*values, name=name):
            result = getattr(rebuild(case, names, values), name)
            return 1.0 * (result() if callable(result) else result)

        assert gradcheck(function, values, atol=1e-6, rtol=1e-3)


@smooth_case
def test_quantile(case):
    """d z/d parameter at fixed noise, and d z/d u."""
    names, values = leaves(case)
    u = U.clone().requires_grad_()
    assert gradcheck(lambda u, *values: rebuild(case, names, values).icdf(u), (u, *values), atol=1e-5)


@one_smooth_of_each
def test_second_derivatives(case):
    names, values = leaves(case)
    x, u = case.make().icdf(U).requires_grad_(), U.clone().requires_grad_()
    assert gradgradcheck(lambda x, *values: rebuild(case, names, values).log_prob(x), (x, *values), atol=1e-4)
    assert gradgradcheck(lambda u, *values: rebuild(case, names, values).icdf(u), (u, *values), atol=1e-4)


@smooth_case
def test_draws_move_as_the_quantile_does(case):
    """The gradient of a draw is that of scipy's ppf at the same u = F(z), by finite differences."""
    names, values = leaves(case)
    torch.manual_seed(5)
    z = rebuild(case, names, values).rsample((6,))
    u = case.reference().cdf(z.detach().numpy())
    for name, value in zip(names, values, strict=True):
        (gradient,) = torch.autograd.grad(z.sum(), value, retain_graph=True)
        step = 1e-5 * max(1.0, abs(case.parameters[name]))
        up, down = (case.scipy(**{**case.parameters, name: case.parameters[name] + s}) for s in (step, -step))
        slope = np.sum(up.ppf(u) - down.ppf(u)) / (2 * step)
        assert_close(gradient, slope, 1e-4)


@every_case
def test_draws_are_implicit_reparameterizations(case):
    """dz/dφ = −(∂F/∂φ) / p(z) for every draw that is monotone in its noise."""
    names, values = leaves(case)
    q = rebuild(case, names, values)
    z = q.rsample((5,))
    for i in range(5):
        direct = torch.autograd.grad(z[i], values, retain_graph=True)
        lower = torch.autograd.grad(q.cdf(z[i].detach()), values, retain_graph=True)
        for a, b in zip(direct, lower, strict=True):
            assert_relative(a, -b / q.log_prob(z[i].detach()).exp(), 1e-7)


def test_erlang_has_no_gradient_in_its_count():
    k, rate = (
        torch.tensor(3.0, dtype=F64, requires_grad=True),
        torch.tensor(2.0, dtype=F64, requires_grad=True),
    )
    q = Erlang(k, rate)
    for value in (q.rsample(), q.cdf(rate.detach()), q.icdf(torch.tensor(0.3, dtype=F64))):
        count, slope = torch.autograd.grad(value, (k, rate), allow_unused=True)
        assert count is None
        assert slope is not None
    sampler = Erlang(torch.tensor(30), rate).rsample()
    assert_relative(torch.autograd.grad(sampler, rate)[0], -sampler.detach() / 2, 1e-14)


A = torch.tensor([[1.0, 0.0], [0.5, 2.0]], dtype=F64)
MU = torch.tensor([1.0, -2.0], dtype=F64)


def test_student_t():
    df, loc, scale = (t.clone().requires_grad_() for t in (torch.tensor([0.7, 30.0], dtype=F64), MU, A))
    x = torch.tensor([[0.3, 1.0], [2.0, -1.0]], dtype=F64, requires_grad=True)

    def build(df, loc, scale):
        return MultivariateStudentT(df, loc, scale.tril(), validate_args=False)

    assert gradcheck(lambda x, *p: build(*p).log_prob(x), (x, df, loc, scale))
    assert gradcheck(lambda *p: build(*p).entropy(), (df, loc, scale))
    assert gradgradcheck(lambda x, *p: build(*p).log_prob(x), (x, df, loc, scale))
    assert gradcheck(lambda *p: build(*p).variance[1], (df, loc, scale))


def test_student_t_draws():
    """At fixed noise z is linear in μ and A; the derivative in ν is that of the gamma draw inside."""
    df, loc, scale = (t.clone().requires_grad_() for t in (torch.tensor(5.0, dtype=F64), MU, A))
    torch.manual_seed(1)
    z = MultivariateStudentT(df, loc, scale.tril()).rsample()
    torch.manual_seed(1)
    noise = torch.randn(2, dtype=F64)
    gamma = torch._standard_gamma(df / 2) / (df / 2)
    expected = loc + scale.tril() @ noise / gamma.sqrt()
    assert_close(z, expected.detach(), 1e-14)
    for direction in torch.eye(2, dtype=F64):
        actual = torch.autograd.grad(z @ direction, (df, loc, scale), retain_graph=True)
        wanted = torch.autograd.grad(expected @ direction, (df, loc, scale), retain_graph=True)
        for a, b in zip(actual, wanted, strict=True):
            assert_close(a, b, 1e-13)


def test_elliptical():
    sigma, loc, scale = (t.clone().requires_grad_() for t in (torch.tensor(1.5, dtype=F64), MU, A))
    x = torch.tensor([[0.3, 1.0], [2.0, -1.0]], dtype=F64, requires_grad=True)

    def build(sigma, loc, scale):
        return Elliptical(Rayleigh(sigma, False), loc, scale.tril(), validate_args=False)

    assert gradcheck(lambda x, *p: build(*p).log_prob(x), (x, sigma, loc, scale))
    assert gradcheck(lambda *p: build(*p).entropy(), (sigma, loc, scale))
    torch.manual_seed(2)
    z = build(sigma, loc, scale).rsample()
    (slope,) = torch.autograd.grad(z.sum(), sigma, retain_graph=True)  # z − μ is proportional to σ
    assert_relative(slope, (z - MU).detach().sum() / 1.5, 1e-13)
    (slope,) = torch.autograd.grad(z.sum(), loc)
    assert torch.equal(slope, torch.ones_like(MU))


def test_radial_without_gradients():
    class Drawn(Gamma):
        has_rsample = False

        def rsample(self, sample_shape=()):
            raise NotImplementedError

        def sample(self, sample_shape=()):
            return torch.ones(self._extended_shape(sample_shape), dtype=F64)

    q = Elliptical(Drawn(torch.tensor(2.0, dtype=F64), 1.0), MU, A)
    assert not q.has_rsample
    assert_close(torch.linalg.solve_triangular(A, (q.sample() - MU)[:, None], upper=False).norm(), 1.0, 1e-14)
    with pytest.raises(NotImplementedError):
        q.rsample()
    assert Elliptical(InverseGamma(3.0, 1.0), torch.zeros(2), torch.eye(2)).has_rsample
