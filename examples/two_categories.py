r"""What do two categories and an angle find?

    J  =  sum_kind sum_shade q(kind|x) q(shade|x) { E_q[log p(x|code)] - KL of style and angle }
          - KL(q(kind|x) || p(kind)) - KL(q(shade|x) || p(shade))

    kind ~ U{1..10},   shade ~ U{1..2},   style ~ N(m_kind + m_shade, I),   angle on the circle

A prior draws any number of sites of any names, and returns what is decoded. The guide is built
from the prior: it marks both categories for enumeration and gives the angle a distribution on the
circle. The exact sum has 10 * 2 = 20 summands, as `mi.explain` says; ``--categorical sample``
decodes two of them, without bias.

    python examples/two_categories.py [--categorical sample] [--data mnist] [--smoke]

Expected (seed 0, 359 test digits):

             elbo  kl_kind  kl_shade  kl_style  kl_angle      nmi  accuracy
    test   -24.66     2.26      0.67      1.37      0.00     0.45      0.88

Both categories are fully used (log 10 = 2.30 and log 2 = 0.69 nats), but by `nmi` the kind nearly
half determines the shade. The angle is not used. The accuracy is that of the kind.

Departures: no paper. The start clusters the images by each category alone; nothing stops the two
from finding the same clusters.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from common import nats_per_image, parser, start, table
from pyro.infer import SVI
from pyro.nn import PyroModule
from pyro.optim import Adam
from torch import Tensor, nn

import pyro_mivae as mi
from pyro_mivae.metrics import cluster_accuracy, normalised_mutual_information
from pyro_mivae.spherical import SphericalUniform

EPOCHS = 60
KINDS, SHADES, STYLE = 10, 2, 8


class KindShadeAngle(PyroModule):
    """Two categories, a style whose mean they give, and a direction in the plane."""

    def __init__(self) -> None:
        super().__init__()
        self.of_kind = nn.Parameter(2 * torch.randn(KINDS, STYLE))
        self.of_shade = nn.Parameter(2 * torch.randn(SHADES, STYLE))

    def forward(self) -> Tensor:
        """Samples the sites, returns the code, shape ``(..., batch, STYLE + 2)``."""
        zeros = self.of_kind.new_zeros(KINDS)
        kind = pyro.sample("kind", dist.OneHotCategorical(logits=zeros))
        shade = pyro.sample("shade", dist.OneHotCategorical(logits=zeros[:SHADES]))
        mean = kind @ self.of_kind + shade @ self.of_shade
        style = pyro.sample("style", dist.Normal(mean, torch.ones_like(mean)).to_event(1))
        angle = pyro.sample("angle", SphericalUniform(2, zeros))
        batch = torch.broadcast_shapes(style.shape[:-1], angle.shape[:-1])
        return torch.cat([style.expand(*batch, -1), angle.expand(*batch, -1)], -1)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Trains a CatVAE with two categories.

    Args:
        argv: The command line; the process's if omitted.

    Returns:
        The numbers printed.
    """
    command = parser(__doc__, epochs=EPOCHS)
    command.add_argument("--categorical", default="enumerate", help="enumerate, sample, ...")
    args = command.parse_args(argv)
    images = start(args)

    warm_start = 5 if args.smoke else None
    vae = mi.CatVAE(
        images.data_shape,
        prior=KindShadeAngle(),
        categorical=args.categorical,
        warm_start=warm_start,
    ).to(args.device)
    vae.initialize(images.x_train)
    steps_per_epoch = -(-len(images.x_train) // args.batch_size)
    elbo = vae.objective(num_steps=args.epochs * steps_per_epoch)
    print(mi.explain(elbo))
    svi = SVI(vae.model, vae.guide, Adam({"lr": args.lr}), loss=elbo)
    for epoch in range(1, args.epochs + 1):
        order = torch.randperm(len(images.x_train))
        loss = sum(svi.step(x) for x in images.x_train[order].split(args.batch_size))
        if epoch == 1 or epoch % 20 == 0:
            print(f"epoch {epoch:3d}  loss {loss / len(order):.2f} nats per training image")

    metrics = nats_per_image(vae, elbo, images.x_test)
    vae.eval()
    codes = vae.encode(images.x_test)
    kind, shade = codes["kind"].argmax(-1), codes["shade"].argmax(-1)
    metrics["nmi"] = normalised_mutual_information(kind, shade)
    columns = ["elbo", "kl_kind", "kl_shade", "kl_style", "kl_angle", "nmi"]
    if images.y_test is not None:
        metrics["accuracy"] = cluster_accuracy(kind, images.y_test)
        columns.append("accuracy")
    table({"test": metrics}, columns)
    vae.sample(3, category={"kind": 3, "shade": 1})  # three images of one configuration
    return metrics


if __name__ == "__main__":
    main()
