r"""InfomaxVAE: a part of the code is left out of the KL divergence.

Bachmann, InfomaxVAE, https://github.com/bacdavid/InfomaxVAE (unpublished).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from pyro_mivae.arguments import checked, flag, size
from pyro_mivae.elbo import MutualInformationELBO
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.guides import MeanFieldGuide
from pyro_mivae.likelihoods import Likelihood
from pyro_mivae.priors import StandardNormalPrior
from pyro_mivae.variants.base import Variant
from pyro_mivae.variants.checks import require_sizes


class InfomaxVAE(Variant):
    r"""Regularises ``z`` and leaves ``c`` free.

    .. math:: J = E_q[\log p(x \mid z, c)] - KL(q(z \mid x) \| p(z))

    The source adds :math:`I(x; c)` to the ELBO and takes :math:`E_x KL(q(c \mid x) \| p(c))` for
    it, so that the two cancel. That KL is the *rate* of ``c``, an upper bound on
    :math:`I_q(x; c)`, and not the information itself. A deterministic ``c``, as the source has,
    carries no KL at all: it is reported as NaN.

    Args:
        data_shape: Shape of one datum.
        latent_dim: Size of ``z`` and ``c`` together; the source has 100. A prior that is given
            has its own.
        code_dim: Size of ``c``; likewise.
        deterministic: Whether ``c`` is a function of the data (a Delta) and not a Normal.
        likelihood: A likelihood or its name.
        prior: Takes the place of :math:`N(0, I)`; it must have a site ``c``.
        guide: Takes the place of the mean-field guide.
        encoder: From ``(batch, *data_shape)`` to features.
        decoder: From ``(..., latent_dim)`` to ``(..., *data_shape)``.

    Raises:
        OptionError: If ``code_dim`` leaves no ``z``, or ``deterministic`` is asked of a guide
            that is given.
        SiteError: If a prior that is given has no site ``c``.
    """

    name = "infomax"

    @checked(latent_dim=size(), code_dim=size(), deterministic=flag())
    def __init__(
        self,
        data_shape: Sequence[int],
        *,
        latent_dim: int = 20,
        code_dim: int = 1,
        deterministic: bool = False,
        likelihood: str | Likelihood = "bernoulli",
        prior: Callable[[], Tensor] | None = None,
        guide: nn.Module | None = None,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> None:
        if prior is None:
            if not 1 <= code_dim < latent_dim:
                raise OptionError(
                    f"code_dim={code_dim} of latent_dim={latent_dim}: c needs 1 or more "
                    "coordinates and must leave z 1 or more"
                )
            prior = StandardNormalPrior(latent_dim - code_dim, code_dim)
        if deterministic and guide is not None:
            raise OptionError("deterministic=True and a guide are both given; give one of them")

        def build_guide(sites: Mapping[str, int], encoder: nn.Module) -> nn.Module:
            return MeanFieldGuide(data_shape, sites, encoder, ("c",) if deterministic else ())

        super().__init__(
            data_shape,
            prior=prior,
            guide=guide,
            likelihood=likelihood,
            encoder=encoder,
            decoder=decoder,
            build_guide=build_guide,
        )
        if "c" not in self.sites:
            raise SiteError(f"the prior samples {list(self.sites)}; InfomaxVAE needs a site 'c'")
        require_sizes(self, latent_dim=latent_dim, code_dim=code_dim)

    def _loss(self, num_steps: int | None) -> MutualInformationELBO:
        return MutualInformationELBO(kl_weights={"z": 1.0, "c": 0.0})
