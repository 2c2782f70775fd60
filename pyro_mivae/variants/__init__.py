"""The variants: one short declaration per paper."""

from pyro_mivae.variants.base import Variant
from pyro_mivae.variants.cat import CatVAE
from pyro_mivae.variants.infocat import InfoCatVAE
from pyro_mivae.variants.infomax import InfomaxVAE
from pyro_mivae.variants.vae import VAE, BetaVAE
from pyro_mivae.variants.vmi import VMIVAE

VARIANTS: dict[str, type[Variant]] = {
    variant.name: variant for variant in (VAE, BetaVAE, InfomaxVAE, CatVAE, InfoCatVAE, VMIVAE)
}

__all__ = ["VARIANTS", "VAE", "VMIVAE", "BetaVAE", "CatVAE", "InfoCatVAE", "InfomaxVAE", "Variant"]
