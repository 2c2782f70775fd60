r"""What does information enforced in a part of a code do to that part, and to the rest?

    J  =  E_q[log p(x|z,c)]  -  KL(q(z|x) || p(z))  -  KL(q(c|x) || p(c))
          +  lambda * (E_p[log q(c|x')] + H(c)),    x' = E[x|z,c]

The poster enforces the term in half of a code of 20 dimensions and observes: more information in
that half and about none in the other, which a large model ignores; the term trades against the
regulariser as the reconstruction does, of which it is the dual; it identifies the dimensions that
matter to the reconstruction. It asks whether a prior like the factor's, a uniform one for the
thickness of the stroke, would disentangle it.

    python examples/claims/vmi.py [--data mnist --data-root DIR] [--seeds 3] [--out FILE.json]
                                  [--parts halves codes factors]

Models: Bernoulli likelihood and two hidden layers, for MNIST the source's 500 softplus units, for
the digits 256 rectified ones (with softplus, 80 epochs leave most of the code unused). I(s;x) is
bounded under data and guide, on 5,000 test images, where no lower bound exceeds log 5,000 = 8.5;
I(s;x') under the model, x' its mean image or a sample, from which s can be read back by the guide.
R² is the share of the variance reconstructed.

Ducau & Trénous, Mutual Information in Variational Autoencoders (poster)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pyro
import torch
from scipy.stats import spearmanr
from sklearn.feature_selection import mutual_info_regression
from study import Study, parser
from torch import Tensor, nn
from torch.distributions import kl_divergence

import pyro_mivae as mi
from pyro_mivae.metrics import reconstruction_r2
from pyro_mivae.networks import MLPDecoder, MLPEncoder

ITEMS, MASKED = 5000, 1000
NEGLIGIBLE, SLIGHT, CORRELATED = 0.5, 0.05, 0.5  # nats, share, rank correlation
HALVES = {
    "elbo": "ELBO",
    "distortion": "distortion",
    "kl_z": "KL of z",
    "kl_c": "KL of c",
    "mi_z_upper": "I(z;x) <=",
    "mi_c_lower": "I(c;x) >=",
    "mi_c_mean": "I(c;mean) >=",
    "mi_c_sample": "I(c;sample) >=",
    "r2": "R²",
    "r2_z": "z alone",
    "r2_c": "c alone",
}
CODES = {
    "elbo": "ELBO",
    "distortion": "distortion",
    "rate": "rate",
    "mi_mean": "I(code;mean) >=",
    "mi_sample": "I(code;sample) >=",
    "active_units": "active units",
    "rank_kl": "rank of KL",
    "rank_information": "rank of I",
}
FACTORS = {
    "elbo": "ELBO",
    "kl_c": "KL of c",
    "mi_c_lower": "I(c;x) >=",
    "thickness_c": "|rank| of c",
    "thickness_nats": "I(c;thickness)",
    "thickness_z": "|rank| of best z",
}


def main(argv: Sequence[str] | None = None) -> dict[str, str]:
    """Trains the models, prints their figures and the verdicts.

    Args:
        argv: The command line; the process's if omitted.

    Returns:
        The verdict on each claim.
    """
    command = parser(__doc__, epochs=80)
    command.set_defaults(batch_size=100)
    command.add_argument("--parts", nargs="+", choices=TABLES, default=list(TABLES))
    study = Study(command.parse_args(argv))
    shape = study.images.data_shape
    large = torch.Size(shape).numel() > 256
    width, activation = (500, nn.Softplus) if large else (256, nn.ReLU)
    images = study.images.x_test[:ITEMS]
    strokes = thickness(images)

    def model(variant: Any = mi.VMIVAE, size: int = 20, units: int = width, **options: Any) -> Any:
        options = {"generated": "mean"} | options if variant is mi.VMIVAE else options
        return lambda: variant(
            shape,
            encoder=MLPEncoder(shape, (units, units), activation),
            decoder=MLPDecoder(size, shape, (units, units), activation),
            **({} if "prior" in options else {"latent_dim": size}),
            **{name: make() if name == "prior" else make for name, make in options.items()},
        )

    off = {"off": model(mi_weight=0.0)}
    parts: dict[str, dict[str, Callable[[], mi.Variant]]] = {
        "halves": {
            **off,
            "on c": model(),
            "on c, sampled": model(generated="straight-through"),
            "narrow, on c": model(units=32),
        },
        "codes": {
            **off,
            "term 1": model(sites="all"),
            "term 4": model(sites="all", mi_weight=4.0),
            "reconstruction 2": model(mi.BetaVAE, beta=1 / 2),
            "reconstruction 5": model(mi.BetaVAE, beta=1 / 5),
            "large, off": model(size=50, mi_weight=0.0),
            "large, term 1": model(size=50, sites="all"),
        },
        "factors": {
            "c normal": model(size=10, code_dim=1),
            "c uniform": model(size=10, prior=lambda: mi.UniformPrior(9, 1)),
        },
    }
    chosen = {name: parts[name] for name in study.args.parts}
    for part, models in chosen.items():
        for name, make in models.items():
            against = strokes if part == "factors" else None
            study.train(name, make, partial(measure, images, against))
    for part, models in chosen.items():
        study.table(TABLES[part], list(models))
    for part in chosen:
        CLAIMS[part](study)
    return study.verdicts


def claim_halves(study: Study) -> None:
    """Examines what the term does to its half of the code, and to the other."""
    study.claim("The term on c raises I(c;x)", study.higher("on c", "off", "mi_c_lower"))
    study.claim("The term on c lowers I(z;x)", study.higher("off", "on c", "mi_z_upper"))
    study.claim(
        f"The term on c takes I(z;x) to about zero (under {NEGLIGIBLE} nats)",
        study.below("on c", "mi_z_upper", NEGLIGIBLE),
    )
    study.claim(
        f"The reconstruction is slightly worse (by less than {SLIGHT:.0%})",
        study.higher("on c", "off", "distortion"),
        study.higher("off", "on c", "distortion", by=-SLIGHT * study.mean("off", "distortion")),
    )
    study.claim(
        "A large model ignores the part without the term, a narrow one does not",
        study.below("on c", "mi_z_upper", NEGLIGIBLE),
        study.above("narrow, on c", "mi_z_upper", NEGLIGIBLE),
    )
    study.claim(
        "Not the poster's: what the term reads in means is there in samples (over 0 nats)",
        study.above("on c", "mi_c_sample", 0.0),
    )
    study.claim(
        "Not the poster's: read from samples and not means, the term costs less ELBO",
        study.higher("on c, sampled", "on c", "elbo"),
    )


def claim_codes(study: Study) -> None:
    """Examines the term on all of a code, and its duality with the reconstruction."""
    study.claim(
        "On all of a large code (50), the term puts more dimensions to use",
        study.higher("large, term 1", "large, off", "active_units"),
    )
    study.claim(
        "On all of a large code, the reconstruction is worse",
        study.higher("large, term 1", "large, off", "distortion"),
    )
    for text, figure, sign in (
        ("raises the rate", "rate", 1),
        ("makes the code more readable from mean images", "mi_mean", 1),
        ("makes the reconstruction better", "distortion", -1),
    ):
        pairs = [(name, "off")[::sign] for name in ("term 4", "reconstruction 5")]
        for (a, b), part in zip(pairs, ("term", "reconstruction")):
            study.claim(f"Duality: more weight on the {part} {text}", study.higher(a, b, figure))
    study.claim(
        f"Dimensions of more information matter more (rank correlation over {CORRELATED})",
        study.above("large, term 1", "rank_information", CORRELATED),
    )


def claim_factors(study: Study) -> None:
    """Asks the poster's open question."""
    study.claim(
        f"Open question: a uniform c is the thickness (rank correlation over {CORRELATED})",
        study.above("c uniform", "thickness_c", CORRELATED),
    )
    study.claim(
        "Open question: a uniform c is more like the thickness than a normal one",
        study.higher("c uniform", "c normal", "thickness_c"),
    )


