"""Train and test split for probes, judge and forests."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_mivae.arguments import shown
from pyro_mivae.errors import DataError
from pyro_mivae.inputs import as_labels
from pyro_mivae.variants import Variant

PROBE_ITEMS = 10_000
Train = tuple[Any, Any] | tuple[Any, Any, Any] | tuple[Any, Any, Any, Any]
"""Data, their labels, their factors, and their condition."""
Pair = tuple[Tensor, Tensor]
"""Values of the data to learn on, and of the data to score."""


class Known(NamedTuple):
    """Data with their labels ``(n,)`` and factors ``(n, F)``, or None."""

    args: list[Tensor]  # the data, and their condition if there is one
    labels: Tensor | None
    factors: Tensor | None

    @property
    def x(self) -> Tensor:
        """The data."""
        return self.args[0]

    def at(self, rows: Tensor) -> Known:
        """Takes some of the data."""
        args = [part[rows.to(part.device)] for part in self.args]
        others = (v if v is None else v[rows.to(v.device)] for v in (self.labels, self.factors))
        return Known(args, *others)

    def take(self, count: int, seed: int) -> Known:
        """Takes some of the data at random."""
        generator = torch.Generator().manual_seed(seed)
        return self.at(torch.randperm(len(self.x), generator=generator)[:count])


class Split(NamedTuple):
    """Data to learn on, and other data to score."""

    args: list[Tensor]  # data to learn on, and their condition if there is one
    rows: Tensor  # those of the encoded data that are scored, on the CPU
    labels: Pair | None  # integers from 0
    factors: Pair | None
    text: str  # description of the split

    @property
    def x(self) -> Tensor:
        """The data to learn on."""
        return self.args[0]

    @property
    def is_empty(self) -> bool:
        """True if there are no data to learn on, or none to score."""
        return not len(self.x) or not len(self.rows)

    def choose(self, most: int | None, seed: int) -> Tensor:
        """Chooses data to learn on at random."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(len(self.x), generator=generator)[:most]


def split(given: Known, train: Known | None, seed: int, device: torch.device) -> Split:
    """Splits the data.

    Without separate training data, half of the data are used to learn, stratified by label, or by
    the first factor if there are no labels.
    """
    x, labels, factors = given.x, given.labels, given.factors
    if train is not None:
        rows = torch.arange(len(x))
        text = f"learned on {len(train.x)} training items, scored on the {len(x)} items"
    else:
        by = labels if labels is not None or factors is None else factors[:, 0]
        learn, rows = halves(torch.zeros(len(x)) if by is None else by.cpu(), seed)
        train = given.at(learn[:0] if by is None else learn)
        text = (
            f"learned on a random half of the data, stratified by label ({len(learn)} items), "
            f"scored on the other ({len(rows)} items)"
        )
    pairs: list[Pair | None] = []
    for taught, asked in ((train.labels, labels), (train.factors, factors)):
        if taught is None or asked is None:
            pairs.append(None)
        else:
            values = numbered(torch.cat([taught.cpu(), asked.cpu()[rows]])).to(device)
            pairs.append((values[: len(taught)], values[len(taught) :]))
    return Split(train.args, rows, pairs[0], pairs[1], text)


def halves(labels: Tensor, seed: int) -> Pair:
    """Indices of two halves, stratified by label."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order].argsort(stable=True)]  # each label's data in random order
    return order[0::2].sort().values, order[1::2].sort().values


def check_known(
    vae: Variant, x: Any, labels: Any, factors: Any, train: Any, given: Any = None
) -> tuple[Known, Known | None]:
    """Checks the arguments of `evaluate`: data to score, and data to learn on."""
    if train is not None and (not isinstance(train, tuple) or len(train) not in (2, 3, 4)):
        raise DataError(
            f"train={shown(train)}; allowed are (x, labels), (x, labels, factors) and (x, labels, "
            "factors, given), with None for what is not known"
        )
    sets = [(x, labels, factors, given)] + ([] if train is None else [(*train, None, None)[:4]])
    names = ("{}", "the {} of train")[: len(sets)]
    args = [list(vae.arguments(of[0], of[3])) for of in sets]
    given_labels, given_factors = (
        as_labels([of[place] for of in sets], [name.format(what) for name in names])
        for place, what in ((1, "labels"), (2, "factors"))
    )
    known = [Known(*of) for of in zip(args, given_labels, given_factors)]
    for of, name in zip(known, names):
        n, labels, factors = len(of.x), of.labels, of.factors
        if labels is not None and labels.shape != (n,):
            raise DataError(
                f"{name.format('labels')}: expected {n} integers or strings, one per item, got "
                f"shape {tuple(labels.shape)}"
            )
        if factors is not None and (
            factors.dim() != 2 or len(factors) != n or not factors.numel()
        ):
            raise DataError(
                f"{name.format('factors')}: expected integers of shape ({n}, F), one row per item "
                f"and one column per factor, got shape {tuple(factors.shape)}"
            )
    if train is None:
        return known[0], None
    _check_train(*known)
    return known[0], known[1]


def _check_train(score: Known, learn: Known) -> None:
    """Checks that the training data have labels and factors like the scored data."""
    for name in ("labels", "factors"):
        if getattr(score, name) is not None and getattr(learn, name) is None:
            raise DataError(
                f"{name} are given, but train has none; give train=(x, labels, factors), with "
                f"None for what is not known, or leave train out"
            )
    (_, labels, factors), (_, y, f) = score, learn
    if f is not None and factors is not None and f.shape[1] != factors.shape[1]:
        raise DataError(
            f"train has {f.shape[1]} factors, the data have {factors.shape[1]}; give the same ones"
        )
    if labels is not None and y is not None and not torch.isin(labels.cpu(), y.cpu()).any():
        raise DataError(
            f"no label of the data ({_some(labels)}) is a label of train ({_some(y)}); name "
            "the classes the same in both"
        )


def _some(labels: Tensor) -> str:
    values = labels.unique().tolist()
    return ", ".join(map(str, values[:4])) + (", ..." if len(values) > 4 else "")


def numbered(values: Tensor) -> Tensor:
    """Renumbers values from 0, each column of factors separately."""
    columns = values.reshape(len(values), -1).unbind(1)
    found = [column.unique(return_inverse=True)[1] for column in columns]
    return torch.stack(found, 1).reshape(values.shape)
