r"""What does a weight on the KL divergence buy, and what does it cost?

    J  =  E_q[log p(x|z)]  -  beta * KL(q(z|x) || N(0, I))

A nat of rate now has to lower the distortion by beta nats. So the code drops what lowers it least:
the rate falls, the distortion rises, and dimensions of the code collapse. Neither the loss nor J
can be compared between weights; the ELBO, with weight 1, can.

    python examples/beta.py [--betas 0.25 1 4] [--data mnist --data-root DIR] [--smoke]

Expected (seed 0, 359 test digits):

    beta    elbo  distortion   rate  active
    0.25  -27.54       17.37  10.16      20
    1     -24.20       20.93   3.27       5
    4     -27.04       27.04   0.01       0      nothing is worth 4 nats: the code collapses

Departures from the paper: digits in place of images with known factors, and the trade-off of
distortion against rate in place of a score of disentanglement.

Higgins et al. (2017), beta-VAE; Alemi et al. (2018), https://arxiv.org/abs/1711.00464
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from common import nats_per_image, parser, start, table
from pyro.infer import SVI
from pyro.optim import Adam

import pyro_mivae as mi

EPOCHS = 100
BETAS = [0.25, 1.0, 4.0]
ACTIVE = 0.01  # variance of the posterior mean from which a dimension counts as in use


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Trains a beta-VAE for each weight and prints a row for each.

    Args:
        argv: The command line; the process's if omitted.

    Returns:
        The numbers printed, their names ending in the weight.
    """
    command = parser(__doc__, epochs=EPOCHS)
    command.add_argument("--betas", type=float, nargs="+", default=BETAS)
    command.add_argument("--latent-dim", type=int, default=20)
    args = command.parse_args(argv)

    rows = {}
    for beta in args.betas:
        images = start(args)  # the same seed for every weight
        vae = mi.BetaVAE(images.data_shape, beta=beta, latent_dim=args.latent_dim)
        vae.to(args.device)
        elbo = vae.objective()
        print(mi.explain(elbo))
        svi = SVI(vae.model, vae.guide, Adam({"lr": args.lr}), loss=elbo)

        for _ in range(args.epochs):
            order = torch.randperm(len(images.x_train))
            for x in images.x_train[order].split(args.batch_size):
                svi.step(x)

        row = nats_per_image(vae, elbo, images.x_test)
        spread = vae.encode(images.x_test)["z"].var(0)  # (latent_dim,)
        row["active"] = float((spread > ACTIVE).sum())
        rows[f"beta {beta:g}"] = row

    table(rows, ["elbo", "distortion", "rate", "loss", "active"])
    return {f"{k}_{name.split()[1]}": v for name, row in rows.items() for k, v in row.items()}


if __name__ == "__main__":
    main()
