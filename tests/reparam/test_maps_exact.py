"""The maps without any chance in it: against scipy's quantiles, the change of variables, and one another."""

import numpy as np
import pytest
import torch
from reparam_cases import EDGES, UNIVARIATE, make, name_of
from torch import distributions as td

from vaetut import distributions as vd
from vaetut.reparam import families, reparameterize

U = torch.tensor(
    [2**-24, 1e-6, 1e-3, 0.03, 0.2, 0.4, 0.55, 0.77, 0.9, 0.99, 1 - 1e-6, 1 - 2**-24], dtype=torch.float64
)
INVERSE = [case for case in UNIVARIATE + EDGES if "inverse_cdf" in families(case.kind)]
EXPLICIT = [(case, family) for case in UNIVARIATE for family in families(make(case)) if family != "implicit"]
MANY_TO_ONE = {  # g has more noise than draws, or folds it
    (vd.Triangular, "location_scale"), (td.HalfNormal, "location_scale"), (td.HalfCauchy, "location_scale"),
    (td.HalfNormal, "composition"), (td.HalfCauchy, "composition"),
    (td.Gamma, "composition"), (vd.Erlang, "composition"), (td.Chi2, "composition"), (td.Beta, "composition"),
    (td.FisherSnedecor, "composition"), (td.StudentT, "composition"),
}  # fmt: skip
ONE_TO_ONE = [pair for pair in EXPLICIT if (pair[0].kind, pair[1]) not in MANY_TO_ONE]


def ids(pair):
    return f"{name_of(pair[0])}-{pair[1]}"


def quantile(case, u):
    """scipy's quantile, about the nearer tail."""
    reference = case.scipy(*case.params.values())
    u = u.numpy()
    return torch.from_numpy(
        np.where(u < 0.5, reference.ppf(np.minimum(u, 0.5)), reference.isf(np.minimum(1 - u, 0.5)))
    )


def smooth_noise(noise, count=4):
    """Draws of the noise in float64 on which a finite difference does not cross a kink."""
    torch.manual_seed(1)
    return noise.sample((count,))


def leaves(case, names):
    return tuple(
        torch.tensor(float(case.params[name]), dtype=torch.float64, requires_grad=True) for name in names
    )


def built(case, names, values):
    params = {name: torch.tensor(value, dtype=torch.float64) for name, value in case.params.items()}
    return case.kind(**params | dict(zip(names, values, strict=True)), validate_args=False)


@pytest.mark.parametrize("case", INVERSE, ids=name_of)
def test_inverse_cdf_is_scipys_quantile(case):
    z = reparameterize(make(case), "inverse_cdf").g(U)
    torch.testing.assert_close(z, quantile(case, U), rtol=2e-13, atol=2e-13)
    assert (z.diff() > 0).all(), "an inverse CDF rises"


@pytest.mark.parametrize("case", INVERSE, ids=name_of)
def test_float32_follows_float64(case):
    u = torch.cat([torch.tensor([2**-24, 1 - 2**-24]), torch.linspace(0.001, 0.999, 97)])
    narrow = reparameterize(make(case, torch.float32), "inverse_cdf").g(u)
    wide = reparameterize(make(case, torch.float64), "inverse_cdf").g(u.double())
    # The parameters are rounded too, and z = scale · Eᵏ, say, has k times their relative error: hence 2e-6, some 30
    # units in the last place. About a location the error is relative to the scale.
    steep = case.params.get("concentration") == 0.1 or case.params.get("low") == 1e-30
    moved = (
        {"loc", "high"} & set(case.params) and not steep and case.kind not in (td.LogNormal, vd.Reciprocal)
    )
    rtol, atol = 3e-5 if steep else 2e-6, 5e-7 if moved else 1e-37  # beyond is 0 in float32
    torch.testing.assert_close(narrow.double(), wide, rtol=rtol, atol=atol)


