r"""What does a part of the code carry without a KL divergence?

    J  =  E_q[log p(x|z,c)]  -  1 * KL(q(z|x) || p(z))  -  0 * KL(q(c|x) || p(c))

The source adds "+ I(x; c)" to the ELBO and lets it cancel the KL of c. That takes the rate of c
for its information; the rate is only an upper bound of it. The handler `mi.weigh_sites`, around
model and guide, gives Pyro's own ELBO the same J (``--pyro``).

    python examples/infomax.py [--code-dim 1] [--deterministic] [--pyro] [--smoke]

Expected (seed 0, 359 test digits): loss 22.23, of which KL of z 2.08; the KL of c, which J leaves
out, is 27.18. R² of reconstruction: 0.64 from both, 0.13 from c alone, -0.05 from z alone (seeds 1
and 2: 0.64, 0.21, 0.06 and 0.64, 0.22, -0.03). ``--pyro`` prints the same numbers. A part alone is
decoded with the other at its prior mean. The decoder seldom saw such codes, so R² may be below 0.

Departures from the source: 8×8 digits and a Bernoulli likelihood in place of 48×48 faces and a
squared error; 9 z in place of 99; c is Normal unless ``--deterministic`` makes it a function of
the image, as in the source (its KL is then not defined, and printed as nan).

Bachmann, InfomaxVAE, https://github.com/bacdavid/InfomaxVAE
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from common import nats_per_image, parser, start, table
from pyro.infer import SVI, TraceMeanField_ELBO
from pyro.optim import Adam

import pyro_mivae as mi
from pyro_mivae.metrics import reconstruction_r2

EPOCHS = 100
LATENT_DIM = 10


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Trains an InfomaxVAE and reconstructs from both parts of its code, and from each alone.

    Args:
        argv: The command line; the process's if omitted.

    Returns:
        The numbers printed.
    """
    command = parser(__doc__, epochs=EPOCHS)
    command.add_argument("--latent-dim", type=int, default=LATENT_DIM, help="z and c together")
    command.add_argument("--code-dim", type=int, default=1, help="size of c")
    command.add_argument("--deterministic", action="store_true", help="c as a function of x")
    command.add_argument("--pyro", action="store_true", help="Pyro's ELBO under our handler")
    args = command.parse_args(argv)
    images = start(args)

    vae = mi.InfomaxVAE(
        images.data_shape,
        latent_dim=args.latent_dim,
        code_dim=args.code_dim,
        deterministic=args.deterministic,
    ).to(args.device)
    elbo = vae.objective()
    print(mi.explain(elbo))
    optimiser = Adam({"lr": args.lr})
    if args.pyro:
        model, guide = (mi.weigh_sites(part, {"c": 0.0}) for part in (vae.model, vae.guide))
        svi = SVI(model, guide, optimiser, loss=TraceMeanField_ELBO())
    else:
        svi = SVI(vae.model, vae.guide, optimiser, loss=elbo)

    for epoch in range(1, args.epochs + 1):
        order = torch.randperm(len(images.x_train))
        loss = sum(svi.step(x) for x in images.x_train[order].split(args.batch_size))
        if epoch == 1 or epoch % 20 == 0:
            print(f"epoch {epoch:3d}  loss {loss / len(order):.2f} nats per training image")

    x = images.x_test
    metrics = nats_per_image(vae, elbo, x)
    table({"nats": metrics}, ["loss", "distortion", "kl_z", "kl_c"])
    for name, keep in {"z and c": {"z", "c"}, "c alone": {"c"}, "z alone": {"z"}}.items():
        key = "r2_" + "_".join(sorted(keep))
        metrics[key] = reconstruction_r2(x, vae.reconstruct(x, keep=keep))
        print(f"share of the variance reconstructed from {name}: {metrics[key]:6.2f}")
    return metrics


if __name__ == "__main__":
    main()
