"""The registry: what is in it, which map is picked, and what is refused."""

from typing import ClassVar

import pytest
import torch
from reparam_cases import UNIVARIATE, make
from torch import distributions as td
from torch.distributions import constraints

from vaetut import distributions as vd
from vaetut.reparam import (
    FAMILIES,
    Map,
    Reparameterization,
    StandardUniform,
    catalogue,
    families,
    implicit_rsample,
    register_reparameterization,
    reparameterize,
)
from vaetut.reparam.registry import _choices, _rules

ONE = torch.ones(())

# AEVB, section 2.4, "What distribution q(z|x) can we choose?"
PAPER = {
    "inverse_cdf": [
        td.Exponential, td.Cauchy, vd.Logistic, vd.Rayleigh, td.Pareto, td.Weibull, vd.Reciprocal, vd.Gompertz,
        td.Gumbel, vd.Erlang,
    ],
    "location_scale": [
        td.Laplace, vd.Elliptical, td.StudentT, vd.Logistic, td.Uniform, vd.Triangular, td.Normal,
    ],
    "composition": [td.LogNormal, td.Gamma, td.Dirichlet, td.Beta, td.Chi2, td.FisherSnedecor],
}  # fmt: skip


def test_the_catalogue_holds_the_papers_lists_and_no_more_is_claimed():
    listed = {(row.paper, row.distribution) for row in catalogue() if row.paper}
    assert listed == {(family, kind) for family, kinds in PAPER.items() for kind in kinds}
    assert len(listed) == 23


def test_only_erlang_stands_in_another_family_than_the_papers():
    moved = [row for row in catalogue() if row.paper and row.paper != row.family]
    assert [(row.distribution, row.family) for row in moved] == [(vd.Erlang, "composition")]
    assert "no closed form" in moved[0].remark


def test_every_row_can_be_shown_as_a_table():
    ours = ("torch", "vaetut")  # a distribution of another test may be registered as well
    rows = [row for row in catalogue() if row.distribution.__module__.partition(".")[0] in ours]
    assert len({(row.distribution, row.family) for row in rows}) == len(rows)
    assert [row.family for row in rows] == sorted((row.family for row in rows), key=FAMILIES.index)
    for row in rows:
        assert row.noise and row.g and row.tex
        assert row.tex.count("{") == row.tex.count("}")
        assert "|" not in row.noise
        assert "batch_shape" not in row.differentiable


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (td.Normal, ("location_scale", "inverse_cdf", "implicit")),
        (td.Exponential, ("inverse_cdf", "location_scale", "implicit")),
        (td.LogNormal, ("composition", "inverse_cdf", "implicit")),
        (td.Weibull, ("inverse_cdf", "composition")),
        (td.TransformedDistribution, ("composition",)),
        (vd.Logistic, ("inverse_cdf", "location_scale", "implicit")),
        (td.Gamma, ("implicit", "composition")),
        (td.Chi2, ("implicit", "composition")),
        (td.Dirichlet, ("composition", "implicit")),
        (td.Beta, ("composition", "implicit")),
        (td.MultivariateNormal, ("location_scale",)),
        (td.Poisson, ()),
        (td.VonMises, ("implicit",)),
    ],
)
def test_families(kind, expected):
    assert tuple(f for f in families(kind) if f != "implicit" or "implicit" in expected) == expected


def test_families_of_an_independent_are_those_of_its_base():
    assert families(td.Independent(td.Normal(torch.zeros(3), 1.0), 1)) == families(td.Normal)


def test_no_family_asked_for_picks_the_first_that_covers_all_parameters():
    assert reparameterize(td.Normal(ONE, ONE)).family == "location_scale"
    assert reparameterize(td.Cauchy(ONE, ONE)).family == "inverse_cdf"
    assert (
        reparameterize(td.Gamma(2 * ONE, ONE)).family == "implicit"
    )  # composition has none in the concentration
    assert reparameterize(td.StudentT(3 * ONE)).family == "composition"  # location-scale has none in df
    assert reparameterize(vd.MultivariateStudentT(3.0, torch.ones(2), torch.eye(2))).family == "composition"
    assert reparameterize(vd.Erlang(2, ONE)).family == "implicit"  # its concentration is a count


