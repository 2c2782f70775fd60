"""Device, threads, images and batches of a training."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from pyro_mivae.arguments import either, instance, number, text
from pyro_mivae.data.binarize import settled_pixels, training_pixels
from pyro_mivae.errors import OptionError, PyroMivaeWarning
from pyro_mivae.inputs import fingerprint
from pyro_mivae.terms import ENOUGH_DATA
from pyro_mivae.training.options import TrainingOptions
from pyro_mivae.variants.checks import given_labels, take_labels

HELD_OUT = 0.1
SMALL_STEP = 50_000_000  # parameters times images per step
Placed = tuple[dict[str, Tensor], list[Tensor]]
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)
DEVICE = either(text(), instance(torch.device, example="'cpu'"))


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Returns the device that a name stands for."""
    has_cuda = torch.cuda.is_available()
    cuda = f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda"
    wanted = str(device) if device != "auto" else cuda if has_cuda else "cpu"
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


def cuda_devices(device: torch.device) -> list[torch.device]:
    """Returns the CUDA devices that a seed may change, as ``torch.random.fork_rng`` takes them."""
    if torch.cuda.is_initialized():
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [device] if device.type == "cuda" else []


@contextmanager
def suitable_threads(module: nn.Module, batch_size: int) -> Iterator[None]:
    """Runs small steps on one thread, and restores the number of threads afterwards.

    Threads that share a small step mostly wait for each other. On a busy machine, or in a
    container with a share of the cores, each also waits for its time slice: steps of a small
    network have taken 200 times as long on two threads.
    """
    size = sum(parameter.numel() for parameter in module.parameters())
    convolves = any(isinstance(part, CONVOLUTIONS) for part in module.modules())
    before = torch.get_num_threads()
    if size * batch_size < SMALL_STEP and not convolves:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Images:
    """Training images, with held-out images and their condition, or the share to hold out."""

    x: Tensor
    validation: tuple[Tensor, ...] | float | None
    binarize: str
    labels: Tensor | None = None  # -1 for none
    given: Tensor | None = None

    @classmethod
    def checked(
        cls,
        vae: Any,
        x: Any,
        validation: Any,
        options: TrainingOptions,
        labels: Any = None,
        given: Any = None,
    ) -> Images:
        """Checks images; with patience and no ``validation`` a tenth of them is held out."""
        patience, binarize = options.patience, options.binarize
        x, *others = vae.arguments(x, given)
        x, given = training_pixels(x, binarize), next(iter(others), None)
        if labels is not None:
            take_labels(vae, vae.objective(), None)
            labels = given_labels(vae, labels, x)
        misfit = vae.likelihood.misfit(settled_pixels(x[:1], binarize))
        if misfit and binarize != "none":
            warnings.warn(f"binarize={binarize!r}: {misfit}", PyroMivaeWarning, stacklevel=2)
        if validation is None:
            validation = None if patience is None else HELD_OUT
        elif isinstance(validation, Real):
            validation = number(above=0, below=1)("validation", validation)
        else:
            held_out, *others = vae.arguments(*_with_condition(vae, validation))
            parts = settled_pixels(held_out, binarize), *others
            return cls(x, parts, binarize, labels, given)
        if validation is not None and len(x) < 2:
            raise OptionError(
                f"{len(x)} image(s) given, of which some are held out; give 2 or more"
            )
        return cls(x, validation, binarize, labels, given)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Digests of the images and labels."""
        held_out = self.validation
        told = str(held_out)
        if isinstance(held_out, tuple):
            told = " ".join(map(fingerprint, held_out))
        return {
            "training images": fingerprint(self.x),
            "validation": told,
            "labels": fingerprint(self.labels),
            "condition": fingerprint(self.given),
        }

    def place(self, device: torch.device) -> Placed:
        """Splits off held-out images, and moves all of them to a device with enough memory.

        They go to the device if they need at most a third of its free memory, otherwise to the
        CPU: recorded steps make a reordered copy, which needs about the same amount again. Images
        without a label are held out first. Returns the training data by name, and the held-out
        images, if any, with their condition.
        """
        parts = {"x": self.x, "given": self.given, "labels": self.labels}
        data = {name: part for name, part in parts.items() if part is not None}
        held_out: tuple[Tensor, ...] = ()
        if isinstance(self.validation, tuple):
            held_out = self.validation
        elif self.validation is not None:
            count = min(max(1, round(self.validation * len(self.x))), len(self.x) - 1)
            order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(0))
            if self.labels is not None:
                order = order[(self.labels[order] >= 0).int().argsort(stable=True)]
            taken = order[:count]
            held_out = (settled_pixels(self.x[taken], self.binarize),)
            held_out += () if self.given is None else (self.given[taken],)
            data = {name: value[order[count:]] for name, value in data.items()}
        size = sum(part.nbytes for part in (*data.values(), *held_out))
        if device.type == "cuda" and size > torch.cuda.mem_get_info(device)[0] / 3:
            device = torch.device("cpu")
        placed = {name: value.to(device) for name, value in data.items()}
        return placed, [part.to(device) for part in held_out]


def _with_condition(vae: Any, validation: Any) -> tuple[Any, ...]:
    """Takes held-out data, or a pair of them and their condition, apart."""
    if vae.given_shape is None:
        return (validation,)
    if not isinstance(validation, tuple) or len(validation) != 2:
        raise OptionError(
            "validation holds no condition, which the variant needs; give a pair (x, given), or "
            "the fraction of the data to hold out"
        )
    return validation


def batch_sizes(count: int, batch_size: int, needs_batch: bool, processes: int = 1) -> list[int]:
    """Divides data into batches; a last one that is too small joins the batch before it.

    Several processes need two data each.

    Example:
        >>> batch_sizes(270, 128, False), batch_sizes(270, 128, True)
        ([128, 128, 14], [128, 142])
    """
    whole, rest = divmod(count, batch_size)
    sizes = [batch_size] * whole + [rest] * bool(rest)
    least = max(ENOUGH_DATA * needs_batch, 2 * processes * (processes > 1))
    if whole and 0 < rest < least:
        last = sizes.pop()
        sizes[-1] += last
    return sizes
