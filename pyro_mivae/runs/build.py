"""Variants from configurations: modules by name, or from approved code in files."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import re
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pyro_mivae.data import DATASETS
from pyro_mivae.errors import OptionError, PyroMivaeError, RunError, nearest
from pyro_mivae.guides import FAMILIES
from pyro_mivae.likelihoods import LIKELIHOODS, Likelihood
from pyro_mivae.likelihoods.base import decoder_options
from pyro_mivae.networks import ADVERSARIAL_NETWORKS, NETWORKS
from pyro_mivae.networks.conditional import conditional
from pyro_mivae.options import flags_of
from pyro_mivae.priors import PRIORS, prior_sites
from pyro_mivae.runs.config import (
    PROGRAMS,
    ModelParts,
    RunConfig,
    check_model_options,
    find_variant,
    names_file,
    plain_defaults,
)
from pyro_mivae.schedules import read_target
from pyro_mivae.training.processes import run_source
from pyro_mivae.variants import VARIANTS, Variant

PASSED = "latent_dim", "code_dim", "num_categories", "radius"
STATE = "PYRO_MIVAE_STATE"
NO_BREAK = "\N{NO-BREAK SPACE}"
SYMBOLS = {r"\mid": "|", r"\sim": "~", r"\,": " ", r"\lambda": "λ", r"\beta": "β"}
_approved: dict[str, bytes] = {}  # files by their digest, as they were read


def build_variant(config: RunConfig, data_shape: Sequence[int]) -> Variant:
    """Builds the variant of a run, with weights drawn from the run's seed."""
    variant_class = find_variant(config.variant)
    check_model_options(config.variant, config.model)
    options = {name: read_target(value) for name, value in config.model.items()}
    if config.given_shape is not None:
        options["given_shape"] = config.given_shape
    parts = {f.name: options.pop(f.name, None) for f in fields(ModelParts)}
    network = parts["network"] or "auto"
    digests = config.programs
    seed = config.training.get("seed", 0)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if names_file(options.get("likelihood")):
            known = {"data_shape": tuple(data_shape)}
            options["likelihood"] = load_program(
                options["likelihood"], LIKELIHOODS, "likelihood", known, digests
            )
        sizes = _sizes(variant_class, data_shape, options) if any(parts.values()) else {}
        modules: dict[str, Any] = {}
        if parts["prior"]:
            modules["prior"] = load_program(parts["prior"], PRIORS, "prior", sizes, digests)
            options = _not_taken(options, find_factory(parts["prior"], PRIORS, "prior", digests))
            sizes |= _site_sizes(modules["prior"])
        guide_file = names_file(parts["guide"])
        if network != "auto" or guide_file:
            prior = modules.get("prior") or variant_class.build(data_shape, **options).prior
            sizes["sites"], code_dim = prior_sites(prior)
            code_dim += math.prod(config.given_shape or (0,))
        # A file's guide would else normalise by the batch, or read no condition: its class does
        # not know about these.
        needs_encoder = not variant_class.batch_norm or config.given_shape is not None
        if network != "auto" or (guide_file and needs_encoder):
            outputs = _outputs(options.get("likelihood"))
            if names_file(network):
                networks = _own_networks(network, digests, data_shape, code_dim, outputs)
            else:
                networks = variant_class.build_networks(network, data_shape, code_dim, **outputs)
            modules["encoder"], modules["decoder"] = networks
        if guide_file:
            encoder = modules.pop("encoder", None)
            if encoder is not None:
                sizes["encoder"] = conditional(encoder, data_shape, config.given_shape)
            modules["guide"] = load_program(parts["guide"], FAMILIES, "guide", sizes, digests)
        elif parts["guide"]:
            modules["guide"] = parts["guide"]
            find_factory(parts["guide"], FAMILIES, "guide", digests)
        torch.manual_seed(seed)
        own = [f"--{name} {config.model[name]}" for name in sorted(named_programs(config))]
        with _blaming(f"{' and '.join(own)}: running it fails") if own else nullcontext():
            return variant_class.build(data_shape, **options, **modules)


def _not_taken(options: Mapping[str, Any], factory: Any) -> dict[str, Any]:
    """Options without those that a prior took: the sizes of its sites may be others."""
    taken = {*PASSED} & inspect.signature(factory).parameters.keys() if callable(factory) else {}
    return {name: value for name, value in options.items() if name not in taken}


def _outputs(likelihood: Any) -> dict[str, int]:
    """Keywords of the networks for a likelihood or its name; the variant refuses other names."""
    made = LIKELIHOODS[likelihood]() if likelihood in LIKELIHOODS else likelihood
    return decoder_options(made) if isinstance(made, Likelihood) else {}


