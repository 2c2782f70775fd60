"""InfoGAN: a generative adversarial net whose codes can be read off what it generates.

Chen et al. (2016), InfoGAN: Interpretable Representation Learning by Information Maximizing
Generative Adversarial Nets, https://arxiv.org/abs/1606.03657.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from pyro_mivae.arguments import checked, flag, number_or_schedule, size, text
from pyro_mivae.elbo import InfoGANLoss
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.guides import RecognitionGuide
from pyro_mivae.likelihoods import DeltaLikelihood
from pyro_mivae.memory import build_fitting
from pyro_mivae.networks import Discriminator, build_adversarial_networks, output_dim
from pyro_mivae.priors import CodesPrior, prior_sites
from pyro_mivae.schedules import Schedule
from pyro_mivae.variants.base import SMALLER, Variant
from pyro_mivae.variants.checks import PARTS, require_sizes

DISCRIMINATOR_LR = 2e-4
BETAS = (0.5, 0.999)


class InfoGAN(Variant):
    r"""Plays a game, and keeps the information between codes and what they generate.

    .. math:: \min_{G, Q} \max_D\; V(D, G) - \lambda\,I(c; x') - \lambda_u\,I(u; x'),\quad
        x' = G(z, c, u)

    with the bounds of `InfoGANLoss` for the information. The code is noise ``z``, a category
    ``c`` and uniform codes ``u`` on [-1, 1]; the data are a function of it, so that no ELBO and
    no distortion are defined, and reports hold NaN for them. The guide recognises ``c`` and ``u``
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
        saturating: Whether the generator minimises :math:`V` itself, in place of
            :math:`-E[\log D]`.
        prior: Takes the place of `CodesPrior`; its noise is the site ``z``, every other site a
            code.
        guide: Takes the place of `RecognitionGuide`; the discriminator then shares nothing.
        encoder: The discriminator's trunk, from ``(batch, *data_shape)`` to features.
        decoder: The generator, from ``(..., code size)`` to ``(..., *data_shape)``, before a
            logistic function.

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

    @checked(
        **PARTS,
        latent_dim=size(),
        code_dim=size(least=0),
        num_categories=size(least=0),
        mi_weight=number_or_schedule(least=0),
        continuous_weight=number_or_schedule(least=0),
        saturating=flag(),
    )
    def __init__(
        self,
        data_shape: Sequence[int],
        *,
        latent_dim: int = 64,
        code_dim: int = 2,
        num_categories: int = 10,
        mi_weight: float | Schedule = 1.0,
        continuous_weight: float | Schedule = 0.1,
        saturating: bool = False,
        prior: Callable[[], Tensor] | None = None,
        guide: nn.Module | None = None,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> None:
        given = prior is not None
        if prior is None:
            if not 0 <= code_dim < latent_dim:
                raise OptionError(
                    f"code_dim={code_dim} of latent_dim={latent_dim}: u needs 0 or more "
                    "coordinates and must leave the noise z 1 or more"
                )
            prior = CodesPrior(latent_dim - code_dim, num_categories, code_dim)
        distributions, width = prior_sites(prior)
        trunk = encoder
        if trunk is None:

            def build() -> tuple[nn.Module, nn.Module]:
                return self.build_networks("auto", data_shape, width)

            trunk = build_fitting(build, SMALLER)[0]

        def build_guide(sites: Mapping[str, int], encoder: nn.Module) -> nn.Module:
            return RecognitionGuide(data_shape, distributions, encoder, noise=self.noise)

        super().__init__(
            data_shape,
            prior=prior,
            guide=guide,
            likelihood=DeltaLikelihood(),
            encoder=trunk if guide is None else encoder,
            decoder=decoder,
            build_guide=build_guide,
        )
        if given:
            require_sizes(
                self, latent_dim=latent_dim, code_dim=code_dim, num_categories=num_categories
            )
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
        self.objective()

    @classmethod
    def build_networks(
        cls, kind: str, data_shape: Sequence[int], code_dim: int
    ) -> tuple[nn.Module, nn.Module]:
        """Builds a discriminator's trunk and a generator, see `build_adversarial_networks`.

        Args:
            kind: ``"auto"``, ``"mlp"``, ``"conv-narrow"``, ``"conv-half"`` or ``"conv"``.
            data_shape: Shape of one datum.
            code_dim: Size of the code that the generator takes.

        Returns:
            The trunk and the generator.
        """
        return build_adversarial_networks(kind, data_shape, code_dim)

    @checked(param_name=text())
    def optim_args(self, param_name: str) -> dict[str, Any]:
        """Returns the optimiser's options of a parameter: ``pyro.optim.Adam(vae.optim_args)``.

        Args:
            param_name: Name of the parameter, of the module's own or in Pyro's param store.

        Returns:
            Learning rate and decay rates of Adam.
        """
        slow = "guide.encoder" in param_name or "discriminator" in param_name
        return {"lr": DISCRIMINATOR_LR if slow else 1e-3, "betas": BETAS}

    def _loss(self, num_steps: int | None) -> InfoGANLoss:
        return InfoGANLoss(
            self.discriminator,
            self.weights,
            saturating=self.saturating,
            name=f"{self._pyro_name}.discriminator",
        )
