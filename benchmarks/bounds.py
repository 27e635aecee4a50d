"""The cost of a bound: time against the number of draws, time of each gradient estimator, and memory.

    python benchmarks/bounds.py [--quick]

Time is that of one training step (encode, bound, backward, Adam) of a VAE with 784 pixels, 500 hidden units and 20
latent dimensions on a batch of 100: processor time of one thread, median of interleaved rounds. Memory is the peak of a
process that imports torch and calls ``log_evidence`` once.
"""

import argparse
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from vaetut import VAE, bounds, log_evidence, sgvb_a, sgvb_b
from vaetut._support.validate import checks
from vaetut.bounds import doubly_reparameterized, sticking_the_landing

BATCH = 100
LIMIT = 4.2  # a step with ten draws, beside one with a single draw


def vae() -> tuple[VAE, torch.Tensor]:
    """The model of the paper's size, and a batch."""
    torch.manual_seed(0)
    return VAE(data_dim=784, latent_dim=20), (torch.rand(BATCH, 784) < 0.3).float()


def step_of(bound: Callable[..., torch.Tensor], num_samples: int) -> Callable[[], None]:
    """One step of training a new model."""
    model, x = vae()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)

    def step() -> None:
        with checks(False):
            loss = -bound(model, model.encode(x), x, num_samples).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def milliseconds(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """The median of each, taken in turn, so that a busy machine slows all of them."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.process_time()
            step()
            times[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def by_draws(rounds: int) -> bool:
    """Print a table; return whether ten draws stay within the limit."""
    print("\nsgvb_b: one training step against the number of draws L")
    draws = (1, 2, 5, 10, 20)
    found = milliseconds({str(n): step_of(sgvb_b, n) for n in draws}, rounds)
    for name, value in found.items():
        print(f"  L = {name:>2}   {value:6.1f} ms   {value / found['1']:5.2f} of L = 1")
    ratio = found["10"] / found["1"]
    print(f"  L = 10 is {'within' if ratio <= LIMIT else 'NOT within'} {LIMIT} times L = 1: {ratio:.2f}")
    return ratio <= LIMIT


def by_estimator(rounds: int) -> None:
    """Print a table."""
    print("\none training step with 10 draws, beside iwae_bound")
    estimators = (bounds.iwae_bound, sticking_the_landing, doubly_reparameterized, sgvb_a, sgvb_b)
    found = milliseconds({e.__name__: step_of(e, 10) for e in estimators}, rounds)
    for name, value in found.items():
        print(f"  {name:<24} {value:6.1f} ms   {value / found['iwae_bound']:5.2f}")


def peak(num_samples: int, chunk_size: int | None) -> float:
    """The peak in megabytes of the process in which this is called, once."""
    model, x = vae()
    log_evidence(model, model.encode(x[:10]), x[:10], num_samples, chunk_size=chunk_size)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory(counts: tuple[int, ...]) -> None:
    """Peak memory for several numbers of draws, and for one of them without chunks."""
    print("\nlog_evidence of 10 images: peak memory of the process against the number of draws")
    for count, chunk in [(count, 0) for count in counts] + [(10_000, 10_000)]:
        command = [sys.executable, __file__, "--peak", str(count), str(chunk)]
        found = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(f"  L = {count:>7,}{' in one chunk' if chunk else '':<13}   {found:6.0f} MB")


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and draws")
    parser.add_argument("--peak", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.peak:
        print(peak(options.peak[0], options.peak[1] or None))
        return
    rounds = 7 if options.quick else 31
    print(f"torch {torch.__version__}, Python {platform.python_version()}, one thread")
    # first, for on Linux the peak of a process starts at what its parent held
    memory((100, 1000, 10_000) if options.quick else (100, 1000, 10_000, 100_000))
    within = by_draws(rounds)
    by_estimator(rounds)
    sys.exit(0 if within or options.quick else 1)


if __name__ == "__main__":
    main()
