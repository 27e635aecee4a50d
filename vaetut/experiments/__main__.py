"""`python -m vaetut.experiments`: the paper's experiments from the command line."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vaetut.experiments import figure2, figure3, figure4
from vaetut.experiments.runs import file_name

_RUNS: dict[str, tuple[Any, str]] = {
    "figure2": (
        figure2.run,
        "the bound against training samples, AEVB and wake-sleep, for 3, 5, 10, 20 and 200 latent variables (N_z)",
    ),
    "figure3": (
        figure3.run,
        "the marginal likelihood, AEVB, wake-sleep and Monte Carlo EM, N_train = 1000, 50000",
    ),
    "figure3-rates": (figure3.run_rates, "Monte Carlo EM of figure 3 with each of the learning rates"),
    "figure4": (figure4.run, "the manifold of a 2-D latent space, and samples for each N_z of figure2"),
}
_DESCRIPTION = """\
Repeat the experiments of Kingma & Welling, Auto-Encoding Variational Bayes (arXiv 1312.6114), section 5.

experiments:
{}
  all           one after the other, two to three hours on two CPU cores with --jobs 2
"""
_EPILOG = """\
A run can be stopped at any time, by Ctrl-C or otherwise: the same command continues from the last point of each
curve, and with larger --samples it extends the curves. All curves of an experiment grow together.
Figure 3 tries each learning rate for the whole run, which takes four times as long; --trial-samples 50000 chooses
as the paper did.

MNIST is read from the folder that VAETUT_DATA_DIR names, or downloaded once. `--data digits` uses images
that need no download. The paper's other data set, Frey Face, is not available from a source with clear terms.

examples:
  python -m vaetut.experiments all --jobs 2
  python -m vaetut.experiments figure2 --samples 1e7 --jobs 2
  python -m vaetut.experiments figure2 --samples 1e8 --device cuda
  python -m vaetut.experiments figure3 --data digits --results results --state state
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, the process's own if None; returns the exit status."""
    options = _parser().parse_args(arguments)
    names = list(_RUNS) if options.experiment == "all" else [options.experiment]
    if options.jobs > 1:
        torch.set_num_threads(1)  # as in the processes of the pool; the results file records it
    given = {
        name: getattr(options, name)
        for name in ("samples", "trial_samples", "minutes", "seed", "jobs", "device", "together")
        if getattr(options, name) is not None
    }
    try:
        for name in names:
            print(f"== {name}: {_RUNS[name][1]}", flush=True)
            if options.experiment == "all" and name != "figure2":  # the others run on the CPU
                given = {key: value for key, value in given.items() if key not in ("device", "together")}
            _RUNS[name][0](
                options.data,
                **given,
                results_dir=options.results,
                state_dir=options.results / "state" if options.state is None else options.state,
                command=_command(name, options),
                progress=True,
            )
            print(f"wrote {options.results / file_name(name, options.data)}.json", flush=True)
    except KeyboardInterrupt:
        print("stopped; the same command continues from the last point of each curve", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError, torch.cuda.OutOfMemoryError) as error:
        print(f"vaetut.experiments: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    experiments = "\n".join(f"  {name:<13} {text}" for name, (_, text) in _RUNS.items())
    parser = argparse.ArgumentParser(
        prog="python -m vaetut.experiments",
        description=_DESCRIPTION.format(experiments),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "experiment", choices=[*_RUNS, "all"], metavar="EXPERIMENT", help="one of the experiments above"
    )
    parser.add_argument("--data", choices=["mnist", "digits"], default="mnist", help="default: %(default)s")
    parser.add_argument(
        "--samples",
        type=_count,
        metavar="N",
        help="training samples evaluated by each curve; default: 5e6 in figure2, else 1e6 (the paper went to 1e8)",
    )
    parser.add_argument(
        "--minutes", type=float, metavar="T", help="stop each experiment after this many minutes"
    )
    parser.add_argument(
        "--jobs",
        type=_positive,
        default=1,
        metavar="J",
        help="processes that share the curves of an experiment, one for each CPU core; default: %(default)s",
    )
    parser.add_argument(
        "--trial-samples",
        type=_positive,
        metavar="N",
        help="how long each learning rate is tried; default: 50000 in figure2, the whole run in figure3",
    )
    parser.add_argument(
        "--device",
        default="cpu",
        help="where figure2 is trained, such as cuda: all of its curves together; default: %(default)s",
    )
    parser.add_argument(
        "--together", action="store_true", help="step all curves of figure2 together, on the CPU too"
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="where the results files go; default: %(default)s",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="where unfinished curves are kept; default: state, in the folder of the results",
    )
    return parser


def _count(text: str) -> int:
    """An integer of at least 10,000, the first point of a curve, also in the form 1e6."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if value < 10_000 or value % 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 10000 such as 1e6, got {text!r}")
    return int(value)


def _positive(text: str) -> int:
    """An integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, got {text!r}")
    return int(text)


def _command(name: str, options: argparse.Namespace) -> str:
    """The command that makes this results file, without the folders of this machine."""
    parts = ["python -m vaetut.experiments", name]
    if options.data != "mnist":
        parts.append(f"--data {options.data}")
    if options.samples is not None:
        parts.append(f"--samples {options.samples}")
    if options.trial_samples is not None:
        parts.append(f"--trial-samples {options.trial_samples}")
    if options.device != "cpu":
        parts.append(f"--device {options.device}")
    elif options.together:
        parts.append("--together")
    if options.seed:
        parts.append(f"--seed {options.seed}")
    return " ".join(parts)


if __name__ == "__main__":
    raise SystemExit(main())
