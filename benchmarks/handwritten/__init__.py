"""What one writes by hand in PyTorch in place of each variant: a module that is its loss."""

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

HANDWRITTEN = {
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

__all__ = ["HANDWRITTEN", "check_equal", "make_adam", "train"]
