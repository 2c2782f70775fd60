"""The information report, and annealing."""

import pyro
import pyro.distributions as dist
import torch

import pyro_mivae as mi

from .calls import Call

X = torch.linspace(-1, 1, 6)
MODEL, DATA = mi.VAE((4,), latent_dim=2), torch.rand(6, 4)


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.7))


def shifted(program):
    return lambda x, u: program(x - u)


def annealed():
    return {
        "model": model,
        "guide": guide,
        "x": X,
        "start": "guide",
        "num_temperatures": 2,
        "num_chains": 2,
        "leapfrog_steps": 1,
        "target_acceptance": 0.8,
        "batch_size": 12,
        "seed": 1,
    }


CALLS = [
    Call(
        "RefinedGuide",
        mi.RefinedGuide,
        lambda: {
            "model": MODEL.model,
            "guide": MODEL.guide,
            "num_steps": 2,
            "learning_rate": 0.1,
            "num_draws": 1,
            "batch_size": 16,
            "seed": 1,
        },
        after=lambda refined: refined(DATA),
    ),
    Call(
        "SemiAmortizedGuide",
        mi.SemiAmortizedGuide,
        lambda: {
            "model": MODEL.model,
            "guide": MODEL.guide,
            "num_steps": 2,
            "learning_rate": 0.1,
        },
        after=lambda guide: guide(DATA),
    ),
    Call(
        "information",
        mi.information,
        lambda: {
            "model": model,
            "guide": guide,
            "x": X,
            "num_samples": 1,
            "iwae_samples": 2,
            "iwae_items": 4,
            "subset": 4,
            "generative_items": 2,
            "generative_samples": 2,
            "ais_items": 0,
            "ais_temperatures": 2,
            "refine_items": 0,
            "batch_size": 16,
            "seed": 1,
        },
        examples=50,
    ),
    Call(
        "information given a condition",
        mi.information,
        lambda: {
            **{"model": shifted(model), "guide": shifted(guide), "x": X, "iwae_samples": 2},
            **{"given": torch.tensor([0.0, 1.0] * 3), "generative_items": 0},
        },
        examples=20,
    ),
    Call(
        "annealed_log_likelihood",
        mi.annealed_log_likelihood,
        annealed,
        examples=15,
    ),
    Call(
        "bidirectional_monte_carlo",
        mi.bidirectional_monte_carlo,
        lambda: annealed() | {"items": 2},
        examples=15,
    ),
]
