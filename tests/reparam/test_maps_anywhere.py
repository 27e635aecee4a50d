"""Shapes, devices, and torch's transforms: the maps work wherever torch's own parts do."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from reparam_cases import UNIVARIATE, make, name_of
from torch import distributions as td
from torch._subclasses.fake_tensor import FakeTensorMode
from torch_kernels import DRAW_GAMMAS, has_meta_gamma, needs_meta_kernels

from vaetut import distributions as vd
from vaetut.reparam import (
    JointNoise,
    StandardCauchy,
    StandardExponential,
    StandardLaplace,
    StandardNormal,
    StandardUniform,
    families,
    reparameterize,
)

EXPLICIT = [(case, family) for case in UNIVARIATE for family in families(make(case)) if family != "implicit"]
# A sum over as many variables as a parameter says has to read that parameter.
READS_VALUES = {(td.Gamma, "composition"), (vd.Erlang, "composition"), (td.Chi2, "composition")}
VALUE_FREE = [pair for pair in EXPLICIT if (pair[0].kind, pair[1]) not in READS_VALUES]


def ids(pair):
    return f"{name_of(pair[0])}-{pair[1]}"


def filled(case, device, shape=(2, 3)):
    values = {name: torch.full(shape, float(value), device=device) for name, value in case.params.items()}
    return case.kind(**values, validate_args=False)


def vectors(device):
    loc, tril = torch.zeros(4, 3, device=device), torch.eye(3, device=device)
    return {
        "location_scale": [
            td.MultivariateNormal(loc, scale_tril=tril, validate_args=False),
            vd.MultivariateStudentT(torch.full((4,), 3.0, device=device), loc, tril, validate_args=False),
            vd.Elliptical(vd.Rayleigh(torch.ones(4, device=device)), loc, tril),
        ],
        "composition": [
            td.Dirichlet(torch.ones(4, 3, device=device), validate_args=False),
            vd.MultivariateStudentT(torch.full((4,), 3.0, device=device), loc, tril, validate_args=False),
        ],
    }


@pytest.mark.parametrize("pair", [pair for pair in VALUE_FREE if pair[0].kind is not td.Beta], ids=ids)
def test_nothing_is_made_on_another_device(pair, unchecked):
    """Under a fake CUDA a tensor made on the CPU is an error (torch's Beta and low-rank Gaussian index a tensor,
    which fakes cannot do)."""
    case, family = pair
    needs_meta_kernels(case.kind)
    with FakeTensorMode():
        r = reparameterize(filled(case, "cuda"), family)
        for z in (r.rsample((5,)), r.g(r.noise.sample((5,)))):
            assert z.device.type == "cuda" and z.shape == (5, 2, 3) and z.dtype == torch.float32


@pytest.mark.parametrize("pair", VALUE_FREE, ids=ids)
def test_meta_tensors_have_the_right_shapes(pair, unchecked):
    case, family = pair
    needs_meta_kernels(case.kind)
    r = reparameterize(filled(case, "meta"), family)
    assert r.g(r.noise.sample((5,))).shape == (5, 2, 3)
    assert r.rsample((5,)).is_meta


def test_vectors_on_another_device(unchecked):
    with FakeTensorMode():
        for family, distributions in vectors("cuda").items():
            for q in distributions:
                if type(q) in DRAW_GAMMAS and not has_meta_gamma():
                    continue
                r = reparameterize(q, family)
                for z in (r.rsample((5,)), r.g(r.noise.sample((5,)))):
                    assert z.device.type == "cuda" and z.shape == (5, 4, 3)


@pytest.mark.parametrize("pair", VALUE_FREE, ids=ids)
def test_vmap_of_grad(pair, unchecked):
    """Per-sample derivatives by torch.func, against autograd's."""
    case, family = pair
    given = reparameterize(make(case), family).differentiable
    names = tuple(case.params) if given == ("base_distribution", "transforms") else given
    noise = reparameterize(make(case), family).noise
    eps = noise.sample((6,))
    fixed = {name: torch.tensor(value, dtype=torch.float64) for name, value in case.params.items()}

    def z(values, eps):
        q = case.kind(**fixed | dict(zip(names, values, strict=True)), validate_args=False)
        return reparameterize(q, family)._map.g(eps)

    values = tuple(fixed[name] for name in names)
    slopes = torch.func.vmap(torch.func.grad(z), in_dims=(None, 0))(values, eps)
    leaves = tuple(value.clone().requires_grad_() for value in values)
    for k in range(6):
        expected = torch.autograd.grad(z(leaves, eps[k]), leaves)
        for slope, value in zip(slopes, expected, strict=True):
            torch.testing.assert_close(slope[k], value)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize(  # torch's own sampler of Student's t does not work there
    "pair",
    [pair for pair in VALUE_FREE if (pair[0].kind, pair[1]) != (td.StudentT, "location_scale")],
    ids=ids,
)
def test_vmap_over_parameters(pair, unchecked):
    case, family = pair
    values = [torch.full((4,), float(value), dtype=torch.float64) for value in case.params.values()]

    def z(values):
        return reparameterize(case.kind(*values, validate_args=False), family).rsample((3,))

    draws = torch.func.vmap(z, randomness="different")(values)
    assert draws.shape == (4, 3) and torch.isfinite(draws).all()


