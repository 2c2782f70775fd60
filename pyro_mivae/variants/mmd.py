"""MMD-VAE of Zhao, Song & Ermon (2017), InfoVAE, eq. 6, https://arxiv.org/abs/1706.02262."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from pyro_mivae.elbo import MutualInformationELBO
from pyro_mivae.errors import OptionError
from pyro_mivae.terms import MaximumMeanDiscrepancy
from pyro_mivae.variants import options
from pyro_mivae.variants.checks import CONTINUOUS, need
from pyro_mivae.variants.vae import VAE


class MMDVAE(VAE):
    r"""InfoVAE with the maximum mean discrepancy in place of the marginal's KL divergence.

    .. math:: J = E_q[\log p(x \mid z)] - (1 - \alpha) KL(q(z \mid x) \| p(z))
        - (\alpha + \lambda - 1)\, MMD^2(q(z), p(z))

    The paper starts from :math:`E_q[\log p(x \mid z)] + \alpha I_q(x; z) - ...`: with
    :math:`\alpha = 1` information in the code has no cost. The discrepancy is not in nats.

    The other arguments are those of `VAE`.

    Args:
        mi_weight: :math:`\alpha`, the weight of the information, at most 1.
        marginal_weight: :math:`\lambda`, the weight that keeps :math:`q(z)` close to the prior; at
            least :math:`1 - \alpha`.
        kernel: ``"rbf"`` or ``"imq"``, see `maximum_mean_discrepancy`.

    Example:
        >>> print(mi.explain(MMDVAE((1, 8, 8)).objective()))
        J =  E_q[log p(x|code)]
           - 0 * KL(q(z|x) || p(z))   [left out]
           + 1000 * (-MMD^2(q(z), p(z)), not in nats)
        maximised; nats per datum
    """

    name = "mmd"
    unconditional = "it compares the codes of all data with the prior, not those of one condition"

    @options.checked_options()
    def __init__(
        self,
        data_shape: Sequence[int],
        *,
        mi_weight: options.SignedMIWeight = 1.0,
        marginal_weight: options.MarginalWeight = 1000.0,
        kernel: options.KernelName = "rbf",
        **parts: Unpack[options.SizedParts],
    ) -> None:
        super().__init__(data_shape, **parts)
        need(self, not self.categories, CONTINUOUS)
        if mi_weight + marginal_weight < 1:
            raise OptionError(
                f"mi_weight={mi_weight}, marginal_weight={marginal_weight}: allowed are numbers "
                "whose sum is 1 or more"
            )
        self.mi_weight = mi_weight
        self.marginal_weight = marginal_weight
        self.kernel = kernel

    def _loss(self, num_steps: int | None) -> MutualInformationELBO:
        weight = self.mi_weight + self.marginal_weight - 1
        term = MaximumMeanDiscrepancy(*self.sites, weight=weight, kernel=self.kernel)
        return MutualInformationELBO([term], dict.fromkeys(self.sites, 1 - self.mi_weight))
