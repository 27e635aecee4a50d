"""Auto-encoding variational Bayes: the training loop of chapter 11 (AEVB algorithm 1)."""

import os
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from vaetut import data as datasets
from vaetut._support.validate import checks, one_of, positive_int
from vaetut.aevb import arguments
from vaetut.aevb import checkpoint as checkpoints
from vaetut.aevb import step as loop
from vaetut.bounds import sgvb_b

Bound = Callable[[Any, Any, Tensor, int], Tensor]
"""A lower bound such as `vaetut.sgvb_b`: a function of model, q, x and the number of samples."""


@dataclass
class History:
    """What `train` returns: the bound, in nats per datapoint, after each epoch.

    Attributes:
        train: the mean over the epoch's batches, each taken just before the step that it causes; the early
            ones are from parameters that are almost an epoch old.
        validation: the mean over the validation data, with the parameters at the end of the epoch; empty
            without such data.

    Example:
        >>> History(train=[-30.0, -25.0])
        History(train=[-30.0, -25.0], validation=[])
    """

    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, list[float]]:
        """The curves as plain lists, ready for ``json.dump``.

        Example:
            >>> History(train=[-30.0, -25.0]).to_dict()
            {'train': [-30.0, -25.0], 'validation': []}
        """
        return {"train": list(self.train), "validation": list(self.validation)}

    def plot(self) -> Any:
        """The curves over the epochs, a matplotlib figure; higher is better."""
        from vaetut.teaching.plots import learning_curve

        return learning_curve({name: values for name, values in self.to_dict().items() if values})


