r"""How much information does a VAE's code hold about an image, and at what rate?

    log p(x)  >=  J  =  E_q[log p(x|z)]  -  KL(q(z|x) || N(0, I))
                     =  -distortion      -  rate                      nats per image

The rate is an upper bound on I_q(x; z), the information of the code about the image. Their
difference is KL(q(z) || p(z)), the cost of codes that are not spread like the prior.

    python examples/vae.py [--latent-dim 20] [--data mnist --data-root DIR] [--smoke]

Expected (seed 0, 359 test digits): ELBO -24.20, distortion 20.93, rate 3.27; I_q(x; z) between
2.98 and 3.10, in 5 of 20 dimensions; log p(x) at least -23.81. Seeds 1 and 2: ELBO -24.12, -24.05.
The lower bound on I_q cannot exceed log N, 5.88 here; if a code holds more (MNIST: 18 nats of
rate, log N = 9.21), the bounds are far apart.

Departures from the paper: scikit-learn's 8×8 digits, grey values in [0, 1] scored by their
cross-entropy (not a log-probability); two hidden layers of 256, batch norm in the encoder; Adam.

Kingma & Welling (2014), Auto-Encoding Variational Bayes, https://arxiv.org/abs/1312.6114
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from common import nats_per_image, parser, start, table
from pyro.infer import SVI
from pyro.optim import Adam

import pyro_mivae as mi

EPOCHS = 100


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Trains a VAE and prints where its nats go.

    Args:
        argv: The command line; the process's if omitted.

    Returns:
        The numbers printed, in nats per test image.
    """
    command = parser(__doc__, epochs=EPOCHS)
    command.add_argument("--latent-dim", type=int, default=20)
    args = command.parse_args(argv)
    images = start(args)

    vae = mi.VAE(images.data_shape, latent_dim=args.latent_dim).to(args.device)
    elbo = vae.objective()
    print(mi.explain(elbo))
    svi = SVI(vae.model, vae.guide, Adam({"lr": args.lr}), loss=elbo)

    for epoch in range(1, args.epochs + 1):
        order = torch.randperm(len(images.x_train))
        loss = sum(svi.step(x) for x in images.x_train[order].split(args.batch_size))
        if epoch == 1 or epoch % 20 == 0:
            print(f"epoch {epoch:3d}  loss {loss / len(order):.2f} nats per training image")

    metrics = nats_per_image(vae, elbo, images.x_test)
    table({"test": metrics}, ["elbo", "distortion", "rate"])

    known = mi.information(vae.model, vae.guide, images.x_test).to_dict()
    metrics |= {name: known[name] for name in ("mi_lower", "mi_upper", "log_px", "active_units")}
    print(
        f"I_q(x; z) is between {known['mi_lower']:.2f} and {known['mi_upper']:.2f} nats,", end=" "
    )
    print(f"in {known['active_units']:.0f} of {vae.latent_dim} dimensions;", end=" ")
    print(f"log p(x) is at least {known['log_px']:.2f} (64 importance samples)")
    return metrics


if __name__ == "__main__":
    main()
