"""A run that was stopped at any moment is the run that never was: with options drawn at random, to the bit."""

import itertools
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset

from vaetut.aevb import load_model, train
from vaetut.bounds import elbo_terms, iwae_bound, sgvb_a, sgvb_b
from vaetut.models import VAE

FIRST_EDITION = Path(__file__).parent.parent / "data" / "first-edition"
STEPS = {"left": -1}  # a variable of the module, at which no checkpoint looks


def gray(n=76, dim=6):
    return torch.rand(n, dim, generator=torch.Generator().manual_seed(1))


class WithBatchNorm(VAE):
    """A model with buffers that every step changes, and dropout."""

    def __init__(self):
        super().__init__(6, 2, 5)
        self.encoder = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.2), nn.Linear(5, 4))


def model(kind="vae"):
    torch.manual_seed(0)
    made = WithBatchNorm() if kind == "batchnorm" else VAE(6, 2, 5)
    if kind == "frozen":
        made.encoder[0].eval().requires_grad_(False)
    return made


def parameters(model):
    return torch.cat([value.detach().flatten().double() for value in model.state_dict().values()])


class WarmUp:
    """A weight of the divergence that grows with each step, kept by its own state_dict."""

    def __init__(self):
        self.taken = 0

    def state_dict(self):
        return {"taken": self.taken}

    def load_state_dict(self, state):
        self.taken = state["taken"]

    def bound(self, model, q, x, num_samples):
        terms = elbo_terms(model, q, x, num_samples)
        return terms.reconstruction - min(1.0, 0.1 * self.taken) * terms.kl

    def optimizer(self, parameters):
        made = torch.optim.AdamW(parameters, 0.01)
        made.register_step_post_hook(self.after_step)
        return made

    def after_step(self, *_):
        self.taken += 1


def clipped(parameters):
    parameters = list(parameters)
    made = torch.optim.SGD(parameters, 0.01, momentum=0.9)
    made.register_step_pre_hook(lambda *_: nn.utils.clip_grad_norm_(parameters, 0.5) and None)
    return made


class Stopped(Exception):
    pass


def after_each_step(optimizer):
    """The same optimizer, which ends the run where `STEPS` says."""

    def stop(*_):
        STEPS["left"] -= 1
        if STEPS["left"] == 0:
            raise Stopped

    optimizer.register_step_post_hook(stop)
    return optimizer


OPTIMIZERS = {
    "adam": lambda p: torch.optim.Adam(p, 0.01),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.01),
    "clipped": clipped,
}
CHOICES = {
    "model": ["vae", "batchnorm", "frozen"],
    "optimizer": [*OPTIMIZERS, "warm-up"],
    "bound": [sgvb_b, sgvb_a, iwae_bound],
    "scheduler": [
        None,
        lambda o: CosineAnnealingLR(o, 8),
        lambda o: OneCycleLR(o, 0.05, total_steps=20, cycle_momentum=not isinstance(o, torch.optim.Adagrad)),
        lambda o: ReduceLROnPlateau(o, patience=0),
    ],
    "data": ["tensor", "array", "dataset", "loader", "own generator"],
    "binarize": ["auto", "none", "threshold"],
    "validation": [True, False],
    "patience": [None, 1, 3],
    "drop_last": [False, True],
    "batch_size": [20, 37],
    "num_samples": [1, 2],
    "seed": [0, np.int64(7)],
}


def data(kind, batch_size):
    x = gray()
    if kind == "array":
        return x.numpy()
    if kind == "dataset":
        return torch.utils.data.ConcatDataset([TensorDataset(x[:30]), TensorDataset(x[30:])])
    if kind in ("loader", "own generator"):
        own = torch.Generator().manual_seed(4) if kind == "own generator" else None
        return DataLoader(TensorDataset(x), batch_size, shuffle=True, generator=own)
    return x


