"""Checks of a training before its first step."""

from __future__ import annotations

import math

import pyro
import torch

from pyro_mivae.elbo import RelaxedCategoricalELBO, SampledCategoricalELBO
from pyro_mivae.engine.steps import Engine
from pyro_mivae.errors import OptionError, PyroMivaeError, SiteError
from pyro_mivae.memory import most_free
from pyro_mivae.terms import ENOUGH_DATA, PairedTerm
from pyro_mivae.training.together import check_divisible
from pyro_mivae.training.trainer import Trainer
from pyro_mivae.variants.checks import check_networks, check_store


def check_trainer(trainer: Trainer) -> None:
    """Checks that data, options, model, guide and objective match."""
    options, vae, count = trainer.options, trainer.vae, len(trainer.x)
    check_networks(vae, trainer.objective.networks)
    if options.patience is not None and not trainer.objective.measures_fit:
        raise OptionError(
            f"patience={options.patience}: the loss of {type(vae).__name__} is the sum of its "
            "players' losses, which need not fall; leave patience out, and choose epochs"
        )
    if trainer.needs_batch and min(trainer.batch_sizes) < 2:
        raise OptionError(
            f"batch_size={options.batch_size} for {count} image(s): the objective compares the "
            "images of a batch; give 2 or more, best 64 or more"
        )
    held_out = trainer.held_out
    if trainer.needs_batch and held_out and len(held_out[0]) < 2:
        raise OptionError(
            "one image is held out, but the objective compares several; hold out 2 or more"
        )
    check_configurations(trainer)
    check_pair(trainer)
    if trainer.ranks.size > 1:
        _check_ranks(trainer)
    if options.precision == "bf16":  # bf16 needs a staged step
        training = vae.training
        vae.train()
        try:
            with pyro.validation_enabled(False):
                engine = Engine(trainer.program(), "staged", options.precision)
                engine.step(*trainer.batches.example(trainer.batch_sizes[0]))
        finally:
            vae.train(training)


def check_configurations(trainer: Trainer) -> None:
    """Refuses an exact sum over categories whose decoded data alone do not fit into memory."""
    vae, rows = trainer.vae, max(trainer.batch_sizes)
    if isinstance(trainer.objective, SampledCategoricalELBO | RelaxedCategoricalELBO):
        return
    count = math.prod(vae.categories.values())
    numbers = count * rows * math.prod(vae.data_shape) * vae.likelihood.num_outputs
    need = 2 * numbers * vae.dtype.itemsize  # with their gradients
    free = most_free(need)
    if need > free and vae.categories:
        sizes = " * ".join(map(str, vae.categories.values()))
        raise OptionError(
            f"the exact sum over {sizes} = {count:,} categories decodes as many codes of each of "
            f"{rows} data, which need {need / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free: "
            "give CatVAE or InfoCatVAE categorical='sample', which decodes two, a smaller "
            "batch_size, or fewer categories"
        )


def check_pair(trainer: Trainer) -> None:
    """Evaluates the objective once with all checks of Pyro and torch.

    Random numbers and running statistics of networks are restored.
    """
    size = min(ENOUGH_DATA if trainer.needs_batch else 2, len(trainer.x))
    try:
        with trainer.evaluating(), pyro.validation_enabled(True):
            trainer.loss(*trainer.batches.example(size))
    except PyroMivaeError:
        raise
    except Exception as error:
        raise SiteError(
            f"model and guide fail on {size} images: {type(error).__name__}: {error}"
        ) from error
    check_store(trainer.vae)


def _check_ranks(trainer: Trainer) -> None:
    """Checks that several processes can divide the batches."""
    processes, batch_size = trainer.ranks.size, trainer.options.batch_size
    counts = {"batch_size": batch_size, "number of training data": len(trainer.x)}
    if trainer.held_out:
        counts["number of held-out data"] = len(trainer.held_out[0])
    for name, count in counts.items():
        if count < 2 * processes:
            raise OptionError(
                f"{name}: {count}, divided among {processes} processes; give two data or more to "
                "each, or start fewer processes"
            )
    names = list(trainer.batches.data)[1:]
    for rows in (2, 3):  # a plate of something else may have one of these sizes
        x, *others = trainer.batches.take(torch.arange(rows))
        given = [part for name, part in zip(names, others) if name == "given"]
        with torch.no_grad(), trainer.evaluating():
            check_divisible(trainer.vae, [trainer.batches.settled(x), *given], processes)
    for term in getattr(trainer.objective, "terms", ()):
        if term.needs_batch and not isinstance(term, PairedTerm):
            raise OptionError(
                f"{type(term).__name__} compares the data of a batch, and {processes} processes "
                "hold a part of it each; derive it from PairedTerm, whose codes are those of the "
                "whole batch, or train in one process"
            )
