"""Variants, their methods, and what trains and explains them."""

import functools
from typing import Any

import pyro.optim
import torch

import pyro_mivae as mi

from .calls import Call

X = torch.linspace(0, 1, 3 * 64).reshape(3, 1, 8, 8)
KEPT = {"data_shape": (1, 8, 8), "prior": None, "guide": None, "encoder": None, "decoder": None}
SIZED = {"likelihood": "bernoulli", "latent_dim": 2}
CATEGORIES = {
    **{"num_categories": 3, "latent_dim": 6, "radius": 3.0, "warm_start": 2},
    **{"likelihood": "bernoulli", "num_decodes": 2, "categorical": "sample"},
}
CRITIC = {
    **{"mi_weight": 1.0, "beta": 1.0, "bound": "nwj", "critic": "joint", "critic_lr": 1e-3},
    **{"num_particles": 2, "regularization": None},
}
ARGUMENTS: dict[type[mi.Variant], dict[str, Any]] = {
    mi.VAE: SIZED,
    mi.BetaVAE: {**SIZED, "beta": 2.0},
    mi.MMDVAE: {**SIZED, "mi_weight": 1.0, "marginal_weight": 10.0, "kernel": "rbf"},
    mi.InfomaxVAE: {**SIZED, "code_dim": 1, "deterministic": False},
    mi.VMIVAE: {**SIZED, "code_dim": 1, "sites": "c", "mi_weight": 1.0, "generated": "mean"},
    mi.CriticInfomaxVAE: {**SIZED, **CRITIC},
    mi.CatVAE: CATEGORIES,
    mi.InfoCatVAE: {**CATEGORIES, "mi_weight": 5.0},
    mi.InfoGAN: {
        **{"latent_dim": 6, "code_dim": 2, "num_categories": 3, "mi_weight": 1.0},
        **{"continuous_weight": 0.1, "saturating": False},
    },
}


def trained_once(vae):
    """Takes a step as `fit` does, where a fault of an argument may first show."""
    vae.initialize(X)
    loss = vae.objective(num_steps=10)
    mi.SVI(vae.model, vae.guide, pyro.optim.Adam(vae.optim_args), loss).step(X)


@functools.cache
def built(variant):
    return variant((1, 8, 8), **ARGUMENTS[variant])


def method(variant, name, examples=20, **arguments):
    def call(**given):
        return getattr(built(variant), name)(**given)

    return Call(f"{variant.__name__}.{name}", call, lambda: dict(arguments), examples)


def svi(**changes):
    vae = built(mi.VAE)
    adam = pyro.optim.Adam({"lr": 1e-3})
    given = {"model": vae.model, "guide": vae.guide, "optim": adam, "loss": vae.objective()}
    return given | {"engine": "eager"} | changes


CALLS = [
    Call(
        "CategoryStart",
        mi.CategoryStart,
        lambda: {
            **{"warm_start": 2, "starts": 2, "start_radius": 0.1, "transform": "affine"},
            **{"start_weight": 2.0, "warmup": 0.5},
        },
        20,
        lambda start: trained_once(mi.CatVAE((1, 8, 8), num_categories=3, warm_start=start)),
    ),
    *(
        Call(variant.__name__, variant, lambda given=given: KEPT | given, 30, trained_once)
        for variant, given in ARGUMENTS.items()
    ),
    *(
        method(variant, name, **arguments)
        for variant in (mi.VAE, mi.CatVAE, mi.InfoGAN)
        for name, arguments in (
            ("check_data", {"x": X}),
            ("encode", {"x": X, "what": "mean", "num_draws": None, "guide": None}),
            ("reconstruct", {"x": X, "keep": None}),
            ("sample", {"n": 2, "category": None, "what": "mean"}),
            ("objective", {"num_steps": 10}),
            ("optim_args", {"param_name": "guide.encoder.weight"}),
        )
    ),
    method(mi.VAE, "decode", codes={"z": torch.ones(2, 2)}, n=2),
    method(mi.CatVAE, "decode", codes={"c": torch.tensor([0, 2])}, n=2),
    method(mi.CatVAE, "sample", n=2, category=1, what="data"),
    method(mi.CatVAE, "encode", x=X, what="draws", num_draws=2),
    method(mi.CatVAE, "initialize", x=X),
    Call("SVI", mi.SVI, svi, 30, lambda svi: svi.step(X)),
    Call("SVI.step", lambda x: mi.SVI(**svi()).step(x), lambda: {"x": X}, 30),
    Call("explain", mi.explain, lambda: {"objective": mi.MutualInformationELBO()}),
    Call("diagnose", mi.diagnose, lambda: {"figures": {"kl_z": 0.1}, "noise": ("u",)}),
]
