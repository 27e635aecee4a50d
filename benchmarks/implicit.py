"""Implicit gradients: their accuracy and their cost, compared with torch's own.

    python benchmarks/implicit.py [--quick] [--table | --peer]

With ``--table`` only the cost of [100, 20] draws with a gradient in every parameter, in milliseconds of one thread and
float64: the distribution is made, drawn from, and the sum of the draws differentiated. With ``--peer`` beside it that
of TensorFlow Probability on JAX (jitted), which is installed into an environment of its own below _build/.

Accuracy: the largest relative error of dz/dφ over draws, each with its own parameters, spread evenly on a log scale.
The exact gradient is compared with mpmath (the CDF differentiated with 80 digits and more) at 60 draws; torch's own,
which exists for the gamma and the beta, with the exact one at 3000.

Cost: one draw of ``implicit_rsample`` and the backward pass of its sum, in microseconds per number drawn; beside it
``q.rsample`` of torch, where there is one. Processor time of one thread, median of interleaved rounds.
"""

import argparse
import math
import os
import platform
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mpmath as mp
import torch
from torch import Tensor
from torch import distributions as td

from vaetut.distributions import Logistic
from vaetut.reparam import implicit_gradient, implicit_rsample


def lower_beta(a: Any, b: Any, odds: Any) -> Any:
    """The beta CDF at odds/(1 + odds), or −(1 − CDF) in the upper half: the same derivatives, no cancellation."""
    below = mp.betainc(a, b, 0, odds / (1 + odds), regularized=True)
    return below if below < 0.6 else -mp.betainc(b, a, 0, 1 / (1 + odds), regularized=True)


def lower_gamma(a: Any, x: Any) -> Any:
    """The same for the gamma CDF."""
    below = mp.gammainc(a, 0, x, regularized=True)
    return below if below < 0.6 else -mp.gammainc(a, x, regularized=True)


def student(df: Any, z: Any) -> Any:
    """The CDF of Student's t below 0, and −(1 − CDF) above."""
    return -mp.sign(z) * mp.betainc(df / 2, 0.5, 0, df / (df + z * z), regularized=True) / 2


# The class; its CDF at z; and ranges of its parameters, as powers of 10.
Range = tuple[float, float]
FAMILIES: list[tuple[type[td.Distribution], Callable[..., Any], list[tuple[Range, ...]]]] = [
    (
        td.Gamma,
        lambda z, a, r: lower_gamma(a, r * z),
        [((-3, 0), (-3, 3)), ((0, 2), (-3, 3)), ((2, 5), (-3, 3))],
    ),
    (
        td.Beta,
        lambda z, a, b: lower_beta(a, b, z / (1 - z)),
        [((-3, 0), (-3, 0)), ((0, 3), (0, 3)), ((-3, 3), (-3, 3))],
    ),
    (td.StudentT, lambda z, df: student(df, z), [((-1, 6),)]),
    (
        td.FisherSnedecor,
        lambda z, a, b: lower_beta(a / 2, b / 2, a * z / b),
        [((-1, 2), (-1, 2)), ((2, 3), (2, 3))],
    ),
    (td.InverseGamma, lambda z, a, r: -lower_gamma(a, r / z), [((-2, 3), (-2, 2))]),
    (td.Kumaraswamy, lambda z, a, b: -((1 - z**a) ** b), [((-2, 2), (-2, 2))]),
]


def derivatives(cdf: Callable[..., Any], z: float, params: list[float]) -> list[float]:
    """dz/dφ = −∂F/∂φ / ∂F/∂z, both by a difference of order 4 in many digits."""
    with mp.workdps(80 + int(abs(mp.log10(abs(z))))):
        at = [mp.mpf(value) for value in (z, *params)]

        def slope(index: int) -> Any:
            step = at[index] * mp.mpf(10) ** -22

            def f(k: int) -> Any:
                return cdf(*(value + k * step if i == index else value for i, value in enumerate(at)))

            return (8 * (f(1) - f(-1)) - (f(2) - f(-2))) / (12 * step)

        return [float(-slope(i) / slope(0)) for i in range(1, len(at))]


