"""The score-function estimator where the support moves: refused where it is wrong, and right where it is not."""

import math

import pytest
import torch
from torch.distributions import (
    AffineTransform,
    Beta,
    Categorical,
    Exponential,
    ExpTransform,
    Gamma,
    Independent,
    IndependentTransform,
    LogNormal,
    MixtureSameFamily,
    Normal,
    Pareto,
    Poisson,
    PowerTransform,
    SigmoidTransform,
    TransformedDistribution,
    Uniform,
    Weibull,
)

from vaetut import score_function
from vaetut._support.validate import checks
from vaetut.distributions import Elliptical, Reciprocal, Triangular, Truncated

D = torch.float64
UNIT = Uniform(torch.zeros((), dtype=D), torch.ones((), dtype=D))


def d(value):
    return torch.tensor(value, dtype=D)


def moved(base, loc=0.0, scale=1.0):
    return TransformedDistribution(base, [AffineTransform(loc, scale)])


def mixture(components):
    return MixtureSameFamily(Categorical(torch.ones(2, dtype=D)), components, validate_args=False)


def hidden_jump(t):
    """The outer component vanishes at both ends; the inner one, uniform on (t, t + 1), jumps."""
    parts = [torch.stack([t, d(-3.0)]), d([1.0, 9.0])]
    return mixture(moved(Beta(d([1.0, 3.0]), d([1.0, 3.0])), *parts))


# Where the density does not vanish at an end that moves. Of one parameter, t.
WRONG = {
    "inside of a transformed mixture": lambda t: TransformedDistribution(hidden_jump(t), [ExpTransform()]),
    "a mixture, transformed in a batch": lambda t: moved(
        MixtureSameFamily(
            Categorical(torch.ones(4, 2, dtype=D)), Uniform(d([[0.0] * 2] * 4), d([[1.0] * 2] * 4))
        ),
        0.0,
        t.expand(4),
    ),
    "a mixture of vectors, transformed": lambda t: TransformedDistribution(
        mixture(Independent(Uniform(torch.zeros(2, 3, dtype=D), t.expand(2, 3)), 1)),
        [IndependentTransform(ExpTransform(), 1)],
    ),
    "the end of a truncated variable's base": lambda t: Truncated(Uniform(d(0.0), t), 0.2, 9.0),
    "a truncated variable": lambda t: Truncated(Normal(d(0.0), d(1.0)), -1.0, t),
    "the radius of an ellipse": lambda t: Elliptical(
        Uniform(d(0.0), t), d([0.0, 0.0]), torch.eye(2, dtype=D)
    ),
    "the center of an ellipse": lambda t: Elliptical(UNIT, t.expand(2), torch.eye(2, dtype=D)),
    "uniform": lambda t: Uniform(t, t + 1),
    "one end of a uniform": lambda t: Uniform(torch.zeros_like(t), t),
    "pareto": lambda t: Pareto(t, d(2.0)),
    "reciprocal": lambda t: Reciprocal(t, d(5.0)),
    "triangular with its peak at the end": lambda t: Triangular(d(0.0), t, t),
    "scaled uniform": lambda t: moved(UNIT, 0.0, t),
    "shifted exponential": lambda t: moved(Exponential(d(1.0)), t),
    "shifted exponential, far from 0 and small": lambda t: moved(Exponential(d(1e6)), 5 * t),
    "turned exponential": lambda t: moved(Exponential(d(1.0)), t, -2.0),
    "scaled pareto": lambda t: moved(Pareto(d(1.0), d(3.0)), 0.0, t),
    "shifted exponential, exp": lambda t: TransformedDistribution(
        Exponential(d(2.0)), [AffineTransform(t, 1.0), ExpTransform()]
    ),
    "beta that rises to its end": lambda t: moved(Beta(d(3.0), d(0.5)), 0.0, t),
    "beta of constant slope": lambda t: moved(Beta(d(2.0), d(1.0)), 0.0, t),
    "gamma with a pole": lambda t: moved(Gamma(d(0.5), d(1.0)), t),
    "shifted weibull": lambda t: moved(Weibull(d(1.0), d(1.0)), t),
    "independent coordinates": lambda t: Independent(moved(Exponential(torch.ones(3, dtype=D)), t), 1),
    "independent around the base": lambda t: TransformedDistribution(
        Independent(Exponential(torch.ones(3, dtype=D)), 1), [AffineTransform(t, 1.0, event_dim=1)]
    ),
    "mixture of uniforms": lambda t: mixture(
        Uniform(torch.stack([0 * t, t]), torch.stack([0 * t + 1, t + 2]))
    ),
    "mixture of shifted exponentials": lambda t: mixture(
        moved(Exponential(torch.ones(2, dtype=D)), torch.stack([0 * t, t]))
    ),
    "shifted poisson": lambda t: moved(Poisson(d(2.0)), t),
}