def train(
    model: nn.Module,
    data: Tensor | datasets.ImageData,
    *,
    epochs: int,
    batch_size: int = 100,
    num_samples: int = 1,
    bound: Bound = sgvb_b,
    optimizer: str | Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = "adam",
    learning_rate: float | None = None,
    binarize: str = "auto",
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: bool = True,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    validation: Tensor | None = None,
    compile: bool = False,
    precision: str = "highest",
    fabric: Any = None,
) -> History:
    r"""Fit encoder and decoder together by stochastic gradient ascent on the bound (AEVB algorithm 1).

    Each step ascends the gradient of $\frac1M \sum_i \tilde{\mathcal L}(\theta, \phi; x^{(i)})$ over a minibatch
    of M datapoints: an unbiased estimate of the gradient of the bound per datapoint, which is AEVB eq. 8
    divided by N (``eq-vae-minibatch``).

    The result depends on the arguments and on the model's initial parameters alone. ``seed`` fixes the order of
    the data, the noise and the binarization, with or without validation data, and torch's global random state
    is afterwards what it was before. On one machine, with one version of torch and number of threads, runs on
    the CPU agree bit for bit.

    **Stop and go on.** With ``checkpoint``, a file holds the whole state at the end of the last complete epoch,
    at every moment: each epoch writes a new file beside it, which then takes its place. Whatever ends the run,
    a KeyboardInterrupt (Ctrl-C, which is passed on) or a power cut, the same call with ``resume=True`` goes on
    from there and ends with the very parameters of a run that was never interrupted. What was done of an epoch is
    done again. Until there is a file, ``resume=True`` starts from the beginning, so that a script can always have
    it. It refuses another model, bound, optimizer, data or any other argument except ``epochs``, which may grow;
    the function of a bound or an optimizer is known by its name.

    Args:
        model: a `vaetut.VAE`, or any module with ``.encode(x)`` returning q(z|x), ``.prior`` and
            ``.likelihood(z)``. It is trained in place.
        data: ``[N, D]``, of the dtype of the model's parameters, or the `vaetut.ImageData` that `vaetut.load`
            returns. All of it is held on ``device``.
        epochs: passes over the data.
        batch_size: M; the last batch of an epoch may be smaller.
        num_samples: L, draws of z per datapoint. AEVB takes one (section 2.3): at equal cost, more datapoints do more
            than more draws (chapter 5, ``eq-sgvb-equal-cost``).
        bound: what to maximise, for instance `vaetut.sgvb_a` or `vaetut.sgvb_b`.
        optimizer: ``"adam"``, ``"adagrad"`` (AEVB's), ``"sgd"``, or a function of the parameters that returns
            a `torch.optim.Optimizer`.
        learning_rate: of a named optimizer; by default 0.001 for Adam and SGD, 0.01 for Adagrad.
        binarize: what to do with grey pixels. ``"dynamic"`` and ``"threshold"`` as `vaetut.binarize`, the
            former drawn anew for each batch, and once for the validation data; ``"none"``: use them as they
            are; ``"auto"``: dynamic for a Bernoulli likelihood, else none.
        seed: fixes the run; initialise the model after ``torch.manual_seed`` to fix that as well.
        device: where to train. ``"auto"`` is where the model is, unless that is the CPU and there is a CUDA
            device. The model is moved there, and back to where it was at the end.
        progress: show a progress bar, if the output is a terminal.
        checkpoint: the path of a file to keep the run in. Without ``resume`` it must not exist yet: nothing is
            overwritten. ``torch.load(path, weights_only=True)["model"]`` gives the parameters.
        resume: go on from ``checkpoint``, if that file exists.
        validation: ``[N_val, D]``, on which the bound is evaluated after each epoch; with an `ImageData` its
            test images, unless others are given.
        compile: translate all of a step but the optimizer's kernel into one graph with `torch.compile`. The first
            step then takes some ten seconds and needs a C++ compiler, the others are faster. The random numbers
            are the same, but sums are rounded otherwise: the curves agree, the bits do not.
        precision: of products of float32 matrices, torch's ``float32_matmul_precision`` during this call:
            ``"highest"`` is float32 throughout, ``"high"`` and ``"medium"`` let a device that can use TensorFloat32
            or bfloat16, which keep 10 and 7 bits of a mantissa instead of 23.
        fabric: a launched `lightning_fabric.Fabric` (``pip install vaetut[scale]``), for training on several
            devices. Each process calls `train` with the same arguments and takes its part of each minibatch of
            ``batch_size`` datapoints; only the first writes and prints.

    Returns:
        The bound after each epoch, for the data and for the validation data; of a resumed run from its start.

    Raises:
        TypeError, ValueError: if an argument is not what it should be, before anything is trained; the latter
            also if the file is no checkpoint, is damaged, or is of another run. It is left as it is.
        FileExistsError: if there is such a file already, and ``resume`` is False.
        FloatingPointError: if the bound becomes NaN or infinite. The message names the epoch, the step and the
            likely causes; the model's parameters are then of no more use, a checkpoint is that of the epoch before.

    Example:
        >>> from vaetut import VAE, load
        >>> _ = torch.manual_seed(0)
        >>> model = VAE(data_dim=64, latent_dim=2, hidden_dim=50)
        >>> history = train(model, load("digits"), epochs=3)
        >>> history.validation[0] < history.validation[2]
        True
    """
    for value, name in ((epochs, "epochs"), (batch_size, "batch_size"), (num_samples, "num_samples")):
        positive_int(value, name)
    one_of(binarize, "binarize", ("auto", "dynamic", "threshold", "none"))
    one_of(precision, "precision", ("highest", "high", "medium"))
    for flag, name in ((resume, "resume"), (compile, "compile")):
        arguments.check_flag(flag, name)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed must be an int, got {type(seed).__name__}")
    if not callable(bound):
        raise TypeError(f"bound must be a function such as vaetut.sgvb_b, got {type(bound).__name__}")
    if resume and checkpoint is None:
        raise ValueError("resume=True must come with checkpoint, the path of the file to go on from")
    path = None if checkpoint is None else checkpoints.place(checkpoint, resume)
    arguments.check_model(model)
    home = next(model.parameters()).device
    processes = _processes(fabric, device, model, compile)
    if isinstance(data, datasets.ImageData):
        validation = data.test if validation is None else validation
        data = data.train

    was_training = model.training
    model.to(processes.device)
    try:
        ascend = arguments.make_optimizer(optimizer, learning_rate, model)
        with loop.seeded(seed, processes.device):
            is_bernoulli = arguments.is_bernoulli(model)
            if binarize == "auto":
                binarize = "dynamic" if is_bernoulli else "none"
            x = arguments.check_data(data, "data", model, is_bernoulli).to(processes.device)
            arguments.try_bound(bound, model, loop.pixels(x[:2], binarize), num_samples, "data")
            configuration = {
                "model": checkpoints.function_name(type(model)),
                "architecture": repr(model),
                "bound": checkpoints.function_name(bound),
                "num_samples": num_samples,
                "batch_size": batch_size,
                "optimizer": checkpoints.settings(ascend),
                "binarize": binarize,
                "seed": seed,
                "compile": compile,
                "precision": precision,
                "processes": processes.kind,
                "data": None if path is None else checkpoints.fingerprint(x),
                "validation": None,
            }
            if validation is not None:
                given = arguments.check_data(validation, "validation", model, is_bernoulli)
                validation = loop.pixels(given.to(processes.device), binarize)
                arguments.try_bound(bound, model, validation[:2], num_samples, "validation")
                configuration["validation"] = None if path is None else checkpoints.fingerprint(given)
        keeper = checkpoints.Keeper(path, configuration, model, ascend)
        started = keeper.load(epochs)
        module = loop.BoundModule(model, bound, num_samples, x, binarize)

        history, seed = History(), processes.seed(seed)
        bar = tqdm(total=epochs, unit="epoch", disable=None if progress and processes.rank == 0 else True)
        with (
            loop.seeded(seed, processes.device),
            loop.matmul_precision(precision),
            loop.compiling() if compile else nullcontext(),
            checks(False),
            bar,
        ):
            step = loop.make_step(module, ascend, processes, compile)
            if started is not None:
                history = History(**started["history"])
                loop.set_random_state(started["random_states"][processes.rank], processes.device)
                bar.update(started["epoch"])
            for epoch in range(1 + len(history.train), epochs + 1):
                rate = ascend.param_groups[0]["lr"]
                model.train()
                bounds = loop.run_epoch(step, len(x), batch_size, processes)
                history.train.append(loop.mean_bound(bounds, len(x), "training", epoch, rate, processes))
                if validation is not None:
                    model.eval()
                    # the same noise for each epoch, and none of the training's
                    with loop.seeded(seed, processes.device):
                        bounds = loop.evaluate(module, validation, batch_size, processes)
                    history.validation.append(
                        loop.mean_bound(bounds, len(validation), "validation", epoch, rate, processes)
                    )
                keeper.save(epoch, history.to_dict(), processes.random_states, processes.rank)
                bar.set_postfix(
                    {name: round(curve[-1], 2) for name, curve in history.to_dict().items() if curve}
                )
                bar.update()
    finally:
        model.train(was_training)
        model.to(home)
    return history


def _processes(fabric: Any, device: str | torch.device, model: nn.Module, compile: bool) -> loop.Processes:
    """Where to train: on one device of this process, or on those that ``fabric`` has."""
    if fabric is None:
        return loop.Processes(arguments.target_device(device, next(model.parameters()).device))
    if device != "auto":
        raise ValueError(f"device must be 'auto' with fabric, which has devices of its own, got {device!r}")
    if compile:
        raise ValueError(
            "compile must be False with fabric: a step in one graph has no place for the exchange of gradients"
        )
    from vaetut.aevb.fabric import Replicas

    return Replicas(fabric, next(model.parameters()).dtype)
