"""Speed of `vaetut.train` beside other packages, and what its speed depends on.

    python benchmarks/training.py [--rounds 7] [--device cuda --batch-sizes 100 1000 --images 60000 --json FILE]
                                   [--threads 2] [--only pytorch-examples pyro] [--skip costs]

The same VAE everywhere: 784-500-20, one hidden layer of tanh, Bernoulli likelihood of black and white pixels, one
sample, batches of 100, Adam at 0.001; each package in the way that its own examples use it. Every peer runs in
its own process, limited to as many cores as there are threads, and they take turns, an epoch of 10,000 images each,
round after round, so that all run under the same conditions. The table shows the median of the paired ratios, the
peer's time over ours, with the 10th and the 90th percentile; above 1 vaetut is faster. With one thread it is processor
time. After the same number of steps the bound on 1,000 test images is computed in the same way for all, so a loss of
quality would be seen.

On a CPU most of a step's time is in float32 products, by default those of MKL. oneDNN's are faster on AMD processors:
for 100 x 784 times 784 x 500 on one thread of an AMD EPYC 736 microseconds instead of 845. torch's one public call that
selects them is `torch.set_float32_matmul_precision("medium")`, which is `precision="medium"` of `vaetut.train`. It also
allows oneDNN to compute in bfloat16 where it has a kernel for that. Here it does not: the error was 9e-5 of
values of some 30 (MKL's: 4e-5). Elsewhere 8 bits may be all that is kept, so it is not the default: "highest" is
float32 on every machine. Casting the model itself to bfloat16 would be another algorithm, and inductor's own oneDNN
layers are for frozen weights, that is, not for training.

pythae and numpyro get environments of their own below _build/, from the package index, at the first run. A peer that
cannot be installed is named and left out.
"""

import argparse
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

import vaetut

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "benchmarks" / "peers"
ENVIRONMENTS = ROOT / "_build" / "benchmarks"
PYTHAE = ("pythae==0.1.2", "pydantic==2.14.3", "imageio==2.38.1", "cloudpickle==3.1.2")
NUMPYRO = ("numpyro==0.22.0", "jax==0.10.2")

SETTINGS: dict[str, Any] = {
    "hidden_dim": 500,
    "latent_dim": 20,
    "batch_size": 100,
    "compile": False,
    "device": "cpu",
}
TEST_IMAGES = 1_000


class Missing(Exception):
    """A peer that cannot be run here, and the reason."""


