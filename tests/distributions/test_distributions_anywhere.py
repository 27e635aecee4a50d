"""Under torch.func, under torch.compile, and on every device."""

import shutil

import pytest
import torch
from distribution_cases import (
    ARGUMENTS,
    BATCH,
    F64,
    assert_close,
    every_kind,
    make,
    methods,
    scalar_kind,
)
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributions import Normal, Uniform
from torch_kernels import has_meta_gamma, needs_meta_kernels

from vaetut.distributions import (
    Elliptical,
    Gompertz,
    Logistic,
    MultivariateStudentT,
    Rayleigh,
    Reciprocal,
    Triangular,
    Truncated,
)


@every_kind
def test_vmap(kind):
    """Over the values; over the parameters; over draws, each with its own noise."""
    q = make(kind, (), F64, validate_args=False)
    z = q.sample((6,))
    assert_close(torch.func.vmap(q.log_prob)(z), q.log_prob(z), 1e-14)
    draws = torch.func.vmap(lambda _: q.rsample(), randomness="different")(torch.zeros(4))
    assert draws.shape == (4, *q.event_shape)
    assert len(draws.reshape(4, -1)[:, 0].unique()) == 4


@scalar_kind
def test_grad_and_vmap_over_parameters(kind):
    name = list(ARGUMENTS[kind])[-1]
    grid = torch.linspace(0.9, 1.1, 5, dtype=F64) * ARGUMENTS[kind][name]

    def objective(value):
        fixed = {n: torch.tensor(v, dtype=F64) for n, v in ARGUMENTS[kind].items() if n != name}
        q = kind(**fixed, **{name: value}, validate_args=False)
        z = q.icdf(torch.tensor(0.3, dtype=F64))
        return q.log_prob(z.detach()) + z + q.cdf(z.detach()) + q.entropy() + q.mean

    assert_close(torch.func.vmap(objective)(grid), objective(grid), 1e-13)
    slope = torch.func.vmap(torch.func.grad(objective))(grid)
    live = grid.clone().requires_grad_()
    (expected,) = torch.autograd.grad(objective(live).sum(), live)
    assert_close(slope, expected, 1e-12)


def test_grad_through_the_parameters_of_a_vector():
    def objective(df, loc, scale):
        q = MultivariateStudentT(df, loc, scale, validate_args=False)
        e = Elliptical(Rayleigh(df, False), loc, scale, validate_args=False)
        x = torch.ones(2, dtype=F64)
        return q.log_prob(x) + q.entropy() + e.log_prob(x) + e.entropy()

    arguments = (torch.tensor(3.0, dtype=F64), torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))
    gradient = torch.func.grad(objective, argnums=(0, 1, 2))(*arguments)
    live = [a.clone().requires_grad_() for a in arguments]
    for a, b in zip(gradient, torch.autograd.grad(objective(*live), live), strict=True):
        assert_close(a, b, 1e-14)


@every_kind
def test_meta(kind):
    """Shapes and dtypes without any data."""
    needs_meta_kernels(kind)
    q = make(kind, device="meta", validate_args=False)
    for name, value, shape in methods(q):
        assert value.device.type == "meta", name
        assert value.shape == shape, name


@every_kind
def test_no_tensor_is_made_on_another_device(kind):
    """A fake GPU: an operation that mixes devices is an error there, with no GPU at hand."""
    needs_meta_kernels(kind)
    with FakeTensorMode():
        q = make(kind, device="cuda", validate_args=False)
        for name, value, shape in methods(q):
            assert value.device.type == "cuda", name
            assert value.shape == shape, name
        assert q.expand((5, *BATCH)).rsample().device.type == "cuda"


@pytest.mark.skipif(torch.__version__ < "2.13", reason="the versions of requirements.lock")
def test_only_an_older_torch_lacks_kernels():
    assert has_meta_gamma()


def test_divergences_on_another_device():
    with FakeTensorMode():
        pairs = [
            (make(kind, device="cuda", validate_args=False), other)
            for kind in (Rayleigh, Reciprocal, Triangular, Logistic, Gompertz)
            for other in (torch.distributions.Normal, Uniform)
        ]
        for p, other in pairs:
            low, high = torch.full(BATCH, -9.0, device="cuda"), torch.full(BATCH, 9.0, device="cuda")
            value = torch.distributions.kl_divergence(p, other(low, high, validate_args=False))
            assert value.device.type == "cuda"
            assert value.shape == BATCH


def test_no_tensor_of_a_truncated_or_elliptical_is_on_the_default_device():
    """Values on the meta device could not be read."""
    loc, scale, matrix = torch.zeros((), dtype=F64), torch.ones((), dtype=F64), torch.eye(2, dtype=F64)
    with torch.device("meta"):
        q = Truncated(Normal(loc, scale), 0.0, 1.0)
        assert q.rsample((3,)).device.type == q.mean.device.type == "cpu"
        with pytest.raises(ValueError, match="radial must be a continuous distribution on positive numbers"):
            Elliptical(Normal(loc, scale), matrix[0], matrix)


@every_kind
def test_compiled_in_one_graph(kind):
    """No graph break in density or draw, but for the copy of a base distribution, which torch 2.11 does not trace."""
    torch.compiler.reset()
    one = not (torch.__version__ < "2.13" and kind in (Elliptical, Truncated))

    @torch.compile(backend="aot_eager", fullgraph=one)
    def density(x):
        return make(kind, (), F64, validate_args=False).log_prob(x)

    q = make(kind, (), F64)
    x = q.sample((3,))
    assert_close(density(x), q.log_prob(x), 1e-12)

    @torch.compile(backend="aot_eager", fullgraph=one)
    def draw(n):
        return make(kind, (), F64, validate_args=False).rsample((n,))

    assert torch.isfinite(draw(5)).all()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_code():
    """Generated code, not the graph alone."""
    torch.compiler.reset()

    @torch.compile(fullgraph=True)
    def density(x, loc, scale):
        return Logistic(loc, scale, validate_args=False).log_prob(x)

    loc, scale, x = torch.zeros(3, dtype=F64), torch.ones(3, dtype=F64), torch.randn(5, 3, dtype=F64)
    assert_close(density(x, loc, scale), Logistic(loc, scale).log_prob(x), 1e-12)