# Where it does, or where the end stays: with E[z²] for each.
RIGHT = {
    "normal": (lambda t: Normal(t, d(1.0)), lambda t: t**2 + 1),
    "scaled exponential": (lambda t: moved(Exponential(d(1.0)), 0.0, t), lambda t: 2 * t**2),
    "lognormal by hand": (
        lambda t: TransformedDistribution(Normal(t, d(0.3)), [ExpTransform()]),
        lambda t: torch.exp(2 * t + 2 * 0.3**2),
    ),
    "power of an exponential": (
        lambda t: TransformedDistribution(Exponential(t), [PowerTransform(d(0.5))]),
        lambda t: 1 / t,
    ),
    "shifted gamma": (lambda t: moved(Gamma(d(4.0), d(1.0)), t), lambda t: 4 + (t + 4) ** 2),
    "turned gamma": (lambda t: moved(Gamma(d(4.0), d(1.0)), t, -1.0), lambda t: 4 + (t - 4) ** 2),
    "shifted lognormal": (
        lambda t: moved(LogNormal(d(0.0), d(0.3)), t),
        lambda t: t**2 + 2 * t * math.exp(0.045) + math.exp(0.18),
    ),
    "scaled beta": (lambda t: moved(Beta(d(1.0), d(3.0)), 0.0, t), lambda t: t**2 / 10),
    "scaled and shifted beta": (lambda t: moved(Beta(d(3.0), d(3.0)), t, t), lambda t: t**2 * 16 / 7),
    "independent": (lambda t: Independent(moved(Gamma(d([4.0]), d(1.0)), t), 1), lambda t: 4 + (t + 4) ** 2),
}


def gradient(q, t, n=200_000):
    """Mean and standard error of the estimates of dE[z²]/dt."""
    surrogate = score_function(lambda z: z.square().reshape(n), q, n)
    (mean,) = torch.autograd.grad(surrogate.mean(), t)
    return mean


@pytest.mark.parametrize("name", WRONG)
def test_a_density_that_jumps_at_an_end_that_moves_is_refused(name):
    t = d(1.5).requires_grad_()
    q = WRONG[name](t)
    with pytest.raises(ValueError, match=r"must not have a support that moves .* use pathwise, or detach"):
        score_function(lambda z: z.reshape(5, -1).sum(-1), q, 5)
    if "mixture" in name:  # torch's own cannot evaluate a component outside of its support
        return
    # the same support, which does not move; and the value alone
    with torch.no_grad():
        assert score_function(lambda z: z.reshape(5, -1).sum(-1), q, 5).isfinite().all()
    fixed = WRONG[name](t.detach())
    assert (score_function(lambda z: t * z.reshape(5, -1).sum(-1), fixed, 5)).requires_grad


@pytest.mark.parametrize("name", RIGHT)
def test_the_others_are_right(name):
    """To five standard errors, which are small beside the gradient; 20 means of 10,000 draws each."""
    make, exact = RIGHT[name]
    t = d(1.5).requires_grad_()
    (truth,) = torch.autograd.grad(exact(t), t)
    torch.manual_seed(0)
    found = torch.stack([gradient(make(t), t, 10_000) for _ in range(20)])
    error = found.std() / math.sqrt(20)
    assert (found.mean() - truth).abs() < 5 * error and error < 0.1 * truth.abs()


def test_what_refusing_saves_from():
    """The estimates that were given before, by hand: of θ E[u] with u uniform -½, exact +½; of θ + 1, 2 and not 1."""
    t = d(1.0).requires_grad_()
    for name, wrong, exact in (("scaled uniform", -0.5, 0.5), ("shifted exponential", 2.0, 1.0)):
        q = WRONG[name](t)
        z = q.sample((200_000,))
        (found,) = torch.autograd.grad((z * q.log_prob(z)).mean(), t)
        assert abs(found - wrong) < 0.05 < abs(found - exact)


