r"""How many categories do the data need?

    J  =  CatVAE's objective, with  c ~ w,   w_k = v_k prod_{j<k} (1 - v_j),   v_k ~ Beta(1, alpha)

The prior is a Dirichlet process, cut off at ``--most`` categories. Its weights fall, and the data
decide how fast. The sticks v are parameters, and the model has their prior as one factor for all
images. A larger ``--concentration``, alpha, uses more categories.

    python examples/open_categories.py [--most 20] [--concentration 1 5] [--smoke]

Expected (seed 0, 359 test digits):

                elbo  distortion     rate     used      nmi
    alpha 1   -24.10       20.80     3.30     6.00     0.48
    alpha 5   -23.83       20.64     3.19    12.00     0.70

Of 20 categories 6 and 12 are used. No labels are used: `nmi` compares the categories with the
digits afterwards.

Departures: the sticks are point estimates. The start, which wants categories of equal shares, is
left out.

Ishwaran & James (2001), Gibbs Sampling Methods for Stick-Breaking Priors
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from common import nats_per_image, parser, start, table
from pyro.infer import SVI
from pyro.optim import Adam

import pyro_mivae as mi
from pyro_mivae.metrics import categories_used, normalised_mutual_information

EPOCHS = 60


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Trains a CatVAE with an open number of categories.

    Args:
        argv: The command line; the process's if omitted.

    Returns:
        The number of categories in use by concentration.
    """
    command = parser(__doc__, epochs=EPOCHS)
    command.add_argument("--most", type=int, default=20, help="where the process is cut off")
    command.add_argument("--concentration", type=float, nargs="+", default=[1.0, 5.0])
    args = command.parse_args(argv)

    rows = {}
    for concentration in args.concentration:
        images = start(args)
        prior = mi.StickBreakingPrior(
            args.most, 2 * args.most, means="random", concentration=concentration
        )
        vae = mi.CatVAE(images.data_shape, prior=prior, warm_start=0).to(args.device)
        vae.initialize(images.x_train)  # the prior learns the number of images
        steps = args.epochs * -(-len(images.x_train) // args.batch_size)
        elbo = vae.objective(num_steps=steps)
        if not rows:
            print(mi.explain(elbo))
        svi = SVI(vae.model, vae.guide, Adam({"lr": args.lr}), loss=elbo)

        for _ in range(args.epochs):
            order = torch.randperm(len(images.x_train))
            loss = sum(svi.step(x) for x in images.x_train[order].split(args.batch_size))
        print(f"alpha {concentration:g}: loss {loss / len(order):.2f} nats per training image")
        row = nats_per_image(vae, elbo, images.x_test)
        vae.eval()
        found = vae.encode(images.x_test)["c"].argmax(-1)
        row["used"] = float(categories_used(found, args.most))
        if images.y_test is not None:
            row["nmi"] = normalised_mutual_information(found, images.y_test)
        rows[f"alpha {concentration:g}"] = row

    table(rows, ["elbo", "distortion", "rate", "used", "nmi"])
    return {name: row["used"] for name, row in rows.items()}


if __name__ == "__main__":
    main()
