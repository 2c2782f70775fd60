"""What is given to a training: checked, held out, and put where it is needed."""

from __future__ import annotations

import math
from typing import Any, get_args

import torch
from torch import Tensor

from pyro_mivae.engine import Means, check_precision
from pyro_mivae.errors import OptionError
from pyro_mivae.inputs import as_tensor
from pyro_mivae.training.loop import Settings, Trainer
from pyro_mivae.training.optimiser import LR_SCHEDULES
from pyro_mivae.variants.checks import check_weights

HELD_OUT = 0.1
NUM_SEEDS = 2**32
ENGINES = ("auto", *get_args(Means))


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Gives the device that a name stands for.

    Args:
        device: ``"auto"`` (CUDA if there is one, else the CPU), or what torch takes.

    Returns:
        The device.

    Raises:
        OptionError: If there is no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=device).device  # with its index
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise OptionError(
            f"device={str(device)!r} is not available here; allowed are auto, cpu"
            + (", cuda" if torch.cuda.is_available() else "")
        ) from error


def check_options(settings: Settings, validation: Any) -> None:
    """Checks every option's range.

    Args:
        settings: How to train.
        validation: What to hold out.

    Raises:
        OptionError: If one is outside.
    """
    whole = {"epochs": settings.epochs, "batch_size": settings.batch_size}
    if settings.patience is not None:
        whole["patience"] = settings.patience
    for name, count in whole.items():
        if not isinstance(count, int) or count < 1:
            raise OptionError(f"{name}={count!r}; allowed are whole numbers from 1 up")
    if not isinstance(settings.seed, int) or not 0 <= settings.seed < NUM_SEEDS:
        raise OptionError(
            f"seed={settings.seed!r}; allowed are whole numbers from 0 to {NUM_SEEDS - 1}"
        )
    positive = {"lr": settings.lr}
    if settings.clip_norm is not None:
        positive["clip_norm"] = settings.clip_norm
    for name, value in positive.items():
        if not (isinstance(value, int | float) and value > 0 and math.isfinite(value)):
            raise OptionError(f"{name}={value!r}; allowed are finite numbers above 0")
    if settings.engine not in ENGINES:
        raise OptionError(f"engine={settings.engine!r}; allowed are {', '.join(ENGINES)}")
    if settings.lr_schedule not in LR_SCHEDULES:
        allowed = ", ".join(LR_SCHEDULES)
        raise OptionError(f"lr_schedule={settings.lr_schedule!r}; allowed are {allowed}")
    if isinstance(validation, float | int) and not 0 < validation < 1:
        raise OptionError(f"validation={validation}; allowed are fractions between 0 and 1")


def check_images(vae: Any, x: Any) -> None:
    """Checks that images are one tensor or array that the variant can be trained on.

    Args:
        vae: The variant.
        x: What was given.

    Raises:
        DataError: If they are neither, are not finite, or the likelihood cannot score them.
        ShapeError: If they have another shape than the variant's.
    """
    vae.check_data(x)


def check_given(
    vae: Any,
    x: Any,
    settings: Settings,
    validation: Any,
    device: torch.device,
) -> None:
    """Checks images and options against the variant, before it is moved or run.

    Args:
        vae: The variant.
        x: Training images.
        settings: How to train.
        validation: Held-out images, or the share of ``x`` to hold out.
        device: Where to train.

    Raises:
        OptionError: If an option is out of its range, or weights are not finite.
        DataError: If images are no tensor, are not finite, or the likelihood cannot score them.
        ShapeError: If images have another shape than the variant's.
    """
    check_options(settings, validation)
    check_precision(settings.precision, vae.dtype, device, settings.engine)
    check_images(vae, x)
    check_weights(vae)
    if _is_data(validation):
        vae.check_data(validation)


def _is_data(validation: Any) -> bool:
    """Returns whether images are given, and not the share of them to hold out."""
    return validation is not None and not isinstance(validation, float | int)


def hold_out(x: Any, validation: Any, patience: int | None) -> tuple[Tensor, Tensor | None]:
    """Splits held-out images off, if that is asked for.

    Args:
        x: Training images.
        validation: Images, or a share of ``x``.
        patience: Asks for a tenth if ``validation`` does not say.

    Returns:
        The images to train on, and those held out.

    Raises:
        OptionError: If there are too few.
    """
    x = as_tensor(x)
    if _is_data(validation):
        return x, as_tensor(validation)
    if validation is None:
        if patience is None:
            return x, None
        validation = HELD_OUT
    if len(x) < 2:
        raise OptionError(f"{len(x)} image(s) given, and some are to be held out; give 2 or more")
    count = min(max(1, round(validation * len(x))), len(x) - 1)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return x[order[count:]], x[order[:count]]


def place(
    vae: Any, x: Tensor, held_out: Tensor | None, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Puts images, as `Variant.check_data` gives them, where they fit.

    On the device if they take at most half its memory, else on the CPU.

    Args:
        vae: The variant.
        x: Training images.
        held_out: Held-out images.
        device: The device.
    """
    x = vae.check_data(x)
    held_out = None if held_out is None else vae.check_data(held_out)
    size = x.dtype.itemsize * (x.numel() + (0 if held_out is None else held_out.numel()))
    if device.type == "cuda" and size > 0.5 * torch.cuda.mem_get_info(device)[0]:
        device = torch.device("cpu")
    return x.to(device), None if held_out is None else held_out.to(device)


def check_trainer(trainer: Trainer) -> None:
    """Checks that training can begin: data, options, model, guide and objective fit each other.

    Args:
        trainer: The trainer.

    Raises:
        OptionError: If an option does not go with the objective.
        SiteError: If model, guide and objective do not fit each other.
    """
    _check_patience(trainer)
    _check_pairs(trainer)
    trainer.check_pair()


def _check_patience(trainer: Trainer) -> None:
    """Checks that the loss can tell which epoch was the best.

    Raises:
        OptionError: If it cannot.
    """
    if trainer.settings.patience is not None and not trainer.objective.measures_fit:
        raise OptionError(
            f"patience={trainer.settings.patience}: the loss of {type(trainer.vae).__name__} is "
            "the sum of its players', which need not fall; leave patience out, and choose epochs"
        )


def _check_pairs(trainer: Trainer) -> None:
    """Checks that there are pairs to be had where the objective needs them.

    Raises:
        OptionError: If a batch would hold a single image.
    """
    if trainer.pairs_data and min(trainer.batch_sizes) < 2:
        raise OptionError(
            f"batch_size={trainer.settings.batch_size} for {len(trainer.x)} image(s): the "
            "objective sets each image beside others of its batch; 2 is the least, 64 and more "
            "are of use"
        )
    held_out = trainer.validation
    if trainer.pairs_data and held_out is not None and len(held_out) < 2:
        raise OptionError(
            "one image is held out, and the objective sets each beside others; hold out 2 or more"
        )
