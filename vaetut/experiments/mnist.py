"""The bounds and log p(x) of `vaetut train --recipe paper` and `--recipe best` on MNIST: chapter 12.

They are trained and evaluated by the command line, and written to ``mnist-paper.json`` and ``mnist-best.json``.

    python -m vaetut.experiments.mnist paper   three seeds, some minutes each
    python -m vaetut.experiments.mnist best    the VAE, then importance weighting from that model: more than an
                                               hour, and half an hour for the estimates

A stopped run is resumed; a complete one is only evaluated. MNIST is read from the folder that VAETUT_DATA_DIR names,
or downloaded once.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from vaetut._support.files import read_json, write_json

CONFIG, HISTORY = "config.json", "history.json"  # files of a run's folder
SEEDS = (0, 1, 2)


def vaetut(*arguments: str) -> dict[str, Any]:
    """Run the command, and return its result from ``--json``."""
    command = [sys.executable, "-m", "vaetut", *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(runs: Path, name: str, train: str, evaluate: str) -> dict[str, Any]:
    """Train, unless it is done, and evaluate; the commands are recorded as they are typed."""
    folder = runs / name
    # model.pt exists after the first epoch; resuming a complete run trains nothing
    start = "--resume" if (folder / CONFIG).exists() else train.format(runs=runs)
    vaetut("train", "--out", str(folder), *shlex.split(start))
    result = vaetut("evaluate", str(folder), *shlex.split(evaluate))
    config, history = read_json(folder / CONFIG), read_json(folder / HISTORY)
    return {
        "commands": [
            f"vaetut train --out runs/{name} {train.format(runs='runs')}",
            f"vaetut evaluate runs/{name} {evaluate}",
        ],
        "seed": config["options"]["seed"],
        "seconds": round(config["seconds"], 1),
        "options": config["options"],
        **{key: result[key] for key in ("images", "bound", "iwae_bound", "log_evidence", "versions")},
        "history": {key: [round(value, 3) for value in curve] for key, curve in history.items()},
    }


def write(folder: Path, name: str, command: str, measured: list[dict[str, Any]], **content: Any) -> None:
    """Write a results file."""
    versions = measured[0]["versions"]
    for run in measured:
        run.pop("versions")
    machine = f"{os.cpu_count()} CPU cores, shared"
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    header = {
        "experiment": name,
        "command": command,
        "data": "mnist",
        "versions": versions,
        "machine": machine,
    }
    path = folder / f"{name}.json"
    write_json(path, rounded({**header, "threads": threads, **content, "runs": measured}))
    print(f"wrote {path}")


def rounded(value: Any) -> Any:
    """The same value, with floating-point numbers rounded to four digits after the point."""
    if isinstance(value, dict):
        return {key: inner if key == "options" else rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value


def paper(runs: Path, results: Path) -> None:
    """AEVB's network: the bound after 20 epochs, for three seeds."""
    measured = [
        measure(runs, f"paper-{seed}", f"--recipe paper --seed {seed}", "--num-samples 100 --iwae-samples 10")
        for seed in SEEDS
    ]
    bounds = [run["bound"]["value"] for run in measured]
    write(
        results,
        "mnist-paper",
        "python -m vaetut.experiments.mnist paper",
        measured,
        test_bound={"mean": statistics.mean(bounds), "seeds": bounds, "goal": -101.5},
    )


def best(runs: Path, results: Path, epochs: int, images: str) -> None:
    """The network of Burda, Grosse and Salakhutdinov: the bound first, then that of 5 and that of 50 draws.

    A compiled step takes five sixths of the time of an eager one.
    """
    evaluation = f"--num-samples 5000 --iwae-samples 50{images}"

    def weighted(start: str, draws: int, rate: float, number: int) -> str:
        """Continue from ``start`` with the bound of ``draws`` draws; {runs} is replaced later."""
        given = f"--recipe best --compile --init {{runs}}/{start} --bound iwae --num-samples {draws}"
        return f"{given} --lr {rate} --lr-decay 1 --epochs {max(1, number)}"

    stages = {
        "best-vae": f"--recipe best --compile --epochs {epochs}",
        "best-iwae-5": weighted("best-vae", 5, 0.0005, epochs // 6),
        "best-iwae-50": weighted("best-iwae-5", 50, 0.0002, epochs // 40),
    }
    measured = [measure(runs, name, train, evaluation) for name, train in stages.items()]
    write(
        results,
        "mnist-best",
        "python -m vaetut.experiments.mnist best",
        measured,
        log_evidence={name: run["log_evidence"]["value"] for name, run in zip(stages, measured, strict=True)},
        published={"VAE": -86.76, "IWAE, K = 50": -84.78},
    )


def main() -> None:
    """Run the experiment that the arguments name."""
    parser = argparse.ArgumentParser(
        prog="python -m vaetut.experiments.mnist",
        description=(__doc__ or "").replace("``", ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", choices=["paper", "best"])
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        help="where the results file goes; default: %(default)s",
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="where the models are kept; default: %(default)s"
    )
    parser.add_argument(
        "--epochs", type=int, default=400, help="best: epochs of the VAE; default: %(default)s"
    )
    parser.add_argument("--images", type=int, help="best: evaluate only on this many test images")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    if options.recipe == "paper":
        paper(options.runs, options.results)
    else:
        best(
            options.runs,
            options.results,
            options.epochs,
            f" --images {options.images}" if options.images else "",
        )


if __name__ == "__main__":
    main()