@pytest.mark.parametrize("case", INVERSE, ids=name_of)
def test_no_gradient_is_infinite_at_the_ends_of_the_noise(case):
    # dz/dlow reaches 1e60 where low is 1e-30
    for dtype in (torch.float64,) if case.params.get("low") == 1e-30 else (torch.float32, torch.float64):
        delta = torch.finfo(dtype).eps / 2
        u = torch.tensor([delta, 1 - delta, 0.5], dtype=dtype)
        params = {k: torch.tensor(v, dtype=dtype, requires_grad=True) for k, v in case.params.items()}
        z = reparameterize(case.kind(**params), "inverse_cdf").g(u)
        assert torch.isfinite(z).all()
        for gradient in torch.autograd.grad(z.sum(), tuple(params.values())):
            assert torch.isfinite(gradient)


@pytest.mark.parametrize("case", INVERSE, ids=name_of)
def test_derivative_in_the_parameters_against_differences_of_scipys_quantile(case):
    u = U[2:-2]
    names = tuple(case.params)
    values = leaves(case, names)
    z = reparameterize(built(case, names, values), "inverse_cdf").g(u)
    for name, leaf in zip(names, values, strict=True):
        gradient = torch.stack([torch.autograd.grad(x, leaf, retain_graph=True)[0] for x in z])
        if name == "peak" and case.params["peak"] in (case.params["low"], case.params["high"]):
            continue  # one step would leave the parameter space; the distribution of z still has its limit
        if name == "df" or (name in ("low", "high") and case.params.get("peak") == case.params[name]):
            continue
        step = 1e-5 * (abs(case.params[name]) or 1.0)
        up = quantile(case._replace(params=case.params | {name: case.params[name] + step}), u)
        down = quantile(case._replace(params=case.params | {name: case.params[name] - step}), u)
        difference = (up - down) / (2 * step)
        torch.testing.assert_close(gradient, difference, rtol=2e-7, atol=2e-7 * difference.abs().max().item())


