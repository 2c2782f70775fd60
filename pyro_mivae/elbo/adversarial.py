"""InfoGAN's objective: a game of generator and discriminator, plus information terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyro
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import softplus

from pyro_mivae.arguments import checked, flag, instance, named, text
from pyro_mivae.compat import BatchNorm
from pyro_mivae.elbo.objective import Objective
from pyro_mivae.errors import DataError, ShapeError, SiteError
from pyro_mivae.figures import MEAN, key
from pyro_mivae.handlers import push_forward
from pyro_mivae.schedules import Schedule, Target, Weight
from pyro_mivae.schedules import weight as mi_weight
from pyro_mivae.sites import Site, data_sites
from pyro_mivae.terms import score_code
from pyro_mivae.traces import Program, trace_program


class InfoGANLoss(Objective):
    r"""Trains a generator against a discriminator, with codes readable from generated data.

    .. math::
        \min_{G, Q} \max_D\; V(D, G) - \sum_s \lambda_s I_s,\qquad
        V = E_{data}[\log D(x)] + E_p[\log(1 - D(x'))],\\
        I_s = E_p[\log q(s \mid x')] + H(s) \le I(s; x'),\qquad x' = G(code)

    The model is the generator: it runs from its prior, and its likelihood's mean is :math:`x'`.
    The guide is :math:`Q`: it scores the codes in ``weights``. Other codes are noise.

    One loss gives the gradients of all three players, which move at the same time. The
    discriminator minimises :math:`-V`. The generator minimises :math:`-E_p[\log D(x')]`, which
    does not saturate when the discriminator wins, and :math:`-\lambda I`. The guide minimises
    :math:`-\lambda I`. Layers shared by guide and discriminator get both gradients, as in the
    original.

    Batch norm treats real and generated data as two batches. Running statistics of the
    discriminator follow both batches and the guide's pass over generated data, but not the pass of
    the generator's loss.

    Args:
        discriminator: From data to the log-odds of real data, ``(batch, ...)`` to ``(batch,)``.
        weights: :math:`\lambda_s` by site, per datum, a number of at least 0, a schedule, or a
            `Target`; one site or more.
        saturating: True if the generator minimises :math:`V` itself, in place of :math:`-E_p[\log
            D(x')]`.
        name: Name of the discriminator in Pyro's parameter store.
        retain_graph: True to keep the graph after backward.

    Attributes:
        ledger: Summed over the batch, in nats: ``loss``, the sum of the players' losses;
            ``loss_discriminator``, :math:`-V`; ``loss_generator``, without the information; and
            ``mi_<site>_mean``, :math:`I_s` unweighted.

    References:
        Chen et al. (2016), InfoGAN, eq. 6. https://arxiv.org/abs/1606.03657

    Example:
        >>> print(mi.explain(InfoGANLoss(torch.nn.Linear(4, 1), {"c": 1.0})))
        J =  E_data[log D(x)] + E_p[log(1 - D(x'))]
           - 1 * (E_p[log q(c|x')] + H(c))
           (the generator minimises -E_p[log D(x')] in place of the first line)
        x' = G(code); maximised by D, minimised by G and Q; nats per datum
    """

    measures_fit = False

    @checked(
        discriminator=instance(nn.Module, example="torch.nn.Sequential"),
        weights=named(mi_weight(least=0), least=1),
        saturating=flag(),
        name=text(),
        retain_graph=flag(),
    )
    def __init__(
        self,
        discriminator: nn.Module,
        weights: Mapping[str, float | Schedule | Target],
        *,
        saturating: bool = False,
        name: str = "discriminator",
        retain_graph: bool | None = None,
    ) -> None:
        self.weights = {site: Weight(weight, rises_below=True) for site, weight in weights.items()}
        super().__init__(
            {key("mi", site): weight for site, weight in self.weights.items()},
            max_plate_nesting=1,
            retain_graph=retain_graph,
        )
        self.discriminator = discriminator
        self.saturating = saturating
        self.name = name

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The discriminator."""
        return {"discriminator": self.discriminator}

    @property
    def needs_batch(self) -> bool:
        """True if the discriminator has batch norm."""
        return any(isinstance(module, BatchNorm) for module in self.discriminator.modules())

    def explanation(self) -> str:
        """The objective, one line per summand."""
        lines = ["J =  E_data[log D(x)] + E_p[log(1 - D(x'))]"]
        lines += [
            f"   - {weight} * (E_p[log q({site}|x')] + H({site}))"
            for site, weight in self.weights.items()
        ]
        if not self.saturating:
            lines.append("   (the generator minimises -E_p[log D(x')] in place of the first line)")
        return "\n".join(
            [*lines, "x' = G(code); maximised by D, minimised by G and Q; nats per datum"]
        )

    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Plays one round, and fills the ledger; see `Objective`.

        Raises:
            DataError: If there is only one datum, and batch norm is trained.
            ShapeError: If the discriminator does not return one number per datum.
        """
        discriminator = pyro.module(self.name, self.discriminator)
        x = args[0]
        if self.needs_batch and discriminator.training and len(x) < 2:
            raise DataError(
                "a batch of 1 given, but batch norm in the discriminator needs 2 or more; 32 or "
                "more are better"
            )
        generated, recognised, site = self._get_trace(model, guide, args, kwargs)
        image = site["value"]
        information = {
            name: score_code(generated.nodes[name], recognised.nodes[name]).sum()
            for name in self.weights
        }
        real, fake = discriminator(x), discriminator(image.detach())
        # Detached parameters get no gradient of the generator's loss.
        seen = functional_call(discriminator, _constants(discriminator), (image,))
        if real.shape != x.shape[:1]:
            raise ShapeError(
                f"the discriminator gives shape {tuple(real.shape)} for {len(x)} data; let it "
                f"return log-odds of shape {tuple(x.shape[:1])}, one per datum"
            )
        fooled = -softplus(seen) if self.saturating else softplus(-seen)
        discriminator_loss = _total(softplus(-real) + softplus(fake), site)
        generator_loss = _total(fooled, site)
        loss = discriminator_loss + generator_loss
        for name, weight in self.weights.items():
            loss = loss - weight() * information[name]
        entries = {
            "loss": loss,
            "loss_discriminator": discriminator_loss,
            "loss_generator": generator_loss,
            **{key("mi", name, MEAN): bound for name, bound in information.items()},
        }
        self.held = {key("mi", name, MEAN): w for name, w in self.weights.items() if w.target}
        self.record(entries, args)
        return loss

    def _get_trace(
        self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[Any, Any, Site]:
        """Traces the model from its prior and the guide on its data; finds the generated site."""
        generated = trace_program(push_forward(model), args, kwargs)
        site = _observed(generated, args[0])
        self.latent = tuple(generated.stochastic_nodes)
        missing = sorted(set(self.weights) - set(self.latent))
        if missing:
            raise SiteError(f"weights names {missing}; the model's codes are {list(self.latent)}")
        codes = {name: generated.nodes[name]["value"] for name in self.weights}
        read = poutine.condition(guide, data=codes)
        recognised = trace_program(read, (site["value"], *args[1:]), kwargs)
        missing = sorted(set(self.weights) - set(recognised.nodes))
        if missing:
            raise SiteError(
                f"the guide does not sample the codes {missing}; let it, or leave them out of "
                "weights"
            )
        return generated, recognised, site


def _observed(generated: Any, x: Tensor) -> Site:
    names = data_sites(generated)
    if len(names) != 1 or generated.nodes[names[0]]["value"].shape != x.shape:
        raise SiteError(
            f"the model observes {names}; let it observe its first argument, of shape "
            f"{tuple(x.shape)}, at one site"
        )
    site: Site = generated.nodes[names[0]]
    return site


def _constants(network: nn.Module) -> dict[str, Tensor]:
    """Detached parameters, and copies of the running statistics."""
    constants = {name: value.detach() for name, value in network.named_parameters()}
    return constants | {name: value.clone() for name, value in network.named_buffers()}


def _total(value: Tensor, site: Site) -> Tensor:
    """Sums over the data, with the scale and mask of the site that observes them."""
    total: Tensor = scale_and_mask(value, scale=site["scale"], mask=site["mask"]).sum()
    return total
