"""InfoGAN: a generative adversarial net whose codes can be read off what it generates.

Chen et al. (2016), InfoGAN: Interpretable Representation Learning by Information Maximizing
Generative Adversarial Nets, https://arxiv.org/abs/1606.03657.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from torch import nn

from pyro_mivae.arguments import checked, shape, text
from pyro_mivae.compat import name_of
from pyro_mivae.elbo import InfoGANLoss
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.guides import RecognitionGuide
from pyro_mivae.likelihoods import DeltaLikelihood
from pyro_mivae.memory import build_fitting
from pyro_mivae.networks import Discriminator, build_adversarial_networks, output_dim
from pyro_mivae.priors import InfoGANPrior, prior_sites
from pyro_mivae.variants import options
from pyro_mivae.variants.base import SMALLER, Variant

DISCRIMINATOR_LR = 2e-4
BETAS = (0.5, 0.999)


class InfoGAN(Variant):
    r"""Plays a game, and keeps the information between codes and what they generate.

    .. math:: \min_{G, Q} \max_D\; V(D, G) - \lambda\,I(c; x') - \lambda_u\,I(u; x'),\quad
        x' = G(z, c, u)

    with the bounds of `InfoGANLoss` for the information. The code is noise ``z``, a category
    ``c`` and uniform codes ``u`` on [-1, 1]. The data are a function of it: no ELBO and no
    distortion are defined, and reports hold NaN for them. The guide recognises ``c`` and ``u``
    by a layer of its own on the discriminator's features, and draws ``z`` from its prior.

    Training needs data in [0, 1] and two of them in a batch. `optim_args` has the paper's rates:
    2e-4 for the discriminator and what the guide shares with it, 1e-3 for all else, and its
    Adam, with the first moment's decay at 0.5.

    Args:
        data_shape: Shape of one datum.
        latent_dim: Size of ``z`` and ``u`` together; a prior that is given has its own.
        code_dim: Size of ``u``, 0 for none; likewise.
        num_categories: Number of categories of ``c``, 0 for none; likewise.
        mi_weight: :math:`\lambda`, per datum, of a category.
        continuous_weight: :math:`\lambda_u`, per datum, of a continuous code, whose information
            has no ceiling.
        saturating: True for a generator that minimises :math:`V` itself, in place of
            :math:`-E[\log D]`.
        **parts: ``prior``, whose noise is the site ``z`` and every other site a code; ``guide``,
            which then shares nothing with the discriminator; ``encoder``, the discriminator's
            trunk, from ``(batch, *data_shape)`` to features; ``decoder``, the generator, from
            ``(..., code size)`` to ``(..., *data_shape)``, before a logistic function.

    Attributes:
        discriminator: From data to log-odds of being data.

    Raises:
        OptionError: If a size or a weight is out of range.
        SiteError: If a prior that is given has no code beside its noise, or one that the default
            guide cannot recognise.
    """

    name = "infogan"
    noise = frozenset({"z"})
    code_site = "u"

    @options.checked_options(data_shape=shape())
    def __init__(
        self,
        data_shape: Sequence[int],
        *,
        latent_dim: options.LatentDim = 64,
        code_dim: options.CodeDim = 2,
        num_categories: options.NumCategories = 10,
        mi_weight: options.MIWeight = 1.0,
        continuous_weight: options.ContinuousWeight = 0.1,
        saturating: options.Saturating = False,
        **parts: Unpack[options.Networks],
    ) -> None:
        prior, trunk = parts.pop("prior", None), parts.get("encoder")
        given = prior is not None
        if prior is None:
            if not 0 <= code_dim < latent_dim:
                raise OptionError(
                    f"code_dim={code_dim} of latent_dim={latent_dim}: u needs 0 or more "
                    "coordinates and must leave the noise z 1 or more"
                )
            prior = InfoGANPrior(latent_dim - code_dim, num_categories, code_dim)
        distributions, width = prior_sites(prior)
        if trunk is None:
            networks = build_fitting(
                lambda: self.build_networks("auto", data_shape, width), SMALLER
            )
            trunk = networks[0]
            if parts.get("guide") is None:
                parts["encoder"] = trunk
        super().__init__(
            data_shape, lambda: prior, self._recognition, likelihood=DeltaLikelihood(), **parts
        )
        if given:
            self._require(latent_dim=latent_dim, code_dim=code_dim, num_categories=num_categories)
        self.discriminator = Discriminator(trunk, output_dim(trunk, self.data_shape))
        self.weights = {
            site: mi_weight if fn.has_enumerate_support else continuous_weight
            for site, fn in distributions.items()
            if site not in self.noise
        }
        if not self.weights:
            raise SiteError(
                f"the prior samples {list(self.sites)}, where z is noise; give it a code beside it"
            )
        self.saturating = saturating

    @classmethod
    def _own_options(cls) -> list[dict[str, Any]]:
        """Leaves the likelihood out, which is `DeltaLikelihood`."""
        found = super()._own_options()
        return [{name: o for name, o in own.items() if name != "likelihood"} for own in found]

    @classmethod
    def build_networks(
        cls, kind: str, data_shape: Sequence[int], code_dim: int
    ) -> tuple[nn.Module, nn.Module]:
        """Builds a discriminator's trunk and a generator, see `build_adversarial_networks`."""
        return build_adversarial_networks(kind, data_shape, code_dim)

    @checked(param_name=text())
    def optim_args(self, param_name: str) -> dict[str, Any]:
        """Returns learning rate and decay rates of Adam for a parameter, see `Variant`."""
        slow = "guide.encoder" in param_name or "discriminator" in param_name
        return {"lr": DISCRIMINATOR_LR if slow else 1e-3, "betas": BETAS}

    def _recognition(self, distributions: Mapping[str, Any], encoder: nn.Module) -> nn.Module:
        """Builds the default guide."""
        return RecognitionGuide(self.data_shape, distributions, encoder, noise=self.noise)

    def _loss(self, num_steps: int | None) -> InfoGANLoss:
        return InfoGANLoss(
            self.discriminator,
            self.weights,
            saturating=self.saturating,
            name=f"{name_of(self)}.discriminator",
        )