TABLES = {"halves": HALVES, "codes": CODES, "factors": FACTORS}
CLAIMS = {"halves": claim_halves, "codes": claim_codes, "factors": claim_factors}


def measure(x: Tensor, strokes: Tensor | None, vae: mi.Variant) -> dict[str, float]:
    """Measures what the code knows, and what each of its dimensions is worth.

    Args:
        x: Test images.
        strokes: Their thickness, to compare a code of one dimension with.
        vae: The model.
    """
    vae.eval()
    x = x.to(vae.device)
    report = mi.information(vae.model, vae.guide, x, iwae_items=100, iwae_samples=4).to_dict()
    figures = {k: v for k, v in report.items() if not k.endswith("_se")}
    sites = list(vae.sites)
    groups = {"mi": sites, **({f"mi_{s}": [s] for s in sites} if len(sites) > 1 else {})}
    for how, push in (("mean", "mean"), ("sample", "score-function")):
        for name, group in groups.items():
            term = mi.BarberAgakov(*group, generated=push)
            objective = mi.MutualInformationELBO([term], max_plate_nesting=1)
            with pyro.get_param_store().scope():
                objective.loss(vae.model, vae.guide, x)
            figures[f"{name}_{how}"] = float(objective.ledger[term.name]) / len(x)
    for suffix, keep in {"": sites, **{f"_{site}": [site] for site in sites}}.items():
        figures[f"r2{suffix}"] = reconstruction_r2(x, vae.reconstruct(x, keep=keep))
    figures |= worth(vae, x)
    return figures if strokes is None else figures | compare(vae, x, strokes)


