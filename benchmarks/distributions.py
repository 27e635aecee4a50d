"""The time of vaetut's distributions, compared with the same distribution from torch.

    python benchmarks/distributions.py [rounds]

Both run in one process, in interleaved rounds; the ratio is the median over the rounds of (vaetut's time / torch's
time), so that both run under the same conditions. Below 1 vaetut is faster. Where torch has no such class, its
side is the chain of transforms, or the special case of another class, that a user would write.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    Beta,
    Distribution,
    Exponential,
    ExpTransform,
    Gamma,
    MultivariateNormal,
    SigmoidTransform,
    StudentT,
    TransformedDistribution,
    Uniform,
    Weibull,
)

from vaetut.distributions import (
    Elliptical,
    Erlang,
    Gompertz,
    Logistic,
    MultivariateStudentT,
    Rayleigh,
    Reciprocal,
    Triangular,
)

Maker = Callable[[Tensor, Tensor], Distribution]


def logistic_chain(a: Tensor, b: Tensor) -> Distribution:
    """The chain in torch's own documentation of TransformedDistribution."""
    base = Uniform(torch.zeros_like(a), torch.ones_like(a))
    return TransformedDistribution(base, [SigmoidTransform().inv, AffineTransform(a, b)])


def gompertz_chain(a: Tensor, b: Tensor) -> Distribution:
    """log(1 + e/a)/b with e exponential."""
    transforms = [AffineTransform(1, 1 / a), ExpTransform().inv, AffineTransform(0, 1 / b)]
    return TransformedDistribution(Exponential(torch.ones_like(a)), transforms)


# label: vaetut's, torch's; a and b are two positive parameters
PAIRS: dict[str, tuple[Maker, Maker]] = {
    "Logistic | Uniform, logit, affine": (lambda a, b: Logistic(a, b), logistic_chain),
    "Rayleigh | Weibull(k=2)": (
        lambda a, b: Rayleigh(a),
        lambda a, b: Weibull(2**0.5 * a, torch.full_like(a, 2.0)),
    ),
    "Reciprocal | Uniform, exp": (
        lambda a, b: Reciprocal(a, a + b),
        lambda a, b: TransformedDistribution(Uniform(a.log(), (a + b).log()), [ExpTransform()]),
    ),
    "Gompertz | Exponential, log, affine": (lambda a, b: Gompertz(a, b), gompertz_chain),
    "Erlang(3) | Gamma": (lambda a, b: Erlang(3, b), lambda a, b: Gamma(torch.full_like(b, 3.0), b)),
    "Erlang(tensor) | Gamma": (
        lambda a, b: Erlang(torch.full_like(b, 20.0), b),
        lambda a, b: Gamma(torch.full_like(b, 20.0), b),
    ),
    "Triangular(peak=low) | Beta(1, 2)": (
        lambda a, b: Triangular(0 * a, 1 + 0 * a, 0 * a),
        lambda a, b: Beta(1 + 0 * a, 2 + 0 * a),
    ),
    "MultivariateStudentT(d=1) | StudentT": (
        lambda a, b: MultivariateStudentT(5.0, a.unsqueeze(-1), torch.eye(1)),
        lambda a, b: StudentT(5.0, a, torch.ones_like(a)),
    ),
    "Elliptical(Rayleigh, d=2) | MultivariateNormal": (
        lambda a, b: Elliptical(Rayleigh(torch.ones_like(a)), torch.stack([a, b], -1), torch.eye(2)),
        lambda a, b: MultivariateNormal(torch.stack([a, b], -1), scale_tril=torch.eye(2)),
    ),
}
SHAPES = {"[64, 20]": (64, 20), "1e6": (1_000_000,)}


def seconds(work: Callable[[], object], repeats: int) -> float:
    """The time of one call."""
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - start) / repeats


def tasks(maker: Maker, a: Tensor, b: Tensor) -> dict[str, Callable[[], object]]:
    """What is timed: draws, densities, and the gradient of a loss made of both."""
    q = maker(a.detach(), b.detach())
    z = q.sample()

    def backward() -> None:
        live = maker(a, b)
        (live.rsample().mean() + live.log_prob(z).mean()).backward()

    return {"sample": q.sample, "log_prob": lambda: q.log_prob(z), "forward and backward": backward}


def main(rounds: int) -> None:
    """Print the table."""
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), float32, {rounds} rounds\n")
    columns = ["sample", "log_prob", "forward and backward"]
    print(f"{'vaetut | torch':<48}{'elements':<10}" + "".join(f"{c:>30}" for c in columns))
    print(f"{'':<58}" + f"{'vaetut':>10}{'torch':>10}{'ratio':>10}" * len(columns))
    for label, (ours, theirs) in PAIRS.items():
        for name, shape in SHAPES.items():
            a = (0.5 + torch.rand(shape)).requires_grad_()
            b = (0.5 + torch.rand(shape)).requires_grad_()
            mine, other = tasks(ours, a, b), tasks(theirs, a, b)
            cells = []
            for column in columns:
                repeats = 20 if name != "1e6" else 1
                mine[column](), other[column]()
                times = [
                    (seconds(mine[column], repeats), seconds(other[column], repeats)) for _ in range(rounds)
                ]
                ratio = statistics.median(x / y for x, y in times)
                left, right = (1e6 * statistics.median(t) for t in zip(*times, strict=True))
                unit = 1 if name != "1e6" else 1000
                suffix = "us" if unit == 1 else "ms"
                cells.append(f"{left / unit:>8.1f}{suffix}{right / unit:>8.1f}{suffix}{ratio:>10.2f}")
            print(f"{label:<48}{name:<10}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
