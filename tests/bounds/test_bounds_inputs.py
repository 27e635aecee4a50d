"""What the bounds ask of a model, q and x: models of one's own, their commonest mistakes, dtypes, vmap, pixels."""

import math
from functools import cached_property

import mpmath
import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal

import vaetut
from vaetut import VAE, LinearGaussian, sgvb_a, sgvb_b
from vaetut.bounds import (
    cubo_bound,
    doubly_reparameterized,
    elbo_terms,
    iwae_bound,
    log_evidence,
    log_weights,
    sticking_the_landing,
)
from vaetut.models import is_bernoulli

BOUNDS = {
    "elbo_terms": lambda m, q, x: elbo_terms(m, q, x, 3).reconstruction,
    "sgvb_a": lambda m, q, x: sgvb_a(m, q, x, 3),
    "sgvb_b": lambda m, q, x: sgvb_b(m, q, x, 3),
    "iwae": lambda m, q, x: iwae_bound(m, q, x, 3),
    "cubo": lambda m, q, x: cubo_bound(m, q, x, 3),
    "evidence": lambda m, q, x: log_evidence(m, q, x, 3, chunk_size=1).value,
    "stl": lambda m, q, x: sticking_the_landing(m, q, x, 3),
    "dreg": lambda m, q, x: doubly_reparameterized(m, q, x, 3),
    "log_weights": lambda m, q, x: log_weights(m, q, x, 3).mean(0),
}
every_bound = pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)


def normal(*shape):
    return Independent(Normal(torch.zeros(*shape), torch.ones(*shape)), 1)


class Own:
    """A right model of two latent dimensions and four pixels; the wrong ones below inherit from it."""

    prior = normal(2)

    def logits(self, z):
        return z.repeat_interleave(2, -1)

    def likelihood(self, z):
        return Independent(Bernoulli(logits=self.logits(z)), 1)


Q, X = normal(3, 2), torch.rand(3, 4)


@every_bound
def test_prior_and_likelihood_are_fetched_once(bound):
    fetched = []

    class Counting(Own):
        @property
        def prior(self):
            fetched.append("prior")
            return normal(2)

        @property
        def likelihood(self):
            fetched.append("likelihood")
            return super().likelihood

    bound(Counting(), Q, X)
    assert sorted(fetched) == ["likelihood", "prior"]


@every_bound
@pytest.mark.parametrize("kind", [property, cached_property])
@pytest.mark.parametrize("base", [Own, nn.Module])
@pytest.mark.parametrize("name", ["prior", "likelihood"])
def test_an_attribute_error_of_the_users_own_reaches_the_user(bound, kind, base, name):
    """torch.nn.Module would turn it into "no attribute 'prior'", and hasattr into a missing prior."""

    def broken(self):
        return self.precission

    members = {"prior": normal(2), "likelihood": Own.likelihood, "logits": Own.logits, name: kind(broken)}
    wrong = type("Broken", (base,), members)
    if kind is cached_property:
        wrong.__dict__[name].__set_name__(wrong, name)
    with pytest.raises(AttributeError, match="precission"):
        bound(wrong(), Q, X)


def test_models_that_forward_attributes_are_models():
    """A wrapper without a class attribute, and modules whose parts are instance attributes."""

    class Wrapper:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 4)

        def forward(self, z):
            return Independent(Bernoulli(logits=self.layer(z)), 1)

    class Parts(nn.Module):
        def __init__(self):
            super().__init__()
            self.likelihood = Decoder()
            self.prior = normal(2)

    for model in (Wrapper(Own()), Parts(), torch.compile(VAE(4, 2, 3))):
        assert sgvb_b(model, Q, X).shape == (3,)


def wrong(**members):
    return type("Wrong", (Own,), members)()