def run(options, epochs, path=None):
    """A run with these options; the same whenever it is called, but for what a checkpoint brings."""
    options = dict(options)
    kind, source = options.pop("optimizer"), options.pop("data")
    made = model(options.pop("model"))
    if kind == "warm-up":
        warm_up = WarmUp()
        options |= {"bound": warm_up.bound, "state": {"warm-up": warm_up}}
        optimizer = warm_up.optimizer
    else:
        optimizer = OPTIMIZERS[kind]
    options["validation"] = gray(30) if options["validation"] else None
    if options["validation"] is None:
        options["patience"] = None
    x = data(source, options["batch_size"])
    if isinstance(x, DataLoader):
        options |= {"batch_size": 100, "drop_last": False}
    history = train(
        made,
        x,
        epochs=epochs,
        optimizer=lambda p: after_each_step(optimizer(p)),
        checkpoint=path,
        resume=path is not None,
        **options,
    )
    return history, parameters(made)


def drawn(number):
    """Options drawn at random, the same in every run of the tests."""
    chance = random.Random(number)
    return {name: chance.choice(values) for name, values in CHOICES.items()}, chance


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step")
@pytest.mark.parametrize(
    "number", [*range(24), *(pytest.param(n, marks=pytest.mark.slow) for n in range(24, 150))]
)
def test_stopped_at_a_random_step(tmp_path, number):
    options, chance = drawn(number)
    STEPS["left"] = -1
    expected, end = run(options, 5)
    path = tmp_path / "run.pt"
    for _ in range(3):  # stopped three times on the way
        STEPS["left"] = chance.randint(1, 12)
        try:
            run(options, 5, path)
        except Stopped:
            continue
    STEPS["left"] = -1
    history, again = run(options, 5, path)
    assert history == expected, options
    assert torch.equal(again, end), options
    assert os.listdir(tmp_path) == ["run.pt"]


def test_the_drawn_options_cover_all_choices():
    seen = [drawn(number)[0] for number in range(24)]
    for name, values in CHOICES.items():
        assert all(any(options[name] is value for options in seen) for value in values), name


SCRIPT = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import builtins, torch, test_resume as t
count = 0
def counted(function):
    def call(*arguments, **options):
        global count
        count += 1
        if count == {event}:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call
