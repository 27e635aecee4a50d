"""Auto-encoding variational Bayes: the training loop of chapter 11 (AEVB algorithm 1)."""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from vaetut._support.validate import checks
from vaetut.aevb import rng
from vaetut.aevb.arguments import Arguments
from vaetut.aevb.compiled import compiled_step, compiling, matmul_precision
from vaetut.aevb.epochs import (
    explained_memory_errors,
    finish_epoch,
    is_stopped,
    progress_bar,
    start,
    validation_bound,
)
from vaetut.aevb.history import History
from vaetut.aevb.run import Run, resolved
from vaetut.aevb.step import Communicator, Objective, epoch_mean, set_modes
from vaetut.bounds import sgvb_b
from vaetut.data import ImageData

Bound = Callable[[Any, Any, Tensor, int], Tensor]
"""A lower bound such as `vaetut.sgvb_b`: a function of model, q, x and the number of samples."""

Data = Tensor | NDArray[Any] | ImageData | Dataset[Any] | DataLoader[Any]
"""What `train` takes minibatches from."""

Scheduler = Callable[[torch.optim.Optimizer], Any]
"""A function of the optimizer that returns an object with ``step``, ``state_dict`` and ``load_state_dict``."""


def maximize(run: Run) -> History:
    r"""AEVB algorithm 1: maximize the bound in $\theta$ and $\phi$ together, minibatch by minibatch."""
    history = start(run)
    make_step = compiled_step if run.compile else eager_step
    step = make_step(run.objective, run.optimizer, run.communicator)
    with progress_bar(run, history) as show:
        for epoch in range(1 + len(history.train), run.epochs + 1):
            if run.best.is_enough(epoch - 1):
                break
            set_modes(run.modes)
            rate = float(run.optimizer.param_groups[0]["lr"])
            bounds = []
            for minibatch in run.data.minibatches(run.communicator.order, run.batch_size, run.drop_last):
                bounds.append(step(minibatch))
            history.train.append(epoch_mean(bounds, run.number, "training", epoch, rate, run.communicator))
            if run.validation is not None:
                history.validation.append(validation_bound(run, epoch, rate))
            finish_epoch(run, epoch, history)
            show(history)
            if is_stopped(run, history):
                break
    run.best.restore(run.model)
    return history


def eager_step(
    objective: Objective, optimizer: torch.optim.Optimizer, communicator: Communicator
) -> Callable[[Tensor], Tensor]:
    """The function that takes one step of algorithm 1 for a minibatch, and returns its bounds."""
    bound_of, backward, wrapped = communicator.wrap(objective, optimizer)
    parameters = objective.trained()

    def step(minibatch: Tensor) -> Tensor:
        mine = communicator.share(minibatch)
        # of x, q(z|x) and L draws of z, one value per datapoint; an idle rank has none
        bound = bound_of(mine) if len(mine) else bound_of(minibatch[:1])[:0]
        loss = -bound.mean() if communicator.size == 1 else communicator.loss(bound, len(minibatch))
        for parameter in parameters:  # like zero_grad, but faster
            parameter.grad = None
        backward(loss)
        wrapped.step()
        return bound.detach()

    return step


