"""The Barber-Agakov term: the information between a code and its generated data."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, Literal, Unpack, get_args

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from pyro_mivae.arguments import checked, choice, number
from pyro_mivae.errors import SiteError
from pyro_mivae.figures import MEAN, SAMPLE, key
from pyro_mivae.handlers import push_forward
from pyro_mivae.ranks import summed, whole_size
from pyro_mivae.sites import OF_PARAMETERS, Site, base_of, log_prob
from pyro_mivae.terms.base import InformationTerm, Particle, TermOptions
from pyro_mivae.traces import is_deterministic, trace_program

Generation = Literal["mean", "relaxed", "straight-through", "score-function"]


class BarberAgakov(InformationTerm):
    r"""Lower bound on the information between sites of the code and generated data.

    .. math:: I(c; x') \ge E_{c,z \sim p,\ x' \sim p(x \mid z,c)}[\log q(c \mid x')] + H(c)

    The model runs from its prior and generates data. The guide scores the term's sites given these
    data, and draws the other sites itself, as the bound requires. The term works for any model
    that observes its first argument at one site. Model and guide both get its gradient.

    The bound is on the information in the generated data, and the likelihood's mean can hold more
    than samples. ``generated`` chooses the mean, or one of three kinds of samples: relaxed (a
    binary concrete sample at ``temperature``), straight-through (a sample with the mean's
    gradient, biased), or score-function (noisier; unbiased if networks treat data independently).
    For a likelihood with ``rsample`` all three use it.

    If a site's prior depends on sites that the term does not name, :math:`H` is the conditional
    entropy. It is smaller than the site's own, so the result is still a lower bound.

    Args:
        sites: The sites of the information.
        generated: ``"mean"``, ``"relaxed"``, ``"straight-through"`` or ``"score-function"``.
        temperature: Temperature of the relaxed sample.
        **term: The weight, of at least 0, see `InformationTerm`.

    References:
        Barber & Agakov (2003), The IM Algorithm, eq. 3.
        Chen et al. (2016), InfoGAN, eq. 4. https://arxiv.org/abs/1606.03657

    Example:
        >>> vae = mi.VAE((1, 8, 8), latent_dim=2)
        >>> elbo = mi.MutualInformationELBO([mi.BarberAgakov("z", weight=0.5)])
        >>> loss = elbo.loss(vae.model, vae.guide, torch.rand(4, 1, 8, 8))
        >>> sorted(elbo.ledger)
        ['distortion', 'elbo', 'kl_z', 'loss', 'mi_z_mean', 'rate']
    """

    least_weight = 0

    @checked(generated=choice(*get_args(Generation)), temperature=number(above=0))
    def __init__(
        self,
        *sites: str,
        generated: Generation = "mean",
        temperature: float = 0.5,
        **term: Unpack[TermOptions],
    ) -> None:
        super().__init__(*sites, **term)
        self.generated = generated
        self.temperature = temperature
        is_mean, code = generated == "mean", ",".join(sites)
        told = "mean of p(x|code)" if is_mean else f"sample ({generated})"
        self.name = key("mi", self.key, MEAN if is_mean else SAMPLE)
        self.formula = f"(E_p[log q({code}|x')] + H({code})),  x' = {told}"

    def __call__(self, particle: Particle) -> Tensor:
        """Estimates the bound from as many draws of the prior as there are data in the batch."""
        x_site = self._check(particle)
        hold = particle.traces.on_same_batches
        generated = trace_program(
            hold(push_forward(particle.model, self._generate)), particle.args, particle.kwargs
        )
        codes = {name: generated.nodes[name]["value"] for name in self.sites}
        recognised = trace_program(
            hold(poutine.condition(particle.guide, data=codes)),
            (generated.nodes[x_site]["value"], *particle.args[1:]),
            particle.kwargs,
        )
        rewards = [
            score_code(generated.nodes[name], recognised.nodes[name]) for name in self.sites
        ]
        total: Tensor = sum((reward.sum() for reward in rewards[1:]), rewards[0].sum())
        for density in self._drawn_densities(generated, recognised, x_site):
            for reward in rewards:
                total = total + _score_function(reward.detach(), density)
        return total

    def _generate(self, fn: Any) -> Tensor:
        if self.generated == "mean":
            return fn.mean
        if fn.has_rsample:
            return fn.rsample()
        if self.generated == "relaxed":
            base = base_of(fn)
            if not isinstance(base, torch.distributions.Bernoulli):
                raise SiteError(
                    f"generated='relaxed' has no relaxation of {type(base).__name__}; "
                    "use generated='score-function' or 'mean'"
                )
            temperature = base.logits.new_tensor(self.temperature)
            return dist.RelaxedBernoulli(temperature, logits=base.logits).rsample()
        sample: Tensor = fn.sample()
        if self.generated == "straight-through":
            return sample + fn.mean - fn.mean.detach()
        return sample

    def _drawn_densities(self, generated: Any, recognised: Any, x_site: str) -> Iterator[Tensor]:
        """Log-densities of values drawn without a pathwise gradient."""
        sites = [*generated.nodes.values(), *recognised.nodes.values()]
        drawn = [site for site in sites if site["type"] == "sample" and not site["is_observed"]]
        if self.generated == "score-function":
            drawn.append(generated.nodes[x_site])
        for site in drawn:
            if not site["fn"].has_rsample:
                density = log_prob(site)
                if density.requires_grad:
                    yield density

    def _check(self, particle: Particle) -> str:
        traces = particle.traces
        nodes = traces.model.nodes
        observed = [n for n in traces.observed if not nodes[n]["infer"].get(OF_PARAMETERS)]
        if len(observed) != 1 or not traces.data:
            raise SiteError(
                f"{type(self).__name__} needs a model that observes one site; this one observes "
                f"{observed} (factors count); write a term of your own for it"
            )
        (x_site,) = traces.data
        value = traces.model.nodes[x_site]["value"]
        x = particle.args[0] if particle.args else None
        if not isinstance(x, Tensor) or not _same_data(value, x):
            raise SiteError(
                f"{type(self).__name__} lets the guide read what the model generates, so the "
                f"observed site {x_site!r} must be the first argument itself, shape "
                f"{tuple(value.shape)}; let model(x) observe x unchanged and guide(x) read it"
            )
        self.check_latent(traces)
        return x_site


def score_code(generated: Site, recognised: Site) -> Tensor:
    r"""Scores a code by its density in the guide, given the data that it generated.

    Args:
        generated: The code's site in the model, run from its prior.
        recognised: The same site in the guide, conditioned on the code, run on these data.

    Returns:
        :math:`\log q(c \mid x') + H(c)` over the site's batch shape, with the scale and mask of
        the model's site, in nats; a lower bound on the information in expectation.

    Raises:
        SiteError: If the guide makes the code deterministic.
    """
    if is_deterministic(recognised):
        raise SiteError(
            f"the guide makes the code {recognised['name']!r} deterministic, so it has no density "
            "and its information no bound; give it a Normal, or leave it out"
        )
    density = log_prob(recognised)
    try:
        score = density + generated["fn"].entropy()
    except NotImplementedError:
        score = density - log_prob(generated)
    weighed: Tensor = scale_and_mask(score, scale=generated["scale"], mask=generated["mask"])
    return weighed


def _same_data(a: Tensor, b: Tensor) -> bool:
    same_place = a.shape == b.shape and a.stride() == b.stride()
    return a is b or (same_place and a.data_ptr() == b.data_ptr())


def _score_function(reward: Tensor, density: Tensor) -> Tensor:
    """Returns 0, with the score-function gradient of the mean of a reward."""
    # A draw in a plate answers for the rewards of its own element of the plate.
    pairs = zip_longest(reversed(reward.shape), reversed(density.shape), fillvalue=1)
    common = [min(pair) for pair in pairs][::-1]
    reward = reward.sum_to_size(common[len(common) - reward.dim() :])
    density = density.sum_to_size(common[len(common) - density.dim() :])
    n = whole_size(reward.numel())
    baseline = (summed(reward.sum()) - reward) / (n - 1) if n > 1 else 0.0  # of the others
    return ((reward - baseline) * (density - density.detach())).sum()
