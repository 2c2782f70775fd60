"""A start of the categories without labels, or with few, before the decoder is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pyro_mivae.arguments import LARGEST_WEIGHT, choice, either, function, number, whole
from pyro_mivae.compat import Adam
from pyro_mivae.engine.comparison import is_due
from pyro_mivae.engine.steps import Engine
from pyro_mivae.engine.tracing import TrainStep
from pyro_mivae.networks import TRANSFORMS
from pyro_mivae.options import check_fields, option
from pyro_mivae.progress import telling
from pyro_mivae.schedules import Schedule, Target, linear_warmup
from pyro_mivae.terms import InvariantInformation, LabelledCategory, RegularizedInformation
from pyro_mivae.terms.categories import CategoryTerm
from pyro_mivae.traces import bind

BATCH = 250  # or a tenth of the data, if that is less, but 100
INVARIANCE = 4.0  # weight of a transformation's term beside the other


@dataclass(frozen=True)
class CategoryStart:
    """The start of a variant with categories, before training.

    The guide's category is trained alone first, by `RegularizedInformation`, from two initial
    weights, and the better by that term is kept. With a ``transform``, a quarter of the steps
    follows in which `InvariantInformation` is added; earlier, it would merge categories that
    differ little. The terms then stay in the objective with ``start_weight``, which falls to 0
    over the first 80 % of the training. The weights of the KL divergences and of an information
    term rise from 0 during the share ``warmup`` of the training.

    If some data have labels, the mean of log q(c = label | x) over these is maximised too.

    Example:
        >>> vae = mi.CatVAE((1, 8, 8), warm_start=CategoryStart(warm_start=100, starts=1))
        >>> vae.start.plan(1000)
        {'steps': 100, 'starts': 1}
    """

    warm_start: int | None = option(
        None,
        check=whole(least=0),
        help="steps of the categories' unsupervised start; 0 for none; if omitted 20 passes "
        "over the data, of 600 to 4,800 steps",
    )
    starts: int = option(
        2,
        check=whole(least=1),
        help="initial weights that the start tries, of which the best is kept",
    )
    start_radius: float | None = option(
        None,
        check=number(least=0),
        help="radius of the start's smoothness, see RegularizedInformation; if omitted 13 / n^0.4 "
        "for n data, and 0.16 in training",
    )
    transform: str | Callable[[Tensor], Tensor] | None = option(
        None,
        check=either(choice(*TRANSFORMS), function("transform(x)")),
        names=tuple(TRANSFORMS),
        help="transformation of the data that must not change their categories, from the end of "
        "the start on",
    )
    start_weight: float = option(
        20.0,
        check=number(least=0, most=LARGEST_WEIGHT),
        help="weight of the start's term in the objective, falling to 0",
    )
    warmup: float = option(
        0.5,
        check=number(least=0, most=1),
        help="share of the training in which the other weights rise from 0",
    )

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def of(cls, given: int | CategoryStart | None) -> CategoryStart:
        """Returns a start with a number of steps; a given start as it is."""
        return given if isinstance(given, cls) else cls(given)  # type: ignore[arg-type]

    def run(
        self,
        guide: nn.Module,
        args: Sequence[Tensor],
        sites: Iterable[str],
        *,
        labels: Tensor | None = None,
        keep_weights: bool = False,
    ) -> None:
        """Trains the categories of a guide on its arguments, data first."""
        x, *others = args
        plan, terms = self.plan(len(x), keep_weights=keep_weights), self.terms(sites, len(x))
        plain = [term for term in terms if not isinstance(term, InvariantInformation)]
        known: dict[str, Any] = {"labels": labels, "others": others}
        warm_start_categories(guide, x, plain, **known, **plan)
        if len(plain) < len(terms):
            warm_start_categories(guide, x, terms, **known, steps=plan["steps"] // 4)

    def plan(self, n: int, *, keep_weights: bool = False) -> dict[str, Any]:
        """Returns options of ``warm_start_categories`` for ``n`` data.

        Networks that a user passed in keep their weights: they get one start.
        """
        usual = min(4800, max(600, 20 * n // BATCH))
        steps = usual if self.warm_start is None else self.warm_start
        return {"steps": steps, "starts": 1 if keep_weights else self.starts}

    def terms(self, sites: Iterable[str], n: int) -> list[CategoryTerm]:
        """Returns the terms that are maximised before training, for ``n`` data."""
        radius = 13 / n**0.4 if self.start_radius is None else self.start_radius
        return [t for site in sites for t in self._terms(site, radius, lambda weight: weight)]

    def fading_terms(self, sites: Iterable[str], num_steps: int | None) -> list[CategoryTerm]:
        """Returns the start's terms for the objective, if there are any."""
        steps = round(0.8 * (num_steps or 0))
        if not (steps and self.start_weight) or self.warm_start == 0:
            return []
        radius = 0.16 if self.start_radius is None else self.start_radius
        falling = partial(linear_warmup, steps, end=0.0)

        def weight(own: float) -> Schedule:
            return falling(own * self.start_weight)

        return [term for site in sites for term in self._terms(site, radius, weight)]

    def _terms(
        self, site: str, radius: float, weight: Callable[[float], Any]
    ) -> list[CategoryTerm]:
        found: list[CategoryTerm] = [
            RegularizedInformation(site, radius=radius, weight=weight(1.0))
        ]
        given = self.transform
        if given is not None:
            transform = TRANSFORMS[given]() if isinstance(given, str) else given
            found.append(
                InvariantInformation(site, transform=transform, weight=weight(INVARIANCE))
            )
        return found

    def rising(
        self, weight: float | Schedule | Target, num_steps: int | None
    ) -> float | Schedule | Target:
        """Returns a schedule that rises from 0 to a constant weight."""
        steps = round(self.warmup * (num_steps or 0))
        if callable(weight) or isinstance(weight, Target) or not (weight and steps):
            return weight
        return linear_warmup(steps, end=weight)


