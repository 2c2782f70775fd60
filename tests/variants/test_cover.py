"""Priors, guides, variants and engines in every pair: each combination trains, or says why not.

By default a pairwise cover is run, 77 of the 1,078 combinations. All of them, or some at random by
a seed, run on request, at a second or two each::

    PYRO_MIVAE_CELLS=all python -m pytest -n auto tests/variants/test_cover.py
    PYRO_MIVAE_CELLS=200:3 python -m pytest -n auto tests/variants/test_cover.py  # 200, seed 3
"""

import itertools
import math
import os
import random

import pyro
import pytest
import torch
from pyro.infer import SVI

import pyro_mivae as mi
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.guides import FAMILIES

SHAPE, N, STEPS = (6,), 64, 3
LEARNED = ("means", "weights", "scales")
PRIORS = {
    "normal": lambda: mi.StandardNormalPrior(2, 2),
    "uniform": lambda: mi.UniformPrior(2, 2),
    "spherical": lambda: mi.SphericalPrior(3),
    "mixture": lambda: mi.MixturePrior(3, 3, 3.0),
    "marginal mixture": lambda: mi.MixturePrior(3, 4, 3.0, LEARNED, means="random", category=None),
    "stick-breaking": lambda: mi.StickBreakingPrior(3, 4, means="random"),
    "vamp": lambda: mi.VampPrior(SHAPE, 4, num_components=5),
    "vamp of categories": lambda: mi.VampPrior(SHAPE, 3, num_components=5, num_categories=3),
    "coupling": lambda: mi.FlowPrior(4, hidden_dims=(8,)),
    "spline": lambda: mi.FlowPrior(4, "spline", hidden_dims=(8,)),
    "hierarchical": lambda: mi.HierarchicalPrior(2, 2, hidden_dims=(8,), skip=True),
}
VARIANTS = {
    "vae": {},
    "mmd": {},
    "infomax": {},
    "vmi": {},
    "critic-infomax": {"critic": "bilinear"},
    "cat": {"warm_start": 2},
    "infocat": {"warm_start": 2},
}
ONE_SITE = ("spherical", "marginal mixture", "vamp", "coupling", "spline")
CATEGORIES = ("mixture", "stick-breaking", "vamp of categories")
REFUSED = "takes it, as none|needs a category|needs two sites|needs continuous sites"
"""Reasons for which a combination makes no sense."""


def refuses(prior, family, variant):
    """True for combinations that make no sense."""
    if prior == "spherical" and family != "mean-field":
        return True
    if variant in ("cat", "infocat"):
        return prior not in CATEGORIES
    if variant in ("mmd", "critic-infomax"):
        return prior in CATEGORIES
    return variant == "infomax" and prior in ONE_SITE


def cover(*axes):
    """Rows such that each pair of values of two axes is in one, chosen greedily."""
    places = list(itertools.combinations(range(len(axes)), 2))
    rows, left = list(itertools.product(*axes)), set()
    for i, j in places:
        left |= {(i, a, j, b) for a in axes[i] for b in axes[j]}
    chosen = []
    while left:
        row = max(rows, key=lambda r: sum((i, r[i], j, r[j]) in left for i, j in places))
        left -= {(i, row[i], j, row[j]) for i, j in places}
        chosen.append(row)
    return chosen


AXES = list(PRIORS), list(FAMILIES), list(VARIANTS), ["svi", "fit"]
COVER = cover(*AXES)


def cells(asked):
    """The combinations to run: the cover, all of them, or a number of them by a seed."""
    if not asked:
        return COVER
    product = list(itertools.product(*AXES))
    if asked == "all":
        return product
    count, _, seed = asked.partition(":")
    return random.Random(int(seed or 0)).sample(product, int(count))


def build(prior, family, variant):
    torch.manual_seed(0)
    return mi.VARIANTS[variant](SHAPE, prior=PRIORS[prior](), guide=family, **VARIANTS[variant])


def train(vae, x, engine):
    if engine == "fit":
        mi.fit(vae, x, epochs=STEPS, batch_size=N)
        return
    vae.initialize(x)
    vae.train()
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam(vae.optim_args), vae.objective(STEPS))
    for _ in range(STEPS):
        svi.step(x)
    vae.eval()


@pytest.mark.parametrize(
    ("prior", "family", "variant", "engine"), cells(os.environ.get("PYRO_MIVAE_CELLS"))
)
def test_combination(prior, family, variant, engine, tmp_path):
    """It trains, every parameter moves, a file keeps it, and the report is finite."""
    if refuses(prior, family, variant):
        with pytest.raises((OptionError, SiteError), match=REFUSED):
            build(prior, family, variant)
        return
    x = torch.rand(N, *SHAPE, generator=torch.Generator().manual_seed(0))
    vae = build(prior, family, variant)
    before = {name: p.detach().clone() for name, p in vae.named_parameters()}
    train(vae, x, engine)
    still = {name for name, p in vae.named_parameters() if torch.equal(p, before[name])}
    # A KL of weight 0 does not train the prior.
    assert all(name.startswith("model.prior.") for name in still)
    assert not still or variant in ("mmd", "infomax")
    mi.save(vae, tmp_path / "vae.pt")
    loaded = mi.load(tmp_path / "vae.pt", into=build(prior, family, variant))
    codes, again = vae.encode(x[:4]), loaded.encode(x[:4])
    assert all(torch.equal(codes[site], again[site]) for site in vae.sites)
    few = {"num_samples": 1, "iwae_samples": 2, "generative_items": 4, "generative_samples": 2}
    report = mi.information(vae.model, vae.guide, x[:16], **few).to_dict()
    assert math.isfinite(report["elbo"])
    assert report["rate"] == pytest.approx(sum(report[f"kl_{site}"] for site in vae.sites))


def test_the_cover_has_every_pair():
    assert len(COVER) <= 80
    for (i, first), (j, second) in itertools.combinations(enumerate(AXES), 2):
        found = {(row[i], row[j]) for row in COVER}
        assert found == set(itertools.product(first, second))
