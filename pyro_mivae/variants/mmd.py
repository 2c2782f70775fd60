"""MMD-VAE: the aggregate posterior, and not each posterior, is held at the prior.

Zhao, Song & Ermon (2017), InfoVAE, https://arxiv.org/abs/1706.02262
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import get_args

from torch import Tensor, nn

from pyro_mivae.arguments import LARGEST_WEIGHT, checked, choice, number
from pyro_mivae.elbo import MutualInformationELBO
from pyro_mivae.errors import OptionError
from pyro_mivae.likelihoods import Likelihood
from pyro_mivae.terms import MaximumMeanDiscrepancy
from pyro_mivae.terms.in_batch import Kernel
from pyro_mivae.variants.vae import VAE


class MMDVAE(VAE):
    r"""InfoVAE with the maximum mean discrepancy in place of the marginal's KL divergence.

    .. math:: J = E_q[\log p(x \mid z)] - (1 - \alpha) KL(q(z \mid x) \| p(z))
        - (\alpha + \lambda - 1)\, MMD^2(q(z), p(z))

    The paper starts from :math:`E_q[\log p(x \mid z)] + \alpha I_q(x; z) - ...`: with
    :math:`\alpha = 1` the code pays nothing for its information. The discrepancy is not in nats.

    Args:
        data_shape: Shape of one datum.
        mi_weight: :math:`\alpha`, the weight of the information, at most 1.
        marginal_weight: :math:`\lambda`, the weight with which :math:`q(z)` is held at the prior.
        kernel: ``"rbf"`` or ``"imq"``, see `maximum_mean_discrepancy`.
        latent_dim: Size of ``z``; a prior that is given has its own.
        likelihood: A likelihood or its name.
        prior: Takes the place of :math:`N(0, I)`.
        guide: Takes the place of the mean-field guide.
        encoder: From ``(batch, *data_shape)`` to features.
        decoder: From ``(..., latent_dim)`` to ``(..., *data_shape)``.

    Raises:
        OptionError: If ``mi_weight`` is above 1, or the two together are under 1: a weight of the
            objective would be negative.

    References:
        Zhao, Song & Ermon (2017), InfoVAE, eq. 6. https://arxiv.org/abs/1706.02262
    """

    name = "mmd"

    @checked(
        mi_weight=number(least=-LARGEST_WEIGHT, most=1),
        marginal_weight=number(least=-LARGEST_WEIGHT, most=LARGEST_WEIGHT),
        kernel=choice(*get_args(Kernel)),
    )
    def __init__(
        self,
        data_shape: Sequence[int],
        *,
        mi_weight: float = 1.0,
        marginal_weight: float = 1000.0,
        kernel: Kernel = "rbf",
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
        if mi_weight + marginal_weight < 1:
            raise OptionError(
                f"mi_weight={mi_weight}, marginal_weight={marginal_weight}: both together are to "
                "be 1 at least"
            )
        self.mi_weight = mi_weight
        self.marginal_weight = marginal_weight
        self.kernel = kernel
        self.objective()

    def _loss(self, num_steps: int | None) -> MutualInformationELBO:
        weight = self.mi_weight + self.marginal_weight - 1
        term = MaximumMeanDiscrepancy(*self.sites, weight=weight, kernel=self.kernel)
        return MutualInformationELBO([term], dict.fromkeys(self.sites, 1 - self.mi_weight))
