"""Batches of a training: images and what is known of them, and the loss of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_mivae.data.binarize import TRAIN_SEED, draw, settled_pixels
from pyro_mivae.errors import OptionError
from pyro_mivae.ranks import ALONE, Ranks, Shares, mean_size, own_rows
from pyro_mivae.training.arguments import batch_sizes
from pyro_mivae.training.options import TrainingOptions

Loss = Callable[..., tuple[Tensor, Mapping[str, Tensor]]]


class Batches:
    """Data of a training in batches, each with some labelled data beside it if there are labels.

    The last ``extra`` rows of a batch hold labelled data, drawn for the classifier's term: as many
    as are in a batch, or all.
    """

    def __init__(
        self,
        data: Mapping[str, Tensor],  # with a row for each datum: x, given, labels
        options: TrainingOptions,
        device: torch.device,
        *,
        needs_batch: bool,
        ranks: Ranks = ALONE,
    ) -> None:
        self.data, self.device, self.binarize = dict(data), device, options.binarize
        self.x, self._ranks = data["x"], ranks
        self.sizes = batch_sizes(len(self.x), options.batch_size, needs_batch, ranks.size)
        self.labelled = torch.zeros(0, dtype=torch.long)
        if "labels" in data:
            self.labelled = (data["labels"] >= 0).nonzero()[:, 0].cpu()
        self.extra = min(len(self.labelled), options.batch_size)
        given = options.label_weight
        if given is not None and not self.extra:
            raise OptionError(f"label_weight={given} is given without labels; give labels too")

    @property
    def rows(self) -> list[int]:
        """Number of rows of each step."""
        return [size + self.extra for size in self.sizes]

    def order(self, generator: torch.Generator) -> Tensor:
        """Draws the rows of an epoch: all data once, and labelled data after those of each step.

        The labelled data come in random order, all of them before any of them again. So each is in
        a step with the same probability, and the mean over those of a step is unbiased.
        """
        order = torch.randperm(len(self.x), generator=generator)
        if not self.extra:
            return order
        count = len(self.labelled)
        rounds = -(-len(self.sizes) * self.extra // count)
        shuffled = [torch.randperm(count, generator=generator) for _ in range(rounds)]
        drawn = self.labelled[torch.cat(shuffled)].split(self.extra)
        parts = zip(order.split(self.sizes), drawn, strict=False)  # more are drawn than needed
        return torch.cat([part for pair in parts for part in pair])

    def own(self, index: Tensor) -> tuple[Tensor, Shares | None]:
        """Returns the rows of a step that this process takes, and the step's division.

        Every process takes all the labelled data drawn for the classifier's term.
        """
        drawn, labelled = index.split([len(index) - self.extra, self.extra])
        shares = self._ranks.shares(len(drawn))
        return torch.cat([own_rows(drawn, shares), labelled]), shares

    def take(self, index: Tensor) -> list[Tensor]:
        """Returns rows of all data, on the device."""
        rows = index.to(self.x.device, non_blocking=True)
        return [of[rows].to(self.device, non_blocking=True) for of in self.data.values()]

    def example(self, size: int) -> list[Tensor]:
        """Returns an example batch of ``size`` data."""
        x, *others = self.take(torch.cat([torch.arange(size), self.labelled[: self.extra]]))
        return [self.settled(x), *others]

    def settled(self, x: Tensor) -> Tensor:
        """Returns training images as binary as in training, by a fixed draw."""
        return settled_pixels(x, self.binarize, TRAIN_SEED)

    def pixels(self, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        """Returns a function that gives each batch of an epoch its pixels, in place.

        Dynamic binarisation has random numbers of its own, so the model's noise is the same under
        every protocol. Their seed comes from the generator of the order, which checkpoints hold.
        """
        if self.binarize != "dynamic":
            return lambda batch: batch
        seed = int(torch.randint(2**32, (), generator=generator)) + self._ranks.rank
        own = torch.Generator(self.device).manual_seed(seed)
        return lambda batch: batch.copy_(draw(batch, own))

    def loss(self, objective: Any, model: Any, guide: Any) -> Loss:
        """Returns the loss per datum of a batch, as a function of the tensors of `take`."""
        return loss_of(objective, model, guide, list(self.data)[1:], self.extra)


def loss_of(
    objective: Any, model: Any, guide: Any, names: Sequence[str] = (), extra: int = 0
) -> Loss:
    """Returns a loss per datum and its ledger, as a function of data and the named tensors.

    The last ``extra`` rows are labelled data for the classifier's term.
    """

    def loss_per_datum(x: Tensor, *others: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
        known: dict[str, Any] = dict(zip(names, others, strict=True))
        args = [x, *([known.pop("given")] if "given" in known else [])]
        if extra:
            labelled = [part[-extra:] for part in (x, known["labels"], *args[1:])]
            args = [part[:-extra] for part in args]
            known = {"labels": known["labels"][:-extra], "labelled": tuple(labelled)}
        loss = objective.differentiable_loss(model, guide, *args, **known)
        # The ranks' mean of this quotient is the loss per datum of the whole batch.
        return loss / mean_size(len(args[0])), objective.ledger

    return loss_per_datum
