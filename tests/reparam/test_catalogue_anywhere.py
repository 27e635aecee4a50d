"""Every row of `catalogue()`, in every situation that a distribution of torch's is used in."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from catalogue_cases import CASES, DERIVED, ROWS, ids, tensors
from reparam_cases import UNIVARIATE
from torch import distributions as td
from torch._subclasses.fake_tensor import FakeTensorMode
from torch_kernels import needs_meta_kernels

from vaetut import distributions as vd
from vaetut.reparam import reparameterize

every_row = pytest.mark.parametrize("row", ROWS, ids=ids)
MAPS = [row for row in ROWS if row != (td.Dirichlet, "implicit")]  # which has draws but no map
every_map = pytest.mark.parametrize("row", MAPS, ids=ids)
EXPLICIT = [row for row in ROWS if row[1] != "implicit"]
COUNTS = [td.Gamma, vd.Erlang, td.Chi2]  # by composition they read how many variables to add up


def made(row, dtype=torch.float64, shape=(), **options):
    return reparameterize(CASES[row[0]].make(**tensors(row[0], dtype, shape), **options), row[1])


def drawn(r, *shape):
    """Noise for a map."""
    torch.manual_seed(3)
    return r.noise.sample(shape)


def test_there_is_a_case_for_every_row():
    assert {kind for kind, _ in ROWS} == set(CASES)


@every_row
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_shape_and_dtype(row, dtype, shape):
    r = made(row, dtype, shape)
    z = r.rsample((5,))
    assert z.shape == (5, *shape, *r.distribution.event_shape) and z.dtype == dtype
    assert r.distribution.support.check(z).all()
    if row in MAPS:
        assert r.noise.batch_shape == shape
        z = r.g(drawn(r, 5))
        assert z.shape == (5, *shape, *r.distribution.event_shape) and z.dtype == dtype
        assert r.distribution.support.check(z).all()


@every_map
def test_float32_is_float64_rounded(row):
    eps = drawn(made(row, torch.float32), 40)
    narrow, wide = (made(row, dtype).g(eps.to(dtype)) for dtype in (torch.float32, torch.float64))
    torch.testing.assert_close(narrow.double(), wide, rtol=1e-5, atol=1e-5)


@every_row
@pytest.mark.parametrize("shape", [(0,), (3, 0)], ids=str)
def test_empty_batches(row, shape):
    if row[0] is td.RelaxedOneHotCategorical:
        pytest.skip("torch makes none of no parameters")
    r = made(row, torch.float32, shape, validate_args=False)
    assert r.rsample((5,)).shape == (5, *shape, *r.distribution.event_shape)
    if row in MAPS:
        assert r.g(r.noise.sample((5,))).shape == (5, *shape, *r.distribution.event_shape)


@every_row
def test_no_draws(row):
    r = made(row, torch.float32, (2,))
    if row[0] is not td.MixtureSameFamily:  # torch draws no categories where none are asked for
        assert r.rsample((0,)).shape == (0, 2, *r.distribution.event_shape)
    if row in MAPS:
        assert r.g(r.noise.sample((0,))).shape == (0, 2, *r.distribution.event_shape)


@every_row
def test_parameters_changed_in_place(row):
    """What an optimizer does between two draws: the map is that of the new values."""
    kind, family = row
    values = tensors(kind, shape=(2,))
    r = reparameterize(CASES[kind].make(**values), family)
    r.rsample((2,))
    fixed = {"df"} if family == "location_scale" else set()  # of which the noise is made
    for name in set(values) - {"peak", "concentration"} - fixed:
        values[name].mul_(1.05)
    copied = CASES[kind].copied or row in DERIVED
    again = reparameterize(r.distribution if copied else CASES[kind].make(**values), family)
    if row in MAPS:
        eps = drawn(r, 6)
        torch.testing.assert_close(r.g(eps), again.g(eps), rtol=1e-12, atol=1e-12)
    torch.manual_seed(1)
    z = r.rsample((6,))
    torch.manual_seed(1)
    assert torch.equal(z, again.rsample((6,)))


@every_row
def test_gradients_after_a_step(row):
    """Two backward passes through one q, with a step of its parameters in place between them."""
    kind, family = row
    given = made(row).differentiable
    if CASES[kind].copied or row in DERIVED or "Transformed" in str(kind.__mro__) or not given:
        return  # what torch's class derived from its parameters has its graph from where it was made
    values = tensors(kind, shape=(2,))
    free = [name for name in values if kind is vd.Elliptical or name in given]
    for name in free:
        values[name].requires_grad_()
    r = reparameterize(CASES[kind].make(**values), family)
    for _ in range(2):
        gradients = torch.autograd.grad(r.rsample((3,)).sum(), [values[name] for name in free])
        assert all(gradient.isfinite().all() for gradient in gradients)
        with torch.no_grad():
            for name in free:
                values[name].mul_(1.01)


@every_row
def test_inference_mode(row):
    outside = made(row, torch.float32, (2,))
    with torch.inference_mode():
        for r in (outside, made(row, torch.float32, (2,))):
            assert r.rsample((3,)).isfinite().all()
            if row in MAPS:
                assert r.g(r.noise.sample((3,))).isfinite().all()


@every_map
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_with_checks(row):
    """Over the parameters and the noise, with the checks of values on, as they are unless one turns them off."""
    kind, family = row
    values = tensors(kind, shape=(3,))
    r = made(row, shape=(3,))
    eps = drawn(r)

    def g(values, eps):
        return reparameterize(CASES[kind].make(**values), family).g(eps)

    if kind in COUNTS and family == "composition":
        with pytest.raises(RuntimeError):
            torch.func.vmap(g)(values, eps)
        return
    torch.testing.assert_close(torch.func.vmap(g)(values, eps), r.g(eps), rtol=1e-9, atol=1e-9)


@every_row
def test_pickle_and_deepcopy(row):
    values = tensors(row[0], shape=(2,))
    r = reparameterize(CASES[row[0]].make(**values), row[1])
    through, copied = pickle.loads(pickle.dumps(r)), copy.deepcopy(r)
    for other in (through, copied):
        assert (other.family, other.differentiable) == (r.family, r.differentiable)
        if row in MAPS:
            eps = drawn(r, 4)
            assert torch.equal(other.g(eps), r.g(eps))
            assert pickle.loads(pickle.dumps(r.noise)).sample().shape == r.noise.sample().shape
        torch.manual_seed(1)
        z = r.rsample((4,))
        torch.manual_seed(1)
        assert torch.equal(other.rsample((4,)), z)
    if (
        row in MAPS
        and not CASES[row[0]].copied
        and not isinstance(r.distribution, td.TransformedDistribution)
    ):
        name = next((n for n in ("low", "loc", "scale", "rate", "scale_tril") if n in values), None)
        if name is None:
            return
        before = r.g(eps)
        with torch.no_grad():
            getattr(copied.distribution, name).copy_(getattr(copied.distribution, name) * 0.9)
        assert torch.equal(r.g(eps), before)
        assert not torch.equal(copied.g(eps), before), "the map of a copy follows the copy's parameters"


@every_row
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_generator(row, dtype):
    r = made(row, dtype, (2,))
    before = torch.get_rng_state()
    first, again = (r.rsample((3,), generator=torch.Generator().manual_seed(5)) for _ in range(2))
    other = r.rsample((3,), generator=torch.Generator().manual_seed(6))
    assert torch.equal(torch.get_rng_state(), before), "the global generator is left alone"
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (3, 2, *r.distribution.event_shape) and first.dtype == dtype
    assert r.distribution.support.check(first).all()
    generator = torch.Generator().manual_seed(5)
    assert torch.equal(r.rsample((3,), generator=generator), first)
    assert not torch.equal(r.rsample((3,), generator=generator), first), "its state moves on"


@every_row
def test_nan_noise_is_refused_or_stays_nan(row):
    if row not in MAPS:
        return
    checked, unchecked = made(row), made(row, validate_args=False)
    eps = torch.full(checked.noise.event_shape, torch.nan, dtype=torch.float64)
    with pytest.raises(ValueError, match="eps must lie in the support of the noise"):
        checked.g(eps)
    if row[1] != "implicit":
        assert unchecked.g(eps).isnan().all()


@every_map
def test_noise_of_another_dtype_is_refused(row):
    r = made(row, torch.float32)
    with pytest.raises(TypeError, match="eps must have the dtype of the noise"):
        r.g(drawn(made(row)))


@pytest.mark.parametrize("row", EXPLICIT, ids=ids)
@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_forward_mode(row):
    """The derivative in all parameters at once, forwards and backwards."""
    kind, family = row
    if kind in COUNTS:
        return
    r = made(row)
    eps = drawn(r)
    values = tensors(kind)
    names = [name for name in values if r.differentiable != ("loc", "scale") or name != "df"]
    if r.differentiable == ("loc", "scale_tril"):
        names = ["loc", "scale_tril"]

    def g(*free):
        q = CASES[kind].make(**values | dict(zip(names, free, strict=True)), validate_args=False)
        return reparameterize(q, family)._map.g(eps)

    free = tuple(values[name] for name in names)
    ones = tuple(torch.ones_like(value) for value in free)
    _, forwards = torch.func.jvp(g, free, ones)
    backwards = torch.func.jacrev(g, argnums=tuple(range(len(free))))(*free)
    dims = r.distribution.event_shape
    total = sum(part.reshape(*dims, -1).sum(-1) for part in backwards)
    torch.testing.assert_close(forwards, total, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", UNIVARIATE, ids=lambda case: case.kind.__name__)
@pytest.mark.parametrize(
    "number", [float, np.float64, lambda x: torch.tensor(x)], ids=["float", "numpy", "0-d"]
)
def test_numbers_as_parameters(case, number):
    values = {
        name: value if case.kind is vd.Erlang and isinstance(value, int) else number(float(value))
        for name, value in case.params.items()
    }
    for kind, family in ROWS:
        if kind is case.kind:
            r = reparameterize(kind(**values), family)
            assert r.rsample((3,)).shape == r.g(r.noise.sample((3,))).shape == (3,)


FRESH = """
import torch, vaetut
from torch.distributions import Independent, Normal

