r"""What are 100 labels worth to a model with categories?

    J  =  mean_i J_i  +  alpha * mean_j log q(c = y_j | x_j),    j over the labelled images

J_i is the ELBO of CatVAE. For a labelled image q(c|x) is a point mass at the label, so J_i is
E_q(z|x,y)[log p(x|z)] - KL(q(z|x,y) || p(z|y)) + log p(y). The second mean teaches q(c|x) to
classify. Each step estimates it from labelled images drawn beside the batch, so its expectation
does not depend on their number. `initialize` clusters all images, and the labels decide which
cluster is which category.

    python examples/labels.py [--labels 100] [--label-weight 1] [--data mnist] [--smoke]

Expected (seed 0, 359 test digits, 100 labels of 1,438): accuracy 0.99, without a map from
categories to labels; ELBO -24.09, KL of c 2.27.

Departures from the paper: c shapes z through the prior (M2 gives c to the decoder beside z); the
warm start; the classifier's weight alpha is 1 (M2: 0.1).

Kingma et al. (2014), Semi-supervised Learning with Deep Generative Models, eqs. 6, 7 and 9,
https://arxiv.org/abs/1406.5298
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from common import nats_per_image, parser, start, table
from pyro.infer import SVI
from pyro.optim import Adam

import pyro_mivae as mi
from pyro_mivae.data import keep_labels
from pyro_mivae.metrics import cluster_accuracy

EPOCHS = 40


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Trains a CatVAE with few labels.

    Args:
        argv: The command line; the process's if omitted.

    Returns:
        The numbers printed.
    """
    command = parser(__doc__, epochs=EPOCHS)
    command.add_argument("--labels", type=int, default=100)
    command.add_argument("--label-weight", type=float, default=1.0)
    args = command.parse_args(argv)
    images = start(args)
    if args.smoke:
        args.labels = 16
    y = keep_labels(images.y_train, args.labels, seed=args.seed)  # -1 for the others
    known = (y >= 0).nonzero()[:, 0]

    categories = len(images.class_names)
    vae = mi.CatVAE(
        images.data_shape, num_categories=categories, warm_start=5 if args.smoke else None
    ).to(args.device)
    vae.initialize(images.x_train, y)
    steps_per_epoch = -(-len(images.x_train) // args.batch_size)
    elbo = vae.objective(args.epochs * steps_per_epoch, label_weight=args.label_weight)
    print(mi.explain(elbo))
    svi = SVI(vae.model, vae.guide, Adam({"lr": args.lr}), loss=elbo)
    measured = mi.MutualInformationELBO()

    for epoch in range(1, args.epochs + 1):
        for rows in torch.randperm(len(y)).split(args.batch_size):
            drawn = known[torch.randint(len(known), (args.batch_size,))]
            labelled = images.x_train[drawn], y[drawn]
            svi.step(images.x_train[rows], labels=y[rows], labelled=labelled)
        if epoch == 1 or epoch % 10 == 0:
            row = nats_per_image(vae, measured, images.x_test)
            print(f"epoch {epoch:3d}  elbo {row['elbo']:.2f}  KL of c {row['kl_c']:.2f}")

    row = nats_per_image(vae, measured, images.x_test)
    found = vae.eval().encode(images.x_test)["c"].argmax(-1)
    row["accuracy"] = float((found == images.y_test).float().mean())
    row["best map"] = cluster_accuracy(found, images.y_test)
    table({"CatVAE": row}, ["elbo", "distortion", "kl_z", "kl_c", "accuracy", "best map"])
    return row


if __name__ == "__main__":
    main()
