"""Code from files that options name: its approval, and the running of the approved bytes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyro_mivae.errors import OptionError, RunError, nearest
from pyro_mivae.runs.config import PROGRAMS, RunConfig, names_file
from pyro_mivae.training.processes import run_source

STATE = "PYRO_MIVAE_STATE"
_approved: dict[str, bytes] = {}  # files by their digest, as they were read


def named_programs(config: RunConfig) -> frozenset[str]:
    """Returns the options that name code from a file."""
    return frozenset(kind for kind in PROGRAMS if names_file(config.model.get(kind)))


def approve(
    config: RunConfig, folder: Path, *, named: Collection[str] = (), trust: bool = False
) -> RunConfig:
    """Checks that the code that a configuration names may be run; runs none.

    It may be run where the user names it or trusts the folder, or where a training in which this
    user named it ran the same file before. Each file is read once, so later calls in this process
    run the bytes that were read here.
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
                f"(its SHA-256 is {now[:12]}, and was {str(then)[:12]}); put it back, or train "
                "anew"
            )
        if not (trust or kind in named or (then and _entry(now, path, name) in _trusted())):
            raise RunError(
                f"{folder} names code, --{kind} {name} of {path} (SHA-256 {now[:12]}), which no "
                "training of yours is known to have run; nothing of it was run: read the file, "
                "then give trust=True to run it"
            )
        digests[kind] = now
        _approved[now] = source
    return replace(config, programs=digests)


def remember(config: RunConfig, named: Collection[str]) -> None:
    """Notes outside of all run folders what code this user named, so that it may be run again.

    A home that cannot be written to is no error: later commands ask then.
    """
    for kind in sorted(named_programs(config) & set(named)):
        path, name = find_program(config.model[kind], kind)
        entry = _entry(config.programs[kind], path, name)
        if entry in _trusted():
            continue
        try:
            file = _state() / "trusted"
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            opened = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(opened, f"{entry}\n".encode())
            finally:
                os.close(opened)
        except (OSError, RuntimeError):  # RuntimeError: there is no home
            return


def find_program(spec: str, kind: str) -> tuple[Path, str]:
    """Takes ``FILE.py:NAME`` apart."""
    file, name = spec.rsplit(":", 1)
    path = Path(file).resolve()
    if path.suffix != ".py" or not path.is_file():
        raise OptionError(f"--{kind} {spec}: there is no file {path}; allowed is FILE.py:NAME")
    return path, name


def run_program(spec: str, kind: str, digest: str | None) -> Any:
    """Runs a file, and returns the object in it that ``FILE.py:NAME`` names.

    The bytes are those that `approve` read, not a compiled copy beside the file. Their digest is
    the module's ``__pyro_mivae_digest__``.
    """
    path, name = find_program(spec, kind)
    if digest is None or digest not in _approved:
        raise RunError(f"--{kind} {spec} was not approved; nothing of it was run")
    module_name = f"_pyro_mivae_{path.stem}_{digest[:12]}"
    try:
        module = run_source(module_name, str(path), digest, _approved[digest])
    except Exception as error:
        raise OptionError(
            f"--{kind} {spec}: {path} fails when imported: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, name):
        public = [key for key in vars(module) if not key.startswith("_")]
        hint = nearest(name, public)
        raise OptionError(f"--{kind} {spec}: {path} defines no {name!r}{hint}")
    return getattr(module, name)


def _entry(digest: str, path: Path, name: str) -> str:
    return json.dumps([digest, name, str(path)])


def _trusted() -> list[str]:
    try:
        return (_state() / "trusted").read_text(encoding="utf-8", errors="replace").splitlines()
    except (OSError, RuntimeError):
        return []


def _state() -> Path:
    """The folder of what is remembered of this user."""
    if os.environ.get(STATE):
        return Path(os.environ[STATE])
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "pyro_mivae"