class Peer:
    """A process that trains one epoch on each request."""

    def __init__(self, command: list[str], extra_path: str, settings: dict[str, Any], folder: Path) -> None:
        folder.mkdir()
        for part in ("train", "test"):
            (folder / f"{part}.npy").symlink_to(folder.parent / f"{part}.npy")
        (folder / "settings.json").write_text(json.dumps(settings))
        threads = str(settings["threads"])
        path = os.pathsep.join(filter(None, [extra_path, str(ROOT), os.environ.get("PYTHONPATH", "")]))
        environment = os.environ | {
            "PYTHONPATH": path,
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
        }
        self.errors: TextIO = (folder / "errors.txt").open("w+")
        self.process = subprocess.Popen(
            [*command, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=environment,
        )

    def ask(self, word: str) -> float:
        """Its answer to "epoch" (seconds) or "elbo" (nats)."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(f"{word}\n")
            self.process.stdin.flush()
            return float(json.loads(self.process.stdout.readline()))
        except (OSError, ValueError):
            self.process.wait()
            self.errors.seek(0)
            lines = self.errors.read().strip().splitlines() or ["it stopped without a message"]
            raise Missing(lines[-1]) from None

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        self.errors.close()


def ours(script: str) -> tuple[list[str], str]:
    """A peer that runs in this environment."""
    return [sys.executable, str(PEERS / script)], ""


def pythae() -> tuple[list[str], str]:
    """A peer beside this environment's torch: pythae, and what of its requirements is not here."""
    target = ENVIRONMENTS / "pythae"
    if not (target / "installed").exists():
        # --no-deps: its requirement torch must be this environment's, and `dataclasses` is for Python 3.6
        pip(sys.executable, "--no-deps", "--target", str(target), *PYTHAE)
        core = pydantic_core(target)
        pip(
            sys.executable, "--no-deps", "--target", str(target), core, "annotated-types", "typing-inspection"
        )
        (target / "installed").touch()
    return [sys.executable, str(PEERS / "pythae_vae.py")], str(target)


def pydantic_core(target: Path) -> str:
    """The version that the pydantic in a folder asks for."""
    found = importlib.metadata.distributions(name="pydantic", path=[str(target)])
    needed = next(iter(found)).requires or []
    return next(line for line in needed if line.startswith("pydantic-core"))


def numpyro() -> tuple[list[str], str]:
    """A peer with an environment of its own: JAX and numpyro."""
    target = ENVIRONMENTS / "numpyro"
    python = target / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (target / "installed").exists():
        venv.create(target, with_pip=True, clear=True)
        pip(str(python), *NUMPYRO)
        (target / "installed").touch()
    return [str(python), str(PEERS / "numpyro_svi.py")], ""


def pip(python: str, *arguments: str) -> None:
    """Install, or say why not."""
    print(f"installing {' '.join(arguments)}", file=sys.stderr, flush=True)
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise Missing(f"cannot be installed: {lines[-1] if lines else done.stderr.strip()[-200:]}")


REFERENCE = "vaetut"
CONTENDERS: dict[str, tuple[Callable[[], tuple[list[str], str]], dict[str, Any]]] = {
    REFERENCE: (lambda: ours("vaetut_train.py"), {}),
    "vaetut, compiled": (lambda: ours("vaetut_train.py"), {"compile": True}),
    "pytorch-examples": (lambda: ours("examples_loop.py"), {"pictures": True}),
    "loader of tensors": (lambda: ours("examples_loop.py"), {}),
    "pythae": (pythae, {}),
    "pyro": (lambda: ours("pyro_svi.py"), {}),
    "numpyro": (numpyro, {}),
}


def compare(
    names: list[str], rounds: int, number: int, common: dict[str, Any]
) -> dict[str, dict[str, float]]:
    """Print the table of all contenders, and return it."""
    print(f"{'':<18}{'us/image':>10}{'images/s':>12}{'time / ours':>13}{'p10':>7}{'p90':>7}{'ELBO':>10}")
    table: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        x, test = images()
        for part, pixels in (("train", x[:number]), ("test", test[:TEST_IMAGES])):
            np.save(folder / f"{part}.npy", vaetut.binarize(pixels, "threshold").numpy())
        peers: dict[str, Peer] = {}
        for place, name in enumerate(names):
            command, settings = CONTENDERS[name]
            try:
                peer = Peer(*command(), SETTINGS | common | settings, folder / str(place))
                stack.callback(peer.close)
                peer.ask("epoch")  # the first one compiles, fills caches, and counts as training
                peers[name] = peer
            except Missing as reason:
                print(f"{name:<18}left out: {reason}")
        if REFERENCE not in peers:
            raise SystemExit("without vaetut there is nothing to compare")
        seconds: dict[str, list[float]] = {name: [] for name in peers}
        for k in range(rounds):
            for name in list(peers)[:: 1 if k % 2 else -1]:
                seconds[name].append(peers[name].ask("epoch"))
        for name, peer in peers.items():
            ratios = [a / b for a, b in zip(seconds[name], seconds[REFERENCE], strict=True)]
            each, bound = statistics.median(seconds[name]) / number, peer.ask("elbo")
            print(
                f"{name:<18}{each * 1e6:>10.1f}{1 / each:>12,.0f}{spread(ratios)}{bound:>10.2f}", flush=True
            )
            table[name] = {
                "images_per_second": 1 / each,
                "time_over_ours": statistics.median(ratios),
                "elbo": bound,
            }
    return table


def images() -> tuple[torch.Tensor, torch.Tensor]:
    """MNIST if it is available, otherwise noise of the same size, which takes the same time."""
    try:
        data = vaetut.load("mnist")
        return data.train, data.test
    except FileNotFoundError:
        print("MNIST is not available: images of noise are used, so the bounds are meaningless\n")
        torch.manual_seed(0)
        return torch.rand(60_000, 784), torch.rand(10_000, 784)


# --- what our own time depends on


def cost(x: torch.Tensor, **changes: Any) -> float:
    """Processor seconds per image."""
    settings: dict[str, Any] = {
        "batch_size": 100,
        "num_samples": 1,
        "latent_dim": 20,
        "epochs": 1,
        "progress": False,
    }
    settings |= changes
    torch.manual_seed(0)
    model = vaetut.VAE(x.shape[1], settings.pop("latent_dim"), 500)
    start = time.process_time()
    vaetut.train(model, x, **settings)
    return (time.process_time() - start) / (len(x) * settings["epochs"])


@contextmanager
def terminal() -> Iterator[None]:
    """Standard error as a terminal, so that the progress bar is drawn; to nowhere."""
    before = sys.stderr
    with open(os.devnull, "w") as nowhere:
        nowhere.isatty = lambda: True  # type: ignore[method-assign]
        sys.stderr = nowhere
        try:
            yield
        finally:
            sys.stderr = before


def with_progress(x: torch.Tensor) -> float:
    """The cost with a bar."""
    with terminal():
        return cost(x, progress=True, epochs=5)


def with_checkpoint(x: torch.Tensor) -> float:
    """The cost with a bar and a checkpoint at each epoch."""
    with terminal(), tempfile.TemporaryDirectory() as folder:
        return cost(x, progress=True, epochs=5, checkpoint=Path(folder) / "checkpoint.pt")


def costs(rounds: int) -> None:
    """Print how our time per image changes with one setting at a time."""
    torch.set_num_threads(1)
    x, _ = images()
    part = x[:5_000]
    print(f"\n{'vaetut alone':<34}{'us/image':>10}{'/ first':>9}{'p10':>7}{'p90':>7}")
    groups: dict[str, dict[str, Callable[[], float]]] = {
        "datapoints": {
            f"{n:,}": (lambda n=n: cost(x[:n], epochs=max(1, 20_000 // n)))
            for n in (5_000, 10_000, 20_000, 60_000)
        },
        "batch size": {f"{m}": (lambda m=m: cost(part, batch_size=m)) for m in (100, 20, 500, 1000)},
        "latent dimensions": {f"{d}": (lambda d=d: cost(part, latent_dim=d)) for d in (20, 2, 50, 200)},
        "samples": {f"{n}": (lambda n=n: cost(part, num_samples=n)) for n in (1, 2, 5, 10)},
        "progress": {
            "without": lambda: cost(part, epochs=5),
            "bar": lambda: with_progress(part),
            "bar, checkpoint each 5,000 images": lambda: with_checkpoint(part),
        },
    }
    for title, group in groups.items():
        print(title)
        seconds: dict[str, list[float]] = {name: [] for name in group}
        for k in range(rounds + 1):
            for name in list(group)[:: 1 if k % 2 else -1]:
                value = group[name]()
                if k:  # the first round warms up
                    seconds[name].append(value)
        first = next(iter(seconds.values()))
        for name, times in seconds.items():
            ratios = [a / b for a, b in zip(times, first, strict=True)]
            print(f"  {name:<32}{statistics.median(times) * 1e6:>10.1f}{spread(ratios, 9)}", flush=True)


def spread(ratios: list[float], width: int = 13) -> str:
    """Median, 10th and 90th percentile."""
    ordered = sorted(ratios)
    low = ordered[math.floor(0.1 * (len(ordered) - 1))]
    high = ordered[math.ceil(0.9 * (len(ordered) - 1))]
    return f"{statistics.median(ratios):>{width}.2f}{low:>7.2f}{high:>7.2f}"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7, help="epochs of each contender")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="cores of each contender (all)")
    peers = [name for name in CONTENDERS if name != REFERENCE]
    parser.add_argument(
        "--only", nargs="*", default=peers, choices=peers, metavar="PEER", help=", ".join(peers)
    )
    parser.add_argument(
        "--skip", nargs="*", default=[], choices=["peers", "costs"], help="one of the two tables"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda; the table of costs is for the CPU only")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[100], metavar="M")
    parser.add_argument("--images", type=int, default=10_000, help="in an epoch")
    parser.add_argument("--json", type=Path, help="a file for the tables")
    options = parser.parse_args()
    print(
        f"torch {torch.__version__}, {options.threads} thread{'s' * (options.threads > 1)}, {platform.machine()}, "
        f"{os.cpu_count()} cores; {options.rounds} rounds\n"
    )
    tables = {}
    if "peers" not in options.skip:
        for size in options.batch_sizes:
            print(f"batches of {size}")
            common = {"threads": options.threads, "device": options.device, "batch_size": size}
            tables[str(size)] = compare([REFERENCE, *options.only], options.rounds, options.images, common)
    if options.json:
        device = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor()
        about = {
            "torch": torch.__version__,
            "device": device,
            "images": options.images,
            "rounds": options.rounds,
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(about | {"batch_size": tables}, indent=2) + "\n")
    if "costs" not in options.skip and options.device == "cpu":
        costs(max(3, options.rounds // 2))


if __name__ == "__main__":
    main()