def loss(loc, scale):
    return vaetut.pathwise(lambda z: z.square().sum(-1), Independent(Normal(loc, scale), 1), 10).mean()

loc, scale = torch.zeros(3, requires_grad=True), torch.ones(3, requires_grad=True)
torch.compile(loss, backend="aot_eager", fullgraph=True)(loc, scale).backward()
assert loc.grad.isfinite().all() and scale.grad.isfinite().all()
"""
ALL_FRESH = """
import sys
import torch
sys.path.insert(0, sys.argv[1])
from catalogue_cases import CASES, ROWS, tensors
from vaetut.reparam import reparameterize
failed = []
for kind, family in ROWS:
    def loss(values):
        q = CASES[kind].make(**values, validate_args=False)
        return reparameterize(q, family).rsample((2,)).square().sum()
    values = tensors(kind, torch.float32, (3,))
    torch._dynamo.reset()
    try:
        assert torch.compile(loss, backend="aot_eager")(values).isfinite()
    except Exception as error:
        failed.append((kind.__name__, family, str(error)[:300]))
print(failed)
assert not failed
"""


def run_fresh(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def test_compiles_in_a_fresh_process():
    """Where nothing has been looked up before: what is kept from call to call is not written by traced code."""
    assert "Warning" not in run_fresh(FRESH).stderr


@pytest.mark.slow
def test_every_row_compiles_in_a_fresh_process(request):
    run_fresh(ALL_FRESH, str(request.path.parent))


@pytest.mark.parametrize("row", [row for row in EXPLICIT if row[0] not in COUNTS], ids=ids)
def test_meta_and_fake_tensors(row, unchecked):
    kind, family = row
    needs_meta_kernels(kind)
    for context, device in ((torch.no_grad(), "meta"), (FakeTensorMode(), "cuda")):
        # torch itself indexes with a tensor there, which a fake one cannot do
        if device == "cuda" and kind in (td.Beta, td.LowRankMultivariateNormal):
            continue
        with context:
            values = {
                name: torch.empty(value.shape, device=device)
                for name, value in tensors(kind, shape=(2,)).items()
            }
            r = reparameterize(CASES[kind].make(**values, validate_args=False), family)
            for z in (r.rsample((5,)), r.g(r.noise.sample((5,)))):
                assert z.device.type == device and z.shape == (5, 2, *r.distribution.event_shape)
