"""What is known of data, parted in what probes learn and what they are scored on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_mivae.errors import DataError
from pyro_mivae.inputs import as_labels
from pyro_mivae.variants import Variant

Train = tuple[Any, Any] | tuple[Any, Any, Any]
"""Data, their labels, and their factors."""


@dataclass(frozen=True)
class Lesson:
    """Data to learn on, and others to be scored on.

    Attributes:
        x: Data to learn on, shape ``(m, *data_shape)``.
        rows: Which of the subject's data are scored, on the CPU.
        labels: Labels of the ones and of the others, integers from 0, or None.
        factors: Factors of the ones and of the others, integers from 0, ``(m, F)``, or None.
        text: What is learned and scored, in words.
    """

    x: Tensor
    rows: Tensor
    labels: tuple[Tensor, Tensor] | None
    factors: tuple[Tensor, Tensor] | None
    text: str

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to learn on, or to be scored on."""
        return not len(self.x) or not len(self.rows)

    def choose(self, most: int | None, seed: int) -> Tensor:
        """Chooses data to learn on at random."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(len(self.x), generator=generator)[:most]


def make_lesson(given: Known, seed: int, device: torch.device) -> Lesson:
    """Parts what is known of data in what is learned and what is scored.

    Without data to learn on, half of the data are learned, stratified by label, or by the first
    factor where there are no labels.
    """
    known: list[tuple[Tensor, Tensor] | None]
    x, labels, factors, train = given.x, given.labels, given.factors, given.train
    if train is None:
        by = labels if labels is not None or factors is None else factors[:, 0]
        learn, rows = halves(torch.zeros(len(x)) if by is None else by.cpu(), seed)
        data = x[:0] if by is None else x[learn.to(x.device)]
        known = [
            None if values is None else (values.cpu()[learn], values.cpu()[rows])
            for values in (labels, factors)
        ]
        text = (
            f"learned on a random half of the data, stratified by label ({len(learn)} items), "
            f"scored on the other ({len(rows)} items)"
        )
    else:
        (data, *taught), rows = train, torch.arange(len(x))
        known = [
            None if a is None or b is None else (a.cpu(), b.cpu())
            for a, b in zip(taught, (labels, factors))
        ]
        text = f"learned on {len(data)} training items, scored on the {len(x)} items"
    pairs = [None if pair is None else _numbered(*pair, device) for pair in known]
    return Lesson(data, rows, pairs[0], pairs[1], text)


def halves(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of two halves, with each label in both in equal number, give or take one."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order].argsort(stable=True)]  # each label's data in random order
    return order[0::2].sort().values, order[1::2].sort().values


@dataclass(frozen=True)
class Known:
    """What is given to `evaluate`: data, what is known of them, and data to learn on.

    Attributes:
        x: Data to be scored, as the variant takes them.
        labels: Their labels, integers, shape ``(n,)``, or None.
        factors: Their factors, integers, shape ``(n, F)``, or None.
        train: Other data to learn on, their labels and their factors, or None.
    """

    x: Tensor
    labels: Tensor | None
    factors: Tensor | None
    train: tuple[Tensor, Tensor | None, Tensor | None] | None

    def take(self, count: int, seed: int) -> Known:
        """Takes some of the data at random, and as many of those to learn on."""
        x, labels, factors = _take(count, seed, self.x, self.labels, self.factors)
        return Known(
            x, labels, factors, None if self.train is None else _take(count, seed, *self.train)
        )


def _take(count: int, seed: int, *given: Tensor | None) -> Any:
    rows = [
        None
        if values is None
        else torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))[:count]
        for values in given
    ]
    return tuple(
        None if values is None or row is None else values[row.to(values.device)]
        for values, row in zip(given, rows)
    )


def check_known(vae: Variant, x: Any, labels: Any, factors: Any, train: Any) -> Known:
    """Checks what is given to `evaluate`."""
    x = vae.check_data(x)
    if train is None:
        labels, factors = as_labels([labels], ["labels"])[0], _factors(factors, "factors")
        _check_labels(x, labels, "labels")
        _check_factors(x, factors, "factors")
        return Known(x, labels, factors, None)
    if not isinstance(train, tuple) or len(train) not in (2, 3):
        raise DataError("train: expected (x, labels) or (x, labels, factors); None if not known")
    names = ["labels", "the labels of train"]
    labels, taught = as_labels([labels, train[1]], names)
    learned = _factors(train[2] if len(train) > 2 else None, "the factors of train")
    factors, learn = _factors(factors, "factors"), vae.check_data(train[0])
    for data, values, name in ((x, labels, names[0]), (learn, taught, names[1])):
        _check_labels(data, values, name)
    for data, values, name in ((x, factors, "factors"), (learn, learned, "the factors of train")):
        _check_factors(data, values, name)
    known = Known(x, labels, factors, (learn, taught, learned))
    _check_train(known)
    return known


def _factors(factors: Any, name: str) -> Tensor | None:
    return None if factors is None else as_labels([factors], [name])[0]


def _check_labels(x: Tensor, labels: Tensor | None, name: str) -> None:
    if labels is not None and labels.shape != (len(x),):
        raise DataError(
            f"{name}: expected {len(x)} integers or strings, one per item, got shape "
            f"{tuple(labels.shape)}"
        )


def _check_factors(x: Tensor, factors: Tensor | None, name: str) -> None:
    if factors is None:
        return
    fits = factors.dim() == 2 and len(factors) == len(x) and factors.shape[1] > 0
    if not fits:
        raise DataError(
            f"{name}: expected integers of shape ({len(x)}, F), one row per item and one column "
            f"per factor, got shape {tuple(factors.shape)}"
        )


def _check_train(known: Known) -> None:
    """Checks that what is to be learned is known of the data to learn on."""
    labels, factors = known.labels, known.factors
    _, y, f = known.train or (None, None, None)
    for name, given, taught in (("labels", labels, y), ("factors", factors, f)):
        if given is not None and taught is None:
            raise DataError(
                f"{name} are given, and train without any; give train=(x, labels, factors), with "
                f"None for what is not known, or leave train out"
            )
    if f is not None and factors is not None and f.shape[1] != factors.shape[1]:
        raise DataError(
            f"train has {f.shape[1]} factors, the data have {factors.shape[1]}; give the same ones"
        )
    if labels is not None and y is not None and not torch.isin(labels.cpu(), y.cpu()).any():
        raise DataError(
            f"no label of the data ({_some(labels)}) is among those of train ({_some(y)}); name "
            "the classes alike in both"
        )


def _some(labels: Tensor) -> str:
    values = labels.unique().tolist()
    return ", ".join(map(str, values[:4])) + (", ..." if len(values) > 4 else "")


def _numbered(learn: Tensor, score: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Values counted from 0, the same in both; each column of factors by itself."""
    if learn.dim() == 2:
        columns = [_numbered(a, b, device) for a, b in zip(learn.unbind(1), score.unbind(1))]
        return torch.stack([a for a, _ in columns], 1), torch.stack([b for _, b in columns], 1)
    values = torch.cat([learn, score]).unique()
    first, second = (
        torch.searchsorted(values, part.contiguous()).to(device) for part in (learn, score)
    )
    return first, second
