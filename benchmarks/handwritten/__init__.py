"""What one writes by hand in PyTorch in place of each variant: a module that is its loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

import pyro_mivae as mi
from benchmarks.handwritten.equality import check_equal
from benchmarks.handwritten.game import InfoGAN
from benchmarks.handwritten.gaussian import (
    MMDVAE,
    VAE,
    VMIVAE,
    BetaVAE,
    CriticInfomaxVAE,
    InfomaxVAE,
)
from benchmarks.handwritten.loop import make_adam, train
from benchmarks.handwritten.mixture import CatVAE, InfoCatVAE
from benchmarks.handwritten.parts import (
    FlowVAE,
    FullCovarianceVAE,
    TwoCategories,
    TwoCategoriesVAE,
    VampVAE,
)
from pyro_mivae.networks import MLPDecoder, MLPEncoder

HANDWRITTEN: dict[str, type[nn.Module]] = {
    "vae": VAE,
    "beta": BetaVAE,
    "infomax": InfomaxVAE,
    "mmd": MMDVAE,
    "vmi": VMIVAE,
    "critic-infomax": CriticInfomaxVAE,
    "cat": CatVAE,
    "infocat": InfoCatVAE,
    "infogan": InfoGAN,
}
"""By the variants' names: from a built variant, whose networks it takes, to its loss per datum."""

COMPONENTS = 100
SWAPPED: dict[str, tuple[str, Callable[..., dict[str, Any]], type[nn.Module]]] = {
    "iaf": ("vae", lambda shape: {"guide": "iaf"}, FlowVAE),
    "full-covariance": ("vae", lambda shape: {"guide": "full-covariance"}, FullCovarianceVAE),
    "vamp": (
        "vae",
        lambda shape: {"prior": mi.VampPrior(shape, num_components=COMPONENTS)},
        VampVAE,
    ),
    "two-categories": ("cat", lambda shape: {"prior": TwoCategories()}, TwoCategoriesVAE),
}
"""Variants with another guide or prior: the variant, its parts for images of a shape, the loss."""
CASES = (*HANDWRITTEN, *SWAPPED)


def build_case(
    name: str,
    shape: tuple[int, ...],
    options: Mapping[str, Any],
    hidden_dims: Sequence[int] | None = None,
) -> tuple[Any, type[nn.Module]]:
    """Builds a variant and finds its loss by hand.

    Args:
        name: One of `CASES`.
        shape: Shape of one image.
        options: Options of the variant.
        hidden_dims: Widths of an MLP's hidden layers, without batch norm, for encoder and
            decoder; the variant's own networks if omitted, and for InfoGAN.
    """
    variant, parts, loss = SWAPPED.get(name) or (name, lambda shape: {}, HANDWRITTEN[name])
    torch.manual_seed(0)
    vae = mi.VARIANTS[variant].build(shape, **options, **parts(shape))
    if hidden_dims is not None and variant != "infogan":
        networks = {
            "encoder": MLPEncoder(shape, hidden_dims),
            "decoder": MLPDecoder(vae.latent_dim, shape, hidden_dims[::-1]),
        }
        vae = mi.VARIANTS[variant].build(shape, **options, **parts(shape), **networks)
    return vae, loss


__all__ = ["CASES", "HANDWRITTEN", "SWAPPED", "build_case", "check_equal", "make_adam", "train"]
