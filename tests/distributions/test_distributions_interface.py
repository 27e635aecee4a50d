"""Drop-in: shapes, dtypes, and the wrappers of torch."""

import copy
import pickle

import pytest
import torch
from distribution_cases import (
    ARGUMENTS,
    F64,
    KINDS,
    assert_close,
    every_kind,
    make,
    methods,
    one_of_each,
    scalar_kind,
)
from torch.distributions import (
    AffineTransform,
    Categorical,
    ExpTransform,
    Gamma,
    Independent,
    MixtureSameFamily,
    TransformedDistribution,
    biject_to,
)

from vaetut.distributions import (
    Elliptical,
    Erlang,
    Logistic,
    Reciprocal,
    Truncated,
)


def test_nine_classes():
    assert {kind.__name__ for kind in KINDS} == {
        "Elliptical",
        "Erlang",
        "Gompertz",
        "Logistic",
        "MultivariateStudentT",
        "Rayleigh",
        "Reciprocal",
        "Triangular",
        "Truncated",
    }
    for kind in KINDS:
        assert issubclass(kind, torch.distributions.Distribution)
        assert ">>>" in kind.__doc__
        assert kind is Truncated or "AEVB section 2.4" in " ".join(kind.__doc__.split())


@every_kind
@pytest.mark.parametrize("batch", [(), (3,), (3, 2)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=["float32", "float64"])
def test_shapes_and_dtypes(kind, batch, dtype):
    q = make(kind, batch, dtype)
    assert q.batch_shape == batch
    assert q.event_shape == (() if kind in ARGUMENTS or kind is Truncated else (4,))
    for name, value, shape in methods(q):
        assert value.shape == shape, name
        assert value.dtype == dtype, name
        assert torch.isfinite(value).all(), name
    assert not q.sample().requires_grad
    assert q.support.check(q.sample((100,))).all()


@every_kind
@pytest.mark.parametrize("default", [torch.float32, F64], ids=["float32", "float64"])
def test_the_default_dtype_does_not_matter(kind, default):
    torch.set_default_dtype(default)
    for dtype in (torch.float32, F64):
        for name, value, _ in methods(make(kind, (2,), dtype)):
            assert value.dtype == dtype, name


@every_kind
def test_expand(kind):
    small = make(kind, (2,))
    large = small.expand((3, 2))
    assert type(large) is kind
    assert large.batch_shape == (3, 2)
    z = large.sample((5,))
    assert torch.equal(large.log_prob(z), small.log_prob(z))
    assert large.entropy().shape == (3, 2)
    assert not torch.equal(large.sample()[0], large.sample()[1])  # new noise in every place
    assert make(kind, (2,), validate_args=False).expand((3, 2))._validate_args is False
    assert kind.__name__ in repr(large)


@every_kind
def test_copies(kind):
    q = make(kind)
    z = q.sample()
    for other in (copy.deepcopy(q), pickle.loads(pickle.dumps(q))):
        assert torch.equal(other.log_prob(z), q.log_prob(z))


@scalar_kind
def test_numbers_as_parameters(kind):
    for default in (torch.float32, F64):
        torch.set_default_dtype(default)
        arguments = dict(ARGUMENTS[kind])
        if kind is Erlang:
            arguments["concentration"] = 3
        q = kind(**arguments)
        assert q.batch_shape == ()
        assert q.sample().dtype == default
        name = list(arguments)[-1]
        q = kind(**{**arguments, name: torch.full((2, 1), arguments[name], dtype=F64)})
        assert q.batch_shape == (2, 1)
        assert q.sample().dtype == F64


def test_parameters_of_two_dtypes_meet_in_the_larger():
    assert Logistic(torch.zeros(3), torch.ones(3, dtype=F64)).sample().dtype == F64
    assert Reciprocal(torch.tensor(1.0), torch.tensor(2.0)).icdf(torch.tensor(0.3, dtype=F64)).dtype == F64
    assert Erlang(torch.tensor(3), torch.tensor(2.0, dtype=F64)).concentration.dtype == F64


@every_kind
def test_independent(kind):
    q = make(kind)
    joint = Independent(q, 1)
    z = joint.rsample((5,))
    assert_close(joint.log_prob(z), q.log_prob(z).sum(-1), 1e-6)
    assert_close(joint.entropy(), q.entropy().sum(-1), 1e-6)
    assert joint.expand((7, 3)).sample().shape == (7, 3, 2, *q.event_shape)


@scalar_kind
def test_transformed(kind):
    base = make(kind, (), F64)
    q = TransformedDistribution(base, [AffineTransform(1.0, -2.0)])
    z = q.rsample((5,))
    x = (z - 1) / -2
    assert_close(q.log_prob(z), base.log_prob(x) - torch.log(torch.tensor(2.0)), 1e-7)
    assert_close(q.cdf(z), base.survival(x), 1e-12)
    assert_close(q.icdf(q.cdf(z)), z, 1e-9)
    assert TransformedDistribution(base, [ExpTransform()]).expand((2,)).sample().shape == (2,)


@every_kind
def test_mixture(kind):
    components = make(kind, (3,), F64)
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=F64)
    q = MixtureSameFamily(Categorical(probs=weights), components)
    z = q.sample((6,))
    assert z.shape == (6, *q.event_shape)
    assert_close(q.log_prob(z), components.log_prob(z[:, None]).exp().mv(weights).log(), 1e-12)
    assert_close(q.mean, components.mean[0], 1e-12)
    if not q.event_shape:
        assert_close(q.cdf(z), components.cdf(z[:, None]).mv(weights), 1e-12)


@scalar_kind
def test_constrained_optimization_of_the_parameters(kind):
    """biject_to maps any real vector to parameters, as VI code relies on."""
    for name, constraint in kind.arg_constraints.items():
        if not constraint.is_discrete:
            value = biject_to(constraint)(torch.linspace(-3, 3, 5))
            assert constraint.check(value).all(), name


@one_of_each
def test_a_subclass_keeps_its_type_when_expanded(case):
    class Mine(case.kind):
        pass

    mine = Mine(**{name: torch.tensor(v) for name, v in case.parameters.items()})
    assert type(mine.expand((2,))) is Mine


def test_a_subclass_with_its_own_constructor_must_expand_itself():
    class Unit(Logistic):
        def __init__(self):
            super().__init__(0.0, 1.0)

    with pytest.raises(NotImplementedError, match="expand"):
        Unit().expand((2,))


def test_elliptical_takes_the_batch_shape_of_its_radial():
    q = Elliptical(Gamma(torch.full((3, 1), 2.0), 1.0), torch.zeros(4, 2), torch.eye(2))
    assert q.batch_shape == (3, 4)
    assert q.sample((5,)).shape == (5, 3, 4, 2)
    assert q.log_prob(q.sample()).shape == (3, 4)
    assert "radial" in repr(q)
