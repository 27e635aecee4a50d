"""Memory that does not grow with the size of the input, as the docstrings promise: the peak of a process of its own."""

import subprocess
import sys

import pytest
import torch

pytest.importorskip("resource", reason="the peak is read from the operating system")

# Linux counts in a process's ru_maxrss what its parent held when it started it, here all of the tests before;
# VmHWM begins anew with the program.
PROGRAM = """
import resource, torch, vaetut
from pathlib import Path
from torch.distributions import Independent, MultivariateNormal, Normal
from vaetut.distributions import Gompertz
from vaetut.quadrature import expectation

def peak():
    if Path("/proc/self/status").exists():
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2 ** (20 if {darwin} else 10)

torch.set_num_threads(1)
before = peak()
{body}
print(peak() - before)
"""
# Megabytes above those of the imports. Each would need more than a gigabyte in one piece.
CASES = {
    "mean of Gompertz variables": ("Gompertz(torch.rand(10**6) + 0.1, 1.0).mean", 150),
    "variance of Gompertz variables and its gradient": (
        "c = (torch.rand(200_000) + 0.1).requires_grad_(); Gompertz(c, 1.0).variance.sum().backward()",
        350,
    ),
    "entropy of Gompertz variables and its gradient": (
        "c = (torch.rand(200_000) + 0.1).requires_grad_(); Gompertz(c, 1.0).entropy().sum().backward()",
        350,
    ),
    "measure-valued gradient of an image": (
        "m, s = torch.zeros(784, requires_grad=True), torch.ones(784, requires_grad=True)\n"
        "f = lambda z: z.square().sum(-1)\n"
        "vaetut.measure_valued(f, Independent(Normal(m, s), 1), 100).mean().backward()",
        350,
    ),
    "expectation over a batch": (
        "q = Independent(Normal(torch.zeros(1000, 4), torch.ones(1000, 4)), 1)\n"
        "expectation(lambda z: z.square().sum(-1), q, num_points=12)",
        450,
    ),
    "expectation in three dimensions": (
        "q = MultivariateNormal(torch.zeros(100, 3), torch.eye(3))\n"
        "expectation(lambda z: z.square().sum(-1), q, num_points=60)",
        450,
    ),
    "mean of truncated variables": (
        "m = torch.zeros(20_000); vaetut.Truncated(Normal(m, 1.0), m + 1, m + 3).mean",
        350,
    ),
    "integral of many points": (
        "vaetut.quadrature.integrate(lambda t: torch.exp(-t * t), -8, 8, num_points=2 * 10**7)",
        100,
    ),
}


def peak(body):
    """The megabytes that a program takes beyond its imports."""
    program = PROGRAM.format(body=body, darwin=sys.platform == "darwin")
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return float(result.stdout)


@pytest.mark.parametrize("name", CASES)
def test_peak(name):
    body, megabytes = CASES[name]
    assert peak(body) < megabytes


def test_a_peak_is_seen_from_a_large_process():
    held = torch.ones(10**8)  # 400 MB, while another process is started
    assert 250 < peak("torch.ones(8 * 10**7)") < 400
    assert held.all()