def _own_networks(
    spec: str,
    digests: Mapping[str, str],
    data_shape: Sequence[int],
    code_dim: int,
    outputs: Mapping[str, int],
) -> tuple[nn.Module, nn.Module]:
    """Makes the encoder and the decoder of a file's function."""
    sizes = {"data_shape": tuple(data_shape), "code_dim": code_dim, "num_outputs": 1, **outputs}
    pair = load_program(spec, {}, "network", sizes, digests)
    found = pair if isinstance(pair, tuple | list) else [pair]
    if len(found) != 2 or not all(isinstance(part, nn.Module) for part in found):
        kinds = ", ".join(type(part).__name__ for part in found)
        raise OptionError(
            f"--network {spec} returns {kinds}; let it return an encoder and a decoder, two "
            "torch.nn.Modules"
        )
    return found[0], found[1]


@contextmanager
def _blaming(what: str) -> Iterator[None]:
    """Adds the name of the user's code to its errors."""
    try:
        yield
    except PyroMivaeError:
        raise
    except Exception as error:
        raise OptionError(f"{what}: {type(error).__name__}: {error}") from error


def load_program(
    spec: str,
    registry: Mapping[str, Any],
    kind: str,
    sizes: Mapping[str, Any],
    digests: Mapping[str, str],
) -> Any:
    """Makes a part of a model from a name, or from a file's class or function."""
    factory = find_factory(spec, registry, kind, digests)
    if isinstance(factory, nn.Module):
        return factory
    if not callable(factory):
        raise OptionError(
            f"--{kind} {spec} is a {type(factory).__name__}; allowed is a class or function"
        )
    signature = inspect.signature(factory)
    known = {name: value for name, value in sizes.items() if value is not None}
    taken = {name: value for name, value in known.items() if name in signature.parameters}
    try:
        signature.bind(**taken)
    except TypeError as error:
        if "given_shape" in signature.parameters.keys() - taken.keys():
            raise OptionError(
                f"--{kind} {spec} reads the condition of each datum; give it by given=FILE"
            ) from error
        raise OptionError(
            f"--{kind} {spec}: {error}; it can receive {', '.join(known)}: give the other "
            "arguments a default"
        ) from error
    with _blaming(f"--{kind} {spec} fails"):
        made = factory(**taken)
    if kind in ("prior", "guide") and not callable(made):
        raise OptionError(
            f"--{kind} {spec} returns a {type(made).__name__}; name a class, or a function that "
            f"returns a {kind}"
        )
    return made


def find_factory(
    spec: str, registry: Mapping[str, Any], kind: str, digests: Mapping[str, str]
) -> Any:
    """Returns what makes a part of a model: of a registry, or of an approved file.

    A file's bytes are those that `approve` read, not a compiled copy. The module's
    ``__pyro_mivae_digest__`` is their digest.
    """
    if spec in registry:
        return registry[spec]
    if not names_file(spec):
        allowed = f"{nearest(spec, registry)}; allowed are {', '.join(registry)}, or FILE.py:NAME"
        raise OptionError(f"no {kind} {spec!r}{allowed}")
    (path, name), digest = find_program(spec, kind), digests.get(kind)
    if digest is None or digest not in _approved:
        raise RunError(f"--{kind} {spec} was not approved; nothing of it was run")
    module_name = f"_pyro_mivae_{path.stem}_{digest[:12]}"
    with _blaming(f"--{kind} {spec}: {path} fails when imported"):
        module = run_source(module_name, str(path), digest, _approved[digest])
    if not hasattr(module, name):
        public = [key for key in vars(module) if not key.startswith("_")]
        hint = nearest(name, public) or "; allowed are its classes and functions"
        raise OptionError(f"--{kind} {spec}: {path} defines no {name!r}{hint}")
    return getattr(module, name)


