"""The variational autoencoder, and the one with a weight on its KL divergence.

Kingma & Welling (2014), Auto-Encoding Variational Bayes, https://arxiv.org/abs/1312.6114;
Higgins et al. (2017), beta-VAE.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from pyro_mivae.arguments import checked, number_or_schedule, size
from pyro_mivae.elbo import MutualInformationELBO
from pyro_mivae.likelihoods import Likelihood
from pyro_mivae.priors import StandardNormalPrior
from pyro_mivae.schedules import Schedule
from pyro_mivae.variants.base import Variant
from pyro_mivae.variants.checks import require_sizes


class VAE(Variant):
    r"""Variational autoencoder: :math:`J = E_q[\log p(x \mid z)] - KL(q(z \mid x) \| p(z))`.

    Args:
        data_shape: Shape of one datum.
        latent_dim: Size of ``z``; a prior that is given has its own.
        likelihood: A likelihood or its name.
        prior: Takes the place of :math:`N(0, I)`.
        guide: Takes the place of the mean-field guide.
        encoder: From ``(batch, *data_shape)`` to features.
        decoder: From ``(..., latent_dim)`` to ``(..., *data_shape)``.
    """

    name = "vae"

    @checked(latent_dim=size())
    def __init__(
        self,
        data_shape: Sequence[int],
        *,
        latent_dim: int = 20,
        likelihood: str | Likelihood = "bernoulli",
        prior: Callable[[], Tensor] | None = None,
        guide: nn.Module | None = None,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__(
            data_shape,
            prior=StandardNormalPrior(latent_dim) if prior is None else prior,
            guide=guide,
            likelihood=likelihood,
            encoder=encoder,
            decoder=decoder,
        )
        require_sizes(self, latent_dim=latent_dim)

    def _loss(self, num_steps: int | None) -> MutualInformationELBO:
        return MutualInformationELBO()


class BetaVAE(VAE):
    r"""Weighs the KL divergence: :math:`J = E_q[\log p(x \mid z)] - \beta\,KL`.

    Args:
        data_shape: Shape of one datum.
        beta: :math:`\beta`, a number of at least 0 or a schedule of the training step.
        latent_dim: Size of ``z``; a prior that is given has its own.
        likelihood: A likelihood or its name.
        prior: Takes the place of :math:`N(0, I)`.
        guide: Takes the place of the mean-field guide.
        encoder: From ``(batch, *data_shape)`` to features.
        decoder: From ``(..., latent_dim)`` to ``(..., *data_shape)``.
    """

    name = "beta"

    @checked(beta=number_or_schedule(least=0))
    def __init__(
        self,
        data_shape: Sequence[int],
        *,
        beta: float | Schedule = 4.0,
        latent_dim: int = 20,
        likelihood: str | Likelihood = "bernoulli",
        prior: Callable[[], Tensor] | None = None,
        guide: nn.Module | None = None,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> None:
        super().__init__(
            data_shape,
            latent_dim=latent_dim,
            likelihood=likelihood,
            prior=prior,
            guide=guide,
            encoder=encoder,
            decoder=decoder,
        )
        self.beta = beta
        self.objective()

    def _loss(self, num_steps: int | None) -> MutualInformationELBO:
        return MutualInformationELBO(kl_weights=dict.fromkeys(self.sites, self.beta))
