"""A guide: an encoder that gives each datum a Gaussian whose scale all data share.

python FILE.py                                         # a check, and a short training
pyro-mivae train vae --guide FILE.py:SharedScaleGuide  # a run folder, with a report
"""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

import pyro_mivae as mi


class SharedScaleGuide(PyroModule):
    """The posterior N(m(x), diag(s^2)) of z, with scales s that do not depend on x.

    The command line passes `data_shape`, `latent_dim` and others by name. Other arguments need a
    default.
    """

    def __init__(self, data_shape: Sequence[int], latent_dim: int = 20) -> None:
        super().__init__()
        size = int(torch.Size(data_shape).numel())
        self.mean = nn.Sequential(
            nn.Flatten(), nn.Linear(size, 256), nn.ReLU(), nn.Linear(256, latent_dim)
        )
        self.log_scale = nn.Parameter(torch.zeros(latent_dim))

    def forward(self, x: Tensor) -> None:
        """Samples the sites of the prior, given data of shape ``(batch, *data_shape)``."""
        # The plate says that the data are independent; model and guide open the same one.
        with pyro.plate("data", len(x)):
            # to_event(1): the coordinates of z are one vector per datum, no batch.
            pyro.sample("z", dist.Normal(self.mean(x), self.log_scale.exp()).to_event(1))


if __name__ == "__main__":
    digits = mi.load_dataset("digits")
    vae = mi.VAE(digits.data_shape, guide=SharedScaleGuide(digits.data_shape))
    print(mi.check(vae, digits.x_train[:64]))
    mi.fit(vae, digits.x_train, epochs=20, progress=True)
    print(mi.information(vae.model, vae.guide, digits.x_test))