def train(
    model: nn.Module,
    data: Data,
    *,
    epochs: int,
    batch_size: int = 100,
    num_samples: int = 1,
    bound: Bound = sgvb_b,
    optimizer: str | Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = "adam",
    learning_rate: float | None = None,
    scheduler: Scheduler | None = None,
    binarize: str = "auto",
    drop_last: bool = False,
    patience: int | None = None,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: bool = True,
    on_epoch: Callable[[History], Any] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    state: Mapping[str, Any] | Any = None,
    validation: Data | None = None,
    compile: bool = False,
    precision: str = "highest",
    fabric: Any = None,
) -> History:
    r"""Fit encoder and decoder together by stochastic gradient ascent on the bound (AEVB algorithm 1).

    Each step follows the gradient of $\frac1M \sum_i \tilde{\mathcal L}(\theta, \phi; x^{(i)})$ over a minibatch
    of M datapoints: an unbiased estimate of the gradient of the bound per datapoint, which is AEVB eq. 8
    divided by N (``eq-vae-minibatch``).

    The result depends only on the arguments and on the model's initial parameters. ``seed`` fixes the order of
    the data, the noise and the binarization, with or without validation data, and torch's global random state
    is restored at the end. On one machine, with one version of torch and number of threads, runs on
    the CPU are bit-exact. The draws come from torch's global generators, so calls in several threads of one
    process run one after another; a thread that draws random numbers during a run changes the run's numbers.

    **Stop and resume.** With ``checkpoint``, a file always holds the whole state at the end of the last complete epoch;
    it is replaced atomically. Whatever ends the run, a KeyboardInterrupt (Ctrl-C, which is passed on) or a power cut,
    the same call with ``resume=True`` continues from there and ends with exactly the parameters of an uninterrupted
    run. An incomplete epoch is repeated. If there is no file yet, ``resume=True`` starts from the beginning, so that a
    script can always use it. It refuses another model, bound, optimizer, data or any other argument except ``epochs``,
    which may grow; the function of a bound or an optimizer is identified by its name. On another kind of device the
    run continues, with other random numbers.

    Everything that influences a step must be in the file. That holds for the model's parameters and buffers, the
    optimizer, ``scheduler``, ``patience``, torch's random numbers, the generators of a DataLoader, and every object in
    ``state``. Other state that the bound, the optimizer's hooks or a sampler refer to, such as a counter in a closure,
    is compared with its value at the beginning: once it has changed, a warning names it, and the file cannot be
    resumed.
    Global variables and random numbers of NumPy and Python are not detected; a step must not depend on them.

    **Modes.** The model is in training mode while it is trained, and in evaluation mode while a bound is only
    evaluated: for the validation data, and once before the first step. A part of it that is in evaluation mode while
    the model itself is in training mode stays so (a pretrained layer with batch normalization). At the end each part
    has the mode that it had before.

    Args:
        model: a `vaetut.VAE`, or any module with ``.encode(x)`` returning q(z|x), ``.prior`` and
            ``.likelihood(z)``. It is trained in place.
        data: ``[N, D]``, a tensor of the dtype of the model's parameters, or the `vaetut.ImageData` that `vaetut.load`
            returns; all of it is held on ``device`` (on the CPU if it would fill more than half of a GPU's free
            memory). Or a NumPy array of floating-point numbers, which is converted; a memory-mapped one
            (``np.load(path, mmap_mode="r")``) is read a minibatch at a time and need not fit in memory. Or a
            `torch.utils.data.Dataset` with a length, whose items, or the first part of each, are tensors and are
            flattened; or a `torch.utils.data.DataLoader`, which has its own order and batch size. The values of these
            are checked when they are read. A checkpoint recognizes its data by a fingerprint of all values of a
            tensor, of a thousand rows of a memory-mapped array, or of the length of a Dataset.
        epochs: passes over the data.
        batch_size: M; the last batch of an epoch may be smaller.
        num_samples: L, draws of z per datapoint. AEVB uses one (section 2.3): at equal cost, more datapoints per
            minibatch reduce the variance more than more draws (chapter 5, ``eq-sgvb-equal-cost``).
        bound: what to maximize, such as `vaetut.sgvb_a` or `vaetut.sgvb_b`.
        optimizer: ``"adam"``, ``"adagrad"`` (AEVB's), ``"sgd"``, or a function of the parameters that returns
            a `torch.optim.Optimizer`. It may have hooks, such as one that clips the gradients.
        learning_rate: for a named optimizer; by default 0.001 for Adam and SGD, 0.01 for Adagrad.
        scheduler: a function of the optimizer that returns a scheduler, anything with ``step``, ``state_dict`` and
            ``load_state_dict``. It takes a step at the end of each *epoch*. One whose step takes ``metrics``, such as
            ``ReduceLROnPlateau``, gets the loss, which is minus the validation bound (without such data, minus the
            training bound). For a change at each step use an optimizer's hook, and pass its object as ``state``.
        binarize: what to do with gray pixels. ``"dynamic"`` and ``"threshold"`` as `vaetut.binarize`, the
            former drawn again for each minibatch, but only once for the validation data; ``"none"``: use them as they
            are; ``"auto"``: dynamic for a Bernoulli likelihood, otherwise none.
        drop_last: leave out the last minibatch of an epoch if it is smaller; the curve is then the mean of the others.
        patience: end the run after this many epochs without a better validation bound; at the end of the run the
            model has the parameters of the best epoch, which is ``History.best_epoch``.
        seed: fixes the run; initialize the model after ``torch.manual_seed`` to fix that as well.
        device: where to train. ``"auto"`` is where the model is, unless that is the CPU and there is a CUDA
            device. The model is moved there, and back to where it was at the end.
        progress: show a progress bar, if the standard error is a terminal.
        on_epoch: a function that is called with the `History` at the end of each epoch, once the checkpoint is
            written, in every process. If it returns a true value, that was the last epoch. Random numbers that it
            draws do not change the run.
        checkpoint: the path of a file for the state of the run. Without ``resume`` it must not exist yet: nothing
            is overwritten. ``torch.load(path, weights_only=True)["model"]`` gives the parameters.
        resume: continue from ``checkpoint``, if that file exists.
        state: an object with ``state_dict`` and ``load_state_dict``, or a mapping from names to several of them, to be
            stored in the checkpoint as well: whatever a bound or a hook changes during the run.
        validation: ``[N_val, D]``, or any other type that ``data`` may have, on which the bound is evaluated after each
            epoch; by default the test images of an `ImageData`.
        compile: compile a step, without the optimizer's kernel, to one graph with `torch.compile`. The first step
            then takes about ten seconds and needs a C++ compiler, the others are faster. The random numbers are the
            same, but sums are rounded differently, so the curves agree but not bit-exactly. On a GPU the graph is
            captured in a CUDA graph, with the optimizer if it is ``"adam"``, so that a step is one launch. With torch
            2.11, a step that draws more than once may draw in another order, which gives other random numbers, and
            `doubly_reparameterized` raises the ValueError of what cannot be compiled.
        precision: the precision of float32 matrix products, torch's ``float32_matmul_precision`` during this call:
            ``"highest"`` is float32 throughout, ``"high"`` and ``"medium"`` allow TensorFloat32
            or bfloat16 where the device has it; these keep 10 and 7 bits of the mantissa instead of 23.
            On a CPU ``"medium"`` selects oneDNN's products, on AMD processors some 13 % faster than the default.
        fabric: a launched `lightning_fabric.Fabric` (``pip install vaetut[scale]``), for training on several
            devices. Each process calls `train` with the same arguments and takes its share of each minibatch of
            ``batch_size`` datapoints; only the first writes and prints.

    Returns:
        The bound after each epoch, in nats per datapoint, for the data and for the validation data; for a resumed run
        from its beginning.

    Raises:
        TypeError, ValueError: if an argument is not allowed, before training starts; ValueError also if the
            file is not a checkpoint, is damaged, or is of another run. The file is not changed.
        FileExistsError: if the file of ``checkpoint`` exists already, and ``resume`` is False.
        FileNotFoundError, PermissionError: if its folder does not exist, or cannot be written to.
        RuntimeError: if the memory of the device is not enough; a `torch.cuda.OutOfMemoryError` is one.
        FloatingPointError: if the bound becomes NaN or infinite. The message names the epoch, the step and the
            likely causes; the model's parameters are then no longer usable; the checkpoint is that of the previous
            epoch.

    Example:
        >>> from vaetut import VAE, load
        >>> _ = torch.manual_seed(0)
        >>> model = VAE(data_dim=64, latent_dim=2, hidden_dim=50)
        >>> history = train(model, load("digits"), epochs=3)
        >>> history.validation[0] < history.validation[2]
        True
    """
    given = Arguments(
        epochs=epochs,
        batch_size=batch_size,
        num_samples=num_samples,
        bound=bound,
        optimizer=optimizer,
        learning_rate=learning_rate,
        scheduler=scheduler,
        binarize=binarize,
        drop_last=drop_last,
        patience=patience,
        seed=seed,
        device=device,
        progress=progress,
        on_epoch=on_epoch,
        checkpoint=checkpoint,
        resume=resume,
        state=state,
        compile=compile,
        precision=precision,
        fabric=fabric,
    )
    with (
        rng.one_run_at_a_time(),
        explained_memory_errors(given),
        resolved(model, data, validation, given) as run,
        rng.seeded(run.seed, run.communicator.device),
        matmul_precision(precision),
        compiling() if compile else nullcontext(),
        checks(False),
    ):
        return maximize(run)