INDEPENDENT = r"wrap it as Independent\(\.\.\., 1\)"
MISTAKES = {
    "likelihood without Independent": (
        wrong(likelihood=lambda self, z: Bernoulli(logits=self.logits(z))),
        ValueError,
        rf"likelihood\(z\) must have an event_shape \(4,\) .* got \(\) with batch_shape \(\d, 3, 4\); {INDEPENDENT}",
    ),
    "likelihood that returns logits": (
        wrong(likelihood=lambda self, z: self.logits(z)),
        TypeError,
        r"model.likelihood\(z\) must return the distribution p\(x\|z\).*Independent\(Bernoulli.*got Tensor",
    ),
    "likelihood that is a distribution": (
        wrong(likelihood=normal(3, 4)),
        TypeError,
        "model.likelihood must be a function of z .*Wrong is of type Independent",
    ),
    "likelihood of images": (
        wrong(likelihood=lambda self, z: Independent(Normal(self.logits(z).unflatten(-1, (2, 2)), 1.0), 2)),
        ValueError,
        r"must have an event_shape \(4,\) .* got \(2, 2\).*flatten it",
    ),
    "likelihood of the draws in one row": (
        wrong(
            likelihood=lambda self, z: Independent(Normal(self.logits(z).flatten(0, -2).repeat(2, 1), 1.0), 1)
        ),
        ValueError,
        r"must have batch_shape \(\d, 3\) for z of shape \(\d, 3, 2\), got \(\d+,\); it must use the last",
    ),
    "prior as a method": (
        wrong(prior=lambda self: normal(2)),
        TypeError,
        r"model.prior must be a .*Distribution, p\(z\); that of Wrong is of type method; write @property above",
    ),
    "prior of None": (wrong(prior=None), TypeError, "model.prior must be .* is of type NoneType$"),
    "prior without Independent": (
        wrong(prior=Normal(torch.zeros(2), torch.ones(2))),
        ValueError,
        rf"model.prior must have q's event_shape \(2,\), got \(\) with batch_shape \(2,\); {INDEPENDENT}",
    ),
    "no prior at all": (object(), TypeError, r"must have .prior and .likelihood\(z\); object has no .prior"),
    "a module without a likelihood": (
        type("Half", (nn.Module,), {"prior": normal(2)})(),
        TypeError,
        "Half has no .likelihood",
    ),
}


@every_bound
@pytest.mark.parametrize("what", MISTAKES)
def test_mistakes_in_a_model_of_ones_own(bound, what):
    model, error, message = MISTAKES[what]
    with pytest.raises(error, match=message):
        bound(model, Q, X)


def test_neither_q_nor_the_prior_wrapped():
    model = wrong(prior=Normal(torch.zeros(2), torch.ones(2)))
    with pytest.raises(
        ValueError,
        match=r"batch_shape \(3,\), got \(3, 2\) for x of shape \(3, 4\); wrap q and model.prior as Independent",
    ):
        sgvb_b(model, Normal(torch.zeros(3, 2), 1.0), X)


@every_bound
def test_a_likelihood_that_is_the_same_for_every_z(bound):
    """p(x|z) = p(x): the draws are still averaged, and never the datapoints."""
    model = wrong(likelihood=lambda self, z: Independent(Bernoulli(torch.full((4,), 0.25)), 1))
    exact = (X * math.log(0.25) + (1 - X) * math.log(0.75)).sum(-1)
    torch.testing.assert_close(bound(model, Q, X), exact)  # q is the prior: nothing else is left


@every_bound
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_refused_with_a_way_out(bound, dtype):
    half = Independent(Normal(torch.zeros(3, 2, dtype=dtype), torch.ones(3, 2, dtype=dtype)), 1)
    with pytest.raises(TypeError, match=rf"x must have dtype .*got {dtype}; x.float\(\) converts it"):
        bound(Own(), half, X.to(dtype))
    with pytest.raises(TypeError, match=rf"q must draw z in .*float64, got {dtype}.*autocast"):
        bound(Own(), half, X)
    low = wrong(logits=lambda self, z: z.repeat_interleave(2, -1).to(dtype))
    gaussian = wrong(likelihood=lambda self, z: Independent(Normal(low.logits(z), 1.0), 1))
    gaussian.x = X.to(dtype)
    with (
        torch.autocast("cpu", dtype=dtype),
        pytest.raises(TypeError, match=r"model.likelihood\(z\) must compute in"),
    ):
        bound(wrong(likelihood=lambda self, z: Low(normal(*z.shape[:-1], 4), dtype)), Q, X)