def test_differentiable_is_the_truth():
    """z has a gradient in exactly the parameters that are named."""
    for case in UNIVARIATE:
        for family in families(make(case)):
            named = reparameterize(make(case), family).differentiable
            if named == ("base_distribution", "transforms"):
                continue
            for name in case.params:
                leaf = torch.tensor(float(case.params[name]), dtype=torch.float64, requires_grad=True)
                values = {key: torch.tensor(value, dtype=torch.float64) for key, value in case.params.items()}
                q = case.kind(**values | {name: leaf})
                if name in named:
                    z = reparameterize(q, family).rsample((3,))
                    (gradient,) = torch.autograd.grad(z.sum(), leaf)
                    assert gradient != 0
                elif case.kind is not vd.Erlang:  # a count
                    with pytest.raises(ValueError, match=name):
                        reparameterize(q, family)


def test_the_error_names_the_family_that_can():
    q = td.Gamma(torch.tensor(3.0, requires_grad=True), ONE)
    with pytest.raises(
        ValueError, match=r"concentration of Gamma requires a gradient.*rate only.*via='implicit'"
    ):
        reparameterize(q, "composition")
    with pytest.raises(ValueError, match=r"df of StudentT.*via='composition' or via='implicit'"):
        reparameterize(td.StudentT(torch.tensor(3.0, requires_grad=True)), "location_scale")
    with torch.no_grad():  # where no gradient is recorded, none is missing
        assert reparameterize(q, "composition").rsample().shape == ()


@pytest.mark.parametrize(
    "make", [td.Gamma, vd.Erlang, lambda k, rate: td.Chi2(k)], ids=["Gamma", "Erlang", "Chi2"]
)
def test_sums_of_too_many_variables_are_refused(make):
    """They would be in memory at once: 80 GB for one draw of Gamma(1e10, 1)."""
    for count in (torch.tensor(1e10), torch.tensor([2.0, 1_000_001.0], dtype=torch.float64)):
        q = make(count, torch.ones((), dtype=count.dtype))
        with pytest.raises(
            ValueError, match=r"at most 1,000,000 via='composition'.*got 1.*use via='implicit'"
        ):
            reparameterize(q, via="composition")
        assert families(q) == ("implicit",)
        assert torch.isfinite(reparameterize(q).rsample((3,))).all()
    q = make(torch.tensor(1e6), torch.tensor(1.0))
    r = reparameterize(q, via="composition")
    torch.manual_seed(0)
    z = r.g(r.noise.sample())
    assert abs(z - q.mean) < 6 * q.stddev


def test_sum_of_exponentials_needs_whole_numbers():
    with pytest.raises(ValueError, match=r"concentration of Gamma must be whole numbers.*via='implicit'"):
        reparameterize(td.Gamma(torch.tensor([2.0, 2.5]), ONE), "composition")
    with pytest.raises(ValueError, match=r"df of Chi2 must be whole numbers"):
        reparameterize(td.Chi2(torch.tensor(2.5)), "composition")


def test_different_counts_in_one_batch():
    q = td.Gamma(torch.tensor([[1.0], [4.0]]), torch.tensor([2.0, 1.0, 0.5]))
    r = reparameterize(q, "composition")
    assert r.noise.batch_shape == (2, 3) and r.noise.event_shape == (4,)
    z = r.g(torch.ones(2, 3, 4))
    torch.testing.assert_close(z, torch.tensor([[0.5, 1.0, 2.0], [2.0, 4.0, 8.0]]))


@pytest.mark.parametrize("q", [3.0, None, td.Normal, torch.ones(2)])
def test_what_is_no_distribution_is_refused(q):
    with pytest.raises(TypeError, match=r"q must be a torch\.distributions\.Distribution"):
        reparameterize(q)


def test_unknown_families_are_refused():
    with pytest.raises(ValueError, match=r"via must be one of 'inverse_cdf'.*did you mean 'inverse_cdf'"):
        reparameterize(td.Normal(ONE, ONE), "inverse-cdf")
    with pytest.raises(
        NotImplementedError, match=r"Normal has no map via='composition'; it has via = 'location_scale'"
    ):
        reparameterize(td.Normal(ONE, ONE), "composition")
    with pytest.raises(NotImplementedError, match="no reparameterization of Poisson exists"):
        reparameterize(td.Poisson(ONE))
    with pytest.raises(TypeError, match="q must be a distribution or a class of distributions"):
        families(int)


