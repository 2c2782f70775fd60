"""Models in a file: their weights and the plain options of their constructors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch

from pyro_mivae.arguments import checked, flag, path
from pyro_mivae.errors import OptionError, PyroMivaeError, RunError
from pyro_mivae.runs.run import open_run
from pyro_mivae.runs.safetensors import SUFFIX, read_safetensors, write_safetensors
from pyro_mivae.schedules import Target, cyclic_warmup, linear_warmup
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
    type(made).__name__: type(made) for made in (linear_warmup(2), cyclic_warmup(2), Target(1.0))
}
KEYS = {
    **{"format": int, "class": str, "variant": str, "options": dict, "needed": str},
    **{"model": dict, "versions": dict, "weights": dict},
}


@checked(vae=VARIANT, path=path())
def save(vae: Variant, path: str | Path) -> None:
    """Saves a model in one file: its weights and the options of its constructor.

    Plain options are saved: sizes, numbers, names, schedules of this package. ``load(path)``
    rebuilds a model that needs only these. Your own parts (a prior, guide, encoder, decoder or
    likelihood, a class, changes after construction) are code, which the file does not hold. Their
    weights are saved, and ``load(path, into=vae)`` puts them into a model built in the same way.

    Args:
        vae: The model.
        path: The file, replaced if it exists; it holds only tensors and plain values. A name that
            ends in ``.safetensors`` makes a safetensors file, with the options as JSON in its
            header; that needs the extra ``safetensors``.

    Raises:
        OptionError: If it is not a variant, or the package is missing.
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
    built = {"class": type(vae).__name__, "variant": vae.name, "options": options, "model": model}
    kept = {"needed": needed, "versions": versions(), "weights": vae.state_dict()}
    write = write_safetensors if Path(path).suffix == SUFFIX else write_archive
    write(Path(path), {"format": FORMAT, **built, **kept})


@checked(path=path(), into=VARIANT, trust=flag())
def load(path: str | Path, into: Variant | None = None, *, trust: bool = False) -> Variant:
    """Loads the model of a run folder, or of a file that `save` wrote, on the CPU.

    Args:
        path: A run folder of ``pyro-mivae train``, or a file of `save`; with ``into`` also a
            folder with a checkpoint of `fit`.
        into: A model built like the saved one, which gets the weights in place; for models with
            your own parts.
        trust: True to run the code that a run folder names. Otherwise it runs only if a training
            of this user ran it before. Read it first, if the folder is not yours.

    Returns:
        The trained variant in ``eval`` mode; ``into`` itself if that is given.

    Raises:
        OptionError: If ``into`` is not a variant.
        RunError: If the folder holds no run, or no checkpoint; if it names code that is not
            trusted or was edited; if the file cannot be read, or needs ``into``; or if the weights
            do not match, or are not finite.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/vae.pt"
        >>> mi.save(mi.VAE((1, 8, 8), latent_dim=2), path)
        >>> load(path).training
        False
    """
    path = Path(path)
    if path.is_file():
        content = read_safetensors(path) if path.suffix == SUFFIX else read_archive(path)
        if not all(isinstance(content.get(name), kind) for name, kind in KEYS.items()):
            raise RunError(f"{path} was not written by mi.save; allowed are files that it wrote")
        if content["format"] != FORMAT:
            raise RunError(
                f"{path} has format {content['format']}; this version reads {FORMAT}: load it "
                "with the version of pyro-mivae that wrote it"
            )
        saved = Identity({}, {}, content["model"], content["versions"])
        weights = content["weights"]
        if into is None:
            if content["needed"]:
                raise RunError(
                    f"{path} holds the weights of a {content['class']} with {content['needed']}, "
                    "which no file holds; build the model as before and give it: "
                    f"mi.load({str(path)!r}, into=vae)"
                )
            into = _rebuilt(content["variant"], content["options"])
    elif into is None or not has_checkpoint(path):
        return open_run(path, trust=trust).vae
    else:
        state = read_checkpoint(path)
        saved, weights = Identity.from_state(state), kept_weights(state)
    differing = saved.other_model(describe_model(into))
    if differing:
        raise RunError(
            f"{path} holds the weights of another model: {in_words(differing)} (here is the "
            "given one); build the same, or take the weights alone by load_state_dict"
        )
    try:
        check_weights(into, weights)
        dtypes = {value.dtype for value in weights.values() if value.is_floating_point()}
        into.to(dtypes.pop() if len(dtypes) == 1 else into.dtype).load_state_dict(weights)
    except (RuntimeError, AttributeError, TypeError, OptionError) as error:
        raise RunError(f"cannot load {path}: {' '.join(str(error).split())[:300]}") from error
    return into.eval()


def _plain(vae: Variant) -> tuple[dict[str, Any], str]:
    """Options that a file can store, and a description of those that it cannot."""
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


def _rebuilt(variant: str, options: Mapping[str, Any]) -> Variant:
    given = dict(options)
    try:
        for name, value in given.items():
            if isinstance(value, dict):
                fields = dict(value)
                given[name] = SCHEDULES[fields.pop("schedule")](**fields)
        return VARIANTS[variant].build(tuple(given.pop("data_shape")), **given)
    except (KeyError, TypeError, PyroMivaeError) as error:
        raise RunError(
            f"the saved {variant!r} cannot be built: {error}; build the model and give it by into="
        ) from error
