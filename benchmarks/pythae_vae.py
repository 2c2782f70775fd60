"""pythae's VAE with the layers of ours, trained by pythae's trainer (``pip install pythae``)."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from typing import Any

from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from torch import Tensor


class Encoder(BaseEncoder):
    """Our encoder, with pythae's log-variance."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.layers = vae.guide.encoder
        (self.linear,) = vae.guide.heads[0].maps

    def forward(self, x: Tensor) -> ModelOutput:
        """From images to the parameters of q(z|x)."""
        features = self.layers(x)
        loc, log_variance = self.linear(features).chunk(2, 1)
        return ModelOutput(embedding=loc, log_covariance=log_variance)


class Decoder(BaseDecoder):
    """Our decoder, with the logistic function that pythae's cross-entropy needs."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.layers = vae.model.decoder

    def forward(self, z: Tensor) -> ModelOutput:
        """From codes to images."""
        return ModelOutput(reconstruction=self.layers(z).sigmoid())


def train_by_pythae(
    vae: Any, x: Tensor, batch_size: int, epochs: int, on_epoch: Callable[..., None]
) -> None:
    """Trains networks of a variant's layers by pythae's trainer."""

    class EpochEnd(TrainingCallback):
        def on_epoch_end(self, training_config: Any, **_: Any) -> None:
            on_epoch()

    logging.getLogger("pythae").setLevel(logging.WARNING)
    logging.getLogger("pythae.trainers.base_trainer.base_trainer").setLevel(logging.WARNING)
    config = VAEConfig(
        input_dim=tuple(x.shape[1:]), latent_dim=vae.latent_dim, reconstruction_loss="bce"
    )
    model = VAE(config, encoder=Encoder(vae), decoder=Decoder(vae))
    with tempfile.TemporaryDirectory() as folder:
        settings = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=epochs,
            per_device_train_batch_size=batch_size,
            learning_rate=1e-3,
            no_cuda=x.device.type != "cuda",
        )
        data = BaseDataset(x.cpu(), x.new_zeros(len(x)).cpu())
        trainer = BaseTrainer(model, data, training_config=settings, callbacks=[EpochEnd()])
        trainer.train()
