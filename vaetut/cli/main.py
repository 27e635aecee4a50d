"""The command `vaetut`: train a variational auto-encoder, say how good it is, sample from it and plot it."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import vaetut
from vaetut.cli import commands as actions
from vaetut.cli import train as training
from vaetut.cli.recipes import BOUNDS, DEFAULTS, RECIPES
from vaetut.cli.run_folder import is_first_process

BOOK = "https://vaetut.github.io/vaetut/"
REPOSITORY = "https://github.com/vaetut/vaetut"

T = TypeVar("T", int, float)

# What a user can put right; what is not among them and not a failure listed in `main` is a defect, with a traceback.
_MISTAKES = (
    ValueError,
    TypeError,
    NotImplementedError,
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
)

_EPILOG = """\
examples:
  vaetut train --out runs/digits                       8 x 8 digits, some seconds, no download
  vaetut evaluate runs/digits                          bound, IWAE bound and log p(x) of the test images
  vaetut sample runs/digits --file samples.png
  vaetut plot runs/digits                              learning curve and reconstructions
  vaetut train --recipe paper --out runs/paper         MNIST as in AEVB, about a minute on a CPU
  vaetut train --recipe best --out runs/best           log p(x) = -87.4, some 35 minutes on a CPU
  vaetut train --out runs/digits --resume              go on where a run was stopped

exit status: 0 done, 1 failed, 2 wrong usage, 130 stopped with Ctrl-C
"""

_TRAIN_EPILOG = """\
The folder gets model.pt (parameters and what makes the model), history.json (the bound after each epoch),
config.json (all options) and checkpoint.pt (for --resume). A folder that holds a run is not written over
without --resume or --overwrite.

recipes:
  paper   MNIST, 784-500-20, tanh, batches of 100, one sample, Adam at 0.001, 20 epochs
  best    MNIST, 784-200-200-50, relu, Glorot's initialization, warm-up, Adam at a rate that falls, 400 epochs.
          For the importance-weighted bound go on from it:
            vaetut train --recipe best --out runs/vae
            vaetut train --recipe best --init runs/vae --bound iwae --num-samples 5 --lr 0.0005 --out runs/iwae
