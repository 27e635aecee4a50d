r"""All curves of figure 2 as one batched model, for a GPU, where the time of a small model's step is all kernel
launches: chapter 12.

The parameters of K models are stacked, ``[K, ...]``, and their products are batched. Models with fewer latent
dimensions are padded to the largest number, and a mask removes the padding: its codes are 0, its terms are left out of
every density, and so its parameters have no gradient and stay 0. All models see the same minibatches and the same
black and white pixels; each has its own noise. The draws differ from those of curves that are trained one by one.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vaetut.aevb.devices import usable_device
from vaetut.distributions._special import HALF_LOG_2PI
from vaetut.experiments.runner import Experiment, Settings, write
from vaetut.experiments.runs import checkpoints, results, write_state
from vaetut.experiments.trainer import BATCH_SIZE, LEARNING_RATES, new_model
from vaetut.models import VAE

_EPS = 1e-10  # of Adagrad, as in torch


class Batched:
    """K models with one hidden layer each, black-and-white pixels, and Adagrad, stepped together.

    Args:
        kinds: for each model its method, ``"AEVB"`` or ``"wake-sleep"``, its latent dimension and its learning rate.
        x: ``[N, D]``, gray or black and white, on the device of the models.
        hidden_dim: units of each hidden layer.
        seed: of initial parameters (those of `new_model`), minibatches and noise.

    Example:
        >>> from vaetut import load
        >>> models = Batched([("AEVB", 2, 0.02), ("wake-sleep", 3, 0.01)], load("digits").train, hidden_dim=20)
        >>> models.advance(1000)
        >>> models.samples, models.model(1).latent_dim
        (1000, 3)
    """

    def __init__(
        self, kinds: Sequence[tuple[str, int, float]], x: Tensor, hidden_dim: int, seed: int = 0
    ) -> None:
        if len(x) < BATCH_SIZE:
            raise ValueError(f"x must have at least {BATCH_SIZE} rows, one minibatch, got {len(x)}")
        self.kinds, self.x, self.hidden_dim, self.seed = list(kinds), x, hidden_dim, seed
        device, self.width = x.device, max(latent for _, latent, _ in kinds)
        # AEVB's models first, so that the models of each method are a slice
        self.order = sorted(range(len(kinds)), key=lambda k: self.kinds[k][0] != "AEVB")
        ordered = [self.kinds[k] for k in self.order]
        self.num_aevb = sum(method == "AEVB" for method, _, _ in ordered)
        self.mask = torch.zeros(len(ordered), 1, self.width, device=device)
        for row, (_, latent, _) in zip(self.mask, ordered, strict=True):
            row[:, :latent] = 1
        stacks = [
            self._padded(new_model(x.shape[1], latent, hidden_dim, seed=seed)) for _, latent, _ in ordered
        ]
        self.parameters = {
            name: torch.stack([stack[name] for stack in stacks]).to(device).requires_grad_()
            for name in stacks[0]
        }
        self.sums = {name: torch.zeros_like(value) for name, value in self.parameters.items()}
        self.rates = torch.tensor([rate for _, _, rate in ordered], device=device)
        self.generator = torch.Generator(device).manual_seed(seed)
        self.visits = 0
        self.seconds = self.cpu_seconds = 0.0
        self._epoch, self._permutation = -1, torch.empty(0, dtype=torch.long)

    @property
    def samples(self) -> int:
        """Training samples evaluated by each model."""
        return self.visits * BATCH_SIZE

    def advance(self, samples: int) -> None:
        """Train until each model has evaluated at least this many training samples."""
        start, cpu_start = time.perf_counter(), time.process_time()
        while self.samples < samples:
            gray = self.x[self._next_index()]
            batch = (torch.rand(gray.shape, device=gray.device, generator=self.generator) < gray).to(
                gray.dtype
            )
            self.step(batch)
            self.visits += 1
        if self.x.device.type == "cuda":
            torch.cuda.synchronize(self.x.device)
        self.seconds += time.perf_counter() - start
        self.cpu_seconds += time.process_time() - cpu_start

    def step(self, batch: Tensor) -> None:
        """One step of Adagrad for every model; the prior on the parameters is a weight decay of 1/N."""
        names = list(self.parameters)
        loss = -self.objectives(
            batch
        ).sum()  # the models share no parameters, so the gradient of the sum contains that of each
        gradients = torch.autograd.grad(loss, [self.parameters[name] for name in names])
        with torch.no_grad():
            for name, gradient in zip(names, gradients, strict=True):
                value, total = self.parameters[name], self.sums[name]
                gradient = gradient.add(value, alpha=1 / len(self.x))
                total.addcmul_(gradient, gradient)
                rate = self.rates.view(-1, *[1] * (value.dim() - 1))
                value.sub_(rate * gradient / (total.sqrt() + _EPS))

    def objectives(self, batch: Tensor, noise: Tensor | None = None) -> Tensor:
        """The objective of each model, its mean over the minibatch ``[M, D]``: ``[K]``, AEVB's models first.

        For tests, ``noise``, ``[K, M, width]``, replaces the noise of the codes of ``batch``.
        """
        count, size = len(self.kinds), len(batch)
        if noise is None:
            noise = self._randn(count, size)
        aevb, rest = slice(0, self.num_aevb), slice(self.num_aevb, count)
        parts = []
        if self.num_aevb:
            mean, log_variance = self._encode(aevb, batch)
            mask = self.mask[aevb]
            z = (mean + (0.5 * log_variance).exp() * noise[aevb]) * mask
            kl = 0.5 * ((mean.square() + log_variance.exp() - 1 - log_variance) * mask).sum(-1)
            parts.append((self._log_likelihood(aevb, z, batch) - kl).mean(-1))
        if self.num_aevb < count:
            mask = self.mask[rest]
            with torch.no_grad():
                mean, log_variance = self._encode(rest, batch)
                z = (mean + (0.5 * log_variance).exp() * noise[rest]) * mask
                dreamed = self._randn(count, size)[rest] * mask
                probability = self._decode(rest, dreamed).sigmoid()
                uniform = torch.rand(probability.shape, device=batch.device, generator=self.generator)
                dream = (uniform < probability).to(batch.dtype)
            log_prior = -((0.5 * z.square() + HALF_LOG_2PI) * mask).sum(-1)
            wake = self._log_likelihood(rest, z, batch) + log_prior
            mean, log_variance = self._encode(rest, dream)
            error = (dreamed - mean).square() * (-log_variance).exp()
            sleep = -((0.5 * (error + log_variance) + HALF_LOG_2PI) * mask).sum(-1)
            parts.append((wake + sleep).mean(-1))
        return torch.cat(parts)

    def model(self, k: int) -> VAE:
        """The k-th model, in the order of ``kinds``, as a separate `vaetut.VAE` on the CPU."""
        row, (_, latent, _) = self.order.index(k), self.kinds[k]
        model = VAE(self.x.shape[1], latent, self.hidden_dim)
        values = {name: value[row].detach().cpu() for name, value in self.parameters.items()}
        for name in ("encoder.2.weight", "encoder.2.bias"):  # means, then log variances
            values[name] = torch.cat([half[:latent] for half in values[name].chunk(2)])
        values["decoder.0.weight"] = values["decoder.0.weight"][:, :latent]
        model.load_state_dict(values, strict=False)
        return model

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs."""
        return {
            "parameters": {name: value.detach() for name, value in self.parameters.items()},
            "sums": self.sums,
            "random_state": self.generator.get_state(),
            "visits": self.visits,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(state["parameters"][name])
                self.sums[name].copy_(state["sums"][name])
        self.generator.set_state(state["random_state"].cpu())
        self.visits, self.seconds, self.cpu_seconds = (
            state[key] for key in ("visits", "seconds", "cpu_seconds")
        )

    def _padded(self, model: VAE) -> dict[str, Tensor]:
        """A model's parameters, padded with zeros to the largest latent dimension."""
        values = {name: value.detach() for name, value in model.named_parameters()}
        more = self.width - model.latent_dim
        for name in ("encoder.2.weight", "encoder.2.bias"):
            halves = values[name].chunk(2)
            values[name] = torch.cat(
                [torch.cat([half, half.new_zeros(more, *half.shape[1:])]) for half in halves]
            )
        weight = values["decoder.0.weight"]
        values["decoder.0.weight"] = torch.cat([weight, weight.new_zeros(len(weight), more)], dim=1)
        return values

    def _network(self, which: slice, name: str, value: Tensor) -> Tensor:
        for layer in (0, 2):
            weight, bias = (self.parameters[f"{name}.{layer}.{part}"][which] for part in ("weight", "bias"))
            value = torch.baddbmm(bias.unsqueeze(1), value, weight.mT)
            value = value.tanh() if layer == 0 else value
        return value

    def _encode(self, which: slice, x: Tensor) -> tuple[Tensor, Tensor]:
        count = len(range(*which.indices(len(self.kinds))))
        output = self._network(which, "encoder", x if x.dim() == 3 else x.expand(count, *x.shape))
        mean, log_variance = output.chunk(2, dim=-1)
        return mean, log_variance

    def _decode(self, which: slice, z: Tensor) -> Tensor:
        return self._network(which, "decoder", z)

    def _log_likelihood(self, which: slice, z: Tensor, x: Tensor) -> Tensor:
        logits = self._decode(which, z)
        return (logits * x - torch.nn.functional.softplus(logits)).sum(-1)

    def _randn(self, count: int, size: int) -> Tensor:
        return torch.randn(count, size, self.width, device=self.x.device, generator=self.generator)

    def _next_index(self) -> Tensor:
        """The rows of the next minibatch, in the order of the other trainers."""
        epoch, position = divmod(self.visits, len(self.x) // BATCH_SIZE)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(1_000_003 * self.seed + epoch)
            order = torch.randperm(len(self.x), generator=generator)
            self._permutation, self._epoch = order.to(self.x.device), epoch
        return self._permutation[position * BATCH_SIZE :][:BATCH_SIZE]


def run_together(
    experiment: Experiment,
    settings: Settings,
    x: Tensor,
    score: Callable[[VAE], float],
    evaluate: Callable[[VAE], dict[str, Any]],
) -> dict[str, Any]:
    """Grow all curves of figure 2 together, as `vaetut.experiments.runner.run` grows them one by one.

    The state of all curves is one file in the state folder, written after each point.

    Args:
        experiment: figure 2.
        settings: its settings.
        x: ``[N, D]``, the training images.
        score: the performance on the training set by which a learning rate is chosen; larger is better.
        evaluate: the numbers of a point.

    Raises:
        ValueError: if the state folder holds a run with other settings, or the device does not exist.
        FloatingPointError: if a model diverges with every rate, or with its own.
    """
    kinds = [(method, latent) for latent in settings.latent_dims for method in settings.methods]
    images = x.to(usable_device(settings.device, "device must be one of this machine"))
    identity = {**experiment.shared(settings), "kinds": [list(kind) for kind in kinds]}
    path = settings.state_file("figure2", "together")
    notes: list[dict[str, Any]]
    points: list[list[dict[str, Any]]] = [[] for _ in kinds]
    saved = torch.load(path, weights_only=True) if path is not None and path.exists() else None
    if saved is not None and saved["settings"] != identity:
        raise ValueError(
            f"{path} holds a run with {saved['settings']}, not {identity}; "
            "name another --state folder, or remove that file"
        )
    notes = saved["notes"] if saved else _pick(kinds, images, settings, score)
    models = Batched(
        [(*kind, note["learning_rate"]) for kind, note in zip(kinds, notes, strict=True)],
        images,
        settings.hidden_dim,
        settings.seed,
    )
    if saved is not None:
        points = saved["points"]
        models.load_state_dict(saved["models"])

    def report() -> dict[str, Any]:
        own = {"hidden_dim": settings.hidden_dim, "data": settings.data, "seed": settings.seed}
        curves = [
            {"method": method, "latent_dim": latent, **own, **note, "points": reached}
            for (method, latent), note, reached in zip(kinds, notes, points, strict=True)
            if reached
        ]
        shared = experiment.shared(settings) | {"together": len(kinds), "device": _name(images.device)}
        made = results(experiment.name, settings.command, shared, curves=curves)
        write(experiment.name, settings, made)
        return made

    start = time.monotonic()
    for point in checkpoints(settings.samples, experiment.per_decade):
        if models.samples >= point:
            continue
        models.advance(point)
        for reached, numbers in zip(points, _point(models, kinds, notes, evaluate), strict=True):
            reached.append(numbers)
        if path is not None:
            state = {"settings": identity, "notes": notes, "points": points}
            write_state(path, {**state, "models": models.state_dict()})
        report()
        if settings.progress:
            for kind, reached in zip(kinds, points, strict=True):
                print(f"{kind[0]}, {kind[1]}: {reached[-1]}", flush=True)
        if settings.minutes is not None and time.monotonic() - start > 60 * settings.minutes:
            break
    return report()


def _point(
    models: Batched,
    kinds: list[tuple[str, int]],
    notes: list[dict[str, Any]],
    evaluate: Callable[[VAE], dict[str, Any]],
) -> list[dict[str, Any]]:
    """The numbers of a point of each curve, once it is clear that all are finite."""
    # of all models together
    times = {"seconds": round(models.seconds, 1), "cpu_seconds": round(models.cpu_seconds, 1)}
    point = []
    for k, kind in enumerate(kinds):
        numbers = {"samples": models.samples, **evaluate(models.model(k))}
        if not all(map(math.isfinite, numbers.values())):
            raise FloatingPointError(
                f"{kind} is not finite after {models.samples} samples; "
                f"the learning rate, {notes[k]['learning_rate']:g}, may be too large"
            )
        point.append(numbers | times)
    return point


def _pick(
    kinds: Sequence[tuple[str, int]], x: Tensor, settings: Settings, score: Callable[[VAE], float]
) -> list[dict[str, Any]]:
    """The learning rate of each model, from a trial of all rates together."""
    tried = [(*kind, rate) for kind in kinds for rate in LEARNING_RATES]
    models = Batched(tried, x, settings.hidden_dim, settings.seed)
    models.advance(settings.trial)
    notes = []
    for k, kind in enumerate(kinds):
        found = {
            rate: score(models.model(k * len(LEARNING_RATES) + i)) for i, rate in enumerate(LEARNING_RATES)
        }
        usable = {rate: value for rate, value in found.items() if math.isfinite(value)}
        if not usable:
            raise FloatingPointError(f"{kind} diverged with every learning rate of {LEARNING_RATES}")
        trials = {f"{rate:g}": round(value, 2) if rate in usable else None for rate, value in found.items()}
        notes.append({"learning_rate": max(usable, key=lambda rate: usable[rate]), "trials": trials})
    return notes


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
