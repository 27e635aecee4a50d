"""One list of what users get wrong: each is refused at the call, and the message names the argument and what is allowed."""

# ruff: noqa: E501  (one row, one line: the list is read as a table)
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.distributions import (
    AffineTransform,
    Bernoulli,
    Independent,
    LogNormal,
    Normal,
    OneHotCategorical,
    TransformedDistribution,
    Uniform,
)

import vaetut
from vaetut import DiscreteMixture, LinearGaussian, explore, plots, verify

NAN, INF = math.nan, math.inf
ZEROS, ONES = torch.zeros, torch.ones


def normal(*shape: int) -> Independent:
    return Independent(Normal(ZEROS(*shape), ONES(*shape)), 1)


def gaussian() -> LinearGaussian:
    return LinearGaussian(ONES(3, 2), ZEROS(3), 0.5)


def mixture() -> DiscreteMixture:
    return DiscreteMixture(ZEROS(2), ZEROS(2, 3), ONES(2, 3))


class Pixels:
    """A Bernoulli decoder of four pixels."""

    prior = normal(2)

    def likelihood(self, z: torch.Tensor) -> Independent:
        return Independent(Bernoulli(logits=z.repeat_interleave(2, -1), validate_args=False), 1)


def figure(**values: Any) -> Any:
    return plots.subplots(height=1)[0]


def with_value(x: torch.Tensor, value: float) -> torch.Tensor:
    x = x.clone()
    x.view(-1)[0] = value
    return x


X = ZEROS(5, 3)
Q = normal(5, 2)
LEAF = torch.tensor(1.0, requires_grad=True)
MOVING = Normal(LEAF, 1.0)  # a q with a gradient

