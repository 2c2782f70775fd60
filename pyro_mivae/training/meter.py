"""Sums the ledgers of many steps without waiting for the device at any of them."""

from __future__ import annotations

import math
from typing import NoReturn

import torch
from torch import Tensor

from pyro_mivae.errors import TrainingError


class Meter:
    """Gathers an objective's ledgers and gives their mean per datum, with one synchronisation."""

    def __init__(self, first_step: int = 1) -> None:
        self._keys: tuple[str, ...] = ()
        self._values: list[Tensor] = []
        self._first_step = first_step
        self._count = 0

    def add(self, keys: tuple[str, ...], values: Tensor, count: int) -> None:
        """Adds the ledger of a batch, or of several."""
        self._keys = keys
        self._values.append(values.view(-1, len(keys)))
        self._count += count

    def means(self) -> dict[str, float]:
        """Gives each entry's mean per datum."""
        values = torch.cat(self._values).double().cpu()  # (steps, entries)
        bad = (~values[:, self._keys.index("loss")].isfinite()).nonzero()
        if len(bad):
            self._raise(values[: int(bad[0]) + 1])
        return dict(zip(self._keys, (values.sum(0) / self._count).tolist(), strict=True))

    def _raise(self, values: Tensor) -> NoReturn:
        """Names what broke; where all did at once, what had run away at the step before."""
        *before, now = values.unbind()
        defined = values[:-1].isfinite().all(0).tolist()
        broken = [
            f"{key} = {value:g}"
            for key, value, was in zip(self._keys, now.tolist(), defined, strict=True)
            if was and not math.isfinite(value)
        ]
        told = ", ".join(broken)
        if before and len(broken) == sum(defined):
            typical = values[:-1].abs().nanmedian(0).values.clamp(min=1.0)
            key = int((before[-1].abs() / typical).nan_to_num(0.0).argmax())
            told += f"; the step before had {self._keys[key]} = {before[-1][key]:g}"
            told += f", typically {values[:-1, key].nanmedian():g}"
        raise TrainingError(
            f"the loss is not finite at step {self._first_step + len(values) - 1} ({told}); try "
            "a lower learning rate, gradient clipping, or a smaller weight of what is named"
        )