@pytest.mark.parametrize(
    ("kind", "family"),
    [
        (td.Normal, "location_scale"),
        (td.Cauchy, "inverse_cdf"),
        (vd.Triangular, "inverse_cdf"),
        (td.Gumbel, "inverse_cdf"),
    ],
)
def test_compiles_into_one_graph(kind, family, unchecked):
    case = next(case for case in UNIVARIATE if case.kind is kind)
    values = [torch.tensor(float(value), requires_grad=True) for value in case.params.values()]
    noise = reparameterize(make(case, torch.float32), family).noise.sample((5,))

    def z(*values):
        return reparameterize(kind(*values, validate_args=False), family)._map.g(noise)

    compiled = torch.compile(z, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*values), z(*values))
    compiled(*values).sum().backward()
    assert all(torch.isfinite(value.grad) for value in values)


@settings(max_examples=150)
@given(
    pair=some.sampled_from(EXPLICIT),
    batch=some.lists(some.integers(1, 3), max_size=2),  # of 0, torch cannot check the parameters of a Beta
    sample=some.lists(some.integers(0, 3), max_size=2),
    wide=some.booleans(),
)
def test_shapes(pair, batch, sample, wide):
    case, family = pair
    dtype = torch.float64 if wide else torch.float32
    values = {name: torch.full(batch, float(value), dtype=dtype) for name, value in case.params.items()}
    q = case.kind(**values)
    r = reparameterize(q, family)
    assert r.noise.batch_shape == q.batch_shape
    noise = r.noise.sample(sample)
    assert noise.shape == torch.Size(sample) + q.batch_shape + r.noise.event_shape
    assert r.noise.log_prob(noise).shape == torch.Size(sample) + q.batch_shape
    for z in (r.g(noise), r.rsample(sample)):
        assert z.shape == torch.Size(sample) + q.batch_shape and z.dtype == dtype
        assert (q.support.check(z)).all()


@settings(max_examples=40)
@given(pair=some.sampled_from(EXPLICIT), first=some.integers(1, 3), second=some.integers(1, 3))
def test_parameters_and_noise_broadcast(pair, first, second):
    case, family = pair
    values = [torch.full((1,), float(value)) for value in case.params.values()]
    values[0] = values[0].expand(second, 1)
    r = reparameterize(case.kind(*values), family)
    noise = r.noise.sample((7, first))
    assert r.g(noise).shape == (7, first, second, 1)
    scalar = reparameterize(make(case, torch.float32), family)
    assert scalar.g(scalar.noise.sample((7, 2))).shape == (7, 2)


def test_expanded_distributions():
    for case, family in EXPLICIT:
        q = make(case, torch.float32).expand([3])
        assert reparameterize(q, family).rsample((2,)).shape == (2, 3)


def test_python_numbers_as_parameters():
    z = reparameterize(td.Normal(0.0, 1.0)).rsample((4,))
    assert z.shape == (4,) and z.dtype == torch.get_default_dtype()


def test_a_seed_repeats_the_draws():
    r = reparameterize(td.Cauchy(torch.zeros(3), torch.ones(3)))
    torch.manual_seed(7)
    first = r.rsample((4,))
    torch.manual_seed(7)
    assert torch.equal(first, r.rsample((4,)))


NOISES = {
    StandardUniform: td.Uniform(torch.zeros(()), torch.ones(())),
    StandardNormal: td.Normal(torch.zeros(()), torch.ones(())),
    StandardCauchy: td.Cauchy(torch.zeros(()), torch.ones(())),
    StandardLaplace: td.Laplace(torch.zeros(()), torch.ones(())),
    StandardExponential: td.Exponential(torch.ones(())),
}


@pytest.mark.parametrize("kind", NOISES)
def test_noise_is_the_standard_variable(kind):
    noise = kind(torch.zeros(()), (2,), (3,))
    x = noise.sample((4,))
    assert x.shape == (4, 2, 3) and noise.support.check(x).all()
    torch.testing.assert_close(noise.log_prob(x), NOISES[kind].log_prob(x).sum(-1))
    torch.testing.assert_close(noise.cdf(x), NOISES[kind].cdf(x))
    wider = noise.expand((5, 2))
    assert wider.sample().shape == (5, 2, 3) and wider.event_shape == (3,)


def test_joint_noise():
    like = torch.zeros((), dtype=torch.float64)
    noise = JointNoise(StandardUniform(like, (2,)), StandardNormal(like, (2,), (3,)))
    eps = noise.sample((5,))
    u, n = noise.split(eps)
    assert eps.shape == (5, 2, 4) and u.shape == (5, 2) and n.shape == (5, 2, 3)
    torch.testing.assert_close(noise.log_prob(eps), noise.parts[1].log_prob(n))
    assert noise.support.check(eps).all() and not noise.support.check(eps.abs() + 1)[..., 0].any()
    assert noise.expand((6, 2)).sample().shape == (6, 2, 4)
