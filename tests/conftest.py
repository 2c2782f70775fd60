"""Every test starts from an empty parameter store, validation on, and the same random numbers."""

import os
import shutil
from collections.abc import Iterator

import pyro
import pytest
import torch

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # there is a worker for each core

COMPILERS = (os.environ.get("CXX", "g++"), "g++", "clang++")


@pytest.fixture(autouse=True)
def clean_state() -> Iterator[None]:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    dtype = torch.get_default_dtype()
    with pyro.validation_enabled(True):
        yield
    torch.set_default_dtype(dtype)
    pyro.clear_param_store()


@pytest.fixture(autouse=True)
def on_the_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets ``device="auto"`` mean the CPU on every machine, but for the tests of a device."""
    if request.node.get_closest_marker("gpu") is None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(autouse=True, scope="session")
def no_users_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps what is remembered of a user in a folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYRO_MIVAE_STATE", str(tmp_path_factory.mktemp("state")))
        yield


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if item.get_closest_marker("compiler") and not any(map(shutil.which, COMPILERS)):
        pytest.skip(f"needs a C++ compiler: one of {', '.join(COMPILERS)}")
