"""VMI-VAE: a part of the code is made to be found again in what the model generates.

Ducau & Trénous, Mutual Information in Variational Autoencoders (poster).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import get_args

from torch import Tensor, nn

from pyro_mivae.arguments import checked, choice, either, number_or_schedule, several, size, text
from pyro_mivae.elbo import MutualInformationELBO
from pyro_mivae.errors import OptionError, SiteError
from pyro_mivae.likelihoods import Likelihood
from pyro_mivae.priors import StandardNormalPrior
from pyro_mivae.schedules import Schedule
from pyro_mivae.terms import BarberAgakov, Generation
from pyro_mivae.variants.base import Variant
from pyro_mivae.variants.checks import require_sizes

ALL = "all"


class VMIVAE(Variant):
    r"""Adds :math:`\lambda` times a lower bound on :math:`I(c; x')` to the ELBO.

    .. math:: I(c; x') \ge E_{z,c \sim p}[\log q(c \mid x')] + H(c),\quad x' = E[x \mid z, c]

    The bound is the reconstruction term of a dual autoencoder, which observes codes drawn from
    the prior, encodes them into data by the decoder, and decodes them by the encoder.

    The guide reads data and what the model generates. Normalised by the batch, it would read each
    by statistics of its own while training and both by common ones afterwards, and find less
    again; so the default networks are not batch-normalised here.

    With a prior of one's own the default guide follows it: a Normal for a site on the real line,
    a `ProbitNormal` for one on the unit interval, as `UniformPrior` has it.

    Args:
        data_shape: Shape of one datum.
        latent_dim: Size of ``z`` and ``c`` together. A prior that is given has its own.
        code_dim: Size of ``c``, half of ``latent_dim`` if omitted; likewise.
        informed: The part of the code that the term is about: a site, several, or ``"all"``.
        mi_weight: :math:`\lambda`, per datum, a number of at least 0 or a schedule.
        generated: The data that the guide reads in the term, see `BarberAgakov`.
        likelihood: A likelihood or its name.
        prior: Takes the place of :math:`N(0, I)`.
        guide: Takes the place of the mean-field guide.
        encoder: From ``(batch, *data_shape)`` to features.
        decoder: From ``(..., latent_dim)`` to ``(..., *data_shape)``.

    Raises:
        OptionError: If ``code_dim`` leaves no ``z``, or ``mi_weight`` or ``generated`` is none of
            these.
        SiteError: If ``informed`` names no site, or one that the prior does not have.

    References:
        Ducau & Trénous, Mutual Information in Variational Autoencoders. Its loss mixes the signs
        of its parts; what is maximised here is the ELBO plus the term.
        Barber & Agakov (2003), The IM Algorithm, eq. 3.

    Example:
        >>> vae = VMIVAE((1, 8, 8), latent_dim=6, informed=("z", "c"), mi_weight=0.5)
        >>> print(mi.explain(vae.objective()))
        J =  E_q[log p(x|code)]
           - 1 * KL(q(z|x) || p(z))
           - 1 * KL(q(c|x) || p(c))
           + 0.5 * (E_p[log q(z,c|x')] + H(z,c)),  x' = mean of p(x|code)
        maximised; nats per datum
    """

    name = "vmi"
    batch_norm = False

    @checked(
        latent_dim=size(),
        code_dim=size(),
        informed=either(several(text(), least=0), text()),
        mi_weight=number_or_schedule(least=0),
        generated=choice(*get_args(Generation)),
    )
    def __init__(
        self,
        data_shape: Sequence[int],
        *,
        latent_dim: int = 20,
        code_dim: int | None = None,
        informed: str | Collection[str] = "c",
        mi_weight: float | Schedule = 1.0,
        generated: Generation = "mean",
        likelihood: str | Likelihood = "bernoulli",
        prior: Callable[[], Tensor] | None = None,
        guide: nn.Module | None = None,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ) -> None:
        if prior is None:
            size = latent_dim // 2 if code_dim is None else code_dim
            if not 1 <= size < latent_dim:
                raise OptionError(
                    f"code_dim={size} of latent_dim={latent_dim}: c needs 1 or more coordinates "
                    "and must leave z 1 or more"
                )
            prior = StandardNormalPrior(latent_dim - size, size)
        super().__init__(
            data_shape,
            prior=prior,
            guide=guide,
            likelihood=likelihood,
            encoder=encoder,
            decoder=decoder,
        )
        require_sizes(self, latent_dim=latent_dim, code_dim=code_dim)
        names = [informed] if isinstance(informed, str) else list(informed)
        names = list(self.sites) if names == [ALL] else names
        if not names or not set(names) <= set(self.sites):
            raise SiteError(
                f"informed={informed!r}: allowed are one or more of the sites "
                f"{list(self.sites)}, or {ALL!r}"
            )
        self.informed = tuple(name for name in self.sites if name in names)
        self.mi_weight = mi_weight
        self.generated = generated
        self.objective()

    def _loss(self, num_steps: int | None) -> MutualInformationELBO:
        term = BarberAgakov(*self.informed, weight=self.mi_weight, generated=self.generated)
        return MutualInformationELBO([term])
