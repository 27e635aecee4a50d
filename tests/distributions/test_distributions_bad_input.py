"""What is wrong is refused at the call, by name; what is odd but right is not."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Beta, Gamma, HalfNormal, Independent, Normal, Poisson, StudentT, Uniform

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

INF, NAN = math.inf, math.nan
ZERO, EYE = torch.zeros(2), torch.eye(2)

# class, arguments, the error, and what its message names: the parameter and the constraint
BAD = [
    (Logistic, (0.0, 0.0), ValueError, "scale.*GreaterThan"),
    (Logistic, (0.0, -1.0), ValueError, "scale.*GreaterThan"),
    (Logistic, (NAN, 1.0), ValueError, "loc.*Real"),
    (Logistic, (0.0, NAN), ValueError, "scale.*GreaterThan"),
    (Logistic, (INF, 1.0), ValueError, "loc must be finite"),
    (Logistic, (0.0, INF), ValueError, "scale must be finite"),
    (Logistic, (torch.zeros(3), torch.ones(2)), ValueError, r"loc \(3,\).*scale \(2,\)"),
    (Logistic, (torch.zeros(3, dtype=torch.int64), 1.0), TypeError, "loc .*int64"),
    (Logistic, (torch.zeros(3).half(), 1.0), TypeError, "loc .*float16"),
    (Logistic, ("0", 1.0), TypeError, "loc .*str"),
    (Logistic, (0.0, [1.0]), TypeError, "scale .*list"),
    (Logistic, (0.0, None), TypeError, "scale .*NoneType"),
    (Logistic, (0.0, True), TypeError, "scale .*bool"),
    (Rayleigh, (-1.0,), ValueError, "scale.*GreaterThan"),
    (Rayleigh, (torch.tensor([1.0, 0.0]),), ValueError, "scale.*GreaterThan"),
    (Reciprocal, (0.0, 1.0), ValueError, "low.*GreaterThan"),
    (Reciprocal, (-2.0, -1.0), ValueError, "low.*GreaterThan"),
    (Reciprocal, (2.0, 1.0), ValueError, "low < high.*low=2.0, high=1.0"),
    (Reciprocal, (1.0, 1.0), ValueError, "low < high"),
    (Reciprocal, (1.0, INF), ValueError, "high must be finite"),
    (Gompertz, (0.0, 1.0), ValueError, "concentration.*GreaterThan"),
    (Gompertz, (1.0, -1.0), ValueError, "rate.*GreaterThan"),
    (Gompertz, (1.0, torch.ones(2, 2).bfloat16()), TypeError, "rate .*bfloat16"),
    (Erlang, (2.5, 1.0), ValueError, "concentration.*IntegerGreaterThan"),
    (Erlang, (0, 1.0), ValueError, "concentration.*IntegerGreaterThan"),
    (Erlang, (-3, 1.0), ValueError, "concentration.*IntegerGreaterThan"),
    (Erlang, (NAN, 1.0), ValueError, "concentration.*IntegerGreaterThan"),
    (Erlang, (INF, 1.0), ValueError, "concentration.*IntegerGreaterThan"),
    (Erlang, (torch.tensor([1.0, 1.5]), 1.0), ValueError, "concentration.*IntegerGreaterThan"),
    (Erlang, (2, 0.0), ValueError, "rate.*GreaterThan"),
    (Erlang, (2, INF), ValueError, "rate must be finite"),
    (Erlang, (True, 1.0), TypeError, "concentration .*bool"),
    (Erlang, (torch.ones(3), torch.ones(2)), ValueError, r"concentration \(3,\).*rate \(2,\)"),
    (Triangular, (1.0, 0.0, 0.5), ValueError, "low < high"),
    (Triangular, (0.0, 0.0, 0.0), ValueError, "low < high"),
    (Triangular, (0.0, 1.0, 1.5), ValueError, "low <= peak <= high.*peak=1.5"),
    (Triangular, (0.0, 1.0, -0.5), ValueError, "low <= peak <= high"),
    (Triangular, (0.0, 1.0, NAN), ValueError, "peak.*Real"),
    (Triangular, (-INF, 1.0, 0.0), ValueError, "low must be finite"),
    (MultivariateStudentT, (0.0, ZERO, EYE), ValueError, "df.*GreaterThan"),
    (MultivariateStudentT, (INF, ZERO, EYE), ValueError, "df must be finite"),
    (MultivariateStudentT, ("3", ZERO, EYE), TypeError, "df .*str"),
    (MultivariateStudentT, (torch.tensor(3), ZERO, EYE), TypeError, "df .*int64"),
    (
        MultivariateStudentT,
        (torch.tensor(3.0).double(), ZERO, EYE),
        TypeError,
        "df and loc .*float64.*float32",
    ),
    (MultivariateStudentT, (3.0, [0.0, 0.0], EYE), TypeError, "loc .*list"),
    (MultivariateStudentT, (3.0, ZERO, EYE.double()), TypeError, "loc and scale_tril .*float32.*float64"),
    (
        MultivariateStudentT,
        (3.0, torch.tensor(0.0), EYE),
        ValueError,
        r"loc must have shape.*\[\] and \[2, 2\]",
    ),
    (MultivariateStudentT, (3.0, torch.zeros(3), EYE), ValueError, r"scale_tril.*\[3\] and \[2, 2\]"),
    (MultivariateStudentT, (3.0, ZERO, torch.ones(2, 3)), ValueError, r"scale_tril.*\[2, 3\]"),
    (MultivariateStudentT, (3.0, ZERO, torch.ones(2)), ValueError, r"scale_tril.*\[2\]"),
    (MultivariateStudentT, (3.0, ZERO, torch.ones(2, 2)), ValueError, "scale_tril.*LowerCholesky"),
    (MultivariateStudentT, (3.0, ZERO, -EYE), ValueError, "scale_tril.*LowerCholesky"),
    (MultivariateStudentT, (3.0, ZERO * NAN, EYE), ValueError, "loc.*Real"),
    (
        MultivariateStudentT,
        (torch.ones(3), torch.zeros(4, 2), EYE),
        ValueError,
        r"df \[3\], loc and scale_tril \[4\]",
    ),
    (
        MultivariateStudentT,
        (3.0, torch.zeros(3, 2), EYE.expand(4, 2, 2)),
        ValueError,
        r"loc \[3\], scale_tril \[4\]",
    ),
    (Elliptical, (1.0, ZERO, EYE), TypeError, "radial .*float"),
    (Elliptical, (Rayleigh, ZERO, EYE), TypeError, "radial .*type"),
    (Elliptical, (Normal(0.0, 1.0), ZERO, EYE), ValueError, "radial .*positive.*Normal"),
    (Elliptical, (StudentT(3.0), ZERO, EYE), ValueError, "radial .*positive.*StudentT"),
    (Elliptical, (Uniform(-1.0, 1.0), ZERO, EYE), ValueError, "radial .*positive.*Uniform"),
    (Elliptical, (Poisson(2.0), ZERO, EYE), ValueError, "radial .*continuous.*Poisson"),
    (
        Elliptical,
        (Independent(Gamma(torch.ones(2), 1.0), 1), ZERO, EYE),
        ValueError,
        r"radial .*univariate.*\[2\]",
    ),
    (Elliptical, (Rayleigh(torch.ones(3)), torch.zeros(4, 2), EYE), ValueError, r"radial \[3\]"),
    (Elliptical, (Rayleigh(1.0), ZERO, EYE * INF), ValueError, "scale_tril"),
]


@pytest.mark.parametrize(
    ("kind", "arguments", "error", "message"),
    BAD,
    ids=[f"{row[0].__name__}-{i}" for i, row in enumerate(BAD)],
)
def test_constructor(kind, arguments, error, message):
    with pytest.raises(error, match="(?s)" + message):
        kind(*arguments)


SCALAR = [
    Logistic(0.0, 1.0),
    Rayleigh(1.0),
    Reciprocal(1.0, 2.0),
    Gompertz(1.0, 1.0),
    Erlang(2, 1.0),
    Triangular(0.0, 1.0, 0.5),
]
scalar = pytest.mark.parametrize("q", SCALAR, ids=lambda q: type(q).__name__)


@scalar
@pytest.mark.parametrize("u", [-0.1, 1.1, NAN])
def test_quantile_of_what_is_no_probability(q, u):
    with pytest.raises(ValueError, match=r"probability in \[0, 1\]"):
        q.icdf(torch.tensor([0.5, u]))
    with pytest.raises(TypeError, match=r"value must be a torch\.Tensor"):
        q.icdf(0.5)


@scalar
@pytest.mark.parametrize("method", ["log_prob", "cdf", "survival", "log_cdf", "log_survival"])
def test_value_outside_the_support(q, method):
    if not hasattr(q, method):
        assert isinstance(q, Erlang)
        return
    bad = [NAN] if isinstance(q, Logistic) else [NAN, -1.0]
    for value in bad:
        with pytest.raises(ValueError, match="within the support"):
            getattr(q, method)(torch.tensor([0.7, value]))
    with pytest.raises(ValueError, match="must be a Tensor"):
        getattr(q, method)(0.5)


def test_value_of_the_wrong_shape():
    with pytest.raises(ValueError, match="not broadcastable"):
        Logistic(torch.zeros(3), 1.0).log_prob(torch.zeros(2))
    for q in (MultivariateStudentT(3.0, ZERO, EYE), Elliptical(Rayleigh(1.0), ZERO, EYE)):
        with pytest.raises(ValueError, match="event_shape"):
            q.log_prob(torch.zeros(3))


def test_radials_that_are_fine():
    for radial in (
        Gamma(1.0, 1.0),
        HalfNormal(1.0),
        Beta(2.0, 2.0),
        Uniform(0.0, 1.0),
        Reciprocal(1.0, 2.0),
        Erlang(2, 1.0),
    ):
        z = Elliptical(radial, ZERO, EYE).sample((10,))
        assert torch.isfinite(z).all()


def test_no_checks_when_they_are_off():
    assert Logistic(0.0, -1.0, validate_args=False).scale == -1
    assert Reciprocal(2.0, 1.0, validate_args=False).low == 2
    assert torch.isnan(Rayleigh(1.0, validate_args=False).icdf(torch.tensor(2.0)))


positive = st.floats(1e-3, 1e3)
finite = st.floats(-1e3, 1e3)
shapes = st.sampled_from([(), (1,), (3,), (2, 1), (2, 3), (4, 1, 3)])


@settings(max_examples=60)
@given(st.data())
def test_any_shapes_that_broadcast(data):
    """Parameters, samples and values of any shapes: the result has the shape that broadcasting says."""
    one, two, sample = data.draw(shapes), data.draw(shapes), data.draw(st.sampled_from([(), (2,), (5, 1)]))
    batch = torch.broadcast_shapes(one, two)
    a, b = torch.full(one, data.draw(positive)), torch.full(two, data.draw(positive))
    low = torch.full(one, data.draw(finite))
    for q in (
        Logistic(low, b),
        Reciprocal(a, a + b),
        Gompertz(a, b),
        Erlang(a.ceil(), b),
        Triangular(low, low + 1 + b, low + torch.zeros(two)),
    ):
        assert q.batch_shape == batch
        z = q.rsample(sample)
        assert z.shape == sample + batch
        assert torch.isfinite(z).all()
        assert q.log_prob(z).shape == sample + batch
        assert q.support.check(z).all()
        assert q.icdf(torch.full(sample + batch, 0.3)).shape == sample + batch
        assert q.expand((7, *batch)).sample(sample).shape == (*sample, 7, *batch)


@settings(max_examples=60)
@given(st.data())
def test_any_shapes_of_vectors(data):
    one, two, three = data.draw(shapes), data.draw(shapes), data.draw(shapes)
    d = data.draw(st.integers(1, 4))
    batch = torch.broadcast_shapes(one, two, three)
    loc, scale = torch.zeros(*one, d), torch.eye(d).expand(*two, d, d) * data.draw(positive)
    degrees = torch.full(three, data.draw(positive))
    for q in (MultivariateStudentT(degrees, loc, scale), Elliptical(Rayleigh(degrees), loc, scale)):
        assert q.batch_shape == batch
        assert q.event_shape == (d,)
        z = q.rsample((5,))
        assert z.shape == (5, *batch, d)
        assert q.log_prob(z).shape == (5, *batch)
        assert q.log_prob(torch.ones(d)).shape == batch
        assert q.entropy().shape == batch
        assert q.covariance_matrix.shape == (*batch, d, d)


@settings(max_examples=200)
@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6), fraction=st.floats(0, 1), u=st.floats(0, 1))
def test_any_triangle(low, width, fraction, u):
    low, width = torch.tensor(low, dtype=torch.float64), torch.tensor(width, dtype=torch.float64)
    high = low + width
    peak = (low + fraction * width).clamp(low, high)
    q = Triangular(low, high, peak)
    z = q.icdf(torch.tensor(u, dtype=torch.float64))
    assert low <= z <= high
    assert abs(q.cdf(z) - u) < 1e-6
    assert abs(q.cdf(z) + q.survival(z) - 1) < 1e-12
    assert not torch.isnan(q.log_prob(z))


@settings(max_examples=200)
@given(value=st.one_of(st.floats(), st.just(0.0)), name=st.sampled_from(["concentration", "rate"]))
def test_a_gompertz_is_made_only_of_positive_numbers(value, name):
    arguments = {"concentration": 1.0, "rate": 1.0, name: torch.tensor(value, dtype=torch.float64)}
    if 0 < value < INF:
        assert Gompertz(**arguments).batch_shape == ()
    else:
        with pytest.raises(ValueError, match=name):
            Gompertz(**arguments)


@settings(max_examples=200)
@given(value=st.one_of(st.floats(-5, 60, width=32), st.integers(-3, 60)))
def test_an_erlang_is_made_only_of_whole_numbers(value):
    if value >= 1 and value == int(value):
        assert torch.isfinite(Erlang(value, 1.0).sample())
    else:
        with pytest.raises(ValueError, match="concentration"):
            Erlang(value, 1.0)