def _sizes(
    variant_class: type[Variant], data_shape: Sequence[int], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Sizes that priors and guides may take: those of the variant's own prior, else given ones."""
    sizes: dict[str, Any] = {"data_shape": tuple(data_shape)}
    for name in ("given_shape", *PASSED):
        sizes[name] = options.get(name)
    try:
        sizes |= _site_sizes(variant_class.build(data_shape, **options).prior)
    except OptionError:
        pass  # sizes that the variant's own prior refuses may suit another
    return sizes


def _site_sizes(prior: Callable[[], torch.Tensor]) -> dict[str, int]:
    """Sizes of a prior's sites, by keyword."""
    sizes: dict[str, int] = {}
    for name, fn in prior_sites(prior)[0].items():
        if fn.has_enumerate_support:
            sizes["num_categories"] = int(fn.probs.shape[-1])
        elif name in ("z", "c"):
            keyword = "latent_dim" if name == "z" else "code_dim"
            sizes[keyword] = int(fn.event_shape.numel())
    return sizes


def named_programs(config: RunConfig) -> frozenset[str]:
    """Returns the options that name code from a file."""
    return frozenset(kind for kind in PROGRAMS if names_file(config.model.get(kind)))


def approve(
    config: RunConfig, folder: Path, *, named: Collection[str] = (), trust: bool = False
) -> RunConfig:
    """Checks that the code in a configuration may run; runs none.

    It may run if the user names it or trusts the folder, or if a training in which this user named
    it ran the same file before. Each file is read once: later calls in this process run these
    bytes.
    """
    digests = {}
    for kind in sorted(named_programs(config)):
        path, name = find_program(config.model[kind], kind)
        try:
            source = path.read_bytes()
        except OSError as error:
            raise OptionError(f"cannot read {path}: {error.strerror}") from error
        now, then = hashlib.sha256(source).hexdigest(), config.programs.get(kind)
        if then not in (None, now):
            raise RunError(
                f"{path}, which --{kind} names, was edited since the run in {folder} was made "
                f"(its SHA-256 is {now[:12]}, and was {str(then)[:12]}); restore it, or train "
                "again"
            )
        if not (trust or kind in named or (then and _entry(now, path, name) in _trusted())):
            raise RunError(
                f"{folder} names code, --{kind} {name} of {path} (SHA-256 {now[:12]}), which "
                "none of your trainings is known to have run; nothing of it was run: read the "
                "file, then give trust=True to run it"
            )
        digests[kind] = now
        _approved[now] = source
    return replace(config, programs=digests)


def remember(config: RunConfig, named: Collection[str]) -> None:
    """Records the code that this user named, outside of run folders, so that it may run again.

    If the record cannot be written there is no error: later commands ask.
    """
    for kind in sorted(named_programs(config) & set(named)):
        path, name = find_program(config.model[kind], kind)
        entry = _entry(config.programs[kind], path, name)
        if entry in _trusted():
            continue
        try:
            file = _state() / "trusted"
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file.touch(mode=0o600)
            with file.open("a", encoding="utf-8") as opened:
                opened.write(f"{entry}\n")
        except (OSError, RuntimeError):  # RuntimeError: there is no home
            return


def find_program(spec: str, kind: str) -> tuple[Path, str]:
    """Splits ``FILE.py:NAME``."""
    file, name = spec.rsplit(":", 1)
    path = Path(file).resolve()
    if path.suffix != ".py" or not path.is_file():
        raise OptionError(f"--{kind} {spec}: there is no file {path}; allowed is FILE.py:NAME")
    return path, name


def _entry(digest: str, path: Path, name: str) -> str:
    return json.dumps([digest, name, str(path)])


def _trusted() -> list[str]:
    try:
        return (_state() / "trusted").read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, RuntimeError):
        return []


def _state() -> Path:
    """The folder of this user's record of approved code."""
    if os.environ.get(STATE):
        return Path(os.environ[STATE])
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "pyro_mivae"


_LISTED: dict[str, Mapping[str, object]] = {
    "variants (pyro-mivae train VARIANT)": VARIANTS,
    "data sets (--data NAME, or FILE.npz, .npy or .csv, or FOLDER)": DATASETS,
    "priors (--prior NAME, or FILE.py:NAME)": PRIORS,
    "guides (--guide NAME, or FILE.py:NAME)": FAMILIES,
    "likelihoods (--likelihood NAME, or FILE.py:NAME)": LIKELIHOODS,
    "networks (--network NAME, auto, or FILE.py:NAME)": NETWORKS,
    "networks of infogan (--network NAME, auto, or FILE.py:NAME)": ADVERSARIAL_NETWORKS,
}


def names() -> dict[str, dict[str, str]]:
    """Returns a line about each variant, data set, prior, guide, likelihood and network."""
    return {
        title.partition(" (")[0]: {name: _first_line(of) for name, of in registry.items()}
        for title, registry in _LISTED.items()
    }


def listing() -> str:
    """Lists variants with their options, priors, guides, and data sets."""
    lines = []
    for title, registry in _LISTED.items():
        width = max(map(len, registry))
        lines += ["", title]
        for name, of in registry.items():
            lines.append(f"  {name:<{width}}  {_first_line(of)}".rstrip())
            options = ", ".join(_flags(name)) if registry is VARIANTS else ""
            told = textwrap.wrap(options, 96 - width, break_on_hyphens=False)
            lines += [f"  {'':<{width}}  {line.replace(NO_BREAK, ' ')}" for line in told]
    return "\n".join(lines[1:])


def _flags(variant: str) -> Iterator[str]:
    """Flags of a variant's options, with defaults that do not depend on the data."""
    defaults = plain_defaults(variant)
    for name, flag in (flags_of(VARIANTS[variant].options()) | flags_of(ModelParts)).items():
        default = defaults.get(name)
        yield (
            flag if default is None or isinstance(default, bool) else f"{flag}{NO_BREAK}{default}"
        )


def _first_line(of: object) -> str:
    """First paragraph of a docstring, its mathematics as plain text."""
    text = " ".join((inspect.getdoc(of) or "").split("\n\n")[0].split())
    text = re.sub(r"(?:: )?:math:`[^`]{30,}`", "", text)  # what is too long for a list
    text = re.sub(r":math:`([^`]*)`|``([^`]*)``", r"\1\2", text)
    for latex, plain in SYMBOLS.items():
        text = text.replace(latex, plain)
    return text.replace("`", "").rstrip(".")
