"""Training on two processes of the CPU, connected by gloo: the same model in both, and that of one process."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from vaetut.aevb import train
from vaetut.aevb.checkpoint import read
from vaetut.bounds import sgvb_b
from vaetut.models import VAE

# found and not imported: it takes a second, also where all of these tests are deselected
pytestmark = pytest.mark.skipif(find_spec("lightning_fabric") is None, reason="Fabric is not installed")

SETTINGS = {
    # (datapoints, arguments of train): the last minibatch has 21 datapoints, then 1, so that one process has none
    "exact": (121, {"epochs": 3, "batch_size": 50, "learning_rate": 0.01, "binarize": "none"}),
    "one left": (101, {"epochs": 2, "batch_size": 50, "learning_rate": 0.01, "binarize": "none"}),
    "noise": (300, {"epochs": 10, "batch_size": 50, "learning_rate": 0.01, "binarize": "none"}),
    "bf16": (300, {"epochs": 10, "batch_size": 50, "learning_rate": 0.01, "binarize": "none"}),
}


def gray(n, dim=6):
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(1)) ** 3


def small():
    torch.manual_seed(0)
    return VAE(6, 2, 8)


def without_noise(model, q, x, num_samples):
    """No random numbers: what is left must be the same however many processes there are."""
    return model.likelihood(q.mean).log_prob(x) - 0.5 * (q.mean**2 + q.variance - 1 - q.variance.log()).sum(
        -1
    )


FIRST = {}


def noisy(model, q, x, num_samples):
    """The bound. The first noise that it was given is kept where no checkpoint looks for state."""
    if torch.is_grad_enabled() and not FIRST:
        FIRST["noise"] = torch.get_rng_state()
    return sgvb_b(model, q, x, num_samples)


def run(case, fabric=None, seed=0, **options):
    """One run of a case, here or in a process that `SCRIPT` starts: its parameters and its history."""
    number, settings = SETTINGS[case]
    model, bound = small(), noisy if case in ("noise", "bf16") else without_noise
    FIRST.clear()
    history = train(
        model,
        gray(number),
        **{**settings, **options},
        bound=bound,
        seed=seed,
        validation=gray(31),
        fabric=fabric,
    )
    parameters = torch.cat([p.detach().flatten() for p in model.parameters()])
    return parameters, history.to_dict(), FIRST.get("noise")


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import torch
from lightning_fabric import Fabric
import test_fabric
torch.set_num_threads(1)
fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp", precision={precision!r})
fabric.launch()
results = {{}}
for case, options in {jobs!r}:
    try:
        results[case] = test_fabric.run(case, fabric, **options)
    except Exception as error:
        results[case] = repr(error)
torch.save(results, f"{folder}/{{fabric.global_rank}}.result")
"""


def together(folder, jobs, precision="32-true"):
    """The results of each of two processes."""
    script = folder / "script.py"
    text = SCRIPT.format(tests=os.path.dirname(__file__), folder=folder, jobs=jobs, precision=precision)
    script.write_text(text)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,  # a deadlock, not a loaded machine
    )
    assert done.returncode == 0, done.stderr
    assert "epoch" not in done.stdout + done.stderr  # no progress bar, from neither
    return [torch.load(folder / f"{rank}.result") for rank in (0, 1)]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    jobs = [(case, {}) for case in ("exact", "one left", "noise")]
    return together(tmp_path_factory.mktemp("scale"), jobs)


@pytest.mark.parametrize("case", ["exact", "one left", "noise"])
def test_replicas_are_equal(results, case):
    (one, history, noise), (other, same, other_noise) = (result[case] for result in results)
    assert torch.equal(one, other) and history == same
    if case == "noise":
        assert not torch.equal(noise, other_noise)


@pytest.mark.parametrize("case", ["exact", "one left"])
def test_without_noise_it_is_one_process(results, case):
    parameters, history, _ = run(case)
    two, its, _ = results[0][case]
    assert torch.allclose(parameters, two, atol=1e-5) and not torch.allclose(
        parameters, two * 1.001, atol=1e-5
    )
    for name, curve in history.items():
        assert its[name] == pytest.approx(curve, rel=1e-5)
    # the mean of the two processes' means would be wrong by far more
    wrong, _, _ = run(case, batch_size=49)
    assert not torch.allclose(wrong, two, atol=1e-4)


@pytest.fixture(scope="module")
def single():
    """The last validation bound of one process, for eight seeds: mean and standard deviation."""
    values = torch.tensor([run("noise", seed=seed)[1]["validation"][-1] for seed in range(8)])
    return values.mean().item(), values.std().item()


def test_with_noise_it_is_one_process(results, single):
    mean, deviation = single
    value = results[0]["noise"][1]["validation"][-1]
    assert abs(value - mean) < 5 * deviation
    first = run("noise", epochs=1)[1]["validation"][-1]
    assert abs(first - mean) > 5 * deviation  # an untrained model would be seen


def test_bf16(tmp_path, single):
    (one, history, _), (other, _, _) = (r["bf16"] for r in together(tmp_path, [("bf16", {})], "bf16-mixed"))
    assert torch.equal(one, other) and one.dtype == torch.float32
    mean, deviation = single
    assert abs(history["validation"][-1] - mean) < 5 * deviation + 0.01
    assert not torch.equal(one, run("bf16")[0])


def test_resume(tmp_path, results):
    path = str(tmp_path / "run.pt")
    jobs = [("noise", {"epochs": 4, "checkpoint": path}), ("noise", {"checkpoint": path, "resume": True})]
    for job in jobs:
        again = together(tmp_path, [job])
    for one, other in zip(results, again, strict=True):
        assert torch.equal(one["noise"][0], other["noise"][0]) and one["noise"][1] == other["noise"][1]
    assert len(read(path)["random_states"]) == 2
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".part")]
    with pytest.raises(ValueError, match=r"processes was 2 of Fabric, 32-true, is now one process"):
        run("noise", checkpoint=path, resume=True)


def test_one_process_of_fabric_is_one_without():
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1)
    (one, history, _), (other, same, _) = run("noise", fabric, epochs=2), run("noise", epochs=2)
    assert torch.equal(one, other) and history == same


@pytest.mark.parametrize(
    "options, change, error, message",
    [
        (None, {}, TypeError, r"fabric must be a lightning_fabric\.Fabric, got str"),
        ({}, {"device": "cpu"}, ValueError, "device must be 'auto' with fabric"),
        ({}, {"compile": True}, ValueError, "compile must be False with fabric"),
        ({"precision": "bf16-true"}, {}, ValueError, r"precision 32-true or bf16-mixed .*got bf16-true"),
        ({"strategy": "fsdp", "devices": 2}, {}, ValueError, "strategy 'ddp' or 'auto'.*FSDP"),
    ],
)
def test_bad_arguments(options, change, error, message):
    from lightning_fabric import Fabric

    if options is None:
        fabric = "ddp"
    else:
        try:
            fabric = Fabric(**{"accelerator": "cpu", "devices": 1, **options})
        except ValueError as reason:
            pytest.skip(f"this version of Fabric has no such setting on the CPU: {reason}")
    with pytest.raises(error, match=message):
        train(small(), gray(50), epochs=1, fabric=fabric, **change)
