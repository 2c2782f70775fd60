r"""Is a second level of codes used?

    J  =  E_q[log p(x|z1)]  -  E_q KL(q(z1|x) || p(z1|z2))  -  KL(q(z2|x) || p(z2))

    z2 ~ N(0, I),   z1 | z2 ~ N(mu(z2), sigma(z2)^2)

The model draws z2 first, and z1 given z2. The guide draws both given the image; each site has its
own KL. The upper level often ends unused: its KL is then 0, and the prior of z1 is one Normal. A
lower weight on the KL of z2 in the first half of the training (``--warmup``) lets z2 carry
information first.

    python examples/hierarchy.py [--warmup 0.5] [--top-dim 4] [--smoke]

Expected (seed 0, 359 test digits):

                   elbo  distortion    kl_z1    kl_z2
    one level    -24.37       21.17     3.20     0.00
    two levels   -24.28       20.93     3.30     0.05

The upper level holds only 0.05 nats, and the ELBO is within 0.1 of that of one level.

Departures from the paper: its guide shares weights with the model; here q(z1|x) q(z2|x) is a
mean field.

Sønderby et al. (2016), Ladder Variational Autoencoders, https://arxiv.org/abs/1602.02282
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from common import nats_per_image, parser, start, table
from pyro.infer import SVI
from pyro.optim import Adam

import pyro_mivae as mi

EPOCHS = 60


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Trains a VAE of two levels, beside one of one level.

    Args:
        argv: The command line; the process's if omitted.

    Returns:
        The numbers printed for two levels; those for one end in ``_one``.
    """
    command = parser(__doc__, epochs=EPOCHS)
    command.add_argument("--latent-dim", type=int, default=10)
    command.add_argument("--top-dim", type=int, default=4)
    command.add_argument("--warmup", type=float, default=0.5, help="share of the training")
    args = command.parse_args(argv)

    rows = {}
    for name in ("one level", "two levels"):
        images = start(args)
        steps = args.epochs * -(-len(images.x_train) // args.batch_size)
        if name == "one level":
            prior, weights = mi.StandardNormalPrior(args.latent_dim), {}
        else:
            prior = mi.HierarchicalPrior(args.latent_dim, args.top_dim)
            rising = mi.linear_warmup(max(1, round(args.warmup * steps)))
            weights = {"z2": rising if args.warmup else 1.0}
        vae = mi.VAE(images.data_shape, prior=prior).to(args.device)
        elbo = mi.MutualInformationELBO(kl_weights=weights)
        print(mi.explain(elbo))
        svi = SVI(vae.model, vae.guide, Adam({"lr": args.lr}), loss=elbo)

        for _ in range(args.epochs):
            order = torch.randperm(len(images.x_train))
            loss = sum(svi.step(x) for x in images.x_train[order].split(args.batch_size))
        print(f"{name}: loss {loss / len(order):.2f} nats per training image")
        rows[name] = nats_per_image(vae, elbo, images.x_test)

    rows["one level"] |= {"kl_z1": rows["one level"]["kl_z"], "kl_z2": 0.0}
    table(rows, ["elbo", "distortion", "kl_z1", "kl_z2"])
    return rows["two levels"] | {f"{k}_one": v for k, v in rows["one level"].items()}


if __name__ == "__main__":
    main()