os.replace, os.fsync, os.open = counted(os.replace), counted(os.fsync), counted(os.open)
os.unlink, builtins.open = counted(os.unlink), counted(open)
count = 0
t.run(t.PLAIN, 3, {path!r})
print(count)
"""
PLAIN = {name: values[0] for name, values in CHOICES.items()}


def killed(path, event):
    """A run in a process of its own, which is killed at one file event: what it printed, its exit status."""
    script = SCRIPT.format(tests=os.path.dirname(__file__), event=event, path=str(path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    return done.stdout.strip(), done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_killed_at_every_file_event(tmp_path):
    """After each there is a whole checkpoint or none, and the run goes on from it to the same end."""
    expected, end = run(PLAIN, 3)
    before = 0
    for event in itertools.count(1):
        folder = tmp_path / str(event)
        folder.mkdir()
        printed, status, errors = killed(folder / "run.pt", event)
        if status == 0:
            break
        assert status == -signal.SIGKILL, errors
        assert len(os.listdir(folder)) <= 2
        epoch = 0
        if (folder / "run.pt").exists():
            epoch = torch.load(folder / "run.pt", weights_only=True)["epoch"]
        assert before <= epoch <= before + 1
        before = epoch
        history, again = run(PLAIN, 3, folder / "run.pt")
        assert history == expected and torch.equal(again, end)
        assert os.listdir(folder) == ["run.pt"]  # and nothing half written stays
    assert int(printed) == event - 1 >= 12 and before == 3


# --- what is not in the checkpoint


def weighted():
    weight = {"kl": 0.0}

    def bound(model, q, x, num_samples):
        terms = elbo_terms(model, q, x, num_samples)
        return terms.reconstruction - weight["kl"] * terms.kl

    def after_step(*_):
        weight["kl"] = min(1.0, weight["kl"] + 0.1)

    return bound, after_step


def test_state_that_is_nowhere_is_named(tmp_path):
    def go(epochs):
        bound, after_step = weighted()

        def optimizer(p):
            made = torch.optim.Adam(p)
            made.register_step_post_hook(after_step)
            return made

        made = model()
        train(
            made,
            gray(),
            epochs=epochs,
            bound=bound,
            optimizer=optimizer,
            checkpoint=tmp_path / "run.pt",
            resume=True,
        )

    with pytest.warns(
        UserWarning, match=r"does not hold the bound; the optimizer's hook 1, .*after_step\. Give"
    ) as told:
        go(3)
    assert len(told) == 1 and told[0].filename == __file__  # once, and where train was called
    before = (tmp_path / "run.pt").read_bytes()
    with pytest.raises(ValueError, match="cannot be resumed: during its run the bound; the opt"):
        go(5)
    assert (tmp_path / "run.pt").read_bytes() == before
    assert load_model(tmp_path / "run.pt").latent_dim == 2  # the model can be had all the same


def test_what_does_not_change_is_no_state(tmp_path, recwarn):
    mask, options, p = torch.ones(6), {"weight": [0.5, 1.0]}, torch.distributions.Gamma(2.0, 1.0)

    class Weighted:
        def __init__(self, weight):
            self.weight = weight

        def __call__(self, model, q, x, num_samples):
            return sgvb_b(model, q, x * mask, num_samples) * options["weight"][1] * self.weight * (p.mean > 0)

    for epochs in (2, 4):
        train(
            model(), gray(), epochs=epochs, bound=Weighted(1.0), checkpoint=tmp_path / "run.pt", resume=True
        )
    assert not recwarn


def test_a_scheduler_inside_of_the_optimizer_is_found(tmp_path):
    def optimizer(p):
        made = torch.optim.SGD(p, 0.1)
        scheduler = CosineAnnealingLR(made, 10)
        made.register_step_post_hook(lambda *_: scheduler.step())
        return made

    with pytest.warns(UserWarning, match=r"optimizer's hook 1, .*lambda"):
        train(model(), gray(), epochs=1, optimizer=optimizer, checkpoint=tmp_path / "run.pt")


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"scheduler": 3}, TypeError, "scheduler must be a function of the optimizer"),
        ({"scheduler": lambda o: 3}, TypeError, r"scheduler must return an object .* int has no \.step"),
        (
            {"scheduler": lambda o: ReduceLROnPlateau(o, mode="max")},
            ValueError,
            "scheduler must have mode='min'",
        ),
        ({"state": 3}, TypeError, r"state must have \.state_dict\(\) .* int has no \.state_dict"),
        ({"state": {1: WarmUp()}}, TypeError, "state must have names of type str, got 1"),
        ({"patience": 0}, ValueError, "patience must be at least 1"),
        ({"patience": 2}, ValueError, "patience requires validation data"),
        ({"drop_last": 1}, TypeError, "drop_last must be True or False"),
        ({"drop_last": True, "batch_size": 77}, ValueError, "batch_size must be at most the 76 datapoints"),
        ({"seed": 10**23}, ValueError, r"seed must be at least -2\*\*63"),
        ({"device": "meta"}, ValueError, "got 'meta', which stores no values"),
        ({"on_epoch": 3}, TypeError, "on_epoch must be a function of the History, got int"),
        ({"learning_rate": True}, TypeError, "learning_rate must be a number"),
    ],
)
def test_bad_arguments(options, error, message):
    made = model()
    before = parameters(made)
    with pytest.raises(error, match=message):
        train(made, gray(), epochs=1, **options)
    assert torch.equal(parameters(made), before)


def test_another_schedule_is_refused(tmp_path):
    def go(length, **more):
        options = {"checkpoint": tmp_path / "run.pt", "resume": True, **more}
        return train(model(), gray(), epochs=2, scheduler=lambda o: CosineAnnealingLR(o, length), **options)

    go(5)
    with pytest.raises(ValueError, match=r"scheduler was CosineAnnealingLR\(T_max=5.*is now .*T_max=6"):
        go(6)
    with pytest.raises(ValueError, match="batch_size was 100, is now 76; drop_last was None, is now True"):
        go(5, drop_last=True, batch_size=76)
    with pytest.raises(ValueError, match="state was None, is now state: WarmUp"):
        go(5, state=WarmUp())


# --- schedules and patience


def test_a_scheduler_takes_a_step_an_epoch():
    rates = []

    def optimizer(p):
        made = torch.optim.SGD(p, 0.1)
        made.register_step_pre_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))
        return made

    train(
        model(), gray(), epochs=3, batch_size=38, optimizer=optimizer,
        scheduler=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5),
    )  # fmt: skip
    assert rates == pytest.approx([0.1] * 2 + [0.05] * 2 + [0.025] * 2)


def test_a_plateau_scheduler_gets_the_loss():
    class Plateau:
        def __init__(self):
            self.seen = []

        def step(self, metrics):
            self.seen.append(metrics)

        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            pass

    for validation in (gray(30), None):
        plateau = Plateau()
        history = train(model(), gray(), epochs=3, scheduler=lambda o, p=plateau: p, validation=validation)
        assert plateau.seen == [-value for value in history.validation or history.train]


def test_patience_keeps_the_best_epoch():
    """A learning rate that rises spoils the model after some epochs; what comes back is the best one."""
    states = []

    def keep(history):
        states.append(parameters(made))

    made = model()
    history = train(
        made, gray(), epochs=60, batch_size=25, validation=gray(30), patience=3, on_epoch=keep, learning_rate=0.01,
        scheduler=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 1.6),
    )  # fmt: skip
    best = history.best_epoch
    assert len(history.validation) == best + 3 < 60
    assert history.validation[best - 1] == max(history.validation)
    assert torch.equal(parameters(made), states[best - 1]) and not torch.equal(states[-1], states[best - 1])


def test_a_function_is_called_after_each_epoch(tmp_path):
    path, seen = tmp_path / "run.pt", []

    def progress(history):
        seen.append((len(history.train), torch.load(path, weights_only=True)["epoch"]))

    train(model(), gray(), epochs=2, on_epoch=progress, checkpoint=path)
    train(model(), gray(), epochs=3, on_epoch=progress, checkpoint=path, resume=True)
    assert seen == [(1, 1), (2, 2), (3, 3)]
    assert len(train(model(), gray(), epochs=5, on_epoch=lambda history: len(history.train) == 2).train) == 2
    noisy, quiet = model(), model()
    train(noisy, gray(), epochs=2, on_epoch=lambda history: torch.rand(3).max() > 1)
    train(quiet, gray(), epochs=2)
    assert torch.equal(parameters(noisy), parameters(quiet))


# --- the first edition


def test_a_checkpoint_of_the_first_edition_goes_on(tmp_path):
    x, path = torch.rand(60, 6, generator=torch.Generator().manual_seed(1)), tmp_path / "run.pt"
    path.write_bytes((FIRST_EDITION / "checkpoint.pt").read_bytes())
    results = []
    for options in ({}, {"checkpoint": path, "resume": True}):
        torch.manual_seed(0)
        made = VAE(6, 2, 4)
        options = {"batch_size": 25, "learning_rate": 0.01, "validation": x[:20], "device": "cpu", **options}
        history = train(made, x, epochs=4, **options)
        results.append((history.to_dict(), parameters(made)))
    (curves, end), (same, again) = results
    if (
        curves["train"][:2]
        == torch.load(FIRST_EDITION / "checkpoint.pt", weights_only=True)["history"]["train"]
    ):
        assert curves == same and torch.equal(end, again)  # on the kind of machine that wrote it
    assert torch.allclose(end, again, atol=1e-4)
