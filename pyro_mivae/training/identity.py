"""The identity of a training run: its options, data, model, code and versions."""

from __future__ import annotations

import ast
import hashlib
import inspect
import platform
import re
import sys
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from importlib import metadata
from itertools import zip_longest
from pathlib import Path
from typing import Any

from torch import nn

from pyro_mivae.elbo import Objective, explain
from pyro_mivae.errors import OptionError, PyroMivaeWarning, RunError
from pyro_mivae.terms import InformationTerm
from pyro_mivae.training.checkpoint import Checkpoint
from pyro_mivae.training.options import TrainingOptions

LIBRARIES = {"abc", "builtins", "pyro", "pyro_mivae", "torch", "torchvision", "zuko"}
PACKAGES = ("pyro-mivae", "pyro-ppl", "torch")
OWN = {"class": "that of the variant"}  # the objective, if none is given
Texts = dict[str, str]


@dataclass(frozen=True)
class Identity:
    """The identity of a training, which all its resumed parts must share."""

    options: dict[str, Any]  # of `fit`, by keyword
    data: dict[str, str]  # fingerprints of the images
    model: dict[str, Any]  # see `describe_model`
    versions: dict[str, str]  # of Python and the packages; a change is a warning
    objective: dict[str, Any] = field(default_factory=lambda: dict(OWN))  # that of `fit`

    @classmethod
    def of(
        cls,
        options: TrainingOptions,
        data: dict[str, str],
        vae: Any,
        objective: Objective | None = None,
    ) -> Identity:
        """Describes a training whose model and objective are as they were built."""
        own = dict(OWN) if objective is None else describe_objective(objective)
        return cls(asdict(options), data, describe_model(vae), versions(), own)

    @classmethod
    def from_state(cls, state: Checkpoint) -> Identity:
        """Reads the identity in a checkpoint."""
        try:
            found = cls(**state["identity"])
            int(found.options["epochs"]), dict(found.data), dict(found.versions)
            dict(found.model["code"])
        except (TypeError, KeyError, ValueError) as error:
            raise RunError(
                f"{state['file']} does not name its run ({error}); restore a copy, or train again"
            ) from error
        return found

    def other_model(self, model: Mapping[str, Any]) -> list[str]:
        """Describes the differences of a model; "here" is the given one, "there" this one.

        Code is compared if both have it under the same version of Python, on which it depends.
        """
        code = {}
        if self.versions.get("python") == platform.python_version():
            code = {k: v for k, v in self.model.get("code", {}).items() if k in model["code"]}
        own = {**self.model, "code": {**model["code"], **code}}
        of_class = differences({"class": model.get("class")}, {"class": own.get("class")})
        return list(of_class) or list(differences(model, own))


def check_identity(given: Identity, started: Identity, folder: Path) -> None:
    """Checks that a training equals that of a folder's run, except for its epochs."""
    begun, otherwise = f"the run in {folder} was started with", "or choose another run="
    for name in given.options.keys() - {"epochs"}:
        usual = getattr(TrainingOptions, name, None)  # of runs that are older than the option
        own, theirs = given.options[name], started.options.get(name, usual)
        if own != theirs:
            raise OptionError(
                f"{name}={own!r} given, but {begun} {theirs!r}; give the same to continue, "
                f"{otherwise}"
            )
    for name, own in given.data.items():
        theirs = started.data.get(name, "none")  # of runs that are older than labels
        if own != theirs:
            raise OptionError(
                f"other {name} given than {begun} (fingerprint {own} in place of "
                f"{theirs}); give the same to continue, {otherwise}"
            )
    for part, found in (
        ("model", started.other_model(given.model)),
        ("objective", differences(given.objective, started.objective)),
    ):
        if differing := in_words(found):
            raise OptionError(
                f"another {part} given than {begun}: {differing}; build it as before, {otherwise}"
            )
    if newer := in_words(differences(given.versions, started.versions)):
        warnings.warn(
            f"{begun} other versions, and continues with other rounding: {newer}",
            PyroMivaeWarning,
            stacklevel=2,
        )


