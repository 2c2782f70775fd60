"""Conversion of data and labels (tensors, NumPy arrays) for models, and their digests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset

from pyro_mivae.errors import DataError, OptionError, ShapeError
from pyro_mivae.memory import free_memory

READ_AT_ONCE = 256  # items of a Dataset
ROUNDING = 1e-5  # distance from its interval at which a value counts as rounded


def as_tensor(values: Any, name: str = "x") -> Tensor:
    """Returns a tensor, an array, or the items of a ``Dataset`` or ``DataLoader`` as a tensor."""
    if isinstance(values, Dataset | DataLoader):
        values = stacked(values, name)
    if isinstance(values, Tensor):
        if values.is_complex():
            raise DataError(f"{name} is complex; give real numbers")
        return values
    if not hasattr(values, "__array__"):
        raise DataError(
            f"a {type(values).__name__} given as {name}; give all of it as one tensor or NumPy "
            "array, by torch.stack or numpy.stack for a list, or as a Dataset or DataLoader of "
            "torch: the batches are made here"
        )
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} has dtype {array.dtype}; allowed are numbers and booleans")
    dtype = array.dtype.newbyteorder("=") if array.dtype.itemsize <= 8 else np.dtype(np.float64)
    whole = np.require(array, dtype, ["C", "W"])
    return torch.from_numpy(whole)


def stacked(values: Any, name: str = "x") -> Tensor:
    """Reads all items of a ``Dataset`` or ``DataLoader``, in their order, into one tensor.

    Of an item that is a tuple, such as data with a label, the first part counts. A ``DataLoader``
    that shuffles is read in the order of its ``Dataset``, so that labels stay beside their data.

    Raises:
        DataError: If the items are no tensors of one shape, or do not fit into memory.
    """
    if isinstance(values, TensorDataset):
        return values.tensors[0]
    loader = values if isinstance(values, DataLoader) else DataLoader(values, READ_AT_ONCE)
    sampler = loader.sampler
    if isinstance(sampler, RandomSampler) and not sampler.replacement:
        if sampler.num_samples == len(loader.dataset):  # type: ignore[arg-type]
            loader = DataLoader(loader.dataset, READ_AT_ONCE, collate_fn=loader.collate_fn)
    parts: list[Tensor] = []
    size, free = 0, free_memory()
    try:
        for batch in loader:
            part = batch[0] if isinstance(batch, tuple | list) else batch
            if not isinstance(part, Tensor):
                raise DataError(
                    f"{name} yields items of type {type(part).__name__}; let them be tensors, or "
                    "tuples that begin with one"
                )
            size += part.nbytes
            if 2 * size > free:  # the parts, and the whole
                raise DataError(
                    f"{name} does not fit into memory: {size / 1e9:,.1f} GB read, twice that "
                    f"needed, {free / 1e9:,.1f} GB free; give a torch.utils.data.Subset, or train "
                    "by mi.SVI, batch by batch"
                )
            parts.append(part)
        return torch.cat(parts)
    except DataError:
        raise
    except Exception as error:  # the user's code may raise anything
        told = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(
            f"{name}, a {type(values).__name__}, cannot be read as one tensor: {told}"
        ) from error


def as_condition(given: Any, shape: tuple[int, ...] | None, n: int) -> Tensor | None:
    """Returns the condition of ``n`` data as a tensor ``(n, *shape)``; None for a model without.

    Integers of shape ``(n,)`` are labels, which become one-hot vectors; one integer is the label
    of all data.
    """
    if shape is None:
        if given is not None:
            raise OptionError(
                "given is passed, but the model has no condition; build it with given_shape, the "
                "shape of one condition, or (K,) for labels from 0 to K - 1"
            )
        return None
    if given is None:
        raise OptionError(
            f"given is missing; the model was built with given_shape={shape}: pass the condition "
            "of each datum"
        )
    values = torch.tensor(given) if type(given) is int else as_tensor(given, "given")
    if values.dim() <= 1 and len(shape) == 1 and not values.is_floating_point():
        values = _one_hot(values.long(), shape[0], n)
    if tuple(values.shape) != (n, *shape):
        labels = f", or labels, integers of shape ({n},)" if len(shape) == 1 else ""
        raise ShapeError(
            f"given has dtype {values.dtype} and shape {tuple(values.shape)}; allowed is "
            f"{(n, *shape)}, one condition for each of {n} data{labels}"
        )
    if values.is_floating_point() and not bool(values.isfinite().all()):
        raise DataError("given contains NaN or infinity; allowed are finite numbers")
    return values


def _one_hot(labels: Tensor, count: int, n: int) -> Tensor:
    if labels.dim() and len(labels) != n:
        raise ShapeError(f"given holds {len(labels)} labels for {n} data; give one for each")
    least, most = (int(end) for end in labels.aminmax()) if labels.numel() else (0, 0)
    if least < 0 or most >= count:
        raise DataError(
            f"the labels in given range over {least} to {most}; allowed are 0 to {count - 1}: "
            f"build the model with given_shape=({most + 1},), or give numbers of shape (n, 1)"
        )
    return one_hot(labels.expand(n), count)


def clamp_rounding(x: Tensor, interval: tuple[float, float], given: torch.dtype) -> Tensor:
    """Moves values to the ends of an interval if they exceed it by a rounding error."""
    low, high = interval
    least, most = map(float, x.aminmax())
    if low <= least and most <= high:
        return x
    slack = max(ROUNDING, torch.finfo(given).eps) if given.is_floating_point else 0.0
    return x.clamp(low, high) if low - slack <= least and most <= high + slack else x


def fingerprint_all(weights: Mapping[str, Tensor]) -> str:
    """Returns a digest of named tensors."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in weights.items():
        digest.update(f"{name} {fingerprint(value)}\n".encode())
    return digest.hexdigest()


