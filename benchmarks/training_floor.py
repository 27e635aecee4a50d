"""The time of one step of training, compared with the kernels that it consists of.

    python benchmarks/training_floor.py [--rounds 41] [--threads 2] [--batch-size 100] [--hidden-dim 500]

Five ways to take steps with a 784-H-20 VAE and a Bernoulli likelihood, on black and white pixels drawn anew for each
batch, with Adam:

* products: only the matrix products of a forward and a backward pass, one after another;
* floor: the kernels that every step needs, one after another on existing tensors: products, gather,
  likelihood and its gradient, noise, fused Adam. No autograd, no activations, no biases, no divergence;
* eager, compiled: the step of `vaetut.train`, without and with ``compile=True``;
* examples: a loop in the manner of pytorch/examples' VAE: DataLoader, Sigmoid and BCE, closed-form divergence,
  Adam with its defaults, ``loss.item()``. It gets the same network, the same draws of pixels and the same batches.

Rounds of all five alternate in one process, each in a new order. What is shown is the median of the ratios of times,
round by round, floor / ours and examples / ours: above 1 is faster; with the 10th and 90th percentile. With one thread
it is processor time, which other programs hardly affect; with several, wall-clock time. The bound of each loop on the
test images, at the end, would show a loss of quality. The data are MNIST if `vaetut.load` finds it without a network,
otherwise noise of the same shape.
"""

import argparse
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import vaetut
from vaetut._support.validate import checks
from vaetut.aevb.compiled import compiled_step, compiling
from vaetut.aevb.step import Communicator, Objective
from vaetut.aevb.train import eager_step

LATENT = 20
Steps = Callable[[list[Tensor]], object]


def images() -> tuple[Tensor, Tensor, str]:
    """Training and test images, and what they are."""
    try:
        data = vaetut.load("mnist", download=False)
        return data.train[:20_000], data.test[:2000], "MNIST"
    except FileNotFoundError:
        x = torch.rand(22_000, 784) * (torch.rand(22_000, 784) < 0.2)
        return x[:20_000], x[20_000:], "noise"


def kernels(x: Tensor, batch_size: int, hidden_dim: int) -> tuple[Steps, Steps]:
    """The products alone, and the floor."""
    size, hidden = batch_size, hidden_dim
    model = vaetut.VAE(784, LATENT, hidden)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-9, fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    w1, w2 = torch.randn(784, hidden), torch.randn(hidden, 2 * LATENT)
    v1, v2 = torch.randn(LATENT, hidden), torch.randn(hidden, 784)
    pixels, logits, h = torch.rand(size, 784), torch.randn(size, 784), torch.randn(size, hidden)
    head, z = torch.randn(size, 2 * LATENT), torch.randn(size, LATENT)

    def products() -> None:
        for left, right in ((pixels, w1), (h, w2), (z, v1), (h, v2)):  # forward
            left @ right
        for gradient, value, weight in ((logits, h, v2), (h, z, v1), (head, h, w2)):  # backward
            value.T @ gradient, gradient @ weight.T
        pixels.T @ h  # the images need no gradient

    def floor(index: Tensor) -> None:
        torch.rand(size, 784).lt_(x.index_select(0, index))
        torch.randn(size, LATENT)
        products()
        functional.binary_cross_entropy_with_logits(logits, pixels, reduction="none")
        torch.sigmoid(logits) - pixels
        optimizer.step()

    return lambda batches: [products() for _ in batches], lambda batches: [floor(index) for index in batches]


def ours(model: nn.Module, x: Tensor, compile: bool) -> Steps:
    """The step of `vaetut.train`."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    objective = Objective(model, vaetut.sgvb_b, 1, x, "dynamic")
    step = (compiled_step if compile else eager_step)(objective, optimizer, Communicator(x.device))
    return lambda batches: [step(index) for index in batches]


def examples(model: vaetut.VAE, x: Tensor, batch_size: int) -> Steps:
    """A loop in the manner of pytorch/examples, of which each call goes on with an endless DataLoader."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = DataLoader(TensorDataset(x), batch_size=batch_size, shuffle=True, drop_last=True)

    def endless() -> Iterator[Tensor]:
        while True:
            for (batch,) in loader:
                yield batch

    stream = endless()

    def steps(batches: list[Tensor]) -> float:
        total = 0.0
        for _ in batches:
            batch = torch.bernoulli(next(stream))
            optimizer.zero_grad()
            mean, log_variance = model.encoder(batch).chunk(2, dim=-1)
            std = torch.exp(0.5 * log_variance)
            z = mean + torch.randn_like(std) * std
            reconstruction = torch.sigmoid(model.decoder(z))
            entropy = functional.binary_cross_entropy(reconstruction, batch, reduction="sum")
            divergence = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
            loss = (entropy + divergence) / len(batch)
            loss.backward()
            total += loss.item()
            optimizer.step()
        return total

    return steps


def show(name: str, ratios: list[float]) -> None:
    """A line: the median, and the 10th and 90th percentile."""
    tenths = statistics.quantiles(ratios, n=10)
    print(f"{name:<24}{statistics.median(ratios):6.2f}   {tenths[0]:.2f} to {tenths[-1]:.2f}")


def main() -> None:
    """Print the times and the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--steps", type=int, default=20, help="steps of each in a round")
    parser.add_argument("--threads", type=int, default=min(2, torch.get_num_threads()))
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--hidden-dim", type=int, default=500)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    random.seed(0)
    x, test, name = images()
    models = {
        which: vaetut.VAE(784, LATENT, options.hidden_dim) for which in ("eager", "compiled", "examples")
    }
    for model in models.values():
        model.load_state_dict(models["eager"].state_dict())
    products, floor = kernels(x, options.batch_size, options.hidden_dim)
    loops = {
        "products": products,
        "floor": floor,
        "eager": ours(models["eager"], x, False),
        "compiled": ours(models["compiled"], x, True),
        "examples": examples(models["examples"], x, options.batch_size),
    }
    clock = time.process_time if options.threads == 1 else time.perf_counter
    times: dict[str, list[float]] = {which: [] for which in loops}
    with compiling(), checks(False):
        for k in range(
            options.rounds + 2
        ):  # the first two are not counted: in them, compilers and caches work
            batches = list(torch.randint(len(x), (options.steps, options.batch_size)))
            for which in random.sample(list(loops), len(loops)):
                start = clock()
                loops[which](batches)
                if k > 1:
                    times[which].append((clock() - start) / options.steps)
    print(
        f"torch {torch.__version__}, {platform.machine()}, {options.threads} threads, {name}, "
        f"batch {options.batch_size}, 784-{options.hidden_dim}-{LATENT}, {options.rounds} rounds of {options.steps}\n"
    )
    for which, values in times.items():
        bound = ""
        if which in models:
            with torch.no_grad():
                batch = vaetut.binarize(test, generator=torch.Generator().manual_seed(0))
                value = vaetut.sgvb_b(models[which], models[which].encode(batch), batch).mean().item()
                bound = f"   ELBO on test images after these steps {value:.1f}"
        print(f"{which:<24}{statistics.median(values) * 1e3:6.2f} ms a step{bound}")
    print("\nratio of times           median   10th to 90th percentile")
    for top, bottom in (
        ("products", "floor"),
        ("floor", "eager"),
        ("floor", "compiled"),
        ("eager", "compiled"),
        ("examples", "eager"),
        ("examples", "compiled"),
    ):
        show(f"{top} / {bottom}", [a / b for a, b in zip(times[top], times[bottom], strict=True)])


if __name__ == "__main__":
    main()
