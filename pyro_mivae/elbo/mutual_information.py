"""The ELBO with a weight per site and information terms: the objective of most variants."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pyro_mivae.arguments import checked, either, flag, instance, named, number, several, whole
from pyro_mivae.elbo.divergences import Divergence, divergences
from pyro_mivae.elbo.objective import Objective, module_name
from pyro_mivae.errors import OptionError, PyroMivaeWarning, SiteError
from pyro_mivae.figures import key
from pyro_mivae.models import GenerativeModel, code_program
from pyro_mivae.schedules import Schedule, Target, Weight
from pyro_mivae.schedules import weight as kl_weight
from pyro_mivae.sites import sum_of
from pyro_mivae.terms import InformationTerm, LabelledCategory, Particle, observe_category
from pyro_mivae.traces import Program, TracePair

TAKEN = ("loss", "elbo", "distortion", "rate", "temperature", "baseline")
STARTS = ("kl_", "weight_")  # of the other names in a ledger

MOST_PARTICLES, MOST_PLATES = 10**6, 25


class MutualInformationELBO(Objective):
    r"""ELBO with a weight for each site's KL divergence and with information terms.

    .. math::
        J = E_q[\log p(x \mid code)] - \sum_s \beta_s KL_s + \sum_j \lambda_j I_j

    is maximised. The loss is :math:`-J`, summed over the data, with scale and mask of each site as
    in Pyro's ``Trace_ELBO``. The KL of a site is in closed form if Pyro has one and the site's
    prior depends on no site that the guide draws later. Otherwise it is a one-sample estimate. If
    the guide's site is a Normal of any covariance, the gradient of this estimate leaves out the
    score, whose expectation is 0 (Roeder, Wu & Duvenaud, 2017, Sticking the Landing.
    https://arxiv.org/abs/1703.09194); if it is a flow, the score of its Normal. Sites with
    ``infer={"enumerate": "parallel"}`` in the guide are summed out exactly.

    If the guide computes a site from an auxiliary site, as AutoNormal does, its KL is :math:`\log
    q` of the auxiliary site, plus the change of volume, less :math:`\log p`. Latent sites that
    share an auxiliary site, as in AutoMultivariateNormal, have one KL, under its name, and one
    weight.

    A deterministic (Delta) site has no KL: its divergence in the ledger, the rate and the ELBO are
    NaN, while the loss contains :math:`-\log p`, as Pyro's own ELBOs do. Sites that the guide
    observes count as in ``Trace_ELBO``, with a warning, because the ELBO is then not a bound.

    Args:
        terms: Information terms, each with its own weight.
        kl_weights: :math:`\beta_s` by site: a number of at least 0, a schedule, or a `Target`;
            1 for other sites. One target of several sites holds the sum of their divergences.
        num_particles: Draws of the guide per step.
        vectorize_particles: True to draw them in one pass, along a plate.
        max_plate_nesting: Number of plate dimensions; if omitted, a first run finds it, and draws
            random numbers.
        retain_graph: True to keep the graph after backward.

    Attributes:
        ledger: In nats, summed over the batch: ``loss``, ``elbo`` (weights 1, no terms),
            ``distortion``, ``rate``, ``kl_<site>``, and each term's unweighted value under its
            name, except terms whose weight is the constant 0.

    Raises:
        OptionError: If two terms have the same name.

    References:
        Alemi et al. (2018), Fixing a Broken ELBO, eq. 5. https://arxiv.org/abs/1711.00464

    Example:
        >>> vae = mi.VAE((1, 8, 8), latent_dim=2)
        >>> elbo = mi.MutualInformationELBO(kl_weights={"z": 0.5})
        >>> loss = elbo.loss(vae.model, vae.guide, torch.rand(4, 1, 8, 8))
        >>> sorted(elbo.ledger)
        ['distortion', 'elbo', 'kl_z', 'loss', 'rate']
    """

    @checked(
        terms=several(instance(InformationTerm, example="BarberAgakov('z')"), least=0),
        kl_weights=named(kl_weight(least=0)),
        num_particles=whole(least=1, most=MOST_PARTICLES),
        vectorize_particles=flag(),
        max_plate_nesting=either(
            whole(least=0, most=MOST_PLATES), number(least=math.inf, finite=False)
        ),
        retain_graph=flag(),
    )
    def __init__(
        self,
        terms: Iterable[InformationTerm] = (),
        kl_weights: Mapping[str, float | Schedule | Target] | None = None,
        *,
        num_particles: int = 1,
        vectorize_particles: bool = False,
        max_plate_nesting: int | float = math.inf,
        retain_graph: bool | None = None,
    ) -> None:
        self.terms: tuple[InformationTerm, ...] = ()
        self._parts: dict[Any, tuple[Divergence, ...]] = {}
        given = kl_weights or {}
        targets = [w for w in given.values() if isinstance(w, Target)]
        shared = {id(target): Weight(target) for target in targets}  # of several sites is one
        self.kl_weights = {
            name: shared[id(w)] if isinstance(w, Target) else Weight(w)
            for name, w in given.items()
        }
        state: dict[str, nn.Module] = {key("kl", name): w for name, w in self.kl_weights.items()}
        super().__init__(
            state,
            num_particles=num_particles,
            vectorize_particles=vectorize_particles,
            max_plate_nesting=max_plate_nesting,
            retain_graph=retain_graph,
        )
        for term in terms:
            self.add(term)

    def add(self, term: InformationTerm) -> None:
        """Adds an information term."""
        self.terms += (term,)
        names = [term.name for term in self.terms]
        if len(set(names)) < len(names):
            raise OptionError(f"terms {names}: give each term once, with the sum of the weights")
        if term.name in TAKEN or term.name.startswith(STARTS) or hasattr(self.state, term.name):
            raise OptionError(
                f"a term has the name {term.name!r}, which ledger or checkpoint use for "
                f"something else; choose another, such as {'penalty_' + term.key!r}"
            )
        self.state[module_name(term.name)] = term.state

    def differentiable_loss(
        self, model: Program, guide: Program, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Estimates the loss, and fills the ledger; see `Objective`.

        With a `LabelledCategory` among the terms it takes labels too.
        """
        observing, labelled = guide, None
        term = next((term for term in self.terms if isinstance(term, LabelledCategory)), None)
        if term is not None:  # else the keywords are the program's own
            labels, labelled = kwargs.pop("labels", None), kwargs.pop("labelled", None)
            if labels is not None:
                observing = observe_category(guide, labels, term.sites[0])
                labelled = (args[0], labels, *args[1:]) if labelled is None else labelled
        if self.max_plate_nesting == math.inf:
            self._guess_max_plate_nesting(model, guide, args, kwargs)
        runs = 1 if self._vectorized else self.num_particles
        ledgers, self.held = [], {}
        for _ in range(runs):
            decoded, coded = self._get_trace(model, observing, args, kwargs)
            particle = Particle(model, guide, args, kwargs, decoded, labelled)
            ledgers.append(self._evaluate(particle, coded))
        mean = ledgers[0]
        if runs > 1:  # a sequential plate's sub-sample decides which sites there are
            keys = dict.fromkeys(key for ledger in ledgers for key in ledger)
            mean = {key: sum(ledger.get(key, 0.0) for ledger in ledgers) / runs for key in keys}
        self.record(mean, args)
        return torch.as_tensor(mean["loss"])

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The terms' networks, by the term's name and their own."""
        return {
            f"{term.name}_{name}": network
            for term in self.terms
            for name, network in term.networks.items()
        }

    @property
    def needs_batch(self) -> bool:
        """True if a term compares data within a batch."""
        return any(term.needs_batch and not term.is_idle for term in self.terms)

    @property
    def _reconstruction(self) -> str:
        """The reconstruction term, as `explanation` writes it."""
        return f"E_q[log p(x|code{self._given})]"

    @property
    def _given(self) -> str:
        return ",u" * self.reads_condition

    remark = ""  # a remark at the end of `explanation`

    def explanation(self) -> str:
        """The objective, one line per summand."""
        lines = [f"J =  {self._reconstruction}"]
        given, of_prior = self._given, "|u" * self.prior_reads_condition
        divergence = f"KL(q({{0}}|x{given}) || p({{0}}{of_prior}))"
        for name, weight in self.kl_weights.items():
            left_out = "   [left out]" if weight.is_zero else ""
            lines.append(f"   - {weight} * {divergence.format(name)}{left_out}")
        if self.latent is None:
            lines.append(f"   - 1 * KL of every {'other ' * bool(self.kl_weights)}site")
        for name in self.latent or ():
            if name not in self.kl_weights:
                lines.append(f"   - 1 * {divergence.format(name)}")
        lines += [f"   + {term.weight} * {term.formula}" for term in self.terms]
        if given and self.terms:
            lines.append("   where each information and each q is given u too")
        told, sizes = self.remark, self.categories.values()
        if not told and len(sizes) > 1:  # an exact sum over several categories
            product = " * ".join(map(str, sizes))
            told = f"; {product} = {math.prod(sizes)} decodes per datum"
            told += " (two by CatVAE's categorical='sample')"
        return "\n".join([*lines, f"maximised; nats per datum{told}"])

    @property
    def _vectorized(self) -> bool:
        return bool(self.vectorize_particles and self.num_particles > 1)

    def _run(
        self,
        model: Program,
        guide: Program,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        handler: Callable[[Program], Program] = lambda guide: guide,
    ) -> TracePair:
        """Traces the pair with enumerated sites laid out; the handler acts on every particle."""
        if self._vectorized:
            model = self._vectorized_num_particles(model)
            guide = self._vectorized_num_particles(guide)
        guide = handler(guide)
        nesting = int(self.max_plate_nesting)
        return TracePair.run(model, guide, args, kwargs, max_plate_nesting=nesting)

    def _get_trace(
        self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[TracePair, TracePair]:
        """Returns the traces that hold the reconstruction, and those that hold the KL."""
        traces = self._run(model, guide, args, kwargs)
        return traces, traces

    def _code_traces(
        self, model: Program, guide: Program, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> TracePair:
        """Traces the code alone, without the decoder."""
        if not isinstance(model, GenerativeModel):
            raise SiteError(
                f"{type(self).__name__} needs a GenerativeModel, whose code can be drawn without "
                "decoding it; use MutualInformationELBO for any other model"
            )
        return self._run(code_program(model), guide, args, kwargs)

    def _evaluate(self, particle: Particle, coded: TracePair) -> dict[str, Tensor | float]:
        decoded = particle.traces
        self._check(decoded, coded)
        errors = [
            (-decoded.log_likelihood(name), decoded.model.nodes[name]) for name in decoded.observed
        ]
        rate_costs = {n: coded.rate_costs(n) for n in [*coded.latent, *coded.auxiliary]}
        of_rates = list(itertools.chain(*rate_costs.values()))
        if decoded is coded:
            totals = iter(coded.expectations([*errors, *of_rates]))
        else:
            totals = iter([*decoded.expectations(errors), *coded.expectations(of_rates)])
        distortion = self._share(sum_of(next(totals) for _ in errors))
        rates = {name: sum_of(next(totals) for _ in costs) for name, costs in rate_costs.items()}
        ledger: dict[str, Tensor | float] = {}
        weighted: list[Tensor] = []
        for part in self._divergences(coded):
            rate = self._share(sum_of(rates[name] for name in part.sites))
            nan = torch.full_like(rate, math.nan)
            ledger[key("kl", part.name)] = rate if part.is_defined else nan
            weight = part.weight(self.kl_weights)
            if weight is not None and weight.target is not None:
                self._hold(part, weight)
            if weight is None:
                weighted.append(rate)
            elif not weight.is_zero:
                weighted.append(weight() * rate)
        ledger = {"distortion": distortion, "rate": sum(ledger.values()), **ledger}
        ledger["elbo"] = -(distortion + ledger["rate"])
        loss = distortion + sum_of(weighted) if weighted else distortion
        for term in self.terms:
            if not term.is_idle:
                gain, entries = term.contribute(particle)
                ledger |= entries
                if term.weight.target is not None and term.name in entries:
                    self.held[term.name] = term.weight
                loss = loss - gain
        return {"loss": loss, **ledger}

    def _hold(self, part: Divergence, weight: Weight) -> None:
        if not part.is_defined:
            raise SiteError(
                f"a target is given for the divergence of {part.name!r}, which is a point mass in "
                "the guide and has none; give it a weight"
            )
        self.held[key("kl", part.name)] = weight

    def _divergences(self, pair: TracePair) -> tuple[Divergence, ...]:
        """The divergences that sum to the rate; the pair's structure is found only once."""
        if not pair.auxiliary:
            return divergences(pair)
        key = tuple(pair.latent), tuple(pair.auxiliary)
        if key not in self._parts:
            self._parts[key] = divergences(pair)
        return self._parts[key]

    def _share(self, total: Tensor) -> Tensor:
        """Divides a sum over particles by their number, if they are drawn in one pass."""
        return total / self.num_particles if self._vectorized else total

    def _check(self, decoded: TracePair, coded: TracePair) -> None:
        if not decoded.observed:
            raise SiteError("the model observes nothing; give one of its sites obs=x")
        unknown = sorted(set(self.kl_weights) - set(coded.latent))
        if unknown:
            raise SiteError(
                f"kl_weights names {unknown}; the latent sites of this pair are {coded.latent}"
            )
        for _, fault in coded.gradient_faults():
            raise fault
        if coded.noted:
            warnings.warn(
                f"the guide observes {coded.noted}, whose log-density counts as in Pyro's "
                "Trace_ELBO: the ELBO is then not a bound; for a bound, give "
                "poutine.block(guide, hide=[...])",
                PyroMivaeWarning,
                stacklevel=2,
            )
        self.latent = tuple(coded.latent)
