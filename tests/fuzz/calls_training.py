"""Trainings, and what is kept of them in files and folders."""

import copy
import functools
import os
import tempfile

import torch

import pyro_mivae as mi
from pyro_mivae.runs import RunConfig

from .calls import Call

SHAPE = (1, 4, 4)
X = torch.linspace(0, 1, 12 * 16).reshape(12, *SHAPE)
TRAINING = {
    **{"epochs": 1, "batch_size": 6, "lr": 1e-3, "lr_schedule": "constant", "clip_norm": 1.0},
    **{"device": "cpu", "engine": "eager", "precision": "float32", "validation": 0.25},
    **{"patience": 3, "progress": False, "resume": False},
}


@functools.cache
def built(variant, **options):
    return variant(SHAPE, **options)


def anew(variant, **options):
    """The same model each time; a copy takes a fifth of the time of a model that is built."""
    return copy.deepcopy(built(variant, **options))


def small(**options):
    return anew(mi.BetaVAE, latent_dim=2, **options)


def scratch(function):
    """Calls a function in an empty folder that is thrown away."""

    @functools.wraps(function)
    def call(**arguments):
        home = os.getcwd()
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                return function(**arguments)
            finally:
                os.chdir(home)

    return call


def making(**options):
    return mi.BetaVAE(SHAPE, latent_dim=2, **options)


@functools.cache
def saved():
    """A file of a model, and a folder that holds a training's checkpoint."""
    folder = tempfile.mkdtemp()
    mi.save(small(), f"{folder}/vae.pt")
    mi.fit(small(), X, epochs=1, engine="eager", run=f"{folder}/run")
    return folder


def checked(vae, x, objective):
    """Checks a variant."""
    return mi.check(vae, x, objective=objective)


def checked_pair(model, guide, x):
    """Checks a pair."""
    return mi.check(model, guide, x)


CALLS = [
    Call(
        "check",
        checked,
        lambda: {"vae": small(), "x": X, "objective": mi.MutualInformationELBO()},
        after=str,
    ),
    Call(
        "check a pair",
        checked_pair,
        lambda: {"model": small().model, "guide": small().guide, "x": X},
        after=str,
    ),
    Call(
        "refit_prior",
        mi.refit_prior,
        lambda: {
            **{"vae": small(), "x": X, "prior": mi.FlowPrior(2, transforms=1)},
            **{"epochs": 1, "batch_size": 6, "lr": 1e-3, "seed": 1},
        },
    ),
    Call(
        "fit",
        scratch(mi.fit),
        lambda: {
            **{"vae": small(), "x": X, **TRAINING, "seed": 0, "run": "r", "on_epoch": None},
            "objective": mi.MutualInformationELBO(),
        },
        60,
    ),
    Call(
        "fit with labels",
        scratch(mi.fit),
        lambda: {
            **{"vae": anew(mi.CatVAE, num_categories=2, warm_start=1), "x": X, "epochs": 1},
            **{"labels": torch.arange(12) % 3 - 1, "label_weight": 1.0, "engine": "eager"},
        },
        30,
    ),
    Call(
        "fit with a condition",
        scratch(mi.fit),
        lambda: {
            **{"vae": anew(mi.VAE, latent_dim=2, given_shape=(3,)), "x": X, "epochs": 1},
            **{"given": torch.arange(12) % 3, "engine": "eager"},
        },
        30,
    ),
    Call(
        "fit_many",
        scratch(mi.fit_many),
        lambda: {
            **{"vaes": [small(), small()], "x": X, **TRAINING, "seeds": [0, 1], "runs": None},
            "objective": mi.MutualInformationELBO(),
        },
        60,
    ),
    Call(
        "sweep",
        scratch(mi.sweep),
        lambda: {
            **{"make": making, "x": X, "grid": {"beta": [1.0]}, "seeds": [0], "x_test": X},
            **{"epochs": 1, "engine": "eager"},
        },
        30,
    ),
    Call("save", scratch(mi.save), lambda: {"vae": small(), "path": "vae.pt"}, 30),
    Call(
        "load a file",
        scratch(mi.load),
        lambda: {"path": f"{saved()}/vae.pt", "into": small(), "trust": False},
        30,
    ),
    Call("load a folder", scratch(mi.load), lambda: {"path": f"{saved()}/run", "into": small()}),
    Call(
        "RunConfig",
        scratch(RunConfig),
        lambda: {
            **{"variant": "beta", "data": "digits", "data_root": "data", "image_size": (8, 8)},
            **{"model": {"beta": 2.0}, "training": {"epochs": 1}},
        },
    ),
]
