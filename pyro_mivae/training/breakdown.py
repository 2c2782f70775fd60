"""Numbers that ran away: they are found, and named with the step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyro
import torch
from torch import Tensor

from pyro_mivae.errors import PyroMivaeError, SiteError, TrainingError
from pyro_mivae.training.history import Meter
from pyro_mivae.training.trainer import Trainer
from pyro_mivae.variants.checks import broken_weights

REMEDY = "try a lower learning rate or gradient clipping"


def check_end(trainer: Trainer) -> None:
    """Checks that an epoch's last step left finite weights, and at the end a finite loss."""
    _check_weights(trainer)
    if trainer.finished:
        meter, ledger = Meter(trainer.step + 1), _evaluated(trainer)
        meter.add(tuple(ledger), torch.stack(list(ledger.values())), trainer.batch_sizes[0])
        meter.means()


def has_run_away(trainer: Trainer) -> bool:
    """Returns whether the weights, finite as they are, give no finite ELBO (of a game, loss)."""
    try:
        ledger = _evaluated(trainer)
    except (RuntimeError, ValueError):
        return True
    return not bool(ledger.get("elbo", ledger["loss"]).isfinite())


@contextmanager
def broken_down(trainer: Trainer) -> Iterator[None]:
    """Raises a TrainingError where weights that ran away make an operation fail."""
    try:
        yield
    except PyroMivaeError:
        raise
    except (RuntimeError, ValueError) as error:
        _check_weights(trainer, error)
        try:
            trainer.check_pair()
        except SiteError as found:
            told = str(found).splitlines()[0].rstrip(":")
            raise TrainingError(
                f"after step {trainer.step} {told}; if numbers ran away, {REMEDY}"
            ) from error
        raise


def _check_weights(trainer: Trainer, cause: Exception | None = None) -> None:
    wrong = broken_weights(trainer.vae)
    if wrong:
        others = f" and {len(wrong) - 1} other tensors" if len(wrong) > 1 else ""
        raise TrainingError(
            f"weights are not finite after step {trainer.step} ({wrong[0]}{others}); {REMEDY}"
        ) from cause


def _evaluated(trainer: Trainer) -> dict[str, Tensor]:
    """Returns the ledger of a batch, summed over it, without a step."""
    with torch.no_grad(), trainer.evaluating(), pyro.validation_enabled(False):
        x = trainer.example(trainer.batch_sizes[0])
        trainer.objective.differentiable_loss(trainer.vae.model, trainer.vae.guide, x)
    return {name: value.detach() for name, value in trainer.objective.ledger.items()}
