"""Arguments of a training: checked, held out, and put where they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from pyro_mivae.arguments import either, instance, number, text
from pyro_mivae.engine import check_precision
from pyro_mivae.errors import OptionError
from pyro_mivae.inputs import fingerprint
from pyro_mivae.training.loop import Trainer
from pyro_mivae.training.options import TrainingOptions
from pyro_mivae.variants.checks import check_weights

HELD_OUT = 0.1

DEVICE = either(text(), instance(torch.device, example="'cpu'"))


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Gives the device that a name stands for."""
    has_cuda = torch.cuda.is_available()
    wanted = str(device) if device != "auto" else "cuda" if has_cuda else "cpu"
    cause: Exception | None = None
    try:
        found = torch.empty(0, device=wanted).device
        if found.type != "meta":  # its tensors hold no values
            return found
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        cause = error
    names = [f"cuda:{index}" for index in range(torch.cuda.device_count() if has_cuda else 0)]
    failed = "cuda:0" if wanted == "cuda" else wanted
    allowed = [name for name in ("auto", "cpu", *names) if name != failed]
    if failed in names[:1]:
        allowed.remove("auto")  # it stands for the device that fails
    raise OptionError(
        f"device={str(device)!r} is not available here; allowed are {', '.join(allowed)}"
    ) from cause


@dataclass(frozen=True)
class Images:
    """Training images, and the images or the share of them to hold out, as they were given.

    Attributes:
        x: Training images, as `Variant.check_data` returns them.
        validation: Held-out images, likewise; or the share of ``x`` to hold out; or None.
    """

    x: Tensor
    validation: Tensor | float | None

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """What tells these images from others."""
        held_out = self.validation
        told = fingerprint(held_out) if isinstance(held_out, Tensor) else str(held_out)
        return {"training images": fingerprint(self.x), "validation": told}

    def equals(self, other: Images) -> bool:
        """Returns whether two are the same, bit for bit."""
        pairs = ((self.x, other.x), (self.validation, other.validation))
        return all(
            a is b
            or (isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype)
            and torch.equal(a, b)
            or (not isinstance(a, Tensor) and a == b)
            for a, b in pairs
        )

    def place(self, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Splits held-out images off, and puts all where they fit.

        On the device if they take at most a third of its free memory, else on the CPU: recorded
        steps read them arranged, which takes as much again.
        """
        x, held_out = _split(self.x, self.validation)
        size = x.dtype.itemsize * (x.numel() + (0 if held_out is None else held_out.numel()))
        if device.type == "cuda" and size > torch.cuda.mem_get_info(device)[0] / 3:
            device = torch.device("cpu")
        return x.to(device), None if held_out is None else held_out.to(device)


def check_given(
    vae: Any,
    x: Any,
    settings: TrainingOptions,
    validation: Any,
    device: torch.device,
) -> Images:
    """Checks images and options against the variant, before it is moved or run."""
    if isinstance(validation, Real):
        number(above=0, below=1)("validation", validation)
    check_precision(settings.precision, vae.dtype, device, settings.engine)
    x = vae.check_data(x)
    check_weights(vae)
    if validation is None:
        validation = None if settings.patience is None else HELD_OUT
    elif not isinstance(validation, Real):
        return Images(x, vae.check_data(validation))
    if validation is not None and len(x) < 2:
        raise OptionError(f"{len(x)} image(s) given, and some are to be held out; give 2 or more")
    return Images(x, validation)


def _split(x: Tensor, validation: Tensor | float | None) -> tuple[Tensor, Tensor | None]:
    if validation is None or isinstance(validation, Tensor):
        return x, validation
    count = min(max(1, round(validation * len(x))), len(x) - 1)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return x[order[count:]], x[order[:count]]


def check_trainer(trainer: Trainer) -> None:
    """Checks that training can begin: data, options, model, guide and objective fit each other."""
    _check_patience(trainer)
    _check_pairs(trainer)
    trainer.check_pair()


def _check_patience(trainer: Trainer) -> None:
    """Checks that the loss can tell which epoch was the best."""
    if trainer.settings.patience is not None and not trainer.objective.measures_fit:
        raise OptionError(
            f"patience={trainer.settings.patience}: the loss of {type(trainer.vae).__name__} is "
            "the sum of its players', which need not fall; leave patience out, and choose epochs"
        )


def _check_pairs(trainer: Trainer) -> None:
    """Checks that there are pairs to be had where the objective needs them."""
    if trainer.needs_batch and min(trainer.batch_sizes) < 2:
        raise OptionError(
            f"batch_size={trainer.settings.batch_size} for {len(trainer.x)} image(s): the "
            "objective sets each image beside others of its batch; 2 is the least, 64 and more "
            "are of use"
        )
    held_out = trainer.validation
    if trainer.needs_batch and held_out is not None and len(held_out.images) < 2:
        raise OptionError(
            "one image is held out, and the objective sets each beside others; hold out 2 or more"
        )
