"""Trainings that break down: numbers that ran away are found, and the last good weights kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import torch
from torch import Tensor

from pyro_mivae.errors import PyroMivaeError, SiteError, TrainingError
from pyro_mivae.training.checkpoint import detached_copy
from pyro_mivae.training.keeper import Keeper
from pyro_mivae.training.loop import Trainer
from pyro_mivae.training.meter import Meter
from pyro_mivae.variants.checks import broken_weights


def check_end(trainer: Trainer) -> None:
    """Checks that an epoch's last step left finite weights, and at the end a finite loss."""
    wrong = broken_weights(trainer.vae)
    if wrong:
        raise TrainingError(_told(trainer, wrong))
    if trainer.finished:
        check_loss(trainer)


def check_loss(trainer: Trainer) -> None:
    """Checks that the loss of a batch is finite."""
    meter, ledger = Meter(trainer.step + 1), evaluated(trainer)
    meter.add(tuple(ledger), torch.stack(list(ledger.values())), trainer.batch_sizes[0])
    meter.means()


def evaluated(trainer: Trainer) -> dict[str, Tensor]:
    """Returns the ledger of a batch, summed over it, without a step."""
    with torch.no_grad(), trainer._evaluating(), pyro.validation_enabled(False):
        x = trainer.example(trainer.batch_sizes[0])
        trainer.objective.differentiable_loss(trainer.vae.model, trainer.vae.guide, x)
    return {name: value.detach() for name, value in trainer.objective.ledger.items()}


@contextmanager
def broken_down(trainer: Trainer) -> Iterator[None]:
    """Says what is wrong where weights that ran away make a distribution or an operation fail."""
    try:
        yield
    except PyroMivaeError:
        raise
    except (RuntimeError, ValueError) as error:
        wrong = broken_weights(trainer.vae)
        if wrong:
            raise TrainingError(_told(trainer, wrong)) from error
        try:
            trainer.check_pair()
        except SiteError as found:
            told = str(found).splitlines()[0].rstrip(":")
            raise TrainingError(
                f"after step {trainer.step} {told}; if numbers ran away, try a lower learning "
                "rate or gradient clipping"
            ) from error
        raise


def _has_run_away(trainer: Trainer) -> bool:
    """Returns whether the weights, finite as they are, give no finite ELBO (of a game, loss)."""
    try:
        ledger = evaluated(trainer)
    except (RuntimeError, ValueError):
        return True
    return not bool(ledger.get("elbo", ledger["loss"]).isfinite())


def _told(trainer: Trainer, wrong: list[str]) -> str:
    others = f" and {len(wrong) - 1} other tensors" if len(wrong) > 1 else ""
    return (
        f"weights are not finite after step {trainer.step} ({wrong[0]}{others}); try a lower "
        "learning rate or gradient clipping"
    )


@contextmanager
def last_weights_kept(trainer: Trainer, keeper: Keeper) -> Iterator[None]:
    """Puts the weights back to where they were if what is run here breaks down."""
    epoch = trainer.epoch
    weights = detached_copy(trainer.vae.state_dict())
    try:
        with broken_down(trainer):
            yield
    except TrainingError as error:
        trainer.vae.load_state_dict(weights)
        back = f"after epoch {epoch}"
        kept = f", kept in {keeper.folder}; from there it breaks down again: train anew"
        if not epoch:
            back, kept = "before the first epoch", f"; {keeper.folder} keeps none"
        elif _has_run_away(trainer):
            keeper.forget()
            back += f" (epoch {epoch}'s ELBO is not finite either)"
            kept = f"; {keeper.folder} keeps {f'epoch {keeper.kept}' if keeper.kept else 'none'}"
        raise TrainingError(
            f"{error}. The weights are those {back} again{kept if keeper.folder else ''}"
        ) from None
