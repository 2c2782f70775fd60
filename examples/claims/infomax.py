r"""What does the part of the code without a KL divergence carry, and what does the rest?

    J  =  E_q[log p(x|z,c)]  -  KL(q(z|x) || p(z))

The source (one deterministic c, 99 z, squared error) shows four pictures: c varied; reconstructed
from c alone, from z alone, from both. It reports that c alone gives something of the picture, that
"the remaining 99 [...] result in a much better reconstruction than just the one", and that with
both it is better still.

    python examples/claims/infomax.py [--data mnist --data-root DIR] [--seeds 3] [--out FILE.json]
                                      [--pictures FOLDER]

Models: 100 dimensions, of which 1, 2, 5 or 10 are c, deterministic or Normal; squared error summed
over pixels (a Normal likelihood of variance 1/2). R² is the share of the variance reconstructed
from posterior means. "alone" has the other part at its prior mean, a code that the decoder seldom
saw, so compare these only with each other. "among others" takes the other part from 16 other
images instead, and averages the pictures. ``--pictures`` writes the source's four figures of each
model's first seed as one PNG.

Bachmann, InfomaxVAE, https://github.com/bacdavid/InfomaxVAE. The networks here are this library's
defaults (an MLP up to 32 x 32 values), the images not its faces.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from study import Study, parser
from torch import Tensor

import pyro_mivae as mi
from pyro_mivae.metrics import reconstruction_r2
from pyro_mivae.plots import render_png
from pyro_mivae.report import ReportData
from pyro_mivae.report.samples import reconstructions
from pyro_mivae.training import History

LATENT_DIM, CODE_DIMS, ITEMS, OTHERS = 100, (1, 2, 5, 10), 5000, 16
FIGURES = {
    "reconstruction_r2": "R² of both",
    "reconstruction_r2_c": "c alone",
    "reconstruction_r2_z": "z alone",
    "r2_c_among_others": "c among others",
    "r2_z_among_others": "z among others",
    "kl_z": "KL of z",
    "mi_c_lower": "I(c;x) >=",
    "active_units_z": "active z",
}


def main(argv: Sequence[str] | None = None) -> dict[str, str]:
    """Trains the models, prints their figures and the verdicts.

    Args:
        argv: The command line; the process's if omitted.

    Returns:
        The verdict on each claim.
    """
    command = parser(__doc__, epochs=80)
    command.add_argument("--pictures", type=Path, help="folder for a PNG per model")
    study = Study(command.parse_args(argv))
    for deterministic in (True, False):
        for code_dim in CODE_DIMS[:: 3 if study.args.smoke else 1]:
            name = f"c of {code_dim}, {'deterministic' if deterministic else 'Normal'}"
            make = partial(build, study, code_dim, deterministic)
            study.train(name, make, partial(measure, study, name))
    study.table(FIGURES)

    for kind in ("deterministic", "Normal"):
        one, ten = f"c of 1, {kind}", f"c of 10, {kind}"
        for how, alone, gain in (
            ("", "reconstruction_r2_c", "z_over_c"),
            (", read among others", "r2_c_among_others", "z_over_c_among_others"),
        ):
            study.claim(
                f"The one c alone gives something of the picture ({kind}{how})",
                study.above(one, alone, 0.0),
            )
            study.claim(
                f"99 z alone reconstruct better than the one c ({kind}{how})",
                study.above(one, gain, 0.0),
            )
        study.claim(
            f"Both reconstruct better than z alone ({kind})", study.above(one, "both_over_z", 0.0)
        )
        study.claim(
            f"Not the source's: the larger c takes the picture over, and z is given up ({kind})",
            study.higher(ten, one, "reconstruction_r2_c"),
            study.higher(one, ten, "kl_z"),
        )
    study.claim(
        "Not the source's: a Normal c gives back as much as a deterministic one (R², by 0.02)",
        study.higher("c of 1, Normal", "c of 1, deterministic", "reconstruction_r2", by=-0.02),
    )
    return study.verdicts


def build(study: Study, code_dim: int, deterministic: bool) -> mi.Variant:
    """Builds an InfomaxVAE with the source's loss."""
    return mi.InfomaxVAE(
        study.images.data_shape,
        latent_dim=LATENT_DIM,
        code_dim=code_dim,
        deterministic=deterministic,
        likelihood=mi.GaussianLikelihood(0.5**0.5),
    )


def measure(study: Study, name: str, vae: mi.Variant) -> dict[str, float]:
    """Measures what each part gives back, and draws it once per model."""
    x = study.images.x_test[:ITEMS].to(vae.device)
    labels = None if study.images.y_test is None else study.images.y_test[:ITEMS]
    figures = dict(mi.evaluate(vae, x, iwae_items=100, iwae_samples=4))
    both, c, z = (figures[f"reconstruction_r2{suffix}"] for suffix in ("", "_c", "_z"))
    figures |= {"z_over_c": z - c, "both_over_z": both - z}
    for site in ("c", "z"):
        figures[f"r2_{site}_among_others"] = among_others(vae, x, site)
    figures["z_over_c_among_others"] = figures["r2_z_among_others"] - figures["r2_c_among_others"]
    folder = study.args.pictures
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name.replace(', ', '-').replace(' ', '-')}.png"
        if not path.exists():
            data = ReportData(vae.eval(), x, labels, History(), figures)
            (panel,) = reconstructions(data)
            path.write_bytes(render_png(panel.figure))
    return {k: v for k, v in figures.items() if not k.endswith("_se") and math.isfinite(v)}


def among_others(vae: mi.Variant, x: Tensor, site: str) -> float:
    """Returns R² of one site's posterior mean, decoded with the rest of other images' codes."""
    codes, mean = vae.encode(x), torch.zeros_like(x)
    generator = torch.Generator().manual_seed(0)
    for _ in range(OTHERS):
        order = torch.randperm(len(x), generator=generator).to(x.device)
        mixed = {name: code if name == site else code[order] for name, code in codes.items()}
        mean += vae.decode(mixed, len(x)) / OTHERS
    return reconstruction_r2(x, mean)


if __name__ == "__main__":
    main()
