"""numpyro: the same model and guide on JAX, a whole epoch in one compiled loop, as in its VAE example."""

import os
from typing import Any

from protocol import serve

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpyro
from jax import Array, lax, random
from jax import numpy as jnp
from jax.nn import softplus
from numpyro import distributions as dist
from numpyro.infer import SVI, Trace_ELBO


def layer(key: Array, width_in: int, width_out: int) -> tuple[Array, Array]:
    """Weight and bias as `torch.nn.Linear` starts them."""
    limit = width_in**-0.5
    return tuple(
        random.uniform(k, s, minval=-limit, maxval=limit)
        for k, s in zip(  # type: ignore[return-value]
            random.split(key), [(width_in, width_out), (width_out,)], strict=True
        )
    )


def network(parameters: Any, x: Array) -> Array:
    """One hidden layer of tanh."""
    (w, b), (v, c) = parameters
    return jnp.tanh(x @ w + b) @ v + c


def make(x: Any, test: Any, settings: dict[str, Any]) -> tuple[Any, Any]:
    """Build model, guide and SVI."""
    data, hidden, latent = jnp.asarray(x), settings["hidden_dim"], settings["latent_dim"]
    keys = random.split(random.PRNGKey(0), 5)
    start = {
        "encoder": (layer(keys[0], x.shape[1], hidden), layer(keys[1], hidden, 2 * latent)),
        "decoder": (layer(keys[2], latent, hidden), layer(keys[3], hidden, x.shape[1])),
    }

    def encode(parameters: Any, images: Array) -> tuple[Array, Array]:
        mean, log_variance = jnp.split(network(parameters, images), 2, -1)
        return mean, log_variance

    def model(batch: Array) -> None:
        parameters = numpyro.param("decoder", start["decoder"])
        with numpyro.plate("images", len(batch)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros((len(batch), latent)), 1.0).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=network(parameters, z)).to_event(1), obs=batch)

    def guide(batch: Array) -> None:
        mean, log_variance = encode(numpyro.param("encoder", start["encoder"]), batch)
        with numpyro.plate("images", len(batch)):
            numpyro.sample("z", dist.Normal(mean, jnp.exp(0.5 * log_variance)).to_event(1))

    svi = SVI(model, guide, numpyro.optim.Adam(1e-3), Trace_ELBO())
    state = svi.init(keys[4], data[: settings["batch_size"]])

    @jax.jit
    def run(state: Any, key: Array) -> Any:
        batches = random.permutation(key, len(data))
        batches = batches[: len(data) // settings["batch_size"] * settings["batch_size"]]

        def step(state: Any, index: Array) -> Any:
            return svi.update(state, data[index])

        return lax.scan(step, state, batches.reshape(-1, settings["batch_size"]))

    held = [state, random.PRNGKey(1)]

    def epoch() -> None:
        held[1], key = random.split(held[1])
        held[0], losses = run(held[0], key)
        losses.block_until_ready()

    def elbo() -> float:
        parameters, images = svi.get_params(held[0]), jnp.asarray(test)
        mean, log_variance = encode(parameters["encoder"], images)
        kl = 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance).sum(-1)
        z = mean + jnp.exp(0.5 * log_variance) * random.normal(keys[4], (10, *mean.shape))
        logits = network(parameters["decoder"], z)
        return float((images * logits - softplus(logits)).sum(-1).mean(0).mean() - kl.mean())

    return epoch, elbo


serve(make)