@pytest.mark.parametrize("pair", EXPLICIT, ids=ids)
def test_g_is_differentiable_as_autograd_says(pair):
    case, family = pair
    names = reparameterize(make(case), family).differentiable
    if names == ("base_distribution", "transforms"):
        names = tuple(case.params)
    eps = smooth_noise(reparameterize(make(case), family).noise).requires_grad_()

    def g(eps, *values):
        return reparameterize(built(case, names, values), family).g(eps)

    assert torch.autograd.gradcheck(g, (eps, *leaves(case, names)), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("pair", ONE_TO_ONE, ids=ids)
def test_change_of_variables(pair):
    """log q(z) = log p(ε) − log |∂g/∂ε|."""
    case, family = pair
    q = make(case, validate_args=False)
    r = reparameterize(q, family)
    eps = r.noise.sample((50,)).requires_grad_()
    z = r.g(eps)
    (slope,) = torch.autograd.grad(z.sum(), eps)
    torch.testing.assert_close(q.log_prob(z), r.noise.log_prob(eps) - slope.abs().log(), rtol=1e-9, atol=1e-9)


SQUARE = {
    "MultivariateNormal": td.MultivariateNormal(
        torch.tensor([0.3, -1.0], dtype=torch.float64),
        torch.tensor([[2.0, 0.6], [0.6, 0.5]], dtype=torch.float64),
    ),
    "MultivariateStudentT": vd.MultivariateStudentT(
        3.5,
        torch.tensor([0.3, -1.0], dtype=torch.float64),
        torch.tensor([[1.2, 0.0], [0.6, 0.5]], dtype=torch.float64),
    ),
}


@pytest.mark.parametrize("name", SQUARE)
def test_change_of_variables_of_vectors(name):
    q = SQUARE[name]
    r = reparameterize(q, "location_scale")
    eps = r.noise.sample((20,))
    jacobian = torch.func.vmap(torch.func.jacrev(r._map.g))(eps)
    log_det = torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(q.log_prob(r.g(eps)), r.noise.log_prob(eps) - log_det)


def monotone_pairs():
    """A one-dimensional map that rises, beside the inverse CDF of the same distribution."""
    for case, family in ONE_TO_ONE:
        if family != "inverse_cdf" and "inverse_cdf" in families(case.kind):
            yield case, family


@pytest.mark.parametrize("pair", list(monotone_pairs()), ids=ids)
def test_monotone_maps_give_one_derivative_at_one_z(pair):
    case, family = pair
    names = tuple(case.params)
    values = leaves(case, names)
    q = built(case, names, values)
    r = reparameterize(q, family)
    z = r.g(r.noise.sample((30,)))
    u = torch.from_numpy(np.asarray(case.scipy(*case.params.values()).cdf(z.detach().numpy())))
    other = reparameterize(q, "inverse_cdf").g(u)
    torch.testing.assert_close(z, other, rtol=1e-7, atol=1e-9)
    for leaf in values:
        here, there = (
            torch.stack([torch.autograd.grad(x, leaf, retain_graph=True)[0] for x in y]) for y in (z, other)
        )
        torch.testing.assert_close(here, there, rtol=1e-6, atol=1e-8)


def test_a_many_to_one_map_gives_another_derivative_at_the_same_z():
    """Two points of the noise square with one z: the peak moves them differently, the inverse CDF knows one value."""
    peak = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    r = reparameterize(vd.Triangular(torch.zeros_like(peak), torch.ones_like(peak), peak), "location_scale")
    z = r.g(torch.tensor([[0.4, 0.4], [0.2, 0.6]], dtype=torch.float64))
    slopes = [torch.autograd.grad(x, peak, retain_graph=True)[0].item() for x in z]
    assert z[0].item() == pytest.approx(0.4) and z[1].item() == pytest.approx(0.4)
    assert slopes == pytest.approx([0.0, 0.4])


@pytest.mark.parametrize(
    "case", [case for case in UNIVARIATE if hasattr(case.kind, "_quantile")], ids=name_of
)
def test_the_classes_of_vaetut_draw_by_the_same_map(case):
    q = make(case)
    torch.testing.assert_close(reparameterize(q, "inverse_cdf").g(U), q.icdf(U), rtol=1e-12, atol=1e-12)


def test_triangular_with_its_peak_at_an_end_has_the_gradient_of_its_limit():
    """z = b − √((1 − u)(b − a)(b − m)) above the peak m, so that dz/dm = √(1 − u)/2 at m = a."""
    low, high, peak = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.0, 1.0, 0.0))
    r = reparameterize(vd.Triangular(low, high, peak), "inverse_cdf")
    u = torch.tensor(0.19, dtype=torch.float64)
    z = r.g(u)
    z.backward()
    assert z.item() == pytest.approx(0.1)
    assert peak.grad.item() == pytest.approx(0.45)
    assert low.grad.item() == pytest.approx(0.45)
    assert high.grad.item() == pytest.approx(0.1)


def test_the_noise_is_free_of_the_parameters():
    for case, family in EXPLICIT:
        r = reparameterize(make(case), family)
        q = make(case, grad=tuple(n for n in case.params if n in r.differentiable))
        noise = reparameterize(q, family).noise
        assert not noise.sample().requires_grad
        assert not noise.log_prob(noise.sample()).requires_grad


CAUCHY = next(case for case in UNIVARIATE if case.kind is td.Cauchy)


@pytest.mark.parametrize(
    "wrong", [lambda u: (torch.pi * u).tan(), lambda u: (torch.pi * (u - 0.5)).tan() * (1 + 1e-12)]
)
def test_the_quantile_check_rejects_a_wrong_map(wrong):
    """The first has the right distribution even, but is not the inverse CDF."""
    with pytest.raises(AssertionError):
        torch.testing.assert_close(0.4 + 1.3 * wrong(U), quantile(CAUCHY, U), rtol=2e-13, atol=2e-13)


@pytest.mark.parametrize("wrong", [lambda u: (3 * (u - 0.5)).tan(), lambda u: u.logit(), lambda u: u])
def test_the_change_of_variables_rejects_a_wrong_map(wrong):
    eps = U[3:-3].clone().requires_grad_()
    z = 0.4 + 1.3 * wrong(eps)
    (slope,) = torch.autograd.grad(z.sum(), eps)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(make(CAUCHY).log_prob(z), -slope.abs().log(), rtol=1e-9, atol=1e-9)