def test_bad_noise_is_refused():
    r = reparameterize(td.Cauchy(torch.zeros(3), torch.ones(3)))
    with pytest.raises(TypeError, match=r"eps must be a torch\.Tensor, got float"):
        r.g(0.5)
    with pytest.raises(
        TypeError, match=r"eps must have the dtype of the noise, torch\.float32, got torch\.float64"
    ):
        r.g(torch.full((3,), 0.5, dtype=torch.float64))
    with pytest.raises(
        TypeError, match=r"eps must have dtype torch\.float32 or torch\.float64, got torch\.int64"
    ):
        r.g(torch.ones(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"eps must have a shape that ends in \(3,\), got \(2,\)"):
        r.g(torch.full((2,), 0.5))
    for bad in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="eps must lie in the support of the noise"):
            r.g(torch.tensor([0.5, bad, 0.5]))
    unchecked = reparameterize(td.Cauchy(ONE, ONE, validate_args=False))
    assert unchecked.g(torch.tensor(float("nan"))).isnan()
    pair = reparameterize(td.Beta(ONE, ONE), "composition")
    with pytest.raises(ValueError, match=r"ends in \(2,\), got \(3,\)"):
        pair.g(torch.full((3,), 0.5))
    with pytest.raises(ValueError, match=r"ends in \(2,\), got \(\)"):
        pair.g(torch.tensor(0.5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_other_dtypes_are_refused(dtype):
    q = td.Exponential(torch.ones(2, dtype=dtype), validate_args=False)
    with pytest.raises(TypeError, match=r"must have dtype torch\.float32 or torch\.float64, got torch\."):
        reparameterize(q, "inverse_cdf")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_dtypes_are_refused_before_torch_is_asked_to_draw(dtype):
    one = torch.ones(2, dtype=dtype)
    for draw in (
        lambda: reparameterize(td.StudentT(one, one, one), "location_scale"),
        lambda: implicit_rsample(td.Gamma(one, one)),
        lambda: implicit_rsample(td.Gamma(one, one), exact=False),
        lambda: implicit_rsample(td.Independent(td.Normal(one, one), 1)),
        lambda: implicit_rsample(td.Dirichlet(one)),
    ):
        with pytest.raises(
            TypeError, match=r"parameters must have dtype torch\.float32 or torch\.float64, got"
        ):
            draw()


def test_parameters_out_of_range_are_refused_where_q_is_made():
    for make_q in (
        lambda: reparameterize(td.Cauchy(ONE, -ONE)),
        lambda: reparameterize(vd.Triangular(0.0, 1.0, 2.0)),
        lambda: reparameterize(td.Gamma(ONE, ONE * float("nan"))),
    ):
        with pytest.raises(ValueError):
            make_q()


@pytest.fixture
def registry():
    """Leave the registry as it was."""
    before = dict(_rules)
    yield
    _rules.clear()
    _rules.update(before)
    _choices.cache_clear()


class Power(td.Distribution):
    arg_constraints: ClassVar = {"k": constraints.positive}
    support = constraints.unit_interval

    def __init__(self, k, validate_args=None):
        self.k = k
        super().__init__(k.shape, validate_args=validate_args)


class Steeper(Power):
    pass


def test_a_users_own_distribution(registry):
    @register_reparameterization(Power, "inverse_cdf", g="u^(1/k)")
    def power(q):
        return Map(StandardUniform(q.k, q.batch_shape), lambda u: u ** (1 / q.k))

    r = reparameterize(Power(torch.tensor([1.0, 2.0])))
    assert isinstance(r, Reparameterization) and r.family == "inverse_cdf" and r.differentiable == ("k",)
    torch.testing.assert_close(r.g(torch.tensor([0.25, 0.25])), torch.tensor([0.25, 0.5]))
    assert families(Steeper)[0] == "inverse_cdf"
    assert any(row.distribution is Power and row.g == "u^(1/k)" for row in catalogue())


def test_the_most_derived_class_wins(registry):
    half = torch.tensor(0.5)
    for kind, scale in ((Power, 1.0), (Steeper, 2.0)):
        register_reparameterization(kind, "location_scale")(
            lambda q, scale=scale: Map(StandardUniform(q.k, q.batch_shape), lambda u: scale * u)
        )
    assert reparameterize(Power(ONE)).g(half) == 0.5
    assert reparameterize(Steeper(ONE)).g(half) == 1.0
    register_reparameterization(Steeper, "location_scale")(
        lambda q: Map(StandardUniform(q.k, q.batch_shape), lambda u: 4 * u)
    )
    assert reparameterize(Steeper(ONE)).g(half) == 2.0, "what is registered last replaces what was there"


def test_wrong_registrations_are_refused():
    with pytest.raises(TypeError, match="distribution must be a class"):
        register_reparameterization(int, "inverse_cdf")
    with pytest.raises(TypeError, match="distribution must be a class"):
        register_reparameterization(td.Normal(ONE, ONE), "inverse_cdf")
    with pytest.raises(ValueError, match="family must be one of"):
        register_reparameterization(Power, "inverse")
    with pytest.raises(ValueError, match=r"must name parameters of Power, \('k',\), got \['rate'\]"):
        register_reparameterization(Power, "inverse_cdf", differentiable=("rate",))


def test_independent_joins_the_batch_to_the_event():
    q = td.Independent(td.Cauchy(torch.zeros(4, 3), torch.ones(4, 3)), 1)
    r = reparameterize(q)
    assert r.noise.batch_shape == (4,) and r.noise.event_shape == (3,)
    assert r.rsample((2,)).shape == (2, 4, 3)
    assert r.differentiable == ("loc", "scale") and r.distribution is q
    u = r.noise.sample()
    torch.testing.assert_close(r.g(u), reparameterize(q.base_dist).g(u))
    with pytest.raises(ValueError, match=r"ends in \(4, 3\), got \(3, 4\)"):
        r.g(torch.full((3, 4), 0.5))


def test_a_transformed_distribution_is_its_base_transformed():
    loc = torch.tensor([0.3, 0.4], requires_grad=True)
    q = td.TransformedDistribution(
        td.Normal(loc, torch.ones(2)), [td.ExpTransform(), td.AffineTransform(1.0, 2.0)]
    )
    r = reparameterize(q)
    assert r.family == "composition"
    eps = torch.tensor([0.1, -0.2])
    torch.testing.assert_close(r.g(eps), 1 + 2 * (loc + eps).exp())
    assert torch.autograd.grad(r.rsample().sum(), loc)[0].shape == (2,)
    simplex = td.TransformedDistribution(td.Normal(torch.zeros(5, 2), 1.0), td.StickBreakingTransform())
    r = reparameterize(simplex)
    assert r.noise.batch_shape == (5,) and r.rsample((3,)).shape == (3, 5, 3)


def test_transforms_of_a_dirichlet_have_draws_but_no_map():
    q = td.Dirichlet(torch.ones(3))
    rows = td.Independent(td.Dirichlet(torch.ones(2, 3)), 1)
    for r in (reparameterize(q, "implicit"), reparameterize(rows, "implicit")):
        assert r.family == "implicit"
        assert r.rsample((4,)).shape[-1] == 3
        with pytest.raises(NotImplementedError, match="via='composition' has both"):
            _ = r.noise
        with pytest.raises(NotImplementedError, match="via='composition' has both"):
            r.g(torch.ones(3))


def test_nothing_is_promised_of_what_draws_cannot_be_moved():
    """Discrete variables and transforms that are not one-to-one, inside of transforms and mixtures too."""
    two, none = torch.ones(2), td.AffineTransform(0.0, 2.0)
    doubled = td.TransformedDistribution(td.Poisson(two), [none])
    folded = td.TransformedDistribution(td.Normal(two, two), [td.AbsTransform()])
    assert families(doubled) == () and families(folded) == ("composition",)
    for part in (doubled, folded):
        mixture = td.MixtureSameFamily(td.Categorical(two), part)
        assert families(mixture) == ()
        with pytest.raises(NotImplementedError, match="no reparameterization of MixtureSameFamily"):
            reparameterize(mixture)
