"""``class X(Base, TorchDistributionMixin)`` is all that Pyro needs. A test dependency: vaetut never imports it."""

import pytest
import torch

from vaetut.distributions import (
    Elliptical,
    Erlang,
    Gompertz,
    Logistic,
    MultivariateStudentT,
    Rayleigh,
    Reciprocal,
    Triangular,
    Truncated,
)


@pytest.fixture(scope="module", autouse=True)
def pyro():
    """Imported only when these tests run: it patches parts of torch."""
    return pytest.importorskip("pyro", reason="Pyro is not installed", exc_type=ImportError)


MAKERS = {
    Logistic: lambda kind, batch: kind(torch.zeros(batch), 1.0),
    Rayleigh: lambda kind, batch: kind(torch.ones(batch)),
    Reciprocal: lambda kind, batch: kind(torch.ones(batch), 2.0),
    Gompertz: lambda kind, batch: kind(torch.ones(batch), 2.0),
    Erlang: lambda kind, batch: kind(2, torch.ones(batch)),
    Triangular: lambda kind, batch: kind(torch.zeros(batch), 1.0, 0.3),
    Truncated: lambda kind, batch: kind(torch.distributions.Normal(torch.zeros(batch), 1.0), -1.0, 2.0),
    MultivariateStudentT: lambda kind, batch: kind(3.0, torch.zeros(*batch, 2), torch.eye(2)),
    Elliptical: lambda kind, batch: kind(Rayleigh(1.0), torch.zeros(*batch, 2), torch.eye(2)),
}
every_kind = pytest.mark.parametrize("kind", MAKERS, ids=lambda kind: kind.__name__)


def in_pyro(kind):
    from pyro.distributions.torch_distribution import TorchDistributionMixin

    return type(f"Pyro{kind.__name__}", (kind, TorchDistributionMixin), {})


@every_kind
def test_sample_and_plate(kind, pyro):
    """In a plate (which expands), with an event dimension, masked, and conditioned."""
    plain = MAKERS[kind](kind, ())
    wrapped = in_pyro(kind)

    def model():
        with pyro.plate("data", 5):
            z = pyro.sample("z", MAKERS[kind](wrapped, ()))
        pyro.sample("w", MAKERS[kind](wrapped, (3,)).to_event(1))
        return z

    trace = pyro.poutine.trace(model).get_trace()
    z = trace.nodes["z"]["value"]
    assert z.shape == (5, *plain.event_shape)
    assert trace.nodes["w"]["value"].shape == (3, *plain.event_shape)
    w = trace.nodes["w"]["value"]
    expected = plain.log_prob(z).sum() + plain.log_prob(w).sum()
    torch.testing.assert_close(trace.log_prob_sum(), expected)
    q = MAKERS[kind](wrapped, (2,))
    assert isinstance(q, kind)
    assert q.expand_by((4,)).batch_shape == (4, 2)
    assert type(q.expand((4, 2))) is wrapped
    assert q.has_rsample
    assert q().shape == (2, *plain.event_shape)
    masked = q.mask(torch.tensor([True, False])).log_prob(q())
    assert masked[1] == 0


@every_kind
def test_shapes_are_inferred(kind):
    if kind is Truncated:
        return  # its base is a distribution, not a tensor
    if kind in (MultivariateStudentT, Elliptical):
        with pytest.raises(NotImplementedError):
            in_pyro(kind).infer_shapes()
        return
    shapes = {name: (3, 1) if i == 0 else (4,) for i, name in enumerate(kind.arg_constraints)}
    batch, event = in_pyro(kind).infer_shapes(**shapes)
    assert event == ()
    assert batch == ((3, 4) if len(shapes) > 1 else (3, 1))


def test_stochastic_variational_inference(pyro):
    """The posterior mean of a Gaussian with a Gaussian prior, by a logistic guide."""
    from pyro.infer import SVI, Trace_ELBO

    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    wrapped = in_pyro(Logistic)
    normal = pyro.distributions.Normal

    def model(x):
        z = pyro.sample("z", normal(torch.tensor(0.0), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", normal(z, 1.0), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        scale = pyro.param("scale", torch.tensor(0.3), constraint=torch.distributions.constraints.positive)
        pyro.sample("z", wrapped(loc, scale))

    x = torch.full((9,), 2.0)
    svi = SVI(
        model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO(num_particles=4, vectorize_particles=True)
    )
    for _ in range(150):
        svi.step(x)
    assert abs(pyro.param("loc").item() - 1.8) < 0.1  # the exact posterior mean is 18/10