Any other option changes the recipe.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, the process's own if None; returns the exit status.

    Example:
        >>> main([])  # doctest: +ELLIPSIS
        vaetut ...
        book    ...
        source  ...
        0
    """
    options = vars(_parser().parse_args(arguments))
    run: Callable[..., dict[str, Any]] | None = options.pop("run", None)
    if run is None:
        print(f"vaetut {vaetut.__version__}\nbook    {BOOK}\nsource  {REPOSITORY}")
        return 0
    as_json = options.pop("json", False)
    try:
        result = run(options)
    except KeyboardInterrupt as stop:
        return _complain(str(stop) or "stopped", 130)
    except _MISTAKES as error:
        return _complain(str(error), 2)
    except (FloatingPointError, OSError, MemoryError) as error:
        return _complain(str(error), 1)
    text = result.pop("text")
    if text:  # the first of several processes has one
        print(json.dumps(result, ensure_ascii=False) if as_json else text)
    return 0


def _complain(message: str, status: int) -> int:
    if is_first_process():
        print(f"vaetut: {'error: ' if status != 130 else ''}{message}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vaetut",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"vaetut {vaetut.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="train | evaluate | sample | plot")
    _add_train(commands)

    evaluate = _add(
        commands, "evaluate", actions.evaluate, "the bound, the IWAE bound and log p(x) of test images"
    )
    evaluate.add_argument("folder", type=Path, help="of a trained model")
    evaluate.add_argument(
        "--num-samples",
        type=_positive,
        default=1000,
        metavar="L",
        help="draws for log p(x) (1000; papers: 5000)",
    )
    evaluate.add_argument(
        "--iwae-samples", type=_positive, default=50, metavar="K", help="draws for the IWAE bound (50)"
    )
    evaluate.add_argument("--images", type=_positive, metavar="N", help="only the first N test images (all)")
    _add_seed(evaluate, "of the draws, and of the black and white test pixels")
    _add_device(evaluate)

    sample = _add(commands, "sample", actions.sample, "images from the model, as a picture or a tensor")
    sample.add_argument("folder", type=Path, help="of a trained model")
    sample.add_argument("--num", type=_positive, default=100, metavar="N", help="how many (100)")
    sample.add_argument(
        "--manifold",
        action="store_true",
        help="decode an even grid of the prior's quantiles (AEVB figure 4); needs two latent dimensions",
    )
    sample.add_argument(
        "--file", type=Path, help="name.png for a picture, name.pt for a tensor [N, D] (FOLDER/samples.png)"
    )
    _add_seed(sample, "of the draws")

    plot = _add(
        commands,
        "plot",
        actions.plot,
        "learning curve, reconstructions, and the latent plane if there is one",
    )
    plot.add_argument("folder", type=Path, help="of a trained model")
    plot.add_argument(
        "--to", type=Path, metavar="FOLDER", help="where to put the pictures (the model's folder)"
    )
    _add_seed(plot, "of the black and white test pixels")
    return parser


def _add(
    commands: Any, name: str, run: Callable[..., Any], text: str, **options: Any
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.set_defaults(run=run)
    return parser


def _add_train(commands: Any) -> None:
    """The options of `vaetut train`. One that is not given has no entry, so that recipes and runs can fill it in."""
    parser = _add(
        commands,
        "train",
        training.train,
        "fit a VAE to images, into a folder of its own",
        epilog=_TRAIN_EPILOG,
        argument_default=argparse.SUPPRESS,
    )

    def add(group: Any, name: str, text: str, **options: Any) -> None:
        default = DEFAULTS.get(name[2:].replace("-", "_"))
        if isinstance(default, tuple):
            default = ",".join(map(str, default))
        shown = f" ({default})" if default not in (None, False) else ""
        group.add_argument(name, help=text + shown, **options)

    add(parser, "--out", "the run's folder", type=Path, required=True, metavar="FOLDER")
    add(parser, "--resume", "go on with the run in FOLDER, with its options", action="store_true")
    add(parser, "--overwrite", "replace the run in FOLDER", action="store_true")
    add(parser, "--recipe", "a set of options, see below", choices=list(RECIPES))
    add(parser, "--dataset", "what to train on", choices=["digits", "mnist", "fashion-mnist"])
    add(
        parser,
        "--init",
        "start from this trained model's parameters, with its sizes",
        type=Path,
        metavar="FOLDER",
    )

    model = parser.add_argument_group("model")
    add(model, "--latent-dim", "length of z", type=_positive, metavar="N")
    add(
        model,
        "--hidden-dim",
        "widths of the hidden layers, such as 200,200; none: linear",
        type=_widths,
        metavar="N,…",
    )
    add(model, "--likelihood", "of the pixels", choices=["bernoulli", "gaussian", "isotropic"])
    add(model, "--activation", "of the hidden layers", choices=["tanh", "relu", "softplus"])
    add(model, "--initialization", "of the parameters", choices=["torch", "glorot"])

    fit = parser.add_argument_group("training")
    add(fit, "--bound", "what to maximise; iwae and dreg: with several samples", choices=list(BOUNDS))
    add(fit, "--num-samples", "draws of z for each image", type=_positive, metavar="L")
    add(fit, "--optimizer", "which", choices=["adam", "adagrad", "sgd"])
    add(fit, "--lr", "learning rate (0.001; adagrad 0.01)", type=_rate, metavar="RATE")
    add(
        fit,
        "--lr-decay",
        "over this share of the epochs, the last, the rate falls",
        type=_share,
        metavar="SHARE",
    )
    add(
        fit,
        "--warm-up",
        "over this share of the epochs, the first, the weight of the divergence grows from 0 to 1",
        type=_share,
        metavar="SHARE",
    )
    add(fit, "--epochs", "passes over the data", type=_positive, metavar="N")
    add(fit, "--batch-size", "images in a step", type=_positive, metavar="M")
    add(fit, "--binarize", "grey pixels", choices=["auto", "dynamic", "threshold", "none"])
    add(fit, "--seed", "of the initial parameters, the order and the noise", type=int)

    machine = parser.add_argument_group("machine")
    add(machine, "--device", "where, such as cpu or cuda", metavar="NAME")
    add(
        machine,
        "--precision",
        "of float32 products: highest, high, medium; or, with the extra `scale`, such as bf16-mixed",
        metavar="NAME",
    )
    add(machine, "--compile", "compile the step: faster after a minute or so", action="store_true")
    add(machine, "--devices", "how many, with the extra `scale`", type=_positive, metavar="N")
    add(
        machine,
        "--strategy",
        "how devices share the work, such as ddp, with the extra `scale`",
        metavar="NAME",
    )


def _add_seed(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--seed", type=int, default=0, help=f"{text} (0)")


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", metavar="NAME", help="where, such as cpu or cuda (auto)")


def _positive(text: str) -> int:
    return _number(int, text, lambda value: value >= 1, "an integer of at least 1")


def _rate(text: str) -> float:
    return _number(float, text, lambda value: 0 < value < float("inf"), "a positive number")


def _share(text: str) -> float:
    return _number(float, text, lambda value: 0 <= value <= 1, "a number from 0 to 1")


def _widths(text: str) -> tuple[int, ...]:
    return () if text == "none" else tuple(_positive(part) for part in text.split(","))


def _number(kind: type[T], text: str, allowed: Callable[[T], bool], what: str) -> T:
    try:
        value = kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be {what}, got {text!r}") from None
    if not allowed(value):
        raise argparse.ArgumentTypeError(f"must be {what}, got {text}")
    return value
