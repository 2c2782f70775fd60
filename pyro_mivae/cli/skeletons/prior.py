"""A prior: Gaussians on a ring, one for each category.

python FILE.py                                     # a check, and a short training
pyro-mivae train cat --prior FILE.py:RingPrior     # a run folder, with a report
"""

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor

import pyro_mivae as mi


class RingPrior(PyroModule):
    """A category c, and z given c near the c-th of K points on a circle.

    The command line passes sizes by name: `latent_dim` and `num_categories`. Other arguments need
    a default.
    """

    means: Tensor

    def __init__(self, latent_dim: int = 2, num_categories: int = 10, radius: float = 6.0) -> None:
        super().__init__()
        angles = 2 * math.pi * torch.arange(num_categories) / num_categories
        means = torch.zeros(num_categories, max(latent_dim, 2))
        means[:, 0], means[:, 1] = radius * angles.cos(), radius * angles.sin()
        # A buffer moves to the GPU with the model and is saved with it. A number to be learned is
        # a torch.nn.Parameter.
        self.register_buffer("means", means[:, :latent_dim])

    def forward(self) -> Tensor:
        """Samples the sites of one datum; the plate over the data is open already.

        Returns the tensor that the decoder decodes.
        """
        equal = self.means.new_ones(len(self.means))
        c = pyro.sample("c", dist.OneHotCategorical(equal))
        # Where c is summed out, it is a table of all its values, of shape (K, 1, K). A matrix
        # product broadcasts over its leading dimensions.
        return pyro.sample("z", dist.Normal(c @ self.means, 1.0).to_event(1))


if __name__ == "__main__":
    digits = mi.load_dataset("digits")
    vae = mi.CatVAE(digits.data_shape, prior=RingPrior())
    print(mi.check(vae, digits.x_train[:64]))
    mi.fit(vae, digits.x_train, epochs=20, progress=True)
    print(mi.information(vae.model, vae.guide, digits.x_test))