def versions() -> Texts:
    """Returns the versions of Python and of the packages that decide a run's numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def describe_model(vae: Any) -> dict[str, Texts]:
    """Describes the structure of a variant; models built in the same way have equal texts."""
    arguments = {f.name: f.default for f in fields(type(vae).options())} | vae.given
    plain = {k: v for k, v in arguments.items() if v is not None and _is_plain(v)}
    options = {name: _told(value) for name, value in plain.items()}
    modules = re.sub(r"0x[0-9a-f]+", "", repr(vae))
    shapes = "\n".join(f"{name} {tuple(v.shape)}" for name, v in vae.state_dict().items())
    parts = {"modules": modules, "weights": shapes, "objective": explain(vae.objective())}
    for path, module in vae.named_modules():
        ours = type(module).__module__.startswith("pyro_mivae.")
        if ours or (module is not vae and not _is_ours(type(module))):
            parts |= {f"{path}.{name}".strip("."): told for name, told in _attributes(module)}
    if _is_ours(type(vae.likelihood)):
        parts |= {f"likelihood.{name}": told for name, told in _fixed_numbers(vae.likelihood)}
    code = {name: _of_function(value) for name, value in arguments.items()}
    for name, value in arguments.items():
        if isinstance(value, InformationTerm):  # an option with its own options
            parts |= _numbers_of(name, value)
            code |= _functions_of(name, value)
    code |= _classes(*vae.modules())
    return {
        "class": {"class": type(vae).__qualname__},
        "options": options,
        "parts": parts,
        "code": {k: v for k, v in code.items() if v},
    }


def describe_objective(objective: Objective) -> dict[str, Any]:
    """Describes an objective of the user; those built in the same way have equal texts."""
    terms = getattr(objective, "terms", ())
    named = {"objective": objective} | {f"term {term.name}": term for term in terms}
    parts = {"objective": explain(objective)}
    code = _classes(*named.values())
    for name, part in named.items():
        parts |= _numbers_of(name, part)
        code |= _functions_of(name, part)
    code = {k: v for k, v in code.items() if v}
    return {"class": type(objective).__qualname__, "parts": parts, "code": code}


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[str]:
    """Yields the differences of two descriptions in words."""
    for name in dict.fromkeys([*ours, *theirs]):
        here, there = ours.get(name, "absent"), theirs.get(name, "absent")
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            yield from differences(here, there)
        elif here != there:
            lines = zip_longest(str(here).splitlines(), str(there).splitlines(), fillvalue="")
            one, other = next(pair for pair in lines if pair[0] != pair[1])
            yield f"{name} is {one.strip() or 'none'} here and {other.strip() or 'none'} there"


def in_words(found: Iterable[str]) -> str:
    """Joins the first three differences and counts the others; empty without any."""
    texts = list(found)
    return "; ".join(texts[:3]) + (f"; and {len(texts) - 3} more" if len(texts) > 3 else "")


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or is_dataclass(value) or isinstance(value, bool | int | float | str)


def _told(value: Any) -> str:
    """A text in which 1 equals 1.0, and a list equals a tuple."""
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_told, value))})"
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole else str(value)


def _is_ours(kind: type) -> bool:
    return kind.__module__.split(".")[0] in LIBRARIES


def _attributes(module: Any) -> Iterator[tuple[str, str]]:
    """Plain public attributes."""
    for name, value in vars(module).items():
        if not name.startswith("_") and name != "training" and _is_plain(value):
            yield name, _told(value)


def _numbers_of(name: str, part: Any) -> Texts:
    """Plain attributes of a term or an objective, and of its state."""
    found: Texts = {}
    for each in (part, *part.state.modules()):
        transient = getattr(each, "unguarded", ())
        numbers = {own: told for own, told in _attributes(each) if own not in transient}
        found |= {f"{name}.{own}": told for own, told in numbers.items()}
    for place, module in part.state.named_modules():
        if (target := getattr(module, "target", None)) is not None:
            found[f"{name}.{place}.target"] = str(target)
    return found


def _functions_of(name: str, part: Any) -> Texts:
    """Digests of the functions that a term or an objective holds, schedules too."""
    found = {f"{name}.{own}": _of_function(value) for own, value in vars(part).items()}
    for place, module in part.state.named_modules():
        found[f"{name}.{place}.schedule"] = _of_function(getattr(module, "schedule", None))
    return found


def _classes(*parts: Any) -> Texts:
    """Digests of the classes of some objects that are not of a library."""
    found: Texts = {}
    kinds = {kind for part in parts for kind in type(part).__mro__}
    for kind in sorted(kinds, key=lambda kind: (kind.__module__, kind.__qualname__)):
        if not _is_ours(kind):  # classes of one name stand together
            found[kind.__qualname__] = found.get(kind.__qualname__, "") + _digest(kind)
    return found


def _fixed_numbers(part: Any) -> Iterator[tuple[str, str]]:
    """Buffers that are a single number, such as a fixed scale."""
    for name, value in part.named_buffers() if isinstance(part, nn.Module) else ():
        if value.dim() == 0 and value.is_floating_point():
            yield name, f"{float(value):.7g}"


def _of_function(value: Any) -> str:
    """A digest of a function's code and its plain values; empty for anything else."""
    code = getattr(value, "__code__", None)
    if code is None:
        return ""
    cells = [cell.cell_contents for cell in value.__closure__ or ()]
    plain = [repr(item) for item in (*code.co_consts, *cells) if _is_plain(item)]
    text = f"{code.co_code.hex()} {code.co_names} {plain}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _digest(kind: type) -> str:
    """A digest of a class's source, or of its whole file if a run names that."""
    of_file = getattr(sys.modules.get(kind.__module__), "__pyro_mivae_digest__", None)
    if of_file is not None:
        return str(of_file)
    try:
        source = ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(kind))))
    except (OSError, TypeError, SyntaxError):
        return ""
    return hashlib.blake2b(source.encode(), digest_size=16).hexdigest()