def spread(ranges: tuple[Range, ...], count: int) -> list[Tensor]:
    """Parameters, evenly on a log scale."""
    return [10 ** (low + (high - low) * torch.rand(count, dtype=torch.float64)) for low, high in ranges]


def worst(got: list[Tensor], exact: list[Tensor], where: Tensor) -> float:
    """The largest relative error of the gradients in all parameters."""
    return float(max(((g.double() - e) / e)[where].abs().max() for g, e in zip(got, exact, strict=True)))


def draw(
    make: type[td.Distribution], ranges: tuple[Range, ...], count: int
) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """Parameters, a draw for each of them that float64 has room for, and its exact gradients."""
    values = spread(ranges, 2 * count)
    z = make(*values).sample()
    kept = ((z.abs() > 1e-200) & (z.abs() < 1e200) & (z != 1)).nonzero().flatten()[:count]
    values, z = [value[kept].requires_grad_() for value in values], z[kept]
    exact = torch.autograd.grad(implicit_gradient(make(*values), z).sum(), values)
    return [value.detach() for value in values], z, list(exact)


def torchs(make: type[td.Distribution], z: Tensor, values: list[Tensor]) -> list[Tensor]:
    """torch's own derivatives, of the gamma in its shape and of the beta in both concentrations."""
    if make is td.Gamma:
        return [torch._standard_gamma_grad(values[0], z * values[1]) / values[1]]
    total = values[0] + values[1]
    below, above = torch._dirichlet_grad(z, values[0], total), torch._dirichlet_grad(1 - z, values[1], total)
    return [below * (1 - z), -above * z]


def accuracy(quick: bool) -> None:
    """Print the first table."""
    print(f"{'largest relative error of dz/dφ':<48}{'exact':>10}{'torch f64':>12}{'torch f32':>12}")
    for make, cdf, cases in FAMILIES:
        for ranges in cases:
            values, z, ours = draw(make, ranges, 10 if quick else 60)
            rows = zip(z.tolist(), *(value.tolist() for value in values), strict=True)
            exact = torch.tensor([derivatives(cdf, at, params) for at, *params in rows], dtype=torch.float64)
            row = f"{worst(ours, list(exact.T), z == z):>10.0e}"
            for dtype in (torch.float64, torch.float32) if make in (td.Gamma, td.Beta) else ():
                values, z, ours = draw(make, ranges, 3000)
                held = torch.ones_like(z, dtype=torch.bool)
                if dtype == torch.float32:  # where it can hold the draw, away from both ends of the support
                    held = (z > 1e-30) & ((z < 0.99) | (make is not td.Beta))
                native = torchs(make, z.to(dtype), [value.to(dtype) for value in values])
                row += f"{worst(native, ours[: len(native)], held):>12.0e}"
            shown = ", ".join(f"{10**low:g} … {10**high:g}" for low, high in ranges)
            print(f"{f'{make.__name__}({shown})':<48}{row}", flush=True)


def seconds(step: Callable[[], object]) -> float:
    """Processor time of one step."""
    start = time.process_time()
    step()
    return time.process_time() - start


