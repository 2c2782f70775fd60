"""InfoGAN of Chen et al. (2016), https://arxiv.org/abs/1606.03657."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Unpack

from pyro_mivae.arguments import checked, shape, text
from pyro_mivae.compat import name_of
from pyro_mivae.elbo import InfoGANLoss
from pyro_mivae.guides import RecognitionGuide
from pyro_mivae.likelihoods import DeltaLikelihood
from pyro_mivae.memory import build_fitting
from pyro_mivae.networks import Discriminator, build_adversarial_networks, output_dim
from pyro_mivae.priors import InfoGANPrior, prior_sites
from pyro_mivae.variants import options
from pyro_mivae.variants.base import Variant
from pyro_mivae.variants.checks import SMALLER, check_sizes, need, split


class InfoGAN(Variant):
    r"""An adversarial game with bounds on the information between codes and generated data.

    .. math:: \min_{G,Q} \max_D\, V(D, G) - \lambda I(c; x') - \lambda_u I(u; x'),\ x' = G(z, c, u)

    with the bounds of `InfoGANLoss`. The code is noise ``z``, a category ``c`` and uniform codes
    ``u`` on [-1, 1]. The data are a function of the code, so reports have NaN for the ELBO. The
    guide reads ``c`` and ``u`` by a layer on the discriminator's features, and draws ``z`` anew.

    Args:
        data_shape: Shape of one datum.
        latent_dim: Size of ``z`` and ``u`` together.
        code_dim, num_categories: Size of ``u``, and number of categories; 0 for none.
        mi_weight, continuous_weight: :math:`\lambda` and :math:`\lambda_u`, per datum.
        saturating: True for a generator that minimises :math:`V` instead of :math:`-E[\log D]`.
        **parts: ``prior``, whose attribute ``noise`` names the sites that are noise (``z`` if
            omitted); ``guide``, which then has layers of its own; ``encoder``, the discriminator's
            trunk; ``decoder``, the generator without its logistic output.

    Example:
        >>> InfoGAN((1, 8, 8)).sites
        {'z': 62, 'c': 10, 'u': 2}
    """

    name = "infogan"
    unconditional = "its discriminator sees images alone"
    refused = frozenset({"likelihood"})
    build_networks = staticmethod(build_adversarial_networks)  # type: ignore[assignment]

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
        if prior is None:
            noise_dim = split(latent_dim, code_dim, code="u", least=0)
            prior = InfoGANPrior(noise_dim, num_categories, code_dim)
        noise = frozenset(getattr(prior, "noise", {"z"}))
        distributions, width = prior_sites(prior)
        if trunk is None:
            build = partial(self.build_networks, "auto", data_shape, width)
            trunk = build_fitting(build, SMALLER)[0]
            if parts.get("guide") is None:
                parts["encoder"] = trunk
        parts["prior"], make = prior, partial(RecognitionGuide, noise=noise)
        super().__init__(data_shape, InfoGANPrior, make, likelihood=DeltaLikelihood(), **parts)
        self.noise, self.saturating = noise & self.sites.keys(), saturating
        self.discriminator = Discriminator(trunk, output_dim(trunk, self.data_shape))
        self.weights = {
            site: mi_weight if fn.has_enumerate_support else continuous_weight
            for site, fn in distributions.items()
            if site not in noise
        }
        check_sizes(self, latent_dim=latent_dim, code_dim=code_dim, num_categories=num_categories)
        need(self, self.weights, f"a code in addition to its noise {', '.join(sorted(noise))}")

    @property
    def code_dim(self) -> int:
        """Total size of the continuous codes."""
        return sum(self.sites[name] for name in self.weights.keys() - self.categories.keys())

    @checked(param_name=text())
    def optim_args(self, param_name: str) -> dict[str, Any]:
        """Returns learning rate and decay rates of Adam for a parameter, see `Variant`."""
        slow = "guide.encoder" in param_name or "discriminator" in param_name
        return {"lr": 2e-4 if slow else 1e-3, "betas": (0.5, 0.999)}

    def _loss(self, num_steps: int | None) -> InfoGANLoss:
        name = f"{name_of(self)}.discriminator"
        return InfoGANLoss(self.discriminator, self.weights, saturating=self.saturating, name=name)