@pytest.mark.parametrize("k", [0.1, 0.5, 1.0, 3.0])
def test_a_density_may_vanish_as_slowly_as_it_likes(k):
    """(b - z)^k at the upper end: the derivation holds for every k > 0, and the mean by quadrature over z."""
    t = d(2.0).requires_grad_()
    q = moved(Beta(d(1.0), d(1 + k)), 0.0, t)
    assert score_function(torch.square, q, 3).requires_grad
    s = torch.linspace(0, 1, 2_000_001, dtype=D)[:-1]  # z = t (1 - s^m) takes the pole of the score away
    m = 40.0
    s = s + (s[1] - s[0]) / 2
    z = (2 * (1 - s**m)).detach()
    log_q = math.log((1 + k) / 2) + k * m * s.log()
    score = k * z / 2 / (2 * s**m) - 1 / 2  # of (1 + k) (1 - z / t)^k / t
    mean = (z**2 * score * log_q.exp() * 2 * m * s ** (m - 1)).mean()
    exact = 2 * 2 * 2 / ((2 + k) * (3 + k))  # of t² 2 / (2 + k)(3 + k)
    torch.testing.assert_close(mean, d(exact), rtol=1e-5, atol=0)


def test_mixture_of_triangulars():
    """Inside of the support, too, where an end of one component lies in that of the other."""
    t = d(1.0).requires_grad_()
    low, high = torch.stack([-t, t]), torch.stack([2 * t, 4 * t])
    q = mixture(Triangular(low, high, (low + high) / 2, validate_args=False))
    assert score_function(torch.square, q, 50).isfinite().all()
    with pytest.raises(ValueError, match="support that moves"):
        score_function(torch.square, mixture(Triangular(low, high, low, validate_args=False)), 50)


def test_triangular():
    """The density goes to 0 at both ends, with a kink between them that moves: E[z²] is 5/8 t²."""
    t = d(1.0).requires_grad_()
    q = Triangular(-t, 2 * t, t / 2)
    assert score_function(torch.square, q, 3).requires_grad
    z = torch.linspace(-1, 2, 300_001, dtype=D)[1:-1]
    (mean,) = torch.autograd.grad((z**2 * q.log_prob(z).exp()).sum() * 1e-5, t)
    assert abs(mean - 1.25) < 1e-4


def test_in_float32_and_in_a_batch():
    low = torch.tensor([0.0, 100.0, -3e4], requires_grad=True)
    assert score_function(torch.square, moved(Gamma(torch.tensor(3.0), 1.0), low), 3).requires_grad
    with pytest.raises(ValueError, match="support that moves"):
        score_function(torch.square, moved(Gamma(torch.tensor([3.0, 1.0, 3.0]), 1.0), low), 3)


def test_under_torch_func():
    def mean(make):
        return lambda t: score_function(lambda z: z.reshape(5, -1).sum(-1), make(t), 5).mean()

    for name in ("scaled uniform", "uniform", "shifted exponential", "mixture of uniforms"):
        with pytest.raises(ValueError, match="support that moves"):
            torch.func.grad(mean(WRONG[name]))(d(1.5))
    assert torch.func.grad(mean(RIGHT["shifted gamma"][0]))(d(1.5)).isfinite()

    def lognormal(t):
        base = Normal(t, 0.3, validate_args=False)
        return TransformedDistribution(base, [ExpTransform()], validate_args=False)

    def uniform(t):
        return Uniform(0 * t, t, validate_args=False)

    # under vmap nothing can be read: what certainly moves is refused, and what seems not to is not
    batched = torch.func.vmap(torch.func.grad(mean(lognormal)), randomness="different")
    assert batched(torch.tensor([0.1, 0.2])).isfinite().all()
    with pytest.raises(ValueError, match="support that moves"):
        torch.func.vmap(torch.func.grad(mean(uniform)), randomness="different")(torch.tensor([0.1, 0.2]))


def test_without_checks_the_values_are_not_read():
    t = d(1.5).requires_grad_()
    with checks(False):
        assert score_function(torch.square, moved(UNIT, 0.0, t), 5).requires_grad
        with pytest.raises(ValueError, match="support that moves"):
            score_function(torch.square, Uniform(d(0.0), t), 5)


def test_what_has_no_ends_is_let_through():
    logits = torch.zeros(3, requires_grad=True)
    base = Independent(Normal(logits, 1.0), 1)
    q = TransformedDistribution(base, [torch.distributions.StickBreakingTransform()])
    assert score_function(lambda z: z[..., 0], q, 5).requires_grad
    squashed = TransformedDistribution(Normal(logits, 1.0), [SigmoidTransform()])
    assert score_function(torch.square, squashed, 5).requires_grad


def test_the_message_names_what_is_inside():
    t = d(1.5).requires_grad_()
    with pytest.raises(ValueError, match=r"as MixtureSameFamily\(Uniform\) has"):
        score_function(torch.square, WRONG["mixture of uniforms"](t), 5)
    with pytest.raises(ValueError, match=r"as Independent\(TransformedDistribution\(Exponential\)\) has"):
        score_function(lambda z: z.sum(-1), WRONG["independent coordinates"](t), 5)