def cost(rounds: int) -> None:
    """Print the second table."""
    ones = torch.ones(3, dtype=torch.float64)

    def mixture(loc: Tensor) -> td.Distribution:
        return td.MixtureSameFamily(
            td.Categorical(logits=ones.expand(*loc.shape, 3)), td.Normal(loc[..., None] * ones, 1.0)
        )

    made: list[tuple[str, Callable[..., td.Distribution], int]] = [
        ("Gamma", td.Gamma, 2),
        ("Beta", td.Beta, 2),
        ("StudentT", td.StudentT, 1),
        ("FisherSnedecor", td.FisherSnedecor, 2),
        ("VonMises", td.VonMises, 2),
        ("InverseGamma", td.InverseGamma, 2),
        ("mixture of 3 Gaussians", mixture, 1),
    ]
    print(f"\n{'us per number, draw and backward':<36}{'exact':>10}{'torch':>12}{'ratio':>12}")
    for name, make, count in made:
        for batch, samples in (((64, 20), 1), ((20,), 64), ((), 10_000)):
            values = [torch.rand(batch, dtype=torch.float64).add(0.5).requires_grad_() for _ in range(count)]
            q = make(*values)
            numbers = samples * q.batch_shape.numel()

            def ours(q: Any = q, values: Any = values, samples: int = samples) -> object:
                return torch.autograd.grad(implicit_rsample(q, (samples,)).sum(), values, retain_graph=True)

            def theirs(q: Any = q, values: Any = values, samples: int = samples) -> object:
                return torch.autograd.grad(q.rsample((samples,)).sum(), values, retain_graph=True)

            times = [
                (seconds(ours), seconds(theirs) if q.has_rsample else float("nan")) for _ in range(rounds)
            ]
            mine, other = (statistics.median(column) / numbers * 1e6 for column in zip(*times, strict=True))
            shown = f"{other:>12.2f}{mine / other:>12.0f}" if q.has_rsample else ""
            print(f"{f'{name} {[*batch]} x {samples}':<36}{mine:>10.1f}{shown}", flush=True)


class SkewNormal(td.Distribution):
    """A density with ``log_prob`` and ``sample`` alone."""

    arg_constraints = {}  # noqa: RUF012
    support = td.constraints.real

    def __init__(self, loc: Tensor, scale: Tensor, skewness: Tensor) -> None:
        self.loc, self.scale, self.skewness = loc, scale, skewness
        super().__init__(loc.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """log 2φ(y)Φ(αy) − log σ"""
        y = (value - self.loc) / self.scale
        tail = torch.special.log_ndtr(self.skewness * y)
        return math.log(2 / math.sqrt(2 * math.pi)) - y.square() / 2 + tail - self.scale.log()

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """From two normal variables."""
        one, other = torch.randn((2, *sample_shape, *self.batch_shape), dtype=self.loc.dtype)
        y = torch.where(other < self.skewness * one, one, -one)
        return self.loc + self.scale * y


def mixture_of(kind: type[td.Distribution]) -> Callable[..., td.Distribution]:
    """A mixture from logits, and two parameters of its components."""
    return lambda logits, a, b: td.MixtureSameFamily(td.Categorical(logits=logits), kind(a, b))


BATCH, COMPONENTS, SIDES = (100, 20), (100, 20, 5), (100, 20, 3)
# How each is made, from how many parameters of which shape.
TABLE: dict[str, tuple[Callable[..., td.Distribution], int, tuple[int, ...]]] = {
    "mixture of 5 normals": (mixture_of(td.Normal), 3, COMPONENTS),
    "mixture of 5 logistics": (mixture_of(Logistic), 3, COMPONENTS),
    "mixture of 5 Laplaces": (mixture_of(td.Laplace), 3, COMPONENTS),
    "mixture of 5 log-normals": (mixture_of(td.LogNormal), 3, COMPONENTS),
    "von Mises": (td.VonMises, 2, BATCH),
    "gamma": (td.Gamma, 2, BATCH),
    "chi-squared": (td.Chi2, 1, BATCH),
    "inverse gamma": (td.InverseGamma, 2, BATCH),
    "beta": (td.Beta, 2, BATCH),
    "Dirichlet, 3 coordinates": (td.Dirichlet, 1, SIDES),
    "F": (td.FisherSnedecor, 2, BATCH),
    "Student's t": (td.StudentT, 3, BATCH),
    "skew normal, by quadrature": (SkewNormal, 3, BATCH),
}

PEER = ("jax==0.4.38", "jaxlib==0.4.38", "tensorflow-probability==0.25.0")  # which work together
PEER_SCRIPT = """
import time, jax, jax.numpy as jnp
jax.config.update("jax_enable_x64", True)
from tensorflow_probability.substrates import jax as tfp
d = tfp.distributions
def mixture(kind):
    return lambda w, a, b: d.MixtureSameFamily(d.Categorical(logits=w), kind(a, b), reparameterize=True)
MADE = {"mixture of 5 normals": (mixture(d.Normal), 3, 5), "mixture of 5 logistics": (mixture(d.Logistic), 3, 5),
        "mixture of 5 Laplaces": (mixture(d.Laplace), 3, 5), "mixture of 5 log-normals": (mixture(d.LogNormal), 3, 5),
        "von Mises": (d.VonMises, 2, 0), "gamma": (d.Gamma, 2, 0), "chi-squared": (d.Chi2, 1, 0),
        "inverse gamma": (d.InverseGamma, 2, 0), "beta": (d.Beta, 2, 0),
        "Dirichlet, 3 coordinates": (d.Dirichlet, 1, 3), "Student's t": (d.StudentT, 3, 0)}
for name, (make, count, parts) in MADE.items():
    keys = jax.random.split(jax.random.PRNGKey(0), count)
    values = [0.5 + jax.random.uniform(k, (100, 20, parts) if parts else (100, 20)) for k in keys]
    # Coordinates of a Dirichlet add up to 1, so each has a weight of its own.
    step = jax.jit(jax.grad(lambda v, k: (make(*v).sample(seed=k) * jnp.arange(1.0, 4.0 if parts == 3 else 2.0)).sum()))
    jax.block_until_ready(step(values, keys[0]))
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        jax.block_until_ready(step(values, keys[0]))
        times.append(time.perf_counter() - start)
    print(f"{name}|{1e3 * min(times)}", flush=True)
"""


def peer_times(rounds: int) -> dict[str, float]:
    """Milliseconds of TensorFlow Probability."""
    home = Path(__file__).resolve().parents[1] / "_build" / "benchmarks" / "tfp"
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (home / "installed").exists():
        print(f"installing {' '.join(PEER)}", file=sys.stderr, flush=True)
        venv.create(home, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PEER]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"TensorFlow Probability cannot be installed:\n{done.stderr}")
        (home / "installed").touch()
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"XLA_FLAGS": flags}
    run = subprocess.run(
        [str(python), "-c", f"ROUNDS = {rounds}\n{PEER_SCRIPT}"],
        env=environment, check=True, text=True, capture_output=True,
    )  # fmt: skip
    rows = (line.split("|") for line in run.stdout.splitlines() if "|" in line)
    return {name: float(value) for name, value in rows}


