r"""Models of figure 2 as one batched model, for a GPU, where the time of a small model's step is all kernel launches.

Chapter 12. The parameters of K models are stacked, ``[K, ...]``, and their products are batched. Models with fewer
latent dimensions are padded to the largest number, and a mask removes the padding: its codes are 0, its terms are left
out of every density, and so its parameters have no gradient and stay 0. All models see the same minibatches and the
same black and white pixels; each has its own noise. The draws differ from those of curves that are trained one by one.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vaetut.distributions._special import HALF_LOG_2PI
from vaetut.experiments.trainer import BATCH_SIZE, new_model
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
        # the models share no parameters, so the gradient of the sum contains that of each
        loss = -self.objectives(batch).sum()
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
