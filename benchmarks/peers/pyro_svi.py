"""Pyro: stochastic variational inference with a model and a guide. It gets its batches as slices, without a loader."""

from typing import Any

import pyro
import torch
from networks import elbo, networks
from protocol import serve
from pyro import distributions as dist
from pyro.infer import SVI, Trace_ELBO
from torch import Tensor


def make(x: Any, test: Any, settings: dict[str, Any]) -> tuple[Any, Any]:
    """Build model, guide and SVI."""
    torch.set_num_threads(settings["threads"])
    pyro.set_rng_seed(0)
    pyro.enable_validation(False)
    encoder, decoder = networks(x.shape[1], settings)
    encoder, decoder = encoder.to(settings["device"]), decoder.to(settings["device"])
    data = torch.from_numpy(x).to(settings["device"])

    def model(batch: Tensor) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("images", len(batch)):
            shape = (len(batch), settings["latent_dim"])
            z = pyro.sample("z", dist.Normal(batch.new_zeros(shape), batch.new_ones(shape)).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z), validate_args=False).to_event(1), obs=batch)

    def guide(batch: Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("images", len(batch)):
            mean, log_variance = encoder(batch).chunk(2, -1)
            pyro.sample("z", dist.Normal(mean, (0.5 * log_variance).exp()).to_event(1))

    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), loss=Trace_ELBO())

    def epoch() -> float:
        order = torch.randperm(len(data), device=data.device)
        total = sum(svi.step(data[index]) for index in order.split(settings["batch_size"]))
        if settings["device"] != "cpu":
            torch.cuda.synchronize()
        return total

    return epoch, lambda: elbo(encoder, decoder, torch.from_numpy(test).to(settings["device"]))


serve(make)
