"""What needs a GPU: training, resuming, the captured step, and every row of the catalogue against the CPU's values.

``tools/gpu_check.sh`` runs these. The environment variable VAETUT_GPU_DEVICE names another device than ``cuda``; with
``cpu`` they show that they work at all.
"""

import os

import pytest
import torch

from vaetut.aevb import train
from vaetut.bounds import sgvb_b
from vaetut.data import load
from vaetut.models import VAE
from vaetut.reparam import catalogue, reparameterize
from vaetut.reparam.implicit import implicit_gradient

DEVICE = os.environ.get("VAETUT_GPU_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no CUDA device"),
]


def small(likelihood="bernoulli"):
    torch.manual_seed(0)
    return VAE(64, 3, 20, likelihood)


def parameters(model):
    return torch.cat([p.detach().flatten().cpu() for p in model.parameters()])


def run(model, epochs=3, **options):
    options = {"batch_size": 200, "learning_rate": 0.005, "device": DEVICE, **options}
    return train(model, load("digits"), epochs=epochs, **options)


def states():
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if DEVICE == "cuda" else [])]


@pytest.mark.parametrize("compile", [False, True])
def test_train(compile):
    """The bound is the CPU's within the noise of other draws; nothing of the process is changed."""
    if compile and DEVICE == "cpu":
        pytest.skip("tests/aevb compiles on the CPU")
    model, before = small(), states()
    history = run(model, 10, compile=compile)
    assert next(model.parameters()).device.type == "cpu"
    assert all(torch.equal(a, b) for a, b in zip(states(), before, strict=True))
    expected = run(small(), 10, device="cpu").validation[-1]
    assert abs(history.validation[-1] - expected) < 0.6
    assert history.validation[-1] > history.validation[0] + 3


@pytest.mark.parametrize("options", [{}, {"optimizer": "sgd"}, {"scheduler": True}])
def test_a_captured_step_is_the_eager_one(options):
    """The same random numbers: the curves agree, but for rounding. The last minibatch has a graph of its own."""
    if DEVICE == "cpu":
        pytest.skip("there are no graphs to capture")
    if "scheduler" in options:
        options = {"scheduler": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5)}
    eager, captured = small("gaussian"), small("gaussian")
    kwargs = {"binarize": "threshold", **options}
    one, other = run(eager, **kwargs), run(captured, compile=True, **kwargs)
    assert one.train == pytest.approx(other.train, rel=1e-2)
    assert torch.allclose(parameters(eager), parameters(captured), atol=1e-2)


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("optimizer", ["adam", "adagrad"])
def test_resume_is_bit_exact(tmp_path, compile, optimizer):
    if compile and DEVICE == "cpu":
        pytest.skip("tests/aevb compiles on the CPU")
    expected = small()
    options = {"compile": compile, "optimizer": optimizer, "checkpoint": tmp_path / "run.pt", "resume": True}
    history = run(expected, 4, compile=compile, optimizer=optimizer)
    run(small(), 1, **options)
    run(small(), 3, **options)
    model = small()
    assert run(model, 4, **options) == history
    assert torch.equal(parameters(model), parameters(expected))


def test_a_checkpoint_moves_to_another_device(tmp_path):
    options = {"checkpoint": tmp_path / "run.pt", "resume": True}
    for epochs, device in ((1, "cpu"), (2, DEVICE), (3, "cpu")):
        history = run(small(), epochs, device=device, **options)
    assert len(history.train) == 3


WHOLE = ("concentration", "df")  # as composition adds them up
MATRIX = {"loc": [0.3, -0.2], "scale_tril": [[1.2, 0.0], [0.3, 0.8]]}
SPECIAL = {
    "Dirichlet": {"concentration": [0.7, 1.5, 3.0]},
    "Elliptical": MATRIX,
    "MultivariateNormal": MATRIX,
    "MultivariateStudentT": {"df": 4.0, **MATRIX},
    "LowRankMultivariateNormal": {"loc": [0.3, -0.2], "cov_factor": [[1.0], [0.5]], "cov_diag": [0.4, 0.7]},
    "Reciprocal": {"low": 0.5, "high": 2.0},
    "Uniform": {"low": -0.5, "high": 2.0},
    "Triangular": {"low": -1.0, "high": 2.0, "peak": 0.4},
}


def made_on(device, kind, trained):
    """An example of a family on a device, in float64, and its parameters, of which some are to be trained."""
    values = SPECIAL.get(kind.__name__) or {
        name: 3.0 if name in WHOLE else 1.3 + 0.4 * i for i, name in enumerate(kind.arg_constraints)
    }
    leaves = {
        name: torch.tensor(value, dtype=torch.float64, device=device, requires_grad=name in trained)
        for name, value in values.items()
    }
    more = {}
    if kind.__name__ == "Elliptical":
        two = torch.tensor(2.0, dtype=torch.float64, device=device)
        more = {"radial": torch.distributions.Gamma(two, two)}
    return kind(**leaves, **more), leaves


@pytest.mark.parametrize("row", catalogue(), ids=lambda row: f"{row.distribution.__name__}-{row.family}")
def test_draws_and_gradients_are_the_cpu_s(row):
    """One noise on both devices, or one z where there is no map: z and its gradient in every parameter agree."""
    found, noise = [], None
    for device in ("cpu", DEVICE):
        try:
            q, leaves = made_on(device, row.distribution, row.differentiable)
        except (TypeError, ValueError) as error:
            pytest.skip(f"no example of {row.distribution.__name__}: {error}")
        torch.manual_seed(0)
        if row.family == "implicit":
            noise = q.sample((7,)) if noise is None else noise
            z = implicit_gradient(q, noise.to(device))
        else:
            made = reparameterize(q, via=row.family)
            noise = made.noise.sample((7,)) if noise is None else noise
            z = made.g(noise.to(device))
        assert reparameterize(q, via=row.family).rsample((3,)).device == z.device
        tensors = [leaf for leaf in leaves.values() if leaf.requires_grad]
        gradients = torch.autograd.grad(z.cos().sum(), tensors) if tensors else ()
        found.append([z, *gradients])
    for one, other in zip(*found, strict=True):
        assert other.device.type == torch.device(DEVICE).type
        assert torch.allclose(one, other.cpu(), rtol=1e-7, atol=1e-9)


def test_bounds():
    model, x = small(), load("digits").test
    values = []
    for device in ("cpu", DEVICE):
        model.to(device)
        torch.manual_seed(0)
        values.append(sgvb_b(model, model.encode(x.to(device)), x.to(device), 500).mean().item())
    assert values[0] == pytest.approx(values[1], abs=0.05)
