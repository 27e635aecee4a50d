"""Shapes and devices of the implicit family: what the maps with a closed form are tested for elsewhere."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import distributions as td
from torch._subclasses.fake_tensor import FakeTensorMode
from torch_kernels import DRAW_GAMMAS, has_meta_gamma

from vaetut import distributions as vd
from vaetut.reparam import implicit, reparameterize
from vaetut.reparam.implicit import _pieces
from vaetut.reparam.implicit._exact import attach_by_cdf

KINDS = {
    td.Normal: {"loc": 0.3, "scale": 1.2},
    td.Gamma: {"concentration": 1.7, "rate": 0.6},
    td.Chi2: {"df": 3.0},
    td.Beta: {"concentration1": 0.7, "concentration0": 2.0},
    td.StudentT: {"df": 4.0, "loc": 0.1, "scale": 1.1},
    td.FisherSnedecor: {"df1": 4.0, "df2": 7.0},
    td.VonMises: {"loc": 0.4, "concentration": 2.0},
    td.Kumaraswamy: {"concentration1": 1.5, "concentration0": 2.0},
    td.InverseGamma: {"concentration": 3.0, "rate": 1.0},
    td.Gumbel: {"loc": 0.0, "scale": 1.0},
    vd.Logistic: {"loc": 0.2, "scale": 0.9},
    vd.Gompertz: {"concentration": 0.5, "rate": 1.5},
    vd.Erlang: {"concentration": 3.0, "rate": 1.5},
}


def name(kind):
    return kind.__name__


def filled(kind, shape, device="cpu", dtype=torch.float32):
    return {
        key: torch.full(shape, value, device=device, dtype=dtype, requires_grad=True)
        for key, value in KINDS[kind].items()
    }


def mixture(weights, loc, scale):
    return td.MixtureSameFamily(
        td.Categorical(logits=weights, validate_args=False),
        td.Normal(loc, scale, validate_args=False),
        validate_args=False,
    )


@settings(max_examples=60)
@given(
    kind=some.sampled_from(list(KINDS)),
    batch=some.lists(some.integers(1, 3), max_size=2),
    sample=some.lists(some.integers(0, 3), max_size=2),
    wide=some.booleans(),
    exact=some.sampled_from([None, True]),
)
def test_shapes(kind, batch, sample, wide, exact):
    dtype = torch.float64 if wide else torch.float32
    values = filled(kind, batch, dtype=dtype)
    q = kind(**values)
    z = implicit.implicit_rsample(q, sample, exact=exact)
    assert z.shape == torch.Size(sample) + q.batch_shape and z.dtype == dtype
    support = q.support
    assert support.check(z).all()
    z.sum().backward()
    for value in values.values():
        if value.grad is not None:  # an Erlang's shape is a whole number
            assert value.grad.shape == value.shape and torch.isfinite(value.grad).all()


@settings(max_examples=25)
@given(
    batch=some.lists(some.integers(1, 3), max_size=2),
    sample=some.lists(some.integers(1, 3), max_size=2),  # torch draws no 0 components
    components=some.integers(1, 3),
)
def test_shapes_of_mixtures(batch, sample, components):
    shape = [*batch, components]
    weights = torch.zeros(shape, requires_grad=True)
    loc = torch.linspace(-1, 1, components).expand(shape).clone().requires_grad_()
    r = reparameterize(mixture(weights, loc, torch.ones(shape)), "implicit")
    z = r.rsample(sample)
    assert z.shape == torch.Size([*sample, *batch])
    z.sum().backward()
    # Shifting all components by 1 shifts every draw by 1.
    torch.testing.assert_close(loc.grad.sum(-1), torch.full(batch, float(torch.Size(sample).numel())))
    torch.testing.assert_close(weights.grad.sum(-1), torch.zeros(batch), atol=1e-5, rtol=0)


@settings(max_examples=25)
@given(kind=some.sampled_from(list(KINDS)), first=some.integers(1, 3), second=some.integers(1, 3))
def test_parameters_broadcast(kind, first, second):
    values = filled(kind, [1])
    names = list(values)
    values[names[0]] = torch.full([second, 1], KINDS[kind][names[0]], requires_grad=True)
    q = kind(**values)
    z = reparameterize(q, "implicit").rsample((7, first))
    assert z.shape == (7, first, second, 1)
    z.sum().backward()
    assert all(value.grad is None or value.grad.shape == value.shape for value in values.values())


# torch's samplers of these two read values, or have no kernel for fakes.
DRAWN = [kind for kind in KINDS if kind not in (td.Beta, td.VonMises)]


@pytest.mark.parametrize("kind", DRAWN, ids=name)
def test_nothing_is_drawn_on_another_device(kind, unchecked):
    """Under a fake CUDA a tensor made on the CPU is an error; without a GPU it has no backward pass."""
    if kind in DRAW_GAMMAS | {td.Gamma, td.Chi2, td.InverseGamma} and not has_meta_gamma():
        pytest.skip("this torch has no meta kernel for gamma variables")
    with FakeTensorMode():
        values = {key: torch.full((2, 3), value, device="cuda") for key, value in KINDS[kind].items()}
        z = reparameterize(kind(**values), "implicit").rsample((5,))
        assert z.device.type == "cuda" and z.shape == (5, 2, 3) and z.dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS, ids=name)
@pytest.mark.parametrize("route", ["cdf", "quadrature"])
def test_no_part_of_the_gradient_is_on_another_device(kind, route, unchecked):
    """On ``meta`` too, mixing devices is an error, and there each route and its backward pass run in full."""
    values = filled(kind, (2, 3), "meta")
    z, q = torch.full((5, 2, 3), 0.4, device="meta"), kind(**values)
    if route == "cdf":
        moved = attach_by_cdf(q, z, None)
    elif kind is td.InverseGamma:  # whose inverse of log and exp asks for values
        return
    else:
        moved = _pieces._attach(q, z, rounds=3)
    assert moved.is_meta and moved.shape == (5, 2, 3)
    moved.sum().backward()
    assert any(value.grad is not None and value.grad.is_meta for value in values.values())


def test_no_part_of_a_mixtures_gradient_is_on_another_device(unchecked):
    values = [torch.ones(4, 3, device="meta", requires_grad=True) for _ in range(3)]
    moved = _pieces._attach(mixture(*values), torch.ones(5, 4, device="meta"), rounds=3)
    moved.sum().backward()
    assert moved.shape == (5, 4) and all(value.grad.is_meta for value in values)
