"""Checkpoints: plain tensors and numbers, read with ``weights_only=True``."""

from __future__ import annotations

import pickle
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from pyro_mivae.errors import RunError
from pyro_mivae.training.files import atomic_path

Checkpoint = dict[str, Any]


def rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Takes the state of torch's global random numbers, and of the device's.

    Args:
        device: The device that is trained on.

    Returns:
        The states by kind of device, as CPU tensors.
    """
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_rng_state(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Puts torch's global random numbers where they stood.

    A run that moves to another kind of device goes on with other random numbers there.

    Args:
        states: What `rng_state` returned.
        device: The device that is trained on.
    """
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def detached_copy(state: Checkpoint) -> Checkpoint:
    """Copies a state so that later training leaves it as it is.

    Args:
        state: Nested dictionaries and lists of tensors and numbers.

    Returns:
        A deep copy. A tensor that is a part of another is copied without the rest of it.
    """
    copied: Checkpoint = _copied(state)
    return copied


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def write_checkpoint(path: Path, state: Checkpoint) -> None:
    """Writes a checkpoint; the one that it replaces stays until all is written.

    Args:
        path: The file.
        state: Nested dictionaries and lists of tensors and numbers.
    """
    with atomic_path(path) as scratch:
        torch.save(state, scratch)


def read_checkpoint(
    path: str | Path, needed: Collection[str] = ("weights", "epoch", "step")
) -> Checkpoint:
    """Reads a checkpoint onto the CPU, running no code from it.

    Args:
        path: The file.
        needed: The keys that it must have.

    Returns:
        ``weights`` (the variant's ``state_dict``), ``optimiser``, ``objective``, ``rng``,
        ``shuffle``, ``epoch``, ``step``, ``finished``, ``best`` (early stopping; may be None),
        ``options`` (of `fit`, by which the run was started).

    Raises:
        RunError: If it cannot be read.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise RunError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise RunError(
            f"cannot read the checkpoint {path}: it is damaged, or holds more than plain tensors"
        ) from error
    if not isinstance(state, dict) or not set(needed) <= state.keys():
        raise RunError(f"{path} is no checkpoint; allowed is a file that fit or save wrote")
    return state
