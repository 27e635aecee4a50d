"""pythae: its VAE and its trainer, with the networks of the other peers."""

import logging
import tempfile
from typing import Any

import torch
from networks import elbo, networks
from protocol import serve
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import Tensor, nn


class Encoder(BaseEncoder):  # type: ignore[misc]
    """To mean and log variance."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        """What pythae calls an embedding."""
        mean, log_variance = self.network(x).chunk(2, -1)
        return ModelOutput(embedding=mean, log_covariance=log_variance)


class Decoder(BaseDecoder):  # type: ignore[misc]
    """To probabilities, which pythae's loss takes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> Any:
        """What pythae calls a reconstruction."""
        return ModelOutput(reconstruction=torch.sigmoid(self.network(z)))


def make(x: Any, test: Any, settings: dict[str, Any]) -> tuple[Any, Any]:
    """Build the model and its trainer."""
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    logging.disable()
    encoder, decoder = networks(x.shape[1], settings)
    config = VAEConfig(input_dim=(x.shape[1],), latent_dim=settings["latent_dim"], reconstruction_loss="bce")
    images = BaseDataset(torch.from_numpy(x), torch.zeros(len(x)))
    training = BaseTrainerConfig(
        output_dir=tempfile.mkdtemp(),
        num_epochs=1,
        learning_rate=1e-3,
        per_device_train_batch_size=settings["batch_size"],
        optimizer_cls="Adam",
        no_cuda=True,
    )
    trainer = BaseTrainer(VAE(config, Encoder(encoder), Decoder(decoder)), images, training_config=training)
    trainer.prepare_training()
    trainer.callback_handler.on_train_begin(
        training_config=trainer.training_config, model_config=trainer.model_config
    )
    count = iter(range(1, 10**9))
    return lambda: trainer.train_step(next(count)), lambda: elbo(encoder, decoder, torch.from_numpy(test))


serve(make)
