r"""Which prior suits the codes?

    J  =  E_q[log p(x|z)]  -  KL(q(z|x) || p(z)),    the same networks, one prior after another

    normal              z ~ N(0, I)
    student-t           independent heavy tails, variance 1
    marginal-mixture    ten learned Gaussians, their category summed out of the density
    coupling-flow       an invertible network of a normal (Pyro's affine coupling)
    vamp                the mixture of the posteriors of 50 learned pseudo-inputs

The KL divergence has a closed form for the normal alone; for the others it is log q - log p at the
one draw that the decoder sees. A prior changes what a code costs (`rate`) and, through training,
what the decoder makes of it (`distortion`). Samples come from the prior itself.

    python examples/which_prior.py [--priors normal vamp] [--latent-dim 10] [--smoke]

Expected (seed 0, 359 test digits): EXPECTED

Departures: no paper; grey pixels under a Bernoulli likelihood, so the numbers compare with each
other alone.

Tomczak & Welling (2018), VAE with a VampPrior, https://arxiv.org/abs/1705.07120
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from common import nats_per_image, parser, start, table
from pyro.infer import SVI
from pyro.optim import Adam

import pyro_mivae as mi
from pyro_mivae.priors import PRIORS

EPOCHS = 60
NAMES = ("normal", "student-t", "marginal-mixture", "coupling-flow", "vamp")


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Trains a VAE with each prior.

    Args:
        argv: The command line; the process's if omitted.

    Returns:
        The ELBO of each, per test image.
    """
    command = parser(__doc__, epochs=EPOCHS)
    command.add_argument("--latent-dim", type=int, default=10)
    command.add_argument("--priors", nargs="+", default=NAMES, choices=[*PRIORS])
    args = command.parse_args(argv)

    rows = {}
    for name in args.priors:
        images = start(args)
        prior = PRIORS[name](latent_dim=args.latent_dim)
        vae = mi.VAE(images.data_shape, prior=prior).to(args.device)
        vae.initialize(images.x_train)  # a VampPrior starts from data
        elbo = vae.objective()
        if not rows:
            print(mi.explain(elbo))
        svi = SVI(vae.model, vae.guide, Adam({"lr": args.lr}), loss=elbo)

        for _ in range(args.epochs):
            order = torch.randperm(len(images.x_train))
            loss = sum(svi.step(x) for x in images.x_train[order].split(args.batch_size))
        print(f"{name}: loss {loss / len(order):.2f} nats per training image")
        rows[name] = nats_per_image(vae, elbo, images.x_test)

    table(rows, ["elbo", "distortion", "rate"])
    return {name: row["elbo"] for name, row in rows.items()}


if __name__ == "__main__":
    main()
