"""The examples in docstrings run and give what they say."""

import doctest
import importlib
import importlib.util
import inspect
import pkgutil
from dataclasses import is_dataclass
from pathlib import Path

import pytest
import torch

import pyro_mivae as mi

MODULES = [m.name for m in pkgutil.walk_packages(mi.__path__, "pyro_mivae.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    results = doctest.testmod(module, extraglobs={"torch": torch, "mi": mi}, optionflags=flags)
    assert results.failed == 0


def test_every_public_name_has_an_example():
    path = Path(__file__).parents[1] / "docs" / "reference.py"
    spec = importlib.util.spec_from_file_location("reference", path)
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    shown = reference.documented()
    assert {value for name in mi.__all__ if callable(value := getattr(mi, name))} <= shown
    lacking = [
        f"{value.__module__}.{value.__qualname__}"
        for value in shown
        if ">>>" not in (value.__doc__ or "") and not is_result(value)
    ]
    assert not sorted(lacking)


@pytest.mark.parametrize("name", MODULES)
def test_every_public_method_has_a_docstring_or_inherits_one(name):
    module = importlib.import_module(name)
    classes = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == name]
    lacking = []
    for one in (c for c in classes if not c.__name__.startswith("_")):
        known = [vars(base) for base in one.__mro__ if base.__module__.startswith("pyro_mivae")]
        for method, value in vars(one).items():
            function = getattr(value, "fget", getattr(value, "func", inspect.unwrap(value)))
            if not method.startswith("_") and getattr(function, "__name__", "") == method:
                if not any(getattr(of.get(method), "__doc__", None) for of in known):
                    lacking.append(f"{one.__qualname__}.{method}")
    assert not lacking


def is_result(value):
    """Errors, and records that a function fills: the example is that of the function."""
    return inspect.isclass(value) and (
        is_dataclass(value) or issubclass(value, Exception | dict | list | tuple)
    )
