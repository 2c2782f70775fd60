"""What a trained model/guide pair knows: every figure of the information report, in nats."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from pyro_mivae.arguments import checked, function, text, whole
from pyro_mivae.diagnostics.context import Context
from pyro_mivae.diagnostics.diagnoses import Diagnosis, diagnose
from pyro_mivae.diagnostics.isolation import device_of, isolated
from pyro_mivae.diagnostics.measurement import measure
from pyro_mivae.diagnostics.probe import probe
from pyro_mivae.errors import DataError
from pyro_mivae.figures import by_index, error_of, parsed
from pyro_mivae.models import data_for
from pyro_mivae.traces import Program

ENOUGH_CODES, MOST_SAMPLES = 5000, 10  # what num_samples is chosen by
DRAWS = whole(least=1, most=10**7)  # beyond which no run would end
PAIR = {"model": function("model(x)"), "guide": function("guide(x)")}
OPTIONS = {
    "num_samples": DRAWS,
    "iwae_samples": DRAWS,
    "iwae_items": whole(least=1),
    "subset": whole(least=1),
    "generative_items": whole(least=0, most=10**7),
    "generative_samples": DRAWS,
    "ais_items": whole(least=0),
    "ais_temperatures": DRAWS,
    "batch_size": whole(least=1),
}
"""Checks of the options of `information` but for its seed."""


class InformationReport(Mapping[str, float]):
    """The figures of `information` by name, and how they were measured.

    Standard errors stand under ``<name>_se``. It is a mapping, and prints as a table.

    Args:
        figures: Every figure by name.
        protocol: How many data, draws and codes went in, and in which way.
        seconds: How long each part took on the clock.

    Attributes:
        protocol: How many data, draws and codes went in, and in which way.
        seconds: How long each part took on the clock.
    """

    def __init__(
        self,
        figures: Mapping[str, float],
        protocol: Mapping[str, Any],
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        self._figures = dict(figures)
        self.protocol, self.seconds = dict(protocol), dict(seconds or {})

    def __iter__(self) -> Iterator[str]:
        return iter(self._figures)

    def __len__(self) -> int:
        return len(self._figures)

    def to_dict(self) -> dict[str, float]:
        """Returns every figure by name, as plain floats; NaN where it is not defined."""
        return dict(self._figures)

    @property
    def diagnoses(self) -> list[Diagnosis]:
        """What the figures say is wrong with the pair, see `diagnose`."""
        return diagnose(self._figures)

    @checked(site=text())
    def dimensions(self, site: str) -> dict[str, Tensor]:
        """Returns the figures of a site's dimensions, or of its categories, as tensors.

        Args:
            site: A drawn or an enumerated site.

        Returns:
            ``mi_lower``, ``mi_upper`` and, of a drawn site, ``kl``, each with its standard errors
            under ``<name>_se``; each float64, shape ``(dims,)`` or ``(categories,)``, in nats.

        Raises:
            OptionError: If the site has no such figures.
        """
        return by_index(self._figures, site)

    def __getitem__(self, name: str) -> float:
        return self._figures[name]

    def __str__(self) -> str:
        names = [str(k) for k, _ in parsed(self._figures) if k.index is None]
        width = max(map(len, names))
        lines = []
        for name in names:
            error = error_of(self._figures, name)
            margin = "" if math.isnan(error) else f" +- {error:.3f}"
            shown = f"{self._figures[name]:10.3f}{margin}"
            undefined = math.isnan(self._figures[name])
            lines.append(f"{name:<{width}} {'not defined' if undefined else shown}")
        if "standard_errors" in self.protocol:
            lines.append(f"standard errors are {self.protocol['standard_errors']}")
        return "\n".join(lines)


@checked(**PAIR, **OPTIONS, seed=whole(least=0))
def information(
    model: Program,
    guide: Program,
    x: Tensor,
    *,
    num_samples: int | None = None,
    iwae_samples: int = 64,
    iwae_items: int = 1000,
    subset: int = 2000,
    generative_items: int = 500,
    generative_samples: int = 200,
    ais_items: int = 0,
    ais_temperatures: int = 500,
    batch_size: int = 1024,
    seed: int = 0,
) -> InformationReport:
    r"""Reports what a code knows about the data, for any Pyro model/guide pair, without a critic.

    The pair is called with ``x`` alone, a batch of it at a time. The model observes at least one
    site; the latent sites, of whatever names, are the same in both, each with a density per
    datum, inside one plate over the data. Enumerable sites are summed out, whether annotated
    or not; others are drawn. What ``pyro.deterministic`` notes counts for nothing. Which sites
    depend on which, and on the data, is found by several draws of all data; programs that score
    the same datum and code in several ways (dropout, statistics of the batch) are refused.

    Figures, per datum in nats unless they say otherwise:

    * ``distortion``, ``kl_<site>``, ``rate`` (their sum), ``elbo``: without weights or
      information terms, whatever the pair was trained with. ``kl_<site>`` is the divergence
      given the sites that the guide draws before, averaged over them; in closed form where there
      is one.
    * ``log_px``: importance-weighted lower bound of :math:`\log p(x)`, low in expectation. With
      more than ``iwae_items`` data it is the ELBO plus the mean gain over it on so many of them.
    * ``log_px_ais``, on request: lower bound of :math:`\log p(x)` by `annealed_log_likelihood`,
      for guides that make the importance-weighted one loose. With more data than ``ais_items`` it
      is the ELBO plus the mean gain over it; where the guide has deterministic sites it is
      annealed from the prior, and the mean over these data.
    * ``mi_lower``, ``mi_upper``: :math:`I_q(x; code)`, under the data's and the guide's joint
      distribution. The lower bound is InfoNCE over all data; it cannot exceed :math:`\log N`.
      The upper one is the smaller of the leave-one-out bound over all data and the rate, so it
      is never above the rate. As :math:`I \ge 0`, the lower bound is at least 0, and it is kept
      at or below the upper one. Each errs outwards in expectation, but for the smaller of two
      upper ones that are about equal, which is low by a part of its standard error; a sample
      scatters by that. A code of enumerated sites alone needs no draws: its lower bound is
      the plug-in :math:`H(\bar q) - \overline{H(q)}`, low by about
      :math:`(K - 1) / 2N` for data drawn from a population and exact for the data themselves;
      the upper one leaves each datum out of :math:`\bar q`, and is high by as much.
    * ``mi_<site>_lower``, ``mi_<site>_upper``: the same for one site, the others averaged out;
      bounded by the site's own KL divergence too where neither side makes it depend on another.
      NaN where the site's density given x alone is not known.
    * ``marginal_kl_lower``, ``marginal_kl_upper``: :math:`KL(q(code) \| p(code))` = rate - I.
      NaN where the model's prior depends on the data: the rate bounds no information then, and is
      left out of all upper bounds.
    * ``mi_<site>[d]_lower``, ``mi_<site>[d]_upper`` of every dimension of a drawn site (its event
      flattened, from 0): :math:`I_q(x; z_d)` between the same bounds, on ``subset`` data, all else
      averaged out. They need not add up to the site's information. NaN where the posterior of
      single dimensions is not known; it is where they are independent given the datum, of
      whatever family, or jointly normal. ``kl_<site>[d]``, on all data: what each dimension adds
      to ``kl_<site>``; NaN where guide or model tie the dimensions together.
    * ``mi_<site>[k]_lower``, ``mi_<site>[k]_upper`` of every category of an enumerated site: its
      share :math:`E_x\, q(k \mid x) \log \frac{q(k \mid x)}{\bar q(k)}` of I(c; x). A share is
      :math:`\bar q(k)` times the divergence of the data that are taken to be in the category from
      all data (the specific information of k), so it is at least 0; all of them are I(c; x). The
      lower ones add up to ``mi_<site>_lower``, the upper ones to ``mi_<site>_upper`` at least.
    * ``total_correlation``: :math:`KL(q(z) \| \prod_d q(z_d))` over every dimension of the drawn
      sites, on ``subset`` data, between bounds in expectation, ``total_correlation_lower`` and
      ``_upper``: the lower one takes for q(z) a density fitted on the other half of these data, as
      ``fitted_mi_upper`` does; the upper one the mean of their posteriors, each code's own
      included, which errs high where log of ``subset`` limits it. The figure itself is that of
      these posteriors where the bounds are within 0.5 nats, and else the lower bound. NaN
      unless the posterior of each dimension and that of all of them are known.
    * ``active_units``, ``active_units_<site>``: number of dimensions whose posterior mean has a
      variance above 0.01; enumerated sites do not count.
    * ``generative_mi_lower``, ``generative_mi_upper``, and ``generative_mi_<site>_lower``,
      ``_upper``: :math:`I_p(x; code)` and :math:`I_p(x; s)` of the generative model, under its
      own joint distribution, whatever the data given. ``generative_items`` data are drawn from the
      model: codes from the prior, data *sampled* from the likelihood (a Bernoulli likelihood gives
      binary ones, even where it was trained on grey ones). The code of each is an exact sample of
      its posterior, so that importance sampling bounds the evidence from both sides (`Evidence`);
      both ends close as ``generative_samples`` grows, and a poor guide widens them. With
      ``ais_items``, so many of them are annealed, in both directions, as by
      `bidirectional_monte_carlo`, whole and with each site's value fixed: that closes the bounds,
      which are means over these then.
      Kept at 0 or above, a site's at or below the whole code's. NaN, for a reason that the
      protocol names, where the model does not observe its argument at one site, unchanged, or the
      guide has deterministic sites.
    * ``saturated``: 1 where more than 0.5 nats lie between the bounds of :math:`I_q(x; code)`,
      since :math:`\log N` is the limit; else 0. Read the next ones then.
    * ``fitted_mi_lower``, ``fitted_mi_upper``: :math:`I_q(x; code)` by a density r(code) that is
      fitted on one half of the data and judged on the other, and the other way round, on all
      data (`fitted_information` has the mathematics). Neither has :math:`\log N` as its limit.
      The upper one is :math:`I_q + KL(q(code) \| r)` in expectation, and never above the rate.
      The lower one looks for pairs of data whose codes are so close that they could be exchanged:
      of these there are about :math:`N^2 e^{-I}`, so that it can tell up to about
      :math:`2 \log N` nats from none; ``fitted_reach`` is the most that it can say. It is fitted
      in coordinates of the codes' support; where there are none, as of discrete sites that are
      not enumerated, r is made of the prior and the posteriors of other data. Both are NaN
      for fewer than 20 data, for deterministic sites, and for a code of enumerated sites alone,
      which needs no draws.

    A deterministic (Delta) site has no KL divergence: it, the rate, the ELBO, ``log_px`` and the
    upper bounds are NaN. Its lower bound is the entropy of its distinct values (to five decimals).
    Where the model makes the data a function of the code (`DeltaLikelihood`) they have no density:
    distortion, ELBO and ``log_px`` are NaN. Where codes cannot be scored under other data
    (transforms without an inverse, straight-through samples, values that their floating-point type
    hardly tells apart), the bounds that need it are NaN, and the protocol says why.

    ``<name>_se`` is a standard error over the data, taken as a sample of their population. For the
    information it is that of the mean over codes; the averages that the codes share add to it
    in higher order only. It is NaN for one datum, and said to be unreliable for fewer than 10.

    Scales and masks of sites are left out: every site counts once.

    Args:
        model: The model, called as ``model(x)``.
        guide: The guide, called as ``guide(x)``.
        x: The data, a tensor or a NumPy array of shape ``(N, ...)``, on any device; floats of any
            precision (see `data_for`).
        num_samples: Draws of each datum's code, for distortion and KL divergences. If omitted, as
            many as make 5,000 codes, at least 1 and at most 10; at least 2 where the guide makes a
            site depend on a drawn one or knows no mean of it (``active_units`` needs two there).
        iwae_samples: Importance samples per datum. Each is a run of guide and model for it: 5,000
            of 1,000 data take as long as encoding and decoding five million. Memory does not grow
            with them.
        iwae_items: How many data, at random, get importance samples.
        subset: How many data, at random, serve the single dimensions and the total correlation
            (fewer where there are many dimensions: ``protocol["dimension_items"]``), the codes of
            a site whose density is a mixture, and guides whose sites depend on drawn ones.
        generative_items: How many data to draw from the model for ``generative_mi``; 0 leaves it
            out.
        generative_samples: Importance samples for each of these, shared out among the joint
            values of the enumerable sites: half of them evenly, at least 4 to each, and the rest
            to the one that the guide finds likeliest.
        ais_items: How many data, at random, to anneal for ``log_px_ais``, and how many of those
            that the model draws; 0 leaves it out, as it costs thousands of gradients for each.
        ais_temperatures: Temperatures of each annealing.
        batch_size: Decoded codes at once.
        seed: Of every draw. Torch's generators, Pyro's parameter store and the modules' mode are
            left as they were; modules are evaluated in evaluation mode, also those that a plain
            function calls.

    Returns:
        The report.

    Warns:
        PyroMivaeWarning: If annealing accepted under 40 % or over 90 % of its proposals.

    Raises:
        DataError: If there are no data, or a variant cannot score them.
        OptionError: If a number is out of range.
        SiteError: If the pair is not as said above.
        ShapeError: If a site's batch shape is not that of one plate over the data.

    References:
        Hoffman & Johnson (2016), ELBO surgery: rate = information + marginal KL divergence.
        Poole et al. (2019), On Variational Bounds of Mutual Information.
        https://arxiv.org/abs/1905.06922
        Chen et al. (2018), Isolating Sources of Disentanglement, eq. 2 (total correlation).
        https://arxiv.org/abs/1802.04942
        Burda et al. (2016), Importance Weighted Autoencoders, eq. 8 and section 5 (active units).
        https://arxiv.org/abs/1509.00519

    Example:
        >>> import math, pyro, pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
        >>> report = information(model, guide, 2**0.5 * torch.randn(1000))
        >>> abs(report["mi_lower"] - 0.5 * math.log(2)) < 4 * report["mi_lower_se"]
        True
    """
    x = data_for(model, guide, x)
    if x.dim() < 1 or not len(x):
        raise DataError(f"x: expected one or more data, shape (N, ...), got {tuple(x.shape)}")
    device = device_of(x, model, guide)
    with isolated(seed, model, guide, device=device):
        layout = probe(model, guide, x, batch_size=batch_size, device=device, seed=seed)
        if num_samples is None:
            exact = layout.free - layout.meanless
            least = 1 if exact.issuperset(layout.latent) else 2
            num_samples = max(least, min(MOST_SAMPLES, ENOUGH_CODES // len(x)))
        context = Context(
            model=model,
            guide=guide,
            x=x,
            layout=layout,
            device=device,
            num_samples=num_samples,
            iwae_samples=iwae_samples,
            iwae_items=iwae_items,
            subset=subset,
            generative_items=generative_items,
            generative_samples=generative_samples,
            ais_items=ais_items,
            ais_temperatures=ais_temperatures,
            codes_at_once=batch_size,
            seed=seed,
        )
        values = measure(context)
    return InformationReport(values, context.protocol, context.seconds)