@torch.enable_grad()
def warm_start_categories(
    guide: nn.Module,
    x: Tensor,
    terms: Sequence[CategoryTerm],
    *,
    steps: int,
    starts: int = 1,
    labels: Tensor | None = None,
    others: Sequence[Tensor] = (),
) -> None:
    r"""Trains :math:`q(c \mid x)` alone, to maximise terms of the category.

    The terms have local optima. Of several starts, the one with the greatest value over its last
    tenth of steps is kept. Every start but the first draws the parameters anew, by
    ``reset_parameters`` of the modules that have it and are not frozen. Labels, -1 if not known,
    add the mean of the `LabelledCategory`, estimated in each step from as many labelled data as a
    batch holds.
    """
    classified = LabelledCategory(terms[0].sites[0])
    args = [x, *others]

    def loss(*parts: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        (x, *own), labelled = parts[: len(args)], parts[len(args) :]
        bound = bind(guide, own, {})
        gains = [term.weight() * term.per_datum(bound, x) for term in terms]
        if labelled:
            x, *own, known = labelled
            gains.append(classified.per_datum(bind(guide, own, {}), x, known))
        value = -torch.stack(gains).sum()
        return value, {"loss": value.detach()}

    engine = Engine(TrainStep.of_modules(loss, guide), "auto", num_steps=steps * starts)
    initial, best = deepcopy(guide.state_dict()), None  # the least loss, and its weights
    for start in range(starts if steps else 0):
        if start:
            guide.load_state_dict(initial)
            for module in guide.modules():
                reset = getattr(module, "reset_parameters", None)
                if callable(reset) and all(p.requires_grad for p in module.parameters()):
                    reset()
        value = _train(engine, guide, args, labels, start * steps, steps)
        if best is None or value < best[0]:
            best = value, deepcopy(guide.state_dict())
    if best is not None:
        guide.load_state_dict(best[1])


def _train(
    engine: Engine,
    guide: nn.Module,
    args: Sequence[Tensor],
    labels: Tensor | None,
    first: int,
    steps: int,
) -> float:
    """Takes steps, and returns the mean loss of the last tenth of them."""
    device, x = next(guide.parameters()).device, args[0]
    size = min(BATCH, max(len(x) // 10, 100), len(x))
    rows = None if labels is None else (labels >= 0).nonzero()[:, 0]
    optimiser = Adam(guide.parameters(), 2e-3, fused=True)
    losses = []
    for step in telling("start of the categories", range(first, first + steps)):
        index = torch.randint(len(x), (size,), device=x.device)
        batch = [part[index] for part in args]
        if labels is not None and rows is not None:
            drawn = rows if len(rows) <= size else rows[torch.randint(len(rows), (size,))]
            batch += [part[drawn] for part in (*args, labels)]
        batch = [part.to(device, non_blocking=True) for part in batch]
        _, values = engine.take(*batch, number=step, compare=is_due(step))
        optimiser.step()
        losses.append(values)
    return float(torch.stack(losses[-max(1, steps // 10) :]).mean().nan_to_num(math.inf))
