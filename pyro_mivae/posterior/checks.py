"""Requirements of the report on the sites of a pair, each refused with a remedy."""

from __future__ import annotations

import inspect
from typing import Any

import pyro
from pyro.poutine.messenger import Messenger
from torch import Size
from torch.distributions import Distribution

from pyro_mivae.errors import ShapeError, SiteError
from pyro_mivae.posterior.layout import chart, support_of
from pyro_mivae.traces import Program


class WholePlates(Messenger):
    """Refuses plates that draw a mini-batch of their own, by a `SiteError`."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        fn = msg["fn"]
        if type(fn).__name__ == "_Subsample" and (fn.subsample_size or fn.size) < fn.size:
            raise SiteError(
                f"plate {msg['name']!r} draws {fn.subsample_size} of {fn.size} data; the report "
                "scores each datum that it is given: use pyro.plate('data', len(x)), or pass the "
                "rows as pyro.plate('data', size, subsample=x)"
            )


def check_signature(role: str, program: Program) -> None:
    """Refuses a program that needs more than the data."""
    try:
        inspect.signature(program).bind(None)
    except TypeError as error:
        raise SiteError(
            f"the {role} cannot be called with the data alone ({error}); wrap it, as in "
            f"lambda x: {role}(x, option), and put what belongs to each datum into x"
        ) from None
    except ValueError:  # no signature is known
        return


def check_plate(name: str, fn: Any, batch: int, sizes: tuple[int, ...]) -> None:
    """Refuses a site that is not in one plate over the data."""
    shape = tuple(fn.batch_shape)
    expected = (*sizes, batch)
    padded = (1,) * (len(expected) - len(shape)) + shape
    fits = len(padded) == len(expected) and shape[-1:] == (batch,)
    if not fits or any(got not in (1, want) for got, want in zip(padded, expected)):
        raise ShapeError(
            f"site {name!r}: expected batch shape {(batch,)} from one plate over the data (and "
            f"{sizes} to its left for enumerated sites), got {shape}; sample it inside "
            "pyro.plate('data', len(x)), and move other dimensions into the event by .to_event()"
        )


def check_match(name: str, q: Distribution, p: Distribution) -> None:
    """Refuses densities of guide and model that are with respect to different measures."""
    if has_point_mass(q):
        return
    kinds = [_measure(fn) for fn in (q, p)]
    if None not in kinds and kinds[0] != kinds[1]:
        raise SiteError(
            f"site {name!r} is {kinds[0]} in the guide ({type(q).__name__}) and {kinds[1]} in "
            f"the model ({type(p).__name__}), so log q - log p means nothing; use distributions "
            "of one kind in both, for a category pyro's OneHotCategorical, which the report sums "
            "out"
        )


def check_values(name: str, q: Distribution, p: Distribution) -> None:
    """Refuses a category of the model with values that the guide does not have."""
    if not p.has_enumerate_support:
        return
    supports = [fn.enumerate_support(expand=False) for fn in (q, p)]
    ours, theirs = (values.reshape(len(values), -1) for values in supports)
    if not all(bool((ours == value).all(1).any()) for value in theirs):
        raise SiteError(
            f"site {name!r} has {len(theirs)} values in the model, and the guide has {len(ours)}, "
            "not all of them among these; give it the same values in both"
        )


def has_point_mass(fn: Distribution) -> bool:
    """True if a distribution is, or is made of, a Delta."""
    parts = [part for part in vars(fn).values() if isinstance(part, Distribution)]
    return isinstance(fn, pyro.distributions.Delta) or any(map(has_point_mass, parts))


def _measure(fn: Distribution) -> str | None:
    """Kind of a distribution's support: discrete, or its dimension; None where unknown."""
    support = support_of(fn)
    if support is None or support.is_discrete:
        return None if support is None else "discrete"
    bijection = chart(support)
    if bijection is None:
        return None
    return f"{bijection.inverse_shape(Size(fn.event_shape)).numel()}-dimensional"
