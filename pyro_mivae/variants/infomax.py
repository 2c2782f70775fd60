"""InfomaxVAE of Bachmann, https://github.com/bacdavid/InfomaxVAE (unpublished)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Unpack

from pyro_mivae.elbo import MutualInformationELBO
from pyro_mivae.errors import OptionError
from pyro_mivae.guides import AmortizedGuide
from pyro_mivae.priors import StandardNormalPrior
from pyro_mivae.variants import options
from pyro_mivae.variants.base import Variant
from pyro_mivae.variants.checks import check_sizes, need, split


class InfomaxVAE(Variant):
    r"""Regularises ``z`` and leaves ``c`` free.

    .. math:: J = E_q[\log p(x \mid z, c)] - KL(q(z \mid x) \| p(z))

    The source adds :math:`I(x; c)` to the ELBO, computed as :math:`E_x KL(q(c \mid x) \| p(c))`,
    so the two cancel. That KL is the *rate* of ``c``, an upper bound on :math:`I_q(x; c)`, and not
    the information itself. A deterministic ``c``, as in the source, has no KL: reports have NaN.

    Args:
        data_shape: Shape of one datum.
        latent_dim: Size of ``z`` and ``c`` together; the source has 100.
        code_dim: Size of ``c``.
        deterministic: True for a ``c`` that is a function of the data (a Delta), not a Normal.
        **parts: Parts, as `VAE` takes them. The last of a prior's two or more sites is ``c``.

    Example:
        >>> print(mi.explain(InfomaxVAE((1, 8, 8), latent_dim=5, code_dim=2).objective()))
        J =  E_q[log p(x|code)]
           - 1 * KL(q(z|x) || p(z))
           - 0 * KL(q(c|x) || p(c))   [left out]
        maximised; nats per datum
    """

    name = "infomax"

    @options.checked_options()
    def __init__(
        self,
        data_shape: Sequence[int],
        *,
        latent_dim: options.LatentDim = 20,
        code_dim: options.CodeDim = 1,
        deterministic: options.Deterministic = False,
        **parts: Unpack[options.Parts],
    ) -> None:
        if deterministic and parts.get("guide") is not None:
            raise OptionError("deterministic=True and a guide are both given; give one of them")
        super().__init__(
            data_shape,
            lambda: StandardNormalPrior(split(latent_dim, code_dim), code_dim),
            partial(AmortizedGuide, deterministic=("c",) if deterministic else ()),
            **parts,
        )
        need(self, len(self.sites) > 1, "two sites or more, of which the last is free")
        check_sizes(self, latent_dim=latent_dim, code_dim=code_dim)

    def _loss(self, num_steps: int | None) -> MutualInformationELBO:
        return MutualInformationELBO(
            kl_weights=dict.fromkeys(self.sites, 1.0) | {self.code_site: 0.0}
        )