class Low(Independent):
    """A density in half precision, as a network's raw output under autocast makes."""

    def __init__(self, of, dtype):
        super().__init__(of.base_dist, 1)
        self.dtype = dtype

    def log_prob(self, value):
        return super().log_prob(value).to(self.dtype)


def test_sparse_data_are_refused():
    with pytest.raises(
        TypeError, match=r"x must be a dense tensor, got one of layout torch.sparse_coo; x.to_dense"
    ):
        sgvb_b(Own(), Q, X.to_sparse())


@every_bound
def test_bounds_under_vmap_with_default_checks(bound):
    model = LinearGaussian(torch.tensor([[1.0], [2.0]]), torch.zeros(2), 0.5)
    x = torch.tensor([[[0.3, 1.0]], [[2.0, -1.0]]])
    posterior = model.posterior(x)

    def one(x, loc, scale):
        return bound(model, Independent(Normal(loc, scale), 1), x)

    if bound in (BOUNDS["elbo_terms"], BOUNDS["sgvb_b"]):
        assert torch.func.vmap(one, randomness="same")(x, posterior.mean, posterior.stddev).isfinite().all()
    else:  # at the posterior every draw gives the evidence
        found = torch.func.vmap(one, randomness="same")(x, posterior.mean, posterior.stddev)
        torch.testing.assert_close(found, model.log_evidence(x))


@pytest.mark.parametrize("integer", [np.int64, np.int32])
def test_integers_of_numpy(integer):
    assert sgvb_b(Own(), Q, X, integer(3)).shape == (3,)
    assert log_weights(Own(), Q, X, integer(3)).shape == (3, 3)
    assert log_evidence(Own(), Q, X, integer(30), chunk_size=integer(7)).value.shape == (3,)
    assert cubo_bound(Own(), Q, X, integer(3), order=np.float64(2.0)).shape == (3,)
    assert vaetut.minibatch_bound(torch.ones(3), integer(30)) == 30
    assert VAE(integer(4), integer(2), integer(3)).hidden_dim == 3


# Black and white pixels


def test_is_bernoulli():
    logits = torch.zeros(3, 2, 2)
    for is_one in (
        Independent(Bernoulli(logits=logits), 1),
        Independent(Independent(Bernoulli(logits), 1), 1),
    ):
        assert is_bernoulli(is_one)
    for is_none in (
        Bernoulli(logits=logits),
        normal(3),
        Independent(normal(3, 2), 1),
        VAE(3, 2, 4, "gaussian").prior,
    ):
        assert not is_bernoulli(is_none)
    assert is_bernoulli(VAE(3, 2, 4).likelihood(torch.zeros(2)))
    assert isinstance(VAE(3, 2, 4).likelihood(torch.zeros(2)).base_dist, Bernoulli)


@every_bound
@pytest.mark.parametrize("checked", [True, False, None])
def test_gray_pixels_are_taken_and_others_are_not(bound, checked):
    """Whether or not the user's Bernoulli checks its argument, which by torch's default must be 0 or 1."""
    model = wrong(
        likelihood=lambda self, z: Independent(Bernoulli(logits=self.logits(z), validate_args=checked), 1)
    )
    assert bound(model, Q, torch.full((3, 4), 0.5)).shape == (3,)
    with pytest.raises(ValueError, match=r"x must lie in \[0, 1\].*0 to 255.*divide"):
        bound(model, Q, torch.tensor([[0.0, 255.0, 3.0, 4.0]]).expand(3, 4))


def exact_bernoulli(logits, x):
    """log p(x) in 50 digits."""
    with mpmath.workdps(50):
        terms = [
            mpmath.mpf(v) * mpmath.mpf(t) - mpmath.log1p(mpmath.exp(mpmath.mpf(t)))
            for t, v in zip(logits.tolist(), x.tolist(), strict=True)
        ]
        return float(sum(terms))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 30.0, 100.0])