def as_labels(given: Sequence[Any], names: Sequence[str]) -> list[Tensor | None]:
    """Returns sets of labels as integers; strings are numbered over all sets."""
    sets = [None if v is None else _labels(v, name) for v, name in zip(given, names, strict=True)]
    strings = [v.ravel() for v in sets if isinstance(v, np.ndarray)]
    if strings and any(isinstance(v, Tensor) for v in sets):
        raise DataError(f"{' and '.join(names)}: give integers in all of them, or strings in all")
    known = np.unique(np.concatenate(strings)) if strings else np.array([])
    return [
        torch.from_numpy(np.searchsorted(known, v)) if isinstance(v, np.ndarray) else v
        for v in sets
    ]


def _labels(labels: Any, name: str) -> Tensor | np.ndarray[Any, Any]:
    """Integers as a tensor, strings as an array."""
    if isinstance(labels, Dataset | DataLoader):
        raise DataError(
            f"{name}: a {type(labels).__name__} given; give the labels alone, as one tensor or "
            "array in the order of the data"
        )
    if not isinstance(labels, Tensor):
        try:
            labels = np.asarray(labels)
        except ValueError as error:  # rows of several lengths
            raise DataError(f"{name}: give one label per item ({error})") from error
        if labels.dtype == object and all(isinstance(label, str) for label in labels.ravel()):
            labels = labels.astype(str)
        if labels.dtype.kind in "US":
            return labels.astype(str)
    values = as_tensor(labels, name)
    if values.is_floating_point():
        raise DataError(
            f"{name} have dtype {values.dtype}; allowed are integers, booleans or strings: "
            "for whole numbers give labels.long() of a tensor, labels.astype(int) of an array"
        )
    return values.long()


def fingerprint(values: Tensor | None) -> str:
    """Returns a digest of a tensor's type, shape and content; takes seconds per GB."""
    if values is None:
        return "none"
    plain = values.detach().cpu().contiguous()
    digest = hashlib.blake2b(f"{plain.dtype} {tuple(plain.shape)}".encode(), digest_size=16)
    digest.update(plain.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
