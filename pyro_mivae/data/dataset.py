"""Data sets as tensors, split once into a training and a test part."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_mivae.arguments import Given, checked, checker, floats, integers, several, whole
from pyro_mivae.errors import DataError, OptionError, ShapeError
from pyro_mivae.inputs import clamp_rounding, fingerprint

TEST_FRACTION = 0.2
FINGERPRINTS = ("training images", "test images", "labels", "factors")
CONDITION = "condition"  # fingerprint of data that have one
LARGEST_SIDE = 2**14
AT_ONCE = 4096  # images resized together
SHOWN = 10  # images in a notebook
SEED = whole(least=0, most=2**32 - 1)


@checker
def image_sides(given: Given) -> tuple[int, int]:
    """Height and width, or one number for both; returned as a tuple of two."""
    value = given.value if isinstance(given.value, Iterable) else [given.value] * 2
    sides = several(whole(least=1, most=LARGEST_SIDE))(given.name, value)
    if len(sides) != 2:
        raise OptionError(f"{given.name} holds {len(sides)} numbers; give height and width")
    return sides[0], sides[1]


@dataclass(frozen=True, repr=False)
class Dataset:
    """Images or other data, and labels, split into a training and a test part.

    Attributes:
        name: Name of a built-in set, or of the file or folder.
        x_train: Training images, float32 in [0, 1], shape ``(N, C, H, W)``, or other data as
            they are, ``(N, *data_shape)``. If ``binarize`` is ``"dynamic"``, images are grey: give
            the protocol to `fit` too, which draws each batch.
        y_train: Their labels, int64 indices into ``class_names``, shape ``(N,)``, or None.
        x_test: Test part, shape ``(M, *data_shape)``; with ``"dynamic"`` one fixed draw.
        y_test: Their labels, shape ``(M,)``, or None.
        class_names: A name for each label; empty if there are none.
        factors_train: Known factors of the training images, integers from 0, shape ``(N, F)``, or
            None.
        factors_test: Factors of the test images, shape ``(M, F)``, or None.
        factor_names: A name for each factor; empty if there are none.
        binarize: Protocol of the pixels, see `binarize`.
        column_names: A name for each column of a table; empty if there are none.
        given_train: Condition of each training datum, float32 ``(N, *given_shape)``, or labels,
            int64 ``(N,)``; None without.
        given_test: Condition of each datum of the test part, or None.
    """

    name: str
    x_train: Tensor
    y_train: Tensor | None
    x_test: Tensor
    y_test: Tensor | None
    class_names: tuple[str, ...] = ()
    factors_train: Tensor | None = None
    factors_test: Tensor | None = None
    factor_names: tuple[str, ...] = ()
    binarize: str = "none"
    column_names: tuple[str, ...] = ()
    given_train: Tensor | None = None
    given_test: Tensor | None = None

    def __repr__(self) -> str:
        parts = f"{len(self.x_train):,} training and {len(self.x_test):,} test data"
        classes = f", {len(self.class_names)} classes" if self.class_names else ""
        return f"Dataset({self.title}: {parts} of shape {self.data_shape}{classes})"

    def _repr_html_(self) -> str:
        """The text and, of images, the first training image of each class."""
        from torchvision.utils import save_image

        told = f"<pre>{html.escape(repr(self))}</pre>"
        if len(self.data_shape) != 3 or self.data_shape[0] not in (1, 3):
            return told
        labels = torch.arange(SHOWN) if self.y_train is None else self.y_train
        classes = [(labels == k).nonzero()[:1, 0] for k in range(SHOWN)]
        images = self.x_train[torch.cat(classes)[: len(self.x_train)]]
        side = max(self.data_shape)
        shrink, enlarge = math.ceil(side / 128), math.ceil(64 / side)
        images = F.interpolate(images[..., ::shrink, ::shrink], scale_factor=enlarge)
        beyond = bool((images.clamp(0, 1) != images).any())
        png, how = io.BytesIO(), {"nrow": SHOWN, "pad_value": 1.0, "normalize": beyond}
        save_image(images, png, "png", **how)
        content = base64.b64encode(png.getvalue()).decode()
        return f'{told}<img alt="training images" src="data:image/png;base64,{content}">'

    @property
    def title(self) -> str:
        """The name, with the protocol that made its pixels binary."""
        return self.name if self.binarize == "none" else f"{self.name}, binarize {self.binarize}"

    @property
    def data_shape(self) -> tuple[int, ...]:
        """Shape of one datum; for images ``(C, H, W)``."""
        return tuple(self.x_train.shape[1:])

    @property
    def given_shape(self) -> tuple[int, ...] | None:
        """Shape of a condition as models read it, for labels ``(K,)``; None if there is none."""
        if self.given_train is None or self.given_test is None:
            return None
        if self.given_train.dim() > 1:
            return tuple(self.given_train.shape[1:])
        return (1 + int(torch.cat([self.given_train, self.given_test]).max()),)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Digests of the images, labels and factors of both parts, and of a condition."""
        pairs = (self.y_train, self.y_test), (self.factors_train, self.factors_test)
        joined = [None if a is None or b is None else torch.cat([a, b]) for a, b in pairs]
        parts = (self.x_train, self.x_test, *joined)
        found = dict(zip(FINGERPRINTS, map(fingerprint, parts), strict=True))
        if self.given_train is not None and self.given_test is not None:
            found[CONDITION] = fingerprint(torch.cat([self.given_train, self.given_test]))
        return found


