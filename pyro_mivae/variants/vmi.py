"""VMI-VAE of Ducau & Trénous, Mutual Information in Variational Autoencoders (poster)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from pyro_mivae.elbo import MutualInformationELBO
from pyro_mivae.errors import SiteError
from pyro_mivae.priors import StandardNormalPrior
from pyro_mivae.terms import BarberAgakov
from pyro_mivae.variants import options
from pyro_mivae.variants.base import Variant
from pyro_mivae.variants.checks import check_sizes, split


class VMIVAE(Variant):
    r"""Adds :math:`\lambda` times a lower bound on :math:`I(c; x')` to the ELBO.

    .. math:: I(c; x') \ge E_{z,c \sim p}[\log q(c \mid x')] + H(c),\quad x' \sim p(x \mid z, c)

    The bound is the reconstruction term of a dual autoencoder: it draws codes from the prior,
    encodes them into data by the decoder, and decodes them by the encoder.

    The guide reads real and generated data. With batch norm it would use separate statistics in
    training and common ones in evaluation, and recognise less. So the default networks have no
    batch norm here.

    Args:
        data_shape: Shape of one datum.
        latent_dim: Size of ``z`` and ``c`` together.
        code_dim: Size of ``c``, half of ``latent_dim`` if omitted.
        sites: The part of the code that the term is about: a site, several, or ``"all"``; the
            prior's last site if omitted.
        mi_weight: :math:`\lambda`, per datum, a number or a schedule.
        generated: Kind of generated data in the term, see `BarberAgakov`. The poster takes
            ``"mean"``: a mean can carry information that samples do not have.
        **parts: Parts, as `VAE` takes them.

    References:
        The poster's loss has inconsistent signs; here the ELBO plus the term is maximised. Barber
        & Agakov (2003), The IM Algorithm, eq. 3.

    Example:
        >>> vae = VMIVAE((1, 8, 8), latent_dim=6, sites=("z", "c"), mi_weight=0.5)
        >>> print(mi.explain(vae.objective()))
        J =  E_q[log p(x|code)]
           - 1 * KL(q(z|x) || p(z))
           - 1 * KL(q(c|x) || p(c))
           + 0.5 * (E_p[log q(z,c|x')] + H(z,c)),  x' = sample (straight-through)
        maximised; nats per datum
    """

    name = "vmi"
    batch_norm = False

    @options.checked_options()
    def __init__(
        self,
        data_shape: Sequence[int],
        *,
        latent_dim: options.LatentDim = 20,
        code_dim: options.CodeDim | None = None,
        sites: options.Sites | None = None,
        mi_weight: options.MIWeight = 1.0,
        generated: options.Generated = "straight-through",
        **parts: Unpack[options.Parts],
    ) -> None:
        size = latent_dim // 2 if code_dim is None else code_dim
        super().__init__(
            data_shape, lambda: StandardNormalPrior(split(latent_dim, size), size), **parts
        )
        check_sizes(self, latent_dim=latent_dim, code_dim=code_dim)
        sites = self.code_site if sites is None else sites
        names = [sites] if isinstance(sites, str) else sites
        names = list(self.sites) if list(names) == ["all"] else names
        if not names or not set(names) <= set(self.sites):
            raise SiteError(
                f"sites={sites!r}: allowed are one or more of the sites {list(self.sites)}, or "
                "'all'"
            )
        self.term_sites = tuple(name for name in self.sites if name in names)
        self.mi_weight = mi_weight
        self.generated = generated

    def _loss(self, num_steps: int | None) -> MutualInformationELBO:
        term = BarberAgakov(*self.term_sites, weight=self.mi_weight, generated=self.generated)
        return MutualInformationELBO([term])
