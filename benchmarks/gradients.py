"""Gradient estimators: the time of a step relative to pathwise, and of measuring one relative to a plain loop.

    python benchmarks/gradients.py [--rounds 15] [--dtype float64]

The first table is the peak memory of `vaetut.gradients.gradient_statistics` against the number of draws.

The second is the time of one gradient, draws, f, surrogate and backward pass, for a Gaussian encoder with a batch
of 100 and L draws, relative to `vaetut.gradients.pathwise` at the same L; in brackets our time in microseconds. Rounds
of the two alternate in one process, so that both meet the same state of the machine, and what is shown is the median of
the ratios, round by round. f is a sum of cosines, or a decoder of two layers. The measure-valued estimator evaluates f
1 + 3D times, with D the latent dimension.

The third is `gradient_statistics` beside the same moments from a loop over the draws, with a backward pass for each:
microseconds for a draw, and the ratio loop / ours. Processor time of one thread.
"""

import argparse
import math
import platform
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from vaetut.gradients import gradient_statistics, measure_valued, pathwise, score_function

BATCH, HIDDEN, DATA = 100, 200, 64
Estimator = Callable[..., Tensor]
ESTIMATORS: dict[str, tuple[Estimator, dict[str, object]]] = {
    "pathwise": (pathwise, {}),
    "score function": (score_function, {}),
    "  leave one out": (score_function, {"baseline": "leave_one_out"}),
    "  optimal": (score_function, {"baseline": "optimal"}),
    "measure-valued": (measure_valued, {}),
    "  uncoupled": (measure_valued, {"coupled": False}),
}


def cosine(latent: int, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """A cheap f: what is left is the cost of the estimator itself."""
    return lambda z: z.cos().sum(-1)


def decoder(latent: int, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """An f as in a variational auto-encoder: two layers, and a squared error."""
    net = torch.nn.Sequential(
        torch.nn.Linear(latent, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, DATA)
    ).to(dtype)
    net.requires_grad_(False)
    return lambda z: -net(z).square().sum(-1)


def step(
    name: str, f: Callable[[Tensor], Tensor], latent: int, draws: int, dtype: torch.dtype
) -> Callable[[], object]:
    """One gradient in the means and the scales of the encoder."""
    estimator, options = ESTIMATORS[name]
    loc = torch.zeros(BATCH, latent, dtype=dtype, requires_grad=True)
    scale = torch.ones(BATCH, latent, dtype=dtype, requires_grad=True)

    def run() -> object:
        q = Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)
        return torch.autograd.grad(estimator(f, q, draws, **options).mean(0).sum(), (loc, scale))

    return run


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Mean processor time of a run: what else runs on the machine does not count."""
    start = time.process_time()
    for _ in range(repeats):
        run()
    return (time.process_time() - start) / repeats


def compare(ours: Callable[[], object], base: Callable[[], object], rounds: int) -> str:
    """Median of the paired ratios, and of our time in microseconds."""
    longest = max(seconds(run, 2) for run in (ours, base, ours, base))
    repeats = max(1, math.ceil(5e-3 / longest))
    times, ratios = [], []
    for k in range(rounds):
        first, second = (ours, base) if k % 2 else (base, ours)
        one, two = seconds(first, repeats), seconds(second, repeats)
        mine, other = (one, two) if k % 2 else (two, one)
        times.append(mine)
        ratios.append(mine / other)
    return f"{statistics.median(ratios):.2f} ({statistics.median(times) * 1e6:.0f})"


def loop(estimator: Estimator, params: dict[str, Tensor], draws: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and variance of the gradient, one draw and one backward pass at a time."""
    leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
    rows: dict[str, list[Tensor]] = {name: [] for name in params}
    for _ in range(draws):
        surrogate = estimator(torch.cos, Normal(**leaves, validate_args=False), 1)
        for name, gradient in zip(leaves, torch.autograd.grad(surrogate.sum(), leaves.values()), strict=True):
            rows[name].append(gradient)
    return {name: (torch.stack(row).mean(0), torch.stack(row).var(0)) for name, row in rows.items()}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    dtype = getattr(torch, options.dtype)
    print(f"torch {torch.__version__}, one thread, {platform.machine()}, {options.dtype}\n")

    params = {"loc": torch.tensor(0.5, dtype=dtype), "scale": torch.tensor(1.0, dtype=dtype)}
    print("peak memory of the process in MB, after the moments of so many draws")
    for draws in (10_000, 1_000_000, 10_000_000):
        gradient_statistics(pathwise, torch.cos, Normal, params, draws)
        print(f"{draws:>12,}{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:10.0f}")

    sizes = [(2, 10), (20, 10), (20, 100)]
    columns = [f"{f.__name__}, D={latent}, L={draws}" for f in (cosine, decoder) for latent, draws in sizes]
    print(
        "\ngradient relative to pathwise (us)\n" + " " * 16 + "".join(f"{column:>24}" for column in columns)
    )
    for name in ESTIMATORS:
        cells = []
        for make in (cosine, decoder):
            for latent, draws in sizes:
                if ESTIMATORS[name][0] is measure_valued and latent * draws > 200:  # 6100 evaluations of f
                    cells.append("")
                    continue
                f = make(latent, dtype)
                runs = (step(which, f, latent, draws, dtype) for which in (name, "pathwise"))
                cells.append(compare(*runs, options.rounds))
        print(f"{name:<16}" + "".join(f"{cell:>24}" for cell in cells), flush=True)

    few, many = 2000, 1_000_000
    print("\nmoments: us for a draw, ours and a loop's, and the ratio")
    for name in ("pathwise", "score function", "measure-valued"):
        estimator, _ = ESTIMATORS[name]

        def ours(estimator: Estimator = estimator) -> object:
            return gradient_statistics(estimator, torch.cos, Normal, params, many)

        def theirs(estimator: Estimator = estimator) -> object:
            return loop(estimator, params, few)

        mine, other = seconds(ours, 3) / many, seconds(theirs, 3) / few
        print(f"{name:<16}{mine * 1e6:10.3f}{other * 1e6:10.1f}{other / mine:10.0f}", flush=True)


if __name__ == "__main__":
    main()