@dataclass(frozen=True)
class RawImages:
    """Images before the split, with the fields of a `Dataset`."""

    name: str
    images: Tensor  # (N, C, H, W), or data of another shape
    labels: Tensor | None = None
    class_names: tuple[str, ...] = ()
    num_train: int | None = None  # images at the beginning that are for training; None: to split
    factors: Tensor | None = None
    factor_names: tuple[str, ...] = ()
    column_names: tuple[str, ...] = ()


@checked(count=whole(), labels=integers("count"), seed=SEED)
def split_indices(
    count: int, labels: Tensor | None = None, *, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Splits ``count`` images 80/20, with each label's images in the same proportion.

    Args:
        count: Number of images, at least 2.
        labels: int64, shape ``(count,)``; None splits all images as one class.
        seed: Seed of the split, not of a training run, so that all runs share one split.

    Returns:
        Indices of the training and of the test images, each sorted; neither is empty.

    Raises:
        DataError: If there are fewer than 2 images.
        ShapeError: If there is not one label per image.

    Example:
        >>> train, test = split_indices(10)
        >>> len(train), len(test)
        (8, 2)
    """
    if count < 2:
        raise DataError(f"the data set holds {count} image(s); at least 2 are needed to split it")
    if labels is not None and len(labels) != count:
        raise ShapeError(f"{len(labels)} labels for {count} images; give one per image")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(count, generator=generator)
    groups = [order] if labels is None else [order[labels[order] == k] for k in labels.unique()]
    test = torch.cat([group[: round(TEST_FRACTION * len(group))] for group in groups])
    if len(test) == 0:  # classes of one or two images
        test = max(groups, key=len)[:1]
    is_test = torch.zeros(count, dtype=torch.bool)
    is_test[test] = True
    return (~is_test).nonzero()[:, 0], is_test.nonzero()[:, 0]


@checked(labels=integers("n"), count=whole(least=1), seed=SEED)
def keep_labels(labels: Tensor, count: int, *, seed: int = 0) -> Tensor:
    """Keeps the labels of some data, equally many of each class; the others become -1.

    Args:
        labels: Integers from 0, shape ``(n,)``.
        count: Number of labels to keep. If the classes do not divide it, some classes, chosen at
            random, have one more.
        seed: Seed of the choice.

    Returns:
        The kept labels, and -1 elsewhere, shape ``(n,)``, as `fit` takes them.

    Raises:
        OptionError: If a class has too few data.

    Example:
        >>> keep_labels(torch.tensor([0, 0, 1, 1]), 2).sort().values
        tensor([-1, -1,  0,  1])
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    classes = labels.unique()
    each, more = divmod(count, len(classes))
    larger = torch.randperm(len(classes), generator=generator)[:more].tolist()
    kept = torch.full_like(labels, -1)
    for number, label in enumerate(classes):
        rows = order[labels[order] == label]
        wanted = each + (number in larger)
        if wanted > len(rows):
            raise OptionError(
                f"{count} labels are asked for, so {wanted} of class {int(label)}, which has "
                f"{len(rows)}; ask for fewer, or give all labels as they are"
            )
        kept[rows[:wanted]] = label
    return kept


@checked(images=floats("n", "c", "h", "w", finite=False), size=image_sides())
def resize_images(images: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Resizes by antialiased bilinear interpolation.

    Args:
        images: In [0, 1], shape ``(N, C, H, W)``.
        size: New height and width, or one number for both.

    Returns:
        In [0, 1], shape ``(N, C, *size)``; ``images`` itself if it has that size.

    Raises:
        DataError: If there is no memory for them.

    Example:
        >>> resize_images(torch.rand(3, 1, 8, 8), (4, 4)).shape
        torch.Size([3, 1, 4, 4])
    """
    sides = cast("tuple[int, int]", size)  # as the check returns it
    if images.shape[-2:] == sides:
        return images
    shape = (*images.shape[:2], *sides)
    try:
        resized = images.new_empty(shape)
    except RuntimeError as error:
        raise DataError(f"no memory for images of shape {shape}: {told(error)}") from error
    dtype = torch.promote_types(images.dtype, torch.float32)  # torch resizes no float16 on a CPU
    for part, into in zip(images.split(AT_ONCE), resized.split(AT_ONCE), strict=True):
        into.copy_(F.interpolate(part.to(dtype), size=sides, mode="bilinear", antialias=True))
    return resized.clamp_(0.0, 1.0)


def in_range(pixels: Tensor, where: str) -> Tensor:
    """Floating-point pixels, clamped to [0, 1] within rounding; DataError for others."""
    if not all(map(math.isfinite, map(float, pixels.aminmax()))):
        bad = int((~pixels.isfinite()).sum())
        raise DataError(f"{where} has {bad} pixels that are NaN or infinite; remove or fix them")
    pixels = clamp_rounding(pixels, (0.0, 1.0), pixels.dtype)
    low, high = map(float, pixels.aminmax())
    if low < 0 or high > 1:
        raise DataError(
            f"{where} has pixels from {low:.8g} to {high:.8g}; allowed are floats in [0, 1] "
            "(or uint8 from 0 to 255): rescale them"
        )
    return pixels


def told(error: Exception) -> str:
    """The message of another package's error on one line, or its type if empty."""
    return " ".join(str(error).split()) or type(error).__name__


def indexed_labels(labels: Any, count: int, where: str) -> tuple[Tensor | None, tuple[str, ...]]:
    """Labels as indices ``(N,)`` and their names; None if all are equal."""
    if labels is None:
        return None, ()
    if labels.shape != (count,):
        raise DataError(f"{where} has shape {labels.shape}; allowed is ({count},), one per datum")
    if labels.dtype.kind not in "USbiu" and not is_whole(labels):
        raise DataError(f"{where} has dtype {labels.dtype}; allowed are integers or strings")
    if labels.dtype.kind == "f":
        labels = labels.astype(np.int64)
    values, codes = np.unique(labels, return_inverse=True)
    if len(values) < 2:
        return None, ()
    names = [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in values]
    return torch.from_numpy(codes.astype(np.int64)), tuple(names)


def is_whole(values: Any) -> bool:
    """Returns True for integers, and for floats that are exact whole numbers."""
    if values.dtype.kind != "f":
        return values.dtype.kind in "biu"
    return np.array_equal(values, np.round(values)) and bool((np.abs(values) < 2**53).all())
