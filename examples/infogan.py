r"""Can codes be read from generated images, and do they agree with digits?

    min over G and Q, max over D:   V(D, G)  -  lambda I(c; x')  -  lambda_u I(u; x')
    V = E_data[log D(x)] + E_p[log(1 - D(x'))],      I(c; x') >= E_p[log q(c|x')] + H(c)

x' = G(z, c, u) with noise z, a category c of ten, and two uniform codes u. One loss has the
gradients of all three players: the head of D learns from V, that of Q from the information, their
shared layers from both, and G from -E[log D(x')] and the information.

    python examples/infogan.py [--mi-weight 1] [--data mnist --data-root DIR] [--smoke]

Expected (seeds 0 to 2, 359 test digits, nats per image of the last epoch), ten categories in use:

    seed  loss of D  loss of G  I(c; x')  I(u; x')  accuracy
    0     0.95       1.06       2.29      2.63      0.80
    1     0.98       1.04       2.30      1.32      0.87
    2     0.94       1.09       2.30      1.11      0.81

In a balanced game the losses are log 4 = 1.39 for D and log 2 = 0.69 for G. I(c; x') reaches its
maximum, log 10 = 2.30. Nothing in the loss makes the categories digits. `python
examples/claims/infogan.py` measures more.

Departures from the paper: 8×8 digits and half of its feature maps; all players move at
once; q(u|x) is a normal cut off at the ends of [-1, 1].

Chen et al. (2016), InfoGAN, https://arxiv.org/abs/1606.03657
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from common import parser, start, table
from pyro.infer import SVI
from pyro.optim import Adam

import pyro_mivae as mi
from pyro_mivae.metrics import categories_used, cluster_accuracy

EPOCHS = 200
COLUMNS = ("loss_discriminator", "loss_generator", "mi_c_mean", "mi_u_mean")


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Trains an InfoGAN and compares its categories with labels that it never saw.

    Args:
        argv: The command line; the process's if omitted.

    Returns:
        The numbers printed: the last epoch's ledger per training image, and the accuracy.
    """
    command = parser(__doc__, epochs=EPOCHS)
    command.add_argument("--mi-weight", type=float, default=1.0)
    args = command.parse_args(argv)
    images = start(args)

    vae = mi.InfoGAN(images.data_shape, mi_weight=args.mi_weight).to(args.device)
    loss = vae.objective()
    print(mi.explain(loss))

    def optim_args(name: str) -> dict[str, Any]:
        options = vae.optim_args(name)  # 2e-4 for the discriminator, 1e-3 for the others
        return options | {"lr": options["lr"] * args.lr / 1e-3}

    svi = SVI(vae.model, vae.guide, Adam(optim_args), loss=loss)

    metrics = dict.fromkeys(COLUMNS, 0.0)
    for epoch in range(1, args.epochs + 1):
        order = torch.randperm(len(images.x_train))
        sums = dict.fromkeys(COLUMNS, torch.zeros(()))
        for x in images.x_train[order].split(args.batch_size):
            svi.step(x)
            sums = {name: value + loss.ledger[name] for name, value in sums.items()}
        metrics = {name: float(value) / len(order) for name, value in sums.items()}
        if epoch == 1 or epoch % 20 == 0:
            shown = "  ".join(f"{name} {value:.2f}" for name, value in metrics.items())
            print(f"epoch {epoch:3d}  {shown}")

    vae.eval()
    categories = vae.encode(images.x_test)["c"].argmax(-1)
    metrics["used"] = float(categories_used(categories, 10))
    if images.y_test is not None:
        metrics["accuracy"] = cluster_accuracy(categories, images.y_test)
    table({"InfoGAN": metrics}, list(metrics))
    return metrics


if __name__ == "__main__":
    main()
