"""What is known of data, parted in what probes learn and what they are scored on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_mivae.errors import DataError

Train = tuple[Tensor, Tensor | None] | tuple[Tensor, Tensor | None, Tensor | None]
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
        """Chooses data to learn on at random.

        Args:
            most: How many at most; all if None.
            seed: Of the choice.

        Returns:
            Their indices, on the CPU.
        """
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(len(self.x), generator=generator)[:most]


def make_lesson(
    x: Tensor,
    labels: Tensor | None,
    factors: Tensor | None,
    train: Train | None,
    seed: int,
    device: torch.device,
) -> Lesson:
    """Parts what is known of data in what is learned and what is scored.

    Args:
        x: The subject's data.
        labels: Their labels.
        factors: Their factors.
        train: Other data to learn on; if None, half of the data, stratified by label, or by the
            first factor where there are no labels.
        seed: Of the halves.
        device: Where labels and factors go.

    Returns:
        The lesson.
    """
    known: list[tuple[Tensor, Tensor] | None]
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
        data, rows = train[0], torch.arange(len(x))
        taught = (train[1], train[2] if len(train) > 2 else None)
        known = [
            None if a is None or b is None else (a.cpu(), b.cpu())
            for a, b in zip(taught, (labels, factors))
        ]
        text = f"learned on {len(data)} training items, scored on the {len(x)} items"
    pairs = [None if pair is None else _numbered(*pair, device) for pair in known]
    return Lesson(data, rows, pairs[0], pairs[1], text)


def halves(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of two halves, with each label in both in equal number, give or take one.

    Args:
        labels: Shape ``(n,)``.
        seed: Of the order.

    Returns:
        Both halves, sorted.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order].argsort(stable=True)]  # each label's data in random order
    return order[0::2].sort().values, order[1::2].sort().values


def check_labels(x: Tensor, labels: Tensor | None, name: str) -> None:
    """Checks that there is a label for each datum.

    Args:
        x: The data.
        labels: Integers, shape ``(n,)``, or None.
        name: What they are called.

    Raises:
        DataError: If not.
    """
    if labels is not None and (labels.shape != (len(x),) or not _is_whole(labels)):
        raise DataError(
            f"{name}: expected {len(x)} integers, one per item, got {labels.dtype} of shape "
            f"{tuple(labels.shape)}"
        )


def check_factors(x: Tensor, factors: Tensor | None, name: str) -> None:
    """Checks that there are factors of each datum.

    Args:
        x: The data.
        factors: Integers, shape ``(n, F)``, or None.
        name: What they are called.

    Raises:
        DataError: If not.
    """
    if factors is None:
        return
    fits = factors.dim() == 2 and len(factors) == len(x) and factors.shape[1] > 0
    if not fits or not _is_whole(factors):
        raise DataError(
            f"{name}: expected integers of shape ({len(x)}, F), one row per item and one column "
            f"per factor, got {factors.dtype} of shape {tuple(factors.shape)}"
        )


def check_train(train: Train, labels: Tensor | None, factors: Tensor | None) -> None:
    """Checks that what is to be learned is known of the data to learn on.

    Args:
        train: These, their labels and their factors.
        labels: Labels of the data to be scored.
        factors: Their factors.

    Raises:
        DataError: If not.
    """
    if not isinstance(train, tuple) or len(train) not in (2, 3):
        raise DataError("train: expected (x, labels) or (x, labels, factors); None if not known")
    x, y, f = train[0], train[1], train[2] if len(train) > 2 else None
    check_labels(x, y, "the labels of train")
    check_factors(x, f, "the factors of train")
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


def _is_whole(values: Tensor) -> bool:
    return not values.is_floating_point() and not values.is_complex()


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