def table(rounds: int, peer: bool) -> None:
    """Print the third table: the least of several times, since the machine may be shared."""
    theirs = peer_times(rounds) if peer else {}
    print(f"{'ms, [100, 20] draws and gradients':<36}{'exact':>10}{'TFP' if peer else '':>10}")
    for name, (make, count, shape) in TABLE.items():
        values = [torch.rand(shape, dtype=torch.float64).add(0.5).requires_grad_() for _ in range(count)]
        # Coordinates of a Dirichlet add up to 1, so each has a weight of its own.
        weights = torch.arange(1.0, 4.0 if shape == SIDES else 2.0, dtype=torch.float64)

        def step(make: Any = make, values: Any = values, weights: Tensor = weights) -> object:
            return torch.autograd.grad((implicit_rsample(make(*values)) * weights).sum(), values)

        step()
        ours = min(seconds(step) for _ in range(rounds)) * 1e3
        beside = f"{theirs[name]:>10.2f}" if name in theirs else f"{'–' if peer else '':>10}"
        print(f"{name:<36}{ours:>10.2f}{beside}", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer parameters and rounds")
    parser.add_argument("--table", action="store_true", help="only the cost of [100, 20] draws")
    parser.add_argument("--peer", action="store_true", help="the same, beside TensorFlow Probability")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, {platform.machine()}\n")
    if options.table or options.peer:
        table(10 if options.quick else 50, options.peer)
        return
    accuracy(options.quick)
    cost(3 if options.quick else 9)


if __name__ == "__main__":
    main()
