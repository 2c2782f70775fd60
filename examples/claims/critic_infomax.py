r"""Does a critic's information term give codes that say more of the data?

    J  =  E_q[log p(x|z)]  -  beta * KL(q(z|x) || N(0, I))  +  alpha * I(x; z) by a critic

The source claims that, with the term, codes have more active units, more information about the
data and better accuracy of classifiers than those of a VAE, a beta-VAE and an MMD-VAE. Its code
trains the critic at a rate of 1e-5. This script also measures how much information such a critic
finds, by bounds that need no critic.

    python examples/claims/critic_infomax.py [--data mnist --data-root DIR] [--out FILE.json]

Models: VAE, beta-VAE with beta = 4, MMD-VAE with alpha = 1 and lambda = 1000, and CriticInfomaxVAE
with alpha = beta = 1 and this library's default critic, with the original's rate of its critic,
and with the bound of noise-contrastive estimation and a separable critic.

A code of 10 dimensions can have no more than 10 active units, and the lower bound on the
information no more than the logarithm of the number of test images. If all models reach these,
they cannot be compared; take a larger ``--latent-dim``. The critic is evaluated in batches of 256,
where the bound of noise-contrastive estimation cannot exceed 5.5 nats.

Rezaabad & Vishwanath (2020), https://arxiv.org/abs/1912.13361
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from study import Study, parser

import pyro_mivae as mi
from pyro_mivae.errors import PyroMivaeWarning

ORIGINAL_LR = 1e-5
FIGURES = {
    "elbo": "ELBO",
    "active_units": "active units",
    "mi_lower": "I(x;z) >=",
    "mi_upper": "I(x;z) <=",
    "mi_z_critic": "by critic",
    "critic_falls_short": "called out",
    "linear_probe": "linear probe",
    "mlp_probe": "MLP probe",
}
OTHERS = {"vae": "VAE", "beta": "beta-VAE", "mmd": "MMD-VAE"}
READINGS = {
    "active_units": "more active units",
    "mi_lower": "more information",
    "linear_probe": "a better linear probe",
    "mlp_probe": "a better MLP probe",
}


def main(argv: Sequence[str] | None = None) -> dict[str, str]:
    """Trains the models, prints their figures and the verdicts.

    Args:
        argv: The command line; the process's if omitted.

    Returns:
        The verdict on each claim.
    """
    command = parser(__doc__, epochs=80)
    command.add_argument("--latent-dim", type=int, default=10)
    study = Study(command.parse_args(argv))
    shape, size = study.images.data_shape, {"latent_dim": study.args.latent_dim}
    source = {"bound": "nwj", "critic": "joint", **size}
    models = {
        "vae": lambda: mi.VAE(shape, **size),
        "beta": lambda: mi.BetaVAE(shape, beta=4.0, **size),
        "mmd": lambda: mi.MMDVAE(shape, **size),
        "critic": lambda: mi.CriticInfomaxVAE(shape, **source),
        "critic 1e-5": lambda: mi.CriticInfomaxVAE(shape, critic_lr=ORIGINAL_LR, **source),
        "critic infonce": lambda: mi.CriticInfomaxVAE(shape, **size),
    }

    def measure(vae: mi.Variant) -> dict[str, float]:
        with warnings.catch_warnings():  # the table says of all at once who was called out
            warnings.simplefilter("ignore", PyroMivaeWarning)
            return study.evaluate(vae)

    for name, make in models.items():
        study.train(name, make, measure)
    heard = [name for name in models if name.startswith("critic")]
    study.table({k: v for k, v in FIGURES.items() if "critic" not in k})
    study.table({k: v for k, v in FIGURES.items() if k.startswith(("mi_", "critic"))}, heard)

    for figure, reading in READINGS.items():
        for other, title in OTHERS.items():
            study.claim(
                f"The term gives {reading} than a {title} has",
                study.higher("critic", other, figure),
            )
    study.claim("The term costs ELBO", study.higher("vae", "critic", "elbo"))
    for name in heard:
        study.claim(
            f"The critic hears at least half of the information ({name})",
            study.below(name, "critic_falls_short", 0.5),
        )
    study.claim(
        "At the original's rate the critic is called out",
        study.above("critic 1e-5", "critic_falls_short", 0.5),
    )
    return study.verdicts


if __name__ == "__main__":
    main()
