r"""Does the code of a digit say its class, once the decoder is told the class?

    log p(x|u)  >=  E_q(z|x,u)[log p(x|z,u)]  -  KL(q(z|x,u) || p(z)),      u the class, one-hot

The condition u is an input of encoder and decoder, so the code has no need to hold it: it costs
rate and buys nothing. The same holds of a batch effect, a device, or a speaker. What is left in z
is what varies within a class, and each class can be drawn: x ~ p(x|z,u), z ~ p(z).

A second VAE without u is trained beside it. `probe` is the share of test digits whose class a
logistic regression reads from the mean of z; `class drawn` the share of samples, half of one class
each, that a classifier of real digits takes for their class.

    python examples/conditional.py [--latent-dim 10] [--data mnist] [--smoke]

Expected (seed 0, 359 test digits):

EXPECTED

The two ELBOs bound different things, log p(x) and log p(x|u): nobody is told the class for free,
and -log p(u) = log 10 = 2.30 nats is its price. I(x;z) is I(x; z|u) for the second.

Departures from the paper: the prior of z does not depend on u; the label is the condition and the
image is drawn, where the paper draws labels of pixels given an image.

Sohn, Lee & Yan (2015), Learning Structured Output Representation using Deep Conditional Generative
Models, https://papers.nips.cc/paper/5775
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from common import parser, start, table
from pyro.infer import SVI
from pyro.optim import Adam

import pyro_mivae as mi
from pyro_mivae.metrics import fit_classifier, linear_probe

EPOCHS = 60


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Trains a VAE and a class-conditional one.

    Args:
        argv: The command line; the process's if omitted.

    Returns:
        The share of digits whose class is read from the code, of each.
    """
    command = parser(__doc__, epochs=EPOCHS)
    command.add_argument("--latent-dim", type=int, default=10)
    args = command.parse_args(argv)

    rows = {}
    for name in ("VAE", "class given"):
        images = start(args)
        classes = len(images.class_names)
        known = name == "class given"
        shape = (classes,) if known else None
        vae = mi.VAE(images.data_shape, latent_dim=args.latent_dim, given_shape=shape)
        vae.to(args.device)
        u_train, u_test = (images.y_train, images.y_test) if known else (None, None)
        data = vae.arguments(images.x_train, u_train)  # x, and one-hot u
        elbo = vae.objective()
        if not rows:
            print(mi.explain(elbo))
        svi = SVI(vae.model, vae.guide, Adam({"lr": args.lr}), loss=elbo)

        for _ in range(args.epochs):
            order = torch.randperm(len(images.x_train))
            loss = sum(
                svi.step(*(part[rows] for part in data)) for rows in order.split(args.batch_size)
            )
        print(f"{name}: loss {loss / len(order):.2f} nats per training image")

        vae.eval()
        how = {"generative_items": 0, "iwae_samples": 8 if args.smoke else 64}
        report = mi.information(vae.model, vae.guide, images.x_test, given=u_test, **how)
        train = vae.encode(images.x_train, given=u_train)["z"]
        test = vae.encode(images.x_test, given=u_test)["z"]
        rows[name] = {
            "elbo": report["elbo"],
            "rate": report["rate"],
            "I(x;z)": report["mi_lower"],
            "probe": linear_probe(train, images.y_train, test, images.y_test),
        }

    judge = fit_classifier(images.x_train, images.y_train, classes, seed=args.seed)
    wanted = torch.arange(50 * classes, device=args.device) % classes
    drawn = vae.sample(len(wanted), given=wanted)
    rows["class given"]["class drawn"] = float((judge.predict(drawn) == wanted).float().mean())
    rows["VAE"]["class drawn"] = float("nan")
    table(rows, ["elbo", "rate", "I(x;z)", "probe", "class drawn"])
    return {name: row["probe"] for name, row in rows.items()}


if __name__ == "__main__":
    main()
