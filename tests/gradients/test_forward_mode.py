"""Forward mode: on the same draws jvp and jacfwd give what the backward pass gives."""

import pytest
import torch
from torch.distributions import Bernoulli, Exponential, Gumbel, Independent, LogNormal, Normal, StudentT

from vaetut import measure_valued, pathwise, score_function

D = torch.float64
AT = torch.tensor([0.5, 1.2], dtype=D)


def gaussian(t):
    return Independent(Normal(t, 1 + t.square(), validate_args=False), 1, validate_args=False)


FAMILIES = {
    "gaussian": gaussian,
    "lognormal": lambda t: Independent(LogNormal(t, 0.3 * t, validate_args=False), 1, validate_args=False),
    "exponential": lambda t: Independent(Exponential(t, validate_args=False), 1, validate_args=False),
    "gumbel": lambda t: Independent(Gumbel(t, t, validate_args=False), 1, validate_args=False),
    "student's t": lambda t: Independent(StudentT(5.0, t, t, validate_args=False), 1, validate_args=False),
}
CASES = [(pathwise, {}, name) for name in FAMILIES]
CASES += [(score_function, {"baseline": b}, name) for name in FAMILIES for b in (None, "leave_one_out")]
CASES += [(score_function, {"baseline": "optimal"}, "gaussian")]
CASES += [(measure_valued, {"coupled": c}, "gaussian") for c in (True, False)]


@pytest.mark.parametrize(("estimator", "options", "family"), CASES)
def test_forward_mode_is_reverse_mode(estimator, options, family):
    def mean(t):
        torch.manual_seed(0)
        # f depends on t directly, too
        return estimator(lambda z: (z.square() * t).sum(-1), FAMILIES[family](t), 50, **options).mean()

    reverse = torch.func.jacrev(mean)(AT)
    assert (reverse != 0).all()
    forward = torch.stack([torch.func.jvp(mean, (AT,), (e,))[1] for e in torch.eye(2, dtype=D)])
    torch.testing.assert_close(forward, reverse, rtol=1e-10, atol=1e-12)
    jacobian = torch.func.jacfwd(mean, randomness="same")(AT)
    torch.testing.assert_close(jacobian, reverse, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("estimator", [pathwise, score_function, measure_valued])
def test_what_has_no_tangent_is_refused_in_forward_mode_too(estimator):
    def constant(t):
        return estimator(torch.square, Normal(torch.zeros(2), 1.0), 5).mean() + t

    with pytest.raises(ValueError, match="no parameter of q or f requires a gradient"):
        torch.func.jvp(constant, (torch.tensor(1.0),), (torch.tensor(1.0),))


def test_a_step_is_refused_in_forward_mode_too():
    def step(t):
        return pathwise(lambda z: (z > 0).to(z.dtype), Normal(t, 1.0), 5).mean()

    with pytest.raises(ValueError, match="f has no gradient in z"):
        torch.func.jvp(step, (torch.tensor(1.0),), (torch.tensor(1.0),))


def test_score_of_a_discrete_z():
    def mean(t):
        torch.manual_seed(0)
        return score_function(torch.square, Bernoulli(logits=t, validate_args=False), 50).mean()

    reverse = torch.func.jacrev(mean)(AT)
    torch.testing.assert_close(torch.func.jacfwd(mean, randomness="same")(AT), reverse)