@torch.no_grad()
def worth(vae: mi.Variant, x: Tensor) -> dict[str, float]:
    """Ranks dimensions by KL, by information, and by the R² that is lost without them."""
    if not isinstance(vae.prior, mi.StandardNormalPrior):
        return {}
    x = x[:MASKED]
    normal = torch.distributions.Normal(torch.zeros((), device=x.device), 1.0)

    def posterior(x: Tensor) -> dict[str, Any]:
        with pyro.get_param_store().scope():
            nodes = pyro.poutine.trace(vae.guide).get_trace(x).nodes
        return {site: nodes[site]["fn"].base_dist for site in vae.sites}

    drawn = {site: normal.sample((len(x), size)) for site, size in vae.sites.items()}
    found, codes = posterior(vae.decode(drawn, len(x))), vae.encode(x)
    whole = reconstruction_r2(x, vae.decode(codes, len(x)))
    nats, information, lost = [], [], []
    for site, fn in posterior(x).items():
        nats += kl_divergence(fn, normal).mean(0).tolist()
        information += (found[site].log_prob(drawn[site]).mean(0) + normal.entropy()).tolist()
        size = vae.sites[site]
        many = {name: code.repeat(size, 1) for name, code in codes.items()}
        without = 1 - torch.eye(size, device=x.device).repeat_interleave(len(x), 0)
        decoded = vae.decode({**many, site: many[site] * without}, len(without))
        lost += [whole - reconstruction_r2(x, part) for part in decoded.split(len(x))]
    ranked = sorted(nats, reverse=True)
    return {
        "rank_kl": float(spearmanr(nats, lost).statistic),
        "rank_information": float(spearmanr(information, lost).statistic),
        **{f"kl_of_dimension_{n}": ranked[n - 1] for n in (1, 2, 5, 10, 20, 50) if n <= len(nats)},
    }


def compare(vae: mi.Variant, x: Tensor, strokes: Tensor) -> dict[str, float]:
    """Compares c, of one dimension, with the thickness of the strokes, and each dimension of z."""
    codes = {site: code.cpu() for site, code in vae.encode(x).items()}
    ranks = {s: [spearmanr(d, strokes).statistic for d in code.T] for s, code in codes.items()}
    nats = mutual_info_regression(codes["c"].numpy(), strokes.numpy(), random_state=0)
    return {
        "thickness_c": abs(float(ranks["c"][0])),
        "thickness_z": max(abs(float(rank)) for rank in ranks["z"]),
        "thickness_nats": float(nats[0]),
    }


def thickness(x: Tensor) -> Tensor:
    """Returns the mean width of the strokes: twice the ink over the length of its outline.

    Args:
        x: Images, shape ``(n, channels, height, width)``.

    Returns:
        In pixels, shape ``(n,)``; the outline's length is the image's total variation.
    """
    grey = nn.functional.pad(x.mean(1), (1, 1, 1, 1))
    down, right = grey[:, 1:, :-1] - grey[:, :-1, :-1], grey[:, :-1, 1:] - grey[:, :-1, :-1]
    outline = (down.square() + right.square()).sqrt().sum((1, 2))
    return 2 * grey.sum((1, 2)) / outline


if __name__ == "__main__":
    main()
