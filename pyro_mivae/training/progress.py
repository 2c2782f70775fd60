"""What is shown of a training while it runs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pyro_mivae.training.loop import Trainer

logger = logging.getLogger(__name__)


def progress_bar(trainers: Sequence[Trainer], *, enabled: bool) -> Any:
    """Makes a bar of all their steps on stderr."""
    from tqdm.std import tqdm

    return tqdm(
        total=sum(trainer.num_steps for trainer in trainers),
        initial=sum(trainer.step for trainer in trainers),
        unit="step",
        disable=not enabled,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else 5.0,
    )


def tell_batches(trainer: Trainer, bar: Any) -> None:
    """Says so where a last batch was too small to stand alone."""
    batch_size = trainer.settings.batch_size
    if max(trainer.batch_sizes) > batch_size:
        text = (
            f"the last {len(trainer.x) % batch_size} images join the batch before them: "
            "the objective sets the images of a batch beside each other, and so few say little"
        )
        logger.info(text)
        if not bar.disable:
            bar.write(text, file=sys.stderr)


def show_row(bar: Any, row: Mapping[str, float]) -> None:
    """Shows what an epoch came to."""
    shown = [f"{key} {row[key]:.2f}" for key in ("loss", "elbo") if key in row]
    bar.set_postfix_str(", ".join(shown), False)
