r"""Which prior suits the codes?

    J  =  E_q[log p(x|z)]  -  KL(q(z|x) || p(z)),    the same networks, one prior after another

    normal              z ~ N(0, I)
    student-t           independent heavy tails, variance 1
    marginal-mixture    ten learned Gaussians, their category summed out of the density
    coupling-flow       an invertible network of a normal (Pyro's affine coupling)
    vamp                the mixture of the posteriors of 50 learned pseudo-inputs

The KL divergence has a closed form for the normal only. For the others it is log q - log p at the
draw that is decoded, and its gradient leaves the score out. A prior changes the `rate` directly,
and the `distortion` through training.

    python examples/which_prior.py [--priors normal vamp] [--latent-dim 10] [--smoke]

Expected (seed 0, 359 test digits):

                         elbo  distortion     rate
    normal             -24.18       21.09     3.09
    student-t          -24.38       21.01     3.36
    marginal-mixture   -23.80       20.62     3.17
    coupling-flow      -23.90       20.54     3.37
    vamp               -23.63       20.33     3.30

One seed each: differences of 0.1 may be due to the seed. The VampPrior gains half a nat, mostly
distortion: with a prior near the codes, training can afford more rate.

Departures: no paper; grey pixels under a Bernoulli likelihood, so the numbers can be compared only
with each other.

Tomczak & Welling (2018), VAE with a VampPrior, https://arxiv.org/abs/1705.07120
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from common import nats_per_image, parser, start, table
from pyro.infer import SVI
from pyro.optim import Adam

import pyro_mivae as mi

EPOCHS = 60
MIXTURE = {"learn": ("means", "weights", "scales"), "means": "random", "category": None}
PRIORS = {  # from the shape of an image and the size of z
    "normal": lambda shape, size: mi.StandardNormalPrior(size),
    "student-t": lambda shape, size: mi.StudentTPrior(size),
    "marginal-mixture": lambda shape, size: mi.MixturePrior(10, size, 3.0, **MIXTURE),
    "coupling-flow": lambda shape, size: mi.FlowPrior(size, "coupling"),
    "vamp": lambda shape, size: mi.VampPrior(shape, size, num_components=50),
}


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Trains a VAE with each prior.

    Args:
        argv: The command line; the process's if omitted.

    Returns:
        The ELBO of each, per test image.
    """
    command = parser(__doc__, epochs=EPOCHS)
    command.add_argument("--latent-dim", type=int, default=10)
    command.add_argument("--priors", nargs="+", default=list(PRIORS), choices=[*PRIORS])
    args = command.parse_args(argv)

    rows = {}
    for name in args.priors:
        images = start(args)
        prior = PRIORS[name](images.data_shape, args.latent_dim)
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