@pytest.mark.parametrize("pixels", ["black and white", "decided", "gray"])
def test_digits_of_the_bernoulli_likelihood(dtype, scale, pixels):
    """784 pixels, |logit| up to 100, to 1e-4 nats; decided pixels, where each term is next to nothing, included."""
    torch.manual_seed(0)
    logits = scale * torch.where(torch.rand(784) < 0.5, -1.0, 1.0).to(dtype)
    logits = logits * (0.9 + 0.1 * torch.rand(784, dtype=dtype))
    logits[::100] = torch.randn(8, dtype=dtype)  # a few pixels that are not decided
    x = {
        "black and white": (torch.rand(784) < 0.5).to(dtype),
        "decided": (logits > 0).to(dtype),
        "gray": torch.rand(784, dtype=dtype),
    }[pixels]
    exact = exact_bernoulli(logits, x)
    model = wrong(logits=lambda self, z: logits.expand(*z.shape[:-1], 784))
    z = Independent(Normal(torch.zeros(1, 2, dtype=dtype), torch.ones(1, 2, dtype=dtype)), 1)
    found = elbo_terms(model, z, x.unsqueeze(0)).reconstruction.item()
    # the sum of 784 numbers near 100 is itself known to an ulp of 0.004 in float32: of the sum, not of its terms
    ulp = 4 * torch.finfo(dtype).eps * abs(exact)
    assert abs(found - exact) < 1e-4 * (dtype == torch.float32) + 1e-11 + ulp


def test_decided_pixels_at_the_end_of_the_range():
    logits = torch.tensor([3e38, -3e38, 3e38, -3e38])
    model = wrong(logits=lambda self, z: logits.expand(*z.shape[:-1], 4))
    assert elbo_terms(model, normal(1, 2), (logits > 0).float().unsqueeze(0)).reconstruction.item() == 0
    one = torch.tensor([[1.0, 0.0, 0.0, 0.0]])  # the third pixel is wrong: -3e38 nats
    assert elbo_terms(model, normal(1, 2), one).reconstruction == -logits[:1]


@pytest.mark.parametrize("parameter", ["logits", "probs"])
def test_a_bernoulli_with_a_density_of_its_own_keeps_it(parameter):
    """A subclass is no Bernoulli of torch's; what it says of x counts."""

    class Doubled(Bernoulli):
        def log_prob(self, value):
            return 2 * super().log_prob(value)

    given = torch.rand(4)
    x = (torch.rand(3, 4) < 0.5).float()
    values = []
    for kind in (Bernoulli, Doubled):
        model = wrong(likelihood=lambda self, z, k=kind: Independent(k(**{parameter: given}), 1))
        values.append(elbo_terms(model, Q, x).reconstruction)
    torch.testing.assert_close(values[1], 2 * values[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("parameter", ["logits", "probs"])
def test_gradients_of_the_bernoulli_likelihood(dtype, parameter):
    """x - p in the logits, (x - p) / p (1 - p) in the probabilities."""
    torch.manual_seed(0)
    logits = 3 * torch.randn(4, dtype=dtype)
    given = (logits if parameter == "logits" else logits.sigmoid()).requires_grad_()
    x = torch.rand(1, 4, dtype=dtype)
    model = wrong(likelihood=lambda self, z: Independent(Bernoulli(**{parameter: given}), 1))
    q = Independent(Normal(torch.zeros(1, 2, dtype=dtype), torch.ones(1, 2, dtype=dtype)), 1)
    (gradient,) = torch.autograd.grad(elbo_terms(model, q, x).reconstruction.sum(), given)
    p = logits.sigmoid()
    exact = x[0] - p if parameter == "logits" else (x[0] - p) / (p * (1 - p))
    torch.testing.assert_close(gradient, exact)


def test_a_q_that_is_no_distribution_of_floats_is_checked_by_the_model():
    """A Categorical draws integers: nothing in the bounds demands floating-point z."""

    class Table(Distribution):
        pass

    q = torch.distributions.OneHotCategorical(logits=torch.zeros(3, 2))
    model = wrong(prior=torch.distributions.OneHotCategorical(logits=torch.zeros(2)))
    assert sgvb_b(model, q, X).shape == (3,)
