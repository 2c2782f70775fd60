"""Every test starts from an empty parameter store, validation on, and the same random numbers."""

import functools
import gc
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyro
import pytest
import torch
import torch._dynamo  # the first optimiser imports it
from PIL import Image

import pyro_mivae as mi
from pyro_mivae.data import Dataset
from pyro_mivae.diagnostics import report as measuring
from pyro_mivae.diagnostics.generative import generative_information
from pyro_mivae.evidence import annealing_path
from pyro_mivae.networks import presets
from pyro_mivae.runs import Run

from .pretend_cuda import PretendedCuda, pretend_cuda

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # there is a worker for each core

WIDTHS = presets._mlp_widths
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


@pytest.fixture(autouse=True, scope="module")
def few_objects() -> None:
    """Hides what stays from garbage collection, and from every staging: both visit all objects."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def on_the_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets ``device="auto"`` mean the CPU on every machine, but for the tests of a device."""
    if request.node.get_closest_marker("gpu") is None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(autouse=True, scope="session")
def narrow() -> Iterator[None]:
    """Lets networks by name have layers of 32 units: what a test proves holds for any width."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presets, "_mlp_widths", lambda data_shape: (32, 32))
        yield


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks as users have them."""
    monkeypatch.setattr(presets, "_mlp_widths", WIDTHS)


@pytest.fixture
def double(clean_state: None) -> None:
    """Numbers in double precision."""
    torch.set_default_dtype(torch.float64)


@pytest.fixture
def pretended(on_the_cpu: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedCuda]:
    """A pretended CUDA device, which counts what waits for it."""
    with pretend_cuda() as cuda:
        yield cuda
        monkeypatch.undo()  # what a test patched over the pretended device goes first


@pytest.fixture(autouse=True, scope="session")
def no_seeds_for_later() -> Iterator[None]:
    """Lets seeds of devices that are not in use be forgotten: torch keeps a printed stack of each.

    A tenth of the time of the suite went there.
    """
    with pytest.MonkeyPatch.context() as patch:
        for kind in (torch.cuda, torch.xpu, torch.mtia):
            if not kind.is_available():
                patch.setattr(kind, "manual_seed_all", lambda seed: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk() -> Iterator[None]:
    """Lets files be written without a wait until they survive a loss of power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def no_users_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps what is remembered of a user in a folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYRO_MIVAE_STATE", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def images_about() -> Callable[..., torch.Tensor]:
    """Makes images about so many prototypes, the same each time."""

    def images_about(prototypes: int, count: int, *shape: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(5)
        means = torch.rand(prototypes, *shape, generator=generator)
        noise = torch.rand(count, *shape, generator=generator)
        return (means[torch.arange(count) % prototypes] * 0.9 + noise * 0.1).clamp(0, 1)

    return images_about


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Lets the digits be 128 training and 64 test images."""
    whole = mi.load_dataset("digits")
    few = replace(
        whole,
        x_train=whole.x_train[:128],
        y_train=whole.y_train[:128],
        x_test=whole.x_test[:64],
        y_test=whole.y_test[:64],
    )
    for name in ("pyro_mivae.load_dataset", "pyro_mivae.runs.config.load_dataset"):
        monkeypatch.setattr(name, lambda name="digits", **options: few)
    return few


@pytest.fixture(scope="session")
def hasten() -> Callable[[pytest.MonkeyPatch], None]:
    """Makes pictures of a report pixels, whose colour tells images apart, and lessons short.

    Information reports draw hardly any data from the model.
    """

    def pixel(figure: Any, *dark: bool) -> list[Image.Image]:
        images = [image for ax in figure.axes for image in ax.images]
        color = zlib.crc32(b"".join(np.asarray(i.get_array()).tobytes() for i in images))
        return [Image.frombytes("RGB", (1, 1), color.to_bytes(4)[:3]).convert("RGBA")] * len(dark)

    @functools.wraps(generative_information)
    def few_generated(context: Any, draws: Any) -> Any:
        items = min(context.options.generative_items, 4)
        few = replace(context.options, generative_items=items, generative_samples=4)
        return generative_information(replace(context, options=few), draws)

    families = [*measuring.FAMILIES]
    families[families.index(generative_information)] = few_generated

    def quick(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(measuring, "FAMILIES", tuple(families))
        patch.setattr("pyro_mivae.report.pictures.render_schemes", pixel)
        for name in ("LEAST_STEPS", "MOST_STEPS"):
            patch.setattr(f"pyro_mivae.metrics.classifier.{name}", 20)
        patch.setattr("pyro_mivae.metrics.dci.TREES", 3)

    return quick


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, hasten: Callable[[pytest.MonkeyPatch], None]) -> None:
    """Evaluations and reports without the time that classifiers and pictures take."""
    hasten(monkeypatch)


@pytest.fixture
def encoder_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Information reports without data of the model's own, which take most of the time."""
    name = generative_information.__name__
    families = tuple(f for f in measuring.FAMILIES if f.__name__ != name)
    assert len(families) < len(measuring.FAMILIES)
    monkeypatch.setattr(measuring, "FAMILIES", families)


@pytest.fixture
def short_pilot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Annealing with a pilot run of 32 transitions in place of 50: any plan is unbiased."""
    for name, value in {"KNOTS": 8, "SETTLE": 8, "ADAPT": 3}.items():
        monkeypatch.setattr(annealing_path, name, value)


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are trained, and then finished with few figures and an empty page."""

    def evaluate(run: Run, dataset: Dataset, **how: object) -> None:
        metrics = {"elbo": -float(run.config.training["seed"]), "nmi": None}
        text = json.dumps({"metrics": metrics, "protocol": {}})
        (run.folder / "metrics.json").write_text(text)

    def report(run: Run, dataset: Dataset, **how: object) -> None:
        (run.folder / "report.html").touch()

    monkeypatch.setattr("pyro_mivae.runs.group.evaluate_run", evaluate)
    monkeypatch.setattr("pyro_mivae.runs.group.report_run", report)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if item.get_closest_marker("compiler") and not any(map(shutil.which, COMPILERS)):
        pytest.skip(f"needs a C++ compiler: one of {', '.join(COMPILERS)}")
