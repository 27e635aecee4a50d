"""Sampling with gradients: `vaetut.reparameterize` beside torch's own ``rsample``, for the same distribution.

    python benchmarks/reparam.py [--rounds 31] [--dtype float64] [--only Cauchy Gumbel]

Rounds of the two alternate in one process, so that both run under the same conditions. The table shows the
median of the ratios, round by round, ours / torch's: below 1 is faster than torch; in brackets our time in
microseconds. "sample" is one draw with the graph of its gradient, `reparameterize` included; "and backward" adds the
backward pass of the sum. Processor time of one thread.
"""

import argparse
import math
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch import distributions as td

from vaetut import distributions as vd
from vaetut.reparam import reparameterize

Make = Callable[..., td.Distribution]
Draw = Callable[[tuple[int, ...], torch.dtype], Tensor]

SIZES = {"[64, 20]": (64, 20), "1e6": (50_000, 20)}  # of the draw; the last axis is the event of a vector


def between(low: float, high: float) -> Draw:
    """Draw parameters between two numbers."""
    return lambda shape, dtype: low + (high - low) * torch.rand(shape, dtype=dtype)


def torch_logistic(loc: Tensor, scale: Tensor) -> td.Distribution:
    """What torch's documentation gives for the logistic distribution."""
    base = td.Uniform(torch.zeros_like(loc), torch.ones_like(loc), validate_args=False)
    return td.TransformedDistribution(base, [td.SigmoidTransform().inv, td.AffineTransform(loc, scale)])


def gaussian(loc: Tensor, scale_tril: Tensor) -> td.Distribution:
    """A full Gaussian for each row, with one covariance matrix."""
    return td.MultivariateNormal(loc, scale_tril=scale_tril)


def triangle(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Draw a Cholesky factor."""
    size = shape[-1]
    return torch.eye(size, dtype=dtype) + 0.1 * torch.randn(size, size, dtype=dtype).tril(-1)


REAL, POSITIVE = between(-1, 1), between(0.5, 2)
# The class, what torch has for it, and how its parameters are drawn.
CASES: list[tuple[Make, Make, list[Draw]]] = [
    (td.Normal, td.Normal, [REAL, POSITIVE]),
    (td.LogNormal, td.LogNormal, [REAL, POSITIVE]),
    (td.HalfNormal, td.HalfNormal, [POSITIVE]),
    (td.Uniform, td.Uniform, [between(-2, -1), between(1, 2)]),
    (td.Exponential, td.Exponential, [POSITIVE]),
    (td.Laplace, td.Laplace, [REAL, POSITIVE]),
    (td.Cauchy, td.Cauchy, [REAL, POSITIVE]),
    (td.HalfCauchy, td.HalfCauchy, [POSITIVE]),
    (vd.Logistic, torch_logistic, [REAL, POSITIVE]),
    (td.Gumbel, td.Gumbel, [REAL, POSITIVE]),
    (td.Weibull, td.Weibull, [POSITIVE, POSITIVE]),
    (td.Pareto, td.Pareto, [POSITIVE, POSITIVE]),
    (td.Kumaraswamy, td.Kumaraswamy, [POSITIVE, POSITIVE]),
    (td.Gamma, td.Gamma, [POSITIVE, POSITIVE]),
    (td.Chi2, td.Chi2, [POSITIVE]),
    (td.Beta, td.Beta, [POSITIVE, POSITIVE]),
    (td.StudentT, td.StudentT, [POSITIVE]),
    (td.FisherSnedecor, td.FisherSnedecor, [POSITIVE, POSITIVE]),
    (gaussian, gaussian, [REAL, triangle]),
    (td.Dirichlet, td.Dirichlet, [POSITIVE]),
]


def draw_once(q: td.Distribution, values: list[Tensor], ours: bool) -> Callable[[], object]:
    """Draw from an existing distribution."""
    return (lambda: reparameterize(q).rsample()) if ours else (lambda: q.rsample())


def differentiate_once(q: td.Distribution, values: list[Tensor], ours: bool) -> Callable[[], object]:
    """Draw, and differentiate the sum of the draws in the parameters."""

    def step() -> object:
        z = reparameterize(q).rsample() if ours else q.rsample()
        # Some of torch's classes compute with their parameters when they are made: that part serves every round.
        return torch.autograd.grad(z.sum(), values, retain_graph=True)

    return step


def seconds(step: Callable[[], object], repeats: int) -> float:
    """Mean processor time of a step: what else runs on the machine does not count."""
    start = time.process_time()
    for _ in range(repeats):
        step()
    return (time.process_time() - start) / repeats


def compare(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> str:
    """Median of the paired ratios, and of our time in microseconds."""
    longest = max(seconds(step, 3) for step in (ours, theirs, ours, theirs))
    repeats = max(1, math.ceil(2e-3 / longest))
    times, ratios = [], []
    for k in range(rounds):
        first, second = (ours, theirs) if k % 2 else (theirs, ours)
        one, two = seconds(first, repeats), seconds(second, repeats)
        mine, other = (one, two) if k % 2 else (two, one)
        times.append(mine)
        ratios.append(mine / other)
    return f"{statistics.median(ratios):.2f} ({statistics.median(times) * 1e6:.0f})"


def main() -> None:
    """Print the table."""
    names = [make.__name__ for make, _, _ in CASES]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=31, help="pairs of rounds at [64, 20]; a third of it at 1e6"
    )
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--only", nargs="*", default=names, choices=names, metavar="NAME")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    dtype = getattr(torch, options.dtype)
    print(
        f"torch {torch.__version__}, one thread, {platform.machine()}, {options.dtype}; ours / torch's (us)\n"
    )
    columns = [f"{size} {what}" for size in SIZES for what in ("sample", "and backward")]
    print(f"{'':<16}{'map':<16}" + "".join(f"{column:>23}" for column in columns))
    for make, counterpart, draws in CASES:
        if make.__name__ not in options.only:
            continue
        cells = []
        for shape in SIZES.values():
            rounds = options.rounds if shape[0] < 1000 else max(5, options.rounds // 3)
            values = [draw(shape, dtype).requires_grad_() for draw in draws]
            q, other = make(*values), counterpart(*values)
            for step in (draw_once, differentiate_once):
                cells.append(compare(step(q, values, True), step(other, values, False), rounds))
        print(
            f"{make.__name__:<16}{reparameterize(q).family:<16}" + "".join(f"{cell:>23}" for cell in cells),
            flush=True,
        )


if __name__ == "__main__":
    main()