# fmt: off
BAD: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "iwae without draws": (lambda: vaetut.iwae_bound(gaussian(), Q, X, 0), ValueError, "num_samples must be at least 1, got 0"),
    "iwae with a bare normal": (lambda: vaetut.iwae_bound(gaussian(), Normal(ZEROS(5, 2), ONES(5, 2)), X, 3), ValueError, r"wrap a Normal .* Independent"),
    "cubo of order one half": (lambda: vaetut.cubo_bound(gaussian(), Q, X, 3, order=0.5), ValueError, "order must be finite and at least 1, got 0.5"),
    "cubo of order 'two'": (lambda: vaetut.cubo_bound(gaussian(), Q, X, 3, order="two"), TypeError, "order must be a number of at least 1, got 'two'"),
    "minibatch larger than the data": (lambda: vaetut.minibatch_bound(ZEROS(100), 60), ValueError, "dataset_size must be at least the 100 values of the minibatch, got 60"),
    "minibatch of nothing": (lambda: vaetut.minibatch_bound(ZEROS(0), 60), ValueError, r"values must have shape \[\.\.\., M\]"),
    "minibatch of half a data set": (lambda: vaetut.minibatch_bound(ZEROS(5), 7.5), TypeError, "dataset_size must be an int.*7.5"),
    "dreg without rsample": (lambda: vaetut.doubly_reparameterized(mixture(), OneHotCategorical(logits=ZEROS(5, 2).requires_grad_()), X, 3), NotImplementedError, "OneHotCategorical has no rsample"),
    "sticking the landing on a float": (lambda: vaetut.sticking_the_landing(gaussian(), Q, 1.0, 1), TypeError, "x must be a torch.Tensor, got float"),
    "dreg with too few q": (lambda: vaetut.doubly_reparameterized(gaussian(), normal(4, 2), X, 3), ValueError, r"q must have one distribution per datapoint.*\(5,\), got \(4,\)"),
    # models, aevb
    "a hidden layer of nothing": (lambda: vaetut.VAE(3, 2, (7, 0)), ValueError, r"hidden_dim\[1\] must be at least 1, got 0"),
    "a hidden layer of 7.0": (lambda: vaetut.VAE(3, 2, 7.0), TypeError, "hidden_dim must be an int or a tuple of ints.*7.0"),
    "resume from nowhere": (lambda: vaetut.train(vaetut.VAE(3, 2, 4), X, epochs=1, resume=True), ValueError, "resume=True requires checkpoint"),
    "a checkpoint that is there": (lambda: vaetut.train(vaetut.VAE(3, 2, 4), X, epochs=1, checkpoint=__file__), FileExistsError, "test_bad_input.py"),
    "low precision": (lambda: vaetut.train(vaetut.VAE(3, 2, 4), X, epochs=1, precision="low"), ValueError, "precision must be one of 'highest', 'high', 'medium', got 'low'"),
    "compile by number": (lambda: vaetut.train(vaetut.VAE(3, 2, 4), X, epochs=1, compile=1), TypeError, "compile must be True or False"),
    "fabric by name": (lambda: vaetut.train(vaetut.VAE(3, 2, 4), X, epochs=1, fabric="ddp"), TypeError, "fabric must be a lightning_fabric.Fabric, got str"),
    # gradients
    "f that sums over draws": (lambda: vaetut.score_function(lambda z: z.sum(), MOVING, 5), ValueError, "one value per draw"),
    "pathwise through jumps": (lambda: vaetut.pathwise(lambda z: z, Bernoulli(logits=LEAF), 5), NotImplementedError, "discrete, as Bernoulli is.*score_function"),
    "pathwise in another family": (lambda: vaetut.pathwise(torch.square, MOVING, 5, via="composition"), NotImplementedError, "score_function needs no map"),
    "a baseline of nothing": (lambda: vaetut.score_function(torch.square, MOVING, 1, "mean"), ValueError, "at least 2 with baseline='mean'"),
    "unknown baseline": (lambda: vaetut.score_function(torch.square, MOVING, 5, "loo"), ValueError, "baseline must be one of 'leave_one_out', 'optimal', 'mean', got 'loo'"),
    "nothing to differentiate": (lambda: vaetut.score_function(torch.square, Normal(0.0, 1.0), 5), ValueError, "requires_grad=True"),
    "score of a moving support": (lambda: vaetut.score_function(torch.square, Uniform(0.0, LEAF), 5), ValueError, "support that moves"),
    "score of a support that moves through a transform": (lambda: vaetut.score_function(torch.square, TransformedDistribution(Uniform(0.0, 1.0), [AffineTransform(0.0, LEAF)]), 5), ValueError, "support that moves"),
    "measure-valued of a subclass": (lambda: vaetut.measure_valued(torch.square, type("Own", (Normal,), {"log_prob": lambda self, z: z})(LEAF, 1.0), 5), NotImplementedError, "got Own, which has a density of its own"),
    "measure-valued without a pair": (lambda: vaetut.measure_valued(torch.square, LogNormal(LEAF, 1.0), 5), NotImplementedError, "got LogNormal"),
    "draws that do not divide": (lambda: vaetut.gradient_statistics(vaetut.pathwise, torch.square, Normal, {"loc": LEAF, "scale": 1.0}, 15, samples_per_estimate=2), ValueError, "multiple of samples_per_estimate"),
    # information
    "entropy of a number": (lambda: vaetut.entropy(1.0), TypeError, r"q must be a torch.distributions.Distribution, got float"),
    "kl of a tensor": (lambda: vaetut.kl_divergence(Q, ONES(2)), TypeError, r"p must be .*Distribution, got Tensor"),
    "kl over other events": (lambda: vaetut.kl_divergence(normal(5, 2), normal(5, 3)), ValueError, r"event_shape, got \(2,\) and \(3,\)"),
    "cross entropy of batches": (lambda: vaetut.cross_entropy(normal(5, 2), normal(4, 2)), ValueError, r"batch shapes .*\(5,\) and \(4,\)"),
    "no samples": (lambda: vaetut.monte_carlo(lambda z: z, Q, 0), ValueError, "num_samples must be at least 1, got 0"),
    "negative samples": (lambda: vaetut.monte_carlo_kl(Q, Q, -3), ValueError, "num_samples must be at least 1, got -3"),
    "half a sample": (lambda: vaetut.monte_carlo_entropy(Q, 2.5), TypeError, r"num_samples must be an int.*2\.5"),
    "true samples": (lambda: vaetut.monte_carlo_entropy(Q, True), TypeError, "num_samples must be an int.*bool"),
    "f that averages": (lambda: vaetut.monte_carlo(lambda z: z.mean(), Q, 10), ValueError, r"f must return one value per sample.*got \(\)"),
    "f that returns a float": (lambda: vaetut.monte_carlo(lambda z: 1.0, Q, 10), TypeError, "f must return a torch.Tensor, got float"),
    # exact
    "weight as a list": (lambda: LinearGaussian([[1.0]], ZEROS(1), 1.0), TypeError, "weight must be a torch.Tensor, got list"),
    "integer weight": (lambda: LinearGaussian(torch.ones(3, 2, dtype=torch.int64), ZEROS(3), 1.0), TypeError, "weight must have dtype .*int64"),
    "half weight": (lambda: LinearGaussian(ONES(3, 2).half(), ZEROS(3).half(), 1.0), TypeError, "weight must have dtype .*float16"),
    "weight with one dimension": (lambda: LinearGaussian(ONES(3), ZEROS(3), 1.0), ValueError, r"weight must have shape \[data, latent\], got \(3,\)"),
    "nan weight": (lambda: LinearGaussian(with_value(ONES(3, 2), NAN), ZEROS(3), 1.0), ValueError, "weight must be finite, got NaN or infinity in 1 of 6 values"),
    "bias of another length": (lambda: LinearGaussian(ONES(3, 2), ZEROS(2), 1.0), ValueError, r"bias must have shape \(3,\), got \(2,\)"),
    "bias of another dtype": (lambda: LinearGaussian(ONES(3, 2), ZEROS(3).double(), 1.0), TypeError, "bias must have the dtype .*float32, got torch.float64"),
    "no noise": (lambda: LinearGaussian(ONES(3, 2), ZEROS(3), 0.0), ValueError, r"noise_scale must be one positive number, got 0\.0"),
    "noise per pixel": (lambda: LinearGaussian(ONES(3, 2), ZEROS(3), ONES(3)), ValueError, "noise_scale must be one positive number"),
    "infinite noise": (lambda: LinearGaussian(ONES(3, 2), ZEROS(3), INF), ValueError, "noise_scale must be finite"),
    "x of another length": (lambda: gaussian().log_evidence(ZEROS(5, 4)), ValueError, r"x must have shape \[\.\.\., 3\], got \(5, 4\)"),
    "x of another dtype": (lambda: gaussian().posterior(X.double()), TypeError, "x must have the model's dtype, torch.float32, got torch.float64"),
    "x with nan": (lambda: mixture().log_evidence(with_value(X, NAN)), ValueError, "x must be finite"),
    "x with infinity": (lambda: gaussian().log_joint(with_value(X, INF), ZEROS(5, 2)), ValueError, "x must be finite"),
    "logits as a matrix": (lambda: DiscreteMixture(ZEROS(2, 2), ZEROS(2, 3), ONES(2, 3)), ValueError, r"logits must have shape \[C\]"),
    "loc of another size": (lambda: DiscreteMixture(ZEROS(2), ZEROS(4, 3), ONES(4, 3)), ValueError, r"loc must have shape \[C, data\] with C = 2"),
    "negative scale": (lambda: DiscreteMixture(ZEROS(2), ZEROS(2, 3), with_value(ONES(2, 3), -1.0)), ValueError, "scale must be positive.*-1"),
    "too many latent dimensions": (lambda: LinearGaussian.fit(torch.randn(20, 3), 3), ValueError, "latent_dim must be less than the data's 3 dimensions, got 3"),
    "no latent dimensions": (lambda: LinearGaussian.fit(torch.randn(20, 3), 0), ValueError, "latent_dim must be at least 1"),
    "fit to one point": (lambda: LinearGaussian.fit(ZEROS(1, 3), 1), ValueError, "N of at least 2"),
    "fit to nan": (lambda: LinearGaussian.fit(with_value(torch.randn(20, 3), NAN), 1), ValueError, "x must be finite"),
    "q of another kind": (lambda: gaussian().expected_log_likelihood(OneHotCategorical(ONES(2)), X), NotImplementedError, "q must be Independent"),
    "q of other states": (lambda: mixture().elbo(OneHotCategorical(ONES(3)), X), NotImplementedError, "OneHotCategorical over 2 states"),
    "an empty interval": (lambda: vaetut.integrate(torch.sin, 1, 1), ValueError, "low < high, got 1 and 1"),
    "an infinite interval": (lambda: vaetut.integrate(torch.sin, 0, INF), ValueError, "must be finite"),
    "one point": (lambda: vaetut.integrate(torch.sin, 0, 1, num_points=1), ValueError, "num_points must be at least 2"),
    "f that integrates": (lambda: vaetut.integrate(torch.sum, 0, 1), ValueError, r"f must return \[\.\.\., 20001\]"),
    # bounds
    "bound with no samples": (lambda: vaetut.sgvb_b(gaussian(), Q, X, 0), ValueError, "num_samples must be at least 1"),
    "bound with float samples": (lambda: vaetut.sgvb_a(gaussian(), Q, X, 1.0), TypeError, "num_samples must be an int"),
    "bound of integers": (lambda: vaetut.elbo_terms(gaussian(), Q, X.long()), TypeError, "x must have dtype .*int64"),
    "bound of nan": (lambda: vaetut.sgvb_b(gaussian(), Q, with_value(X, NAN)), ValueError, "x must be finite"),
    "bound of an array": (lambda: vaetut.sgvb_b(gaussian(), Q, X.numpy()), TypeError, "x must be a torch.Tensor, got ndarray"),
    "x too wide": (lambda: vaetut.sgvb_b(gaussian(), Q, ZEROS(5, 4)), ValueError, r"x must have shape \[batch, 3\].*got \(5, 4\)"),
    "q for fewer points": (lambda: vaetut.sgvb_b(gaussian(), normal(4, 2), X), ValueError, r"batch_shape \(5,\), got \(4,\)"),
    "q for one point": (lambda: vaetut.log_evidence(gaussian(), gaussian().prior, X, 10), ValueError, r"q\.expand"),
    "q of other dimensions": (lambda: vaetut.sgvb_b(gaussian(), normal(5, 3), X), ValueError, r"event_shape \(2,\), got \(3,\)"),
    "q not wrapped": (lambda: vaetut.sgvb_b(gaussian(), Normal(ZEROS(5, 2), 1.0), X), ValueError, "Independent"),
    "q a tensor": (lambda: vaetut.sgvb_b(gaussian(), ZEROS(5, 2), X), TypeError, "q must be a torch.distributions.Distribution"),
    "a model without a prior": (lambda: vaetut.sgvb_b(object(), Q, X), TypeError, r"object has no \.prior"),
    "8-bit pixels": (lambda: vaetut.sgvb_b(Pixels(), Q, torch.full((5, 4), 255.0)), ValueError, r"x must lie in \[0, 1\].*divide"),
    "negative pixels": (lambda: vaetut.log_evidence(Pixels(), Q, torch.full((5, 4), -0.1), 3), ValueError, r"x must lie in \[0, 1\]"),
    "a prior as a method": (lambda: vaetut.sgvb_b(type("M", (Pixels,), {"prior": lambda self: Q})(), Q, X), TypeError, "model.prior must be .*of type method; write @property"),
    "a likelihood without Independent": (lambda: vaetut.sgvb_b(type("M", (Pixels,), {"likelihood": lambda self, z: Bernoulli(logits=z)})(), Q, ZEROS(5, 2)), ValueError, r"model.likelihood\(z\) must have an event_shape \(2,\).*wrap it as Independent"),
    "a likelihood of logits": (lambda: vaetut.sgvb_b(type("M", (Pixels,), {"likelihood": lambda self, z: z})(), Q, X), TypeError, r"model.likelihood\(z\) must return the distribution.*got Tensor"),
    "bound of half precision": (lambda: vaetut.sgvb_b(gaussian(), Q, X.bfloat16()), TypeError, r"x must have dtype .*bfloat16; x.float\(\) converts it"),
    "bound of sparse data": (lambda: vaetut.sgvb_b(gaussian(), Q, X.to_sparse()), TypeError, r"x must be a dense tensor.*x.to_dense\(\)"),
    "no chunks": (lambda: vaetut.log_evidence(gaussian(), Q, X, 10, chunk_size=0), ValueError, "chunk_size must be at least 1"),
    # data
    "unknown data": (lambda: vaetut.load("mnits"), ValueError, "'digits', 'mnist', 'fashion-mnist', got 'mnits'; did you mean 'mnist'"),
    "gray above one": (lambda: vaetut.binarize(torch.full((2, 2), 1.5)), ValueError, r"\[0, 1\]"),
    "nan pixels": (lambda: vaetut.binarize(torch.full((2, 2), NAN)), ValueError, "x must"),
    "unknown binarization": (lambda: vaetut.binarize(ZEROS(2, 2), how="treshold"), ValueError, "'dynamic', 'threshold', got 'treshold'"),
    # verify
    "no label": (lambda: verify("", 1.0, 1.0), TypeError, "label must be a non-empty string"),
    "label forgotten": (lambda: verify(1.0, 1.0, 1.0), TypeError, "label must be a non-empty string"),
    "nan on the left": (lambda: verify("eq-a", NAN, 1.0), ValueError, "left must be finite"),
    "infinity on the right": (lambda: verify("eq-a", 1.0, INF), ValueError, "right must be finite"),
    "text on the right": (lambda: verify("eq-a", 1.0, "one"), TypeError, "right must be a number or a tensor"),
    "empty sides": (lambda: verify("eq-a", ZEROS(0), ZEROS(0)), ValueError, "left must not be empty"),
    "sides that do not broadcast": (lambda: verify("eq-a", ZEROS(3), ZEROS(2)), ValueError, r"left has shape \(3,\), right \(2,\)"),
    "negative tolerance": (lambda: verify("eq-a", 1.0, 1.0, tolerance=-1.0), ValueError, "tolerance must be finite and not negative"),
    "infinite tolerance": (lambda: verify("eq-a", 1.0, 2.0, tolerance=INF), ValueError, "tolerance must be finite"),
    "nan tolerance": (lambda: verify("eq-a", 1.0, 2.0, tolerance=NAN), ValueError, "tolerance must be finite"),
    "no standard error": (lambda: verify("eq-a", 1.0, 1.0, standard_error=0.0), ValueError, "standard_error must be positive"),
    "nan standard error": (lambda: verify("eq-a", 1.0, 1.0, standard_error=NAN), ValueError, "standard_error must be finite"),
    "unknown relation": (lambda: verify("eq-a", 1.0, 1.0, relation="=="), ValueError, "relation must be one of '=', '<=', '>='"),
    # explore
    "draw a figure": (lambda: explore(figure(), alt="A figure.", a=[1, 2]), TypeError, "draw must be a function"),
    "no axes": (lambda: explore(figure, alt="A figure."), ValueError, "axes must hold at least one slider"),
    "axis of one value": (lambda: explore(figure, alt="A figure.", a=[1]), ValueError, "a must have at least two values"),
    "axis with nan": (lambda: explore(figure, alt="A figure.", a=[1.0, NAN]), ValueError, "a must hold finite values"),
    "too many frames": (lambda: explore(figure, alt="A figure.", a=range(30), b=range(30)), ValueError, "30 x 30 = 900"),
    "no alt text": (lambda: explore(figure, alt="  ", a=[1, 2]), ValueError, "alt must describe the picture"),
    "alt of another axis": (lambda: explore(figure, alt="Mean {mean}.", a=[1, 2]), ValueError, "{mean} is not one of the axes"),
    "start off the axis": (lambda: explore(figure, alt="A figure.", start={"a": 3}, a=[1, 2]), ValueError, "start must be on its axis"),
    "draw returns nothing": (lambda: explore(lambda a: None, alt="A figure.", a=[1, 2]), TypeError, "draw must return"),
    # plots
    "an unknown row": (lambda: plots.image_grid(ZEROS(4, 64), (8, 8), rows=["a", "b"]), ValueError, "rows must name each of the 1 rows"),
    "images of another size": (lambda: plots.image_grid(ZEROS(4, 60), (8, 8)), ValueError, r"images must be \[n, 64\]"),
}
# fmt: on


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    call, error, message = BAD[name]
    with pytest.raises(error, match=message) as caught:
        call()
    assert caught.type is error, "a subclass would come from somewhere deeper"


def test_finite_values_with_an_infinite_sum():
    """The check sums first, and looks twice where that is not finite."""
    x = torch.full((1, 3), 3e38)
    model = LinearGaussian(ONES(3, 2), ZEROS(3), 1e30)
    assert x.sum().isinf()
    assert vaetut.sgvb_b(model, normal(1, 2), x).shape == (1,)
    with pytest.raises(ValueError, match="x must be finite, got NaN or infinity in 1 of 3 values"):
        vaetut.sgvb_b(model, normal(1, 2), with_value(x, -INF))
