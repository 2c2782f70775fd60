"""The variants: one short class per paper."""

from pyro_mivae.variants.base import VARIANT, Variant
from pyro_mivae.variants.cat import CatVAE
from pyro_mivae.variants.critic_infomax import CriticInfomaxVAE
from pyro_mivae.variants.infocat import InfoCatVAE
from pyro_mivae.variants.infogan import InfoGAN
from pyro_mivae.variants.infomax import InfomaxVAE
from pyro_mivae.variants.mmd import MMDVAE
from pyro_mivae.variants.vae import VAE, BetaVAE
from pyro_mivae.variants.vmi import VMIVAE
from pyro_mivae.variants.warm_start import CategoryStart

VARIANTS: dict[str, type[Variant]] = {
    variant.name: variant
    for variant in (
        VAE,
        BetaVAE,
        MMDVAE,
        InfomaxVAE,
        VMIVAE,
        CriticInfomaxVAE,
        CatVAE,
        InfoCatVAE,
        InfoGAN,
    )
}

__all__ = [
    "MMDVAE",
    "VAE",
    "VARIANT",
    "VARIANTS",
    "VMIVAE",
    "BetaVAE",
    "CatVAE",
    "CategoryStart",
    "CriticInfomaxVAE",
    "InfoCatVAE",
    "InfoGAN",
    "InfomaxVAE",
    "Variant",
]
