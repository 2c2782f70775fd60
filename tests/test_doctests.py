"""The examples in docstrings run and give what they say."""

import doctest
import importlib
import pkgutil

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
