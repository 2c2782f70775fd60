"""Metrics of codes, categories and labels, and those of a whole variant."""

import torch

import pyro_mivae as mi
from pyro_mivae import metrics

from .calls import Call

LABELS = torch.arange(24) % 3
CATEGORIES = torch.arange(24) % 4
FACTORS = torch.stack([LABELS, CATEGORIES], 1)
CODES = torch.cat([FACTORS.float(), torch.linspace(0, 1, 24)[:, None]], 1)
X = torch.rand(24, 1, 8, 8, generator=torch.Generator().manual_seed(0))
with torch.random.fork_rng():
    torch.manual_seed(0)
    VAE = mi.CatVAE((1, 8, 8), num_categories=3, latent_dim=3).eval()
    CRITIC = mi.CriticInfomaxVAE((1, 8, 8), latent_dim=2).eval()
FEW = {"iwae_samples": 2, "iwae_items": 4, "subset": 8, "generative_items": 2}


def pairs():
    return {"categories": CATEGORIES, "labels": LABELS}


def codes():
    return {"codes": CODES, "factors": FACTORS, "categorical": [0]}


def halves(labels="labels", known=LABELS):
    return {
        "train_codes": CODES[:12],
        f"train_{labels}": known[:12],
        "codes": CODES[12:],
        labels: known[12:],
    }


def measured():
    return {
        "vae": VAE,
        "x": X,
        "full": False,
        "probe_items": 12,
        "samples_per_category": 2,
        "seed": 1,
        "num_samples": 1,
        **FEW,
    }


def known():
    return {"labels": LABELS, "train": (X, LABELS, FACTORS), "factors": FACTORS}


def all_of(*functions, arguments, **options):
    return [Call(function.__name__, function, arguments, **options) for function in functions]


CALLS = [
    *all_of(
        metrics.contingency,
        metrics.cluster_accuracy,
        metrics.normalised_mutual_information,
        metrics.adjusted_rand_index,
        arguments=pairs,
    ),
    *all_of(
        metrics.occupancy,
        metrics.categories_used,
        arguments=lambda: {"categories": CATEGORIES, "num_categories": 4},
    ),
    *all_of(metrics.category_agreement, arguments=lambda: {"first": LABELS, "second": CATEGORIES}),
    *all_of(metrics.match_labels, arguments=lambda: pairs() | {"num_categories": 5}),
    *all_of(
        metrics.mutual_information_gap,
        metrics.modularity,
        metrics.factor_information,
        metrics.separated_attribute_predictability,
        arguments=codes,
    ),
    *all_of(metrics.factor_vae_score, arguments=lambda: codes() | {"seed": 1}),
    *all_of(
        metrics.dci_scores,
        arguments=lambda: halves("factors", FACTORS) | {"categorical": [0], "seed": 1},
        examples=12,
    ),
    *all_of(
        metrics.disentanglement,
        metrics.completeness,
        arguments=lambda: {"importance": torch.eye(3)},
    ),
    *all_of(metrics.linear_probe, arguments=halves),
    *all_of(metrics.mlp_probe, arguments=lambda: halves() | {"seed": 1}, examples=8),
    *all_of(
        metrics.fit_classifier,
        arguments=lambda: {
            "features": X,
            "labels": LABELS,
            "num_classes": 3,
            "per_feature": False,
            "seed": 1,
        },
        examples=12,
    ),
    *all_of(
        metrics.Classifier,
        arguments=lambda: {"features": X, "num_classes": 3, "per_feature": True},
    ),
    *all_of(
        metrics.generation_accuracy,
        arguments=lambda: {
            "judged": LABELS.reshape(4, 6),
            "names": torch.tensor([0, 1, 2, 2]),
            "live": torch.tensor([True, True, True, False]),
            "num_labels": 3,
        },
    ),
    *all_of(
        metrics.generation_consistency,
        arguments=lambda: {
            "judged": LABELS.reshape(4, 6),
            "live": torch.tensor([True, True, True, False]),
        },
    ),
    *all_of(metrics.reconstruction_r2, arguments=lambda: {"x": X, "reconstruction": X * 0.9}),
    *all_of(
        metrics.agreement_of_models, arguments=lambda: {"vaes": [VAE, VAE], "x": X, "seed": 1}
    ),
    *all_of(metrics.most_probable, arguments=lambda: {"vae": VAE, "x": X, "seed": 1}),
    *all_of(
        metrics.critic_estimates,
        arguments=lambda: {"vae": CRITIC, "x": X.repeat(3, 1, 1, 1), "seed": 1},
    ),
    *all_of(metrics.duration, arguments=lambda: {"seconds": 3.5}),
    *all_of(
        metrics.how_measured,
        arguments=lambda: {"protocol": {"figures": {"kl_*, rate": "a line"}}, "name": "kl_z"},
    ),
    *all_of(mi.evaluate, arguments=lambda: measured() | known(), examples=30),
    *all_of(metrics.forecast, arguments=measured, examples=15),
]
