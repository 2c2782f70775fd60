"""Models in a file: what they were built with, as far as that is plain, and their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pyro_mivae.arguments import checked, flag, path
from pyro_mivae.errors import OptionError, PyroMivaeError, RunError
from pyro_mivae.runs.run import open_run
from pyro_mivae.schedules import cyclic_warmup, linear_warmup
from pyro_mivae.training import (
    Identity,
    describe_model,
    differences,
    has_checkpoint,
    in_words,
    read_archive,
    read_checkpoint,
    versions,
    write_archive,
)
from pyro_mivae.training.checkpoint import kept_weights
from pyro_mivae.variants import VARIANT, VARIANTS, Variant
from pyro_mivae.variants.checks import check_weights

FORMAT = 2
SCHEDULES: dict[str, Callable[..., Any]] = {
    type(make(2)).__name__: make for make in (linear_warmup, cyclic_warmup)
}
KEYS = {
    **{"format": int, "class": str, "variant": str, "options": dict, "needed": str},
    **{"model": dict, "versions": dict, "weights": dict},
}


@checked(vae=VARIANT, path=path())
def save(vae: Variant, path: str | Path) -> None:
    """Saves a model in one file: its weights, and the options that it was built with.

    What is plain is saved as it is: sizes, weights, names, our schedules. A model built from that
    alone is rebuilt by ``load(path)``. Parts of one's own (a prior, guide, encoder, decoder or
    likelihood that was passed, a class of one's own, what was changed after building) are code,
    which no file holds: their weights are saved, and ``load(path, into=vae)`` puts them into a
    model that was built in the same way.

    Args:
        vae: The model.
        path: The file, which is replaced if it is there. Read it with `load`; it holds tensors and
            plain values alone.

    Raises:
        OptionError: If it is no variant.
        WriteError: If the file cannot be written.

    Example:
        >>> import tempfile
        >>> vae, path = mi.VAE((1, 8, 8), latent_dim=2), tempfile.mkdtemp() + "/vae.pt"
        >>> mi.save(vae, path)
        >>> mi.load(path).latent_dim
        2
    """
    options, needed = _plain(vae)
    model = describe_model(vae)
    if not needed:
        with torch.random.fork_rng(devices=[]):
            changed = list(differences(model, describe_model(_rebuilt(vae.name, options))))
        needed = f"changes after it was built ({changed[0]})" if changed else ""
    content = {
        "format": FORMAT,
        "class": type(vae).__name__,
        "variant": vae.name,
        "options": options,
        "needed": needed,
        "model": model,
        "versions": versions(),
        "weights": vae.state_dict(),
    }
    write_archive(Path(path), content)


@checked(path=path(), into=VARIANT, trust=flag())
def load(path: str | Path, into: Variant | None = None, *, trust: bool = False) -> Variant:
    """Loads the model of a run folder, or of a file that `save` wrote, on the CPU.

    Args:
        path: What `train_run`, or ``pyro-mivae train``, wrote; or a file of `save`. With ``into``
            also a folder that `fit` kept a checkpoint in.
        into: A model that was built as the saved one was, which gets its weights in place: for
            models with parts of one's own.
        trust: Runs the code that a run folder names, which is otherwise run only if a training of
            this user's ran it before. Read it first, if the folder is not yours. No other file or
            folder holds or names code.

    Returns:
        The variant with its trained weights, in ``eval`` mode; ``into`` itself if that is given.

    Raises:
        OptionError: If ``into`` is no variant.
        RunError: If the folder holds no run, or none with a checkpoint yet; if it names code that
            is not trusted, or was edited since; if the file cannot be read, or needs ``into``; or
            if the weights do not fit, or are not finite.
    """
    path = Path(path)
    if not path.is_file():
        if into is None or not has_checkpoint(path):
            return open_run(path, trust=trust).vae
        state = read_checkpoint(path)
        _check_model(into, Identity.from_state(state), path)
        return _with_weights(into, kept_weights(state), path)
    content = read_saved(path)
    if into is None:
        if content["needed"]:
            raise RunError(
                f"{path} holds the weights of a {content['class']} with {content['needed']}, "
                "which no file holds; build the model as before and give it: "
                f"mi.load({str(path)!r}, into=vae)"
            )
        into = _rebuilt(content["variant"], content["options"])
    _check_model(into, Identity({}, {}, content["model"], content["versions"]), path)
    return _with_weights(into, content["weights"], path)


def read_saved(path: Path) -> dict[str, Any]:
    """Reads what `save` wrote, running no code from it."""
    content = read_archive(path)
    if not all(isinstance(content.get(name), kind) for name, kind in KEYS.items()):
        raise RunError(f"{path} is no file of mi.save; allowed are files that it wrote")
    if content["format"] != FORMAT:
        raise RunError(f"{path} has format {content['format']}; this version reads {FORMAT}")
    return content


def _plain(vae: Variant) -> tuple[dict[str, Any], str]:
    """Options that a file can hold, and in words what it cannot."""
    options: dict[str, Any] = {}
    parts = []
    for name, value in vae.given.items():
        if is_dataclass(value) and type(value).__name__ in SCHEDULES:
            options[name] = {"schedule": type(value).__name__, **asdict(value)}  # type: ignore[arg-type]
        elif name == "data_shape":
            options[name] = list(vae.data_shape)
        elif _is_plain(value):
            options[name] = list(value) if isinstance(value, tuple) else value
        else:
            parts.append(f"{name}={type(value).__name__}")
    if VARIANTS.get(vae.name) is not type(vae):
        parts.insert(0, f"the class {type(vae).__name__} of your own")
    return options, ", ".join(parts)


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _check_model(vae: Variant, saved: Identity, path: Path) -> None:
    """Checks that a model is built as the one was whose weights a file holds."""
    differing = saved.other_model(describe_model(vae))
    if differing:
        raise RunError(
            f"{path} holds the weights of another model: {in_words(differing)} (here is the "
            "given one); build the same, or take the weights alone by load_state_dict"
        )


def _rebuilt(variant: str, options: Mapping[str, Any]) -> Variant:
    given = dict(options)
    try:
        for name, value in given.items():
            if isinstance(value, dict):
                fields = dict(value)
                given[name] = SCHEDULES[fields.pop("schedule")](**fields)
        given["data_shape"] = tuple(given["data_shape"])
        return VARIANTS[variant](**given)
    except (KeyError, TypeError, PyroMivaeError) as error:
        raise RunError(f"the saved {variant!r} cannot be built: {error}") from error


def _with_weights(vae: Variant, weights: Mapping[str, Any], path: Path) -> Variant:
    floating = {v.dtype for v in weights.values() if v.is_floating_point()}
    try:
        _fits(vae, weights)
        check_weights(vae, weights)
        if len(floating) == 1:
            vae.to(floating.pop())
        vae.load_state_dict(weights)
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise RunError(f"the weights in {path} do not fit the model: {reason}") from error
    except OptionError as error:
        raise RunError(f"cannot load {path}: {error}") from None
    return vae.eval()


def _fits(module: nn.Module, weights: Mapping[str, Any]) -> None:
    """Checks names and shapes before anything is written."""
    own = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    saved = {name: tuple(value.shape) for name, value in weights.items()}
    wrong = sorted(k for k in own.keys() | saved.keys() if own.get(k) != saved.get(k))
    if wrong:
        name = wrong[0]
        raise RuntimeError(
            f"{name} has shape {own.get(name, 'none')} in the model and "
            f"{saved.get(name, 'none')} in the file ({len(wrong)} such tensors)"
        )
